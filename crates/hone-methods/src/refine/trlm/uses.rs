//! What a reader is good for besides choosing answers: citations, documents, a filter that looks at answers.

use hone_feedback::Prompt;
use serde::{Deserialize, Serialize};

use super::reader::Reader;
use crate::error::Result;
use crate::refine::Draw;

/// How the sentence that a highlight stands on is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// The sentence that fits best by itself.
    Linear,
    /// The half that fits better, over and over: about 2 log₂ n scores.
    Binary,
    /// The sentence without which the rest fits worst.
    Exclusion,
}

/// A sentence found, and the scores that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cited {
    /// Its index.
    pub sentence: usize,
    /// Pairs scored.
    pub calls: usize,
}

/// The sentence that a highlight stands on; `None` for an article without sentences.
///
/// # Errors
/// Those of the reader.
pub fn cite(
    reader: &Reader<'_>,
    highlight: &Prompt,
    sentences: &[String],
    search: Search,
    per_token: bool,
) -> Result<Option<Cited>> {
    let score = |texts: &[String]| scores(reader, highlight, texts, per_token);
    if sentences.is_empty() {
        return Ok(None);
    }
    Ok(Some(match search {
        Search::Linear => Cited { sentence: highest(&score(sentences)?), calls: sentences.len() },
        Search::Exclusion => {
            let without = |at: usize| {
                let rest: Vec<&str> =
                    sentences.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, s)| s.as_str()).collect();
                rest.join(" ")
            };
            if sentences.len() == 1 {
                return Ok(Some(Cited { sentence: 0, calls: 0 }));
            }
            let texts: Vec<String> = (0..sentences.len()).map(without).collect();
            let lost: Vec<f64> = score(&texts)?.into_iter().map(|score| -score).collect();
            Cited { sentence: highest(&lost), calls: texts.len() }
        }
        Search::Binary => {
            let (mut start, mut end, mut calls) = (0, sentences.len(), 0);
            while end - start > 1 {
                let middle = start + (end - start) / 2;
                let halves = [sentences[start..middle].join(" "), sentences[middle..end].join(" ")];
                calls += 2;
                if highest(&score(&halves)?) == 0 { end = middle } else { start = middle }
            }
            Cited { sentence: start, calls }
        }
    }))
}

/// How well each text and the question fit; what cannot be scored comes last.
///
/// # Errors
/// Those of the reader.
pub fn scores(reader: &Reader<'_>, query: &Prompt, texts: &[String], per_token: bool) -> Result<Vec<f64>> {
    let pairs: Vec<(&Prompt, &str)> = texts.iter().map(|text| (query, text.as_str())).collect();
    let value = |fit: Option<super::reader::Fit>| {
        fit.map_or(f64::NEG_INFINITY, |fit| if per_token { fit.mean() } else { fit.logp })
    };
    Ok(reader.fit(&pairs)?.into_iter().map(value).collect())
}

/// The first of the highest.
fn highest(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

/// A filter of questions: says which are not to be answered.
pub trait Filter {
    /// Whether a question is one of those.
    fn flags(&self, query: &str) -> bool;
}

/// Flags questions that hold one of some words, whatever their case.
#[derive(Debug, Clone, Default)]
pub struct Words(pub Vec<String>);

impl Filter for Words {
    fn flags(&self, query: &str) -> bool {
        let query = query.to_lowercase();
        let words: Vec<&str> = query.split(|c: char| !c.is_alphanumeric()).collect();
        self.0.iter().any(|word| words.contains(&word.to_lowercase().as_str()))
    }
}

/// What the filter makes of a question and of what could have been asked to get its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guarded {
    /// Whether the question itself is flagged.
    pub asked: bool,
    /// Share of the questions written to the answer that are flagged, in [0, 1].
    pub share: f64,
}

impl Guarded {
    /// Whether the answer is held back: by the share, above `threshold`, or, where `either`, by the question itself too.
    pub fn blocked(self, threshold: f64, either: bool) -> bool {
        self.share > threshold || (either && self.asked)
    }
}

/// Lets the filter look at questions and at `count` questions written to each answer. The filter itself stays as it is.
///
/// # Errors
/// Those of the reader.
pub fn guard(
    reader: &Reader<'_>,
    filter: &dyn Filter,
    exchanges: &[(String, String)],
    count: usize,
    draw: &Draw,
    seed: u64,
) -> Result<Vec<Guarded>> {
    let answers: Vec<&str> = exchanges.iter().map(|(_, answer)| answer.as_str()).collect();
    let written = reader.questions(&answers, count, draw, seed)?;
    let of = |((query, _), written): (&(String, String), &Vec<String>)| {
        let flagged = written.iter().filter(|query| filter.flags(query)).count();
        Guarded { asked: filter.flags(query), share: flagged as f64 / written.len().max(1) as f64 }
    };
    Ok(exchanges.iter().zip(&written).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_and_of_any_case() {
        let filter = Words(vec!["Bomb".into()]);
        assert!(filter.flags("a BOMB, please") && !filter.flags("bombastic"));
        // A share must be above the threshold; the question itself counts where either does.
        let guarded = Guarded { asked: true, share: 0.5 };
        assert_eq!(
            [(0.5, false), (0.4, false), (0.9, true)].map(|(t, e)| guarded.blocked(t, e)),
            [false, true, true]
        );
    }
}
