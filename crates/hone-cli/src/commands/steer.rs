//! `hone steer lines`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use hone_methods::steer::lines::{Edit, edit};
use hone_methods::steer::merging::Merge;

/// Subcommands of `hone steer`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Scale what fine-tuning changed by depth: little in shallow layers, all of it in deep ones (LiNeS). Takes any
    /// folders of safetensors that have one architecture; several models are merged.
    Lines {
        /// Folder of the model that all began from.
        base: PathBuf,
        /// Folders of the models made from it.
        #[arg(required = true)]
        tuned: Vec<PathBuf>,
        /// Folder to write.
        #[arg(long)]
        out: PathBuf,
        /// Factor of the first block [default: 0.1 for one model, the ratio of norms for several]
        #[arg(long)]
        alpha: Option<f64>,
        /// What the last block has more [default: what is missing to 1 for one model, 1 for several]
        #[arg(long)]
        beta: Option<f64>,
        /// How several models are merged.
        #[arg(long, value_enum, default_value_t = Merging::Sum)]
        merge: Merging,
        /// Weighted: the share of each model.
        #[arg(long, value_delimiter = ',', value_name = "SHARES", required_if_eq("merge", "weighted"))]
        shares: Vec<f64>,
        /// TIES: share of each model's changes that is kept.
        #[arg(long, default_value_t = 0.2)]
        keep: f64,
        /// Consensus: how large a model's own change must be beside the others'.
        #[arg(long, default_value_t = 0.4)]
        threshold: f64,
        /// Consensus: models that must claim a weight.
        #[arg(long, default_value_t = 2)]
        agree: usize,
    },
}

/// How several models are merged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Merging {
    /// Task arithmetic: the sum of the changes.
    Sum,
    /// A uniform soup: their mean.
    Mean,
    /// A rewarded soup: the sum of the changes with the shares of `--shares`.
    Weighted,
    /// TIES.
    Ties,
    /// Consensus of TALL masks.
    Consensus,
}

/// Runs the command.
pub fn run(command: Command) -> Result<ExitCode> {
    let Command::Lines { base, tuned, out, alpha, beta, merge, shares, keep, threshold, agree } = command;
    let merge = match merge {
        Merging::Sum => Merge::Sum,
        Merging::Mean => Merge::Mean,
        Merging::Weighted => Merge::Weighted { shares },
        Merging::Ties => Merge::Ties { keep, average: true },
        Merging::Consensus => Merge::Consensus { thresholds: vec![threshold; tuned.len()], agree },
    };
    let alpha = alpha.or((tuned.len() == 1).then_some(0.1));
    let (scale, blocks) = edit(&Edit { base, tuned, merge, alpha, beta }, &out)?;
    println!(
        "{}: factors from {:.3} in the first of {blocks} blocks to {:.3} in the last",
        out.display(),
        scale.at(0.0),
        scale.at(1.0)
    );
    Ok(ExitCode::SUCCESS)
}
