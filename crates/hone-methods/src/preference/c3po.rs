//! Contextualised critiques with constrained preference optimisation.

mod adapters;
mod bench;
mod claims;
mod data;
mod prompts;
mod scores;

use candle_core::Tensor;
use hone_nn::params::Projection;
use hone_nn::train::seed::sub_seed;
use hone_nn::{LoraConfig, Loss, Model, Network, Want, folder, loss};
use serde::{Deserialize, Serialize};

pub use adapters::added;
pub use data::{Data, Pair, complete};
pub use prompts::{Asked, Sets, Source, Statement, last_list, sets, statements};
pub use scores::{Compared, Manner, Scores, answer, checked, judged, scores, slope};

use crate::error::{Error, Result};
use crate::method::{
    Family, Job, Makes, Needs, Product, Settings, above_zero, method, not_negative, settings,
};
use crate::policy::Policy;
use crate::preference::dpo::dpo_loss;
use crate::preference::reward_metrics;
use crate::refine::Draw;
use crate::templates::Templates;
use crate::train::{Decay, Part, Session, Training, batch_of, descend_with, seq_logps};

const ID: &str = "c3po";

method! {
    /// Learn a rule from one sentence, and keep it where it applies and nowhere else.
    /// # What it does
    /// For each rule of the log: prompts it applies to, prompts near its scope that it does not apply to, and prompts that
    /// have nothing to do with it. The policy answers all of them and revises its answers in scope by the rule. A LoRA
    /// adapter then learns to prefer revision over answer by DPO, while the likelihood of its own first answers near and
    /// out of scope is kept up; every step sees all three sets. The adapters of all rules are added.
    /// `objective = "imitate"` and weights of 0 give the baselines: SCD, SCD with negatives (weights 0.5), DPO. `constraint`
    /// takes the divergence from the start instead of the likelihood, summed over tokens as released or averaged.
    /// # Feedback
    /// Rules, with their scope. `prompts = "model"` has the policy invent prompts, as the paper's GPT-4 does, and takes the
    /// log's prompts without a rule for out of scope; `"log"` takes the log's own, in which a rule said with
    /// `"applies": false` marks a prompt near its scope; `"notes"` has the world of notes write them, for its own rules. A run with a folder leaves each
    /// rule's scores on held-out prompts in `scores.json`: of a rule of that world by its check, else by the policy at its
    /// start as a judge, asked in both orders so that a taste for one place cancels out.
    /// # Departs from the paper
    /// The policy invents the prompts, not GPT-4, unless prompts are given. No dropout in the adapter. Answers and revisions
    /// that were cut short are left out and counted. The divergence is taken at the tokens of the answer, not one beside.
    /// Without an adapter at the start, what comes out is an adapter; one that is there is worked into the weights first.
    /// # Claim
    /// A small model on words with topics, 3 rules a seed, the published weights and β, 192 prompts a set, 48 steps for
    /// every arm; rules are checked exactly. Higher `S_overall` than DPO, SCD, SCD with negatives, and the untrained policy with
    /// the rule in its prompt, without and with an explanation first (`claim_overall_beats_dpo`, `claim_overall_beats_scd`,
    /// `claim_overall_beats_scd_negatives`, `claim_overall_beats_in_context`, `claim_overall_beats_in_context_cot`). Over
    /// rules and lengths of training, change elsewhere grows less with adherence than under SCD, and than under DPO
    /// (`claim_slope_is_smaller`, `claim_slope_is_smaller_than_dpo`). DPO alone changes more elsewhere and adheres no better
    /// (`claim_dpo_overreaches`, `claim_dpo_adheres_no_better`). Each set of held answers protects its own kind of prompt
    /// (`claim_near_data_protects_near`, `claim_out_data_protects_out`). After one pass, as the paper trains, the summed
    /// divergence costs 0.38 of adherence, and its average costs none (`claim_summed_kl_costs_adherence`,
    /// `claim_averaged_kl_gets_some_back`); after four passes answers of five tokens leave no difference, −0.02 ± 0.07.
    /// Where responses can be enumerated, DPO's optimum is `[π₊ / π₋^(1−β)]^(1/β)` (`claim_beta_sharpens`). DPO was run at
    /// half the rate too, on two seeds, and ended no better. That two adapters added keep each rule's adherence to within 0.1
    /// (`claim_adapters_add`) does not hold: they lose 0.09 on average after four passes and 0.22 after one, up to 0.44 for a
    /// seed. Updates of rank 8 in a model 48 wide share directions; at the paper's size they have room.
    /// # Source
    /// Stephan et al., ICML 2024, arXiv:2402.10893, sections 3 to 5.
    pub static C3PO: Method = Method {
        id: "c3po", name: "C3PO", family: Family::Preference, needs: Needs::Rules, makes: Makes::Policy, settings: C3po,
        claims: claims::CLAIMS,
        run,
    };
}

/// What is learnt in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// DPO on the revision over the answer.
    Prefer,
    /// Cross-entropy on the revision: supervised context distillation, a baseline.
    Imitate,
}

/// What keeps the policy in place near and out of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Cross-entropy on the start's own answers, a mean over their tokens.
    Likelihood,
    /// KL(start ‖ policy) at every token of them, summed: the paper's ablation as released. The weights then count for
    /// as many times more as an answer has tokens.
    KlSum,
    /// The same, a mean over tokens.
    KlMean,
}

/// Size of an adapter, on every projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank, at least 1. Paper: 64.
    pub rank: usize,
    /// Numerator α of its scale, above 0. Paper: 128.
    pub alpha: f64,
}

impl Default for Lora {
    fn default() -> Lora {
        Lora { rank: 64, alpha: 128.0 }
    }
}

/// Settings of C3PO. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct C3po {
    /// Rules to learn, as the log says them; all of the log's if empty.
    pub rules: Vec<String>,
    /// Where prompts come from. Paper: a strong model; here the policy plays it.
    pub prompts: Source,
    /// Categories that a model is asked for. Paper: 32.
    pub categories: usize,
    /// Prompts in each of the three sets, `M`. Paper: 960.
    pub prompts_per_set: usize,
    /// Share of every category that is measured, not trained on, in `[0, 1)`. Paper: 0.2.
    pub held_out: f64,
    /// What is learnt in scope. Paper: prefer.
    pub objective: Objective,
    /// Scale β of the implicit reward. No unit, above 0. Paper: 0.1.
    pub beta: f64,
    /// What holds elsewhere. Paper: likelihood.
    pub constraint: Constraint,
    /// λ₁, weight of the out-of-scope term, at least 0. Paper: 0.2.
    pub out_weight: f64,
    /// λ₂, weight of the near-scope term, at least 0. Paper: 0.1.
    pub near_weight: f64,
    /// The adapter of each rule.
    pub lora: Lora,
    /// How answers and revisions are sampled. Paper: temperature 0.7, top-p 0.7, top-k 50.
    pub draw: Draw,
    /// The descent; its batch counts pairs, each with one answer of both other sets. Paper: 5e-5, 16, cosine.
    pub training: Training,
    /// Asks for `count` categories. This template and all below know `rule`, `effect` and `scope`.
    pub categorise: String,
    /// Asks for `count` prompts of a `category` in scope.
    pub ask_inside: String,
    /// Asks for `count` prompts of a `category` near scope.
    pub ask_near: String,
    /// Asks for a revision of `answer` to `prompt`.
    pub revise: String,
    /// Tells the rule with `prompt`: a baseline.
    pub in_context: String,
    /// Tells it and asks for an explanation first: a baseline.
    pub in_context_cot: String,
    /// Asks a judge to compare `first` and `second`.
    pub judge: String,
    /// What stands before a revision or an explained answer in a reply; empty: it is all of the reply.
    pub answer_after: String,
}

impl Default for C3po {
    fn default() -> C3po {
        C3po {
            rules: vec![],
            prompts: Source::Model,
            categories: 32,
            prompts_per_set: 960,
            held_out: 0.2,
            objective: Objective::Prefer,
            beta: 0.1,
            constraint: Constraint::Likelihood,
            out_weight: 0.2,
            near_weight: 0.1,
            lora: Lora::default(),
            draw: Draw { temperature: 0.7, top_p: 0.7, top_k: 50, ..Draw::default() },
            training: Training {
                learning_rate: 5e-5,
                batch_size: 16,
                warm_up: 0.05,
                decay: Decay::Cosine,
                max_tokens: 2048,
                ..Training::default()
            },
            categorise: include_str!("c3po/prompts/categorise.jinja").into(),
            ask_inside: include_str!("c3po/prompts/ask_inside.jinja").into(),
            ask_near: include_str!("c3po/prompts/ask_near.jinja").into(),
            revise: include_str!("c3po/prompts/revise.jinja").into(),
            in_context: include_str!("c3po/prompts/in_context.jinja").into(),
            in_context_cot: include_str!("c3po/prompts/in_context_cot.jinja").into(),
            judge: include_str!("c3po/prompts/judge.jinja").into(),
            answer_after: "ANSWER:".into(),
        }
    }
}

impl C3po {
    fn templates(&self) -> Result<Templates<'_>> {
        Templates::new(
            ID,
            &[
                ("categorise", &self.categorise),
                ("ask_inside", &self.ask_inside),
                ("ask_near", &self.ask_near),
                ("revise", &self.revise),
                ("in_context", &self.in_context),
                ("in_context_cot", &self.in_context_cot),
                ("judge", &self.judge),
            ],
        )
    }
}

impl Settings for C3po {
    fn check(&self) -> Result<()> {
        let counts = [
            ("categories", self.categories),
            ("prompts_per_set", self.prompts_per_set),
            ("lora.rank", self.lora.rank),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(Error::range(ID, key, "at least 1", 0));
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return Err(Error::range(ID, "held_out", "a share in [0, 1)", self.held_out));
        }
        above_zero(ID, "beta", self.beta)?;
        above_zero(ID, "lora.alpha", self.lora.alpha)?;
        not_negative(ID, "out_weight", self.out_weight)?;
        not_negative(ID, "near_weight", self.near_weight)?;
        self.templates()?;
        self.draw.check(ID)?;
        self.training.check(ID)
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: C3po = settings(ID, job.settings)?;
    let Job { policy, records, seed, session, .. } = job;
    let mut rules = statements(records);
    rules.retain(|rule| own.rules.is_empty() || own.rules.contains(&rule.text));
    if rules.is_empty() {
        let needed = if own.rules.is_empty() { "rules".into() } else { format!("the rules {:?}", own.rules) };
        let got = format!("none in {} records", records.len());
        return Err(Error::Data { method: ID.into(), needed, got });
    }
    let merged = policy.model.adapter.is_some();
    let mut start = base(policy)?;
    let speaker = start.speaker()?;
    let mut parts = vec![];
    for (index, rule) in rules.iter().enumerate() {
        let seed = sub_seed(seed, &format!("rule {index}"));
        let (trained, held) = sets(&speaker, rule, records, &own, seed)?.split(own.held_out);
        let data = complete(&speaker, rule, &trained, &own, seed)?;
        let session = session.stage(&format!("rule-{}", index + 1));
        let mut after = train(start.copy()?, &data, &own, seed, &session)?;
        if let Some(folder) = &session.folder {
            let scores = measure(&start, &after, rule, &held, &own, seed)?;
            let path = folder.join("scores.json");
            let text = serde_json::json!({
                "rule": rule.text, "scope": rule.scope, "s_in": scores.adherence(), "s_out": scores.overreach(),
                "s_overall": scores.overall(), "near": Scores::change(&scores.near),
                "out": Scores::change(&scores.outside), "scores": scores, "left_out": data.losses,
            });
            std::fs::write(&path, text.to_string()).map_err(Error::io(&path))?;
        }
        parts.push(adapters::taken(&mut after.model)?);
    }
    if let Some(adapter) = added(&parts, &start.model)? {
        start.model.attach(adapter);
    }
    // The base on disk lacks the adapter that came along: what is saved must hold both.
    Ok(Product::Policy(if merged { base(start)? } else { start }))
}

/// The policy with its adapter worked into the weights: what answers, and what the new adapter is measured against.
fn base(mut policy: Policy) -> Result<Policy> {
    if policy.model.adapter.is_some() {
        let mut model = Model::new((**policy.model.config()).clone(), folder::merge(&policy.model))?;
        model.threads = policy.model.threads;
        policy.model = model;
    }
    Ok(policy)
}

/// Scores of held-out prompts: by the rule's own check where there is one, else by the start as a judge.
fn measure(
    start: &Policy,
    after: &Policy,
    rule: &Statement,
    held: &Sets,
    own: &C3po,
    seed: u64,
) -> Result<Scores> {
    let (before, after) = (start.speaker()?, after.speaker()?);
    let seed = sub_seed(seed, "held out");
    let score = |compared: &[Compared]| match rule.of_notes() {
        Some(rule) => {
            Ok(compared.iter().map(|one| Some(checked(&|text| rule.effect.holds(text), one))).collect())
        }
        None => judged(&before, rule, compared, own, seed),
    };
    scores(&before, &after, rule, Manner::Plain, held, own, seed, &score)
}

/// Trains a fresh adapter on the data of one rule; `start`, which has none, is the reference.
///
/// # Errors
/// [`Error::Data`] for a set that is needed and empty; as [`descend_with`].
pub fn train(start: Policy, data: &Data, own: &C3po, seed: u64, session: &Session) -> Result<Policy> {
    let examples = data::examples(&start, data, own, seed)?;
    let reference = seq_logps(&start.model, &examples.items, &Want::default())?;
    let config = LoraConfig {
        rank: own.lora.rank,
        alpha: own.lora.alpha as f32,
        targets: Projection::ALL.to_vec(),
        ..LoraConfig::default()
    };
    let mut policy = start.with_lora(config, sub_seed(seed, "adapter"))?;
    let weights: Vec<f64> =
        [own.near_weight, own.out_weight].into_iter().filter(|weight| *weight > 0.0).collect();
    let distributions = own.constraint != Constraint::Likelihood && !weights.is_empty();
    let want = Want { distributions, ..Want::default() };
    let frozen = Want { adapter: false, ..want.clone() };
    // Distributions of the start are held for one step at a time: of all the data they would fill the memory.
    let look = |model: &Model, taken: &[usize]| -> Result<Vec<(usize, Tensor)>> {
        let of = |&index: &usize| -> Result<Option<(usize, Tensor)>> {
            if !distributions {
                return Ok(None);
            }
            let outputs = model.evaluate(&batch_of(model, [&examples.items[index]])?, &frozen)?;
            Ok(outputs.distributions.map(|rows| (index, rows)))
        };
        taken.iter().map(of).filter_map(Result::transpose).collect()
    };
    policy.model =
        descend_with(policy.model, &examples, &own.training, seed, session, &want, look, |part, frozen| {
            part_loss(part, &reference, frozen, own, &weights)
        })?;
    Ok(policy)
}

/// The loss of a part: sequences come as `[chosen, rejected, kept…]`, one kept per weight.
fn part_loss(
    part: &Part<'_>,
    reference: &[Vec<f32>],
    frozen: &[(usize, Tensor)],
    own: &C3po,
    weights: &[f64],
) -> hone_nn::Result<Loss> {
    let columns = 2 + weights.len();
    let column = |values: &Tensor, at: usize| values.reshape(((), columns))?.narrow(1, at, 1)?.squeeze(1);
    let (now, then) = (part.seq_logps()?, part.known(reference)?);
    let [chosen, rejected] = [column(&now, 0)?, column(&now, 1)?];
    let [ref_chosen, ref_rejected] = [column(&then, 0)?, column(&then, 1)?];
    let means = part.mean_logps()?;
    let in_scope = match own.objective {
        Objective::Prefer => {
            dpo_loss(&(&chosen - &rejected)?, &(&ref_chosen - &ref_rejected)?, own.beta, 0.0)?
        }
        Objective::Imitate => column(&means, 0)?.neg()?,
    };
    let moved = match own.constraint {
        Constraint::Likelihood => means.neg()?,
        constraint => divergences(part, frozen, constraint == Constraint::KlMean)?,
    };
    let mut sum = in_scope.sum_all()?;
    for (at, weight) in weights.iter().enumerate() {
        sum = (sum + (column(&moved, 2 + at)?.sum_all()? * *weight)?)?;
    }
    let metrics = reward_metrics(
        part,
        &((chosen - ref_chosen)? * own.beta)?,
        &((rejected - ref_rejected)? * own.beta)?,
    )?;
    Ok(Loss { value: (sum / part.step_examples as f64)?, metrics })
}

/// `[B]`: KL(start ‖ policy) over the tokens of each sequence, in nats: their sum, or their mean. Zero without
/// distributions.
fn divergences(part: &Part<'_>, frozen: &[(usize, Tensor)], average: bool) -> hone_nn::Result<Tensor> {
    let Some(now) = &part.outputs.distributions else {
        return Ok(part.seq_logps()?.zeros_like()?);
    };
    let rows: Vec<&Tensor> = part
        .indices
        .iter()
        .filter_map(|index| frozen.iter().find(|(of, _)| of == index).map(|(_, rows)| rows))
        .collect();
    // The first argument is the distribution that the mean is taken over: the start's, which has no gradient.
    let each = loss::full_kl(&Tensor::cat(&rows, 0)?, now)?;
    let sums = loss::sum_sequences(&each, part.batch)?;
    if !average {
        return Ok(sums);
    }
    let counts = (0..part.batch.len()).map(|at| part.batch.target_range(at).len().max(1) as f32);
    Ok((sums / part.tensor(counts.collect())?)?)
}

#[cfg(test)]
mod tests {
    use super::claims::*;
    use super::*;
    use bench::Arm;
    use hone_feedback::metrics::mean;
    use hone_nn::train::seed::rng;
    use std::sync::{Arc, Mutex};

    use crate::bench::{assert_holds, over_seeds};
    use crate::method::defaults;
    use crate::train::Listener;

    /// A little data of the bench, and the policy that wrote it.
    fn little() -> (Policy, Data) {
        let start = bench::policy().unwrap();
        let mut data = bench::Feedback::new(1, 0).data(&start).unwrap();
        data.pairs.truncate(16);
        (start, data)
    }

    #[test]
    fn the_first_loss_is_that_of_three_sets() {
        let (start, data) = little();
        let losses: Arc<Mutex<Vec<f64>>> = Arc::default();
        let heard = losses.clone();
        let listener: Arc<Listener> = Arc::new(move |report, _| heard.lock().unwrap().push(report.loss));
        let session = Session { listener: Some(listener), ..Session::default() };
        let first = |arm| {
            losses.lock().unwrap().clear();
            train(start.copy().unwrap(), &data, &bench::settings(arm, 1.0), 3, &session).unwrap();
            losses.lock().unwrap()[0]
        };
        // Before the first step chosen and rejected stand where they stood: ln 2 per pair, and no divergence.
        let ln2 = std::f64::consts::LN_2;
        assert!((first(Arm::Dpo) - ln2).abs() < 1e-5);
        assert!((first(Arm::KlSum) - ln2).abs() < 1e-5);
        // Beside it 0.1 and 0.2 times the mean over examples of the mean over tokens.
        let own = bench::settings(Arm::C3po, 1.0);
        let examples = data::examples(&start, &data, &own, 3).unwrap();
        assert_eq!(examples.len(), 16, "cut to the shortest set");
        let logps = seq_logps(&start.model, &examples.items, &Want::default()).unwrap();
        let kept = |at: usize| {
            let of = |(example, logps): (&crate::data::Example, &Vec<f32>)| {
                -f64::from(logps[at]) / example.sequences[at].targets() as f64
            };
            mean(&examples.items.iter().zip(&logps).map(of).collect::<Vec<_>>())
        };
        let expected = ln2 + 0.1 * kept(2) + 0.2 * kept(3);
        assert!((first(Arm::C3po) - expected).abs() < 1e-4, "{} {expected}", first(Arm::C3po));
    }

    #[test]
    fn divergences_by_hand() {
        let (start, data) = little();
        let own = bench::settings(Arm::KlSum, 1.0);
        let examples = data::examples(&start, &data, &own, 3).unwrap();
        let mut policy = start.with_lora(LoraConfig::default(), 1).unwrap();
        let adapter = policy.model.adapter.as_mut().unwrap();
        hone_nn::params::fill_normal(&mut adapter.params.data, 0.3, &mut rng(1, "moved"));
        let batch = batch_of(&policy.model, [&examples.items[5]]).unwrap();
        let want = Want { distributions: true, ..Want::default() };
        let outputs = policy.model.evaluate(&batch, &want).unwrap();
        let before = policy.model.evaluate(&batch, &Want { adapter: false, ..want }).unwrap();
        let rows =
            |outputs: &hone_nn::Outputs| outputs.distributions.as_ref().unwrap().to_vec2::<f32>().unwrap();
        let each: Vec<f64> = rows(&before)
            .iter()
            .zip(rows(&outputs))
            .map(|(p, q)| p.iter().zip(q).map(|(p, q)| f64::from(p.exp() * (p - q))).sum())
            .collect();
        let part = Part {
            indices: &[5],
            examples: vec![&examples.items[5]],
            batch: &batch,
            outputs: &outputs,
            step_examples: 1,
            step_targets: batch.targets().len(),
            step_marks: 0,
        };
        let frozen = [(5, before.distributions.clone().unwrap())];
        let of = |average| divergences(&part, &frozen, average).unwrap().to_vec1::<f32>().unwrap();
        let (sums, means) = (of(false), of(true));
        assert_eq!(sums.len(), 4);
        for at in 0..4 {
            let range = batch.target_range(at);
            let expected: f64 = each[range.clone()].iter().sum();
            assert!(expected > 1e-3 && (f64::from(sums[at]) - expected).abs() < 1e-4);
            assert!((f64::from(means[at]) - expected / range.len() as f64).abs() < 1e-4);
        }
    }

    #[test]
    fn the_optimum_is_the_closed_form() {
        // β = 1 gives π₊ whatever the reference; ½ gives π₊² / π₋, here 0.36 / 0.2 against 0.16 / 0.8: 0.9 and 0.1.
        let (plus, minus) = ([0.6, 0.4], [0.2, 0.8]);
        assert!(total_variation(&closed_form(&plus, &minus, 1.0), &plus) < 1e-12);
        assert!(total_variation(&closed_form(&plus, &minus, 0.5), &[0.9, 0.1]) < 1e-12);
        for seed in 1..=3 {
            let [plus, minus] = two_policies(seed);
            for beta in [0.3, 0.5, 1.0, 2.0] {
                let gap = total_variation(
                    &enumerated(&plus, &minus, beta).unwrap(),
                    &closed_form(&plus, &minus, beta),
                );
                assert!(gap < 1e-3, "β {beta}: {gap}");
            }
        }
    }

    #[test]
    fn rules_of_a_log_become_one_adapter() {
        use hone_feedback::{Form, Record};
        let rule = |text: &str| Form::Rule { text: text.into(), scope: Some("f1m1".into()) };
        let mut records = vec![];
        for n in 0..8 {
            records.push(Record::new(format!("in {n}"), format!("f1m1 w{n} w0")).say(rule("plain in f1m1")));
            let mut near: hone_feedback::Feedback = rule("plain in f1m1").into();
            near.extra.insert("applies".into(), false.into());
            records.push(Record::new(format!("near {n}"), format!("f1m2 w{n} w0")).say(near));
            records.push(Record::new(format!("out {n}"), format!("count w{n} w0")));
        }
        let own = C3po { prompts: Source::Log, ..bench::settings(Arm::C3po, 1.0) };
        let table = toml::Table::try_from(&own).unwrap();
        let run_on = |records: &[Record], table: &toml::Table| {
            let policy = bench::policy().unwrap();
            let session = Session::default();
            run(Job { policy, records, oracle: None, settings: table, seed: 1, session })
        };
        let after = run_on(&records, &table).unwrap().policy().unwrap();
        assert_eq!(after.model.adapter.as_ref().map(|adapter| adapter.config.rank), Some(8));
        records.push(Record::new("two", "f1m1 w3 w3").say(rule("short in f1m1")));
        let mut near: hone_feedback::Feedback = rule("short in f1m1").into();
        near.extra.insert("applies".into(), false.into());
        records.push(Record::new("near two", "f1m2 w3 w3").say(near));
        let after = run_on(&records, &table).unwrap().policy().unwrap();
        assert_eq!(after.model.adapter.map(|adapter| adapter.config.rank), Some(16));
        let refused = run_on(&records[2..3], &table).unwrap_err().to_string();
        assert_eq!(refused, "method `c3po`: needs rules, got none in 1 records");
        let mut notes = defaults::<C3po>(ID).unwrap();
        notes.insert("prompts".into(), "notes".into());
        let refused = run_on(&records, &notes).unwrap_err().to_string();
        assert!(refused.contains("needs a rule of the world of notes"), "{refused}");
    }

    #[test]
    fn a_model_that_lists_prompts_gives_the_sets() {
        // A model of made-up words writes no list: the need is named, nothing is invented in its place.
        let model = bench::policy().unwrap().speaker().unwrap();
        let rule = Statement { text: "plain in f1m1".into(), scope: None };
        let own = C3po { draw: Draw { max_tokens: 8, ..Draw::default() }, ..C3po::default() };
        let own = C3po { categorise: "f1m1 w1 w1".into(), ..own };
        let refused = sets(&model, &rule, &[], &own, 1).unwrap_err().to_string();
        assert!(refused.contains("categories of prompts"), "{refused}");
    }

    #[test]
    fn claim_overall_beats_dpo() {
        assert_holds(beats_preferences, 5);
    }

    #[test]
    fn claim_overall_beats_scd() {
        assert_holds(beats_imitation, 5);
    }

    #[test]
    fn claim_overall_beats_scd_negatives() {
        assert_holds(beats_imitation_with_negatives, 10);
    }

    #[test]
    fn claim_overall_beats_in_context() {
        assert_holds(beats_in_context, 5);
    }

    #[test]
    fn claim_overall_beats_in_context_cot() {
        assert_holds(beats_in_context_cot, 5);
    }

    #[test]
    fn claim_slope_is_smaller() {
        assert_holds(slope_is_smaller, 5);
    }

    #[test]
    fn claim_slope_is_smaller_than_dpo() {
        assert_holds(slope_is_smaller_than_dpo, 5);
    }

    #[test]
    fn claim_dpo_overreaches() {
        assert_holds(preferences_alone_overreach, 5);
    }

    #[test]
    fn claim_dpo_adheres_no_better() {
        assert_holds(preferences_alone_adhere_no_better, 10);
    }

    #[test]
    fn claim_near_data_protects_near() {
        assert_holds(near_data_protects_near, 5);
    }

    #[test]
    fn claim_out_data_protects_out() {
        assert_holds(out_data_protects_out, 5);
    }

    #[test]
    fn claim_summed_kl_costs_adherence() {
        assert_holds(summed_divergence_costs_adherence, 5);
    }

    #[test]
    fn claim_averaged_kl_gets_some_back() {
        assert_holds(averaged_divergence_gets_some_back, 5);
    }

    #[test]
    fn claim_adapters_add() {
        // It does not hold here (see the comment above); a change that makes it hold, or fail by far, is to be noticed.
        let (mean, _, values) = over_seeds(adapters_add, 5).unwrap();
        assert!((-0.1..0.1).contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_beta_sharpens() {
        assert_holds(beta_sharpens, 5);
    }
}
