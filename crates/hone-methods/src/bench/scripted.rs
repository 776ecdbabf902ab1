//! Language models whose answers a function writes: where a loop is measured without the skill of a model.

use hone_lm::model::{Capabilities, Event, FinishReason, Generation, Sample, Scored, Timings, Token, Usage};
use hone_lm::{GenerateRequest, LanguageModel, Prompt, ScoreRequest};
use hone_nn::train::seed::rng;
use rand_chacha::ChaCha8Rng;

/// A model that answers what `says` makes of a prompt. It gives no log-probabilities, scores and embeddings.
#[derive(Debug)]
pub struct Scripted<F> {
    can: Capabilities,
    says: F,
}

impl<F: Fn(&str, &mut ChaCha8Rng) -> String + Send + Sync> Scripted<F> {
    /// A model of this name that takes plain text; `says` is given the prompt and the sample's own stream.
    pub fn new(name: &str, says: F) -> Scripted<F> {
        let plain = Capabilities { chat: false, text: true, seeds: true, ..Capabilities::default() };
        Scripted { can: Capabilities { name: name.into(), ..plain }, says }
    }
}

impl<F: Fn(&str, &mut ChaCha8Rng) -> String + Send + Sync> LanguageModel for Scripted<F> {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    fn generate(
        &self,
        requests: &[GenerateRequest],
        _: &mut dyn FnMut(Event),
    ) -> hone_lm::Result<Vec<hone_lm::Result<Generation>>> {
        self.can.check(requests)?;
        Ok(answers(requests, &|asked, at, seed| {
            ((self.says)(asked, &mut rng(seed, &format!("sample {at}"))), None)
        }))
    }

    fn score(&self, _: &[ScoreRequest]) -> hone_lm::Result<Vec<hone_lm::Result<Scored>>> {
        Ok(vec![])
    }

    fn embed(&self, _: &[String]) -> hone_lm::Result<Vec<Vec<f32>>> {
        Ok(vec![])
    }
}

/// The text of an answer, with its tokens if they are told.
pub type Said = (String, Option<Vec<Token>>);

/// One answer to each request. `says` is given what was asked last, which sample it is, and the request's seed, and returns
/// the text.
pub fn answers(
    requests: &[GenerateRequest],
    says: &dyn Fn(&str, usize, u64) -> Said,
) -> Vec<hone_lm::Result<Generation>> {
    let answer = |request: &GenerateRequest| {
        let asked = match &request.prompt {
            Prompt::Messages { messages, .. } => messages.last().map(|m| m.text()).unwrap_or_default(),
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(_) => String::new(),
        };
        let sample = |at: usize| {
            let (text, tokens) = says(&asked, at, request.sampling.seed.unwrap_or(0));
            Sample { text, message: None, tokens, finish: FinishReason::Stop }
        };
        Ok(Generation {
            samples: (0..request.n).map(sample).collect(),
            usage: Usage::default(),
            cost: None,
            timings: Timings::default(),
            model: "script".into(),
            attempts: 1,
            raw: None,
        })
    };
    requests.iter().map(answer).collect()
}
