use std::collections::HashMap;

use hone_lm::{
    Capabilities, Continuation, Event, GenerateRequest, Generation, ScoreRequest, Scored, Token, Usage,
};
use hone_worlds::roles;

use super::*;
use crate::bench::scripted::answers;

/// A model that says what is written down for a prompt, one text per sample, again and again; otherwise `else`.
#[derive(Default)]
struct Script {
    can: Capabilities,
    lines: HashMap<String, Vec<String>>,
    or_else: String,
    /// Log-probability of `yes`, of `no`, and of every token that is said.
    logps: (f64, f64, f32),
}

impl Script {
    fn new(lines: impl IntoIterator<Item = (String, Vec<String>)>, or_else: &str) -> Script {
        let can = Capabilities { name: "script".into(), ..Capabilities::default() };
        Script { can, lines: lines.into_iter().collect(), or_else: or_else.into(), logps: (0.0, 0.0, 0.0) }
    }
}

fn token(logprob: f32) -> Token {
    let logprob = Some(logprob);
    Token { id: None, text: String::new(), bytes: None, logprob, sampling_logprob: None, top: vec![] }
}

impl LanguageModel for Script {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    fn generate(
        &self,
        requests: &[GenerateRequest],
        _: &mut dyn FnMut(Event),
    ) -> hone_lm::Result<Vec<hone_lm::Result<Generation>>> {
        self.can.check(requests)?;
        let tells = requests.iter().any(|request| request.logprobs);
        Ok(answers(requests, &|asked, index, _| {
            let lines = self.lines.get(asked);
            let text = lines.map_or(&self.or_else, |lines| &lines[index % lines.len()]).clone();
            (text, tells.then(|| vec![token(self.logps.2)]))
        }))
    }

    fn score(&self, requests: &[ScoreRequest]) -> hone_lm::Result<Vec<hone_lm::Result<Scored>>> {
        let score = |request: &ScoreRequest| {
            let (logp, tokens) = match &request.continuation {
                Continuation::Text(text) if text == roles::YES => (self.logps.0, 1),
                Continuation::Text(text) if text == roles::NO => (self.logps.1, 1),
                // One nat and one token per word.
                Continuation::Text(text) => {
                    let words = text.split_whitespace().count();
                    (-(words as f64), words)
                }
                Continuation::Tokens(tokens) => (0.0, tokens.len()),
            };
            Ok(Scored { tokens: vec![token(0.0); tokens], logp, usage: Usage::default() })
        };
        Ok(requests.iter().map(score).collect())
    }

    fn embed(&self, _: &[String]) -> hone_lm::Result<Vec<Vec<f32>>> {
        Ok(vec![])
    }
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
}

fn settings(prompts: usize, samples: usize) -> Settings {
    Settings { prompts, samples, ..Settings::default() }
}

fn sums() -> Box<dyn World> {
    hone_worlds::world("sums").unwrap()
}

#[test]
fn pass_and_majority_by_hand() {
    let world = sums();
    let tasks = tasks(world.as_ref(), 4, 2, 1).unwrap();
    let [one, two] = [&tasks[0], &tasks[1]];
    let lines = [
        // One right of four; the commonest answer is wrong.
        (one.prompt(), vec![one.reference(), "1+1=3".into(), "1+1=3".into(), "no sum".into()]),
        (two.prompt(), vec![two.reference()]),
    ];
    let report =
        evaluate(&Script::new(lines, ""), world.as_ref(), Role::Answer, &settings(2, 4)).unwrap().report;
    let pass: Vec<(usize, f64)> = report.pass.iter().map(|(k, interval)| (*k, interval.estimate)).collect();
    // 1 of 4 right: pass@1 1/4, pass@2 1 − C(3,2)/C(4,2) = 1/2, pass@4 1. Means with the prompt that is always right.
    assert_eq!(pass, [(1, 0.625), (2, 0.75), (4, 1.0)]);
    close(report.majority.unwrap().estimate, 0.5);
    // One answer of eight is no sum: 1/4 and 0 per prompt.
    close(report.format_errors.unwrap().estimate, 0.125);
    assert_eq!((report.calibration, report.verdicts, report.again), (None, None, None));
    assert_eq!((report.on.as_str(), report.role.as_str()), ("sums level 4", "answer"));
    let said = report.to_string();
    assert!(said.contains("pass@1                 62.5 %") && said.contains("maj@4"), "{said}");
}

#[test]
fn confidence_is_held_against_what_was_right() {
    let world = sums();
    let tasks = tasks(world.as_ref(), 4, 4, 1).unwrap();
    // Three of four right, each said with probability 1/2: the gap is 3/4 − 1/2.
    let lines = tasks[..3].iter().map(|task| (task.prompt(), vec![task.reference()]));
    let mut script = Script::new(lines, "1+1=3");
    script.can.logprobs = true;
    script.logps.2 = 0.5f32.ln();
    let report = evaluate(&script, world.as_ref(), Role::Answer, &settings(4, 1)).unwrap().report;
    assert!((report.calibration.unwrap() - 0.25).abs() < 1e-6, "{:?}", report.calibration);
    assert_eq!(report.majority, None);
}

#[test]
fn refining_is_held_against_asking_again() {
    let world = sums();
    let tasks = tasks(world.as_ref(), 4, 10, 1).unwrap();
    // Every answer is wrong, also when asked again; of the refinements every second is right.
    let lines = tasks.iter().enumerate().map(|(index, task)| {
        let said = task.explain("1+1=3", hone_worlds::Detail::Correction).unwrap();
        let right = if index % 2 == 0 { task.reference() } else { "1+1=3".into() };
        (roles::refine(&task.prompt(), "1+1=3", &said), vec![right])
    });
    let script = Script::new(lines, "1+1=3");
    let report = evaluate(&script, world.as_ref(), Role::Refine, &settings(10, 2)).unwrap().report;
    let again = report.again.unwrap();
    close(again.right.estimate, 0.0);
    close(again.gain.estimate, 0.5);
    close(report.pass[0].1.estimate, 0.5);

    // A model without a wrong answer has nothing to refine.
    let world = hone_worlds::world("lists").unwrap();
    let many = super::tasks(world.as_ref(), 1, 80, 1).unwrap();
    let perfect = Script::new(many.iter().map(|task| (task.prompt(), vec![task.reference()])), "");
    let refused =
        evaluate(&perfect, world.as_ref(), Role::Refine, &Settings { level: Some(1), ..settings(10, 1) });
    assert!(refused.unwrap_err().to_string().contains("a wrong answer to refine, got none in 80 tasks"));
}

#[test]
fn labels_and_critiques_by_hand() {
    let world = sums();
    // Always `yes`: of balanced answers half agree; F1 of `yes` is 2 · ½ · 1 / (3/2) = 2/3, of `no` 0.
    let mut script = Script::new([], roles::YES);
    script.can.scoring = true;
    // P(yes) = 3/4 against the truth of one half: the gap is 1/4.
    script.logps = (0.75f64.ln(), 0.25f64.ln(), 0.0);
    let report = evaluate(&script, world.as_ref(), Role::Label, &settings(20, 1)).unwrap().report;
    let verdicts = report.verdicts.unwrap();
    close(verdicts.accuracy, 0.5);
    close(verdicts.f1, 1.0 / 3.0);
    close(verdicts.recall, 0.0);
    close(report.calibration.unwrap(), 0.25);
    close(report.format_errors.unwrap().estimate, 0.0);

    // What is neither label has no verdict.
    let report =
        evaluate(&Script::new([], "maybe"), world.as_ref(), Role::Label, &settings(20, 1)).unwrap().report;
    close(report.verdicts.unwrap().accuracy, 0.0);
    close(report.format_errors.unwrap().estimate, 1.0);

    // A critic who approves everything is right where the answer is.
    let report = evaluate(&Script::new([], "all right"), world.as_ref(), Role::Criticise, &settings(20, 1))
        .unwrap()
        .report;
    close(report.pass[0].1.estimate, 0.5);
    close(report.verdicts.unwrap().accuracy, 0.5);
    close(report.score.unwrap().estimate, 0.5);
}

#[test]
fn two_models_are_compared_on_the_same_prompts() {
    let world = sums();
    let tasks = tasks(world.as_ref(), 4, 40, 1).unwrap();
    let right = |count: usize| {
        Script::new(tasks[..count].iter().map(|task| (task.prompt(), vec![task.reference()])), "1+1=3")
    };
    let measure = |script: &Script, prompts| {
        evaluate(script, world.as_ref(), Role::Answer, &settings(prompts, 1)).unwrap()
    };
    let (better, worse) = (measure(&right(30), 40), measure(&right(10), 40));
    let against = compare(&better, &worse).unwrap();
    close(against.difference.estimate, 0.5);
    assert!(against.p < 0.01 && against.difference.low > 0.3, "{against:?}");
    // 20 gained, none lost: 2 · 2⁻²⁰.
    close(against.sign_test, 2f64.powi(-19));
    close(compare(&worse, &better).unwrap().difference.estimate, -0.5);
    assert!(compare(&better, &measure(&right(10), 39)).is_err());
    let samples: Vec<Value> = better.samples().collect();
    assert_eq!(samples.len(), 40);
    assert_eq!((samples[0]["right"].as_bool(), samples[39]["right"].as_bool()), (Some(true), Some(false)));
}

#[test]
fn files_are_scored_against_their_references() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let record = |id: &str, prompt: &str, edit: &str| {
        format!(
            r#"{{"id":"{id}","prompt":"{prompt}","responses":[{{"id":"a","content":"x"}}],"feedback":[{{"form":"edit","on":"a","content":"{edit}"}}]}}"#
        )
    };
    let unused = r#"{"id":"3","prompt":"none","responses":[{"id":"a","content":"x"}],"feedback":[{"form":"thumb","on":"a","value":true}]}"#;
    let rows = [record("1", "one", "red cat"), record("2", "two", "blue dog sat"), unused.to_string()];
    std::fs::write(&path, rows.join("\n")).unwrap();
    let mut script = Script::new([("one".into(), vec!["red cat".into()])], "blue dog");
    script.can.text = true;
    script.can.scoring = true;
    let report = evaluate_data(&script, &path, &settings(10, 1)).unwrap().report;
    assert_eq!(report.prompts, 2);
    let reference = report.reference.unwrap();
    close(reference.exact.unwrap().estimate, 0.5);
    // F1 of "blue dog" against "blue dog sat": P 1, R 2/3, F1 4/5.
    close(reference.f1.unwrap().estimate, 0.9);
    close(reference.nll.unwrap().estimate, 1.0);
    assert!(reference.chrf.unwrap() > 50.0);

    std::fs::write(&path, unused).unwrap();
    let refused = evaluate_data(&script, &path, &settings(10, 1)).unwrap_err().to_string();
    assert!(refused.contains("needs records with a reference") && refused.contains("1 records"), "{refused}");
    assert!(evaluate_data(&script, &folder.path().join("none"), &settings(1, 1)).is_err());
}

#[test]
fn exercises_are_run_against_their_tests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mbpp.jsonl");
    let row = r#"{"task_id":1,"text":"Add one.","code":"def f(x):\n    return x + 1","test_list":["assert f(1) == 2"]}"#;
    std::fs::write(&path, row).unwrap();
    let right = Script::new([], "```python\ndef f(x):\n    return 1 + x\n```");
    let wrong = Script::new([], "def f(x):\n    return x");
    let rate =
        |script: &Script| evaluate_data(script, &path, &settings(1, 1)).unwrap().report.pass[0].1.estimate;
    assert_eq!((rate(&right), rate(&wrong)), (1.0, 0.0));
}

#[test]
fn a_model_that_does_not_know_the_world_is_told_the_role_too() {
    let world = sums();
    let told = |instructions, role| {
        let settings = Settings { instructions, ..settings(1, 1) };
        match prompts(&["sum 1+1".to_string()], world.as_ref(), role, &settings).remove(0) {
            Prompt::Messages { messages, .. } => {
                messages.iter().map(|message| (message.role().to_string(), message.text())).collect()
            }
            _ => vec![],
        }
    };
    assert_eq!(told(false, Role::Label), [("user".to_string(), "sum 1+1".to_string())]);
    let [system, user] = &told(true, Role::Label)[..] else { panic!("needs two messages") };
    assert_eq!(user.1, "sum 1+1");
    assert!(system.0 == "system" && system.1.starts_with(world.instructions()), "{system:?}");
    for (role, cue) in [(Role::Label, "[right?]"), (Role::Criticise, "[check]"), (Role::Refine, "[better]")] {
        assert!(told(true, role)[0].1.contains(cue), "{role:?}");
    }
    assert_eq!(told(true, Role::Answer)[0].1, world.instructions());
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |settings: Settings| {
        evaluate(&Script::default(), sums().as_ref(), Role::Answer, &settings).unwrap_err().to_string()
    };
    assert!(refused(settings(0, 1)).contains("`prompts`: needs at least 1, got 0"));
    assert!(refused(Settings { level: Some(9), ..settings(1, 1) }).contains("level"));
}
