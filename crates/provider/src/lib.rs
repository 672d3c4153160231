//! Providers: what makes instances, ends them and tells which there are.
//!
//! An adapter makes one attempt per call and says how it ended. It neither retries nor decides:
//! when to try again is for the core.

mod env;
mod image;
pub mod process;

use async_trait::async_trait;
use remuda_core::action::Launch;
use remuda_core::name::NodeName;
use remuda_core::observation::{Cause, InstanceSeen};
use remuda_core::pool::Capacity;
use remuda_core::runner::InstanceId;
use secrecy::SecretString;
use tokio::sync::watch;

pub use process::ProcessProvider;

/// Something that makes instances.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Makes the instance; asked twice for one instance id, there is still one.
    ///
    /// `jit` is the runner's JIT configuration, a secret. Gives the node, where there are several to
    /// tell apart. Nothing is made after `launch.deadline`.
    async fn launch(
        &self,
        launch: &Launch,
        jit: &SecretString,
    ) -> Result<Option<NodeName>, ProviderError>;

    /// Ends whatever `launch` made and removes its remains; nothing there is success.
    async fn destroy(&self, instance: InstanceId) -> Result<(), ProviderError>;

    /// Every instance of this installation, in whatever condition.
    async fn instances(&self) -> Result<Vec<InstanceSeen>, ProviderError>;

    /// What the nodes have in all, or `None` where the provider only ever says that it is full.
    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError>;

    /// The last bytes of the instance's output, at most `bytes_max`, for people. An instance that is
    /// not there has none.
    async fn tail(&self, instance: InstanceId, bytes_max: usize) -> Result<Vec<u8>, ProviderError>;

    /// Changes its value whenever an instance ended by itself: a hint to look.
    fn wakes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Ends and joins the provider's own tasks. Instances live on.
    async fn close(&self) {}
}

/// What was behind a failure.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// There is no room for another instance.
    #[error("no room for another instance: {0}")]
    Full(String),
    /// It had no effect; trying again may help.
    #[error("{what}: {source}")]
    Transient {
        /// What could not be done, and to what.
        what: String,
        /// Why.
        source: Source,
    },
    /// It had no effect and will have none until a person changes something.
    #[error("{what}: {source}")]
    Invalid {
        /// What could not be done, and to what.
        what: String,
        /// Why.
        source: Source,
    },
    /// Whether it had an effect is not known.
    #[error("{what}: {source}")]
    Unknown {
        /// What could not be done, and to what.
        what: String,
        /// Why.
        source: Source,
    },
}

impl ProviderError {
    /// What the core needs to know of it.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Full(_) => Cause::Full,
            Self::Transient { .. } => Cause::Transient,
            Self::Invalid { .. } => Cause::Invalid,
            Self::Unknown { .. } => Cause::Unknown,
        }
    }

    pub(crate) fn transient(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Transient { what: what.into(), source: source.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Invalid { what: what.into(), source: source.into() }
    }

    pub(crate) fn unknown(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unknown { what: what.into(), source: source.into() }
    }

    /// An I/O failure before anything took effect: a lack of disk, memory, processes or descriptors
    /// is a lack of room.
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        use rustix::io::Errno;
        let what = what.into();
        match Errno::from_io_error(&source) {
            Some(
                Errno::NOSPC
                | Errno::DQUOT
                | Errno::NOMEM
                | Errno::AGAIN
                | Errno::MFILE
                | Errno::NFILE,
            ) => Self::Full(format!("{what}: {source}")),
            Some(_) | None => Self::transient(what, source),
        }
    }
}
