//! MINT.

pub mod claims;
pub mod episode;
pub mod instance;
pub mod released;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use hone_lm::LanguageModel;
use hone_lm::model::Sampling;
use hone_worlds::sandbox::{Limits, Mode, Sandbox};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluate::journal::{Journal, Row as _, carry_out};
use crate::evaluate::{Figure, Measures, Terms, world_tasks};
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::Draw;
use crate::report::Unit;
use episode::{Adviser, Budget, ByModel, ByOracle, End, Episode, play};
use instance::{Instance, Rules};

method! {
    /// Measure how often a model solves tasks in at most k turns, with a Python tool and with feedback in words.
    /// # What it does
    /// In each turn the model runs a program and sees what it prints, or proposes a solution. Turns are counted together
    /// (programs, proposals, replies that are neither), proposals also by themselves; what is left is said in every turn.
    /// Each k is a run of its own, because the budget stands in the prompt. Figures: share of tasks solved at each k, the
    /// slope of a line through them (what tools and turns give), and how much more is solved with feedback, from another
    /// model or the same, that has read the conversation and the newest observation.
    /// # Feedback
    /// Comments in words on every turn that does not end the episode; or only whether it is good or bad.
    /// # Departs from the paper
    /// Six of its eight sets and HotpotQA: ALFWorld needs its simulator. The prompts are our own, with one worked example for
    /// all sets, as templates that can be replaced. Python runs in a sandbox without network or packages, so there is no
    /// search tool; names stay from turn to turn because earlier cells are run again, unseen, before each new one. Negative
    /// references get the 5 % tolerance that the release gives to positive ones only. `strict` compares whole answers.
    /// Feedback after every turn or none; the sparse form of the release is left out. Answers that the connection lost count
    /// as failures and are asked again when the run goes on. On the built-in model (`form = "bare"`) every reply is a
    /// proposal, in the words that it was trained on.
    /// # Claim
    /// Solvers that draw numbers or programs at random, in the full protocol: success rises with k (`claim_turns_help`),
    /// most from the first observation (`claim_first_observation`); who is better at k = 1 is worse at k = 5
    /// (`claim_order_depends_on_turns`); replies out of form cost success though their answers are right
    /// (`claim_form_costs_success`); a commentator that calls wrong solutions good leaves a solver that heeds it below no
    /// comments (`claim_bad_advice_harms`), and one that knows better helps more than one no abler than the solver
    /// (`claim_strong_over_own`). The built-in model on hard sums solves more in three turns with a bare verdict than by
    /// answering again (`claim_verdicts_over_nothing`).
    ///
    /// That comments in words help the built-in model more than verdicts (`claim_words_over_verdicts`) does not hold: 0.002
    /// on 100 hard sums in three turns, 0.03 with intervals that hold 0 on easier sums in two and three, and +0.050 ± 0.097 at
    /// k = 2. Its own comments,
    /// comments on an error that is not there and bare approval help it as much as the oracle's (within 0.05): being shown its
    /// wrong answer is most of the help. So bad advice and strong commentators are claimed of drawn solvers only.
    /// # Source
    /// Wang et al., ICLR 2024, arXiv:2309.10691.
    pub static MINT: Method = Method {
        id: "mint", name: "MINT", family: Family::Evaluate, needs: Needs::Checks, makes: Makes::Measures, settings: Mint,
        claims: claims::CLAIMS,
        run,
    };
}

/// How replies are read and what is said between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Programs and solutions in tags, the whole conversation before each turn.
    Tags,
    /// Every reply is a proposal; the next turn has the last one and its comment before it, as the built-in model knows it.
    Bare,
}

/// The form of comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feedback {
    /// None.
    None,
    /// In words.
    Textual,
    /// Good or bad.
    Binary,
}

/// Who comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Commentator {
    /// A language model: another one where one is given, else the solver itself.
    Model,
    /// The world's oracle; for tasks of a world.
    Oracle,
}

/// Settings of MINT. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mint {
    /// Turns allowed, one run each; at least 1. Paper: 1 to 5.
    pub steps: Vec<usize>,
    /// Proposals allowed, never more than turns; at least 1. Paper: 2, and 1 for one turn.
    pub proposals: usize,
    /// Comments in a further run at the most turns. Paper: textual.
    pub feedback: Feedback,
    /// Who comments. Paper: GPT-4.
    pub commentator: Commentator,
    /// Whether the commentator is shown the right solution, marked as not to be given away. Paper: no.
    pub show_reference: bool,
    /// How replies are read.
    pub form: Form,
    /// Compare whole answers and numbers within 1e-4, not the published rules.
    pub strict: bool,
    /// How replies are sampled. Paper: temperature 0, 512 tokens.
    pub draw: Draw,
    /// Seconds that a program may run. Paper: 30.
    pub seconds: f64,
    /// Characters shown of what a program prints. Paper: 2000.
    pub output: usize,
    /// Episodes that go on together; an interruption loses no more.
    pub wave: usize,
    /// The first message, a Jinja template over `steps`, `proposals`, `feedback` and `task`.
    pub opening: String,
    /// Later messages, over `observation`, `steps`, `proposals` and `feedback`.
    pub next: String,
    /// What the commentator is asked, over `trajectory` and `reference`.
    pub feedback_prompt: String,
    /// What is seen of a reply that cannot be read.
    pub unclear: String,
}

impl Default for Mint {
    fn default() -> Mint {
        Mint {
            steps: vec![1, 2, 3, 4, 5],
            proposals: 2,
            feedback: Feedback::Textual,
            commentator: Commentator::Model,
            show_reference: false,
            form: Form::Tags,
            strict: false,
            draw: Draw { temperature: 0.0, max_tokens: 512, ..Draw::default() },
            seconds: 30.0,
            output: 2000,
            wave: 64,
            opening: include_str!("mint/prompts/opening.jinja").into(),
            next: include_str!("mint/prompts/next.jinja").into(),
            feedback_prompt: include_str!("mint/prompts/feedback.jinja").into(),
            unclear: include_str!("mint/prompts/unclear.jinja").into(),
        }
    }
}

impl Settings for Mint {
    fn check(&self) -> Result<()> {
        let least = [
            ("steps", self.steps.iter().copied().min().unwrap_or(0)),
            ("proposals", self.proposals),
            ("output", self.output),
            ("wave", self.wave),
        ];
        if let Some((key, got)) = least.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::range("mint", key, "at least 1", got));
        }
        // The sandbox takes no less, and nothing waits for an hour.
        if !(0.01..=3600.0).contains(&self.seconds) {
            return Err(Error::range("mint", "seconds", "0.01 to 3600", self.seconds));
        }
        Templates::new(self)?;
        self.draw.check("mint")
    }
}

impl Mint {
    /// How replies are sampled; in tags, none goes on to what others say.
    pub fn sampling(&self) -> Sampling {
        let stop: &[&str] = match self.form {
            Form::Tags => &["\nObservation:", "\nExpert feedback:", "\nTask:", "\n---"],
            Form::Bare => &[],
        };
        Sampling { stop: stop.iter().map(|&text| text.into()).collect(), ..self.draw.sampling() }
    }

    /// The runs: one for each number of turns, then one with feedback at the most.
    pub fn runs(&self) -> Vec<Run> {
        let run = |steps: usize, feedback| Run {
            budget: Budget { steps, proposals: self.proposals.min(steps) },
            feedback,
        };
        let mut runs: Vec<Run> = self.steps.iter().map(|&steps| run(steps, Feedback::None)).collect();
        if let Some(&most) = self.steps.iter().max().filter(|_| self.feedback != Feedback::None) {
            runs.push(run(most, self.feedback));
        }
        runs
    }
}

/// One run over all tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What an episode may use.
    pub budget: Budget,
    /// The comments.
    pub feedback: Feedback,
}

impl Run {
    /// As in `k=5` and `k=5 textual`.
    pub fn name(&self) -> String {
        let k = self.budget.steps;
        match self.feedback {
            Feedback::None => format!("k={k}"),
            Feedback::Textual => format!("k={k} textual"),
            Feedback::Binary => format!("k={k} binary"),
        }
    }
}

/// The parsed templates.
pub struct Templates<'a>(crate::templates::Templates<'a>);

impl<'a> Templates<'a> {
    /// Those of the settings.
    ///
    /// # Errors
    /// [`Error::Settings`] naming the one at fault.
    pub fn new(own: &'a Mint) -> Result<Templates<'a>> {
        let sources =
            [("opening", &own.opening), ("next", &own.next), ("feedback_prompt", &own.feedback_prompt)];
        let sources = sources.map(|(name, text)| (name, text.as_str()));
        Ok(Templates(crate::templates::Templates::new("mint", &sources)?))
    }

    fn render(&self, name: &str, context: minijinja::Value) -> Result<String> {
        self.0.render(name, context)
    }

    fn opening(&self, form: Form, task: &str, budget: Budget, feedback: bool) -> Result<String> {
        let Budget { steps, proposals } = budget;
        match form {
            Form::Bare => Ok(task.to_string()),
            Form::Tags => self.render("opening", minijinja::context! { steps, proposals, feedback, task }),
        }
    }

    /// The message after a turn.
    fn next(&self, seen: &str, done: &episode::Counts, budget: Budget, said: &str) -> Result<String> {
        let steps = budget.steps - done.turns();
        let proposals = budget.proposals - done.propose_solution;
        self.render("next", minijinja::context! { observation => seen, steps, proposals, feedback => said })
    }
}

/// Published shares of 586 tasks solved: at k = 1 to 5 where given, the slope, and at k = 5 with feedback of GPT-4.
type PublishedRow = (&'static str, [Option<f64>; 5], Option<f64>, Option<f64>);
const PUBLISHED: &[PublishedRow] = &[
    (
        "gpt-3.5-turbo-0613",
        [Some(2.73), Some(16.89), Some(24.06), Some(31.74), Some(36.18)],
        Some(8.17),
        Some(51.37),
    ),
    ("gpt-4-0613", [None, None, None, None, Some(69.45)], None, None),
    ("claude-2", [Some(26.45), Some(35.49), Some(36.01), Some(39.76), Some(39.93)], Some(3.12), Some(50.0)),
    (
        "claude-instant-1",
        [Some(12.12), Some(32.25), Some(39.25), Some(44.37), Some(45.9)],
        Some(7.97),
        Some(52.39),
    ),
    ("codellama-34b-instruct", [Some(2.56), None, None, None, Some(17.06)], Some(3.43), Some(27.3)),
    ("codellama-34b", [Some(0.17), None, None, None, Some(28.16)], Some(6.57), Some(42.66)),
    ("llama-2-70b-chat", [Some(4.27), None, None, None, Some(17.92)], Some(2.95), Some(26.62)),
    ("llama-2-70b", [Some(1.88), None, None, None, Some(26.45)], Some(5.61), Some(35.32)),
    ("lemur-70b-chat", [Some(3.75), None, None, None, Some(37.03)], Some(7.71), Some(43.69)),
    ("lemur-70b", [Some(1.02), None, None, None, Some(26.28)], Some(5.79), Some(33.79)),
];

/// The published figures of the model that this name holds, by the names that the figures have here.
pub fn published(model: &str) -> Vec<(String, f64)> {
    let model = model.to_lowercase();
    let Some((_, rates, slope, helped)) = PUBLISHED.iter().find(|(name, ..)| model.contains(name)) else {
        return vec![];
    };
    let rates =
        rates.iter().enumerate().filter_map(|(at, rate)| Some((format!("solved, k={}", at + 1), (*rate)?)));
    let rest = [("slope per turn", *slope), ("solved, k=5 textual", *helped)];
    rates
        .chain(rest.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))))
        .map(|(name, percent)| (name, percent / 100.0))
        .collect()
}

/// What success rates and slopes follow from episodes. `episodes` hold those of every run, in the order of the tasks.
pub fn figures(model: &str, runs: &[Run], episodes: &[Vec<Episode>], seed: u64) -> Measures {
    let mut measures = Measures::new("mint", model);
    let solved = |episodes: &[Episode]| -> Vec<bool> { episodes.iter().map(|e| e.success).collect() };
    let number = |held: bool| f64::from(u8::from(held));
    for (run, episodes) in runs.iter().zip(episodes) {
        measures.figures.push(Figure::share(format!("solved, {}", run.name()), &solved(episodes), seed));
    }
    let plain: Vec<(usize, &Vec<Episode>)> = runs
        .iter()
        .zip(episodes)
        .filter(|(run, _)| run.feedback == Feedback::None)
        .map(|(run, episodes)| (run.budget.steps, episodes))
        .collect();
    if plain.len() > 1 {
        let turns: Vec<f64> = plain.iter().map(|(steps, _)| *steps as f64).collect();
        let tasks = plain.iter().map(|(_, episodes)| episodes.len()).min().unwrap_or(0);
        // The slope is linear in the rates, so each task has one, and their mean is that of the rates.
        let slopes: Vec<f64> = (0..tasks)
            .map(|at| {
                let values: Vec<f64> =
                    plain.iter().map(|(_, episodes)| number(episodes[at].success)).collect();
                line(&turns, &values).0
            })
            .collect();
        let rates: Vec<f64> = plain
            .iter()
            .map(|(_, episodes)| {
                episodes.iter().map(|e| number(e.success)).sum::<f64>() / episodes.len() as f64
            })
            .collect();
        measures.figures.push(Figure { unit: Unit::Share, ..Figure::mean("slope per turn", &slopes, seed) });
        measures.figures.push(Figure::plain("R² of the line", line(&turns, &rates).1, plain.len()));
    }
    for (run, helped) in runs.iter().zip(episodes).filter(|(run, _)| run.feedback != Feedback::None) {
        let alone = plain.iter().find(|(steps, _)| *steps == run.budget.steps);
        if let Some((_, alone)) = alone {
            let gains: Vec<f64> = helped
                .iter()
                .zip(*alone)
                .map(|(with, without)| number(with.success) - number(without.success))
                .collect();
            let name = format!("gain by feedback, {}", run.name());
            measures.figures.push(Figure { unit: Unit::Share, ..Figure::mean(name, &gains, seed) });
        }
    }
    if let Some((run, last)) = runs.iter().zip(episodes).next_back() {
        let mut sets: Vec<&str> = last.iter().filter_map(|e| e.doc_id.split('/').next()).collect();
        sets.dedup();
        for set in sets.iter().filter(|_| sets.len() > 1) {
            let of: Vec<bool> =
                last.iter().filter(|e| e.doc_id.split('/').next() == Some(set)).map(|e| e.success).collect();
            measures.figures.push(Figure::share(format!("solved, {}, {set}", run.name()), &of, seed));
        }
    }
    let all: Vec<&Episode> = episodes.iter().flatten().collect();
    let invalid: Vec<f64> = all.iter().map(|e| e.agent_action_count.invalid_action as f64).collect();
    measures.figures.push(Figure::mean("unreadable replies per episode", &invalid, seed));
    let failed = all.iter().filter(|e| e.terminate_reason == Some(End::Error)).count();
    let lost = all.iter().filter(|e| e.lost).count();
    measures.lost = lost;
    if failed > 0 {
        measures.notes.push(format!(
            "{failed} of {} episodes ended without an answer and count as failures, {lost} of them lost to the connection",
            all.len()
        ));
    }
    measures.publish(&published(model));
    if measures.figures.iter().any(|figure| figure.published.is_some()) {
        measures.notes.push("published figures are of all 586 tasks of the paper, with its prompts".into());
    }
    measures
}

/// Slope and R² of the least-squares line. R² is NaN where nothing varies.
pub fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let sxx: f64 = x.iter().map(|x| (x - mx).powi(2)).sum();
    let syy: f64 = y.iter().map(|y| (y - my).powi(2)).sum();
    (sxy / sxx, sxy * sxy / (sxx * syy))
}

/// The sandbox that the settings ask for.
///
/// # Errors
/// Those of opening it.
pub fn rules(own: &Mint) -> Result<Rules> {
    let wall = Duration::from_secs_f64(own.seconds);
    let limits = Limits { wall, cpu: own.seconds.ceil() as u64, memory: 1 << 30, ..Limits::default() };
    let sandbox = Sandbox::open(Mode::Strict, limits).map_err(hone_worlds::Error::from)?;
    Ok(Rules { sandbox: Arc::new(sandbox), strict: own.strict })
}

/// Runs the protocol. `on` hears how many episodes are done and of how many.
///
/// # Errors
/// [`Error::Data`] for no task; what a model refuses for all alike; those of sandbox, templates and journal.
pub fn measure(
    solver: &dyn LanguageModel,
    adviser: &dyn Adviser,
    instances: &[Instance],
    own: &Mint,
    seed: u64,
    journal: &mut Journal,
    on: &mut dyn FnMut(usize, usize),
) -> Result<Measures> {
    let (rules, runs) = (rules(own)?, own.runs());
    let mut seen = std::collections::HashSet::new();
    // An instance that comes twice counts once.
    let instances: Vec<&Instance> =
        instances.iter().filter(|i| seen.insert((i.set.clone(), i.id.clone()))).collect();
    if instances.is_empty() {
        return Err(Error::Data { method: "mint".into(), needed: "tasks".into(), got: "none".into() });
    }
    let (mut all, mut keys) = (vec![], vec![]);
    let total = runs.len() * instances.len();
    for (at, run) in runs.iter().enumerate() {
        let own_keys: Vec<String> =
            instances.iter().map(|instance| Episode::new(&run.name(), instance).key()).collect();
        let before = at * instances.len();
        let mut tell = |done: usize, _: usize| on(before + done, total);
        let episodes = carry_out(&own_keys, journal, own.wave, &mut tell, |wave| {
            let wave: Vec<&Instance> = wave.iter().map(|&at| instances[at]).collect();
            let adviser = (run.feedback != Feedback::None).then_some(adviser);
            play(solver, adviser, run, &wave, own, &rules, seed)
        })?;
        all.push(episodes);
        keys.extend(own_keys);
    }
    let measures = figures(&solver.capabilities().name, &runs, &all, seed);
    let settings = serde_json::to_value(own).unwrap_or_default();
    journal.finish(&keys, &measures, &settings)?;
    Ok(measures)
}

/// The protocol as the command runs it: on the sets in a folder.
///
/// # Errors
/// As [`measure`], and those of reading.
pub fn evaluate(terms: &mut Terms<'_>) -> Result<Measures> {
    let own: Mint = settings("mint", terms.settings)?;
    let instances = instance::read(terms.data, terms.most)?;
    let by_model = ByModel { model: terms.other.unwrap_or(terms.model), own: &own };
    let adviser: &dyn Adviser = match own.commentator {
        Commentator::Model => &by_model,
        Commentator::Oracle => &ByOracle,
    };
    measure(terms.model, adviser, &instances, &own, terms.seed, &mut terms.journal, terms.on)
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Mint = settings("mint", job.settings)?;
    let model = job.policy.speaker()?;
    let instances: Vec<Instance> = world_tasks("mint", job.records)?
        .into_iter()
        .map(|of| Instance::world(&of.world, &of.id, of.task))
        .collect();
    let by_model = ByModel { model: &model, own: &own };
    let adviser: &dyn Adviser = match own.commentator {
        Commentator::Model => &by_model,
        Commentator::Oracle => &ByOracle,
    };
    let mut journal = Journal::memory();
    let measures = measure(&model, adviser, &instances, &own, job.seed, &mut journal, &mut |_, _| {})?;
    Ok(Product::Measures(measures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{assert_holds, over_seeds};
    use claims::CLAIMS;

    fn effect(name: &str) -> fn(u64) -> Result<f64> {
        CLAIMS.iter().find(|claim| claim.name == name).unwrap().effect
    }

    #[test]
    fn claim_turns_help() {
        assert_holds(effect("claim_turns_help"), 5);
    }

    #[test]
    fn claim_first_observation() {
        assert_holds(effect("claim_first_observation"), 5);
    }

    #[test]
    fn claim_order_depends_on_turns() {
        assert_holds(effect("claim_order_depends_on_turns"), 5);
    }

    #[test]
    fn claim_form_costs_success() {
        assert_holds(effect("claim_form_costs_success"), 5);
    }

    #[test]
    fn claim_words_over_verdicts() {
        // It does not hold here (see the comment above); a change that makes it hold, or fail by far, is to be noticed.
        let (mean, _, values) = over_seeds(effect("claim_words_over_verdicts"), 5).unwrap();
        assert!((-0.05..0.05).contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_verdicts_over_nothing() {
        assert_holds(effect("claim_verdicts_over_nothing"), 5);
    }

    #[test]
    fn claim_bad_advice_harms() {
        assert_holds(effect("claim_bad_advice_harms"), 5);
    }

    #[test]
    fn claim_strong_over_own() {
        assert_holds(effect("claim_strong_over_own"), 5);
    }

    #[test]
    fn runs_and_lines() {
        let names: Vec<String> = Mint::default().runs().iter().map(Run::name).collect();
        assert_eq!(names, ["k=1", "k=2", "k=3", "k=4", "k=5", "k=5 textual"]);
        // One proposal at one turn, two at more.
        assert_eq!(
            Mint::default().runs().iter().map(|run| run.budget.proposals).collect::<Vec<_>>(),
            [1, 2, 2, 2, 2, 2]
        );
        // y = 1 + 2x but for the last, one too low: slope 2 − 1·(3−2)/2 = 1.5, of x = 1, 2, 3 and y = 3, 5, 6.
        let (slope, fit) = line(&[1.0, 2.0, 3.0], &[3.0, 5.0, 6.0]);
        // Sxy = 3, Sxx = 2, Syy = 14/3: R² = 9/(2·14/3) = 27/28.
        assert!((slope - 1.5).abs() < 1e-12 && (fit - 27.0 / 28.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_left_is_said_and_the_last_turn_is_hinted() {
        let own = Mint::default();
        let templates = Templates::new(&own).unwrap();
        let budget = Budget { steps: 3, proposals: 2 };
        let opening = templates.opening(Form::Tags, "T?", budget, false).unwrap();
        assert!(opening.contains("You have 3 turns") && opening.contains("2 times"), "{opening}");
        assert!(opening.ends_with("Task:\nT?") && !opening.contains("Expert feedback"));
        assert!(templates.opening(Form::Tags, "T?", budget, true).unwrap().contains("Expert feedback"));
        let done = episode::Counts { use_tool: 1, ..episode::Counts::default() };
        let next = templates.next("9", &done, budget, "").unwrap();
        assert!(
            next.starts_with("Observation:\n9\nYou have 2 turns left") && !next.contains("last turn"),
            "{next}"
        );
        let done = episode::Counts { use_tool: 1, propose_solution: 1, invalid_action: 0 };
        let next = templates.next("9", &done, budget, "GOOD.").unwrap();
        assert!(next.contains("1 turn left") && next.contains("1 more time.") && next.contains("last turn"));
        assert!(next.contains("Expert feedback:\nGOOD."), "{next}");
    }
}
