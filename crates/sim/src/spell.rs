//! Spells: for a while every runner of a pool, an image or a node dies as it boots.

use std::time::Duration;

use remuda_core::controller::Rules;
use remuda_core::fleet::Quarantine;
use remuda_core::health::is_quarantine;
use remuda_core::reason::BackoffKey;
use remuda_core::runner::{InstanceId, Runner, RunnerState};
use remuda_core::snapshot::{Backoff, Change, Proof};
use remuda_core::{Action, Snapshot, Timestamp};

use crate::estate;
use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::run::{Event, World};
use crate::truth::TrueInstance;

/// The first wait in quarantine.
const FIRST: Duration = Duration::from_mins(5);
/// Launches that may be under way when the first of their runners dies, and some for what counts for
/// nothing: answers that are lost, books that know of one node only.
const UNDER_WAY: u32 = 5;

/// A runner that was launched longer ago than this before the first failure proves nothing: five minutes,
/// by clocks that are off.
const YOUNG: Duration = Duration::from_mins(15);

/// What is bad.
#[derive(Debug, Default)]
pub(crate) struct Spell {
    bad: Option<BackoffKey>,
    from: Timestamp,
    until: Timestamp,
    /// Runners that it killed.
    killed: u32,
    /// How often a runner made shortly before may get or end a job, which forgives what has failed.
    forgiven: u32,
}

impl Spell {
    /// True if an instance is a victim.
    fn strikes(&self, one: &TrueInstance, now: Timestamp) -> bool {
        let image = || estate::fleet().pools.get(&one.pool).map(|pool| pool.image.clone());
        now < self.until
            && match &self.bad {
                Some(BackoffKey::Pool(pool)) => one.pool == *pool,
                Some(BackoffKey::Image(name)) => image().as_ref() == Some(name),
                Some(BackoffKey::Node(provider, node)) => {
                    one.provider == *provider && one.node == *node
                }
                Some(BackoffKey::Provider(_) | BackoffKey::Scope(..)) | None => false,
            }
    }

    /// True while something is bad, or may rightly still be in quarantine.
    pub(crate) fn lingers(&self, now: Timestamp) -> bool {
        self.bad.is_some() && now < self.until + estate::fleet().quarantine.longest + FIRST
    }

    /// What fails is tried ever more seldom: some times in a row, then in quarantine one at a time.
    fn is_patient(&self, now: Timestamp) -> bool {
        let Quarantine { after, longest } = estate::fleet().quarantine;
        let lasted = now.since(self.from);
        let (mut wait, mut passed, mut tried) = (FIRST, Duration::ZERO, 0);
        while passed <= lasted {
            passed += wait;
            wait = longest.min(wait * 2);
            tried += 1;
        }
        // A pool is to blame where two nodes are, an image where two pools are.
        self.killed <= (UNDER_WAY + 2 * after + tried) * (1 + self.forgiven)
    }
}

impl<R: Rules + Clone> World<R> {
    /// Something may begin to be bad, as a job arrives.
    pub(crate) fn begin_spell(&mut self) {
        if !self.rng.chance(self.hardship().goes_bad) || self.now < self.spell.until {
            return;
        }
        let fleet = estate::fleet();
        let pools: Vec<_> = fleet.pools.values().collect();
        let Some(pool) = self.rng.pick(&pools) else { return };
        let (bad, mark) = match self.rng.below(3) {
            0 => {
                let nodes = estate::nodes(&pool.provider);
                let Some(node) = self.rng.pick(&nodes.iter().collect::<Vec<_>>()) else { return };
                (BackoffKey::Node(pool.provider.clone(), node.clone()), Mark::NodeBad)
            }
            1 => (BackoffKey::Image(pool.image.clone()), Mark::ImageBad),
            _ => (BackoffKey::Pool(pool.name.clone()), Mark::PoolBad),
        };
        self.mark(mark);
        self.note(|| format!("{bad} is bad"));
        let span = self.rng.span(600_000, 7_200_000);
        let until = (self.now + span).min(self.calm_from());
        self.spell = Spell { bad: Some(bad), from: self.now, until, killed: 0, forgiven: 0 };
        let young = |one: &&TrueInstance| {
            one.made_at + YOUNG > self.now && self.spell.strikes(one, self.now)
        };
        let young = self.truth.instances.values().filter(young).count();
        self.spell.forgiven = 2 * u32::try_from(young).unwrap_or(0);
    }

    /// True if an instance dies in its boot, because of what is bad.
    pub(crate) fn bewitched(&mut self, id: InstanceId) -> bool {
        let Some(one) = self.truth.instances.get(&id) else { return false };
        if !self.spell.strikes(one, self.now) {
            return false;
        }
        self.spell.killed += u32::from(!one.late);
        self.waste += 1;
        let after = self.rng.span(500, 10_000);
        self.at(after, Event::Exit(id, 1));
        true
    }

    /// What keeps dying is not made again and again.
    pub(crate) fn tried_seldom(&self) -> Verdict {
        if self.spell.is_patient(self.now) {
            return Ok(());
        }
        Err(format!(
            "{} runners were made for {:?}, which kills all",
            self.spell.killed, self.spell.bad
        ))
    }
}

/// Of the calls of a turn: nothing is launched where failures are waited out.
pub(crate) fn waited_out(books: &Snapshot, now: Timestamp, actions: &[Action]) -> Verdict {
    for action in actions {
        let Action::Launch(launch) = action else { continue };
        let (Some(runner), Some(instance)) =
            (books.runner(launch.runner), books.instance(launch.instance))
        else {
            continue;
        };
        let keys = BackoffKey::of(runner, instance, books.fleet.pools.get(&runner.pool));
        let waits = |key: &BackoffKey| {
            books.backoffs().any(|(known, backoff)| known == key && backoff.until > now)
        };
        if let Some(key) = keys.iter().find(|key| waits(key)) {
            return Err(format!("runner {} is launched in a back-off of {key:?}", launch.runner));
        }
    }
    Ok(())
}

/// Of a batch, by the books before it and the world after it: what is in quarantine is tried with one
/// runner at a time, and leaves it when one that is new enough has a job, and then only.
pub(crate) fn quarantined(books: &Snapshot, world: &Snapshot, changes: &[Change]) -> Verdict {
    for change in changes {
        if let Change::Backoff(key, None) = change
            && let Some((_, backoff)) = books.backoffs().find(|(known, _)| *known == key)
            && is_quarantine(books, key, backoff)
        {
            let proves = |change: &Change| proves(world, key, backoff, change);
            if !changes.iter().any(proves) {
                return Err(format!("{key} left quarantine and nothing proved it"));
            }
        } else if let Change::Runner(row) = change
            && let Some(key) = unproven(books, world, row)
        {
            return Err(format!("{key} is in quarantine though runner {} has a job", row.id));
        }
    }
    let quarantined = world.backoffs().filter(|(key, backoff)| is_quarantine(world, key, backoff));
    for (key, backoff) in quarantined {
        let tried = world.active_runners().filter(|row| {
            row.state < RunnerState::Idle
                && launched_at(world, row).is_some_and(|at| at > backoff.failed_at)
                && concerns(world, row, key)
        });
        if tried.count() > 1 {
            return Err(format!("{key} is in quarantine and tried with several runners"));
        }
    }
    Ok(())
}

fn concerns(world: &Snapshot, row: &Runner, key: &BackoffKey) -> bool {
    let pool = world.fleet.pools.get(&row.pool);
    let instance = world.instance(row.instance);
    instance.is_some_and(|instance| BackoffKey::of(row, instance, pool).contains(key))
}

fn launched_at(world: &Snapshot, row: &Runner) -> Option<Timestamp> {
    Some(world.instance(row.instance)?.launch?.at)
}

fn proves(world: &Snapshot, key: &BackoffKey, backoff: &Backoff, change: &Change) -> bool {
    let Change::Runner(row) = change else { return false };
    let young = launched_at(world, row).is_some_and(|at| at + YOUNG >= backoff.since);
    row.job.is_some() && concerns(world, row, key) && (young || backoff.proof == Proof::End)
}

/// What is in quarantine although a runner made after its last failure has just got a job.
fn unproven<'a>(books: &Snapshot, world: &'a Snapshot, row: &Runner) -> Option<&'a BackoffKey> {
    let old = books.runner(row.id).map(|old| old.state);
    if row.job.is_none() || row.state != RunnerState::Busy || old == Some(RunnerState::Busy) {
        return None;
    }
    let launched_at = launched_at(world, row)?;
    let all = world.backoffs().filter(|(key, backoff)| {
        is_quarantine(world, key, backoff)
            && backoff.proof == Proof::Job
            && backoff.failed_at < launched_at
            && concerns(world, row, key)
    });
    all.map(|(key, _)| key).next()
}
