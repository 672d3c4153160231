//! One set of promises, kept by every store.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use remuda_core::job::JobState;
use remuda_core::name::{ForgeName, InstallationId};
use remuda_core::reason::Reason;
use remuda_core::runner::{InstanceId, RunnerId};
use remuda_core::snapshot::Note;
use remuda_core::{Batch, Change, Event, Snapshot, Timestamp, WaitChange};
use remuda_store::{Accepted, Applied, Decoded, FLEETS_MAX, Leader, StoreError, WAITS_PER_JOB_MAX};

use crate::fixture::{
    Fixture, HOUR, at, attempt, commit, delivery, event, instance, job_change, key, lease_of,
    memory, postgres, runner, sqlite_file, sqlite_in_memory,
};

const ALMOST_AN_HOUR: Duration = Duration::from_millis(3_599_999);

macro_rules! promises {
    ($($name:ident)*) => {
        promises! { @of memory: $($name)* }
        promises! { @of sqlite_file: $($name)* }
        promises! { @of sqlite_in_memory: $($name)* }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(test) = super::postgres().await {
                    super::$name(test).await;
                }
            })*
        }
    };
    (@of $backend:ident: $($name:ident)*) => {
        mod $backend {
            $(#[tokio::test] async fn $name() { super::$name(super::$backend()).await; })*
        }
    };
}

promises! {
    a_delivery_is_kept_as_it_came_and_once
    two_forges_may_use_one_delivery_id
    undecoded_deliveries_come_in_order_and_by_the_slice
    what_is_decoded_is_pending_no_more_and_still_known
    what_cannot_be_decoded_is_listed_newest_first_and_not_pending
    one_call_hands_back_no_more_bodies_than_fit
    callers_at_the_same_time_get_a_number_each
    a_lease_keeps_others_out_until_it_runs_out
    a_lease_that_ran_out_comes_back_with_another_epoch
    a_lease_given_back_is_over_at_once
    a_renewal_that_comes_too_late_brings_no_lease_back
    everybody_sees_who_leads_and_since_when
    a_commit_under_a_lost_lease_writes_nothing
    the_books_keep_their_name
    what_was_committed_rebuilds_the_snapshot
    what_is_not_durable_is_not_written
    a_flood_in_one_commit_is_written_whole_and_in_order
    a_forgotten_job_is_not_loaded_and_its_history_stays
    a_forgotten_runner_takes_its_instance_along
    every_attempt_of_a_job_is_remembered
    the_last_reasons_of_a_waiting_job_are_loaded
    the_oldest_reasons_give_way
    the_newest_events_stay_in_order
    decoded_deliveries_are_known_for_three_days
    history_ends_with_its_retention
    fleets_in_force_are_numbered_without_gaps_and_the_newest_hundred_stay
    of_two_fleets_with_one_number_the_first_is_in_force
    a_sound_store_passes_its_check
}

fn decoded(sequence: u64) -> Decoded {
    Decoded { sequence, result: Ok(()) }
}

fn undecodable(sequence: u64, error: &str) -> Decoded {
    Decoded { sequence, result: Err(error.into()) }
}

async fn mark(test: &Fixture, marks: &[Decoded]) {
    let lease = lease_of(&*test.store).await;
    test.store.commit(&lease, &Batch::default(), marks).await.unwrap();
}

async fn pending(test: &Fixture) -> Vec<u64> {
    test.store.undecoded(0, 1000).await.unwrap().into_iter().map(|(n, _)| n).collect()
}

async fn a_delivery_is_kept_as_it_came_and_once(test: Fixture) {
    let first = delivery("a", b"\0{raw\xff");
    let other_body = delivery("a", b"{}");
    assert_eq!(test.store.accept(&first).await.unwrap(), Accepted::New(1));
    assert_eq!(test.store.accept(&first).await.unwrap(), Accepted::Duplicate(1));
    assert_eq!(test.store.accept(&other_body).await.unwrap(), Accepted::Duplicate(1));
    assert_eq!(test.store.undecoded(0, 10).await.unwrap(), [(1, first)]);
}

async fn two_forges_may_use_one_delivery_id(test: Fixture) {
    let ours = delivery("a", b"");
    let mut theirs = delivery("a", b"");
    theirs.forge = ForgeName::new("codeberg").unwrap();
    assert_eq!(test.store.accept(&ours).await.unwrap(), Accepted::New(1));
    assert_eq!(test.store.accept(&theirs).await.unwrap(), Accepted::New(2));
}

async fn undecoded_deliveries_come_in_order_and_by_the_slice(test: Fixture) {
    for id in ["d", "b", "a", "c"] {
        test.store.accept(&delivery(id, id.as_bytes())).await.unwrap();
    }
    let slice = test.store.undecoded(1, 2).await.unwrap();
    assert_eq!(slice, [(2, delivery("b", b"b")), (3, delivery("a", b"a"))]);
    assert_eq!(test.store.undecoded(4, 2).await.unwrap(), []);
    assert_eq!(test.store.undecoded(u64::MAX, 2).await.unwrap(), []);
    assert_eq!(test.store.undecoded(0, 0).await.unwrap(), []);
}

async fn what_is_decoded_is_pending_no_more_and_still_known(test: Fixture) {
    for id in ["a", "b"] {
        test.store.accept(&delivery(id, b"x")).await.unwrap();
    }
    mark(&test, &[decoded(1), decoded(77)]).await;
    assert_eq!(pending(&test).await, [2]);
    assert_eq!(test.store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::Duplicate(1));
    mark(&test, &[undecodable(1, "it was decoded before")]).await;
    assert_eq!(test.store.undecodable(10).await.unwrap(), []);
}

async fn what_cannot_be_decoded_is_listed_newest_first_and_not_pending(test: Fixture) {
    for id in ["a", "b", "c"] {
        test.store.accept(&delivery(id, b"x")).await.unwrap();
    }
    mark(&test, &[undecodable(2, "no id")]).await;
    test.hand.advance(HOUR);
    mark(&test, &[undecodable(1, "no labels"), undecodable(3, "no state")]).await;
    assert_eq!(pending(&test).await, Vec::<u64>::new());
    let listed = test.store.undecodable(10).await.unwrap();
    let expected = [
        (3, delivery("c", b"x"), "no state".to_owned()),
        (1, delivery("a", b"x"), "no labels".to_owned()),
        (2, delivery("b", b"x"), "no id".to_owned()),
    ];
    assert_eq!(listed, expected);
    assert_eq!(test.store.undecodable(1).await.unwrap(), expected[..1]);

    mark(&test, &[decoded(3)]).await;
    assert_eq!(test.store.undecodable(10).await.unwrap(), expected[1..]);
}

async fn one_call_hands_back_no_more_bodies_than_fit(test: Fixture) {
    let body = vec![7; 15 * 1024 * 1024];
    for id in ["a", "b", "c"] {
        test.store.accept(&delivery(id, &body)).await.unwrap();
    }
    let first = test.store.undecoded(0, 10).await.unwrap();
    assert_eq!(first.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2]);
    let huge = vec![7; 40 * 1024 * 1024];
    test.store.accept(&delivery("d", &huge)).await.unwrap();
    let last = test.store.undecoded(3, 10).await.unwrap();
    assert_eq!(last, [(4, delivery("d", &huge))]);
}

async fn callers_at_the_same_time_get_a_number_each(test: Fixture) {
    let store: Arc<dyn remuda_store::Store> = test.store.into();
    let mut callers = tokio::task::JoinSet::new();
    for id in 0..200 {
        let store = store.clone();
        // Every delivery comes twice.
        let delivery = delivery(&(id / 2).to_string(), b"x");
        callers.spawn(async move { store.accept(&delivery).await.unwrap() });
    }
    let answers = callers.join_all().await;
    let new: BTreeSet<u64> = answers
        .iter()
        .filter_map(|answer| match answer {
            Accepted::New(sequence) => Some(*sequence),
            Accepted::Duplicate(_) => None,
        })
        .collect();
    assert_eq!(new.len(), 100);
    let kept: BTreeSet<u64> =
        store.undecoded(0, 1000).await.unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(kept, new);
}

async fn a_lease_keeps_others_out_until_it_runs_out(test: Fixture) {
    let ours = test.store.lease("us", HOUR).await.unwrap().unwrap();
    assert_eq!(test.store.lease("them", HOUR).await.unwrap(), None);
    test.hand.advance(ALMOST_AN_HOUR);
    assert!(test.store.renew(&ours, HOUR).await.unwrap());
    test.hand.advance(ALMOST_AN_HOUR);
    assert_eq!(test.store.lease("them", HOUR).await.unwrap(), None);
    test.hand.advance(Duration::from_millis(1));
    let theirs = test.store.lease("them", HOUR).await.unwrap().unwrap();
    assert!(theirs.epoch() > ours.epoch());
    assert_eq!(test.store.lease("us", HOUR).await.unwrap(), None);
}

async fn a_lease_that_ran_out_comes_back_with_another_epoch(test: Fixture) {
    let before = test.store.lease("us", HOUR).await.unwrap().unwrap();
    test.hand.advance(HOUR);
    // Nobody else has taken it, so what was decided under it may still be written.
    test.store.commit(&before, &Batch::default(), &[]).await.unwrap();
    let after = test.store.lease("us", HOUR).await.unwrap().unwrap();
    assert!(after.epoch() > before.epoch());
    let refused = test.store.commit(&before, &Batch::default(), &[]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
}

async fn a_lease_given_back_is_over_at_once(test: Fixture) {
    let ours = test.store.lease("us", HOUR).await.unwrap().unwrap();
    test.store.release(&ours).await.unwrap();
    let refused = test.store.commit(&ours, &Batch::default(), &[]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    let theirs = test.store.lease("them", HOUR).await.unwrap().unwrap();
    assert!(theirs.epoch() > ours.epoch());
    // Ours was over already, so theirs is none of its business.
    test.store.release(&ours).await.unwrap();
    test.store.commit(&theirs, &Batch::default(), &[]).await.unwrap();
}

async fn a_renewal_that_comes_too_late_brings_no_lease_back(test: Fixture) {
    let ours = test.store.lease("us", HOUR).await.unwrap().unwrap();
    test.store.release(&ours).await.unwrap();
    assert!(!test.store.renew(&ours, HOUR).await.unwrap(), "it was given back");
    let theirs = test.store.lease("them", HOUR).await.unwrap().unwrap();
    assert!(!test.store.renew(&ours, HOUR).await.unwrap(), "another has taken one");
    test.store.commit(&theirs, &Batch::default(), &[]).await.unwrap();
    test.hand.advance(HOUR);
    assert!(!test.store.renew(&theirs, HOUR).await.unwrap(), "it has run out");
    let ours = test.store.lease("us", HOUR).await.unwrap().unwrap();
    let again = test.store.lease("us", HOUR).await.unwrap().unwrap();
    assert!(again.epoch() > ours.epoch());
    assert!(!test.store.renew(&ours, HOUR).await.unwrap(), "its holder has taken another");
    assert!(test.store.renew(&again, HOUR).await.unwrap());
}

async fn everybody_sees_who_leads_and_since_when(test: Fixture) {
    assert_eq!(test.store.leader().await.unwrap(), None);
    test.hand.advance(HOUR);
    let ours = test.store.lease("us", HOUR).await.unwrap().unwrap();
    let us = Leader { holder: "us".into(), epoch: ours.epoch(), since: at(3_600_000) };
    test.hand.advance(ALMOST_AN_HOUR);
    assert!(test.store.renew(&ours, HOUR).await.unwrap());
    assert_eq!(test.store.leader().await.unwrap(), Some(us), "a renewal is no new beginning");
    test.hand.advance(HOUR);
    assert_eq!(test.store.leader().await.unwrap(), None, "the lease has run out");
    let theirs = test.store.lease("them", HOUR).await.unwrap().unwrap();
    let them = Leader { holder: "them".into(), epoch: theirs.epoch(), since: at(10_799_999) };
    assert_eq!(test.store.leader().await.unwrap(), Some(them));
    test.store.release(&theirs).await.unwrap();
    assert_eq!(test.store.leader().await.unwrap(), None, "it was given back");
}

async fn a_commit_under_a_lost_lease_writes_nothing(test: Fixture) {
    test.store.accept(&delivery("a", b"x")).await.unwrap();
    let ours = lease_of(&*test.store).await;
    test.hand.advance(HOUR);
    test.store.lease("them", HOUR).await.unwrap().unwrap();
    let before = test.store.load().await.unwrap();
    let batch = Batch {
        changes: vec![job_change(1, attempt(1, JobState::Queued))],
        waits: Vec::new(),
        events: vec![event("too late")],
    };
    let refused = test.store.commit(&ours, &batch, &[decoded(1)]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the lease of epoch 1 is over and nothing was written: take a lease and load the books again"
    );
    assert_eq!(test.store.load().await.unwrap(), before);
    assert_eq!(test.store.events(0, 10).await.unwrap(), []);
    assert_eq!(pending(&test).await, [1]);
}

async fn the_books_keep_their_name(test: Fixture) {
    let first = test.store.load().await.unwrap().installation;
    assert_eq!(first.as_str().len(), 6);
    assert_eq!(test.store.load().await.unwrap().installation, first);
}

async fn what_was_committed_rebuilds_the_snapshot(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let changes = vec![
        Change::Next { runner: RunnerId(3), instance: InstanceId(103) },
        Change::Runner(Box::new(runner(2))),
        Change::Instance(Box::new(instance(102))),
        job_change(9, attempt(1, JobState::Queued)),
        job_change(4, attempt(1, JobState::Waiting)),
        job_change(9, attempt(1, JobState::InProgress)),
    ];
    commit(&*test.store, &lease, changes.clone()).await;
    let empty = || {
        let fleet = Arc::default();
        Snapshot::new(InstallationId::new("x").unwrap(), fleet)
    };
    let (mut lived, mut loaded) = (empty(), empty());
    lived.apply(&changes);
    loaded.apply(&test.store.load().await.unwrap().changes);
    assert_eq!(loaded, lived);
}

async fn what_is_not_durable_is_not_written(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let before = test.store.load().await.unwrap();
    commit(&*test.store, &lease, vec![Change::Note(Note::Confirmed(key(9), at(7)))]).await;
    assert_eq!(test.store.load().await.unwrap(), before);
}

async fn a_flood_in_one_commit_is_written_whole_and_in_order(test: Fixture) {
    const JOBS: u64 = 1500;
    let deliveries: Vec<_> = (0..20).map(|n| delivery(&n.to_string(), b"x")).collect();
    for delivery in &deliveries {
        test.store.accept(delivery).await.unwrap();
    }
    let queued = |native| job_change(native, attempt(1, JobState::Queued));
    let mut changes: Vec<_> = (0..JOBS).map(queued).collect();
    // What comes later in the same commit holds.
    changes.extend((0..JOBS / 2).map(|native| job_change(native, attempt(2, JobState::Queued))));
    changes.extend((0..JOBS).step_by(3).map(|native| Change::ForgetJob(key(native))));
    changes.extend((0..JOBS).step_by(6).map(queued));
    let mut waits: Vec<_> = (0..JOBS).map(|n| wait(n, 1, &[Reason::HeldByForge])).collect();
    waits.extend((0..JOBS).step_by(2).map(|n| wait(n, 2, &[])));
    let events: Vec<_> = (0..200).map(|n| event(&n.to_string())).collect();
    let batch = Batch { changes, waits, events };
    let marks: Vec<_> = (1..=20).filter(|n| n % 7 != 0).map(decoded).collect();
    let (lease, model) = (lease_of(&*test.store).await, memory());
    for delivery in &deliveries {
        model.store.accept(delivery).await.unwrap();
    }
    test.store.commit(&lease, &batch, &marks).await.unwrap();
    let theirs = lease_of(&*model.store).await;
    model.store.commit(&theirs, &batch, &marks).await.unwrap();

    let (ours, theirs) = (test.store.load().await.unwrap(), model.store.load().await.unwrap());
    assert!(ours.changes == theirs.changes && ours.waits == theirs.waits, "they differ");
    let events = test.store.events(0, 2000).await.unwrap();
    assert_eq!(events, model.store.events(0, 2000).await.unwrap());
    assert_eq!(pending(&test).await, [7, 14]);
    for job in [0, 1, 2, 3, 1499] {
        let (ours, theirs) = (&*test.store, &*model.store);
        let history = ours.job_history(&key(job)).await.unwrap();
        assert_eq!(history, theirs.job_history(&key(job)).await.unwrap());
        let waits = ours.wait_history(&key(job), 9).await.unwrap();
        assert_eq!(waits, theirs.wait_history(&key(job), 9).await.unwrap());
    }
}

async fn a_forgotten_job_is_not_loaded_and_its_history_stays(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let done = attempt(1, JobState::Completed);
    commit(&*test.store, &lease, vec![job_change(1, done.clone())]).await;
    commit(&*test.store, &lease, vec![Change::ForgetJob(key(1)), Change::ForgetJob(key(2))]).await;
    assert_eq!(test.store.load().await.unwrap().changes, []);
    assert_eq!(test.store.job_history(&key(1)).await.unwrap(), from_ref(&done));
    assert_eq!(test.store.job_history(&key(2)).await.unwrap(), []);

    commit(&*test.store, &lease, vec![job_change(1, done.clone())]).await;
    assert_eq!(test.store.load().await.unwrap().changes, [job_change(1, done)]);
}

async fn a_forgotten_runner_takes_its_instance_along(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let changes = vec![
        Change::Runner(Box::new(runner(1))),
        Change::Runner(Box::new(runner(2))),
        Change::Instance(Box::new(instance(101))),
        Change::Instance(Box::new(instance(102))),
    ];
    commit(&*test.store, &lease, changes.clone()).await;
    commit(&*test.store, &lease, vec![Change::ForgetRunner(RunnerId(1))]).await;
    let known = test.store.load().await.unwrap().changes;
    assert_eq!(known, [changes[1].clone(), changes[3].clone()]);
    assert_eq!(test.store.runner_history(10).await.unwrap(), [runner(2), runner(1)]);
    assert_eq!(test.store.runner_history(1).await.unwrap(), [runner(2)]);

    // It was forgotten with the runner that it carried then; put back, it is on its own.
    commit(&*test.store, &lease, vec![changes[2].clone()]).await;
    commit(&*test.store, &lease, vec![Change::ForgetRunner(RunnerId(1))]).await;
    let known = test.store.load().await.unwrap().changes;
    assert_eq!(known, changes[1..]);
}

async fn every_attempt_of_a_job_is_remembered(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    for (number, state) in [
        (1, JobState::Queued),
        (1, JobState::InProgress),
        (2, JobState::Queued),
        (2, JobState::Completed),
    ] {
        commit(&*test.store, &lease, vec![job_change(1, attempt(number, state))]).await;
    }
    let past = [attempt(1, JobState::InProgress), attempt(2, JobState::Completed)];
    assert_eq!(test.store.job_history(&key(1)).await.unwrap(), past);
    let last = job_change(1, attempt(2, JobState::Completed));
    assert_eq!(test.store.load().await.unwrap().changes, [last]);
}

fn wait(native: u64, millis: i64, reasons: &[Reason]) -> WaitChange {
    WaitChange { job: key(native), at: at(millis), reasons: reasons.into() }
}

async fn the_last_reasons_of_a_waiting_job_are_loaded(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let starting = Reason::RunnerStarting(RunnerId(4));
    let waits = vec![
        wait(2, 1, from_ref(&starting)),
        wait(1, 2, &[Reason::HeldByForge]),
        wait(2, 3, &[]),
        wait(1, 4, from_ref(&starting)),
        wait(3, 5, from_ref(&starting)),
        wait(8, 6, &[Reason::HeldByForge]),
    ];
    let mut changes: Vec<Change> =
        (1..=3).map(|native| job_change(native, attempt(1, JobState::Queued))).collect();
    changes.push(Change::ForgetJob(key(3)));
    let batch = Batch { changes, waits: waits.clone(), events: Vec::new() };
    test.store.commit(&lease, &batch, &[]).await.unwrap();

    // Job 2 waits no more, job 3 is forgotten, job 8 was never written.
    assert_eq!(test.store.load().await.unwrap().waits, [waits[3].clone()]);
    let newest_first = [waits[3].clone(), waits[1].clone()];
    assert_eq!(test.store.wait_history(&key(1), 10).await.unwrap(), newest_first);
    assert_eq!(test.store.wait_history(&key(1), 1).await.unwrap(), newest_first[..1]);
    assert_eq!(test.store.wait_history(&key(3), 10).await.unwrap(), [waits[4].clone()]);
    assert_eq!(test.store.wait_history(&key(8), 10).await.unwrap(), []);
}

async fn the_oldest_reasons_give_way(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let changes = vec![job_change(1, attempt(1, JobState::Queued))];
    let count = i64::from(WAITS_PER_JOB_MAX) + 3;
    let waits = (0..count).map(|n| wait(1, n, &[Reason::HeldByForge])).collect();
    let batch = Batch { changes, waits, events: Vec::new() };
    test.store.commit(&lease, &batch, &[]).await.unwrap();
    let kept = test.store.wait_history(&key(1), u32::MAX).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(|wait| wait.at).collect();
    assert_eq!(kept, (3..count).rev().map(at).collect::<Vec<_>>());
}

async fn the_newest_events_stay_in_order(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let all: Vec<Event> = (0..15).map(|n| event(&n.to_string())).collect();
    for events in all.chunks(4) {
        let batch = Batch { events: events.to_vec(), ..Batch::default() };
        test.store.commit(&lease, &batch, &[]).await.unwrap();
    }
    // The fixture's retention keeps twelve.
    let kept = test.store.events(0, 100).await.unwrap();
    assert_eq!(kept, (4..).zip(all[3..].to_vec()).collect::<Vec<_>>());
    assert_eq!(test.store.events(5, 2).await.unwrap(), kept[2..4]);
    assert_eq!(test.store.events(15, 2).await.unwrap(), []);
}

async fn decoded_deliveries_are_known_for_three_days(test: Fixture) {
    for id in ["a", "b", "c"] {
        test.store.accept(&delivery(id, b"x")).await.unwrap();
    }
    mark(&test, &[decoded(1), undecodable(2, "no id")]).await;
    for _ in 0..72 {
        test.hand.advance(HOUR);
        mark(&test, &[]).await;
    }
    assert_eq!(test.store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::Duplicate(1));
    test.hand.advance(Duration::from_millis(1));
    mark(&test, &[]).await;
    assert_eq!(test.store.accept(&delivery("a", b"x")).await.unwrap(), Accepted::New(4));
    assert_eq!(test.store.undecodable(10).await.unwrap().len(), 1);
    assert_eq!(pending(&test).await, [3, 4]);

    test.hand.advance(720 * HOUR);
    mark(&test, &[]).await;
    assert_eq!(test.store.undecodable(10).await.unwrap(), []);
    assert_eq!(pending(&test).await, [3, 4]);
}

async fn history_ends_with_its_retention(test: Fixture) {
    let lease = lease_of(&*test.store).await;
    let done = attempt(1, JobState::Completed);
    let changes = vec![
        job_change(1, done.clone()),
        job_change(2, done.clone()),
        Change::Runner(Box::new(runner(1))),
        Change::Runner(Box::new(runner(2))),
        Change::ForgetJob(key(1)),
        Change::ForgetRunner(RunnerId(1)),
    ];
    commit(&*test.store, &lease, changes).await;
    test.hand.advance(240 * HOUR);
    commit(&*test.store, &lease, Vec::new()).await;
    assert_eq!(test.store.job_history(&key(1)).await.unwrap(), from_ref(&done));
    assert_eq!(test.store.runner_history(10).await.unwrap(), [runner(2), runner(1)]);
    test.hand.advance(Duration::from_millis(1));
    commit(&*test.store, &lease, Vec::new()).await;
    assert_eq!(test.store.job_history(&key(1)).await.unwrap(), []);
    assert_eq!(test.store.job_history(&key(2)).await.unwrap(), [done]);
    assert_eq!(test.store.runner_history(10).await.unwrap(), [runner(2)]);
}

fn fleet(number: u64, who: &str) -> Applied {
    Applied {
        number,
        at: Timestamp::from_millis(1_000 + number.cast_signed()),
        who: who.into(),
        how: "apply".into(),
        revision: format!("{number:016x}"),
        files: vec![("a.toml".into(), "[pool.\"ä\"]".into()), ("b.toml".into(), String::new())],
    }
}

async fn fleets_in_force_are_numbered_without_gaps_and_the_newest_hundred_stay(test: Fixture) {
    let store = &test.store;
    assert_eq!(store.applied(None).await.unwrap(), None);
    assert_eq!(store.fleet_history(10).await.unwrap(), []);
    assert!(!store.apply(&fleet(2, "ann")).await.unwrap());
    for number in 1..=FLEETS_MAX + 3 {
        assert!(store.apply(&fleet(number, "ann")).await.unwrap());
    }
    assert!(!store.apply(&fleet(FLEETS_MAX + 5, "ann")).await.unwrap());
    let newest = fleet(FLEETS_MAX + 3, "ann");
    assert_eq!(store.applied(None).await.unwrap(), Some(newest.clone()));
    assert_eq!(store.applied(Some(7)).await.unwrap(), Some(fleet(7, "ann")));
    assert_eq!(store.applied(Some(3)).await.unwrap(), None);
    let history = store.fleet_history(u32::MAX).await.unwrap();
    assert_eq!(history.len() as u64, FLEETS_MAX);
    assert_eq!(history[0], Applied { files: Vec::new(), ..newest });
    assert_eq!(store.fleet_history(2).await.unwrap(), history[..2]);
}

async fn of_two_fleets_with_one_number_the_first_is_in_force(test: Fixture) {
    let (ann, bob) = (fleet(1, "ann"), fleet(1, "bob"));
    let (first, second) = tokio::join!(test.store.apply(&ann), test.store.apply(&bob));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first != second, "{first} {second}");
    let in_force = test.store.applied(None).await.unwrap().unwrap();
    assert_eq!(in_force.who, if first { "ann" } else { "bob" });
}

async fn a_sound_store_passes_its_check(test: Fixture) {
    test.store.check().await.unwrap();
}
