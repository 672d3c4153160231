//! What of a batch is rare: marks that can be read off the core's own changes, events and reasons.

use remuda_core::batch::Batch;
use remuda_core::controller::Rules;
use remuda_core::health::is_quarantine;
use remuda_core::job::{Conclusion, Job};
use remuda_core::reason::BackoffKey;
use remuda_core::runner::{Outcome, Runner};
use remuda_core::snapshot::{Backoff, Change};

use crate::marks::Mark;
use crate::run::World;

/// Reasons to wait that are worth a mark, by their codes.
const REASONS: [(&str, Mark); 7] = [
    ("pool_full", Mark::PoolFull),
    ("provider_full", Mark::ProviderFull),
    ("tenant_at_cap", Mark::OwnerAtCap),
    ("backing_off", Mark::BackedOff),
    ("proving", Mark::Proving),
    ("quarantined", Mark::Quarantined),
    ("drained", Mark::Drained),
];

impl<R: Rules + Clone> World<R> {
    /// Notes what of a batch is rare; the books are from before it.
    pub(crate) fn recognize(&mut self, batch: &Batch) {
        for change in &batch.changes {
            if let Change::Runner(row) = change {
                self.recognize_runner(row);
            } else if let Change::Job(row) = change {
                self.recognize_job(row);
            } else if let Change::Backoff(key, row) = change {
                self.recognize_backoff(key, row.as_ref());
            } else if let Change::Orphan(_, _, Some(_)) = change {
                self.report.marks.insert(Mark::OrphanSeen);
            } else if let Change::Stray(key, None) = change
                && self.database.books().strays().any(|(known, _)| known == key)
            {
                self.report.marks.insert(Mark::StrayRemoved);
            }
        }
        for reason in batch.waits.iter().flat_map(|wait| wait.reasons.iter()) {
            if let Some((_, mark)) = REASONS.iter().find(|(code, _)| *code == reason.code()) {
                self.report.marks.insert(*mark);
            }
        }
    }

    fn recognize_backoff(&mut self, key: &BackoffKey, row: Option<&Backoff>) {
        let books = self.database.books();
        let was = books.backoffs().find(|(known, _)| *known == key).map(|(_, row)| row);
        let mark = match (key, row.or(was)) {
            (_, Some(old)) if !is_quarantine(books, key, old) => return,
            (_, None) => return,
            (_, Some(_)) if row.is_none() => Mark::QuarantineLeft,
            (BackoffKey::Image(_), _) => Mark::ImageQuarantined,
            (BackoffKey::Node(..), _) => Mark::NodeQuarantined,
            (BackoffKey::Pool(_) | BackoffKey::Provider(_) | BackoffKey::Scope(..), _) => return,
        };
        self.report.marks.insert(mark);
    }

    fn recognize_runner(&mut self, row: &Runner) {
        let mark = match row.outcome {
            Some(Outcome::Surplus) => Mark::Surplus,
            Some(Outcome::Lifetime) => Mark::Lifetime,
            Some(Outcome::TimedOut) => Mark::TimedOut,
            Some(Outcome::NeverOnline) => Mark::NeverOnline,
            Some(Outcome::LaunchFailed) => Mark::LaunchFailed,
            Some(Outcome::LaunchLost) => Mark::LaunchLost,
            Some(Outcome::Lost) => Mark::LostRunner,
            Some(Outcome::Finished | Outcome::Died | Outcome::Ordered) | None => return,
        };
        self.report.marks.insert(mark);
    }

    fn recognize_job(&mut self, row: &Job) {
        let before = self.database.books().job(&row.key).map(|old| old.attempt.number);
        if before.is_some_and(|number| number < row.attempt.number) {
            self.report.marks.insert(Mark::NewAttempt);
        }
        if row.attempt.conclusion == Some(Conclusion::Expired) {
            self.report.marks.insert(Mark::Expired);
        }
    }
}
