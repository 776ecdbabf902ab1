//! The built-in engine as a language model.

use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hone_nn::sample::{self, Completion, Detokenize, Engine, Finish};
use hone_nn::{Batch, Model, Network as _, Want};

use crate::constrain::{Constrainer, TokenConstraint};
use crate::error::{Error, Result};
use crate::model::{
    Alternative, Capabilities, Constraint, Continuation, Event, FinishReason, GenerateRequest, Generation,
    LanguageModel, Prompt, Sample, ScoreRequest, Scored, Timings, Token, Usage,
};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// How often cancelled requests are looked for while the engine says nothing.
const LOOK: Duration = Duration::from_millis(10);

/// Tokens of texts that are scored or embedded at once: what the model makes of each is held until the last.
const PART_TOKENS: usize = 1 << 14;

/// Settings of the built-in engine.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Threads that decode, at least 1.
    pub threads: usize,
    /// Sequences that run at once, at least 1.
    pub max_running: usize,
    /// Bytes for the keys and values of running sequences.
    pub cache_bytes: usize,
    /// Folder of a PEFT adapter to put on the model.
    pub adapter: Option<PathBuf>,
}

impl Default for LocalOptions {
    fn default() -> Self {
        let engine = sample::Options::default();
        LocalOptions {
            threads: engine.threads,
            max_running: engine.max_running,
            cache_bytes: engine.cache_bytes,
            adapter: None,
        }
    }
}

/// A model of a folder, on this machine.
pub struct Local {
    model: Model,
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    constrainer: OnceLock<Result<Constrainer, String>>,
    pieces: Vec<Piece>,
    capabilities: Capabilities,
}

/// What a token reads as.
struct Piece {
    text: String,
    bytes: Option<Vec<u8>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl Local {
    /// Reads a model folder: weights, tokenizer, and the chat template if there is one.
    ///
    /// # Errors
    /// [`Error::Engine`] for weights or a configuration that cannot be used, [`Error::Vocabulary`] for a tokenizer that
    /// does not fit, and those of reading tokenizer and template.
    pub fn from_folder(folder: impl AsRef<Path>, options: &LocalOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let tokenizer = Tokenizer::from_folder(folder)?;
        let template = ChatTemplate::from_folder(folder, &tokenizer)?;
        let mut model = hone_nn::folder::read(folder).map_err(engine_error)?;
        if let Some(adapter) = &options.adapter {
            let adapter = hone_nn::folder::read_adapter(adapter, model.config()).map_err(engine_error)?;
            model.attach(adapter);
        }
        let name = folder.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
        Self::new(&name, model, tokenizer, template, options)
    }

    /// A model in memory. Its weights are packed once: later training of another copy does not show.
    ///
    /// # Errors
    /// [`Error::Vocabulary`], [`Error::Engine`].
    pub fn new(
        name: &str,
        mut model: Model,
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        options: &LocalOptions,
    ) -> Result<Self> {
        let config = model.config().clone();
        tokenizer.check_fits(config.vocab_size)?;
        model.threads = options.threads;
        let tokenizer = Arc::new(tokenizer);
        let mut stops = tokenizer.stop_tokens().to_vec();
        stops.extend(config.eos_tokens.iter().filter(|id| !tokenizer.stop_tokens().contains(id)));
        let reader = tokenizer.clone();
        let engine = Engine::new(
            &model,
            sample::Options {
                threads: options.threads,
                max_running: options.max_running,
                cache_bytes: options.cache_bytes,
                eos_tokens: Some(stops),
                detokenize: Some(Detokenize::new(move |ids| text_of(&reader, ids))),
                ..sample::Options::default()
            },
        )
        .map_err(engine_error)?;
        let bytes = tokenizer.token_bytes().ok();
        let constrains = bytes.is_some() && !tokenizer.stop_tokens().is_empty();
        let pieces = (0..config.vocab_size as u32).map(|id| piece(&tokenizer, bytes.as_ref(), id)).collect();
        let capabilities = Capabilities {
            name: name.to_owned(),
            context: Some(config.max_positions),
            chat: template.is_some(),
            text: true,
            token_ids: true,
            logprobs: true,
            top_logprobs: config.vocab_size,
            sampling_logprobs: true,
            seeds: true,
            scoring: true,
            embeddings: true,
            json_schema: constrains,
            regex: constrains,
            grammar: constrains,
            extended_sampling: true,
            extra: false,
        };
        Ok(Local { model, engine, tokenizer, template, constrainer: OnceLock::new(), pieces, capabilities })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its chat template.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Token ids of a prompt: a conversation through the template, text as the tokenizer encodes a whole text.
    ///
    /// # Errors
    /// [`Error::NoTemplate`], those of rendering, [`Error::Empty`] if nothing is left.
    pub fn prompt_tokens(&self, index: usize, prompt: &Prompt) -> Result<Vec<u32>> {
        let ids = match prompt {
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Text(text) => self.tokenizer.encode(text, true)?,
            Prompt::Messages { messages, options } => {
                let template = self.template.as_ref();
                let template = template
                    .ok_or_else(|| Error::NoTemplate { path: self.tokenizer.folder().to_path_buf() })?;
                let mut options = (**options).clone();
                options.add_generation_prompt = !options.continue_final_message;
                self.tokenizer.encode(&template.render(messages, &options)?, false)?
            }
        };
        if ids.is_empty() { Err(Error::Empty { index, what: "prompt" }) } else { Ok(ids) }
    }

    fn constrain(&self, constraint: &Constraint) -> Result<TokenConstraint> {
        let built = self.constrainer.get_or_init(|| {
            Constrainer::new(&self.tokenizer, self.model.config().vocab_size).map_err(|e| e.to_string())
        });
        match built {
            Ok(constrainer) => constrainer.compile(constraint),
            Err(message) => Err(Error::Constraint(message.clone())),
        }
    }

    fn engine_request(&self, index: usize, request: &GenerateRequest) -> Result<sample::Request> {
        let context = self.model.config().max_positions;
        let prompt = self.prompt_tokens(index, &request.prompt)?;
        // One token of an answer needs a place.
        if prompt.len() >= context {
            return Err(Error::TooLong { index, tokens: prompt.len(), context });
        }
        let settings = &request.sampling;
        let left = context - prompt.len();
        let mut out = sample::Request::new(prompt, settings.max_tokens.unwrap_or(left));
        out.n = request.n;
        out.seed = settings.seed.unwrap_or_else(random);
        out.stop_strings = settings.stop.clone();
        out.top_logps = request.top_logprobs;
        let usual = sample::Sampling::default();
        out.sampling = sample::Sampling {
            temperature: settings.temperature.unwrap_or(usual.temperature),
            top_k: settings.top_k.unwrap_or(usual.top_k),
            top_p: settings.top_p.unwrap_or(usual.top_p),
            min_p: settings.min_p.unwrap_or(usual.min_p),
            repetition_penalty: settings.repetition_penalty.unwrap_or(usual.repetition_penalty),
            frequency_penalty: settings.frequency_penalty.unwrap_or(usual.frequency_penalty),
            presence_penalty: settings.presence_penalty.unwrap_or(usual.presence_penalty),
            logit_bias: usual.logit_bias,
        };
        if let Some(constraint) = &request.constraint {
            out.constraint = Some(Box::new(Bound(self.constrain(constraint)?)));
        }
        Ok(out)
    }

    fn sample(&self, completion: &Completion, text: String) -> Sample {
        let tokens = completion.tokens.iter().enumerate().map(|(i, &id)| {
            let top = completion.top.get(i).map_or(&[][..], Vec::as_slice);
            Token {
                logprob: completion.raw_logps.get(i).copied(),
                sampling_logprob: completion.logps.get(i).copied(),
                top: top
                    .iter()
                    .map(|&(id, logprob)| Alternative { id: Some(id), text: self.text(id), logprob })
                    .collect(),
                ..self.token(id)
            }
        });
        let finish = match completion.finish {
            Finish::StopToken(_) | Finish::StopString(_) | Finish::Constraint => FinishReason::Stop,
            Finish::Length => FinishReason::Length,
            Finish::Cancelled => FinishReason::Cancelled,
        };
        Sample { tokens: Some(tokens.collect()), text, message: None, finish }
    }

    fn text(&self, id: u32) -> String {
        self.pieces.get(id as usize).map_or_else(String::new, |p| p.text.clone())
    }

    /// A token without log-probabilities.
    fn token(&self, id: u32) -> Token {
        let bytes = self.pieces.get(id as usize).and_then(|p| p.bytes.clone());
        Token {
            id: Some(id),
            text: self.text(id),
            bytes,
            logprob: None,
            sampling_logprob: None,
            top: Vec::new(),
        }
    }

    fn score_tokens(&self, index: usize, request: &ScoreRequest) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.prompt_tokens(index, &request.prompt)?;
        let start = ids.len();
        match &request.continuation {
            Continuation::Text(text) => ids.extend(self.tokenizer.encode(text, false)?),
            Continuation::Tokens(tokens) => ids.extend(tokens),
        }
        let config = self.model.config();
        if ids.len() > config.max_positions {
            return Err(Error::TooLong { index, tokens: ids.len(), context: config.max_positions });
        }
        match ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            Some(id) => Err(Error::Tokenize(format!(
                "request {index}: token {id} is beyond the model's vocabulary of {}",
                config.vocab_size
            ))),
            None => Ok((ids, start)),
        }
    }
}

impl LanguageModel for Local {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn generate(
        &self,
        requests: &[GenerateRequest],
        on: &mut dyn FnMut(Event),
    ) -> Result<Vec<Result<Generation>>> {
        self.capabilities.check(requests)?;
        let started = Instant::now();
        let (sender, events) = channel();
        let mut running = Running(Vec::new());
        for (index, request) in requests.iter().enumerate() {
            let mut state = State::new(request.n);
            if request.cancel.is_cancelled() {
                state.failed = Some(Error::Cancelled);
            } else {
                let sender = sender.clone();
                let submitted = self.engine_request(index, request).and_then(|asked| {
                    state.prompt_tokens = asked.prompt.len() as u64;
                    // A receiver that is gone has called everything off.
                    let send = move |event| drop(sender.send((index, event)));
                    self.engine.submit_to(asked, send).map_err(engine_error)
                });
                match submitted {
                    Ok(cancel) => state.cancel = Some(cancel),
                    Err(error) => state.failed = Some(error),
                }
            }
            running.0.push(state);
        }
        drop(sender);
        let mut looked = Instant::now();
        while running.0.iter().any(State::is_open) {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                running.call_off_cancelled(requests);
            }
            let (index, event) = match events.recv_timeout(LOOK) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let state = &mut running.0[index];
            match event {
                sample::Event::Token { sample, text, .. } => {
                    if requests[index].stream && !text.is_empty() {
                        state.first_piece.get_or_insert_with(|| started.elapsed());
                        state.said[sample].push_str(&text);
                        on(Event::Piece { request: index, sample, text });
                    }
                }
                sample::Event::Done(completion) => {
                    let text = completion.text.clone().unwrap_or_default();
                    let number = completion.sample;
                    // What was held back, or everything where nothing was streamed.
                    let rest = text.strip_prefix(state.said[number].as_str()).unwrap_or_default().to_owned();
                    let sample = self.sample(&completion, text);
                    let reason = sample.finish.clone();
                    state.samples[number] = Some(sample);
                    state.total = started.elapsed();
                    if !rest.is_empty() {
                        on(Event::Piece { request: index, sample: number, text: rest });
                    }
                    on(Event::Finished { request: index, sample: number, reason });
                }
                sample::Event::Failed(error) => state.failed = Some(engine_error(error)),
            }
            // The caller may just have thrown this request's switch.
            running.call_off_if_cancelled(index, &requests[index]);
        }
        let states = std::mem::take(&mut running.0);
        Ok(states.into_iter().map(|state| state.finish(&self.capabilities.name)).collect())
    }

    fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Result<Scored>>> {
        self.capabilities.check_score(requests)?;
        let prepared: Vec<Result<(Vec<u32>, usize)>> =
            requests.iter().enumerate().map(|(i, r)| self.score_tokens(i, r)).collect();
        let mut batch = Batch::new();
        for (ids, start) in prepared.iter().flatten() {
            batch.push(ids, *start..ids.len());
        }
        let mut logps: Vec<f32> = Vec::new();
        for part in batch.split(PART_TOKENS) {
            let outputs = self.model.evaluate(&batch.slice(part), &Want::default()).map_err(engine_error)?;
            logps.extend(outputs.logps.to_vec1::<f32>().map_err(engine_error)?);
        }
        let mut logps = logps.into_iter();
        let scored = prepared.into_iter().map(|prepared| {
            let (ids, start) = prepared?;
            let tokens: Vec<Token> =
                ids[start..].iter().map(|&id| Token { logprob: logps.next(), ..self.token(id) }).collect();
            let logp = tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
            let usage = Usage { prompt_tokens: ids.len() as u64, ..Usage::default() };
            Ok(Scored { tokens, logp, usage })
        });
        Ok(scored.collect())
    }

    /// The mean over a text's tokens of the last layer's output after the last norm, scaled to length 1.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        self.capabilities.check_embed(texts)?;
        let config = self.model.config();
        let mut batch = Batch::new();
        for (index, text) in texts.iter().enumerate() {
            let ids = self.prompt_tokens(index, &Prompt::Text(text.clone()))?;
            if ids.len() > config.max_positions {
                return Err(Error::TooLong { index, tokens: ids.len(), context: config.max_positions });
            }
            batch.push(&ids, 0..0);
        }
        let want = Want { hidden: vec![config.layers], ..Want::default() };
        let mut vectors = Vec::with_capacity(texts.len());
        for part in batch.split(PART_TOKENS) {
            let part = batch.slice(part);
            let outputs = self.model.evaluate(&part, &want).map_err(engine_error)?;
            let hidden = outputs.hidden.first().ok_or_else(|| Error::Engine("no hidden states".into()))?;
            let rows: Vec<Vec<f32>> = hidden.to_vec2().map_err(engine_error)?;
            vectors.extend(part.sequences().map(|range| unit_mean(&rows[range])));
        }
        Ok(vectors)
    }
}

/// Mean of some rows, scaled to length 1; zeros stay zeros.
fn unit_mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0f64; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
    mean.into_iter().map(|v| if length > 0.0 { (v / length) as f32 } else { 0.0 }).collect()
}

/// What a request has come to.
struct State {
    prompt_tokens: u64,
    cancel: Option<sample::Cancel>,
    failed: Option<Error>,
    samples: Vec<Option<Sample>>,
    /// Text handed out, by sample.
    said: Vec<String>,
    first_piece: Option<Duration>,
    total: Duration,
}

impl State {
    fn new(n: usize) -> Self {
        State {
            prompt_tokens: 0,
            cancel: None,
            failed: None,
            samples: vec![None; n],
            said: vec![String::new(); n],
            first_piece: None,
            total: Duration::ZERO,
        }
    }

    fn is_open(&self) -> bool {
        self.failed.is_none() && self.samples.iter().any(Option::is_none)
    }

    fn finish(self, model: &str) -> Result<Generation> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let samples: Option<Vec<Sample>> = self.samples.into_iter().collect();
        let samples = samples.ok_or_else(|| Error::Engine("stopped before the request ended".into()))?;
        let written = samples.iter().filter_map(|s| s.tokens.as_ref()).map(|t| t.len() as u64).sum();
        Ok(Generation {
            samples,
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: written,
                ..Usage::default()
            },
            cost: None,
            timings: Timings { first_piece: self.first_piece, total: self.total },
            model: model.to_owned(),
            attempts: 1,
            raw: None,
        })
    }
}

/// Requests under way; whatever is left is called off when this goes, should the caller's function panic.
struct Running(Vec<State>);

impl Running {
    fn call_off_if_cancelled(&self, index: usize, request: &GenerateRequest) {
        let state = &self.0[index];
        if let Some(cancel) =
            state.cancel.as_ref().filter(|_| state.is_open() && request.cancel.is_cancelled())
        {
            cancel.cancel();
        }
    }

    fn call_off_cancelled(&self, requests: &[GenerateRequest]) {
        for (index, request) in requests.iter().enumerate() {
            self.call_off_if_cancelled(index, request);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for state in self.0.iter().filter(|state| state.is_open()) {
            if let Some(cancel) = &state.cancel {
                cancel.cancel();
            }
        }
    }
}

/// A constraint as the engine drives it.
struct Bound(TokenConstraint);

impl sample::Constraint for Bound {
    fn allowed(&mut self, allowed: &mut sample::TokenMask) -> Result<(), String> {
        self.0.mask(allowed.words_mut()).map_err(|e| e.to_string())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.0.commit(token).map_err(|e| e.to_string())
    }

    fn finished(&self) -> bool {
        self.0.is_finished()
    }

    fn fork(&self) -> Box<dyn sample::Constraint> {
        Box::new(Bound(self.0.clone()))
    }
}

/// Text of sampled tokens, without special ones and without a model's spare rows, which stand for nothing.
fn text_of(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    match tokenizer.decode(ids, true) {
        Ok(text) => text,
        Err(_) => {
            let known: Vec<u32> = ids.iter().copied().filter(|&id| tokenizer.token(id).is_some()).collect();
            tokenizer.decode(&known, true).unwrap_or_default()
        }
    }
}

fn piece(tokenizer: &Tokenizer, bytes: Option<&crate::tokenizer::TokenBytes>, id: u32) -> Piece {
    if tokenizer.is_special(id) {
        return Piece { text: tokenizer.token(id).unwrap_or_default(), bytes: None };
    }
    match bytes.and_then(|table| table.bytes.get(id as usize)) {
        Some(bytes) => {
            Piece { text: String::from_utf8_lossy(bytes).into_owned(), bytes: Some(bytes.clone()) }
        }
        None => Piece { text: tokenizer.token(id).unwrap_or_default(), bytes: None },
    }
}

/// A seed for requests without one.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn engine_error(error: impl std::fmt::Display) -> Error {
    Error::Engine(error.to_string())
}
