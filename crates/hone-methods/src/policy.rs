//! A model with the text side it was made with: what methods train, sample and save.

mod spans;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hone_feedback::{Content, Message, Prompt};
use hone_lm::template::{MaskScope, check_stop_in_mask};
use hone_lm::{ChatTemplate, Local, LocalOptions, RenderOptions, Tokenizer};
use hone_nn::config::Head;
use hone_nn::folder::{self, SaveOptions};
use hone_nn::params::{Layout, fill_normal};
use hone_nn::train::seed::rng;
use hone_nn::{Adapter, LoraConfig, Model, Params};

use crate::error::{Error, Result};

/// A model, its tokenizer, its chat template.
#[derive(Debug)]
pub struct Policy {
    /// The weights.
    pub model: Model,
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Conversations to text; without, prompts are raw text.
    pub template: Option<ChatTemplate>,
    /// Folder it was read from, whose tokenizer and licence go along when it is saved.
    pub folder: PathBuf,
    /// Gives no language model: a dry run looks at what is there without sampling.
    pub silent: bool,
}

/// A prompt and its response in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// `[T]`: the prompt, the response, the stop token.
    pub tokens: Vec<u32>,
    /// `[T]`: whether the policy is to have written the token: those of the response, with its stop token.
    pub mask: Vec<bool>,
    /// Tokens cut from the start of the prompt to keep within the length asked for.
    pub cut: usize,
}

impl Sequence {
    /// A response of known tokens after a prompt of known tokens: what was sampled is what is trained on.
    pub fn of_tokens(prompt: &[u32], response: &[u32]) -> Sequence {
        let mask = (0..prompt.len() + response.len()).map(|at| at >= prompt.len()).collect();
        Sequence { tokens: [prompt, response].concat(), mask, cut: 0 }
    }

    /// Tokens of the prompt, and those of the response.
    pub fn split(&self) -> (Vec<u32>, Vec<u32>) {
        let of = |wanted: bool| {
            let tokens = self.tokens.iter().zip(&self.mask);
            tokens.filter(|(_, written)| **written == wanted).map(|(&token, _)| token).collect()
        };
        (of(false), of(true))
    }

    /// Number of tokens the policy is to have written and that it can be scored on. The first of all tokens has none
    /// before it to be predicted from, so the engine never scores it.
    pub fn targets(&self) -> usize {
        self.mask.iter().skip(1).filter(|&&scored| scored).count()
    }
}

impl Policy {
    /// Reads a model folder.
    ///
    /// # Errors
    /// Those of reading weights, tokenizer and template, each naming its file.
    pub fn from_folder(folder: &Path) -> Result<Policy> {
        let tokenizer = Tokenizer::from_folder(folder)?;
        let template = ChatTemplate::from_folder(folder, &tokenizer)?;
        let mut model = folder::read(folder)?;
        model.threads = threads();
        tokenizer.check_fits(model.config().vocab_size)?;
        Ok(Policy { model, tokenizer, template, folder: folder.to_path_buf(), silent: false })
    }

    /// A second policy of the same weights; an adapter is copied too.
    ///
    /// # Errors
    /// None that a policy in use can meet.
    pub fn copy(&self) -> Result<Policy> {
        self.with_weights_of(&self.model)
    }

    /// A policy of other weights with this one's text side; an adapter is copied too.
    ///
    /// # Errors
    /// None that a model in use can meet.
    pub fn with_weights_of(&self, model: &Model) -> Result<Policy> {
        let model = copy_of(model)?;
        let (tokenizer, template) = (self.tokenizer.clone(), self.template.clone());
        Ok(Policy { model, tokenizer, template, folder: self.folder.clone(), silent: self.silent })
    }

    /// The same policy with a LoRA adapter to train instead of all weights.
    ///
    /// # Errors
    /// As [`Adapter::new`].
    pub fn with_lora(mut self, mut config: LoraConfig, seed: u64) -> Result<Policy> {
        config.base_model.get_or_insert_with(|| self.folder.display().to_string());
        let adapter = Adapter::new(config, self.model.config(), seed)?;
        self.model.attach(adapter);
        Ok(self)
    }

    /// A model of the same decoder with another head, drawn from N(0, `initializer_range`) where it is new. An adapter
    /// is merged first.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn model_with_head(&self, head: Head, seed: u64) -> Result<Model> {
        let mut config = (**self.model.config()).clone();
        config.head = head;
        let merged = self.model.adapter.as_ref().map(|_| folder::merge(&self.model));
        let old = merged.as_ref().unwrap_or(&self.model.params);
        let (layout, _) = Layout::decoder(&config);
        let mut params = Params::zeros(Arc::new(layout));
        for entry in params.layout().clone().entries() {
            let target = &mut params.data[entry.range()];
            match old.layout().get(&entry.name) {
                Some(_) => target.copy_from_slice(old.tensor(&entry.name)?),
                None if entry.is_matrix() => {
                    fill_normal(target, config.initializer_range, &mut rng(seed, &entry.name));
                }
                // A new bias starts at 0.
                None => {}
            }
        }
        let mut model = Model::new(config, params)?;
        model.threads = self.model.threads;
        Ok(model)
    }

    /// The weights as they are now as a language model that answers and scores.
    ///
    /// # Errors
    /// As [`Local::new`].
    pub fn speaker(&self) -> Result<Local> {
        self.speaker_of(&self.model)
    }

    /// Other weights with this policy's text side as a language model.
    ///
    /// # Errors
    /// As [`Local::new`]; [`Error::Previewed`] of a silent policy.
    pub fn speaker_of(&self, model: &Model) -> Result<Local> {
        if self.silent {
            return Err(Error::Previewed);
        }
        let (model, tokenizer, template) = (copy_of(model)?, self.tokenizer.clone(), self.template.clone());
        let name = self.folder.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
        let options = LocalOptions { threads: model.threads, ..LocalOptions::default() };
        Ok(Local::new(&name, model, tokenizer, template, &options)?)
    }

    /// A prompt and a response in tokens. Where both together are longer than `max_tokens` the prompt is cut from its
    /// start, as far as one token; a response is never cut.
    ///
    /// # Errors
    /// Those of the template; a response whose stop token is not in the mask; `Ok(None)` if the response alone is too
    /// long.
    pub fn encode(&self, prompt: &Prompt, response: &str, max_tokens: usize) -> Result<Option<Sequence>> {
        let (ids, mask) = match (&self.template, prompt) {
            (Some(template), Prompt::Messages(_)) => {
                let mut messages = chat(prompt)?;
                messages.push(hone_lm::Message::new("assistant", response));
                let options = RenderOptions::default();
                let scope = MaskScope::Last;
                let masked = template.mask_by_prefix(&messages, &options, scope, &self.tokenizer)?;
                (masked.ids, masked.mask)
            }
            _ => {
                let before = self.tokenizer.encode(&text(prompt), true)?;
                let mut after = self.tokenizer.encode(response, false)?;
                after.extend(self.tokenizer.stop_tokens().first());
                let whole = Sequence::of_tokens(&before, &after);
                (whole.tokens, whole.mask)
            }
        };
        check_stop_in_mask(&ids, &mask, self.tokenizer.stop_tokens(), &self.tokenizer)?;
        let cut = ids.len().saturating_sub(max_tokens);
        let first = mask.iter().position(|&scored| scored).unwrap_or(0);
        // The first target needs a token before it to be predicted from.
        if cut >= first.max(1) {
            return Ok(None);
        }
        Ok(Some(Sequence { tokens: ids[cut..].to_vec(), mask: mask[cut..].to_vec(), cut }))
    }

    /// Where each response token's text lies in the response, in Unicode scalar values; `None` for tokens that are not
    /// its text, such as the stop token. All tokens of one character have its place.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn response_spans(&self, sequence: &Sequence, response: &str) -> Result<Vec<Option<(usize, usize)>>> {
        let mut spans = vec![None; sequence.tokens.len()];
        let places: Vec<usize> = (0..spans.len()).filter(|&at| sequence.mask[at]).collect();
        let tokens: Vec<u32> = places.iter().map(|&at| sequence.tokens[at]).collect();
        for (at, span) in places.into_iter().zip(spans::of_tokens(&self.tokenizer, &tokens, response)?) {
            spans[at] = span;
        }
        Ok(spans)
    }

    /// Writes the policy as a Hugging Face folder; an adapter as a PEFT folder.
    ///
    /// # Errors
    /// As [`folder::write`] and [`folder::write_adapter`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        match &self.model.adapter {
            Some(adapter) => folder::write_adapter(adapter, self.model.config(), folder)?,
            None => self.save_model(&self.model, folder)?,
        }
        Ok(())
    }

    /// Writes a model that shares this policy's text side.
    ///
    /// # Errors
    /// As [`folder::write`].
    pub fn save_model(&self, model: &Model, folder: &Path) -> Result<()> {
        let companions = Some(self.folder.clone());
        let options = SaveOptions { companions, ..SaveOptions::default() };
        Ok(folder::write(model.config(), &model.params, folder, &options)?)
    }
}

/// A second model of the same weights; an adapter is copied too.
pub(crate) fn copy_of(model: &Model) -> Result<Model> {
    let mut copy = Model::new((**model.config()).clone(), model.params.clone())?;
    copy.threads = model.threads;
    if let Some(adapter) = &model.adapter {
        copy.attach(adapter.clone());
    }
    Ok(copy)
}

/// Why one prompt or record cannot be used though others can, in a few words that serve as a reason to count by. `None`
/// for an error that is not the fault of one record.
pub fn refusal(error: &hone_lm::Error) -> Option<String> {
    use hone_lm::Error;
    Some(match error {
        Error::TemplateRefused { message, .. } => {
            format!("the template refuses the messages: {}", short(message))
        }
        Error::Template { message, .. } => format!("the template fails on the messages: {}", short(message)),
        Error::NotIncremental { .. } => "the template changes the prompt once the answer follows".into(),
        Error::StopOutsideMask { .. } => "no stop token ends the answer".into(),
        Error::EmptyMask { .. } => "the template leaves nothing of the answer".into(),
        Error::Message { needed, .. } => format!("a message needs {needed}"),
        Error::Empty { what, .. } => format!("an empty {what}"),
        Error::Tokenize(message) => format!("the tokenizer refuses the text: {}", short(message)),
        _ => return None,
    })
}

/// The start of the first line of what somebody else wrote.
fn short(words: &str) -> String {
    let line = words.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into(),
    }
}

/// A prompt as the language model takes it.
///
/// # Errors
/// A message without a role.
pub fn lm_prompt(prompt: &Prompt, chats: bool) -> Result<hone_lm::model::Prompt> {
    Ok(match prompt {
        Prompt::Messages(_) if chats => hone_lm::model::Prompt::chat(chat(prompt)?),
        _ => hone_lm::model::Prompt::Text(text(prompt)),
    })
}

/// The text of a prompt for a model without a chat template: raw text, or the turns one below the other.
pub fn text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => match messages.as_slice() {
            [only] => format!("{}\n", only.text()),
            many => {
                many.iter().map(|m| format!("{}: {}\n\n", m.role, m.text())).collect::<String>()
                    + "assistant: "
            }
        },
    }
}

pub(crate) fn chat(prompt: &Prompt) -> Result<Vec<hone_lm::Message>> {
    let messages: Vec<Message> = match prompt {
        Prompt::Text(text) => vec![Message::new("user", text.clone())],
        Prompt::Messages(messages) => messages.clone(),
    };
    let as_fields = |message: &Message| {
        let mut fields = message.extra.clone();
        fields.insert("role".into(), message.role.clone().into());
        if let Some(content) = &message.content {
            let value = match content {
                Content::Parts(parts) => serde_json::Value::Array(parts.clone()),
                other => other.text().into_owned().into(),
            };
            fields.insert("content".into(), value);
        }
        hone_lm::Message::from_fields(fields).map_err(|needed| crate::Error::File {
            path: "prompt".into(),
            problem: format!("a message needs {needed}"),
        })
    };
    messages.iter().map(as_fields).collect()
}

/// Threads that work on a model unless told otherwise.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_is_no_target() {
        // An answer to nothing under a tokenizer without a start token: the engine scores tokens 1 and 2.
        let sequence = Sequence::of_tokens(&[], &[7, 8, 1]);
        let mut batch = hone_nn::Batch::new();
        batch.push_masked(&sequence.tokens, &sequence.mask).unwrap();
        assert_eq!((sequence.targets(), batch.targets().len()), (2, 2));
        assert_eq!(Sequence::of_tokens(&[5], &[7, 8, 1]).targets(), 3);
    }

    #[test]
    fn a_template_that_trims_moves_no_span() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hone-lm/tests");
        let tokenizer = Tokenizer::from_folder(root.join("tokenizers/byte_level")).unwrap();
        let source = std::fs::read_to_string(root.join("templates/chatml.jinja")).unwrap();
        let template = Some(ChatTemplate::from_source(&source, &[]).unwrap());
        let bench = crate::bench::Bench::new(1).unwrap();
        let policy = Policy { tokenizer, template, ..bench.policy().unwrap() };
        let prompt = Prompt::Messages(vec![Message::new("user", "hi")]);
        let response = "\n  é🙂 ok";
        let sequence = policy.encode(&prompt, response, 1000).unwrap().unwrap();
        let spans = policy.response_spans(&sequence, response).unwrap();
        let known: Vec<(usize, usize)> = spans.iter().flatten().copied().collect();
        // é is scalar 3, 🙂 4, the space 5, `ok` 6 and 7; the template drops the three before them.
        assert_eq!(known.first(), Some(&(3, 4)));
        assert_eq!(known.last().map(|span| span.1), Some(8));
        assert!(known.iter().filter(|span| **span == (4, 5)).count() > 1, "{known:?}");
        assert!(known.iter().all(|span| span.1 <= 5 || span.0 >= 5), "{known:?}");
        // The stop token is not text of the answer.
        let stop = sequence.mask.iter().rposition(|&scored| scored).unwrap();
        assert_eq!((sequence.tokens[stop], spans[stop]), (policy.tokenizer.stop_tokens()[0], None));
    }
}
