//! Measures the doctor: `cargo run --release -p hone-feedback --example check_speed -- LOG [RECORDS] [RUNS]`.
//!
//! Repeats the records of LOG with fresh ids until there are RECORDS (1,000,000) of them, checks the result RUNS
//! (5) times with one thread and with two, and prints the best and the median records per second and the peak
//! resident memory of the process. RECORDS of 0: LOG as it is.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hone_feedback::doctor::{self, Settings};
use hone_feedback::formats::{self, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let log = PathBuf::from(arguments.next().ok_or("needed a log")?);
    let wanted: usize = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let runs: usize = arguments.next().map_or(Ok(5), |count| count.parse())?;
    let big = match wanted {
        0 => log.clone(),
        _ => repeat(&log, wanted)?,
    };
    let bytes = std::fs::metadata(&big)?.len();
    for threads in [1, 2] {
        let mut speeds = Vec::new();
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            let settings = Settings { threads, ..Settings::default() };
            let report = doctor::check(std::slice::from_ref(&big), &settings)?;
            let lines = report.records + report.refused;
            speeds.push((lines as f64 / start.elapsed().as_secs_f64(), lines, report.refused));
        }
        speeds.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (best, lines, refused) = speeds[0];
        println!(
            "{threads} threads: best {best:.0} records/s, median {:.0}; {lines} records of {:.0} bytes, {refused} \
             refused, peak memory {} MB",
            speeds[speeds.len() / 2].0,
            bytes as f64 / lines as f64,
            peak_megabytes(),
        );
    }
    if wanted > 0 {
        std::fs::remove_file(&big)?;
    }
    Ok(())
}

/// A log of `wanted` records: those of `log` in turn, each with an id of its own.
fn repeat(log: &Path, wanted: usize) -> Result<PathBuf, Box<dyn Error>> {
    let reader = formats::open(log, &Options::default())?;
    let mut records: Vec<_> = reader.filter_map(Result::ok).map(|located| located.record).collect();
    let big = std::env::temp_dir().join(format!("hone-check-speed-{}.jsonl", std::process::id()));
    let mut output = std::io::BufWriter::new(std::fs::File::create(&big)?);
    let count = records.len().max(1);
    for n in 0..wanted {
        let Some(record) = records.get_mut(n % count) else {
            return Err("the log has no sound record".into());
        };
        record.id = format!("r{n}");
        writeln!(output, "{}", record.to_json())?;
    }
    output.flush()?;
    Ok(big)
}

/// The most memory that the process ever held, as Linux counts it; 0 elsewhere.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}
