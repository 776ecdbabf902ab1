//! A recipe: a method, its data, its model, and the settings that differ from the defaults.

mod published;

use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::catalogue::find;
use crate::error::{Error, Result};

pub use published::{ENDPOINT, Published};

/// The model of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// A published model, by its sizes.
    Published(Published),
}

impl<'de> Deserialize<'de> for Source {
    // By hand: an untagged enum would not say which field is wrong.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Source, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a model folder, or a table of a published model's sizes")
            }

            fn visit_str<E>(self, folder: &str) -> Result<Source, E> {
                Ok(Source::Folder(folder.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                Published::deserialize(MapAccessDeserializer::new(map)).map(Source::Published)
            }
        }
        from.deserialize_any(Either)
    }
}

/// What `hone run` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Id of the method.
    pub method: String,
    /// A log's path, `world:NAME/FORM` for one that simulated people write, or the name of published data.
    pub data: String,
    /// What a dry run shows where the data is not there: `world:NAME/FORM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<String>,
    /// Model folder, or a published model; the built-in model if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Source>,
    /// Records of a simulated log.
    #[serde(default = "records")]
    pub records: usize,
    /// Share of prompts that is held out.
    #[serde(default = "held_out")]
    pub held_out: f64,
    /// Governs everything that is drawn.
    #[serde(default)]
    pub seed: u64,
    /// Settings of the method, where they differ from the defaults.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}

fn records() -> usize {
    400
}

fn held_out() -> f64 {
    0.2
}

impl Recipe {
    /// Reads a recipe; the method must exist and take its settings.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] with the line at fault; those of the settings.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Recipe::parse(&text, &path.display().to_string())
    }

    /// Parses a recipe, called `name` in messages.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str, name: &str) -> Result<Recipe> {
        let fault = |problem: String| Error::File { path: name.to_string(), problem };
        let recipe: Recipe = toml::from_str(text).map_err(|e| fault(e.to_string()))?;
        recipe.check().map_err(|e| fault(e.to_string()))?;
        Ok(recipe)
    }

    /// Sets one value by its dotted name, as `--set training.epochs=2` does. A name that is not a recipe's own is one
    /// of the settings.
    ///
    /// # Errors
    /// [`Error::Settings`] for what is not `name=value`, and those of checking.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let refuse = |message: String| Error::Settings { method: self.method.clone(), message };
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(refuse(format!("`{assignment}`: needs name=value")));
        };
        let value = parse_value(value.trim());
        let mut whole = toml::Table::try_from(&*self).map_err(|e| refuse(e.to_string()))?;
        let (name, mut table) = match name.trim() {
            own @ ("method" | "data" | "stand_in" | "model" | "records" | "held_out" | "seed") => {
                (own, &mut whole)
            }
            name => {
                let settings = whole.entry("settings").or_insert_with(|| toml::Table::new().into());
                let table = settings.as_table_mut();
                (
                    name.strip_prefix("settings.").unwrap_or(name),
                    table.ok_or_else(|| refuse("settings".into()))?,
                )
            }
        };
        let mut path: Vec<&str> = name.split('.').collect();
        let last = path.pop().unwrap_or_default();
        for part in path {
            let next = table.entry(part).or_insert_with(|| toml::Table::new().into());
            table = next.as_table_mut().ok_or_else(|| Error::Settings {
                method: self.method.clone(),
                message: format!("`{name}`: `{part}` is no table"),
            })?;
        }
        table.insert(last.to_string(), value);
        let recipe: Recipe = whole.try_into().map_err(|e: toml::de::Error| Error::Settings {
            method: self.method.clone(),
            message: e.message().to_string(),
        })?;
        recipe.check()?;
        *self = recipe;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return Err(Error::range(&self.method, "held_out", "a share between 0 and 1", self.held_out));
        }
        if let Some(other) = self.stand_in.as_deref().filter(|name| !name.starts_with("world:")) {
            let problem = format!("`stand_in`: needs world:NAME/FORM, got `{other}`");
            return Err(Error::Settings { method: self.method.clone(), message: problem });
        }
        if let Some(Source::Published(model)) = &self.model {
            model.check()?;
        }
        (find(&self.method)?.check)(&self.settings)
    }
}

/// A TOML value, or a string where it is none.
fn parse_value(text: &str) -> toml::Value {
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("v = {text}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_by_name_and_checked() {
        let text = "method = \"dpo\"\ndata = \"log.jsonl\"\n[settings]\nbeta = 0.2\n";
        let mut recipe = Recipe::parse(text, "r.toml").unwrap();
        recipe.set("training.epochs=2").unwrap();
        recipe.set("seed = 7").unwrap();
        recipe.set("data=other.jsonl").unwrap();
        assert_eq!((recipe.seed, recipe.data.as_str()), (7, "other.jsonl"));
        assert_eq!(recipe.settings["training"]["epochs"].as_integer(), Some(2));
        let refused = recipe.set("betta=1").unwrap_err().to_string();
        assert!(refused.contains("nearest is `beta`"), "{refused}");
        assert_eq!(recipe.settings.len(), 2, "a refused value changes nothing");
        recipe.set("model = \"folder\"").unwrap();
        assert_eq!(recipe.model, Some(Source::Folder("folder".into())));
        assert!(recipe.set("beta").unwrap_err().to_string().contains("name=value"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_file() {
        let refused = |text: &str| Recipe::parse(text, "r.toml").unwrap_err().to_string();
        assert!(refused("method = \"dppo\"\ndata = \"x\"").starts_with("r.toml: method `dppo`: unknown"));
        assert!(refused("method = \"dpo\"").contains("missing field `data`"));
        let sizes = refused("method = \"dpo\"\ndata = \"x\"\n[model]\nname = \"a\"\nlayerz = 3");
        assert!(sizes.contains("unknown field `layerz`"), "{sizes}");
        assert!(
            refused("method = \"dpo\"\ndata = \"x\"\nstand_in = \"log\"")
                .contains("`stand_in`: needs world:")
        );
        assert!(
            refused("method = \"dpo\"\ndata = \"x\"\nheld_out = 1.5").contains("a share between 0 and 1")
        );
    }
}
