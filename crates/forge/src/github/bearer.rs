//! Whom a request is made as, and what a look may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use remuda_core::budget::Credential;
use secrecy::SecretString;

/// Whose budget a request is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// An App as itself, by its place in the fleet file.
    App(usize),
    /// An installation of an App.
    Installation(usize, u64),
    /// The personal access token.
    Token,
}

/// A credential as a request bears it.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) who: Who,
    /// The same, as it is told of.
    pub(super) credential: Credential,
    pub(super) secret: SecretString,
    /// What its requests may still cost, where that is bounded.
    pub(super) meter: Option<Arc<Meter>>,
}

impl Bearer {
    pub(super) fn new(who: Who, credential: Credential, secret: SecretString) -> Self {
        Self { who, credential, secret, meter: None }
    }
}

/// Counts the requests of one look that are charged to a budget, and admits no more than it may make.
#[derive(Debug)]
pub(super) struct Meter {
    spent: AtomicU32,
    max: u32,
}

impl Meter {
    pub(super) fn new(max: u32) -> Self {
        Self { spent: AtomicU32::new(0), max }
    }

    pub(super) fn spent(&self) -> u32 {
        self.spent.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> bool {
        let more = |spent| (spent < self.max).then_some(spent + 1);
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        self.spent.fetch_sub(1, Ordering::Relaxed);
    }
}
