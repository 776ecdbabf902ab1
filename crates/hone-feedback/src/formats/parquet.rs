//! Parquet, read and written through Arrow.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_json::writer::{LineDelimited, WriterBuilder};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use crate::convert::Losses;
use crate::error::Fault;

/// Rows decoded at once.
const BATCH: usize = 512;

/// Reads the rows of a Parquet file as objects. Lines are row numbers, from 1.
pub(crate) struct Rows {
    batches: Option<ParquetRecordBatchReader>,
    /// Columns that hold JSON as text.
    json: Vec<String>,
    ready: std::vec::IntoIter<Map<String, Value>>,
    row: u64,
}

impl Rows {
    /// Rows of a file, which is read in pieces.
    pub fn of_file(file: File) -> Result<Self, Fault> {
        guard(|| Ok(ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH).build()?))
            .map(Self::new)
    }

    /// Rows of a stream, which has to be held whole: Parquet has its table of contents at the end.
    pub fn of_stream(mut stream: super::source::Bytes) -> Result<Self, Fault> {
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .map_err(|error| Fault::new("", "readable bytes", error.to_string()))?;
        let bytes = bytes::Bytes::from(bytes);
        guard(|| Ok(ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH).build()?))
            .map(Self::new)
    }

    fn new(batches: ParquetRecordBatchReader) -> Self {
        let marked = |field: &&Arc<Field>| field.metadata().get(MARK).is_some_and(|mark| mark == "json");
        let json =
            batches.schema().fields().iter().filter(marked).map(|field| field.name().clone()).collect();
        Rows { batches: Some(batches), json, ready: Vec::new().into_iter(), row: 0 }
    }

    fn refill(&mut self) -> Result<bool, Fault> {
        let Some(batches) = &mut self.batches else { return Ok(false) };
        let batch = guard(|| Ok(batches.next().transpose()?))?;
        let Some(batch) = batch else { return Ok(false) };
        let lines = guard(|| {
            let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch)?;
            writer.finish()?;
            Ok(writer.into_inner())
        })?;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line);
            let row = row.map_err(|error| Fault::new("", "a row that JSON can hold", error.to_string()))?;
            rows.push(unfold(row, &self.json)?);
        }
        self.ready = rows.into_iter();
        Ok(true)
    }
}

impl Iterator for Rows {
    type Item = (u64, Result<Map<String, Value>, Fault>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                self.row += 1;
                return Some((self.row, Ok(row)));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(fault) => {
                    self.batches = None;
                    return Some((self.row + 1, Err(fault)));
                }
            }
        }
    }
}

type Anything = Box<dyn std::error::Error>;

/// Runs the decoder. Damaged files have made Parquet decoders panic before, and input must not end the program.
fn guard<T>(run: impl FnOnce() -> Result<T, Anything>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Fault::new("", "a sound Parquet file", error.to_string())),
        Err(_) => Err(Fault::new("", "a sound Parquet file", "one that the decoder cannot read")),
    }
}

/// How a column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// UTF-8 text.
    Text,
    /// A truth value.
    Bool,
    /// A 64-bit float.
    Number,
    /// A list of `{role, content}`.
    Messages,
    /// A list of texts.
    Texts,
    /// A list of truth values.
    Bools,
    /// JSON as text, which the readers take apart again.
    Json,
}

impl Column {
    fn data_type(self) -> DataType {
        let list = |inner: DataType| DataType::List(Arc::new(Field::new("item", inner, true)));
        match self {
            Column::Text | Column::Json => DataType::Utf8,
            Column::Bool => DataType::Boolean,
            Column::Number => DataType::Float64,
            Column::Texts => list(DataType::Utf8),
            Column::Bools => list(DataType::Boolean),
            Column::Messages => list(DataType::Struct(
                vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]
                    .into(),
            )),
        }
    }

    /// Whether the column holds `value` as it is.
    fn holds(self, value: &Value) -> bool {
        let all = |test: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(test));
        match self {
            Column::Text => value.is_string(),
            Column::Bool => value.is_boolean(),
            Column::Number => value.is_number(),
            Column::Texts => all(Value::is_string),
            Column::Bools => all(Value::is_boolean),
            Column::Messages => all(|message| {
                message.as_object().is_some_and(|fields| {
                    fields.len() == 2
                        && fields.get("role").is_some_and(Value::is_string)
                        && fields.get("content").is_some_and(Value::is_string)
                })
            }),
            Column::Json => true,
        }
    }

    /// The narrowest column that holds every one of `values`.
    fn fitting<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> Column {
        let kinds = [
            Column::Text,
            Column::Bool,
            Column::Number,
            Column::Messages,
            Column::Texts,
            Column::Bools,
            Column::Json,
        ];
        kinds.into_iter().find(|kind| values.clone().all(|value| kind.holds(value))).unwrap_or(Column::Json)
    }
}

/// The key of the field metadata that marks a column of JSON text, so that text which merely looks like JSON
/// stays text.
const MARK: &str = "hone";

/// The column that holds what the others do not.
pub(crate) const OVERFLOW: &str = "extra_json";

/// Writes objects as rows, in groups of [`GROUP`]. Columns are those of the first group; a later column, or a
/// later value that its column cannot hold, goes as JSON into the column `extra_json`, which the reader merges
/// back.
pub(crate) struct RowWriter<W: Write + Send> {
    output: Option<W>,
    writer: Option<ArrowWriter<W>>,
    columns: Vec<(String, Column)>,
    waiting: Vec<Map<String, Value>>,
}

/// Rows per group.
const GROUP: usize = 4096;

impl<W: Write + Send> RowWriter<W> {
    /// A writer into `output`.
    pub fn new(output: W) -> Self {
        RowWriter { output: Some(output), writer: None, columns: Vec::new(), waiting: Vec::new() }
    }

    /// Adds a row.
    pub fn write(&mut self, row: Map<String, Value>, losses: &mut Losses) -> std::io::Result<()> {
        self.waiting.push(row);
        if self.waiting.len() >= GROUP { self.flush(losses) } else { Ok(()) }
    }

    /// Writes what waits and the end of the file; gives the output back.
    pub fn finish(mut self, losses: &mut Losses) -> std::io::Result<W> {
        self.flush(losses)?;
        match self.writer.take() {
            Some(writer) => writer.into_inner().map_err(std::io::Error::other),
            None => self.output.take().ok_or_else(|| std::io::Error::other("the output was closed before")),
        }
    }

    fn schema(&self) -> Arc<Schema> {
        let fields = self.columns.iter().map(|(name, column)| {
            let field = Field::new(name, column.data_type(), true);
            match column {
                Column::Json => field.with_metadata(HashMap::from([(MARK.to_owned(), "json".to_owned())])),
                _ => field,
            }
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn flush(&mut self, losses: &mut Losses) -> std::io::Result<()> {
        if let Some(output) = self.output.take() {
            self.columns = columns(&self.waiting);
            let level = ZstdLevel::try_new(3).map_err(std::io::Error::other)?;
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
            let writer = ArrowWriter::try_new(output, self.schema(), Some(properties));
            self.writer = Some(writer.map_err(std::io::Error::other)?);
        }
        let rows: Vec<Map<String, Value>> =
            self.waiting.drain(..).map(|row| fit(row, &self.columns, losses)).collect();
        let mut decoder = arrow_json::ReaderBuilder::new(self.schema())
            .with_batch_size(GROUP)
            .build_decoder()
            .map_err(std::io::Error::other)?;
        decoder.serialize(&rows).map_err(std::io::Error::other)?;
        let batch: Option<RecordBatch> = decoder.flush().map_err(std::io::Error::other)?;
        if let (Some(batch), Some(writer)) = (batch, &mut self.writer) {
            writer.write(&batch).map_err(std::io::Error::other)?;
            writer.flush().map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

fn columns(rows: &[Map<String, Value>]) -> Vec<(String, Column)> {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let column = |name: &String| {
        let values = rows.iter().filter_map(move |row| row.get(name)).filter(|value| !value.is_null());
        (name.clone(), Column::fitting(values))
    };
    let mut columns: Vec<(String, Column)> = names.into_iter().map(column).collect();
    columns.push((OVERFLOW.to_owned(), Column::Json));
    columns
}

/// The row as its columns hold it.
fn fit(row: Map<String, Value>, columns: &[(String, Column)], losses: &mut Losses) -> Map<String, Value> {
    let mut out = Map::new();
    let mut overflow = Map::new();
    for (name, value) in row {
        match columns.iter().find(|(column, _)| *column == name) {
            _ if value.is_null() => losses.add("null (Parquet does not tell it from a missing value)"),
            Some((_, Column::Json)) => {
                out.insert(name, Value::String(value.to_string()));
            }
            Some((_, column)) if column.holds(&value) => {
                out.insert(name, value);
            }
            _ => {
                overflow.insert(name, value);
            }
        }
    }
    if !overflow.is_empty() {
        out.insert(OVERFLOW.to_owned(), Value::String(Value::Object(overflow).to_string()));
    }
    out
}

/// Takes apart the columns that hold JSON as text.
fn unfold(mut row: Map<String, Value>, json: &[String]) -> Result<Map<String, Value>, Fault> {
    for name in json {
        if let Some(Value::String(text)) = row.get(name) {
            let value = serde_json::from_str(text);
            let value =
                value.map_err(|error: serde_json::Error| Fault::new(name, "JSON text", error.to_string()))?;
            row.insert(name.clone(), value);
        }
    }
    if let Some(Value::Object(overflow)) = row.get_mut(OVERFLOW).map(Value::take) {
        row.shift_remove(OVERFLOW);
        row.extend(overflow);
    }
    Ok(row)
}

/// The first bytes of every Parquet file.
pub(crate) fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(b"PAR1")
}
