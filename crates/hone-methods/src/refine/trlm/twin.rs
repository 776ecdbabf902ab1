//! A twin of a model that is trained on turned text: no label and no preference takes part.

use hone_feedback::Prompt;
use hone_nn::Model;
use serde::{Deserialize, Serialize};

use super::reader::turned;
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::Job;
use crate::order::TokenOrder;
use crate::policy::{Policy, Sequence, lm_prompt};
use crate::train::{Session, Training};

/// How a twin is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Twin {
    /// Begin with fresh weights, as the paper does; else with those of the policy, whose words it knows.
    pub from_scratch: bool,
    /// Passes over whole turned texts, as pretraining; at least 0.
    pub reading: f64,
    /// How the question of a turned text is then learnt, as instruction tuning.
    pub training: Training,
}

impl Default for Twin {
    fn default() -> Twin {
        let training = Training { learning_rate: 1e-3, epochs: 2.0, ..Training::default() };
        Twin { from_scratch: true, reading: 2.0, training }
    }
}

/// Tokens of a question with its answer in the order given, and which of them the second part writes.
fn sequence(
    local: &hone_lm::Local,
    prompt: &Prompt,
    answer: &str,
    reversed: bool,
) -> Result<Option<Sequence>> {
    let query = lm_prompt(prompt, local.template().is_some())?;
    if !reversed {
        let before = local.prompt_tokens(0, &query)?;
        let mut after = local.tokenizer().encode(answer, false)?;
        after.extend(local.tokenizer().stop_tokens().first());
        return Ok(Some(Sequence::of_tokens(&before, &after)));
    }
    Ok(turned(local, &query, answer)?.map(|(given, asked)| Sequence::of_tokens(&given, &asked)))
}

/// A model of `order` with the policy's text side, trained on questions with answers: first on all tokens, then on what
/// stands second in its order, the question where text is turned.
///
/// # Errors
/// [`Error::Data`] for no text; those of training.
pub fn train(
    policy: &Policy,
    texts: &[(Prompt, String)],
    order: TokenOrder,
    own: &Twin,
    seed: u64,
    session: &Session,
) -> Result<Policy> {
    let local = policy.speaker()?;
    let limit = own.training.tokens_for(&policy.model);
    let mut items = vec![];
    for (record, (prompt, answer)) in texts.iter().enumerate() {
        if let Some(sequence) = sequence(&local, prompt, answer, order.turns(record as u64))?
            && sequence.tokens.len() <= limit
            && sequence.targets() > 0
        {
            items.push(Example { record, sequences: vec![sequence], labels: vec![], marks: vec![] });
        }
    }
    if items.is_empty() {
        let needed = "questions with answers that fit the context";
        return Err(Error::Data { method: "trlm".into(), needed: needed.into(), got: "none".into() });
    }
    let mut twin = policy.copy()?;
    if own.from_scratch {
        let mut fresh = Model::random((**policy.model.config()).clone(), seed);
        fresh.threads = policy.model.threads;
        twin.model = fresh;
    }
    twin.model = order.mark(&twin.model)?;
    let whole = |example: &Example| {
        let mut example = example.clone();
        example.sequences.iter_mut().for_each(|sequence| sequence.mask.fill(true));
        example
    };
    let reading = Examples { items: items.iter().map(whole).collect(), ..Examples::default() };
    let asking = Examples { items, ..Examples::default() };
    let nothing = toml::Table::new();
    let stage = |policy: Policy, examples: &Examples, training: &Training, name: &str| {
        let session = session.stage(name);
        let job = Job { policy, records: &[], oracle: None, settings: &nothing, seed, session };
        sft::imitate("trlm", job, examples, training)?.policy()
    };
    if own.reading > 0.0 {
        twin = stage(twin, &reading, &Training { epochs: own.reading, ..own.training.clone() }, "reading")?;
    }
    if own.training.epochs > 0.0 {
        twin = stage(twin, &asking, &own.training, "asking")?;
    }
    Ok(twin)
}
