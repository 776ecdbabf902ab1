//! A value head on the policy's own hidden states, and its loss.
//!
//! The value of an answer token is that of the state before it, read where the token is predicted.

use std::sync::Arc;

use candle_core::Tensor;
use hone_nn::config::Head;
use hone_nn::params::{Layout, fill_normal};
use hone_nn::train::seed::rng;
use hone_nn::{Batch, Model, Network, Outputs, Params, Want};

use crate::error::Result;
use crate::reinforce::Rollout;

/// The same language model with a value head (one linear layer on the last hidden states, as TRL's), drawn from
/// N(0, `initializer_range`), bias 0. Under an adapter the head and the adapter are trained; else all is.
///
/// # Errors
/// Those of the engine.
pub fn with_head(model: &Model, seed: u64) -> Result<Model> {
    let mut headed = rebuilt(model, Head::LanguageAndValue)?;
    let spread = headed.config().initializer_range;
    let known = model.config().head == Head::LanguageAndValue;
    for entry in headed.params.layout().clone().entries().iter().filter(|entry| is_own(&entry.name)) {
        if !known && entry.is_matrix() {
            fill_normal(&mut headed.params.data[entry.range()], spread, &mut rng(seed, &entry.name));
        }
    }
    Ok(headed)
}

/// The language model without its value head.
///
/// # Errors
/// Those of the engine.
pub fn without_head(model: &Model) -> Result<Model> {
    rebuilt(model, Head::Language)
}

fn is_own(name: &str) -> bool {
    Head::LanguageAndValue.tensor_stem().is_some_and(|stem| name.starts_with(stem))
}

/// A copy with another head; tensors that both have are kept, others are 0.
fn rebuilt(model: &Model, head: Head) -> Result<Model> {
    let mut config = (**model.config()).clone();
    config.head = head;
    let (layout, _) = Layout::decoder(&config);
    let mut params = Params::zeros(Arc::new(layout));
    for entry in params.layout().clone().entries() {
        if model.params.layout().get(&entry.name).is_some() {
            params.data[entry.range()].copy_from_slice(model.params.tensor(&entry.name)?);
        }
    }
    let mut other = Model::new(config, params)?;
    other.threads = model.threads;
    if let Some(adapter) = &model.adapter {
        other.attach(adapter.clone());
        other.set_trained(|entry| is_own(&entry.name), true);
    }
    Ok(other)
}

/// `[M]`: the value before each target of a batch.
///
/// # Errors
/// Without a value head, or where scores were not wanted.
pub fn of_targets(batch: &Batch, outputs: &Outputs) -> hone_nn::Result<Tensor> {
    let missing = || hone_nn::Error::argument("model", "a value head", "none");
    let scores = outputs.scores.as_ref().ok_or_else(missing)?.squeeze(1)?;
    let rows: Vec<u32> = batch.targets().iter().map(|target| target.row).collect();
    Ok(scores.index_select(&Tensor::new(rows, scores.device())?, 0)?)
}

/// `[rollouts][T]`: the value before each answer token, without gradient.
///
/// # Errors
/// As [`of_targets`].
pub fn of_rollouts(model: &Model, rollouts: &[Rollout]) -> Result<Vec<Vec<f32>>> {
    let want = Want { scores: true, ..Want::default() };
    let mut rows = Vec::with_capacity(rollouts.len());
    for chunk in rollouts.chunks(64) {
        let mut batch = Batch::new();
        for rollout in chunk {
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask)?;
        }
        let values = of_targets(&batch, &model.evaluate(&batch, &want)?)?;
        let values: Vec<f32> = values.to_vec1().map_err(hone_nn::Error::from)?;
        rows.extend((0..chunk.len()).map(|at| values[batch.target_range(at)].to_vec()));
    }
    Ok(rows)
}

/// `[M]` losses `½ max((V − R)², (clip(V) − R)²)`, `V` clipped to `clip` around the `[M]` values at the time of sampling;
/// with `clip` 0 there is no clipping. Returns `R` are `[M]`.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn clipped_loss(values: &Tensor, old: &Tensor, returns: &Tensor, clip: f64) -> hone_nn::Result<Tensor> {
    let plain = (values - returns)?.sqr()?;
    if clip <= 0.0 {
        return Ok((plain * 0.5)?);
    }
    let near = (old + (values - old)?.clamp(-clip, clip)?)?;
    Ok((plain.maximum(&(near - returns)?.sqr()?)? * 0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, assert_close, tensor};
    use crate::policy::Sequence;

    #[test]
    fn the_loss_by_hand() {
        // Old 0, return 1, clip 0.2. Now 0.1: ½ · 0.81. Now 0.5: clipped to 0.2, the larger ½ · 0.64. Now −1: ½ · 4.
        let (old, returns) = (tensor(&[0.0; 3]), tensor(&[1.0; 3]));
        let now = tensor(&[0.1, 0.5, -1.0]);
        assert_close(&clipped_loss(&now, &old, &returns, 0.2).unwrap(), &[0.405, 0.32, 2.0]);
        assert_close(&clipped_loss(&now, &old, &returns, 0.0).unwrap(), &[0.405, 0.125, 2.0]);
    }

    #[test]
    fn a_head_changes_nothing_else_and_comes_off() {
        let bench = Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let headed = with_head(&policy.model, 3).unwrap();
        let rollouts: Vec<Rollout> = [vec![4, 1], vec![7, 9, 1]]
            .into_iter()
            .map(|answer| Rollout {
                record: 0,
                group: 0,
                sequence: Sequence::of_tokens(&[2, 5], &answer),
                logps: vec![0.0; answer.len()],
                reward: 0.0,
                ended: true,
            })
            .collect();
        let values = of_rollouts(&headed, &rollouts).unwrap();
        assert_eq!(values.iter().map(Vec::len).collect::<Vec<_>>(), [2, 3]);
        // Both answers follow one prompt: the state before their first token is the same, later ones are not.
        assert!((values[0][0] - values[1][0]).abs() < 1e-6);
        assert!((values[0][1] - values[1][1]).abs() > 1e-6);
        let draw = crate::refine::Draw::default();
        let of = |model: &Model| crate::reinforce::token_logps(model, &rollouts, &draw).unwrap();
        assert_eq!(of(&policy.model), of(&headed));
        let bare = without_head(&headed).unwrap();
        assert_eq!(bare.params.data, policy.model.params.data);
        assert!(of_rollouts(&bare, &rollouts).is_err());
        // A head that is there is kept.
        let again = with_head(&headed, 4).unwrap();
        assert_eq!(again.params.data, headed.params.data);
    }

    #[test]
    fn under_an_adapter_the_head_is_trained_too() {
        let policy = Bench::new(1).unwrap().policy().unwrap().with_lora(Default::default(), 1).unwrap();
        let headed = with_head(&policy.model, 1).unwrap();
        let base: Vec<&str> = headed
            .segments()
            .iter()
            .filter(|segment| segment.store == hone_nn::model::Store::Base)
            .map(|segment| segment.name.as_str())
            .collect();
        assert_eq!(base, ["v_head.summary.weight", "v_head.summary.bias"]);
        assert!(headed.segments().len() > 2);
    }
}
