//! The HTTP surface: GitHub's REST at `/` and `/api/v3`, the runner protocol at `/_runner`, the
//! admin API at `/_sandbox`.

mod admin;
mod app;
mod hooks;
mod middle;
mod reply;
mod repositories;
mod runners;
mod runs;
mod session;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::shared::Shared;
use reply::Refusal;

/// Largest request body.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let rest = rest()
        .fallback(|| async { Refusal::not_found() })
        .layer(from_fn_with_state(shared.clone(), middle::gate));
    Router::new()
        .nest("/api/v3", rest.clone())
        .nest("/_sandbox", admin::router())
        .nest("/_runner", session::router())
        .merge(rest)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

fn rest() -> Router<Arc<Shared>> {
    let deliveries = |base: &str| {
        Router::new()
            .route(&format!("{base}/deliveries"), get(hooks::list_deliveries))
            .route(&format!("{base}/deliveries/{{delivery}}"), get(hooks::get_delivery))
            .route(&format!("{base}/deliveries/{{delivery}}/attempts"), post(hooks::redeliver))
    };
    let runners = |base: &str| {
        Router::new()
            .route(&format!("{base}/actions/runners"), get(runners::list))
            .route(&format!("{base}/actions/runners/generate-jitconfig"), post(runners::generate))
            .route(
                &format!("{base}/actions/runners/{{runner}}"),
                get(runners::get).merge(delete(runners::remove)),
            )
    };
    Router::new()
        .route("/app", get(app::get_app))
        .route("/app/installations", get(app::list_installations))
        .route("/app/installations/{installation}", get(app::get_installation))
        .route("/app/installations/{installation}/access_tokens", post(app::create_token))
        .route("/orgs/{owner}/installation", get(app::owner_installation))
        .route("/users/{owner}/installation", get(app::owner_installation))
        .route("/repos/{owner}/{repository}/installation", get(app::repository_installation))
        .route("/installation/repositories", get(repositories::of_installation))
        .route("/orgs/{owner}/repos", get(repositories::of_organization))
        .route("/repos/{owner}/{repository}", get(repositories::get))
        .route("/rate_limit", get(app::rate_limit))
        .route(
            "/orgs/{owner}/actions/runner-groups",
            get(runners::list_groups).merge(post(runners::create_group)),
        )
        .route("/orgs/{owner}/actions/runner-groups/{group}", get(runners::get_group))
        .merge(runners("/orgs/{owner}"))
        .merge(runners("/repos/{owner}/{repository}"))
        .route("/repos/{owner}/{repository}/actions/runs", get(runs::list))
        .route("/repos/{owner}/{repository}/actions/runs/{run}", get(runs::get))
        .route("/repos/{owner}/{repository}/actions/runs/{run}/jobs", get(runs::list_jobs))
        .route("/repos/{owner}/{repository}/actions/runs/{run}/cancel", post(runs::cancel))
        .route("/repos/{owner}/{repository}/actions/runs/{run}/rerun", post(runs::rerun))
        .route(
            "/repos/{owner}/{repository}/actions/runs/{run}/rerun-failed-jobs",
            post(runs::rerun_failed),
        )
        .route("/repos/{owner}/{repository}/actions/jobs/{job}", get(runs::get_job))
        .route("/repos/{owner}/{repository}/actions/jobs/{job}/logs", get(runs::get_log))
        .route("/orgs/{owner}/hooks", get(hooks::list).merge(post(hooks::create)))
        .route("/repos/{owner}/{repository}/hooks", get(hooks::list).merge(post(hooks::create)))
        .merge(deliveries("/app/hook"))
        .merge(deliveries("/orgs/{owner}/hooks/{hook}"))
        .merge(deliveries("/repos/{owner}/{repository}/hooks/{hook}"))
}
