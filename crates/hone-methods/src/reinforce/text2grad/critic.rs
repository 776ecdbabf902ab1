//! Who says which parts of an answer are good and poor: an oracle, or a language model that learnt it from people.

use hone_feedback::{Form, Message, Prompt, Record};
use hone_lm::Local;
use hone_nn::Want;
use hone_nn::loss::cross_entropy;
use hone_nn::train::seed::sub_seed;

use super::Text2Grad;
use super::spans::{Dual, Marked};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::method::Job;
use crate::oracle::Oracle;
use crate::policy::{Policy, lm_prompt};
use crate::refine::{Draw, sample};
use crate::train::descend;

/// Who marks answers.
pub enum Critic<'a> {
    /// Rules that know the task.
    Oracle(&'a dyn Oracle),
    /// A model that writes critique and spans.
    Learnt(Box<Local>, Draw),
}

/// What was marked of a batch of answers.
#[derive(Debug, Default)]
pub struct Marks {
    /// `[answers]`; `None` where nothing could be made out.
    pub of_answers: Vec<Option<Marked>>,
    /// Quotes that were not found.
    pub lost: usize,
    /// Quotes there were.
    pub quotes: usize,
}

impl Critic<'_> {
    /// Marks each answer to its record.
    ///
    /// # Errors
    /// [`Error::Data`] for a record that the oracle does not know; those of the model.
    pub fn mark(&self, asked: &[(&Record, String)], likeness: f64, seed: u64) -> Result<Marks> {
        let mut marks = Marks::default();
        match self {
            Critic::Oracle(oracle) => {
                for (record, answer) in asked {
                    let said = oracle.mark(record, answer)?.ok_or_else(|| Error::Data {
                        method: "text2grad".into(),
                        needed: "an oracle that marks parts of answers, or `critic = \"learnt\"`".into(),
                        got: format!("record {}, whose task has none", record.id),
                    })?;
                    marks.quotes += said.len();
                    marks.of_answers.push(Some(said));
                }
            }
            Critic::Learnt(model, draw) => {
                let prompts: Vec<_> = asked
                    .iter()
                    .map(|(record, answer)| {
                        lm_prompt(&question(&record.prompt, answer), model.template().is_some())
                    })
                    .collect::<Result<_>>()?;
                for ((_, answer), said) in asked.iter().zip(sample(model.as_ref(), &prompts, 1, draw, seed)?)
                {
                    let said = said.first().and_then(|one| Dual::read(&one.text));
                    marks.of_answers.push(said.map(|said| {
                        let (found, lost) = said.marks(answer, likeness);
                        marks.quotes += found.len() + lost;
                        marks.lost += lost;
                        found
                    }));
                }
            }
        }
        Ok(marks)
    }
}

/// What a critic is asked: the task and the answer, in the words of the built-in model's role.
pub fn question(prompt: &Prompt, answer: &str) -> Prompt {
    match prompt {
        Prompt::Text(text) => Prompt::Text(hone_worlds::roles::criticise(text, answer) + "\n"),
        Prompt::Messages(_) => {
            let asked = prompt.last_user().unwrap_or_default();
            Prompt::Messages(vec![Message::new("user", hone_worlds::roles::criticise(&asked, answer))])
        }
    }
}

/// Critiques and quotes of every response that people criticised or marked: index of the record, the response, what was
/// said.
pub fn annotations(records: &[Record]) -> Vec<(usize, String, Dual)> {
    let mut out = vec![];
    for (index, record) in records.iter().enumerate() {
        for response in &record.responses {
            let answer = response.content.text().into_owned();
            let letters: Vec<char> = answer.chars().collect();
            let (mut said, mut words, mut heard): (Dual, Vec<&str>, bool) = (Dual::default(), vec![], false);
            for item in record.feedback.iter().filter(|item| item.form.on() == Some(&response.id)) {
                match &item.form {
                    Form::Critique { text, .. } => words.push(text),
                    Form::Span { start, end, value, .. } => {
                        words.extend(item.text.as_deref());
                        let quote: String = letters.get(*start..*end).unwrap_or_default().iter().collect();
                        let value = value.unwrap_or(-1.0);
                        let list = if value < 0.0 { &mut said.poor } else { &mut said.good };
                        // A mark of 0 says neither.
                        if value != 0.0 && !quote.trim().is_empty() {
                            list.push(quote);
                        }
                    }
                    _ => continue,
                }
                heard = true;
            }
            words.dedup();
            said.critique = words.join("; ");
            if heard && !answer.trim().is_empty() {
                out.push((index, answer, said));
            }
        }
    }
    out
}

/// Fine-tunes a copy of the policy to write critique and spans of the log's answers, by cross-entropy on what it is to
/// write.
///
/// # Errors
/// [`Error::Data`] for a log without a criticised or marked answer; those of the engine.
pub fn learn(job: &Job<'_>, own: &Text2Grad) -> Result<Policy> {
    let mut critic = job.policy.copy()?;
    let max_tokens = own.critic_training.tokens_for(&critic.model);
    let mut examples = Examples::default();
    for (record, answer, said) in annotations(job.records) {
        let asked = question(&job.records[record].prompt, &answer);
        match critic.encode(&asked, &said.write(own.critique_first), max_tokens)? {
            Some(sequence) => {
                let sequences = vec![sequence];
                examples.items.push(Example { record, sequences, labels: vec![], marks: vec![] });
            }
            None => examples.losses.add("critiques longer than the model or the settings allow"),
        }
    }
    Error::expect_examples("text2grad", "answers with critiques or marked spans", &examples, job.records)?;
    let (session, want) = (job.session.stage("critic"), Want::default());
    let seed = sub_seed(job.seed, "critic");
    critic.model = descend(critic.model, &examples, &own.critic_training, seed, &session, &want, |part| {
        Ok(cross_entropy(&part.outputs.logps, None, part.step_targets as f64)?.into())
    })?;
    Ok(critic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_said_becomes_a_text_to_write() {
        let span =
            |start, end, value| Form::Span { on: "a".into(), start, end, label: None, value: Some(value) };
        let record = Record::new("r", "say").respond("a", "é w2 w3").respond("b", "w4");
        let record = record
            .say(span(0, 1, 1.0))
            .say(span(2, 4, -1.0))
            .say(Form::Critique { on: Some("a".into()), text: "w2 is dull".into() });
        let said = annotations(&[record]);
        // Nobody spoke of b.
        assert_eq!(said.len(), 1);
        let (good, poor) = (vec!["é".to_string()], vec!["w2".to_string()]);
        assert_eq!(said[0], (0, "é w2 w3".into(), Dual { critique: "w2 is dull".into(), good, poor }));
    }
}
