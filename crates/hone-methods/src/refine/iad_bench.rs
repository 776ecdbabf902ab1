//! Layouts, their exact score, and an editor of fixed habits: where the loop is measured without the skill of a model.

use hone_feedback::Record;
use hone_feedback::metrics::{mean, standard_deviation};
use hone_nn::train::seed::rng;
use hone_worlds::Detail;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Context, Iad, Tells, decode};
use crate::bench::scripted::Scripted;
use crate::critique::{Critic, Degraded, Verifier};
use crate::error::Result;
use crate::oracle::{Oracle, Verdict};
use crate::refine::trace::Trace;
use crate::refine::{Cost, Draw};

/// Places of a layout, and the largest value of one.
const PLACES: usize = 12;
const MOST: i64 = 9;

/// Records per seed.
const RECORDS: usize = 150;

/// The values in a line after its first word.
fn values(line: &str) -> Vec<i64> {
    line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect()
}

fn line(name: &str, values: &[i64]) -> String {
    values.iter().fold(name.to_owned(), |text, value| format!("{text} {value}"))
}

/// Scores a layout against the specification in the prompt: 1 less the mean distance of its places, over the largest.
#[derive(Debug)]
struct Layouts;

impl Oracle for Layouts {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        let (want, have) = (values(&record.prompt.text()), values(answer));
        let off: Vec<i64> = want
            .iter()
            .enumerate()
            .map(|(at, want)| have.get(at).map_or(-MOST, |have| have - want))
            .collect();
        let score = 1.0 - mean(&off.iter().map(|off| off.abs() as f64 / MOST as f64).collect::<Vec<_>>());
        let word = |off: i64| match off.signum() {
            1 => "high",
            -1 => "low",
            _ => "fits",
        };
        let words = off.iter().fold(String::new(), |text, &off| format!("{text} {}", word(off)));
        Ok(Some(Verdict {
            right: off.iter().all(|&off| off == 0),
            score,
            well_formed: have.len() == want.len(),
            words,
        }))
    }
}

/// Copies each place of the specification with probability 0.3 and otherwise writes any value. Of a shown best answer it
/// keeps a place with probability 0.7; where words come with it, it keeps what fits with 0.95 and moves what does not in
/// the direction told with 0.8. What it writes anew is drawn again once if it is the worst answer's.
fn editor() -> Scripted<fn(&str, &mut ChaCha8Rng) -> String> {
    Scripted::new("editor", written)
}

fn written(prompt: &str, rng: &mut ChaCha8Rng) -> String {
    let of = |name: &str| prompt.lines().find(|line| line.starts_with(name));
    let spec = of("layout").map(values).unwrap_or_default();
    let (best, worst) = (of("best").map(values), of("worst").map(values));
    let said: Vec<&str> =
        of("said").map(|line| line.split_whitespace().skip(1).collect()).unwrap_or_default();
    let mut places = vec![];
    for (at, &want) in spec.iter().enumerate() {
        let (old, bad) = (best.as_ref().and_then(|b| b.get(at)), worst.as_ref().and_then(|w| w.get(at)));
        let mut anew = || if rng.random_bool(0.3) { want } else { rng.random_range(0..=MOST) };
        let mut fresh = anew();
        if Some(&fresh) == bad {
            fresh = anew();
        }
        let chance: f64 = rng.random();
        places.push(match (old, said.get(at).copied()) {
            (Some(&old), Some("fits")) if chance < 0.95 => old,
            (Some(&old), Some("low")) if chance < 0.8 && old < MOST => rng.random_range(old + 1..=MOST),
            (Some(&old), Some("high")) if chance < 0.8 && old > 0 => rng.random_range(0..old),
            (Some(&old), None) if chance < 0.7 => old,
            _ => fresh,
        });
    }
    line("layout", &places)
}

fn records(seed: u64) -> Vec<Record> {
    let mut rng = rng(seed, "layouts");
    (0..RECORDS)
        .map(|index| {
            let places: Vec<i64> = (0..PLACES).map(|_| rng.random_range(0..=MOST)).collect();
            Record::new(index.to_string(), line("layout", &places))
        })
        .collect()
}

/// The loop with `calls` calls, 4 in a round from 8 on, 2 below, in the editor's words.
pub(super) fn with(calls: usize, context: Context) -> Iad {
    let per_round = if calls < 8 { 2 } else { 4 };
    Iad {
        rounds: calls / per_round,
        per_round,
        context,
        // Budgets are compared whole.
        stop_at: f64::INFINITY,
        prompt: "{{ prompt }}{% if best %}\nbest {{ best.answer }}{% if best.critique %}\nsaid {{ best.critique }}\
                 {% endif %}{% endif %}{% if worst %}\nworst {{ worst.answer }}{% endif %}"
            .replace("best {{ best.answer }}", "best {{ best.answer | replace('layout ', '') }}")
            .replace("worst {{ worst.answer }}", "worst {{ worst.answer | replace('layout ', '') }}"),
        draw: Draw { max_tokens: 32, ..Draw::default() },
        ..Iad::default()
    }
}

/// How the verifier is degraded: noise in standard deviations of the scores of single answers, and whether only a
/// threshold is told.
#[derive(Clone, Copy)]
pub(super) enum Verify {
    Exact,
    Noise(f64),
    Sparse,
}

pub(super) fn traces(own: &Iad, verify: Verify, seed: u64) -> Result<Vec<Trace>> {
    let records = records(seed);
    let exact = || Box::new(Verifier { oracle: &Layouts, detail: Detail::Correction });
    let critic: Box<dyn Critic> = match verify {
        Verify::Exact => exact(),
        degraded => {
            let single = decode(
                &editor(),
                &*exact(),
                &records,
                Cost::default(),
                &with(4, Context::Nothing),
                seed ^ 1,
            )?;
            let scores: Vec<f64> =
                single.iter().flat_map(|t| t.rounds.iter().filter_map(|r| r.score)).collect();
            let spread = standard_deviation(&scores);
            let (noise, threshold) = match degraded {
                Verify::Noise(share) => (share * spread, None),
                _ => (0.0, Some(mean(&scores) + spread)),
            };
            Box::new(Degraded { critic: exact(), noise, threshold })
        }
    };
    decode(&editor(), &*critic, &records, Cost::default(), own, seed)
}

/// Mean true score of the kept answers: by the exact oracle, whatever the verifier said.
pub(super) fn truth(own: &Iad, verify: Verify, seed: u64) -> Result<f64> {
    let records = records(seed);
    let mut scores = vec![];
    for trace in traces(own, verify, seed)? {
        scores.extend(Layouts.check(&records[trace.record], trace.text())?.map(|verdict| verdict.score));
    }
    Ok(mean(&scores))
}

const BUDGETS: [usize; 3] = [4, 8, 16];

fn over_budgets(difference: impl Fn(usize) -> Result<f64>) -> Result<f64> {
    Ok(mean(&BUDGETS.iter().map(|&calls| difference(calls)).collect::<Result<Vec<_>>>()?))
}

pub(super) fn beats_best_of_n(seed: u64) -> Result<f64> {
    let of = |calls, context| truth(&with(calls, context), Verify::Exact, seed);
    over_budgets(|calls| Ok(of(calls, Context::Best)? - of(calls, Context::Nothing)?))
}

pub(super) fn best_of_n_beats_one(seed: u64) -> Result<f64> {
    let one = Iad { rounds: 1, per_round: 1, ..with(4, Context::Nothing) };
    let one = truth(&one, Verify::Exact, seed)?;
    over_budgets(|calls| Ok(truth(&with(calls, Context::Nothing), Verify::Exact, seed)? - one))
}

pub(super) fn beats_random(seed: u64) -> Result<f64> {
    let of = |context| truth(&with(16, context), Verify::Exact, seed);
    Ok(of(Context::Best)? - of(Context::Random)?)
}

pub(super) fn worst_helps(seed: u64) -> Result<f64> {
    let of = |worst| {
        truth(&Iad { worst, feedback: Tells::Nothing, ..with(16, Context::Best) }, Verify::Exact, seed)
    };
    Ok(of(true)? - of(false)?)
}

pub(super) fn words_beat_scores(seed: u64) -> Result<f64> {
    let of = |feedback| truth(&Iad { feedback, ..with(16, Context::Best) }, Verify::Exact, seed);
    Ok(of(Tells::Words)? - of(Tells::Score)?)
}

/// Lead over the best of n at 16 calls.
fn lead(verify: Verify, seed: u64) -> Result<f64> {
    let of = |context| truth(&Iad { feedback: Tells::Score, ..with(16, context) }, verify, seed);
    Ok(of(Context::Best)? - of(Context::Nothing)?)
}

pub(super) fn noise_costs(seed: u64) -> Result<f64> {
    Ok(lead(Verify::Noise(0.0), seed)? - lead(Verify::Noise(1.0), seed)?)
}

pub(super) fn sparsity_costs(seed: u64) -> Result<f64> {
    Ok(lead(Verify::Noise(0.0), seed)? - lead(Verify::Sparse, seed)?)
}

pub(super) fn budget_helps(seed: u64) -> Result<f64> {
    let of = |calls, context| truth(&with(calls, context), Verify::Exact, seed);
    let gain = |context| -> Result<f64> { Ok(of(16, context)? - of(4, context)?) };
    let (refined, drawn) = (gain(Context::Best)?, gain(Context::Nothing)?);
    Ok(refined.min(drawn))
}
