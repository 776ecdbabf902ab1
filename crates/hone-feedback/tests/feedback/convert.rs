//! From forms to training shapes, and what is lost.

use hone_feedback::convert::{self, Losses, Shape};
use hone_feedback::{Content, Feedback, Form, FormKind, Record};

use crate::words::every_form;

fn rating(on: &str, value: f64) -> Feedback {
    Form::Rating { on: on.into(), value, scale: Some([1.0, 5.0]) }.into()
}

fn three() -> Record {
    Record::new("r", "q").respond("a", "A").respond("b", "B").respond("c", "C")
}

fn ids(pairs: &[convert::Pair<'_>]) -> Vec<String> {
    pairs.iter().map(|pair| format!("{}>{}", pair.chosen.text(), pair.rejected.text())).collect()
}

#[test]
fn pairs_from_every_form_that_orders() {
    let mut losses = Losses::default();
    let ranking = three().say(Form::Ranking { order: vec![vec!["b".into()], vec!["a".into(), "c".into()]] });
    assert_eq!(ids(&convert::pairs(&ranking, &mut losses)), ["B>A", "B>C"]);
    assert_eq!(losses.of("tied responses of a ranking"), 2);

    // Two raters: only marks of the same rater on the same aspect meet.
    let rated = three()
        .say(rating("a", 4.0).by("x"))
        .say(rating("b", 2.0).by("x"))
        .say(rating("c", 2.0).by("x"))
        .say(rating("b", 5.0).by("y"));
    let mut losses = Losses::default();
    let pairs = convert::pairs(&rated, &mut losses);
    assert_eq!(ids(&pairs), ["A>B", "A>C"]);
    // (4 − 2) of a scale that is 4 wide.
    assert_eq!(pairs[0].margin, Some(0.5));
    assert_eq!(losses.of("equal ratings"), 1);
    assert_eq!(losses.of("rating without a second one to compare with"), 1);

    let edited = three()
        .say(Form::Edit { on: "a".into(), content: "A2".into() })
        .say(Form::Edit { on: "b".into(), content: "B".into() });
    let mut losses = Losses::default();
    assert_eq!(ids(&convert::pairs(&edited, &mut losses)), ["A2>A"]);
    assert_eq!(losses.of("pair of two equal texts"), 1);

    let outcome =
        |on: &str, check: &str, passed| Form::Outcome { on: on.into(), check: check.into(), passed };
    let checked = three()
        .say(outcome("a", "tests", true))
        .say(outcome("b", "tests", false))
        .say(outcome("c", "lint", false));
    assert_eq!(ids(&convert::pairs(&checked, &mut Losses::default())), ["A>B"]);

    let thumb = |on: &str, value| Form::Thumb { on: on.into(), value };
    let thumbed = three().say(thumb("b", true)).say(thumb("a", false)).say(thumb("b", true));
    let mut losses = Losses::default();
    assert_eq!(ids(&convert::pairs(&thumbed, &mut losses)), ["B>A"]);
    assert_eq!(losses.of("the same pair again"), 1);
}

#[test]
fn lists_average_marks_and_grade_places() {
    let mut losses = Losses::default();
    let record = three()
        .say(Form::Ranking { order: vec![vec!["b".into()], vec!["a".into()], vec!["c".into()]] })
        .say(rating("a", 5.0).by("x"))
        .say(rating("a", 3.0).by("y"))
        .say(rating("b", 2.0).by("x"))
        .say(Form::Comparison { better: "a".into(), worse: "b".into() })
        .say(Form::Comparison { better: "b".into(), worse: "a".into() })
        .say(Form::Comparison { better: "a".into(), worse: "c".into() });
    let lists = convert::lists(&record, &mut losses);
    assert_eq!(lists.len(), 3);
    assert_eq!(lists[0].labels, [1.0, 0.5, 0.0]);
    // Marks 5 and 3 are shares 1 and 1/2, mean 3/4; mark 2 is 1/4.
    assert_eq!(lists[1].labels, [0.75, 0.25]);
    // a won 2 of 3, b 1 of 2, c 0 of 1.
    assert_eq!(lists[2].labels, [2.0 / 3.0, 0.5, 0.0]);
    // One mark more than responses among the ratings; 6 sides of comparisons on 3 responses.
    assert_eq!(losses.of("several marks averaged into one label"), 1 + 3);
}

/// A share of a scale and a bare mark have no common measure: 5 of [1, 5] is a 1, a bare 3 is not three of them.
#[test]
fn marks_with_and_without_a_scale_make_lists_of_their_own() {
    let bare = |on: &str, value| Feedback::from(Form::Rating { on: on.into(), value, scale: None });
    let mut losses = Losses::default();
    let mixed = three().say(rating("a", 5.0)).say(rating("b", 1.0)).say(bare("b", 3.0)).say(bare("c", 9.0));
    let lists = convert::lists(&mixed, &mut losses);
    let texts = |list: &convert::List<'_>| list.contents.iter().map(|one| one.text().into_owned()).collect();
    let found: Vec<(Vec<String>, Vec<f64>)> =
        lists.iter().map(|list| (texts(list), list.labels.clone())).collect();
    let list = |texts: [&str; 2], labels: [f64; 2]| (texts.map(str::to_owned).to_vec(), labels.to_vec());
    // Bare marks are stretched over their list: 3 and 9 become 0 and 1.
    assert_eq!(found, [list(["B", "C"], [0.0, 1.0]), list(["A", "B"], [1.0, 0.0])]);
    let alone = three().say(rating("a", 5.0)).say(bare("b", 3.0));
    assert!(convert::lists(&alone, &mut losses).is_empty());
    assert_eq!(losses.of("fewer than 2 labelled responses"), 2);
}

/// Two machines ran the tests of one name: what passed on the one is not better than what failed on the other.
#[test]
fn outcomes_meet_within_one_judge() {
    let outcome = |on: &str, passed, by: &str| {
        Feedback::from(Form::Outcome { on: on.into(), check: "tests".into(), passed }).by(by)
    };
    let mut losses = Losses::default();
    let record = three().say(outcome("a", true, "x")).say(outcome("b", false, "y"));
    assert_eq!(ids(&convert::pairs(&record, &mut losses)), Vec::<String>::new());
    assert_eq!(ids(&convert::pairs(&record.say(outcome("c", false, "x")), &mut losses)), ["A>C"]);
    let gone = three().say(Form::Edit { on: "z".into(), content: "Z".into() });
    assert!(convert::pairs(&gone, &mut losses).is_empty());
    assert_eq!(losses.of("reference to a response that is not there"), 1);
}

#[test]
fn binary_and_scalar_labels() {
    let record = three()
        .say(rating("a", 5.0))
        .say(rating("b", 3.0))
        .say(rating("c", 2.0))
        .say(Form::Rating { on: "a".into(), value: 9.0, scale: None })
        .say(Form::Thumb { on: "c".into(), value: true });
    let mut losses = Losses::default();
    let labels: Vec<bool> =
        convert::binary_labels(&record, &mut losses).iter().map(|label| label.good).collect();
    assert_eq!(labels, [true, false, true]);
    assert_eq!(losses.of("rating at the middle of its scale"), 1);
    assert_eq!(losses.of("rating without a scale"), 1);
    let targets = convert::scalar_targets(&record, &mut Losses::default());
    let values: Vec<(f64, bool)> = targets.iter().map(|target| (target.value, target.scaled)).collect();
    assert_eq!(values, [(1.0, true), (0.5, true), (0.25, true), (9.0, false), (1.0, true)]);
}

#[test]
fn tokens_take_the_stronger_span() {
    let span = |start, end, value| Form::Span { on: "a".into(), start, end, label: None, value };
    let record = Record::new("r", "q")
        .respond("a", "abcdefgh")
        .say(span(0, 4, Some(1.0)))
        .say(span(2, 6, None))
        .say(span(8, 8, Some(1.0)));
    let mut losses = Losses::default();
    let spans = convert::span_labels(&record, &mut losses);
    let labels = convert::token_labels(&spans, &[(0, 2), (2, 4), (4, 5), (6, 8)], &mut losses);
    // The second token lies under +1 and -1: as far from 0, the worse stays.
    assert_eq!(labels, [1.0, -1.0, -1.0, 0.0]);
    assert_eq!(losses.of("overlapping spans on one token"), 1);
    assert_eq!(losses.of("span that touches no token"), 1);
}

#[test]
fn steps_by_judge() {
    let step = |index, correct| Feedback::from(Form::Step { on: "a".into(), index, correct });
    let record = Record::new("r", "q")
        .respond("a", "one\ntwo\n\nthree")
        .say(step(0, true).by("x"))
        .say(step(1, false).by("x"))
        .say(step(1, true).by("y"))
        .say(step(1, true).by("y"));
    let mut losses = Losses::default();
    let labels = convert::step_labels(&record, &mut losses);
    // A blank line separates paragraphs: "one\ntwo" is one step.
    assert_eq!(labels[0].steps, ["one\ntwo", "three"]);
    assert_eq!(labels[0].correct, [Some(true), Some(false)]);
    assert_eq!(labels[1].correct, [None, Some(true)]);
    assert_eq!(losses.of("second verdict on one step"), 1);
}

#[test]
fn words_bring_their_revision() {
    let record = every_form();
    let mut losses = Losses::default();
    let conditions = convert::conditions(&record, &mut losses);
    let kinds: Vec<FormKind> = conditions.iter().map(|condition| condition.origin.form).collect();
    assert_eq!(
        kinds,
        [FormKind::Critique, FormKind::Span, FormKind::Step, FormKind::Outcome, FormKind::Rule]
    );
    assert_eq!(conditions[0].revised, Some(&Content::from("Because air scatters short waves more.")));
    assert_eq!(conditions[4].response, None);
    assert_eq!(losses.of("place of a span"), 1);
    assert_eq!(losses.of("scope of a rule"), 1);
}

#[test]
fn demonstrations_are_edits_and_accepted_answers() {
    let record = every_form();
    let shown: Vec<String> = convert::demonstrations(&record, &mut Losses::default())
        .iter()
        .map(|demonstration| demonstration.content.text().into_owned())
        .collect();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0], "Because air scatters short waves more.");
    let refused = Record::new("r", "q").respond("a", "A").say(Form::Event {
        on: Some("a".into()),
        event: "accepted".into(),
        value: Some(0.0),
    });
    assert!(convert::demonstrations(&refused, &mut Losses::default()).is_empty());
}

#[test]
fn every_item_is_used_or_named_as_lost() {
    let record = every_form();
    for shape in Shape::ALL {
        assert!(shape.count(&record) > 0, "{}", shape.name());
    }
    let mut losses = Losses::default();
    convert::step_labels(&record, &mut losses);
    // Twelve items, one is a step.
    let others: u64 = FormKind::ALL.iter().map(|kind| losses.of(kind.name())).sum();
    assert_eq!(others, 11);
}
