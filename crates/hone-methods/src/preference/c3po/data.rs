//! From sets of prompts to what is trained on: the policy's own answers, and its own revisions of those in scope.

use hone_feedback::Prompt;
use hone_feedback::convert::Losses;
use hone_lm::LanguageModel;
use hone_lm::model::{FinishReason, Sample};
use hone_nn::train::seed::{rng, shuffle, sub_seed};

use super::prompts::{Asked, Sets, Statement};
use super::{C3po, ID};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::policy::{Policy, lm_prompt};
use crate::refine::{Draw, sample};
use crate::templates::{after, ask_texts};

/// A prompt in scope, the policy's answer, and its revision by the same policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// What is asked.
    pub prompt: Prompt,
    /// The revision.
    pub chosen: String,
    /// The answer.
    pub rejected: String,
}

/// What one rule is trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// In scope.
    pub pairs: Vec<Pair>,
    /// Near scope, with the policy's answers.
    pub near: Vec<(Prompt, String)>,
    /// Out of scope, with the policy's answers.
    pub outside: Vec<(Prompt, String)>,
    /// What could not be used, by reason.
    pub losses: Losses,
}

/// Answers of `model` to all prompts of the sets, and its revisions of those in scope. Nothing is filtered by quality.
///
/// # Errors
/// Those of the model and the templates.
pub fn complete(
    model: &dyn LanguageModel,
    statement: &Statement,
    sets: &Sets,
    own: &C3po,
    seed: u64,
) -> Result<Data> {
    let mut data = Data::default();
    let mut of_set = |set: &[Asked], name: &str| -> Result<Vec<(Prompt, String)>> {
        let prompts: Vec<Prompt> = set.iter().map(|one| one.prompt.clone()).collect();
        let said = answered(model, &prompts, &own.draw, sub_seed(seed, name))?;
        let mut kept = vec![];
        for (prompt, samples) in prompts.into_iter().zip(said) {
            match ended(samples, "") {
                Some(answer) => kept.push((prompt, answer)),
                None => data.losses.add("prompts without an answer that ended"),
            }
        }
        Ok(kept)
    };
    let inside = of_set(&sets.inside, "inside")?;
    data.near = of_set(&sets.near, "near")?;
    data.outside = of_set(&sets.outside, "outside")?;
    let revised = revised(model, statement, &inside, own, seed)?;
    for ((prompt, rejected), samples) in inside.iter().zip(revised) {
        match ended(samples, &own.answer_after) {
            Some(chosen) => {
                data.pairs.push(Pair { prompt: prompt.clone(), chosen, rejected: rejected.clone() });
            }
            None => data.losses.add("answers without a revision that ended"),
        }
    }
    Ok(data)
}

/// One answer per prompt, `[prompts][1]`; an empty list where nothing can be asked.
///
/// # Errors
/// Those of the model.
pub(super) fn answered(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    draw: &Draw,
    seed: u64,
) -> Result<Vec<Vec<Sample>>> {
    let chats = model.capabilities().chat;
    let asked: Result<Vec<_>> = prompts.iter().map(|prompt| lm_prompt(prompt, chats)).collect();
    sample(model, &asked?, 1, draw, seed)
}

/// The policy's revisions of its own answers, having been told what is to change, `[answers][1]`.
///
/// # Errors
/// Those of the model and the templates.
pub(super) fn revised(
    model: &dyn LanguageModel,
    statement: &Statement,
    answered: &[(Prompt, String)],
    own: &C3po,
    seed: u64,
) -> Result<Vec<Vec<Sample>>> {
    let templates = own.templates()?;
    let text = |(prompt, answer): &(Prompt, String)| {
        let context = minijinja::context! { prompt => prompt.text(), answer, ..statement.context() };
        templates.render("revise", context)
    };
    let asked: Result<Vec<String>> = answered.iter().map(text).collect();
    ask_texts(model, asked?, 1, &own.draw, sub_seed(seed, "revise"))
}

/// The first sample's text after the marker, if it ended by itself: one cut short would be taught as whole.
fn ended(samples: Vec<Sample>, marker: &str) -> Option<String> {
    let sample = samples.into_iter().next().filter(|sample| sample.finish != FinishReason::Length)?;
    after(&sample.text, marker).map(String::from)
}

/// Examples of `[chosen, rejected, near?, outside?]`, one of each set in every one, so that every step sees all sets; sets
/// of weight 0 are left out, and what the longer sets have more than the shortest.
///
/// # Errors
/// [`Error::Data`] if a set that is needed is empty; those of encoding.
pub(super) fn examples(policy: &Policy, data: &Data, own: &C3po, seed: u64) -> Result<Examples> {
    let limit = own.training.tokens_for(&policy.model);
    let mut out = Examples { losses: data.losses.clone(), ..Examples::default() };
    let mut encode = |prompt: &Prompt, texts: &[&str]| -> Result<Option<Vec<_>>> {
        let sequences: Result<Option<Vec<_>>> =
            texts.iter().map(|text| policy.encode(prompt, text, limit)).collect();
        let sequences = sequences?;
        if sequences.is_none() {
            out.losses.add("responses longer than the model or the settings allow");
        }
        Ok(sequences)
    };
    let mut sets = vec![];
    let mut pairs = vec![];
    for pair in &data.pairs {
        pairs.extend(encode(&pair.prompt, &[&pair.chosen, &pair.rejected])?);
    }
    sets.push(("in scope", pairs));
    let kept = [("near scope", own.near_weight, &data.near), ("out of scope", own.out_weight, &data.outside)];
    for (name, _, set) in kept.into_iter().filter(|(_, weight, _)| *weight > 0.0) {
        let mut answers = vec![];
        for (prompt, answer) in set {
            answers.extend(encode(prompt, &[answer])?);
        }
        sets.push((name, answers));
    }
    let count = sets.iter().map(|(_, set)| set.len()).min().unwrap_or_default();
    if let (0, Some((name, _))) = (count, sets.iter().find(|(_, set)| set.is_empty())) {
        let got = format!("none {name}");
        return Err(Error::Data { method: ID.into(), needed: "answered prompts of every set".into(), got });
    }
    for (name, set) in &mut sets {
        shuffle(set, &mut rng(seed, name));
        out.losses.add_many("prompts beyond the shortest set", (set.len() - count) as u64);
        set.truncate(count);
    }
    let mut sets: Vec<_> = sets.into_iter().map(|(_, set)| set.into_iter()).collect();
    for record in 0..count {
        let sequences = sets.iter_mut().flat_map(Iterator::next).flatten().collect();
        out.items.push(Example { record, sequences, labels: vec![], marks: vec![] });
    }
    Ok(out)
}
