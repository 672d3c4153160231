//! A virtual world around Remuda's core: one seed is one history, with its faults, and oracles that
//! look at reality rather than at our books.
//!
//! Pure: a heap of (virtual time, event); no runtime, no clock, no I/O. The controller in it is the one
//! that the server runs.
#![warn(clippy::wildcard_enum_match_arm)]

mod calls;
mod estate;
pub mod hardship;
mod life;
mod oracle;
mod rng;
mod run;
mod truth;

pub use hardship::Hardship;
pub use run::{Failure, Report, Settings, simulate, simulate_with};
