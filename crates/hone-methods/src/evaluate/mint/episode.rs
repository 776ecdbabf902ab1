//! One task, solved in turns: what a reply does, what is seen of it, when it ends.

use hone_lm::{LanguageModel, Message};
use hone_nn::train::seed::sub_seed;
use hone_worlds::{Detail, roles};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::instance::{Instance, Rules};
use super::session::Session;
use super::{Feedback, Form, Mint, Templates};
use crate::error::Result;
use crate::evaluate::journal::Row;
use crate::evaluate::say::{Said, say};

/// What was done, each counted against the turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Solutions proposed, readable or not.
    pub propose_solution: usize,
    /// Programs run.
    pub use_tool: usize,
    /// Replies that are neither.
    pub invalid_action: usize,
}

impl Counts {
    /// Turns taken.
    pub fn turns(&self) -> usize {
        self.propose_solution + self.use_tool + self.invalid_action
    }
}

/// What an episode may use: turns `k`, and proposals among them `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Turns.
    pub steps: usize,
    /// Proposals.
    pub proposals: usize,
}

/// Why an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// A proposal was right.
    TaskSuccess,
    /// No proposal is left.
    MaxProposeSteps,
    /// No turn is left.
    MaxSteps,
    /// The model gave no answer.
    Error,
}

/// What a reply does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Proposes a solution; `None` where it cannot be read.
    Propose(Option<String>),
    /// Runs a program.
    Run(String),
    /// Neither.
    Unclear,
}

/// Reads a reply. One that holds a solution's tag is a proposal, whatever else it holds.
pub fn read(reply: &str, form: Form) -> Action {
    if form == Form::Bare {
        return Action::Propose(Some(reply.trim().to_string()).filter(|text| !text.is_empty()));
    }
    match reply.contains("<solution>") {
        true => Action::Propose(bodies(reply, "solution")),
        false => bodies(reply, "execute").map_or(Action::Unclear, Action::Run),
    }
}

/// What stands inside all tags of this name, a line each; `None` for nothing.
fn bodies(reply: &str, tag: &str) -> Option<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let (mut rest, mut found) = (reply, vec![]);
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((body, tail)) = after.split_once(&close) else { break };
        found.push(body.trim());
        rest = tail;
    }
    Some(found.join("\n")).filter(|text| !text.is_empty())
}

/// Whether these counts end an episode. The order is the protocol's.
pub fn ended(counts: &Counts, success: bool, budget: Budget) -> Option<End> {
    if success {
        Some(End::TaskSuccess)
    } else if counts.propose_solution >= budget.proposals {
        Some(End::MaxProposeSteps)
    } else if counts.turns() >= budget.steps {
        Some(End::MaxSteps)
    } else {
        None
    }
}

/// One message of an episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// One task with all that was said and done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Which run it is of: turns, and the form of feedback.
    pub run: String,
    /// The set and the id in it.
    pub doc_id: String,
    /// What was asked.
    pub doc: Value,
    /// What would be right.
    pub target: String,
    /// The replies, in one list.
    pub resps: Vec<Vec<String>>,
    /// The proposals.
    pub filtered_resps: Vec<String>,
    /// Whether a proposal was right.
    pub success: bool,
    /// Why it ended.
    pub terminate_reason: Option<End>,
    /// What was done.
    pub agent_action_count: Counts,
    /// Everything that was said.
    pub history: Vec<Turn>,
    /// Comments, in order.
    pub feedback: Vec<String>,
    /// Why the model gave no answer.
    pub error: Option<String>,
    /// Whether that was the connection's fault.
    pub lost: bool,
}

impl Row for Episode {
    fn key(&self) -> String {
        format!("{} {}", self.run, self.doc_id)
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

impl Episode {
    /// Nothing said yet.
    pub fn new(run: &str, instance: &Instance) -> Episode {
        Episode {
            run: run.into(),
            doc_id: format!("{}/{}", instance.set, instance.id),
            doc: serde_json::json!({ "prompt": instance.prompt }),
            target: instance.reference.clone(),
            resps: vec![vec![]],
            filtered_resps: vec![],
            success: false,
            terminate_reason: None,
            agent_action_count: Counts::default(),
            history: vec![],
            feedback: vec![],
            error: None,
            lost: false,
        }
    }

    fn push(&mut self, role: &str, content: String) {
        self.history.push(Turn { role: role.into(), content });
    }

    /// The conversation from the task on, as a commentator reads it.
    pub fn trajectory(&self, instance: &Instance) -> String {
        let turns = self.history.iter().skip(1).map(|turn| match turn.role.as_str() {
            "assistant" => format!("\n\nAssistant:\n{}", turn.content.trim()),
            _ => format!("\n\n{}", turn.content.trim()),
        });
        format!("Task:\n{}", instance.prompt) + &turns.collect::<String>()
    }
}

/// What a commentator is asked about.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The task.
    pub instance: &'a Instance,
    /// What was done so far; its newest observation stands at the end of the history.
    pub episode: &'a Episode,
    /// The form of the comment.
    pub form: Feedback,
    /// Governs what is drawn.
    pub seed: u64,
}

/// Comments on attempts.
pub trait Adviser {
    /// One comment each, in order; an empty one says nothing.
    ///
    /// # Errors
    /// Those of what it asks.
    fn advise(&self, asked: &[Asked<'_>]) -> Result<Vec<String>>;
}

/// A language model that comments.
pub struct ByModel<'a> {
    /// The model.
    pub model: &'a dyn LanguageModel,
    /// The settings of the protocol.
    pub own: &'a Mint,
}

impl Adviser for ByModel<'_> {
    fn advise(&self, asked: &[Asked<'_>]) -> Result<Vec<String>> {
        let templates = Templates::new(self.own)?;
        let prompt = |asked: &Asked<'_>| -> Result<Vec<Message>> {
            let text = match self.own.form {
                Form::Bare => {
                    let last = asked.episode.filtered_resps.last();
                    roles::criticise(&asked.instance.prompt, last.map_or("", String::as_str))
                }
                Form::Tags => templates.render(
                    "feedback_prompt",
                    minijinja::context! {
                        trajectory => asked.episode.trajectory(asked.instance),
                        reference => self.own.show_reference.then_some(&asked.instance.reference),
                    },
                )?,
            };
            Ok(vec![Message::new("user", text)])
        };
        let prompts: Vec<_> = asked.iter().map(prompt).collect::<Result<_>>()?;
        let seeds: Vec<u64> = asked.iter().map(|asked| sub_seed(asked.seed, "feedback")).collect();
        let said = say(self.model, &prompts, &self.own.sampling(), &seeds)?;
        Ok(said
            .into_iter()
            .zip(asked)
            .map(|(said, asked)| match (said, asked.form) {
                // What cannot be said is no feedback; the episode goes on.
                (Said::Refused(_) | Said::Lost(_), _) => String::new(),
                (Said::Text(text), Feedback::Binary) => binary(&text).to_string(),
                (Said::Text(text), _) => text.trim().to_string(),
            })
            .collect())
    }
}

/// Only whether the first sentence says good or bad; nothing where it says neither.
fn binary(text: &str) -> &'static str {
    let first = text.trim().split(['.', '!', '\n']).next().unwrap_or_default();
    match (first.contains("BAD") || first.contains("NOT GOOD"), first.contains("GOOD")) {
        (true, _) => "BAD.",
        (_, true) => "GOOD.",
        _ => "",
    }
}

/// A world's oracle that comments: where and what is wrong, or only that something is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByOracle;

impl Adviser for ByOracle {
    fn advise(&self, asked: &[Asked<'_>]) -> Result<Vec<String>> {
        let comment = |asked: &Asked<'_>| {
            let detail = if asked.form == Feedback::Binary { Detail::Verdict } else { Detail::Correction };
            let last = asked.episode.filtered_resps.last().map_or("", String::as_str);
            Ok(asked.instance.explain(last, detail)?.unwrap_or_default())
        };
        asked.iter().map(comment).collect()
    }
}

/// All episodes of a wave, turn by turn, every model asked for all open ones at once.
///
/// # Errors
/// What a model refuses for all alike; those of the sandbox and of the templates.
pub fn play(
    solver: &dyn LanguageModel,
    adviser: Option<&dyn Adviser>,
    run: &super::Run,
    wave: &[&Instance],
    own: &Mint,
    rules: &Rules,
    seed: u64,
) -> Result<Vec<Episode>> {
    let (templates, budget) = (Templates::new(own)?, run.budget);
    let mut sessions: Vec<Session> = wave.iter().map(|_| Session::default()).collect();
    let mut episodes: Vec<Episode> = vec![];
    for instance in wave {
        let mut episode = Episode::new(&run.name(), instance);
        episode.push("user", templates.opening(own.form, &instance.prompt, budget, adviser.is_some())?);
        episodes.push(episode);
    }
    let seed_of = |episode: &Episode| sub_seed(seed, &format!("{} {}", episode.key(), episode.history.len()));
    loop {
        let open: Vec<usize> =
            (0..wave.len()).filter(|&at| episodes[at].terminate_reason.is_none()).collect();
        if open.is_empty() {
            return Ok(episodes);
        }
        let conversations: Vec<_> = open.iter().map(|&at| messages(&episodes[at], own.form)).collect();
        let seeds: Vec<u64> = open.iter().map(|&at| seed_of(&episodes[at])).collect();
        let said = say(solver, &conversations, &own.sampling(), &seeds)?;
        let mut going = vec![];
        for (at, said) in open.into_iter().zip(said) {
            let reply = match said {
                Said::Text(text) => text,
                Said::Refused(why) => {
                    fail(&mut episodes[at], why, false);
                    continue;
                }
                Said::Lost(why) => {
                    fail(&mut episodes[at], why, true);
                    continue;
                }
            };
            let seen = act(&mut episodes[at], &reply, wave[at], &mut sessions[at], own, rules)?;
            let episode = &mut episodes[at];
            episode.terminate_reason = ended(&episode.agent_action_count, episode.success, budget);
            if episode.terminate_reason.is_none() {
                let next = next(&templates, own.form, wave[at], episode, &seen, budget, "")?;
                episode.push("user", next);
                going.push((at, seen));
            }
        }
        let Some(adviser) = adviser.filter(|_| !going.is_empty()) else { continue };
        let asked: Vec<Asked<'_>> = going
            .iter()
            .map(|(at, _)| Asked {
                instance: wave[*at],
                episode: &episodes[*at],
                form: run.feedback,
                seed: seed_of(&episodes[*at]),
            })
            .collect();
        for ((at, seen), comment) in going.iter().zip(adviser.advise(&asked)?) {
            let episode = &mut episodes[*at];
            episode.history.pop();
            let next = next(&templates, own.form, wave[*at], episode, seen, budget, &comment)?;
            episode.push("user", next);
            episode.feedback.push(comment);
        }
    }
}

/// What the solver reads next.
fn next(
    templates: &Templates<'_>,
    form: Form,
    instance: &Instance,
    episode: &Episode,
    seen: &str,
    budget: Budget,
    comment: &str,
) -> Result<String> {
    match form {
        Form::Tags => templates.next(seen, &episode.agent_action_count, budget, comment),
        // Without a comment the task is asked again.
        Form::Bare if comment.is_empty() => Ok(instance.prompt.clone()),
        Form::Bare => {
            let last = episode.filtered_resps.last().map_or("", String::as_str);
            Ok(roles::refine(&instance.prompt, last, comment))
        }
    }
}

fn fail(episode: &mut Episode, why: String, lost: bool) {
    episode.terminate_reason = Some(End::Error);
    episode.error = Some(why);
    episode.lost = lost;
}

/// The conversation as the solver is given it. In the bare form the newest message says everything.
fn messages(episode: &Episode, form: Form) -> Vec<Message> {
    let from = if form == Form::Bare { episode.history.len().saturating_sub(1) } else { 0 };
    episode.history[from..].iter().map(|turn| Message::new(turn.role.clone(), turn.content.clone())).collect()
}

/// Does what a reply says, counts it, and returns what is seen.
fn act(
    episode: &mut Episode,
    reply: &str,
    instance: &Instance,
    session: &mut Session,
    own: &Mint,
    rules: &Rules,
) -> Result<String> {
    episode.push("assistant", reply.to_string());
    if let Some(replies) = episode.resps.first_mut() {
        replies.push(reply.to_string());
    }
    let counts = &mut episode.agent_action_count;
    Ok(match read(reply, own.form) {
        Action::Run(code) => {
            counts.use_tool += 1;
            session.run(&code, &rules.sandbox, own.output)?
        }
        Action::Unclear => {
            counts.invalid_action += 1;
            own.unclear.trim().to_string()
        }
        Action::Propose(None) => {
            // A proposal is spent, though nothing could be read in it.
            counts.propose_solution += 1;
            own.unclear.trim().to_string()
        }
        Action::Propose(Some(solution)) => {
            counts.propose_solution += 1;
            episode.success = instance.check(&solution, rules)?;
            episode.filtered_resps.push(solution);
            "Your solution is wrong.".to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let tags = |reply: &str| read(reply, Form::Tags);
        assert_eq!(
            tags("<thought>a</thought><execute> x = 1 </execute> and <execute>\nx\n</execute>"),
            Action::Run("x = 1\nx".into())
        );
        // The code in a proposal is not run.
        assert_eq!(tags("<execute>1</execute><solution> 6 </solution>"), Action::Propose(Some("6".into())));
        assert_eq!(tags("<solution> 6"), Action::Propose(None));
        assert_eq!(tags("<execute> </execute>"), Action::Unclear);
        assert_eq!(tags("six"), Action::Unclear);
        assert_eq!(read("six", Form::Bare), Action::Propose(Some("six".into())));
    }

    #[test]
    fn budgets_end_episodes_in_the_stated_order() {
        let counts = |p, t, i| Counts { propose_solution: p, use_tool: t, invalid_action: i };
        let budget = Budget { steps: 3, proposals: 2 };
        assert_eq!(ended(&counts(2, 1, 0), true, budget), Some(End::TaskSuccess));
        assert_eq!(ended(&counts(2, 1, 0), false, budget), Some(End::MaxProposeSteps));
        assert_eq!(ended(&counts(1, 1, 1), false, budget), Some(End::MaxSteps));
        assert_eq!(ended(&counts(1, 1, 0), false, budget), None);
    }

    #[test]
    fn verdicts_of_comments() {
        assert_eq!(binary("This is GOOD. You could do BAD things."), "GOOD.");
        assert_eq!(binary("This is NOT GOOD. Try again."), "BAD.");
        assert_eq!(binary("Well, hm. GOOD."), "");
    }
}
