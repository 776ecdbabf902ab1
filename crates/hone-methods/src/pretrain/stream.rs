//! The endless, seeded stream of training conversations.
//!
//! Conversation `i` depends on the seed, the mix and `i` alone, so a run that resumes at `i` goes on as if it had
//! never stopped.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use hone_worlds::roles::{self, Role};
use hone_worlds::seed::{mix, rng};
use hone_worlds::{Detail, Task, World};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::mix::{Mix, draw};
use crate::error::Result;

/// Tasks per level whose answers are run in the stream, where checking runs a program: running a fresh one for every
/// conversation would cost more than training on it. Fresh tasks are drawn where nothing is run.
const RUN_TASKS: u64 = 400;

/// Wrong answers made of each of those tasks.
const RUN_MISTAKES: u64 = 6;

/// Kinds of error that spoil the form of an answer. The model is shown them to criticise, never to write.
const FORM: [&str; 2] = ["format", "syntax"];

/// One prompt and the reply to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// What the model does in it.
    pub role: Role,
    /// Index of the world in the mix.
    pub world: usize,
    /// Level of the task.
    pub level: u32,
    /// Seed of the task.
    pub seed: u64,
    /// The user's text.
    pub prompt: String,
    /// Where a right answer stands in it, in bytes.
    pub shown: Option<Range<usize>>,
    /// The assistant's text.
    pub reply: String,
}

/// The stream of one seed and mix.
#[derive(Debug)]
pub struct Stream {
    seed: u64,
    mix: Mix,
    worlds: Vec<Box<dyn World>>,
    /// What was said about answers that had to be run, by world, task, level of detail and answer.
    said: Mutex<HashMap<(usize, u64, Detail, String), String>>,
}

impl Stream {
    /// # Errors
    /// As [`Mix::worlds`].
    pub fn new(seed: u64, mix: Mix) -> Result<Stream> {
        let worlds = mix.worlds()?;
        Ok(Stream { seed, mix, worlds, said: Mutex::default() })
    }

    /// The mix it draws from.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Conversation number `index`.
    ///
    /// # Errors
    /// [`hone_worlds::Error::Sandbox`] where a program has to be run and cannot be.
    pub fn conversation(&self, index: u64) -> Result<Conversation> {
        let rng = &mut rng(self.seed, &format!("pretrain/{index}"));
        let role = Role::ALL[draw(Role::ALL.iter().map(|role| self.mix.weight(*role)), rng)];
        let world = draw(self.mix.worlds.iter().map(|share| share.weight), rng);
        let share = &self.mix.worlds[world];
        let level = *self.worlds[world].levels().start() + draw(share.levels.iter().copied(), rng) as u32;
        let run = self.worlds[world].runs_programs() && matches!(role, Role::Criticise | Role::Refine);
        let seed = match run {
            true => mix(self.seed, &format!("pretrain/run/{}", rng.random_range(0..RUN_TASKS))),
            false => rng.random(),
        };
        let task = self.worlds[world].task(level, seed)?;
        let asked = Asked { stream: self, task: task.as_ref(), world, level, seed };
        let mut shown = None;
        let (prompt, reply) = match role {
            Role::Answer => {
                let slips = rng.random_bool(share.slip);
                let reply = if slips { slip(task.as_ref(), rng)? } else { task.reference() };
                (roles::answer(&task.prompt()), reply)
            }
            Role::Criticise => {
                let answer = asked.answer(self.mix.right, rng, &mut shown)?;
                let said = asked.explain(&answer, Detail::Correction)?;
                (roles::criticise(&task.prompt(), &answer), said)
            }
            Role::Refine => {
                let answer = asked.answer(self.mix.approved, rng, &mut shown)?;
                let detail = match rng.random_bool(self.mix.vague) {
                    true => Detail::ALL[rng.random_range(0..Detail::ALL.len() - 1)],
                    false => Detail::Correction,
                };
                let said = asked.explain(&answer, detail)?;
                (roles::refine(&task.prompt(), &answer, &said), task.reference())
            }
            Role::Label => {
                let answer = asked.answer(0.5, rng, &mut shown)?;
                let label = if shown.is_some() { roles::YES } else { roles::NO };
                (roles::label(&task.prompt(), &answer), label.to_string())
            }
        };
        Ok(Conversation { role, world, level, seed, prompt, shown, reply })
    }
}

/// One task and what the stream needs to know about it.
struct Asked<'a> {
    stream: &'a Stream,
    task: &'a dyn Task,
    world: usize,
    level: u32,
    seed: u64,
}

impl Asked<'_> {
    fn runs(&self) -> bool {
        self.stream.worlds[self.world].runs_programs()
    }

    /// A right answer with this probability, and then where it will stand in the prompt; else a wrong one.
    fn answer(&self, right: f64, rng: &mut ChaCha8Rng, shown: &mut Option<Range<usize>>) -> Result<String> {
        if !rng.random_bool(right) {
            return self.mistake(rng);
        }
        let answer = self.task.reference();
        let start = roles::label(&self.task.prompt(), "").len() - "\n[right?]".len();
        *shown = Some(start..start + answer.len());
        Ok(answer)
    }

    /// A wrong answer: one planted error, or what somebody of little skill would write.
    fn mistake(&self, rng: &mut ChaCha8Rng) -> Result<String> {
        let plant = |rng: &mut ChaCha8Rng| -> Result<String> {
            let kinds = self.task.plantable();
            let kind = kinds.get(rng.random_range(0..kinds.len().max(1))).copied().unwrap_or_default();
            Ok(self.task.plant(kind, rng)?.answer)
        };
        if self.runs() {
            // Few enough that each is run once. A planted error is one by construction: it need not be run here.
            let label = format!("pretrain/mistake/{}", rng.random_range(0..RUN_MISTAKES));
            return plant(&mut hone_worlds::seed::rng(self.seed, &label));
        }
        if rng.random_bool(0.5) {
            let answer = self.task.attempt(0.3, rng);
            if !self.task.check(&answer)?.right {
                return Ok(answer);
            }
        }
        plant(rng)
    }

    fn explain(&self, answer: &str, detail: Detail) -> Result<String> {
        if !self.runs() {
            return Ok(self.task.explain(answer, detail)?);
        }
        let key = (self.world, mix(self.seed, &self.level.to_string()), detail, answer.to_string());
        let known = self.stream.said.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(said) = known {
            return Ok(said);
        }
        let said = self.task.explain(answer, detail)?;
        self.stream.said.lock().unwrap_or_else(PoisonError::into_inner).insert(key, said.clone());
        Ok(said)
    }
}

/// An answer with one planted error that leaves its form whole.
fn slip(task: &dyn Task, rng: &mut ChaCha8Rng) -> Result<String> {
    let mut kinds = task.plantable();
    kinds.retain(|kind| !FORM.contains(kind));
    if kinds.is_empty() {
        return Ok(task.reference());
    }
    let kind = kinds[rng.random_range(0..kinds.len())];
    Ok(task.plant(kind, rng)?.answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worlds whose checks run nothing.
    fn quick() -> Mix {
        let mut mix = Mix::default();
        mix.only_worlds(&["sums", "notes", "lists"].map(String::from)).unwrap();
        mix
    }

    #[test]
    fn conversations_are_what_the_roles_say() {
        let stream = Stream::new(5, quick()).unwrap();
        let mut seen: HashMap<(Role, bool), usize> = HashMap::new();
        for index in 0..3000 {
            let talk = stream.conversation(index).unwrap();
            let task = stream.worlds[talk.world].task(talk.level, talk.seed).unwrap();
            let asked = task.prompt();
            // What stands between the cue of the answer and the next one.
            let shown = |cue: &str| {
                let rest = talk.prompt.strip_prefix(&format!("{asked}\n[answer]\n")).unwrap();
                rest.split_once(&format!("\n{cue}")).unwrap().0.to_string()
            };
            let right = |answer: &str| task.check(answer).unwrap().right;
            let good = match talk.role {
                Role::Answer => {
                    assert_eq!(talk.prompt, asked);
                    assert!(task.check(&talk.reply).unwrap().well_formed);
                    right(&talk.reply)
                }
                Role::Criticise => {
                    let answer = shown("[check]");
                    assert_eq!(talk.prompt, roles::criticise(&asked, &answer));
                    assert_eq!(talk.reply, task.explain(&answer, Detail::Correction).unwrap());
                    right(&answer)
                }
                Role::Refine => {
                    let answer = shown("[check]");
                    let said = Detail::ALL.map(|detail| task.explain(&answer, detail).unwrap());
                    let asks = |said: &String| talk.prompt == roles::refine(&asked, &answer, said);
                    assert!(said.iter().any(asks), "{}", talk.prompt);
                    assert_eq!(talk.reply, task.reference());
                    right(&answer)
                }
                Role::Label => {
                    let answer = shown("[right?]");
                    assert_eq!(talk.prompt, roles::label(&asked, &answer));
                    assert_eq!(talk.reply, roles::true_label(task.as_ref(), &answer).unwrap());
                    right(&answer)
                }
            };
            if talk.role != Role::Answer {
                let shown = talk.shown.clone().map(|range| talk.prompt[range].to_string());
                assert_eq!(shown, good.then(|| task.reference()), "{talk:?}");
            }
            *seen.entry((talk.role, good)).or_default() += 1;
        }
        let share = |role: Role| {
            let [good, bad] = [true, false].map(|good| *seen.get(&(role, good)).unwrap_or(&0) as f64);
            ((good + bad) / 3000.0, good / (good + bad))
        };
        let mix = stream.mix();
        let all: f64 = Role::ALL.iter().map(|role| mix.weight(*role)).sum();
        for role in Role::ALL {
            // Standard deviation of a share of 3000: at most sqrt(0.25 / 3000) = 0.009; four of them.
            assert!((share(role).0 - mix.weight(role) / all).abs() < 0.037, "{role:?} {seen:?}");
        }
        // Shares of right answers: of some 500 conversations each, so a deviation is at most 0.022; four of them.
        for (role, expected) in
            [(Role::Criticise, mix.right), (Role::Refine, mix.approved), (Role::Label, 0.5)]
        {
            assert!((share(role).1 - expected).abs() < 0.09, "{role:?} {seen:?}");
        }
    }

    #[test]
    fn conversations_follow_from_seed_and_number() {
        let talk = |seed, index| Stream::new(seed, quick()).unwrap().conversation(index).unwrap();
        let stream = Stream::new(1, quick()).unwrap();
        let in_order: Vec<_> = (0..20).map(|index| stream.conversation(index).unwrap()).collect();
        assert!((0..20).rev().all(|index| talk(1, index) == in_order[index as usize]));
        assert!((0..20).any(|index| talk(2, index) != in_order[index as usize]));
    }

    #[test]
    fn programs_are_drawn_from_few_tasks_where_they_are_run() {
        let mut mix = Mix::default();
        mix.only_worlds(&["programs".to_string()]).unwrap();
        let stream = Stream::new(3, mix).unwrap();
        let mut asked = 0;
        for index in 0..60 {
            let talk = stream.conversation(index).unwrap();
            let Some((task, rest)) = talk.prompt.split_once("\n[answer]\n") else { continue };
            asked += 1;
            assert!(task.starts_with("write f("), "{task}");
            if talk.role == Role::Label {
                // Labels are not run in the stream; here they are.
                let task = stream.worlds[talk.world].task(talk.level, talk.seed).unwrap();
                let answer = rest.strip_suffix("\n[right?]").unwrap();
                assert_eq!(talk.reply, roles::true_label(task.as_ref(), answer).unwrap(), "{answer}");
            }
        }
        let known = stream.said.lock().unwrap().len();
        assert!(asked > 20 && known > 5 && known <= asked, "{known} of {asked}");
    }
}
