//! The claims, and what they are measured on.

use hone_feedback::Record;
use hone_feedback::metrics::mean;

use super::{BAD, GOOD, ID, Leti, learn, passing, tried};
use crate::bench::{self, Bench};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::condition::with_tokens;
use crate::imitate::general::{General, loss_on};
use crate::imitate::sft::imitate;
use crate::method::{Claim, Job};
use crate::oracle::{Oracle, Verdict};
use crate::policy::Policy;
use crate::refine::Draw;
use crate::train::{Decay, Session, Training};

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_more_answers_pass",
        says: "Without any reference, more answers to held-out prompts pass than at the start.",
        metric: "share of answers to held-out prompts that pass, asked with the good token",
        baseline: "the policy at its start",
        effect: more_pass,
    },
    Claim {
        name: "claim_as_good_as_references",
        says: "It reaches what imitating one reference per prompt does, or more.",
        metric: "share of answers to held-out prompts that pass",
        baseline: "supervised fine-tuning on references, as many steps",
        effect: over_references,
    },
    Claim {
        name: "claim_text_beats_the_token_alone",
        says: "What the run said, before failed answers, makes the policy better sooner than the token alone.",
        metric: "share of held-out answers that pass, mean over the iterations",
        baseline: "the tokens for good and bad alone, as many steps",
        effect: text_helps,
    },
    Claim {
        name: "claim_good_beats_bad_and_none",
        says: "Asked with the good token, more answers pass than with the bad one or none.",
        metric: "share of held-out answers that pass with the good token",
        baseline: "the better of the bad token and none",
        effect: good_beats,
    },
    Claim {
        name: "claim_the_commonest_error_shrinks_fastest",
        says: "The kind of error that is named most at the start loses the largest share of its occurrences.",
        metric: "fall of the commonest kind of error, as a share of its rate at the start",
        baseline: "the same for the other kind",
        effect: commonest_shrinks,
    },
    Claim {
        name: "claim_general_steps_keep_the_language",
        says: "With steps on general text in turn, the policy stays a better model of such text.",
        metric: "log-likelihood of held-out general text, nats per token",
        baseline: "no steps on general text",
        effect: text_keeps,
    },
    Claim {
        name: "claim_more_samples_help",
        says: "More answers per prompt make more of the held-out ones pass.",
        metric: "share of held-out answers that pass",
        baseline: "a quarter of the answers per prompt",
        effect: more_samples,
    },
    Claim {
        name: "claim_more_prompts_help",
        says: "More prompts make more of the held-out answers pass.",
        metric: "share of held-out answers that pass",
        baseline: "a quarter of the prompts",
        effect: more_prompts,
    },
];

/// A toy language on the bench's words: an answer is a program of words that run in turn. A quarter of the words are
/// not defined, an eighth take other arguments; the first of them that is met raises an error that names it. An answer
/// passes if it runs to its end.
#[derive(Debug)]
pub(super) struct Toy {
    bench: Bench,
}

impl Toy {
    /// Kind of the error that a word raises.
    pub(super) fn error(&self, word: &str) -> Option<&'static str> {
        match self.bench.utility(word) {
            taste if taste < -0.5 => Some("NameError"),
            taste if taste < -0.25 => Some("TypeError"),
            _ => None,
        }
    }

    fn first(&self, answer: &str) -> Option<(&'static str, String)> {
        answer.split_whitespace().find_map(|word| Some((self.error(word)?, word.to_string())))
    }
}

impl Oracle for Toy {
    fn check(&self, _: &Record, answer: &str) -> Result<Option<Verdict>> {
        let error = self.first(answer);
        let right = error.is_none() && !answer.trim().is_empty();
        let words = error.map_or_else(String::new, |(kind, word)| format!("{kind} {word}"));
        Ok(Some(Verdict { right, score: f64::from(u8::from(right)), well_formed: true, words }))
    }
}

/// The toy language with prompts to learn from and prompts held out.
pub(super) struct Ground {
    pub(super) toy: Toy,
    pub(super) train: Vec<Record>,
    held_out: Vec<Record>,
    text: String,
    seed: u64,
}

impl Ground {
    pub(super) fn new(seed: u64) -> Result<Ground> {
        let bench = Bench::new(seed)?;
        let (train, held_out) = (bench.records(32, 0, "train"), bench.records(60, 0, "held out"));
        let text = Ground::text(&bench, "general", seed)?;
        Ok(Ground { toy: Toy { bench }, train, held_out, text, seed })
    }

    fn text(bench: &Bench, name: &str, seed: u64) -> Result<String> {
        let records = bench.records(200, 1, name);
        let lines: Vec<String> = records
            .iter()
            .map(|record| {
                let answer = record.responses.first().map(|r| r.content.text().into_owned());
                let text = format!("{} {}", crate::policy::text(&record.prompt), answer.unwrap_or_default());
                serde_json::json!({ "text": text }).to_string()
            })
            .collect();
        let path = bench::temporary(&format!("leti-{seed}-{name}"))?.join("text.jsonl");
        std::fs::write(&path, lines.join("\n")).map_err(Error::io(&path))?;
        Ok(path.display().to_string())
    }

    pub(super) fn start(&self) -> Result<Policy> {
        with_tokens(self.toy.bench.policy()?, &["NameError", "TypeError"], false, 1)
    }

    pub(super) fn own(&self) -> Leti {
        let draw = Draw { max_tokens: 16, ..Draw::default() };
        let training = Training {
            learning_rate: 3e-3,
            batch_size: 16,
            epochs: 3.0,
            warm_up: 0.0,
            decay: Decay::Constant,
            max_tokens: 64,
            ..Training::default()
        };
        let general =
            General { source: self.text.clone(), row_tokens: 64, batch_size: 2, ..General::default() };
        Leti { iterations: 20, samples: 8, draw, training, general, ..Leti::default() }
    }

    /// Trains; the share of held-out answers that pass after each iteration, and the policy.
    pub(super) fn learn(&self, own: &Leti, prompts: usize) -> Result<(Vec<f64>, Policy)> {
        let mut curve = vec![];
        let nothing = toml::Table::new();
        let job = Job {
            policy: self.start()?,
            records: self.train.get(..prompts).unwrap_or(&self.train),
            oracle: Some(&self.toy),
            settings: &nothing,
            seed: self.seed,
            session: Session::default(),
        };
        let policy = learn(job, own, &mut |policy| {
            curve.push(self.pass(policy, Some(GOOD))?);
            Ok(())
        })?;
        Ok((curve, policy))
    }

    pub(super) fn pass(&self, policy: &Policy, before: Option<&str>) -> Result<f64> {
        let own = self.own();
        passing(policy, &self.held_out, Some(&self.toy), &own, (before, &own.draw, 4), self.seed)
    }

    fn last(&self, own: &Leti, prompts: usize) -> Result<f64> {
        Ok(self.learn(own, prompts)?.0.last().copied().unwrap_or(0.0))
    }
}

pub(super) const PROMPTS: usize = 32;

pub(super) fn more_pass(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    Ok(ground.last(&ground.own(), PROMPTS)? - ground.pass(&ground.start()?, None)?)
}

pub(super) fn over_references(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let own = ground.own();
    // One right answer to each prompt; as many steps as on the sampled ones, without those on general text.
    let pool = ground.toy.bench.records(2000, 1, "references");
    let right = pool.iter().filter_map(|record| record.responses.first());
    let mut right = right.filter(|answer| ground.toy.first(&answer.content.text()).is_none());
    let start = ground.start()?;
    let mut examples = Examples::default();
    for (index, record) in ground.train.iter().enumerate() {
        let Some(answer) = right.next() else { break };
        let Some(sequence) = start.encode(&record.prompt, &answer.content.text(), 64)? else { continue };
        examples.items.push(Example {
            record: index,
            sequences: vec![sequence],
            labels: vec![],
            marks: vec![],
        });
    }
    let epochs = own.training.epochs * (own.iterations * own.samples) as f64;
    let training = Training { epochs, ..own.training.clone() };
    let nothing = toml::Table::new();
    let job = Job {
        policy: start,
        records: &ground.train,
        oracle: None,
        settings: &nothing,
        seed,
        session: Session::default(),
    };
    let imitated = imitate(ID, job, &examples, &training)?.policy()?;
    Ok(ground.last(&own, PROMPTS)? - ground.pass(&imitated, None)?)
}

pub(super) fn text_helps(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let own = ground.own();
    let binary = Leti { text: false, ..own.clone() };
    Ok(mean(&ground.learn(&own, PROMPTS)?.0) - mean(&ground.learn(&binary, PROMPTS)?.0))
}

pub(super) fn good_beats(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let (curve, policy) = ground.learn(&ground.own(), PROMPTS)?;
    let others = ground.pass(&policy, Some(BAD))?.max(ground.pass(&policy, None)?);
    Ok(curve.last().copied().unwrap_or(0.0) - others)
}

pub(super) fn commonest_shrinks(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let own = ground.own();
    let rates = |policy: &Policy, before| -> Result<[f64; 2]> {
        let how = (before, &own.draw, 4);
        let tried = tried(policy, &ground.held_out, Some(&ground.toy), &own, how, seed)?;
        let of = |kind: &str| {
            let count = tried.iter().filter(|one| one.verdict.words.starts_with(kind)).count();
            count as f64 / tried.len().max(1) as f64
        };
        Ok([of("NameError"), of("TypeError")])
    };
    let old = rates(&ground.start()?, None)?;
    let new = rates(&ground.learn(&own, PROMPTS)?.1, Some(GOOD))?;
    let fall = |at: usize| (old[at] - new[at]) / old[at].max(1e-9);
    let most = usize::from(old[1] > old[0]);
    Ok(fall(most) - fall(1 - most))
}

pub(super) fn text_keeps(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let source = Ground::text(&ground.toy.bench, "unseen", seed)?;
    let held_out = General { source, row_tokens: 64, ..General::default() };
    let loss = |own: &Leti| -> Result<f64> {
        let policy = ground.learn(own, PROMPTS)?.1;
        loss_on(&policy.model, &held_out.rows(&policy, seed)?)
    };
    let own = ground.own();
    Ok(loss(&Leti { general_steps: false, ..own.clone() })? - loss(&own)?)
}

pub(super) fn more_samples(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let own = ground.own();
    let few = Leti { samples: own.samples / 4, ..own.clone() };
    Ok(ground.last(&own, PROMPTS)? - ground.last(&few, PROMPTS)?)
}

pub(super) fn more_prompts(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    Ok(ground.last(&ground.own(), PROMPTS)? - ground.last(&ground.own(), PROMPTS / 4)?)
}
