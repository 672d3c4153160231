//! What is restricted: drained by a person, in quarantine, or waiting after failures; and the names by
//! which people order it so or lift it.

use std::fmt;

use remuda_core::Snapshot;
use remuda_core::health::is_quarantine;
use remuda_core::name::{NodeName, ProviderName};
use remuda_core::observation::Order;
use remuda_core::reason::{BackoffKey, DrainKey};
use serde::{Deserialize, Serialize};

use crate::clock::rfc3339;

/// Something on which nothing, or only one runner at a time, is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestrictionRow {
    /// What: `pool NAME`, `provider NAME`, `image NAME`, `node PROVIDER/NODE`, or a scope.
    pub what: String,
    /// `drained`, `quarantined`, `backing_off` or `proving`.
    pub how: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When it is tried again, RFC 3339; not for what a person must end.
    pub until: Option<String>,
    /// How many failures in a row.
    pub failures: Option<u32>,
    /// Who ordered it and why, or the last failure.
    pub because: String,
    /// Other causes before that, the newest first.
    pub earlier: Vec<String>,
    /// Who must act.
    pub act: String,
}

impl fmt::Display for RestrictionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}", self.how.replace('_', " "), self.since)?;
        match self.failures {
            Some(failures) => write!(f, ", {failures} failures in a row, the last: ")?,
            None => write!(f, " by ")?,
        }
        write!(f, "{}", self.because)?;
        if !self.earlier.is_empty() {
            write!(f, "; before that: {}", self.earlier.join("; "))?;
        }
        if let Some(until) = &self.until {
            write!(f, "; next try at {until}")?;
        }
        write!(f, ": {}", self.act)
    }
}

/// Everything that is restricted, drains first.
pub fn restrictions(world: &Snapshot) -> Vec<RestrictionRow> {
    let drains = world.drains().map(|(key, drain)| RestrictionRow {
        what: key.to_string(),
        how: "drained".into(),
        since: rfc3339(drain.since),
        until: None,
        failures: None,
        because: format!("{}: {}", drain.who, drain.why),
        earlier: Vec::new(),
        act: who_must_resume(key),
    });
    let failing = world.backoffs().map(|(key, backoff)| {
        let quarantined = is_quarantine(world, key, backoff);
        let how = match (quarantined, backoff.until > world.now) {
            (true, _) => "quarantined",
            (false, true) => "backing_off",
            (false, false) => "proving",
        };
        let nobody = "it is tried again by itself; mend what the failure names";
        RestrictionRow {
            what: key.to_string(),
            how: how.into(),
            since: rfc3339(backoff.since),
            until: Some(rfc3339(backoff.until)),
            failures: Some(backoff.failures),
            because: backoff.because.to_string(),
            earlier: backoff.earlier.iter().map(ToString::to_string).collect(),
            act: if quarantined { who_must_act(key) } else { nobody.into() },
        }
    });
    drains.chain(failing).collect()
}

/// Who must act for something to leave its quarantine.
pub(crate) fn who_must_act(key: &BackoffKey) -> String {
    let who = match key {
        BackoffKey::Pool(_) | BackoffKey::Image(_) => "who keeps the fleet file",
        BackoffKey::Node(..) | BackoffKey::Provider(_) => "who keeps the machine",
        BackoffKey::Scope(..) => "who keeps the forge",
    };
    format!("{who} must mend it, then `remuda release {key}` (or the next try lifts it)")
}

/// Who must act for something to be used again.
pub(crate) fn who_must_resume(key: &DrainKey) -> String {
    format!("`remuda resume {key}` ends that")
}

/// A person's order to a part of the fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum FleetOrder {
    /// Place nothing new there.
    Drain {
        /// Where.
        what: Part,
        /// Who orders it.
        who: String,
        /// Why.
        why: String,
    },
    /// End a drain.
    Resume {
        /// Of what.
        what: Part,
    },
    /// End a quarantine or a back-off.
    Release {
        /// Of what.
        what: Part,
    },
    /// These books are the newest.
    Confirm,
}

/// A part of the fleet, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Part {
    /// A pool.
    Pool(String),
    /// A provider.
    Provider(String),
    /// An image.
    Image(String),
    /// A node: `PROVIDER/NODE`.
    Node(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Provider(name) => write!(f, "provider {name}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

impl Part {
    /// What a drain of it goes by; an error says that there is no such thing.
    fn drain_key(&self, world: &Snapshot) -> Result<DrainKey, String> {
        let drained = |key: &&DrainKey| key.to_string() == self.to_string();
        let drained = world.drains().map(|(key, _)| key).find(drained).cloned();
        drained.or_else(|| self.declared(world)).ok_or_else(|| self.unknown())
    }

    fn declared(&self, world: &Snapshot) -> Option<DrainKey> {
        match self {
            Self::Image(_) => None,
            Self::Pool(name) => {
                let known = world.fleet.pools.keys().find(|known| known.as_str() == name);
                known.cloned().map(DrainKey::Pool)
            }
            Self::Provider(name) => provider(world, name).map(DrainKey::Provider),
            Self::Node(name) => {
                let (of, node) = name.split_once('/')?;
                Some(DrainKey::Node(provider(world, of)?, NodeName::new(node).ok()?))
            }
        }
    }

    /// What its failures go by; an error says that there is no such thing.
    fn backoff_key(&self, world: &Snapshot) -> Result<BackoffKey, String> {
        let failing = |key: &&BackoffKey| key.to_string() == self.to_string();
        if let Some((key, _)) = world.backoffs().find(|(key, _)| failing(key)) {
            return Ok(key.clone());
        }
        let image = |name: &str| world.fleet.images.keys().find(|known| known.as_str() == name);
        let known = match self {
            Self::Image(name) => image(name).cloned().map(BackoffKey::Image),
            Self::Pool(_) | Self::Provider(_) | Self::Node(_) => {
                self.declared(world).map(|key| match key {
                    DrainKey::Pool(pool) => BackoffKey::Pool(pool),
                    DrainKey::Provider(provider) => BackoffKey::Provider(provider),
                    DrainKey::Node(provider, node) => BackoffKey::Node(provider, node),
                })
            }
        };
        known.ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> String {
        format!("there is no {self}; a node is named PROVIDER/NODE")
    }
}

fn provider(world: &Snapshot, name: &str) -> Option<ProviderName> {
    world.fleet.providers.keys().find(|known| known.as_str() == name).cloned()
}

impl FleetOrder {
    /// The order as the core knows it; an error says what does not exist.
    pub(crate) fn read(self, world: &Snapshot) -> Result<Order, String> {
        Ok(match self {
            Self::Drain { what, who, why } => {
                let what = what.drain_key(world)?;
                Order::Drain { what, who: who.into(), why: why.into() }
            }
            Self::Resume { what } => Order::Resume { what: what.drain_key(world)? },
            Self::Release { what } => Order::Forgive { what: what.backoff_key(world)? },
            Self::Confirm => Order::Confirm,
        })
    }
}
