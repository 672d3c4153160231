//! `remuda fmt`: fleet files in their one form.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use remuda_core::fleet::{SCHEMA, Source, syntax};

use super::form::formed;
use super::say;
use super::validate::{Files, show};
use crate::exit::Exit;

/// Write fleet files in their one form
///
/// Tables in the order of the reference page with a blank line between, none
/// within; lists over 100 columns one entry a line. What the files say stays,
/// comments too. Prints the names of the files that were in another form.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda fmt --check examples")]
pub(super) struct Fmt {
    /// The fleet file, or a directory of them
    #[arg(default_value = "fleet.toml")]
    file: PathBuf,
    /// Write nothing; fail if a file is in another form
    #[arg(long)]
    check: bool,
}

impl Fmt {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let files = Files::read(&self.file)?.0;
        let (mut others, mut unreadable) = (Vec::new(), false);
        for (name, text) in &files {
            if let Err(problems) = syntax(Source { name, text }) {
                show(&problems);
                unreadable = true;
                continue;
            }
            let form = form(text).with_context(|| format!("cannot give {name} its form"))?;
            if form != *text {
                others.push((name, form));
            }
        }
        if unreadable {
            return Ok(Exit::Failed);
        }
        for (name, form) in &others {
            if !self.check {
                replace(Path::new(name), form).with_context(|| format!("cannot write {name}"))?;
            }
            say(name)?;
        }
        Ok(if self.check && !others.is_empty() { Exit::Failed } else { Exit::Done })
    }
}

/// The text in its form, after making sure that it says the same.
fn form(text: &str) -> anyhow::Result<String> {
    let root = SCHEMA.iter().find(|section| section.path.is_empty());
    let order: Vec<_> = root.into_iter().flat_map(|root| root.keys).map(|key| key.name).collect();
    let form = formed(text, &order)?;
    let said = |text: &str| toml::from_str::<toml::Table>(text).map(|table| format!("{table:?}"));
    anyhow::ensure!(said(text)? == said(&form)?, "it would say something else, which is our fault");
    Ok(form)
}

/// Puts a file in another's place, whole or not at all. A link stays one.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let mode = std::fs::metadata(&path)?.permissions();
    let directory = path.parent().context("it is in no directory")?;
    let mut file = tempfile::Builder::new().prefix(".remuda-fmt-").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}
