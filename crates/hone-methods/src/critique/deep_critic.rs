//! DeepCritic.

use std::collections::HashMap;

use hone_feedback::convert::Shape;
use hone_feedback::metrics::mean;
use hone_feedback::{Form, Message, Prompt, Record};
use hone_lm::LanguageModel;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::process::known;
use super::{Critic, Logged, Subject, first_error};
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::oracle::{Oracle, Verdict};
use crate::policy::Policy;
use crate::refine::trace::said_by_user;
use crate::refine::{Draw, sample};
use crate::reinforce::grpo::Grpo;
use crate::reinforce::{Reuse, Sampling, learn};
use crate::templates::Templates;
use crate::train::{Decay, Session, Training};

method! {
    /// Teach a critic to look at every step twice, first by merged critiques of critiques, then by whether it names the
    /// first wrong step.
    /// # What it does
    /// A teacher criticises each labelled step, then, having read that, examines the step again (`in_depth` samples); the
    /// first second look whose verdict is the label's is taken, and a solution with a step that has none is dropped. Both
    /// critiques are merged into one text; the texts of all steps up to the first wrong one and its boxed number, from 1, or
    /// -1, are what the policy imitates. All solutions with an error are kept, all without one in which a first critique
    /// was corrected, and `keep_error_free` of the others. Then GRPO raises the critiques whose final number is right:
    /// reward 1 or 0, and nothing else. `data` gives the ablations: first critiques only, or whole critiques in one go.
    /// # Feedback
    /// Step labels up to the first wrong step (ProcessBench, PRM800K), or solutions whose answers can be checked, labelled
    /// by completing each prefix `rollouts` times (`labels = "monte_carlo"`).
    /// # Departs from the paper
    /// The teacher is the policy itself unless a folder is given. Prompts are our own. Sampling of solutions for Monte Carlo
    /// labels is left to the log, its responses being the solutions; an error that every prefix survives is laid to the
    /// last step, which is never completed. Step verdicts are read as the last boxed 1 or -1. Advantages and clipping are
    /// those of `grpo`. `data = "logged"` imitates critiques that the log holds, for a model too small to be its own teacher;
    /// the rate, batch and group of the paper's second stage are from memory.
    /// # Claim
    /// With a scripted teacher that is wrong at a known rate: selection by label leaves only right verdicts
    /// (`claim_selection_leaves_right_verdicts`) and corrects first critiques (`claim_first_critiques_are_corrected`); more
    /// roll-outs make Monte Carlo labels more often right (`claim_roll_outs_raise_precision`). The claims on trained critics
    /// (two looks above one, reinforcement above imitation, voting, refinement, balance) are not measured yet: they need a
    /// small critic that is taught to check steps, which no bench has.
    /// # Source
    /// Yang, Chen, Lin, Wen, arXiv:2505.00662, sections 3 and 4.
    pub static DEEP_CRITIC: Method = Method {
        id: "deep-critic", name: "DeepCritic", family: Family::Critique, needs: Needs::Shape(Shape::StepLabels),
        makes: Makes::Policy, settings: DeepCritic,
        claims: &[
            Claim {
                name: "claim_selection_leaves_right_verdicts",
                says: "Verdicts on steps are all right in the kept data, though the teacher is wrong on three steps of ten.",
                metric: "share of kept steps with the right verdict",
                baseline: "the teacher's first critiques of the same steps",
                effect: selection_leaves_right,
            },
            Claim {
                name: "claim_first_critiques_are_corrected",
                says: "The kept data holds corrections in both directions.",
                metric: "share of kept steps whose first verdict was wrong, the smaller of right and of wrong steps",
                baseline: "none: selecting by the first critique keeps no such step",
                effect: corrected_share,
            },
            Claim {
                name: "claim_roll_outs_raise_precision",
                says: "Monte Carlo labels from 16 roll-outs per prefix are more often those planted than from 2.",
                metric: "share of labels kept that are the planted ones, 16 roll-outs",
                baseline: "the same solutions with 2 roll-outs",
                effect: roll_outs_raise_precision,
            },
        ],
        run,
    };
}

/// What the first stage imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Merged first and second looks.
    Merged,
    /// First critiques, selected by label.
    Initial,
    /// Whole critiques in one go, selected by the final number.
    Direct,
    /// What the log says of the solution, by whoever said it; no teacher is asked.
    Logged,
}

/// Where the first wrong step is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// The log.
    Given,
    /// Completions of prefixes, checked by the oracle.
    MonteCarlo,
}

/// Settings of DeepCritic. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepCritic {
    /// Folder of the teacher; empty for the policy itself. Paper: a model ten times as large.
    pub teacher: String,
    /// What is imitated.
    pub data: Data,
    /// What the critic is asked, a Jinja template over `prompt` and `steps`.
    pub prompt: String,
    /// Where labels come from.
    pub labels: Labels,
    /// Completions per prefix, at least 1. Paper: 8.
    pub rollouts: usize,
    /// Second looks per step, at least 1. Paper: 16.
    pub in_depth: usize,
    /// Error-free solutions kept in which nothing was corrected. Paper: 250.
    pub keep_error_free: usize,
    /// How first critiques are sampled. Paper: temperature 0.7, top-p 0.9, 1,024 tokens.
    pub initial_draw: Draw,
    /// How second looks are. Paper: temperature 1, top-p 0.9.
    pub in_depth_draw: Draw,
    /// How merged texts, and whole critiques in one go, are. Paper: temperature 0.7, top-p 0.9, 2,048 tokens.
    pub merge_draw: Draw,
    /// How prefixes are completed. Paper: temperature 0.7, top-p 0.9, 4,096 tokens.
    pub rollout_draw: Draw,
    /// Run the first stage.
    pub imitate: bool,
    /// Run the second.
    pub reinforce: bool,
    /// The first stage's descent. Paper: 3 epochs, rate 1e-5, cosine.
    pub training: Training,
    /// The second stage. Paper: about rate 1e-6, 128 prompts, groups of 8.
    pub rl: Grpo,
}

impl Default for DeepCritic {
    fn default() -> DeepCritic {
        let draw = |temperature, max_tokens| Draw { temperature, top_p: 0.9, max_tokens, ..Draw::default() };
        let grpo = Grpo::default();
        DeepCritic {
            teacher: String::new(),
            data: Data::Merged,
            prompt: include_str!("prompts/first_error.jinja").into(),
            labels: Labels::Given,
            rollouts: 8,
            in_depth: 16,
            keep_error_free: 250,
            initial_draw: draw(0.7, 1024),
            in_depth_draw: draw(1.0, 1024),
            merge_draw: draw(0.7, 2048),
            rollout_draw: draw(0.7, 4096),
            imitate: true,
            reinforce: true,
            training: Training {
                learning_rate: 1e-5,
                epochs: 3.0,
                batch_size: 16,
                warm_up: 0.1,
                decay: Decay::Cosine,
                max_tokens: 16384,
                ..Training::default()
            },
            rl: Grpo {
                group_size: 8,
                kl_weight: 0.0,
                draw: Draw { max_tokens: 4096, ..Draw::default() },
                training: Training { batch_size: 128, max_tokens: 16384, ..grpo.training.clone() },
                ..grpo
            },
        }
    }
}

impl Settings for DeepCritic {
    fn check(&self) -> Result<()> {
        for (key, value) in [("rollouts", self.rollouts), ("in_depth", self.in_depth)] {
            if value == 0 {
                return Err(Error::range("deep-critic", key, "at least 1", 0));
            }
        }
        for draw in [&self.initial_draw, &self.in_depth_draw, &self.merge_draw, &self.rollout_draw] {
            draw.check("deep-critic")?;
        }
        Templates::new("deep-critic", &[("prompt", self.prompt.as_str())])?;
        self.training.check("deep-critic")?;
        self.rl.check()
    }
}

/// A solution whose first wrong step is known.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Its record.
    pub record: Record,
    /// Its whole text.
    pub answer: String,
    /// Its steps.
    pub steps: Vec<String>,
    /// The first wrong one, from 0.
    pub first_wrong: Option<usize>,
}

impl Solution {
    /// Steps that are criticised: all up to the first wrong one.
    fn judged(&self) -> usize {
        self.first_wrong.map_or(self.steps.len(), |index| index + 1)
    }

    fn context(&self) -> (String, &Vec<String>) {
        (self.record.prompt.text().into_owned(), &self.steps)
    }

    /// The last line of a critique of it.
    fn answer_line(&self) -> String {
        let number = self.first_wrong.map_or(-1, |index| index as i64 + 1);
        format!("**Answer**: \\boxed{{{number}}}")
    }
}

/// A text to imitate, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index of the solution.
    pub solution: usize,
    /// The whole critique.
    pub text: String,
    /// Per step: the first verdict, where one was given, and the kept one.
    pub verdicts: Vec<(Option<bool>, bool)>,
}

impl Target {
    /// Whether a first verdict was replaced.
    pub fn corrected(&self) -> bool {
        self.verdicts.iter().any(|(first, kept)| *first != Some(*kept))
    }
}

/// The last boxed 1 or -1 of a text.
fn verdict(text: &str) -> Option<bool> {
    let (_, boxed) = text.rsplit_once("\\boxed{")?;
    match boxed.split_once('}')?.0.trim() {
        "1" => Some(true),
        "-1" => Some(false),
        _ => None,
    }
}

fn templates() -> Result<Templates<'static>> {
    Templates::new(
        "deep-critic",
        &[
            ("initial", include_str!("prompts/initial.jinja")),
            ("in_depth", include_str!("prompts/in_depth.jinja")),
            ("merge", include_str!("prompts/merge.jinja")),
            ("continue", include_str!("prompts/continue.jinja")),
        ],
    )
}

/// The critiques to imitate: one per solution that passes selection, in order, before balancing.
///
/// # Errors
/// Those of the teacher.
pub fn deliberate(
    teacher: &dyn LanguageModel,
    solutions: &[Solution],
    own: &DeepCritic,
    seed: u64,
) -> Result<Vec<Target>> {
    match own.data {
        Data::Direct => return direct(teacher, solutions, own, seed),
        Data::Logged => return logged(solutions),
        Data::Merged | Data::Initial => {}
    }
    let templates = templates()?;
    let places: Vec<(usize, usize)> = solutions
        .iter()
        .enumerate()
        .flat_map(|(at, solution)| (0..solution.judged()).map(move |step| (at, step)))
        .collect();
    let truth = |(at, step): (usize, usize)| solutions[at].first_wrong != Some(step);
    let ask =
        |name: &str, places: &[(usize, usize)], extra: &dyn Fn(usize) -> [String; 2], n, draw: &Draw| {
            let prompts = places.iter().enumerate().map(|(index, &(at, step))| {
                let (prompt, steps) = solutions[at].context();
                let [initial, in_depth] = extra(index);
                let (number, text) = (step + 1, &steps[step]);
                let context = minijinja::context! { prompt, steps, number, step => text, initial, in_depth };
                Ok(said_by_user(teacher, templates.render(name, context)?))
            });
            sample(teacher, &prompts.collect::<Result<Vec<_>>>()?, n, draw, sub_seed(seed, name))
        };
    let first = ask("initial", &places, &|_| Default::default(), 1, &own.initial_draw)?;
    let first: Vec<String> = first
        .into_iter()
        .map(|said| said.into_iter().next().map(|one| one.text).unwrap_or_default())
        .collect();
    let kept: Vec<Option<String>> = match own.data {
        Data::Initial => {
            let right = |(said, &place): (&String, &(usize, usize))| {
                (verdict(said) == Some(truth(place))).then(|| said.clone())
            };
            first.iter().zip(&places).map(right).collect()
        }
        _ => {
            let shown = |index: usize| [first[index].clone(), String::new()];
            let second = ask("in_depth", &places, &shown, own.in_depth, &own.in_depth_draw)?;
            let chosen = second.into_iter().zip(&places).map(|(said, &place)| {
                said.into_iter().map(|one| one.text).find(|text| verdict(text) == Some(truth(place)))
            });
            let chosen: Vec<Option<String>> = chosen.collect();
            // Only what is kept is merged.
            let whole: Vec<bool> = (0..solutions.len())
                .map(|at| places.iter().zip(&chosen).all(|(place, text)| place.0 != at || text.is_some()))
                .collect();
            let open: Vec<usize> = (0..places.len()).filter(|&index| whole[places[index].0]).collect();
            let of_open: Vec<(usize, usize)> = open.iter().map(|&index| places[index]).collect();
            let both = |index: usize| {
                let at = open[index];
                [first[at].clone(), chosen[at].clone().unwrap_or_default()]
            };
            let merged = ask("merge", &of_open, &both, 1, &own.merge_draw)?;
            let mut texts = vec![None; places.len()];
            for (index, said) in open.into_iter().zip(merged) {
                let text = said.into_iter().next().map(|one| one.text.trim().to_owned());
                texts[index] = text.filter(|text| !text.is_empty());
            }
            texts
        }
    };
    let mut targets = vec![];
    for (at, solution) in solutions.iter().enumerate() {
        let of: Vec<usize> = (0..places.len()).filter(|&index| places[index].0 == at).collect();
        let texts: Option<Vec<&str>> = of.iter().map(|&index| kept[index].as_deref()).collect();
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else { continue };
        let verdicts = of.iter().map(|&index| (verdict(&first[index]), truth(places[index]))).collect();
        let text = format!("{}\n\n{}", texts.join("\n\n"), solution.answer_line());
        targets.push(Target { solution: at, text, verdicts });
    }
    Ok(targets)
}

/// What the log says of each solution, with the line of its label.
fn logged(solutions: &[Solution]) -> Result<Vec<Target>> {
    let subjects: Vec<Subject<'_>> =
        solutions.iter().map(|solution| Subject::new(&solution.record, solution.answer.as_str())).collect();
    let replies = Logged.criticise(&subjects, 0)?;
    let target = |(at, said): (usize, std::result::Result<super::Critique, super::Failure>)| {
        let words = said.ok().map(|critique| critique.text).filter(|text| !text.is_empty())?;
        let right = |step| solutions[at].first_wrong != Some(step);
        let verdicts = (0..solutions[at].judged()).map(|step| (Some(right(step)), right(step))).collect();
        let text = format!("{words}\n\n{}", solutions[at].answer_line());
        Some(Target { solution: at, text, verdicts })
    };
    Ok(replies.into_iter().map(|reply| reply.said).enumerate().filter_map(target).collect())
}

/// Whole critiques in one go, those whose final number is the label.
fn direct(
    teacher: &dyn LanguageModel,
    solutions: &[Solution],
    own: &DeepCritic,
    seed: u64,
) -> Result<Vec<Target>> {
    let prompts = solutions.iter().map(|solution| Ok(said_by_user(teacher, prompt_of(solution, own)?)));
    let said = sample(teacher, &prompts.collect::<Result<Vec<_>>>()?, 1, &own.merge_draw, seed)?;
    let mut targets = vec![];
    for (at, said) in said.into_iter().enumerate() {
        let wanted = solutions[at].first_wrong.map_or(-1, |index| index as i64 + 1);
        let text =
            said.into_iter().next().map(|one| one.text).filter(|text| first_error(text) == Some(wanted));
        let verdicts = (0..solutions[at].judged()).map(|step| solutions[at].first_wrong != Some(step));
        let verdicts = verdicts.map(|right| (Some(right), right)).collect();
        targets.extend(text.map(|text| Target { solution: at, text, verdicts }));
    }
    Ok(targets)
}

/// All solutions with an error, all without one in which a first critique was corrected, and `most` of the others, drawn
/// by the seed. The order is kept.
pub fn balance(targets: Vec<Target>, solutions: &[Solution], most: usize, seed: u64) -> Vec<Target> {
    let plain = |target: &Target| solutions[target.solution].first_wrong.is_none() && !target.corrected();
    let mut others: Vec<usize> = (0..targets.len()).filter(|&at| plain(&targets[at])).collect();
    shuffle(&mut others, &mut rng(seed, "balance"));
    others.truncate(most);
    let kept = |(at, target): (usize, Target)| (!plain(&target) || others.contains(&at)).then_some(target);
    targets.into_iter().enumerate().filter_map(kept).collect()
}

/// The first wrong step by completions of prefixes: `successes[i]` of `rollouts` completions of the first `i + 1` steps
/// reach the answer; `right` is whether the solution does. `None` where it cannot be told.
///
/// A right solution has no wrong step if more than half succeed from every prefix. A wrong one has its first wrong step
/// where completions stop succeeding for good, if more than half succeed from every earlier prefix; where none stops, it is
/// the last step, which is never completed.
pub fn monte_carlo_label(successes: &[usize], rollouts: usize, right: bool) -> Option<Option<usize>> {
    let most = |&count: &usize| 2 * count > rollouts;
    if right {
        return successes.iter().all(most).then_some(None);
    }
    let dead = successes.iter().rev().take_while(|&&count| count == 0).count();
    let first = successes.len() - dead;
    successes[..first].iter().all(most).then_some(Some(first))
}

/// The prompt of a whole critique.
fn prompt_of(solution: &Solution, own: &DeepCritic) -> Result<String> {
    let (prompt, steps) = solution.context();
    let templates = Templates::new("deep-critic", &[("prompt", own.prompt.as_str())])?;
    templates.render("prompt", minijinja::context! { prompt, steps })
}

/// Gives 1 to a critique whose final number is the label, else 0.
#[derive(Debug)]
struct FinalNumber(HashMap<String, i64>);

impl Oracle for FinalNumber {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        Ok(self.0.get(&record.id).map(|wanted| {
            let said = first_error(answer);
            let right = said == Some(*wanted);
            Verdict {
                right,
                score: f64::from(u8::from(right)),
                well_formed: said.is_some(),
                words: String::new(),
            }
        }))
    }
}

/// Solutions of the log with the first wrong step of each, as far as it is known.
fn solutions(job: &Job<'_>, own: &DeepCritic) -> Result<Vec<Solution>> {
    let mut solutions = vec![];
    for record in job.records {
        for response in &record.responses {
            let Subject { steps, answer, .. } = Subject::of_response(record, response);
            let answer = answer.into_owned();
            match own.labels {
                Labels::Given => {
                    if let Some(first_wrong) = known(record, &response.id) {
                        solutions.push(Solution { record: record.clone(), answer, steps, first_wrong });
                    }
                }
                Labels::MonteCarlo if steps.len() > 1 => {
                    solutions.push(Solution { record: record.clone(), answer, steps, first_wrong: None });
                }
                Labels::MonteCarlo => {}
            }
        }
    }
    if own.labels == Labels::Given {
        return Ok(solutions);
    }
    let Some(oracle) = job.oracle else {
        let (needed, got) = ("solutions whose answers can be checked", "records without a task or tests");
        return Err(Error::Data { method: "deep-critic".into(), needed: needed.into(), got: got.into() });
    };
    let (model, templates) = (job.policy.speaker()?, templates()?);
    let mut labelled = vec![];
    for (at, solution) in solutions.into_iter().enumerate() {
        let Some(judged) = oracle.check(&solution.record, &solution.answer)? else { continue };
        let (prompt, steps) = solution.context();
        let prefixes = (1..steps.len()).map(|count| {
            let context = minijinja::context! { prompt => &prompt, steps => steps[..count].to_vec() };
            Ok(said_by_user(&model, templates.render("continue", context)?))
        });
        let prefixes = prefixes.collect::<Result<Vec<_>>>()?;
        let stream = sub_seed(job.seed, &format!("solution {at}"));
        let said = sample(&model, &prefixes, own.rollouts, &own.rollout_draw, stream)?;
        let mut successes = vec![];
        for (index, samples) in said.iter().enumerate() {
            let mut count = 0;
            for one in samples {
                let answer = format!("{}\n{}", steps[..=index].join("\n"), one.text);
                count += usize::from(oracle.check(&solution.record, &answer)?.is_some_and(|v| v.right));
            }
            successes.push(count);
        }
        if let Some(first_wrong) = monte_carlo_label(&successes, own.rollouts, judged.right) {
            labelled.push(Solution { first_wrong, ..solution });
        }
    }
    Ok(labelled)
}

/// What the jobs of both stages share.
struct Stage<'a> {
    settings: &'a toml::Table,
    seed: u64,
    session: &'a Session,
}

impl<'a> Stage<'a> {
    fn job<'b>(
        &self,
        name: &str,
        policy: Policy,
        records: &'b [Record],
        oracle: Option<&'b dyn Oracle>,
    ) -> Job<'b>
    where
        'a: 'b,
    {
        let (seed, session) = (sub_seed(self.seed, name), self.session.stage(name));
        Job { policy, records, oracle, settings: self.settings, seed, session }
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: DeepCritic = settings("deep-critic", job.settings)?;
    let solutions = solutions(&job, &own)?;
    if solutions.is_empty() {
        let (needed, got) =
            ("solutions whose first wrong step is known", format!("none in {} records", job.records.len()));
        return Err(Error::Data { method: "deep-critic".into(), needed: needed.into(), got });
    }
    let Job { mut policy, session, seed, .. } = job;
    let chats = policy.template.is_some();
    let asked = solutions.iter().enumerate().map(|(at, solution)| {
        let text = prompt_of(solution, &own)?;
        let prompt =
            if chats { Prompt::Messages(vec![Message::new("user", text)]) } else { Prompt::Text(text) };
        Ok(Record::new(at.to_string(), prompt))
    });
    let asked: Vec<Record> = asked.collect::<Result<_>>()?;
    let nothing = toml::Table::new();
    let stage = Stage { settings: &nothing, seed, session: &session };
    if own.imitate {
        let teacher = match own.teacher.as_str() {
            "" => policy.speaker()?,
            folder => Policy::from_folder(folder.as_ref())?.speaker()?,
        };
        let targets = deliberate(&teacher, &solutions, &own, sub_seed(seed, "teacher"))?;
        let targets = balance(targets, &solutions, own.keep_error_free, seed);
        let demonstrate = |target: &Target| {
            let edit = Form::Edit { on: "a".into(), content: target.text.as_str().into() };
            asked[target.solution].clone().respond("a", "").say(edit)
        };
        let records: Vec<Record> = targets.iter().map(demonstrate).collect();
        let longest = own.training.tokens_for(&policy.model);
        let examples = Examples::from_records(&policy, &records, Shape::Demonstrations, longest)?;
        Error::expect_examples("deep-critic", "a critique that agrees with its labels", &examples, &records)?;
        policy = sft::imitate(
            "deep-critic",
            stage.job("imitate", policy, &records, None),
            &examples,
            &own.training,
        )?
        .policy()?;
    }
    if own.reinforce {
        let number = |solution: &Solution| solution.first_wrong.map_or(-1, |index| index as i64 + 1);
        let labels = solutions.iter().enumerate().map(|(at, solution)| (at.to_string(), number(solution)));
        let oracle = FinalNumber(labels.collect());
        let max_tokens = own.rl.training.tokens_for(&policy.model);
        let sampling = Sampling { group: own.rl.group_size, draw: &own.rl.draw, max_tokens };
        let reuse = Reuse { epochs: own.rl.epochs_per_batch, minibatches: own.rl.minibatches };
        let job = stage.job("reinforce", policy, &asked, Some(&oracle));
        policy = learn("deep-critic", job, sampling, &own.rl.training, reuse, &own.rl)?;
    }
    Ok(Product::Policy(policy))
}

/// The scripted teacher: it works the step out and is wrong three times of ten; merging repeats the second text.
mod script {
    use hone_lm::model::{Capabilities, Event, FinishReason, Generation, Sample, Scored, Timings, Usage};
    use hone_lm::{GenerateRequest, LanguageModel, Prompt, ScoreRequest};
    use hone_nn::train::seed::rng;
    use rand::Rng;

    use super::*;

    #[derive(Debug)]
    pub(super) struct Teacher(Capabilities);

    impl Teacher {
        pub(super) fn new() -> Teacher {
            Teacher(Capabilities {
                name: "teacher".into(),
                chat: false,
                text: true,
                seeds: true,
                ..Capabilities::default()
            })
        }

        fn says(prompt: &str, rng: &mut impl Rng) -> Option<String> {
            if let Some((_, rest)) = prompt.split_once("believed where they differ: ") {
                return Some(rest.split_once("\n\nWrite both")?.0.to_owned());
            }
            let (_, asked) = prompt.rsplit_once("Examine step ")?;
            let number = asked.split(' ').next()?;
            let step = prompt.lines().find_map(|line| line.strip_prefix(&format!("Step {number}: ")))?;
            let (sum, result) = step.split_once('=')?;
            let (a, b) = sum.split_once('+')?;
            let right = a.parse::<i64>().ok()? + b.parse::<i64>().ok()? == result.parse::<i64>().ok()?;
            let said = if rng.random_bool(0.3) { !right } else { right };
            Some(format!(
                "{step}: {} \\boxed{{{}}}",
                if said { "fits" } else { "no" },
                if said { 1 } else { -1 }
            ))
        }
    }

    impl LanguageModel for Teacher {
        fn capabilities(&self) -> &Capabilities {
            &self.0
        }

        fn generate(
            &self,
            requests: &[GenerateRequest],
            _: &mut dyn FnMut(Event),
        ) -> hone_lm::Result<Vec<hone_lm::Result<Generation>>> {
            let answer = |request: &GenerateRequest| {
                let Prompt::Text(prompt) = &request.prompt else {
                    return Err(hone_lm::Error::Empty { index: 0, what: "prompt" });
                };
                let sample = |at: usize| Sample {
                    text: Teacher::says(
                        prompt,
                        &mut rng(request.sampling.seed.unwrap_or(0), &format!("sample {at}")),
                    )
                    .unwrap_or_default(),
                    message: None,
                    tokens: None,
                    finish: FinishReason::Stop,
                };
                Ok(Generation {
                    samples: (0..request.n).map(sample).collect(),
                    usage: Usage::default(),
                    cost: None,
                    timings: Timings::default(),
                    model: "teacher".into(),
                    attempts: 1,
                    raw: None,
                })
            };
            Ok(requests.iter().map(answer).collect())
        }

        fn score(&self, _: &[ScoreRequest]) -> hone_lm::Result<Vec<hone_lm::Result<Scored>>> {
            Ok(vec![])
        }

        fn embed(&self, _: &[String]) -> hone_lm::Result<Vec<Vec<f32>>> {
            Ok(vec![])
        }
    }

    /// Chains of additions, every second one with a wrong step.
    pub(super) fn chains(count: usize, seed: u64) -> Vec<Solution> {
        let mut rng = rng(seed, "chains");
        (0..count)
            .map(|index| {
                let length = rng.random_range(2..=4);
                let first_wrong = (index % 2 == 0).then(|| rng.random_range(0..length));
                let mut value: i64 = rng.random_range(1..=20);
                let mut steps = vec![];
                for step in 0..length {
                    let add: i64 = rng.random_range(1..=20);
                    let off =
                        if first_wrong == Some(step) { [-10, -1, 1, 10][rng.random_range(0..4)] } else { 0 };
                    steps.push(format!("{value}+{add}={}", value + add + off));
                    value += add + off;
                }
                let record = Record::new(index.to_string(), "Add up.");
                Solution { record, answer: steps.join("\n"), steps, first_wrong }
            })
            .collect()
    }
}

/// First and kept verdicts of every step of the kept data with the truth, all `(first, kept, truth)`.
fn kept_verdicts(seed: u64) -> Result<Vec<(Option<bool>, bool, bool)>> {
    let solutions = script::chains(200, seed);
    // Two second looks, so that some steps fail and their solutions are dropped.
    let own = DeepCritic { in_depth: 2, ..DeepCritic::default() };
    let targets = deliberate(&script::Teacher::new(), &solutions, &own, seed)?;
    let rows = targets.iter().flat_map(|target| {
        let first_wrong = solutions[target.solution].first_wrong;
        // The verdict that stands in the text, not the label it was chosen by.
        let texts: Vec<&str> = target.text.split("\n\n").collect();
        let of = move |(step, (first, _)): (usize, &(Option<bool>, bool))| {
            (*first, verdict(texts[step]).unwrap_or(first_wrong == Some(step)), first_wrong != Some(step))
        };
        target.verdicts.iter().enumerate().map(of).collect::<Vec<_>>()
    });
    Ok(rows.collect())
}

fn selection_leaves_right(seed: u64) -> Result<f64> {
    let gain = |&(first, kept, truth): &(Option<bool>, bool, bool)| {
        f64::from(u8::from(kept == truth)) - f64::from(u8::from(first == Some(truth)))
    };
    Ok(mean(&kept_verdicts(seed)?.iter().map(gain).collect::<Vec<_>>()))
}

fn corrected_share(seed: u64) -> Result<f64> {
    let verdicts = kept_verdicts(seed)?;
    let share = |side: bool| {
        let of = verdicts.iter().filter(|(_, _, truth)| *truth == side);
        mean(&of.map(|(first, _, truth)| f64::from(u8::from(*first != Some(*truth)))).collect::<Vec<_>>())
    };
    Ok(share(true).min(share(false)))
}

/// Share of Monte Carlo labels that are the planted ones, where completions succeed with 0.8 from a right prefix and with
/// 0.1 from a wrong one.
fn precision(rollouts: usize, seed: u64) -> f64 {
    let mut rng = rng(seed, "rollouts");
    let mut right = vec![];
    for solution in script::chains(400, seed) {
        let successes: Vec<usize> = (0..solution.steps.len() - 1)
            .map(|step| {
                let chance = if solution.first_wrong.is_some_and(|wrong| wrong <= step) { 0.1 } else { 0.8 };
                (0..rollouts).filter(|_| rng.random_bool(chance)).count()
            })
            .collect();
        let label = monte_carlo_label(&successes, rollouts, solution.first_wrong.is_none());
        right.extend(label.map(|label| f64::from(u8::from(label == solution.first_wrong))));
    }
    mean(&right)
}

fn roll_outs_raise_precision(seed: u64) -> Result<f64> {
    Ok(precision(16, seed) - precision(2, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;

    #[test]
    fn labels_from_counts_by_hand() {
        // 8 roll-outs: success stops at the second prefix and stays away.
        assert_eq!(monte_carlo_label(&[7, 0, 0], 8, false), Some(Some(1)));
        // It comes back: no place is sure.
        assert_eq!(monte_carlo_label(&[7, 0, 1], 8, false), None);
        // Four of eight is not more than half.
        assert_eq!(monte_carlo_label(&[4, 0], 8, false), None);
        // Every prefix survives: the error is in the last step, index 2 of 3.
        assert_eq!(monte_carlo_label(&[8, 5], 8, false), Some(Some(2)));
        assert_eq!(monte_carlo_label(&[0, 0], 8, false), Some(Some(0)));
        assert_eq!(monte_carlo_label(&[8, 5], 8, true), Some(None));
        assert_eq!(monte_carlo_label(&[8, 4], 8, true), None);
    }

    #[test]
    fn critiques_stop_at_the_first_wrong_step_and_solutions_fall_whole() {
        let solutions = script::chains(60, 1);
        let own = DeepCritic { in_depth: 1, ..DeepCritic::default() };
        let targets = deliberate(&script::Teacher::new(), &solutions, &own, 1).unwrap();
        // One second look is right seven times of ten, and a solution has up to four: some fall, some stay.
        assert!((5..55).contains(&targets.len()), "{}", targets.len());
        for target in &targets {
            let solution = &solutions[target.solution];
            assert_eq!(target.verdicts.len(), solution.judged());
            let wanted = solution.first_wrong.map_or(-1, |index| index as i64 + 1);
            assert_eq!(first_error(&target.text), Some(wanted));
            let parts: Vec<&str> = target.text.split("\n\n").collect();
            assert_eq!(parts.len(), solution.judged() + 1);
            assert!(parts.iter().zip(&target.verdicts).all(|(part, (_, kept))| verdict(part) == Some(*kept)));
        }
        let own = DeepCritic { data: Data::Initial, ..own };
        let initial = deliberate(&script::Teacher::new(), &solutions, &own, 1).unwrap();
        assert!(!initial.is_empty() && initial.iter().all(|target| !target.corrected()));
    }

    #[test]
    fn balance_caps_only_what_was_never_in_doubt() {
        let solution = |first_wrong| Solution {
            record: Record::new("r", "p"),
            answer: "1+1=2".into(),
            steps: vec!["1+1=2".into()],
            first_wrong,
        };
        let solutions = [solution(Some(0)), solution(None), solution(None), solution(None)];
        let target =
            |at, first, kept| Target { solution: at, text: String::new(), verdicts: vec![(first, kept)] };
        let targets = vec![
            target(0, Some(false), false),
            target(1, Some(true), true),
            target(2, Some(false), true),
            target(3, Some(true), true),
        ];
        let kept = |most| -> Vec<usize> {
            balance(targets.clone(), &solutions, most, 1).iter().map(|target| target.solution).collect()
        };
        assert_eq!(kept(0), [0, 2]);
        assert_eq!((kept(1).len(), kept(2)), (3, vec![0, 1, 2, 3]));
    }

    #[test]
    fn only_the_final_number_is_rewarded() {
        let oracle = FinalNumber([("0".to_string(), 2)].into_iter().collect());
        let score = |text: &str| oracle.check(&Record::new("0", "p"), text).unwrap().unwrap().score;
        assert_eq!(score("long words \\boxed{1}\n**Answer**: \\boxed{2}"), 1.0);
        assert_eq!((score("\\boxed{2}"), score("**Answer**: \\boxed{-1}")), (0.0, 0.0));
        assert_eq!(oracle.check(&Record::new("1", "p"), "x").unwrap(), None);
        assert_eq!(
            (verdict("\\boxed{1} no: \\boxed{-1}"), verdict("\\boxed{2}"), verdict("1")),
            (Some(false), None, None)
        );
    }

    #[test]
    fn claim_selection_leaves_right_verdicts() {
        bench::assert_holds(selection_leaves_right, 5);
        assert!(kept_verdicts(1).unwrap().iter().all(|(_, kept, truth)| kept == truth));
    }

    #[test]
    fn claim_first_critiques_are_corrected() {
        bench::assert_holds(corrected_share, 5);
    }

    #[test]
    fn claim_roll_outs_raise_precision() {
        bench::assert_holds(roll_outs_raise_precision, 5);
    }
}
