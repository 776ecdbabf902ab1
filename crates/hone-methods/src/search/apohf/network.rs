//! Small networks that score embeddings: fully connected, ReLU between layers, gradients by hand.

use candle_core::{DType, Device, Tensor};
use rand::Rng;

use crate::error::Result;

/// Adam's decay rates and the number that keeps its quotient finite: those of its authors, which all use.
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// A network from embeddings to one score. Without hidden layers it is linear.
#[derive(Debug, Clone)]
pub struct Network {
    /// Width of each layer's input, then 1: `[layers + 1]`.
    widths: Vec<usize>,
    /// Per layer the weights `[inputs, outputs]`, then the biases `[outputs]`.
    pub params: Vec<f32>,
}

/// What the network is trained on: embeddings and who won.
#[derive(Debug)]
pub struct Duels {
    /// `[n, width]`: the arms that met.
    pub x: Tensor,
    /// Rows of the first and second arm, and 1 if the first won, else 0.
    pub pairs: Vec<(usize, usize, f32)>,
}

/// Gradient of a penalty on the weights.
#[derive(Debug, Clone, Copy)]
pub enum Pull<'a> {
    /// `factor · θ`.
    Zero(f32),
    /// `factor · (θ − θ₀)`.
    Start(f32, &'a [f32]),
}

/// Moments of the gradients so far.
#[derive(Debug, Clone)]
pub struct Adam {
    rate: f32,
    step: i32,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    /// At rest, for so many weights.
    pub fn new(rate: f32, weights: usize) -> Adam {
        Adam { rate, step: 0, mean: vec![0.0; weights], square: vec![0.0; weights] }
    }

    fn step(&mut self, params: &mut [f32], gradient: &[f32]) {
        self.step += 1;
        let (first, second) = (1.0 - BETA1.powi(self.step), 1.0 - BETA2.powi(self.step));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((param, &g), (mean, square)) in params.iter_mut().zip(gradient).zip(moments) {
            *mean += (1.0 - BETA1) * (g - *mean);
            *square += (1.0 - BETA2) * (g * g - *square);
            *param -= self.rate * (*mean / first) / ((*square / second).sqrt() + EPSILON);
        }
    }
}

fn matrix(data: &[f32], rows: usize, columns: usize) -> Result<Tensor> {
    Ok(Tensor::from_slice(data, (rows, columns), &Device::Cpu)?)
}

fn product(a: &Tensor, b: &Tensor) -> Result<Vec<f32>> {
    Ok(a.matmul(b)?.flatten_all()?.to_vec1()?)
}

/// The logistic function.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Network {
    /// All weights and biases 0.
    pub fn zeros(width: usize, hidden: usize, layers: usize) -> Network {
        let mut widths = vec![width];
        widths.extend(std::iter::repeat_n(hidden, layers));
        widths.push(1);
        let weights = widths.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum();
        Network { widths, params: vec![0.0; weights] }
    }

    /// All weights and biases from N(0, 1).
    pub fn normal(width: usize, hidden: usize, layers: usize, rng: &mut impl Rng) -> Network {
        let mut network = Network::zeros(width, hidden, layers);
        hone_nn::params::fill_normal(&mut network.params, 1.0, rng);
        network
    }

    fn layers(&self) -> usize {
        self.widths.len() - 1
    }

    /// Inputs, outputs, weights and biases of a layer.
    fn layer(&self, at: usize) -> (usize, usize, &[f32], &[f32]) {
        let before: usize = self.widths.windows(2).take(at).map(|pair| (pair[0] + 1) * pair[1]).sum();
        let (inputs, outputs) = (self.widths[at], self.widths[at + 1]);
        let bias = before + inputs * outputs;
        (inputs, outputs, &self.params[before..bias], &self.params[bias..bias + outputs])
    }

    /// What each layer puts out for `x`, `[n, width]`: `[layers][n · outputs]`; the last are the scores.
    fn forward(&self, x: &Tensor) -> Result<Vec<Vec<f32>>> {
        let n = x.dim(0)?;
        let mut outs: Vec<Vec<f32>> = Vec::with_capacity(self.layers());
        for at in 0..self.layers() {
            let (inputs, outputs, weights, bias) = self.layer(at);
            let weights = matrix(weights, inputs, outputs)?;
            let mut out = match outs.last() {
                None => product(x, &weights)?,
                Some(before) => product(&matrix(before, n, inputs)?, &weights)?,
            };
            let last = at + 1 == self.layers();
            for row in out.chunks_exact_mut(outputs) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                    if !last && *value < 0.0 {
                        *value = 0.0;
                    }
                }
            }
            outs.push(out);
        }
        Ok(outs)
    }

    /// Scores of `x`, `[n, width]`: `[n]`.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn scores(&self, x: &Tensor) -> Result<Vec<f64>> {
        let scores = self.forward(x)?.pop().unwrap_or_default();
        Ok(scores.into_iter().map(f64::from).collect())
    }

    /// Gradients of `Σ wanted · score` with respect to what each layer puts out before its ReLU: `[layers][n · outputs]`.
    fn deltas(&self, n: usize, outs: &[Vec<f32>], wanted: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        let mut deltas = vec![wanted];
        for at in (1..self.layers()).rev() {
            let (inputs, outputs, weights, _) = self.layer(at);
            let delta = matrix(deltas.last().map_or(&[], Vec::as_slice), n, outputs)?;
            let mut below = product(&delta, &matrix(weights, inputs, outputs)?.t()?)?;
            for (delta, out) in below.iter_mut().zip(&outs[at - 1]) {
                if *out <= 0.0 {
                    *delta = 0.0;
                }
            }
            deltas.push(below);
        }
        deltas.reverse();
        Ok(deltas)
    }

    /// Gradient of `Σ wanted · score` with respect to all weights, in their order.
    fn gradient(&self, x: &Tensor, outs: &[Vec<f32>], wanted: Vec<f32>) -> Result<Vec<f32>> {
        let n = x.dim(0)?;
        let mut whole = Vec::with_capacity(self.params.len());
        for (at, delta) in self.deltas(n, outs, wanted)?.iter().enumerate() {
            let (inputs, outputs, ..) = self.layer(at);
            let deltas = matrix(delta, n, outputs)?;
            whole.extend(match at {
                0 => product(&x.t()?, &deltas)?,
                _ => product(&matrix(&outs[at - 1], n, inputs)?.t()?, &deltas)?,
            });
            let mut bias = vec![0.0; outputs];
            for row in delta.chunks_exact(outputs) {
                bias.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            whole.extend(bias);
        }
        Ok(whole)
    }

    /// Mean negative log-likelihood of the duels under Bradley-Terry-Luce, in nats, and its gradient.
    fn loss(&self, duels: &Duels) -> Result<(f64, Vec<f32>)> {
        let outs = self.forward(&duels.x)?;
        let scores = outs.last().map_or(&[][..], Vec::as_slice);
        let mut wanted = vec![0.0; scores.len()];
        let (mut loss, share) = (0.0, 1.0 / duels.pairs.len() as f64);
        for &(first, second, won) in &duels.pairs {
            let gap = f64::from(scores[first]) - f64::from(scores[second]);
            let won = f64::from(won);
            // softplus(gap) − won · gap, without overflow.
            loss += share * (gap.max(0.0) + (-gap.abs()).exp().ln_1p() - won * gap);
            let slope = (share * (sigmoid(gap) - won)) as f32;
            wanted[first] += slope;
            wanted[second] -= slope;
        }
        Ok((loss, self.gradient(&duels.x, &outs, wanted)?))
    }

    /// One step of `adam` on the loss of the duels and the penalty; returns the loss without the penalty, in nats.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn descend(&mut self, duels: &Duels, pull: Pull<'_>, adam: &mut Adam) -> Result<f64> {
        let (loss, mut gradient) = self.loss(duels)?;
        match pull {
            Pull::Zero(factor) => {
                gradient.iter_mut().zip(&self.params).for_each(|(g, param)| *g += factor * param);
            }
            Pull::Start(factor, start) => {
                let moved = self.params.iter().zip(start).map(|(param, start)| param - start);
                gradient.iter_mut().zip(moved).for_each(|(g, moved)| *g += factor * moved);
            }
        }
        adam.step(&mut self.params, &gradient);
        Ok(loss)
    }

    /// Inner products of the scores' gradients with respect to all weights, `[n, n]` row by row: of one layer they are the
    /// product of those of its inputs (1 more for the bias) and those of its deltas, so that no gradient is written out.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn gram(&self, x: &Tensor) -> Result<Vec<f64>> {
        let n = x.dim(0)?;
        let outs = self.forward(x)?;
        let square = |rows: Tensor| -> Result<Vec<f64>> {
            // In f64: differences of nearly equal gradients are taken later.
            let rows = rows.to_dtype(DType::F64)?;
            Ok(rows.matmul(&rows.t()?)?.flatten_all()?.to_vec1()?)
        };
        let mut whole = vec![0.0; n * n];
        for (at, delta) in self.deltas(n, &outs, vec![1.0; n])?.iter().enumerate() {
            let (inputs, outputs, ..) = self.layer(at);
            let below = match at {
                0 => square(x.clone())?,
                _ => square(matrix(&outs[at - 1], n, inputs)?)?,
            };
            let deltas = square(matrix(delta, n, outputs)?)?;
            for ((sum, delta), input) in whole.iter_mut().zip(deltas).zip(below) {
                *sum += delta * (input + 1.0);
            }
        }
        Ok(whole)
    }

    /// Gradients of each score with respect to all weights, `[n][weights]`.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn gradients(&self, x: &Tensor) -> Result<Vec<Vec<f32>>> {
        let n = x.dim(0)?;
        let outs = self.forward(x)?;
        let inputs: Vec<f32> = x.flatten_all()?.to_vec1()?;
        let deltas = self.deltas(n, &outs, vec![1.0; n])?;
        let of = |row: usize| {
            let mut whole = Vec::with_capacity(self.params.len());
            for (at, delta) in deltas.iter().enumerate() {
                let (wide, outputs, ..) = self.layer(at);
                let below = if at == 0 { &inputs } else { &outs[at - 1] };
                let delta = &delta[row * outputs..(row + 1) * outputs];
                for &input in &below[row * wide..(row + 1) * wide] {
                    whole.extend(delta.iter().map(|delta| input * delta));
                }
                whole.extend(delta);
            }
            whole
        };
        Ok((0..n).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use hone_nn::train::seed::rng;

    use super::*;

    fn small() -> (Network, Duels) {
        let mut rng = rng(3, "network");
        let network = Network::normal(3, 4, 2, &mut rng);
        let mut x = vec![0.0; 15];
        hone_nn::params::fill_normal(&mut x, 1.0, &mut rng);
        let pairs = vec![(0, 1, 1.0), (2, 1, 0.0), (3, 4, 1.0)];
        (network, Duels { x: matrix(&x, 5, 3).unwrap(), pairs })
    }

    #[test]
    fn the_loss_of_undecided_pairs_is_ln_2_and_of_one_pair_by_hand() {
        let (_, duels) = small();
        let (loss, _) = Network::zeros(3, 4, 2).loss(&duels).unwrap();
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-12, "{loss}");
        // Linear with weights 1, 0, 0: scores 2 and 1, gap 1, first won: ln(1 + e⁻¹) = 0.313262.
        let mut line = Network::zeros(3, 0, 0);
        line.params[0] = 1.0;
        let x = matrix(&[2.0, 0.0, 0.0, 1.0, 5.0, 7.0], 2, 3).unwrap();
        let (loss, gradient) = line.loss(&Duels { x, pairs: vec![(0, 1, 1.0)] }).unwrap();
        assert!((loss - 0.313262).abs() < 1e-6, "{loss}");
        // (σ(1) − 1) · (2 − 1, 0 − 5, 0 − 7), and 0 for the bias, which a difference does not see.
        let slope = sigmoid(1.0) as f32 - 1.0;
        for (got, want) in gradient.iter().zip([slope, -5.0 * slope, -7.0 * slope, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{gradient:?}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (network, duels) = small();
        let (_, gradient) = network.loss(&duels).unwrap();
        let each = network.gradients(&duels.x).unwrap();
        assert_eq!((gradient.len(), each[0].len()), (3 * 4 + 4 + 4 * 4 + 4 + 4 + 1, network.params.len()));
        let h = 1e-3;
        for at in 0..network.params.len() {
            let moved = |by: f32| {
                let mut other = network.clone();
                other.params[at] += by;
                (other.loss(&duels).unwrap().0, other.scores(&duels.x).unwrap())
            };
            let ((up, above), (down, below)) = (moved(h), moved(-h));
            let slope = (up - down) / (2.0 * f64::from(h));
            assert!((slope - f64::from(gradient[at])).abs() < 2e-3, "{at}: {slope} {}", gradient[at]);
            for row in 0..5 {
                let slope = (above[row] - below[row]) / (2.0 * f64::from(h));
                assert!((slope - f64::from(each[row][at])).abs() < 1e-2, "{at} {row}: {slope}");
            }
        }
    }

    #[test]
    fn inner_products_are_those_of_the_gradients() {
        let (network, duels) = small();
        let (each, gram) = (network.gradients(&duels.x).unwrap(), network.gram(&duels.x).unwrap());
        for i in 0..5 {
            for j in 0..5 {
                let dot: f64 = each[i].iter().zip(&each[j]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!(
                    (dot - gram[i * 5 + j]).abs() < 1e-4 * (1.0 + dot.abs()),
                    "{dot} {}",
                    gram[i * 5 + j]
                );
            }
        }
    }

    #[test]
    fn the_first_step_of_adam_is_the_rate_in_the_direction_of_the_sign() {
        let mut params = [1.0, 1.0, 1.0];
        Adam::new(0.1, 3).step(&mut params, &[4.0, -0.5, 0.0]);
        for (got, want) in params.iter().zip([0.9, 1.1, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{params:?}");
        }
    }

    #[test]
    fn training_orders_the_pairs() {
        let (mut network, duels) = small();
        let mut adam = Adam::new(1e-2, network.params.len());
        let first = network.descend(&duels, Pull::Zero(0.0), &mut adam).unwrap();
        let mut last = first;
        for _ in 0..300 {
            last = network.descend(&duels, Pull::Zero(0.0), &mut adam).unwrap();
        }
        assert!(last < 0.1 * first.max(0.1), "{first} {last}");
        // A strong pull towards the start keeps it there.
        let (mut near, _) = small();
        let (start, mut adam) = (near.params.clone(), Adam::new(1e-2, near.params.len()));
        for _ in 0..300 {
            near.descend(&duels, Pull::Start(1e3, &start), &mut adam).unwrap();
        }
        let moved = near.params.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved < 0.02, "{moved}");
    }
}
