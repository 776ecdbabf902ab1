use std::fs;

use hone_lm::{ChatTemplate, Message, RenderOptions};

use super::*;

/// A run that is over in a few seconds.
fn short() -> Settings {
    let mut mix = Mix::default();
    mix.only_worlds(&["sums".into(), "notes".into()]).unwrap();
    Settings {
        seed: 3,
        size: Size::named("0.1m").unwrap(),
        vocabulary: 320,
        length: Length::Steps(30),
        step_tokens: 1000,
        learning_rate: 1e-2,
        threads: 2,
        save_every: 20,
        shown_from: 10,
        mix,
        ..Settings::default()
    }
}

fn lines(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_loss_falls_and_a_resumed_run_comes_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let mut steps = vec![];
    let outcome = run(&short(), &whole, false, &mut |progress| steps.push(progress.report.step)).unwrap();
    assert_eq!(steps, (1..=30).collect::<Vec<_>>());
    assert!(outcome.finished && outcome.steps == 30 && outcome.tokens >= 30_000, "{outcome:?}");
    let logged = lines(&whole);
    let losses: Vec<f64> = logged.iter().map(|line| line["loss"].as_f64().unwrap()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    // ln 320 = 5.8 before the first step; knowing which tokens occur at all takes it below 4.
    assert!(losses[0] > 5.0 && mean(&losses[25..]) < 0.7 * losses[0], "{losses:?}");
    for role in ["loss_answer", "loss_criticise", "loss_refine", "loss_label"] {
        assert!(logged[29][role].as_f64().unwrap() > 0.0, "{role}");
    }

    // The same run, stopped after its first checkpoint.
    fs::create_dir(&cut).unwrap();
    for name in ["config.toml", "metrics.jsonl"] {
        fs::copy(whole.join(name), cut.join(name)).unwrap();
    }
    copy(&whole.join("tokenizer"), &cut.join("tokenizer"));
    copy(&whole.join("checkpoint-20"), &cut.join("checkpoint-20"));
    // What the caller asks for does not count: the run goes on with its own settings.
    let resumed = run(&Settings::default(), &cut, true, &mut |_| {}).unwrap();
    assert_eq!(resumed.steps, 30);
    let weights = |out: &Path| fs::read(out.join("model/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&cut));
    assert_eq!(lines(&cut), logged);

    let again = run(&short(), &whole, false, &mut |_| {}).unwrap_err().to_string();
    assert!(again.contains("--resume"), "{again}");
    // A run that goes on from a model begins where it ended.
    let more = folder.path().join("more");
    let settings = Settings { init: Some(outcome.model.clone()), length: Length::Steps(2), ..short() };
    run(&settings, &more, false, &mut |_| {}).unwrap();
    let (first, last) = (lines(&more)[0]["loss"].as_f64().unwrap(), mean(&losses[25..]));
    assert!((first - last).abs() < 0.3, "{first}, {last}");

    let model = hone_lm::Local::from_folder(&outcome.model, &hone_lm::LocalOptions::default()).unwrap();
    assert!(model.template().is_some());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn tokens_are_those_of_the_template_and_only_the_reply_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words");
    let settings = short();
    let stream = Stream::new(1, settings.mix.clone()).unwrap();
    let talks: Vec<Conversation> = (0..200).map(|index| stream.conversation(index).unwrap()).collect();
    let texts: Vec<String> =
        talks.iter().flat_map(|talk| [talk.prompt.clone(), talk.reply.clone()]).collect();
    vocabulary::write(&words, &texts, 400, CONTEXT).unwrap();
    let encoder = Encoder::new(&words, 4.0).unwrap();
    let template = ChatTemplate::from_folder(&words, &encoder.tokenizer).unwrap().unwrap();
    for talk in &talks {
        let encoded = encoder.encode(talk, 0.0, 1.0).unwrap();
        let messages = [Message::new("user", &*talk.prompt), Message::new("assistant", &*talk.reply)];
        let masked = template.mask_by_tag(&messages, &RenderOptions::default(), &encoder.tokenizer).unwrap();
        assert_eq!(encoded.ids, masked.ids, "{talk:?}");
        let mask: Vec<bool> = encoded.weights.iter().map(|weight| *weight > 0.0).collect();
        assert_eq!(mask, masked.mask, "{talk:?}");
        // What is shown and right is learnt beside the reply, and nothing else is.
        let with_shown = encoder.encode(talk, 0.5, 1.0).unwrap();
        assert_eq!(with_shown.ids, encoded.ids);
        let shown: Vec<u32> = (0..encoded.ids.len())
            .filter(|at| with_shown.weights[*at] == 0.5)
            .map(|at| encoded.ids[at])
            .collect();
        let expected = talk.shown.clone().map_or("", |range| &talk.prompt[range]);
        assert_eq!(encoder.tokenizer.decode(&shown, true).unwrap(), expected);
        assert!(
            with_shown
                .weights
                .iter()
                .zip(&encoded.weights)
                .all(|(with, without)| with == without || *with == 0.5)
        );
    }
    let (step, batches) = prepare(&settings, &stream, &encoder, 0, 0).unwrap();
    let tokens: usize = batches.iter().map(|batch| batch.tokens().len()).sum();
    let learnt: usize = batches.iter().map(|batch| batch.targets().len()).sum();
    let expected: usize = talks[..step.next as usize]
        .iter()
        .map(|talk| encoder.tokenizer.encode(&talk.reply, false).unwrap().len() + 1)
        .sum();
    assert!(tokens >= settings.step_tokens, "{tokens}");
    assert_eq!(learnt, expected);
    assert!(step.parts.iter().zip(&batches).all(|(part, batch)| part.weights.len() == batch.targets().len()));
}

#[test]
fn minutes_end_a_run_on_time_and_settings_out_of_range_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let settings = Settings { length: Length::Minutes(0.05), ..short() };
    let begun = Instant::now();
    let outcome = run(&settings, &out, false, &mut |_| {}).unwrap();
    // Three seconds, and what learning the tokenizer, a step and a checkpoint take beyond them.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(outcome.steps >= 1 && outcome.model.join("config.json").exists());

    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = short();
        change(&mut settings);
        run(&settings, &folder.path().join("none"), false, &mut |_| {}).unwrap_err().to_string()
    };
    assert!(refused(&|s| s.vocabulary = 259).contains("`vocabulary`: needs at least 260, got 259"));
    assert!(refused(&|s| s.size.heads = 5).contains("`size.heads`"));
    assert!(refused(&|s| s.size.kv_heads = 3).contains("`size.kv_heads`: needs a divisor of 4, got 3"));
    assert!(refused(&|s| s.step_tokens = 0).contains("`step_tokens`: needs at least 1"));
    assert!(refused(&|s| s.length = Length::Minutes(f64::NAN)).contains("`length`"));
    assert!(refused(&|s| s.mix.right = -1.0).contains("`right`"));
    assert!(Size::named("9b").unwrap_err().to_string().contains("0.1m, 0.7m, 2m, 3m"));
    assert!(!folder.path().join("none").exists());
}

/// The model that is shipped does what its page says, within chance.
#[test]
fn the_shipped_model_is_the_one_that_was_measured() {
    use crate::eval::{Settings, evaluate};

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/hone-tiny");
    let model = hone_lm::Local::from_folder(&folder, &hone_lm::LocalOptions::default()).unwrap();
    let page = fs::read_to_string(folder.join("../../docs/hone-tiny.md")).unwrap();
    let settings = Settings { prompts: 80, samples: 2, seed: 77, ..Settings::default() };
    let mut seen = 0;
    // Rows of the page's tables: world, role, share right in per cent, and more.
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (Ok(world), Ok(role)) = (hone_worlds::world(cells[0]), mix::role(cells[1])) else { continue };
        let claimed: f64 = cells[2].trim_end_matches(" %").parse().unwrap();
        let report = evaluate(&model, world.as_ref(), role, &settings).unwrap().report;
        let right = report.pass[0].1.estimate;
        // Two answers to one prompt are not independent: at worst there are as many draws as prompts. Four deviations.
        let p = claimed / 100.0;
        let margin = 4.0 * (p * (1.0 - p) / report.prompts as f64).sqrt();
        assert!((right - p).abs() < margin, "{world:?} {}: {right}, the page says {claimed} %", cells[1]);
        if let Some(again) = report.again {
            assert!(again.gain.estimate > 0.0, "{world:?}: {again:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 16);
}

#[test]
fn a_reversed_run_reads_answers_from_their_end_and_writes_questions() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { order: TokenOrder::Reversed, length: Length::Steps(3), ..short() };
    let outcome = run(&settings, folder.path(), false, &mut |_| {}).unwrap();
    let model = folder::read(&outcome.model).unwrap();
    assert_eq!(TokenOrder::of(model.config()), TokenOrder::Reversed);
    let encoder = Encoder::new(&outcome.model, 1.0).unwrap();
    let stream = Stream::new(settings.seed, settings.mix.clone()).unwrap();
    let talk = stream.conversation(0).unwrap();
    let (forward, turned) =
        (encoder.encode(&talk, 0.0, 1.0).unwrap(), encoder.encode_reversed(&talk, 0.0).unwrap());
    // [user] Q [assistant] A [end] becomes A' [assistant] Q' [user] [end].
    let mut ids = forward.ids.clone();
    ids.pop();
    ids.reverse();
    ids.push(encoder.end);
    assert_eq!(turned.ids, ids);
    let opening = ids.iter().position(|id| *id == encoder.assistant).unwrap();
    let learnt: Vec<usize> = (0..ids.len()).filter(|&at| turned.weights[at] > 0.0).collect();
    assert_eq!(learnt, (opening + 1..ids.len()).collect::<Vec<_>>());
    // While it learns to read, all is learnt but the first token and the opening.
    let reading = encoder.encode_reversed(&talk, 1.0).unwrap().weights;
    assert_eq!(reading.iter().filter(|weight| **weight > 0.0).count(), ids.len() - 2);
}
