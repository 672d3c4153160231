//! Tasks that are joined: nothing runs on after the server has stopped, and none ends unnoticed.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long tasks may take to end once they are told to.
const GRACE: Duration = Duration::from_secs(20);

/// The server's tasks. Each runs until it is told to stop; one that ends before that ends all.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What tells every task to stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task; its name is for errors.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits until told to stop or until a task ends by itself, then ends the others and joins them.
    /// An error if any task failed, or ended unasked.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let unasked = tokio::select! {
            () = self.stop.cancelled() => None,
            ended = self.set.join_next() => ended,
        };
        let mut outcome = Ok(());
        // A task that was asked to stop may be seen to end before the request itself is seen.
        let asked = self.stop.is_cancelled();
        if let Some(ended) = unasked.filter(|ended| !(asked && matches!(ended, Ok((_, Ok(())))))) {
            outcome = match ended {
                Ok((name, Ok(()))) => Err(anyhow!("{name} ended without being asked to")),
                Ok((name, Err(error))) => Err(error).with_context(|| format!("{name} failed")),
                Err(error) => Err(anyhow!(error).context("a task broke off")),
            };
        }
        self.stop.cancel();
        let rest = tokio::time::timeout(GRACE, async {
            while let Some(ended) = self.set.join_next().await {
                let failed = match ended {
                    Ok((_, Ok(()))) => continue,
                    Ok((name, Err(error))) => error.context(format!("{name} failed")),
                    Err(error) => anyhow!(error).context("a task broke off"),
                };
                if outcome.is_ok() {
                    outcome = Err(failed);
                } else {
                    warn!("while stopping: {failed:#}");
                }
            }
        });
        if rest.await.is_err() {
            self.set.shutdown().await;
            warn!("some tasks did not end within {GRACE:?} and were cut off");
        }
        outcome
    }
}
