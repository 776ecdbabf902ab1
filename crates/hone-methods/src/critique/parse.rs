//! Replies of language models read as critiques, strictly: a reply is one, or it is a failure with a reason.

use hone_worlds::roles;
use serde::Deserialize;

use super::{Critique, Failure, SpanLabel, StepLabel, Subject};

type Read = std::result::Result<Critique, Failure>;

/// What the JSON form holds, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    text: String,
    #[serde(default)]
    spans: Vec<WireSpan>,
    steps: Vec<WireStep>,
    right: bool,
    #[serde(default)]
    score: Option<f64>,
    confidence: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireStep {
    step: usize,
    right: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSpan {
    quote: String,
    label: String,
}

/// A critique written as one JSON object, alone or in one fenced block. Steps count from 1 and may not contradict the
/// verdict; a quote must stand in the answer exactly once.
///
/// # Errors
/// What is not as it must be.
pub fn of_json(reply: &str, subject: &Subject<'_>) -> Read {
    let fail = |why: &str| Err(Failure::new(why, reply));
    let body = reply.trim();
    let fenced =
        body.strip_prefix("```json").or(body.strip_prefix("```")).and_then(|b| b.strip_suffix("```"));
    let wire: Wire = match serde_json::from_str(fenced.unwrap_or(body)) {
        Ok(wire) => wire,
        Err(error) if error.is_data() => return fail("JSON without the fields of a critique"),
        Err(_) => return fail("not one JSON object"),
    };
    if wire.text.trim().is_empty() {
        return fail("a critique without words");
    }
    if !(0.0..=1.0).contains(&wire.confidence)
        || wire.score.is_some_and(|score| !(0.0..=1.0).contains(&score))
    {
        return fail("a number outside [0, 1]");
    }
    let mut steps: Vec<StepLabel> = vec![];
    for WireStep { step, right } in wire.steps {
        let Some(index) = step.checked_sub(1).filter(|&index| index < subject.steps.len()) else {
            return fail("a step that the answer does not have");
        };
        if steps.iter().any(|known| known.index == index) {
            return fail("a step judged twice");
        }
        steps.push(StepLabel { index, right });
    }
    steps.sort_by_key(|step| step.index);
    if wire.right && steps.iter().any(|step| !step.right) {
        return fail("a right answer with a wrong step");
    }
    let mut spans = vec![];
    for WireSpan { quote, label } in wire.spans {
        let mut places = subject.answer.match_indices(&quote);
        let (Some((at, _)), None, false) = (places.next(), places.next(), quote.is_empty()) else {
            return fail("a quote that does not stand in the answer once");
        };
        let start = subject.answer.get(..at).map_or(0, |before| before.chars().count());
        let end = start + quote.chars().count();
        spans.push(SpanLabel { start, end, label: Some(label), value: Some(-1.0) });
    }
    spans.sort_by_key(|span| (span.start, span.end));
    let (text, right) = (wire.text.trim().to_owned(), Some(wire.right));
    let (score, confidence) = (wire.score, Some(wire.confidence));
    Ok(Critique { right, score, confidence, steps, spans, text, ..Critique::default() })
}

/// A critique in the words that the worlds' own models are trained on: `all right`, or what is first wrong, after
/// `step N:` where it is a step.
///
/// # Errors
/// An empty reply.
pub fn of_world(reply: &str, subject: &Subject<'_>) -> Read {
    let text = reply.trim();
    let Some(right) = roles::verdict(text) else {
        return Err(Failure::new("an empty reply", reply));
    };
    let number = |line: &str| line.strip_prefix("step ")?.split_once(':')?.0.parse::<usize>().ok();
    // Several wrong steps have a line each. What follows the first one may be right or not.
    let named = text.lines().find_map(number);
    let count = subject.steps.len();
    let steps = match (right, named.and_then(|number| number.checked_sub(1))) {
        (true, _) => (0..count).map(|index| StepLabel { index, right: true }).collect(),
        // A step after the last one written is missing: all that are there are right.
        (false, Some(wrong)) => {
            (0..count.min(wrong + 1)).map(|index| StepLabel { index, right: index != wrong }).collect()
        }
        (false, None) => vec![],
    };
    Ok(Critique { right: Some(right), steps, text: text.to_owned(), ..Critique::default() })
}

/// A critique in free words that approves if it says one of `approvals`, see [`approves`].
///
/// # Errors
/// An empty reply, unless the empty words are an approval.
pub fn of_words(reply: &str, approvals: &[String]) -> Read {
    let right = approvals.iter().any(|words| approves(reply, words));
    if !right && reply.trim().is_empty() {
        return Err(Failure::new("an empty reply", reply));
    }
    Ok(Critique { right: Some(right), text: reply.to_owned(), ..Critique::default() })
}

/// Whether a critique says `words` as a sentence of its own, at its beginning or as its last line: "I do not think it is
/// correct" and "It is correct that …" do not approve.
pub fn approves(critique: &str, words: &str) -> bool {
    let plain = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let (critique, words) = (plain(critique), plain(words));
    let begins = critique
        .strip_prefix(&words)
        .is_some_and(|rest| rest.is_empty() || words.is_empty() || rest.starts_with(['.', '!', '\n']));
    begins || critique.lines().next_back().is_some_and(|last| plain(last) == words)
}

/// The boxed number of the last line that begins with `**Answer**:`; `None` without such a line. A box within the critique
/// of a step is a verdict on that step, not the answer.
pub fn first_error(reply: &str) -> Option<i64> {
    let line = reply.lines().rev().map(str::trim).find(|line| line.starts_with("**Answer**:"))?;
    let (_, boxed) = line.rsplit_once("\\boxed{")?;
    boxed.split_once('}')?.0.trim().parse().ok()
}

/// A critique of steps that ends in the number of the first wrong step from 1, or -1.
///
/// # Errors
/// A reply without that line, or with a number that is no step.
pub fn of_boxed(reply: &str, subject: &Subject<'_>) -> Read {
    let count = subject.steps.len();
    let label = |right: bool| move |index| StepLabel { index, right };
    let (right, steps) = match first_error(reply) {
        None => return Err(Failure::new("no line `**Answer**: \\boxed{k}`", reply)),
        Some(-1) => (true, (0..count).map(label(true)).collect()),
        Some(number) => match usize::try_from(number - 1).ok().filter(|&wrong| wrong < count) {
            Some(wrong) => (false, (0..wrong).map(label(true)).chain([label(false)(wrong)]).collect()),
            None => return Err(Failure::new("a step that the answer does not have", reply)),
        },
    };
    Ok(Critique { right: Some(right), steps, text: reply.trim().to_owned(), ..Critique::default() })
}

#[cfg(test)]
mod tests {
    use hone_feedback::Record;

    use super::*;

    fn with<T>(f: impl FnOnce(&Subject<'_>) -> T) -> T {
        let record = Record::new("r", "p");
        f(&Subject::new(&record, "é one\ntwo\nthree"))
    }

    #[test]
    fn json_is_read_strictly() {
        let good = r#"{"text": "two is wrong", "spans": [{"quote": "two", "label": "sum"}],
            "steps": [{"step": 1, "right": true}, {"step": 2, "right": false}], "right": false, "confidence": 0.8}"#;
        let read = with(|s| of_json(good, s)).unwrap();
        assert_eq!((read.right, read.first_wrong(), read.confidence), (Some(false), Some(1), Some(0.8)));
        // "é one" and the line end are six characters, seven bytes.
        assert_eq!((read.spans[0].start, read.spans[0].end), (6, 9));
        assert_eq!(with(|s| of_json(&format!("```json\n{good}\n```"), s)).unwrap(), read);
        let wrong = |from: &str, to: &str| with(|s| of_json(&good.replace(from, to), s)).unwrap_err().why;
        assert_eq!(wrong("{\"text", "Here: {\"text"), "not one JSON object");
        assert_eq!(
            wrong("\"confidence\": 0.8", "\"confidence\": \"high\""),
            "JSON without the fields of a critique"
        );
        assert_eq!(wrong("\"confidence\"", "\"sure\""), "JSON without the fields of a critique");
        assert_eq!(wrong("0.8", "8"), "a number outside [0, 1]");
        assert_eq!(wrong("\"step\": 2", "\"step\": 4"), "a step that the answer does not have");
        assert_eq!(wrong("\"step\": 2", "\"step\": 1"), "a step judged twice");
        assert_eq!(
            wrong("\"right\": false, \"c", "\"right\": true, \"c"),
            "a right answer with a wrong step"
        );
        assert_eq!(
            wrong("\"quote\": \"two\"", "\"quote\": \"e\""),
            "a quote that does not stand in the answer once"
        );
        assert_eq!(wrong("two is wrong", " "), "a critique without words");
    }

    #[test]
    fn the_boxed_number_is_that_of_the_answer_line() {
        let reply = "Step 1 is \\boxed{-1}, I think.\nNo: it is \\boxed{1}.\n\n**Answer**: \\boxed{2}\n";
        assert_eq!(first_error(reply), Some(2));
        assert_eq!(first_error("it is \\boxed{-1}"), None);
        assert_eq!(first_error("**Answer**: \\boxed{x}"), None);
        let read = with(|s| of_boxed(reply, s)).unwrap();
        // 2 from 1 is index 1 from 0.
        assert_eq!((read.right, read.first_wrong(), read.steps.len()), (Some(false), Some(1), 2));
        let read = with(|s| of_boxed("**Answer**: \\boxed{-1}", s)).unwrap();
        assert_eq!((read.right, read.steps.len()), (Some(true), 3));
        for number in [0, 4, -2] {
            let said = with(|s| of_boxed(&format!("**Answer**: \\boxed{{{number}}}"), s));
            assert_eq!(said.unwrap_err().why, "a step that the answer does not have");
        }
    }

    #[test]
    fn the_worlds_words_name_the_step() {
        let read = with(|s| of_world("step 2: calculation, 1+1 is not 3, use 1+1=2", s)).unwrap();
        assert_eq!((read.right, read.first_wrong(), read.steps.len()), (Some(false), Some(1), 2));
        let read = with(|s| of_world("step 4: missing, the sum goes on, use 1+1=2", s)).unwrap();
        assert_eq!((read.right, read.first_wrong(), read.steps.len()), (Some(false), None, 3));
        let read = with(|s| of_world("all right", s)).unwrap();
        assert_eq!((read.right, read.steps.len()), (Some(true), 3));
        assert_eq!(with(|s| of_world(" \n", s)).unwrap_err().why, "an empty reply");
    }

    #[test]
    fn what_approves() {
        for critique in
            ["It is correct.", " it is correct", "**It is correct!**", "It is correct. Well done."]
        {
            assert!(approves(critique, "it is correct"), "{critique}");
        }
        for critique in [
            "I do not think it is correct.",
            "It is correct that 2 + 2 = 4, but the sum is wrong.",
            "It is correctly set out and wrong.",
            "The sum is wrong.",
            "",
        ] {
            assert!(!approves(critique, "it is correct"), "{critique}");
        }
        // The built-in model works first and judges in its last line.
        use hone_worlds::world::ALL_RIGHT;
        assert!(approves(ALL_RIGHT, ALL_RIGHT) && approves(&format!("1+1=2\n{ALL_RIGHT}"), ALL_RIGHT));
        assert!(!approves(&format!("not {ALL_RIGHT}"), ALL_RIGHT));
        assert!(of_words("", &["yes".into()]).is_err());
        assert_eq!(of_words("", &[String::new()]).unwrap().right, Some(true));
    }
}
