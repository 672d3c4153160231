//! A server that has just been started on the books of another, to see what it takes to hold them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::super::super::say;
use super::scene::Control;
use super::{demand, supply, sweep};
use crate::exit::Exit;
use crate::serve::listen;

/// The hidden verb.
pub(in super::super) const VERB: &str = "afresh";

/// Start a server, have it sweep everything once, and print its resident memory in bytes
#[derive(Debug, Args)]
pub(in super::super) struct Afresh {
    #[arg(long)]
    fleet: PathBuf,
    #[arg(long)]
    state: PathBuf,
}

impl Afresh {
    pub(in super::super) async fn run(self) -> anyhow::Result<Exit> {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let control = Control::start(&self.fleet, self.state, listener).await?;
        sweep(&control, supply).await?;
        sweep(&control, demand).await?;
        say(&resident(Path::new("/proc/self/status"))?.to_string())?;
        control.stop().await?;
        Ok(Exit::Done)
    }
}

/// A process's resident memory, in bytes.
pub(super) fn resident(status: &Path) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(status).context("no memory is told of")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("no resident memory is told of")? * 1024.0)
}
