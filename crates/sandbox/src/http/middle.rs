//! What every REST request passes: faults, authentication, rate limits, `ETag`s.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rand::Rng;
use ring::digest;

use super::reply::Refusal;
use crate::faults::{Family, RestFate};
use crate::gate::{Excess, Principal};
use crate::hex::hex;
use crate::shared::Shared;
use crate::world::{App, Installation, Owner, Repository, World};

/// Most bytes of an answer that gets an `ETag`: all of them.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) async fn gate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&shared, &mut request).await {
        Err(refusal) => refusal.into_response(),
        Ok(principal) => {
            let conditional = request.headers().get(header::IF_NONE_MATCH).cloned();
            let cacheable = request.method() == Method::GET;
            let response = next.run(request).await;
            let mut response = if cacheable && response.status() == StatusCode::OK {
                tag(&shared, &principal, response, conditional.as_ref()).await
            } else {
                response
            };
            rate_headers(&shared, &principal, &mut response);
            response
        }
    };
    let id = format!("{:032X}", rand::rng().random::<u128>());
    set(&mut response, "x-github-request-id", &id);
    set(&mut response, "x-github-media-type", "github.v3; format=json");
    response
}

/// Lets faults strike, finds out who asks, and counts the request.
async fn admit(shared: &Shared, request: &mut Request) -> Result<Principal, Refusal> {
    let family = Family::of(request.uri().path());
    let fate = shared.throw(|world| match world.faults.rest.get(&family) {
        Some(faults) => world.dice.rest(faults),
        None => RestFate::Served,
    });
    if fate != RestFate::Served {
        shared.act(|world, _| world.counts.requests_struck += 1);
    }
    match fate {
        RestFate::Served => {}
        RestFate::Hung(span) => {
            tokio::select! {
                () = tokio::time::sleep(span) => {}
                () = shared.stop.cancelled() => {}
            }
            return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "We couldn't respond in time."));
        }
        RestFate::Refused { status, retry_after_s } => {
            return Err(refused_by_fault(status, retry_after_s));
        }
    }
    let now = shared.clock.now();
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap_or_default());
    let principal = shared.gate.principal(authorization, now).map_err(Refusal::unauthorized)?;
    let free = request.uri().path().ends_with("/rate_limit");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !free {
        let points = if reads { 1 } else { 5 };
        let charged = shared.gate.charge(&principal, points, now);
        charged.map_err(|excess| over_the_limit(shared, &principal, excess))?;
    }
    request.extensions_mut().insert(principal.clone());
    Ok(principal)
}

fn refused_by_fault(status: u16, retry_after_s: u64) -> Refusal {
    let message = match status {
        403 | 429 => {
            "You have exceeded a secondary rate limit. Please wait a few minutes before \
                      you try again."
        }
        _ => "Server Error",
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let refusal = Refusal::new(status, message);
    if retry_after_s == 0 {
        refusal
    } else {
        refusal.retry_after(Duration::from_secs(retry_after_s))
    }
}

fn over_the_limit(shared: &Shared, principal: &Principal, excess: Excess) -> Refusal {
    match excess {
        Excess::Primary => {
            let whose = match principal {
                Principal::Installation(id) => format!("installation ID {id}"),
                Principal::App(id) => format!("app ID {id}"),
                Principal::Person(login) => format!("user ID {login}"),
                Principal::Anonymous => "this address".into(),
            };
            let now = shared.clock.now();
            let wait = shared.gate.rate(principal, now).reset_at.since(now);
            let message = format!("API rate limit exceeded for {whose}.");
            Refusal::new(StatusCode::FORBIDDEN, message).retry_after(wait)
        }
        Excess::Secondary { retry_after } => {
            let message = "You have exceeded a secondary rate limit. Please wait a few minutes \
                           before you try again.";
            Refusal::new(StatusCode::FORBIDDEN, message).retry_after(retry_after)
        }
    }
}

async fn tag(
    shared: &Shared,
    principal: &Principal,
    response: Response,
    conditional: Option<&HeaderValue>,
) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await else {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Server Error").into_response();
    };
    let digest = digest::digest(&digest::SHA256, &bytes);
    let etag = format!("W/\"{}\"", hex(digest.as_ref()));
    let known = conditional.and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        head.headers.insert(header::ETAG, value);
    }
    if unchanged {
        shared.gate.refund(principal);
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(bytes))
}

fn rate_headers(shared: &Shared, principal: &Principal, response: &mut Response) {
    let rate = shared.gate.rate(principal, shared.clock.now());
    let reset = rate.reset_at.as_millis().div_euclid(1000);
    set(response, "x-ratelimit-limit", &rate.limit.to_string());
    set(response, "x-ratelimit-remaining", &rate.remaining().to_string());
    set(response, "x-ratelimit-used", &rate.used.to_string());
    set(response, "x-ratelimit-reset", &reset.to_string());
    set(response, "x-ratelimit-resource", "core");
}

fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self::Anonymous))
    }
}

/// What a route does to what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Read,
    Write,
}

/// What a route touches, as permissions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Actions,
    Administration,
    Metadata,
    OrganizationHooks,
    OrganizationRunners,
    RepositoryHooks,
}

impl Permission {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Actions => "actions",
            Self::Administration => "administration",
            Self::Metadata => "metadata",
            Self::OrganizationHooks => "organization_hooks",
            Self::OrganizationRunners => "organization_self_hosted_runners",
            Self::RepositoryHooks => "repository_hooks",
        }
    }
}

impl Principal {
    /// The App that signed this request.
    pub(super) fn app<'a>(&self, world: &'a World) -> Result<&'a App, Refusal> {
        match self {
            Self::App(id) => world.apps.get(id).ok_or_else(Refusal::not_found),
            Self::Anonymous | Self::Installation(_) | Self::Person(_) => {
                Err(Refusal::unauthorized("A JSON web token could not be decoded"))
            }
        }
    }

    /// The installation whose token this request bears.
    pub(super) fn installation<'a>(&self, world: &'a World) -> Result<&'a Installation, Refusal> {
        match self {
            Self::Installation(id) => {
                world.installations.get(id).ok_or_else(|| Refusal::unauthorized("Bad credentials"))
            }
            Self::Anonymous => Err(Refusal::unauthorized("Requires authentication")),
            Self::App(_) | Self::Person(_) => Err(Refusal::forbidden()),
        }
    }

    /// The account `login`, if this request may do `deed` there.
    pub(super) fn owner<'a>(
        &self,
        world: &'a World,
        login: &str,
        permission: Permission,
        deed: Deed,
    ) -> Result<&'a Owner, Refusal> {
        if *self == Self::Anonymous {
            return Err(Refusal::unauthorized("Requires authentication"));
        }
        let owner = world.owner(login).ok_or_else(Refusal::not_found)?;
        match self {
            Self::Anonymous => Err(Refusal::unauthorized("Requires authentication")),
            Self::App(_) => Err(Refusal::unauthorized("Bad credentials")),
            Self::Person(_) => Ok(owner),
            Self::Installation(_) => {
                let installation = self.installation(world)?;
                let permissions = &world.apps[&installation.app].config.permissions;
                let level = permissions.get(permission.as_str()).map(String::as_str);
                let allowed = match deed {
                    Deed::Read => matches!(level, Some("read" | "write" | "admin")),
                    Deed::Write => matches!(level, Some("write" | "admin")),
                };
                if installation.owner != owner.id {
                    // What a token cannot see does not exist for it.
                    Err(Refusal::not_found())
                } else if allowed {
                    Ok(owner)
                } else {
                    Err(Refusal::forbidden())
                }
            }
        }
    }

    /// The repository, if this request may do `deed` there.
    pub(super) fn repository<'a>(
        &self,
        world: &'a World,
        owner: &str,
        name: &str,
        permission: Permission,
        deed: Deed,
    ) -> Result<&'a Repository, Refusal> {
        self.owner(world, owner, permission, deed)?;
        world.repository(owner, name).ok_or_else(Refusal::not_found)
    }
}
