//! `remuda hold`, `release` and `drain`: a person's orders to one runner.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use super::client::Client;
use super::query::RunnerName;
use super::{State, runtime, say};
use crate::api::RunnerOrder;
use crate::env;
use crate::exit::Exit;
use crate::view::RunnerRow;

/// How long the loop may take to act on an order; it turns at least twice a second.
const ACTED_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Most characters of a reason.
const WHY_CHARS_MAX: usize = 200;

/// Leave a runner and its instance alone, to look at them
///
/// While it is held, its instance is not destroyed, whatever becomes of its job.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda hold 42 --why \"looking at the linker\"")]
pub(super) struct Hold {
    /// The runner's number, or the name it is registered under
    runner: RunnerName,
    /// Why, for others who wonder
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    #[command(flatten)]
    state: State,
}

/// End a hold
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda release 42")]
pub(super) struct Release {
    /// The runner's number, or the name it is registered under
    runner: RunnerName,
    #[command(flatten)]
    state: State,
}

/// Remove a runner, unless it has a job
///
/// Its registration goes first, so no job can be lost. A runner with a job is left to it: it takes no
/// other and is removed afterwards anyway.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda drain 42")]
pub(super) struct Drain {
    /// The runner's number, or the name it is registered under
    runner: RunnerName,
    #[command(flatten)]
    state: State,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why".into());
    }
    if text.chars().count() > WHY_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!("say it on one line of at most {WHY_CHARS_MAX} characters"));
    }
    Ok(text.into())
}

impl Hold {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let row = self.runner.ask(&client).await?;
            if row.state == "gone" {
                bail!("runner {} is gone: there is nothing left to hold", row.id);
            }
            let (who, why) = (env::user(), self.why);
            let hold = format!("{who}: {why}");
            give(&client, row.id, &RunnerOrder::Hold { who, why }, |row| {
                row.hold.as_deref() == Some(hold.as_str())
            })
            .await?;
            say(&format!("runner {} is held; `remuda release {}` ends that", row.id, row.id))?;
            Ok(Exit::Done)
        })
    }
}

impl Release {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let row = self.runner.ask(&client).await?;
            if row.hold.is_none() {
                say(&format!("runner {} is not held", row.id))?;
                return Ok(Exit::Done);
            }
            give(&client, row.id, &RunnerOrder::Release, |row| row.hold.is_none()).await?;
            say(&format!("runner {} is released", row.id))?;
            Ok(Exit::Done)
        })
    }
}

impl Drain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let is_supply = |row: &RunnerRow| matches!(&*row.state, "pending" | "starting" | "idle");
        runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let before = self.runner.ask(&client).await?;
            let mut row = before;
            if is_supply(&row) {
                row = give(&client, row.id, &RunnerOrder::Drain, |row| !is_supply(row)).await?;
            }
            if row.state == "busy" {
                bail!(
                    "runner {} has a job, {}: it is left to it and removed afterwards",
                    row.id,
                    row.job.as_deref().unwrap_or("which the forge has yet to name")
                );
            }
            say(&format!("runner {} is {}", row.id, row.state))?;
            Ok(Exit::Done)
        })
    }
}

/// Gives an order and waits until its effect is seen.
async fn give(
    client: &Client,
    id: u64,
    order: &RunnerOrder,
    done: impl Fn(&RunnerRow) -> bool,
) -> anyhow::Result<RunnerRow> {
    let id = id.to_string();
    client.post(&["v1", "runners", &id, "order"], order).await?;
    let begun = Instant::now();
    loop {
        let row: RunnerRow = client.get(&["v1", "runners", &id], &[]).await?;
        if done(&row) {
            return Ok(row);
        }
        if begun.elapsed() > ACTED_MAX {
            bail!("the server took the order and has not acted on it; see its log");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(reason(" why not ").unwrap(), "why not");
        for bad in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(201)] {
            assert!(reason(bad).is_err(), "{bad:?}");
        }
    }
}
