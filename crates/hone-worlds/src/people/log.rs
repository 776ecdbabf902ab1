//! A feedback log from a world and its people, in Hone's own format.

use std::io::Write;
use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Annotator, Choice, Critic, People, Person, draw};
use crate::error::{Error, Result};
use crate::notes::scope::Rule;
use crate::seed::{mix, rng};
use crate::world::{Check, Place, Task, World};

/// A form of feedback, named as in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the design's table of forms says what each is")]
pub enum Form {
    Thumb,
    Rating,
    Comparison,
    Ranking,
    Critique,
    Edit,
    Span,
    Step,
    Outcome,
    Event,
    Rule,
}

impl Form {
    /// All forms.
    pub const ALL: [Form; 11] = [
        Form::Thumb,
        Form::Rating,
        Form::Comparison,
        Form::Ranking,
        Form::Critique,
        Form::Edit,
        Form::Span,
        Form::Step,
        Form::Outcome,
        Form::Event,
        Form::Rule,
    ];

    /// The form of this name.
    /// # Errors
    /// [`Error::People`] lists the names there are.
    pub fn named(name: &str) -> Result<Form> {
        serde_json::from_value(json!(name)).map_err(|_| Error::People {
            name: "log".to_string(),
            field: "form",
            needed:
                "one of thumb, rating, comparison, ranking, critique, edit, span, step, outcome, event, rule"
                    .to_string(),
            got: format!("`{name}`"),
        })
    }
}

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// Difficulty; the middle one if left out.
    pub level: Option<u32>,
    /// Prompts.
    pub prompts: usize,
    /// Responses per prompt, 1 to 26.
    pub responses: usize,
    /// Skill of who answered, in `[0, 1]`.
    pub skill: f64,
    /// Which forms of feedback each record gets.
    pub forms: Vec<Form>,
    /// Seed of everything.
    pub seed: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            level: None,
            prompts: 100,
            responses: 2,
            skill: 0.5,
            forms: vec![Form::Comparison, Form::Critique],
            seed: 0,
        }
    }
}

/// Somebody who answers a prompt, given a seed.
pub type Answerer<'a> = &'a mut dyn FnMut(&str, u64) -> String;

/// The records of a log, in order of time.
///
/// Responses are attempts of the stated skill, or what `answer` gives for a prompt and a seed: a real model can
/// answer while the people stay simulated. A record on which nobody reacted has an empty list of feedback.
/// # Errors
/// [`Error::People`] if a form needs somebody who is not in the file; [`Error::Setting`]; as [`Task::check`].
pub fn log(
    world: &dyn World,
    people: &People,
    settings: &LogSettings,
    mut answer: Option<Answerer<'_>>,
) -> Result<Vec<Value>> {
    if !(1..=26).contains(&settings.responses) {
        return Err(Error::setting(world.id(), "responses", "1 to 26", settings.responses));
    }
    if !(0.0..=1.0).contains(&settings.skill) {
        return Err(Error::setting(world.id(), "skill", "0 to 1", settings.skill));
    }
    expect_people(people, settings)?;
    if settings.forms.contains(&Form::Rule) && world.id() != "notes" {
        return Err(Error::setting(
            world.id(),
            "form",
            "another than rule, which is for the world notes",
            "rule",
        ));
    }
    let level = settings.level.unwrap_or_else(|| world.middle());
    let mut records = Vec::with_capacity(settings.prompts);
    for index in 0..settings.prompts {
        let seed = mix(settings.seed, &format!("{}/{level}/{index}", world.id()));
        let task = world.task(level, seed)?;
        let mut rng = rng(seed, "responses");
        let answers: Vec<String> = (0..settings.responses)
            .map(|at| match &mut answer {
                Some(answer) => answer(&task.prompt(), mix(seed, &format!("response/{at}"))),
                None => task.attempt(settings.skill, &mut rng),
            })
            .collect();
        let at = time(index as u64 * 600);
        let writer = Writer { task: task.as_ref(), world, people, answers: &answers, seed, at: &at };
        let progress = index as f64 / settings.prompts.max(2).saturating_sub(1) as f64;
        let mut feedback = Vec::new();
        for form in &settings.forms {
            feedback.extend(writer.say(*form, progress)?);
        }
        let responses: Vec<Value> = answers
            .iter()
            .enumerate()
            .map(|(index, answer)| json!({"id": id(index), "content": answer, "model": "sim"}))
            .collect();
        records.push(json!({
            "id": format!("{}-{level}-{index}", world.id()),
            "prompt": [{"role": "user", "content": task.prompt()}],
            "responses": responses,
            "feedback": feedback,
            // Enough to ask the oracle again, of these answers or of others.
            "task": {"world": world.id(), "level": level, "seed": seed},
        }));
    }
    Ok(records)
}

/// Writes records as JSON lines.
/// # Errors
/// [`Error::Io`] names the file.
pub fn write_log(path: &Path, records: &[Value]) -> Result<()> {
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    let failed = |source| Error::Io { path: path.display().to_string(), source };
    std::fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

/// Refuses a form that nobody in the file can give.
fn expect_people(people: &People, settings: &LogSettings) -> Result<()> {
    for form in &settings.forms {
        let (kind, there) = match form {
            Form::Thumb | Form::Rating | Form::Comparison | Form::Ranking => {
                ("an annotator", !people.annotator.is_empty())
            }
            Form::Critique | Form::Edit | Form::Span | Form::Step => ("a critic", !people.critic.is_empty()),
            Form::Event => ("a user", !people.user.is_empty()),
            Form::Outcome | Form::Rule => ("nobody", true),
        };
        if !there {
            let got = "none in the people file".to_string();
            return Err(Error::People {
                name: "log".to_string(),
                field: "form",
                needed: format!("{kind} for {}", json!(form)),
                got,
            });
        }
        if *form == Form::Comparison && settings.responses < 2 {
            return Err(Error::setting("log", "responses", "at least 2 for comparisons", settings.responses));
        }
    }
    Ok(())
}

fn id(index: usize) -> String {
    char::from(b'a' + index as u8).to_string()
}

/// Who says what about one record.
struct Writer<'a> {
    task: &'a dyn Task,
    world: &'a dyn World,
    people: &'a People,
    answers: &'a [String],
    seed: u64,
    at: &'a str,
}

impl Writer<'_> {
    fn say(&self, form: Form, progress: f64) -> Result<Vec<Value>> {
        let mut said = Vec::new();
        match form {
            Form::Comparison => said.extend(self.comparison()?),
            Form::Ranking => said.extend(self.ranking()?),
            Form::Rule => {
                let rule = Rule::drawn(self.seed);
                said.push(
                    self.item(
                        json!({"form": "rule", "text": rule.text(), "scope": rule.scope()}),
                        "sim:owner",
                    ),
                );
            }
            _ => {
                for (index, answer) in self.answers.iter().enumerate() {
                    said.extend(self.about(form, index, answer, progress)?);
                }
            }
        }
        Ok(said)
    }

    /// Feedback on one response.
    fn about(&self, form: Form, index: usize, answer: &str, progress: f64) -> Result<Vec<Value>> {
        let (task, on) = (self.task, id(index));
        let label = format!("{form:?}/{index}");
        let mut rng = rng(self.seed, &format!("noise/{label}"));
        let annotator = draw(&self.people.annotator, self.seed, &label);
        let critic = draw(&self.people.critic, self.seed, &label);
        let user = draw(&self.people.user, self.seed, &label);
        Ok(match form {
            Form::Thumb => self.by(annotator, |annotator: &Annotator| {
                let value = annotator.thumb(task, answer, &mut rng)?;
                Ok(vec![json!({"form": "thumb", "on": on, "value": value})])
            })?,
            Form::Rating => self.by(annotator, |annotator: &Annotator| {
                let value = annotator.rate(task, answer, &mut rng)?;
                Ok(vec![json!({"form": "rating", "on": on, "value": value, "scale": annotator.scale})])
            })?,
            Form::Critique => self.by(critic, |critic: &Critic| {
                let text = critic.criticise(task, answer, &mut rng)?;
                Ok(vec![json!({"form": "critique", "on": on, "text": text})])
            })?,
            Form::Edit => self.by(critic, |critic: &Critic| {
                let claim = critic.claim(task, answer, &mut rng)?;
                let edit = || json!({"form": "edit", "on": on, "content": task.reference()});
                // Who sees nothing wrong edits nothing.
                Ok(claim.filter(|_| answer != task.reference()).map(|_| edit()).into_iter().collect())
            })?,
            Form::Span => self.by(critic, |critic: &Critic| {
                let claim = critic.claim(task, answer, &mut rng)?;
                let span = claim.and_then(|flaw| Some((span(answer, flaw.place)?, flaw)));
                let mark = |((start, end), flaw): ((usize, usize), crate::world::Flaw)| {
                    json!({"form": "span", "on": on, "start": start, "end": end, "label": flaw.kind, "value": -1,
                           "text": flaw.words(critic.detail.into())})
                };
                Ok(span.map(mark).into_iter().collect())
            })?,
            Form::Step => self.by(critic, |critic: &Critic| {
                let claim = critic.claim(task, answer, &mut rng)?;
                Ok(steps(answer, claim.as_ref().map(|flaw| flaw.place))
                    .into_iter()
                    .enumerate()
                    .map(|(index, correct)| {
                        let mut step = json!({"form": "step", "on": on, "index": index, "correct": correct});
                        if let (false, Some(flaw)) = (correct, &claim) {
                            step["text"] = json!(flaw.words(critic.detail.into()));
                        }
                        step
                    })
                    .collect())
            })?,
            Form::Outcome => {
                let Check { right, .. } = task.check(answer)?;
                let mut outcome = json!({"form": "outcome", "on": on, "check": self.world.id(), "passed": right});
                if !right {
                    outcome["text"] = json!(task.explain(answer, crate::world::Detail::Reason)?);
                }
                vec![self.item(outcome, &format!("tool:{}", self.world.id()))]
            }
            Form::Event => self.by(user, |user| {
                let reacts = user.reacts(task, answer, progress, &mut rng)?;
                let heart = || json!({"form": "event", "on": on, "event": "heart", "value": 1});
                Ok(reacts.then(heart).into_iter().collect())
            })?,
            Form::Comparison | Form::Ranking | Form::Rule => Vec::new(),
        })
    }

    /// Every pair of neighbours, each judged by one annotator in an order that a coin decides; ties are rankings.
    fn comparison(&self) -> Result<Vec<Value>> {
        let mut said = Vec::new();
        for one in 0..self.answers.len() - 1 {
            let label = format!("comparison/{one}");
            let mut rng = rng(self.seed, &format!("noise/{label}"));
            let (first, second) = if rng.random_bool(0.5) { (one, one + 1) } else { (one + 1, one) };
            said.extend(self.by(
                draw(&self.people.annotator, self.seed, &label),
                |annotator: &Annotator| {
                    let choice = annotator.compare(
                        self.task,
                        &self.answers[first],
                        &self.answers[second],
                        &mut rng,
                    )?;
                    Ok(vec![match choice {
                        Choice::First => {
                            json!({"form": "comparison", "better": id(first), "worse": id(second)})
                        }
                        Choice::Second => {
                            json!({"form": "comparison", "better": id(second), "worse": id(first)})
                        }
                        Choice::Tie => json!({"form": "ranking", "order": [[id(one), id(one + 1)]]}),
                    }])
                },
            )?);
        }
        Ok(said)
    }

    fn ranking(&self) -> Result<Vec<Value>> {
        let mut rng = rng(self.seed, "noise/ranking");
        self.by(draw(&self.people.annotator, self.seed, "ranking"), |annotator: &Annotator| {
            let order = annotator.rank(self.task, self.answers, &mut rng)?;
            let named: Vec<Vec<String>> =
                order.iter().map(|group| group.iter().map(|index| id(*index)).collect()).collect();
            Ok(vec![json!({"form": "ranking", "order": named})])
        })
    }

    /// What a person says, signed; nothing if there is no such person.
    fn by<P: Person>(
        &self,
        person: Option<&P>,
        say: impl FnOnce(&P) -> Result<Vec<Value>>,
    ) -> Result<Vec<Value>> {
        let Some(person) = person else { return Ok(Vec::new()) };
        let name = person.by();
        Ok(say(person)?.into_iter().map(|item| self.item(item, &name)).collect())
    }

    fn item(&self, mut item: Value, by: &str) -> Value {
        item["by"] = json!(by);
        item["at"] = json!(self.at);
        item
    }
}

/// The span of a place in Unicode scalar values; `None` for the whole answer and for what is not there.
pub fn span(answer: &str, place: Place) -> Option<(usize, usize)> {
    let piece = |found: Option<&str>| {
        let found = found.filter(|found| !found.is_empty())?;
        // Both are parts of the same string, so the difference of their addresses is an offset.
        let byte = found.as_ptr() as usize - answer.as_ptr() as usize;
        let start = answer[..byte].chars().count();
        Some((start, start + found.chars().count()))
    };
    match place {
        Place::Whole => None,
        Place::Span(start, end) => (end <= answer.chars().count()).then_some((start, end)),
        Place::Step(index) => piece(answer.lines().map(str::trim).filter(|line| !line.is_empty()).nth(index)),
        Place::Line(index) => piece(answer.lines().nth(index).map(str::trim)),
        Place::Rank(index) => piece(answer.split_whitespace().nth(index)),
    }
}

/// One verdict per line, up to and including the first wrong one.
fn steps(answer: &str, wrong: Option<Place>) -> Vec<bool> {
    let lines = answer.lines().filter(|line| !line.trim().is_empty()).count();
    match wrong {
        None => vec![true; lines],
        Some(Place::Step(index) | Place::Line(index)) => {
            (0..lines.min(index + 1)).map(|line| line != index).collect()
        }
        // Wrong, but at no step of its own: only the last line can be called wrong.
        Some(_) => (1..=lines).map(|line| line != lines).collect(),
    }
}

/// Seconds after the first of January 2026, as RFC 3339.
fn time(seconds: u64) -> String {
    let (day, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut left) = (2026, day);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}T{:02}:{:02}:{:02}Z", left + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Notes;
    use crate::sums::Sums;

    fn all(world: &dyn World) -> Vec<Value> {
        let mut forms = Form::ALL.to_vec();
        forms.retain(|form| *form != Form::Rule || world.id() == "notes");
        let settings = LogSettings { prompts: 40, responses: 3, forms, ..LogSettings::default() };
        log(world, &People::sample().unwrap(), &settings, None).unwrap()
    }

    fn items(records: &[Value]) -> Vec<(&Value, &Value)> {
        records
            .iter()
            .flat_map(|record| record["feedback"].as_array().unwrap().iter().map(move |item| (record, item)))
            .collect()
    }

    #[test]
    fn every_form_is_written_and_signed() {
        let records = all(&Notes);
        let items = items(&records);
        for form in Form::ALL.iter().filter(|form| **form != Form::Event) {
            assert!(items.iter().any(|(_, item)| item["form"] == json!(form)), "{form:?}");
        }
        for (record, item) in &items {
            let by = item["by"].as_str().unwrap();
            assert!(by.starts_with("sim:") || by.starts_with("tool:"), "{item}");
            assert!(item["at"].as_str().unwrap().starts_with("2026-01-01T"), "{item}");
            if let Some(on) = item["on"].as_str() {
                let responses = record["responses"].as_array().unwrap();
                assert!(responses.iter().any(|response| response["id"] == on));
            }
        }
    }

    #[test]
    fn spans_and_steps_lie_in_their_answers() {
        for world in [&Notes as &dyn World, &Sums::default(), &crate::lists::Lists] {
            let records = all(world);
            let mut seen = 0;
            for (record, item) in items(&records).into_iter().filter(|(_, item)| item["form"] == "span") {
                let responses = record["responses"].as_array().unwrap();
                let response = responses.iter().find(|response| response["id"] == item["on"]).unwrap();
                let length = response["content"].as_str().unwrap().chars().count() as u64;
                let (start, end) = (item["start"].as_u64().unwrap(), item["end"].as_u64().unwrap());
                assert!(start < end && end <= length, "{item} {response}");
                seen += 1;
            }
            assert!(seen > 5, "{}: {seen} spans", world.id());
        }
        assert_eq!(steps("a\nb\nc", Some(Place::Step(1))), [true, false]);
        assert_eq!(span("1+1=2\n2+1=4", Place::Step(1)), Some((6, 11)));
    }

    #[test]
    fn a_log_made_twice_is_the_same() {
        assert_eq!(all(&Sums::default()), all(&Sums::default()));
    }

    #[test]
    fn a_model_may_answer() {
        let mut answers = |_: &str, seed: u64| format!("{}", seed % 2);
        let settings = LogSettings { prompts: 2, forms: vec![Form::Outcome], ..LogSettings::default() };
        let records = log(&Notes, &People::default(), &settings, Some(&mut answers)).unwrap();
        assert!(records[1]["responses"][1]["content"].as_str().unwrap().len() == 1);
        assert_eq!(records[0]["feedback"][0]["passed"], json!(false));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let refused =
            |settings, people: &People| log(&Notes, people, &settings, None).unwrap_err().to_string();
        let events = LogSettings { forms: vec![Form::Event], ..LogSettings::default() };
        assert_eq!(
            refused(events, &People::default()),
            "people: log: form: needs a user for \"event\", got none in the people file"
        );
        let many = LogSettings { responses: 27, ..LogSettings::default() };
        assert_eq!(
            refused(many, &People::sample().unwrap()),
            "world notes: setting responses: needs 1 to 26, got 27"
        );
        let rule = LogSettings { forms: vec![Form::Rule], ..LogSettings::default() };
        let said = log(&Sums::default(), &People::default(), &rule, None).unwrap_err().to_string();
        assert!(said.starts_with("world sums: setting form: needs another than rule"), "{said}");
        assert!(Form::named("stars").unwrap_err().to_string().ends_with("event, rule, got `stars`"));
    }

    #[test]
    fn times_are_dates() {
        // 59 days after the first of January is the first of March; 2028 has a 29 February, its day 59.
        assert_eq!(time(59 * 86_400 + 3661), "2026-03-01T01:01:01Z");
        assert_eq!(time((730 + 59) * 86_400), "2028-02-29T00:00:00Z");
        assert_eq!(time((730 + 366) * 86_400), "2029-01-01T00:00:00Z");
    }
}
