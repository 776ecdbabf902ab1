//! The people in the log as a critic.

use hone_feedback::{Feedback, Form};

use super::{Critic, Critique, Failure, Reply, SpanLabel, StepLabel, Subject, combine};
use crate::error::Result;
use crate::refine::Cost;

/// A critic that says what the record itself holds about the response of the same text. Each person's items are one
/// critique; several people are an ensemble.
#[derive(Debug, Clone, Copy)]
pub struct Logged;

impl Critic for Logged {
    fn name(&self) -> &str {
        "log"
    }

    fn criticise(&self, subjects: &[Subject<'_>], _: u64) -> Result<Vec<Reply>> {
        let reply = |subject: &Subject<'_>| {
            let said = combine(people(subject).into_iter().map(Ok).collect());
            Reply { said, cost: Cost::default(), checks: 0 }
        };
        Ok(subjects.iter().map(reply).collect())
    }
}

/// What each person says of the answer, in the order in which they first speak.
fn people(subject: &Subject<'_>) -> Vec<Critique> {
    let responses = subject.record.responses.iter();
    let same: Vec<&str> =
        responses.filter(|r| r.content.text() == subject.answer).map(|r| r.id.as_str()).collect();
    let mut said: Vec<Critique> = vec![];
    for item in &subject.record.feedback {
        let Some(on) = item.form.on() else { continue };
        if !same.contains(&on) {
            continue;
        }
        let by = item.by.clone().unwrap_or_else(|| "log".into());
        let at = said.iter().position(|critique| critique.by == by).unwrap_or_else(|| {
            said.push(Critique { by, ..Critique::default() });
            said.len() - 1
        });
        add(&mut said[at], item);
    }
    // An edit or an event alone says nothing that a critique could hold.
    said.retain(|c| {
        c.right.is_some()
            || c.score.is_some()
            || !c.text.is_empty()
            || !c.steps.is_empty()
            || !c.spans.is_empty()
    });
    said
}

fn add(critique: &mut Critique, item: &Feedback) {
    match &item.form {
        // Of several verdicts by one person the last counts.
        Form::Thumb { value, .. } => critique.right = Some(*value),
        Form::Outcome { passed, .. } => critique.right = Some(*passed),
        Form::Rating { value, scale: Some([low, high]), .. } if high > low => {
            critique.score = Some(((value - low) / (high - low)).clamp(0.0, 1.0));
        }
        Form::Step { index, correct, .. } => {
            critique.steps.retain(|step| step.index != *index);
            critique.steps.push(StepLabel { index: *index, right: *correct });
            critique.steps.sort_by_key(|step| step.index);
        }
        Form::Span { start, end, label, value, .. } => {
            critique.spans.push(SpanLabel { start: *start, end: *end, label: label.clone(), value: *value });
            critique.spans.sort_by_key(|span| (span.start, span.end));
        }
        _ => {}
    }
    if let Some(confidence) = item.extra.get("confidence").and_then(serde_json::Value::as_f64) {
        critique.confidence = Some(confidence);
    }
    if let Some(words) = item.words().filter(|words| !words.is_empty()) {
        if !critique.text.is_empty() {
            critique.text.push('\n');
        }
        critique.text.push_str(words);
    }
}

/// What stands for nothing having been said.
pub(super) fn nothing() -> Failure {
    Failure::new("nothing was said of this answer", "")
}

#[cfg(test)]
mod tests {
    use hone_feedback::Record;

    use super::*;

    #[test]
    fn each_person_is_one_statement_and_the_majority_decides() {
        let thumb = |value, by: &str| Feedback::from(Form::Thumb { on: "a".into(), value }).by(by);
        let words = |text: &str, by: &str| {
            Feedback::from(Form::Critique { on: Some("a".into()), text: text.into() }).by(by)
        };
        let record = Record::new("r", "p")
            .respond("a", "x")
            .respond("b", "y")
            .say(thumb(true, "ann"))
            .say(words("fine", "ann"))
            .say(thumb(false, "bob"))
            .say(words("too short", "bob"))
            .say(thumb(false, "cy"));
        let replies = Logged.criticise(&[Subject::new(&record, "x"), Subject::new(&record, "y")], 1).unwrap();
        let said = replies[0].said.as_ref().unwrap();
        // Two of three say no; the words are those of one who says so, the confidence their share.
        assert_eq!((said.right, said.text.as_str(), said.by.as_str()), (Some(false), "too short", "bob"));
        assert!((said.confidence.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(replies[1].said, Err(nothing()));
    }
}
