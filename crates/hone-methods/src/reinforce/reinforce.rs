//! REINFORCE with a baseline.

use hone_feedback::metrics::mean;
use hone_nn::loss::{scalar, weighted_sum};
use hone_nn::{Loss, Want};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::refine::Draw;
use crate::reinforce::grpo::over_no_baseline;
use crate::reinforce::kl::{Estimator, Penalty, per_answer};
use crate::reinforce::{Look, Part, Reuse, Rollout, Rule, Sampling, Step, check_draw, learn, value};
use crate::train::{Decay, Training};

method! {
    /// Plain policy gradient: make an answer likelier by how much it beat what answers have earned so far.
    /// # What it does
    /// The reward of an answer, less `kl.weight` times how far its log-probability moved from the start's, less a baseline,
    /// multiplies the gradient of its log-probability. The baseline is the mean reward of all iterations before, that of
    /// this one, or a value learnt for each prompt by a head on the policy's hidden states. One step per iteration.
    /// # Feedback
    /// Prompts whose answers can be checked: an oracle, tests, or a reward model behind the same interface.
    /// # Departs from the paper
    /// AdamW, gradients clipped. Before there is a mean of earlier iterations, that of the first stands in. The learnt
    /// value is Williams's reinforcement comparison with a network's prediction; its error is weighted by `value_weight`.
    /// # Claim
    /// The moving mean as a baseline scores higher than none, same samples (`claim_a_baseline_helps`).
    /// # Source
    /// Williams, Machine Learning 8, 1992; for language models with the moving mean: Ahmadian et al., ACL 2024,
    /// arXiv:2402.14740, section 3.
    pub static REINFORCE: Method = Method {
        id: "reinforce", name: "REINFORCE with baseline", family: Family::Reinforce, needs: Needs::Checks,
        makes: Makes::Policy, settings: Reinforce,
        claims: &[Claim {
            name: "claim_a_baseline_helps",
            says: "Sampled answers to held-out prompts score higher with the moving mean as a baseline than with none.",
            metric: "mean score of answers to held-out prompts at temperature 1, in [0, 1]",
            baseline: "no baseline, same prompts, samples and steps",
            effect: baseline_helps,
        }],
        run,
    };
}

/// What is taken off a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean of all rewards of earlier iterations.
    MovingMean,
    /// The mean of this iteration's rewards.
    BatchMean,
    /// A value learnt for each prompt.
    Value,
    /// Nothing.
    None,
}

/// Settings of REINFORCE. Defaults are those of Ahmadian et al.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reinforce {
    /// Answers per prompt, at least 1.
    pub group_size: usize,
    /// What is taken off a reward.
    pub baseline: Baseline,
    /// Weight of the learnt value's squared error, at least 0.
    pub value_weight: f64,
    /// The price of moving away from the start. Paper: 0.03 to 0.1, k1.
    pub kl: Penalty,
    /// How answers are sampled. Paper: temperature 0.75.
    pub draw: Draw,
    /// The descent, counted in prompts. Paper: learning rate 1e-6.
    pub training: Training,
}

impl Default for Reinforce {
    fn default() -> Reinforce {
        let decay = Decay::Constant;
        let training =
            Training { learning_rate: 1e-6, batch_size: 128, warm_up: 0.0, decay, ..Training::default() };
        Reinforce {
            group_size: 1,
            baseline: Baseline::MovingMean,
            value_weight: 0.1,
            kl: Penalty { weight: 0.03, estimator: Estimator::K1, target: 0.0, horizon: 10_000.0 },
            draw: Draw { temperature: 0.75, max_tokens: 128, ..Draw::default() },
            training,
        }
    }
}

impl Settings for Reinforce {
    fn check(&self) -> Result<()> {
        if self.group_size == 0 {
            return Err(Error::range("reinforce", "group_size", "at least 1", 0));
        }
        not_negative("reinforce", "value_weight", self.value_weight)?;
        self.kl.check("reinforce")?;
        check_draw("reinforce", &self.draw)?;
        self.training.check("reinforce")
    }
}

/// Rewards of an iteration less their price, and what is taken off them.
#[derive(Debug)]
pub struct Context {
    /// `[rollouts]`.
    rewards: Vec<f64>,
    /// `[rollouts]`.
    baselines: Vec<f64>,
    kl: f64,
}

/// Keys of the sum of earlier rewards and of their number, in a checkpoint.
const SUM: &str = "rewards_sum";
const COUNT: &str = "rewards_count";

impl Rule for Reinforce {
    type Context = Context;

    fn want(&self, draw: &Draw) -> Want {
        let scores = self.baseline == Baseline::Value;
        Want { temperature: draw.temperature as f32, scores, ..Want::default() }
    }

    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Context> {
        let weight = self.kl.now(look.kept);
        let kl = self.kl.estimator.per_token(look.current, look.reference, rollouts, &self.draw)?;
        let moved = |kl: &Vec<f32>| kl.iter().map(|&x| f64::from(x)).sum::<f64>();
        let rewards: Vec<f64> =
            rollouts.iter().zip(&kl).map(|(rollout, kl)| rollout.reward - weight * moved(kl)).collect();
        let same = |baseline: f64| vec![baseline; rewards.len()];
        let baselines = match self.baseline {
            Baseline::None => same(0.0),
            Baseline::BatchMean => same(mean(&rewards)),
            Baseline::Value => {
                let values = value::of_rollouts(look.current, rollouts)?;
                values.iter().map(|of_tokens| of_tokens.first().map_or(0.0, |&x| f64::from(x))).collect()
            }
            Baseline::MovingMean => {
                let of = |key: &str| look.kept.get(key).and_then(|value| value.as_f64()).unwrap_or(0.0);
                let (sum, count) = (of(SUM), of(COUNT));
                look.kept.insert(SUM.into(), (sum + rewards.iter().sum::<f64>()).into());
                look.kept.insert(COUNT.into(), (count + rewards.len() as f64).into());
                same(if count > 0.0 { sum / count } else { mean(&rewards) })
            }
        };
        self.kl.adapt(look.kept, &kl);
        Ok(Context { rewards, baselines, kl: per_answer(&kl) })
    }

    fn loss(&self, part: &Part<'_>, context: &Context, step: &Step) -> hone_nn::Result<Loss> {
        let answers = step.rollouts as f64;
        let advantage = |&index: &usize| context.rewards[index] - context.baselines[index];
        let weights = part.spread(|index| -advantage(&index));
        let mut value = weighted_sum(&part.outputs.logps, &weights, answers)?;
        let mut metrics = vec![];
        if self.baseline == Baseline::Value {
            let firsts: Vec<u32> =
                (0..part.batch.len()).map(|at| part.batch.target_range(at).start as u32).collect();
            let values = value::of_targets(part.batch, part.outputs)?;
            let firsts = candle_core::Tensor::new(firsts, values.device()).map_err(hone_nn::Error::from)?;
            let values = values.index_select(&firsts, 0)?;
            let earned = part.tensor(part.indices.iter().map(|&at| context.rewards[at] as f32).collect())?;
            let error = value::clipped_loss(&values, &values, &earned, 0.0)?;
            let error = weighted_sum(&error, &vec![1.0; part.indices.len()], answers)?;
            metrics.push(("value_loss", scalar(&error)?));
            value = (value + (error * self.value_weight)?)?;
        }
        if step.places.first().is_some_and(|first| part.indices.contains(first)) {
            metrics.extend([("kl", context.kl), ("baseline", mean(&context.baselines))]);
        }
        Ok(Loss { value, metrics })
    }
}

fn run(mut job: Job<'_>) -> Result<Product> {
    let own: Reinforce = settings("reinforce", job.settings)?;
    let max_tokens = own.training.tokens_for(&job.policy.model);
    let sampling = Sampling { group: own.group_size, draw: &own.draw, max_tokens };
    let learns_values = own.baseline == Baseline::Value;
    if learns_values {
        job.policy.model = value::with_head(&job.policy.model, job.seed)?;
    }
    let once = Reuse { epochs: 1, minibatches: 1 };
    let mut policy = learn("reinforce", job, sampling, &own.training, once, &own)?;
    if learns_values {
        policy.model = value::without_head(&policy.model)?;
    }
    Ok(Product::Policy(policy))
}

fn baseline_helps(seed: u64) -> Result<f64> {
    over_no_baseline(seed, run, "moving_mean")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench;
    use crate::policy::Sequence;

    fn rollout(reward: f64) -> Rollout {
        let sequence = Sequence::of_tokens(&[3], &[4, 1]);
        Rollout { record: 0, group: 0, sequence, logps: vec![-1.0; 2], reward, ended: true }
    }

    fn rule(baseline: Baseline) -> Reinforce {
        let kl = Penalty { weight: 0.0, ..Reinforce::default().kl };
        Reinforce { baseline, kl, ..Reinforce::default() }
    }

    #[test]
    fn baselines_by_hand() {
        let policy = bench::Bench::new(1).unwrap().policy().unwrap();
        let model = value::with_head(&policy.model, 1).unwrap();
        let mut kept = BTreeMap::new();
        let mut prepare = |baseline: Baseline, rewards: &[f64]| {
            let mut rollouts: Vec<Rollout> = rewards.iter().map(|&reward| rollout(reward)).collect();
            let mut look = Look {
                current: &model,
                reference: &model,
                average: None,
                records: &[],
                kept: &mut kept,
                seed: 1,
            };
            rule(baseline).prepare(&mut look, &mut rollouts).unwrap().baselines
        };
        assert_eq!(prepare(Baseline::None, &[1.0, 0.0]), [0.0, 0.0]);
        assert_eq!(prepare(Baseline::BatchMean, &[1.0, 0.0]), [0.5, 0.5]);
        // First the mean of this iteration, then that of those before: (1 + 0) / 2, then (1 + 0 + 1 + 1) / 4.
        assert_eq!(prepare(Baseline::MovingMean, &[1.0, 0.0]), [0.5, 0.5]);
        assert_eq!(prepare(Baseline::MovingMean, &[1.0, 1.0]), [0.5, 0.5]);
        assert_eq!(prepare(Baseline::MovingMean, &[0.0]), [0.75]);
        let of_prompt = value::of_rollouts(&model, &[rollout(0.0)]).unwrap()[0][0];
        assert_eq!(prepare(Baseline::Value, &[1.0, 0.0]), [f64::from(of_prompt); 2]);
    }

    #[test]
    fn the_price_of_moving_is_part_of_the_reward() {
        let policy = bench::Bench::new(1).unwrap().policy().unwrap();
        let kl = Penalty { weight: 0.5, ..Reinforce::default().kl };
        let own = Reinforce { kl, draw: Draw::default(), ..rule(Baseline::None) };
        let mut rollouts = vec![rollout(1.0)];
        let then = crate::reinforce::token_logps(&policy.model, &rollouts, &own.draw).unwrap();
        let context = crate::reinforce::prepared(&own, &policy.model, &mut rollouts).unwrap();
        // The log-probability of the answer moved from `then` to −2.
        let moved = -2.0 - f64::from(then[0].iter().sum::<f32>());
        assert!((context.rewards[0] - (1.0 - 0.5 * moved)).abs() < 1e-5, "{context:?}");
    }

    #[test]
    fn values_are_learnt_and_their_head_comes_off() {
        let bench = bench::Bench::new(2).unwrap();
        let own = "baseline = \"value\"\n[training]\nmax_steps = 2\nbatch_size = 2\n[draw]\nmax_tokens = 8";
        let own = bench::quick(own).unwrap();
        let policy = run(bench.job(&bench.records(4, 0, "train"), &own).unwrap()).unwrap().policy().unwrap();
        assert_eq!(policy.model.config().head, hone_nn::config::Head::Language);
    }

    #[test]
    fn claim_a_baseline_helps() {
        bench::assert_holds(baseline_helps, 5);
    }
}
