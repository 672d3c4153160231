//! What one database holds can be carried to another, whole or not at all.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use remuda_core::job::JobState;
use remuda_core::{Batch, Delivery, Timestamp};
use remuda_store::postgres::Settings;
use remuda_store::{
    Accepted, Applied, Decoded, PostgresStore, SqliteStore, Store, StoreError, TransferError,
};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::fixture::{HOUR, Hand, attempt, delivery, event, job_change, lease_of, settings};
use crate::nouns;
use crate::real::{Schema, client};

/// Files of databases.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

fn exported(path: &Path) -> String {
    let mut stream = Vec::new();
    SqliteStore::export(path, &mut stream).unwrap();
    String::from_utf8(stream).unwrap()
}

fn import(path: &Path, stream: &str) -> Result<u64, TransferError> {
    SqliteStore::import(path, &mut stream.as_bytes())
}

/// Does something of everything, and gives the lease back.
async fn fill(store: &dyn Store, deliveries: &[Delivery], batches: Vec<Batch>) {
    let lease = lease_of(store).await;
    for (index, delivery) in deliveries.iter().enumerate() {
        let (Accepted::New(sequence) | Accepted::Duplicate(sequence)) =
            store.accept(delivery).await.unwrap();
        let result = if index % 3 == 0 { Ok(()) } else { Err("no \0 id".to_owned()) };
        let marks = [Decoded { sequence, result }];
        let marks = if index % 2 == 0 { &marks[..] } else { &[] };
        store.commit(&lease, &Batch::default(), marks).await.unwrap();
    }
    for batch in batches {
        store.commit(&lease, &batch, &[]).await.unwrap();
    }
    let fleet = Applied {
        number: 1,
        at: Timestamp::from_millis(7),
        who: "ann".into(),
        how: "apply".into(),
        revision: "0123456789abcdef".into(),
        files: vec![("fleet.toml".into(), "[server]\n".into())],
    };
    assert!(store.apply(&fleet).await.unwrap());
    store.check().await.unwrap();
    store.release(&lease).await.unwrap();
}

fn batch() -> impl Strategy<Value = Batch> {
    let waits = vec(nouns::wait(nouns::job_key()), 0..4);
    (vec(nouns::change(), 0..20), waits, vec(nouns::event(), 0..4))
        .prop_map(|(changes, waits, events)| Batch { changes, waits, events })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_on_the_way_from_sqlite_to_postgres_and_back(
        deliveries in vec(nouns::delivery(), 0..8),
        batches in vec(batch(), 1..6),
    ) {
        let files = Files::new();
        let (first, second) = (files.path("first.db"), files.path("second.db"));
        runtime().block_on(async {
            let store = SqliteStore::open(&first, settings(&Hand::default())).unwrap();
            fill(&store, &deliveries, batches).await;
            let books = store.load().await.unwrap();
            drop(store);
            let mut stream = exported(&first);
            if let Some(schema) = Schema::new().await {
                let url = schema.url();
                let rows = PostgresStore::import(&url, Settings::default(), &mut stream.as_bytes()).await.unwrap();
                let mut back = Vec::new();
                prop_assert_eq!(PostgresStore::export(&url, Settings::default(), &mut back).await.unwrap(), rows);
                let back = String::from_utf8(back).unwrap();
                prop_assert_eq!(&back, &stream);
                let there = PostgresStore::open(&url, Settings::default()).await.unwrap();
                prop_assert_eq!(there.load().await.unwrap(), books.clone());
                goes_on(&there, &deliveries).await?;
                stream = back;
            }
            import(&second, &stream).unwrap();
            prop_assert_eq!(exported(&second), stream);
            let back = SqliteStore::open(&second, settings(&Hand::default())).unwrap();
            prop_assert_eq!(back.load().await.unwrap(), books);
            goes_on(&back, &deliveries).await
        })?;
    }
}

/// What was known is known, and no number is given a second time.
async fn goes_on(store: &dyn Store, deliveries: &[Delivery]) -> Result<(), TestCaseError> {
    let mut last = 0;
    for delivery in deliveries {
        let Accepted::Duplicate(sequence) = store.accept(delivery).await.unwrap() else {
            return Err(TestCaseError::fail(format!("{} was forgotten", delivery.id)));
        };
        last = last.max(sequence);
    }
    let new = store.accept(&delivery("never seen before", b"x")).await.unwrap();
    prop_assert_eq!(new, Accepted::New(last + 1));
    let lease = lease_of(store).await;
    prop_assert!(lease.epoch() > 1, "an epoch comes but once");
    let events = store.events(0, 10_000).await.unwrap();
    let newest = events.last().map_or(0, |(sequence, _)| *sequence);
    let batch = Batch {
        changes: vec![job_change(u64::MAX, attempt(1, JobState::Queued))],
        events: vec![event("next")],
        ..Batch::default()
    };
    store.commit(&lease, &batch, &[]).await.unwrap();
    let events = store.events(newest, 10).await.unwrap();
    prop_assert_eq!(events, vec![(newest + 1, event("next"))]);
    Ok(())
}

#[tokio::test]
async fn a_database_in_which_there_is_anything_is_not_filled() {
    let files = Files::new();
    let (from, to) = (files.path("from.db"), files.path("to.db"));
    for path in [&from, &to] {
        let store = SqliteStore::open(path, settings(&Hand::default())).unwrap();
        store.accept(&delivery("a", b"x")).await.unwrap();
    }
    let before = exported(&to);
    let error = import(&to, &exported(&from)).unwrap_err();
    assert!(matches!(error, TransferError::NotEmpty { .. }), "{error:?}");
    assert!(
        error.to_string().ends_with("is not empty and nothing was imported: name an empty one")
    );
    assert_eq!(exported(&to), before);

    let Some(schema) = Schema::new().await else { return };
    let stream = exported(&from);
    PostgresStore::import(&schema.url(), Settings::default(), &mut stream.as_bytes())
        .await
        .unwrap();
    let again =
        PostgresStore::import(&schema.url(), Settings::default(), &mut stream.as_bytes()).await;
    assert!(matches!(again, Err(TransferError::NotEmpty { .. })), "{again:?}");
}

#[tokio::test]
async fn a_stream_that_is_not_as_it_was_written_fills_nothing() {
    let files = Files::new();
    let from = files.path("from.db");
    let store = SqliteStore::open(&from, settings(&Hand::default())).unwrap();
    store.accept(&delivery("a", b"x")).await.unwrap();
    drop(store);
    let stream = exported(&from);
    let lines: Vec<&str> = stream.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n") + "\n";
    let last = lines.len() - 1;
    let short = [&lines[..last - 1], &lines[last..]].concat().join("\n") + "\n";
    let schema = Schema::new().await;
    for (text, problem) in [
        (String::new(), "line 1 of the export is not as it was written: there is nothing"),
        ("{}\n".into(), "it is not the first line of an export of Remuda"),
        (cut, "it ends too early"),
        (short, "rows came before it"),
        (stream.replace("\"received_at\"", "\"at; DROP TABLE job\""), "has no column \"at; DROP"),
        (stream.replace("\"delivery_body\"", "\"sqlite_schema\""), "no table \"sqlite_schema\""),
        (stream.clone() + "[]\n", "it goes on after its end"),
        (stream.replace("\"schema\":", "\"schema\":9"), "the export is of schema 9"),
    ] {
        let path = files.path("to.db");
        let error = import(&path, &text).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(exported(&path).lines().filter(|line| line.starts_with('[')).count(), 3);
        std::fs::remove_file(&path).unwrap();
        if let Some(schema) = &schema {
            let error =
                PostgresStore::import(&schema.url(), Settings::default(), &mut text.as_bytes())
                    .await;
            assert!(error.unwrap_err().to_string().contains(problem));
        }
    }
    // None of them left a row behind.
    if let Some(schema) = &schema {
        PostgresStore::import(&schema.url(), Settings::default(), &mut stream.as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_database_that_a_server_works_on_is_neither_exported_nor_filled() {
    let Some(schema) = Schema::new().await else { return };
    let server = PostgresStore::open(&schema.url(), Settings::default()).await.unwrap();
    let lease = server.lease("anna-0001", HOUR).await.unwrap().unwrap();
    let out = PostgresStore::export(&schema.url(), Settings::default(), &mut Vec::new()).await;
    let into = PostgresStore::import(&schema.url(), Settings::default(), &mut &b""[..]).await;
    for error in [out.unwrap_err(), into.unwrap_err()] {
        assert!(matches!(error, TransferError::Held { .. }), "{error:?}");
        assert!(
            error.to_string().ends_with("in use by server anna-0001: stop it first"),
            "{error}"
        );
    }
    server.release(&lease).await.unwrap();
    PostgresStore::export(&schema.url(), Settings::default(), &mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_database_of_an_older_version_is_exported_once_it_was_brought_forward() {
    let files = Files::new();
    let path = files.path("empty.db");
    std::fs::write(&path, b"").unwrap();
    let error = SqliteStore::export(&path, &mut Vec::new()).unwrap_err();
    assert!(
        matches!(error, TransferError::Store(StoreError::Older { schema: 0, .. })),
        "{error:?}"
    );
    assert!(error.to_string().ends_with("bring it forward with `remuda store migrate`"), "{error}");
}

/// Passes on what is given to it, and once waits until the server has waited for us for long.
struct Slow<'a, T> {
    inner: T,
    url: &'a str,
    name: &'a str,
    waits: bool,
}

/// Longer than `pause_timeout`.
const LONG: &str = "400 ms";

impl<'a, T> Slow<'a, T> {
    fn new(inner: T, url: &'a str, name: &'a str) -> Self {
        Self { inner, url, name, waits: true }
    }

    fn once(&mut self) {
        if std::mem::take(&mut self.waits) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (url, name) = (self.url.to_owned(), self.name.to_owned());
            // Not here: a runtime is running on this thread.
            let thread = std::thread::spawn(move || runtime.unwrap().block_on(waited(&url, &name)));
            thread.join().unwrap();
        }
    }
}

/// Completes once nothing of `name` is in a transaction that has heard from us lately.
async fn waited(url: &str, name: &str) {
    let own = client(url).await;
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1
         AND xact_start IS NOT NULL AND clock_timestamp() - state_change < interval '{LONG}'"
    );
    while own.query_one(&sql, &[&name]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}

impl<T: Write> Write for Slow<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.once();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Slow<'_, T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.once();
        self.inner.read(bytes)
    }
}

#[tokio::test]
async fn an_export_and_an_import_go_as_fast_as_what_is_at_their_other_end() {
    let Some(schema) = Schema::new().await else { return };
    let Some(other) = Schema::new().await else { return };
    let store = PostgresStore::open(&schema.url(), Settings::default()).await.unwrap();
    for number in 0..40 {
        store.accept(&delivery(&number.to_string(), b"x")).await.unwrap();
    }
    drop(PostgresStore::open(&other.url(), Settings::default()).await.unwrap());
    let brief = Settings { pause_timeout: Duration::from_millis(200), ..Settings::default() };
    let name = format!("slow{}", std::process::id());
    let more = format!("&application_name={name}");
    let watched = schema.url();
    let watched = watched.expose_secret();
    let mut out = Slow::new(Vec::new(), watched, &name);
    let url = schema.url_with(&more);
    let rows = PostgresStore::export(&url, brief.clone(), &mut out).await.unwrap();
    let stream = out.inner;
    let mut input =
        BufReader::with_capacity(16, Slow::new(io::Cursor::new(stream), watched, &name));
    let url = other.url_with(&more);
    assert_eq!(PostgresStore::import(&url, brief.clone(), &mut input).await.unwrap(), rows);

    // Who stalls for longer than that is not waited for, and leaves nothing locked.
    let Some(third) = Schema::new().await else { return };
    let url = third.url_with(&more);
    drop(PostgresStore::open(&url, Settings::default()).await.unwrap());
    let hasty = Settings { stall_timeout: Duration::from_millis(200), ..brief };
    let mut out = Slow::new(Vec::new(), watched, &name);
    let stalled = PostgresStore::export(&schema.url_with(&more), hasty.clone(), &mut out).await;
    assert!(stalled.is_err());
    let mut stream = Vec::new();
    PostgresStore::export(&schema.url(), Settings::default(), &mut stream).await.unwrap();
    let mut input =
        BufReader::with_capacity(16, Slow::new(io::Cursor::new(stream.clone()), watched, &name));
    assert!(PostgresStore::import(&url, hasty, &mut input).await.is_err());
    let again = PostgresStore::import(&url, Settings::default(), &mut &stream[..]).await;
    assert_eq!(again.unwrap(), rows);
}
