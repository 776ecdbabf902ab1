//! The one list of methods, and how to find one in it.

use crate::error::{Error, Result};
use crate::method::Method;
use crate::{critique, evaluate, imitate, preference, refine, reinforce, steer};

/// Every method: families in reading order, ids alphabetical within one.
pub static METHODS: &[&Method] = &[
    &imitate::chain_of_hindsight::CHAIN_OF_HINDSIGHT,
    &imitate::ilf::ILF,
    &imitate::leti::LETI,
    &imitate::rejection_sampling::REJECTION_SAMPLING,
    &imitate::sft::SFT,
    &preference::c3po::C3PO,
    &preference::dpo::DPO,
    &preference::ipo::IPO,
    &preference::irpo::IRPO,
    &preference::kto::KTO,
    &preference::lipo::LIPO,
    &preference::orpo::ORPO,
    &preference::reward_lists::REWARD_LISTS,
    &preference::reward_pairs::REWARD_PAIRS,
    &preference::reward_ratings::REWARD_RATINGS,
    &preference::reward_spans::REWARD_SPANS,
    &preference::reward_steps::REWARD_STEPS,
    &preference::slic::SLIC,
    &reinforce::a_lol::A_LOL,
    &reinforce::critique_grpo::CRITIQUE_GRPO,
    &reinforce::grpo::GRPO,
    &reinforce::ppo::PPO,
    &reinforce::reinforce::REINFORCE,
    &reinforce::rloo::RLOO,
    &reinforce::sdpo::SDPO,
    &reinforce::text2grad::TEXT2GRAD,
    &refine::best_of_n::BEST_OF_N,
    &refine::iad::IAD,
    &refine::majority_vote::MAJORITY_VOTE,
    &refine::self_refine::SELF_REFINE,
    &refine::trlm::TRLM,
    &critique::deep_critic::DEEP_CRITIC,
    &crate::search::apohf::APOHF,
    &steer::lines::LINES,
    &evaluate::mint::MINT,
    &evaluate::realcritic::REALCRITIC,
    &evaluate::sparse_feedback::SPARSE_FEEDBACK,
];

/// The method with this id.
///
/// # Errors
/// [`Error::UnknownMethod`] with the nearest id.
pub fn find(id: &str) -> Result<&'static Method> {
    METHODS.iter().copied().find(|m| m.id == id).ok_or_else(|| Error::UnknownMethod {
        id: id.into(),
        nearest: nearest(id, METHODS.iter().map(|m| m.id)).unwrap_or_default().into(),
    })
}

/// Methods whose page holds every word, in any case, the closest first: a word counts most in an id or a name, less in
/// the summary, least in the rest. Equals keep the catalogue's order.
pub fn search(words: &str) -> Vec<&'static Method> {
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    let weight = |method: &Method, word: &String| {
        let holds = |text: &str| text.to_lowercase().contains(word);
        let summary = method.summary();
        let parts = [method.id, method.name, summary.as_str(), method.doc];
        [(holds(parts[0]) || holds(parts[1]), 4), (holds(parts[2]), 2), (holds(parts[3]), 1)]
            .into_iter()
            .filter(|(held, _)| *held)
            .map(|(_, weight)| weight)
            .sum::<u32>()
    };
    let score = |method: &Method| {
        let weights: Vec<u32> = words.iter().map(|word| weight(method, word)).collect();
        weights.iter().all(|&w| w > 0).then(|| weights.iter().sum::<u32>())
    };
    let mut found: Vec<(u32, &Method)> = METHODS.iter().filter_map(|&m| Some((score(m)?, m))).collect();
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, method)| method).collect()
}

/// The name that takes the fewest single-character edits to reach; the first of equals.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.min_by_key(|name| edits(wanted, name))
}

fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, &b) in other.iter().enumerate() {
            let replaced = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::recipe::Recipe;

    const HEADINGS: [&str; 5] =
        ["# What it does", "# Feedback", "# Departs from the paper", "# Claim", "# Source"];

    #[test]
    fn every_file_is_listed_and_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ids: BTreeSet<_> = METHODS.iter().map(|m| m.id.to_string()).collect();
        assert_eq!(ids.len(), METHODS.len(), "an id occurs twice");
        let families: BTreeSet<_> = METHODS.iter().map(|m| m.family).collect();
        let mut files = BTreeSet::new();
        for family in families {
            for entry in std::fs::read_dir(root.join("src").join(family.name())).unwrap() {
                let path = entry.unwrap().path();
                let source = std::fs::read_to_string(&path).unwrap_or_default();
                if !source.contains("method! {") {
                    continue;
                }
                let stem = path.file_stem().unwrap().to_str().unwrap().replace('_', "-");
                let method = find(&stem).unwrap();
                assert_eq!(method.family, family, "{stem}: lies in another family's folder");
                assert!(!method.claims.is_empty(), "{stem}: no claim");
                for claim in method.claims {
                    assert!(
                        source.contains(&format!("fn {}()", claim.name)),
                        "{stem}: no test {}",
                        claim.name
                    );
                    assert!(method.doc.contains(claim.name), "{stem}: comment does not name {}", claim.name);
                }
                files.insert(stem);
            }
        }
        assert_eq!(files, ids);
    }

    #[test]
    fn comments_have_headings_and_recipes_parse() {
        for method in METHODS {
            for heading in HEADINGS {
                assert!(method.doc.lines().any(|l| l.trim() == heading), "{}: no `{heading}`", method.id);
            }
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
            let recipe = Recipe::read(&root.join(format!("{}.toml", method.id))).unwrap();
            assert_eq!(recipe.method, method.id);
            (method.check)(&recipe.settings).unwrap();
        }
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        assert_eq!(find("dppo").unwrap_err().to_string(), "method `dppo`: unknown; the nearest is `dpo`");
        let refused = |text: &str| {
            let table: toml::Table = text.parse().unwrap();
            (find("dpo").unwrap().check)(&table).unwrap_err().to_string()
        };
        assert_eq!(refused("betta = 1.0"), "settings of `dpo`: unknown key `betta`; the nearest is `beta`");
        let nested = refused("[training]\nbatchsize = 3");
        assert_eq!(
            nested,
            "settings of `dpo`: unknown key `training.batchsize`; the nearest is `batch_size`"
        );
        assert!(refused("beta = 0.0").contains("above 0"));
        assert!(
            refused("[training]\nbeta2 = 1.0").contains("`training.beta2`: needs a number in [0, 1), got 1")
        );
        assert!(refused("[training]\nweight_decay = -1").contains("`training.weight_decay`"));
        assert!(refused("beta = \"x\"").contains("`beta`: needs float, got string"));
    }

    #[test]
    fn the_closest_are_found_first() {
        assert!(search("odds ratio").iter().any(|m| m.id == "orpo"));
        let found = search("DPO");
        assert_eq!(found[0].id, "dpo");
        // IPO's page names DPO, its name does not.
        assert!(found.iter().any(|m| m.id == "ipo"), "{found:?}");
        assert!(search("dpo zebra").is_empty());
    }
}
