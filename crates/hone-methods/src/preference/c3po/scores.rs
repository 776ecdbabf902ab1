//! How much of a rule a policy follows where it applies, and how much it changes elsewhere.

use hone_feedback::Prompt;
use hone_feedback::metrics::mean;
use hone_lm::LanguageModel;
use hone_lm::model::Sample;
use serde::Serialize;

use super::C3po;
use super::data::{answered, revised};
use super::prompts::{Sets, Statement};
use crate::error::Result;
use crate::refine::Draw;
use crate::templates::{after, ask_texts};

/// How the rule comes to the model that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Not at all: it has been trained.
    Plain,
    /// In the prompt, to be kept if it applies.
    InContext,
    /// In the prompt, with an explanation whether it applies before the answer.
    InContextCot,
    /// By a second pass that revises the answer wherever it is asked: an upper reference in scope.
    Revised,
}

/// Answers to prompts in one manner, as they are: one that did not end counts too, and one without the marker is all
/// answer. None where nothing was said.
///
/// # Errors
/// Those of the model and the templates.
pub fn answer(
    model: &dyn LanguageModel,
    statement: &Statement,
    manner: Manner,
    prompts: &[Prompt],
    own: &C3po,
    seed: u64,
) -> Result<Vec<Option<String>>> {
    let told = |name: &str, marker: &str| -> Result<Vec<Option<String>>> {
        let templates = own.templates()?;
        let text = |prompt: &Prompt| {
            templates.render(name, minijinja::context! { prompt => prompt.text(), ..statement.context() })
        };
        let asked: Result<Vec<String>> = prompts.iter().map(text).collect();
        let said = ask_texts(model, asked?, 1, &own.draw, seed)?;
        Ok(said.into_iter().map(|samples| text_of(samples, marker)).collect())
    };
    match manner {
        Manner::Plain => plain(model, prompts, own, seed),
        Manner::InContext => told("in_context", ""),
        Manner::InContextCot => told("in_context_cot", &own.answer_after),
        Manner::Revised => {
            let first = plain(model, prompts, own, seed)?;
            // A prompt without an answer keeps its place with an empty one.
            let answered: Vec<(Prompt, String)> =
                prompts.iter().cloned().zip(first.into_iter().map(Option::unwrap_or_default)).collect();
            let said = revised(model, statement, &answered, own, seed)?;
            Ok(said.into_iter().map(|samples| text_of(samples, &own.answer_after)).collect())
        }
    }
}

fn plain(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    own: &C3po,
    seed: u64,
) -> Result<Vec<Option<String>>> {
    let said = answered(model, prompts, &own.draw, seed)?;
    Ok(said.into_iter().map(|samples| text_of(samples, "")).collect())
}

fn text_of(samples: Vec<Sample>, marker: &str) -> Option<String> {
    let text = samples.into_iter().next()?.text;
    Some(after(&text, marker).unwrap_or(text.trim()).to_string())
}

/// Scores in `[-1, 1]` of answers against those of the policy at its start, per set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Scores {
    /// In scope: 1 is as the rule wants it.
    pub inside: Vec<f64>,
    /// Near scope.
    pub near: Vec<f64>,
    /// Out of scope.
    pub outside: Vec<f64>,
}

impl Scores {
    /// `S_in`: the mean score in scope.
    pub fn adherence(&self) -> f64 {
        mean(&self.inside)
    }

    /// `S_out`: the mean change near and out of scope, in either direction, over all their prompts.
    pub fn overreach(&self) -> f64 {
        mean(&self.near.iter().chain(&self.outside).map(|score| score.abs()).collect::<Vec<_>>())
    }

    /// The mean change of one set, in either direction.
    pub fn change(set: &[f64]) -> f64 {
        mean(&set.iter().map(|score| score.abs()).collect::<Vec<_>>())
    }

    /// `S_overall = (S_in + 1 − S_out) / 2`.
    pub fn overall(&self) -> f64 {
        (self.adherence() + 1.0 - self.overreach()) / 2.0
    }
}

/// Scores pairs of answers, one each; none where it cannot tell.
pub type Scorer<'a> = dyn Fn(&[Compared]) -> Result<Vec<Option<f64>>> + 'a;

/// Scores of what is measured on three sets of prompts, against the start, asked with the same seeds.
///
/// # Errors
/// Those of the models, and what `score` returns.
pub fn scores(
    start: &dyn LanguageModel,
    after: &dyn LanguageModel,
    statement: &Statement,
    manner: Manner,
    sets: &Sets,
    own: &C3po,
    seed: u64,
    score: &Scorer<'_>,
) -> Result<Scores> {
    let of_set = |at: usize| -> Result<Vec<f64>> {
        let prompts: Vec<Prompt> = sets.all()[at].iter().map(|one| one.prompt.clone()).collect();
        // The same seeds: a policy that has not changed gives the same answers, and scores 0.
        let before = plain(start, &prompts, own, seed)?;
        let new = answer(after, statement, manner, &prompts, own, seed)?;
        let compared: Vec<Compared> = prompts
            .into_iter()
            .zip(before.into_iter().zip(new))
            .filter_map(|(prompt, (before, after))| Some(Compared { prompt, before: before?, after: after? }))
            .collect();
        Ok(score(&compared)?.into_iter().flatten().collect())
    };
    Ok(Scores { inside: of_set(0)?, near: of_set(1)?, outside: of_set(2)? })
}

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// What was asked.
    pub prompt: Prompt,
    /// The answer of the policy at its start.
    pub before: String,
    /// The answer that is measured.
    pub after: String,
}

/// The score of a rule that can be checked: 1 if it is kept now and was not before, −1 the other way round, else 0.
pub fn checked(holds: &dyn Fn(&str) -> bool, one: &Compared) -> f64 {
    f64::from(i8::from(holds(&one.after)) - i8::from(holds(&one.before)))
}

/// The scores of a judge who compares on a scale from 1 to 5 on which 3 is equal: `(mark − 3) / 2`, the mean of both
/// orders, so that a taste for the first or second place cancels out. None where a reply holds no mark.
///
/// # Errors
/// Those of the model and the template.
pub fn judged(
    judge: &dyn LanguageModel,
    statement: &Statement,
    compared: &[Compared],
    own: &C3po,
    seed: u64,
) -> Result<Vec<Option<f64>>> {
    let templates = own.templates()?;
    let marks = |swapped: bool| -> Result<Vec<Option<f64>>> {
        let asked: Result<Vec<String>> = compared
            .iter()
            .map(|one| {
                let (first, second) =
                    if swapped { (&one.after, &one.before) } else { (&one.before, &one.after) };
                let prompt = one.prompt.text();
                templates
                    .render("judge", minijinja::context! { prompt, first, second, ..statement.context() })
            })
            .collect();
        let draw = Draw { temperature: 0.0, ..own.draw.clone() };
        let said = ask_texts(judge, asked?, 1, &draw, seed)?;
        Ok(said.iter().map(|samples| mark(&samples.first()?.text)).collect())
    };
    let both = marks(false)?.into_iter().zip(marks(true)?);
    Ok(both.map(|(plain, swapped)| Some((plain? - swapped?) / 2.0)).collect())
}

/// The first mark from 1 to 5 in a reply, as a score in `[-1, 1]`.
fn mark(reply: &str) -> Option<f64> {
    let mut words = reply.split(|c: char| !c.is_ascii_alphanumeric());
    let mark: u8 = words.find_map(|word| word.parse().ok().filter(|mark| (1..=5).contains(mark)))?;
    Some((f64::from(mark) - 3.0) / 2.0)
}

/// Slope of the least-squares line of change elsewhere on adherence, over points of both; 0 where adherence does not vary.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let (x_mean, y_mean) = (mean(&x), mean(&y));
    let spread: f64 = x.iter().map(|x| (x - x_mean).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        // S_in = (1 + 0) / 2; S_out = (1 + 1 + 0 + 0) / 4 whatever the sign; S_overall = (½ + 1 − ½) / 2.
        let scores = Scores { inside: vec![1.0, 0.0], near: vec![-1.0, 1.0], outside: vec![0.0, 0.0] };
        assert_eq!((scores.adherence(), scores.overreach(), scores.overall()), (0.5, 0.5, 0.5));
        assert_eq!((Scores::change(&scores.near), Scores::change(&scores.outside)), (1.0, 0.0));
    }

    #[test]
    fn rules_that_can_be_checked_say_what_changed() {
        let compared = |before: &str, after: &str| Compared {
            prompt: "p".into(),
            before: before.into(),
            after: after.into(),
        };
        let holds = |text: &str| text.ends_with("bye");
        let score = |before, after| checked(&holds, &compared(before, after));
        assert_eq!(
            [score("a", "a bye"), score("a bye", "b"), score("a", "b"), score("bye", "bye")],
            [1.0, -1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn marks_are_read() {
        assert_eq!(
            [mark("5"), mark("Score: 2."), mark("3/5"), mark("10, none")],
            [Some(1.0), Some(-0.5), Some(0.0), None]
        );
    }

    #[test]
    fn slopes_by_hand() {
        // Means ½ and ½: (0.25 + 0.25) / (0.25 + 0.25) = 1 on the diagonal; half of it for half the height.
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 1.0)]), 1.0);
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 0.5)]), 0.5);
        assert_eq!(slope(&[(1.0, 0.0), (1.0, 0.5)]), 0.0);
    }
}
