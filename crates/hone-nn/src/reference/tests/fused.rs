//! The fused CPU code equals the reference in f64, on models and batches drawn at random.

use super::*;
use crate::config::{Family, Rope};

fn pick<T: Clone>(rng: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())].clone()
}

/// A small configuration with every switch drawn.
fn any_config(rng: &mut ChaCha8Rng) -> ModelConfig {
    let layers = rng.random_range(1..=3);
    let kv_heads = rng.random_range(1..=3);
    let heads = kv_heads * rng.random_range(1..=3);
    let vocab = rng.random_range(5..80);
    let width = rng.random_range(3..40);
    let scaling = RopeScaling::Linear { factor: 1.5 };
    ModelConfig {
        family: Family::Llama,
        head_dim: 2 * rng.random_range(1..=9),
        rope: Rope { theta: 50.0, scaling: pick(rng, &[RopeScaling::None, scaling]) },
        rope_layers: (0..layers).map(|_| rng.random_bool(0.8)).collect(),
        windows: (0..layers).map(|_| pick(rng, &[None, None, Some(1), Some(5), Some(33)])).collect(),
        qk_norm: rng.random_bool(0.3),
        qkv_bias: rng.random_bool(0.3),
        out_bias: rng.random_bool(0.3),
        mlp_bias: rng.random_bool(0.3),
        tied: rng.random_bool(0.5),
        head: pick(
            rng,
            &[
                Head::Language,
                Head::Language,
                Head::LanguageAndValue,
                Head::Sequence { labels: 3 },
                Head::Token { labels: 2 },
            ],
        ),
        ..ModelConfig::llama(vocab, width, layers, heads, kv_heads, rng.random_range(3..50))
    }
}

/// Trains everything, an adapter, an adapter with some of the base, or some of the base.
fn any_model(rng: &mut ChaCha8Rng) -> Model {
    let seed = rng.random();
    let mut model = Model::random(any_config(rng), seed);
    let mut noise = vec![0.0; model.params.data.len()];
    fill_normal(&mut noise, 0.2, rng);
    model.params.data.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
    let adapter = rng.random_bool(0.5);
    if adapter {
        let targets: Vec<_> = Projection::ALL.into_iter().filter(|_| rng.random_bool(0.5)).collect();
        let targets = if targets.is_empty() { vec![Projection::Up] } else { targets };
        let layers = rng.random_bool(0.3).then(|| vec![model.config().layers - 1]);
        let config = LoraConfig { rank: rng.random_range(1..=4), targets, layers, ..LoraConfig::default() };
        let mut adapter = Adapter::new(config, model.config(), seed).unwrap();
        // Gentler than elsewhere: the fused backward pass takes probabilities from a rounded logsumexp, which costs
        // digits when attention scores are in the hundreds.
        let mut noise = vec![0.0; adapter.params.data.len()];
        fill_normal(&mut noise, 0.15, rng);
        adapter.params.data.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
        model.attach(adapter);
    }
    if rng.random_bool(0.4) {
        let salt: u64 = rng.random();
        // Any selection, the same whenever it is asked.
        let base = |entry: &crate::params::Entry| {
            ChaCha8Rng::seed_from_u64(salt ^ entry.offset as u64).random_bool(0.5)
        };
        model.set_trained(base, adapter);
    }
    model.threads = rng.random_range(1..=3);
    model.chunk_tokens = pick(rng, &[1, 16, 40, 768]);
    model
}

fn any_batch(rng: &mut ChaCha8Rng, config: &ModelConfig) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..rng.random_range(1..=5) {
        let length = pick(rng, &[1, 2, 7, 16, 33, 70]);
        let tokens: Vec<u32> = (0..length).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
        let share = if config.head.has_language() { pick(rng, &[0.0, 0.5, 1.0]) } else { 0.0 };
        let mask: Vec<bool> = tokens.iter().map(|_| rng.random_bool(share)).collect();
        batch.push_masked(&tokens, &mask).unwrap();
    }
    if rng.random_bool(0.3) {
        (0..batch.tokens().len()).filter(|_| rng.random_bool(0.3)).for_each(|row| batch.hide(row));
    }
    batch
}

fn any_want(rng: &mut ChaCha8Rng, config: &ModelConfig, targets: Option<usize>) -> Want {
    let candidates = targets.filter(|_| rng.random_bool(0.5)).map(|count| {
        let per_target = rng.random_range(1..=4);
        let tokens = (0..count * per_target).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
        Candidates { per_target, tokens }
    });
    Want {
        entropies: rng.random_bool(0.5),
        distributions: rng.random_bool(0.3),
        candidates,
        top: rng.random_bool(0.3).then_some(3),
        scores: config.head.scores() > 0,
        hidden: (0..=config.layers).filter(|_| rng.random_bool(0.3)).collect(),
        temperature: pick(rng, &[1.0, 0.5, 1.7]),
        adapter: rng.random_bool(0.8),
    }
}

fn largest(tensor: &Tensor) -> f64 {
    numbers(tensor).into_iter().map(f64::abs).fold(0.0, f64::max)
}

/// Compares all outputs, to 1e-4 of the largest number where that is above 1.
fn compare_outputs(seed: u64, fused: &Outputs, reference: &Outputs) {
    let (a, b) = (tensors(fused), tensors(reference));
    assert_eq!(a.len(), b.len(), "seed {seed}");
    for (index, (a, b)) in a.iter().zip(&b).enumerate() {
        let worst = distance(a, b);
        assert!(worst < 1e-4 * largest(b).max(1.0), "seed {seed}: output {index}: {worst}");
    }
    match (&fused.top, &reference.top) {
        (None, None) => {}
        (Some(fused), Some(reference)) => {
            assert_eq!(fused.per_target, reference.per_target, "seed {seed}");
            assert_eq!(fused.tokens.len(), reference.tokens.len(), "seed {seed}");
            // Tokens that are equally likely may change places.
            for ((a, b), (x, y)) in
                fused.logps.iter().zip(&reference.logps).zip(fused.tokens.iter().zip(&reference.tokens))
            {
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "seed {seed}: token {x} or {y}: {a} {b}");
            }
        }
        _ => panic!("seed {seed}: only one of the two gave top tokens"),
    }
}

fn compare(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut model = any_model(&mut rng);
    let mut decoder = decoder64(&model);
    let config = decoder.config.clone();
    let parts: Vec<Batch> = (0..rng.random_range(1..=3)).map(|_| any_batch(&mut rng, &config)).collect();
    let whole = any_want(&mut rng, &config, Some(parts[0].targets().len()));
    compare_outputs(
        seed,
        &Network::evaluate(&model, &parts[0], &whole).unwrap(),
        &decoder.evaluate(&parts[0], &whole).unwrap(),
    );

    let alone = (parts.len() == 1).then(|| parts[0].targets().len());
    let want = any_want(&mut rng, &config, alone);
    let loss = |part: usize, outputs: &Outputs| {
        Ok(Loss { value: (mixture(outputs)? * (part as f64 + 0.5))?, metrics: vec![("part", part as f64)] })
    };
    // Twice, so that gradients have to add up.
    for _ in 0..2 {
        let fused = model.accumulate(&parts, &want, &loss).unwrap();
        let reference = decoder.accumulate(&parts, &want, &loss).unwrap();
        for (fused, reference) in fused.iter().zip(&reference) {
            let scale = reference.value.abs().max(10.0);
            assert!(
                (fused.value - reference.value).abs() < 1e-4 * scale,
                "seed {seed}: {fused:?} {reference:?}"
            );
            assert_eq!(fused.metrics, reference.metrics);
        }
    }
    // Errors of f32 are those of the largest terms, which in a deep part of the model a small gradient may be left of.
    let overall = decoder.gradients.values().map(largest).fold(0.0, f64::max);
    for segment in model.segments() {
        let got = Tensor::new(model.gradient_of(segment), &Device::Cpu).unwrap();
        let Some(expected) = decoder.gradients.get(&segment.name) else {
            assert_eq!(largest(&got), 0.0, "seed {seed}: {} is not reached", segment.name);
            continue;
        };
        let expected = expected.flatten_all().unwrap();
        let worst = distance(&got, &expected);
        let scale = largest(&expected).max(1e-2 * overall).max(1e-3);
        assert!(worst < 1e-4 * scale, "seed {seed}: gradient of {}: {worst} of {scale}", segment.name);
    }
}

#[test]
fn the_fused_code_equals_the_reference() {
    for seed in 0..150 {
        compare(seed);
    }
}
