//! How well critics find the first wrong step: the score of ProcessBench and of Mr-GSM8K's step part.

use std::collections::HashMap;

use hone_feedback::{Form, Record};
use serde::Serialize;

use super::Subject;
use super::over::Criticised;

/// Counts over solutions whose first wrong step is known. A solution without a critique counts as not found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FirstErrors {
    /// Solutions with a wrong step.
    pub wrong: usize,
    /// Of them, those whose first wrong step was named exactly.
    pub found: usize,
    /// Solutions without one.
    pub right: usize,
    /// Of them, those that were passed.
    pub passed: usize,
}

impl FirstErrors {
    /// Share of wrong solutions whose first wrong step was named, in `[0, 1]`; 0 of none.
    pub fn on_wrong(&self) -> f64 {
        self.found as f64 / self.wrong.max(1) as f64
    }

    /// Share of right solutions that were passed, in `[0, 1]`; 0 of none.
    pub fn on_right(&self) -> f64 {
        self.passed as f64 / self.right.max(1) as f64
    }

    /// The harmonic mean of both shares, which ProcessBench calls F1; 0 where both are 0.
    pub fn f1(&self) -> f64 {
        let (wrong, right) = (self.on_wrong(), self.on_right());
        if wrong + right > 0.0 { 2.0 * wrong * right / (wrong + right) } else { 0.0 }
    }
}

/// The first wrong step of a response by the log, from 0: `Some(None)` where all steps are labelled right, `None` where the
/// labels do not decide it.
pub fn known(record: &Record, response: &str) -> Option<Option<usize>> {
    let mut right: HashMap<usize, bool> = HashMap::new();
    for item in &record.feedback {
        if let Form::Step { on, index, correct } = &item.form
            && on == response
        {
            right.insert(*index, *correct);
        }
    }
    let steps = Subject::of_response(record, record.response(response)?).steps.len();
    let first = (0..steps).find(|index| right.get(index) != Some(&true));
    match first {
        None => (steps > 0).then_some(None),
        Some(index) => right.contains_key(&index).then_some(Some(index)),
    }
}

/// Counts over those rows whose response has known labels; `None` if there are none.
pub fn first_errors(records: &[Record], rows: &[Criticised]) -> Option<FirstErrors> {
    let by_id: HashMap<&str, &Record> = records.iter().map(|record| (record.id.as_str(), record)).collect();
    let mut counts = FirstErrors::default();
    for row in rows {
        let Some(truth) = by_id.get(row.record.as_str()).and_then(|record| known(record, &row.response))
        else {
            continue;
        };
        let said = row.critique.as_ref();
        match truth {
            Some(index) => {
                counts.wrong += 1;
                counts.found += usize::from(said.is_some_and(|said| said.first_wrong() == Some(index)));
            }
            None => {
                counts.right += 1;
                let passes =
                    said.is_some_and(|said| said.first_wrong().is_none() && said.right != Some(false));
                counts.passed += usize::from(passes);
            }
        }
    }
    (counts.wrong + counts.right > 0).then_some(counts)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::critique::{Critic, Critique, Failure, Logged, Reads, Reply, critique_templates, of_boxed};
    use crate::evaluate::journal::Journal;

    /// Says that everything is right.
    #[derive(Debug)]
    struct Pleased;

    impl Critic for Pleased {
        fn name(&self) -> &str {
            "pleased"
        }

        fn criticise(&self, subjects: &[Subject<'_>], _: u64) -> crate::Result<Vec<Reply>> {
            let reply = |subject| Reply {
                said: of_boxed("**Answer**: \\boxed{-1}", subject),
                cost: Default::default(),
                checks: 0,
            };
            Ok(subjects.iter().map(reply).collect())
        }
    }

    #[test]
    fn f1_by_hand() {
        // 3 of 4 wrong ones found, 1 of 2 right ones passed: 2 · 0.75 · 0.5 / 1.25 = 0.6.
        let counts = FirstErrors { wrong: 4, found: 3, right: 2, passed: 1 };
        assert!((counts.f1() - 0.6).abs() < 1e-12);
        assert_eq!(FirstErrors { wrong: 3, found: 0, right: 2, passed: 0 }.f1(), 0.0);
    }

    #[test]
    fn labels_count_from_0_answers_from_1_and_failures_count_as_wrong() {
        let mut record = Record::new("r", "p").respond("a", "one\ntwo");
        record.responses[0].steps = Some(vec!["one".into(), "two".into()]);
        let step = |index, correct| Form::Step { on: "a".into(), index, correct };
        let undecided = record.clone().say(step(1, false));
        let record = record.say(step(0, true)).say(step(1, false));
        assert_eq!((known(&record, "a"), known(&undecided, "a")), (Some(Some(1)), None));
        let row = |critique: Option<Critique>| Criticised {
            record: "r".into(),
            response: "a".into(),
            failed: critique.is_none().then(|| Failure::new("x", "")),
            critique,
            cost: Default::default(),
            checks: 0,
        };
        let records = [record];
        let subject = Subject::of_response(&records[0], &records[0].responses[0]);
        let said = of_boxed("**Answer**: \\boxed{2}", &subject).unwrap();
        let rows = [row(Some(said)), row(None)];
        let counts = first_errors(&records, &rows).unwrap();
        assert_eq!(counts, FirstErrors { wrong: 2, found: 1, right: 0, passed: 0 });
    }

    #[test]
    fn the_published_sets_are_read_and_scored() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        // Solutions and those without an error, counted apart with a script.
        let sets = [
            ("processbench/gsm8k.jsonl", 400, 193),
            ("processbench/math_400.jsonl", 400, 169),
            ("mr_gsm8k/mr_gsm8k_568.jsonl", 568, 289),
        ];
        for (file, all, right) in sets {
            let path = root.join(file);
            if !path.exists() {
                eprintln!("skipped: {} is not there", path.display());
                continue;
            }
            let reader = hone_feedback::formats::open(&path, &Default::default()).unwrap();
            let records: Vec<Record> = reader.map(|row| row.unwrap().record).collect();
            let score = |critic: &dyn Critic| {
                let mut journal = Journal::memory();
                let rows =
                    crate::critique::over::criticise(critic, &records, &mut journal, 100, 1, &mut |_, _| {});
                first_errors(&records, &rows.unwrap().0).unwrap()
            };
            let labels = score(&Logged);
            assert_eq!(labels, FirstErrors { wrong: all - right, found: all - right, right, passed: right });
            assert_eq!(labels.f1(), 1.0);
            let pleased = score(&Pleased);
            assert_eq!((pleased.on_right(), pleased.on_wrong(), pleased.f1()), (1.0, 0.0, 0.0));
            // The prompt numbers the steps from 1 and shows the problem.
            let subject = Subject::of_response(&records[0], &records[0].responses[0]);
            let templates = critique_templates(None).unwrap();
            let context =
                minijinja::context! { prompt => &*records[0].prompt.text(), steps => &subject.steps };
            let text = templates.render(Reads::FirstError.prompt(), context).unwrap();
            assert!(text.starts_with(&*records[0].prompt.text()) && text.contains("\nStep 1: "), "{text}");
        }
    }
}
