//! One step's process: a group of its own, its output line by line, ended whole.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long a step that is told to stop may take before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long after a step's end its output is waited for, when a process it left behind still
/// holds the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// A longer line is cut into pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The processes of a job: what steps leave running lives until the job's end, as at GitHub.
#[derive(Default)]
pub(super) struct Processes {
    groups: Vec<Pid>,
    readers: JoinSet<()>,
}

/// A running step.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
    output_ended: tokio::sync::oneshot::Receiver<()>,
}

impl Processes {
    pub(super) fn spawn(
        &mut self,
        mut command: Command,
        log: mpsc::Sender<String>,
    ) -> io::Result<Running> {
        // One pipe for both, so that lines keep their order.
        let (reader, writer) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        // The command holds the pipe's writing ends; without them only the step's are left.
        drop(command);
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        self.groups.extend(group);
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        let (ended, output_ended) = tokio::sync::oneshot::channel();
        self.readers.spawn(async move {
            forward(reader, log).await;
            // The step may have stopped waiting for this.
            let _ = ended.send(());
        });
        Ok(Running { child, group, output_ended })
    }

    /// Kills everything that steps left running.
    pub(super) async fn end(mut self) {
        for group in &self.groups {
            kill(*group, Signal::KILL);
        }
        self.readers.shutdown().await;
    }
}

impl Running {
    /// Waits for the step's own process and then, briefly, for the rest of its output. May be
    /// dropped and called again.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        let _ = tokio::time::timeout(OUTPUT_GRACE, &mut self.output_ended).await;
        Ok(status)
    }

    /// Tells the whole group to stop, and kills it if it does not.
    pub(super) async fn stop(&mut self) {
        let Some(group) = self.group else { return };
        kill(group, Signal::TERM);
        if tokio::time::timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            tracing::debug!("a step did not stop in time; its processes are killed");
        }
        kill(group, Signal::KILL);
        let _ = self.wait().await;
    }

    /// Kills the whole group at once.
    pub(super) async fn kill(&mut self) {
        if let Some(group) = self.group {
            kill(group, Signal::KILL);
        }
        let _ = self.wait().await;
    }
}

fn kill(group: Pid, signal: Signal) {
    // No such group any more is as good as killed.
    let _ = kill_process_group(group, signal);
}

async fn forward(mut reader: pipe::Receiver, log: mpsc::Sender<String>) {
    let mut line = Vec::new();
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        for byte in &buffer[..count] {
            if *byte == b'\n' || line.len() == LINE_BYTES_MAX {
                send(&mut line, &log).await;
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }
    if !line.is_empty() {
        send(&mut line, &log).await;
    }
}

async fn send(line: &mut Vec<u8>, log: &mpsc::Sender<String>) {
    let text = String::from_utf8_lossy(line).into_owned();
    line.clear();
    // Without a receiver the job is lost, and its output with it.
    let _ = log.send(text).await;
}
