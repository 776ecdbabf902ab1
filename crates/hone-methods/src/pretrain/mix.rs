//! What the built-in model is shown, and how much of each: roles, worlds, levels, and how often an answer slips.

use std::path::Path;

use hone_worlds::roles::Role;
use hone_worlds::{World, world};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name of a role in settings, metrics and on the command line.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Answer => "answer",
        Role::Criticise => "criticise",
        Role::Refine => "refine",
        Role::Label => "label",
    }
}

/// The role of this name.
///
/// # Errors
/// [`Error::Range`] lists the names there are.
pub fn role(name: &str) -> Result<Role> {
    let found = Role::ALL.into_iter().find(|role| role_name(*role) == name);
    found.ok_or_else(|| wrong("role", "answer, criticise, refine or label", name))
}

pub(super) fn wrong(key: &str, needed: &str, got: impl ToString) -> Error {
    Error::Range { method: "pretrain".into(), key: key.into(), needed: needed.into(), got: got.to_string() }
}

/// Shares of everything in the stream. Weights need not add up to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Weight of answering.
    pub answer: f64,
    /// Weight of criticising.
    pub criticise: f64,
    /// Weight of refining.
    pub refine: f64,
    /// Weight of labelling.
    pub label: f64,
    /// Factor on the loss of a label's tokens: a label is one word, a critique ten. Above 0.
    pub label_weight: f32,
    /// Share of right answers among those criticised, in `[0, 1]`. Labels are balanced whatever this is.
    pub right: f64,
    /// Share of refinements whose critique says less than what would be right, in `[0, 1]`.
    pub vague: f64,
    /// Share of refinements of a right answer that the critique approves, which is to be left alone; in `[0, 1]`.
    pub approved: f64,
    /// The worlds.
    pub worlds: Vec<WorldMix>,
}

/// Share of one world, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldMix {
    /// Id of the world.
    pub world: String,
    /// Weight among the worlds.
    pub weight: f64,
    /// Weight of each level from the first on; levels beyond the list have none.
    pub levels: Vec<f64>,
    /// Share of answers that are shown with a planted error, in `[0, 1)`. It keeps a world that a small model would
    /// master from being mastered: sampled at temperature 1, the model errs at least that often.
    pub slip: f64,
    /// Factor on the loss of its replies but labels, above 0, from [`super::Settings::emphasis_from`] on: a ranking of
    /// four letters weighs little beside a sum of forty.
    #[serde(default = "one")]
    pub emphasis: f32,
}

fn one() -> f32 {
    1.0
}

impl Default for Mix {
    fn default() -> Self {
        let world = |world: &str, weight, levels: &[f64], slip, emphasis| WorldMix {
            world: world.to_string(),
            weight,
            levels: levels.to_vec(),
            slip,
            emphasis,
        };
        Mix {
            answer: 0.38,
            criticise: 0.20,
            refine: 0.23,
            label: 0.19,
            label_weight: 4.0,
            right: 0.38,
            vague: 0.15,
            approved: 0.1,
            worlds: vec![
                world("sums", 0.46, &[0.08, 0.18, 0.22, 0.46, 0.02, 0.02, 0.02], 0.3, 1.0),
                world("programs", 0.10, &[0.1, 0.2, 0.45, 0.17, 0.08], 0.45, 1.0),
                world("notes", 0.13, &[0.1, 0.2, 0.45, 0.17, 0.08], 0.42, 1.0),
                world("lists", 0.31, &[0.2, 0.25, 0.4, 0.1, 0.05], 0.35, 2.0),
            ],
        }
    }
}

impl Mix {
    /// Reads a TOML file; what it leaves out is as in the default.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] with the key that is wrong.
    pub fn read(path: &Path) -> Result<Mix> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mix: Mix = toml::from_str(&text)
            .map_err(|error| Error::File { path: path.display().to_string(), problem: error.to_string() })?;
        mix.worlds()?;
        Ok(mix)
    }

    /// Keeps these roles only.
    ///
    /// # Errors
    /// As [`role`]; [`Error::Range`] if none is left with a weight.
    pub fn only_roles(&mut self, names: &[String]) -> Result<()> {
        let kept = names.iter().map(|name| role(name)).collect::<Result<Vec<_>>>()?;
        for role in Role::ALL.into_iter().filter(|role| !kept.contains(role)) {
            *self.weight_mut(role) = 0.0;
        }
        self.worlds().map(drop)
    }

    /// Keeps these worlds only.
    ///
    /// # Errors
    /// [`hone_worlds::Error::UnknownWorld`]; [`Error::Range`] for a world that the mix has no share of.
    pub fn only_worlds(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            world(id)?;
            if !self.worlds.iter().any(|share| share.world == *id) {
                return Err(wrong("worlds", "worlds of the mix", id));
            }
        }
        self.worlds.retain(|share| ids.contains(&share.world));
        self.worlds().map(drop)
    }

    /// Weight of a role.
    pub fn weight(&self, role: Role) -> f64 {
        match role {
            Role::Answer => self.answer,
            Role::Criticise => self.criticise,
            Role::Refine => self.refine,
            Role::Label => self.label,
        }
    }

    fn weight_mut(&mut self, role: Role) -> &mut f64 {
        match role {
            Role::Answer => &mut self.answer,
            Role::Criticise => &mut self.criticise,
            Role::Refine => &mut self.refine,
            Role::Label => &mut self.label,
        }
    }

    /// Checks the ranges given with each field and opens the worlds, in the order of the mix.
    ///
    /// # Errors
    /// [`Error::Range`] names the first field at fault; [`hone_worlds::Error::UnknownWorld`].
    pub fn worlds(&self) -> Result<Vec<Box<dyn World>>> {
        let roles: Vec<f64> = Role::ALL.iter().map(|role| self.weight(*role)).collect();
        check_weights("answer, criticise, refine, label", &roles)?;
        if !(self.label_weight > 0.0 && self.label_weight.is_finite()) {
            return Err(wrong("label_weight", "a number above 0", self.label_weight));
        }
        for (key, share) in [("right", self.right), ("vague", self.vague), ("approved", self.approved)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(key, "a share in [0, 1]", share));
            }
        }
        check_weights("weight of worlds", &self.worlds.iter().map(|share| share.weight).collect::<Vec<_>>())?;
        self.worlds
            .iter()
            .map(|share| {
                let world = world(&share.world)?;
                check_weights(&format!("levels of {}", share.world), &share.levels)?;
                let levels = world.levels().count();
                if share.levels.len() > levels {
                    let needed = format!("at most {levels} weights");
                    let key = format!("levels of {}", share.world);
                    return Err(wrong(&key, &needed, share.levels.len()));
                }
                if !(0.0..1.0).contains(&share.slip) {
                    let key = format!("slip of {}", share.world);
                    return Err(wrong(&key, "a share in [0, 1)", share.slip));
                }
                if !(share.emphasis > 0.0 && share.emphasis.is_finite()) {
                    let key = format!("emphasis of {}", share.world);
                    return Err(wrong(&key, "a number above 0", share.emphasis));
                }
                Ok(world)
            })
            .collect()
    }
}

fn check_weights(key: &str, weights: &[f64]) -> Result<()> {
    let valid = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
    if valid && weights.iter().sum::<f64>() > 0.0 {
        return Ok(());
    }
    Err(wrong(key, "weights of at least 0, one of them above 0", format!("{weights:?}")))
}

/// An index drawn in proportion to the weights.
pub(super) fn draw(weights: impl Iterator<Item = f64> + Clone, rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random::<f64>() * weights.clone().sum::<f64>();
    let mut last = 0;
    for (index, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        last = index;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use hone_worlds::seed::rng;

    use super::*;

    #[test]
    fn draws_follow_the_weights() {
        let mut rng = rng(1, "draws");
        let mut counts = [0i32; 4];
        for _ in 0..4000 {
            counts[draw([1.0, 0.0, 3.0, 4.0].into_iter(), &mut rng)] += 1;
        }
        // Expected 500, 0, 1500, 2000; standard deviations at most sqrt(4000 / 4) = 32; four of them.
        for (count, expected) in counts.into_iter().zip([500, 0, 1500, 2000]) {
            assert!((count - expected).abs() <= if expected == 0 { 0 } else { 127 }, "{counts:?}");
        }
    }

    #[test]
    fn the_mixes_of_the_built_in_model_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/hone-tiny");
        for run in 2..=8 {
            let mix = Mix::read(&folder.join(format!("{run}.toml"))).unwrap();
            let shares: f64 = mix.worlds.iter().map(|share| share.weight).sum();
            assert!(mix.worlds().unwrap().len() == 4 && (shares - 1.0).abs() < 1e-9, "run {run}: {shares}");
        }
    }

    #[test]
    fn a_mix_is_read_narrowed_and_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mix.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Mix::read(&path).map_err(|error| error.to_string())
        };
        let mut mix = read("refine = 0.0\n").unwrap();
        assert_eq!((mix.refine, mix.worlds.len()), (0.0, 4));
        mix.only_roles(&["answer".into(), "label".into()]).unwrap();
        assert_eq!((mix.criticise, mix.answer > 0.0, mix.label > 0.0), (0.0, true, true));
        mix.only_worlds(&["lists".into()]).unwrap();
        assert_eq!(mix.worlds.len(), 1);
        assert!(mix.only_worlds(&["chess".into()]).unwrap_err().to_string().contains("sums"));
        assert!(mix.only_roles(&["judge".into()]).unwrap_err().to_string().contains("criticise, refine"));

        let refused = [
            ("polish = 1.0", "polish"),
            ("right = 1.5", "`right`: needs a share in [0, 1], got 1.5"),
            ("[[worlds]]\nworld = \"notes\"\nweight = 1.0\nlevels = []\nslip = 0.0", "levels of notes"),
            (
                "[[worlds]]\nworld = \"notes\"\nweight = 1.0\nlevels = [1, 1, 1, 1, 1, 1]\nslip = 0.0",
                "at most 5",
            ),
            ("[[worlds]]\nworld = \"notes\"\nweight = 1.0\nlevels = [1]\nslip = 1.0", "slip of notes"),
        ];
        for (text, needle) in refused {
            let message = read(text).unwrap_err();
            assert!(message.contains(needle), "{message}");
        }
    }

    #[test]
    fn the_built_in_mix_is_valid_and_has_every_world() {
        let worlds = Mix::default().worlds().unwrap();
        assert_eq!(worlds.len(), hone_worlds::worlds().len());
    }
}
