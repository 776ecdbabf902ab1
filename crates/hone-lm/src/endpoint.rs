//! Models behind an OpenAI-compatible API: chat, completions, embeddings.
//!
//! Calls run on a small runtime of their own, hundreds at a time from one thread, so the trait's methods can be called
//! from anywhere and simply block.

use std::collections::HashMap;
use std::future::Future;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::{
    Capabilities, Continuation, Event, FinishReason, GenerateRequest, Generation, LanguageModel, Prompt,
    Sample, ScoreRequest, Scored, Timings, Usage,
};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

mod cache;
mod client;
mod config;
mod price;
mod probe;
mod rate;
pub mod stream;
mod wire;

pub use config::{Dialect, EndpointConfig, Retry, TimeLimits};
pub use price::{Price, PriceTable};

use cache::{Cache, Key};
use client::{Call, Client, News};
use wire::Reader;

/// Texts that go into one embeddings call.
const EMBEDDING_BATCH: usize = 64;

/// A model behind an API.
#[derive(Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
    capabilities: Capabilities,
    template: Option<ChatTemplate>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Inner {
    config: EndpointConfig,
    client: Client,
    cache: Option<Cache>,
    slots: Arc<Semaphore>,
    totals: Mutex<Totals>,
}

/// What an endpoint was used for since it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Calls that gave a usable answer.
    pub calls: u64,
    /// Calls that failed and were made again.
    pub retries: u64,
    /// Answers from the cache.
    pub cached: u64,
    /// Tokens paid for.
    pub usage: Usage,
    /// Money spent, as far as prices are known.
    pub cost: f64,
}

impl Endpoint {
    /// Connects, and finds out what the endpoint can do unless `capabilities` says so.
    ///
    /// # Errors
    /// [`Error::Endpoint`] for settings that cannot work, a key that is not set or refused, an address where nothing
    /// answers; those of reading the template folder.
    pub fn connect(config: EndpointConfig) -> Result<Self> {
        let client = Client::new(&config)?;
        let failed = |message: String| Error::Endpoint { url: client.base.clone(), message };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hone-endpoint")
            .enable_all()
            .build()
            .map_err(|e| failed(format!("no runtime: {e}")))?;
        let template = match &config.template {
            Some(folder) => {
                let tokenizer = Tokenizer::from_folder(folder)?;
                let template = ChatTemplate::from_folder(folder, &tokenizer)?;
                Some(template.ok_or_else(|| Error::NoTemplate { path: folder.clone() })?)
            }
            None => None,
        };
        let cache = config.cache.as_deref().map(Cache::new).transpose()?;
        let client = Arc::new(client);
        let capabilities = match &config.capabilities {
            Some(declared) => {
                let name = format!("{} at {}", config.model, client.base);
                Capabilities { name, ..declared.clone() }
            }
            None => wait(&runtime, probe::probe(client.clone(), config.clone()), &client.base)??,
        };
        // The probe is done, so this is the only owner left.
        let client = match Arc::try_unwrap(client) {
            Ok(client) => client,
            Err(_) => Client::new(&config)?,
        };
        let slots = Arc::new(Semaphore::new(config.concurrency));
        let inner = Inner { client, cache, slots, totals: Mutex::default(), config };
        Ok(Endpoint { inner: Arc::new(inner), capabilities, template, runtime: Some(runtime) })
    }

    /// What it was used for so far.
    pub fn totals(&self) -> Totals {
        *self.inner.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one job per item, as many at a time as there are slots, and returns the results in order.
    fn run<J, T, F>(
        &self,
        jobs: Vec<J>,
        work: fn(Arc<Inner>, usize, J, Sender<Note<T>>) -> F,
        on: &mut dyn FnMut(Event),
    ) -> Result<Vec<Result<T>>>
    where
        J: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else { return Err(Error::Cancelled) };
        let mut results: Vec<Option<Result<T>>> = jobs.iter().map(|_| None).collect();
        let (sender, receiver) = channel();
        let inner = self.inner.clone();
        let driver = runtime.spawn(async move {
            let mut tasks = JoinSet::new();
            for (index, job) in jobs.into_iter().enumerate() {
                // The semaphore is never closed.
                let Ok(slot) = inner.slots.clone().acquire_owned().await else { break };
                let (inner, sender) = (inner.clone(), sender.clone());
                tasks.spawn(async move {
                    let result = work(inner, index, job, sender.clone()).await;
                    // Given back before the result is seen, so that a caller who goes on finds the slot free.
                    drop(slot);
                    let _ = sender.send(Note::Done(index, result));
                });
                while tasks.try_join_next().is_some() {}
            }
            drop(sender);
            while tasks.join_next().await.is_some() {}
        });
        // Should the caller's function panic, the calls stop with it.
        let _guard = AbortOnDrop(driver.abort_handle());
        for note in receiver {
            match note {
                Note::Event(event) => on(event),
                Note::Done(index, result) => results[index] = Some(result),
            }
        }
        let lost = || Error::Endpoint {
            url: self.inner.client.base.clone(),
            message: "a call ended without result".into(),
        };
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(lost()))).collect())
    }

    fn score_job(&self, index: usize, request: &ScoreRequest) -> Result<ScoreJob> {
        let mixed = || Error::Setting {
            index,
            field: "continuation",
            needed: "prompt and continuation both as text or both as token ids",
            got: "one of each".into(),
        };
        let prompt = match &request.prompt {
            Prompt::Tokens(ids) => {
                let Continuation::Tokens(continuation) = &request.continuation else { return Err(mixed()) };
                let all: Vec<u32> = ids.iter().chain(continuation).copied().collect();
                return Ok(ScoreJob { prompt: json!(all), part: Part::Count(ids.len(), continuation.len()) });
            }
            Prompt::Text(text) => text.clone(),
            Prompt::Messages { messages, options } => {
                let Some(template) = &self.template else {
                    return Err(Error::Unsupported {
                        model: self.capabilities.name.clone(),
                        what: "score continuations of conversations",
                        why: "the API echoes raw text only; set `template` to a folder with the model's chat template"
                            .into(),
                    });
                };
                let mut options = (**options).clone();
                options.add_generation_prompt = !options.continue_final_message;
                template.render(messages, &options)?
            }
        };
        let Continuation::Text(continuation) = &request.continuation else { return Err(mixed()) };
        Ok(ScoreJob {
            prompt: json!(format!("{prompt}{continuation}")),
            part: Part::Text(prompt, continuation.clone()),
        })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // A plain drop would block, and panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl LanguageModel for Endpoint {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn generate(
        &self,
        requests: &[GenerateRequest],
        on: &mut dyn FnMut(Event),
    ) -> Result<Vec<Result<Generation>>> {
        self.capabilities.check(requests)?;
        let config = &self.inner.config;
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut jobs = Vec::with_capacity(requests.len());
        for request in requests {
            let (path, body) = wire::generate_body(&config.model, config.dialect, request)?;
            let body = Value::Object(body);
            let url = self.inner.client.url(path);
            let base = Key::new(&url, &body, request.draw, 0);
            let repeat = seen.entry(base.hex().to_owned()).or_insert(0);
            let key = if *repeat == 0 { base } else { Key::new(&url, &body, request.draw, *repeat) };
            *repeat += 1;
            jobs.push(GenerateJob { path, body, key, request: request.clone() });
        }
        self.run(jobs, generate_one, on)
    }

    fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Result<Scored>>> {
        self.capabilities.check_score(requests)?;
        let jobs =
            requests.iter().enumerate().map(|(i, r)| self.score_job(i, r)).collect::<Result<Vec<_>>>()?;
        self.run(jobs, score_one, &mut |_| {})
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        self.capabilities.check_embed(texts)?;
        let jobs: Vec<Vec<String>> = texts.chunks(EMBEDDING_BATCH).map(<[String]>::to_vec).collect();
        let batches = self.run(jobs, embed_some, &mut |_| {})?.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(batches.into_iter().flatten().collect())
    }
}

/// What a job tells the calling thread.
enum Note<T> {
    Event(Event),
    Done(usize, Result<T>),
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct GenerateJob {
    path: &'static str,
    body: Value,
    key: Key,
    request: GenerateRequest,
}

async fn generate_one(
    inner: Arc<Inner>,
    index: usize,
    job: GenerateJob,
    notes: Sender<Note<Generation>>,
) -> Result<Generation> {
    let started = Instant::now();
    let tell = |event| {
        let _ = notes.send(Note::Event(event));
    };
    if job.request.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let url = inner.client.url(job.path);
    let reader = Reader { url: &url };
    let kept = inner.cache.as_ref().and_then(|cache| cache.get(&job.key));
    // An answer that lacks what is asked for is no answer: it is asked for again.
    let kept =
        kept.and_then(|answer| reader.samples(&answer, &job.request).ok().map(|samples| (answer, samples)));
    let (answer, samples, attempts, first_piece) = match kept {
        Some((answer, samples)) => {
            pieces(&samples, index, &tell);
            inner.count(|totals| totals.cached += 1);
            (answer, samples, 0, None)
        }
        None => {
            let call = Call {
                path: job.path,
                estimate: estimate(&job.body, &job.request),
                body: Some(job.body.clone()),
                stream: job.request.stream,
                cancel: job.request.cancel.clone(),
            };
            let tell_news = notes.clone();
            let counted = inner.clone();
            let news = move |news: News| {
                let event = match news {
                    News::Piece(sample, text) => Event::Piece { request: index, sample, text },
                    News::Retry { attempt, wait, why } => {
                        counted.count(|totals| totals.retries += 1);
                        Event::Retry { request: index, attempt, wait, why }
                    }
                };
                let _ = tell_news.send(Note::Event(event));
            };
            let reply = inner.client.call(&call, &news).await?;
            let samples = reader.samples(&reply.answer, &job.request);
            // What there is of a cancelled answer may lack whole choices.
            let samples =
                samples.map_err(|e| if job.request.cancel.is_cancelled() { Error::Cancelled } else { e })?;
            let whole = samples.iter().all(|s| s.finish != FinishReason::Cancelled);
            if let Some(cache) = inner.cache.as_ref().filter(|_| whole) {
                cache.put(&job.key, &reply.answer)?;
            }
            // A server may answer a request for pieces with a whole.
            if reply.first_piece.is_none() {
                pieces(&samples, index, &tell);
            }
            (reply.answer, samples, reply.attempts, reply.first_piece)
        }
    };
    for (sample, answer) in samples.iter().enumerate() {
        tell(Event::Finished { request: index, sample, reason: answer.finish.clone() });
    }
    let usage = wire::usage(&answer);
    let price = inner.config.prices.cost(&inner.config.model, &usage);
    let cost = if attempts == 0 { price.map(|_| 0.0) } else { price };
    if attempts > 0 {
        inner.count_call(usage, cost);
    }
    Ok(Generation {
        samples,
        usage,
        cost,
        timings: Timings { first_piece, total: started.elapsed() },
        model: answer.get("model").and_then(Value::as_str).unwrap_or(&inner.config.model).to_owned(),
        attempts,
        raw: inner.config.capture_raw.then_some(answer),
    })
}

/// Each answer as one piece.
fn pieces(samples: &[Sample], request: usize, tell: &dyn Fn(Event)) {
    for (sample, answer) in samples.iter().enumerate() {
        if !answer.text.is_empty() {
            tell(Event::Piece { request, sample, text: answer.text.clone() });
        }
    }
}

/// Tokens that a request may cost: four bytes of its body each, and all it may write.
fn estimate(body: &Value, request: &GenerateRequest) -> f64 {
    let prompt = body.get("messages").or_else(|| body.get("prompt")).map_or(0, |p| p.to_string().len());
    (prompt / 4 + request.n * request.sampling.max_tokens.unwrap_or(0)) as f64
}

struct ScoreJob {
    prompt: Value,
    part: Part,
}

/// Which part of an echoed text is scored.
enum Part {
    /// By the texts of prompt and continuation.
    Text(String, String),
    /// By their numbers of tokens.
    Count(usize, usize),
}

async fn score_one(inner: Arc<Inner>, _: usize, job: ScoreJob, _: Sender<Note<Scored>>) -> Result<Scored> {
    // One token is written and thrown away: servers refuse to write none.
    let body = json!({
        "model": inner.config.model,
        "prompt": job.prompt,
        "max_tokens": 1,
        "temperature": 0,
        "echo": true,
        "logprobs": 1,
    });
    let url = inner.client.url("completions");
    let reader = Reader { url: &url };
    let read = |answer: &Value| match &job.part {
        Part::Text(prompt, continuation) => reader.scored(answer, prompt, continuation),
        Part::Count(prompt, continuation) => reader.scored_by_count(answer, *prompt, *continuation),
    };
    let key = Key::new(&url, &body, 0, 0);
    if let Some(scored) = inner.cache.as_ref().and_then(|c| c.get(&key)).and_then(|answer| read(&answer).ok())
    {
        inner.count(|totals| totals.cached += 1);
        return Ok(scored);
    }
    let answer = inner.plain_call("completions", body).await?;
    let scored = read(&answer)?;
    if let Some(cache) = &inner.cache {
        cache.put(&key, &answer)?;
    }
    Ok(scored)
}

async fn embed_some(
    inner: Arc<Inner>,
    _: usize,
    texts: Vec<String>,
    _: Sender<Note<Vec<Vec<f32>>>>,
) -> Result<Vec<Vec<f32>>> {
    let body = json!({"model": inner.config.model, "input": texts});
    let url = inner.client.url("embeddings");
    let reader = Reader { url: &url };
    let key = Key::new(&url, &body, 0, 0);
    let kept = inner.cache.as_ref().and_then(|c| c.get(&key));
    if let Some(vectors) = kept.and_then(|answer| reader.embeddings(&answer, texts.len()).ok()) {
        inner.count(|totals| totals.cached += 1);
        return Ok(vectors);
    }
    let answer = inner.plain_call("embeddings", body).await?;
    let vectors = reader.embeddings(&answer, texts.len())?;
    if let Some(cache) = &inner.cache {
        cache.put(&key, &answer)?;
    }
    Ok(vectors)
}

impl Inner {
    /// A call without pieces, counted.
    async fn plain_call(&self, path: &'static str, body: Value) -> Result<Value> {
        let estimate = (body.to_string().len() / 4) as f64;
        let call = Call { path, body: Some(body), stream: false, estimate, cancel: Cancel::new() };
        let news = |news: News| {
            if let News::Retry { .. } = news {
                self.count(|totals| totals.retries += 1);
            }
        };
        let reply = self.client.call(&call, &news).await?;
        let usage = wire::usage(&reply.answer);
        self.count_call(usage, self.config.prices.cost(&self.config.model, &usage));
        Ok(reply.answer)
    }

    fn count_call(&self, usage: Usage, cost: Option<f64>) {
        self.count(|totals| {
            totals.calls += 1;
            totals.usage += usage;
            totals.cost += cost.unwrap_or(0.0);
        });
    }

    fn count(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Waits on this thread for work on the runtime. `block_on` would panic inside another runtime.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
    url: &str,
) -> Result<T> {
    let (sender, receiver) = channel();
    runtime.spawn(async move {
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|_| Error::Endpoint {
        url: url.to_owned(),
        message: "the probe ended without result".into(),
    })
}
