//! Kahneman-Tversky optimisation.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::{Batch, Loss, Model, Want, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, settings};
use crate::policy::Sequence;
use crate::train::{Training, descend_with, evaluate, seq_logps};

method! {
    /// Learn from thumbs: each answer alone, good or bad, no pairs needed.
    /// # What it does
    /// The value of an answer is `λ σ(β (r − z))` if it is good and `λ σ(β (z − r))` if it is bad, where `r` is its
    /// log-ratio to the policy's start and `z` how far the policy has moved as a whole: the mean log-ratio of answers
    /// set under other prompts of the same step, at least 0, without gradient. The loss is what is missing to `λ`.
    /// # Feedback
    /// Binary labels: thumbs, outcomes, ratings above and below the middle, sides of comparisons.
    /// # Departs from the paper
    /// `z` is taken over the whole step, not over the part of it that fits a device. AdamW, as the authors advise in
    /// later versions, with their learning rate for it.
    /// # Claim
    /// From the same thumbs, orders held-out pairs better than imitating the good answers does
    /// (`claim_orders_better_than_imitation`).
    /// # Source
    /// Ethayarajh et al., ICML 2024, arXiv:2402.01306, equations 7 and 8.
    pub static KTO: Method = Method {
        id: "kto", name: "KTO", family: Family::Preference, needs: Needs::Shape(Shape::BinaryLabels), makes: Makes::Policy, settings: Kto,
        claims: &[Claim {
            name: "claim_orders_better_than_imitation",
            says: "From thumbs alone, the log-ratio to the start orders held-out pairs better than after imitating the \
                   answers with a thumb up.",
            metric: "share of held-out pairs in their labelled order",
            baseline: "supervised fine-tuning on the answers with a thumb up",
            effect: orders_better,
        }],
        run,
    };
}

/// Settings of KTO. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kto {
    /// Scale β of the implicit reward. No unit, above 0. Paper: 0.1.
    pub beta: f64,
    /// Weight λ_D of good answers, above 0. Paper: 1; with unequal counts, such that both sides weigh about the same.
    pub desirable_weight: f64,
    /// Weight λ_U of bad answers, above 0.
    pub undesirable_weight: f64,
    /// The descent. Paper: batch 32, learning rate 5e-6 for AdamW.
    pub training: Training,
}

impl Default for Kto {
    fn default() -> Kto {
        let training = Training { learning_rate: 5e-6, ..Training::default() };
        Kto { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0, training }
    }
}

impl Settings for Kto {
    fn check(&self) -> Result<()> {
        above_zero("kto", "beta", self.beta)?;
        above_zero("kto", "desirable_weight", self.desirable_weight)?;
        above_zero("kto", "undesirable_weight", self.undesirable_weight)?;
        if self.training.batch_size < 2 {
            let got = self.training.batch_size;
            return Err(Error::range(
                "kto",
                "training.batch_size",
                "at least 2, to set answers under others' prompts",
                got,
            ));
        }
        self.training.check("kto")
    }
}

/// `[B]` losses from `[B]` log-ratios to the reference, the labels, and the point of reference `z`, all in nats.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn kto_loss(ratios: &Tensor, good: &[bool], z: f64, kto: &Kto) -> hone_nn::Result<Tensor> {
    let per = |up: f32, down: f32| {
        let values: Vec<f32> = good.iter().map(|&good| if good { up } else { down }).collect();
        Tensor::new(values, ratios.device())?.to_dtype(ratios.dtype())
    };
    let signs = per(1.0, -1.0)?;
    let weights = per(kto.desirable_weight as f32, kto.undesirable_weight as f32)?;
    let logits = (((ratios - z)? * kto.beta)? * signs)?;
    // 1 − σ(x) = σ(−x).
    let missing = loss::log_sigmoid(&logits.neg()?)?.exp()?;
    Ok((missing * weights)?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let kto: Kto = settings("kto", job.settings)?;
    let mut policy = job.policy;
    let max_tokens = kto.training.tokens_for(&policy.model);
    let examples = Examples::from_records(&policy, job.records, Shape::BinaryLabels, max_tokens)?;
    Error::expect_examples("kto", "answers that are labelled good or bad", &examples, job.records)?;
    let good: Vec<bool> = examples.items.iter().map(|item| item.labels[0] > 0.5).collect();
    if good.iter().all(|&g| g) || !good.contains(&true) {
        let (got, needed) = (if good[0] { "good only" } else { "bad only" }, "both good and bad answers");
        return Err(Error::Data { method: "kto".into(), needed: needed.into(), got: got.into() });
    }
    let want = Want::default();
    let reference = seq_logps(&policy.model, &examples.items, &want)?;
    let start = policy.copy()?;
    let point = |model: &Model, taken: &[usize]| {
        point_of_reference(model, &start.model, &examples, taken, max_tokens)
    };
    let training = &kto.training;
    policy.model =
        descend_with(policy.model, &examples, training, job.seed, &job.session, &want, point, |part, &z| {
            let ratios = (part.seq_logps()? - part.known(&reference)?)?;
            let labels: Vec<bool> = part.indices.iter().map(|&i| good[i]).collect();
            let losses = kto_loss(&ratios, &labels, z, &kto)?;
            let rewards: Vec<f64> =
                ratios.to_vec1::<f32>()?.iter().map(|&r| kto.beta * f64::from(r)).collect();
            let n = part.step_examples as f64;
            let sum = |side: bool| {
                rewards.iter().zip(&labels).filter(|(_, l)| **l == side).map(|(r, _)| r).sum::<f64>()
            };
            let metrics = vec![
                ("rewards/chosen_sum", sum(true)),
                ("rewards/rejected_sum", sum(false)),
                ("kl", z * part.examples.len() as f64 / n),
            ];
            Ok(Loss { value: (losses.sum_all()? / n)?, metrics })
        })?;
    Ok(Product::Policy(policy))
}

/// `z`: the mean log-ratio of each answer of the step under the prompt before it, at least 0, in nats.
fn point_of_reference(
    model: &Model,
    start: &Model,
    examples: &Examples,
    taken: &[usize],
    max_tokens: usize,
) -> Result<f64> {
    let mismatched: Vec<Example> = (0..taken.len())
        .filter_map(|at| {
            let prompt = taken[at];
            // The last step of a pass can hold one example, whose answer would meet its own prompt.
            let answer = match taken.len() {
                1 => (prompt + 1) % examples.len(),
                n => taken[(at + 1) % n],
            };
            mismatched(&examples.items[prompt].sequences[0], &examples.items[answer].sequences[0], max_tokens)
        })
        .collect();
    if mismatched.is_empty() {
        return Ok(0.0);
    }
    let read =
        |batch: &Batch, outputs: &hone_nn::Outputs| Ok(loss::seq_logps(&outputs.logps, batch)?.to_vec1()?);
    let want = Want::default();
    let now = evaluate(model, &mismatched, &want, read)?;
    let then = evaluate(start, &mismatched, &want, read)?;
    let sum: f64 = now.iter().flatten().zip(then.iter().flatten()).map(|(n, t)| f64::from(n - t)).sum();
    Ok((sum / mismatched.len() as f64).max(0.0))
}

/// The answer of one sequence under the prompt of another; none if both together are too long.
fn mismatched(prompt: &Sequence, answer: &Sequence, max_tokens: usize) -> Option<Example> {
    let start = prompt.mask.iter().position(|&scored| scored)?;
    let from = answer.mask.iter().position(|&scored| scored)?;
    let sequence = Sequence::of_tokens(&prompt.tokens[..start], &answer.tokens[from..]);
    let fits = sequence.tokens.len() <= max_tokens;
    fits.then(|| Example { record: 0, sequences: vec![sequence], labels: vec![], marks: vec![] })
}

fn orders_better(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let train = bench.thumbs(320, "train");
    let settings = bench::quick("")?;
    let start = bench.policy()?;
    let held_out = Examples::from_records(&start, &bench.pairs(200, "held out"), Shape::Pairs, 64)?.items;
    let mut good = Examples::from_records(&start, &train, Shape::BinaryLabels, 64)?;
    good.items.retain(|item| item.labels[0] > 0.5);
    let training = bench::training_of(&settings)?;
    // Twice the passes over half the answers: the same number of steps.
    let twice = Training { epochs: 2.0 * training.epochs, ..training };
    let imitated = sft::imitate("sft", bench.job(&train, &settings)?, &good, &twice)?.policy()?;
    let preferred = run(bench.job(&train, &settings)?)?.policy()?;
    let order = |policy| Ok::<_, Error>(bench::share_above_zero(&bench::margins(&start, policy, &held_out)?));
    Ok(order(&preferred)? - order(&imitated)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let kto = Kto { beta: 0.5, undesirable_weight: 2.0, ..Kto::default() };
        // At r = z both sides miss half: 0.5 and 2 · 0.5. Good at r − z = 2: 1 − σ(1) = 0.26894.
        let losses = kto_loss(&bench::tensor(&[1.0, 1.0, 3.0]), &[true, false, true], 1.0, &kto).unwrap();
        bench::assert_close(&losses, &[0.5, 1.0, 0.26894]);
    }

    #[test]
    fn answers_go_under_other_prompts() {
        let (one, other) = (Sequence::of_tokens(&[1, 2], &[3]), Sequence::of_tokens(&[4], &[5, 6]));
        let example = mismatched(&one, &other, 4).unwrap();
        assert_eq!(example.sequences[0], Sequence::of_tokens(&[1, 2], &[5, 6]));
        assert!(mismatched(&one, &other, 3).is_none());
    }

    #[test]
    fn a_step_of_one_example_borrows_an_answer() {
        let bench = bench::Bench::new(1).unwrap();
        let start = bench.policy().unwrap();
        let examples =
            Examples::from_records(&start, &bench.thumbs(2, "two"), Shape::BinaryLabels, 64).unwrap();
        let training = Training { learning_rate: 3e-3, batch_size: 2, epochs: 20.0, ..Training::default() };
        let nothing = toml::Table::new();
        let job = bench.job(&[], &nothing).unwrap();
        let moved = sft::imitate("sft", job, &examples, &training).unwrap().policy().unwrap();
        let z = point_of_reference(&moved.model, &start.model, &examples, &[0], 64).unwrap();
        let items = [0, 1].map(|at| examples.items[at].sequences[0].clone());
        let expected = |prompt: usize, answer: usize| {
            let set = [mismatched(&items[prompt], &items[answer], 64).unwrap()];
            let logp = |model: &Model| f64::from(seq_logps(model, &set, &Want::default()).unwrap()[0][0]);
            logp(&moved.model) - logp(&start.model)
        };
        // The second answer under the first prompt; the first one's own ratio is another number.
        assert!((z - expected(0, 1).max(0.0)).abs() < 1e-4, "{z}");
        assert!((z - expected(0, 0)).abs() > 0.1, "{z}");
    }

    #[test]
    fn labels_of_one_kind_are_refused() {
        let bench = bench::Bench::new(1).unwrap();
        let mut records = bench.thumbs(40, "one kind");
        records.retain(|r| matches!(r.feedback[0].form, hone_feedback::Form::Thumb { value: true, .. }));
        let refused = run(bench.job(&records, &toml::Table::new()).unwrap()).unwrap_err().to_string();
        assert_eq!(refused, "method `kto`: needs both good and bad answers, got good only");
    }

    #[test]
    fn claim_orders_better_than_imitation() {
        bench::assert_holds(orders_better, 5);
    }
}
