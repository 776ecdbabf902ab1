//! From sampled answers to critiques, refinements and other guests of a group.

use hone_feedback::Record;
use hone_lm::LanguageModel;
use hone_lm::model::FinishReason;
use hone_nn::Model;
use hone_nn::train::seed::sub_seed;
use hone_worlds::Detail;
use minijinja::context;

use super::{Critique, Mixed};
use crate::error::{Error, Result};
use crate::oracle::Oracle;
use crate::policy::Sequence;
use crate::refine::judge;
use crate::reinforce::{Look, Rollout};
use crate::templates::ask_texts;

/// An answer to be criticised.
struct Attempt<'r> {
    record: &'r Record,
    text: String,
    right: bool,
}

impl Mixed<'_> {
    /// A refinement of each rollout, as an answer to its bare prompt, with the rollout's index; none for a rollout whose
    /// critique or refinement could not be asked for or is too long. Log-probabilities are left out.
    pub(super) fn refine(
        &self,
        current: &Model,
        records: &[Record],
        rollouts: &[Rollout],
        seed: u64,
    ) -> Result<Vec<(Rollout, usize)>> {
        let model = self.home.speaker_of(current)?;
        let mut attempts = vec![];
        for rollout in rollouts {
            let text = self.home.tokenizer.decode(&rollout.sequence.split().1, true)?;
            attempts.push(Attempt { record: &records[rollout.record], text, right: rollout.reward > 0.0 });
        }
        let critiques = self.critiques(&model, &attempts, sub_seed(seed, "criticise"))?;
        let (mut places, mut asked) = (vec![], vec![]);
        for (place, (attempt, critique)) in attempts.iter().zip(critiques).enumerate() {
            let Some(critique) = critique else { continue };
            let prompt = attempt.record.prompt.text();
            let answer = attempt.text.trim();
            asked.push(self.templates.render("refine", context! { prompt, answer, critique })?);
            places.push(place);
        }
        let drawn = ask_texts(&model, asked, 1, &self.own.draw, sub_seed(seed, "refine"))?;
        let mut refined = vec![];
        for (place, samples) in places.into_iter().zip(drawn) {
            let (of, attempt) = (&rollouts[place], &attempts[place]);
            let Some(sample) = samples.into_iter().next() else { continue };
            let tokens: Option<Vec<u32>> = sample.tokens.iter().flatten().map(|token| token.id).collect();
            let Some(tokens) = tokens.filter(|tokens| !tokens.is_empty()) else { continue };
            let sequence = Sequence::of_tokens(&of.sequence.split().0, &tokens);
            if sequence.tokens.len() > self.max_tokens {
                continue;
            }
            let right = judge("critique-grpo", self.oracle, attempt.record, &sample.text)?.right;
            let rollout = Rollout {
                sequence,
                logps: vec![],
                reward: f64::from(u8::from(right)),
                ended: sample.finish != FinishReason::Length,
                ..*of
            };
            refined.push((rollout, place));
        }
        Ok(refined)
    }

    /// Those that join: of each group the right ones first, then the others, each in the order they came.
    pub(super) fn choose(&self, refined: Vec<(Rollout, usize)>) -> Vec<Rollout> {
        let mut chosen = vec![];
        for group in refined.chunk_by(|(a, _), (b, _)| a.group == b.group) {
            let mut group: Vec<&Rollout> = group.iter().map(|(rollout, _)| rollout).collect();
            group.sort_by(|a, b| b.reward.total_cmp(&a.reward));
            group.truncate(self.own.refinements);
            group.retain(|rollout| self.own.keep_wrong || rollout.reward > 0.0);
            chosen.extend(group.into_iter().cloned());
        }
        chosen
    }

    /// The oracle's right answer to each group's prompt.
    pub(super) fn demonstrations(&self, look: &Look<'_>, rollouts: &[Rollout]) -> Result<Vec<Rollout>> {
        let mut guests = vec![];
        for group in rollouts.chunk_by(|a, b| a.group == b.group) {
            let record = &look.records[group[0].record];
            let Some(answer) = self.oracle()?.reference(record)? else { continue };
            let Some(sequence) = self.home.encode(&record.prompt, &answer, self.max_tokens)? else {
                continue;
            };
            guests.push(Rollout { sequence, logps: vec![], reward: 1.0, ended: true, ..group[0] });
        }
        Ok(guests)
    }

    /// What is said of each attempt; `None` where nothing could be said.
    fn critiques(
        &self,
        model: &dyn LanguageModel,
        attempts: &[Attempt<'_>],
        seed: u64,
    ) -> Result<Vec<Option<String>>> {
        let own = self.own;
        let plain = |right: bool| if right { own.says_right.clone() } else { own.says_wrong.clone() };
        let verdict = |attempt: &Attempt<'_>| Some(plain(attempt.right));
        match own.critique {
            Critique::Verdict => Ok(attempts.iter().map(verdict).collect()),
            Critique::Gold => attempts
                .iter()
                .map(|attempt| match (attempt.right, self.gold(attempt.record)?) {
                    (false, Some(gold)) => self.templates.render("says_gold", context! { gold }).map(Some),
                    _ => Ok(verdict(attempt)),
                })
                .collect(),
            Critique::Words => attempts
                .iter()
                .map(|attempt| match attempt.right {
                    true => Ok(verdict(attempt)),
                    false => self.oracle()?.explain(attempt.record, &attempt.text, Detail::from(own.detail)),
                })
                .collect(),
            Critique::Model | Critique::Own => {
                let critic = match &self.critic {
                    Some(critic) => critic,
                    None => model,
                };
                let mut asked = vec![];
                for attempt in attempts {
                    let gold = match own.critique {
                        Critique::Model => self.oracle()?.reference(attempt.record)?,
                        _ => None,
                    };
                    let (prompt, answer) = (attempt.record.prompt.text(), attempt.text.trim());
                    let gold = gold.unwrap_or_default();
                    asked.push(self.templates.render("criticise", context! { prompt, answer, gold })?);
                }
                let said = ask_texts(critic, asked, 1, &own.critic_draw, seed)?;
                let said = attempts.iter().zip(said).map(|(attempt, samples)| match own.critique {
                    Critique::Model if attempt.right => verdict(attempt),
                    _ => samples.into_iter().next().map(|sample| sample.text),
                });
                Ok(said.collect())
            }
        }
    }

    /// What of the right answer is told.
    fn gold(&self, record: &Record) -> Result<Option<String>> {
        let reference = self.oracle()?.reference(record)?;
        Ok(reference.map(|text| self.own.gold.of(&text).to_string()))
    }

    fn oracle(&self) -> Result<&dyn Oracle> {
        self.oracle.ok_or_else(|| Error::Data {
            method: "critique-grpo".into(),
            needed: "prompts whose answers can be checked".into(),
            got: "records without a task or tests".into(),
        })
    }
}
