//! `hone serve`: the gateway, the feedback API and the store, until told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_methods::METHODS;
use hone_server::{BackendConfig, Config, Experiment, MethodPage, Scope, Server, Side, new_key};

/// Arguments of `hone serve`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// File with settings; flags go before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one. Without: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the log is kept: a path, or postgres://…. Without: hone.db.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// OpenAI-compatible upstream; several are tried in this order.
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// Environment variable that holds the upstreams' key.
    #[arg(long, value_name = "VARIABLE", requires = "upstream")]
    upstream_key_env: Option<String>,
    /// Model folder for the built-in engine; `tiny` is the model that Hone carries.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Serve without keys on an address that others can reach.
    #[arg(long)]
    open: bool,
    /// Folder of run folders, whose curves the pages show.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Lines of the log as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Subcommands of `hone serve`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Who may call: make, list and end keys.
    Keys(KeysArgs),
    /// Two models side by side: who gets which, how they compare, and the end of it.
    Variants(VariantsArgs),
}

/// Arguments of `hone serve variants`.
#[derive(Debug, clap::Args)]
struct VariantsArgs {
    #[command(subcommand)]
    command: Option<VariantsCommand>,
    /// The store that the service uses.
    #[arg(long, global = true, value_name = "STORE", default_value = "hone.db")]
    store: String,
}

/// Subcommands of `hone serve variants`.
#[derive(Debug, clap::Subcommand)]
enum VariantsCommand {
    /// How the variants compare by now; the default.
    Show,
    /// Start to compare two models.
    Compare {
        /// The model that callers ask for.
        model: String,
        /// The present model.
        a: String,
        /// The new model.
        b: String,
        /// Share of people who get b.
        #[arg(long, default_value_t = 0.5)]
        share: f64,
        /// How often a difference may be claimed that is not there.
        #[arg(long, default_value_t = 0.05)]
        alpha: f64,
    },
    /// Give one of them to everyone.
    Promote {
        /// `a` or `b`.
        winner: char,
    },
    /// End the comparison: callers get the model that they ask for.
    End,
}

/// Arguments of `hone serve keys`.
#[derive(Debug, clap::Args)]
struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    /// The store that holds them.
    #[arg(long, global = true, value_name = "STORE", default_value = "hone.db")]
    store: String,
}

/// Subcommands of `hone serve keys`.
#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Make a key and print it, this once.
    Add {
        /// What it is for.
        name: String,
        /// What it may do: infer, feedback, read, admin.
        #[arg(long, value_delimiter = ',', default_value = "infer,feedback", value_parser = scope)]
        scopes: Vec<Scope>,
        /// Requests per minute.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        per_minute: Option<u32>,
    },
    /// Every key, without its secret, which is nowhere kept.
    List,
    /// End a key.
    Revoke {
        /// Its id, as `list` shows it.
        id: String,
    },
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::named(name).ok_or_else(|| "needed one of infer, feedback, read, admin".to_owned())
}

/// Runs the command.
pub fn run(mut args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command.take() {
            None => serve(args).await,
            Some(Command::Keys(keys)) => manage_keys(keys).await,
            Some(Command::Variants(variants)) => manage_variants(variants).await,
        }
    })
}

async fn serve(args: Args) -> Result<ExitCode> {
    start_log(args.log_json);
    let server = Server::start(settings(args)?, catalogue()?).await?;
    // To standard output, for programs that wait for it.
    println!("hone serves on http://{}", server.address());
    let told = told_to_stop()?;
    told.await;
    tracing::info!("told to stop; running requests may end");
    server.stop();
    server.ended().await;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: Args) -> Result<Config> {
    let mut config = match &args.config {
        Some(file) => Config::from_file(file)?,
        None => Config::default(),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(store) = args.store {
        config.store = store;
    }
    config.open |= args.open;
    config.runs = args.runs.or(config.runs);
    for folder in args.model {
        let folder = if folder.as_os_str() == "tiny" { hone_methods::tiny::folder()? } else { folder };
        config.backends.push(BackendConfig { folder: Some(folder), ..BackendConfig::default() });
    }
    for url in args.upstream {
        let key_env = args.upstream_key_env.clone();
        config.backends.push(BackendConfig { url: Some(url), key_env, ..BackendConfig::default() });
    }
    if config.backends.is_empty() {
        bail!(
            "needed something that answers: --upstream URL, --model DIR (or --model tiny), or a [[backend]] in --config"
        );
    }
    Ok(config)
}

fn catalogue() -> Result<Vec<MethodPage>> {
    let page = |method: &&hone_methods::Method| -> Result<MethodPage> {
        Ok(MethodPage {
            id: method.id.to_owned(),
            name: method.name.to_owned(),
            family: method.family.name().to_owned(),
            summary: method.summary().to_owned(),
            page: hone_methods::docs::page(method)?,
        })
    };
    METHODS.iter().map(page).collect()
}

/// Logs to standard error; what is shown is chosen by `RUST_LOG`.
fn start_log(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that somebody set up already serves as well.
    let _ = if json { log.json().try_init() } else { log.try_init() };
}

/// Ends when the process is told to stop, by a person or by the system.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn manage_keys(args: KeysArgs) -> Result<ExitCode> {
    let store = hone_store::open(&args.store).await?;
    match args.command {
        KeysCommand::Add { name, scopes, per_minute } => {
            let made = new_key(&name, &scopes, per_minute);
            let id = made.stored.id.clone();
            store.add_key(made.stored).await?;
            eprintln!("{id}; this is the only time that the key is shown:");
            println!("{}", made.secret);
        }
        KeysCommand::List => {
            for key in store.keys().await? {
                let state = if key.revoked.is_some() { "ended" } else { "in use" };
                let limit = key.per_minute.map_or_else(String::new, |limit| format!("  {limit} per minute"));
                println!("{}  {state}  {}  {}{limit}", key.id, key.scopes.join(","), key.name);
            }
        }
        KeysCommand::Revoke { id } => store.revoke_key(&id).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn manage_variants(args: VariantsArgs) -> Result<ExitCode> {
    let store = hone_store::open(&args.store).await?;
    let known = Experiment::load(&*store).await?;
    let needed =
        || anyhow::anyhow!("needed two variants that are compared, got none: `hone serve variants compare`");
    match args.command.unwrap_or(VariantsCommand::Show) {
        VariantsCommand::Show => print_figures(&known.ok_or_else(needed)?.figures(&*store).await?),
        VariantsCommand::Compare { model, a, b, share, alpha } => {
            let experiment = Experiment::new(&model, &a, &b, share, alpha)?;
            experiment.save(&*store).await?;
            println!("{}", experiment.id);
        }
        VariantsCommand::Promote { winner } => {
            let side = match winner {
                'a' => Side::A,
                'b' => Side::B,
                other => bail!("needed a or b, got {other:?}"),
            };
            let mut experiment = known.ok_or_else(needed)?;
            experiment.promoted = Some(side);
            experiment.save(&*store).await?;
            println!("{} answers for {} from now on", experiment.model_of(side), experiment.model);
        }
        VariantsCommand::End => Experiment::clear(&*store).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_figures(figures: &hone_server::Figures) {
    let experiment = &figures.experiment;
    println!("{}  {}", experiment.id, experiment.model);
    for (side, model, arm) in [("a", &experiment.a, &figures.a), ("b", &experiment.b, &figures.b)] {
        let mean = arm.satisfaction.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.3}"));
        println!("{side}  {model}  {} people  satisfaction {mean}", arm.people);
    }
    match (figures.difference, figures.interval) {
        (Some(difference), Some([low, high])) => {
            println!("b - a  {difference:+.3}  [{low:+.3}, {high:+.3}] at all times together");
        }
        _ => println!("b - a  too few people yet"),
    }
    if let Some(better) = figures.better {
        println!("{} is better", better.name());
    }
    if let Some(promoted) = experiment.promoted {
        println!("{} answers for everyone", promoted.name());
    }
}
