mod fused;
mod transformers;

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ragged::softmax;
use super::*;
use crate::adapter::{Adapter, LoraConfig};
use crate::config::{Head, RopeScaling};
use crate::network::{Candidates, Loss};
use crate::params::{Projection, fill_normal};
use crate::train::AdamWSettings;

/// Small configurations that between them turn every switch.
fn variants() -> Vec<(&'static str, ModelConfig)> {
    let base = ModelConfig::llama(13, 8, 2, 4, 2, 12);
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original: 32.0,
        attention_factor: 1.2,
        truncate: true,
    };
    vec![
        ("plain", base.clone()),
        ("untied, one key head", ModelConfig { tied: false, kv_heads: 1, ..base.clone() }),
        ("heads wider than the stream", ModelConfig { head_dim: 6, qk_norm: true, ..base.clone() }),
        (
            "biases",
            ModelConfig { qkv_bias: true, out_bias: true, mlp_bias: true, kv_heads: 4, ..base.clone() },
        ),
        (
            "windows, a layer without rotation, yarn",
            ModelConfig {
                windows: vec![Some(3), None],
                rope_layers: vec![true, false],
                rope: crate::config::Rope { theta: 100.0, scaling: yarn },
                ..base.clone()
            },
        ),
        ("value head", ModelConfig { head: Head::LanguageAndValue, ..base.clone() }),
        ("token scores", ModelConfig { head: Head::Token { labels: 3 }, ..base.clone() }),
        ("sequence scores", ModelConfig { head: Head::Sequence { labels: 2 }, ..base }),
    ]
}

/// A model whose every weight matters: norms and biases too are away from 1 and 0.
fn model(config: ModelConfig, seed: u64) -> Model {
    let mut model = Model::random(config, seed);
    shake(&mut model.params, seed);
    model
}

fn shake(params: &mut Params, seed: u64) {
    let mut noise = vec![0.0; params.data.len()];
    fill_normal(&mut noise, 0.4, &mut ChaCha8Rng::seed_from_u64(seed));
    params.data.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
}

fn with_adapter(mut model: Model) -> Model {
    let targets = vec![Projection::Query, Projection::Output, Projection::Gate, Projection::Down];
    let config = LoraConfig { rank: 2, alpha: 3.0, rank_stabilized: true, targets, ..LoraConfig::default() };
    let mut adapter = Adapter::new(config, model.config(), 5).unwrap();
    shake(&mut adapter.params, 6);
    model.attach(adapter);
    model
}

/// Sequences of 5, 2, 1 and 7 tokens; the last but one has no target.
fn batch(head: Head) -> Batch {
    let mut batch = Batch::new();
    let scored = if head.has_language() { 0..9 } else { 0..0 };
    batch.push(&[1, 5, 12, 3, 5], scored.clone());
    batch.push(&[7, 0], scored.clone());
    batch.push(&[4], 0..0);
    batch.push(&[2, 2, 9, 11, 6, 1, 8], scored);
    batch
}

/// Everything a network says, for the head it has.
fn everything(config: &ModelConfig) -> Want {
    let language = config.head.has_language();
    let tokens = (0..11 * 2).map(|i| i * 5 % 13).collect();
    Want {
        entropies: language,
        distributions: language,
        candidates: language.then_some(Candidates { per_target: 2, tokens }),
        top: language.then_some(3),
        scores: config.head.scores() > 0,
        hidden: vec![0, 1, config.layers],
        temperature: 0.7,
        adapter: true,
    }
}

fn tensors(outputs: &Outputs) -> Vec<Tensor> {
    let optional = [&outputs.entropies, &outputs.distributions, &outputs.candidates, &outputs.scores];
    let mut tensors = vec![outputs.logps.clone()];
    tensors.extend(optional.into_iter().flatten().cloned());
    tensors.extend(outputs.hidden.iter().cloned());
    tensors
}

/// A scalar to which every output contributes, each element with its own factor.
fn mixture(outputs: &Outputs) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), outputs.logps.dtype(), &Device::Cpu)?;
    for (index, tensor) in tensors(outputs).iter().enumerate() {
        let factors: Vec<f64> = (0..tensor.elem_count()).map(|i| ((i * 7 + index) as f64).sin()).collect();
        let factors = Tensor::new(factors, &Device::Cpu)?.to_dtype(tensor.dtype())?;
        sum = (sum + (tensor.flatten_all()? * factors)?.sum_all()?)?;
    }
    Ok(sum)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn decoder64(model: &Model) -> Decoder {
    Decoder::from_model_as(model, &Device::Cpu, DType::F64).unwrap()
}

/// Checks the gradients of all trained tensors against central differences along a random direction each.
fn check_gradients(name: &str, mut decoder: Decoder) {
    let config = decoder.config.clone();
    let (batch, want) = (batch(config.head), everything(&config));
    decoder
        .accumulate(std::slice::from_ref(&batch), &want, &|_, outputs| Ok(mixture(outputs)?.into()))
        .unwrap();
    let loss = || scalar(&mixture(&decoder.evaluate(&batch, &want).unwrap()).unwrap()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let trained: Vec<_> = decoder.weights.iter().filter(|(_, weight)| weight.trained).collect();
    assert!(!trained.is_empty());
    for (tensor, weight) in trained {
        let direction: Vec<f64> = (0..weight.var.elem_count()).map(|_| rng.random_range(-1.0..1.0)).collect();
        let place = weight.var.as_detached_tensor().copy().unwrap();
        let step = Tensor::new(direction.as_slice(), &Device::Cpu).unwrap().reshape(place.dims()).unwrap();
        let at = |h: f64| {
            weight.var.set(&(&place + (&step * h).unwrap()).unwrap()).unwrap();
            loss()
        };
        let h = 1e-5;
        let slope = (at(h) - at(-h)) / (2.0 * h);
        weight.var.set(&place).unwrap();
        let gradient = &decoder.gradients[tensor];
        let expected: f64 = numbers(gradient).iter().zip(&direction).map(|(g, d)| g * d).sum();
        assert!(
            (slope - expected).abs() < 1e-6 * (1.0 + slope.abs()),
            "{name}: {tensor}: {slope} {expected}"
        );
        assert!(slope.abs() > 1e-6, "{name}: {tensor} has no influence");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (name, config) in variants() {
        check_gradients(name, decoder64(&model(config, 1)));
    }
}

#[test]
fn adapter_gradients_equal_finite_differences() {
    for (name, config) in variants() {
        let decoder = decoder64(&with_adapter(model(config, 2)));
        assert!(decoder.weights.iter().all(|(name, w)| w.trained == name.contains("lora")));
        check_gradients(name, decoder);
    }
}

#[test]
fn frozen_weights_get_no_gradient() {
    let mut model = model(variants().remove(0).1, 1);
    model.set_trained(|entry| entry.name.contains("layers.1.mlp"), true);
    let mut decoder = Decoder::from_model(&model, &Device::Cpu).unwrap();
    let (batch, want) = (batch(Head::Language), Want::default());
    decoder.accumulate(&[batch], &want, &|_, outputs| Ok(outputs.logps.sum_all()?.into())).unwrap();
    let names: Vec<_> = decoder.gradients().keys().map(String::as_str).collect();
    let mlp = ["down_proj", "gate_proj", "up_proj"];
    assert_eq!(names, mlp.map(|p| format!("model.layers.1.mlp.{p}.weight")));
}

#[test]
fn a_switched_off_adapter_leaves_the_base_model() {
    for (name, config) in variants() {
        let plain = model(config.clone(), 4);
        let (batch, want) = (batch(config.head), everything(&config));
        let base = Decoder::from_model(&plain, &Device::Cpu).unwrap().evaluate(&batch, &want).unwrap();
        let adapted = Decoder::from_model(&with_adapter(plain), &Device::Cpu).unwrap();
        let on = adapted.evaluate(&batch, &want).unwrap();
        let off = adapted.evaluate(&batch, &Want { adapter: false, ..want }).unwrap();
        for (base, off) in tensors(&base).iter().zip(tensors(&off)) {
            assert_eq!(distance(base, &off), 0.0, "{name}");
        }
        assert!(distance(&base.hidden[2], &on.hidden[2]) > 1e-2, "{name}");
    }
}

#[test]
fn company_changes_nothing() {
    for (name, config) in variants() {
        let decoder = decoder64(&model(config.clone(), 7));
        let (batch, want) = (batch(config.head), everything(&config));
        let together = decoder.evaluate(&batch, &want).unwrap();
        let alone = (0..batch.len()).map(|sequence| {
            let want = narrow(&want, batch.target_range(sequence));
            decoder.evaluate(&batch.slice(sequence..sequence + 1), &want).unwrap()
        });
        let alone = join(alone.collect()).unwrap();
        assert_eq!(together.top, alone.top, "{name}");
        for (together, alone) in tensors(&together).iter().zip(tensors(&alone)) {
            assert!(distance(together, &alone) < 1e-12, "{name}");
        }
    }
}

#[test]
fn a_large_batch_is_evaluated_in_parts() {
    let config = ModelConfig::llama(13, 4, 1, 2, 1, 4);
    let decoder = Decoder::from_model(&model(config, 7), &Device::Cpu).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut batch = Batch::new();
    while batch.tokens().len() <= 2 * PART_TOKENS {
        let tokens: Vec<u32> = (0..rng.random_range(1..60)).map(|_| rng.random_range(0..13)).collect();
        batch.push(&tokens, 0..60);
    }
    let count = batch.targets().len();
    let tokens = (0..count).map(|_| rng.random_range(0..13)).collect();
    let candidates = Some(Candidates { per_target: 1, tokens });
    let want = Want { candidates, top: Some(2), hidden: vec![1], ..Want::default() };
    let parts = decoder.evaluate(&batch, &want).unwrap();
    let whole = decoder.forward_with(&batch, &access(want, false)).unwrap().outputs;
    assert_eq!(parts.top.unwrap().tokens.len(), 2 * count);
    assert!(distance(&parts.candidates.unwrap(), &whole.candidates.unwrap()) < 1e-5);
    assert!(distance(&parts.hidden[0], &whole.hidden[0]) < 1e-5);
    assert!(distance(&parts.logps, &whole.logps) < 1e-5);
}

#[test]
fn outputs_agree_with_one_another() {
    let config = variants().remove(1).1;
    let decoder = decoder64(&model(config.clone(), 9));
    let (batch, want) = (batch(config.head), everything(&config));
    let outputs = decoder.evaluate(&batch, &want).unwrap();
    let rows = outputs.distributions.as_ref().unwrap().to_vec2::<f64>().unwrap();
    let entropies = numbers(outputs.entropies.as_ref().unwrap());
    let candidates = outputs.candidates.as_ref().unwrap().to_vec2::<f64>().unwrap();
    let (logps, top) = (numbers(&outputs.logps), outputs.top.as_ref().unwrap());
    for (m, row) in rows.iter().enumerate() {
        assert!((row.iter().map(|logp| logp.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(logps[m], row[batch.targets()[m].token as usize]);
        assert!((entropies[m] + row.iter().map(|logp| logp * logp.exp()).sum::<f64>()).abs() < 1e-12);
        for (k, candidate) in candidates[m].iter().enumerate() {
            let token = want.candidates.as_ref().unwrap().tokens[2 * m + k];
            assert_eq!(*candidate, row[token as usize]);
        }
        let mut order: Vec<u32> = (0..13).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        assert_eq!(top.tokens[3 * m..3 * m + 3], order[..3]);
    }
    // Logits come before the temperature of 0.7: their softmax at that temperature is the distribution.
    let rows: Vec<u32> = batch.targets().iter().map(|target| target.row).collect();
    let access = Access { logits: rows, ..access(want, false) };
    let logits =
        (decoder.forward_with(&batch, &access).unwrap().logits.unwrap() / f64::from(0.7f32)).unwrap();
    let distributions = outputs.distributions.unwrap().exp().unwrap();
    assert!(distance(&softmax(&logits).unwrap(), &distributions) < 1e-12);
}

#[test]
fn gradients_reach_input_embeddings() {
    for (name, config) in variants() {
        let decoder = decoder64(&model(config.clone(), 10));
        let (batch, want) = (batch(config.head), everything(&config));
        let given = Var::from_tensor(&decoder.embed(batch.tokens()).unwrap()).unwrap();
        let loss = |given: &Tensor| {
            let access = Access { inputs: Inputs::Embeddings(given), ..access(want.clone(), false) };
            mixture(&decoder.forward_with(&batch, &access).unwrap().outputs).unwrap()
        };
        let plain = mixture(&decoder.evaluate(&batch, &want).unwrap()).unwrap();
        assert_eq!(distance(&loss(&given), &plain), 0.0, "{name}");

        let gradient = numbers(loss(&given).backward().unwrap().get(&given).unwrap());
        let start = numbers(&given);
        for element in (0..start.len()).step_by(5) {
            let at = |h: f64| {
                let mut moved = start.clone();
                moved[element] += h;
                let moved = Tensor::new(moved, &Device::Cpu).unwrap().reshape(given.dims()).unwrap();
                scalar(&loss(&moved)).unwrap()
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - gradient[element]).abs() < 1e-6 * (1.0 + slope.abs()), "{name}: {element}");
        }
    }
}

#[test]
fn soft_tokens_generalise_tokens() {
    let config = variants().remove(0).1;
    let decoder = decoder64(&model(config.clone(), 11));
    let (batch, want) = (batch(config.head), Want { hidden: vec![2], ..Want::default() });
    let rows = batch.tokens().len();
    let mut one_hot = vec![0.0; rows * 13];
    batch.tokens().iter().enumerate().for_each(|(row, &token)| one_hot[row * 13 + token as usize] = 1.0);
    let soft = Var::from_vec(one_hot, (rows, 13), &Device::Cpu).unwrap();
    let access = Access { inputs: Inputs::Distributions(&soft), ..access(want.clone(), false) };
    let outputs = decoder.forward_with(&batch, &access).unwrap().outputs;
    let plain = decoder.evaluate(&batch, &want).unwrap();
    assert!(distance(&outputs.logps, &plain.logps) < 1e-12);

    // The slope along token j at a row is the embedding's gradient times the embedding of j.
    let by_token = outputs.logps.sum_all().unwrap().backward().unwrap().get(&soft).unwrap().clone();
    let given = Var::from_tensor(&decoder.embed(batch.tokens()).unwrap()).unwrap();
    let access = Access { inputs: Inputs::Embeddings(&given), ..access };
    let logps = decoder.forward_with(&batch, &access).unwrap().outputs.logps;
    let by_embedding = logps.sum_all().unwrap().backward().unwrap().get(&given).unwrap().clone();
    let table = decoder.tensor("model.embed_tokens.weight").unwrap().detach();
    assert!(distance(&by_token, &by_embedding.matmul(&table.t().unwrap()).unwrap()) < 1e-12);
}

#[test]
fn integrated_gradients_add_up() {
    // Along the straight path from a baseline, the gradients of a logit with respect to the embeddings integrate to
    // the logit's change (arXiv:1703.01365).
    let config = variants().remove(0).1;
    let decoder = decoder64(&model(config.clone(), 17));
    let mut batch = Batch::new();
    batch.push(&[3, 8, 1, 12, 5], 0..0);
    let end = decoder.embed(batch.tokens()).unwrap();
    let start = decoder.embed(&[2; 5]).unwrap();
    let logit = |x: &Tensor| {
        let access = Access { inputs: Inputs::Embeddings(x), logits: vec![4], ..Access::default() };
        let logits = decoder.forward_with(&batch, &access).unwrap().logits.unwrap();
        logits.get(0).unwrap().get(7).unwrap()
    };
    let path = (&end - &start).unwrap();
    let steps = 400;
    let mut total = 0.0;
    for step in 0..steps {
        let share = (f64::from(step) + 0.5) / f64::from(steps);
        let x = Var::from_tensor(&(&start + (&path * share).unwrap()).unwrap()).unwrap();
        let gradient = logit(&x).backward().unwrap().get(&x).unwrap().clone();
        total += scalar(&(gradient * &path).unwrap().sum_all().unwrap()).unwrap() / f64::from(steps);
    }
    let change = scalar(&logit(&end)).unwrap() - scalar(&logit(&start)).unwrap();
    assert!(change.abs() > 0.05 && (total - change).abs() < 1e-3 * change.abs(), "{total} {change}");
}

/// Runs a batch and returns the activation at every hook point, in order.
fn activations(decoder: &Decoder, batch: &Batch) -> Vec<(HookPoint, Tensor)> {
    let seen = RefCell::new(vec![]);
    let hook = |point: HookPoint, x: &Tensor| {
        seen.borrow_mut().push((point, x.clone()));
        Ok(x.clone())
    };
    decoder.forward_with(batch, &Access { hook: Some(&hook), ..Access::default() }).unwrap();
    seen.into_inner()
}

#[test]
fn hooks_see_the_stream_and_what_is_added_to_it() {
    use HookPoint::*;
    let config = variants().remove(0).1;
    let decoder = decoder64(&model(config.clone(), 12));
    let batch = batch(config.head);
    let seen = activations(&decoder, &batch);
    let layer = |l| [AttentionNorm(l), Attention(l), AttentionResidual(l), MlpNorm(l), Mlp(l), Layer(l)];
    let order: Vec<_> = [vec![Embedding], layer(0).into(), layer(1).into(), vec![FinalNorm]].concat();
    assert_eq!(seen.iter().map(|(point, _)| *point).collect::<Vec<_>>(), order);
    let at = |point| &seen.iter().find(|(p, _)| *p == point).unwrap().1;
    let sums = [
        (Embedding, Attention(0), AttentionResidual(0)),
        (AttentionResidual(0), Mlp(0), Layer(0)),
        (Layer(0), Attention(1), AttentionResidual(1)),
    ];
    for (before, added, after) in sums {
        assert_eq!(distance(&(at(before) + at(added)).unwrap(), at(after)), 0.0, "{after:?}");
    }
    let want = Want { hidden: vec![0, 1, 2], ..Want::default() };
    let hidden = decoder.evaluate(&batch, &want).unwrap().hidden;
    for (state, point) in hidden.iter().zip([Embedding, Layer(0), FinalNorm]) {
        assert_eq!(distance(state, at(point)), 0.0, "{point:?}");
    }
}

#[test]
fn what_a_hook_returns_takes_the_place_of_the_activation() {
    use HookPoint::*;
    let config = variants().remove(3).1;
    let decoder = decoder64(&model(config.clone(), 13));
    let batch = batch(config.head);
    let mut other = Batch::new();
    for rows in batch.sequences() {
        let tokens: Vec<u32> = batch.tokens()[rows].iter().map(|token| (token + 5) % 13).collect();
        other.push(&tokens, 0..0);
    }
    let theirs = activations(&decoder, &other);
    let want = Want { hidden: vec![2], ..Want::default() };
    let state = |batch: &Batch| decoder.evaluate(batch, &want).unwrap().hidden.remove(0);
    let (ours, target) = (state(&batch), state(&other));
    for (point, replacement) in &theirs {
        let hook = |at: HookPoint, x: &Tensor| Ok(if at == *point { replacement.clone() } else { x.clone() });
        let access = Access { hook: Some(&hook), ..access(want.clone(), false) };
        let patched = decoder.forward_with(&batch, &access).unwrap().outputs.hidden.remove(0);
        let whole = matches!(point, Embedding | AttentionResidual(_) | Layer(_) | FinalNorm);
        // All later computation depends on the stream alone; a branch carries only part of it.
        assert_eq!(distance(&patched, &target) == 0.0, whole, "{point:?}");
        assert!(distance(&patched, &ours) > 1e-3, "{point:?}");
    }
    let hook = |_: HookPoint, x: &Tensor| Ok(x.narrow(0, 0, 1)?);
    let error = decoder.forward_with(&batch, &Access { hook: Some(&hook), ..Access::default() }).unwrap_err();
    assert_eq!(error.to_string(), "hook at Embedding: needs shape [15, 8], got [1, 8]");
}

#[test]
fn gradients_reach_a_map_inside_a_hook_through_later_layers() {
    let config = variants().remove(2).1;
    let decoder = decoder64(&model(config.clone(), 14));
    let batch = batch(config.head);
    let scale = Var::from_vec(vec![1.1f64; 8], 8, &Device::Cpu).unwrap();
    let loss = |scale: &Tensor| {
        let hook = |point: HookPoint, x: &Tensor| match point {
            HookPoint::MlpNorm(_) => Ok(x.broadcast_mul(scale)?),
            _ => Ok(x.clone()),
        };
        let access = Access { hook: Some(&hook), ..Access::default() };
        decoder.forward_with(&batch, &access).unwrap().outputs.logps.sum_all().unwrap()
    };
    let gradient = numbers(loss(&scale).backward().unwrap().get(&scale).unwrap());
    for (element, gradient) in gradient.iter().enumerate() {
        let at = |h: f64| {
            let mut moved = vec![1.1; 8];
            moved[element] += h;
            scalar(&loss(&Tensor::new(moved, &Device::Cpu).unwrap())).unwrap()
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - gradient).abs() < 1e-6 * (1.0 + slope.abs()), "{element}: {slope} {gradient}");
    }
}

#[test]
fn attention_probabilities_cover_the_window() {
    let config = variants().remove(4).1;
    let decoder = decoder64(&model(config.clone(), 15));
    let batch = batch(config.head);
    let access = Access { attention: vec![1, 0], ..Access::default() };
    let trace = decoder.forward_with(&batch, &access).unwrap();
    for (layer, window) in [(1, 7), (0, 3)] {
        let of_layer = &trace.attention[if layer == 1 { 0 } else { 1 }];
        assert_eq!(of_layer.len(), batch.len());
        for (sequence, rows) in batch.sequences().enumerate() {
            let length = rows.len();
            assert_eq!(of_layer[sequence].dims(), [4, length, length]);
            for head in of_layer[sequence].to_vec3::<f64>().unwrap() {
                for (query, row) in head.iter().enumerate() {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    for (key, probability) in row.iter().enumerate() {
                        let seen = key <= query && key + window > query;
                        assert_eq!(*probability > 0.0, seen, "layer {layer}, query {query}, key {key}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_pass_can_stop_early() {
    let config = variants().remove(0).1;
    let decoder = decoder64(&model(config.clone(), 16));
    let mut batch = Batch::new();
    batch.push(&[1, 2, 3], 0..0);
    let want = Want { hidden: vec![1], ..Want::default() };
    let whole = decoder.evaluate(&batch, &want).unwrap();
    let early = Access { layers: Some(1), ..access(want, false) };
    let early = decoder.forward_with(&batch, &early).unwrap().outputs;
    assert_eq!(distance(&early.hidden[0], &whole.hidden[0]), 0.0);
    assert_eq!(early.logps.dims(), [0]);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let decoder = Decoder::from_model(&model(variants().remove(0).1, 1), &Device::Cpu).unwrap();
    let batch = batch(Head::Language);
    let refused = |access: Access| decoder.forward_with(&batch, &access).unwrap_err().to_string();
    let want = |change: &dyn Fn(&mut Want)| {
        let mut want = Want::default();
        change(&mut want);
        refused(access(want, false))
    };
    assert_eq!(want(&|w| w.hidden = vec![3]), "`hidden`: needs states up to 2, got 3");
    assert_eq!(want(&|w| w.temperature = 0.0), "`temperature`: needs a finite number above 0, got 0");
    assert_eq!(want(&|w| w.scores = true), "`scores`: needs a whole pass through a score head, got none");
    let few = Some(Candidates { per_target: 2, tokens: vec![1] });
    assert_eq!(want(&|w| w.candidates = few.clone()), "candidates: needs shape [11, 2], got [1]");
    let wrong = Tensor::zeros((15, 9), DType::F32, &Device::Cpu).unwrap();
    let wrong = Access { inputs: Inputs::Embeddings(&wrong), ..Access::default() };
    assert_eq!(refused(wrong), "inputs: needs shape [15, 8], got [15, 9]");
    let deep = Access { attention: vec![2], ..Access::default() };
    assert_eq!(refused(deep), "`attention`: needs layers below 2, got 2");
    let early = Access { layers: Some(1), ..Access::default() };
    assert!(refused(early).contains("whole pass through a language head"));
    assert_eq!(
        decoder.evaluate(&Batch::new(), &Want::default()).unwrap_err().to_string(),
        "`batch`: needs at least 1 sequence, got none"
    );
    assert!(decoder.embed(&[13]).unwrap_err().to_string().contains("token 13"));
}

#[test]
fn adamw_steps_as_torch_does() {
    // torch.optim.AdamW([w], lr=0.1, weight_decay=0.5) on w = [[1, -2]] with gradients [[0.5, -1]], [[0.5, 3]],
    // [[-4, 0.25]]; on a norm's weight, without decay, the same values give the second line.
    let config = ModelConfig::llama(1, 2, 1, 1, 1, 1);
    let mut decoder = decoder64(&Model::random(config, 1));
    let (matrix, norm) = ("model.layers.0.mlp.gate_proj.weight", "model.norm.weight");
    let tensor = |values: [f64; 2], name: &str| {
        let shape = if name == matrix { vec![1, 2] } else { vec![2] };
        Tensor::new(&values, &Device::Cpu).unwrap().reshape(shape).unwrap()
    };
    for name in [matrix, norm] {
        decoder.weights[name].var.set(&tensor([1.0, -2.0], name)).unwrap();
    }
    let settings = AdamWSettings { weight_decay: 0.5, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(settings).unwrap();
    for gradient in [[0.5, -1.0], [0.5, 3.0], [-4.0, 0.25]] {
        for name in [matrix, norm] {
            decoder.gradients.insert(name.into(), tensor(gradient.map(|g| 2.0 * g), name));
        }
        // A gradient of twice the size, halved as clipping would.
        optimizer.update(&mut decoder, 0.1, 0.5).unwrap();
        assert!(decoder.gradients().is_empty());
    }
    let expected = [
        (matrix, [0.7215859813239225, -1.714567410516204]),
        (norm, [0.8494609816189226, -1.9925383597691415]),
    ];
    for (name, expected) in expected {
        let got = numbers(decoder.tensor(name).unwrap());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{name}: {got:?}");
    }
}

#[test]
fn weights_come_back_to_the_model() {
    let mut source = with_adapter(model(variants().remove(0).1, 1));
    let mut decoder = Decoder::from_model(&source, &Device::Cpu).unwrap();
    let before = source.adapter.as_ref().unwrap().params.data.clone();
    let batch = batch(Head::Language);
    decoder
        .accumulate(&[batch], &Want::default(), &|_, outputs| Ok(outputs.logps.sum_all()?.neg()?.into()))
        .unwrap();
    let squares: f64 = decoder.gradients().values().flat_map(numbers).map(|g| g * g).sum();
    assert!((decoder.gradient_norm().unwrap() - squares.sqrt()).abs() < 1e-5 * squares.sqrt());
    AdamW::new(AdamWSettings::default()).unwrap().update(&mut decoder, 0.1, 1.0).unwrap();
    let base = source.params.data.clone();
    decoder.sync_to(&mut source).unwrap();
    assert_eq!(source.params.data, base);
    let after = &source.adapter.as_ref().unwrap().params.data;
    // A first step of AdamW moves every weight by the learning rate, plus 0.1 % decay.
    assert!(before.iter().zip(after).all(|(b, a)| ((b * 0.999 - a).abs() - 0.1).abs() < 1e-3));
    source.detach();
    assert!(decoder.sync_to(&mut source).is_ok());
}

#[test]
fn devices_have_names() {
    assert!(device("cpu").unwrap().is_cpu());
    assert_eq!(device("tpu").unwrap_err().to_string(), "`device`: needs cpu, cuda or cuda:N, got tpu");
    assert!(device("cuda:x").is_err());
    if !cfg!(feature = "cuda") {
        assert!(device("cuda").unwrap_err().to_string().contains("this build has no CUDA"));
    }
}
