//! `cargo xtask`: everything that CI runs, runnable at home.

mod docs;
mod new_method;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// Tasks of this workspace.
#[derive(Debug, Parser)]
enum Task {
    /// All that must hold before a change lands: format, lints, documents, tests.
    Test,
    /// Checks that the documents' links lead somewhere and that every crate has its place in ARCHITECTURE.md.
    Docs {
        /// Writes what is generated from the catalogue first: docs/methods/ and the table in README.md.
        #[arg(long)]
        write: bool,
    },
    /// Starts a method: a source that runs, a recipe, the module line and the row in the catalogue.
    NewMethod {
        /// Folder of its family: imitate, preference, reinforce, refine, critique, evaluate, interact, search or steer.
        family: String,
        /// Its id in recipes and commands, such as critique-grpo.
        id: String,
        /// The authors' name for it.
        name: String,
    },
    /// Compares with the Python peers: sets up a virtual environment under target/ and runs the scripts in compare/.
    Peers {
        /// Scripts to run; the exactness checks if none is named.
        scripts: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Test => {
            run("cargo", &["fmt", "--all", "--check"]).context("repair with: cargo fmt --all")?;
            docs::check(&root())?;
            run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
            // The GPU build is checked without its toolkit: a stand-in takes the compiler's place.
            run("bash", &["crates/hone-nn/cuda-check.sh"])?;
            run("cargo", &["test", "--workspace", "--quiet"])
        }
        Task::Docs { write } => {
            if write {
                run("cargo", &["run", "--quiet", "-p", "hone-methods", "--example", "pages"])?;
            }
            docs::check(&root())
        }
        Task::NewMethod { family, id, name } => {
            let written = new_method::start(&root().canonicalize()?, &family, &id, &name)?;
            for path in &written {
                println!("{}", path.display());
            }
            // Names of other lengths break other lines.
            let source = written[0].to_str().context("the path of the workspace is not UTF-8")?;
            run("rustfmt", &["--edition", "2024", source])?;
            println!(
                "next: write the method, then `cargo xtask docs --write` and `cargo test -p hone-methods`"
            );
            Ok(())
        }
        Task::Peers { scripts } => peers(&scripts),
    }
}

/// The workspace's root folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let line = format!("{program} {}", arguments.join(" "));
    println!("$ {line}");
    let mut command = Command::new(program);
    if std::env::var_os(CASES).is_none() {
        command.env(CASES, "1");
    }
    let status = command.args(arguments).current_dir(root()).status().context(line.clone())?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

/// Seeds the cases of property tests: the same tree gets the same verdict each time. A plain `cargo test` tries new
/// cases on every run.
const CASES: &str = "PROPTEST_RNG_SEED";

fn peers(scripts: &[String]) -> Result<()> {
    let venv = root().join("target/peers");
    let python = venv.join("bin/python");
    let python = python.to_str().context("the path of the workspace is not UTF-8")?.to_string();
    let rest = ["filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "numpy"];
    let peers = ["transformers", "peft", "accelerate", "safetensors", "tokenizers", "trl", "openai"];
    // An environment made for fewer packages is completed.
    let ready = peers.join(" ");
    if std::fs::read_to_string(venv.join("ready")).ok().as_ref() != Some(&ready) {
        run("python3", &["-m", "venv", "target/peers"])?;
        // Without its dependencies torch runs on the CPU and leaves out gigabytes of GPU libraries.
        run(&python, &["-m", "pip", "install", "-q", "--no-deps", "torch"])?;
        run(&python, &[&["-m", "pip", "install", "-q"], &rest[..], &peers[..]].concat())?;
        std::fs::write(venv.join("ready"), ready)?;
    }
    // The service is called by the official client.
    let client = ["test", "-q", "-p", "hone-server", "--test", "service", "python::"];
    let status =
        Command::new("cargo").args(client).env("HONE_PYTHON", &python).current_dir(root()).status()?;
    ensure!(status.success(), "the `openai` client does not work against the service");
    let default = vec!["exact.py".to_string()];
    for script in if scripts.is_empty() { &default } else { scripts } {
        run(&python, &[&format!("compare/{script}")])?;
    }
    Ok(())
}
