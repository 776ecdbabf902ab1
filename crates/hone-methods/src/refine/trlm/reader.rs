//! How well questions and answers fit, by a model of either order.

use hone_feedback::Prompt;
use hone_lm::model::{Continuation, Sampling};
use hone_lm::{GenerateRequest, LanguageModel, Local, RenderOptions, ScoreRequest};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::order::{TokenOrder, turn};
use crate::policy::lm_prompt;
use crate::refine::{Draw, ask};
use crate::templates::Templates;

/// Requests scored at once.
const AT_ONCE: usize = 64;

/// Tokens kept free for what a template puts around question and answer.
const AROUND: usize = 32;

/// What is scored, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The question given the answer, by a model of reversed text (TRLM-Ba).
    Ba,
    /// The question given the answer, by a forward model whose prompt shows the answer first (TRLM-Fo).
    Fo,
    /// The answer given the question, by a forward model.
    Forward,
    /// The answer given the question, by the model that wrote it (Self).
    Own,
    /// The answer given the question, by a model of reversed text: the wrong direction.
    Backward,
}

impl By {
    /// Whether text is turned round for it.
    pub fn turned(self) -> bool {
        matches!(self, By::Ba | By::Backward)
    }
}

/// The words around questions and answers; Jinja templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wording {
    /// What a forward model is shown before the question that it scores or writes, over `answer`.
    pub forward: String,
    /// An answer as a model of reversed text reads it, over `answer`; turned round with it.
    pub answer: String,
    /// A question as either scores it, over `query`; turned round with it.
    pub query: String,
}

impl Wording {
    fn of(forward: &str) -> Wording {
        Wording { forward: forward.into(), answer: "{{ answer }}".into(), query: "{{ query }}".into() }
    }

    /// For answers to a question.
    pub fn answers() -> Wording {
        Wording::of(include_str!("prompts/answers.jinja"))
    }

    /// For sentences and what sums them up.
    pub fn citation() -> Wording {
        Wording::of(include_str!("prompts/citation.jinja"))
    }

    /// For documents and what is looked for.
    pub fn retrieval() -> Wording {
        Wording::of(include_str!("prompts/retrieval.jinja"))
    }

    /// The parsed templates.
    ///
    /// # Errors
    /// [`Error::Settings`] naming the first that is none.
    pub fn templates(&self) -> Result<Templates<'_>> {
        let sources = [("forward", &self.forward), ("answer", &self.answer), ("query", &self.query)];
        Templates::new("trlm", &sources.map(|(name, source)| (name, source.as_str())))
    }
}

impl Default for Wording {
    fn default() -> Wording {
        Wording::answers()
    }
}

/// Log-probability of what was scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// In nats, summed over tokens.
    pub logp: f64,
    /// Tokens scored.
    pub tokens: usize,
}

impl Fit {
    /// Per token.
    pub fn mean(self) -> f64 {
        self.logp / self.tokens.max(1) as f64
    }
}

/// A model that scores questions or answers and writes questions.
pub struct Reader<'a> {
    model: &'a dyn LanguageModel,
    /// The same, where its tokens can be seen; needed for turned text.
    local: Option<&'a Local>,
    by: By,
    templates: Templates<'a>,
}

impl<'a> Reader<'a> {
    /// A reader with a model of known tokens.
    ///
    /// # Errors
    /// [`Error::Range`] for a model of the other order; those of the templates.
    pub fn local(local: &'a Local, order: TokenOrder, by: By, wording: &'a Wording) -> Result<Reader<'a>> {
        if !order.reads(by.turned()) {
            let needed = if by.turned() { "a model of reversed text" } else { "a model of forward text" };
            return Err(Error::range(
                "trlm",
                "model",
                needed,
                format!("one whose order is {}", order.name()),
            ));
        }
        Ok(Reader { model: local, local: Some(local), by, templates: wording.templates()? })
    }

    /// A reader with any model that scores, forward.
    ///
    /// # Errors
    /// [`Error::Range`] for turned text; those of the templates.
    pub fn forward(model: &'a dyn LanguageModel, by: By, wording: &'a Wording) -> Result<Reader<'a>> {
        if by.turned() {
            return Err(Error::range(
                "trlm",
                "model",
                "the folder of a model of reversed text",
                "an endpoint",
            ));
        }
        Ok(Reader { model, local: None, by, templates: wording.templates()? })
    }

    /// How well each answer and its question fit: `None` for a pair that cannot be scored.
    ///
    /// An answer that is too long for the context loses its end, whatever is scored.
    ///
    /// # Errors
    /// What the model refuses for all alike; those of the templates.
    pub fn fit(&self, pairs: &[(&Prompt, &str)]) -> Result<Vec<Option<Fit>>> {
        let mut fits = vec![];
        for part in pairs.chunks(AT_ONCE) {
            let (mut places, mut requests) = (vec![], vec![]);
            for (at, (query, answer)) in part.iter().enumerate() {
                if let Some(request) = self.request(query, answer)? {
                    places.push(at);
                    requests.push(request);
                }
            }
            let mut of_part = vec![None; part.len()];
            let scored = if requests.is_empty() { vec![] } else { self.model.score(&requests)? };
            for (at, scored) in places.into_iter().zip(scored) {
                let scored = match scored {
                    Ok(scored) => scored,
                    Err(error) if own_fault(&error) => continue,
                    Err(error) => return Err(error.into()),
                };
                let tokens = scored.tokens.iter().filter(|token| token.logprob.is_some()).count();
                of_part[at] = (tokens > 0).then_some(Fit { logp: scored.logp, tokens });
            }
            fits.extend(of_part);
        }
        Ok(fits)
    }

    /// `count` questions written to each answer; an answer that cannot be read gets none.
    ///
    /// # Errors
    /// What the model refuses for all alike; those of the templates.
    pub fn questions(
        &self,
        answers: &[&str],
        count: usize,
        draw: &Draw,
        seed: u64,
    ) -> Result<Vec<Vec<String>>> {
        let stream = |at: usize| sub_seed(seed, &format!("questions {at}"));
        let nothing = self.query(&Prompt::Text(String::new()))?;
        let mut written = vec![vec![]; answers.len()];
        if !self.by.turned() {
            let mut asked = vec![];
            for (at, answer) in answers.iter().enumerate() {
                asked.push((self.shown(&self.cut(answer, &nothing)?)?, Some(stream(at))));
            }
            for (texts, said) in written.iter_mut().zip(ask(self.model, asked, count, &draw.sampling())?) {
                *texts = match said {
                    Ok(samples) => samples.into_iter().map(|sample| sample.text).collect(),
                    Err(error) if own_fault(&error) => vec![],
                    Err(error) => return Err(error.into()),
                };
            }
            return Ok(written);
        }
        let Some(local) = self.local else { return Ok(written) };
        let (mut places, mut requests) = (vec![], vec![]);
        for (at, answer) in answers.iter().enumerate() {
            // Any question gives the same tokens before it.
            let any = match local.template() {
                Some(_) => Prompt::Messages(vec![hone_feedback::Message::new("user", "?")]),
                None => Prompt::Text("?".into()),
            };
            let answer = self.answer(&self.cut(answer, &nothing)?)?;
            let Some((given, _)) = turned(local, &lm_prompt(&any, local.template().is_some())?, &answer)?
            else {
                continue;
            };
            if given.is_empty() {
                continue;
            }
            let sampling = Sampling { seed: Some(stream(at)), ..draw.sampling() };
            let prompt = hone_lm::Prompt::Tokens(given);
            places.push(at);
            requests.push(GenerateRequest {
                sampling,
                n: count,
                logprobs: true,
                ..GenerateRequest::new(prompt)
            });
        }
        if requests.is_empty() {
            return Ok(written);
        }
        for (at, generation) in places.into_iter().zip(self.model.generate(&requests, &mut |_| {})?) {
            let generation = match generation {
                Ok(generation) => generation,
                Err(error) if own_fault(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            for sample in generation.samples {
                let tokens = sample.tokens.unwrap_or_default();
                let mut ids: Vec<u32> = tokens.iter().filter_map(|token| token.id).collect();
                // Freely sampled pieces of characters need not make characters: what cannot be decoded is no question.
                ids.reverse();
                written[at].push(local.tokenizer().decode(&ids, true).unwrap_or_default().trim().to_string());
            }
        }
        Ok(written)
    }

    /// One pair as the model takes it.
    fn request(&self, query: &Prompt, answer: &str) -> Result<Option<ScoreRequest>> {
        let query = self.query(query)?;
        let answer = self.cut(answer, &query)?;
        if answer.trim().is_empty() || query.text().trim().is_empty() {
            return Ok(None);
        }
        let chats = self.model.capabilities().chat;
        Ok(match self.by {
            By::Ba => {
                let Some(local) = self.local else { return Ok(None) };
                let turned = turned(local, &lm_prompt(&query, chats)?, &self.answer(&answer)?)?;
                turned.filter(|(given, _)| !given.is_empty()).map(|(given, asked)| tokens(given, asked))
            }
            By::Backward => {
                let Some(local) = self.local else { return Ok(None) };
                wrong_way(local, &lm_prompt(&query, chats)?, &self.answer(&answer)?)?
                    .map(|(given, asked)| tokens(given, asked))
            }
            By::Fo => Some(ScoreRequest {
                prompt: self.shown(&answer)?,
                continuation: Continuation::Text(query.text().into_owned()),
            }),
            By::Forward | By::Own => Some(ScoreRequest {
                prompt: lm_prompt(&query, chats)?,
                continuation: Continuation::Text(answer),
            }),
        })
    }

    fn answer(&self, answer: &str) -> Result<String> {
        self.templates.render("answer", minijinja::context! { answer })
    }

    /// The question in its wording; as it is where the wording adds nothing, so that a conversation stays one.
    fn query(&self, query: &Prompt) -> Result<Prompt> {
        let text = query.text();
        let worded = self.templates.render("query", minijinja::context! { query => &*text })?;
        Ok(match (worded == text, query) {
            (true, _) => query.clone(),
            (false, Prompt::Text(_)) => Prompt::Text(worded),
            (false, Prompt::Messages(_)) => {
                Prompt::Messages(vec![hone_feedback::Message::new("user", worded)])
            }
        })
    }

    /// What a forward model is shown before a question.
    fn shown(&self, answer: &str) -> Result<hone_lm::Prompt> {
        let text = self.templates.render("forward", minijinja::context! { answer })?;
        let chats = self.model.capabilities().chat;
        lm_prompt(
            &match chats {
                true => Prompt::Messages(vec![hone_feedback::Message::new("user", text)]),
                false => Prompt::Text(text),
            },
            chats,
        )
    }

    /// The answer without what does not fit beside the question.
    fn cut(&self, answer: &str, query: &Prompt) -> Result<String> {
        let (Some(local), Some(context)) = (self.local, self.model.capabilities().context) else {
            return Ok(answer.into());
        };
        let asked = local.tokenizer().encode(&query.text(), false)?.len();
        let room = context.saturating_sub(asked + AROUND).max(context / 4);
        let ids = local.tokenizer().encode(answer, false)?;
        match ids.get(..room) {
            Some(kept) if ids.len() > room => Ok(local.tokenizer().decode(kept, true)?),
            _ => Ok(answer.into()),
        }
    }
}

fn tokens(given: Vec<u32>, asked: Vec<u32>) -> ScoreRequest {
    ScoreRequest { prompt: hone_lm::Prompt::Tokens(given), continuation: Continuation::Tokens(asked) }
}

/// Whether an error is that of one pair, so that others can go on.
fn own_fault(error: &hone_lm::Error) -> bool {
    matches!(error, hone_lm::Error::TooLong { .. }) || crate::policy::refusal(error).is_some()
}

/// Tokens of a question and an answer in their usual order: the question, the header of an answer, the answer, the end.
struct Whole {
    ids: Vec<u32>,
    /// Tokens before the header.
    question: usize,
    /// Tokens of the header.
    header: usize,
    begin: Option<u32>,
    begins: bool,
}

fn whole(local: &Local, query: &hone_lm::Prompt, answer: &str) -> Result<Option<Whole>> {
    let mut ids = match local.prompt_tokens(0, query) {
        Ok(ids) => ids,
        Err(error) if own_fault(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let before = ids.len();
    let question = match (query, local.template()) {
        (hone_lm::Prompt::Messages { messages, .. }, Some(template)) => {
            let bare = template.render(messages, &RenderOptions::default())?;
            let bare = local.tokenizer().encode(&bare, false)?;
            // A template that writes more than a header gives the model its whole prompt to write.
            if ids.starts_with(&bare) { bare.len() } else { before }
        }
        _ => before,
    };
    let begin = local.tokenizer().special("bos_token").map(|(_, id)| id);
    let begins = begin.is_some() && ids.first().copied() == begin;
    ids.extend(local.tokenizer().encode(answer, false)?);
    ids.extend(local.tokenizer().stop_tokens().first());
    Ok(Some(Whole { ids, question, header: before - question, begin, begins }))
}

/// A whole text turned round, cut where the question begins: the answer and its header from their end, which are given,
/// and the question from its end with the stop token. `None` for what the template refuses.
///
/// # Errors
/// Those of template and tokenizer.
pub fn turned(local: &Local, query: &hone_lm::Prompt, answer: &str) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    let Some(mut whole) = whole(local, query, answer)? else { return Ok(None) };
    let stops = local.tokenizer().stop_tokens();
    turn(&mut whole.ids, whole.begin, stops);
    let asked = whole.question - usize::from(whole.begins) + usize::from(!stops.is_empty());
    let given = whole.ids.len() - asked;
    Ok(Some((whole.ids[..given].to_vec(), whole.ids[given..].to_vec())))
}

/// The question from its end, then the answer from its end: what a model of reversed text was never shown.
fn wrong_way(local: &Local, query: &hone_lm::Prompt, answer: &str) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    let Some(whole) = whole(local, query, answer)? else { return Ok(None) };
    let start = usize::from(whole.begins);
    let split = whole.question + whole.header;
    let given = whole.ids[..start].iter().chain(whole.ids[start..split].iter().rev()).copied().collect();
    let mut asked = whole.ids[split..].to_vec();
    turn(&mut asked, None, local.tokenizer().stop_tokens());
    Ok(Some((given, asked)))
}
