//! Feedback turned into text that a sequence begins or goes on with: words before an answer, chains of answers with
//! words before each, and control tokens that are added to a vocabulary.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hone_feedback::text::hash;
use hone_feedback::{Content, Message, Prompt};
use hone_lm::template::{MaskScope, check_stop_in_mask};
use hone_lm::{RenderOptions, Tokenizer};
use hone_nn::Model;
use hone_nn::params::{Layout, Params, fill_normal};
use hone_nn::train::seed::rng;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::policy::{Policy, Sequence, chat, text};

/// An answer and the words before it, which say what kind of answer follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The condition.
    pub words: String,
    /// What was answered under it.
    pub answer: String,
}

impl Turn {
    /// A turn.
    pub fn new(words: impl Into<String>, answer: impl Into<String>) -> Turn {
        Turn { words: words.into(), answer: answer.into() }
    }
}

/// A prompt that asks for an answer under a condition: the words stand after it on a line of their own, in the last
/// message of the user where there are messages.
pub fn conditioned(prompt: &Prompt, words: &str) -> Prompt {
    match prompt {
        Prompt::Text(text) => Prompt::Text(format!("{text}\n{words}\n")),
        Prompt::Messages(messages) => {
            let mut messages = messages.clone();
            match messages.last_mut().filter(|last| last.role == "user") {
                Some(last) => append(last, words),
                None => messages.push(Message::new("user", words)),
            }
            Prompt::Messages(messages)
        }
    }
}

fn append(message: &mut Message, words: &str) {
    match &mut message.content {
        // Images and other parts stay as they are.
        Some(Content::Parts(parts)) => parts.push(json!({"type": "text", "text": format!("\n{words}")})),
        other => {
            let whole = format!("{}\n{words}", other.as_ref().map(Content::text).unwrap_or_default());
            *other = Some(whole.into());
        }
    }
}

/// A prompt and answers to it in turn, each under its own words, as one sequence: `x, f₁, y₁, f₂, y₂, …`. The prompt
/// stands once, a stop token after every answer; in a chat, the words of later turns are messages of the user. The mask
/// is on answers and their stop tokens.
///
/// # Errors
/// Those of the template and the tokenizer; `Ok(None)` if the chain is longer than `max_tokens`: cutting its start
/// would part answers from the words that they follow.
pub fn chain(
    policy: &Policy,
    prompt: &Prompt,
    turns: &[Turn],
    max_tokens: usize,
) -> Result<Option<Sequence>> {
    let Some((first, later)) = turns.split_first() else { return Ok(None) };
    let (tokens, mask) = match (&policy.template, prompt) {
        (Some(template), Prompt::Messages(_)) => {
            let mut messages = chat(&conditioned(prompt, &first.words))?;
            let own = messages.len();
            messages.push(hone_lm::Message::new("assistant", first.answer.as_str()));
            for turn in later {
                messages.push(hone_lm::Message::new("user", turn.words.as_str()));
                messages.push(hone_lm::Message::new("assistant", turn.answer.as_str()));
            }
            let options = RenderOptions::default();
            let masked = template.mask_by_prefix(&messages, &options, MaskScope::All, &policy.tokenizer)?;
            // Answers that the prompt itself holds are not this chain's.
            let opening = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
            let before = template.render(&messages[..own], &opening)?;
            let before = policy.tokenizer.encode(&before, false)?.len();
            let mask = masked.mask.iter().enumerate().map(|(at, &scored)| scored && at >= before).collect();
            (masked.ids, mask)
        }
        _ => {
            let mut tokens = policy.tokenizer.encode(&text(&conditioned(prompt, &first.words)), true)?;
            let mut mask = vec![false; tokens.len()];
            for (index, turn) in turns.iter().enumerate() {
                if index > 0 {
                    let words = policy.tokenizer.encode(&format!("{}\n", turn.words), false)?;
                    mask.resize(mask.len() + words.len(), false);
                    tokens.extend(words);
                }
                let mut answer = policy.tokenizer.encode(&turn.answer, false)?;
                answer.extend(policy.tokenizer.stop_tokens().first());
                mask.resize(mask.len() + answer.len(), true);
                tokens.extend(answer);
            }
            (tokens, mask)
        }
    };
    check_stop_in_mask(&tokens, &mask, policy.tokenizer.stop_tokens(), &policy.tokenizer)?;
    Ok((tokens.len() <= max_tokens).then_some(Sequence { tokens, mask, cut: 0 }))
}

/// The tokens that a next answer of a chain goes on from: the prompt, the turns so far, and `words`.
///
/// # Errors
/// As [`chain`].
pub fn opening(policy: &Policy, prompt: &Prompt, turns: &[Turn], words: &str) -> Result<Vec<u32>> {
    let Some((first, later)) = turns.split_first() else {
        let prompt = crate::policy::lm_prompt(&conditioned(prompt, words), policy.template.is_some())?;
        return Ok(policy.speaker()?.prompt_tokens(0, &prompt)?);
    };
    match (&policy.template, prompt) {
        (Some(template), Prompt::Messages(_)) => {
            let mut messages = chat(&conditioned(prompt, &first.words))?;
            messages.push(hone_lm::Message::new("assistant", first.answer.as_str()));
            for turn in later {
                messages.push(hone_lm::Message::new("user", turn.words.as_str()));
                messages.push(hone_lm::Message::new("assistant", turn.answer.as_str()));
            }
            messages.push(hone_lm::Message::new("user", words));
            let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
            Ok(policy.tokenizer.encode(&template.render(&messages, &options)?, false)?)
        }
        _ => {
            let sequence = chain(policy, prompt, turns, usize::MAX)?;
            let mut tokens = sequence.map(|sequence| sequence.tokens).unwrap_or_default();
            tokens.extend(policy.tokenizer.encode(&format!("{words}\n"), false)?);
            Ok(tokens)
        }
    }
}

/// A policy with these tokens added to its vocabulary, whose rows are drawn from N(0, `initializer_range`); those that
/// it has are left alone. `special` tokens are left out of decoded text and found anywhere; others only as whole words.
/// An adapter is kept, but does not train the new rows.
///
/// The tokenizer's new files lie in a folder named after what they hold, from which [`Policy::save`] copies them.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] for the files; those of the engine.
pub fn with_tokens(policy: Policy, tokens: &[&str], special: bool, seed: u64) -> Result<Policy> {
    let new: Vec<&str> =
        tokens.iter().copied().filter(|token| policy.tokenizer.id(token).is_none()).collect();
    if new.is_empty() {
        return Ok(policy);
    }
    let folder = files_with_tokens(&policy.folder, &new, special)?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let needed = tokens.iter().filter_map(|token| tokenizer.id(token)).max().map_or(0, |id| id as usize + 1);
    let model = match needed > policy.model.config().vocab_size {
        true => with_rows(&policy.model, needed, seed)?,
        // Spare rows of a padded vocabulary are taken first.
        false => policy.model,
    };
    Ok(Policy { model, tokenizer, template: policy.template, folder, silent: policy.silent })
}

/// A model with a longer vocabulary.
fn with_rows(model: &Model, vocab_size: usize, seed: u64) -> Result<Model> {
    let mut config = (**model.config()).clone();
    config.vocab_size = vocab_size;
    let (layout, _) = Layout::decoder(&config);
    let mut params = Params::zeros(Arc::new(layout));
    for entry in params.layout().clone().entries() {
        let old = model.params.tensor(&entry.name)?;
        let (kept, fresh) = params.data[entry.range()].split_at_mut(old.len());
        kept.copy_from_slice(old);
        fill_normal(fresh, config.initializer_range, &mut rng(seed, &entry.name));
    }
    let mut grown = Model::new(config, params)?;
    grown.threads = model.threads;
    if let Some(adapter) = &model.adapter {
        grown.attach(adapter.clone());
    }
    Ok(grown)
}

/// The text side of a model folder with added tokens, in a folder of its own.
fn files_with_tokens(from: &Path, tokens: &[&str], special: bool) -> Result<PathBuf> {
    let path = from.join("tokenizer.json");
    let fault = |problem: String| Error::File { path: path.display().to_string(), problem };
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let mut whole: Value = serde_json::from_slice(&bytes).map_err(|e| fault(e.to_string()))?;
    let ids = |value: &Value| value.as_u64().unwrap_or(0);
    let known = whole["model"]["vocab"].as_object().into_iter().flat_map(|vocab| vocab.values()).map(ids);
    let added = whole["added_tokens"].as_array();
    let added = added.into_iter().flatten().map(|token| ids(&token["id"]));
    let first = known.chain(added).max().map_or(0, |last| last + 1);
    let list = whole["added_tokens"].as_array_mut();
    let list = list.ok_or_else(|| fault("needs a list `added_tokens`, got none".into()))?;
    list.extend(tokens.iter().zip(first..).map(|(token, id)| {
        json!({"id": id, "content": token, "special": special, "single_word": !special, "lstrip": false,
               "rstrip": false, "normalized": false})
    }));
    let text = whole.to_string();
    let name = format!("hone-tokens-{:016x}", hash(format!("{}\n{text}", from.display()).as_bytes()));
    let folder = std::env::temp_dir().join(name);
    if folder.exists() {
        return Ok(folder);
    }
    // Several threads may write at once; the first to finish names the folder.
    let thread = std::thread::current().id();
    let partial = folder.with_extension(format!("{}-{thread:?}", std::process::id()));
    std::fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
    let text_side = |name: &str| {
        !name.ends_with(".safetensors") && !name.ends_with(".index.json") && name != "config.json"
    };
    for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
        let entry = entry.map_err(Error::io(from))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && text_side(&name) {
            std::fs::copy(entry.path(), partial.join(&name)).map_err(Error::io(&entry.path()))?;
        }
    }
    let path = partial.join("tokenizer.json");
    std::fs::write(&path, &text).map_err(Error::io(&path))?;
    if let Err(error) = std::fs::rename(&partial, &folder) {
        // What is left of a race is no use to anyone.
        let _ = std::fs::remove_dir_all(&partial);
        if !folder.exists() {
            return Err(Error::io(&folder)(error));
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    fn policy() -> Policy {
        let policy = Bench::new(1).unwrap().policy().unwrap();
        with_tokens(policy, &["good", "bad"], false, 7).unwrap()
    }

    #[test]
    fn new_tokens_have_rows_and_old_ones_keep_theirs() {
        let old = Bench::new(1).unwrap().policy().unwrap();
        let new = policy();
        // 32 words and 3 others, then the two.
        assert_eq!(new.tokenizer.encode("say good w1 bad", false).unwrap(), [2, 35, 4, 36]);
        assert_eq!(new.model.config().vocab_size, 37);
        let name = "model.embed_tokens.weight";
        let (before, after) =
            (old.model.params.tensor(name).unwrap(), new.model.params.tensor(name).unwrap());
        assert_eq!(&after[..before.len()], before);
        assert!(after[before.len()..].iter().all(|value| *value != 0.0 && value.abs() < 0.2));
        // Known tokens are not added again.
        assert_eq!(with_tokens(new, &["bad"], false, 8).unwrap().model.config().vocab_size, 37);
    }

    #[test]
    fn a_grown_policy_is_saved_with_its_tokens() {
        let policy = policy();
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        policy.save(&place).unwrap();
        let read = Policy::from_folder(&place).unwrap();
        assert_eq!(read.tokenizer.id("bad"), Some(36));
        assert_eq!(read.model.params.data, policy.model.params.data);
    }

    #[test]
    fn only_answers_of_a_chain_are_scored() {
        let policy = policy();
        let turns = [Turn::new("bad", "w1 w2"), Turn::new("good", "w3")];
        let prompt = Prompt::Text("say w0".into());
        let sequence = chain(&policy, &prompt, &turns, 64).unwrap().unwrap();
        // say w0 bad | w1 w2 </s> | good | w3 </s>
        assert_eq!(sequence.tokens, [2, 3, 36, 4, 5, 1, 35, 6, 1]);
        let scored: Vec<usize> = (0..9).filter(|&at| sequence.mask[at]).collect();
        assert_eq!(scored, [3, 4, 5, 7, 8]);
        assert_eq!(chain(&policy, &prompt, &turns, 8).unwrap(), None);
        assert_eq!(opening(&policy, &prompt, &turns[..1], "good").unwrap(), sequence.tokens[..7]);
        assert_eq!(opening(&policy, &prompt, &[], "bad").unwrap(), sequence.tokens[..3]);
    }

    #[test]
    fn words_of_later_turns_are_the_users_in_a_chat() {
        let source = "{% for m in messages %}{{ m.role }} {{ m.content }}\
                      {% if m.role == 'assistant' %} </s>{% endif %} {% endfor %}\
                      {% if add_generation_prompt %}assistant {% endif %}";
        let base = Bench::new(1).unwrap().policy().unwrap();
        let base = with_tokens(base, &["good", "bad", "user", "assistant"], false, 7).unwrap();
        let template = Some(hone_lm::ChatTemplate::from_source(source, &[]).unwrap());
        let policy = Policy { template, ..base };
        // An answer that the prompt holds already is no target.
        let messages = [("user", "w9"), ("assistant", "w8"), ("user", "w0")];
        let prompt = Prompt::Messages(messages.map(|(role, text)| Message::new(role, text)).to_vec());
        let turns = [Turn::new("bad", "w1 w2"), Turn::new("good", "w3")];
        let sequence = chain(&policy, &prompt, &turns, 64).unwrap().unwrap();
        let text = policy.tokenizer.decode(&sequence.tokens, false).unwrap();
        let expected =
            "user w9 assistant w8 </s> user w0 bad assistant w1 w2 </s> user good assistant w3 </s>";
        assert_eq!(text, expected);
        let scored: Vec<u32> = (0..sequence.tokens.len())
            .filter(|&at| sequence.mask[at])
            .map(|at| sequence.tokens[at])
            .collect();
        assert_eq!(policy.tokenizer.decode(&scored, false).unwrap(), "w1 w2 </s> w3 </s>");
        let open = opening(&policy, &prompt, &turns[..1], "good").unwrap();
        assert_eq!(open, sequence.tokens[..open.len()]);
        assert_eq!(open.len(), sequence.tokens.len() - 2);
    }
}
