//! What was in the log.

use hone_feedback::doctor;
use serde::{Deserialize, Serialize};

use super::number::or_nan;

/// What was in the log: counts, sources, agreement, languages, lengths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSection {
    /// Files, each with its format.
    pub files: Vec<(String, String)>,
    /// Sound records.
    pub records: u64,
    /// Lines that gave none.
    pub refused: u64,
    /// Responses of sound records.
    pub responses: u64,
    /// Distinct prompts.
    pub prompts: u64,
    /// Items of feedback by form, most frequent first.
    pub forms: Vec<(String, u64)>,
    /// Who said it, most items first.
    pub sources: Vec<Source>,
    /// How far sources agree, per question.
    pub agreement: Vec<Agreement>,
    /// Languages and their share of the sample, in `[0, 1]`, most frequent first.
    pub languages: Vec<(String, f64)>,
    /// Records in the sample for languages.
    pub sampled: u64,
    /// How long prompts and responses are.
    pub lengths: Vec<Lengths>,
    /// What is suspicious: duplicates, swapped pairs, contradictions, leaks. Each with the places of the first.
    pub findings: Vec<Finding>,
    /// What each training shape can take from it.
    pub usable: Vec<Usable>,
    /// The doctor's last word, one sentence.
    pub verdict: String,
}

/// One who gave feedback.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Its name, as in `by`.
    pub name: String,
    /// Items of feedback.
    pub items: u64,
    /// The chance that its thumbs and outcomes are right (Dawid-Skene). None: nobody marked the same.
    pub right: Option<f64>,
    /// How sharply its comparisons follow the common order: 1 as the crowd, 0 chance.
    pub sharpness: Option<f64>,
}

/// How far sources agree on one question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// The question: a form, and the aspect where there is one.
    pub question: String,
    /// Items that at least two sources marked.
    pub items: u64,
    /// Cohen's kappa of the two who share most items.
    pub kappa: Option<f64>,
    /// Krippendorff's alpha at the level in `level`.
    pub alpha: Option<f64>,
    /// `nominal`, `ordinal` or `interval`.
    pub level: String,
}

/// How long something is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lengths {
    /// Of what, in what: `response, words`.
    pub of: String,
    /// How many were measured.
    pub count: u64,
    /// The mean.
    #[serde(deserialize_with = "or_nan")]
    pub mean: f64,
    /// The median.
    #[serde(deserialize_with = "or_nan")]
    pub median: f64,
    /// The length that 95 % do not exceed.
    #[serde(deserialize_with = "or_nan")]
    pub p95: f64,
    /// The longest.
    pub max: u64,
}

/// Something suspicious, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How many.
    pub count: u64,
    /// File and line of the first ones.
    pub first: Vec<String>,
}

/// What a training shape can use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usable {
    /// The shape, as in `pairs`.
    pub shape: String,
    /// Share of sound records that give an example, in `[0, 1]`.
    #[serde(deserialize_with = "or_nan")]
    pub share: f64,
    /// Examples.
    pub examples: u64,
}

impl LogSection {
    /// The section from what the doctor found, with its numbers unchanged.
    pub fn from_doctor(report: &doctor::Report) -> Self {
        let mut forms: Vec<(String, u64)> =
            report.forms.iter().map(|(form, count)| (form.to_string(), *count)).collect();
        forms.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let findings = [
            ("records there before", &report.duplicates),
            ("ids used twice", &report.repeated_ids),
            ("pairs also found the other way round", &report.swapped_pairs),
            ("ties", &report.tied_pairs),
            ("sources that contradict themselves", &report.contradictions),
            ("prompts in more than one split", &report.leaks),
        ];
        LogSection {
            files: report.files.iter().map(|(file, format)| (file.clone(), (*format).to_owned())).collect(),
            records: report.records,
            refused: report.refused,
            responses: report.responses,
            prompts: report.prompts,
            forms,
            sources: report.sources.iter().map(Source::from).collect(),
            agreement: report.agreement.iter().map(Agreement::from).collect(),
            languages: report.languages.iter().map(|one| (one.code.to_owned(), one.share)).collect(),
            sampled: report.sampled,
            lengths: report.lengths.iter().map(Lengths::from).collect(),
            findings: findings
                .into_iter()
                .filter(|(_, finding)| finding.count > 0)
                .map(|(what, finding)| Finding {
                    what: what.to_owned(),
                    count: finding.count,
                    first: finding.first.clone(),
                })
                .collect(),
            usable: report.usable.iter().map(Usable::from).collect(),
            verdict: match &report.verdict {
                doctor::Verdict::Go => "Every line is sound; training may go on.".into(),
                doctor::Verdict::GoWithout { refused } => {
                    format!("Training may go on without the {refused} refused lines.")
                }
                doctor::Verdict::Stop { reasons } => format!("Training may not go on: {}", reasons.join(" ")),
            },
        }
    }

    /// Items of feedback of all forms.
    pub fn items(&self) -> u64 {
        self.forms.iter().map(|(_, count)| count).sum()
    }
}

impl From<&doctor::Source> for Source {
    fn from(from: &doctor::Source) -> Self {
        Source { name: from.name.clone(), items: from.items, right: from.right, sharpness: from.sharpness }
    }
}

impl From<&doctor::Agreement> for Agreement {
    fn from(from: &doctor::Agreement) -> Self {
        let question = match &from.aspect {
            Some(aspect) => format!("{}, {aspect}", from.form),
            None => from.form.to_string(),
        };
        // The finest level that the marks allow: distances where there are any.
        let levels = [
            (from.alpha_interval, "interval"),
            (from.alpha_ordinal, "ordinal"),
            (from.alpha_nominal, "nominal"),
        ];
        let (alpha, level) =
            levels.into_iter().find(|(alpha, _)| alpha.is_some()).unwrap_or((None, "nominal"));
        Agreement { question, items: from.items, kappa: from.kappa, alpha, level: level.to_owned() }
    }
}

impl From<&doctor::Lengths> for Lengths {
    fn from(from: &doctor::Lengths) -> Self {
        Lengths {
            of: format!("{}, {}", from.of, from.unit),
            count: from.count,
            mean: from.mean,
            median: from.median,
            p95: from.p95,
            max: from.max,
        }
    }
}

impl From<&doctor::Usable> for Usable {
    fn from(from: &doctor::Usable) -> Self {
        Usable { shape: from.shape.to_owned(), share: from.share, examples: from.examples }
    }
}

#[cfg(test)]
mod tests {
    use hone_feedback::FormKind;

    use super::*;

    #[test]
    fn numbers_come_unchanged() {
        let mut report = doctor::Report { records: 7, prompts: 5, ..doctor::Report::default() };
        report.forms.extend([(FormKind::Thumb, 3), (FormKind::Rating, 9)]);
        report.leaks.count = 2;
        report.leaks.first.push("a.jsonl:4".into());
        report.agreement.push(doctor::Agreement {
            form: FormKind::Rating,
            aspect: Some("helpful".into()),
            items: 6,
            marks: 12,
            kappa: Some(0.25),
            alpha_nominal: Some(0.1),
            alpha_ordinal: Some(0.2),
            alpha_interval: Some(0.3),
        });
        report.verdict = doctor::Verdict::GoWithout { refused: 4 };
        let log = LogSection::from_doctor(&report);
        assert_eq!((log.records, log.prompts, log.items()), (7, 5, 12));
        assert_eq!(log.forms, [("rating".to_owned(), 9), ("thumb".to_owned(), 3)]);
        assert_eq!(log.findings.len(), 1);
        assert_eq!((log.findings[0].count, log.findings[0].first[0].as_str()), (2, "a.jsonl:4"));
        assert_eq!((log.agreement[0].alpha, log.agreement[0].level.as_str()), (Some(0.3), "interval"));
        assert_eq!(log.agreement[0].question, "rating, helpful");
        assert!(log.verdict.contains("4 refused"));
    }
}
