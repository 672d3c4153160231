//! The world in GitHub's JSON. Only shapes: nothing here decides anything.
//!
//! The shapes are held to GitHub's own descriptions by `tests/github/conformance.rs`.

mod account;
mod job;
mod repository;
mod runner;

use serde_json::{Value, json};

use crate::config::OwnerKind;
use crate::world::{Hook, HookAt, Owner, World};

/// The bases of the URLs that answers hold.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// Of pages, such as `http://127.0.0.1:4000`.
    pub(crate) html: String,
    /// Of REST, such as `http://127.0.0.1:4000/api/v3`.
    pub(crate) api: String,
}

impl Links {
    pub(crate) fn new(base: &str) -> Self {
        Self { html: base.into(), api: format!("{base}/api/v3") }
    }
}

/// The world and where it is served.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) links: &'a Links,
}

impl View<'_> {
    /// An account as GitHub embeds it everywhere.
    pub(crate) fn user(&self, owner: &Owner) -> Value {
        let kind = match owner.kind {
            OwnerKind::Organization => "Organization",
            OwnerKind::User => "User",
        };
        self.account(&owner.login, owner.id.0, kind)
    }

    /// Who triggers everything here: nobody in particular.
    pub(crate) fn sender(&self) -> Value {
        self.account("sandbox", 1, "User")
    }

    fn account(&self, login: &str, id: u64, kind: &str) -> Value {
        let Links { html, api } = self.links;
        let of = |rest: &str| format!("{api}/users/{login}{rest}");
        json!({
            "login": login,
            "id": id,
            "node_id": format!("U_{id}"),
            "avatar_url": format!("{html}/avatars/u/{id}"),
            "gravatar_id": "",
            "url": of(""),
            "html_url": format!("{html}/{login}"),
            "followers_url": of("/followers"),
            "following_url": of("/following{/other_user}"),
            "gists_url": of("/gists{/gist_id}"),
            "starred_url": of("/starred{/owner}{/repo}"),
            "subscriptions_url": of("/subscriptions"),
            "organizations_url": of("/orgs"),
            "repos_url": of("/repos"),
            "events_url": of("/events{/privacy}"),
            "received_events_url": of("/received_events"),
            "type": kind,
            "site_admin": false,
        })
    }

    /// An organization as webhooks name it.
    pub(crate) fn organization(&self, owner: &Owner) -> Value {
        let Links { html, api } = self.links;
        let (login, id) = (&owner.login, owner.id);
        let of = |rest: &str| format!("{api}/orgs/{login}{rest}");
        json!({
            "login": login,
            "id": id,
            "node_id": format!("O_{id}"),
            "url": of(""),
            "repos_url": of("/repos"),
            "events_url": of("/events"),
            "hooks_url": of("/hooks"),
            "issues_url": of("/issues"),
            "members_url": of("/members{/member}"),
            "public_members_url": of("/public_members{/member}"),
            "avatar_url": format!("{html}/avatars/u/{id}"),
            "description": "",
        })
    }

    /// The path under which a webhook is managed, without the base.
    pub(crate) fn hook_path(&self, hook: &Hook) -> String {
        match hook.at {
            HookAt::App(_) => "/app/hook".into(),
            HookAt::Organization(owner) => {
                format!("/orgs/{}/hooks/{}", self.world.owners[&owner].login, hook.id)
            }
            HookAt::Repository(id) => format!("/repos/{}/hooks/{}", self.full_name(id), hook.id),
        }
    }
}
