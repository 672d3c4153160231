//! Repositories: of an installation, of an organization, one.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::middle::{Deed, Permission};
use super::reply::{Query, Refusal, Reply, paged};
use crate::gate::Principal;
use crate::shared::Shared;

type Answer = Result<Reply, Refusal>;
type Sandbox = State<Arc<Shared>>;

pub(super) async fn of_installation(
    State(shared): Sandbox,
    principal: Principal,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let owner = principal.installation(view.world)?.owner;
        let all = view.world.repositories_of(owner).map(|one| view.repository(one)).collect();
        let path = format!("{}/installation/repositories", view.links.api);
        Ok(paged(all, &path, &query, |items, total| {
            json!({
                "total_count": total, "repository_selection": "all", "repositories": items,
            })
        }))
    })
}

pub(super) async fn of_organization(
    State(shared): Sandbox,
    principal: Principal,
    Path(login): Path<String>,
    query: Query,
) -> Answer {
    shared.read(|view| {
        let owner = principal.owner(view.world, &login, Permission::Metadata, Deed::Read)?;
        let repositories = view.world.repositories_of(owner.id);
        let all = repositories.map(|one| view.minimal_repository(one)).collect();
        let path = format!("{}/orgs/{login}/repos", view.links.api);
        Ok(paged(all, &path, &query, |items, _| Value::Array(items)))
    })
}

pub(super) async fn get(
    State(shared): Sandbox,
    principal: Principal,
    Path((owner, name)): Path<(String, String)>,
) -> Answer {
    shared.read(|view| {
        let repository =
            principal.repository(view.world, &owner, &name, Permission::Metadata, Deed::Read)?;
        Ok(Reply::ok(view.full_repository(repository)))
    })
}
