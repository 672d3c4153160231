//! `remuda bench`: how fast the parts are, each measured as it runs in production.

mod intake;
mod load;
mod plan;
mod reconcile;
mod sim;
mod start;

use clap::{Args, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use super::table::{Cell, Page, render};
use super::{log, runtime, say};
use crate::exit::Exit;

/// Measure how fast Remuda is on this machine
///
/// Each prints a table, and with --json one object as the last line. BENCHMARKS.md says what the
/// numbers were elsewhere and what limits them.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Intake(intake::Intake),
    Plan(plan::Plan),
    Reconcile(reconcile::Reconcile),
    Start(start::Start),
    Sim(sim::Sim),
    #[command(name = load::VERB, hide = true)]
    Load(load::Load),
    #[command(name = reconcile::forge::VERB, hide = true)]
    Forge(reconcile::forge::Forge),
    #[command(name = reconcile::afresh::VERB, hide = true)]
    Afresh(reconcile::afresh::Afresh),
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        log(LevelFilter::ERROR, false);
        match self.verb {
            Verb::Intake(intake) => runtime()?.block_on(intake.run()),
            Verb::Plan(plan) => plan.run(),
            Verb::Start(start) => runtime()?.block_on(start.run()),
            Verb::Sim(sim) => sim.run(),
            Verb::Load(load) => load.run(),
            Verb::Reconcile(reconcile) => runtime()?.block_on(reconcile.run()),
            Verb::Forge(forge) => runtime()?.block_on(forge.run()),
            Verb::Afresh(afresh) => runtime()?.block_on(afresh.run()),
        }
    }
}

/// Whether to write the numbers for programs too.
#[derive(Clone, Copy, Debug, Args)]
struct Json {
    /// End with one JSON object on a line of its own
    #[arg(long)]
    json: bool,
}

impl Json {
    /// Shows a table and, where asked for, the object.
    fn show(
        self,
        headers: &[&str],
        rows: &[Vec<Cell>],
        object: &serde_json::Value,
    ) -> anyhow::Result<()> {
        say(&render(headers, rows, Page::stdout()))?;
        if self.json { say(&object.to_string()) } else { Ok(()) }
    }
}

/// A number to so many digits after the point, as a number of JSON.
fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (value * unit).round() / unit
}
