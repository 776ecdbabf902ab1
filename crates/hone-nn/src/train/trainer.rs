//! The training step: gradient, checks, clipping, optimiser, average, report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::network::{LossFn, LossValue, Network, Want};
use crate::train::adamw::{AdamW, AdamWSettings, clip_scale, gradient_norm};
use crate::train::batches::Position;
use crate::train::ema::Ema;
use crate::train::log::RunLog;
use crate::train::memory::{self, Estimate, Load};
use crate::train::schedule::Schedule;
use crate::train::seed;

/// Steps in a row at which a loss term must be exactly zero before it is reported: a divergence from a reference that
/// the policy starts from is rightly zero at the first step.
const ZERO_STEPS: u32 = 2;

/// Settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerSettings {
    /// Peak learning rate, at least 0.
    pub learning_rate: f64,
    /// Steps of the whole run, which the schedule spans. At least 1.
    pub steps: u64,
    /// How the rate changes.
    pub schedule: Schedule,
    /// The optimiser.
    pub adamw: AdamWSettings,
    /// Norm that gradients are clipped to, above 0; `None` leaves them as they are.
    pub max_grad_norm: Option<f64>,
    /// Decay of the running average of weights, in `[0, 1)`; `None` keeps none.
    pub ema_decay: Option<f64>,
    /// Governs everything that is drawn; see [`Trainer::seed`].
    pub seed: u64,
    /// Metrics of the loss that are terms of it: reported if they stay exactly zero.
    pub loss_terms: Vec<String>,
}

impl Default for TrainerSettings {
    fn default() -> TrainerSettings {
        TrainerSettings {
            learning_rate: 1e-4,
            steps: 1000,
            schedule: Schedule::default(),
            adamw: AdamWSettings::default(),
            max_grad_norm: Some(1.0),
            ema_decay: None,
            seed: 0,
            loss_terms: vec![],
        }
    }
}

impl TrainerSettings {
    /// Checks the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first field outside its range.
    pub fn check(&self) -> Result<()> {
        if !(self.learning_rate >= 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::argument("learning_rate", "a number of at least 0", self.learning_rate));
        }
        if self.steps == 0 {
            return Err(Error::argument("steps", "at least 1", 0));
        }
        if let Some(norm) = self.max_grad_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return Err(Error::argument("max_grad_norm", "a number above 0", norm));
        }
        self.schedule.check(self.steps)?;
        self.adamw.check()
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Sum of the losses of all parts.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Rate of this step.
    pub learning_rate: f64,
    /// Tokens read since the run began.
    pub num_tokens: u64,
    /// The loss's own metrics, summed over parts.
    pub metrics: Vec<(String, f64)>,
    /// What looks wrong without being an error. Each is said once in a run.
    pub warnings: Vec<String>,
}

/// A model in training, and all that the next step depends on.
#[derive(Debug)]
pub struct Trainer {
    /// The model. Its weights are those of the last step, not the average.
    pub model: Model,
    /// How far the run is in its data; moved on by [`crate::train::batches::Order`], kept in checkpoints.
    pub position: Position,
    /// Generator for everything a method draws during the run; its place is kept in checkpoints.
    pub rng: ChaCha8Rng,
    /// What a method needs to go on besides the weights, such as an adaptive coefficient; kept in checkpoints.
    pub extra: BTreeMap<String, serde_json::Value>,
    /// Folder of the base model, whose tokenizer and templates are copied into checkpoints.
    pub companions: Option<PathBuf>,
    pub(super) settings: TrainerSettings,
    pub(super) optimiser: AdamW,
    pub(super) ema: Option<Ema>,
    pub(super) step: u64,
    pub(super) num_tokens: u64,
    /// Steps in a row at which each loss term was zero; `None` once that has been said.
    pub(super) zeros: BTreeMap<String, Option<u32>>,
    run: Option<(PathBuf, RunLog)>,
}

impl Trainer {
    /// A run at its first step, over what `model` trains now.
    ///
    /// # Errors
    /// As [`TrainerSettings::check`]; [`Error::Argument`] if the model trains nothing.
    pub fn new(model: Model, settings: TrainerSettings) -> Result<Trainer> {
        settings.check()?;
        if model.segments().is_empty() {
            return Err(Error::argument("model", "at least one trained tensor", "none"));
        }
        let ema = settings.ema_decay.map(|decay| Ema::new(decay, &model)).transpose()?;
        let zeros = settings.loss_terms.iter().map(|term| (term.clone(), Some(0))).collect();
        Ok(Trainer {
            optimiser: AdamW::new(settings.adamw.clone(), &model)?,
            rng: seed::rng(settings.seed, "run"),
            model,
            position: Position::default(),
            extra: BTreeMap::new(),
            companions: None,
            settings,
            ema,
            step: 0,
            num_tokens: 0,
            zeros,
            run: None,
        })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &TrainerSettings {
        &self.settings
    }

    /// Steps taken.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Whether all steps of the settings have been taken.
    pub fn finished(&self) -> bool {
        self.step >= self.settings.steps
    }

    /// Rate that the next step will take.
    pub fn learning_rate(&self) -> f64 {
        self.settings.learning_rate * self.settings.schedule.factor(self.step, self.settings.steps)
    }

    /// A seed for one purpose, such as `"adapter"`, derived from that of the run.
    pub fn seed(&self, purpose: &str) -> u64 {
        seed::sub_seed(self.settings.seed, purpose)
    }

    /// Peak memory of this run on steps of at most `load`, refused if there is less. Where the system does not tell
    /// what it has, nothing is refused.
    ///
    /// # Errors
    /// As [`memory::check`].
    pub fn check_memory(&self, load: Load) -> Result<Estimate> {
        let estimate = memory::estimate(&self.model, &self.settings, load);
        if let Some(room) = memory::room() {
            memory::check(&estimate, &room)?;
        }
        Ok(estimate)
    }

    /// Logs every step from here on to `metrics.jsonl` and TensorBoard events in `folder`. A run that was resumed goes
    /// on with the logs there.
    ///
    /// # Errors
    /// As [`RunLog::create`] and [`RunLog::resume`].
    pub fn log_to(&mut self, folder: &Path) -> Result<()> {
        let log = match self.step {
            0 => RunLog::create(folder)?,
            step => RunLog::resume(folder, step)?,
        };
        self.run = Some((folder.to_path_buf(), log));
        Ok(())
    }

    /// One optimiser step on the sum of the losses of all `parts`. How a step is cut into parts changes nothing but
    /// rounding, as long as the loss divides by counts of the whole step.
    ///
    /// Before any weight changes, the loss and the gradient are checked. If one is not finite the run stops here, and
    /// the batch is written to the run's folder.
    ///
    /// # Errors
    /// [`Error::Argument`] for a step that has no target; [`Error::NotFinite`]; whatever the model or `loss` returns.
    pub fn step(&mut self, parts: &[Batch], want: &Want, loss: &LossFn) -> Result<StepReport> {
        self.step_with(parts, want, |model| model.accumulate(parts, want, loss))
    }

    pub(super) fn step_with(
        &mut self,
        parts: &[Batch],
        want: &Want,
        accumulate: impl FnOnce(&mut Model) -> Result<Vec<LossValue>>,
    ) -> Result<StepReport> {
        let targets: usize = parts.iter().map(|part| part.targets().len()).sum();
        // A value or reward head learns from its scores, and some methods from hidden states.
        if targets == 0 && !want.scores && want.hidden.is_empty() {
            let needed = format!("at least one target at step {}", self.step + 1);
            let sequences: usize = parts.iter().map(Batch::len).sum();
            return Err(Error::argument("batch", needed, format!("none in {sequences} sequences")));
        }
        self.model.clear_gradient();
        let losses = accumulate(&mut self.model)?;
        let grad_norm = match self.check(&losses) {
            Ok(norm) => norm,
            Err((what, value)) => {
                let what = match self.write_failed(parts, &losses) {
                    Some(Ok(path)) => format!("{what} (batch written to {})", path.display()),
                    Some(Err(error)) => format!("{what} (the batch could not be written: {error})"),
                    None => what,
                };
                return Err(Error::NotFinite { what, value, step: self.step + 1 });
            }
        };
        let learning_rate = self.learning_rate();
        let scale = self.settings.max_grad_norm.map_or(1.0, |max_norm| clip_scale(grad_norm, max_norm));
        self.optimiser.update(&mut self.model, learning_rate, scale)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&mut self.model);
        }
        self.step += 1;
        self.num_tokens += parts.iter().map(|part| part.tokens().len() as u64).sum::<u64>();
        let warnings = self.warnings(&losses);
        let report = StepReport {
            step: self.step,
            loss: losses.iter().map(|part| part.value).sum(),
            grad_norm,
            learning_rate,
            num_tokens: self.num_tokens,
            metrics: sum_metrics(&losses),
            warnings,
        };
        if let Some((_, log)) = &mut self.run {
            log.write(report.step, &report.numbers(), &report.warnings)?;
        }
        Ok(report)
    }

    /// The norm of the gradient, or what is not finite and its value.
    fn check(&self, losses: &[LossValue]) -> Result<f64, (String, f64)> {
        if let Some((index, part)) = losses.iter().enumerate().find(|(_, part)| !part.value.is_finite()) {
            return Err((format!("loss of part {index}"), part.value));
        }
        let norm = gradient_norm(&self.model);
        if norm.is_finite() {
            return Ok(norm);
        }
        for segment in self.model.segments() {
            let gradient = self.model.gradient_of(segment);
            if let Some(value) = gradient.iter().find(|value| !value.is_finite()) {
                return Err((format!("gradient of `{}`", segment.name), f64::from(*value)));
            }
        }
        Err(("gradient norm".into(), norm))
    }

    /// Writes the batch that broke the run into its folder, if it has one.
    fn write_failed(&self, parts: &[Batch], losses: &[LossValue]) -> Option<Result<PathBuf>> {
        let (folder, _) = self.run.as_ref()?;
        let path = folder.join(format!("failed-step-{}.json", self.step + 1));
        let parts: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let sequences: Vec<_> = (0..part.len())
                    .map(|sequence| {
                        let start = part.rows(sequence).start;
                        let targets = &part.targets()[part.target_range(sequence)];
                        let scored: Vec<_> = targets.iter().map(|t| t.row as usize - start + 1).collect();
                        json!({ "tokens": &part.tokens()[part.rows(sequence)], "scored": scored })
                    })
                    .collect();
                // JSON has no NaN, so values are text.
                let loss = losses.get(index).map(|loss| loss.value.to_string());
                json!({ "loss": loss, "sequences": sequences })
            })
            .collect();
        let text = json!({ "global_step": self.step + 1, "parts": parts }).to_string();
        Some(std::fs::write(&path, text).map_err(Error::io(&path)).map(|()| path))
    }

    /// Loss terms that have been exactly zero for [`ZERO_STEPS`] steps, each once.
    fn warnings(&mut self, losses: &[LossValue]) -> Vec<String> {
        let mut warnings = vec![];
        for (term, zeros) in &mut self.zeros {
            let Some(count) = zeros else { continue };
            let values = losses.iter().flat_map(|part| &part.metrics).filter(|(name, _)| name == term);
            *count = if values.clone().all(|(_, value)| *value == 0.0) { *count + 1 } else { 0 };
            if *count >= ZERO_STEPS {
                let missing = if values.count() == 0 { " or missing" } else { "" };
                warnings.push(format!(
                    "loss term `{term}` was exactly zero{missing} in every part of the last {count} steps: is it configured as meant?",
                ));
                *zeros = None;
            }
        }
        warnings
    }

    /// Calls `use_average` on the model with the averaged weights in place, then puts the last ones back.
    ///
    /// # Errors
    /// [`Error::Argument`] if the run keeps no average.
    pub fn with_average<T>(&mut self, use_average: impl FnOnce(&mut Model) -> T) -> Result<T> {
        let Some(ema) = &mut self.ema else {
            return Err(Error::argument("ema_decay", "a decay, since the average is asked for", "none"));
        };
        ema.swap(&mut self.model);
        let result = use_average(&mut self.model);
        ema.swap(&mut self.model);
        Ok(result)
    }
}

impl StepReport {
    /// Names, as in `metrics.jsonl`, and values.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        let own = [
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("num_tokens", self.num_tokens as f64),
        ];
        own.into_iter().map(|(name, value)| (name.to_string(), value)).chain(self.metrics.clone()).collect()
    }
}

/// Metrics by name in the order of their first appearance, each summed over the parts in order.
fn sum_metrics(losses: &[LossValue]) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = vec![];
    for (name, value) in losses.iter().flat_map(|part| &part.metrics) {
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name.to_string(), *value)),
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    fn trainer(settings: TrainerSettings) -> Trainer {
        Trainer::new(Model::random(ModelConfig::llama(32, 16, 1, 2, 1, 24), 1), settings).unwrap()
    }

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], 1..3);
        batch
    }

    /// A step whose gradient is `gradient` everywhere.
    fn step(trainer: &mut Trainer, gradient: f32, losses: &[LossValue]) -> Result<StepReport> {
        trainer.step_with(&[batch()], &Want::default(), |model| {
            model.gradient = vec![gradient; model.gradient_len()];
            Ok(losses.to_vec())
        })
    }

    fn value(value: f64, metrics: &[(&'static str, f64)]) -> LossValue {
        LossValue { value, metrics: metrics.to_vec() }
    }

    #[test]
    fn reports_sums_over_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = trainer(TrainerSettings { learning_rate: 0.5, ..Default::default() });
        trainer.log_to(folder.path()).unwrap();
        let losses = [value(1.0, &[("a", 0.5), ("b", 2.0)]), value(0.25, &[("a", 0.25)])];
        let report = step(&mut trainer, 0.0, &losses).unwrap();
        assert_eq!((report.step, report.loss, report.grad_norm), (1, 1.25, 0.0));
        assert_eq!((report.learning_rate, report.num_tokens), (0.5, 3));
        assert_eq!(report.metrics, [("a".to_string(), 0.75), ("b".to_string(), 2.0)]);
        let line = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let expected = r#"{"global_step":1,"loss":1.25,"grad_norm":0.0,"learning_rate":0.5,"num_tokens":3,"a":0.75,"b":2.0}"#;
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn what_is_not_finite_stops_before_the_weights_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = trainer(TrainerSettings { ema_decay: Some(0.9), ..Default::default() });
        trainer.log_to(folder.path()).unwrap();
        step(&mut trainer, 0.1, &[value(1.0, &[])]).unwrap();
        let before = (trainer.model.params.data.clone(), trainer.optimiser.clone(), trainer.ema.clone());
        let error = step(&mut trainer, 0.1, &[value(1.0, &[]), value(f64::NAN, &[])]).unwrap_err();
        let path = folder.path().join("failed-step-2.json");
        let expected = format!("loss of part 1 (batch written to {}) is NaN at step 2", path.display());
        assert_eq!(error.to_string(), expected);
        let written = std::fs::read_to_string(&path).unwrap();
        let expected =
            r#"{"global_step":2,"parts":[{"loss":"1","sequences":[{"tokens":[1,2,3],"scored":[1,2]}]}]}"#;
        assert_eq!(written, expected);
        let error = step(&mut trainer, f32::INFINITY, &[value(1.0, &[])]).unwrap_err();
        assert!(error.to_string().starts_with("gradient of `model.embed_tokens.weight` (batch"), "{error}");
        assert!(error.to_string().ends_with("is inf at step 2"), "{error}");
        assert!((trainer.model.params.data, trainer.optimiser, trainer.ema) == before);
        assert_eq!(trainer.step, 1);
    }

    #[test]
    fn a_zero_term_is_reported_once() {
        let terms = vec!["kl".to_string(), "sft".to_string()];
        let mut trainer = trainer(TrainerSettings { loss_terms: terms, ..Default::default() });
        let at_start = [value(1.0, &[("kl", 0.0), ("sft", 1.0)]), value(1.0, &[("kl", 0.0), ("sft", 0.0)])];
        assert_eq!(step(&mut trainer, 0.1, &at_start).unwrap().warnings, [""; 0]);
        let warnings = step(&mut trainer, 0.1, &at_start).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("loss term `kl` was exactly zero in every part"), "{warnings:?}");
        assert_eq!(step(&mut trainer, 0.1, &at_start).unwrap().warnings, [""; 0]);
        let missing = [value(1.0, &[])];
        step(&mut trainer, 0.1, &missing).unwrap();
        let warnings = step(&mut trainer, 0.1, &missing).unwrap().warnings;
        assert!(warnings[0].contains("`sft` was exactly zero or missing"), "{warnings:?}");
    }

    #[test]
    fn steps_without_targets_are_refused() {
        let mut trainer = trainer(TrainerSettings::default());
        let mut batch = Batch::new();
        batch.push(&[1, 2], 0..0);
        let refused = |want: &Want, trainer: &mut Trainer| {
            trainer.step_with(std::slice::from_ref(&batch), want, |model| {
                model.gradient = vec![0.0; model.gradient_len()];
                Ok(vec![])
            })
        };
        let error = refused(&Want::default(), &mut trainer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`batch`: needs at least one target at step 1, got none in 1 sequences"
        );
        refused(&Want { scores: true, ..Default::default() }, &mut trainer).unwrap();
    }

    #[test]
    fn a_run_that_cannot_fit_is_refused_before_it_starts() {
        let trainer = trainer(TrainerSettings::default());
        let load = Load::of(&[batch()]);
        let estimate = trainer.check_memory(load).unwrap();
        // The weights and their state are 4 · 4 bytes each; the rest is a few tokens.
        assert!(estimate.total() < 16 * trainer.model.params.data.len() as u64 + (32 << 20));
        let huge = Load { part_tokens: 1 << 34, ..load };
        let message = trainer.check_memory(huge).unwrap_err().to_string();
        assert!(message.contains("take fewer tokens per part, got"), "{message}");
    }

    #[test]
    fn averages_come_and_go() {
        let mut trainer =
            trainer(TrainerSettings { ema_decay: Some(0.5), learning_rate: 0.1, ..Default::default() });
        let start = trainer.model.params.data[0];
        step(&mut trainer, 0.1, &[value(1.0, &[])]).unwrap();
        let last = trainer.model.params.data[0];
        let average = trainer.with_average(|model| model.params.data[0]).unwrap();
        assert!((average - (start + last) / 2.0).abs() < 1e-7 && start != last);
        assert_eq!(trainer.model.params.data[0], last);
    }
}
