//! Processes: who is who, who belongs to an instance, and how to signal nobody else.
//!
//! A pid alone names nobody for long. A process is its pid with its start time, within one boot; a
//! signal goes through a pidfd that was opened first and checked afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::home::Tag;

/// The variable that marks every process of an instance, whatever becomes of its parents.
pub(crate) const MARK: &str = "REMUDA_INSTANCE";

/// A process, within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Field 22 of its `stat`, in clock ticks since boot.
    pub(crate) start: u64,
}

/// What `stat` says of a process.
struct Stat {
    parent: i32,
    start: u64,
    ended: bool,
}

fn proc_file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// The identity of the running kernel, which bounds what a pid and a start time mean.
pub(crate) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(proc_file(pid, "stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// The second field, the program's name, may hold anything, `)` and spaces included.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        // A zombie whose other threads run on has not ended.
        ended: matches!(state, "Z" | "X" | "x") && threads <= 1,
    })
}

impl Process {
    /// This very process.
    pub(crate) fn own() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let stat = stat(pid).ok_or_else(|| io::Error::other("cannot read one's own stat"))?;
        Ok(Self { pid, start: stat.start })
    }

    /// True if it has not ended.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended)
    }

    /// A handle that stays with this process, or none if it is gone or the pid is another's.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: had the number passed on before, the start time would differ.
        (stat(self.pid)?.start == self.start).then_some(handle)
    }
}

/// Sends a signal to each process that is still the one meant; gives the handles of those.
pub(crate) fn signal(processes: &BTreeSet<Process>, signal: Signal) -> Vec<OwnedFd> {
    let mut handles: Vec<OwnedFd> = processes.iter().filter_map(|process| process.open()).collect();
    handles.retain(|handle| pidfd_send_signal(handle, signal).is_ok());
    handles
}

/// Waits until all have ended, or `time` is up; true if all have ended.
pub(crate) fn ended_within(mut handles: Vec<OwnedFd>, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !handles.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut waits: Vec<PollFd<'_>> =
            handles.iter().map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
        match poll(&mut waits, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
        let over: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
        let mut over = over.into_iter();
        handles.retain(|_| !over.next().unwrap_or(false));
    }
    true
}

fn all() -> io::Result<BTreeMap<i32, Stat>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            all.insert(pid, stat);
        }
    }
    Ok(all)
}

fn descends(all: &BTreeMap<i32, Stat>, pid: i32, from: i32) -> bool {
    let mut at = pid;
    // Bounded by the number of processes: a listing read while they change may hold a circle.
    for _ in 0..all.len() {
        match all.get(&at) {
            Some(stat) if stat.parent == from => return true,
            Some(stat) => at = stat.parent,
            None => return false,
        }
    }
    false
}

/// Every living process below `from`.
pub(crate) fn descendants(from: i32) -> io::Result<BTreeSet<Process>> {
    let all = all()?;
    let below = all.iter().filter(|(pid, stat)| !stat.ended && descends(&all, **pid, from));
    Ok(below.map(|(pid, stat)| Process { pid: *pid, start: stat.start }).collect())
}

/// Every living process of an instance but its shim: those below the shim, those in its cgroups,
/// and those that bear its mark. `shim` must be known to be alive.
pub(crate) fn members(tag: &Tag, shim: Option<Process>) -> io::Result<BTreeSet<Process>> {
    let all = all()?;
    let (mark, cgroup) = (format!("{MARK}={}", tag.mark()), tag.cgroup());
    let is_member = |pid: i32| {
        shim.is_some_and(|shim| descends(&all, pid, shim.pid))
            || fs::read(proc_file(pid, "environ")).is_ok_and(|environ| {
                environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
            })
            || fs::read_to_string(proc_file(pid, "cgroup"))
                .is_ok_and(|text| text.split(['/', '\n']).any(|part| part == cgroup))
    };
    let living = all.iter().filter(|(_, stat)| !stat.ended);
    let others = living.filter(|(pid, _)| shim.is_none_or(|shim| shim.pid != **pid));
    let members = others.filter(|(pid, _)| is_member(**pid));
    Ok(members.map(|(pid, stat)| Process { pid: *pid, start: stat.start }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_named_like_the_end_of_a_field() {
        let tail = "7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = parse_stat(&format!("12 (a) Z (b)) S 3 {tail}")).unwrap();
        assert_eq!((stat.parent, stat.start, stat.ended), (3, 4242, false));
        assert!(parse_stat("12 (x) S 3").is_none());
        assert!(parse_stat("").is_none());
    }

    #[test]
    fn a_process_with_another_start_time_is_another_process() {
        let own = Process::own().unwrap();
        assert!(own.is_alive() && own.open().is_some());
        let other = Process { start: own.start + 1, ..own };
        assert!(!other.is_alive() && other.open().is_none());
        assert!(signal(&BTreeSet::from([other]), Signal::KILL).is_empty());
    }

    #[test]
    fn a_child_descends_from_us_and_not_the_other_way() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = Process::own().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let below = descendants(own.pid).unwrap();
        assert!(below.iter().any(|process| process.pid == pid));
        assert!(!descendants(pid).unwrap().contains(&own));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
