//! RealCritic.

pub mod claims;
pub mod grade;

use std::path::Path;

use hone_feedback::metrics::{mean, standard_deviation};
use hone_lm::{LanguageModel, Message};
use hone_nn::train::seed::{rng, sub_seed};
use hone_worlds::roles;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::journal::{Journal, Row, carry_out};
use crate::evaluate::say::{Said, say};
use crate::evaluate::{Figure, Measures, Terms, world_tasks};
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::Draw;
use crate::report::{Estimate, Unit};
use crate::templates::Templates;
use grade::{Rules, equal, extract};

method! {
    /// Measure critiques by what they lead to: whether the correction that follows one is right.
    /// # What it does
    /// A model criticises a candidate solution and corrects it, in one text; only its final answer is scored. Direct: it
    /// solves the problem itself. Self: the candidate is its own direct solution, the baseline its direct accuracy. Cross:
    /// the candidate is fixed data of other models, half of it right, and the baseline the share that is. Iterative: with
    /// `rounds` above 1 the whole conversation stays and the critique is asked anew. Figures: accuracy per set and their
    /// unweighted mean, the difference from the baseline, the four transitions, answers without a box.
    /// # Feedback
    /// Problems with candidate solutions and reference answers.
    /// # Departs from the paper
    /// Prompts of our own, as templates. Answers are graded by sound rules: the box first in every set, whole numbers, whole
    /// lists; `rules = "published"` grades as released (a factor of 100 forgiven, letters of multiple choice found anywhere)
    /// and gives every stored score of the 444 shared candidates. Equal expressions are those of equal value at five points,
    /// not by symbolic algebra. The direct prompt asks for the box as the others do, and unboxed answers are told. The judge
    /// that looks whether a critique criticises at all, and the variant with tools, are left out: so that solving anew while
    /// ignoring the candidate scores well is not claimed against here. On the built-in model (`bare`) critique and
    /// correction are two calls, in the words it was trained on.
    /// # Claim
    /// Critics of known skill: the measured accuracy is that of the formula (`claim_scorer_is_exact`), a weak critic loses
    /// against its own direct answers (`claim_weak_critic_loses`) and more so over rounds (`claim_weak_critic_drifts`), a
    /// strong one gains (`claim_strong_critic_gains`), and two critics of equal verdicts are told apart by their
    /// corrections (`claim_corrections_tell_critics_apart`). The built-in model raises the share of right answers among
    /// half-right candidates to sums (`claim_built_in_model_corrects`).
    /// # Source
    /// Tang et al., 2025, arXiv:2501.14492.
    pub static REALCRITIC: Method = Method {
        id: "realcritic", name: "RealCritic", family: Family::Evaluate, needs: Needs::Checks, makes: Makes::Measures, settings: RealCritic,
        claims: claims::CLAIMS,
        run,
    };
}

/// What the candidates are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// There is none.
    Direct,
    /// The model's own direct solutions.
    #[serde(rename = "self")]
    Own,
    /// Those of the data.
    Cross,
}

impl Regime {
    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Regime::Direct => "direct",
            Regime::Own => "self",
            Regime::Cross => "cross",
        }
    }
}

/// Settings of RealCritic. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RealCritic {
    /// What is measured; self needs direct.
    pub regimes: Vec<Regime>,
    /// Rounds of critique, at least 1. Paper: 1, and several in the iterative form.
    pub rounds: usize,
    /// Tell the critic that every candidate is wrong.
    pub known_wrong: bool,
    /// How answers are found and compared.
    pub rules: Rules,
    /// Critique and correction as two calls in the built-in model's own words.
    pub bare: bool,
    /// How texts are sampled. Paper: temperature 0, 2048 tokens.
    pub draw: Draw,
    /// Items that go on together; an interruption loses no more.
    pub wave: usize,
    /// What is asked for a solution, a Jinja template over `question`.
    pub direct: String,
    /// What is asked for a critique, over `question`, `candidate` and `known_wrong`.
    pub critique: String,
    /// What is asked for another round.
    pub again: String,
}

impl Default for RealCritic {
    fn default() -> RealCritic {
        RealCritic {
            regimes: vec![Regime::Direct, Regime::Own, Regime::Cross],
            rounds: 1,
            known_wrong: false,
            rules: Rules::Sound,
            bare: false,
            draw: Draw { temperature: 0.0, max_tokens: 2048, ..Draw::default() },
            wave: 64,
            direct: include_str!("realcritic/prompts/direct.jinja").into(),
            critique: include_str!("realcritic/prompts/critique.jinja").into(),
            again: include_str!("realcritic/prompts/again.jinja").into(),
        }
    }
}

impl Settings for RealCritic {
    fn check(&self) -> Result<()> {
        if let Some((key, _)) =
            [("rounds", self.rounds), ("wave", self.wave)].into_iter().find(|(_, value)| *value == 0)
        {
            return Err(Error::range("realcritic", key, "at least 1", 0));
        }
        if self.regimes.contains(&Regime::Own) && !self.regimes.contains(&Regime::Direct) {
            return Err(Error::range("realcritic", "regimes", "`direct` beside `self`", "`self` alone"));
        }
        self.templates()?;
        self.draw.check("realcritic")
    }
}

impl RealCritic {
    fn templates(&self) -> Result<Templates<'_>> {
        Templates::new(
            "realcritic",
            &[("direct", &self.direct), ("critique", &self.critique), ("again", &self.again)],
        )
    }
}

/// A problem with a candidate solution.
#[derive(Debug)]
pub struct Item {
    /// The set.
    pub set: String,
    /// What it is called there.
    pub id: String,
    /// The problem.
    pub question: String,
    /// The right answer.
    pub reference: String,
    /// The candidate of the cross regime.
    pub candidate: String,
    /// Whether it is right.
    pub right: bool,
    /// The oracle of a world's task, which then judges whole answers.
    pub task: Option<Box<dyn hone_worlds::Task>>,
}

impl Item {
    /// The final answer of a text, whether it stood in a box, and whether it is right.
    ///
    /// # Errors
    /// Those of a world's oracle.
    pub fn judge(&self, text: &str, rules: Rules) -> Result<(String, bool, bool)> {
        if let Some(task) = &self.task {
            return Ok((text.trim().to_string(), true, task.check(text)?.right));
        }
        let (answer, in_box) = extract(text, &self.set, rules);
        let right = equal(&answer, &self.reference, rules);
        Ok((answer, in_box, right))
    }
}

/// One item in one regime, with all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The regime.
    pub regime: Regime,
    /// The set and the id in it.
    pub doc_id: String,
    /// The problem and the candidate.
    pub doc: Value,
    /// The right answer.
    pub target: String,
    /// The texts of all rounds, in one list.
    pub resps: Vec<Vec<String>>,
    /// Their final answers.
    pub filtered_resps: Vec<String>,
    /// Whether each is right.
    pub right: Vec<bool>,
    /// Whether each stood in a box.
    pub boxed: Vec<bool>,
    /// Whether the candidate was right.
    pub previous: bool,
    /// Why a text is missing. What is missing counts as wrong.
    pub error: Option<String>,
    /// Whether that was the connection's fault.
    pub lost: bool,
}

impl Row for Judged {
    fn key(&self) -> String {
        format!("{} {}", self.regime.name(), self.doc_id)
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

impl Judged {
    fn new(regime: Regime, item: &Item, candidate: &str, previous: bool) -> Judged {
        Judged {
            regime,
            doc_id: format!("{}/{}", item.set, item.id),
            doc: serde_json::json!({ "question": item.question, "candidate": candidate }),
            target: item.reference.clone(),
            resps: vec![vec![]],
            filtered_resps: vec![],
            right: vec![],
            boxed: vec![],
            previous,
            error: None,
            lost: false,
        }
    }

    /// Whether the answer of this round, from 0, is right.
    pub fn right_in(&self, round: usize) -> bool {
        self.right.get(round).copied().unwrap_or(false)
    }

    /// The text of the last round.
    fn last(&self) -> &str {
        self.resps.first().and_then(|texts| texts.last()).map_or("", String::as_str)
    }

    fn take(&mut self, said: Said, item: &Item, rules: Rules) -> Result<()> {
        let text = match said {
            Said::Text(text) => text,
            Said::Refused(why) => {
                self.error = Some(why);
                return Ok(());
            }
            Said::Lost(why) => {
                (self.error, self.lost) = (Some(why), true);
                return Ok(());
            }
        };
        let (answer, in_box, right) = item.judge(&text, rules)?;
        self.filtered_resps.push(answer);
        self.boxed.push(in_box);
        self.right.push(right);
        if let Some(texts) = self.resps.first_mut() {
            texts.push(text);
        }
        Ok(())
    }
}

/// A wave of items in one regime.
fn play(
    model: &dyn LanguageModel,
    own: &RealCritic,
    regime: Regime,
    wave: &[(&Item, String, bool)],
    seed: u64,
) -> Result<Vec<Judged>> {
    let prompts = own.templates()?;
    let mut rows: Vec<Judged> =
        wave.iter().map(|(item, candidate, right)| Judged::new(regime, item, candidate, *right)).collect();
    let rounds = if regime == Regime::Direct { 1 } else { own.rounds };
    let mut histories: Vec<Vec<Message>> = vec![];
    for (item, candidate, _) in wave {
        let question = &item.question;
        let text = match (regime, own.bare) {
            (Regime::Direct, true) => question.clone(),
            (Regime::Direct, false) => prompts.render("direct", minijinja::context! { question })?,
            (_, true) => roles::criticise(question, candidate),
            (_, false) => {
                let known_wrong = own.known_wrong;
                prompts.render("critique", minijinja::context! { question, candidate, known_wrong })?
            }
        };
        histories.push(vec![Message::new("user", text)]);
    }
    for round in 0..rounds {
        let open: Vec<usize> = (0..wave.len()).filter(|&at| rows[at].error.is_none()).collect();
        let ask = |histories: &[Vec<Message>], open: &[usize], part: &str| {
            let asked: Vec<_> = open.iter().map(|&at| histories[at].clone()).collect();
            let seeds: Vec<u64> = open
                .iter()
                .map(|&at| sub_seed(seed, &format!("{} {round} {part}", rows[at].key())))
                .collect();
            say(model, &asked, &own.draw.sampling(), &seeds)
        };
        let mut said = ask(&histories, &open, "text")?;
        if own.bare && regime != Regime::Direct {
            // The critique first, then the correction that is written from it.
            let mut corrections = vec![];
            for (&at, said) in open.iter().zip(&said) {
                let (item, candidate, _) = &wave[at];
                let before = if round == 0 { candidate.as_str() } else { rows[at].last() };
                let critique = if let Said::Text(text) = said { text.as_str() } else { "" };
                corrections.push(vec![Message::new("user", roles::refine(&item.question, before, critique))]);
            }
            let seeds: Vec<u64> = open
                .iter()
                .map(|&at| sub_seed(seed, &format!("{} {round} better", rows[at].key())))
                .collect();
            let better = say(model, &corrections, &own.draw.sampling(), &seeds)?;
            // A critique that was not given leaves nothing to correct by.
            said = said
                .into_iter()
                .zip(better)
                .map(|(said, better)| if matches!(said, Said::Text(_)) { better } else { said })
                .collect();
        }
        for (&at, said) in open.iter().zip(said) {
            rows[at].take(said, wave[at].0, own.rules)?;
            if own.bare {
                histories[at] =
                    vec![Message::new("user", roles::criticise(&wave[at].0.question, rows[at].last()))];
            } else if round + 1 < rounds {
                let last = rows[at].last().to_string();
                histories[at].push(Message::new("assistant", last));
                let again = prompts.render("again", minijinja::context! {})?;
                histories[at].push(Message::new("user", again));
            }
        }
    }
    Ok(rows)
}

/// The mean over sets of the share in each, with a normal interval whose variance is that of the sets' shares.
fn over_sets(
    name: String,
    rows: &[Judged],
    of: &dyn Fn(&Judged) -> f64,
) -> (Figure, Vec<(String, Vec<f64>)>) {
    let mut sets: Vec<(String, Vec<f64>)> = vec![];
    for row in rows {
        let set = row.doc_id.split('/').next().unwrap_or_default();
        match sets.iter_mut().find(|(known, _)| known == set) {
            Some((_, values)) => values.push(of(row)),
            None => sets.push((set.into(), vec![of(row)])),
        }
    }
    let value = mean(&sets.iter().map(|(_, values)| mean(values)).collect::<Vec<_>>());
    let variance: f64 =
        sets.iter().map(|(_, values)| standard_deviation(values).powi(2) / values.len() as f64).sum();
    let half = 1.96 * variance.sqrt() / sets.len() as f64;
    let interval = half.is_finite().then_some([value - half, value + half]);
    let of = Estimate { value, interval };
    (Figure { name, of, unit: Unit::Share, n: rows.len(), published: None }, sets)
}

/// Published means over the eight sets: direct, self, cross.
const PUBLISHED: &[(&str, [f64; 3])] = &[
    ("llama-3.1-70b", [56.0, 51.7, 55.8]),
    ("mistral-large", [58.9, 57.1, 61.0]),
    ("o1-mini", [59.3, 62.6, 65.6]),
];

/// The figures of all rows, by regime.
pub fn figures(model: &str, own: &RealCritic, all: &[(Regime, Vec<Judged>)], seed: u64) -> Measures {
    let mut measures = Measures::new("realcritic", model);
    let number = |held: bool| f64::from(u8::from(held));
    for (regime, rows) in all {
        let regime = regime.name();
        let rounds = if regime == "direct" { 1 } else { own.rounds };
        for round in 0..rounds {
            let name = if round == 0 { regime.to_string() } else { format!("{regime}, round {}", round + 1) };
            let (figure, sets) = over_sets(name.clone(), rows, &|row| number(row.right_in(round)));
            measures.figures.push(figure);
            for (set, values) in sets.iter().filter(|_| sets.len() > 1) {
                let held: Vec<bool> = values.iter().map(|&value| value > 0.5).collect();
                measures.figures.push(Figure::share(format!("{name}, {set}"), &held, seed));
            }
            if regime == "direct" {
                continue;
            }
            let gain = |row: &Judged| number(row.right_in(round)) - number(row.previous);
            measures.figures.push(over_sets(format!("{name}, gain"), rows, &gain).0);
            for (from, was) in [("right", true), ("wrong", false)] {
                let group: Vec<&Judged> = rows.iter().filter(|row| row.previous == was).collect();
                let right: Vec<bool> = group.iter().map(|row| row.right_in(round)).collect();
                let wrong: Vec<bool> = right.iter().map(|right| !right).collect();
                measures.figures.push(Figure::share(format!("{name}, {from} to right"), &right, seed));
                measures.figures.push(Figure::share(format!("{name}, {from} to wrong"), &wrong, seed));
            }
        }
        let unboxed: Vec<bool> =
            rows.iter().map(|row| row.boxed.first().is_none_or(|boxed| !boxed)).collect();
        measures.figures.push(Figure::share(format!("{regime}, no box"), &unboxed, seed));
    }
    let rows = || all.iter().flat_map(|(_, rows)| rows);
    measures.lost = rows().filter(|row| row.lost).count();
    let failed = rows().filter(|row| row.error.is_some()).count();
    if failed > 0 {
        let lost = measures.lost;
        measures
            .notes
            .push(format!("{failed} items have no answer and count as wrong, {lost} lost to the connection"));
    }
    let name = model.to_lowercase();
    if let Some((_, row)) = PUBLISHED.iter().find(|(known, _)| name.contains(known)) {
        let row = ["direct", "self", "cross"]
            .iter()
            .zip(row)
            .map(|(name, share)| (name.to_string(), share / 100.0));
        measures.publish(&row.collect::<Vec<_>>());
        measures
            .notes
            .push("published figures are means over eight sets, with the paper's prompts and rules".into());
    }
    measures
}

/// Runs the protocol. `on` hears how many items are done and of how many.
///
/// # Errors
/// [`Error::Data`] for no item; what the model refuses for all alike; those of templates and journal.
pub fn measure(
    model: &dyn LanguageModel,
    items: &[Item],
    own: &RealCritic,
    seed: u64,
    journal: &mut Journal,
    on: &mut dyn FnMut(usize, usize),
) -> Result<Measures> {
    let (all, keys) = rows(model, items, own, seed, journal, on)?;
    let measures = figures(&model.capabilities().name, own, &all, seed);
    journal.finish(&keys, &measures, &serde_json::to_value(own).unwrap_or_default())?;
    Ok(measures)
}

type Rows = (Vec<(Regime, Vec<Judged>)>, Vec<String>);

fn rows(
    model: &dyn LanguageModel,
    items: &[Item],
    own: &RealCritic,
    seed: u64,
    journal: &mut Journal,
    on: &mut dyn FnMut(usize, usize),
) -> Result<Rows> {
    if items.is_empty() {
        return Err(Error::Data { method: "realcritic".into(), needed: "items".into(), got: "none".into() });
    }
    let (mut all, mut keys): Rows = (vec![], vec![]);
    let total = items.len() * own.regimes.len();
    for &regime in &own.regimes {
        let before = keys.len();
        let direct = all.iter().find(|(known, _)| *known == Regime::Direct).map(|(_, rows)| rows.as_slice());
        let candidates: Vec<(&Item, String, bool)> = items
            .iter()
            .enumerate()
            .map(|(at, item)| match (regime, direct.and_then(|rows| rows.get(at))) {
                (Regime::Own, Some(direct)) => (item, direct.last().to_string(), direct.right_in(0)),
                (Regime::Direct, _) => (item, String::new(), false),
                _ => (item, item.candidate.clone(), item.right),
            })
            .collect();
        let own_keys: Vec<String> =
            candidates.iter().map(|(item, ..)| Judged::new(regime, item, "", false).key()).collect();
        let mut tell = |done: usize, _: usize| on(before + done, total);
        let rows = carry_out(&own_keys, journal, own.wave, &mut tell, |wave| {
            let wave: Vec<_> = wave.iter().map(|&at| candidates[at].clone()).collect();
            play(model, own, regime, &wave, seed)
        })?;
        all.push((regime, rows));
        keys.extend(own_keys);
    }
    Ok((all, keys))
}

/// The items of the sets in a folder, at most `most` of each.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a row that is no item, or a folder without a set.
pub fn read(folder: &Path, most: usize) -> Result<Vec<Item>> {
    let sets = [
        "arc-challenge",
        "college_math",
        "gpqa",
        "gsm8k",
        "math",
        "minerva_math",
        "mmlu_stem",
        "olympiadbench",
    ];
    let mut items = vec![];
    for set in sets {
        let path = [format!("{set}.jsonl"), format!("{set}/test.jsonl")].map(|name| folder.join(name));
        let Some(path) = path.iter().find(|path| path.exists()) else { continue };
        for (index, row) in crate::evaluate::rows(path)?.iter().take(most).enumerate() {
            let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_string);
            let right = row.get("previous_score").and_then(|score| score.get(0)).and_then(Value::as_bool);
            let (Some(question), Some(reference), Some(candidate), Some(right)) =
                (text("question"), text("gt"), text("reasoning"), right)
            else {
                return Err(Error::File {
                    path: path.display().to_string(),
                    problem: format!(
                        "row {}: needs `question`, `gt`, `reasoning` and `previous_score`",
                        index + 1
                    ),
                });
            };
            let id = row.get("idx").map_or_else(|| index.to_string(), Value::to_string);
            items.push(Item { set: set.into(), id, question, reference, candidate, right, task: None });
        }
    }
    match items.is_empty() {
        true => Err(Error::File {
            path: folder.display().to_string(),
            problem: format!("needs one of {}, as .jsonl, got none", sets.join(", ")),
        }),
        false => Ok(items),
    }
}

/// The protocol as the command runs it: on the sets in a folder.
///
/// # Errors
/// As [`measure`], and those of reading.
pub fn evaluate(terms: &mut Terms<'_>) -> Result<Measures> {
    let own: RealCritic = settings("realcritic", terms.settings)?;
    let items = read(terms.data, terms.most)?;
    measure(terms.model, &items, &own, terms.seed, &mut terms.journal, terms.on)
}

/// Tasks of worlds with candidates of which every other one is wrong.
fn world_items(tasks: Vec<crate::evaluate::WorldTask>, seed: u64) -> Vec<Item> {
    let item = |(at, of): (usize, crate::evaluate::WorldTask)| {
        let (question, reference) = (of.task.prompt(), of.task.reference());
        let mut rng = rng(sub_seed(seed, &of.id), "candidate");
        let candidate = of.task.attempt(f64::from(u8::from(at % 2 == 0)), &mut rng);
        let right = of.task.check(&candidate).is_ok_and(|check| check.right);
        Item { set: of.world, id: of.id, question, reference, candidate, right, task: Some(of.task) }
    };
    tasks.into_iter().enumerate().map(item).collect()
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: RealCritic = settings("realcritic", job.settings)?;
    let items = world_items(world_tasks("realcritic", job.records)?, job.seed);
    let model = job.policy.speaker()?;
    Ok(Product::Measures(measure(&model, &items, &own, job.seed, &mut Journal::memory(), &mut |_, _| {})?))
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
    fn claim_scorer_is_exact() {
        assert_holds(effect("claim_scorer_is_exact"), 5);
    }

    #[test]
    fn claim_weak_critic_loses() {
        assert_holds(effect("claim_weak_critic_loses"), 5);
    }

    #[test]
    fn claim_weak_critic_drifts() {
        assert_holds(effect("claim_weak_critic_drifts"), 5);
    }

    #[test]
    fn claim_strong_critic_gains() {
        assert_holds(effect("claim_strong_critic_gains"), 5);
    }

    #[test]
    fn claim_corrections_tell_critics_apart() {
        assert_holds(effect("claim_corrections_tell_critics_apart"), 5);
    }

    #[test]
    fn claim_built_in_model_corrects() {
        assert_holds(effect("claim_built_in_model_corrects"), 5);
    }

    #[test]
    fn means_weigh_sets_alike_and_transitions_are_of_their_own_group() {
        let item = |set: &str, id: usize| Item {
            set: set.into(),
            id: id.to_string(),
            question: "q".into(),
            reference: "1".into(),
            candidate: "c".into(),
            right: id.is_multiple_of(2),
            task: None,
        };
        // Set a: 1 of 1 right, from right. Set b: 1 of 3, from right, wrong, right.
        let row = |set: &str, id: usize, answer: &str| {
            let item = item(set, id);
            let mut row = Judged::new(Regime::Cross, &item, "c", item.right);
            row.take(Said::Text(format!("\\boxed{{{answer}}}")), &item, Rules::Sound).unwrap();
            row
        };
        let rows = vec![row("a", 0, "1"), row("b", 0, "2"), row("b", 1, "1"), row("b", 2, "2")];
        let measures = figures("m", &RealCritic::default(), &[(Regime::Cross, rows)], 1);
        let value = |name: &str| measures.value(name).unwrap();
        // (1 + 1/3)/2; gains: a 0, b (−1 + 1 − 1)/3 = −1/3, mean −1/6.
        assert!(
            (value("cross") - 2.0 / 3.0).abs() < 1e-12 && (value("cross, gain") + 1.0 / 6.0).abs() < 1e-12
        );
        assert!((value("cross, right to right") - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((value("cross, wrong to right"), value("cross, no box")), (1.0, 0.0));
        let refused = (REALCRITIC.check)(&"regimes = [\"self\"]".parse().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("`direct` beside `self`"), "{refused}");
    }
}
