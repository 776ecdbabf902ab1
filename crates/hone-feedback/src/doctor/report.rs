//! What the doctor found, for people and machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::error::Problems;
use crate::feedback::FormKind;

/// Everything found in a log.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Files, each with the format found.
    pub files: Vec<(String, &'static str)>,
    /// Sound records.
    pub records: u64,
    /// Lines that gave no sound record. Each has its entry in `problems`.
    pub refused: u64,
    /// What is wrong, by line.
    pub problems: Problems,
    /// Responses of sound records.
    pub responses: u64,
    /// Items of feedback by form.
    pub forms: BTreeMap<FormKind, u64>,
    /// Languages of a sample, most frequent first.
    pub languages: Vec<Language>,
    /// Records in the sample for languages and tokens.
    pub sampled: u64,
    /// Lengths of prompts and responses, by what was measured.
    pub lengths: Vec<Lengths>,
    /// Records whose prompt and responses were all there before.
    pub duplicates: Finding,
    /// Ids that an earlier record has.
    pub repeated_ids: Finding,
    /// Pairs that an earlier pair has the other way round.
    pub swapped_pairs: Finding,
    /// Pairs of two texts that are the same but for case and white space, and responses tied by a ranking.
    pub tied_pairs: Finding,
    /// Records in which one source says both one thing and its opposite.
    pub contradictions: Finding,
    /// Prompts that lie in more than one split.
    pub leaks: Finding,
    /// Distinct prompts.
    pub prompts: u64,
    /// Agreement per question: a form and an aspect.
    pub agreement: Vec<Agreement>,
    /// Sources by number of items.
    pub sources: Vec<Source>,
    /// Per training shape, what the log gives.
    pub usable: Vec<Usable>,
    /// Whether training may go on.
    pub verdict: Verdict,
}

/// Something counted, with the places of the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How many.
    pub count: u64,
    /// File and line of the first ones.
    pub first: Vec<String>,
}

impl Finding {
    /// Adds one.
    pub(super) fn add(&mut self, file: &str, line: u64) {
        self.count += 1;
        if self.first.len() < 5 {
            self.first.push(format!("{file}:{line}"));
        }
    }
}

/// One language and how much of the sample is in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Language {
    /// ISO 639-3 code; `unsure` where the text is too short to say.
    pub code: &'static str,
    /// Share of the sample, in `[0, 1]`.
    pub share: f64,
}

/// How long something is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// What: `prompt` or `response`.
    pub of: &'static str,
    /// In what: `words`, `characters` or `tokens`.
    pub unit: &'static str,
    /// How many were measured.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The median, within 9 %.
    pub median: f64,
    /// The length that 95 % do not exceed, within 9 %.
    pub p95: f64,
    /// The longest.
    pub max: u64,
}

/// How far sources agree on one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The form of the marks.
    pub form: FormKind,
    /// The aspect, where one is named.
    pub aspect: Option<String>,
    /// Items that at least two sources marked.
    pub items: u64,
    /// Marks on them.
    pub marks: u64,
    /// Cohen's kappa of the two sources who share most items; None where chance explains all or there are no two.
    pub kappa: Option<f64>,
    /// Krippendorff's alpha, nominal.
    pub alpha_nominal: Option<f64>,
    /// Krippendorff's alpha, ordinal; of ratings only.
    pub alpha_ordinal: Option<f64>,
    /// Krippendorff's alpha, interval; of ratings only.
    pub alpha_interval: Option<f64>,
}

/// One source and how far it can be relied on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// Its name, as in `by`.
    pub name: String,
    /// Items of feedback.
    pub items: u64,
    /// The chance that its thumbs and outcomes are right, where others marked the same (Dawid-Skene).
    pub right: Option<f64>,
    /// How sharply its comparisons follow the common order: 1 as the crowd, 0 chance, below 0 reversed.
    pub sharpness: Option<f64>,
}

/// What a training shape can use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usable {
    /// The shape.
    pub shape: &'static str,
    /// Records that give at least one example.
    pub records: u64,
    /// Share of sound records, in `[0, 1]`.
    pub share: f64,
    /// Examples.
    pub examples: u64,
}

/// Whether training may go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything is sound.
    #[default]
    Go,
    /// It may, without the refused lines.
    GoWithout {
        /// How many lines are left out.
        refused: u64,
    },
    /// It may not.
    Stop {
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
}

impl Verdict {
    /// Training may go on.
    pub fn may_train(&self) -> bool {
        !matches!(self, Verdict::Stop { .. })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (file, format) in &self.files {
            writeln!(f, "{file}  ({format})")?;
        }
        writeln!(
            f,
            "\nrecords {}  refused {}  responses {}  prompts {}",
            self.records, self.refused, self.responses, self.prompts
        )?;
        writeln!(f, "\nform            items")?;
        for (form, count) in &self.forms {
            writeln!(f, "{form:<12} {count:>8}")?;
        }
        writeln!(f, "\nlength of   in              mean   median      p95      max")?;
        for row in &self.lengths {
            let (of, unit) = (row.of, row.unit);
            writeln!(
                f,
                "{of:<11} {unit:<11} {:>8.1} {:>8.0} {:>8.0} {:>8}",
                row.mean, row.median, row.p95, row.max
            )?;
        }
        let languages: Vec<String> = self
            .languages
            .iter()
            .take(5)
            .map(|one| format!("{} {:.0} %", one.code, 100.0 * one.share))
            .collect();
        writeln!(f, "\nlanguages ({} sampled): {}", self.sampled, languages.join(", "))?;
        for (name, finding) in [
            ("duplicate records", &self.duplicates),
            ("repeated ids", &self.repeated_ids),
            ("swapped pairs", &self.swapped_pairs),
            ("tied pairs", &self.tied_pairs),
            ("contradictions", &self.contradictions),
            ("leaks between splits", &self.leaks),
        ] {
            if finding.count > 0 {
                writeln!(f, "{name}: {}  ({}…)", finding.count, finding.first.join(", "))?;
            }
        }
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        for one in &self.agreement {
            let aspect = one.aspect.as_deref().unwrap_or("overall");
            let alpha = number(one.alpha_interval.or(one.alpha_nominal));
            writeln!(
                f,
                "agreement on {} ({aspect}): {} items, kappa {}, alpha {alpha}",
                one.form,
                one.items,
                number(one.kappa)
            )?;
        }
        for source in self.sources.iter().take(10) {
            let (right, sharpness) = (number(source.right), number(source.sharpness));
            writeln!(
                f,
                "source {}: {} items, right {right}, sharpness {sharpness}",
                source.name, source.items
            )?;
        }
        writeln!(f, "\nusable for       records   share  examples")?;
        for one in &self.usable {
            writeln!(
                f,
                "{:<15} {:>8} {:>6.1}% {:>9}",
                one.shape,
                one.records,
                100.0 * one.share,
                one.examples
            )?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\n{} problems:\n{}", self.problems.count, self.problems)?;
        }
        match &self.verdict {
            Verdict::Go => writeln!(f, "\nTraining may go on."),
            Verdict::GoWithout { refused } => {
                writeln!(f, "\nTraining may go on without the {refused} refused lines.")
            }
            Verdict::Stop { reasons } => writeln!(f, "\nTraining may not go on: {}", reasons.join(" ")),
        }
    }
}
