//! The four roles a small model plays, as plain prompts.
//!
//! The texts are fixed here because the model that is shipped was trained on exactly them: who criticises, refines
//! or labels with it must ask in the same words. All are short, so that a model of a few million parameters with a
//! context of a few hundred characters can play every role.

use crate::error::Result;
use crate::world::{ALL_RIGHT, Task};

/// What a model can be asked to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answer the prompt.
    Answer,
    /// Say what is first wrong in an answer.
    Criticise,
    /// Write the answer again, having read a critique.
    Refine,
    /// Say whether an answer is right.
    Label,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Answer, Role::Criticise, Role::Refine, Role::Label];
}

/// Label of a right answer.
pub const YES: &str = "yes";
/// Label of a wrong answer.
pub const NO: &str = "no";

/// Asks for an answer: the task's own prompt.
pub fn answer(prompt: &str) -> String {
    prompt.to_string()
}

/// Asks for a critique of an answer.
pub fn criticise(prompt: &str, answer: &str) -> String {
    format!("{prompt}\n[answer]\n{answer}\n[check]")
}

/// Asks for a better answer, given one and its critique.
pub fn refine(prompt: &str, answer: &str, critique: &str) -> String {
    format!("{prompt}\n[answer]\n{answer}\n[check]\n{critique}\n[better]")
}

/// Asks whether an answer is right; the reply is [`YES`] or [`NO`].
pub fn label(prompt: &str, answer: &str) -> String {
    format!("{prompt}\n[answer]\n{answer}\n[right?]")
}

/// The verdict in a label or critique, if it has one.
///
/// A critique approves exactly when it says [`ALL_RIGHT`] and nothing is called wrong.
pub fn verdict(text: &str) -> Option<bool> {
    let text = text.trim();
    match text {
        YES => Some(true),
        NO => Some(false),
        "" => None,
        _ => Some(text == ALL_RIGHT || text.ends_with(&format!("\n{ALL_RIGHT}"))),
    }
}

/// The true label of an answer.
/// # Errors
/// As [`Task::check`].
pub fn true_label(task: &dyn Task, answer: &str) -> Result<&'static str> {
    Ok(if task.check(answer)?.right { YES } else { NO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_back() {
        assert_eq!(verdict("yes"), Some(true));
        assert_eq!(verdict(" no\n"), Some(false));
        assert_eq!(verdict(""), None);
        assert_eq!(verdict("all right"), Some(true));
        assert_eq!(verdict("step 1 right\nall right"), Some(true));
        assert_eq!(verdict("step 2: calculation"), Some(false));
    }

    #[test]
    fn roles_end_in_their_own_cue() {
        let asked = [criticise("p", "a"), refine("p", "a", "c"), label("p", "a")];
        assert!(asked.iter().all(|text| text.starts_with("p\n[answer]\na\n")));
        assert!(
            asked[0].ends_with("[check]") && asked[1].ends_with("[better]") && asked[2].ends_with("[right?]")
        );
    }
}
