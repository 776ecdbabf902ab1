//! General text beside feedback: rows of plain text that keep a policy a language model, and the walk that takes both,
//! added up in one step or in turn.

use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use hone_nn::train::batches::{Order, Position, parts};
use hone_nn::train::seed::{rng, sub_seed};
use hone_nn::train::{StepReport, Trainer, checkpoint};
use hone_nn::{Batch, Loss, Model, Outputs, Want, loss};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::policy::{Policy, Sequence};
use crate::pretrain::mix::Mix;
use crate::pretrain::stream::Stream;
use crate::train::{CHECKPOINT_SECONDS, PART_TOKENS, Session, Training, batch_of};

/// Where general text comes from, and how much of it a step takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// `worlds` for what the built-in model is made from; else a file: JSON lines with `text`, or plain text.
    pub source: String,
    /// Tokens per row, at least 2; the model's context if that is shorter.
    pub row_tokens: usize,
    /// Rows per step, at least 1.
    pub batch_size: usize,
    /// Rows drawn from `worlds`; of a file, all are taken.
    pub rows: usize,
}

impl Default for General {
    fn default() -> General {
        General { source: "worlds".into(), row_tokens: 1024, batch_size: 8, rows: 256 }
    }
}

impl General {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self, method: &str) -> Result<()> {
        for (key, value, least) in
            [("row_tokens", self.row_tokens, 2), ("batch_size", self.batch_size, 1), ("rows", self.rows, 1)]
        {
            if value < least {
                let needed = format!("at least {least}");
                return Err(Error::range(method, &format!("general.{key}"), &needed, value));
            }
        }
        Ok(())
    }

    /// The rows of this source in a policy's tokens. Every token but a row's first is a target.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] for a file that cannot be read or holds no text.
    pub fn rows(&self, policy: &Policy, seed: u64) -> Result<Examples> {
        let length = self.row_tokens.min(policy.model.config().max_positions);
        if self.source != "worlds" {
            let texts = texts(Path::new(&self.source))?;
            let tokens = joined(policy, texts.iter().map(|text| Ok(text.clone())), usize::MAX)?;
            return rows(&tokens, length, &self.source);
        }
        let mut mix = Mix::default();
        // The others run nothing, so that text is drawn at once.
        mix.only_worlds(&["sums", "notes", "lists"].map(String::from))?;
        let stream = Stream::new(sub_seed(seed, "general text"), mix)?;
        let texts = (0..).map(|index| {
            let talk = stream.conversation(index)?;
            Ok(match &policy.template {
                Some(template) => {
                    let messages = [("user", talk.prompt.as_str()), ("assistant", talk.reply.as_str())]
                        .map(|(role, text)| hone_lm::Message::new(role, text));
                    template.render(&messages, &hone_lm::RenderOptions::default())?
                }
                None => format!("{}\n{}", talk.prompt, talk.reply),
            })
        });
        let tokens = joined(policy, texts, self.rows.saturating_mul(length))?;
        rows(&tokens, length, &self.source)
    }
}

/// Texts one after the other in tokens, a stop token after each, up to `most` tokens.
fn joined(policy: &Policy, texts: impl Iterator<Item = Result<String>>, most: usize) -> Result<Vec<u32>> {
    let stop = policy.tokenizer.stop_tokens().first().copied();
    let mut tokens = vec![];
    for text in texts {
        tokens.extend(policy.tokenizer.encode(&text?, true)?);
        if tokens.last().copied() != stop {
            tokens.extend(stop);
        }
        if tokens.len() >= most {
            tokens.truncate(most);
            break;
        }
    }
    Ok(tokens)
}

/// A stream of tokens cut into rows of `length`; what is left over is a shorter row, unless it is a single token.
fn rows(tokens: &[u32], length: usize, source: &str) -> Result<Examples> {
    let row = |tokens: &[u32]| Example {
        record: 0,
        sequences: vec![Sequence { tokens: tokens.to_vec(), mask: vec![true; tokens.len()], cut: 0 }],
        labels: vec![],
        marks: vec![],
    };
    let items: Vec<Example> = tokens.chunks(length).filter(|row| row.len() > 1).map(row).collect();
    if items.is_empty() {
        let problem = "needs text of at least 2 tokens, got less".into();
        return Err(Error::File { path: source.into(), problem });
    }
    Ok(Examples { items, ..Examples::default() })
}

fn texts(path: &Path) -> Result<Vec<String>> {
    let whole = std::fs::read_to_string(path).map_err(Error::io(path))?;
    if path.extension().is_none_or(|kind| kind != "jsonl") {
        return Ok(vec![whole]);
    }
    let lines = whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let fault = |problem: String| Error::File {
                path: path.display().to_string(),
                problem: format!("line {}: {problem}", index + 1),
            };
            let row: serde_json::Value = serde_json::from_str(line).map_err(|e| fault(e.to_string()))?;
            let text = row.get("text").and_then(|text| text.as_str());
            Ok(text.ok_or_else(|| fault("needs `text`, got none".into()))?.to_string())
        })
        .collect()
}

/// Mean negative log-likelihood of rows, in nats per token.
///
/// # Errors
/// Those of the engine.
pub fn loss_on(model: &Model, rows: &Examples) -> Result<f64> {
    let logps = crate::train::seq_logps(model, &rows.items, &Want::default())?;
    let targets: usize = rows.items.iter().flat_map(|row| &row.sequences).map(Sequence::targets).sum();
    Ok(-logps.iter().flatten().map(|&logp| f64::from(logp)).sum::<f64>() / targets.max(1) as f64)
}

/// What targets of a step weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// Rows alike: a mean over each row's targets, then over rows.
    Rows,
    /// Targets alike.
    Targets,
}

/// How general text takes part.
#[derive(Debug, Clone, Copy)]
pub enum Beside<'a> {
    /// Not at all.
    Nothing,
    /// In every step, its gradient times a weight added to that of the examples.
    Added(&'a Examples, usize, f64),
    /// In a step of its own after every step.
    InTurn(&'a Examples, usize),
}

/// A walk over examples beside general text.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a> {
    /// What is learnt. A label of -1 has the sequence's targets made unlikely (unlikelihood) instead of likely.
    pub examples: &'a Examples,
    /// What targets weigh.
    pub mean: Mean,
    /// The text beside it.
    pub beside: Beside<'a>,
    /// Share of past tokens that is hidden from attention, drawn evenly from this range for every sequence and step.
    pub forget: [f64; 2],
}

impl Walk<'_> {
    /// Walks from `model` as `training` says; steps are counted in those on the examples.
    ///
    /// # Errors
    /// [`Error::Engine`] for no example, or settings, sequences or memory that do not allow the run, or a loss that is
    /// not finite.
    pub fn go(&self, model: Model, training: &Training, seed: u64, session: &Session) -> Result<Model> {
        if let Some(preview) = &session.preview {
            let mut order = Order::new(self.examples.len(), sub_seed(seed, "order"))?;
            let first = order.take(&mut Position::default(), training.batch_size);
            preview.put(first.into_iter().filter_map(|at| self.examples.items.get(at).cloned()).collect());
            return Err(Error::Previewed);
        }
        let own = training.steps(self.examples.len());
        let (text, size, turns) = match self.beside {
            Beside::Nothing => (None, 0, 1),
            Beside::Added(text, size, _) => (Some(text), size, 1),
            Beside::InTurn(text, size) => (Some(text), size, 2),
        };
        let mut trainer = Trainer::new(model, training.trainer(own * turns, seed))?;
        let mut order = Order::new(self.examples.len(), trainer.seed("order"))?;
        let mut beside = text.map(|text| Order::new(text.len(), trainer.seed("general"))).transpose()?;
        session.open(&mut trainer)?;
        let place = trainer.extra.get(PLACE).cloned().map(serde_json::from_value::<Position>);
        let mut place = place.and_then(Result::ok).unwrap_or_default();
        let mut saved = Instant::now();
        while !trainer.finished() && session.deadline.is_none_or(|end| Instant::now() < end) {
            let on_text = turns == 2 && trainer.step_count() % 2 == 1;
            let (mut pieces, mut of_step) = (vec![], vec![]);
            if !on_text {
                let taken = order.take(&mut trainer.position, training.batch_size);
                let forget = rng(trainer.seed("forget"), &trainer.step_count().to_string());
                pieces =
                    cut(&trainer.model, self.examples, &taken, self.mean, 1.0, Some((self.forget, forget)))?;
                of_step.extend(taken.iter().filter_map(|&at| self.examples.items.get(at)));
            }
            if let (Some(text), Some(beside)) = (text, beside.as_mut())
                && (on_text || turns == 1)
            {
                let taken = beside.take(&mut place, size);
                let weight = if let Beside::Added(_, _, weight) = self.beside { weight } else { 1.0 };
                pieces.extend(cut(&trainer.model, text, &taken, self.mean, weight, None)?);
                trainer.extra.insert(PLACE.into(), serde_json::json!(place));
                of_step.extend(taken.iter().filter_map(|&at| text.items.get(at)));
            }
            let (batches, weights): (Vec<Batch>, Vec<Vec<f32>>) = pieces.into_iter().unzip();
            let report = trainer
                .step(&batches, &Want::default(), &|index, outputs| objective(outputs, &weights[index]));
            let report = report.map_err(|error| {
                let batch = of_step.iter().flat_map(|item| item.sequences.iter().map(|s| (item.record, s)));
                session.keep(&trainer, error.into(), batch)
            })?;
            self.tell(&report, own * turns, session);
            if let Some(folder) = &session.folder
                && saved.elapsed().as_secs() >= CHECKPOINT_SECONDS
            {
                checkpoint::save(&trainer, folder, 1)?;
                saved = Instant::now();
            }
        }
        if let Some(folder) = &session.folder {
            checkpoint::save(&trainer, folder, 1)?;
        }
        Ok(trainer.model)
    }

    fn tell(&self, report: &StepReport, steps: u64, session: &Session) {
        if let Some(listener) = &session.listener {
            listener(report, steps);
        }
    }
}

/// Where the place in the general text is kept.
const PLACE: &str = "general_position";

/// `Σ −w log p` over targets with weights above 0, `Σ w log(1 − p)` below: likelihood and unlikelihood, in nats.
fn objective(outputs: &Outputs, weights: &[f32]) -> hone_nn::Result<Loss> {
    let likely: Vec<f32> = weights.iter().map(|&w| w.max(0.0)).collect();
    let mut value = loss::cross_entropy(&outputs.logps, Some(&likely), 1.0)?;
    if weights.iter().any(|&w| w < 0.0) {
        let unlikely: Vec<f32> = weights.iter().map(|&w| (-w).max(0.0)).collect();
        value = (value + loss::weighted_sum(&unlikelihood(&outputs.logps)?, &unlikely, 1.0)?)?;
    }
    Ok(value.into())
}

/// `[M]`: `−log(1 − p)` from `[M]` log-probabilities, in nats (Welleck et al., arXiv:1908.04319).
///
/// # Errors
/// Those of the tensor library.
pub fn unlikelihood(logps: &Tensor) -> hone_nn::Result<Tensor> {
    // A target that is certain would cost infinitely much.
    Ok((logps.exp()?.affine(-1.0, 1.0)?.clamp(1e-6, 1.0)?).log()?.neg()?)
}

/// The parts of a step's examples, each with a weight per target that sum to `weight` over the step.
fn cut(
    model: &Model,
    examples: &Examples,
    taken: &[usize],
    mean: Mean,
    weight: f64,
    mut forget: Option<([f64; 2], rand_chacha::ChaCha8Rng)>,
) -> Result<Vec<(Batch, Vec<f32>)>> {
    let items: Vec<&Example> = taken.iter().filter_map(|&index| examples.items.get(index)).collect();
    let sizes: Vec<usize> =
        items.iter().map(|item| item.sequences.iter().map(|s| s.tokens.len()).sum()).collect();
    let sequences: usize = items.iter().map(|item| item.sequences.len()).sum();
    let targets: usize = items.iter().flat_map(|item| &item.sequences).map(Sequence::targets).sum();
    let mut pieces = vec![];
    for part in parts(&sizes, PART_TOKENS, model.threads.max(1))? {
        let part: Vec<&Example> = part.into_iter().filter_map(|at| items.get(at).copied()).collect();
        let mut batch = batch_of(model, part.iter().copied())?;
        let mut weights = vec![];
        for item in &part {
            let sign = if item.labels.first().is_some_and(|&label| label < 0.0) { -1.0 } else { 1.0 };
            for sequence in &item.sequences {
                let own = sequence.targets();
                let each = match mean {
                    Mean::Rows => 1.0 / (own.max(1) * sequences) as f64,
                    Mean::Targets => 1.0 / targets.max(1) as f64,
                };
                weights.extend(std::iter::repeat_n((sign * weight * each) as f32, own));
            }
        }
        if let Some(([low, high], rng)) = forget.as_mut().filter(|([_, high], _)| *high > 0.0) {
            for rows in batch.sequences().collect::<Vec<_>>() {
                let share = if high > low { rng.random_range(*low..*high) } else { *high };
                rows.filter(|_| rng.random_bool(share)).for_each(|row| batch.hide(row));
            }
        }
        pieces.push((batch, weights));
    }
    Ok(pieces)
}

/// Refuses a range of shares that is not within [0, 1) in order.
///
/// # Errors
/// [`Error::Range`].
pub fn check_forget(method: &str, [low, high]: [f64; 2]) -> Result<()> {
    match (0.0..1.0).contains(&low) && (low..1.0).contains(&high) {
        true => Ok(()),
        false => {
            let got = format!("[{low}, {high}]");
            Err(Error::range(method, "forget", "two shares in [0, 1), the smaller first", got))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, assert_close, tensor};

    fn example(tokens: &[u32], scored: &[usize], label: f32) -> Example {
        let mask = (0..tokens.len()).map(|at| scored.contains(&at)).collect();
        let sequences = vec![Sequence { tokens: tokens.to_vec(), mask, cut: 0 }];
        Example { record: 0, sequences, labels: vec![label], marks: vec![] }
    }

    #[test]
    fn weights_are_means_over_rows_or_targets() {
        let model = Bench::new(1).unwrap().policy().unwrap().model;
        let items = vec![example(&[2, 3, 4, 1], &[2, 3], 1.0), example(&[2, 3, 1], &[2], -1.0)];
        let examples = Examples { items, ..Examples::default() };
        let weights = |mean, weight| {
            let pieces = cut(&model, &examples, &[0, 1], mean, weight, None).unwrap();
            pieces.into_iter().flat_map(|(_, weights)| weights).collect::<Vec<f32>>()
        };
        // Two rows: half each; the first has two targets. All three targets: a third each.
        assert_eq!(weights(Mean::Rows, 1.0), [0.25, 0.25, -0.5]);
        let third = (2.0 / 3.0) as f32;
        assert_eq!(weights(Mean::Targets, 2.0), [third, third, -third]);
    }

    #[test]
    fn what_is_forgotten_is_drawn_per_sequence() {
        let model = Bench::new(1).unwrap().policy().unwrap().model;
        let tokens: Vec<u32> = (0..60).map(|at| 3 + at % 30).collect();
        let items = vec![example(&tokens, &[59], 1.0); 4];
        let examples = Examples { items, ..Examples::default() };
        let hidden = |range| {
            let drawn = Some((range, rng(3, "forget")));
            let pieces = cut(&model, &examples, &[0, 1, 2, 3], Mean::Rows, 1.0, drawn).unwrap();
            pieces.iter().flat_map(|(batch, _)| batch.hidden().to_vec()).collect::<Vec<bool>>()
        };
        assert!(hidden([0.0, 0.0]).is_empty());
        let half = hidden([0.5, 0.5]);
        let count = half.iter().filter(|&&hidden| hidden).count();
        // 4 × 59 rows at one half: 118, standard deviation 7.7.
        assert!((90..146).contains(&count), "{count}");
        assert!(half.iter().step_by(60).all(|&first| !first), "a first token is hidden");
        assert_eq!(half, hidden([0.5, 0.5]));
    }

    #[test]
    fn unlikelihood_is_the_log_of_the_rest() {
        // −ln(1 − 0.4) = 0.510826, −ln(1 − 0.8) = 1.609438.
        let logps = tensor(&[0.4f64.ln(), 0.8f64.ln()]);
        assert_close(&unlikelihood(&logps).unwrap(), &[0.510_826, 1.609_438]);
    }

    #[test]
    fn text_is_cut_into_rows_and_steps_take_turns() {
        let policy = Bench::new(1).unwrap().policy().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.jsonl");
        std::fs::write(&path, "{\"text\": \"w1 w2 w3\"}\n\n{\"text\": \"w4\"}\n").unwrap();
        let general = General {
            source: path.display().to_string(),
            row_tokens: 4,
            batch_size: 1,
            ..General::default()
        };
        let text = general.rows(&policy, 1).unwrap();
        // w1 w2 w3 </s> | w4 </s>
        let tokens: Vec<_> = text.items.iter().map(|item| item.sequences[0].tokens.clone()).collect();
        assert_eq!(tokens, [vec![4, 5, 6, 1], vec![7, 1]]);
        std::fs::write(&path, "{\"words\": 1}\n").unwrap();
        let refused = general.rows(&policy, 1).unwrap_err().to_string();
        assert!(refused.ends_with("text.jsonl: line 1: needs `text`, got none"), "{refused}");

        let examples = Examples { items: vec![example(&[2, 3, 1], &[2], 1.0); 3], ..Examples::default() };
        let training = Training { batch_size: 1, learning_rate: 1e-3, warm_up: 0.0, ..Training::default() };
        let count = |beside| {
            let steps = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
            let heard = steps.clone();
            let listener: std::sync::Arc<crate::train::Listener> =
                std::sync::Arc::new(move |report: &StepReport, of| {
                    heard.lock().unwrap().push((report.num_tokens, of));
                });
            let session = Session { listener: Some(listener), ..Session::default() };
            let walk = Walk { examples: &examples, mean: Mean::Rows, beside, forget: [0.0, 0.0] };
            walk.go(policy.copy().unwrap().model, &training, 1, &session).unwrap();
            let heard = steps.lock().unwrap();
            (heard.len(), heard.last().copied().unwrap())
        };
        let one =
            Examples { items: vec![example(&[4, 5, 6, 7, 1], &[1, 2, 3, 4], 1.0)], ..Examples::default() };
        // Three examples of 3 tokens; with the text's 5 in the same step, or in as many steps of their own.
        assert_eq!(count(Beside::Nothing), (3, (9, 3)));
        assert_eq!(count(Beside::Added(&one, 1, 1.5)), (3, (24, 3)));
        assert_eq!(count(Beside::InTurn(&one, 1)), (6, (24, 6)));
    }
}
