//! Refinement as a typed trace: attempt, critique, refinement, and what each round has cost so far.

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::model::Prompt;
use hone_lm::{LanguageModel, Message};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use super::{Answered, Attempt, Cost, Draw, prompts, sample, tokens};
use crate::critique::{Critic, Critique, Failure, Subject};
use crate::error::{Error, Result};
use crate::templates::Templates;

/// What may be spent on one prompt, critics included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Calls to language models at most; 0 for no limit.
    pub calls: u64,
    /// Tokens written at most; 0 for no limit.
    pub tokens: u64,
}

impl Budget {
    /// Whether what costs at most `more` still fits. Nothing is begun that might not fit, so that a budget is kept exactly
    /// and no answer is cut by it.
    pub fn allows(&self, spent: Cost, more: Cost) -> bool {
        let fits = |limit: u64, spent: u64, more: u64| limit == 0 || spent.saturating_add(more) <= limit;
        fits(self.calls, spent.calls, more.calls) && fits(self.tokens, spent.tokens, more.tokens)
    }
}

/// One attempt with what was said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The attempt.
    pub text: String,
    /// The critique that came before the next attempt, or why there was none; `None` where none was asked for.
    pub critique: Option<std::result::Result<Critique, Failure>>,
    /// What the chooser made of it; its unit is the chooser's.
    pub score: Option<f64>,
    /// Index of the attempt that would be the answer if the trace ended here.
    pub kept: usize,
    /// Spent on this prompt so far, this attempt included and its critique not.
    pub spent: Cost,
}

/// Why a trace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// A critique approved.
    Approved,
    /// As many rounds as were asked for.
    Rounds,
    /// The next call might not have fitted the budget.
    Budget,
    /// No critique could be read.
    NoCritique,
    /// A prompt with attempts and critiques left no place for an answer.
    NoPlace,
}

/// All rounds on one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Index of the record.
    pub record: usize,
    /// The rounds, at least one.
    pub rounds: Vec<Round>,
    /// Why they ended.
    pub stop: Stop,
    /// Everything spent, the last critique included.
    pub cost: Cost,
    /// Checks by an oracle.
    pub checks: u64,
    /// Whether the oracle had a hand in it: measured by the same oracle, the answer is an upper bound.
    pub by_oracle: bool,
}

impl Trace {
    /// Index of the attempt that is the answer.
    pub fn chosen(&self) -> usize {
        self.rounds.last().map_or(0, |round| round.kept)
    }

    /// The answer.
    pub fn text(&self) -> &str {
        self.rounds.get(self.chosen()).map_or("", |round| &round.text)
    }

    /// The answer that would have been given for this much: that of the last round within it, or the first attempt.
    pub fn within(&self, budget: Budget) -> &str {
        let fits = |round: &&Round| budget.allows(round.spent, Cost::default());
        let kept = self.rounds.iter().take_while(fits).last().map_or(0, |round| round.kept);
        self.rounds.get(kept).map_or("", |round| &round.text)
    }

    /// The attempts as other rounds and critics see them.
    pub fn attempts(&self) -> Vec<Attempt> {
        let words =
            |said: &std::result::Result<Critique, Failure>| said.as_ref().ok().map(|c| c.text.clone());
        self.rounds
            .iter()
            .map(|round| Attempt {
                text: round.text.clone(),
                critique: round.critique.as_ref().and_then(words),
                score: round.score,
            })
            .collect()
    }
}

impl From<Trace> for Answered {
    fn from(trace: Trace) -> Answered {
        let (attempts, chosen) = (trace.attempts(), trace.chosen());
        let Trace { record, cost, by_oracle, .. } = trace;
        Answered { record, attempts, chosen, cost, by_oracle }
    }
}

/// Quality at one point of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Calls per prompt, mean.
    pub calls: f64,
    /// Tokens per prompt, mean.
    pub tokens: f64,
    /// Quality of the answers kept by then, mean.
    pub quality: f64,
}

/// Quality against budget, one point per round: the answer of every trace at that round, or its last where it ended
/// before, with what had been spent. `quality` is given the index of the record and the answer.
///
/// # Errors
/// What `quality` returns.
pub fn curve(traces: &[Trace], mut quality: impl FnMut(usize, &str) -> Result<f64>) -> Result<Vec<Point>> {
    let rounds = traces.iter().map(|trace| trace.rounds.len()).max().unwrap_or(0);
    let mut points = vec![];
    for at in 0..rounds {
        let (mut calls, mut written, mut qualities) = (vec![], vec![], vec![]);
        for trace in traces {
            let ended = at >= trace.rounds.len();
            let Some(round) = trace.rounds.get(at).or(trace.rounds.last()) else { continue };
            // What a trace spent on the critique that ended it counts from the next point on.
            let spent = if ended { trace.cost } else { round.spent };
            calls.push(spent.calls as f64);
            written.push(spent.tokens as f64);
            let answer = trace.rounds.get(round.kept).map_or("", |round| &round.text);
            qualities.push(quality(trace.record, answer)?);
        }
        points.push(Point { calls: mean(&calls), tokens: mean(&written), quality: mean(&qualities) });
    }
    Ok(points)
}

/// How a trace is made.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Rounds of critique and refinement at most.
    pub rounds: usize,
    /// What may be spent per prompt.
    pub budget: Budget,
    /// How answers are sampled.
    pub draw: &'a Draw,
    /// What a critique costs at most, for the budget.
    pub critique: Cost,
    /// Holds the prompt `refine`, over `prompt`, `answer`, `critique` and `attempts`.
    pub templates: &'a Templates<'a>,
    /// How the model is asked for the first attempts; the records' own prompts if `None`.
    pub first: Option<&'a [Prompt]>,
}

/// Attempts, critiques and refinements for all records at once, by a solver and any critic. The newest attempt is the
/// answer; an approval ends a trace, and so does a critique that cannot be read: a refinement needs one. Records whose
/// prompt cannot be asked have no trace.
///
/// # Errors
/// Those of model and critic; [`Error::Settings`] for a template that names what is not there.
pub fn refine(
    model: &dyn LanguageModel,
    critic: &dyn Critic,
    records: &[Record],
    plan: &Plan<'_>,
    seed: u64,
) -> Result<Vec<Trace>> {
    let own;
    let first = match plan.first {
        Some(first) => first,
        None => {
            own = prompts(model, records)?;
            &own
        }
    };
    let mut traces: Vec<Trace> = vec![];
    for (record, samples) in sample(model, first, 1, plan.draw, seed)?.into_iter().enumerate() {
        let Some(first) = samples.into_iter().next() else { continue };
        let cost = Cost { calls: 1, tokens: tokens(&first) };
        let rounds = vec![Round { text: first.text, critique: None, score: None, kept: 0, spent: cost }];
        traces.push(Trace { record, rounds, stop: Stop::Rounds, cost, checks: 0, by_oracle: false });
    }
    let mut open: Vec<usize> = (0..traces.len()).collect();
    for round in 0..plan.rounds {
        // A critique that no refinement can follow would be spent for nothing.
        let mut more = Cost { calls: 1, tokens: plan.draw.max_tokens as u64 };
        more += plan.critique;
        open.retain(|&at| {
            let trace = &mut traces[at];
            let fits = plan.budget.allows(trace.cost, more);
            if !fits {
                trace.stop = Stop::Budget;
            }
            fits
        });
        if open.is_empty() {
            break;
        }
        let subjects: Vec<Subject<'_>> = open
            .iter()
            .map(|&at| {
                let mut earlier = traces[at].attempts();
                let last = earlier.pop().map(|attempt| attempt.text).unwrap_or_default();
                Subject { earlier, ..Subject::new(&records[traces[at].record], last) }
            })
            .collect();
        let replies = critic.criticise(&subjects, sub_seed(seed, &format!("critique {round}")))?;
        let mut refused = vec![];
        for (&at, reply) in open.iter().zip(replies) {
            let trace = &mut traces[at];
            trace.cost += reply.cost;
            trace.checks += reply.checks;
            trace.by_oracle |= reply.checks > 0;
            match &reply.said {
                Ok(critique) if critique.right == Some(true) => trace.stop = Stop::Approved,
                Ok(_) => refused.push(at),
                Err(_) => trace.stop = Stop::NoCritique,
            }
            if let Some(last) = trace.rounds.last_mut() {
                last.critique = Some(reply.said);
            }
        }
        let asked = refused.iter().map(|&at| refinement(model, &traces[at], records, plan.templates));
        let asked = asked.collect::<Result<Vec<_>>>()?;
        let better = sample(model, &asked, 1, plan.draw, sub_seed(seed, &format!("refine {round}")))?;
        open.clear();
        for (&at, samples) in refused.iter().zip(better) {
            let trace = &mut traces[at];
            let Some(better) = samples.into_iter().next() else {
                trace.stop = Stop::NoPlace;
                continue;
            };
            trace.cost += Cost { calls: 1, tokens: tokens(&better) };
            let (kept, spent) = (trace.rounds.len(), trace.cost);
            trace.rounds.push(Round { text: better.text, critique: None, score: None, kept, spent });
            open.push(at);
        }
    }
    Ok(traces)
}

/// What is asked for the next attempt.
fn refinement(
    model: &dyn LanguageModel,
    trace: &Trace,
    records: &[Record],
    templates: &Templates<'_>,
) -> Result<Prompt> {
    let attempts = trace.attempts();
    let Some(last) = attempts.last() else {
        return Err(Error::Data { method: "refine".into(), needed: "an attempt".into(), got: "none".into() });
    };
    let shown: Vec<_> =
        attempts.iter().map(|a| minijinja::context! { answer => &a.text, critique => &a.critique }).collect();
    let prompt = records[trace.record].prompt.text();
    let context = minijinja::context! {
        prompt => &*prompt, answer => &last.text, critique => &last.critique, attempts => shown,
    };
    Ok(said_by_user(model, templates.render("refine", context)?))
}

/// A text as the user's message, or as it is for a model without a chat template.
pub fn said_by_user(model: &dyn LanguageModel, text: String) -> Prompt {
    match model.capabilities().chat {
        true => Prompt::chat(vec![Message::new("user", text)]),
        false => Prompt::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;
    use crate::critique::Reply;

    /// Refuses every answer at the price of one call of ten tokens, with the words it was made with.
    #[derive(Debug)]
    struct Never(&'static str);

    impl Critic for Never {
        fn name(&self) -> &str {
            "never"
        }

        fn criticise(&self, subjects: &[Subject<'_>], _: u64) -> Result<Vec<Reply>> {
            let reply = |_| {
                let text = self.0.to_owned();
                let said = match text.is_empty() {
                    true => Err(Failure::new("empty", "")),
                    false => Ok(Critique { right: Some(false), text, ..Critique::default() }),
                };
                Reply { said, cost: Cost { calls: 1, tokens: 10 }, checks: 0 }
            };
            Ok(subjects.iter().map(reply).collect())
        }
    }

    fn traces(budget: Budget, words: &'static str) -> Vec<Trace> {
        let bench = Bench::new(1).unwrap();
        let model = bench.policy().unwrap().speaker().unwrap();
        let records = bench.records(4, 0, "asked");
        let templates = Templates::new("t", &[("refine", "say {{ critique }}")]).unwrap();
        let draw = Draw { max_tokens: 10, ..Draw::default() };
        let plan = Plan {
            rounds: 3,
            budget,
            draw: &draw,
            critique: Cost { calls: 1, tokens: 10 },
            templates: &templates,
            first: None,
        };
        refine(&model, &Never(words), &records, &plan, 1).unwrap()
    }

    #[test]
    fn budgets_are_kept_and_say_that_they_ended_it() {
        // One attempt and three rounds of two calls.
        for trace in traces(Budget::default(), "w1") {
            assert_eq!((trace.rounds.len(), trace.cost.calls, trace.stop), (4, 7, Stop::Rounds));
            assert_eq!((trace.chosen(), trace.rounds[1].spent.calls), (3, 3));
        }
        // A second round would be the fifth call.
        for trace in traces(Budget { calls: 4, tokens: 0 }, "w1") {
            assert_eq!((trace.rounds.len(), trace.cost.calls, trace.stop), (2, 3, Stop::Budget));
        }
        // 10 at most for the first, 20 for a round: two rounds fit 50, a third never does.
        for trace in traces(Budget { calls: 0, tokens: 50 }, "w1") {
            assert!(trace.cost.tokens <= 50 && trace.rounds.len() >= 3, "{trace:?}");
        }
    }

    #[test]
    fn without_a_critique_there_is_no_refinement() {
        for trace in traces(Budget::default(), "") {
            assert_eq!((trace.rounds.len(), trace.cost.calls, trace.stop), (1, 2, Stop::NoCritique));
            assert!(Answered::from(trace).attempts[0].critique.is_none());
        }
    }

    #[test]
    fn the_curve_is_quality_at_what_was_spent() {
        let round = |text: &str, kept, calls| {
            let spent = Cost { calls, tokens: 10 * calls };
            Round { text: text.into(), critique: None, score: None, kept, spent }
        };
        let trace = |rounds: Vec<Round>, calls| Trace {
            record: 0,
            rounds,
            stop: Stop::Rounds,
            cost: Cost { calls, tokens: 10 * calls },
            checks: 0,
            by_oracle: false,
        };
        let long = trace(vec![round("0", 0, 1), round("1", 1, 3), round("0", 1, 5)], 5);
        let short = trace(vec![round("1", 0, 1)], 2);
        let points = curve(&[long.clone(), short], |_, text| Ok(text.parse().unwrap())).unwrap();
        let all: Vec<_> = points.iter().map(|p| (p.calls, p.quality)).collect();
        // (1 + 1) / 2 calls; (3 + 2) / 2; (5 + 2) / 2, where the long trace kept its second attempt.
        assert_eq!(all, [(1.0, 0.5), (2.5, 1.0), (3.5, 1.0)]);
        assert_eq!(
            (long.within(Budget { calls: 2, tokens: 0 }), long.within(Budget { calls: 0, tokens: 35 })),
            ("0", "1")
        );
    }
}
