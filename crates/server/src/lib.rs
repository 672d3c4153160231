//! The control plane and the command line of Remuda: one binary.

pub mod api;
pub mod cli;
pub mod clock;
pub mod drive;
mod env;
pub mod exit;
mod intake;
pub mod metrics;
pub mod perform;
pub mod serve;
pub mod tasks;
pub mod view;
