//! `hone model show | new | merge`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use hone_nn::Model;
use hone_nn::config::ModelConfig;
use hone_nn::folder::{self, SaveOptions};

/// Subcommands of `hone model`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read a model folder whole and say what it holds.
    Show {
        /// Model folder.
        folder: PathBuf,
    },
    /// Write a fresh Llama-family model with random weights.
    New {
        /// Folder to write.
        folder: PathBuf,
        /// Tokens in the vocabulary.
        #[arg(long, default_value_t = 1024)]
        vocab: usize,
        /// Width of the residual stream.
        #[arg(long, default_value_t = 192)]
        width: usize,
        /// Layers.
        #[arg(long, default_value_t = 6)]
        layers: usize,
        /// Query heads.
        #[arg(long, default_value_t = 6)]
        heads: usize,
        /// Key and value heads.
        #[arg(long, default_value_t = 2)]
        kv_heads: usize,
        /// Width of the feed-forward layer.
        #[arg(long, default_value_t = 512)]
        feed_forward: usize,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Add a PEFT adapter to its base model and write the sum as a model folder.
    Merge {
        /// Folder of the base model.
        base: PathBuf,
        /// Folder of the adapter.
        adapter: PathBuf,
        /// Folder to write.
        out: PathBuf,
    },
}

/// Runs the command.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Show { folder } => show(&folder)?,
        Command::New { folder, vocab, width, layers, heads, kv_heads, feed_forward, seed } => {
            for (name, part, whole) in [("heads", heads, width), ("kv-heads", kv_heads, heads)] {
                anyhow::ensure!(
                    part > 0 && whole % part == 0,
                    "--{name}: needs a divisor of {whole}, got {part}"
                );
            }
            anyhow::ensure!(
                width / heads % 2 == 0,
                "--width: needs heads of even width, got {}",
                width / heads
            );
            let config = ModelConfig::llama(vocab, width, layers, heads, kv_heads, feed_forward);
            let model = Model::random(config, seed);
            folder::write(model.config(), &model.params, &folder, &SaveOptions::default())?;
            println!("{} parameters in {}", model.params.data.len(), folder.display());
        }
        Command::Merge { base, adapter, out } => {
            let mut model = folder::read(&base)?;
            let adapter = folder::read_adapter(&adapter, model.config())?;
            model.attach(adapter);
            let options = SaveOptions { companions: Some(base), ..SaveOptions::default() };
            folder::write(model.config(), &folder::merge(&model), &out, &options)?;
            println!("merged model in {}", out.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(folder: &std::path::Path) -> Result<()> {
    let model = folder::read(folder)?;
    let config = model.config();
    let rows = [
        ("family", config.family.model_type().to_string()),
        ("head", format!("{:?}", config.head)),
        ("parameters", model.params.data.len().to_string()),
        ("layers", config.layers.to_string()),
        ("width", config.hidden_size.to_string()),
        (
            "heads",
            format!(
                "{} ({} for keys and values) of width {}",
                config.heads, config.kv_heads, config.head_dim
            ),
        ),
        ("feed-forward", config.intermediate_size.to_string()),
        ("vocabulary", format!("{}{}", config.vocab_size, if config.tied { ", tied" } else { "" })),
        ("context", format!("{} tokens", config.max_positions)),
        ("stored as", config.dtype.name().to_string()),
    ];
    for (name, value) in rows {
        println!("{name:<14}{value}");
    }
    Ok(())
}
