//! Iterative agent decoding.

#[path = "iad_bench.rs"]
mod world;

use std::path::Path;

use hone_feedback::Record;
use hone_lm::LanguageModel;
use hone_lm::model::Prompt;
use hone_nn::train::seed::{rng, sub_seed};
use hone_worlds::Detail;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::critique::{Critic, Degraded, ModelCritic, Reads, Subject, Verifier, critique_templates};
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::refine::trace::{Budget, Round, Stop, Trace, said_by_user};
use crate::refine::{Answered, Cost, Draw, prompts, sample, tokens};
use crate::templates::Templates;

method! {
    /// Sample, verify, show the best and the worst answer so far to the next round, and never accept a worse one.
    /// # What it does
    /// Each of `rounds` rounds draws `per_round` answers and has a verifier score them. From the second on the prompt shows
    /// the best answer so far, the worst if `worst` is set, and what the verifier said: its score, its words, or both
    /// (`feedback`). The best is replaced only by a strictly higher score; of equal ones in a round a seeded draw decides.
    /// While all scores are equal they say nothing, and rounds are plain sampling. A highest score, `stop_at`, ends the
    /// rounds. Only texts of the model are used. Verifiers are critics: the oracle, a judge, or either with noise
    /// (`noise`) or with a threshold (`threshold`). `context = "random"` shows some earlier answer without feedback
    /// instead: the control that tells feedback from mere sampling.
    /// # Feedback
    /// A verifier: an oracle, tests, or the policy as judge. What it scores is kept in every attempt; the true metric is
    /// measured apart from it.
    /// # Departs from the paper
    /// No code was published; round and sample counts are from a third party's notes, the prompt is our own. A degraded
    /// verifier also withholds its words, which would give the true score away. The edit distance between rounds is not
    /// logged. The paper's agents are large models behind an API; here they are an editor of structured answers with
    /// fixed habits, see the claims.
    /// # Claim
    /// All on layouts of 12 places with a score per place, by a scripted editor that copies a specification with errors,
    /// keeps part of a shown answer, and follows words on a place at a known rate: what is measured is the loop, not the
    /// skill of a model. At equal calls, with the verifier that is exact: better than the best of n
    /// (`claim_beats_best_of_n`), which is better than one answer (`claim_best_of_n_beats_one`); better than with a random
    /// earlier answer (`claim_beats_a_random_answer`); words on places give more than scores (`claim_words_beat_scores`).
    /// Noise (`claim_noise_costs`) and a threshold (`claim_sparsity_costs`) shrink the lead over the best of n; more budget
    /// helps while the verifier is exact (`claim_budget_helps`). That the worst answer beside the best helps
    /// (`claim_the_worst_helps`) does not hold here. An editor that avoids its values ends 0.007 lower (0.002 to 0.012), one that also
    /// keeps less of what best and worst share 0.017 (interval 0.006 to 0.028): places are right or wrong by themselves, and
    /// a place of the worst answer is still right more often than any other single value.
    /// # Source
    /// arXiv:2504.01931, "Review, Refine, Repeat" (version 1), "On the Role of Feedback in Test-Time Scaling of Agentic AI
    /// Workflows" (version 4).
    pub static IAD: Method = Method {
        id: "iad", name: "IAD", family: Family::Refine, needs: Needs::Checks, makes: Makes::Answers, settings: Iad,
        claims: &[
            Claim {
                name: "claim_beats_best_of_n",
                says: "At 4, 8 and 16 calls, the kept answer is better than the best of as many independent ones.",
                metric: "true score of the answer, mean over the three budgets, in [0, 1]",
                baseline: "best of n, same verifier, same calls, same first answers",
                effect: world::beats_best_of_n,
            },
            Claim {
                name: "claim_best_of_n_beats_one",
                says: "The best of 4, 8 and 16 answers is better than one.",
                metric: "true score of the answer, mean over the three budgets, in [0, 1]",
                baseline: "the first of the same answers",
                effect: world::best_of_n_beats_one,
            },
            Claim {
                name: "claim_beats_a_random_answer",
                says: "Showing the verified best answer gives more than showing some earlier answer at random.",
                metric: "true score of the answer at 16 calls, in [0, 1]",
                baseline: "a random earlier answer in the prompt, no feedback, same calls",
                effect: world::beats_random,
            },
            Claim {
                name: "claim_the_worst_helps",
                says: "Best and worst answer in the prompt give more than the best alone.",
                metric: "true score of the answer at 16 calls, in [0, 1]",
                baseline: "the best answer alone, no words, same calls",
                effect: world::worst_helps,
            },
            Claim {
                name: "claim_words_beat_scores",
                says: "Words on each place give more than the bare score.",
                metric: "true score of the answer at 16 calls, in [0, 1]",
                baseline: "feedback = score, same calls",
                effect: world::words_beat_scores,
            },
            Claim {
                name: "claim_noise_costs",
                says: "Noise of one standard deviation of the scores shrinks the lead over the best of n.",
                metric: "true score above the best of n's at 16 calls, without noise",
                baseline: "the same lead with noise, words withheld in both",
                effect: world::noise_costs,
            },
            Claim {
                name: "claim_sparsity_costs",
                says: "A verifier that only tells whether a threshold is met shrinks the lead over the best of n.",
                metric: "true score above the best of n's at 16 calls, with the whole score",
                baseline: "the same lead with a threshold at the scores' mean plus one deviation, words withheld in both",
                effect: world::sparsity_costs,
            },
            Claim {
                name: "claim_budget_helps",
                says: "With an exact verifier 16 calls give better answers than 4, with feedback and without.",
                metric: "true score at 16 calls, the smaller gain of IAD's and the best of n's",
                baseline: "the same at 4 calls",
                effect: world::budget_helps,
            },
        ],
        run,
    };
}

/// Which earlier answers the prompt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// The best by the verifier.
    Best,
    /// Any earlier one, without feedback: the control.
    Random,
    /// None: all rounds are plain sampling, which is best of n.
    Nothing,
}

/// What the prompt tells of the shown answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tells {
    /// The answers alone.
    Nothing,
    /// The score.
    Score,
    /// The verifier's words.
    Words,
    /// Both.
    Both,
}

/// Who verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The oracle.
    Oracle,
    /// The policy as judge, without a reference.
    Judge,
}

/// Settings of iterative agent decoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Iad {
    /// Rounds, `T`, at least 1. About 3 to 4 in the paper.
    pub rounds: usize,
    /// Answers per round, `N`, at least 1. About 2 to 6 in the paper.
    pub per_round: usize,
    /// Which earlier answer is shown.
    pub context: Context,
    /// Show the worst answer so far too, the paper's other variant.
    pub worst: bool,
    /// What is told of them.
    pub feedback: Tells,
    /// Who verifies.
    pub verifier: By,
    /// Standard deviation of normal noise on the verifier's scores, at least 0; above 0 its words are withheld.
    pub noise: f64,
    /// Scores of at least this count as 1, others as 0, and words are withheld; 0 leaves scores as they are.
    pub threshold: f64,
    /// A score of at least this ends the rounds.
    pub stop_at: f64,
    /// What may be spent on one prompt; 0 for no limit but the rounds'.
    pub budget: Budget,
    /// What is asked from the second round on, a Jinja template over `prompt`, `best` and `worst`, each with `answer`,
    /// `score` and `critique` or empty.
    pub prompt: String,
    /// Folder of prompts for the judge, in place of the built-in ones; empty for none.
    pub prompts: String,
    /// How answers are sampled. The paper leaves most to the API.
    pub draw: Draw,
}

impl Default for Iad {
    fn default() -> Iad {
        Iad {
            rounds: 4,
            per_round: 4,
            context: Context::Best,
            worst: false,
            feedback: Tells::Words,
            verifier: By::Oracle,
            noise: 0.0,
            threshold: 0.0,
            stop_at: 1.0,
            budget: Budget::default(),
            prompt: include_str!("prompts/iad.jinja").into(),
            prompts: String::new(),
            draw: Draw::default(),
        }
    }
}

impl Settings for Iad {
    fn check(&self) -> Result<()> {
        for (key, value) in [("rounds", self.rounds), ("per_round", self.per_round)] {
            if value == 0 {
                return Err(Error::range("iad", key, "at least 1", 0));
            }
        }
        not_negative("iad", "noise", self.noise)?;
        not_negative("iad", "threshold", self.threshold)?;
        Templates::new("iad", &[("prompt", self.prompt.as_str())])?;
        self.draw.check("iad")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Iad = settings("iad", job.settings)?;
    let model = job.policy.speaker()?;
    let folder = (!own.prompts.is_empty()).then(|| Path::new(&own.prompts));
    let templates = critique_templates(folder)?;
    let critic: Box<dyn Critic + '_> = match own.verifier {
        By::Oracle => {
            let Some(oracle) = job.oracle else {
                let (needed, got) =
                    ("prompts whose answers can be checked", "records without a task or tests");
                return Err(Error::Data { method: "iad".into(), needed: needed.into(), got: got.into() });
            };
            Box::new(Verifier { oracle, detail: Detail::Correction })
        }
        By::Judge => {
            let draw = Draw { temperature: 0.0, ..own.draw.clone() };
            Box::new(ModelCritic {
                model: &model,
                reads: Reads::Json,
                templates: &templates,
                draw,
                votes: 1,
                constrained: true,
            })
        }
    };
    let critique = match own.verifier {
        By::Oracle => Cost::default(),
        By::Judge => Cost { calls: 1, tokens: own.draw.max_tokens as u64 },
    };
    let traces = decode(&model, &*own.degrade(critic), job.records, critique, &own, job.seed)?;
    Ok(Product::Answers(traces.into_iter().map(Answered::from).collect()))
}

impl Iad {
    /// The critic as the settings degrade it.
    pub fn degrade<'a>(&self, critic: Box<dyn Critic + 'a>) -> Box<dyn Critic + 'a> {
        let threshold = (self.threshold > 0.0).then_some(self.threshold);
        match self.noise > 0.0 || threshold.is_some() {
            true => Box::new(Degraded { critic, noise: self.noise, threshold }),
            false => critic,
        }
    }
}

/// Rounds for all records at once; every answer is a round of the trace, with the verifier's score and critique.
/// `critique` is what one critique costs at most, for the budget.
///
/// # Errors
/// Those of model and critic; [`Error::Settings`] for a template that names what is not there.
pub fn decode(
    model: &dyn LanguageModel,
    critic: &dyn Critic,
    records: &[Record],
    critique: Cost,
    own: &Iad,
    seed: u64,
) -> Result<Vec<Trace>> {
    let templates = Templates::new("iad", &[("prompt", own.prompt.as_str())])?;
    let plain = prompts(model, records)?;
    let mut traces: Vec<Option<Trace>> = vec![None; records.len()];
    let mut open: Vec<usize> = (0..records.len()).collect();
    let mut ties = rng(seed, "ties");
    let (n, longest) = (own.per_round as u64, own.draw.max_tokens as u64);
    let more = Cost { calls: n * (1 + critique.calls), tokens: n * (longest + critique.tokens) };
    for round in 0..own.rounds {
        open.retain(|&at| {
            let spent = traces[at].as_ref().map_or(Cost::default(), |trace| trace.cost);
            let fits = own.budget.allows(spent, more);
            if let (false, Some(trace)) = (fits, &mut traces[at]) {
                trace.stop = Stop::Budget;
            }
            fits
        });
        if open.is_empty() {
            break;
        }
        // Round 1 draws what best of n draws first with the same seed.
        let stream = if round == 0 { seed } else { sub_seed(seed, &format!("round {round}")) };
        let mut asked: Vec<Prompt> = vec![];
        for &at in &open {
            asked.push(
                match traces[at].as_ref().and_then(|trace| shown(trace, own, sub_seed(stream, "shown"))) {
                    None => plain[at].clone(),
                    Some((best, worst)) => {
                        let prompt = records[at].prompt.text();
                        let context = minijinja::context! { prompt => &*prompt, best, worst };
                        said_by_user(model, templates.render("prompt", context)?)
                    }
                },
            );
        }
        let drawn = sample(model, &asked, own.per_round, &own.draw, stream)?;
        let (mut subjects, mut whose) = (vec![], vec![]);
        for (&at, samples) in open.iter().zip(&drawn) {
            if let (true, Some(trace)) = (samples.is_empty(), &mut traces[at]) {
                trace.stop = Stop::NoPlace;
            }
            for one in samples {
                subjects.push(Subject::new(&records[at], one.text.as_str()));
                whose.push((at, tokens(one)));
            }
        }
        let replies = critic.criticise(&subjects, sub_seed(stream, "verify"))?;
        open = open
            .into_iter()
            .zip(&drawn)
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(at, _)| at)
            .collect();
        // How many answers of this round share the best score: each of them is kept with equal chance.
        let mut equals = vec![1u32; records.len()];
        for ((subject, (at, written)), reply) in subjects.iter().zip(whose).zip(replies) {
            let trace = traces[at].get_or_insert_with(|| Trace {
                record: at,
                rounds: vec![],
                stop: Stop::Rounds,
                cost: Cost::default(),
                checks: 0,
                by_oracle: false,
            });
            trace.cost += Cost { calls: 1, tokens: written };
            trace.cost += reply.cost;
            trace.checks += reply.checks;
            trace.by_oracle |= reply.checks > 0;
            let score = reply.said.as_ref().ok().and_then(|critique| critique.grade());
            let (now, old) = (trace.rounds.len(), trace.rounds.last().map(|last| last.kept));
            let kept = match old {
                None => now,
                Some(old) => {
                    let level = |score: Option<f64>| score.unwrap_or(f64::NEG_INFINITY);
                    let best = level(trace.rounds[old].score);
                    if level(score) > best {
                        equals[at] = 1;
                        now
                    } else if level(score) == best && old >= now - now % own.per_round {
                        equals[at] += 1;
                        if ties.random_range(0..equals[at]) == 0 { now } else { old }
                    } else {
                        old
                    }
                }
            };
            let (text, spent) = (subject.answer.to_string(), trace.cost);
            trace.rounds.push(Round { text, critique: Some(reply.said), score, kept, spent });
        }
        open.retain(|&at| {
            let done = traces[at]
                .as_mut()
                .filter(|trace| trace.rounds[trace.chosen()].score.is_some_and(|score| score >= own.stop_at));
            if let Some(trace) = done {
                trace.stop = Stop::Approved;
                return false;
            }
            true
        });
    }
    Ok(traces.into_iter().flatten().collect())
}

/// What the prompt shows of a trace, best and worst; `None` where it has nothing to tell.
fn shown(trace: &Trace, own: &Iad, seed: u64) -> Option<(minijinja::Value, Option<minijinja::Value>)> {
    let rounds = &trace.rounds;
    let of = |at: usize, tells: Tells| {
        let round = &rounds[at];
        let critique = round.critique.as_ref().and_then(|said| said.as_ref().ok()).map(|c| c.text.as_str());
        let score = round.score.filter(|_| matches!(tells, Tells::Score | Tells::Both));
        let critique = critique.filter(|_| matches!(tells, Tells::Words | Tells::Both));
        minijinja::context! { answer => &round.text, score, critique }
    };
    match own.context {
        Context::Nothing => None,
        Context::Random => {
            let at = rng(seed, &format!("record {}", trace.record)).random_range(0..rounds.len());
            Some((of(at, Tells::Nothing), None))
        }
        Context::Best => {
            let best = trace.chosen();
            let level = |at: usize| rounds[at].score.unwrap_or(f64::NEG_INFINITY);
            let worst =
                (0..rounds.len()).reduce(|worst, at| if level(at) < level(worst) { at } else { worst })?;
            // Equal scores, or one answer that is both, tell nothing apart; words may still say what to mend.
            let told = level(best) > level(worst);
            let words =
                rounds[best].critique.as_ref().is_some_and(|c| c.as_ref().is_ok_and(|c| !c.text.is_empty()));
            let speaks = words && matches!(own.feedback, Tells::Words | Tells::Both);
            if !told && !speaks {
                return None;
            }
            Some((of(best, own.feedback), (own.worst && told).then(|| of(worst, own.feedback))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::world::{Verify, traces, truth, with};
    use super::*;
    use crate::bench;

    #[test]
    fn the_verifiers_score_of_the_kept_answer_never_falls() {
        for verify in [Verify::Exact, Verify::Noise(1.0), Verify::Sparse] {
            for trace in traces(&with(16, Context::Best), verify, 3).unwrap() {
                assert_eq!((trace.rounds.len(), trace.cost.calls, trace.checks), (16, 16, 16));
                let kept: Vec<f64> =
                    trace.rounds.iter().map(|r| trace.rounds[r.kept].score.unwrap()).collect();
                assert!(kept.windows(2).all(|pair| pair[1] >= pair[0]), "{kept:?}");
                let best = trace.rounds.iter().filter_map(|r| r.score).fold(f64::MIN, f64::max);
                assert_eq!(trace.rounds[trace.chosen()].score, Some(best));
            }
        }
    }

    #[test]
    fn round_one_is_that_of_best_of_n() {
        let of = |context| traces(&with(8, context), Verify::Exact, 5).unwrap();
        for (one, other) in of(Context::Best).iter().zip(&of(Context::Nothing)) {
            let texts = |trace: &Trace| trace.rounds.iter().map(|r| r.text.clone()).collect::<Vec<_>>();
            assert_eq!(texts(one)[..4], texts(other)[..4]);
            assert_ne!(texts(one)[4..], texts(other)[4..]);
        }
    }

    #[test]
    fn a_budget_ends_the_rounds_and_a_top_score_too() {
        let budget = Budget { calls: 9, tokens: 0 };
        for trace in traces(&Iad { budget, ..with(16, Context::Best) }, Verify::Exact, 1).unwrap() {
            assert_eq!((trace.cost.calls, trace.stop), (8, Stop::Budget));
        }
        for trace in traces(&Iad { stop_at: 0.1, ..with(16, Context::Best) }, Verify::Exact, 1).unwrap() {
            assert_eq!((trace.cost.calls, trace.stop), (4, Stop::Approved));
        }
    }

    #[test]
    fn noise_makes_the_kept_score_overstate_the_truth() {
        let own = with(16, Context::Best);
        let kept: Vec<f64> = traces(&own, Verify::Noise(1.0), 2)
            .unwrap()
            .iter()
            .filter_map(|trace| trace.rounds[trace.chosen()].score)
            .collect();
        assert!(hone_feedback::metrics::mean(&kept) > truth(&own, Verify::Noise(1.0), 2).unwrap());
    }

    #[test]
    fn the_prompt_shows_what_it_is_told_to() {
        let own = Iad::default();
        let templates = Templates::new("iad", &[("prompt", own.prompt.as_str())]).unwrap();
        let of = |answer: &str, score: Option<f64>, critique: Option<&str>| {
            minijinja::context! { answer, score, critique }
        };
        let nothing: Option<minijinja::Value> = None;
        let worst = Some(of("bad", None, None));
        let best = of("good", Some(0.5), Some("too long"));
        let text = templates.render("prompt", minijinja::context! { prompt => "p", best, worst }).unwrap();
        for part in ["p\n", "score 0.5:\n\ngood", "said of it: too long", "worst answer so far:\n\nbad"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        let best = of("good", None, None);
        let text = templates
            .render("prompt", minijinja::context! { prompt => "p", best, worst => nothing })
            .unwrap();
        assert!(!text.contains("score") && !text.contains("worst") && !text.contains("said"), "{text}");
    }

    #[test]
    fn claim_beats_best_of_n() {
        bench::assert_holds(world::beats_best_of_n, 5);
    }

    #[test]
    fn claim_best_of_n_beats_one() {
        bench::assert_holds(world::best_of_n_beats_one, 5);
    }

    #[test]
    fn claim_beats_a_random_answer() {
        bench::assert_holds(world::beats_random, 5);
    }

    #[test]
    fn claim_the_worst_helps() {
        // It does not hold here (see the comment above); a change that makes it hold, or fail by far, is to be noticed.
        let (mean, _, values) = bench::over_seeds(world::worst_helps, 5).unwrap();
        assert!((-0.02..0.0).contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_words_beat_scores() {
        bench::assert_holds(world::words_beat_scores, 5);
    }

    #[test]
    fn claim_noise_costs() {
        bench::assert_holds(world::noise_costs, 5);
    }

    #[test]
    fn claim_sparsity_costs() {
        bench::assert_holds(world::sparsity_costs, 5);
    }

    #[test]
    fn claim_budget_helps() {
        bench::assert_holds(world::budget_helps, 5);
    }
}
