//! What GitHub has no API for. The table is in the crate's documentation.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::Body;
use crate::config::{OwnerKind, Visibility};
use crate::faults::Faults;
use crate::id::{JobId, RunnerId};
use crate::report;
use crate::sandbox::{SandboxError, set_faults, statistics, submit};
use crate::shared::Shared;
use crate::world::{AccountError, HookAt};

type Sandbox = State<Arc<Shared>>;

/// Most deliveries listed at once.
const DELIVERIES_MAX: usize = 1000;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/owners", post(create_owner))
        .route("/owners/{login}/repositories", post(create_repository))
        .route("/hooks", post(create_hook))
        .route("/repos/{owner}/{repository}/workflows", post(submit_workflow))
        .route("/jobs", get(list_jobs))
        .route("/jobs/{job}", get(get_job))
        .route("/jobs/{job}/log", get(get_log))
        .route("/jobs/{job}/release", post(release_job))
        .route("/jobs/{job}/requeue", post(requeue_job))
        .route("/runners", get(list_runners))
        .route("/runners/{runner}/lose", post(lose_runner))
        .route("/deliveries", get(list_deliveries))
        .route("/statistics", get(get_statistics))
        .route("/faults", get(get_faults).put(put_faults))
}

/// An error of the admin API: `{"message": …}`, and a workflow's problems one by one.
struct Problem(StatusCode, Value);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Self {
        let mut body = json!({ "message": error.to_string() });
        if let SandboxError::Workflow(refusal) = &error {
            body["problems"] = json!(refusal.problems);
        }
        Self(StatusCode::UNPROCESSABLE_ENTITY, body)
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        Self::from(SandboxError::from(error))
    }
}

fn missing(what: &str) -> Problem {
    Problem(StatusCode::NOT_FOUND, json!({ "message": format!("there is no such {what}") }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOwner {
    login: String,
    kind: OwnerKind,
}

async fn create_owner(
    State(shared): Sandbox,
    Body(new): Body<NewOwner>,
) -> Result<impl IntoResponse, Problem> {
    let id = shared.act(|world, now| world.create_owner(&new.login, new.kind, now))?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "login": new.login }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRepository {
    name: String,
    visibility: Option<Visibility>,
}

async fn create_repository(
    State(shared): Sandbox,
    Path(login): Path<String>,
    Body(new): Body<NewRepository>,
) -> Result<impl IntoResponse, Problem> {
    let visibility = new.visibility.unwrap_or(Visibility::Private);
    let id =
        shared.act(|world, now| world.create_repository(&login, &new.name, visibility, now))?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "name": new.name }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHook {
    url: String,
    #[serde(default)]
    secret: String,
    owner: String,
    repository: Option<String>,
}

async fn create_hook(
    State(shared): Sandbox,
    Body(new): Body<NewHook>,
) -> Result<impl IntoResponse, Problem> {
    let id = shared.act(|world, now| {
        let at = match &new.repository {
            Some(name) => world
                .repository(&new.owner, name)
                .map(|repository| HookAt::Repository(repository.id))
                .ok_or_else(|| AccountError::NoRepository(name.clone()))?,
            None => world
                .owner(&new.owner)
                .map(|owner| HookAt::Organization(owner.id))
                .ok_or_else(|| AccountError::NoOwner(new.owner.clone()))?,
        };
        world.create_hook(at, new.url, new.secret.into(), now)
    })?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

#[derive(Deserialize)]
struct Count {
    count: Option<usize>,
}

async fn submit_workflow(
    State(shared): Sandbox,
    Path((owner, repository)): Path<(String, String)>,
    Query(Count { count }): Query<Count>,
    yaml: String,
) -> Result<impl IntoResponse, Problem> {
    let runs = submit(&shared, &owner, &repository, &yaml, count.unwrap_or(1))?;
    Ok((StatusCode::CREATED, Json(json!({ "runs": runs }))))
}

async fn list_jobs(State(shared): Sandbox) -> Json<Value> {
    Json(shared.read(|view| {
        let jobs: Vec<_> = view.world.jobs.values().map(|job| report::job(view, job)).collect();
        json!({ "jobs": jobs })
    }))
}

async fn get_job(
    State(shared): Sandbox,
    Path(id): Path<JobId>,
) -> Result<Json<report::JobReport>, Problem> {
    let found = shared.read(|view| view.world.jobs.get(&id).map(|job| report::job(view, job)));
    found.map(Json).ok_or_else(|| missing("job"))
}

async fn get_log(State(shared): Sandbox, Path(id): Path<JobId>) -> Result<String, Problem> {
    let found = shared.read(|view| view.world.jobs.get(&id).map(|job| job.log.clone()));
    found.ok_or_else(|| missing("job"))
}

async fn release_job(State(shared): Sandbox, Path(id): Path<JobId>) -> Result<StatusCode, Problem> {
    let released = shared.act(|world, now| world.release(id, now));
    if released { Ok(StatusCode::NO_CONTENT) } else { Err(missing("waiting job")) }
}

async fn requeue_job(State(shared): Sandbox, Path(id): Path<JobId>) -> Result<StatusCode, Problem> {
    let requeued = shared.act(|world, now| world.requeue(id, now));
    if requeued { Ok(StatusCode::NO_CONTENT) } else { Err(missing("running job")) }
}

async fn list_runners(State(shared): Sandbox) -> Json<Value> {
    Json(shared.read(|view| {
        let runners: Vec<_> = view.world.runners.values().map(report::runner).collect();
        json!({ "runners": runners })
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Loss {
    #[serde(default)]
    requeue: bool,
}

async fn lose_runner(
    State(shared): Sandbox,
    Path(id): Path<RunnerId>,
    Body(how): Body<Loss>,
) -> Result<StatusCode, Problem> {
    let lost = shared.act(|world, now| world.lose_runner(id, how.requeue, now));
    if lost { Ok(StatusCode::NO_CONTENT) } else { Err(missing("runner")) }
}

async fn list_deliveries(State(shared): Sandbox) -> Json<Value> {
    let latest = shared.post.deliveries(None, DELIVERIES_MAX, |_| true);
    let deliveries: Vec<_> = latest.iter().map(report::delivery).collect();
    Json(json!({ "deliveries": deliveries }))
}

async fn get_statistics(State(shared): Sandbox) -> Json<report::Statistics> {
    Json(statistics(&shared))
}

async fn get_faults(State(shared): Sandbox) -> Json<Faults> {
    Json(shared.read(|view| view.world.faults.clone()))
}

async fn put_faults(
    State(shared): Sandbox,
    Body(faults): Body<Faults>,
) -> Result<Json<Faults>, Problem> {
    set_faults(&shared, faults.clone())?;
    Ok(Json(faults))
}
