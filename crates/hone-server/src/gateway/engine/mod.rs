//! The built-in engine as a backend. Requests of all callers run in one engine, whose sequences join and leave the
//! running batch at every step.

mod request;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hone_lm::{Cancel, Event, GenerateRequest, Generation, LanguageModel};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::seconds;
use crate::error::ApiError;
use crate::ids;

use super::backend::Backend;
use super::call::{Call, Endpoint};
use super::proxy::{mark, name, prefix};
use super::stream::{Taken, response, sse, sse_error};

use request::{Asked, Embed};
use wire::Writer;

/// Requests in the engine at once; each holds a thread that waits, and others come to wait without one.
const AT_ONCE: usize = 256;
/// Pieces that may wait for a slow reader.
const AHEAD: usize = 256;

/// A model on this machine.
pub(crate) struct Engine {
    pub model: Arc<dyn LanguageModel>,
    places: Arc<Semaphore>,
}

/// Stops the engine's work when its caller goes away.
struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Engine {
    pub fn new(model: Arc<dyn LanguageModel>) -> Self {
        Engine { model, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// What of the request the engine cannot do, or that it failed.
    pub async fn answer(&self, app: &App, call: &Call, backend: &Backend) -> Result<Response, ApiError> {
        if call.endpoint == Endpoint::Embeddings {
            return self.embed(call, backend).await;
        }
        let asked = Asked::parse(call)?;
        // Whatever the engine refuses, it refuses before a stream has begun.
        self.model.capabilities().check(&asked.requests).map_err(refused)?;
        let place = self.place().await?;
        let id = ids::new(prefix(call.endpoint));
        let created = call.at.as_second();
        let writer = Writer { id: id.clone(), created, model: call.model.clone(), endpoint: call.endpoint };
        let limit = seconds(backend.config.total_s);
        if call.stream {
            return Ok(self.stream(app, call, backend, asked, writer, limit, place));
        }
        let stop = StopOnDrop(asked.cancel.clone());
        let done = tokio::time::timeout(limit, self.generate(asked.requests.clone(), None, place)).await;
        drop(stop);
        let generations = done.map_err(|_| too_slow(limit))??;
        let body = writer.whole(&asked, &generations);
        let text = Bytes::from(body.to_string());
        // The id is the service's own and new, so the text stays as it is.
        let (text, id) = name(app, call, body, text, &backend.config.name).await;
        let mut answer = ([("content-type", "application/json")], text).into_response();
        mark(answer.headers_mut(), id.as_deref(), backend);
        Ok(answer)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let closed = |_| ApiError::unavailable("needed an engine that goes on, got one that is stopping");
        self.places.clone().acquire_owned().await.map_err(closed)
    }

    /// Runs requests on a thread of their own, which waits for the engine's.
    async fn generate(
        &self,
        requests: Vec<GenerateRequest>,
        news: Option<mpsc::Sender<(usize, String)>>,
        place: OwnedSemaphorePermit,
    ) -> Result<Vec<Generation>, ApiError> {
        let model = self.model.clone();
        let work = move || {
            let _place = place;
            let n = requests.first().map_or(1, |request| request.n);
            let cancel = requests.first().map(|request| request.cancel.clone());
            model.generate(&requests, &mut |event| {
                if let (Event::Piece { request, sample, text }, Some(news)) = (event, &news)
                    && news.blocking_send((request * n + sample, text)).is_err()
                    && let Some(cancel) = &cancel
                {
                    cancel.cancel();
                }
            })
        };
        let failed = |error: tokio::task::JoinError| {
            tracing::error!(%error, "the engine failed");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", "the engine failed")
        };
        let answers = tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(refused)?;
        answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(refused)
    }

    fn stream(
        &self,
        app: &App,
        call: &Call,
        backend: &Backend,
        asked: Asked,
        writer: Writer,
        limit: Duration,
        place: OwnedSemaphorePermit,
    ) -> Response {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let mut answer = response(pieces);
        mark(answer.headers_mut(), Some(&writer.id), backend);
        let (news, heard) = mpsc::channel(AHEAD);
        let engine = Engine { model: self.model.clone(), places: self.places.clone() };
        let taken = Taken::new(writer.id.clone(), false);
        let (app, call, backend) = (app.clone(), call.copy(), backend.config.name.clone());
        app.tasks.clone().spawn(async move {
            let run = Run {
                call: &call,
                asked: &asked,
                writer: &writer,
                sender,
                taken,
                ending: app.ending.clone(),
            };
            let work = engine.generate(asked.requests.clone(), Some(news), place);
            let (taken, cut) = run.through(heard, work, limit).await;
            taken.keep(&app, &call, &backend, cut).await;
        });
        answer
    }

    async fn embed(&self, call: &Call, backend: &Backend) -> Result<Response, ApiError> {
        let Embed { texts, base64 } = Embed::parse(call)?;
        let place = self.place().await?;
        let model = self.model.clone();
        let count = texts.len();
        let work = move || {
            let _place = place;
            model.embed(&texts)
        };
        let failed =
            |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", "the engine failed");
        let vectors = tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(refused)?;
        debug_assert_eq!(vectors.len(), count);
        let mut answer = Json(wire::embeddings(&call.model, &vectors, base64)).into_response();
        mark(answer.headers_mut(), None, backend);
        Ok(answer)
    }
}

/// A streamed answer under way.
struct Run<'a> {
    call: &'a Call,
    asked: &'a Asked,
    writer: &'a Writer,
    sender: mpsc::Sender<Bytes>,
    taken: Taken,
    ending: CancellationToken,
}

impl Run<'_> {
    /// Sends pieces as they come, then how each answer ended.
    async fn through(
        mut self,
        mut heard: mpsc::Receiver<(usize, String)>,
        work: impl Future<Output = Result<Vec<Generation>, ApiError>>,
        limit: Duration,
    ) -> (Taken, Option<&'static str>) {
        for index in 0..self.asked.choices() {
            let chunk = self.writer.opening(index);
            self.send(chunk).await;
        }
        let cancel = self.asked.cancel.clone();
        let slow = tokio::time::sleep(limit);
        tokio::pin!(work, slow);
        let mut cut = None;
        let mut ended = None;
        // Pieces that the engine has said are sent before its end is.
        loop {
            tokio::select! {
                biased;
                piece = heard.recv(), if cut.is_none() => match piece {
                    Some((index, text)) => {
                        let chunk = self.writer.piece(index, &text);
                        self.send(chunk).await;
                    }
                    None => break,
                },
                () = self.sender.closed(), if cut.is_none() => {
                    cut = Some("client");
                    cancel.cancel();
                }
                () = self.ending.cancelled(), if cut.is_none() => {
                    cut = Some("service");
                    cancel.cancel();
                }
                () = &mut slow, if cut.is_none() => {
                    cut = Some("time");
                    cancel.cancel();
                }
                done = &mut work, if ended.is_none() => {
                    ended = Some(done);
                    if cut.is_some() {
                        break;
                    }
                }
                else => break,
            }
            if cut.is_some() {
                // Room for what the engine still says, or it would wait for ever.
                heard.close();
                while heard.try_recv().is_ok() {}
            }
        }
        let ended = match ended {
            Some(ended) => ended,
            None => work.await,
        };
        match ended {
            Ok(generations) => {
                for chunk in self.writer.closing(self.asked, &generations) {
                    self.send(chunk).await;
                }
                let usage = self.writer.usage(&generations);
                if self.asked.include_usage {
                    self.send(usage).await;
                } else {
                    // Kept, though not asked for.
                    self.taken.event(&usage.to_string(), self.call.started);
                }
                self.taken.event("[DONE]", self.call.started);
                let _ = self.sender.send(sse("[DONE]")).await;
            }
            Err(error) => {
                cut = cut.or(Some("engine"));
                let _ = self.sender.send(sse_error(&error)).await;
            }
        }
        (self.taken, cut)
    }

    async fn send(&mut self, chunk: Value) {
        let text = chunk.to_string();
        self.taken.event(&text, self.call.started);
        // A caller that has gone is noticed by the loop.
        let _ = self.sender.send(sse(&text)).await;
    }
}

fn too_slow(limit: Duration) -> ApiError {
    let message = format!("the engine gave no answer within {limit:.1?}");
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
}

/// What the engine says of a request.
fn refused(error: hone_lm::Error) -> ApiError {
    use hone_lm::Error as Lm;
    let bad = |code, param: Option<&str>| ApiError {
        param: param.map(str::to_owned),
        ..ApiError::new(StatusCode::BAD_REQUEST, code, error.to_string())
    };
    match &error {
        Lm::Setting { field, .. } => bad("invalid_value", Some(*field)),
        Lm::Empty { what, .. } => bad("invalid_value", Some(*what)),
        Lm::TooLong { .. } => bad("context_length_exceeded", None),
        Lm::Unsupported { .. } | Lm::NoTemplate { .. } => bad("unsupported", None),
        Lm::Constraint(_) => bad("invalid_value", Some("response_format")),
        Lm::Template { .. } | Lm::TemplateRefused { .. } | Lm::Message { .. } | Lm::Tokenize(_) => {
            bad("invalid_value", Some("messages"))
        }
        _ => {
            tracing::error!(%error, "the engine failed");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", "the engine failed")
        }
    }
}
