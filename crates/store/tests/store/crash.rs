//! A process that is killed keeps its word: what it acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use remuda_core::job::JobState;
use remuda_core::{Batch, Change, Delivery};
use remuda_store::sqlite::Settings;
use remuda_store::{Accepted, Decoded, Lease, SqliteStore, Store as _};
use tokio::task::JoinSet;

use crate::fixture::{attempt, delivery, event, job_change};

/// Where the child writes, and the number of its round.
const DIRECTORY: &str = "REMUDA_STORE_CRASH_DIRECTORY";
const ROUND: &str = "REMUDA_STORE_CRASH_ROUND";
/// How many acknowledgements the parent awaits before it kills the child, round by round.
const PATIENCE: [usize; 6] = [1, 40, 173, 7, 301, 90];
const CALLERS: u64 = 8;
/// A child that nobody kills ends after this.
const TURNS_MAX: u64 = 20_000;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let round = std::env::var_os(ROUND).unwrap().into_string().unwrap().parse().unwrap();
        return write_until_killed(Path::new(&directory), round);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for (round, patience) in PATIENCE.into_iter().enumerate() {
        acknowledged.extend(run_and_kill(directory.path(), round, patience));
        check(directory.path(), &acknowledged);
    }
}

/// Runs this test again as a child and kills it after `patience` acknowledgements. Gives all it made.
fn run_and_kill(directory: &Path, round: usize, patience: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::what_was_acknowledged_survives_a_kill", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut seen: Vec<String> = lines.by_ref().take(patience).collect();
    child.kill().unwrap();
    // What it managed to say before the signal struck counts as well.
    seen.extend(lines);
    child.wait().unwrap();
    assert!(seen.len() >= patience, "the child ended by itself: {seen:?}");
    seen
}

fn write_until_killed(directory: &Path, round: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let path = directory.join("books.db");
        let store = Arc::new(SqliteStore::open(&path, Settings::default()).unwrap());
        // No longer than this instant: the next round must not wait for it to run out.
        let lease = store.lease(&round.to_string(), Duration::ZERO).await.unwrap().unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(write(store.clone(), lease.clone(), round * CALLERS + caller));
        }
        callers.join_all().await;
    });
}

async fn write(store: Arc<SqliteStore>, lease: Lease, caller: u64) {
    for turn in 0..TURNS_MAX {
        let native = caller * TURNS_MAX + turn;
        let answer = store.accept(&body_of(native)).await.unwrap();
        let Accepted::New(sequence) = answer else { panic!("{native} was not written yet") };
        acknowledge(&format!("accepted {native} {sequence}"));
        let batch = Batch {
            changes: vec![job_change(native, attempt(1, JobState::Queued))],
            waits: Vec::new(),
            events: vec![event(&native.to_string())],
        };
        let marks = [Decoded { sequence, result: Ok(()) }];
        store.commit(&lease, &batch, &marks).await.unwrap();
        acknowledge(&format!("committed {native} {sequence}"));
    }
}

fn body_of(native: u64) -> Delivery {
    delivery(&native.to_string(), native.to_string().repeat(300).as_bytes())
}

/// One write, so that a line is there whole or not at all.
fn acknowledge(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn check(directory: &Path, acknowledged: &BTreeSet<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let path = directory.join("books.db");
        let store = SqliteStore::open(&path, Settings::default()).unwrap();
        let pending: BTreeSet<u64> =
            store.undecoded(0, u32::MAX).await.unwrap().into_iter().map(|(n, _)| n).collect();
        let jobs: BTreeSet<u64> = store
            .load()
            .await
            .unwrap()
            .changes
            .iter()
            .map(|change| match change {
                Change::Job(job) => job.key.native,
                other => panic!("nobody wrote {other:?}"),
            })
            .collect();
        for line in acknowledged {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, native, sequence] = words[..] else { panic!("{line:?}") };
            let (native, sequence): (u64, u64) =
                (native.parse().unwrap(), sequence.parse().unwrap());
            let answer = store.accept(&body_of(native)).await.unwrap();
            assert_eq!(answer, Accepted::Duplicate(sequence), "{line}");
            if what == "committed" {
                assert!(jobs.contains(&native) && !pending.contains(&sequence), "{line}");
            }
        }
        // A commit is there whole or not at all.
        let events = store.events(0, u32::MAX).await.unwrap();
        let told: BTreeSet<u64> =
            events.iter().map(|(_, event)| event.text.parse().unwrap()).collect();
        assert_eq!(told, jobs);
    });
}
