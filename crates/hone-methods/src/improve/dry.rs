//! What a run would begin with: the memory it takes and its first batch, without training.

use std::fmt::Write as _;

use hone_lm::Tokenizer;
use hone_nn::config::ModelConfig;
use hone_nn::train::batches::{Order, Position, parts};
use hone_nn::train::memory::{Estimate, Load, Sizes, estimate_sizes, room};
use hone_nn::train::seed::sub_seed;

use super::Run;
use super::plan::{self, Stage};
use crate::catalogue::find;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::method::{Job, Makes, Method, Needs};
use crate::oracle::{Checks, Oracle};
use crate::policy::{Policy, Sequence, lm_prompt, refusal};
use crate::recipe::Published;
use crate::train::{PART_TOKENS, Preview, Session, Training};

/// Records that a method is given to make its first batch of: preparing all of a large log takes as long as training.
const RECORDS: usize = 32;

/// Examples of the batch that are shown, and tokens of each run of equal mask.
const SHOWN: usize = 2;
const TOKENS: usize = 60;

/// Answers that are sampled at once, and bytes of their keys and values: the engine's own limits.
const AT_ONCE: usize = 256;
const CACHE: u64 = 2 << 30;

/// What a run begins with.
struct First {
    /// Examples of the batch, or as many as could be made; prompts alone where answers are sampled.
    examples: Vec<Example>,
    /// Examples or prompts of a whole step.
    batch: usize,
    /// Answers to each prompt, and tokens of each at most; `None` where none are sampled.
    answers: Option<(usize, usize)>,
}

impl Run {
    /// The published model of the recipe, where the run stands on the built-in one instead.
    pub(super) fn published(&self) -> Option<&Published> {
        match self.settings.recipes.first()?.model.as_ref()? {
            crate::recipe::Source::Published(model)
                if self.settings.model.as_os_str() != model.name.as_str() =>
            {
                Some(model)
            }
            _ => None,
        }
    }

    /// In words, that a simulated log stands in for the recipe's data; `None` where it does not.
    pub(super) fn stand_in(&self) -> Option<String> {
        let recipe = self.settings.recipes.first()?;
        let world = recipe.stand_in.as_ref()?;
        let stands = self.settings.logs.iter().any(|log| log.starts_with(super::recipe::stand_ins()));
        stands.then(|| format!("{} is not here: {world} stands in", recipe.data))
    }

    /// Memory and the first batch of each step of the plan, in words; nothing is trained and nothing sampled.
    ///
    /// The examples are those that the method itself makes, from the first 32 of its records; their tokens are shown one
    /// by one, those that the loss is on after a `*`. The estimate takes the recipe's model, whether it is here or not.
    ///
    /// # Errors
    /// Those of the method's own preparation.
    pub fn first_batch_text(&self) -> Result<String> {
        let mut text = String::new();
        for (index, stage) in self.plan.stages.iter().enumerate() {
            let method = find(&stage.method)?;
            let first = self.first(index, stage, method)?;
            let _ = writeln!(text, "\nstep {}  {}", index + 1, stage.method);
            match self.estimate(stage, method, &first)? {
                Some(estimate) => say_memory(&mut text, &estimate),
                None => text.push_str("memory  the model is served elsewhere\n"),
            }
            self.say_batch(&mut text, &first);
        }
        Ok(text)
    }

    fn first(&self, index: usize, stage: &Stage, method: &'static Method) -> Result<First> {
        let mut records = self.records(index, stage)?;
        let seed = self.seed(index, stage);
        let trains = (method.defaults)()?.contains_key("training");
        let batch = if trains { plan::training(stage)?.batch_size } else { records.len().min(AT_ONCE) };
        if let Needs::Shape(_) = method.needs {
            records.truncate(RECORDS);
            let preview = Preview::default();
            let session = Session { preview: Some(preview.clone()), ..Session::default() };
            let oracle = Checks::default();
            let oracle: Option<&dyn Oracle> = records.iter().any(Checks::knows).then_some(&oracle as _);
            // A method that samples before its first step is shown by its prompts, below.
            let policy = Policy { silent: true, ..self.policy.copy()? };
            match (method.run)(Job {
                policy,
                records: &records,
                oracle,
                settings: &stage.settings,
                seed,
                session,
            }) {
                Ok(_) | Err(Error::Previewed) => {}
                Err(error) => return Err(error),
            }
            let examples = preview.examples();
            if !examples.is_empty() {
                return Ok(First { examples, batch, answers: None });
            }
        }
        // The prompts of the first iteration, in the order that it takes them.
        let mut order = Order::new(records.len(), sub_seed(seed, "order"))?;
        let taken = match trains {
            true => order.take(&mut Position::default(), batch),
            false => (0..batch).collect(),
        };
        let speaker = self.policy.speaker()?;
        let mut examples = vec![];
        for (at, &record) in taken.iter().take(RECORDS).enumerate() {
            let prompt = lm_prompt(&records[record].prompt, self.policy.template.is_some())?;
            match speaker.prompt_tokens(at, &prompt) {
                Ok(tokens) => {
                    let sequences = vec![Sequence::of_tokens(&tokens, &[])];
                    examples.push(Example { record, sequences, labels: vec![], marks: vec![] });
                }
                Err(error) if refusal(&error).is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(First { examples, batch, answers: Some(plan::answers(stage)?) })
    }

    /// Peak memory of a step; `None` if the model is not here at all.
    fn estimate(&self, stage: &Stage, method: &Method, first: &First) -> Result<Option<Estimate>> {
        let own;
        let (config, weights): (&ModelConfig, u64) = match self.published() {
            None => (self.policy.model.config(), self.policy.model.params.data.len() as u64),
            Some(published) => match published.config()? {
                None => return Ok(None),
                Some(config) => {
                    own = config;
                    (&own, published.weights()?)
                }
            },
        };
        let planned = Sizes::planned(config, crate::policy::threads());
        let mut sizes = match self.published() {
            None => Sizes::of(&self.policy.model),
            Some(_) => Sizes { weights: weights as usize, trained: weights as usize, ..planned },
        };
        let trains = matches!(method.makes, Makes::Policy | Makes::Reward);
        let training = if trains { plan::training(stage)? } else { Training::default() };
        let load = first.load(training.max_tokens.min(config.max_positions), sizes.threads)?;
        if !trains {
            (sizes.trained, sizes.embeds) = (0, false);
        }
        let mut estimate = estimate_sizes(&sizes, false, load);
        if !trains {
            estimate.items.retain(|(item, _)| matches!(*item, "weights" | "program"));
        }
        // The start, which the result is measured against, and the policy before this step.
        let mut copies = 2;
        if let Some((answers, limit)) = first.answers {
            // The reference, the weights that answer and the same packed for the processor.
            copies += 3;
            let longest = first.longest() + limit.min(config.max_positions);
            let numbers = 2 * config.layers * config.kv_width() * longest;
            let running = (first.batch * answers).min(AT_ONCE);
            let bytes = (4 * numbers as u64).saturating_mul(running as u64).min(CACHE);
            estimate.items.push(("keys and values", bytes));
        }
        estimate.items.push(("other copies of the weights", 4 * weights * copies));
        Ok(Some(estimate))
    }

    fn say_batch(&self, text: &mut String, first: &First) {
        let tokenizer = &self.policy.tokenizer;
        let read: usize = first.examples.iter().map(tokens_of).sum();
        let cut: usize =
            first.examples.iter().flat_map(|e| &e.sequences).filter(|sequence| sequence.cut > 0).count();
        let made = first.examples.len();
        let _ = match first.answers {
            Some((answers, limit)) => writeln!(
                text,
                "batch   {} prompts ({made} read here: {read} tokens), {answers} answers to each of at most {limit} tokens",
                first.batch
            ),
            None => {
                let scored: usize =
                    first.examples.iter().flat_map(|e| &e.sequences).map(Sequence::targets).sum();
                writeln!(
                    text,
                    "batch   {} examples ({made} made here: {read} tokens, {scored} of them scored, {cut} prompts cut)",
                    first.batch
                )
            }
        };
        for (at, example) in first.examples.iter().take(SHOWN).enumerate() {
            for (index, sequence) in example.sequences.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "example {}, sequence {} of {}: {} tokens, {} scored",
                    at + 1,
                    index + 1,
                    example.sequences.len(),
                    sequence.tokens.len(),
                    sequence.targets()
                );
                say_sequence(text, tokenizer, sequence);
            }
        }
    }
}

impl First {
    fn longest(&self) -> usize {
        let sequences = self.examples.iter().flat_map(|example| &example.sequences);
        sequences.map(|sequence| sequence.tokens.len()).max().unwrap_or(1)
    }

    /// What a whole step asks for. A batch of more examples than were made repeats those.
    fn load(&self, longest: usize, threads: usize) -> Result<Load> {
        let targets = |example: &Example| example.sequences.iter().map(Sequence::targets).sum::<usize>();
        let known: Vec<(usize, usize)> = match self.answers {
            None => self.examples.iter().map(|example| (tokens_of(example), targets(example))).collect(),
            // Answers as long as they may become.
            Some((answers, limit)) => {
                let each = |example: &Example| {
                    let prompt = tokens_of(example).min(longest.saturating_sub(1));
                    let answer = limit.min(longest - prompt);
                    std::iter::repeat_n((prompt + answer, answer), answers)
                };
                self.examples.iter().flat_map(each).collect()
            }
        };
        let count = self.batch * self.answers.map_or(1, |(answers, _)| answers);
        // A few hundred fill every part that is worked on at once; the others only add to the sum.
        let planned = count.min(AT_ONCE);
        let sizes: Vec<(usize, usize)> = known.iter().copied().cycle().take(planned).collect();
        let tokens: Vec<usize> = sizes.iter().map(|(tokens, _)| *tokens).collect();
        let parts = parts(&tokens, PART_TOKENS, threads.max(1))?;
        let most = |of: &dyn Fn(usize) -> usize| {
            parts.iter().map(|part| part.iter().map(|&at| of(at)).sum()).max().unwrap_or(0)
        };
        Ok(Load {
            part_tokens: most(&|at| sizes[at].0),
            longest: match self.answers {
                Some((_, limit)) => (self.longest() + limit).min(longest),
                None => self.longest(),
            },
            part_targets: most(&|at| sizes[at].1),
            parts: parts.len(),
            step_tokens: tokens.iter().sum::<usize>() * count / planned.max(1),
        })
    }
}

fn tokens_of(example: &Example) -> usize {
    example.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
}

fn say_memory(text: &mut String, estimate: &Estimate) {
    let mut items = estimate.items.clone();
    items.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let list: Vec<String> = items.iter().map(|(item, bytes)| format!("{item} {}", size(*bytes))).collect();
    let _ = writeln!(text, "memory  about {}: {}", size(estimate.total()), list.join(", "));
    if let Some(room) = room() {
        let fits = if estimate.total() <= room.bytes { "fits" } else { "does not fit" };
        let _ = writeln!(text, "        {fits} here: {} ({})", size(room.bytes), room.bound);
    }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10_000.0 { format!("{mib:.0} MiB") } else { format!("{:.0} GiB", mib / 1024.0) }
}

/// One line for each run of tokens of equal mask, those scored after a `*`. Tokens stand apart by `│`; of a long run the
/// middle is left out.
fn say_sequence(text: &mut String, tokenizer: &Tokenizer, sequence: &Sequence) {
    let tokens: Vec<(u32, bool)> =
        sequence.tokens.iter().copied().zip(sequence.mask.iter().copied()).collect();
    for run in tokens.chunk_by(|a, b| a.1 == b.1) {
        let pieces: Vec<String> = run
            .iter()
            .map(|(id, _)| {
                let piece = tokenizer.decode(&[*id], false).unwrap_or_default();
                let piece = if piece.is_empty() { tokenizer.token(*id).unwrap_or_default() } else { piece };
                piece.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
            })
            .collect();
        let sign = if run.first().is_some_and(|(_, scored)| *scored) { '*' } else { ' ' };
        let words = match pieces.len() > TOKENS {
            false => pieces.join("│"),
            true => format!(
                "{}│ … {} more … │{}",
                pieces[..TOKENS / 2].join("│"),
                pieces.len() - TOKENS,
                pieces[pieces.len() - TOKENS / 2..].join("│")
            ),
        };
        let _ = writeln!(text, "      {sign} {words}");
    }
}
