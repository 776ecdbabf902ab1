//! A running average of the trained weights, which often generalises better than the last ones.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::train::adamw::{cut, share, weights};
use crate::train::segment_weights;

/// Exponential moving average of what a model trains, placed as its gradient is. Starts at the weights it is made
/// from.
#[derive(Debug, Clone, PartialEq)]
pub struct Ema {
    decay: f64,
    pub(super) average: Vec<f32>,
}

impl Ema {
    /// An average that keeps `decay` of itself at each step.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `decay` is in `[0, 1)`.
    pub fn new(decay: f64, model: &Model) -> Result<Ema> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::argument("ema_decay", "a number in [0, 1)", decay));
        }
        let mut average = vec![0.0; model.gradient_len()];
        for segment in model.segments() {
            average[segment.grad..][..segment.param.len()].copy_from_slice(segment_weights(model, segment));
        }
        Ok(Ema { decay, average })
    }

    /// Moves the average towards the model's weights: `average + (1 − decay) (weight − average)`.
    pub fn update(&mut self, model: &mut Model) {
        let share_of_new = (1.0 - self.decay) as f32;
        self.zip(model, |average, weight| {
            for (average, &mut weight) in average.iter_mut().zip(weight) {
                *average += share_of_new * (weight - *average);
            }
        });
    }

    /// Exchanges the average and the model's weights; a second call undoes it exactly.
    pub fn swap(&mut self, model: &mut Model) {
        self.zip(model, |average, weight| average.swap_with_slice(weight));
    }

    fn zip(&mut self, model: &mut Model, each: impl Fn(&mut [f32], &mut [f32]) + Sync) {
        let threads = model.threads;
        let elements = self.average.len();
        let (segments, base, adapter, _) = model.trained_mut();
        let places = segments.iter().map(|segment| segment.grad..segment.grad + segment.param.len());
        let averages = cut(&mut self.average, places);
        let mut work: Vec<_> = averages.into_iter().zip(weights(segments, base, adapter)).collect();
        share(&mut work, threads, elements, |(average, weight)| each(average, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Adapter, LoraConfig};
    use crate::config::ModelConfig;

    #[test]
    fn averages_and_swaps() {
        let mut model = Model::random(ModelConfig::llama(32, 16, 2, 4, 2, 24), 1);
        model.params.data.fill(1.0);
        let mut ema = Ema::new(0.75, &model).unwrap();
        model.params.data.fill(3.0);
        ema.update(&mut model);
        // 1 + ¼ · 2 = 1.5, then 1.5 + ¼ · 1.5 = 1.875.
        assert!(ema.average.iter().all(|&value| value == 1.5));
        ema.update(&mut model);
        let before = (ema.clone(), model.params.data.clone());
        ema.swap(&mut model);
        assert!(model.params.data.iter().all(|&value| value == 1.875));
        ema.swap(&mut model);
        assert!((ema, model.params.data) == before);
    }

    #[test]
    fn of_an_adapter_leaves_the_base_alone() {
        let mut model = Model::random(ModelConfig::llama(32, 16, 2, 4, 2, 24), 1);
        model.attach(Adapter::new(LoraConfig::default(), model.config(), 1).unwrap());
        let base = model.params.data.clone();
        let mut ema = Ema::new(0.5, &model).unwrap();
        model.adapter.as_mut().unwrap().params.data.fill(0.0);
        ema.swap(&mut model);
        assert_eq!(model.params.data, base);
        assert_ne!(model.adapter.unwrap().params.data[0], 0.0);
        assert!(Ema::new(1.0, &Model::random(ModelConfig::llama(32, 16, 2, 4, 2, 24), 1)).is_err());
    }
}
