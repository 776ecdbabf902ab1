//! Reads and writes model and adapter folders for `compare/exact.py`, which checks the results with transformers and
//! peft.
//!
//! ```text
//! roundtrip model IN OUT [f32|bf16|f16 [BYTES PER SHARD]]
//! roundtrip adapter MODEL IN OUT
//! roundtrip merge MODEL ADAPTER OUT
//! roundtrip fresh MODEL OUT SEED          a new adapter on every projection of the model
//! roundtrip random OUT SEED               a new model
//! roundtrip logps MODEL ADAPTER|- TOKENS OUT
//! ```
//!
//! `TOKENS` holds one sequence per line. `OUT` of `logps` gets, for each of them, the log-probabilities `[T - 1, V]`
//! of what follows each token but the last, as `sequence.<i>` in a safetensors file.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use hone_nn::adapter::{Adapter, LoraConfig};
use hone_nn::config::DType;
use hone_nn::folder::{SaveOptions, merge, read, read_adapter, write, write_adapter};
use hone_nn::params::{Projection, fill_normal};
use hone_nn::{Batch, Model, ModelConfig, Network, Want};
use rand::SeedableRng;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["model", source, target, ref rest @ ..] => {
            let model = read(Path::new(source))?;
            let mut options = SaveOptions { companions: Some(source.into()), ..SaveOptions::default() };
            options.dtype = match rest.first() {
                None => None,
                Some(&"f32") => Some(DType::F32),
                Some(&"bf16") => Some(DType::BF16),
                Some(&"f16") => Some(DType::F16),
                Some(other) => return Err(format!("number format {other}: needs f32, bf16 or f16").into()),
            };
            if let Some(bytes) = rest.get(1) {
                options.shard_bytes = bytes.parse()?;
            }
            write(model.config(), &model.params, Path::new(target), &options)?;
        }
        ["adapter", base, source, target] => {
            let config = ModelConfig::from_folder(Path::new(base))?;
            write_adapter(&read_adapter(Path::new(source), &config)?, &config, Path::new(target))?;
        }
        ["merge", base, adapter, target] => {
            let model = adapted(base, adapter)?;
            write(model.config(), &merge(&model), Path::new(target), &SaveOptions::default())?;
        }
        ["fresh", base, target, seed] => {
            let config = ModelConfig::from_folder(Path::new(base))?;
            let lora = LoraConfig {
                rank: 5,
                alpha: 7.5,
                rank_stabilized: true,
                targets: Projection::ALL.to_vec(),
                base_model: Some(base.into()),
                ..LoraConfig::default()
            };
            let mut adapter = Adapter::new(lora, &config, seed.parse()?)?;
            // As if trained: a fresh one is zero in half of its factors and would change nothing.
            fill_normal(
                &mut adapter.params.data,
                0.2,
                &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed.parse()?),
            );
            write_adapter(&adapter, &config, Path::new(target))?;
        }
        ["random", target, seed] => {
            let mut config = ModelConfig::llama(96, 32, 3, 4, 2, 48);
            config.initializer_range = 0.3;
            let model = Model::random(config, seed.parse()?);
            write(model.config(), &model.params, Path::new(target), &SaveOptions::default())?;
        }
        ["logps", base, adapter, tokens, target] => {
            let model = adapted(base, adapter)?;
            let mut tensors = HashMap::new();
            for (i, line) in std::fs::read_to_string(tokens)?.lines().enumerate() {
                let tokens: Vec<u32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
                let mut batch = Batch::new();
                batch.push(&tokens, 0..tokens.len());
                let outputs = model.evaluate(&batch, &Want { distributions: true, ..Want::default() })?;
                let logps = outputs.distributions.ok_or("the model predicts no tokens")?;
                tensors.insert(format!("sequence.{i}"), logps);
            }
            candle_core::safetensors::save(&tensors, target)?;
        }
        _ => return Err("usage: see the head of examples/roundtrip.rs".into()),
    }
    Ok(())
}

/// A model with an adapter, or without where that is `-`.
fn adapted(base: &str, adapter: &str) -> Result<Model, Box<dyn Error>> {
    let mut model = read(Path::new(base))?;
    if adapter != "-" {
        model.attach(read_adapter(Path::new(adapter), model.config())?);
    }
    Ok(model)
}
