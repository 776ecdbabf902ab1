//! The log as answers with one reward each, and what scores answers that the log does not hold.

use std::collections::{BTreeMap, BTreeSet};

use hone_feedback::convert::{self, Losses};
use hone_feedback::{Content, Record};

use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::method::Job;
use crate::oracle::Oracle;
use crate::policy::{Policy, refusal};
use crate::preference::reward_ratings::REWARD_RATINGS;
use crate::reward::RewardModel;

/// Sum and number of the marks of each aspect.
type Marks = BTreeMap<String, (f64, f64)>;

/// Answers with their rewards.
#[derive(Debug, Clone, Default)]
pub struct Logged {
    /// One sequence each; labels are the shares of each aspect, in the order of their names.
    pub examples: Examples,
    /// `[examples]`: the sum of what was said of each aspect as shares of their scales, in `[0, max_value]`.
    pub rewards: Vec<f64>,
    /// The most a reward can be: the number of aspects.
    pub max_value: f64,
}

impl Logged {
    /// Answers of the records. Several marks of one aspect are averaged. Where an answer lacks an aspect that others have, its
    /// reward is stretched. Answers that end in a colon promise what does not follow; they are left out if `clean`.
    ///
    /// # Errors
    /// Those of [`Policy::encode`] that are not the fault of one record.
    pub fn read(policy: &Policy, records: &[Record], max_tokens: usize, clean: bool) -> Result<Logged> {
        let mut logged = Logged::default();
        let mut aspects = BTreeSet::new();
        let mut shares: Vec<BTreeMap<String, f64>> = vec![];
        for (index, record) in records.iter().enumerate() {
            let mut losses = Losses::default();
            let mut of_record: Vec<(&Content, Marks)> = vec![];
            for target in convert::scalar_targets(record, &mut losses) {
                if !target.scaled {
                    losses.add("marks without a known scale");
                    continue;
                }
                let at = of_record.iter().position(|(content, _)| std::ptr::eq(*content, target.content));
                let at = at.unwrap_or_else(|| {
                    of_record.push((target.content, BTreeMap::new()));
                    of_record.len() - 1
                });
                let name = target.origin.aspect.unwrap_or_default().to_string();
                let (sum, count) = of_record[at].1.entry(name).or_default();
                *sum += target.value.clamp(0.0, 1.0);
                *count += 1.0;
            }
            for (content, marks) in of_record {
                let text = content.text();
                if text.trim().is_empty() {
                    losses.add("empty responses");
                } else if clean && text.trim_end().ends_with(':') {
                    losses.add("answers that end in a colon");
                } else {
                    match policy.encode(&record.prompt, &text, max_tokens) {
                        Ok(Some(sequence)) => {
                            logged.examples.cut += usize::from(sequence.cut > 0);
                            let sequences = vec![sequence];
                            let (labels, marks_) = (vec![], vec![]);
                            let item = Example { record: index, sequences, labels, marks: marks_ };
                            logged.examples.items.push(item);
                            aspects.extend(marks.keys().cloned());
                            shares.push(marks.into_iter().map(|(name, (s, n))| (name, s / n)).collect());
                        }
                        Ok(None) => losses.add("responses longer than the model or the settings allow"),
                        Err(Error::Model(error)) => match refusal(&error) {
                            Some(why) => losses.add(&why),
                            None => return Err(Error::Model(error)),
                        },
                        Err(error) => return Err(error),
                    }
                }
            }
            logged.examples.losses.merge(&losses);
        }
        logged.max_value = aspects.len().max(1) as f64;
        for (item, shares) in logged.examples.items.iter_mut().zip(&shares) {
            item.labels = shares.values().map(|&share| share as f32).collect();
            if shares.len() < aspects.len() {
                logged.examples.losses.add("answers without a mark of every aspect");
            }
            let stretch = logged.max_value / shares.len().max(1) as f64;
            logged.rewards.push(shares.values().sum::<f64>() * stretch);
        }
        Ok(logged)
    }

    /// Those for which `keep` holds of the record.
    #[must_use]
    pub fn of_records(&self, keep: impl Fn(usize) -> bool) -> Logged {
        let mut some = Logged { max_value: self.max_value, ..Logged::default() };
        for (item, reward) in self.examples.items.iter().zip(&self.rewards) {
            if keep(item.record) {
                some.examples.items.push(item.clone());
                some.rewards.push(*reward);
            }
        }
        some
    }
}

/// What scores answers.
#[derive(Debug)]
pub enum Scorer<'a> {
    /// What can check them.
    Oracle(&'a dyn Oracle),
    /// A model fitted to the log's own marks.
    Model(Box<RewardModel>),
}

impl<'a> Scorer<'a> {
    /// The oracle if it knows the first record, else a reward model of the marks, trained as `settings` say.
    ///
    /// # Errors
    /// Those of the oracle and of training.
    pub fn new(job: Job<'_>, oracle: Option<&'a dyn Oracle>) -> Result<Scorer<'a>> {
        if let (Some(oracle), Some(record)) = (oracle, job.records.first())
            && oracle.check(record, "")?.is_some()
        {
            return Ok(Scorer::Oracle(oracle));
        }
        Ok(Scorer::Model(Box::new((REWARD_RATINGS.run)(job)?.reward()?)))
    }

    /// Rewards of one answer to each record, in `[0, max_value]`; 0 where nothing was answered or it cannot be scored.
    ///
    /// # Errors
    /// Those of the oracle and of the engine.
    pub fn score(&self, asked: &[Record], answers: &[String], max_value: f64) -> Result<Vec<f64>> {
        let each = asked.iter().zip(answers);
        each.map(|(record, answer)| {
            let share = match self {
                Scorer::Oracle(oracle) => oracle.check(record, answer)?.map_or(0.0, |verdict| verdict.score),
                Scorer::Model(model) => {
                    let policy = &model.policy;
                    let most = policy.model.config().max_positions;
                    match policy.encode(&record.prompt, answer, most)? {
                        Some(sequence) if !answer.trim().is_empty() => {
                            let item = Example {
                                record: 0,
                                sequences: vec![sequence],
                                labels: vec![],
                                marks: vec![],
                            };
                            model
                                .score(&[item])?
                                .first()
                                .and_then(|row| row.first())
                                .map_or(0.0, |&s| f64::from(s))
                        }
                        _ => 0.0,
                    }
                }
            };
            Ok(share.clamp(0.0, 1.0) * max_value)
        })
        .collect()
    }
}
