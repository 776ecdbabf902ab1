//! Self-refine.

use std::sync::Arc;

use hone_feedback::metrics::mean;
use hone_lm::model::Prompt;
use hone_lm::{LanguageModel, Message};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::{Answered, Attempt, Cost, Draw, prompts, sample, tokens};
use crate::tiny;

method! {
    /// Let the policy criticise its own answer and write it again, until it finds nothing more to say.
    /// # What it does
    /// One answer; then up to `iterations` rounds of a critique by the same policy and a new answer that has all earlier
    /// attempts and critiques before it. A critique that approves ends the rounds. The last answer is the result.
    /// # Feedback
    /// None: prompts alone. The policy's own critiques are the feedback.
    /// # Departs from the paper
    /// Prompts without worked examples, as templates that can be replaced (`criticise`, `refine`); the built-in model is
    /// asked in the words it was trained on, with the newest attempt only.
    /// # Claim
    /// On sums, refined answers of the built-in model are right more often than its first answers
    /// (`claim_beats_the_first_answer`). Against as many fresh answers chosen by vote it is not claimed to win.
    /// # Source
    /// Madaan et al., NeurIPS 2023, arXiv:2303.17651, algorithm 1.
    pub static SELF_REFINE: Method = Method {
        id: "self-refine", name: "Self-refine", family: Family::Refine, needs: Needs::Prompts, makes: Makes::Answers, settings: SelfRefine,
        claims: &[Claim {
            name: "claim_beats_the_first_answer",
            says: "The built-in model's refined answers to sums are right more often than its first answers; the cost is \
                   that of the critiques and refinements.",
            metric: "share of right answers, sampled at temperature 1",
            baseline: "the first answer of each trace",
            effect: beats_the_first,
        }],
        run,
    };
}

/// Settings of self-refine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfRefine {
    /// Rounds of critique and refinement at most, at least 1. Paper: 4.
    pub iterations: usize,
    /// What is asked for a critique, a Jinja template over `prompt`, `answer` and `attempts`.
    pub criticise: String,
    /// What is asked for a refinement, a Jinja template over `prompt`, `answer`, `critique` and `attempts`.
    pub refine: String,
    /// A critique approves whose first sentence or last line is one of these, in any case and without regard to the
    /// signs around it. An empty one approves everything.
    pub approvals: Vec<String>,
    /// How answers are sampled. Paper: temperature 0.7.
    pub draw: Draw,
}

impl Default for SelfRefine {
    fn default() -> SelfRefine {
        SelfRefine {
            iterations: 4,
            criticise: include_str!("prompts/criticise.jinja").into(),
            refine: include_str!("prompts/refine.jinja").into(),
            approvals: vec!["it is correct".into()],
            draw: Draw { temperature: 0.7, ..Draw::default() },
        }
    }
}

impl Settings for SelfRefine {
    fn check(&self) -> Result<()> {
        if self.iterations == 0 {
            return Err(Error::range("self-refine", "iterations", "at least 1", 0));
        }
        templates(self)?;
        self.draw.check("self-refine")
    }
}

fn templates(own: &SelfRefine) -> Result<minijinja::Environment<'_>> {
    let mut templates = minijinja::Environment::new();
    templates.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    for (name, source) in [("criticise", &own.criticise), ("refine", &own.refine)] {
        templates.add_template(name, source).map_err(|e| template_error(name, &e))?;
    }
    Ok(templates)
}

fn template_error(name: &str, error: &minijinja::Error) -> Error {
    Error::Settings { method: "self-refine".into(), message: format!("`{name}`: {error}") }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: SelfRefine = settings("self-refine", job.settings)?;
    let model = job.policy.speaker()?;
    let asked: Vec<String> = job.records.iter().map(|record| record.prompt.text().into_owned()).collect();
    Ok(Product::Answers(refine(&model, &prompts(&model, job.records)?, &asked, &own, job.seed)?))
}

/// Runs the rounds for all prompts at once. `texts` are the prompts as the templates show them.
///
/// # Errors
/// Those of the model; [`Error::Settings`] for a template that names what is not there.
pub fn refine(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    texts: &[String],
    own: &SelfRefine,
    seed: u64,
) -> Result<Vec<Answered>> {
    let templates = templates(own)?;
    let ask = |texts: Vec<String>, purpose: &str| {
        let chat = model.capabilities().chat;
        let prompts: Vec<Prompt> = texts
            .into_iter()
            .map(
                |text| if chat { Prompt::chat(vec![Message::new("user", text)]) } else { Prompt::Text(text) },
            )
            .collect();
        sample(model, &prompts, 1, &own.draw, sub_seed(seed, purpose))
    };
    let mut answered: Vec<Answered> = vec![];
    for (record, samples) in sample(model, prompts, 1, &own.draw, seed)?.into_iter().enumerate() {
        let Some(first) = samples.into_iter().next() else { continue };
        let cost = Cost { calls: 1, tokens: tokens(&first) };
        let attempts = vec![Attempt { text: first.text, critique: None, score: None }];
        answered.push(Answered { record, attempts, chosen: 0, cost, by_oracle: false });
    }
    let mut open: Vec<usize> = (0..answered.len()).collect();
    for round in 0..own.iterations {
        let render = |name: &str, of: &Answered| -> Result<String> {
            let last = &of.attempts[of.attempts.len() - 1];
            let attempts: Vec<_> = of
                .attempts
                .iter()
                .map(|a| minijinja::context! { answer => &a.text, critique => &a.critique })
                .collect();
            let context = minijinja::context! {
                prompt => &texts[of.record], answer => &last.text, critique => &last.critique, attempts,
            };
            let rendered = templates.get_template(name).and_then(|template| template.render(context));
            rendered.map_err(|e| template_error(name, &e))
        };
        let asked = open.iter().map(|&at| render("criticise", &answered[at])).collect::<Result<_>>()?;
        let critiques = ask(asked, &format!("critique {round}"))?;
        let mut refused = vec![];
        for (&at, samples) in open.iter().zip(critiques) {
            // No place for a critique ends the rounds of this prompt.
            let Some(critique) = samples.into_iter().next() else { continue };
            answered[at].cost += Cost { calls: 1, tokens: tokens(&critique) };
            let approved = own.approvals.iter().any(|words| approves(&critique.text, words));
            if let Some(last) = answered[at].attempts.last_mut() {
                last.critique = Some(critique.text);
            }
            if !approved {
                refused.push(at);
            }
        }
        let asked = refused.iter().map(|&at| render("refine", &answered[at])).collect::<Result<_>>()?;
        let refinements = ask(asked, &format!("refine {round}"))?;
        open.clear();
        for (&at, samples) in refused.iter().zip(refinements) {
            let Some(better) = samples.into_iter().next() else { continue };
            let of = &mut answered[at];
            of.cost += Cost { calls: 1, tokens: tokens(&better) };
            of.attempts.push(Attempt { text: better.text, critique: None, score: None });
            of.chosen = of.attempts.len() - 1;
            open.push(at);
        }
        if open.is_empty() {
            break;
        }
    }
    Ok(answered)
}

/// Whether a critique says `words` as a sentence of its own, at its beginning or as its last line: "I do not think it is
/// correct" and "It is correct that …" do not approve.
fn approves(critique: &str, words: &str) -> bool {
    let plain = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let (critique, words) = (plain(critique), plain(words));
    let begins = critique
        .strip_prefix(&words)
        .is_some_and(|rest| rest.is_empty() || words.is_empty() || rest.starts_with(['.', '!', '\n']));
    begins || critique.lines().next_back().is_some_and(|last| plain(last) == words)
}

/// Settings in the words that the built-in model was trained on.
pub fn for_tiny() -> SelfRefine {
    SelfRefine {
        iterations: 1,
        criticise: "{{ prompt }}\n[answer]\n{{ answer }}\n[check]".into(),
        refine: "{{ prompt }}\n[answer]\n{{ answer }}\n[check]\n{{ critique }}\n[better]".into(),
        approvals: vec![hone_worlds::world::ALL_RIGHT.into()],
        draw: Draw { max_tokens: 128, ..Draw::default() },
    }
}

fn beats_the_first(seed: u64) -> Result<f64> {
    let policy = tiny::policy()?;
    let world: Arc<dyn hone_worlds::World> = hone_worlds::world("sums")?.into();
    let tasks = crate::eval::tasks(world.as_ref(), world.middle(), 100, seed)?;
    let texts: Vec<String> = tasks.iter().map(|task| task.prompt()).collect();
    let asked: Vec<Prompt> = texts.iter().map(|text| crate::eval::ask::chat(text, None)).collect();
    let answers = refine(&policy.speaker()?, &asked, &texts, &for_tiny(), seed)?;
    let mut gains = vec![];
    for answer in &answers {
        let right = |at: usize| -> Result<f64> {
            Ok(f64::from(u8::from(tasks[answer.record].check(&answer.attempts[at].text)?.right)))
        };
        gains.push(right(answer.chosen)? - right(0)?);
    }
    Ok(mean(&gains))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;

    #[test]
    fn prompts_of_the_built_in_model_are_its_own() {
        use hone_worlds::roles;
        let own = for_tiny();
        let templates = templates(&own).unwrap();
        let context = minijinja::context! { prompt => "p", answer => "a", critique => "c" };
        let render = |name: &str| templates.get_template(name).unwrap().render(&context).unwrap();
        assert_eq!(render("criticise"), roles::criticise("p", "a"));
        assert_eq!(render("refine"), roles::refine("p", "a", "c"));
    }

    #[test]
    fn defaults_show_all_attempts_and_bad_templates_are_named() {
        let own = SelfRefine::default();
        let templates = templates(&own).unwrap();
        let attempts = vec![
            minijinja::context! { answer => "one", critique => "worse" },
            minijinja::context! { answer => "two", critique => "bad" },
        ];
        let context =
            minijinja::context! { prompt => "p", answer => "two", critique => "bad", attempts => attempts };
        let text = templates.get_template("refine").unwrap().render(context).unwrap();
        for part in ["p\n", "Attempt 1:\n\none", "Attempt 2:\n\ntwo", "What was said of attempt 2:\n\nbad"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let settings: toml::Table = "refine = \"{{ prompt \"".parse().unwrap();
        let refused = (SELF_REFINE.check)(&settings).unwrap_err().to_string();
        assert!(refused.starts_with("settings of `self-refine`: `refine`: syntax error"), "{refused}");
    }

    #[test]
    fn what_approves() {
        for critique in
            ["It is correct.", " it is correct", "**It is correct!**", "It is correct. Well done."]
        {
            assert!(approves(critique, "it is correct"), "{critique}");
        }
        for critique in [
            "I do not think it is correct.",
            "It is correct that 2 + 2 = 4, but the sum is wrong.",
            "It is correctly set out and wrong.",
            "The sum is wrong.",
            "",
        ] {
            assert!(!approves(critique, "it is correct"), "{critique}");
        }
        // The built-in model works first and judges in its last line.
        use hone_worlds::world::ALL_RIGHT;
        assert!(approves(ALL_RIGHT, ALL_RIGHT) && approves(&format!("1+1=2\n{ALL_RIGHT}"), ALL_RIGHT));
        assert!(!approves(&format!("not {ALL_RIGHT}"), ALL_RIGHT));
    }

    #[test]
    fn approval_ends_the_rounds_and_every_call_is_counted() {
        let bench = bench::Bench::new(1).unwrap();
        let records = bench.records(4, 0, "asked");
        let settings: toml::Table = "iterations = 2\ncriticise = \"say {{ answer }}\"\nrefine = \"say {{ critique }}\"\napprovals = [\"\"]\n[draw]\nmax_tokens = 8"
            .parse()
            .unwrap();
        // The empty words approve every text, so all are approved after one critique each.
        let job = bench.job(&records, &settings).unwrap();
        for answer in run(job).unwrap().answers().unwrap() {
            assert_eq!((answer.attempts.len(), answer.cost.calls, answer.chosen), (1, 2, 0));
            assert!(answer.attempts[0].critique.is_some());
        }
        let mut never = settings.clone();
        never.insert("approvals".into(), toml::Value::Array(vec!["no such word".into()]));
        for answer in run(bench.job(&records, &never).unwrap()).unwrap().answers().unwrap() {
            assert_eq!((answer.attempts.len(), answer.cost.calls, answer.chosen), (3, 5, 2));
        }
    }

    #[test]
    fn claim_beats_the_first_answer() {
        bench::assert_holds(beats_the_first, 5);
    }
}
