//! Chain of Hindsight.

use hone_feedback::convert::{self, Losses, Shape};
use hone_feedback::metrics::mean;
use hone_feedback::{Content, Prompt, Record};
use hone_nn::train::seed::{rng, sub_seed};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::bench::{self, Bench};
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::condition::{Turn, chain, conditioned, opening, with_tokens};
use crate::imitate::general::{Beside, General, Mean, Walk, check_forget, loss_on};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::policy::{Policy, lm_prompt, refusal};
use crate::refine::{Draw, sample};
use crate::train::{Decay, Training};

method! {
    /// Imitate good and bad answers side by side, each after words that say which it is; then ask for a good one.
    /// # What it does
    /// Every pair becomes sequences of four forms: the better answer after good words (`p`), the worse after bad words
    /// (`n`), and both in one context in either order (`np`, `pn`), once for each pair of sentences in `templates`.
    /// Only answers and their stop tokens are targets; each sequence counts as its mean over them. The gradient of the
    /// same loss on general text is added, times `general_weight`. In training, a share of past tokens drawn from
    /// `forget` is hidden from attention, so that a second answer cannot lean on copying the first. With `chain_length`
    /// above 2, rated or ranked answers are chained in rising and in falling order instead. The policy is asked with
    /// the good words of the first template after the prompt; any other words, or a worse answer shown first, steer it
    /// too.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings, thumbs, edits. Ties are skipped and counted. With `words`, what was said
    /// about an answer follows the sentence before it.
    /// # Departs from the paper
    /// A sequence is never split, and is a row of its own: the released code cuts one stream of tokens into rows, so
    /// that a second answer can lose its first. A hidden token still sees itself. The sentences are our own, and in a
    /// chat the prompt stands once, later words being the user's. The paper's fine-tuning rate is not known; ours is
    /// 1e-5, with one pass over the data in at most its 10,000 steps. Weight 1.5 of the general text and its 0 to 5 %
    /// of forgetting are the paper's; the code has 0.01 and none. A step takes 8 rows of general text unless
    /// `general.batch_size` says otherwise, not as many as of feedback.
    /// # Claim
    /// On the bench, where 80 edits make the pairs (quality in [-1, 1], five seeds, 95 % intervals): words steer, gap
    /// 0.57 ± 0.05 above the start's (`claim_words_steer`); sentences carry over to an unseen one, 0.19 ± 0.11
    /// (`claim_sentences_carry_over`); general text keeps the language, 1.84 ± 0.27 nats
    /// (`claim_general_text_keeps_the_language`).
    ///
    /// These do not hold there, in two attempts each. Both sides against the better alone at as many steps: 0.00 ±
    /// 0.03, and -0.05 ± 0.04 where pairs of unrelated answers are compared (`claim_both_sides_beat_the_better`).
    /// Chains against single answers: 0.01 ± 0.02 and 0.03 ± 0.06 (`claim_chains_beat_single_answers`). Imitation
    /// against imitation with unlikelihood: -0.03 ± 0.03 and 0.04 ± 0.07: short answers do not degenerate
    /// (`claim_unlikelihood_spoils`). Only answers as targets: 0.02 ± 0.03 and 0.01 ± 0.02
    /// (`claim_only_answers_are_targets`). Forgetting: 0.00 ± 0.01 twice, for a model of one layer that hardly copies
    /// (`claim_forgetting_lowers_copying`). A worse answer shown first: -0.03 ± 0.04, no difference that can be seen
    /// (`claim_a_worse_answer_first_does_no_harm`). Imitation is given the same words before its answers, and they are
    /// short and good: there is little left for a contrast to teach. A baseline by reinforcement is not run here;
    /// `rloo` is one on the same data.
    /// # Source
    /// Liu, Sferrazza, Abbeel, ICLR 2024, arXiv:2302.02676; forgetting: Liu et al., arXiv:2210.13432; unlikelihood, for
    /// the baseline: Welleck et al., ICLR 2020, arXiv:1908.04319.
    pub static CHAIN_OF_HINDSIGHT: Method = Method {
        id: "chain-of-hindsight", name: "Chain of Hindsight", family: Family::Imitate,
        needs: Needs::Shape(Shape::Pairs), makes: Makes::Policy, settings: ChainOfHindsight,
        claims: &[Claim {
            name: "claim_words_steer",
            says: "After training, answers asked for with good words are better than those asked for with bad words.",
            metric: "mean quality of answers asked for with good words, less that with bad words",
            baseline: "the same gap at the policy's start",
            effect: words_steer,
        }, Claim {
            name: "claim_both_sides_beat_the_better",
            says: "Chains of both answers teach better answers than imitating the better ones of the same pairs.",
            metric: "mean quality of answers asked for with good words",
            baseline: "only the better answers, as many steps",
            effect: both_sides,
        }, Claim {
            name: "claim_chains_beat_single_answers",
            says: "Seeing both answers in one context teaches more than seeing each alone after its words.",
            metric: "mean quality of answers asked for with good words",
            baseline: "the forms `p` and `n` alone, as many steps",
            effect: chains_beat_singles,
        }, Claim {
            name: "claim_unlikelihood_spoils",
            says: "Making worse answers unlikely beside imitating the better ones makes answers worse than imitating alone.",
            metric: "mean quality of answers after imitating the better ones",
            baseline: "the same with unlikelihood on the worse ones",
            effect: unlikelihood_spoils,
        }, Claim {
            name: "claim_only_answers_are_targets",
            says: "Leaving prompts and words out of the loss gives better answers.",
            metric: "mean quality of answers asked for with good words",
            baseline: "every token a target",
            effect: answers_alone,
        }, Claim {
            name: "claim_general_text_keeps_the_language",
            says: "With general text beside it, the policy stays a better model of such text.",
            metric: "log-likelihood of held-out general text, nats per token",
            baseline: "no general text",
            effect: text_keeps,
        }, Claim {
            name: "claim_forgetting_lowers_copying",
            says: "Hiding past tokens in training makes a second answer copy less of a worse one shown before it.",
            metric: "share of the second answer's words that the first one does not have",
            baseline: "nothing hidden",
            effect: forgetting_lowers_copying,
        }, Claim {
            name: "claim_a_worse_answer_first_does_no_harm",
            says: "Answers after a worse one and then good words are as good as after good words alone, or better.",
            metric: "mean quality of answers after a worse one",
            baseline: "good words alone",
            effect: chained_asking,
        }, Claim {
            name: "claim_sentences_carry_over",
            says: "Trained on many sentences, the policy is steered by one that it has not seen better than after two fixed words.",
            metric: "mean quality asked for with an unseen good sentence, less that with an unseen bad one",
            baseline: "one word each for good and bad",
            effect: sentences_carry_over,
        }],
        run,
    };
}

/// How the answers of a pair stand in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The better one.
    P,
    /// The worse one.
    N,
    /// The worse one, then the better one.
    Np,
    /// The better one, then the worse one.
    Pn,
}

/// Settings of Chain of Hindsight. Defaults are the paper's where it gives them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainOfHindsight {
    /// Sentences before a worse and before a better answer. The good one of the first pair is what the policy is asked
    /// with. At least one pair; a bare word each is the ablation without language.
    pub templates: Vec<[String; 2]>,
    /// Whether each pair of answers is written once for every template; else once, with a template drawn for each form.
    pub every_template: bool,
    /// Which forms a pair is written in, at least one. `p` alone is imitation, `p` and `n` the conditional baseline.
    pub forms: Vec<Layout>,
    /// Answers in one chain, at least 2. Above 2 takes rated and ranked answers in lists. Paper: 2 in training.
    pub chain_length: usize,
    /// Whether what was said about an answer follows the sentence before it.
    pub words: bool,
    /// Share of past tokens hidden from attention in training: for each sequence drawn evenly from this range, in
    /// `[0, 1)`. Paper: 0 to 0.05.
    pub forget: [f64; 2],
    /// Weight of the general text's gradient, at least 0; 0 leaves the text out. Paper: 1.5.
    pub general_weight: f64,
    /// The general text.
    pub general: General,
    /// An ablation: prompts and sentences are targets too.
    pub everything: bool,
    /// A baseline: the worse answer of form `n` is made unlikely, not imitated.
    pub unlikelihood: bool,
    /// The descent. Paper: batch 256, 10,000 steps, AdamW with β₂ 0.95 and weight decay 1e-4, 2,000 steps of warm-up,
    /// then a cosine, clipping at 1, sequences of 1,024 tokens.
    pub training: Training,
}

impl Default for ChainOfHindsight {
    fn default() -> ChainOfHindsight {
        let templates = [
            ["The answer below is a poor one.", "The answer below is a good one."],
            ["A worse answer:", "A better answer:"],
            ["Here is a less helpful answer.", "Here is a more helpful answer."],
            ["The following is less accurate.", "The following is more accurate."],
            ["Give a bad answer.", "Give a good answer."],
            ["Write something that people would not like.", "Write something that people would like."],
        ];
        ChainOfHindsight {
            templates: templates.map(|pair| pair.map(String::from)).to_vec(),
            every_template: true,
            forms: vec![Layout::P, Layout::N, Layout::Np, Layout::Pn],
            chain_length: 2,
            words: false,
            forget: [0.0, 0.05],
            general_weight: 1.5,
            general: General::default(),
            everything: false,
            unlikelihood: false,
            training: Training {
                learning_rate: 1e-5,
                batch_size: 256,
                max_steps: 10_000,
                warm_up: 0.2,
                decay: Decay::Cosine,
                beta2: 0.95,
                weight_decay: 1e-4,
                ..Training::default()
            },
        }
    }
}

const ID: &str = "chain-of-hindsight";

impl Settings for ChainOfHindsight {
    fn check(&self) -> Result<()> {
        if self.templates.is_empty() {
            return Err(Error::range(ID, "templates", "at least one pair of sentences", "none"));
        }
        if let Some(at) = self.templates.iter().position(|[bad, good]| bad == good || good.trim().is_empty())
        {
            let needed = format!("two different sentences in pair {}", at + 1);
            return Err(Error::range(ID, "templates", &needed, "the same or none"));
        }
        if self.forms.is_empty() {
            return Err(Error::range(ID, "forms", "at least one of p, n, np, pn", "none"));
        }
        if self.chain_length < 2 {
            return Err(Error::range(ID, "chain_length", "at least 2", self.chain_length));
        }
        check_forget(ID, self.forget)?;
        not_negative(ID, "general_weight", self.general_weight)?;
        self.general.check(ID)?;
        self.training.check(ID)
    }
}

impl ChainOfHindsight {
    /// A prompt as the trained policy is to be asked it.
    pub fn ask(&self, prompt: &Prompt) -> Prompt {
        conditioned(prompt, self.templates.first().map_or("", |[_, good]| good))
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: ChainOfHindsight = settings(ID, job.settings)?;
    let mut policy = job.policy;
    let examples = chains(&policy, job.records, &own, job.seed)?;
    Error::expect_examples(ID, "pairs of a better and a worse answer", &examples, job.records)?;
    let text = match own.general_weight > 0.0 {
        true => Some(own.general.rows(&policy, job.seed)?),
        false => None,
    };
    let beside = text
        .as_ref()
        .map_or(Beside::Nothing, |text| Beside::Added(text, own.general.batch_size, own.general_weight));
    let walk = Walk { examples: &examples, mean: Mean::Rows, beside, forget: own.forget };
    policy.model = walk.go(policy.model, &own.training, job.seed, &job.session)?;
    Ok(Product::Policy(policy))
}

/// All sequences of all records, one example each. The label is -1 for an answer to be made unlikely, else 1.
fn chains(policy: &Policy, records: &[Record], own: &ChainOfHindsight, seed: u64) -> Result<Examples> {
    let mut out = Examples::default();
    let limit = own.training.tokens_for(&policy.model);
    let mut rng = rng(seed, "templates");
    for (index, record) in records.iter().enumerate() {
        for answers in groups(record, own.chain_length, &mut out.losses) {
            let templates: Vec<usize> = match own.every_template {
                true => (0..own.templates.len()).collect(),
                false => vec![usize::MAX],
            };
            for template in templates {
                for &form in &own.forms {
                    let drawn = own.templates.get(template);
                    let drawn = drawn.or_else(|| own.templates.get(rng.random_range(0..own.templates.len())));
                    let Some(words) = drawn else { continue };
                    for turns in written(record, &answers, form, words, own.words) {
                        let label = if own.unlikelihood && form == Layout::N { -1.0 } else { 1.0 };
                        add(
                            &mut out,
                            index,
                            label,
                            own.everything,
                            chain(policy, &record.prompt, &turns, limit),
                        )?;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// Answers of a record from worst to best, each group a chain: pairs, or lists of at most `length`.
fn groups<'a>(record: &'a Record, length: usize, losses: &mut Losses) -> Vec<Vec<&'a Content>> {
    if length == 2 {
        let pairs = convert::pairs(record, losses);
        return pairs.into_iter().map(|pair| vec![pair.rejected, pair.chosen]).collect();
    }
    let mut groups = vec![];
    for list in convert::lists(record, losses) {
        let mut rated: Vec<(f64, &Content)> = list.labels.into_iter().zip(list.contents).collect();
        rated.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let before = rated.len();
        rated.dedup_by(|(one, _), (other, _)| one == other);
        losses.add_many("tied answers of a chain", (before - rated.len()) as u64);
        let spread = rated.len();
        // Of more answers than fit, those that are spread evenly over the order.
        let kept = (0..spread.min(length))
            .filter_map(|at| rated.get(at * (spread - 1) / (spread.min(length) - 1).max(1)))
            .map(|(_, content)| *content)
            .collect::<Vec<_>>();
        if kept.len() > 1 {
            groups.push(kept);
        }
    }
    groups
}

/// The turns of one form. In a longer chain, every answer but the first is better (worse) than the one before it.
fn written(
    record: &Record,
    rising: &[&Content],
    form: Layout,
    [bad, good]: &[String; 2],
    words: bool,
) -> Vec<Vec<Turn>> {
    let turn = |sentence: &String, answer: &Content| {
        let mut sentence = sentence.clone();
        if words {
            let said = convert::conditions(record, &mut Losses::default());
            let said = said.iter().filter(|said| said.response.is_some_and(|on| std::ptr::eq(on, answer)));
            said.for_each(|said| sentence = format!("{sentence} {}", said.words));
        }
        Turn::new(sentence, answer.text())
    };
    let (Some((worst, others)), Some((best, rest))) = (rising.split_first(), rising.split_last()) else {
        return vec![];
    };
    match form {
        Layout::P => vec![vec![turn(good, best)]],
        Layout::N => vec![vec![turn(bad, worst)]],
        Layout::Np => {
            let later = others.iter().map(|answer| turn(good, answer));
            vec![std::iter::once(turn(bad, worst)).chain(later).collect()]
        }
        Layout::Pn => {
            let later = rest.iter().rev().map(|answer| turn(bad, answer));
            vec![std::iter::once(turn(good, best)).chain(later).collect()]
        }
    }
}

fn add(
    out: &mut Examples,
    record: usize,
    label: f32,
    everything: bool,
    encoded: Result<Option<crate::policy::Sequence>>,
) -> Result<()> {
    let why = match encoded {
        Ok(Some(mut sequence)) => {
            if everything {
                sequence.mask.fill(true);
            }
            out.items.push(Example { record, sequences: vec![sequence], labels: vec![label], marks: vec![] });
            return Ok(());
        }
        Ok(None) => "chains longer than the model or the settings allow".into(),
        Err(Error::Model(error)) => match refusal(&error) {
            Some(why) => why,
            None => return Err(Error::Model(error)),
        },
        Err(error) => return Err(error),
    };
    out.losses.add(&why);
    Ok(())
}

/// Words that sentences of the claims are made of.
const WORDS: [&str; 12] =
    ["good", "bad", "fine", "poor", "better", "worse", "here", "is", "a", "one", "write", "now"];

/// The bench with those words in the policy's vocabulary, and text of the policy's own kind.
struct Ground {
    bench: Bench,
    train: Vec<Record>,
    held_out: Vec<Record>,
    text: String,
}

impl Ground {
    fn new(seed: u64) -> Result<Ground> {
        let bench = Bench::new(seed)?;
        let (train, held_out) = (bench.edits(80, "train"), bench.records(60, 1, "held out"));
        let text = Ground::text(&bench, "general", seed)?;
        Ok(Ground { bench, train, held_out, text })
    }

    /// A file of phrases in which all words are alike: the bench's own language.
    fn text(bench: &Bench, name: &str, seed: u64) -> Result<String> {
        let records = bench.records(200, 1, name);
        let lines = records.iter().map(|record| {
            let text =
                format!("{} {}", crate::policy::text(&record.prompt), record.responses[0].content.text());
            serde_json::json!({ "text": text }).to_string()
        });
        let path = bench::temporary(&format!("hindsight-{seed}-{name}"))?.join("text.jsonl");
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).map_err(Error::io(&path))?;
        Ok(path.display().to_string())
    }

    fn start(&self) -> Result<Policy> {
        with_tokens(self.bench.policy()?, &WORDS, false, 1)
    }

    /// Trains with settings over those of all claims.
    fn train(&self, own: &str) -> Result<Policy> {
        let settings = self.settings(own)?;
        let job = self.bench.job(&self.train, &settings)?;
        run(Job { policy: self.start()?, ..job })?.policy()
    }

    fn settings(&self, own: &str) -> Result<toml::Table> {
        let shared = format!(
            "templates = [[\"bad\", \"good\"]]\ngeneral_weight = 0.3\n[general]\nsource = \"{}\"\nrow_tokens = 64\n\
             batch_size = 4\n[training]\nepochs = {PASSES:.1}",
            self.text
        );
        let mut whole = bench::quick(&shared)?;
        for (key, value) in bench::quick(own)? {
            if key != "training" {
                whole.insert(key, value);
            } else if own.contains("epochs")
                && let (Some(to), Some(from)) = (whole["training"].as_table_mut(), value.get("epochs"))
            {
                to.insert("epochs".into(), from.clone());
            }
        }
        Ok(whole)
    }

    /// Mean quality of answers asked for with these words, after turns that were had.
    fn quality(&self, policy: &Policy, words: &str) -> Result<f64> {
        let answers = self.answers(policy, words, None)?;
        Ok(mean(&answers.iter().flatten().map(|text| self.bench.utility(text)).collect::<Vec<_>>()))
    }

    /// Answers to held-out prompts, 4 each; after the answer that each record has, if words for it are given.
    fn answers(&self, policy: &Policy, words: &str, before: Option<&str>) -> Result<Vec<Vec<String>>> {
        let model = policy.speaker()?;
        let asked: Result<Vec<_>> = self
            .held_out
            .iter()
            .map(|record| match before {
                None => lm_prompt(&conditioned(&record.prompt, words), false),
                Some(before) => {
                    let turns = [Turn::new(before, record.responses[0].content.text())];
                    opening(policy, &record.prompt, &turns, words).map(hone_lm::model::Prompt::Tokens)
                }
            })
            .collect();
        let draw = Draw { max_tokens: 16, ..Draw::default() };
        let drawn = sample(&model, &asked?, 4, &draw, sub_seed(1, words))?;
        Ok(drawn.into_iter().map(|samples| samples.into_iter().map(|s| s.text).collect()).collect())
    }

    fn gap(&self, policy: &Policy, good: &str, bad: &str) -> Result<f64> {
        Ok(self.quality(policy, good)? - self.quality(policy, bad)?)
    }
}

/// Settings of so many forms, with the passes that take as many steps as [`PASSES`] over all four of one template.
fn only(forms: &str, count: usize) -> String {
    format!("forms = [{forms}]\n[training]\nepochs = {:.1}", PASSES * 4.0 / count as f64)
}

/// Passes over the four forms of every pair.
const PASSES: f64 = 16.0;

fn words_steer(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    Ok(ground.gap(&ground.train("")?, "good", "bad")? - ground.gap(&ground.start()?, "good", "bad")?)
}

/// Quality with these settings less that with others.
fn better(seed: u64, own: &str, baseline: &str) -> Result<f64> {
    let ground = Ground::new(seed)?;
    Ok(ground.quality(&ground.train(own)?, "good")? - ground.quality(&ground.train(baseline)?, "good")?)
}

fn both_sides(seed: u64) -> Result<f64> {
    better(seed, "", &only("\"p\"", 1))
}

fn chains_beat_singles(seed: u64) -> Result<f64> {
    better(seed, "", &only("\"p\", \"n\"", 2))
}

fn unlikelihood_spoils(seed: u64) -> Result<f64> {
    better(seed, &only("\"p\"", 1), &format!("unlikelihood = true\n{}", only("\"p\", \"n\"", 2)))
}

fn answers_alone(seed: u64) -> Result<f64> {
    better(seed, "", "everything = true")
}

fn text_keeps(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let held_out = General { source: Ground::text(&ground.bench, "unseen", seed)?, ..General::default() };
    let loss = |policy: &Policy| loss_on(&policy.model, &held_out.rows(policy, seed)?);
    Ok(loss(&ground.train("general_weight = 0.0")?)? - loss(&ground.train("")?)?)
}

fn forgetting_lowers_copying(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let copied = |policy: &Policy| -> Result<f64> {
        let answers = ground.answers(policy, "good", Some("bad"))?;
        let shares = ground.held_out.iter().zip(&answers).flat_map(|(record, answers)| {
            let shown = record.responses[0].content.text().into_owned();
            answers.iter().filter_map(move |answer| copied(&shown, answer))
        });
        Ok(mean(&shares.collect::<Vec<_>>()))
    };
    Ok(copied(&ground.train("forget = [0.0, 0.0]")?)? - copied(&ground.train("")?)?)
}

/// Share of an answer's words that stand in another text; none for an answer without a word.
fn copied(shown: &str, answer: &str) -> Option<f64> {
    let (known, own): (Vec<&str>, Vec<&str>) =
        (shown.split(' ').collect(), answer.split_whitespace().collect());
    let count = own.iter().filter(|word| known.contains(word)).count();
    (!own.is_empty()).then(|| count as f64 / own.len() as f64)
}

fn chained_asking(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let policy = ground.train("")?;
    let answers = ground.answers(&policy, "good", Some("bad"))?;
    let chained = mean(&answers.iter().flatten().map(|text| ground.bench.utility(text)).collect::<Vec<_>>());
    Ok(chained - ground.quality(&policy, "good")?)
}

fn sentences_carry_over(seed: u64) -> Result<f64> {
    let ground = Ground::new(seed)?;
    let many = "templates = [[\"bad\", \"good\"], [\"here is a poor one\", \"here is a fine one\"], \
                [\"write a worse one\", \"write a better one\"]]\n";
    let many = format!("{many}[training]\nepochs = {:.1}", PASSES / 3.0);
    let (good, bad) = ("now write a good one", "now write a bad one");
    Ok(ground.gap(&ground.train(&many)?, good, bad)? - ground.gap(&ground.train("")?, good, bad)?)
}

#[cfg(test)]
mod tests {
    use hone_feedback::Form;

    use super::*;

    fn texts(policy: &Policy, examples: &Examples) -> Vec<String> {
        let decode = |item: &Example| policy.tokenizer.decode(&item.sequences[0].tokens, false).unwrap();
        examples.items.iter().map(decode).collect()
    }

    fn ground() -> (Policy, ChainOfHindsight) {
        let policy = with_tokens(Bench::new(1).unwrap().policy().unwrap(), &WORDS, false, 1).unwrap();
        let templates = [["bad", "good"], ["a poor one", "a fine one"]].map(|pair| pair.map(String::from));
        (policy, ChainOfHindsight { templates: templates.to_vec(), ..ChainOfHindsight::default() })
    }

    #[test]
    fn a_pair_is_written_in_every_form_and_template() {
        let (policy, own) = ground();
        let record = Record::new("r", Prompt::Text("say w9".into()))
            .respond("a", "w1 w2")
            .respond("b", "w3")
            .say(Form::Comparison { better: "b".into(), worse: "a".into() });
        let records = [record];
        let examples = chains(&policy, &records, &own, 1).unwrap();
        let expected = [
            "say w9 good w3 </s>",
            "say w9 bad w1 w2 </s>",
            "say w9 bad w1 w2 </s> good w3 </s>",
            "say w9 good w3 </s> bad w1 w2 </s>",
            "say w9 a fine one w3 </s>",
            "say w9 a poor one w1 w2 </s>",
            "say w9 a poor one w1 w2 </s> a fine one w3 </s>",
            "say w9 a fine one w3 </s> a poor one w1 w2 </s>",
        ];
        assert_eq!(texts(&policy, &examples), expected);
        // One form of one drawn template.
        let drawn = ChainOfHindsight { every_template: false, ..own.clone() };
        assert_eq!(chains(&policy, &records, &drawn, 1).unwrap().len(), 4);
        // The baseline with unlikelihood turns only the worse answer round.
        let turned = ChainOfHindsight { unlikelihood: true, forms: vec![Layout::P, Layout::N], ..own };
        let labels: Vec<f32> =
            chains(&policy, &records, &turned, 1).unwrap().items.iter().map(|item| item.labels[0]).collect();
        assert_eq!(labels, [1.0, -1.0, 1.0, -1.0]);
    }

    #[test]
    fn lists_are_chained_from_worst_to_best_and_back_and_ties_are_counted() {
        let (policy, own) = ground();
        let ranked = |order: &[&[&str]]| {
            let order = order.iter().map(|place| place.iter().map(|id| id.to_string()).collect()).collect();
            let record = Record::new("r", Prompt::Text("say".into()));
            let record = record.respond("a", "w1").respond("b", "w2").respond("c", "w3").respond("d", "w4");
            [record.say(Form::Ranking { order })]
        };
        let own = ChainOfHindsight {
            chain_length: 3,
            forms: vec![Layout::Np, Layout::Pn],
            templates: own.templates[..1].to_vec(),
            ..own
        };
        // Best first: c, a, d, b. Three of four, evenly: places 0, 1 and 3 from the bottom.
        let examples = chains(&policy, &ranked(&[&["c"], &["a"], &["d"], &["b"]]), &own, 1).unwrap();
        let expected =
            ["say bad w2 </s> good w4 </s> good w3 </s>", "say good w3 </s> bad w4 </s> bad w2 </s>"];
        assert_eq!(texts(&policy, &examples), expected);
        let examples = chains(&policy, &ranked(&[&["c"], &["a", "d", "b"]]), &own, 1).unwrap();
        assert_eq!(examples.items[0].sequences[0].targets(), 4);
        assert_eq!(examples.losses.of("tied answers of a chain"), 2);
    }

    #[test]
    fn what_was_said_follows_the_sentence() {
        let (policy, own) = ground();
        let record = Record::new("r", Prompt::Text("say".into()))
            .respond("a", "w1")
            .respond("b", "w2")
            .say(Form::Comparison { better: "b".into(), worse: "a".into() })
            .say(Form::Critique { on: Some("a".into()), text: "w7 w8".into() });
        let own = ChainOfHindsight {
            words: true,
            forms: vec![Layout::Np],
            templates: own.templates[..1].to_vec(),
            ..own
        };
        let examples = chains(&policy, &[record], &own, 1).unwrap();
        assert_eq!(texts(&policy, &examples), ["say bad w7 w8 w1 </s> good w2 </s>"]);
    }

    #[test]
    fn the_policy_is_asked_with_the_first_good_words() {
        let own = ground().1;
        assert_eq!(own.ask(&Prompt::Text("say w1".into())), Prompt::Text("say w1\ngood\n".into()));
    }

    #[test]
    fn copies_are_counted_in_words() {
        // w1 and w1 again, not w5.
        assert_eq!(copied("w0 w1 w2 w3", "w1 w5 w1"), Some(2.0 / 3.0));
        assert_eq!(copied("w0 w1", ""), None);
    }

    #[test]
    fn claim_words_steer() {
        bench::assert_holds(words_steer, 5);
    }

    #[test]
    fn claim_general_text_keeps_the_language() {
        bench::assert_holds(text_keeps, 5);
    }

    #[test]
    fn claim_sentences_carry_over() {
        bench::assert_holds(sentences_carry_over, 5);
    }

    /// For claims that do not hold here (see the comment above): a change that makes one hold, or fail by far, is to be
    /// noticed.
    fn assert_near(effect: fn(u64) -> Result<f64>, range: std::ops::Range<f64>) {
        let (mean, _, values) = bench::over_seeds(effect, 5).unwrap();
        assert!(range.contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_both_sides_beat_the_better() {
        assert_near(both_sides, -0.04..0.04);
    }

    #[test]
    fn claim_chains_beat_single_answers() {
        assert_near(chains_beat_singles, -0.03..0.03);
    }

    #[test]
    fn claim_unlikelihood_spoils() {
        assert_near(unlikelihood_spoils, -0.06..0.01);
    }

    #[test]
    fn claim_only_answers_are_targets() {
        assert_near(answers_alone, -0.01..0.05);
    }

    #[test]
    fn claim_forgetting_lowers_copying() {
        assert_near(forgetting_lowers_copying, -0.02..0.02);
    }

    #[test]
    fn claim_a_worse_answer_first_does_no_harm() {
        assert_near(chained_asking, -0.07..0.02);
    }
}
