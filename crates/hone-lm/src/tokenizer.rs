//! Text to token ids and back, from a Hugging Face model folder.
//!
//! Reads `tokenizer.json`, and where present `tokenizer_config.json`, `special_tokens_map.json`,
//! `added_tokens` inside them and `generation_config.json` (for the ids that end a text).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result, form};

mod bytes;
mod stream;

pub use bytes::TokenBytes;
pub use stream::TextStream;

/// The names under which configurations list special tokens, in the order in which templates receive them.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer with its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    special: BTreeMap<String, (String, u32)>,
    stop: Vec<u32>,
    config: Map<String, Value>,
}

/// One token of an encoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its id.
    pub id: u32,
    /// Where its text starts, in bytes of the encoded text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], [`Error::Tokenizer`] name the file; [`Error::UnknownSpecialToken`] where a
    /// configuration names a token that `tokenizer.json` lacks.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| Error::Tokenizer { path: path.clone(), message: e.to_string() })?;
        // A file saved with padding or truncation would silently cut prompts; lengths are checked by the model.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| Error::Tokenizer { path: path.clone(), message: e.to_string() })?;

        let config = read_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let map = read_object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let mut tokenizer = Tokenizer { inner, folder, special: BTreeMap::new(), stop: Vec::new(), config };
        tokenizer.read_special_tokens(&map)?;
        tokenizer.read_stop_tokens()?;
        Ok(tokenizer)
    }

    fn read_special_tokens(&mut self, map: &Map<String, Value>) -> Result<()> {
        // tokenizer_config.json wins, as in transformers; the map fills what it leaves out.
        for name in SPECIAL_NAMES {
            let sources = [("tokenizer_config.json", &self.config), ("special_tokens_map.json", map)];
            let found = sources.iter().find_map(|(file, fields)| {
                fields.get(name).filter(|v| !v.is_null()).map(|v| (self.folder.join(file), v))
            });
            let Some((path, value)) = found else { continue };
            let Some(token) = token_text(value) else {
                return Err(Error::Config {
                    path,
                    field: name.into(),
                    needed: "a token: a string or an object with `content`",
                    got: form(value),
                });
            };
            let Some(id) = self.inner.token_to_id(&token) else {
                return Err(Error::UnknownSpecialToken { path, field: name.into(), token });
            };
            self.special.insert(name.into(), (token, id));
        }
        Ok(())
    }

    fn read_stop_tokens(&mut self) -> Result<()> {
        let path = self.folder.join("generation_config.json");
        let generation = read_object(&path)?.unwrap_or_default();
        match generation.get("eos_token_id").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::Array(ids) => {
                for id in ids {
                    self.add_stop(id, &path)?;
                }
            }
            id => self.add_stop(id, &path)?,
        }
        if let Some(&(_, id)) = self.special.get("eos_token")
            && !self.stop.contains(&id)
        {
            self.stop.push(id);
        }
        Ok(())
    }

    fn add_stop(&mut self, id: &Value, path: &Path) -> Result<()> {
        let wrong = |needed| Error::Config {
            path: path.to_path_buf(),
            field: "eos_token_id".into(),
            needed,
            got: form(id),
        };
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| wrong("an id or a list of ids"))?;
        if self.inner.id_to_token(id).is_none() {
            return Err(wrong("the id of a token in tokenizer.json"));
        }
        if !self.stop.contains(&id) {
            self.stop.push(id);
        }
        Ok(())
    }

    /// Checks that every id has a row in a model of `vocab_size` rows. A larger model is fine: its spare rows pad.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] names the token with the largest id.
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        let largest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match largest {
            Some((token, id)) if id as usize >= vocab_size => {
                Err(Error::Vocabulary { token, id, vocab_size })
            }
            _ => Ok(()),
        }
    }

    /// Ids of a text. `add_special_tokens` adds what the tokenizer puts around a text (often the start token); chat
    /// templates write these themselves, so their output is encoded without.
    ///
    /// # Errors
    /// [`Error::Tokenize`] if the tokenizer has no token for a part and no unknown token.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, add_special_tokens).map_err(|e| Error::Tokenize(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a text with the bytes that each covers. Tokens that were added around it cover `0..0`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Span>> {
        let encoding =
            self.inner.encode(text, add_special_tokens).map_err(|e| Error::Tokenize(e.to_string()))?;
        let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(pairs.map(|(&id, &(start, end))| Span { id, start, end }).collect())
    }

    /// Text of ids. Bytes that are no UTF-8 become U+FFFD. `skip_special_tokens` leaves out special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenize`] for an id that the tokenizer lacks.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        // The library drops unknown ids without a word.
        if let Some(id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(Error::Tokenize(format!("no token has the id {id}")));
        }
        self.inner.decode(ids, skip_special_tokens).map_err(|e| Error::Tokenize(e.to_string()))
    }

    /// A decoder that takes ids one by one and hands out text in whole characters.
    pub fn stream(&self, skip_special_tokens: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special_tokens)
    }

    /// The bytes that each token stands for, for constrained decoding.
    ///
    /// # Errors
    /// [`Error::Constraint`] for a tokenizer whose tokens have no bytes of their own (WordPiece).
    pub fn token_bytes(&self) -> Result<TokenBytes> {
        TokenBytes::new(self)
    }

    /// Largest id plus one.
    pub fn size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// Id of a token, spelled as in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id, spelled as in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether this id is a special token, left out of decoded text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some_and(|t| self.inner.get_added_vocabulary().is_special_token(&t))
    }

    /// Text and id of a named special token: `bos_token`, `eos_token`, `pad_token`, ….
    pub fn special(&self, name: &str) -> Option<(&str, u32)> {
        self.special.get(name).map(|(text, id)| (text.as_str(), *id))
    }

    /// Named special tokens, as templates receive them.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.special.iter().map(|(name, (text, _))| (name.as_str(), text.as_str()))
    }

    /// Ids that end a text: those of `generation_config.json`, then the tokenizer's `eos_token`.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }

    /// `tokenizer_config.json`, as it is.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}

/// A token in a configuration: a string, or an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.get("content")?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// A JSON object from a file; `None` where there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_path_buf(), source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(other) => Err(Error::Config {
            path: path.to_path_buf(),
            field: "the file".into(),
            needed: "an object",
            got: form(&other),
        }),
        Err(e) => Err(Error::Config {
            path: path.to_path_buf(),
            field: format!("line {} column {}", e.line(), e.column()),
            needed: "JSON",
            got: e.to_string(),
        }),
    }
}
