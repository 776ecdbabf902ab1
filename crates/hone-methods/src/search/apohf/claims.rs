//! The claims of APOHF: candidates with random embeddings and a hidden utility, and instructions for a solver of fixed
//! rules.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hone_feedback::metrics::{mean, standard_deviation};
use hone_lm::LanguageModel;
use hone_nn::params::fill_normal;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use rand::Rng;

use super::bandit::{Bandit, Rules};
use super::candidates::Candidate;
use super::people::Taste;
use super::session::{Chooser, Meeting, Said, groups};
use super::{Apohf, Learner, Person, Second};
use crate::error::Result;

/// Candidates, numbers of an embedding, choices in all, and choices between two looks at the learner.
const ARMS: usize = 200;
const WIDTH: usize = 32;
const BITS: usize = 150;
const LOOK: usize = 25;

/// Benches of a seed, whose figures are averaged: one search is mostly luck.
const BENCHES: u64 = 3;

/// Queries of the claim on responses, each with 20 of the candidates.
const QUERIES: usize = 10;

/// Pairs that a learner's order is held against.
const PAIRS: usize = 1000;

/// The published settings but for the training: 30 steps of 3e-2 where the paper takes 1,000 of 1e-3, so that a search
/// takes a second.
fn rules(learner: Learner) -> Rules {
    Rules { learner, steps: 30, learning_rate: 3e-2, ..Apohf::default().rules() }
}

/// What the utility of an embedding `x` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    /// `a·x + cos(3 b·x)`.
    Curved,
    /// `a·x`.
    Linear,
}

/// Candidates with utilities of mean 0 and deviation 1. Directions of their embeddings matter less and less, as those of
/// sentence embeddings do.
struct Bench {
    candidates: Vec<Candidate>,
    utility: Vec<f64>,
}

fn normal(count: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut values = vec![0.0; count];
    fill_normal(&mut values, 1.0, rng);
    values
}

impl Bench {
    fn new(world: World, queries: usize, seed: u64) -> Bench {
        let mut rng = rng(seed, "candidates");
        let (a, b) = (normal(WIDTH, &mut rng), normal(WIDTH, &mut rng));
        let (mut candidates, mut utility) = (vec![], vec![]);
        for arm in 0..ARMS {
            let mut x = normal(WIDTH, &mut rng);
            x.iter_mut().enumerate().for_each(|(at, x)| *x /= ((at + 1) as f32).sqrt());
            let length = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            x.iter_mut().for_each(|x| *x /= length);
            let dot = |w: &[f32]| f64::from(x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>());
            utility.push(match world {
                World::Curved => dot(&a) + (3.0 * dot(&b)).cos(),
                World::Linear => dot(&a),
            });
            candidates.push(Candidate { embedding: x, ..Candidate::new(arm.to_string(), arm % queries) });
        }
        let (middle, deviation) = (mean(&utility), standard_deviation(&utility));
        utility.iter_mut().for_each(|u| *u = (*u - middle) / deviation);
        Bench { candidates, utility }
    }
}

/// What a search had come to at every look: the utility of what it reported, and the share of random pairs that never met
/// and that it orders right.
#[derive(Debug)]
struct Course {
    utility: Vec<f64>,
    ordered: Vec<f64>,
}

impl Course {
    fn after(&self, bits: usize) -> f64 {
        self.utility.get(bits / LOOK - 1).copied().unwrap_or(f64::NAN)
    }

    /// Mean after 25, 50 and 150 choices.
    fn on_the_way(&self) -> f64 {
        mean(&[25, 50, 150].map(|bits| self.after(bits)))
    }
}

/// Lets the simulated person decide `bits` pairs of these arms.
fn decide(
    bandit: &mut Bandit,
    arms: &[usize],
    taste: &mut Taste<'_>,
    bits: usize,
    met: &mut HashSet<(usize, usize)>,
) -> Result<()> {
    let end = bandit.bits() + bits;
    while bandit.bits() < end {
        let Some((a, b)) = bandit.propose(arms)? else { break };
        met.extend([(a, b), (b, a)]);
        let said = taste.choose(&Meeting {
            asked: bandit.asked(),
            bits: bandit.bits(),
            rounds: BITS,
            arms: [a, b],
            question: None,
            record: None,
            texts: ["", ""],
            best: None,
        })?;
        match said {
            Said::Left => bandit.tell(a, b),
            _ => bandit.tell(b, a),
        }
    }
    Ok(())
}

/// A search of all candidates. Several claims look at the same ones, so they are kept.
fn course(world: World, rules: Rules, magnitude: f64, seed: u64) -> Result<Arc<Course>> {
    static KEPT: OnceLock<Mutex<HashMap<String, Arc<Course>>>> = OnceLock::new();
    let key = format!("{world:?} {rules:?} {magnitude} {seed}");
    let kept = KEPT.get_or_init(Mutex::default);
    if let Some(course) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(course.clone());
    }
    let bench = Bench::new(world, 1, seed);
    let embeddings = bench.candidates.iter().map(|c| c.embedding.clone()).collect();
    let mut bandit = Bandit::new(rules, embeddings, seed)?;
    let person = Person { magnitude, ..Person::default() };
    let mut taste = Taste::new(person, ARMS, seed, |arm| Ok(bench.utility[arm]));
    let all: Vec<usize> = (0..ARMS).collect();
    let mut course = Course { utility: vec![], ordered: vec![] };
    let (mut met, mut pairs) = (HashSet::new(), rng(seed, "held-out pairs"));
    let mut drawn = || (pairs.random_range(0..ARMS), pairs.random_range(0..ARMS));
    let pairs: Vec<(usize, usize)> = (0..PAIRS).map(|_| drawn()).filter(|(a, b)| a != b).collect();
    while course.utility.len() < BITS / LOOK {
        decide(&mut bandit, &all, &mut taste, LOOK, &mut met)?;
        course.utility.push(bandit.best(&all)?.map_or(f64::NAN, |best| bench.utility[best]));
        let scores = bandit.scores()?;
        let right = |&(a, b): &(usize, usize)| {
            f64::from(u8::from((scores[a] > scores[b]) == (bench.utility[a] > bench.utility[b])))
        };
        let apart = pairs.iter().filter(|pair| !met.contains(pair)).map(right);
        course.ordered.push(mean(&apart.collect::<Vec<_>>()));
    }
    let course = Arc::new(course);
    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, course.clone());
    Ok(course)
}

/// What is looked at of a search, mean over the benches of a seed.
fn figure(world: World, rules: &Rules, magnitude: f64, seed: u64, look: fn(&Course) -> f64) -> Result<f64> {
    let of = |bench| Ok(look(&*course(world, rules.clone(), magnitude, BENCHES * seed + bench)?));
    Ok(mean(&(0..BENCHES).map(of).collect::<Result<Vec<_>>>()?))
}

fn at_the_end(course: &Course) -> f64 {
    course.after(BITS)
}

/// Utility after all choices on the curved benches at magnitude 10.
fn curved(learner: Learner, seed: u64) -> Result<f64> {
    figure(World::Curved, &rules(learner), 10.0, seed, at_the_end)
}

pub(super) fn beats_linear(seed: u64) -> Result<f64> {
    Ok(curved(Learner::Neural, seed)? - curved(Learner::Linear, seed)?)
}

pub(super) fn beats_double_thompson(seed: u64) -> Result<f64> {
    Ok(curved(Learner::Neural, seed)? - curved(Learner::DoubleThompson, seed)?)
}

pub(super) fn beats_random(seed: u64) -> Result<f64> {
    Ok(curved(Learner::Neural, seed)? - curved(Learner::Random, seed)?)
}

pub(super) fn linear_comes_second(seed: u64) -> Result<f64> {
    let others = curved(Learner::DoubleThompson, seed)?.max(curved(Learner::Random, seed)?);
    Ok(curved(Learner::Linear, seed)? - others)
}

pub(super) fn linear_wins_where_it_fits(seed: u64) -> Result<f64> {
    let of = |learner| figure(World::Linear, &rules(learner), 10.0, seed, Course::on_the_way);
    Ok(of(Learner::Linear)? - of(Learner::Neural)?)
}

fn against(other: Rules, seed: u64) -> Result<f64> {
    let of = |rules: &Rules| figure(World::Curved, rules, 10.0, seed, Course::on_the_way);
    Ok(of(&rules(Learner::Neural))? - of(&other)?)
}

pub(super) fn exploration_helps(seed: u64) -> Result<f64> {
    against(Rules { nu: 0.0, ..rules(Learner::Neural) }, seed)
}

pub(super) fn bounds_beat_chance(seed: u64) -> Result<f64> {
    against(Rules { second: Second::Random, ..rules(Learner::Neural) }, seed)
}

pub(super) fn noise_slows(seed: u64) -> Result<f64> {
    let mut least = f64::INFINITY;
    for learner in [Learner::Neural, Learner::Linear] {
        let at = |magnitude| figure(World::Curved, &rules(learner), magnitude, seed, Course::on_the_way);
        least = least.min(at(10.0)? - at(1.0)?);
    }
    Ok(least)
}

pub(super) fn ranking_survives_noise(seed: u64) -> Result<f64> {
    let of = |learner| figure(World::Curved, &rules(learner), 1.0, seed, at_the_end);
    Ok(of(Learner::Neural)? - of(Learner::Linear)?)
}

pub(super) fn preferences_get_better(seed: u64) -> Result<f64> {
    let gain = |course: &Course| {
        let at = |look: usize| course.ordered.get(look).copied().unwrap_or(f64::NAN);
        at(BITS / LOOK - 1) - at(0)
    };
    figure(World::Curved, &rules(Learner::Neural), 10.0, seed, gain)
}

pub(super) fn sharing_helps(seed: u64) -> Result<f64> {
    let gains = (0..BENCHES).map(|bench| shared_gain(BENCHES * seed + bench));
    Ok(mean(&gains.collect::<Result<Vec<_>>>()?))
}

/// Mean utility of the responses reported for each query, with one learner for all queries less with one for each.
fn shared_gain(seed: u64) -> Result<f64> {
    let bench = Bench::new(World::Curved, QUERIES, seed);
    let queries = groups(&bench.candidates);
    let embeddings: Vec<Vec<f32>> = bench.candidates.iter().map(|c| c.embedding.clone()).collect();
    let worth = |best: Option<usize>| best.map_or(0.0, |best| bench.utility[best]);
    let mut taste = Taste::new(Person::default(), ARMS, seed, |arm| Ok(bench.utility[arm]));
    let mut met = HashSet::new();
    let mut shared = Bandit::new(rules(Learner::Neural), embeddings.clone(), seed)?;
    for bit in 0..BITS {
        decide(&mut shared, &queries[bit % QUERIES], &mut taste, 1, &mut met)?;
    }
    let mut gains = vec![];
    for (query, arms) in queries.iter().enumerate() {
        let mut alone =
            Bandit::new(rules(Learner::Neural), embeddings.clone(), sub_seed(seed, &format!("{query}")))?;
        decide(&mut alone, arms, &mut taste, BITS / QUERIES, &mut met)?;
        gains.push(worth(shared.best(arms)?) - worth(alone.best(arms)?));
    }
    Ok(mean(&gains))
}

/// Tasks of a seed, candidates of a task, choices, lines that a candidate is tried on.
const TASKS: usize = 5;
const INSTRUCTIONS: usize = 200;
const CHOICES: usize = 80;
const LINES: usize = 20;

/// What a line of two words and two numbers, `river 7 stone 3`, is turned into, and two ways to ask for it.
const OPERATIONS: [[&str; 2]; 10] = [
    ["write the first word", "give the word that comes first"],
    ["write the second word", "give the other word, not the first"],
    ["write the first letter of the line", "give the letter that the line begins with"],
    ["add the two numbers", "give the sum of the numbers"],
    ["write the larger number", "give the maximum of the numbers"],
    ["write the smaller number", "give the minimum of the numbers"],
    ["subtract the second number from the first", "give the difference of the numbers"],
    ["write the words in alphabetical order", "sort the words"],
    ["count the letters of the first word", "give the length of the word that comes first"],
    ["write the two words in reverse", "give the words, the last one first"],
];

/// How it is asked for; the last of them makes the solver forget every other line.
const FRAMES: [&str; 5] = ["", "please ", "task: ", "for the line below, ", "maybe "];

/// In which manner: the first two change nothing.
const MANNERS: [&str; 6] =
    ["", ", nothing else", " in capital letters", " and say why", " twice", " if it is short"];

/// An instruction as the solver understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    frame: usize,
    operation: usize,
    phrase: usize,
    manner: usize,
}

impl Asked {
    fn text(self) -> String {
        let phrase = OPERATIONS[self.operation][self.phrase];
        format!("{}{phrase}{}", FRAMES[self.frame], MANNERS[self.manner])
    }

    fn all() -> Vec<Asked> {
        let mut all = vec![];
        for operation in 0..OPERATIONS.len() {
            for frame in 0..FRAMES.len() {
                for phrase in 0..2 {
                    all.extend((0..MANNERS.len()).map(|manner| Asked { frame, operation, phrase, manner }));
                }
            }
        }
        all
    }
}

fn done(operation: usize, (words, numbers): &([String; 2], [i64; 2])) -> String {
    let ([one, two], [a, b]) = (words, numbers);
    match operation {
        0 => one.clone(),
        1 => two.clone(),
        2 => one.chars().take(1).collect(),
        3 => (a + b).to_string(),
        4 => a.max(b).to_string(),
        5 => a.min(b).to_string(),
        6 => (a - b).to_string(),
        7 => format!("{} {}", one.min(two), one.max(two)),
        8 => one.chars().count().to_string(),
        _ => format!("{two} {one}"),
    }
}

/// What the solver makes of the line at this place.
fn solved(asked: Asked, at: usize, line: &([String; 2], [i64; 2])) -> String {
    if asked.frame + 1 == FRAMES.len() && at % 2 == 1 {
        return String::new();
    }
    let answer = done(asked.operation, line);
    match asked.manner {
        0 | 1 => answer,
        2 => answer.to_uppercase(),
        3 => format!("{answer} because of the line"),
        4 => format!("{answer} {answer}"),
        _ if answer.chars().count() <= 4 => answer,
        _ => String::new(),
    }
}

fn lines(rng: &mut impl Rng) -> Vec<([String; 2], [i64; 2])> {
    const WORDS: [&str; 12] =
        ["river", "sun", "stone", "oak", "cloud", "ant", "winter", "egg", "table", "ice", "music", "fox"];
    let word = |rng: &mut dyn rand::RngCore| WORDS[rng.random_range(0..WORDS.len())].to_string();
    (0..LINES)
        .map(|_| {
            let words = [word(rng), word(rng)];
            (words, [rng.random_range(1..20), rng.random_range(1..20)])
        })
        .collect()
}

/// Embeddings of instructions.
type Embeddings = HashMap<Asked, Vec<f32>>;

/// Embeddings of all instructions by the built-in model, made once.
fn instruction_embeddings() -> Result<Arc<Embeddings>> {
    static MADE: OnceLock<Mutex<Option<Arc<Embeddings>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = made.as_ref() {
        return Ok(made.clone());
    }
    let all = Asked::all();
    let texts: Vec<String> = all.iter().map(|asked| asked.text()).collect();
    let vectors = crate::tiny::policy()?.speaker()?.embed(&texts)?;
    let new = Arc::new(all.into_iter().zip(vectors).collect::<Embeddings>());
    *made = Some(new.clone());
    Ok(new)
}

/// Share of tasks whose instruction is among the best twentieth of the candidates, less that of random search.
pub(super) fn finds_good_instructions(seed: u64) -> Result<f64> {
    let embeddings = instruction_embeddings()?;
    let mut rng = rng(seed, "tasks");
    let mut tasks: Vec<usize> = (0..OPERATIONS.len()).collect();
    shuffle(&mut tasks, &mut rng);
    let mut gains = vec![];
    for &task in &tasks[..TASKS] {
        let mut asked = Asked::all();
        shuffle(&mut asked, &mut rng);
        asked.truncate(INSTRUCTIONS);
        let lines = lines(&mut rng);
        let accuracy = |asked: &Asked| {
            let right = |(at, line): (usize, &([String; 2], [i64; 2]))| {
                f64::from(u8::from(solved(*asked, at, line) == done(task, line)))
            };
            mean(&lines.iter().enumerate().map(right).collect::<Vec<_>>())
        };
        let worth: Vec<f64> = asked.iter().map(accuracy).collect();
        let mut sorted = worth.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let good = sorted[INSTRUCTIONS / 20 - 1];
        let all: Vec<usize> = (0..INSTRUCTIONS).collect();
        let of = |learner: Learner| -> Result<f64> {
            let features = asked.iter().map(|asked| embeddings.get(asked).cloned().unwrap_or_default());
            let mut bandit = Bandit::new(rules(learner), features.collect(), seed)?;
            let mut taste = Taste::new(Person::default(), INSTRUCTIONS, seed, |arm| Ok(worth[arm]));
            decide(&mut bandit, &all, &mut taste, CHOICES, &mut HashSet::new())?;
            Ok(f64::from(u8::from(bandit.best(&all)?.is_some_and(|best| worth[best] >= good))))
        };
        gains.push(of(Learner::Neural)? - of(Learner::Random)?);
    }
    Ok(mean(&gains))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solver_does_as_it_is_told() {
        let line = (["river".to_string(), "ant".to_string()], [7, 12]);
        let all = ["river", "ant", "r", "19", "12", "7", "-5", "ant river", "5", "ant river"];
        for (operation, want) in all.into_iter().enumerate() {
            assert_eq!(done(operation, &line), want);
        }
        let asked = Asked { frame: 4, operation: 0, phrase: 1, manner: 2 };
        assert_eq!(asked.text(), "maybe give the word that comes first in capital letters");
        assert_eq!((solved(asked, 0, &line), solved(asked, 1, &line)), ("RIVER".into(), String::new()));
        assert_eq!(Asked::all().iter().map(|asked| asked.text()).collect::<HashSet<_>>().len(), 600);
    }

    #[test]
    fn utilities_have_mean_0_and_deviation_1() {
        let bench = Bench::new(World::Curved, QUERIES, 3);
        assert!(mean(&bench.utility).abs() < 1e-9 && (standard_deviation(&bench.utility) - 1.0).abs() < 1e-9);
        assert!(groups(&bench.candidates).iter().all(|arms| arms.len() == ARMS / QUERIES));
    }
}
