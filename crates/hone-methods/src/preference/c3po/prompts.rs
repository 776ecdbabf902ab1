//! Where a rule applies, where it only seems to, and where it does not: three sets of prompts.

use std::collections::BTreeSet;

use hone_feedback::{Form, Prompt, Record};
use hone_lm::LanguageModel;
use hone_nn::train::seed::sub_seed;
use hone_worlds::notes::scope::{self, Effect, Nearness, ROLES};
use serde::{Deserialize, Serialize};

use super::{C3po, ID};
use crate::error::{Error, Result};
use crate::refine::Draw;
use crate::templates::ask_texts;

/// One feedback: what is to change, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// The rule as it was said.
    pub text: String,
    /// Where it holds; none: everywhere.
    pub scope: Option<String>,
}

impl Statement {
    /// What changes: the rule without the words of its scope.
    pub fn effect(&self) -> &str {
        let Some(scope) = self.scope.as_deref() else { return &self.text };
        let rest = self.text.strip_suffix(scope).map(str::trim_end);
        rest.and_then(|rest| rest.rsplit_once(' ')).map_or(self.text.as_str(), |(effect, _)| effect)
    }

    /// What templates can name.
    pub(super) fn context(&self) -> minijinja::Value {
        let scope = self.scope.as_deref().unwrap_or("every prompt");
        minijinja::context! { rule => &self.text, effect => self.effect(), scope }
    }

    /// The rule of the world of notes that says the same, if there is one: its check needs no judge.
    pub fn of_notes(&self) -> Option<scope::Rule> {
        let all =
            Effect::ALL.into_iter().flat_map(|effect| ROLES.iter().map(move |to| scope::Rule { effect, to }));
        all.into_iter().find(|rule| rule.text() == self.text)
    }
}

/// The distinct rules of a log, the most frequent first, in the order of the log where equal.
pub fn statements(records: &[Record]) -> Vec<Statement> {
    let mut found: Vec<(Statement, usize)> = vec![];
    for item in records.iter().flat_map(|record| &record.feedback) {
        let Form::Rule { text, scope } = &item.form else { continue };
        let statement = Statement { text: text.clone(), scope: scope.clone() };
        match found.iter_mut().find(|(known, _)| *known == statement) {
            Some((_, count)) => *count += 1,
            None => found.push((statement, 1)),
        }
    }
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    found.into_iter().map(|(statement, _)| statement).collect()
}

/// Where the prompts of the three sets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A model invents in-scope and near-scope prompts, category by category; the log's prompts that no rule was said
    /// on are out of scope.
    Model,
    /// The log's own: in scope where the rule was said, near it where it was said with `"applies": false`, out of it
    /// where it was not said.
    Log,
    /// The world of notes writes them, for its own rules.
    Notes,
}

/// A prompt and the category it was made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What is asked.
    pub prompt: Prompt,
    /// Which category; 0 where there are none.
    pub category: usize,
}

/// The three sets of one rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sets {
    /// Where the rule applies.
    pub inside: Vec<Asked>,
    /// Where it seems to and does not.
    pub near: Vec<Asked>,
    /// Where it has nothing to do with what is asked.
    pub outside: Vec<Asked>,
}

impl Sets {
    /// The sets in the order inside, near, outside.
    pub fn all(&self) -> [&[Asked]; 3] {
        [&self.inside, &self.near, &self.outside]
    }

    /// Splits off the last `share` of every category: what is trained on, and what is held out.
    pub fn split(&self, share: f64) -> (Sets, Sets) {
        let split = |asked: &[Asked]| {
            let (mut kept, mut held) = (vec![], vec![]);
            let categories: BTreeSet<usize> = asked.iter().map(|one| one.category).collect();
            for category in categories {
                let of: Vec<&Asked> = asked.iter().filter(|one| one.category == category).collect();
                let last = of.len() - ((of.len() as f64 * share).round() as usize).min(of.len());
                kept.extend(of[..last].iter().map(|one| (*one).clone()));
                held.extend(of[last..].iter().map(|one| (*one).clone()));
            }
            (kept, held)
        };
        let [(inside, held_inside), (near, held_near), (outside, held_outside)] = self.all().map(split);
        (Sets { inside, near, outside }, Sets { inside: held_inside, near: held_near, outside: held_outside })
    }
}

/// The sets of one rule, `own.prompts_per_set` prompts each where the source has so many.
///
/// # Errors
/// [`Error::Data`] for a source that has none; those of the model.
pub fn sets(
    model: &dyn LanguageModel,
    statement: &Statement,
    records: &[Record],
    own: &C3po,
    seed: u64,
) -> Result<Sets> {
    let mut sets = match own.prompts {
        Source::Model => invent(model, statement, records, own, seed)?,
        Source::Log => of_log(statement, records),
        Source::Notes => of_notes(statement, own.prompts_per_set, seed)?,
    };
    for set in [&mut sets.inside, &mut sets.near, &mut sets.outside] {
        set.truncate(own.prompts_per_set);
    }
    let missing = |needed: &str| {
        let got = format!("none for the rule {:?}", statement.text);
        Err(Error::Data { method: ID.into(), needed: needed.into(), got })
    };
    match () {
        () if sets.inside.is_empty() => missing("prompts that the rule applies to"),
        () if sets.near.is_empty() && own.near_weight > 0.0 => missing("prompts near the rule's scope"),
        () if sets.outside.is_empty() && own.out_weight > 0.0 => missing("prompts out of the rule's scope"),
        () => Ok(sets),
    }
}

fn of_log(statement: &Statement, records: &[Record]) -> Sets {
    let mut sets = Sets::default();
    for record in records {
        let said = record.feedback.iter().find(
            |item| matches!(&item.form, Form::Rule { text, scope } if *text == statement.text && *scope == statement.scope),
        );
        let applies =
            said.map(|item| item.extra.get("applies").and_then(|value| value.as_bool()) != Some(false));
        let set = match applies {
            Some(true) => &mut sets.inside,
            Some(false) => &mut sets.near,
            None => &mut sets.outside,
        };
        set.push(Asked { prompt: record.prompt.clone(), category: 0 });
    }
    sets
}

fn of_notes(statement: &Statement, count: usize, seed: u64) -> Result<Sets> {
    let Some(rule) = statement.of_notes() else {
        let needed = "a rule of the world of notes, such as `no emoji in notes to my boss`".into();
        return Err(Error::Data { method: ID.into(), needed, got: format!("{:?}", statement.text) });
    };
    let set = |nearness: Nearness| -> Result<Vec<Asked>> {
        let prompt = |index: usize| {
            let scoped = rule.prompt(nearness, sub_seed(seed, &format!("prompt {index}")))?;
            Ok(Asked { prompt: scoped.prompt.into(), category: 0 })
        };
        (0..count).map(prompt).collect()
    };
    Ok(Sets { inside: set(Nearness::In)?, near: set(Nearness::Near)?, outside: set(Nearness::Out)? })
}

/// Asks for categories a little broader than the scope, and for prompts inside and just outside it, category by category.
fn invent(
    model: &dyn LanguageModel,
    statement: &Statement,
    records: &[Record],
    own: &C3po,
    seed: u64,
) -> Result<Sets> {
    let templates = own.templates()?;
    // Prompts are lists: they need room, and the spread of plain sampling.
    let draw = Draw { max_tokens: own.draw.max_tokens.max(1024), ..Draw::default() };
    let context = statement.context();
    let count = own.categories;
    let asked = templates.render("categorise", minijinja::context! { count, ..context.clone() })?;
    let said = ask_texts(model, [asked], 1, &draw, sub_seed(seed, "categories"))?;
    let mut categories: Vec<String> =
        said.iter().flatten().flat_map(|sample| last_list(&sample.text)).collect();
    categories.truncate(count);
    if categories.is_empty() {
        let got = "no list in the model's reply".to_string();
        return Err(Error::Data { method: ID.into(), needed: "categories of prompts".into(), got });
    }
    let each = own.prompts_per_set.div_ceil(categories.len());
    let list = |name: &str| -> Result<Vec<Asked>> {
        let asked: Result<Vec<String>> = categories
            .iter()
            .map(|category| {
                templates.render(name, minijinja::context! { category, count => each, ..context.clone() })
            })
            .collect();
        let said = ask_texts(model, asked?, 1, &draw, sub_seed(seed, name))?;
        let (mut seen, mut set) = (BTreeSet::new(), vec![]);
        for (category, samples) in said.iter().enumerate() {
            let items = samples.iter().flat_map(|sample| last_list(&sample.text));
            let new = items.filter(|item| seen.insert(item.clone())).take(each).collect::<Vec<_>>();
            set.extend(new.into_iter().map(|item| Asked { prompt: item.into(), category }));
        }
        Ok(set)
    };
    let ruled = |record: &Record| record.feedback.iter().any(|item| matches!(item.form, Form::Rule { .. }));
    let mut seen = BTreeSet::new();
    let outside = records
        .iter()
        .filter(|record| !ruled(record) && seen.insert(record.prompt.text().into_owned()))
        .map(|record| Asked { prompt: record.prompt.clone(), category: 0 })
        .collect();
    Ok(Sets { inside: list("ask_inside")?, near: list("ask_near")?, outside })
}

/// The items of the last list in a text: lines that begin with a dash, a star or a number. A model that is asked to
/// revise its list writes it twice.
pub fn last_list(text: &str) -> Vec<String> {
    let item = |line: &str| -> Option<String> {
        let line = line.trim();
        let rest = match line.strip_prefix(['-', '*', '•']) {
            Some(rest) => rest,
            None => {
                let digits = line.chars().take_while(char::is_ascii_digit).count();
                (digits > 0).then(|| line[digits..].strip_prefix(['.', ')']))??
            }
        };
        Some(rest.trim().to_string()).filter(|rest| !rest.is_empty())
    };
    let mut lists: Vec<Vec<String>> = vec![];
    let mut open = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match item(line) {
            Some(item) if open => {
                lists.iter_mut().next_back().into_iter().for_each(|list| list.push(item.clone()))
            }
            Some(item) => lists.push(vec![item]),
            None => {}
        }
        open = item(line).is_some();
    }
    lists.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revised_list_is_the_last() {
        let text = "Thoughts: many.\n1. one\n2. two\n\nREVISED\n- uno\n* dos\n3) tres\n\nDone.";
        assert_eq!(last_list(text), ["uno", "dos", "tres"]);
        assert!(last_list("nothing here\n2024 was long").is_empty());
    }

    #[test]
    fn an_effect_is_the_rule_without_its_scope() {
        let rule =
            |text: &str, scope: Option<&str>| Statement { text: text.into(), scope: scope.map(String::from) };
        assert_eq!(rule("no emoji in notes to my boss", Some("notes to my boss")).effect(), "no emoji");
        assert_eq!(rule("be brief", None).effect(), "be brief");
        assert_eq!(rule("be brief", Some("letters")).effect(), "be brief");
    }

    #[test]
    fn a_log_says_where_a_rule_applies() {
        let rule = || Form::Rule { text: "be brief".into(), scope: None };
        let mut near: hone_feedback::Feedback = rule().into();
        near.extra.insert("applies".into(), false.into());
        let records = [
            Record::new("a", "one").say(rule()),
            Record::new("b", "two").say(near),
            Record::new("c", "three"),
        ];
        let statement = statements(&records).remove(0);
        let sets = of_log(&statement, &records);
        let texts =
            sets.all().map(|set| set.iter().map(|one| one.prompt.text().into_owned()).collect::<Vec<_>>());
        assert_eq!(texts, [["one"], ["two"], ["three"]].map(|set| set.map(String::from).to_vec()));
    }

    #[test]
    fn a_share_of_every_category_is_held_out() {
        let asked = |category: usize, n: usize| Asked { prompt: format!("{category} {n}").into(), category };
        let inside: Vec<Asked> =
            (0..2).flat_map(|category| (0..5).map(move |n| asked(category, n))).collect();
        let (train, held) = Sets { inside, ..Sets::default() }.split(0.2);
        assert_eq!((train.inside.len(), train.near.len()), (8, 0));
        assert_eq!(held.inside, [asked(0, 4), asked(1, 4)]);
    }
}
