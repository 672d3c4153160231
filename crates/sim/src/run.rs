//! One history: a heap of (virtual time, event) around two controllers, their database and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use remuda_core::action::Look;
use remuda_core::controller::{Rules, Seen};
use remuda_core::job::JobState;
use remuda_core::observation::{Observation, Source, Subject};
use remuda_core::reason::DrainKey;
use remuda_core::runner::InstanceId;
use remuda_core::{Action, Timestamp};

use crate::calls::{self, Effect, Step};
use crate::database::Database;
use crate::estate;
use crate::fair::Fairness;
use crate::hardship::Hardship;
use crate::hooks::Hooks;
use crate::marks::{Mark, Marks};
use crate::oracle::{self, Verdict};
use crate::order::Orders;
use crate::outside::Outside;
use crate::replica::{Caller, Replica};
use crate::rng::Rng;
use crate::spell::Spell;
use crate::truth::{TrueJob, Truth};
use crate::watch::Watch;

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

/// Where a leader is killed on purpose, counted by its durable commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Just before this commit.
    Before(u64),
    /// After this commit, when so many of its calls have been begun.
    After(u64, usize),
}

/// A run in which every oracle was content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Jobs that arrived.
    pub jobs: u32,
    /// Turns of the controllers.
    pub turns: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Events of the world.
    pub steps: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Instances made.
    pub made: u32,
    /// Times a controller was killed.
    pub crashes: u32,
    /// The longest that a job waited while a pool had room and the outside answered.
    pub waited: Duration,
    /// The longest that something outside had no owner while the outside answered.
    pub ownerless: Duration,
    /// Rare things that happened.
    pub marks: Marks,
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

/// At least so many last lines of trace are kept, and fewer than twice as many.
const TRACE_KEPT: usize = 5000;
/// How long after the hardship's end all must be at rest, jobs that hang included.
const REST: Duration = Duration::from_hours(10);
/// The same where the forge has lost a job, which it must deny for a day.
const REST_WITH_DENIAL: Duration = Duration::from_hours(36);
/// Within this time a second listing of one kind does not come back empty, nor before one asked later
/// was taken in.
const SURPRISE: Duration = Duration::from_hours(1);

/// What can happen next.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive,
    /// An attempt at a delivery, by its number.
    Webhook(u64, Box<Observation>),
    /// A process looks at the lease and, if it leads, at its books.
    Tick(Caller),
    /// What a leader has gathered is taken in.
    Turn(Caller),
    CommitAgain(Caller),
    Calls(Caller, Vec<Action>),
    Step(Box<Step>),
    Effect(Box<Effect>),
    Answer(Caller, Box<Seen>),
    Start(usize),
    Kill,
    Online(InstanceId),
    Deaf(InstanceId),
    Exit(InstanceId, i32),
    /// An instance ends if it has no job.
    Faint(InstanceId),
    EndJob {
        job: u64,
        start: u32,
        lost: bool,
    },
    PutBack {
        job: u64,
        start: u32,
    },
    Cancel(u64),
    Vanish(u64),
    /// Somebody looks whether a drain is as ordered.
    Wish(DrainKey),
    /// Somebody ends a drain.
    Reopen(DrainKey),
}

impl Event {
    /// The process that it happens in, if it happens in one.
    fn process(&self) -> Option<Caller> {
        match self {
            Self::Tick(caller)
            | Self::Turn(caller)
            | Self::CommitAgain(caller)
            | Self::Calls(caller, _)
            | Self::Answer(caller, _) => Some(*caller),
            Self::Step(step) => Some(step.caller),
            Self::Arrive
            | Self::Webhook(..)
            | Self::Effect(_)
            | Self::Start(_)
            | Self::Kill
            | Self::Online(_)
            | Self::Deaf(_)
            | Self::Exit(..)
            | Self::Faint(_)
            | Self::EndJob { .. }
            | Self::PutBack { .. }
            | Self::Cancel(_)
            | Self::Vanish(_)
            | Self::Wish(_)
            | Self::Reopen(_) => None,
        }
    }
}

pub(crate) struct World<R> {
    pub(crate) settings: Settings,
    pub(crate) kill: Option<Kill>,
    pub(crate) rules: R,
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    heap: BTreeMap<(Timestamp, u64), Event>,
    sequence: u64,
    pub(crate) truth: Truth,
    pub(crate) database: Database,
    pub(crate) replicas: [Replica<R>; 2],
    pub(crate) outside: Outside,
    pub(crate) spell: Spell,
    pub(crate) orders: Orders,
    pub(crate) hooks: Hooks,
    pub(crate) watch: Watch,
    pub(crate) fairness: Fairness,
    arrived: u32,
    /// Webhooks that are days late and still to come.
    late: BTreeSet<(Timestamp, u64)>,
    emptied: BTreeMap<Subject, Timestamp>,
    /// Runners that may rightly have been made in vain.
    pub(crate) waste: u32,
    pub(crate) report: Report,
}

/// Runs one history by the rules as they are.
pub fn simulate(settings: Settings) -> Result<Report, Failure> {
    simulate_with(settings, remuda_core::Sound)
}

/// Runs one history by other rules.
pub fn simulate_with<R: Rules + Clone>(settings: Settings, rules: R) -> Result<Report, Failure> {
    World::new(settings, None, rules).history()
}

/// Runs one history in which the leader is killed at this point.
pub fn simulate_killed<R: Rules + Clone>(
    settings: Settings,
    kill: Kill,
    rules: R,
) -> Result<Report, Failure> {
    World::new(settings, Some(kill), rules).history()
}

impl<R: Rules + Clone> World<R> {
    fn new(settings: Settings, kill: Option<Kill>, rules: R) -> Self {
        let mut world = Self {
            settings,
            kill,
            rules,
            rng: Rng::new(settings.seed),
            now: Timestamp::from_millis(0),
            heap: BTreeMap::new(),
            sequence: 0,
            truth: Truth::new(estate::forge()),
            database: Database::new(estate::fleet()),
            replicas: [Replica::new(), Replica::new()],
            outside: Outside::default(),
            spell: Spell::default(),
            orders: Orders::default(),
            hooks: Hooks::default(),
            watch: Watch::default(),
            fairness: Fairness::default(),
            arrived: 0,
            late: BTreeSet::new(),
            emptied: BTreeMap::new(),
            waste: 0,
            report: Report::default(),
        };
        if world.rng.chance(settings.hardship.unswept) {
            world.mark(Mark::Unswept);
            world.hooks.alone = true;
            world.database = Database::new(estate::unswept());
        }
        let span = u64::from(settings.hours) * 3_600_000;
        for _ in 0..settings.jobs {
            let at = world.rng.span(0, span);
            world.at(at, Event::Arrive);
        }
        if settings.hardship.crash > 0 {
            let at = world.rng.span(0, span);
            world.at(at, Event::Kill);
        }
        world.set_clocks();
        calls::place_foreigners(&mut world);
        world.at(Duration::ZERO, Event::Start(0));
        world.at(Duration::from_millis(700), Event::Start(1));
        world
    }

    fn history(mut self) -> Result<Report, Failure> {
        let verdict = self.run();
        let elapsed = self.now.since(Timestamp::from_millis(0));
        match verdict {
            Ok(()) => {
                self.report.jobs = self.arrived;
                self.report.made = self.truth.made;
                self.report.elapsed = elapsed;
                self.report.waited = self.watch.waited;
                self.report.ownerless = self.watch.ownerless;
                Ok(self.report)
            }
            Err(verdict) => Err(Failure {
                seed: self.settings.seed,
                at: elapsed,
                verdict,
                trace: self.report.trace,
            }),
        }
    }

    pub(crate) fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.heap.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.report.marks.insert(mark);
        self.note(|| mark.as_str().to_owned());
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.settings.trace {
            if self.report.trace.len() == 2 * TRACE_KEPT {
                self.report.trace.drain(..TRACE_KEPT);
            }
            let at = self.now.since(Timestamp::from_millis(0));
            self.report.trace.push(format!("{:>10.1}s {}", at.as_secs_f64(), line()));
        }
    }

    /// The faults in force now.
    pub(crate) fn hardship(&self) -> Hardship {
        if self.now < self.calm_from() { self.settings.hardship } else { Hardship::NONE }
    }

    /// From when on nothing more goes wrong.
    pub(crate) fn calm_from(&self) -> Timestamp {
        Timestamp::from_millis(0) + Duration::from_hours(u64::from(self.settings.hours))
    }

    fn run(&mut self) -> Verdict {
        let mut rest_checked = self.calm_from();
        let mut calm_at = rest_checked;
        while let Some(((at, _), event)) = self.heap.pop_first() {
            self.now = at;
            self.report.steps += 1;
            self.happen(event)?;
            if self.now > rest_checked + Duration::from_mins(10) {
                rest_checked = self.now;
                let verdict = oracle::at_rest(&self.truth, self.database.books());
                let rests = verdict.is_ok();
                if rests && !self.skip_to_what_is_late() {
                    break;
                }
                if rests {
                    rest_checked = self.now;
                    calm_at = self.now;
                } else if self.now > calm_at + self.rest() {
                    return verdict;
                }
            }
        }
        oracle::books(self.database.books())?;
        self.thrift()
    }

    fn rest(&self) -> Duration {
        let lost = self.truth.jobs.values().any(|job| job.vanished);
        if lost { REST_WITH_DENIAL } else { REST }
    }

    /// Nobody is at work until the next webhook that is days late: neither controller runs meanwhile.
    fn skip_to_what_is_late(&mut self) -> bool {
        let now = self.now;
        self.late.retain(|(at, _)| *at > now);
        let Some(next) = self.late.pop_first() else { return false };
        let Some(webhook) = self.heap.remove(&next) else { return true };
        self.heap.clear();
        for at in 0..self.replicas.len() {
            self.end_process(at);
        }
        self.now = next.0;
        self.mark(Mark::WebhookAgesLate);
        self.at(Duration::ZERO, Event::Start(0));
        self.at(Duration::ZERO, Event::Start(1));
        self.at(Duration::from_secs(30), webhook);
        true
    }

    /// No more runners were made than jobs and failures explain.
    fn thrift(&self) -> Verdict {
        let starts: u32 = self.truth.jobs.values().map(|job| job.starts + job.told_stale).sum();
        let explained = starts + self.waste + estate::MIN_IDLE * (1 + self.report.crashes);
        if self.truth.made > explained + explained / 2 {
            return Err(format!(
                "{} instances were made for {starts} starts and {} failures",
                self.truth.made, self.waste
            ));
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Verdict {
        if let Some(caller) = event.process() {
            if !self.lives(caller) {
                return Ok(());
            }
            let until = self.replicas[caller.replica].paused_until;
            if self.now < until {
                let after = until.since(self.now);
                self.at(after, event);
                return Ok(());
            }
        }
        match event {
            Event::Arrive => self.arrive(),
            Event::Webhook(guid, seen) => self.deliver(guid, *seen),
            Event::Tick(caller) => return self.tick(caller),
            Event::Turn(caller) => return self.turn(caller),
            Event::CommitAgain(caller) => return self.commit(caller),
            Event::Calls(caller, actions) => self.begin_all(caller, actions),
            Event::Step(step) => calls::step(self, *step),
            Event::Effect(effect) => return calls::land(self, *effect),
            Event::Answer(caller, seen) => self.answered(caller, *seen),
            Event::Start(replica) => self.start(replica),
            Event::Kill => {
                if let Some(leader) = self.leader() {
                    self.mark(Mark::KilledAtRest);
                    self.die(leader);
                }
            }
            Event::Online(id) => self.online(id),
            Event::Deaf(id) => self.deafen(id),
            Event::Exit(id, code) => self.exit(id, code),
            Event::Faint(id) => self.faint(id),
            Event::EndJob { job, start, lost } => self.end_job(job, start, lost),
            Event::PutBack { job, start } => self.put_back(job, start),
            Event::Cancel(job) => self.cancel(job),
            Event::Vanish(job) => self.vanish(job),
            Event::Wish(what) => self.wish(what),
            Event::Reopen(what) => self.reopen(what),
        }
        Ok(())
    }

    fn arrive(&mut self) {
        let owners = estate::owners();
        let index = self.rng.below(owners.len() as u64);
        let (tenant, scope, repository) = &owners[usize::try_from(index).unwrap_or(0)];
        self.arrived += 1;
        let id = u64::from(self.arrived);
        let labels = estate::labels(&mut self.rng);
        let job = TrueJob {
            tenant: tenant.clone(),
            scope: scope.clone(),
            repository: repository.clone(),
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
            vanished: false,
            cancel: None,
            before: None,
        };
        self.truth.put_job(id, job);
        self.note(|| format!("job {id} arrives"));
        self.webhook(id);
        self.decide_fate(id);
        self.begin_outage();
        self.begin_spell();
        self.begin_drain();
        self.jump_clock();
        self.assign();
    }

    /// Tells the controllers of a job as it is now: maybe late, twice, or never.
    pub(crate) fn webhook(&mut self, id: u64) {
        let hardship = self.hardship();
        let copies = if self.rng.chance(hardship.webhook_lost) {
            self.mark(Mark::WebhookLost);
            0
        } else if self.rng.chance(hardship.webhook_doubled) {
            self.mark(Mark::WebhookDoubled);
            2
        } else {
            1
        };
        let guid = self.hooks.number();
        if copies == 0
            && let Some(seen) = self.truth.tell(id, Source::Delivery { received_at: self.now })
        {
            self.hooks.fails(guid, &Observation::Job(Box::new(seen)), self.now);
        }
        for _ in 0..copies {
            let ages = self.rng.chance(hardship.webhook_ages);
            let delay = if ages {
                self.rng.span(86_400_000, millis(Hardship::LONGEST_AGE))
            } else {
                self.latency()
            };
            let received_at = self.now + delay;
            let source = Source::Delivery { received_at };
            if let Some(seen) = self.truth.tell(id, source) {
                let seen = Box::new(Observation::Job(Box::new(seen)));
                if delay >= Duration::from_mins(5) {
                    // The forge does not wait so long for an answer.
                    self.hooks.fails(guid, &seen, self.now);
                }
                self.at(delay, Event::Webhook(guid, seen));
                if ages {
                    self.late.insert((received_at, self.sequence));
                }
            }
        }
    }

    /// How long something takes on the way: mostly little, sometimes longer than every constant.
    pub(crate) fn latency(&mut self) -> Duration {
        if self.rng.chance(self.hardship().delay_huge) {
            self.mark(Mark::HugeDelay);
            let hours =
                if self.rng.chance(20) { millis(Hardship::LONGEST_DELAY) } else { 7_200_000 };
            return self.rng.span(300_000, hours);
        }
        self.rng.span(5, 1500)
    }

    /// How far behind the replica is that answers a read.
    pub(crate) fn lag(&mut self) -> Duration {
        if self.rng.chance(self.hardship().stale) {
            return self.rng.span(1000, 60_000);
        }
        Duration::ZERO
    }

    /// How much of a listing is missing although it is there, in 1000: a surprise, not a habit, unless
    /// the world's listings lie for long.
    pub(crate) fn comes_back_short(&mut self, look: &Look) -> u32 {
        let hardship = self.hardship();
        let empty = self.rng.chance(hardship.listing_empty);
        let partial = self.rng.chance(hardship.listing_partial);
        let subject = look.subject();
        if self.is_lying(&subject) {
            return 1000;
        }
        if !(empty || partial) || !self.may_surprise(&subject) {
            return 0;
        }
        self.mark(if empty { Mark::ListingEmpty } else { Mark::ListingPartial });
        if empty { 1000 } else { 500 }
    }

    /// True while listings of one kind go on coming back empty because one was wrong. Those of failed
    /// deliveries do not: where nothing else tells of jobs, what is denied for so long is lost.
    pub(crate) fn is_lying(&self, subject: &Subject) -> bool {
        if matches!(subject, Subject::Deliveries(..)) {
            return false;
        }
        let last = self.hardship().lies_last;
        self.emptied.get(subject).is_some_and(|at| self.now.since(*at) < last)
    }

    /// True if a listing may be wrong once more, which is then noted.
    pub(crate) fn may_surprise(&mut self, subject: &Subject) -> bool {
        let pause = SURPRISE.max(self.hardship().lies_last * 2);
        let lately = self.emptied.get(subject).is_some_and(|at| {
            self.now.since(*at) < pause || self.looked_at(subject).is_none_or(|seen| seen <= *at)
        });
        if !lately {
            self.emptied.insert(subject.clone(), self.now);
        }
        !lately
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
