//! What the store in `PostgreSQL` does when the server, the network or another process is in the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use remuda_core::job::JobState;
use remuda_core::tenant::Met;
use remuda_core::{Batch, Change, Timestamp};
use remuda_store::postgres::Settings;
use remuda_store::{Accepted, Lease, PostgresStore, Store as _, StoreError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::fixture::{HOUR, Hand, attempt, delivery, job_change};
use crate::proxy::{Fault, Proxy};
use crate::real::{Schema, client, server};

/// No test waits for longer; none needs a fraction of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// The parts of the server's URL: what is before the password, it, the address, and what is after.
fn parts(url: &str) -> (&str, &str, &str, &str) {
    let (user, rest) = url.split_once('@').unwrap();
    let (user, password) = user.rsplit_once(':').unwrap();
    let (address, name) = rest.split_once('/').unwrap();
    (user, password, address, name)
}

/// The same database by another way.
fn through(url: &SecretString, address: &str) -> SecretString {
    let (user, password, _, name) = parts(url.expose_secret());
    format!("{user}:{password}@{address}/{name}").into()
}

async fn open(url: &SecretString) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(url, Settings::default()).await
}

/// Why the database at `url` is not opened, in words, in which no secret is.
async fn refusal(url: String) -> (StoreError, String) {
    let password = parts(&url).1.to_owned();
    let url: SecretString = url.into();
    let error = open(&url).await.err().unwrap();
    for shown in [error.to_string(), format!("{error:?}")] {
        assert!(!shown.contains(&password), "{shown}");
    }
    let said = error.to_string();
    (error, said)
}

/// How many connections there are under this name.
async fn connections(client: &Client, name: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    client.query_one(sql, &[&name]).await.unwrap().get(0)
}

/// Asks until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it is never so");
}

fn told(hand: &Hand) -> Settings {
    Settings { clock: Some(hand.clock()), ..Settings::default() }
}

fn one_job(native: u64) -> Batch {
    let changes = vec![job_change(native, attempt(1, JobState::Queued))];
    Batch { changes, ..Batch::default() }
}

async fn jobs(store: &PostgresStore) -> usize {
    store.load().await.unwrap().changes.len()
}

#[tokio::test]
async fn a_wrong_password_is_refused_in_words_that_do_not_show_it() {
    let Some(url) = server() else { return };
    let (user, _, address, name) = parts(&url);
    let (error, said) = refusal(format!("{user}:n0t-it@{address}/{name}")).await;
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert_eq!(
        said,
        format!(
            "database {user}@{address}/{name} does not let us in (password authentication failed \
             for user \"remuda\"): correct the user or the password, or what the server allows"
        )
    );
}

#[tokio::test]
async fn a_user_who_may_not_use_the_tables_is_not_let_in() {
    let Some(schema) = Schema::new().await else { return };
    drop(open(&schema.url()).await.unwrap());
    let own = client(schema.url().expose_secret()).await;
    let seen: String = own.query_one("SELECT current_schema()::text", &[]).await.unwrap().get(0);
    // Such a user may connect, and use nothing of ours; then at least see it.
    let url = schema.url_with("%20-crole%3Dpg_monitor");
    for problem in ["no schema has been selected", "permission denied for table schema_migration"] {
        let error = open(&url).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
        let grant = format!("GRANT USAGE ON SCHEMA {seen} TO pg_monitor");
        own.batch_execute(&grant).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named() {
    let Some(url) = server() else { return };
    let (user, password, _, name) = parts(&url);
    let (error, said) = refusal(format!("{user}:{password}@127.0.0.1:1/{name}")).await;
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(
        said.starts_with(&format!("cannot reach database {user}@127.0.0.1:1/{name}")),
        "{said}"
    );
    assert!(said.contains("Connection refused"), "{said}");
}

#[tokio::test]
async fn a_database_that_the_server_does_not_have_is_named() {
    let Some(url) = server() else { return };
    let (user, password, address, _) = parts(&url);
    let (error, said) = refusal(format!("{user}:{password}@{address}/nowhere")).await;
    assert!(matches!(error, StoreError::Missing { .. }), "{error:?}");
    let place = format!("{user}@{address}/nowhere");
    assert_eq!(said, format!("there is no database {place}: create it, or correct its name"));
}

#[tokio::test]
async fn a_server_that_insists_on_tls_is_told_from_one_that_refuses_us() {
    let Some(url) = server() else { return };
    let (_, password, address, name) = parts(&url);
    let user = "postgresql://remuda_tls";
    let (error, said) = refusal(format!("{user}:{password}@{address}/{name}")).await;
    assert!(matches!(error, StoreError::Tls { .. }), "{error:?}");
    assert!(said.contains("no encryption): correct sslmode"), "{said}");
}

#[tokio::test]
async fn with_tls_the_server_must_prove_as_much_as_was_asked_for() {
    let Some(schema) = Schema::new().await else { return };
    let own = client(schema.url().expose_secret()).await;
    let authority = std::env::var_os("REMUDA_POSTGRES_CA").unwrap().into_string().unwrap();
    let named = through(&schema.url(), parts(schema.url().expose_secret()).2)
        .expose_secret()
        .replace("127.0.0.1", "localhost");
    let address = schema.url().expose_secret().to_owned();
    for (url, sound) in [
        (format!("{address}&sslmode=require"), true),
        (format!("{named}&sslmode=verify-full&sslrootcert={authority}"), true),
        (format!("{named}&sslrootcert={authority}"), true),
        // Its certificate is for another name, by nobody whom the system trusts.
        (format!("{address}&sslmode=verify-full&sslrootcert={authority}"), false),
        (format!("{named}&sslmode=verify-full"), false),
        (format!("{named}&sslmode=verify-full&sslrootcert=no-such-file"), false),
    ] {
        let name =
            format!("tls {url}").chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let name = name[name.len() - 40..].to_owned();
        let opened = open(&format!("{url}&application_name={name}").into()).await;
        match (sound, opened) {
            (true, Ok(store)) => {
                store.check().await.unwrap();
                let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE application_name = $1";
                let all: Option<bool> = own.query_one(sql, &[&name]).await.unwrap().get(0);
                assert_eq!(all, Some(true), "{name}");
            }
            (false, Err(StoreError::Tls { .. })) => {}
            (_, other) => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_or_of_another_program_is_refused() {
    let Some(schema) = Schema::new().await else { return };
    let own = client(schema.url().expose_secret()).await;
    own.batch_execute("CREATE TABLE song (title TEXT)").await.unwrap();
    let (error, _) = refusal(schema.url().expose_secret().to_owned()).await;
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");

    own.batch_execute("DROP TABLE song").await.unwrap();
    drop(open(&schema.url()).await.unwrap());
    let later = "INSERT INTO schema_migration VALUES (999, 'x', 0)";
    own.batch_execute(later).await.unwrap();
    let (error, said) = refusal(schema.url().expose_secret().to_owned()).await;
    assert!(matches!(error, StoreError::Newer { schema: 999, .. }), "{error:?}");
    assert!(said.contains("has schema 999 and this version knows no more than"), "{said}");

    let other = "DELETE FROM schema_migration WHERE number = 999;
        UPDATE schema_migration SET sha256 = 'x'";
    own.batch_execute(other).await.unwrap();
    let (error, _) = refusal(schema.url().expose_secret().to_owned()).await;
    assert!(matches!(error, StoreError::Drift { migration: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn several_processes_may_bring_one_database_forward_at_the_same_time() {
    let Some(schema) = Schema::new().await else { return };
    let mut opening = JoinSet::new();
    for _ in 0..4 {
        let url = schema.url();
        opening.spawn(async move { open(&url).await.unwrap().load().await.unwrap().installation });
    }
    let names: BTreeSet<_> = opening.join_all().await.into_iter().collect();
    assert_eq!(names.len(), 1, "they have the same books");
}

#[tokio::test]
async fn a_read_only_database_is_refused() {
    let Some(schema) = Schema::new().await else { return };
    let url = schema.url_with("%20-cdefault_transaction_read_only%3Don");
    for migrated in [false, true] {
        if migrated {
            drop(open(&schema.url()).await.unwrap());
        }
        let (error, said) = refusal(url.expose_secret().to_owned()).await;
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
        assert!(said.ends_with("is read-only and nothing was written: name the primary server"));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_commit_leaves_it_to_the_books_to_tell() {
    let Some(schema) = Schema::new().await else { return };
    let proxy = Proxy::before(parts(schema.url().expose_secret()).2).await;
    let store = open(&through(&schema.url(), proxy.address())).await.unwrap();
    let lease = store.lease("us", HOUR).await.unwrap().unwrap();
    for (fault, written) in [(Fault::CutBefore("COMMIT\0"), 0), (Fault::CutAfter("COMMIT\0"), 1)] {
        proxy.arm(fault);
        let error = store.commit(&lease, &one_job(1), &[]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unknown { .. }), "{fault:?}: {error:?}");
        assert!(error.to_string().ends_with("load the books again under a new lease"), "{error}");
        assert_eq!(jobs(&store).await, written, "{fault:?}");
    }
    // Before the end was asked for, nothing can have been written.
    proxy.arm(Fault::CutBefore("BEGIN"));
    let error = store.commit(&lease, &one_job(2), &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    assert_eq!(jobs(&store).await, 1);
    store.commit(&lease, &one_job(2), &[]).await.unwrap();
    assert_eq!(jobs(&store).await, 2);
}

#[tokio::test]
async fn a_delivery_whose_answer_was_lost_is_known_when_it_comes_again() {
    let Some(schema) = Schema::new().await else { return };
    let proxy = Proxy::before(parts(schema.url().expose_secret()).2).await;
    let store = open(&through(&schema.url(), proxy.address())).await.unwrap();
    proxy.arm(Fault::CutAfter("COMMIT\0"));
    let error = store.accept(&delivery("a", b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert_eq!(store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::Duplicate(1));
    proxy.arm(Fault::CutBefore("COMMIT\0"));
    store.accept(&delivery("b", b"x")).await.unwrap_err();
    assert_eq!(store.accept(&delivery("b", b"x")).await.unwrap(), Accepted::New(2));
}

#[tokio::test]
async fn a_leader_that_is_stopped_in_a_commit_holds_nobody_up_and_writes_nothing() {
    let Some(schema) = Schema::new().await else { return };
    let hand = Hand::default();
    let proxy = Proxy::before(parts(schema.url().expose_secret()).2).await;
    let brief = Settings { pause_timeout: Duration::from_millis(200), ..told(&hand) };
    let stopped = through(&schema.url(), proxy.address());
    let stopped = Arc::new(PostgresStore::open(&stopped, brief).await.unwrap());
    let successor = PostgresStore::open(&schema.url(), told(&hand)).await.unwrap();
    let lease = stopped.lease("us", HOUR).await.unwrap().unwrap();
    proxy.arm(Fault::Freeze("COMMIT\0"));
    let mut commits = JoinSet::new();
    let (store, old) = (Arc::clone(&stopped), lease.clone());
    commits.spawn(async move { store.commit(&old, &one_job(1), &[]).await });
    until(async || proxy.has_struck()).await;
    hand.advance(HOUR);
    // It has the lease's row locked, until the server loses patience with it.
    let newer = timeout(PATIENCE, successor.lease("them", HOUR)).await.unwrap().unwrap().unwrap();
    assert!(newer.epoch() > lease.epoch());
    assert_eq!(jobs(&successor).await, 0);
    let fenced = stopped.commit(&lease, &one_job(1), &[]).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    drop(commits);
    drop(stopped);
    assert_eq!(jobs(&successor).await, 0);
}

/// Or else the server gives it, once it can, to somebody who has long gone away.
#[tokio::test]
async fn the_lease_is_not_waited_for_as_long_as_other_statements() {
    let Some(schema) = Schema::new().await else { return };
    let hour = Duration::from_hours(1);
    let times = Settings {
        statement_timeout: hour,
        lease_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let store = PostgresStore::open(&schema.url(), times).await.unwrap();
    let stranger = client(schema.url().expose_secret()).await;
    stranger.batch_execute("BEGIN; SELECT * FROM lease FOR UPDATE").await.unwrap();
    let error = timeout(PATIENCE, store.lease("us", HOUR)).await.expect("it waits").unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    stranger.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.lease("us", HOUR).await.unwrap().unwrap().epoch(), 1, "nobody has had it");
}

#[tokio::test]
async fn a_server_that_restarts_fails_what_is_under_way_and_works_again() {
    let Some(schema) = Schema::new().await else { return };
    let name = format!("restart{}", std::process::id());
    let url = schema.url_with(&format!("&application_name={name}"));
    let store = Arc::new(open(&url).await.unwrap());
    let lease = store.lease("us", HOUR).await.unwrap().unwrap();
    let (own, stranger) =
        (client(schema.url().expose_secret()).await, client(schema.url().expose_secret()).await);
    stranger.batch_execute("BEGIN; SELECT * FROM lease FOR UPDATE").await.unwrap();
    let mut commits = JoinSet::new();
    let (ours, old) = (Arc::clone(&store), lease.clone());
    commits.spawn(async move { ours.commit(&old, &one_job(1), &[]).await });
    // As a restart does to every backend.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = $1 AND wait_event_type = 'Lock'";
    until(async || own.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) == 1).await;
    let error = commits.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Restarting { .. }), "{error:?}");
    stranger.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(jobs(&store).await, 0);

    // Those that are idle end too; whoever comes next gets new ones.
    let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE application_name = $1";
    own.query(sql, &[&name]).await.unwrap();
    until(async || store.check().await.is_ok()).await;
    store.commit(&lease, &one_job(1), &[]).await.unwrap();
    assert_eq!(store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::New(1));
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_an_error_until_it_is_let_go() {
    let Some(schema) = Schema::new().await else { return };
    let brief = Settings { statement_timeout: Duration::from_millis(50), ..Settings::default() };
    let store = PostgresStore::open(&schema.url(), brief).await.unwrap();
    let lease = store.lease("us", HOUR).await.unwrap().unwrap();
    let stranger = client(schema.url().expose_secret()).await;
    stranger.batch_execute("BEGIN; SELECT * FROM lease, delivery_number FOR UPDATE").await.unwrap();
    let error = store.commit(&lease, &one_job(1), &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    let error = store.accept(&delivery("a", b"x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    stranger.batch_execute("ROLLBACK").await.unwrap();
    store.commit(&lease, &one_job(1), &[]).await.unwrap();
    assert_eq!(store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::New(1));
}

#[tokio::test]
async fn the_lease_goes_by_the_clock_of_the_database() {
    let Some(schema) = Schema::new().await else { return };
    let store = open(&schema.url()).await.unwrap();
    let own = client(schema.url().expose_secret()).await;
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let before: i64 = own.query_one(sql, &[]).await.unwrap().get(0);
    let first: Lease = store.lease("us", Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(store.leader().await.unwrap(), None, "it ran out at once");
    let second = store.lease("them", HOUR).await.unwrap().unwrap();
    let after: i64 = own.query_one(sql, &[]).await.unwrap().get(0);
    assert!(second.epoch() > first.epoch());
    assert_eq!(store.lease("us", HOUR).await.unwrap(), None);
    let since = store.leader().await.unwrap().unwrap().since;
    assert!((before..=after).map(Timestamp::from_millis).any(|at| at == since), "{since}");
}

#[tokio::test]
async fn others_hear_of_a_delivery() {
    let Some(schema) = Schema::new().await else { return };
    let (ours, theirs) = (open(&schema.url()).await.unwrap(), open(&schema.url()).await.unwrap());
    // The first says that it listens from now on.
    timeout(PATIENCE, theirs.news()).await.unwrap();
    ours.accept(&delivery("a", b"x")).await.unwrap();
    timeout(PATIENCE, theirs.news()).await.unwrap();
}

#[tokio::test]
async fn whoever_reads_deliveries_in_order_misses_none_that_others_accept_meanwhile() {
    let Some(schema) = Schema::new().await else { return };
    let mut callers = JoinSet::new();
    for process in 0..3 {
        let store = Arc::new(open(&schema.url()).await.unwrap());
        for caller in 0..4 {
            let store = Arc::clone(&store);
            callers.spawn(async move {
                for number in 0..25 {
                    let id = format!("{process} {caller} {number}");
                    store.accept(&delivery(&id, b"x")).await.unwrap();
                }
            });
        }
    }
    let reader = open(&schema.url()).await.unwrap();
    let (mut after, mut seen) = (0, 0);
    until(async || {
        let found = reader.undecoded(after, 1000).await.unwrap();
        seen += found.len();
        after = found.last().map_or(after, |(sequence, _)| *sequence);
        seen == 300
    })
    .await;
    callers.join_all().await;
    assert_eq!(reader.undecoded(0, 1000).await.unwrap().len(), 300);
}

#[tokio::test]
async fn nothing_of_a_dropped_store_stays_connected() {
    let Some(schema) = Schema::new().await else { return };
    let name = format!("dropped{}", std::process::id());
    let store = open(&schema.url_with(&format!("&application_name={name}"))).await.unwrap();
    store.accept(&delivery("a", b"x")).await.unwrap();
    let own = client(schema.url().expose_secret()).await;
    assert_ne!(connections(&own, &name).await, 0);
    drop(store);
    until(async || connections(&own, &name).await == 0).await;
}

#[tokio::test]
async fn bodies_are_compressed_where_the_server_can() {
    let Some(schema) = Schema::new().await else { return };
    let store = open(&schema.url()).await.unwrap();
    let body = br#"{"repository":"remuda","sender":"remuda"}"#.repeat(200);
    store.accept(&delivery("a", &body)).await.unwrap();
    assert_eq!(&*store.undecoded(0, 1).await.unwrap()[0].1.body, &body[..]);
    let own = client(schema.url().expose_secret()).await;
    let sql = "SELECT bool_and(pg_column_compression(body) = 'lz4' OR NOT can)
        FROM delivery_body, (SELECT 'lz4' = ANY (enumvals) AS can FROM pg_settings
        WHERE name = 'default_toast_compression') AS server";
    let found = own.query_one(sql, &[]).await.unwrap();
    assert!(found.get::<_, bool>(0));
}

#[test]
fn a_store_whose_intake_has_ended_is_not_sound() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (first, second) = (runtime(), runtime());
    let Some(schema) = second.block_on(Schema::new()) else { return };
    let store = first.block_on(open(&schema.url())).unwrap();
    second.block_on(store.check()).unwrap();
    // What serves the store ends with it.
    drop(first);
    let error = second.block_on(store.check()).unwrap_err();
    assert!(matches!(error, StoreError::Closed { .. }), "{error:?}");
}

/// Waits until something of ours waits for a lock.
async fn until_locked_out(own: &Client, name: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = $1 AND wait_event_type = 'Lock'";
    until(async || own.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) == 1).await;
}

#[tokio::test]
async fn the_lease_is_renewed_while_every_other_connection_is_in_use() {
    let Some(schema) = Schema::new().await else { return };
    let name = format!("renewal{}", std::process::id());
    let url = schema.url_with(&format!("&application_name={name}"));
    let few = Settings { connections: 1, ..Settings::default() };
    let store = Arc::new(PostgresStore::open(&url, few).await.unwrap());
    let lease = store.lease("us", HOUR).await.unwrap().unwrap();
    let stranger = client(schema.url().expose_secret()).await;
    stranger.batch_execute("BEGIN; SELECT * FROM delivery_number FOR UPDATE").await.unwrap();
    let mut accepts = JoinSet::new();
    let ours = Arc::clone(&store);
    accepts.spawn(async move { ours.accept(&delivery("a", b"x")).await });
    let own = client(schema.url().expose_secret()).await;
    until_locked_out(&own, &name).await;
    assert!(store.renew(&lease, HOUR).await.unwrap());
    store.release(&lease).await.unwrap();
    assert!(accepts.try_join_next().is_none(), "all the while the connection was in use");
    stranger.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(accepts.join_next().await.unwrap().unwrap().unwrap(), Accepted::New(1));
}

#[tokio::test]
async fn a_migration_takes_longer_than_a_statement_may() {
    let Some(schema) = Schema::new().await else { return };
    drop(open(&schema.url()).await.unwrap());
    let own = client(schema.url().expose_secret()).await;
    // One comes once more with those behind it, and finds its table in use.
    let again = "DELETE FROM schema_migration WHERE number >= 5; DROP TABLE fleet";
    own.batch_execute(again).await.unwrap();
    let stranger = client(schema.url().expose_secret()).await;
    stranger.batch_execute("BEGIN; SELECT * FROM delivery_body").await.unwrap();
    let name = format!("migration{}", std::process::id());
    let url = schema.url_with(&format!("&application_name={name}"));
    let mut opening = JoinSet::new();
    opening.spawn(async move {
        let brief =
            Settings { statement_timeout: Duration::from_millis(300), ..Settings::default() };
        PostgresStore::open(&url, brief).await
    });
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1
        AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '400 ms'";
    until(async || {
        assert!(opening.try_join_next().is_none(), "it did not wait");
        own.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    stranger.batch_execute("ROLLBACK").await.unwrap();
    opening.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_the_version_before_wrote_during_an_upgrade_hinders_nothing() {
    let Some(schema) = Schema::new().await else { return };
    let store = open(&schema.url()).await.unwrap();
    let own = client(schema.url().expose_secret()).await;
    let old = "INSERT INTO tenant (forge, kind, id, login)
            VALUES ('github', 'organization', 3, 'octo-org');
        INSERT INTO backoff (kind, name, scope, failures, until, because, is_full)
            VALUES ('pool', 'small', '', 3, 9999999999999, 'x', 0)";
    own.batch_execute(old).await.unwrap();
    let changes = store.load().await.unwrap().changes;
    let [Change::Tenant(met)] = &changes[..] else { panic!("{changes:?}") };
    // Its login means it as soon as it is seen again, unless it means another.
    let seen = Met::seen(Some(met), &met.tenant, std::iter::empty());
    assert_eq!(seen.logins, std::slice::from_ref(&met.tenant.login));
}
