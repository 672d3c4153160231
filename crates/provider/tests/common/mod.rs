//! A `process` provider in a directory of its own, and ways to wait for what its runners do.
#![expect(dead_code, reason = "each test program uses a part")]
#![expect(clippy::unwrap_used, reason = "only tests call these")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remuda_core::Timestamp;
use remuda_core::action::Launch;
use remuda_core::fleet::{self, Archive, Image, JitBy, Process, ProviderKind};
use remuda_core::label::LabelSet;
use remuda_core::name::{InstallationId, Resource};
use remuda_core::observation::{Condition, InstanceSeen};
use remuda_core::runner::{InstanceId, RunnerId};
use remuda_core::tenant::Scope;
use remuda_provider::process::{Clock, ProcessProvider, Shim};
use remuda_provider::{Provider, ProviderError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// Longer than anything here takes on a loaded machine: what comes later never comes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The secret of every launch.
pub(crate) const JIT: &str = "eyJ0aGlzIjoiaXMgYSBzZWNyZXQifQ==";

pub(crate) const INSTALLATION: &str = "test";

/// A provider's directory, its images, and a pipe on which runners say how far they are.
pub(crate) struct World {
    pub(crate) dir: Place,
    pub(crate) images: BTreeMap<remuda_core::name::ImageName, Image>,
    pub(crate) max: Option<u32>,
    pub(crate) capacity: BTreeMap<Resource, u64>,
    pub(crate) clock: Clock,
    words: BufReader<pipe::Receiver>,
}

/// A directory, removed by whoever made it.
pub(crate) enum Place {
    Own(tempfile::TempDir),
    Others(PathBuf),
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Others(dir) => dir,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("words");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        Self::of(Place::Own(dir))
    }

    /// The same place, seen by another process.
    pub(crate) fn again(dir: PathBuf) -> Self {
        Self::of(Place::Others(dir))
    }

    fn of(dir: Place) -> Self {
        let fifo = dir.path().join("words");
        // Open for writing as well: then it has no end between two runners.
        let words = pipe::OpenOptions::new().read_write(true).open_receiver(&fifo).unwrap();
        Self {
            dir,
            images: BTreeMap::new(),
            max: None,
            capacity: BTreeMap::new(),
            clock: Arc::new(|| Timestamp::from_millis(0)),
            words: BufReader::new(words),
        }
    }

    /// Declares an image that runs a script of bash's. `$WORDS` is where it tells how far it is.
    pub(crate) fn script(&mut self, name: &str, script: &str) {
        self.image(name, &[&program("bash"), "-c", script]);
    }

    pub(crate) fn image(&mut self, name: &str, command: &[&str]) -> &mut Image {
        let fifo = self.dir.path().join("words").display().to_string();
        let image = Image {
            name: name.parse().unwrap(),
            archive: None,
            command: command.iter().map(|&part| part.to_owned()).collect(),
            env: BTreeMap::from([("WORDS".to_owned(), fifo)]),
            jit: JitBy::Env(JitBy::OFFICIAL.to_owned()),
        };
        self.images.entry(image.name.clone()).or_insert(image)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("instances")
    }

    pub(crate) fn home(&self, instance: u64) -> PathBuf {
        self.root().join(instance.to_string())
    }

    /// A provider as a freshly started server makes it.
    pub(crate) fn provider(&self) -> ProcessProvider {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_remuda-process-shim"));
        self.provider_with(Shim { program, args: vec![] })
    }

    pub(crate) fn provider_with(&self, shim: Shim) -> ProcessProvider {
        let process = Process { directory: None, node: None, capacity: self.capacity.clone() };
        let config = fleet::Provider {
            name: "here".parse().unwrap(),
            kind: ProviderKind::Process(process),
            max: self.max,
            launches_max: 8,
            launch_deadline: Duration::from_secs(30),
            poll: Duration::from_secs(30),
            absent: Duration::from_secs(1),
        };
        let installation = InstallationId::new(INSTALLATION).unwrap();
        let clock = Arc::clone(&self.clock);
        ProcessProvider::new(&config, &self.images, self.root(), installation, shim, clock)
    }

    /// The next line a runner wrote to `$WORDS`.
    pub(crate) async fn word(&mut self) -> String {
        let mut line = String::new();
        let read = self.words.read_line(&mut line);
        tokio::time::timeout(PATIENCE, read).await.expect("a runner should have spoken").unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) async fn pid(&mut self) -> i32 {
        self.word().await.parse().unwrap()
    }

    /// What an instance's record says.
    pub(crate) fn record(&self, instance: u64) -> serde_json::Value {
        let text = std::fs::read(self.home(instance).join("instance.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub(crate) fn shim_pid(&self, instance: u64) -> i32 {
        let pid = &self.record(instance)["shim"]["process"]["pid"];
        i32::try_from(pid.as_i64().unwrap()).unwrap()
    }
}

/// What a launch of `image` as an instance asks for.
pub(crate) fn launch(image: &str, instance: u64) -> Launch {
    Launch {
        runner: RunnerId(instance),
        name: format!("remuda-test-pool-{instance}").parse().unwrap(),
        forge: "forge".parse().unwrap(),
        scope: Scope::Organization("acme".parse().unwrap()),
        group: None,
        labels: LabelSet::parse(["linux"]).unwrap(),
        instance: InstanceId(instance),
        epoch: 1,
        pool: "pool".parse().unwrap(),
        provider: "here".parse().unwrap(),
        image: image.parse().unwrap(),
        needs: Arc::default(),
        avoid: Arc::default(),
        deadline: Timestamp::from_millis(60_000),
    }
}

pub(crate) fn jit() -> SecretString {
    SecretString::from(JIT)
}

pub(crate) async fn start(
    provider: &dyn Provider,
    image: &str,
    instance: u64,
) -> Result<(), ProviderError> {
    provider.launch(&launch(image, instance), &jit()).await.map(drop)
}

/// The condition of each instance, by number.
pub(crate) async fn conditions(provider: &dyn Provider) -> BTreeMap<u64, Condition> {
    let all: Vec<InstanceSeen> = provider.instances().await.unwrap();
    all.iter().map(|seen| (seen.id.0, seen.condition)).collect()
}

/// Waits until an instance has ended by itself, looking whenever the provider says it is worth it.
pub(crate) async fn exited(provider: &dyn Provider, instance: u64) -> Option<i32> {
    let mut wakes = provider.wakes().unwrap();
    let wait = async {
        loop {
            match conditions(provider).await.get(&instance) {
                Some(Condition::Exited(code)) => return *code,
                Some(Condition::Running) => wakes.changed().await.unwrap(),
                None => panic!("instance {instance} is not listed"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the runner should have ended")
}

/// A program of the machine's, by its whole path.
pub(crate) fn program(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|at| at.is_file());
    found.unwrap_or_else(|| panic!("{name} should be installed")).display().to_string()
}

/// A handle on a living process.
pub(crate) fn handle(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

/// True if the process has ended by now.
pub(crate) fn has_ended(handle: &OwnedFd) -> bool {
    ended_within(handle, Duration::ZERO)
}

pub(crate) fn ended_within(handle: &OwnedFd, time: Duration) -> bool {
    let tv_sec = i64::try_from(time.as_secs()).unwrap();
    let mut waits = [PollFd::new(handle, PollFlags::IN)];
    poll(&mut waits, Some(&Timespec { tv_sec, tv_nsec: 0 })).unwrap() > 0
}

/// Writes a gzipped archive of executable files and tells what an image declares for it.
pub(crate) fn archive(at: &Path, files: &[(&str, &str)]) -> Archive {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bytes).unwrap();
    let bytes = gz.finish().unwrap();
    std::fs::write(at, &bytes).unwrap();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let sha256 = sha256.as_ref().try_into().unwrap();
    Archive { source: at.display().to_string(), sha256 }
}
