//! Workflow runs and jobs.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::middle::{Deed, Permission};
use super::reply::{Query, Refusal, Reply, paged};
use crate::gate::Principal;
use crate::id::{JobId, RunId};
use crate::shared::Shared;
use crate::world::{Conclusion, Job, Rerun, Run, RunError, RunStatus, World};

type Answer = Result<Reply, Refusal>;
type Sandbox = State<Arc<Shared>>;
type At = Path<(String, String)>;
type OneAt = Path<(String, String, u64)>;

/// GitHub shows no more than this many runs of a filtered listing.
const FILTERED_MAX: usize = 1000;

pub(super) async fn list(
    State(shared): Sandbox,
    principal: Principal,
    Path((owner, name)): At,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let repository =
            principal.repository(view.world, &owner, &name, Permission::Actions, Deed::Read)?;
        let wanted = query.get("status");
        let matching = view.world.runs_of(repository.id).filter(|run| {
            wanted.is_none_or(|wanted| matches(view.world.run_status(run.id), wanted))
        });
        let limit = if wanted.is_some() { FILTERED_MAX } else { usize::MAX };
        let all: Vec<RunId> = matching.take(limit).map(|run| run.id).collect();
        let path = format!("{}/actions/runs", view.repository_url(repository.id));
        let ids = all.into_iter().map(|id| json!(id)).collect();
        // Only the runs of the page are put into their long form.
        Ok(paged(ids, &path, &query, |ids, total| {
            let runs: Vec<Value> = ids
                .iter()
                .filter_map(|id| view.world.runs.get(&RunId(id.as_u64()?)))
                .map(|run| view.run(run))
                .collect();
            json!({ "total_count": total, "workflow_runs": runs })
        }))
    })
}

pub(super) async fn get(State(shared): Sandbox, principal: Principal, Path(at): OneAt) -> Answer {
    shared.read(|view| Ok(Reply::ok(view.run(run(view.world, &principal, &at, Deed::Read)?))))
}

pub(super) async fn list_jobs(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): OneAt,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let run = run(view.world, &principal, &at, Deed::Read)?;
        let earlier = query.get("filter").is_some_and(|filter| filter == "all");
        let earlier = if earlier { run.earlier.as_slice() } else { &[] };
        let jobs = run.jobs.iter().chain(earlier).map(|id| &view.world.jobs[id]);
        let all = jobs.filter(|job| job.status().is_some()).map(|job| view.job(job)).collect();
        let path = format!("{}/actions/runs/{}/jobs", view.repository_url(run.repository), run.id);
        Ok(paged(all, &path, &query, |items, total| json!({ "total_count": total, "jobs": items })))
    })
}

pub(super) async fn get_job(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): OneAt,
) -> Answer {
    shared.read(|view| Ok(Reply::ok(view.job(job(view.world, &principal, &at)?))))
}

pub(super) async fn get_log(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): OneAt,
) -> Answer {
    shared.read(|view| {
        let job = job(view.world, &principal, &at)?;
        let place = format!("{}/_sandbox/jobs/{}/log", view.links.html, job.id);
        Ok(Reply::empty(StatusCode::FOUND).header(header::LOCATION, place))
    })
}

pub(super) async fn cancel(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): OneAt,
) -> Answer {
    shared.act(|world, now| {
        let id = run(world, &principal, &at, Deed::Write)?.id;
        world.cancel_run(id, now).map_err(|error| refused(error, StatusCode::CONFLICT))?;
        Ok(Reply::with(StatusCode::ACCEPTED, json!({})))
    })
}

pub(super) async fn rerun(State(shared): Sandbox, principal: Principal, Path(at): OneAt) -> Answer {
    run_again(&shared, &principal, &at, Rerun::All)
}

pub(super) async fn rerun_failed(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): OneAt,
) -> Answer {
    run_again(&shared, &principal, &at, Rerun::Failed)
}

fn run_again(
    shared: &Shared,
    principal: &Principal,
    at: &(String, String, u64),
    which: Rerun,
) -> Answer {
    shared.act(|world, now| {
        let id = run(world, principal, at, Deed::Write)?.id;
        world.rerun(id, which, now).map_err(|error| refused(error, StatusCode::FORBIDDEN))?;
        Ok(Reply::with(StatusCode::CREATED, json!({})))
    })
}

fn refused(error: RunError, status: StatusCode) -> Refusal {
    match error {
        RunError::NotFound => Refusal::not_found(),
        RunError::Completed | RunError::Running | RunError::NothingFailed => {
            Refusal::new(status, error.to_string())
        }
    }
}

/// GitHub's `status` filter takes statuses and conclusions alike.
fn matches(status: RunStatus, wanted: &str) -> bool {
    status.as_str() == wanted
        || status.conclusion().is_some_and(|conclusion: Conclusion| conclusion.as_str() == wanted)
}

fn run<'a>(
    world: &'a World,
    principal: &Principal,
    (owner, name, id): &(String, String, u64),
    deed: Deed,
) -> Result<&'a Run, Refusal> {
    let repository = principal.repository(world, owner, name, Permission::Actions, deed)?.id;
    let run = world.runs.get(&RunId(*id)).filter(|run| run.repository == repository);
    run.ok_or_else(Refusal::not_found)
}

fn job<'a>(
    world: &'a World,
    principal: &Principal,
    (owner, name, id): &(String, String, u64),
) -> Result<&'a Job, Refusal> {
    let permission = Permission::Actions;
    let repository = principal.repository(world, owner, name, permission, Deed::Read)?.id;
    let job = world.jobs.get(&JobId(*id)).filter(|job| job.repository == repository);
    job.filter(|job| job.status().is_some()).ok_or_else(Refusal::not_found)
}
