//! Budgets of calls: what a forge leaves to each credential, and who may spend the last of it.
//!
//! Calls are of six lanes. Each lower one stops while more is left than the one above it needs, so that
//! looking for work never costs the work that was found its runner.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fleet::Allowance;
use crate::name::{ForgeName, Login};
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// What a forge counts calls by. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Credential {
    /// An App where it is installed, or as itself.
    App {
        /// The App's id or client id, as the fleet file has it.
        id: Arc<str>,
        /// The account it is installed at; none where it asks as itself.
        owner: Option<Login>,
    },
    /// The personal access token.
    Token,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { id, owner: Some(owner) } => write!(f, "App {id} at {owner}"),
            Self::App { id, owner: None } => write!(f, "App {id} itself"),
            Self::Token => write!(f, "the token"),
        }
    }
}

/// What a forge said of a credential's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Calls it may make in one window (an hour at GitHub).
    pub limit: u64,
    /// Calls left of them.
    pub remaining: u64,
    /// When the next window begins (our clock).
    pub resets_at: Timestamp,
}

impl Budget {
    /// Calls left at an instant: all of them once the next window has begun.
    pub fn left_at(&self, now: Timestamp) -> u64 {
        if self.resets_at > now { self.remaining } else { self.limit }
    }
}

/// Kinds of calls by how much depends on them, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A runner is registered: a job waits for it.
    Registration,
    /// A registration is removed: a place is waited for.
    Deregistration,
    /// One job is read.
    Read,
    /// Registrations are listed.
    Runners,
    /// Open jobs are listed, to find those nobody told of.
    Sweep,
    /// Failed deliveries are listed and asked for again.
    Redelivery,
}

impl Lane {
    /// Every lane, the first that may spend first.
    pub const ALL: [Self; 6] = [
        Self::Registration,
        Self::Deregistration,
        Self::Read,
        Self::Runners,
        Self::Sweep,
        Self::Redelivery,
    ];

    /// The word for it, as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registrations",
            Self::Deregistration => "removals",
            Self::Read => "reads of jobs",
            Self::Runners => "listings of runners",
            Self::Sweep => "sweeps for jobs",
            Self::Redelivery => "redeliveries",
        }
    }

    /// What is kept for the lanes above, in hundredths of the limit.
    pub const fn reserve(self) -> u64 {
        match self {
            Self::Registration => 0,
            Self::Deregistration => 5,
            Self::Read => 10,
            Self::Runners => 15,
            Self::Sweep => 25,
            Self::Redelivery => 40,
        }
    }
}

/// What an owner's credentials have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Calls they may make in one window.
    pub limit: u64,
    /// Calls left.
    pub remaining: u64,
}

impl Purse {
    /// Puts a credential's calls in.
    pub(crate) fn add(&mut self, budget: &Budget, now: Timestamp) {
        self.limit = self.limit.saturating_add(budget.limit);
        self.remaining = self.remaining.saturating_add(budget.left_at(now));
    }

    /// Calls that a lane may still make.
    pub fn spendable(&self, lane: Lane) -> u64 {
        self.remaining.saturating_sub((self.limit * lane.reserve()).div_ceil(100))
    }
}

/// Whose calls are counted together: an owner's, or everybody's whom the token serves.
pub type PurseKey = (ForgeName, Option<Login>);

/// GitHub's window.
const WINDOW: Duration = Duration::from_hours(1);
/// What GitHub gives every credential at least (docs.github.com, "Rate limits for the REST API").
const LIMIT_LEAST: u64 = 5000;

impl Snapshot {
    /// What a forge last said of each credential's calls.
    pub fn budgets(&self) -> impl Iterator<Item = (&ForgeName, &Credential, &Budget)> {
        self.budgets.iter().map(|((forge, credential), budget)| (forge, credential, budget))
    }

    fn serving<'a>(
        &'a self,
        forge: &'a ForgeName,
        owner: &'a Login,
    ) -> impl Iterator<Item = &'a Budget> {
        let installed =
            self.budgets().filter(move |(at, by, _)| *at == forge && by.owner() == Some(owner));
        let mut installed = installed.map(|(_, _, budget)| budget).peekable();
        // The token is used only where no App serves.
        let alone = installed.peek().is_none() && self.fleet.is_tokens(forge, owner);
        let token = self.budgets.get(&(forge.clone(), Credential::Token)).filter(|_| alone);
        installed.chain(token)
    }

    /// What is left to the credentials that serve an owner, as far as the forge has said; nothing said
    /// is nothing known.
    pub fn purse(&self, forge: &ForgeName, owner: &Login) -> Option<Purse> {
        self.serving(forge, owner).fold(None, |purse, budget| {
            let mut purse = purse.unwrap_or_default();
            purse.add(budget, self.now);
            Some(purse)
        })
    }

    /// When the first of an owner's credentials gets calls again, if all have used theirs up.
    pub fn exhausted_until(&self, forge: &ForgeName, owner: &Login) -> Option<Timestamp> {
        let spent = self.purse(forge, owner).is_some_and(|purse| purse.remaining == 0);
        let resets = self.serving(forge, owner).map(|budget| budget.resets_at);
        resets.filter(|_| spent).min()
    }

    /// True if an App is installed at the owner, as far as the forge has said.
    pub(crate) fn is_installed(&self, forge: &ForgeName, owner: &Login) -> bool {
        self.budgets().any(|(at, by, _)| at == forge && by.owner() == Some(owner))
    }

    /// When the token gets calls again, if it alone can serve the owner and has used up its own.
    pub(crate) fn token_spent(&self, forge: &ForgeName, owner: &Login) -> Option<Timestamp> {
        self.exhausted_until(forge, owner).filter(|_| !self.is_installed(forge, owner))
    }

    /// Whose calls a call for this owner is counted with.
    pub fn purse_key(&self, forge: &ForgeName, owner: &Login) -> PurseKey {
        let declared = self.fleet.forges.get(forge);
        let token = declared.is_some_and(|forge| forge.token.is_some());
        let own = self.is_installed(forge, owner) || !token;
        (forge.clone(), own.then(|| owner.clone()))
    }

    /// Calls that sweeps may make in a window.
    pub(crate) fn allowance(&self, forge: &ForgeName, owner: &Login) -> u64 {
        let demand = self.fleet.forges.get(forge).map(|forge| forge.demand).unwrap_or_default();
        let limit = self.purse(forge, owner).map_or(LIMIT_LEAST, |purse| purse.limit);
        match demand.budget {
            Allowance::Share(percent) => (limit * u64::from(percent) / 100).max(1),
            Allowance::Calls(calls) => u64::from(calls),
        }
    }

    /// How long sweeps must rest after so many calls to stay within their allowance.
    pub(crate) fn worth(&self, forge: &ForgeName, owner: &Login, calls: u32) -> Duration {
        let millis = WINDOW.as_secs() * 1000 * u64::from(calls) / self.allowance(forge, owner);
        Duration::from_millis(millis)
    }

    /// Until when the sweeps of a purse rest.
    pub(crate) fn rests_until(&self, purse: &PurseKey) -> Timestamp {
        self.rests.get(purse).copied().unwrap_or_default()
    }
}

impl Credential {
    /// The account it is installed at.
    pub fn owner(&self) -> Option<&Login> {
        match self {
            Self::App { owner, .. } => owner.as_ref(),
            Self::Token => None,
        }
    }
}
