//! The fused decoder against `transformers` and `peft`, on the checkpoints under `fixtures`, which
//! `compare/fixtures.py` wrote together with what those libraries compute from them; and saving that survives a kill.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use hone_nn::config::Head;
use hone_nn::{Batch, Model, ModelConfig, Network, Outputs, Result, Want, folder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LANGUAGE: [&str; 12] = [
    "bf16",
    "linear_rope",
    "llama",
    "llama3_rope",
    "llama_bias",
    "mistral",
    "qwen2",
    "qwen3",
    "sharded_f16",
    "smollm3",
    "value_head",
    "yarn_rope",
];
const CLASSIFIERS: [&str; 2] = ["sequence_head", "token_head"];
const ADAPTERS: [(&str, &str); 3] = [("lora", "llama"), ("lora_rs", "qwen3"), ("lora_regex", "llama")];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn with_adapter(name: &str, base: &str) -> Model {
    let mut model = folder::read(&fixture(base)).unwrap();
    model.attach(folder::read_adapter(&fixture(name), model.config()).unwrap());
    model
}

/// Every fixture's name and model.
fn models() -> Vec<(&'static str, Model)> {
    let plain = LANGUAGE.into_iter().chain(CLASSIFIERS);
    let plain = plain.map(|name| (name, folder::read(&fixture(name)).unwrap()));
    plain.chain(ADAPTERS.map(|(name, base)| (name, with_adapter(name, base)))).collect()
}

/// What `transformers` or `peft` computed from one fixture.
struct Expected(HashMap<String, Tensor>);

impl Expected {
    fn of(name: &str) -> Expected {
        let path = fixture(name).join("expected.safetensors");
        Expected(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("expected.safetensors holds no {name}"))
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        self.get(name).to_dtype(DType::U32).unwrap().to_vec1().unwrap()
    }

    /// The sequences with the tokens in `mask`.
    fn sequences(&self) -> Vec<(Vec<u32>, Vec<bool>)> {
        let (mut tokens, mut mask) = (self.integers("tokens"), self.integers("mask"));
        let cut = |length: &u32| {
            let of_one: Vec<u32> = tokens.drain(..*length as usize).collect();
            (of_one, mask.drain(..*length as usize).map(|scored| scored == 1).collect())
        };
        self.integers("lengths").iter().map(cut).collect()
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, and largest size of what is expected.
fn difference(got: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), expected.len());
    let apart = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    // A NaN anywhere must not vanish in `max`.
    assert!(got.iter().all(|value| value.is_finite()));
    (apart.fold(0.0, f32::max), expected.iter().fold(0.0, |most, value| most.max(value.abs())))
}

fn assert_near(got: &[f32], expected: &[f32], what: &str) {
    let (apart, _) = difference(got, expected);
    assert!(apart < 1e-4, "{what} differ by {apart}");
}

/// A batch whose targets cover every row of the stored logits: each sequence is followed by one more token.
fn every_row(expected: &Expected) -> Batch {
    let mut batch = Batch::new();
    for (mut tokens, _) in expected.sequences() {
        tokens.push(3);
        batch.push(&tokens, 0..tokens.len());
    }
    batch
}

fn distributions(model: &Model, batch: &Batch, adapter: bool) -> Vec<f32> {
    let want = Want { distributions: true, adapter, ..Want::default() };
    values(&model.evaluate(batch, &want).unwrap().distributions.unwrap())
}

#[test]
fn next_token_distributions() {
    let mut compared = 0;
    for (name, model) in models() {
        if !model.config().head.has_language() {
            continue;
        }
        let expected = Expected::of(name);
        let logits = log_softmax(expected.get("logits"), 1).unwrap();
        let batch = every_row(&expected);
        assert_near(
            &distributions(&model, &batch, true),
            &values(&logits),
            &format!("{name}: log-probabilities"),
        );
        compared += 1;
    }
    assert_eq!(compared, 15);
}

#[test]
fn hidden_states_and_scores() {
    let bare = folder::read_with_head(&fixture("llama_bare"), Head::Token { labels: 1 }, 1).unwrap().model;
    for (name, model) in models().into_iter().chain([("llama_bare", bare)]) {
        let expected = Expected::of(name);
        let mut batch = Batch::new();
        for (tokens, _) in expected.sequences() {
            batch.push(&tokens, 0..0);
        }
        let layers: Vec<usize> = (0..=model.config().layers).collect();
        let scores = expected.0.contains_key("scores");
        let want = Want { hidden: layers.clone(), scores, ..Want::default() };
        let outputs = model.evaluate(&batch, &want).unwrap();
        for layer in layers {
            let stored = values(expected.get(&format!("hidden.{layer}")));
            assert_near(&values(&outputs.hidden[layer]), &stored, &format!("{name}: hidden states {layer}"));
        }
        if scores {
            assert_near(&values(&outputs.scores.unwrap()), &values(expected.get("scores")), name);
        }
    }
}

/// The loss that `compare/fixtures.py` differentiates, or a part's share of it: mean cross-entropy of all `targets`,
/// and the part of the head. `rows` are those of the part's scores.
fn loss(
    expected: &Expected,
    outputs: &Outputs,
    targets: usize,
    rows: std::ops::Range<usize>,
) -> Result<Tensor> {
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    if targets > 0 {
        loss = (loss - (outputs.logps.sum_all()? / targets as f64)?)?;
    }
    let Some(scores) = &outputs.scores else { return Ok(loss) };
    let labels = expected.get("labels");
    let share = rows.len() as f64 / labels.dim(0)? as f64;
    let labels = labels.narrow(0, rows.start, rows.len())?;
    let head = match labels.dtype() {
        DType::F32 => ((scores.squeeze(1)? - labels)?.sqr()?.mean_all()? * 0.5)?,
        _ => candle_nn::loss::cross_entropy(scores, &labels.to_dtype(DType::U32)?)?,
    };
    Ok((loss + (head * share)?)?)
}

#[test]
fn gradients_of_every_parameter() {
    let mut tensors = 0;
    for (name, mut model) in models() {
        let expected = Expected::of(name);
        let head = model.config().head;
        let mut parts = vec![];
        for (tokens, mask) in expected.sequences() {
            let mut part = Batch::new();
            let mask: Vec<bool> = mask.iter().map(|&scored| scored && head.has_language()).collect();
            part.push_masked(&tokens, &mask).unwrap();
            parts.push(part);
        }
        let targets = parts.iter().map(|part| part.targets().len()).sum();
        // First row of each part's scores.
        let mut starts = vec![0];
        for part in &parts {
            let rows = if let Head::Sequence { .. } = head { part.len() } else { part.tokens().len() };
            starts.push(starts[starts.len() - 1] + rows);
        }
        let want = Want { scores: head.scores() > 0, ..Want::default() };
        let part_loss = |part: usize, outputs: &Outputs| {
            Ok(loss(&expected, outputs, targets, starts[part]..starts[part + 1])?.into())
        };
        let total: f64 =
            model.accumulate(&parts, &want, &part_loss).unwrap().iter().map(|loss| loss.value).sum();
        let stored = f64::from(expected.get("loss").to_scalar::<f32>().unwrap());
        assert!((total - stored).abs() < 1e-4, "{name}: loss {total}, needs {stored}");
        for segment in model.segments() {
            let stored = values(expected.get(&format!("grad.{}", segment.name)));
            let (apart, most) = difference(model.gradient_of(segment), &stored);
            assert!(apart < 1e-4 * most, "{name}: gradient of {} differs by {apart} of {most}", segment.name);
            tensors += 1;
        }
        let stored = expected.0.keys().filter(|key| key.starts_with("grad.")).count();
        assert_eq!(model.segments().len(), stored, "{name}");
    }
    assert!(tensors > 300, "{tensors}");
}

#[test]
fn adapters_merge_and_switch_off() {
    for (name, base) in ADAPTERS {
        let model = with_adapter(name, base);
        let batch = every_row(&Expected::of(name));
        let adapted = distributions(&model, &batch, true);
        let merged = Model::new(ModelConfig::clone(model.config()), folder::merge(&model)).unwrap();
        assert_near(&distributions(&merged, &batch, true), &adapted, &format!("{name}: merged"));
        let plain = folder::read(&fixture(base)).unwrap();
        let switched_off = distributions(&model, &batch, false);
        assert_eq!(switched_off, distributions(&plain, &batch, true), "{name}: switched off");
        assert!(difference(&adapted, &switched_off).0 > 0.1, "{name}: the adapter changes nothing");
    }
}

const SAVES_TO: &str = "HONE_TEST_SAVES_TO";

/// A model whose every weight, and a field of its configuration, is `version`.
fn version(version: u32) -> Model {
    let mut config = ModelConfig::llama(500, 64, 2, 4, 2, 128);
    config.raw.insert("version".into(), version.into());
    let mut model = Model::random(config, 1);
    model.params.data.fill(version as f32);
    model
}

/// Saves one version after the other, until killed.
fn save_for_ever(folder: &Path) {
    let options = folder::SaveOptions { shard_bytes: 100_000, ..folder::SaveOptions::default() };
    for number in 0.. {
        let model = version(number);
        folder::write(model.config(), &model.params, folder, &options).unwrap();
        println!("{number}");
    }
}

#[test]
fn a_kill_while_saving_leaves_a_whole_checkpoint() {
    if let Some(folder) = std::env::var_os(SAVES_TO) {
        return save_for_ever(Path::new(&folder));
    }
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("model");
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut cut_short, mut versions) = (0, vec![]);
    for _ in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_while_saving_leaves_a_whole_checkpoint", "--nocapture"])
            .env(SAVES_TO, &target)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Past the first save, then at a random moment of those that follow.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !target.exists() {
            assert!(std::time::Instant::now() < deadline, "nothing was saved within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(5_000..80_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let model = folder::read(&target).unwrap();
        let number = model.config().raw["version"].as_u64().unwrap() as f32;
        assert!(model.params.data.iter().all(|&weight| weight == number), "a mixture with version {number}");
        versions.push(number as u32);
        cut_short += usize::from(std::fs::read_dir(parent.path()).unwrap().count() > 1);
    }
    println!("40 kills, {cut_short} of them in the middle of a save; versions found: {versions:?}");
    assert!(cut_short >= 20, "only {cut_short} of 40 kills fell into a save");
    let model = version(7);
    folder::write(model.config(), &model.params, &target, &folder::SaveOptions::default()).unwrap();
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "what the kills left behind is removed");
}
