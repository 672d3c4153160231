//! Putting the server together: books, adapters, loop, listeners; and taking it apart again.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use remuda_core::fleet::Fleet;
use remuda_provider::process::Shim;
pub use remuda_store::sqlite::Settings;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::Api;
use crate::books::Place;
use crate::clock::Clock;
use crate::handle::Handle;
use crate::intake::Intake;
use crate::lead::{Candidate, Lead};
use crate::metrics::Metrics;
use crate::perform::Outside;
use crate::reload::{self, Reload};
use crate::site::{Files, Ground};
use crate::tasks::Tasks;

/// What a server needs to be told.
#[derive(Debug)]
pub struct Options {
    /// What is declared.
    pub fleet: Fleet,
    /// The files it was read from.
    pub files: Files,
    /// Where deliveries are taken; see [`listen`].
    pub listener: TcpListener,
    /// Where books, socket and local instances live.
    pub state: PathBuf,
    /// How to execute this program as the shim of a local instance.
    pub shim: Shim,
    /// How the books are kept.
    pub books: Settings,
}

/// The socket of a server with this state directory.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("remuda.sock")
}

/// How long what another process has may take to become free. A child of a server that was killed has
/// its lock and its address too, from its fork until it has executed another program.
const LET_GO_MAX: Duration = Duration::from_secs(3);
/// Between two attempts meanwhile.
const LET_GO_AGAIN: Duration = Duration::from_millis(20);

/// Takes an address to listen on; waits a little for who is there to let go of it.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = async || TcpListener::bind(address).await;
    let bound = once_let_go(&address.to_string(), ErrorKind::AddrInUse, bind).await;
    bound.with_context(|| {
        format!("cannot listen on {address}; is another server there? Choose with --listen")
    })
}

/// What `take` gives, if need be at the last attempt within [`LET_GO_MAX`] in which nobody has it.
async fn once_let_go<T>(
    what: &str,
    had: ErrorKind,
    take: impl AsyncFn() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let begun = tokio::time::Instant::now();
    let mut told = false;
    loop {
        match take().await {
            Err(error) if error.kind() == had && begun.elapsed() < LET_GO_MAX => {
                if !told {
                    info!("waits for another process to let go of {what}");
                }
                told = true;
                tokio::time::sleep(LET_GO_AGAIN).await;
            }
            taken => return taken,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    handle: Handle,
    tasks: Tasks,
    reload: Arc<Reload>,
    // Held until the end: it keeps every other server out of the state directory.
    _lock: File,
}

impl Server {
    /// Starts a server; it serves once this returns.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_with(options, |_| ()).await
    }

    /// The same, and `furnish` may put something else in the place of what calls are made to.
    pub(crate) async fn start_with(
        options: Options,
        furnish: impl FnOnce(&mut Outside),
    ) -> anyhow::Result<Self> {
        let Options { fleet, files, listener, state, shim, books: settings } = options;
        private_directory(&state)?;
        let lock = lock(&state).await?;
        let place = Place::of(&fleet.server, &state)?;
        let holder = place.holder(&state)?;
        // Whose books they are decides which instances are ours; the rest is read by whoever leads.
        let (store, installation) = place.await_open(&settings).await?;
        let clock = Clock::system();
        let ground = Ground { installation, state: state.clone(), shim, clock: clock.clone() };
        let mut site = reload::begin(&*store, &ground, fleet, files).await?;
        if let Some(outside) = Arc::get_mut(&mut site.outside) {
            furnish(outside);
        }
        let (sites, served) = watch::channel(Arc::new(site));
        let metrics = Arc::new(Metrics::default());
        let lead = Lead::new(Candidate {
            store: Arc::clone(&store),
            holder,
            installation: ground.installation.clone(),
            sites: served.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        });
        let handle = lead.handle();
        let addr = listener.local_addr().context("the listener has no address")?;
        let socket = Api::bind(&socket_path(&state))?;
        let mut tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn("the loop", lead.run(stop.clone()));
        let intake =
            Intake::new(served.clone(), clock, Arc::clone(&store), handle.clone(), metrics);
        tasks.spawn("the intake", intake.serve(listener, stop.clone()));
        let reload = Arc::new(Reload::new(ground, Arc::clone(&store), sites));
        let api = Api { handle: handle.clone(), store, sites: served, reload: Arc::clone(&reload) };
        tasks.spawn("the socket", api.serve(socket, stop.clone()));
        if reload.site().fleet.server.database.is_some() {
            tasks.spawn("the fleet", Arc::clone(&reload).keep_up(stop));
        }
        info!(%addr, state = %state.display(), "serving on {addr}");
        Ok(Self { addr, handle, tasks, reload, _lock: lock })
    }

    /// Where deliveries are taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How to ask and tell the loop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What its calls are made to at the moment; still good after the server has ended.
    pub(crate) fn outside(&self) -> Arc<Outside> {
        Arc::clone(&self.reload.site().outside)
    }

    /// How to put another fleet in force.
    pub fn reload(&self) -> Arc<Reload> {
        Arc::clone(&self.reload)
    }

    /// What tells the server to stop.
    pub fn stop(&self) -> CancellationToken {
        self.tasks.stop()
    }

    /// Waits until the server was told to stop or fails, then joins all that it started. Runners with
    /// jobs run on; the next server adopts them.
    pub async fn join(self) -> anyhow::Result<()> {
        let outcome = self.tasks.join().await;
        self.reload.close().await;
        outcome
    }
}

/// Makes the directory if it is not there, for its owner alone.
pub(crate) fn private_directory(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the state directory {}", path.display()))
}

/// The state directory is one server's at a time. The system releases the lock when the server ends,
/// however it ends, so its successor need not wait for a lease to run out.
pub(crate) async fn lock(state: &Path) -> anyhow::Result<File> {
    let path = state.join("remuda.lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let take = async || file.try_lock().map_err(std::io::Error::from);
    match once_let_go(&path.display().to_string(), ErrorKind::WouldBlock, take).await {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let mut holder = String::new();
            // Who has yet to write itself down, or is of an older version, remains unnamed.
            let _ = (&file).take(20).read_to_string(&mut holder);
            let holder = holder.trim().parse().map(|pid: u32| format!(" (process {pid})"));
            bail!(
                "another server{} is running on {}; stop it, or choose another directory with \
                 --state",
                holder.unwrap_or_default(),
                state.display()
            )
        }
        taken => taken.with_context(|| format!("cannot lock {}", path.display()))?,
    }
    // For the message above only, so a full disk is no obstacle.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
