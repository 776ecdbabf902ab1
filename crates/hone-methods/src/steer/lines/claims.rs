//! The claims of LiNeS, each against the same edit without depth.

use hone_feedback::Record;
use hone_feedback::metrics::mean;

use super::toy::Toy;
use super::{
    Lines, Merge, Merger, Merging, Scale, best, chosen, edited, share, single, tensors, with_params,
};
use crate::bench::{Bench, quick};
use crate::error::Result;
use crate::method::Settings;
use crate::refine::{Draw, prompts, sample};
use crate::reinforce::rloo;
use crate::steer::depth::{Depths, block_of};

use hone_nn::{Model, Params};

/// The task that is fine-tuned on; the others are the controls.
const TARGET: usize = 0;

/// Target and mean control accuracy.
fn two(toy: &Toy, model: &Model, split: &str) -> Result<(f64, f64)> {
    let mut all = toy.accuracies(model, split)?;
    let target = all.remove(TARGET);
    Ok((target, mean(&all)))
}

/// Test accuracies of the fine-tuned model, of LiNeS, and of one factor, both chosen on validation texts.
struct Single {
    start: (f64, f64),
    tuned: (f64, f64),
    lines: (f64, f64),
    constant: (f64, f64),
}

impl Single {
    fn run(seed: u64) -> Result<Single> {
        let toy = Toy::new(seed)?;
        let tuned = toy.tuned(TARGET)?;
        let merger = Merger::new(&toy.start.params, vec![&tuned.params], Merge::Sum)?;
        let Lines { grid, weight, .. } = Lines::default();
        let (full, zero) = (two(&toy, &tuned, "choose")?.0, two(&toy, &toy.start, "choose")?.1);
        let found = |scale: fn(f64) -> Scale| -> Result<(f64, f64)> {
            let value = best(&grid, |value| {
                let (target, control) = two(&toy, &edited(&toy.start, &merger, scale(value))?, "choose")?;
                Ok(weight * share(target, full) + share(control, zero))
            })?;
            two(&toy, &edited(&toy.start, &merger, scale(value))?, "report")
        };
        Ok(Single {
            start: two(&toy, &toy.start, "report")?,
            tuned: two(&toy, &tuned, "report")?,
            lines: found(single)?,
            constant: found(Scale::constant)?,
        })
    }

    fn balance(&self, (target, control): (f64, f64)) -> f64 {
        Lines::default().weight * share(target, self.tuned.0) + share(control, self.start.1)
    }
}

pub(super) fn controls_come_back(seed: u64) -> Result<f64> {
    let single = Single::run(seed)?;
    Ok(single.lines.1 - single.tuned.1)
}

pub(super) fn depth_beats_one_factor(seed: u64) -> Result<f64> {
    let single = Single::run(seed)?;
    Ok(single.balance(single.lines) - single.balance(single.constant))
}

pub(super) fn direction_matters(seed: u64) -> Result<f64> {
    let toy = Toy::new(seed)?;
    let tuned = toy.tuned(TARGET)?;
    let merger = Merger::new(&toy.start.params, vec![&tuned.params], Merge::Sum)?;
    let gains = Lines::default()
        .grid
        .into_iter()
        .map(|gamma| {
            let lines = edited(&toy.start, &merger, single(gamma))?;
            let reversed = with_params(&toy.start, turned(&toy, &merger, gamma)?)?;
            Ok(two(&toy, &lines, "report")?.0 - two(&toy, &reversed, "report")?.0)
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(mean(&gains))
}

/// Factors from 1 in the first block to `gamma` in the last, and `gamma` outside as in LiNeS: the same average.
fn turned(toy: &Toy, merger: &Merger<'_>, gamma: f64) -> Result<Params> {
    let mut params = toy.start.params.clone();
    let depths = Depths::of(merger.names());
    for entry in params.layout().clone().entries() {
        let depth = depths.of_tensor(&entry.name);
        let inside = block_of(&entry.name).is_some();
        let factor = if inside { 1.0 - (1.0 - gamma) * depth } else { gamma } as f32;
        let vector = merger.vector(&entry.name)?;
        params.data[entry.range()]
            .iter_mut()
            .zip(vector)
            .for_each(|(value, change)| *value += factor * change);
    }
    Ok(params)
}

/// How much more of four tasks a merge keeps with LiNeS than with one factor, both searched over the same grid.
fn merged(seed: u64, merging: Merging) -> Result<f64> {
    const MODELS: usize = 4;
    let toy = Toy::new(seed)?;
    let models: Vec<Model> = (0..MODELS).map(|task| toy.tuned(task)).collect::<Result<_>>()?;
    let models: Vec<&Model> = models.iter().collect();
    let steps = if merging == Merging::Ties { 15 } else { 10 };
    let grid = (1..=steps).map(|tenths| f64::from(tenths) / 10.0).collect();
    let lines = Lines { merging, grid, ..Lines::default() };
    lines.check()?;
    let at = |split: &'static str| {
        let toy = &toy;
        move |model: &Model| Ok(toy.accuracies(model, split)?[..MODELS].to_vec())
    };
    let (choose, report) = (at("choose"), at("report"));
    let own: Vec<f64> = (0..MODELS).map(|task| Ok(report(models[task])?[task])).collect::<Result<_>>()?;
    let kept = |rising: bool| -> Result<f64> {
        let (scale, merge, members) = chosen(&toy.start, &models, &lines, rising, &choose)?;
        let merger = Merger::new(&toy.start.params, tensors(&models, &members), merge)?;
        let said = report(&edited(&toy.start, &merger, scale)?)?;
        Ok(mean(&said.iter().zip(&own).map(|(got, own)| share(*got, *own)).collect::<Vec<_>>()))
    };
    Ok(kept(true)? - kept(false)?)
}

pub(super) fn sums_gain(seed: u64) -> Result<f64> {
    merged(seed, Merging::TaskArithmetic)
}

pub(super) fn ties_gain(seed: u64) -> Result<f64> {
    merged(seed, Merging::Ties)
}

pub(super) fn consensus_gains(seed: u64) -> Result<f64> {
    merged(seed, Merging::Consensus)
}

pub(super) fn paths_gain(seed: u64) -> Result<f64> {
    let toy = Toy::new(seed)?;
    let tuned = toy.tuned(TARGET)?;
    let merger = Merger::new(&toy.start.params, vec![&tuned.params], Merge::Sum)?;
    let reach = |scale: fn(f64) -> Scale| -> Result<f64> {
        let points = (0..=10)
            .map(|tenths| {
                let model = edited(&toy.start, &merger, scale(f64::from(tenths) / 10.0))?;
                two(&toy, &model, "report")
            })
            .collect::<Result<_>>()?;
        Ok(hypervolume(points))
    };
    Ok(reach(|way| Scale { alpha: 0.5 * way, beta: 0.5 * way })? - reach(Scale::constant)?)
}

/// Area below the front of mixtures of two policies, with LiNeS less without.
pub(super) fn fronts_move_out(seed: u64) -> Result<f64> {
    let benches = [Bench::new(seed)?, Bench::new(seed + 1000)?];
    let start = benches[0].policy()?;
    let own = "group_size = 4\n[draw]\nmax_tokens = 24\n[training]\nbatch_size = 16\nepochs = 2.0";
    let asked = benches[0].records(96, 0, "front");
    let trained = benches
        .iter()
        .map(|bench| (rloo::RLOO.run)(bench.job(&asked, &quick(own)?)?)?.policy())
        .collect::<Result<Vec<_>>>()?;
    let held_out = benches[0].records(40, 0, "front held out");
    let reach = |scale: Scale| -> Result<f64> {
        let points = (0..=4)
            .map(|quarter| {
                let share = f64::from(quarter) / 4.0;
                let merge = Merge::Weighted { shares: vec![share, 1.0 - share] };
                let models: Vec<&Model> = trained.iter().map(|policy| &policy.model).collect();
                let merger = Merger::new(&start.model.params, tensors(&models, &[0, 1]), merge)?;
                let model = edited(&start.model, &merger, scale)?;
                rewards(&start, &model, &benches, &held_out, seed)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(hypervolume(points))
    };
    Ok(reach(Scale { alpha: 1.0, beta: 1.0 })? - reach(Scale::constant(1.0))?)
}

fn rewards(
    start: &crate::Policy,
    model: &Model,
    benches: &[Bench; 2],
    records: &[Record],
    seed: u64,
) -> Result<(f64, f64)> {
    let speaker = start.speaker_of(model)?;
    let draw = Draw { max_tokens: 24, ..Draw::default() };
    let said = sample(&speaker, &prompts(&speaker, records)?, 4, &draw, seed)?;
    let of = |bench: &Bench| {
        let scores: Vec<f64> =
            said.iter().flatten().map(|one| (bench.utility(&one.text) + 1.0) / 2.0).collect();
        mean(&scores)
    };
    Ok((of(&benches[0]), of(&benches[1])))
}

/// Area of what some point exceeds in both coordinates, from (0, 0).
fn hypervolume(mut points: Vec<(f64, f64)>) -> f64 {
    points.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut area, mut height) = (0.0, 0.0f64);
    for (at, point) in points.iter().enumerate() {
        height = height.max(point.1);
        let next = points.get(at + 1).map_or(0.0, |point| point.0);
        area += (point.0 - next) * height;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_hand() {
        // Columns from the right: width 1 of height 1, width 1 of height 2; the dominated point adds nothing.
        assert_eq!(hypervolume(vec![(2.0, 1.0), (1.0, 2.0), (0.5, 1.5)]), 3.0);
    }
}
