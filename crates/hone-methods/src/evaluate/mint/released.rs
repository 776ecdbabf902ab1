//! Trajectories that the authors released, scored again from what was said in them.

use std::path::Path;

use serde_json::{Value, json};

use super::Form;
use super::episode::{Action, Budget, Counts, End, ended, read};
use super::instance::{Instance, Rules};
use crate::error::{Error, Result};

/// One trajectory, as it was scored and as it is scored here.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Task family and id.
    pub id: String,
    /// Success, reason of the end and counts, as stored.
    pub stored: (bool, Option<End>, Counts),
    /// The same from the replies alone. Where only an environment knows (ALFWorld), success after a program is taken
    /// from what is stored.
    pub ours: (bool, Option<End>, Counts),
}

/// Scores every trajectory of a file again.
///
/// # Errors
/// Those of reading; [`Error::File`] for a row that is no trajectory; those of the sandbox.
pub fn rescore(path: &Path, budget: Budget, rules: &Rules) -> Result<Vec<Rescored>> {
    let rows = crate::evaluate::rows(path)?;
    let mut all = vec![];
    for (index, row) in rows.iter().enumerate() {
        let rescored = one(row, budget, rules).transpose().unwrap_or_else(|| {
            Err(Error::File {
                path: path.display().to_string(),
                problem: format!("row {}: needs `state` and `task` of a trajectory", index + 1),
            })
        });
        all.push(rescored?);
    }
    Ok(all)
}

fn one(row: &Value, budget: Budget, rules: &Rules) -> Result<Option<Rescored>> {
    let (state, task) = (&row["state"], &row["task"]);
    let (Some(history), Some(family)) = (state["history"].as_array(), task["task_name"].as_str()) else {
        return Ok(None);
    };
    let environment = family.starts_with("alfworld");
    let set = match family {
        "reasoning" if task["metadata"].get("options").is_some() => "mmlu",
        "reasoning" if !task["reference"].is_string() => "theoremqa",
        "reasoning" => "gsm8k",
        other => other,
    };
    let id = format!("{family}/{}", task["task_id"]);
    let row = json!({ "id": task["task_id"], "prompt": task["prompt"], "reference": task["reference"] });
    let instance = Instance::from_row(set, &row);
    if instance.is_none() && !environment {
        return Ok(None);
    }
    let stored = (
        state["success"] == true,
        serde_json::from_value(state["terminate_reason"].clone()).ok(),
        serde_json::from_value(state["agent_action_count"].clone()).unwrap_or_default(),
    );
    let mut counts = Counts::default();
    let (mut success, mut end) = (false, None);
    let replies = history.iter().filter(|turn| turn["role"] == "assistant");
    let last = replies.clone().count();
    for (at, reply) in replies.enumerate() {
        match read(reply["content"].as_str().unwrap_or_default(), Form::Tags) {
            Action::Run(_) => {
                counts.use_tool += 1;
                success = environment && at + 1 == last && stored.0;
            }
            Action::Unclear => counts.invalid_action += 1,
            Action::Propose(solution) => {
                counts.propose_solution += 1;
                success = match (&solution, &instance) {
                    (Some(solution), Some(instance)) => instance.check(solution, rules)?,
                    (_, None) => at + 1 == last && stored.0,
                    (None, _) => false,
                };
            }
        }
        end = ended(&counts, success, budget);
        if end.is_some() {
            break;
        }
    }
    if end.is_none() && !state["error"].is_null() {
        end = Some(End::Error);
    }
    Ok(Some(Rescored { id, stored, ours: (success, end, counts) }))
}

#[cfg(test)]
mod tests {
    use super::super::{Mint, line, published, rules};
    use super::*;

    /// Rows whose score differs from what is stored.
    fn differing(name: &str) -> Option<(usize, Vec<Rescored>, usize)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mint").join(name);
        if !path.exists() {
            eprintln!("skipped: no {}", path.display());
            return None;
        }
        let rules = rules(&Mint { seconds: 10.0, ..Mint::default() }).unwrap();
        let rows = rescore(&path, Budget { steps: 5, proposals: 2 }, &rules).unwrap();
        let solved = rows.iter().filter(|row| row.ours.0).count();
        Some((rows.len(), rows.into_iter().filter(|row| row.ours != row.stored).collect(), solved))
    }

    #[test]
    fn released_trajectories_get_their_published_scores() {
        // Counts, ends and successes are computed from the replies alone; 18 of 42 is what the files hold.
        let Some((all, differing_rows, solved)) = differing("trajectories_gpt35_k5_nofeedback.jsonl") else {
            return;
        };
        assert_eq!((all, solved, differing_rows), (42, 18, vec![]));
    }

    #[test]
    fn with_feedback_one_negative_reference_is_scored_otherwise() {
        let Some((all, rows, solved)) = differing("trajectories_gpt35_k5_gpt4_textual_feedback.jsonl") else {
            return;
        };
        // −108 for −108.0: the release's tolerance of a negative reference was itself negative. It is right here.
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!((all, ids, solved), (42, vec!["reasoning/2"], 22));
        assert_eq!((rows[0].ours.0, rows[0].ours.1), (true, Some(End::TaskSuccess)));
    }

    #[test]
    fn published_slopes_follow_from_published_rates() {
        // Of 36.18, 31.74, …: (−2·2.73 − 16.89 + 31.74 + 2·36.18)/10 = 8.175. Rates are rounded to 0.005.
        for (model, slope) in
            [("gpt-3.5-turbo-0613", 0.0817), ("claude-2", 0.0312), ("claude-instant-1", 0.0797)]
        {
            let rows = published(model);
            let rates: Vec<f64> = (1..=5)
                .map(|k| rows.iter().find(|(name, _)| *name == format!("solved, k={k}")).unwrap().1)
                .collect();
            let (ours, _) = line(&[1.0, 2.0, 3.0, 4.0, 5.0], &rates);
            assert!((ours - slope).abs() <= 0.6e-4, "{model}: {ours}");
        }
        assert!(published("gpt-2").is_empty());
        // The more special name is looked for first.
        assert!((published("meta/Llama-2-70b-chat-hf")[0].1 - 0.0427).abs() < 1e-12);
    }
}
