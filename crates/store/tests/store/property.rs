//! Whatever is done to them, every store tells what the one in memory tells.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use remuda_core::{Batch, Change, Delivery};
use remuda_store::{Decoded, Lease, Store};

use crate::fixture::{Fixture, memory, postgres, sqlite_in_memory};
use crate::nouns;

#[derive(Clone, Debug)]
enum Step {
    Accept(Delivery),
    Lease { holder: &'static str, minutes: u64 },
    Renew { minutes: u64 },
    Release,
    Commit(Batch, Vec<Decoded>),
    Advance { minutes: u64 },
}

fn decoded() -> impl Strategy<Value = Decoded> {
    let result = prop_oneof![3 => Just(Ok(())), 1 => any::<String>().prop_map(Err)];
    (0..12_u64, result).prop_map(|(sequence, result)| Decoded { sequence, result })
}

fn batch() -> impl Strategy<Value = Batch> {
    let waits = vec(nouns::wait(nouns::job_key()), 0..4);
    (vec(nouns::change(), 0..12), waits, vec(nouns::event(), 0..4)).prop_map(
        |(changes, mut waits, events)| {
            // Most waits are of jobs in the same batch, as they are in life.
            let jobs = changes.iter().filter_map(|change| match change {
                Change::Job(job) => Some(job.key.clone()),
                Change::Runner(_)
                | Change::Instance(_)
                | Change::Tenant(_)
                | Change::Backoff(..)
                | Change::Drain(..)
                | Change::Recovering(_)
                | Change::Stray(..)
                | Change::Next { .. }
                | Change::Orphan(..)
                | Change::ForgetJob(_)
                | Change::ForgetRunner(_)
                | Change::Capacity(..)
                | Change::Looked(..)
                | Change::Note(_) => None,
            });
            for (wait, job) in waits.iter_mut().zip(jobs) {
                wait.job = job;
            }
            Batch { changes, waits, events }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let holder = prop_oneof![3 => Just("us"), 1 => Just("them")];
    prop_oneof![
        3 => nouns::delivery().prop_map(Step::Accept),
        2 => (holder, 0..600_u64).prop_map(|(holder, minutes)| Step::Lease { holder, minutes }),
        1 => (0..600_u64).prop_map(|minutes| Step::Renew { minutes }),
        1 => Just(Step::Release),
        4 => (batch(), vec(decoded(), 0..3)).prop_map(|(batch, marks)| Step::Commit(batch, marks)),
        2 => prop_oneof![0..90_u64, 0..15_000_u64]
            .prop_map(|minutes| Step::Advance { minutes }),
    ]
}

/// Does one step and says everything that can be seen of it.
async fn take(test: &Fixture, step: &Step, lease: &mut Option<Lease>) -> String {
    match step {
        Step::Accept(delivery) => format!("{:?}", test.store.accept(delivery).await),
        Step::Lease { holder, minutes } => {
            let answer = test.store.lease(holder, Duration::from_mins(*minutes)).await.unwrap();
            let said = format!("{answer:?}");
            if answer.is_some() {
                *lease = answer;
            }
            said
        }
        Step::Renew { minutes } => match lease {
            Some(lease) => {
                format!("{:?}", test.store.renew(lease, Duration::from_mins(*minutes)).await)
            }
            None => String::new(),
        },
        Step::Release => match lease {
            Some(lease) => format!("{:?}", test.store.release(lease).await),
            None => String::new(),
        },
        Step::Commit(batch, marks) => match lease {
            Some(lease) => format!("{:?}", test.store.commit(lease, batch, marks).await),
            None => String::new(),
        },
        Step::Advance { minutes } => {
            test.hand.advance(Duration::from_mins(*minutes));
            String::new()
        }
    }
}

/// Compares all that the two tell.
async fn compare(ours: &dyn Store, theirs: &dyn Store) -> Result<(), TestCaseError> {
    let (a, b) = (ours.load().await.unwrap(), theirs.load().await.unwrap());
    for change in &a.changes {
        if let Change::Job(job) = change {
            let history = ours.job_history(&job.key).await.unwrap();
            prop_assert_eq!(history, theirs.job_history(&job.key).await.unwrap());
            let waits = ours.wait_history(&job.key, 100).await.unwrap();
            prop_assert_eq!(waits, theirs.wait_history(&job.key, 100).await.unwrap());
        }
    }
    prop_assert_eq!(a.changes, b.changes);
    prop_assert_eq!(a.waits, b.waits);
    let events = ours.events(0, 1000).await.unwrap();
    prop_assert_eq!(events, theirs.events(0, 1000).await.unwrap());
    let undecoded = ours.undecoded(0, 1000).await.unwrap();
    prop_assert_eq!(undecoded, theirs.undecoded(0, 1000).await.unwrap());
    let undecodable = ours.undecodable(1000).await.unwrap();
    prop_assert_eq!(undecodable, theirs.undecodable(1000).await.unwrap());
    let runners = ours.runner_history(1000).await.unwrap();
    prop_assert_eq!(runners, theirs.runner_history(1000).await.unwrap());
    Ok(())
}

/// Does the same to a store and to the one in memory.
async fn tells_the_same(real: Fixture, steps: &[Step]) -> Result<(), TestCaseError> {
    let specified = memory();
    let (mut specified_lease, mut real_lease) = (None, None);
    for step in steps {
        let said = take(&specified, step, &mut specified_lease).await;
        prop_assert_eq!(said, take(&real, step, &mut real_lease).await, "{:?}", step);
        compare(&*specified.store, &*real.store).await?;
    }
    Ok(())
}

async fn reads_back(real: Fixture, changes: Vec<Change>) -> Result<(), TestCaseError> {
    let specified = memory();
    let batch = Batch { changes, ..Batch::default() };
    for test in [&specified, &real] {
        let lease = test.store.lease("us", Duration::from_mins(1)).await.unwrap().unwrap();
        test.store.commit(&lease, &batch, &[]).await.unwrap();
    }
    compare(&*specified.store, &*real.store).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_tells_what_memory_tells(steps in vec(step(), 1..40)) {
        runtime().block_on(tells_the_same(sqlite_in_memory(), &steps))?;
    }

    #[test]
    fn every_value_reads_back_as_it_was_written(changes in vec(nouns::change(), 1..60)) {
        runtime().block_on(reads_back(sqlite_in_memory(), changes))?;
    }
}

// Each case makes a schema of its own.
proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn postgres_tells_what_memory_tells(steps in vec(step(), 1..40)) {
        runtime().block_on(async {
            let Some(real) = postgres().await else { return Ok(()) };
            tells_the_same(real, &steps).await
        })?;
    }

    #[test]
    fn every_value_reads_back_from_postgres(changes in vec(nouns::change(), 1..60)) {
        runtime().block_on(async {
            let Some(real) = postgres().await else { return Ok(()) };
            reads_back(real, changes).await
        })?;
    }
}
