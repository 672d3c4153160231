//! The loop without its waiting: facts in, one batch to commit and the calls to make out.
//!
//! The driver commits the batch before it makes a single call, and reports every call's end. The same
//! controller runs under the simulator, which is where its rules are proved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, Look};
use crate::actions::actions;
use crate::batch::{Batch, WaitChange};
use crate::event::tell;
use crate::job::JobKey;
use crate::observation::{Observation, Subject};
use crate::observe::observe;
use crate::plan::{Plan, plan};
use crate::reason::Reason;
use crate::runner::{InstanceId, InstanceState, LaunchCall};
use crate::settle::settle;
use crate::snapshot::{Change, Looked, Snapshot};
use crate::time::Timestamp;

/// A call whose end was not reported by then is taken for lost, and asked for again if still wanted.
pub const CALL_LOST: Duration = Duration::from_mins(3);
/// Most calls in flight at once, launches apart.
const CALLS_MAX: usize = 64;
/// Most looks among them, so that removals never wait behind looks that hang.
const LOOKS_MAX: usize = 48;
/// Most rounds of settling in one turn.
const SETTLE_ROUNDS_MAX: usize = 64;

/// Something the driver brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A fact that no call of ours ended with.
    Fact(Observation),
    /// A call ended, with what it showed.
    Answer {
        /// What it was about.
        subject: Subject,
        /// Facts, in order.
        facts: Vec<Observation>,
    },
    /// Something outside hints that a look would show news. Only changes when it is taken.
    Hint(Subject),
}

/// What one turn asks of the driver: commit the batch, then make the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// To be committed as a whole, before any of the calls.
    pub batch: Batch,
    /// To be made, each ending in a [`Seen::Answer`].
    pub actions: Vec<Action>,
}

/// The pure functions a controller is made of. Exists so that the simulator can put a wrong rule in
/// place of a right one and see whether its oracles notice.
pub trait Rules {
    /// See [`observe()`].
    fn observe(&self, world: &Snapshot, seen: &Observation) -> Vec<Change> {
        observe(world, seen)
    }
    /// See [`settle()`].
    fn settle(&self, world: &Snapshot) -> Vec<Change> {
        settle(world)
    }
    /// See [`plan()`].
    fn plan(&self, world: &Snapshot) -> Plan {
        plan(world)
    }
    /// See [`actions()`].
    fn actions(&self, world: &Snapshot) -> Vec<Action> {
        actions(world)
    }
}

/// The rules as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound;

impl Rules for Sound {}

/// The world as committed, and the calls in flight.
#[derive(Clone, Debug)]
pub struct Controller<R = Sound> {
    rules: R,
    world: Snapshot,
    calls: BTreeMap<Subject, Timestamp>,
    /// Looks in flight that were begun before a hint came, so that their answer may be too old for it.
    hinted: BTreeSet<Subject>,
    waits: BTreeMap<JobKey, Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    since: Timestamp,
    reasons: Arc<[Reason]>,
}

impl Controller {
    /// Takes over the books.
    pub fn new(world: Snapshot) -> Self {
        Self::with_rules(world, Sound)
    }
}

impl<R: Rules> Controller<R> {
    /// Takes over the books, to keep them by these rules.
    pub fn with_rules(mut world: Snapshot, rules: R) -> Self {
        world.adopted = world.next_instance > InstanceId(1);
        let (calls, hinted, waits) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { rules, world, calls, hinted, waits }
    }

    /// All that is known.
    pub fn world(&self) -> &Snapshot {
        &self.world
    }

    /// Why a job waits, and since when for these reasons.
    pub fn reasons(&self, job: &JobKey) -> Option<(Timestamp, &Arc<[Reason]>)> {
        self.waits.get(job).map(|waiting| (waiting.since, &waiting.reasons))
    }

    /// Every waiting job with its reasons and since when.
    pub fn waits(&self) -> impl Iterator<Item = (&JobKey, Timestamp, &Arc<[Reason]>)> {
        self.waits.iter().map(|(job, waiting)| (job, waiting.since, &waiting.reasons))
    }

    /// How many calls are in flight.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Replaces what is declared; takes effect with the next turn.
    pub fn declare(&mut self, fleet: Arc<crate::fleet::Fleet>) {
        self.world.fleet = fleet;
    }

    /// Folds in what was seen, plans, and says what to commit and which calls to begin.
    pub fn turn(&mut self, now: Timestamp, seen: impl IntoIterator<Item = Seen>) -> Turn {
        let mut batch = self.conclude(now, seen);
        let plan = self.rules.plan(&self.world);
        self.take(plan.changes, &mut batch);
        batch.waits = self.note_waits(plan.waits);
        let actions = self.begin(&mut batch);
        Turn { batch, actions }
    }

    /// Folds in what was seen and what follows from it, and begins nothing: a server's last turn.
    pub fn conclude(&mut self, now: Timestamp, seen: impl IntoIterator<Item = Seen>) -> Batch {
        self.world.now = self.world.now.max(now);
        let mut batch = Batch::default();
        for seen in seen {
            match seen {
                Seen::Fact(fact) => self.fold(&fact, &mut batch),
                Seen::Answer { subject, facts } => {
                    self.calls.remove(&subject);
                    for fact in facts {
                        self.fold(&fact, &mut batch);
                    }
                    if self.hinted.remove(&subject) {
                        self.look_again(subject, &mut batch);
                    }
                }
                Seen::Hint(subject) => {
                    if self.calls.contains_key(&subject) {
                        self.hinted.insert(subject.clone());
                    }
                    self.look_again(subject, &mut batch);
                }
            }
        }
        // Forgetting goes in steps; what is left after so many is left to the next turn.
        for _ in 0..SETTLE_ROUNDS_MAX {
            let changes = self.rules.settle(&self.world);
            if changes.is_empty() {
                break;
            }
            self.take(changes, &mut batch);
        }
        batch
    }

    fn look_again(&mut self, subject: Subject, batch: &mut Batch) {
        let looked = Looked { asked_at: None, ..self.world.looked(&subject) };
        self.take(vec![Change::Looked(subject, looked)], batch);
    }

    fn fold(&mut self, fact: &Observation, batch: &mut Batch) {
        let changes = self.rules.observe(&self.world, fact);
        self.take(changes, batch);
    }

    fn take(&mut self, changes: Vec<Change>, batch: &mut Batch) {
        for change in changes {
            batch.events.extend(tell(&self.world, &change));
            self.world.apply(std::slice::from_ref(&change));
            batch.changes.push(change);
        }
    }

    /// The waits that are other than before.
    fn note_waits(&mut self, waits: Vec<crate::reason::Wait>) -> Vec<WaitChange> {
        let at = self.world.now;
        let mut changed = Vec::new();
        let mut old = std::mem::take(&mut self.waits);
        let mut new = BTreeMap::new();
        for wait in waits {
            let kept = old.remove(&wait.job).filter(|waiting| waiting.reasons == wait.reasons);
            let waiting = kept.unwrap_or_else(|| {
                let reasons = wait.reasons.clone();
                changed.push(WaitChange { job: wait.job.clone(), at, reasons });
                Waiting { since: at, reasons: wait.reasons }
            });
            new.insert(wait.job, waiting);
        }
        let over = old.into_keys().filter(|job| !new.contains_key(job));
        changed.extend(over.map(|job| WaitChange { job, at, reasons: Arc::new([]) }));
        self.waits = new;
        changed
    }

    /// Chooses the calls to begin: one per subject, bounded in number. A launch is noted in the batch, so
    /// that it is never begun twice.
    fn begin(&mut self, batch: &mut Batch) -> Vec<Action> {
        let now = self.world.now;
        self.calls.retain(|_, lost_at| *lost_at > now);
        self.hinted.retain(|subject| self.calls.contains_key(subject));
        let mut begun = Vec::new();
        let mut subjects: BTreeSet<Subject> = BTreeSet::new();
        let mut noted = Vec::new();
        for action in self.rules.actions(&self.world) {
            let subject = action.subject();
            let bounded = match &action {
                Action::Launch(_) => true,
                Action::Deregister(_) | Action::Destroy(_) => self.calls.len() < CALLS_MAX,
                Action::Look(_) | Action::Redeliver(_) => self.calls.len() < LOOKS_MAX,
            };
            if self.calls.contains_key(&subject) || !bounded || !subjects.insert(subject.clone()) {
                continue;
            }
            let mut lost_at = now + CALL_LOST;
            if let Action::Launch(launch) = &action {
                lost_at = launch.deadline;
                noted.extend(self.launching(launch.instance, launch.deadline));
            }
            self.calls.insert(subject, lost_at);
            begun.push(action);
        }
        self.take(noted, batch);
        begun
    }

    fn launching(&self, id: InstanceId, deadline: Timestamp) -> Option<Change> {
        let mut instance = self.world.instance(id)?.clone();
        instance.enter(InstanceState::Launching, self.world.now);
        instance.launch = Some(LaunchCall { at: self.world.now, deadline, answered_at: None });
        Some(Change::Instance(Box::new(instance)))
    }
}

impl Seen {
    /// The end of a look that showed `facts`.
    pub fn looked(look: &Look, facts: Vec<Observation>) -> Self {
        Self::Answer { subject: look.subject(), facts }
    }
}
