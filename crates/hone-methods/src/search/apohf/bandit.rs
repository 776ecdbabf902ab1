//! Which two arms to show next, learnt from who won so far.

use std::collections::{BTreeSet, HashMap};

use candle_core::{Device, Tensor};
use hone_nn::train::seed::rng;
use rand::Rng;

use super::network::{Adam, Duels, Network, Pull};
use super::{Learner, Penalty, Second, Variance};
use crate::error::{Error, Result};

/// Pairs that double Thompson sampling trains on at once, as in the released code.
const BATCH: usize = 32;

/// Times that double Thompson sampling may draw the first arm again before it takes any other.
const REPEATS: usize = 5;

/// How arms are learnt and chosen: the part of the settings that the learner sees.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Who learns.
    pub learner: Learner,
    /// How the second arm is chosen.
    pub second: Second,
    /// Random pairs before anything is learnt.
    pub first_pairs: usize,
    /// Weight of the uncertainty, inside the root.
    pub nu: f64,
    /// Weight of the penalty, and of the identity in `V`.
    pub lambda: f64,
    /// Which penalty.
    pub penalty: Penalty,
    /// How much of `V` is kept.
    pub variance: Variance,
    /// Units of a hidden layer.
    pub hidden: usize,
    /// Hidden layers.
    pub layers: usize,
    /// Networks of double Thompson sampling.
    pub heads: usize,
    /// Adam's rate.
    pub learning_rate: f64,
    /// Steps of every training.
    pub steps: usize,
}

/// The learner of one search: arms, who beat whom, and the networks trained on it.
///
/// What it proposes follows from the seed and from what was said alone, so that a search whose duels are told again goes on
/// as if it had not been interrupted.
#[derive(Debug)]
pub struct Bandit {
    rules: Rules,
    seed: u64,
    features: Vec<Vec<f32>>,
    x: Tensor,
    /// Winner and loser of each duel that was decided.
    won: Vec<(usize, usize)>,
    /// Pairs that nobody decided, smaller index first: they are not shown again.
    passed: BTreeSet<(usize, usize)>,
    trained: Option<Trained>,
}

/// Networks as trained on so many duels, and the scores of all arms under each, `[heads][arms]`.
#[derive(Debug)]
struct Trained {
    duels: usize,
    networks: Vec<Network>,
    scores: Vec<Vec<f64>>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Bandit {
    /// A search among arms with these embeddings, `[arms][width]`, each scaled to length 1.
    ///
    /// # Errors
    /// [`Error::Data`] for fewer than two arms, or embeddings that are empty, not finite or of different widths.
    pub fn new(rules: Rules, mut features: Vec<Vec<f32>>, seed: u64) -> Result<Bandit> {
        let refuse = |needed: &str, got: String| {
            Err(Error::Data { method: "apohf".into(), needed: needed.into(), got })
        };
        let width = features.first().map_or(0, Vec::len);
        if features.len() < 2 {
            return refuse("at least 2 candidates", features.len().to_string());
        }
        for (index, row) in features.iter_mut().enumerate() {
            let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if row.len() != width || width == 0 || !length.is_finite() {
                let needed = format!("embeddings of {} finite numbers, as the first has", width.max(1));
                return refuse(&needed, format!("{} for candidate {index}", row.len()));
            }
            if length > 0.0 {
                row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
            }
        }
        let x = Tensor::from_vec(features.concat(), (features.len(), width), &Device::Cpu)?;
        Ok(Bandit { rules, seed, features, x, won: vec![], passed: BTreeSet::new(), trained: None })
    }

    /// Pairs shown so far, decided or not.
    pub fn asked(&self) -> usize {
        self.won.len() + self.passed.len()
    }

    /// Duels that were decided: the bits that were paid for.
    pub fn bits(&self) -> usize {
        self.won.len()
    }

    /// Tells who won.
    pub fn tell(&mut self, winner: usize, loser: usize) {
        self.won.push((winner, loser));
    }

    /// Tells that nobody decided between two arms. They give no bit and are not shown together again.
    pub fn pass(&mut self, a: usize, b: usize) {
        self.passed.insert(pair(a, b));
    }

    /// The next two of these arms to show; `None` once every two that differ were passed.
    ///
    /// # Errors
    /// Those of training.
    pub fn propose(&mut self, arms: &[usize]) -> Result<Option<(usize, usize)>> {
        let asked = self.asked();
        let random = self.rules.learner == Learner::Random || self.won.len() < self.rules.first_pairs;
        if random {
            return Ok(self.random_pair(arms, asked));
        }
        if self.rules.learner == Learner::DoubleThompson {
            return self.sampled_pair(arms, asked);
        }
        self.train()?;
        let (networks, scores) = self.trained();
        let (Some(network), Some(scores)) = (networks.first(), scores.first()) else { return Ok(None) };
        let gram = Gram::new(self, network)?;
        for first in descending(arms, |arm| scores[arm]) {
            let rivals: Vec<usize> = arms.iter().copied().filter(|&arm| self.differ(first, arm)).collect();
            let second = match self.rules.second {
                Second::Random => pick(&rivals, &mut rng(self.seed, &format!("second {asked}"))),
                Second::Ucb => {
                    let widths = gram.uncertainties(first, &rivals)?;
                    let bound: HashMap<usize, f64> = rivals.iter().copied().zip(widths).collect();
                    let nu = self.rules.nu;
                    let value =
                        |arm: usize| scores[arm] + (nu * bound.get(&arm).copied().unwrap_or(0.0)).sqrt();
                    descending(&rivals, value).first().copied()
                }
            };
            if let Some(second) = second {
                return Ok(Some((first, second)));
            }
        }
        Ok(None)
    }

    /// The best of these arms among those that took part in a decided duel; `None` before the first.
    ///
    /// # Errors
    /// Those of training.
    pub fn best(&mut self, arms: &[usize]) -> Result<Option<usize>> {
        let fits = |arm: &usize| arms.contains(arm);
        if self.rules.learner == Learner::Random {
            return Ok(self.won.iter().rev().map(|(winner, _)| *winner).find(fits));
        }
        let shown: BTreeSet<usize> = self.won.iter().flat_map(|&(a, b)| [a, b]).filter(fits).collect();
        if shown.is_empty() {
            return Ok(None);
        }
        let scores = self.scores()?;
        let shown: Vec<usize> = shown.into_iter().collect();
        Ok(descending(&shown, |arm| scores[arm]).first().copied())
    }

    /// How good every arm is held to be, in logits up to a constant: the mean over the networks. Zeros for who does not
    /// learn.
    ///
    /// # Errors
    /// Those of training.
    pub fn scores(&mut self) -> Result<Vec<f64>> {
        let arms = self.features.len();
        if self.rules.learner == Learner::Random || self.won.is_empty() {
            return Ok(vec![0.0; arms]);
        }
        self.train()?;
        let (_, scores) = self.trained();
        let heads = scores.len() as f64;
        Ok((0..arms).map(|arm| scores.iter().map(|head| head[arm]).sum::<f64>() / heads).collect())
    }

    /// Whether two arms can meet: they have different embeddings, and nobody has passed on them.
    fn differ(&self, a: usize, b: usize) -> bool {
        a != b && self.features[a] != self.features[b] && !self.passed.contains(&pair(a, b))
    }

    fn random_pair(&self, arms: &[usize], asked: usize) -> Option<(usize, usize)> {
        let mut rng = rng(self.seed, &format!("pair {asked}"));
        let able: Vec<usize> =
            arms.iter().copied().filter(|&arm| arms.iter().any(|&other| self.differ(arm, other))).collect();
        let first = pick(&able, &mut rng)?;
        let rivals: Vec<usize> = arms.iter().copied().filter(|&arm| self.differ(first, arm)).collect();
        Some((first, pick(&rivals, &mut rng)?))
    }

    /// Double Thompson sampling: each arm is the best by a network that is drawn.
    fn sampled_pair(&mut self, arms: &[usize], asked: usize) -> Result<Option<(usize, usize)>> {
        let mut rng = rng(self.seed, &format!("heads {asked}"));
        self.train()?;
        let (_, scores) = self.trained();
        let mut drawn = || {
            let head = scores.get(rng.random_range(0..scores.len().max(1)));
            head.and_then(|head| descending(arms, |arm| head[arm]).first().copied())
        };
        let first = drawn();
        let seconds: Vec<Option<usize>> = (0..=REPEATS).map(|_| drawn()).collect();
        let Some(first) = first else { return Ok(None) };
        match seconds.into_iter().flatten().find(|&arm| self.differ(first, arm)) {
            Some(second) => Ok(Some((first, second))),
            None => {
                let rivals: Vec<usize> =
                    arms.iter().copied().filter(|&arm| self.differ(first, arm)).collect();
                Ok(match pick(&rivals, &mut rng) {
                    Some(second) => Some((first, second)),
                    None => self.random_pair(arms, asked),
                })
            }
        }
    }

    /// Trains the networks anew, from their first weights, if somebody has won since they were trained.
    fn train(&mut self) -> Result<()> {
        let duels = self.won.len();
        if self.trained.as_ref().is_none_or(|trained| trained.duels != duels) {
            let networks = self.networks()?;
            let scores = networks.iter().map(|network| network.scores(&self.x)).collect::<Result<_>>()?;
            self.trained = Some(Trained { duels, networks, scores });
        }
        Ok(())
    }

    /// The networks, and all scores under each; none before the first training.
    fn trained(&self) -> (&[Network], &[Vec<f64>]) {
        self.trained.as_ref().map_or((&[], &[]), |trained| (&trained.networks, &trained.scores))
    }

    fn networks(&self) -> Result<Vec<Network>> {
        let rules = &self.rules;
        let width = self.features.first().map_or(0, Vec::len);
        let (lambda, count) = (rules.lambda as f32, self.won.len());
        let rate = rules.learning_rate as f32;
        if rules.learner == Learner::DoubleThompson {
            let start = Network::normal(width, rules.hidden, rules.layers, &mut rng(self.seed, "weights"));
            return self.ensemble(&start, lambda, rate);
        }
        let mut network = match rules.learner {
            // Convex: where it starts does not matter, but how far it can move in so many steps does.
            Learner::Linear => Network::zeros(width, 0, 0),
            _ => Network::normal(width, rules.hidden, rules.layers, &mut rng(self.seed, "weights")),
        };
        let factor = match rules.penalty {
            Penalty::Decay => lambda / (count as f32 + 50.0),
            Penalty::Loss => 2.0 * lambda,
        };
        let duels = self.duels(&self.won)?;
        let mut adam = Adam::new(rate, network.params.len());
        for _ in 0..rules.steps {
            network.descend(&duels, Pull::Zero(factor), &mut adam)?;
        }
        Ok(vec![network])
    }

    /// Networks that all start from the same weights and are pulled towards them; they differ by the batches that each
    /// happens to see.
    fn ensemble(&self, start: &Network, lambda: f32, rate: f32) -> Result<Vec<Network>> {
        let count = self.won.len();
        // The last batch takes what is left over.
        let batches = (count / BATCH).max(1);
        let batches: Vec<Duels> = (0..batches)
            .map(|at| {
                let end = if at + 1 == batches { count } else { (at + 1) * BATCH };
                self.duels(&self.won[at * BATCH..end])
            })
            .collect::<Result<_>>()?;
        let factor = 2.0 * lambda * (BATCH as f32 / count as f32).min(1.0);
        let mut heads: Vec<(Network, Adam)> =
            vec![(start.clone(), Adam::new(rate, start.params.len())); self.rules.heads];
        let mut rng = rng(self.seed, &format!("training {count}"));
        for _ in 0..self.rules.steps {
            for batch in &batches {
                let head = rng.random_range(0..heads.len());
                let (network, adam) = &mut heads[head];
                network.descend(batch, Pull::Start(factor, &start.params), adam)?;
            }
        }
        Ok(heads.into_iter().map(|(network, _)| network).collect())
    }

    /// Decided duels with the embeddings of those that took part.
    fn duels(&self, won: &[(usize, usize)]) -> Result<Duels> {
        let (mut rows, mut place) = (vec![], HashMap::new());
        let mut pairs = vec![];
        for (index, &(winner, loser)) in won.iter().enumerate() {
            let mut row = |arm: usize| {
                *place.entry(arm).or_insert_with(|| {
                    rows.extend_from_slice(&self.features[arm]);
                    rows.len() / self.features[arm].len() - 1
                })
            };
            let (winner, loser) = (row(winner), row(loser));
            // Half of them with the winner second: the loss does not see the order, and both its ends are used.
            pairs.push(if index % 2 == 0 { (winner, loser, 1.0) } else { (loser, winner, 0.0) });
        }
        let x = Tensor::from_vec(rows, (place.len(), self.x.dim(1)?), &Device::Cpu)?;
        Ok(Duels { x, pairs })
    }
}

/// The largest first; of equal ones the smaller index. NaN counts as the smallest.
fn descending(arms: &[usize], value: impl Fn(usize) -> f64) -> Vec<usize> {
    let key = |arm: usize| Some(value(arm)).filter(|value| !value.is_nan()).unwrap_or(f64::NEG_INFINITY);
    let mut keyed: Vec<(f64, usize)> = arms.iter().map(|&arm| (key(arm), arm)).collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(_, arm)| arm).collect()
}

fn pick(arms: &[usize], rng: &mut impl Rng) -> Option<usize> {
    if arms.is_empty() { None } else { arms.get(rng.random_range(0..arms.len())).copied() }
}

/// What is needed of the gradients to tell how uncertain a difference of scores is.
enum Gram {
    /// All of `V`: inner products of the arms' gradients, `[arms, arms]`; the duels; and the Cholesky factor of
    /// `λ I + Φ Φᵀ`, row by row.
    Full { products: Vec<f64>, arms: usize, duels: Vec<(usize, usize)>, factor: Vec<f64>, lambda: f64 },
    /// The diagonal of `V`, and the arms' gradients.
    Diagonal { gradients: Vec<Vec<f32>>, diagonal: Vec<f64> },
}

impl Gram {
    fn new(bandit: &Bandit, network: &Network) -> Result<Gram> {
        let (lambda, duels) = (bandit.rules.lambda, bandit.won.clone());
        if bandit.rules.variance == Variance::Diagonal {
            let gradients = network.gradients(&bandit.x)?;
            let mut diagonal = vec![lambda; network.params.len()];
            for &(a, b) in &duels {
                let gap = gradients[a].iter().zip(&gradients[b]).map(|(a, b)| f64::from(a - b));
                diagonal.iter_mut().zip(gap).for_each(|(sum, gap)| *sum += gap * gap);
            }
            return Ok(Gram::Diagonal { gradients, diagonal });
        }
        let (products, arms, t) = (network.gram(&bandit.x)?, bandit.features.len(), duels.len());
        let of = |a: usize, b: usize| products[a * arms + b];
        let mut matrix = vec![0.0; t * t];
        for (i, &(a, b)) in duels.iter().enumerate() {
            for (j, &(c, d)) in duels.iter().enumerate().take(i + 1) {
                matrix[i * t + j] = of(a, c) - of(a, d) - of(b, c) + of(b, d);
            }
            matrix[i * t + i] += lambda;
        }
        cholesky(&mut matrix, t);
        Ok(Gram::Full { products, arms, duels, factor: matrix, lambda })
    }

    /// `(g(x) − g(x₁))ᵀ V⁻¹ (g(x) − g(x₁))` of each rival `x`, at least 0.
    fn uncertainties(&self, first: usize, rivals: &[usize]) -> Result<Vec<f64>> {
        let of = |&rival: &usize| match self {
            Gram::Diagonal { gradients, diagonal } => {
                let gap = gradients[rival].iter().zip(&gradients[first]).map(|(x, one)| f64::from(x - one));
                gap.zip(diagonal).map(|(gap, v)| gap * gap / v).sum()
            }
            Gram::Full { products, arms, duels, factor, lambda } => {
                let of = |a: usize, b: usize| products[a * arms + b];
                let own = of(rival, rival) - 2.0 * of(rival, first) + of(first, first);
                // By Woodbury: V⁻¹ = (I − Φᵀ (λ I + Φ Φᵀ)⁻¹ Φ) / λ, with one row per duel, not one per weight.
                let past: Vec<f64> = duels
                    .iter()
                    .map(|&(a, b)| of(a, rival) - of(a, first) - of(b, rival) + of(b, first))
                    .collect();
                let known: f64 = forward_substituted(factor, past).iter().map(|v| v * v).sum();
                // Below 0 only by rounding.
                ((own - known) / lambda).max(0.0)
            }
        };
        Ok(rivals.iter().map(of).collect())
    }
}

/// Replaces the lower triangle of a positive definite matrix by its Cholesky factor.
fn cholesky(matrix: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let rest = matrix[i * n + j] - dot;
            matrix[i * n + j] = match i == j {
                // λ keeps it above 0; rounding may not.
                true => rest.max(f64::MIN_POSITIVE.sqrt()).sqrt(),
                false => rest / matrix[j * n + j],
            };
        }
    }
}

/// `L⁻¹ b` for a lower triangle `L`.
fn forward_substituted(factor: &[f64], mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let dot: f64 = factor[i * n..i * n + i].iter().zip(&b).map(|(l, x)| l * x).sum();
        b[i] = (b[i] - dot) / factor[i * n + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::apohf::Apohf;

    /// 12 arms in 3 dimensions with 6 decided duels.
    fn small(change: impl Fn(&mut Rules)) -> Bandit {
        let mut rules = Rules { steps: 30, learning_rate: 1e-2, hidden: 4, ..Apohf::default().rules() };
        change(&mut rules);
        let mut draw = rng(5, "arms");
        let features = (0..12).map(|_| (0..3).map(|_| draw.random::<f32>() - 0.5).collect()).collect();
        let mut bandit = Bandit::new(rules, features, 7).unwrap();
        for (a, b) in [(0, 1), (2, 3), (0, 4), (5, 2), (0, 6), (5, 7)] {
            bandit.tell(a, b);
        }
        bandit
    }

    const ALL: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

    #[test]
    fn the_uncertainty_is_that_of_the_whole_matrix() {
        let mut bandit = small(|_| {});
        bandit.train().unwrap();
        let network = bandit.trained().0[0].clone();
        let gram = Gram::new(&bandit, &network).unwrap();
        let gradients = network.gradients(&bandit.x).unwrap();
        let weights = network.params.len();
        let gap = |a: usize, b: usize| -> Vec<f64> {
            gradients[a].iter().zip(&gradients[b]).map(|(a, b)| f64::from(a - b)).collect()
        };
        // V = Σ φ φᵀ + λ I written out, and vᵀ V⁻¹ v by its Cholesky factor: |L⁻¹ v|².
        let mut matrix = vec![0.0; weights * weights];
        for &(a, b) in &bandit.won {
            let phi = gap(a, b);
            for i in 0..weights {
                for j in 0..weights {
                    matrix[i * weights + j] += phi[i] * phi[j];
                }
            }
        }
        (0..weights).for_each(|i| matrix[i * weights + i] += bandit.rules.lambda);
        let diagonal: Vec<f64> = (0..weights).map(|i| matrix[i * weights + i]).collect();
        cholesky(&mut matrix, weights);
        let rivals = [1, 8, 11];
        let got = gram.uncertainties(0, &rivals).unwrap();
        bandit.rules.variance = Variance::Diagonal;
        let cut = Gram::new(&bandit, &network).unwrap().uncertainties(0, &rivals).unwrap();
        for ((rival, got), cut) in rivals.into_iter().zip(got).zip(cut) {
            let v = gap(rival, 0);
            let want: f64 = forward_substituted(&matrix, v.clone()).iter().map(|x| x * x).sum();
            assert!((got - want).abs() < 1e-3 * (1.0 + want), "{got} {want}");
            let want: f64 = v.iter().zip(&diagonal).map(|(v, d)| v * v / d).sum();
            assert!((cut - want).abs() < 1e-6 * (1.0 + want), "{cut} {want}");
        }
    }

    #[test]
    fn a_factor_by_hand() {
        // [[4, 2], [2, 5]] = L Lᵀ with L = [[2, 0], [1, 2]]; L⁻¹ (2, 5) = (1, 2).
        let mut matrix = vec![4.0, 2.0, 2.0, 5.0];
        cholesky(&mut matrix, 2);
        assert_eq!([matrix[0], matrix[2], matrix[3]], [2.0, 1.0, 2.0]);
        assert_eq!(forward_substituted(&matrix, vec![2.0, 5.0]), [1.0, 2.0]);
    }

    #[test]
    fn the_first_is_the_best_and_the_second_has_the_highest_bound() {
        let mut bandit = small(|_| {});
        let scores = bandit.scores().unwrap();
        let (first, second) = bandit.propose(&ALL).unwrap().unwrap();
        assert_eq!(first, descending(&ALL, |arm| scores[arm])[0]);
        bandit.train().unwrap();
        let network = bandit.trained().0[0].clone();
        let rivals: Vec<usize> = ALL.into_iter().filter(|&arm| arm != first).collect();
        let widths = Gram::new(&bandit, &network).unwrap().uncertainties(first, &rivals).unwrap();
        let bound =
            |arm: usize| scores[arm] + widths[rivals.iter().position(|&rival| rival == arm).unwrap()].sqrt();
        assert_eq!(second, descending(&rivals, bound)[0]);
        // Without exploration it is the runner-up.
        let mut greedy = small(|rules| rules.nu = 0.0);
        let order = descending(&ALL, |arm| scores[arm]);
        assert_eq!(greedy.propose(&ALL).unwrap(), Some((order[0], order[1])));
    }

    #[test]
    fn what_is_reported_was_shown() {
        for learner in [Learner::Neural, Learner::Linear, Learner::DoubleThompson, Learner::Random] {
            let mut bandit = small(|rules| (rules.learner, rules.heads) = (learner, 3));
            let best = bandit.best(&ALL).unwrap().unwrap();
            assert!(best < 8, "{learner:?}: {best} was never shown");
            assert_eq!(bandit.best(&[9, 10]).unwrap(), None);
            if learner == Learner::Random {
                assert_eq!(best, 5, "the winner of the last pair");
            }
            let (a, b) = bandit.propose(&ALL).unwrap().unwrap();
            assert_ne!(a, b);
        }
    }

    #[test]
    fn told_again_it_goes_on_the_same() {
        for learner in [Learner::Neural, Learner::Linear, Learner::DoubleThompson, Learner::Random] {
            let next = |ask_between: bool| {
                let mut bandit = small(|rules| (rules.learner, rules.heads) = (learner, 3));
                if ask_between {
                    bandit.propose(&ALL).unwrap();
                    bandit.best(&ALL).unwrap();
                }
                bandit.tell(8, 9);
                bandit.pass(3, 2);
                bandit.propose(&ALL).unwrap()
            };
            assert_eq!(next(false), next(true), "{learner:?}");
        }
    }

    #[test]
    fn passed_and_equal_arms_do_not_meet() {
        for learner in [Learner::Neural, Learner::Linear, Learner::DoubleThompson, Learner::Random] {
            let rules = Rules { learner, steps: 2, first_pairs: 1, ..Apohf::default().rules() };
            // Arms 0 and 1 are equal but for their length, which is scaled away.
            let features = vec![vec![1.0, 0.0], vec![2.0, 0.0], vec![0.0, 1.0]];
            let mut bandit = Bandit::new(rules, features, 1).unwrap();
            let mut met = BTreeSet::new();
            bandit.tell(0, 2);
            while let Some((a, b)) = bandit.propose(&[0, 1, 2]).unwrap() {
                assert!(met.insert(pair(a, b)), "{a} and {b} meet twice");
                bandit.pass(a, b);
            }
            assert_eq!(met, BTreeSet::from([(0, 2), (1, 2)]), "{learner:?}");
        }
    }

    #[test]
    fn bad_arms_are_refused() {
        let new = |features: Vec<Vec<f32>>| Bandit::new(Apohf::default().rules(), features, 1);
        let refused = |features| new(features).unwrap_err().to_string();
        assert_eq!(refused(vec![vec![1.0]]), "method `apohf`: needs at least 2 candidates, got 1");
        let uneven = refused(vec![vec![1.0, 0.0], vec![1.0]]);
        assert!(uneven.contains("embeddings of 2 finite numbers") && uneven.contains("1 for candidate 1"));
        assert!(new(vec![vec![f32::NAN], vec![1.0]]).is_err());
        assert!(new(vec![vec![], vec![]]).is_err());
    }

    #[test]
    fn the_heads_start_as_one_and_part() {
        let mut bandit = small(|rules| (rules.learner, rules.heads) = (Learner::DoubleThompson, 3));
        bandit.train().unwrap();
        let (networks, _) = bandit.trained();
        assert_eq!(networks.len(), 3);
        assert_ne!(networks[0].params, networks[1].params);
    }
}
