//! `hone methods [list | show ID | search WORDS]`

use std::process::ExitCode;

use anyhow::Result;
use hone_methods::{METHODS, Method, find, search};
use serde_json::{Value, json};

/// Arguments of `hone methods`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// For machines: everything known of each method.
    #[arg(long, global = true)]
    json: bool,
}

/// Subcommands of `hone methods`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every method, by family, in one line each; the default.
    List,
    /// All about one method: what it does, what it takes, its claims, its settings.
    Show {
        /// Its id, such as dpo.
        id: String,
    },
    /// Methods whose page holds every word, the closest first.
    Search {
        /// Words, in any case.
        #[arg(required = true)]
        words: Vec<String>,
    },
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let found = match args.command.unwrap_or(Command::List) {
        Command::List => METHODS.to_vec(),
        Command::Show { id } => {
            let method = find(&id)?;
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&whole(method)?)?),
                false => print!("{}", page(method)?),
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Search { words } => {
            let found = search(&words.join(" "));
            if found.is_empty() && !args.json {
                println!("No page holds every one of these words; `hone methods` lists all.");
                return Ok(ExitCode::SUCCESS);
            }
            found
        }
    };
    if args.json {
        let all: Vec<Value> = found.into_iter().map(whole).collect::<Result<_>>()?;
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", lines(&found));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per method under the heading of its family; a heading again where the family changes.
fn lines(methods: &[&Method]) -> String {
    let width = methods.iter().map(|method| method.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut family = None;
    for method in methods {
        if family != Some(method.family) {
            if family.is_some() {
                text.push('\n');
            }
            text += &format!("{}\n", method.family.name());
            family = Some(method.family);
        }
        text += &format!("  {:width$}  {}\n", method.id, method.summary());
    }
    text
}

/// The whole page for a terminal: comment, claims, defaults, and how to run it.
fn page(method: &Method) -> Result<String> {
    let id = method.id;
    let mut text = format!("{} ({id}), {}\n\n", method.name, method.family.name());
    // The summary stands at the margin, what is under a heading does not.
    let mut indent = "";
    for line in method.doc.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)) {
        match line.strip_prefix("# ") {
            Some(heading) => {
                text += &format!("\n{}\n", heading.to_uppercase());
                indent = "  ";
            }
            None if line.is_empty() => text.push('\n'),
            None => text += &format!("{indent}{line}\n"),
        }
    }
    text += "\nSETTINGS, WITH THEIR DEFAULTS\n";
    let defaults = (method.defaults)()?.to_string();
    for line in defaults.lines() {
        text += format!("  {line}").trim_end();
        text.push('\n');
    }
    if defaults.is_empty() {
        text += "  none\n";
    }
    text += "\nCLAIMS\n";
    for claim in method.claims {
        text += &format!("  {}: {}\n", claim.name, claim.says);
        text += &format!("    measured: {}\n    against:  {}\n", claim.metric, claim.baseline);
    }
    text += &format!("\nTRY IT\n  hone run recipes/{id}.toml\n  hone reproduce {id}\n");
    Ok(text)
}

fn whole(method: &Method) -> Result<Value> {
    let claims: Vec<Value> = method
        .claims
        .iter()
        .map(|c| json!({"name": c.name, "says": c.says, "metric": c.metric, "baseline": c.baseline}))
        .collect();
    Ok(json!({
        "id": method.id,
        "name": method.name,
        "family": method.family,
        "summary": method.summary(),
        "needs": method.needs.name(),
        "doc": method.doc,
        "claims": claims,
        "settings": (method.defaults)()?,
        "recipe": format!("recipes/{}.toml", method.id),
    }))
}
