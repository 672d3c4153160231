//! `remuda version` and `remuda completions`: what this program says of itself.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::query::json;
use super::{Cli, Output, put, say};
use crate::exit::Exit;

/// Print which Remuda this is
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda version -o json")]
pub(super) struct Version {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Version {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let version = env!("CARGO_PKG_VERSION");
        let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        match self.output {
            Output::Table => say(&format!("remuda {version} ({arch}-{os}, {build})"))?,
            Output::Json => json(&serde_json::json!({
                "version": version,
                "arch": arch,
                "os": os,
                "build": build,
            }))?,
        }
        Ok(Exit::Done)
    }
}

/// Print a shell's completions, to be saved where it looks for them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda completions bash")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "remuda", &mut text);
        put(&text)?;
        Ok(Exit::Done)
    }
}
