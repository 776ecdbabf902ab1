//! What an evaluation says, as a table and as JSON.

use std::fmt;

use hone_feedback::metrics::resample::Interval;
use serde::Serialize;

/// The numbers of one evaluation. Intervals cover 95 %, by the bootstrap over prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// The world and level, or the file.
    pub on: String,
    /// The role that was measured.
    pub role: String,
    /// Prompts.
    pub prompts: usize,
    /// Answers per prompt, `n`.
    pub samples: usize,
    /// Temperature they were sampled at.
    pub temperature: f32,
    /// Seed of everything.
    pub seed: u64,
    /// `k` and pass@k by the unbiased estimator, for powers of two up to `n`, and `n`.
    pub pass: Vec<(usize, Interval)>,
    /// maj@n: share of prompts whose commonest answer is right. `None` for one answer per prompt.
    pub majority: Option<Interval>,
    /// Mean score, in `[0, 1]`.
    pub score: Option<Interval>,
    /// Share of answers that do not have the form that was asked for.
    pub format_errors: Option<Interval>,
    /// Expected calibration error over ten bins, of the mean token probability or, for labels, of the probability of
    /// the label; `None` where the model does not tell.
    pub calibration: Option<f64>,
    /// Asking again without a critique, where refining was measured.
    pub again: Option<Again>,
    /// How verdicts agree with the truth, where labels or critiques were measured.
    pub verdicts: Option<Verdicts>,
    /// Likeness to references, where a file was measured.
    pub reference: Option<Reference>,
    /// The comparison with another model.
    pub against: Option<Against>,
}

/// The baseline of refining: the same prompts, asked again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Again {
    /// Share of right answers.
    pub right: Interval,
    /// How much more often refining is right, on the same prompts.
    pub gain: Interval,
}

/// How verdicts agree with the truth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdicts {
    /// Share of true verdicts.
    pub accuracy: f64,
    /// Of the answers called wrong, the share that are.
    pub precision: f64,
    /// Of the wrong answers, the share that are called wrong.
    pub recall: f64,
    /// Mean of the F1 of both classes, which no constant verdict can raise above 1/3 on balanced answers.
    pub f1: f64,
}

/// Likeness to references.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reference {
    /// Share of answers equal to the reference but for case, articles, punctuation and space.
    pub exact: Option<Interval>,
    /// Mean F1 of words.
    pub f1: Option<Interval>,
    /// chrF of the first answers over the whole file, in `[0, 100]`.
    pub chrf: Option<f64>,
    /// Mean negative log-probability of the references, in nats per token; `None` where the model cannot score.
    pub nll: Option<Interval>,
}

/// A paired comparison with another model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// Name of the other model.
    pub model: String,
    /// How much more often this model is right on the same prompts.
    pub difference: Interval,
    /// Two-sided p-value of no difference, by the paired bootstrap.
    pub p: f64,
    /// Two-sided p-value of as many prompts gained as lost.
    pub sign_test: f64,
}

/// An interval in per cent.
fn percent(interval: &Interval) -> String {
    let [estimate, low, high] = [interval.estimate, interval.low, interval.high].map(|value| 100.0 * value);
    format!("{estimate:5.1} %  [{low:.1}, {high:.1}]")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} on {}, role {}: {} prompts x {} samples at temperature {}, seed {}",
            self.model, self.on, self.role, self.prompts, self.samples, self.temperature, self.seed
        )?;
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<22}{value}");
        for (k, interval) in &self.pass {
            row(&format!("pass@{k}"), percent(interval))?;
        }
        if let Some(majority) = &self.majority {
            row(&format!("maj@{}", self.samples), percent(majority))?;
        }
        if let Some(again) = &self.again {
            row("asked again", percent(&again.right))?;
            row("gain by critique", percent(&again.gain))?;
        }
        if let Some(score) = &self.score {
            row("mean score", format!("{:5.3}    [{:.3}, {:.3}]", score.estimate, score.low, score.high))?;
        }
        if let Some(errors) = &self.format_errors {
            row("format errors", percent(errors))?;
        }
        if let Some(verdicts) = &self.verdicts {
            row("verdict F1 (macro)", format!("{:5.3}", verdicts.f1))?;
            row("verdict accuracy", format!("{:5.3}", verdicts.accuracy))?;
            row(
                "finds errors",
                format!("precision {:.3}, recall {:.3}", verdicts.precision, verdicts.recall),
            )?;
        }
        if let Some(reference) = &self.reference {
            if let Some(exact) = &reference.exact {
                row("exact match", percent(exact))?;
            }
            if let Some(f1) = &reference.f1 {
                row("word F1", percent(f1))?;
            }
            if let Some(chrf) = reference.chrf {
                row("chrF", format!("{chrf:5.1}"))?;
            }
            if let Some(nll) = &reference.nll {
                row("nats per token", format!("{:5.3}    [{:.3}, {:.3}]", nll.estimate, nll.low, nll.high))?;
            }
        }
        if let Some(calibration) = self.calibration {
            row("calibration error", format!("{calibration:5.3}"))?;
        }
        if let Some(against) = &self.against {
            row(&format!("against {}", against.model), percent(&against.difference))?;
            row(
                "",
                format!("p = {:.4} (paired bootstrap), {:.4} (sign test)", against.p, against.sign_test),
            )?;
        }
        Ok(())
    }
}
