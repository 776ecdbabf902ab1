//! Writes a log of a world and the sample people: `cargo run -p hone-worlds --example simulate -- notes log.jsonl`.

use std::path::Path;

use hone_worlds::people::{Form, LogSettings, People, log, write_log};
use hone_worlds::world;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(id), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: simulate WORLD OUT.jsonl [FORM…]".into());
    };
    let world = world(&id)?;
    let mut forms = arguments.map(|name| Form::named(&name)).collect::<Result<Vec<_>, _>>()?;
    if forms.is_empty() {
        forms = Form::ALL.into_iter().filter(|form| *form != Form::Rule || id == "notes").collect();
    }
    let settings = LogSettings { forms, ..LogSettings::default() };
    let records = log(world.as_ref(), &People::sample()?, &settings, None)?;
    write_log(Path::new(&path), &records)?;
    println!("{path}: {} records", records.len());
    Ok(())
}
