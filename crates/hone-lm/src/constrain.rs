//! Constrained decoding: which tokens may come next, by JSON schema, regular expression or grammar.
//!
//! A [`Constrainer`] is built once per tokenizer; each answer gets a [`TokenConstraint`] of its own, which any sampler
//! can drive: ask for the mask, sample, commit. The library is llguidance, which walks a trie of the vocabulary with a
//! lazily built automaton, so that a mask costs microseconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::error::{Error, Result};
use crate::model::Constraint;
use crate::tokenizer::Tokenizer;

/// White space between the parts of JSON. The library's own rule has no bound, and a small model can stay in it for
/// ever.
const JSON_SPACE: &str = r"[ \n\t]{1,8}";

/// Compiles constraints for one tokenizer.
#[derive(Clone)]
pub struct Constrainer {
    factory: Arc<ParserFactory>,
    vocab_size: usize,
}

impl std::fmt::Debug for Constrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constrainer").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl Constrainer {
    /// Builds the trie of a tokenizer for a model whose logits are `[vocab_size]`.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] if the tokenizer does not fit; [`Error::Constraint`] if its tokens have no bytes of their
    /// own or none ends a text.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        tokenizer.check_fits(vocab_size)?;
        let Some(&eos) = tokenizer.stop_tokens().first() else {
            return Err(Error::Constraint(
                "needs a token that ends a text: eos_token or eos_token_id".into(),
            ));
        };
        let mut words = tokenizer.token_bytes()?.bytes;
        for (id, word) in words.iter_mut().enumerate() {
            if let Some(name) = tokenizer.token(id as u32).filter(|_| tokenizer.is_special(id as u32)) {
                // The library's mark keeps special tokens apart from text that reads the same.
                *word = [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
            }
        }
        // Spare rows of the model stand for no text, so no mask ever allows them.
        words.resize(vocab_size, Vec::new());
        let info = TokRxInfo::new(vocab_size as u32, eos);
        let built = catch_unwind(AssertUnwindSafe(|| {
            let trie = TokTrie::from(&info, &words).with_eos_tokens(tokenizer.stop_tokens());
            let environment: TokEnv = Arc::new(Vocabulary(trie));
            ParserFactory::new_simple(&environment)
        }));
        let mut factory = built
            .map_err(|_| Error::Constraint("the vocabulary cannot be made into a trie".into()))?
            .map_err(|e| Error::Constraint(format!("{e:#}")))?;
        // The library would print warnings to standard error.
        factory.quiet();
        Ok(Constrainer { factory: Arc::new(factory), vocab_size })
    }

    /// A constraint at its start.
    ///
    /// # Errors
    /// [`Error::Constraint`] with the library's reason: a schema that uses what it does not know or that nothing
    /// satisfies, an expression or grammar that does not parse.
    pub fn compile(&self, constraint: &Constraint) -> Result<TokenConstraint> {
        let grammar = match constraint {
            Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_bounded_space(schema)?),
            Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Constraint::Grammar(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        };
        let parser = catch_unwind(AssertUnwindSafe(|| self.factory.create_parser(grammar)))
            .map_err(|_| Error::Constraint("the library failed on it".into()))?
            .map_err(|e| Error::Constraint(format!("{e:#}")))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(Error::Constraint(error)),
            None => Ok(TokenConstraint { matcher, vocab_size: self.vocab_size }),
        }
    }
}

/// The schema with a bound on white space, unless it brings options of its own.
fn with_bounded_space(schema: &Value) -> Result<Value> {
    const OPTIONS: &str = "x-guidance";
    match schema {
        Value::Object(fields) if !fields.contains_key(OPTIONS) => {
            let mut fields = fields.clone();
            fields.insert(OPTIONS.into(), json!({"whitespace_pattern": JSON_SPACE}));
            Ok(Value::Object(fields))
        }
        Value::Object(_) => Ok(schema.clone()),
        Value::Bool(true) => Ok(json!({OPTIONS: {"whitespace_pattern": JSON_SPACE}})),
        other => Err(Error::Constraint(format!(
            "a JSON schema needs to be an object, got {}",
            crate::error::form(other)
        ))),
    }
}

/// One answer's constraint, in the state after the tokens committed so far. A clone goes its own way.
#[derive(Clone)]
pub struct TokenConstraint {
    matcher: Matcher,
    vocab_size: usize,
}

impl TokenConstraint {
    /// Sets `words` to the tokens that may come next: token `t` is bit `t % 32` of word `t / 32`. `words` has
    /// `⌈vocab_size / 32⌉` entries. Once the text may end, the tokens that end it are among them; once it must, only
    /// they.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the library fails, for instance on a grammar too large for its limits.
    pub fn mask(&mut self, words: &mut [u32]) -> Result<()> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| Error::Constraint(format!("{e:#}")))?;
        words.fill(0);
        for (word, bits) in words.iter_mut().zip(mask.as_slice()) {
            *word = *bits;
        }
        Ok(())
    }

    /// Takes the token that was sampled.
    ///
    /// # Errors
    /// [`Error::Constraint`] for a token that the mask does not allow.
    pub fn commit(&mut self, token: TokenId) -> Result<()> {
        if token as usize >= self.vocab_size {
            return Err(Error::Constraint(format!(
                "token {token} is beyond the vocabulary of {}",
                self.vocab_size
            )));
        }
        self.matcher.consume_token(token).map_err(|e| Error::Constraint(format!("{e:#}")))
    }

    /// Whether nothing can follow.
    pub fn is_finished(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason() != StopReason::InternalError
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// [`Error::Constraint`] after a failure.
    pub fn may_end(&mut self) -> Result<bool> {
        if self.is_finished() {
            return Ok(true);
        }
        self.matcher.is_accepting().map_err(|e| Error::Constraint(format!("{e:#}")))
    }
}

/// The vocabulary, for the library.
struct Vocabulary(TokTrie);

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }

    /// No: tokens are never forced, the model chooses among the allowed ones.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
