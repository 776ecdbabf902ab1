//! Riddles: a bench for methods that learn from what is said of an answer.
//!
//! `say w3 w7` is answered with two words, one for each, by a hidden key. The policy has learnt a key that is right for
//! half of the words and answers by it, with slips; so some prompts are never answered right, whatever is sampled. It has
//! also learnt to read what is said of an answer and to write it again, for keys of every kind. Whether a method carries
//! what was said over to the bare prompt is known exactly.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hone_feedback::metrics::mean;
use hone_feedback::{Prompt, Record};
use hone_nn::ModelConfig;
use hone_nn::train::seed::{rng, shuffle};
use hone_worlds::Detail;
use hone_worlds::world::ALL_RIGHT;
use rand::Rng;

use crate::error::{Error, Result};
use crate::method::Job;
use crate::oracle::{Oracle, Verdict, WRONG};
use crate::policy::Policy;
use crate::refine::{Draw, prompts, sample};
use crate::train::{Session, Training};

const WORDS: usize = 10;

/// How often the policy that everything starts from slips from its key, per word.
const SLIP: f64 = 0.04;

/// One hidden key, and the policy that everything starts from.
#[derive(Debug)]
pub struct Riddles {
    seed: u64,
    /// `[WORDS]`: the right word for each.
    key: Vec<usize>,
    start: Arc<PathBuf>,
}

impl Riddles {
    /// Riddles of this seed. The starting policy is made once per process.
    ///
    /// # Errors
    /// If the temporary folder cannot be written.
    pub fn new(seed: u64) -> Result<Riddles> {
        static START: OnceLock<Result<Arc<PathBuf>, String>> = OnceLock::new();
        let start = START.get_or_init(|| start().map(Arc::new).map_err(|e| e.to_string())).clone();
        let start = start.map_err(|problem| Error::File { path: "bench".into(), problem })?;
        let mut rng = rng(seed, "key");
        let mut places: Vec<usize> = (0..WORDS).collect();
        shuffle(&mut places, &mut rng);
        let mut key = learnt();
        for &place in &places[..WORDS / 2] {
            key[place] = other(key[place], &mut rng);
        }
        Ok(Riddles { seed, key, start })
    }

    /// The policy at its start.
    ///
    /// # Errors
    /// Those of reading its folder.
    pub fn policy(&self) -> Result<Policy> {
        let mut policy = Policy::from_folder(&self.start)?;
        policy.model.threads = 1;
        Ok(policy)
    }

    /// A job of this bench.
    ///
    /// # Errors
    /// As [`Riddles::policy`].
    pub fn job<'a>(&'a self, records: &'a [Record], settings: &'a toml::Table) -> Result<Job<'a>> {
        let (policy, seed) = (self.policy()?, self.seed);
        Ok(Job { policy, records, oracle: Some(self), settings, seed, session: Session::default() })
    }

    /// So many prompts to learn from, and the rest of all there are.
    pub fn records(&self, train: usize) -> (Vec<Record>, Vec<Record>) {
        let mut pairs: Vec<(usize, usize)> =
            (0..WORDS * WORDS).map(|pair| (pair / WORDS, pair % WORDS)).collect();
        shuffle(&mut pairs, &mut rng(self.seed, "pairs"));
        let record =
            |(a, b): (usize, usize)| Record::new(format!("{a}-{b}"), Prompt::Text(format!("say w{a} w{b}")));
        let mut records: Vec<Record> = pairs.into_iter().map(record).collect();
        let rest = records.split_off(train.min(records.len()));
        (records, rest)
    }

    /// Whether the starting policy has learnt the right words for both of a prompt's: without them, it is right by
    /// chance alone.
    pub fn known(&self, record: &Record) -> bool {
        let learnt = learnt();
        asked(record).is_some_and(|words| words.iter().all(|&word| learnt[word] == self.key[word]))
    }

    /// Share of right answers, four to each prompt at temperature 1.
    ///
    /// # Errors
    /// Those of the model.
    pub fn right(&self, policy: &Policy, records: &[Record]) -> Result<f64> {
        let model = policy.speaker()?;
        let draw = Draw { max_tokens: 8, ..Draw::default() };
        let answers = sample(&model, &prompts(&model, records)?, 4, &draw, self.seed)?;
        let mut right = vec![];
        for (record, answers) in records.iter().zip(&answers) {
            right.extend(
                answers.iter().map(|answer| f64::from(u8::from(self.flaw(record, &answer.text).is_none()))),
            );
        }
        Ok(mean(&right))
    }

    fn answer(&self, record: &Record) -> Option<[usize; 2]> {
        asked(record).map(|words| words.map(|word| self.key[word]))
    }

    /// The first place that is wrong in an answer; 0 for one that is no answer at all.
    fn flaw(&self, record: &Record, answer: &str) -> Option<usize> {
        let right = self.answer(record)?;
        match numbers(answer) {
            Some(said) => (0..2).find(|&at| said[at] != right[at]),
            None => Some(0),
        }
    }
}

impl Oracle for Riddles {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        let right = self.flaw(record, answer).is_none();
        Ok(Some(Verdict {
            right,
            score: f64::from(u8::from(right)),
            well_formed: numbers(answer).is_some(),
            words: self.explain(record, answer, Detail::Correction)?.unwrap_or_default(),
        }))
    }

    fn explain(&self, record: &Record, answer: &str, detail: Detail) -> Result<Option<String>> {
        let (Some(at), Some(right)) = (self.flaw(record, answer), self.answer(record)) else {
            return Ok(Some(ALL_RIGHT.into()));
        };
        Ok(Some(match detail {
            Detail::Verdict => WRONG.into(),
            Detail::Place | Detail::Kind | Detail::Reason => PLACES[at].into(),
            Detail::Correction => format!("{} use w{}", PLACES[at], right[at]),
        }))
    }

    fn reference(&self, record: &Record) -> Result<Option<String>> {
        Ok(self.answer(record).map(|[a, b]| format!("w{a} w{b}")))
    }
}

const PLACES: [&str; 2] = ["first", "second"];

/// What is asked for a better answer, a Jinja template over `prompt`, `answer` and `critique`.
pub const REFINE: &str = "{{ prompt }} answer {{ answer }} check {{ critique }} better";

/// What is said where the last right word is told.
pub const GOLD: &str = "wrong is w{{ gold }}";

/// What is said where a right answer is shown.
pub const SOLUTION: &str = "solution {{ solution }}";

fn asked(record: &Record) -> Option<[usize; 2]> {
    numbers(record.prompt.text().strip_prefix("say ")?)
}

fn numbers(text: &str) -> Option<[usize; 2]> {
    let numbers = text.split_whitespace().map(|word| word.strip_prefix('w')?.parse().ok());
    let numbers: Option<Vec<usize>> = numbers.collect();
    numbers?.try_into().ok().filter(|numbers: &[usize; 2]| numbers.iter().all(|&number| number < WORDS))
}

/// The key that the starting policy has learnt.
fn learnt() -> Vec<usize> {
    let mut key: Vec<usize> = (0..WORDS).collect();
    shuffle(&mut key, &mut rng(0, "learnt"));
    key
}

fn word(rng: &mut impl Rng) -> usize {
    rng.random_range(0..WORDS)
}

/// Another word than this.
fn other(word: usize, rng: &mut impl Rng) -> usize {
    (word + rng.random_range(1..WORDS)) % WORDS
}

/// Makes the folder of the starting policy.
fn start() -> Result<PathBuf> {
    let signs = ["say", "answer", "check", "better", "wrong", "all", "right", "first", "second", "use", "is"];
    let words: Vec<String> = signs
        .iter()
        .map(|sign| sign.to_string())
        .chain(["solution".into()])
        .chain((0..WORDS).map(|n| format!("w{n}")))
        .collect();
    let (mut rng, learnt) = (rng(0, "riddles"), learnt());
    let show = |[a, b]: [usize; 2]| format!("w{a} w{b}");
    let mut shown = vec![];
    for index in 0..5000 {
        let ask = [word(&mut rng), word(&mut rng)];
        if index % 3 == 0 {
            let said = ask.map(|asked| match rng.random_bool(SLIP) {
                true => word(&mut rng),
                false => learnt[asked],
            });
            shown.push((format!("say {}", show(ask)), show(said)));
            continue;
        }
        // Under any key: what is said counts, not what was learnt.
        let right = [word(&mut rng), word(&mut rng)];
        let first = rng.random_range(0..2);
        let mut said = right;
        said[first] = other(right[first], &mut rng);
        if rng.random_bool(0.3) {
            said[1 - first] = other(right[1 - first], &mut rng);
        }
        let (at, mut better) = (usize::from(said[0] == right[0]), said);
        let critique = match rng.random_range(0..10) {
            0..4 => {
                better[at] = right[at];
                format!("{} use w{}", PLACES[at], right[at])
            }
            4..6 => {
                match said[1] == right[1] {
                    true => better[0] = other(said[0], &mut rng),
                    false => better[1] = right[1],
                }
                format!("wrong is w{}", right[1])
            }
            6 => {
                better[at] = other(said[at], &mut rng);
                PLACES[at].into()
            }
            7 => {
                let at = rng.random_range(0..2);
                better[at] = other(said[at], &mut rng);
                WRONG.into()
            }
            8 => {
                better = right;
                format!("solution {}", show(right))
            }
            _ => ALL_RIGHT.into(),
        };
        let prompt = format!("say {} answer {} check {critique} better", show(ask), show(said));
        shown.push((prompt, show(better)));
    }
    let config = |vocabulary| ModelConfig::llama(vocabulary, 32, 2, 4, 2, 64);
    let training = Training { learning_rate: 4e-3, epochs: 12.0, batch_size: 16, ..Training::default() };
    super::fitted("riddles", &words, config, &shown, &training)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_says_what_is_first_wrong() {
        let riddles = Riddles { seed: 1, key: (0..WORDS).rev().collect(), start: Arc::default() };
        let record = Record::new("r", Prompt::Text("say w0 w3".into()));
        assert_eq!(riddles.reference(&record).unwrap().unwrap(), "w9 w6");
        let says = |answer: &str, detail| riddles.explain(&record, answer, detail).unwrap().unwrap();
        assert_eq!(says("w9 w1", Detail::Correction), "second use w6");
        assert_eq!(says("w1 w1", Detail::Place), "first");
        assert_eq!(says("w9", Detail::Verdict), WRONG);
        assert_eq!(says("w9 w6", Detail::Correction), ALL_RIGHT);
        assert!(riddles.check(&record, "w9 w6").unwrap().unwrap().right);
    }

    #[test]
    fn the_start_knows_half_of_the_key_and_follows_what_is_said() {
        let riddles = Riddles::new(1).unwrap();
        let policy = riddles.policy().unwrap();
        let (_, all) = riddles.records(0);
        let known: Vec<Record> = all.iter().filter(|record| riddles.known(record)).cloned().collect();
        let rest: Vec<Record> = all.iter().filter(|record| !riddles.known(record)).cloned().collect();
        // Five words of ten are known, so 25 pairs of 100.
        assert_eq!(known.len(), 25);
        let (of_known, of_rest) =
            (riddles.right(&policy, &known).unwrap(), riddles.right(&policy, &rest).unwrap());
        let told: Vec<Record> = (0..40)
            .map(|n| {
                let prompt = format!("say w1 w2 answer w{} w3 check first use w{} better", n % 5, 5 + n % 5);
                Record::new(n.to_string(), Prompt::Text(prompt))
            })
            .collect();
        let model = policy.speaker().unwrap();
        let draw = Draw { max_tokens: 8, ..Draw::default() };
        let answers = sample(&model, &prompts(&model, &told).unwrap(), 1, &draw, 1).unwrap();
        let right = (0..40).filter(|&n| answers[n][0].text.trim() == format!("w{} w3", 5 + n % 5)).count();
        assert!(of_known > 0.5 && of_rest < 0.1, "{of_known} {of_rest}");
        assert!(right >= 30, "{right} of 40");
    }
}
