//! The first stage's data: critiques of critiques, their selection by label, balance, and labels by roll-outs.

use hone_feedback::Record;
use hone_lm::LanguageModel;
use hone_nn::train::seed::{rng, shuffle, sub_seed};

use super::{Data, DeepCritic, prompt_of};
use crate::critique::{Critic, Logged, Subject, first_error};
use crate::error::Result;
use crate::refine::trace::said_by_user;
use crate::refine::{Draw, sample};
use crate::templates::Templates;

/// A solution whose first wrong step is known.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Its record.
    pub record: Record,
    /// Its whole text.
    pub answer: String,
    /// Its steps.
    pub steps: Vec<String>,
    /// The first wrong one, from 0.
    pub first_wrong: Option<usize>,
}

impl Solution {
    /// Steps that are criticised: all up to the first wrong one.
    pub(super) fn judged(&self) -> usize {
        self.first_wrong.map_or(self.steps.len(), |index| index + 1)
    }

    pub(super) fn context(&self) -> (String, &Vec<String>) {
        (self.record.prompt.text().into_owned(), &self.steps)
    }

    /// What a critique of it is to end with: the first wrong step from 1, or -1.
    pub(super) fn final_number(&self) -> i64 {
        self.first_wrong.map_or(-1, |index| index as i64 + 1)
    }

    /// The last line of a critique of it.
    pub(super) fn answer_line(&self) -> String {
        format!("**Answer**: \\boxed{{{}}}", self.final_number())
    }
}

/// A text to imitate, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index of the solution.
    pub solution: usize,
    /// The whole critique.
    pub text: String,
    /// Per step: the first verdict, where one was given, and the kept one.
    pub verdicts: Vec<(Option<bool>, bool)>,
}

impl Target {
    /// Whether a first verdict was replaced.
    pub fn corrected(&self) -> bool {
        self.verdicts.iter().any(|(first, kept)| *first != Some(*kept))
    }
}

/// The last boxed 1 or -1 of a text.
pub(super) fn verdict(text: &str) -> Option<bool> {
    let (_, boxed) = text.rsplit_once("\\boxed{")?;
    match boxed.split_once('}')?.0.trim() {
        "1" => Some(true),
        "-1" => Some(false),
        _ => None,
    }
}

pub(super) fn templates() -> Result<Templates<'static>> {
    Templates::new(
        "deep-critic",
        &[
            ("initial", include_str!("../prompts/initial.jinja")),
            ("in_depth", include_str!("../prompts/in_depth.jinja")),
            ("merge", include_str!("../prompts/merge.jinja")),
            ("continue", include_str!("../prompts/continue.jinja")),
        ],
    )
}

/// The critiques to imitate: one per solution that passes selection, in order, before balancing.
///
/// # Errors
/// Those of the teacher.
pub fn deliberate(
    teacher: &dyn LanguageModel,
    solutions: &[Solution],
    own: &DeepCritic,
    seed: u64,
) -> Result<Vec<Target>> {
    match own.data {
        Data::Direct => return direct(teacher, solutions, own, seed),
        Data::Logged => return logged(solutions),
        Data::Merged | Data::Initial => {}
    }
    let templates = templates()?;
    let places: Vec<(usize, usize)> = solutions
        .iter()
        .enumerate()
        .flat_map(|(at, solution)| (0..solution.judged()).map(move |step| (at, step)))
        .collect();
    let truth = |(at, step): (usize, usize)| solutions[at].first_wrong != Some(step);
    let ask =
        |name: &str, places: &[(usize, usize)], extra: &dyn Fn(usize) -> [String; 2], n, draw: &Draw| {
            let prompts = places.iter().enumerate().map(|(index, &(at, step))| {
                let (prompt, steps) = solutions[at].context();
                let [initial, in_depth] = extra(index);
                let (number, text) = (step + 1, &steps[step]);
                let context = minijinja::context! { prompt, steps, number, step => text, initial, in_depth };
                Ok(said_by_user(teacher, templates.render(name, context)?))
            });
            sample(teacher, &prompts.collect::<Result<Vec<_>>>()?, n, draw, sub_seed(seed, name))
        };
    let first = ask("initial", &places, &|_| Default::default(), 1, &own.initial_draw)?;
    let first: Vec<String> = first
        .into_iter()
        .map(|said| said.into_iter().next().map(|one| one.text).unwrap_or_default())
        .collect();
    let kept: Vec<Option<String>> = match own.data {
        Data::Initial => {
            let right = |(said, &place): (&String, &(usize, usize))| {
                (verdict(said) == Some(truth(place))).then(|| said.clone())
            };
            first.iter().zip(&places).map(right).collect()
        }
        _ => {
            let shown = |index: usize| [first[index].clone(), String::new()];
            let second = ask("in_depth", &places, &shown, own.in_depth, &own.in_depth_draw)?;
            let chosen = second.into_iter().zip(&places).map(|(said, &place)| {
                said.into_iter().map(|one| one.text).find(|text| verdict(text) == Some(truth(place)))
            });
            let chosen: Vec<Option<String>> = chosen.collect();
            // Only what is kept is merged.
            let whole: Vec<bool> = (0..solutions.len())
                .map(|at| places.iter().zip(&chosen).all(|(place, text)| place.0 != at || text.is_some()))
                .collect();
            let open: Vec<usize> = (0..places.len()).filter(|&index| whole[places[index].0]).collect();
            let of_open: Vec<(usize, usize)> = open.iter().map(|&index| places[index]).collect();
            let both = |index: usize| {
                let at = open[index];
                [first[at].clone(), chosen[at].clone().unwrap_or_default()]
            };
            let merged = ask("merge", &of_open, &both, 1, &own.merge_draw)?;
            let mut texts = vec![None; places.len()];
            for (index, said) in open.into_iter().zip(merged) {
                let text = said.into_iter().next().map(|one| one.text.trim().to_owned());
                texts[index] = text.filter(|text| !text.is_empty());
            }
            texts
        }
    };
    let mut targets = vec![];
    for (at, solution) in solutions.iter().enumerate() {
        let of: Vec<usize> = (0..places.len()).filter(|&index| places[index].0 == at).collect();
        let texts: Option<Vec<&str>> = of.iter().map(|&index| kept[index].as_deref()).collect();
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else { continue };
        let verdicts = of.iter().map(|&index| (verdict(&first[index]), truth(places[index]))).collect();
        let text = format!("{}\n\n{}", texts.join("\n\n"), solution.answer_line());
        targets.push(Target { solution: at, text, verdicts });
    }
    Ok(targets)
}

/// What the log says of each solution, with the line of its label.
fn logged(solutions: &[Solution]) -> Result<Vec<Target>> {
    let subjects: Vec<Subject<'_>> =
        solutions.iter().map(|solution| Subject::new(&solution.record, solution.answer.as_str())).collect();
    let replies = Logged.criticise(&subjects, 0)?;
    let target =
        |(at, said): (usize, std::result::Result<crate::critique::Critique, crate::critique::Failure>)| {
            let words = said.ok().map(|critique| critique.text).filter(|text| !text.is_empty())?;
            let right = |step| solutions[at].first_wrong != Some(step);
            let verdicts = (0..solutions[at].judged()).map(|step| (Some(right(step)), right(step))).collect();
            let text = format!("{words}\n\n{}", solutions[at].answer_line());
            Some(Target { solution: at, text, verdicts })
        };
    Ok(replies.into_iter().map(|reply| reply.said).enumerate().filter_map(target).collect())
}

/// Whole critiques in one go, those whose final number is the label.
fn direct(
    teacher: &dyn LanguageModel,
    solutions: &[Solution],
    own: &DeepCritic,
    seed: u64,
) -> Result<Vec<Target>> {
    let prompts = solutions.iter().map(|solution| Ok(said_by_user(teacher, prompt_of(solution, own)?)));
    let said = sample(teacher, &prompts.collect::<Result<Vec<_>>>()?, 1, &own.merge_draw, seed)?;
    let mut targets = vec![];
    for (at, said) in said.into_iter().enumerate() {
        let wanted = solutions[at].final_number();
        let text =
            said.into_iter().next().map(|one| one.text).filter(|text| first_error(text) == Some(wanted));
        let verdicts = (0..solutions[at].judged()).map(|step| solutions[at].first_wrong != Some(step));
        let verdicts = verdicts.map(|right| (Some(right), right)).collect();
        targets.extend(text.map(|text| Target { solution: at, text, verdicts }));
    }
    Ok(targets)
}

/// All solutions with an error, all without one in which a first critique was corrected, and `most` of the others, drawn
/// by the seed. The order is kept.
pub fn balance(targets: Vec<Target>, solutions: &[Solution], most: usize, seed: u64) -> Vec<Target> {
    let plain = |target: &Target| solutions[target.solution].first_wrong.is_none() && !target.corrected();
    let mut others: Vec<usize> = (0..targets.len()).filter(|&at| plain(&targets[at])).collect();
    shuffle(&mut others, &mut rng(seed, "balance"));
    others.truncate(most);
    let kept = |(at, target): (usize, Target)| (!plain(&target) || others.contains(&at)).then_some(target);
    targets.into_iter().enumerate().filter_map(kept).collect()
}

/// The first wrong step by completions of prefixes: `successes[i]` of `rollouts` completions of the first `i + 1` steps
/// reach the answer; `right` is whether the solution does. `None` where it cannot be told.
///
/// A right solution has no wrong step if more than half succeed from every prefix. A wrong one has its first wrong step
/// where completions stop succeeding for good, if more than half succeed from every earlier prefix; where none stops, it is
/// the last step, which is never completed.
pub fn monte_carlo_label(successes: &[usize], rollouts: usize, right: bool) -> Option<Option<usize>> {
    let most = |&count: &usize| 2 * count > rollouts;
    if right {
        return successes.iter().all(most).then_some(None);
    }
    let dead = successes.iter().rev().take_while(|&&count| count == 0).count();
    let first = successes.len() - dead;
    successes[..first].iter().all(most).then_some(Some(first))
}

#[cfg(test)]
mod tests {
    use super::super::claims;
    use super::*;

    #[test]
    fn labels_from_counts_by_hand() {
        // 8 roll-outs: success stops at the second prefix and stays away.
        assert_eq!(monte_carlo_label(&[7, 0, 0], 8, false), Some(Some(1)));
        // It comes back: no place is sure.
        assert_eq!(monte_carlo_label(&[7, 0, 1], 8, false), None);
        // Four of eight is not more than half.
        assert_eq!(monte_carlo_label(&[4, 0], 8, false), None);
        // Every prefix survives: the error is in the last step, index 2 of 3.
        assert_eq!(monte_carlo_label(&[8, 5], 8, false), Some(Some(2)));
        assert_eq!(monte_carlo_label(&[0, 0], 8, false), Some(Some(0)));
        assert_eq!(monte_carlo_label(&[8, 5], 8, true), Some(None));
        assert_eq!(monte_carlo_label(&[8, 4], 8, true), None);
    }

    #[test]
    fn critiques_stop_at_the_first_wrong_step_and_solutions_fall_whole() {
        let solutions = claims::chains(60, 1);
        let own = DeepCritic { in_depth: 1, ..DeepCritic::default() };
        let targets = deliberate(&claims::teacher(), &solutions, &own, 1).unwrap();
        // One second look is right seven times of ten, and a solution has up to four: some fall, some stay.
        assert!((5..55).contains(&targets.len()), "{}", targets.len());
        for target in &targets {
            let solution = &solutions[target.solution];
            assert_eq!(target.verdicts.len(), solution.judged());
            let wanted = solution.final_number();
            assert_eq!(first_error(&target.text), Some(wanted));
            let parts: Vec<&str> = target.text.split("\n\n").collect();
            assert_eq!(parts.len(), solution.judged() + 1);
            assert!(parts.iter().zip(&target.verdicts).all(|(part, (_, kept))| verdict(part) == Some(*kept)));
        }
        let own = DeepCritic { data: Data::Initial, ..own };
        let initial = deliberate(&claims::teacher(), &solutions, &own, 1).unwrap();
        assert!(!initial.is_empty() && initial.iter().all(|target| !target.corrected()));
    }

    #[test]
    fn balance_caps_only_what_was_never_in_doubt() {
        let solution = |first_wrong| Solution {
            record: Record::new("r", "p"),
            answer: "1+1=2".into(),
            steps: vec!["1+1=2".into()],
            first_wrong,
        };
        let solutions = [solution(Some(0)), solution(None), solution(None), solution(None)];
        let target =
            |at, first, kept| Target { solution: at, text: String::new(), verdicts: vec![(first, kept)] };
        let targets = vec![
            target(0, Some(false), false),
            target(1, Some(true), true),
            target(2, Some(false), true),
            target(3, Some(true), true),
        ];
        let kept = |most| -> Vec<usize> {
            balance(targets.clone(), &solutions, most, 1).iter().map(|target| target.solution).collect()
        };
        assert_eq!(kept(0), [0, 2]);
        assert_eq!((kept(1).len(), kept(2)), (3, vec![0, 1, 2, 3]));
    }
}
