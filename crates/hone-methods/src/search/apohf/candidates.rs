//! Where the candidates of a search come from: a file, or a model that writes them.

use std::collections::HashSet;
use std::path::Path;

use hone_feedback::Record;
use hone_feedback::convert::{Losses, demonstrations};
use hone_lm::LanguageModel;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Apohf, Writing};
use crate::error::{Error, Result};
use crate::improve::write_whole;
use crate::oracle::Oracle;
use crate::templates::{Templates, ask_texts};

/// Times that a model is asked for as many candidates as are still missing.
const WAVES: u64 = 4;

/// Share of variations that are plain rephrasings, and chance of each sentence but one to be changed.
const PLAIN: f64 = 0.02;
const CHANGED: f64 = 0.3;

/// One arm of a search: a prompt, or a response to one of several queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The prompt or response.
    pub text: String,
    /// Which query it answers; 0 for prompts. Only candidates of one query are compared.
    #[serde(default)]
    pub group: usize,
    /// What people are shown instead of the text, as the file of an image that was made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<String>,
    /// Its embedding; empty where one is still to be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embedding: Vec<f32>,
}

impl Candidate {
    /// A candidate without an embedding.
    pub fn new(text: impl Into<String>, group: usize) -> Candidate {
        Candidate { text: text.into(), group, show: None, embedding: vec![] }
    }
}

/// Candidates of a file: one a line, as text or as a JSON object with `text` and, if wanted, `embedding`, `show` and
/// `group`. The same text again is left out.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] with the line of an object that is no candidate.
pub fn read(path: &Path) -> Result<Vec<Candidate>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut found = vec![];
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        found.push(match line.trim_start().starts_with('{') {
            false => Candidate::new(line.trim(), 0),
            true => serde_json::from_str(line).map_err(|e| Error::File {
                path: path.display().to_string(),
                problem: format!(
                    "line {}: needs a candidate (text, embedding, show, group): {e}",
                    number + 1
                ),
            })?,
        });
    }
    Ok(distinct(found))
}

/// Writes candidates with their embeddings, so that a search can go on among the same.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, candidates: &[Candidate]) -> Result<()> {
    let lines = candidates.iter().map(|c| serde_json::to_string(c).map(|line| line + "\n"));
    let lines = lines.collect::<std::result::Result<String, _>>();
    write_whole(
        path,
        &lines.map_err(|e| Error::File { path: path.display().to_string(), problem: e.to_string() })?,
    )
}

/// The first of every text within its group.
pub fn distinct(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    candidates.into_iter().filter(|c| seen.insert((c.group, c.text.clone()))).collect()
}

/// Inputs with the outputs wanted for them: demonstrations of the records, else what the oracle holds to be right.
///
/// # Errors
/// Those of the oracle.
pub fn examples(records: &[Record], oracle: Option<&dyn Oracle>) -> Result<Vec<(String, String)>> {
    let mut found = vec![];
    for record in records {
        let shown = demonstrations(record, &mut Losses::default());
        let output = match (shown.first(), oracle) {
            (Some(shown), _) => Some(shown.content.text().into_owned()),
            (None, Some(oracle)) => oracle.reference(record)?,
            (None, None) => None,
        };
        found.extend(output.map(|output| (record.prompt.text().into_owned(), output)));
    }
    Ok(found)
}

/// Prompts that `model` writes: different ones, at most as many as the settings ask for.
///
/// # Errors
/// [`Error::Data`] for induction without examples, or if fewer than two different texts came; those of the model.
pub fn propose(
    model: &dyn LanguageModel,
    own: &Apohf,
    examples: &[(String, String)],
    seed: u64,
) -> Result<Vec<String>> {
    let refuse =
        |needed: &str, got: String| Err(Error::Data { method: "apohf".into(), needed: needed.into(), got });
    if own.writing == Writing::Induction && examples.is_empty() {
        return refuse(
            "records with answers to induce an instruction from, or `start` to rephrase",
            "none".into(),
        );
    }
    let templates = own.templates()?;
    let mut rng = rng(seed, "candidates");
    let mut found: Vec<String> = vec![];
    if own.writing != Writing::Induction {
        // What one began with takes part.
        found.push(own.start.trim().to_owned());
    }
    for wave in 0..WAVES {
        let missing = own.candidates.saturating_sub(found.len());
        let asked = (0..missing).map(|_| request(own, &templates, examples, &mut rng));
        let asked = asked.collect::<Result<Vec<_>>>()?;
        let said = ask_texts(model, asked, 1, &own.write, sub_seed(seed, &format!("wave {wave}")))?;
        for sample in said.into_iter().flatten() {
            let text = sample.text.trim().trim_matches(['"', '`']).trim().to_owned();
            if !text.is_empty() && !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found.truncate(own.candidates);
    match found.len() {
        0 | 1 => refuse("at least 2 different prompts from the model", found.len().to_string()),
        _ => Ok(found),
    }
}

/// What the model is asked for one candidate.
fn request(
    own: &Apohf,
    templates: &Templates<'_>,
    examples: &[(String, String)],
    rng: &mut impl Rng,
) -> Result<String> {
    let start = own.start.trim();
    match own.writing {
        Writing::Induction => {
            let mut drawn: Vec<usize> = (0..examples.len()).collect();
            shuffle(&mut drawn, rng);
            let pairs: Vec<minijinja::Value> = drawn
                .iter()
                .take(own.demonstrations)
                .filter_map(|&at| examples.get(at))
                .map(|(input, output)| minijinja::context! { input, output })
                .collect();
            templates.render("induce", minijinja::context! { pairs })
        }
        Writing::Variation if rng.random::<f64>() >= PLAIN => {
            let all = sentences(start);
            let sure = rng.random_range(0..all.len().max(1));
            let mut changed = vec![];
            for (at, sentence) in all.iter().enumerate() {
                let drawn = rng.random_bool(CHANGED);
                if at == sure || drawn {
                    changed.push(sentence.to_string());
                }
            }
            templates.render("vary", minijinja::context! { start, sentences => changed })
        }
        Writing::Rephrasing | Writing::Variation => {
            templates.render("rephrase", minijinja::context! { start })
        }
    }
}

/// Sentences of a text: each ends with a full stop, a question or an exclamation mark before a space.
fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut ended) = (vec![], 0, false);
    for (at, c) in text.char_indices() {
        if ended && c.is_whitespace() {
            found.push(text[start..at].trim());
            start = at;
        }
        ended = matches!(c, '.' | '!' | '?');
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Fills in the embeddings that are missing, from `model`.
///
/// # Errors
/// Those of the model: one that gives no embeddings is named.
pub fn embed(model: &dyn LanguageModel, candidates: &mut [Candidate], queries: &[String]) -> Result<()> {
    let bare = |c: &Candidate| c.embedding.is_empty();
    // A response is embedded with what it answers.
    let text = |c: &Candidate| match queries.get(c.group) {
        Some(query) => format!("{query}\n{}", c.text),
        None => c.text.clone(),
    };
    let texts: Vec<String> = candidates.iter().filter(|c| bare(c)).map(text).collect();
    if texts.is_empty() {
        return Ok(());
    }
    let vectors = model.embed(&texts)?;
    for (candidate, vector) in candidates.iter_mut().filter(|c| bare(c)).zip(vectors) {
        candidate.embedding = vector;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;
    use crate::refine::Draw;

    #[test]
    fn sentences_end_at_marks_before_a_space() {
        assert_eq!(
            sentences("A cat. It is 3.5 feet long!  Why? "),
            ["A cat.", "It is 3.5 feet long!", "Why?"]
        );
        assert_eq!(sentences("no end"), ["no end"]);
        assert!(sentences(" ").is_empty());
    }

    #[test]
    fn files_hold_texts_or_objects_and_faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        let object = r#"{"text": "b", "embedding": [1.0, 2.0], "show": "b.png"}"#;
        std::fs::write(&path, format!("a\n\n{object}\na\n")).unwrap();
        let found = read(&path).unwrap();
        assert_eq!((found.len(), found[0].text.as_str()), (2, "a"));
        assert_eq!((found[1].embedding.len(), found[1].show.as_deref()), (2, Some("b.png")));
        write(&path, &found).unwrap();
        assert_eq!(read(&path).unwrap(), found);
        std::fs::write(&path, "a\n{\"txt\": 1}\n").unwrap();
        let refused = read(&path).unwrap_err().to_string();
        assert!(refused.contains("line 2: needs a candidate") && refused.contains("txt"), "{refused}");
    }

    #[test]
    fn models_write_different_prompts_the_first_among_them() {
        let bench = Bench::new(1).unwrap();
        let model = bench.policy().unwrap().speaker().unwrap();
        let write = Draw { temperature: 1.0, max_tokens: 12, ..Draw::default() };
        let own = Apohf {
            candidates: 10,
            start: "w1 w2".into(),
            writing: Writing::Rephrasing,
            rephrase: "say {{ start }}".into(),
            write,
            ..Apohf::default()
        };
        let found = propose(&model, &own, &[], 3).unwrap();
        assert_eq!((found.len(), found[0].as_str()), (10, "w1 w2"));
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 10);
        let induced = Apohf { writing: Writing::Induction, ..own };
        let refused = propose(&model, &induced, &[], 3).unwrap_err().to_string();
        assert!(refused.contains("records with answers to induce an instruction from"), "{refused}");
    }

    #[test]
    fn what_is_asked_shows_examples_or_sentences() {
        let own = Apohf { start: "One. Two. Three.".into(), writing: Writing::Variation, ..Apohf::default() };
        let templates = own.templates().unwrap();
        let mut rng = rng(1, "asked");
        let mut counts = [0; 4];
        for _ in 0..2000 {
            let text = request(&own, &templates, &[], &mut rng).unwrap();
            counts[["- One.", "- Two.", "- Three."].iter().filter(|s| text.contains(**s)).count()] += 1;
        }
        // Plain ones 2 % of 2000, 40; else one for sure and two with 0.3 each: 1960 · (0.49, 0.42, 0.09).
        for (count, want) in counts.into_iter().zip([40.0f64, 960.4, 823.2, 176.4]) {
            assert!((f64::from(count) - want).abs() < 5.0 * want.sqrt(), "{counts:?}");
        }
        let induce = Apohf { demonstrations: 1, ..Apohf::default() };
        let pairs = [("in".to_string(), "out".to_string())];
        let text = request(&induce, &induce.templates().unwrap(), &pairs, &mut rng).unwrap();
        assert!(text.contains("Input: in\nOutput: out"), "{text}");
    }
}
