//! What should exist, and why what is missing is missing.
//!
//! Linear in jobs and runners: classes of like jobs are planned together, and a class that is blocked
//! is not tried again in the same plan, because within one plan obstacles only grow.

mod claims;
mod demand;
mod room;
mod turns;

pub use turns::PATIENCE;

use std::collections::BTreeSet;

use crate::pool::Pool;
use crate::reason::{Reason, Wait};
use crate::snapshot::{Change, Snapshot};
use crate::tenant::Scope;

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

/// What would keep another runner of `pool` from being made in any of `scopes`, caps of tenants apart.
pub(crate) fn obstacles<'a>(
    world: &Snapshot,
    pool: &Pool,
    scopes: impl IntoIterator<Item = &'a Scope>,
) -> BTreeSet<Reason> {
    let room = room::Room::new(world);
    scopes.into_iter().flat_map(|scope| room.obstacles(pool, scope)).collect()
}
