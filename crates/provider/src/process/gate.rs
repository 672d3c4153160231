//! Gates: one launch or destruction per instance at a time; the next waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use remuda_core::runner::InstanceId;
use tokio::sync::OwnedMutexGuard;

type Doors = BTreeMap<InstanceId, Arc<tokio::sync::Mutex<()>>>;

/// The gates in use.
#[derive(Clone, Default)]
pub(super) struct Gates(Arc<Mutex<Doors>>);

/// Held while something is done to an instance.
pub(super) struct Gate {
    gates: Gates,
    instance: InstanceId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Gates {
    pub(super) async fn enter(&self, instance: InstanceId) -> Gate {
        let door = Arc::clone(self.doors().entry(instance).or_default());
        let guard = Some(door.lock_owned().await);
        Gate { gates: self.clone(), instance, guard }
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut doors = self.gates.doors();
        self.guard = None;
        // Whoever waits holds the door as well; the last one out takes it away.
        if doors.get(&self.instance).is_some_and(|door| Arc::strong_count(door) == 1) {
            doors.remove(&self.instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_waits_and_nothing_is_left_behind() {
        let gates = Gates::default();
        let first = gates.enter(InstanceId(1)).await;
        let other = gates.enter(InstanceId(2)).await;
        let mut second = std::pin::pin!(gates.enter(InstanceId(1)));
        assert!(futures_pending(second.as_mut()).await);
        drop(first);
        drop(second.await);
        assert_eq!(gates.doors().keys().collect::<Vec<_>>(), [&InstanceId(2)]);
        drop(other);
        assert!(gates.doors().is_empty());
    }

    async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
        })
        .await
    }
}
