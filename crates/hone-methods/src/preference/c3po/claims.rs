//! The claims, and what they are measured on.

use candle_core::Tensor;
use hone_feedback::metrics::mean;
use hone_nn::train::seed::rng;
use rand::Rng;

use super::adapters::{self, added};
use super::bench::{self, Arm, of_arm};
use super::scores::{Manner, Scores, slope};
use crate::error::Result;
use crate::method::Claim;
use crate::preference::dpo::dpo_loss;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_overall_beats_dpo",
        says: "Preferences with constraints follow rules better where they apply and only there than preferences alone.",
        metric: "S_overall = (S_in + 1 − S_out) / 2 on held-out prompts",
        baseline: "DPO on the same pairs, same steps",
        effect: beats_preferences,
    },
    Claim {
        name: "claim_overall_beats_scd",
        says: "They do so better than imitating the revisions.",
        metric: "S_overall = (S_in + 1 − S_out) / 2 on held-out prompts",
        baseline: "cross-entropy on the same revisions, same steps",
        effect: beats_imitation,
    },
    Claim {
        name: "claim_overall_beats_scd_negatives",
        says: "They do so better than imitating the revisions in scope and the start's answers elsewhere.",
        metric: "S_overall = (S_in + 1 − S_out) / 2 on held-out prompts",
        baseline: "cross-entropy on the same three sets, weights 0.5, same steps",
        effect: beats_imitation_with_negatives,
    },
    Claim {
        name: "claim_overall_beats_in_context",
        says: "They do so better than the rule in the prompt.",
        metric: "S_overall = (S_in + 1 − S_out) / 2 on held-out prompts",
        baseline: "the policy at its start, told the rule with every prompt",
        effect: beats_in_context,
    },
    Claim {
        name: "claim_overall_beats_in_context_cot",
        says: "They do so better than the rule in the prompt and an explanation whether it applies.",
        metric: "S_overall = (S_in + 1 − S_out) / 2 on held-out prompts",
        baseline: "the policy at its start, told the rule and asked to explain first",
        effect: beats_in_context_cot,
    },
    Claim {
        name: "claim_slope_is_smaller",
        says: "Change elsewhere grows less with adherence than under imitation.",
        metric: "slope of S_out on S_in over 3 rules and 3 lengths of training, one of them none, sign turned",
        baseline: "cross-entropy on the same revisions, same steps",
        effect: slope_is_smaller,
    },
    Claim {
        name: "claim_slope_is_smaller_than_dpo",
        says: "Change elsewhere grows less with adherence than under DPO.",
        metric: "slope of S_out on S_in over 3 rules and 3 lengths of training, one of them none, sign turned",
        baseline: "DPO on the same pairs, same steps",
        effect: slope_is_smaller_than_dpo,
    },
    Claim {
        name: "claim_dpo_overreaches",
        says: "DPO alone changes more where a rule does not apply.",
        metric: "S_out on held-out prompts, sign turned",
        baseline: "DPO on the same pairs, same steps",
        effect: preferences_alone_overreach,
    },
    Claim {
        name: "claim_dpo_adheres_no_better",
        says: "DPO alone adheres at most 0.1 better where a rule applies.",
        metric: "S_in on held-out prompts, plus 0.1",
        baseline: "DPO on the same pairs, same steps",
        effect: preferences_alone_adhere_no_better,
    },
    Claim {
        name: "claim_near_data_protects_near",
        says: "Leaving out the near-scope set raises change near scope, and more than out of it.",
        metric: "rise of change near scope less rise of change out of scope",
        baseline: "the same with all sets",
        effect: near_data_protects_near,
    },
    Claim {
        name: "claim_out_data_protects_out",
        says: "Leaving out the out-of-scope set raises change out of scope, and more than near it.",
        metric: "rise of change out of scope less rise of change near scope",
        baseline: "the same with all sets",
        effect: out_data_protects_out,
    },
    Claim {
        name: "claim_summed_kl_costs_adherence",
        says: "The likelihood of the start's answers leaves more adherence than the summed divergence at equal weights.",
        metric: "S_in on held-out prompts after one pass",
        baseline: "`constraint = \"kl_sum\"`, same data, same steps",
        effect: summed_divergence_costs_adherence,
    },
    Claim {
        name: "claim_averaged_kl_gets_some_back",
        says: "The divergence averaged over tokens leaves more adherence than the sum.",
        metric: "S_in on held-out prompts after one pass",
        baseline: "`constraint = \"kl_sum\"`, same data, same steps",
        effect: averaged_divergence_gets_some_back,
    },
    Claim {
        name: "claim_adapters_add",
        says: "Two adapters trained apart and added lose at most 0.1 of each rule's adherence.",
        metric: "0.1 less the mean loss of S_in",
        baseline: "each adapter alone",
        effect: adapters_add,
    },
    Claim {
        name: "claim_beta_sharpens",
        says: "Where responses can be enumerated, the optimum of the loss is the closed form, which imitation does not reach.",
        metric: "total variation from the closed form, mean over β of 0.5, 0.7 and 2, sign turned",
        baseline: "the policy that chose: the end of imitation",
        effect: beta_sharpens,
    },
];

/// Passes over the pairs in claims.
const EPOCHS: f64 = 4.0;

fn mean_of(seed: u64, arm: Arm, of: impl Fn(&Scores) -> f64) -> Result<f64> {
    Ok(mean(&of_arm(seed, arm, EPOCHS)?.iter().map(of).collect::<Vec<_>>()))
}

fn overall_over(seed: u64, arm: Arm) -> Result<f64> {
    Ok(mean_of(seed, Arm::C3po, Scores::overall)? - mean_of(seed, arm, Scores::overall)?)
}

pub(super) fn beats_preferences(seed: u64) -> Result<f64> {
    overall_over(seed, Arm::Dpo)
}

pub(super) fn beats_imitation(seed: u64) -> Result<f64> {
    overall_over(seed, Arm::Scd)
}

pub(super) fn beats_imitation_with_negatives(seed: u64) -> Result<f64> {
    overall_over(seed, Arm::ScdNegatives)
}

pub(super) fn beats_in_context(seed: u64) -> Result<f64> {
    overall_over(seed, Arm::Told(Manner::InContext))
}

pub(super) fn beats_in_context_cot(seed: u64) -> Result<f64> {
    overall_over(seed, Arm::Told(Manner::InContextCot))
}

/// Slope of change elsewhere on adherence over the rules of a seed and two lengths of training, and no training.
fn slope_of(seed: u64, arm: Arm) -> Result<f64> {
    // Without a step nothing has changed.
    let mut points = vec![(0.0, 0.0)];
    for epochs in [1.0, EPOCHS] {
        points.extend(of_arm(seed, arm, epochs)?.iter().map(|one| (one.adherence(), one.overreach())));
    }
    Ok(slope(&points))
}

pub(super) fn slope_is_smaller(seed: u64) -> Result<f64> {
    Ok(slope_of(seed, Arm::Scd)? - slope_of(seed, Arm::C3po)?)
}

pub(super) fn slope_is_smaller_than_dpo(seed: u64) -> Result<f64> {
    Ok(slope_of(seed, Arm::Dpo)? - slope_of(seed, Arm::C3po)?)
}

pub(super) fn preferences_alone_overreach(seed: u64) -> Result<f64> {
    Ok(mean_of(seed, Arm::Dpo, Scores::overreach)? - mean_of(seed, Arm::C3po, Scores::overreach)?)
}

pub(super) fn preferences_alone_adhere_no_better(seed: u64) -> Result<f64> {
    Ok(mean_of(seed, Arm::C3po, Scores::adherence)? - mean_of(seed, Arm::Dpo, Scores::adherence)? + MARGIN)
}

/// How much more an arm that lacks a set changes that set than C3PO does, less the same for the other set.
fn protects(
    seed: u64,
    arm: Arm,
    own: fn(&Scores) -> &Vec<f64>,
    other: fn(&Scores) -> &Vec<f64>,
) -> Result<f64> {
    let rise = |of: fn(&Scores) -> &Vec<f64>| -> Result<f64> {
        let change = |scores: &Scores| Scores::change(of(scores));
        Ok(mean_of(seed, arm, change)? - mean_of(seed, Arm::C3po, change)?)
    };
    Ok(rise(own)? - rise(other)?)
}

pub(super) fn near_data_protects_near(seed: u64) -> Result<f64> {
    protects(seed, Arm::NoNear, |scores| &scores.near, |scores| &scores.outside)
}

pub(super) fn out_data_protects_out(seed: u64) -> Result<f64> {
    protects(seed, Arm::NoOut, |scores| &scores.outside, |scores| &scores.near)
}

/// Adherence after one pass, as the paper trains.
fn early_adherence(seed: u64, arm: Arm) -> Result<f64> {
    Ok(mean(&of_arm(seed, arm, 1.0)?.iter().map(Scores::adherence).collect::<Vec<_>>()))
}

pub(super) fn summed_divergence_costs_adherence(seed: u64) -> Result<f64> {
    Ok(early_adherence(seed, Arm::C3po)? - early_adherence(seed, Arm::KlSum)?)
}

pub(super) fn averaged_divergence_gets_some_back(seed: u64) -> Result<f64> {
    Ok(early_adherence(seed, Arm::KlMean)? - early_adherence(seed, Arm::KlSum)?)
}

/// What a sum of adapters may lose of each rule's adherence, and what DPO alone may gain, and still count as equal.
const MARGIN: f64 = 0.1;

pub(super) fn adapters_add(seed: u64) -> Result<f64> {
    let feedback = [bench::Feedback::new(seed, 0), bench::Feedback::new(seed, 1)];
    let mut policies = [feedback[0].train(Arm::C3po, EPOCHS)?, feedback[1].train(Arm::C3po, EPOCHS)?];
    let mut alone = vec![];
    for (feedback, policy) in feedback.iter().zip(&policies) {
        alone.push(feedback.measure(policy, Manner::Plain)?.adherence());
    }
    let [first, second] = &mut policies;
    let parts = [adapters::taken(&mut first.model)?, adapters::taken(&mut second.model)?];
    if let Some(adapter) = added(&parts, &first.model)? {
        first.model.attach(adapter);
    }
    let mut losses = vec![];
    for (feedback, alone) in feedback.iter().zip(alone) {
        losses.push(alone - feedback.measure(&policies[0], Manner::Plain)?.adherence());
    }
    Ok(MARGIN - mean(&losses))
}

/// The optimum of the pairwise loss when the chosen response comes from one policy, the rejected one from another, and
/// the second is the reference: `[π₊ / π₋^(1−β)]^(1/β)`, normalised.
pub(super) fn closed_form(plus: &[f64], minus: &[f64], beta: f64) -> Vec<f64> {
    let logs: Vec<f64> =
        plus.iter().zip(minus).map(|(p, m)| (p.ln() - (1.0 - beta) * m.ln()) / beta).collect();
    softmax(&logs)
}

fn softmax(logs: &[f64]) -> Vec<f64> {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = logs.iter().map(|log| (log - top).exp()).collect();
    let sum: f64 = shares.iter().sum();
    shares.iter().map(|share| share / sum).collect()
}

/// Descends on the exact expectation of the loss over all pairs of responses, from the reference.
pub(super) fn enumerated(plus: &[f64], minus: &[f64], beta: f64) -> Result<Vec<f64>> {
    let device = candle_core::Device::Cpu;
    let count = plus.len();
    let reference = Tensor::new(minus.iter().map(|m| m.ln()).collect::<Vec<f64>>(), &device)?;
    let ratios = |logits: &Tensor| -> Result<Tensor> {
        // `[K, K]`: of the row's response over the column's.
        let logs = logits.broadcast_sub(&logits.log_sum_exp(0)?)?;
        Ok(logs.reshape((count, 1))?.broadcast_sub(&logs.reshape((1, count))?)?)
    };
    let weights: Vec<f64> = plus.iter().flat_map(|p| minus.iter().map(move |m| p * m)).collect();
    let weights = Tensor::from_vec(weights, (count, count), &device)?;
    let policy = candle_core::Var::from_tensor(&reference)?;
    // The curvature of the logistic loss in the logits is at most β²/4 · 2, and each pair moves two of them.
    let rate = 1.0 / (beta * beta);
    for _ in 0..4000 {
        let losses = dpo_loss(&ratios(&policy)?, &ratios(&reference)?, beta, 0.0)?;
        let gradients = (losses * &weights)?.sum_all()?.backward()?;
        if let Some(gradient) = gradients.get(&policy) {
            policy.set(&(policy.as_tensor() - (gradient * rate)?)?)?;
        }
    }
    Ok(softmax(&policy.to_vec1::<f64>()?))
}

/// Half the summed difference of two distributions.
pub(super) fn total_variation(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// Two distributions over six responses.
pub(super) fn two_policies(seed: u64) -> [Vec<f64>; 2] {
    ["plus", "minus"].map(|name| {
        let mut rng = rng(seed, name);
        softmax(&(0..6).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>())
    })
}

/// Over β of ½, 1 and 2: how much further π₊, which imitation ends at, is from the closed form than the optimum is.
pub(super) fn beta_sharpens(seed: u64) -> Result<f64> {
    let [plus, minus] = two_policies(seed);
    let mut gaps = vec![];
    for beta in [0.5, 0.7, 2.0] {
        let expected = closed_form(&plus, &minus, beta);
        let found = enumerated(&plus, &minus, beta)?;
        gaps.push(total_variation(&plus, &expected) - total_variation(&found, &expected));
    }
    Ok(mean(&gaps))
}
