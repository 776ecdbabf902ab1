//! JSON objects one by one from a list or a row of documents, without holding the file.

use std::io::{BufRead, BufReader, Read};

use super::source::Bytes;
use crate::error::Fault;

/// Reads the objects of a JSON list, or of several documents one after the other, over as many lines as they
/// take. Holds one object.
pub(crate) struct Elements {
    input: BufReader<Bytes>,
    line: u64,
    limit: usize,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Start,
    /// Inside the outer list.
    List,
    /// Documents in a row.
    Row,
    Done,
}

/// One object and the line it starts on.
pub(crate) type Element = (u64, Result<Vec<u8>, Fault>);

impl Elements {
    /// Objects of `input`, each of up to `limit` bytes.
    pub fn new(input: Bytes, limit: usize) -> Self {
        Elements { input: BufReader::with_capacity(1 << 16, input), line: 1, limit, state: State::Start }
    }

    fn byte(&mut self) -> Result<Option<u8>, Fault> {
        let mut one = [0];
        match self.input.read(&mut one) {
            Ok(0) => Ok(None),
            Ok(_) => {
                self.line += u64::from(one[0] == b'\n');
                Ok(Some(one[0]))
            }
            Err(error) => Err(Fault::new("", "readable bytes", error.to_string())),
        }
    }

    /// Reads from after `first` to the end of the value that it begins.
    fn value(&mut self, first: u8) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![first];
        let mut length = 1;
        let mut depth = usize::from(matches!(first, b'{' | b'['));
        let mut text = first == b'"';
        let mut escaped = false;
        let scalar = depth == 0 && !text;
        loop {
            if scalar {
                // Numbers and words end before what follows, which the caller has to see.
                let next = self.input.fill_buf().ok().and_then(|buffer| buffer.first().copied());
                if next.is_none_or(|byte| byte.is_ascii_whitespace() || b",]}[{\"".contains(&byte)) {
                    break;
                }
            }
            let Some(byte) = self.byte()? else {
                return Err(Fault::new("", "a whole JSON object", "the end of the file inside it"));
            };
            length += 1;
            if length <= self.limit {
                bytes.push(byte);
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if text => escaped = true,
                b'"' => text = !text,
                b'{' | b'[' if !text => depth += 1,
                b'}' | b']' if !text => depth = depth.saturating_sub(1),
                _ => {}
            }
            if !scalar && depth == 0 && !text {
                break;
            }
        }
        if length > self.limit { Err(super::lines::too_long(self.limit, length)) } else { Ok(bytes) }
    }
}

impl Iterator for Elements {
    type Item = Element;

    fn next(&mut self) -> Option<Element> {
        while self.state != State::Done {
            let byte = match self.byte() {
                Ok(Some(byte)) => byte,
                Ok(None) => {
                    let open = self.state == State::List;
                    self.state = State::Done;
                    let fault = Fault::new("", "] at the end of the list", "the end of the file");
                    return open.then_some((self.line, Err(fault)));
                }
                Err(fault) => {
                    self.state = State::Done;
                    return Some((self.line, Err(fault)));
                }
            };
            match (byte, &self.state) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => {}
                // A byte order mark.
                (0xef | 0xbb | 0xbf, State::Start) => {}
                (b'[', State::Start) => self.state = State::List,
                (b',', State::List) => {}
                (b']', State::List) => self.state = State::Row,
                _ => {
                    if self.state == State::Start {
                        self.state = State::Row;
                    }
                    let line = self.line;
                    let value = self.value(byte);
                    if value.as_ref().is_err_and(|fault| !fault.needed.starts_with("a line")) {
                        self.state = State::Done;
                    }
                    return Some((line, value));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, Result<String, String>)> {
        let elements = Elements::new(Box::new(std::io::Cursor::new(text.to_owned())), 40);
        elements
            .map(|(line, value)| {
                (line, value.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|fault| fault.got))
            })
            .collect()
    }

    #[test]
    fn lists_and_documents_in_a_row() {
        let one = |text: &str| Ok(text.to_owned());
        assert_eq!(
            read("[{\"a\":\"]}\\\"\"},\n 7, {\"b\":[1]}]"),
            [(1, one("{\"a\":\"]}\\\"\"}")), (2, one("7")), (2, one("{\"b\":[1]}"))]
        );
        assert_eq!(read("{\n \"a\": 1\n}\n{}"), [(1, one("{\n \"a\": 1\n}")), (4, one("{}"))]);
        assert_eq!(read("[]"), []);
    }

    #[test]
    fn what_is_cut_or_too_long_is_said() {
        assert_eq!(
            read("[{\"a\":1},"),
            [(1, Ok("{\"a\":1}".to_owned())), (1, Err("the end of the file".to_owned()))]
        );
        assert_eq!(read("[\n{\"a\":"), [(2, Err("the end of the file inside it".to_owned()))]);
        let long = format!("[{{\"a\":\"{}\"}},{{}}]", "x".repeat(50));
        assert_eq!(read(&long), [(1, Err("58 bytes".to_owned())), (1, Ok("{}".to_owned()))]);
    }
}
