//! The right to act: a lease, and until when it is certainly ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use remuda_store::Lease;

use crate::clock::Clock;

/// How long a lease lasts by the database's clock.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long its holder acts on it: a second less, for clocks that run unlike the database's, and for the
/// moment between the look at the clock and the call.
const SURE: Duration = Duration::from_secs(9);

/// One holding of the lease. Whoever is about to act asks it first.
///
/// What counts is when a renewal was *asked for*, on a clock that counts the time in which we were
/// stopped: the database cannot have begun to count before that.
#[derive(Clone, Debug)]
pub struct Tenure {
    lease: Lease,
    clock: Clock,
    until: Arc<AtomicU64>,
}

impl Tenure {
    /// A lease that was asked for at `asked` of the steady clock.
    pub fn new(lease: Lease, asked: Duration, clock: Clock) -> Self {
        let tenure = Self { lease, clock, until: Arc::new(AtomicU64::new(0)) };
        tenure.renewed(asked);
        tenure
    }

    /// It was renewed by a call begun at `asked`.
    pub(crate) fn renewed(&self, asked: Duration) {
        self.until.fetch_max(millis(asked + SURE), Ordering::SeqCst);
    }

    /// The lease, to commit under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// True while nobody else can have taken the lease.
    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long it holds unless it is renewed.
    pub fn left(&self) -> Duration {
        let until = Duration::from_millis(self.until.load(Ordering::SeqCst));
        until.saturating_sub(self.clock.steady())
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
