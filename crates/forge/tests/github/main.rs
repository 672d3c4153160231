//! The REST client against a small GitHub with a state of its own: what came of the calls counts,
//! not which calls were made.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod credentials;
mod failures;
mod fake;
mod jobs;
mod redelivery;
mod registration;
mod runners;

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_core::Timestamp;
use remuda_core::action::Launch;
use remuda_core::label::LabelSet;
use remuda_core::name::{
    ForgeName, GroupName, ImageName, PoolName, ProviderName, RepositoryName, RunnerName,
};
use remuda_core::runner::{InstanceId, RunnerId};
use remuda_core::tenant::{Repository, Scope};

fn name(text: &str) -> RunnerName {
    RunnerName::new(text).unwrap()
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn repository(owner: &str, name: &str) -> Repository {
    format!("{owner}/{}", RepositoryName::new(name).unwrap()).parse().unwrap()
}

/// A launch of the runner of this name at a scope.
fn launch(scope: &str, name: &str) -> Launch {
    Launch {
        runner: RunnerId(1),
        name: RunnerName::new(name).unwrap(),
        forge: ForgeName::new("github").unwrap(),
        scope: scope.parse().unwrap(),
        group: None,
        labels: LabelSet::parse(["rvv", "linux", "Self-Hosted"]).unwrap(),
        instance: InstanceId(1),
        epoch: 1,
        pool: PoolName::new("rvv").unwrap(),
        provider: ProviderName::new("local").unwrap(),
        image: ImageName::new("runner").unwrap(),
        needs: Arc::new(BTreeMap::new()),
        avoid: Arc::default(),
        deadline: Timestamp::from_millis(i64::MAX),
    }
}

fn in_group(mut launch: Launch, group: &str) -> Launch {
    launch.group = Some(GroupName::new(group).unwrap());
    launch
}
