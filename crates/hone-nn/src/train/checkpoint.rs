//! A run written down so that it goes on to the same numbers.
//!
//! A checkpoint is a folder `checkpoint-<step>` in the run's folder: the model (or the adapter, in `adapter/`) in the
//! layout in which it is also used, both moments of the optimiser, the average of weights, and counters. It gets its
//! name once it is whole, so whenever a process dies the folders that bear such a name can be resumed from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{DType, ModelConfig};
use crate::error::{Error, Result};
use crate::folder::{SaveOptions, atomically, write_adapter, write_files};
use crate::model::{Model, Segment, Store};
use crate::train::batches::Position;
use crate::train::tensors;
use crate::train::trainer::{Trainer, TrainerSettings};

const STATE: &str = "trainer_state.json";
const OPTIMISER: &str = "optimizer.safetensors";
const AVERAGE: &str = "ema.safetensors";
const MODEL: &str = "model.safetensors";
const ADAPTER: &str = "adapter";

/// Version of the layout of [`State`].
const FORMAT: u32 = 1;

/// `trainer_state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    global_step: u64,
    num_tokens: u64,
    position: Position,
    rng: Rng,
    zeros: std::collections::BTreeMap<String, Option<u32>>,
    extra: std::collections::BTreeMap<String, Value>,
    settings: TrainerSettings,
    /// The model's own fields, to tell whether a checkpoint belongs to a run.
    config: Map<String, Value>,
    /// Checksum of each buffer, in hexadecimal. Of frozen weights it says which ones they were.
    weights: String,
    adapter: Option<String>,
    optimizer: String,
    average: Option<String>,
}

/// Where a ChaCha stream is; its numbers are longer than those of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rng {
    seed: String,
    stream: String,
    word: String,
}

/// Writes `checkpoint-<step>` into the folder `run` and removes all but the newest `keep` (at least 1). Returns the
/// new folder.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tensor`] if a weight is not finite.
pub fn save(trainer: &Trainer, run: &Path, keep: usize) -> Result<PathBuf> {
    let folder = run.join(format!("checkpoint-{}", trainer.step));
    atomically(&folder, |partial| write(trainer, partial))?;
    let older: Vec<_> = list(run)?.into_iter().filter(|(step, _)| *step != trainer.step).collect();
    let surplus = older.len().saturating_sub(keep.saturating_sub(1));
    for (step, path) in &older[..surplus] {
        // Renamed first: half a checkpoint must not bear the name of a whole one.
        let removed = run.join(format!(".checkpoint-{step}.removed"));
        fs::rename(path, &removed).map_err(Error::io(path))?;
        fs::remove_dir_all(&removed).map_err(Error::io(&removed))?;
    }
    Ok(folder)
}

/// The checkpoints in a run's folder, oldest first, by step.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = vec![];
    for entry in fs::read_dir(run).map_err(Error::io(run))? {
        let entry = entry.map_err(Error::io(run))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("checkpoint-"));
        if let Some(step) = step.and_then(|step| step.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Brings a trainer, made as at the start of the run, to the newest checkpoint in the folder `run`. Returns the step.
///
/// # Errors
/// [`Error::Argument`] if there is none: a run that was to resume never silently starts anew. Otherwise as [`load`].
pub fn resume(trainer: &mut Trainer, run: &Path) -> Result<u64> {
    let Some((_, newest)) = list(run)?.pop() else {
        return Err(Error::argument("run", "a folder with a checkpoint to resume from", run.display()));
    };
    for entry in fs::read_dir(run).map_err(Error::io(run))?.flatten() {
        // Left by a kill in the middle of saving or removing. The lock tells whether someone is still at it.
        let name = entry.file_name().to_string_lossy().into_owned();
        let left =
            name.starts_with(".checkpoint-") && (name.contains(".saving-") || name.ends_with(".removed"));
        if left && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    load(trainer, &newest)
}

fn write(trainer: &Trainer, folder: &Path) -> Result<()> {
    let model = &trainer.model;
    if trains(model, Store::Base) {
        // f32 whatever the model's format: less would not resume to the same numbers.
        let options = SaveOptions {
            dtype: Some(DType::F32),
            shard_bytes: u64::MAX,
            companions: trainer.companions.clone(),
        };
        write_files(model.config(), &model.params, folder, &options)?;
    }
    if let Some(adapter) = &model.adapter {
        write_adapter(adapter, model.config(), &folder.join(ADAPTER))?;
    }
    let mut moments = vec![];
    let mut average = vec![];
    for segment in model.segments() {
        let place = segment.grad..segment.grad + segment.param.len();
        moments.push((format!("{}.exp_avg", segment.name), &trainer.optimiser.first[place.clone()]));
        moments.push((format!("{}.exp_avg_sq", segment.name), &trainer.optimiser.second[place.clone()]));
        if let Some(ema) = &trainer.ema {
            average.push((segment.name.clone(), &ema.average[place]));
        }
    }
    let optimizer = hex(tensors::write(&folder.join(OPTIMISER), &moments)?);
    let average = match &trainer.ema {
        Some(_) => Some(hex(tensors::write(&folder.join(AVERAGE), &average)?)),
        None => None,
    };
    let rng = &trainer.rng;
    let state = State {
        format: FORMAT,
        global_step: trainer.step,
        num_tokens: trainer.num_tokens,
        position: trainer.position,
        rng: Rng {
            seed: rng.get_seed().iter().map(|byte| format!("{byte:02x}")).collect(),
            stream: rng.get_stream().to_string(),
            word: rng.get_word_pos().to_string(),
        },
        zeros: trainer.zeros.clone(),
        extra: trainer.extra.clone(),
        settings: trainer.settings.clone(),
        config: own_fields(model.config()),
        weights: hex(tensors::checksum(&model.params.data)),
        adapter: model.adapter.as_ref().map(|adapter| hex(tensors::checksum(&adapter.params.data))),
        optimizer,
        average,
    };
    let path = folder.join(STATE);
    let text = serde_json::to_string_pretty(&state)
        .map_err(|error| Error::Json { path: path.clone(), message: error.to_string() })?;
    fs::write(&path, text + "\n").map_err(Error::io(&path))
}

/// Brings a trainer, made as at the start of the run, to one checkpoint. Returns the step.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`], [`Error::Weights`] or [`Error::Tensor`] for a checkpoint that is not whole;
/// [`Error::Config`] naming the field in which it differs from this run. After an error the trainer is not usable.
pub fn load(trainer: &mut Trainer, folder: &Path) -> Result<u64> {
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let json = |error: serde_json::Error| Error::Json { path: path.clone(), message: error.to_string() };
    let object: Value = serde_json::from_str(&text).map_err(json)?;
    let foreign = |field: &str, needed: String, got: String| Error::Config {
        file: path.display().to_string(),
        field: field.into(),
        needed: format!("{needed}, as this run has"),
        got,
    };
    if object["format"] != FORMAT {
        let got = object["format"].to_string();
        return Err(Error::Config {
            file: path.display().to_string(),
            field: "format".into(),
            needed: FORMAT.to_string(),
            got,
        });
    }
    let state: State = serde_json::from_value(object).map_err(json)?;
    let as_map = |settings: &TrainerSettings| match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(json(error)),
    };
    let pairs = [
        ("settings", as_map(&trainer.settings)?, as_map(&state.settings)?),
        ("config", own_fields(trainer.model.config()), state.config),
    ];
    for (section, ours, stored) in pairs {
        for key in ours.keys().chain(stored.keys()) {
            let text = |value: Option<&Value>| value.map_or("nothing".to_string(), Value::to_string);
            if ours.get(key) != stored.get(key) {
                return Err(foreign(&format!("{section}.{key}"), text(ours.get(key)), text(stored.get(key))));
            }
        }
    }
    if state.adapter.is_some() != trainer.model.adapter.is_some() {
        let name = |adapter: bool| (if adapter { "an adapter" } else { "no adapter" }).to_string();
        return Err(foreign("adapter", name(trainer.model.adapter.is_some()), name(state.adapter.is_some())));
    }

    let model = &mut trainer.model;
    let base = trains(model, Store::Base);
    if base {
        read_params(&folder.join(MODEL), &mut model.params, &state.weights)?;
    } else if hex(tensors::checksum(&model.params.data)) != state.weights {
        return Err(foreign("weights", "the base weights".into(), "other ones".into()));
    }
    if let (Some(adapter), Some(checksum)) = (&mut model.adapter, &state.adapter) {
        read_params(&folder.join(ADAPTER).join("adapter_model.safetensors"), &mut adapter.params, checksum)?;
    }
    let optimiser = &mut trainer.optimiser;
    let first = slots(model.segments(), &mut optimiser.first);
    let second = slots(model.segments(), &mut optimiser.second);
    let mut moments = vec![];
    for ((segment, first), second) in model.segments().iter().zip(first).zip(second) {
        moments.push((format!("{}.exp_avg", segment.name), first));
        moments.push((format!("{}.exp_avg_sq", segment.name), second));
    }
    verify(&folder.join(OPTIMISER), &state.optimizer, |path| tensors::read(path, moments))?;
    if let (Some(ema), Some(checksum)) = (&mut trainer.ema, &state.average) {
        let names = model.segments().iter().map(|segment| segment.name.clone());
        let average = names.zip(slots(model.segments(), &mut ema.average)).collect();
        verify(&folder.join(AVERAGE), checksum, |path| tensors::read(path, average))?;
    }

    let bad_rng = || foreign("rng", "a place in a ChaCha stream".into(), format!("{:?}", state.rng));
    let mut seed = [0; 32];
    for (i, byte) in seed.iter_mut().enumerate() {
        let digits = state.rng.seed.get(2 * i..2 * i + 2).ok_or_else(bad_rng)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad_rng())?;
    }
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(state.rng.stream.parse().map_err(|_| bad_rng())?);
    rng.set_word_pos(state.rng.word.parse().map_err(|_| bad_rng())?);
    trainer.rng = rng;
    trainer.optimiser.step = state.global_step;
    trainer.step = state.global_step;
    trainer.num_tokens = state.num_tokens;
    trainer.position = state.position;
    trainer.zeros = state.zeros;
    trainer.extra = state.extra;
    Ok(state.global_step)
}

fn trains(model: &Model, store: Store) -> bool {
    model.segments().iter().any(|segment| segment.store == store)
}

/// The place of each segment in a buffer that is laid out as the gradient.
fn slots<'a>(segments: &[Segment], mut rest: &'a mut [f32]) -> Vec<&'a mut [f32]> {
    let mut at = 0;
    let take = |segment: &Segment| {
        let end = segment.grad + segment.param.len();
        let (taken, tail) = std::mem::take(&mut rest).split_at_mut(end - at);
        let slot = &mut taken[segment.grad - at..];
        (rest, at) = (tail, end);
        slot
    };
    segments.iter().map(take).collect()
}

fn read_params(path: &Path, params: &mut crate::params::Params, checksum: &str) -> Result<()> {
    let layout = params.layout().clone();
    let mut rest = &mut params.data[..];
    let mut slots = vec![];
    for entry in layout.entries() {
        let (slot, tail) = rest.split_at_mut(entry.len());
        slots.push((entry.name.clone(), slot));
        rest = tail;
    }
    verify(path, checksum, |path| tensors::read(path, slots))
}

/// Reads a file and compares the checksum of what came.
fn verify(path: &Path, checksum: &str, read: impl FnOnce(&Path) -> Result<u64>) -> Result<()> {
    match hex(read(path)?) == checksum {
        true => Ok(()),
        false => Err(Error::Weights {
            path: path.into(),
            problem: format!("its contents are not those it was saved with (checksum {checksum})"),
        }),
    }
}

fn hex(checksum: u64) -> String {
    format!("{checksum:016x}")
}

/// What this crate knows of a configuration, without what it only carries along.
fn own_fields(config: &ModelConfig) -> Map<String, Value> {
    ModelConfig { raw: Map::new(), ..config.clone() }.to_json()
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;
    use crate::adapter::{Adapter, LoraConfig};
    use crate::batch::Batch;
    use crate::network::{LossValue, Want};
    use crate::train::batches::Order;

    fn settings() -> TrainerSettings {
        TrainerSettings {
            learning_rate: 0.01,
            steps: 20,
            ema_decay: Some(0.9),
            // Its last digit is lost by a JSON reader that rounds twice.
            max_grad_norm: Some(0.13436299748718739),
            seed: 5,
            loss_terms: vec!["kl".into()],
            ..Default::default()
        }
    }

    fn trainer(settings: TrainerSettings, adapter: bool) -> Trainer {
        let mut model = Model::random(ModelConfig::llama(32, 16, 2, 4, 2, 24), 3);
        if adapter {
            model.attach(Adapter::new(LoraConfig::default(), model.config(), 4).unwrap());
        }
        Trainer::new(model, settings).unwrap()
    }

    /// A step that depends on the weights, on what was drawn and on the data, as a real one does.
    fn step(trainer: &mut Trainer) -> f64 {
        let item = Order::new(7, trainer.seed("order")).unwrap().take(&mut trainer.position, 1)[0];
        let noise: f32 = trainer.rng.random();
        let mut batch = Batch::new();
        batch.push(&[1, 2], 1..2);
        let report = trainer.step_with(&[batch], &Want::default(), |model| {
            let weights: Vec<f32> = model
                .segments()
                .iter()
                .flat_map(|segment| crate::train::segment_weights(model, segment).to_vec())
                .collect();
            model.gradient = weights.iter().map(|weight| weight * noise + item as f32).collect();
            let value = model.gradient.iter().map(|&g| f64::from(g)).sum();
            Ok(vec![LossValue { value, metrics: vec![("kl", 0.0)] }])
        });
        report.unwrap().loss
    }

    fn assert_same(one: &Trainer, other: &Trainer) {
        assert!(one.model.params.data == other.model.params.data);
        let adapter = |trainer: &Trainer| trainer.model.adapter.as_ref().map(|a| a.params.data.clone());
        assert!(adapter(one) == adapter(other));
        assert!(one.optimiser == other.optimiser && one.ema == other.ema && one.rng == other.rng);
        assert_eq!((one.step, one.num_tokens, one.position), (other.step, other.num_tokens, other.position));
        assert_eq!((&one.zeros, &one.extra), (&other.zeros, &other.extra));
    }

    #[test]
    fn a_resumed_run_takes_the_same_steps() {
        for adapter in [false, true] {
            let run = tempfile::tempdir().unwrap();
            let mut straight = trainer(settings(), adapter);
            let expected: Vec<f64> = (0..20).map(|_| step(&mut straight)).collect();
            let mut first = trainer(settings(), adapter);
            let mut losses: Vec<f64> = (0..10).map(|_| step(&mut first)).collect();
            first.extra.insert("beta".into(), 0.1.into());
            straight.extra.insert("beta".into(), 0.1.into());
            save(&first, run.path(), 2).unwrap();
            drop(first);
            let mut second = trainer(settings(), adapter);
            assert_eq!(resume(&mut second, run.path()).unwrap(), 10);
            losses.extend((0..10).map(|_| step(&mut second)));
            assert_eq!(losses, expected);
            assert_same(&second, &straight);
        }
    }

    #[test]
    fn a_checkpoint_is_a_model_folder() {
        let run = tempfile::tempdir().unwrap();
        let mut full = trainer(settings(), false);
        step(&mut full);
        let folder = save(&full, run.path(), 1).unwrap();
        assert!(crate::folder::read(&folder).unwrap().params.data == full.model.params.data);
        let mut lora = trainer(settings(), true);
        step(&mut lora);
        let folder = save(&lora, run.path(), 1).unwrap();
        let adapter = crate::folder::read_adapter(&folder.join("adapter"), lora.model.config()).unwrap();
        assert!(adapter.params.data == lora.model.adapter.unwrap().params.data);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let run = tempfile::tempdir().unwrap();
        let mut trainer = trainer(settings(), false);
        for _ in 0..12 {
            step(&mut trainer);
            save(&trainer, run.path(), 3).unwrap();
        }
        // Again at the same step, as after a resume.
        save(&trainer, run.path(), 3).unwrap();
        let steps: Vec<u64> = list(run.path()).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [10, 11, 12]);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 3);
        save(&trainer, run.path(), 0).unwrap();
        assert_eq!(list(run.path()).unwrap().len(), 1);
    }

    #[test]
    fn missing_foreign_and_damaged_checkpoints_are_refused() {
        let run = tempfile::tempdir().unwrap();
        let refused = |mut trainer: Trainer| resume(&mut trainer, run.path()).unwrap_err().to_string();
        assert!(refused(trainer(settings(), false)).contains("a folder with a checkpoint to resume from"));
        let mut saved = trainer(settings(), false);
        step(&mut saved);
        let folder = save(&saved, run.path(), 1).unwrap();

        let other = TrainerSettings { learning_rate: 0.02, ..settings() };
        let message = refused(trainer(other, false));
        let expected = "field `settings.learning_rate`: needs 0.02, as this run has, got 0.01";
        assert!(message.ends_with(expected), "{message}");
        let mut config = ModelConfig::llama(32, 16, 2, 4, 2, 24);
        config.norm_eps = 1e-3;
        let message = refused(Trainer::new(Model::random(config, 3), settings()).unwrap());
        assert!(message.contains("`config.rms_norm_eps`: needs 0.001"), "{message}");
        let message = refused(trainer(settings(), true));
        assert!(message.ends_with("needs an adapter, as this run has, got no adapter"), "{message}");
        let mut fewer = trainer(settings(), false);
        fewer.model.set_trained(|entry| entry.is_matrix(), false);
        let fewer = Trainer::new(fewer.model, settings()).unwrap();
        assert!(refused(fewer).contains("is not part of this run"));

        for name in [MODEL, OPTIMISER, AVERAGE, STATE] {
            let path = folder.join(name);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() - 5]).unwrap();
            let message = refused(trainer(settings(), false));
            assert!(message.contains(name), "{message}");
            if name != STATE {
                let mut damaged = whole.clone();
                let last = damaged.len() - 1;
                damaged[last] ^= 1;
                fs::write(&path, &damaged).unwrap();
                let message = refused(trainer(settings(), false));
                assert!(message.contains("not those it was saved with"), "{message}");
            }
            fs::remove_file(&path).unwrap();
            assert!(refused(trainer(settings(), false)).contains(name));
            fs::write(&path, &whole).unwrap();
        }
        resume(&mut trainer(settings(), false), run.path()).unwrap();
    }

    #[test]
    fn an_adapter_resumes_on_its_own_base_only() {
        let run = tempfile::tempdir().unwrap();
        let mut saved = trainer(settings(), true);
        step(&mut saved);
        save(&saved, run.path(), 1).unwrap();
        let mut other = trainer(settings(), true);
        other.model.params.data[7] += 1e-3;
        let message = resume(&mut other, run.path()).unwrap_err().to_string();
        assert!(message.contains("`weights`: needs the base weights"), "{message}");
    }
}
