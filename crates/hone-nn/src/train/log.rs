//! What a run says while it goes: `metrics.jsonl` and TensorBoard events in its folder.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::train::events::EventWriter;

/// Open logs of one run.
#[derive(Debug)]
pub struct RunLog {
    path: PathBuf,
    file: File,
    events: EventWriter,
}

impl RunLog {
    /// Starts the logs of a new run in `folder`, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Argument`] if a run has been logged there before; [`Error::Io`].
    pub fn create(folder: &Path) -> Result<RunLog> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join("metrics.jsonl");
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            return Err(Error::argument(
                "folder",
                "a folder without a run, or to resume the run in it",
                path.display(),
            ));
        }
        let file = File::create(&path).map_err(Error::io(&path))?;
        Ok(RunLog { path, file, events: EventWriter::create(folder, None)? })
    }

    /// Goes on with the logs of a run that resumes after `step`: what they hold of later steps, and a last line cut
    /// short by a kill, is dropped.
    ///
    /// # Errors
    /// [`Error::Json`] for a line that is no metrics line; [`Error::Io`].
    pub fn resume(folder: &Path, step: u64) -> Result<RunLog> {
        let path = folder.join("metrics.jsonl");
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(Error::io(&path))?;
        let mut keep = 0;
        let mut line = String::new();
        let mut reader = BufReader::new(&file);
        for number in 1.. {
            line.clear();
            let read = reader.read_line(&mut line).map_err(Error::io(&path))?;
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            let logged =
                serde_json::from_str::<Value>(&line).ok().and_then(|line| line["global_step"].as_u64());
            match logged {
                Some(logged) if logged > step => break,
                Some(_) => keep += read as u64,
                None => {
                    let message = format!("line {number}: needs an object with `global_step`");
                    return Err(Error::Json { path, message });
                }
            }
        }
        file.set_len(keep).map_err(Error::io(&path))?;
        Ok(RunLog { path, file, events: EventWriter::create(folder, Some(step))? })
    }

    /// Writes the numbers of one step to both logs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, step: u64, numbers: &[(String, f64)], warnings: &[String]) -> Result<()> {
        let mut line = Map::new();
        line.insert("global_step".into(), step.into());
        for (name, number) in numbers {
            let value = match name.as_str() {
                // A count; other numbers are written as fractions even where they happen to be whole.
                "num_tokens" => Value::from(*number as u64),
                // A metric may be undefined at some step; JSON has no NaN.
                _ => serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number),
            };
            line.insert(name.clone(), value);
        }
        if !warnings.is_empty() {
            line.insert("warnings".into(), warnings.into());
        }
        let line = Value::Object(line).to_string() + "\n";
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))?;
        self.events.scalars(step, numbers.iter().map(|(name, number)| (name.as_str(), *number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_drops_what_will_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = RunLog::create(folder.path()).unwrap();
        for step in 1..=4 {
            let warnings = if step == 2 { vec!["careful".to_string()] } else { vec![] };
            log.write(step, &[("loss".into(), step as f64), ("kl".into(), f64::NAN)], &warnings).unwrap();
        }
        let path = folder.path().join("metrics.jsonl");
        // A kill in the middle of a line.
        log.file.write_all(b"{\"global_st").unwrap();
        assert!(RunLog::create(folder.path()).unwrap_err().to_string().contains("resume the run"));
        let mut log = RunLog::resume(folder.path(), 2).unwrap();
        log.write(3, &[("loss".into(), 7.0)], &[]).unwrap();
        let expected = [
            r#"{"global_step":1,"loss":1.0,"kl":null}"#,
            r#"{"global_step":2,"loss":2.0,"kl":null,"warnings":["careful"]}"#,
            r#"{"global_step":3,"loss":7.0}"#,
        ];
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), expected);
        std::fs::write(&path, "[]\n").unwrap();
        assert!(RunLog::resume(folder.path(), 2).unwrap_err().to_string().contains("line 1"));
    }
}
