//! The loop that training methods share. A method gives a loss of one part of a step and calls this; the order of its
//! own steps stays in its file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use candle_core::Tensor;
use hone_lm::Tokenizer;
use hone_nn::train::batches::{Order, Position, parts};
use hone_nn::train::memory::Load;
use hone_nn::train::schedule::{Schedule, Shape, WarmUp};
use hone_nn::train::seed::sub_seed;
use hone_nn::train::{AdamWSettings, StepReport, Trainer, TrainerSettings, checkpoint};
use hone_nn::{Batch, Loss, Model, Network, Outputs, Want, loss};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::policy::Sequence;

/// Tokens per part of a step; bounds memory, changes no number but rounding.
pub(crate) const PART_TOKENS: usize = 768;

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays.
    Constant,
    /// In a straight line to 0.
    Linear,
    /// Along half a cosine to 0.
    Cosine,
}

/// How a method descends on its loss: the settings that every training method has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Peak learning rate of AdamW, at least 0.
    pub learning_rate: f64,
    /// Examples per step; a pair or a list is one example. At least 1.
    pub batch_size: usize,
    /// Passes over the examples, above 0.
    pub epochs: f64,
    /// Steps at most; 0 for no limit.
    pub max_steps: u64,
    /// Share of the steps over which the rate rises, in `[0, 1]`.
    pub warm_up: f64,
    /// What the rate does then.
    pub decay: Decay,
    /// Decay β₂ of AdamW's second moment, in `[0, 1)`.
    pub beta2: f64,
    /// Weight decay of AdamW, at least 0.
    pub weight_decay: f64,
    /// Norm that gradients are clipped to; 0 leaves them.
    pub max_grad_norm: f64,
    /// Longest sequence, in tokens; the model's context if that is shorter.
    pub max_tokens: usize,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            learning_rate: 1e-5,
            batch_size: 32,
            epochs: 1.0,
            max_steps: 0,
            warm_up: 0.1,
            decay: Decay::Linear,
            beta2: 0.999,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_tokens: 1024,
        }
    }
}

impl Training {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Range`] naming the first.
    pub fn check(&self, method: &str) -> Result<()> {
        let range = |ok: bool, key: &str, needed: &str, got: String| match ok {
            true => Ok(()),
            false => Err(Error::range(method, &format!("training.{key}"), needed, got)),
        };
        let rate = self.learning_rate;
        range(rate >= 0.0 && rate.is_finite(), "learning_rate", "a number of at least 0", rate.to_string())?;
        range(self.batch_size > 0, "batch_size", "at least 1", self.batch_size.to_string())?;
        let epochs = self.epochs;
        range(epochs > 0.0 && epochs.is_finite(), "epochs", "a number above 0", epochs.to_string())?;
        range((0.0..=1.0).contains(&self.warm_up), "warm_up", "a share in [0, 1]", self.warm_up.to_string())?;
        let norm = self.max_grad_norm;
        range(norm >= 0.0 && norm.is_finite(), "max_grad_norm", "a number of at least 0", norm.to_string())?;
        range((0.0..1.0).contains(&self.beta2), "beta2", "a number in [0, 1)", self.beta2.to_string())?;
        let decay = self.weight_decay;
        range(
            decay >= 0.0 && decay.is_finite(),
            "weight_decay",
            "a number of at least 0",
            decay.to_string(),
        )?;
        range(self.max_tokens >= 2, "max_tokens", "at least 2", self.max_tokens.to_string())
    }

    /// Longest sequence that both the settings and the model allow, in tokens.
    pub fn tokens_for(&self, model: &Model) -> usize {
        self.max_tokens.min(model.config().max_positions)
    }

    /// Steps of a run over `examples` examples, at least 1.
    pub fn steps(&self, examples: usize) -> u64 {
        let per_epoch = examples.div_ceil(self.batch_size.max(1)).max(1) as f64;
        let steps = ((self.epochs * per_epoch).ceil() as u64).max(1);
        if self.max_steps == 0 { steps } else { steps.min(self.max_steps) }
    }

    pub(crate) fn trainer(&self, steps: u64, seed: u64) -> TrainerSettings {
        let shape = match self.decay {
            Decay::Constant => Shape::Constant,
            Decay::Linear => Shape::Linear,
            Decay::Cosine => Shape::Cosine { floor: 0.0 },
        };
        let (beta2, weight_decay) = (self.beta2, self.weight_decay);
        TrainerSettings {
            learning_rate: self.learning_rate,
            steps,
            // Rounded down: the first step of a warm-up has rate 0, and a run of a few steps has none to lose.
            schedule: Schedule { warm_up: WarmUp::Steps((self.warm_up * steps as f64) as u64), shape },
            adamw: AdamWSettings { beta2, weight_decay, ..AdamWSettings::default() },
            max_grad_norm: (self.max_grad_norm > 0.0).then_some(self.max_grad_norm),
            seed,
            ..TrainerSettings::default()
        }
    }
}

/// Where a run writes, when it must end, and who listens.
#[derive(Clone, Default)]
pub struct Session {
    /// Folder for metrics and checkpoints; nothing is written without.
    pub folder: Option<PathBuf>,
    /// Goes on from the newest checkpoint in the folder, if there is one.
    pub resume: bool,
    /// No step is begun after this moment.
    pub deadline: Option<Instant>,
    /// Hears every step, with the number of all.
    pub listener: Option<Arc<Listener>>,
    /// Takes the first batch; the run then ends with [`Error::Previewed`] before any weight changes.
    pub preview: Option<Preview>,
    /// What a batch that broke the run is written out with, beside its tokens.
    pub inspect: Option<Arc<Inspect>>,
}

/// Names and text for the batch that broke a run.
#[derive(Debug, Clone)]
pub struct Inspect {
    /// Reads tokens as text.
    pub tokenizer: Tokenizer,
    /// Ids of the records that the run was given, in their order.
    pub records: Vec<String>,
}

/// Where a run leaves the first batch that it would train on.
#[derive(Debug, Clone, Default)]
pub struct Preview(Arc<Mutex<Vec<Example>>>);

impl Preview {
    /// The examples of the first batch; empty if the run did not come to one.
    pub fn examples(&self) -> Vec<Example> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, examples: Vec<Example>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = examples;
    }
}

/// Hears a step, and how many there will be.
pub type Listener = dyn Fn(&StepReport, u64) + Send + Sync;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("folder", &self.folder)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Brings a fresh trainer to where the session left off, and logs from there on.
    ///
    /// # Errors
    /// [`Error::Io`]; those of resuming; [`Error::Previewed`] where only the first batch is asked for.
    pub(crate) fn open(&self, trainer: &mut Trainer) -> Result<()> {
        if self.preview.is_some() {
            return Err(Error::Previewed);
        }
        let Some(folder) = &self.folder else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        if self.resume {
            match checkpoint::list(folder)?.is_empty() {
                false => {
                    checkpoint::resume(trainer, folder)?;
                }
                // Stopped before its first checkpoint: what it logged will be logged again.
                true => remove_logs(folder)?,
            }
        }
        Ok(trainer.log_to(folder)?)
    }

    /// What a step that was not finite leaves in the folder: its batch, a line a sequence (record, tokens, which of them
    /// were scored, text), and the weights before it as a checkpoint. Any other error passes through.
    pub(crate) fn keep<'a>(
        &self,
        trainer: &Trainer,
        error: Error,
        batch: impl Iterator<Item = (usize, &'a Sequence)>,
    ) -> Error {
        let (Some(folder), Error::Engine(hone_nn::Error::NotFinite { what, value, step })) =
            (&self.folder, &error)
        else {
            return error;
        };
        let path = folder.join(format!("failed-step-{step}.jsonl"));
        let lines = batch.map(|(record, sequence)| {
            let inspect = self.inspect.as_ref();
            let id = inspect.and_then(|inspect| inspect.records.get(record));
            let text = inspect.and_then(|inspect| inspect.tokenizer.decode(&sequence.tokens, false).ok());
            let scored: Vec<usize> = (0..sequence.mask.len()).filter(|&at| sequence.mask[at]).collect();
            let tokens = &sequence.tokens;
            json!({ "record": id, "index": record, "tokens": tokens, "scored": scored, "text": text })
                .to_string()
                + "\n"
        });
        let written = std::fs::write(&path, lines.collect::<String>()).map_err(Error::io(&path));
        // The weights have not moved: they are those of the last good step.
        let saved = match trainer.step_count() {
            0 => Ok(()),
            _ => checkpoint::save(trainer, folder, 1).map(drop).map_err(Error::from),
        };
        let left = match (written, saved) {
            (Ok(()), Ok(())) => format!("its texts to {}", path.display()),
            (Err(error), _) | (_, Err(error)) => format!("what it leaves could not be written: {error}"),
        };
        Error::Engine(hone_nn::Error::NotFinite {
            what: format!("{what}, {left}"),
            value: *value,
            step: *step,
        })
    }

    /// The session of one stage of a longer run, in a folder of its own.
    #[must_use]
    pub fn stage(&self, name: &str) -> Session {
        Session { folder: self.folder.as_ref().map(|folder| folder.join(name)), ..self.clone() }
    }
}

/// Removes the metrics and TensorBoard events of a run that begins anew.
fn remove_logs(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "metrics.jsonl" || name.starts_with("events.out.tfevents.") {
            std::fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}

/// One part of a step, as a loss sees it.
#[derive(Debug)]
pub struct Part<'a> {
    /// Indices of its examples in the data.
    pub indices: &'a [usize],
    /// The examples themselves.
    pub examples: Vec<&'a Example>,
    /// Their sequences, one after the other.
    pub batch: &'a Batch,
    /// What the model says of them.
    pub outputs: &'a Outputs,
    /// Examples in the whole step: divide by this for a mean over the step.
    pub step_examples: usize,
    /// Targets in the whole step.
    pub step_targets: usize,
    /// Marks in the whole step, for losses on labelled tokens.
    pub step_marks: usize,
}

impl Part<'_> {
    /// `[B]`: log-probability of every response, in nats.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn seq_logps(&self) -> hone_nn::Result<Tensor> {
        loss::seq_logps(&self.outputs.logps, self.batch)
    }

    /// `[B]`: mean log-probability per token of every response, in nats.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn mean_logps(&self) -> hone_nn::Result<Tensor> {
        let counts: Vec<f32> =
            (0..self.batch.len()).map(|i| self.batch.target_range(i).len().max(1) as f32).collect();
        Ok((self.seq_logps()? / Tensor::new(counts, self.outputs.logps.device())?)?)
    }

    /// A tensor of plain numbers beside the outputs.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn tensor(&self, values: Vec<f32>) -> hone_nn::Result<Tensor> {
        Ok(Tensor::new(values, self.outputs.logps.device())?)
    }

    /// `[B]` values of the sequences in this part, from one number per sequence of all the data.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn known(&self, of_all: &[Vec<f32>]) -> hone_nn::Result<Tensor> {
        self.tensor(self.indices.iter().flat_map(|&index| of_all[index].iter().copied()).collect())
    }
}

/// Splits `[2 P]` values, chosen and rejected in turn, into `[P]` each.
///
/// # Errors
/// Those of the tensor library.
pub fn chosen_rejected(values: &Tensor) -> hone_nn::Result<(Tensor, Tensor)> {
    let pairs = values.reshape(((), 2))?;
    Ok((pairs.narrow(1, 0, 1)?.squeeze(1)?, pairs.narrow(1, 1, 1)?.squeeze(1)?))
}

/// The sequences of some examples, in order. A model without a language head has no targets.
///
/// # Errors
/// Those of the engine.
pub fn batch_of<'a>(
    model: &Model,
    examples: impl IntoIterator<Item = &'a Example>,
) -> hone_nn::Result<Batch> {
    let speaks = model.config().head.has_language();
    let mut batch = Batch::new();
    for sequence in examples.into_iter().flat_map(|example| &example.sequences) {
        match speaks {
            true => batch.push_masked(&sequence.tokens, &sequence.mask)?,
            false => batch.push(&sequence.tokens, 0..0),
        }
    }
    Ok(batch)
}

/// `[examples][sequences]`: log-probability of every response, in nats.
///
/// # Errors
/// [`Error::Engine`] for sequences that the model cannot read.
pub fn seq_logps(model: &Model, examples: &[Example], want: &Want) -> Result<Vec<Vec<f32>>> {
    evaluate(model, examples, want, |batch, outputs| Ok(loss::seq_logps(&outputs.logps, batch)?.to_vec1()?))
}

/// `[examples][sequences]`: one number per sequence, without gradient.
///
/// # Errors
/// [`Error::Engine`] for sequences that the model cannot read, and what `read` returns.
pub fn evaluate(
    model: &Model,
    examples: &[Example],
    want: &Want,
    read: impl Fn(&Batch, &Outputs) -> hone_nn::Result<Vec<f32>>,
) -> Result<Vec<Vec<f32>>> {
    let mut rows = Vec::with_capacity(examples.len());
    for chunk in examples.chunks(64) {
        let batch = batch_of(model, chunk)?;
        let mut values = read(&batch, &model.evaluate(&batch, want)?)?.into_iter();
        rows.extend(chunk.iter().map(|example| values.by_ref().take(example.sequences.len()).collect()));
    }
    Ok(rows)
}

/// Takes the steps of `training` in seeded random order on the loss that `part_loss` gives for each part of a step,
/// summed over parts. Ends early at the session's deadline.
///
/// # Errors
/// [`Error::Engine`] for no example, or settings, sequences or memory that do not allow the run, or a loss that is not
/// finite.
pub fn descend(
    model: Model,
    examples: &Examples,
    training: &Training,
    seed: u64,
    session: &Session,
    want: &Want,
    part_loss: impl Fn(&Part<'_>) -> hone_nn::Result<Loss> + Sync,
) -> Result<Model> {
    let nothing = |_: &Model, _: &[usize]| Ok(());
    descend_with(model, examples, training, seed, session, want, nothing, |part, ()| part_loss(part))
}

/// [`descend`] for losses that need a look at the whole step first: `prepare` is given the model before the step and the
/// indices of the step's examples, and what it finds goes to every part.
///
/// # Errors
/// As [`descend`], and what `prepare` returns.
pub fn descend_with<C: Sync>(
    model: Model,
    examples: &Examples,
    training: &Training,
    seed: u64,
    session: &Session,
    want: &Want,
    prepare: impl FnMut(&Model, &[usize]) -> Result<C>,
    part_loss: impl Fn(&Part<'_>, &C) -> hone_nn::Result<Loss> + Sync,
) -> Result<Model> {
    if let Some(preview) = &session.preview {
        let mut order = Order::new(examples.len(), sub_seed(seed, "order"))?;
        let first = order.take(&mut Position::default(), training.batch_size);
        preview.put(first.into_iter().map(|index| examples.items[index].clone()).collect());
        return Err(Error::Previewed);
    }
    let steps = training.steps(examples.len());
    let mut order = None;
    let take = |trainer: &mut Trainer| {
        let order = match &mut order {
            Some(order) => order,
            None => order.insert(Order::new(examples.len(), trainer.seed("order"))?),
        };
        Ok(order.take(&mut trainer.position, training.batch_size))
    };
    descend_by(model, examples, training, steps, seed, session, want, take, prepare, part_loss)
}

/// [`descend_with`] for `steps` steps on the examples that `take` names for each.
///
/// # Errors
/// As [`descend_with`], and what `take` returns.
pub(crate) fn descend_by<C: Sync>(
    model: Model,
    examples: &Examples,
    training: &Training,
    steps: u64,
    seed: u64,
    session: &Session,
    want: &Want,
    mut take: impl FnMut(&mut Trainer) -> Result<Vec<usize>>,
    mut prepare: impl FnMut(&Model, &[usize]) -> Result<C>,
    part_loss: impl Fn(&Part<'_>, &C) -> hone_nn::Result<Loss> + Sync,
) -> Result<Model> {
    let mut trainer = Trainer::new(model, training.trainer(steps, seed))?;
    let sizes = examples.sizes();
    session.open(&mut trainer)?;
    let mut checked = false;
    let mut saved = Instant::now();
    while !trainer.finished() && session.deadline.is_none_or(|end| Instant::now() < end) {
        let taken = take(&mut trainer)?;
        let of_step: Vec<usize> = taken.iter().map(|&index| sizes[index]).collect();
        let groups: Vec<Vec<usize>> = parts(&of_step, PART_TOKENS, trainer.model.threads.max(1))?
            .into_iter()
            .map(|part| part.into_iter().map(|at| taken[at]).collect())
            .collect();
        let batches: Vec<Batch> = groups
            .iter()
            .map(|group| batch_of(&trainer.model, group.iter().map(|&index| &examples.items[index])))
            .collect::<hone_nn::Result<_>>()?;
        if !checked {
            trainer.check_memory(Load::of(&batches))?;
            checked = true;
        }
        let context = prepare(&trainer.model, &taken)?;
        let step_targets = batches.iter().map(|batch| batch.targets().len()).sum();
        let step_marks = taken.iter().map(|&index| examples.items[index].marks.len()).sum();
        let report = trainer.step(&batches, want, &|index, outputs| {
            let indices = &groups[index];
            let part = Part {
                indices,
                examples: indices.iter().map(|&index| &examples.items[index]).collect(),
                batch: &batches[index],
                outputs,
                step_examples: taken.len(),
                step_targets,
                step_marks,
            };
            part_loss(&part, &context)
        });
        let report = report.map_err(|error| {
            let batch = taken.iter().map(|&index| &examples.items[index]);
            let batch = batch.flat_map(|example| example.sequences.iter().map(|s| (example.record, s)));
            session.keep(&trainer, error.into(), batch)
        })?;
        if let Some(listener) = &session.listener {
            listener(&report, steps);
        }
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

/// Seconds between checkpoints: what an interrupted run loses at most.
pub(crate) const CHECKPOINT_SECONDS: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;
    use hone_feedback::convert::Shape as Form;

    #[test]
    fn what_is_not_finite_leaves_its_batch_and_the_last_weights() {
        let bench = Bench::new(1).unwrap();
        let (policy, records) = (bench.policy().unwrap(), bench.pairs(8, "train"));
        let examples = Examples::from_records(&policy, &records, Form::Pairs, 64).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inspect = Inspect {
            tokenizer: policy.tokenizer.clone(),
            records: records.iter().map(|record| record.id.clone()).collect(),
        };
        let session = Session {
            folder: Some(folder.path().to_path_buf()),
            inspect: Some(Arc::new(inspect)),
            ..Session::default()
        };
        let training = Training { batch_size: 2, learning_rate: 1e-3, warm_up: 0.0, ..Training::default() };
        let before = policy.model.params.data.clone();
        let step = std::sync::atomic::AtomicUsize::new(0);
        let count = |_: &Model, _: &[usize]| Ok(step.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        // The third step's loss is no number.
        let want = Want::default();
        let error =
            descend_with(policy.model, &examples, &training, 1, &session, &want, count, |part, at| {
                let scale = if *at == 2 { f64::NAN } else { -1.0 };
                Ok(Loss::from((part.seq_logps()?.sum_all()? * scale)?))
            })
            .unwrap_err()
            .to_string();
        let path = folder.path().join("failed-step-3.jsonl");
        assert!(error.contains("NaN at step 3") && error.contains(&path.display().to_string()), "{error}");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // Two pairs of two responses.
        assert_eq!(lines.len(), 4);
        for line in &lines {
            assert_eq!(line["record"], records[line["index"].as_u64().unwrap() as usize].id.as_str());
            assert!(line["text"].as_str().unwrap().contains("say"), "{line}");
            assert!(!line["scored"].as_array().unwrap().is_empty());
        }
        // Two good steps were taken, and the checkpoint is theirs.
        let kept = checkpoint::list(folder.path()).unwrap();
        assert_eq!(kept.len(), 1);
        let mut again = Trainer::new(bench.policy().unwrap().model, training.trainer(4, 1)).unwrap();
        checkpoint::resume(&mut again, folder.path()).unwrap();
        assert_eq!(again.step_count(), 2);
        assert!(again.model.params.data != before && again.model.params.data.iter().all(|w| w.is_finite()));
    }
}
