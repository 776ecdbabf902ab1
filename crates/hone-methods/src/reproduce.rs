//! Runs a method's claims against their baselines, and says which hold.

use std::fmt;

use serde::Serialize;

use crate::catalogue::METHODS;
use crate::error::Result;
use crate::method::{Claim, Method};

/// What came of one claim.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Id of the method.
    pub method: &'static str,
    /// Name of the claim.
    pub claim: &'static str,
    /// What is said.
    pub says: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// Against what.
    pub baseline: &'static str,
    /// The method's figure less the baseline's, one per seed.
    pub effects: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the 95 % interval of the mean, by Student's t.
    pub half_width: f64,
}

impl Finding {
    /// Whether the whole interval lies above 0.
    pub fn holds(&self) -> bool {
        self.mean - self.half_width > 0.0
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds() { "holds" } else { "does not hold" };
        writeln!(f, "{} {}: {verdict}", self.method, self.claim)?;
        writeln!(f, "  {}", self.says)?;
        let (low, high) = (self.mean - self.half_width, self.mean + self.half_width);
        writeln!(f, "  effect {:+.4} [{low:+.4}, {high:+.4}] over {} seeds", self.mean, self.effects.len())?;
        writeln!(f, "  measured: {}", self.metric)?;
        write!(f, "  against: {}", self.baseline)
    }
}

/// Runs every claim of `method` for seeds 1 to `seeds`, at least 2; `on` hears the claim and seed that come next.
///
/// # Errors
/// Those of the claim's runs.
pub fn reproduce(method: &Method, seeds: u64, on: &mut dyn FnMut(&str, u64)) -> Result<Vec<Finding>> {
    let mut findings = vec![];
    for claim in method.claims {
        let mut effects = vec![];
        for seed in 1..=seeds.max(2) {
            on(claim.name, seed);
            effects.push((claim.effect)(seed)?);
        }
        let mean = hone_feedback::metrics::mean(&effects);
        let error = hone_feedback::metrics::standard_deviation(&effects) / (effects.len() as f64).sqrt();
        findings.push(Finding {
            method: method.id,
            claim: claim.name,
            says: claim.says,
            metric: claim.metric,
            baseline: claim.baseline,
            half_width: error * t_975(effects.len() - 1),
            mean,
            effects,
        });
    }
    Ok(findings)
}

/// The 97.5 % quantile of Student's t.
pub(crate) fn t_975(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    match freedom {
        0 => f64::INFINITY,
        n if n <= TABLE.len() => TABLE[n - 1],
        // Within 0.003 of the true value from 31 on (Cornish-Fisher, first term).
        n => 1.959_964 + 2.372 / n as f64,
    }
}

/// The table of findings as Markdown, failures included. Rows of `old`, an earlier table, stay for claims that no finding
/// is of, if the catalogue still makes them in the same words; rows stand in the catalogue's order.
pub fn table(findings: &[Finding], old: &str, command: &str) -> String {
    let mut text = format!(
        "# Claims\n\nWritten by `{command}`; rows of methods not run then stand from earlier runs. Effect: the method's \
         figure less the baseline's, mean over seeds with its 95 % interval; a claim holds if the whole interval is above \
         0.\n\n| method | claim | measured | against | effect | seeds | |\n|---|---|---|---|---|---|---|\n"
    );
    for method in METHODS {
        for claim in method.claims {
            let is_of = |finding: &&Finding| finding.method == method.id && finding.claim == claim.name;
            match findings.iter().find(is_of) {
                Some(finding) => text += &(row(method, claim, finding) + "\n"),
                None => old_row(method, claim, old).into_iter().for_each(|row| text += &format!("{row}\n")),
            }
        }
    }
    text
}

/// Whether `old`, an earlier table, lacks a claim of `method` as it is made now, or has it over fewer seeds.
pub fn missing(method: &Method, old: &str, seeds: u64) -> bool {
    let counted = |row: &str| {
        let mut cells = row.trim_end_matches('|').trim_end().rsplit(" | ");
        cells.nth(1).and_then(|cell| cell.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    method.claims.iter().any(|claim| old_row(method, claim, old).is_none_or(|row| counted(row) < seeds))
}

/// What a row begins with: all that was said before it was measured.
fn said(method: &Method, claim: &Claim) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let [says, metric, baseline] = [claim.says, claim.metric, claim.baseline].map(cell);
    format!("| {} | {says} | {metric} | {baseline} | ", method.id)
}

fn row(method: &Method, claim: &Claim, finding: &Finding) -> String {
    let (low, high) = (finding.mean - finding.half_width, finding.mean + finding.half_width);
    let verdict = if finding.holds() { "holds" } else { "**does not hold**" };
    let (said, mean, seeds) = (said(method, claim), finding.mean, finding.effects.len());
    format!("{said}{mean:+.3} [{low:+.3}, {high:+.3}] | {seeds} | {verdict} |")
}

fn old_row<'a>(method: &Method, claim: &Claim, old: &'a str) -> Option<&'a str> {
    let said = said(method, claim);
    old.lines().find(|line| line.starts_with(&said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Claim;

    #[test]
    fn intervals_by_hand() {
        static CLAIMS: [Claim; 1] = [Claim {
            name: "claim_x",
            says: "x.",
            metric: "m",
            baseline: "b",
            effect: |seed| Ok(seed as f64),
        }];
        let method = Method { claims: &CLAIMS, ..*crate::find("dpo").unwrap() };
        let findings = reproduce(&method, 3, &mut |_, _| {}).unwrap();
        // 1, 2, 3: mean 2, standard deviation 1, standard error 1/√3 = 0.57735, times 4.303.
        assert!((findings[0].half_width - 2.48434).abs() < 1e-4, "{:?}", findings[0]);
        assert!(!findings[0].holds());
        assert!(findings[0].to_string().contains("effect +2.0000 [-0.4843, +4.4843] over 3 seeds"));
    }

    #[test]
    fn a_table_keeps_what_was_not_run_again() {
        let (dpo, ipo) = (crate::find("dpo").unwrap(), crate::find("ipo").unwrap());
        let found = |method: &'static Method, mean: f64| Finding {
            method: method.id,
            claim: method.claims[0].name,
            says: method.claims[0].says,
            metric: method.claims[0].metric,
            baseline: method.claims[0].baseline,
            effects: vec![mean - 1.0, mean + 1.0],
            mean,
            half_width: 1.0,
        };
        let first = table(&[found(ipo, 0.5), found(dpo, 3.0)], "", "hone reproduce dpo ipo --seeds 2");
        let rows = |text: &str| text.lines().skip(6).map(str::to_string).collect::<Vec<_>>();
        // The catalogue has DPO before IPO.
        assert!(rows(&first)[0].ends_with("+3.000 [+2.000, +4.000] | 2 | holds |"), "{first}");
        assert!(rows(&first)[1].ends_with("+0.500 [-0.500, +1.500] | 2 | **does not hold** |"), "{first}");
        let second = table(&[found(ipo, 2.0)], &first, "hone reproduce ipo --seeds 2");
        assert_eq!(rows(&second)[0], rows(&first)[0]);
        assert!(rows(&second)[1].contains("+2.000 [+1.000, +3.000]"), "{second}");
        assert!(!missing(dpo, &second, 2) && missing(dpo, &second, 3));
        assert!(missing(crate::find("kto").unwrap(), &second, 2));
        // A claim in other words is another claim.
        let reworded = second.replace(dpo.claims[0].says, "Something else.");
        assert!(missing(dpo, &reworded, 2));
        assert_eq!(rows(&table(&[], &reworded, "")).len(), 1);
    }
}
