//! A model with the text side it was made with: what methods train, sample and save.

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

use crate::error::Result;

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

    /// Number of tokens the policy is to have written.
    pub fn targets(&self) -> usize {
        self.mask.iter().filter(|&&scored| scored).count()
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
        Ok(Policy { model, tokenizer, template, folder: folder.to_path_buf() })
    }

    /// A second policy of the same weights; an adapter is copied too.
    ///
    /// # Errors
    /// None that a policy in use can meet.
    pub fn copy(&self) -> Result<Policy> {
        let mut model = Model::new((**self.model.config()).clone(), self.model.params.clone())?;
        model.threads = self.model.threads;
        if let Some(adapter) = &self.model.adapter {
            model.attach(adapter.clone());
        }
        let (tokenizer, template) = (self.tokenizer.clone(), self.template.clone());
        Ok(Policy { model, tokenizer, template, folder: self.folder.clone() })
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
        let copy = self.copy()?;
        let name = self.folder.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
        let options = LocalOptions { threads: self.model.threads, ..LocalOptions::default() };
        Ok(Local::new(&name, copy.model, copy.tokenizer, copy.template, &options)?)
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
    /// its text, such as the stop token.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn response_spans(&self, sequence: &Sequence, response: &str) -> Result<Vec<Option<(usize, usize)>>> {
        let mut spans = vec![None; sequence.tokens.len()];
        let places: Vec<usize> = (0..spans.len()).filter(|&at| sequence.mask[at]).collect();
        let mut done = 0;
        let mut text = self.tokenizer.stream(true);
        let total = response.chars().count();
        // A template may put white space before the response.
        let mut skip = None;
        for &at in &places {
            let piece = text.push(sequence.tokens[at]).map_err(crate::Error::Model)?;
            let lead = *skip.get_or_insert_with(|| {
                let own = response.chars().take_while(|c| c.is_whitespace()).count();
                piece.chars().take_while(|c| c.is_whitespace()).count().saturating_sub(own)
            });
            let length = piece.chars().count().saturating_sub(if done == 0 { lead } else { 0 });
            let end = (done + length).min(total);
            if end > done {
                spans[at] = Some((done, end));
                done = end;
            }
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

fn chat(prompt: &Prompt) -> Result<Vec<hone_lm::Message>> {
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
