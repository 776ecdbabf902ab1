//! LiNeS: layer-increasing network scaling.

mod claims;
mod toy;

use std::path::{Path, PathBuf};

use hone_feedback::Record;
use hone_feedback::convert::Shape;
use hone_feedback::formats::Options;
use hone_feedback::metrics::mean;
use hone_feedback::text::hash;
use hone_nn::Model;
use hone_nn::folder::Weights;
use serde::{Deserialize, Serialize};

use super::merging::{Merge, Merger, Scale, Tensors, own_part};
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::imitate::sft::{Sft, imitate};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::policy::{Policy, copy_of};
use crate::train::Training;

pub use toy::accuracy;

method! {
    /// Shrink what fine-tuning changed in shallow layers and keep it in deep ones: other abilities come back.
    /// # What it does
    /// Takes the difference between fine-tuned and starting weights and multiplies it by a factor that rises in a
    /// straight line from `alpha` in the first block to `alpha + beta` in the last; what lies in no block gets `alpha`.
    /// One fine-tuned model has one free number, `γ`: `alpha = γ`, `beta = 1 − γ`, so that the last block stays as it is;
    /// the one is taken that makes `2 · target / target of the fine-tuned + control / control of the start` largest on
    /// validation data. Several models of one start are merged first (task arithmetic, TIES, Consensus, a uniform or
    /// greedy soup, a rewarded soup of given shares); then `alpha = ‖Σ τᵢ‖₁ / (N ‖τ‖₁)`, 1 for shares, and `beta` is
    /// searched over as many values as the merge's own factor would be. No gradient is taken.
    ///
    /// As a step of a run it fine-tunes on the records, or takes the models named in `models`, and edits the result.
    /// `hone steer lines` edits any two folders of safetensors, whatever their architecture.
    /// # Feedback
    /// Demonstrations to fine-tune on and to choose by: a tenth of the prompts, by a hash, chooses. `control` names logs
    /// whose answers are to stay as likely as they were.
    /// # Departs from the paper
    /// Accuracy is the share of answer tokens that are the model's likeliest, because answers are texts. The path of
    /// WiSE-FT is `hone steer lines` with `--alpha γ/2 --beta γ/2` for each γ. Norms are L1, as in the released code. A
    /// stack of blocks counts for itself where a model has two. For soups, whose factors the paper leaves open, `alpha`
    /// comes from the same ratio, which is 1.
    /// # Claim
    /// On ciphers of a small transformer (`steer/lines/toy.rs`), mean and 95 % interval over five seeds. Control tasks come
    /// back, +0.111 ± 0.054 of accuracy (`claim_controls_come_back`); turned round, the same factors cost the target
    /// 0.074 ± 0.054 more (`claim_direction_matters`); TIES keeps 0.021 ± 0.009 more of four tasks (`claim_ties_gain`); the
    /// path of interpolation reaches 0.009 ± 0.005 further (`claim_paths_gain`).
    ///
    /// Not shown: a better balance than one factor for all layers, +0.059 ± 0.087 (`claim_depth_beats_one_factor`); more
    /// from task arithmetic, +0.021 ± 0.062 (`claim_sums_gain`), or from Consensus, +0.021 ± 0.036
    /// (`claim_consensus_gains`); a front of two rewards further out, +0.001 ± 0.008 (`claim_fronts_move_out`), whose
    /// policies have a single block, so that it only says that the front does not fall inside.
    ///
    /// Two toys were tried. In the first the cipher's name came before the letters, so that every layer could do the work;
    /// there only the controls (+0.136 ± 0.073) and the balance (+0.095 ± 0.047) held; direction −0.028 ± 0.044, task
    /// arithmetic +0.001 ± 0.058, TIES +0.012 ± 0.050, Consensus +0.020 ± 0.046, path −0.011 ± 0.048. The second was made
    /// knowing these, and its seeds are the same.
    /// # Source
    /// Wang, Dimitriadis et al., ICLR 2025, arXiv:2410.17146.
    pub static LINES: Method = Method {
        id: "lines", name: "LiNeS", family: Family::Steer,
        needs: Needs::Shape(Shape::Demonstrations), makes: Makes::Policy, settings: Lines,
        claims: &[
            Claim {
                name: "claim_controls_come_back",
                says: "LiNeS gives back the accuracy on other tasks that fine-tuning on one took.",
                metric: "mean test accuracy on the control tasks",
                baseline: "the fine-tuned model",
                effect: claims::controls_come_back,
            },
            Claim {
                name: "claim_depth_beats_one_factor",
                says: "A factor that rises with depth balances target and controls better than one for all layers.",
                metric: "2 x normalised target + normalised control accuracy, on test data",
                baseline: "one factor, searched over the same grid",
                effect: claims::depth_beats_one_factor,
            },
            Claim {
                name: "claim_direction_matters",
                says: "Shrinking shallow layers costs less on the target than shrinking deep ones by the same factors.",
                metric: "mean target accuracy over the grid",
                baseline: "the same factors from the last block to the first",
                effect: claims::direction_matters,
            },
            Claim {
                name: "claim_sums_gain",
                says: "Task arithmetic with LiNeS keeps more of four tasks than without.",
                metric: "mean normalised test accuracy",
                baseline: "task arithmetic, as many evaluations",
                effect: claims::sums_gain,
            },
            Claim {
                name: "claim_ties_gain",
                says: "TIES with LiNeS keeps more of four tasks than without.",
                metric: "mean normalised test accuracy",
                baseline: "TIES, as many evaluations",
                effect: claims::ties_gain,
            },
            Claim {
                name: "claim_consensus_gains",
                says: "Consensus with LiNeS keeps more of four tasks than without.",
                metric: "mean normalised test accuracy",
                baseline: "Consensus, as many evaluations",
                effect: claims::consensus_gains,
            },
            Claim {
                name: "claim_paths_gain",
                says: "On the way from start to fine-tuned model, LiNeS holds more of both tasks.",
                metric: "hypervolume of target and control accuracy along the path",
                baseline: "plain interpolation (WiSE-FT)",
                effect: claims::paths_gain,
            },
            Claim {
                name: "claim_fronts_move_out",
                says: "Interpolated policies of two rewards reach further with LiNeS than without.",
                metric: "hypervolume of the two mean rewards over the mixtures",
                baseline: "rewarded soup",
                effect: claims::fronts_move_out,
            },
        ],
        run,
    };
}

/// How several models are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merging {
    /// Their sum.
    TaskArithmetic,
    /// Their mean.
    Soup,
    /// The mean of those that do not lower it: from the most to the least accurate, each is kept if the mean of those
    /// kept is then no less accurate.
    GreedySoup,
    /// A rewarded soup: their sum with `shares`.
    Weighted,
    /// TIES.
    Ties,
    /// Consensus of TALL masks.
    Consensus,
}

impl Merging {
    /// Whether the models are trainings for one task, not for one each.
    fn is_of_one_task(self) -> bool {
        matches!(self, Merging::Soup | Merging::GreedySoup | Merging::Weighted)
    }
}

/// Settings of LiNeS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lines {
    /// Folders of models made from the policy; without any, one is made here by fine-tuning on the records.
    pub models: Vec<String>,
    /// How several are merged.
    pub merging: Merging,
    /// Values of `γ` (one model) or `beta` (several), each at least 0. A single one is taken as it is. 0 to 1 by tenths.
    pub grid: Vec<f64>,
    /// Weight of the target beside the controls in the choice, above 0. 2 in the released code.
    pub weight: f64,
    /// Logs whose answers the policy is to stay able to give; needed to choose among several values for one model.
    pub control: Vec<String>,
    /// Logs to choose by when models are merged: one per model, or for soups of one task any.
    pub tasks: Vec<String>,
    /// Weighted: the share of each model.
    pub shares: Vec<f64>,
    /// TIES: share of each model's changes that is kept, in (0, 1].
    pub keep: f64,
    /// Consensus: thresholds to choose from for each task, above 0.
    pub thresholds: Vec<f64>,
    /// Consensus: models that must claim a weight.
    pub agree: usize,
    /// The fine-tuning, where it is done here.
    pub training: Training,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            models: vec![],
            merging: Merging::TaskArithmetic,
            grid: (0..=10).map(|tenths| f64::from(tenths) / 10.0).collect(),
            weight: 2.0,
            control: vec![],
            tasks: vec![],
            shares: vec![],
            keep: 0.2,
            thresholds: vec![0.2, 0.3, 0.4, 0.5, 0.6],
            agree: 2,
            training: Sft::default().training,
        }
    }
}

impl Settings for Lines {
    fn check(&self) -> Result<()> {
        self.training.check("lines")?;
        crate::method::above_zero("lines", "weight", self.weight)?;
        if self.grid.is_empty() || !self.grid.iter().all(|value| *value >= 0.0 && value.is_finite()) {
            return Err(Error::range(
                "lines",
                "grid",
                "finite numbers of at least 0",
                format!("{:?}", self.grid),
            ));
        }
        if !(self.keep > 0.0 && self.keep <= 1.0) {
            return Err(Error::range("lines", "keep", "a share in (0, 1]", self.keep));
        }
        if self.thresholds.is_empty() || self.thresholds.iter().any(|value| *value <= 0.0 || value.is_nan()) {
            let got = format!("{:?}", self.thresholds);
            return Err(Error::range("lines", "thresholds", "numbers above 0", got));
        }
        Ok(())
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let lines: Lines = settings("lines", job.settings)?;
    match lines.models.len() {
        0 | 1 => one(job, &lines),
        _ => several(job, &lines),
    }
}

/// One fine-tuned model: chooses `γ`.
fn one(job: Job<'_>, lines: &Lines) -> Result<Product> {
    let max_tokens = lines.training.tokens_for(&job.policy.model);
    let read = |policy: &Policy, records: &[Record]| {
        Examples::from_records(policy, records, Shape::Demonstrations, max_tokens)
    };
    let (choose, learn): (Vec<Record>, Vec<Record>) = job
        .records
        .iter()
        .cloned()
        .partition(|record| hash(format!("{:?}", record.prompt).as_bytes()).is_multiple_of(10));
    let start = job.policy.copy()?;
    let tuned = match lines.models.first() {
        Some(folder) => Policy::from_folder(Path::new(folder))?,
        None => {
            let examples = read(&job.policy, &learn)?;
            let job = Job { records: &learn, ..job };
            imitate("lines", job, &examples, &lines.training)?.policy()?
        }
    };
    let merger = Merger::new(&start.model.params, vec![&tuned.model.params], Merge::Sum)?;
    let gamma = match lines.grid.as_slice() {
        [only] => *only,
        grid => {
            let control = logs(&lines.control)?;
            let needs = |needed: &str, got: usize| Error::Data {
                method: "lines".into(),
                needed: needed.into(),
                got: format!("{got}; or give `grid` a single value"),
            };
            let (target, control) = (read(&start, &choose)?, read(&start, &control.concat())?);
            if target.is_empty() {
                return Err(needs("an answer among the prompts that choose", 0));
            }
            if control.is_empty() {
                return Err(needs("answers in the logs of `control` to choose by", 0));
            }
            let (full, zero) = (accuracy(&tuned.model, &target)?, accuracy(&start.model, &control)?);
            best(grid, |gamma| {
                let model = edited(&start.model, &merger, single(gamma))?;
                Ok(lines.weight * share(accuracy(&model, &target)?, full)
                    + share(accuracy(&model, &control)?, zero))
            })?
        }
    };
    let model = edited(&start.model, &merger, single(gamma))?;
    Ok(Product::Policy(Policy { model, ..tuned }))
}

/// Several models of one start: merges, and chooses `beta`.
fn several(job: Job<'_>, lines: &Lines) -> Result<Product> {
    let max_tokens = lines.training.tokens_for(&job.policy.model);
    let start = job.policy;
    let tuned: Vec<Policy> =
        lines.models.iter().map(|folder| Policy::from_folder(Path::new(folder))).collect::<Result<_>>()?;
    let models: Vec<&Model> = tuned.iter().map(|policy| &policy.model).collect();
    let tasks: Vec<Examples> = logs(&lines.tasks)?
        .iter()
        .map(|records| Examples::from_records(&start, records, Shape::Demonstrations, max_tokens))
        .collect::<Result<_>>()?;
    let fit = if lines.merging.is_of_one_task() { !tasks.is_empty() } else { tasks.len() == models.len() };
    if !fit || tasks.iter().any(Examples::is_empty) {
        let needed = "`tasks`: one log with answers for each of `models`, or any for a soup".into();
        let full = tasks.iter().filter(|task| !task.is_empty()).count();
        let got = format!("{full} logs with answers for {} models", models.len());
        return Err(Error::Data { method: "lines".into(), needed, got });
    }
    let measure =
        |model: &Model| tasks.iter().map(|task| accuracy(model, task)).collect::<Result<Vec<f64>>>();
    let (scale, merge, members) = chosen(&start.model, &models, lines, true, &measure)?;
    let merger = Merger::new(&start.model.params, tensors(&models, &members), merge)?;
    let model = edited(&start.model, &merger, scale)?;
    Ok(Product::Policy(Policy { model, ..start }))
}

fn tensors<'a>(models: &[&'a Model], members: &[usize]) -> Vec<&'a dyn Tensors> {
    members.iter().filter_map(|&at| models.get(at)).map(|model| &model.params as &dyn Tensors).collect()
}

/// The scale, the merge and the models it takes with the largest mean accuracy, normalised by that of each model on its
/// own task; soups are of one task and are not normalised. `measure` gives one accuracy per task; `rising` searches
/// LiNeS' `beta`, else one factor for all layers, over the same values.
fn chosen(
    start: &Model,
    models: &[&Model],
    lines: &Lines,
    rising: bool,
    measure: &dyn Fn(&Model) -> Result<Vec<f64>>,
) -> Result<(Scale, Merge, Vec<usize>)> {
    let all: Vec<usize> = (0..models.len()).collect();
    let soup = lines.merging.is_of_one_task();
    let own: Vec<f64> = match soup {
        true => vec![],
        false => all
            .iter()
            .map(|&at| Ok(measure(models[at])?.get(at).copied().unwrap_or(0.0)))
            .collect::<Result<_>>()?,
    };
    let mean_of = |model: &Model| -> Result<f64> {
        let said = measure(model)?;
        let shares: Vec<f64> = match soup {
            true => said,
            false => said.iter().zip(&own).map(|(got, own)| share(*got, *own)).collect(),
        };
        Ok(mean(&shares))
    };
    let mut members = all.clone();
    let merge = match lines.merging {
        Merging::TaskArithmetic => Merge::Sum,
        Merging::Soup => Merge::Mean,
        Merging::Weighted => Merge::Weighted { shares: lines.shares.clone() },
        Merging::GreedySoup => {
            members = greedy(models.len(), |members| {
                let merger = Merger::new(&start.params, tensors(models, members), Merge::Mean)?;
                mean_of(&edited(start, &merger, Scale::constant(1.0))?)
            })?;
            Merge::Mean
        }
        Merging::Ties => Merge::Ties { keep: lines.keep, average: true },
        Merging::Consensus => {
            let sum = Merger::new(&start.params, tensors(models, &all), Merge::Sum)?;
            let threshold = |&at: &usize| {
                best(&lines.thresholds, |threshold| {
                    let part = with_params(start, own_part(&start.params, &sum, at, threshold)?)?;
                    Ok(measure(&part)?.get(at).copied().unwrap_or(0.0))
                })
            };
            let thresholds = all.iter().map(threshold).collect::<Result<_>>()?;
            Merge::Consensus { thresholds, agree: lines.agree }
        }
    };
    let merger = Merger::new(&start.params, tensors(models, &members), merge.clone())?;
    let alpha = merger.alpha()?;
    let scale = |value: f64| if rising { Scale { alpha, beta: value } } else { Scale::constant(value) };
    let value = best(&lines.grid, |value| mean_of(&edited(start, &merger, scale(value))?))?;
    Ok((scale(value), merge, members))
}

/// The members of a greedy soup of `count` models: from the best to the worst alone, each kept if `score` of those kept
/// does not fall.
fn greedy(count: usize, mut score: impl FnMut(&[usize]) -> Result<f64>) -> Result<Vec<usize>> {
    let mut alone = (0..count).map(|at| Ok((at, score(&[at])?))).collect::<Result<Vec<_>>>()?;
    alone.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (mut members, mut reached) = (vec![], f64::NEG_INFINITY);
    for (at, _) in alone {
        members.push(at);
        let got = score(&members)?;
        if got >= reached {
            reached = got;
        } else {
            members.pop();
        }
    }
    Ok(members)
}

/// LiNeS for one model: the last block stays.
fn single(gamma: f64) -> Scale {
    Scale { alpha: gamma, beta: 1.0 - gamma }
}

fn edited(start: &Model, merger: &Merger<'_>, scale: Scale) -> Result<Model> {
    with_params(start, merger.params(&start.params, scale)?)
}

fn with_params(like: &Model, params: hone_nn::Params) -> Result<Model> {
    let mut model = copy_of(like)?;
    model.params = params;
    Ok(model)
}

/// `got / whole`, or 1 where there was nothing to lose.
fn share(got: f64, whole: f64) -> f64 {
    if whole > 0.0 { got / whole } else { 1.0 }
}

/// The first of the values with the largest score.
fn best(grid: &[f64], mut score: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let mut found: Option<(f64, f64)> = None;
    for &value in grid {
        let score = score(value)?;
        if found.is_none_or(|(_, best)| score > best) {
            found = Some((value, score));
        }
    }
    found.map(|(value, _)| value).ok_or_else(|| Error::range("lines", "grid", "at least one value", "none"))
}

fn logs(paths: &[String]) -> Result<Vec<Vec<Record>>> {
    paths.iter().map(|path| crate::improve::read::records(Path::new(path), &Options::default())).collect()
}

/// What `hone steer lines` is asked for.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Folder of the start.
    pub base: PathBuf,
    /// Folders of what was made from it.
    pub tuned: Vec<PathBuf>,
    /// How several are merged.
    pub merge: Merge,
    /// Factor of the first block; for several models, without, the ratio of norms.
    pub alpha: Option<f64>,
    /// What the last block has more; without, what is missing to 1 for one model.
    pub beta: Option<f64>,
}

/// Edits folders of safetensors of any architecture and writes the result; returns the scale that was applied and the
/// number of blocks. Tensors of one fine-tuned model that the start lacks, such as a new head, stay as they are.
///
/// # Errors
/// Those of reading and writing; [`Error::Range`] for a factor that is not finite; [`Error::File`] for tensors that do
/// not fit, or names without a block.
pub fn edit(edit: &Edit, out: &Path) -> Result<(Scale, usize)> {
    let base = Weights::open(&edit.base)?;
    let tuned: Vec<Weights> =
        edit.tuned.iter().map(|folder| Ok(Weights::open(folder)?)).collect::<Result<_>>()?;
    let models = tuned.iter().map(|weights| weights as &dyn Tensors).collect();
    let merger = Merger::new(&base, models, edit.merge.clone())?;
    if merger.blocks() == 0 {
        let problem = "no tensor name holds the index of a block, such as `layers.0.`".into();
        return Err(Error::File { path: edit.base.display().to_string(), problem });
    }
    let alpha = match edit.alpha {
        Some(alpha) => alpha,
        None => merger.alpha()?,
    };
    let beta = edit.beta.unwrap_or(if tuned.len() == 1 { 1.0 - alpha } else { 1.0 });
    for (key, value) in [("alpha", alpha), ("beta", beta)] {
        if !value.is_finite() {
            return Err(Error::range("lines", key, "a finite number", value));
        }
    }
    let scale = Scale { alpha, beta };
    let known: std::collections::HashSet<&str> = merger.names().collect();
    let mut fault = None;
    let like = if tuned.len() == 1 { &tuned[0] } else { &base };
    let written = like.rewrite(out, |name, values| {
        if !known.contains(name) {
            return Ok(());
        }
        match merger.tensor(name, scale) {
            Ok(edited) => {
                values.copy_from_slice(&edited);
                Ok(())
            }
            Err(error) => {
                let problem = error.to_string();
                fault = Some(error);
                Err(hone_nn::Error::Tensor { file: out.display().to_string(), tensor: name.into(), problem })
            }
        }
    });
    match (written, fault) {
        (Err(_), Some(error)) => Err(error),
        (written, _) => Ok(written.map(|()| (scale, merger.blocks()))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{assert_holds, over_seeds};

    #[test]
    fn one_model_keeps_its_last_block_and_ends_are_exact() {
        // γ = 0.2: the last factor is 1 and, with γ = 1, all are: the edit is the fine-tuned model itself.
        assert_eq!((single(0.2).at(0.0), single(0.2).at(1.0)), (0.2, 1.0));
        let toy = toy::Toy::new(1).unwrap();
        let tuned = toy.tuned(0).unwrap();
        let merger = Merger::new(&toy.start.params, vec![&tuned.params], Merge::Sum).unwrap();
        let at = |scale| edited(&toy.start, &merger, scale).unwrap().params.data.clone();
        assert!(at(single(1.0)).iter().zip(&tuned.params.data).all(|(a, b)| a.to_bits() == b.to_bits()));
        let nothing = at(Scale::constant(0.0));
        assert!(nothing.iter().zip(&toy.start.params.data).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn a_greedy_soup_leaves_out_what_lowers_it() {
        // Alone 2, 3 and 1: begins with model 1; with 0 the score stays, with 2 it falls.
        let score = |members: &[usize]| {
            Ok(match members {
                [0] => 2.0,
                [1] | [1, 0] => 3.0,
                [2] => 1.0,
                _ => 2.5,
            })
        };
        assert_eq!(greedy(3, score).unwrap(), [1, 0]);
    }

    #[test]
    fn settings_outside_their_ranges_are_named() {
        let refused = |text: &str| (LINES.check)(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(refused("grid = [0.5, -0.1]").contains("`grid`: needs finite numbers of at least 0"));
        assert!(refused("keep = 1.5").contains("`keep`: needs a share in (0, 1], got 1.5"));
        assert!(refused("thresholds = [0.0]").contains("`thresholds`: needs numbers above 0"));
        assert!(refused("weight = 0.0").contains("`weight`"));
        assert!(refused("merging = \"mean\"").contains("unknown variant"));
    }

    /// For claims that are not shown here (see the comment above): a change that moves them far is to be noticed.
    fn near(effect: fn(u64) -> Result<f64>, known: std::ops::Range<f64>) {
        let (mean, _, values) = over_seeds(effect, 5).unwrap();
        assert!(known.contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_controls_come_back() {
        assert_holds(claims::controls_come_back, 5);
    }

    #[test]
    fn claim_depth_beats_one_factor() {
        near(claims::depth_beats_one_factor, -0.05..0.2);
    }

    #[test]
    fn claim_direction_matters() {
        assert_holds(claims::direction_matters, 5);
    }

    #[test]
    fn claim_sums_gain() {
        near(claims::sums_gain, -0.1..0.15);
    }

    #[test]
    fn claim_ties_gain() {
        assert_holds(claims::ties_gain, 5);
    }

    #[test]
    fn claim_consensus_gains() {
        near(claims::consensus_gains, -0.1..0.15);
    }

    #[test]
    fn claim_paths_gain() {
        assert_holds(claims::paths_gain, 5);
    }

    #[test]
    fn claim_fronts_move_out() {
        near(claims::fronts_move_out, -0.02..0.02);
    }
}
