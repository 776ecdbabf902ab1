//! Prompts of made-up words with a topic, answers with features that can be checked, and a policy that answers, revises
//! and follows rules in its prompt: all that the claims need, in seconds.
//!
//! A topic is one word, `f1m2`: a member of a family, whose topics share most words of their answers. An answer is mostly
//! an opener, three to five words, seldom a closer. A rule asks for one change on one topic. Near it lie the other topics
//! of its family; out of it, prompts without a topic. The policy at its start was shown its own kind of answers, revisions of which one in
//! ten changes nothing, and rules in the prompt: people state a rule mostly where it applies, so four in five did.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hone_nn::ModelConfig;
use hone_nn::train::seed::{rng, sub_seed};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::data::{Data, complete};
use super::prompts::{Asked, Sets, Statement};
use super::scores::{Compared, Manner, Scores, checked, scores};
use super::{C3po, Constraint, Lora, Objective, train};
use crate::bench::fitted;
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::refine::Draw;
use crate::train::{Decay, Session, Training};

const FAMILIES: usize = 4;
const MEMBERS: usize = 3;
const WORDS: usize = 8;
/// Closers a rule can ask for.
const CLOSERS: usize = 3;
/// Prompts per set that are trained on, and that are measured.
const TRAINED: usize = 192;
const MEASURED: usize = 60;
/// Kinds of effect; a seed has one rule of each.
const KINDS: u64 = 3;

/// What a rule changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Ends with this closer.
    Close(usize),
    /// At most three tokens.
    Short,
    /// No opener.
    Plain,
}

impl Effect {
    /// One of each kind in turn.
    fn of_kind(kind: u64, rng: &mut ChaCha8Rng) -> Effect {
        match kind % KINDS {
            0 => Effect::Close(rng.random_range(0..CLOSERS)),
            1 => Effect::Short,
            _ => Effect::Plain,
        }
    }

    fn name(self) -> String {
        match self {
            Effect::Close(which) => format!("close{which}"),
            Effect::Short => "short".into(),
            Effect::Plain => "plain".into(),
        }
    }

    fn holds(self, answer: &str) -> bool {
        let said: Vec<&str> = answer.split_whitespace().collect();
        match self {
            Effect::Close(which) => said.last() == Some(&format!("e{which}").as_str()),
            Effect::Short => said.len() <= 3,
            Effect::Plain => !said.first().is_some_and(|first| first.starts_with('o')),
        }
    }

    /// The answer as the effect wants it.
    fn apply(self, answer: &str) -> String {
        let mut said: Vec<String> = answer.split_whitespace().map(String::from).collect();
        match self {
            Effect::Close(which) => {
                said.retain(|word| !word.starts_with('e'));
                said.push(format!("e{which}"));
            }
            Effect::Short => said.truncate(3),
            Effect::Plain => said.retain(|word| !word.starts_with('o')),
        }
        said.join(" ")
    }
}

/// A rule of the bench.
#[derive(Debug, Clone, Copy)]
struct Rule {
    effect: Effect,
    family: usize,
    member: usize,
}

impl Rule {
    fn drawn(kind: u64, rng: &mut ChaCha8Rng) -> Rule {
        let effect = Effect::of_kind(kind, rng);
        Rule { effect, family: rng.random_range(0..FAMILIES), member: rng.random_range(0..MEMBERS) }
    }

    fn statement(&self) -> Statement {
        let scope = topic(self.family, self.member);
        Statement { text: format!("{} in {scope}", self.effect.name()), scope: Some(scope) }
    }

    fn sets(&self, count: usize, seed: u64) -> Sets {
        let mut rng = rng(seed, "prompts");
        let mut set = |of: &dyn Fn(&mut ChaCha8Rng) -> String| -> Vec<Asked> {
            (0..count).map(|_| Asked { prompt: of(&mut rng).into(), category: 0 }).collect()
        };
        Sets {
            inside: set(&|rng| asked(self.family, self.member, rng)),
            near: set(&|rng| {
                let other = (self.member + rng.random_range(1..MEMBERS)) % MEMBERS;
                asked(self.family, other, rng)
            }),
            outside: set(&|rng| format!("count {} {}", word(rng), word(rng))),
        }
    }
}

fn topic(family: usize, member: usize) -> String {
    format!("f{family}m{member}")
}

fn word(rng: &mut ChaCha8Rng) -> String {
    format!("w{}", rng.random_range(0..WORDS))
}

fn asked(family: usize, member: usize, rng: &mut ChaCha8Rng) -> String {
    format!("{} {} {}", topic(family, member), word(rng), word(rng))
}

fn any_asked(rng: &mut ChaCha8Rng) -> (usize, usize, String) {
    let (family, member) = (rng.random_range(0..FAMILIES), rng.random_range(0..MEMBERS));
    let prompt = asked(family, member, rng);
    (family, member, prompt)
}

/// An answer in the words of a family, if there is one.
fn answer(family: Option<usize>, rng: &mut ChaCha8Rng) -> String {
    let of_family = |family: usize, rng: &mut ChaCha8Rng| format!("w{}", 2 * family + rng.random_range(0..2));
    let one = |rng: &mut ChaCha8Rng| match family {
        Some(family) if rng.random_bool(0.75) => of_family(family, rng),
        _ => word(rng),
    };
    let mut said: Vec<String> = (0..rng.random_range(3..=5)).map(|_| one(rng)).collect();
    if rng.random_bool(0.8) {
        said.insert(0, format!("o{}", rng.random_range(0..2)));
    }
    if rng.random_bool(0.06) {
        said.push(format!("e{}", rng.random_range(0..CLOSERS)));
    }
    said.join(" ")
}

/// One prompt and answer that the policy is shown before any feedback.
fn shown(rng: &mut ChaCha8Rng) -> (String, String) {
    let kind: f64 = rng.random();
    let (family, member, prompt) = any_asked(rng);
    let said = answer(Some(family), rng);
    let mut rule = Rule::drawn(rng.random_range(0..KINDS), rng);
    if kind < 0.3 {
        return match rng.random_bool(0.3) {
            true => (format!("count {} {}", word(rng), word(rng)), answer(None, rng)),
            false => (prompt, said),
        };
    }
    if kind < 0.65 {
        let revised = if rng.random_bool(0.9) { rule.effect.apply(&said) } else { said.clone() };
        return (format!("revise {} : {said}", rule.effect.name()), revised);
    }
    let explains = kind >= 0.82;
    if rng.random_bool(if explains { 0.5 } else { 0.8 }) {
        (rule.family, rule.member) = (family, member);
    }
    let applies = (rule.family, rule.member) == (family, member);
    let of_rule = format!("if {} then {} :", topic(rule.family, rule.member), rule.effect.name());
    let kept = |applies: bool| if applies { rule.effect.apply(&said) } else { said.clone() };
    match explains {
        false => (format!("{of_rule} {prompt}"), kept(applies)),
        true => {
            // One explanation in five is wrong.
            let thought = applies != rng.random_bool(0.2);
            let word = if thought { "yes" } else { "no" };
            (format!("why {of_rule} {prompt}"), format!("{word} answer {}", kept(thought)))
        }
    }
}

/// The folder of the policy at its start, made once per process.
fn start() -> Result<Arc<PathBuf>> {
    static START: OnceLock<Result<Arc<PathBuf>, String>> = OnceLock::new();
    let make = || -> Result<Arc<PathBuf>> {
        let numbered = |name: &'static str, count: usize| (0..count).map(move |n| format!("{name}{n}"));
        let plain = ["count", "revise", ":", "if", "then", "why", "yes", "no", "answer", "short", "plain"];
        let words: Vec<String> = plain
            .into_iter()
            .map(String::from)
            .chain((0..FAMILIES * MEMBERS).map(|n| topic(n / MEMBERS, n % MEMBERS)))
            .chain(numbered("w", WORDS))
            .chain(numbered("o", 2))
            .chain(numbered("e", CLOSERS))
            .chain(numbered("close", CLOSERS))
            .collect();
        let mut rng = rng(0, "c3po start");
        let shown: Vec<(String, String)> = (0..6000).map(|_| shown(&mut rng)).collect();
        let config = |vocabulary| ModelConfig::llama(vocabulary, 48, 2, 2, 2, 96);
        let training = Training {
            learning_rate: 5e-3,
            epochs: 5.0,
            batch_size: 32,
            decay: Decay::Linear,
            ..Training::default()
        };
        Ok(Arc::new(fitted("c3po", &words, config, &shown, &training)?))
    };
    let made = START.get_or_init(|| make().map_err(|e| e.to_string())).clone();
    made.map_err(|problem| Error::File { path: "bench".into(), problem })
}

/// The policy at its start.
pub(super) fn policy() -> Result<Policy> {
    let mut policy = Policy::from_folder(&start()?)?;
    policy.model.threads = 1;
    Ok(policy)
}

/// What is trained or asked, on the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arm {
    /// Pairs and both constraints.
    C3po,
    /// Pairs alone.
    Dpo,
    /// Imitation of the revisions alone.
    Scd,
    /// Imitation of the revisions, and of the start's answers elsewhere.
    ScdNegatives,
    /// Divergence summed over tokens instead of likelihood.
    KlSum,
    /// Divergence averaged over tokens.
    KlMean,
    /// Without the near-scope set.
    NoNear,
    /// Without the out-of-scope set.
    NoOut,
    /// Untrained, told in its prompt.
    Told(Manner),
}

/// Settings of an arm: the published weights and β; rates and ranks for a model of this size.
pub(super) fn settings(arm: Arm, epochs: f64) -> C3po {
    let training =
        Training { learning_rate: 1e-2, batch_size: 16, epochs, max_tokens: 64, ..C3po::default().training };
    let own = C3po {
        revise: "revise {{ effect }} : {{ answer }}".into(),
        in_context: "if {{ scope }} then {{ effect }} : {{ prompt }}".into(),
        in_context_cot: "why if {{ scope }} then {{ effect }} : {{ prompt }}".into(),
        answer_after: String::new(),
        lora: Lora { rank: 8, alpha: 16.0 },
        draw: Draw { max_tokens: 16, ..Draw::default() },
        training,
        ..C3po::default()
    };
    let without = |near_weight, out_weight| C3po { near_weight, out_weight, ..own.clone() };
    match arm {
        Arm::C3po => own,
        Arm::Dpo => without(0.0, 0.0),
        Arm::Scd => C3po { objective: Objective::Imitate, ..without(0.0, 0.0) },
        Arm::ScdNegatives => C3po { objective: Objective::Imitate, ..without(0.5, 0.5) },
        Arm::KlSum => C3po { constraint: Constraint::KlSum, ..own },
        Arm::KlMean => C3po { constraint: Constraint::KlMean, ..own },
        Arm::NoNear => without(0.0, own.out_weight),
        Arm::NoOut => without(own.near_weight, 0.0),
        Arm::Told(_) => C3po { answer_after: "answer".into(), ..own },
    }
}

/// One feedback of a seed.
#[derive(Debug)]
pub(super) struct Feedback {
    rule: Rule,
    seed: u64,
}

impl Feedback {
    pub(super) fn new(seed: u64, index: u64) -> Feedback {
        let seed = sub_seed(seed, &format!("rule {index}"));
        Feedback { rule: Rule::drawn(index, &mut rng(seed, "rule")), seed }
    }

    /// The policy's own answers and revisions.
    pub(super) fn data(&self, start: &Policy) -> Result<Data> {
        let sets = self.rule.sets(TRAINED, sub_seed(self.seed, "train"));
        complete(&start.speaker()?, &self.rule.statement(), &sets, &settings(Arm::C3po, 1.0), self.seed)
    }

    /// Trains an arm.
    pub(super) fn train(&self, arm: Arm, epochs: f64) -> Result<Policy> {
        let start = policy()?;
        let data = self.data(&start)?;
        train(start, &data, &settings(arm, epochs), self.seed, &Session::default())
    }

    /// What came of it, on prompts that were not trained on.
    pub(super) fn measure(&self, after: &Policy, manner: Manner) -> Result<Scores> {
        let (before, after) = (policy()?.speaker()?, after.speaker()?);
        let sets = self.rule.sets(MEASURED, sub_seed(self.seed, "held out"));
        let own = settings(Arm::Told(manner), 1.0);
        let own = if manner == Manner::InContextCot { own } else { settings(Arm::C3po, 1.0) };
        let effect = self.rule.effect;
        let score = |compared: &[Compared]| -> Result<Vec<Option<f64>>> {
            Ok(compared.iter().map(|one| Some(checked(&|text| effect.holds(text), one))).collect())
        };
        scores(&before, &after, &self.rule.statement(), manner, &sets, &own, self.seed, &score)
    }
}

/// Scores of an arm on every rule of a seed. Each is made once per process, since claims share arms.
pub(super) fn of_arm(seed: u64, arm: Arm, epochs: f64) -> Result<Vec<Scores>> {
    type Key = (u64, Arm, u64);
    static DONE: Mutex<BTreeMap<Key, Vec<Scores>>> = Mutex::new(BTreeMap::new());
    let key = (seed, arm, epochs.to_bits());
    if let Some(done) = DONE.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(done.clone());
    }
    let one = |index: u64| -> Result<Scores> {
        let feedback = Feedback::new(seed, index);
        match arm {
            Arm::Told(manner) => feedback.measure(&policy()?, manner),
            arm => feedback.measure(&feedback.train(arm, epochs)?, Manner::Plain),
        }
    };
    let made = (0..KINDS).map(one).collect::<Result<Vec<_>>>()?;
    DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made.clone());
    Ok(made)
}
