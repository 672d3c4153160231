//! Runners (registrations for one job each) and instances (what a provider made to carry one).

use std::fmt;
use std::sync::Arc;

use crate::job::JobKey;
use crate::label::LabelSet;
use crate::name::{
    ForgeName, GroupName, InstallationId, NodeName, PoolName, ProviderName, RunnerName,
};
use crate::pool::Needs;
use crate::tenant::Scope;
use crate::time::Timestamp;

/// A runner's number, given by us, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerId(pub u64);

/// An instance's number, given by us, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a runner stands. A chain: a runner never moves left; one that must "go back" is a new runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunnerState {
    /// Decided; asks for a launch.
    Pending,
    /// An instance exists or may exist; not online yet.
    Starting,
    /// Registered and online, without a job.
    Idle,
    /// To be removed unless it got a job first; asks for its deregistration.
    Draining,
    /// Has its one job.
    Busy,
    /// Must not exist; asks for its instance's end.
    Stopping,
    /// Does not exist.
    Gone,
}

impl RunnerState {
    /// Every state, left to right.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Starting,
        Self::Idle,
        Self::Draining,
        Self::Busy,
        Self::Stopping,
        Self::Gone,
    ];

    /// The word for it, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        }
    }

    /// True if such a runner could still take a job it was made for.
    pub const fn is_supply(self) -> bool {
        matches!(self, Self::Pending | Self::Starting | Self::Idle)
    }
}

/// Why a runner ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Its job is over.
    Finished,
    /// No job needed it, or its pool or scope is no longer declared.
    Surplus,
    /// It lived its longest life without a job.
    Lifetime,
    /// Its job ran past the declared limit.
    TimedOut,
    /// It was not online within the boot limit.
    NeverOnline,
    /// Its registration or launch failed.
    LaunchFailed,
    /// Its launch was never answered and a later listing did not show it.
    LaunchLost,
    /// Its instance ended before it had a job.
    Died,
    /// Its instance ended or vanished while it had a job.
    Lost,
    /// A person ordered it.
    Ordered,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Finished,
        Self::Surplus,
        Self::Lifetime,
        Self::TimedOut,
        Self::NeverOnline,
        Self::LaunchFailed,
        Self::LaunchLost,
        Self::Died,
        Self::Lost,
        Self::Ordered,
    ];

    /// The word for it, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Surplus => "surplus",
            Self::Lifetime => "lifetime",
            Self::TimedOut => "timed_out",
            Self::NeverOnline => "never_online",
            Self::LaunchFailed => "launch_failed",
            Self::LaunchLost => "launch_lost",
            Self::Died => "died",
            Self::Lost => "lost",
            Self::Ordered => "ordered",
        }
    }
}

/// When each state was entered, on our clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since([Option<Timestamp>; 7]);

impl Since {
    /// When `state` was entered, if it was.
    pub fn at(&self, state: RunnerState) -> Option<Timestamp> {
        self.0[state as usize]
    }

    /// Notes that `state` was entered at `at`.
    pub fn enter(&mut self, state: RunnerState, at: Timestamp) {
        self.0[state as usize] = Some(at);
    }
}

/// What we know of a runner's registration at the forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Not made, or its answer never reached us.
    Unknown,
    /// Made, under this id of the forge's.
    Made(u64),
    /// The forge confirmed that it is gone.
    Removed,
}

/// A person's order to leave a runner alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who ordered it.
    pub who: Arc<str>,
    /// Why.
    pub why: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

/// One ephemeral registration, for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// Its number.
    pub id: RunnerId,
    /// The name it registers under.
    pub name: RunnerName,
    /// The pool it was made for.
    pub pool: PoolName,
    /// The forge it registers at.
    pub forge: ForgeName,
    /// Where at the forge.
    pub scope: Scope,
    /// In which runner group; the scope's default if none.
    pub group: Option<GroupName>,
    /// What it offers.
    pub labels: LabelSet,
    /// What carries it.
    pub instance: InstanceId,
    /// Where it stands.
    pub state: RunnerState,
    /// When it entered each state.
    pub since: Since,
    /// What we know of its registration.
    pub registration: Registration,
    /// The job it has or had, once the forge has said so.
    pub job: Option<JobKey>,
    /// When that job ended, on our clock.
    pub job_ended_at: Option<Timestamp>,
    /// Why it ended or is about to.
    pub outcome: Option<Outcome>,
    /// Suppresses its destruction.
    pub hold: Option<Hold>,
}

impl Runner {
    /// Moves right to `state`; a move left or in place does nothing. The first outcome stays.
    pub fn enter(&mut self, state: RunnerState, outcome: Option<Outcome>, at: Timestamp) {
        if state > self.state {
            self.state = state;
            self.since.enter(state, at);
            // A runner that was to be removed and got a job has not ended for that reason.
            if state == RunnerState::Busy {
                self.outcome = None;
            }
            self.outcome = self.outcome.or(outcome);
        }
    }

    /// True if it is said to be at work and we know of no job that it should be at: one nobody told us
    /// of, or one that the forge seems to have put back. Only the forge can tell.
    pub fn is_unexplained(&self) -> bool {
        self.state == RunnerState::Busy
            && (self.job.is_none() || self.outcome == Some(Outcome::Lost))
    }

    /// The name runner `id` of `pool` registers under. Ours are told from others' by the
    /// installation. GitHub takes at most 64 characters, so a long pool name is cut.
    pub fn name_for(installation: &InstallationId, pool: &PoolName, id: RunnerId) -> RunnerName {
        let prefix = Self::name_prefix(installation);
        let room = 64_usize.saturating_sub(prefix.len() + 21);
        let pool: String = pool.as_str().chars().take(room).collect();
        RunnerName::new(&format!("{prefix}{pool}-{id}"))
            .expect("declared names are plain and short")
    }

    /// How the names of this installation's runners begin.
    pub fn name_prefix(installation: &InstallationId) -> String {
        format!("remuda-{installation}-")
    }
}

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Carries a runner.
    Runner(RunnerId),
    /// Booted and waiting to carry one.
    Standby,
    /// Makes an image.
    Builder,
}

/// Where an instance stands. A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// Decided; no call was made.
    Planned,
    /// The launch call was begun; it may exist.
    Launching,
    /// The provider confirmed it.
    Live,
    /// The provider says that it ended by itself; its remains must be destroyed.
    Exited,
    /// The provider no longer has it.
    Gone,
}

impl InstanceState {
    /// Every state, left to right.
    pub const ALL: [Self; 5] =
        [Self::Planned, Self::Launching, Self::Live, Self::Exited, Self::Gone];

    /// The word for it, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Launching => "launching",
            Self::Live => "live",
            Self::Exited => "exited",
            Self::Gone => "gone",
        }
    }
}

/// What a provider made, or is to make. Counts against capacity from its plan to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its number.
    pub id: InstanceId,
    /// Who makes it.
    pub provider: ProviderName,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// What it is for.
    pub purpose: Purpose,
    /// What it takes of its node.
    pub needs: Needs,
    /// Where it runs, once known.
    pub node: Option<NodeName>,
    /// The epoch of the controller that decided it.
    pub epoch: u64,
    /// Where it stands.
    pub state: InstanceState,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When the launch call was begun, and by when it must have landed or failed.
    pub launch: Option<LaunchCall>,
    /// When it ended by itself, and how; nothing once a later look found it running after all.
    pub exit: Option<Exit>,
    /// Since when listings have lacked it.
    pub missing_since: Option<Timestamp>,
    /// When a destroy call was last answered with success.
    pub destroyed_at: Option<Timestamp>,
    /// When it was found gone.
    pub gone_at: Option<Timestamp>,
}

impl Instance {
    /// The runner it carries, if it carries one.
    pub fn runner(&self) -> Option<RunnerId> {
        match self.purpose {
            Purpose::Runner(id) => Some(id),
            Purpose::Standby | Purpose::Builder => None,
        }
    }

    /// True if a launch call may still make it appear: begun, not answered, not past its deadline.
    pub fn may_still_land(&self, now: Timestamp) -> bool {
        self.state == InstanceState::Launching
            && self.launch.is_some_and(|launch| now <= launch.deadline)
    }

    /// Moves right to `state`; a move left or in place does nothing.
    pub fn enter(&mut self, state: InstanceState, now: Timestamp) {
        if state > self.state {
            self.state = state;
            if state == InstanceState::Gone {
                self.gone_at = Some(now);
            }
        }
    }
}

/// A launch call, noted before it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchCall {
    /// When it was begun.
    pub at: Timestamp,
    /// After this instant it can no longer land.
    pub deadline: Timestamp,
    /// When we learned that it succeeded, by its answer or by a listing.
    pub answered_at: Option<Timestamp>,
}

/// How an instance ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// When we learned of it.
    pub at: Timestamp,
    /// Its exit code, where the provider knows it.
    pub code: Option<i32>,
}
