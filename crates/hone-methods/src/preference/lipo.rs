//! Listwise preference optimisation.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_feedback::metrics::mean;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::{Loss, Want, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, settings};
use crate::train::{Decay, Training, descend, seq_logps};

method! {
    /// Learn from ranked lists, pressing hardest on the pairs whose order matters most.
    /// # What it does
    /// The score of a response is `β (log π − log π_ref)`, summed over its tokens. Its label is its average chance to win
    /// against the list's responses, itself included at ½. `lambda` pushes every pair towards its labelled order, weighted
    /// by how much swapping the two, at their present ranks, would change DCG; no gradient passes through the weights.
    /// The paper's six other losses over the same scores and labels are there too: `point_mse`, `point_sigmoid`,
    /// `pair_hinge` (SLiC), `pair_logistic` (DPO over all pairs), `list_mle` (Plackett-Luce), `softmax` (ListNet).
    /// # Feedback
    /// Lists: rankings, ratings or comparisons over two or more responses of one prompt.
    /// # Departs from the paper
    /// AdamW, not Adafactor. Chances to win come from the list's own order, as the paper does for human rankings; a
    /// learned judge would give real ones. No checkpoint is chosen by a proxy's win rate: the caller's validation decides.
    /// Equal scores, as all are at the start, are ranked in an order drawn once per list.
    /// # Claim
    /// Same lists, same steps: orders held-out lists better than the pointwise loss (`claim_pairs_beat_points`), and all
    /// pairs of a list teach more than one pair of it (`claim_all_pairs_beat_one`). The paper's own claim, that the weights
    /// raise DCG above unweighted pairs (`claim_weights_raise_dcg`), does not hold on the bench: unweighted pairs end 0.010
    /// of the best DCG higher. A rate of 1e-2 instead of 3e-3 leaves 0.004 of that, one pass instead of three 0.009, ten
    /// passes 0.008. Labels there are exact and words add up, so that every pair says as much as any other and a weight only
    /// takes some of it away; noisy labels, which the weights are for, are yet to be tried.
    /// # Source
    /// Liu et al., NAACL 2025, arXiv:2402.01878, sections 3 and 4.
    pub static LIPO: Method = Method {
        id: "lipo", name: "LiPO-λ", family: Family::Preference, needs: Needs::Shape(Shape::Lists), makes: Makes::Policy, settings: Lipo,
        claims: &[
            Claim {
                name: "claim_pairs_beat_points",
                says: "The lambda loss orders held-out lists better than squared error on each label.",
                metric: "DCG of held-out lists by the implicit reward, as a share of the best",
                baseline: "`point_mse`, same lists, same steps",
                effect: pairs_beat_points,
            },
            Claim {
                name: "claim_all_pairs_beat_one",
                says: "All pairs of a list order held-out lists better than one pair of it, by the logistic loss.",
                metric: "DCG of held-out lists by the implicit reward, as a share of the best",
                baseline: "the same lists, of each only two responses drawn at random, same steps",
                effect: all_pairs_beat_one,
            },
            Claim {
                name: "claim_weights_raise_dcg",
                says: "Weighting pairs by their change of DCG raises held-out DCG.",
                metric: "DCG of held-out lists by the implicit reward, as a share of the best",
                baseline: "`pair_logistic`, same lists, same steps",
                effect: weights_raise_dcg,
            },
        ],
        run,
    };
}

/// Which loss is taken over a list's scores and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `Σ (label − score)²`.
    PointMse,
    /// Cross-entropy of each label as a probability.
    PointSigmoid,
    /// `Σ max(0, 1 − (better − worse))` over pairs.
    PairHinge,
    /// `Σ log(1 + exp(worse − better))` over pairs.
    PairLogistic,
    /// Plackett-Luce in the order of the labels.
    ListMle,
    /// Cross-entropy of the labels, as shares, with the softmax of the scores.
    Softmax,
    /// Pairs weighted by their change of DCG.
    Lambda,
}

/// Settings of LiPO. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lipo {
    /// The loss. Paper: lambda.
    pub objective: Objective,
    /// Scale β of the implicit reward. No unit, above 0. Paper: 0.05.
    pub beta: f64,
    /// The descent. Paper: batch of 32 prompts, learning rate 2e-5.
    pub training: Training,
}

impl Default for Lipo {
    fn default() -> Lipo {
        let decay = Decay::Constant;
        let training = Training { learning_rate: 2e-5, batch_size: 32, decay, ..Training::default() };
        Lipo { objective: Objective::Lambda, beta: 0.05, training }
    }
}

impl Settings for Lipo {
    fn check(&self) -> Result<()> {
        above_zero("lipo", "beta", self.beta)?;
        self.training.check("lipo")
    }
}

/// `[K]` labels in `[0, 1]`: the mean chance of each response to win against all `K`, itself included at ½, from values
/// of which larger is better.
pub fn win_chances(values: &[f32]) -> Vec<f32> {
    let chance = |a: f32, b: f32| match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let k = values.len() as f32;
    values.iter().map(|&a| values.iter().map(|&b| chance(a, b)).sum::<f32>() / k).collect()
}

/// Loss of one list, in nats or squared labels, summed over what the objective runs over.
///
/// `scores` is `[K]`; `labels` is `[K]` in `[0, 1]`, larger is better; `order` is a permutation of the `K` that settles
/// the ranks of equal scores.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn list_loss(
    objective: Objective,
    scores: &Tensor,
    labels: &[f32],
    order: &[usize],
) -> hone_nn::Result<Tensor> {
    let targets = Tensor::new(labels, scores.device())?.to_dtype(scores.dtype())?;
    let zero = || Tensor::zeros((), scores.dtype(), scores.device());
    let softplus = |x: &Tensor| -> hone_nn::Result<Tensor> { Ok(loss::log_sigmoid(&x.neg()?)?.neg()?) };
    let over_pairs = |weight: &dyn Fn(usize, usize) -> f64, logistic: bool| -> hone_nn::Result<Tensor> {
        let mut sum = zero()?;
        for (better, worse) in ordered_pairs(labels) {
            let gap = (scores.get(worse)? - scores.get(better)?)?;
            let of_pair = if logistic { softplus(&gap)? } else { (gap + 1.0)?.relu()? };
            sum = (sum + (of_pair * weight(better, worse))?)?;
        }
        Ok(sum)
    };
    Ok(match objective {
        Objective::PointMse => (targets - scores)?.sqr()?.sum_all()?,
        Objective::PointSigmoid => {
            let right = (loss::log_sigmoid(scores)? * &targets)?;
            let wrong = (loss::log_sigmoid(&scores.neg()?)? * targets.affine(-1.0, 1.0)?)?;
            (right + wrong)?.sum_all()?.neg()?
        }
        Objective::PairHinge => over_pairs(&|_, _| 1.0, false)?,
        Objective::PairLogistic => over_pairs(&|_, _| 1.0, true)?,
        Objective::ListMle => super::reward_lists::plackett_luce_loss(scores, labels)?,
        Objective::Softmax => {
            let shares = (targets.clone() / f64::from(labels.iter().sum::<f32>()))?;
            let log_softmax = scores.broadcast_sub(&scores.log_sum_exp(0)?)?;
            (shares * log_softmax)?.sum_all()?.neg()?
        }
        Objective::Lambda => {
            // Ranks are plain numbers: the paper passes no gradient through the weights.
            let rank = ranks(&scores.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?, order);
            over_pairs(
                &|better, worse| dcg_change(labels[better], rank[better], labels[worse], rank[worse]),
                true,
            )?
        }
    })
}

/// Pairs of unequal labels, the better one first. Equal labels give none.
fn ordered_pairs(labels: &[f32]) -> Vec<(usize, usize)> {
    let all = (0..labels.len()).flat_map(|i| (0..labels.len()).map(move |j| (i, j)));
    all.filter(|&(i, j)| labels[i] > labels[j]).collect()
}

/// `[K]` ranks from 1 by descending score; equal scores in the order given.
fn ranks(scores: &[f64], order: &[usize]) -> Vec<usize> {
    let mut by_score = order.to_vec();
    // Stable, so that ties stay in the drawn order.
    by_score.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut rank = vec![0; scores.len()];
    for (at, item) in by_score.into_iter().enumerate() {
        rank[item] = at + 1;
    }
    rank
}

/// How much DCG changes when two responses swap ranks: gain `2^label − 1`, discount `1 / ln(1 + rank)`.
fn dcg_change(one: f32, rank: usize, other: f32, other_rank: usize) -> f64 {
    let gain = |label: f32| 2f64.powf(f64::from(label)) - 1.0;
    let discount = |rank: usize| 1.0 / ((1 + rank) as f64).ln();
    ((gain(one) - gain(other)) * (discount(rank) - discount(other_rank))).abs()
}

fn run(job: Job<'_>) -> Result<Product> {
    let Lipo { objective, beta, training } = settings("lipo", job.settings)?;
    let mut policy = job.policy;
    let examples =
        Examples::from_records(&policy, job.records, Shape::Lists, training.tokens_for(&policy.model))?;
    Error::expect_examples("lipo", "lists of two or more ranked responses", &examples, job.records)?;
    let want = Want::default();
    let reference = seq_logps(&policy.model, &examples.items, &want)?;
    let labels: Vec<Vec<f32>> = examples.items.iter().map(|item| win_chances(&item.labels)).collect();
    let orders: Vec<Vec<usize>> = labels
        .iter()
        .enumerate()
        .map(|(index, labels)| {
            let mut order: Vec<usize> = (0..labels.len()).collect();
            shuffle(&mut order, &mut rng(sub_seed(job.seed, "ties"), &index.to_string()));
            order
        })
        .collect();
    policy.model = descend(policy.model, &examples, &training, job.seed, &job.session, &want, |part| {
        let scores = ((part.seq_logps()? - part.known(&reference)?)? * beta)?;
        let mut sum = Tensor::zeros((), scores.dtype(), scores.device())?;
        let mut start = 0;
        for &index in part.indices {
            let labels = &labels[index];
            let of_list = scores.narrow(0, start, labels.len())?;
            start += labels.len();
            sum = (sum + list_loss(objective, &of_list, labels, &orders[index])?)?;
        }
        Ok(Loss::from((sum / part.step_examples as f64)?))
    })?;
    Ok(Product::Policy(policy))
}

/// DCG of held-out lists when ranked by how much `run` has raised each response, as a share of the best there is.
fn held_out_dcg(seed: u64, objective: &str, responses: usize) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let mut train = bench.rankings(100, 6, "train");
    for record in &mut train {
        bench::keep_responses(record, responses);
    }
    let settings = bench::quick(&format!("objective = \"{objective}\"\nbeta = 0.5"))?;
    let start = bench.policy()?;
    let after = run(bench.job(&train, &settings)?)?.policy()?;
    let held_out =
        Examples::from_records(&start, &bench.rankings(100, 6, "held out"), Shape::Lists, 64)?.items;
    let want = Want::default();
    let (old, new) = (seq_logps(&start.model, &held_out, &want)?, seq_logps(&after.model, &held_out, &want)?);
    let shares: Vec<f64> = held_out
        .iter()
        .zip(old.iter().zip(&new))
        .map(|(example, (old, new))| {
            let labels = win_chances(&example.labels);
            let order: Vec<usize> = (0..labels.len()).collect();
            let scores: Vec<f64> = old.iter().zip(new).map(|(o, n)| f64::from(n - o)).collect();
            let best: Vec<f64> = labels.iter().map(|&label| f64::from(label)).collect();
            dcg(&labels, &ranks(&scores, &order)) / dcg(&labels, &ranks(&best, &order))
        })
        .collect();
    Ok(mean(&shares))
}

fn dcg(labels: &[f32], rank: &[usize]) -> f64 {
    labels.iter().zip(rank).map(|(&l, &r)| (2f64.powf(f64::from(l)) - 1.0) / ((1 + r) as f64).ln()).sum()
}

fn pairs_beat_points(seed: u64) -> Result<f64> {
    Ok(held_out_dcg(seed, "lambda", 6)? - held_out_dcg(seed, "point_mse", 6)?)
}

fn all_pairs_beat_one(seed: u64) -> Result<f64> {
    Ok(held_out_dcg(seed, "pair_logistic", 6)? - held_out_dcg(seed, "pair_logistic", 2)?)
}

fn weights_raise_dcg(seed: u64) -> Result<f64> {
    Ok(held_out_dcg(seed, "lambda", 6)? - held_out_dcg(seed, "pair_logistic", 6)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{assert_close, tensor};

    fn of(objective: Objective, scores: &[f64], labels: &[f32]) -> Tensor {
        let order: Vec<usize> = (0..labels.len()).collect();
        list_loss(objective, &tensor(scores), labels, &order).unwrap()
    }

    #[test]
    fn lambda_by_hand() {
        // Equal scores: gains 1 and 0, weight |1/ln 2 − 1/ln 3| = 0.53246, softplus(0) = ln 2 = 0.69315.
        assert_close(&of(Objective::Lambda, &[0.0, 0.0], &[1.0, 0.0]), &[0.53246 * std::f64::consts::LN_2]);
        // Ties give no pair.
        assert_close(&of(Objective::Lambda, &[0.3, 0.1], &[0.5, 0.5]), &[0.0]);
        // Ranked the wrong way round the weight is the same, and the pair costs softplus(1) = 1.31326.
        assert_close(&of(Objective::Lambda, &[0.0, 1.0], &[1.0, 0.0]), &[0.53246 * 1.31326]);
    }

    #[test]
    fn two_responses_are_the_pairwise_losses() {
        let (scores, labels) = ([1.5, 0.5], [0.75, 0.25]);
        // softplus(−1) = 0.31326, which is DPO's loss at a difference of 1.
        for objective in [Objective::PairLogistic, Objective::ListMle] {
            assert_close(&of(objective, &scores, &labels), &[0.31326]);
        }
        let dpo = super::super::dpo::dpo_loss(&tensor(&[1.0]), &tensor(&[0.0]), 1.0, 0.0).unwrap();
        assert_close(&dpo, &[0.31326]);
        // The hinge is SLiC's.
        let slic = super::super::slic::hinge(&tensor(&[1.5]), &tensor(&[0.9]), 1.0).unwrap();
        assert_close(&slic, &[0.4]);
        assert_close(&of(Objective::PairHinge, &[1.5, 0.9], &labels), &[0.4]);
    }

    #[test]
    fn pointwise_and_softmax_by_hand() {
        // (1 − 0.5)² + (0 − 0.5)² = 0.5.
        assert_close(&of(Objective::PointMse, &[0.5, 0.5], &[1.0, 0.0]), &[0.5]);
        // At score 0 every label costs ln 2.
        assert_close(&of(Objective::PointSigmoid, &[0.0, 0.0], &[0.3, 0.9]), &[2.0 * std::f64::consts::LN_2]);
        // Labels ¾ and ¼ as shares against equal scores: ln 2.
        assert_close(&of(Objective::Softmax, &[1.0, 1.0], &[0.75, 0.25]), &[std::f64::consts::LN_2]);
    }

    #[test]
    fn labels_matter_to_lambda_and_not_to_list_mle() {
        let (far, near) = ([0.99, 0.5, 0.01], [0.51, 0.5, 0.49]);
        let value =
            |objective, labels: &[f32]| loss::scalar(&of(objective, &[0.1, 0.2, 0.3], labels)).unwrap();
        assert!(value(Objective::Lambda, &far) > 10.0 * value(Objective::Lambda, &near));
        assert_eq!(value(Objective::ListMle, &far), value(Objective::ListMle, &near));
    }

    #[test]
    fn chances_to_win_are_averages_with_half_for_oneself() {
        // Best of three: (½ + 1 + 1) / 3; two tied below: (0 + ½ + ½) / 3 each.
        let chances = win_chances(&[3.0, 1.0, 1.0]);
        let expected = [2.5f32 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
        assert!(chances.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-6), "{chances:?}");
    }

    #[test]
    fn ranks_follow_scores_and_ties_the_drawn_order() {
        assert_eq!(ranks(&[0.1, 0.9, 0.5], &[0, 1, 2]), [3, 1, 2]);
        assert_eq!(ranks(&[0.0, 0.0, 0.0], &[2, 0, 1]), [2, 3, 1]);
    }

    #[test]
    fn claim_pairs_beat_points() {
        bench::assert_holds(pairs_beat_points, 5);
    }

    #[test]
    fn claim_all_pairs_beat_one() {
        bench::assert_holds(all_pairs_beat_one, 5);
    }

    #[test]
    fn claim_weights_raise_dcg() {
        // It does not hold here (see the comment above); a change that makes it hold, or fail by far, is to be noticed.
        let (mean, _, values) = bench::over_seeds(weights_raise_dcg, 5).unwrap();
        assert!((-0.03..0.0).contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }
}
