//! Start against result on held-out prompts: the table that a run ends with.

use std::fmt;

use hone_feedback::metrics::resample::Interval;
use serde::{Deserialize, Serialize};

use super::number::{count, ends_or_nan, fixed, or_nan, signed};
use super::text::plain;

/// Start against result on held-out prompts, one row per measure. Displays as the table for the terminal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The measures, most telling first.
    pub measures: Vec<Measure>,
}

/// One measure on held-out prompts, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What is measured, as in `preference accuracy`.
    pub name: String,
    /// In what.
    #[serde(default)]
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// Held-out items measured.
    pub n: u64,
    /// What needs no training to reach: majority class, length only.
    #[serde(default)]
    pub baselines: Vec<Baseline>,
    /// At the start.
    pub start: Estimate,
    /// At the end.
    pub result: Estimate,
    /// Result minus start, with the interval of the difference itself (paired where items are the same).
    pub difference: Estimate,
}

/// A number and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number; NaN where it could not be measured.
    #[serde(deserialize_with = "or_nan")]
    pub value: f64,
    /// Lower and upper end. None: no interval is known.
    #[serde(default, deserialize_with = "ends_or_nan")]
    pub interval: Option<[f64; 2]>,
}

/// A comparator that needs no training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// As in `majority class`.
    pub name: String,
    /// What it reaches on the same items.
    pub estimate: Estimate,
}

/// What a measure counts in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share in `[0, 1]`, shown in per cent; differences in percentage points.
    Share,
    /// Anything else by name, as in `nats per token`.
    Named(String),
    /// A bare number.
    #[default]
    Bare,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: the measure describes (length, say) and does not judge.
    Neither,
}

/// What became of one measure, by the interval of its difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The whole interval lies on the better side of 0.
    Better,
    /// The whole interval lies on the worse side of 0.
    Worse,
    /// The interval holds 0, or there is none.
    Unclear,
    /// The measure does not judge.
    NotJudged,
}

/// What became of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// At least one measure got better and none worse.
    Improved,
    /// No measure got better.
    NotImproved,
    /// Some got better and some worse.
    Mixed,
}

impl Estimate {
    /// A number without an interval.
    pub fn of(value: f64) -> Self {
        Estimate { value, interval: None }
    }

    /// A number and its 95 % interval.
    pub fn between(value: f64, low: f64, high: f64) -> Self {
        Estimate { value, interval: Some([low, high]) }
    }

    /// The interval where it is one: both ends finite, lower first.
    pub(super) fn ends(&self) -> Option<[f64; 2]> {
        self.interval.filter(|[low, high]| low.is_finite() && high.is_finite() && low <= high)
    }
}

impl From<Interval> for Estimate {
    fn from(from: Interval) -> Self {
        Estimate::between(from.estimate, from.low, from.high)
    }
}

impl Measure {
    /// A measure without baselines.
    pub fn new(
        name: impl Into<String>,
        unit: Unit,
        better: Better,
        n: u64,
        [start, result, difference]: [Estimate; 3],
    ) -> Self {
        Measure { name: name.into(), unit, better, n, baselines: Vec::new(), start, result, difference }
    }

    /// The same measure with one more comparator.
    #[must_use]
    pub fn baseline(mut self, name: impl Into<String>, estimate: Estimate) -> Self {
        self.baselines.push(Baseline { name: name.into(), estimate });
        self
    }

    /// What became of it.
    pub fn change(&self) -> Change {
        let sign = match self.better {
            Better::Higher => 1.0,
            Better::Lower => -1.0,
            Better::Neither => return Change::NotJudged,
        };
        match self.difference.ends() {
            Some([low, high]) if (sign * low).min(sign * high) > 0.0 => Change::Better,
            Some([low, high]) if (sign * low).max(sign * high) < 0.0 => Change::Worse,
            _ => Change::Unclear,
        }
    }

    /// The comparators that the result does not get past.
    pub fn not_above(&self) -> impl Iterator<Item = &Baseline> {
        self.baselines.iter().filter(|baseline| match self.better {
            Better::Higher => self.result.value <= baseline.estimate.value,
            Better::Lower => self.result.value >= baseline.estimate.value,
            Better::Neither => false,
        })
    }

    /// What numbers are multiplied by when shown.
    pub(super) fn scale(&self) -> f64 {
        if self.unit == Unit::Share { 100.0 } else { 1.0 }
    }

    /// Places after the point: two digits of the narrower interval, so that a row reads in one precision.
    pub(super) fn decimals(&self) -> usize {
        if self.unit == Unit::Share {
            return 1;
        }
        // Not of the difference: pairing makes it so narrow that start and result would be all digits.
        let widths = [&self.start, &self.result].map(|e| e.ends().map(|[l, h]| (h - l) / 2.0));
        let narrow = widths.into_iter().flatten().filter(|w| *w > 0.0).min_by(f64::total_cmp);
        let narrow = narrow.unwrap_or_else(|| self.start.value.abs().max(self.result.value.abs()) / 10.0);
        if !narrow.is_finite() || narrow <= 0.0 {
            return 2;
        }
        (1.0 - narrow.log10().floor()).clamp(0.0, 4.0) as usize
    }

    /// The unit in words; of differences where `difference`.
    pub(super) fn unit_words(&self, difference: bool) -> &str {
        match &self.unit {
            Unit::Share if difference => "points",
            Unit::Share => "%",
            Unit::Named(name) => name,
            Unit::Bare => "",
        }
    }

    /// The bare number of `estimate` as shown, with its sign where it is a difference.
    pub(super) fn shown(&self, estimate: &Estimate, difference: bool) -> String {
        let write = if difference { signed } else { fixed };
        write(self.scale() * estimate.value, self.decimals())
    }

    /// The interval as shown: `48.7 to 59.6`. None where there is none.
    pub(super) fn shown_interval(&self, estimate: &Estimate, difference: bool) -> Option<String> {
        let write = if difference { signed } else { fixed };
        let [low, high] = estimate.ends()?.map(|end| write(self.scale() * end, self.decimals()));
        Some(format!("{low} to {high}"))
    }

    /// One sentence part: `preference accuracy rose from 54.2 % to 61.9 % (95 % interval …, n = 312)`.
    fn sentence(&self) -> String {
        let verb = match self.difference.value {
            d if d > 0.0 => "rose",
            d if d < 0.0 => "fell",
            _ => "stayed",
        };
        let unit = |difference| match self.unit_words(difference) {
            "" => String::new(),
            "%" => "\u{a0}%".into(),
            words => format!(" {words}"),
        };
        let span = self.shown_interval(&self.difference, true).map_or("no interval".into(), |ends| {
            format!("95\u{a0}% interval of the difference {ends}{}", unit(true))
        });
        format!(
            "{} {verb} from {} to {}{} ({span}; n\u{a0}=\u{a0}{})",
            self.name,
            self.shown(&self.start, false),
            self.shown(&self.result, false),
            unit(false),
            count(self.n)
        )
    }
}

impl Outcome {
    /// The same outcome with one more measure.
    #[must_use]
    pub fn with(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }

    /// What became of the whole.
    pub fn verdict(&self) -> Verdict {
        match (self.count(Change::Better), self.count(Change::Worse)) {
            (0, _) => Verdict::NotImproved,
            (_, 0) => Verdict::Improved,
            _ => Verdict::Mixed,
        }
    }

    /// How many measures ended so.
    pub fn count(&self, change: Change) -> usize {
        self.measures.iter().filter(|measure| measure.change() == change).count()
    }

    /// The verdict as one plain sentence with its most telling numbers. Begins with [`Verdict::words`].
    pub fn sentence(&self) -> String {
        let of = |change| self.measures.iter().find(|measure| measure.change() == change);
        let (better, worse) = (self.count(Change::Better), self.count(Change::Worse));
        let judged = self.measures.len() - self.count(Change::NotJudged);
        match (of(Change::Better), of(Change::Worse)) {
            (Some(first), None) if judged == 1 => format!("Improved: {}.", first.sentence()),
            (Some(first), None) => {
                format!("Improved on {better} of {judged} measures, worse on none: {}.", first.sentence())
            }
            (Some(first), Some(last)) => format!(
                "Mixed: better on {better} and worse on {worse} of {judged} measures. Better: {}. Worse: {}.",
                first.sentence(),
                last.sentence()
            ),
            (None, Some(last)) => format!(
                "Not improved: worse on {worse} of {judged} measures and better on none: {}.",
                last.sentence()
            ),
            (None, None) => match of(Change::Unclear) {
                Some(first) if first.difference.ends().is_none() => {
                    format!("Not improved as far as can be told: {}.", first.sentence())
                }
                Some(first) => format!(
                    "Not improved: no measure moved by more than chance allows; {}.",
                    first.sentence()
                ),
                None => "Not improved: nothing was measured.".into(),
            },
        }
    }
}

impl Verdict {
    /// In words: `Improved`, `Not improved`, `Mixed`.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Improved => "Improved",
            Verdict::NotImproved => "Not improved",
            Verdict::Mixed => "Mixed",
        }
    }
}

impl Change {
    /// In words, for the last column of a table.
    pub fn words(self) -> &'static str {
        match self {
            Change::Better => "better",
            Change::Worse => "worse",
            Change::Unclear => "no clear change",
            Change::NotJudged => "not judged",
        }
    }
}

impl Better {
    /// In words: `higher is better`.
    pub fn words(self) -> &'static str {
        match self {
            Better::Higher => "higher is better",
            Better::Lower => "lower is better",
            Better::Neither => "for information",
        }
    }
}

impl Better {
    fn arrow(self) -> &'static str {
        match self {
            Better::Higher => " ↑",
            Better::Lower => " ↓",
            Better::Neither => "",
        }
    }
}

impl fmt::Display for Outcome {
    /// The table in aligned columns, baselines under their measure, the sentence below it. No line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows =
            vec![["measure, ↑ or ↓ is better", "n", "start", "result", "difference", ""].map(str::to_owned)];
        for measure in &self.measures {
            let cell = |estimate: &Estimate, difference| {
                let value = measure.shown(estimate, difference);
                match measure.shown_interval(estimate, difference) {
                    Some(ends) => format!("{value} [{}]", ends.replace(" to ", ", ")),
                    None => value,
                }
            };
            let unit = match measure.unit_words(false) {
                "" => String::new(),
                words => format!(", {words}"),
            };
            rows.push([
                format!("{}{unit}{}", plain(&measure.name), measure.better.arrow()),
                count(measure.n),
                cell(&measure.start, false),
                cell(&measure.result, false),
                cell(&measure.difference, true),
                measure.change().words().into(),
            ]);
            for baseline in &measure.baselines {
                let name = format!("  {}", plain(&baseline.name));
                let value = cell(&baseline.estimate, false);
                rows.push([name, String::new(), value, String::new(), String::new(), String::new()]);
            }
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..6).map(width).collect();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                // Counts stand right, so that their digits line up.
                line += &if column == 1 { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "\n{}", plain(&self.sentence()).replace('\u{a0}', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(difference: [f64; 3]) -> Measure {
        let [value, low, high] = difference;
        Measure::new(
            "preference accuracy",
            Unit::Share,
            Better::Higher,
            1312,
            [
                Estimate::between(0.5424, 0.4871, 0.5959),
                Estimate::between(0.5424 + value, 0.5642, 0.6731),
                Estimate::between(value, low, high),
            ],
        )
        .baseline("majority class", Estimate::of(0.5252))
    }

    fn nll(low: f64, high: f64) -> Measure {
        let ends = [Estimate::of(2.31), Estimate::of(2.12), Estimate::between((low + high) / 2.0, low, high)];
        Measure::new("edit NLL", Unit::Named("nats per token".into()), Better::Lower, 80, ends)
    }

    #[test]
    fn the_interval_decides() {
        assert_eq!(accuracy([0.077, 0.022, 0.131]).change(), Change::Better);
        assert_eq!(accuracy([0.077, 0.0, 0.131]).change(), Change::Unclear);
        assert_eq!(accuracy([-0.077, -0.131, -0.022]).change(), Change::Worse);
        assert_eq!(nll(-0.3, -0.1).change(), Change::Better);
        assert_eq!(nll(0.1, 0.3).change(), Change::Worse);
        let mut silent = accuracy([0.1, f64::NAN, 0.2]);
        assert_eq!(silent.change(), Change::Unclear);
        silent.better = Better::Neither;
        assert_eq!(silent.change(), Change::NotJudged);
    }

    #[test]
    fn verdicts() {
        let better = || accuracy([0.077, 0.022, 0.131]);
        assert_eq!(Outcome::default().verdict(), Verdict::NotImproved);
        assert_eq!(Outcome::default().with(better()).with(nll(-0.1, 0.1)).verdict(), Verdict::Improved);
        assert_eq!(Outcome::default().with(better()).with(nll(0.1, 0.3)).verdict(), Verdict::Mixed);
        assert_eq!(Outcome::default().with(nll(0.1, 0.3)).verdict(), Verdict::NotImproved);
    }

    #[test]
    fn sentences_hold_the_numbers() {
        let one = Outcome::default().with(accuracy([0.077, 0.022, 0.131]));
        assert_eq!(
            one.sentence().replace('\u{a0}', " "),
            "Improved: preference accuracy rose from 54.2 to 61.9 % (95 % interval of the difference +2.2 to +13.1 \
             points; n = 1,312)."
        );
        let none = Outcome::default().with(nll(-0.1, 0.1)).sentence();
        assert!(
            none.starts_with("Not improved: no measure moved by more than chance allows; edit NLL"),
            "{none}"
        );
        assert_eq!(Outcome::default().sentence(), "Not improved: nothing was measured.");
    }

    #[test]
    fn columns_line_up() {
        let table =
            Outcome::default().with(accuracy([0.077, 0.022, 0.131])).with(nll(-0.31, -0.09)).to_string();
        let lines: Vec<&str> = table.lines().collect();
        let expected = [
            "measure, ↑ or ↓ is better       n  start              result             difference",
            "preference accuracy, % ↑    1,312  54.2 [48.7, 59.6]  61.9 [56.4, 67.3]  +7.7 [+2.2, +13.1]    better",
            "  majority class                   52.5",
            "edit NLL, nats per token ↓     80  2.31               2.12               −0.20 [−0.31, −0.09]  better",
            "",
        ];
        assert_eq!(lines[..5], expected);
    }

    #[test]
    fn a_baseline_not_passed_is_named() {
        let measure = accuracy([0.077, 0.022, 0.131]).baseline("length only", Estimate::of(0.7));
        let named: Vec<&str> = measure.not_above().map(|baseline| baseline.name.as_str()).collect();
        assert_eq!(named, ["length only"]);
    }

    #[test]
    fn decimals_follow_the_interval() {
        // Half width 0.11: two digits are two places. Half width 12: none. No interval: three digits of 2.31.
        let mut measure = nll(-0.31, -0.09);
        assert_eq!(measure.decimals(), 2);
        measure.result = Estimate::between(2.0, 1.89, 2.11);
        assert_eq!(measure.decimals(), 2);
        measure.result = Estimate::between(20.0, 8.0, 32.0);
        assert_eq!(measure.decimals(), 0);
    }

    #[test]
    fn what_was_not_measured_survives_json() {
        let outcome = Outcome::default().with(accuracy([f64::NAN, f64::NAN, f64::NAN]));
        let text = serde_json::to_string(&outcome).unwrap();
        let back: Outcome = serde_json::from_str(&text).unwrap();
        assert!(back.measures[0].difference.value.is_nan());
        assert!(outcome.to_string().contains('–'));
    }
}
