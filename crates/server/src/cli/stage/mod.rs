//! A sandbox GitHub and a control plane for it, in this process and in one temporary directory: what
//! `demo` and `bench` play on. [`Stage::strike`] leaves no process and no file behind.

pub(crate) mod backdrop;
mod leaks;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use remuda_core::fleet::Fleet;
use remuda_sandbox::{AppConfig, Config, Faults, OwnerConfig, Sandbox, Times};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{asked_to_end, shim};
use crate::handle::Handle;
use crate::perform::Outside;
use crate::reload;
use crate::serve::{Options, Server, Settings, listen};
use crate::site::Files;
use backdrop::Backdrop;
pub(crate) use leaks::Leaks;

/// The sandbox's one App.
pub(crate) const APP: u64 = 1;
/// Rounds of destroying what is left: a launch that was under way may show up after the first.
const ROUNDS_MAX: u32 = 10;

/// What to put up.
#[derive(Clone, Debug)]
pub(crate) struct Scenery {
    /// The fleet, but for addresses and paths.
    pub(crate) backdrop: Backdrop,
    /// The sandbox's accounts.
    pub(crate) owners: Vec<OwnerConfig>,
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// What chance is drawn from.
    pub(crate) seed: u64,
}

/// What is on the stage, for those who play on it.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) handle: Handle,
    /// Where deliveries are taken.
    pub(crate) addr: SocketAddr,
    /// The server's state directory.
    pub(crate) state: PathBuf,
    /// The fleet file.
    pub(crate) fleet: PathBuf,
    /// Where instances live.
    pub(crate) instances: PathBuf,
}

impl Scene {
    /// Whatever is there that should not be once everything has ended.
    pub(crate) async fn leaks(&self) -> anyhow::Result<Leaks> {
        Leaks::find(self).await
    }
}

type Joined = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A running sandbox with its control plane.
pub(crate) struct Stage {
    scene: Scene,
    outside: Arc<Outside>,
    stop: CancellationToken,
    joined: Option<Joined>,
    directory: TempDir,
}

impl Stage {
    /// Puts everything up; jobs can be submitted once this returns.
    pub(crate) async fn start(scenery: Scenery) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("remuda-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let addr = listener.local_addr().context("the listener has no address")?;
        let secret = backdrop::draw_secret()?;
        let mut app = AppConfig::new(APP);
        app.webhook_url = Some(format!("http://{addr}/webhooks/github"));
        app.webhook_secret = secret.clone().into();
        let sandbox = Sandbox::start(Config {
            owners: scenery.owners,
            apps: vec![app],
            faults: scenery.faults,
            seed: scenery.seed,
            times: Times::default(),
            ..Config::default()
        })
        .await?;
        let place = backdrop::Place { directory: directory.path(), sandbox: sandbox.url(), addr };
        let fleet_file = scenery.backdrop.write(&place, APP, &secret)?;
        let (fleet, files) = read(&fleet_file)?;
        let state = directory.path().join("state");
        let (shim, books) = (shim()?, Settings::default());
        let options = Options { fleet, files, listener, state: state.clone(), shim, books };
        let server = Server::start(options).await?;
        server.handle().leads().await?;
        let scene = Scene {
            sandbox,
            handle: server.handle().clone(),
            addr,
            state,
            fleet: fleet_file,
            instances: directory.path().join(backdrop::INSTANCES),
        };
        let (outside, stop) = (server.outside(), server.stop());
        Ok(Self { scene, outside, stop, joined: Some(Box::pin(server.join())), directory })
    }

    /// What is on the stage.
    pub(crate) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// The temporary directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Plays to its end and gives what came of it; `None` if `end` came before. An error if the control
    /// plane fails meanwhile.
    pub(crate) async fn play<T>(
        &mut self,
        end: Pin<&mut impl Future<Output = ()>>,
        play: impl AsyncFnOnce(&Scene) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let joined = self.joined.as_mut().context("the control plane has ended")?;
        let failed = tokio::select! {
            ended = play(&self.scene) => return ended.map(Some),
            () = end => return Ok(None),
            ended = joined => ended,
        };
        self.joined = None;
        failed.and_then(|()| Err(anyhow!("it ended by itself"))).context("the control plane failed")
    }

    /// Takes everything down: the server, every instance there still is, the sandbox, the directory.
    pub(crate) async fn strike(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let stopped = match self.joined.take() {
            Some(joined) => joined.await.context("the control plane did not stop in order"),
            None => Ok(()),
        };
        let destroyed = destroy_all(&self.outside).await;
        self.scene.sandbox.close().await;
        let path = self.directory.path().display().to_string();
        let removed = self.directory.close().with_context(|| format!("cannot remove {path}"));
        stopped.and(destroyed).and(removed)
    }
}

/// Resolves once the user asks the program to end, or is gone with the terminal. What arrived while
/// nobody waited counts too, if it was waited for before.
pub(crate) async fn ended_by_user() {
    use tokio::signal::unix::{SignalKind, signal};
    let hung_up = async {
        match signal(SignalKind::hangup()) {
            Ok(mut hangup) => hangup.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = asked_to_end() => {}
        _ = hung_up => {}
    }
}

async fn destroy_all(outside: &Outside) -> anyhow::Result<()> {
    for (name, provider) in &outside.providers {
        let mut round = 0;
        loop {
            let left = provider.instances().await?;
            if left.is_empty() {
                break;
            }
            if round == ROUNDS_MAX {
                bail!("provider {name} still has {} instances that cannot be ended", left.len());
            }
            round += 1;
            for instance in left {
                provider.destroy(instance.id).await?;
            }
        }
    }
    Ok(())
}

/// Reads a fleet file.
pub(crate) fn read(file: &Path) -> anyhow::Result<(Fleet, Files)> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let files = vec![(name, text)];
    Ok((reload::read(&files).map_err(|problems| anyhow!("{problems}"))?, files))
}
