//! The runner protocol, served. See [`crate::wire`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::reply::Body;
use crate::id::JobId;
use crate::shared::Shared;
use crate::wire::{Completion, Hello, Message, Order, StepReport, Welcome};
use crate::world::{self, SessionError, StepStatus};

type Sandbox = State<Arc<Shared>>;

/// Most bytes of one piece of a log.
const LOG_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/session", post(open).delete(close))
        .route("/message", get(poll))
        .route("/jobs/{job}/acknowledge", post(acknowledge))
        .route("/jobs/{job}/log", post(log))
        .route("/jobs/{job}/step", post(step))
        .route("/jobs/{job}/complete", post(complete))
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotRegistered => StatusCode::UNAUTHORIZED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::NoSession | Self::NotYours => StatusCode::NOT_FOUND,
        };
        (status, Json(json!({ "message": self.to_string() }))).into_response()
    }
}

async fn open(
    State(shared): Sandbox,
    headers: HeaderMap,
    Body(hello): Body<Hello>,
) -> Result<Json<Welcome>, SessionError> {
    let credential = bearer(&headers).ok_or(SessionError::NotRegistered)?;
    let (_, session) = shared.act(|world, now| world.connect(credential, &hello.os, now))?;
    let poll_hold_ms = u64::try_from(shared.times.poll_hold.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Welcome { session, poll_hold_ms }))
}

async fn close(State(shared): Sandbox, headers: HeaderMap) -> Result<StatusCode, SessionError> {
    let session = session(&headers)?;
    shared.act(|world, now| {
        let runner = world.runner_of(session)?;
        world.disconnect(runner, now);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// Says once that a poll is open and, whatever becomes of it, once that it is closed: a broken
/// connection drops this with the request.
struct OpenPoll {
    shared: Arc<Shared>,
    session: String,
}

impl OpenPoll {
    fn new(shared: &Arc<Shared>, session: &str) -> Self {
        shared.act(|world, now| world.poll_opened(session, now));
        Self { shared: shared.clone(), session: session.into() }
    }
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.shared.act(|world, now| world.poll_closed(&self.session, now));
    }
}

async fn poll(State(shared): Sandbox, headers: HeaderMap) -> Result<Response, SessionError> {
    let session = session(&headers)?;
    let runner = shared.read(|view| view.world.runner_of(session))?;
    let waiter = shared.waiter(runner);
    let open = OpenPoll::new(&shared, session);
    let end = tokio::time::sleep(shared.times.poll_hold);
    tokio::pin!(end);
    let message = loop {
        if let Some(message) = shared.read(|view| view.world.message(session))? {
            break Some(message);
        }
        tokio::select! {
            () = waiter.notified() => {}
            () = &mut end => break None,
            () = shared.stop.cancelled() => break None,
        }
    };
    drop(open);
    Ok(match message {
        None => StatusCode::ACCEPTED.into_response(),
        Some(world::Message::Offer(job)) => Json(Message::Job { job }).into_response(),
        Some(world::Message::Cancel(job)) => Json(Message::Cancel { job }).into_response(),
    })
}

async fn acknowledge(
    State(shared): Sandbox,
    headers: HeaderMap,
    Path(id): Path<JobId>,
) -> Result<Json<Order>, SessionError> {
    let session = session(&headers)?;
    shared.act(|world, now| {
        let job = world.acknowledge(session, id, now)?.clone();
        let keys = [
            "repository",
            "repository_owner",
            "run_id",
            "run_number",
            "run_attempt",
            "sha",
            "workflow",
            "ref",
        ];
        let mut github: BTreeMap<String, String> = keys
            .iter()
            .filter_map(|key| Some(((*key).to_string(), world.github(job.run, key)?)))
            .collect();
        github.insert("job".into(), job.key);
        let recipe = (*job.recipe).clone();
        Ok(Json(Order { job: id, name: job.name, matrix: job.combination, github, recipe }))
    })
}

async fn log(
    State(shared): Sandbox,
    headers: HeaderMap,
    Path(id): Path<JobId>,
    bytes: Bytes,
) -> Result<StatusCode, SessionError> {
    let session = session(&headers)?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_BYTES_MAX)]);
    shared.act(|world, now| {
        world.own_job(session, id, now)?.append_log(&text);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn step(
    State(shared): Sandbox,
    headers: HeaderMap,
    Path(id): Path<JobId>,
    Body(report): Body<StepReport>,
) -> Result<StatusCode, SessionError> {
    let session = session(&headers)?;
    shared.act(|world, now| {
        let job = world.own_job(session, id, now)?;
        let step = job.steps.get_mut(report.step).ok_or(SessionError::NotYours)?;
        step.name = report.name;
        step.started_at.get_or_insert(now);
        match report.conclusion {
            None => step.status = StepStatus::InProgress,
            Some(conclusion) => {
                step.status = StepStatus::Completed(conclusion);
                step.completed_at = Some(now);
            }
        }
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn complete(
    State(shared): Sandbox,
    headers: HeaderMap,
    Path(id): Path<JobId>,
    Body(completion): Body<Completion>,
) -> Result<StatusCode, SessionError> {
    let session = session(&headers)?;
    shared.act(|world, now| world.complete(session, id, completion.conclusion, now))?;
    Ok(StatusCode::NO_CONTENT)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn session(headers: &HeaderMap) -> Result<&str, SessionError> {
    bearer(headers).ok_or(SessionError::NoSession)
}
