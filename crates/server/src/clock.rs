//! The one place that reads the machine's clocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use remuda_core::Timestamp;
use tracing::warn;

/// A wall clock that lags by less than this is not worth a word.
const LAG_MIN: Duration = Duration::from_secs(1);

/// The server's time: the wall clock's, but for going back. Where that is set back, time goes on from
/// where it was at its own pace until the wall clock has caught up: waits still end, and no fact becomes
/// younger than a later one. A step ahead is followed at once.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    wall: Tells<Timestamp>,
    steady: Tells<Duration>,
    mark: Mutex<Mark>,
}

type Tells<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Where the two clocks were when the wall clock was last ahead.
#[derive(Clone, Copy)]
struct Mark {
    wall: Timestamp,
    steady: Duration,
    lags: bool,
}

impl Clock {
    /// This machine's clocks.
    pub fn system() -> Self {
        Self::from_fns(now, boot_time)
    }

    /// Whatever `wall` and `steady` say. The latter never goes back, and counts the time in which the
    /// process was stopped or the machine slept.
    pub fn from_fns(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let mark = Mark { wall: wall(), steady: steady(), lags: false };
        Self(Arc::new(Inner {
            wall: Box::new(wall),
            steady: Box::new(steady),
            mark: Mutex::new(mark),
        }))
    }

    /// The time, to the millisecond.
    pub fn now(&self) -> Timestamp {
        let mut mark = self.0.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, steady) = ((self.0.wall)(), (self.0.steady)());
        let counted = mark.wall + steady.saturating_sub(mark.steady);
        if wall >= counted {
            *mark = Mark { wall, steady, lags: false };
            return wall;
        }
        let lag = counted.since(wall);
        if lag >= LAG_MIN && !mark.lags {
            mark.lags = true;
            warn!(
                "the clock of this machine was set back by {lag:?}; time is counted on without it"
            );
        }
        counted
    }

    /// Time since some fixed instant; only differences mean anything.
    pub fn steady(&self) -> Duration {
        (self.0.steady)()
    }

    /// For adapters.
    pub fn teller(&self) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// What the wall clock says, to the millisecond. For what only people see.
pub fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is handed"
    )]
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Since the machine was started. Unlike [`std::time::Instant`] it counts a suspended machine's sleep.
fn boot_time() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(at).unwrap_or_default()
}

/// An instant as people and machines read it: RFC 3339, UTC, to the millisecond.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.to_string(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on_and_one_set_ahead_is_followed() {
        let hands = Arc::new((AtomicI64::new(5_000), AtomicU64::new(70_000)));
        let (wall, steady) = (Arc::clone(&hands), Arc::clone(&hands));
        let clock = Clock::from_fns(
            move || Timestamp::from_millis(wall.0.load(Ordering::SeqCst)),
            move || Duration::from_millis(steady.1.load(Ordering::SeqCst)),
        );
        let mut told = Vec::new();
        // The wall clock's steps, and how much time really passes with each.
        for (step, passes) in [(1_000, 1_000), (-4_000, 500), (500, 500), (5_000, 1_000), (1, 0)] {
            hands.0.fetch_add(step, Ordering::SeqCst);
            hands.1.fetch_add(passes, Ordering::SeqCst);
            told.push(clock.now().as_millis());
        }
        assert_eq!(told, [6_000, 6_500, 7_000, 8_000, 8_000]);
    }
}
