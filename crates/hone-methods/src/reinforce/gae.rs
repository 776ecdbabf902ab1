//! Generalised advantage estimation (Schulman et al., arXiv:1506.02438).

/// `[T]` advantages and `[T]` returns of one answer, from `[T]` rewards and `[T]` values, the value of a token being that
/// of the state before it. After the last token the value is 0.
///
/// `δ_t = r_t + γ V_{t+1} − V_t`, `A_t = δ_t + γ λ A_{t+1}`, returns are `A + V`. With a `mask`, `A_t` is 0 at tokens that
/// are false in it, and what lies behind them gives no credit to what lies before: the sum starts anew there, as in TRL's
/// first PPO trainer. Lists of differing lengths are read as far as the shortest.
pub fn gae(
    rewards: &[f32],
    values: &[f32],
    mask: Option<&[bool]>,
    gamma: f64,
    lambda: f64,
) -> (Vec<f32>, Vec<f32>) {
    let length = rewards.len().min(values.len());
    let mut advantages = vec![0.0; length];
    let (mut later, mut next_value) = (0.0, 0.0);
    for at in (0..length).rev() {
        let value = f64::from(values[at]);
        let delta = f64::from(rewards[at]) + gamma * next_value - value;
        let kept = mask.is_none_or(|mask| mask.get(at).copied().unwrap_or(true));
        later = if kept { delta + gamma * lambda * later } else { 0.0 };
        advantages[at] = later as f32;
        next_value = value;
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Gives the values of all answers together a mean of 0, if `centre`, and a variance of 1: the sample's, with `n − 1`.
/// Only tokens that are true in `masks` count, and only they change. `values` and `masks` are `[answers][T]`; fewer than
/// two tokens are left as they are.
pub fn whiten(values: &mut [Vec<f32>], masks: Option<&[Vec<bool>]>, centre: bool) {
    let kept = |answer: usize, at: usize| {
        masks.is_none_or(|masks| masks.get(answer).and_then(|mask| mask.get(at)).copied().unwrap_or(true))
    };
    let mut all = vec![];
    for (answer, row) in values.iter().enumerate() {
        all.extend(row.iter().enumerate().filter(|(at, _)| kept(answer, *at)).map(|(_, &x)| f64::from(x)));
    }
    if all.len() < 2 {
        return;
    }
    let mean = hone_feedback::metrics::mean(&all);
    let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (all.len() - 1) as f64;
    // 1e-8 keeps equal values finite.
    let scale = 1.0 / (variance + 1e-8).sqrt();
    for (answer, row) in values.iter_mut().enumerate() {
        for (_, value) in row.iter_mut().enumerate().filter(|(at, _)| kept(answer, *at)) {
            let moved = (f64::from(*value) - mean) * scale;
            *value = (if centre { moved } else { moved + mean }) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::FRAC_1_SQRT_2;

    use super::*;
    use crate::bench::assert_near as close;

    #[test]
    fn by_hand() {
        // γ ½, λ ½. δ_3 = 1 − 0.2 = 0.8. δ_2 = 0 + 0.1 − 0.4 = −0.3, A_2 = −0.3 + 0.2 = −0.1.
        // δ_1 = 0.5 + 0.2 − 0.6 = 0.1, A_1 = 0.1 − 0.025 = 0.075.
        let (rewards, values) = ([0.5, 0.0, 1.0], [0.6, 0.4, 0.2]);
        let (advantages, returns) = gae(&rewards, &values, None, 0.5, 0.5);
        close(&advantages, &[0.075, -0.1, 0.8]);
        close(&returns, &[0.675, 0.3, 1.0]);
        // γ 1, λ 1: the sum of rewards from here on, less the value. λ 0: δ alone.
        close(&gae(&rewards, &values, None, 1.0, 1.0).0, &[0.9, 0.6, 0.8]);
        close(&gae(&rewards, &values, None, 1.0, 0.0).0, &[0.3, -0.2, 0.8]);
    }

    #[test]
    fn credit_is_cut_at_masked_tokens() {
        // γ λ 1, values 0: the second token is masked, so the first sees nothing of the third.
        let (advantages, _) = gae(&[0.5, 2.0, 1.0], &[0.0; 3], Some(&[true, false, true]), 1.0, 1.0);
        close(&advantages, &[0.5, 0.0, 1.0]);
        // The value behind the masked token still counts: δ_1 = 0.5 + 0.4 − 0.
        let (advantages, returns) =
            gae(&[0.5, 2.0, 1.0], &[0.0, 0.4, 0.0], Some(&[true, false, true]), 1.0, 1.0);
        close(&advantages, &[0.9, 0.0, 1.0]);
        close(&returns, &[0.9, 0.4, 1.0]);
    }

    #[test]
    fn whitened_over_all_answers() {
        // 1, 2, 3: mean 2, variance 1.
        let mut values = vec![vec![1.0, 2.0], vec![3.0]];
        whiten(&mut values, None, true);
        close(&values.concat(), &[-1.0, 0.0, 1.0]);
        // 1 and 3: mean 2, variance 2; the masked 9 stays.
        let mut values = vec![vec![1.0, 9.0], vec![3.0]];
        let masks = [vec![true, false], vec![true]];
        whiten(&mut values, Some(&masks), true);
        close(&values.concat(), &[-FRAC_1_SQRT_2, 9.0, FRAC_1_SQRT_2]);
        let mut values = vec![vec![1.0, 3.0]];
        whiten(&mut values, None, false);
        close(&values[0], &[2.0 - FRAC_1_SQRT_2, 2.0 + FRAC_1_SQRT_2]);
        let mut equal = vec![vec![2.0, 2.0]];
        whiten(&mut equal, None, true);
        close(&equal[0], &[0.0, 0.0]);
    }
}
