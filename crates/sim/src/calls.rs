//! The controller's calls, as the virtual world carries them out: they fail, lose their answers, take
//! longer than anybody expects, and land after the caller has died.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::action::{Deregister, Destroy, Launch, Look};
use remuda_core::controller::{Rules, Seen};
use remuda_core::observation::{Call, Cause, Observation, Source, Subject};
use remuda_core::{Action, Timestamp};

use crate::oracle::Verdict;
use crate::run::{Event, World};
use crate::truth::{TrueInstance, TrueRunner};

/// The moment a call does its work, and what its caller will hear.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    incarnation: u32,
    work: Work,
    answer_lost: bool,
}

#[derive(Clone, Debug)]
enum Work {
    Register(Box<Launch>),
    Make { launch: Box<Launch>, registration: u64 },
    Deregister(Deregister),
    Destroy(Destroy),
    Look { look: Look, asked_at: Timestamp },
}

/// Begins a call: it may fail at once, or go on its way.
pub(crate) fn begin<R: Rules + Clone>(world: &mut World<R>, action: Action) {
    let hardship = world.hardship();
    let subject = action.subject();
    let (work, call) = match action {
        Action::Launch(launch) => (Work::Register(launch), Call::Register),
        Action::Deregister(deregister) => (Work::Deregister(deregister), Call::Deregister),
        Action::Destroy(destroy) => (Work::Destroy(destroy), Call::Destroy),
        Action::Look(look) => (Work::Look { look, asked_at: world.now }, Call::Look),
    };
    if world.rng.chance(hardship.call_fails) {
        let after = world.latency();
        answer_failed(world, subject, call, Cause::Transient, after);
        return;
    }
    let answer_lost = world.rng.chance(hardship.answer_lost);
    let effect = Effect { incarnation: world.incarnation, work, answer_lost };
    let after = world.latency();
    world.at(after, Event::Effect(Box::new(effect)));
}

fn answer<R: Rules + Clone>(
    world: &mut World<R>,
    effect: (u32, bool),
    subject: Subject,
    call: Call,
    facts: Vec<Observation>,
) {
    let (incarnation, answer_lost) = effect;
    if answer_lost {
        world.mark("answer lost");
        // The performer gives up waiting.
        let after = Duration::from_mins(1);
        answer_failed(world, subject, call, Cause::Unknown, after);
        return;
    }
    let after = world.latency();
    let seen = Box::new(Seen::Answer { subject, facts });
    world.at(after, Event::Answer { incarnation, seen });
}

fn answer_failed<R: Rules + Clone>(
    world: &mut World<R>,
    subject: Subject,
    call: Call,
    cause: Cause,
    after: Duration,
) {
    let message: Arc<str> = "virtual failure".into();
    let fact = Observation::Failed { subject: subject.clone(), call, cause, message };
    let seen = Box::new(Seen::Answer { subject, facts: vec![fact] });
    let incarnation = world.incarnation;
    world.at(after, Event::Answer { incarnation, seen });
}

/// A call has its effect, whoever still waits for it.
pub(crate) fn land<R: Rules + Clone>(world: &mut World<R>, effect: Effect) -> Verdict {
    let caller = (effect.incarnation, effect.answer_lost);
    match effect.work {
        Work::Register(launch) => register(world, caller, launch),
        Work::Make { launch, registration } => make(world, caller, &launch, registration),
        Work::Deregister(call) => deregister(world, caller, call),
        Work::Destroy(call) => return destroy(world, caller, &call),
        Work::Look { look, asked_at } => look_at(world, caller, look, asked_at),
    }
    Ok(())
}

fn register<R: Rules + Clone>(world: &mut World<R>, caller: (u32, bool), launch: Box<Launch>) {
    let refused = world.now < world.outage_until;
    if refused {
        world.mark("registration refused in an outage");
        world.refused += 1;
    }
    if refused {
        let subject = Subject::Instance(launch.instance);
        answer_failed(world, subject, Call::Register, Cause::Transient, Duration::ZERO);
        return;
    }
    let id = world.truth.next_registration;
    world.truth.next_registration += 1;
    *world.truth.registered.entry(launch.runner).or_default() += 1;
    let runner = TrueRunner {
        name: launch.name.clone(),
        scope: launch.scope.clone(),
        labels: launch.labels.clone(),
        online: false,
        job: None,
        had_job: false,
    };
    world.truth.runners.insert(id, runner);
    if world.now > launch.deadline {
        // A request under way cannot be called back: the forge made the registration after its caller
        // had given up on it.
        world.mark("registered too late");
        world.waste += 1;
        let subject = Subject::Instance(launch.instance);
        answer_failed(world, subject, Call::Launch, Cause::Transient, Duration::ZERO);
        return;
    }
    let (incarnation, answer_lost) = caller;
    // Whether it is the registration's or the launch's answer that is lost is another chance.
    if answer_lost && world.rng.chance(500) {
        let subject = Subject::Instance(launch.instance);
        world.waste += 1;
        answer(world, caller, subject, Call::Register, Vec::new());
        return;
    }
    let fact = Observation::Registered { runner: launch.runner, id };
    let seen = Box::new(Seen::Fact(fact));
    let after = world.latency();
    world.at(after, Event::Answer { incarnation, seen });
    let work = Work::Make { launch, registration: id };
    let after = world.latency();
    world.at(after, Event::Effect(Box::new(Effect { incarnation, work, answer_lost })));
}

fn make<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (u32, bool),
    launch: &Launch,
    registration: u64,
) {
    let subject = Subject::Instance(launch.instance);
    let hardship = world.hardship();
    let full = world.rng.chance(hardship.full);
    if full || world.now > launch.deadline {
        let cause = if full { Cause::Full } else { Cause::Transient };
        let after = world.latency();
        answer_failed(world, subject, Call::Launch, cause, after);
        return;
    }
    world.truth.made += 1;
    let instance = TrueInstance {
        provider: launch.provider.clone(),
        pool: launch.pool.clone(),
        scope: launch.scope.clone(),
        name: launch.name.clone(),
        registration,
        exited: None,
    };
    let id = launch.instance;
    world.truth.instances.insert(id, instance);
    let after = world.rng.span(1000, 60_000);
    if world.rng.chance(hardship.boot_hangs) {
        world.waste += 1;
        world.mark("boot hangs");
    } else if world.rng.chance(hardship.boot_dies) {
        world.waste += 1;
        world.mark("boot dies");
        world.at(after, Event::Exit(id, 1));
    } else {
        world.at(after, Event::Online(id));
    }
    if caller.1 {
        world.waste += 1;
    }
    let facts = vec![Observation::Launched { instance: id, node: None }];
    answer(world, caller, subject, Call::Launch, facts);
}

fn deregister<R: Rules + Clone>(world: &mut World<R>, caller: (u32, bool), call: Deregister) {
    let named = |name| {
        let mut all = world.truth.runners.iter();
        all.find(|(_, runner)| runner.name == name).map(|(id, _)| *id)
    };
    let id = call.id.or_else(|| named(call.name.clone()));
    let runner = id.and_then(|id| world.truth.runners.get(&id));
    let busy = runner.is_some_and(|runner| runner.job.is_some());
    let subject = call.subject;
    let fact = if busy {
        world.mark("deregistration refused as busy");
        Observation::DeregisterBusy { subject: subject.clone() }
    } else {
        world.truth.runners.remove(&id.unwrap_or(0));
        Observation::Deregistered { subject: subject.clone() }
    };
    answer(world, caller, subject, Call::Deregister, vec![fact]);
}

fn destroy<R: Rules + Clone>(world: &mut World<R>, caller: (u32, bool), call: &Destroy) -> Verdict {
    if let Some(job) = world.truth.job_on(call.instance) {
        return Err(format!("instance {} was destroyed with job {job} on it", call.instance));
    }
    let listens = world.truth.instances.get(&call.instance).is_some_and(|instance| {
        instance.exited.is_none() && world.truth.runners.contains_key(&instance.registration)
    });
    if listens {
        return Err(format!("instance {} was destroyed while it could get a job", call.instance));
    }
    if let Some(instance) = world.truth.instances.remove(&call.instance)
        && let Some(runner) = world.truth.runners.get_mut(&instance.registration)
    {
        runner.online = false;
    }
    let subject = Subject::Instance(call.instance);
    let fact = Observation::Destroyed { instance: call.instance, asked_at: world.now };
    answer(world, caller, subject, Call::Destroy, vec![fact]);
    Ok(())
}

fn look_at<R: Rules + Clone>(
    world: &mut World<R>,
    caller: (u32, bool),
    look: Look,
    asked_at: Timestamp,
) {
    let subject = look.subject();
    let empty = world.comes_back_empty(&look);
    let lag = world.lag();
    let as_of = world.now - lag;
    let fact = match look {
        Look::Job { key, .. } => {
            let denied = world.rng.chance(world.hardship().job_denied);
            let seen = world.truth.tell_as_of(key.native, Source::Read { asked_at }, as_of);
            if let Some(seen) = seen.filter(|_| !denied) {
                Observation::Job(Box::new(seen))
            } else {
                world.mark("job denied");
                Observation::JobMissing { key, asked_at }
            }
        }
        Look::Jobs { forge, scope } => {
            let mut all = world.truth.list_jobs(&scope, asked_at, as_of);
            all.retain(|_| !empty);
            Observation::Jobs { forge, scope, asked_at, all }
        }
        Look::Runners { forge, scope } => {
            let mut all = world.truth.list_runners(&scope);
            all.retain(|_| !empty);
            Observation::Runners { forge, scope, asked_at, all }
        }
        Look::Instances { provider } => {
            let mut all = world.truth.list_instances(&provider);
            all.retain(|_| !empty);
            Observation::Instances { provider, asked_at, all }
        }
    };
    answer(world, caller, subject, Call::Look, vec![fact]);
}
