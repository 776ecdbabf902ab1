//! The claims: solvers that draw numbers and programs at random in the full protocol, and the built-in model on sums.

use hone_lm::model::Prompt;
use hone_lm::{Capabilities, GenerateRequest};
use hone_nn::train::seed::rng;
use rand::Rng;

use super::episode::{Adviser, Asked, ByOracle, Episode, play};
use super::instance::Instance;
use super::{Feedback, Form, Mint, Run, figures, rules};
use crate::error::Result;
use crate::evaluate::calculate::number;
use crate::method::Claim;
use crate::refine::Draw;
use crate::tiny;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_turns_help",
        says: "The share of tasks solved rises with the turns allowed.",
        metric: "slope of the least-squares line of success over k = 1 to 5, a solver that runs faulty programs",
        baseline: "no slope",
        effect: turns_help,
    },
    Claim {
        name: "claim_first_observation",
        says: "The second turn, the first that sees an observation, adds more than a later turn.",
        metric: "success at k = 2 less success at k = 1",
        baseline: "mean gain per turn from k = 2 to k = 5",
        effect: first_observation,
    },
    Claim {
        name: "claim_order_depends_on_turns",
        says: "A solver that reckons in its head beats one that runs programs at one turn and loses to it at five.",
        metric: "the smaller of its lead at k = 1 and its lag at k = 5",
        baseline: "the same order at both",
        effect: order_depends_on_turns,
    },
    Claim {
        name: "claim_form_costs_success",
        says: "A solver whose replies leave the form solves less, though what it says is as right.",
        metric: "success at k = 5 of the solver that keeps the form",
        baseline: "of one that leaves it in six replies of ten",
        effect: form_costs_success,
    },
    Claim {
        name: "claim_words_over_verdicts",
        says: "The built-in model solves more hard sums in three turns with a comment in words than with a bare verdict.",
        metric: "success at k = 3, comments of the oracle",
        baseline: "verdicts of the oracle",
        effect: words_over_verdicts,
    },
    Claim {
        name: "claim_verdicts_over_nothing",
        says: "The built-in model solves more hard sums in three turns with a bare verdict than by answering again.",
        metric: "success at k = 3, verdicts of the oracle",
        baseline: "no feedback",
        effect: verdicts_over_nothing,
    },
    Claim {
        name: "claim_bad_advice_harms",
        says: "A commentator that mostly calls wrong solutions good leaves a solver that heeds it below no comments.",
        metric: "success at k = 5 without feedback",
        baseline: "with comments of a commentator that calls seven wrong solutions of ten good",
        effect: bad_advice_harms,
    },
    Claim {
        name: "claim_strong_over_own",
        says: "A commentator that knows better helps a solver more than one as able as itself.",
        metric: "success at k = 5, a commentator that finds every wrong solution",
        baseline: "one that is right about a solution as often as the solver's head is",
        effect: strong_over_own,
    },
];

/// Tasks per seed of the drawn solvers: each program that they run costs milliseconds.
const TASKS: usize = 30;

/// Sums per seed of the built-in model.
const SUMS: usize = 60;

/// A solver that reckons in its head, runs programs, slips in them and leaves the form, each by chance.
#[derive(Debug)]
struct Drawn {
    /// Share of right results in the head.
    mental: f64,
    /// Share of turns without a result in which it runs a program.
    tool: f64,
    /// Share of programs that fail.
    slip: f64,
    /// Share of replies without tags.
    sloppy: f64,
    /// Share of turns in which it does what it is told: stays with what is called good, runs a program where it is told
    /// to, and either where something is only called bad.
    heeds: f64,
    can: Capabilities,
}

impl Drawn {
    fn new(mental: f64, tool: f64, slip: f64) -> Drawn {
        let can = Capabilities { name: "drawn".into(), seeds: true, ..Capabilities::default() };
        Drawn { mental, tool, slip, sloppy: 0.0, heeds: 0.0, can }
    }

    fn reply(&self, request: &GenerateRequest) -> String {
        let mut rng = rng(request.sampling.seed.unwrap_or(0), "reply");
        let Prompt::Messages { messages, .. } = &request.prompt else { return String::new() };
        let (first, last) = (messages.first(), messages.last());
        let asked = first.map(hone_lm::Message::text).unwrap_or_default();
        let sum =
            asked.rsplit("What is ").next().unwrap_or_default().trim_end().trim_end_matches('?').to_string();
        let seen = last.map(hone_lm::Message::text).unwrap_or_default();
        let told = seen.split_once("Expert feedback:\n").map_or("", |(_, said)| said);
        let heeds = !told.is_empty() && rng.random::<f64>() < self.heeds;
        let before = messages.iter().rev().map(hone_lm::Message::text).find(|text| text.starts_with('<'));
        if let Some(before) = before.filter(|_| heeds && told.starts_with("GOOD")) {
            return before;
        }
        let runs = heeds && (told.contains("run it") || rng.random());
        let seen: Option<f64> =
            seen.strip_prefix("Observation:\n").and_then(|text| text.lines().next()?.parse().ok());
        let right = number(&sum).unwrap_or(0.0);
        let sloppy = rng.random::<f64>() < self.sloppy;
        let reply = match seen {
            Some(result) => format!("<solution>{result}</solution>"),
            None if runs || rng.random::<f64>() < self.tool => {
                let program =
                    if rng.random::<f64>() < self.slip { "print(reslut)" } else { &*format!("print({sum})") };
                format!("<execute>{program}</execute>")
            }
            None => {
                let said = if rng.random::<f64>() < self.mental { right } else { 2.0 * right + 7.0 };
                format!("<solution>{said}</solution>")
            }
        };
        match sloppy {
            true => {
                reply.replace("<solution>", "It is ").replace("</solution>", "").replace("execute>", "run>")
            }
            false => reply,
        }
    }
}

crate::evaluate::drawn_model!(Drawn);

fn products(seed: u64, tasks: usize) -> Vec<Instance> {
    let mut rng = rng(seed, "products");
    let mut one = |low: u32, high: u32| rng.random_range(low..high);
    (0..tasks)
        .map(|id| {
            let (a, b, c) = (one(11, 99), one(11, 99), one(2, 50));
            Instance::short(
                "products",
                &id.to_string(),
                &format!("What is {a} * {b} + {c}?"),
                &(a * b + c).to_string(),
            )
        })
        .collect()
}

/// Success of a drawn solver at each number of turns.
fn rates(solver: &Drawn, steps: &[usize], seed: u64) -> Result<Vec<f64>> {
    let own = Mint {
        steps: steps.to_vec(),
        feedback: Feedback::None,
        strict: true,
        seconds: 5.0,
        ..Mint::default()
    };
    let (rules, runs, instances) = (rules(&own)?, own.runs(), products(seed, TASKS));
    let wave: Vec<&Instance> = instances.iter().collect();
    let episodes: Vec<Vec<Episode>> =
        runs.iter().map(|run| play(solver, None, run, &wave, &own, &rules, seed)).collect::<Result<_>>()?;
    let measures = figures("drawn", &runs, &episodes, seed);
    Ok(measures.figures.iter().take(steps.len()).map(|figure| figure.of.value).collect())
}

fn turns_help(seed: u64) -> Result<f64> {
    let turns = [1, 2, 3, 4, 5];
    let rates = rates(&Drawn::new(0.3, 0.8, 0.4), &turns, seed)?;
    Ok(super::line(&turns.map(|k| k as f64), &rates).0)
}

fn first_observation(seed: u64) -> Result<f64> {
    let rates = rates(&Drawn::new(0.3, 0.8, 0.4), &[1, 2, 5], seed)?;
    Ok((rates[1] - rates[0]) - (rates[2] - rates[1]) / 3.0)
}

fn order_depends_on_turns(seed: u64) -> Result<f64> {
    let head = rates(&Drawn::new(0.5, 0.0, 0.0), &[1, 5], seed)?;
    let tool = rates(&Drawn::new(0.1, 1.0, 0.2), &[1, 5], seed)?;
    Ok((head[0] - tool[0]).min(tool[1] - head[1]))
}

fn form_costs_success(seed: u64) -> Result<f64> {
    let clean = Drawn::new(0.3, 0.8, 0.2);
    let brittle = Drawn { sloppy: 0.6, ..Drawn::new(0.3, 0.8, 0.2) };
    Ok(rates(&clean, &[5], seed)?[0] - rates(&brittle, &[5], seed)?[0])
}

/// The settings in which the built-in model solves sums.
pub fn for_tiny() -> Mint {
    Mint {
        steps: vec![1, 2, 3],
        proposals: 3,
        form: Form::Bare,
        commentator: super::Commentator::Oracle,
        draw: Draw { max_tokens: 128, ..Draw::default() },
        ..Mint::default()
    }
}

/// Success of the built-in model on hard sums in three turns, with the oracle's comments in this form.
fn with_oracle(seed: u64, feedback: Feedback) -> Result<f64> {
    let own = for_tiny();
    let model = tiny::policy()?.speaker()?;
    let world = hone_worlds::world("sums")?;
    let instances: Vec<Instance> = crate::eval::tasks(world.as_ref(), world.middle() + 1, SUMS, seed)?
        .into_iter()
        .enumerate()
        .map(|(id, task)| Instance::world("sums", &id.to_string(), task))
        .collect();
    let wave: Vec<&Instance> = instances.iter().collect();
    // Harder than the middle, where nearly every sum is solved in three turns by any means.
    let run = Run { budget: super::Budget { steps: 3, proposals: 3 }, feedback };
    let adviser: Option<&dyn Adviser> = (feedback != Feedback::None).then_some(&ByOracle as &dyn Adviser);
    let episodes = play(&model, adviser, &run, &wave, &own, &rules(&own)?, seed)?;
    Ok(episodes.iter().filter(|episode| episode.success).count() as f64 / episodes.len() as f64)
}

/// A commentator that knows a wrong solution for what it is by chance, and else calls it good.
struct Knowing(f64);

impl Adviser for Knowing {
    fn advise(&self, asked: &[Asked<'_>]) -> Result<Vec<String>> {
        let comment = |asked: &Asked<'_>| {
            let knows = rng(asked.seed, "comment").random::<f64>() < self.0;
            let told = if knows { "BAD. Do not reckon in your head: run it." } else { "GOOD. Propose it." };
            Ok(told.to_string())
        };
        asked.iter().map(comment).collect()
    }
}

/// Success at five turns of a solver that heeds comments, with a commentator or without.
fn heeding(seed: u64, commentator: Option<Knowing>) -> Result<f64> {
    let solver = Drawn { heeds: 0.9, ..Drawn::new(0.3, 0.4, 0.2) };
    let feedback = if commentator.is_some() { Feedback::Textual } else { Feedback::None };
    let adviser = commentator.as_ref().map(|knowing| knowing as &dyn Adviser);
    let own = Mint { strict: true, seconds: 5.0, ..Mint::default() };
    // One run each, so there is time for more of them.
    let instances = products(seed, 2 * TASKS);
    let wave: Vec<&Instance> = instances.iter().collect();
    let run = Run { budget: super::Budget { steps: 5, proposals: 2 }, feedback };
    let episodes = play(&solver, adviser, &run, &wave, &own, &rules(&own)?, seed)?;
    Ok(episodes.iter().filter(|episode| episode.success).count() as f64 / episodes.len() as f64)
}

fn words_over_verdicts(seed: u64) -> Result<f64> {
    Ok(with_oracle(seed, Feedback::Textual)? - with_oracle(seed, Feedback::Binary)?)
}

fn verdicts_over_nothing(seed: u64) -> Result<f64> {
    Ok(with_oracle(seed, Feedback::Binary)? - with_oracle(seed, Feedback::None)?)
}

fn bad_advice_harms(seed: u64) -> Result<f64> {
    Ok(heeding(seed, None)? - heeding(seed, Some(Knowing(0.3)))?)
}

fn strong_over_own(seed: u64) -> Result<f64> {
    // As able as the solver's head: 0.3.
    Ok(heeding(seed, Some(Knowing(1.0)))? - heeding(seed, Some(Knowing(0.3)))?)
}
