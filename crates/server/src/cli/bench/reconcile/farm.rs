//! A provider whose instances are numbers in a table: what it costs to run them is not measured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use remuda_core::Change;
use remuda_core::action::Launch;
use remuda_core::name::{NodeName, RunnerName};
use remuda_core::observation::{Condition, InstanceSeen};
use remuda_core::pool::Capacity;
use remuda_core::runner::{InstanceId, InstanceState};
use remuda_provider::{Provider, ProviderError};
use remuda_store::Books;
use secrecy::SecretString;

/// Instances that run until they are destroyed.
#[derive(Debug)]
pub(super) struct Farm(Mutex<BTreeMap<InstanceId, RunnerName>>);

impl Farm {
    /// With an instance for each that the books say was made and is not gone.
    pub(super) fn of(books: &Books) -> Self {
        let mut names = BTreeMap::new();
        let mut there = BTreeSet::new();
        for change in &books.changes {
            if let Change::Runner(row) = change {
                names.insert(row.instance, row.name.clone());
            } else if let Change::Instance(row) = change
                && row.launch.is_some()
                && row.state < InstanceState::Gone
            {
                there.insert(row.id);
            }
        }
        names.retain(|instance, _| there.contains(instance));
        Self(Mutex::new(names))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, RunnerName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Provider for Farm {
    async fn launch(
        &self,
        launch: &Launch,
        _: &SecretString,
    ) -> Result<Option<NodeName>, ProviderError> {
        self.lock().insert(launch.instance, launch.name.clone());
        Ok(None)
    }

    async fn destroy(&self, instance: InstanceId) -> Result<(), ProviderError> {
        self.lock().remove(&instance);
        Ok(())
    }

    async fn instances(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let seen = |(id, name): (&InstanceId, &RunnerName)| InstanceSeen {
            id: *id,
            runner: Some(name.clone()),
            node: None,
            condition: Condition::Running,
        };
        Ok(self.lock().iter().map(seen).collect())
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(None)
    }

    async fn tail(&self, _: InstanceId, _: usize) -> Result<Vec<u8>, ProviderError> {
        Ok(Vec::new())
    }
}
