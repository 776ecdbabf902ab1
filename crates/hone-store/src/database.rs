//! A store over any database: readers side by side, and one writer thread that commits whole groups of writes.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use hone_feedback::Record;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::error::{Error, Result};
use crate::rows::{self, Exchange};
use crate::sql::{Sql, Value};
use crate::store::{
    Forgotten, Key, Lines, Mean, Page, Put, Query, Receipt, Run, Said, Store, Tally, Waiting,
};
use crate::write::{Tx, index_some};
use crate::{forget, keeps, read, search};

/// Jobs of one commit, at most.
const GROUP: usize = 4096;
/// Connections that read at the same time.
const READERS: usize = 8;

/// Makes a connection.
pub(crate) type Connect = Arc<dyn Fn() -> Result<Box<dyn Sql>> + Send + Sync>;

/// What a writer asks the thread.
enum Job {
    Put(Vec<Exchange>, Answer<Vec<Result<Put>>>),
    Say(Vec<Said>, Answer<Vec<Result<Receipt>>>),
    Run(Run, Vec<String>, Answer<()>),
    Forget(String, Answer<Forgotten>),
    Unsay(Vec<String>, Answer<usize>),
    Index(Answer<()>),
    Keep(Keep, Answer<()>),
}

/// What the service keeps of itself.
type Keep = Box<dyn FnOnce(&mut dyn Sql) -> Result<()> + Send>;
type Answer<T> = oneshot::Sender<Result<T>>;

/// A store over connections.
pub(crate) struct Database {
    name: String,
    connect: Connect,
    idle: Mutex<Vec<Box<dyn Sql>>>,
    readers: Semaphore,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the store and brings its schema up to date. Blocks.
    pub fn open(name: String, connect: Connect) -> Result<Self> {
        let mut sql = connect()?;
        crate::schema::migrate(&mut *sql, &name)?;
        let (jobs, queue) = mpsc::channel(2 * GROUP);
        let reconnect = connect.clone();
        let writer = std::thread::Builder::new()
            .name("hone-store".into())
            .spawn(move || Writer { sql: Some(sql), connect: reconnect, queue }.work())
            .map_err(|error| Error::Refused { store: name.clone(), why: error.to_string() })?;
        Ok(Database {
            name,
            connect,
            idle: Mutex::new(Vec::new()),
            readers: Semaphore::new(READERS),
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T> {
        let (answer, wait) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(job(answer)).await.map_err(|_| Error::Closed)?;
        wait.await.map_err(|_| Error::Closed)?
    }

    /// Reads in one state of the database, on a thread that may block.
    async fn read<T: Send + 'static>(
        self: &Database,
        work: impl Fn(&mut dyn Sql) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.readers.acquire().await.map_err(|_| Error::Closed)?;
        let pooled = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connect = self.connect.clone();
        let done = tokio::task::spawn_blocking(move || {
            if let Some(mut sql) = pooled {
                match in_one_state(&mut *sql, &work) {
                    // A connection that broke while it lay idle is no fault of the store.
                    Err(Error::Unreachable { .. }) => {}
                    done => return (done, sound(sql)),
                }
            }
            match connect() {
                Ok(mut sql) => (in_one_state(&mut *sql, &work), sound(sql)),
                Err(error) => (Err(error), None),
            }
        });
        let (done, sql) = done
            .await
            .map_err(|error| Error::Refused { store: self.name.clone(), why: error.to_string() })?;
        if let Some(sql) = sql {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sql);
        }
        done
    }
}

/// The connection, if it can serve on.
fn sound(mut sql: Box<dyn Sql>) -> Option<Box<dyn Sql>> {
    sql.is_sound().then_some(sql)
}

fn in_one_state<T>(sql: &mut dyn Sql, work: &dyn Fn(&mut dyn Sql) -> Result<T>) -> Result<T> {
    sql.begin_read()?;
    let done = work(sql);
    let ended = if done.is_ok() { sql.commit() } else { sql.rollback() };
    done.and_then(|value| ended.map(|()| value))
}

impl Drop for Database {
    /// Writes what is queued.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        // Clients of Postgres block when they end, which a thread of an asynchronous runtime must not.
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        let _ = std::thread::spawn(move || drop(idle)).join();
    }
}

/// The one thread that writes.
struct Writer {
    sql: Option<Box<dyn Sql>>,
    connect: Connect,
    queue: mpsc::Receiver<Job>,
}

impl Writer {
    fn work(&mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            // While one group is committed the next one gathers: no timer is needed.
            let mut group = vec![first];
            while group.len() < GROUP {
                match self.queue.try_recv() {
                    Ok(job) => group.push(job),
                    Err(_) => break,
                }
            }
            self.group(group);
        }
    }

    /// A connection that answers: the one at hand, or a new one.
    fn connection(&mut self) -> Result<&mut dyn Sql> {
        let sound = self.sql.as_mut().is_some_and(|sql| sql.is_sound());
        let sql = match self.sql.take().filter(|_| sound) {
            Some(sql) => sql,
            None => (self.connect)()?,
        };
        Ok(&mut **self.sql.insert(sql))
    }

    fn group(&mut self, group: Vec<Job>) {
        let (mut puts, mut says, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for job in group {
            match job {
                Job::Put(records, answer) => puts.push((records, answer)),
                Job::Say(items, answer) => says.push((items, answer)),
                job => rest.push(job),
            }
        }
        if !(puts.is_empty() && says.is_empty()) {
            match self.together(&puts, &says) {
                Ok((put, said)) => {
                    answer_parts(puts, put);
                    answer_parts(says, said);
                }
                // One writer's input may be what the database refuses: then each is tried alone.
                Err(Error::Refused { .. }) if puts.len() + says.len() > 1 => {
                    for job in puts {
                        let done = self.together(std::slice::from_ref(&job), &[]).map(|(put, _)| put);
                        let _ = job.1.send(done);
                    }
                    for job in says {
                        let done = self.together(&[], std::slice::from_ref(&job)).map(|(_, said)| said);
                        let _ = job.1.send(done);
                    }
                }
                Err(error) => {
                    puts.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
                    says.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
                }
            }
        }
        for job in rest {
            match job {
                Job::Run(run, items, answer) => {
                    let _ = answer.send(self.in_tx(|tx| tx.record_run(&run, &items)));
                }
                Job::Forget(person, answer) => {
                    let _ = answer.send(self.forget(&person));
                }
                Job::Unsay(keys, answer) => {
                    let _ = answer.send(self.in_tx(|tx| tx.unsay(&keys)));
                }
                Job::Index(answer) => self.index(answer),
                Job::Keep(work, answer) => {
                    let _ = answer.send(self.in_tx(|tx| work(tx.sql)));
                }
                Job::Put(..) | Job::Say(..) => {}
            }
        }
    }

    fn in_tx<T>(&mut self, work: impl FnOnce(&mut Tx) -> Result<T>) -> Result<T> {
        let mut begun = Tx::begin(self.connection()?);
        if matches!(begun, Err(Error::Unreachable { .. })) {
            // The connection broke while nothing was sent: nothing can have been written.
            drop(begun);
            self.sql = None;
            begun = Tx::begin(self.connection()?);
        }
        let mut tx = begun?;
        match work(&mut tx) {
            Ok(value) => tx.commit().map(|()| value),
            Err(error) => {
                tx.rollback();
                Err(error)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "results of two kinds of jobs")]
    fn together(
        &mut self,
        puts: &[(Vec<Exchange>, Answer<Vec<Result<Put>>>)],
        says: &[(Vec<Said>, Answer<Vec<Result<Receipt>>>)],
    ) -> Result<(Vec<Result<Put>>, Vec<Result<Receipt>>)> {
        let records: Vec<&Exchange> = puts.iter().flat_map(|(records, _)| records).collect();
        let items: Vec<&Said> = says.iter().flat_map(|(items, _)| items).collect();
        self.in_tx(|tx| {
            let put = if records.is_empty() { Vec::new() } else { tx.put(&records)? };
            let said = if items.is_empty() { Vec::new() } else { tx.say(&items)? };
            Ok((put, said))
        })
    }

    fn forget(&mut self, person: &str) -> Result<Forgotten> {
        self.connection()?.wipe(true)?;
        let done = self.in_tx(|tx| tx.forget(person));
        self.connection()?.wipe(false)?;
        done
    }

    /// Catches up with the full-text index, one part a time so that writers need not wait for all of it.
    fn index(&mut self, answer: Answer<()>) {
        loop {
            match self.in_tx(|tx| index_some(tx.sql)) {
                Ok(true) => {
                    let _ = answer.send(Ok(()));
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    let _ = answer.send(Err(error));
                    return;
                }
            }
        }
    }
}

/// Gives each job its part of the results, which lie in the jobs' order.
fn answer_parts<I, T>(jobs: Vec<(Vec<I>, Answer<Vec<T>>)>, results: Vec<T>) {
    let mut results = results.into_iter();
    for (inputs, answer) in jobs {
        // The caller may have gone.
        let _ = answer.send(Ok(results.by_ref().take(inputs.len()).collect()));
    }
}

#[async_trait]
impl Store for Database {
    async fn put(&self, records: Vec<Record>) -> Result<Vec<Result<Put>>> {
        let now = rows::now();
        let mut faults = Vec::new();
        let mut sound = Vec::with_capacity(records.len());
        for (index, record) in records.into_iter().enumerate() {
            match Exchange::new(record, now) {
                Ok(exchange) => sound.push(exchange),
                Err(error) => faults.push((index, error)),
            }
        }
        if sound.is_empty() {
            return Ok(faults.into_iter().map(|(_, error)| Err(error)).collect());
        }
        let mut results = self.ask(|answer| Job::Put(sound, answer)).await?;
        for (index, error) in faults {
            results.insert(index.min(results.len()), Err(error));
        }
        Ok(results)
    }

    async fn say(&self, items: Vec<Said>) -> Result<Vec<Result<Receipt>>> {
        self.ask(|answer| Job::Say(items, answer)).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let id = id.to_owned();
        self.read(move |sql| read::get(sql, &id)).await
    }

    async fn lines(&self, after: i64, limit: usize) -> Result<Lines> {
        self.read(move |sql| read::lines(sql, after, limit)).await
    }

    async fn search(&self, query: Query) -> Result<Page> {
        if query.text.is_some() {
            // What was acknowledged is found.
            self.ask(Job::Index).await?;
        }
        self.read(move |sql| search::search(sql, &query)).await
    }

    async fn tallies(&self, days: RangeInclusive<i64>) -> Result<Vec<Tally>> {
        self.read(move |sql| read::tallies(sql, *days.start(), *days.end())).await
    }

    async fn waiting(&self) -> Result<Vec<Waiting>> {
        self.read(read::waiting).await
    }

    async fn record_run(&self, run: Run, items: Vec<String>) -> Result<()> {
        self.ask(|answer| Job::Run(run, items, answer)).await
    }

    async fn runs_of(&self, item: &str) -> Result<Vec<Run>> {
        let item = item.to_owned();
        self.read(move |sql| forget::runs(sql, &[Value::Text(&item)])).await
    }

    async fn items_of(&self, run: &str) -> Result<Vec<String>> {
        let run = run.to_owned();
        self.read(move |sql| {
            let rows = sql.query("SELECT item FROM run_item WHERE run = $1", &[(&run).into()])?;
            let mut items: Vec<String> = rows.into_iter().map(|mut row| row.text(0)).collect();
            items.sort();
            Ok(items)
        })
        .await
    }

    async fn forget(&self, person: &str) -> Result<Forgotten> {
        self.ask(|answer| Job::Forget(person.to_owned(), answer)).await
    }

    async fn unsay(&self, keys: Vec<String>) -> Result<usize> {
        self.ask(|answer| Job::Unsay(keys, answer)).await
    }

    async fn runs(&self) -> Result<Vec<Run>> {
        self.read(keeps::runs).await
    }

    async fn means(&self, tag: &str) -> Result<Vec<Mean>> {
        let tag = tag.to_owned();
        self.read(move |sql| keeps::means(sql, &tag)).await
    }

    async fn add_key(&self, key: Key) -> Result<()> {
        self.ask(|answer| Job::Keep(Box::new(move |sql| keeps::add_key(sql, &key)), answer)).await
    }

    async fn keys(&self) -> Result<Vec<Key>> {
        self.read(keeps::keys).await
    }

    async fn revoke_key(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.ask(|answer| Job::Keep(Box::new(move |sql| keeps::revoke_key(sql, &id)), answer)).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        self.read(move |sql| keeps::setting(sql, &name)).await
    }

    async fn set(&self, name: &str, body: Option<String>) -> Result<()> {
        let name = name.to_owned();
        self.ask(|answer| Job::Keep(Box::new(move |sql| keeps::set(sql, &name, body.as_deref())), answer))
            .await
    }

    async fn ready(&self) -> Result<()> {
        self.read(|sql| sql.query("SELECT 1 FROM counter", &[]).map(drop)).await
    }
}
