//! LoRA adapters as PEFT folders, in and out, and merging them into the weights.

use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::tensors::TensorFiles;
use super::write::{atomically, write_object, write_tensors};
use super::{Problems, read_object};
use crate::adapter::{Adapter, LoraConfig};
use crate::config::{DType, Fields, ModelConfig};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::params::{Params, Projection};

/// Fields of `adapter_config.json` that do not change what the adapter computes. Dropout acts in PEFT's own training
/// only.
const INERT: [&str; 10] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Fields that are read.
const READ: [&str; 9] = [
    "bias",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "target_modules",
    "use_rslora",
];

/// Reads an adapter for a model of this configuration.
///
/// # Errors
/// [`Error::Config`] naming a field that asks for something other than plain or rank-stabilised LoRA on the seven
/// projections; else as [`super::read`].
pub fn read_adapter(folder: &Path, model: &ModelConfig) -> Result<Adapter> {
    let path = folder.join("adapter_config.json");
    let map = read_object(&path)?;
    let config = read_config(&path.display().to_string(), &map, model)?;
    let files = TensorFiles::open(folder, "adapter_model")?;
    let layout = Adapter::layout(&config, model)?;
    // An adapter that was trained on a bare decoder (`LlamaModel`) lacks one level of names.
    let bare = !files.iter().any(|(name, _)| name.starts_with(PREFIX));
    let stored_name = |name: &str| match name.strip_prefix(PREFIX) {
        Some(rest) if bare => format!("base_model.model.{rest}"),
        _ => name.to_string(),
    };
    let mut problems = Problems::new(folder);
    let mut known = std::collections::BTreeSet::new();
    for entry in layout.entries() {
        let name = stored_name(&entry.name);
        files.check(&name, &entry.shape, &mut problems);
        known.insert(name);
    }
    for (name, stored) in files.iter().filter(|(name, _)| !known.contains(*name)) {
        problems.add(files.path(stored), name, "unexpected; adapter_config.json targets no such module");
    }
    problems.finish()?;
    let mut params = Params::zeros(Arc::new(layout));
    for entry in params.layout().clone().entries() {
        files.read_into(&stored_name(&entry.name), &mut params.data[entry.range()])?;
    }
    Ok(Adapter::of_params(config, model, params))
}

const PREFIX: &str = "base_model.model.model.";

fn read_config(file: &str, map: &Map<String, Value>, model: &ModelConfig) -> Result<LoraConfig> {
    let fields = Fields { file, map };
    if fields.text("peft_type")? != Some("LORA") {
        return Err(fields.error("peft_type", "LORA"));
    }
    if !matches!(fields.text("bias")?, None | Some("none")) {
        return Err(fields.error("bias", "none"));
    }
    // Other ways to initialise change the base weights too, and the adapter is of no use without those.
    let plain = match fields.present("init_lora_weights") {
        None | Some(Value::Bool(_)) => true,
        Some(value) => matches!(value.as_str(), Some("gaussian" | "eva" | "orthogonal")),
    };
    if !plain {
        return Err(fields.error("init_lora_weights", "true, false, gaussian, eva or orthogonal"));
    }
    for (field, value) in map {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        };
        if !empty && !READ.contains(&field.as_str()) && !INERT.contains(&field.as_str()) {
            return Err(fields.error(field, "nothing: this kind of adapter is not supported"));
        }
    }
    let pattern = fields.present("layers_pattern");
    let default_pattern = pattern.is_none_or(|pattern| match pattern {
        Value::Array(names) => names.iter().all(|name| name.as_str() == Some("layers")),
        name => matches!(name.as_str(), Some("" | "layers")),
    });
    if !default_pattern {
        return Err(fields.error("layers_pattern", "layers"));
    }
    let (targets, layers) = read_sites(&fields, model)?;
    Ok(LoraConfig {
        rank: fields.size("r", Some(8))?,
        alpha: fields.float("lora_alpha", 8.0)? as f32,
        rank_stabilized: fields.flag("use_rslora", false)?,
        targets,
        layers,
        base_model: fields.text("base_model_name_or_path")?.map(String::from),
    })
}

/// Which projections of which layers carry an update, by PEFT's rules of matching.
fn read_sites(fields: &Fields, model: &ModelConfig) -> Result<(Vec<Projection>, Option<Vec<usize>>)> {
    let needed = "a list of module names, a regular expression, or all-linear";
    let matches: Box<dyn Fn(&str) -> bool> = match fields.present("target_modules") {
        Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => Box::new(|_| true),
        Some(Value::String(pattern)) => {
            let regex = Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|_| fields.error("target_modules", "a regular expression without look-around"))?;
            Box::new(move |name| regex.is_match(name))
        }
        Some(Value::Array(names)) => {
            let names: Option<Vec<String>> = names.iter().map(|n| n.as_str().map(String::from)).collect();
            let names = names.ok_or_else(|| fields.error("target_modules", needed))?;
            Box::new(move |module| {
                names.iter().any(|name| {
                    module
                        .strip_suffix(name.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                })
            })
        }
        _ => return Err(fields.error("target_modules", needed)),
    };
    let needed = "a layer or a list of layers that the model has";
    let layer = |value: &Value| value.as_u64().map(|n| n as usize).filter(|&layer| layer < model.layers);
    let listed = match fields.present("layers_to_transform") {
        Some(Value::Array(layers)) => layers,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let chosen: Option<Vec<usize>> = listed.iter().map(layer).collect();
    let chosen = chosen.ok_or_else(|| fields.error("layers_to_transform", needed))?;
    let mut sites: Vec<(usize, Vec<Projection>)> = vec![];
    for layer in (0..model.layers).filter(|layer| chosen.is_empty() || chosen.contains(layer)) {
        // With and without the prefix of a bare decoder.
        let carries = |p: &Projection| {
            let name = format!("layers.{layer}.{}", p.path());
            matches(&format!("model.{name}")) || matches(&name)
        };
        let targets: Vec<Projection> = Projection::ALL.into_iter().filter(carries).collect();
        if !targets.is_empty() {
            sites.push((layer, targets));
        }
    }
    let Some((_, targets)) = sites.first().cloned() else {
        let names = "at least one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
        return Err(fields.error("target_modules", names));
    };
    if sites.iter().any(|(_, other)| *other != targets) {
        return Err(fields.error("target_modules", "the same projections in every layer that has any"));
    }
    let layers: Vec<usize> = sites.into_iter().map(|(layer, _)| layer).collect();
    Ok((targets, (layers.len() < model.layers).then_some(layers)))
}

/// Saves an adapter as a PEFT folder, in f32, replacing an earlier one in a single step.
///
/// # Errors
/// As [`super::write()`].
pub fn write_adapter(adapter: &Adapter, model: &ModelConfig, folder: &Path) -> Result<()> {
    atomically(folder, |partial| {
        let config = &adapter.config;
        // Short names: a layer's name follows from its number.
        let targets: Vec<&str> =
            config.targets.iter().map(|p| p.path().rsplit('.').next().unwrap_or(p.path())).collect();
        // PEFT adds a copy of the head to adapters of other tasks, which these do not carry.
        let task = model.head.has_language().then_some("CAUSAL_LM");
        let fields = json!({
            "task_type": task,
            "peft_type": "LORA",
            "auto_mapping": null,
            "base_model_name_or_path": config.base_model,
            "revision": null,
            "inference_mode": true,
            "r": config.rank,
            "target_modules": targets,
            "lora_alpha": config.alpha,
            "lora_dropout": 0.0,
            "fan_in_fan_out": false,
            "bias": "none",
            "use_rslora": config.rank_stabilized,
            "modules_to_save": null,
            "init_lora_weights": true,
            "layers_to_transform": config.layers,
            "layers_pattern": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "use_dora": false,
        });
        let Value::Object(mut fields) = fields else {
            return Err(Error::argument("adapter", "settings that are a JSON object", fields));
        };
        if config.alpha.fract() == 0.0 {
            fields.insert("lora_alpha".into(), (config.alpha as u64).into());
        }
        write_object(&partial.join("adapter_config.json"), &fields)?;
        let entries: Vec<_> = adapter.params.layout().entries().iter().collect();
        write_tensors(&partial.join("adapter_model.safetensors"), &adapter.params, &entries, DType::F32)
    })
}

/// The model's weights with its adapter worked in: `W + scale · B A` at every site. A copy of the weights if there is
/// no adapter.
pub fn merge(model: &Model) -> Params {
    let mut params = model.params.clone();
    let Some(adapter) = &model.adapter else {
        return params;
    };
    let (config, rank, scale) = (model.config(), adapter.config.rank, adapter.scale());
    for layer in 0..config.layers {
        for projection in Projection::ALL {
            let Some(site) = adapter.site(layer, projection) else { continue };
            let (outputs, inputs) = projection.shape(config);
            let name = format!("model.layers.{layer}.{}.weight", projection.path());
            let Some(entry) = model.params.layout().get(&name) else { continue };
            let a = &adapter.params.data[site.a..site.a + rank * inputs];
            let b = &adapter.params.data[site.b..site.b + outputs * rank];
            let mut update = vec![0.0; inputs];
            for (row, factors) in
                params.data[entry.range()].chunks_exact_mut(inputs).zip(b.chunks_exact(rank))
            {
                update.fill(0.0);
                for (a, &factor) in a.chunks_exact(inputs).zip(factors) {
                    update.iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * a);
                }
                row.iter_mut().zip(&update).for_each(|(weight, &update)| *weight += scale * update);
            }
        }
    }
    params
}
