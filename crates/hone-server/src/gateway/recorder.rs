//! Exchanges on their way to the store: the caller does not wait for the disk, and nothing is dropped silently.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hone_feedback::Record;
use hone_store::Error;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::ids;

/// Exchanges on their way at most; further answers wait, so that a slow disk slows callers and loses nothing.
const UNDER_WAY: usize = 4096;
/// Ids of answers that are remembered, to see an upstream that gives one twice.
const REMEMBERED: usize = 1 << 16;
/// Waits between tries, while the store cannot be reached or refuses.
const WAITS: [u64; 8] = [50, 200, 500, 1000, 2000, 5000, 10_000, 20_000];

/// Puts exchanges into the store.
pub(crate) struct Recorder {
    places: Arc<Semaphore>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    hasher: RandomState,
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recorder {
    pub fn new() -> Self {
        Recorder { places: Arc::new(Semaphore::new(UNDER_WAY)), seen: Mutex::default() }
    }

    /// The id that an exchange gets: the upstream's, or one of the service's own where there is none that serves
    /// (then the answer must be given it). Some servers give every answer the same id.
    pub fn name(&self, theirs: Option<&str>, prefix: &str) -> (String, bool) {
        if let Some(id) = theirs.filter(|id| !id.trim().is_empty() && id.len() <= 256 && !id.contains('\0')) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let hash = seen.hasher.hash_one(id);
            if seen.set.insert(hash) {
                seen.order.push_back(hash);
                if seen.order.len() > REMEMBERED
                    && let Some(old) = seen.order.pop_front()
                {
                    seen.set.remove(&old);
                }
                return (id.to_owned(), false);
            }
        }
        (ids::new(prefix), true)
    }

    /// Sees to it that records are stored; returns once they are on their way.
    pub async fn keep(&self, app: &App, records: Vec<Record>) {
        if let [record] = records.as_slice() {
            app.reasks.look(app, record);
        }
        let place = self.places.clone().acquire_owned().await;
        let work = app.clone();
        app.tasks.spawn(async move {
            store(&work, records).await;
            drop(place);
        });
    }
}

async fn store(app: &App, mut records: Vec<Record>) {
    for wait in WAITS.iter().map(|ms| Some(Duration::from_millis(*ms))).chain([None]) {
        let why = match app.store.put(records.clone()).await {
            Ok(results) => {
                let mut again = Vec::new();
                for (mut record, result) in records.into_iter().zip(results) {
                    match result {
                        Ok(_) => {
                            app.metrics.stored.inc();
                        }
                        Err(Error::Conflict { .. }) => {
                            // An upstream that gave this id before the service was last started.
                            tracing::warn!(id = record.id, "an upstream gave one id to two answers");
                            let id = ids::new(&format!("{}~", record.id));
                            rename(&mut record, &id);
                            again.push(record);
                        }
                        Err(error) => {
                            app.metrics.unstored.inc();
                            tracing::error!(id = record.id, %error, "an exchange was refused by the store");
                        }
                    }
                }
                if again.is_empty() {
                    return;
                }
                records = again;
                continue;
            }
            Err(error) => error,
        };
        match wait {
            Some(wait) => {
                tracing::warn!(error = %why, ?wait, "exchanges could not be stored; tried again");
                tokio::time::sleep(wait).await;
            }
            None => {
                app.metrics.unstored.inc_by(records.len() as u64);
                tracing::error!(error = %why, exchanges = records.len(), "exchanges were not stored");
            }
        }
    }
}

fn rename(record: &mut Record, id: &str) {
    let old = std::mem::replace(&mut record.id, id.to_owned());
    for response in &mut record.responses {
        if let Some(rest) = response.id.strip_prefix(&old) {
            response.id = format!("{id}{rest}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_given_twice_serves_once() {
        let recorder = Recorder::new();
        assert_eq!(recorder.name(Some("chatcmpl-1"), "chatcmpl-"), ("chatcmpl-1".into(), false));
        let (again, own) = recorder.name(Some("chatcmpl-1"), "chatcmpl-");
        assert!(own && again != "chatcmpl-1" && again.starts_with("chatcmpl-"));
        for theirs in [None, Some(""), Some("a\0b")] {
            assert!(recorder.name(theirs, "x-").1, "{theirs:?}");
        }
        for index in 0..REMEMBERED {
            recorder.name(Some(&format!("y{index}")), "x-");
        }
        // Forgotten by now, so the store has the last word.
        assert_eq!(recorder.name(Some("chatcmpl-1"), "chatcmpl-"), ("chatcmpl-1".into(), false));
    }

    #[test]
    fn renaming_takes_the_answers_along() {
        let mut record = Record::new("x", "p").respond("x", "a").respond("x.1", "b");
        rename(&mut record, "y");
        let ids: Vec<&str> = record.responses.iter().map(|response| response.id.as_str()).collect();
        assert_eq!((record.id.as_str(), ids), ("y", vec!["y", "y.1"]));
    }
}
