//! DeepCritic.

mod claims;
mod data;

use std::collections::HashMap;

use hone_feedback::convert::Shape;
use hone_feedback::{Form, Message, Prompt, Record};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use super::process::known;
use super::{Subject, first_error};
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
use data::templates;

pub use data::{Solution, Target, balance, deliberate, monte_carlo_label};

method! {
    /// Teach a critic to look at every step twice, then reward it for naming the first wrong one.
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
    /// roll-outs make Monte Carlo labels more often right (`claim_roll_outs_raise_precision`).
    ///
    /// With the built-in model as critic and solver of sums, means and 95 % intervals over five seeds: refinement where the
    /// critic reports an error mends 0.50 ± 0.10 more of the wrong sums than it spoils of the right ones
    /// (`claim_mends_more_than_it_spoils`). Not certain: its critique mends more than the bare verdict or a critique of another
    /// sum, +0.04 ± 0.05 (`claim_critiques_mend_more`); the majority of eight critiques finds more first wrong steps than one,
    /// F1 +0.03 ± 0.04 (`claim_votes_beat_one`): most errors that it misses it misses in most samples.
    ///
    /// Not measured: two looks above one, reinforcement above imitation, balance. On a bench of short sums of five numbers, made
    /// in two shapes, a critic of two layers of 32 units did not learn to quote the step it was to check, and F1 stayed between
    /// 0.2 and 0.5 whatever it was taught.
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
                effect: claims::selection_leaves_right,
            },
            Claim {
                name: "claim_first_critiques_are_corrected",
                says: "The kept data holds corrections in both directions.",
                metric: "share of kept steps whose first verdict was wrong, the smaller of right and of wrong steps",
                baseline: "none: selecting by the first critique keeps no such step",
                effect: claims::corrected_share,
            },
            Claim {
                name: "claim_roll_outs_raise_precision",
                says: "Monte Carlo labels from 16 roll-outs per prefix are more often those planted than from 2.",
                metric: "share of labels kept that are the planted ones, 16 roll-outs",
                baseline: "the same solutions with 2 roll-outs",
                effect: claims::roll_outs_raise_precision,
            },
            Claim {
                name: "claim_votes_beat_one",
                says: "The majority of eight critiques is better than one.",
                metric: "F1 of first wrong steps on sums, critiques of the built-in model",
                baseline: "the first of the eight",
                effect: claims::votes_beat_one,
            },
            Claim {
                name: "claim_critiques_mend_more",
                says: "Wrong answers that the critic refuses are mended more often with its critique than with a verdict or a critique of something else.",
                metric: "share of the built-in model's wrong sums that it mends with its own critique",
                baseline: "the larger share of: the word wrong alone, the critique of another sum",
                effect: claims::critiques_mend_more,
            },
            Claim {
                name: "claim_mends_more_than_it_spoils",
                says: "Refinement by the critic's verdict mends more than it spoils.",
                metric: "share of wrong sums mended",
                baseline: "share of right sums spoilt",
                effect: claims::mends_more_than_it_spoils,
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
    let asked = questions(&solutions, &own, policy.template.is_some())?;
    let nothing = toml::Table::new();
    let stage = Stage { settings: &nothing, seed, session: &session };
    if own.imitate {
        let teacher = match own.teacher.as_str() {
            "" => policy.speaker()?,
            folder => Policy::from_folder(folder.as_ref())?.speaker()?,
        };
        let targets = deliberate(&teacher, &solutions, &own, sub_seed(seed, "teacher"))?;
        let targets = balance(targets, &solutions, own.keep_error_free, seed);
        policy = taught(policy, &targets, &asked, &own, &stage)?;
    }
    if own.reinforce {
        policy = reinforced(policy, &solutions, &asked, &own, &stage)?;
    }
    Ok(Product::Policy(policy))
}

/// What the critic is asked about each solution; records count as the solutions do.
fn questions(solutions: &[Solution], own: &DeepCritic, chats: bool) -> Result<Vec<Record>> {
    let asked = solutions.iter().enumerate().map(|(at, solution)| {
        let text = prompt_of(solution, own)?;
        let prompt =
            if chats { Prompt::Messages(vec![Message::new("user", text)]) } else { Prompt::Text(text) };
        Ok(Record::new(at.to_string(), prompt))
    });
    asked.collect()
}

/// The first stage: imitation of these critiques.
fn taught(
    policy: Policy,
    targets: &[Target],
    asked: &[Record],
    own: &DeepCritic,
    stage: &Stage<'_>,
) -> Result<Policy> {
    let demonstrate = |target: &Target| {
        let edit = Form::Edit { on: "a".into(), content: target.text.as_str().into() };
        asked[target.solution].clone().respond("a", "").say(edit)
    };
    let records: Vec<Record> = targets.iter().map(demonstrate).collect();
    let longest = own.training.tokens_for(&policy.model);
    let examples = Examples::from_records(&policy, &records, Shape::Demonstrations, longest)?;
    Error::expect_examples("deep-critic", "a critique that agrees with its labels", &examples, &records)?;
    let job = stage.job("imitate", policy, &records, None);
    sft::imitate("deep-critic", job, &examples, &own.training)?.policy()
}

/// The second stage: GRPO on whether the final number is the label.
fn reinforced(
    policy: Policy,
    solutions: &[Solution],
    asked: &[Record],
    own: &DeepCritic,
    stage: &Stage<'_>,
) -> Result<Policy> {
    let labels = solutions.iter().enumerate().map(|(at, solution)| (at.to_string(), solution.final_number()));
    let oracle = FinalNumber(labels.collect());
    let max_tokens = own.rl.training.tokens_for(&policy.model);
    let sampling = Sampling { group: own.rl.group_size, draw: &own.rl.draw, max_tokens };
    let reuse = Reuse { epochs: own.rl.epochs_per_batch, minibatches: own.rl.minibatches };
    let job = stage.job("reinforce", policy, asked, Some(&oracle));
    learn("deep-critic", job, sampling, &own.rl.training, reuse, &own.rl)
}

#[cfg(test)]
mod tests {
    use super::data::verdict;
    use super::*;
    use crate::bench;

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
        bench::assert_holds(claims::selection_leaves_right, 5);
        assert!(claims::kept_verdicts(1).unwrap().iter().all(|(_, kept, truth)| kept == truth));
    }

    #[test]
    fn claim_first_critiques_are_corrected() {
        bench::assert_holds(claims::corrected_share, 5);
    }

    #[test]
    fn claim_roll_outs_raise_precision() {
        bench::assert_holds(claims::roll_outs_raise_precision, 5);
    }

    #[test]
    fn claim_votes_beat_one() {
        bench::assert_measured(claims::votes_beat_one, -0.06..0.12);
    }

    #[test]
    fn claim_critiques_mend_more() {
        bench::assert_measured(claims::critiques_mend_more, -0.04..0.12);
    }

    #[test]
    fn claim_mends_more_than_it_spoils() {
        bench::assert_holds(claims::mends_more_than_it_spoils, 5);
    }
}
