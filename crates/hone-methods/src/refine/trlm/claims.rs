//! The claims.

use hone_feedback::Prompt;
use hone_feedback::metrics::mean;
use hone_feedback::metrics::ranking::ndcg;
use hone_nn::train::seed::rng;
use hone_nn::{Batch, Network as _, Want};
use rand::Rng;

use super::reader::{By, Reader, Wording};
use super::uses::{Search, Words, cite, guard, scores};
use super::world::{ASKS, ENTITIES, GENERIC, THINGS, Twins, World, model, twins};
use crate::error::Result;
use crate::method::Claim;
use crate::order::{TokenOrder, turn};
use crate::policy::Policy;
use crate::refine::{Draw, sample};

const SIZES: [usize; 2] = [4, 16];

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_twins_read_alike",
        says: "Forward and reversed twins reach the same perplexity per token on fresh text of both parts.",
        metric: "0.05 less the relative difference of the perplexities",
        baseline: "a difference of 5 %",
        effect: read_alike,
    },
    Claim {
        name: "claim_ba_over_fo",
        says: "Of 4 and 16 samples, TRLM-Ba picks right answers more often than TRLM-Fo.",
        metric: "share of right picks by Ba",
        baseline: "by Fo, of the same samples",
        effect: |seed| gain(seed, By::Ba, By::Fo),
    },
    Claim {
        name: "claim_fo_over_own",
        says: "Of 4 and 16 samples, TRLM-Fo picks right answers more often than the likelihood of the generator.",
        metric: "share of right picks by Fo",
        baseline: "by Self, of the same samples",
        effect: |seed| gain(seed, By::Fo, By::Own),
    },
    Claim {
        name: "claim_ba_over_one",
        says: "Of 4 and 16 samples, TRLM-Ba picks right answers more often than a single sample is right.",
        metric: "share of right picks by Ba",
        baseline: "share of right samples",
        effect: |seed| over_sizes(|n| Ok(picks(seed, n, By::Ba, false)?.0 - one(seed, n)?.0)),
    },
    Claim {
        name: "claim_both_orders_over_own",
        says: "A model trained in both orders, in its reverse mode, picks right answers more often than Self.",
        metric: "share of right picks by FoBa in reverse mode",
        baseline: "by Self, of the same samples",
        effect: |seed| {
            over_sizes(|n| Ok(picks(seed, n, By::Ba, true)?.0 - picks(seed, n, By::Own, false)?.0))
        },
    },
    Claim {
        name: "claim_fewer_generic",
        says: "TRLM-Ba picks generic answers more rarely than they are sampled.",
        metric: "share of generic samples",
        baseline: "share of generic picks by Ba",
        effect: |seed| over_sizes(|n| Ok(one(seed, n)?.1 - picks(seed, n, By::Ba, false)?.1)),
    },
    Claim {
        name: "claim_likelihood_is_generic",
        says: "The forward likelihood picks generic answers more often than they are sampled.",
        metric: "share of generic picks by the forward likelihood",
        baseline: "share of generic samples",
        effect: |seed| over_sizes(|n| Ok(picks(seed, n, By::Forward, false)?.1 - one(seed, n)?.1)),
    },
    Claim {
        name: "claim_cites_the_right_way",
        says: "Linear search finds the sentence of a headline more often by P(headline | sentence) than by P(sentence | \
               headline), summed or per token.",
        metric: "share of sentences found, reversed twin",
        baseline: "the better of both likelihoods of the forward twin",
        effect: |seed| {
            let forward = |per_token| cited(seed, By::Forward, Search::Linear, per_token);
            let best = forward(false)?.0.max(forward(true)?.0);
            Ok(cited(seed, By::Ba, Search::Linear, false)?.0 - best)
        },
    },
    Claim {
        name: "claim_binary_is_cheaper",
        says: "Binary search takes fewer scores than linear search, at some loss.",
        metric: "scores per highlight of linear search",
        baseline: "of binary search",
        effect: |seed| {
            let calls = |search| Ok::<f64, crate::Error>(cited(seed, By::Ba, search, false)?.1);
            Ok(calls(Search::Linear)? - calls(Search::Binary)?)
        },
    },
    Claim {
        name: "claim_linear_over_exclusion",
        says: "Linear search finds more sentences than exclusion.",
        metric: "share found by linear search",
        baseline: "by exclusion",
        effect: |seed| {
            Ok(cited(seed, By::Ba, Search::Linear, false)?.0
                - cited(seed, By::Ba, Search::Exclusion, false)?.0)
        },
    },
    Claim {
        name: "claim_retrieves_the_right_way",
        says: "Documents of varied length are ranked better by P(question | document) than by P(document | question).",
        metric: "NDCG at 10, reversed twin",
        baseline: "the better of the forward twin's likelihood, summed and per token",
        effect: |seed| {
            let best = retrieved(seed, By::Forward, false)?.max(retrieved(seed, By::Forward, true)?);
            Ok(retrieved(seed, By::Ba, false)? - best)
        },
    },
    Claim {
        name: "claim_guard_catches",
        says: "Questions written to answers let the same filter catch obfuscated harmful questions.",
        metric: "false negatives of the filter on questions",
        baseline: "of the filter on questions and on more than half of the 8 written ones",
        effect: |seed| Ok(missed(seed, None)? - missed(seed, Some(0.5))?),
    },
    Claim {
        name: "claim_guard_spares",
        says: "Harmless questions, half of them hard, are hardly blocked.",
        metric: "0.05 less the rise of false positives",
        baseline: "a rise of 0.05",
        effect: |seed| Ok(0.05 - (blocked(seed, Some(0.5))? - blocked(seed, None)?)),
    },
    Claim {
        name: "claim_tilt_is_exact",
        says: "Weighing P(A | Q) by P(Q | A)^(1/α) of the exact posterior is the closed form P(A | Q)^(1+1/α) P(A)^(-1/α).",
        metric: "1e-12 less the largest difference of a probability, over α = 0.25, 1, 4",
        baseline: "a difference of 1e-12",
        effect: tilt_is_exact,
    },
];

/// Perplexity per token of a twin on fresh text; every token but the first, which begins all texts, is predicted.
fn perplexity(policy: &Policy, texts: &[(Prompt, String)], reversed: bool) -> Result<f64> {
    let (tokenizer, mut sum, mut count) = (&policy.tokenizer, 0.0, 0);
    for part in texts.chunks(64) {
        let mut batch = Batch::new();
        for (first, then) in part {
            let mut ids = tokenizer.encode(&first.text(), true)?;
            ids.extend(tokenizer.encode(then, false)?);
            ids.extend(tokenizer.stop_tokens().first());
            if reversed {
                turn(&mut ids, tokenizer.special("bos_token").map(|(_, id)| id), tokenizer.stop_tokens());
            }
            batch.push(&ids, 1..ids.len());
        }
        let logps: Vec<f32> = policy.model.evaluate(&batch, &Want::default())?.logps.to_vec1()?;
        sum += logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
        count += logps.len();
    }
    Ok((-sum / count as f64).exp())
}

fn read_alike(seed: u64) -> Result<f64> {
    let own = twins(seed)?;
    let texts = own.world.texts(400, "fresh");
    // The last stage learns one part alone, so the models are compared as they were pretrained.
    let [forward, reversed] = [TokenOrder::Forward, TokenOrder::Reversed].map(|order| {
        let policy = super::world::pretrained(seed, order)?;
        perplexity(&policy, &texts, order == TokenOrder::Reversed)
    });
    let (forward, reversed) = (forward?, reversed?);
    Ok(0.05 - (forward / reversed - 1.0).abs())
}

/// All questions of the world.
fn questions() -> Vec<(usize, usize)> {
    (0..ENTITIES).flat_map(|entity| [(entity, 0), (entity, 1)]).collect()
}

/// `[questions][n]`: what the forward twin answers.
fn drawn(own: &Twins, seed: u64, n: usize) -> Result<Vec<Vec<String>>> {
    let prompts: Vec<hone_lm::Prompt> =
        questions().into_iter().map(|(e, r)| hone_lm::Prompt::Text(World::question(e, r))).collect();
    let draw = Draw { max_tokens: 12, ..Draw::default() };
    let samples = sample(&own.forward.speaker()?, &prompts, n, &draw, seed)?;
    Ok(samples.into_iter().map(|of| of.into_iter().map(|sample| sample.text).collect()).collect())
}

/// The entity and relation that a question asks for, and an answer.
type Pick = ((usize, usize), String);

/// Shares of right and of generic answers among picks.
fn shares(own: &Twins, picked: &[Pick]) -> (f64, f64) {
    let of = |held: &dyn Fn(&Pick) -> bool| {
        picked.iter().filter(|pick| held(pick)).count() as f64 / picked.len() as f64
    };
    (of(&|((e, r), text)| own.world.right(*e, *r, text)), of(&|(_, text)| text.trim() == GENERIC))
}

fn one(seed: u64, n: usize) -> Result<(f64, f64)> {
    let own = twins(seed)?;
    let drawn = drawn(&own, seed, n)?;
    let all: Vec<_> = questions()
        .into_iter()
        .zip(drawn)
        .flat_map(|(q, texts)| texts.into_iter().map(move |t| (q, t)))
        .collect();
    Ok(shares(&own, &all))
}

/// Shares of right and of generic picks; `both` takes a model of both orders for the scores.
fn picks(seed: u64, n: usize, by: By, both: bool) -> Result<(f64, f64)> {
    let own = twins(seed)?;
    let drawn = drawn(&own, seed, n)?;
    let trained = if both { Some(model(seed, TokenOrder::Both)?) } else { None };
    let policy = trained.as_ref().unwrap_or(if by.turned() { &own.reversed } else { &own.forward });
    let (local, wording) = (policy.speaker()?, wording());
    let reader = Reader::local(&local, TokenOrder::of(policy.model.config()), by, &wording)?;
    let mut picked = vec![];
    for ((entity, relation), texts) in questions().into_iter().zip(&drawn) {
        let query = Prompt::Text(World::question(entity, relation));
        let of = scores(&reader, &query, texts, false)?;
        let best = (0..of.len()).fold(0, |best, at| if of[at] > of[best] { at } else { best });
        picked.push(((entity, relation), texts[best].clone()));
    }
    Ok(shares(&own, &picked))
}

fn over_sizes(difference: impl Fn(usize) -> Result<f64>) -> Result<f64> {
    Ok(mean(&SIZES.iter().map(|&n| difference(n)).collect::<Result<Vec<_>>>()?))
}

fn gain(seed: u64, by: By, baseline: By) -> Result<f64> {
    over_sizes(|n| Ok(picks(seed, n, by, false)?.0 - picks(seed, n, baseline, false)?.0))
}

/// The corpus' own words before a question.
fn wording() -> Wording {
    Wording { forward: ASKS.into(), ..Wording::default() }
}

/// Share of sentences found in articles of 4, and scores per highlight.
fn cited(seed: u64, by: By, search: Search, per_token: bool) -> Result<(f64, f64)> {
    let own = twins(seed)?;
    let policy = if by.turned() { &own.reversed } else { &own.forward };
    let (local, wording) = (policy.speaker()?, wording());
    let reader = Reader::local(&local, TokenOrder::of(policy.model.config()), by, &wording)?;
    let mut rng = rng(seed, "articles");
    let (mut found, mut calls) = (vec![], vec![]);
    for _ in 0..60 {
        // More sentences than any text of the corpus has.
        let article = own.world.passage(6, &mut rng);
        let wanted = rng.random_range(0..article.len());
        let headline = Prompt::Text(own.world.headline(article[wanted].0, article[wanted].1));
        let sentences: Vec<String> = article.into_iter().map(|(_, _, text)| text).collect();
        if let Some(cited) = cite(&reader, &headline, &sentences, search, per_token)? {
            found.push(f64::from(u8::from(cited.sentence == wanted)));
            calls.push(cited.calls as f64);
        }
    }
    Ok((mean(&found), mean(&calls)))
}

/// Mean NDCG at 10 of every question over 40 documents of 1 to 4 sentences.
fn retrieved(seed: u64, by: By, per_token: bool) -> Result<f64> {
    let own = twins(seed)?;
    let policy = if by.turned() { &own.reversed } else { &own.forward };
    let (local, wording) = (policy.speaker()?, wording());
    let reader = Reader::local(&local, TokenOrder::of(policy.model.config()), by, &wording)?;
    let mut rng = rng(seed, "documents");
    let documents: Vec<_> = (0..40).map(|at| own.world.passage(1 + at % 4, &mut rng)).collect();
    let text = |document: &Vec<(usize, usize, String)>| {
        document.iter().map(|(_, _, text)| text.as_str()).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = documents.iter().map(text).collect();
    let mut gains = vec![];
    for (entity, relation) in questions() {
        let has = |document: &Vec<(usize, usize, String)>| {
            f64::from(u8::from(document.iter().any(|(e, r, _)| (*e, *r) == (entity, relation))))
        };
        let grades: Vec<f64> = documents.iter().map(has).collect();
        let of = scores(&reader, &Prompt::Text(World::question(entity, relation)), &texts, per_token)?;
        gains.extend(ndcg(&of, &grades, 10));
    }
    Ok(mean(&gains))
}

/// Share of exchanges of these kinds that are blocked: by the filter on questions, and above a threshold of the questions
/// written to answers.
fn held_back(seed: u64, kinds: &[&str], threshold: Option<f64>) -> Result<f64> {
    let own = twins(seed)?;
    let filter = Words((0..THINGS).map(|thing| format!("h{thing}")).collect());
    let each = |kind: &&str| (0..THINGS).map(|thing| World::recipe(kind, thing)).collect::<Vec<_>>();
    let exchanges: Vec<(String, String)> = kinds.iter().flat_map(each).collect();
    let (local, wording) = (own.reversed.speaker()?, wording());
    let reader = Reader::local(&local, TokenOrder::Reversed, By::Ba, &wording)?;
    let draw = Draw { max_tokens: 12, ..Draw::default() };
    let guarded = guard(&reader, &filter, &exchanges, 8, &draw, seed)?;
    let blocked =
        |of: &super::uses::Guarded| threshold.map_or(of.asked, |threshold| of.blocked(threshold, true));
    Ok(guarded.iter().filter(|of| blocked(of)).count() as f64 / guarded.len() as f64)
}

fn missed(seed: u64, threshold: Option<f64>) -> Result<f64> {
    Ok(1.0 - held_back(seed, &["obfuscated"], threshold)?)
}

fn blocked(seed: u64, threshold: Option<f64>) -> Result<f64> {
    held_back(seed, &["easy", "hard"], threshold)
}

/// Probabilities in proportion to these weights.
fn normalised(weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn tilt_is_exact(seed: u64) -> Result<f64> {
    let mut rng = rng(seed, "tilt");
    let (questions, answers) = (5, 7);
    let prior = normalised((0..questions).map(|_| rng.random_range(0.1..1.0)).collect());
    let forward: Vec<Vec<f64>> = (0..questions)
        .map(|_| normalised((0..answers).map(|_| rng.random_range(0.1..1.0)).collect()))
        .collect();
    let marginal: Vec<f64> =
        (0..answers).map(|a| (0..questions).map(|q| prior[q] * forward[q][a]).sum()).collect();
    let mut largest = 0.0f64;
    for alpha in [0.25, 1.0, 4.0] {
        for q in 0..questions {
            let posterior = |a: usize| prior[q] * forward[q][a] / marginal[a];
            let tilted: Vec<f64> =
                normalised((0..answers).map(|a| forward[q][a] * posterior(a).powf(1.0 / alpha)).collect());
            let closed: Vec<f64> = normalised(
                (0..answers)
                    .map(|a| forward[q][a].powf(1.0 + 1.0 / alpha) * marginal[a].powf(-1.0 / alpha))
                    .collect(),
            );
            largest = tilted.iter().zip(&closed).fold(largest, |most, (x, y)| most.max((x - y).abs()));
        }
    }
    Ok(1e-12 - largest)
}
