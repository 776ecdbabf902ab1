//! The order in which a model reads and writes its tokens: from the start of a text, from its end, or both.

use std::ops::Range;

use hone_nn::{Model, ModelConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Result;

/// Where `config.json` says it. Other programs leave unknown keys alone.
const KEY: &str = "token_order";

/// An order of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenOrder {
    /// From the start of a text, as usual.
    #[default]
    Forward,
    /// From its end.
    Reversed,
    /// Half of the texts this way, half that way.
    Both,
}

impl TokenOrder {
    /// The order that a model was trained in; forward where its configuration does not say.
    pub fn of(config: &ModelConfig) -> TokenOrder {
        let said = config.raw.get(KEY).cloned();
        said.and_then(|said| serde_json::from_value(said).ok()).unwrap_or_default()
    }

    /// The same weights, marked with this order.
    ///
    /// # Errors
    /// None that a model in use can meet.
    pub fn mark(self, model: &Model) -> Result<Model> {
        let mut config = (**model.config()).clone();
        config.raw.insert(KEY.into(), json!(self));
        let mut marked = Model::new(config, model.params.clone())?;
        marked.threads = model.threads;
        Ok(marked)
    }

    /// Whether text number `index` of a stream is turned round.
    pub fn turns(self, index: u64) -> bool {
        match self {
            TokenOrder::Forward => false,
            TokenOrder::Reversed => true,
            TokenOrder::Both => index % 2 == 1,
        }
    }

    /// Whether a model of this order reads text turned round, or as it stands.
    pub fn reads(self, turned: bool) -> bool {
        self == TokenOrder::Both || (self == TokenOrder::Reversed) == turned
    }

    /// In words, for errors.
    pub fn name(self) -> &'static str {
        match self {
            TokenOrder::Forward => "forward",
            TokenOrder::Reversed => "reversed",
            TokenOrder::Both => "both",
        }
    }
}

/// The tokens that change places when a text is turned round: all but the one it begins with and the one it ends with.
/// What begins a text begins it in either order.
pub fn inner(ids: &[u32], begin: Option<u32>, stops: &[u32]) -> Range<usize> {
    let start = usize::from(begin.is_some() && ids.first().copied() == begin);
    let ends = ids.len() > start && ids.last().is_some_and(|last| stops.contains(last));
    start..ids.len() - usize::from(ends)
}

/// Turns a whole text round.
pub fn turn(ids: &mut [u32], begin: Option<u32>, stops: &[u32]) {
    let inner = inner(ids, begin, stops);
    ids[inner].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_and_what_ends_a_text_stays() {
        let turned = |ids: &[u32]| {
            let mut ids = ids.to_vec();
            turn(&mut ids, Some(8), &[9]);
            ids
        };
        assert_eq!(turned(&[8, 1, 2, 3, 9]), [8, 3, 2, 1, 9]);
        assert_eq!(turned(&[1, 2, 3]), [3, 2, 1]);
        assert_eq!(turned(&[9]), [9]);
        assert_eq!(turned(&turned(&[8, 1, 2, 9])), [8, 1, 2, 9]);
        assert_eq!(turned(&[]), [0; 0]);
    }

    #[test]
    fn a_model_keeps_its_order_in_its_folder() {
        let model = Model::random(ModelConfig::llama(8, 8, 1, 2, 2, 8), 1);
        assert_eq!(TokenOrder::of(model.config()), TokenOrder::Forward);
        let folder = tempfile::tempdir().unwrap();
        let marked = TokenOrder::Reversed.mark(&model).unwrap();
        hone_nn::folder::write(marked.config(), &marked.params, folder.path(), &Default::default()).unwrap();
        let read = hone_nn::folder::read(folder.path()).unwrap();
        assert_eq!(TokenOrder::of(read.config()), TokenOrder::Reversed);
        assert!(TokenOrder::Both.reads(true) && TokenOrder::Both.reads(false));
        assert!(TokenOrder::Reversed.reads(true) && !TokenOrder::Reversed.reads(false));
    }
}
