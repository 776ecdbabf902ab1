//! Asking a model many prompts, and having the oracle judge what it says.

use hone_lm::{Continuation, FinishReason, LanguageModel, Message, Prompt, Sampling, ScoreRequest};
use hone_worlds::{Check, Task};

use crate::error::Result;
use crate::refine;

/// One answer and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Mean probability of its tokens under the model itself, in `[0, 1]`; `None` where the model does not tell.
    pub confidence: Option<f64>,
    /// Whether it ended by itself, not at the limit of tokens.
    pub ended: bool,
}

/// A prompt of one message of the user, after a system message if there is one.
pub fn chat(text: &str, instructions: Option<&str>) -> Prompt {
    let system = instructions.map(|text| Message::new("system", text));
    Prompt::chat(system.into_iter().chain([Message::new("user", text)]).collect())
}

/// `n` answers to each prompt, `[prompts][n]`. What the model cannot do (seeds, log-probabilities) is left out.
///
/// # Errors
/// The first prompt that could not be answered.
pub fn answers(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    n: usize,
    sampling: &Sampling,
) -> Result<Vec<Vec<Answer>>> {
    // Each prompt its own stream: equal prompts are not to get equal answers.
    let stream = |index: usize| sampling.seed.map(|seed| seed.wrapping_add(index as u64));
    let asked = prompts.iter().enumerate().map(|(index, prompt)| (prompt.clone(), stream(index)));
    refine::ask(model, asked, n, sampling)?
        .into_iter()
        .map(|samples| {
            let samples = samples?;
            Ok(samples
                .into_iter()
                .map(|sample| {
                    let tokens = sample.tokens.unwrap_or_default();
                    let logps: Option<Vec<f32>> = tokens.iter().map(|token| token.logprob).collect();
                    let confidence = logps.filter(|logps| !logps.is_empty()).map(|logps| {
                        logps.iter().map(|logp| f64::from(logp.exp())).sum::<f64>() / logps.len() as f64
                    });
                    Answer { text: sample.text, confidence, ended: sample.finish != FinishReason::Length }
                })
                .collect())
        })
        .collect()
}

/// The oracle's judgement of every answer, `[tasks][n]`, on as many threads as there are processors.
///
/// # Errors
/// [`hone_worlds::Error::Sandbox`] where a program has to be run and cannot be.
pub fn oracle(tasks: &[Box<dyn Task>], answers: &[Vec<Answer>]) -> Result<Vec<Vec<Check>>> {
    let jobs: Vec<(&dyn Task, &[Answer])> =
        tasks.iter().zip(answers).map(|(task, answers)| (task.as_ref(), answers.as_slice())).collect();
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let check = |(task, answers): &(&dyn Task, &[Answer])| -> Result<Vec<Check>> {
        answers.iter().map(|answer| Ok(task.check(&answer.text)?)).collect()
    };
    std::thread::scope(|scope| {
        let chunks = jobs.chunks(jobs.len().div_ceil(threads).max(1));
        let running: Vec<_> = chunks
            .map(|chunk| scope.spawn(move || chunk.iter().map(check).collect::<Result<Vec<_>>>()))
            .collect();
        let mut checks = vec![];
        for thread in running {
            match thread.join() {
                Ok(done) => checks.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(checks)
    })
}

/// Log-probability of each continuation, in nats, and its number of tokens.
///
/// # Errors
/// The first continuation that could not be scored.
pub fn scores(model: &dyn LanguageModel, asked: &[(Prompt, String)]) -> Result<Vec<(f64, usize)>> {
    let requests: Vec<ScoreRequest> = asked
        .iter()
        .map(|(prompt, text)| ScoreRequest {
            prompt: prompt.clone(),
            continuation: Continuation::Text(text.clone()),
        })
        .collect();
    let scored = model.score(&requests)?;
    scored.into_iter().map(|scored| Ok(scored.map(|scored| (scored.logp, scored.tokens.len()))?)).collect()
}
