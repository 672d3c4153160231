//! `remuda hold`, `release`, `drain` and `resume`: a person's orders to a runner or a part of the fleet.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::client::Client;
use super::query::RunnerName;
use super::{State, runtime, say};
use crate::api::RunnerOrder;
use crate::env;
use crate::exit::Exit;
use crate::restrict::{FleetOrder, Part, RestrictionRow};
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

/// End a hold, or a quarantine
///
/// What is in quarantine is then tried at once, as if it had never failed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  remuda release 42\n  remuda release pool small\n  \
                        remuda release node local/local")]
pub(super) struct Release {
    #[command(subcommand)]
    part: Option<Failing>,
    /// The runner's number, or the name it is registered under
    #[arg(required = true)]
    runner: Option<RunnerName>,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum Failing {
    /// A pool, from quarantine
    #[command(after_help = "Example:\n  remuda release pool small")]
    Pool(Named),
    /// An image, from quarantine
    #[command(after_help = "Example:\n  remuda release image sandbox")]
    Image(Named),
    /// A node, from quarantine: PROVIDER/NODE
    #[command(after_help = "Example:\n  remuda release node local/local")]
    Node(Named),
    /// The books, from doubt whether they are the newest
    #[command(after_help = "Example:\n  remuda release books")]
    Books {
        #[command(flatten)]
        state: State,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// Its name
    name: String,
    #[command(flatten)]
    state: State,
}

/// Remove a runner unless it has a job, or everything idle of a pool, provider or node
///
/// A runner's registration goes first, so no job can be lost. One with a job is left to it: it takes no
/// other and is removed afterwards anyway. In a pool, on a provider or a node that is drained nothing new is
/// placed until `remuda resume`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  remuda drain 42\n  \
                        remuda drain pool small --why \"new image\"\n  \
                        remuda drain node local/local --why \"new disk\"")]
pub(super) struct Drain {
    #[command(subcommand)]
    part: Option<Emptied>,
    /// The runner's number, or the name it is registered under
    #[arg(required = true)]
    runner: Option<RunnerName>,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum Emptied {
    /// A pool
    #[command(after_help = "Example:\n  remuda drain pool small --why \"new image\"")]
    Pool(Because),
    /// A provider
    #[command(after_help = "Example:\n  remuda drain provider local --why \"new kernel\"")]
    Provider(Because),
    /// A node: PROVIDER/NODE
    #[command(after_help = "Example:\n  remuda drain node local/local --why \"new disk\"")]
    Node(Because),
}

#[derive(Debug, Args)]
struct Because {
    /// Its name
    name: String,
    /// Why, for others who wonder
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    why: String,
    #[command(flatten)]
    state: State,
}

/// End a drain of a pool, provider or node
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda resume pool small")]
pub(super) struct Resume {
    #[command(subcommand)]
    part: Idle,
}

#[derive(Debug, Subcommand)]
enum Idle {
    /// A pool
    #[command(after_help = "Example:\n  remuda resume pool small")]
    Pool(Named),
    /// A provider
    #[command(after_help = "Example:\n  remuda resume provider local")]
    Provider(Named),
    /// A node: PROVIDER/NODE
    #[command(after_help = "Example:\n  remuda resume node local/local")]
    Node(Named),
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
        let (what, state) = match self.part {
            Some(Failing::Pool(Named { name, state })) => (Part::Pool(name), state),
            Some(Failing::Image(Named { name, state })) => (Part::Image(name), state),
            Some(Failing::Node(Named { name, state })) => (Part::Node(name), state),
            Some(Failing::Books { state }) => return tell(&state, &FleetOrder::Confirm, "books"),
            None => return release_runner(self.runner, &self.state),
        };
        let named = what.to_string();
        tell(&state, &FleetOrder::Release { what }, &named)
    }
}

fn release_runner(runner: Option<RunnerName>, state: &State) -> anyhow::Result<Exit> {
    let runner = runner.context("say which runner")?;
    runtime()?.block_on(async {
        let client = Client::new(state)?;
        let row = runner.ask(&client).await?;
        if row.hold.is_none() {
            say(&format!("runner {} is not held", row.id))?;
            return Ok(Exit::Done);
        }
        give(&client, row.id, &RunnerOrder::Release, |row| row.hold.is_none()).await?;
        say(&format!("runner {} is released", row.id))?;
        Ok(Exit::Done)
    })
}

impl Resume {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (what, state) = match self.part {
            Idle::Pool(Named { name, state }) => (Part::Pool(name), state),
            Idle::Provider(Named { name, state }) => (Part::Provider(name), state),
            Idle::Node(Named { name, state }) => (Part::Node(name), state),
        };
        let named = what.to_string();
        tell(&state, &FleetOrder::Resume { what }, &named)
    }
}

impl Drain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (what, why, state) = match self.part {
            Some(Emptied::Pool(Because { name, why, state })) => (Part::Pool(name), why, state),
            Some(Emptied::Provider(Because { name, why, state })) => {
                (Part::Provider(name), why, state)
            }
            Some(Emptied::Node(Because { name, why, state })) => (Part::Node(name), why, state),
            None => return drain_runner(self.runner, &self.state),
        };
        let named = what.to_string();
        let who = env::user();
        tell(&state, &FleetOrder::Drain { what, who, why }, &named)
    }
}

fn drain_runner(runner: Option<RunnerName>, state: &State) -> anyhow::Result<Exit> {
    let runner = runner.context("say which runner")?;
    let is_supply = |row: &RunnerRow| matches!(&*row.state, "pending" | "starting" | "idle");
    runtime()?.block_on(async {
        let client = Client::new(state)?;
        let before = runner.ask(&client).await?;
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

/// Gives an order about a part of the fleet and waits until it is in force.
fn tell(state: &State, order: &FleetOrder, named: &str) -> anyhow::Result<Exit> {
    let (word, wanted) = match order {
        FleetOrder::Drain { .. } => ("drained; `remuda resume` ends that", Some("drained")),
        FleetOrder::Resume { .. } => ("in use again", None),
        FleetOrder::Release { .. } | FleetOrder::Confirm => ("released", None),
    };
    runtime()?.block_on(async {
        let client = Client::new(state)?;
        client.post(&["v1", "order"], order).await?;
        let begun = Instant::now();
        loop {
            let rows: Vec<RestrictionRow> = client.get(&["v1", "restrictions"], &[]).await?;
            let drained = matches!(order, FleetOrder::Drain { .. } | FleetOrder::Resume { .. });
            let found = rows.iter().filter(|row| (row.how == "drained") == drained);
            let found = found.filter(|row| row.what == named).count();
            if (found > 0) == wanted.is_some() {
                say(&format!("{named} is {word}"))?;
                return Ok(Exit::Done);
            }
            if begun.elapsed() > ACTED_MAX {
                bail!("the server took the order and has not acted on it; see its log");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
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
