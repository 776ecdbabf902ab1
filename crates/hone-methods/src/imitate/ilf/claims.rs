//! The claims, and what they are measured on.

use hone_feedback::Prompt;
use hone_feedback::metrics::mean;

use super::bench::{self, World};
use super::select::{Select, best_by_classifier, classifier};
use super::{ID, Ilf, Said, Target, refine, run, targets};
use crate::error::{Error, Result};
use crate::method::{Claim, Job};
use crate::policy::Policy;
use crate::train::{Session, Training};

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_feedback_helps_refining",
        says: "Refinements that see the feedback remove exactly the named word more often than those that do not.",
        metric: "share of refinements that are exactly the answer without one named word",
        baseline: "the same answers, feedback withheld",
        effect: feedback_helps_refining,
    },
    Claim {
        name: "claim_fewer_words_are_easier",
        says: "One named word is removed exactly more often than three.",
        metric: "share of exact refinements with 1 named word",
        baseline: "the same with 3 named words",
        effect: fewer_words_are_easier,
    },
    Claim {
        name: "claim_fewer_unwanted_words_are_easier",
        says: "One named word is removed exactly more often from answers with 1 unwanted word than from those with 3.",
        metric: "share of exact refinements with 1 named word, 1 unwanted word there",
        baseline: "the same with 3 unwanted words there",
        effect: fewer_unwanted_words_are_easier,
    },
    Claim {
        name: "claim_larger_models_remove_better",
        says: "A model three times as wide removes one named word exactly more often.",
        metric: "share of exact refinements with 1 named word",
        baseline: "width 16 instead of 48, shown the same",
        effect: larger_models_remove_better,
    },
    Claim {
        name: "claim_beats_first_answers",
        says: "Imitating chosen refinements makes more answers right than imitating first answers.",
        metric: "share of right answers to held-out prompts at temperature 1",
        baseline: "the same prompts, first answers as targets",
        effect: beats_first_answers,
    },
    Claim {
        name: "claim_selection_beats_chance",
        says: "Of five refinements, the one that most surely does what was said is right more often than any.",
        metric: "share of right targets",
        baseline: "one of the five at random",
        effect: selection_beats_chance,
    },
    Claim {
        name: "claim_selection_makes_better_models",
        says: "Imitating the chosen refinement makes more answers right than imitating any.",
        metric: "share of right answers to held-out prompts at temperature 1",
        baseline: "one of the five at random",
        effect: selection_makes_better_models,
    },
    Claim {
        name: "claim_both_beat_either",
        says: "ILF with best-of-8 by a classifier beats ILF alone and the classifier's best-of-8 of the start.",
        metric: "share of right answers to held-out prompts at temperature 1",
        baseline: "the better of the two",
        effect: both_beat_either,
    },
    Claim {
        name: "claim_feedback_in_the_target_is_worse",
        says: "Imitating feedback and refinement together makes fewer answers right than the refinement alone.",
        metric: "share of right answers to held-out prompts at temperature 1",
        baseline: "feedback and refinement as target, what stands before the refinement not counted",
        effect: feedback_in_the_target_is_worse,
    },
    Claim {
        name: "claim_edits_are_less_likely",
        says: "Under the start people's edits are less likely than refinements.",
        metric: "negative log-likelihood under the start, nats per word",
        baseline: "chosen refinements of the same answers",
        effect: edits_are_less_likely,
    },
    Claim {
        name: "claim_refinements_are_less_likely",
        says: "Under the start refinements are less likely than first answers.",
        metric: "negative log-likelihood under the start, nats per word",
        baseline: "first answers",
        effect: refinements_are_less_likely,
    },
    Claim {
        name: "claim_a_second_round_helps",
        says: "Two rounds on half of the labels each, the second on new answers, make more answers right than one round.",
        metric: "share of right answers to held-out prompts at temperature 1",
        baseline: "one round, as many labels",
        effect: a_second_round_helps,
    },
];

/// Width of the claims' policy.
const WIDTH: usize = 48;
/// Labelled answers.
const LABELS: usize = 160;

/// Share of refinements that are exactly the answer without the named words, over `said`; one sample each.
fn exact(world: &World, said: &[Said], own: &Ilf) -> Result<f64> {
    let own = Ilf { refinements: 1, tries: 0, ..own.clone() };
    let refined = refine(&world.policy()?.speaker()?, said, &own, world.seed)?;
    let hits = said.iter().zip(&refined).map(|(said, of)| {
        let target = bench::without(&said.answer, &said.feedback);
        f64::from(u8::from(of.first() == Some(&target)))
    });
    Ok(mean(&hits.collect::<Vec<_>>()))
}

/// Answers in which so many distinct words are named.
fn named(world: &World, count: usize) -> Result<Vec<Said>> {
    let mut said = world.said(600, "removal")?;
    said.retain(|said| said.feedback.split_whitespace().count() == count + 1 && said.feedback != "keep");
    Ok(said)
}

pub(super) fn fewer_words_are_easier(seed: u64) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let own = bench::settings();
    Ok(exact(&world, &named(&world, 1)?, &own)? - exact(&world, &named(&world, 3)?, &own)?)
}

pub(super) fn fewer_unwanted_words_are_easier(seed: u64) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let of = |count: usize| -> Result<f64> {
        let mut said = named(&world, count)?;
        // Only the first is named, however many there are.
        for one in &mut said {
            one.feedback = one.feedback.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        }
        exact(&world, &said, &bench::settings())
    };
    Ok(of(1)? - of(3)?)
}

pub(super) fn larger_models_remove_better(seed: u64) -> Result<f64> {
    let (small, large) = (World::new(seed, 16)?, World::new(seed, WIDTH)?);
    let (said, own) = (named(&large, 1)?, bench::settings());
    Ok(exact(&large, &said, &own)? - exact(&small, &said, &own)?)
}

pub(super) fn feedback_helps_refining(seed: u64) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let (said, own) = (named(&world, 1)?, bench::settings());
    Ok(exact(&world, &said, &own)? - exact(&world, &said, &Ilf { see_feedback: false, ..own.clone() })?)
}

/// Share of right answers to held-out prompts after training with these settings.
fn trained_score(seed: u64, own: &Ilf, marker: &str) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    world.score(&world.trained(&world.said(LABELS, "train")?, own)?, marker)
}

pub(super) fn beats_first_answers(seed: u64) -> Result<f64> {
    let own = bench::settings();
    let control = Ilf { target: Target::Initial, ..own.clone() };
    Ok(trained_score(seed, &own, "")? - trained_score(seed, &control, "")?)
}

pub(super) fn selection_beats_chance(seed: u64) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let said = world.said(LABELS, "train")?;
    let refiner = world.policy()?.speaker()?;
    let right = |select| -> Result<f64> {
        let own = Ilf { select, ..bench::settings() };
        let targets = targets(&refiner, &said, &own, seed)?;
        let hits = targets.iter().flatten().map(|text| f64::from(u8::from(bench::right(text))));
        Ok(mean(&hits.collect::<Vec<_>>()))
    };
    Ok(right(Select::Incorporation)? - right(Select::Random)?)
}

pub(super) fn selection_makes_better_models(seed: u64) -> Result<f64> {
    let own = bench::settings();
    let chance = Ilf { select: Select::Random, ..own.clone() };
    Ok(trained_score(seed, &own, "")? - trained_score(seed, &chance, "")?)
}

pub(super) fn feedback_in_the_target_is_worse(seed: u64) -> Result<f64> {
    let own = bench::settings();
    let both = Ilf { target: Target::FeedbackAndRefinement, ..own.clone() };
    Ok(trained_score(seed, &own, "")? - trained_score(seed, &both, "answer")?)
}

/// How much less likely one kind of target is under the start than another, in nats per word.
fn less_likely(seed: u64, one: Target, other: Target) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let said = world.said(LABELS, "train")?;
    let refiner = world.policy()?.speaker()?;
    let nll = |target| -> Result<f64> {
        let own = Ilf { target, ..bench::settings() };
        world.nll(&said, &targets(&refiner, &said, &own, seed)?)
    };
    Ok(nll(one)? - nll(other)?)
}

pub(super) fn edits_are_less_likely(seed: u64) -> Result<f64> {
    less_likely(seed, Target::Gold, Target::Refinement)
}

pub(super) fn refinements_are_less_likely(seed: u64) -> Result<f64> {
    less_likely(seed, Target::Refinement, Target::Initial)
}

/// Right answers of best-of-8 by a classifier trained on comparisons, of the start and of ILF, and of ILF alone.
fn with_classifier(seed: u64) -> Result<[f64; 3]> {
    let world = World::new(seed, WIDTH)?;
    let (start, question) = (world.policy()?, bench::good());
    let own = Ilf { training: Training { epochs: 4.0, ..bench::settings().training }, ..bench::settings() };
    let judge =
        classifier(world.policy()?, &bench::compared(&world, LABELS)?, &question, &own, seed)?.speaker()?;
    let after = world.trained(&world.said(LABELS, "train")?, &own)?;
    let prompts: Vec<Prompt> = world.prompts(100, "held out").into_iter().map(Prompt::from).collect();
    let best = |policy: &Policy| -> Result<f64> {
        let answers = world.answers(policy, 100, 8, "held out")?;
        let places = best_by_classifier(&judge, &prompts, &answers, &question)?;
        let hits = answers
            .iter()
            .zip(places)
            .map(|(of, at)| f64::from(u8::from(at.is_some_and(|at| bench::right(&of[at])))));
        Ok(mean(&hits.collect::<Vec<_>>()))
    };
    Ok([best(&after)?, best(&start)?, world.score(&after, "")?])
}

pub(super) fn both_beat_either(seed: u64) -> Result<f64> {
    let [both, classifier, ilf] = with_classifier(seed)?;
    Ok(both - classifier.max(ilf))
}

pub(super) fn a_second_round_helps(seed: u64) -> Result<f64> {
    let world = World::new(seed, WIDTH)?;
    let records = world.records(LABELS, "train")?;
    let after = |rounds: usize| -> Result<f64> {
        let own = Ilf { rounds, ..bench::settings() };
        let table = toml::Table::try_from(&own)
            .map_err(|e| Error::Settings { method: ID.into(), message: e.to_string() })?;
        let (policy, session) = (world.policy()?, Session::default());
        let job = Job { policy, records: &records, oracle: Some(&world), settings: &table, seed, session };
        world.score(&run(job)?.policy()?, "")
    };
    Ok(after(2)? - after(1)?)
}
