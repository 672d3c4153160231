//! Why things are as they are, read off the books: what each runner, pool and provider is doing or
//! waiting for, since when, until when, and who can change it. Decides nothing; the codes are closed,
//! stable, and each has its cause and cure in [`CODES`].

mod codes;
mod pool;
mod runner;

use crate::reason::Reason;
use crate::time::Timestamp;

pub use codes::CODES;
pub use pool::{pool, provider};
pub use runner::runner;

/// One thing that is so, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its code, one of [`CODES`].
    pub code: &'static str,
    /// A sentence, without a full stop.
    pub text: String,
    /// Since when it is so, where that is known.
    pub since: Option<Timestamp>,
    /// When it is looked at or tried again, or ends by itself.
    pub next: Option<Timestamp>,
}

impl Standing {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), since: None, next: None }
    }

    fn since(self, since: impl Into<Option<Timestamp>>) -> Self {
        Self { since: since.into(), ..self }
    }

    fn next(self, next: impl Into<Option<Timestamp>>) -> Self {
        Self { next: next.into(), ..self }
    }
}

impl From<&Reason> for Standing {
    fn from(reason: &Reason) -> Self {
        let (since, next) = reason.span();
        Self { code: reason.code(), text: reason.to_string(), since, next }
    }
}

/// Who can change what a code tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// It passes by itself.
    Nobody,
    /// Whoever runs Remuda.
    Operator,
    /// Whoever wrote the workflow.
    Author,
    /// The forge, or whoever approves there.
    Forge,
}

impl Actor {
    /// As shown to people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Operator => "operator",
            Self::Author => "author",
            Self::Forge => "forge",
        }
    }
}

/// What a code is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A job that is not running.
    Job,
    /// A runner.
    Runner,
    /// A pool.
    Pool,
    /// A provider.
    Provider,
}

impl About {
    /// As shown to people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Runner => "runner",
            Self::Pool => "pool",
            Self::Provider => "provider",
        }
    }
}

/// A code and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its stable word.
    pub name: &'static str,
    /// What it is about. Reasons of jobs are told of pools and providers too.
    pub about: About,
    /// Why it comes about.
    pub cause: &'static str,
    /// What ends it.
    pub cure: &'static str,
    /// Who must act.
    pub actor: Actor,
}

/// The code of this name, if there is one.
pub fn code(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.name == name)
}
