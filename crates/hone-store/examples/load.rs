//! `load STORE CLIENTS PER_CLIENT`: clients that say feedback one after the other, each acknowledgement printed as
//! `CLIENT NUMBER`; then on standard error how many there were per second. Killed in between, what was printed must
//! be in the store.

use std::io::Write;
use std::time::Instant;

use hone_feedback::{Form, Record};
use hone_store::{Said, open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, clients, each] = args.as_slice() else {
        return Err("needed STORE CLIENTS PER_CLIENT".into());
    };
    let (clients, each): (usize, usize) = (clients.parse()?, each.parse()?);
    let store = open(address).await?;
    let records =
        (0..clients).map(|n| Record::new(format!("r{n}"), "p").respond(format!("r{n}"), "hello")).collect();
    store.put(records).await?;
    let started = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for number in 0..each {
                let form = Form::Event {
                    on: Some(format!("r{client}")),
                    event: "seen".into(),
                    value: Some(number as f64),
                };
                let item =
                    Said { exchange: None, feedback: form.into(), key: Some(format!("{client} {number}")) };
                let done = store.say(vec![item]).await.map(|mut receipts| receipts.remove(0));
                if let Err(error) | Ok(Err(error)) = done {
                    eprintln!("load: {error}");
                    return;
                }
                // One write a line: a kill cuts no line in two.
                let _ = std::io::stdout().write_all(format!("{client} {number}\n").as_bytes());
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{:.0} acknowledged per second", (clients * each) as f64 / seconds);
    Ok(())
}
