//! Answers that come in pieces: server-sent events, and the whole answer put together from them.

use serde_json::{Map, Value, json};

/// Splits bytes into the data of server-sent events.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    data: String,
    any: bool,
    after_cr: bool,
}

impl EventReader {
    /// Takes bytes and returns the data of each event that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for &byte in bytes {
            // Lines end with LF, CR or both.
            let ends = byte == b'\r' || (byte == b'\n' && !self.after_cr);
            if ends {
                let line = std::mem::take(&mut self.line);
                self.end_line(&String::from_utf8_lossy(&line), &mut events);
            } else if byte != b'\n' {
                self.line.push(byte);
            }
            self.after_cr = byte == b'\r';
        }
        events
    }

    fn end_line(&mut self, line: &str, events: &mut Vec<String>) {
        if line.is_empty() {
            if self.any {
                events.push(std::mem::take(&mut self.data));
                self.any = false;
            }
            return;
        }
        // Comments start with a colon; other fields (event, id, retry) carry nothing here.
        if let Some(rest) = line.strip_prefix("data") {
            let value = match rest.strip_prefix(':') {
                Some(value) => value.strip_prefix(' ').unwrap_or(value),
                None if rest.is_empty() => "",
                None => return,
            };
            if self.any {
                self.data.push('\n');
            }
            self.data.push_str(value);
            self.any = true;
        }
    }
}

/// Puts the chunks of a streamed answer together into the answer that a plain call would have given.
#[derive(Debug, Default)]
pub struct Assembly {
    fields: Map<String, Value>,
    choices: Vec<Choice>,
    usage: Option<Value>,
}

#[derive(Debug, Default)]
struct Choice {
    /// `message` of a chat.
    message: Map<String, Value>,
    /// `text` of a completion.
    text: Option<String>,
    logprobs: Value,
    finish: Value,
}

impl Assembly {
    /// Takes a chunk; returns which choices got which text.
    pub fn push(&mut self, chunk: &Value) -> Vec<(usize, String)> {
        let mut pieces = Vec::new();
        for (name, value) in chunk.as_object().into_iter().flatten() {
            match name.as_str() {
                "choices" => {}
                "usage" if value.is_null() => {}
                "usage" => self.usage = Some(value.clone()),
                _ => {
                    self.fields.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        for part in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let index = part.get("index").and_then(Value::as_u64).unwrap_or(0) as usize;
            // An index beyond any number of answers asked for is a fault of the server's, not a size to allocate.
            if index > 4096 {
                continue;
            }
            while self.choices.len() <= index {
                self.choices.push(Choice::default());
            }
            if let Some(text) = self.choices[index].push(part) {
                pieces.push((index, text));
            }
        }
        pieces
    }

    /// Whether every choice said why it ended.
    pub fn is_complete(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|c| !c.finish.is_null())
    }

    /// The whole answer.
    pub fn finish(self) -> Value {
        let mut answer = self.fields;
        let choices = self.choices.into_iter().enumerate().map(|(i, c)| c.finish(i)).collect();
        answer.insert("choices".into(), Value::Array(choices));
        if let Some(usage) = self.usage {
            answer.insert("usage".into(), usage);
        }
        Value::Object(answer)
    }
}

impl Choice {
    fn push(&mut self, part: &Value) -> Option<String> {
        let mut piece = None;
        if let Some(text) = part.get("text").and_then(Value::as_str) {
            self.text.get_or_insert_default().push_str(text);
            piece = Some(text.to_owned());
        }
        for (name, value) in part.get("delta").and_then(Value::as_object).into_iter().flatten() {
            if name == "content"
                && let Some(text) = value.as_str()
            {
                piece = Some(text.to_owned());
            }
            add(self.message.entry(name.clone()).or_insert(Value::Null), name, value);
        }
        if let Some(logprobs) = part.get("logprobs") {
            add(&mut self.logprobs, "logprobs", logprobs);
        }
        if let Some(finish) = part.get("finish_reason").filter(|f| !f.is_null()) {
            self.finish = finish.clone();
        }
        piece.filter(|p| !p.is_empty())
    }

    fn finish(self, index: usize) -> Value {
        let mut choice = json!({"index": index, "logprobs": self.logprobs, "finish_reason": self.finish});
        match self.text {
            Some(text) => choice["text"] = Value::String(text),
            None => choice["message"] = Value::Object(self.message),
        }
        choice
    }
}

/// Adds a part to a whole: texts and lists grow, fields are added one by one, other values are replaced. The items of
/// `tool_calls` carry the index at which they belong.
fn add(whole: &mut Value, name: &str, part: &Value) {
    match (whole, part) {
        (_, Value::Null) => {}
        // A role or id comes once, or the same again.
        (Value::String(text), Value::String(more)) if !matches!(name, "role" | "id" | "type") => {
            text.push_str(more)
        }
        (Value::Array(items), Value::Array(more)) => {
            for item in more {
                let index = item.get("index").and_then(Value::as_u64).map(|i| i as usize);
                match index.and_then(|i| items.iter_mut().find(|have| have.get("index") == Some(&json!(i)))) {
                    Some(have) if name == "tool_calls" => add(have, "", item),
                    _ => items.push(item.clone()),
                }
            }
        }
        (Value::Object(fields), Value::Object(more)) => {
            for (field, value) in more {
                add(fields.entry(field.clone()).or_insert(Value::Null), field, value);
            }
        }
        (whole, part) => *whole = part.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_however_they_are_cut() {
        let text = b": hello\r\nevent: x\r\ndata: {\"a\":\ndata:1}\r\n\r\n\ndata: \xe6\x97\xa5\n\ndata: [DONE]\r\rdata: cut";
        let want = ["{\"a\":\n1}", "日", "[DONE]"];
        for size in 1..text.len() {
            let mut reader = EventReader::default();
            let got: Vec<String> = text.chunks(size).flat_map(|c| reader.push(c)).collect();
            assert_eq!(got, want, "{size}");
        }
    }

    #[test]
    fn chunks_make_a_whole_answer() {
        let mut assembly = Assembly::default();
        let mut pieces = Vec::new();
        for chunk in [
            json!({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            json!({"id": "x", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "B"}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "A"}, "logprobs": {"content": [{"token": "A", "logprob": -1.0}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -2.0}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"x\""}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": null}),
        ] {
            pieces.extend(assembly.push(&chunk));
        }
        assert!(!assembly.is_complete());
        assembly.push(&json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}));
        assembly.push(&json!({"choices": [], "usage": {"prompt_tokens": 3}}));
        assert!(assembly.is_complete());
        assert_eq!(pieces, [(1, "B".to_owned()), (0, "A".to_owned()), (0, "a".to_owned())]);
        let answer = assembly.finish();
        assert_eq!(answer["model"], "m");
        assert_eq!(answer["usage"]["prompt_tokens"], 3);
        assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
        assert_eq!(answer["choices"][0]["message"]["content"], "Aa");
        assert_eq!(
            answer["choices"][0]["message"]["tool_calls"][0]["function"],
            json!({"name": "f", "arguments": "{\"x\": 1}"})
        );
        assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer["choices"][1]["message"]["content"], "B");
    }

    #[test]
    fn completions_too() {
        let mut assembly = Assembly::default();
        for (text, offset) in [("a", 0), ("b", 1)] {
            assembly.push(&json!({"choices": [{"index": 0, "text": text, "logprobs": {"tokens": [text], "token_logprobs": [-1.0], "text_offset": [offset]}}]}));
        }
        assembly.push(&json!({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}));
        let answer = assembly.finish();
        assert_eq!(answer["choices"][0]["text"], "ab");
        assert_eq!(answer["choices"][0]["logprobs"]["tokens"], json!(["a", "b"]));
    }
}
