//! The running sandbox: the world behind a lock, and everyone who waits for it to change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use remuda_core::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Limits, Times};
use crate::gate::Gate;
use crate::id::RunnerId;
use crate::post::{Letter, Post};
use crate::view::{Links, View};
use crate::world::{Effect, HookAt, World};

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) links: Links,
    pub(crate) times: Times,
    pub(crate) gate: Gate,
    pub(crate) post: Post,
    pub(crate) stop: CancellationToken,
    world: Mutex<World>,
    waiting: Mutex<BTreeMap<RunnerId, Arc<Notify>>>,
    due: watch::Sender<Option<Timestamp>>,
    revision: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(world: World, base: &str, times: Times, limits: Limits) -> Self {
        Self {
            clock: Clock::start(),
            links: Links::new(base),
            times,
            gate: Gate::new(limits),
            post: Post::default(),
            stop: CancellationToken::new(),
            world: Mutex::new(world),
            waiting: Mutex::default(),
            due: watch::Sender::new(None),
            revision: watch::Sender::new(0),
        }
    }

    /// Looks at the world.
    pub(crate) fn read<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        look(View { world: &lock(&self.world), links: &self.links })
    }

    /// Throws the world's dice, which changes nothing that anyone waits for.
    pub(crate) fn throw<T>(&self, throw: impl FnOnce(&mut World) -> T) -> T {
        throw(&mut lock(&self.world))
    }

    /// Changes the world, then tells everyone concerned.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let mut world = lock(&self.world);
        let now = self.clock.now();
        let result = change(&mut world, now);
        for effect in world.take_effects() {
            self.tell(&mut world, effect, now);
        }
        let due = world.next_due();
        drop(world);
        self.due.send_if_modified(|known| std::mem::replace(known, due) != due);
        self.revision.send_modify(|revision| *revision += 1);
        result
    }

    // Called under the lock, so that a webhook's body says how things were at its event.
    fn tell(&self, world: &mut World, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Wake(runner) => {
                let mut waiting = lock(&self.waiting);
                if let Some(notify) = waiting.get(&runner) {
                    notify.notify_one();
                }
                if !world.runners.contains_key(&runner) {
                    waiting.remove(&runner);
                }
            }
            Effect::HookMade(hook) => {
                let view = View { world, links: &self.links };
                let hook = &world.hooks[&hook];
                self.post.send(Letter::new(hook, "ping", view.ping(hook).to_string()), now);
            }
            Effect::JobEvent { job, action } => {
                let job = &world.jobs[&job];
                let repository = &world.repositories[&job.repository];
                let view = View { world, links: &self.links };
                let letters: Vec<Letter> = world
                    .hooks_of(repository)
                    .map(|hook| {
                        let body = view.workflow_job(job, action, hook).to_string();
                        let mut letter = Letter::new(hook, "workflow_job", body);
                        letter.action = Some(action.as_str());
                        letter.repository = Some(repository.id);
                        if let HookAt::App(app) = hook.at {
                            letter.installation =
                                world.installation(app, repository.owner).map(|there| there.id);
                        }
                        letter
                    })
                    .collect();
                for letter in letters {
                    let fate = world.dice.webhook(&world.faults.webhooks);
                    self.post.send_by(fate, letter, now);
                }
            }
        }
    }

    /// What wakes the runner's held poll.
    pub(crate) fn waiter(&self, runner: RunnerId) -> Arc<Notify> {
        lock(&self.waiting).entry(runner).or_default().clone()
    }

    /// Counts up with every change of the world or of the deliveries.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    pub(crate) fn revised(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Lets time do its work until the sandbox stops.
    pub(crate) async fn keep_time(&self) {
        let mut due = self.due.subscribe();
        loop {
            let next = *due.borrow_and_update();
            let alarm = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = due.changed() => {}
                () = alarm => self.act(World::tick),
            }
        }
    }
}

/// A lock whose holder panicked is taken all the same: the tests that panicked say so themselves.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
