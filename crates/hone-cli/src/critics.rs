//! Which critic a command asks, by the same flags everywhere.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hone_lm::{Endpoint, EndpointConfig, LanguageModel, Local, LocalOptions};
use hone_methods::critique::{Critic, Ensemble, Logged, ModelCritic, Reads, Verifier};
use hone_methods::oracle::Checks;
use hone_methods::refine::{Cost, Draw};
use hone_methods::templates::Templates;
use hone_worlds::Detail;

/// Flags of a critic.
#[derive(Debug, clap::Args)]
pub struct Critics {
    /// verifier (the checks that records ask for), log (the people in the log), tiny (the built-in model), a model folder,
    /// or URL#NAME for a model of an endpoint. Given several times, all judge and the majority decides.
    #[arg(long, value_name = "CRITIC", required = true)]
    pub critic: Vec<String>,
    /// How a model is asked: json, world, words or first_error. Without: world for tiny, json for others.
    #[arg(long)]
    pub form: Option<String>,
    /// Folder of prompts NAME.jinja in place of the built-in ones.
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
    /// Critiques per answer, combined by majority.
    #[arg(long, default_value_t = 1)]
    pub votes: usize,
    /// Temperature of critiques; 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub critic_temperature: f64,
    /// Most tokens of a critique.
    #[arg(long, default_value_t = 512)]
    pub critic_tokens: usize,
    /// Do not constrain critiques to their form where a model can be constrained.
    #[arg(long)]
    pub free: bool,
    /// Environment variable that holds the key of the critics' endpoints.
    #[arg(long, value_name = "VARIABLE")]
    pub critic_key_env: Option<String>,
}

/// Everything that critics are made of; they borrow it.
#[derive(Debug)]
pub struct Kit {
    checks: Checks,
    templates: Templates<'static>,
}

/// One critic, opened.
pub enum Opened {
    /// The oracle.
    Verifier,
    /// The log.
    Log,
    /// A model and how it is asked.
    Model(Box<dyn LanguageModel>, Reads),
}

impl Critics {
    /// What all critics share.
    pub fn kit(&self) -> Result<Kit> {
        let templates = hone_methods::critique::critique_templates(self.prompts.as_deref())?;
        Ok(Kit { checks: Checks::default(), templates })
    }

    fn reads(&self, usual: Reads) -> Result<Reads> {
        Ok(match self.form.as_deref() {
            None => usual,
            Some("json") => Reads::Json,
            Some("world") => Reads::World,
            Some("words") => Reads::Words { approvals: vec!["it is correct".into()] },
            Some("first_error") => Reads::FirstError,
            Some(other) => bail!("--form {other}: needs one of json, world, words, first_error"),
        })
    }

    /// Opens every critic.
    pub fn open(&self) -> Result<Vec<Opened>> {
        let one = |name: &String| -> Result<Opened> {
            Ok(match name.as_str() {
                "verifier" => Opened::Verifier,
                "log" => Opened::Log,
                "tiny" => {
                    let folder = hone_methods::tiny::folder()?;
                    Opened::Model(
                        Box::new(Local::from_folder(&folder, &LocalOptions::default())?),
                        self.reads(Reads::World)?,
                    )
                }
                url if url.starts_with("http://") || url.starts_with("https://") => {
                    let (url, name) = url.split_once('#').context("needs URL#NAME")?;
                    let mut config = EndpointConfig::new(url, name);
                    config.api_key_env = self.critic_key_env.clone();
                    Opened::Model(Box::new(Endpoint::connect(config)?), self.reads(Reads::Json)?)
                }
                folder => Opened::Model(
                    Box::new(Local::from_folder(folder, &LocalOptions::default())?),
                    self.reads(Reads::Json)?,
                ),
            })
        };
        self.critic.iter().map(|name| one(name).with_context(|| format!("--critic {name}"))).collect()
    }

    /// The critic of what was opened.
    pub fn critic<'a>(&self, opened: &'a [Opened], kit: &'a Kit) -> Box<dyn Critic + 'a> {
        let draw =
            Draw { temperature: self.critic_temperature, max_tokens: self.critic_tokens, ..Draw::default() };
        let one = |opened: &'a Opened| -> Box<dyn Critic + 'a> {
            match opened {
                Opened::Verifier => Box::new(Verifier { oracle: &kit.checks, detail: Detail::Correction }),
                Opened::Log => Box::new(Logged),
                Opened::Model(model, reads) => Box::new(ModelCritic {
                    model: model.as_ref(),
                    reads: reads.clone(),
                    templates: &kit.templates,
                    draw: draw.clone(),
                    votes: self.votes,
                    constrained: !self.free,
                }),
            }
        };
        match opened {
            [only] => one(only),
            all => Box::new(Ensemble { critics: all.iter().map(one).collect() }),
        }
    }

    /// What a critique costs at most.
    pub fn most(&self, opened: &[Opened]) -> Cost {
        let models = opened.iter().filter(|one| matches!(one, Opened::Model(..))).count();
        let calls = (models * self.votes) as u64;
        Cost { calls, tokens: calls * self.critic_tokens as u64 }
    }
}

/// The records of a log.
pub fn records(path: &std::path::Path, most: usize) -> Result<Vec<hone_feedback::Record>> {
    let reader = hone_feedback::formats::open(path, &Default::default())?;
    let most = if most == 0 { usize::MAX } else { most };
    let records = reader.take(most).map(|row| Ok(row?.record)).collect::<Result<Vec<_>>>()?;
    match records.is_empty() {
        true => bail!("{}: needs at least one record, got none", path.display()),
        false => Ok(records),
    }
}

/// Tells how far a run is: once per part in a hundred, since a line for each item would drown the rest.
pub fn progress(name: &str) -> impl FnMut(usize, usize) {
    let mut last = None;
    move |done, all| {
        let part = 100 * done / all.max(1);
        if last != Some(part) || done == all {
            last = Some(part);
            eprintln!("{name}: {done} of {all}");
        }
    }
}
