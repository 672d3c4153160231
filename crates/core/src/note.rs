//! What is remembered and never stored.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, Credential, PurseKey};
use crate::hook::{HookKey, Undelivered, Watch};
use crate::job::JobKey;
use crate::name::ForgeName;
use crate::observation::Subject;
use crate::snapshot::{Snapshot, put};
use crate::tenant::{Repository, Scope};
use crate::time::Timestamp;

/// How long after its window a budget still tells which credentials serve an owner.
const BUDGET_KEPT: Duration = Duration::from_hours(2);

/// What is remembered and never stored: a restart costs no more than asking again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A job is still as its row says, as of this instant. A row that is written for another reason
    /// takes it along. One that is not says an earlier time after a restart, which nothing that may
    /// still arrive contradicts: whatever was asked before died with who asked.
    Confirmed(JobKey, Timestamp),
    /// What a forge leaves to a credential.
    Budget(ForgeName, Credential, Budget),
    /// Sweeps of a purse rest until then.
    Rest(PurseKey, Timestamp),
    /// Behind which repository the next sweep of an organization goes on.
    Swept(ForgeName, Scope, Option<Repository>),
    /// How far the failed deliveries of a hook were read.
    Watched(ForgeName, HookKey, Watch),
    /// A delivery of a hook that failed, or its end.
    Undelivered(ForgeName, HookKey, Arc<str>, Option<Undelivered>),
}

impl Snapshot {
    pub(crate) fn remember(&mut self, note: &Note) {
        match note {
            Note::Confirmed(key, at) => self.confirm(key, *at),
            Note::Budget(forge, credential, budget) => {
                // What was installed once may be so no more: what is long past says nothing.
                let now = self.now;
                self.budgets.retain(|_, old| old.resets_at + BUDGET_KEPT > now);
                self.budgets.insert((forge.clone(), credential.clone()), *budget);
            }
            Note::Rest(purse, until) => {
                self.rests.insert(purse.clone(), *until);
            }
            Note::Swept(forge, scope, next) => {
                put(&mut self.swept, &(forge.clone(), scope.clone()), next.as_ref());
            }
            Note::Watched(forge, hook, watch) => {
                self.hooks.insert((forge.clone(), hook.clone()), watch.clone());
            }
            Note::Undelivered(forge, hook, guid, value) => {
                let of_hook = self.undelivered.entry((forge.clone(), hook.clone())).or_default();
                put(of_hook, guid, value.as_ref());
                if value.is_none() {
                    let gone = Subject::Redelivery(forge.clone(), hook.clone(), guid.clone());
                    self.looked.remove(&gone);
                }
            }
        }
    }

    fn confirm(&mut self, key: &JobKey, at: Timestamp) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let before = (job.attempt.fact_at, key.clone());
        job.attempt.fact_at = at;
        if self.ended.remove(&before) {
            self.ended.insert((at, before.1));
        }
    }
}
