//! The unix socket beside the database (mode 0600), through which the command line talks to a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use remuda_core::Controller;
use remuda_core::observation::Order;
use remuda_core::runner::RunnerId;
use remuda_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::clock::rfc3339;
use crate::explanation::{self, Explanation};
use crate::fleets;
use crate::handle::{Handle, Standing, Unreached};
use crate::perform::Outside;
use crate::reload::Reload;
use crate::restrict::{self, FleetOrder};
use crate::site::Sites;
use crate::view::{self, EventRow, Finding};

/// How long an order may take to be durable; less than the command line waits.
const ORDER_MAX: Duration = Duration::from_secs(20);
/// How long the store may take for what `doctor` asks of it.
const STORE_MAX: Duration = Duration::from_secs(5);
/// Events read at once to explain a job.
const EVENTS_PER_PAGE: u32 = 10_000;
/// Most events shown of a job.
const EVENTS_SHOWN_MAX: usize = 1000;
/// Most bytes of a runner's output that are shown.
const TAIL_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sites: Sites,
    pub(crate) reload: Arc<Reload>,
}

/// An error as the socket sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What could not be done, and the way out.
    pub error: String,
}

/// A person's order to a runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RunnerOrder {
    /// Leave it alone.
    Hold {
        /// Who orders it.
        who: String,
        /// Why.
        why: String,
    },
    /// End a hold.
    Release,
    /// Remove it unless it has a job.
    Drain,
}

#[derive(Deserialize)]
struct All {
    #[serde(default)]
    all: bool,
}

pub(crate) type Reply = Result<Response, Response>;

pub(crate) fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}

pub(crate) fn unreached(why: &Unreached) -> Response {
    let status = match why {
        Unreached::Standby(_) => StatusCode::MISDIRECTED_REQUEST,
        Unreached::Stopping | Unreached::Failing(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, why.to_string())
}

impl Api {
    fn outside(&self) -> Arc<Outside> {
        Arc::clone(&self.sites.borrow().outside)
    }

    /// Listens on the socket at `path`; a left-over of a server that is gone is replaced.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<(UnixListener, Unbind)> {
        use std::os::unix::fs::PermissionsExt;
        // Only the holder of the state directory's lock comes here, so nobody listens on it.
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot make {} private", path.display()))?;
        Ok((listener, Unbind(path.to_owned())))
    }

    pub(crate) async fn serve(
        self,
        (listener, _unbind): (UnixListener, Unbind),
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let routes = Router::new()
            .route("/v1/jobs", get(jobs))
            .route("/v1/jobs/{*id}", get(explain_job))
            .route("/v1/runners", get(runners))
            .route("/v1/runners/{id}", get(runner))
            .route("/v1/runners/{id}/logs", get(logs))
            .route("/v1/runners/{id}/order", post(order))
            .route("/v1/pools", get(pools))
            .route("/v1/providers", get(providers))
            .route("/v1/explain/{noun}/{id}", get(explain))
            .route("/v1/restrictions", get(restricted))
            .route("/v1/order", post(fleet_order))
            .route("/v1/doctor", get(doctor))
            .merge(fleets::routes())
            .with_state(self);
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await?;
        Ok(())
    }
}

/// Removes the socket when the server ends.
pub(crate) struct Unbind(PathBuf);

impl Drop for Unbind {
    fn drop(&mut self) {
        // A socket that stays behind is replaced by the next server.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn jobs(State(api): State<Api>, Query(All { all }): Query<All>) -> Reply {
    let rows = api.handle.ask(move |c| view::jobs(c, all)).await.map_err(|why| unreached(&why))?;
    Ok(Json(rows).into_response())
}

async fn runners(State(api): State<Api>, Query(All { all }): Query<All>) -> Reply {
    let rows =
        api.handle.ask(move |c| view::runners(c, all)).await.map_err(|why| unreached(&why))?;
    Ok(Json(rows).into_response())
}

async fn pools(State(api): State<Api>) -> Reply {
    let rows = api.handle.ask(view::pools).await.map_err(|why| unreached(&why))?;
    Ok(Json(rows).into_response())
}

async fn providers(State(api): State<Api>) -> Reply {
    let rows = api.handle.ask(view::providers).await.map_err(|why| unreached(&why))?;
    Ok(Json(rows).into_response())
}

async fn explain_job(State(api): State<Api>, UrlPath(id): UrlPath<String>) -> Reply {
    let wanted = id.clone();
    let found = api.handle.ask(move |controller| {
        let keys = explanation::find_jobs(controller, &wanted);
        keys.iter().filter_map(|key| explanation::job(controller, key)).collect::<Vec<_>>()
    });
    let mut found = found.await.map_err(|why| unreached(&why))?;
    if found.len() > 1 {
        let ids: Vec<_> = found.iter().map(|e| e.id.clone()).collect();
        let text = format!("{id} is the number of several jobs: say one of {}", ids.join(", "));
        return Err(problem(StatusCode::CONFLICT, text));
    }
    let Some(explanation) = found.pop() else {
        let text = format!(
            "no job {id} is known; `remuda get jobs --all` lists those that are. A job whose delivery \
             was lost is found by the next listing of its scope"
        );
        return Err(problem(StatusCode::NOT_FOUND, text));
    };
    told(&api, explanation).await
}

async fn explain(State(api): State<Api>, UrlPath((noun, id)): UrlPath<(String, String)>) -> Reply {
    let (what, name, outside) = (noun.clone(), id.clone(), api.outside());
    let found = api.handle.ask(move |controller| match what.as_str() {
        "runner" => explanation::runner(controller, RunnerId(name.parse().ok()?)),
        "pool" => explanation::pool(controller, &name),
        "provider" => explanation::provider(controller, &name, &outside.elsewhere),
        _ => None,
    });
    let Some(explanation) = found.await.map_err(|why| unreached(&why))? else {
        let text = format!("no {noun} {id} is known; `remuda get {noun}s` lists those that are");
        return Err(problem(StatusCode::NOT_FOUND, text));
    };
    told(&api, explanation).await
}

async fn told(api: &Api, mut explanation: Explanation) -> Reply {
    if ["job", "runner"].contains(&explanation.about.as_str()) {
        explanation.events = events_of(&*api.store, &explanation)
            .await
            .map_err(|e| problem(StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
    }
    Ok(Json(explanation).into_response())
}

/// What happened to a job and to the runners that have or had it. The newest so many, oldest first.
async fn events_of(
    store: &dyn Store,
    explanation: &Explanation,
) -> Result<Vec<EventRow>, StoreError> {
    let of_job = |event: &EventRow| {
        explanation.job.as_ref().is_some_and(|job| event.job.as_ref() == Some(&job.id))
            || event.runner.is_some_and(|id| explanation.runners.iter().any(|row| row.id == id))
    };
    let mut found = std::collections::VecDeque::new();
    let mut after = 0;
    loop {
        let page = store.events(after, EVENTS_PER_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(found.into()) };
        after = *last;
        let rows = page.iter().map(|(sequence, event)| view::event(*sequence, event));
        found.extend(rows.filter(of_job));
        while found.len() > EVENTS_SHOWN_MAX {
            found.pop_front();
        }
    }
}

async fn runner(State(api): State<Api>, UrlPath(id): UrlPath<u64>) -> Reply {
    let row = api.handle.ask(move |controller| {
        let world = controller.world();
        world.runner(RunnerId(id)).map(|row| view::runner(row, world.instance(row.instance)))
    });
    match row.await.map_err(|why| unreached(&why))? {
        Some(row) => Ok(Json(row).into_response()),
        None => Err(problem(StatusCode::NOT_FOUND, unknown(id))),
    }
}

fn unknown(id: u64) -> String {
    format!("no runner {id} is known; `remuda get runners --all` lists those that are")
}

async fn logs(State(api): State<Api>, UrlPath(id): UrlPath<u64>) -> Reply {
    let place = api.handle.ask(move |controller| {
        let world = controller.world();
        let instance = world.instance(world.runner(RunnerId(id))?.instance)?;
        Some((instance.provider.clone(), instance.id))
    });
    let Some((provider, instance)) = place.await.map_err(|why| unreached(&why))? else {
        return Err(problem(StatusCode::NOT_FOUND, unknown(id)));
    };
    match api.outside().tail(&provider, instance, TAIL_BYTES_MAX).await {
        Ok(bytes) => Ok(bytes.into_response()),
        Err(error) => Err(problem(StatusCode::BAD_GATEWAY, format!("{error:#}"))),
    }
}

async fn order(
    State(api): State<Api>,
    UrlPath(id): UrlPath<u64>,
    Json(order): Json<RunnerOrder>,
) -> Reply {
    let runner = RunnerId(id);
    let order = match order {
        RunnerOrder::Hold { who, why } => Order::Hold { runner, who: who.into(), why: why.into() },
        RunnerOrder::Release => Order::Release { runner },
        RunnerOrder::Drain => Order::DrainRunner { runner },
    };
    let read = move |controller: &Controller| match controller.world().runner(runner) {
        Some(_) => Ok(order),
        None => Err(unknown(id)),
    };
    carry_out(&api, read).await
}

/// Gives an order and answers once it is durable, which it is not while the store takes no commits.
async fn carry_out(
    api: &Api,
    read: impl FnOnce(&Controller) -> Result<Order, String> + Send + 'static,
) -> Reply {
    let carried = async {
        let order = api.handle.ask(read).await.map_err(|why| unreached(&why))?;
        let order = order.map_err(|text| problem(StatusCode::NOT_FOUND, text))?;
        api.handle.order(order).await.map_err(|why| unreached(&why))
    };
    let late = |_| {
        let text = format!(
            "the order is not written down after {} s, because the store takes no commits or the loop \
             is behind: the server's log says which. It may yet come into force; giving it again does \
             no harm",
            ORDER_MAX.as_secs()
        );
        problem(StatusCode::GATEWAY_TIMEOUT, text)
    };
    tokio::time::timeout(ORDER_MAX, carried).await.map_err(late)??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn restricted(State(api): State<Api>) -> Reply {
    let rows = api.handle.ask(|c| restrict::restrictions(c.world())).await;
    Ok(Json(rows.map_err(|why| unreached(&why))?).into_response())
}

async fn fleet_order(State(api): State<Api>, Json(order): Json<FleetOrder>) -> Reply {
    carry_out(&api, move |controller| order.read(controller.world())).await
}

async fn doctor(State(api): State<Api>) -> Reply {
    let finding = |level: &str, what: &str, text: String| Finding {
        level: level.into(),
        what: what.into(),
        text,
    };
    // What the books say is for the replica that leads to say; the store is everybody's.
    let outside = api.outside();
    let books = api.handle.ask(move |c| view::doctor(c, &outside.elsewhere));
    let mut store_fails = None;
    let mut found = match books.await {
        Ok(found) => found,
        Err(why @ Unreached::Stopping) => return Err(unreached(&why)),
        Err(why @ Unreached::Failing(_)) => {
            store_fails = Some(finding("error", "store", why.to_string()));
            Vec::new()
        }
        Err(Unreached::Standby(text)) => {
            let nobody = matches!(api.handle.standing(), Standing::Standby { leader: None, .. });
            vec![finding(if nobody { "error" } else { "ok" }, "leader", text)]
        }
    };
    if let Standing::Leading { epoch, since, .. } = api.handle.standing() {
        let text = format!("this replica leads since {}, epoch {epoch}", rfc3339(since));
        found.push(finding("ok", "leader", text));
    }
    if let Some(failure) = store_fails {
        found.push(failure);
        return Ok(Json(found).into_response());
    }
    let late = |_| format!("it has not answered for {} s", STORE_MAX.as_secs());
    let text = |failure: StoreError| failure.to_string();
    let (checked, undecodable) = tokio::join!(
        tokio::time::timeout(STORE_MAX, api.store.check()),
        tokio::time::timeout(STORE_MAX, api.store.undecodable(20)),
    );
    match checked.map_err(late).and_then(|checked| checked.map_err(text)) {
        Ok(()) => found.push(finding("ok", "store", "it takes durable writes".into())),
        Err(failure) => found.push(finding("error", "store", failure)),
    }
    match undecodable.map_err(late).and_then(|read| read.map_err(text)) {
        Ok(undecodable) => found.extend(undecodable.into_iter().map(|(_, delivery, error)| {
            finding("warning", "deliveries", format!("{} cannot be decoded: {error}", delivery.id))
        })),
        Err(failure) => found.push(finding("error", "deliveries", failure)),
    }
    Ok(Json(found).into_response())
}
