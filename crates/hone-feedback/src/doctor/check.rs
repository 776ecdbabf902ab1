//! The pass over the files, on one thread or several.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::digest::{Counter, Digest, Examiner};
use super::report::Report;
use super::tally::Tally;
use crate::error::Fault;
use crate::formats::lines::{Block, Blocks, too_long};
use crate::formats::{self, LineParser, Lines, OpenError, Options, Reader};

/// How to check.
pub struct Settings<'a> {
    /// How to read.
    pub options: Options,
    /// Threads for files of one record per line. At least 1.
    pub threads: usize,
    /// Each file is a split of its own: a prompt in two files is a leak.
    pub files_are_splits: bool,
    /// Counts tokens, of a sample of the records.
    pub tokens: Counter<'a>,
    /// The share of refused lines past which training may not go on.
    pub most_refused: f64,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            options: Options::default(),
            threads: 2,
            files_are_splits: false,
            tokens: None,
            most_refused: 0.05,
        }
    }
}

/// Checks one log in one or several files.
///
/// The report is the same for any number of threads.
///
/// # Errors
/// A file that cannot be opened, or whose format nothing tells. What is wrong inside is in the report.
pub fn check(files: &[PathBuf], settings: &Settings<'_>) -> Result<Report, OpenError> {
    let mut tally = Tally::default();
    for file in files {
        let reader = formats::open(file, &Options { validate: false, ..settings.options.clone() })?;
        tally.file(reader.name(), reader.format().name, settings.files_are_splits);
        tally = match reader.into_lines() {
            Ok((lines, parser)) => in_parallel(lines, &parser, settings, tally),
            Err(reader) => one_by_one(*reader, settings, tally),
        };
    }
    Ok(tally.finish(settings.most_refused))
}

fn one_by_one(reader: Reader, settings: &Settings<'_>, mut tally: Tally) -> Tally {
    let mut examiner = Examiner::new(settings.tokens);
    for item in reader {
        match item {
            Ok(located) => match located.record.validate() {
                faults if faults.is_empty() => tally.add(examiner.examine(located.line, &located.record)),
                faults => tally.refuse(located.line, faults),
            },
            Err(problem) => tally.refuse(problem.line, vec![problem.fault]),
        }
    }
    tally
}

/// What one line gave.
enum Outcome {
    Sound(Box<Digest>),
    Refused(u64, Vec<Fault>),
}

/// Threads take blocks in turn, digest them on their own, and add them to the tally in the order of the file.
fn in_parallel(lines: Lines, parser: &LineParser, settings: &Settings<'_>, tally: Tally) -> Tally {
    let limit = lines.limit;
    let source: Mutex<(Blocks, u64)> = Mutex::new((lines.blocks, 0));
    let state: Mutex<(Tally, u64)> = Mutex::new((tally, 0));
    let turn = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..settings.threads.max(1) {
            let mut parser = parser.again();
            let (source, state, turn) = (&source, &state, &turn);
            scope.spawn(move || {
                let mut examiner = Examiner::new(settings.tokens);
                loop {
                    let (block, number) = {
                        let mut source = lock(source);
                        let Some(block) = source.0.next() else { break };
                        source.1 += 1;
                        (block, source.1 - 1)
                    };
                    // A name is sent once per thread, before anything that the other threads could need it for.
                    let outcomes = digest(&block, limit, &mut parser, &mut examiner);
                    let mut state = lock(state);
                    while state.1 != number {
                        state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                    for outcome in outcomes {
                        match outcome {
                            Outcome::Sound(digest) => state.0.add(*digest),
                            Outcome::Refused(line, faults) => state.0.refuse(line, faults),
                        }
                    }
                    state.1 += 1;
                    turn.notify_all();
                }
            });
        }
    });
    state.into_inner().unwrap_or_else(PoisonError::into_inner).0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(block: &Block, limit: usize, parser: &mut LineParser, examiner: &mut Examiner<'_>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut next = block.first_line;
    for (number, line) in block.lines() {
        next = number + 1;
        let record = match line.len() > limit {
            true => Err(too_long(limit, line.len())),
            false => parser.line(number, line),
        };
        outcomes.push(match record {
            Ok(None) => continue,
            Ok(Some(record)) => match record.validate() {
                faults if faults.is_empty() => Outcome::Sound(Box::new(examiner.examine(number, &record))),
                faults => Outcome::Refused(number, faults),
            },
            Err(fault) => Outcome::Refused(number, vec![fault]),
        });
    }
    outcomes.extend(block.fault.clone().map(|fault| Outcome::Refused(next, vec![fault])));
    outcomes
}
