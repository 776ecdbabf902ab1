//! What a protocol finds: named figures with their intervals, the published ones beside them.

use std::fmt;

use hone_feedback::metrics::mean;
use hone_feedback::metrics::resample::mean_interval;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::report::{Baseline, Better, Estimate, Measure, Unit};

/// One named figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// As in `success at k=5`.
    pub name: String,
    /// The number and its 95 % interval.
    pub of: Estimate,
    /// In what.
    #[serde(default)]
    pub unit: Unit,
    /// Items it was measured on.
    pub n: usize,
    /// What was published for this model under this name, in the same unit.
    #[serde(default)]
    pub published: Option<f64>,
}

impl Figure {
    /// A number without an interval.
    pub fn plain(name: impl Into<String>, value: f64, n: usize) -> Figure {
        Figure { name: name.into(), of: Estimate::of(value), unit: Unit::Bare, n, published: None }
    }

    /// The mean of one value per item, with the bootstrap interval over items. NaN of none.
    pub fn mean(name: impl Into<String>, values: &[f64], seed: u64) -> Figure {
        let interval = mean_interval(values, seed).filter(|_| values.len() > 1);
        let of = Estimate { value: mean(values), interval: interval.map(|i| [i.low, i.high]) };
        Figure { name: name.into(), of, unit: Unit::Bare, n: values.len(), published: None }
    }

    /// The share of items for which something is so.
    pub fn share(name: impl Into<String>, held: &[bool], seed: u64) -> Figure {
        let values: Vec<f64> = held.iter().map(|&held| f64::from(u8::from(held))).collect();
        Figure { unit: Unit::Share, ..Figure::mean(name, &values, seed) }
    }
}

/// All that a protocol found, in the order in which it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Id of the protocol's method.
    pub protocol: String,
    /// What was measured.
    pub model: String,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What a reader must know of them, a sentence each: what was left out, what failed.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Items lost to the connection, which a resumed run asks again.
    #[serde(default)]
    pub lost: usize,
}

impl Measures {
    /// No figure yet.
    pub fn new(protocol: &str, model: &str) -> Measures {
        Measures { protocol: protocol.into(), model: model.into(), ..Measures::default() }
    }

    /// The value of this name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.of.value)
    }

    /// Lays what was published over the figures of the same name.
    pub fn publish(&mut self, rows: &[(String, f64)]) {
        for figure in &mut self.figures {
            let row = rows.iter().find(|(name, _)| *name == figure.name);
            figure.published = row.map(|(_, value)| *value).or(figure.published);
        }
    }

    /// The figures as measures of a report. Nothing was trained, so there is nothing before.
    pub fn as_measures(&self) -> Vec<Measure> {
        let nothing = Estimate::of(f64::NAN);
        let measure = |figure: &Figure| {
            let published = |value: f64| Baseline { name: "published".into(), estimate: Estimate::of(value) };
            Measure {
                name: format!("{}: {}", self.protocol, figure.name),
                unit: figure.unit.clone(),
                better: Better::Neither,
                n: figure.n as u64,
                baselines: figure.published.map(published).into_iter().collect(),
                start: nothing,
                result: figure.of,
                difference: nothing,
            }
        };
        self.figures.iter().map(measure).collect()
    }

    /// The layout of lm-evaluation-harness: `results`, `configs`, `versions`, `n-samples`, `config`. A figure stands under
    /// `NAME,none`, half the width of its interval over 1.96 under `NAME_stderr,none`, a published one under
    /// `NAME_published,none`; spaces in names become underscores.
    pub fn to_lm_eval(&self, settings: &Value) -> Value {
        let mut results = Map::new();
        results.insert("alias".into(), json!(self.protocol));
        for figure in &self.figures {
            let name = figure.name.replace(' ', "_");
            results.insert(format!("{name},none"), json!(figure.of.value));
            let error = figure.of.interval.map(|[low, high]| (high - low) / 2.0 / 1.96);
            results.insert(format!("{name}_stderr,none"), error.map_or(json!("N/A"), |error| json!(error)));
            if let Some(published) = figure.published {
                results.insert(format!("{name}_published,none"), json!(published));
            }
        }
        let id = &self.protocol;
        let most = self.figures.iter().map(|figure| figure.n).max().unwrap_or(0);
        json!({
            "results": { id: results },
            "configs": { id: settings },
            "versions": { id: 1 },
            "n-samples": { id: { "original": most, "effective": most } },
            "config": { "model": self.model },
            "figures": self.figures,
            "notes": self.notes,
        })
    }
}

impl fmt::Display for Measures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {}", self.protocol, self.model)?;
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0).max(6);
        let published = self.figures.iter().any(|figure| figure.published.is_some());
        write!(f, "  {:<width$}  {:>8}  {:<20}  {:>6}", "figure", "measured", "95 % interval", "n")?;
        writeln!(f, "{}", if published { "  published" } else { "" })?;
        for figure in &self.figures {
            let show = |value: f64| match figure.unit {
                Unit::Share => format!("{:.2} %", 100.0 * value),
                _ => format!("{value:.3}"),
            };
            let interval = figure.of.interval.map_or_else(String::new, |[low, high]| match figure.unit {
                Unit::Share => format!("[{:.2}, {:.2}]", 100.0 * low, 100.0 * high),
                _ => format!("[{low:.3}, {high:.3}]"),
            });
            let value = show(figure.of.value);
            write!(f, "  {:<width$}  {value:>8}  {interval:<20}  {:>6}", figure.name, figure.n)?;
            writeln!(
                f,
                "{}",
                figure.published.map_or_else(String::new, |value| format!("  {:>9}", show(value)))
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_with_what_was_published() {
        let mut measures = Measures::new("mint", "m");
        measures.figures.push(Figure::share("success at k=5", &[true, false, true, true], 1));
        measures.figures.push(Figure::plain("slope", 0.0817, 5));
        measures.publish(&[("success at k=5".into(), 0.3618)]);
        assert_eq!(measures.value("success at k=5"), Some(0.75));
        let text = measures.to_string();
        assert!(text.contains("75.00 %") && text.contains("36.18 %") && text.contains("published"), "{text}");
        let json = measures.to_lm_eval(&json!({"k": 5}));
        let results = &json["results"]["mint"];
        assert_eq!(results["success_at_k=5,none"], 0.75);
        assert_eq!(results["success_at_k=5_published,none"], 0.3618);
        assert_eq!(results["slope_stderr,none"], "N/A");
        assert_eq!(json["configs"]["mint"]["k"], 5);
        let told = measures.as_measures();
        assert_eq!((told[0].n, told[0].baselines.len(), told[1].baselines.len()), (4, 1, 0));
        assert!(told[0].start.value.is_nan() && told[0].result.value == 0.75);
        let back: Measures = serde_json::from_value(json!(measures)).unwrap();
        assert_eq!(back, measures);
    }

    #[test]
    fn one_item_has_no_interval() {
        assert_eq!(Figure::share("x", &[true], 1).of, Estimate::of(1.0));
        assert!(Figure::mean("x", &[], 1).of.value.is_nan());
    }
}
