//! What people do without saying it: a question asked again says that its answer did not serve.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hone_feedback::{Feedback, Form, Prompt, Record};
use hone_store::Said;

use crate::app::App;

/// Conversations that are remembered.
const REMEMBERED: usize = 10_000;
/// Later, the same question is a new one.
const SOON: Duration = Duration::from_secs(600);
/// Share of words in common (Jaccard) from which a question counts as asked again in other words.
const ALIKE: f64 = 0.6;
/// Shorter questions are alike by chance ("and then?").
const WORDS: usize = 3;

/// The last exchange of each session or user.
#[derive(Default)]
pub(crate) struct Reasks(Mutex<Last>);

#[derive(Default)]
struct Last {
    by_name: HashMap<String, Asked>,
    order: VecDeque<String>,
}

struct Asked {
    id: String,
    prompt: Prompt,
    words: BTreeSet<String>,
    at: Instant,
}

impl Reasks {
    /// Looks at an exchange; says of the one before what this one says about it.
    pub fn look(&self, app: &App, record: &Record) {
        if let Some(feedback) = self.judge(record, Instant::now()) {
            let app = app.clone();
            app.tasks.clone().spawn(async move {
                let said = Said { exchange: None, feedback, key: None };
                if let Err(error) = app.store.say(vec![said]).await {
                    tracing::warn!(%error, "an inferred event could not be stored");
                }
            });
        }
    }

    fn judge(&self, record: &Record, now: Instant) -> Option<Feedback> {
        let field = |name: &str| record.extra.get(name)?.as_str();
        let name = match (field("session"), field("user")) {
            (Some(session), _) => format!("session {session}"),
            (None, Some(user)) => format!("user {user}"),
            (None, None) => return None,
        };
        let id = record.responses.first()?.id.clone();
        let words = words(&record.prompt.last_user()?);
        let asked = Asked { id, prompt: record.prompt.clone(), words, at: now };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = last.by_name.get(&name).and_then(|before| before.again(&asked));
        if last.by_name.insert(name.clone(), asked).is_none() {
            last.order.push_back(name);
            if last.order.len() > REMEMBERED
                && let Some(old) = last.order.pop_front()
            {
                last.by_name.remove(&old);
            }
        }
        found
    }
}

impl Asked {
    /// What asking `next` says about this.
    fn again(&self, next: &Asked) -> Option<Feedback> {
        if next.at.duration_since(self.at) > SOON {
            return None;
        }
        let event = |event: &str, value| {
            let form = Form::Event { on: Some(self.id.clone()), event: event.into(), value };
            Some(Feedback::from(form).by("hone:reask"))
        };
        if self.prompt == next.prompt {
            return event("regenerated", None);
        }
        let both = self.words.intersection(&next.words).count() as f64;
        let all = self.words.union(&next.words).count() as f64;
        let long = self.words.len().min(next.words.len()) >= WORDS;
        if long && both / all >= ALIKE { event("reasked", Some(both / all)) } else { None }
    }
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, text: &str, user: &str) -> Record {
        let mut record = Record::new(id, Prompt::Text(text.into())).respond(id, "answer");
        record.extra.insert("user".into(), user.into());
        record
    }

    #[test]
    fn questions_asked_again() {
        let reasks = Reasks::default();
        let now = Instant::now();
        let event = |record: &Record, now| match reasks.judge(record, now).map(|feedback| feedback.form) {
            Some(Form::Event { on, event, value }) => Some((on.unwrap_or_default(), event, value)),
            _ => None,
        };
        assert_eq!(event(&record("1", "How do I sort a list?", "u"), now), None);
        // Six words in common of seven in all.
        let again = event(&record("2", "How do I sort a Python list?", "u"), now);
        assert_eq!(again, Some(("1".into(), "reasked".into(), Some(6.0 / 7.0))));
        let same = event(&record("3", "How do I sort a Python list?", "u"), now);
        assert_eq!(same, Some(("2".into(), "regenerated".into(), None)));
        assert_eq!(event(&record("4", "How do I sort a Python list?", "other"), now), None);
        assert_eq!(event(&record("5", "Thanks! Now write a poem about the sea.", "u"), now), None);
        let late = now + SOON + Duration::from_secs(1);
        assert_eq!(event(&record("6", "Thanks! Now write a poem about the sea.", "u"), late), None);
    }
}
