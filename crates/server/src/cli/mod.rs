//! The command line: one file per verb or family of verbs.

mod about;
mod apply;
mod arenas;
mod bench;
mod client;
mod demo;
mod doctor;
mod explain;
mod fmt;
mod form;
mod order;
mod query;
mod sandbox;
mod schema;
mod serve;
mod simulate;
mod stage;
mod store;
mod table;
mod validate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use remuda_provider::process::Shim;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::env;
use crate::exit::Exit;

/// The hidden verb under which this program is the shim of a local instance.
const SHIM: &str = "process-shim";

/// Turns queued CI jobs into fresh, one-job runners.
#[derive(Debug, Parser)]
#[command(name = "remuda", version, about, max_term_width = 80, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Serve),
    Validate(validate::Validate),
    Plan(apply::Show),
    Apply(apply::Apply),
    History(apply::History),
    Rollback(apply::Rollback),
    Schema(schema::Schema),
    Fmt(fmt::Fmt),
    Sandbox(sandbox::Sandbox),
    Simulate(simulate::Simulate),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Get(query::Get),
    Describe(query::Describe),
    Explain(explain::Explain),
    Logs(query::Logs),
    Hold(order::Hold),
    Release(order::Release),
    Drain(order::Drain),
    Resume(order::Resume),
    Doctor(doctor::Doctor),
    Store(store::Store),
    Version(about::Version),
    Completions(about::Completions),
    #[command(name = SHIM, hide = true, disable_help_flag = true)]
    Shim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub(crate) struct State {
    #[arg(
        long,
        value_name = "DIR",
        help = "The server's state directory [default: $REMUDA_STATE, else ~/.local/state/remuda]"
    )]
    state: Option<PathBuf>,
}

impl State {
    pub(crate) fn directory(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(env::state_directory)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // A terminal that is gone cannot be told so.
            let _ = error.print();
            return if asked_for { Exit::Done } else { Exit::Usage }.into();
        }
    };
    let verb = match cli.verb {
        Verb::Shim { args } => return remuda_provider::process::shim::main(args.into_iter()),
        verb => verb,
    };
    if matches!(verb, Verb::Serve(_) | Verb::Bench(_)) {
        arenas::hold_to_two();
    }
    match run(verb) {
        Ok(exit) => exit.into(),
        Err(error) => failed(&error).into(),
    }
}

/// The command line as clap knows it, to be read by those who describe or check it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Says what went wrong and how the program ends on account of it.
fn failed(error: &anyhow::Error) -> Exit {
    if error.is::<Unread>() {
        return Exit::Done;
    }
    complain(error);
    if let Some(error) = error.downcast_ref::<client::ClientError>() {
        return error.exit();
    }
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if io.is_some_and(missing) { Exit::NotFound } else { Exit::Failed }
}

fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Validate(validate) => validate.run(),
        Verb::Plan(plan) => plan.run(),
        Verb::Apply(apply) => apply.run(),
        Verb::History(history) => history.run(),
        Verb::Rollback(rollback) => rollback.run(),
        Verb::Schema(schema) => schema.run(),
        Verb::Fmt(fmt) => fmt.run(),
        Verb::Sandbox(sandbox) => sandbox.run(),
        Verb::Simulate(simulate) => simulate.run(),
        Verb::Demo(demo) => demo.run(),
        Verb::Bench(bench) => bench.run(),
        Verb::Get(get) => get.run(),
        Verb::Describe(describe) => describe.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::Logs(logs) => logs.run(),
        Verb::Hold(hold) => hold.run(),
        Verb::Release(release) => release.run(),
        Verb::Drain(drain) => drain.run(),
        Verb::Resume(resume) => resume.run(),
        Verb::Doctor(doctor) => doctor.run(),
        Verb::Store(store) => store.run(),
        Verb::Version(version) => version.run(),
        Verb::Completions(completions) => completions.run(),
        Verb::Shim { .. } => unreachable!("the shim was run before"),
    }
}

/// Says on standard error what could not be done.
pub(crate) fn complain(error: &anyhow::Error) {
    use std::io::Write;
    let red = anstream::stderr();
    // With standard error gone there is nobody to tell.
    let _ = writeln!(red.lock(), "\u{1b}[1;31merror\u{1b}[0m: {error:#}");
}

/// Whoever read our output has gone away, having seen enough.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output")]
struct Unread;

/// A line of results on standard output. A reader that has gone away ends the program quietly.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    written(writeln!(anstream::stdout().lock(), "{line}"))
}

/// Results as they are, on standard output.
pub(crate) fn put(bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

fn written(outcome: std::io::Result<()>) -> anyhow::Result<()> {
    outcome.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Unread.into(),
        _ => anyhow::Error::from(error).context("cannot write to standard output"),
    })
}

/// A line about the results, on standard error.
pub(crate) fn note(line: &str) {
    use std::io::Write;
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Installs the log on standard error: `default` unless `REMUDA_LOG` says otherwise.
pub(crate) fn log(default: LevelFilter, json: bool) {
    let filter = EnvFilter::builder().with_default_directive(default.into());
    let filter = match env::log_filter() {
        Some(text) => filter.parse_lossy(text),
        None => filter.parse_lossy(""),
    };
    let layer = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second installation is refused, which is as good: the first one stands.
    let _ = if json {
        layer.json().try_init()
    } else {
        layer
            .with_target(false)
            .with_ansi(
                anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never,
            )
            .try_init()
    };
}

/// A runtime for verbs that wait.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // Only fails if another provider is installed already, and there is but this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// How to run this program as the shim.
pub(crate) fn shim() -> anyhow::Result<Shim> {
    Ok(Shim { program: std::env::current_exe()?, args: vec![SHIM.into()] })
}

/// Resolves once the program is asked to end, by Ctrl-C or SIGTERM.
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the system ends the program by itself.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
