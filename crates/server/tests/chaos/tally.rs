//! What is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use remuda_sandbox::JobReport;

/// What was done, and what came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) servers_killed: usize,
    pub(crate) killed_in_runners: usize,
    pub(crate) databases_killed: usize,
    /// Times the leader was stopped past its lease.
    pub(crate) stops: usize,
    /// Times the network was taken from the leader past its lease, or from all for a moment.
    pub(crate) cuts: usize,
    /// Servers that ended by themselves.
    pub(crate) gave_up: usize,
    /// Runners in which something was killed: what becomes of their jobs is our doing.
    pub(crate) struck: BTreeSet<String>,
    /// The longest that passed from a kill or a restart of the database to a decision of whoever leads then.
    pub(crate) decided: Duration,
    /// How long it may take.
    pub(crate) decided_max: Duration,
    /// The longest from the moment at which the leader was stopped or cut off to the next term.
    pub(crate) taken: Duration,
    /// How long that may take.
    pub(crate) taken_max: Duration,
    pub(crate) jobs: usize,
    pub(crate) excused: usize,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) interrupted: Vec<String>,
    pub(crate) leaked: Vec<String>,
}

impl Tally {
    pub(crate) fn kills(&self) -> usize {
        self.servers_killed + self.killed_in_runners + self.databases_killed
    }

    pub(crate) fn is_clean(&self) -> bool {
        let counted = [&self.lost, &self.doubled, &self.interrupted, &self.leaked];
        counted.iter().all(|list| list.is_empty())
            && self.decided < self.decided_max
            && self.taken < self.taken_max
            && self.gave_up == 0
    }

    /// Looks at what became of every job. The diary has a line for every beginning and every end of one.
    pub(crate) fn count(&mut self, jobs: &[JobReport], diary: &Path) {
        let mut lines: BTreeMap<String, u32> = BTreeMap::new();
        for line in std::fs::read_to_string(diary).unwrap_or_default().lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        let doubled = lines.iter().filter(|(_, count)| **count > 1);
        self.doubled.extend(doubled.map(|(line, count)| format!("{line} ({count} times)")));
        self.jobs = jobs.len();
        for job in jobs {
            let told = format!("{} {:?} on {:?}", job.name, job.conclusion, job.runner);
            let excused = job.runner.as_ref().is_some_and(|name| self.struck.contains(name));
            match (job.status.as_str(), job.conclusion.as_deref()) {
                ("completed", Some("success")) => {}
                ("completed", Some(_)) if excused => self.excused += 1,
                ("completed", Some(_)) if job.runner.is_some() => self.interrupted.push(told),
                _ => self.lost.push(told),
            }
        }
        let ends = lines.keys().filter(|line| line.starts_with("end")).count();
        let successes =
            jobs.iter().filter(|job| job.conclusion.as_deref() == Some("success")).count();
        // A job that was cut off by us may have written its end before.
        if ends < successes {
            self.lost.push(format!("{successes} jobs succeeded and {ends} wrote their end"));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} servers, {} processes of runners and {} databases killed, the leader stopped {} times, \
             the network cut {} times, {} servers gave up; {} jobs, of which {} ended with a runner that \
             we struck; first decision after at most {:.2} s, another leader after at most {:.2} s; lost {}, \
             doubled {}, leaked {}, interrupted {}",
            self.servers_killed,
            self.killed_in_runners,
            self.databases_killed,
            self.stops,
            self.cuts,
            self.gave_up,
            self.jobs,
            self.excused,
            self.decided.as_secs_f64(),
            self.taken.as_secs_f64(),
            self.lost.len(),
            self.doubled.len(),
            self.leaked.len(),
            self.interrupted.len(),
        )?;
        for (what, list) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("leaked", &self.leaked),
            ("interrupted", &self.interrupted),
        ] {
            for one in list.iter().take(20) {
                write!(f, "\n  {what}: {one}")?;
            }
        }
        Ok(())
    }
}
