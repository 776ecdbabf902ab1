//! Adapters that were trained apart, added.

use hone_nn::{Adapter, Model};

use crate::error::{Error, Result};

/// One adapter that does what all of `parts` do together: the updates `scale · B A` add up, so the factors are laid side
/// by side. Its rank is the sum of their ranks. `None` for no part.
///
/// # Errors
/// [`Error::Engine`] for parts that are not of this model, or that lie on different projections.
pub fn added(parts: &[Adapter], model: &Model) -> Result<Option<Adapter>> {
    let Some(first) = parts.first() else { return Ok(None) };
    let mut config = first.config.clone();
    config.rank = parts.iter().map(|part| part.config.rank).sum();
    // The first part's scale is kept; the others' is worked into their factors.
    config.alpha = first.scale() * config.rank as f32;
    config.rank_stabilized = false;
    let rank = config.rank;
    let mut whole = Adapter::new(config, model.config(), 0)?;
    let entries: Vec<_> = whole.params.layout().entries().to_vec();
    for entry in entries {
        let mut from = 0;
        for part in parts {
            let values = part.params.tensor(&entry.name)?;
            let own = part.config.rank;
            let target = whole.params.tensor_mut(&entry.name)?;
            if entry.name.ends_with("lora_A.weight") {
                // `[r, inputs]`: rows below rows.
                let inputs = values.len() / own.max(1);
                target[from * inputs..(from + own) * inputs].copy_from_slice(values);
            } else {
                // `[outputs, r]`: columns beside columns.
                let factor = part.scale() / first.scale();
                for (row, values) in target.chunks_exact_mut(rank).zip(values.chunks_exact(own)) {
                    let target = row[from..from + own].iter_mut();
                    target.zip(values).for_each(|(target, value)| *target = factor * value);
                }
            }
            from += own;
        }
    }
    Ok(Some(whole))
}

/// The adapter of a policy that has been trained.
///
/// # Errors
/// [`Error::Settings`] where there is none.
pub(super) fn taken(model: &mut Model) -> Result<Adapter> {
    let missing = || Error::Settings { method: super::ID.into(), message: "no adapter was trained".into() };
    model.detach().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use hone_nn::params::{Projection, fill_normal};
    use hone_nn::train::seed::rng;
    use hone_nn::{LoraConfig, folder};

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn the_sum_moves_weights_as_far_as_its_parts_one_after_the_other() {
        let mut model = Bench::new(1).unwrap().policy().unwrap().model;
        let part = |rank: usize, alpha: f32| {
            let config =
                LoraConfig { rank, alpha, targets: Projection::ALL.to_vec(), ..LoraConfig::default() };
            let mut adapter = Adapter::new(config, model.config(), 1).unwrap();
            fill_normal(&mut adapter.params.data, 0.1, &mut rng(rank as u64, "part"));
            adapter
        };
        let parts = [part(2, 8.0), part(3, 3.0)];
        let sum = added(&parts, &model).unwrap().unwrap();
        assert_eq!(sum.config.rank, 5);
        let mut step_by_step = model.params.clone();
        for part in &parts {
            let mut other = Model::new((**model.config()).clone(), step_by_step).unwrap();
            other.attach(part.clone());
            step_by_step = folder::merge(&other);
        }
        model.attach(sum);
        let at_once = folder::merge(&model);
        assert!(at_once.data.iter().zip(&model.params.data).any(|(one, other)| (one - other).abs() > 1e-3));
        for (one, other) in at_once.data.iter().zip(&step_by_step.data) {
            assert!((one - other).abs() < 1e-5, "{one}, {other}");
        }
        assert!(added(&[], &model).unwrap().is_none());
    }
}
