//! `remuda serve`: the control plane.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use tracing::{error, info};
use tracing_subscriber::filter::LevelFilter;

use super::validate::Files;
use super::{State, asked_to_end, log, runtime, shim};
use crate::exit::Exit;
use crate::serve::{Options, Reload, Server, Settings, listen};

/// Run the control plane
///
/// Takes webhook deliveries at /webhooks/github, makes runners for the jobs they tell of and removes
/// them again. Ends on Ctrl-C or SIGTERM; running jobs run on, and the next start adopts them. On SIGHUP
/// it reads the fleet and its secrets again; one that is not in order changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda serve --fleet examples/laptop.toml")]
pub(super) struct Serve {
    /// What to serve, a file or a directory of them: see docs/fleet.md
    #[arg(long, value_name = "FILE")]
    fleet: PathBuf,
    /// Where to take deliveries [default: the fleet file's, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    state: State,
    /// Log as JSON, one object a line
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        log(LevelFilter::INFO, self.log_json);
        let Some(fleet) = super::validate::read(&self.fleet)? else { return Ok(Exit::Failed) };
        let address = self.listen.unwrap_or(fleet.server.listen);
        let options = |listener| -> anyhow::Result<Options> {
            let (state, books) = (self.state.directory(), Settings::default());
            Ok(Options { fleet, listener, state, shim: shim()?, books })
        };
        runtime()?.block_on(async {
            let server = Server::start(options(listen(address).await?)?).await?;
            let (stop, reload) = (server.stop(), server.reload());
            let joined = server.join();
            tokio::pin!(joined);
            tokio::select! {
                ended = &mut joined => ended?,
                () = asked_to_end() => {
                    stop.cancel();
                    joined.await?;
                }
                gone = read_again(&self.fleet, &reload) => match gone? {},
            }
            Ok(Exit::Done)
        })
    }
}

/// Whenever SIGHUP arrives, serves what the fleet file says by then.
async fn read_again(fleet: &Path, reload: &Reload) -> anyhow::Result<Infallible> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    loop {
        // The stream never ends.
        let _ = hangup.recv().await;
        let read = Files::read(fleet).and_then(|files| {
            files
                .parse()
                .map_err(|problems| anyhow!("{} is not in order:\n{problems}", fleet.display()))
        });
        let served = match read {
            Ok(read) => reload.serve(read).await,
            Err(why) => Err(why),
        };
        match served {
            Ok(found) if found.is_empty() => {
                info!("the fleet is the same; its secrets were read again");
            }
            Ok(found) => info!("{} keys of the fleet are different", found.len()),
            Err(why) => error!("goes on with the fleet as it was: {why:#}"),
        }
    }
}
