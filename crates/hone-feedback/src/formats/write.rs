//! The writer: records into any written format, container and compression.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Map, Value};

use super::parquet::{OVERFLOW, RowWriter};
use super::table::{misread, to_cell};
use super::{Format, WriteRows, flat};
use crate::convert::Losses;
use crate::record::Record;

/// What rows lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// One JSON object per line.
    Jsonl,
    /// A JSON list, or documents in a row.
    Json,
    /// A table of text, comma-separated.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Container {
    /// The container called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "jsonl" => Some(Container::Jsonl),
            "json" => Some(Container::Json),
            "csv" => Some(Container::Csv),
            "parquet" => Some(Container::Parquet),
            _ => None,
        }
    }

    /// The container that a file name asks for: by its ending, JSON lines where it has none that is known.
    pub fn of_path(path: &Path) -> Self {
        let name = path.to_string_lossy().to_ascii_lowercase();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
        let ending = name.rsplit('.').next().unwrap_or_default();
        Container::named(ending).unwrap_or(Container::Jsonl)
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The format is only read.
    #[error("--to {0}: Hone reads this format but does not write it")]
    OnlyRead(&'static str),
}

/// What was written, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Records given.
    pub records: u64,
    /// Rows written.
    pub rows: u64,
    /// What the format could not hold, by reason.
    pub losses: Losses,
}

/// Writes records. The file appears under its name only when [`Writer::finish`] has written all of it.
pub struct Writer {
    write: WriteRows,
    rows: Sink,
    written: Written,
    path: PathBuf,
    partial: Partial,
}

/// The unfinished file, removed unless it was given its name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already where all went well; where it cannot be removed, its name says what it is.
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Sink {
    Jsonl(Output),
    Json { output: Output, first: bool },
    Csv(Box<TableWriter>),
    Parquet(Box<RowWriter<Output>>),
}

enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<File>>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Plain(output) => output.write(bytes),
            Output::Gzip(output) => output.write(bytes),
            Output::Zstd(output) => output.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Plain(output) => output.flush(),
            Output::Gzip(output) => output.flush(),
            Output::Zstd(output) => output.flush(),
        }
    }
}

impl Output {
    fn close(self) -> io::Result<()> {
        let mut file = match self {
            Output::Plain(output) => output,
            Output::Gzip(output) => output.finish()?,
            Output::Zstd(output) => output.finish()?,
        };
        file.flush()?;
        file.get_ref().sync_all()
    }
}

/// Rows after which the columns of a table are fixed.
const SETTLED: usize = 4096;

impl Writer {
    /// A writer of `format` into `path`, whose endings (`.csv`, `.parquet`, `.json`, `.gz`, `.zst`) say how. The
    /// format `csv` goes into a table whatever the name.
    ///
    /// # Errors
    /// The format is only read, or the file cannot be made.
    pub fn create(path: &Path, format: &'static Format) -> Result<Self, WriteError> {
        let write = format.write.ok_or(WriteError::OnlyRead(format.name))?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Partial(PathBuf::from(partial));
        let fail = |source| WriteError::Io { file: path.display().to_string(), source };
        let file = BufWriter::new(File::create(&partial.0).map_err(fail)?);
        let name = path.to_string_lossy().to_ascii_lowercase();
        let output = if name.ends_with(".gz") {
            Output::Gzip(GzEncoder::new(file, flate2::Compression::default()))
        } else if name.ends_with(".zst") {
            Output::Zstd(zstd::stream::write::Encoder::new(file, 3).map_err(fail)?)
        } else {
            Output::Plain(file)
        };
        let is_flat = std::ptr::eq(format, &flat::CSV);
        let rows = match Container::of_path(path) {
            Container::Jsonl if !is_flat => Sink::Jsonl(output),
            Container::Json => Sink::Json { output, first: true },
            Container::Parquet => Sink::Parquet(Box::new(RowWriter::new(output))),
            Container::Csv | Container::Jsonl => {
                let columns = if is_flat { flat::COLUMNS.map(str::to_owned).to_vec() } else { Vec::new() };
                let writer = csv::Writer::from_writer(output);
                Sink::Csv(Box::new(TableWriter { writer, columns, header: None, waiting: Vec::new() }))
            }
        };
        Ok(Writer { write, rows, written: Written::default(), path: path.to_owned(), partial })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), WriteError> {
        self.written.records += 1;
        for row in (self.write)(record, &mut self.written.losses) {
            self.written.rows += 1;
            self.row(row)
                .map_err(|source| WriteError::Io { file: self.path.display().to_string(), source })?;
        }
        Ok(())
    }

    fn row(&mut self, row: Map<String, Value>) -> io::Result<()> {
        match &mut self.rows {
            Sink::Jsonl(output) => {
                serde_json::to_writer(&mut *output, &row)?;
                output.write_all(b"\n")
            }
            Sink::Json { output, first } => {
                output.write_all(if std::mem::take(first) { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(output, &row).map_err(io::Error::from)
            }
            Sink::Parquet(rows) => rows.write(row, &mut self.written.losses),
            Sink::Csv(table) => {
                table.waiting.push(row);
                if table.waiting.len() >= SETTLED {
                    table.flush(false, &mut self.written.losses)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<Written, WriteError> {
        let Writer { rows, mut written, path, partial, .. } = self;
        let closed = match rows {
            Sink::Jsonl(output) => output.close(),
            Sink::Json { mut output, first } => {
                output.write_all(if first { b"[]\n" } else { b"\n]\n" }).and_then(|()| output.close())
            }
            Sink::Parquet(rows) => rows.finish(&mut written.losses).and_then(Output::close),
            Sink::Csv(mut table) => table.flush(true, &mut written.losses).and_then(|()| {
                let output =
                    table.writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
                output.close()
            }),
        };
        let named = closed.and_then(|()| std::fs::rename(&partial.0, &path));
        named.map_err(|source| WriteError::Io { file: path.display().to_string(), source })?;
        Ok(written)
    }
}

/// Writes a table. The columns are those of the first rows; what later rows have besides goes as JSON into one
/// column of its own.
struct TableWriter {
    writer: csv::Writer<Output>,
    /// Columns that come first, whatever the rows have.
    columns: Vec<String>,
    /// All columns, once written.
    header: Option<Vec<String>>,
    waiting: Vec<Map<String, Value>>,
}

impl TableWriter {
    /// Writes the rows that wait. `last`: no more will come, so the columns are all known.
    fn flush(&mut self, last: bool, losses: &mut Losses) -> io::Result<()> {
        let header = match &self.header {
            Some(header) => header,
            None => {
                let mut header = std::mem::take(&mut self.columns);
                for name in self.waiting.iter().flat_map(Map::keys) {
                    if !header.contains(name) {
                        header.push(name.clone());
                    }
                }
                if !last {
                    header.push(OVERFLOW.to_owned());
                }
                if !header.is_empty() {
                    self.writer.write_record(&header)?;
                }
                self.header.insert(header)
            }
        };
        for mut row in self.waiting.drain(..) {
            let mut cells = Vec::with_capacity(header.len());
            for name in header.iter().filter(|name| *name != OVERFLOW) {
                let value = row.shift_remove(name).unwrap_or_default();
                if let Value::String(text) = &value
                    && misread(text)
                {
                    losses.add("text that a table cannot tell from JSON or from nothing");
                }
                cells.push(to_cell(&value));
            }
            if header.last().is_some_and(|name| name == OVERFLOW) {
                let rest = if row.is_empty() { Value::Null } else { Value::Object(row) };
                cells.push(to_cell(&rest));
            }
            self.writer.write_record(&cells)?;
        }
        Ok(())
    }
}
