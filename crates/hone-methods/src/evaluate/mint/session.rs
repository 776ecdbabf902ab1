//! Python as a tool: cells that see what earlier cells made.

use hone_worlds::sandbox::Sandbox;

use crate::error::Result;

const SESSION: &str = include_str!("session.py");

/// One episode's interpreter. Every cell is run in a fresh child of the sandbox after the cells before it, whose output
/// is thrown away: the same names, without a process that lives between turns. Random numbers start from one seed, so
/// that a repeated cell makes what it made before.
#[derive(Debug, Default)]
pub struct Session {
    cells: Vec<String>,
}

impl Session {
    /// A session that has run these cells.
    pub fn after(cells: Vec<String>) -> Session {
        Session { cells }
    }

    /// Runs a cell and returns what is seen of it, at most `most` characters. A cell that ran out of time or output is
    /// forgotten.
    ///
    /// # Errors
    /// [`hone_worlds::Error::Sandbox`] if it cannot be run at all.
    pub fn run(&mut self, code: &str, sandbox: &Sandbox, most: usize) -> Result<String> {
        self.cells.push(code.to_string());
        let cells = serde_json::Value::from(self.cells.clone()).to_string();
        let done = sandbox.script(SESSION, &[("cells.json", &cells)]).map_err(hone_worlds::Error::from)?;
        let mut seen = done.stdout.trim().to_string();
        let broken = match (done.timed_out, done.cpu_limit, done.output_limit) {
            (true, ..) | (_, true, _) => Some("stopped: out of time"),
            (_, _, true) => Some("stopped: too much output"),
            _ if done.status != 0 => Some("stopped: the interpreter ended"),
            _ => None,
        };
        if seen.chars().count() > most {
            seen = seen.chars().take(most).collect::<String>() + "\n[the rest is cut off]";
        }
        if let Some(broken) = broken {
            self.cells.pop();
            seen = format!("{seen}\n[{broken}]").trim_start().to_string();
        }
        Ok(if seen.is_empty() { "[done, nothing printed]".to_string() } else { seen })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hone_worlds::sandbox::{Limits, Mode};

    use super::*;

    #[test]
    fn names_stay_and_output_is_of_the_last_cell() {
        let limits = Limits { wall: Duration::from_secs(1), ..Limits::default() };
        let sandbox = Sandbox::open(Mode::Strict, limits).unwrap();
        let mut session = Session::default();
        let mut run = |code: &str| session.run(code, &sandbox, 60).unwrap();
        assert_eq!(run("x = 3\nprint('first')"), "first");
        assert_eq!(run("y = x * 2"), "[done, nothing printed]");
        assert_eq!(run("x + y"), "Out[3]: 9");
        let failed = run("z = 1\nx / 0");
        assert!(failed.starts_with("Traceback") && failed.ends_with("[the rest is cut off]"), "{failed}");
        // What the failed cell did before it failed stands.
        assert_eq!(run("z"), "Out[5]: 1");
        assert_eq!(run("while True: pass"), "[stopped: out of time]");
        assert_eq!(run("import random\nrandom.random() == random.Random(0).random()"), "Out[6]: True");
        // Another episode knows nothing of this one.
        assert!(Session::default().run("x", &sandbox, 2000).unwrap().contains("NameError"));
    }
}
