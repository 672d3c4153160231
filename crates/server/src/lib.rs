//! The control plane and the command line of Remuda: one binary.

pub mod api;
mod books;
pub mod change;
pub mod cli;
pub mod clock;
mod drive;
mod env;
pub mod exit;
pub mod explanation;
pub mod fleets;
pub mod handle;
mod intake;
pub mod lead;
pub mod metrics;
pub mod perform;
pub mod reload;
pub mod restrict;
pub mod serve;
pub mod site;
pub mod tasks;
pub mod tenure;
pub mod view;
