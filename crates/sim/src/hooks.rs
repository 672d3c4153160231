//! The virtual forge's hooks: deliveries that failed are kept, listed when asked, and made again when
//! asked, as they were.

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_core::Timestamp;
use remuda_core::action::Redeliver;
use remuda_core::controller::Rules;
use remuda_core::hook::{FailedDelivery, HookKey};
use remuda_core::observation::Observation;
use remuda_core::tenant::Scope;

use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::run::{Event, World};

/// Most failed deliveries on one page of a listing.
const PAGE: usize = 2;
/// So often in a row may a delivery fail: the forge gives up repeating one after some more.
const FAILS_MAX: usize = 3;
/// Most orders to repeat one delivery that the forge bears: those before it is given up, and as many by
/// controllers that died before they heard of it.
const ORDERS_BORNE: u32 = 20;

/// A delivery of which no attempt has succeeded.
#[derive(Debug)]
struct Failed {
    seen: Observation,
    scope: Scope,
    /// Each attempt and when it failed.
    attempts: Vec<(u64, Timestamp)>,
}

/// What the forge knows of its deliveries.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    /// No listing of jobs tells of those whose delivery failed.
    pub(crate) alone: bool,
    next: u64,
    failed: BTreeMap<u64, Failed>,
    ordered: BTreeMap<u64, u32>,
}

impl Hooks {
    /// The number of a new delivery.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// True if an attempt may fail once more.
    pub(crate) fn may_fail(&self, guid: u64) -> bool {
        self.failed.get(&guid).is_none_or(|failed| failed.attempts.len() < FAILS_MAX)
    }

    /// An attempt failed.
    pub(crate) fn fails(&mut self, guid: u64, seen: &Observation, now: Timestamp) {
        let Observation::Job(job) = seen else { return };
        let attempt = self.number();
        let scope = job.scope.clone();
        let failed = || Failed { seen: seen.clone(), scope, attempts: Vec::new() };
        self.failed.entry(guid).or_insert_with(failed).attempts.push((attempt, now));
    }

    /// An attempt succeeded.
    pub(crate) fn succeeds(&mut self, guid: u64) {
        self.failed.remove(&guid);
    }

    /// A page of what failed since then, the latest first.
    fn list(
        &self,
        hook: &HookKey,
        (since, as_of): (Timestamp, Timestamp),
        from: Option<u64>,
    ) -> (Vec<FailedDelivery>, Option<Arc<str>>) {
        let HookKey::Own { scope, .. } = hook else { return (Vec::new(), None) };
        let here = self.failed.iter().filter(|(_, failed)| failed.scope == *scope);
        let listed = here.filter_map(|(guid, failed)| {
            let told = failed.attempts.iter().filter(|(_, at)| *at <= as_of);
            let (id, failed_at) = told.clone().next_back().copied()?;
            let attempts = u32::try_from(told.count()).unwrap_or(u32::MAX);
            let guid = guid.to_string().into();
            Some(FailedDelivery { guid, id, attempts, failed_at })
        });
        let mut all: Vec<_> = listed
            .filter(|one| one.failed_at >= since && from.is_none_or(|from| one.id < from))
            .collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.id));
        let more = all.len() > PAGE;
        all.truncate(PAGE);
        let next = all.last().filter(|_| more).map(|last| last.id.to_string().into());
        (all, next)
    }
}

impl<R: Rules + Clone> World<R> {
    /// The failed deliveries of a hook, by the clock of who asks.
    pub(crate) fn list_failed(
        &mut self,
        replica: usize,
        hook: &HookKey,
        (since, from): (Timestamp, Option<&str>),
        as_of: Timestamp,
    ) -> (Vec<FailedDelivery>, Option<Arc<str>>) {
        let ahead = self.clock(replica).as_millis() - self.now.as_millis();
        let since = Timestamp::from_millis(since.as_millis() - ahead);
        let from = from.and_then(|from| from.parse().ok());
        let (mut all, next) = self.hooks.list(hook, (since, as_of), from);
        for one in &mut all {
            one.failed_at = Timestamp::from_millis(one.failed_at.as_millis() + ahead);
        }
        if next.is_some() {
            self.mark(Mark::DeliveriesPaged);
        }
        (all, next)
    }

    /// The forge makes a delivery again, as it was.
    pub(crate) fn redeliver(&mut self, call: &Redeliver) -> Verdict {
        let Ok(guid) = call.guid.parse::<u64>() else { return Ok(()) };
        let ordered = self.hooks.ordered.entry(guid).or_default();
        *ordered += 1;
        if *ordered > ORDERS_BORNE {
            return Err(format!("delivery {guid} was asked for {ordered} times"));
        }
        let Some(failed) = self.hooks.failed.get(&guid) else { return Ok(()) };
        let seen = Box::new(failed.seen.clone());
        self.mark(Mark::Redelivered);
        let lost = self.rng.chance(self.hardship().webhook_lost) && self.hooks.may_fail(guid);
        if lost {
            self.mark(Mark::RedeliveryLost);
            self.hooks.fails(guid, &seen, self.now);
        } else {
            let after = self.rng.span(5, 1500);
            self.at(after, Event::Webhook(guid, seen));
        }
        Ok(())
    }
}
