//! What is measured on records that nobody trained on: before, after, and by how much.

use hone_feedback::Record;
use hone_feedback::convert::Shape;
use hone_feedback::metrics::resample::{bootstrap, mean_interval};
use hone_feedback::metrics::significance::paired_bootstrap;
use hone_feedback::metrics::{mean, ranking};
use hone_nn::Want;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use serde::{Deserialize, Serialize};

use crate::data::{Example, Examples};
use crate::error::Result;
use crate::oracle::Oracle;
use crate::policy::Policy;
use crate::preference::reward_spans::faulty_tokens;
use crate::refine::{self, Answered, Draw};
use crate::report::{Better, Estimate, Measure, Unit};
use crate::reward::{self, RewardModel};
use crate::train::seq_logps;

/// Rounds of every bootstrap.
const ROUNDS: usize = 1000;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Examples of a shape at most.
    pub examples: usize,
    /// Prompts answered at most.
    pub prompts: usize,
    /// Answers to each prompt whose answers can be checked.
    pub answers: usize,
    /// Longest sequence, in tokens.
    pub max_tokens: usize,
    /// Draws the examples and answers.
    pub seed: u64,
}

/// The records that are measured on, as examples.
#[derive(Debug)]
pub struct Probe<'a> {
    records: Vec<&'a Record>,
    demonstrations: Examples,
    pairs: Examples,
    labels: Examples,
    extent: Extent,
}

/// What a policy makes of a probe. Plain numbers, so that an interrupted run need not measure its start again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Per demonstration: negative log-likelihood in nats, and tokens.
    pub demonstrations: Vec<(f64, f64)>,
    /// Per pair: log-probability of chosen and rejected, in nats.
    pub pairs: Vec<[f64; 2]>,
    /// Per labelled answer: mean log-probability per token, in nats.
    pub labels: Vec<f64>,
    /// Per prompt its sampled answers.
    pub answers: Vec<Vec<Sampled>>,
}

/// One sampled answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The text.
    pub text: String,
    /// Whether the oracle calls it right, and its score; `None` where nothing can check it.
    pub verdict: Option<(bool, f64)>,
}

impl<'a> Probe<'a> {
    /// Examples of `records`, a seeded choice where there are more than the extent allows.
    ///
    /// # Errors
    /// Those of encoding.
    pub fn new(policy: &Policy, records: &'a [Record], extent: Extent) -> Result<Probe<'a>> {
        let mut order: Vec<&Record> = records.iter().collect();
        shuffle(&mut order, &mut rng(extent.seed, "probe"));
        let of = |shape: Shape| -> Result<Examples> {
            let mut chosen: Vec<Record> = vec![];
            let mut count = 0;
            for record in order.iter().filter(|record| shape.count(record) > 0) {
                if count >= extent.examples {
                    break;
                }
                count += shape.count(record);
                chosen.push((*record).clone());
            }
            Examples::from_records(policy, &chosen, shape, extent.max_tokens)
        };
        Ok(Probe {
            demonstrations: of(Shape::Demonstrations)?,
            pairs: of(Shape::Pairs)?,
            labels: of(Shape::BinaryLabels)?,
            records: order,
            extent,
        })
    }

    /// The prompts that are answered, in a seeded order.
    pub fn asked(&self) -> &[&'a Record] {
        &self.records[..self.records.len().min(self.extent.prompts)]
    }

    /// Reads the policy.
    ///
    /// # Errors
    /// Those of the engine and the oracle.
    pub fn read(&self, policy: &Policy, oracle: Option<&dyn Oracle>) -> Result<Readings> {
        let want = Want::default();
        let logps = |examples: &Examples| seq_logps(&policy.model, &examples.items, &want);
        let targets = |example: &Example| example.sequences[0].targets().max(1) as f64;
        let demonstrations = logps(&self.demonstrations)?
            .iter()
            .zip(&self.demonstrations.items)
            .map(|(logp, example)| (-f64::from(logp[0]), targets(example)))
            .collect();
        let pairs = logps(&self.pairs)?.iter().map(|l| [f64::from(l[0]), f64::from(l[1])]).collect();
        let labels = logps(&self.labels)?
            .iter()
            .zip(&self.labels.items)
            .map(|(logp, example)| f64::from(logp[0]) / targets(example))
            .collect();
        Ok(Readings { demonstrations, pairs, labels, answers: self.answer(policy, oracle)? })
    }

    fn answer(&self, policy: &Policy, oracle: Option<&dyn Oracle>) -> Result<Vec<Vec<Sampled>>> {
        let records: Vec<Record> = self.asked().iter().map(|record| (*record).clone()).collect();
        if records.is_empty() {
            return Ok(vec![]);
        }
        let model = policy.speaker()?;
        let n = if oracle.is_some() { self.extent.answers } else { 1 };
        let draw = Draw { max_tokens: ANSWER_TOKENS, ..Draw::default() };
        let seed = sub_seed(self.extent.seed, "answers");
        let answers = refine::sample(&model, &refine::prompts(&model, &records)?, n, &draw, seed)?;
        let mut rows = vec![];
        for (record, samples) in records.iter().zip(answers) {
            let mut row = vec![];
            for sample in samples {
                let verdict = match oracle {
                    Some(oracle) => oracle.check(record, &sample.text)?.map(|v| (v.right, v.score)),
                    None => None,
                };
                row.push(Sampled { text: sample.text, verdict });
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Labels of the answers in [`Readings::labels`], good or bad.
    fn good(&self) -> Vec<bool> {
        self.labels.items.iter().map(|item| item.labels[0] > 0.5).collect()
    }

    /// Every measure that the probe allows, start against result, most telling first.
    pub fn measures(&self, start: &Readings, result: &Readings) -> Vec<Measure> {
        let seed = self.extent.seed;
        let mut measures = vec![];
        measures
            .extend(answered("right answers", start, result, seed, |(right, _)| f64::from(u8::from(right))));
        measures.extend(answered("score of answers", start, result, seed, |(_, score)| score));
        measures.extend(self.implicit_order(start, result));
        measures.extend(self.likelihood_order(start, result));
        measures.extend(likelihood(start, result, seed));
        measures.extend(self.label_area(start, result));
        measures
    }

    /// Start and result, one number per item, by the measure that decides about a step with this need: the oracle where
    /// there is one, else the step's own objective. Larger is better; `None` where nothing can be told.
    pub fn decider(
        &self,
        start: &Readings,
        result: &Readings,
        shape: Option<Shape>,
    ) -> Option<[Vec<f64>; 2]> {
        let scores = [scores(start, |(_, score)| score), scores(result, |(_, score)| score)];
        if !scores[0].is_empty() {
            return Some(scores);
        }
        let of =
            |f: &dyn Fn(&Readings) -> Vec<f64>| Some([f(start), f(result)]).filter(|[a, _]| !a.is_empty());
        match shape? {
            Shape::Demonstrations => {
                of(&|r: &Readings| r.demonstrations.iter().map(|(nll, tokens)| -nll / tokens).collect())
            }
            Shape::Pairs => of(&|r: &Readings| self.order(r)),
            Shape::BinaryLabels => {
                let good = self.good();
                of(&|r: &Readings| {
                    r.labels.iter().zip(&good).map(|(l, good)| if *good { *l } else { -l }).collect()
                })
            }
            _ => None,
        }
    }

    /// Per pair whether the chosen response is likelier per token.
    fn order(&self, readings: &Readings) -> Vec<f64> {
        let per_token = |at: usize, side: usize| {
            readings.pairs[at][side] / self.pairs.items[at].sequences[side].targets().max(1) as f64
        };
        (0..readings.pairs.len()).map(|at| hit(per_token(at, 0) - per_token(at, 1))).collect()
    }

    fn length_rule(&self) -> Vec<f64> {
        let nothing: Vec<Vec<f32>> = self.pairs.items.iter().map(|_| vec![0.0, 0.0]).collect();
        reward::pair_report(&nothing, &self.pairs.items).longer
    }

    fn implicit_order(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let moved: Vec<f64> =
            start.pairs.iter().zip(&result.pairs).map(|(s, r)| hit((r[0] - s[0]) - (r[1] - s[1]))).collect();
        let at_start = vec![0.5; moved.len()];
        let name = "preference order by implicit reward";
        Some(
            paired(name, Unit::Share, &at_start, &moved, self.extent.seed)?
                .baseline("length only", estimate(&self.length_rule(), self.extent.seed)),
        )
    }

    fn likelihood_order(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let name = "preferred answer likelier per token";
        Some(
            paired(name, Unit::Share, &self.order(start), &self.order(result), self.extent.seed)?
                .baseline("length only", estimate(&self.length_rule(), self.extent.seed)),
        )
    }

    fn label_area(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let good = self.good();
        let rows: Vec<(f64, f64, bool)> =
            start.labels.iter().zip(&result.labels).zip(good).map(|((s, r), good)| (*s, *r, good)).collect();
        let area = |rows: &[&(f64, f64, bool)], side: fn(&(f64, f64, bool)) -> f64| {
            let scores: Vec<f64> = rows.iter().map(|row| side(row)).collect();
            let good: Vec<bool> = rows.iter().map(|row| row.2).collect();
            reward::auc(&scores, &good).unwrap_or(0.5)
        };
        if rows.iter().all(|row| row.2) || !rows.iter().any(|row| row.2) {
            return None;
        }
        let seed = self.extent.seed;
        let of = |f: &dyn Fn(&[&(f64, f64, bool)]) -> f64| bootstrap(&rows, f, ROUNDS, 0.95, seed);
        let start = of(&|rows| area(rows, |row| row.0))?;
        let result = of(&|rows| area(rows, |row| row.1))?;
        let moved = of(&|rows| area(rows, |row| row.1) - area(rows, |row| row.0))?;
        let estimates = [start.into(), result.into(), moved.into()];
        let name = "good answers likelier than bad ones (AUC)";
        Some(Measure::new(name, Unit::Bare, Better::Higher, rows.len() as u64, estimates))
    }
}

/// Most tokens of a sampled answer.
const ANSWER_TOKENS: usize = 192;

/// 1 for above 0, 0 for below, ½ for neither.
fn hit(gap: f64) -> f64 {
    match gap.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.5,
    }
}

fn estimate(values: &[f64], seed: u64) -> Estimate {
    mean_interval(values, seed).map_or(Estimate::of(f64::NAN), Estimate::from)
}

/// A mean over items at start and at the end; larger is better.
fn paired(name: &str, unit: Unit, start: &[f64], result: &[f64], seed: u64) -> Option<Measure> {
    let difference = paired_bootstrap(start, result, ROUNDS, seed)?.difference;
    let estimates = [estimate(start, seed), estimate(result, seed), difference.into()];
    Some(Measure::new(name, unit, Better::Higher, start.len() as u64, estimates))
}

/// Mean over the answers of each prompt, for prompts whose answers were checked.
fn scores(readings: &Readings, of: impl Fn((bool, f64)) -> f64) -> Vec<f64> {
    let of_prompt = |row: &Vec<Sampled>| {
        let values: Vec<f64> = row.iter().filter_map(|sampled| sampled.verdict.map(&of)).collect();
        (!values.is_empty()).then(|| mean(&values))
    };
    readings.answers.iter().filter_map(of_prompt).collect()
}

fn answered(
    name: &str,
    start: &Readings,
    result: &Readings,
    seed: u64,
    of: impl Fn((bool, f64)) -> f64,
) -> Option<Measure> {
    paired(name, Unit::Share, &scores(start, &of), &scores(result, &of), seed)
}

/// Negative log-likelihood per token, over all tokens.
fn likelihood(start: &Readings, result: &Readings, seed: u64) -> Option<Measure> {
    let rows: Vec<[f64; 3]> = start
        .demonstrations
        .iter()
        .zip(&result.demonstrations)
        .map(|((s, tokens), (r, _))| [*s, *r, *tokens])
        .collect();
    let per_token = |rows: &[&[f64; 3]], of: fn(&[f64; 3]) -> f64| {
        rows.iter().map(|row| of(row)).sum::<f64>() / rows.iter().map(|row| row[2]).sum::<f64>()
    };
    let interval =
        |of: fn(&[f64; 3]) -> f64| bootstrap(&rows, |rows| per_token(rows, of), ROUNDS, 0.95, seed);
    let estimates =
        [interval(|r| r[0])?.into(), interval(|r| r[1])?.into(), interval(|r| r[1] - r[0])?.into()];
    let unit = Unit::Named("nats per token".into());
    let name = "negative log-likelihood of answers to imitate";
    Some(Measure::new(name, unit, Better::Lower, rows.len() as u64, estimates))
}

/// How good a reward model is on records it was not trained on; the start is what the policy's own likelihood gives.
///
/// # Errors
/// Those of the engine.
pub fn of_reward(
    id: &str,
    model: &RewardModel,
    start: &Policy,
    records: &[Record],
    extent: Extent,
) -> Result<Vec<Measure>> {
    let some: Vec<Record> = records.iter().take(extent.examples).cloned().collect();
    let seed = extent.seed;
    let of = |shape| Examples::from_records(start, &some, shape, extent.max_tokens);
    let likely = |examples: &[Example]| -> Result<Vec<Vec<f64>>> {
        let logps = seq_logps(&start.model, examples, &Want::default())?;
        let per_token = |(row, example): (&Vec<f32>, &Example)| {
            let sides = row.iter().zip(&example.sequences);
            sides.map(|(logp, s)| f64::from(*logp) / s.targets().max(1) as f64).collect()
        };
        Ok(logps.iter().zip(examples).map(per_token).collect())
    };
    let mut measures = vec![];
    match id {
        "reward-pairs" | "reward-lists" => {
            let pairs = of(Shape::Pairs)?.items;
            let report = reward::pair_report(&model.score(&pairs)?, &pairs);
            let before: Vec<f64> = likely(&pairs)?.iter().map(|side| hit(side[0] - side[1])).collect();
            let name = format!("{id}: accuracy on pairs");
            if let Some(measure) = paired(&name, Unit::Share, &before, &report.hits, seed) {
                let measure = measure
                    .baseline("majority class", Estimate::of(0.5))
                    .baseline("length only", estimate(&report.longer, seed));
                measures.push(measure);
            }
            if let Some(error) = report.calibration {
                let (n, at) = (pairs.len() as u64, Estimate::of(f64::NAN));
                let name = format!("{id}: expected calibration error");
                let estimates = [at, Estimate::of(error), at];
                measures.push(Measure::new(name, Unit::Share, Better::Neither, n, estimates));
            }
        }
        "reward-ratings" => {
            let items = of(Shape::ScalarTargets)?.items;
            let scores = model.score(&items)?;
            let before = likely(&items)?;
            let rows: Vec<[f64; 4]> = (0..items.len())
                .map(|i| {
                    let length = items[i].sequences[0].targets() as f64;
                    [f64::from(items[i].labels[0]), before[i][0], f64::from(scores[i][0]), length]
                })
                .collect();
            let rho = |rows: &[&[f64; 4]], at: usize| {
                let column = |at: usize| rows.iter().map(|row| row[at]).collect::<Vec<f64>>();
                ranking::spearman(&column(at), &column(0)).unwrap_or(0.0)
            };
            let of = |f: &dyn Fn(&[&[f64; 4]]) -> f64| bootstrap(&rows, f, ROUNDS, 0.95, seed);
            if let (Some(start), Some(result), Some(moved), Some(length)) = (
                of(&|r| rho(r, 1)),
                of(&|r| rho(r, 2)),
                of(&|r| rho(r, 2) - rho(r, 1)),
                of(&|r| rho(r, 3).abs()),
            ) {
                let name = format!("{id}: rank correlation with ratings");
                let estimates = [start.into(), result.into(), moved.into()];
                let measure = Measure::new(name, Unit::Bare, Better::Higher, rows.len() as u64, estimates);
                measures.push(measure.baseline("length only", length.into()));
            }
        }
        "reward-spans" | "reward-steps" => {
            let items = match id {
                "reward-spans" => faulty_tokens(start, &some, extent.max_tokens)?.items,
                _ => of(Shape::StepLabels)?.items,
            };
            let scores = model.score_marks(&items)?;
            // Marks of one answer stay together when answers are drawn.
            let rows: Vec<Vec<(f64, bool)>> = items
                .iter()
                .zip(scores)
                .map(|(item, s)| s.iter().zip(&item.marks).map(|(s, m)| (f64::from(*s), m.1 > 0.5)).collect())
                .collect();
            let area = |rows: &[&Vec<(f64, bool)>]| {
                let (scores, positive): (Vec<f64>, Vec<bool>) =
                    rows.iter().flat_map(|row| row.iter().copied()).unzip();
                reward::auc(&scores, &positive).unwrap_or(0.5)
            };
            let share = |rows: &[&Vec<(f64, bool)>]| {
                let all: Vec<f64> = rows
                    .iter()
                    .flat_map(|r| r.iter().map(|(s, p)| f64::from(u8::from((*s > 0.5) == *p))))
                    .collect();
                mean(&all)
            };
            let majority = |rows: &[&Vec<(f64, bool)>]| {
                let all: Vec<f64> =
                    rows.iter().flat_map(|r| r.iter().map(|(_, p)| f64::from(u8::from(*p)))).collect();
                mean(&all).max(1.0 - mean(&all))
            };
            let what = if id == "reward-spans" { "marked tokens" } else { "right steps" };
            let of = |f: &dyn Fn(&[&Vec<(f64, bool)>]) -> f64| bootstrap(&rows, f, ROUNDS / 4, 0.95, seed);
            let n = rows.iter().map(Vec::len).sum::<usize>() as u64;
            if let (Some(result), Some(moved)) = (of(&area), of(&|r| area(r) - 0.5)) {
                let estimates = [Estimate::of(0.5), result.into(), moved.into()];
                measures.push(Measure::new(
                    format!("{id}: {what} (AUC)"),
                    Unit::Bare,
                    Better::Higher,
                    n,
                    estimates,
                ));
            }
            if let (Some(start), Some(result), Some(moved)) =
                (of(&majority), of(&share), of(&|r| share(r) - majority(r)))
            {
                let name = format!("{id}: accuracy against the majority class");
                let estimates = [start.into(), result.into(), moved.into()];
                measures.push(Measure::new(name, Unit::Share, Better::Higher, n, estimates));
            }
        }
        _ => {}
    }
    Ok(measures)
}

/// How good the answers of a method that answers are: the chosen attempt against the first one, with what both cost.
///
/// # Errors
/// Those of the oracle.
pub fn of_answers(
    id: &str,
    answers: &[Answered],
    records: &[Record],
    oracle: Option<&dyn Oracle>,
    seed: u64,
) -> Result<Vec<Measure>> {
    let Some(oracle) = oracle else { return Ok(vec![]) };
    let (mut first, mut chosen) = (vec![], vec![]);
    for answer in answers {
        let check = |at: usize| oracle.check(&records[answer.record], &answer.attempts[at].text);
        if let (Some(one), Some(other)) = (check(0)?, check(answer.chosen)?) {
            first.push(f64::from(u8::from(one.right)));
            chosen.push(f64::from(u8::from(other.right)));
        }
    }
    let per_prompt =
        |of: fn(&Answered) -> u64| answers.iter().map(of).sum::<u64>() as f64 / answers.len().max(1) as f64;
    let (calls, tokens) = (per_prompt(|a| a.cost.calls), per_prompt(|a| a.cost.tokens));
    let name = format!("{id}: right answers at {calls:.1} calls and {tokens:.0} tokens a prompt");
    Ok(paired(&name, Unit::Share, &first, &chosen, seed).into_iter().collect())
}
