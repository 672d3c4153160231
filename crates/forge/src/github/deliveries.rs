//! Deliveries that failed, by the forge's own record of them, and asking for them again.
//!
//! An App's hook is asked about as the App; an organization's or repository's own with a token that opens
//! nothing but hooks.

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_core::Timestamp;
use remuda_core::hook::{FailedDelivery, HookKey};
use serde::Deserialize;
use serde_json::json;

use super::auth::Purpose;
use super::rest::{Answer, Ask, PER_PAGE};
use super::{GitHub, scope_path, time};
use crate::{Effect, FailedDeliveries, ForgeError};

/// Most pages read of one listing. What is left is told, and read the next time.
const PAGES_MAX: usize = 10;

/// An attempt to deliver, as GitHub lists it.
#[derive(Deserialize)]
struct Attempt {
    id: u64,
    guid: String,
    delivered_at: String,
    #[serde(default)]
    status_code: u16,
    event: String,
}

/// What is known of one delivery's attempts.
struct Group {
    id: u64,
    attempts: u32,
    failed_at: Timestamp,
    arrived: bool,
}

/// Which attempts are listed. An old Enterprise Server knows no filter and lists all.
#[derive(Clone, Copy)]
enum Status {
    Failure,
    Success,
}

impl GitHub {
    pub(super) async fn failed_deliveries(
        &self,
        hook: &HookKey,
        since: Timestamp,
        from: Option<&str>,
    ) -> Result<FailedDeliveries, ForgeError> {
        let mut groups = BTreeMap::new();
        let next = self.read(hook, Status::Failure, since, from, &mut groups).await?;
        // Where something failed, a later attempt may have succeeded.
        if let Some(oldest) = groups.values().map(|group| group.failed_at).min() {
            self.read(hook, Status::Success, oldest, None, &mut groups).await?;
        }
        let failed = groups.into_iter().filter(|(_, group)| !group.arrived);
        let failed = failed.map(|(guid, Group { id, attempts, failed_at, .. })| {
            let guid: Arc<str> = guid.into();
            FailedDelivery { guid, id, attempts, failed_at }
        });
        Ok(FailedDeliveries { failed: failed.collect(), next: next.map(Arc::from) })
    }

    /// Reads attempts, the newest first, back to `since`. Gives where to go on, if that was too far.
    async fn read(
        &self,
        hook: &HookKey,
        status: Status,
        since: Timestamp,
        from: Option<&str>,
        groups: &mut BTreeMap<String, Group>,
    ) -> Result<Option<String>, ForgeError> {
        let word = match status {
            Status::Failure => "failure",
            Status::Success => "success",
        };
        let path = format!("{}/deliveries", hook_path(hook)?);
        let mut cursor = from.map(String::from);
        for _ in 0..PAGES_MAX {
            let ask = Ask::get(path.clone()).with("status", word);
            let mut ask = ask.with("per_page", PER_PAGE.to_string());
            if let Some(cursor) = &cursor {
                ask = ask.with("cursor", cursor.clone());
            }
            let answer = self.ask_about(hook, &ask).await?;
            for attempt in answer.read::<Vec<Attempt>>(&ask)? {
                let at = time(&attempt.delivered_at)
                    .ok_or_else(|| ask.broken("delivered_at of an attempt is not a time"))?;
                let at = self.rest.here(at, answer.date);
                if at < since {
                    return Ok(None);
                }
                note(groups, attempt, at, status);
            }
            match answer.cursor() {
                Some(next) => cursor = Some(next),
                None => return Ok(None),
            }
        }
        Ok(cursor)
    }

    pub(super) async fn ask_for_delivery(&self, hook: &HookKey, id: u64) -> Result<(), ForgeError> {
        let path = format!("{}/deliveries/{id}/attempts", hook_path(hook)?);
        // Should it be delivered twice, the second one is known as a duplicate.
        let ask = Ask::post(path, json!({}), Effect::None);
        let answer = self.ask_about(hook, &ask).await?;
        if answer.is_success() { Ok(()) } else { Err(answer.refused(&ask)) }
    }

    async fn ask_about(&self, hook: &HookKey, ask: &Ask) -> Result<Answer, ForgeError> {
        match hook {
            HookKey::App(id) => {
                let app = self.auth.numbered(id).ok_or_else(|| {
                    ForgeError::Unsupported(format!("App {id} is not declared any more"))
                })?;
                let answer = self.auth.as_app(&self.rest, app, ask).await?;
                if answer.is_success() { Ok(answer) } else { Err(answer.refused(ask)) }
            }
            HookKey::Own { scope, .. } => {
                let call = async |access| {
                    let answer = self.send(&access, ask).await?;
                    if answer.is_success() { Ok(answer) } else { Err(answer.refused(ask)) }
                };
                self.with_for(scope, Purpose::Hooks, call).await
            }
        }
    }
}

fn note(groups: &mut BTreeMap<String, Group>, attempt: Attempt, at: Timestamp, status: Status) {
    let arrived = (200..300).contains(&attempt.status_code);
    // Nothing else is kept of what is delivered.
    if attempt.event != "workflow_job" {
        return;
    }
    match (groups.get_mut(&attempt.guid), status) {
        (Some(group), _) if arrived => group.arrived = true,
        (Some(group), Status::Failure) => {
            group.attempts += 1;
            if attempt.id > group.id {
                (group.id, group.failed_at) = (attempt.id, at);
            }
        }
        (None, Status::Failure) => {
            let group =
                Group { id: attempt.id, attempts: u32::from(!arrived), failed_at: at, arrived };
            groups.insert(attempt.guid, group);
        }
        (Some(_) | None, Status::Success) => {}
    }
}

fn hook_path(hook: &HookKey) -> Result<String, ForgeError> {
    match hook {
        HookKey::App(_) => Ok("/app/hook".into()),
        HookKey::Own { scope, id } => Ok(format!("{}/hooks/{id}", scope_path(scope)?)),
    }
}
