//! The oracle as a critic.

use hone_worlds::world::ALL_RIGHT;
use hone_worlds::{Detail, Flaw, Place};

use super::{Critic, Critique, Failure, Reply, SpanLabel, StepLabel, Subject};
use crate::error::Result;
use crate::oracle::Oracle;
use crate::refine::Cost;

/// A critic that says what an oracle finds.
#[derive(Debug)]
pub struct Verifier<'a> {
    /// What checks.
    pub oracle: &'a dyn Oracle,
    /// How much is told.
    pub detail: Detail,
}

impl Critic for Verifier<'_> {
    fn name(&self) -> &str {
        "verifier"
    }

    fn criticise(&self, subjects: &[Subject<'_>], _: u64) -> Result<Vec<Reply>> {
        subjects
            .iter()
            .map(|subject| {
                let Some((verdict, flaws)) = self.oracle.examine(subject.record, &subject.answer)? else {
                    let said = Err(Failure::new("the record says no task that can be checked", ""));
                    return Ok(Reply { said, cost: Cost::default(), checks: 0 });
                };
                let (steps, spans) = labels(subject, verdict.right, flaws.first(), self.detail);
                let text = match (verdict.right, flaws.first()) {
                    (true, _) => ALL_RIGHT.to_owned(),
                    (false, Some(flaw)) => flaw.words(self.detail),
                    (false, None) if verdict.words.is_empty() || self.detail < Detail::Reason => {
                        "wrong".to_owned()
                    }
                    (false, None) => verdict.words,
                };
                let critique = Critique {
                    by: self.name().to_owned(),
                    right: Some(verdict.right),
                    score: Some(verdict.score),
                    confidence: Some(1.0),
                    steps,
                    spans,
                    text,
                };
                Ok(Reply { said: Ok(critique), cost: Cost::default(), checks: 1 })
            })
            .collect()
    }
}

/// Labels that the first flaw implies: steps before it are right, those after it are not judged.
fn labels(
    subject: &Subject<'_>,
    right: bool,
    flaw: Option<&Flaw>,
    detail: Detail,
) -> (Vec<StepLabel>, Vec<SpanLabel>) {
    let right_until = |end: usize| (0..end).map(|index| StepLabel { index, right: true });
    match flaw.filter(|_| !right && detail >= Detail::Place) {
        None if right => (right_until(subject.steps.len()).collect(), vec![]),
        None => (vec![], vec![]),
        Some(flaw) => match flaw.place {
            // A step that is missing at the end is none that was written.
            Place::Step(index) if index >= subject.steps.len() => {
                (right_until(subject.steps.len()).collect(), vec![])
            }
            Place::Step(index) => {
                (right_until(index).chain([StepLabel { index, right: false }]).collect(), vec![])
            }
            Place::Span(start, end) => {
                let label = (detail >= Detail::Kind).then(|| flaw.kind.to_owned());
                (vec![], vec![SpanLabel { start, end, label, value: Some(-1.0) }])
            }
            Place::Whole | Place::Line(_) | Place::Rank(_) => (vec![], vec![]),
        },
    }
}

#[cfg(test)]
mod tests {
    use hone_feedback::Record;
    use serde_json::json;

    use super::*;
    use crate::oracle::Checks;

    #[test]
    fn it_labels_steps_up_to_the_first_wrong_one() {
        let task = hone_worlds::world("sums").unwrap().task(4, 3).unwrap();
        let mut record = Record::new("r", task.prompt());
        record.extra.insert("task".into(), json!({"world": "sums", "level": 4, "seed": 3}));
        let reference = task.reference();
        let steps: Vec<&str> = reference.lines().collect();
        // The second step's result is off by one digit more.
        let wrong = [steps[0], &format!("{}0", steps[1]), steps[2]].join("\n");
        let (oracle, unknown) = (Checks::default(), Record::new("u", "x"));
        let verifier = Verifier { oracle: &oracle, detail: Detail::Correction };
        let subjects = [
            Subject::new(&record, reference.as_str()),
            Subject::new(&record, wrong),
            Subject::new(&unknown, "x"),
        ];
        let replies = verifier.criticise(&subjects, 1).unwrap();
        let right = replies[0].said.as_ref().unwrap();
        assert_eq!((right.right, right.score, right.text.as_str()), (Some(true), Some(1.0), "all right"));
        assert_eq!((right.steps.len(), right.first_wrong()), (steps.len(), None));
        let wrong = replies[1].said.as_ref().unwrap();
        assert_eq!((wrong.right, wrong.first_wrong(), wrong.steps.len()), (Some(false), Some(1), 2));
        assert!(wrong.text.starts_with("step 2: calculation"), "{}", wrong.text);
        assert_eq!((replies[1].checks, replies[1].cost), (1, Cost::default()));
        assert!(replies[2].said.as_ref().unwrap_err().why.contains("no task"));
        // A verdict alone gives no place away.
        let terse = Verifier { oracle: &oracle, detail: Detail::Verdict };
        let said = terse.criticise(&subjects[1..2], 1).unwrap().remove(0).said.unwrap();
        assert_eq!((said.text.as_str(), said.steps.len()), ("wrong", 0));
    }
}
