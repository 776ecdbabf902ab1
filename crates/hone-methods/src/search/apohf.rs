//! Automated prompt optimisation with human feedback.

pub mod bandit;
pub mod candidates;
mod claims;
mod network;
pub mod people;
pub mod session;
pub mod tune;

use std::path::Path;

use hone_feedback::Record;
use hone_lm::LanguageModel;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{
    Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, not_negative, settings,
};
use crate::oracle::Oracle;
use crate::refine::{Answered, Attempt, Cost, Draw, judge};
use crate::templates::Templates;
use bandit::Rules;
use people::Taste;
use session::{Log, Shown, groups, search};

method! {
    /// Find the best prompt from choices alone: show two, learn who won, and show the two that tell most.
    /// # What it does
    /// A small network scores the embedding of every candidate; the chance that one is preferred to another is the logistic
    /// of the difference (Bradley-Terry-Luce). After `first_pairs` random pairs each round trains the network anew, from the
    /// same first weights, on all choices so far; shows the candidate with the highest score beside the one with the highest
    /// upper bound, its score plus `√(ν vᵀ V⁻¹ v)`, where `v` is how its gradient differs from the first one's and `V` sums
    /// such differences over past pairs; and takes the choice. The answer is the candidate with the highest score among
    /// those shown. `learner` and `second` give the baselines: a linear dueling bandit, double Thompson sampling, random
    /// pairs, no exploration (`nu = 0`), a random second.
    ///
    /// Prompts come from a list, a file, or a model that induces them from examples, rephrases one, or changes some of its
    /// sentences. With `over = "responses"` the candidates are responses to several records, which take turns and share one
    /// network. `hone prompt tune` asks a person at the terminal or simulated people, over a model folder or an endpoint,
    /// and goes on where it stopped; texts that stand for images bring their own embeddings and what is shown in a file. As a
    /// step of a run the person is simulated: an exact oracle's verdicts, on records that nothing is measured on, give each
    /// prompt its utility.
    /// # Feedback
    /// Which of two is better, and nothing else. A tie or a skipped pair gives no bit and is not shown again; both stand in
    /// the log, one record a pair, as comparisons and tied rankings on the answers that were shown.
    /// # Departs from the paper
    /// All of `V` is used, as in the paper's text, by inner products of gradients that are never written out; the released
    /// code keeps its diagonal (`variance = "diagonal"`). The penalty is the code's decay, `λ / (choices + 50)`: the
    /// text's `λ ‖θ‖²` (`penalty = "loss"`) at λ = 0.1 holds the network near 0. Utilities are scaled to a deviation of 10 in
    /// every mode, as the image and response scripts do; the instruction script leaves raw accuracies, by which a perfect
    /// prompt beats a useless one only 73 times of 100. Embeddings are the answering model's own unless another is named.
    /// The favourite stands left or right by a coin, so that people cannot learn its place. Double Thompson sampling reports
    /// by the mean of its networks. The linear bandit starts at 0 and has the same penalty.
    /// # Claim
    /// Of 200 candidates with embeddings of 32 numbers and utility `a·x + cos(3 b·x)`, with 30 training steps at a rate of
    /// 3e-2; means and 95 % intervals over five seeds of three benches each, in deviations of the utility. After 150 choices
    /// APOHF is ahead of random search, +1.73 ± 0.87 (`claim_beats_random`), and of double Thompson sampling, +0.73 ± 0.42
    /// (`claim_beats_double_thompson`); the linear bandit is ahead of the better of both, +0.67 ± 0.37
    /// (`claim_linear_comes_second`). On the way exploration gives +0.75 ± 0.24 (`claim_exploration_helps`), bounds instead of a
    /// random second +0.26 ± 0.19 (`claim_bounds_beat_chance`). One network for ten queries: +0.060 ± 0.053
    /// (`claim_sharing_helps`). Among 200 instructions for a solver of fixed rules, embedded by the built-in model, 80 choices
    /// find one of the ten best in 0.80 ± 0.18 more of the tasks than random search (`claim_finds_good_instructions`).
    ///
    /// Not shown: a lead over the linear bandit, +0.06 ± 0.22 (`claim_beats_linear`), which finds the same candidate in most
    /// benches, as with the utilities `(a·x)(1 + b·x)` and `(a·x)²` that were tried first; its lead where the utility is
    /// linear, +0.01 ± 0.15 (`claim_linear_wins_where_it_fits`); pairs that never met ordered better with more choices,
    /// +0.014 ± 0.016 (`claim_preferences_get_better`), since choices gather round the best; and what a magnitude of 1 costs,
    /// +0.34 ± 0.36 (`claim_noise_slows`). At that magnitude the linear bandit is ahead, by 1.40 ± 0.87
    /// (`claim_ranking_survives_noise`): a network of 2,000 weights learns 150 noisy choices by heart.
    /// # Source
    /// Lin, Dai, Verma, Ng, Jaillet, Low, arXiv:2405.17346; code xqlin98/APOHF (MIT), read and not copied.
    pub static APOHF: Method = Method {
        id: "apohf", name: "APOHF", family: Family::Search, needs: Needs::Checks, makes: Makes::Answers, settings: Apohf,
        claims: &[
            Claim {
                name: "claim_beats_linear",
                says: "Where the utility is curved, it ends with a better prompt than a linear dueling bandit.",
                metric: "utility of the reported candidate after 150 choices, in deviations",
                baseline: "linear dueling bandit, same choices",
                effect: claims::beats_linear,
            },
            Claim {
                name: "claim_beats_double_thompson",
                says: "Where the utility is curved, it ends with a better prompt than double Thompson sampling.",
                metric: "utility of the reported candidate after 150 choices, in deviations",
                baseline: "double Thompson sampling, 10 networks, same choices",
                effect: claims::beats_double_thompson,
            },
            Claim {
                name: "claim_beats_random",
                says: "It ends with a better prompt than random search.",
                metric: "utility of the reported candidate after 150 choices, in deviations",
                baseline: "random pairs, the last winner",
                effect: claims::beats_random,
            },
            Claim {
                name: "claim_linear_comes_second",
                says: "The linear dueling bandit ends above double Thompson sampling and random search.",
                metric: "utility of the linear bandit's candidate after 150 choices, in deviations",
                baseline: "the better of double Thompson sampling and random search",
                effect: claims::linear_comes_second,
            },
            Claim {
                name: "claim_linear_wins_where_it_fits",
                says: "Where the utility is linear, the linear bandit is ahead.",
                metric: "utility of the linear bandit's candidate, mean after 25, 50 and 150 choices, in deviations",
                baseline: "APOHF, same choices",
                effect: claims::linear_wins_where_it_fits,
            },
            Claim {
                name: "claim_exploration_helps",
                says: "The uncertainty in the choice of the second matters.",
                metric: "utility of the reported candidate, mean after 25, 50 and 150 choices, in deviations",
                baseline: "nu = 0: the two highest scores",
                effect: claims::exploration_helps,
            },
            Claim {
                name: "claim_bounds_beat_chance",
                says: "A second chosen by its upper bound tells more than a random one.",
                metric: "utility of the reported candidate, mean after 25, 50 and 150 choices, in deviations",
                baseline: "a random second",
                effect: claims::bounds_beat_chance,
            },
            Claim {
                name: "claim_finds_good_instructions",
                says: "Among 200 instructions for a solver of fixed rules, 80 choices find one of the best twentieth.",
                metric: "share of five tasks in which the reported instruction is among the best 10",
                baseline: "random search, same choices",
                effect: claims::finds_good_instructions,
            },
            Claim {
                name: "claim_noise_slows",
                says: "Choices that follow the utility less closely slow both learners.",
                metric: "utility of the reported candidate at magnitude 10, mean after 25, 50 and 150 choices; the smaller gain of APOHF's and the linear bandit's",
                baseline: "magnitude 1",
                effect: claims::noise_slows,
            },
            Claim {
                name: "claim_ranking_survives_noise",
                says: "At magnitude 1 it is still ahead of the linear bandit.",
                metric: "utility of the reported candidate after 150 choices at magnitude 1, in deviations",
                baseline: "linear dueling bandit, same choices",
                effect: claims::ranking_survives_noise,
            },
            Claim {
                name: "claim_sharing_helps",
                says: "One network for ten queries picks better responses than one for each.",
                metric: "utility of the reported responses, mean over the queries, after 150 choices in all, in deviations",
                baseline: "a network of its own for each query, 15 choices each",
                effect: claims::sharing_helps,
            },
            Claim {
                name: "claim_preferences_get_better",
                says: "The order that the network has learnt becomes more often right for pairs that never met.",
                metric: "share of held-out pairs ordered right after 150 choices",
                baseline: "after 25 choices",
                effect: claims::preferences_get_better,
            },
        ],
        run,
    };
}

/// Who learns which candidate is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learner {
    /// A network, the method itself.
    Neural,
    /// A linear dueling bandit: scores and uncertainties from the embeddings alone.
    Linear,
    /// Double Thompson sampling with an ensemble.
    DoubleThompson,
    /// Nobody: random pairs, and the last winner is reported.
    Random,
}

/// How the second of a pair is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Second {
    /// By the upper confidence bound of its lead over the first.
    Ucb,
    /// At random.
    Random,
}

/// The penalty on the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// Adam's weight decay of `lambda / (duels + 50)`, as in the released code.
    Decay,
    /// `lambda ‖θ‖²` in the loss, as in the paper's text.
    Loss,
}

/// How much of the matrix of past gradients is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variance {
    /// All of it, as in the paper.
    Full,
    /// Its diagonal, as in the released code.
    Diagonal,
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// One prompt for all records.
    Prompts,
    /// A response for each of several records, by one shared network.
    Responses,
}

/// How a model writes candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writing {
    /// Instructions that examples may have followed.
    Induction,
    /// `start` in other words.
    Rephrasing,
    /// `start` with some of its sentences changed.
    Variation,
}

/// The simulated person.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Person {
    /// Utilities are scaled to this standard deviation, at least 0.
    pub magnitude: f64,
    /// Divides the difference of utilities, above 0.
    pub temperature: f64,
    /// Always choose the better one, instead of drawing the choice.
    pub certain: bool,
}

impl Default for Person {
    fn default() -> Person {
        Person { magnitude: 10.0, temperature: 1.0, certain: false }
    }
}

/// Settings of APOHF. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apohf {
    /// What is searched.
    pub over: Over,
    /// Who learns.
    pub learner: Learner,
    /// How the second of a pair is chosen.
    pub second: Second,
    /// Choices in all, those between the first pairs included.
    pub rounds: usize,
    /// Random pairs that are decided before anything is learnt, at least 1.
    pub first_pairs: usize,
    /// Weight of the uncertainty, inside the root, at least 0.
    pub nu: f64,
    /// Weight of the penalty, and of the identity in the uncertainty's matrix; above 0.
    pub lambda: f64,
    /// Which penalty.
    pub penalty: Penalty,
    /// How much of the uncertainty's matrix is kept.
    pub variance: Variance,
    /// Units of a hidden layer, at least 1.
    pub hidden: usize,
    /// Hidden layers.
    pub layers: usize,
    /// Networks of double Thompson sampling, at least 1.
    pub heads: usize,
    /// Adam's rate.
    pub learning_rate: f64,
    /// Steps of every training, each from the first weights.
    pub steps: usize,
    /// Prompts: candidates that a model writes.
    pub candidates: usize,
    /// Prompts: the candidates themselves, instead.
    pub prompts: Vec<String>,
    /// Prompts: file of candidates, one a line, as text or as JSON with `text`, `embedding` and `show`; instead.
    pub file: String,
    /// How a model writes them.
    pub writing: Writing,
    /// What is rephrased or varied, and what the result is compared with; empty for the records' own prompts.
    pub start: String,
    /// Induction: examples that each candidate is induced from.
    pub demonstrations: usize,
    /// Responses: records that take part.
    pub queries: usize,
    /// Responses: answers to each record that has fewer than two.
    pub responses: usize,
    /// Questions that a simulated person judges a prompt by, at most.
    pub validation: usize,
    /// Questions that the result is measured on, at most.
    pub test: usize,
    /// The simulated person.
    pub person: Person,
    /// How an instruction is put before a question: a Jinja template over `instruction` and `input`.
    pub apply: String,
    /// What is asked for induction: a template over `pairs` of `input` and `output`.
    pub induce: String,
    /// What is asked for rephrasing: a template over `start`.
    pub rephrase: String,
    /// What is asked for variation: a template over `start` and `sentences`.
    pub vary: String,
    /// How candidates are sampled. Paper: temperature 0.5 for induction, 1 for rephrasing.
    pub write: Draw,
    /// How answers under a prompt are sampled.
    pub draw: Draw,
}

impl Default for Apohf {
    fn default() -> Apohf {
        Apohf {
            over: Over::Prompts,
            learner: Learner::Neural,
            second: Second::Ucb,
            rounds: 150,
            first_pairs: 5,
            nu: 1.0,
            lambda: 0.1,
            penalty: Penalty::Decay,
            variance: Variance::Full,
            hidden: 32,
            layers: 2,
            heads: 10,
            learning_rate: 1e-3,
            steps: 1000,
            candidates: 200,
            prompts: vec![],
            file: String::new(),
            writing: Writing::Induction,
            start: String::new(),
            demonstrations: 5,
            queries: 10,
            responses: 50,
            validation: 20,
            test: 100,
            person: Person::default(),
            apply: "{{ instruction }}\n\n{{ input }}".into(),
            induce: include_str!("prompts/apohf_induce.jinja").into(),
            rephrase: include_str!("prompts/apohf_rephrase.jinja").into(),
            vary: include_str!("prompts/apohf_vary.jinja").into(),
            write: Draw { temperature: 0.5, ..Draw::default() },
            draw: Draw { temperature: 0.0, ..Draw::default() },
        }
    }
}

impl Apohf {
    /// The part that the learner sees.
    pub fn rules(&self) -> Rules {
        Rules {
            learner: self.learner,
            second: self.second,
            first_pairs: self.first_pairs,
            nu: self.nu,
            lambda: self.lambda,
            penalty: self.penalty,
            variance: self.variance,
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            learning_rate: self.learning_rate,
            steps: self.steps,
        }
    }

    /// The words that models are asked with.
    ///
    /// # Errors
    /// [`Error::Settings`] naming the first that is no template.
    pub fn templates(&self) -> Result<Templates<'_>> {
        let sources = [
            ("apply", self.apply.as_str()),
            ("induce", self.induce.as_str()),
            ("rephrase", self.rephrase.as_str()),
            ("vary", self.vary.as_str()),
        ];
        Templates::new("apohf", &sources)
    }
}

impl Settings for Apohf {
    fn check(&self) -> Result<()> {
        for (key, value, least) in [
            ("rounds", self.rounds, 1),
            ("first_pairs", self.first_pairs, 1),
            ("hidden", self.hidden, 1),
            ("heads", self.heads, 1),
            ("candidates", self.candidates, 2),
            ("demonstrations", self.demonstrations, 1),
            ("queries", self.queries, 1),
            ("responses", self.responses, 2),
            ("validation", self.validation, 1),
            ("test", self.test, 1),
        ] {
            if value < least {
                return Err(Error::range("apohf", key, &format!("at least {least}"), value));
            }
        }
        not_negative("apohf", "nu", self.nu)?;
        above_zero("apohf", "lambda", self.lambda)?;
        above_zero("apohf", "learning_rate", self.learning_rate)?;
        not_negative("apohf", "person.magnitude", self.person.magnitude)?;
        above_zero("apohf", "person.temperature", self.person.temperature)?;
        let listed = !self.prompts.is_empty() || !self.file.is_empty();
        let starts = self.writing != Writing::Induction && !listed && self.over == Over::Prompts;
        if starts && self.start.trim().is_empty() {
            return Err(Error::range("apohf", "start", "a text to write candidates from", "an empty one"));
        }
        self.templates()?;
        self.write.check("apohf")?;
        self.draw.check("apohf")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Apohf = settings("apohf", job.settings)?;
    let Some(oracle) = job.oracle else {
        let (needed, got) = ("prompts whose answers can be checked", "records without a task or tests");
        return Err(Error::Data { method: "apohf".into(), needed: needed.into(), got: got.into() });
    };
    let model = job.policy.speaker()?;
    let mut records = job.records.to_vec();
    shuffle(&mut records, &mut rng(job.seed, "records"));
    let folder = job.session.folder.as_deref();
    let mut log = match folder {
        Some(folder) => Log::open(&folder.join(DUELS), job.session.resume)?,
        None => Log::memory(),
    };
    let answered = match own.over {
        Over::Prompts => tuned(&model, &own, &records, oracle, folder, &mut log, job.seed)?,
        Over::Responses => chosen(&model, &own, &records, oracle, folder, &mut log, job.seed)?,
    };
    // They were shuffled; what is handed back counts in the order that came.
    let place = |record: &Record| job.records.iter().position(|one| one.id == record.id).unwrap_or(0);
    let back = |one: Answered| Answered { record: records.get(one.record).map_or(0, place), ..one };
    Ok(Product::Answers(answered.into_iter().map(back).collect()))
}

/// Files of a search in its folder: the choices, the candidates with their embeddings, the prompt that was found.
pub const DUELS: &str = "duels.jsonl";
/// As above.
pub const CANDIDATES: &str = "candidates.jsonl";
/// As above.
pub const PROMPT: &str = "prompt.txt";

/// Finds a prompt by a simulated person who prefers right answers on some records, and answers others with it and with what
/// was there before.
fn tuned(
    model: &dyn LanguageModel,
    own: &Apohf,
    records: &[Record],
    oracle: &dyn Oracle,
    folder: Option<&Path>,
    log: &mut Log,
    seed: u64,
) -> Result<Vec<Answered>> {
    // Examples, questions to judge by, and questions to measure on have no record in common.
    let shown = own.demonstrations.min(records.len() / 3);
    let judged = own.validation.min(records.len() / 3);
    let end = records.len().min(shown + judged + own.test);
    if judged == 0 {
        let needed = "at least 3 records: to learn from, to judge by and to measure on".into();
        return Err(Error::Data { method: "apohf".into(), needed, got: records.len().to_string() });
    }
    let examples = candidates::examples(&records[..shown], Some(oracle))?;
    let kept = folder.map(|folder| folder.join(CANDIDATES));
    let candidates =
        tune::prompts(model, model, own, &examples, kept.as_deref(), sub_seed(seed, "candidates"))?;
    let questions: Vec<usize> = (shown..shown + judged).collect();
    let mut answers = tune::Answers::new(model, own, records, sub_seed(seed, "answers"))?;
    let mut bandit = tune::bandit(own, &candidates, sub_seed(seed, "bandit"))?;
    let found = {
        let accuracy = |arm: usize| answers.accuracy(&candidates[arm].text, &questions, oracle);
        let mut taste = Taste::new(own.person, candidates.len(), sub_seed(seed, "person"), accuracy);
        // Judged by all questions at once, whose answers need not be shown.
        let mut show = |_, arms: [usize; 2]| Ok(tune::plain(arms.map(|arm| &candidates[arm])));
        search(&mut bandit, &candidates, own.rounds, sub_seed(seed, "sides"), log, &mut show, &mut taste)?
    };
    let prompt = found.best.first().copied().flatten().map_or("", |arm| candidates[arm].text.as_str());
    if let Some(folder) = folder {
        crate::improve::write_whole(&folder.join(PROMPT), prompt)?;
    }
    let tests: Vec<usize> = (shown + judged..end).collect();
    let searched = answers.cost;
    let before = answers.to(own.start.trim(), &tests)?;
    let other = answers.cost;
    let after = answers.to(prompt, &tests)?;
    // What the search has cost falls on all answers alike; what only serves the comparison does not count.
    let part = |whole: u64| whole.div_ceil(tests.len().max(1) as u64);
    let cost = Cost {
        calls: part(searched.calls + answers.cost.calls - other.calls),
        tokens: part(searched.tokens + answers.cost.tokens - other.tokens),
    };
    let one = |((&record, before), after): ((&usize, String), String)| {
        let attempt = |text| Attempt { text, critique: None, score: None };
        Answered {
            record,
            attempts: vec![attempt(before), attempt(after)],
            chosen: 1,
            cost,
            by_oracle: false,
        }
    };
    Ok(tests.iter().zip(before).zip(after).map(one).collect())
}

/// Finds a response to each of some records by a simulated person who prefers high scores of the oracle.
fn chosen(
    model: &dyn LanguageModel,
    own: &Apohf,
    records: &[Record],
    oracle: &dyn Oracle,
    folder: Option<&Path>,
    log: &mut Log,
    seed: u64,
) -> Result<Vec<Answered>> {
    let records = &records[..records.len().min(own.queries)];
    let kept = folder.map(|folder| folder.join(CANDIDATES));
    let candidates =
        tune::responses(model, model, own, records, kept.as_deref(), sub_seed(seed, "candidates"))?;
    let mut bandit = tune::bandit(own, &candidates, sub_seed(seed, "bandit"))?;
    let score = |arm: usize| {
        let candidate = &candidates[arm];
        Ok(judge("apohf", Some(oracle), &records[candidate.group], &candidate.text)?.score)
    };
    let mut taste = Taste::new(own.person, candidates.len(), sub_seed(seed, "person"), score);
    let mut show = |_, arms: [usize; 2]| {
        let group = candidates[arms[0]].group;
        let question = Some((group, records[group].prompt.text().into_owned()));
        Ok(Shown { question, texts: arms.map(|arm| candidates[arm].text.clone()) })
    };
    let found =
        search(&mut bandit, &candidates, own.rounds, sub_seed(seed, "sides"), log, &mut show, &mut taste)?;
    let one = |(record, (arms, best)): (usize, (Vec<usize>, Option<usize>))| {
        let attempts: Vec<Attempt> = arms
            .iter()
            .map(|&arm| Attempt { text: candidates[arm].text.clone(), critique: None, score: None })
            .collect();
        let chosen = best.and_then(|best| arms.iter().position(|&arm| arm == best)).unwrap_or(0);
        let words = |a: &Attempt| a.text.split_whitespace().count() as u64;
        let cost = Cost { calls: attempts.len() as u64, tokens: attempts.iter().map(words).sum() };
        // The person prefers by the oracle's scores.
        Answered { record, attempts, chosen, cost, by_oracle: true }
    };
    Ok(groups(&candidates).into_iter().zip(found.best).enumerate().map(one).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::bench::{self, Bench};
    use crate::train::Session;

    fn table(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    const QUICK: &str = "rounds = 8\nsteps = 5\nfirst_pairs = 3\n";

    #[test]
    fn a_prompt_is_found_and_compared_with_none() {
        let bench = Bench::new(1).unwrap();
        let records = bench.records(12, 0, "asked");
        let own = "prompts = [\"w1\", \"w2\", \"w3 w4\", \"w5\", \"w1\"]\nvalidation = 3\ntest = 5\n[draw]\nmax_tokens = 8";
        let settings = table(&format!("{QUICK}demonstrations = 2\n{own}"));
        let folder = tempfile::tempdir().unwrap();
        let go = |resume| {
            let session = Session { folder: Some(folder.path().into()), resume, ..Session::default() };
            run(Job { session, ..bench.job(&records, &settings).unwrap() }).unwrap().answers().unwrap()
        };
        let answers = go(false);
        assert_eq!(answers.len(), 5);
        assert_eq!(answers.iter().map(|answer| answer.record).collect::<HashSet<_>>().len(), 5);
        for answer in &answers {
            assert_eq!((answer.attempts.len(), answer.chosen, answer.by_oracle), (2, 1, false));
            // At most 4 candidates on 3 questions and 5 answers, spread over 5.
            assert!((2..=4).contains(&answer.cost.calls), "{:?}", answer.cost);
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read(DUELS).lines().count(), read(CANDIDATES).lines().count()), (8, 4));
        let prompt = read(PROMPT);
        assert!(["w1", "w2", "w3 w4", "w5"].contains(&prompt.as_str()), "{prompt}");
        let again = go(true);
        assert_eq!(read(PROMPT), prompt);
        let texts = |answers: &[Answered]| answers.iter().map(|a| a.text().to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(&again), texts(&answers));
    }

    #[test]
    fn responses_are_chosen_for_each_record() {
        let bench = Bench::new(2).unwrap();
        let records = [bench.records(2, 5, "given"), bench.records(1, 0, "asked")].concat();
        let own = "over = \"responses\"\nresponses = 4\n[person]\ncertain = true\n[write]\ntemperature = 1.0\nmax_tokens = 8";
        let settings = table(&format!("{QUICK}rounds = 30\n{own}").replacen("rounds = 8\n", "", 1));
        let answers = run(bench.job(&records, &settings).unwrap()).unwrap().answers().unwrap();
        assert_eq!(answers.len(), 3);
        let mut gain = 0.0;
        for answer in &answers {
            let worth: Vec<f64> = answer.attempts.iter().map(|a| bench.utility(&a.text)).collect();
            assert!(answer.by_oracle && worth.len() >= 2);
            gain += worth[answer.chosen] - hone_feedback::metrics::mean(&worth);
        }
        // Somebody who is certain has decided ten pairs of at most ten for each record.
        assert!(gain > 0.0, "{gain}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let bench = Bench::new(1).unwrap();
        let refused = |records: &[Record], own: &str, oracle: bool| {
            let settings = table(own);
            let job = bench.job(records, &settings).unwrap();
            let job = if oracle { job } else { Job { oracle: None, ..job } };
            run(job).unwrap_err().to_string()
        };
        let records = bench.records(2, 0, "asked");
        let said = refused(&records, "prompts = [\"a\", \"b\"]", false);
        assert!(said.contains("needs prompts whose answers can be checked"), "{said}");
        assert!(refused(&records, "prompts = [\"a\", \"b\"]", true).contains("at least 3 records"));
        let more = bench.records(9, 0, "asked");
        assert!(
            refused(&more, "", true).contains("records with answers to induce"),
            "{}",
            refused(&more, "", true)
        );
        for (own, words) in [
            ("writing = \"rephrasing\"", "`start`: needs a text to write candidates from"),
            ("lambda = 0.0", "`lambda`: needs a finite number above 0"),
            ("first_pairs = 0", "`first_pairs`: needs at least 1, got 0"),
            ("apply = \"{{ \"", "`apply`: syntax error"),
            ("[person]\ntemperature = 0", "`person.temperature`"),
        ] {
            let said = (APOHF.check)(&table(own)).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn claim_beats_linear() {
        bench::assert_measured(claims::beats_linear, -0.2..0.35);
    }

    #[test]
    fn claim_beats_double_thompson() {
        bench::assert_holds(claims::beats_double_thompson, 5);
    }

    #[test]
    fn claim_beats_random() {
        bench::assert_holds(claims::beats_random, 5);
    }

    #[test]
    fn claim_linear_comes_second() {
        bench::assert_holds(claims::linear_comes_second, 5);
    }

    #[test]
    fn claim_linear_wins_where_it_fits() {
        bench::assert_measured(claims::linear_wins_where_it_fits, -0.2..0.25);
    }

    #[test]
    fn claim_exploration_helps() {
        bench::assert_holds(claims::exploration_helps, 5);
    }

    #[test]
    fn claim_bounds_beat_chance() {
        bench::assert_holds(claims::bounds_beat_chance, 5);
    }

    #[test]
    fn claim_finds_good_instructions() {
        bench::assert_holds(claims::finds_good_instructions, 5);
    }

    #[test]
    fn claim_noise_slows() {
        bench::assert_measured(claims::noise_slows, 0.0..0.75);
    }

    #[test]
    fn claim_ranking_survives_noise() {
        bench::assert_measured(claims::ranking_survives_noise, -2.4..-0.3);
    }

    #[test]
    fn claim_sharing_helps() {
        bench::assert_holds(claims::sharing_helps, 5);
    }

    #[test]
    fn claim_preferences_get_better() {
        bench::assert_measured(claims::preferences_get_better, -0.02..0.05);
    }
}
