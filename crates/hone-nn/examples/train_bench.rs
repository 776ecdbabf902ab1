//! Speed and memory of training and scoring.
//!
//! `train_bench <train|score|lora> <0.7m|2.5m|50m|FOLDER> [batch] [length] [threads] [rounds|serve]`
//!
//! Prints one JSON line per round: seconds of every step, losses, tokens per second, peak memory in MiB. With `serve`,
//! a round begins when a line with its seconds comes in; `compare/engine.py` runs it so beside PyTorch.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use hone_nn::params::Projection;
use hone_nn::train::{AdamWSettings, Decay, Trainer, TrainerSettings};
use hone_nn::{Adapter, Batch, LoraConfig, Model, ModelConfig, Network, Want, folder, loss};

/// Tokens that are computed at once.
const PART: usize = 768;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize, default: &'static str| args.get(index).map_or(default, String::as_str);
    let (work, size) = (arg(0, "train"), arg(1, "2.5m"));
    let (config, shape) = match size {
        "0.7m" => (Some(ModelConfig::llama(512, 128, 4, 4, 2, 344)), ("64", "96")),
        "2.5m" => (Some(ModelConfig::llama(1024, 192, 6, 6, 2, 512)), ("64", "96")),
        "50m" => (Some(ModelConfig::llama(16_384, 576, 12, 9, 3, 1536)), ("4", "256")),
        _ => (None, ("4", "256")),
    };
    let mut model = match config {
        Some(config) => Model::random(config, 0),
        None => folder::read(Path::new(size))?,
    };
    let (batch, length): (u64, u64) = (arg(2, shape.0).parse()?, arg(3, shape.1).parse()?);
    model.threads = arg(4, "2").parse()?;
    let mut parts = vec![Batch::new()];
    for b in 0..batch {
        let vocab = model.config().vocab_size as u64;
        let tokens: Vec<u32> =
            (0..length).map(|t| ((b * 7919 + t * 104_729 + b * t * 31) % vocab) as u32).collect();
        if parts[parts.len() - 1].tokens().len() + tokens.len() > PART && work != "score" {
            parts.push(Batch::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(&tokens, 1..tokens.len());
        }
    }
    let mut bench = Bench { parts, work: work.to_string(), trainer: trainer(model, work)? };
    match arg(5, "3") {
        "serve" => {
            for line in std::io::stdin().lock().lines() {
                bench.round(line?.trim().parse()?)?;
            }
        }
        rounds => {
            bench.round(0.0)?;
            for _ in 0..rounds.parse()? {
                bench.round(3.0)?;
            }
        }
    }
    Ok(())
}

fn trainer(mut model: Model, work: &str) -> Anyhow<Trainer> {
    if work == "lora" {
        let config =
            LoraConfig { rank: 8, alpha: 16.0, targets: Projection::ALL.to_vec(), ..Default::default() };
        let adapter = Adapter::new(config, model.config(), 1)?;
        model.attach(adapter);
    }
    // As `compare/engine.py` sets PyTorch up.
    let settings = TrainerSettings {
        learning_rate: 1e-3,
        steps: u64::MAX,
        adamw: AdamWSettings { decay: Decay::All, ..Default::default() },
        max_grad_norm: None,
        ..Default::default()
    };
    Ok(Trainer::new(model, settings)?)
}

struct Bench {
    parts: Vec<Batch>,
    work: String,
    trainer: Trainer,
}

impl Bench {
    /// Repeats the work for `seconds`, at least once.
    fn round(&mut self, seconds: f64) -> Anyhow<()> {
        let (mut times, mut losses) = (vec![], vec![]);
        let start = Instant::now();
        while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
            let step = Instant::now();
            losses.push(self.step()?);
            times.push(step.elapsed().as_secs_f64());
        }
        let tokens: usize = self.parts.iter().map(|part| part.tokens().len()).sum();
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        let line = serde_json::json!({
            "work": self.work,
            "parameters": self.trainer.model.params.data.len(),
            "tokens_per_second": tokens as f64 / sorted[sorted.len() / 2],
            "best_tokens_per_second": tokens as f64 / sorted[0],
            "peak_mib": peak_mib(),
            "seconds": times,
            "losses": losses,
        });
        println!("{line}");
        Ok(())
    }

    fn step(&mut self) -> Anyhow<f64> {
        let targets: usize = self.parts.iter().map(|part| part.targets().len()).sum();
        if self.work == "score" {
            let outputs = self.trainer.model.evaluate(&self.parts[0], &Want::default())?;
            return Ok(loss::scalar(&loss::cross_entropy(&outputs.logps, None, targets as f64)?)?);
        }
        let mean = |_: usize, outputs: &hone_nn::Outputs| {
            Ok(loss::cross_entropy(&outputs.logps, None, targets as f64)?.into())
        };
        Ok(self.trainer.step(&self.parts, &Want::default(), &mean)?.loss)
    }
}

/// Most memory this process has had resident.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
