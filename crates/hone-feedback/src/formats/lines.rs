//! Lines in blocks, with a limit on the length of a line.

use std::io::{ErrorKind, Read};

use memchr::{memchr, memchr_iter, memrchr};

use super::source::Bytes;
use crate::error::Fault;

/// How much is read at once.
const BLOCK: usize = 1 << 20;

/// Some whole lines of a file.
#[derive(Default)]
pub(crate) struct Block {
    /// The number of the first line, from 1.
    pub first_line: u64,
    /// The lines with their ends.
    pub bytes: Vec<u8>,
    /// What is wrong with the line after them: too long, or unreadable.
    pub fault: Option<Fault>,
}

impl Block {
    /// The lines, each with its number and without its end. Only LF ends a line; a CR before it is dropped.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let ends = memchr_iter(b'\n', &self.bytes).map(|end| (end, end + 1));
        // What has no line end is a line too, unless it is nothing.
        let open = self.bytes.last().is_some_and(|byte| *byte != b'\n');
        let last = open.then_some((self.bytes.len(), self.bytes.len()));
        let mut start = 0;
        (self.first_line..).zip(ends.chain(last)).map(move |(number, (end, next))| {
            let line = &self.bytes[std::mem::replace(&mut start, next)..end];
            (number, line.strip_suffix(b"\r").unwrap_or(line))
        })
    }
}

/// Reads blocks of whole lines. Holds at most one block and one line of the longest length allowed.
pub(crate) struct Blocks {
    input: Bytes,
    /// The start of a line whose end was not read yet.
    rest: Vec<u8>,
    next_line: u64,
    limit: usize,
    done: bool,
}

impl Blocks {
    /// Blocks of `input`, whose lines may have up to `limit` bytes.
    pub fn new(input: Bytes, limit: usize) -> Self {
        Blocks { input, rest: Vec::new(), next_line: 1, limit, done: false }
    }

    /// Bytes from one read, appended to `bytes`; 0 at the end.
    fn read_more(&mut self, bytes: &mut Vec<u8>) -> Result<usize, Fault> {
        bytes.reserve(BLOCK);
        let read = self.input.by_ref().take(BLOCK as u64).read_to_end(bytes);
        match read {
            Ok(count) => Ok(count),
            // What was read before the failure is kept and given first.
            Err(error) => {
                self.done = true;
                let needed = "readable bytes";
                let got = match error.kind() {
                    ErrorKind::UnexpectedEof => "a compressed file that ends too early".to_owned(),
                    _ => error.to_string(),
                };
                Err(Fault::new("", needed, got))
            }
        }
    }

    fn block(&mut self, bytes: Vec<u8>, fault: Option<Fault>) -> Block {
        let first_line = self.next_line;
        let ends = memchr_iter(b'\n', &bytes).count() as u64;
        let open_line = bytes.last().is_some_and(|byte| *byte != b'\n');
        self.next_line += ends + u64::from(open_line);
        Block { first_line, bytes, fault }
    }

    /// Drops the rest of a line that is too long. Returns its length in bytes.
    fn skip_line(&mut self, start: usize) -> Result<usize, Fault> {
        let mut length = start;
        loop {
            let mut bytes = Vec::new();
            if self.read_more(&mut bytes)? == 0 {
                return Ok(length);
            }
            if let Some(end) = memchr(b'\n', &bytes) {
                self.rest = bytes.split_off(end + 1);
                return Ok(length + end);
            }
            length += bytes.len();
        }
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.done {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            // What was carried over from the last block holds no line end unless a long line was skipped.
            let read = self.read_more(&mut bytes);
            if matches!(read, Ok(0)) || read.is_err() {
                self.done = true;
                let fault = read.err();
                if fault.is_some() {
                    // The line that the failure cut is the one that it is told of.
                    bytes.truncate(memrchr(b'\n', &bytes).map_or(0, |end| end + 1));
                }
                return (!bytes.is_empty() || fault.is_some()).then(|| self.block(bytes, fault));
            }
            if let Some(end) = memrchr(b'\n', &bytes) {
                self.rest = bytes.split_off(end + 1);
                return Some(self.block(bytes, None));
            }
            if bytes.len() > self.limit {
                let length = self.skip_line(bytes.len());
                let fault = match length {
                    Ok(length) => too_long(self.limit, length),
                    Err(fault) => fault,
                };
                let block = Block { first_line: self.next_line, bytes: Vec::new(), fault: Some(fault) };
                self.next_line += 1;
                return Some(block);
            }
        }
    }
}

/// The fault of a line of `length` bytes.
pub(crate) fn too_long(limit: usize, length: usize) -> Fault {
    Fault::new("", format!("a line of at most {limit} bytes"), format!("{length} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, limit: usize) -> Vec<(u64, String)> {
        let blocks = Blocks::new(Box::new(std::io::Cursor::new(text.to_owned())), limit);
        let mut out = Vec::new();
        for block in blocks {
            out.extend(
                block.lines().map(|(line, bytes)| (line, String::from_utf8_lossy(bytes).into_owned())),
            );
            if let Some(fault) = &block.fault {
                let after = block.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                out.push((block.first_line + after, fault.got.clone()));
            }
        }
        out
    }

    #[test]
    fn lines_keep_their_numbers_around_a_long_one() {
        let long = "x".repeat(3 << 20);
        let text = format!("one\r\n\ntwo\n{long}\nlast");
        let expected = [(1, "one"), (2, ""), (3, "two"), (4, "3145728 bytes"), (5, "last")];
        let expected: Vec<(u64, String)> =
            expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(read(&text, 1 << 20), expected);
        assert_eq!(read(&long, 1 << 20), [(1, "3145728 bytes".to_owned())]);
        assert_eq!(read("", 10), []);
    }
}
