//! The one place that reads the wall clock.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use remuda_core::Timestamp;

/// The time now, to the millisecond.
pub fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is handed"
    )]
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The clock to hand to adapters.
pub fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    Arc::new(now)
}

/// An instant as people and machines read it: RFC 3339, UTC, to the millisecond.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.to_string(), |at| format!("{at:.3}"))
}
