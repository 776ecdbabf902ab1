//! The words that methods ask models with: Jinja templates that settings, or files in a folder, can replace.

use std::path::Path;

use hone_feedback::Prompt;
use hone_lm::LanguageModel;
use hone_lm::model::Sample;

use crate::catalogue::nearest;
use crate::error::{Error, Result};
use crate::policy::lm_prompt;
use crate::refine::{Draw, sample};

/// The ending of a template's file.
const ENDING: &str = "jinja";

/// Named templates of one method.
#[derive(Debug)]
pub struct Templates<'a> {
    method: &'static str,
    names: Vec<&'a str>,
    environment: minijinja::Environment<'a>,
}

impl<'a> Templates<'a> {
    /// Templates from their names, which are those of the settings, and their sources.
    ///
    /// # Errors
    /// [`Error::Settings`] naming the first that is no template.
    pub fn new(method: &'static str, sources: &[(&'a str, &'a str)]) -> Result<Templates<'a>> {
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        for (name, source) in sources {
            environment.add_template(name, source).map_err(|e| fault(method, name, &e))?;
        }
        let names = sources.iter().map(|(name, _)| *name).collect();
        Ok(Templates { method, names, environment })
    }

    /// Replaces those that the folder holds, `NAME.jinja` each.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for a template that nothing here is called by, with the nearest name;
    /// [`Error::Settings`] for one that does not parse.
    pub fn overridden_by(mut self, folder: &Path) -> Result<Templates<'a>> {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if !self.names.contains(&name.as_str()) {
                let near = nearest(&name, self.names.iter().copied()).unwrap_or_default();
                let problem = format!("no prompt is called so; the nearest is `{near}.{ENDING}`");
                return Err(Error::File { path: path.display().to_string(), problem });
            }
            let source = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            let added = self.environment.add_template_owned(name.clone(), source);
            added.map_err(|e| fault(self.method, &name, &e))?;
        }
        Ok(self)
    }

    /// The text of one template.
    ///
    /// # Errors
    /// [`Error::Settings`] for a template that is not there, or that names what is not in the context.
    pub fn render(&self, name: &str, context: minijinja::Value) -> Result<String> {
        let rendered = self.environment.get_template(name).and_then(|template| template.render(context));
        rendered.map_err(|e| fault(self.method, name, &e))
    }
}

fn fault(method: &str, name: &str, error: &minijinja::Error) -> Error {
    Error::Settings { method: method.into(), message: format!("`{name}`: {error}") }
}

/// `n` answers to each text, put as one message of the user, each from a stream of its own; as [`sample`].
///
/// # Errors
/// As [`sample`].
pub fn ask_texts(
    model: &dyn LanguageModel,
    texts: impl IntoIterator<Item = String>,
    n: usize,
    draw: &Draw,
    seed: u64,
) -> Result<Vec<Vec<Sample>>> {
    let chats = model.capabilities().chat;
    let prompts = texts.into_iter().map(|text| lm_prompt(&Prompt::from(text), chats));
    sample(model, &prompts.collect::<Result<Vec<_>>>()?, n, draw, seed)
}

/// What stands after the last `marker`, without space around it; all of the text for an empty marker, none where the
/// marker is missing or nothing follows it.
pub fn after<'t>(text: &'t str, marker: &str) -> Option<&'t str> {
    let rest = if marker.is_empty() { text } else { text.rsplit_once(marker)?.1 };
    Some(rest.trim()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_cannot_be_read_or_filled_are_named() {
        let refused = Templates::new("c3po", &[("revise", "{{ prompt")]).unwrap_err().to_string();
        assert!(refused.starts_with("settings of `c3po`: `revise`: syntax error"), "{refused}");
        let templates = Templates::new("c3po", &[("revise", "{{ prompt }}!")]).unwrap();
        assert_eq!(templates.render("revise", minijinja::context! { prompt => "p" }).unwrap(), "p!");
        let refused = templates.render("revise", minijinja::context! {}).unwrap_err().to_string();
        assert!(refused.starts_with("settings of `c3po`: `revise`: undefined value"), "{refused}");
    }

    #[test]
    fn the_answer_stands_after_the_last_marker() {
        assert_eq!(after("ANSWER: no. ANSWER: yes \n", "ANSWER:"), Some("yes"));
        assert_eq!(
            (after("yes", "ANSWER:"), after("ANSWER: ", "ANSWER:"), after(" yes ", "")),
            (None, None, Some("yes"))
        );
    }

    #[test]
    fn a_folder_replaces_by_name_and_strangers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = || Templates::new("m", &[("one", "1 {{ x }}"), ("two", "2")]).unwrap();
        std::fs::write(folder.path().join("one.jinja"), "uno {{ x }}").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "not a prompt").unwrap();
        let templates = made().overridden_by(folder.path()).unwrap();
        assert_eq!(templates.render("one", minijinja::context! { x => 7 }).unwrap(), "uno 7");
        assert_eq!(templates.render("two", minijinja::context! {}).unwrap(), "2");
        std::fs::write(folder.path().join("tow.jinja"), "x").unwrap();
        let refused = made().overridden_by(folder.path()).unwrap_err().to_string();
        assert!(
            refused.ends_with("tow.jinja: no prompt is called so; the nearest is `two.jinja`"),
            "{refused}"
        );
    }
}
