//! Putting the server together: books, adapters, loop, listeners; and taking it apart again.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use remuda_core::fleet::{Fleet, ProviderKind};
use remuda_core::name::InstallationId;
use remuda_forge::{Forge, GitHub};
use remuda_provider::Provider;
use remuda_provider::process::{ProcessProvider, Shim};
pub use remuda_store::sqlite::Settings;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::Api;
use crate::books::Place;
use crate::clock::Clock;
use crate::handle::Handle;
use crate::intake::Intake;
use crate::lead::{Candidate, Lead};
use crate::metrics::Metrics;
use crate::perform::Outside;
use crate::tasks::Tasks;

/// What a server needs to be told.
#[derive(Debug)]
pub struct Options {
    /// What is declared.
    pub fleet: Fleet,
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

/// Takes an address to listen on.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another server there? Choose with --listen")
    })
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    handle: Handle,
    tasks: Tasks,
    outside: Arc<Outside>,
    // Held until the end: it keeps every other server out of the state directory.
    _lock: OwnedFd,
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
        let Options { fleet, listener, state, shim, books: settings } = options;
        private_directory(&state)?;
        let lock = lock(&state)?;
        let (store, holder) = Place::of(&fleet.server, &state)?.open(settings).await?;
        // Whose books they are decides which instances are ours; the rest is read by whoever leads.
        let installation = store.load().await?.installation;
        let mut outside = outside(&fleet, &installation, &state, &shim)?;
        furnish(&mut outside);
        let outside = Arc::new(outside);
        let metrics = Arc::new(Metrics::default());
        let lead = Lead::new(Candidate {
            store: Arc::clone(&store),
            holder,
            installation,
            fleet: Arc::new(fleet),
            outside: Arc::clone(&outside),
            metrics: Arc::clone(&metrics),
            clock: outside.clock.clone(),
        });
        let handle = lead.handle();
        let addr = listener.local_addr().context("the listener has no address")?;
        let socket = Api::bind(&socket_path(&state))?;
        let mut tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn("the loop", lead.run(stop.clone()));
        let intake = Intake::new(Arc::clone(&outside), Arc::clone(&store), handle.clone(), metrics);
        tasks.spawn("the intake", intake.serve(listener, stop.clone()));
        let api = Api { handle: handle.clone(), store, outside: Arc::clone(&outside) };
        tasks.spawn("the socket", api.serve(socket, stop));
        info!(%addr, state = %state.display(), "serving on {addr}");
        Ok(Self { addr, handle, tasks, outside, _lock: lock })
    }

    /// Where deliveries are taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How to ask and tell the loop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What its calls are made to; still good after the server has ended.
    pub(crate) fn outside(&self) -> Arc<Outside> {
        Arc::clone(&self.outside)
    }

    /// What tells the server to stop.
    pub fn stop(&self) -> CancellationToken {
        self.tasks.stop()
    }

    /// Waits until the server was told to stop or fails, then joins all that it started. Runners with
    /// jobs run on; the next server adopts them.
    pub async fn join(self) -> anyhow::Result<()> {
        let outcome = self.tasks.join().await;
        for provider in self.outside.providers.values() {
            provider.close().await;
        }
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
pub(crate) fn lock(state: &Path) -> anyhow::Result<OwnedFd> {
    let path = state.join("remuda.lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let fd = OwnedFd::from(file);
    match rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another server is running on {}; stop it, or choose another directory with --state",
            state.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn outside(
    fleet: &Fleet,
    installation: &InstallationId,
    state: &Path,
    shim: &Shim,
) -> anyhow::Result<Outside> {
    let mut outside = Outside::new(Clock::system());
    let host = host();
    for (name, declared) in &fleet.forges {
        let forge = GitHub::new(declared, outside.clock.teller())
            .with_context(|| format!("cannot set up forge {name}"))?;
        outside.forges.insert(name.clone(), Arc::new(forge) as Arc<dyn Forge>);
    }
    for (name, declared) in &fleet.providers {
        let ProviderKind::Process(process) = &declared.kind;
        if let Some(node) = process.node.as_ref().filter(|node| **node != host) {
            let why = format!("provider {name} makes instances on {node}, and this is {host}");
            warn!("{why}: while this replica leads, it is left alone");
            outside.elsewhere.insert(name.clone(), why);
            continue;
        }
        let root = process
            .directory
            .clone()
            .unwrap_or_else(|| state.join("instances").join(name.as_str()));
        let provider = ProcessProvider::new(
            declared,
            &fleet.images,
            root,
            installation.clone(),
            shim.clone(),
            outside.clock.teller(),
        );
        outside.providers.insert(name.clone(), Arc::new(provider) as Arc<dyn Provider>);
    }
    Ok(outside)
}
