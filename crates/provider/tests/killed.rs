//! A server that is killed at once takes no runner with it.
//!
//! This program is both sides of the test, so it brings its own `main`: with arguments it is the
//! server to be killed.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use common::{World, conditions, handle, has_ended, start};
use remuda_core::observation::Condition::Running;
use remuda_core::runner::InstanceId;
use remuda_provider::Provider;

const SERVE: &str = "serve-in";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, serve, dir] = args.as_slice()
        && serve == SERVE
    {
        serve_in(dir).await;
    } else {
        a_killed_server_takes_no_runner_with_it().await;
    }
}

/// Launches two and waits to be killed.
async fn serve_in(dir: &str) {
    let mut world = World::again(dir.into());
    world.script("lasting", r#"echo $$ > "$WORDS"; exec sleep 1000"#);
    let provider = world.provider();
    for instance in 1..=2 {
        start(&provider, "lasting", instance).await.expect("the launch should succeed");
    }
    std::future::pending::<()>().await;
}

async fn a_killed_server_takes_no_runner_with_it() {
    let mut world = World::new();
    let own = std::env::current_exe().expect("a test has a program");
    let mut server = Command::new(own)
        .arg(SERVE)
        .arg(world.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("a test can be run again");
    let runners = [handle(world.pid().await), handle(world.pid().await)];
    server.kill().expect("it still runs");
    server.wait().expect("it is our child");
    assert!(!runners.iter().any(has_ended), "they run on");

    let provider = world.provider();
    assert_eq!(conditions(&provider).await, BTreeMap::from([(1, Running), (2, Running)]));
    for instance in 1..=2 {
        provider.destroy(InstanceId(instance)).await.expect("what is adopted can be destroyed");
    }
    assert!(runners.iter().all(has_ended));
    assert_eq!(conditions(&provider).await, BTreeMap::new());
}
