//! Leadership: stand by until the lease can be had, lead until it is lost, stand by again.
//!
//! Every term has an epoch of its own and begins with books that were loaded under it. Whatever a term
//! has not done when it ends, the books ask the next one for; what it began and did not hear of, they
//! say too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use remuda_core::Snapshot;
use remuda_core::name::InstallationId;
use remuda_store::{Leader, Lease, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::drive::{Drive, End};
use crate::handle::{Handle, Standing};
use crate::metrics::Metrics;
use crate::site::{Site, Sites};
use crate::tenure::{LEASE, Tenure};

/// Between two renewals: a lost one leaves time for the next.
const RENEW: Duration = Duration::from_millis(3_333);
/// Between two tries to renew while the store fails.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// Between two tries to take the lease.
const STAND_BY: Duration = Duration::from_secs(1);
/// Longest wait for the store where nothing else bounds it.
const STORE_MAX: Duration = Duration::from_secs(5);

/// What a replica needs to lead.
#[derive(Clone)]
pub struct Candidate {
    /// Shared by all replicas.
    pub store: Arc<dyn Store>,
    /// What this process calls itself; no two may share a name.
    pub holder: String,
    /// Whose books these are.
    pub installation: InstallationId,
    /// What is declared, and what calls are made to.
    pub sites: Sites,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// The loop that takes the lease and leads.
pub struct Lead {
    candidate: Candidate,
    standing: watch::Sender<Standing>,
    deliveries: Arc<Notify>,
}

impl std::fmt::Debug for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lead").field("holder", &self.candidate.holder).finish_non_exhaustive()
    }
}

impl Lead {
    /// Stands by until it is run.
    pub fn new(candidate: Candidate) -> Self {
        let (standing, deliveries) = (watch::Sender::new(Standing::new()), Arc::default());
        Self { candidate, standing, deliveries }
    }

    /// How to reach whatever this replica is.
    pub fn handle(&self) -> Handle {
        Handle::new(self.standing.subscribe(), Arc::clone(&self.deliveries))
    }

    /// Runs until told to stop; the lease is then given back. An error only if going on would be wrong.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let outcome = self.terms(&stop).await;
        self.standing.send_replace(Standing::Stopped);
        outcome
    }

    async fn terms(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        while let Some(tenure) = self.stand_by(stop).await {
            let mut ended = self.served(&tenure, stop).await;
            while matches!(ended, Ok(End::Moved)) && !stop.is_cancelled() {
                self.standing.send_replace(Standing::new());
                ended = self.served(&tenure, stop).await;
            }
            self.step_down(&tenure).await;
            match ended? {
                End::Stopped | End::Moved => break,
                End::Fenced => warn!("another replica has taken the lease; this one stands by"),
                End::RanOut => {
                    warn!("the lease could not be renewed before it ran out; standing by");
                }
                End::Unsure => warn!("begins again with the books as they are kept"),
            }
        }
        Ok(())
    }

    /// Leads with the fleet that is in force, for as long as it is and the lease holds. Renewals go on
    /// beside the loop, however long that waits for the store. When the lease is lost, all that the loop
    /// is and does is dropped.
    async fn served(&self, tenure: &Tenure, stop: &CancellationToken) -> anyhow::Result<End> {
        let mut sites = self.candidate.sites.clone();
        let site = sites.borrow_and_update().clone();
        let over = stop.child_token();
        let lead = async {
            let term = self.term(tenure, &site, &over);
            tokio::pin!(term);
            tokio::select! {
                ended = &mut term => return ended,
                Ok(()) = sites.changed() => {}
            }
            over.cancel();
            match term.await {
                Ok(End::Stopped) => Ok(End::Moved),
                // What was not committed, the books ask for again.
                Err(failure) if !stop.is_cancelled() => {
                    warn!("the loop did not end in order: {failure:#}");
                    Ok(End::Moved)
                }
                ended => ended,
            }
        };
        tokio::select! {
            ended = lead => ended,
            lost = self.keep(tenure) => Ok(lost),
        }
    }

    /// Waits for the lease; `None` once told to stop.
    async fn stand_by(&self, stop: &CancellationToken) -> Option<Tenure> {
        let Candidate { store, holder, clock, .. } = &self.candidate;
        while !stop.is_cancelled() {
            let asked = clock.steady();
            // Not cut off by a stop: the lease would be taken, and nobody would know.
            let tried = tokio::time::timeout(STORE_MAX, store.lease(holder, LEASE)).await;
            match tried {
                Ok(Ok(Some(lease))) if stop.is_cancelled() => self.release(&lease).await,
                Ok(Ok(Some(lease))) => return Some(Tenure::new(lease, asked, clock.clone())),
                Ok(Ok(None)) => self.follow().await,
                Ok(Err(failure)) => self.in_trouble(&failure.to_string()),
                Err(_) => self.in_trouble("the store does not answer"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(STAND_BY) => {}
            }
        }
        None
    }

    /// Says who leads instead.
    async fn follow(&self) {
        let found = tokio::time::timeout(STORE_MAX, self.candidate.store.leader()).await;
        let Ok(Ok(Some(leader))) = found else { return };
        self.standing.send_if_modified(|standing| {
            let known = match standing {
                Standing::Standby { leader, .. } => leader.as_ref(),
                Standing::Leading { .. } | Standing::Stopped => None,
            };
            if known == Some(&leader) {
                return false;
            }
            let Leader { holder, epoch, .. } = &leader;
            info!(epoch, "stands by: {holder} leads");
            *standing = Standing::Standby { leader: Some(leader), trouble: None };
            true
        });
    }

    fn in_trouble(&self, why: &str) {
        self.standing.send_if_modified(|standing| {
            let told = match standing {
                Standing::Standby { trouble, .. } => trouble.as_deref(),
                Standing::Leading { .. } | Standing::Stopped => None,
            };
            if told == Some(why) {
                return false;
            }
            warn!("cannot ask for the lease: {why}");
            *standing = Standing::Standby { leader: None, trouble: Some(why.into()) };
            true
        });
    }

    /// Leads until told to stop or until that would be wrong.
    async fn term(
        &self,
        tenure: &Tenure,
        site: &Site,
        stop: &CancellationToken,
    ) -> anyhow::Result<End> {
        let Candidate { store, metrics, clock, .. } = &self.candidate;
        let epoch = tenure.lease().epoch();
        let books = match store.load().await {
            Ok(books) => books,
            Err(failure) => {
                error!("cannot load the books: {failure}");
                tokio::time::sleep(STAND_BY).await;
                return Ok(End::Unsure);
            }
        };
        if books.installation != self.candidate.installation {
            bail!(
                "these are the books of {} and no longer those of {}: start again",
                books.installation,
                self.candidate.installation
            );
        }
        let mut world = Snapshot::new(books.installation, Arc::clone(&site.fleet));
        world.epoch = epoch;
        // Row by row, so that the books are never there twice.
        for row in books.changes {
            world.apply(std::slice::from_ref(&row));
        }
        for stuck in remuda_core::stuck(&world) {
            warn!("{}: {}", stuck.what, stuck.text);
        }
        let (drive, line) = Drive::new(
            Arc::clone(store),
            tenure.clone(),
            world,
            Arc::clone(&site.outside),
            Arc::clone(metrics),
            clock.clone(),
            Arc::clone(&self.deliveries),
        );
        info!(epoch, "leads");
        metrics.leads(epoch);
        self.standing.send_replace(Standing::Leading { epoch, since: clock.now(), line });
        drive.run(stop).await
    }

    /// Renews the lease; ends when it is lost.
    async fn keep(&self, tenure: &Tenure) -> End {
        let Candidate { store, clock, .. } = &self.candidate;
        let mut pause = RENEW;
        loop {
            tokio::time::sleep(pause.min(tenure.left())).await;
            if !tenure.holds() {
                return End::RanOut;
            }
            let asked = clock.steady();
            match tokio::time::timeout(tenure.left(), store.renew(tenure.lease(), LEASE)).await {
                Ok(Ok(true)) => {
                    tenure.renewed(asked);
                    pause = RENEW;
                }
                Ok(Ok(false)) => return End::Fenced,
                Ok(Err(failure)) => {
                    if pause == RENEW {
                        warn!("cannot renew the lease: {failure}");
                    }
                    pause = RENEW_AGAIN;
                }
                Err(_) => return End::RanOut,
            }
        }
    }

    async fn step_down(&self, tenure: &Tenure) {
        self.candidate.metrics.stands_by();
        self.standing.send_replace(Standing::new());
        self.release(tenure.lease()).await;
    }

    /// One that cannot be given back runs out by itself.
    async fn release(&self, lease: &Lease) {
        let released = tokio::time::timeout(STORE_MAX, self.candidate.store.release(lease)).await;
        if !matches!(released, Ok(Ok(()))) {
            warn!("the lease could not be given back; it runs out within {LEASE:?}");
        }
    }
}
