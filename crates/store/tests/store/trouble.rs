//! What the store on disk does when the disk, the file or another program is in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remuda_core::job::JobState;
use remuda_core::{Batch, Change};
use remuda_store::sqlite::Settings;
use remuda_store::{Accepted, Decoded, SCHEMA, SqliteStore, Store as _, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::fixture::{HOUR, Hand, attempt, commit, delivery, job_change, lease_of, settings};

struct Place {
    path: PathBuf,
    hand: Hand,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.db");
        Self { path, hand: Hand::default(), _directory: directory }
    }

    fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.path, settings(&self.hand))
    }

    /// Another program at the same file.
    fn stranger(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn mode(&self, suffix: &str) -> u32 {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}

fn refusal(place: &Place) -> String {
    let error = place.open().err().unwrap().to_string();
    error.replace(place.path.to_str().unwrap(), "FILE")
}

#[tokio::test]
async fn only_its_owner_may_read_the_file_and_its_log() {
    let place = Place::new();
    let store = place.open().unwrap();
    store.accept(&delivery("a", b"x")).await.unwrap();
    assert_eq!(place.mode(""), 0o600);
    assert_eq!(place.mode("-wal"), 0o600);
    assert_eq!(place.mode("-shm"), 0o600);
}

#[tokio::test]
async fn what_was_accepted_and_committed_is_there_after_the_store_is_opened_again() {
    let place = Place::new();
    let store = place.open().unwrap();
    store.accept(&delivery("a", b"x")).await.unwrap();
    let lease = lease_of(&store).await;
    let change = job_change(1, attempt(1, JobState::Queued));
    commit(&store, &lease, vec![change.clone()]).await;
    let name = store.load().await.unwrap().installation;
    drop(store);
    let store = place.open().unwrap();
    assert_eq!(store.undecoded(0, 9).await.unwrap(), [(1, delivery("a", b"x"))]);
    let books = store.load().await.unwrap();
    assert_eq!((books.installation, books.changes), (name, vec![change]));
}

#[tokio::test]
async fn nothing_of_a_dropped_store_is_left_running() {
    let place = Place::new();
    let store = place.open().unwrap();
    store.accept(&delivery("a", b"x")).await.unwrap();
    let log = place.path.with_extension("db-wal");
    assert!(log.exists());
    drop(store);
    // The last connection to close removes the log, and each thread has one.
    assert!(!log.exists());
}

#[tokio::test]
async fn two_processes_at_one_file_are_kept_apart_by_the_lease() {
    let place = Place::new();
    let (ours, theirs) = (place.open().unwrap(), place.open().unwrap());
    let lease = ours.lease("us", HOUR).await.unwrap().unwrap();
    assert_eq!(theirs.lease("them", HOUR).await.unwrap(), None);
    assert_eq!(ours.accept(&delivery("a", b"x")).await.unwrap(), Accepted::New(1));
    assert_eq!(theirs.accept(&delivery("a", b"x")).await.unwrap(), Accepted::Duplicate(1));
    place.hand.advance(HOUR);
    theirs.lease("them", HOUR).await.unwrap().unwrap();
    let refused = ours.commit(&lease, &Batch::default(), &[]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { epoch: 1 })), "{refused:?}");
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let place = Place::new();
    drop(place.open().unwrap());
    let later = "INSERT INTO schema_migration VALUES (999, 'x', 0)";
    place.stranger().execute(later, []).unwrap();
    assert_eq!(
        refusal(&place),
        format!(
            "database FILE has schema 999 and this version knows no more than {SCHEMA}: \
             run the version that wrote it, or a newer one"
        )
    );
}

#[test]
fn a_database_made_by_another_migration_is_refused() {
    let place = Place::new();
    drop(place.open().unwrap());
    place.stranger().execute("UPDATE schema_migration SET sha256 = 'x'", []).unwrap();
    assert_eq!(
        refusal(&place),
        "database FILE was made with another migration 1 than this version's: \
         run the version that made it, or restore a backup"
    );
}

#[test]
fn a_database_of_another_program_is_refused_and_left_as_it_was() {
    let place = Place::new();
    place.stranger().execute_batch("CREATE TABLE song (title TEXT)").unwrap();
    let before = fs::read(&place.path).unwrap();
    assert_eq!(refusal(&place), "database FILE holds tables that are not ours: name another");
    assert_eq!(fs::read(&place.path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_was() {
    let place = Place::new();
    let text = "[forges.github]\n".repeat(100);
    fs::write(&place.path, &text).unwrap();
    let error = refusal(&place);
    assert!(error.starts_with("database FILE is damaged (file is not a database"), "{error}");
    assert_eq!(fs::read_to_string(&place.path).unwrap(), text);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let path = Path::new("no-such-directory").join("books.db");
    let error = SqliteStore::open(&path, Settings::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "cannot open database no-such-directory/books.db: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_row_that_we_would_not_have_written_is_named() {
    let place = Place::new();
    let store = place.open().unwrap();
    let lease = lease_of(&store).await;
    commit(&store, &lease, vec![job_change(1, attempt(1, JobState::Queued))]).await;
    place.stranger().execute("UPDATE job SET scope = 'moon'", []).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("column scope: scope \"moon\" is not"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room_and_loses_nothing() {
    let place = Place::new();
    let small = Settings { pages_max: Some(200), ..settings(&place.hand) };
    let store = SqliteStore::open(&place.path, small).unwrap();
    let body = vec![7; 10_000];
    let mut kept = Vec::new();
    let error = loop {
        assert!(kept.len() < 200, "200 pages do not hold 200 bodies of two pages each");
        match store.accept(&delivery(&kept.len().to_string(), &body)).await {
            Ok(answer) => kept.push(answer),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(
        error.to_string().replace(place.path.to_str().unwrap(), "FILE"),
        "database FILE cannot grow and nothing was written: \
         free space on its file system or raise its limit"
    );
    // Not kept, so not known either: it is refused again and not called a duplicate.
    let next = delivery(&kept.len().to_string(), &body);
    let again = store.accept(&next).await;
    assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    assert_eq!(store.undecoded(0, 1000).await.unwrap().len(), kept.len());

    // Room comes back.
    place.stranger().execute("DELETE FROM delivery_body WHERE sequence <= 5", []).unwrap();
    let number = kept.len() as u64 + 1;
    assert_eq!(store.accept(&next).await.unwrap(), Accepted::New(number));
    drop(store);
    let store = place.open().unwrap();
    for (index, answer) in kept.into_iter().enumerate() {
        let Accepted::New(number) = answer else { panic!("{answer:?} of a new id") };
        let again = store.accept(&delivery(&index.to_string(), &body)).await.unwrap();
        assert_eq!(again, Accepted::Duplicate(number));
    }
}

#[tokio::test]
async fn a_delivery_that_does_not_fit_fails_alone() {
    let place = Place::new();
    let small = Settings { pages_max: Some(400), ..settings(&place.hand) };
    let store = Arc::new(SqliteStore::open(&place.path, small).unwrap());
    let huge = vec![7; 400 * 8192];
    let mut callers = JoinSet::new();
    for id in 0..40 {
        let store = store.clone();
        let body = if id % 10 == 5 { huge.clone() } else { b"x".to_vec() };
        callers.spawn(async move { (id, store.accept(&delivery(&id.to_string(), &body)).await) });
    }
    for (id, answer) in callers.join_all().await {
        match answer {
            Ok(Accepted::New(_)) => assert_ne!(id % 10, 5),
            Err(StoreError::Full { .. }) => assert_eq!(id % 10, 5),
            other => panic!("{id}: {other:?}"),
        }
    }
    assert_eq!(store.undecoded(0, 100).await.unwrap().len(), 36);
}

#[tokio::test]
async fn a_locked_database_is_an_error_until_it_is_let_go_and_loses_nothing() {
    let place = Place::new();
    let store = Arc::new(place.open().unwrap());
    let lease = lease_of(&*store).await;
    let stranger = place.stranger();
    stranger.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut callers = JoinSet::new();
    for id in 0..20 {
        let store = store.clone();
        callers.spawn(async move { store.accept(&delivery(&id.to_string(), b"x")).await });
    }
    for answer in callers.join_all().await {
        let error = answer.unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
        assert_eq!(
            error.to_string().replace(place.path.to_str().unwrap(), "FILE"),
            "database FILE is locked by another program and nothing was written: \
             end the program that has it open"
        );
    }
    let refused = store.commit(&lease, &Batch::default(), &[]).await;
    assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
    let unfit = store.check().await;
    assert!(matches!(unfit, Err(StoreError::Locked { .. })), "{unfit:?}");
    assert_eq!(store.undecoded(0, 10).await.unwrap(), []);

    stranger.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.accept(&delivery("0", b"x")).await.unwrap(), Accepted::New(1));
    store.commit(&lease, &Batch::default(), &[]).await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn the_bodies_of_decoded_deliveries_go_before_their_ids() {
    let place = Place::new();
    let store = place.open().unwrap();
    for id in ["decoded", "failed", "pending"] {
        store.accept(&delivery(id, b"x")).await.unwrap();
    }
    let lease = lease_of(&store).await;
    let marks = [
        Decoded { sequence: 1, result: Ok(()) },
        Decoded { sequence: 2, result: Err("no id".into()) },
    ];
    store.commit(&lease, &Batch::default(), &marks).await.unwrap();
    place.hand.advance(2 * HOUR);
    commit(&store, &lease, Vec::<Change>::new()).await;
    let stranger = place.stranger();
    let mut bodies = stranger.prepare("SELECT sequence FROM delivery_body ORDER BY 1").unwrap();
    let left: Vec<i64> =
        bodies.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(left, [2, 3]);
    let known = store.accept(&delivery("decoded", b"x")).await.unwrap();
    assert_eq!(known, Accepted::Duplicate(1));
}
