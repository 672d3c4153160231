//! Apps, installations, tokens, the rate limit.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::reply::{Query, Refusal, Reply, paged};
use crate::config::OwnerKind;
use crate::gate::Principal;
use crate::id::InstallationId;
use crate::shared::Shared;
use crate::world::{Installation, World};

type Answer = Result<Reply, Refusal>;
type Sandbox = State<Arc<Shared>>;

pub(super) async fn get_app(State(shared): Sandbox, principal: Principal) -> Answer {
    shared.read(|view| Ok(Reply::ok(view.app(principal.app(view.world)?))))
}

pub(super) async fn list_installations(
    State(shared): Sandbox,
    principal: Principal,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let app = principal.app(view.world)?.config.id;
        let own = view.world.installations.values().filter(|there| there.app == app);
        let all = own.map(|installation| view.installation(installation)).collect();
        let path = format!("{}/app/installations", view.links.api);
        Ok(paged(all, &path, &query, |items, _| Value::Array(items)))
    })
}

pub(super) async fn get_installation(
    State(shared): Sandbox,
    principal: Principal,
    Path(id): Path<u64>,
) -> Answer {
    shared.read(|view| {
        let installation = own_installation(view.world, &principal, InstallationId(id))?;
        Ok(Reply::ok(view.installation(installation)))
    })
}

pub(super) async fn create_token(
    State(shared): Sandbox,
    principal: Principal,
    Path(id): Path<u64>,
) -> Answer {
    let now = shared.clock.now();
    let expires_at = now + shared.times.token;
    shared.read(|view| {
        let installation = own_installation(view.world, &principal, InstallationId(id))?;
        let token = shared.gate.issue_token(installation.id, now, expires_at);
        let body = view.installation_token(&token, expires_at, installation);
        Ok(Reply::with(StatusCode::CREATED, body))
    })
}

pub(super) async fn owner_installation(
    State(shared): Sandbox,
    principal: Principal,
    uri: Uri,
    Path(login): Path<String>,
) -> Answer {
    shared.read(|view| {
        let app = principal.app(view.world)?.config.id;
        let owner = view.world.owner(&login).ok_or_else(Refusal::not_found)?;
        // `/orgs/{login}` does not find people.
        if uri.path().contains("/orgs/") && owner.kind == OwnerKind::User {
            return Err(Refusal::not_found());
        }
        let installation = view.world.installation(app, owner.id).ok_or_else(Refusal::not_found)?;
        Ok(Reply::ok(view.installation(installation)))
    })
}

pub(super) async fn repository_installation(
    State(shared): Sandbox,
    principal: Principal,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    shared.read(|view| {
        let app = principal.app(view.world)?.config.id;
        let repository = view.world.repository(&owner, &name).ok_or_else(Refusal::not_found)?;
        let installation =
            view.world.installation(app, repository.owner).ok_or_else(Refusal::not_found)?;
        Ok(Reply::ok(view.installation(installation)))
    })
}

pub(super) async fn rate_limit(State(shared): Sandbox, principal: Principal) -> Answer {
    let rate = shared.gate.rate(&principal, shared.clock.now());
    let rate = json!({
        "limit": rate.limit,
        "used": rate.used,
        "remaining": rate.remaining(),
        "reset": rate.reset_at.as_millis().div_euclid(1000),
    });
    Ok(Reply::ok(json!({ "resources": { "core": rate, "search": rate }, "rate": rate })))
}

fn own_installation<'a>(
    world: &'a World,
    principal: &Principal,
    id: InstallationId,
) -> Result<&'a Installation, Refusal> {
    let app = principal.app(world)?.config.id;
    let installation = world.installations.get(&id).filter(|there| there.app == app);
    installation.ok_or_else(Refusal::not_found)
}
