//! Webhooks, their deliveries, and sending those again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::middle::{Deed, Permission};
use super::reply::{Page, Query, Refusal, Reply, body, encode, paged};
use crate::clock::iso_millis;
use crate::config::OwnerKind;
use crate::gate::Principal;
use crate::id::{DeliveryId, HookId};
use crate::post::{Delivery, Outcome};
use crate::shared::Shared;
use crate::view::View;
use crate::world::{Hook, HookAt, World};

type Answer = Result<Reply, Refusal>;
type Sandbox = State<Arc<Shared>>;

/// What the routes' paths name: nothing for an App's own hook.
#[derive(Debug, Deserialize)]
pub(super) struct At {
    owner: Option<String>,
    repository: Option<String>,
    hook: Option<u64>,
    delivery: Option<u64>,
}

#[derive(Deserialize)]
struct NewHook {
    config: NewHookConfig,
    #[serde(default)]
    events: Vec<String>,
}

#[derive(Deserialize)]
struct NewHookConfig {
    url: String,
    #[serde(default)]
    secret: String,
}

pub(super) async fn list(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let place = place(view.world, &principal, &at, Deed::Read)?;
        let own = view.world.hooks.values().filter(|hook| hook.at == place);
        let all = own.map(|hook| view.hook(hook)).collect();
        let path = format!("{}/hooks", base(view, &at));
        Ok(paged(all, &path, &query, |items, _| Value::Array(items)))
    })
}

pub(super) async fn create(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
    bytes: Bytes,
) -> Answer {
    let place = shared.read(|view| place(view.world, &principal, &at, Deed::Write))?;
    let new: NewHook = body(&bytes)?;
    let wanted = |event: &String| event == "workflow_job" || event == "*";
    if !new.events.iter().any(wanted) {
        let message = "the sandbox sends `workflow_job` and nothing else";
        return Err(Refusal::field("Hook", "events", message));
    }
    let id = shared
        .act(|world, now| world.create_hook(place, new.config.url, new.config.secret.into(), now))
        .map_err(|error| Refusal::field("Hook", "url", error.to_string()))?;
    shared.read(|view| Ok(Reply::with(StatusCode::CREATED, view.hook(&view.world.hooks[&id]))))
}

pub(super) async fn list_deliveries(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
    query: Query,
) -> Answer {
    let (hook, path) = shared.read(|view| {
        let hook = hook(view.world, &principal, &at, Deed::Read)?;
        Ok((hook.id, format!("{}{}/deliveries", view.links.api, view.hook_path(hook))))
    })?;
    let before = match query.get("cursor").map(|cursor| cursor.strip_prefix("v1_")) {
        None => None,
        Some(cursor) => {
            let id = cursor.and_then(|id| id.parse().ok());
            Some(DeliveryId(
                id.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Invalid cursor."))?,
            ))
        }
    };
    let wanted: fn(&Outcome) -> bool = match query.get("status").map(String::as_str) {
        None => |_| true,
        Some("success") => Outcome::succeeded,
        Some("failure") => |outcome| !outcome.succeeded(),
        Some(_) => return Err(Refusal::field("HookDelivery", "status", "success or failure")),
    };
    let size = Page::of(&query).size();
    // GitHub lists a delivery when it has ended. One more than asked shows that there is a page
    // after this one.
    let listed = |delivery: &Delivery| {
        let ended = !matches!(delivery.outcome, Outcome::Pending);
        delivery.letter.hook == hook && ended && wanted(&delivery.outcome)
    };
    let mut found = shared.post.deliveries(before, size + 1, listed);
    let more = found.len() > size;
    found.truncate(size);
    let items: Vec<Value> = found.iter().map(item).collect();
    let reply = Reply::ok(Value::Array(items));
    Ok(match found.last().filter(|_| more) {
        None => reply,
        Some(last) => {
            let mut fields: BTreeMap<String, String> = query.0.clone();
            fields.insert("cursor".into(), format!("v1_{}", last.id));
            fields.insert("per_page".into(), size.to_string());
            reply.header(header::LINK, format!("<{path}?{}>; rel=\"next\"", encode(&fields)))
        }
    })
}

pub(super) async fn get_delivery(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
) -> Answer {
    let hook = shared.read(|view| hook(view.world, &principal, &at, Deed::Read).map(|h| h.id))?;
    let delivery = at.delivery.and_then(|id| shared.post.delivery(DeliveryId(id)));
    let delivery = delivery.filter(|delivery| delivery.letter.hook == hook);
    Ok(Reply::ok(whole(&delivery.ok_or_else(Refusal::not_found)?)))
}

pub(super) async fn redeliver(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
) -> Answer {
    let hook = shared.read(|view| hook(view.world, &principal, &at, Deed::Write).map(|h| h.id))?;
    let id = DeliveryId(at.delivery.unwrap_or_default());
    if shared.post.redeliver(hook, id, shared.clock.now()) {
        Ok(Reply::with(StatusCode::ACCEPTED, json!({})))
    } else {
        Err(Refusal::not_found())
    }
}

fn item(delivery: &Delivery) -> Value {
    let letter = &delivery.letter;
    let (status, status_code, took) = match &delivery.outcome {
        Outcome::Pending => ("pending".to_string(), 0, 0.0),
        Outcome::Answered { status, took, .. } if delivery.outcome.succeeded() => {
            ("OK".to_string(), *status, took.as_secs_f64())
        }
        Outcome::Answered { status, took, .. } => {
            (format!("Invalid HTTP Response: {status}"), *status, took.as_secs_f64())
        }
        Outcome::Failed { why, took } => (why.clone(), 0, took.as_secs_f64()),
    };
    json!({
        "id": delivery.id,
        "guid": letter.guid,
        "delivered_at": iso_millis(delivery.delivered_at),
        "redelivery": letter.redelivery,
        "duration": took,
        "status": status,
        "status_code": status_code,
        "event": letter.event,
        "action": letter.action,
        "installation_id": letter.installation,
        "repository_id": letter.repository,
        "throttled_at": null,
    })
}

fn whole(delivery: &Delivery) -> Value {
    let headers: BTreeMap<_, _> = delivery.letter.headers().into_iter().collect();
    let payload: Value = serde_json::from_str(delivery.letter.body()).unwrap_or_default();
    let answer = match &delivery.outcome {
        Outcome::Answered { body, .. } => Some(body.as_str()),
        Outcome::Pending | Outcome::Failed { .. } => None,
    };
    let mut all = item(delivery);
    all["url"] = json!(delivery.letter.url());
    all["request"] = json!({ "headers": headers, "payload": payload });
    all["response"] = json!({ "headers": {}, "payload": answer });
    all
}

fn hook<'a>(
    world: &'a World,
    principal: &Principal,
    at: &At,
    deed: Deed,
) -> Result<&'a Hook, Refusal> {
    let place = place(world, principal, at, deed)?;
    let named = |hook: &&Hook| at.hook.is_none_or(|id| hook.id == HookId(id));
    let mut own = world.hooks.values().filter(|hook| hook.at == place);
    own.find(named).ok_or_else(Refusal::not_found)
}

fn place(world: &World, principal: &Principal, at: &At, deed: Deed) -> Result<HookAt, Refusal> {
    match (&at.owner, &at.repository) {
        (None, _) => Ok(HookAt::App(principal.app(world)?.config.id)),
        (Some(login), None) => {
            let owner = principal.owner(world, login, Permission::OrganizationHooks, deed)?;
            match owner.kind {
                OwnerKind::Organization => Ok(HookAt::Organization(owner.id)),
                OwnerKind::User => Err(Refusal::not_found()),
            }
        }
        (Some(owner), Some(name)) => {
            let permission = Permission::RepositoryHooks;
            Ok(HookAt::Repository(principal.repository(world, owner, name, permission, deed)?.id))
        }
    }
}

fn base(view: View<'_>, at: &At) -> String {
    let api = &view.links.api;
    match (&at.owner, &at.repository) {
        (None, _) => format!("{api}/app"),
        (Some(owner), None) => format!("{api}/orgs/{owner}"),
        (Some(owner), Some(repository)) => format!("{api}/repos/{owner}/{repository}"),
    }
}
