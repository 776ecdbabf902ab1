//! Several critics as one.

use std::collections::BTreeMap;

use super::logged::nothing;
use super::{Critic, Critique, Failure, Reply, StepLabel, Subject};
use crate::error::Result;
use crate::refine::Cost;
use hone_nn::train::seed::sub_seed;

/// Critics that are all asked, and judge by majority.
#[derive(Debug)]
pub struct Ensemble<'a> {
    /// The members.
    pub critics: Vec<Box<dyn Critic + 'a>>,
}

impl Critic for Ensemble<'_> {
    fn name(&self) -> &str {
        "ensemble"
    }

    fn criticise(&self, subjects: &[Subject<'_>], seed: u64) -> Result<Vec<Reply>> {
        let mut said: Vec<(Vec<_>, Cost, u64)> = vec![Default::default(); subjects.len()];
        for (index, critic) in self.critics.iter().enumerate() {
            let replies = critic.criticise(subjects, sub_seed(seed, &format!("critic {index}")))?;
            for ((all, cost, checks), reply) in said.iter_mut().zip(replies) {
                *cost += reply.cost;
                *checks += reply.checks;
                all.push(reply.said);
            }
        }
        Ok(said.into_iter().map(|(all, cost, checks)| Reply { said: combine(all), cost, checks }).collect())
    }
}

/// One critique of several on one answer.
///
/// The verdict is the majority's; a tie is no verdict in favour: `false`, since an unfounded approval ends a refinement.
/// Words, spans and score are those of one member that agrees with it, the most confident one, the first of equals: no
/// text is mixed from several. A step is labelled by the majority of those who label it, ties as wrong, and only up to the
/// first wrong one. The confidence is the share of verdicts that agree. One critique alone is returned as it is; members
/// that failed have no vote.
///
/// # Errors
/// The first failure if nobody said anything.
pub fn combine(said: Vec<std::result::Result<Critique, Failure>>) -> std::result::Result<Critique, Failure> {
    let (mut critiques, mut failure) = (vec![], None);
    for one in said {
        match one {
            Ok(critique) => critiques.push(critique),
            Err(why) => failure = failure.or(Some(why)),
        }
    }
    if critiques.len() < 2 {
        return critiques.pop().ok_or_else(|| failure.unwrap_or_else(nothing));
    }
    let verdicts: Vec<bool> = critiques.iter().filter_map(|critique| critique.right).collect();
    let approving = verdicts.iter().filter(|&&right| right).count();
    let right = (!verdicts.is_empty()).then_some(2 * approving > verdicts.len());
    let mut votes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for step in critiques.iter().flat_map(|critique| &critique.steps) {
        let (for_it, all) = votes.entry(step.index).or_default();
        *for_it += usize::from(step.right);
        *all += 1;
    }
    let mut steps: Vec<StepLabel> = vec![];
    for (index, (for_it, all)) in votes {
        let right = 2 * for_it > all;
        steps.push(StepLabel { index, right });
        if !right {
            break;
        }
    }
    let of = |critique: &Critique| critique.confidence.unwrap_or(0.0);
    let agreeing = critiques.iter().filter(|critique| critique.right == right);
    // The first of equals: a later one must be more confident.
    let speaker =
        agreeing.reduce(|best, one| if of(one) > of(best) { one } else { best }).or(critiques.first());
    let Some(speaker) = speaker.cloned() else { return Err(nothing()) };
    let agree = verdicts.iter().filter(|&&one| Some(one) == right).count();
    let confidence = right.map(|_| agree as f64 / verdicts.len() as f64).or(speaker.confidence);
    Ok(Critique { right, steps, confidence, ..speaker })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn critique(by: &str, right: Option<bool>, confidence: f64) -> Critique {
        Critique {
            by: by.into(),
            right,
            confidence: Some(confidence),
            text: by.into(),
            ..Critique::default()
        }
    }

    #[test]
    fn the_majority_decides_and_one_of_it_speaks() {
        let said = vec![
            Ok(critique("a", Some(true), 0.9)),
            Ok(critique("b", Some(false), 0.4)),
            Err(Failure::new("not JSON", "")),
            Ok(critique("c", Some(false), 0.6)),
        ];
        let combined = combine(said).unwrap();
        assert_eq!((combined.right, combined.by.as_str()), (Some(false), "c"));
        assert!((combined.confidence.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        // A tie does not approve.
        let tied =
            combine(vec![Ok(critique("a", Some(true), 0.9)), Ok(critique("b", Some(false), 0.1))]).unwrap();
        assert_eq!((tied.right, tied.by.as_str(), tied.confidence), (Some(false), "b", Some(0.5)));
    }

    #[test]
    fn steps_are_voted_on_and_end_at_the_first_wrong_one() {
        let with = |steps: &[bool]| {
            let steps = steps.iter().enumerate().map(|(index, &right)| StepLabel { index, right }).collect();
            Ok(Critique { steps, ..critique("x", None, 0.5) })
        };
        // Step 1 is right by all three, step 2 wrong by two of three, step 3 is judged by one only and after it.
        let combined =
            combine(vec![with(&[true, false]), with(&[true, false]), with(&[true, true, true])]).unwrap();
        assert_eq!((combined.steps.len(), combined.first_wrong()), (2, Some(1)));
    }

    #[test]
    fn one_is_returned_as_it_is_and_none_says_why() {
        let one = critique("a", None, 0.2);
        assert_eq!(combine(vec![Err(Failure::new("x", "")), Ok(one.clone())]), Ok(one));
        assert_eq!(
            combine(vec![Err(Failure::new("x", "t")), Err(Failure::new("y", ""))]),
            Err(Failure::new("x", "t"))
        );
        assert_eq!(combine(vec![]), Err(nothing()));
    }
}
