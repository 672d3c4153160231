//! Actions: the calls that committed state asks for, with everything their performer needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::hook::HookKey;
use crate::job::JobKey;
use crate::label::LabelSet;
use crate::name::{ForgeName, GroupName, ImageName, NodeName, PoolName, ProviderName, RunnerName};
use crate::observation::{StrayRegistration, Subject};
use crate::pool::Needs;
use crate::runner::{InstanceId, RunnerId};
use crate::tenant::{Repository, Scope};
use crate::time::Timestamp;

/// A call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register a runner, then make its instance.
    Launch(Box<Launch>),
    /// Remove a registration.
    Deregister(Deregister),
    /// End an instance, if it exists.
    Destroy(Destroy),
    /// Ask the outside.
    Look(Look),
    /// Have a delivery sent again.
    Redeliver(Redeliver),
}

/// A delivery to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeliver {
    /// The forge.
    pub forge: ForgeName,
    /// Whose delivery it is.
    pub hook: HookKey,
    /// The delivery.
    pub guid: Arc<str>,
    /// The attempt to repeat.
    pub id: u64,
}

impl Redeliver {
    /// What the call is about.
    pub fn subject(&self) -> Subject {
        Subject::Redelivery(self.forge.clone(), self.hook.clone(), self.guid.clone())
    }
}

/// What a launch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The runner to register.
    pub runner: RunnerId,
    /// The name it registers under.
    pub name: RunnerName,
    /// The forge.
    pub forge: ForgeName,
    /// Where it registers.
    pub scope: Scope,
    /// In which group; the forge's default if none.
    pub group: Option<GroupName>,
    /// What it offers.
    pub labels: LabelSet,
    /// The instance to make.
    pub instance: InstanceId,
    /// Part of the instance's tag.
    pub epoch: u64,
    /// The pool, for people.
    pub pool: PoolName,
    /// Who makes the instance.
    pub provider: ProviderName,
    /// What it runs.
    pub image: ImageName,
    /// What it takes.
    pub needs: Needs,
    /// Nodes on which it must not be made: a provider that has no other is full.
    pub avoid: Arc<BTreeSet<NodeName>>,
    /// After this instant the call must no longer have an effect.
    pub deadline: Timestamp,
}

/// A registration to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregister {
    /// Whose call it is.
    pub subject: Subject,
    /// The forge.
    pub forge: ForgeName,
    /// Where.
    pub scope: Scope,
    /// Its name, to look it up by where the id is not known.
    pub name: RunnerName,
    /// The forge's id, if known.
    pub id: Option<u64>,
}

/// An instance to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destroy {
    /// Who made it.
    pub provider: ProviderName,
    /// Which.
    pub instance: InstanceId,
}

/// A question to the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// One job.
    Job {
        /// Which.
        key: JobKey,
        /// The scope, which tells the credential.
        scope: Scope,
        /// The repository it is read from.
        repository: Repository,
    },
    /// The open jobs of a scope.
    Jobs {
        /// The forge.
        forge: ForgeName,
        /// The scope.
        scope: Scope,
        /// Where to look.
        reach: Reach,
    },
    /// The registrations of a scope.
    Runners {
        /// The forge.
        forge: ForgeName,
        /// The scope.
        scope: Scope,
    },
    /// The failed deliveries of a hook.
    Deliveries {
        /// The forge.
        forge: ForgeName,
        /// The hook.
        hook: HookKey,
        /// Back to this instant.
        since: Timestamp,
        /// Where a reading that was too long goes on.
        from: Option<Arc<str>>,
    },
    /// What a provider has, and what its nodes have room for.
    Instances {
        /// The provider.
        provider: ProviderName,
    },
}

/// How far a listing of open jobs goes in an organization. A repository's own is always whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Repositories to look at in any case, at most [`Reach::ACTIVE_MAX`]: they had jobs lately.
    pub active: BTreeSet<Repository>,
    /// Of the others, those behind this one, in the order of their names.
    pub after: Option<Repository>,
    /// How many of the others.
    pub others: usize,
    /// Most calls that count against a budget.
    pub calls_max: u32,
}

impl Reach {
    /// Most repositories looked at in any case. GitHub takes four calls for each, and admits 900 in a
    /// minute for everything.
    pub const ACTIVE_MAX: usize = 50;
    /// Most others.
    pub const OTHERS: usize = 25;
}

impl Action {
    /// The forge that is called, if one is.
    pub fn forge(&self) -> Option<&ForgeName> {
        match self {
            Self::Launch(launch) => Some(&launch.forge),
            Self::Deregister(deregister) => Some(&deregister.forge),
            Self::Look(look) => look.forge(),
            Self::Redeliver(redeliver) => Some(&redeliver.forge),
            Self::Destroy(_) => None,
        }
    }

    /// What the call is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Launch(launch) => Subject::Instance(launch.instance),
            Self::Deregister(deregister) => deregister.subject.clone(),
            Self::Destroy(destroy) => Subject::Instance(destroy.instance),
            Self::Look(look) => look.subject(),
            Self::Redeliver(redeliver) => redeliver.subject(),
        }
    }
}

impl Look {
    /// The forge that is asked, if one is.
    pub fn forge(&self) -> Option<&ForgeName> {
        match self {
            Self::Job { key, .. } => Some(&key.forge),
            Self::Jobs { forge, .. }
            | Self::Runners { forge, .. }
            | Self::Deliveries { forge, .. } => Some(forge),
            Self::Instances { .. } => None,
        }
    }

    /// What is looked at.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Job { key, .. } => Subject::Job(key.clone()),
            Self::Jobs { forge, scope, .. } => Subject::Jobs(forge.clone(), scope.clone()),
            Self::Runners { forge, scope } => Subject::Runners(forge.clone(), scope.clone()),
            Self::Deliveries { forge, hook, .. } => {
                Subject::Deliveries(forge.clone(), hook.clone())
            }
            Self::Instances { provider } => Subject::Instances(provider.clone()),
        }
    }
}

impl From<StrayRegistration> for Subject {
    fn from(stray: StrayRegistration) -> Self {
        Self::Stray(stray)
    }
}
