//! Whether a record is sound across its fields.

use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Content, Prompt, Record, Response};
use crate::text;

impl Record {
    /// Every fault of the record, each naming its field. Empty: the record is sound.
    ///
    /// What is asked: a non-empty id; a prompt or a response or a rule; messages with roles; responses with
    /// distinct ids and some content; feedback that refers to responses there are; spans inside the text and
    /// not empty; steps there are; scales from low to high with the mark between; finite numbers; rankings of
    /// at least two responses, each once (ties are allowed); comparisons of two different responses; words
    /// where words are the point; times in RFC 3339.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.id.trim().is_empty() {
            faults.push(Fault::new("id", "a name", "empty text"));
        }
        self.check_prompt(&mut faults);
        for (index, response) in self.responses.iter().enumerate() {
            self.check_response(index, response, &mut faults);
        }
        for (index, item) in self.feedback.iter().enumerate() {
            let before = faults.len();
            self.check_feedback(item, &mut faults);
            for fault in &mut faults[before..] {
                let inner = std::mem::replace(fault, Fault::new("", "", ""));
                *fault = inner.under(&format!("feedback[{index}]"));
            }
        }
        faults
    }

    fn check_prompt(&self, faults: &mut Vec<Fault>) {
        let only_rules = || self.feedback.iter().any(|item| matches!(item.form, Form::Rule { .. }));
        if self.prompt.is_empty() && self.responses.is_empty() && !only_rules() {
            faults.push(Fault::new("prompt", "a prompt, a response or a rule", "none of them"));
        }
        let Prompt::Messages(messages) = &self.prompt else { return };
        for (index, message) in messages.iter().enumerate() {
            if message.role.trim().is_empty() {
                faults.push(Fault::new(format!("prompt[{index}].role"), "a role", "empty text"));
            }
            let silent = message.content.is_none() || message.content == Some(Content::Null);
            if silent && message.extra.is_empty() {
                faults.push(Fault::new(
                    format!("prompt[{index}].content"),
                    "text, parts or a tool call",
                    "nothing",
                ));
            }
        }
    }

    fn check_response(&self, index: usize, response: &Response, faults: &mut Vec<Fault>) {
        let field = |name: &str| format!("responses[{index}].{name}");
        if response.id.trim().is_empty() {
            faults.push(Fault::new(field("id"), "a name", "empty text"));
        } else if self.responses[..index].iter().any(|earlier| earlier.id == response.id) {
            let got = format!("{:?} a second time", response.id);
            faults.push(Fault::new(field("id"), "an id of its own", got));
        }
        let empty = match &response.content {
            Content::Text(text) => text.trim().is_empty(),
            Content::Turns(turns) => turns.is_empty(),
            Content::Parts(parts) => parts.is_empty(),
            Content::Null => true,
        };
        if empty {
            faults.push(Fault::new(field("content"), "an answer", "empty content"));
        }
        if response.steps.as_ref().is_some_and(Vec::is_empty) {
            faults.push(Fault::new(field("steps"), "at least one step", "an empty list"));
        }
    }

    fn check_feedback(&self, item: &Feedback, faults: &mut Vec<Fault>) {
        let mut known = |field: &str, id: &str| {
            let response = self.response(id);
            if response.is_none() {
                faults.push(Fault::new(field, "the id of a response of this record", format!("{id:?}")));
            }
            response
        };
        match &item.form {
            Form::Thumb { on, .. } | Form::Outcome { on, .. } => {
                known("on", on);
            }
            Form::Rating { on, value, scale } => {
                known("on", on);
                check_mark(*value, *scale, faults);
            }
            Form::Comparison { better, worse } => {
                known("better", better);
                known("worse", worse);
                if better == worse {
                    faults.push(Fault::new(
                        "worse",
                        "another response than better",
                        format!("{worse:?} for both"),
                    ));
                }
            }
            Form::Ranking { order } => self.check_order(order, faults),
            Form::Critique { on, text } => {
                on.as_deref().map(|on| known("on", on));
                if text.trim().is_empty() {
                    faults.push(Fault::new("text", "words", "empty text"));
                }
            }
            Form::Edit { on, content } => {
                known("on", on);
                if matches!(content, Content::Null) || content.text().trim().is_empty() {
                    faults.push(Fault::new("content", "the corrected answer", "empty content"));
                }
            }
            Form::Span { on, start, end, value, .. } => {
                if let Some(response) = known("on", on) {
                    check_span(response, *start, *end, faults);
                }
                finite("value", *value, faults);
            }
            Form::Step { on, index, .. } => {
                if let Some(response) = known("on", on) {
                    let steps = response.steps.as_ref().map_or_else(|| response.steps().len(), Vec::len);
                    if *index >= steps {
                        faults.push(Fault::new("index", format!("a step below {steps}"), index.to_string()));
                    }
                }
            }
            Form::Event { on, event, value } => {
                on.as_deref().map(|on| known("on", on));
                if event.trim().is_empty() {
                    faults.push(Fault::new("event", "the name of an event", "empty text"));
                }
                finite("value", *value, faults);
            }
            Form::Rule { text, .. } => {
                if text.trim().is_empty() {
                    faults.push(Fault::new("text", "a rule", "empty text"));
                }
            }
        }
        if let Some(at) = &item.at
            && !is_time(at)
        {
            faults.push(Fault::new("at", "a time such as 2026-05-01T10:00:00Z", format!("{at:?}")));
        }
    }

    fn check_order(&self, order: &[Vec<String>], faults: &mut Vec<Fault>) {
        let mut seen: Vec<&str> = Vec::new();
        for (place, ids) in order.iter().enumerate() {
            if ids.is_empty() {
                faults.push(Fault::new(
                    format!("order[{place}]"),
                    "at least one response id",
                    "an empty place",
                ));
            }
            for (position, id) in ids.iter().enumerate() {
                let field = format!("order[{place}][{position}]");
                if self.response(id).is_none() {
                    faults.push(Fault::new(field, "the id of a response of this record", format!("{id:?}")));
                } else if seen.contains(&id.as_str()) {
                    faults.push(Fault::new(field, "each response once", format!("{id:?} a second time")));
                }
                seen.push(id);
            }
        }
        if seen.len() < 2 {
            faults.push(Fault::new("order", "at least 2 responses", seen.len().to_string()));
        }
    }
}

fn check_mark(value: f64, scale: Option<[f64; 2]>, faults: &mut Vec<Fault>) {
    if !value.is_finite() {
        faults.push(Fault::new("value", "a finite number", value.to_string()));
        return;
    }
    let Some([low, high]) = scale else { return };
    if !(low.is_finite() && high.is_finite() && low < high) {
        faults.push(Fault::new("scale", "two finite numbers, the lower first", format!("[{low}, {high}]")));
    } else if value < low || value > high {
        faults.push(Fault::new("value", format!("a mark from {low} to {high}"), value.to_string()));
    }
}

fn check_span(response: &Response, start: usize, end: usize, faults: &mut Vec<Fault>) {
    let text = response.content.text();
    // Counting is only needed where the bytes do not already show that the end is inside.
    let length = if text.is_ascii() { text.len() } else { text::length(&text) };
    if end > length {
        faults.push(Fault::new(
            "end",
            format!("at most {length}, the characters of the response"),
            end.to_string(),
        ));
    }
    if start >= end {
        faults.push(Fault::new("start", format!("below end, {end}"), start.to_string()));
    }
}

fn finite(field: &str, value: Option<f64>, faults: &mut Vec<Fault>) {
    if let Some(value) = value
        && !value.is_finite()
    {
        faults.push(Fault::new(field, "a finite number", value.to_string()));
    }
}

/// RFC 3339, or a date alone; the separator may be a blank, and the zone may be missing, as exports write it.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>, low: u32, high: u32| {
        let part = text.get(range.clone()).filter(|part| part.len() == range.len());
        let number =
            part.filter(|part| part.bytes().all(|b| b.is_ascii_digit())).and_then(|part| part.parse().ok());
        number.is_some_and(|number: u32| (low..=high).contains(&number))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    let date =
        digits(0..4, 0, 9999) && is(4, b"-") && digits(5..7, 1, 12) && is(7, b"-") && digits(8..10, 1, 31);
    if !date || bytes.len() == 10 {
        return date;
    }
    if !(is(10, b"Tt ") && digits(11..13, 0, 23) && is(13, b":") && digits(14..16, 0, 59)) {
        return false;
    }
    let mut rest = 16;
    if is(rest, b":") {
        if !digits(17..19, 0, 60) {
            return false;
        }
        rest = 19;
        if is(rest, b".") {
            rest += 1;
            rest += bytes[rest..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        }
    }
    match &bytes[rest..] {
        [] | b"Z" | b"z" => true,
        [b'+' | b'-', zone @ ..] => {
            zone.len() >= 2 && zone.iter().all(|byte| byte.is_ascii_digit() || *byte == b':')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for good in
            ["2026-05-01T10:00:00Z", "2026-05-01", "2026-05-01 10:00:00.123+02:00", "2026-05-01T10:00"]
        {
            assert!(is_time(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-05-01T25:00:00Z",
            "2026-05-01T10:00:00ZZ",
            "2026-5-1",
            "é026-05-01",
        ] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
