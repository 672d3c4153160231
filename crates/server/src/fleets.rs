//! The part of the socket that fleets are looked at and put in force through.

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use remuda_store::{Applied, FLEETS_MAX, StoreError};
use serde::{Deserialize, Serialize};

use crate::api::{Api, Reply, problem, unreached};
use crate::change;
use crate::clock::rfc3339;
use crate::reload::{Refused, Wish, read};
use crate::site::Files;

/// Most bytes of a fleet that is handed over, as JSON.
const BODY_BYTES_MAX: usize = 128 << 20;

/// A fleet that was put in force, as the socket sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetRow {
    /// Its number.
    pub number: u64,
    /// Since when, RFC 3339.
    pub at: String,
    /// Who put it in force.
    pub who: String,
    /// On what occasion.
    pub how: String,
    /// Its revision.
    pub revision: String,
}

impl FleetRow {
    fn of(applied: Applied) -> Self {
        let Applied { number, at, who, how, revision, files: _ } = applied;
        Self { number, at: rfc3339(at), who, how, revision }
    }
}

/// A fleet to be looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// The names and texts of its files.
    pub files: Files,
}

/// A fleet to be put in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The names and texts of its files.
    pub files: Files,
    /// The number of the fleet that it was compared with.
    pub base: Option<u64>,
    /// Who orders it.
    pub who: String,
    /// On what occasion.
    pub how: String,
}

/// The number of the fleet that is in force after an order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct InForce {
    /// The number.
    pub number: u64,
}

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/fleets", get(history))
        .route("/v1/fleets/{number}/files", get(files))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

#[derive(Deserialize)]
struct Newest {
    limit: Option<u32>,
}

fn failed(failure: &StoreError) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, failure.to_string())
}

async fn history(State(api): State<Api>, Query(Newest { limit }): Query<Newest>) -> Reply {
    let limit = limit.unwrap_or(u32::try_from(FLEETS_MAX).unwrap_or(u32::MAX));
    let rows = api.store.fleet_history(limit).await.map_err(|why| failed(&why))?;
    Ok(Json(rows.into_iter().map(FleetRow::of).collect::<Vec<_>>()).into_response())
}

async fn files(State(api): State<Api>, Path(number): Path<u64>) -> Reply {
    let Some(found) = api.store.applied(Some(number)).await.map_err(|why| failed(&why))? else {
        let text =
            format!("there is no fleet {number}; `remuda history` lists those that are kept");
        return Err(problem(StatusCode::NOT_FOUND, text));
    };
    Ok(Json(found.files).into_response())
}

async fn plan(State(api): State<Api>, Json(Planned { files }): Json<Planned>) -> Reply {
    let fleet = read(&files).map_err(|why| refused(&Refused::Problems(why)))?;
    let base = api.reload.site().number;
    let planned = api.handle.ask(move |controller| change::plan(controller, base, &fleet)).await;
    Ok(Json(planned.map_err(|why| unreached(&why))?).into_response())
}

async fn apply(State(api): State<Api>, Json(order): Json<Order>) -> Reply {
    let Order { files, base, who, how } = order;
    let number = api.reload.serve(Wish { files, who, how, base }).await;
    Ok(Json(InForce { number: number.map_err(|why| refused(&why))? }).into_response())
}

fn refused(why: &Refused) -> Response {
    let status = match why {
        Refused::Problems(_) | Refused::Setup(_) | Refused::Start => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Refused::Moved(_) => StatusCode::PRECONDITION_FAILED,
        Refused::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, why.to_string())
}
