//! `remuda validate`: is this fleet file in order?

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use remuda_core::fleet::{Fleet, Problems, Source, parse};

use super::{Output, say};
use crate::exit::Exit;

/// Most bytes read of a fleet file; the parser's own bound is lower and says so better.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Check a fleet file
///
/// Reports every problem at once, each with its place and what would be right.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda validate examples/laptop.toml")]
pub(super) struct Validate {
    /// The fleet file
    #[arg(default_value = "fleet.toml")]
    file: PathBuf,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Validate {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let text = text_of(&self.file)?;
        let name = self.file.display().to_string();
        let outcome = parse(&[Source { name: &name, text: &text }]);
        match self.output {
            Output::Json => say(&json(&outcome))?,
            Output::Table => match &outcome {
                Ok(fleet) => say(&format!("{name}: {}", summary(fleet)))?,
                Err(problems) => show(problems),
            },
        }
        Ok(if outcome.is_ok() { Exit::Done } else { Exit::Failed })
    }
}

fn summary(fleet: &Fleet) -> String {
    let count =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    format!(
        "in order: {}, {}, {}, {}; revision {}",
        count(fleet.forges.len(), "forge"),
        count(fleet.providers.len(), "provider"),
        count(fleet.images.len(), "image"),
        count(fleet.pools.len(), "pool"),
        fleet.revision()
    )
}

fn json(outcome: &Result<Fleet, Problems>) -> String {
    let (problems, more, revision) = match outcome {
        Ok(fleet) => (Vec::new(), 0, Some(fleet.revision())),
        Err(problems) => {
            let shown = problems.shown().iter().map(|problem| {
                serde_json::json!({
                    "file": problem.file,
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                    "help": problem.help,
                })
            });
            (shown.collect(), problems.more(), None)
        }
    };
    serde_json::json!({
        "valid": outcome.is_ok(),
        "revision": revision,
        "problems": problems,
        "more": more,
    })
    .to_string()
}

pub(super) fn text_of(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let unreadable = || format!("cannot read the fleet file {}", file.display());
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).with_context(unreadable)?;
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).with_context(unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| {
            anyhow::anyhow!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to())
        })
        .with_context(unreadable)
}

/// Reads a fleet file; says what is wrong with it and gives nothing if it is not in order.
pub(crate) fn read(file: &Path) -> anyhow::Result<Option<Fleet>> {
    let text = text_of(file)?;
    let name = file.display().to_string();
    match parse(&[Source { name: &name, text: &text }]) {
        Ok(fleet) => Ok(Some(fleet)),
        Err(problems) => {
            show(&problems);
            Ok(None)
        }
    }
}

fn show(problems: &Problems) {
    use std::io::Write;
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{problems}");
}
