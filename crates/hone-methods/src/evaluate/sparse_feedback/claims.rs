//! The claims: an annotator of two criteria, whose weights depend on what it is asked.

use hone_lm::model::Prompt;
use hone_lm::{Capabilities, GenerateRequest};
use hone_nn::train::seed::rng;
use rand::Rng;

use super::{Item, SparseFeedback, measure};
use crate::error::Result;
use crate::evaluate::Measures;
use crate::evaluate::journal::Journal;
use crate::method::Claim;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_protocols_disagree_beyond_noise",
        says: "Ratings and rankings of one annotator disagree more often than the same protocol asked twice.",
        metric: "share of pairs on which ratings and rankings disagree",
        baseline: "the larger share on which one of them disagrees with itself",
        effect: protocols_disagree,
    },
    Claim {
        name: "claim_ties_explain_disagreement",
        says: "Leaving out pairs of equal ratings raises agreement.",
        metric: "agreement on pairs of different ratings",
        baseline: "agreement on all pairs",
        effect: ties_explain,
    },
    Claim {
        name: "claim_both_orders_cancel_bias",
        says: "A bias to the first place shows in single orders, and both orders turn it into ties.",
        metric: "the smaller of the rise in choices of the first place and the rise in ties, by bias",
        baseline: "the same annotator without bias",
        effect: both_orders,
    },
];

/// An annotator that reads `density D, accuracy A` in a response.
#[derive(Debug)]
struct TwoCriteria {
    /// Added to what stands in the first place.
    bias: f64,
    can: Capabilities,
}

impl TwoCriteria {
    fn new(bias: f64) -> TwoCriteria {
        TwoCriteria {
            bias,
            can: Capabilities { name: "two criteria".into(), seeds: true, ..Capabilities::default() },
        }
    }

    fn reply(&self, request: &GenerateRequest) -> String {
        let Prompt::Messages { messages, .. } = &request.prompt else { return String::new() };
        let mut rng = rng(request.sampling.seed.unwrap_or(0), "reply");
        let mut noise = || 0.06 * (rng.random::<f64>() - 0.5);
        let text = messages.first().map(hone_lm::Message::text).unwrap_or_default();
        let number = |text: &str| {
            text.split([',', '\n']).next().and_then(|n| n.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        let read: Vec<(f64, f64)> = text
            .split("density ")
            .skip(1)
            .map(|part| (number(part), part.split_once("accuracy ").map_or(0.0, |(_, rest)| number(rest))))
            .collect();
        match read[..] {
            // Few scores are used: what is rated lies between 3 and 6.
            [(density, accuracy)] => {
                format!("{}", (3.0 + 3.0 * (0.8 * density + 0.2 * accuracy + noise())).round())
            }
            [first, second] => {
                let worth = |(density, accuracy): (f64, f64)| 0.2 * density + 0.8 * accuracy;
                let ahead = worth(first) - worth(second) + self.bias + noise();
                if ahead > 0.0 { "(a)".into() } else { "(b)".into() }
            }
            _ => String::new(),
        }
    }
}

crate::evaluate::drawn_model!(TwoCriteria);

fn annotated(bias: f64, seed: u64) -> Result<Measures> {
    let mut rng = rng(seed, "responses");
    let mut response = || format!("density {:.2}, accuracy {:.2}", rng.random::<f64>(), rng.random::<f64>());
    let items: Vec<Item> = (0..30)
        .map(|id| Item {
            id: id.to_string(),
            instruction: "q".into(),
            responses: (0..5).map(|_| response()).collect(),
        })
        .collect();
    let own = SparseFeedback::default();
    measure(&TwoCriteria::new(bias), &items, None, &own, seed, &mut Journal::memory(), &mut |_, _| {})
}

fn value(measures: &Measures, name: &str) -> f64 {
    measures.value(name).unwrap_or(f64::NAN)
}

fn protocols_disagree(seed: u64) -> Result<f64> {
    let measures = annotated(0.0, seed)?;
    let floor =
        value(&measures, "ratings asked twice agree").min(value(&measures, "rankings asked twice agree"));
    Ok(floor - value(&measures, "ratings and rankings agree"))
}

fn ties_explain(seed: u64) -> Result<f64> {
    let measures = annotated(0.0, seed)?;
    Ok(value(&measures, "agree without ties of ratings") - value(&measures, "ratings and rankings agree"))
}

fn both_orders(seed: u64) -> Result<f64> {
    let (fair, biased) = (annotated(0.0, seed)?, annotated(0.2, seed)?);
    let rise = |name: &str| value(&biased, name) - value(&fair, name);
    Ok(rise("first place chosen").min(rise("ties of rankings")))
}
