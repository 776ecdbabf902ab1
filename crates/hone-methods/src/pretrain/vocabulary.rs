//! The tokenizer of the built-in model, learnt from the worlds' own text, and the files that go with it.
//!
//! Byte-level BPE: every text has tokens, whatever it says. Digits stand alone, so that numbers are read digit by
//! digit. A conversation is `<|user|>…<|assistant|>…<|end|>`, again and again; whoever is not the assistant speaks as
//! the user.

use std::path::Path;

use hone_nn::folder::atomically;
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};

/// Fills batches; never seen by the model.
pub const PAD: &str = "<|pad|>";
/// Ends an answer.
pub const END: &str = "<|end|>";
/// What follows is the user's.
pub const USER: &str = "<|user|>";
/// What follows is the assistant's.
pub const ASSISTANT: &str = "<|assistant|>";

/// Bytes and special tokens: the smallest vocabulary there is.
pub const SMALLEST: usize = 256 + 4;

const TEMPLATE: &str = "{%- for message in messages -%}\
{%- if message['role'] == 'assistant' -%}\
{{- '<|assistant|>' -}}{% generation %}{{- message['content'] + '<|end|>' -}}{% endgeneration %}\
{%- else -%}\
{{- '<|user|>' + message['content'] -}}\
{%- endif -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}";

/// Learns a vocabulary of at most `size` tokens from `texts` and writes the files of a tokenizer into `folder`.
///
/// # Errors
/// [`Error::File`] if the library refuses; those of writing.
pub fn write(folder: &Path, texts: &[String], size: usize, context: usize) -> Result<()> {
    let refused = |error: tokenizers::Error| Error::File {
        path: folder.display().to_string(),
        problem: format!("tokenizer: {error}"),
    };
    let special = [PAD, END, USER, ASSISTANT].map(|token| AddedToken::from(token, true));
    let mut tokenizer = Tokenizer::new(BPE::default());
    let parts: Vec<PreTokenizerWrapper> =
        vec![Digits::new(true).into(), ByteLevel::default().add_prefix_space(false).into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.to_vec())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts.iter()).map_err(refused)?;
    let model = tokenizer.to_string(true).map_err(refused)?;
    let id = |token: &str| tokenizer.token_to_id(token);
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({ "eos_token_id": id(END), "pad_token_id": id(PAD) });
    let pretty = |value: &Value| format!("{value:#}\n");
    let files = [
        ("tokenizer.json", model + "\n"),
        ("tokenizer_config.json", pretty(&config)),
        ("chat_template.jinja", TEMPLATE.to_string()),
        ("generation_config.json", pretty(&generation)),
    ];
    Ok(atomically(folder, |partial| {
        for (name, text) in &files {
            let path = partial.join(name);
            std::fs::write(&path, text).map_err(hone_nn::Error::io(&path))?;
        }
        Ok(())
    })?)
}
