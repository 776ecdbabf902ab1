//! TRLM.

pub mod reader;
pub mod twin;
pub mod uses;

mod claims;
mod world;

use hone_feedback::Prompt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::order::TokenOrder;
use crate::policy::Policy;
use crate::refine::best_of_n::best;
use crate::refine::{Answered, Attempt, Cost, Draw, prompts, sample, tokens};
use reader::{By, Fit, Reader, Wording};
use twin::Twin;

method! {
    /// Answer several times and keep the answer that tells best what was asked, by a model that reads from the end.
    /// # What it does
    /// Samples `n` answers and keeps the one with the highest score. `by` says which: the question's log-probability given
    /// the answer by a model of reversed text (`ba`) or by a forward model that is shown the answer first (`fo`); or, as
    /// baselines in the same code, the answer's given the question by a forward model (`forward`), by the policy itself
    /// (`own`) or by the reversed model in the wrong direction (`backward`). A model trained in both orders serves as `ba`
    /// and as `fo`. Text is turned round by tokens, as a whole; the token it begins with stays first, the stop token last.
    /// `hone pretrain --reversed` makes a reversed twin of the built-in model by the same command and the same data.
    /// Without a `model`, twins are trained on the policy's own answers, each on one half of the prompts to score the
    /// other. The same reader finds the sentence that a highlight stands on (linear, binary, exclusion), ranks documents
    /// for a question, and writes questions to an answer for a filter to look at (`refine::trlm::uses`).
    /// # Feedback
    /// None: no label, preference or judge. The twin gives the feedback.
    /// # Departs from the paper
    /// No code was published: `n`, tuning data and where prompts stand are from notes. A reversed twin is trained here on
    /// the same texts for reading and for questions, not on two corpora. Wordings are our own, one set for each use, and
    /// are turned round with what they stand around; for a reversed model they add nothing by default. Scores are sums; for
    /// one question the order is the same per token. `per_token` divides the likelihoods of answers, which else favour short
    /// ones. The judge of AlpacaEval gives way to known right answers. An answer too long for the context loses its end.
    /// # Claim
    /// Twins of 50 thousand weights on questions about a small knowledge base with right, wrong and generic answers,
    /// passages with headlines, and instructions, seeds 1 to 5. Both orders read the same text equally well
    /// (`claim_twins_read_alike`). Of 4 and 16 samples, `ba` picks right answers more often than `fo` (`claim_ba_over_fo`),
    /// which does more often than the policy's own likelihood (`claim_fo_over_own`); more often than one sample
    /// (`claim_ba_over_one`), and so does a model of both orders (`claim_both_orders_over_own`). Generic answers are
    /// picked more rarely by `ba` (`claim_fewer_generic`) and more often by likelihood (`claim_likelihood_is_generic`).
    /// Sentences are found better by the highlight's probability than by the sentence's (`claim_cites_the_right_way`),
    /// binary search takes fewer scores (`claim_binary_is_cheaper`), exclusion finds less (`claim_linear_over_exclusion`).
    /// Documents of varied length are ranked better by the question's probability (`claim_retrieves_the_right_way`).
    /// Questions written to answers let a filter of words catch obfuscated harmful ones (`claim_guard_catches`), and hardly
    /// ever block others (`claim_guard_spares`). Tilting by the exact posterior is the closed form (`claim_tilt_is_exact`).
    /// # Source
    /// Varun et al., NeurIPS 2024, arXiv:2412.02626.
    pub static TRLM: Method = Method {
        id: "trlm", name: "TRLM", family: Family::Refine, needs: Needs::Prompts, makes: Makes::Answers, settings: Trlm,
        claims: claims::CLAIMS,
        run,
    };
}

/// Settings of TRLM. Defaults are the paper's, where known.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trlm {
    /// Answers per prompt, at least 1. Paper: 16.
    pub n: usize,
    /// What is scored, and by what. Paper: `ba`, with the others beside it.
    pub by: By,
    /// Folder of the scoring model; without, twins trained here (`ba`, `backward`) or the policy.
    pub model: String,
    /// Divide scores by tokens. Paper: a sum.
    pub per_token: bool,
    /// How answers are sampled.
    pub draw: Draw,
    /// The words around questions and answers.
    pub wording: Wording,
    /// How twins are trained where no model is given.
    pub twin: Twin,
}

impl Default for Trlm {
    fn default() -> Trlm {
        Trlm {
            n: 16,
            by: By::Ba,
            model: String::new(),
            per_token: false,
            draw: Draw::default(),
            wording: Wording::answers(),
            twin: Twin::default(),
        }
    }
}

impl Settings for Trlm {
    fn check(&self) -> Result<()> {
        if self.n == 0 {
            return Err(Error::range("trlm", "n", "at least 1", 0));
        }
        crate::method::not_negative("trlm", "twin.reading", self.twin.reading)?;
        self.twin.training.check("trlm")?;
        self.wording.templates()?;
        self.draw.check("trlm")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Trlm = settings("trlm", job.settings)?;
    let model = job.policy.speaker()?;
    let drawn = sample(&model, &prompts(&model, job.records)?, own.n, &own.draw, job.seed)?;
    let asked: Vec<(usize, &Prompt, &str)> = (0..drawn.len())
        .flat_map(|at| drawn[at].iter().map(move |sample| (at, sample)))
        .map(|(at, sample)| (at, &job.records[at].prompt, sample.text.as_str()))
        .collect();
    let score = |policy: &Policy, part: &[(usize, &Prompt, &str)]| -> Result<Vec<Option<Fit>>> {
        let (local, order) = (policy.speaker()?, TokenOrder::of(policy.model.config()));
        let pairs: Vec<(&Prompt, &str)> = part.iter().map(|&(_, prompt, answer)| (prompt, answer)).collect();
        Reader::local(&local, order, own.by, &own.wording)?.fit(&pairs)
    };
    let fits = if !own.model.is_empty() && own.by != By::Own {
        score(&Policy::from_folder(own.model.as_ref())?, &asked)?
    } else if !own.by.turned() {
        score(&job.policy, &asked)?
    } else {
        // A twin that had seen an answer with its question would take any answer for one to that question.
        let mut fits = vec![None; asked.len()];
        for half in 0..2 {
            let places: Vec<usize> = (0..asked.len()).filter(|&at| asked[at].0 % 2 == half).collect();
            let others = asked.iter().filter(|(record, ..)| record % 2 != half);
            let texts: Vec<(Prompt, String)> =
                others.map(|&(_, prompt, answer)| (prompt.clone(), answer.to_string())).collect();
            if places.is_empty() {
                continue;
            }
            let session = job.session.stage(&format!("twin-{half}"));
            let twin = twin::train(&job.policy, &texts, TokenOrder::Reversed, &own.twin, job.seed, &session)?;
            let part: Vec<_> = places.iter().map(|&at| asked[at]).collect();
            for (at, fit) in places.into_iter().zip(score(&twin, &part)?) {
                fits[at] = fit;
            }
        }
        fits
    };
    let mut fits = fits.into_iter();
    let mut answered = vec![];
    for (record, samples) in drawn.iter().enumerate().filter(|(_, samples)| !samples.is_empty()) {
        let mut cost = Cost::default();
        let mut attempts = vec![];
        for sample in samples {
            // Scoring is a call too; it writes nothing.
            cost += Cost { calls: 2, tokens: tokens(sample) };
            let score = fits.next().flatten().map(|fit| if own.per_token { fit.mean() } else { fit.logp });
            attempts.push(Attempt { text: sample.text.clone(), critique: None, score });
        }
        answered.push(Answered { record, chosen: best(&attempts), attempts, cost, by_oracle: false });
    }
    Ok(Product::Answers(answered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, assert_holds};
    use claims::CLAIMS;
    use hone_feedback::Message;

    fn effect(name: &str) -> fn(u64) -> Result<f64> {
        CLAIMS.iter().find(|claim| claim.name == name).unwrap().effect
    }

    #[test]
    fn claim_twins_read_alike() {
        assert_holds(effect("claim_twins_read_alike"), 3);
    }

    #[test]
    fn claim_ba_over_fo() {
        assert_holds(effect("claim_ba_over_fo"), 3);
    }

    #[test]
    fn claim_fo_over_own() {
        assert_holds(effect("claim_fo_over_own"), 5);
    }

    #[test]
    fn claim_ba_over_one() {
        assert_holds(effect("claim_ba_over_one"), 3);
    }

    #[test]
    fn claim_both_orders_over_own() {
        assert_holds(effect("claim_both_orders_over_own"), 3);
    }

    #[test]
    fn claim_fewer_generic() {
        assert_holds(effect("claim_fewer_generic"), 5);
    }

    #[test]
    fn claim_likelihood_is_generic() {
        assert_holds(effect("claim_likelihood_is_generic"), 3);
    }

    #[test]
    fn claim_cites_the_right_way() {
        assert_holds(effect("claim_cites_the_right_way"), 3);
    }

    #[test]
    fn claim_binary_is_cheaper() {
        assert_holds(effect("claim_binary_is_cheaper"), 3);
    }

    #[test]
    fn claim_linear_over_exclusion() {
        assert_holds(effect("claim_linear_over_exclusion"), 3);
    }

    #[test]
    fn claim_retrieves_the_right_way() {
        assert_holds(effect("claim_retrieves_the_right_way"), 3);
    }

    #[test]
    fn claim_guard_catches() {
        assert_holds(effect("claim_guard_catches"), 3);
    }

    #[test]
    fn claim_guard_spares() {
        assert_holds(effect("claim_guard_spares"), 3);
    }

    #[test]
    fn claim_tilt_is_exact() {
        assert_holds(effect("claim_tilt_is_exact"), 3);
    }

    #[test]
    fn a_conversation_is_turned_as_a_whole() {
        let policy = crate::tiny::policy().unwrap();
        let local = policy.speaker().unwrap();
        let prompt = Prompt::Messages(vec![Message::new("user", "1+2")]);
        let query = crate::policy::lm_prompt(&prompt, true).unwrap();
        let (given, asked) = reader::turned(&local, &query, "3").unwrap().unwrap();
        let id = |token: &str| local.tokenizer().id(token).unwrap();
        let stop = local.tokenizer().stop_tokens()[0];
        let mut text: Vec<u32> = local.tokenizer().encode("1+2", false).unwrap();
        text.reverse();
        let before = local.prompt_tokens(0, &query).unwrap();
        let answer = local.tokenizer().encode("3", false).unwrap();
        // 3' [assistant] | (1+2)' [user] [end]
        assert_eq!(given, [answer, vec![*before.last().unwrap()]].concat());
        assert_eq!(asked, [text, vec![before[0], stop]].concat());
        assert_ne!(id(&local.tokenizer().token(before[0]).unwrap()), stop);
    }

    #[test]
    fn a_model_of_the_other_order_is_refused() {
        let bench = Bench::new(1).unwrap();
        let records = bench.records(2, 0, "asked");
        let folder = crate::bench::temporary("forward").unwrap();
        bench.policy().unwrap().save(&folder).unwrap();
        let mut own: toml::Table = "n = 2".parse().unwrap();
        own.insert("model".into(), folder.display().to_string().into());
        let refused = run(bench.job(&records, &own).unwrap()).unwrap_err().to_string();
        assert!(
            refused.contains("needs a model of reversed text, got one whose order is forward"),
            "{refused}"
        );
    }

    #[test]
    fn every_prompt_gets_the_answer_of_the_highest_score() {
        let bench = Bench::new(1).unwrap();
        let records = bench.records(4, 0, "asked");
        for by in ["ba", "fo", "forward", "own"] {
            let own: toml::Table =
                format!("n = 3\nby = \"{by}\"\n[twin]\nreading = 1\n[twin.training]\nepochs = 1")
                    .parse()
                    .unwrap();
            let answers = run(bench.job(&records, &own).unwrap()).unwrap().answers().unwrap();
            assert_eq!(answers.len(), 4, "{by}");
            for answer in &answers {
                let best = answer.attempts.iter().filter_map(|a| a.score).fold(f64::MIN, f64::max);
                assert_eq!(
                    (answer.attempts[answer.chosen].score, answer.cost.calls),
                    (Some(best), 6),
                    "{by}"
                );
            }
        }
    }
}
