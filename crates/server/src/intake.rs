//! The HTTP side that the world sees: deliveries in, health and metrics out.
//!
//! A delivery is verified over its raw bytes, stored durably, and only then acknowledged. No forge and
//! no provider is called here, nothing is parsed before its signature is right, and no answer holds
//! anything of a secret.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use remuda_forge::{RawDelivery, Refusal};
use remuda_store::{Accepted, Store};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::clock::{Clock, rfc3339};
use crate::handle::{Handle, Standing, Trouble, Unreached};
use crate::metrics::{Gauges, Metrics};
use crate::site::Sites;

/// GitHub's cap on a payload.
const BODY_BYTES_MAX: usize = 25 * 1024 * 1024;
/// GitHub gives up after ten seconds.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Memory that bodies under way may take in all, in KiB.
const BODIES_KIB_MAX: usize = 256 * 1024;
/// How long metrics wait for the loop, which may be about to write a great deal.
const GAUGES_MAX: Duration = Duration::from_secs(1);
/// The least a body is counted as, in KiB.
const BODY_KIB_MIN: usize = 16;

/// What the intake needs.
#[derive(Clone)]
pub(crate) struct Intake {
    sites: Sites,
    clock: Clock,
    store: Arc<dyn Store>,
    handle: Handle,
    metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
}

impl Intake {
    pub(crate) fn new(
        sites: Sites,
        clock: Clock,
        store: Arc<dyn Store>,
        handle: Handle,
        metrics: Arc<Metrics>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(BODIES_KIB_MAX));
        Self { sites, clock, store, handle, metrics, room }
    }

    /// Serves until told to stop; requests under way are finished.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let routes = Router::new()
            .route("/webhooks/github", post(webhook))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await?;
        Ok(())
    }

    fn answer(&self, kind: &str, status: StatusCode, text: &'static str) -> Response {
        self.metrics.delivery(kind);
        (status, format!("{text}\n")).into_response()
    }
}

async fn webhook(State(intake): State<Intake>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let declared = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > BODY_BYTES_MAX) {
        return intake.answer("refused", StatusCode::PAYLOAD_TOO_LARGE, "the body is over 25 MB");
    }
    let kib = declared.unwrap_or(BODY_BYTES_MAX).div_ceil(1024).max(BODY_KIB_MIN);
    let Ok(kib) = u32::try_from(kib) else {
        return intake.answer("refused", StatusCode::PAYLOAD_TOO_LARGE, "the body is over 25 MB");
    };
    let reading = async {
        let _room = intake.room.acquire_many(kib).await.ok()?;
        Some(read(body).await)
    };
    let body = match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Ok(Some(Ok(body))) => body,
        Ok(Some(Err(refusal))) => return refusal.answer(&intake),
        Ok(None) | Err(_) => {
            let text = "the body did not arrive in time";
            return intake.answer("refused", StatusCode::REQUEST_TIMEOUT, text);
        }
    };
    take(&intake, &parts.headers, &body).await
}

/// Why a body could not be read.
enum Unread {
    TooLarge,
    Broken,
}

impl Unread {
    fn answer(&self, intake: &Intake) -> Response {
        match self {
            Self::TooLarge => {
                intake.answer("refused", StatusCode::PAYLOAD_TOO_LARGE, "the body is over 25 MB")
            }
            Self::Broken => intake.answer("refused", StatusCode::BAD_REQUEST, "the body broke off"),
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Unread> {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if text.contains("length limit") { Unread::TooLarge } else { Unread::Broken }
    })
}

async fn take(intake: &Intake, headers: &HeaderMap, body: &Bytes) -> Response {
    let raw = RawDelivery { headers, body, received_at: intake.clock.now() };
    let site = intake.sites.borrow().clone();
    let mut refusal = Refusal::Signature;
    let mut verified = None;
    for forge in site.outside.forges.values() {
        match forge.verify(&raw) {
            Ok(delivery) => {
                verified = Some(delivery);
                break;
            }
            Err(error) => refusal = error,
        }
    }
    let Some(delivery) = verified else {
        debug!("refused a delivery: {refusal}");
        intake.metrics.delivery("refused");
        return (refusal.status(), format!("{refusal}\n")).into_response();
    };
    match &*delivery.event {
        "ping" => return intake.answer("ignored", StatusCode::OK, "pong"),
        "workflow_job" => {}
        _ => return intake.answer("ignored", StatusCode::OK, "not an event that concerns us"),
    }
    match intake.store.accept(&delivery).await {
        Ok(Accepted::New(_)) => {
            intake.handle.delivered();
            intake.answer("accepted", StatusCode::ACCEPTED, "stored")
        }
        Ok(Accepted::Duplicate(_)) => {
            intake.answer("duplicate", StatusCode::ACCEPTED, "stored before")
        }
        Err(failure) => {
            error!(delivery = %delivery.id, "cannot store delivery {}: {failure}", delivery.id);
            let text = "the delivery could not be stored; deliver it again later";
            intake.answer("failed", StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

/// Alive: the loop takes questions, or this replica stands by, or waits for a store that fails: to start it
/// again would not help that.
async fn healthz(State(intake): State<Intake>) -> Response {
    let asked = async {
        match intake.handle.standing() {
            Standing::Standby { .. } => Ok("ok, standing by\n"),
            Standing::Leading { .. } | Standing::Stopped => {
                intake.handle.ask(|_| ()).await.map(|()| "ok\n")
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(Ok(text)) => (StatusCode::OK, text).into_response(),
        Ok(Err(Unreached::Standby(_))) => (StatusCode::OK, "ok, standing by\n").into_response(),
        Ok(Err(Unreached::Failing(Trouble { since, .. }))) => {
            let text = format!("ok, but the store has failed since {}\n", rfc3339(since));
            (StatusCode::OK, text).into_response()
        }
        Ok(Err(Unreached::Stopping)) | Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the loop does not answer\n").into_response()
        }
    }
}

/// Ready: the store takes a durable write, and does not fail the loop. A replica that stands by is ready: it
/// takes deliveries.
async fn readyz(State(intake): State<Intake>) -> Response {
    if let Some(Trouble { since, .. }) = intake.handle.trouble() {
        let text = format!("the store has failed since {}\n", rfc3339(since));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let checked = tokio::time::timeout(Duration::from_secs(5), intake.store.check()).await;
    let text = match checked {
        Ok(Ok(())) => return (StatusCode::OK, "ok\n").into_response(),
        Ok(Err(failure)) => {
            warn!("not ready: {failure}");
            "the store does not take writes\n"
        }
        Err(_) => "the store does not answer\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Without what is read off the books, where there are none or the loop is busy.
async fn metrics(State(intake): State<Intake>) -> Response {
    let gauges = match intake.handle.standing() {
        Standing::Standby { .. } => None,
        Standing::Leading { .. } | Standing::Stopped => {
            match tokio::time::timeout(GAUGES_MAX, intake.handle.ask(Gauges::read)).await {
                Ok(Ok(gauges)) => Some(gauges),
                Ok(Err(Unreached::Standby(_) | Unreached::Failing(_))) | Err(_) => None,
                Ok(Err(Unreached::Stopping)) => {
                    let text = "the server is stopping\n";
                    return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
                }
            }
        }
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], intake.metrics.render(gauges.as_ref())).into_response()
}
