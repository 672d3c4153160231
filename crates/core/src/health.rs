//! What keeps failing: how long it is left alone, when it is in quarantine, and what shows that it works
//! again.
//!
//! A failure is blamed on the narrowest thing that explains it: the node; the pool, if another node fails
//! too or the pool failed before; the image as well, if another of its pools fails too. What a job does to
//! its own runner is blamed on nothing wider than the node, or any tenant could put a pool in quarantine.

use std::sync::Arc;
use std::time::Duration;

use crate::name::NodeName;
use crate::pool::Limits;
use crate::reason::{BackoffKey, DrainKey, Reason};
use crate::runner::{Instance, Outcome, Runner, RunnerState};
use crate::snapshot::{Backoff, Change, EARLIER_MAX, Proof, Snapshot};
use crate::time::Timestamp;

/// The first wait after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
/// The longest wait after failures of what is not in quarantine, and the first of what is.
const BACKOFF_LONGEST: Duration = Duration::from_mins(5);
/// A back-off that nothing has met again for this long is forgotten.
const BACKOFF_KEPT: Duration = Duration::from_hours(24);

/// The exit code of a runner whose version the forge refuses: actions/runner, `Constants.Runner.ReturnCode`,
/// with `ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE`.
const OUTDATED: i32 = 7;

/// How long to wait after this many failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    BACKOFF_LONGEST.min(doubled(BACKOFF_FIRST, failures.saturating_sub(1)))
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.pow(times.min(16)))
}

fn pause(world: &Snapshot, key: &BackoffKey, failures: u32) -> Duration {
    let quarantine = &world.fleet.quarantine;
    if key.can_be_quarantined() && failures >= quarantine.after {
        let over = failures - quarantine.after;
        quarantine.longest.min(doubled(BACKOFF_LONGEST, over))
    } else {
        backoff(failures)
    }
}

/// A failure, as far as it decides how long its cause is left alone.
pub(crate) struct Failure<'a> {
    /// For people.
    pub because: &'a Arc<str>,
    /// It is no fault: there is only no room, or no patience.
    pub full: bool,
    /// Trying again cannot help before a person has acted.
    pub certain: bool,
    /// When the launch that failed was begun.
    pub begun_at: Option<Timestamp>,
    /// What would disprove it.
    pub proof: Proof,
}

/// One more failure of `key`, without waiting on account of those that were under way with it.
pub(crate) fn failed_again(world: &Snapshot, key: BackoffKey, failure: &Failure<'_>) -> Change {
    let Failure { because, full, certain, begun_at, proof } = *failure;
    let old = world.backoffs.get(&key);
    // Launches that were begun together fail together: they count once.
    let together = |old: &Backoff| {
        old.until > world.now || begun_at.is_some_and(|begun_at| begun_at < old.failed_at)
    };
    let counted = old.is_none_or(|old| !together(old));
    let failures = old.map_or(0, |old| old.failures).saturating_add(u32::from(counted)).max(1);
    let failures = if certain { failures.max(world.fleet.quarantine.after) } else { failures };
    let failed_at = old.filter(|_| !counted).map_or(world.now, |old| old.failed_at);
    let since = old.map_or(world.now, |old| old.since);
    let until = match old.filter(|_| !counted) {
        Some(old) => old.until.max(old.failed_at + pause(world, &key, failures)),
        None => world.now + pause(world, &key, failures),
    };
    // What was said to last until an instant does not end sooner because something else failed.
    let stated = old.filter(|old| old.full && old.until >= until);
    let (until, full) = stated.map_or((until, full), |old| (old.until, true));
    let earlier = old.map(|old| causes(old, because)).unwrap_or_default();
    let because = because.clone();
    let backoff = Backoff { failures, since, failed_at, until, because, earlier, proof, full };
    Change::Backoff(key, Some(backoff))
}

/// The causes before `last`, each once, the newest first.
fn causes(old: &Backoff, last: &Arc<str>) -> Vec<Arc<str>> {
    let all = std::iter::once(&old.because).chain(&old.earlier);
    all.filter(|cause| *cause != last).take(EARLIER_MAX).cloned().collect()
}

/// What a runner's end says against the things that made it.
pub(crate) fn failures_of(world: &Snapshot, runner: &Runner, instance: &Instance) -> Vec<Change> {
    let exited_with = instance.exit.and_then(|exit| exit.code);
    let outdated = runner.outcome == Some(Outcome::Died) && exited_with == Some(OUTDATED);
    let because = match runner.outcome {
        Some(Outcome::Died) if outdated => {
            "the forge no longer takes the version of this image's runner: renew the image"
        }
        Some(Outcome::Died) => "a runner ended before it had a job",
        Some(Outcome::NeverOnline) => "a runner did not come online within the boot limit",
        Some(Outcome::LaunchLost) => "a launch was never answered and left nothing behind",
        Some(Outcome::Lost) => "a runner ended or vanished while it had a job",
        Some(
            Outcome::Finished
            | Outcome::Surplus
            | Outcome::Lifetime
            | Outcome::TimedOut
            | Outcome::LaunchFailed
            | Outcome::Ordered,
        )
        | None => return Vec::new(),
    };
    let lost = runner.outcome == Some(Outcome::Lost);
    if lost && exited_with == Some(0) {
        // Only the word of its job's end is missing.
        return Vec::new();
    }
    let proof = if lost { Proof::End } else { Proof::Job };
    let begun_at = instance.launch.map(|launch| launch.at);
    let because = because.into();
    let failure = Failure { because: &because, full: false, certain: outdated, begun_at, proof };
    let image =
        world.fleet.pools.get(&runner.pool).map(|pool| BackoffKey::Image(pool.image.clone()));
    let blamed = match image.filter(|_| outdated) {
        Some(image) => vec![image],
        None => blamed(world, runner, instance),
    };
    let blamed = blamed.into_iter().filter(|key| !lost || matches!(key, BackoffKey::Node(..)));
    blamed.map(|key| failed_again(world, key, &failure)).collect()
}

fn blamed(world: &Snapshot, runner: &Runner, instance: &Instance) -> Vec<BackoffKey> {
    let mut all = Vec::new();
    let pool = BackoffKey::Pool(runner.pool.clone());
    if let Some(node) = instance.node.as_ref().filter(|node| has_others(world, instance, node)) {
        all.push(BackoffKey::Node(instance.provider.clone(), node.clone()));
        let another_fails = world.backoffs().any(|(key, _)| match key {
            BackoffKey::Node(provider, other) => *provider == instance.provider && other != node,
            BackoffKey::Pool(_)
            | BackoffKey::Provider(_)
            | BackoffKey::Scope(..)
            | BackoffKey::Image(_) => false,
        });
        // Other pools may prove each of its nodes in turn, and none of them proves this pool.
        if !another_fails && !world.backoffs.contains_key(&pool) {
            return all;
        }
    }
    all.push(pool);
    if let Some(pool) = world.fleet.pools.get(&runner.pool) {
        let alike = world.fleet.pools.values();
        let mut alike = alike.filter(|other| other.image == pool.image && other.name != pool.name);
        if alike.any(|other| world.backoffs.contains_key(&BackoffKey::Pool(other.name.clone()))) {
            all.push(BackoffKey::Image(pool.image.clone()));
        }
    }
    all
}

/// True if the instance's provider names other nodes too that are open: a node that is all there is
/// stands for nothing of its own.
fn has_others(world: &Snapshot, instance: &Instance, node: &NodeName) -> bool {
    let provider = &instance.provider;
    let is_open =
        |other: &NodeName| world.drain(&DrainKey::Node(provider.clone(), other.clone())).is_none();
    let capacity = world.capacity.get(provider);
    capacity.is_some_and(|all| all.nodes.keys().any(|other| other != node && is_open(other)))
}

/// A runner got as far as `proof`: failures that this disproves are over. That it came online proves
/// nothing: what ends right after would be made again and again without a growing wait. Nor does one that
/// was launched longer before the first of the failures than a boot may take, where boots are what fails.
pub(crate) fn proven(world: &Snapshot, runner: &Runner, proof: Proof) -> Vec<Change> {
    if world.backoffs.is_empty() {
        return Vec::new();
    }
    let Some(instance) = world.instance(runner.instance) else { return Vec::new() };
    let pool = world.fleet.pools.get(&runner.pool);
    let boot = pool.map_or_else(Limits::default, |pool| pool.limits).boot;
    let is_new = |since| instance.launch.is_none_or(|launch| launch.at + boot >= since);
    let disproved = |key: &BackoffKey| {
        let known = world.backoffs.get(key).filter(|old| old.proof <= proof);
        let known = known.filter(|old| old.proof == Proof::End || is_new(old.since));
        key.can_be_quarantined() && known.is_some()
    };
    let keys = BackoffKey::of(runner, instance, pool).into_iter().filter(disproved);
    keys.map(|key| Change::Backoff(key, None)).collect()
}

/// True if a runner is one that something in a back-off is being tried with.
pub(crate) fn tries(world: &Snapshot, key: &BackoffKey, runner: &Runner) -> bool {
    let Some(backoff) = world.backoffs.get(key) else { return false };
    if !is_quarantine(world, key, backoff) {
        return runner.state < RunnerState::Idle;
    }
    // One that idles on for want of a job must not stand in the way of the jobs of others.
    let idles = |at: Timestamp| world.now >= at + BACKOFF_LONGEST;
    match backoff.proof {
        Proof::Job => {
            runner.state.is_supply() && !runner.since.at(RunnerState::Idle).is_some_and(idles)
        }
        Proof::End => runner.state <= RunnerState::Busy,
    }
}

/// True if something has failed so often in a row that it is only tried now and then.
pub fn is_quarantine(world: &Snapshot, key: &BackoffKey, backoff: &Backoff) -> bool {
    let after = world.fleet.quarantine.after;
    key.can_be_quarantined() && !backoff.full && backoff.failures >= after
}

/// What a back-off has against one more runner, where `trying` are under way.
pub(crate) fn obstacle(world: &Snapshot, what: &BackoffKey, trying: u32) -> Option<Reason> {
    let backoff = world.backoffs.get(what)?;
    let (what, until, because) = (what.clone(), backoff.until, backoff.because.clone());
    if until <= world.now {
        return (trying > 0).then_some(Reason::Proving { what });
    }
    Some(if is_quarantine(world, &what, backoff) {
        Reason::Quarantined { what, since: backoff.since, until, because }
    } else {
        Reason::BackingOff { what, until, because }
    })
}

/// Back-offs that concern nothing any more: of what is not declared, of scopes and nodes that nothing has
/// gone to for a day. What is in quarantine stays there.
pub(crate) fn forgotten(world: &Snapshot) -> Vec<Change> {
    let fleet = &world.fleet;
    let idle = |backoff: &Backoff| world.now >= backoff.until + BACKOFF_KEPT;
    let over = |key: &BackoffKey, backoff: &Backoff| match key {
        BackoffKey::Pool(name) => !fleet.pools.contains_key(name),
        BackoffKey::Provider(name) => !fleet.providers.contains_key(name),
        BackoffKey::Image(name) => !fleet.images.contains_key(name),
        BackoffKey::Scope(forge, _) => !fleet.forges.contains_key(forge) || idle(backoff),
        BackoffKey::Node(provider, node) => match world.capacity.get(provider) {
            Some(capacity) => idle(backoff) && !capacity.nodes.contains_key(node),
            None => !fleet.providers.contains_key(provider),
        },
    };
    let over = world.backoffs().filter(|(key, backoff)| over(key, backoff));
    over.map(|(key, _)| Change::Backoff(key.clone(), None)).collect()
}
