//! What every store promises, and what the one on disk promises besides.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod nouns;
#[cfg(test)]
mod property;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod real;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod trouble_postgres;
