//! What is measured on records that nobody trained on: before, after, and by how much.

use std::collections::HashMap;

use hone_feedback::Record;
use hone_feedback::convert::Shape;
use hone_feedback::metrics::resample::bootstrap;
use hone_feedback::metrics::{mean, ranking};
use hone_feedback::split::key_of;
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
use crate::reward::{self, RewardModel, hit};
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
    demonstrations: Part,
    pairs: Part,
    labels: Part,
    extent: Extent,
}

/// Examples of one shape, and which prompt each belongs to: what is drawn together by the bootstrap, since two answers
/// to one prompt are not two independent facts.
#[derive(Debug, Default)]
struct Part {
    examples: Examples,
    prompts: Vec<u64>,
}

impl Part {
    fn new(policy: &Policy, records: &[Record], shape: Shape, max_tokens: usize) -> Result<Part> {
        let examples = Examples::from_records(policy, records, shape, max_tokens)?;
        let prompts = examples.items.iter().map(|item| key_of(&records[item.record])).collect();
        Ok(Part { examples, prompts })
    }

    fn items(&self) -> &[Example] {
        &self.examples.items
    }
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
        let of = |shape: Shape| {
            Part::new(policy, &choose(&order, shape, extent.examples), shape, extent.max_tokens)
        };
        Ok(Probe {
            demonstrations: of(Shape::Demonstrations)?,
            pairs: of(Shape::Pairs)?,
            labels: of(Shape::BinaryLabels)?,
            records: order,
            extent,
        })
    }

    /// What could not be measured, by reason, over all shapes.
    pub fn losses(&self) -> Vec<(String, u64)> {
        let mut losses = vec![];
        for (part, name) in
            [(&self.demonstrations, "demonstrations"), (&self.pairs, "pairs"), (&self.labels, "labels")]
        {
            let of = part.examples.losses.iter().filter(|(reason, _)| !LEFT_TO_OTHERS.contains(reason));
            losses.extend(of.map(|(reason, count)| (format!("{name}: {reason}"), count)));
        }
        losses
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
        let logps = |part: &Part| seq_logps(&policy.model, part.items(), &want);
        let targets = |example: &Example| example.sequences[0].targets().max(1) as f64;
        let demonstrations = logps(&self.demonstrations)?
            .iter()
            .zip(self.demonstrations.items())
            .map(|(logp, example)| (-f64::from(logp[0]), targets(example)))
            .collect();
        let pairs = logps(&self.pairs)?.iter().map(|l| [f64::from(l[0]), f64::from(l[1])]).collect();
        let labels = logps(&self.labels)?
            .iter()
            .zip(self.labels.items())
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
        self.labels.items().iter().map(|item| item.labels[0] > 0.5).collect()
    }

    /// Every measure that the probe allows, start against result, most telling first.
    pub fn measures(&self, start: &Readings, result: &Readings) -> Vec<Measure> {
        let seed = self.extent.seed;
        let by_prompt = groups(&self.asked().iter().map(|record| key_of(record)).collect::<Vec<_>>());
        let mut measures = vec![];
        for (name, of) in ANSWERED {
            measures.extend(answered(name, start, result, &by_prompt, seed, of));
        }
        measures.extend(self.implicit_order(start, result));
        measures.extend(self.likelihood_order(start, result));
        measures.extend(self.likelihood(start, result));
        measures.extend(self.label_area(start, result));
        measures
    }

    /// How much better `result` is than `start` by what decides about a step of this shape: the oracle where it knows at
    /// least half of the prompts, else the step's own objective. Above 0 is better; `None` where nothing can be told.
    pub fn gain(&self, start: &Readings, result: &Readings, shape: Option<Shape>) -> Option<f64> {
        let [before, after] = [start, result].map(|readings| scores(readings, |(_, score)| score));
        if before.iter().flatten().count() * 2 >= before.len().max(1) {
            let mean_of =
                |values: &[Option<f64>]| mean(&values.iter().flatten().copied().collect::<Vec<_>>());
            return Some(mean_of(&after) - mean_of(&before));
        }
        let of = |values: Vec<f64>| (!values.is_empty()).then(|| mean(&values));
        match shape? {
            Shape::Demonstrations => {
                let both = start.demonstrations.iter().zip(&result.demonstrations);
                of(both.map(|((before, tokens), (after, _))| (before - after) / tokens).collect())
            }
            Shape::Pairs | Shape::Lists => {
                of(moved(start, result).iter().map(|&gap| hit(gap) - 0.5).collect())
            }
            Shape::BinaryLabels => {
                // Both sides weigh the same whatever their numbers: a drift of all answers is no gain.
                let side = |good: bool| {
                    let all = start.labels.iter().zip(&result.labels).zip(self.good());
                    of(all.filter(|(_, label)| *label == good).map(|((b, a), _)| a - b).collect())
                };
                Some(side(true)? - side(false)?)
            }
            _ => None,
        }
    }

    /// Per pair whether the chosen response is likelier per token.
    fn order(&self, readings: &Readings) -> Vec<f64> {
        let per_token = |(pair, example): (&[f64; 2], &Example)| {
            let of = |side: usize| pair[side] / example.sequences[side].targets().max(1) as f64;
            hit(of(0) - of(1))
        };
        readings.pairs.iter().zip(self.pairs.items()).map(per_token).collect()
    }

    fn pair_measure(&self, name: &str, start: &[f64], result: &[f64]) -> Option<Measure> {
        let by_prompt = groups(&self.pairs.prompts);
        let measure = paired(name, Unit::Share, start, result, &by_prompt, self.extent.seed)?;
        let nothing: Vec<Vec<f32>> = self.pairs.items().iter().map(|_| vec![0.0, 0.0]).collect();
        let longer = reward::pair_report(&nothing, self.pairs.items()).longer;
        Some(measure.baseline("length only", estimate(&longer, &by_prompt, self.extent.seed)))
    }

    fn implicit_order(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let after: Vec<f64> = moved(start, result).iter().map(|&gap| hit(gap)).collect();
        self.pair_measure("preference order by implicit reward", &vec![0.5; after.len()], &after)
    }

    fn likelihood_order(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        self.pair_measure("preferred answer likelier per token", &self.order(start), &self.order(result))
    }

    /// Negative log-likelihood per token, over all tokens.
    fn likelihood(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let (before, after) = (&start.demonstrations, &result.demonstrations);
        let by_prompt = groups(&self.demonstrations.prompts);
        let seed = self.extent.seed;
        let per_token = |items: &[usize], of: &dyn Fn(usize) -> f64| {
            items.iter().map(|&i| of(i)).sum::<f64>() / items.iter().map(|&i| before[i].1).sum::<f64>()
        };
        let of = |f: &dyn Fn(usize) -> f64| interval(&by_prompt, seed, |items| per_token(items, f));
        let estimates = [of(&|i| before[i].0)?, of(&|i| after[i].0)?, of(&|i| after[i].0 - before[i].0)?];
        let unit = Unit::Named("nats per token".into());
        let name = "negative log-likelihood of answers to imitate";
        Some(Measure::new(name, unit, Better::Lower, before.len() as u64, estimates))
    }

    fn label_area(&self, start: &Readings, result: &Readings) -> Option<Measure> {
        let good = self.good();
        if good.iter().all(|&good| good) || !good.contains(&true) {
            return None;
        }
        let area = |items: &[usize], values: &[f64]| {
            let scores: Vec<f64> = items.iter().map(|&i| values[i]).collect();
            let good: Vec<bool> = items.iter().map(|&i| good[i]).collect();
            reward::auc(&scores, &good).unwrap_or(0.5)
        };
        let by_prompt = groups(&self.labels.prompts);
        let of = |f: &dyn Fn(&[usize]) -> f64| interval(&by_prompt, self.extent.seed, f);
        let estimates = [
            of(&|items| area(items, &start.labels))?,
            of(&|items| area(items, &result.labels))?,
            of(&|items| area(items, &result.labels) - area(items, &start.labels))?,
        ];
        let name = "good answers likelier than bad ones (AUC)";
        Some(Measure::new(name, Unit::Bare, Better::Higher, good.len() as u64, estimates))
    }
}

/// Fewer prompts than this give no interval: drawing from one prompt always gives that prompt.
const LEAST_PROMPTS: usize = 5;

/// Most tokens of a sampled answer.
pub(super) const ANSWER_TOKENS: usize = 192;

/// Losses of a conversion that only say that another shape holds the item.
const LEFT_TO_OTHERS: [&str; 12] = [
    "thumb",
    "rating",
    "comparison",
    "ranking",
    "critique",
    "edit",
    "span",
    "step",
    "outcome",
    "event",
    "rule",
    "words that came with the feedback",
];

/// What of an oracle's verdict is a measure.
type OfVerdict = fn((bool, f64)) -> f64;

const ANSWERED: [(&str, OfVerdict); 2] =
    [("right answers", |(right, _)| if right { 1.0 } else { 0.0 }), ("score of answers", |(_, score)| score)];

/// Records that give examples of a shape, in the order given, until there are enough.
fn choose(order: &[&Record], shape: Shape, most: usize) -> Vec<Record> {
    let mut count = 0;
    let mut chosen = vec![];
    for record in order {
        let examples = shape.count(record);
        if examples > 0 && count < most {
            count += examples;
            chosen.push((*record).clone());
        }
    }
    chosen
}

/// Indices by the prompt they belong to, in order of first appearance.
fn groups(prompts: &[u64]) -> Vec<Vec<usize>> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = vec![];
    for (index, prompt) in prompts.iter().enumerate() {
        let place = *places.entry(*prompt).or_insert(groups.len());
        if place == groups.len() {
            groups.push(vec![]);
        }
        groups[place].push(index);
    }
    groups
}

/// A statistic of item indices with its bootstrap interval over whole prompts; without one where the prompts are too few
/// to draw from. `None` for no item.
fn interval(groups: &[Vec<usize>], seed: u64, of: impl Fn(&[usize]) -> f64) -> Option<Estimate> {
    let flat =
        |drawn: &[&Vec<usize>]| drawn.iter().flat_map(|group| group.iter().copied()).collect::<Vec<_>>();
    if groups.len() < LEAST_PROMPTS {
        let all: Vec<&Vec<usize>> = groups.iter().collect();
        return (!all.is_empty()).then(|| Estimate::of(of(&flat(&all))));
    }
    Some(bootstrap(groups, |drawn| of(&flat(drawn)), ROUNDS, 0.95, seed)?.into())
}

fn mean_of(values: &[f64], items: &[usize]) -> f64 {
    items.iter().map(|&i| values[i]).sum::<f64>() / items.len() as f64
}

fn estimate(values: &[f64], groups: &[Vec<usize>], seed: u64) -> Estimate {
    interval(groups, seed, |items| mean_of(values, items)).unwrap_or(Estimate::of(f64::NAN))
}

/// A mean over items at start and at the end; larger is better. Items of one group are drawn together.
fn paired(
    name: &str,
    unit: Unit,
    start: &[f64],
    result: &[f64],
    groups: &[Vec<usize>],
    seed: u64,
) -> Option<Measure> {
    if start.len() != result.len() || start.is_empty() {
        return None;
    }
    let difference = interval(groups, seed, |items| mean_of(result, items) - mean_of(start, items))?;
    let estimates = [estimate(start, groups, seed), estimate(result, groups, seed), difference];
    Some(Measure::new(name, unit, Better::Higher, start.len() as u64, estimates))
}

/// Per pair, how far the chosen response has been raised above the rejected one, in nats.
fn moved(start: &Readings, result: &Readings) -> Vec<f64> {
    start.pairs.iter().zip(&result.pairs).map(|(s, r)| (r[0] - s[0]) - (r[1] - s[1])).collect()
}

/// Per prompt the mean over its answers that were checked.
fn scores(readings: &Readings, of: OfVerdict) -> Vec<Option<f64>> {
    let of_prompt = |row: &Vec<Sampled>| {
        let values: Vec<f64> = row.iter().filter_map(|sampled| sampled.verdict.map(of)).collect();
        (!values.is_empty()).then(|| mean(&values))
    };
    readings.answers.iter().map(of_prompt).collect()
}

fn answered(
    name: &str,
    start: &Readings,
    result: &Readings,
    by_prompt: &[Vec<usize>],
    seed: u64,
    of: OfVerdict,
) -> Option<Measure> {
    let (before, after) = (scores(start, of), scores(result, of));
    let known =
        |&i: &usize| before.get(i).is_some_and(Option::is_some) && after.get(i).is_some_and(Option::is_some);
    let by_prompt: Vec<Vec<usize>> =
        by_prompt.iter().map(|group| group.iter().copied().filter(known).collect::<Vec<_>>()).collect();
    let by_prompt: Vec<Vec<usize>> = by_prompt.into_iter().filter(|group| !group.is_empty()).collect();
    let n: usize = by_prompt.iter().map(Vec::len).sum();
    let flat =
        |values: Vec<Option<f64>>| values.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
    let mut measure = paired(name, Unit::Share, &flat(before), &flat(after), &by_prompt, seed)?;
    measure.n = n as u64;
    Some(measure)
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
    let mut order: Vec<&Record> = records.iter().collect();
    shuffle(&mut order, &mut rng(extent.seed, "reward"));
    let seed = extent.seed;
    let of = |shape| Part::new(start, &choose(&order, shape, extent.examples), shape, extent.max_tokens);
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
            let part = of(Shape::Pairs)?;
            let (pairs, by_prompt) = (part.items(), groups(&part.prompts));
            let report = reward::pair_report(&model.score(pairs)?, pairs);
            let before: Vec<f64> = likely(pairs)?.iter().map(|side| hit(side[0] - side[1])).collect();
            let name = format!("{id}: accuracy on pairs");
            if let Some(measure) = paired(&name, Unit::Share, &before, &report.hits, &by_prompt, seed) {
                let measure = measure
                    .baseline("majority class", Estimate::of(0.5))
                    .baseline("length only", estimate(&report.longer, &by_prompt, seed));
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
            let part = of(Shape::ScalarTargets)?;
            let (items, by_prompt) = (part.items(), groups(&part.prompts));
            let column = |of: &dyn Fn(usize) -> f64| (0..items.len()).map(of).collect::<Vec<f64>>();
            let (scores, before) = (model.score(items)?, likely(items)?);
            let target = column(&|i| f64::from(items[i].labels[0]));
            let score = column(&|i| f64::from(scores[i][0]));
            let likelihood = column(&|i| before[i][0]);
            let length = column(&|i| items[i].sequences[0].targets() as f64);
            let rho = |drawn: &[usize], values: &[f64]| {
                let of = |values: &[f64]| drawn.iter().map(|&i| values[i]).collect::<Vec<f64>>();
                ranking::spearman(&of(values), &of(&target)).unwrap_or(0.0)
            };
            let of = |f: &dyn Fn(&[usize]) -> f64| interval(&by_prompt, seed, f);
            // The direction of length is taken from all items, so that its interval can reach below 0.
            let all: Vec<usize> = (0..items.len()).collect();
            let sign = if rho(&all, &length) < 0.0 { -1.0 } else { 1.0 };
            if let (Some(start), Some(result), Some(moved), Some(length)) = (
                of(&|drawn| rho(drawn, &likelihood)),
                of(&|drawn| rho(drawn, &score)),
                of(&|drawn| rho(drawn, &score) - rho(drawn, &likelihood)),
                of(&|drawn| sign * rho(drawn, &length)),
            ) {
                let name = format!("{id}: rank correlation with ratings");
                let estimates = [start, result, moved];
                let measure = Measure::new(name, Unit::Bare, Better::Higher, items.len() as u64, estimates);
                measures.push(measure.baseline("length only", length));
            }
        }
        "reward-spans" | "reward-steps" => {
            let shape = if id == "reward-spans" { Shape::SpanLabels } else { Shape::StepLabels };
            let mut part = of(shape)?;
            if id == "reward-spans" {
                part.examples =
                    faulty_tokens(start, &choose(&order, shape, extent.examples), extent.max_tokens)?;
            }
            let (items, by_prompt) = (part.items(), groups(&part.prompts));
            let scores = model.score_marks(items)?;
            // All marks of a prompt's answers stay together when prompts are drawn.
            let of_item = |i: usize| {
                scores[i].iter().zip(&items[i].marks).map(|(s, mark)| (f64::from(*s), mark.1 > 0.5))
            };
            let marks =
                |drawn: &[usize]| drawn.iter().flat_map(|&i| of_item(i)).unzip::<_, _, Vec<f64>, Vec<bool>>();
            let area = |drawn: &[usize]| {
                let (scores, positive) = marks(drawn);
                reward::auc(&scores, &positive).unwrap_or(0.5)
            };
            let right = |drawn: &[usize]| {
                let (scores, positive) = marks(drawn);
                let right = scores.iter().zip(&positive).filter(|(s, p)| (**s > 0.5) == **p).count();
                right as f64 / scores.len().max(1) as f64
            };
            let majority = |drawn: &[usize]| {
                let (_, positive) = marks(drawn);
                let share = positive.iter().filter(|&&p| p).count() as f64 / positive.len().max(1) as f64;
                share.max(1.0 - share)
            };
            let of = |f: &dyn Fn(&[usize]) -> f64| interval(&by_prompt, seed, f);
            let n = items.iter().map(|item| item.marks.len()).sum::<usize>() as u64;
            let what = if id == "reward-spans" { "marked tokens" } else { "right steps" };
            if let (Some(result), Some(moved)) = (of(&area), of(&|drawn| area(drawn) - 0.5)) {
                let estimates = [Estimate::of(0.5), result, moved];
                let name = format!("{id}: {what} (AUC)");
                measures.push(Measure::new(name, Unit::Bare, Better::Higher, n, estimates));
            }
            if let (Some(start), Some(result), Some(moved)) =
                (of(&majority), of(&right), of(&|drawn| right(drawn) - majority(drawn)))
            {
                let name = format!("{id}: accuracy against the majority class");
                let estimates = [start, result, moved];
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
    let (mut first, mut chosen, mut prompts) = (vec![], vec![], vec![]);
    for answer in answers {
        let record = &records[answer.record];
        let check = |at: usize| oracle.check(record, &answer.attempts[at].text);
        if let (Some(one), Some(other)) = (check(0)?, check(answer.chosen)?) {
            first.push(f64::from(u8::from(one.right)));
            chosen.push(f64::from(u8::from(other.right)));
            prompts.push(key_of(record));
        }
    }
    let per_prompt =
        |of: fn(&Answered) -> u64| answers.iter().map(of).sum::<u64>() as f64 / answers.len().max(1) as f64;
    let (calls, tokens) = (per_prompt(|a| a.cost.calls), per_prompt(|a| a.cost.tokens));
    let by_oracle = answers.iter().any(|answer| answer.by_oracle);
    let how = if by_oracle { ", chosen by the oracle itself" } else { "" };
    let name = format!("{id}: right answers at {calls:.1} calls and {tokens:.0} tokens a prompt{how}");
    let mut measure = paired(&name, Unit::Share, &first, &chosen, &groups(&prompts), seed);
    if let Some(measure) = measure.as_mut().filter(|_| by_oracle) {
        // Chosen by what it is measured by: an upper bound, no result.
        measure.better = Better::Neither;
    }
    Ok(measure.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_prompt_is_drawn_together() {
        assert_eq!(groups(&[7, 8, 7, 9]), [vec![0, 2], vec![1], vec![3]]);
        // Ten prompts of ten equal items each say no more than ten items do.
        let values: Vec<f64> = (0..100).map(|i| f64::from(i / 10 % 2)).collect();
        let width = |groups: &[Vec<usize>]| {
            let [low, high] = interval(groups, 1, |items| mean_of(&values, items)).unwrap().interval.unwrap();
            high - low
        };
        let ten = groups(&(0..100).map(|i| i / 10).collect::<Vec<u64>>());
        let hundred = groups(&(0..100).collect::<Vec<u64>>());
        // 1.96 · ½ / √10 = 0.31 and 0.098 on either side.
        assert!(width(&ten) > 0.45 && width(&hundred) < 0.25, "{} {}", width(&ten), width(&hundred));
        // One prompt says nothing about others.
        let one = interval(&[vec![0, 1, 2]], 1, |items| mean_of(&values, items)).unwrap();
        assert_eq!(one, Estimate::of(0.0));
    }
}
