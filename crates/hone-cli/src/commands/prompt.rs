//! `hone prompt tune FILE --choose`

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hone_feedback::Record;
use hone_lm::{Endpoint, EndpointConfig, LanguageModel, Local, LocalOptions};
use hone_methods::method::settings;
use hone_methods::oracle::Checks;
use hone_methods::search::apohf::people::{Annotators, Taste};
use hone_methods::search::apohf::session::{Chooser, Found, Log, Meeting, Said, Shown, search};
use hone_methods::search::apohf::{Apohf, CANDIDATES, DUELS, Over, PROMPT, candidates, tune};
use hone_worlds::people::People;
use serde_json::json;

use crate::critics;
use crate::source::Source;

/// Subcommands of `hone prompt`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Find the best prompt by asking which of two is better (APOHF). The prompt is printed; every choice is kept as
    /// feedback in a log.
    Tune(Box<Tune>),
}

/// Arguments of `hone prompt tune`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("chooser").required(true).args(["choose", "people", "simulate"])))]
pub struct Tune {
    /// Log whose prompts are the questions: answers to them are shown. Without, prompts themselves are.
    file: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// A person at the terminal chooses.
    #[arg(long)]
    choose: bool,
    /// Simulated people of this file (TOML) choose, or `sample`; for questions that are tasks of a world.
    #[arg(long, value_name = "FILE", requires = "file")]
    people: Option<PathBuf>,
    /// A simulated person chooses, who prefers right answers; for questions whose answers can be checked.
    #[arg(long, requires = "file")]
    simulate: bool,
    /// Candidates, one a line, as text or as JSON with text, embedding and show (what is shown instead of the text).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["start", "responses"])]
    candidates: Option<PathBuf>,
    /// Prompt that the model writes candidates from. Without it and without candidates, it induces them from the log.
    #[arg(long, value_name = "TEXT", conflicts_with = "responses")]
    start: Option<String>,
    /// Choose among responses to each question instead of prompts for all.
    #[arg(long, requires = "file")]
    responses: bool,
    /// Model folder that embeds; the model that answers if left out.
    #[arg(long, value_name = "DIR", conflicts_with = "embed_endpoint")]
    embedder: Option<PathBuf>,
    /// Endpoint that embeds.
    #[arg(long, value_name = "URL", requires = "embed_name")]
    embed_endpoint: Option<String>,
    /// Model to ask that endpoint for.
    #[arg(long, value_name = "NAME", requires = "embed_endpoint")]
    embed_name: Option<String>,
    /// Choices at most.
    #[arg(long)]
    rounds: Option<usize>,
    /// A setting of APOHF, as in --set nu=0.5; may be repeated. `hone methods show apohf` lists them.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Questions at most; 0 for all.
    #[arg(long, default_value_t = 20)]
    records: usize,
    /// Folder for choices, candidates and the prompt.
    #[arg(long, value_name = "DIR", default_value = "runs/prompt")]
    out: PathBuf,
    /// Go on with the interrupted search in the folder.
    #[arg(long)]
    resume: bool,
    /// Who chooses, as the log says.
    #[arg(long, value_name = "NAME", default_value = "person")]
    by: String,
    /// Columns of the terminal.
    #[arg(long, default_value_t = 100)]
    width: usize,
    /// Seed of candidates, networks and sides.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the command. Exit status 1 if nothing was decided.
pub fn run(command: Command) -> Result<ExitCode> {
    let Command::Tune(mut args) = command;
    if args.source.model.is_none() && args.source.endpoint.is_none() {
        args.source.model = Some(hone_methods::tiny::folder()?);
    }
    let own = own_settings(&args)?;
    let records = match &args.file {
        Some(file) => critics::records(file, args.records)?,
        None => vec![],
    };
    let mut log = Log::open(&args.out.join(DUELS), args.resume)?;
    let kept = args.out.join(CANDIDATES);
    if !args.resume && kept.exists() {
        std::fs::remove_file(&kept).with_context(|| kept.display().to_string())?;
    }
    let model = args.source.open()?;
    let embedder = embedder(&args)?;
    let embeds = embedder.as_deref().unwrap_or(model.as_ref());
    let checks = Checks::default();
    let made = match own.over {
        Over::Prompts => {
            let examples = candidates::examples(&records, Some(&checks))?;
            tune::prompts(model.as_ref(), embeds, &own, &examples, Some(&kept), args.seed)
        }
        Over::Responses => tune::responses(model.as_ref(), embeds, &own, &records, Some(&kept), args.seed),
    };
    let advice = || {
        format!("{}: another can embed: --embedder DIR, or --embed-endpoint URL", embeds.capabilities().name)
    };
    let made = match made {
        Err(error @ hone_methods::Error::Model(hone_lm::Error::Unsupported { .. })) => {
            return Err(error).with_context(advice);
        }
        made => made?,
    };
    eprintln!("{} candidates; choices are kept in {}", made.len(), args.out.join(DUELS).display());
    let mut bandit = tune::bandit(&own, &made, args.seed)?;
    let mut answers = tune::Answers::new(model.as_ref(), &own, &records, args.seed)?;
    let mut plainly = |_, arms: [usize; 2]| Ok(tune::plain(arms.map(|arm| &made[arm])));
    let mut asked = |asked: usize, arms: [usize; 2]| {
        let pair = arms.map(|arm| &made[arm]);
        match own.over {
            Over::Prompts => answers.shown(asked, pair),
            Over::Responses => {
                let group = pair[0].group;
                let question = records.get(group).map(|record| (group, record.prompt.text().into_owned()));
                Ok(Shown { question, texts: pair.map(|candidate| candidate.text.clone()) })
            }
        }
    };
    let mut go = |show: &mut dyn FnMut(usize, [usize; 2]) -> hone_methods::Result<Shown>,
                  who: &mut dyn Chooser| {
        search(&mut bandit, &made, own.rounds, args.seed, &mut log, show, who)
    };
    let found = if args.choose {
        let input = std::io::stdin().lock();
        let mut person =
            Terminal { input, output: std::io::stderr(), width: args.width, by: args.by.clone() };
        go(&mut asked, &mut person)?
    } else if let Some(file) = &args.people {
        let people = match file.to_str() {
            Some("sample") => People::sample()?,
            _ => People::read(file).with_context(|| file.display().to_string())?,
        };
        let mut judges = Annotators { people: &people, records: &records, checks: &checks, seed: args.seed };
        go(&mut asked, &mut judges)?
    } else {
        let questions: Vec<usize> = (0..records.len().min(own.validation)).collect();
        let mut judged = tune::Answers::new(model.as_ref(), &own, &records, args.seed)?;
        let worth = |arm: usize| match own.over {
            Over::Prompts => judged.accuracy(&made[arm].text, &questions, &checks),
            Over::Responses => {
                let record = &records[made[arm].group];
                Ok(hone_methods::refine::judge("apohf", Some(&checks), record, &made[arm].text)?.score)
            }
        };
        let mut taste = Taste::new(own.person, made.len(), args.seed, worth);
        go(&mut plainly, &mut taste)?
    };
    report(&args, &own, &records, &made, &found)
}

/// The settings of the method as the flags change them.
fn own_settings(args: &Tune) -> Result<Apohf> {
    let mut recipe = hone_methods::improve::plan::recipe("apohf")?;
    recipe.settings.clear();
    // A JSON string is a TOML one. The order matters: each is checked with those before it.
    let file = args.candidates.as_ref().map(|path| path.to_string_lossy());
    let given = [
        file.map(|file| format!("file={}", json!(file))),
        args.start.as_ref().map(|start| format!("start={}", json!(start))),
        args.start.as_ref().map(|_| "writing=rephrasing".to_owned()),
        args.responses.then(|| "over=responses".to_owned()),
        args.rounds.map(|rounds| format!("rounds={rounds}")),
    ];
    for given in given.into_iter().flatten() {
        recipe.set(&format!("settings.{given}"))?;
    }
    for assignment in &args.set {
        recipe.set(&format!("settings.{assignment}")).with_context(|| format!("--set {assignment}"))?;
    }
    Ok(settings("apohf", &recipe.settings)?)
}

fn embedder(args: &Tune) -> Result<Option<Box<dyn LanguageModel>>> {
    Ok(match (&args.embedder, &args.embed_endpoint, &args.embed_name) {
        (Some(folder), ..) => Some(Box::new(Local::from_folder(folder, &LocalOptions::default())?)),
        (None, Some(url), Some(name)) => {
            let mut config = EndpointConfig::new(url, name);
            config.api_key_env = args.source.api_key_env.clone();
            Some(Box::new(Endpoint::connect(config)?))
        }
        _ => None,
    })
}

/// Prints what was found, and writes the prompt beside the choices.
fn report(
    args: &Tune,
    own: &Apohf,
    records: &[Record],
    made: &[candidates::Candidate],
    found: &Found,
) -> Result<ExitCode> {
    let ended = if found.quit { "; `--resume` goes on" } else { "" };
    eprintln!("{} choices, {} pairs left undecided{ended}", found.bits, found.passed);
    if found.best.iter().all(Option::is_none) {
        eprintln!("nothing was decided");
        return Ok(ExitCode::FAILURE);
    }
    match own.over {
        Over::Prompts => {
            let prompt = found.best.first().copied().flatten().and_then(|arm| made.get(arm));
            let prompt = prompt.map_or("", |candidate| candidate.text.as_str());
            let path = args.out.join(PROMPT);
            std::fs::write(&path, prompt).with_context(|| path.display().to_string())?;
            println!("{prompt}");
        }
        Over::Responses => {
            for (record, best) in records.iter().zip(&found.best) {
                let text = best.and_then(|arm| made.get(arm)).map(|candidate| &candidate.text);
                println!("{}", json!({"record": record.id, "response": text}));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A person who reads two columns and types a letter.
struct Terminal<R, W> {
    input: R,
    output: W,
    width: usize,
    by: String,
}

impl<R: BufRead, W: Write> Terminal<R, W> {
    fn ask(&mut self, meeting: &Meeting<'_>) -> std::io::Result<Said> {
        let out = &mut self.output;
        writeln!(out, "\nchoice {} of {}", meeting.bits + 1, meeting.rounds)?;
        if let Some(question) = meeting.question {
            writeln!(out, "{}", wrapped(question, self.width).join("\n"))?;
        }
        write!(out, "{}", columns(meeting.texts, self.width))?;
        loop {
            write!(out, "[l]eft  [r]ight  [t]ie  [s]kip  [q]uit: ")?;
            out.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                // Whoever closes the input is gone.
                writeln!(out)?;
                return Ok(Said::Quit);
            }
            match read(&line) {
                Some(said) => return Ok(said),
                None => writeln!(out, "needs l, r, t, s or q, got {:?}", line.trim())?,
            }
        }
    }
}

impl<R: BufRead, W: Write> Chooser for Terminal<R, W> {
    fn name(&self) -> String {
        self.by.clone()
    }

    fn choose(&mut self, meeting: &Meeting<'_>) -> hone_methods::Result<Said> {
        self.ask(meeting).map_err(|source| hone_methods::Error::Io { path: "the terminal".into(), source })
    }
}

/// A choice as typed: a word or its beginning.
fn read(line: &str) -> Option<Said> {
    let typed = line.trim().to_lowercase();
    let words = [
        ("left", Said::Left),
        ("right", Said::Right),
        ("tie", Said::Tie),
        ("skip", Said::Skip),
        ("quit", Said::Quit),
    ];
    words.into_iter().find(|(word, _)| !typed.is_empty() && word.starts_with(&typed)).map(|(_, said)| said)
}

/// Two texts side by side.
fn columns(texts: [&str; 2], width: usize) -> String {
    const BETWEEN: &str = " │ ";
    let half = (width.saturating_sub(3) / 2).max(10);
    let [left, right] = texts.map(|text| wrapped(text, half));
    let rule = "─".repeat(half);
    let mut all = format!("{rule}─┬─{rule}\n");
    for at in 0..left.len().max(right.len()) {
        let [left, right] = [&left, &right].map(|lines| lines.get(at).map_or("", String::as_str));
        let pad = " ".repeat(half.saturating_sub(left.chars().count()));
        all += &format!("{left}{pad}{BETWEEN}{right}\n");
    }
    all + &format!("{rule}─┴─{rule}\n")
}

/// Lines of at most `width` characters, broken at spaces where there are some. Control characters are shown as spaces, so
/// that a text cannot move the cursor.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![];
    for line in text.lines() {
        let mut now = String::new();
        for word in line.split(|c: char| c == ' ' || c.is_control()).filter(|word| !word.is_empty()) {
            let mut word: Vec<char> = word.chars().collect();
            if !now.is_empty() && now.chars().count() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut now));
            }
            while word.len() > width {
                let rest = word.split_off(width);
                lines.push(word.into_iter().collect());
                word = rest;
            }
            if !now.is_empty() {
                now.push(' ');
            }
            now.extend(word);
        }
        lines.push(now);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_long_words_are_cut() {
        assert_eq!(wrapped("ab cd ef\n\nabcdefg", 5), ["ab cd", "ef", "", "abcde", "fg"]);
        assert_eq!(wrapped("a\u{1b}[2Jb", 9), ["a [2Jb"]);
        let shown = columns(["one two", "x"], 23);
        assert_eq!(shown.lines().nth(1), Some("one two    │ x"));
    }

    #[test]
    fn words_and_their_beginnings_are_read() {
        assert_eq!(
            ["l", " RIGHT\n", "t", "sk", "q"].map(read),
            [Some(Said::Left), Some(Said::Right), Some(Said::Tie), Some(Said::Skip), Some(Said::Quit)]
        );
        assert_eq!((read("\n"), read("x")), (None, None));
    }

    #[test]
    fn what_is_not_understood_is_asked_again_and_the_end_quits() {
        let meeting = Meeting {
            asked: 0,
            bits: 2,
            rounds: 9,
            arms: [0, 1],
            question: Some("why?"),
            record: Some(0),
            texts: ["because", "no"],
            best: None,
        };
        let mut said = vec![];
        let mut person = Terminal { input: &b"x\nr\n"[..], output: &mut said, width: 60, by: "p".into() };
        assert_eq!(person.choose(&meeting).unwrap(), Said::Right);
        assert_eq!(person.choose(&meeting).unwrap(), Said::Quit);
        let said = String::from_utf8(said).unwrap();
        for part in ["choice 3 of 9", "why?", "because", "needs l, r, t, s or q, got \"x\""] {
            assert!(said.contains(part), "{part} not in {said}");
        }
    }
}
