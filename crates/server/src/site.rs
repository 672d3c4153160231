//! What a server serves at the moment: a fleet, and what calls are made to on its account. Both change
//! together, while the server runs.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use remuda_core::fleet::{self, Fleet, ProviderKind};
use remuda_core::name::InstallationId;
use remuda_forge::{Forge, GitHub};
use remuda_provider::Provider;
use remuda_provider::process::{ProcessProvider, Shim};
use tokio::sync::watch;
use tracing::warn;

use crate::clock::Clock;
use crate::perform::Outside;

/// The names and texts of the files that a fleet is in.
pub type Files = Vec<(String, String)>;

/// A fleet in force.
#[derive(Debug)]
pub struct Site {
    /// Its number in the history of fleets.
    pub number: u64,
    /// What it was read from.
    pub files: Files,
    /// What is declared.
    pub fleet: Arc<Fleet>,
    /// What calls are made to.
    pub outside: Arc<Outside>,
}

/// How to learn which fleet is in force, and when another one is.
pub type Sites = watch::Receiver<Arc<Site>>;

/// What the outside of every fleet of one server has in common.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) installation: InstallationId,
    pub(crate) state: PathBuf,
    pub(crate) shim: Shim,
    pub(crate) clock: Clock,
}

impl Ground {
    /// Sets up what a fleet declares: secrets are read, nothing is asked of anybody. A provider that is
    /// declared as it was `before` goes on as it is.
    pub(crate) fn site(
        &self,
        (number, fleet, files): (u64, Fleet, Files),
        before: Option<&Site>,
    ) -> anyhow::Result<Site> {
        let mut outside = Outside::new(self.clock.clone());
        for (name, declared) in &fleet.forges {
            let forge = GitHub::new(declared, self.clock.teller())
                .with_context(|| format!("cannot set up forge {name}"))?;
            outside.forges.insert(name.clone(), Arc::new(forge) as Arc<dyn Forge>);
        }
        for (name, declared) in &fleet.providers {
            let as_before = before.filter(|before| {
                before.fleet.providers.get(name) == Some(declared)
                    && before.fleet.images == fleet.images
            });
            if let Some(provider) = as_before.and_then(|before| before.outside.providers.get(name))
            {
                outside.providers.insert(name.clone(), Arc::clone(provider));
                continue;
            }
            match self.provider(declared, &fleet) {
                Ok(provider) => drop(outside.providers.insert(name.clone(), provider)),
                Err(why) => {
                    warn!("{why}: while this replica leads, it is left alone");
                    outside.elsewhere.insert(name.clone(), why);
                }
            }
        }
        Ok(Site { number, files, fleet: Arc::new(fleet), outside: Arc::new(outside) })
    }

    /// A provider, or why this replica cannot see its instances.
    fn provider(
        &self,
        declared: &fleet::Provider,
        fleet: &Fleet,
    ) -> Result<Arc<dyn Provider>, String> {
        let ProviderKind::Process(process) = &declared.kind;
        let (name, host) = (&declared.name, host());
        if let Some(node) = process.node.as_ref().filter(|node| **node != host) {
            return Err(format!("provider {name} makes instances on {node}, and this is {host}"));
        }
        let root = process
            .directory
            .clone()
            .unwrap_or_else(|| self.state.join("instances").join(name.as_str()));
        Ok(Arc::new(ProcessProvider::new(
            declared,
            &fleet.images,
            root,
            self.installation.clone(),
            self.shim.clone(),
            self.clock.teller(),
        )))
    }
}

impl Site {
    /// Ends the tasks of those providers that `after` does not go on with. Their instances live on.
    pub(crate) async fn close_but(&self, after: Option<&Site>) {
        for (name, provider) in &self.outside.providers {
            let next = after.and_then(|after| after.outside.providers.get(name));
            if next.is_none_or(|next| !Arc::ptr_eq(next, provider)) {
                provider.close().await;
            }
        }
    }
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
