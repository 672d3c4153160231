//! What `remuda bench reconcile` plays on: servers, and the forge they share.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use remuda_core::Timestamp;
use remuda_core::fleet::{Allowance, Demand, Fleet, Polls};
use remuda_provider::Provider;
use remuda_store::sqlite::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::super::super::shim;
use super::super::super::stage::backdrop::{self, Backdrop};
use super::super::super::stage::{APP, read};
use super::afresh;
use super::farm::Farm;
use super::forge::{self, OWNERS, POOLS, label, owner};
use crate::books::Place;
use crate::clock::Clock;
use crate::handle::Handle;
use crate::serve::{Options, Server, listen, private_directory};

/// Launches at once: more than the forge answers.
const LAUNCHES: u32 = 64;
/// More than there will be.
const RUNNERS_MAX: u32 = 200_000;

/// A server whose provider is a [`Farm`].
pub(super) struct Control {
    server: Server,
    clock: Clock,
}

impl Control {
    /// Starts it on the books in `state`, with an instance for each that they know; it leads once this
    /// returns.
    pub(super) async fn start(
        fleet: &Path,
        state: PathBuf,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let (fleet, files) = read(fleet)?;
        let (fleet, shim, books) = (adjusted(fleet), shim()?, Settings::default());
        private_directory(&state)?;
        let store = Place::of(&fleet.server, &state)?.open(Settings::default()).await?;
        let farm: Arc<dyn Provider> = Arc::new(Farm::of(&store.load().await?));
        drop(store);
        let mut clock = None;
        let options = Options { fleet, files, listener, state, shim, books };
        let server = Server::start_with(options, |outside| {
            outside.providers.values_mut().for_each(|provider| *provider = Arc::clone(&farm));
            clock = Some(outside.clock.clone());
        });
        let server = server.await?;
        server.handle().leads().await?;
        let clock = clock.context("the server has no clock")?;
        Ok(Self { server, clock })
    }

    /// How to ask the loop.
    pub(super) fn handle(&self) -> &Handle {
        self.server.handle()
    }

    /// The server's time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The histogram of decisions: its bounds in seconds, each with how many took no longer.
    pub(super) async fn decisions(&self) -> anyhow::Result<Vec<(f64, u64)>> {
        let url = format!("http://{}/metrics", self.server.addr());
        let text = reqwest::get(url).await?.error_for_status()?.text().await?;
        let bucket = |line: &str| {
            let line = line.strip_prefix("remuda_decision_seconds_bucket{le=\"")?;
            let (bound, count) = line.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        };
        Ok(text.lines().filter_map(bucket).collect())
    }

    /// Ends it.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().cancel();
        self.server.join().await
    }
}

/// A forge in a process of its own, and what the servers that use it are told.
pub(super) struct Scene {
    forge: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    fleet: PathBuf,
    directory: TempDir,
}

impl Scene {
    /// Puts the forge up, and a server on empty books.
    pub(super) async fn start() -> anyhow::Result<(Self, Control)> {
        let directory = tempfile::Builder::new().prefix("remuda-").tempdir();
        let directory = directory.context("cannot make a temporary directory")?;
        let path = directory.path();
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let addr = listener.local_addr().context("the listener has no address")?;
        let secret = backdrop::draw_secret()?;
        let secret_file = path.join("forge-secret");
        backdrop::write_private(&secret_file, &secret)?;
        let mut forge = this_program()?
            .args(["bench", forge::VERB, "--webhook-url"])
            .arg(format!("http://{addr}/webhooks/github"))
            .arg("--secret-file")
            .arg(secret_file)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start the forge")?;
        let orders = forge.stdin.take().context("the forge takes no orders")?;
        let stdout = forge.stdout.take().context("the forge does not answer")?;
        let mut answers = BufReader::new(stdout).lines();
        let sandbox = answers.next_line().await?.context("the forge did not start")?;
        let place = backdrop::Place { directory: path, sandbox, addr };
        let fleet = backdrop().write(&place, APP, &secret)?;
        let control = Control::start(&fleet, path.join("state"), listener).await?;
        Ok((Self { forge, orders, answers, fleet, directory }, control))
    }

    /// Has the forge do something, and waits until it is done.
    pub(super) async fn order(&mut self, line: &str) -> anyhow::Result<()> {
        self.orders.write_all(format!("{line}\n").as_bytes()).await?;
        match self.answers.next_line().await?.as_deref() {
            Some("done") => Ok(()),
            Some(other) => bail!("the forge says {other:?}"),
            None => Err(anyhow!("the forge broke off")),
        }
    }

    /// The resident memory, in bytes, of a new server that has swept once; on the books of the one that
    /// was here, or on empty ones.
    pub(super) async fn afresh(&self, empty: bool) -> anyhow::Result<f64> {
        let state = if empty { "empty" } else { "state" };
        let child = this_program()?
            .args(["bench", afresh::VERB, "--fleet"])
            .arg(&self.fleet)
            .arg("--state")
            .arg(self.directory.path().join(state))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start another server")?;
        let output = child.wait_with_output().await.context("the other server broke off")?;
        if !output.status.success() {
            bail!("the other server failed: {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().context("the other server does not tell its memory")
    }

    /// Takes the forge down and leaves no file behind.
    pub(super) async fn strike(mut self) -> anyhow::Result<()> {
        drop(self.orders);
        self.forge.start_kill().context("cannot end the forge")?;
        self.forge.wait().await.context("cannot end the forge")?;
        self.directory.close().context("cannot remove the temporary directory")
    }
}

/// This program, to be told a verb. It ends with us.
fn this_program() -> anyhow::Result<tokio::process::Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = tokio::process::Command::new(program);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

fn backdrop() -> Backdrop {
    Backdrop {
        scopes: (0..OWNERS).map(|number| format!("org:{}", owner(number))).collect(),
        pools: (0..POOLS).map(|pool| vec![label(pool)]).collect(),
        pool_max: RUNNERS_MAX,
        provider_max: RUNNERS_MAX,
        tenant_cap: RUNNERS_MAX,
        min_idle: 0,
        poll_seconds: 30,
        idle_seconds: 3600,
        database: None,
    }
}

/// As a stage has it, but for what is usual with a real forge.
fn adjusted(mut fleet: Fleet) -> Fleet {
    for forge in fleet.forges.values_mut() {
        forge.polls = Polls::default();
        let budget = Allowance::Calls(1_000_000);
        forge.demand = Demand { budget, ..Demand::default() };
    }
    for provider in fleet.providers.values_mut() {
        provider.launches_max = LAUNCHES;
    }
    fleet
}
