//! The one trait, and what goes in and comes out.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use hone_feedback::{Feedback, FormKind, Record};
use serde::Serialize;

use crate::error::Result;

/// Keeps what was asked, answered and said. [`crate::open`] gives one.
///
/// A write that returns has survived a loss of power. A write whose future is dropped may still happen.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Stores records, each by itself: the result says of each what was new. A record whose id is stored is merged:
    /// responses and feedback that are not there are added; what is there must be equal. Feedback that came before
    /// its response is joined.
    ///
    /// Of a record's unknown fields, `at` (RFC 3339), `user` (whom it was shown to), `session` and `tags` (a list)
    /// are looked for by [`Query`]; of a response's, `usage` (as OpenAI has it) and `latency_ms` are summed.
    async fn put(&self, records: Vec<Record>) -> Result<Vec<Result<Put>>>;

    /// Stores feedback on stored responses, each by itself. Feedback without a time gets the present one. What names
    /// a response that is not stored waits for it.
    async fn say(&self, items: Vec<Said>) -> Result<Vec<Result<Receipt>>>;

    /// The record called `id`, or the one with the response called `id` where there is just one.
    async fn get(&self, id: &str) -> Result<Option<Record>>;

    /// Up to `limit` lines of the log of everything, after a place; in the order in which records were stored.
    async fn lines(&self, after: i64, limit: usize) -> Result<Lines>;

    /// Exchanges that a query asks for, newest first.
    async fn search(&self, query: Query) -> Result<Page>;

    /// Sums of the days, which count from 1970-01-01 UTC.
    async fn tallies(&self, days: RangeInclusive<i64>) -> Result<Vec<Tally>>;

    /// Feedback that is not joined to a response: it waits for one, or did not fit the one that came.
    async fn waiting(&self) -> Result<Vec<Waiting>>;

    /// Notes which items a run used: ids of records, or of feedback. Noted again, items are added.
    async fn record_run(&self, run: Run, items: Vec<String>) -> Result<()>;

    /// The runs that used an item.
    async fn runs_of(&self, item: &str) -> Result<Vec<Run>>;

    /// The items that a run used, in the order of their names.
    async fn items_of(&self, run: &str) -> Result<Vec<String>>;

    /// Deletes all that a person said, and every exchange that was shown to or answered by that person. Says which
    /// runs had used any of it; what those made is the caller's to delete.
    async fn forget(&self, person: &str) -> Result<Forgotten>;

    /// Every run, by id.
    async fn runs(&self) -> Result<Vec<Run>>;

    /// What people thought of exchanges with a tag: a row per person, in the order of their first words. Exchanges
    /// shown to nobody by name count as one person each.
    async fn means(&self, tag: &str) -> Result<Vec<Mean>>;

    /// Adds a key that may call the service.
    async fn add_key(&self, key: Key) -> Result<()>;

    /// Every key, also those that ended.
    async fn keys(&self) -> Result<Vec<Key>>;

    /// Ends a key. Ended again, nothing happens.
    async fn revoke_key(&self, id: &str) -> Result<()>;

    /// The text that the service keeps under a name.
    async fn setting(&self, name: &str) -> Result<Option<String>>;

    /// Keeps a text under a name; None takes it away.
    async fn set(&self, name: &str, body: Option<String>) -> Result<()>;

    /// Deletes feedback by the keys that it was sent under ([`Said::key`]). Gives how many items there were. A key that
    /// was taken back may be used again.
    async fn unsay(&self, keys: Vec<String>) -> Result<usize>;

    /// Whether the database answers.
    async fn ready(&self) -> Result<()>;
}

/// What was new of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Put {
    /// The record.
    pub id: String,
    /// Whether it was not there.
    pub new: bool,
    /// Responses added.
    pub responses: usize,
    /// Items of feedback added that came with it.
    pub feedback: usize,
    /// Items joined that had come before it.
    pub joined: usize,
}

/// Feedback to store.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The exchange that it is about. None: the one with the response that it names.
    pub exchange: Option<String>,
    /// What was said.
    pub feedback: Feedback,
    /// Of feedback sent again under the same key, only the first is stored.
    pub key: Option<String>,
}

/// What became of feedback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Names the item, as in `fb-12`.
    pub id: String,
    /// The state of it.
    pub state: State,
}

/// Where feedback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// With its response.
    Joined,
    /// Its response is not stored yet.
    Early,
    /// It was stored before, under the same key.
    Repeated,
}

/// What to look for; every condition must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Words, `"phrases"` and `beginnings*`, all in the exchange's text, or all in one item of feedback on it.
    pub text: Option<String>,
    /// The model of a response.
    pub model: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// Whom it was shown to.
    pub user: Option<String>,
    /// Who said something about it.
    pub by: Option<String>,
    /// A form of feedback that it has.
    pub form: Option<FormKind>,
    /// Not before this time, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub until: Option<i64>,
    /// Go on after a page: its `next`.
    pub before: Option<i64>,
    /// At most so many, from 1 to 1000.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            text: None,
            model: None,
            session: None,
            tag: None,
            user: None,
            by: None,
            form: None,
            since: None,
            until: None,
            before: None,
            limit: 50,
        }
    }
}

/// Part of what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The records, newest first.
    pub hits: Vec<Record>,
    /// Where to go on with [`Query::before`]. None: there is no more.
    pub next: Option<i64>,
}

/// Part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Records as Hone JSON, without line ends.
    pub lines: Vec<String>,
    /// Where to go on. None: there is no more.
    pub next: Option<i64>,
}

/// Sums of one day and model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tally {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// The model of the responses. Empty: unknown, or not of a response.
    pub model: String,
    /// `exchange`, `response`, `prompt_tokens`, `completion_tokens`, `latency_ms`, a form, or `event:` and its name.
    pub what: String,
    /// How many.
    pub count: i64,
    /// The sum of their values: tokens, milliseconds, or how good from 0 to 1.
    pub sum: f64,
    /// The sum of the values' squares.
    pub squares: f64,
}

/// Feedback that is not joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The item.
    pub id: String,
    /// What it names: `response ID` or `exchange ID`.
    pub names: String,
    /// Why it did not fit what came. None: nothing came yet.
    pub fault: Option<String>,
    /// What was said.
    pub feedback: Feedback,
}

/// A run that used items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The run.
    pub id: String,
    /// What it made: a model, a prompt, by name or path.
    pub model: String,
}

/// A key that may call the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Names it.
    pub id: String,
    /// What it is for, in its owner's words.
    pub name: String,
    /// A digest of the key itself, which is nowhere kept.
    #[serde(skip)]
    pub hash: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Requests per minute, where limited.
    pub per_minute: Option<i64>,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// When it ended, in milliseconds since 1970.
    pub revoked: Option<i64>,
}

/// What one person thought of answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mean {
    /// The person, or the exchange where nobody is named.
    pub user: String,
    /// The number of the person's first item.
    pub first: i64,
    /// Items with a value.
    pub count: i64,
    /// Their mean value, from 0 to 1.
    pub mean: f64,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// Items of feedback, those on deleted exchanges among them.
    pub feedback: usize,
    /// The ids of the deleted exchanges.
    pub exchanges: Vec<String>,
    /// Runs that had used any of it.
    pub runs: Vec<Run>,
}
