//! What every provider promises.
#![expect(clippy::unwrap_used, reason = "only tests call these")]

mod common;

use std::collections::BTreeMap;

use common::{PATIENCE, World, conditions, exited, jit, launch};
use remuda_core::action::Launch;
use remuda_core::observation::Condition::{Exited, Running};
use remuda_core::runner::InstanceId;
use remuda_provider::Provider;

/// Holds for any provider. `lasting` launches a runner that runs until it is destroyed, `passing`
/// one that says "bye" and exits with code 7. The provider must be empty.
async fn contract(
    provider: &dyn Provider,
    lasting: impl Fn(u64) -> Launch,
    passing: impl Fn(u64) -> Launch,
) {
    let (one, two, three) = (lasting(1), lasting(2), passing(3));
    let jit = jit();
    assert_eq!(conditions(provider).await, BTreeMap::new(), "it begins empty");

    let (first, again) = tokio::join!(provider.launch(&one, &jit), provider.launch(&one, &jit));
    assert_eq!((first.is_ok(), again.is_ok()), (true, true), "a second launch is no failure");
    provider.launch(&one, &jit).await.unwrap();
    assert_eq!(conditions(provider).await, BTreeMap::from([(1, Running)]), "there is still one");

    provider.launch(&two, &jit).await.unwrap();
    let both = BTreeMap::from([(1, Running), (2, Running)]);
    assert_eq!(conditions(provider).await, both, "there can be two at once");
    let listed = provider.instances().await.unwrap();
    assert_eq!(listed[0].runner.as_ref(), Some(&one.name), "it tells whose instance it is");

    provider.destroy(InstanceId(1)).await.unwrap();
    assert_eq!(conditions(provider).await, BTreeMap::from([(2, Running)]), "only that one ends");
    provider.destroy(InstanceId(1)).await.unwrap();
    provider.destroy(InstanceId(99)).await.unwrap();

    provider.launch(&three, &jit).await.unwrap();
    assert_eq!(exited(provider, 3).await, Some(7), "an end is told, with its code");
    provider.launch(&three, &jit).await.unwrap();
    let ended = BTreeMap::from([(2, Running), (3, Exited(Some(7)))]);
    assert_eq!(conditions(provider).await, ended, "listed until destroyed, and not begun again");
    assert_eq!(provider.tail(InstanceId(3), 4).await.unwrap(), b"bye\n");
    assert_eq!(provider.tail(InstanceId(99), 4).await.unwrap(), b"");

    let (two, three) =
        tokio::join!(provider.destroy(InstanceId(2)), provider.destroy(InstanceId(3)));
    assert_eq!((two.is_ok(), three.is_ok()), (true, true), "two can be destroyed at once");
    assert_eq!(conditions(provider).await, BTreeMap::new(), "nothing is left");
    tokio::time::timeout(PATIENCE, provider.close()).await.expect("it should close");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_provider_keeps_the_contract() {
    let mut world = World::new();
    world.script("lasting", "while :; do sleep 1000; done");
    world.script("passing", "echo hello; echo bye; exit 7");
    let provider = world.provider();
    contract(&provider, |id| launch("lasting", id), |id| launch("passing", id)).await;
    let left: Vec<_> = std::fs::read_dir(world.root()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
