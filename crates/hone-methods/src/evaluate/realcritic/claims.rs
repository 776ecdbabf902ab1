//! The claims: critics of known skill on products, and the built-in model on sums.

use hone_lm::model::Prompt;
use hone_lm::{Capabilities, GenerateRequest, Message};
use hone_nn::train::seed::rng;
use rand::Rng;

use super::{Item, Judged, RealCritic, Regime, rows};
use crate::error::Result;
use crate::evaluate::WorldTask;
use crate::evaluate::calculate::number;
use crate::evaluate::journal::Journal;
use crate::method::Claim;
use crate::refine::Draw;
use crate::tiny;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_scorer_is_exact",
        says: "Cross accuracy of a critic that spoils a share s of right solutions, finds a share d of wrong ones and mends a \
               share f of those is (1 − s)/2 + d f/2.",
        metric: "0.05 less the distance from the formula, on 1000 items",
        baseline: "a distance of 0.05, three standard errors",
        effect: scorer_is_exact,
    },
    Claim {
        name: "claim_weak_critic_loses",
        says: "A weak critic's corrections of its own solutions are right less often than the solutions.",
        metric: "direct accuracy",
        baseline: "accuracy after self-critique",
        effect: weak_critic_loses,
    },
    Claim {
        name: "claim_weak_critic_drifts",
        says: "Over three rounds a weak critic's accuracy falls further.",
        metric: "accuracy after the first round of self-critique",
        baseline: "after the third",
        effect: weak_critic_drifts,
    },
    Claim {
        name: "claim_strong_critic_gains",
        says: "A strong critic's corrections of its own solutions are right more often than the solutions.",
        metric: "accuracy after self-critique",
        baseline: "direct accuracy",
        effect: strong_critic_gains,
    },
    Claim {
        name: "claim_corrections_tell_critics_apart",
        says: "Two critics with the same verdicts and different corrections differ in cross accuracy.",
        metric: "difference in cross accuracy",
        baseline: "difference in the accuracy of their verdicts",
        effect: corrections_tell_critics_apart,
    },
    Claim {
        name: "claim_built_in_model_corrects",
        says: "The built-in model's corrections of half-right candidates to sums are right more often than the candidates.",
        metric: "cross accuracy",
        baseline: "share of right candidates",
        effect: built_in_model_corrects,
    },
];

/// A critic of known skill.
#[derive(Debug)]
struct Skilled {
    /// Share of problems it solves.
    solves: f64,
    /// Share of right solutions that it spoils.
    spoils: f64,
    /// Share of wrong solutions that it finds.
    finds: f64,
    /// Share of those that it mends.
    mends: f64,
    can: Capabilities,
}

impl Skilled {
    fn new(solves: f64, spoils: f64, finds: f64, mends: f64) -> Skilled {
        let can = Capabilities { name: "skilled".into(), seeds: true, ..Capabilities::default() };
        Skilled { solves, spoils, finds, mends, can }
    }

    fn reply(&self, request: &GenerateRequest) -> String {
        let Prompt::Messages { messages, .. } = &request.prompt else { return String::new() };
        let mut rng = rng(request.sampling.seed.unwrap_or(0), "reply");
        let mut chance = |share: f64| rng.random::<f64>() < share;
        let asked = messages.first().map(Message::text).unwrap_or_default();
        let sum = asked
            .split_once("What is ")
            .and_then(|(_, rest)| rest.split_once('?'))
            .map_or("", |(sum, _)| sum);
        let right = number(sum).unwrap_or(0.0);
        // What it wrote last in this conversation, else the candidate.
        let wrote = messages.iter().rev().find(|message| message.role() == "assistant").map(Message::text);
        let before = wrote.or_else(|| asked.split_once("solution:\n").map(|(_, text)| text.to_string()));
        let Some(before) = before else {
            let said = if chance(self.solves) { right } else { right + 1.0 };
            return format!("\\boxed{{{said}}}");
        };
        let had = super::extract(&before, "products", super::Rules::Sound).0.parse().unwrap_or(0.0);
        let (verdict, said) = match (had == right, chance(self.finds)) {
            (true, _) if chance(self.spoils) => ("wrong", right + 2.0),
            (true, _) | (false, false) => ("right", had),
            (false, true) => ("wrong", if chance(self.mends) { right } else { right + 3.0 }),
        };
        format!("The solution is {verdict}. \\boxed{{{said}}}")
    }
}

crate::evaluate::drawn_model!(Skilled);

fn products(count: usize, seed: u64) -> Vec<Item> {
    let mut rng = rng(seed, "products");
    (0..count)
        .map(|id| {
            let (a, b) = (rng.random_range(11..99), rng.random_range(11..99));
            let right = id % 2 == 0;
            Item {
                set: "products".into(),
                id: id.to_string(),
                question: format!("What is {a} * {b}?"),
                reference: (a * b).to_string(),
                candidate: format!("It is \\boxed{{{}}}.", a * b + i32::from(!right)),
                right,
                task: None,
            }
        })
        .collect()
}

/// All rows of the regimes asked for.
fn judged(
    critic: &Skilled,
    regimes: &[Regime],
    rounds: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<Vec<Judged>>> {
    let own = RealCritic { regimes: regimes.to_vec(), rounds, ..RealCritic::default() };
    let (all, _) = rows(critic, &products(count, seed), &own, seed, &mut Journal::memory(), &mut |_, _| {})?;
    Ok(all.into_iter().map(|(_, rows)| rows).collect())
}

fn accuracy(rows: &[Judged], round: usize) -> f64 {
    rows.iter().filter(|row| row.right_in(round)).count() as f64 / rows.len() as f64
}

fn scorer_is_exact(seed: u64) -> Result<f64> {
    let rows = judged(&Skilled::new(0.5, 0.1, 0.7, 0.6), &[Regime::Cross], 1, 1000, seed)?;
    Ok(0.05 - (accuracy(&rows[0], 0) - (0.5 * 0.9 + 0.5 * 0.7 * 0.6)).abs())
}

fn weak_critic_loses(seed: u64) -> Result<f64> {
    let rows = judged(&Skilled::new(0.6, 0.3, 0.3, 0.2), &[Regime::Direct, Regime::Own], 1, 200, seed)?;
    Ok(accuracy(&rows[0], 0) - accuracy(&rows[1], 0))
}

fn weak_critic_drifts(seed: u64) -> Result<f64> {
    let rows = judged(&Skilled::new(0.6, 0.3, 0.3, 0.2), &[Regime::Direct, Regime::Own], 3, 200, seed)?;
    Ok(accuracy(&rows[1], 0) - accuracy(&rows[1], 2))
}

fn strong_critic_gains(seed: u64) -> Result<f64> {
    let rows = judged(&Skilled::new(0.6, 0.02, 0.8, 0.8), &[Regime::Direct, Regime::Own], 1, 200, seed)?;
    Ok(accuracy(&rows[1], 0) - accuracy(&rows[0], 0))
}

fn corrections_tell_critics_apart(seed: u64) -> Result<f64> {
    let verdicts = |rows: &[Judged]| {
        let says = |row: &Judged| row.last().contains("is right.");
        rows.iter().filter(|row| says(row) == row.previous).count() as f64 / rows.len() as f64
    };
    let able = judged(&Skilled::new(0.5, 0.1, 0.7, 0.9), &[Regime::Cross], 1, 200, seed)?;
    let unable = judged(&Skilled::new(0.5, 0.1, 0.7, 0.3), &[Regime::Cross], 1, 200, seed)?;
    Ok((accuracy(&able[0], 0) - accuracy(&unable[0], 0)) - (verdicts(&able[0]) - verdicts(&unable[0])).abs())
}

/// The settings in which the built-in model corrects sums.
pub fn for_tiny() -> RealCritic {
    RealCritic {
        regimes: vec![Regime::Cross],
        bare: true,
        draw: Draw { temperature: 0.0, max_tokens: 128, ..Draw::default() },
        ..RealCritic::default()
    }
}

fn built_in_model_corrects(seed: u64) -> Result<f64> {
    let world = hone_worlds::world("sums")?;
    let tasks = crate::eval::tasks(world.as_ref(), world.middle(), 60, seed)?;
    let task = |(id, task)| WorldTask { world: "sums".into(), id: format!("{id}"), task };
    let items = super::world_items(tasks.into_iter().enumerate().map(task).collect(), seed);
    let model = tiny::policy()?.speaker()?;
    let (all, _) = rows(&model, &items, &for_tiny(), seed, &mut Journal::memory(), &mut |_, _| {})?;
    let candidates = items.iter().filter(|item| item.right).count() as f64 / items.len() as f64;
    Ok(all.first().map_or(f64::NAN, |(_, rows)| accuracy(rows, 0)) - candidates)
}
