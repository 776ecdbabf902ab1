//! What a search is made of: candidates with embeddings, answers under each of them, and what they are worth.

use std::collections::HashMap;
use std::path::Path;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::LanguageModel;
use hone_nn::train::seed::sub_seed;

use super::Apohf;
use super::bandit::Bandit;
use super::candidates::{self, Candidate};
use super::session::Shown;
use crate::error::{Error, Result};
use crate::oracle::Oracle;
use crate::policy::lm_prompt;
use crate::refine::trace::said_by_user;
use crate::refine::{Cost, ask, given, sample, tokens};
use crate::templates::Templates;

/// The candidates of a search among prompts, with embeddings: those of `kept` if the file is there, else those of the
/// settings or their file, else what `model` writes from `examples`. They are written to `kept`.
///
/// # Errors
/// Those of reading, of the models, and of writing.
pub fn prompts(
    model: &dyn LanguageModel,
    embedder: &dyn LanguageModel,
    own: &Apohf,
    examples: &[(String, String)],
    kept: Option<&Path>,
    seed: u64,
) -> Result<Vec<Candidate>> {
    let plain = |texts: Vec<String>| texts.into_iter().map(|text| Candidate::new(text, 0)).collect();
    let made = || -> Result<Vec<Candidate>> {
        Ok(match (own.file.as_str(), own.prompts.as_slice()) {
            ("", []) => plain(candidates::propose(model, own, examples, seed)?),
            ("", listed) => candidates::distinct(plain(listed.to_vec())),
            (file, _) => candidates::read(Path::new(file))?,
        })
    };
    embedded(embedder, &[], kept, made)
}

/// The candidates of a search among responses: those of each record, and what `model` answers where there are fewer than
/// two. Records count from 0 in `group`.
///
/// # Errors
/// [`Error::Data`] for a record with fewer than two different responses; those of the models and of writing.
pub fn responses(
    model: &dyn LanguageModel,
    embedder: &dyn LanguageModel,
    own: &Apohf,
    records: &[Record],
    kept: Option<&Path>,
    seed: u64,
) -> Result<Vec<Candidate>> {
    let made = || -> Result<Vec<Candidate>> {
        let bare: Vec<usize> = (0..records.len()).filter(|&at| records[at].responses.len() < 2).collect();
        let asked = bare.iter().map(|&at| lm_prompt(&records[at].prompt, model.capabilities().chat));
        let said = sample(
            model,
            &asked.collect::<Result<Vec<_>>>()?,
            own.responses,
            &own.write,
            sub_seed(seed, "responses"),
        )?;
        let mut all = vec![];
        for (group, record) in records.iter().enumerate() {
            let texts = record.responses.iter().map(|r| r.content.text().into_owned());
            all.extend(texts.map(|text| Candidate::new(text, group)));
        }
        for (&group, samples) in bare.iter().zip(said) {
            all.extend(samples.into_iter().map(|sample| Candidate::new(sample.text, group)));
        }
        all.retain(|candidate| !candidate.text.trim().is_empty());
        let all = candidates::distinct(all);
        for (group, record) in records.iter().enumerate() {
            let count = all.iter().filter(|c| c.group == group).count();
            if count < 2 {
                let needed = format!("at least 2 different responses to record {}", record.id);
                return Err(Error::Data { method: "apohf".into(), needed, got: count.to_string() });
            }
        }
        Ok(all)
    };
    let queries: Vec<String> = records.iter().map(|record| record.prompt.text().into_owned()).collect();
    embedded(embedder, &queries, kept, made)
}

fn embedded(
    embedder: &dyn LanguageModel,
    queries: &[String],
    kept: Option<&Path>,
    made: impl FnOnce() -> Result<Vec<Candidate>>,
) -> Result<Vec<Candidate>> {
    if let Some(kept) = kept.filter(|path| path.exists()) {
        return candidates::read(kept);
    }
    let mut found = made()?;
    candidates::embed(embedder, &mut found, queries)?;
    if let Some(kept) = kept {
        candidates::write(kept, &found)?;
    }
    Ok(found)
}

/// The learner of a search among these.
///
/// # Errors
/// As [`Bandit::new`].
pub fn bandit(own: &Apohf, candidates: &[Candidate], seed: u64) -> Result<Bandit> {
    Bandit::new(own.rules(), candidates.iter().map(|c| c.embedding.clone()).collect(), seed)
}

/// A model that follows instructions on some questions; what it was asked once it is not asked again.
pub struct Answers<'a> {
    model: &'a dyn LanguageModel,
    own: &'a Apohf,
    templates: Templates<'a>,
    records: &'a [Record],
    seed: u64,
    known: HashMap<(String, usize), String>,
    /// What all of it has cost.
    pub cost: Cost,
}

impl std::fmt::Debug for Answers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("known", &self.known.len()).field("cost", &self.cost).finish()
    }
}

impl<'a> Answers<'a> {
    /// Nothing asked yet.
    ///
    /// # Errors
    /// Those of the templates.
    pub fn new(
        model: &'a dyn LanguageModel,
        own: &'a Apohf,
        records: &'a [Record],
        seed: u64,
    ) -> Result<Answers<'a>> {
        let templates = own.templates()?;
        Ok(Answers { model, own, templates, records, seed, known: HashMap::new(), cost: Cost::default() })
    }

    /// The answers to these questions under an instruction; under an empty one, to the questions as they are. A question
    /// that leaves no place for an answer gets an empty one.
    ///
    /// # Errors
    /// Those of the model; [`Error::Settings`] for a template that names what is not there.
    pub fn to(&mut self, instruction: &str, questions: &[usize]) -> Result<Vec<String>> {
        let missing: Vec<usize> = questions
            .iter()
            .copied()
            .filter(|&at| !self.known.contains_key(&(instruction.to_owned(), at)))
            .collect();
        let mut asked = vec![];
        for &at in &missing {
            let record = &self.records[at];
            let prompt = match instruction {
                "" => lm_prompt(&record.prompt, self.model.capabilities().chat)?,
                _ => {
                    let input = record.prompt.text();
                    let context = minijinja::context! { instruction, input => &*input };
                    said_by_user(self.model, self.templates.render("apply", context)?)
                }
            };
            // One stream a question, so that an answer does not depend on what is asked beside it.
            asked.push((prompt, Some(sub_seed(self.seed, &format!("question {at}")))));
        }
        let said = ask(self.model, asked, 1, &self.own.draw.sampling())?;
        for (&at, said) in missing.iter().zip(said) {
            let said = given(said)?.into_iter().next();
            if let Some(said) = &said {
                self.cost += Cost { calls: 1, tokens: tokens(said) };
            }
            let text = said.map(|sample| sample.text).unwrap_or_default();
            self.known.insert((instruction.to_owned(), at), text);
        }
        let known = |&at: &usize| self.known.get(&(instruction.to_owned(), at)).cloned().unwrap_or_default();
        Ok(questions.iter().map(known).collect())
    }

    /// What is shown of two candidates: their answers to a question, which are taken in turn.
    ///
    /// # Errors
    /// As [`Answers::to`].
    pub fn shown(&mut self, asked: usize, pair: [&Candidate; 2]) -> Result<Shown> {
        if self.records.is_empty() {
            return Ok(plain(pair));
        }
        let at = asked % self.records.len();
        let [left, right] = pair.map(|candidate| self.to(&candidate.text, &[at]));
        let texts = [left?.concat(), right?.concat()];
        Ok(Shown { question: Some((at, self.records[at].prompt.text().into_owned())), texts })
    }

    /// Share of right answers to these questions under an instruction.
    ///
    /// # Errors
    /// As [`Answers::to`]; those of the oracle; [`Error::Data`] for a question that it does not know.
    pub fn accuracy(&mut self, instruction: &str, questions: &[usize], oracle: &dyn Oracle) -> Result<f64> {
        let answers = self.to(instruction, questions)?;
        let mut right = vec![];
        for (&at, answer) in questions.iter().zip(&answers) {
            let verdict = crate::refine::judge("apohf", Some(oracle), &self.records[at], answer)?;
            right.push(f64::from(u8::from(verdict.right)));
        }
        Ok(mean(&right))
    }
}

/// What is shown of candidates themselves.
pub fn plain(pair: [&Candidate; 2]) -> Shown {
    let texts = pair.map(|candidate| candidate.show.clone().unwrap_or_else(|| candidate.text.clone()));
    Shown { question: None, texts }
}
