//! Computes metrics for jobs on standard input, one JSON object a line, one number a line on standard output:
//! what `compare/metrics/check.py` puts beside the reference packages.

use std::error::Error;
use std::io::BufRead;

use hone_feedback::metrics::agreement::{Level, cohen_kappa, krippendorff_alpha};
use hone_feedback::metrics::{bleu, ranking, rouge, significance, text};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let value = compute(&job).ok_or_else(|| format!("not a job: {job}"))?;
        println!("{}", value.map_or("null".to_owned(), |value| value.to_string()));
    }
    Ok(())
}

fn compute(job: &Value) -> Option<Option<f64>> {
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let numbers =
        |value: &Value| -> Option<Vec<f64>> { value.as_array()?.iter().map(Value::as_f64).collect() };
    let metric = job["metric"].as_str()?;
    if let Some(pairs) = job["pairs"].as_array() {
        let pairs: Vec<(String, Vec<String>)> = pairs
            .iter()
            .map(|pair| Some((pair[0].as_str()?.to_owned(), texts(&pair[1])?)))
            .collect::<Option<_>>()?;
        let references: Vec<Vec<&str>> =
            pairs.iter().map(|(_, references)| references.iter().map(String::as_str).collect()).collect();
        let pairs: Vec<(&str, &[&str])> = pairs
            .iter()
            .zip(&references)
            .map(|((candidate, _), references)| (candidate.as_str(), references.as_slice()))
            .collect();
        return Some(Some(if metric == "corpus_bleu" { bleu::bleu(&pairs) } else { text::chrf(&pairs) }));
    }
    if let Some(candidate) = job["candidate"].as_str() {
        let references = texts(&job["references"])?;
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        return Some(Some(match metric {
            "sentence_bleu" => bleu::sentence_bleu(candidate, &references),
            "chrf" => text::chrf(&[(candidate, &references)]),
            "rouge1" => rouge::rouge_n(candidate, references.first()?, 1).f1,
            "rouge2" => rouge::rouge_n(candidate, references.first()?, 2).f1,
            _ => rouge::rouge_l(candidate, references.first()?).f1,
        }));
    }
    if let Some(units) = job["units"].as_array() {
        let units: Vec<Vec<f64>> = units.iter().map(numbers).collect::<Option<_>>()?;
        let level = match metric {
            "alpha_nominal" => Level::Nominal,
            "alpha_ordinal" => Level::Ordinal,
            _ => Level::Interval,
        };
        return Some(krippendorff_alpha(units.iter().map(Vec::as_slice), level));
    }
    let (a, b) = (numbers(&job["a"])?, numbers(&job["b"])?);
    Some(match metric {
        "kappa" => {
            let classes = |values: &[f64]| values.iter().map(|value| *value as i64).collect::<Vec<_>>();
            cohen_kappa(&classes(&a), &classes(&b))
        }
        "kendall" => ranking::kendall_tau(&a, &b),
        "spearman" => ranking::spearman(&a, &b),
        _ => significance::wilcoxon(&a, &b),
    })
}
