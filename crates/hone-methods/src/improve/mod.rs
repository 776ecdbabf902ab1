//! The main job: a feedback log in, a better model and the proof out.
//!
//! [`Run::prepare`] reads, checks and splits the log and makes the plan; [`Run::go`] carries it out. Each step of the plan
//! is one method of the catalogue. A step that changes the policy is kept only if it does not make it worse on prompts
//! set apart for that; the result is measured once, on prompts that nothing before has seen.

mod dry;
pub mod measure;
pub mod plan;
pub mod read;
pub mod recipe;
mod rivals;
mod tell;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hone_feedback::Record;
use hone_nn::LoraConfig;
use hone_nn::config::DType;
use hone_nn::folder::SaveOptions;
use hone_nn::params::Projection;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalogue::find;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Job, Needs, Product};
use crate::oracle::{Checks, Oracle};
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::report::{Measure, Outcome, Report};
use crate::train::{Inspect, Session};
use measure::{Extent, Probe, Readings};
use plan::{Plan, Stage, Terms};
use read::{Log, Reading};
use rivals::Against;

/// Share of the budget that one measurement may take.
const MEASURING_SHARE: f64 = 0.12;

/// Answers to each prompt whose answers can be checked.
const ANSWERS: usize = 4;

/// Validation prompts that are answered at most.
const VALIDATION_PROMPTS: usize = 60;

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
    resume: bool,
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    kept: bool,
    ended: String,
    seconds: f64,
    measures: Vec<Measure>,
    losses: Vec<(String, u64)>,
    /// What it gained over its start on validation prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gain: Option<f64>,
    /// What a rival had to beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    against: Option<Against>,
}

/// Where a plain step began, and the best of it and its rivals so far.
struct Race {
    start: Policy,
    /// What the start makes of the validation prompts, once it is known.
    readings: Option<Readings>,
    best: Against,
}

impl Race {
    /// Where a step begins: in a race where the plain step began, else at the newest policy.
    fn start_of<'a>(race: Option<&'a Race>, newest: &'a Policy) -> &'a Policy {
        race.map_or(newest, |race| &race.start)
    }

    /// A step has ended: the plain one sets the mark, a rival that is kept raises it.
    fn note(&mut self, stage: &Stage, done: &Done) {
        if stage.rival_of.is_none() || done.kept {
            self.best = Against { method: stage.method.clone(), gain: done.gain };
        }
    }
}

impl Done {
    /// Notes what was left out of examples.
    fn lose(&mut self, examples: &Examples) {
        self.losses.extend(examples.losses.iter().map(|(reason, count)| (reason.to_string(), count)));
        if examples.cut > 0 {
            self.losses.push(("prompts cut at their start to fit".into(), examples.cut as u64));
        }
    }
}

impl Run {
    /// Reads, checks and splits the log, reads the model, makes the plan; with `resume`, takes the plan of the run that is
    /// in `out`. Writes nothing.
    ///
    /// # Errors
    /// Those of [`Log::read`], [`Policy::from_folder`] and [`Plan::make`]. On resuming, [`Error::File`] if there is no
    /// run, or one with other settings or another log.
    pub fn prepare(
        settings: Settings,
        out: &Path,
        resume: bool,
        command: String,
        listener: Listener,
    ) -> Result<Run> {
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
        let plan = match resume {
            // A run that goes on keeps its plan: the speed of the machine may have changed.
            true => saved_plan(&settings, &log, out)?,
            false => Plan::make(&log, &policy, &terms)?,
        };
        Ok(Run { settings, out: out.to_path_buf(), resume, command, log, policy, plan, started, listener })
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
    /// Those of writing, of the engine and of measuring; [`Error::File`] if the folder holds a run that this one does not
    /// go on with. A step that fails for what the log lacks, or for a loss that is not finite, ends that step only.
    pub fn go(self) -> Result<Improved> {
        let resume = self.resume;
        self.open_folder()?;
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
        let mut race: Option<Race> = None;
        let mut ended: Vec<Done> = vec![];
        for (index, stage) in self.plan.stages.iter().enumerate() {
            if stage.rival_of.is_none() {
                let contested = self.plan.stages.get(index + 1).is_some_and(|next| next.rival_of.is_some());
                race = match contested {
                    true => Some(Race {
                        start: policy.copy()?,
                        readings: None,
                        best: Against { method: stage.method.clone(), gain: None },
                    }),
                    false => None,
                };
            }
            let rival = stage.rival_of.is_some();
            let folder = self.stage_folder(index, stage);
            let done_path = folder.join("done.json");
            if resume && done_path.exists() {
                let done: Done = read_json(&done_path)?;
                if done.kept && stage.policy {
                    policy = self.reload(&folder.join("model"))?;
                    before = None;
                }
                if let Some(race) = &mut race {
                    race.note(stage, &done);
                }
                ended.push(done);
                continue;
            }
            let began = Instant::now();
            self.say(&format!("step {} of {}: {}", index + 1, self.plan.stages.len(), stage.method));
            let mut done = Done { kept: true, ..Done::default() };
            let from = Race::start_of(race.as_ref().filter(|_| rival), &policy);
            let product = match self.train(index, stage, from, oracle, &mut done) {
                Ok(product) => product,
                // What the log lacks for one step, or a loss that ran away, is no reason to lose the others.
                Err(error @ (Error::Data { .. } | Error::Engine(hone_nn::Error::NotFinite { .. }))) => {
                    done.kept = false;
                    done.ended = format!("failed: {error}");
                    self.note(&format!("{}: {}", stage.method, done.ended));
                    write_json(&done_path, &done)?;
                    ended.push(done);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match product {
                Product::Policy(next) => {
                    let known = match race.as_mut().filter(|_| rival) {
                        Some(race) => race.readings.take(),
                        None => before.take(),
                    };
                    let from = Race::start_of(race.as_ref().filter(|_| rival), &policy);
                    let old = known.map_or_else(|| validation.read(from, oracle), Ok)?;
                    let new = validation.read(&next, oracle)?;
                    // A rival is measured by what decides about the step that it stands against.
                    let shape = match find(stage.rival_of.as_ref().unwrap_or(&stage.method))?.needs {
                        Needs::Shape(shape) => Some(shape),
                        _ => None,
                    };
                    let gain = validation.gain(&old, &new, shape);
                    done.gain = gain;
                    if let Some(race) = &mut race {
                        race.readings = Some(old.clone());
                    }
                    match race.as_ref().filter(|_| rival) {
                        Some(race) => {
                            done.kept = rivals::wins(gain, &race.best);
                            done.ended = rivals::ended(gain, &race.best);
                            done.against = Some(race.best.clone());
                        }
                        None => {
                            done.kept = self.settings.keep || gain.is_none_or(|gain| gain >= 0.0);
                            done.ended = match (gain, done.kept) {
                                (None, _) => "kept; nothing to decide by".into(),
                                (Some(gain), true) => format!("kept: {gain:+.4} on validation prompts"),
                                (Some(gain), false) => {
                                    format!("rolled back: {gain:+.4} on validation prompts")
                                }
                            };
                        }
                    }
                    if done.kept {
                        save(&next, &folder.join("model"), DType::F32)?;
                        policy = next;
                        before = Some(new);
                    } else if !rival {
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
                }
                Product::Answers(answers) => {
                    let records = self.records(index, stage)?;
                    done.measures =
                        measure::of_answers(&stage.method, &answers, &records, oracle, self.settings.seed)?;
                    done.ended = format!("{} prompts answered", answers.len());
                    tell::answers(&folder, &answers, &records)?;
                }
                Product::Measures(measures) => {
                    done.measures = measures.as_measures();
                    done.ended = format!("{} figures", measures.figures.len());
                    write_json(&folder.join("figures.json"), &measures)?;
                }
            }
            if let Some(race) = &mut race {
                race.note(stage, &done);
            }
            // Fewer steps than planned may also be what the method makes of its examples.
            let late = self.settings.budget.is_some() && began.elapsed() >= allowed(stage);
            if let Some(steps) = tell::steps_taken(&folder)?.filter(|steps| late && *steps < stage.steps) {
                done.ended =
                    format!("{}; stopped by the budget after {steps} of {} steps", done.ended, stage.steps);
            }
            done.seconds = began.elapsed().as_secs_f64();
            self.note(&format!("{}: {}", stage.method, done.ended));
            write_json(&done_path, &done)?;
            ended.push(done);
        }
        self.say("measuring the result");
        let changed = self.plan.stages.iter().zip(&ended).any(|(stage, done)| stage.policy && done.kept);
        let (result, model) = match changed {
            true => {
                // What is measured is what is written: numbers as they are stored, not as they were trained.
                let folder = self.out.join("model");
                save(&policy, &folder, self.policy.model.config().dtype)?;
                (held_out.read(&self.reload(&folder)?, oracle)?, Some(folder))
            }
            false => (start.clone(), None),
        };
        let outcome = self.outcome(&held_out, &start, &result, &ended);
        let report = tell::report(&self, &outcome, &ended, &held_out, [&start, &result], model.as_deref())?;
        let page = self.out.join("report.html");
        std::fs::write(&page, report.to_html()?).map_err(Error::io(&page))?;
        tell::metrics(&self, &outcome)?;
        Ok(Improved { outcome, report, page, model })
    }

    /// The records of a step: a seeded choice of those that can feed it.
    fn records(&self, index: usize, stage: &Stage) -> Result<Vec<Record>> {
        let method = find(&stage.method)?;
        let fed = self.log.side(method).iter().filter(|record| method.needs.fed_by(record));
        let mut records: Vec<Record> = fed.cloned().collect();
        shuffle(&mut records, &mut rng(self.seed(index, stage), "records"));
        records.truncate(stage.records);
        Ok(records)
    }

    fn seed(&self, index: usize, stage: &Stage) -> u64 {
        sub_seed(self.settings.seed, &format!("{} {index}", stage.method))
    }

    /// One step, in its own folder. What is left out on the way is noted in `done`.
    fn train(
        &self,
        index: usize,
        stage: &Stage,
        policy: &Policy,
        oracle: Option<&dyn Oracle>,
        done: &mut Done,
    ) -> Result<Product> {
        let method = find(&stage.method)?;
        let records = self.records(index, stage)?;
        let (listener, name) = (self.listener.clone(), stage.method.clone());
        let deadline = self.settings.budget.map(|_| Instant::now() + allowed(stage));
        let session = Session {
            folder: Some(self.stage_folder(index, stage)),
            resume: self.resume,
            deadline,
            listener: Some(Arc::new(move |report: &hone_nn::train::StepReport, steps| {
                let method = name.clone();
                listener(&Event::Step { method, step: report.step, steps, loss: report.loss });
            })),
            preview: None,
            inspect: Some(Arc::new(Inspect {
                tokenizer: policy.tokenizer.clone(),
                records: records.iter().map(|record| record.id.clone()).collect(),
            })),
        };
        if let Needs::Shape(shape) = method.needs {
            let limit = plan::training(stage)?.tokens_for(&policy.model);
            let examples = Examples::from_records(policy, &records, shape, limit)?;
            done.lose(&examples);
        }
        let fed = self.log.side(method).iter().filter(|record| method.needs.fed_by(record)).count();
        if fed > records.len() {
            done.losses
                .push(("records that the budget leaves no time for".into(), (fed - records.len()) as u64));
        }
        let seed = self.seed(index, stage);
        let policy = policy.copy()?;
        (method.run)(Job { policy, records: &records, oracle, settings: &stage.settings, seed, session })
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
        let length = self.plan.length.max(1.0);
        // An example is measured in up to four texts (a pair, an answer to imitate, a label).
        let examples = ((tokens / 2.0 / (4.0 * length)) as usize).clamp(30, 400);
        // An answer is no longer than a text.
        let written = plan::WRITE_COST * length.min(measure::ANSWER_TOKENS as f64) * ANSWERS as f64;
        let prompts = ((tokens / 2.0 / (length + written)) as usize)
            .clamp(20, if validation { VALIDATION_PROMPTS } else { 150 });
        Extent {
            examples: if validation { examples / 2 } else { examples },
            prompts,
            answers: ANSWERS,
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

    fn open_folder(&self) -> Result<()> {
        let config = self.out.join(CONFIG);
        if self.resume {
            return Ok(());
        }
        if config.exists() {
            let problem = "a run is here already; go on with --resume, or name another --out".into();
            return Err(Error::File { path: config.display().to_string(), problem });
        }
        std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out))?;
        write_json(&self.out.join(PLAN), &Saved { log: self.log.digest(), plan: self.plan.clone() })?;
        // Last: a folder with settings has a plan.
        write_whole(&config, &settings_text(&self.settings)?)
    }

    fn say(&self, part: &str) {
        (self.listener)(&Event::Part(part.into()));
    }

    fn note(&self, line: &str) {
        (self.listener)(&Event::Note(line.into()));
    }
}

/// Twice the time planned: the plan's speed was measured on few texts.
fn allowed(stage: &Stage) -> Duration {
    Duration::from_secs_f64((stage.seconds * 2.0).max(5.0))
}

const PLAN: &str = "plan.json";
const CONFIG: &str = "config.toml";

/// `plan.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// A hash of the log's records, in hexadecimal: measures of the start belong to this log and no other.
    log: String,
    plan: Plan,
}

fn settings_text(settings: &Settings) -> Result<String> {
    toml::to_string_pretty(settings).map_err(|e| Error::File { path: CONFIG.into(), problem: e.to_string() })
}

/// The plan of the run in `out`, if it is one of these settings on this log.
fn saved_plan(settings: &Settings, log: &Log, out: &Path) -> Result<Plan> {
    let config = out.join(CONFIG);
    let fault = |problem: String| Error::File { path: config.display().to_string(), problem };
    if !config.exists() {
        return Err(fault("no run is here to go on with".into()));
    }
    let there = std::fs::read_to_string(&config).map_err(Error::io(&config))?;
    let text = settings_text(settings)?;
    if there != text {
        return Err(fault(format!("the run here has other settings\n{there}\nthan those given\n{text}")));
    }
    let saved: Saved = read_json(&out.join(PLAN))?;
    match saved.log == log.digest() {
        true => Ok(saved.plan),
        false => Err(fault("the log has changed since the run here began".into())),
    }
}

/// Writes a policy in a number format of its own.
fn save(policy: &Policy, folder: &Path, dtype: DType) -> Result<()> {
    if policy.model.adapter.is_some() {
        return policy.save(folder);
    }
    let options =
        SaveOptions { dtype: Some(dtype), companions: Some(policy.folder.clone()), ..SaveOptions::default() };
    Ok(hone_nn::folder::write(policy.model.config(), &policy.model.params, folder, &options)?)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let fault =
        |e: serde_json::Error| Error::File { path: path.display().to_string(), problem: e.to_string() };
    write_whole(path, &serde_json::to_string_pretty(value).map_err(fault)?)
}

/// Names a file once it is whole: one that is there is to be trusted on resuming.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
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
