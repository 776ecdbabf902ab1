//! Task vectors: what training changed, merged over several trainings and scaled by depth.
//!
//! Everything works a tensor at a time on anything that has named tensors, in memory or in files. What needs a look at
//! all tensors first (the size below which TIES drops an entry, norms) is found when a merger is made.

use std::collections::HashMap;

use hone_nn::Params;
use hone_nn::folder::Weights;
use serde::{Deserialize, Serialize};

use super::depth::Depths;
use crate::error::{Error, Result};

/// Named tensors.
pub trait Tensors {
    /// Names with shapes, row-major.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;

    /// One tensor, row-major.
    ///
    /// # Errors
    /// If there is none of this name, or it cannot be read.
    fn values(&self, name: &str) -> Result<Vec<f32>>;

    /// Where they come from, for errors.
    fn origin(&self) -> String;
}

impl Tensors for Params {
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.layout().entries().iter().map(|entry| (entry.name.clone(), entry.shape.clone())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor(name)?.to_vec())
    }

    fn origin(&self) -> String {
        "model in memory".into()
    }
}

impl Tensors for Weights {
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.trainable().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.read(name)?)
    }

    fn origin(&self) -> String {
        self.folder().display().to_string()
    }
}

/// How several task vectors become one. A single one stays as it is under a sum or a mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// Task arithmetic: their sum (Ilharco et al. 2023).
    Sum,
    /// Their mean: a uniform soup (Wortsman et al. 2022).
    Mean,
    /// Their sum with one share each: a rewarded soup (Ramé et al. 2023) where the shares add up to 1.
    Weighted {
        /// One finite number per model.
        shares: Vec<f64>,
    },
    /// TIES (Yadav et al. 2023): of each model only the share of its entries with the largest changes, then for each
    /// weight the sum of those that have the sign of the sum.
    Ties {
        /// Share of entries kept, in (0, 1]; 0.2 in the paper.
        keep: f64,
        /// Whether entries that agree are averaged, as in the paper, or summed.
        average: bool,
    },
    /// Consensus (Wang et al. 2024): the sum, where at least `agree` models claim the weight as theirs.
    Consensus {
        /// For each model how large its own change must be beside what the sum leaves of it, above 0.
        thresholds: Vec<f64>,
        /// Models that must claim a weight; 2 in the paper.
        agree: usize,
    },
}

/// A factor that rises in a straight line with depth: `alpha` for the first block and all that lies in none, `alpha +
/// beta` for the last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Factor of the first block.
    pub alpha: f64,
    /// What the last block has more.
    pub beta: f64,
}

impl Scale {
    /// One factor for all.
    pub fn constant(factor: f64) -> Scale {
        Scale { alpha: factor, beta: 0.0 }
    }

    /// Factor at a depth in `[0, 1]`.
    pub fn at(self, depth: f64) -> f64 {
        self.alpha + self.beta * depth
    }
}

/// The common start of some trainings, what they made of it, and how they are merged.
pub struct Merger<'a> {
    base: &'a dyn Tensors,
    tuned: Vec<&'a dyn Tensors>,
    merge: Merge,
    depths: Depths,
    /// Names of the tensors.
    names: Vec<String>,
    /// TIES: smallest change that is kept, one per model.
    floors: Vec<f32>,
    /// TIES: what stands in for the sign of a sum of 0.
    majority: f32,
}

impl std::fmt::Debug for Merger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merger")
            .field("models", &self.tuned.len())
            .field("merge", &self.merge)
            .finish_non_exhaustive()
    }
}

impl<'a> Merger<'a> {
    /// Compares names and shapes, and looks through all tensors where the merge needs it.
    ///
    /// # Errors
    /// [`Error::Data`] for no model; [`Error::File`] for tensors that do not fit the start's; [`Error::Range`] for a
    /// share or a threshold outside its range; those of reading.
    pub fn new(base: &'a dyn Tensors, tuned: Vec<&'a dyn Tensors>, merge: Merge) -> Result<Merger<'a>> {
        let fault = |key: &str, needed: &str, got: String| Err(Error::range("lines", key, needed, got));
        if tuned.is_empty() {
            let needed = "at least one model made from the start".into();
            return Err(Error::Data { method: "lines".into(), needed, got: "none".into() });
        }
        match &merge {
            Merge::Ties { keep, .. } if !(*keep > 0.0 && *keep <= 1.0) => {
                return fault("ties.keep", "a share in (0, 1]", keep.to_string());
            }
            Merge::Weighted { shares }
                if shares.len() != tuned.len() || !shares.iter().all(|share| share.is_finite()) =>
            {
                let needed = format!("{} finite numbers, one per model", tuned.len());
                return fault("shares", &needed, format!("{shares:?}"));
            }
            Merge::Consensus { thresholds, .. }
                if thresholds.len() != tuned.len() || !thresholds.iter().all(|t| *t > 0.0) =>
            {
                let needed = format!("{} numbers above 0, one per model", tuned.len());
                return fault("consensus.thresholds", &needed, format!("{thresholds:?}"));
            }
            Merge::Consensus { agree, .. } if !(1..=tuned.len()).contains(agree) => {
                return fault("agree", &format!("1 to {} models", tuned.len()), agree.to_string());
            }
            _ => {}
        }
        let shapes = base.shapes();
        for other in &tuned {
            fits(base, *other, &shapes)?;
        }
        let names: Vec<String> = shapes.into_iter().map(|(name, _)| name).collect();
        let depths = Depths::of(names.iter().map(String::as_str));
        let mut merger = Merger { base, tuned, merge, depths, names, floors: vec![], majority: 0.0 };
        if let Merge::Ties { keep, .. } = merger.merge {
            for at in 0..merger.tuned.len() {
                merger.floors.push(merger.floor(at, keep)?);
            }
            let mut signs = 0.0f64;
            for name in &merger.names {
                let (_, changes) = merger.changes(name)?;
                signs += merger.trimmed_sum(&changes).iter().map(|sum| f64::from(sign(*sum))).sum::<f64>();
            }
            merger.majority = sign(signs as f32);
        }
        Ok(merger)
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Blocks of the tallest stack.
    pub fn blocks(&self) -> usize {
        self.depths.blocks()
    }

    /// The merged task vector of one tensor.
    ///
    /// # Errors
    /// Those of reading.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let (base, changes) = self.changes(name)?;
        Ok(self.merged(&base, &changes))
    }

    /// `‖Σ τᵢ‖₁ / (N ‖τ‖₁)`, the factor of the first block when several models are merged: 1/N under task arithmetic,
    /// more under merges that drop entries. 0 if nothing was changed.
    ///
    /// # Errors
    /// Those of reading.
    pub fn norm_ratio(&self) -> Result<f64> {
        let (mut sum, mut merged) = (0.0f64, 0.0f64);
        for name in &self.names {
            let (base, changes) = self.changes(name)?;
            sum += norm(&total(&changes));
            merged += norm(&self.merged(&base, &changes));
        }
        Ok(if merged > 0.0 { sum / merged / self.tuned.len() as f64 } else { 0.0 })
    }

    /// Factor of the first block where several models are merged: [`Merger::norm_ratio`], but 1 where shares are given.
    ///
    /// # Errors
    /// Those of reading.
    pub fn alpha(&self) -> Result<f64> {
        match self.merge {
            Merge::Weighted { .. } => Ok(1.0),
            _ => self.norm_ratio(),
        }
    }

    /// One tensor of the result, `θ₀ + λ(depth) τ`. Factors 0 and, for a single model, 1 give the start's and the
    /// model's own numbers, bit for bit.
    ///
    /// # Errors
    /// Those of reading.
    pub fn tensor(&self, name: &str, scale: Scale) -> Result<Vec<f32>> {
        let factor = scale.at(self.depths.of_tensor(name)) as f32;
        let single = self.tuned.len() == 1 && matches!(self.merge, Merge::Sum | Merge::Mean);
        match factor {
            0.0 => self.base.values(name),
            1.0 if single => self.tuned[0].values(name),
            _ => {
                let (base, changes) = self.changes(name)?;
                let vector = self.merged(&base, &changes);
                Ok(base.iter().zip(vector).map(|(start, change)| start + factor * change).collect())
            }
        }
    }

    /// All tensors of the result, in the layout of the start.
    ///
    /// # Errors
    /// Those of reading.
    pub fn params(&self, start: &Params, scale: Scale) -> Result<Params> {
        let mut params = start.clone();
        for entry in start.layout().clone().entries() {
            params.data[entry.range()].copy_from_slice(&self.tensor(&entry.name, scale)?);
        }
        Ok(params)
    }

    /// The start's numbers and every model's changes of one tensor.
    fn changes(&self, name: &str) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let base = self.base.values(name)?;
        let change = |model: &&dyn Tensors| -> Result<Vec<f32>> {
            Ok(model.values(name)?.iter().zip(&base).map(|(tuned, start)| tuned - start).collect())
        };
        let changes = self.tuned.iter().map(change).collect::<Result<_>>()?;
        Ok((base, changes))
    }

    fn merged(&self, base: &[f32], changes: &[Vec<f32>]) -> Vec<f32> {
        let count = changes.len() as f32;
        match &self.merge {
            Merge::Sum => total(changes),
            Merge::Weighted { shares } => {
                let mut sum = vec![0.0; base.len()];
                for (change, share) in changes.iter().zip(shares) {
                    sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += *share as f32 * change);
                }
                sum
            }
            Merge::Mean => total(changes).into_iter().map(|sum| sum / count).collect(),
            Merge::Ties { average, .. } => {
                let elected = self.trimmed_sum(changes);
                let merge = |at: usize| {
                    let wanted = if elected[at] == 0.0 { self.majority } else { sign(elected[at]) };
                    let agree = |(change, floor): (&Vec<f32>, &f32)| {
                        Some(change[at]).filter(|x| x.abs() >= *floor && sign(*x) == wanted && *x != 0.0)
                    };
                    let kept: Vec<f32> = changes.iter().zip(&self.floors).filter_map(agree).collect();
                    let sum: f32 = kept.iter().sum();
                    if *average { sum / kept.len().max(1) as f32 } else { sum }
                };
                (0..base.len()).map(merge).collect()
            }
            Merge::Consensus { thresholds, agree } => {
                let sum = total(changes);
                let claims = |at: usize| {
                    let claim = |(change, threshold): (&Vec<f32>, &f64)| {
                        change[at].abs() > *threshold as f32 * (sum[at] - change[at]).abs()
                    };
                    changes.iter().zip(thresholds).filter(|one| claim(*one)).count()
                };
                (0..base.len()).map(|at| if claims(at) >= *agree { sum[at] } else { 0.0 }).collect()
            }
        }
    }

    /// Sum of the changes that TIES keeps, per weight.
    fn trimmed_sum(&self, changes: &[Vec<f32>]) -> Vec<f32> {
        let mut sum = vec![0.0; changes.first().map_or(0, Vec::len)];
        for (change, floor) in changes.iter().zip(&self.floors) {
            for (sum, change) in sum.iter_mut().zip(change).filter(|(_, change)| change.abs() >= *floor) {
                *sum += change;
            }
        }
        sum
    }

    /// The smallest change among the `keep` largest of one model.
    fn floor(&self, model: usize, keep: f64) -> Result<f32> {
        let mut sizes = vec![];
        for name in &self.names {
            let (start, tuned) = (self.base.values(name)?, self.tuned[model].values(name)?);
            sizes.extend(tuned.iter().zip(&start).map(|(tuned, start)| (tuned - start).abs()));
        }
        let dropped = ((1.0 - keep) * sizes.len() as f64) as usize;
        if sizes.is_empty() {
            return Ok(0.0);
        }
        let at = dropped.min(sizes.len() - 1);
        Ok(*sizes.select_nth_unstable_by(at, f32::total_cmp).1)
    }
}

/// Whether `claim`ed weights alone are the model's own: the mask of Consensus for one model, with the sum of all.
///
/// # Errors
/// Those of reading.
pub fn own_part(base: &Params, sum: &Merger<'_>, model: usize, threshold: f64) -> Result<Params> {
    let mut params = base.clone();
    for entry in base.layout().clone().entries() {
        let (start, changes) = sum.changes(&entry.name)?;
        let all = total(&changes);
        let own = &changes[model];
        for (at, value) in params.data[entry.range()].iter_mut().enumerate() {
            let claimed = own[at].abs() > threshold as f32 * (all[at] - own[at]).abs();
            *value = start[at] + if claimed { all[at] } else { 0.0 };
        }
    }
    Ok(params)
}

fn fits(base: &dyn Tensors, other: &dyn Tensors, shapes: &[(String, Vec<usize>)]) -> Result<()> {
    let fault = |problem| Err(Error::File { path: other.origin(), problem });
    let theirs: HashMap<String, Vec<usize>> = other.shapes().into_iter().collect();
    for (name, shape) in shapes {
        match theirs.get(name) {
            None => return fault(format!("lacks tensor {name}, which {} has", base.origin())),
            Some(got) if got != shape => {
                return fault(format!(
                    "tensor {name}: needs shape {shape:?} as in {}, got {got:?}",
                    base.origin()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn total(changes: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; changes.first().map_or(0, Vec::len)];
    for change in changes {
        sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += change);
    }
    sum
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).sum()
}

fn sign(value: f32) -> f32 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug)]
    struct Named(BTreeMap<String, Vec<f32>>);

    impl Tensors for Named {
        fn shapes(&self) -> Vec<(String, Vec<usize>)> {
            self.0.iter().map(|(name, values)| (name.clone(), vec![values.len()])).collect()
        }

        fn values(&self, name: &str) -> Result<Vec<f32>> {
            Ok(self.0.get(name).cloned().unwrap_or_default())
        }

        fn origin(&self) -> String {
            "test".into()
        }
    }

    fn named(tensors: &[(&str, &[f32])]) -> Named {
        Named(tensors.iter().map(|(name, values)| (name.to_string(), values.to_vec())).collect())
    }

    #[test]
    fn factors_rise_with_depth_and_the_ends_are_exact() {
        let base = named(&[
            ("embed", &[0.1]),
            ("layers.0.w", &[0.2]),
            ("layers.1.w", &[0.3]),
            ("layers.2.w", &[0.7]),
        ]);
        let tuned = named(&[
            ("embed", &[1.1]),
            ("layers.0.w", &[1.2]),
            ("layers.1.w", &[1.3]),
            ("layers.2.w", &[0.1]),
        ]);
        let merger = Merger::new(&base, vec![&tuned], Merge::Sum).unwrap();
        // γ = 0.2: factors 0.2 outside, 0.2, 0.6, 1.
        let scale = Scale { alpha: 0.2, beta: 0.8 };
        let at = |name: &str| merger.tensor(name, scale).unwrap()[0];
        assert!((at("embed") - 0.3).abs() < 1e-6 && (at("layers.0.w") - 0.4).abs() < 1e-6);
        assert!((at("layers.1.w") - 0.9).abs() < 1e-6);
        // 0.7 + (0.1 − 0.7) is not 0.1 in f32; a factor of 1 must not go that way.
        assert_ne!(0.7f32 + (0.1f32 - 0.7), 0.1);
        assert_eq!(at("layers.2.w"), 0.1);
        for name in ["embed", "layers.0.w", "layers.1.w", "layers.2.w"] {
            assert_eq!(merger.tensor(name, Scale::constant(1.0)).unwrap(), tuned.values(name).unwrap());
            assert_eq!(merger.tensor(name, Scale::constant(0.0)).unwrap(), base.values(name).unwrap());
        }
    }

    #[test]
    fn merges_by_hand() {
        let base = named(&[("w", &[0.0; 5])]);
        let (a, b) =
            (named(&[("w", &[5.0, -4.0, 1.0, 0.0, 2.0])]), named(&[("w", &[3.0, 6.0, -1.0, 1.0, 0.0])]));
        let merged = |merge| Merger::new(&base, vec![&a, &b], merge).unwrap();
        let sum = merged(Merge::Sum);
        assert_eq!(sum.vector("w").unwrap(), [8.0, 2.0, 0.0, 1.0, 2.0]);
        assert_eq!(sum.norm_ratio().unwrap(), 0.5);
        assert_eq!(merged(Merge::Mean).vector("w").unwrap(), [4.0, 1.0, 0.0, 0.5, 1.0]);
        let weighted = merged(Merge::Weighted { shares: vec![0.25, 0.75] });
        assert_eq!(weighted.vector("w").unwrap(), [3.5, 3.5, -0.5, 0.75, 0.5]);
        // The two largest of each: a keeps 5 and −4, b keeps 3 and 6. Sums 8 and 2: signs +, +; −4 does not agree.
        let ties = merged(Merge::Ties { keep: 0.4, average: true });
        assert_eq!(ties.vector("w").unwrap(), [4.0, 6.0, 0.0, 0.0, 0.0]);
        // ‖sum‖₁ = 13, ‖merged‖₁ = 10, two models.
        assert!((ties.norm_ratio().unwrap() - 0.65).abs() < 1e-12);
        let summed = merged(Merge::Ties { keep: 0.4, average: false });
        assert_eq!(summed.vector("w").unwrap(), [8.0, 6.0, 0.0, 0.0, 0.0]);
        // |own| > 0.5 |others|: first 5 > 1.5 and 3 > 2.5; second 4 > 3 and 6 > 2; third 1 > 0.5 both; then one each.
        let consensus = merged(Merge::Consensus { thresholds: vec![0.5, 0.5], agree: 2 });
        assert_eq!(consensus.vector("w").unwrap(), [8.0, 2.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let base = named(&[("w", &[0.0, 1.0]), ("v", &[0.0])]);
        let refused = |tuned: &Named, merge| Merger::new(&base, vec![tuned], merge).unwrap_err().to_string();
        assert_eq!(
            refused(&named(&[("w", &[0.0, 1.0])]), Merge::Sum),
            "test: lacks tensor v, which test has"
        );
        let longer = named(&[("w", &[0.0, 1.0, 2.0]), ("v", &[0.0])]);
        assert_eq!(refused(&longer, Merge::Sum), "test: tensor w: needs shape [2] as in test, got [3]");
        assert!(
            refused(&base, Merge::Ties { keep: 0.0, average: true }).contains("`ties.keep`: needs a share")
        );
        let merge = Merge::Weighted { shares: vec![0.5, f64::NAN] };
        assert!(refused(&base, merge).contains("`shares`: needs 1 finite numbers, one per model"));
        let merge = Merge::Consensus { thresholds: vec![], agree: 2 };
        assert!(refused(&base, merge).contains("needs 1 numbers above 0"));
        let merge = Merge::Consensus { thresholds: vec![0.4], agree: 2 };
        assert!(refused(&base, merge).contains("`agree`: needs 1 to 1 models, got 2"));
        assert!(Merger::new(&base, vec![], Merge::Sum).unwrap_err().to_string().contains("got none"));
    }
}
