//! Stories and properties of the core: what it does with facts, in a world small enough to read.
//!
//! Stories name in a comment what they hold: `A…` a behaviour that RISE's own tests ask for, `W…` a
//! weakness of RISE's that must not be ours. README.md lists where we do otherwise than RISE and why.

#[cfg(test)]
mod books;
#[cfg(test)]
mod counterfactual;
#[cfg(test)]
mod demand;
#[cfg(test)]
mod explaining;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod incidents;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod matching;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod pulse;
#[cfg(test)]
mod restrict;
#[cfg(test)]
mod small;
#[cfg(test)]
mod storage;
#[cfg(test)]
mod supply;
#[cfg(test)]
mod telling;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod world;
