//! Runners and runner groups.

use serde_json::{Value, json};

use super::View;
use crate::world::{Group, GroupVisibility, Owner, Presence, Runner};

impl View<'_> {
    /// A runner; `busy` is told apart because a fault may lie about it.
    pub(crate) fn runner(runner: &Runner, busy: bool) -> Value {
        let labels: Vec<Value> = runner
            .labels
            .iter()
            .enumerate()
            .map(|(index, label)| {
                json!({ "id": index + 1, "name": label.as_str(), "type": "custom" })
            })
            .collect();
        let status = match runner.presence {
            Presence::Offline => "offline",
            Presence::Online { .. } => "online",
        };
        json!({
            "id": runner.id,
            "runner_group_id": runner.group,
            "name": runner.name,
            "os": runner.os,
            "status": status,
            "busy": busy,
            "ephemeral": true,
            "labels": labels,
        })
    }

    pub(crate) fn group(&self, owner: &Owner, group: &Group) -> Value {
        let url =
            format!("{}/orgs/{}/actions/runner-groups/{}", self.links.api, owner.login, group.id);
        let visibility = match group.visibility {
            GroupVisibility::All => "all",
            GroupVisibility::Private => "private",
            GroupVisibility::Selected(_) => "selected",
        };
        let mut all = json!({
            "id": group.id,
            "name": group.name,
            "visibility": visibility,
            "default": group.id.0 == 1,
            "runners_url": format!("{url}/runners"),
            "hosted_runners_url": format!("{url}/hosted-runners"),
            "inherited": false,
            "allows_public_repositories": group.allows_public,
            "restricted_to_workflows": false,
            "selected_workflows": [],
            "workflow_restrictions_read_only": false,
        });
        if let GroupVisibility::Selected(_) = group.visibility {
            all["selected_repositories_url"] = json!(format!("{url}/repositories"));
        }
        all
    }
}
