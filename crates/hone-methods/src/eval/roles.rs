//! What each role is asked in a world, and when its reply is right.

use hone_lm::{LanguageModel, Prompt};
use hone_worlds::roles::{self, Role};
use hone_worlds::seed::{mix, rng};
use hone_worlds::world::ALL_RIGHT;
use hone_worlds::{Check, Detail, Task, World};
use rand::Rng;

use super::ask::{Answer, answers, oracle, scores};
use super::{Item, Judged, Settings, prompts, tasks};
use crate::error::{Error, Result};

/// Tasks that may be asked for each wrong answer to refine.
const TRIES: usize = 8;

pub(super) fn items(
    model: &dyn LanguageModel,
    world: &dyn World,
    level: u32,
    role: Role,
    settings: &Settings,
) -> Result<Vec<Item>> {
    match role {
        Role::Answer => answer(model, world, level, settings),
        Role::Refine => refine(model, world, level, settings),
        Role::Criticise | Role::Label => judge(model, world, level, role, settings),
    }
}

fn judged(answer: Answer, check: &Check) -> Judged {
    let well_formed = check.well_formed && answer.ended;
    Judged { answer, right: check.right, score: check.score, well_formed, verdict: None }
}

fn item(prompt: String, task: &dyn Task, answers: Vec<Judged>) -> Item {
    Item { prompt, reference: task.reference(), answers, again: None, truth: None, reference_logp: None }
}

fn answer(
    model: &dyn LanguageModel,
    world: &dyn World,
    level: u32,
    settings: &Settings,
) -> Result<Vec<Item>> {
    let tasks = tasks(world, level, settings.prompts, settings.seed)?;
    let texts: Vec<String> = tasks.iter().map(|task| roles::answer(&task.prompt())).collect();
    let asked = prompts(&texts, world, Role::Answer, settings);
    let replies = answers(model, &asked, settings.samples, &settings.sampling("answer"))?;
    let checks = oracle(&tasks, &replies)?;
    let mut items = vec![];
    for ((task, text), (replies, checks)) in tasks.iter().zip(texts).zip(replies.into_iter().zip(checks)) {
        let answers = replies.into_iter().zip(&checks).map(|(reply, check)| judged(reply, check)).collect();
        items.push(item(text, task.as_ref(), answers));
    }
    Ok(items)
}

/// Wrong answers of the model's own, each with its true critique, beside asking again.
fn refine(
    model: &dyn LanguageModel,
    world: &dyn World,
    level: u32,
    settings: &Settings,
) -> Result<Vec<Item>> {
    let (mut wrong, mut asked_for) = (vec![], 0);
    while wrong.len() < settings.prompts && asked_for < TRIES * settings.prompts {
        let more = tasks(world, level, asked_for + settings.prompts, settings.seed)?.split_off(asked_for);
        asked_for += more.len();
        let texts: Vec<String> = more.iter().map(|task| roles::answer(&task.prompt())).collect();
        let sampling = settings.sampling(&format!("first/{asked_for}"));
        let first = answers(model, &prompts(&texts, world, Role::Answer, settings), 1, &sampling)?;
        let checks = oracle(&more, &first)?;
        for ((task, replies), checks) in more.into_iter().zip(first).zip(checks) {
            if let Some(reply) =
                replies.into_iter().next().filter(|_| checks.iter().any(|check| !check.right))
            {
                wrong.push((task, reply));
            }
        }
    }
    wrong.truncate(settings.prompts);
    if wrong.is_empty() {
        return Err(Error::Data {
            method: "eval".into(),
            needed: "a wrong answer to refine".into(),
            got: format!("none in {asked_for} tasks"),
        });
    }
    let (tasks, wrong): (Vec<Box<dyn Task>>, Vec<Answer>) = wrong.into_iter().unzip();
    let mut texts = vec![];
    for (task, answer) in tasks.iter().zip(&wrong) {
        let critique = task.explain(&answer.text, Detail::Correction)?;
        texts.push(roles::refine(&task.prompt(), &answer.text, &critique));
    }
    let (n, asked) = (settings.samples, prompts(&texts, world, Role::Refine, settings));
    let refined = answers(model, &asked, n, &settings.sampling("refine"))?;
    let checks = oracle(&tasks, &refined)?;
    let plain: Vec<String> = tasks.iter().map(|task| roles::answer(&task.prompt())).collect();
    let again =
        answers(model, &prompts(&plain, world, Role::Answer, settings), n, &settings.sampling("again"))?;
    let again = oracle(&tasks, &again)?;
    let mut items = vec![];
    for ((task, text), ((refined, checks), again)) in
        tasks.iter().zip(texts).zip(refined.into_iter().zip(checks).zip(again))
    {
        let answers = refined.into_iter().zip(&checks).map(|(reply, check)| judged(reply, check)).collect();
        let right = again.iter().filter(|check| check.right).count() as f64 / again.len().max(1) as f64;
        items.push(Item { again: Some(right), ..item(text, task.as_ref(), answers) });
    }
    Ok(items)
}

/// Right answers and planted errors, half and half, to criticise or label.
fn judge(
    model: &dyn LanguageModel,
    world: &dyn World,
    level: u32,
    role: Role,
    settings: &Settings,
) -> Result<Vec<Item>> {
    let tasks = tasks(world, level, settings.prompts, settings.seed)?;
    let mut texts = vec![];
    let mut truths = vec![];
    for (index, task) in tasks.iter().enumerate() {
        let mut rng = rng(mix(settings.seed, &format!("eval/judge/{index}")), world.id());
        let kinds = task.plantable();
        let shown = if index % 2 == 0 || kinds.is_empty() {
            task.reference()
        } else {
            task.plant(kinds[rng.random_range(0..kinds.len())], &mut rng)?.answer
        };
        let said = task.explain(&shown, Detail::Correction)?;
        let check = task.check(&shown)?;
        let kind = check.first().map_or_else(|| ALL_RIGHT.to_string(), |flaw| flaw.words(Detail::Kind));
        let right = check.right;
        texts.push(match role {
            Role::Label => roles::label(&task.prompt(), &shown),
            _ => roles::criticise(&task.prompt(), &shown),
        });
        truths.push((right, said, kind));
    }
    let asked = prompts(&texts, world, role, settings);
    let replies = answers(model, &asked, settings.samples, &settings.sampling(role_label(role)))?;
    let yes = match role {
        Role::Label if model.capabilities().scoring => Some(probability_of_yes(model, &asked)?),
        _ => None,
    };
    let mut items = vec![];
    for (index, ((text, replies), (right, said, kind))) in
        texts.into_iter().zip(replies).zip(truths).enumerate()
    {
        let reference = match role {
            Role::Label if right => roles::YES.to_string(),
            Role::Label => roles::NO.to_string(),
            _ => said,
        };
        let judge = |answer: Answer| {
            let said = answer.text.trim();
            let verdict = roles::verdict(said).filter(|_| role != Role::Label || is_label(said));
            let (is_right, score) = match role {
                Role::Label => (said == reference, f64::from(u8::from(said == reference))),
                _ => likeness(said, &reference, &kind, right, verdict),
            };
            let formed = match role {
                Role::Label => is_label(said),
                _ => verdict == Some(true) || (verdict == Some(false) && said.contains(": ")),
            };
            let well_formed = formed && answer.ended;
            Judged { right: is_right, score, well_formed, verdict, answer }
        };
        items.push(Item {
            prompt: text,
            reference: reference.clone(),
            answers: replies.into_iter().map(judge).collect(),
            again: None,
            truth: Some((right, yes.as_ref().map(|yes| yes[index]))),
            reference_logp: None,
        });
    }
    Ok(items)
}

fn role_label(role: Role) -> &'static str {
    if role == Role::Label { "label" } else { "criticise" }
}

fn is_label(said: &str) -> bool {
    said == roles::YES || said == roles::NO
}

/// A critique is right if it approves what is right, or names place and kind of the first error; half of its score is
/// for the verdict, a quarter for place and kind, and the rest for the same words as the oracle's.
fn likeness(said: &str, reference: &str, kind: &str, right: bool, verdict: Option<bool>) -> (bool, f64) {
    if verdict != Some(right) {
        return (false, 0.0);
    }
    let first = said.lines().next().unwrap_or_default();
    let place_and_kind = right || first == kind || first.starts_with(&format!("{kind},"));
    let points =
        [0.5, 0.25 * f64::from(u8::from(place_and_kind)), 0.25 * f64::from(u8::from(said == reference))];
    (place_and_kind, points.iter().sum())
}

/// The model's probability of `yes` against `no`, per prompt.
fn probability_of_yes(model: &dyn LanguageModel, asked: &[Prompt]) -> Result<Vec<f64>> {
    let both: Vec<(Prompt, String)> = asked
        .iter()
        .flat_map(|prompt| [roles::YES, roles::NO].map(|label| (prompt.clone(), label.to_string())))
        .collect();
    let logps = scores(model, &both)?;
    Ok(logps.chunks(2).map(|pair| 1.0 / (1.0 + (pair[1].0 - pair[0].0).exp())).collect())
}
