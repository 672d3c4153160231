//! `remuda serve`: the control plane.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tracing::error;
use tracing_subscriber::filter::LevelFilter;

use super::validate::Files;
use super::{State, asked_to_end, log, runtime, shim};
use crate::env;
use crate::exit::Exit;
use crate::reload::{self, Reload, Wish};
use crate::serve::{Options, Server, Settings, listen};

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
        let Some((fleet, files)) = super::validate::read(&self.fleet)? else {
            return Ok(Exit::Failed);
        };
        let address = self.listen.unwrap_or(fleet.server.listen);
        let options = |listener| -> anyhow::Result<Options> {
            let (state, books) = (self.state.directory(), Settings::default());
            Ok(Options { fleet, files, listener, state, shim: shim()?, books })
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
        let read = Files::read(fleet).map(|Files(files)| Wish {
            files,
            who: env::user(),
            how: reload::SIGNAL.into(),
            base: None,
        });
        let served = match read {
            Ok(wish) => reload.serve(wish).await.map_err(anyhow::Error::from),
            Err(why) => Err(why),
        };
        if let Err(why) = served {
            error!("goes on with the fleet as it was: {why:#}");
        }
    }
}
