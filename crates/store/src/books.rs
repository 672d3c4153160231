//! What was found of the books, table by table, put in order.

use remuda_core::job::Job;
use remuda_core::name::InstallationId;
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{Instance, InstanceId, Runner, RunnerId};
use remuda_core::snapshot::{Backoff, Drain, Recovering, Stray};
use remuda_core::tenant::Met;
use remuda_core::{Change, WaitChange};

use crate::Books;

/// Rows as they came.
pub(crate) struct Found {
    pub(crate) installation: InstallationId,
    pub(crate) tenants: Vec<Met>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) runners: Vec<Runner>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) backoffs: Vec<(BackoffKey, Backoff)>,
    pub(crate) drains: Vec<(DrainKey, Drain)>,
    pub(crate) recovering: Vec<Recovering>,
    pub(crate) strays: Vec<(StrayRegistration, Stray)>,
    pub(crate) next: Option<(RunnerId, InstanceId)>,
    pub(crate) waits: Vec<WaitChange>,
}

impl Found {
    /// The same as [`Books`]. A database sorts texts by rules of its own, so they are sorted here.
    pub(crate) fn books(mut self) -> Books {
        self.tenants.sort_by(|a, b| a.tenant.key.cmp(&b.tenant.key));
        self.jobs.sort_by(|a, b| a.key.cmp(&b.key));
        self.runners.sort_by_key(|runner| runner.id);
        self.instances.sort_by_key(|instance| instance.id);
        self.backoffs.sort_by(|a, b| a.0.cmp(&b.0));
        self.drains.sort_by(|a, b| a.0.cmp(&b.0));
        self.strays.sort_by(|a, b| a.0.cmp(&b.0));
        self.waits.sort_by(|a, b| a.job.cmp(&b.job));

        let tenants = self.tenants.into_iter().map(Box::new);
        let mut changes: Vec<Change> = tenants.map(Change::Tenant).collect();
        changes.extend(self.jobs.into_iter().map(|job| Change::Job(Box::new(job))));
        changes.extend(self.runners.into_iter().map(|runner| Change::Runner(Box::new(runner))));
        let instances = self.instances.into_iter();
        changes.extend(instances.map(|instance| Change::Instance(Box::new(instance))));
        let backoffs = self.backoffs.into_iter();
        changes.extend(backoffs.map(|(key, value)| Change::Backoff(key, Some(value))));
        let drains = self.drains.into_iter();
        changes.extend(drains.map(|(key, value)| Change::Drain(key, Some(value))));
        let doubts = self.recovering.into_iter();
        changes.extend(doubts.map(|value| Change::Recovering(Some(value))));
        let strays = self.strays.into_iter();
        changes.extend(strays.map(|(key, value)| Change::Stray(key, Some(value))));
        changes.extend(self.next.map(|(runner, instance)| Change::Next { runner, instance }));
        Books { installation: self.installation, changes, waits: self.waits }
    }
}
