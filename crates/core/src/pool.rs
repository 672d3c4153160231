//! Pools: runners of one kind. Capacity: what nodes have and instances take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::label::LabelSet;
use crate::name::{ForgeName, GroupName, ImageName, NodeName, PoolName, ProviderName, Resource};
use crate::tenant::Scope;

/// What an instance takes of its node, in units of each resource. `memory` is counted in MiB,
/// `cpu` in thousandths of a core, everything else in pieces.
pub type Needs = Arc<BTreeMap<Resource, u64>>;

/// Runners of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Where its runners register.
    pub forge: ForgeName,
    /// The scopes it serves; none listed means any that asks.
    pub scopes: Vec<Scope>,
    /// The runner group they join; the forge's default if none.
    pub group: Option<GroupName>,
    /// What its runners offer.
    pub labels: LabelSet,
    /// Who makes its instances.
    pub provider: ProviderName,
    /// What they run.
    pub image: ImageName,
    /// What each takes.
    pub needs: Needs,
    /// Idle runners to keep in every listed scope.
    pub min_idle: u32,
    /// Most instances at any time.
    pub max: u32,
    /// How many jobs wait for each other before a runner is made.
    pub gather: Gather,
    /// How long each phase may take.
    pub limits: Limits,
    /// Which jobs it serves.
    pub audience: Audience,
}

/// How many jobs a pool waits for before it makes runners for them, and for how long at most. A runner that
/// is there already serves a job at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// So many jobs of one kind are served at once.
    pub jobs: u32,
    /// Fewer are served once the oldest has waited this long.
    pub wait: Duration,
}

impl Default for Gather {
    fn default() -> Self {
        Self { jobs: 1, wait: Duration::ZERO }
    }
}

/// A word for how eagerly a pool grows and shrinks. The figures are Embeddenator's thresholds and
/// cool-downs; there, too few jobs wait for ever, here for no longer than the cool-down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Grows for many jobs, and keeps what it has for long.
    Lazy,
    /// In between.
    Balanced,
    /// Grows for every job, and lets go soon.
    Aggressive,
}

impl Mode {
    /// The word for it in a fleet file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Balanced => "balanced",
            Self::Aggressive => "aggressive",
        }
    }

    /// When runners are made for waiting jobs.
    pub const fn gather(self) -> Gather {
        let (jobs, wait) = match self {
            Self::Lazy => (5, 120),
            Self::Balanced => (2, 60),
            Self::Aggressive => (1, 30),
        };
        Gather { jobs, wait: Duration::from_secs(wait) }
    }

    /// How long a runner may idle beyond `min_idle`, unless the pool says so itself.
    pub const fn idle(self) -> Duration {
        self.gather().wait
    }
}

/// Which jobs a pool serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Any that its labels satisfy.
    #[default]
    Anyone,
    /// Only those known to be trusted.
    TrustedOnly,
}

/// How long a runner of a pool may stay in each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From launch to online.
    pub boot: Duration,
    /// Online without a job, when nothing needs it.
    pub idle: Duration,
    /// From launch, while without a job.
    pub lifetime: Duration,
    /// On its job; the one limit that may end a running job. None means the forge's own limit.
    pub job: Option<Duration>,
    /// From its job's end to its own exit.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            boot: Duration::from_mins(5),
            idle: Duration::from_mins(5),
            lifetime: Duration::from_hours(24),
            job: None,
            finish: Duration::from_secs(30),
        }
    }
}

/// What a provider's nodes have in all, whoever uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Units of each resource, by node. A resource a node does not name is one it has none of.
    pub nodes: BTreeMap<NodeName, BTreeMap<Resource, u64>>,
}
