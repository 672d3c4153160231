//! A virtual world around Remuda's core: one seed is one history, with its faults, and oracles that
//! look at reality rather than at our books.
//!
//! Pure: a heap of (virtual time, event); no runtime, no clock, no I/O. The controller in it is the one
//! that the server runs.
#![warn(clippy::wildcard_enum_match_arm)]

mod calls;
mod database;
mod estate;
mod fair;
pub mod hardship;
mod hooks;
mod life;
mod look;
pub mod marks;
mod oracle;
mod order;
mod outside;
mod recognize;
mod replica;
mod rng;
mod run;
mod spell;
mod truth;
mod watch;

pub use hardship::Hardship;
pub use marks::{Level, Mark, Marks};
pub use run::{Failure, Kill, Report, Settings, simulate, simulate_killed, simulate_with};
