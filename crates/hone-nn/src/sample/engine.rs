//! Continuous batching: sequences join and leave the running batches at every step.
//!
//! Each thread decodes a share of the sequences on its own, so that threads never wait for each other within a
//! step; shares are evened out between steps. While there is one sequence only, the other threads help with its matrix
//! products instead. What a sequence says depends on its request alone: not on its
//! neighbours, nor on the thread, nor on the number of threads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::cache::{Budget, Cache, cache_bytes};
use super::crew::Crew;
use super::decode::{Decoder, Scratch};
use super::error::SampleError;
use super::request::{Completion, Event, Request};
use super::sequence::{Chooser, Outcome, Sequence, Sink, Ticket};
use super::text::Detokenize;
use crate::model::Model;

/// Settings of an [`Engine`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that decode, at least 1.
    pub threads: usize,
    /// Sequences that run at once; others wait. At least 1.
    pub max_running: usize,
    /// Tokens of prompts and texts that a thread reads in one step, at least 1. Longer prompts are read over several
    /// steps while other sequences go on.
    pub step_tokens: usize,
    /// Bytes that the keys and values of all running sequences may take; requests wait until theirs are free.
    pub cache_bytes: usize,
    /// Whether the model's adapter takes part.
    pub adapter: bool,
    /// Tokens that end a text; those of the model's configuration if `None`.
    pub eos_tokens: Option<Vec<u32>>,
    /// Turns tokens into text, for stop strings and [`Completion::text`].
    pub detokenize: Option<Detokenize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            max_running: 256,
            step_tokens: 256,
            cache_bytes: 2 << 30,
            adapter: true,
            eos_tokens: None,
            detokenize: None,
        }
    }
}

/// A model ready to continue prompts. Holds a packed copy of the weights: later changes to the model do not show.
pub struct Engine {
    shared: Arc<Shared>,
    /// Its threads spend their lives in [`Shared::work`]; as threads of one pool they can take parts of each other's
    /// products.
    _pool: ThreadPool,
    submitted: AtomicUsize,
}

/// What the threads share.
struct Shared {
    decoder: Decoder,
    options: Options,
    budget: Arc<Budget>,
    state: Mutex<State>,
    /// Rung when there may be something to do.
    bell: Condvar,
    /// Whether one thread runs the only sequence and the others should help.
    lone: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Requests to be started, and running sequences on their way from one thread to another.
    queue: VecDeque<Sequence>,
    /// Sequences of each thread.
    counts: Vec<usize>,
    /// Threads that have not ended.
    alive: usize,
    closing: bool,
}

impl Engine {
    /// Packs the weights of `model` and starts the threads.
    ///
    /// # Errors
    /// [`SampleError::Option`] for a setting outside its range, [`SampleError::NoLanguageHead`] for a model that
    /// predicts no tokens, [`SampleError::Threads`] if the system grants no threads.
    pub fn new(model: &Model, options: Options) -> Result<Engine, SampleError> {
        let sizes = [
            ("threads", options.threads),
            ("max_running", options.max_running),
            ("step_tokens", options.step_tokens),
        ];
        if let Some(&(field, got)) = sizes.iter().find(|(_, value)| *value == 0) {
            return Err(SampleError::Option { field, needed: "at least 1", got });
        }
        let decoder = Decoder::new(model, options.adapter)?;
        let threads = options.threads;
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("sample-{index}"))
            // A panic is a defect; its requests see `Stopped`, and the others go on.
            .panic_handler(|_| {})
            .build()
            .map_err(|error| SampleError::Threads(error.to_string()))?;
        let shared = Arc::new(Shared {
            decoder,
            budget: Budget::new(options.cache_bytes),
            options,
            state: Mutex::new(State { counts: vec![0; threads], alive: threads, ..State::default() }),
            bell: Condvar::new(),
            lone: AtomicBool::new(false),
        });
        let worker = shared.clone();
        pool.spawn_broadcast(move |context| worker.work(context.index()));
        Ok(Engine { shared, _pool: pool, submitted: AtomicUsize::new(0) })
    }

    /// Continues every prompt; waits for all. Completions come in the order of requests, then of samples.
    ///
    /// # Errors
    /// The first failure of any request, all of which are checked before one is started.
    pub fn generate(&self, requests: &[Request]) -> Result<Vec<Completion>, SampleError> {
        self.run(requests, false, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Engine::generate`] that reports every token as it comes. When `sink` breaks, everything still running is
    /// called off.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_streaming(
        &self,
        requests: &[Request],
        sink: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, SampleError> {
        self.run(requests, true, sink)
    }

    fn run(
        &self,
        requests: &[Request],
        stream: bool,
        sink: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, SampleError> {
        for (index, request) in requests.iter().enumerate() {
            self.check(index, request)?;
        }
        let (sender, events) = channel();
        let tickets: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(index, request)| self.ticket(index, request.clone(), stream, sender.clone()))
            .collect();
        drop(sender);
        self.shared.enqueue(&tickets);
        // Calls off whatever is left when this function is left early.
        let call_off =
            CallOff { shared: &self.shared, tickets: tickets.iter().map(Arc::downgrade).collect() };
        drop(tickets);

        let total = requests.iter().map(|request| request.n).sum();
        let mut completions = Vec::with_capacity(total);
        while completions.len() < total {
            let Ok(event) = events.recv() else {
                let ended = |id: usize| completions.iter().filter(|c: &&Completion| c.request == id).count();
                let request = (0..requests.len()).find(|&id| ended(id) < requests[id].n).unwrap_or(0);
                return Err(SampleError::Stopped { request });
            };
            if sink(&event).is_break() {
                call_off.all();
            }
            match event {
                Event::Token { .. } => {}
                Event::Done(completion) => completions.push(completion),
                Event::Failed(error) => return Err(error),
            }
        }
        completions.sort_by_key(|completion| (completion.request, completion.sample));
        Ok(completions)
    }

    /// Starts a request beside whatever is running and returns at once.
    ///
    /// # Errors
    /// If the request is not one that this model can run.
    pub fn submit(&self, request: Request) -> Result<Handle, SampleError> {
        let (sender, events) = channel();
        let samples = request.n;
        let cancel = self.submit_to(request, move |event| {
            // A handle that is gone has called the request off.
            let _ = sender.send(event);
        })?;
        Ok(Handle { cancel, events, left: samples })
    }

    /// [`Engine::submit`] with a function that takes the news, called from the engine's threads: it must be quick.
    /// Dropping the returned value does not call the request off.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_to(
        &self,
        request: Request,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Cancel, SampleError> {
        let id = self.submitted.fetch_add(1, Ordering::Relaxed);
        self.check(id, &request)?;
        let ticket = self.build(id, request, Sink { stream: true, send: Box::new(sink) });
        let cancel = Cancel { id, shared: self.shared.clone(), ticket: Arc::downgrade(&ticket) };
        self.shared.enqueue(&[ticket]);
        Ok(cancel)
    }

    /// Bytes of cache that are set aside now.
    pub fn cache_bytes_used(&self) -> usize {
        self.shared.budget.used()
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.shared.decoder.bytes()
    }

    fn check(&self, id: usize, request: &Request) -> Result<(), SampleError> {
        let Shared { decoder, options, budget, .. } = &*self.shared;
        request.check(id, &decoder.config, options.detokenize.is_some())?;
        let needed = self.shared.space(request);
        if needed.all > budget.limit {
            return Err(SampleError::Memory { request: id, needed: needed.all, limit: budget.limit });
        }
        Ok(())
    }

    fn ticket(&self, id: usize, request: Request, stream: bool, sender: Sender<Event>) -> Arc<Ticket> {
        let send = Box::new(move |event| {
            // The receiver is gone once the first failure has been returned.
            let _ = sender.send(event);
        });
        self.build(id, request, Sink { stream, send })
    }

    fn build(&self, id: usize, request: Request, sink: Sink) -> Arc<Ticket> {
        let Shared { decoder, options, .. } = &*self.shared;
        let eos = options.eos_tokens.as_ref().unwrap_or(&decoder.config.eos_tokens);
        let vocab = decoder.config.vocab_size;
        let mut ends = request.stop_tokens.clone();
        if !request.ignore_eos {
            ends.extend(eos.iter().filter(|&&token| (token as usize) < vocab));
        }
        Arc::new(Ticket {
            id,
            ends,
            longest: self.shared.longest(&request),
            detokenize: options.detokenize.clone(),
            sink,
            cancelled: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            request,
        })
    }
}

impl Drop for Engine {
    /// Ends the threads after their present step; requests that have not ended see [`SampleError::Stopped`].
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.lone.store(false, Ordering::Release);
        self.shared.bell.notify_all();
        while state.alive > 0 {
            state = self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A way to call a submitted request off.
#[derive(Clone)]
pub struct Cancel {
    id: usize,
    shared: Arc<Shared>,
    ticket: std::sync::Weak<Ticket>,
}

impl Cancel {
    /// The request's number, as its events carry it.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Ends the request: its place in the batch is free before the next step, and its samples are reported with
    /// [`super::Finish::Cancelled`] and what they had said. Does nothing if it has ended.
    pub fn cancel(&self) {
        self.shared.cancel(&self.ticket);
    }
}

/// A submitted request. Dropping it calls the request off.
pub struct Handle {
    cancel: Cancel,
    events: Receiver<Event>,
    left: usize,
}

impl Handle {
    /// The request's number, as its events carry it.
    pub fn id(&self) -> usize {
        self.cancel.id
    }

    /// Calls the request off; see [`Cancel::cancel`].
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits for the next event; `None` after the last.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.left == 0 {
            return None;
        }
        let event =
            self.events.recv().unwrap_or(Event::Failed(SampleError::Stopped { request: self.cancel.id }));
        match event {
            Event::Token { .. } => {}
            Event::Done(_) => self.left -= 1,
            Event::Failed(_) => self.left = 0,
        }
        Some(event)
    }

    /// Waits for all samples, in their order.
    ///
    /// # Errors
    /// What the request failed with.
    pub fn wait(mut self) -> Result<Vec<Completion>, SampleError> {
        let mut completions = vec![];
        while let Some(event) = self.next_event() {
            match event {
                Event::Token { .. } => {}
                Event::Done(completion) => completions.push(completion),
                Event::Failed(error) => return Err(error),
            }
        }
        completions.sort_by_key(|completion| completion.sample);
        Ok(completions)
    }
}

impl Iterator for Handle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_event()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Calls several requests off when it is dropped.
struct CallOff<'a> {
    shared: &'a Shared,
    tickets: Vec<std::sync::Weak<Ticket>>,
}

impl CallOff<'_> {
    fn all(&self) {
        for ticket in &self.tickets {
            self.shared.cancel(ticket);
        }
    }
}

impl Drop for CallOff<'_> {
    fn drop(&mut self) {
        self.all();
    }
}

/// Bytes of cache of a request: of its prompt, shared by its samples, and in all.
struct Space {
    shared: usize,
    all: usize,
}

impl Shared {
    /// The state. Only counters and a queue change under the lock, so what a panicking thread leaves is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn longest(&self, request: &Request) -> usize {
        request.prompt.len().saturating_add(request.max_tokens).min(self.decoder.config.max_positions)
    }

    fn space(&self, request: &Request) -> Space {
        let longest = self.longest(request);
        let bytes =
            cache_bytes(&self.decoder.config, request.prompt.len(), longest, self.options.step_tokens);
        Space { shared: bytes.shared, all: bytes.own.saturating_mul(request.n).saturating_add(bytes.shared) }
    }

    fn enqueue(&self, tickets: &[Arc<Ticket>]) {
        let mut state = self.lock();
        if state.alive == 0 {
            // Nobody is left to run them; what goes with the last ticket says so.
            return;
        }
        for ticket in tickets {
            state.queue.push_back(Sequence::new(ticket.clone(), Cache::new(&self.decoder.config)));
        }
        self.lone.store(false, Ordering::Release);
        drop(state);
        self.bell.notify_all();
    }

    fn cancel(&self, ticket: &std::sync::Weak<Ticket>) {
        let Some(ticket) = ticket.upgrade() else { return };
        ticket.cancelled.store(true, Ordering::Release);
        let mut state = self.lock();
        let (gone, kept) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|sequence| Arc::ptr_eq(&sequence.ticket, &ticket));
        state.queue = kept;
        drop(state);
        gone.into_iter().for_each(Sequence::call_off);
    }

    /// The life of one thread.
    fn work(&self, index: usize) {
        let _life = Life { shared: self, index };
        let mut worker = Worker::default();
        loop {
            worker.leave_stopped();
            if !self.share_out(index, &mut worker.running) {
                return;
            }
            worker.step(self);
        }
    }

    /// Takes parts of the only sequence's products until it is no longer the only one.
    fn help(&self) {
        while self.lone.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::hint::spin_loop();
            }
        }
    }

    /// Brings this thread's sequences to its fair share, waiting while there are none. False when the engine closes.
    fn share_out(&self, index: usize, running: &mut Vec<Sequence>) -> bool {
        let mut state = self.lock();
        loop {
            if state.closing {
                return false;
            }
            state.counts[index] = running.len();
            let threads = state.counts.len();
            let all = state.counts.iter().sum::<usize>() + state.queue.len();
            let share = all.min(self.options.max_running).div_ceil(threads);
            let elsewhere = state.counts.iter().sum::<usize>() - running.len();
            while running.len() < share && elsewhere + running.len() < self.options.max_running {
                let Some(next) = state.queue.front_mut() else { break };
                if !next.is_admitted() {
                    let space = self.space(&next.ticket.request);
                    let Some(reservation) = self.budget.reserve(space.all) else { break };
                    next.admit(reservation, space.shared);
                }
                running.extend(state.queue.pop_front());
            }
            // A neighbour with fewer takes what is above the share.
            let given = running.len() > share;
            while running.len() > share {
                state.queue.extend(running.pop());
            }
            state.counts[index] = running.len();
            let waiting = !state.queue.is_empty();
            if given || waiting && !running.is_empty() {
                self.bell.notify_all();
            }
            let active: usize = state.counts.iter().sum();
            let lone = active == 1 && !waiting && threads > 1;
            if self.lone.swap(lone, Ordering::AcqRel) != lone {
                self.bell.notify_all();
            }
            if !running.is_empty() {
                return true;
            }
            if lone {
                drop(state);
                self.help();
                state = self.lock();
                continue;
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Signs a thread off, however it ends.
struct Life<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.alive -= 1;
        state.counts[self.index] = 0;
        // Whoever waits hears of it when the tickets go, outside the lock.
        let stranded = if state.alive == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        self.shared.lone.store(false, Ordering::Release);
        drop(state);
        drop(stranded);
        self.shared.bell.notify_all();
    }
}

/// A thread's sequences and working memory.
#[derive(Default)]
struct Worker {
    running: Vec<Sequence>,
    scratch: Scratch,
    chooser: Chooser,
}

impl Worker {
    /// Lets sequences go whose requests were called off or have failed.
    fn leave_stopped(&mut self) {
        if self.running.iter().any(|sequence| sequence.ticket.is_stopped()) {
            let (stopped, running) =
                std::mem::take(&mut self.running).into_iter().partition(|s| s.ticket.is_stopped());
            self.running = running;
            Vec::into_iter(stopped).for_each(Sequence::call_off);
        }
    }

    /// One token for every sequence that has read its prompt, and some of the prompts of the others.
    fn step(&mut self, shared: &Shared) {
        let texts = self.running.iter().filter(|sequence| sequence.prompt_left() == 0).count();
        let mut left = shared.options.step_tokens.saturating_sub(texts).max(1);
        let (mut feeds, mut speakers, mut outcomes) = (vec![], vec![], vec![]);
        let mut idle = vec![];
        for (index, sequence) in self.running.iter_mut().enumerate() {
            let prompt = sequence.prompt_left().min(left);
            if prompt == 0 && sequence.prompt_left() > 0 {
                idle.push(index);
                continue;
            }
            left -= prompt;
            let (feed, speaker) = sequence.split(prompt);
            outcomes.push(if feed.logits { None } else { Some(Outcome::Goes) });
            feeds.push(feed);
            speakers.push(speaker);
        }
        let chooser = &mut self.chooser;
        let decoder = &shared.decoder;
        let parts = if shared.lone.load(Ordering::Acquire) { shared.options.threads } else { 1 };
        decoder.step(&mut self.scratch, Crew { parts }, &mut feeds, |feed, logits| {
            outcomes[feed] = Some(speakers[feed].say(decoder.arch, logits, chooser));
        });
        drop((feeds, speakers));

        let mut outcomes = outcomes.into_iter();
        let mut idle = idle.into_iter().peekable();
        let before = std::mem::take(&mut self.running);
        for (index, sequence) in before.into_iter().enumerate() {
            if idle.next_if_eq(&index).is_some() {
                self.running.push(sequence);
            } else if let Some(Some(outcome)) = outcomes.next() {
                self.running.extend(sequence.go_on(outcome));
            }
        }
    }
}
