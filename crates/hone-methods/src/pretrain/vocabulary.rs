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

/// The files of a tokenizer.
const FILES: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

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
    let texts = [model + "\n", pretty(&config), TEMPLATE.to_string(), pretty(&generation)];
    Ok(atomically(folder, |partial| {
        for (name, text) in FILES.iter().zip(&texts) {
            let path = partial.join(name);
            std::fs::write(&path, text).map_err(hone_nn::Error::io(&path))?;
        }
        Ok(())
    })?)
}

/// Copies the files of a tokenizer from one model folder to another.
///
/// # Errors
/// Those of reading and writing.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    Ok(atomically(to, |partial| {
        for name in FILES {
            let path = from.join(name);
            std::fs::copy(&path, partial.join(name)).map_err(hone_nn::Error::io(&path))?;
        }
        Ok(())
    })?)
}

#[cfg(test)]
mod tests {
    use hone_lm::template::check_stop_in_mask;
    use hone_lm::{ChatTemplate, Message, RenderOptions};

    use super::*;

    fn texts() -> Vec<String> {
        ["sum 12+34", "12+34=46", "the note to ann", "the note to bob"].map(String::from).to_vec()
    }

    fn tokenizer(folder: &Path) -> hone_lm::Tokenizer {
        write(folder, &texts(), 300, 64).unwrap();
        hone_lm::Tokenizer::from_folder(folder).unwrap()
    }

    #[test]
    fn every_text_comes_back_and_digits_stand_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer(&folder.path().join("words"));
        for text in ["the note to ann", " naïve 🙂\n\tif x: 3.14", "\u{0}\u{ffff} ünï", "ａ"] {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("2026", true).unwrap().len(), 4);
        // "the" and "note" stand twice each in the texts, so they are tokens; "zebra" stands in none.
        assert_eq!(tokenizer.encode("the note", true).unwrap().len(), 2);
        assert_eq!(tokenizer.encode("zebra", true).unwrap().len(), 5);
        assert!(tokenizer.size() <= 300 && tokenizer.size() > SMALLEST);
    }

    #[test]
    fn the_same_texts_make_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = ["one", "two"].map(|name| {
            let path = folder.path().join(name);
            write(&path, &texts(), 300, 64).unwrap();
            std::fs::read(path.join("tokenizer.json")).unwrap()
        });
        assert!(bytes[0] == bytes[1]);
    }

    #[test]
    fn the_template_marks_the_assistant_and_its_stop_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        let tokenizer = tokenizer(&path);
        let template = ChatTemplate::from_folder(&path, &tokenizer).unwrap().unwrap();
        let said = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];
        let messages = said.map(|(role, text)| Message::new(role, text));
        let options = RenderOptions::default();
        let masked = template.mask_by_tag(&messages, &options, &tokenizer).unwrap();
        let expected = "<|user|>s<|user|>a<|assistant|>b<|end|><|user|>c<|assistant|>d<|end|>";
        assert_eq!(masked.text, expected);
        let marked: Vec<String> = masked
            .ids
            .iter()
            .zip(&masked.mask)
            .filter(|(_, mask)| **mask)
            .filter_map(|(id, _)| tokenizer.token(*id))
            .collect();
        assert_eq!(marked, ["b", END, "d", END]);
        check_stop_in_mask(&masked.ids, &masked.mask, tokenizer.stop_tokens(), &tokenizer).unwrap();
        let asked = RenderOptions { add_generation_prompt: true, ..options };
        assert_eq!(template.render(&messages[1..2], &asked).unwrap(), "<|user|>a<|assistant|>");
    }
}
