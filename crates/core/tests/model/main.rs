//! Stories and properties of the core: what it does with facts, in a world small enough to read.
//!
//! Stories name in a comment what they hold: `A…` a behaviour that RISE's own tests ask for, `W…` a
//! weakness of RISE's that must not be ours. README.md lists where we do otherwise than RISE and why.

mod limits;
mod matching;
mod properties;
mod pulse;
mod storage;
mod supply;
mod world;
