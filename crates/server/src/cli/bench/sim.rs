//! `remuda bench sim`: how fast the virtual world turns.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use remuda_sim::{Hardship, Settings};

use super::super::simulate::{Histories, histories};
use super::super::table::cell;
use super::{Json, rounded};
use crate::exit::Exit;

/// Histories between two looks at the clock.
const AT_ONCE: u64 = 20;

/// Simulated hours per minute of real time
///
/// Runs histories of the simulator, on every core, with the same settings as `remuda simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda bench sim --json")]
pub(super) struct Sim {
    /// How long to go on
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Virtual hours in which jobs arrive
    #[arg(long, default_value_t = 2)]
    hours: u32,
    /// Jobs of each history
    #[arg(long, default_value_t = 20)]
    jobs: u32,
    /// none, low, normal, high or lying
    #[arg(long, default_value = "normal")]
    hardship: String,
    #[command(flatten)]
    json: Json,
}

impl Sim {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Some(hardship) = Hardship::named(&self.hardship) else {
            bail!("hardship {:?} is none of none, low, normal, high, lying", self.hardship);
        };
        let settings =
            Settings { seed: 0, jobs: self.jobs, hours: self.hours, hardship, trace: false };
        let progress = ProgressBar::new_spinner();
        let begun = Instant::now();
        let mut all = Histories::default();
        while begun.elapsed() < Duration::from_secs(self.seconds) {
            let seeds = all.count..all.count + AT_ONCE;
            all.add(histories(seeds, settings, &progress));
        }
        progress.finish_and_clear();
        let speed = all.hours_per_minute();
        self.json.show(
            &["HISTORIES", "VIRTUAL HOURS", "TURNS", "SECONDS", "HOURS PER MINUTE"],
            &[vec![
                cell(all.count),
                cell(format!("{:.0}", all.elapsed.as_secs_f64() / 3600.0)),
                cell(all.turns),
                cell(format!("{:.1}", all.wall.as_secs_f64())),
                cell(format!("{speed:.0}")),
            ]],
            &serde_json::json!({
                "hours_per_minute": rounded(speed, 0),
                "histories": all.count,
                "turns": all.turns,
                "seconds": rounded(all.wall.as_secs_f64(), 3),
            }),
        )?;
        Ok(if all.is_clean() { Exit::Done } else { Exit::Failed })
    }
}
