//! How the rest of the server reaches the loop that writes, if this replica has one at the moment.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::observation::Order;
use remuda_core::{Controller, Seen, Timestamp};
use remuda_store::Leader;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::rfc3339;

/// Longest wait of a question while nobody is known to lead: a server that has just been started has
/// yet to load its books.
const NOBODY_LEADS: Duration = Duration::from_secs(5);

/// The same while the lease cannot even be asked for; that is tried again every second.
const NOBODY_CAN_LEAD: Duration = Duration::from_millis(1_500);
/// How long the loop may take to answer although the store fails it: it may have nothing to write.
const STILL_ANSWERS: Duration = Duration::from_millis(200);

/// Something to be done with the controller between two turns: how everybody else reads it.
pub type Ask = Box<dyn FnOnce(&Controller) + Send>;

/// A person's order, and whom to tell once it is durable.
pub(crate) type Ordered = (Order, oneshot::Sender<()>);

/// What this replica is.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It takes deliveries and waits for the lease.
    Standby {
        /// Who has the lease, as far as is known.
        leader: Option<Leader>,
        /// Why the lease cannot even be asked for.
        trouble: Option<Arc<str>>,
    },
    /// It plans and acts.
    Leading {
        /// The number of this holding.
        epoch: u64,
        /// Since when.
        since: Timestamp,
        /// To the loop.
        line: Line,
    },
    /// The server is ending.
    Stopped,
}

impl Standing {
    /// Standing by, and nothing known yet of anybody who leads.
    pub(crate) fn new() -> Self {
        Self::Standby { leader: None, trouble: None }
    }
}

/// The way to the loop of one holding of the lease; dead once that is over.
#[derive(Clone, Debug)]
pub struct Line {
    pub(crate) seen: mpsc::Sender<Seen>,
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) orders: mpsc::Sender<Ordered>,
    pub(crate) trouble: watch::Receiver<Option<Trouble>>,
}

/// The store does not do what the loop asks of it, so the loop waits and answers nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When that was asked which has not been done.
    pub since: Timestamp,
    /// What the store says, or does not say.
    pub why: Arc<str>,
}

/// Why the loop could not be reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unreached {
    /// It waits for the store.
    #[error(
        "the store has failed since {}, and until it works nothing is decided or called: {}",
        rfc3339(.0.since), .0.why
    )]
    Failing(Trouble),
    /// Another replica leads, or none.
    #[error("{0}")]
    Standby(String),
    /// The server is ending.
    #[error("the server is stopping")]
    Stopping,
}

impl Unreached {
    fn standby(leader: Option<&Leader>, trouble: Option<&str>) -> Self {
        Self::Standby(match (leader, trouble) {
            (Some(Leader { holder, since, .. }), _) => format!(
                "this replica stands by: {holder} leads since {}; ask there",
                rfc3339(*since)
            ),
            (None, Some(trouble)) => format!(
                "this replica stands by and no other is known to lead, because the lease cannot \
                 be taken: {trouble}"
            ),
            (None, None) => {
                "this replica stands by and no other is known to lead: ask again in some seconds"
                    .into()
            }
        })
    }
}

/// How the rest of the server reaches the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    standing: watch::Receiver<Standing>,
    deliveries: Arc<Notify>,
}

impl Handle {
    pub(crate) fn new(standing: watch::Receiver<Standing>, deliveries: Arc<Notify>) -> Self {
        Self { standing, deliveries }
    }

    /// A delivery was accepted: there is something to decode.
    pub fn delivered(&self) {
        self.deliveries.notify_one();
    }

    /// What this replica is at the moment.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until this replica leads; an error if the server ends before that.
    pub async fn leads(&self) -> Result<(), Unreached> {
        let mut standing = self.standing.clone();
        let settled = standing.wait_for(|now| !matches!(now, Standing::Standby { .. })).await;
        match settled.as_deref() {
            Ok(Standing::Leading { .. }) => Ok(()),
            Ok(Standing::Standby { .. } | Standing::Stopped) | Err(_) => Err(Unreached::Stopping),
        }
    }

    /// What the store fails the loop with, if it does.
    pub fn trouble(&self) -> Option<Trouble> {
        match &*self.standing.borrow() {
            Standing::Leading { line, .. } => line.trouble.borrow().clone(),
            Standing::Standby { .. } | Standing::Stopped => None,
        }
    }

    /// The line to the loop. While nobody is known to lead, it may be about to be this replica.
    async fn line(&self) -> Result<Line, Unreached> {
        let patience = match &*self.standing.borrow() {
            Standing::Standby { trouble: Some(_), .. } => NOBODY_CAN_LEAD,
            Standing::Standby { .. } | Standing::Leading { .. } | Standing::Stopped => NOBODY_LEADS,
        };
        let mut standing = self.standing.clone();
        let known = standing.wait_for(|now| !matches!(now, Standing::Standby { leader: None, .. }));
        // Whatever there is by then is the answer.
        let _ = tokio::time::timeout(patience, known).await;
        match &*self.standing.borrow() {
            Standing::Leading { line, .. } => Ok(line.clone()),
            Standing::Standby { leader, trouble } => {
                Err(Unreached::standby(leader.as_ref(), trouble.as_deref()))
            }
            Standing::Stopped => Err(Unreached::Stopping),
        }
    }

    /// What to say of a line that went dead.
    fn dead(&self) -> Unreached {
        match &*self.standing.borrow() {
            Standing::Standby { leader, trouble } => {
                Unreached::standby(leader.as_ref(), trouble.as_deref())
            }
            Standing::Leading { .. } => Unreached::standby(None, None),
            Standing::Stopped => Unreached::Stopping,
        }
    }

    /// Brings in a fact.
    pub async fn see(&self, seen: Seen) -> Result<(), Unreached> {
        self.line().await?.seen.send(seen).await.map_err(|_| self.dead())
    }

    /// Gives a person's order; it is durable when this returns. An error if the loop ended before it said
    /// so: the order may still have come into force.
    pub async fn order(&self, order: Order) -> Result<(), Unreached> {
        let (told, durable) = oneshot::channel();
        self.line().await?.orders.send((order, told)).await.map_err(|_| self.dead())?;
        durable.await.map_err(|_| self.dead())
    }

    /// Reads something off the controller, or says within a moment that it waits for a store that fails.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Controller) -> T + Send + 'static,
    ) -> Result<T, Unreached> {
        let (answer, answered) = oneshot::channel();
        let ask: Ask = Box::new(move |controller| {
            // Who asked may have gone away meanwhile.
            if !answer.is_closed() {
                let _ = answer.send(question(controller));
            }
        });
        let line = self.line().await?;
        let answered = async {
            line.asks.send(ask).await.ok()?;
            answered.await.ok()
        };
        let mut trouble = line.trouble.clone();
        let failing = async {
            let found =
                trouble.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            match found {
                Some(trouble) => {
                    tokio::time::sleep(STILL_ANSWERS).await;
                    trouble
                }
                // The loop has ended, and so has the question.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answered => answer.ok_or_else(|| self.dead()),
            trouble = failing => Err(Unreached::Failing(trouble)),
        }
    }
}
