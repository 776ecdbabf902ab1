//! CSV and TSV: rows of text, quoted line ends and all.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use super::source::Bytes;
use crate::error::Fault;

/// Reads the rows of a table as objects. Without a header the columns are called `0`, `1`, …
pub(crate) struct Table {
    reader: csv::Reader<Limited>,
    /// Bytes read since the last row, to stop a quote that never closes.
    since: Arc<AtomicUsize>,
    limit: usize,
    header: Option<Vec<String>>,
    first: Option<csv::ByteRecord>,
    done: bool,
}

/// Counts what passes through and stops at a limit.
struct Limited {
    input: Bytes,
    since: Arc<AtomicUsize>,
    limit: usize,
}

/// The csv crate reads ahead by its buffer, which must not count against the row.
const AHEAD: usize = 64 << 10;

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let since = self.since.fetch_add(count, Ordering::Relaxed);
        if since > self.limit + AHEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a row without an end"));
        }
        Ok(count)
    }
}

impl Table {
    /// Rows of `input`, each of up to about `limit` bytes. `header`: the first row names the columns; None: find
    /// out. The delimiter is the one of comma, tab and semicolon that the first line has most of.
    pub fn new(input: Bytes, head: &[u8], header: Option<bool>, limit: usize) -> Self {
        let since = Arc::new(AtomicUsize::new(0));
        let limited = Limited { input, since: since.clone(), limit };
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter(head))
            .buffer_capacity(AHEAD)
            .from_reader(limited);
        let mut first = csv::ByteRecord::new();
        let mut table_first = None;
        let mut names = None;
        // An error here comes again with the next row, which reports it.
        if matches!(reader.read_byte_record(&mut first), Ok(true)) {
            since.store(0, Ordering::Relaxed);
            let cells: Vec<String> =
                first.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
            if header.unwrap_or_else(|| is_header(&cells)) {
                let mut cells = cells;
                if let Some(rest) = cells[0].strip_prefix('\u{feff}') {
                    cells[0] = rest.to_owned();
                }
                names = Some(cells);
            } else {
                table_first = Some(first);
            }
        }
        Table { reader, since, limit, header: names, first: table_first, done: false }
    }

    fn object(&self, row: &csv::ByteRecord) -> Result<Map<String, Value>, Fault> {
        if let Some(header) = &self.header
            && header.len() != row.len()
        {
            let needed = format!("{} cells, as the header has", header.len());
            return Err(Fault::new("", needed, format!("{} cells", row.len())));
        }
        let mut object = Map::new();
        for (index, cell) in row.iter().enumerate() {
            let name = self.header.as_ref().map_or_else(|| index.to_string(), |header| header[index].clone());
            let Ok(text) = std::str::from_utf8(cell) else {
                return Err(Fault::new(name, "UTF-8 text", "bytes that are not UTF-8"));
            };
            if !text.is_empty() {
                object.insert(name, from_cell(text));
            }
        }
        Ok(object)
    }
}

impl Iterator for Table {
    type Item = (u64, Result<Map<String, Value>, Fault>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some((1, self.object(&first)));
        }
        if self.done {
            return None;
        }
        let mut row = csv::ByteRecord::new();
        let read = self.reader.read_byte_record(&mut row);
        self.since.store(0, Ordering::Relaxed);
        match read {
            Ok(true) => {
                let line = row.position().map_or(0, csv::Position::line);
                let length: usize = row.iter().map(<[u8]>::len).sum();
                if length > self.limit {
                    return Some((line, Err(super::lines::too_long(self.limit, length))));
                }
                Some((line, self.object(&row)))
            }
            Ok(false) => None,
            Err(error) => {
                self.done = true;
                let line = self.reader.position().line();
                let needed = format!("a row of at most {} bytes", self.limit);
                Some((line, Err(Fault::new("", needed, error.to_string()))))
            }
        }
    }
}

/// A first row that could name columns: short, distinct words, no numbers.
fn is_header(cells: &[String]) -> bool {
    let word = |cell: &String| {
        !cell.is_empty() && cell.len() <= 80 && !cell.contains('\n') && cell.parse::<f64>().is_err()
    };
    cells.iter().all(word) && (1..cells.len()).all(|index| !cells[..index].contains(&cells[index]))
}

pub(crate) fn delimiter(head: &[u8]) -> u8 {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |wanted: u8| line.iter().filter(|byte| **byte == wanted).count();
    [b'\t', b';', b','].into_iter().max_by_key(|wanted| count(*wanted)).unwrap_or(b',')
}

/// A cell that holds a JSON object, or a list of objects, truths or texts, is that; everything else is text.
///
/// A list of numbers stays text: `[1]` is more often a footnote than data.
fn from_cell(text: &str) -> Value {
    let trimmed = text.trim();
    if (trimmed.starts_with('{') && trimmed.ends_with('}'))
        || (trimmed.starts_with('[') && trimmed.ends_with(']'))
    {
        match serde_json::from_str(trimmed) {
            Ok(value @ Value::Object(_)) => return value,
            Ok(Value::Array(items)) if !items.is_empty() && items.iter().all(|item| !item.is_number()) => {
                return Value::Array(items);
            }
            _ => {}
        }
    }
    Value::String(text.to_owned())
}

/// The cell that [`from_cell`] reads back as `value`.
pub(crate) fn to_cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether text would be read back from a cell as something else.
pub(crate) fn misread(text: &str) -> bool {
    text.is_empty() || from_cell(text) != Value::String(text.to_owned())
}
