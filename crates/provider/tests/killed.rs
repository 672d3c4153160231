//! A server that is killed at once takes no runner with it.
//!
//! This program is both sides of the test, so it brings its own `main`: with arguments it is the
//! server to be killed.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use common::{PATIENCE, World, conditions, ended_within, handle, has_ended, program, start};
use remuda_core::observation::Condition::{Exited, Running};
use remuda_core::runner::InstanceId;
use remuda_provider::Provider;
use remuda_provider::process::Shim;

const SERVE: &str = "serve-in";
const MAKE: &str = "make-in";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, SERVE, dir] => serve_in(dir).await,
        [_, MAKE, dir] => make_in(dir).await,
        _ => {
            a_killed_server_takes_no_runner_with_it().await;
            an_instance_in_the_making_is_not_taken_for_dead_before_its_maker_is().await;
        }
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

/// Launches one with a shim that never answers.
async fn make_in(dir: &str) {
    let mut world = World::again(dir.into());
    world.script("any", "exit 0");
    let words = world.dir.path().join("words").display().to_string();
    let script = r#"echo $$ > "$0"; exec cat"#.to_owned();
    let shim = Shim { program: program("bash").into(), args: vec!["-c".into(), script, words] };
    let _ = start(&world.provider_with(shim), "any", 1).await;
}

/// Runs this program once more.
fn again(role: &str, world: &World) -> Child {
    let own = std::env::current_exe().expect("a test has a program");
    let mut server = Command::new(own);
    server.arg(role).arg(world.dir.path()).stdout(Stdio::null());
    server.spawn().expect("a test can be run again")
}

async fn an_instance_in_the_making_is_not_taken_for_dead_before_its_maker_is() {
    let mut world = World::new();
    let provider = world.provider();
    let mut maker = again(MAKE, &world);
    let shim = handle(world.pid().await);
    assert_eq!(conditions(&provider).await, BTreeMap::from([(1, Running)]));
    maker.kill().expect("it still runs");
    maker.wait().expect("it is our child");
    assert_eq!(conditions(&provider).await, BTreeMap::from([(1, Exited(None))]));
    assert!(ended_within(&shim, PATIENCE), "its server's end is its own");
    provider.destroy(InstanceId(1)).await.expect("what is dead can be destroyed");
    assert_eq!(conditions(&provider).await, BTreeMap::new());
}

async fn a_killed_server_takes_no_runner_with_it() {
    let mut world = World::new();
    let mut server = again(SERVE, &world);
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
