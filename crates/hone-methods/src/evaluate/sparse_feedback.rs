//! Sparse feedback.

pub mod agreement;
pub mod claims;

use std::path::Path;

use hone_lm::{LanguageModel, Message};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::journal::{Journal, Row, carry_out};
use crate::evaluate::say::{Said, say};
use crate::evaluate::{Figure, Measures, Terms};
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::Draw;
use crate::templates::Templates;
use agreement::{Choice, Ranked, Rated, join};

method! {
    /// Measure how far ratings of single responses and rankings of pairs, by the same annotator, agree.
    /// # What it does
    /// A model annotates every response of an instruction by itself (a whole number from 1 to 7), and every pair of them,
    /// each pair in both orders: the same place twice is a tie. Ratings become three-way labels of the pairs. Figures: the
    /// share of pairs on which both agree, with and without ties of the ratings, pairs that only one of them decides, how
    /// often the first place is chosen, how often the same question asked again gets another label (the noise floor), and
    /// what could not be read. With the files of the release in the folder, their agreement too.
    /// # Feedback
    /// Instructions with several responses each.
    /// # Departs from the paper
    /// Prompts of our own, as templates, without worked examples. Every question is asked a second time with another seed, for
    /// the noise floor. Win rates with ties at one half stand here for the responses of the same model by place; reward models
    /// of both kinds, policies by best of 64, and their win rates against a reference opponent are not part of this protocol
    /// (`reward-ratings`, `reward-pairs` and `best-of-n` are their parts), so no claim is made about them. The shared part of
    /// the release (60 and 70 rows) agrees on 32 of 68 pairs; the whole sample of 56.41 % is not shared.
    /// # Claim
    /// An annotator who weighs density more in ratings and accuracy more in rankings disagrees with itself across protocols
    /// more than within one (`claim_protocols_disagree_beyond_noise`); agreement rises without the ties of ratings
    /// (`claim_ties_explain_disagreement`); asking both orders turns a bias to the first place into ties
    /// (`claim_both_orders_cancel_bias`).
    /// # Source
    /// Bansal, Dang and Grover, ICLR 2024, arXiv:2308.15812.
    pub static SPARSE_FEEDBACK: Method = Method {
        id: "sparse-feedback", name: "Sparse feedback", family: Family::Evaluate, needs: Needs::Prompts, makes: Makes::Measures, settings: SparseFeedback,
        claims: claims::CLAIMS,
        run,
    };
}

/// Settings of sparse feedback. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparseFeedback {
    /// Responses per instruction at most, at least 2. Paper: 5, so that each has 10 pairs.
    pub responses: usize,
    /// How annotations are sampled. Paper: the model's own default.
    pub draw: Draw,
    /// Instructions that are annotated together; an interruption loses no more.
    pub wave: usize,
    /// What is asked for a rating, a Jinja template over `instruction` and `response`.
    pub rate: String,
    /// What is asked for a choice, over `instruction`, `a` and `b`.
    pub rank: String,
}

impl Default for SparseFeedback {
    fn default() -> SparseFeedback {
        SparseFeedback {
            responses: 5,
            draw: Draw { max_tokens: 128, ..Draw::default() },
            wave: 16,
            rate: include_str!("sparse_feedback/prompts/rate.jinja").into(),
            rank: include_str!("sparse_feedback/prompts/rank.jinja").into(),
        }
    }
}

impl Settings for SparseFeedback {
    fn check(&self) -> Result<()> {
        if self.responses < 2 {
            return Err(Error::range("sparse-feedback", "responses", "at least 2", self.responses));
        }
        if self.wave == 0 {
            return Err(Error::range("sparse-feedback", "wave", "at least 1", 0));
        }
        self.templates()?;
        self.draw.check("sparse-feedback")
    }
}

impl SparseFeedback {
    fn templates(&self) -> Result<Templates<'_>> {
        Templates::new("sparse-feedback", &[("rate", &self.rate), ("rank", &self.rank)])
    }
}

/// An instruction with its responses.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What it is called.
    pub id: String,
    /// The instruction, with its input.
    pub instruction: String,
    /// The responses.
    pub responses: Vec<String>,
}

/// All that was said about one instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotated {
    /// The instruction's id.
    pub doc_id: String,
    /// Instruction and responses.
    pub doc: Value,
    /// Every reply, in the order of the questions: ratings, then pairs in both orders; all of them twice.
    pub resps: Vec<Vec<String>>,
    /// Ratings of each response, once and again; `None` where the reply cannot be read.
    pub ratings: [Vec<Option<f64>>; 2],
    /// Places chosen for each pair and each order, once and again.
    pub places: [Vec<[Option<Choice>; 2]>; 2],
    /// Why a reply is missing.
    pub error: Option<String>,
    /// Whether that was the connection's fault.
    pub lost: bool,
}

impl Row for Annotated {
    fn key(&self) -> String {
        self.doc_id.clone()
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

/// The pairs of so many responses.
fn pairs(responses: usize) -> Vec<(usize, usize)> {
    (0..responses).flat_map(|one| (one + 1..responses).map(move |other| (one, other))).collect()
}

/// The rating of a reply: its first line must begin with a whole number from 1 to 7.
pub fn rating(reply: &str) -> Option<f64> {
    let first = reply.trim().lines().next()?.trim();
    let digits: String = first.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|score| (1.0..=7.0).contains(score))
}

/// The place that a reply chooses: the first of (a) and (b) that it names.
pub fn place(reply: &str) -> Option<Choice> {
    let reply = reply.to_lowercase();
    match (reply.find("(a)"), reply.find("(b)")) {
        (Some(a), Some(b)) if a < b => Some(Choice::First),
        (Some(_), None) => Some(Choice::First),
        (_, Some(_)) => Some(Choice::Second),
        (None, None) => None,
    }
}

/// Annotates a wave of instructions, all questions at once.
fn annotate(
    model: &dyn LanguageModel,
    own: &SparseFeedback,
    wave: &[&Item],
    seed: u64,
) -> Result<Vec<Annotated>> {
    let prompts = own.templates()?;
    let (mut asked, mut seeds, mut counts) = (vec![], vec![], vec![]);
    for item in wave {
        let instruction = &item.instruction;
        let mut texts = vec![];
        for response in &item.responses {
            let context = minijinja::context! { instruction, response };
            texts.push(prompts.render("rate", context)?);
        }
        for (one, other) in pairs(item.responses.len()) {
            for (a, b) in [(one, other), (other, one)] {
                let (a, b) = (&item.responses[a], &item.responses[b]);
                let context = minijinja::context! { instruction, a, b };
                texts.push(prompts.render("rank", context)?);
            }
        }
        counts.push(texts.len());
        for time in 0..2 {
            for (at, text) in texts.iter().enumerate() {
                asked.push(vec![Message::new("user", text.clone())]);
                seeds.push(sub_seed(seed, &format!("{} {at} {time}", item.id)));
            }
        }
    }
    let mut said = say(model, &asked, &own.draw.sampling(), &seeds)?.into_iter();
    let row = |(item, count): (&&Item, usize)| {
        let mut row = Annotated {
            doc_id: item.id.clone(),
            doc: json!({ "instruction": item.instruction, "responses": item.responses }),
            resps: vec![],
            ratings: Default::default(),
            places: Default::default(),
            error: None,
            lost: false,
        };
        for time in 0..2 {
            let mut replies = vec![];
            for said in said.by_ref().take(count) {
                replies.push(match said {
                    Said::Text(text) => text,
                    Said::Refused(why) => {
                        row.error.get_or_insert(why);
                        String::new()
                    }
                    Said::Lost(why) => {
                        row.error.get_or_insert(why);
                        row.lost = true;
                        String::new()
                    }
                });
            }
            let (rates, ranks) = replies.split_at(item.responses.len().min(replies.len()));
            row.ratings[time] = rates.iter().map(|reply| rating(reply)).collect();
            row.places[time] = ranks
                .chunks(2)
                .map(|both| [0, 1].map(|at| both.get(at).and_then(|reply| place(reply))))
                .collect();
            row.resps.push(replies);
        }
        row
    };
    Ok(wave.iter().zip(counts).map(row).collect())
}

impl Annotated {
    /// Label of each pair from ratings, once or again.
    fn by_ratings(&self, time: usize) -> Vec<Option<Choice>> {
        let ratings = &self.ratings[time];
        let rated = |at: usize| ratings.get(at).copied().flatten();
        pairs(ratings.len())
            .into_iter()
            .map(|(one, other)| Some(Choice::of_ratings(rated(one)?, rated(other)?)))
            .collect()
    }

    /// Label of each pair from both orders, once or again.
    fn by_rankings(&self, time: usize) -> Vec<Option<Choice>> {
        self.places[time]
            .iter()
            .map(|[straight, swapped]| Choice::of_both_orders((*straight)?, (*swapped)?))
            .collect()
    }
}

/// The figures of all rows.
pub fn figures(model: &str, rows: &[Annotated], seed: u64) -> Measures {
    let mut measures = Measures::new("sparse-feedback", model);
    let both = |one: &dyn Fn(&Annotated) -> Vec<Option<Choice>>,
                other: &dyn Fn(&Annotated) -> Vec<Option<Choice>>| {
        let of = |row: &Annotated| {
            one(row).into_iter().zip(other(row)).filter_map(|(a, b)| Some((a?, b?))).collect::<Vec<_>>()
        };
        agreement::Agreement { pairs: rows.iter().flat_map(of).collect(), without_ratings: 0 }
    };
    let across = both(&|row| row.by_ratings(0), &|row| row.by_rankings(0));
    agree(&mut measures, "", &across, seed);
    let mut floor = |name: &str, same: agreement::Agreement| {
        measures.figures.push(Figure::share(format!("{name} asked twice agree"), &same.consistent(), seed));
    };
    floor("ratings", both(&|row| row.by_ratings(0), &|row| row.by_ratings(1)));
    floor("rankings", both(&|row| row.by_rankings(0), &|row| row.by_rankings(1)));
    let places: Vec<bool> = rows
        .iter()
        .flat_map(|row| row.places.iter().flatten().flatten().flatten())
        .map(|place| *place == Choice::First)
        .collect();
    measures.figures.push(Figure::share("first place chosen", &places, seed));
    let ties: Vec<bool> = rows
        .iter()
        .flat_map(|row| row.by_rankings(0))
        .flatten()
        .map(|label| label == Choice::Equal)
        .collect();
    measures.figures.push(Figure::share("ties of rankings", &ties, seed));
    let unread: Vec<bool> = rows
        .iter()
        .flat_map(|row| {
            let ratings = row.ratings.iter().flatten().map(Option::is_none);
            ratings.chain(row.places.iter().flatten().flatten().map(Option::is_none)).collect::<Vec<_>>()
        })
        .collect();
    measures.figures.push(Figure::share("replies that cannot be read", &unread, seed));
    measures.lost = rows.iter().filter(|row| row.lost).count();
    let failed = rows.iter().filter(|row| row.error.is_some()).count();
    if failed > 0 {
        measures.notes.push(format!(
            "{failed} of {} instructions lack a reply, {} of them lost to the connection",
            rows.len(),
            measures.lost
        ));
    }
    measures
}

/// The figures of an agreement; their names begin with `of`.
fn agree(measures: &mut Measures, of: &str, agreement: &agreement::Agreement, seed: u64) {
    let figures = [
        ("ratings and rankings agree", agreement.consistent()),
        ("agree without ties of ratings", agreement.consistent_without_ties()),
        ("decided by one only", agreement.hedged()),
    ];
    measures.figures.extend(figures.map(|(name, held)| Figure::share(format!("{of}{name}"), &held, seed)));
}

/// Runs the protocol. `on` hears how many instructions are done and of how many.
///
/// # Errors
/// [`Error::Data`] for no instruction; what the model refuses for all alike; those of templates and journal.
pub fn measure(
    model: &dyn LanguageModel,
    items: &[Item],
    released: Option<(&[Rated], &[Ranked])>,
    own: &SparseFeedback,
    seed: u64,
    journal: &mut Journal,
    on: &mut dyn FnMut(usize, usize),
) -> Result<Measures> {
    if items.is_empty() {
        let needed = "instructions with at least 2 responses";
        return Err(Error::Data {
            method: "sparse-feedback".into(),
            needed: needed.into(),
            got: "none".into(),
        });
    }
    let keys: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
    let rows = carry_out(&keys, journal, own.wave, on, |wave| {
        let wave: Vec<&Item> = wave.iter().map(|&at| &items[at]).collect();
        annotate(model, own, &wave, seed)
    })?;
    let mut measures = figures(&model.capabilities().name, &rows, seed);
    if let Some((rated, ranked)) = released {
        agree(&mut measures, "release: ", &join(rated, ranked), seed);
    }
    journal.finish(&keys, &measures, &serde_json::to_value(own).unwrap_or_default())?;
    Ok(measures)
}

/// The protocol as the command runs it: on `sample_generation.json` in a folder, with ratings and rankings of the release
/// where they lie beside it.
///
/// # Errors
/// As [`measure`], and those of reading.
pub fn evaluate(terms: &mut Terms<'_>) -> Result<Measures> {
    let own: SparseFeedback = settings("sparse-feedback", terms.settings)?;
    let items = read(&terms.data.join("sample_generation.json"), own.responses, terms.most)?;
    let rows = |part: &str| -> Result<Option<Vec<Vec<String>>>> {
        let entries = std::fs::read_dir(terms.data).map_err(Error::io(terms.data))?.flatten();
        let found = entries.map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.contains(part) && name.ends_with(".csv")
        });
        found
            .map(|path| Ok(agreement::csv(&std::fs::read_to_string(&path).map_err(Error::io(&path))?)))
            .transpose()
    };
    let released = rows("ratings")?.zip(rows("rankings")?);
    let released = released.map(|(one, other)| (agreement::rated(&one), agreement::ranked(&other)));
    let released = released.as_ref().map(|(rated, ranked)| (rated.as_slice(), ranked.as_slice()));
    measure(terms.model, &items, released, &own, terms.seed, &mut terms.journal, terms.on)
}

/// Instructions with their responses: a JSON list of `instruction`, `input`, `responses`.
fn read(path: &Path, responses: usize, most: usize) -> Result<Vec<Item>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let fault = |problem: String| Error::File { path: path.display().to_string(), problem };
    let rows: Vec<Value> = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
    let item = |(index, row): (usize, &Value)| {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let said = row.get("responses").and_then(Value::as_array);
        let (Some(asked), Some(said)) = (text("instruction"), said) else {
            return Err(fault(format!("row {}: needs `instruction` and `responses`", index + 1)));
        };
        Ok(Item {
            id: index.to_string(),
            instruction: agreement::instruction(asked, text("input").unwrap_or_default()),
            responses: said.iter().take(responses).filter_map(Value::as_str).map(str::to_string).collect(),
        })
    };
    rows.iter().take(most).enumerate().map(item).collect()
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: SparseFeedback = settings("sparse-feedback", job.settings)?;
    let items: Vec<Item> = job
        .records
        .iter()
        .filter(|record| record.responses.len() > 1)
        .map(|record| Item {
            id: record.id.clone(),
            instruction: record.prompt.text().into_owned(),
            responses: record
                .responses
                .iter()
                .take(own.responses)
                .map(|r| r.content.text().into_owned())
                .collect(),
        })
        .collect();
    let model = job.policy.speaker()?;
    let mut journal = Journal::memory();
    Ok(Product::Measures(measure(&model, &items, None, &own, job.seed, &mut journal, &mut |_, _| {})?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_holds;
    use claims::CLAIMS;

    fn effect(name: &str) -> fn(u64) -> Result<f64> {
        CLAIMS.iter().find(|claim| claim.name == name).unwrap().effect
    }

    #[test]
    fn claim_protocols_disagree_beyond_noise() {
        assert_holds(effect("claim_protocols_disagree_beyond_noise"), 5);
    }

    #[test]
    fn claim_ties_explain_disagreement() {
        assert_holds(effect("claim_ties_explain_disagreement"), 5);
    }

    #[test]
    fn claim_both_orders_cancel_bias() {
        assert_holds(effect("claim_both_orders_cancel_bias"), 5);
    }

    #[test]
    fn replies_are_read() {
        assert_eq!(
            (rating("5\nbecause"), rating("8"), rating("good: 5"), rating("")),
            (Some(5.0), None, None, None)
        );
        assert_eq!(place("(b), not (a)"), Some(Choice::Second));
        assert_eq!((place("(A)"), place("neither")), (Some(Choice::First), None));
        assert_eq!(pairs(5).len(), 10);
    }
}
