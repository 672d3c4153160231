//! A sandbox GitHub and a server beside it, in one temporary directory.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test uses its own part of what is shared, so no expectation holds for all; a helper of tests that cannot go on stops the test"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use remuda_sandbox::{AppConfig, AppId, Config, OwnerConfig, OwnerKind, Sandbox, Statistics};
use tempfile::TempDir;

pub mod shared;

pub const SECRET: &str = "It's a Secret to Everybody";

/// The binary under test.
pub const REMUDA: &str = env!("CARGO_BIN_EXE_remuda");

/// Sandbox, fleet file and state directory.
pub struct Estate {
    pub sandbox: Sandbox,
    pub directory: TempDir,
    pub listen: SocketAddr,
}

/// A port that was free a moment ago.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

impl Estate {
    /// An organization `acme` and a person `solo`, each with a repository `app`, and a fleet of two
    /// pools: `small` (self-hosted, linux) and `rvv` (self-hosted, linux, rvv).
    pub async fn new(config: Config) -> Self {
        let listen = free_address();
        let mut app = AppConfig::new(1);
        app.webhook_url = Some(format!("http://{listen}/webhooks/github"));
        app.webhook_secret = SECRET.into();
        let owner = |login: &str, kind| OwnerConfig {
            login: login.into(),
            kind,
            repositories: vec!["app".into()],
        };
        let owners = vec![owner("acme", OwnerKind::Organization), owner("solo", OwnerKind::User)];
        let sandbox = Sandbox::start(Config { owners, apps: vec![app], ..config }).await.unwrap();
        let estate = Self { sandbox, directory: tempfile::tempdir().unwrap(), listen };
        estate.write_fleet();
        estate
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn fleet(&self) -> PathBuf {
        self.path("fleet.toml")
    }

    fn write_fleet(&self) {
        use secrecy::ExposeSecret;
        let key = self.sandbox.app_private_key_pem(AppId(1)).unwrap();
        std::fs::write(self.path("app.pem"), key.expose_secret()).unwrap();
        std::fs::write(self.path("hook"), SECRET).unwrap();
        let text = format!(
            r#"
[server]
listen = "{listen}"

[forge.github]
api = "{api}/api/v3"
scopes = ["org:acme", "repo:solo/app"]
polls = {{ starting = "1s", runners = "2s", job = "10s" }}
demand = {{ sweep = "2s", budget = 1000000 }}

[[forge.github.app]]
id = 1
private_key = "file:{key}"
webhook_secret = "file:{hook}"

[provider.local]
kind = "process"
poll = "1s"
absent = "5s"
launch_deadline = "20s"

[image.sandbox]
command = ["{REMUDA}", "sandbox", "runner"]

[pool.small]
labels = ["self-hosted", "linux"]
provider = "local"
image = "sandbox"
max = 6
limits = {{ idle = "3s", finish = "5s", boot = "60s" }}

[pool.rvv]
labels = ["self-hosted", "linux", "rvv"]
provider = "local"
image = "sandbox"
max = 2
limits = {{ idle = "3s", finish = "5s", boot = "60s" }}

[tenant.default]
cap = 20
"#,
            listen = self.listen,
            api = self.sandbox.url(),
            key = self.path("app.pem").display(),
            hook = self.path("hook").display(),
        );
        std::fs::write(self.fleet(), text).unwrap();
    }

    /// Replaces a text of the fleet file.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.fleet()).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.fleet(), text.replace(from, to)).unwrap();
    }

    /// Lets instances live beside the state directories and not in one.
    pub fn places_instances(&self) {
        let text = std::fs::read_to_string(self.fleet()).unwrap();
        let placed =
            format!("kind = \"process\"\ndirectory = \"{}\"", self.path("instances").display());
        std::fs::write(self.fleet(), text.replace("kind = \"process\"", &placed)).unwrap();
    }

    /// Lets all servers share the database at `url`, and the instances of this machine.
    pub fn shares(&self, url: &str) {
        self.write_fleet();
        self.places_instances();
        std::fs::write(self.path("database"), url).unwrap();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let database = format!("[server]\ndatabase = \"file:{}\"", self.path("database").display());
        let placed = format!("kind = \"process\"\nnode = \"{host}\"");
        let text = std::fs::read_to_string(self.fleet()).unwrap();
        let text = text.replace("[server]", &database).replace("kind = \"process\"", &placed);
        std::fs::write(self.fleet(), text).unwrap();
    }

    /// Starts the server as a process of its own; it logs to `server.log`.
    pub fn serve(&self) -> Served {
        self.serve_at(&self.state(), self.listen)
    }

    /// Starts a server with this state directory at this address; all log to `server.log`.
    pub fn serve_at(&self, state: &Path, listen: SocketAddr) -> Served {
        self.serve_by(&self.fleet(), state, listen)
    }

    /// The same by a fleet file of its own.
    pub fn serve_by(&self, fleet: &Path, state: &Path, listen: SocketAddr) -> Served {
        self.serve_as(Path::new(REMUDA), fleet, state, listen)
    }

    /// The same by a program that may be of another version.
    pub fn serve_as(
        &self,
        program: &Path,
        fleet: &Path,
        state: &Path,
        listen: SocketAddr,
    ) -> Served {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("server.log"))
            .unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg("--fleet")
            .arg(fleet)
            .arg("--state")
            .arg(state)
            .arg("--listen")
            .arg(listen.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Served(child)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Waits until a server has logged it.
    pub async fn logged(&self, text: &str) {
        self.until_log(|log| log.contains(text)).await;
    }

    /// Waits until the log is as wanted.
    pub async fn until_log(&self, reached: impl Fn(&str) -> bool) {
        let waiting = async {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
            while !reached(&self.log()) {
                tick.tick().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_mins(1), waiting).await;
        assert!(waited.is_ok(), "what was awaited is not in the log:\n{}", self.log());
    }

    /// Waits until the sandbox's records say so.
    pub async fn until(&self, what: &str, reached: impl Fn(&Statistics) -> bool) -> Statistics {
        let waiting = self.sandbox.wait_until(reached);
        let waited = tokio::time::timeout(std::time::Duration::from_mins(2), waiting).await;
        waited.unwrap_or_else(|_| {
            panic!("{what} was not reached: {:?}\n{}", self.sandbox.statistics(), self.log())
        })
    }

    /// Waits until a provider's directory is empty and no process works there.
    pub async fn nothing_left_in(&self, instances: &Path) {
        let empty = async {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
            while !left_in(instances).is_empty() {
                tick.tick().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_mins(1), empty).await;
        assert!(waited.is_ok(), "{:?} are left\n{}", left_in(instances), self.log());
    }

    /// Processes that work below the state directory: instances and their shims.
    pub fn processes(&self) -> Vec<u32> {
        processes_below(&self.state())
    }
}

/// A workflow of so many jobs, each with these steps; `${{ matrix.n }}` is a job's number.
pub fn burst(jobs: usize, steps: &[String]) -> String {
    let numbers: Vec<_> = (0..jobs).map(|n| n.to_string()).collect();
    let steps: Vec<_> = steps.iter().map(|step| format!("      - run: {step}\n")).collect();
    format!(
        r"
name: burst
on: push
jobs:
  work:
    runs-on: [self-hosted, linux]
    strategy:
      fail-fast: false
      matrix: {{ n: [{numbers}] }}
    steps:
{steps}",
        numbers = numbers.join(", "),
        steps = steps.concat(),
    )
}

/// A step that takes between a tenth of a second and one.
pub fn a_while() -> String {
    "sleep 0.$((RANDOM % 9 + 1))".into()
}

pub fn left_in(instances: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(instances).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut left: Vec<_> = names.filter(|name| name != ".cache").collect();
    left.extend(processes_below(instances).iter().map(|pid| format!("process {pid}")));
    left
}

pub fn processes_below(directory: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        {
            found.push(pid);
        }
    }
    found
}

/// Ends whatever works below a directory: runners outlive their server, and a test must not.
pub fn end_processes_below(directory: &Path) {
    // What is killed may have begun another in the meantime, but not for ever.
    for _ in 0..100 {
        let left = processes_below(directory);
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A server process; killed when dropped.
pub struct Served(Child);

impl Served {
    /// SIGKILL: no chance to say goodbye.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// True once it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
