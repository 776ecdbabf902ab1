//! What every world promises, tried on many seeds.

use hone_worlds::{Detail, Flaw, Place, Task, World, seed, world, worlds};
use proptest::prelude::*;

/// Runs a property over every world, level and a few seeds around the drawn one.
fn every_task(drawn: u64, mut property: impl FnMut(&dyn World, &dyn Task, u64)) {
    for world in worlds().into_iter().filter(|world| !world.runs_programs()) {
        for level in world.levels() {
            let task = world.task(level, drawn).expect("level within the world's own range");
            property(world.as_ref(), task.as_ref(), drawn);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reference_passes(drawn in any::<u64>()) {
        every_task(drawn, |world, task, _| {
            let check = task.check(&task.reference()).unwrap();
            assert!(check.right, "{}: {}\n{}\n{check:?}", world.id(), task.prompt(), task.reference());
            assert!(check.score == 1.0 && check.well_formed && check.result_right && check.flaws.is_empty());
            for detail in Detail::ALL {
                assert_eq!(task.explain(&task.reference(), detail).unwrap(), "all right");
            }
        });
    }

    #[test]
    fn every_planted_error_is_found_and_named(drawn in any::<u64>()) {
        every_task(drawn, |world, task, drawn| {
            let mut rng = seed::rng(drawn, "plant");
            for kind in task.plantable() {
                let planted = task.plant(kind, &mut rng).expect("a plantable kind");
                let shown = format!("{}: {}\n--\n{}\n--\n{planted:?}", world.id(), task.prompt(), planted.answer);
                let check = task.check(&planted.answer).unwrap();
                assert!(!check.right && check.score < 1.0, "{shown}\n{check:?}");
                let Flaw { kind: found, place, .. } = check.first().expect("a flaw");
                assert_eq!((*found, *place), (kind, planted.place), "{shown}\n{check:?}");
                for detail in Detail::ALL {
                    let said = task.explain(&planted.answer, detail).unwrap();
                    assert_ne!(said, "all right", "{shown}");
                    let names_place = check.first().is_some_and(|flaw| said.contains(&called(flaw)));
                    assert!(detail == Detail::Verdict || names_place, "{shown}\n{said}");
                    assert!(detail < Detail::Kind || said.contains(kind), "{shown}\n{said}");
                }
            }
        });
    }

    #[test]
    fn any_text_gets_a_check(drawn in any::<u64>(), answer in "[ -~\n🙂é]{0,60}") {
        every_task(drawn, |_, task, _| {
            let check = task.check(&answer).unwrap();
            assert!((0.0..=1.0).contains(&check.score));
            assert_eq!(check.right, check.flaws.is_empty());
            assert_eq!(check.right, check.score == 1.0);
            for flaw in &check.flaws {
                if let Place::Span(start, end) = flaw.place {
                    assert!(start < end && end <= answer.chars().count(), "{flaw:?} in {answer:?}");
                }
            }
        });
    }

    #[test]
    fn a_seed_gives_the_same_task(drawn in any::<u64>()) {
        every_task(drawn, |world, task, drawn| {
            let again = (world.levels()).filter_map(|level| world.task(level, drawn).ok());
            assert!(again.map(|other| other.prompt()).any(|prompt| prompt == task.prompt()));
        });
    }
}

fn called(flaw: &Flaw) -> String {
    if flaw.name.is_empty() { flaw.place.to_string() } else { flaw.name.clone() }
}

#[test]
fn texts_are_short() {
    for world in worlds() {
        let level = world.middle();
        let mut longest = (0, String::new());
        for drawn in 0..500 {
            let task = world.task(level, drawn).unwrap();
            let text = format!("{}\n{}", task.prompt(), task.reference());
            longest = longest.max((text.chars().count(), text));
        }
        // The model that is shipped reads a few hundred characters.
        assert!(longest.0 <= 260, "{}: {} characters\n{}", world.id(), longest.0, longest.1);
    }
}

#[test]
fn tasks_differ_from_seed_to_seed() {
    for world in worlds() {
        let prompts: std::collections::HashSet<String> =
            (0..500).map(|drawn| world.task(world.middle(), drawn).unwrap().prompt()).collect();
        // A training set and a held-out set need not share prompts.
        assert!(prompts.len() > 400, "{}: {} of 500 prompts differ", world.id(), prompts.len());
    }
}

#[test]
fn unknown_names_say_what_there_is() {
    let said = world("sum").unwrap_err().to_string();
    assert!(said.starts_with("world: needs one of sums") && said.ends_with("got `sum`"), "{said}");
    for world in worlds() {
        let beyond = world.levels().end() + 1;
        let said = world.task(beyond, 1).unwrap_err().to_string();
        assert!(said.contains("setting level: needs 1 to"), "{said}");
        let task = world.task(world.middle(), 1).unwrap();
        let said = task.plant("nothing", &mut seed::rng(1, "")).unwrap_err().to_string();
        assert!(said.contains("cannot plant `nothing` here: needs one of"), "{said}");
    }
}
