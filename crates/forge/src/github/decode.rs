//! What a delivery says. Pure: the same delivery always says the same.

use remuda_core::job::JobState;
use remuda_core::observation::Source;
use remuda_core::{Delivery, Observation};
use serde::Deserialize;

use super::wire::{Job, WireRepository};
use crate::DecodeError;
use crate::error::bounded;

#[derive(Deserialize)]
struct Action {
    action: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    action: Option<String>,
    workflow_job: Option<Job>,
    repository: Option<WireRepository>,
}

/// Reads a delivery; empty for events and actions that do not concern us.
pub(super) fn decode(delivery: &Delivery) -> Result<Vec<Observation>, DecodeError> {
    if &*delivery.event != "workflow_job" {
        return Ok(Vec::new());
    }
    if delivery.body.starts_with(b"payload=") {
        return Err(DecodeError::Form);
    }
    let event: Told = match read(&delivery.body) {
        Ok(event) => event,
        // An action we do not know may come with anything.
        Err(error) => {
            let action: Action = read(&delivery.body)?;
            return told(action.action.as_deref())?.map_or(Ok(Vec::new()), |_| Err(error));
        }
    };
    let Some(state) = told(event.action.as_deref())? else { return Ok(Vec::new()) };
    let job = event.workflow_job.ok_or(DecodeError::Missing("workflow_job"))?;
    let home = event.repository.ok_or(DecodeError::Missing("repository"))?;
    let home = home.home(&delivery.forge)?;
    // GitHub announces a job behind a deployment gate as `queued` with status `waiting`.
    let gated = state == JobState::Queued && job.status.as_deref() == Some("waiting");
    let state = if gated { JobState::Waiting } else { state };
    let source = Source::Delivery { received_at: delivery.received_at };
    let seen = job.seen(&delivery.forge, &home, state, source)?;
    Ok(vec![Observation::Job(Box::new(seen))])
}

/// The state an action tells of; none if it is not one we know.
fn told(action: Option<&str>) -> Result<Option<JobState>, DecodeError> {
    match action {
        Some("queued") => Ok(Some(JobState::Queued)),
        Some("in_progress") => Ok(Some(JobState::InProgress)),
        Some("completed") => Ok(Some(JobState::Completed)),
        Some("waiting") => Ok(Some(JobState::Waiting)),
        Some(_) => Ok(None),
        None => Err(DecodeError::Missing("action")),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Json(bounded(&error.to_string())))
}
