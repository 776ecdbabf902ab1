//! What people and programs say about answers: every form, one item or many, also before the answer is stored.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use hone_feedback::{Fault, Feedback};
use hone_store::{Receipt, Said, State as Standing};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Caller, Feedback as MaySay};
use crate::body::{self, Object, kind};
use crate::error::{ApiError, ErrorBody, Result};
use crate::metrics::Of;

/// Refused items of a batch that are told one by one; the rest is counted.
const TOLD: usize = 20;
/// Items of a batch that are stored together.
const TOGETHER: usize = 5000;

/// What became of an item.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ReceiptBody {
    /// Names the item.
    id: String,
    /// `joined` to its answer; `early`: kept until the answer is stored; `repeated`: stored before, under its key.
    state: String,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct BatchBody {
    /// Items with their answers.
    joined: u64,
    /// Items whose answers are not stored yet.
    early: u64,
    /// Items that were stored before, under their keys.
    repeated: u64,
    /// Items that were left out.
    refused: u64,
    /// The first of those, and why.
    errors: Vec<BatchError>,
}

/// An item that was left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchError {
    /// Its place, from 1: a line, or a place in the list.
    line: usize,
    /// What was needed and what came.
    message: String,
    /// The field at fault.
    param: Option<String>,
    /// A stable word for programs.
    code: String,
}

/// Feedback on an answer, as `form` says. All forms may have `aspect`, `text`, `by` (who says so: without it
/// the header `x-hone-user`, else the key), `at`, `exchange` and `key`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by the log's own reader")]
#[schema(example = json!({"form": "thumb", "on": "chatcmpl-1", "value": true}))]
pub(crate) struct FeedbackItem {
    /// `thumb` (on, value), `rating` (on, value, scale), `comparison` (better, worse), `ranking` (order), `critique`
    /// (on, text), `edit` (on, content), `span` (on, start, end, label, value), `step` (on, index, correct),
    /// `outcome` (on, check, passed), `event` (on, event, value) or `rule` (text, scope).
    form: String,
    /// The answer's id. `response_id` is another name for it.
    on: Option<String>,
    /// The exchange, where an answer's id alone does not say which.
    exchange: Option<String>,
    /// Sent again under the same key, an item is stored once. The header `Idempotency-Key` sets it too.
    key: Option<String>,
    /// Of a thumb true or false, else a number.
    #[schema(value_type = Option<Value>)]
    value: Option<Value>,
    /// Lowest and highest mark.
    scale: Option<[f64; 2]>,
    /// What a rating is about.
    aspect: Option<String>,
    /// Words.
    text: Option<String>,
}

/// Stores one item of feedback. When this returns, it survives a loss of power.
#[utoipa::path(post, path = "/v1/feedback", tag = "feedback", request_body = FeedbackItem,
    params(("Idempotency-Key" = Option<String>, Header, description = "Sent again under it, the item is stored once")),
    responses((status = 200, description = "Stored before", body = ReceiptBody), (status = 201, body = ReceiptBody),
        (status = 202, description = "Kept until its answer is stored", body = ReceiptBody),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn give(
    State(app): State<App>,
    allowed: Allowed<MaySay>,
    headers: HeaderMap,
    item: Object,
) -> Result<(StatusCode, Json<ReceiptBody>)> {
    let mut said = parse(item.fields, &default_by(&allowed.0, &headers))?;
    if let Some(key) = headers.get("idempotency-key") {
        let needed = |_| ApiError::field("Idempotency-Key", "plain text", "other bytes");
        said.key = Some(key.to_str().map_err(needed)?.to_owned());
    }
    let feedback = said.feedback.clone();
    let receipt = app.store.say(vec![said]).await?.pop().unwrap_or(Err(hone_store::Error::Closed))?;
    stored(&app, &receipt, &feedback);
    let status = match receipt.state {
        Standing::Joined => StatusCode::CREATED,
        Standing::Early => StatusCode::ACCEPTED,
        Standing::Repeated => StatusCode::OK,
    };
    Ok((status, Json(receipt.into())))
}

/// Stores many items: a JSON list, or a line of JSON each (`application/x-ndjson`). What is refused is told; the rest
/// is stored.
#[utoipa::path(post, path = "/v1/feedback/batch", tag = "feedback",
    request_body(content((Vec<FeedbackItem> = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 200, body = BatchBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, description = "Every item was refused", body = BatchBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn give_many(
    State(app): State<App>,
    allowed: Allowed<MaySay>,
    request: Request,
) -> Result<(StatusCode, Json<BatchBody>)> {
    let by = default_by(&allowed.0, request.headers());
    let lines = body::is_lines(&body::content_type(request.headers()));
    let fits = |kind: &str| body::is_json(kind) || body::is_lines(kind);
    let limit = app.config.limits.batch_bytes;
    let bytes = body::read(request, &app, limit, fits, "application/json or application/x-ndjson").await?;
    // Parsing much would hold up the other requests of the thread.
    let parsed =
        tokio::task::spawn_blocking(
            move || if lines { parse_lines(&bytes, &by) } else { parse_list(&bytes, &by) },
        );
    let failed =
        |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "defect", "the batch could not be read");
    let parsed = parsed.await.map_err(failed)??;
    let mut answer = BatchBody::default();
    let mut part = Vec::with_capacity(parsed.len().min(TOGETHER));
    let mut places = Vec::with_capacity(part.capacity());
    for (place, item) in parsed {
        match item {
            Ok(said) => {
                places.push(place);
                part.push(said);
            }
            Err(error) => answer.refuse(place, error),
        }
        if part.len() == TOGETHER {
            answer.store(&app, std::mem::take(&mut part), std::mem::take(&mut places)).await?;
        }
    }
    answer.store(&app, part, places).await?;
    answer.errors.sort_by_key(|error| error.line);
    let nothing = answer.refused > 0 && answer.joined + answer.early + answer.repeated == 0;
    Ok((if nothing { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }, Json(answer)))
}

impl BatchBody {
    async fn store(&mut self, app: &App, part: Vec<Said>, places: Vec<usize>) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let told: Vec<Feedback> = part.iter().map(|said| said.feedback.clone()).collect();
        let results = app.store.say(part).await?;
        for ((result, feedback), place) in results.into_iter().zip(told).zip(places) {
            match result {
                Ok(receipt) => {
                    stored(app, &receipt, &feedback);
                    *match receipt.state {
                        Standing::Joined => &mut self.joined,
                        Standing::Early => &mut self.early,
                        Standing::Repeated => &mut self.repeated,
                    } += 1;
                }
                Err(error) => self.refuse(place, error.into()),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: usize, error: ApiError) {
        self.refused += 1;
        if self.errors.len() < TOLD {
            let ApiError { message, param, code, .. } = error;
            self.errors.push(BatchError { line, message, param, code: code.into() });
        }
    }
}

/// What follows the storing of an item.
fn stored(app: &App, receipt: &Receipt, feedback: &Feedback) {
    if receipt.state == Standing::Repeated {
        return;
    }
    app.metrics.feedback.get_or_create(&Of { form: feedback.form.kind().name() }).inc();
    app.webhooks.tell(app, receipt, feedback);
}

/// Who says so where the item does not.
fn default_by(caller: &Caller, headers: &HeaderMap) -> Option<String> {
    let named = headers.get("x-hone-user").and_then(|value| value.to_str().ok()).map(str::to_owned);
    named.or_else(|| caller.key.as_ref().map(|key| format!("key:{}", key.id)))
}

/// An item from its fields.
fn parse(mut fields: Map<String, Value>, by: &Option<String>) -> Result<Said> {
    let mut text = |name: &str| match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(ApiError::field(name, "text", kind(&other))),
    };
    let (exchange, key, on) = (text("exchange")?, text("key")?, text("response_id")?);
    if let Some(on) = on {
        fields.entry("on").or_insert(on.into());
    }
    let mut feedback = Feedback::from_object(fields).map_err(unsound)?;
    if feedback.by.is_none() {
        feedback.by.clone_from(by);
    }
    Ok(Said { exchange, feedback, key })
}

fn unsound(fault: Fault) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "unsound", fault.to_string()).at(fault.field)
}

type Parsed = Vec<(usize, Result<Said>)>;

fn parse_list(bytes: &[u8], by: &Option<String>) -> Result<Parsed> {
    let items: Value =
        serde_json::from_slice(bytes).map_err(|error| ApiError::field("body", "JSON", error))?;
    let Value::Array(items) = items else {
        return Err(ApiError::field("body", "a list of items", kind(&items)));
    };
    let item = |(place, item)| match item {
        Value::Object(fields) => (place, parse(fields, by)),
        other => (place, Err(ApiError::field("item", "a JSON object", kind(&other)))),
    };
    Ok((1..).zip(items).map(item).collect())
}

fn parse_lines(bytes: &[u8], by: &Option<String>) -> Result<Parsed> {
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let full = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    Ok(full.map(|(place, line)| (place, body::object(line).and_then(|fields| parse(fields, by)))).collect())
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let state = json!(receipt.state).as_str().unwrap_or_default().to_owned();
        ReceiptBody { id: receipt.id, state }
    }
}
