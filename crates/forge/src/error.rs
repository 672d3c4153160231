//! What can go wrong, said so that the core can decide and people can act. No text here ever holds a
//! secret, and every text that comes from outside is cut short and stripped of control characters.

use http::StatusCode;
use remuda_core::Timestamp;
use remuda_core::label::LabelError;
use remuda_core::name::{ForgeName, NameError, RunnerName};
use remuda_core::observation::Cause;
use remuda_core::tenant::Scope;

use crate::secrets::SecretError;

/// Most characters kept of a text from outside.
const FOREIGN_CHARS_MAX: usize = 300;

/// `text` on one line, without control characters, cut to a bounded length.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(FOREIGN_CHARS_MAX).collect()
}

/// Why a webhook request was not accepted. The texts are constant: an answer that depends on a secret
/// or on the body would help a forger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header that every delivery has is not there.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header is not of the form GitHub gives it.
    #[error("header {0} is malformed")]
    Malformed(&'static str),
    /// None of our secrets made this signature.
    #[error("the signature does not match")]
    Signature,
}

impl Refusal {
    /// The HTTP status to answer with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Missing(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Signature => StatusCode::UNAUTHORIZED,
        }
    }
}

/// Why a delivery says nothing we understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not the JSON it should be.
    #[error("the body cannot be read: {0}")]
    Json(String),
    /// The hook sends a form instead of JSON.
    #[error("the body is a form; set the hook's content type to application/json")]
    Form,
    /// Something without which the event means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Labels over our limits, or with control characters.
    #[error("the job's labels: {0}")]
    Labels(#[from] LabelError),
    /// An account, repository or runner with an impossible name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A time that is not RFC 3339.
    #[error("{field} is not a time")]
    Time {
        /// Which.
        field: &'static str,
    },
    /// An owner that is neither a user nor an organization.
    #[error("repository.owner.type {0:?} is neither \"Organization\" nor \"User\"")]
    Owner(String),
}

/// Whether a call that went unanswered may have changed anything at the forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It cannot have, or asking again does no harm.
    None,
    /// It may have.
    Possible,
}

/// Why a call had no answer we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// The forge asks for patience.
    #[error("{call}: the forge asks to wait {seconds} s: {message}")]
    Limited {
        /// The call.
        call: String,
        /// When to ask again (our clock).
        until: Timestamp,
        /// The same, from now.
        seconds: u64,
        /// The forge's words.
        message: String,
    },
    /// Nobody we can ask as is known there.
    #[error("no App or token of forge {forge} serves {scope}: install an App there")]
    NoCredential {
        /// The forge.
        forge: ForgeName,
        /// The scope.
        scope: Scope,
    },
    /// A registration of that name exists: an earlier call's, whose answer was lost.
    #[error("a runner named {name} is already registered at {scope}")]
    NameTaken {
        /// The name.
        name: RunnerName,
        /// Where.
        scope: Scope,
    },
    /// The forge said no, and will say so again.
    #[error("{call}: refused with {status}: {message}")]
    Refused {
        /// The call.
        call: String,
        /// The HTTP status.
        status: StatusCode,
        /// The forge's words.
        message: String,
    },
    /// Something remembered from earlier calls no longer held; it is forgotten, so the next call
    /// asks for it anew.
    #[error("{call}: {what} is no longer valid and will be asked for anew")]
    Stale {
        /// The call.
        call: String,
        /// What was remembered.
        what: &'static str,
    },
    /// Our clock and the forge's differ too much for a signed request; the difference is now known.
    #[error("{call}: our clock differs from the forge's by {seconds} s; allowed for from here on")]
    ClockOff {
        /// The call.
        call: String,
        /// The forge's time less ours.
        seconds: i64,
    },
    /// The call's deadline passed before it was sent.
    #[error("{call}: not sent, because its deadline has passed")]
    TooLate {
        /// The call.
        call: String,
    },
    /// There was no answer, or none that can be read.
    #[error("{call}: {problem}")]
    Broken {
        /// The call.
        call: String,
        /// What it may have done.
        effect: Effect,
        /// What happened.
        problem: String,
    },
    /// A listing longer than we are willing to read. Never cut silently.
    #[error("{call}: more than {max} {what}")]
    TooLong {
        /// The call.
        call: String,
        /// How much would have been read.
        max: usize,
        /// Of what.
        what: &'static str,
    },
    /// The look has cost as much as it may.
    #[error("{call}: not sent, because the look has cost as many calls as it may")]
    Dear {
        /// The call.
        call: String,
    },
    /// The question cannot be put to this forge.
    #[error("{0}")]
    Unsupported(String),
}

impl ForgeError {
    /// What the core needs to know of the failure.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Limited { until, .. } => Cause::Limited { until: *until },
            Self::Stale { .. }
            | Self::ClockOff { .. }
            | Self::TooLate { .. }
            | Self::Dear { .. }
            | Self::Broken { effect: Effect::None, .. } => Cause::Transient,
            Self::NameTaken { .. } | Self::Broken { effect: Effect::Possible, .. } => {
                Cause::Unknown
            }
            Self::NoCredential { .. }
            | Self::Refused { .. }
            | Self::TooLong { .. }
            | Self::Unsupported(_) => Cause::Invalid,
        }
    }

    /// How much it says of what was asked: a credential that was turned away says the least, then one
    /// that has no calls left.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            error if error.turns_away() => 0,
            Self::Limited { .. } => 1,
            Self::NoCredential { .. }
            | Self::NameTaken { .. }
            | Self::Refused { .. }
            | Self::Stale { .. }
            | Self::ClockOff { .. }
            | Self::TooLate { .. }
            | Self::Broken { .. }
            | Self::TooLong { .. }
            | Self::Dear { .. }
            | Self::Unsupported(_) => 2,
        }
    }

    /// True if it was the credential that was turned away, so that another one may fare better.
    /// GitHub answers 404 where a credential may not even know that a thing exists.
    pub(crate) fn turns_away(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(
            *status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        ))
    }

    /// True if the forge said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// Why a forge cannot be used as declared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A secret could not be loaded.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An App's key is not one.
    #[error("the private key of App {app:?} is not an RSA key in PEM form: {problem}")]
    Key {
        /// The App's id.
        app: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The API's address cannot be used.
    #[error("{api:?} is not the address of a REST API: {problem}")]
    Api {
        /// The address.
        api: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}
