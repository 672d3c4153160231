//! Whose turn it is: runners by tenant, and the order in which tenants' jobs are served.
//!
//! One total order over the jobs that ask, by these in turn:
//!
//! 1. jobs that are *overdue*: they have waited for their tenant's turn at least
//!    `PATIENCE · (1 + held / weight)`; the longest waiting first;
//! 2. jobs of tenants that hold fewer runners than their floor;
//! 3. jobs of the tenant that holds the least for its weight, `held / weight`;
//! 4. the job that has waited the longest for its tenant's turn;
//! 5. queued-at, then the job's key.
//!
//! `held` counts the tenant's runners that are not gone, and those that this plan has made. A job waits
//! for its tenant's turn since it was queued, or since the tenant last got a runner, whichever is later.
//!
//! **The bound.** Let `h` be the runners that a tenant holds, `w` its weight, `n` the number of other
//! tenants that ask for the same place, and `g` the longest time between two openings of such a place.
//! A tenant below its cap then waits for its next turn no longer than
//!
//! ```text
//! PATIENCE · (1 + h / w) + (n + 1) · g
//! ```
//!
//! because once its oldest job is overdue, only tenants that have waited longer come before it, and
//! each of them only once: a turn ends its waiting. How many jobs the others have does not matter. The
//! k-th job of a tenant starts within k turns.
//!
//! What this cannot do: the forge hands any idle runner to any job that matches in its dispatch domain.
//! Which of a tenant's own jobs gets the runner that was made is not ours to say.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::fleet::Terms;
use crate::job::JobKey;
use crate::name::{ForgeName, Login};
use crate::reason::Reason;
use crate::runner::Runner;
use crate::snapshot::{Change, Snapshot};
use crate::tenant::{OwnerKind, Scope, TenantKey};
use crate::time::Timestamp;

/// How long a job of a tenant that holds nothing waits before it comes before floors and shares.
pub const PATIENCE: Duration = Duration::from_hours(1);

/// A tenant's number within one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account(usize);

/// What the order of service needs to know of a tenant.
struct Standing<'a> {
    /// None if it was never met: something is known of its scope only.
    key: Option<&'a TenantKey>,
    terms: Terms,
    held: u32,
    served_at: Option<Timestamp>,
    /// It got a runner in this plan.
    turned: bool,
}

/// Everybody's runners, counted once and kept up to date while planning.
pub(super) struct Turns<'a> {
    world: &'a Snapshot,
    standings: Vec<Standing<'a>>,
    by_key: BTreeMap<&'a TenantKey, Account>,
    by_scope: BTreeMap<(&'a ForgeName, &'a Scope), Account>,
    /// Tenants by the login they bear now, and by those they have borne.
    bearers: BTreeMap<(&'a ForgeName, &'a Login), Vec<(bool, &'a TenantKey)>>,
}

/// Where a job stands in the order of service: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    group: Group,
    share: Share,
    since: Timestamp,
    queued_at: Timestamp,
    job: &'a JobKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Overdue,
    BelowFloor,
    Sharing,
}

/// Runners for a weight, compared without division.
#[derive(Clone, Copy, Debug)]
struct Share {
    held: u32,
    weight: u32,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let across = |held: u32, weight: u32| u64::from(held) * u64::from(weight);
        across(self.held, other.weight).cmp(&across(other.held, self.weight))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

impl<'a> Turns<'a> {
    pub(super) fn new(world: &'a Snapshot) -> Self {
        let mut bearers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for met in world.tenants() {
            let (forge, key) = (&met.tenant.key.forge, &met.tenant.key);
            let now = &met.tenant.login;
            bearers.entry((forge, now)).or_default().push((true, key));
            for login in met.logins.iter().filter(|login| *login != now) {
                bearers.entry((forge, login)).or_default().push((false, key));
            }
        }
        let (standings, by_key, by_scope) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut turns = Self { world, standings, by_key, by_scope, bearers };
        for runner in world.active_runners() {
            let account = turns.of_runner(runner);
            turns.standings[account.0].held += 1;
        }
        turns
    }

    /// Whose runner it is: whose job it has, or else who owns the scope it registers in.
    fn of_runner(&mut self, runner: &'a Runner) -> Account {
        match runner.job.as_ref().and_then(|job| self.world.job(job)) {
            Some(job) => self.of(&job.tenant),
            None => self.of_scope(&runner.forge, &runner.scope),
        }
    }

    /// A tenant that has a job.
    pub(super) fn of(&mut self, key: &'a TenantKey) -> Account {
        if let Some(known) = self.by_key.get(key) {
            return *known;
        }
        let met = self.world.tenants.get(key);
        let terms = self.world.fleet.tenants.terms(key, met);
        let account = self.add(Some(key), terms, met.and_then(|met| met.served_at));
        self.by_key.insert(key, account);
        account
    }

    /// Who owns a scope, as far as its login tells.
    pub(super) fn of_scope(&mut self, forge: &'a ForgeName, scope: &'a Scope) -> Account {
        if let Some(known) = self.by_scope.get(&(forge, scope)) {
            return *known;
        }
        let fits = |kind: OwnerKind| match scope {
            Scope::Organization(_) => kind == OwnerKind::Organization,
            Scope::Repository(_) => kind != OwnerKind::Enterprise,
            Scope::Enterprise(_) => kind == OwnerKind::Enterprise,
        };
        let bearers = self.bearers.get(&(forge, scope.owner())).into_iter().flatten();
        let bearer = bearers.filter(|(_, key)| fits(key.kind)).max_by_key(|(now, _)| *now);
        let account = match bearer {
            Some((_, key)) => self.of(key),
            None => self.add(None, self.world.fleet.tenants.terms_of(forge, scope.owner()), None),
        };
        self.by_scope.insert((forge, scope), account);
        account
    }

    fn add(
        &mut self,
        key: Option<&'a TenantKey>,
        terms: Terms,
        served_at: Option<Timestamp>,
    ) -> Account {
        self.standings.push(Standing { key, terms, held: 0, served_at, turned: false });
        Account(self.standings.len() - 1)
    }

    /// Where the tenant's job stands in the order of service, as things are now.
    pub(super) fn place(
        &self,
        account: Account,
        queued_at: Timestamp,
        job: &'a JobKey,
    ) -> Place<'a> {
        let Standing { terms, held, served_at, .. } = &self.standings[account.0];
        let since = served_at.map_or(queued_at, |served_at| served_at.max(queued_at));
        let (held, weight) = (*held, terms.weight);
        let waited = self.world.now.since(since).as_millis() * u128::from(weight);
        let patience = PATIENCE.as_millis() * (u128::from(weight) + u128::from(held));
        let (group, share) = if waited >= patience {
            (Group::Overdue, Share { held: 0, weight: 1 })
        } else if held < terms.floor {
            (Group::BelowFloor, Share { held, weight })
        } else {
            (Group::Sharing, Share { held, weight })
        };
        Place { group, share, since, queued_at, job }
    }

    /// The cap that forbids the tenant one more runner, if it does.
    pub(super) fn at_cap(&self, account: Account) -> Option<u32> {
        let Standing { terms, held, .. } = &self.standings[account.0];
        (*held >= terms.cap).then_some(terms.cap)
    }

    /// The same, as a reason for a job of the tenant.
    pub(super) fn capped(&self, account: Account) -> Option<Reason> {
        let tenant = self.standings[account.0].key?.clone();
        self.at_cap(account).map(|cap| Reason::TenantAtCap { tenant, cap })
    }

    /// Counts one more runner of the tenant's.
    pub(super) fn hold(&mut self, account: Account) {
        self.standings[account.0].held += 1;
    }

    /// The tenant has had its turn.
    pub(super) fn turn(&mut self, account: Account) {
        let standing = &mut self.standings[account.0];
        standing.served_at = Some(self.world.now);
        standing.turned = true;
    }

    /// What is to be remembered of this plan's turns.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        let turned = self.standings.iter().filter(|standing| standing.turned);
        let met = turned.filter_map(|standing| {
            let mut met = self.world.tenants.get(standing.key?)?.clone();
            met.served_at = standing.served_at;
            Some(met)
        });
        met.map(|met| Change::Tenant(Box::new(met)))
    }
}
