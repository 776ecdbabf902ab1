//! The items of a protocol, kept as they are done.
//!
//! A folder holds `run.json` (what is run, so that nothing else goes on with it), `samples.jsonl` (one item a line) and,
//! at the end, `results.json`. A line that was cut off by the end of the process is dropped when the run goes on, and so
//! are items that were lost to the connection: they are asked again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Measures;
use crate::error::{Error, Result};
use crate::improve::write_whole;

/// One item of a protocol.
pub trait Row: Serialize + DeserializeOwned {
    /// What it is known by; no two items of a run have the same.
    fn key(&self) -> String;

    /// Whether it failed for a reason that is not the model's, and is to be asked again.
    fn lost(&self) -> bool;
}

/// Where items are kept.
#[derive(Debug, Default)]
pub struct Journal {
    folder: Option<PathBuf>,
    file: Option<File>,
    lines: HashMap<String, Value>,
}

impl Journal {
    /// A journal in memory, for runs that are not kept.
    pub fn memory() -> Journal {
        Journal::default()
    }

    /// A journal in a folder. `what` says what is run: protocol, model, settings.
    ///
    /// # Errors
    /// [`Error::File`] if another run is in the folder, or the same one and `resume` is not set; [`Error::Io`].
    pub fn open(folder: &Path, what: &Value, resume: bool) -> Result<Journal> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let (run, samples) = (folder.join("run.json"), folder.join("samples.jsonl"));
        let fault =
            |problem: &str| Error::File { path: folder.display().to_string(), problem: problem.into() };
        let mut lines = HashMap::new();
        if run.exists() {
            let text = std::fs::read_to_string(&run).map_err(Error::io(&run))?;
            if !resume {
                return Err(fault("a run is here already; go on with --resume"));
            }
            if serde_json::from_str::<Value>(&text).ok().as_ref() != Some(what) {
                return Err(fault("needs the run that began here, got another model, protocol or settings"));
            }
            if samples.exists() {
                let text = std::fs::read_to_string(&samples).map_err(Error::io(&samples))?;
                // The last line may be cut off anywhere; no other can be.
                for line in text.split('\n').filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                    if let Some(key) = line.get("key").and_then(Value::as_str) {
                        lines.insert(key.to_owned(), line);
                    }
                }
            }
        } else {
            write_whole(&run, &format!("{what:#}\n"))?;
        }
        let mut journal = Journal { folder: Some(folder.to_path_buf()), file: None, lines };
        journal.lines.retain(|_, line| line.get("lost").is_none_or(|lost| lost != true));
        let kept: Vec<String> = journal.lines.values().map(|line| format!("{line}\n")).collect();
        write_whole(&samples, &kept.concat())?;
        journal.file = Some(OpenOptions::new().append(true).open(&samples).map_err(Error::io(&samples))?);
        Ok(journal)
    }

    /// Items that are done.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing is done yet.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The item of this key, if it is done.
    ///
    /// # Errors
    /// [`Error::File`] for a line that is no such item.
    pub fn get<T: Row>(&self, key: &str) -> Result<Option<T>> {
        let parse = |line: &Value| {
            serde_json::from_value(line.clone()).map_err(|e| Error::File {
                path: self
                    .folder
                    .as_ref()
                    .map_or_else(String::new, |f| f.join("samples.jsonl").display().to_string()),
                problem: format!("item {key}: {e}"),
            })
        };
        self.lines.get(key).map(parse).transpose()
    }

    /// Keeps an item, on the disk before it returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put<T: Row>(&mut self, row: &T) -> Result<()> {
        let mut line = serde_json::to_value(row)
            .map_err(|e| Error::File { path: "samples.jsonl".into(), problem: e.to_string() })?;
        if let Some(fields) = line.as_object_mut() {
            fields.insert("key".into(), row.key().into());
            fields.insert("lost".into(), row.lost().into());
        }
        if let (Some(file), Some(folder)) = (&mut self.file, &self.folder) {
            file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(folder))?;
        }
        self.lines.insert(row.key(), line);
        Ok(())
    }

    /// Writes the samples in this order and the results beside them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(&mut self, keys: &[String], measures: &Measures, settings: &Value) -> Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let lines = keys.iter().filter_map(|key| self.lines.get(key)).map(|line| format!("{line}\n"));
        write_whole(&folder.join("samples.jsonl"), &lines.collect::<String>())?;
        // The old file is gone; nothing more is written to it.
        self.file = None;
        write_whole(&folder.join("results.json"), &format!("{:#}\n", measures.to_lm_eval(settings)))
    }
}

/// Runs the items that the journal lacks, at most `wave` at a time, and returns all in order. `work` is given the indices
/// of a wave and returns one row each, in order; `on` hears how many are done and of how many. An interruption loses at
/// most the wave that is running.
///
/// # Errors
/// Those of `work` and of the journal.
pub fn carry_out<T: Row>(
    keys: &[String],
    journal: &mut Journal,
    wave: usize,
    on: &mut dyn FnMut(usize, usize),
    mut work: impl FnMut(&[usize]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut rows: Vec<Option<T>> = keys.iter().map(|key| journal.get(key)).collect::<Result<_>>()?;
    let open: Vec<usize> = (0..keys.len()).filter(|&index| rows[index].is_none()).collect();
    let mut done = keys.len() - open.len();
    on(done, keys.len());
    for wave in open.chunks(wave.max(1)) {
        for (&index, row) in wave.iter().zip(work(wave)?) {
            journal.put(&row)?;
            rows[index] = Some(row);
            done += 1;
            on(done, keys.len());
        }
    }
    Ok(rows.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Item {
        id: usize,
        text: String,
        failed: bool,
    }

    impl Row for Item {
        fn key(&self) -> String {
            self.id.to_string()
        }

        fn lost(&self) -> bool {
            self.failed
        }
    }

    fn item(id: usize, failed: bool) -> Item {
        Item { id, text: format!("text {id}"), failed }
    }

    #[test]
    fn an_interrupted_run_goes_on_and_asks_the_lost_again() {
        let folder = tempfile::tempdir().unwrap();
        let what = json!({"protocol": "p"});
        let keys: Vec<String> = (0..7).map(|id: usize| id.to_string()).collect();
        let mut journal = Journal::open(folder.path(), &what, false).unwrap();
        let mut calls = 0;
        let stopped = carry_out(&keys, &mut journal, 2, &mut |_, _| {}, |wave| {
            calls += 1;
            let fail = || Error::Log("stop".into());
            if calls == 3 { Err(fail()) } else { Ok(wave.iter().map(|&id| item(id, id == 1)).collect()) }
        });
        assert!(stopped.is_err() && journal.len() == 4);
        drop(journal);
        // The process died while it wrote a line.
        let samples = folder.path().join("samples.jsonl");
        let mut text = std::fs::read_to_string(&samples).unwrap();
        text.push_str("{\"id\":4,\"te");
        std::fs::write(&samples, text).unwrap();

        let refused = Journal::open(folder.path(), &what, false).unwrap_err().to_string();
        assert!(refused.contains("--resume"), "{refused}");
        let refused = Journal::open(folder.path(), &json!({"protocol": "q"}), true).unwrap_err().to_string();
        assert!(refused.contains("another model"), "{refused}");

        let mut journal = Journal::open(folder.path(), &what, true).unwrap();
        let (mut asked, mut heard): (Vec<usize>, Vec<_>) = (vec![], vec![]);
        let rows = carry_out(&keys, &mut journal, 2, &mut |done, all| heard.push((done, all)), |wave| {
            asked.extend(wave);
            Ok(wave.iter().map(|&id| item(id, false)).collect())
        });
        assert_eq!(rows.unwrap(), (0..7).map(|id| item(id, false)).collect::<Vec<_>>());
        // 0, 2 and 3 were done; 1 was lost.
        assert_eq!(asked, [1, 4, 5, 6]);
        assert_eq!((heard[0], heard[4]), ((3, 7), (7, 7)));
        journal.finish(&keys, &Measures::new("p", "m"), &json!({})).unwrap();
        let ids: Vec<u64> = std::fs::read_to_string(&samples)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6]);
        assert!(folder.path().join("results.json").exists());
    }
}
