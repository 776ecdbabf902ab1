//! Distributions of the sampler against arithmetic by hand.

use std::collections::BTreeMap;

use pulp::Arch;

use crate::sample::TokenMask;
use crate::sample::request::Sampling;
use crate::sample::sampler::{Buffers, Limits, Refusal, Sampler};

/// ln of 0.5, 0.25, 0.15, 0.1, shifted: a distribution does not depend on the shift.
fn logits() -> Vec<f32> {
    [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln() + 3.0).collect()
}

/// Draws from one distribution, 20 000 times. Returns the probability that each token was said to have and checks
/// that the tokens come as often as that.
fn distribution(
    settings: &Sampling,
    prompt: &[u32],
    said: &[u32],
    logits: &[f32],
    limits: &Limits,
) -> BTreeMap<u32, f64> {
    let draws = 20_000;
    let mut sampler = Sampler::new(settings, prompt, vec![3], 5, 0);
    said.iter().for_each(|&token| sampler.accept(token));
    let (mut stated, mut counts) = (BTreeMap::new(), BTreeMap::new());
    let mut buffers = Buffers::default();
    for _ in 0..draws {
        let sampled = sampler.choose(Arch::new(), &mut logits.to_vec(), limits, &mut buffers).unwrap();
        let probability = f64::from(sampled.logp).exp();
        assert!(
            (stated.insert(sampled.token, probability).unwrap_or(probability) - probability).abs() < 1e-9
        );
        *counts.entry(sampled.token).or_insert(0usize) += 1;
    }
    let square =
        |(token, &p): (&u32, &f64)| (counts[token] as f64 - p * draws as f64).powi(2) / (p * draws as f64);
    let chi_square: f64 = stated.iter().map(square).sum();
    // Exceeded with probability 0.001: 10.8 for one degree of freedom, 16.3 for three, 27.9 for nine.
    let bound = [0.1, 10.8, 13.8, 16.3, 18.5, 20.5, 22.5, 24.3, 26.1, 27.9][(stated.len() - 1).min(9)];
    assert!(chi_square < bound, "{settings:?}: chi-square {chi_square} of {counts:?}");
    stated
}

fn check(settings: Sampling, expected: &[(u32, f64)]) {
    let got = distribution(&settings, &[], &[], &logits(), &Limits::default());
    let tokens: Vec<u32> = got.keys().copied().collect();
    assert_eq!(tokens, expected.iter().map(|(token, _)| *token).collect::<Vec<_>>(), "{settings:?}");
    for &(token, p) in expected {
        assert!((got[&token] - p).abs() < 1e-6, "{settings:?}: token {token}: {} not {p}", got[&token]);
    }
}

#[test]
fn each_filter_alone() {
    let default = Sampling::default;
    check(default(), &[(0, 0.5), (1, 0.25), (2, 0.15), (3, 0.1)]);
    // Squares 0.25, 0.0625, 0.0225, 0.01 over their sum 0.345.
    let squares = [(0, 0.25 / 0.345), (1, 0.0625 / 0.345), (2, 0.0225 / 0.345), (3, 0.01 / 0.345)];
    check(Sampling { temperature: 0.5, ..default() }, &squares);
    check(Sampling { top_k: 3, ..default() }, &[(0, 0.5 / 0.9), (1, 0.25 / 0.9), (2, 0.15 / 0.9)]);
    check(Sampling { top_k: 1, ..default() }, &[(0, 1.0)]);
    check(Sampling { top_p: 0.7, ..default() }, &[(0, 0.5 / 0.75), (1, 0.25 / 0.75)]);
    check(Sampling { top_p: 0.4, ..default() }, &[(0, 1.0)]);
    // 0.4 times 0.5 is 0.2.
    check(Sampling { min_p: 0.4, ..default() }, &[(0, 0.5 / 0.75), (1, 0.25 / 0.75)]);
    check(
        Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..default() },
        &[(1, 0.5), (2, 0.3), (3, 0.2)],
    );
    // e^(ln 2) doubles 0.25.
    let bias = vec![(1, std::f32::consts::LN_2)];
    let expected = [(0, 0.4), (1, 0.4), (2, 0.12), (3, 0.08)];
    check(Sampling { logit_bias: bias, ..default() }, &expected);
}

#[test]
fn filters_work_on_what_the_one_before_left() {
    // Top-k leaves 5/9, 2.5/9, 1.5/9: the first two reach 0.8. Of all four, the first two reach only 0.75.
    let expected = [(0, 0.5 / 0.75), (1, 0.25 / 0.75)];
    check(Sampling { top_k: 3, top_p: 0.8, ..Sampling::default() }, &expected);
    let expected = [(0, 0.5 / 0.9), (1, 0.25 / 0.9), (2, 0.15 / 0.9)];
    check(Sampling { top_p: 0.8, ..Sampling::default() }, &expected);
    // The temperature comes first: squares 0.25, 0.0625 are 0.72, 0.18 of the sum, so 0.85 takes both.
    let expected = [(0, 0.8), (1, 0.2)];
    check(Sampling { temperature: 0.5, top_p: 0.85, ..Sampling::default() }, &expected);
    // Min-p: 0.0225 / 0.25 is 0.09.
    check(Sampling { temperature: 0.5, min_p: 0.1, ..Sampling::default() }, &expected);
}

#[test]
fn penalties() {
    // Repetition: token 0 of the prompt 2 / 2, token 1 of the prompt -1 · 2. Token 2 was sampled twice: 0.5 / 2 for
    // repetition, then - 2 · 0.5 - 0.25. Token 3 is untouched.
    let settings = Sampling {
        repetition_penalty: 2.0,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        ..Sampling::default()
    };
    let logits = [2.0, -1.0, 0.5, 0.0];
    let weights = [1.0f64, -2.0, 0.25 - 1.25, 0.0].map(f64::exp);
    let got = distribution(&settings, &[0, 1, 1], &[2, 2], &logits, &Limits::default());
    for (token, weight) in weights.iter().enumerate() {
        let p = weight / weights.iter().sum::<f64>();
        assert!((got[&(token as u32)] - p).abs() < 1e-6, "token {token}: {} not {p}", got[&(token as u32)]);
    }
}

#[test]
fn what_may_not_come_does_not_come() {
    let mut mask = TokenMask::none(4);
    [0, 3].into_iter().for_each(|token| mask.allow(token));
    let limits = Limits { allowed: Some(&mask), ..Limits::default() };
    let got = distribution(&Sampling::default(), &[], &[], &logits(), &limits);
    assert_eq!(got.keys().collect::<Vec<_>>(), [&0, &3]);
    assert!((got[&3] - 0.1 / 0.6).abs() < 1e-6);
    // Token 3 ends the text, which is too short.
    let limits = Limits { allowed: Some(&mask), too_short: true, ..Limits::default() };
    assert_eq!(distribution(&Sampling::default(), &[], &[], &logits(), &limits).len(), 1);
    let none = TokenMask::none(4);
    let limits = Limits { allowed: Some(&none), ..Limits::default() };
    for settings in [Sampling::default(), Sampling::greedy()] {
        let mut sampler = Sampler::new(&settings, &[], vec![], 0, 0);
        let refusal = sampler.choose(Arch::new(), &mut logits(), &limits, &mut Buffers::default());
        assert_eq!(refusal, Err(Refusal::NothingLeft));
    }
}

#[test]
fn raw_log_probabilities_are_those_of_the_model() {
    let settings = Sampling { temperature: 0.3, top_k: 2, logit_bias: vec![(2, 9.0)], ..Sampling::default() };
    let limits = Limits { top: 3, ..Limits::default() };
    let mut sampler = Sampler::new(&settings, &[], vec![], 1, 0);
    let sampled = sampler.choose(Arch::new(), &mut logits(), &limits, &mut Buffers::default()).unwrap();
    assert_eq!(sampled.token, 2);
    assert!((sampled.raw_logp - 0.15f32.ln()).abs() < 1e-6);
    assert_eq!(sampled.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1, 2]);
    for ((_, logp), p) in sampled.top.iter().zip([0.5f32, 0.25, 0.15]) {
        assert!((logp - p.ln()).abs() < 1e-6);
    }
    let mut greedy = Sampler::new(&Sampling::greedy(), &[], vec![], 1, 0);
    let sampled =
        greedy.choose(Arch::new(), &mut [1.0, 2.0, 2.0, 0.0], &limits, &mut Buffers::default()).unwrap();
    assert_eq!((sampled.token, sampled.logp), (1, 0.0));
}

#[test]
fn broken_logits_are_refused() {
    for (place, value) in [(0, f32::NAN), (37, f32::NAN), (99, f32::INFINITY), (16, f32::NAN)] {
        let mut logits = vec![0.0; 100];
        logits[place] = value;
        let mut sampler = Sampler::new(&Sampling::default(), &[], vec![], 1, 0);
        match sampler.choose(Arch::new(), &mut logits, &Limits::default(), &mut Buffers::default()) {
            Err(Refusal::NotFinite { token, .. }) => assert_eq!(token as usize, place),
            other => panic!("{place}: {other:?}"),
        }
    }
}

#[test]
fn large_vocabularies() {
    // Two tokens in different chunks of a vocabulary of 5 000 hold 0.75 and 0.25 of what the rest leaves.
    let mut logits = vec![-40.0; 5000];
    (logits[4321], logits[17]) = (3.0f32.ln(), 0.0);
    let got = distribution(&Sampling::default(), &[], &[], &logits, &Limits::default());
    assert!((got[&4321] - 0.75).abs() < 1e-6 && (got[&17] - 0.25).abs() < 1e-6, "{got:?}");
    // A flat distribution under top-p 0.1: 500 of 5 000 tokens, those of lowest number among equals.
    let settings = Sampling { top_p: 0.1, ..Sampling::default() };
    let mut sampler = Sampler::new(&settings, &[], vec![], 1, 0);
    let mut buffers = Buffers::default();
    for _ in 0..200 {
        let sampled =
            sampler.choose(Arch::new(), &mut [0.0; 5000], &Limits::default(), &mut buffers).unwrap();
        assert!(sampled.token <= 500 && (f64::from(sampled.logp).exp() - 1.0 / 500.0).abs() < 1e-5);
    }
}
