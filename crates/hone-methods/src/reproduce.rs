//! Runs a method's claims against their baselines, and says which hold.

use std::fmt;

use serde::Serialize;

use crate::error::Result;
use crate::method::Method;

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

/// The table of findings as Markdown, failures included.
pub fn table(findings: &[Finding], command: &str) -> String {
    let mut text = format!(
        "# Claims\n\nWritten by `{command}`. Effect: the method's figure less the baseline's, mean over seeds with its \
         95 % interval; a claim holds if the whole interval is above 0.\n\n\
         | method | claim | measured | against | effect | seeds | |\n|---|---|---|---|---|---|---|\n"
    );
    for finding in findings {
        let (low, high) = (finding.mean - finding.half_width, finding.mean + finding.half_width);
        text += &format!(
            "| {} | {} | {} | {} | {:+.3} [{low:+.3}, {high:+.3}] | {} | {} |\n",
            finding.method,
            finding.says,
            finding.metric,
            finding.baseline,
            finding.mean,
            finding.effects.len(),
            if finding.holds() { "holds" } else { "**does not hold**" },
        );
    }
    text
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
        assert!(table(&findings, "hone reproduce --all").contains("**does not hold**"));
        assert!(findings[0].to_string().contains("effect +2.0000 [-0.4843, +4.4843] over 3 seeds"));
    }
}
