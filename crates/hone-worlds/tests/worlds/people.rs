//! Logs of simulated people are logs like any other.

use hone_feedback::Record;
use hone_worlds::people::{Form, LogSettings, People, log};
use hone_worlds::worlds;

#[test]
fn every_world_writes_sound_records_of_every_form() {
    let people = People::sample().expect("the sample is valid");
    for world in worlds() {
        let mut forms = Form::ALL.to_vec();
        forms.retain(|form| *form != Form::Rule || world.id() == "notes");
        let settings = LogSettings { prompts: 12, responses: 3, forms, ..LogSettings::default() };
        let records = log(world.as_ref(), &people, &settings, None).expect("every form has its people");
        let mut items = 0;
        for value in &records {
            let record = Record::from_json(value.to_string().as_bytes()).expect("the record is read");
            let faults = record.validate();
            assert!(faults.is_empty(), "{value}: {faults:?}");
            assert_eq!(record.feedback.len(), value["feedback"].as_array().expect("a list").len());
            items += record.feedback.len();
        }
        assert!(items > 12 * 10, "{}: {items} items", world.id());
    }
}
