//! Whole training steps on real models: what accumulation, resuming, threads and adapters must not change.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::batches::{Order, parts};
use super::*;
use crate::adapter::{Adapter, LoraConfig};
use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::network::{Loss, LossFn, Network, Outputs, Want};
use crate::params::Projection;
use crate::{folder, loss};

fn model(threads: usize) -> Model {
    let mut config = ModelConfig::llama(48, 32, 2, 4, 2, 56);
    // Wide enough that attention is far from uniform.
    config.initializer_range = 0.2;
    let mut model = Model::random(config, 11);
    model.threads = threads;
    model
}

/// Pairs of answers of different lengths: two sequences to an item, the better one first.
fn pairs(count: usize) -> Vec<[Vec<u32>; 2]> {
    let answer = |i: usize, len: usize| (0..len).map(|t| ((i * 31 + t * 17 + t * t) % 48) as u32).collect();
    (0..count).map(|i| [answer(i, 4 + (i * 5) % 9), answer(i + 100, 3 + (i * 7) % 11)]).collect()
}

/// A batch of the given items; the first two tokens of each answer are the prompt.
fn batch(pairs: &[[Vec<u32>; 2]], items: &[usize]) -> Batch {
    let mut batch = Batch::new();
    for answer in items.iter().flat_map(|&item| &pairs[item]) {
        batch.push(answer, 2..answer.len());
    }
    batch
}

/// Mean cross-entropy over all targets of the step.
fn cross_entropy(targets: usize) -> impl Fn(usize, &Outputs) -> Result<Loss> + Sync {
    move |_, outputs| Ok(loss::cross_entropy(&outputs.logps, None, targets as f64)?.into())
}

/// Mean over pairs of `−log σ(log-probability of the better − of the worse)`.
fn pair_loss(parts: &[Batch]) -> impl Fn(usize, &Outputs) -> Result<Loss> + Sync + '_ {
    let pairs: usize = parts.iter().map(|part| part.len() / 2).sum();
    move |part, outputs| {
        let sums = loss::seq_logps(&outputs.logps, &parts[part])?.reshape((parts[part].len() / 2, 2))?;
        let margin = (sums.narrow(1, 0, 1)? - sums.narrow(1, 1, 1)?)?;
        let value = (loss::log_sigmoid(&(margin * 0.1)?)?.sum_all()? * (-1.0 / pairs as f64))?;
        Ok(value.into())
    }
}

/// Distance between two gradients over the length of the first.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let apart = square(&mut one.iter().zip(other).map(|(a, b)| f64::from(a - b)));
    (apart / square(&mut one.iter().map(|&a| f64::from(a)))).sqrt()
}

#[test]
fn accumulation_over_parts_equals_one_big_batch() {
    let pairs = pairs(12);
    let sizes: Vec<usize> = pairs.iter().map(|[a, b]| a.len() + b.len()).collect();
    type MakeLoss = for<'a> fn(&'a [Batch]) -> Box<LossFn<'a>>;
    let losses: [MakeLoss; 2] = [
        |parts| Box::new(cross_entropy(parts.iter().map(|part| part.targets().len()).sum())),
        |parts| Box::new(pair_loss(parts)),
    ];
    for make in losses {
        let gradient = |max_tokens: usize| {
            let cut = parts(&sizes, max_tokens, 1).unwrap();
            let batches: Vec<Batch> = cut.iter().map(|items| batch(&pairs, items)).collect();
            let mut model = model(2);
            let values = model.accumulate(&batches, &Want::default(), &make(&batches)).unwrap();
            let value: f64 = values.iter().map(|part| part.value).sum();
            (batches.len(), value, model.gradient().to_vec())
        };
        let (one, value, whole) = gradient(10_000);
        assert_eq!(one, 1);
        for (max_tokens, at_least) in [(100, 2), (60, 3), (1, 12)] {
            let (count, sum, gradient) = gradient(max_tokens);
            assert!(count >= at_least);
            assert!((sum / value - 1.0).abs() < 1e-6, "{count} parts: loss {sum} against {value}");
            let apart = distance(&whole, &gradient);
            assert!(apart < 1e-6, "{count} parts: gradient off by {apart:e}");
        }
    }
}

#[test]
fn fifty_steps_follow_pytorch() {
    // Made by compare/fixtures.py: torch.optim.AdamW over four batches in turn, every parameter decayed.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    let bytes = std::fs::read(path.join("expected.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let whole = |name: &str| -> Vec<usize> {
        let data = expected.tensor(name).unwrap().data();
        data.as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as usize).collect()
    };
    let curve = expected.tensor("curve.losses").unwrap();
    let curve: Vec<f32> =
        curve.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_eq!(curve.len(), 50);
    let batches: Vec<Batch> = (0..4)
        .map(|k| {
            let tokens: Vec<u32> = whole(&format!("curve.{k}.tokens")).iter().map(|&t| t as u32).collect();
            let (mut batch, mut at) = (Batch::new(), 0);
            for len in whole(&format!("curve.{k}.lengths")) {
                batch.push(&tokens[at..at + len], 1..len);
                at += len;
            }
            batch
        })
        .collect();
    let settings = TrainerSettings {
        learning_rate: 1e-3,
        steps: 50,
        adamw: AdamWSettings { weight_decay: 0.01, decay: Decay::All, ..Default::default() },
        max_grad_norm: None,
        ..Default::default()
    };
    let mut trainer = Trainer::new(folder::read(&path).unwrap(), settings).unwrap();
    for (step, &expected) in curve.iter().enumerate() {
        let batch = &batches[step % 4];
        let mean = cross_entropy(batch.targets().len());
        let report = trainer.step(std::slice::from_ref(batch), &Want::default(), &mean).unwrap();
        assert!((report.loss - f64::from(expected)).abs() < 1e-3, "step {step}: {} {expected}", report.loss);
    }
}

fn settings() -> TrainerSettings {
    TrainerSettings {
        learning_rate: 3e-3,
        steps: 1_000_000,
        schedule: Schedule { warm_up: WarmUp::Steps(4), shape: Shape::InverseSqrt { timescale: None } },
        ema_decay: Some(0.95),
        seed: 9,
        ..Default::default()
    }
}

/// One step on the next three pairs in the run's order.
fn step(trainer: &mut Trainer, pairs: &[[Vec<u32>; 2]]) -> f64 {
    let mut order = Order::new(pairs.len(), trainer.seed("order")).unwrap();
    let items = order.take(&mut trainer.position, 3);
    let batches: Vec<Batch> = items.iter().map(|&item| batch(pairs, &[item])).collect();
    let loss = pair_loss(&batches);
    trainer.step(&batches, &Want::default(), &loss).unwrap().loss
}

#[test]
fn threads_do_not_change_a_run() {
    let pairs = pairs(7);
    let run = |threads| {
        let mut trainer = Trainer::new(model(threads), settings()).unwrap();
        let losses: Vec<f64> = (0..8).map(|_| step(&mut trainer, &pairs)).collect();
        (losses, trainer.model.params.data)
    };
    let one = run(1);
    assert!(one.0[7] < one.0[0]);
    assert!(one == run(2) && one == run(3));
}

#[test]
fn an_adapter_learns_and_its_base_stays_to_the_last_bit() {
    let pairs = pairs(3);
    let mut model = model(2);
    let config = LoraConfig { targets: Projection::ALL.to_vec(), ..Default::default() };
    let adapter = Adapter::new(config, model.config(), seed::sub_seed(9, "adapter")).unwrap();
    model.attach(adapter);
    let base = model.params.data.clone();
    let whole = [batch(&pairs, &[0, 1, 2])];
    let reference = Want { adapter: false, ..Default::default() };
    let before = model.evaluate(&whole[0], &reference).unwrap().logps.to_vec1::<f32>().unwrap();
    let mut trainer = Trainer::new(model, settings()).unwrap();
    let losses: Vec<f64> = (0..40).map(|_| step(&mut trainer, &pairs)).collect();
    assert!(losses[39] < 0.8 * losses[0], "{losses:?}");
    assert!(trainer.model.params.data == base);
    let after = trainer.model.evaluate(&whole[0], &reference).unwrap().logps.to_vec1::<f32>().unwrap();
    assert_eq!(before, after);
}

/// Where the child of [`a_kill_while_saving_loses_nothing`] finds its run.
const RUN: &str = "HONE_NN_TEST_RUN";

/// Bigger than [`model`], so that most of a child's time goes into saving.
fn big_trainer() -> Trainer {
    let mut model = Model::random(ModelConfig::llama(2048, 128, 1, 4, 2, 256), 2);
    model.threads = 2;
    Trainer::new(model, settings()).unwrap()
}

#[test]
fn child_trains_until_killed() {
    let Some(run) = std::env::var_os(RUN).map(PathBuf::from) else { return };
    let pairs = pairs(5);
    let mut trainer = big_trainer();
    if !checkpoint::list(&run).unwrap().is_empty() {
        checkpoint::resume(&mut trainer, &run).unwrap();
    }
    trainer.log_to(&run).unwrap();
    loop {
        step(&mut trainer, &pairs);
        checkpoint::save(&trainer, &run, 2).unwrap();
    }
}

#[test]
fn a_kill_while_saving_loses_nothing() {
    let run = tempfile::tempdir().unwrap();
    let entries =
        || std::fs::read_dir(run.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let saving = || entries().any(|name| name.contains(".saving-"));
    let newest = || checkpoint::list(run.path()).unwrap().last().map_or(0, |(step, _)| *step);
    let pairs = pairs(5);
    let mut straight = big_trainer();
    let mut losses = vec![];
    let mut cut_short = 0;
    for round in 0..6u64 {
        let goal = newest() + 1 + round % 2;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "train::tests::child_trains_until_killed", "--nocapture"])
            .env(RUN, run.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while newest() < goal || !saving() {
            assert!(child.try_wait().unwrap().is_none(), "the child stopped by itself");
            assert!(start.elapsed() < Duration::from_secs(60), "the child does not get on");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        cut_short += usize::from(saving());

        let mut resumed = big_trainer();
        let reached = checkpoint::resume(&mut resumed, run.path()).unwrap();
        assert!(reached >= goal && !saving());
        while straight.step_count() < reached {
            losses.push(step(&mut straight, &pairs));
        }
        assert!(resumed.model.params.data == straight.model.params.data);
        assert!(resumed.optimiser == straight.optimiser && resumed.ema == straight.ema);
    }
    assert!(cut_short > 0, "no kill fell into a save");
    let log = std::fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    let logged: Vec<f64> = log
        .lines()
        .take(losses.len())
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(logged, losses);
}
