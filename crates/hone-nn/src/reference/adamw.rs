//! AdamW on the decoder's device.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::Decoder;
use crate::error::Result;
use crate::train::{AdamWSettings, Decay};

/// The optimiser's state on the decoder's device: the arithmetic of [`crate::train::AdamW`], tensor by tensor.
#[derive(Debug, Clone)]
pub struct AdamW {
    settings: AdamWSettings,
    steps: i32,
    /// Running means of the gradient and of its square, by tensor name.
    moments: BTreeMap<String, (Tensor, Tensor)>,
}

impl AdamW {
    /// Fresh state.
    ///
    /// # Errors
    /// As [`AdamWSettings::check`].
    pub fn new(settings: AdamWSettings) -> Result<AdamW> {
        settings.check()?;
        Ok(AdamW { settings, steps: 0, moments: BTreeMap::new() })
    }

    /// One step along the accumulated gradient times `scale` (1, or what clipping leaves), which is dropped after. A
    /// tensor without a gradient stays as it is.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] if the device refuses, for want of memory in particular.
    pub fn update(&mut self, decoder: &mut Decoder, learning_rate: f64, scale: f64) -> Result<()> {
        self.steps += 1;
        let AdamWSettings { beta1, beta2, epsilon, weight_decay, decay } = self.settings;
        let correction1 = 1.0 - beta1.powi(self.steps);
        let correction2 = 1.0 - beta2.powi(self.steps);
        for (name, gradient) in decoder.take_gradients() {
            let gradient = (gradient * scale)?;
            let weight = decoder.weight(&name)?;
            let (first, second) = match self.moments.get(&name) {
                Some((first, second)) => ((first * beta1)?, (second * beta2)?),
                None => (gradient.zeros_like()?, gradient.zeros_like()?),
            };
            let first = (first + (&gradient * (1.0 - beta1))?)?;
            let second = (second + (gradient.sqr()? * (1.0 - beta2))?)?;
            let root = ((second.sqrt()? / correction2.sqrt())? + epsilon)?;
            let decays = weight.matrix || decay == Decay::All;
            let keep = if decays { 1.0 - learning_rate * weight_decay } else { 1.0 };
            let step = ((&first / root)? * (learning_rate / correction1))?;
            weight.var.set(&((weight.var.as_detached_tensor() * keep)? - step)?)?;
            self.moments.insert(name, (first, second));
        }
        Ok(())
    }
}
