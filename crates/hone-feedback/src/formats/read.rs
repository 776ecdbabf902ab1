//! The reader: container and format found out, rows turned into records, problems kept in order.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::elements::Elements;
use super::lines::{Block, Blocks, too_long};
use super::row::Row;
use super::source::{self, Opened};
use super::table::Table;
use super::write::Container;
use super::{Context, FORMATS, Format, HONE, Joins, keep_apart, named, parquet};
use crate::error::{Fault, Problem};
use crate::record::Record;

/// How to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// A format of [`FORMATS`], or a container (`jsonl`, `json`, `csv`, `parquet`). None: found by content.
    pub from: Option<String>,
    /// The longest line, list element or row, in bytes. Longer ones are a problem each, and are not held.
    pub line_limit: usize,
    /// Check every record and give its faults instead of it.
    pub validate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { from: None, line_limit: 16 << 20, validate: true }
    }
}

/// Why an input could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or its first bytes not read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `from` names nothing.
    #[error("--from {name}: needed one of {known}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// No format looks like the first rows.
    #[error("{file}: needed rows of a known format (name it with --from), got fields {fields}")]
    UnknownFormat {
        /// The file.
        file: String,
        /// The fields of the first row.
        fields: String,
    },
    /// A Parquet file whose end cannot be read.
    #[error("{0}")]
    Damaged(Problem),
}

/// A record and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The line it starts on, from 1; in Parquet the row.
    pub line: u64,
    /// The record.
    pub record: Record,
}

/// Reads records one by one. An item is a record or a problem; a row with several problems gives several.
pub struct Reader {
    name: String,
    container: Container,
    rows: Rows,
    parser: LineParser,
    validate: bool,
    /// Rows that were looked at to find the format.
    seen: VecDeque<RowAt>,
    ready: VecDeque<Result<Located, Problem>>,
    /// The record that the next row may still belong to.
    open: Option<Located>,
    joined: bool,
}

enum Rows {
    Lines(Lines),
    Elements(Elements),
    Table(Box<Table>),
    Parquet(Box<parquet::Rows>),
}

/// Lines, by block.
pub(crate) struct Lines {
    pub blocks: Blocks,
    pub limit: usize,
    block: Block,
    at: usize,
    next: u64,
}

impl Lines {
    fn new(blocks: Blocks, limit: usize) -> Self {
        Lines { blocks, limit, block: Block::default(), at: 0, next: 0 }
    }

    /// The next line and its number, without its end.
    fn next_line(&mut self) -> Option<(u64, Result<&[u8], Fault>)> {
        while self.at >= self.block.bytes.len() {
            if let Some(fault) = self.block.fault.take() {
                return Some((self.next, Err(fault)));
            }
            self.block = self.blocks.next()?;
            self.at = 0;
            self.next = self.block.first_line;
        }
        let rest = &self.block.bytes[self.at..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += end + 1;
        let number = self.next;
        self.next += 1;
        Some((number, if end > self.limit { Err(too_long(self.limit, end)) } else { Ok(&rest[..end]) }))
    }
}

/// Turns one row into a record. Each thread that parses has its own.
pub(crate) struct LineParser {
    format: &'static Format,
    context: Context,
}

impl LineParser {
    /// A parser of the same format for another thread.
    pub fn again(&self) -> Self {
        LineParser {
            format: self.format,
            context: Context { path: self.context.path.clone(), questions: None },
        }
    }

    /// The record of a line; None for a blank one.
    pub fn line(&mut self, number: u64, line: &[u8]) -> Result<Option<Record>, Fault> {
        let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        if std::ptr::eq(self.format, &HONE) {
            // Hone's own lines are parsed straight into the record.
            return Record::from_json(line).map(Some).map_err(|fault| match serde_json::from_slice(line) {
                Ok(Value::Object(row)) => self.mixed(&row).unwrap_or(fault),
                _ => fault,
            });
        }
        self.row(number, object(line)?).map(Some)
    }

    /// The record of a parsed row.
    pub fn row(&mut self, number: u64, row: Map<String, Value>) -> Result<Record, Fault> {
        let mixed = self.mixed(&row);
        // A row of another format may still be readable as this one, with half of it taken for unknown fields.
        if let (Some(fault), false) = (mixed, std::ptr::eq(self.format, &HONE)) {
            return Err(fault);
        }
        let mut record = (self.format.read)(Row(row), &mut self.context)?;
        if !std::ptr::eq(self.format, &HONE) {
            if record.id.is_empty() {
                record.id = format!("#{number}");
            }
            keep_apart(&mut record);
        }
        Ok(record)
    }

    /// What to say of a row of another format than the file's.
    fn mixed(&self, row: &Map<String, Value>) -> Option<Fault> {
        if (self.format.looks_like)(row) {
            return None;
        }
        let other = FORMATS.iter().find(|format| (format.looks_like)(row))?;
        // The same rows to a reader: weights and tools, which tell the two apart, are there in some rows only.
        let chat = |format: &Format| matches!(format.name, "openai-chat" | "trl-messages");
        if chat(self.format) && chat(other) {
            return None;
        }
        Some(Fault::new(
            "",
            format!("a row of the format {}", self.format.name),
            format!("one that looks like {}", other.name),
        ))
    }
}

fn object(line: &[u8]) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Fault::new("", "a JSON object", crate::record::kind_of(&other))),
        Err(_) if std::str::from_utf8(line).is_err() => {
            Err(Fault::new("", "UTF-8 text", "bytes that are not UTF-8"))
        }
        Err(error) => Err(Fault::new("", "a whole JSON object", error.to_string())),
    }
}

/// Opens a file.
///
/// # Errors
/// The file cannot be read, or nothing says what it holds.
pub fn open(path: &Path, options: &Options) -> Result<Reader, OpenError> {
    let name = path.display().to_string();
    let opened = source::open(path).map_err(|source| OpenError::Io { file: name.clone(), source })?;
    reader(name, opened, Some(path.to_owned()), options)
}

/// Opens a stream, called `name` in messages.
///
/// # Errors
/// As [`open`].
pub fn open_stream(
    name: &str,
    stream: Box<dyn std::io::Read + Send>,
    options: &Options,
) -> Result<Reader, OpenError> {
    let opened =
        source::from_stream(stream).map_err(|source| OpenError::Io { file: name.to_owned(), source })?;
    reader(name.to_owned(), opened, None, options)
}

fn reader(
    name: String,
    opened: Opened,
    path: Option<PathBuf>,
    options: &Options,
) -> Result<Reader, OpenError> {
    let from = options.from.as_deref();
    let forced = from.and_then(Container::named);
    let asked = match from {
        Some(from) if forced.is_none() => Some(named(from).ok_or_else(|| {
            OpenError::UnknownName {
                name: from.to_owned(),
                known: FORMATS
                    .iter()
                    .map(|format| format.name)
                    .chain(["jsonl", "json", "parquet"])
                    .collect::<Vec<_>>()
                    .join(", "),
            }
        })?),
        _ => None,
    };
    let container = forced.unwrap_or_else(|| container_of(&opened.head, path.as_deref()));
    let limit = options.line_limit;
    let damaged = |fault: Fault| OpenError::Damaged(fault.at(&name, 0));
    let mut seen = VecDeque::new();
    let mut sample: Vec<Map<String, Value>> = Vec::new();
    let mut rows = match container {
        Container::Jsonl => {
            // The sample comes from the head, so that the lines themselves stay unread.
            let head = opened.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&opened.head);
            sample =
                head.split(|byte| *byte == b'\n').take(SAMPLE).filter_map(|line| object(line).ok()).collect();
            Rows::Lines(Lines::new(Blocks::new(opened.bytes, limit), limit))
        }
        Container::Json => Rows::Elements(Elements::new(opened.bytes, limit)),
        Container::Csv => {
            let headless = asked.is_some_and(|format| format.name.starts_with("sparse-"));
            Rows::Table(Box::new(Table::new(opened.bytes, &opened.head, headless.then_some(false), limit)))
        }
        Container::Parquet => Rows::Parquet(Box::new(match &path {
            Some(path) if !opened.compressed => {
                let file = File::open(path).map_err(|source| OpenError::Io { file: name.clone(), source })?;
                parquet::Rows::of_file(file).map_err(damaged)?
            }
            _ => parquet::Rows::of_stream(opened.bytes).map_err(damaged)?,
        })),
    };
    if !matches!(rows, Rows::Lines(_)) {
        while seen.len() < SAMPLE
            && let Some(next) = next_rows(&mut rows)
        {
            seen.extend(next);
        }
        sample = seen.iter().filter_map(|(_, row)| row.as_ref().ok().cloned()).collect();
    }
    let format = match asked {
        Some(format) => format,
        None => detect(&sample, &name)?,
    };
    Ok(Reader {
        name,
        container,
        rows,
        parser: LineParser { format, context: Context { path, questions: None } },
        validate: options.validate,
        seen,
        ready: VecDeque::new(),
        open: None,
        joined: false,
    })
}

/// How many rows are looked at to find the format.
const SAMPLE: usize = 50;

fn container_of(head: &[u8], path: Option<&Path>) -> Container {
    if parquet::is_parquet(head) {
        return Container::Parquet;
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let name = path.map(|path| path.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Container::Json,
        Some(b'{') => {
            let line =
                head.split(|byte| *byte == b'\n').find(|line| !line.iter().all(u8::is_ascii_whitespace));
            let whole =
                line.is_some_and(|line| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok());
            // A document over several lines: its first line is no JSON, but its first value is, or would be if
            // the head went on.
            let mut values = serde_json::Deserializer::from_slice(head).into_iter::<serde::de::IgnoredAny>();
            let goes_on =
                head.len() >= source::HEAD as usize - 3 && line.is_some_and(|line| line.len() < 4096);
            let document = match values.next() {
                Some(Ok(_)) => true,
                Some(Err(error)) => error.is_eof() && goes_on,
                None => false,
            };
            // One line alone may be an envelope, as an API sends it.
            let mut alone = || values.next().is_none() && head.len() < source::HEAD as usize;
            let page = || {
                let mut row = object(line?).ok()?;
                rows_of_page(&mut row)?.as_array().map(|rows| !rows.is_empty())
            };
            match whole {
                true if alone() && page() == Some(true) => Container::Json,
                false if document => Container::Json,
                _ => Container::Jsonl,
            }
        }
        Some(_) if name.ends_with(".csv") || name.ends_with(".tsv") => Container::Csv,
        Some(_) if name.ends_with(".jsonl") || name.ends_with(".json") || name.ends_with(".ndjson") => {
            Container::Jsonl
        }
        Some(_)
            if head
                .split(|byte| *byte == b'\n')
                .next()
                .is_some_and(|line| line.contains(&super::table::delimiter(head))) =>
        {
            Container::Csv
        }
        _ => Container::Jsonl,
    }
}

/// The format that most of the rows look like.
fn detect(sample: &[Map<String, Value>], name: &str) -> Result<&'static Format, OpenError> {
    let Some(first) = sample.first() else {
        // Nothing to look at: every line will say what is wrong with it as a record.
        return Ok(&HONE);
    };
    // Each row votes for the first format that it looks like; the first in the list wins a tie.
    let votes: Vec<usize> =
        sample.iter().filter_map(|row| FORMATS.iter().position(|format| (format.looks_like)(row))).collect();
    let count = |place: usize| votes.iter().filter(|vote| **vote == place).count();
    match (0..FORMATS.len()).rev().max_by_key(|place| count(*place)) {
        Some(place) if count(place) > 0 => Ok(FORMATS[place]),
        _ => Err(OpenError::UnknownFormat {
            file: name.to_owned(),
            fields: first.keys().take(12).map(String::as_str).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// A row and its line.
type RowAt = (u64, Result<Map<String, Value>, Fault>);

/// The next rows of a container that is not lines: one, or those of a page.
fn next_rows(rows: &mut Rows) -> Option<Vec<RowAt>> {
    match rows {
        Rows::Lines(lines) => {
            let (number, line) = lines.next_line()?;
            Some(vec![(number, line.and_then(object))])
        }
        Rows::Elements(elements) => {
            let (line, value) = elements.next()?;
            Some(match value.and_then(|bytes| object(&bytes)) {
                Ok(row) => unfold_page(row).into_iter().map(|row| (line, Ok(row))).collect(),
                Err(fault) => vec![(line, Err(fault))],
            })
        }
        Rows::Table(table) => table.next().map(|(line, row)| vec![(line, row.map(merge_overflow))]),
        Rows::Parquet(rows) => rows.next().map(|row| vec![row]),
    }
}

/// The rows of an envelope: a page of an API holds them under `data`, a promptfoo file under `results.results`,
/// an Inspect log under `samples`. The row itself where it is none.
fn unfold_page(mut row: Map<String, Value>) -> Vec<Map<String, Value>> {
    let Some(rows) = rows_of_page(&mut row).map(Value::take) else { return vec![row] };
    let Value::Array(rows) = rows else { return vec![row] };
    let objects = rows.into_iter().filter_map(|row| match row {
        Value::Object(row) => Some(row),
        _ => None,
    });
    objects.collect()
}

fn rows_of_page(row: &mut Map<String, Value>) -> Option<&mut Value> {
    let few = row.len() <= 4;
    let has = |name: &str| row.contains_key(name);
    let rows = if has("evalId") && has("results") {
        row.get_mut("results")?.get_mut("results")?
    } else if has("eval") && has("samples") {
        row.get_mut("samples")?
    } else if few {
        row.get_mut("data")?
    } else {
        return None;
    };
    rows.as_array().is_some_and(|rows| rows.iter().all(Value::is_object)).then_some(rows)
}

fn merge_overflow(mut row: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(overflow)) = row.get_mut(parquet::OVERFLOW).map(Value::take) {
        row.shift_remove(parquet::OVERFLOW);
        row.extend(overflow);
    }
    row
}

impl Reader {
    /// The format that was found or named.
    pub fn format(&self) -> &'static Format {
        self.parser.format
    }

    /// What the rows lie in.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The input's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The unread lines and their parser, where each line is a record of its own, to be read by several threads.
    pub(crate) fn into_lines(self) -> Result<(Lines, LineParser), Box<Self>> {
        let whole = self.seen.is_empty() && self.ready.is_empty() && self.parser.format.joins == Joins::No;
        match self.rows {
            Rows::Lines(lines) if whole => Ok((lines, self.parser)),
            rows => Err(Box::new(Reader { rows, ..self })),
        }
    }

    /// The next row as a record; None at the end. Blank lines are no rows.
    fn next_record(&mut self) -> Option<(u64, Result<Record, Fault>)> {
        loop {
            if let Some((number, row)) = self.seen.pop_front() {
                return Some((number, row.and_then(|row| self.parser.row(number, row))));
            }
            if let Rows::Lines(lines) = &mut self.rows {
                let (number, line) = lines.next_line()?;
                match line.and_then(|line| self.parser.line(number, line)) {
                    Ok(None) => {}
                    Ok(Some(record)) => return Some((number, Ok(record))),
                    Err(fault) => return Some((number, Err(fault))),
                }
            } else {
                self.seen.extend(next_rows(&mut self.rows)?);
            }
        }
    }

    fn give(&mut self, located: Located) {
        let faults = if self.validate { located.record.validate() } else { Vec::new() };
        if faults.is_empty() {
            self.ready.push_back(Ok(located));
            return;
        }
        let at = |fault: Fault| Err(fault.at(&self.name, located.line));
        self.ready.extend(faults.into_iter().map(at));
    }

    /// Reads everything and joins rows by id.
    fn join(&mut self) {
        self.joined = true;
        let mut order: Vec<Located> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some((line, record)) = self.next_record() {
            match record {
                Err(fault) => self.ready.push_back(Err(fault.at(&self.name, line))),
                Ok(record) => match places.get(&record.id) {
                    Some(place) => merge(&mut order[*place].record, record),
                    None => {
                        places.insert(record.id.clone(), order.len());
                        order.push(Located { line, record });
                    }
                },
            }
        }
        for located in order {
            if located.record.prompt.is_empty() && located.record.responses.is_empty() {
                let got = format!("none with the id {:?}", located.record.id);
                let fault = Fault::new("", "the trace or run that it is about", got);
                self.ready.push_back(Err(fault.at(&self.name, located.line)));
            } else {
                self.give(located);
            }
        }
    }
}

/// Adds what another row says about the same record.
fn merge(record: &mut Record, other: Record) {
    if record.prompt.is_empty() {
        record.prompt = other.prompt;
    }
    for response in other.responses {
        // A row may repeat an answer that is known.
        if record.response(&response.id).is_none_or(|known| known.content != response.content) {
            record.responses.push(response);
        }
    }
    record.feedback.extend(other.feedback);
    record.split = record.split.take().or(other.split);
    for (key, value) in other.extra {
        record.extra.entry(key).or_insert(value);
    }
}

impl Iterator for Reader {
    type Item = Result<Located, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.parser.format.joins == Joins::ById {
                if self.joined {
                    return None;
                }
                self.join();
                continue;
            }
            let Some((line, record)) = self.next_record() else {
                let open = self.open.take()?;
                self.give_open(open);
                continue;
            };
            match record {
                Err(fault) => self.ready.push_back(Err(fault.at(&self.name, line))),
                Ok(record) if self.parser.format.joins == Joins::Adjacent => match &mut self.open {
                    Some(open) if open.record.id == record.id => merge(&mut open.record, record),
                    _ => {
                        if let Some(open) = self.open.replace(Located { line, record }) {
                            self.give_open(open);
                        }
                    }
                },
                Ok(record) => self.give(Located { line, record }),
            }
        }
    }
}

impl Reader {
    /// Gives a record of several rows, its responses in the order that the writer noted.
    fn give_open(&mut self, mut located: Located) {
        if let Some(Value::Array(order)) = located.record.extra.shift_remove("order_of_responses") {
            let place = |id: &str| order.iter().position(|known| known == id).unwrap_or(order.len());
            located.record.responses.sort_by_key(|response| place(&response.id));
        }
        self.give(located);
    }
}
