//! What looks show: late, as it was a while ago, in part, twice, or of what is not ours.

use remuda_core::Timestamp;
use remuda_core::action::Look;
use remuda_core::controller::Rules;
use remuda_core::job::JobKey;
use remuda_core::observation::{Covered, Observation, Source};

use crate::calls;
use crate::estate;
use crate::marks::Mark;
use crate::replica::Caller;
use crate::run::World;

/// How old a listing may be that a replica shows.
const LAG: std::time::Duration = std::time::Duration::from_mins(1);

/// A look is answered.
pub(crate) fn land<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (Caller, bool),
    look: Look,
    asked_at: Timestamp,
) {
    if calls::look_fails(world, caller.0, &look) {
        return;
    }
    let subject = look.subject();
    let short = world.comes_back_short(&look);
    let lag = world.lag();
    let as_of = world.now - lag;
    let mut fact = match look {
        Look::Job { key, .. } => {
            let fact = read(world, key, asked_at, as_of);
            calls::looked(world, caller, subject, fact);
            return;
        }
        Look::Jobs { forge, scope, .. } => {
            let all = world.truth.list_jobs(&scope, asked_at, as_of);
            Observation::Jobs { forge, scope, asked_at, all, covered: Covered::Whole }
        }
        Look::Deliveries { forge, hook, since, from } => {
            let (replica, back) = (caller.0.replica, (since, from.as_deref()));
            let (failed, next) = world.list_failed(replica, &hook, back, as_of);
            Observation::Deliveries { forge, hook, asked_at, failed, next }
        }
        Look::Runners { forge, scope } => {
            let all = world.truth.list_runners(&scope);
            Observation::Runners { forge, scope, asked_at, all }
        }
        Look::Instances { provider } => {
            let all = world.truth.list_instances(&provider);
            Observation::Instances { provider, asked_at, all }
        }
    };
    if let Some((at, mut old)) = world.outside.lagging.remove(&subject)
        && short == 0
        && world.now.since(at) <= LAG
        && world.may_surprise(&subject)
    {
        if let Observation::Runners { asked_at: at, .. }
        | Observation::Instances { asked_at: at, .. } = &mut old
        {
            *at = asked_at;
        }
        let ago = world.now.since(at);
        world.note(|| format!("{subject:?} are told of as {ago:?} ago"));
        fact = old;
    } else if !lag.is_zero()
        && !matches!(fact, Observation::Jobs { .. } | Observation::Deliveries { .. })
    {
        world.outside.lagging.insert(subject.clone(), (world.now, fact.clone()));
    }
    if short > 0 {
        world.note(|| format!("{short} of 1000 are missing for {subject:?}"));
        shorten(world, &mut fact, short);
    }
    spoil(world, &mut fact);
    if world.outside.foreigners
        && let Observation::Instances { all, .. } = &mut fact
    {
        all.push(estate::foreigner());
    }
    if let Observation::Runners { scope, asked_at, all, .. } = &fact
        && !caller.1
        && world.lives(caller.0)
    {
        world.truth.listed(scope, *asked_at, all);
    }
    calls::looked(world, caller, subject, fact);
}

/// What a read of one job shows.
fn read<R: Rules + Clone>(
    world: &mut World<R>,
    key: JobKey,
    asked_at: Timestamp,
    as_of: Timestamp,
) -> Observation {
    let denied = world.rng.chance(world.hardship().job_denied);
    let source = Source::Read { asked_at };
    let seen = world.truth.tell_as_of(key.native, source, as_of).filter(|_| !denied);
    if let Some(seen) = seen {
        return Observation::Job(Box::new(seen));
    }
    world.mark(Mark::JobDenied);
    Observation::JobMissing { key, asked_at }
}

/// Leaves out that much of a listing, in 1000.
fn shorten<R: Rules + Clone>(world: &mut World<R>, fact: &mut Observation, short: u32) {
    let rng = &mut world.rng;
    if let Observation::Instances { all, .. } = fact {
        all.retain(|seen| {
            let kept = !rng.chance(short);
            if !kept {
                world.truth.denied(seen.id);
            }
            kept
        });
    } else if let Observation::Jobs { all, .. } = fact {
        all.retain(|_| !rng.chance(short));
    } else if let Observation::Deliveries { failed, .. } = fact {
        failed.retain(|_| !rng.chance(short));
    } else if let Observation::Runners { all, .. } = fact {
        all.retain(|_| !rng.chance(short));
    }
}

/// Adds what is not ours, and tells of things twice.
fn spoil<R: Rules + Clone>(world: &mut World<R>, fact: &mut Observation) {
    let hardship = world.hardship();
    if let Observation::Runners { all, .. } = fact {
        for seen in all.iter_mut() {
            seen.busy ^= world.rng.chance(hardship.busy_lies);
        }
    }
    if !world.rng.chance(hardship.garbage) {
        return;
    }
    if let Observation::Runners { all, .. } = fact {
        all.extend(all.first().cloned());
    } else if let Observation::Instances { all, .. } = fact {
        world.report.marks.insert(Mark::ForeignListed);
        all.extend(all.first().cloned());
        all.push(estate::phantom(&mut world.rng));
    } else if let Observation::Jobs { all, .. } = fact {
        all.extend(all.first().cloned());
    }
}
