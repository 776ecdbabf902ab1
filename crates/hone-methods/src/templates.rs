//! The words that methods ask models with: Jinja templates that settings can replace.

use hone_feedback::Prompt;
use hone_lm::LanguageModel;
use hone_lm::model::Sample;

use crate::error::{Error, Result};
use crate::policy::lm_prompt;
use crate::refine::{Draw, sample};

/// Named templates of one method.
#[derive(Debug)]
pub struct Templates<'a> {
    method: &'static str,
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
        Ok(Templates { method, environment })
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
}
