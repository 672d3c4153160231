//! A `PostgreSQL` of the stage's own, which is killed and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::common::{free_address, shared};

/// Recovery after a crash included.
const STARTS_MAX: Duration = Duration::from_secs(30);
/// Between two looks where nothing tells.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Cluster {
    programs: PathBuf,
    place: TempDir,
    pub(crate) address: SocketAddr,
    postmaster: Child,
}

impl Cluster {
    /// `None`, with one line that says so, where no `PostgreSQL` is named; a panic if it is named and not there.
    pub(crate) async fn start() -> Option<Self> {
        if !shared::is_named() {
            return None;
        }
        let programs = std::env::var_os("REMUDA_POSTGRES_PROGRAMS");
        let programs =
            programs.expect("REMUDA_REAL names postgres: eval \"$(scripts/real-parts postgres)\"");
        let (programs, place) = (PathBuf::from(programs), tempfile::tempdir().unwrap());
        if rustix::process::geteuid().is_root() {
            chown(place.path(), Some(id("-u")), Some(id("-g"))).unwrap();
        }
        let mut initdb = as_owner(&programs.join("initdb"));
        initdb.arg("-D").arg(place.path().join("data")).current_dir(place.path());
        initdb.args(["-U", "remuda", "--auth=trust", "--no-sync", "--encoding=UTF8"]);
        let made = initdb.arg("--locale=C.UTF-8").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = free_address();
        let postmaster = postmaster(&programs, place.path(), address);
        let mut cluster = Self { programs, place, address, postmaster };
        cluster.is_up().await;
        Some(cluster)
    }

    /// A URL of the database behind `address`.
    pub(crate) fn url(address: SocketAddr) -> String {
        format!("postgresql://remuda@{address}/postgres")
    }

    /// Ends the postmaster by a signal and starts it anew, until it takes connections again.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.postmaster), signal).unwrap();
        self.postmaster.wait().unwrap();
        self.postmaster = postmaster(&self.programs, self.place.path(), self.address);
        self.is_up().await;
    }

    async fn is_up(&mut self) {
        let (begun, mut tick) = (Instant::now(), tokio::time::interval(LOOK));
        while tokio_postgres::connect(&Self::url(self.address), NoTls).await.is_err() {
            let log = || std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < STARTS_MAX, "PostgreSQL does not start\n{}", log());
            // It refuses to as long as a child of the one before lives.
            if self.postmaster.try_wait().unwrap().is_some() {
                self.postmaster = postmaster(&self.programs, self.place.path(), self.address);
            }
            tick.tick().await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.postmaster), Signal::QUIT);
        let _ = self.postmaster.wait();
    }
}

fn postmaster(programs: &Path, place: &Path, address: SocketAddr) -> Child {
    let mut command = as_owner(&programs.join("postgres"));
    command.arg("-D").arg(place.join("data")).current_dir(place).stdin(Stdio::null());
    let log = File::options().create(true).append(true).open(place.join("log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    // Processes are killed and not the machine, so what the system has taken is safe.
    for setting in [
        format!("listen_addresses={}", address.ip()),
        format!("port={}", address.port()),
        "unix_socket_directories=".to_owned(),
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
    ] {
        command.arg("-c").arg(setting);
    }
    command.spawn().unwrap()
}

/// `PostgreSQL` refuses to run as root; the package's user does it then.
fn as_owner(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    command
}

fn id(which: &str) -> u32 {
    let told = Command::new("id").args([which, "postgres"]).output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().parse().unwrap()
}
