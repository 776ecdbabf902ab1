//! Published sets in the layout of their authors.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use serde_json::{Map, Value};

use super::hh::compared;
use super::row::Row;
use super::trl::record_of;
use super::{Context, Format, Joins};
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Message, Prompt, Record, Response};
use crate::text;

/// `{"conversations":[{"from","value"}],"chosen":{"from","value"},"rejected":…}`
pub(super) static SHAREGPT: Format = Format {
    name: "sharegpt-preference",
    about: "LLaMA-Factory preference: conversations, chosen, rejected with from and value",
    looks_like: |row| {
        row.contains_key("conversations") && row.contains_key("chosen") && row.contains_key("rejected")
    },
    read: |mut row, _| {
        let mut messages = Vec::new();
        for (index, turn) in row.list("conversations")?.into_iter().enumerate() {
            messages.push(sharegpt(turn).map_err(|fault| fault.under(&format!("conversations[{index}]")))?);
        }
        let mut side = |name: &str| {
            let turn = row.need(name, "an object with from and value")?;
            let message = sharegpt(turn).map_err(|fault| fault.under(name))?;
            Ok(super::row::answer(vec![message]))
        };
        let (chosen, rejected) = (side("chosen")?, side("rejected")?);
        compared(row, messages, chosen, rejected)
    },
    write: None,
    joins: Joins::No,
};

fn sharegpt(turn: Value) -> Result<Message, Fault> {
    let Value::Object(turn) = turn else {
        return Err(Fault::new("", "an object with from and value", turn.to_string()));
    };
    let mut turn = Row(turn);
    let (from, value) = (turn.text("from")?, turn.text("value")?);
    let role = match from.as_str() {
        "human" => "user",
        "gpt" => "assistant",
        other => other,
    };
    Ok(Message::new(role, value))
}

/// A column of a table without a header.
fn cell(row: &Map<String, Value>, index: usize) -> Option<&str> {
    row.get(&index.to_string()).and_then(Value::as_str)
}

/// instruction, input, output, score from 1 to 7
pub(super) static SPARSE_RATINGS: Format = Format {
    name: "sparse-ratings",
    about: "sparse_feedback ratings: a table without header: instruction, input, output, score 1 to 7",
    looks_like: |row| {
        let score = cell(row, 3).and_then(|score| score.trim().parse::<f64>().ok());
        !row.contains_key("4") && score.is_some_and(|score| (1.0..=7.0).contains(&score))
    },
    read: |mut row, _| {
        let prompt = instruction(&mut row)?;
        let output = row.text("2")?;
        let value = row.number("3")?;
        let mut record = record_of(row, prompt);
        record.responses.push(Response::new("a", output));
        Ok(record.say(Form::Rating { on: "a".into(), value, scale: Some([1.0, 7.0]) }))
    },
    write: None,
    joins: Joins::No,
};

/// instruction, input, output 1, output 2, `(a)` or `(b)` or `equal`
pub(super) static SPARSE_RANKINGS: Format = Format {
    name: "sparse-rankings",
    about: "sparse_feedback rankings: a table without header: instruction, input, output 1, output 2, (a)|(b)|equal",
    looks_like: |row| cell(row, 4).is_some_and(|label| matches!(label.trim(), "(a)" | "(b)" | "equal")),
    read: |mut row, _| {
        let prompt = instruction(&mut row)?;
        let (first, second) = (row.text("2")?, row.text("3")?);
        let label = row.text("4")?;
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let form = match label.trim() {
            "(a)" => Form::Comparison { better: a, worse: b },
            "(b)" => Form::Comparison { better: b, worse: a },
            "equal" => Form::Ranking { order: vec![vec![a, b]] },
            other => return Err(Fault::new("4", "(a), (b) or equal", format!("{other:?}"))),
        };
        let record = record_of(row, prompt);
        Ok(record.respond("a", first).respond("b", second).say(form))
    },
    write: None,
    joins: Joins::No,
};

/// Instruction and input; the source writes a missing input as `nan`.
fn instruction(row: &mut Row) -> Result<Prompt, Fault> {
    let instruction = row.text("0")?;
    let input = row.maybe_text("1")?.filter(|input| !input.trim().is_empty() && input != "nan");
    Ok(Prompt::from(match input {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction,
    }))
}

/// Short answers with score, label and written feedback; the questions lie in `questions.jsonl` beside the file.
pub(super) static SAF: Format = Format {
    name: "saf",
    about: "SAF: response, feedback, score, label; questions in questions.jsonl beside it",
    looks_like: |row| {
        ["response", "feedback", "score", "label", "question_id"].iter().all(|name| row.contains_key(*name))
    },
    read: saf,
    write: None,
    joins: Joins::No,
};

fn saf(mut row: Row, context: &mut Context) -> Result<Record, Fault> {
    let file = row.maybe_text("file")?.unwrap_or_default();
    let mut references = row.take("reference_answers");
    let question = match row.maybe_text("question")? {
        Some(question) => question,
        None => {
            let found = question_beside(context, &file)?;
            references = found.get("reference_answers").cloned();
            found.get("question").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    let response = row.text("response")?;
    let feedback = row.maybe_text("feedback")?.filter(|feedback| !feedback.trim().is_empty());
    let value = row.number("score")?;
    let label = row.take("label");
    let id = row.maybe_text("answer_id")?;
    let mut record = record_of(row, Prompt::from(question));
    record.id = id.unwrap_or_default();
    record.responses.push(Response::new("a", response));
    let mut mark =
        Feedback::from(Form::Rating { on: "a".into(), value, scale: Some([0.0, 1.0]) }).by("grader");
    mark.extra.extend(label.map(|label| ("label".to_owned(), label)));
    record.feedback.push(mark.about("correct"));
    if let Some(text) = feedback {
        record.feedback.push(Feedback::from(Form::Critique { on: Some("a".into()), text }).by("grader"));
    }
    record.extra.insert("file".into(), file.into());
    record.extra.extend(references.map(|references| ("reference_answers".to_owned(), references)));
    Ok(record)
}

/// The question of a file; split and language are part of the name of the answers' file.
fn question_beside<'a>(context: &'a mut Context, file: &str) -> Result<&'a Map<String, Value>, Fault> {
    let missing =
        |got: &str| Fault::new("question", "a question here or in questions.jsonl beside the file", got);
    let path = context.path.clone().ok_or_else(|| missing("a stream without a folder"))?;
    let questions = match &mut context.questions {
        Some(questions) => questions,
        none => none.insert(
            read_questions(&path.with_file_name("questions.jsonl")).map_err(|error| missing(&error))?,
        ),
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let keys: Vec<&String> = questions
        .keys()
        .filter(|key| {
            let mut parts = key.split('\0');
            let (split, language) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            parts.next() == Some(file) && name.contains(split) && name.contains(language)
        })
        .collect();
    let key =
        keys.first().map(|key| (*key).clone()).ok_or_else(|| missing(&format!("none for file {file:?}")))?;
    questions.get(&key).ok_or_else(|| missing("none"))
}

fn read_questions(path: &Path) -> Result<HashMap<String, Map<String, Value>>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut questions = HashMap::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let question: Map<String, Value> = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let text = |name: &str| question.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        questions.insert([text("split"), text("lang"), text("file")].join("\0"), question);
    }
    Ok(questions)
}

/// Reviews of apps in three layouts: bare, against a query, and as sentences with marked features.
pub(super) static APP_REVIEWS: Format = Format {
    name: "app-reviews",
    about: "reviews of apps: app, review, text, with query and relevant, or with features_positive/neutral/negative",
    looks_like: |row| ["app", "review", "text"].iter().all(|name| row.contains_key(*name)),
    read: app_review,
    write: None,
    joins: Joins::No,
};

fn app_review(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let app = row.text("app")?;
    let review = row.text("review")?;
    let words = row.text("text")?;
    if row.has("query") {
        let query = row.text("query")?;
        let relevant = row.boolean("relevant")?;
        let mut record =
            record_of(row, Prompt::from(format!("Find a review of {app} that is about: {query}")));
        record.id = format!("{review}:{query}");
        let item = Feedback::from(Form::Thumb { on: "review".into(), value: relevant })
            .about("relevant")
            .by("judge");
        return Ok(finish_review(record.respond("review", words).say(item), app));
    }
    if !row.0.contains_key("features_all") {
        let mut record = record_of(row, Prompt::from(format!("What do you think of {app}?")));
        record.id = review.clone();
        let critique = Feedback::from(Form::Critique { on: None, text: words }).by(review);
        return Ok(finish_review(record.say(critique), app));
    }
    let number = row.maybe_text("sentence_no")?.unwrap_or_default();
    let mut marks = Vec::new();
    let mut unfound = Vec::new();
    for (column, label, value) in [
        ("features_positive", "positive", 1.0),
        ("features_neutral", "neutral", 0.0),
        ("features_negative", "negative", -1.0),
    ] {
        for phrase in row.texts(column)? {
            match text::find(&words, &phrase) {
                Some(start) if !phrase.is_empty() => marks.push(Form::Span {
                    on: "sentence".into(),
                    start,
                    end: start + text::length(&phrase),
                    label: Some(label.into()),
                    value: Some(value),
                }),
                // The annotators wrote it in words of their own, so there is no place to mark.
                _ => unfound.push(Form::Critique {
                    on: Some("sentence".into()),
                    text: format!("{label} feature, not verbatim: {phrase}"),
                }),
            }
        }
    }
    let mut record = record_of(row, Prompt::from(format!("What do you think of {app}?")));
    record.id = format!("{review}:{number}");
    record.responses.push(Response::new("sentence", words));
    for form in marks.into_iter().chain(unfound) {
        record.feedback.push(Feedback::from(form).about("feature").by("annotators"));
    }
    Ok(finish_review(record, app))
}

fn finish_review(mut record: Record, app: String) -> Record {
    record.extra.insert("app".into(), app.into());
    record
}

/// Summaries with a verdict, an explanation, an instruction and a corrected version.
pub(super) static DEFACTO: Format = Format {
    name: "defacto",
    about: "DeFacto: candidate, has_error, feedback with summary, evidence, explanation, instruction",
    looks_like: |row| row.contains_key("candidate") && row.get("feedback").is_some_and(Value::is_object),
    read: |mut row, _| {
        let candidate = row.text("candidate")?;
        let has_error = row.boolean("has_error")?;
        let mut said = row.object("feedback")?;
        let mut part = |name: &str| -> Result<Option<String>, Fault> {
            let text = said.maybe_text(name).map_err(|fault| fault.under("feedback"))?;
            Ok(text.filter(|text| !text.trim().is_empty()))
        };
        let (summary, evidence) = (part("summary")?, part("evidence")?);
        let (explanation, instruction) = (part("explanation")?, part("instruction")?);
        let asked = match &evidence {
            Some(evidence) => {
                format!("Summarise in one sentence, true to the article, which says:\n{evidence}")
            }
            None => "Summarise the article in one sentence, true to it.".to_owned(),
        };
        let id = row.0.get("doc_id").and_then(Value::as_i64).map(|id| format!("doc-{id}"));
        if !said.0.is_empty() {
            row.0.insert("feedback".into(), Value::Object(said.0));
        }
        let mut record = record_of(row, Prompt::from(asked));
        record.id = id.unwrap_or_default();
        record.responses.push(Response::new("a", candidate));
        let on = || Some("a".to_owned());
        let mut say = |form: Form, aspect: &str| {
            record.feedback.push(Feedback::from(form).about(aspect).by("annotator"));
        };
        say(Form::Thumb { on: "a".into(), value: !has_error }, "factual");
        for (words, aspect) in [(explanation, "factual"), (instruction, "instruction")] {
            if let Some(text) = words {
                say(Form::Critique { on: on(), text }, aspect);
            }
        }
        if let Some(summary) = summary {
            say(Form::Edit { on: "a".into(), content: summary.into() }, "factual");
        }
        Ok(record)
    },
    write: None,
    joins: Joins::No,
};
