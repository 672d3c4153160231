//! One history: a heap of (virtual time, event) around the controller, its disk and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use remuda_core::action::Look;
use remuda_core::controller::{Controller, Rules, Seen, Sound};
use remuda_core::job::JobState;
use remuda_core::name::InstallationId;
use remuda_core::observation::{Observation, Source, Subject};
use remuda_core::runner::InstanceId;
use remuda_core::snapshot::Change;
use remuda_core::{Action, Snapshot, Timestamp};

use crate::calls::Effect;
use crate::estate;
use crate::hardship::Hardship;
use crate::oracle::{self, Verdict};
use crate::rng::Rng;
use crate::truth::{TrueJob, Truth};

/// What one run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Determines everything.
    pub seed: u64,
    /// How many jobs arrive.
    pub jobs: u32,
    /// Over how many virtual hours.
    pub hours: u32,
    /// How hard the world is in that time. Afterwards nothing more goes wrong.
    pub hardship: Hardship,
    /// Keep the last lines of what happened.
    pub trace: bool,
}

/// A run in which every oracle was content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Jobs that arrived.
    pub jobs: u32,
    /// Turns of the controller.
    pub turns: u64,
    /// Events of the world.
    pub steps: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Instances made.
    pub made: u32,
    /// Times the controller was killed.
    pub crashes: u32,
    /// Rare things that happened.
    pub marks: BTreeSet<&'static str>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// A run in which an oracle objected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that repeats it.
    pub seed: u64,
    /// When, in virtual time since the start.
    pub at: Duration,
    /// What the oracle said.
    pub verdict: String,
    /// What happened before, if it was asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} after {:?}: {}", self.seed, self.at, self.verdict)
    }
}

/// Most lines of trace kept.
const TRACE_MAX: usize = 5000;
/// How long after the hardship's end all must be at rest.
const REST: Duration = Duration::from_hours(6);
/// While the forge refuses every registration, no more than this many are tried: three owners, each
/// once as it begins, then with waits that double up to five minutes.
const OUTAGE_CALLS_MAX: u32 = 50;
/// Within this time a second listing of one kind does not come back empty: long enough for one that
/// shows what there is to come between, however many answers are lost.
const SURPRISE: Duration = Duration::from_hours(1);
/// In a calm world, no job whose pool has room waits longer than this.
const CALM_WAIT: Duration = Duration::from_mins(15);

/// What can happen next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Arrive,
    Webhook(Box<Observation>),
    Tick,
    Effect(Box<Effect>),
    Answer { incarnation: u32, seen: Box<Seen> },
    Online(InstanceId),
    Deaf(InstanceId),
    Exit(InstanceId, i32),
    EndJob { job: u64, start: u32, lost: bool },
    PutBack { job: u64, start: u32 },
    Cancel(u64),
    Restart,
}

pub(crate) struct World<R> {
    pub(crate) settings: Settings,
    pub(crate) rules: R,
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    heap: BTreeMap<(Timestamp, u64), Event>,
    sequence: u64,
    pub(crate) truth: Truth,
    disk: Snapshot,
    controller: Option<Controller<R>>,
    pub(crate) incarnation: u32,
    inbox: Vec<Seen>,
    answers: Vec<Seen>,
    arrived: u32,
    calm_since: BTreeMap<u64, Timestamp>,
    emptied: BTreeMap<Subject, Timestamp>,
    /// Until when the forge refuses registrations.
    pub(crate) outage_until: Timestamp,
    /// How many it has refused in this outage.
    pub(crate) refused: u32,
    /// Runners that may rightly have been made in vain.
    pub(crate) waste: u32,
    pub(crate) report: Report,
}

/// Runs one history by the rules as they are.
pub fn simulate(settings: Settings) -> Result<Report, Failure> {
    simulate_with(settings, Sound)
}

/// Runs one history by other rules.
pub fn simulate_with<R: Rules + Clone>(settings: Settings, rules: R) -> Result<Report, Failure> {
    let mut world = World::new(settings, rules);
    match world.run() {
        Ok(()) => {
            world.report.jobs = world.arrived;
            world.report.made = world.truth.made;
            world.report.elapsed = world.now.since(Timestamp::from_millis(0));
            Ok(world.report)
        }
        Err(verdict) => Err(Failure {
            seed: settings.seed,
            at: world.now.since(Timestamp::from_millis(0)),
            verdict,
            trace: world.report.trace,
        }),
    }
}

impl<R: Rules + Clone> World<R> {
    fn new(settings: Settings, rules: R) -> Self {
        let installation = InstallationId::new("sim").expect("it is plain");
        let disk = Snapshot::new(installation, estate::fleet());
        let mut world = Self {
            settings,
            rules,
            rng: Rng::new(settings.seed),
            now: Timestamp::from_millis(0),
            heap: BTreeMap::new(),
            sequence: 0,
            truth: Truth::new(estate::forge()),
            disk,
            controller: None,
            incarnation: 0,
            inbox: Vec::new(),
            answers: Vec::new(),
            arrived: 0,
            calm_since: BTreeMap::new(),
            emptied: BTreeMap::new(),
            outage_until: Timestamp::from_millis(0),
            refused: 0,
            waste: 0,
            report: Report::default(),
        };
        for _ in 0..settings.jobs {
            let at = world.rng.span(0, u64::from(settings.hours) * 3_600_000);
            world.at(at, Event::Arrive);
        }
        world.at(Duration::ZERO, Event::Restart);
        world.at(Duration::ZERO, Event::Tick);
        world
    }

    pub(crate) fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.heap.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn mark(&mut self, mark: &'static str) {
        self.report.marks.insert(mark);
        self.note(|| mark.to_owned());
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.settings.trace && self.report.trace.len() < TRACE_MAX {
            let at = self.now.since(Timestamp::from_millis(0));
            self.report.trace.push(format!("{:>10.1}s {}", at.as_secs_f64(), line()));
        }
    }

    /// The faults in force now.
    pub(crate) fn hardship(&self) -> Hardship {
        let end = Timestamp::from_millis(0) + self.hours();
        if self.now < end { self.settings.hardship } else { Hardship::NONE }
    }

    fn hours(&self) -> Duration {
        Duration::from_hours(u64::from(self.settings.hours))
    }

    fn run(&mut self) -> Verdict {
        let end = Timestamp::from_millis(0) + self.hours();
        let mut rest_checked = end;
        while let Some(((at, _), event)) = self.heap.pop_first() {
            self.now = at;
            self.report.steps += 1;
            self.happen(event)?;
            if self.now > rest_checked + Duration::from_mins(10) {
                rest_checked = self.now;
                let verdict = oracle::at_rest(&self.truth, &self.disk, estate::MIN_IDLE);
                if verdict.is_ok() {
                    break;
                }
                if self.now > end + REST {
                    return verdict;
                }
            }
        }
        self.thrift()
    }

    /// No more runners were made than jobs and failures explain.
    fn thrift(&self) -> Verdict {
        let starts: u32 = self.truth.jobs.values().map(|job| job.starts + job.told_stale).sum();
        let idle = u32::try_from(estate::MIN_IDLE).unwrap_or(0);
        let explained = starts + self.waste + idle * (1 + self.report.crashes);
        if self.truth.made > explained + explained / 2 {
            return Err(format!(
                "{} instances were made for {starts} starts and {} failures",
                self.truth.made, self.waste
            ));
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Verdict {
        match event {
            Event::Arrive => self.arrive(),
            Event::Webhook(seen) => {
                self.inbox.push(Seen::Fact(*seen));
                return self.turn();
            }
            Event::Tick => {
                let busy =
                    self.disk.runners().any(|r| r.state < remuda_core::runner::RunnerState::Gone)
                        || self.truth.jobs.values().any(|job| job.state < JobState::Completed);
                self.at(Duration::from_secs(if busy { 5 } else { 60 }), Event::Tick);
                return self.turn();
            }
            Event::Effect(effect) => return self.land(*effect),
            Event::Answer { incarnation, seen } => {
                if incarnation == self.incarnation && self.controller.is_some() {
                    self.answers.push(*seen);
                    return self.turn();
                }
            }
            Event::Online(id) => self.online(id),
            Event::Deaf(id) => self.deafen(id),
            Event::Exit(id, code) => self.exit(id, code),
            Event::EndJob { job, start, lost } => self.end_job(job, start, lost),
            Event::PutBack { job, start } => self.put_back(job, start),
            Event::Cancel(job) => self.cancel(job),
            Event::Restart => {
                self.incarnation += 1;
                self.answers.clear();
                let mut world = self.disk.clone();
                world.now = self.now;
                world.epoch = u64::from(self.incarnation);
                self.controller = Some(Controller::with_rules(world, self.rules.clone()));
            }
        }
        Ok(())
    }

    /// One turn of the controller: fold, plan, commit, call. It may be killed at each of these points.
    fn turn(&mut self) -> Verdict {
        let Some(mut controller) = self.controller.take() else { return Ok(()) };
        self.report.turns += 1;
        let mut seen = self.inbox.clone();
        seen.append(&mut self.answers);
        let turn = controller.turn(self.now, seen);
        let hardship = self.hardship();
        let killed = self.rng.chance(hardship.crash).then(|| self.rng.below(3));
        if killed == Some(0) {
            self.mark("killed before the commit");
            self.die();
            return Ok(());
        }
        self.inbox.clear();
        for event in &turn.batch.events {
            let text = event.text.clone();
            self.note(|| text.to_string());
        }
        for change in turn.batch.changes.iter().filter(|change| change.is_durable()) {
            oracle::chain(&self.truth, &self.disk, change)?;
            self.disk.apply(std::slice::from_ref(change));
        }
        self.disk.now = self.now;
        oracle::limits(&self.truth, &self.disk)?;
        if turn.batch.changes.iter().any(Change::is_durable) {
            oracle::books(&self.disk)?;
        }
        explained(&controller)?;
        if self.refused > OUTAGE_CALLS_MAX {
            return Err(format!("{} registrations were tried in one outage", self.refused));
        }
        if killed == Some(1) {
            self.mark("killed between the commit and the calls");
            self.die();
            return Ok(());
        }
        let mut actions = turn.actions;
        if killed == Some(2) {
            actions.truncate(actions.len() / 2);
        }
        for action in actions {
            self.perform(action);
        }
        if killed == Some(2) {
            self.mark("killed with calls in flight");
            self.die();
        } else {
            self.controller = Some(controller);
        }
        self.served_in_time()
    }

    fn die(&mut self) {
        self.controller = None;
        self.report.crashes += 1;
        self.waste += 2;
        let down = self.rng.span(500, 180_000);
        self.at(down, Event::Restart);
    }

    /// In a calm world, no job waits long while a pool that fits it has room.
    fn served_in_time(&mut self) -> Verdict {
        if self.settings.hardship.crash > 0 {
            return Ok(());
        }
        let fleet = self.disk.fleet.clone();
        let count =
            |pool: &str| self.truth.instances.values().filter(|i| i.pool.as_str() == pool).count();
        let of_owner = |owner: &str| {
            self.truth.instances.values().filter(|i| i.scope.owner().as_str() == owner).count()
        };
        for (id, job) in &self.truth.jobs {
            let room = job.state == JobState::Queued
                && of_owner(job.scope.owner().as_str()) < fleet.tenants.default.cap as usize
                && fleet.pools.values().any(|pool| {
                    pool.labels.satisfies(&job.labels)
                        && (pool.scopes.is_empty() || pool.scopes.contains(&job.scope))
                        && count(pool.name.as_str()) < pool.max as usize
                });
            if !room {
                self.calm_since.remove(id);
                continue;
            }
            let since = *self.calm_since.entry(*id).or_insert(self.now);
            if self.now.since(since) > CALM_WAIT {
                return Err(format!("job {id} waits although a pool has room"));
            }
        }
        Ok(())
    }

    fn arrive(&mut self) {
        let owners = estate::owners();
        let index = self.rng.below(owners.len() as u64);
        let (tenant, scope) = owners[usize::try_from(index).unwrap_or(0)].clone();
        self.arrived += 1;
        let id = u64::from(self.arrived);
        let labels = estate::labels(&mut self.rng);
        let repository = estate::repository(&scope);
        let job = TrueJob {
            tenant,
            scope,
            repository,
            labels,
            state: JobState::Queued,
            conclusion: None,
            runner: None,
            named: None,
            queued_at: self.now,
            started_at: None,
            completed_at: None,
            starts: 0,
            put_back: 0,
            told_stale: 0,
            before: None,
        };
        self.truth.jobs.insert(id, job);
        self.note(|| format!("job {id} arrives"));
        self.webhook(id);
        if self.rng.chance(self.hardship().outage) && self.now >= self.outage_until {
            self.outage_until = self.now + self.rng.span(300_000, 1_800_000);
            self.refused = 0;
        }
        if self.rng.chance(self.hardship().cancelled) {
            let after = self.rng.span(0, 1_200_000);
            self.at(after, Event::Cancel(id));
        }
        self.assign();
    }

    /// Tells the controller of a job as it is now: maybe late, twice, or never.
    pub(crate) fn webhook(&mut self, id: u64) {
        let hardship = self.hardship();
        let copies = if self.rng.chance(hardship.webhook_lost) {
            self.mark("webhook lost");
            0
        } else if self.rng.chance(hardship.webhook_doubled) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = self.latency();
            let received_at = self.now + delay;
            let seen = self.truth.tell(id, Source::Delivery { received_at });
            if let Some(seen) = seen {
                self.at(delay, Event::Webhook(Box::new(Observation::Job(Box::new(seen)))));
            }
        }
    }

    /// How long something takes on the way: mostly little, sometimes longer than every constant.
    pub(crate) fn latency(&mut self) -> Duration {
        if self.rng.chance(self.hardship().delay_huge) {
            self.mark("huge delay");
            return self.rng.span(300_000, 7_200_000);
        }
        self.rng.span(5, 1500)
    }

    /// How far behind the replica is that answers a read of jobs.
    pub(crate) fn lag(&mut self) -> Duration {
        if self.rng.chance(self.hardship().stale) {
            return self.rng.span(1000, 60_000);
        }
        Duration::ZERO
    }

    /// True if a listing shows nothing although there may be something: a surprise, not a habit.
    pub(crate) fn comes_back_empty(&mut self, look: &Look) -> bool {
        let subject = look.subject();
        let lately = self.emptied.get(&subject).is_some_and(|at| self.now.since(*at) < SURPRISE);
        let empty = self.rng.chance(self.hardship().listing_empty) && !lately;
        if empty {
            self.mark("listing empty by surprise");
            self.emptied.insert(subject, self.now);
        }
        empty
    }

    fn perform(&mut self, action: Action) {
        crate::calls::begin(self, action);
    }

    /// A call has its effect.
    fn land(&mut self, effect: Effect) -> Verdict {
        crate::calls::land(self, effect)
    }
}

/// Every job that asks for a runner is told why it has none.
fn explained<R: Rules>(controller: &Controller<R>) -> Verdict {
    let silent = controller
        .world()
        .jobs()
        .filter(|job| job.attempt.state <= JobState::Queued)
        .find(|job| controller.reasons(&job.key).is_none_or(|(_, why)| why.is_empty()));
    match silent {
        Some(job) => Err(format!("job {} waits and nobody says why", job.key)),
        None => Ok(()),
    }
}
