//! What is asked of the engine and what comes back.

use super::constraint::Constraint;
use super::error::SampleError;
use crate::config::ModelConfig;

/// How the next token is chosen from the logits.
///
/// In this order, which is that of `transformers`: what may not be said at all (the constraint; tokens that would end
/// the text before `min_tokens`) is taken out; `logit_bias` is added; repeated tokens are penalised; logits are
/// divided by the temperature; then top-k, top-p and min-p each keep a part of what the one before has left.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits. 0 takes the most likely token, the first of equals. At least 0.
    pub temperature: f32,
    /// Keeps the `k` most likely tokens, and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probabilities sum to this. Above 0, at most 1.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one. In [0, 1].
    pub min_p: f32,
    /// Divides positive logits of tokens in the prompt or the text by this, multiplies negative ones
    /// (arXiv:1909.05858). Above 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per time that it was sampled. In [-2, 2].
    pub frequency_penalty: f32,
    /// Subtracted from the logit of every token that was sampled. In [-2, 2].
    pub presence_penalty: f32,
    /// Added to the logits of single tokens. -∞ forbids one.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: vec![],
        }
    }
}

impl Sampling {
    /// The most likely token at every step.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }
}

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Tokens to continue, at least one and fewer than the context holds.
    pub prompt: Vec<u32>,
    /// Continuations wanted. They share the prompt's computation and cache.
    pub n: usize,
    /// Longest continuation, in tokens. A continuation also ends, with [`Finish::Length`], where the context ends.
    pub max_tokens: usize,
    /// Tokens before which neither an end-of-sequence or stop token is sampled nor a stop string looked for.
    pub min_tokens: usize,
    /// Same seed, same text, whatever else the engine is doing. Sample `i` draws from its own stream of this seed.
    pub seed: u64,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end a continuation beside those of the model.
    pub stop_tokens: Vec<u32>,
    /// Texts that end a continuation. Its text ends before the first of them; its tokens are kept as sampled. Needs
    /// [`super::Options::detokenize`].
    pub stop_strings: Vec<String>,
    /// Go on after the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Most likely tokens to report at every step, under the model's own distribution.
    pub top_logps: usize,
    /// What may be said.
    pub constraint: Option<Box<dyn Constraint>>,
}

impl Request {
    /// A request for one continuation of at most `max_tokens` tokens with the model's own distribution.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Request {
        Request {
            prompt,
            n: 1,
            max_tokens,
            min_tokens: 0,
            seed: 0,
            sampling: Sampling::default(),
            stop_tokens: vec![],
            stop_strings: vec![],
            ignore_eos: false,
            top_logps: 0,
            constraint: None,
        }
    }

    /// Checks every field against a model; `request` is used in errors only.
    pub(super) fn check(
        &self,
        request: usize,
        config: &ModelConfig,
        detokenizes: bool,
    ) -> Result<(), SampleError> {
        let fail = |field: &'static str, needed: &str, got: String| {
            Err(SampleError::Field { request, field, needed: needed.into(), got })
        };
        let vocab = config.vocab_size;
        let known = |token: u32| (token as usize) < vocab;
        let known_needed = format!("token ids below {vocab}");
        if self.prompt.is_empty() {
            return fail("prompt", "at least 1 token", "none".into());
        }
        if self.prompt.len() >= config.max_positions {
            let needed = format!(
                "at most {} tokens, so that the context of {} has room for one more",
                config.max_positions - 1,
                config.max_positions
            );
            return fail("prompt", &needed, self.prompt.len().to_string());
        }
        if let Some(place) = self.prompt.iter().position(|&token| !known(token)) {
            return fail("prompt", &known_needed, format!("{} at {place}", self.prompt[place]));
        }
        for (field, value) in [("n", self.n), ("max_tokens", self.max_tokens)] {
            if value == 0 {
                return fail(field, "at least 1", "0".into());
            }
        }
        if self.min_tokens > self.max_tokens {
            let needed = format!("at most `max_tokens`, which is {}", self.max_tokens);
            return fail("min_tokens", &needed, self.min_tokens.to_string());
        }
        let s = &self.sampling;
        let ranges: [(&'static str, f32, bool, &str); 6] = [
            ("temperature", s.temperature, s.temperature >= 0.0, "a number of at least 0"),
            ("top_p", s.top_p, s.top_p > 0.0 && s.top_p <= 1.0, "a number above 0 and at most 1"),
            ("min_p", s.min_p, (0.0..=1.0).contains(&s.min_p), "a number from 0 to 1"),
            ("repetition_penalty", s.repetition_penalty, s.repetition_penalty > 0.0, "a number above 0"),
            (
                "frequency_penalty",
                s.frequency_penalty,
                (-2.0..=2.0).contains(&s.frequency_penalty),
                "a number from -2 to 2",
            ),
            (
                "presence_penalty",
                s.presence_penalty,
                (-2.0..=2.0).contains(&s.presence_penalty),
                "a number from -2 to 2",
            ),
        ];
        for (field, value, good, needed) in ranges {
            if !good || !value.is_finite() {
                return fail(field, needed, value.to_string());
            }
        }
        for &(token, bias) in &s.logit_bias {
            if !known(token) {
                return fail("logit_bias", &known_needed, token.to_string());
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return fail(
                    "logit_bias",
                    "a number, or -∞ to forbid a token",
                    format!("{bias} for token {token}"),
                );
            }
        }
        if let Some(token) = self.stop_tokens.iter().find(|&&token| !known(token)) {
            return fail("stop_tokens", &known_needed, token.to_string());
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return fail("stop_strings", "texts that are not empty", "an empty one".into());
        }
        if !self.stop_strings.is_empty() && !detokenizes {
            return fail("stop_strings", "an engine that can turn tokens into text", "one without".into());
        }
        if self.top_logps > vocab {
            return fail("top_logps", &format!("at most {vocab}"), self.top_logps.to_string());
        }
        Ok(())
    }
}

/// One sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log-probability under the distribution that it was drawn from, in nats; 0 when greedy.
    pub logp: f32,
    /// Its log-probability under the model's own distribution, in nats.
    pub raw_logp: f32,
    /// The most likely tokens and their log-probabilities under the model's own distribution, best first.
    pub top: Vec<(u32, f32)>,
}

/// Why a continuation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-sequence or stop token was sampled; it is the last of the tokens and not in the text.
    StopToken(u32),
    /// This stop string appeared.
    StopString(String),
    /// The constraint was fulfilled.
    Constraint,
    /// `max_tokens` were sampled, or the context is full.
    Length,
    /// It was called off.
    Cancelled,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Index of the request in the slice given to [`super::Engine::generate`], or its number.
    pub request: usize,
    /// Which of the request's `n` samples.
    pub sample: usize,
    /// The tokens sampled.
    pub tokens: Vec<u32>,
    /// As [`Sampled::logp`], one per token.
    pub logps: Vec<f32>,
    /// As [`Sampled::raw_logp`], one per token.
    pub raw_logps: Vec<f32>,
    /// As [`Sampled::top`], one per token; empty if none were asked for.
    pub top: Vec<Vec<(u32, f32)>>,
    /// The text, if the engine can make it.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: Finish,
}

/// News of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token was sampled.
    Token {
        /// Which request.
        request: usize,
        /// Which of its samples.
        sample: usize,
        /// The token.
        sampled: Sampled,
        /// Text that is now certain: what may be the start of a stop string or of a character is held back.
        text: String,
    },
    /// A sample ended.
    Done(Completion),
    /// The request failed; nothing more comes from it.
    Failed(SampleError),
}
