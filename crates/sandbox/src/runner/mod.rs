//! The sandbox's runner program: takes a JIT configuration, gets one job, runs its `run:` steps,
//! exits. It prints the lines of GitHub's own runner, so that what watches one can watch the other.

mod client;
mod execute;
mod files;
mod process;

use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::wire::{Credentials, Message, SCHEME, Settings};
use crate::world::Conclusion;
use client::{Client, Gone};
use execute::Execution;

/// Exit codes, after GitHub's runner.
const DONE: i32 = 0;
const TERMINATED: i32 = 1;

/// Runs one job: the sandbox's `encoded_jit_config` in, an exit code out. `work` is a directory of
/// the runner's own; what it prints goes to `out`.
///
/// Exits 0 after a job, however the job ended, and when the job it was offered was withdrawn; 1
/// when it cannot connect, when its registration is gone, and when SIGTERM or SIGINT ends it
/// before it has a job. A job it has is cancelled by either signal. Nothing of the JIT configuration reaches the job's processes: they do not
/// inherit any `ACTIONS_RUNNER_INPUT_*` variable.
pub async fn run(jit: SecretString, work: PathBuf, out: impl Write + Send) -> i32 {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return run_until(jit, work, out, std::future::pending()).await;
    };
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(jit, work, out, stop).await
}

/// As [`run`], but ended by `stop` instead of by signals.
pub async fn run_until(
    jit: SecretString,
    work: PathBuf,
    mut out: impl Write + Send,
    stop: impl Future<Output = ()> + Send,
) -> i32 {
    let ended = serve(&jit, work, &mut out, stop).await;
    let code = match &ended {
        Ok(()) => DONE,
        Err(ending) => {
            say(&mut out, &ending.to_string());
            ending.code()
        }
    };
    // A reader that went away is no reason to fail the job.
    let _ = out.flush();
    code
}

/// Why there was no whole job.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("An error occurred: the JIT configuration cannot be used: {0}")]
    Jit(&'static str),
    #[error("An error occurred: Runner not found")]
    NotFound,
    #[error("A session for this runner already exists.")]
    Conflict,
    #[error("An error occurred: {0}")]
    Unreachable(String),
    #[error("Skipping message Job. The job was withdrawn.")]
    Withdrawn,
    #[error("The runner was told to stop.")]
    Stopped,
    #[error("An error occurred: cannot prepare {path}: {source}")]
    Workspace { path: PathBuf, source: std::io::Error },
}

impl Ending {
    const fn code(&self) -> i32 {
        match self {
            Self::Withdrawn => DONE,
            Self::Jit(_)
            | Self::NotFound
            | Self::Conflict
            | Self::Unreachable(_)
            | Self::Stopped
            | Self::Workspace { .. } => TERMINATED,
        }
    }
}

async fn serve(
    jit: &SecretString,
    work: PathBuf,
    out: &mut (impl Write + Send),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Ending> {
    let (settings, token) = decode(jit).map_err(Ending::Jit)?;
    let client = Client::connect(&settings.server_url, &token).await?;
    say(out, "\n√ Connected to GitHub\n");
    say(out, &format!("Current runner version: '{}'", env!("CARGO_PKG_VERSION")));
    say(out, &format!("{}: Listening for Jobs", now()));
    tokio::pin!(stop);
    let job = loop {
        tokio::select! {
            message = client.poll() => match message? {
                Some(Message::Job { job }) => break job,
                Some(Message::Cancel { .. }) | None => {}
            },
            () = &mut stop => {
                client.close().await;
                return Err(Ending::Stopped);
            }
        }
    };
    let order = client.acknowledge(job).await.map_err(|gone| match gone {
        Gone::Unknown => Ending::Withdrawn,
        Gone::Unreachable(why) => Ending::Unreachable(why),
    })?;
    let name = order.name.clone();
    say(out, &format!("{}: Running job: {name}", now()));
    let execution = Execution::prepare(client, order, &settings, &work)
        .map_err(|(path, source)| Ending::Workspace { path, source })?;
    let conclusion = execution.run(stop).await?;
    let result = match conclusion {
        Conclusion::Success => "Succeeded",
        Conclusion::Failure => "Failed",
        Conclusion::Cancelled | Conclusion::Skipped => "Canceled",
    };
    say(out, &format!("{}: Job {name} completed with result: {result}", now()));
    Ok(())
}

fn decode(jit: &SecretString) -> Result<(Settings, SecretString), &'static str> {
    let outer = STANDARD.decode(jit.expose_secret().trim()).map_err(|_| "it is not base64")?;
    let files: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&outer).map_err(|_| "it is not a JSON object of files")?;
    let settings = file(&files, ".runner").ok_or("its file .runner cannot be read")?;
    let credentials: Credentials =
        file(&files, ".credentials").ok_or("its file .credentials cannot be read")?;
    if credentials.scheme != SCHEME {
        return Err("it is not a sandbox's");
    }
    Ok((settings, credentials.data.token.into()))
}

fn file<T: DeserializeOwned>(
    files: &std::collections::BTreeMap<String, String>,
    name: &str,
) -> Option<T> {
    serde_json::from_slice(&STANDARD.decode(files.get(name)?).ok()?).ok()
}

fn say(out: &mut impl Write, line: &str) {
    // What watches the runner may have gone; the job goes on all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
