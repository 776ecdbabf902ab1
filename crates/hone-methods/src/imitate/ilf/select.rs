//! Which of several refinements is imitated, and the model that says how good an answer is.

use hone_feedback::Prompt;
use hone_feedback::metrics::mean;
use hone_lm::{Continuation, LanguageModel, ScoreRequest};
use hone_nn::train::seed::rng;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{ID, Ilf, Said};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::policy::{Policy, lm_prompt};
use crate::templates::Templates;

/// How one refinement is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The one that the refiner, asked in several ways, most surely says to do what was said.
    Incorporation,
    /// Any.
    Random,
    /// The one whose vector is nearest to that of the feedback.
    EmbeddingNearest,
    /// The one whose vector is farthest from it.
    EmbeddingFarthest,
    /// The likeliest given the prompt alone, in nats over all tokens.
    Likeliest,
    /// The one that makes the feedback likeliest, given the prompt and the refinement.
    ExplainsFeedback,
    /// The longest, in words.
    Longest,
}

/// A question with two answers, of which one approves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is asked, a Jinja template.
    pub ask: String,
    /// The answer that approves.
    pub yes: String,
    /// The answer that does not.
    pub no: String,
}

impl Question {
    /// A question answered with these two words.
    pub fn new(ask: &str, yes: &str, no: &str) -> Question {
        Question { ask: ask.into(), yes: yes.into(), no: no.into() }
    }
}

/// The published ensemble: five wordings, two vocabularies of answers.
pub(super) fn ensemble() -> Vec<Question> {
    let shown = "{{ prompt }}\n\nAn answer:\n{{ answer }}\n\nFeedback on it:\n{{ feedback }}\n\nA new answer:\n{{ refinement }}\n\n";
    [
        ("Does the new answer do what the feedback asks for? Answer yes or no.", "yes", "no"),
        ("Is the feedback taken up in the new answer? Answer yes or no.", "yes", "no"),
        ("True or false: the new answer mends what the feedback names.", "true", "false"),
        ("Has the new answer been changed as the feedback says? Answer yes or no.", "yes", "no"),
        (
            "True or false: somebody who gave this feedback would be content with the new answer.",
            "true",
            "false",
        ),
    ]
    .map(|(ask, yes, no)| Question::new(&format!("{shown}{ask}"), yes, no))
    .to_vec()
}

/// `[texts]`: `P(yes) / (P(yes) + P(no))` of each text as a prompt.
///
/// # Errors
/// Those of the model.
pub fn approvals(model: &dyn LanguageModel, texts: &[String], yes: &str, no: &str) -> Result<Vec<f64>> {
    let of = |answer: &str| {
        logps(model, texts.iter().map(|text| (Prompt::from(text.as_str()), answer.to_string())))
    };
    let pairs = of(yes)?.into_iter().zip(of(no)?);
    // From the difference, so that two tiny probabilities do not become 0 / 0.
    Ok(pairs.map(|(yes, no)| 1.0 / (1.0 + (no - yes).exp())).collect())
}

/// Log-probability of each answer after its prompt, in nats.
pub(super) fn logps(
    model: &dyn LanguageModel,
    asked: impl IntoIterator<Item = (Prompt, String)>,
) -> Result<Vec<f64>> {
    let chats = model.capabilities().chat;
    let requests = asked.into_iter().map(|(prompt, answer)| {
        Ok(ScoreRequest { prompt: lm_prompt(&prompt, chats)?, continuation: Continuation::Text(answer) })
    });
    let scored = model.score(&requests.collect::<Result<Vec<_>>>()?)?;
    scored.into_iter().map(|scored| Ok(scored?.logp)).collect()
}

/// `[said][n]`: how sure the model is that each refinement does what was said: the mean over the questions of the
/// probability, not of its logarithm.
///
/// # Errors
/// Those of the model and the templates.
pub fn incorporation(
    model: &dyn LanguageModel,
    said: &[Said],
    refinements: &[Vec<String>],
    own: &Ilf,
) -> Result<Vec<Vec<f64>>> {
    let mut sums: Vec<Vec<f64>> = refinements.iter().map(|of| vec![0.0; of.len()]).collect();
    for question in &own.questions {
        let templates = Templates::new(ID, &[("questions", &question.ask)])?;
        let mut asked = vec![];
        for (said, of) in said.iter().zip(refinements) {
            for refinement in of {
                asked.push(templates.render("questions", said.context(Some(refinement)))?);
            }
        }
        let approved = approvals(model, &asked, &question.yes, &question.no)?;
        let places = sums.iter_mut().flatten();
        places.zip(approved).for_each(|(sum, approved)| *sum += approved / own.questions.len() as f64);
    }
    Ok(sums)
}

/// `[said][n]`: the scores by which a refinement is chosen, larger is better.
///
/// # Errors
/// Those of the model; [`Error::Model`] where it cannot score or embed.
pub fn scores(
    model: &dyn LanguageModel,
    said: &[Said],
    refinements: &[Vec<String>],
    own: &Ilf,
    seed: u64,
) -> Result<Vec<Vec<f64>>> {
    let shaped = |flat: Vec<f64>| {
        let mut flat = flat.into_iter();
        refinements.iter().map(|of| flat.by_ref().take(of.len()).collect()).collect()
    };
    let each = || said.iter().zip(refinements).flat_map(|(said, of)| of.iter().map(move |one| (said, one)));
    Ok(match own.select {
        Select::Incorporation => incorporation(model, said, refinements, own)?,
        Select::Random => {
            let mut rng = rng(seed, "choice");
            shaped(each().map(|_| rng.random()).collect())
        }
        Select::Longest => shaped(each().map(|(_, one)| one.split_whitespace().count() as f64).collect()),
        Select::Likeliest => {
            shaped(logps(model, each().map(|(said, one)| (said.prompt.clone(), one.clone())))?)
        }
        Select::ExplainsFeedback => {
            let asked = each().map(|(said, one)| {
                (Prompt::from(format!("{}\n\n{one}", said.prompt.text())), said.feedback.clone())
            });
            shaped(logps(model, asked)?)
        }
        Select::EmbeddingNearest | Select::EmbeddingFarthest => {
            let sign = if own.select == Select::EmbeddingNearest { 1.0 } else { -1.0 };
            let feedback = model.embed(&said.iter().map(|said| said.feedback.clone()).collect::<Vec<_>>())?;
            let texts: Vec<String> = each().map(|(_, one)| one.clone()).collect();
            let vectors = model.embed(&texts)?;
            let of = feedback.iter().zip(refinements).flat_map(|(f, of)| of.iter().map(move |_| f));
            shaped(of.zip(&vectors).map(|(f, v)| sign * cosine(f, v)).collect())
        }
    })
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let size = (dot(one, one) * dot(other, other)).sqrt();
    if size > 0.0 { dot(one, other) / size } else { 0.0 }
}

/// The place of the largest; the first of equals.
pub(super) fn best(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best })
}

/// Trains a copy of a policy to say which answers are good: of every pair `(prompt, better, worse)` the better one is to
/// be approved and the worse one not, one after the other. Only the answer's own tokens have a loss.
///
/// # Errors
/// [`Error::Data`] without a pair; those of encoding and training.
pub fn classifier(
    policy: Policy,
    pairs: &[(Prompt, String, String)],
    question: &Question,
    own: &Ilf,
    seed: u64,
) -> Result<Policy> {
    let limit = own.training.tokens_for(&policy.model);
    let mut examples = Examples::default();
    for (record, (prompt, better, worse)) in pairs.iter().enumerate() {
        let mut sequences = vec![];
        for (text, answer) in [(better, &question.yes), (worse, &question.no)] {
            let asked = excellent(question, prompt, text)?;
            if let Some(mut sequence) = policy.encode(&asked.into(), answer, limit)? {
                // The stop token says nothing of the answer's worth.
                if let Some(last) = sequence.mask.iter().rposition(|&scored| scored) {
                    sequence.mask[last] = false;
                }
                sequences.push(sequence);
            }
        }
        if sequences.len() == 2 {
            examples.items.push(Example { record, sequences, labels: vec![], marks: vec![] });
        }
    }
    super::imitated(policy, &examples, own, seed, crate::train::Session::default())
}

fn excellent(question: &Question, prompt: &Prompt, answer: &str) -> Result<String> {
    let templates = Templates::new(ID, &[("question", &question.ask)])?;
    templates.render("question", minijinja::context! { prompt => prompt.text(), answer })
}

/// Of each prompt's answers the place of the one that the classifier approves most.
///
/// # Errors
/// Those of the model and the template.
pub fn best_by_classifier(
    judge: &dyn LanguageModel,
    prompts: &[Prompt],
    answers: &[Vec<String>],
    question: &Question,
) -> Result<Vec<Option<usize>>> {
    let mut texts = vec![];
    for (prompt, of) in prompts.iter().zip(answers) {
        for answer in of {
            texts.push(excellent(question, prompt, answer)?);
        }
    }
    let mut approved = approvals(judge, &texts, &question.yes, &question.no)?.into_iter();
    Ok(answers.iter().map(|of| best(&approved.by_ref().take(of.len()).collect::<Vec<_>>())).collect())
}

/// Win rate of A over B from the ranks of both on each prompt, 1 the best: ties count ½. With its standard error.
pub fn win_rate(ranks: &[(usize, usize)]) -> (f64, f64) {
    let wins: Vec<f64> = ranks
        .iter()
        .map(|(a, b)| match a.cmp(b) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.0,
        })
        .collect();
    let spread = if wins.len() > 1 { hone_feedback::metrics::standard_deviation(&wins) } else { 0.0 };
    (mean(&wins), spread / (wins.len().max(1) as f64).sqrt())
}

/// Refuses questions that cannot be asked.
pub(super) fn check(questions: &[Question]) -> Result<()> {
    if questions.is_empty() {
        return Err(Error::range(ID, "questions", "at least one", 0));
    }
    questions.iter().try_for_each(|question| Templates::new(ID, &[("questions", &question.ask)]).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn win_rates_by_hand() {
        // A win, a loss, two ties: (1 + 0 + ½ + ½) / 4; deviation √(½ / 3) = 0.40825, over √4.
        let (rate, error) = win_rate(&[(1, 2), (3, 1), (2, 2), (1, 1)]);
        assert_eq!(rate, 0.5);
        assert!((error - 0.204124).abs() < 1e-6, "{error}");
    }

    #[test]
    fn directions_and_the_first_of_equals() {
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!((best(&[0.1, 0.9, 0.9]), best(&[])), (Some(1), None));
    }
}
