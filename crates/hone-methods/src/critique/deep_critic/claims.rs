//! The claims of DeepCritic: selection and labels with a scripted teacher, and use with the built-in model's own critiques.

use std::collections::BTreeMap;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::LanguageModel;
use hone_nn::train::seed::{rng, sub_seed};
use hone_worlds::{Detail, Task, roles};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::data::verdict;
use super::{DeepCritic, Solution, deliberate, monte_carlo_label};
use crate::bench::scripted::Scripted;
use crate::critique::parse::of_world;
use crate::critique::process::FirstErrors;
use crate::critique::{Critique, Subject};
use crate::error::Result;
use crate::eval::ask::chat;
use crate::refine::{Draw, sample};
use crate::tiny;

/// The scripted teacher: it works the step out and is wrong three times of ten; merging repeats the second text.
pub(super) fn teacher() -> Scripted<fn(&str, &mut ChaCha8Rng) -> String> {
    Scripted::new("teacher", |prompt, rng| says(prompt, rng).unwrap_or_default())
}

fn says(prompt: &str, rng: &mut ChaCha8Rng) -> Option<String> {
    if let Some((_, rest)) = prompt.split_once("believed where they differ: ") {
        return Some(rest.split_once("\n\nWrite both")?.0.to_owned());
    }
    let (_, asked) = prompt.rsplit_once("Examine step ")?;
    let number = asked.split(' ').next()?;
    let step = prompt.lines().find_map(|line| line.strip_prefix(&format!("Step {number}: ")))?;
    let (sum, result) = step.split_once('=')?;
    let (a, b) = sum.split_once('+')?;
    let right = a.parse::<i64>().ok()? + b.parse::<i64>().ok()? == result.parse::<i64>().ok()?;
    let said = if rng.random_bool(0.3) { !right } else { right };
    Some(format!("{step}: {} \\boxed{{{}}}", if said { "fits" } else { "no" }, if said { 1 } else { -1 }))
}

/// Chains of additions, every second one with a wrong step.
pub(super) fn chains(count: usize, seed: u64) -> Vec<Solution> {
    let mut rng = rng(seed, "chains");
    (0..count)
        .map(|index| {
            let length = rng.random_range(2..=4);
            let first_wrong = (index % 2 == 0).then(|| rng.random_range(0..length));
            let mut value: i64 = rng.random_range(1..=20);
            let mut steps = vec![];
            for step in 0..length {
                let add: i64 = rng.random_range(1..=20);
                let off =
                    if first_wrong == Some(step) { [-10, -1, 1, 10][rng.random_range(0..4)] } else { 0 };
                steps.push(format!("{value}+{add}={}", value + add + off));
                value += add + off;
            }
            let record = Record::new(index.to_string(), "Add up.");
            Solution { record, answer: steps.join("\n"), steps, first_wrong }
        })
        .collect()
}

/// First and kept verdicts of every step of the kept data with the truth, all `(first, kept, truth)`.
pub(super) fn kept_verdicts(seed: u64) -> Result<Vec<(Option<bool>, bool, bool)>> {
    let solutions = chains(200, seed);
    // Two second looks, so that some steps fail and their solutions are dropped.
    let own = DeepCritic { in_depth: 2, ..DeepCritic::default() };
    let targets = deliberate(&teacher(), &solutions, &own, seed)?;
    let rows = targets.iter().flat_map(|target| {
        let first_wrong = solutions[target.solution].first_wrong;
        // The verdict that stands in the text, not the label it was chosen by.
        let texts: Vec<&str> = target.text.split("\n\n").collect();
        let of = move |(step, (first, _)): (usize, &(Option<bool>, bool))| {
            (*first, verdict(texts[step]).unwrap_or(first_wrong == Some(step)), first_wrong != Some(step))
        };
        target.verdicts.iter().enumerate().map(of).collect::<Vec<_>>()
    });
    Ok(rows.collect())
}

pub(super) fn selection_leaves_right(seed: u64) -> Result<f64> {
    let gain = |&(first, kept, truth): &(Option<bool>, bool, bool)| {
        f64::from(u8::from(kept == truth)) - f64::from(u8::from(first == Some(truth)))
    };
    Ok(mean(&kept_verdicts(seed)?.iter().map(gain).collect::<Vec<_>>()))
}

pub(super) fn corrected_share(seed: u64) -> Result<f64> {
    let verdicts = kept_verdicts(seed)?;
    let share = |side: bool| {
        let of = verdicts.iter().filter(|(_, _, truth)| *truth == side);
        mean(&of.map(|(first, _, truth)| f64::from(u8::from(*first != Some(*truth)))).collect::<Vec<_>>())
    };
    Ok(share(true).min(share(false)))
}

/// Share of Monte Carlo labels that are the planted ones, where completions succeed with 0.8 from a right prefix and with
/// 0.1 from a wrong one.
fn precision(rollouts: usize, seed: u64) -> f64 {
    let mut rng = rng(seed, "rollouts");
    let mut right = vec![];
    for solution in chains(400, seed) {
        let successes: Vec<usize> = (0..solution.steps.len() - 1)
            .map(|step| {
                let chance = if solution.first_wrong.is_some_and(|wrong| wrong <= step) { 0.1 } else { 0.8 };
                (0..rollouts).filter(|_| rng.random_bool(chance)).count()
            })
            .collect();
        let label = monte_carlo_label(&successes, rollouts, solution.first_wrong.is_none());
        right.extend(label.map(|label| f64::from(u8::from(label == solution.first_wrong))));
    }
    mean(&right)
}

pub(super) fn roll_outs_raise_precision(seed: u64) -> Result<f64> {
    Ok(precision(16, seed) - precision(2, seed))
}

/// Sums that critiques of the built-in model are tried on.
const SUMS: usize = 200;

fn sums(count: usize, seed: u64) -> Result<Vec<Box<dyn Task>>> {
    let world = hone_worlds::world("sums")?;
    crate::eval::tasks(world.as_ref(), world.middle(), count, seed)
}

/// The built-in model's critiques of answers to these tasks, `[tasks][n]`, sampled at temperature 1.
fn critiques(
    model: &dyn LanguageModel,
    tasks: &[Box<dyn Task>],
    answers: &[String],
    n: usize,
    seed: u64,
) -> Result<Vec<Vec<Critique>>> {
    let asked: Vec<_> = tasks
        .iter()
        .zip(answers)
        .map(|(task, answer)| chat(&roles::criticise(&task.prompt(), answer), None))
        .collect();
    let draw = Draw { max_tokens: 64, ..Draw::default() };
    let said = sample(model, &asked, n, &draw, seed)?;
    let mut all = vec![];
    for ((task, answer), said) in tasks.iter().zip(answers).zip(said) {
        let record = Record::new("r", task.prompt());
        let subject = Subject::new(&record, answer.as_str());
        all.push(said.iter().filter_map(|one| of_world(&one.text, &subject).ok()).collect());
    }
    Ok(all)
}

/// F1 of the majority of eight critiques less that of the first of them, on sums of which half have a planted error.
pub(super) fn votes_beat_one(seed: u64) -> Result<f64> {
    let policy = tiny::policy()?;
    let model = policy.speaker()?;
    let (mut tasks, mut answers, mut truths) = (vec![], vec![], vec![]);
    for (index, task) in sums(SUMS, seed)?.into_iter().enumerate() {
        let (kinds, mut rng) = (task.plantable(), rng(seed, &format!("plant {index}")));
        let answer = match kinds.is_empty() || index % 2 == 0 {
            true => task.reference(),
            false => task.plant(kinds[rng.random_range(0..kinds.len())], &mut rng)?.answer,
        };
        let record = Record::new(index.to_string(), task.prompt());
        let subject = Subject::new(&record, answer.as_str());
        let steps = subject.steps.clone();
        let Ok(truth) = of_world(&task.explain(&answer, Detail::Correction)?, &subject) else { continue };
        let first_wrong = truth.first_wrong();
        truths.push(Solution { record, answer: answer.clone(), steps, first_wrong });
        tasks.push(task);
        answers.push(answer);
    }
    let said = critiques(&model, &tasks, &answers, 8, seed)?;
    let number = |critique: &Critique| critique.first_wrong().map_or(-1, |index| index as i64 + 1);
    let vote = |critiques: &Vec<Critique>| {
        let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
        critiques.iter().for_each(|critique| *votes.entry(number(critique)).or_default() += 1);
        // Of equal votes the first in order.
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(number, _)| number)
    };
    let one = counted(&truths, said.iter().map(|said| said.first().map(number))).f1();
    Ok(counted(&truths, said.iter().map(vote)).f1() - one)
}

/// Share of the built-in model's wrong sums, of those that its own critique refuses, that it mends when it reads it, less the larger share of
/// those mended by the bare verdict or by a critique of another sum.
pub(super) fn critiques_mend_more(seed: u64) -> Result<f64> {
    let [words, label, other] = mended(seed)?;
    Ok(words - label.max(other))
}

/// Share mended less share spoilt: wrong answers that become right, of those that the critic refuses, and right answers
/// that become wrong because it refuses them, of all right ones.
pub(super) fn mends_more_than_it_spoils(seed: u64) -> Result<f64> {
    let policy = tiny::policy()?;
    let model = policy.speaker()?;
    let tasks = sums(SUMS, seed)?;
    let draw = Draw { max_tokens: 128, ..Draw::default() };
    let plain: Vec<_> = tasks.iter().map(|task| chat(&task.prompt(), None)).collect();
    let answers = texts(sample(&model, &plain, 1, &draw, seed)?);
    let said = critiques(&model, &tasks, &answers, 1, sub_seed(seed, "critique"))?;
    let (mut mended, mut spoilt) = (vec![], vec![]);
    for ((task, answer), said) in tasks.iter().zip(&answers).zip(&said) {
        let right = task.check(answer)?.right;
        let refused = said.first().filter(|critique| critique.right == Some(false));
        let now = match refused {
            None => right,
            Some(critique) => {
                let asked = chat(&roles::refine(&task.prompt(), answer, &critique.text), None);
                let better = texts(sample(&model, &[asked], 1, &draw, sub_seed(seed, "refine"))?);
                task.check(&better.concat())?.right
            }
        };
        if right { spoilt.push(f64::from(u8::from(!now))) } else { mended.push(f64::from(u8::from(now))) }
    }
    Ok(mean(&mended) - mean(&spoilt))
}

fn texts(said: Vec<Vec<hone_lm::Sample>>) -> Vec<String> {
    said.into_iter().map(|said| said.into_iter().next().map(|one| one.text).unwrap_or_default()).collect()
}

/// Shares of wrong sums that are mended: by the model's own critique, by the verdict alone, by a critique of another sum.
fn mended(seed: u64) -> Result<[f64; 3]> {
    let policy = tiny::policy()?;
    let model = policy.speaker()?;
    let tasks = sums(2 * SUMS, seed)?;
    let draw = Draw { max_tokens: 128, ..Draw::default() };
    let plain: Vec<_> = tasks.iter().map(|task| chat(&task.prompt(), None)).collect();
    let answers = texts(sample(&model, &plain, 1, &draw, seed)?);
    let mut wrong = vec![];
    for (task, answer) in tasks.into_iter().zip(answers) {
        if !task.check(&answer)?.right {
            wrong.push((task, answer));
        }
    }
    let (tasks, answers): (Vec<Box<dyn Task>>, Vec<String>) = wrong.into_iter().unzip();
    let said = critiques(&model, &tasks, &answers, 1, sub_seed(seed, "critique"))?;
    // Only where the critic reports an error is anything refined.
    let (mut asked, mut words) = (vec![], vec![]);
    for ((task, answer), said) in tasks.into_iter().zip(answers).zip(said) {
        if let Some(critique) = said.into_iter().next().filter(|critique| critique.right == Some(false)) {
            asked.push((task, answer));
            words.push(critique.text);
        }
    }
    let (tasks, answers): (Vec<Box<dyn Task>>, Vec<String>) = asked.into_iter().unzip();
    let mut turned = words.clone();
    turned.rotate_left(1.min(words.len()));
    let label = vec![crate::oracle::WRONG.to_string(); words.len()];
    let share = |critiques: &[String]| -> Result<f64> {
        let asked: Vec<_> = tasks
            .iter()
            .zip(&answers)
            .zip(critiques)
            .map(|((task, answer), words)| chat(&roles::refine(&task.prompt(), answer, words), None))
            .collect();
        let better = texts(sample(&model, &asked, 1, &draw, sub_seed(seed, "refine"))?);
        let mut right = vec![];
        for (task, better) in tasks.iter().zip(&better) {
            right.push(f64::from(u8::from(task.check(better)?.right)));
        }
        Ok(mean(&right))
    };
    Ok([share(&words)?, share(&label)?, share(&turned)?])
}

/// Counts of final numbers against the labels.
fn counted(solutions: &[Solution], numbers: impl IntoIterator<Item = Option<i64>>) -> FirstErrors {
    let mut counts = FirstErrors::default();
    for (solution, number) in solutions.iter().zip(numbers) {
        let hit = usize::from(number == Some(solution.final_number()));
        match solution.first_wrong {
            Some(_) => (counts.wrong, counts.found) = (counts.wrong + 1, counts.found + hit),
            None => (counts.right, counts.passed) = (counts.right + 1, counts.passed + hit),
        }
    }
    counts
}
