//! A reviewer who knows the reference and the first failing assert, and answers in words without code.
//!
//! For studies of feedback in dialogue: the reply says what to look at, in one of several wordings.
//! [`blank`] is the baseline that carries no content.

use rand_chacha::ChaCha8Rng;

use super::Function;
use crate::error::Result;
use crate::seed::pick;
use crate::world::{Place, Task};

/// What the reviewer says, or `None` if the answer is right.
/// # Errors
/// [`crate::Error::Sandbox`] if the answer cannot be run.
pub fn review(function: &Function, answer: &str, rng: &mut ChaCha8Rng) -> Result<Option<String>> {
    let check = function.check(answer)?;
    let Some(flaw) = check.first() else { return Ok(None) };
    let line = match flaw.place {
        Place::Line(index) => format!("line {}", index + 1),
        _ => "it".to_string(),
    };
    let wordings: &[&str] = match flaw.kind {
        "syntax" => &["{line} is not python, look at its end", "something is missing in {line}"],
        "name" => &["{line} uses a name that is not there", "check the names in {line}"],
        "type" => &["{line} mixes two types", "the types in {line} do not fit"],
        "operator" => &["the sign in {line} is wrong", "look at the sign in {line}"],
        "number" => &["the number in {line} is off", "{line} has a wrong number"],
        "return" => &["nothing comes back", "do not forget to give the result back"],
        "loop" => &["the loop never ends", "{line} never ends the loop"],
        "hidden" => &["right as far as shown, think of other inputs", "some inputs still go wrong"],
        "crash" => &["{line} breaks on some input", "it stops with an error in {line}"],
        _ => &["the result is wrong, read the task again", "do what is asked: the result is not it"],
    };
    Ok(Some(pick(rng, wordings).replace("{line}", &line)))
}

/// Feedback without content.
pub fn blank(rng: &mut ChaCha8Rng) -> &'static str {
    pick(rng, &["still wrong", "not right yet", "try again"])
}
