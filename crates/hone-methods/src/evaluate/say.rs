//! Asking a model one thing each of many conversations, telling its own failures from those of the connection.

use hone_lm::model::{Prompt, Sampling};
use hone_lm::{Error, GenerateRequest, LanguageModel, Message};

use crate::error::Result;

/// What came of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// An answer.
    Text(String),
    /// The model cannot take this conversation: too long, or refused by template or server. Asking again gives the same.
    Refused(String),
    /// No answer came through: worth asking again later.
    Lost(String),
}

/// One answer to each conversation, in order. `seeds` are those of each stream; a model without seeds is not given any.
/// Log-probabilities are not asked for, so that an endpoint without them loses nothing.
///
/// # Errors
/// What the model refuses for all alike.
pub fn say(
    model: &dyn LanguageModel,
    conversations: &[Vec<Message>],
    sampling: &Sampling,
    seeds: &[u64],
) -> Result<Vec<Said>> {
    let able = model.capabilities();
    let prompt = |messages: &Vec<Message>| match able.chat {
        true => Prompt::chat(messages.clone()),
        false => Prompt::Text(messages.iter().map(|m| m.text() + "\n").collect()),
    };
    let (mut said, mut requests) = (vec![], vec![]);
    for (messages, seed) in conversations.iter().zip(seeds) {
        if messages.iter().all(|message| message.text().trim().is_empty()) {
            // One empty prompt would have the model refuse them all.
            said.push(Some(Said::Refused("empty prompt".into())));
            continue;
        }
        said.push(None);
        let mut sampling = sampling.clone();
        sampling.seed = Some(*seed).filter(|_| able.seeds);
        sampling.top_k = sampling.top_k.filter(|_| able.extended_sampling);
        requests.push(GenerateRequest { sampling, ..GenerateRequest::new(prompt(messages)) });
    }
    let mut answers = match requests.is_empty() {
        true => vec![],
        false => model.generate(&requests, &mut |_| {})?,
    }
    .into_iter();
    let missing = || Said::Lost("no result for the request".into());
    Ok(said
        .into_iter()
        .map(|said| said.unwrap_or_else(|| answers.next().map_or_else(missing, read)))
        .collect())
}

fn read(answer: hone_lm::Result<hone_lm::Generation>) -> Said {
    match answer {
        Ok(generation) => match generation.samples.into_iter().next() {
            Some(sample) => Said::Text(sample.text),
            None => Said::Lost("an answer without a choice".into()),
        },
        Err(error) => match &error {
            Error::GaveUp { .. }
            | Error::Timeout { .. }
            | Error::Endpoint { .. }
            | Error::Answer { .. }
            | Error::Cancelled => Said::Lost(error.to_string()),
            // A key that is refused or a rate that is exceeded says nothing about the model.
            Error::Status { status: 401 | 403 | 408 | 429 | 500.., .. } => Said::Lost(error.to_string()),
            _ => Said::Refused(error.to_string()),
        },
    }
}
