//! Bounded memory: a least-recently-used map, and one of values that only one task at a time makes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A map that forgets what was least recently used once its entries weigh too much.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    weight_max: usize,
    weight: usize,
    tick: u64,
    entries: BTreeMap<K, Entry<V>>,
    by_use: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    used: u64,
    weight: usize,
    value: V,
}

impl<K: Ord + Clone, V> Cache<K, V> {
    pub(crate) const fn new(weight_max: usize) -> Self {
        Self { weight_max, weight: 0, tick: 0, entries: BTreeMap::new(), by_use: BTreeMap::new() }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.used);
        self.tick += 1;
        entry.used = self.tick;
        self.by_use.insert(entry.used, key.clone());
        Some(&entry.value)
    }

    /// Keeps `value`, at the expense of older entries; not at all if it is too heavy by itself.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.weight_max {
            return;
        }
        while self.weight + weight > self.weight_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.tick += 1;
        self.weight += weight;
        self.by_use.insert(self.tick, key.clone());
        self.entries.insert(key, Entry { used: self.tick, weight, value });
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

/// A value, and whether it was made for this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got<V> {
    /// Made by an earlier call, or by one that this call waited for.
    Remembered(V),
    /// Made just now.
    Made(V),
}

impl<V> Got<V> {
    pub(crate) fn into_inner(self) -> V {
        let (Self::Remembered(value) | Self::Made(value)) = self;
        value
    }
}

/// Values that are slow to make. One task makes the value of a key; those who come meanwhile wait
/// and share what it got, be it a failure: else each would wait out the same timeout in turn.
pub(crate) struct Slots<K, V, E>(Mutex<Cache<K, Arc<Slot<V, E>>>>);

struct Slot<V, E> {
    /// Counts beginnings and ends of attempts: odd while one is under way (or was dropped).
    tick: AtomicU64,
    held: tokio::sync::Mutex<Held<V, E>>,
}

struct Held<V, E> {
    value: Option<V>,
    /// The last attempt's failure, with its tick.
    failure: Option<(u64, E)>,
}

impl<K: Ord + Clone, V: Clone, E: Clone> Slots<K, V, E> {
    pub(crate) const fn new(max: usize) -> Self {
        Self(Mutex::new(Cache::new(max)))
    }

    /// The value for `key`: the one remembered if it is still `good`, else what `make` makes.
    pub(crate) async fn get(
        &self,
        key: &K,
        good: impl Fn(&V) -> bool,
        make: impl Future<Output = Result<V, E>>,
    ) -> Result<Got<V>, E> {
        let slot = self.slot(key);
        let arrived = slot.tick.load(Ordering::SeqCst);
        let mut held = slot.held.lock().await;
        if let Some(value) = held.value.as_ref().filter(|value| good(value)) {
            return Ok(Got::Remembered(value.clone()));
        }
        if let Some((_, error)) = held.failure.as_ref().filter(|(tick, _)| *tick >= arrived) {
            return Err(error.clone());
        }
        let attempt = (slot.tick.load(Ordering::SeqCst) + 1) | 1;
        slot.tick.store(attempt, Ordering::SeqCst);
        let result = make.await;
        slot.tick.store(attempt + 1, Ordering::SeqCst);
        match result {
            Ok(value) => {
                *held = Held { value: Some(value.clone()), failure: None };
                Ok(Got::Made(value))
            }
            Err(error) => {
                *held = Held { value: None, failure: Some((attempt, error.clone())) };
                Err(error)
            }
        }
    }

    /// Forgets the value for `key`, without waiting for those who are making it.
    pub(crate) fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// If a slot is evicted while somebody fills it, a second one is filled: costly but correct.
    fn slot(&self, key: &K) -> Arc<Slot<V, E>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = cache.get(key) {
            return Arc::clone(slot);
        }
        let held = tokio::sync::Mutex::new(Held { value: None, failure: None });
        let slot = Arc::new(Slot { tick: AtomicU64::new(0), held });
        cache.insert(key.clone(), Arc::clone(&slot), 1);
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let mut cache = Cache::new(2);
        cache.insert("a", 1, 1);
        cache.insert("b", 2, 1);
        assert_eq!(cache.get(&"a"), Some(&1));
        cache.insert("c", 3, 1);
        assert_eq!(cache.get(&"b"), None);
        assert_eq!(cache.get(&"a"), Some(&1));
        assert_eq!(cache.get(&"c"), Some(&3));
    }

    #[test]
    fn weight_is_bounded_whatever_is_inserted_or_replaced() {
        let mut cache = Cache::new(100);
        for n in 0..1000_usize {
            cache.insert(n % 37, n, n % 120);
            assert!(cache.weight <= 100);
            assert_eq!(cache.weight, cache.entries.values().map(|e| e.weight).sum::<usize>());
            assert_eq!(cache.by_use.len(), cache.entries.len());
        }
        cache.insert(7, 0, 101);
        assert_eq!(cache.get(&7), None);
    }

    #[tokio::test]
    async fn those_who_wait_share_a_failure_and_those_who_come_later_try_again() {
        let slots: Slots<&str, u32, &str> = Slots::new(10);
        let tries = AtomicU64::new(0);
        let fail = async || {
            tries.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Err("down")
        };
        let get = async || slots.get(&"a", |_| true, fail()).await;
        let all = futures_util::future::join3(get(), get(), get()).await;
        assert_eq!(all, (Err("down"), Err("down"), Err("down")));
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        assert_eq!(get().await, Err("down"));
        assert_eq!(tries.load(Ordering::SeqCst), 2);
        assert_eq!(slots.get(&"a", |_| true, async { Ok(7) }).await, Ok(Got::Made(7)));
        assert_eq!(get().await, Ok(Got::Remembered(7)));
    }

    #[tokio::test]
    async fn a_call_that_was_dropped_leaves_nothing_behind() {
        let slots: Slots<&str, u32, &str> = Slots::new(10);
        let mut context = Context::from_waker(Waker::noop());
        let mut dropped = Box::pin(slots.get(&"a", |_| true, std::future::pending()));
        assert!(dropped.as_mut().poll(&mut context).is_pending());
        let mut waiting = Box::pin(slots.get(&"a", |_| true, async { Ok(7) }));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(dropped);
        assert_eq!(waiting.await, Ok(Got::Made(7)));
    }
}
