//! Self-refine.

use std::sync::Arc;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::LanguageModel;
use hone_lm::model::Prompt;
use serde::{Deserialize, Serialize};

use crate::critique::{ModelCritic, Reads};
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::trace::{self, Budget, Plan, Trace};
use crate::refine::{Answered, Cost, Draw};
use crate::templates::Templates;
use crate::tiny;

method! {
    /// Let the policy criticise its own answer and write it again, until it finds nothing more to say.
    /// # What it does
    /// One answer; then up to `iterations` rounds of a critique by the same policy and a new answer that has all earlier
    /// attempts and critiques before it. A critique that approves ends the rounds, and so does an empty one, or a budget
    /// that the next round might not fit. The last answer is the result.
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
    /// What may be spent on one prompt, in calls and tokens; 0 for no limit, as in the paper.
    pub budget: Budget,
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
            budget: Budget::default(),
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

fn templates(own: &SelfRefine) -> Result<Templates<'_>> {
    // The critic's prompt goes by the name of its form.
    let words = Reads::Words { approvals: vec![] }.prompt();
    Templates::new("self-refine", &[(words, own.criticise.as_str()), ("refine", own.refine.as_str())])
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: SelfRefine = settings("self-refine", job.settings)?;
    let model = job.policy.speaker()?;
    let traces = refine(&model, job.records, None, &own, job.seed)?;
    Ok(Product::Answers(traces.into_iter().map(Answered::from).collect()))
}

/// Runs the rounds for all records at once; `first` is how the model is asked for first attempts, if not by the records'
/// own prompts.
///
/// # Errors
/// Those of the model; [`Error::Settings`] for a template that names what is not there.
pub fn refine(
    model: &dyn LanguageModel,
    records: &[Record],
    first: Option<&[Prompt]>,
    own: &SelfRefine,
    seed: u64,
) -> Result<Vec<Trace>> {
    let templates = templates(own)?;
    let critic = ModelCritic {
        model,
        reads: Reads::Words { approvals: own.approvals.clone() },
        templates: &templates,
        draw: own.draw.clone(),
        votes: 1,
        constrained: false,
    };
    let plan = Plan {
        rounds: own.iterations,
        budget: own.budget,
        draw: &own.draw,
        critique: Cost { calls: 1, tokens: own.draw.max_tokens as u64 },
        templates: &templates,
        first,
    };
    trace::refine(model, &critic, records, &plan, seed)
}

/// Settings in the words that the built-in model was trained on.
pub fn for_tiny() -> SelfRefine {
    SelfRefine {
        iterations: 1,
        criticise: "{{ prompt }}\n[answer]\n{{ answer }}\n[check]".into(),
        refine: "{{ prompt }}\n[answer]\n{{ answer }}\n[check]\n{{ critique }}\n[better]".into(),
        approvals: vec![hone_worlds::world::ALL_RIGHT.into()],
        budget: Budget::default(),
        draw: Draw { max_tokens: 128, ..Draw::default() },
    }
}

fn beats_the_first(seed: u64) -> Result<f64> {
    let policy = tiny::policy()?;
    let world: Arc<dyn hone_worlds::World> = hone_worlds::world("sums")?.into();
    let tasks = crate::eval::tasks(world.as_ref(), world.middle(), 100, seed)?;
    let texts: Vec<String> = tasks.iter().map(|task| task.prompt()).collect();
    let asked: Vec<Prompt> = texts.iter().map(|text| crate::eval::ask::chat(text, None)).collect();
    let records: Vec<Record> =
        texts.iter().enumerate().map(|(index, text)| Record::new(index.to_string(), text.as_str())).collect();
    let traces = refine(&policy.speaker()?, &records, Some(&asked), &for_tiny(), seed)?;
    let mut gains = vec![];
    for trace in &traces {
        let right = |at: usize| -> Result<f64> {
            Ok(f64::from(u8::from(tasks[trace.record].check(&trace.rounds[at].text)?.right)))
        };
        gains.push(right(trace.chosen())? - right(0)?);
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
        let render = |name: &str| templates.render(name, context.clone()).unwrap();
        assert_eq!(render("words"), roles::criticise("p", "a"));
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
        let text = templates.render("refine", context).unwrap();
        for part in ["p\n", "Attempt 1:\n\none", "Attempt 2:\n\ntwo", "What was said of attempt 2:\n\nbad"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let settings: toml::Table = "refine = \"{{ prompt \"".parse().unwrap();
        let refused = (SELF_REFINE.check)(&settings).unwrap_err().to_string();
        assert!(refused.starts_with("settings of `self-refine`: `refine`: syntax error"), "{refused}");
    }

    #[test]
    fn approval_ends_the_rounds_and_every_call_is_counted() {
        let bench = bench::Bench::new(1).unwrap();
        let records = bench.records(4, 0, "asked");
        let settings: toml::Table = "iterations = 2\ncriticise = \"say w1 w2\"\nrefine = \"say w3 w4\"\napprovals = [\"\"]\n[draw]\nmax_tokens = 8"
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
