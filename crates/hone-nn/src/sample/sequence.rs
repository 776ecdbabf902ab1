//! One sequence on its way: its cache, what it has said, and what it may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Arch;

use super::cache::{Cache, Reservation};
use super::constraint::{Constraint, TokenMask};
use super::decode::Feed;
use super::error::SampleError;
use super::request::{Completion, Event, Finish, Request};
use super::sampler::{Buffers, Limits, Refusal, Sampler};
use super::text::{Detokenize, Text};

/// Where the news of a request go.
pub(super) struct Sink {
    /// Whether single tokens are wanted.
    pub stream: bool,
    pub send: Box<dyn Fn(Event) + Send + Sync>,
}

/// A request that the engine has taken on, shared by its samples.
pub(super) struct Ticket {
    pub id: usize,
    pub request: Request,
    /// Tokens that end a continuation.
    pub ends: Vec<u32>,
    /// Longest sequence, prompt included.
    pub longest: usize,
    pub detokenize: Option<Detokenize>,
    pub sink: Sink,
    pub cancelled: AtomicBool,
    pub failed: AtomicBool,
}

impl Ticket {
    /// Whether its samples should leave the batch.
    pub fn is_stopped(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.has_failed()
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Reports a failure, once.
    fn fail(&self, error: SampleError) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            (self.sink.send)(Event::Failed(error));
        }
    }
}

/// What is particular to one sample of a request.
pub(super) struct Branch {
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    text: Option<Text>,
    said: Completion,
}

/// Working memory for choosing tokens.
#[derive(Default)]
pub(super) struct Chooser {
    buffers: Buffers,
    allowed: Option<TokenMask>,
    copy: Vec<f32>,
}

impl Branch {
    fn new(ticket: &Ticket, sample: usize) -> Branch {
        let request = &ticket.request;
        Branch {
            sampler: Sampler::new(
                &request.sampling,
                &request.prompt,
                ticket.ends.clone(),
                request.seed,
                sample as u64,
            ),
            constraint: request.constraint.clone(),
            text: ticket
                .detokenize
                .clone()
                .map(|detokenize| Text::new(detokenize, request.stop_strings.clone())),
            said: Completion {
                request: ticket.id,
                sample,
                tokens: vec![],
                logps: vec![],
                raw_logps: vec![],
                top: vec![],
                text: None,
                finish: Finish::Cancelled,
            },
        }
    }

    /// Samples from `logits`. Returns whether the sequence goes on; if not, its end has been reported.
    fn say(&mut self, ticket: &Ticket, arch: Arch, logits: &mut [f32], chooser: &mut Chooser) -> bool {
        match self.choose(ticket, arch, logits, chooser) {
            Ok(None) => true,
            Ok(Some(finish)) => {
                self.end(ticket, finish);
                false
            }
            Err(error) => {
                ticket.fail(error);
                false
            }
        }
    }

    fn choose(
        &mut self,
        ticket: &Ticket,
        arch: Arch,
        logits: &mut [f32],
        chooser: &mut Chooser,
    ) -> Result<Option<Finish>, SampleError> {
        let request = &ticket.request;
        let (id, sample) = (ticket.id, self.said.sample);
        let failed = |problem: String| SampleError::Constraint { request: id, sample, problem };
        let mut allowed = None;
        if let Some(constraint) = &mut self.constraint {
            if constraint.finished() {
                return Ok(Some(Finish::Constraint));
            }
            let mask = chooser.allowed.get_or_insert_with(|| TokenMask::none(logits.len()));
            mask.clear();
            constraint.allowed(mask).map_err(failed)?;
            allowed = Some(&*mask);
        }
        let limits = Limits {
            allowed,
            too_short: self.said.tokens.len() < request.min_tokens,
            top: request.top_logps,
        };
        let sampled =
            self.sampler.choose(arch, logits, &limits, &mut chooser.buffers).map_err(|refusal| match refusal {
                Refusal::NotFinite { token, value } => SampleError::NotFinite {
                    request: id,
                    sample,
                    tokens: request.prompt.len() + self.said.tokens.len(),
                    token,
                    value,
                },
                Refusal::NothingLeft => {
                    failed("no token is left to choose: all are excluded by the constraint, `min_tokens` or `logit_bias`".into())
                }
            })?;
        let token = sampled.token;
        self.sampler.accept(token);
        self.said.tokens.push(token);
        self.said.logps.push(sampled.logp);
        self.said.raw_logps.push(sampled.raw_logp);
        if request.top_logps > 0 {
            self.said.top.push(sampled.top.clone());
        }

        let mut finish = None;
        let mut piece = String::new();
        if ticket.ends.contains(&token) {
            finish = Some(Finish::StopToken(token));
        } else if let Some(text) = &mut self.text {
            let look = self.said.tokens.len() >= request.min_tokens;
            let (certain, stop) = text.push(&self.said.tokens, look);
            piece = certain;
            finish = stop.map(Finish::StopString);
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token).map_err(failed)?;
            if finish.is_none() && constraint.finished() {
                finish = Some(Finish::Constraint);
            }
        }
        let full = request.prompt.len() + self.said.tokens.len() >= ticket.longest;
        if finish.is_none() && full {
            finish = Some(Finish::Length);
        }
        if let (Some(finish), Some(text)) = (&finish, &mut self.text)
            && !matches!(finish, Finish::StopString(_))
        {
            piece += &text.finish(spoken(&self.said.tokens, finish));
        }
        if ticket.sink.stream {
            (ticket.sink.send)(Event::Token { request: id, sample, sampled, text: piece });
        }
        Ok(finish)
    }

    /// Reports the end.
    fn end(&mut self, ticket: &Ticket, finish: Finish) {
        self.said.text = match (&finish, &ticket.detokenize, &self.text) {
            (Finish::StopString(_), _, Some(text)) => Some(text.text().to_string()),
            (_, Some(detokenize), _) => Some(detokenize.text(spoken(&self.said.tokens, &finish))),
            _ => None,
        };
        self.said.finish = finish;
        let empty = Completion {
            tokens: vec![],
            logps: vec![],
            raw_logps: vec![],
            top: vec![],
            text: None,
            finish: Finish::Cancelled,
            ..self.said
        };
        (ticket.sink.send)(Event::Done(std::mem::replace(&mut self.said, empty)));
    }
}

/// The tokens that belong to the text.
fn spoken<'a>(tokens: &'a [u32], finish: &Finish) -> &'a [u32] {
    match finish {
        Finish::StopToken(_) => &tokens[..tokens.len().saturating_sub(1)],
        _ => tokens,
    }
}

/// A sequence in the running batch. While it reads its prompt it stands for all samples of its request.
pub(super) struct Sequence {
    pub ticket: Arc<Ticket>,
    pub cache: Cache,
    branch: Option<Branch>,
    next: [u32; 1],
    /// Space set aside for the prompt's shared blocks, and for this sample alone.
    reservation: Option<(Arc<Reservation>, Reservation)>,
}

/// What a sequence's logits led to.
pub(super) enum Outcome {
    /// It goes on with the token it sampled.
    Goes,
    /// It has ended.
    Ended,
    /// The prompt is read; these samples go on.
    Splits(Vec<Branch>),
}

/// The half of a [`Sequence`] that turns logits into tokens, while the other half is being read.
pub(super) struct Speaker<'a> {
    ticket: &'a Ticket,
    branch: &'a mut Option<Branch>,
}

impl Speaker<'_> {
    /// Samples from `logits`: one token, or the first token of every sample when the prompt has just been read.
    pub fn say(&mut self, arch: Arch, logits: &mut [f32], chooser: &mut Chooser) -> Outcome {
        let ticket = self.ticket;
        if let Some(branch) = self.branch {
            return if branch.say(ticket, arch, logits, chooser) { Outcome::Goes } else { Outcome::Ended };
        }
        let mut branches = vec![];
        let mut copy = std::mem::take(&mut chooser.copy);
        for sample in 0..ticket.request.n {
            copy.clear();
            copy.extend_from_slice(logits);
            let mut branch = Branch::new(ticket, sample);
            if branch.say(ticket, arch, &mut copy, chooser) {
                branches.push(branch);
            }
        }
        chooser.copy = copy;
        Outcome::Splits(branches)
    }
}

impl Sequence {
    pub fn new(ticket: Arc<Ticket>, cache: Cache) -> Sequence {
        Sequence { ticket, cache, branch: None, next: [0], reservation: None }
    }

    /// Whether space is set aside for it.
    pub fn is_admitted(&self) -> bool {
        self.reservation.is_some()
    }

    /// Gives it its space: `shared` bytes for the prompt of all samples, `all` of the rest.
    pub fn admit(&mut self, mut all: Reservation, shared: usize) {
        let shared = all.split(shared);
        self.reservation = Some((Arc::new(shared), all));
    }

    /// What it reads in a step, at most `most` tokens of a prompt, and what speaks afterwards.
    pub fn split(&mut self, most: usize) -> (Feed<'_>, Speaker<'_>) {
        let Sequence { ticket, cache, branch, next, .. } = self;
        let (tokens, logits) = match branch {
            Some(_) => (&next[..], true),
            None => {
                let left = &ticket.request.prompt[cache.len()..];
                (&left[..left.len().min(most)], left.len() <= most)
            }
        };
        (Feed { cache, tokens, logits }, Speaker { ticket, branch })
    }

    /// Tokens of the prompt still to be read.
    pub fn prompt_left(&self) -> usize {
        if self.branch.is_some() { 0 } else { self.ticket.request.prompt.len() - self.cache.len() }
    }

    /// After a step: the sequences that go on in its place.
    pub fn go_on(mut self, outcome: Outcome) -> Vec<Sequence> {
        match outcome {
            Outcome::Ended => vec![],
            Outcome::Goes => {
                if let Some(branch) = &self.branch {
                    self.next = [branch.said.tokens.last().copied().unwrap_or(0)];
                }
                vec![self]
            }
            Outcome::Splits(branches) => {
                let Some((shared, mut own)) = self.reservation.take() else { return vec![] };
                let samples = self.ticket.request.n;
                let each = own.bytes() / samples;
                let split = |branch: Branch| Sequence {
                    ticket: self.ticket.clone(),
                    cache: self.cache.clone(),
                    next: [branch.said.tokens.last().copied().unwrap_or(0)],
                    branch: Some(branch),
                    reservation: Some((shared.clone(), own.split(each))),
                };
                branches.into_iter().map(split).collect()
            }
        }
    }

    /// Reports that the request was called off. A request that failed has said so already.
    pub fn call_off(mut self) {
        if self.ticket.has_failed() {
            return;
        }
        match &mut self.branch {
            Some(branch) => branch.end(&self.ticket, Finish::Cancelled),
            None => {
                for sample in 0..self.ticket.request.n {
                    Branch::new(&self.ticket, sample).end(&self.ticket, Finish::Cancelled);
                }
            }
        }
    }
}
