//! The main job: a feedback log in, a better model and the proof out.
//!
//! [`Run::prepare`] reads, checks and splits the log and makes the plan; [`Run::go`] carries it out. Each step of the plan
//! is one method of the catalogue. A step that changes the policy is kept only if it does not make it worse on prompts
//! set apart for that; the result is measured once, on prompts that nothing before has seen.

pub mod measure;
pub mod plan;
pub mod read;
pub mod recipe;
mod tell;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_nn::LoraConfig;
use hone_nn::params::Projection;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalogue::find;
use crate::error::{Error, Result};
use crate::method::{Family, Job, Needs, Product};
use crate::oracle::{Checks, Oracle};
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::report::{Measure, Outcome, Report};
use crate::reward::RewardModel;
use crate::train::Session;
use measure::{Extent, Probe, Readings};
use plan::{Plan, Stage, Terms};
use read::{Log, Reading};

/// Share of the budget that one measurement may take.
const MEASURING_SHARE: f64 = 0.1;

/// Seconds that stand for the budget of a run without one, where something has to be sized by it.
const UNLIMITED: f64 = 600.0;

/// What a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The log, in one file or several.
    pub logs: Vec<PathBuf>,
    /// Format of the log, where content does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Folder of the model to start from.
    pub model: PathBuf,
    /// Methods by name; empty to let the forms decide.
    pub methods: Vec<String>,
    /// `method.key=value` for the settings of methods.
    pub set: Vec<String>,
    /// Wall time of the whole run, seconds; no limit if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Share of prompts that is held out, in (0, 1).
    pub held_out: f64,
    /// Governs everything that is drawn.
    pub seed: u64,
    /// Train a LoRA adapter of this rank instead of all weights; 0 for all weights.
    pub lora: usize,
    /// Keep every step, whatever it does on validation prompts.
    pub keep: bool,
    /// Recipes that stand in for the shipped ones of their methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipes: Vec<Recipe>,
}

/// What happens, for whoever shows progress.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A new part of the run begins.
    Part(String),
    /// A training step was taken.
    Step {
        /// Id of the method.
        method: String,
        /// Steps taken.
        step: u64,
        /// Steps of this part.
        steps: u64,
        /// The loss.
        loss: f64,
    },
    /// Something worth a line.
    Note(String),
}

/// Hears what happens.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// A prepared run.
pub struct Run {
    settings: Settings,
    out: PathBuf,
    command: String,
    log: Log,
    policy: Policy,
    /// What will be done.
    pub plan: Plan,
    started: Instant,
    listener: Listener,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("settings", &self.settings)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Improved {
    /// The table and its sentence.
    pub outcome: Outcome,
    /// The whole report.
    pub report: Report,
    /// Where the page was written.
    pub page: PathBuf,
    /// Where the resulting model was written; `None` if the plan changed no policy or no step was kept.
    pub model: Option<PathBuf>,
}

/// How a step ended, as kept in its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    kept: bool,
    ended: String,
    seconds: f64,
    measures: Vec<Measure>,
    losses: Vec<(String, u64)>,
}

impl Run {
    /// Reads, checks and splits the log, reads the model, makes the plan. Writes nothing.
    ///
    /// # Errors
    /// Those of [`Log::read`], [`Policy::from_folder`] and [`Plan::make`].
    pub fn prepare(settings: Settings, out: &Path, command: String, listener: Listener) -> Result<Run> {
        let started = Instant::now();
        if !(settings.held_out > 0.0 && settings.held_out < 1.0) {
            return Err(Error::range("improve", "held_out", "a share between 0 and 1", settings.held_out));
        }
        if let Some(budget) = settings.budget.filter(|budget| !(*budget > 0.0 && budget.is_finite())) {
            return Err(Error::range("improve", "budget", "a time above 0", budget));
        }
        listener(&Event::Part("reading the model".into()));
        let mut policy = Policy::from_folder(&settings.model)?;
        if settings.lora > 0 {
            // Every projection, not two of them: at these ranks it costs little and learns far more (arXiv:2305.14314).
            let config = LoraConfig {
                rank: settings.lora,
                alpha: 2.0 * settings.lora as f32,
                targets: Projection::ALL.to_vec(),
                ..LoraConfig::default()
            };
            policy = policy.with_lora(config, sub_seed(settings.seed, "adapter"))?;
        }
        listener(&Event::Part("reading and checking the log".into()));
        let reading = Reading {
            files: &settings.logs,
            from: settings.from.as_deref(),
            held_out: settings.held_out,
            seed: settings.seed,
        };
        let log = Log::read(&reading, &policy.tokenizer)?;
        listener(&Event::Part("planning".into()));
        let terms = Terms {
            methods: &settings.methods,
            set: &settings.set,
            budget: settings.budget.map(Duration::from_secs_f64),
            recipes: &settings.recipes,
        };
        let saved = out.join(PLAN);
        // A run that goes on keeps its plan: the speed of the machine may have changed.
        let plan = match saved.exists() {
            true => read_json(&saved)?,
            false => Plan::make(&log, &policy, &terms)?,
        };
        Ok(Run { settings, out: out.to_path_buf(), command, log, policy, plan, started, listener })
    }

    /// The log that was read.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The plan in words.
    pub fn plan_text(&self) -> String {
        tell::plan(self)
    }

    /// Carries the plan out and writes the run folder: `config.toml`, `plan.json`, `metrics.jsonl`, `report.html`, a folder
    /// a step, `model/` where the policy changed, and `reward-models/`.
    ///
    /// # Errors
    /// Those of the methods and of writing; [`Error::File`] if the folder holds another run and `resume` is off.
    pub fn go(self, resume: bool) -> Result<Improved> {
        self.open_folder(resume)?;
        let oracle = Checks::default();
        let oracle: Option<&dyn Oracle> = self.log.train.iter().any(Checks::knows).then_some(&oracle as _);
        let held_out = Probe::new(&self.policy, &self.log.held_out, self.extent("held out", false))?;
        let validation = Probe::new(&self.policy, &self.log.validation, self.extent("validation", true))?;
        let start_path = self.out.join("start.json");
        let start: Readings = match resume && start_path.exists() {
            true => read_json(&start_path)?,
            false => {
                self.say("measuring the start");
                let readings = held_out.read(&self.policy, oracle)?;
                write_json(&start_path, &readings)?;
                readings
            }
        };
        let mut policy = self.policy.copy()?;
        let mut before: Option<Readings> = None;
        let mut ended: Vec<Done> = vec![];
        let mut judges: Vec<(String, RewardModel)> = vec![];
        for (index, stage) in self.plan.stages.iter().enumerate() {
            let folder = self.stage_folder(index, stage);
            let done_path = folder.join("done.json");
            if resume && done_path.exists() {
                let done: Done = read_json(&done_path)?;
                if done.kept && stage.policy {
                    policy = self.reload(&folder.join("model"))?;
                    before = None;
                }
                ended.push(done);
                continue;
            }
            let began = Instant::now();
            self.say(&format!("step {} of {}: {}", index + 1, self.plan.stages.len(), stage.method));
            let (product, losses) = self.train(index, stage, &policy, oracle, resume)?;
            let mut done = Done { kept: true, ended: String::new(), seconds: 0.0, measures: vec![], losses };
            match product {
                Product::Policy(next) => {
                    let old = match before.take() {
                        Some(readings) => readings,
                        None => validation.read(&policy, oracle)?,
                    };
                    let new = validation.read(&next, oracle)?;
                    let shape = match find(&stage.method)?.needs {
                        Needs::Shape(shape) => Some(shape),
                        _ => None,
                    };
                    let gain =
                        validation.decider(&old, &new, shape).map(|[old, new]| mean(&new) - mean(&old));
                    done.kept = self.settings.keep || gain.is_none_or(|gain| gain >= 0.0);
                    done.ended = match (gain, done.kept) {
                        (None, _) => "kept; nothing to decide by".into(),
                        (Some(gain), true) => format!("kept: {gain:+.4} on validation prompts"),
                        (Some(gain), false) => format!("rolled back: {gain:+.4} on validation prompts"),
                    };
                    if done.kept {
                        next.save(&folder.join("model"))?;
                        policy = next;
                        before = Some(new);
                    } else {
                        before = Some(old);
                    }
                }
                Product::Reward(model) => {
                    let extent = self.extent("held out", false);
                    done.measures =
                        measure::of_reward(&stage.method, &model, &self.policy, &self.log.held_out, extent)?;
                    let place = self.out.join("reward-models").join(&stage.method);
                    std::fs::create_dir_all(self.out.join("reward-models")).map_err(Error::io(&place))?;
                    model.policy.save(&place)?;
                    done.ended = format!("written to {}", place.display());
                    judges.push((stage.method.clone(), model));
                }
                Product::Answers(answers) => {
                    let records = &self.log.held_out;
                    done.measures =
                        measure::of_answers(&stage.method, &answers, records, oracle, self.settings.seed)?;
                    done.ended = format!("{} prompts answered", answers.len());
                    tell::answers(&folder, &answers, records)?;
                }
            }
            done.seconds = began.elapsed().as_secs_f64();
            self.note(&format!("{}: {}", stage.method, done.ended));
            write_json(&done_path, &done)?;
            ended.push(done);
        }
        self.say("measuring the result");
        let changed = self.plan.stages.iter().zip(&ended).any(|(stage, done)| stage.policy && done.kept);
        let result = if changed { held_out.read(&policy, oracle)? } else { start.clone() };
        let outcome = self.outcome(&held_out, &start, &result, &ended);
        let model = match changed {
            true => {
                let folder = self.out.join("model");
                policy.save(&folder)?;
                Some(folder)
            }
            false => None,
        };
        let report = tell::report(&self, &outcome, &ended, &held_out, [&start, &result], model.as_deref())?;
        let page = self.out.join("report.html");
        std::fs::write(&page, report.to_html()?).map_err(Error::io(&page))?;
        tell::metrics(&self, &outcome)?;
        Ok(Improved { outcome, report, page, model })
    }

    /// One step: its records, its own folder, its seed.
    fn train(
        &self,
        index: usize,
        stage: &Stage,
        policy: &Policy,
        oracle: Option<&dyn Oracle>,
        resume: bool,
    ) -> Result<(Product, Vec<(String, u64)>)> {
        let method = find(&stage.method)?;
        let seed = sub_seed(self.settings.seed, &format!("{} {index}", stage.method));
        let fits = |record: &&Record| match method.needs {
            Needs::Shape(shape) => shape.count(record) > 0,
            Needs::Checks => Checks::knows(record),
            Needs::Prompts => true,
        };
        let records: Vec<Record> = match method.family {
            // Nothing is trained: the held-out prompts themselves are answered.
            Family::Refine => self.log.held_out.clone(),
            _ => {
                let mut records: Vec<Record> = self.log.train.iter().filter(fits).cloned().collect();
                shuffle(&mut records, &mut rng(seed, "records"));
                records.truncate(stage.records);
                records
            }
        };
        let (listener, name) = (self.listener.clone(), stage.method.clone());
        // Twice the time planned: the plan's speed was measured on few texts.
        let allowed = Duration::from_secs_f64((stage.seconds * 2.0).max(5.0));
        let deadline = self.settings.budget.map(|_| Instant::now() + allowed);
        let session = Session {
            folder: Some(self.stage_folder(index, stage)),
            resume,
            deadline,
            listener: Some(Arc::new(move |report: &hone_nn::train::StepReport, steps| {
                let method = name.clone();
                listener(&Event::Step { method, step: report.step, steps, loss: report.loss });
            })),
        };
        let mut losses = vec![];
        if let Needs::Shape(shape) = method.needs {
            let limit = policy.model.config().max_positions;
            let examples = crate::data::Examples::from_records(policy, &records, shape, limit)?;
            losses.extend(examples.losses.iter().map(|(reason, count)| (reason.to_string(), count)));
            if examples.cut > 0 {
                losses.push(("prompts cut at their start to fit".into(), examples.cut as u64));
            }
        }
        let job = Job {
            policy: policy.copy()?,
            records: &records,
            oracle,
            settings: &stage.settings,
            seed,
            session,
        };
        Ok(((method.run)(job)?, losses))
    }

    fn outcome(&self, probe: &Probe<'_>, start: &Readings, result: &Readings, ended: &[Done]) -> Outcome {
        let mut outcome = Outcome::default();
        let trains = self.plan.stages.iter().any(|stage| stage.policy);
        if trains {
            for measure in probe.measures(start, result) {
                outcome = outcome.with(measure);
            }
        }
        for mut measure in ended.iter().flat_map(|done| done.measures.clone()) {
            if trains {
                // A good judge beside a policy is no better policy.
                measure.better = crate::report::Better::Neither;
            }
            outcome = outcome.with(measure);
        }
        outcome
    }

    fn extent(&self, purpose: &str, validation: bool) -> Extent {
        let tokens = self.settings.budget.unwrap_or(UNLIMITED) * MEASURING_SHARE * self.plan.speed;
        // Examples and answers are taken to be some hundred tokens long, and writing to cost four times as much.
        let examples = ((tokens / 2.0 / 300.0) as usize).clamp(40, 400);
        let prompts = ((tokens / 2.0 / 1200.0) as usize).clamp(20, if validation { 60 } else { 150 });
        Extent {
            examples: if validation { examples / 2 } else { examples },
            prompts,
            answers: 4,
            max_tokens: self.policy.model.config().max_positions,
            seed: sub_seed(self.settings.seed, purpose),
        }
    }

    fn stage_folder(&self, index: usize, stage: &Stage) -> PathBuf {
        self.out.join(format!("step-{}-{}", index + 1, stage.method))
    }

    fn reload(&self, folder: &Path) -> Result<Policy> {
        if self.settings.lora == 0 {
            return Policy::from_folder(folder);
        }
        let mut policy = self.policy.copy()?;
        policy.model.attach(hone_nn::folder::read_adapter(folder, self.policy.model.config())?);
        Ok(policy)
    }

    fn open_folder(&self, resume: bool) -> Result<()> {
        let config = self.out.join("config.toml");
        let path = config.display().to_string();
        let fault = |problem: String| Error::File { path: path.clone(), problem };
        let text = toml::to_string_pretty(&self.settings).map_err(|e| fault(e.to_string()))?;
        match (config.exists(), resume) {
            (true, false) => {
                return Err(fault("a run is here already; go on with --resume, or name another --out".into()));
            }
            (false, true) => return Err(fault("no run is here to go on with".into())),
            (true, true) => {
                let there = std::fs::read_to_string(&config).map_err(Error::io(&config))?;
                if there != text {
                    return Err(fault(format!(
                        "the run here has other settings\n{there}\nthan those given\n{text}"
                    )));
                }
            }
            (false, false) => {
                std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out))?;
                write_json(&self.out.join(PLAN), &self.plan)?;
                std::fs::write(&config, text).map_err(Error::io(&config))?;
            }
        }
        Ok(())
    }

    fn say(&self, part: &str) {
        (self.listener)(&Event::Part(part.into()));
    }

    fn note(&self, line: &str) {
        (self.listener)(&Event::Note(line.into()));
    }
}

const PLAN: &str = "plan.json";

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let fault =
        |e: serde_json::Error| Error::File { path: path.display().to_string(), problem: e.to_string() };
    let text = serde_json::to_string_pretty(value).map_err(fault)?;
    // Named once whole: a file that is there is to be trusted on resuming.
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).map_err(Error::io(&partial))?;
    std::fs::rename(&partial, path).map_err(Error::io(path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::File { path: path.display().to_string(), problem: e.to_string() })
}

#[cfg(test)]
mod tests;
