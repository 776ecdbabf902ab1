//! The whole store to a Hone log and back.

use std::io::Write;

use hone_feedback::Problems;
use hone_feedback::formats::Reader;

use crate::error::{Error, Result};
use crate::store::Store;

/// What an export wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Lines.
    pub records: u64,
    /// Items of feedback that are not in it because their response is not stored, or they do not fit it.
    pub waiting: u64,
}

/// What an import stored.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Imported {
    /// Records that were not there.
    pub records: u64,
    /// Records that were there; what was new of them was added.
    pub merged: u64,
    /// Responses added.
    pub responses: u64,
    /// Items of feedback added.
    pub feedback: u64,
    /// What was left out and why, by line.
    pub problems: Problems,
}

/// Records of one transaction of an import.
const PART: usize = 5000;

/// Writes every record as a line of a Hone log, in the order in which they were stored. An export of what is
/// imported from it into an empty store is the same bytes.
///
/// # Errors
/// The store or `out` failed; the file then ends early.
pub async fn export(store: &dyn Store, out: &mut (dyn Write + Send)) -> Result<Exported> {
    let failed = |error: std::io::Error| Error::File(format!("export: {error}"));
    let mut exported = Exported { records: 0, waiting: store.waiting().await?.len() as u64 };
    let mut after = Some(0);
    while let Some(place) = after {
        let part = store.lines(place, 1000).await?;
        for line in &part.lines {
            out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
        }
        exported.records += part.lines.len() as u64;
        after = part.next;
    }
    out.flush().map_err(failed)?;
    Ok(exported)
}

/// Stores every record of a log in any format. Parts of 5,000 records are stored whole or not at all; what is not
/// sound is left out and told. Importing again adds nothing.
///
/// # Errors
/// The store failed. What was stored before stays.
pub async fn import(store: &dyn Store, reader: Reader) -> Result<Imported> {
    let mut imported = Imported::default();
    let name = reader.name().to_owned();
    let mut reader = Some(reader);
    while let Some(mut rows) = reader.take() {
        // Reading and parsing would hold up the other tasks of the thread.
        let work = tokio::task::spawn_blocking(move || {
            let part: Vec<_> = rows.by_ref().take(PART).collect();
            (rows, part)
        });
        let (rows, part) = work.await.map_err(|error| Error::File(format!("{name}: {error}")))?;
        if part.len() == PART {
            reader = Some(rows);
        }
        let mut lines = Vec::with_capacity(part.len());
        let mut records = Vec::with_capacity(part.len());
        for row in part {
            match row {
                Ok(located) => {
                    lines.push(located.line);
                    records.push(located.record);
                }
                Err(problem) => imported.problems.push(problem),
            }
        }
        if records.is_empty() {
            continue;
        }
        for (line, put) in lines.into_iter().zip(store.put(records).await?) {
            match put {
                Ok(put) => {
                    *(if put.new { &mut imported.records } else { &mut imported.merged }) += 1;
                    imported.responses += put.responses as u64;
                    imported.feedback += put.feedback as u64;
                }
                Err(Error::Unsound { fault, .. }) => imported.problems.push(fault.at(&name, line)),
                Err(Error::Conflict { what, field }) => {
                    let needed = format!("what is stored of {what}");
                    let fault = hone_feedback::Fault::new(field, needed, "something else");
                    imported.problems.push(fault.at(&name, line));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(imported)
}
