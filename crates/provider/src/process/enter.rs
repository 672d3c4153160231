//! The shim's second stage: sets itself up and becomes the runner.
//!
//! Between its start and its end as this program it has the JIT configuration in memory; it hands it
//! on by environment or descriptor, never by an argument.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, Signal};

use super::limits;
use super::shim::conversation;
use super::wire::{Enter, Hand, Line, Reply};

/// What the shell says when it cannot execute a program.
const CANNOT_EXECUTE: u8 = 126;

pub(super) fn main() -> ExitCode {
    let Ok(mut shim) = conversation() else { return ExitCode::from(CANNOT_EXECUTE) };
    let complaint = match become_runner(&mut shim) {
        Ok(never) => Reply::Refused(never.to_string()),
        Err(error) => Reply::Failed(error.to_string()),
    };
    // If the shim is gone there is nobody to tell.
    let _ = shim.tell(&complaint);
    ExitCode::from(CANNOT_EXECUTE)
}

/// Returns only where it failed: with what `exec` said, or with what came before.
fn become_runner(shim: &mut Line) -> io::Result<io::Error> {
    let enter: Enter = shim.hear()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let secret = shim.hear_secret(enter.jit_bytes)?;
    // Its own session and group: a job that signals its group reaches neither shim nor server.
    rustix::process::setsid()?;
    // Without its shim a runner has nobody to reap, limit or report it, so it must not go on.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != Some(enter.parent) {
        return Err(io::Error::other("the shim is gone"));
    }
    for cgroup in &enter.cgroups {
        limits::join(cgroup)?;
    }
    if let Some(bytes) = enter.data_bytes {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        rustix::process::setrlimit(Resource::Data, limit)?;
    }
    let start = enter.start;
    let mut runner = Command::new(&start.program);
    runner.args(&start.args).current_dir(&start.work).env_clear().envs(&start.env);
    runner.stdin(Stdio::null());
    // Held until `exec`, which it must survive.
    let _descriptor = match start.jit {
        Hand::Env(name) => {
            let text = std::str::from_utf8(&secret).map_err(io::Error::other)?;
            runner.env(name, text);
            None
        }
        Hand::Descriptor(0) => {
            runner.stdin(Stdio::from(filled_pipe(&secret)?));
            None
        }
        Hand::Descriptor(number) => Some(place(filled_pipe(&secret)?, number)?),
    };
    Ok(runner.exec())
}

/// The reading end of a pipe that holds `bytes`, then ends. Held by the pipe alone, so there must be
/// room for all of them.
fn filled_pipe(bytes: &[u8]) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // A user with many pipes gets small ones; asking for more may be refused, which the write tells.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, bytes.len());
    rustix::io::ioctl_fionbio(&write, true)?;
    File::from(write).write_all(bytes)?;
    Ok(read)
}

/// Puts a descriptor at exactly `number`, where it survives `exec`.
fn place(from: OwnedFd, number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    if from.as_raw_fd() == number {
        fcntl_setfd(&from, FdFlags::empty())?;
        return Ok(from);
    }
    let placed = fcntl_dupfd_cloexec(&from, number)?;
    if placed.as_raw_fd() != number {
        return Err(io::Error::other(format!("descriptor {number} is taken")));
    }
    fcntl_setfd(&placed, FdFlags::empty())?;
    Ok(placed)
}
