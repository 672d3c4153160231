//! The `process` provider: an instance is a local process with all that descends from it, in a
//! directory of its own, with limits where the system allows them.
//!
//! Instances outlive the server: each has a [`shim`] that needs nobody. What there is, is read from
//! the directories, so a restarted server finds all of it. A process is ours by pid, start time, boot
//! and the instance's tag together, or it is left alone. There is no isolation between jobs beyond
//! that of the user they run as. Under systemd the server's unit must say `KillMode=process`, or a
//! restart of the unit ends every runner.

mod end;
mod enter;
mod family;
mod gate;
mod home;
mod launch;
mod limits;
mod output;
pub mod shim;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use remuda_core::Timestamp;
use remuda_core::action::Launch;
use remuda_core::fleet::{self, Image, ProviderKind};
use remuda_core::name::{ImageName, InstallationId, NodeName, ProviderName, Resource, RunnerName};
use remuda_core::observation::{Condition, InstanceSeen};
use remuda_core::pool::Capacity;
use remuda_core::runner::InstanceId;
use secrecy::SecretString;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::image::fetch::Archives;
use crate::{Provider, ProviderError};
use family::Process;
use gate::Gates;
use home::{Found, Home};

/// The one node's name.
const NODE: &str = "local";

/// How to execute this very program as the shim.
#[derive(Clone, Debug)]
pub struct Shim {
    /// The program.
    pub program: PathBuf,
    /// What tells it to be the shim; more arguments follow. It must call [`shim::main`] with those.
    pub args: Vec<String>,
}

/// Tells the time: deadlines are compared with it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes instances as local processes.
pub struct ProcessProvider(Arc<Inner>);

struct Inner {
    name: ProviderName,
    instances_max: Option<usize>,
    capacity: BTreeMap<Resource, u64>,
    images: BTreeMap<ImageName, Image>,
    root: PathBuf,
    installation: InstallationId,
    shim: Shim,
    clock: Clock,
    archives: Archives,
    /// One launch or destruction per instance at a time.
    gates: Gates,
    /// Held while a place is taken.
    settling: Mutex<()>,
    /// Instances whose end is awaited.
    watched: Mutex<BTreeSet<InstanceId>>,
    wakes: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ProcessProvider {
    /// A provider whose instances live below `root`, which is made when needed and must belong to
    /// this provider alone. Does nothing yet.
    pub fn new(
        config: &fleet::Provider,
        images: &BTreeMap<ImageName, Image>,
        root: PathBuf,
        installation: InstallationId,
        shim: Shim,
        clock: Clock,
    ) -> Self {
        let ProviderKind::Process(process) = &config.kind;
        // The shim works elsewhere. Only a server without a working directory fails here, and then
        // a relative root has no meaning anyway.
        let root = std::path::absolute(&root).unwrap_or(root);
        let archives = images.values().filter_map(|image| image.archive.as_ref());
        Self(Arc::new(Inner {
            name: config.name.clone(),
            instances_max: config.max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            capacity: process.capacity.clone(),
            images: images.clone(),
            archives: Archives::new(root.join(".cache"), archives),
            root,
            installation,
            shim,
            clock,
            gates: Gates::default(),
            settling: Mutex::default(),
            watched: Mutex::default(),
            wakes: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }
}

#[async_trait]
impl Provider for ProcessProvider {
    async fn launch(
        &self,
        launch: &Launch,
        jit: &SecretString,
    ) -> Result<Option<NodeName>, ProviderError> {
        if node().is_some_and(|node| launch.avoid.contains(&node)) {
            return Err(ProviderError::Full(format!("its only node, {NODE}, is to be avoided")));
        }
        let (inner, launch, jit) = (Arc::clone(&self.0), launch.clone(), jit.clone());
        // A task of its own: a caller that stops waiting must not leave half an instance unwatched.
        let task = self.0.tasks.spawn(async move { inner.launch(launch, jit).await });
        task.await.unwrap_or_else(|error| {
            Err(ProviderError::unknown(
                format!("the launch at provider {} broke off", self.0.name),
                error,
            ))
        })?;
        Ok(node())
    }

    async fn destroy(&self, instance: InstanceId) -> Result<(), ProviderError> {
        let inner = Arc::clone(&self.0);
        let task = self.0.tasks.spawn(async move {
            let _gate = inner.gates.enter(instance).await;
            let home = Home::of(&inner.root, instance);
            let installation = inner.installation.clone();
            blocking(move || end::end(&home, installation.as_str())).await
        });
        let ended = task.await.map_err(io::Error::other).flatten();
        ended.map_err(|error| {
            ProviderError::unknown(format!("cannot destroy instance {instance} whole"), error)
        })
    }

    async fn instances(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let inner = Arc::clone(&self.0);
        let listed = blocking(move || inner.list()).await;
        let listed = listed.map_err(|error| {
            let root = self.0.root.display();
            ProviderError::transient(format!("cannot list the instances in {root}"), error)
        })?;
        for (seen, shim) in &listed {
            if let Some(handle) = shim.and_then(Process::open) {
                Inner::watch(&self.0, seen.id, handle, None);
            }
        }
        Ok(listed.into_iter().map(|(seen, _)| seen).collect())
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        let declared = Some(&self.0.capacity).filter(|capacity| !capacity.is_empty());
        Ok(declared.map(|units| {
            let mut units = units.clone();
            // What is shared by all processes and not declared is not limited; everything else that is
            // not declared is not there.
            for shared in ["cpu", "memory"] {
                let shared = Resource::new(shared).expect("it is a plain word");
                units.entry(shared).or_insert(u64::MAX);
            }
            Capacity { nodes: node().into_iter().map(|node| (node, units.clone())).collect() }
        }))
    }

    async fn tail(&self, instance: InstanceId, bytes_max: usize) -> Result<Vec<u8>, ProviderError> {
        let home = Home::of(&self.0.root, instance);
        let read = blocking(move || output::tail(home.path(), bytes_max)).await;
        read.map_err(|error| {
            ProviderError::transient(
                format!("cannot read the output of instance {instance}"),
                error,
            )
        })
    }

    fn wakes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.wakes.subscribe())
    }

    async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    /// Every instance of ours, with its shim if that is alive.
    fn list(&self) -> io::Result<Vec<(InstanceSeen, Option<Process>)>> {
        {
            let _settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
            home::sweep(&self.root)?;
        }
        let mut all = Vec::new();
        for (id, home) in home::homes(&self.root)? {
            let in_the_making = home.is_in_the_making()?;
            let (runner, shim, condition) = match home.find()? {
                Found::Nothing => continue,
                Found::Instance(record)
                    if record.tag.installation != self.installation.as_str() =>
                {
                    continue;
                }
                Found::Bare => (None, None, Condition::Exited(None)),
                Found::Instance(record) => {
                    let runner = RunnerName::new(&record.runner).ok();
                    (runner, record.living_shim(), home.condition(&record))
                }
            };
            let condition = match condition {
                Condition::Exited(None) if in_the_making => Condition::Running,
                Condition::Running | Condition::Exited(_) => condition,
            };
            all.push((InstanceSeen { id, runner, node: node(), condition }, shim));
        }
        Ok(all)
    }

    /// Waits in the background for a shim's end, reaps it if it is our child, and tells.
    fn watch(this: &Arc<Self>, id: InstanceId, shim: OwnedFd, child: Option<Child>) {
        let fresh = this.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        // A listing may have begun to watch a child of ours before the launch did; both may go on.
        if !fresh && child.is_none() {
            return;
        }
        let inner = Arc::clone(this);
        this.tasks.spawn(async move {
            let Ok(shim) = awaitable(shim) else {
                // Nothing left to watch with: the next listing tells as well, only later.
                inner.unwatch(id);
                return;
            };
            tokio::select! {
                () = inner.stop.cancelled() => return,
                _ended = shim.readable() => {}
            }
            if let Some(mut child) = child {
                // It has ended, so this does not wait.
                let _ = child.wait();
            }
            inner.unwatch(id);
            inner.wakes.send_modify(|count| *count = count.wrapping_add(1));
        });
    }

    fn unwatch(&self, id: InstanceId) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[expect(
    deprecated,
    reason = "tokio wants `unsafe` here for types whose descriptor may change; an `OwnedFd`'s does not"
)]
fn awaitable(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

fn node() -> Option<NodeName> {
    NodeName::new(NODE).ok()
}

/// Does what would block elsewhere than on the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}
