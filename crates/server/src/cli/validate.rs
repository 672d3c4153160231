//! `remuda validate`: is this fleet file in order?

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use remuda_core::fleet::{Fleet, Problems};

use super::{Output, say};
use crate::exit::Exit;
use crate::{reload, site};

/// Most bytes read of a fleet; the parser's own bound for a file is lower and says so better.
const FLEET_BYTES_MAX: u64 = 64 << 20;
/// Most files of a directory.
const FILES_MAX: usize = 1000;

/// Check a fleet file
///
/// Reports every problem at once, each with its place and what would be right.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda validate examples/laptop.toml")]
pub(super) struct Validate {
    /// The fleet file, or a directory of them that make one fleet together
    #[arg(default_value = "fleet.toml")]
    file: PathBuf,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Validate {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let outcome = Files::read(&self.file)?.parse();
        match self.output {
            Output::Json => say(&json(&outcome))?,
            Output::Table => match &outcome {
                Ok(fleet) => say(&format!("{}: {}", self.file.display(), summary(fleet)))?,
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

/// The files that a fleet is in, read.
pub(super) struct Files(pub(super) site::Files);

impl Files {
    /// Reads a fleet file, or every `*.toml` of a directory in the order of their names.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read the fleet file {}", path.display());
        let mut room = FLEET_BYTES_MAX;
        let mut files = Vec::new();
        if !std::fs::metadata(path).with_context(unreadable)?.is_dir() {
            return Ok(Self(vec![(path.display().to_string(), text_of(path, &mut room)?)]));
        }
        for entry in std::fs::read_dir(path).with_context(unreadable)? {
            let file = entry.with_context(unreadable)?.path();
            let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if file.extension().is_some_and(|extension| extension == "toml") && !hidden {
                files.push(file);
            }
        }
        if files.is_empty() {
            anyhow::bail!("the directory {} holds no fleet file, *.toml", path.display());
        }
        if files.len() > FILES_MAX {
            let (dir, count) = (path.display(), files.len());
            anyhow::bail!("the directory {dir} holds {count} files; at most {FILES_MAX} are read");
        }
        files.sort();
        let read = |file: &PathBuf| Ok((file.display().to_string(), text_of(file, &mut room)?));
        Ok(Self(files.iter().map(read).collect::<anyhow::Result<_>>()?))
    }

    /// The fleet, or all that is wrong with it.
    pub(super) fn parse(&self) -> Result<Fleet, Problems> {
        reload::read(&self.0)
    }
}

/// A file's text. `room` is how many bytes may still be read.
fn text_of(file: &Path, room: &mut u64) -> anyhow::Result<String> {
    use std::io::Read;
    let unreadable = || format!("cannot read the fleet file {}", file.display());
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).with_context(unreadable)?;
    *room -= opened.take(*room).read_to_end(&mut bytes).with_context(unreadable)? as u64;
    String::from_utf8(bytes)
        .map_err(|error| {
            anyhow::anyhow!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to())
        })
        .with_context(unreadable)
}

/// Reads a fleet and gives it with its files; says what is wrong with it and gives nothing if it is not in
/// order.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<(Fleet, site::Files)>> {
    let files = Files::read(path)?;
    match files.parse() {
        Ok(fleet) => Ok(Some((fleet, files.0))),
        Err(problems) => {
            show(&problems);
            Ok(None)
        }
    }
}

pub(super) fn show(problems: &Problems) {
    use std::io::Write;
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{problems}");
}
