//! Rotary position embeddings and the ways to stretch them over longer contexts.

use std::f64::consts::PI;

use serde_json::{Map, Value, json};

use super::{Family, Fields};
use crate::error::Result;

/// Rotary positions of a model: base and scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base θ: pair `i` of a head turns by `position · θ^(-2i/head_dim)`.
    pub theta: f64,
    /// How frequencies are changed for contexts longer than the model was trained on.
    pub scaling: RopeScaling,
}

/// Published ways to change the frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every position divided by `factor`.
    Linear {
        /// Stretch, above 0.
        factor: f64,
    },
    /// Llama 3.1: slow frequencies divided by `factor`, fast ones kept, a ramp between.
    Llama3 {
        /// Stretch of the slow frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length at training time, in tokens.
        original: f64,
    },
    /// YaRN (arXiv:2309.00071): a ramp over dimensions, and a factor on cos and sin.
    Yarn {
        /// Stretch of the slow frequencies.
        factor: f64,
        /// Rotations over the original context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is stretched in full.
        beta_slow: f64,
        /// Context length at training time, in tokens.
        original: f64,
        /// What cos and sin are multiplied with.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        truncate: bool,
    },
}

/// Cosines and sines for the first positions of a model.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// Pairs per head, `head_dim / 2`.
    pub half: usize,
    /// `[positions, half]`, times the attention factor.
    pub cos: Vec<f32>,
    /// `[positions, half]`, times the attention factor.
    pub sin: Vec<f32>,
}

impl Rope {
    /// Angular frequency of each pair of a head, `[head_dim / 2]`, in radians per position, and the factor on cos and
    /// sin.
    pub fn frequencies(&self, head_dim: usize) -> (Vec<f64>, f64) {
        let half = head_dim / 2;
        let base = |pair: usize| self.theta.powf(-2.0 * pair as f64 / head_dim as f64);
        match self.scaling {
            RopeScaling::None => ((0..half).map(base).collect(), 1.0),
            RopeScaling::Linear { factor } => ((0..half).map(|pair| base(pair) / factor).collect(), 1.0),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let stretch = |frequency: f64| {
                    let wavelength = 2.0 * PI / frequency;
                    if wavelength < original / high_freq_factor {
                        frequency
                    } else if wavelength > original / low_freq_factor {
                        frequency / factor
                    } else {
                        let kept =
                            (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - kept) * frequency / factor + kept * frequency
                    }
                };
                ((0..half).map(|pair| stretch(base(pair))).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor, truncate } => {
                // The dimension whose frequency makes `rotations` turns over the original context.
                let dimension = |rotations: f64| {
                    head_dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let low = low.max(0.0);
                let mut high = high.min(head_dim as f64 - 1.0);
                if low == high {
                    high += 0.001;
                }
                let frequency = |pair: usize| {
                    let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    base(pair) * (stretched / factor + 1.0 - stretched)
                };
                ((0..half).map(frequency).collect(), attention_factor)
            }
        }
    }

    /// Table of the first `positions` positions.
    pub fn table(&self, head_dim: usize, positions: usize) -> RopeTable {
        let (frequencies, factor) = self.frequencies(head_dim);
        let half = head_dim / 2;
        let mut table = RopeTable {
            half,
            cos: Vec::with_capacity(positions * half),
            sin: Vec::with_capacity(positions * half),
        };
        for position in 0..positions {
            for &frequency in &frequencies {
                // `transformers` rounds frequency and angle to f32; the angle of a late position depends on it.
                let angle = f64::from(position as f32 * frequency as f32);
                table.cos.push((angle.cos() * factor) as f32);
                table.sin.push((angle.sin() * factor) as f32);
            }
        }
        table
    }

    /// Writes both spellings: `rope_parameters` of transformers 5 and `rope_theta` with `rope_scaling` of earlier ones.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let mut parameters = match self.scaling {
            RopeScaling::None => json!({ "rope_type": "default" }),
            RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original as u64,
            }),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor, truncate } => {
                json!({
                    "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "original_max_position_embeddings": original as u64, "attention_factor": attention_factor,
                    "truncate": truncate,
                })
            }
        };
        let scaled = self.scaling != RopeScaling::None;
        map.insert("rope_theta".into(), self.theta.into());
        map.insert("rope_scaling".into(), if scaled { parameters.clone() } else { Value::Null });
        if let Some(parameters) = parameters.as_object_mut() {
            parameters.insert("rope_theta".into(), self.theta.into());
        }
        map.insert("rope_parameters".into(), parameters);
    }
}

/// Reads the rotary fields in either spelling.
pub(super) fn read(fields: &Fields, family: Family, max_positions: usize) -> Result<Rope> {
    let default_theta = if family == Family::SmolLm3 { 2_000_000.0 } else { 10_000.0 };
    let (name, parameters) = match (fields.present("rope_parameters"), fields.present("rope_scaling")) {
        (Some(value), _) => ("rope_parameters", Some(value)),
        (None, Some(value)) => ("rope_scaling", Some(value)),
        (None, None) => ("rope_scaling", None),
    };
    let theta = fields.float("rope_theta", default_theta)?;
    let Some(parameters) = parameters else {
        return Ok(Rope { theta, scaling: RopeScaling::None });
    };
    let map = parameters.as_object().ok_or_else(|| fields.error(name, "an object"))?;
    let file = format!("{}: {name}", fields.file);
    let inner = Fields { file: &file, map };
    let theta = inner.float("rope_theta", theta)?;
    if inner.float("partial_rotary_factor", fields.float("partial_rotary_factor", 1.0)?)? != 1.0 {
        return Err(inner.error("partial_rotary_factor", "1"));
    }
    let kind = inner.text("rope_type")?.or(inner.text("type")?).unwrap_or("default");
    let factor = || match inner.present("factor") {
        Some(_) => inner.float("factor", 1.0),
        None => Err(inner.error("factor", "a finite number above 0")),
    };
    let original = || inner.float("original_max_position_embeddings", max_positions as f64);
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor()? },
        "llama3" => {
            let (low, high) = (inner.float("low_freq_factor", 1.0)?, inner.float("high_freq_factor", 4.0)?);
            if high <= low {
                return Err(inner.error("high_freq_factor", "a number above low_freq_factor"));
            }
            RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: low,
                high_freq_factor: high,
                original: original()?,
            }
        }
        "yarn" => {
            let original = original()?;
            let factor = match inner.present("factor") {
                Some(_) => factor()?,
                None => max_positions as f64 / original,
            };
            let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
            let mscale = |field: &str| inner.present(field).and_then(Value::as_f64).filter(|m| *m != 0.0);
            let attention_factor = match (mscale("mscale"), mscale("mscale_all_dim")) {
                (Some(m), Some(all)) => scale(m) / scale(all),
                _ => scale(1.0),
            };
            RopeScaling::Yarn {
                factor,
                beta_fast: inner.float("beta_fast", 32.0)?,
                beta_slow: inner.float("beta_slow", 1.0)?,
                original,
                attention_factor: inner.float("attention_factor", attention_factor)?,
                truncate: inner.flag("truncate", true)?,
            }
        }
        _ => return Err(inner.error("rope_type", "default, linear, llama3 or yarn")),
    };
    Ok(Rope { theta, scaling })
}
