//! Answers of start and result to the same held-out prompts, side by side.

use hone_feedback::{Content, Feedback, Form, Prompt, Record};
use serde::{Deserialize, Serialize};

use super::number::{or_nan, short};
use super::text::headline;

/// Held-out prompts with both answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Samples {
    /// How they were chosen, as in `20 of 312 held-out prompts, drawn with seed 7 before anything was measured`.
    pub how: String,
    /// The samples.
    pub items: Vec<Sample>,
}

/// One held-out prompt, both answers, and what people had said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Id of the record.
    pub id: String,
    /// What was asked, turn by turn.
    pub prompt: Vec<Turn>,
    /// The answer of the model at the start.
    pub start: String,
    /// The answer of the result.
    pub result: String,
    /// Scores of both answers.
    pub scores: Vec<Score>,
    /// What people had left on this prompt.
    pub feedback: Vec<Said>,
}

/// One turn of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Who speaks: `user`, `system`, …; `text` for a raw prompt.
    pub role: String,
    /// What is said.
    pub text: String,
}

/// One score of both answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What is scored.
    pub name: String,
    /// Of the answer at the start; NaN where there is none.
    #[serde(deserialize_with = "or_nan")]
    pub start: f64,
    /// Of the result's answer.
    #[serde(deserialize_with = "or_nan")]
    pub result: f64,
}

/// One thing that somebody said about a prompt's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// The form, and the aspect where there is one.
    pub form: String,
    /// What was said apart from words: `4 of 1 to 5`, `good`, `a over b`.
    pub value: String,
    /// The words.
    pub text: Option<String>,
    /// Who.
    pub by: Option<String>,
    /// The beginning of the answer it is about.
    pub about: Option<String>,
}

/// Scalar values of a logged answer that are quoted beside the feedback on it.
const QUOTED: usize = 160;

impl Sample {
    /// A sample of `record`: its prompt and its feedback, with the two models' answers.
    pub fn from_record(record: &Record, start: impl Into<String>, result: impl Into<String>) -> Self {
        let prompt = match &record.prompt {
            Prompt::Text(text) => vec![Turn { role: "text".into(), text: text.clone() }],
            Prompt::Messages(messages) => messages
                .iter()
                .map(|message| Turn { role: message.role.clone(), text: message.text().into_owned() })
                .collect(),
        };
        Sample {
            id: record.id.clone(),
            prompt,
            start: start.into(),
            result: result.into(),
            scores: Vec::new(),
            feedback: record.feedback.iter().map(|item| Said::from_feedback(record, item)).collect(),
        }
    }

    /// The same sample with one more score of both answers.
    #[must_use]
    pub fn score(mut self, name: impl Into<String>, start: f64, result: f64) -> Self {
        self.scores.push(Score { name: name.into(), start, result });
        self
    }
}

impl Said {
    /// One item of feedback in words, quoting the answer of `record` that it is about.
    pub fn from_feedback(record: &Record, item: &Feedback) -> Self {
        let form = match &item.aspect {
            Some(aspect) => format!("{}, {aspect}", item.form.kind()),
            None => item.form.kind().to_string(),
        };
        let quote = |id: &str| match record.response(id) {
            Some(response) => headline(&response.content.text(), QUOTED),
            None => id.to_owned(),
        };
        let words = item.words().map(str::to_owned);
        let (value, text) = match &item.form {
            Form::Edit { content, .. } => (words.unwrap_or_default(), Some(content_text(content))),
            Form::Span { on, start, end, .. } => {
                let part = record.response(on).and_then(|r| {
                    hone_feedback::text::slice(&r.content.text(), *start, *end).map(str::to_owned)
                });
                (value_in_words(&item.form, part.as_deref()), words)
            }
            form => (value_in_words(form, None), words),
        };
        let about = match &item.form {
            Form::Comparison { better, worse } => {
                Some(format!("{} — over — {}", quote(better), quote(worse)))
            }
            form => form.on().map(quote),
        };
        Said { form, value, text, by: item.by.clone(), about }
    }
}

fn content_text(content: &Content) -> String {
    content.text().into_owned()
}

/// What a form says apart from words. `part` is the text of a span.
fn value_in_words(form: &Form, part: Option<&str>) -> String {
    match form {
        Form::Thumb { value: true, .. } => "good".into(),
        Form::Thumb { value: false, .. } => "bad".into(),
        Form::Rating { value, scale: Some([low, high]), .. } => {
            format!("{} on a scale of {} to {}", short(*value), short(*low), short(*high))
        }
        Form::Rating { value, scale: None, .. } => short(*value),
        Form::Comparison { .. } => "better than the other".into(),
        Form::Ranking { order } => {
            order.iter().map(|place| place.join(" = ")).collect::<Vec<_>>().join(" > ")
        }
        Form::Span { label, value, .. } => {
            let label = label.as_deref().unwrap_or("marked");
            let value = value.map_or(String::new(), |value| format!(" ({})", short(value)));
            format!("{label}{value}: “{}”", headline(part.unwrap_or("?"), QUOTED))
        }
        Form::Step { index, correct, .. } => {
            format!("step {} {}", index + 1, if *correct { "right" } else { "wrong" })
        }
        Form::Outcome { check, passed, .. } => {
            format!("{check} {}", if *passed { "passed" } else { "failed" })
        }
        Form::Event { event, value, .. } => match value {
            Some(value) => format!("{event} {}", short(*value)),
            None => event.clone(),
        },
        Form::Rule { scope: Some(scope), .. } => format!("for {scope}"),
        Form::Critique { .. } | Form::Edit { .. } | Form::Rule { scope: None, .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_said_in_words() {
        let on = || "a".to_owned();
        let forms = [
            (Form::Thumb { on: on(), value: false }, "bad"),
            (Form::Rating { on: on(), value: 4.0, scale: Some([1.0, 5.0]) }, "4 on a scale of 1 to 5"),
            (Form::Comparison { better: on(), worse: "b".into() }, "better than the other"),
            (Form::Ranking { order: vec![vec![on(), "c".into()], vec!["b".into()]] }, "a = c > b"),
            (Form::Critique { on: Some(on()), text: "too long".into() }, ""),
            (Form::Span { on: on(), start: 1, end: 2, label: None, value: Some(-1.0) }, "marked (−1): “ß”"),
            (Form::Span { on: on(), start: 1, end: 99, label: None, value: None }, "marked: “?”"),
            (Form::Step { on: on(), index: 0, correct: false }, "step 1 wrong"),
            (Form::Outcome { on: on(), check: "tests".into(), passed: true }, "tests passed"),
            (Form::Event { on: None, event: "copied".into(), value: None }, "copied"),
            (Form::Rule { text: "no emojis".into(), scope: Some("mail".into()) }, "for mail"),
        ];
        let record = Record::new("r", "q").respond("a", "aßc").respond("b", "other");
        for (form, value) in forms {
            let said = Said::from_feedback(&record, &form.clone().into());
            assert_eq!(said.value, value, "{form:?}");
            if form.on().is_some() {
                assert_eq!(said.about.as_deref(), Some("aßc"), "{form:?}");
            }
        }
    }

    #[test]
    fn an_edit_shows_its_text() {
        let record = Record::new("r", "q").respond("a", "teh").say(
            Feedback::from(Form::Edit { on: "a".into(), content: "the".into() })
                .by("user:1")
                .with_text("typo"),
        );
        let sample = Sample::from_record(&record, "x", "y").score("reward", 0.5, 1.5);
        let said = &sample.feedback[0];
        assert_eq!((said.value.as_str(), said.text.as_deref()), ("typo", Some("the")));
        assert_eq!((said.by.as_deref(), said.about.as_deref()), (Some("user:1"), Some("teh")));
        assert_eq!(sample.prompt, [Turn { role: "user".into(), text: "q".into() }]);
        assert_eq!(sample.scores[0].result, 1.5);
    }
}
