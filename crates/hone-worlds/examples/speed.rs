//! Prints how many answers a second each world makes and checks on one core, and what a sandboxed program costs.
//!
//! `cargo run --release -p hone-worlds --example speed`

use std::time::{Duration, Instant};

use hone_worlds::sandbox::{Job, Limits, Mode, Sandbox};
use hone_worlds::{seed, worlds};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for world in worlds().iter().filter(|world| !world.runs_programs()) {
        let level = world.middle();
        let mut rng = seed::rng(1, "speed");
        let answers: Vec<_> = (0..2000)
            .map(|seed| world.task(level, seed).map(|task| (task.attempt(0.5, &mut rng), task)))
            .collect::<Result<_, _>>()?;
        let (mut checked, started) = (0_u64, Instant::now());
        while started.elapsed() < Duration::from_secs(1) {
            for (answer, task) in &answers {
                std::hint::black_box(task.check(answer)?);
            }
            checked += answers.len() as u64;
        }
        let rate = checked as f64 / started.elapsed().as_secs_f64();
        println!("{:<9} {rate:>10.0} checked answers/s", world.id());
    }

    let sandbox = Sandbox::open(Mode::Strict, Limits::default())?;
    let python = || -> std::io::Result<Duration> {
        let started = Instant::now();
        std::process::Command::new(&sandbox.python().path).args(["-I", "-S", "-c", "pass"]).status()?;
        Ok(started.elapsed())
    };
    let mut starts = (0..50).map(|_| python()).collect::<Result<Vec<_>, _>>()?;
    starts.sort();
    sandbox.warm(1)?;
    let job = Job {
        program: "def f(x):\n    return x + 1\n".into(),
        tests: vec!["assert f(1) == 2".into(), "assert f(2) == 3".into(), "assert f(0) == 1".into()],
        ..Job::default()
    };
    let mut costs = Vec::new();
    for _ in 0..300 {
        let started = Instant::now();
        sandbox.judge(&job)?;
        costs.push(started.elapsed());
    }
    costs.sort();
    println!("python start   median {:?} (bare, outside the sandbox)", starts[25]);
    println!("judged program median {:?}, 95 % {:?} (whole, start included)", costs[150], costs[285]);
    Ok(())
}
