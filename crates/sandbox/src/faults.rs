//! What goes wrong on purpose, and the dice that decide when. The same seed and the same sequence
//! of questions give the same faults; each kind has dice of its own, so that turning one lever
//! does not move another's throws.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Every lever. All probabilities are from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Webhooks on their way.
    pub webhooks: WebhookFaults,
    /// REST answers, by family of routes.
    pub rest: BTreeMap<Family, RestFaults>,
    /// A runner listing says the opposite of the truth about `busy`.
    pub busy_lies: f64,
    /// A runner vanishes while it runs a job: its session ends and its processes are stopped.
    pub lose_runner: f64,
    /// The longest a runner that is to be lost runs its job first, in milliseconds.
    pub lose_runner_within_ms: u64,
    /// A lost runner's job goes back to the queue under its old number; else it fails.
    pub requeue_lost: f64,
}

/// What happens to webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFaults {
    /// Never sent, and listed as a failed delivery that can be redelivered.
    pub drop: f64,
    /// Never sent, and not listed either.
    pub vanish: f64,
    /// Sent twice under the same id.
    pub duplicate: f64,
    /// Sent late.
    pub delay: f64,
    /// The longest delay, in milliseconds.
    pub delay_ms_max: u64,
    /// Held back for a second, so that later ones overtake it.
    pub reorder: f64,
}

/// What happens to REST requests of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestFaults {
    /// Answered 403 with GitHub's secondary-limit message.
    pub forbidden: f64,
    /// Answered 429.
    pub too_many: f64,
    /// Answered 500, 502 or 503.
    pub server_error: f64,
    /// Never answered before `hang_ms` have passed, then 504.
    pub hang: f64,
    /// How long a hanging request hangs, in milliseconds.
    pub hang_ms: u64,
    /// The `Retry-After` of a 403 or 429, in seconds; 0 sends none.
    pub retry_after_s: u64,
}

/// Families of REST routes, told apart by what they serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Apps, installations and their tokens.
    App,
    /// Runners, runner groups and JIT configurations.
    Runners,
    /// Workflow runs and jobs.
    Runs,
    /// Webhooks and their deliveries.
    Hooks,
    /// Everything else.
    Other,
}

impl Family {
    /// The family of a path such as `/orgs/acme/actions/runners`.
    pub(crate) fn of(path: &str) -> Self {
        let path = path.strip_prefix("/api/v3").unwrap_or(path);
        if path.contains("/hooks") || path.contains("/hook/") {
            Self::Hooks
        } else if path.contains("/actions/runner") {
            Self::Runners
        } else if path.contains("/actions/") {
            Self::Runs
        } else if path.starts_with("/app") || path.contains("/installation") {
            Self::App
        } else {
            Self::Other
        }
    }
}

impl Faults {
    /// Names the first value that is not a probability, if any.
    pub fn problem(&self) -> Option<String> {
        let hooks = &self.webhooks;
        let mut all = vec![
            ("webhooks.drop", hooks.drop),
            ("webhooks.vanish", hooks.vanish),
            ("webhooks.duplicate", hooks.duplicate),
            ("webhooks.delay", hooks.delay),
            ("webhooks.reorder", hooks.reorder),
            ("busy_lies", self.busy_lies),
            ("lose_runner", self.lose_runner),
            ("requeue_lost", self.requeue_lost),
        ];
        for rest in self.rest.values() {
            all.push(("rest.forbidden", rest.forbidden));
            all.push(("rest.too_many", rest.too_many));
            all.push(("rest.server_error", rest.server_error));
            all.push(("rest.hang", rest.hang));
        }
        all.iter()
            .find(|(_, chance)| !(0.0..=1.0).contains(chance))
            .map(|(name, chance)| format!("{name} is {chance}; a probability is from 0 to 1"))
    }
}

const HELD_BACK: Duration = Duration::from_secs(1);

/// What becomes of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebhookFate {
    Sent { copies: u8, after: Duration },
    Dropped,
    Vanished,
}

/// What becomes of one REST request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestFate {
    Served,
    Refused { status: u16, retry_after_s: u64 },
    Hung(Duration),
}

/// What becomes of a runner that begins a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunnerFate {
    Works,
    Lost { after: Duration },
}

/// The dice, one set for each kind of fault.
#[derive(Debug)]
pub(crate) struct Dice {
    webhooks: StdRng,
    rest: StdRng,
    busy: StdRng,
    runners: StdRng,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let die = |kind: u64| StdRng::seed_from_u64(seed ^ (kind << 56));
        Self { webhooks: die(1), rest: die(2), busy: die(3), runners: die(4) }
    }

    pub(crate) fn webhook(&mut self, faults: &WebhookFaults) -> WebhookFate {
        let die = &mut self.webhooks;
        if happens(die, faults.vanish) {
            WebhookFate::Vanished
        } else if happens(die, faults.drop) {
            WebhookFate::Dropped
        } else {
            let copies = if happens(die, faults.duplicate) { 2 } else { 1 };
            let after = if happens(die, faults.reorder) {
                HELD_BACK
            } else if happens(die, faults.delay) {
                up_to(die, faults.delay_ms_max)
            } else {
                Duration::ZERO
            };
            WebhookFate::Sent { copies, after }
        }
    }

    pub(crate) fn rest(&mut self, faults: &RestFaults) -> RestFate {
        let die = &mut self.rest;
        let retry_after_s = faults.retry_after_s;
        if happens(die, faults.hang) {
            RestFate::Hung(Duration::from_millis(faults.hang_ms))
        } else if happens(die, faults.forbidden) {
            RestFate::Refused { status: 403, retry_after_s }
        } else if happens(die, faults.too_many) {
            RestFate::Refused { status: 429, retry_after_s }
        } else if happens(die, faults.server_error) {
            let status = [500, 502, 503][die.random_range(0..3)];
            RestFate::Refused { status, retry_after_s: 0 }
        } else {
            RestFate::Served
        }
    }

    pub(crate) fn lies_about_busy(&mut self, faults: &Faults) -> bool {
        happens(&mut self.busy, faults.busy_lies)
    }

    pub(crate) fn runner(&mut self, faults: &Faults) -> RunnerFate {
        if happens(&mut self.runners, faults.lose_runner) {
            RunnerFate::Lost { after: up_to(&mut self.runners, faults.lose_runner_within_ms) }
        } else {
            RunnerFate::Works
        }
    }

    pub(crate) fn requeues(&mut self, faults: &Faults) -> bool {
        happens(&mut self.runners, faults.requeue_lost)
    }
}

// A lever at 0 must not move the dice of the others, so it does not throw.
fn happens(die: &mut StdRng, chance: f64) -> bool {
    chance > 0.0 && die.random_bool(chance.clamp(0.0, 1.0))
}

fn up_to(die: &mut StdRng, millis_max: u64) -> Duration {
    Duration::from_millis(die.random_range(0..=millis_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_faults() {
        let faults = WebhookFaults { drop: 0.3, duplicate: 0.3, ..WebhookFaults::default() };
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..64).map(|_| dice.webhook(&faults)).collect::<Vec<_>>()
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
    }

    #[test]
    fn a_webhook_is_late_by_no_more_than_the_lever_says() {
        let late = WebhookFaults { delay: 1.0, delay_ms_max: 30, ..WebhookFaults::default() };
        let held = WebhookFaults { reorder: 1.0, ..WebhookFaults::default() };
        let mut dice = Dice::new(3);
        let mut latest = Duration::ZERO;
        for _ in 0..100 {
            let WebhookFate::Sent { copies: 1, after } = dice.webhook(&late) else {
                panic!("it is sent once")
            };
            latest = latest.max(after);
        }
        assert!((1..=30).contains(&latest.as_millis()), "{latest:?}");
        assert_eq!(dice.webhook(&held), WebhookFate::Sent { copies: 1, after: HELD_BACK });
    }

    #[test]
    fn no_lever_means_no_fault() {
        let mut dice = Dice::new(1);
        let sent = WebhookFate::Sent { copies: 1, after: Duration::ZERO };
        assert_eq!(dice.webhook(&WebhookFaults::default()), sent);
        assert_eq!(dice.rest(&RestFaults::default()), RestFate::Served);
        assert_eq!(dice.runner(&Faults::default()), RunnerFate::Works);
        assert!(!dice.lies_about_busy(&Faults::default()));
    }

    #[test]
    fn a_chance_above_one_is_named() {
        let faults = Faults { busy_lies: 1.5, ..Faults::default() };
        assert_eq!(
            faults.problem().as_deref(),
            Some("busy_lies is 1.5; a probability is from 0 to 1")
        );
    }

    #[test]
    fn every_route_has_its_family() {
        let families = [
            ("/app/installations/1/access_tokens", Family::App),
            ("/api/v3/orgs/a/installation", Family::App),
            ("/orgs/a/actions/runners/generate-jitconfig", Family::Runners),
            ("/orgs/a/actions/runner-groups", Family::Runners),
            ("/repos/a/b/actions/runs/1/jobs", Family::Runs),
            ("/app/hook/deliveries", Family::Hooks),
            ("/repos/a/b", Family::Other),
        ];
        for (path, family) in families {
            assert_eq!(Family::of(path), family, "{path}");
        }
    }
}
