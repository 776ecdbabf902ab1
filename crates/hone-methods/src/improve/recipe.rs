//! A recipe as a run: one method, all of its data, no budget.

use std::path::{Path, PathBuf};

use hone_feedback::text::hash;
use hone_lm::{Local, LocalOptions};
use hone_worlds::people::{self, Form, LogSettings, People};

use super::Settings;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::tiny;

/// Responses per prompt of a simulated log.
const RESPONSES: usize = 4;

/// The run that a recipe asks for. A simulated log (`world:NAME/FORM`) is written to `out`, answered by the recipe's
/// model; one that is there already is used as it is.
///
/// # Errors
/// [`Error::File`] for data that names no world or form; those of the world, the model and of writing.
pub fn settings(recipe: &Recipe, out: &Path) -> Result<Settings> {
    let model = match &recipe.model {
        Some(folder) => folder.clone(),
        None => tiny::folder()?,
    };
    let log = match recipe.data.strip_prefix("world:") {
        None => PathBuf::from(&recipe.data),
        Some(task) => {
            // Named after all that it depends on, so that a changed recipe never meets an old log.
            let key = format!("{task} {} {} {}", recipe.records, recipe.seed, model.display());
            let path = out.join(format!("log-{:08x}.jsonl", hash(key.as_bytes()) as u32));
            if !path.exists() {
                simulate(task, recipe, &model, &path)?;
            }
            path
        }
    };
    Ok(Settings {
        logs: vec![log],
        from: None,
        model,
        methods: vec![recipe.method.clone()],
        set: vec![],
        budget: None,
        held_out: recipe.held_out,
        seed: recipe.seed,
        lora: 0,
        keep: true,
        recipes: vec![recipe.clone()],
    })
}

fn simulate(task: &str, recipe: &Recipe, model: &Path, path: &Path) -> Result<()> {
    let (name, forms) = task.split_once('/').ok_or_else(|| Error::File {
        path: "recipe".into(),
        problem: format!("`data`: needs world:NAME/FORM, as in world:notes/comparison, got `world:{task}`"),
    })?;
    let world = hone_worlds::world(name)?;
    let forms = forms.split(',').map(Form::named).collect::<hone_worlds::Result<_>>()?;
    let settings = LogSettings {
        prompts: recipe.records,
        responses: RESPONSES,
        forms,
        seed: recipe.seed,
        ..LogSettings::default()
    };
    let answers = Local::from_folder(model, &LocalOptions::default())?;
    let records = crate::simulate::log(world.as_ref(), &People::sample()?, &settings, &answers)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let partial = path.with_extension("partial");
    people::write_log(&partial, &records)?;
    std::fs::rename(&partial, path).map_err(Error::io(path))
}
