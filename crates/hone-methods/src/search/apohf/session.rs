//! A search as people meet it: pairs are shown, choices are kept as feedback, and an interrupted search goes on.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use hone_feedback::{Feedback, Form, Record, Response};
use hone_nn::train::seed::rng;
use rand::Rng;
use serde_json::Value;

use super::bandit::Bandit;
use super::candidates::Candidate;
use crate::error::{Error, Result};

/// Fields of a duel's record that say which candidates met.
const CANDIDATE: &str = "candidate";
const GROUP: &str = "group";

/// What somebody says of two things shown side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The left one is better.
    Left,
    /// The right one is better.
    Right,
    /// Neither.
    Tie,
    /// Nothing.
    Skip,
    /// That it is enough.
    Quit,
}

/// Two candidates side by side.
#[derive(Debug, Clone, Copy)]
pub struct Meeting<'a> {
    /// Pairs shown before this one.
    pub asked: usize,
    /// Choices made so far, and how many there will be.
    pub bits: usize,
    /// As above.
    pub rounds: usize,
    /// Index of the left and the right candidate.
    pub arms: [usize; 2],
    /// What both answer; `None` where prompts themselves are shown.
    pub question: Option<&'a str>,
    /// Index of the question.
    pub record: Option<usize>,
    /// What is shown of the left and the right one.
    pub texts: [&'a str; 2],
    /// The candidate that is held to be the best of those shown, if any was.
    pub best: Option<usize>,
}

/// Somebody who chooses.
pub trait Chooser {
    /// Who it is, as the log says.
    fn name(&self) -> String;

    /// What it says of a pair.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn choose(&mut self, meeting: &Meeting<'_>) -> Result<Said>;
}

/// What is shown of two candidates.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The question, and its index.
    pub question: Option<(usize, String)>,
    /// Left and right.
    pub texts: [String; 2],
}

/// Where choices are kept: one record a line, as every feedback log has them.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<(File, PathBuf)>,
    old: Vec<Record>,
}

impl Log {
    /// Keeps nothing.
    pub fn memory() -> Log {
        Log::default()
    }

    /// Appends to `path`. What is there already is told to the learner first; a last line that was cut off is dropped.
    ///
    /// # Errors
    /// [`Error::File`] if there are choices and `resume` is not set, or for a line that is no record; [`Error::Io`].
    pub fn open(path: &Path, resume: bool) -> Result<Log> {
        let fault = |problem: String| Error::File { path: path.display().to_string(), problem };
        let mut old = vec![];
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
            if !resume && !text.trim().is_empty() {
                return Err(fault("choices are here already; go on with --resume".into()));
            }
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            for (number, line) in whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let record = Record::from_json(line.as_bytes());
                old.push(record.map_err(|e| fault(format!("line {}: {e}", number + 1)))?);
            }
            if whole.len() < text.len() {
                crate::improve::write_whole(path, whole)?;
            }
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        Ok(Log { file: Some((file, path.to_path_buf())), old })
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        if let Some((file, path)) = &mut self.file {
            file.write_all((record.to_json() + "\n").as_bytes()).map_err(Error::io(path))?;
        }
        Ok(())
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The best candidate of each group among those shown; `None` where nothing was decided.
    pub best: Vec<Option<usize>>,
    /// Choices made, those of earlier runs included.
    pub bits: usize,
    /// Pairs shown on which nobody decided.
    pub passed: usize,
    /// Whether somebody said that it is enough.
    pub quit: bool,
}

/// Shows pairs until `rounds` were decided, nothing is left to ask, or it is enough. Groups take turns. `show` says what
/// is shown of two candidates, given the number of pairs before.
///
/// # Errors
/// Those of the learner, of what is shown, of who chooses, and of the log; [`Error::File`] for a choice in the log between
/// candidates that are not here.
pub fn search(
    bandit: &mut Bandit,
    candidates: &[Candidate],
    rounds: usize,
    seed: u64,
    log: &mut Log,
    show: &mut dyn FnMut(usize, [usize; 2]) -> Result<Shown>,
    chooser: &mut dyn Chooser,
) -> Result<Found> {
    let groups = groups(candidates);
    replay(bandit, candidates, log)?;
    let mut quit = false;
    'rounds: while bandit.bits() < rounds && !quit {
        let asked = bandit.asked();
        let mut next = None;
        let mut arms: &[usize] = &[];
        for turn in 0..groups.len() {
            arms = &groups[(asked + turn) % groups.len()];
            next = bandit.propose(arms)?;
            if next.is_some() {
                break;
            }
        }
        let Some((first, second)) = next else { break 'rounds };
        // The learner's favourite stands first: people are not to learn where it is.
        let swap = rng(seed, &format!("side {asked}")).random_bool(0.5);
        let [left, right] = if swap { [second, first] } else { [first, second] };
        let shown = show(asked, [left, right])?;
        let best = bandit.best(arms)?;
        let said = chooser.choose(&Meeting {
            asked,
            bits: bandit.bits(),
            rounds,
            arms: [left, right],
            question: shown.question.as_ref().map(|(_, text)| text.as_str()),
            record: shown.question.as_ref().map(|(index, _)| *index),
            texts: [&shown.texts[0], &shown.texts[1]],
            best,
        })?;
        match said {
            Said::Quit => {
                quit = true;
                continue;
            }
            Said::Left => bandit.tell(left, right),
            Said::Right => bandit.tell(right, left),
            Said::Tie | Said::Skip => bandit.pass(left, right),
        }
        log.put(&record(asked, [&candidates[left], &candidates[right]], shown, said, chooser.name()))?;
    }
    let best = groups.iter().map(|arms| bandit.best(arms)).collect::<Result<_>>()?;
    let (bits, passed) = (bandit.bits(), bandit.asked() - bandit.bits());
    Ok(Found { best, bits, passed, quit })
}

/// Indices of the candidates of each group.
pub fn groups(candidates: &[Candidate]) -> Vec<Vec<usize>> {
    let most = candidates.iter().map(|c| c.group + 1).max().unwrap_or(0);
    let mut groups = vec![vec![]; most];
    for (index, candidate) in candidates.iter().enumerate() {
        groups[candidate.group].push(index);
    }
    groups
}

/// One choice as feedback on what was shown.
fn record(asked: usize, candidates: [&Candidate; 2], shown: Shown, said: Said, by: String) -> Record {
    let question = shown.question.map_or_else(|| "Which prompt is better?".to_owned(), |(_, text)| text);
    let mut record = Record::new(format!("duel-{asked}"), question);
    for ((id, text), candidate) in ["left", "right"].into_iter().zip(shown.texts).zip(candidates) {
        let mut response = Response::new(id, text);
        response.extra.insert(CANDIDATE.into(), candidate.text.clone().into());
        record.responses.push(response);
    }
    record.extra.insert(GROUP.into(), candidates[0].group.into());
    let form = match said {
        Said::Left => Form::Comparison { better: "left".into(), worse: "right".into() },
        Said::Right => Form::Comparison { better: "right".into(), worse: "left".into() },
        Said::Tie => Form::Ranking { order: vec![vec!["left".into(), "right".into()]] },
        // Nothing was said.
        Said::Skip | Said::Quit => return record,
    };
    record.say(Feedback { by: Some(by), ..form.into() })
}

/// Tells the learner what an earlier run was told.
fn replay(bandit: &mut Bandit, candidates: &[Candidate], log: &Log) -> Result<()> {
    let known: HashMap<(usize, &str), usize> =
        candidates.iter().enumerate().map(|(index, c)| ((c.group, c.text.as_str()), index)).collect();
    for old in &log.old {
        let path = log.file.as_ref().map_or_else(String::new, |(_, path)| path.display().to_string());
        let fault = |problem: &str| Error::File {
            path: path.clone(),
            problem: format!("record {}: {problem}", old.id),
        };
        let group =
            old.extra.get(GROUP).and_then(Value::as_u64).and_then(|group| usize::try_from(group).ok());
        let arm = |id: &str| {
            let text = old.response(id)?.extra.get(CANDIDATE)?.as_str()?;
            known.get(&(group?, text)).copied()
        };
        let (Some(left), Some(right)) = (arm("left"), arm("right")) else {
            return Err(fault("needs two of the candidates here, got others"));
        };
        match old.feedback.first().map(|item| &item.form) {
            Some(Form::Comparison { better, .. }) if better == "left" => bandit.tell(left, right),
            Some(Form::Comparison { better, .. }) if better == "right" => bandit.tell(right, left),
            Some(Form::Ranking { .. }) | None => bandit.pass(left, right),
            Some(_) => return Err(fault("needs a comparison, a tie or nothing")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::apohf::Apohf;
    use crate::search::apohf::bandit::Rules;

    /// Says what a list says, then that it is enough; keeps what was shown.
    struct Scripted(Vec<Said>, Vec<[String; 2]>);

    impl Chooser for Scripted {
        fn name(&self) -> String {
            "script".into()
        }

        fn choose(&mut self, meeting: &Meeting<'_>) -> Result<Said> {
            self.1.push(meeting.texts.map(str::to_owned));
            Ok(if self.0.is_empty() { Said::Quit } else { self.0.remove(0) })
        }
    }

    fn candidates(groups: usize) -> Vec<Candidate> {
        let of = |at: usize| {
            let (a, b) = ((at as f32).cos(), (at as f32).sin());
            Candidate { embedding: vec![a, b], ..Candidate::new(format!("p{at}"), at % groups) }
        };
        (0..12).map(of).collect()
    }

    fn run(
        candidates: &[Candidate],
        rounds: usize,
        log: &mut Log,
        said: Vec<Said>,
    ) -> (Found, Vec<[String; 2]>) {
        let rules = Rules { steps: 5, first_pairs: 3, ..Apohf::default().rules() };
        let embeddings = candidates.iter().map(|c| c.embedding.clone()).collect();
        let mut bandit = Bandit::new(rules, embeddings, 4).unwrap();
        let mut show = |_, arms: [usize; 2]| {
            let texts = arms.map(|arm| candidates[arm].text.clone());
            Ok(Shown { question: None, texts })
        };
        let mut script = Scripted(said, vec![]);
        let found = search(&mut bandit, candidates, rounds, 4, log, &mut show, &mut script).unwrap();
        (found, script.1)
    }

    const CHOICES: [Said; 8] =
        [Said::Left, Said::Tie, Said::Right, Said::Skip, Said::Left, Said::Left, Said::Right, Said::Left];

    #[test]
    fn an_interrupted_search_goes_on_as_if_it_had_not_been() {
        let candidates = candidates(1);
        let (whole, shown) = run(&candidates, 6, &mut Log::memory(), CHOICES.to_vec());
        assert_eq!((whole.bits, whole.passed, whole.quit), (6, 2, false));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("duels.jsonl");
        let (first, before) =
            run(&candidates, 6, &mut Log::open(&path, false).unwrap(), CHOICES[..5].to_vec());
        assert!(first.quit && first.bits == 3);
        // Without what was shown when it was enough, and with a line that was cut off.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"id\":\"duel")).unwrap();
        let refused = Log::open(&path, false).unwrap_err().to_string();
        assert!(refused.ends_with("choices are here already; go on with --resume"), "{refused}");
        let (rest, after) = run(&candidates, 6, &mut Log::open(&path, true).unwrap(), CHOICES[5..].to_vec());
        assert_eq!(rest, whole);
        assert_eq!([&before[..5], &after[..]].concat(), shown);
    }

    #[test]
    fn the_log_is_a_feedback_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("duels.jsonl");
        run(&candidates(1), 6, &mut Log::open(&path, false).unwrap(), CHOICES.to_vec());
        let rows = hone_feedback::formats::open(&path, &Default::default()).unwrap();
        let records: Vec<Record> = rows.map(|row| row.unwrap().record).collect();
        let kinds: Vec<&str> = records
            .iter()
            .map(|record| record.feedback.first().map_or("none", |item| item.form.kind().name()))
            .collect();
        let c = "comparison";
        assert_eq!(kinds, [c, "ranking", c, "none", c, c, c, c]);
        assert_eq!(records[0].feedback[0].by.as_deref(), Some("script"));
        // A choice between candidates that are not here is not ignored.
        let mut others = candidates(1);
        others.iter_mut().for_each(|c| c.text.push('!'));
        let log = Log::open(&path, true).unwrap();
        let mut bandit =
            Bandit::new(Apohf::default().rules(), others.iter().map(|c| c.embedding.clone()).collect(), 4)
                .unwrap();
        let refused = replay(&mut bandit, &others, &log).unwrap_err().to_string();
        assert!(refused.contains("record duel-0: needs two of the candidates here"), "{refused}");
    }

    #[test]
    fn groups_take_turns_and_never_meet() {
        let candidates = candidates(3);
        let (found, shown) = run(&candidates, 8, &mut Log::memory(), vec![Said::Left; 8]);
        assert_eq!(found.best.len(), 3);
        for (turn, texts) in shown.iter().enumerate() {
            for text in texts {
                let at = candidates.iter().position(|c| c.text == *text).unwrap();
                assert_eq!(candidates[at].group, turn % 3);
            }
        }
        for (group, best) in found.best.iter().enumerate() {
            assert_eq!(candidates[best.unwrap()].group, group);
        }
    }

    #[test]
    fn it_ends_when_nothing_is_left_to_ask() {
        let candidates = candidates(1)[..3].to_vec();
        let (found, shown) = run(&candidates, 8, &mut Log::memory(), vec![Said::Tie; 9]);
        assert_eq!((shown.len(), found.bits, found.passed, found.best[0]), (3, 0, 3, None));
    }
}
