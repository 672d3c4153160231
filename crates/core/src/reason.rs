//! Reasons: why a job is not running. A closed set; every waiting job has at least one.

use std::fmt;
use std::sync::Arc;

use crate::job::JobKey;
use crate::label::Wanted;
use crate::name::{ForgeName, ImageName, NodeName, PoolName, ProviderName};
use crate::pool::Pool;
use crate::runner::{Instance, Runner, RunnerId};
use crate::snapshot::Drain;
use crate::tenant::{Scope, TenantKey};
use crate::time::Timestamp;

/// What a back-off holds back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackoffKey {
    /// Launches of a pool whose runners die or never come online.
    Pool(PoolName),
    /// Launches at a provider that is full or fails.
    Provider(ProviderName),
    /// Registrations in a scope whose forge refuses them.
    Scope(ForgeName, Scope),
    /// Launches of an image whose runners die in several pools.
    Image(ImageName),
    /// Launches on a node whose runners die.
    Node(ProviderName, NodeName),
}

impl BackoffKey {
    /// Everything whose failures concern a runner; `pool` is its pool as declared.
    pub fn of(runner: &Runner, instance: &Instance, pool: Option<&Pool>) -> Vec<Self> {
        let mut all = vec![
            Self::Pool(runner.pool.clone()),
            Self::Provider(instance.provider.clone()),
            Self::Scope(runner.forge.clone(), runner.scope.clone()),
        ];
        all.extend(pool.map(|pool| Self::Image(pool.image.clone())));
        all.extend(Self::node_of(instance));
        all
    }

    /// The node an instance is on, if it is known.
    pub fn node_of(instance: &Instance) -> Option<Self> {
        let node = instance.node.clone()?;
        Some(Self::Node(instance.provider.clone(), node))
    }

    /// True of what is put in quarantine when it keeps failing: what makes runners. Providers and
    /// forges that fail are outages, which end by themselves.
    pub fn can_be_quarantined(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Image(_) | Self::Node(..) => true,
            Self::Provider(_) | Self::Scope(..) => false,
        }
    }
}

/// What can be drained as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainKey {
    /// A pool.
    Pool(PoolName),
    /// A provider.
    Provider(ProviderName),
    /// A node of a provider.
    Node(ProviderName, NodeName),
}

impl DrainKey {
    /// Everything whose drain concerns a runner.
    pub fn of(runner: &Runner, instance: &Instance) -> impl Iterator<Item = Self> {
        let node = instance.node.clone().map(|node| Self::Node(instance.provider.clone(), node));
        [Self::Pool(runner.pool.clone()), Self::Provider(instance.provider.clone())]
            .into_iter()
            .chain(node)
    }
}

impl fmt::Display for DrainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Provider(provider) => write!(f, "provider {provider}"),
            Self::Node(provider, node) => write!(f, "node {provider}/{node}"),
        }
    }
}

impl fmt::Display for BackoffKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Provider(provider) => write!(f, "provider {provider}"),
            Self::Scope(forge, scope) => write!(f, "{scope} at {forge}"),
            Self::Image(image) => write!(f, "image {image}"),
            Self::Node(provider, node) => write!(f, "node {provider}/{node}"),
        }
    }
}

/// Why a job is not running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The forge holds it back (a deployment gate).
    HeldByForge,
    /// No pool of its forge and scope offers all the labels it asks for.
    NoPoolHasLabels {
        /// What it asks for.
        wanted: Wanted,
        /// The pool that comes nearest, and what it lacks.
        nearest: Option<(PoolName, Arc<str>)>,
    },
    /// The pool has as many instances as it may.
    PoolFull(PoolName),
    /// The provider has as many instances as it may, or said that it is full.
    ProviderFull(ProviderName),
    /// No node of the provider has room for one more instance of the pool.
    NoNodeHasRoom(PoolName),
    /// The tenant has as many runners as it may.
    TenantAtCap {
        /// Whose cap.
        tenant: TenantKey,
        /// The cap.
        cap: u32,
    },
    /// Failures are being waited out.
    BackingOff {
        /// Of what.
        what: BackoffKey,
        /// Until when.
        until: Timestamp,
        /// The last failure.
        because: Arc<str>,
    },
    /// One runner is tried after failures before others follow.
    Proving {
        /// Of what.
        what: BackoffKey,
    },
    /// It has failed so often that it is only tried now and then, with one runner.
    Quarantined {
        /// What.
        what: BackoffKey,
        /// Since when it has failed.
        since: Timestamp,
        /// When it is tried again.
        until: Timestamp,
        /// The last failure.
        because: Arc<str>,
    },
    /// A person ordered that nothing new is placed there.
    Drained {
        /// Where.
        what: DrainKey,
        /// Who ordered it.
        who: Arc<str>,
        /// Why.
        why: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// The pool waits for more jobs of its kind before it makes runners for them.
    Gathering {
        /// The pool.
        pool: PoolName,
        /// How many it waits for.
        jobs: u32,
        /// When it waits no longer.
        until: Timestamp,
    },
    /// Older jobs of its own tenant wait for the same.
    BehindOlder,
    /// Jobs of other tenants, which come first, wait for the same of this pool.
    BehindOthers(PoolName),
    /// Nobody has yet found out whether its code may meet the pool's runners.
    TrustUnknown(PoolName),
    /// Its code may not meet the pool's runners.
    NotTrusted(PoolName),
    /// A runner for it is on its way.
    RunnerStarting(RunnerId),
    /// A runner for it is online; the forge has yet to hand it over.
    RunnerIdle(RunnerId),
    /// The forge was asked and knows no such job.
    UnknownToForge {
        /// Since when it has said so.
        since: Timestamp,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldByForge => write!(f, "the forge holds the job back (a deployment gate)"),
            Self::NoPoolHasLabels { wanted, nearest: None } => {
                write!(f, "no pool of this scope offers the labels {wanted}")
            }
            Self::NoPoolHasLabels { wanted, nearest: Some((pool, lacking)) } => write!(
                f,
                "no pool of this scope offers the labels {wanted}; \
                 pool {pool} comes nearest and lacks {lacking}"
            ),
            Self::PoolFull(pool) => write!(f, "pool {pool} is full"),
            Self::ProviderFull(provider) => write!(f, "provider {provider} is full"),
            Self::NoNodeHasRoom(pool) => write!(f, "no node has room for pool {pool}"),
            Self::TenantAtCap { tenant, cap } => {
                write!(f, "tenant {tenant} is at its cap of {cap} runners")
            }
            Self::BackingOff { what, until: _, because } => {
                write!(f, "{what} is backing off after: {because}")
            }
            Self::Proving { what } => {
                write!(f, "{what} is being tried with one runner after failures")
            }
            Self::Quarantined { what, because, since: _, until: _ } => {
                write!(f, "{what} is in quarantine, the last failure: {because}")
            }
            Self::Drained { what, who, why, since: _ } => {
                write!(f, "{what} is drained by {who}: {why}")
            }
            Self::Gathering { pool, jobs, until: _ } => {
                write!(f, "pool {pool} waits for {jobs} jobs of a kind, or for a while")
            }
            Self::BehindOlder => write!(f, "older jobs of its account come first"),
            Self::BehindOthers(pool) => {
                write!(f, "jobs of other accounts come first for pool {pool}")
            }
            Self::TrustUnknown(pool) => {
                write!(f, "pool {pool} is for trusted jobs and this one is not yet judged")
            }
            Self::NotTrusted(pool) => write!(f, "pool {pool} is for trusted jobs only"),
            Self::RunnerStarting(runner) => write!(f, "runner {runner} is starting"),
            Self::RunnerIdle(runner) => {
                write!(f, "runner {runner} is online; the forge has yet to assign the job")
            }
            Self::UnknownToForge { .. } => write!(f, "the forge knows no such job"),
        }
    }
}

impl Reason {
    /// A stable word for it, for metrics and machine-readable output.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::HeldByForge => "held_by_forge",
            Self::NoPoolHasLabels { .. } => "no_pool_has_labels",
            Self::PoolFull(_) => "pool_full",
            Self::ProviderFull(_) => "provider_full",
            Self::NoNodeHasRoom(_) => "no_node_has_room",
            Self::TenantAtCap { .. } => "tenant_at_cap",
            Self::BackingOff { .. } => "backing_off",
            Self::Proving { .. } => "proving",
            Self::Quarantined { .. } => "quarantined",
            Self::Drained { .. } => "drained",
            Self::Gathering { .. } => "gathering",
            Self::BehindOlder => "behind_older",
            Self::BehindOthers(_) => "behind_others",
            Self::TrustUnknown(_) => "trust_unknown",
            Self::NotTrusted(_) => "not_trusted",
            Self::RunnerStarting(_) => "runner_starting",
            Self::RunnerIdle(_) => "runner_idle",
            Self::UnknownToForge { .. } => "unknown_to_forge",
        }
    }
}

impl Reason {
    /// That a person ordered `what` drained.
    pub(crate) fn drained(what: DrainKey, drain: &Drain) -> Self {
        let Drain { who, why, since } = drain.clone();
        Self::Drained { what, who, why, since }
    }

    /// Since when it is so, and when it is tried again or ends by itself; each where the reason itself
    /// says so.
    pub(crate) fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        match self {
            Self::Quarantined { since, until, .. } => (Some(*since), Some(*until)),
            Self::BackingOff { until, .. } | Self::Gathering { until, .. } => (None, Some(*until)),
            Self::UnknownToForge { since } | Self::Drained { since, .. } => (Some(*since), None),
            Self::HeldByForge
            | Self::NoPoolHasLabels { .. }
            | Self::PoolFull(_)
            | Self::ProviderFull(_)
            | Self::NoNodeHasRoom(_)
            | Self::TenantAtCap { .. }
            | Self::Proving { .. }
            | Self::BehindOlder
            | Self::BehindOthers(_)
            | Self::TrustUnknown(_)
            | Self::NotTrusted(_)
            | Self::RunnerStarting(_)
            | Self::RunnerIdle(_) => (None, None),
        }
    }
}

/// A job that is not running, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The job.
    pub job: JobKey,
    /// At least one reason; jobs of one kind share the list.
    pub reasons: Arc<[Reason]>,
}
