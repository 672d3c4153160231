//! The model of Remuda: facts come in as [`Observation`]s, intent goes out as [`Action`]s.
//!
//! Pure: nothing here waits, reads a clock, calls out or draws a random number. The same snapshot
//! always gives the same plan, which is what lets the simulator try millions of histories.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod action;
pub mod actions;
pub mod batch;
pub mod budget;
pub mod check;
pub mod controller;
pub mod delivery;
mod demand;
mod event;
pub mod explain;
pub mod fleet;
pub mod health;
pub mod hook;
pub mod job;
pub mod label;
pub mod name;
mod note;
pub mod observation;
pub mod observe;
pub mod plan;
pub mod pool;
pub mod reason;
pub mod runner;
pub mod settle;
pub mod snapshot;
pub mod stuck;
pub mod tenant;
pub mod time;

pub use action::Action;
pub use actions::actions;
pub use batch::{Batch, Event, WaitChange};
pub use check::{Violation, check};
pub use controller::{Controller, Rules, Seen, Sound, Turn};
pub use delivery::Delivery;
pub use observation::Observation;
pub use observe::observe;
pub use plan::{Plan, plan};
pub use reason::{Reason, Wait};
pub use settle::settle;
pub use snapshot::{Change, Snapshot};
pub use stuck::{Stuck, stuck};
pub use time::Timestamp;
