//! Facts about the outside. Deliveries, listings and answers to calls all arrive as these.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::budget::{Budget, Credential};
use crate::hook::{FailedDelivery, HookKey};
use crate::job::{Conclusion, JobKey, JobState, RunnerRef, Title};
use crate::label::Wanted;
use crate::name::{ForgeName, NodeName, ProviderName, RunnerName};
use crate::pool::Capacity;
use crate::reason::{BackoffKey, DrainKey};
use crate::runner::{InstanceId, RunnerId};
use crate::tenant::{Repository, Scope, Tenant};
use crate::time::Timestamp;

/// A fact, with the time it was asked where that differs from the time it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The forge told of one job.
    Job(Box<JobSeen>),
    /// The forge was asked for one job and knows none of that id.
    JobMissing {
        /// Which.
        key: JobKey,
        /// When it was asked.
        asked_at: Timestamp,
    },
    /// The open jobs of a scope.
    Jobs {
        /// At this forge.
        forge: ForgeName,
        /// In this scope.
        scope: Scope,
        /// When the listing was begun.
        asked_at: Timestamp,
        /// Every job that was waiting, queued or in progress where it was looked.
        all: Vec<JobSeen>,
        /// Where it was looked.
        covered: Covered,
    },
    /// A listing of open jobs cost so many calls.
    Spent {
        /// At this forge.
        forge: ForgeName,
        /// In this scope.
        scope: Scope,
        /// Calls that count against a budget.
        calls: u32,
    },
    /// The registrations of a scope.
    Runners {
        /// At this forge.
        forge: ForgeName,
        /// In this scope.
        scope: Scope,
        /// When the listing was begun.
        asked_at: Timestamp,
        /// Every registration, ours and others'.
        all: Vec<RunnerSeen>,
    },
    /// What a provider has that is tagged as ours.
    Instances {
        /// The provider.
        provider: ProviderName,
        /// When the listing was begun.
        asked_at: Timestamp,
        /// Every instance, in whatever condition.
        all: Vec<InstanceSeen>,
    },
    /// What a provider's nodes have; `None` where the provider only ever says "full".
    Capacity {
        /// The provider.
        provider: ProviderName,
        /// Units by node.
        capacity: Option<Capacity>,
    },
    /// A launch has got as far as the registration.
    Registered {
        /// Of this runner.
        runner: RunnerId,
        /// The forge's id for it.
        id: u64,
    },
    /// A launch succeeded.
    Launched {
        /// This instance exists.
        instance: InstanceId,
        /// Where, if the provider said.
        node: Option<NodeName>,
    },
    /// The forge confirmed that a registration is gone.
    Deregistered {
        /// Whose.
        subject: Subject,
    },
    /// The forge refused to remove a registration because it has a job.
    DeregisterBusy {
        /// Whose.
        subject: Subject,
    },
    /// The provider confirmed a destruction. It may still list the instance for a while.
    Destroyed {
        /// Of this instance.
        instance: InstanceId,
        /// When the call was begun.
        asked_at: Timestamp,
    },
    /// A call failed.
    Failed {
        /// What it was about.
        subject: Subject,
        /// Which kind of call.
        call: Call,
        /// Why.
        cause: Cause,
        /// For people, without secrets.
        message: Arc<str>,
    },
    /// Failed deliveries of a hook were listed.
    Deliveries {
        /// At this forge.
        forge: ForgeName,
        /// Of this hook.
        hook: HookKey,
        /// When the listing was begun.
        asked_at: Timestamp,
        /// Those of which no attempt succeeded.
        failed: Vec<FailedDelivery>,
        /// Where it goes on, if it was too long to be read at once.
        next: Option<Arc<str>>,
    },
    /// The forge will send a delivery again.
    Redelivered {
        /// At this forge.
        forge: ForgeName,
        /// Of this hook.
        hook: HookKey,
        /// Which.
        guid: Arc<str>,
    },
    /// What a forge leaves to a credential.
    Budget {
        /// The forge.
        forge: ForgeName,
        /// Whose calls are counted.
        credential: Credential,
        /// What is left of them.
        budget: Budget,
    },
    /// A person's order.
    Order(Order),
}

/// Where a listing of open jobs looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Everywhere in the scope.
    Whole,
    /// In some repositories; of the others it says nothing.
    Part {
        /// Which.
        repositories: BTreeSet<Repository>,
        /// Behind which the next listing goes on; none if it begins anew.
        next: Option<Repository>,
    },
}

impl Covered {
    /// True if it was looked there.
    pub fn has(&self, repository: &Repository) -> bool {
        match self {
            Self::Whole => true,
            Self::Part { repositories, .. } => repositories.contains(repository),
        }
    }
}

/// What calls are about. One call is in flight per subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A runner's registration.
    Runner(RunnerId),
    /// An instance.
    Instance(InstanceId),
    /// A registration that bears our name and that no row explains.
    Stray(StrayRegistration),
    /// One job at the forge.
    Job(JobKey),
    /// The open jobs of a scope.
    Jobs(ForgeName, Scope),
    /// The registrations of a scope.
    Runners(ForgeName, Scope),
    /// What a provider has.
    Instances(ProviderName),
    /// The failed deliveries of a hook.
    Deliveries(ForgeName, HookKey),
    /// One delivery that is to be sent again.
    Redelivery(ForgeName, HookKey, Arc<str>),
}

/// A registration at the forge that bears our name and that no row explains.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StrayRegistration {
    /// The forge.
    pub forge: ForgeName,
    /// Where.
    pub scope: Scope,
    /// The forge's id.
    pub id: u64,
}

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// The forge's half of a launch; the provider was not called.
    Register,
    /// The provider's half of a launch.
    Launch,
    /// Removal of a registration.
    Deregister,
    /// End of an instance.
    Destroy,
    /// A listing or read.
    Look,
    /// A delivery is to be sent again.
    Redeliver,
}

/// Why a call failed, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The provider has no room.
    Full,
    /// The forge asks for patience until then.
    Limited {
        /// When to ask again.
        until: Timestamp,
    },
    /// It was refused or broke off before it could have had an effect; trying again may help.
    Transient,
    /// Whether it had an effect is not known.
    Unknown,
    /// It cannot succeed until a person changes something.
    Invalid,
}

/// How we came to know of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A delivery, which may be late, repeated or out of order.
    Delivery {
        /// When it arrived here.
        received_at: Timestamp,
    },
    /// A listing or a read of the forge.
    Read {
        /// When it was asked.
        asked_at: Timestamp,
    },
}

impl Source {
    /// The latest instant the fact can be about, on our clock.
    pub const fn at(self) -> Timestamp {
        match self {
            Self::Delivery { received_at } => received_at,
            Self::Read { asked_at } => asked_at,
        }
    }
}

/// A job as the forge told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSeen {
    /// Its identity.
    pub key: JobKey,
    /// Its state then.
    pub state: JobState,
    /// How it ended, if it had.
    pub conclusion: Option<Conclusion>,
    /// Who owns its repository.
    pub tenant: Tenant,
    /// Where a runner for it must register.
    pub scope: Scope,
    /// The repository it comes from.
    pub repository: Repository,
    /// What it asks of a runner.
    pub wanted: Wanted,
    /// Who runs it, if anybody.
    pub runner: Option<RunnerRef>,
    /// What people call it.
    pub title: Title,
    /// When it was queued (forge's clock).
    pub queued_at: Option<Timestamp>,
    /// When it began to run (forge's clock).
    pub started_at: Option<Timestamp>,
    /// When it ended (forge's clock).
    pub completed_at: Option<Timestamp>,
    /// How we came to know.
    pub source: Source,
}

/// A registration as the forge listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSeen {
    /// The forge's id.
    pub id: u64,
    /// Its name.
    pub name: RunnerName,
    /// Whether it is connected.
    pub online: bool,
    /// Whether the forge says that it has a job. A hint: it has been seen wrong both ways.
    pub busy: bool,
}

/// An instance as its provider listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Our number, from its tag.
    pub id: InstanceId,
    /// The runner it carries, from its tag.
    pub runner: Option<RunnerName>,
    /// Where it is.
    pub node: Option<NodeName>,
    /// Its condition.
    pub condition: Condition,
}

/// The condition of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs, or is about to.
    Running,
    /// It ended by itself, with this exit code if the provider knows it.
    Exited(Option<i32>),
}

/// A person's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave a runner alone.
    Hold {
        /// Which.
        runner: RunnerId,
        /// Who orders it.
        who: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// End a hold.
    Release {
        /// Of which runner.
        runner: RunnerId,
    },
    /// Remove a runner unless it has a job.
    DrainRunner {
        /// Which.
        runner: RunnerId,
    },
    /// Place nothing new on a pool, provider or node; what is idle there leaves, what is busy ends first.
    Drain {
        /// Which.
        what: DrainKey,
        /// Who orders it.
        who: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// End a drain.
    Resume {
        /// Of what.
        what: DrainKey,
    },
    /// Forget the failures of something: it is tried at once.
    Forgive {
        /// Of what.
        what: BackoffKey,
    },
    /// These books are the newest: do not wait for everything to have been seen.
    Confirm,
}
