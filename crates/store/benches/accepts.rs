//! Durable accepts per second: `cargo bench -p remuda-store -- [SECONDS] [DIRECTORY]`.
//!
//! `REMUDA_POSTGRES` is the URL of a `PostgreSQL` to measure as well, in turn with `SQLite`, as a disk has
//! its moods. Callers hand in deliveries of 6 to 11 KiB, as a forge sends them, one after the other, each
//! waiting for its answer. The last line is one JSON object, of the runs with 64 callers.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use remuda_core::name::ForgeName;
use remuda_core::{Delivery, Timestamp};
use remuda_store::sqlite::Settings;
use remuda_store::{Accepted, PostgresStore, SqliteStore, Store, postgres};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

const CALLERS: [u64; 4] = [1, 16, 64, 256];
/// Longer than any that is handed in.
const BODY: &str =
    include_str!("../../forge/tests/data/octokit/workflow_job.queued-but-waiting-user.json");

struct Measured {
    accepted_per_s: f64,
    megabytes_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn main() {
    // Cargo adds `--bench`; what else is given is ours.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    let parent = words.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let span = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a machine that can measure can start threads");
    let server = std::env::var_os("REMUDA_POSTGRES");
    let server = server.map(|url| url.into_string().expect("a URL is a text"));
    let mut last = Vec::new();
    println!("store     callers  accepted/s   MB/s  p50 ms  p99 ms");
    for callers in CALLERS {
        let directory = tempfile::tempdir_in(&parent).expect("the directory can be written to");
        let store = SqliteStore::open(&directory.path().join("books.db"), Settings::default())
            .expect("a new database opens");
        let measured = runtime.block_on(measure(Arc::new(store), callers, span));
        last.extend(measured.tell("sqlite", callers));
        if let Some(server) = &server {
            let measured = runtime.block_on(on_postgres(server, callers, span));
            last.extend(measured.tell("postgres", callers));
        }
    }
    println!("{{{}}}", last.join(","));
}

impl Measured {
    /// Prints the figures; those of 64 callers also as a member of the JSON object of the last line.
    fn tell(&self, backend: &str, callers: u64) -> Option<String> {
        let Self { accepted_per_s, megabytes_per_s, p50_ms, p99_ms } = self;
        println!(
            "{backend:8} {callers:8} {accepted_per_s:11.0} {megabytes_per_s:6.0} {p50_ms:7.2} {p99_ms:7.2}"
        );
        let figures = format!(
            r#""{backend}":{{"accepted_per_s":{accepted_per_s:.0},"p50_ms":{p50_ms:.3},"p99_ms":{p99_ms:.3}}}"#
        );
        (callers == 64).then_some(figures)
    }
}

/// In a schema of its own, which is dropped again. A server that does not flush is not measured.
async fn on_postgres(server: &str, callers: u64, span: Duration) -> Measured {
    let (client, connection) =
        tokio_postgres::connect(server, NoTls).await.expect("the server can be reached");
    let mut own = JoinSet::new();
    own.spawn(connection);
    let flushes: String = client.query_one("SHOW fsync", &[]).await.expect("it tells").get(0);
    assert_eq!(flushes, "on", "its accepts would not be durable: set fsync = on");
    let name = format!("bench_{}", std::process::id());
    let run = async |sql: String| client.batch_execute(&sql).await.expect("a schema is ours");
    run(format!("CREATE SCHEMA {name}")).await;
    let url = format!("{server}?options=-csearch_path%3D{name}");
    let store = PostgresStore::open(&url.into(), postgres::Settings::default())
        .await
        .expect("a new schema opens");
    let measured = measure(Arc::new(store), callers, span).await;
    run(format!("DROP SCHEMA {name} CASCADE")).await;
    measured
}

async fn measure(store: Arc<dyn Store>, callers: u64, span: Duration) -> Measured {
    let body: serde_json::Value = serde_json::from_str(BODY).expect("a forge sent it");
    let body: Arc<[u8]> = body.to_string().into_bytes().into();
    let bytes = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (store, body, bytes) = (store.clone(), body.clone(), bytes.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < span {
                let delivery = delivery(caller, took.len(), &body);
                let asked = Instant::now();
                let answer = store.accept(&delivery).await.expect("there is room for more");
                took.push(asked.elapsed());
                assert!(matches!(answer, Accepted::New(_)), "every id is used once");
                bytes.fetch_add(delivery.body.len() as u64, Ordering::Relaxed);
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1e3;
    Measured {
        accepted_per_s: count(took.len() as u64) / seconds,
        megabytes_per_s: count(bytes.load(Ordering::Relaxed)) / 1e6 / seconds,
        p50_ms: at(50),
        p99_ms: at(99),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no run counts to two to the fifty-third")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Ids are spread as a forge's are: in no order.
fn delivery(caller: u64, number: usize, body: &[u8]) -> Delivery {
    let spread = (number as u64 ^ (caller << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = 6 * 1024 + usize::try_from(spread % (5 * 1024)).unwrap_or_default();
    Delivery {
        forge: ForgeName::new("github").expect("the name is plain"),
        id: format!("{spread:016x}-0000-11f0-8a00-{spread:012x}").into(),
        event: "workflow_job".into(),
        received_at: Timestamp::from_millis(0),
        body: body[..length].into(),
    }
}
