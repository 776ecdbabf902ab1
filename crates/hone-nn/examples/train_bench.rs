//! Speed and memory of training and scoring.
//!
//! `train_bench <WORK> <0.7m|2.5m|50m|FOLDER> [batch] [length] [threads] [rounds|serve] [part]`
//!
//! WORK is `train`, `score` or `lora`; `products` does nothing but the matrix products of a step's linear maps, the bound
//! that `train` is measured against; `adamw` nothing but the optimiser's pass over 28 bytes per weight. `part` is how
//! many tokens are computed at once.
//!
//! Prints one JSON line per round: seconds of every step, losses, tokens per second, peak memory in MiB, and fails if
//! the estimate of that was off by more than a quarter. With `serve`, a round begins when a line with its seconds comes
//! in; `compare/engine.py` runs it so beside PyTorch.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use hone_nn::params::Projection;
use hone_nn::train::batches::parts;
use hone_nn::train::memory::{self, Load};
use hone_nn::train::{AdamW, AdamWSettings, Decay, Trainer, TrainerSettings};
use hone_nn::{Adapter, Batch, LoraConfig, Model, ModelConfig, Network, Want, folder, loss};

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
    let part_tokens: usize = arg(6, "384").parse()?;
    let vocab = model.config().vocab_size as u64;
    let sequence = |b: u64| (0..length).map(move |t| ((b * 7919 + t * 104_729 + b * t * 31) % vocab) as u32);
    let lengths = vec![length as usize; batch as usize];
    let bound = if work == "score" { usize::MAX } else { part_tokens };
    let parts = parts(&lengths, bound, if work == "score" { 1 } else { model.threads })?;
    let batch = |items: Vec<usize>| {
        let mut batch = Batch::new();
        for item in items {
            let tokens: Vec<u32> = sequence(item as u64).collect();
            batch.push(&tokens, 1..tokens.len());
        }
        batch
    };
    let parts: Vec<Batch> = parts.into_iter().map(batch).collect();
    let trainer = trainer(model, work)?;
    let adamw = AdamW::new(AdamWSettings::default(), &trainer.model)?;
    let mut bench = Bench { parts, work: work.to_string(), trainer, adamw, buffers: vec![] };
    if work == "adamw" {
        bench.train()?;
    }
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
            if let Some(estimated) = bench.estimated_mib().filter(|mib| (peak_mib() / mib - 1.0).abs() > 0.25)
            {
                return Err(format!("peak {:.0} MiB, estimated {estimated:.0} MiB", peak_mib()).into());
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
    adamw: AdamW,
    buffers: Vec<Buffers>,
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
            "estimated_mib": self.estimated_mib(),
            "seconds": times,
            "losses": losses,
        });
        println!("{line}");
        Ok(())
    }

    /// What the peak should be, where a step is taken.
    fn estimated_mib(&self) -> Option<f64> {
        let estimate = memory::estimate(&self.trainer.model, self.trainer.settings(), Load::of(&self.parts));
        (self.work == "train" || self.work == "lora").then_some(estimate.total() as f64 / 1_048_576.0)
    }

    /// Returns the loss, or 0 where there is none.
    fn step(&mut self) -> Anyhow<f64> {
        match self.work.as_str() {
            "score" => {
                let targets = self.parts[0].targets().len() as f64;
                let outputs = self.trainer.model.evaluate(&self.parts[0], &Want::default())?;
                Ok(loss::scalar(&loss::cross_entropy(&outputs.logps, None, targets)?)?)
            }
            "adamw" => {
                self.adamw.update(&mut self.trainer.model, 1e-3, 1.0)?;
                Ok(0.0)
            }
            "products" => {
                self.products();
                Ok(0.0)
            }
            _ => self.train(),
        }
    }

    fn train(&mut self) -> Anyhow<f64> {
        let targets: usize = self.parts.iter().map(|part| part.targets().len()).sum();
        let mean = |_: usize, outputs: &hone_nn::Outputs| {
            Ok(loss::cross_entropy(&outputs.logps, None, targets as f64)?.into())
        };
        Ok(self.trainer.step(&self.parts, &Want::default(), &mean)?.loss)
    }

    /// The products of all linear maps, forward and twice backward, with parts shared out as in training.
    fn products(&mut self) {
        let model = &self.trainer.model;
        let config = model.config();
        let (d, f, q) = (config.hidden_size, config.intermediate_size, config.query_width());
        let layer = [(d, q + 2 * config.kv_width()), (q, d), (d, 2 * f), (f, d)];
        let maps: Vec<(usize, usize)> =
            (0..config.layers).flat_map(|_| layer).chain([(d, config.vocab_size)]).collect();
        let widest = maps.iter().map(|&(inputs, outputs)| inputs.max(outputs)).max().unwrap_or(0);
        let part_tokens = self.parts.iter().map(|part| part.tokens().len()).max().unwrap_or(0);
        let fresh = || Buffers {
            ones: vec![1.0; part_tokens * widest],
            result: vec![0.0; part_tokens * widest],
            gradient: vec![0.0; model.params.data.len()],
        };
        self.buffers.resize_with(model.threads, fresh);
        let queue = std::sync::Mutex::new(self.parts.iter());
        let run = |Buffers { ones, result, gradient }: &mut Buffers| {
            while let Some(part) = queue.lock().ok().and_then(|mut queue| queue.next()) {
                let n = part.tokens().len();
                let mut at = 0;
                for &(inputs, outputs) in &maps {
                    // Tied output embeddings come first in the buffer.
                    let place = if at + inputs * outputs <= gradient.len() { at } else { 0 };
                    at = place + inputs * outputs;
                    let w = &model.params.data[place..at];
                    product(
                        (n, outputs, inputs),
                        (ones, inputs, 1),
                        (w, 1, inputs),
                        (result, outputs),
                        false,
                    );
                    product(
                        (n, inputs, outputs),
                        (ones, outputs, 1),
                        (w, inputs, 1),
                        (result, inputs),
                        false,
                    );
                    let dw = (&mut gradient[place..at], inputs);
                    product((outputs, inputs, n), (ones, 1, outputs), (ones, inputs, 1), dw, true);
                }
            }
        };
        std::thread::scope(|scope| {
            for buffers in &mut self.buffers {
                scope.spawn(|| run(buffers));
            }
        });
    }
}

/// What one thread of `products` works on: an own place for weight gradients, since the bound knows no waiting.
struct Buffers {
    ones: Vec<f32>,
    result: Vec<f32>,
    gradient: Vec<f32>,
}

/// `c [+]= a b` of shape `(m, n, k)`; factors with the strides of their rows and columns.
fn product(
    (m, n, k): (usize, usize, usize),
    (a, a_row, a_column): (&[f32], usize, usize),
    (b, b_row, b_column): (&[f32], usize, usize),
    (c, c_row): (&mut [f32], usize),
    add: bool,
) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
    // SAFETY: the slices hold at least as many numbers as the dense shapes address.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row as isize,
            add,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Most memory this process has had resident.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
