//! The two controllers: processes that are started, killed, stopped and woken, each with a clock of its
//! own, of which the one with the lease turns its books into calls.

use std::time::Duration;

use remuda_core::controller::{Controller, Rules, Seen, Turn};
use remuda_core::observation::{Observation, Subject};
use remuda_core::snapshot::Change;
use remuda_core::{Action, Timestamp};

use crate::calls;
use crate::hardship::Hardship;
use crate::marks::Mark;
use crate::oracle::{self, Verdict};
use crate::run::{Event, Kill, World, millis};
use crate::{order, spell};

/// A process of one of the controllers: what it began dies with it, what it sent does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) replica: usize,
    pub(crate) process: u32,
}

/// One of the controllers.
pub(crate) struct Replica<R> {
    /// The process it is now, if it runs: a number that no other process of either has.
    process: Option<u32>,
    /// Until when it is stopped.
    pub(crate) paused_until: Timestamp,
    /// How far its clock is ahead of the database's, in milliseconds.
    skew: i64,
    leading: Option<Leading<R>>,
}

/// What a controller that has, or believes to have, the lease is at.
struct Leading<R> {
    epoch: u64,
    controller: Controller<R>,
    gathered: Vec<Seen>,
    /// A turn is to come that takes in what was gathered.
    awaited: bool,
    turned_at: Timestamp,
    decoded: u64,
    uncommitted: Option<Turn>,
    /// The uncommitted turn is in the books, which its writer does not know.
    applied: bool,
}

impl<R> Replica<R> {
    pub(crate) fn new() -> Self {
        Self { process: None, paused_until: Timestamp::from_millis(0), skew: 0, leading: None }
    }
}

/// Where a leader dies in a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeCommit,
    AmongCalls(usize),
}

/// The longest that a leader waits for more to take in with the same turn, in milliseconds: one of
/// these in each history.
const RESTS: [u64; 3] = [100, 2000, 4000];
/// The longest between two turns of a leader to which nothing happens, in seconds: one of these in each
/// history.
const TURNS: [u64; 3] = [10, 30, 60];
/// The server checks its books after every turn; here it is done after one in so many.
const CHECKED: u64 = 8;

impl<R: Rules + Clone> World<R> {
    /// Gives each controller a clock that is off by its own amount.
    pub(crate) fn set_clocks(&mut self) {
        self.outside.rest = self.rng.pick(&RESTS).unwrap_or(0);
        self.outside.turn = Duration::from_secs(self.rng.pick(&TURNS).unwrap_or(0));
        let most = self.settings.hardship.skew;
        for at in 0..self.replicas.len() {
            let off = i64::try_from(self.rng.below(2 * most + 1)).unwrap_or(0);
            self.replicas[at].skew = off - i64::try_from(most).unwrap_or(0);
        }
    }

    /// What a controller's clock shows.
    pub(crate) fn clock(&self, replica: usize) -> Timestamp {
        let skew = self.replicas[replica].skew;
        Timestamp::from_millis(self.outside.clock(self.now).as_millis() + skew)
    }

    /// True if the process still runs.
    pub(crate) fn lives(&self, caller: Caller) -> bool {
        self.replicas[caller.replica].process == Some(caller.process)
    }

    fn process(&self, replica: usize) -> Option<Caller> {
        self.replicas[replica].process.map(|process| Caller { replica, process })
    }

    /// The process whose lease is in force.
    pub(crate) fn leader(&self) -> Option<Caller> {
        let holder = self.database.holder(self.outside.clock(self.now))?;
        (0..self.replicas.len())
            .filter_map(|at| self.process(at))
            .find(|caller| caller.process == holder)
    }

    pub(crate) fn start(&mut self, replica: usize) {
        self.outside.processes += 1;
        let process = self.outside.processes;
        let now = self.now;
        let one = &mut self.replicas[replica];
        one.process = Some(process);
        one.paused_until = now;
        one.leading = None;
        self.at(Duration::ZERO, Event::Tick(Caller { replica, process }));
    }

    /// Ends a process without a word.
    pub(crate) fn end_process(&mut self, replica: usize) {
        self.replicas[replica].process = None;
        self.replicas[replica].leading = None;
    }

    /// Kills a process; another is started in its place after a while.
    pub(crate) fn die(&mut self, caller: Caller) {
        self.end_process(caller.replica);
        self.report.crashes += 1;
        self.waste += 2;
        let down = self.rng.span(500, 180_000);
        self.at(down, Event::Start(caller.replica));
    }

    /// Stops a process, which goes on later as if nothing had been.
    fn pause(&mut self, caller: Caller) {
        self.mark(Mark::LeaderPaused);
        self.waste += 2;
        let longest = if self.rng.chance(500) { 60_000 } else { millis(Hardship::LONGEST_PAUSE) };
        let span = self.rng.span(100, longest);
        self.replicas[caller.replica].paused_until = self.now + span;
    }

    /// Every few seconds a leader renews its lease, the other one tries to get it.
    pub(crate) fn tick(&mut self, caller: Caller) -> Verdict {
        let next = self.rng.span(2000, 6000);
        self.at(next, Event::Tick(caller));
        self.watch()?;
        let epoch = self.database.lease(caller.process, self.outside.clock(self.now));
        let leading = self.replicas[caller.replica].leading.as_ref().map(|lead| lead.epoch);
        match (leading, epoch) {
            (None, None) => Ok(()),
            (None, Some(epoch)) => {
                self.lead(caller, epoch);
                self.turn(caller)
            }
            (Some(old), Some(new)) if old == new => {
                let now = self.now;
                let most = self.outside.turn;
                let lead = self.replicas[caller.replica].leading.as_ref();
                let rested = lead.is_some_and(|lead| now.since(lead.turned_at) >= most);
                if rested || self.rng.chance(100) { self.turn(caller) } else { Ok(()) }
            }
            // It has been without a lease, whoever had it meanwhile: the process ends.
            (Some(_), _) => {
                self.mark(Mark::Fenced);
                self.die(caller);
                Ok(())
            }
        }
    }

    /// When the newest listing was asked that the leader has taken in.
    pub(crate) fn looked_at(&self, subject: &Subject) -> Option<Timestamp> {
        let leader = self.leader()?;
        let lead = self.replicas[leader.replica].leading.as_ref()?;
        lead.controller.world().looked(subject).asked_at
    }

    fn lead(&mut self, caller: Caller, epoch: u64) {
        if self.outside.led_by.is_some_and(|last| last != caller.replica) {
            self.mark(Mark::LeaderChanged);
        }
        self.note(|| format!("controller {} leads in epoch {epoch}", caller.replica));
        self.outside.led_by = Some(caller.replica);
        let world = self.database.load(epoch);
        self.replicas[caller.replica].leading = Some(Leading {
            epoch,
            controller: Controller::with_rules(world, self.rules.clone()),
            gathered: Vec::new(),
            awaited: false,
            turned_at: self.now,
            decoded: 0,
            uncommitted: None,
            applied: false,
        });
    }

    /// A delivery reaches whichever controller runs; if none does, it fails.
    pub(crate) fn deliver(&mut self, guid: u64, mut seen: Observation) {
        let able: Vec<usize> = (0..self.replicas.len())
            .filter(|at| self.process(*at).is_some() && self.now >= self.replicas[*at].paused_until)
            .collect();
        let Some(at) = self.rng.pick(&able) else {
            self.mark(Mark::WebhookLost);
            if self.hooks.may_fail(guid) || !self.hooks.alone {
                self.hooks.fails(guid, &seen, self.now);
            } else {
                self.at(Duration::from_secs(30), Event::Webhook(guid, Box::new(seen)));
            }
            return;
        };
        self.hooks.succeeds(guid);
        calls::receive(&mut seen, self.clock(at));
        self.database.accept(seen);
        if let Some(leader) = self.leader() {
            self.await_turn(leader);
        }
    }

    /// A call of a process ends.
    pub(crate) fn answered(&mut self, caller: Caller, seen: Seen) {
        if let Some(lead) = &mut self.replicas[caller.replica].leading {
            lead.gathered.push(seen);
            self.await_turn(caller);
        }
    }

    /// What arrives within a moment is taken in by one turn.
    fn await_turn(&mut self, caller: Caller) {
        let Some(lead) = &mut self.replicas[caller.replica].leading else { return };
        if !lead.awaited {
            lead.awaited = true;
            let rest = self.rng.span(0, self.outside.rest);
            self.at(rest, Event::Turn(caller));
        }
    }

    /// One turn of a controller: fold, plan, commit, call.
    pub(crate) fn turn(&mut self, caller: Caller) -> Verdict {
        let now = self.clock(caller.replica);
        let Some(lead) = &mut self.replicas[caller.replica].leading else { return Ok(()) };
        if lead.uncommitted.is_some() {
            return Ok(());
        }
        self.report.turns += 1;
        lead.awaited = false;
        lead.turned_at = self.now;
        let mut seen = std::mem::take(&mut lead.gathered);
        for (number, delivery) in self.database.undecoded(lead.decoded) {
            lead.decoded = *number;
            seen.push(Seen::Fact(delivery.clone()));
        }
        lead.uncommitted = Some(lead.controller.turn(now, seen));
        let hardship = self.hardship();
        if self.rng.chance(hardship.pause) {
            self.pause(caller);
            self.at(Duration::ZERO, Event::CommitAgain(caller));
            return Ok(());
        }
        self.commit(caller)
    }

    /// Commits what a turn came to, then makes its calls.
    pub(crate) fn commit(&mut self, caller: Caller) -> Verdict {
        let Some(lead) = &mut self.replicas[caller.replica].leading else { return Ok(()) };
        let Some(turn) = lead.uncommitted.take() else { return Ok(()) };
        let (epoch, decoded, applied) = (lead.epoch, lead.decoded, lead.applied);
        let writes = turn.batch.changes.iter().any(Change::is_durable);
        let death = self.death(writes, turn.actions.len());
        if death == Some(Death::BeforeCommit) {
            self.mark(Mark::KilledBeforeCommit);
            self.die(caller);
            return Ok(());
        }
        if turn.batch.is_idle() && self.database.undecoded(0).all(|(n, _)| *n > decoded) {
            // Nothing to write, so nobody asks the database whose the lease is.
            self.call(caller, turn.actions, death);
            return Ok(());
        }
        if !self.database.in_force(epoch, self.outside.clock(self.now)) {
            self.mark(Mark::Fenced);
            self.die(caller);
            return Ok(());
        }
        let unknown = writes && self.rng.chance(self.hardship().commit_unknown);
        if unknown && self.rng.chance(500) {
            self.mark(Mark::CommitNotApplied);
            self.commit_later(caller, turn, applied);
            return Ok(());
        }
        if let Some(lead) = &self.replicas[caller.replica].leading {
            let changes = &turn.batch.changes;
            let (books, world) = (self.database.books(), lead.controller.world());
            oracle::no_duplicates(books, world, changes)?;
            spell::quarantined(books, world, changes)?;
        }
        self.write(&turn, decoded, writes, applied)?;
        order::drained(self.database.books(), &turn.actions)?;
        if let Some(lead) = &self.replicas[caller.replica].leading {
            let now = lead.controller.world().now;
            spell::waited_out(self.database.books(), now, &turn.actions)?;
        }
        if unknown {
            self.mark(Mark::CommitApplied);
            self.commit_later(caller, turn, true);
            return Ok(());
        }
        if let Some(lead) = &mut self.replicas[caller.replica].leading {
            lead.applied = false;
        }
        self.in_order(caller, writes)?;
        self.call(caller, turn.actions, death);
        Ok(())
    }

    /// Its writer does not know what became of it, and writes it again.
    fn commit_later(&mut self, caller: Caller, turn: Turn, applied: bool) {
        if let Some(lead) = &mut self.replicas[caller.replica].leading {
            lead.uncommitted = Some(turn);
            lead.applied = applied;
        }
        self.at(Duration::from_secs(1), Event::CommitAgain(caller));
    }

    /// Takes a batch into the books. One that is there already changes nothing: it is not looked at row
    /// by row, because within a batch one row may take several steps.
    fn write(&mut self, turn: &Turn, decoded: u64, writes: bool, again: bool) -> Verdict {
        if again {
            let before = self.database.books().clone();
            self.database.write(&turn.batch.changes, decoded);
            return if before == *self.database.books() {
                Ok(())
            } else {
                Err("a batch that was written twice is not as written once".to_owned())
            };
        }
        for event in &turn.batch.events {
            self.note(|| event.text.to_string());
        }
        self.recognize(&turn.batch);
        let mut made = Vec::new();
        for change in turn.batch.changes.iter().filter(|change| change.is_durable()) {
            if let Change::Runner(row) = change
                && self.database.books().runner(row.id).is_none()
            {
                made.push((**row).clone());
            }
            if let Some(runner) = oracle::forsaken(&self.truth, self.database.books(), change) {
                self.forsaken(runner)?;
            }
            oracle::chain(self.database.books(), change)?;
            self.database.write(std::slice::from_ref(change), 0);
        }
        self.database.write(&[], decoded);
        self.fairness.check(
            self.database.books(),
            &made,
            self.now,
            self.settings.hardship.level,
        )?;
        self.report.commits += u64::from(writes);
        Ok(())
    }

    /// What must hold after a commit.
    fn in_order(&mut self, caller: Caller, writes: bool) -> Verdict {
        let Some(lead) = &self.replicas[caller.replica].leading else { return Ok(()) };
        if writes {
            oracle::explained(&lead.controller)?;
            if self.report.commits.is_multiple_of(CHECKED) {
                oracle::books(lead.controller.world())?;
            }
        }
        self.tried_seldom()?;
        self.outside.patient()
    }

    fn call(&mut self, caller: Caller, mut actions: Vec<Action>, death: Option<Death>) {
        if let Some(Death::AmongCalls(begun)) = death {
            let all = actions.len();
            actions.truncate(begun);
            self.mark(match begun {
                0 => Mark::KilledAfterCommit,
                some if some < all => Mark::KilledAmongCalls,
                _ => Mark::KilledAtRest,
            });
            self.begin_all(caller, actions);
            self.die(caller);
        } else if !actions.is_empty() && self.rng.chance(self.hardship().pause) {
            self.pause(caller);
            self.at(Duration::ZERO, Event::Calls(caller, actions));
        } else {
            self.begin_all(caller, actions);
        }
    }

    pub(crate) fn begin_all(&mut self, caller: Caller, actions: Vec<Action>) {
        for action in actions {
            calls::begin(self, caller, action);
        }
    }

    fn death(&mut self, writes: bool, calls: usize) -> Option<Death> {
        let next = self.report.commits + 1;
        match self.kill {
            Some(Kill::Before(commit)) if writes && commit == next => {
                self.kill = None;
                return Some(Death::BeforeCommit);
            }
            Some(Kill::After(commit, begun)) if writes && commit == next => {
                self.kill = None;
                return Some(Death::AmongCalls(begun.min(calls)));
            }
            Some(_) | None => {}
        }
        if !self.rng.chance(self.hardship().crash) {
            return None;
        }
        let begun = self.rng.below(calls as u64 + 2);
        Some(match usize::try_from(begun).unwrap_or(0).checked_sub(1) {
            None => Death::BeforeCommit,
            Some(begun) => Death::AmongCalls(begun),
        })
    }
}
