//! LeTI.

mod claims;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::Local;
use hone_lm::model::Prompt;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use serde::{Deserialize, Serialize};

use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::condition::with_tokens;
use crate::imitate::general::{Beside, General, Mean, Walk};
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::oracle::{Oracle, Verdict};
use crate::policy::{Policy, Sequence};
use crate::refine::{Draw, judge, prompts, sample};
use crate::train::{Decay, Session, Training};

method! {
    /// Train a policy on its own answers, each after a token for good or bad and, where it failed, after what the run
    /// said.
    /// # What it does
    /// In each of `iterations`: samples `samples` answers to every prompt (with the prompt alone the first time, with
    /// the good token before it later), has each checked, and builds sequences `good x y` for those that pass and `bad
    /// <feedback> f </feedback> x y` for those that fail, where `f` is what the interpreter said: a traceback of the
    /// program's own frames and lines. The loss is the language model's own, on every token of every sequence, failures
    /// included, a mean over the tokens of a step. After each step on them stands one on general text. Then the answers
    /// are thrown away. No reference answer is used. The policy is asked with `<|good|>` before the prompt.
    /// # Feedback
    /// Prompts whose answers can be checked: tests, a world's rules, a reward model behind the same interface. Programs
    /// are run in the sandbox.
    /// # Departs from the paper
    /// Answers of all prompts are shuffled; the released code leaves all answers to one prompt side by side, one prompt
    /// to a batch. An answer keeps the stop token that it ended with (`keep_stop = false` drops it, as the paper does,
    /// and models then ramble); `cut_at_top_level` is the paper's other remedy. Adam's averages begin anew in every
    /// iteration. The tokens' mean counts targets; the paper's counts each row's first token too. General text is what
    /// the built-in model is made from unless `general.source` names a file; the paper takes 50,000 Python files. The
    /// verifier for event arguments and its licensed data, and the unused penalty on the divergence, are left out, and
    /// so is the comparison of two sizes of model: the bench has one.
    /// # Claim
    /// In a toy language with typed errors on the bench, 32 prompts, 8 answers each, 20 iterations (shares of held-out
    /// answers that pass, five seeds, 95 % intervals): 0.70 ± 0.17 more pass than at the start
    /// (`claim_more_answers_pass`); text beats the token alone by 0.40 ± 0.30 over the iterations
    /// (`claim_text_beats_the_token_alone`); the good token beats the better of the bad one and none by 0.13 ± 0.12
    /// (`claim_good_beats_bad_and_none`); steps on general text keep 2.75 ± 0.20 nats
    /// (`claim_general_steps_keep_the_language`); four times the answers give 0.55 ± 0.17 (`claim_more_samples_help`),
    /// four times the prompts 0.44 ± 0.18, at as many iterations (`claim_more_prompts_help`).
    ///
    /// It does not reach imitation of one reference per prompt at as many steps: -0.15 ± 0.19, and -0.36 ± 0.42 after
    /// 12 iterations (`claim_as_good_as_references`). The commonest of two kinds of error falls further by 0.19 ± 0.28
    /// of its rate, and 0.42 ± 0.67 after 12 iterations: not clear of 0 (`claim_the_commonest_error_shrinks_fastest`).
    /// # Source
    /// Wang et al., Findings of NAACL 2024, arXiv:2305.10314, sections 2.1 to 2.3.
    pub static LETI: Method = Method {
        id: "leti", name: "LeTI", family: Family::Imitate, needs: Needs::Checks, makes: Makes::Policy, settings: Leti,
        claims: claims::CLAIMS,
        run,
    };
}

/// Before what passed, and before the prompt when the policy is asked.
pub const GOOD: &str = "<|good|>";
/// Before what failed.
pub const BAD: &str = "<|bad|>";
/// Begins what the run said.
pub const FEEDBACK: &str = "<|lang_feedback|>";
/// Ends it.
pub const END_FEEDBACK: &str = "<|/lang_feedback|>";

/// Settings of LeTI. Defaults are those of the paper's smaller model (350M).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leti {
    /// Times that sampling and training follow each other, at least 1. Paper: 50 (350M), 10 (2B).
    pub iterations: usize,
    /// Answers per prompt, at least 1. Paper: 128.
    pub samples: usize,
    /// Whether failed answers stand after what the run said; else after the bad token alone.
    pub text: bool,
    /// Whether what the run said follows the answer, as the abstract has it; the released code puts it first, so that
    /// it is a condition of the answer.
    pub text_after: bool,
    /// Whether an answer keeps the stop token that it ended with. Paper: no.
    pub keep_stop: bool,
    /// Whether a program ends where the next statement at top level begins (class, assert, print, if, a docstring).
    pub cut_at_top_level: bool,
    /// Whether a step on general text follows every step.
    pub general_steps: bool,
    /// The general text.
    pub general: General,
    /// Share of the prompts that are not trained on but choose the best iteration, in `[0, 1)`; 0 takes the last.
    pub validation: f64,
    /// How answers are sampled. Paper: temperature 1, at most 512 tokens with the prompt.
    pub draw: Draw,
    /// The descent of one iteration. Paper: 3 epochs at 1e-5 (350M) or 5e-6 (2B), constant, batch 128, weight decay
    /// 0.01.
    pub training: Training,
}

impl Default for Leti {
    fn default() -> Leti {
        Leti {
            iterations: 50,
            samples: 128,
            text: true,
            text_after: false,
            keep_stop: true,
            cut_at_top_level: false,
            general_steps: true,
            general: General { row_tokens: 2048, batch_size: 128, rows: 1024, ..General::default() },
            validation: 0.0,
            draw: Draw { max_tokens: 512, ..Draw::default() },
            training: Training {
                learning_rate: 1e-5,
                batch_size: 128,
                epochs: 3.0,
                warm_up: 0.0,
                decay: Decay::Constant,
                weight_decay: 0.01,
                max_tokens: 512,
                ..Training::default()
            },
        }
    }
}

const ID: &str = "leti";

impl Settings for Leti {
    fn check(&self) -> Result<()> {
        for (key, value) in [("iterations", self.iterations), ("samples", self.samples)] {
            if value == 0 {
                return Err(Error::range(ID, key, "at least 1", 0));
            }
        }
        if !(0.0..1.0).contains(&self.validation) {
            return Err(Error::range(ID, "validation", "a share in [0, 1)", self.validation));
        }
        self.general.check(ID)?;
        self.draw.check(ID)?;
        self.training.check(ID)
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Leti = settings(ID, job.settings)?;
    learn(job, &own, &mut |_| Ok(())).map(Product::Policy)
}

/// The loop. `heard` is given the policy after every iteration.
fn learn(job: Job<'_>, own: &Leti, heard: &mut dyn FnMut(&Policy) -> Result<()>) -> Result<Policy> {
    let Job { policy, records, oracle, seed, session, .. } = job;
    let mut policy = with_tokens(policy, &[GOOD, BAD, FEEDBACK, END_FEEDBACK], true, seed)?;
    let mut places: Vec<usize> = (0..records.len()).collect();
    shuffle(&mut places, &mut rng(seed, "validation"));
    let (aside, taught) = places.split_at((records.len() as f64 * own.validation) as usize);
    let pick =
        |places: &[usize]| places.iter().filter_map(|&at| records.get(at).cloned()).collect::<Vec<_>>();
    let (aside, taught) = (pick(aside), pick(taught));
    let text = match own.general_steps {
        true => Some(own.general.rows(&policy, seed)?),
        false => None,
    };
    let beside = text.as_ref().map_or(Beside::Nothing, |text| Beside::InTurn(text, own.general.batch_size));
    let mut best: Option<(f64, Policy)> = None;
    for iteration in 0..own.iterations {
        if session.deadline.is_some_and(|end| std::time::Instant::now() >= end) {
            break;
        }
        let seed = sub_seed(seed, &format!("iteration {iteration}"));
        // No token means anything to the policy before it was trained on one.
        let before = if iteration == 0 { None } else { Some(GOOD) };
        let examples = collect(&policy, &taught, oracle, own, before, seed)?;
        Error::expect_examples(ID, "prompts that can be answered and checked", &examples, records)?;
        let session: Session = session.stage(&format!("iteration-{}", iteration + 1));
        let walk = Walk { examples: &examples, mean: Mean::Targets, beside, forget: [0.0, 0.0] };
        policy.model = walk.go(policy.model, &own.training, seed, &session)?;
        heard(&policy)?;
        if !aside.is_empty() {
            // As the paper evaluates: nearly greedy, 16 answers.
            let draw = Draw { temperature: 0.1, ..own.draw.clone() };
            let passed = passing(&policy, &aside, oracle, own, (Some(GOOD), &draw, 16), seed)?;
            if best.as_ref().is_none_or(|(most, _)| passed > *most) {
                best = Some((passed, policy.copy()?));
            }
        }
    }
    Ok(best.map_or(policy, |(_, best)| best))
}

/// The tokens of a prompt after a control token, which follows the tokenizer's own first token if there is one.
fn asked(
    policy: &Policy,
    model: &Local,
    index: usize,
    prompt: &Prompt,
    before: Option<&str>,
) -> Result<Vec<u32>> {
    let tokens = model.prompt_tokens(index, prompt)?;
    let control: Vec<u32> = before.and_then(|token| policy.tokenizer.id(token)).into_iter().collect();
    Ok(after_start(policy, &control, &tokens))
}

fn after_start(policy: &Policy, control: &[u32], tokens: &[u32]) -> Vec<u32> {
    let start = policy.tokenizer.special("bos_token").map(|(_, id)| id);
    let at = usize::from(start.is_some() && tokens.first().copied() == start);
    let (head, tail) = tokens.split_at(at);
    [head, control, tail].concat()
}

/// Sampled answers of each record with their verdicts, tokens, and the prompt's own tokens.
struct Tried {
    record: usize,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    text: String,
    verdict: Verdict,
}

fn tried(
    policy: &Policy,
    records: &[Record],
    oracle: Option<&dyn Oracle>,
    own: &Leti,
    (before, draw, samples): (Option<&str>, &Draw, usize),
    seed: u64,
) -> Result<Vec<Tried>> {
    let model = policy.speaker()?;
    let plain = prompts(&model, records)?;
    let conditioned: Vec<Prompt> = plain
        .iter()
        .enumerate()
        .map(|(index, prompt)| match asked(policy, &model, index, prompt, before) {
            Ok(tokens) => Ok(Prompt::Tokens(tokens)),
            // The sampler says which prompts cannot be asked.
            Err(Error::Model(error)) if crate::policy::refusal(&error).is_some() => {
                Ok(Prompt::Tokens(vec![]))
            }
            Err(error) => Err(error),
        })
        .collect::<Result<_>>()?;
    let drawn = sample(&model, &conditioned, samples, draw, seed)?;
    let mut out = vec![];
    for (index, (record, samples)) in records.iter().zip(drawn).enumerate() {
        for one in samples {
            let text = if own.cut_at_top_level { first_definition(&one.text).to_string() } else { one.text };
            let verdict = judge(ID, oracle, record, &text)?;
            let prompt = model.prompt_tokens(index, &plain[index])?;
            let answer = one.tokens.unwrap_or_default().iter().filter_map(|token| token.id).collect();
            out.push(Tried { record: index, prompt, answer, text, verdict });
        }
    }
    Ok(out)
}

/// Samples, checks, and writes the sequences of one iteration.
fn collect(
    policy: &Policy,
    records: &[Record],
    oracle: Option<&dyn Oracle>,
    own: &Leti,
    before: Option<&str>,
    seed: u64,
) -> Result<Examples> {
    let limit = own.training.tokens_for(&policy.model);
    let mut examples = Examples::default();
    for one in tried(policy, records, oracle, own, (before, &own.draw, own.samples), seed)? {
        let said = match (one.verdict.right, oracle) {
            (false, Some(oracle)) if own.text => oracle.said(&records[one.record], &one.text)?,
            _ => None,
        };
        let tokens = sequence(policy, &one.prompt, &one.answer, one.verdict.right, said.as_deref(), own)?;
        if tokens.len() > limit {
            examples.losses.add("sequences longer than the model or the settings allow");
            continue;
        }
        let mask = vec![true; tokens.len()];
        let sequences = vec![Sequence { tokens, mask, cut: 0 }];
        examples.items.push(Example { record: one.record, sequences, labels: vec![], marks: vec![] });
    }
    Ok(examples)
}

/// The tokens of one training sequence.
fn sequence(
    policy: &Policy,
    prompt: &[u32],
    answer: &[u32],
    right: bool,
    said: Option<&str>,
    own: &Leti,
) -> Result<Vec<u32>> {
    let id = |token: &str| policy.tokenizer.id(token);
    let stops = policy.tokenizer.stop_tokens();
    let answer = match answer.split_last() {
        Some((last, rest)) if !own.keep_stop && stops.contains(last) => rest,
        _ => answer,
    };
    let mut control: Vec<u32> = id(if right { GOOD } else { BAD }).into_iter().collect();
    let mut feedback = vec![];
    if let Some(said) = said {
        feedback.extend(id(FEEDBACK));
        feedback.extend(policy.tokenizer.encode(said, false)?);
        feedback.extend(id(END_FEEDBACK));
    }
    if !own.text_after {
        control.append(&mut feedback);
    }
    let mut tokens = after_start(policy, &control, prompt);
    tokens.extend_from_slice(answer);
    tokens.extend(feedback);
    Ok(tokens)
}

/// What stands before the next statement at top level that is no part of a definition.
fn first_definition(text: &str) -> &str {
    let ends = |line: &str| {
        ["class ", "assert ", "\"\"\"", "'''", "print", "if "].iter().any(|start| line.starts_with(start))
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // The first line is the answer's, whatever it is.
        if at > 0 && ends(line) {
            break;
        }
        at += line.len();
    }
    text.get(..at).unwrap_or(text)
}

/// Share of answers that pass.
fn passing(
    policy: &Policy,
    records: &[Record],
    oracle: Option<&dyn Oracle>,
    own: &Leti,
    how: (Option<&str>, &Draw, usize),
    seed: u64,
) -> Result<f64> {
    let tried = tried(policy, records, oracle, own, how, seed)?;
    Ok(mean(&tried.iter().map(|one| f64::from(u8::from(one.verdict.right))).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::claims::*;
    use super::*;
    use crate::bench;

    #[test]
    fn sequences_begin_with_the_verdict_and_what_was_said() {
        let ground = Ground::new(1).unwrap();
        let policy =
            with_tokens(ground.start().unwrap(), &[GOOD, BAD, FEEDBACK, END_FEEDBACK], true, 1).unwrap();
        let own = ground.own();
        let encode = |text: &str| policy.tokenizer.encode(text, false).unwrap();
        let (prompt, answer) = (encode("say w1"), [encode("w2 w3"), vec![1]].concat());
        let text = |right, said, own: &Leti| {
            let tokens = sequence(&policy, &prompt, &answer, right, said, own).unwrap();
            policy.tokenizer.decode(&tokens, false).unwrap()
        };
        assert_eq!(text(true, None, &own), "<|good|> say w1 w2 w3 </s>");
        let failed = "<|bad|> <|lang_feedback|> NameError w2 <|/lang_feedback|> say w1 w2 w3 </s>";
        assert_eq!(text(false, Some("NameError w2"), &own), failed);
        let after = Leti { text_after: true, keep_stop: false, ..own };
        let failed = "<|bad|> say w1 w2 w3 <|lang_feedback|> NameError w2 <|/lang_feedback|>";
        assert_eq!(text(false, Some("NameError w2"), &after), failed);
    }

    #[test]
    fn all_answers_are_kept_and_every_token_is_a_target() {
        let ground = Ground::new(2).unwrap();
        let policy =
            with_tokens(ground.start().unwrap(), &[GOOD, BAD, FEEDBACK, END_FEEDBACK], true, 1).unwrap();
        let own = ground.own();
        let examples = collect(&policy, &ground.train, Some(&ground.toy), &own, None, 1).unwrap();
        assert_eq!(
            examples.len() as u64
                + examples.losses.of("sequences longer than the model or the settings allow"),
            32 * 8
        );
        let (good, bad) = (policy.tokenizer.id(GOOD).unwrap(), policy.tokenizer.id(BAD).unwrap());
        let mut seen = [0, 0];
        for example in &examples.items {
            let sequence = &example.sequences[0];
            assert_eq!(sequence.targets(), sequence.tokens.len() - 1);
            let text = policy.tokenizer.decode(&sequence.tokens, true).unwrap();
            let said = text.split(" say ").next().and_then(|said| said.split_once(' '));
            match sequence.tokens[0] {
                first if first == good => seen[0] += 1,
                first => {
                    assert_eq!(first, bad);
                    assert_eq!(sequence.tokens[1], policy.tokenizer.id(FEEDBACK).unwrap());
                    // An answer without a word raises nothing that has a name.
                    let Some((kind, word)) = said.filter(|_| text.contains("Error")) else { continue };
                    assert_eq!(ground.toy.error(word), Some(kind), "{text}");
                    seen[1] += 1;
                }
            }
        }
        assert!(seen[0] > 10 && seen[1] > 100, "{seen:?}");
    }

    #[test]
    fn a_program_ends_at_the_next_statement_at_top_level() {
        let text = "def f(x):\n    if x:\n        return 1\n\nprint(f(1))\ndef g(): pass\n";
        assert_eq!(first_definition(text), "def f(x):\n    if x:\n        return 1\n\n");
        assert_eq!(first_definition("if x: pass"), "if x: pass");
    }

    #[test]
    fn the_best_iteration_is_chosen_on_prompts_kept_aside() {
        let ground = Ground::new(3).unwrap();
        let own = Leti { iterations: 2, samples: 2, validation: 0.25, ..ground.own() };
        let (curve, policy) = ground.learn(&own, PROMPTS).unwrap();
        assert_eq!(curve.len(), 2);
        let got = ground.pass(&policy, Some(GOOD)).unwrap();
        assert!(curve.contains(&got), "{got} of {curve:?}");
    }

    #[test]
    fn claim_more_answers_pass() {
        bench::assert_holds(more_pass, 5);
    }

    #[test]
    fn claim_text_beats_the_token_alone() {
        bench::assert_holds(text_helps, 5);
    }

    #[test]
    fn claim_good_beats_bad_and_none() {
        bench::assert_holds(good_beats, 5);
    }

    #[test]
    fn claim_general_steps_keep_the_language() {
        bench::assert_holds(text_keeps, 5);
    }

    #[test]
    fn claim_more_samples_help() {
        bench::assert_holds(more_samples, 5);
    }

    #[test]
    fn claim_more_prompts_help() {
        bench::assert_holds(more_prompts, 5);
    }

    /// For claims that do not hold here (see the comment above): a change that makes one hold, or fail by far, is to be
    /// noticed.
    fn assert_near(effect: fn(u64) -> Result<f64>, range: std::ops::Range<f64>) {
        let (mean, _, values) = bench::over_seeds(effect, 5).unwrap();
        assert!(range.contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_as_good_as_references() {
        assert_near(over_references, -0.35..0.0);
    }

    #[test]
    fn claim_the_commonest_error_shrinks_fastest() {
        assert_near(commonest_shrinks, 0.0..0.47);
    }
}
