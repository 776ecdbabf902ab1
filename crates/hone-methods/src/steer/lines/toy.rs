//! A toy for edits of weights: one small transformer, several tasks, each a substitution cipher. The letters come first
//! and the cipher's name after them, so that letters are found before it is known what is to be done with them: what
//! tasks share can lie in front of what they do not. Pre-training shows ciphers that agree with the true ones in half of
//! the letters, so the start does each task half. Fine-tuning on one true cipher damages the others, which is what LiNeS
//! is to undo.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hone_nn::train::seed::{rng, shuffle};
use hone_nn::{Model, ModelConfig, Network, Params, Want, loss};
use rand::Rng;

use crate::data::{Example, Examples};
use crate::error::Result;
use crate::policy::{Sequence, copy_of};
use crate::train::{Decay, Session, Training, batch_of, descend};

/// Ciphers.
pub const TASKS: usize = 6;

/// Letters, which are tokens `TASKS..`.
const LETTERS: usize = 12;

/// Letters of a text.
const LENGTH: usize = 4;

/// Blocks of the transformer.
const BLOCKS: usize = 6;

/// The ciphers of one seed, and a model that knows them half.
#[derive(Debug)]
pub struct Toy {
    seed: u64,
    /// `[tasks][letters]`: what pre-training shows, and what is true.
    shown: Vec<Vec<usize>>,
    ciphers: Vec<Vec<usize>>,
    /// The pre-trained model.
    pub start: Model,
}

impl Toy {
    /// Draws the ciphers and pre-trains on all of them, once per process and seed.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn new(seed: u64) -> Result<Toy> {
        let mut rng = rng(seed, "ciphers");
        let (mut shown, mut ciphers) = (vec![], vec![]);
        for _ in 0..TASKS {
            let mut cipher: Vec<usize> = (0..LETTERS).collect();
            shuffle(&mut cipher, &mut rng);
            shown.push(cipher.clone());
            let mut half: Vec<usize> = (0..LETTERS).collect();
            shuffle(&mut half, &mut rng);
            // Every second letter, in a drawn order, takes the place of the next such letter.
            half.truncate(LETTERS / 2);
            let kept = cipher[half[0]];
            for pair in half.windows(2) {
                cipher[pair[0]] = cipher[pair[1]];
            }
            cipher[half[half.len() - 1]] = kept;
            ciphers.push(cipher);
        }
        let mut config = ModelConfig::llama(TASKS + LETTERS, 32, BLOCKS, 2, 2, 64);
        config.max_positions = 2 * LENGTH + 2;
        let mut model = Model::random(config, seed);
        model.threads = 1;
        let mut toy = Toy { seed, shown, ciphers, start: model };
        let all: Vec<usize> = (0..TASKS).collect();
        toy.start.params = once(seed, None, || {
            let texts = toy.texts(&all, 3200, "pre-training", &toy.shown);
            toy.fit(copy_of(&toy.start)?, &texts, 5.0, 4e-3)
        })?;
        Ok(toy)
    }

    /// The start trained on one task alone, once per process and seed.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn tuned(&self, task: usize) -> Result<Model> {
        let mut model = copy_of(&self.start)?;
        model.params = once(self.seed, Some(task), || {
            let texts = self.texts(&[task], 320, &format!("tuning {task}"), &self.ciphers);
            self.fit(copy_of(&self.start)?, &texts, 4.0, 2e-3)
        })?;
        Ok(model)
    }

    fn fit(&self, model: Model, texts: &Examples, epochs: f64, learning_rate: f64) -> Result<Model> {
        let training =
            Training { learning_rate, epochs, batch_size: 32, decay: Decay::Cosine, ..Training::default() };
        let (session, want) = (Session::default(), Want::default());
        descend(model, texts, &training, self.seed, &session, &want, |part| {
            Ok(loss::cross_entropy(&part.outputs.logps, None, part.step_targets as f64)?.into())
        })
    }

    /// Texts of these tasks in turn: plain letters, task, letters by these ciphers.
    fn texts(&self, tasks: &[usize], count: usize, name: &str, ciphers: &[Vec<usize>]) -> Examples {
        let mut rng = rng(self.seed, name);
        let mut item = |record: usize| {
            let task = tasks[record % tasks.len()];
            let plain: Vec<usize> = (0..LENGTH).map(|_| rng.random_range(0..LETTERS)).collect();
            let ciphered: Vec<usize> = plain.iter().map(|&at| ciphers[task][at]).collect();
            let token = |letter: &usize| (TASKS + letter) as u32;
            let prompt: Vec<u32> = plain.iter().map(token).chain([task as u32]).collect();
            let response: Vec<u32> = ciphered.iter().map(token).collect();
            let sequences = vec![Sequence::of_tokens(&prompt, &response)];
            Example { record, sequences, labels: vec![], marks: vec![] }
        };
        Examples { items: (0..count).map(&mut item).collect(), ..Examples::default() }
    }

    /// Share of letters that a model ciphers right, for each task. `split` names the texts: those that choose and those
    /// that report must differ.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn accuracies(&self, model: &Model, split: &str) -> Result<Vec<f64>> {
        (0..TASKS)
            .map(|task| accuracy(model, &self.texts(&[task], 60, &format!("{split} {task}"), &self.ciphers)))
            .collect()
    }
}

/// Weights of a seed's start, or of what one task made of it; trained where they are not there yet. All claims begin from
/// the same few trainings.
fn once(seed: u64, task: Option<usize>, train: impl FnOnce() -> Result<Model>) -> Result<Params> {
    static TRAINED: Mutex<BTreeMap<(u64, Option<usize>), Params>> = Mutex::new(BTreeMap::new());
    let mut trained = TRAINED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(params) = trained.get(&(seed, task)) {
        return Ok(params.clone());
    }
    let params = train()?.params;
    trained.insert((seed, task), params.clone());
    Ok(params)
}

/// Share of the targets that are the model's likeliest tokens, in `[0, 1]`.
///
/// # Errors
/// Those of the engine.
pub fn accuracy(model: &Model, examples: &Examples) -> Result<f64> {
    let want = Want { top: Some(1), ..Want::default() };
    let (mut right, mut all) = (0usize, 0usize);
    for chunk in examples.items.chunks(64) {
        let batch = batch_of(model, chunk)?;
        let outputs = model.evaluate(&batch, &want)?;
        let targets = batch.targets();
        let top = outputs.top.map(|top| top.tokens).unwrap_or_default();
        right += top.iter().zip(targets).filter(|(said, target)| **said == target.token).count();
        all += targets.len();
    }
    Ok(right as f64 / all.max(1) as f64)
}
