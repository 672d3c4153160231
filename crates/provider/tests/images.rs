//! Images of the `process` provider: unpacked, checked each time, fetched once.
#![expect(clippy::unwrap_used, reason = "only tests call these")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{JIT, World, archive, conditions, exited, start};
use remuda_core::fleet::{Archive, JitBy};
use remuda_core::observation::Cause;
use remuda_core::runner::InstanceId;
use remuda_provider::Provider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A stand-in that starts as GitHub's runner does: `run.sh` beside `bin/`, the configuration from
/// the environment, 7 for a deprecated version only when it is asked to say so.
const RUN: &str = r#"#!/usr/bin/env bash
[ -n "$ACTIONS_RUNNER_INPUT_JITCONFIG" ] || { echo "no configuration"; exit 1; }
[ $# = 0 ] || { echo "unexpected arguments: $*"; exit 1; }
exec ./bin/Runner.Listener run
"#;
const LISTENER: &str = r#"#!/usr/bin/env bash
[ "$1" = run ] || exit 1
touch .runner || exit 1
echo "An error occurred: Runner version v2.0.0 is deprecated and cannot receive messages."
[ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = 1 ] && exit 7
exit 1
"#;

fn official(world: &mut World) {
    let file = world.dir.path().join("runner.tar.gz");
    let made = archive(&file, &[("run.sh", RUN), ("bin/Runner.Listener", LISTENER)]);
    let image = world.image("official", &["run.sh"]);
    image.archive = Some(made);
    let name = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
    image.env.insert(name.to_owned(), "1".to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_starts_like_githubs_can_tell_that_it_is_deprecated() {
    let mut world = World::new();
    official(&mut world);
    let provider = world.provider();
    for instance in 1..=2 {
        start(&provider, "official", instance).await.unwrap();
        assert_eq!(exited(&provider, instance).await, Some(7));
        let out = provider.tail(InstanceId(instance), 1000).await.unwrap();
        assert!(String::from_utf8(out).unwrap().contains("is deprecated and cannot receive"));
        assert!(world.home(instance).join("work/.runner").exists(), "each has its own copy");
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
    // The plain way of the official runner, for those who did not ask.
    let image = world.images.get_mut(&"official".parse().unwrap()).unwrap();
    image.env.clear();
    let provider = world.provider();
    start(&provider, "official", 3).await.unwrap();
    assert_eq!(exited(&provider, 3).await, Some(1));
    provider.destroy(InstanceId(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_the_declared_one_is_refused() {
    let mut world = World::new();
    official(&mut world);
    let image = world.images.get_mut(&"official".parse().unwrap()).unwrap();
    image.archive.as_mut().unwrap().sha256 = [0xab; 32];
    let provider = world.provider();
    let error = start(&provider, "official", 1).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid);
    let declared = format!("but {} is declared", "ab".repeat(32));
    assert!(error.to_string().starts_with("cannot use image official: "), "{error}");
    assert!(error.to_string().ends_with(&declared), "{error}");
    assert_eq!(conditions(&provider).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_reaches_out_or_is_missing_is_refused() {
    let mut world = World::new();
    let file = world.dir.path().join("evil.tar.gz");
    let evil = archive(&file, &[("run.sh", RUN), ("../../evil", "x")]);
    world.image("evil", &["run.sh"]).archive = Some(evil);
    let missing = Archive { source: "nowhere/runner.tar.gz".into(), sha256: [0; 32] };
    world.image("missing", &["run.sh"]).archive = Some(missing);
    let provider = world.provider();
    for (image, why) in [
        ("evil", "entry ../../evil leads out of the archive"),
        ("missing", "cannot open nowhere/runner.tar.gz: No such file"),
    ] {
        let error = start(&provider, image, 1).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Invalid);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(conditions(&provider).await, BTreeMap::new());
    }
    assert!(!world.root().join("evil").exists() && !world.dir.path().join("evil").exists());
}

/// Serves one body to whoever asks and counts how often.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Server {
    async fn start(status: &'static str, body: Vec<u8>) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/runner.tar.gz", socket.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&body).await.unwrap();
            }
        });
        Self { url, asked, tasks }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A world whose one image comes from a server that answers with `status`.
async fn fetched(status: &'static str) -> (World, Server) {
    let mut world = World::new();
    official(&mut world);
    let image = world.images.get_mut(&"official".parse().unwrap()).unwrap();
    let made = image.archive.as_mut().unwrap();
    let server = Server::start(status, fs::read(&made.source).unwrap()).await;
    made.source.clone_from(&server.url);
    (world, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fetched_once_for_all_and_kept() {
    let (world, server) = fetched("200 OK").await;
    let provider = world.provider();
    let (one, two) = tokio::join!(start(&provider, "official", 1), start(&provider, "official", 2));
    one.unwrap();
    two.unwrap();
    assert_eq!(server.asked(), 1);
    server.stop().await;
    let provider = world.provider();
    start(&provider, "official", 3).await.unwrap();
    for instance in 1..=3 {
        assert_eq!(exited(&provider, instance).await, Some(7));
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
    assert_eq!(conditions(&provider).await, BTreeMap::new(), "the cache is no instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_in_the_cache_is_not_used_and_fetched_anew() {
    let (world, server) = fetched("200 OK").await;
    let provider = world.provider();
    start(&provider, "official", 1).await.unwrap();
    let cache = world.root().join(".cache");
    let copy = fs::read_dir(cache).unwrap().next().unwrap().unwrap().path().join("archive");
    let mut bytes = fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&copy, bytes).unwrap();
    let error = start(&provider, "official", 2).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient);
    assert!(error.to_string().contains("its copy in the cache was damaged"), "{error}");
    start(&provider, "official", 2).await.unwrap();
    assert_eq!(server.asked(), 2);
    for instance in 1..=2 {
        provider.destroy(InstanceId(instance)).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_archive_needs_a_person_and_one_in_trouble_needs_time() {
    for (status, cause) in
        [("404 Not Found", Cause::Invalid), ("503 Service Unavailable", Cause::Transient)]
    {
        let (world, server) = fetched(status).await;
        let provider = world.provider();
        let error = start(&provider, "official", 1).await.unwrap_err();
        assert_eq!(error.cause(), cause, "{error}");
        assert!(error.to_string().contains(status), "{error}");
        assert!(!error.to_string().contains(JIT));
        assert_eq!(conditions(&provider).await, BTreeMap::new());
        server.stop().await;
    }
    let (world, server) = fetched("200 OK").await;
    server.stop().await;
    let error = start(&world.provider(), "official", 1).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_than_the_declared_one_does_not_reach_the_cache() {
    let (mut world, server) = fetched("200 OK").await;
    let image = world.images.get_mut(&"official".parse().unwrap()).unwrap();
    image.archive.as_mut().unwrap().sha256 = [1; 32];
    let provider = world.provider();
    let error = start(&provider, "official", 1).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
    let kept = fs::read_dir(world.root().join(".cache").join("01".repeat(32))).unwrap();
    assert_eq!(kept.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn only_https_or_this_very_machine_is_asked() {
    let mut world = World::new();
    let image = world.image("plain", &["run.sh"]);
    image.jit = JitBy::Descriptor(3);
    let source = "http://example.org/runner.tar.gz".to_owned();
    image.archive = Some(Archive { source, sha256: [0; 32] });
    let error = start(&world.provider(), "plain", 1).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid);
    assert!(error.to_string().contains("neither https nor http to this very machine"), "{error}");
}
