//! The sandbox's clock: wall time at the start, then tokio's monotonic time, so that it never goes
//! back and stands still where a test pauses the runtime's clock.

use remuda_core::Timestamp;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_at: Timestamp,
    started: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = jiff::Timestamp::now().as_millisecond();
        Self { started_at: Timestamp::from_millis(wall), started: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }

    /// The runtime's instant for `at`; now, if it has passed.
    pub(crate) fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        self.started + at.since(self.started_at)
    }
}

/// `at` as GitHub writes it, in whole seconds: `2026-11-20T10:00:00Z`.
pub(crate) fn iso(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_millis().div_euclid(1000))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// `at` in milliseconds, as in delivery records: `2026-11-20T10:00:00.123Z`.
pub(crate) fn iso_millis(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| iso(at), |at| format!("{at:.3}"))
}
