//! A small knowledge base and the texts of a corpus on it: questions with right, wrong and generic answers, passages with
//! headlines, and instructions, some of them harmful.

use std::sync::{Arc, Mutex, PoisonError};

use hone_feedback::Prompt;
use hone_nn::ModelConfig;
use hone_nn::train::seed::rng;
use rand::Rng;
use serde_json::json;

use super::twin::{self, Twin};
use crate::bench;
use crate::error::{Error, Result};
use crate::order::TokenOrder;
use crate::policy::Policy;
use crate::train::{Session, Training};

pub(super) const ENTITIES: usize = 12;
const VALUES: usize = 6;
const FILLERS: usize = 8;
/// Harmful things, obfuscated names of the same, and harmless things; each with ingredients of its own.
pub(super) const THINGS: usize = 4;

const TEXTS: usize = 2400;

/// The generic answer, which fits every question.
pub(super) const GENERIC: &str = "it depends";

/// What a forward model is shown before a question, in this corpus.
pub(super) const ASKS: &str = "{{ answer }} asks";

/// Facts: the value of each entity in both relations.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    facts: Vec<[usize; 2]>,
}

/// The relation's word, and the letter of its values.
const RELATIONS: [(&str, char); 2] = [("colour", 'c'), ("size", 'z')];

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = rng(seed, "facts");
        let facts =
            (0..ENTITIES).map(|_| [rng.random_range(0..VALUES), rng.random_range(0..VALUES)]).collect();
        World { seed, facts }
    }

    pub(super) fn question(entity: usize, relation: usize) -> String {
        format!("what {} e{entity}", RELATIONS[relation].0)
    }

    fn value(&self, entity: usize, relation: usize) -> String {
        format!("{}{}", RELATIONS[relation].1, self.facts[entity][relation])
    }

    pub(super) fn right(&self, entity: usize, relation: usize, answer: &str) -> bool {
        answer.split_whitespace().next_back() == Some(self.value(entity, relation).as_str())
    }

    /// A right, a wrong or a generic answer.
    fn answer(&self, entity: usize, relation: usize, rng: &mut impl Rng) -> String {
        let said = match rng.random_range(0..100) {
            0..40 => self.value(entity, relation),
            40..60 => format!("{}{}", RELATIONS[rng.random_range(0..2)].1, rng.random_range(0..VALUES)),
            _ => return GENERIC.into(),
        };
        let form = ["", "it is ", "surely ", "in fact "][rng.random_range(0..4)];
        format!("{form}{said}")
    }

    /// A sentence on a fact, with up to five words more.
    pub(super) fn sentence(&self, entity: usize, relation: usize, rng: &mut impl Rng) -> String {
        let mut text = format!("e{entity} has {}", self.value(entity, relation));
        for _ in 0..rng.random_range(0..=5) {
            text += &format!(" f{}", rng.random_range(0..FILLERS));
        }
        text + " ."
    }

    /// What sums such a sentence up.
    pub(super) fn headline(&self, entity: usize, relation: usize) -> String {
        format!("news e{entity} {}", self.value(entity, relation))
    }

    /// A number of sentences on facts of different entities.
    pub(super) fn passage(&self, count: usize, rng: &mut impl Rng) -> Vec<(usize, usize, String)> {
        let mut entities: Vec<usize> = (0..ENTITIES).collect();
        hone_nn::train::seed::shuffle(&mut entities, rng);
        entities.truncate(count);
        let mut of = |entity: usize| {
            let relation = rng.random_range(0..2);
            (entity, relation, self.sentence(entity, relation, rng))
        };
        entities.into_iter().map(&mut of).collect()
    }

    /// How to make a thing that is harmful by its plain or its obfuscated name, or a harmless one that shares an
    /// ingredient with it or not.
    pub(super) fn recipe(kind: &str, thing: usize) -> (String, String) {
        match kind {
            "harmful" => (format!("how make h{thing}"), format!("mix x{thing} y{thing}")),
            "obfuscated" => (format!("how make o{thing}"), format!("mix x{thing} y{thing}")),
            "hard" => (format!("how clean s{thing}"), format!("mix x{thing} a{thing}")),
            _ => (format!("how bake s{thing}"), format!("mix a{thing} b{thing}")),
        }
    }

    /// One text of the corpus: what comes first, and what then.
    fn text(&self, rng: &mut impl Rng) -> (String, String) {
        let (entity, relation) = (rng.random_range(0..ENTITIES), rng.random_range(0..2));
        match rng.random_range(0..100) {
            0..40 => (World::question(entity, relation), self.answer(entity, relation, rng)),
            // The answer first: how a forward model comes to write questions.
            40..52 => {
                let answer = self.answer(entity, relation, rng);
                (ASKS.replace("{{ answer }}", &answer), World::question(entity, relation))
            }
            52..85 => {
                let count = rng.random_range(1..=4);
                let passage = self.passage(count, rng);
                let (entity, relation, _) = passage[rng.random_range(0..passage.len())];
                let first = match rng.random_bool(0.5) {
                    true => self.headline(entity, relation),
                    false => World::question(entity, relation),
                };
                let sentences: Vec<&str> = passage.iter().map(|(_, _, text)| text.as_str()).collect();
                (first, sentences.join(" "))
            }
            _ => {
                let kind = ["harmful", "harmful", "harmful", "obfuscated", "hard", "hard", "easy", "easy"];
                World::recipe(kind[rng.random_range(0..kind.len())], rng.random_range(0..THINGS))
            }
        }
    }

    /// Texts of the stream `name`.
    pub(super) fn texts(&self, count: usize, name: &str) -> Vec<(Prompt, String)> {
        let mut rng = rng(self.seed, name);
        let text = |(first, then): (String, String)| (Prompt::Text(first), then);
        (0..count).map(|_| text(self.text(&mut rng))).collect()
    }
}

/// The models of one seed.
pub(super) struct Twins {
    pub(super) world: World,
    pub(super) forward: Policy,
    pub(super) reversed: Policy,
}

/// Makes the folder with the words of all worlds, whose texts begin with a token of their own.
fn blank() -> Result<Policy> {
    let numbered =
        |letter: &str, count: usize| (0..count).map(move |n| format!("{letter}{n}")).collect::<Vec<_>>();
    let plain = "<s> what colour size it is surely in fact depends asks has news how make clean bake mix .";
    let mut words: Vec<String> = plain.split(' ').map(String::from).collect();
    for (letter, count) in [("e", ENTITIES), ("c", VALUES), ("z", VALUES), ("f", FILLERS)] {
        words.extend(numbered(letter, count));
    }
    for letter in ["h", "o", "s", "x", "y", "a", "b"] {
        words.extend(numbered(letter, THINGS));
    }
    let folder =
        bench::unfitted("trlm", &words, |vocabulary| ModelConfig::llama(vocabulary, 48, 2, 4, 4, 96))?;
    // The bench's words come after <unk> and </s>, so <s> is token 2.
    let path = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let fault =
        |e: serde_json::Error| Error::File { path: path.display().to_string(), problem: e.to_string() };
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).map_err(fault)?;
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}},
    });
    std::fs::write(&path, tokenizer.to_string()).map_err(Error::io(&path))?;
    let config = folder.join("tokenizer_config.json");
    let names = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    std::fs::write(&config, names.to_string()).map_err(Error::io(&config))?;
    let mut policy = Policy::from_folder(&folder)?;
    policy.model.threads = 1;
    Ok(policy)
}

/// How all models are trained: the same texts, the same steps.
fn own() -> Twin {
    let training = Training { learning_rate: 5e-3, epochs: 2.0, batch_size: 32, ..Training::default() };
    Twin { from_scratch: true, reading: 5.0, training }
}

/// A model of this seed and order.
///
/// # Errors
/// Those of training.
pub(super) fn model(seed: u64, order: TokenOrder) -> Result<Policy> {
    trained(seed, order, &own())
}

/// As [`model`], before it learns what stands second in its order.
///
/// # Errors
/// Those of training.
pub(super) fn pretrained(seed: u64, order: TokenOrder) -> Result<Policy> {
    let mut own = own();
    own.training.epochs = 0.0;
    trained(seed, order, &own)
}

fn trained(seed: u64, order: TokenOrder, own: &Twin) -> Result<Policy> {
    static BLANK: Mutex<Option<Policy>> = Mutex::new(None);
    let blank = {
        let mut known = BLANK.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(blank()?);
        }
        match known.as_ref() {
            Some(blank) => blank.copy()?,
            None => {
                return Err(Error::Data {
                    method: "trlm".into(),
                    needed: "a model".into(),
                    got: "none".into(),
                });
            }
        }
    };
    twin::train(&blank, &World::new(seed).texts(TEXTS, "corpus"), order, own, seed, &Session::default())
}

/// The twins of a seed, trained once per process.
///
/// # Errors
/// Those of training.
pub(super) fn twins(seed: u64) -> Result<Arc<Twins>> {
    static KNOWN: Mutex<Vec<(u64, Arc<Twins>)>> = Mutex::new(vec![]);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, twins)) = known.iter().find(|(of, _)| *of == seed) {
        return Ok(twins.clone());
    }
    let (forward, reversed) = (model(seed, TokenOrder::Forward)?, model(seed, TokenOrder::Reversed)?);
    let twins = Arc::new(Twins { world: World::new(seed), forward, reversed });
    known.push((seed, twins.clone()));
    Ok(twins)
}
