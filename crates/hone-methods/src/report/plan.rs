//! What was done with the log, and what was not.

use hone_feedback::FormKind;
use serde::{Deserialize, Serialize};

/// The steps of a run and the methods that were left aside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The time allowed, as given. None: no limit.
    pub budget: Option<String>,
    /// How prompts were split, as in `by a hash of the prompt: 900 to train, 100 held out`.
    pub split: String,
    /// The steps in the order they ran.
    pub steps: Vec<Step>,
    /// Methods that the log could have fed, or nearly, and why they were not run.
    pub not_chosen: Vec<NotChosen>,
}

/// One step: one method on one part of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Id of the method in the catalogue.
    pub method: String,
    /// Its name as the authors write it.
    pub name: String,
    /// Why it was chosen, one sentence.
    pub why: String,
    /// The forms of feedback it was fed from.
    pub forms: Vec<FormKind>,
    /// Training examples.
    pub examples: u64,
    /// Settings, in the order to show them.
    pub settings: Vec<(String, String)>,
    /// Wall time, seconds. None: it did not run.
    pub seconds: Option<f64>,
    /// How it ended where that needs saying: stopped by the budget, kept, rolled back.
    pub ended: Option<String>,
}

/// A method that was left aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotChosen {
    /// Id of the method.
    pub method: String,
    /// Why not, one sentence.
    pub why: String,
}

impl Step {
    /// A step by `method`, chosen because of `why`.
    pub fn new(method: impl Into<String>, name: impl Into<String>, why: impl Into<String>) -> Self {
        Step { method: method.into(), name: name.into(), why: why.into(), ..Step::default() }
    }

    /// The same step with one more setting.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// The same step, fed from these forms with this many examples.
    #[must_use]
    pub fn fed(mut self, forms: impl IntoIterator<Item = FormKind>, examples: u64) -> Self {
        self.forms.extend(forms);
        self.examples = examples;
        self
    }
}

impl NotChosen {
    /// `method` was left aside because of `why`.
    pub fn new(method: impl Into<String>, why: impl Into<String>) -> Self {
        NotChosen { method: method.into(), why: why.into() }
    }
}
