//! Simulated people: who judge, who react, and who criticise, each with known faults.
//!
//! People come from a TOML file with any number of `[[annotator]]`, `[[user]]` and `[[critic]]` tables
//! ([`People::sample`] shows all of them). A person is drawn for each piece of work by `share` and by seed, so a log
//! made twice is the same log.
//!
//! - An [`Annotator`] has a utility over the traits of an answer, one for ratings and one for comparisons if they
//!   differ, and noise, bias to the first place and to length, and ties.
//! - A [`User`] reacts rarely, with a probability that grows with what the user likes; some react at random or
//!   against their interest, and taste may drift over the log.
//! - A [`Critic`] explains errors, misses some, is blind to some kinds, and finds some that are not there.
//!
//! [`log()`] writes what they say in Hone's own format.
//!
//! # Source
//! Label noise as a mixture with a fair coin, annotators drawn by example and noise seeded by example: Dubois et
//! al., 2023, arXiv:2305.14387. Criteria that depend on the protocol: Bansal et al., 2023, arXiv:2308.15812. Rare
//! reactions: arXiv:2505.14946.

mod annotator;
mod critic;
mod log;
mod user;

use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seed::rng;

pub use annotator::{Annotator, Choice};
pub use critic::{Critic, Tells};
pub use log::{Answerer, Form, LogSettings, log, span, write_log};
pub use user::{User, satisfaction};

/// Everybody in a people file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct People {
    /// Who judge answers.
    pub annotator: Vec<Annotator>,
    /// Who react to answers.
    pub user: Vec<User>,
    /// Who say what is wrong.
    pub critic: Vec<Critic>,
}

impl People {
    /// The people file that documents the format.
    pub const SAMPLE: &str = include_str!("people.toml");

    /// The people of [`People::SAMPLE`].
    /// # Errors
    /// None: a test reads the file.
    pub fn sample() -> Result<Self> {
        People::parse(People::SAMPLE)
    }

    /// People from TOML text.
    /// # Errors
    /// [`Error::PeopleFile`] with line and column, or [`Error::People`] for a number that is impossible.
    pub fn parse(text: &str) -> Result<Self> {
        let people: People = toml::from_str(text)?;
        people.annotator.iter().try_for_each(Annotator::validate)?;
        people.user.iter().try_for_each(User::validate)?;
        people.critic.iter().try_for_each(Critic::validate)?;
        Ok(people)
    }

    /// People from a file.
    /// # Errors
    /// [`Error::Io`], and those of [`People::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        People::parse(&text)
    }
}

/// Somebody who takes a share of the work.
pub trait Person {
    /// Name in the people file.
    fn name(&self) -> &str;
    /// Share of the work, in any unit, above 0.
    fn share(&self) -> f64;
    /// How the person is called in a log: `sim:` and the name.
    fn by(&self) -> String {
        format!("sim:{}", self.name())
    }
}

/// The person who gets this piece of work, by share; `None` if there is nobody.
pub fn draw<'a, P: Person>(people: &'a [P], seed: u64, label: &str) -> Option<&'a P> {
    let total: f64 = people.iter().map(Person::share).sum();
    let mut left = rng(seed, label).random::<f64>() * total;
    let chosen = people.iter().find(|person| {
        left -= person.share();
        left < 0.0
    });
    chosen.or(people.last())
}

/// A field that must lie between two numbers.
pub(crate) fn within(name: &str, field: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let needed = if high == f64::INFINITY { format!("at least {low}") } else { format!("{low} to {high}") };
    Err(Error::People { name: name.to_string(), field, needed, got: value.to_string() })
}

pub(crate) fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_read_and_shares_are_kept() {
        let people = People::sample().unwrap();
        assert_eq!((people.annotator.len(), people.user.len(), people.critic.len()), (3, 3, 2));
        let drawn = (0..5000).filter(|seed| draw(&people.user, *seed, "w").unwrap().name == "many").count();
        // Share 8 of 9.5; standard error 0.0052, four of them 0.021.
        assert!((drawn as f64 / 5000.0 - 8.0 / 9.5).abs() < 0.021, "{drawn}");
    }

    #[test]
    fn impossible_people_are_refused_by_name() {
        let said = |text: &str| People::parse(text).unwrap_err().to_string();
        assert_eq!(
            said("[[annotator]]\nname = \"ann\"\nratings = {}\nflip = 0.6"),
            "people: ann: flip: needs 0 to 0.5, got 0.6"
        );
        assert_eq!(said("[[critic]]\nname = \"c\"\nmiss = -1.0"), "people: c: miss: needs 0 to 1, got -1");
        let typo = said("[[user]]\nname = \"u\"\nbais = 1.0");
        assert!(typo.contains("line 3") && typo.contains("bais"), "{typo}");
    }
}
