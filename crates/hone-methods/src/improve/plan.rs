//! Which methods a log is given to, in which order, and for how long: decided by the forms that are there.

use std::time::{Duration, Instant};

use hone_feedback::convert::{Losses, Shape, binary_labels};
use hone_feedback::{FormKind, Record};
use hone_nn::Want;
use serde::{Deserialize, Serialize};

use super::read::Log;
use super::rivals::{RIVALS, beside};
use crate::catalogue::{METHODS, find};
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Family, Makes, Method, Needs, settings};
use crate::oracle::Checks;
use crate::policy::{Policy, refusal};
use crate::recipe::Recipe;
use crate::report::{NotChosen, Step};
use crate::train::{Training, seq_logps};

/// Share of the budget that is spent on training; the rest reads, measures and writes.
const TRAINING_SHARE: f64 = 0.55;

/// How many times as long a training step takes as scoring the same tokens: forward, backward, optimiser.
pub(super) const STEP_COST: f64 = 3.5;

/// How many times as long writing a token takes as reading one.
pub(super) const WRITE_COST: f64 = 4.0;

/// Fewer examples than this teach nothing that could be told from chance.
pub(super) const LEAST: usize = 16;

/// Models up to this size take their rates from the recipes, which were found on the built-in model; larger ones take
/// the published ones.
const SMALL: usize = 30_000_000;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Id of the method.
    pub method: String,
    /// Why it was chosen.
    pub why: String,
    /// Settings, where they differ from the method's defaults.
    pub settings: toml::Table,
    /// Records it is given.
    pub records: usize,
    /// Examples that it will find in them; 0 where it makes its own.
    pub examples: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// Seconds it is expected to take.
    pub seconds: f64,
    /// Whether it changes the policy; else it makes a reward model.
    pub policy: bool,
    /// Id of the plain method before it whose place it takes if it gains more from the same start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rival_of: Option<String>,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The steps, in order.
    pub stages: Vec<Stage>,
    /// Methods left aside, with the reason.
    pub left: Vec<(String, String)>,
    /// Tokens per second that the model scores here.
    pub speed: f64,
    /// Mean tokens of a prompt with one response.
    pub length: f64,
}

/// What the plan is made under.
#[derive(Debug, Clone)]
pub struct Terms<'a> {
    /// Methods asked for by name; empty to let the forms decide.
    pub methods: &'a [String],
    /// `method.key=value` for the settings of methods.
    pub set: &'a [String],
    /// Wall time of the whole run; `None` for no limit.
    pub budget: Option<Duration>,
    /// Recipes that stand in for the shipped ones of their methods.
    pub recipes: &'a [Recipe],
}

impl Plan {
    /// Chooses methods for a log.
    ///
    /// # Errors
    /// [`Error::UnknownMethod`]; [`Error::Data`] if the log feeds none of the methods asked for, or none at all;
    /// those of settings.
    pub fn make(log: &Log, policy: &Policy, terms: &Terms<'_>) -> Result<Plan> {
        let (speed, length) = speed(log, policy)?;
        let mut plan = Plan { stages: vec![], left: vec![], speed, length };
        let set = assignments(terms.set)?;
        let wanted: Vec<Wanted> = match terms.methods {
            [] => chosen(log, &mut plan.left),
            ids => ids
                .iter()
                .map(|id| Ok(Wanted { method: find(id)?, why: "asked for by name".into(), rival_of: None }))
                .collect::<Result<_>>()?,
        };
        for Wanted { method, why, rival_of } in wanted {
            let stage = Stage {
                rival_of: rival_of.map(str::to_string),
                ..stage(log, policy, method, why, terms, &set)?
            };
            if stage.examples == 0 && stage.records == 0 {
                return Err(missing(log, method));
            }
            plan.stages.push(stage);
        }
        if plan.stages.is_empty() {
            let needed = format!("at least {LEAST} examples for one method");
            return Err(Error::Data { method: "improve".into(), needed, got: held(log) });
        }
        if let Some((method, text)) =
            set.iter().find(|(method, _)| !plan.stages.iter().any(|stage| stage.method == method.id))
        {
            let steps: Vec<&str> = plan.stages.iter().map(|stage| stage.method.as_str()).collect();
            let message = format!("`--set {}.{text}`: the plan is {}", method.id, steps.join(", "));
            return Err(Error::Settings { method: method.id.into(), message });
        }
        fit(&mut plan, policy, log, terms.budget)?;
        Ok(plan)
    }

    /// The plan for the report.
    pub fn steps(&self, log: &Log) -> Vec<Step> {
        self.stages
            .iter()
            .map(|stage| {
                let method = find(&stage.method).ok();
                let name = method.map_or(stage.method.as_str(), |m| m.name);
                let forms = method.map(|m| forms(log, m.needs)).unwrap_or_default();
                let mut step = Step::new(&stage.method, name, &stage.why).fed(forms, stage.examples as u64);
                step = step.set("steps", stage.steps);
                flat(&stage.settings, "", &mut |key, value| step.settings.push((key, value)));
                step
            })
            .collect()
    }

    /// What was left aside, for the report.
    pub fn not_chosen(&self) -> Vec<NotChosen> {
        self.left.iter().map(|(method, why)| NotChosen::new(method, why)).collect()
    }
}

/// The forms that feed a method, of those in the log.
fn forms(log: &Log, needs: Needs) -> Vec<FormKind> {
    let feeds = |form: &FormKind| match needs {
        Needs::Shape(shape) => log.train.iter().take(2000).any(|record| {
            let mut only = Record::new("", record.prompt.clone());
            only.responses = record.responses.clone();
            only.feedback = record.feedback.iter().filter(|f| f.form.kind() == *form).cloned().collect();
            !only.feedback.is_empty() && shape.count(&only) > 0
        }),
        Needs::Checks => *form == FormKind::Outcome,
        Needs::Rules => *form == FormKind::Rule,
        Needs::Prompts => false,
    };
    FormKind::ALL.into_iter().filter(feeds).collect()
}

fn held(log: &Log) -> String {
    let forms: Vec<String> = FormKind::ALL
        .into_iter()
        .filter_map(|form| {
            let count = log.items(form);
            (count > 0).then(|| format!("{count} of {}", form.name()))
        })
        .collect();
    if forms.is_empty() { "no feedback".into() } else { forms.join(", ") }
}

fn missing(log: &Log, method: &Method) -> Error {
    let could: Vec<&str> = METHODS
        .iter()
        .filter(|m| matches!(m.needs, Needs::Shape(shape) if log.examples(shape) >= LEAST))
        .map(|m| m.id)
        .collect();
    let could =
        if could.is_empty() { String::new() } else { format!("; it could feed {}", could.join(", ")) };
    let got = format!("{} in {} records{could}", held(log), log.train.len());
    Error::Data { method: method.id.into(), needed: method.needs.name().into(), got }
}

/// A method of a plan, before its settings are known.
struct Wanted {
    method: &'static Method,
    why: String,
    rival_of: Option<&'static str>,
}

/// The rules. What is not chosen goes to `left` with the reason.
fn chosen(log: &Log, left: &mut Vec<(String, String)>) -> Vec<Wanted> {
    let count = |shape| log.examples(shape);
    let (demonstrations, pairs, labels) =
        (count(Shape::Demonstrations), count(Shape::Pairs), count(Shape::BinaryLabels));
    let (lists, scalars) = (count(Shape::Lists), count(Shape::ScalarTargets));
    let thumbs = log.items(FormKind::Thumb) + log.items(FormKind::Outcome);
    let checked = log.train.iter().filter(|record| Checks::knows(record)).count();
    let mut wanted: Vec<(&str, String)> = vec![];
    let mut consider = |id: &'static str, take: bool, why: String| match take {
        true => wanted.push((id, why)),
        false => left.push((id.into(), why)),
    };
    let few = |count: usize, what: &str| match count {
        0 => format!("the log has no {what}"),
        count => format!("{count} {what} are too few; {LEAST} are needed"),
    };
    let enough = |count: usize| count >= LEAST;

    consider(
        "sft",
        enough(demonstrations),
        match enough(demonstrations) {
            true => format!("{demonstrations} answers to imitate: edits, or answers marked as accepted"),
            false => few(demonstrations, "answers to imitate"),
        },
    );
    let outcomes = log.items(FormKind::Outcome);
    consider(
        "rejection-sampling",
        enough(checked) && outcomes > 0,
        match (checked, outcomes) {
            (0, _) => "no record says how its answers can be checked".into(),
            (_, 0) => {
                "answers could be checked, but the log has no outcomes, so nobody asked for checks".into()
            }
            _ => format!("{outcomes} outcomes on {checked} prompts whose answers can be checked again"),
        },
    );
    let checks = enough(checked) && outcomes > 0;
    consider(
        "grpo",
        checks,
        match checks {
            true => "the same prompts, with the check as a reward".into(),
            false => "no outcomes on prompts whose answers can be checked".into(),
        },
    );
    consider("sdpo", false, "reads the same checks and what they say is wrong; name it with --method".into());
    // Thumbs on answers to different prompts give no pairs; where they are most of the log, KTO uses them all.
    let by_thumbs = enough(labels) && thumbs > 0 && pairs < thumbs / 2;
    consider(
        "dpo",
        enough(pairs) && !by_thumbs,
        match (enough(pairs), by_thumbs) {
            (false, _) => few(pairs, "pairs"),
            (_, true) => {
                format!("{pairs} pairs against {thumbs} thumbs and outcomes, which KTO uses one by one")
            }
            _ => format!("{pairs} pairs of a better and a worse answer to one prompt"),
        },
    );
    let both = [true, false].into_iter().all(|good| judged(log, good) >= LEAST / 2);
    consider(
        "kto",
        both && enough(labels) && (by_thumbs || !enough(pairs)),
        match (enough(labels), both) {
            (false, _) => few(labels, "answers called good or bad"),
            (_, false) => format!("{labels} answers called good or bad, nearly all of one kind"),
            _ if by_thumbs => {
                format!("{thumbs} thumbs and outcomes, most of them on answers that stand alone")
            }
            _ if enough(pairs) => format!("{pairs} pairs say more about the same answers, and DPO uses them"),
            _ => format!("{labels} answers called good or bad, and no pairs to compare"),
        },
    );
    for id in ["ipo", "slic", "orpo"] {
        consider(id, false, "another way to learn from the same pairs; name it with --method".into());
    }
    consider(
        "reward-pairs",
        enough(pairs),
        match enough(pairs) {
            true => "a judge of answers, learnt from the same pairs".into(),
            false => few(pairs, "pairs"),
        },
    );
    let rankings = log.items(FormKind::Ranking);
    consider(
        "reward-lists",
        enough(lists) && rankings > 0,
        match rankings {
            0 => "the log has no rankings".into(),
            _ => format!("{lists} lists of ranked answers"),
        },
    );
    let ratings = log.items(FormKind::Rating);
    consider(
        "reward-ratings",
        enough(scalars) && ratings > 0,
        match ratings {
            0 => "the log has no ratings".into(),
            _ => format!("{ratings} ratings"),
        },
    );
    for (id, shape, what) in [
        ("reward-steps", Shape::StepLabels, "answers with judged steps"),
        ("reward-spans", Shape::SpanLabels, "marked spans"),
    ] {
        let count = count(shape);
        consider(id, enough(count), if enough(count) { format!("{count} {what}") } else { few(count, what) });
    }
    for (id, why) in [
        (
            "best-of-n",
            "answers with more calls instead of a better model; see `hone run recipes/best-of-n.toml`",
        ),
        (
            "majority-vote",
            "answers with more calls instead of a better model; see `hone run recipes/majority-vote.toml`",
        ),
        (
            "self-refine",
            "answers with more calls instead of a better model; see `hone run recipes/self-refine.toml`",
        ),
    ] {
        consider(id, false, why.into());
    }
    let planned: Vec<&str> = wanted.iter().map(|(id, _)| *id).collect();
    let mut rivals = vec![];
    for rival in RIVALS {
        match rival.considered(log, &planned) {
            Ok((plain, why)) => rivals.push((plain, rival.id, why)),
            Err(why) => left.push((rival.id.into(), why)),
        }
    }
    let mut all = vec![];
    for (id, why) in wanted {
        let of = rivals.extract_if(.., |(plain, ..)| *plain == id);
        let of: Vec<_> = of.map(|(plain, id, why)| (id, why, Some(plain))).collect();
        all.push((id, why, None));
        all.extend(of);
    }
    // An empty catalogue entry would be a bug that the catalogue's own tests find.
    let found = |(id, why, rival_of)| Some(Wanted { method: find(id).ok()?, why, rival_of });
    all.into_iter().filter_map(found).collect()
}

/// Training answers that are called good, or bad.
fn judged(log: &Log, good: bool) -> usize {
    let mut losses = Losses::default();
    let labels = log
        .train
        .iter()
        .map(|record| binary_labels(record, &mut losses).iter().filter(|label| label.good == good).count());
    labels.sum()
}

/// `method.key=value` by method.
fn assignments(set: &[String]) -> Result<Vec<(&'static Method, &str)>> {
    set.iter()
        .map(|text| match text.split_once('.') {
            Some((id, rest)) if !id.contains('=') => Ok((find(id)?, rest)),
            _ => Err(Error::Settings {
                method: "improve".into(),
                message: format!("`--set {text}`: needs METHOD.KEY=VALUE, as in dpo.beta=0.2"),
            }),
        })
        .collect()
}

/// A step of all that the log gives to a method.
fn stage(
    log: &Log,
    policy: &Policy,
    method: &'static Method,
    why: String,
    terms: &Terms<'_>,
    set: &[(&'static Method, &str)],
) -> Result<Stage> {
    let mut recipe = match terms.recipes.iter().find(|recipe| recipe.method == method.id) {
        Some(own) => own.clone(),
        None => recipe(method.id)?,
    };
    if terms.recipes.is_empty() && policy.model.params.data.len() > SMALL {
        recipe.settings.clear();
    }
    for (_, assignment) in set.iter().filter(|(of, _)| of.id == method.id) {
        // Of the method's settings only: the recipe's own fields are the command's to set.
        recipe.set(&format!("settings.{assignment}"))?;
    }
    (method.check)(&recipe.settings)?;
    let records = log.side(method).iter().filter(|record| method.needs.fed_by(record)).count();
    let examples = match method.needs {
        Needs::Shape(shape) => log.examples(shape),
        _ => 0,
    };
    let policy = method.makes == Makes::Policy;
    Ok(Stage {
        method: method.id.into(),
        why,
        settings: recipe.settings,
        records,
        examples,
        steps: 0,
        seconds: 0.0,
        policy,
        rival_of: None,
    })
}

/// The recipe of a method as it is shipped.
///
/// # Errors
/// [`Error::UnknownMethod`].
pub fn recipe(id: &str) -> Result<Recipe> {
    let found = RECIPES.iter().find(|(known, _)| *known == id).map(|(_, text)| *text);
    match found {
        Some(text) => Recipe::parse(text, &format!("recipes/{id}.toml")),
        None => find(id).map(|method| Recipe {
            method: method.id.into(),
            data: String::new(),
            stand_in: None,
            model: None,
            records: 0,
            held_out: 0.2,
            seed: 0,
            settings: toml::Table::new(),
        }),
    }
}

macro_rules! recipes {
    ($($id:literal),+ $(,)?) => {
        /// The recipes of methods that `improve` can choose.
        const RECIPES: &[(&str, &str)] =
            &[$(($id, include_str!(concat!("../../../../recipes/", $id, ".toml")))),+];
    };
}
recipes!(
    "sft",
    "ilf",
    "rejection-sampling",
    "dpo",
    "irpo",
    "a-lol",
    "ipo",
    "kto",
    "lipo",
    "orpo",
    "slic",
    "reward-lists",
    "reward-pairs",
    "reward-ratings",
    "reward-spans",
    "reward-steps",
    "grpo",
    "critique-grpo",
    "rloo",
    "best-of-n",
    "majority-vote",
    "self-refine",
);

/// Tokens per second that the model scores here, and the mean tokens of a text, over a few of the log's own.
fn speed(log: &Log, policy: &Policy) -> Result<(f64, f64)> {
    let limit = policy.model.config().max_positions;
    let mut examples = Examples::default();
    let mut tokens = 0;
    for record in &log.train {
        for response in &record.responses {
            let encoded = match policy.encode(&record.prompt, &response.content.text(), limit) {
                // Counted where it is trained on.
                Err(Error::Model(error)) if refusal(&error).is_some() => continue,
                other => other?,
            };
            if let Some(sequence) = encoded {
                tokens += sequence.tokens.len();
                examples.items.push(crate::data::Example {
                    record: 0,
                    sequences: vec![sequence],
                    labels: vec![],
                    marks: vec![],
                });
            }
        }
        if tokens >= 8192 || examples.len() >= 64 {
            break;
        }
    }
    if examples.is_empty() {
        return Ok((1.0, 1.0));
    }
    // The first pass warms caches up.
    seq_logps(&policy.model, &examples.items[..1], &Want::default())?;
    let started = Instant::now();
    seq_logps(&policy.model, &examples.items, &Want::default())?;
    let speed = (tokens as f64 / started.elapsed().as_secs_f64().max(1e-6)).max(1.0);
    Ok((speed, tokens as f64 / examples.len() as f64))
}

/// Mean tokens of an example of this step, over some of the log.
fn tokens_per_example(
    log: &Log,
    policy: &Policy,
    stage: &Stage,
    training: &Training,
    length: f64,
) -> Result<f64> {
    let method = find(&stage.method)?;
    let limit = training.tokens_for(&policy.model);
    let Needs::Shape(shape) = method.needs else { return Ok(128.0) };
    let some: Vec<Record> = log.train.iter().filter(|r| shape.count(r) > 0).take(50).cloned().collect();
    let sizes = Examples::from_records(policy, &some, shape, limit)?.sizes();
    // What a method writes itself is as long as any text.
    Ok(if sizes.is_empty() { length } else { sizes.iter().sum::<usize>() as f64 / sizes.len() as f64 })
}

/// What a step takes at its full length.
struct Whole {
    training: Training,
    /// Examples that one pass of the descent is over.
    examples: usize,
    seconds: f64,
    /// Whether most of that goes into what is made of each example once, before the descent.
    made_once: bool,
}

impl Whole {
    fn of(plan: &Plan, stage: &Stage, policy: &Policy, log: &Log) -> Result<Whole> {
        let training = training(stage)?;
        let (examples, tokens) = match find(&stage.method)?.needs {
            Needs::Shape(_) => {
                (stage.examples, tokens_per_example(log, policy, stage, &training, plan.length)?)
            }
            _ => sampled(stage)?,
        };
        let descent = tokens * training.epochs * STEP_COST;
        let per_prompt = stage.examples as f64 / stage.records.max(1) as f64;
        let beside = plan.length * beside(&stage.method, &settled(stage)?, per_prompt);
        let seconds = examples as f64 * (descent + beside) / plan.speed;
        Ok(Whole { training, examples, seconds: seconds.max(0.5), made_once: beside > descent })
    }
}

/// Cuts the steps to the budget: the plain ones all by the same share of their time, by giving each fewer records, then
/// fewer passes. What they leave goes to their rivals, the shortest first; one that would have less than the step that it
/// stands against is left aside.
fn fit(plan: &mut Plan, policy: &Policy, log: &Log, budget: Option<Duration>) -> Result<()> {
    let whole: Vec<Whole> =
        plan.stages.iter().map(|stage| Whole::of(plan, stage, policy, log)).collect::<Result<_>>()?;
    let is_rival: Vec<bool> = plan.stages.iter().map(|stage| stage.rival_of.is_some()).collect();
    let total: f64 = (0..whole.len()).filter(|&at| !is_rival[at]).map(|at| whole[at].seconds).sum();
    let allowed = budget.map_or(f64::INFINITY, |budget| budget.as_secs_f64() * TRAINING_SHARE);
    let share = (allowed / total).min(1.0);
    let mut shares: Vec<Option<f64>> = is_rival.iter().map(|rival| (!rival).then_some(share)).collect();
    let mut spare = allowed - total * share;
    // A rival is measured once more than the step it stands against.
    let measuring = validating(log, plan.length) / plan.speed;
    let mut rivals: Vec<usize> = (0..whole.len()).filter(|&at| is_rival[at]).collect();
    rivals.sort_by(|&a, &b| whole[a].seconds.total_cmp(&whole[b].seconds));
    for at in rivals {
        let stage = &plan.stages[at];
        let plain = plan.stages.iter().position(|other| Some(&other.method) == stage.rival_of.as_ref());
        let least = plain.map_or(0.0, |plain| whole[plain].seconds * share).min(whole[at].seconds);
        let time = (spare - measuring).min(whole[at].seconds);
        let cut = time / whole[at].seconds;
        let samples = find(&stage.method)?.needs == Needs::Checks;
        if time >= least && (samples || cut * stage.examples as f64 >= LEAST as f64) {
            shares[at] = Some(cut);
            spare -= time + measuring;
        } else {
            let why = format!(
                "stands against {}; about {:.0} s more than the budget leaves beside the plain steps",
                stage.rival_of.as_deref().unwrap_or_default(),
                (least + measuring - spare).max(1.0)
            );
            plan.left.push((stage.method.clone(), why));
        }
    }
    let mut stages = vec![];
    for ((mut stage, whole), share) in std::mem::take(&mut plan.stages).into_iter().zip(whole).zip(shares) {
        let Some(share) = share else { continue };
        let mut epochs = whole.training.epochs;
        if share < 1.0 {
            // Distinct examples are worth more than repeated ones, unless each must be made first.
            let passes = epochs * share;
            if !whole.made_once {
                epochs = passes.clamp(1.0, epochs.max(1.0)).min(epochs);
            }
            let kept = (passes / epochs).min(1.0);
            stage.records = ((stage.records as f64 * kept).ceil() as usize).max(1);
            stage.examples = (stage.examples as f64 * kept).ceil() as usize;
            if (find(&stage.method)?.defaults)()?.contains_key("training") {
                set_epochs(&mut stage.settings, epochs);
            }
        }
        let examples = match find(&stage.method)?.family {
            // An iteration takes prompts, not answers; what draws no answers learns from those of the log.
            Family::Reinforce if settled(&stage)?.contains_key("draw") => stage.records,
            _ if stage.examples > 0 => stage.examples,
            _ => whole.examples,
        };
        stage.steps = Training { epochs, ..whole.training }.steps(examples);
        stage.seconds = whole.seconds * share;
        stages.push(stage);
    }
    plan.stages = stages;
    Ok(())
}

/// Tokens that are paid for, as if they were read, where one policy is measured on the validation prompts.
fn validating(log: &Log, length: f64) -> f64 {
    let prompts = log.validation.len().min(super::VALIDATION_PROMPTS) as f64;
    let written = WRITE_COST * length.min(super::measure::ANSWER_TOKENS as f64) * super::ANSWERS as f64;
    // An example is measured in up to four texts, and a prompt has a few.
    prompts * (length + written + 4.0 * 4.0 * length)
}

/// All settings of a step.
fn settled(stage: &Stage) -> Result<toml::Table> {
    let mut whole = (find(&stage.method)?.defaults)()?;
    whole.extend(stage.settings.clone());
    Ok(whole)
}

/// Answers that a step samples, and how many tokens of each are paid for: most answers end before the limit.
fn sampled(stage: &Stage) -> Result<(usize, f64)> {
    let (each, limit) = answers(stage)?;
    Ok((stage.records * each, limit as f64 / 2.0))
}

/// Answers that a step samples to each prompt, and the most tokens of one.
pub(super) fn answers(stage: &Stage) -> Result<(usize, usize)> {
    let whole = settled(stage)?;
    let number = |key: &str| whole.get(key).and_then(toml::Value::as_integer).map(|n| n as usize);
    let names = ["samples", "group_size", "n", "refinements", "per_round"];
    let each = names.into_iter().find_map(number).unwrap_or(4);
    let limit = whole.get("draw").and_then(|draw| draw.get("max_tokens")).and_then(toml::Value::as_integer);
    Ok((each, limit.unwrap_or(256) as usize))
}

fn set_epochs(settings: &mut toml::Table, epochs: f64) {
    let training = settings.entry("training").or_insert_with(|| toml::Table::new().into());
    if let Some(training) = training.as_table_mut() {
        training.insert("epochs".into(), epochs.into());
    }
}

/// The descent of a step, with its method's defaults filled in.
pub(super) fn training(stage: &Stage) -> Result<Training> {
    let method = find(&stage.method)?;
    let defaults = (method.defaults)()?;
    let own =
        |table: &toml::Table| table.get("training").and_then(|t| t.as_table()).cloned().unwrap_or_default();
    let mut whole = own(&defaults);
    whole.extend(own(&stage.settings));
    settings::<Training>(method.id, &whole)
}

/// Calls `on` with every value of nested tables by its dotted name.
fn flat(table: &toml::Table, path: &str, on: &mut dyn FnMut(String, String)) {
    for (key, value) in table {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(inner) => flat(inner, &name, on),
            toml::Value::String(text) => on(name, text.clone()),
            other => on(name, other.to_string()),
        }
    }
}

impl crate::method::Settings for Training {
    fn check(&self) -> Result<()> {
        Training::check(self, "training")
    }
}
