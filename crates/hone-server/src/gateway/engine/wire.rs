//! The engine's answers as the OpenAI API has them.

use hone_lm::{Generation, Sample, Token, Usage};
use serde_json::{Value, json};

use super::super::call::Endpoint;
use super::request::Asked;

/// Writes the answer to one call.
pub(super) struct Writer {
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub model: String,
    pub endpoint: Endpoint,
}

impl Writer {
    fn chat(&self) -> bool {
        self.endpoint == Endpoint::Chat
    }

    /// The whole answer.
    pub fn whole(&self, asked: &Asked, generations: &[Generation]) -> Value {
        let choice = |(index, (prompt, sample)): (usize, (usize, &Sample))| {
            let logprobs = self.logprobs(asked, sample);
            let mut choice = json!({"index": index, "logprobs": logprobs, "finish_reason": sample.finish});
            if self.chat() {
                choice["message"] = json!({"role": "assistant", "content": sample.text, "refusal": null});
            } else {
                choice["text"] = format!("{}{}", echoed(asked, prompt), sample.text).into();
            }
            choice
        };
        let object = if self.chat() { "chat.completion" } else { "text_completion" };
        let choices: Vec<Value> = samples(generations).enumerate().map(choice).collect();
        let mut body = self.frame(object, choices);
        body["usage"] = usage(generations);
        body
    }

    fn frame(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
            "system_fingerprint": null,
        })
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        self.frame(if self.chat() { "chat.completion.chunk" } else { "text_completion" }, choices)
    }

    fn part(&self, index: usize, delta: Value, text: &str, logprobs: Value, finish: Value) -> Value {
        let mut choice = json!({"index": index, "logprobs": logprobs, "finish_reason": finish});
        match self.chat() {
            true => choice["delta"] = delta,
            false => choice["text"] = text.into(),
        }
        self.chunk(vec![choice])
    }

    /// The first chunk of a choice.
    pub fn opening(&self, index: usize) -> Value {
        self.part(index, json!({"role": "assistant", "content": ""}), "", Value::Null, Value::Null)
    }

    /// A piece of text.
    pub fn piece(&self, index: usize, text: &str) -> Value {
        self.part(index, json!({"content": text}), text, Value::Null, Value::Null)
    }

    /// The last chunk of each choice: why it ended, and the log-probabilities of all its tokens.
    pub fn closing(&self, asked: &Asked, generations: &[Generation]) -> Vec<Value> {
        let last = |(index, (_, sample)): (usize, (usize, &Sample))| {
            self.part(index, json!({}), "", self.logprobs(asked, sample), json!(sample.finish))
        };
        samples(generations).enumerate().map(last).collect()
    }

    /// The chunk that counts tokens.
    pub fn usage(&self, generations: &[Generation]) -> Value {
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage(generations);
        chunk
    }

    fn logprobs(&self, asked: &Asked, sample: &Sample) -> Value {
        let wanted = asked.requests.first().is_some_and(|request| request.logprobs);
        let Some(tokens) = sample.tokens.as_deref().filter(|_| wanted) else { return Value::Null };
        if self.chat() {
            let content: Vec<Value> = tokens
                .iter()
                .map(|token| {
                    let top = token.top.iter();
                    let top: Vec<Value> = top
                        .map(|other| {
                            json!({"token": other.text, "logprob": other.logprob, "bytes": other.text.as_bytes()})
                        })
                        .collect();
                    json!({"token": token.text, "logprob": token.logprob, "bytes": token.bytes, "top_logprobs": top})
                })
                .collect();
            return json!({"content": content, "refusal": null});
        }
        let mut offset = 0;
        let offsets = tokens.iter().map(|token| {
            offset += token.text.chars().count();
            offset - token.text.chars().count()
        });
        let top = |token: &Token| {
            let pairs = token.top.iter().map(|other| (other.text.clone(), json!(other.logprob)));
            Value::Object(pairs.collect())
        };
        json!({
            "text_offset": offsets.collect::<Vec<_>>(),
            "tokens": tokens.iter().map(|token| &token.text).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        })
    }
}

/// Every answer with the number of its prompt, in the order of their indices.
fn samples(generations: &[Generation]) -> impl Iterator<Item = (usize, &Sample)> {
    generations
        .iter()
        .enumerate()
        .flat_map(|(prompt, answer)| answer.samples.iter().map(move |sample| (prompt, sample)))
}

fn echoed(asked: &Asked, prompt: usize) -> &str {
    asked.echo.as_ref().and_then(|texts| texts.get(prompt)).map_or("", String::as_str)
}

fn usage(generations: &[Generation]) -> Value {
    let mut sum = Usage::default();
    for answer in generations {
        sum += answer.usage;
    }
    let total = sum.prompt_tokens + sum.completion_tokens;
    json!({"prompt_tokens": sum.prompt_tokens, "completion_tokens": sum.completion_tokens, "total_tokens": total})
}

/// Vectors, as numbers or as the bytes of little-endian 32-bit floats in base 64.
pub(super) fn embeddings(model: &str, vectors: &[Vec<f32>], base64: bool) -> Value {
    let entry = |(index, vector): (usize, &Vec<f32>)| {
        let embedding = match base64 {
            false => json!(vector),
            true => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(to_base64(&bytes))
            }
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let data: Vec<Value> = vectors.iter().enumerate().map(entry).collect();
    json!({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}})
}

/// RFC 4648, section 4.
fn to_base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let at = |index: usize| u32::from(part.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= part.len() { letter as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64() {
        // RFC 4648, section 10.
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(to_base64(text.as_bytes()), expected);
        }
    }
}
