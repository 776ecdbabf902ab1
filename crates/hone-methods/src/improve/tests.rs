use std::collections::HashSet;

use hone_feedback::Form;
use hone_feedback::split::key_of;

use super::*;
use crate::bench::Bench;
use crate::report::{Change, Verdict};

fn settings(bench: &Bench, folder: &Path, records: &[Record]) -> Settings {
    let log = folder.join("log.jsonl");
    std::fs::write(&log, records.iter().map(|record| record.to_json() + "\n").collect::<String>()).unwrap();
    Settings {
        logs: vec![log],
        from: None,
        model: bench.policy().unwrap().folder,
        methods: vec![],
        // Rates for a model of a few thousand weights.
        set: vec![],
        budget: Some(120.0),
        held_out: 0.2,
        seed: 1,
        lora: 0,
        keep: false,
        recipes: ["sft", "dpo", "reward-pairs"]
            .map(|id| {
                let mut recipe = plan::recipe(id).unwrap();
                recipe.set("training.learning_rate=3e-3").unwrap();
                recipe
            })
            .to_vec(),
    }
}

fn quiet() -> Listener {
    Arc::new(|_| {})
}

/// Pairs and edits, each on prompts of their own.
fn mixed(bench: &Bench) -> Vec<Record> {
    let mut records = bench.pairs(160, "pairs");
    records.extend(bench.edits(80, "edits"));
    records
}

#[test]
fn a_log_of_pairs_and_edits_improves_the_policy() {
    let (bench, folder) = (Bench::new(1).unwrap(), tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let run =
        Run::prepare(settings(&bench, folder.path(), &mixed(&bench)), &out, false, "hone".into(), quiet())
            .unwrap();
    let planned: Vec<&str> = run.plan.stages.iter().map(|stage| stage.method.as_str()).collect();
    assert_eq!(planned, ["sft", "dpo", "reward-pairs"]);
    let done = run.go().unwrap();
    assert_eq!(done.outcome.verdict(), Verdict::Improved, "{}", done.outcome);
    let order = done.outcome.measures.iter().find(|m| m.name.contains("implicit")).unwrap();
    assert_eq!(order.change(), Change::Better, "{}", done.outcome);
    // What was written is whole: it loads, and the page and the metrics are there.
    assert!(Policy::from_folder(&done.model.unwrap()).is_ok());
    assert!(std::fs::read_to_string(&done.page).unwrap().contains("preference order"));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    for part in ["\"method\":\"dpo\"", "\"rewards/accuracies\"", "\"measure\""] {
        assert!(metrics.contains(part), "{part}");
    }
    assert!(out.join("reward-models/reward-pairs/config.json").exists());
    assert_eq!(done.report.samples.items.len(), 20);
}

#[test]
fn no_prompt_is_in_two_parts() {
    let (bench, folder) = (Bench::new(2).unwrap(), tempfile::tempdir().unwrap());
    let run = Run::prepare(
        settings(&bench, folder.path(), &mixed(&bench)),
        folder.path(),
        false,
        "hone".into(),
        quiet(),
    )
    .unwrap();
    let keys = |records: &[Record]| records.iter().map(key_of).collect::<HashSet<u64>>();
    let log = run.log();
    let (train, validation, held_out) = (keys(&log.train), keys(&log.validation), keys(&log.held_out));
    assert!(!train.is_empty() && !validation.is_empty() && !held_out.is_empty());
    assert!(
        train.is_disjoint(&validation) && train.is_disjoint(&held_out) && validation.is_disjoint(&held_out)
    );
}

#[test]
fn a_resumed_run_ends_with_the_same_numbers() {
    let (bench, folder) = (Bench::new(3).unwrap(), tempfile::tempdir().unwrap());
    let out = folder.path().join("out");
    let settings = settings(&bench, folder.path(), &mixed(&bench));
    let prepare = |settings: &Settings, resume| {
        Run::prepare(settings.clone(), &out, resume, "hone".into(), quiet()).and_then(Run::go)
    };
    let whole = prepare(&settings, false).unwrap().outcome;
    // As if the run had been killed in its second step, once after a checkpoint and once before the first.
    for before_first in [false, true] {
        std::fs::remove_file(out.join("step-2-dpo/done.json")).unwrap();
        std::fs::remove_dir_all(out.join("step-3-reward-pairs")).unwrap();
        std::fs::remove_dir_all(out.join("model")).unwrap();
        if before_first {
            for (_, checkpoint) in hone_nn::train::checkpoint::list(&out.join("step-2-dpo")).unwrap() {
                std::fs::remove_dir_all(checkpoint).unwrap();
            }
        }
        let resumed = prepare(&settings, true).unwrap().outcome;
        // As text: what was not measured is NaN, which equals nothing.
        assert_eq!(format!("{whole:?}"), format!("{resumed:?}"));
    }
    let refused = |settings: &Settings, resume| prepare(settings, resume).unwrap_err().to_string();
    assert!(refused(&settings, false).contains("a run is here already"));
    assert!(refused(&Settings { seed: 9, ..settings.clone() }, true).contains("other settings"));
    let log = std::fs::read_to_string(&settings.logs[0]).unwrap();
    std::fs::write(&settings.logs[0], log.split_once('\n').unwrap().1).unwrap();
    assert!(refused(&settings, true).contains("the log has changed"));
}

#[test]
fn settings_of_what_is_not_planned_are_refused() {
    let (bench, folder) = (Bench::new(11).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.pairs(100, "a"));
    let mut refused = |set: &str| {
        settings.set = vec![set.into()];
        Run::prepare(settings.clone(), folder.path(), false, "hone".into(), quiet()).unwrap_err().to_string()
    };
    assert!(refused("dppo.beta=1").contains("the nearest is `dpo`"));
    assert!(refused("beta=0.2").contains("needs METHOD.KEY=VALUE"));
    assert!(refused("kto.beta=0.2").contains("the plan is dpo, reward-pairs"));
    assert!(refused("dpo.seed=3").contains("unknown key `seed`"));
}

#[test]
fn a_step_that_fails_leaves_the_others_their_result() {
    let (bench, folder) = (Bench::new(12).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.edits(120, "edits"));
    settings.methods = vec!["sft".into(), "dpo".into()];
    settings.set = vec!["sft.training.learning_rate=3e-3".into(), "dpo.training.learning_rate=1e30".into()];
    let run = Run::prepare(settings, &folder.path().join("out"), false, "hone".into(), quiet()).unwrap();
    let done = run.go().unwrap();
    let ended = done.report.plan.steps[1].ended.clone().unwrap();
    assert!(ended.starts_with("failed: ") || ended.starts_with("rolled back"), "{ended}");
    assert!(done.model.is_some());
}

#[test]
fn a_rate_of_zero_improves_nothing_and_says_so() {
    let (bench, folder) = (Bench::new(4).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.pairs(120, "pairs"));
    settings.methods = vec!["dpo".into()];
    settings.set = vec!["dpo.training.learning_rate=0.0".into()];
    let done = Run::prepare(settings, &folder.path().join("out"), false, "hone".into(), quiet())
        .unwrap()
        .go()
        .unwrap();
    assert_eq!(done.outcome.verdict(), Verdict::NotImproved, "{}", done.outcome);
}

#[test]
fn a_step_that_does_harm_is_rolled_back() {
    let (bench, folder) = (Bench::new(5).unwrap(), tempfile::tempdir().unwrap());
    let mut records = bench.pairs(160, "pairs");
    // Those who are trained on say the opposite of those who decide and those who measure.
    let split = |record: &Record| hone_feedback::split::side(record, 0.2, 1);
    for record in &mut records {
        let decides =
            hone_feedback::split::side(record, 0.1, 1 ^ 0x5eed) == hone_feedback::split::Side::HeldOut;
        if split(record) == hone_feedback::split::Side::Train && !decides {
            for item in &mut record.feedback {
                if let Form::Comparison { better, worse } = &mut item.form {
                    std::mem::swap(better, worse);
                }
            }
        }
    }
    let settings = settings(&bench, folder.path(), &records);
    let done = Run::prepare(settings, &folder.path().join("out"), false, "hone".into(), quiet())
        .unwrap()
        .go()
        .unwrap();
    assert!(done.model.is_none());
    let ended = done.report.plan.steps[0].ended.clone().unwrap();
    assert!(ended.starts_with("rolled back: -"), "{ended}");
    assert_eq!(done.outcome.verdict(), Verdict::NotImproved);
}

#[test]
fn forms_decide() {
    let (bench, folder) = (Bench::new(6).unwrap(), tempfile::tempdir().unwrap());
    let planned = |records: Vec<Record>| {
        let settings = settings(&bench, folder.path(), &records);
        let run = Run::prepare(settings, folder.path(), false, "hone".into(), quiet()).unwrap();
        run.plan.stages.iter().map(|stage| stage.method.clone()).collect::<Vec<_>>()
    };
    assert_eq!(planned(bench.thumbs(100, "a")), ["kto", "a-lol"]);
    assert_eq!(planned(bench.edits(100, "a")), ["sft", "dpo", "reward-pairs"]);
    assert_eq!(planned(bench.rankings(100, 4, "a")), ["dpo", "lipo", "irpo", "reward-pairs", "reward-lists"]);
    assert_eq!(planned(bench.ratings(100, "a")), ["kto", "a-lol", "reward-ratings"]);
    assert_eq!(planned(bench.marks(100, "a", true)), ["reward-steps"]);
    assert_eq!(planned(bench.marks(100, "a", false)), ["reward-spans"]);
}

/// Words about the first response of the first `count` records.
fn criticised(mut records: Vec<Record>, count: usize) -> Vec<Record> {
    for record in records.iter_mut().take(count) {
        *record = record.clone().say(Form::Critique { on: Some("a".into()), text: "too dull".into() });
    }
    records
}

/// Records of a world's tasks, with an outcome each.
fn checked(bench: &Bench) -> Vec<Record> {
    let mut records = bench.records(100, 1, "a");
    for (seed, record) in records.iter_mut().enumerate() {
        let task = serde_json::json!({ "world": "sums", "level": 1, "seed": seed });
        record.extra.insert("task".into(), task);
        let form = Form::Outcome { on: "a".into(), check: "oracle".into(), passed: false };
        *record = record.clone().say(form);
    }
    records
}

#[test]
fn rivals_need_their_forms() {
    let (bench, folder) = (Bench::new(6).unwrap(), tempfile::tempdir().unwrap());
    let plan = |records: Vec<Record>| {
        let settings = Settings { budget: None, ..settings(&bench, folder.path(), &records) };
        Run::prepare(settings, folder.path(), false, "hone".into(), quiet()).unwrap().plan
    };
    let planned = |records| {
        let of = |stage: plan::Stage| match stage.rival_of {
            Some(plain) => format!("{} against {plain}", stage.method),
            None => stage.method,
        };
        plan(records).stages.into_iter().map(of).collect::<Vec<_>>()
    };
    let left = |records, id: &str| {
        let plan = plan(records);
        plan.left.into_iter().find(|(method, _)| method == id).map(|(_, why)| why).unwrap()
    };
    let edits = || bench.edits(100, "a");
    assert_eq!(planned(criticised(edits(), 100)), ["sft", "ilf against sft", "dpo", "reward-pairs"]);
    assert_eq!(left(edits(), "ilf"), "stands against sft; the log has no words about answers");
    let few = left(criticised(edits(), 12), "ilf");
    assert!(few.ends_with("words about answers are too few; 16 are needed"), "{few}");
    let lists = left(bench.pairs(100, "a"), "lipo");
    assert_eq!(lists, "stands against dpo; the log has no lists of three or more graded answers");
    assert_eq!(left(bench.thumbs(100, "a"), "irpo"), "stands against dpo, which is not planned");
    let lists = ["dpo", "lipo against dpo", "irpo against dpo", "reward-pairs", "reward-lists"];
    assert_eq!(planned(bench.rankings(100, 3, "a")), lists);
    assert_eq!(planned(bench.ratings(100, "a")), ["kto", "a-lol against kto", "reward-ratings"]);
    let mut both = bench.pairs(100, "a");
    both.extend(bench.ratings(40, "b"));
    assert_eq!(planned(both)[..2], ["dpo", "a-lol against dpo"]);
    let plain = planned(checked(&bench));
    assert_eq!(plain[..2], ["rejection-sampling", "grpo"]);
    assert!(!plain.contains(&"critique-grpo against grpo".to_string()), "{plain:?}");
    let words = planned(criticised(checked(&bench), 100));
    assert_eq!(words[..3], ["rejection-sampling", "grpo", "critique-grpo against grpo"]);
}

#[test]
fn rivals_take_what_the_budget_leaves() {
    let (bench, folder) = (Bench::new(6).unwrap(), tempfile::tempdir().unwrap());
    let mut records = bench.rankings(200, 3, "a");
    records.extend(criticised(bench.edits(100, "b"), 100));
    let plan = |budget| {
        let settings = Settings { budget, ..settings(&bench, folder.path(), &records) };
        Run::prepare(settings, folder.path(), false, "hone".into(), quiet()).unwrap().plan
    };
    let rivals = |plan: &Plan| plan.stages.iter().filter(|stage| stage.rival_of.is_some()).count();
    let whole = plan(None);
    assert_eq!(rivals(&whole), 3);
    let seconds = |plan: &Plan| plan.stages.iter().map(|stage| stage.seconds).sum::<f64>();
    let mut counts = vec![];
    for share in [0.1, 1.0, 1.5, 2.0, 40.0] {
        let budget = seconds(&whole) * share;
        let plan = plan(Some(budget));
        // 0.55 of the budget is for training.
        assert!(seconds(&plan) <= 0.5501 * budget, "{} of {budget}", seconds(&plan));
        for stage in &whole.stages {
            let there = plan.stages.iter().find(|other| other.method == stage.method);
            let why = plan.left.iter().find(|(method, _)| *method == stage.method);
            match (there, &stage.rival_of) {
                (Some(_), None) => {}
                (Some(there), Some(plain)) => {
                    let plain = plan.stages.iter().find(|other| other.method == *plain).unwrap();
                    let least = plain.seconds.min(stage.seconds);
                    // The speed is measured anew for each plan.
                    assert!(there.seconds > 0.2 * least && there.examples >= 16, "{there:?}");
                }
                (None, None) => panic!("{} is left aside", stage.method),
                (None, Some(_)) => {
                    assert!(why.unwrap().1.contains("more than the budget leaves"), "{why:?}");
                }
            }
        }
        counts.push(rivals(&plan));
    }
    assert_eq!((counts[0], counts[4]), (0, 3), "{counts:?}");
}

/// DPO and LiPO on rankings, at these learning rates: how each ended, and what came of the run.
fn raced(bench: &Bench, out: &Path, rates: [f64; 2], resume: bool) -> ([Done; 2], Improved) {
    let mut settings = settings(bench, out.parent().unwrap(), &bench.rankings(160, 4, "lists"));
    settings.set = ["dpo", "lipo"]
        .into_iter()
        .zip(rates)
        .map(|(id, rate)| format!("{id}.training.learning_rate={rate:?}"))
        .collect();
    let mut run = Run::prepare(settings, out, resume, "hone".into(), quiet()).unwrap();
    run.plan.stages.retain(|stage| ["dpo", "lipo"].contains(&stage.method.as_str()));
    let improved = run.go().unwrap();
    let done = |folder: &str| read_json(&out.join(folder).join("done.json")).unwrap();
    ([done("step-1-dpo"), done("step-2-lipo")], improved)
}

#[test]
fn a_rival_is_chosen_if_it_gains_more_and_not_else() {
    let (bench, folder) = (Bench::new(3).unwrap(), tempfile::tempdir().unwrap());
    // A rate of 0 leaves the start: a gain of exactly 0, which is kept and beaten by any gain.
    let out = folder.path().join("wins");
    let ([dpo, lipo], run) = raced(&bench, &out, [0.0, 3e-3], false);
    assert_eq!((dpo.kept, dpo.gain), (true, Some(0.0)));
    assert!(lipo.kept && lipo.gain.unwrap() > 0.1, "{lipo:?}");
    assert_eq!(lipo.against, Some(Against { method: "dpo".into(), gain: Some(0.0) }));
    let gain = lipo.gain.unwrap();
    let said = [
        "kept: +0.0000 on validation prompts; lipo was chosen over it".to_string(),
        format!("chosen over dpo: {gain:+.4} against +0.0000 on validation prompts"),
    ];
    let ended = |run: &Improved| {
        run.report.plan.steps.iter().map(|step| step.ended.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ended(&run), said);
    let weights = |folder: &Path| Policy::from_folder(folder).unwrap().model.params.data;
    let start = bench.policy().unwrap().model.params.data;
    assert!(weights(&out.join("model")) != start);
    // As if the run had been killed in the rival.
    std::fs::remove_file(out.join("step-2-lipo/done.json")).unwrap();
    let ([_, again], resumed) = raced(&bench, &out, [0.0, 3e-3], true);
    assert_eq!((again.gain, again.against), (lipo.gain, lipo.against));
    assert_eq!(format!("{:?}", resumed.outcome), format!("{:?}", run.outcome));

    let out = folder.path().join("loses");
    let ([dpo, lipo], run) = raced(&bench, &out, [3e-3, 0.0], false);
    assert!(dpo.kept && dpo.gain.unwrap() > 0.1, "{dpo:?}");
    assert_eq!((lipo.kept, lipo.gain), (false, Some(0.0)));
    let gain = dpo.gain.unwrap();
    assert_eq!(ended(&run)[0], format!("kept: {gain:+.4} on validation prompts"));
    assert_eq!(
        ended(&run)[1],
        format!("not chosen: +0.0000 against {gain:+.4} of dpo on validation prompts")
    );
    // What goes on is the plain step's policy.
    assert!(weights(&out.join("model")) != start && !out.join("step-2-lipo/model").exists());
}

#[test]
fn all_spans_of_one_response_are_one_example() {
    let (bench, folder) = (Bench::new(6).unwrap(), tempfile::tempdir().unwrap());
    let records = bench.marks(100, "a", false);
    let settings = settings(&bench, folder.path(), &records);
    let run = Run::prepare(settings, folder.path(), false, "hone".into(), quiet()).unwrap();
    let marked = run.log().train.iter().filter(|record| !record.feedback.is_empty()).count();
    assert!(run.log().train.iter().map(|record| record.feedback.len()).sum::<usize>() > marked);
    assert_eq!(run.plan.stages[0].examples, marked);
}

#[test]
fn a_log_that_cannot_feed_a_method_says_what_it_could_feed() {
    let (bench, folder) = (Bench::new(7).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.thumbs(100, "a"));
    settings.methods = vec!["dpo".into()];
    let refused =
        Run::prepare(settings.clone(), folder.path(), false, "hone".into(), quiet()).unwrap_err().to_string();
    assert!(refused.starts_with("method `dpo`: needs pairs, got "), "{refused}");
    assert!(
        refused.contains("of thumb") && refused.contains("it could feed") && refused.contains("kto"),
        "{refused}"
    );
    settings.methods = vec!["dppo".into()];
    let refused =
        Run::prepare(settings, folder.path(), false, "hone".into(), quiet()).unwrap_err().to_string();
    assert!(refused.contains("the nearest is `dpo`"), "{refused}");
}

/// What each method says of a log that holds nothing it can learn from: which shape it needs, how much of what is there in
/// how many records, and who could use that.
#[test]
fn every_method_names_what_a_log_lacks() {
    let (bench, folder) = (Bench::new(7).unwrap(), tempfile::tempdir().unwrap());
    let logs = [
        ("thumb", bench.thumbs(100, "thumbs")),
        ("step", bench.marks(100, "steps", true)),
        ("span", bench.marks(100, "spans", false)),
    ];
    let mut seen = 0;
    for method in crate::catalogue::METHODS {
        let feeds = |records: &[Record]| records.iter().any(|record| method.needs.fed_by(record));
        let Some((form, records)) = logs.iter().find(|(_, records)| !feeds(records)) else {
            // Prompts are in every log.
            assert!(matches!(method.needs, Needs::Prompts | Needs::Rules), "{}", method.id);
            continue;
        };
        let mut settings = settings(&bench, folder.path(), records);
        (settings.methods, settings.recipes) = (vec![method.id.into()], vec![]);
        let refused = Run::prepare(settings, folder.path(), false, "hone".into(), quiet());
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        let begins = format!("method `{}`: needs {}, got ", method.id, method.needs.name());
        assert!(refused.starts_with(&begins), "{}: {refused}", method.id);
        let count = refused[begins.len()..].split(' ').next().and_then(|count| count.parse::<usize>().ok());
        assert!(count.is_some_and(|count| count > 0), "{refused}");
        for part in [format!(" of {form} in "), " records; it could feed ".to_string()] {
            assert!(refused.contains(&part), "{}: {part} not in {refused}", method.id);
        }
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");
}

#[test]
fn a_small_budget_means_fewer_steps() {
    let (bench, folder) = (Bench::new(8).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.pairs(400, "pairs"));
    let steps = |settings: &Settings| {
        let run = Run::prepare(settings.clone(), folder.path(), false, "hone".into(), quiet()).unwrap();
        run.plan.stages.iter().map(|stage| stage.steps).sum::<u64>()
    };
    let ample = steps(&settings);
    settings.budget = Some(0.01);
    assert!(steps(&settings) < ample / 4, "{} of {ample}", steps(&settings));
}

#[test]
fn few_prompts_are_split_by_answers() {
    let (bench, folder) = (Bench::new(9).unwrap(), tempfile::tempdir().unwrap());
    let mut records = bench.ratings(100, "a");
    let prompt = records[0].prompt.clone();
    records.iter_mut().for_each(|record| record.prompt = prompt.clone());
    let run =
        Run::prepare(settings(&bench, folder.path(), &records), folder.path(), false, "hone".into(), quiet())
            .unwrap();
    assert_eq!(run.log().split, read::Split::Answer);
    assert!(run.plan_text().contains("too few prompts"));
    assert!(run.log().held_out.len() > 5);
}

#[test]
fn an_adapter_is_trained_and_written() {
    let (bench, folder) = (Bench::new(10).unwrap(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bench, folder.path(), &bench.edits(120, "edits"));
    settings.methods = vec!["sft".into()];
    settings.set = vec!["sft.training.learning_rate=1e-2".into()];
    settings.lora = 4;
    let done = Run::prepare(settings, &folder.path().join("out"), false, "hone".into(), quiet())
        .unwrap()
        .go()
        .unwrap();
    let model = done.model.unwrap();
    assert!(model.join("adapter_config.json").exists() && !model.join("model.safetensors").exists());
    assert_eq!(done.outcome.verdict(), Verdict::Improved, "{}", done.outcome);
}

#[test]
fn every_published_recipe_is_typed_and_dry_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/real");
    let out = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let recipe = Recipe::read(&path).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(recipe.method.as_str()));
        let Some(crate::recipe::Source::Published(model)) = &recipe.model else {
            panic!("{}: names no published model", path.display());
        };
        let name = path.display();
        let settings = recipe::settings(&recipe, out.path(), true).unwrap_or_else(|e| panic!("{name}: {e}"));
        let run = Run::prepare(settings, out.path(), false, String::new(), quiet())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let plan = run.plan_text();
        assert!(plan.contains(&model.name) && plan.contains("is not here: hone-tiny stands in"), "{plan}");
        let first = run.first_batch_text().unwrap_or_else(|e| panic!("{name}: {e}"));
        let memory =
            if model.family == crate::recipe::ENDPOINT { "served elsewhere" } else { "memory  about " };
        assert!(first.contains(memory) && first.contains("\nbatch   "), "{name}: {first}");
        assert!(first.contains("example 1, sequence 1 of"), "{name}: {first}");
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "a dry run wrote into the run's folder");
}

#[test]
fn a_dry_run_shows_what_the_method_trains_on() {
    let bench = Bench::new(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dpo = |settings: Settings| Settings { methods: vec!["dpo".into()], budget: None, ..settings };
    let records = bench.pairs(60, "train");
    let settings = dpo(settings(&bench, folder.path(), &records));
    let run = Run::prepare(settings, folder.path(), false, String::new(), quiet()).unwrap();
    let text = run.first_batch_text().unwrap();
    assert!(text.contains("memory  about "), "{text}");
    assert!(text.contains("example 1, sequence 2 of 2"), "{text}");
    // Of both responses of a pair, words and stop token are scored; the words of the prompt are not.
    let scored: Vec<&str> = text.lines().filter(|line| line.starts_with("      * ")).collect();
    let read: Vec<&str> = text.lines().filter(|line| line.starts_with("        ")).collect();
    assert_eq!(scored.len(), 4, "{text}");
    let stop = run.policy.tokenizer.token(run.policy.tokenizer.stop_tokens()[0]).unwrap();
    assert!(scored.iter().all(|line| line.ends_with(&stop)), "{text}");
    assert!(read.iter().any(|line| line.contains("say")), "{text}");
    let weights = &run.policy.model.params.data;
    assert!(*weights == bench.policy().unwrap().model.params.data, "a dry run trained");
}
