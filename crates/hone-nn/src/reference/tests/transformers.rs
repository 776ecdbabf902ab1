//! Equality with `transformers` and `peft` on the checkpoints under `tests/fixtures`, which `compare/fixtures.py`
//! wrote together with what those say about them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expected(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name).join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn integers(tensor: &Tensor) -> Vec<u32> {
    numbers(tensor).into_iter().map(|value| value as u32).collect()
}

/// The sequences of a fixture; with targets if the model predicts tokens.
fn fixture_batch(expected: &HashMap<String, Tensor>, targets: bool) -> Batch {
    let (tokens, mask) = (integers(&expected["tokens"]), integers(&expected["mask"]));
    let mut batch = Batch::new();
    let mut start = 0;
    for length in integers(&expected["lengths"]) {
        let rows = start..start + length as usize;
        let mask: Vec<bool> = mask[rows.clone()].iter().map(|&scored| targets && scored == 1).collect();
        batch.push_masked(&tokens[rows.clone()], &mask).unwrap();
        start = rows.end;
    }
    batch
}

/// The loss that `compare/fixtures.py` differentiates: cross-entropy of the targets and the part of the head.
fn fixture_loss(expected: &HashMap<String, Tensor>, outputs: &Outputs) -> Result<Tensor> {
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    if outputs.logps.elem_count() > 0 {
        loss = (loss - outputs.logps.mean_all()?)?;
    }
    if let Some(scores) = &outputs.scores {
        let labels = &expected["labels"];
        loss = (loss
            + match labels.dtype() {
                DType::F32 => ((scores.squeeze(1)? - labels)?.sqr()?.mean_all()? * 0.5)?,
                _ => candle_nn::loss::cross_entropy(scores, &labels.to_dtype(DType::U32)?)?,
            })?;
    }
    Ok(loss)
}

fn close(got: &Tensor, expected: &Tensor, what: &str) {
    let scale = numbers(expected).into_iter().map(f64::abs).fold(1.0, f64::max);
    let worst = distance(got, expected);
    assert!(worst < 1e-4 * scale, "{what}: {worst}");
}

fn check(name: &str, model: &Model) {
    let expected = expected(name);
    let mut decoder = Decoder::from_model(model, &Device::Cpu).unwrap();
    let config = decoder.config.clone();
    let batch = fixture_batch(&expected, expected.contains_key("logits"));
    let rows = batch.tokens().len() as u32;
    let logits = if expected.contains_key("logits") { (0..rows).collect() } else { vec![] };
    let hidden = (0..=config.layers).collect();
    let want = Want { hidden, scores: config.head.scores() > 0, ..Want::default() };
    let trace = decoder.forward_with(&batch, &Access { logits, ..access(want.clone(), false) }).unwrap();
    let mut compared = 0;
    for (layer, state) in trace.outputs.hidden.iter().enumerate() {
        close(state, &expected[&format!("hidden.{layer}")], &format!("{name}: hidden state {layer}"));
    }
    if let Some(logits) = expected.get("logits") {
        close(&trace.logits.unwrap(), logits, &format!("{name}: logits"));
        compared += 1;
    }
    if let Some(scores) = &trace.outputs.scores {
        close(scores, &expected["scores"], &format!("{name}: scores"));
        compared += 1;
    }
    assert!(compared > 0, "{name}: neither logits nor scores");
    let loss_of = |_: usize, outputs: &Outputs| Ok(fixture_loss(&expected, outputs)?.into());
    let values = decoder.accumulate(&[batch], &want, &loss_of).unwrap();
    let loss = scalar(&expected["loss"]).unwrap();
    assert!((values[0].value - loss).abs() < 1e-4, "{name}: loss {} {loss}", values[0].value);
    let gradients: Vec<_> =
        expected.iter().filter_map(|(key, g)| Some((key.strip_prefix("grad.")?, g))).collect();
    assert_eq!(decoder.gradients().len(), gradients.len(), "{name}");
    for (tensor, gradient) in gradients {
        let got = decoder.gradients()[tensor].to_dtype(DType::F32).unwrap();
        let size = numbers(gradient).into_iter().map(f64::abs).fold(0.0, f64::max);
        let worst = distance(&got, gradient);
        assert!(worst < 1e-4 * size.max(1e-3), "{name}: gradient of {tensor}: {worst} of {size}");
    }
}

#[test]
fn checkpoints_of_every_family() {
    let families = [
        "llama",
        "llama_bias",
        "llama3_rope",
        "linear_rope",
        "yarn_rope",
        "mistral",
        "qwen2",
        "qwen3",
        "smollm3",
        "bf16",
        "sharded_f16",
        "sequence_head",
        "token_head",
        "value_head",
    ];
    for name in families {
        check(name, &crate::folder::read(&fixture(name)).unwrap());
    }
    // A bare decoder gets a head of our own; its states are what there is to compare.
    let loaded = crate::folder::read_with_head(&fixture("llama_bare"), Head::Token { labels: 1 }, 1).unwrap();
    let want = Want { hidden: vec![0, 1, 2], ..Want::default() };
    let expected = expected("llama_bare");
    let decoder = Decoder::from_model(&loaded.model, &Device::Cpu).unwrap();
    let hidden = decoder.evaluate(&fixture_batch(&expected, false), &want).unwrap().hidden;
    for (layer, state) in hidden.iter().enumerate() {
        close(state, &expected[&format!("hidden.{layer}")], &format!("llama_bare: hidden state {layer}"));
    }
}

#[test]
fn adapters_of_peft() {
    for (name, base) in [("lora", "llama"), ("lora_rs", "qwen3"), ("lora_regex", "llama")] {
        let mut model = crate::folder::read(&fixture(base)).unwrap();
        let adapter = crate::folder::read_adapter(&fixture(name), model.config()).unwrap();
        model.attach(adapter);
        check(name, &model);
    }
}

#[test]
fn the_curve_of_an_adamw_run() {
    let expected = expected("llama");
    let model = crate::folder::read(&fixture("llama")).unwrap();
    let mut decoder = Decoder::from_model(&model, &Device::Cpu).unwrap();
    let settings = AdamWSettings { decay: crate::train::Decay::All, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(settings).unwrap();
    for (step, loss) in numbers(&expected["curve.losses"]).into_iter().enumerate() {
        let tokens = integers(&expected[&format!("curve.{}.tokens", step % 4)]);
        let mut batch = Batch::new();
        let mut start = 0;
        for length in integers(&expected[&format!("curve.{}.lengths", step % 4)]) {
            let end = start + length as usize;
            batch.push(&tokens[start..end], 0..end);
            start = end;
        }
        let mean = |_: usize, outputs: &Outputs| Ok(outputs.logps.mean_all()?.neg()?.into());
        let got = decoder.accumulate(&[batch], &Want::default(), &mean).unwrap()[0].value;
        assert!((got - loss).abs() < 1e-3, "step {step}: {got} {loss}");
        optimizer.update(&mut decoder, 1e-3, 1.0).unwrap();
    }
}
