//! The state of the sandbox: accounts, runners, runs, jobs, and the rules that move them.
//!
//! Pure: time is handed in, chance comes from seeded dice, and what the outside must be told is
//! collected as [`Effect`]s. HTTP, webhooks and waiting belong to others.

mod account;
mod job;
mod market;
mod puppet;
mod run;
mod runner;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use remuda_core::Timestamp;

pub(crate) use account::{
    AccountError, App, Group, GroupVisibility, Hook, HookAt, Installation, Owner, Repository,
};
pub(crate) use job::{
    Conclusion, Job, JobAction, JobState, Marks, RunnerRef, StepState, StepStatus,
};
pub(crate) use run::{Rerun, Run, RunError, RunStatus};
pub(crate) use runner::{
    Duty, Message, Presence, RegisterError, RemoveError, Runner, Scope, SessionError,
};
pub(crate) use time::Timer;

use crate::config::Times;
use crate::faults::{Dice, Faults};
use crate::id::{
    AppId, GroupId, HookId, InstallationId, JobId, OwnerId, RepositoryId, RunId, RunnerId,
};
use market::Market;

/// Something the outside must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A job changed in a way that GitHub sends a webhook for.
    JobEvent { job: JobId, action: JobAction },
    /// A webhook was made; GitHub pings it.
    HookMade(HookId),
    /// A runner's session has a message, or has ended.
    Wake(RunnerId),
}

/// What happened so far, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) registered: u64,
    pub(crate) deregistered: u64,
    pub(crate) finished: u64,
    pub(crate) lost: u64,
    pub(crate) expired: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) withdrawn: u64,
    pub(crate) requeued: u64,
    pub(crate) jobs_expired: u64,
    pub(crate) requests_struck: u64,
}

/// Everything the sandbox knows. Not `Debug`: it holds credentials.
pub(crate) struct World {
    pub(crate) apps: BTreeMap<AppId, App>,
    pub(crate) owners: BTreeMap<OwnerId, Owner>,
    pub(crate) repositories: BTreeMap<RepositoryId, Repository>,
    pub(crate) installations: BTreeMap<InstallationId, Installation>,
    pub(crate) groups: BTreeMap<(OwnerId, GroupId), Group>,
    pub(crate) hooks: BTreeMap<HookId, Hook>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) runners: BTreeMap<RunnerId, Runner>,
    pub(crate) faults: Faults,
    pub(crate) dice: Dice,
    pub(crate) counts: Counts,
    owner_by_login: BTreeMap<String, OwnerId>,
    repository_by_name: BTreeMap<(OwnerId, String), RepositoryId>,
    runner_by_name: BTreeMap<(Scope, String), RunnerId>,
    runner_by_credential: BTreeMap<String, RunnerId>,
    runner_by_session: BTreeMap<String, RunnerId>,
    runs_of: BTreeMap<RepositoryId, BTreeSet<RunId>>,
    market: Market,
    timers: BTreeSet<(Timestamp, Timer)>,
    effects: Vec<Effect>,
    times: Times,
    chance: StdRng,
    numbers: Numbers,
}

impl World {
    pub(crate) fn new(seed: u64, times: Times, faults: Faults) -> Self {
        Self {
            apps: BTreeMap::new(),
            owners: BTreeMap::new(),
            repositories: BTreeMap::new(),
            installations: BTreeMap::new(),
            groups: BTreeMap::new(),
            hooks: BTreeMap::new(),
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            faults,
            dice: Dice::new(seed),
            counts: Counts::default(),
            owner_by_login: BTreeMap::new(),
            repository_by_name: BTreeMap::new(),
            runner_by_name: BTreeMap::new(),
            runner_by_credential: BTreeMap::new(),
            runner_by_session: BTreeMap::new(),
            runs_of: BTreeMap::new(),
            market: Market::default(),
            timers: BTreeSet::new(),
            effects: Vec::new(),
            times,
            chance: StdRng::seed_from_u64(seed),
            numbers: Numbers::default(),
        }
    }

    /// Hands over what the outside must be told, in the order it came about.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn emit(&mut self, job: JobId, action: JobAction) {
        self.effects.push(Effect::JobEvent { job, action });
    }
}

/// The next number of each kind. Runs and jobs start beyond 32 bits, as GitHub's do, so that a
/// client that cuts them is found out.
#[derive(Debug)]
struct Numbers {
    owner: u64,
    repository: u64,
    installation: u64,
    group: u64,
    runner: u64,
    run: u64,
    job: u64,
    hook: u64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            owner: 9_000_001,
            repository: 700_000_001,
            installation: 50_001,
            // 1 is the default group and 2 GitHub's own hosted runners.
            group: 3,
            runner: 1,
            run: 17_000_000_001,
            job: 48_000_000_001,
            hook: 400_000_001,
        }
    }
}

fn next(number: &mut u64) -> u64 {
    let this = *number;
    *number += 1;
    this
}

#[cfg(test)]
mod tests;
