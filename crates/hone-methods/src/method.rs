//! What a method is: an id, a comment, settings, claims, and a function that runs it.

use hone_feedback::Record;
use hone_feedback::convert::Shape;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalogue::nearest;
use crate::error::{Error, Result};
use crate::evaluate::Measures;
use crate::oracle::{Checks, Oracle};
use crate::policy::Policy;
use crate::refine::Answered;
use crate::reward::RewardModel;
use crate::train::Session;

/// What a method does with feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Fine-tunes on it.
    Imitate,
    /// Ranks and pairs.
    Preference,
    /// Optimises a reward.
    Reinforce,
    /// Uses it at inference.
    Refine,
    /// Writes it.
    Critique,
    /// Improves prompts and other texts with it.
    Search,
    /// Edits weights or activations.
    Steer,
    /// Gets it from people, simulators or logs.
    Interact,
    /// Measures it, and what comes of it.
    Evaluate,
}

impl Family {
    /// Its folder under `src`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Imitate => "imitate",
            Family::Preference => "preference",
            Family::Reinforce => "reinforce",
            Family::Refine => "refine",
            Family::Critique => "critique",
            Family::Search => "search",
            Family::Steer => "steer",
            Family::Interact => "interact",
            Family::Evaluate => "evaluate",
        }
    }
}

/// What a method needs of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Feedback of this shape.
    Shape(Shape),
    /// Prompts whose answers can be checked: an oracle, tests, or a reward model.
    Checks,
    /// Rules that later answers must keep.
    Rules,
    /// Prompts alone.
    Prompts,
}

impl Needs {
    /// In words, for errors and plans.
    pub fn name(self) -> &'static str {
        match self {
            Needs::Shape(shape) => shape.name(),
            Needs::Checks => "prompts whose answers can be checked",
            Needs::Rules => "rules",
            Needs::Prompts => "prompts",
        }
    }
}

impl Needs {
    /// Whether a record can feed a method with this need.
    pub fn fed_by(self, record: &Record) -> bool {
        match self {
            Needs::Shape(shape) => shape.count(record) > 0,
            Needs::Checks => Checks::knows(record),
            // Prompts without a rule are needed as well: they are where it does not apply.
            Needs::Rules => true,
            Needs::Prompts => true,
        }
    }
}

/// What a method makes of what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// A changed policy.
    Policy,
    /// A model that scores responses.
    Reward,
    /// Answers to prompts; nothing is trained.
    Answers,
    /// Figures about a model; nothing is trained.
    Measures,
}

/// All that a method is given.
#[derive(Debug)]
pub struct Job<'a> {
    /// The policy at its start; also the reference, where a method has one.
    pub policy: Policy,
    /// The records to learn from, or whose prompts are to be answered.
    pub records: &'a [Record],
    /// What can check an answer, if anything can.
    pub oracle: Option<&'a dyn Oracle>,
    /// The recipe's `[settings]`.
    pub settings: &'a toml::Table,
    /// Governs all that is drawn.
    pub seed: u64,
    /// Where it writes, when it must end.
    pub session: Session,
}

/// What a method makes.
#[derive(Debug)]
pub enum Product {
    /// A changed policy.
    Policy(Policy),
    /// A model that scores responses.
    Reward(RewardModel),
    /// Answers to the prompts, with what they cost.
    Answers(Vec<Answered>),
    /// Named figures with their intervals.
    Measures(Measures),
}

impl Product {
    /// The policy.
    ///
    /// # Errors
    /// [`Error::Product`] for anything else.
    pub fn policy(self) -> Result<Policy> {
        match self {
            Product::Policy(policy) => Ok(policy),
            other => Err(Error::Product { needed: "a policy", got: other.name() }),
        }
    }

    /// The reward model.
    ///
    /// # Errors
    /// [`Error::Product`] for anything else.
    pub fn reward(self) -> Result<RewardModel> {
        match self {
            Product::Reward(reward) => Ok(reward),
            other => Err(Error::Product { needed: "a reward model", got: other.name() }),
        }
    }

    /// The answers.
    ///
    /// # Errors
    /// [`Error::Product`] for anything else.
    pub fn answers(self) -> Result<Vec<Answered>> {
        match self {
            Product::Answers(answers) => Ok(answers),
            other => Err(Error::Product { needed: "answers", got: other.name() }),
        }
    }

    /// The figures.
    ///
    /// # Errors
    /// [`Error::Product`] for anything else.
    pub fn measures(self) -> Result<Measures> {
        match self {
            Product::Measures(measures) => Ok(measures),
            other => Err(Error::Product { needed: "figures", got: other.name() }),
        }
    }

    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match self {
            Product::Policy(_) => "a policy",
            Product::Reward(_) => "a reward model",
            Product::Answers(_) => "answers",
            Product::Measures(_) => "figures",
        }
    }
}

/// Something a paper says that can be seen at small scale: one thing varied against a baseline.
#[derive(Debug)]
pub struct Claim {
    /// Name of its test.
    pub name: &'static str,
    /// What is said, in one sentence.
    pub says: &'static str,
    /// What is measured; larger is better.
    pub metric: &'static str,
    /// What it is measured against.
    pub baseline: &'static str,
    /// The method's figure less the baseline's, for one seed.
    pub effect: fn(u64) -> Result<f64>,
}

/// One published method.
#[derive(Debug)]
pub struct Method {
    /// How it is named in recipes and commands.
    pub id: &'static str,
    /// The authors' name.
    pub name: &'static str,
    /// What it does with feedback.
    pub family: Family,
    /// Its comment, in Markdown: the one text that docs, command and server print.
    pub doc: &'static str,
    /// What it takes.
    pub needs: Needs,
    /// What it makes: the variant of [`Product`] that its run returns.
    pub makes: Makes,
    /// What is said about it.
    pub claims: &'static [Claim],
    /// Its settings with their defaults.
    pub defaults: fn() -> Result<toml::Table>,
    /// Checks a settings table without running.
    pub check: fn(&toml::Table) -> Result<()>,
    /// Runs it.
    pub run: fn(Job<'_>) -> Result<Product>,
}

impl Method {
    /// The first sentence of its comment, on one line.
    pub fn summary(&self) -> String {
        let paragraph: Vec<&str> =
            self.doc.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let text = paragraph.join(" ");
        text.split_once(". ").map_or(text.clone(), |(sentence, _)| format!("{sentence}."))
    }
}

/// Settings of a method: typed, with the published defaults.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// [`Error::Range`] naming the first.
    fn check(&self) -> Result<()>;
}

/// Declares a method; its doc comment becomes [`Method::doc`] as well.
macro_rules! method {
    ($(#[doc = $doc:literal])+ pub static $name:ident: Method = Method {
        id: $id:literal, name: $title:literal, family: $family:expr, needs: $needs:expr,
        makes: $makes:expr, settings: $settings:ty, claims: $claims:expr, run $(,)?
    };) => {
        $(#[doc = $doc])+
        pub static $name: $crate::method::Method = $crate::method::Method {
            id: $id,
            name: $title,
            family: $family,
            doc: concat!($($doc, "\n"),+),
            needs: $needs,
            makes: $makes,
            claims: $claims,
            defaults: || $crate::method::defaults::<$settings>($id),
            check: |table| $crate::method::settings::<$settings>($id, table).map(drop),
            run,
        };
    };
}
pub(crate) use method;

/// The default settings as a table.
///
/// # Errors
/// [`Error::Settings`] if they do not fit TOML.
pub fn defaults<S: Settings>(method: &str) -> Result<toml::Table> {
    toml::Table::try_from(S::default())
        .map_err(|e| Error::Settings { method: method.into(), message: e.to_string() })
}

/// Settings from a table, defaults for what it leaves out, ranges checked.
///
/// # Errors
/// [`Error::Settings`] for an unknown key, with the nearest known one, or a value of the wrong type; [`Error::Range`].
pub fn settings<S: Settings>(method: &str, table: &toml::Table) -> Result<S> {
    let mut whole = defaults::<S>(method)?;
    merge(method, "", &mut whole, table)?;
    let parsed: S = whole.try_into().map_err(|e: toml::de::Error| Error::Settings {
        method: method.into(),
        message: e.message().into(),
    })?;
    parsed.check()?;
    Ok(parsed)
}

/// Lays `table` over `whole`, in which every known key stands. An empty table in `whole` takes any key.
fn merge(method: &str, path: &str, whole: &mut toml::Table, table: &toml::Table) -> Result<()> {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let known: Vec<String> = whole.keys().cloned().collect();
        let refuse = |message| Err(Error::Settings { method: method.into(), message });
        match (whole.get_mut(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(method, &full, old, new)?,
            // A whole number is a number.
            (Some(toml::Value::Float(old)), toml::Value::Integer(new)) => *old = *new as f64,
            (Some(old), new) if old.type_str() == new.type_str() => *old = new.clone(),
            (Some(old), new) => {
                return refuse(format!("`{full}`: needs {}, got {}", old.type_str(), new.type_str()));
            }
            (None, _) => {
                return refuse(match nearest(key, known.iter().map(String::as_str)) {
                    Some(near) => format!("unknown key `{full}`; the nearest is `{near}`"),
                    None => format!("unknown key `{full}`; there are none here"),
                });
            }
        }
    }
    Ok(())
}

/// Refuses a number that is not above 0 and finite.
///
/// # Errors
/// [`Error::Range`].
pub fn above_zero(method: &str, key: &str, value: f64) -> Result<()> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::range(method, key, "a finite number above 0", value)),
    }
}

/// Refuses a number that is negative or not finite.
///
/// # Errors
/// [`Error::Range`].
pub fn not_negative(method: &str, key: &str, value: f64) -> Result<()> {
    match value >= 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::range(method, key, "a finite number of at least 0", value)),
    }
}
