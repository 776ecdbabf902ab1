//! The methods' own loss functions on given numbers, and their own runs on given folders, for `compare/losses.py`.
//!
//! Reads an object of cases by name from stdin and prints an object with one answer per case. A case of `values` names a
//! loss and gives per-token log-probabilities (lists of lists) or scores (lists); the answer is the mean loss. A case of
//! `run` names a method, a model folder, settings and rows; the answer is the loss and the gradient's norm of each step.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use hone_feedback::{Form, Record};
use hone_methods::data::Example;
use hone_methods::policy::Sequence;
use hone_methods::preference::{dpo, ipo, kto, orpo, reward_lists, reward_pairs, slic};
use hone_methods::reinforce::{
    Part as RolloutPart, Rollout, Rule, Step, group_advantages, grpo, leave_one_out_advantages, rloo, sdpo,
};
use hone_methods::train::{Part, Session};
use hone_methods::{Job, Policy, find};
use hone_methods::{method, reward};
use hone_nn::{Batch, Outputs, loss};
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let cases: Map<String, Value> = serde_json::from_reader(std::io::stdin().lock())?;
    let mut answers = Map::new();
    for (name, case) in &cases {
        let answer = match case["kind"].as_str() {
            Some("run") => run(case),
            _ => values(case).map(Value::from),
        };
        answers.insert(name.clone(), answer.map_err(|e| format!("{name}: {e}"))?);
    }
    println!("{}", Value::Object(answers));
    Ok(())
}

fn number(case: &Value, key: &str) -> Result<f64> {
    case[key].as_f64().ok_or_else(|| format!("needs a number `{key}`").into())
}

fn list(value: &Value) -> Result<Vec<f32>> {
    let items = value.as_array().ok_or("needs a list of numbers")?;
    items.iter().map(|item| Ok(item.as_f64().ok_or("needs a number")? as f32)).collect()
}

fn tensor(case: &Value, key: &str) -> Result<Tensor> {
    let values = list(&case[key]).map_err(|e| format!("`{key}`: {e}"))?;
    Ok(Tensor::new(values, &Device::Cpu)?)
}

/// What a model says that gives these log-probabilities to its targets.
fn outputs(logps: Vec<f32>) -> Result<Outputs> {
    Ok(Outputs {
        logps: Tensor::new(logps, &Device::Cpu)?,
        entropies: None,
        distributions: None,
        candidates: None,
        top: None,
        scores: None,
        hidden: vec![],
    })
}

/// Log-probabilities of whole responses from those of their tokens, by the same steps as in training.
fn logps(case: &Value, key: &str, mean: bool) -> Result<Tensor> {
    let rows = case[key].as_array().ok_or_else(|| format!("needs a list `{key}` of lists"))?;
    let rows: Vec<Vec<f32>> = rows.iter().map(list).collect::<Result<_>>()?;
    let mut batch = Batch::new();
    let mut examples = vec![];
    for row in &rows {
        let sequence = Sequence::of_tokens(&[0], &vec![0; row.len()]);
        batch.push_masked(&sequence.tokens, &sequence.mask)?;
        examples.push(Example { record: 0, sequences: vec![sequence], labels: vec![], marks: vec![] });
    }
    let outputs = outputs(rows.concat())?;
    let part = Part {
        indices: &[],
        examples: examples.iter().collect(),
        batch: &batch,
        outputs: &outputs,
        step_examples: rows.len(),
        step_targets: batch.targets().len(),
        step_marks: 0,
    };
    Ok(if mean { part.mean_logps()? } else { part.seq_logps()? })
}

/// The mean loss of a case.
fn values(case: &Value) -> Result<f64> {
    let ratio = |mean: bool, chosen: &str, rejected: &str| -> Result<Tensor> {
        Ok((logps(case, chosen, mean)? - logps(case, rejected, mean)?)?)
    };
    let pairs = |mean: bool| -> Result<(Tensor, Tensor)> {
        Ok((ratio(mean, "chosen", "rejected")?, ratio(mean, "ref_chosen", "ref_rejected")?))
    };
    let losses = match case["loss"].as_str().unwrap_or_default() {
        "sft" => {
            let rows = case["chosen"].as_array().ok_or("needs a list `chosen`")?;
            let tokens = rows.iter().map(list).collect::<Result<Vec<_>>>()?.concat();
            let count = tokens.len() as f64;
            loss::cross_entropy(&Tensor::new(tokens, &Device::Cpu)?, None, count)?.reshape(1)?
        }
        "dpo" => {
            let (policy, reference) = pairs(false)?;
            dpo::dpo_loss(&policy, &reference, number(case, "beta")?, number(case, "smoothing")?)?
        }
        "ipo" => {
            let (policy, reference) = pairs(case["per_token"] == true)?;
            ipo::ipo_loss(&policy, &reference, number(case, "tau")?)?
        }
        "slic" => slic::hinge(
            &logps(case, "chosen", false)?,
            &logps(case, "rejected", false)?,
            number(case, "margin")?,
        )?,
        "slic-norm" => {
            let scaled = |key: &str| -> Result<Tensor> {
                let moved = (logps(case, key, false)? - logps(case, &format!("ref_{key}"), false)?)?;
                Ok((moved * number(case, "scale")?)?)
            };
            slic::hinge(&scaled("chosen")?, &scaled("rejected")?, number(case, "margin")?)?
        }
        "orpo" => {
            let (chosen, rejected) = (logps(case, "chosen", true)?, logps(case, "rejected", true)?);
            orpo::orpo_loss(&chosen, &rejected, number(case, "lambda")?)?
        }
        "kto" => {
            let ratios = (logps(case, "answers", false)? - logps(case, "ref_answers", false)?)?;
            let good: Vec<bool> = list(&case["good"])?.iter().map(|&g| g > 0.5).collect();
            let own = kto::Kto {
                beta: number(case, "beta")?,
                desirable_weight: number(case, "desirable_weight")?,
                undesirable_weight: number(case, "undesirable_weight")?,
                ..kto::Kto::default()
            };
            kto::kto_loss(&ratios, &good, number(case, "z")?, &own)?
        }
        "reward-pairs" => {
            let (chosen, rejected) = (tensor(case, "chosen")?, tensor(case, "rejected")?);
            reward_pairs::bradley_terry_loss(
                &chosen,
                &rejected,
                &tensor(case, "margin")?,
                number(case, "centre")?,
            )?
        }
        "reward-lists" => {
            let (chosen, rejected) = (list(&case["chosen"])?, list(&case["rejected"])?);
            let of_pair = |(&c, &r): (&f32, &f32)| -> Result<Tensor> {
                let scores = Tensor::new(&[c, r], &Device::Cpu)?;
                Ok(reward_lists::plackett_luce_loss(&scores, &[1.0, 0.0])?)
            };
            Tensor::stack(&chosen.iter().zip(&rejected).map(of_pair).collect::<Result<Vec<_>>>()?, 0)?
        }
        "reward-marks" => {
            let labels = list(&case["labels"])?;
            let sum = reward::binary_cross_entropy(&tensor(case, "logits")?, &labels)?;
            (sum / labels.len() as f64)?.reshape(1)?
        }
        "grpo" | "rloo" => return rollouts(case),
        "sdpo" => {
            let whole = |key: &str| -> Result<Tensor> {
                let rows = case[key].as_array().ok_or_else(|| format!("needs a list `{key}` of lists"))?;
                let rows: Vec<Vec<f32>> = rows.iter().map(list).collect::<Result<_>>()?;
                Ok(sdpo::whole(&Tensor::new(rows, &Device::Cpu)?, case["tail"] == true)?)
            };
            sdpo::divergence(&whole("policy")?, &whole("teacher")?, number(case, "alpha")?)?
        }
        other => return Err(format!("loss `{other}`: unknown").into()),
    };
    Ok(loss::scalar(&losses.mean_all()?)?)
}

/// The loss of a whole step on rollouts in equal groups.
fn rollouts(case: &Value) -> Result<f64> {
    let rows = |key: &str| -> Result<Vec<Vec<f32>>> {
        case[key]
            .as_array()
            .ok_or_else(|| format!("needs a list `{key}` of lists"))?
            .iter()
            .map(list)
            .collect()
    };
    let (now, old, rewards) = (rows("now")?, rows("old")?, list(&case["rewards"])?);
    let group = number(case, "group")? as usize;
    let rollouts: Vec<Rollout> = old
        .into_iter()
        .zip(rewards)
        .enumerate()
        .map(|(at, (logps, reward))| Rollout {
            record: at / group,
            group: at / group,
            sequence: Sequence::of_tokens(&[0], &vec![0; logps.len()]),
            logps,
            reward: reward.into(),
            ended: true,
        })
        .collect();
    let mut batch = Batch::new();
    for rollout in &rollouts {
        batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask)?;
    }
    let outputs = outputs(now.concat())?;
    let indices: Vec<usize> = (0..rollouts.len()).collect();
    let part = RolloutPart {
        rollouts: rollouts.iter().collect(),
        indices: &indices,
        batch: &batch,
        outputs: &outputs,
    };
    let step = Step { rollouts: rollouts.len(), tokens: batch.targets().len(), places: indices.clone() };
    let own = toml::Table::try_from(&case["own"])?;
    let loss = match case["loss"] == "grpo" {
        true => {
            let own: grpo::Grpo = method::settings("grpo", &own)?;
            let advantages = group_advantages(&rollouts, own.scale_rewards);
            own.loss(&part, &grpo::Context { advantages, reference: rows("ref")? }, &step)?
        }
        false => {
            let own: rloo::Rloo = method::settings("rloo", &own)?;
            own.loss(&part, &leave_one_out_advantages(&rollouts), &step)?
        }
    };
    Ok(loss::scalar(&loss.value)?)
}

/// One run of a method; what its steps reported.
fn run(case: &Value) -> Result<Value> {
    let text = |value: &Value, key: &str| -> Result<String> {
        Ok(value[key].as_str().ok_or_else(|| format!("needs a text `{key}`"))?.to_string())
    };
    let rows = case["rows"].as_array().ok_or("needs a list `rows`")?;
    let record = |(index, row): (usize, &Value)| -> Result<Record> {
        let record = Record::new(index.to_string(), hone_feedback::Prompt::Text(text(row, "prompt")?));
        if let Some(value) = row["label"].as_bool() {
            let record = record.respond("a", text(row, "completion")?);
            return Ok(record.say(Form::Thumb { on: "a".into(), value }));
        }
        if let Some(value) = row["rating"].as_f64() {
            let record = record.respond("a", text(row, "completion")?);
            return Ok(record.say(Form::Rating { on: "a".into(), value, scale: Some([0.0, 1.0]) }));
        }
        if row["completion"].is_string() {
            let content = text(row, "completion")?.into();
            return Ok(record.respond("a", "").say(Form::Edit { on: "a".into(), content }));
        }
        let record = record.respond("a", text(row, "chosen")?).respond("b", text(row, "rejected")?);
        Ok(record.say(Form::Comparison { better: "a".into(), worse: "b".into() }))
    };
    let records: Vec<Record> = rows.iter().enumerate().map(record).collect::<Result<_>>()?;
    let settings: toml::Table = toml::Table::try_from(case["settings"].clone())?;
    let steps = Arc::new(Mutex::new(vec![]));
    let heard = steps.clone();
    let listener = move |report: &hone_nn::train::StepReport, _| {
        let mut steps = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        steps.push(json!({"loss": report.loss, "grad_norm": report.grad_norm}));
    };
    let job = Job {
        policy: Policy::from_folder(Path::new(&text(case, "model")?))?,
        records: &records,
        oracle: None,
        settings: &settings,
        seed: 0,
        session: Session { listener: Some(Arc::new(listener)), ..Session::default() },
    };
    (find(&text(case, "method")?)?.run)(job)?;
    let steps = steps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Value::Array(steps.clone()))
}
