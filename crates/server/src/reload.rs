//! Another fleet while the server runs: by an order of a person, on a signal, or because another replica was
//! given one. Every fleet that comes into force is written down first, under a number of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use remuda_core::fleet::{Fleet, Problems, Source, parse};
use remuda_store::{Applied, FLEETS_MAX, Store, StoreError};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::rfc3339;
use crate::env;
use crate::site::{Files, Ground, Site};

/// How often to look whether another replica was given a fleet.
const FOLLOW_EVERY: Duration = Duration::from_secs(3);
/// On what occasions a fleet is read from the server's own file.
const START: &str = "start";
/// See [`START`].
pub(crate) const SIGNAL: &str = "SIGHUP";

/// Reads a fleet from its files.
pub(crate) fn read(files: &Files) -> Result<Fleet, Problems> {
    let sources: Vec<_> = files.iter().map(|(name, text)| Source { name, text }).collect();
    parse(&sources)
}

/// A fleet that somebody wants in force.
#[derive(Debug)]
pub struct Wish {
    /// What it was read from.
    pub files: Files,
    /// Who wants it.
    pub who: String,
    /// On what occasion.
    pub how: String,
    /// The number of the fleet that it was compared with; it must still be in force.
    pub base: Option<u64>,
}

/// Why a fleet did not come into force. The one before it goes on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not in order.
    #[error("the fleet is not in order:\n{0}")]
    Problems(Problems),
    /// Another one has come into force meanwhile.
    #[error("{0}")]
    Moved(String),
    /// It cannot be served by a server that runs.
    #[error(
        "[server] is different, and is only read when a server starts: stop this one and start it with \
         the new fleet"
    )]
    Start,
    /// What it declares cannot be set up.
    #[error("{0:#}")]
    Setup(anyhow::Error),
    /// It could not be written down.
    #[error("the fleet could not be written down: {0}")]
    Store(#[from] StoreError),
}

/// Puts fleets in force.
pub struct Reload {
    ground: Arc<Ground>,
    store: Arc<dyn Store>,
    sites: watch::Sender<Arc<Site>>,
    /// Held by whoever does so, one at a time: what still ends on account of the fleets before.
    ending: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("ground", &self.ground).finish_non_exhaustive()
    }
}

/// Which fleet a server begins with. What was last put in force goes on, unless the server's own file says
/// something else than when it was last read: then the file's is put in force.
pub(crate) async fn begin(
    store: &dyn Store,
    ground: &Ground,
    fleet: Fleet,
    files: Files,
) -> anyhow::Result<Site> {
    for _ in 0..FLEETS_MAX {
        let newest = store.applied(None).await?;
        if let Some(newest) = &newest
            && let Some(own) = own_file(store, newest.number).await?
            && texts(&own.files) == texts(&files)
        {
            let is_own = newest.number == own.number;
            let begun = if is_own { Ok(fleet.clone()) } else { read(&newest.files) };
            match begun {
                Ok(begun) if begun.server == fleet.server => {
                    return ground.site((newest.number, begun, newest.files.clone()), None);
                }
                Ok(_) => {
                    warn!("fleet {} is of another [server]: begins with the file", newest.number);
                }
                Err(why) => warn!("fleet {} cannot be read any more: {why}", newest.number),
            }
        }
        let wish = Wish { files: files.clone(), who: env::user(), how: START.into(), base: None };
        let number = newest.map_or(0, |newest| newest.number) + 1;
        let site = ground.site((number, fleet.clone(), files.clone()), None)?;
        if store.apply(&written(ground, number, fleet.revision(), wish)).await? {
            return Ok(site);
        }
    }
    Err(anyhow!("others put one fleet after the other in force; see `remuda history`"))
}

/// The newest fleet, up to a number, that a server read from its own file.
async fn own_file(store: &dyn Store, mut number: u64) -> Result<Option<Applied>, StoreError> {
    while let Some(found) = store.applied(Some(number)).await? {
        if [START, SIGNAL].contains(&found.how.as_str()) {
            return Ok(Some(found));
        }
        number = number.saturating_sub(1);
    }
    Ok(None)
}

fn texts(files: &Files) -> Vec<&str> {
    files.iter().map(|(_, text)| text.as_str()).collect()
}

fn written(ground: &Ground, number: u64, revision: String, wish: Wish) -> Applied {
    let Wish { files, who, how, .. } = wish;
    Applied { number, at: ground.clock.now(), who, how, revision, files }
}

impl Reload {
    pub(crate) fn new(
        ground: Ground,
        store: Arc<dyn Store>,
        sites: watch::Sender<Arc<Site>>,
    ) -> Self {
        Self { ground: Arc::new(ground), store, sites, ending: Mutex::default() }
    }

    /// What is in force.
    pub fn site(&self) -> Arc<Site> {
        self.sites.borrow().clone()
    }

    /// Puts a fleet in force and gives its number. Secrets are read anew. Refused, everything is as it
    /// was. Runners with jobs run on; calls under way are awaited for some seconds.
    pub async fn serve(&self, wish: Wish) -> Result<u64, Refused> {
        let fleet = read(&wish.files).map_err(Refused::Problems)?;
        let mut ending = self.ending.lock().await;
        let before = self.site();
        if fleet.server != before.fleet.server {
            return Err(Refused::Start);
        }
        if wish.base.is_some_and(|base| base != before.number) {
            return Err(self.moved().await?);
        }
        if *before.fleet == fleet && wish.how != SIGNAL {
            return Ok(before.number);
        }
        let same = texts(&before.files) == texts(&wish.files);
        let number = if same { before.number } else { before.number + 1 };
        let files = wish.files.clone();
        let revision = fleet.revision();
        let site = self.set_up((number, fleet, files), &before).await.map_err(Refused::Setup)?;
        if !same && !self.store.apply(&written(&self.ground, number, revision, wish)).await? {
            return Err(self.moved().await?);
        }
        self.switch(&mut ending, before, site);
        Ok(number)
    }

    /// Takes up what other replicas were given, until told to stop.
    pub(crate) async fn keep_up(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut told = 0;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
            if let Err(why) = self.follow().await {
                if told == 0 {
                    warn!("goes on with fleet {}: {why:#}", self.site().number);
                }
                told += 1;
            } else {
                told = 0;
            }
        }
        Ok(())
    }

    /// Takes up what another replica was given, if it was given something.
    async fn follow(&self) -> anyhow::Result<()> {
        let mut ending = self.ending.lock().await;
        let before = self.site();
        let newest = self.store.fleet_history(1).await?;
        if newest.first().is_none_or(|newest| newest.number <= before.number) {
            return Ok(());
        }
        let Some(newest) = self.store.applied(None).await? else { return Ok(()) };
        let number = newest.number;
        let fleet = read(&newest.files).map_err(|why| anyhow!("{why}"));
        let fleet = fleet.with_context(|| format!("fleet {number} cannot be read here"))?;
        let site = self.set_up((number, fleet, newest.files), &before).await?;
        self.switch(&mut ending, before, site);
        Ok(())
    }

    /// Beside the runtime: commands that print secrets may take their time.
    async fn set_up(&self, fleet: (u64, Fleet, Files), before: &Arc<Site>) -> anyhow::Result<Site> {
        let (ground, before) = (Arc::clone(&self.ground), Arc::clone(before));
        tokio::task::spawn_blocking(move || ground.site(fleet, Some(&before))).await?
    }

    fn switch(&self, ending: &mut JoinSet<()>, before: Arc<Site>, site: Site) {
        let site = Arc::new(site);
        self.sites.send_replace(Arc::clone(&site));
        info!(revision = site.fleet.revision(), "serves fleet {}", site.number);
        while ending.try_join_next().is_some() {}
        // Launches under way end by their own deadlines.
        ending.spawn(async move { before.close_but(Some(&site)).await });
    }

    async fn moved(&self) -> Result<Refused, StoreError> {
        let newest = self.store.fleet_history(1).await?;
        let text =
            newest.first().map_or_else(String::new, |Applied { number, who, at, .. }| {
                format!("{who} put fleet {number} in force at {}; ", rfc3339(*at))
            });
        Ok(Refused::Moved(format!("{text}plan again and look at what is different now")))
    }

    /// Ends what all fleets have begun.
    pub(crate) async fn close(&self) {
        self.site().close_but(None).await;
        while self.ending.lock().await.join_next().await.is_some() {}
    }
}
