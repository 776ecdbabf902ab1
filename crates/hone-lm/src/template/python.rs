//! What Python gives to templates: `tojson` as `json.dumps`, methods of strings, `strftime_now`, `raise_exception`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, syntax::SyntaxConfig};

use super::generation;

/// Where `strftime_now` takes the time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The machine's clock and zone.
    System,
    /// A fixed time, seconds since 1970 in UTC, for prompts that must not change from day to day.
    Fixed(i64),
}

/// The template's own refusal, carried as the source of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// An environment with the settings and globals of transformers.
pub(super) fn environment(clock: Clock) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    // Templates are named freely; a name such as `x.html` must not turn on escaping.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| {
        if value.is_number() && !value.is_integer() {
            // json.dumps writes `Infinity`, str() `inf`.
            let text =
                python_float(f64::try_from(value.clone())?).replace("Infinity", "inf").replace("NaN", "nan");
            return out.write_str(&text).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter(generation::FILTER, generation::mark);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| strftime(clock, format));
    environment
}

fn strftime(clock: Clock, format: &str) -> Result<String, Error> {
    let now = match clock {
        Clock::System => jiff::Zoned::now(),
        Clock::Fixed(seconds) => jiff::Timestamp::from_second(seconds)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))?
            .to_zoned(jiff::tz::TimeZone::UTC),
    };
    jiff::fmt::strtime::format(format, &now)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {e}")))
}

/// `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn to_json(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let ensure_ascii = ensure_ascii.or(kwargs.get("ensure_ascii")?).unwrap_or(false);
    let indent: Option<Value> = indent.or(kwargs.get("indent")?);
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let sort_keys: bool = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(v) if v.is_none() || v.is_undefined() => None,
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(i64::try_from(v)?.max(0)).unwrap_or(0)),
        }),
    };
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators needs two strings"));
        }
    };
    let mut writer = JsonWriter { out: String::new(), ensure_ascii, indent, item, key, sort_keys };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

struct JsonWriter {
    out: String,
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl JsonWriter {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                self.out.push_str(&python_float(number));
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut any = false;
                for item in value.try_iter()? {
                    self.next(&mut any, depth + 1);
                    self.value(&item, depth + 1)?;
                }
                self.end(any, depth, ']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort_by(|a, b| a.as_str().cmp(&b.as_str()).then_with(|| a.cmp(b)));
                }
                self.out.push('{');
                let mut any = false;
                for key in keys {
                    self.next(&mut any, depth + 1);
                    match key.as_str() {
                        Some(text) => self.string(text),
                        None => {
                            // Python writes other keys as strings of their JSON.
                            self.out.push('"');
                            self.value(&key, depth + 1)?;
                            self.out.push('"');
                        }
                    }
                    self.out.push_str(&self.key.clone());
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.end(any, depth, '}');
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson: a value of kind {kind} is not JSON"),
                ));
            }
        }
        Ok(())
    }

    fn next(&mut self, any: &mut bool, depth: usize) {
        if *any {
            self.out.push_str(&self.item.clone());
        }
        *any = true;
        self.line(depth);
    }

    fn end(&mut self, any: bool, depth: usize, bracket: char) {
        if any {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A float as Python's `repr` writes it: shortest digits, an exponent below 1e-4 and from 1e16 on.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        // Rust writes `1.5e-7`; Python at least two digits and a sign in the exponent.
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = match exponent.strip_prefix('-') {
            Some(power) => ('-', power),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{power:0>2}");
    }
    let text = number.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// Methods of Python's strings, lists and dicts: those of minijinja-contrib and the ones it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "partition" | "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let last = name == "rpartition";
                let split = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
                let parts = match split {
                    Some((head, tail)) => [head, separator, tail],
                    None if last => ["", "", text],
                    None => [text, "", ""],
                };
                return Ok(Value::from(parts.map(Value::from).to_vec()));
            }
            "rsplit" => {
                let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
                let limit = limit.and_then(|n| usize::try_from(n).ok());
                return Ok(Value::from(rsplit(text, separator, limit)));
            }
            "zfill" => {
                let (width,): (usize,) = from_args(args)?;
                let (sign, digits) = match text.strip_prefix(['-', '+']) {
                    Some(digits) => (&text[..1], digits),
                    None => ("", text),
                };
                let zeros = width.saturating_sub(text.chars().count()).min(1 << 16);
                return Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(zeros))));
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq && name == "index" {
        let (wanted,): (Value,) = from_args(args)?;
        for (i, item) in value.try_iter()?.enumerate() {
            if item == wanted {
                return Ok(Value::from(i));
            }
        }
        return Err(Error::new(ErrorKind::InvalidOperation, format!("{wanted} is not in the list")));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// `str.rsplit`: at most `limit` splits, counted from the end.
fn rsplit(text: &str, separator: Option<&str>, limit: Option<usize>) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = match separator {
        Some(_) => text,
        None => text.trim_end(),
    };
    while limit.is_none_or(|limit| parts.len() < limit) {
        let split = match separator {
            Some(separator) => rest.rsplit_once(separator),
            None => rest.rsplit_once(char::is_whitespace).map(|(head, tail)| (head.trim_end(), tail)),
        };
        let Some((head, tail)) = split else { break };
        if separator.is_none() && head.is_empty() {
            rest = tail;
            break;
        }
        parts.push(tail.to_owned());
        rest = head;
    }
    if separator.is_some() || !rest.is_empty() {
        parts.push(rest.to_owned());
    }
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, context: serde_json::Value) -> String {
        environment(Clock::Fixed(0)).render_str(source, minijinja::value::Serde(&context)).expect("renders")
    }

    #[test]
    fn floats_as_python_prints_them() {
        // repr() of each in Python 3.
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123456789012345.6, "123456789012345.6"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e-4, "0.0001"),
            (1.5e-7, "1.5e-07"),
            (1e100, "1e+100"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(python_float(number), text);
        }
    }

    #[test]
    fn methods_that_the_library_lacks() {
        for (source, text) in [
            ("{{ 'abc'.removeprefix('a') }}", "bc"),
            ("{{ 'abc'.removesuffix('x') }}", "abc"),
            ("{{ 'a=b=c'.partition('=')[2] }}", "b=c"),
            ("{{ 'a=b=c'.rpartition('=')[0] }}", "a=b"),
            ("{{ 'a b  c '.rsplit() | join('|') }}", "a|b|c"),
            ("{{ ' a'.rsplit() | join('|') }}", "a"),
            ("{{ 'a,b,c'.rsplit(',', 1) | join('|') }}", "a,b|c"),
            ("{{ '-7'.zfill(4) }}", "-007"),
            ("{{ [3, 5].index(5) }}", "1"),
        ] {
            assert_eq!(render(source, serde_json::json!({})), text, "{source}");
        }
    }

    #[test]
    fn the_clock_can_stand_still() {
        // 86,400 s after the epoch: the second of January 1970.
        let environment = environment(Clock::Fixed(86_400));
        let text = environment.render_str("{{ strftime_now('%d %b %Y') }}", ()).expect("renders");
        assert_eq!(text, "02 Jan 1970");
    }
}
