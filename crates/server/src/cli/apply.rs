//! `remuda plan`, `apply`, `history` and `rollback`: another fleet in place of the one in force.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::table::{Page, cell, render};
use super::validate::Files;
use super::{Output, State, note, runtime, say};
use crate::change::{ChangeRow, Plan};
use crate::env;
use crate::exit::Exit;
use crate::fleets::{FleetRow, InForce, Order, Planned};
use crate::{reload, site};

/// The form of a plan that is kept in a file.
const FORM: u32 = 1;

/// Show what a fleet would change
///
/// Compares a fleet file with the fleet that the server has in force. Exit code 0: nothing; 2: something.
#[derive(Debug, Args)]
#[command(
    name = "plan",
    after_help = "Examples:\n  remuda plan fleet.toml\n  \
                                       remuda plan fleet.toml --out change.plan"
)]
pub(super) struct Show {
    /// The fleet file, or a directory of them
    #[arg(default_value = "fleet.toml")]
    file: PathBuf,
    /// Keep the plan here, for `remuda apply`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

/// Put a fleet in force
///
/// Runners with jobs run on; those of pools that are no longer there leave without one. Given a plan, it is
/// refused if the fleet in force or the file is another one by now. An invalid fleet changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda apply change.plan\n  remuda apply fleet.toml")]
pub(super) struct Apply {
    /// The fleet file, a directory of them, or what `plan --out` has written
    #[arg(default_value = "fleet.toml")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
}

/// List the fleets that were put in force
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda history")]
pub(super) struct History {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

/// Put an earlier fleet in force again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda rollback\n  remuda rollback 3")]
pub(super) struct Rollback {
    /// Its number, as `history` shows it [default: the one before the newest]
    number: Option<u64>,
    #[command(flatten)]
    state: State,
}

/// A plan in a file. What was compared is in it, so that nothing else comes into force.
#[derive(Serialize, Deserialize)]
struct Kept {
    remuda_plan: u32,
    /// What the files were read from; must still hold the same.
    from: PathBuf,
    files: site::Files,
    plan: Plan,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Files(files) = Files::read(&self.file)?;
        let Some(plan) = planned(&self.state, &files)? else { return Ok(Exit::Failed) };
        match self.output {
            Output::Json => say(&serde_json::to_string(&plan)?)?,
            Output::Table => tell(&plan)?,
        }
        let exit = if plan.changes.is_empty() { Exit::Done } else { Exit::Changes };
        if let Some(out) = &self.out {
            let from = std::path::absolute(&self.file)?;
            keep(out, &Kept { remuda_plan: FORM, from, files, plan })?;
            note(&format!("kept; put it in force with `remuda apply {}`", out.display()));
        }
        Ok(exit)
    }
}

/// Asks the server what would change; says what is wrong with the fleet and gives nothing if it is not in
/// order.
fn planned(state: &State, files: &site::Files) -> anyhow::Result<Option<Plan>> {
    if let Err(problems) = reload::read(files) {
        note(&problems.to_string());
        return Ok(None);
    }
    runtime()?.block_on(async {
        let client = Client::new(state)?;
        let body = Planned { files: files.clone() };
        Ok(Some(client.put::<Plan>(&["v1", "plan"], &body).await?))
    })
}

fn keep(out: &Path, kept: &Kept) -> anyhow::Result<()> {
    let unwritable = || format!("cannot write the plan {}", out.display());
    let mut text = serde_json::to_string_pretty(kept)?;
    text.push('\n');
    let mut file = std::fs::File::create(out).with_context(unwritable)?;
    file.write_all(text.as_bytes()).with_context(unwritable)
}

/// Says what would change, in lines that need no colour.
fn tell(plan: &Plan) -> anyhow::Result<()> {
    for ChangeRow { what, change, keys, effects } in &plan.changes {
        let sign = match change.as_str() {
            "add" => "+",
            "remove" => "-",
            _ => "~",
        };
        say(&format!("{sign} {what}"))?;
        for row in keys {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(unset)".into());
            let values = match (&row.before, change.as_str()) {
                (None, "add") => value(&row.after),
                (before, _) => format!("{} -> {}", value(before), value(&row.after)),
            };
            say(&format!("    {} = {values}", row.key))?;
        }
        for effect in effects {
            say(&format!("    {effect}"))?;
        }
    }
    let count = |word: &str| plan.changes.iter().filter(|row| row.change == word).count();
    let (add, change, remove) = (count("add"), count("change"), count("remove"));
    if plan.changes.is_empty() {
        say(&format!("nothing would change; fleet {} is in force", plan.base))
    } else {
        say(&format!(
            "{add} to add, {change} to change, {remove} to remove; fleet {} is in force",
            plan.base
        ))
    }
}

impl Apply {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if let Some(kept) = kept(&self.file)? {
            if Files::read(&kept.from)?.0 != kept.files {
                bail!("{} is not what was planned any more: plan again", kept.from.display());
            }
            return put(&self.state, kept.files, Some(kept.plan.base), "apply".into());
        }
        let Files(files) = Files::read(&self.file)?;
        let Some(plan) = planned(&self.state, &files)? else { return Ok(Exit::Failed) };
        tell(&plan)?;
        put(&self.state, files, Some(plan.base), "apply".into())
    }
}

/// A plan, if that is what the file holds.
fn kept(file: &Path) -> anyhow::Result<Option<Kept>> {
    if file.is_dir() {
        return Ok(None);
    }
    let Files(files) = Files::read(file)?;
    let text = files.first().map_or("", |(_, text)| text.as_str());
    if !text.starts_with('{') {
        return Ok(None);
    }
    let kept: Kept = serde_json::from_str(text)
        .with_context(|| format!("{} is not a plan of this version", file.display()))?;
    if kept.remuda_plan != FORM {
        bail!("{} is a plan of another version: plan again", file.display());
    }
    Ok(Some(kept))
}

fn put(state: &State, files: site::Files, base: Option<u64>, how: String) -> anyhow::Result<Exit> {
    runtime()?.block_on(async {
        let client = Client::new(state)?;
        let order = Order { files, base, who: env::user(), how };
        let InForce { number } = client.put(&["v1", "apply"], &order).await?;
        say(&format!("fleet {number} is in force"))?;
        Ok(Exit::Done)
    })
}

impl History {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let rows = runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            Ok::<Vec<FleetRow>, anyhow::Error>(client.get(&["v1", "fleets"], &[]).await?)
        })?;
        match self.output {
            Output::Json => say(&serde_json::to_string(&rows)?)?,
            Output::Table => {
                let cells = rows.iter().map(|row| {
                    vec![
                        cell(row.number),
                        cell(&row.at),
                        cell(&row.who),
                        cell(&row.how),
                        cell(&row.revision),
                    ]
                });
                let head = ["FLEET", "SINCE", "WHO", "HOW", "REVISION"];
                say(&render(&head, &cells.collect::<Vec<_>>(), Page::stdout()))?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Rollback {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (number, files, base) = runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            let rows: Vec<FleetRow> = client.get(&["v1", "fleets"], &[]).await?;
            let newest = rows.first().map_or(0, |row| row.number);
            let before = || rows.get(1).map(|row| row.number);
            let Some(number) = self.number.or_else(before) else {
                bail!("no other fleet was ever in force");
            };
            let number_text = number.to_string();
            let path = ["v1", "fleets", &number_text, "files"];
            let files: site::Files = client.get(&path, &[]).await?;
            Ok((number, files, newest))
        })?;
        let Some(plan) = planned(&self.state, &files)? else { return Ok(Exit::Failed) };
        tell(&plan)?;
        put(&self.state, files, Some(base), format!("rollback to {number}"))
    }
}
