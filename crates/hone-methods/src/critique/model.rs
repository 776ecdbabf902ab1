//! A language model as a critic.

use std::path::Path;

use hone_lm::model::{Prompt, Sample};
use hone_lm::{Constraint, LanguageModel, Message};
use hone_nn::train::seed::sub_seed;
use serde_json::{Value, json};

use super::{Critic, Critique, Failure, Reply, Subject, combine, parse};
use crate::error::Result;
use crate::policy::refusal;
use crate::refine::{Asked, Cost, Draw, ask_each, mean_logp, tokens};
use crate::templates::Templates;

/// How a model is asked for a critique, and how its reply is read. Each has its prompt, by the name in brackets.
#[derive(Debug, Clone, PartialEq)]
pub enum Reads {
    /// One JSON object with verdict, steps, spans, words and confidence (`json`); for any instructed model.
    Json,
    /// The words that the built-in model is trained on (`world`).
    World,
    /// Free words that approve or not (`words`).
    Words {
        /// What approves; see [`parse::approves`].
        approvals: Vec<String>,
    },
    /// A paragraph per step and the boxed number of the first wrong step (`first_error`).
    FirstError,
}

impl Reads {
    /// Name of its prompt.
    pub fn prompt(&self) -> &'static str {
        match self {
            Reads::Json => "json",
            Reads::World => "world",
            Reads::Words { .. } => "words",
            Reads::FirstError => "first_error",
        }
    }

    /// The critique in a reply.
    ///
    /// # Errors
    /// Why the reply is none.
    pub fn read(&self, reply: &str, subject: &Subject<'_>) -> std::result::Result<Critique, Failure> {
        match self {
            Reads::Json => parse::of_json(reply, subject),
            Reads::World => parse::of_world(reply, subject),
            Reads::Words { approvals } => parse::of_words(reply, approvals),
            Reads::FirstError => parse::of_boxed(reply, subject),
        }
    }

    /// What the reply must follow for [`Reads::read`] to take it; `None` where any text does.
    fn constraint(&self, subject: &Subject<'_>) -> Option<Constraint> {
        let count = subject.steps.len().max(1);
        Some(match self {
            Reads::Json => Constraint::JsonSchema(schema(count)),
            Reads::World => Constraint::Regex("(all right|[a-z][^\\n]{0,199})".into()),
            Reads::Words { .. } => return None,
            Reads::FirstError => {
                let numbers: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
                Constraint::Regex(format!(
                    "(.|\\n)*\\*\\*Answer\\*\\*: \\\\boxed\\{{(-1|{})\\}}",
                    numbers.join("|")
                ))
            }
        })
    }
}

/// The JSON form for an answer of so many steps. Texts and lists have bounds, or a small model might never close them.
fn schema(steps: usize) -> Value {
    let step = json!({
        "type": "object", "additionalProperties": false, "required": ["step", "right"],
        "properties": {"step": {"type": "integer", "minimum": 1, "maximum": steps}, "right": {"type": "boolean"}},
    });
    json!({
        "type": "object", "additionalProperties": false, "required": ["text", "steps", "right", "confidence"],
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 600},
            "steps": {"type": "array", "maxItems": steps, "items": step},
            "right": {"type": "boolean"},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        },
    })
}

/// The prompts of all forms, those in `folder` in place of the built-in ones.
///
/// # Errors
/// As [`Templates::overridden_by`].
pub fn critique_templates(folder: Option<&Path>) -> Result<Templates<'static>> {
    let sources = [
        ("json", include_str!("prompts/json.jinja")),
        ("world", include_str!("prompts/world.jinja")),
        ("words", include_str!("../refine/prompts/criticise.jinja")),
        ("first_error", include_str!("prompts/first_error.jinja")),
    ];
    let templates = Templates::new("critique", &sources)?;
    match folder {
        Some(folder) => templates.overridden_by(folder),
        None => Ok(templates),
    }
}

/// A critic that asks a language model. Templates are given `prompt`, `answer`, `steps`, and in `attempts` all attempts
/// so far, each with `answer` and `critique`.
pub struct ModelCritic<'a> {
    /// The model.
    pub model: &'a dyn LanguageModel,
    /// How it is asked and read.
    pub reads: Reads,
    /// The prompts.
    pub templates: &'a Templates<'a>,
    /// How critiques are sampled.
    pub draw: Draw,
    /// Critiques per answer; several are combined by majority.
    pub votes: usize,
    /// Constrain replies to what can be read, where the model can: for models too small to keep to a form by themselves.
    pub constrained: bool,
}

impl std::fmt::Debug for ModelCritic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelCritic")
            .field("model", &self.name())
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

impl ModelCritic<'_> {
    fn asked(&self, subject: &Subject<'_>, seed: u64) -> Result<Asked> {
        let mut attempts: Vec<_> = subject
            .earlier
            .iter()
            .map(|a| minijinja::context! { answer => &a.text, critique => &a.critique })
            .collect();
        attempts.push(minijinja::context! { answer => &*subject.answer, critique => "" });
        let prompt = subject.record.prompt.text();
        let context = minijinja::context! {
            prompt => &*prompt, answer => &*subject.answer, steps => &subject.steps, attempts,
        };
        let text = self.templates.render(self.reads.prompt(), context)?;
        let able = self.model.capabilities();
        let prompt =
            if able.chat { Prompt::chat(vec![Message::new("user", text)]) } else { Prompt::Text(text) };
        let constraint = self.reads.constraint(subject).filter(|constraint| {
            self.constrained
                && match constraint {
                    Constraint::JsonSchema(_) => able.json_schema,
                    Constraint::Regex(_) => able.regex,
                    Constraint::Grammar(_) => able.grammar,
                }
        });
        Ok(Asked { prompt, seed: Some(seed), constraint })
    }

    fn read(&self, sample: &Sample, subject: &Subject<'_>) -> std::result::Result<Critique, Failure> {
        let mut critique = match self.reads.read(&sample.text, subject) {
            Err(_) if sample.finish == hone_lm::FinishReason::Length => {
                return Err(Failure::new("a reply cut at the limit of tokens", &sample.text));
            }
            said => said?,
        };
        critique.by = format!("model:{}", self.name());
        // Where a model states no confidence, that of its own words: the geometric mean of their probabilities.
        critique.confidence = critique.confidence.or_else(|| mean_logp(sample).map(f64::exp));
        Ok(critique)
    }
}

impl Critic for ModelCritic<'_> {
    fn name(&self) -> &str {
        &self.model.capabilities().name
    }

    fn criticise(&self, subjects: &[Subject<'_>], seed: u64) -> Result<Vec<Reply>> {
        let stream = |index: usize| sub_seed(seed, &format!("prompt {index}"));
        let asked = subjects.iter().enumerate().map(|(index, subject)| self.asked(subject, stream(index)));
        let asked = asked.collect::<Result<Vec<_>>>()?;
        let given = ask_each(self.model, asked, self.votes.max(1), &self.draw.sampling())?;
        let reply = |(subject, given): (&Subject<'_>, hone_lm::Result<Vec<Sample>>)| match given {
            Ok(samples) => {
                let cost = Cost { calls: samples.len() as u64, tokens: samples.iter().map(tokens).sum() };
                let said = combine(samples.iter().map(|sample| self.read(sample, subject)).collect());
                Ok(Reply { said, cost, checks: 0 })
            }
            Err(error) => {
                let why = match &error {
                    hone_lm::Error::TooLong { .. } => "no place for a critique".into(),
                    other => refusal(other).unwrap_or_else(|| "the call failed".into()),
                };
                Ok(Reply {
                    said: Err(Failure::new(why, error.to_string())),
                    cost: Cost::default(),
                    checks: 0,
                })
            }
        };
        subjects.iter().zip(given).map(reply).collect()
    }
}

#[cfg(test)]
mod tests {
    use hone_feedback::Record;

    use super::*;
    use crate::critique::Tally;
    use crate::tiny;

    #[test]
    fn the_built_in_model_criticises_in_its_own_words_or_in_json_under_constraint() {
        let model = tiny::policy().unwrap().speaker().unwrap();
        let templates = critique_templates(None).unwrap();
        let world = hone_worlds::world("sums").unwrap();
        let (mut records, mut answers) = (vec![], vec![]);
        for seed in 0..20 {
            let task = world.task(2, seed).unwrap();
            let planted = task.plant("calculation", &mut hone_worlds::seed::rng(seed, "plant")).unwrap();
            records.push(Record::new(seed.to_string(), task.prompt()));
            answers.push([task.reference(), planted.answer]);
        }
        let both = records.iter().zip(&answers);
        let subjects: Vec<Subject<'_>> = both
            .flat_map(|(record, both)| both.iter().map(move |text| Subject::new(record, text.as_str())))
            .collect();
        let draw = Draw { temperature: 0.0, max_tokens: 400, ..Draw::default() };
        let critic = |reads, constrained| ModelCritic {
            model: &model,
            reads,
            templates: &templates,
            draw: draw.clone(),
            votes: 1,
            constrained,
        };
        let said = critic(Reads::World, false).criticise(&subjects, 1).unwrap();
        // Right and wrong in turn. It is a poor critic, but approves of right answers at least as often.
        let approved = |odd: usize| {
            let of = said.iter().enumerate().filter(|(at, _)| at % 2 == odd);
            of.filter(|(_, reply)| reply.said.as_ref().unwrap().right == Some(true)).count()
        };
        assert!(approved(0) >= approved(1), "{said:?}");
        let first = said[0].said.as_ref().unwrap();
        assert_eq!(first.by, "model:hone-tiny");
        assert!(first.confidence.is_some_and(|c| c > 0.0 && c <= 1.0));
        assert!(said[1].cost.calls == 1 && said[1].cost.tokens > 1, "{:?}", said[1].cost);
        // It was never taught JSON: unconstrained it fails, and is counted; constrained every reply is a critique.
        let (mut free, mut bound) = (Tally::default(), Tally::default());
        critic(Reads::Json, false).criticise(&subjects, 1).unwrap().iter().for_each(|reply| free.add(reply));
        assert_eq!((free.critiques, free.failures.values().sum::<usize>()), (0, 40), "{free:?}");
        let replies = critic(Reads::Json, true).criticise(&subjects[..4], 1).unwrap();
        replies.iter().for_each(|reply| bound.add(reply));
        // A step judged twice or against the verdict is beyond a schema; nothing else may fail.
        let beyond =
            ["a step judged twice", "a right answer with a wrong step", "a reply cut at the limit of tokens"];
        assert!(bound.failures.keys().all(|why| beyond.contains(&why.as_str())), "{replies:?}");
    }

    #[test]
    fn every_prompt_shows_the_answer_and_every_schema_compiles() {
        let record = Record::new("r", "Add 1 and 1.");
        let subject = Subject::new(&record, "1+1=3\nso 3");
        let templates = critique_templates(None).unwrap();
        let policy = tiny::policy().unwrap();
        let model = policy.speaker().unwrap();
        let constrainer =
            hone_lm::constrain::Constrainer::new(&policy.tokenizer, policy.model.config().vocab_size)
                .unwrap();
        for reads in [Reads::Json, Reads::World, Reads::Words { approvals: vec![] }, Reads::FirstError] {
            let critic = ModelCritic {
                model: &model,
                reads,
                templates: &templates,
                draw: Draw::default(),
                votes: 1,
                constrained: true,
            };
            let asked = critic.asked(&subject, 1).unwrap();
            let text = format!("{:?}", asked.prompt);
            assert!(text.contains("Add 1 and 1.") && text.contains("1+1=3"), "{text}");
            if let Some(constraint) = &asked.constraint {
                constrainer.compile(constraint).unwrap();
            }
        }
    }
}
