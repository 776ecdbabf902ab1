//! A recipe as a run: one method, all of its data, no budget.

use std::path::{Path, PathBuf};

use hone_feedback::text::hash;
use hone_lm::{Local, LocalOptions};
use hone_worlds::people::{self, Form, LogSettings, People};

use super::Settings;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, Source};
use crate::tiny;

/// Responses per prompt of a simulated log.
const RESPONSES: usize = 4;

/// Folder of data sets that a path is also looked for under: beside the working directory.
const DATA: &str = "../shared/data";

/// Prompts of a simulated log that stands in for data: enough to show a batch.
const STAND_IN: usize = 30;

/// The run that a recipe asks for. A simulated log (`world:NAME/FORM`) is written to `out`, answered by the recipe's
/// model; one that is there already is used as it is.
///
/// With `dry`, what is published but not here is stood in for: a model by the built-in one, data by the recipe's
/// `stand_in`, whose log is written to a temporary folder.
///
/// # Errors
/// [`Error::File`] for data that names no world or form, or that is not there; those of the world, the model and of
/// writing.
pub fn settings(recipe: &Recipe, out: &Path, dry: bool) -> Result<Settings> {
    let fault = |problem: String| Error::File { path: format!("recipe of `{}`", recipe.method), problem };
    let model = match &recipe.model {
        Some(Source::Folder(folder)) => folder.clone(),
        Some(Source::Published(model)) if Path::new(&model.name).is_dir() => PathBuf::from(&model.name),
        Some(Source::Published(model)) if !dry => {
            return Err(fault(format!("model {} is not here; name its folder with --model", model.name)));
        }
        Some(Source::Published(_)) | None => tiny::folder()?,
    };
    let log = match (recipe.data.strip_prefix("world:"), found(&recipe.data), &recipe.stand_in) {
        (Some(task), ..) => simulated(task, recipe, recipe.records, &model, out)?,
        (None, Some(path), _) => path,
        (None, None, Some(world)) if dry => {
            let task = world.strip_prefix("world:").unwrap_or(world);
            simulated(task, recipe, STAND_IN, &tiny::folder()?, &stand_ins())?
        }
        (None, None, Some(_)) => {
            return Err(fault(format!("data {} is not here; name the log with --data", recipe.data)));
        }
        // Opening it says what is wrong.
        (None, None, None) => PathBuf::from(&recipe.data),
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

/// Where logs that stand in for data are written.
pub(super) fn stand_ins() -> PathBuf {
    std::env::temp_dir().join("hone-stand-ins")
}

/// A file of this name, here or among the data sets.
fn found(data: &str) -> Option<PathBuf> {
    [PathBuf::from(data), Path::new(DATA).join(data)].into_iter().find(|path| path.is_file())
}

/// The log of simulated people in `folder`, written if it is not there.
fn simulated(task: &str, recipe: &Recipe, records: usize, model: &Path, folder: &Path) -> Result<PathBuf> {
    // Named after all that it depends on, so that a changed recipe never meets an old log.
    let key = format!("{task} {records} {} {}", recipe.seed, model.display());
    let path = folder.join(format!("log-{:08x}.jsonl", hash(key.as_bytes()) as u32));
    if !path.exists() {
        simulate(task, recipe.seed, records, model, &path)?;
    }
    Ok(path)
}

fn simulate(task: &str, seed: u64, prompts: usize, model: &Path, path: &Path) -> Result<()> {
    let (name, forms) = task.split_once('/').ok_or_else(|| Error::File {
        path: "recipe".into(),
        problem: format!("`data`: needs world:NAME/FORM, as in world:notes/comparison, got `world:{task}`"),
    })?;
    let world = hone_worlds::world(name)?;
    let forms = forms.split(',').map(Form::named).collect::<hone_worlds::Result<_>>()?;
    let settings = LogSettings { prompts, responses: RESPONSES, forms, seed, ..LogSettings::default() };
    let answers = Local::from_folder(model, &LocalOptions::default())?;
    let records = crate::simulate::log(world.as_ref(), &People::sample()?, &settings, &answers)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    // Runs beside each other may write the same log; the last to finish names it.
    let own = format!("{}-{:?}.partial", std::process::id(), std::thread::current().id());
    let partial = path.with_extension(own);
    people::write_log(&partial, &records)?;
    std::fs::rename(&partial, path).map_err(Error::io(path))
}
