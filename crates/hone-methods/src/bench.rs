//! A small bench for claims: made-up words, a hidden taste for each of them, and people who state it in any form.
//!
//! A policy of a few thousand weights writes 3 to 8 of 32 words. How good a response is follows from its words alone, so
//! whether a method has learnt what the feedback says is known exactly, within a second. Claims run here and by the same
//! code in the tests; what needs a model that can read and reason is claimed on the built-in model instead.

pub mod riddles;
pub mod scripted;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

#[cfg(test)]
use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_feedback::{Feedback, Form, Prompt, Record};
use hone_nn::folder::{self, SaveOptions};
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::{Model, ModelConfig, Want};
use rand::Rng;
use serde_json::json;

use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::{Job, Product};
use crate::oracle::{Oracle, Verdict};
use crate::policy::Policy;
use crate::train::{self, Session, Training};

const WORDS: usize = 32;

/// Longest sequence the bench makes, in tokens.
const MAX_TOKENS: usize = 64;

/// One hidden taste, and the policy that everything starts from.
#[derive(Debug)]
pub struct Bench {
    seed: u64,
    /// `[WORDS]`: how much each word is liked, in [-1, 1].
    taste: Vec<f64>,
    start: Arc<PathBuf>,
}

impl Bench {
    /// A bench of this seed. The starting policy, which writes words evenly, is made once per process.
    ///
    /// # Errors
    /// If the temporary folder cannot be written.
    pub fn new(seed: u64) -> Result<Bench> {
        let mut rng = rng(seed, "taste");
        let mut taste: Vec<f64> = (0..WORDS).map(|i| i as f64 / (WORDS - 1) as f64 * 2.0 - 1.0).collect();
        shuffle(&mut taste, &mut rng);
        static START: OnceLock<Result<Arc<PathBuf>, String>> = OnceLock::new();
        let start = START.get_or_init(|| start().map(Arc::new).map_err(|e| e.to_string())).clone();
        let start = start.map_err(|problem| Error::File { path: "bench".into(), problem })?;
        Ok(Bench { seed, taste, start })
    }

    /// The policy at its start.
    ///
    /// # Errors
    /// Those of reading its folder.
    pub fn policy(&self) -> Result<Policy> {
        let mut policy = Policy::from_folder(&self.start)?;
        // A model of this size gains nothing from a second thread.
        policy.model.threads = 1;
        Ok(policy)
    }

    /// A job of this bench.
    ///
    /// # Errors
    /// As [`Bench::policy`].
    pub fn job<'a>(&'a self, records: &'a [Record], settings: &'a toml::Table) -> Result<Job<'a>> {
        Ok(Job {
            policy: self.policy()?,
            records,
            oracle: Some(self),
            settings,
            seed: self.seed,
            session: Session::default(),
        })
    }

    /// How good a response is: the mean taste of its words, in [-1, 1]; -1 for none.
    pub fn utility(&self, text: &str) -> f64 {
        let tastes: Vec<f64> = text.split_whitespace().filter_map(|word| self.taste_of(word)).collect();
        if tastes.is_empty() { -1.0 } else { tastes.iter().sum::<f64>() / tastes.len() as f64 }
    }

    fn taste_of(&self, word: &str) -> Option<f64> {
        word.strip_prefix('w').and_then(|n| n.parse::<usize>().ok()).and_then(|n| self.taste.get(n).copied())
    }

    /// Records of `responses` random responses each, without feedback, on prompts of the stream `name`.
    pub fn records(&self, count: usize, responses: usize, name: &str) -> Vec<Record> {
        let mut rng = rng(sub_seed(self.seed, name), "records");
        (0..count)
            .map(|index| {
                let asked: Vec<String> = (0..2).map(|_| word(&mut rng)).collect();
                let prompt = Prompt::Text(format!("say {}", asked.join(" ")));
                let mut record = Record::new(format!("{name}-{index}"), prompt);
                for id in ('a'..='z').take(responses) {
                    record = record.respond(id.to_string(), phrase(&mut rng));
                }
                record
            })
            .collect()
    }

    /// Pairs: the better of two responses.
    pub fn pairs(&self, count: usize, name: &str) -> Vec<Record> {
        let judge = |record: Record| {
            let [a, b] = [self.said(&record, 0), self.said(&record, 1)];
            let (better, worse) = if a >= b { ("a", "b") } else { ("b", "a") };
            record.say(Form::Comparison { better: better.into(), worse: worse.into() })
        };
        self.records(count, 2, name).into_iter().map(judge).collect()
    }

    /// A thumb on one response each, up for the better half.
    pub fn thumbs(&self, count: usize, name: &str) -> Vec<Record> {
        let judge = |record: Record| {
            let value = self.said(&record, 0) > 0.0;
            record.say(Form::Thumb { on: "a".into(), value })
        };
        self.records(count, 1, name).into_iter().map(judge).collect()
    }

    /// A rating from 1 to 5 on one response each.
    pub fn ratings(&self, count: usize, name: &str) -> Vec<Record> {
        let judge = |record: Record| {
            // A mean of several tastes rarely leaves [-½, ½].
            let value = (3.0 + 4.0 * self.said(&record, 0)).round().clamp(1.0, 5.0);
            record.say(Form::Rating { on: "a".into(), value, scale: Some([1.0, 5.0]) })
        };
        self.records(count, 1, name).into_iter().map(judge).collect()
    }

    /// An order of so many responses each.
    pub fn rankings(&self, count: usize, responses: usize, name: &str) -> Vec<Record> {
        let judge = |record: Record| {
            let mut order: Vec<usize> = (0..record.responses.len()).collect();
            order.sort_by(|&x, &y| self.said(&record, y).total_cmp(&self.said(&record, x)));
            let order = order.into_iter().map(|at| vec![record.responses[at].id.clone()]).collect();
            record.say(Form::Ranking { order })
        };
        self.records(count, responses, name).into_iter().map(judge).collect()
    }

    /// An edit each: every disliked word gives way to the liked one that is as far down the list from the top.
    pub fn edits(&self, count: usize, name: &str) -> Vec<Record> {
        let mut best: Vec<usize> = (0..WORDS).collect();
        best.sort_by(|&x, &y| self.taste[y].total_cmp(&self.taste[x]));
        let edit = |record: Record| {
            let text = record.responses[0].content.text().into_owned();
            let words: Vec<String> = text
                .split_whitespace()
                .map(|word| match self.taste_of(word) {
                    Some(taste) if taste < 0.0 => format!("w{}", best[((-taste) * 8.0) as usize]),
                    _ => word.to_string(),
                })
                .collect();
            record.say(Form::Edit { on: "a".into(), content: words.join(" ").into() })
        };
        self.records(count, 1, name).into_iter().map(edit).collect()
    }

    /// Marks on one response each: a span over every disliked word, or a step per word.
    pub fn marks(&self, count: usize, name: &str, steps: bool) -> Vec<Record> {
        let mark = |mut record: Record| {
            let text = record.responses[0].content.text().into_owned();
            if steps {
                record.responses[0].content = text.replace(' ', "\n").into();
            }
            let (mut at, mut said): (usize, Vec<Feedback>) = (0, vec![]);
            for (index, word) in text.split(' ').enumerate() {
                let liked = self.taste_of(word).unwrap_or(-1.0) >= 0.0;
                let on = "a".to_string();
                if steps {
                    said.push(Form::Step { on, index, correct: liked }.into());
                } else if !liked {
                    let (start, end) = (at, at + word.len());
                    said.push(
                        Form::Span { on, start, end, label: Some("dull".into()), value: Some(-1.0) }.into(),
                    );
                }
                at += word.len() + 1;
            }
            said.into_iter().fold(record, Record::say)
        };
        self.records(count, 1, name).into_iter().map(mark).collect()
    }

    fn said(&self, record: &Record, at: usize) -> f64 {
        self.utility(&record.responses[at].content.text())
    }
}

impl Oracle for Bench {
    fn check(&self, _: &Record, answer: &str) -> Result<Option<Verdict>> {
        let utility = self.utility(answer);
        Ok(Some(Verdict {
            right: utility > 0.0,
            score: (utility + 1.0) / 2.0,
            well_formed: !answer.trim().is_empty(),
            words: String::new(),
        }))
    }

    /// Words of the better half are good, the others poor.
    fn mark(&self, _: &Record, answer: &str) -> Result<Option<Vec<(usize, usize, f64)>>> {
        let (mut at, mut marks) = (0, vec![]);
        for word in answer.split(' ') {
            let length = word.chars().count();
            if let Some(taste) = self.taste_of(word) {
                marks.push((at, at + length, if taste >= 0.0 { 1.0 } else { -1.0 }));
            }
            at += length + 1;
        }
        Ok(Some(marks))
    }
}

/// Keeps the first responses of a ranked record, which are in no order, and their places in the ranking.
pub fn keep_responses(record: &mut Record, responses: usize) {
    record.responses.truncate(responses);
    let kept: Vec<String> = record.responses.iter().map(|response| response.id.clone()).collect();
    for item in &mut record.feedback {
        if let Form::Ranking { order } = &mut item.form {
            order.iter_mut().for_each(|place| place.retain(|id| kept.contains(id)));
            order.retain(|place| !place.is_empty());
        }
    }
}

fn word(rng: &mut impl Rng) -> String {
    format!("w{}", rng.random_range(0..WORDS))
}

fn phrase(rng: &mut impl Rng) -> String {
    let length = rng.random_range(3..=8);
    (0..length).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

/// A folder of this process for things of the bench.
///
/// # Errors
/// [`Error::Io`].
pub fn temporary(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("hone-bench-{}", std::process::id())).join(name);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

/// Removes the folders of this process. No bench may be used after it.
pub fn clean_up() {
    let folder = std::env::temp_dir().join(format!("hone-bench-{}", std::process::id()));
    // A folder that was never made, or that cannot be removed, is the system's to clean.
    let _ = std::fs::remove_dir_all(folder);
}

/// Makes the folder of the starting policy: fitted to random phrases, so that it ends what it writes.
fn start() -> Result<PathBuf> {
    let words: Vec<String> =
        std::iter::once("say".into()).chain((0..WORDS).map(|n| format!("w{n}"))).collect();
    let mut rng = rng(0, "start");
    let shown: Vec<(String, String)> =
        (0..512).map(|_| (format!("say {} {}", word(&mut rng), word(&mut rng)), phrase(&mut rng))).collect();
    let config = |vocabulary| ModelConfig::llama(vocabulary, 32, 1, 2, 2, 64);
    let training = Training { learning_rate: 3e-3, epochs: 4.0, ..Training::default() };
    fitted("start", &words, config, &shown, &training)
}

/// Makes a model folder called `name`: a random decoder over `words`, one token each. `config` is given the size of the
/// vocabulary.
///
/// # Errors
/// [`Error::Io`]; those of the engine.
pub fn unfitted(name: &str, words: &[String], config: impl Fn(usize) -> ModelConfig) -> Result<PathBuf> {
    let folder = temporary(name)?;
    let names: Vec<String> =
        ["<unk>", "</s>"].into_iter().map(String::from).chain(words.iter().cloned()).collect();
    let vocab: serde_json::Map<_, _> =
        names.iter().enumerate().map(|(id, w)| (w.clone(), json!(id))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": names[id], "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1)],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let write = |name: &str, value: serde_json::Value| {
        let path = folder.join(name);
        std::fs::write(&path, value.to_string()).map_err(Error::io(&path))
    };
    let mut config = config(names.len());
    config.eos_tokens = vec![1];
    config.max_positions = MAX_TOKENS;
    let model = Model::random(config, 0);
    folder::write(model.config(), &model.params, &folder, &SaveOptions::default())?;
    write("tokenizer.json", tokenizer)?;
    write("tokenizer_config.json", json!({"eos_token": "</s>", "unk_token": "<unk>"}))?;
    Ok(folder)
}

/// [`unfitted`], then fitted to prompts and answers by imitation.
///
/// # Errors
/// As [`unfitted`].
pub fn fitted(
    name: &str,
    words: &[String],
    config: impl Fn(usize) -> ModelConfig,
    shown: &[(String, String)],
    training: &Training,
) -> Result<PathBuf> {
    let folder = unfitted(name, words, config)?;
    let policy = Policy::from_folder(&folder)?;
    let records: Vec<Record> = shown
        .iter()
        .enumerate()
        .map(|(index, (prompt, answer))| {
            let record = Record::new(index.to_string(), Prompt::Text(prompt.clone())).respond("a", "");
            record.say(Form::Edit { on: "a".into(), content: answer.clone().into() })
        })
        .collect();
    let examples = Examples::from_records(&policy, &records, Shape::Demonstrations, MAX_TOKENS)?;
    let nothing = toml::Table::new();
    let job = Job {
        policy,
        records: &records,
        oracle: None,
        settings: &nothing,
        seed: 0,
        session: Session::default(),
    };
    let policy = sft::imitate("sft", job, &examples, training)?.policy()?;
    // The base files stay; only the weights are replaced.
    folder::write(
        policy.model.config(),
        &policy.model.params,
        &folder,
        &SaveOptions { companions: Some(folder.clone()), ..SaveOptions::default() },
    )?;
    Ok(folder)
}

/// Settings for models of this size: a fast rate, three passes; `own` is laid over them.
///
/// # Errors
/// [`Error::Settings`] if `own` is no TOML.
pub fn quick(own: &str) -> Result<toml::Table> {
    let fault = |e: toml::de::Error| Error::Settings { method: "bench".into(), message: e.to_string() };
    let mut whole: toml::Table = own.parse().map_err(fault)?;
    let training = whole.entry("training").or_insert_with(|| toml::Table::new().into());
    if let Some(training) = training.as_table_mut() {
        for (key, value) in [("learning_rate", 3e-3), ("epochs", 3.0), ("warm_up", 0.1)] {
            training.entry(key).or_insert(value.into());
        }
        training.entry("batch_size").or_insert(16.into());
    }
    Ok(whole)
}

/// Mean negative log-likelihood of the records' demonstrations, in nats per token.
///
/// # Errors
/// Those of the engine.
pub fn nll(policy: &Policy, records: &[Record]) -> Result<f64> {
    let examples = Examples::from_records(policy, records, Shape::Demonstrations, MAX_TOKENS)?;
    let logps = train::seq_logps(&policy.model, &examples.items, &Want::default())?;
    let tokens: usize = examples.items.iter().flat_map(|e| &e.sequences).map(|s| s.targets()).sum();
    Ok(-logps.iter().flatten().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64)
}

/// Per pair of `examples`, how far `after` has raised chosen above rejected since `before`, in nats.
///
/// # Errors
/// Those of the engine.
pub fn margins(before: &Policy, after: &Policy, examples: &[Example]) -> Result<Vec<f64>> {
    let want = Want::default();
    let (old, new) =
        (train::seq_logps(&before.model, examples, &want)?, train::seq_logps(&after.model, examples, &want)?);
    Ok(old.iter().zip(&new).map(|(o, n)| f64::from((n[0] - o[0]) - (n[1] - o[1]))).collect())
}

/// Share of pairs with a margin above 0.
pub fn share_above_zero(margins: &[f64]) -> f64 {
    margins.iter().filter(|&&margin| margin > 0.0).count() as f64 / margins.len().max(1) as f64
}

/// Margins of held-out pairs, in nats, after a preference method and after imitating the chosen responses of the same
/// pairs with the same settings.
///
/// # Errors
/// Those of both runs.
pub fn preferred_and_imitated(
    seed: u64,
    run: fn(Job<'_>) -> Result<Product>,
    own: &str,
) -> Result<[Vec<f64>; 2]> {
    let bench = Bench::new(seed)?;
    let (train, held_out) = (bench.pairs(160, "train"), bench.pairs(200, "held out"));
    let settings = quick(own)?;
    let start = bench.policy()?;
    let pairs = |records: &[Record]| Examples::from_records(&start, records, Shape::Pairs, MAX_TOKENS);
    let mut chosen = pairs(&train)?;
    chosen.items.iter_mut().for_each(|item| item.sequences.truncate(1));
    let training = training_of(&settings)?;
    let imitated = sft::imitate("sft", bench.job(&train, &settings)?, &chosen, &training)?.policy()?;
    let preferred = run(bench.job(&train, &settings)?)?.policy()?;
    let held_out = pairs(&held_out)?.items;
    Ok([margins(&start, &preferred, &held_out)?, margins(&start, &imitated, &held_out)?])
}

/// How much larger a share of held-out pairs a preference method orders right than imitating the chosen responses does.
///
/// # Errors
/// As [`preferred_and_imitated`].
pub fn order_over_imitation(seed: u64, run: fn(Job<'_>) -> Result<Product>, own: &str) -> Result<f64> {
    let [preferred, imitated] = preferred_and_imitated(seed, run, own)?;
    Ok(share_above_zero(&preferred) - share_above_zero(&imitated))
}

/// How much further apart a preference method sets held-out pairs than imitating the chosen responses does, in nats.
///
/// # Errors
/// As [`preferred_and_imitated`].
pub fn gap_over_imitation(seed: u64, run: fn(Job<'_>) -> Result<Product>, own: &str) -> Result<f64> {
    let [preferred, imitated] = preferred_and_imitated(seed, run, own)?;
    Ok(hone_feedback::metrics::mean(&preferred) - hone_feedback::metrics::mean(&imitated))
}

/// The `training` table of settings.
///
/// # Errors
/// [`Error::Settings`].
pub fn training_of(settings: &toml::Table) -> Result<Training> {
    settings["training"].clone().try_into().map_err(|e: toml::de::Error| Error::Settings {
        method: "bench".into(),
        message: e.message().to_string(),
    })
}

/// Mean of an effect over seeds, and its standard error.
///
/// # Errors
/// Those of the effect.
pub fn over_seeds(effect: fn(u64) -> Result<f64>, seeds: u64) -> Result<(f64, f64, Vec<f64>)> {
    let values: Vec<f64> = (1..=seeds).map(effect).collect::<Result<_>>()?;
    let mean = hone_feedback::metrics::mean(&values);
    let error = hone_feedback::metrics::standard_deviation(&values) / (values.len() as f64).sqrt();
    Ok((mean, error, values))
}

/// A tensor of plain numbers.
#[cfg(test)]
pub(crate) fn tensor(values: &[f64]) -> Tensor {
    Tensor::new(values, &candle_core::Device::Cpu).unwrap()
}

/// Checks plain values to five digits.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_near(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near, "{got:?}, expected {expected:?}");
}

/// Checks values to five digits.
#[cfg(test)]
pub(crate) fn assert_close(got: &Tensor, expected: &[f64]) {
    let got: Vec<f64> = got.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(got.len(), expected.len(), "{got:?}");
    for (one, other) in got.iter().zip(expected) {
        assert!((one - other).abs() < 1e-5, "{got:?}, expected {expected:?}");
    }
}

/// Checks that an effect holds over seeds 1 to `seeds`, as `hone reproduce` judges it.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_holds(effect: fn(u64) -> Result<f64>, seeds: u64) {
    let (mean, error, values) = over_seeds(effect, seeds).unwrap();
    let half_width = error * crate::reproduce::t_975(values.len() - 1);
    assert!(mean - half_width > 0.0, "effect {mean:.4}, half width {half_width:.4}, per seed {values:?}");
}

/// Checks that the mean effect of a claim that does not hold over five seeds lies where it was measured: a change that makes
/// it hold, or fail by far, is to be noticed.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_measured(effect: fn(u64) -> Result<f64>, range: std::ops::Range<f64>) {
    let (mean, _, values) = over_seeds(effect, 5).unwrap();
    assert!(range.contains(&mean), "effect {mean:.4}, per seed {values:?}");
}
