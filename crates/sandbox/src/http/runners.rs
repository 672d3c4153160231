//! Runner groups, JIT configurations, runners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::middle::{Deed, Permission};
use super::reply::{Query, Refusal, Reply, body, paged};
use crate::config::OwnerKind;
use crate::gate::Principal;
use crate::id::{GroupId, RepositoryId, RunnerId};
use crate::shared::Shared;
use crate::view::{Links, View};
use crate::wire::{CredentialData, Credentials, SCHEME};
use crate::world::{
    AccountError, GroupVisibility, Owner, RegisterError, RemoveError, Runner, Scope, World,
};

type Answer = Result<Reply, Refusal>;
type Sandbox = State<Arc<Shared>>;

/// The owner, and the repository where the route has one.
#[derive(Debug, Deserialize)]
pub(super) struct At {
    owner: String,
    repository: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OneAt {
    owner: String,
    repository: Option<String>,
    runner: u64,
}

#[derive(Debug, Deserialize)]
struct Generate {
    name: String,
    runner_group_id: u64,
    labels: Vec<String>,
    work_folder: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NewGroup {
    name: String,
    visibility: Option<String>,
    #[serde(default)]
    selected_repository_ids: BTreeSet<RepositoryId>,
    #[serde(default)]
    allows_public_repositories: bool,
}

pub(super) async fn list_groups(
    State(shared): Sandbox,
    principal: Principal,
    Path(login): Path<String>,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let owner = organization(view.world, &principal, &login, Deed::Read)?;
        let all = view.world.groups_of(owner.id).map(|group| view.group(owner, group)).collect();
        let path = format!("{}/orgs/{login}/actions/runner-groups", view.links.api);
        Ok(paged(
            all,
            &path,
            &query,
            |items, total| json!({ "total_count": total, "runner_groups": items }),
        ))
    })
}

pub(super) async fn create_group(
    State(shared): Sandbox,
    principal: Principal,
    Path(login): Path<String>,
    bytes: Bytes,
) -> Answer {
    let new: NewGroup = body(&bytes)?;
    let visibility = match new.visibility.as_deref() {
        None | Some("all") => GroupVisibility::All,
        Some("private") => GroupVisibility::Private,
        Some("selected") => GroupVisibility::Selected(new.selected_repository_ids),
        Some(other) => return Err(Refusal::invalid(format!("Invalid visibility {other:?}."))),
    };
    let id = shared.act(|world, _| {
        let owner = organization(world, &principal, &login, Deed::Write)?.id;
        world
            .create_group(owner, &new.name, visibility, new.allows_public_repositories)
            .map(|group| (owner, group))
            .map_err(|error| match error {
                AccountError::Exists(_) => Refusal::new(
                    StatusCode::CONFLICT,
                    format!("Runner group with name {:?} already exists.", new.name),
                ),
                other => Refusal::invalid(other.to_string()),
            })
    })?;
    shared.read(|view| {
        let owner = &view.world.owners[&id.0];
        let group = view.group(owner, &view.world.groups[&id]);
        Ok(Reply::with(StatusCode::CREATED, group))
    })
}

pub(super) async fn get_group(
    State(shared): Sandbox,
    principal: Principal,
    Path((login, group)): Path<(String, u64)>,
) -> Answer {
    shared.read(|view| {
        let owner = organization(view.world, &principal, &login, Deed::Read)?;
        let group = view.world.groups.get(&(owner.id, GroupId(group)));
        Ok(Reply::ok(view.group(owner, group.ok_or_else(Refusal::not_found)?)))
    })
}

pub(super) async fn list(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
    query: Query,
) -> Answer {
    shared.throw(|world| {
        let scope = scope(world, &principal, &at, Deed::Read)?;
        let name = query.get("name").map(|name| name.to_lowercase());
        let wanted = |runner: &&Runner| {
            runner.scope == scope && name.as_ref().is_none_or(|n| runner.name.to_lowercase() == *n)
        };
        let found: Vec<RunnerId> =
            world.runners.values().filter(wanted).map(|runner| runner.id).collect();
        let all = found.iter().map(|id| show(world, *id)).collect();
        let path = format!("{}{}/actions/runners", shared.links.api, at.path());
        Ok(paged(
            all,
            &path,
            &query,
            |items, total| json!({ "total_count": total, "runners": items }),
        ))
    })
}

pub(super) async fn get(
    State(shared): Sandbox,
    principal: Principal,
    Path(one): Path<OneAt>,
) -> Answer {
    let (at, id) = one.split();
    shared.throw(|world| {
        let id = find(world, &principal, &at, id, Deed::Read)?;
        Ok(Reply::ok(show(world, id)))
    })
}

pub(super) async fn remove(
    State(shared): Sandbox,
    principal: Principal,
    Path(one): Path<OneAt>,
) -> Answer {
    let (at, id) = one.split();
    shared.act(|world, _| {
        let id = find(world, &principal, &at, id, Deed::Write)?;
        match world.deregister(id) {
            Ok(()) => Ok(Reply::empty(StatusCode::NO_CONTENT)),
            Err(RemoveError::NotFound) => Err(Refusal::not_found()),
            Err(busy @ RemoveError::Busy(_)) => {
                Err(Refusal::invalid(format!("Bad request - {busy}")))
            }
        }
    })
}

pub(super) async fn generate(
    State(shared): Sandbox,
    principal: Principal,
    Path(at): Path<At>,
    bytes: Bytes,
) -> Answer {
    // Who may not register learns nothing about the body.
    let scope = shared.read(|view| scope(view.world, &principal, &at, Deed::Write))?;
    let new: Generate = body(&bytes)?;
    let work_folder = new.work_folder.unwrap_or_else(|| "_work".into());
    let group = GroupId(new.runner_group_id);
    if group == GroupId(2) {
        let message = "Runners cannot be registered in GitHub's own group.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    let made = shared.act(|world, now| {
        let (id, credential) = world.register(scope, group, &new.name, &new.labels, now)?;
        Ok((show(world, id), jit(&shared.links, &world.runners[&id], &credential, &work_folder)))
    });
    let (runner, encoded) = made.map_err(|error: RegisterError| match error {
        RegisterError::NameTaken(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
        RegisterError::NoGroup(_) => Refusal::new(StatusCode::NOT_FOUND, error.to_string()),
        RegisterError::Name | RegisterError::Labels(_) | RegisterError::NoLabels => {
            Refusal::invalid(error.to_string())
        }
    })?;
    let body = json!({ "runner": runner, "encoded_jit_config": encoded });
    Ok(Reply::with(StatusCode::CREATED, body))
}

/// A JIT configuration in GitHub's form: base64 of a JSON object of base64 files. The credential
/// in it is ours.
fn jit(links: &Links, runner: &Runner, credential: &str, work_folder: &str) -> String {
    let settings = json!({
        "AgentId": runner.id.to_string(),
        "AgentName": runner.name,
        "PoolId": runner.group.to_string(),
        "PoolName": "Default",
        "DisableUpdate": "True",
        "Ephemeral": "True",
        "ServerUrl": format!("{}/_runner", links.html),
        "GitHubUrl": "",
        "WorkFolder": work_folder,
        "UseV2Flow": "True",
    });
    let credentials = json!(Credentials {
        scheme: SCHEME.into(),
        data: CredentialData { token: credential.into() },
    });
    let files: BTreeMap<&str, String> = [(".runner", settings), (".credentials", credentials)]
        .into_iter()
        .map(|(name, file)| (name, STANDARD.encode(file.to_string())))
        .collect();
    STANDARD.encode(json!(files).to_string())
}

/// A runner as told; the `busy` flag may be a lie.
fn show(world: &mut World, id: RunnerId) -> Value {
    let lie = world.dice.lies_about_busy(&world.faults);
    let runner = &world.runners[&id];
    View::runner(runner, runner.busy() != lie)
}

fn organization<'a>(
    world: &'a World,
    principal: &Principal,
    login: &str,
    deed: Deed,
) -> Result<&'a Owner, Refusal> {
    let owner = principal.owner(world, login, Permission::OrganizationRunners, deed)?;
    match owner.kind {
        OwnerKind::Organization => Ok(owner),
        OwnerKind::User => Err(Refusal::not_found()),
    }
}

fn scope(world: &World, principal: &Principal, at: &At, deed: Deed) -> Result<Scope, Refusal> {
    match &at.repository {
        None => Ok(Scope::Organization(organization(world, principal, &at.owner, deed)?.id)),
        Some(name) => {
            let permission = Permission::Administration;
            let repository = principal.repository(world, &at.owner, name, permission, deed)?;
            Ok(Scope::Repository(repository.id))
        }
    }
}

fn find(
    world: &World,
    principal: &Principal,
    at: &At,
    id: u64,
    deed: Deed,
) -> Result<RunnerId, Refusal> {
    let scope = scope(world, principal, at, deed)?;
    let runner = world.runners.get(&RunnerId(id)).filter(|runner| runner.scope == scope);
    Ok(runner.ok_or_else(Refusal::not_found)?.id)
}

impl At {
    fn path(&self) -> String {
        match &self.repository {
            None => format!("/orgs/{}", self.owner),
            Some(repository) => format!("/repos/{}/{repository}", self.owner),
        }
    }
}

impl OneAt {
    fn split(self) -> (At, u64) {
        (At { owner: self.owner, repository: self.repository }, self.runner)
    }
}
