//! Measures the doctor: `cargo run --release -p hone-feedback --example check_speed -- LOG [RECORDS]`.
//!
//! Repeats the records of LOG with fresh ids until there are RECORDS (1,000,000) of them, checks the result with
//! one and with two threads, and prints records per second and the peak resident memory of the process.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use hone_feedback::doctor::{self, Settings};
use hone_feedback::formats::{self, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let log = PathBuf::from(arguments.next().ok_or("needed a log")?);
    let wanted: usize = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let reader = formats::open(&log, &Options::default())?;
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
    let bytes = std::fs::metadata(&big)?.len();
    println!("{wanted} records, {:.0} bytes each", bytes as f64 / wanted as f64);
    drop(records);
    for threads in [1, 2] {
        let start = Instant::now();
        let report = doctor::check(std::slice::from_ref(&big), &Settings { threads, ..Settings::default() })?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{threads} threads: {:.0} records/s, {:.0} MB/s, {} records, {} refused, peak memory {} MB",
            wanted as f64 / seconds,
            bytes as f64 / seconds / 1e6,
            report.records,
            report.refused,
            peak_megabytes(),
        );
    }
    std::fs::remove_file(&big)?;
    Ok(())
}

/// The most memory that the process ever held, as Linux counts it; 0 elsewhere.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}
