//! What of the outside works: outages, limits, and the clock that everybody goes by.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_core::Timestamp;
use remuda_core::controller::Rules;
use remuda_core::name::{Login, ProviderName};
use remuda_core::observation::{Cause, Observation, Subject};
use remuda_core::tenant::Scope;

use crate::estate;
use crate::marks::Mark;
use crate::oracle::Verdict;
use crate::run::World;

/// What does not work, until when.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// How far the database's clock is ahead of true time, in milliseconds.
    ahead: i64,
    /// Processes ever started.
    pub(crate) processes: u32,
    /// The controller that led last.
    pub(crate) led_by: Option<usize>,
    /// The longest that a leader gathers before it turns, in milliseconds.
    pub(crate) rest: u64,
    /// The longest between two turns of a leader to which nothing happens.
    pub(crate) turn: Duration,
    registers_from: Timestamp,
    /// How many registrations were refused in this outage.
    refused: u32,
    refused_max: u32,
    answers_from: Timestamp,
    provider: Option<(ProviderName, Timestamp)>,
    limited: Option<(Login, Timestamp)>,
    /// Listings that a replica may show a second time.
    pub(crate) lagging: BTreeMap<Subject, (Timestamp, Observation)>,
    /// A provider's listings tell of another installation's instance.
    pub(crate) foreigners: bool,
}

impl Outside {
    /// The database's clock.
    pub(crate) fn clock(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis() + self.ahead)
    }

    /// True if nothing is broken.
    pub(crate) fn answers(&self, now: Timestamp) -> bool {
        now >= self.registers_from
            && now >= self.answers_from
            && self.provider.as_ref().is_none_or(|(_, until)| now >= *until)
            && self.limited.as_ref().is_none_or(|(_, until)| now >= *until)
    }

    /// Why a call to the forge comes to nothing, if it does.
    pub(crate) fn forge_fails(&self, now: Timestamp, scope: &Scope) -> Option<Cause> {
        if now < self.answers_from {
            return Some(Cause::Transient);
        }
        let (owner, until) = self.limited.as_ref()?;
        // What is said of when is said in the forge's time, which is everybody's.
        (now < *until && owner == scope.owner())
            .then(|| Cause::Limited { until: self.clock(*until) })
    }

    /// True if a registration is refused.
    pub(crate) fn refuses(&mut self, now: Timestamp) -> bool {
        let refused = now < self.registers_from;
        self.refused += u32::from(refused);
        refused
    }

    /// True if calls to the provider come to nothing.
    pub(crate) fn provider_fails(&self, now: Timestamp, provider: &ProviderName) -> bool {
        self.provider.as_ref().is_some_and(|(name, until)| name == provider && now < *until)
    }

    /// While the forge refuses every registration, few are tried: three owners, each once as it begins,
    /// then with waits that double up to five minutes; some more for those that were under way.
    pub(crate) fn patient(&self) -> Verdict {
        if self.refused > self.refused_max {
            return Err(format!("{} registrations were tried in one outage", self.refused));
        }
        Ok(())
    }
}

impl<R: Rules + Clone> World<R> {
    /// Something may stop working now.
    pub(crate) fn begin_outage(&mut self) {
        let hardship = self.hardship();
        if !self.rng.chance(hardship.outage) || !self.outside.answers(self.now) {
            return;
        }
        let longest = if self.rng.chance(700) { 30 } else { hardship.outage_longest };
        let span = self.rng.span(300_000, longest.max(6) * 60_000);
        let until = (self.now + span).min(self.calm_from());
        match self.rng.below(4) {
            0 => {
                self.mark(Mark::OutageOfLaunches);
                let minutes = u32::try_from(span.as_secs() / 60).unwrap_or(u32::MAX);
                self.outside.registers_from = until;
                self.outside.refused = 0;
                self.outside.refused_max = 40 + minutes;
            }
            1 => {
                self.mark(Mark::OutageOfAll);
                self.outside.answers_from = until;
            }
            2 => {
                self.mark(Mark::RateLimited);
                let owners = estate::owners();
                let index = usize::try_from(self.rng.below(owners.len() as u64)).unwrap_or(0);
                self.outside.limited = Some((owners[index].1.owner().clone(), until));
            }
            _ => {
                self.mark(Mark::OutageOfProvider);
                let provider = self.rng.pick(&["one", "two"]).unwrap_or("one");
                self.outside.provider = Some((estate::provider(provider), until));
            }
        }
    }

    /// The database's clock may jump: forward by minutes, or back.
    pub(crate) fn jump_clock(&mut self) {
        if self.rng.chance(self.hardship().clock_jumps) {
            self.mark(Mark::ClockJumped);
            let by = i64::try_from(self.rng.below(600_000)).unwrap_or(0) - 300_000;
            self.outside.ahead += by;
        }
    }

    /// How much of a job's time our clocks may have left out.
    pub(crate) fn clock_error(&self) -> Duration {
        let jumps = self.settings.hardship.clock_jumps;
        let skew = Duration::from_millis(2 * self.settings.hardship.skew);
        skew + if jumps > 0 { Duration::from_mins(20) } else { Duration::ZERO }
    }
}
