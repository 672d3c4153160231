//! Hooks whose failed deliveries are asked for again.
//!
//! Nothing of this is stored: the forge's own listing tells which deliveries failed and how often, so a
//! restart costs one more reading of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, Look, Redeliver};
use crate::budget::{Credential, Lane, Purse};
use crate::fleet;
use crate::name::ForgeName;
use crate::observation::{Cause, Subject};
use crate::snapshot::{Change, Looked, Note, Snapshot};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// A hook, by who made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookKey {
    /// The one of an App, by the App's id.
    App(Arc<str>),
    /// An organization's or repository's own.
    Own {
        /// Whose.
        scope: Scope,
        /// The hook's id at the forge.
        id: u64,
    },
}

impl fmt::Display for HookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(id) => write!(f, "the hook of App {id}"),
            Self::Own { scope, id } => write!(f, "hook {id} of {scope}"),
        }
    }
}

/// A delivery of which no attempt succeeded, as the forge listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDelivery {
    /// What all its attempts have in common.
    pub guid: Arc<str>,
    /// The latest attempt.
    pub id: u64,
    /// How many were listed.
    pub attempts: u32,
    /// When the latest failed (our clock).
    pub failed_at: Timestamp,
}

/// What is remembered of such a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Its latest attempt.
    pub id: u64,
    /// How many there were.
    pub attempts: u32,
    /// When the latest failed.
    pub failed_at: Timestamp,
    /// The attempt that was asked to be repeated.
    pub asked: Option<u64>,
}

/// How far the listing of a hook's failed deliveries was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// What failed before this was seen.
    pub seen_to: Timestamp,
    /// What failed before this was seen twice: a listing may come back empty by surprise.
    pub sure_to: Timestamp,
    /// Where a reading that was too long goes on, and when it was begun.
    pub rest: Option<(Arc<str>, Timestamp)>,
    /// When a delivery was last asked for again.
    pub asked_at: Option<Timestamp>,
}

/// A delivery is listed when it has ended; GitHub waits 10 s for an answer, Enterprise Server 30 s.
const OVERLAP: Duration = Duration::from_mins(5);
/// Between two deliveries of a hook that are asked for: GitHub admits some eighty such calls a minute.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many attempts a delivery is given up: sweeps will tell.
pub const ATTEMPTS_MAX: u32 = 5;
/// The first wait after a repeated attempt failed too; four times as long after each further one.
const AGAIN: Duration = Duration::from_mins(2);
/// Most failed deliveries remembered of one hook.
const REMEMBERED_MAX: usize = 5000;

impl fleet::Forge {
    /// The hooks whose failed deliveries are asked for again.
    pub fn watched_hooks(&self) -> Vec<HookKey> {
        let apps = self.apps.iter().filter(|app| !app.webhook_secrets.is_empty());
        let apps = apps.map(|app| HookKey::App(app.id.as_str().into()));
        let own = self
            .hooks
            .iter()
            .filter_map(|hook| Some(HookKey::Own { scope: hook.scope.clone()?, id: hook.id? }));
        apps.chain(own).collect()
    }

    /// How long the forge can repeat a delivery: 3 days on github.com, 7 on Enterprise Server
    /// (docs.github.com, "Redelivering webhooks").
    pub fn redelivery_window(&self) -> Duration {
        Duration::from_hours(if self.api.ends_with("/api/v3") { 7 * 24 } else { 3 * 24 })
    }
}

/// What is due: listings of failed deliveries, and of each hook one delivery to ask for again.
pub(crate) fn due(world: &Snapshot, patient: impl Fn(&Subject) -> bool) -> Vec<Action> {
    let mut due = Vec::new();
    for forge in world.fleet.forges.values() {
        let Some(every) = forge.demand.redelivery else { continue };
        for hook in forge.watched_hooks() {
            if !affords(world, &forge.name, &hook) {
                continue;
            }
            due.extend(again(world, &forge.name, &hook, &patient).map(Action::Redeliver));
            let subject = Subject::Deliveries(forge.name.clone(), hook.clone());
            let watch = world.watch(&forge.name, &hook);
            let asked_at = world.looked(&subject).asked_at;
            let rested = asked_at.is_none_or(|at| world.now >= at + every);
            if patient(&subject) && (rested || watch.rest.is_some()) {
                let horizon = world.now - forge.redelivery_window();
                let since = horizon.max(watch.sure_to - OVERLAP);
                let from = watch.rest.map(|(from, _)| from);
                let forge = forge.name.clone();
                due.push(Action::Look(Look::Deliveries { forge, hook, since, from }));
            }
        }
    }
    due
}

/// True if there are calls left for the lowest lane.
fn affords(world: &Snapshot, forge: &ForgeName, hook: &HookKey) -> bool {
    let purse = match hook {
        HookKey::Own { scope, .. } => world.purse(forge, scope.owner()),
        HookKey::App(id) => {
            let itself = (forge.clone(), Credential::App { id: id.clone(), owner: None });
            world.budgets.get(&itself).map(|budget| {
                let mut purse = Purse::default();
                purse.add(budget, world.now);
                purse
            })
        }
    };
    purse.is_none_or(|purse| purse.spendable(Lane::Redelivery) > 0)
}

/// The delivery of a hook to ask for now. The newest first: a job's end before its beginning, so that
/// what is over is not begun.
fn again(
    world: &Snapshot,
    forge: &ForgeName,
    hook: &HookKey,
    patient: &impl Fn(&Subject) -> bool,
) -> Option<Redeliver> {
    let rested = world.watch(forge, hook).asked_at.is_none_or(|at| world.now >= at + PAUSE);
    let all = world.undelivered.get(&(forge.clone(), hook.clone())).filter(|_| rested)?;
    let due = all.iter().filter(|(_, failed)| {
        let pause = match failed.attempts.checked_sub(2) {
            None => Duration::ZERO,
            Some(more) => AGAIN * 4_u32.pow(more.min(8)),
        };
        failed.asked != Some(failed.id)
            && failed.attempts <= ATTEMPTS_MAX
            && world.now >= failed.failed_at + pause
    });
    let call = |(guid, failed): (&Arc<str>, &Undelivered)| Redeliver {
        forge: forge.clone(),
        hook: hook.clone(),
        guid: guid.clone(),
        id: failed.id,
    };
    let mut due: Vec<_> = due.collect();
    due.sort_by_key(|(_, failed)| std::cmp::Reverse((failed.failed_at, failed.id)));
    due.into_iter().map(call).find(|call| patient(&call.subject()))
}

/// The failed deliveries of a hook were listed, or a part of them.
pub(crate) fn listed(
    world: &Snapshot,
    (forge, hook): (&ForgeName, &HookKey),
    asked_at: Timestamp,
    failed: &[FailedDelivery],
    next: Option<&Arc<str>>,
) -> Vec<Change> {
    let old = world.watch(forge, hook);
    let begun = old.rest.as_ref().map_or(asked_at, |(_, begun)| *begun);
    let watch = Watch {
        seen_to: if next.is_none() { begun } else { old.seen_to },
        sure_to: if next.is_none() { old.seen_to } else { old.sure_to },
        rest: next.map(|next| (next.clone(), begun)),
        ..old
    };
    let subject = Subject::Deliveries(forge.clone(), hook.clone());
    let looked = Looked { asked_at: Some(asked_at), ..Looked::default() };
    let mut changes = vec![
        Change::Looked(subject, looked),
        Change::Note(Note::Watched(forge.clone(), hook.clone(), watch)),
    ];
    let nothing = BTreeMap::new();
    let known = world.undelivered.get(&(forge.clone(), hook.clone())).unwrap_or(&nothing);
    let note = |guid: &Arc<str>, value| {
        Change::Note(Note::Undelivered(forge.clone(), hook.clone(), guid.clone(), value))
    };
    for delivery in failed {
        let old = known.get(&delivery.guid);
        if old.is_some_and(|old| old.id == delivery.id || old.failed_at > delivery.failed_at) {
            continue;
        }
        let attempts = old.map_or(0, |old| old.attempts + 1).max(delivery.attempts);
        let asked = old.and_then(|old| old.asked);
        let (id, failed_at) = (delivery.id, delivery.failed_at);
        let row = Undelivered { id, attempts, failed_at, asked };
        changes.push(note(&delivery.guid, Some(row)));
    }
    let window = world.fleet.forges.get(forge).map(fleet::Forge::redelivery_window);
    let horizon = world.now - window.unwrap_or_default();
    let mut by_age: Vec<_> = known.iter().map(|(guid, row)| (row.failed_at, guid)).collect();
    by_age.sort();
    let surplus = (known.len() + failed.len()).saturating_sub(REMEMBERED_MAX);
    let past =
        |(index, (at, _)): &(usize, (Timestamp, &Arc<str>))| *at < horizon || *index < surplus;
    let fresh = |guid: &Arc<str>| failed.iter().any(|delivery| delivery.guid == *guid);
    let old = by_age.into_iter().enumerate().take_while(past).map(|(_, (_, guid))| guid);
    changes.extend(old.filter(|guid| !fresh(guid)).map(|guid| note(guid, None)));
    changes
}

/// The forge took the order to deliver again.
pub(crate) fn redelivered(
    world: &Snapshot,
    forge: &ForgeName,
    hook: &HookKey,
    guid: &Arc<str>,
) -> Vec<Change> {
    let subject = Subject::Redelivery(forge.clone(), hook.clone(), guid.clone());
    let mut changes = vec![Change::Looked(subject, Looked::default())];
    changes.extend(was_asked(world, forge, hook, guid));
    changes.push(rests(world, forge, hook));
    changes
}

/// An order to deliver again failed. One that the forge will never take is not given again.
pub(crate) fn refused(world: &Snapshot, subject: &Subject, cause: Cause) -> Vec<Change> {
    let Subject::Redelivery(forge, hook, guid) = subject else { return Vec::new() };
    let mut changes = vec![rests(world, forge, hook)];
    if cause == Cause::Invalid {
        changes.push(Change::Looked(subject.clone(), Looked::default()));
        changes.extend(was_asked(world, forge, hook, guid));
    }
    changes
}

fn rests(world: &Snapshot, forge: &ForgeName, hook: &HookKey) -> Change {
    let watch = Watch { asked_at: Some(world.now), ..world.watch(forge, hook) };
    Change::Note(Note::Watched(forge.clone(), hook.clone(), watch))
}

fn was_asked(
    world: &Snapshot,
    forge: &ForgeName,
    hook: &HookKey,
    guid: &Arc<str>,
) -> Option<Change> {
    let row = world.undelivered.get(&(forge.clone(), hook.clone()))?.get(guid)?;
    let row = Undelivered { asked: Some(row.id), ..row.clone() };
    Some(Change::Note(Note::Undelivered(forge.clone(), hook.clone(), guid.clone(), Some(row))))
}

impl Snapshot {
    /// How far a hook's failed deliveries were read.
    pub fn watch(&self, forge: &ForgeName, hook: &HookKey) -> Watch {
        self.hooks.get(&(forge.clone(), hook.clone())).cloned().unwrap_or_default()
    }

    /// What is remembered of a hook's failed deliveries.
    pub fn undelivered_of(
        &self,
        forge: &ForgeName,
        hook: &HookKey,
    ) -> impl Iterator<Item = (&Arc<str>, &Undelivered)> {
        self.undelivered.get(&(forge.clone(), hook.clone())).into_iter().flatten()
    }

    /// Deliveries that failed and have neither been asked for again nor given up.
    pub fn undelivered(&self) -> impl Iterator<Item = &Undelivered> {
        let all = self.undelivered.values().flat_map(|of_hook| of_hook.values());
        all.filter(|row| row.asked != Some(row.id) && row.attempts <= ATTEMPTS_MAX)
    }
}
