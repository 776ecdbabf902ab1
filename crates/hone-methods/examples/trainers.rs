//! Hone's side of `compare/trainers.py`: seconds of each training step, and the peak of memory, as one JSON line.
//!
//! `trainers grpo|dpo MODEL-FOLDER DATA.json STEPS THREADS`: the data are prompts, or pairs of a prompt with a chosen and
//! a rejected response. An answer's reward is its share of digits, by a rule that both sides count alike.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hone_feedback::{Form, Prompt, Record};
use hone_methods::oracle::{Oracle, Verdict};
use hone_methods::train::Session;
use hone_methods::{Job, Policy, find};
use serde_json::{Value, json};

/// The share of an answer's characters that are digits.
#[derive(Debug)]
struct Digits;

impl Oracle for Digits {
    fn check(&self, _: &Record, answer: &str) -> hone_methods::Result<Option<Verdict>> {
        let digits = answer.chars().filter(char::is_ascii_digit).count();
        let score = digits as f64 / answer.chars().count().max(1) as f64;
        Ok(Some(Verdict { right: score > 0.5, score, well_formed: true, words: String::new() }))
    }
}

/// A number of kilobytes in `/proc/self/status`, in MiB.
fn memory(name: &str) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<f64>()? / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, folder, data, steps, threads] = &arguments[..] else {
        return Err("needs grpo|dpo MODEL-FOLDER DATA.json STEPS THREADS".into());
    };
    let (steps, threads): (usize, usize) = (steps.parse()?, threads.parse()?);
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(data)?)?;
    let text = |row: &Value, key: &str| row[key].as_str().map(str::to_string).ok_or(format!("needs `{key}`"));
    let mut records = vec![];
    for (index, row) in rows.iter().enumerate() {
        let mut record = Record::new(index.to_string(), Prompt::Text(text(row, "prompt")?));
        if method == "dpo" {
            record = record.respond("a", text(row, "chosen")?).respond("b", text(row, "rejected")?);
            record = record.say(Form::Comparison { better: "a".into(), worse: "b".into() });
        }
        records.push(record);
    }
    let own = match method.as_str() {
        "grpo" => "group_size = 8\nkl_weight = 0.04\n[draw]\nmax_tokens = 48\n",
        _ => "beta = 0.1\n",
    };
    let training = format!(
        "[training]\nbatch_size = {}\nepochs = {steps}.0\nlearning_rate = 1e-6\nwarm_up = 0.0\ndecay = \"constant\"\n",
        rows.len()
    );
    let settings: toml::Table = format!("{own}{training}").parse()?;
    let mut policy = Policy::from_folder(Path::new(folder))?;
    policy.model.threads = threads;
    let loaded = memory("VmRSS:")?;
    let (oracle, heard) = (Digits, Arc::new(Mutex::new(vec![])));
    let listener = {
        let heard = heard.clone();
        move |report: &hone_nn::train::StepReport, _| {
            let length =
                report.metrics.iter().find(|(name, _)| name == "completions/mean_length").map(|m| m.1);
            heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((Instant::now(), length));
        }
    };
    let session = Session { listener: Some(Arc::new(listener)), ..Session::default() };
    let job = Job { policy, records: &records, oracle: Some(&oracle), settings: &settings, seed: 1, session };
    (find(method)?.run)(job)?;
    let heard = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The first step ends what is prepared once; what lies between two reports is one whole step.
    let seconds: Vec<f64> = heard.windows(2).map(|two| (two[1].0 - two[0].0).as_secs_f64()).collect();
    let lengths: Vec<f64> = heard.iter().filter_map(|(_, length)| *length).collect();
    println!(
        "{}",
        json!({
            "seconds": seconds,
            "lengths": lengths,
            "peak_mib": memory("VmHWM:")?,
            "loaded_mib": loaded,
        })
    );
    Ok(())
}
