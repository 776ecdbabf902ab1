//! Candidates of one context as one sequence: which tokens are which item, how relevant each item is, which rank it
//! should have.

use std::collections::HashSet;

use candle_core::Tensor;
use hone_feedback::convert::{self, Losses};
use hone_feedback::{Content, Prompt, Record};
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::{Batch, Model, Network, Outputs, Want};

use super::{Irpo, Role};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::policy::{Policy, Sequence, refusal};
use crate::train::batch_of;

/// What may be listed for one context, as the log judges it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Index of the record.
    pub record: usize,
    /// The context, in the words of the role.
    pub prompt: Prompt,
    /// `[n]`, no two alike.
    pub items: Vec<String>,
    /// `[n]`, larger is better, at least 0.
    pub relevance: Vec<f64>,
    /// `[n]`: the rank each should have, from 1.
    pub target_ranks: Vec<usize>,
}

/// A list in one sequence: what [`Example`] does not hold of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// `[targets]`: the item of each token that is scored, from 0.
    pub owners: Vec<u32>,
    /// `[n]`: tokens of each item, at least 1.
    pub lengths: Vec<f32>,
    /// `[n]`, in the order of the sequence.
    pub relevance: Vec<f64>,
    /// `[n]`, in the order of the sequence.
    pub target_ranks: Vec<usize>,
}

/// Lists to train on, and what was left out.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// One sequence each; only tokens of items are scored.
    pub examples: Examples,
    /// One for each example.
    pub listed: Vec<Listed>,
}

/// Candidates of every list in the records. Items that are empty or stand twice are left out and counted: of equal ones
/// the first in the log stays.
pub fn candidates(records: &[Record], own: &Irpo, losses: &mut Losses) -> Vec<Candidates> {
    let mut all = vec![];
    for (index, record) in records.iter().enumerate() {
        for list in convert::lists(record, losses) {
            let (mut items, mut relevance) = (vec![], vec![]);
            let mut seen = HashSet::new();
            for (content, label) in list.contents.iter().zip(&list.labels) {
                let text = content.text().trim().to_string();
                if text.is_empty() {
                    losses.add("empty responses");
                } else if seen.insert(text.clone()) {
                    items.push(text);
                    relevance.push(label * own.top_relevance);
                } else {
                    losses.add("items that stand twice in a list");
                }
            }
            // Without a relevant item no weight is above 0, and one item has nothing to compete with.
            if items.len() < 2 || relevance.iter().all(|&r| r <= 0.0) {
                losses.add("lists without two items of which one is relevant");
                continue;
            }
            let mut order: Vec<usize> = (0..items.len()).collect();
            // Stable: equally relevant items keep the order of the log.
            order.sort_by(|&a, &b| relevance[b].total_cmp(&relevance[a]));
            let mut target_ranks = vec![0; items.len()];
            for (at, item) in order.into_iter().enumerate() {
                target_ranks[item] = at + 1;
            }
            let prompt = own.role.around(list.prompt);
            all.push(Candidates { record: index, prompt, items, relevance, target_ranks });
        }
    }
    all
}

impl Role {
    /// The context in the words of the role.
    pub fn around(self, prompt: &Prompt) -> Prompt {
        let words = match self {
            Role::AsIs => return prompt.clone(),
            Role::Recommend => {
                "You are a recommender. For the request below, put the items in order, best first. \
                 Write the list and nothing else.\n\n"
            }
            Role::Answer => {
                "You answer questions. For the question below, put the candidates in order, best first. \
                 Write the list and nothing else.\n\n"
            }
        };
        match prompt {
            Prompt::Text(text) => Prompt::Text(format!("{words}{text}")),
            Prompt::Messages(messages) => {
                let mut messages = messages.clone();
                // Before the first words of the user, not as a system message: some templates take none.
                let first = messages.iter_mut().find(|message| message.role == "user");
                if let Some(message) = first
                    && !matches!(message.content, Some(Content::Parts(_)))
                {
                    message.content = Some(Content::from(format!("{words}{}", message.text())));
                }
                Prompt::Messages(messages)
            }
        }
    }
}

impl Lists {
    /// Adds a list of `order`ed items of `of`, each once. Items at the end that do not fit are left out and counted; so is
    /// a list of which less than two items remain, or no relevant one.
    ///
    /// # Errors
    /// Those of [`Policy::encode`] that are not the fault of one record.
    pub fn add(
        &mut self,
        policy: &Policy,
        of: &Candidates,
        order: &[usize],
        own: &Irpo,
        max_tokens: usize,
    ) -> Result<()> {
        let mut order = order.to_vec();
        let losses = &mut self.examples.losses;
        while order.len() >= 2 && order.iter().any(|&at| of.relevance[at] > 0.0) {
            let items: Vec<&str> = order.iter().map(|&at| of.items[at].as_str()).collect();
            match encode(policy, &of.prompt, &items, &own.separator, max_tokens) {
                Ok(Some((sequence, owners))) => {
                    let mut lengths = vec![0.0; items.len()];
                    owners.iter().for_each(|&owner| lengths[owner as usize] += 1.0);
                    if lengths.contains(&0.0) {
                        losses.add("lists with an item that has no token of its own");
                        return Ok(());
                    }
                    self.examples.cut += usize::from(sequence.cut > 0);
                    let relevance: Vec<f64> = order.iter().map(|&at| of.relevance[at]).collect();
                    let labels = relevance.iter().map(|&r| r as f32).collect();
                    let (record, marks) = (of.record, vec![]);
                    self.examples.items.push(Example { record, sequences: vec![sequence], labels, marks });
                    let target_ranks = order.iter().map(|&at| of.target_ranks[at]).collect();
                    self.listed.push(Listed { owners, lengths, relevance, target_ranks });
                    return Ok(());
                }
                Ok(None) => {
                    // A cut item would have a made-up log-probability that outweighs all others.
                    order.pop();
                    losses.add("items beyond the longest sequence");
                }
                Err(Error::Model(error)) => match refusal(&error) {
                    Some(why) => {
                        losses.add(&why);
                        return Ok(());
                    }
                    None => return Err(Error::Model(error)),
                },
                Err(error) => return Err(error),
            }
        }
        losses.add("lists without two items of which one is relevant");
        Ok(())
    }

    /// All candidates of each context in one list: in random order, or in that of the log.
    ///
    /// # Errors
    /// As [`Lists::add`].
    pub fn of(
        policy: &Policy,
        candidates: &[Candidates],
        own: &Irpo,
        max_tokens: usize,
        seed: u64,
    ) -> Result<Lists> {
        let mut lists = Lists::default();
        for (index, of) in candidates.iter().enumerate() {
            let mut order: Vec<usize> = (0..of.items.len()).collect();
            if own.shuffle {
                shuffle(&mut order, &mut rng(sub_seed(seed, "item order"), &index.to_string()));
            }
            lists.add(policy, of, &order, own, max_tokens)?;
        }
        Ok(lists)
    }

    /// `[lists][n]`: mean log-probability per token of every item in its list, in nats, without gradient.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn item_logps(&self, model: &Model) -> Result<Vec<Vec<f32>>> {
        let mut rows = vec![];
        for (examples, listed) in self.examples.items.chunks(32).zip(self.listed.chunks(32)) {
            let batch = batch_of(model, examples)?;
            let outputs = model.evaluate(&batch, &Want::default())?;
            let listed: Vec<&Listed> = listed.iter().collect();
            let mut means = item_means(&listed, &batch, &outputs)?.to_vec1::<f32>()?.into_iter();
            rows.extend(listed.iter().map(|l| means.by_ref().take(l.lengths.len()).collect::<Vec<f32>>()));
        }
        Ok(rows)
    }
}

/// `[items of all lists]`: mean log-probability per token of every item, in nats.
///
/// # Errors
/// [`hone_nn::Error::Shape`] if the batch does not hold these lists.
pub fn item_means(listed: &[&Listed], batch: &Batch, outputs: &Outputs) -> hone_nn::Result<Tensor> {
    let (mut owners, mut lengths): (Vec<u32>, Vec<f32>) = (vec![], vec![]);
    for list in listed {
        let first = lengths.len() as u32;
        owners.extend(list.owners.iter().map(|owner| first + owner));
        lengths.extend(&list.lengths);
    }
    if owners.len() != batch.targets().len() {
        return Err(hone_nn::Error::Shape {
            what: "tokens of items".into(),
            needed: vec![batch.targets().len()],
            got: vec![owners.len()],
        });
    }
    let logps = &outputs.logps;
    let zeros = Tensor::zeros(lengths.len(), logps.dtype(), logps.device())?;
    let sums = zeros.index_add(&Tensor::new(owners, logps.device())?, logps, 0)?;
    Ok((sums / Tensor::new(lengths, logps.device())?.to_dtype(logps.dtype())?)?)
}

/// The sequence of a list, of which only tokens of items are scored, and the item of each of them. `None` if the list
/// alone is too long.
///
/// # Errors
/// As [`Policy::encode`].
pub fn encode(
    policy: &Policy,
    prompt: &Prompt,
    items: &[&str],
    separator: &str,
    max_tokens: usize,
) -> Result<Option<(Sequence, Vec<u32>)>> {
    let text = items.join(separator);
    let Some(mut sequence) = policy.encode(prompt, &text, max_tokens)? else { return Ok(None) };
    let spans = policy.response_spans(&sequence, &text)?;
    let gap = separator.chars().count();
    let mut ends = vec![];
    let mut at = 0;
    for item in items {
        let end = at + item.chars().count();
        ends.push((at, end));
        at = end + gap;
    }
    let mut owners = vec![];
    for (place, span) in spans.iter().enumerate() {
        let owner =
            span.and_then(|(from, to)| ends.iter().position(|&(start, end)| from < end && to > start));
        // Nothing stands before the first of all tokens to predict it from.
        sequence.mask[place] = owner.is_some() && place > 0;
        if let Some(owner) = owner.filter(|_| place > 0) {
            owners.push(owner as u32);
        }
    }
    Ok(Some((sequence, owners)))
}

/// The candidates that a written list names, in its order, each once; what it names beside them is passed over.
pub fn named(text: &str, of: &Candidates, separator: &str) -> Vec<usize> {
    // An item may hold the separator ("Monsters, Inc."), so items are looked for, the longest first.
    let separator = separator.trim();
    let mut by_length: Vec<usize> = (0..of.items.len()).collect();
    by_length.sort_by_key(|&at| std::cmp::Reverse(of.items[at].len()));
    let ends = |rest: &str| rest.trim().is_empty() || rest.trim_start().starts_with(separator);
    let mut order = vec![];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let found = by_length.iter().copied().find_map(|at| {
            rest.strip_prefix(of.items[at].as_str()).filter(|rest| ends(rest)).map(|rest| (at, rest))
        });
        if let Some((at, after)) = found {
            if !order.contains(&at) {
                order.push(at);
            }
            rest = after;
        }
        // On to what follows the next separator.
        rest = match rest.split_once(separator) {
            Some((_, after)) if !separator.is_empty() => after.trim_start(),
            _ => break,
        };
    }
    order
}
