//! Apps, installations, webhooks and their pings.

use remuda_core::Timestamp;
use serde_json::{Value, json};

use super::View;
use crate::clock::iso;
use crate::config::OwnerKind;
use crate::world::{App, Hook, HookAt, Installation};

impl View<'_> {
    pub(crate) fn app(&self, app: &App) -> Value {
        let id = app.config.id;
        let at = iso(app.created_at);
        json!({
            "id": id,
            "slug": format!("app-{id}"),
            "client_id": format!("Iv1.{:016x}", id.0),
            "node_id": format!("A_{id}"),
            "owner": self.sender(),
            "name": format!("app-{id}"),
            "description": null,
            "external_url": self.links.html,
            "html_url": format!("{}/apps/app-{id}", self.links.html),
            "created_at": at,
            "updated_at": at,
            "permissions": app.config.permissions,
            "events": ["workflow_job"],
            "installations_count": self
                .world
                .installations
                .values()
                .filter(|installation| installation.app == id)
                .count(),
        })
    }

    pub(crate) fn installation(&self, installation: &Installation) -> Value {
        let owner = &self.world.owners[&installation.owner];
        let app = &self.world.apps[&installation.app];
        let (id, login) = (installation.id, &owner.login);
        let at = iso(installation.created_at);
        let (kind, place) = match owner.kind {
            OwnerKind::Organization => ("Organization", format!("organizations/{login}/")),
            OwnerKind::User => ("User", String::new()),
        };
        json!({
            "id": id,
            "client_id": format!("Iv1.{:016x}", app.config.id.0),
            "account": self.user(owner),
            "repository_selection": "all",
            "access_tokens_url":
                format!("{}/app/installations/{id}/access_tokens", self.links.api),
            "repositories_url": format!("{}/installation/repositories", self.links.api),
            "html_url": format!("{}/{place}settings/installations/{id}", self.links.html),
            "app_id": app.config.id,
            "app_slug": format!("app-{}", app.config.id),
            "target_id": owner.id,
            "target_type": kind,
            "permissions": app.config.permissions,
            "events": ["workflow_job"],
            "created_at": at,
            "updated_at": at,
            "single_file_name": null,
            "has_multiple_single_files": false,
            "single_file_paths": [],
            "suspended_by": null,
            "suspended_at": null,
        })
    }

    pub(crate) fn installation_token(
        &self,
        token: &str,
        expires_at: Timestamp,
        installation: &Installation,
    ) -> Value {
        json!({
            "token": token,
            "expires_at": iso(expires_at),
            "permissions": self.world.apps[&installation.app].config.permissions,
            "repository_selection": "all",
        })
    }

    /// A webhook as the routes under `/hooks` give it; its secret as stars, as at GitHub.
    pub(crate) fn hook(&self, hook: &Hook) -> Value {
        let mut all = self.hook_head(hook);
        all["config"]["secret"] = json!("********");
        all["last_response"] = json!({ "code": null, "status": "unused", "message": null });
        all
    }

    /// The body of the `ping` a new webhook gets.
    pub(crate) fn ping(&self, hook: &Hook) -> Value {
        let mut body = json!({
            "zen": "Practicality beats purity.",
            "hook_id": hook.id,
            "hook": self.hook_head(hook),
        });
        match hook.at {
            HookAt::App(app) => body["hook"]["app_id"] = json!(app),
            HookAt::Organization(owner) => {
                body["organization"] = self.organization(&self.world.owners[&owner]);
                body["sender"] = self.sender();
            }
            HookAt::Repository(id) => {
                body["repository"] = self.repository(&self.world.repositories[&id]);
                body["sender"] = self.sender();
            }
        }
        body
    }

    fn hook_head(&self, hook: &Hook) -> Value {
        let kind = match hook.at {
            HookAt::App(_) => "App",
            HookAt::Organization(_) => "Organization",
            HookAt::Repository(_) => "Repository",
        };
        let url = format!("{}{}", self.links.api, self.hook_path(hook));
        let at = iso(hook.created_at);
        let mut head = json!({
            "type": kind,
            "id": hook.id,
            "name": "web",
            "active": true,
            "events": ["workflow_job"],
            "config": { "content_type": "json", "insecure_ssl": "0", "url": hook.url },
            "updated_at": at,
            "created_at": at,
            "url": url,
            "ping_url": format!("{url}/pings"),
            "deliveries_url": format!("{url}/deliveries"),
        });
        if let HookAt::Repository(_) = hook.at {
            head["test_url"] = json!(format!("{url}/test"));
        }
        head
    }
}
