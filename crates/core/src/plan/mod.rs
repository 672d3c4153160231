//! What should exist, and why what is missing is missing.
//!
//! Linear in jobs and runners: classes of like jobs are planned together, and a class that is blocked
//! is not tried again in the same plan, because within one plan obstacles only grow.

mod demand;
mod room;

use crate::reason::Wait;
use crate::snapshot::{Change, Snapshot};

/// The outcome of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows that should change.
    pub changes: Vec<Change>,
    /// Every job that is not running, with at least one reason, the oldest first within its kind.
    pub waits: Vec<Wait>,
}

/// Plans from what is known at `world.now`, once [`settle`](crate::settle()) has nothing more to say.
/// Planning the result again changes nothing.
pub fn plan(world: &Snapshot) -> Plan {
    demand::serve(world)
}
