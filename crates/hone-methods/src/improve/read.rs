//! The log of a run: read, checked, and split by prompt.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hone_feedback::convert::{self, Losses, Shape};
use hone_feedback::doctor::{self, Report};
use hone_feedback::formats::{self, Options};
use hone_feedback::split::{Side, key_of, side_of_key};
use hone_feedback::text::{folded_hash, hash};
use hone_feedback::{FormKind, Record};
use hone_lm::Tokenizer;

use crate::error::{Error, Result};
use crate::method::{Makes, Method};

/// Share of the training prompts that decide whether a step is kept. They are trained on by no step.
const VALIDATION: f64 = 0.1;

/// A log in memory, in three parts of which no two share what it was split by.
#[derive(Debug)]
pub struct Log {
    /// To train on.
    pub train: Vec<Record>,
    /// To decide by whether a step is kept.
    pub validation: Vec<Record>,
    /// To measure on, once at the start and once at the end.
    pub held_out: Vec<Record>,
    /// What the doctor says.
    pub report: Report,
    /// What the parts do not share.
    pub split: Split,
    /// Sound records without feedback and without a check, which nothing can use.
    pub silent: usize,
}

/// What a log is split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The prompt: no prompt is in two parts.
    Prompt,
    /// The prompt with its first response, where there are too few prompts: no first response to a prompt is in two parts.
    Answer,
}

impl Split {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Split::Prompt => "by a hash of the prompt",
            Split::Answer => {
                "by a hash of prompt and first answer, since there are too few prompts to split by them"
            }
        }
    }
}

/// Fewer prompts than this are not split by: one part might well be empty.
const LEAST_PROMPTS: usize = 10;

/// How a log is read and split.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// The files, read as one log.
    pub files: &'a [PathBuf],
    /// Their format, where content does not tell.
    pub from: Option<&'a str>,
    /// Share of prompts that is held out, in (0, 1).
    pub held_out: f64,
    /// Draws the split.
    pub seed: u64,
}

impl Log {
    /// Reads, checks and splits. Lines that give no record are in the doctor's report.
    ///
    /// # Errors
    /// A file that cannot be opened, or whose format nothing tells; [`Error::Log`] if training may not go on, with the
    /// doctor's reasons; [`Error::Data`] if no prompt is left on one side.
    pub fn read(reading: &Reading<'_>, tokenizer: &Tokenizer) -> Result<Log> {
        // A text that cannot be encoded counts as empty: lengths are a survey, training reads the text again.
        let count = |text: &str| tokenizer.encode(text, false).map_or(0, |ids| ids.len());
        let options = Options { from: reading.from.map(str::to_string), ..Options::default() };
        let settings = doctor::Settings {
            options: options.clone(),
            threads: crate::policy::threads(),
            tokens: Some(&count),
            ..doctor::Settings::default()
        };
        let report = doctor::check(reading.files, &settings).map_err(|e| Error::Log(e.to_string()))?;
        if !report.verdict.may_train() {
            return Err(Error::Log(format!("training may not go on\n\n{report}")));
        }
        let (mut all, mut silent) = (vec![], 0);
        for file in reading.files {
            let told = |record: &Record| !record.feedback.is_empty() || crate::oracle::Checks::knows(record);
            let records = records(file, &options)?;
            let before = all.len() + records.len();
            all.extend(records.into_iter().filter(told));
            silent += before - all.len();
        }
        let prompts: HashSet<u64> = all.iter().map(key_of).collect();
        let split = if prompts.len() < LEAST_PROMPTS { Split::Answer } else { Split::Prompt };
        let (mut train, mut validation, mut held_out) = (vec![], vec![], vec![]);
        for record in all {
            let mut key = key_of(&record);
            if let (Split::Answer, Some(first)) = (split, record.responses.first()) {
                key ^= folded_hash(&first.content.text()).rotate_left(1);
            }
            match side_of_key(key, reading.held_out, reading.seed) {
                Side::HeldOut => held_out.push(record),
                // Another draw of the same kind, so that the third part is stable too.
                Side::Train => match side_of_key(key, VALIDATION, reading.seed ^ 0x5eed) {
                    Side::HeldOut => validation.push(record),
                    Side::Train => train.push(record),
                },
            }
        }
        if train.is_empty() || held_out.is_empty() {
            return Err(Error::Data {
                method: "improve".into(),
                needed: "prompts both to train on and to measure on".into(),
                got: format!("{} and {}", train.len() + validation.len(), held_out.len()),
            });
        }
        Ok(Log { train, validation, held_out, report, split, silent })
    }

    /// A hash of all records, in hexadecimal.
    pub fn digest(&self) -> String {
        let all = [&self.train, &self.validation, &self.held_out];
        let hashes = all.into_iter().flatten().map(|record| hash(record.to_json().as_bytes()));
        format!("{:016x}", hash(&hashes.flat_map(u64::to_le_bytes).collect::<Vec<u8>>()))
    }

    /// The records that a method works on: those to train on, or, where nothing is trained, those held out.
    pub fn side(&self, method: &Method) -> &[Record] {
        match method.makes {
            Makes::Answers | Makes::Measures => &self.held_out,
            Makes::Policy | Makes::Reward => &self.train,
        }
    }

    /// Examples of a shape in the training part. All marked spans of one response are one example.
    pub fn examples(&self, shape: Shape) -> usize {
        let of = |record: &Record| match shape {
            Shape::SpanLabels => {
                let spans = convert::span_labels(record, &mut Losses::default());
                spans.iter().map(|span| std::ptr::from_ref(span.content)).collect::<HashSet<_>>().len()
            }
            shape => shape.count(record),
        };
        self.train.iter().map(of).sum()
    }

    /// Items of a form in the training part.
    pub fn items(&self, form: FormKind) -> usize {
        self.train.iter().flat_map(|record| &record.feedback).filter(|item| item.form.kind() == form).count()
    }
}

/// The sound records of a file; the others are the doctor's.
pub(crate) fn records(file: &Path, options: &Options) -> Result<Vec<Record>> {
    let reader = formats::open(file, options).map_err(|e| Error::Log(e.to_string()))?;
    Ok(reader.filter_map(|item| Some(item.ok()?.record)).collect())
}
