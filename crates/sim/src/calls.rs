//! The controllers' calls, as the virtual world carries them out: they fail, lose their answers, take
//! longer than anybody expects, and land after the caller has died.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::action::{Deregister, Destroy, Launch, Look, Redeliver};
use remuda_core::controller::{Rules, Seen};
use remuda_core::hook::HookKey;
use remuda_core::observation::{Call, Cause, Observation, Source, Subject};
use remuda_core::runner::InstanceState;
use remuda_core::{Action, Timestamp};

use crate::estate;
use crate::hardship::Hardship;
use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::replica::Caller;
use crate::run::{Event, World};
use crate::truth::{TrueInstance, TrueRunner};

/// The moment a call does its work, and what its caller will hear.
#[derive(Debug)]
pub(crate) struct Effect {
    caller: Caller,
    work: Work,
    answer_lost: bool,
}

#[derive(Debug)]
enum Work {
    Register(Box<Launch>),
    Make { launch: Box<Launch>, registration: u64 },
    Deregister(Deregister),
    Destroy(Destroy),
    Look { look: Look, asked_at: Timestamp },
    Redeliver(Redeliver),
}

/// The moment a caller goes on from the first half of a launch to the second.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) caller: Caller,
    launch: Box<Launch>,
    registration: u64,
    answer_lost: bool,
}

/// Begins a call: it may fail at once, or go on its way.
pub(crate) fn begin<R: Rules + Clone>(world: &mut World<R>, caller: Caller, action: Action) {
    let hardship = world.hardship();
    let subject = action.subject();
    let now = world.clock(caller.replica);
    let (work, call) = match action {
        Action::Launch(launch) => (Work::Register(launch), Call::Register),
        Action::Deregister(deregister) => (Work::Deregister(deregister), Call::Deregister),
        Action::Destroy(destroy) => (Work::Destroy(destroy), Call::Destroy),
        Action::Look(look) => (Work::Look { look, asked_at: now }, Call::Look),
        Action::Redeliver(call) => (Work::Redeliver(call), Call::Redeliver),
    };
    let too_late = matches!(&work, Work::Register(launch) if now > launch.deadline);
    if too_late || world.rng.chance(hardship.call_fails) {
        let after = world.latency();
        answer_failed(world, caller, subject, call, Cause::Transient, after);
        return;
    }
    let answer_lost = world.rng.chance(hardship.answer_lost);
    let effect = Effect { caller, work, answer_lost };
    let after = world.latency();
    world.at(after, Event::Effect(Box::new(effect)));
}

/// Stamps a delivery with the clock of the controller that accepts it.
pub(crate) fn receive(seen: &mut Observation, now: Timestamp) {
    if let Observation::Job(job) = seen {
        job.source = Source::Delivery { received_at: now };
    }
}

fn answer<R: Rules + Clone>(
    world: &mut World<R>,
    (caller, answer_lost): (Caller, bool),
    subject: Subject,
    call: Call,
    facts: Vec<Observation>,
) {
    if answer_lost {
        world.mark(Mark::AnswerLost);
        // The performer gives up waiting.
        let after = Duration::from_mins(1);
        answer_failed(world, caller, subject, call, Cause::Unknown, after);
        return;
    }
    let after = world.latency();
    world.at(after, Event::Answer(caller, Box::new(Seen::Answer { subject, facts })));
}

fn answer_failed<R: Rules + Clone>(
    world: &mut World<R>,
    caller: Caller,
    subject: Subject,
    call: Call,
    cause: Cause,
    after: Duration,
) {
    let message: Arc<str> = Arc::clone(estate::failure());
    let fact = Observation::Failed { subject: subject.clone(), call, cause, message };
    let seen = Seen::Answer { subject, facts: vec![fact] };
    world.at(after, Event::Answer(caller, Box::new(seen)));
}

/// A call has its effect, whoever still waits for it.
pub(crate) fn land<R: Rules + Clone>(world: &mut World<R>, effect: Effect) -> Verdict {
    let caller = (effect.caller, effect.answer_lost);
    match effect.work {
        Work::Register(launch) => register(world, caller, launch),
        Work::Make { launch, registration } => return make(world, caller, &launch, registration),
        Work::Deregister(call) => return deregister(world, caller, call),
        Work::Destroy(call) => return destroy(world, caller, &call),
        Work::Look { look, asked_at } => crate::look::land(world, caller, look, asked_at),
        Work::Redeliver(call) => {
            let subject = call.subject();
            if let HookKey::Own { scope, .. } = &call.hook
                && forge_fails(world, caller.0, scope, (&subject, Call::Redeliver))
            {
                return Ok(());
            }
            world.redeliver(&call)?;
            let Redeliver { forge, hook, guid, .. } = call;
            let fact = Observation::Redelivered { forge, hook, guid };
            answer(world, caller, subject, Call::Redeliver, vec![fact]);
        }
    }
    Ok(())
}

/// True if the forge does not do the call; its caller is told why.
fn forge_fails<R: Rules + Clone>(
    world: &mut World<R>,
    caller: Caller,
    scope: &remuda_core::tenant::Scope,
    what: (&Subject, Call),
) -> bool {
    let Some(cause) = world.outside.forge_fails(world.now, scope) else { return false };
    let after = world.latency();
    answer_failed(world, caller, what.0.clone(), what.1, cause, after);
    true
}

fn register<R: Rules + Clone>(world: &mut World<R>, caller: (Caller, bool), launch: Box<Launch>) {
    let subject = Subject::Instance(launch.instance);
    if forge_fails(world, caller.0, &launch.scope, (&subject, Call::Register)) {
        return;
    }
    if world.outside.refuses(world.now) {
        let cause = Cause::Transient;
        answer_failed(world, caller.0, subject, Call::Register, cause, Duration::ZERO);
        return;
    }
    let id = world.truth.register(
        launch.runner,
        TrueRunner {
            name: launch.name.clone(),
            scope: launch.scope.clone(),
            labels: launch.labels.clone(),
            online: false,
            job: None,
            had_job: false,
            left_out: None,
            foreign: false,
        },
    );
    if world.clock(caller.0.replica) > launch.deadline {
        // A request under way cannot be called back: the forge made the registration after its caller
        // had given up on it.
        world.mark(Mark::RegisteredTooLate);
        world.waste += 1;
        let cause = Cause::Unknown;
        answer_failed(world, caller.0, subject, Call::Register, cause, Duration::ZERO);
        return;
    }
    // Whether it is the registration's or the launch's answer that is lost is another chance.
    if caller.1 && world.rng.chance(500) {
        world.waste += 1;
        answer(world, caller, subject, Call::Register, Vec::new());
        return;
    }
    let fact = Observation::Registered { runner: launch.runner, id };
    let after = world.latency();
    world.at(after, Event::Answer(caller.0, Box::new(Seen::Fact(fact))));
    let step = Step { caller: caller.0, launch, registration: id, answer_lost: caller.1 };
    world.at(after, Event::Step(Box::new(step)));
}

/// The caller has the registration and asks the provider.
pub(crate) fn step<R: Rules + Clone>(world: &mut World<R>, step: Step) {
    let Step { caller, launch, registration, answer_lost } = step;
    if world.clock(caller.replica) > launch.deadline {
        let subject = Subject::Instance(launch.instance);
        world.waste += 1;
        answer_failed(world, caller, subject, Call::Launch, Cause::Transient, Duration::ZERO);
        return;
    }
    let work = Work::Make { launch, registration };
    let after = world.latency();
    world.at(after, Event::Effect(Box::new(Effect { caller, work, answer_lost })));
}

fn make<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (Caller, bool),
    launch: &Launch,
    registration: u64,
) -> Verdict {
    let subject = Subject::Instance(launch.instance);
    let hardship = world.hardship();
    let nodes = estate::nodes(&launch.provider).iter();
    let nodes: Vec<_> = nodes.filter(|node| !launch.avoid.contains(*node)).collect();
    let node = world.rng.pick(&nodes);
    let full = node.is_none() || world.rng.chance(hardship.full);
    let broken = world.outside.provider_fails(world.now, &launch.provider);
    // By the furthest clock: either controller may have given it up by then.
    let late = (0..world.replicas.len()).any(|at| world.clock(at) > launch.deadline);
    let lands = !late || world.rng.chance(hardship.lands_late);
    let Some(node) = node.filter(|_| !full && !broken && lands) else {
        let cause = if full { Cause::Full } else { Cause::Transient };
        let after = world.latency();
        world.waste += 1;
        answer_failed(world, caller.0, subject, Call::Launch, cause, after);
        return Ok(());
    };
    let given_up = world
        .database
        .books()
        .instance(launch.instance)
        .is_none_or(|row| row.state == InstanceState::Gone);
    if late && given_up {
        world.mark(Mark::LandedLate);
        world.waste += 2;
    }
    let id = launch.instance;
    world.truth.make(
        id,
        TrueInstance {
            provider: launch.provider.clone(),
            node: node.clone(),
            pool: launch.pool.clone(),
            scope: launch.scope.clone(),
            name: launch.name.clone(),
            registration,
            made_at: world.now,
            exited: None,
            late,
            destroyed: false,
            stays_until: None,
        },
    );
    boot(world, id);
    if caller.1 {
        world.waste += 1;
    }
    let facts = vec![Observation::Launched { instance: id, node: Some(node.clone()) }];
    answer(world, caller, subject, Call::Launch, facts);
    crate::oracle::limits(&world.truth, world.database.books())
}

/// What becomes of an instance.
fn boot<R: Rules + Clone>(world: &mut World<R>, id: remuda_core::runner::InstanceId) {
    let hardship = world.hardship();
    let after = world.rng.span(1000, 60_000);
    if world.bewitched(id) {
        // It ends in a moment.
    } else if world.rng.chance(hardship.boot_hangs) {
        world.waste += 1;
        world.mark(Mark::BootHangs);
    } else if world.rng.chance(hardship.boot_dies) {
        world.waste += 1;
        world.mark(Mark::BootDies);
        world.at(after, Event::Exit(id, 1));
    } else {
        world.at(after, Event::Online(id));
    }
    if world.rng.chance(hardship.leaks) {
        let hours = world.rng.span(60_000, 10_800_000);
        world.truth.stays(id, world.now + hours);
    }
}

fn deregister<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (Caller, bool),
    call: Deregister,
) -> Verdict {
    let subject = call.subject;
    if forge_fails(world, caller.0, &call.scope, (&subject, Call::Deregister)) {
        return Ok(());
    }
    let named = |name| {
        let mut all = world.truth.runners.iter();
        all.find(|(_, runner)| runner.name == name).map(|(id, _)| *id)
    };
    let id = call.id.or_else(|| named(call.name));
    let runner = id.and_then(|id| world.truth.runners.get(&id));
    if runner.is_some_and(|runner| runner.foreign) {
        return Err(format!("registration {id:?}, which is not ours, was to be removed"));
    }
    let busy = runner.is_some_and(|runner| runner.job.is_some());
    let lies = runner.is_some() && !busy && world.rng.chance(world.hardship().busy_lies);
    if lies {
        world.mark(Mark::BusyLied);
    }
    let fact = if busy || lies {
        if busy {
            world.mark(Mark::JobOnDraining);
        }
        Observation::DeregisterBusy { subject: subject.clone() }
    } else {
        world.truth.runners.remove(&id.unwrap_or(0));
        Observation::Deregistered { subject: subject.clone() }
    };
    answer(world, caller, subject, Call::Deregister, vec![fact]);
    Ok(())
}

fn destroy<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (Caller, bool),
    call: &Destroy,
) -> Verdict {
    let (id, subject) = (call.instance, Subject::Instance(call.instance));
    if world.outside.provider_fails(world.now, &call.provider) {
        let after = world.latency();
        answer_failed(world, caller.0, subject, Call::Destroy, Cause::Transient, after);
        return Ok(());
    }
    if estate::is_foreign(id) {
        return Err(format!("instance {id}, which is not ours, was to be destroyed"));
    }
    if let Some(job) = world.truth.job_on(id) {
        world.timed_out(id, job)?;
    } else if world.truth.listening(id) {
        return Err(format!("instance {id} was destroyed while it could get a job"));
    }
    let (now, hard) = (world.now, world.hardship() != Hardship::NONE);
    let stays = |one: &&mut TrueInstance| hard && one.stays_until.is_some_and(|until| now < until);
    if let Some(instance) = world.truth.instances.get_mut(&id).filter(stays) {
        instance.destroyed = true;
        world.mark(Mark::DestroyIgnored);
        world.exit(id, 137);
    } else {
        world.truth.unmake(id);
    }
    let asked_at = world.clock(caller.0.replica);
    let fact = Observation::Destroyed { instance: id, asked_at };
    answer(world, caller, subject, Call::Destroy, vec![fact]);
    Ok(())
}

/// The end of a look that showed this.
pub(crate) fn looked<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (Caller, bool),
    subject: Subject,
    fact: Observation,
) {
    let mut facts = vec![fact];
    if let Subject::Instances(provider) = &subject {
        let capacity = Some(estate::capacity(provider));
        facts.push(Observation::Capacity { provider: provider.clone(), capacity });
    }
    answer(world, caller, subject, Call::Look, facts);
}

/// True if a look comes to nothing; its caller is told why.
pub(crate) fn look_fails<R: Rules + Clone>(
    world: &mut World<R>,
    caller: Caller,
    look: &Look,
) -> bool {
    let subject = look.subject();
    match look {
        Look::Job { scope, .. }
        | Look::Jobs { scope, .. }
        | Look::Runners { scope, .. }
        | Look::Deliveries { hook: HookKey::Own { scope, .. }, .. } => {
            forge_fails(world, caller, scope, (&subject, Call::Look))
        }
        Look::Deliveries { hook: HookKey::App(_), .. } => false,
        Look::Instances { provider } => {
            let broken = world.outside.provider_fails(world.now, provider);
            if broken {
                let after = world.latency();
                answer_failed(world, caller, subject, Call::Look, Cause::Transient, after);
            }
            broken
        }
    }
}

/// Registrations that are not ours, where ours are.
pub(crate) fn place_foreigners<R: Rules + Clone>(world: &mut World<R>) {
    let garbage = world.settings.hardship.garbage;
    world.outside.foreigners = world.rng.chance(garbage);
    for (index, (_, scope, _)) in (0_u64..).zip(estate::owners()) {
        world.truth.runners.insert(
            10 + index,
            TrueRunner {
                name: estate::foreign_name(index),
                scope: scope.clone(),
                labels: estate::labels(&mut world.rng),
                online: false,
                job: None,
                had_job: true,
                left_out: None,
                foreign: true,
            },
        );
    }
}
