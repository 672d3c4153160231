//! The end of an instance: asked to stop, then killed whole, then nothing of it left.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::family::{self, Process};
use super::home::{Found, Home, Record};
use super::limits;

/// How long a runner may take after it was asked to stop.
const GRACE: Duration = Duration::from_secs(1);
/// How long the shim may take to note the end when all others are gone.
const SHIM_LINGERS_MAX: Duration = Duration::from_secs(1);
/// How long killing may take; processes in an uninterruptible sleep take theirs.
const KILL_MAX: Duration = Duration::from_secs(10);
/// How long to wait for one round of killed processes before looking again.
const ROUND: Duration = Duration::from_millis(200);

/// Ends the instance at `home` if it belongs to `installation`, and removes all that is left of it.
/// Another installation's is not touched. Safe to repeat, also after it failed half-way.
pub(super) fn end(home: &Home, installation: &str) -> io::Result<()> {
    match home.find()? {
        Found::Nothing => return Ok(()),
        Found::Instance(record) if record.tag.installation != installation => return Ok(()),
        Found::Instance(_) | Found::Bare => {}
    }
    home.mark_ending()?;
    // Read again after the mark: see the shim's side of it.
    if let Found::Instance(record) = home.find()? {
        ask_to_stop(&record)?;
        kill(&record)?;
        limits::remove(&record.cgroups, &record.tag.cgroup())?;
    }
    // Without a record nothing was started, and no process could be proven to be ours.
    home.remove()
}

fn ask_to_stop(record: &Record) -> io::Result<()> {
    let shim = record.living_shim();
    let members = family::members(&record.tag, shim)?;
    let mut asked = family::signal(&members, Signal::TERM);
    if !asked.is_empty() {
        // With the shim still there, its end says that all others are gone.
        if let Some(handle) = shim.and_then(Process::open) {
            asked = vec![handle];
        }
        family::ended_within(asked, GRACE);
    }
    Ok(())
}

fn kill(record: &Record) -> io::Result<()> {
    let until = Instant::now() + KILL_MAX;
    loop {
        let shim = record.living_shim();
        let members = family::members(&record.tag, shim)?;
        if members.is_empty() {
            let Some(handle) = shim.and_then(Process::open) else { return Ok(()) };
            // It goes by itself now, last of all: whoever was orphaned meanwhile came to it. One
            // that has yet to start the runner does not go; its own end is then the runner's.
            if !family::ended_within(vec![handle], SHIM_LINGERS_MAX) {
                let killed = family::signal(&shim.into_iter().collect(), Signal::KILL);
                family::ended_within(killed, ROUND);
            }
        } else {
            limits::kill(&record.cgroups, &record.tag.cgroup());
            let killed = family::signal(&members, Signal::KILL);
            family::ended_within(killed, ROUND);
        }
        if Instant::now() >= until {
            let left: Vec<i32> = members.iter().map(|process| process.pid).collect();
            return Err(io::Error::other(format!(
                "processes {left:?} are still there after SIGKILL"
            )));
        }
    }
}
