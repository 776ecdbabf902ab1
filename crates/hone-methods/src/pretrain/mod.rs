//! The built-in model, made from the worlds.
//!
//! `hone pretrain` learns a tokenizer from the worlds' own text, then trains a small Llama-family model on an endless
//! stream of conversations in four roles ([`stream`]). The loss is on the assistant's tokens and, later and at half
//! weight, on right answers that a prompt shows: without it a model of this size learns to write answers long before it
//! learns to check them. Everything follows from one seed; a run resumes to the same numbers.
//!
//! # Departs from usual pretraining
//! There is no text but the worlds'. And the model is meant to be imperfect: a share of the answers it is shown has a
//! planted error ([`mix::WorldMix::slip`]), so that a method has something to improve in every world.

pub mod mix;
pub mod stream;
pub mod vocabulary;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hone_lm::Tokenizer;
use hone_nn::config::DType;
use hone_nn::folder::{self, SaveOptions};
use hone_nn::train::batches::parts;
use hone_nn::train::memory::Load;
use hone_nn::train::{
    AdamWSettings, Schedule, Shape, StepReport, Trainer, TrainerSettings, WarmUp, checkpoint,
};
use hone_nn::{Batch, Loss, Model, ModelConfig, Outputs, Want, loss};
use hone_worlds::roles::Role;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::order::{self, TokenOrder};
use mix::{Mix, role_name, wrong};
use stream::{Conversation, Stream};

/// Conversations that the tokenizer is learnt from.
const VOCABULARY_TEXTS: u64 = 6000;

/// Parts of a step come in multiples of this, whatever the number of threads: how a step is cut changes its rounding.
const LANES: usize = 2;

/// Steps timed to find how many fit into the minutes given.
const TIMED_STEPS: u64 = 8;

/// Largest weights file that is written, in bytes.
const SHARD_BYTES: u64 = 3_900_000;

/// Sizes of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads, a divisor of the width.
    pub heads: usize,
    /// Key and value heads, a divisor of the heads.
    pub kv_heads: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
}

impl Size {
    /// Sizes with a name: what they are called, and what they are.
    pub const NAMED: [(&str, Size); 4] = [
        ("0.1m", Size { width: 48, layers: 2, heads: 4, kv_heads: 2, feed_forward: 128 }),
        ("0.7m", Size { width: 128, layers: 4, heads: 4, kv_heads: 2, feed_forward: 344 }),
        ("2m", Size { width: 192, layers: 5, heads: 6, kv_heads: 2, feed_forward: 512 }),
        ("3m", Size { width: 192, layers: 7, heads: 6, kv_heads: 2, feed_forward: 512 }),
    ];

    /// The size of this name.
    ///
    /// # Errors
    /// [`Error::Range`] lists the names there are.
    pub fn named(name: &str) -> Result<Size> {
        let found = Size::NAMED.iter().find(|(known, _)| *known == name);
        let names = Size::NAMED.map(|(known, _)| known).join(", ");
        found.map(|(_, size)| *size).ok_or_else(|| wrong("size", &format!("one of {names}"), name))
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Optimiser steps.
    Steps(u64),
    /// Tokens read.
    Tokens(u64),
    /// Minutes of wall time. The first steps are timed to plan the rest; if the machine slows down afterwards the run
    /// ends on time all the same, with the running average of its weights.
    Minutes(f64),
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Governs everything that is drawn.
    pub seed: u64,
    /// Model folder to go on from, with its size and tokenizer; without, the run begins with fresh weights.
    pub init: Option<PathBuf>,
    /// Order of tokens: reversed, the model reads an answer from its end and then writes the question. The reading is
    /// learnt up to `shown_from`, as pretraining; from then on the question alone.
    pub order: TokenOrder,
    /// Size of the model.
    pub size: Size,
    /// Most tokens of the vocabulary, at least 260.
    pub vocabulary: usize,
    /// Length of the run.
    pub length: Length,
    /// Step after which the run ends although more are planned; the running average of the weights is then the model.
    pub until: Option<u64>,
    /// Tokens per step, at least 1. A step takes whole conversations until it has as many.
    pub step_tokens: usize,
    /// Tokens computed at once, at least 1. Short parts stay in the processor's caches.
    pub part_tokens: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the run over which the rate rises; after it the rate falls to 0 in a straight line.
    pub warm_up: f64,
    /// Decay of weights per step at rate 1.
    pub weight_decay: f64,
    /// Decay of the running average of weights.
    pub average: f64,
    /// Factor on the loss of right answers that are shown in a prompt to be criticised, labelled or left alone; 0 keeps
    /// to the assistant's tokens. Who can go on with an answer notices where one goes astray. At least 0.
    pub shown_weight: f32,
    /// Steps before that loss begins.
    pub shown_from: u64,
    /// Steps before the worlds' own emphasis begins.
    pub emphasis_from: u64,
    /// Threads, at least 1. Changes nothing but the time.
    pub threads: usize,
    /// Steps between checkpoints, at least 1.
    pub save_every: u64,
    /// Checkpoints kept, at least 1.
    pub keep: usize,
    /// What the model is shown.
    pub mix: Mix,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 0,
            init: None,
            order: TokenOrder::Forward,
            size: Size { width: 192, layers: 5, heads: 6, kv_heads: 2, feed_forward: 512 },
            vocabulary: 1024,
            length: Length::Steps(3300),
            until: None,
            step_tokens: 4096,
            part_tokens: 384,
            learning_rate: 3e-3,
            warm_up: 0.03,
            weight_decay: 0.05,
            average: 0.995,
            shown_weight: 0.5,
            shown_from: 600,
            emphasis_from: 1400,
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            save_every: 200,
            keep: 2,
            mix: Mix::default(),
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// What the last step did.
    pub report: &'a StepReport,
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens per second since this process began to train.
    pub tokens_per_second: f64,
    /// Time left at this speed.
    pub left: Duration,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The model's folder.
    pub model: PathBuf,
    /// Weights of the model.
    pub parameters: usize,
    /// Steps taken in the whole run.
    pub steps: u64,
    /// Tokens read in the whole run.
    pub tokens: u64,
    /// Mean loss over the last steps (at most 50), in nats per weighted token.
    pub loss: f64,
    /// Whether all planned steps were taken.
    pub finished: bool,
}

/// Trains a model into the run folder `out`: `config.toml`, `metrics.jsonl`, `tokenizer/`, checkpoints, and at last
/// `model/`. With `resume`, goes on with the run that is there; its `config.toml` then counts, of `settings` only
/// `until`.
///
/// # Errors
/// [`Error::Range`] for a setting outside its range; [`Error::File`] for a `config.toml` that cannot be read; those of
/// the worlds, the engine and the file system.
pub fn run(settings: &Settings, out: &Path, resume: bool, on: &mut dyn FnMut(&Progress)) -> Result<Outcome> {
    let config_path = out.join("config.toml");
    let started = Instant::now();
    let mut settings = match resume {
        true => Settings { until: settings.until, ..read_settings(&config_path)? },
        false => settings.clone(),
    };
    let stream = Stream::new(settings.seed, settings.mix.clone())?;
    check(&settings)?;
    let words = out.join("tokenizer");
    if !resume {
        if checkpoint_exists(out) {
            let needed = "a folder without a run, or --resume to go on with the run there";
            return Err(wrong("out", needed, out.display()));
        }
        match &settings.init {
            Some(folder) => vocabulary::copy(folder, &words)?,
            None => {
                let texts = (0..VOCABULARY_TEXTS).map(|index| stream.conversation(index));
                let texts = texts.map(|talk| talk.map(|talk| [talk.prompt, talk.reply]));
                let texts: Vec<String> = texts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
                vocabulary::write(&words, &texts, settings.vocabulary, CONTEXT)?;
            }
        }
    }
    let encoder = Encoder::new(&words, settings.mix.label_weight)?;
    let deadline = match settings.length {
        Length::Minutes(minutes) if !resume => Some(started + Duration::from_secs_f64(60.0 * minutes)),
        _ => None,
    };
    if let Some(deadline) = deadline {
        let timed = Settings { length: Length::Steps(TIMED_STEPS), ..settings.clone() };
        let begun = Instant::now();
        let mut trainer = trainer(&timed, TIMED_STEPS, &encoder, &words)?;
        train(&timed, &stream, &encoder, &mut trainer, None, None, &mut |_| {})?;
        let step = begun.elapsed() / TIMED_STEPS as u32;
        let left = deadline.saturating_duration_since(Instant::now());
        let steps = (left.as_secs_f64() / step.as_secs_f64()).floor().max(1.0);
        settings.length = Length::Steps(steps as u64);
    }
    let steps = match settings.length {
        Length::Steps(steps) => steps,
        Length::Tokens(tokens) => tokens.div_ceil(settings.step_tokens as u64),
        Length::Minutes(minutes) => return Err(wrong("length", "steps in a run to resume", minutes)),
    };
    settings.length = Length::Steps(steps);
    let mut trainer = trainer(&settings, steps, &encoder, &words)?;
    if resume {
        checkpoint::resume(&mut trainer, out)?;
    } else {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        let text = toml::to_string_pretty(&settings).map_err(|error| Error::File {
            path: config_path.display().to_string(),
            problem: error.to_string(),
        })?;
        std::fs::write(&config_path, text).map_err(Error::io(&config_path))?;
    }
    trainer.log_to(out)?;
    let (loss, tokens) = train(&settings, &stream, &encoder, &mut trainer, Some(out), deadline, on)?;
    let finished = trainer.finished();
    let model = out.join("model");
    let options =
        SaveOptions { dtype: Some(DType::BF16), shard_bytes: SHARD_BYTES, companions: Some(words.clone()) };
    let save = |model_: &Model| folder::write(model_.config(), &model_.params, &model, &options);
    if finished {
        save(&trainer.model)?;
    } else {
        trainer.with_average(|average| save(average))??;
    }
    Ok(Outcome {
        model,
        parameters: trainer.model.params.data.len(),
        steps: trainer.step_count(),
        tokens,
        loss,
        finished,
    })
}

/// Tokens of prompt and reply together.
const CONTEXT: usize = 1024;

fn checkpoint_exists(out: &Path) -> bool {
    out.exists() && checkpoint::list(out).is_ok_and(|found| !found.is_empty())
}

fn read_settings(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    toml::from_str(&text)
        .map_err(|error| Error::File { path: path.display().to_string(), problem: error.to_string() })
}

fn check(settings: &Settings) -> Result<()> {
    let Size { width, heads, kv_heads, layers, feed_forward } = settings.size;
    let divides = |part: usize, whole: usize| part > 0 && whole.is_multiple_of(part);
    if !divides(heads, width) || !(width / heads).is_multiple_of(2) {
        return Err(wrong("size.heads", "a divisor of the width that leaves heads of even width", heads));
    }
    if !divides(kv_heads, heads) {
        return Err(wrong("size.kv_heads", &format!("a divisor of {heads}"), kv_heads));
    }
    if settings.vocabulary < vocabulary::SMALLEST {
        let needed = format!("at least {}", vocabulary::SMALLEST);
        return Err(wrong("vocabulary", &needed, settings.vocabulary));
    }
    let whole = [
        ("size.layers", layers as u64),
        ("size.feed_forward", feed_forward as u64),
        ("step_tokens", settings.step_tokens as u64),
        ("part_tokens", settings.part_tokens as u64),
        ("threads", settings.threads as u64),
        ("save_every", settings.save_every),
        ("keep", settings.keep as u64),
    ];
    if let Some((key, _)) = whole.into_iter().find(|(_, value)| *value == 0) {
        return Err(wrong(key, "at least 1", 0));
    }
    if !(settings.shown_weight >= 0.0 && settings.shown_weight.is_finite()) {
        return Err(wrong("shown_weight", "a number of at least 0", settings.shown_weight));
    }
    let empty = match settings.length {
        Length::Steps(steps) => steps == 0,
        Length::Tokens(tokens) => tokens == 0,
        Length::Minutes(minutes) => !(minutes > 0.0 && minutes.is_finite()),
    };
    if empty {
        return Err(wrong("length", "more than 0", format!("{:?}", settings.length)));
    }
    Ok(())
}

fn trainer(settings: &Settings, steps: u64, encoder: &Encoder, words: &Path) -> Result<Trainer> {
    let Size { width, layers, heads, kv_heads, feed_forward } = settings.size;
    let mut config = ModelConfig::llama(encoder.size, width, layers, heads, kv_heads, feed_forward);
    config.max_positions = CONTEXT;
    config.eos_tokens = vec![encoder.end];
    config.pad_token = Some(encoder.pad);
    config.raw = config.to_json();
    let mut model = match &settings.init {
        Some(folder) => folder::read(folder)?,
        None => Model::random(config, settings.seed),
    };
    if settings.order != TokenOrder::Forward {
        model = settings.order.mark(&model)?;
    }
    model.threads = settings.threads;
    let mut trainer = Trainer::new(
        model,
        TrainerSettings {
            learning_rate: settings.learning_rate,
            steps,
            schedule: Schedule { warm_up: WarmUp::Share(settings.warm_up), shape: Shape::Linear },
            adamw: AdamWSettings {
                beta2: 0.98,
                weight_decay: settings.weight_decay,
                ..AdamWSettings::default()
            },
            max_grad_norm: Some(1.0),
            ema_decay: Some(settings.average),
            seed: settings.seed,
            loss_terms: vec![],
        },
    )?;
    trainer.companions = Some(words.to_path_buf());
    Ok(trainer)
}

/// Turns conversations into tokens.
struct Encoder {
    tokenizer: Tokenizer,
    user: u32,
    assistant: u32,
    end: u32,
    pad: u32,
    size: usize,
    label_weight: f32,
}

impl Encoder {
    fn new(folder: &Path, label_weight: f32) -> Result<Encoder> {
        let tokenizer = Tokenizer::from_folder(folder)?;
        let id = |token: &str| {
            tokenizer.id(token).ok_or_else(|| Error::File {
                path: folder.join("tokenizer.json").display().to_string(),
                problem: format!("needs a token {token}, got none"),
            })
        };
        Ok(Encoder {
            user: id(vocabulary::USER)?,
            assistant: id(vocabulary::ASSISTANT)?,
            end: id(vocabulary::END)?,
            pad: id(vocabulary::PAD)?,
            size: tokenizer.size(),
            tokenizer,
            label_weight,
        })
    }

    /// Ids of a conversation as the chat template writes it, and the weight of each; `shown` is that of a right answer
    /// in the prompt, `emphasis` that of a reply which is no label.
    fn encode(&self, talk: &Conversation, shown: f32, emphasis: f32) -> Result<Encoded> {
        let mut ids = vec![self.user];
        let mut weights = vec![0.0];
        let within = |start: usize, end: usize| {
            talk.shown.as_ref().is_some_and(|shown| start < shown.end && end > shown.start)
        };
        for token in self.tokenizer.encode_spans(&talk.prompt, false)? {
            ids.push(token.id);
            weights.push(if within(token.start, token.end) { shown } else { 0.0 });
        }
        ids.push(self.assistant);
        ids.extend(self.tokenizer.encode(&talk.reply, false)?);
        ids.push(self.end);
        let weight = if talk.role == Role::Label { self.label_weight } else { emphasis };
        // The token that opens the assistant's turn is given, not learnt.
        weights.push(0.0);
        weights.resize(ids.len(), weight);
        Ok(Encoded { ids, weights, role: talk.role })
    }

    /// The same conversation from its end: the answer, read at weight `read`, then the question at weight 1. The
    /// assistant's opening stands between them and is given.
    fn encode_reversed(&self, talk: &Conversation, read: f32) -> Result<Encoded> {
        let mut ids = self.encode(talk, 0.0, 1.0)?.ids;
        let opening = ids.iter().position(|id| *id == self.assistant).unwrap_or(0);
        let last = ids.len() - 1;
        let weight = |at: usize| match at {
            at if at < opening || at == last => 1.0,
            at if at > opening => read,
            _ => 0.0,
        };
        let mut weights: Vec<f32> = (0..ids.len()).map(weight).collect();
        let inner = order::inner(&ids, None, &[self.end]);
        ids[inner.clone()].reverse();
        weights[inner].reverse();
        // Nothing stands before the first token to tell it from.
        weights[0] = 0.0;
        Ok(Encoded { ids, weights, role: talk.role })
    }
}

/// Tokens of one conversation.
#[derive(Debug, Clone, PartialEq)]
struct Encoded {
    ids: Vec<u32>,
    /// Factor on the loss of each token; 0 for what is not learnt.
    weights: Vec<f32>,
    role: Role,
}

/// What one step is made of.
struct Step {
    parts: Vec<Part>,
    /// The first conversation after it.
    next: u64,
}

/// Sequences that are computed at once, with weight and role of each target.
#[derive(Default)]
struct Part {
    weights: Vec<f32>,
    /// `None` for what is shown in a prompt.
    roles: Vec<Option<Role>>,
}

/// The step after `taken` others, which begins with conversation `first`.
fn prepare(
    settings: &Settings,
    stream: &Stream,
    encoder: &Encoder,
    taken: u64,
    first: u64,
) -> Result<(Step, Vec<Batch>)> {
    let (mut next, mut tokens) = (first, 0);
    // A model that goes on has its first steps behind it.
    let late = |from: u64| settings.init.is_some() || taken >= from;
    let shown = if late(settings.shown_from) { settings.shown_weight } else { 0.0 };
    let mut items = vec![];
    while tokens < settings.step_tokens {
        let talk = stream.conversation(next)?;
        let emphasis = match late(settings.emphasis_from) {
            true => settings.mix.worlds[talk.world].emphasis,
            false => 1.0,
        };
        let item = match settings.order.turns(next) {
            true => encoder.encode_reversed(&talk, if late(settings.shown_from) { 0.0 } else { 1.0 })?,
            false => encoder.encode(&talk, shown, emphasis)?,
        };
        next += 1;
        // Nothing the worlds make is as long as the context; were it, the model could not read it.
        if item.ids.len() <= CONTEXT {
            tokens += item.ids.len();
            items.push(item);
        }
    }
    let lengths: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
    let (mut batches, mut described) = (vec![], vec![]);
    for part in parts(&lengths, settings.part_tokens, LANES)? {
        let (mut batch, mut about) = (Batch::new(), Part::default());
        for item in part.into_iter().map(|index| &items[index]) {
            let mask: Vec<bool> = item.weights.iter().map(|weight| *weight > 0.0).collect();
            batch.push_masked(&item.ids, &mask)?;
            let of_reply = item.weights.iter().rposition(|weight| *weight == 0.0).unwrap_or(0);
            for (at, weight) in item.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                about.weights.push(*weight);
                about.roles.push((at > of_reply).then_some(item.role));
            }
        }
        batches.push(batch);
        described.push(about);
    }
    Ok((Step { parts: described, next }, batches))
}

/// Names of the losses by role, in nats per token.
const ROLE_LOSSES: [(Role, &str); 4] = [
    (Role::Answer, "loss_answer"),
    (Role::Criticise, "loss_criticise"),
    (Role::Refine, "loss_refine"),
    (Role::Label, "loss_label"),
];

/// Trains until the last step or the deadline. Returns the mean loss of the last steps and the tokens of the whole run.
fn train(
    settings: &Settings,
    stream: &Stream,
    encoder: &Encoder,
    trainer: &mut Trainer,
    out: Option<&Path>,
    deadline: Option<Instant>,
    on: &mut dyn FnMut(&Progress),
) -> Result<(f64, u64)> {
    let first = trainer.position.item as u64;
    let (steps, begun_at) = (trainer.settings().steps, trainer.step_count());
    let (sender, ready): (SyncSender<_>, Receiver<_>) = sync_channel(3);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut next = first;
            for taken in begun_at..steps {
                let prepared = prepare(settings, stream, encoder, taken, next);
                next = prepared.as_ref().map_or(next, |(step, _)| step.next);
                let failed = prepared.is_err();
                // A receiver that is gone has ended early.
                if sender.send(prepared).is_err() || failed {
                    return;
                }
            }
        });
        // Moved in, so that an early end drops it and the other thread stops.
        let ready = ready;
        let begun = Instant::now();
        let (mut tokens, mut read, mut recent, mut checked) = (0, 0, vec![], false);
        while let Ok(prepared) = ready.recv() {
            let (step, batches) = prepared?;
            if !checked {
                trainer.check_memory(Load::of(&batches))?;
                checked = true;
            }
            let report = take(trainer, &step, &batches)?;
            trainer.position.item = step.next as usize;
            tokens += batches.iter().map(|batch| batch.tokens().len()).sum::<usize>();
            recent.push(report.loss);
            read = report.num_tokens;
            let taken = (report.step - begun_at) as f64;
            let seconds = begun.elapsed().as_secs_f64();
            on(&Progress {
                report: &report,
                steps,
                tokens_per_second: tokens as f64 / seconds,
                left: Duration::from_secs_f64(seconds / taken * (steps - report.step) as f64),
            });
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline)
                || settings.until.is_some_and(|until| report.step >= until);
            if let Some(out) = out
                && (report.step.is_multiple_of(settings.save_every) || report.step == steps || late)
            {
                checkpoint::save(trainer, out, settings.keep)?;
            }
            if late {
                break;
            }
        }
        let last = &recent[recent.len().saturating_sub(50)..];
        Ok((last.iter().sum::<f64>() / last.len().max(1) as f64, read))
    })
}

fn take(trainer: &mut Trainer, step: &Step, batches: &[Batch]) -> Result<StepReport> {
    let count: f64 = step.parts.iter().flat_map(|part| &part.weights).map(|w| f64::from(*w)).sum();
    let role_count = |role: Role| {
        let of = step.parts.iter().flat_map(|part| &part.roles).filter(|other| **other == Some(role));
        of.count().max(1) as f64
    };
    let role_counts = ROLE_LOSSES.map(|(role, _)| role_count(role));
    let loss = |index: usize, outputs: &Outputs| {
        let part = &step.parts[index];
        let logps = outputs.logps.to_vec1::<f32>()?;
        let metrics = ROLE_LOSSES.iter().zip(role_counts).map(|((role, name), count)| {
            let of = logps.iter().zip(&part.roles).filter(|(_, other)| **other == Some(*role));
            (*name, of.map(|(logp, _)| -f64::from(*logp)).sum::<f64>() / count)
        });
        Ok(Loss {
            value: loss::cross_entropy(&outputs.logps, Some(&part.weights), count)?,
            metrics: metrics.collect(),
        })
    };
    Ok(trainer.step(batches, &Want::default(), &loss)?)
}

/// A line for a terminal.
impl std::fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.report;
        let seconds = self.left.as_secs();
        write!(f, "step {}/{}  loss {:.3}", report.step, self.steps, report.loss)?;
        for (role, name) in ROLE_LOSSES {
            if let Some((_, value)) = report.metrics.iter().find(|(known, _)| known == name) {
                write!(f, "  {} {value:.3}", role_name(role))?;
            }
        }
        write!(f, "  {:.0} tokens/s  {}:{:02} left", self.tokens_per_second, seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests;
