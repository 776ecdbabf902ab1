//! Supervised fine-tuning.

use hone_feedback::convert::Shape;
use hone_nn::{Want, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::train::{Decay, Training, descend};

method! {
    /// Imitate answers that people wrote, corrected or accepted.
    /// # What it does
    /// Raises the likelihood of the response's tokens, its stop token included, given the prompt; tokens of the prompt
    /// are never targets. Each token of a step weighs the same.
    /// # Feedback
    /// Demonstrations: edits, answers marked as demonstrated or accepted.
    /// # Departs from the paper
    /// InstructGPT trains 16 epochs with residual dropout; here 3 epochs without, the defaults of today's trainers.
    /// # Claim
    /// Held-out edits become likelier than under the start, in nats per token (`claim_edits_become_likelier`).
    /// # Source
    /// Ouyang et al., NeurIPS 2022, arXiv:2203.02155, section 3.5.
    pub static SFT: Method = Method {
        id: "sft", name: "Supervised fine-tuning", family: Family::Imitate,
        needs: Needs::Shape(Shape::Demonstrations), makes: Makes::Policy, settings: Sft,
        claims: &[Claim {
            name: "claim_edits_become_likelier",
            says: "After training on edits, held-out edits are likelier.",
            metric: "log-likelihood of held-out edits, nats per token",
            baseline: "the policy at its start",
            effect: edits_become_likelier,
        }],
        run,
    };
}

/// Settings of supervised fine-tuning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// The descent. Learning rate 2e-5, 3 epochs, linear decay: TRL's defaults.
    pub training: Training,
}

impl Default for Sft {
    fn default() -> Sft {
        let decay = Decay::Linear;
        Sft {
            training: Training {
                learning_rate: 2e-5,
                epochs: 3.0,
                warm_up: 0.03,
                decay,
                ..Training::default()
            },
        }
    }
}

impl Settings for Sft {
    fn check(&self) -> Result<()> {
        self.training.check("sft")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let Sft { training } = settings("sft", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = Examples::from_records(&job.policy, job.records, Shape::Demonstrations, max_tokens)?;
    imitate("sft", job, &examples, &training)
}

/// Cross-entropy on the responses of `examples`, a mean over the targets of each step. Other methods of this family end
/// with it.
///
/// # Errors
/// [`Error::Data`] without an example; as [`descend`].
pub fn imitate(id: &str, job: Job<'_>, examples: &Examples, training: &Training) -> Result<Product> {
    if examples.is_empty() {
        let got = format!("none in {} records", job.records.len());
        return Err(Error::Data { method: id.into(), needed: "at least one answer to imitate".into(), got });
    }
    let mut policy = job.policy;
    let want = Want::default();
    policy.model = descend(policy.model, examples, training, job.seed, &job.session, &want, |part| {
        Ok(loss::cross_entropy(&part.outputs.logps, None, part.step_targets as f64)?.into())
    })?;
    Ok(Product::Policy(policy))
}

fn edits_become_likelier(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.edits(96, "train"), bench.edits(48, "held out"));
    let settings = bench::quick(
        r#"[training]
        epochs = 3.0"#,
    )?;
    let after = run(bench.job(&train, &settings)?)?.policy()?;
    Ok(bench::nll(&bench.policy()?, &held_out)? - bench::nll(&after, &held_out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_edits_become_likelier() {
        bench::assert_holds(edits_become_likelier, 5);
    }

    #[test]
    fn a_log_without_answers_is_refused() {
        let bench = bench::Bench::new(1).unwrap();
        let records = bench.thumbs(4, "bad").into_iter().map(|mut r| {
            r.feedback.clear();
            r
        });
        let records: Vec<_> = records.collect();
        let settings = bench::quick("").unwrap();
        let refused = run(bench.job(&records, &settings).unwrap()).unwrap_err().to_string();
        assert_eq!(refused, "method `sft`: needs at least one answer to imitate, got none in 4 records");
    }
}
