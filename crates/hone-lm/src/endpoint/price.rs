//! What tokens cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Usage;

/// Prices by model name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PriceTable(pub BTreeMap<String, Price>);

/// Prices of one model, per million tokens, in any one currency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens of prompts.
    pub input: f64,
    /// Tokens of prompts that the endpoint had cached; as `input` where left out.
    #[serde(default)]
    pub cached_input: Option<f64>,
    /// Tokens of answers.
    pub output: f64,
}

impl PriceTable {
    /// Price of a request, or `None` for a model without one.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<f64> {
        let price = self.0.get(model)?;
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let fresh = usage.prompt_tokens - cached;
        let sum = fresh as f64 * price.input
            + cached as f64 * price.cached_input.unwrap_or(price.input)
            + usage.completion_tokens as f64 * price.output;
        Some(sum / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_cost_less() {
        let price = Price { input: 2.0, cached_input: Some(0.5), output: 8.0 };
        let table = PriceTable(BTreeMap::from([("m".into(), price)]));
        let usage = Usage {
            prompt_tokens: 1_000_000,
            cached_tokens: 400_000,
            completion_tokens: 250_000,
            reasoning_tokens: 0,
        };
        // 0.6 M at 2, 0.4 M at 0.5, 0.25 M at 8: 1.2 + 0.2 + 2.0.
        assert_eq!(table.cost("m", &usage), Some(3.4));
        assert_eq!(table.cost("other", &usage), None);
    }
}
