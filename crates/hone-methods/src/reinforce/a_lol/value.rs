//! The value of a prompt to the reference: attention over its last hidden states, fitted to the rewards of its own
//! answers.

use candle_core::{DType, Device, Tensor, Var};
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::{Batch, Model, Network, Want, loss};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::data::Example;
use crate::error::{Error, Result};
use crate::method::above_zero;

/// How the value head is fitted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueFit {
    /// Learning rate of Adam, above 0. Paper: 1e-5, other tasks 2e-5.
    pub learning_rate: f64,
    /// Passes over the validation prompts, at least 1; the one with the lowest training error stays. Paper: 10, others 5.
    pub epochs: usize,
    /// Prompts a step, at least 1.
    pub batch_size: usize,
    /// Share of what attention gives that is dropped while fitting, in [0, 1). Paper: 0.1.
    pub dropout: f64,
    /// Attention heads; fewer where the width cannot be shared out among so many. Paper: 8.
    pub heads: usize,
}

impl Default for ValueFit {
    fn default() -> ValueFit {
        ValueFit { learning_rate: 1e-5, epochs: 10, batch_size: 16, dropout: 0.1, heads: 8 }
    }
}

impl ValueFit {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self, method: &str) -> Result<()> {
        above_zero(method, "value.learning_rate", self.learning_rate)?;
        for (key, value) in [("epochs", self.epochs), ("batch_size", self.batch_size), ("heads", self.heads)]
        {
            if value == 0 {
                return Err(Error::range(method, &format!("value.{key}"), "at least 1", 0));
            }
        }
        match (0.0..1.0).contains(&self.dropout) {
            true => Ok(()),
            false => Err(Error::range(method, "value.dropout", "a share in [0, 1)", self.dropout)),
        }
    }
}

/// A learned query attends to a prompt's states; a linear layer and a sigmoid give its value in `[0, max_value]`.
#[derive(Debug)]
pub struct ValueHead {
    /// Query `[1, D]`; weights `[D, D]` and biases `[1, D]` of queries, keys, values and outputs; last layer `[D, 1]`, `[1, 1]`.
    vars: Vec<Var>,
    heads: usize,
    max_value: f64,
    /// Mean squared error on the prompts it was fitted to, without dropout.
    pub error: f64,
}

impl ValueHead {
    fn new(width: usize, heads: usize, max_value: f64, seed: u64) -> hone_nn::Result<ValueHead> {
        let mut rng = rng(seed, "value head");
        let bound = (3.0 / width as f64).sqrt();
        let mut drawn = |rows: usize, columns: usize| -> hone_nn::Result<Var> {
            let values: Vec<f32> =
                (0..rows * columns).map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect();
            Ok(Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)?)
        };
        let zeros = |columns: usize| Var::zeros((1, columns), DType::F32, &Device::Cpu);
        let mut vars = vec![drawn(1, width)?];
        for _ in 0..4 {
            vars.push(drawn(width, width)?);
            vars.push(zeros(width)?);
        }
        vars.push(drawn(width, 1)?);
        vars.push(zeros(1)?);
        let heads = (1..=heads.min(width)).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1);
        Ok(ValueHead { vars, heads, max_value, error: f64::INFINITY })
    }

    /// `[1, 1]` value of a prompt from its `[T, D]` states; `kept` is what dropout multiplies `[1, D]` by.
    fn forward(&self, states: &Tensor, kept: Option<&Tensor>) -> hone_nn::Result<Tensor> {
        let v = |at: usize| self.vars[at].as_tensor();
        let linear = |x: &Tensor, at: usize| -> hone_nn::Result<Tensor> {
            Ok(x.matmul(v(at))?.broadcast_add(v(at + 1))?)
        };
        let (tokens, width) = states.dims2()?;
        let size = width / self.heads;
        let split = |x: Tensor, rows: usize| -> hone_nn::Result<Tensor> {
            Ok(x.reshape((rows, self.heads, size))?.transpose(0, 1)?.contiguous()?)
        };
        let query = split(linear(v(0), 1)?, 1)?;
        let (keys, values) = (split(linear(states, 3)?, tokens)?, split(linear(states, 5)?, tokens)?);
        // Every prompt by itself: there is no padding that would need a mask.
        let raw = (query.matmul(&keys.transpose(1, 2)?.contiguous()?)? / (size as f64).sqrt())?;
        let shares = raw.broadcast_sub(&raw.log_sum_exp(2)?.unsqueeze(2)?)?.exp()?;
        let mixed = shares.matmul(&values)?.transpose(0, 1)?.contiguous()?.reshape((1, width))?;
        let mut mixed = linear(&mixed, 7)?;
        if let Some(kept) = kept {
            mixed = (mixed * kept)?;
        }
        let logit = linear(&mixed, 9)?;
        Ok((loss::log_sigmoid(&logit)?.exp()? * self.max_value)?)
    }

    /// Fits a head to `[prompts]` of states `[T, D]` and the rewards of the reference's answers.
    ///
    /// # Errors
    /// [`hone_nn::Error::Argument`] without a prompt; those of the tensor library.
    pub fn fit(
        states: &[Tensor],
        rewards: &[f64],
        max_value: f64,
        own: &ValueFit,
        seed: u64,
    ) -> hone_nn::Result<ValueHead> {
        let Some(first) = states.first() else {
            return Err(hone_nn::Error::argument("validation prompts", "at least 1", 0));
        };
        let width = first.dims2()?.1;
        let mut head = ValueHead::new(width, own.heads, max_value, seed)?;
        let mut moments: Vec<[Vec<f64>; 2]> = head.vars.iter().map(|_| [vec![], vec![]]).collect();
        let (mut best, mut step): (Option<Vec<Tensor>>, i32) = (None, 0);
        let mut draw = rng(sub_seed(seed, "value"), "dropout");
        for epoch in 0..own.epochs {
            let mut order: Vec<usize> = (0..states.len()).collect();
            shuffle(&mut order, &mut rng(sub_seed(seed, "value"), &format!("epoch {epoch}")));
            for batch in order.chunks(own.batch_size) {
                let mut sum = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
                for &at in batch {
                    let scale = 1.0 / (1.0 - own.dropout);
                    let kept: Vec<f32> = (0..width)
                        .map(|_| if draw.random::<f64>() < own.dropout { 0.0 } else { scale as f32 })
                        .collect();
                    let kept = Tensor::from_vec(kept, (1, width), &Device::Cpu)?;
                    sum = (sum + (head.forward(&states[at], Some(&kept))? - rewards[at])?.sqr()?)?;
                }
                step += 1;
                head.step(&(sum / batch.len() as f64)?, &mut moments, own.learning_rate, step)?;
            }
            let error = head.mean_squared_error(states, rewards)?;
            if error < head.error {
                head.error = error;
                best = Some(head.vars.iter().map(|var| var.as_tensor().copy()).collect::<Result<_, _>>()?);
            }
        }
        for (var, best) in head.vars.iter().zip(best.iter().flatten()) {
            var.set(best)?;
        }
        Ok(head)
    }

    /// One step of Adam.
    fn step(
        &self,
        loss: &Tensor,
        moments: &mut [[Vec<f64>; 2]],
        rate: f64,
        step: i32,
    ) -> hone_nn::Result<()> {
        let slopes = loss.sum_all()?.backward()?;
        for (var, [first, second]) in self.vars.iter().zip(moments) {
            let Some(slope) = slopes.get(var) else { continue };
            let slope: Vec<f32> = slope.flatten_all()?.to_vec1()?;
            let mut values: Vec<f32> = var.as_tensor().flatten_all()?.to_vec1()?;
            first.resize(slope.len(), 0.0);
            second.resize(slope.len(), 0.0);
            for (at, value) in values.iter_mut().enumerate() {
                let g = f64::from(slope[at]);
                first[at] = 0.9 * first[at] + 0.1 * g;
                second[at] = 0.999 * second[at] + 0.001 * g * g;
                let (m, v) =
                    (first[at] / (1.0 - 0.9f64.powi(step)), second[at] / (1.0 - 0.999f64.powi(step)));
                *value -= (rate * m / (v.sqrt() + 1e-8)) as f32;
            }
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// `[prompts]`: value of each, in the unit of the reward, without dropout.
    ///
    /// # Errors
    /// Those of the tensor library, for another width of states.
    pub fn values(&self, states: &[Tensor]) -> hone_nn::Result<Vec<f64>> {
        states.iter().map(|states| loss::scalar(&self.forward(states, None)?)).collect()
    }

    fn mean_squared_error(&self, states: &[Tensor], rewards: &[f64]) -> hone_nn::Result<f64> {
        let values = self.values(states)?;
        let sum: f64 = values.iter().zip(rewards).map(|(v, r)| (v - r).powi(2)).sum();
        Ok(sum / values.len().max(1) as f64)
    }
}

/// `[examples]` of `[T, D]`: the last hidden states of each example's prompt, without gradient. Those are never changed by
/// the answer after them.
///
/// # Errors
/// [`Error::Engine`].
pub fn prompt_states(model: &Model, examples: &[&Example]) -> Result<Vec<Tensor>> {
    let last = model.config().layers;
    let mut all = vec![];
    for chunk in examples.chunks(64) {
        let mut batch = Batch::new();
        for sequence in chunk.iter().flat_map(|example| example.sequences.first()) {
            let end = sequence.mask.iter().position(|&own| own).unwrap_or(sequence.tokens.len());
            batch.push(&sequence.tokens[..end.max(1)], 0..0);
        }
        let outputs = model.evaluate(&batch, &Want { hidden: vec![last], ..Want::default() })?;
        for rows in batch.sequences() {
            let Some(states) = outputs.hidden.first() else { continue };
            let states =
                states.narrow(0, rows.start, rows.len()).and_then(|s| s.detach().to_dtype(DType::F32));
            all.push(states.map_err(hone_nn::Error::from)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states<const T: usize>(values: &[[f32; 2]; T]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_head_at_zero_says_half_the_most() {
        let head = ValueHead::new(2, 8, 3.0, 1).unwrap();
        // Two columns cannot be shared out among 8 heads.
        assert_eq!(head.heads, 2);
        for var in &head.vars {
            var.set(&var.zeros_like().unwrap()).unwrap();
        }
        assert_eq!(head.values(&[states(&[[1.0, 2.0], [3.0, 4.0]])]).unwrap(), [1.5]);
    }

    #[test]
    fn attention_is_that_of_the_formula() {
        let head = ValueHead::new(2, 1, 1.0, 1).unwrap();
        let set = |at: usize, values: &[f32], shape: (usize, usize)| {
            head.vars[at].set(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap();
        };
        let identity = [1.0, 0.0, 0.0, 1.0];
        set(0, &[1.0, 0.0], (1, 2));
        [1, 3, 5, 7].iter().for_each(|&at| set(at, &identity, (2, 2)));
        set(9, &[0.0, 1.0], (2, 1));
        // The query (1, 0) meets (√2, 0) with 1 and (0, 2) with 0 after the division by √2: shares e/(1+e) and 1/(1+e);
        // the second coordinate is 2/(1+e) = 0.53788, σ of it 0.63132.
        let value = head.values(&[states(&[[2f32.sqrt(), 0.0], [0.0, 2.0]])]).unwrap()[0];
        let expected = 1.0 / (1.0 + (-2.0 / (1.0 + 1f64.exp())).exp());
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        // A state twice over changes nothing: shares are a mean.
        let one = head.values(&[states(&[[1.0, 1.0]]), states(&[[1.0, 1.0], [1.0, 1.0]])]).unwrap();
        assert!((one[0] - one[1]).abs() < 1e-6);
    }

    #[test]
    fn a_fit_keeps_its_best_pass() {
        let all: Vec<Tensor> = [[1.0, 0.0], [0.0, 1.0]].iter().map(|row| states(&[*row; 1])).collect();
        let own = ValueFit { learning_rate: 0.05, epochs: 60, ..ValueFit::default() };
        let head = ValueHead::fit(&all, &[0.9, 0.1], 1.0, &own, 3).unwrap();
        let values = head.values(&all).unwrap();
        let error = ((values[0] - 0.9).powi(2) + (values[1] - 0.1).powi(2)) / 2.0;
        assert!((error - head.error).abs() < 1e-9, "{error} {}", head.error);
        // The mean of both is off by 0.4.
        assert!(error < 0.01, "{values:?}");
    }
}
