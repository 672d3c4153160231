//! Two replicas, one set of books: the real loop on a virtual clock, with a forge and a provider that fit
//! in a file. What is told here holds for any store that keeps the same promises as the one in memory.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]

mod replicas;
mod wire;

use std::time::Duration;

use remuda::handle::{Standing, Unreached};
use remuda_core::job::JobState;
use remuda_core::observation::Order;
use remuda_core::runner::RunnerId;
use replicas::{Ground, Replica, Wire};
use tokio::time::Instant;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A replica `a` that leads.
async fn led() -> (Ground, Replica) {
    let ground = Ground::new();
    let a = ground.replica("a").await;
    a.handle.leads().await.unwrap();
    (ground, a)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stands_by_takes_deliveries_and_says_who_leads() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    tokio::time::sleep(seconds(2)).await;
    let Err(Unreached::Standby(text)) = b.handle.ask(|_| ()).await else { panic!("b answered") };
    assert!(text.starts_with("this replica stands by: a leads since 20"), "{text}");
    // No wake-up reaches `a`: it looks by itself.
    b.posts(1).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(ground.job(1), JobState::InProgress);
    ground.ends([1]).await;
    ground.closes([a, b]).await;
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_from_a_dead_leader_and_keeps_what_runs() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    for job in 1..=4 {
        a.posts(job).await;
    }
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(ground.running(), [1, 2, 3, 4]);
    a.holds_back_registrations();
    a.posts(5).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(ground.registrations(), 5, "its launch is under way");
    let died = Instant::now();
    a.kill().await;
    b.posts(6).await;
    b.handle.leads().await.unwrap();
    assert!(died.elapsed() <= seconds(11), "the lease ran out after {:?}", died.elapsed());
    let led = Instant::now();
    ground.until("b makes a runner", |truth| truth.is_running(5)).await;
    assert!(led.elapsed() < seconds(5), "{:?}", led.elapsed());
    assert_eq!(ground.running(), [1, 2, 3, 4, 5], "the forge hands out the oldest job first");
    // What was under way with the dead leader is given its time, then replaced, and not begun again.
    ground.runs(6).await;
    ground.ends(1..=6).await;
    assert_eq!(ground.registrations(), 7, "one for each job, and one that died with its leader");
    ground.closes([b]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_stopped_past_its_lease_does_not_act_on_old_intent() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    a.holds_back_registrations();
    a.posts(1).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(ground.registrations(), 1, "its launch is under way");
    a.stop();
    b.posts(2).await;
    b.handle.leads().await.unwrap();
    ground.until("b makes a runner", |truth| truth.is_running(1)).await;
    let before = ground.calls_of("a");
    a.lets_registrations_pass();
    a.go_on();
    tokio::time::sleep(seconds(20)).await;
    assert_eq!(ground.calls_of("a"), before, "a deposed leader began a call");
    let Standing::Standby { leader: Some(leader), .. } = a.handle.standing() else {
        panic!("it does not stand by: {:?}", a.handle.standing())
    };
    assert_eq!(&*leader.holder, "b");
    ground.runs(2).await;
    ground.ends([1, 2]).await;
    ground.closes([a, b]).await;
}

/// The worst case: its clock has stood still with it, so that only the store can tell.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_that_knows_nothing_of_it_is_fenced_and_changes_nothing_outside() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    a.posts(1).await;
    ground.runs(1).await;
    a.stop();
    a.stop_clock();
    b.handle.leads().await.unwrap();
    // Something for either to act on: a runner to remove, and one to make.
    ground.finish(1);
    a.store.set(Wire::Deaf);
    a.go_on();
    a.posts(2).await;
    let before = ground.deeds_of("a");
    tokio::time::sleep(seconds(30)).await;
    assert_eq!(ground.deeds_of("a"), before, "what was not committed was done");
    assert!(matches!(a.handle.standing(), Standing::Standby { .. }));
    ground.runs(2).await;
    ground.ends([2]).await;
    ground.closes([a, b]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stands_by_before_another_leads() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    a.posts(1).await;
    ground.runs(1).await;
    for way in [Wire::Cut, Wire::Hangs] {
        a.handle.leads().await.unwrap();
        a.store.set(way);
        let begun = Instant::now();
        while matches!(a.handle.standing(), Standing::Leading { .. }) {
            assert!(matches!(b.handle.standing(), Standing::Standby { .. }), "both lead");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let last = ground.calls_of("a");
        b.handle.leads().await.unwrap();
        assert!(begun.elapsed() <= seconds(17), "{:?}", begun.elapsed());
        tokio::time::sleep(seconds(30)).await;
        assert_eq!(ground.calls_of("a"), last, "{way:?}: a call without the lease");
        a.store.set(Wire::Up);
        b.store.set(Wire::Cut);
        a.handle.leads().await.unwrap();
        b.store.set(Wire::Up);
        assert_eq!(ground.running(), [1]);
    }
    ground.ends([1]).await;
    ground.expects_errors();
    ground.closes([a, b]).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_commit_of_unknown_outcome_the_books_are_loaded_under_a_new_epoch() {
    let ground = Ground::new();
    let a = ground.replica("a").await;
    for (job, way) in [(1, Wire::LosesTheAnswer), (2, Wire::LosesTheCommit)] {
        a.handle.leads().await.unwrap();
        let before = ground.epoch().await;
        a.store.set(way);
        a.posts(job).await;
        ground.runs(job).await;
        assert_eq!(ground.epoch().await, before + 1, "{way:?}");
        // An answer lost after the launch was noted leaves a launch that nobody has begun.
        assert_eq!(ground.registrations(), usize::try_from(job).unwrap(), "{way:?}");
    }
    ground.ends([1, 2]).await;
    ground.closes([a]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_see_the_instances_takes_none_of_them_for_gone() {
    let (ground, a) = led().await;
    a.posts(1).await;
    a.posts(2).await;
    ground.runs(2).await;
    let b = ground.replica_elsewhere("b").await;
    a.kill().await;
    b.handle.leads().await.unwrap();
    ground.finish(1);
    b.posts(3).await;
    tokio::time::sleep(seconds(600)).await;
    assert_eq!(ground.running(), [2]);
    assert_eq!(ground.instances(), 2, "nobody who can see them has ended one");
    assert_eq!(
        ground.registrations(),
        2,
        "no runner registers for an instance that cannot be made"
    );
    let a = ground.replica("a").await;
    ground.closes([b]).await;
    a.handle.leads().await.unwrap();
    ground.runs(3).await;
    ground.ends([2, 3]).await;
    ground.closes([a]).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_is_answered_once_it_is_durable_and_not_before() {
    let (ground, a) = led().await;
    a.posts(1).await;
    ground.runs(1).await;
    let order = |why: &str| Order::Hold { runner: RunnerId(1), who: "ann".into(), why: why.into() };
    a.store.set(Wire::Cut);
    let mut held = Box::pin(a.handle.order(order("to look")));
    let soon = tokio::time::timeout(seconds(3), held.as_mut()).await;
    assert!(soon.is_err(), "it was answered while nothing could be written: {soon:?}");
    a.store.set(Wire::Up);
    tokio::time::timeout(seconds(3), held).await.unwrap().unwrap();
    assert_eq!(ground.hold(1).await.as_deref(), Some("to look"));
    // Whoever can no longer write says so, and does not answer as if it had.
    a.store.set(Wire::Cut);
    let lost = tokio::time::timeout(seconds(20), a.handle.order(order("again"))).await.unwrap();
    assert!(matches!(lost, Err(Unreached::Standby(_))), "{lost:?}");
    assert_eq!(ground.hold(1).await.as_deref(), Some("to look"));
    a.store.set(Wire::Up);
    a.handle.leads().await.unwrap();
    a.handle.order(Order::Release { runner: RunnerId(1) }).await.unwrap();
    assert_eq!(ground.hold(1).await, None);
    ground.ends([1]).await;
    ground.expects_errors();
    ground.closes([a]).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_a_loop_that_waits_for_its_store_is_soon_told_so() {
    let (ground, a) = led().await;
    for (job, wire, says) in [(1, Wire::Cut, "the wire is closed"), (2, Wire::Hangs, "not answer")]
    {
        a.handle.leads().await.unwrap();
        a.posts(job).await;
        ground.runs(job).await;
        // Until the loop has heard of it, too.
        tokio::time::sleep(seconds(3)).await;
        a.store.set(wire);
        let since = a.now();
        ground.finish(job);
        tokio::time::sleep(seconds(5)).await;
        let asked = Instant::now();
        let told = tokio::time::timeout(seconds(1), a.handle.ask(|_| ())).await.unwrap();
        let Err(Unreached::Failing(trouble)) = told else { panic!("{wire:?}: {told:?}") };
        assert!(asked.elapsed() <= Duration::from_millis(250), "{:?}", asked.elapsed());
        assert!(trouble.why.contains(says), "{trouble:?}");
        assert!(trouble.since.since(since) <= seconds(2), "{trouble:?} {since:?}");
        assert_eq!(a.handle.trouble(), Some(trouble));
        if wire == Wire::Hangs {
            // What hangs there ends with the term.
            tokio::time::sleep(seconds(5)).await;
        }
        a.store.set(Wire::Up);
        tokio::time::sleep(seconds(2)).await;
        assert_eq!(a.handle.trouble(), None);
        a.handle.ask(|_| ()).await.unwrap();
    }
    ground.ends([]).await;
    ground.expects_errors();
    ground.closes([a]).await;
}

/// A commit of the term before may still be on its way when the store answers again.
#[tokio::test(start_paused = true)]
async fn no_term_has_the_epoch_of_the_one_before() {
    let (ground, a) = led().await;
    let before = ground.epoch().await;
    a.store.set(Wire::Hangs);
    while matches!(a.handle.standing(), Standing::Leading { .. }) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ground.epoch().await, before, "its lease has not run out at the store");
    a.store.set(Wire::Forgets);
    a.handle.leads().await.unwrap();
    assert_eq!(ground.epoch().await, before + 1);
    ground.closes([a]).await;
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_ends_no_job_and_stops_no_service() {
    let (ground, a) = led().await;
    for (job, jump) in [(1, 0), (2, -3_600), (3, 3_600), (4, 86_400), (5, -90_000)] {
        a.turns_its_clock_by(jump);
        a.posts(job).await;
        ground.runs(job).await;
        tokio::time::sleep(seconds(30)).await;
    }
    assert_eq!(ground.running(), [1, 2, 3, 4, 5]);
    ground.ends(1..=5).await;
    ground.closes([a]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_gives_the_lease_back_and_a_standby_leads_at_once() {
    let (ground, a) = led().await;
    let b = ground.replica("b").await;
    a.posts(1).await;
    ground.runs(1).await;
    let told = Instant::now();
    ground.closes([a]).await;
    b.handle.leads().await.unwrap();
    assert!(told.elapsed() <= seconds(2), "{:?}", told.elapsed());
    ground.ends([1]).await;
    ground.closes([b]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_on_when_a_replica_is_dropped() {
    let (ground, a) = led().await;
    a.holds_back_registrations();
    for job in 1..=3 {
        a.posts(job).await;
    }
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(ground.registrations(), 3, "launches are under way");
    a.lets_registrations_pass();
    a.kill().await;
    let before = ground.calls_of("a");
    tokio::time::sleep(seconds(100)).await;
    assert_eq!(ground.calls_of("a"), before);
    assert!(ground.is_all_mine(), "something still holds what calls are made to");
}
