//! Computes one metric of one job on standard input (JSON) and how long that took, reading the job left out: what
//! `compare/metrics/speed.py` puts beside the reference packages. One thread.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use hone_feedback::metrics::agreement::{Level, cohen_kappa, krippendorff_alpha};
use hone_feedback::metrics::raters::{Win, bradley_terry};
use hone_feedback::metrics::{bleu, ranking, rouge, text};
use serde::Deserialize;
use serde_json::json;

/// Texts, or numbers, or comparisons.
#[derive(Deserialize)]
#[serde(default)]
struct Job {
    metric: String,
    pairs: Vec<(String, String)>,
    a: Vec<f64>,
    b: Vec<f64>,
    units: Vec<Vec<f64>>,
    wins: Vec<(u32, u32)>,
    items: usize,
    lists: Vec<(Vec<f64>, Vec<f64>)>,
    rounds: usize,
}

impl Default for Job {
    fn default() -> Job {
        let empty = (String::new(), vec![], vec![], vec![], vec![], vec![]);
        let (metric, pairs, a, b, units, wins) = empty;
        Job { metric, pairs, a, b, units, wins, items: 0, lists: vec![], rounds: 1 }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let job: Job = serde_json::from_reader(std::io::stdin().lock())?;
    let (mut best, mut values) = (f64::INFINITY, vec![]);
    for _ in 0..job.rounds.max(1) {
        let started = Instant::now();
        values = black_box(compute(black_box(&job))?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("{}", json!({ "seconds": best, "values": values }));
    Ok(())
}

/// Scores a corpus from pairs of a candidate and its references.
type CorpusScore = fn(&[(&str, &[&str])]) -> f64;

fn compute(job: &Job) -> Result<Vec<f64>, Box<dyn Error>> {
    let each = |score: fn(&str, &str) -> f64| job.pairs.iter().map(|(c, r)| score(c, r)).collect();
    let corpus = |score: CorpusScore| {
        let references: Vec<[&str; 1]> = job.pairs.iter().map(|(_, r)| [r.as_str()]).collect();
        let pairs: Vec<(&str, &[&str])> =
            job.pairs.iter().zip(&references).map(|((c, _), r)| (c.as_str(), r.as_slice())).collect();
        vec![score(&pairs)]
    };
    let classes = |values: &[f64]| values.iter().map(|value| *value as i64).collect::<Vec<_>>();
    let one = |value: Option<f64>| vec![value.unwrap_or(f64::NAN)];
    Ok(match job.metric.as_str() {
        "corpus BLEU" => corpus(bleu::bleu),
        "corpus chrF" => corpus(text::chrf),
        "BLEU" => each(|c, r| bleu::sentence_bleu(c, &[r])),
        "chrF" => each(|c, r| text::chrf(&[(c, &[r])])),
        "ROUGE-1" => each(|c, r| rouge::rouge_n(c, r, 1).f1),
        "ROUGE-2" => each(|c, r| rouge::rouge_n(c, r, 2).f1),
        "ROUGE-L" => each(|c, r| rouge::rouge_l(c, r).f1),
        "exact match" => each(|c, r| f64::from(u8::from(text::exact_match(c, r)))),
        "token F1" => each(text::token_f1),
        "kappa" => one(cohen_kappa(&classes(&job.a), &classes(&job.b))),
        "alpha, nominal" => one(krippendorff_alpha(job.units.iter().map(Vec::as_slice), Level::Nominal)),
        "alpha, interval" => one(krippendorff_alpha(job.units.iter().map(Vec::as_slice), Level::Interval)),
        "Kendall" => one(ranking::kendall_tau(&job.a, &job.b)),
        "nDCG@10" => {
            job.lists.iter().flat_map(|(scores, grades)| one(ranking::ndcg(scores, grades, 10))).collect()
        }
        "Bradley-Terry" => {
            let win = |&(winner, loser)| Win { rater: 0, winner, loser };
            bradley_terry(&job.wins.iter().map(win).collect::<Vec<_>>(), job.items, 0.0)
        }
        other => return Err(format!("not a metric: {other}").into()),
    })
}
