//! Words to be removed: answers of made-up words, some of which nobody wants, and a policy that answers, removes words it
//! is told to remove, and says whether they are gone. The published toy task, with harmless words, and a loop around it.
//!
//! A feedback names up to three unwanted words of an answer, or says `keep`. One refinement in six that the policy was
//! shown changes nothing, and one verdict in ten is wrong. Without feedback a refinement drops one word at random.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use hone_feedback::metrics::mean;
use hone_feedback::{Form, Prompt, Record};
use hone_nn::ModelConfig;
use hone_nn::train::seed::{rng, sub_seed};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::select::logps;
use super::{Ilf, Question, Said, examples, imitated, targets};
use crate::bench::fitted;
use crate::error::{Error, Result};
use crate::oracle::{Oracle, Verdict};
use crate::policy::Policy;
use crate::refine::Draw;
use crate::templates::{after, ask_texts};
use crate::train::{Session, Training};

const WANTED: usize = 8;
const UNWANTED: usize = 4;
/// Wordings of the question whether words are gone.
const ASKS: [&str; 5] = ["gone", "free", "clean", "lacks", "without"];

fn wanted(rng: &mut ChaCha8Rng) -> String {
    format!("w{}", rng.random_range(0..WANTED))
}

fn is_unwanted(word: &str) -> bool {
    word.starts_with('x')
}

fn answer(rng: &mut ChaCha8Rng) -> String {
    let mut one = |_| match rng.random_bool(0.25) {
        true => format!("x{}", rng.random_range(0..UNWANTED)),
        false => wanted(rng),
    };
    (0..4).map(&mut one).collect::<Vec<_>>().join(" ")
}

/// What a person says of an answer.
pub(super) fn feedback(answer: &str) -> String {
    let mut named: Vec<&str> = vec![];
    for word in answer.split_whitespace().filter(|word| is_unwanted(word)) {
        if !named.contains(&word) && named.len() < 3 {
            named.push(word);
        }
    }
    if named.is_empty() { "keep".into() } else { format!("drop {}", named.join(" ")) }
}

/// The answer without the words that the feedback names.
pub(super) fn without(answer: &str, feedback: &str) -> String {
    let named: Vec<&str> = feedback.split_whitespace().skip(1).collect();
    answer.split_whitespace().filter(|word| !named.contains(word)).collect::<Vec<_>>().join(" ")
}

/// Whether an answer is as everybody wants it.
pub(super) fn right(answer: &str) -> bool {
    !answer.trim().is_empty() && !answer.split_whitespace().any(is_unwanted)
}

fn asked(rng: &mut ChaCha8Rng) -> String {
    format!("say {} {}", wanted(rng), wanted(rng))
}

fn shown(rng: &mut ChaCha8Rng) -> (String, String) {
    let kind: f64 = rng.random();
    let said = answer(rng);
    let told = feedback(&said);
    if kind < 0.25 {
        return (asked(rng), said);
    }
    if kind < 0.7 {
        let better = if rng.random_bool(5.0 / 6.0) { without(&said, &told) } else { said.clone() };
        return match rng.random_bool(0.85) {
            true if !better.is_empty() => (format!("fix {said} : {told}"), better),
            _ => {
                let dropped = rng.random_range(0..4);
                let kept = said.split_whitespace().enumerate().filter(|(at, _)| *at != dropped);
                (format!("fix {said} :"), kept.map(|(_, word)| word).collect::<Vec<_>>().join(" "))
            }
        };
    }
    let better = without(&said, &told);
    let refined = if rng.random_bool(0.5) && !better.is_empty() { better } else { said };
    let gone = without(&refined, &told) == refined;
    let verdict = if gone != rng.random_bool(0.1) { "yes" } else { "no" };
    (format!("{} {told} : {refined}", ASKS[rng.random_range(0..ASKS.len())]), verdict.into())
}

/// One seed's prompts, and the policy that everything starts from.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    folder: PathBuf,
}

impl World {
    /// A world whose policy has this width; each is made once per process.
    pub(super) fn new(seed: u64, width: usize) -> Result<World> {
        static MADE: Mutex<BTreeMap<usize, PathBuf>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = made.get(&width) {
            return Ok(World { seed, folder: folder.clone() });
        }
        let numbered = |name: &'static str, count: usize| (0..count).map(move |n| format!("{name}{n}"));
        let words: Vec<String> =
            ["say", "fix", ":", "drop", "keep", "yes", "no", "answer", "good", "h0", "h1"]
                .into_iter()
                .chain(ASKS)
                .map(String::from)
                .chain(numbered("w", WANTED))
                .chain(numbered("x", UNWANTED))
                .collect();
        let mut rng = rng(0, "ilf start");
        let shown: Vec<(String, String)> = (0..8000).map(|_| shown(&mut rng)).collect();
        let config = |vocabulary| ModelConfig::llama(vocabulary, width, 2, 2, 2, 2 * width);
        let training = Training { learning_rate: 5e-3, epochs: 5.0, batch_size: 32, ..Training::default() };
        let folder = fitted(&format!("ilf-{width}"), &words, config, &shown, &training)?;
        made.insert(width, folder.clone());
        Ok(World { seed, folder })
    }

    pub(super) fn policy(&self) -> Result<Policy> {
        let mut policy = Policy::from_folder(&self.folder)?;
        policy.model.threads = 1;
        Ok(policy)
    }

    pub(super) fn prompts(&self, count: usize, name: &str) -> Vec<String> {
        let mut rng = rng(sub_seed(self.seed, name), "prompts");
        (0..count).map(|_| asked(&mut rng)).collect()
    }

    /// `[count][n]` answers at temperature 1.
    pub(super) fn answers(
        &self,
        policy: &Policy,
        count: usize,
        n: usize,
        name: &str,
    ) -> Result<Vec<Vec<String>>> {
        let draw = Draw { max_tokens: 12, ..Draw::default() };
        let seed = sub_seed(self.seed, name);
        let drawn = ask_texts(&policy.speaker()?, self.prompts(count, name), n, &draw, seed)?;
        Ok(drawn.into_iter().map(|samples| samples.into_iter().map(|sample| sample.text).collect()).collect())
    }

    /// First answers of the policy at its start, and what people say of them. A person's edit ends with two words of
    /// their own, which the policy hardly uses.
    pub(super) fn said(&self, count: usize, name: &str) -> Result<Vec<Said>> {
        let start = self.policy()?;
        let answers = self.answers(&start, count, 1, name)?;
        let said = self.prompts(count, name).into_iter().zip(answers).filter_map(|(prompt, answers)| {
            let answer = answers.into_iter().next()?;
            let feedback = feedback(&answer);
            let gold = Some(format!("{} h0 h1", without(&answer, &feedback)));
            Some(Said { prompt: prompt.into(), answer, feedback, gold })
        });
        Ok(said.collect())
    }

    /// The same as a log.
    pub(super) fn records(&self, count: usize, name: &str) -> Result<Vec<Record>> {
        let said = self.said(count, name)?.into_iter().enumerate();
        Ok(said
            .map(|(index, said)| {
                let record = Record::new(format!("{name} {index}"), said.prompt).respond("a", said.answer);
                record.say(Form::Critique { on: Some("a".into()), text: said.feedback })
            })
            .collect())
    }

    /// Trains on what was said.
    pub(super) fn trained(&self, said: &[Said], own: &Ilf) -> Result<Policy> {
        let start = self.policy()?;
        let targets = targets(&start.speaker()?, said, own, self.seed)?;
        let examples = examples(&start, said, &targets, own)?;
        imitated(start, &examples, own, self.seed, Session::default())
    }

    /// Share of right answers to held-out prompts; what stands before `marker` in an answer does not count.
    pub(super) fn score(&self, policy: &Policy, marker: &str) -> Result<f64> {
        let answers = self.answers(policy, 100, 2, "held out")?;
        let of = |answer: &String| f64::from(u8::from(after(answer, marker).is_some_and(right)));
        Ok(mean(&answers.iter().flatten().map(of).collect::<Vec<_>>()))
    }

    /// Mean negative log-likelihood of texts as answers under the start, in nats per word and stop token.
    pub(super) fn nll(&self, said: &[Said], texts: &[Option<String>]) -> Result<f64> {
        let kept: Vec<(Prompt, String)> = said
            .iter()
            .zip(texts)
            .filter_map(|(said, text)| Some((said.prompt.clone(), text.clone()?)))
            .collect();
        let words: usize = kept.iter().map(|(_, text)| text.split_whitespace().count()).sum();
        let logps = logps(&self.policy()?.speaker()?, kept)?;
        Ok(-logps.iter().sum::<f64>() / words.max(1) as f64)
    }
}

impl Oracle for World {
    fn check(&self, _: &Record, answer: &str) -> Result<Option<Verdict>> {
        let right = right(answer);
        let score = f64::from(u8::from(right));
        Ok(Some(Verdict { right, score, well_formed: true, words: feedback(answer) }))
    }
}

/// Settings in the words that the policy was shown.
pub(super) fn settings() -> Ilf {
    let ask = |word: &str| format!("{word} {{{{ feedback }}}} : {{{{ refinement }}}}");
    Ilf {
        refine: "fix {{ answer }} : {{ feedback }}".into(),
        questions: ASKS.iter().map(|word| Question::new(&ask(word), "yes", "no")).collect(),
        combined: "{{ feedback }} answer {{ refinement }}".into(),
        tries: 1,
        first_line: false,
        whole_sentences: false,
        draw: Draw { max_tokens: 12, ..Draw::default() },
        training: Training {
            learning_rate: 3e-3,
            batch_size: 16,
            epochs: 4.0,
            max_tokens: 64,
            ..Ilf::default().training
        },
        ..Ilf::default()
    }
}

/// The classifier's question.
pub(super) fn good() -> Question {
    Question::new("good : {{ answer }}", "yes", "no")
}

/// Pairs of answers of the start of which one is right and the other is not.
pub(super) fn compared(world: &World, count: usize) -> Result<Vec<(Prompt, String, String)>> {
    let answers = world.answers(&world.policy()?, count, 2, "compared")?;
    let mut pairs = vec![];
    for (prompt, of) in world.prompts(count, "compared").into_iter().zip(answers) {
        let [a, b] = <[String; 2]>::try_from(of)
            .map_err(|of| Error::Log(format!("needs 2 answers, got {}", of.len())))?;
        match (right(&a), right(&b)) {
            (true, false) => pairs.push((prompt.into(), a, b)),
            (false, true) => pairs.push((prompt.into(), b, a)),
            _ => {}
        }
    }
    Ok(pairs)
}
