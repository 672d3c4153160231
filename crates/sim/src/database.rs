//! What both controllers share: the books as committed, the deliveries kept for them, and the lease by
//! the database's own clock.

use std::sync::Arc;
use std::time::Duration;

use remuda_core::Snapshot;
use remuda_core::Timestamp;
use remuda_core::fleet::Fleet;
use remuda_core::name::InstallationId;
use remuda_core::observation::Observation;
use remuda_core::snapshot::Change;

/// How long a lease lasts.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// The database.
#[derive(Debug)]
pub(crate) struct Database {
    books: Snapshot,
    /// Deliveries that nobody has folded in yet, with their numbers.
    deliveries: Vec<(u64, Observation)>,
    accepted: u64,
    epoch: u64,
    /// The process that has the lease.
    holder: Option<u32>,
    until: Timestamp,
}

impl Database {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        let installation = InstallationId::new("sim").expect("it is plain");
        Self {
            books: Snapshot::new(installation, fleet),
            deliveries: Vec::new(),
            accepted: 0,
            epoch: 0,
            holder: None,
            until: Timestamp::from_millis(0),
        }
    }

    /// What is durable.
    pub(crate) fn books(&self) -> &Snapshot {
        &self.books
    }

    /// Keeps a delivery.
    pub(crate) fn accept(&mut self, seen: Observation) {
        self.accepted += 1;
        self.deliveries.push((self.accepted, seen));
    }

    /// The deliveries numbered above `after`.
    pub(crate) fn undecoded(&self, after: u64) -> impl Iterator<Item = &(u64, Observation)> {
        self.deliveries.iter().filter(move |(number, _)| *number > after)
    }

    /// Takes or renews the lease: the epoch, or nothing while another holder has it. `now` is the
    /// database's clock, which jumps.
    pub(crate) fn lease(&mut self, holder: u32, now: Timestamp) -> Option<u64> {
        let over = now >= self.until;
        if self.holder != Some(holder) || over {
            if self.holder.is_some() && !over {
                return None;
            }
            self.epoch += 1;
            self.holder = Some(holder);
        }
        self.until = now + LEASE;
        Some(self.epoch)
    }

    /// True if the lease of that epoch is in force at `now`, by the database's clock.
    pub(crate) fn in_force(&self, epoch: u64, now: Timestamp) -> bool {
        epoch == self.epoch && now < self.until
    }

    /// The process whose lease is in force at `now`.
    pub(crate) fn holder(&self, now: Timestamp) -> Option<u32> {
        self.holder.filter(|_| now < self.until)
    }

    /// Writes a batch. Its writer has looked whether its lease is in force.
    pub(crate) fn write(&mut self, changes: &[Change], decoded: u64) {
        for change in changes.iter().filter(|change| change.is_durable()) {
            self.books.apply(std::slice::from_ref(change));
        }
        self.deliveries.retain(|(number, _)| *number > decoded);
    }

    /// What a new leader starts from: nothing but what is durable, built anew.
    pub(crate) fn load(&self, epoch: u64) -> Snapshot {
        let mut world =
            Snapshot::new(self.books.installation.clone(), Arc::clone(&self.books.fleet));
        world.epoch = epoch;
        let books = &self.books;
        world.apply(
            &books.tenants().cloned().map(|row| Change::Tenant(Box::new(row))).collect::<Vec<_>>(),
        );
        let rows = books.jobs().map(|row| Change::Job(Box::new(row.clone())));
        let rows = rows.chain(books.runners().map(|row| Change::Runner(Box::new(row.clone()))));
        let rows = rows.chain(books.instances().map(|row| Change::Instance(Box::new(row.clone()))));
        let rows = rows.chain(
            books.backoffs().map(|(key, row)| Change::Backoff(key.clone(), Some(row.clone()))),
        );
        let rows = rows
            .chain(books.strays().map(|(key, row)| Change::Stray(key.clone(), Some(row.clone()))));
        let rows = rows
            .chain(books.drains().map(|(key, row)| Change::Drain(key.clone(), Some(row.clone()))));
        let rows = rows.chain([Change::Recovering(books.recovering().cloned())]);
        for row in rows {
            world.apply(&[row]);
        }
        let (runner, instance) = books.next_numbers();
        world.apply(&[Change::Next { runner, instance }]);
        world
    }
}
