//! Repositories, short and long.

use serde_json::{Map, Value, json};

use super::View;
use crate::clock::iso;
use crate::config::{OwnerKind, Visibility};
use crate::id::RepositoryId;
use crate::world::Repository;

// Field and the rest of the URL under `/repos/{owner}/{repo}`.
const LINKS: [(&str, &str); 37] = [
    ("url", ""),
    ("forks_url", "/forks"),
    ("keys_url", "/keys{/key_id}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("teams_url", "/teams"),
    ("hooks_url", "/hooks"),
    ("issue_events_url", "/issues/events{/number}"),
    ("events_url", "/events"),
    ("assignees_url", "/assignees{/user}"),
    ("branches_url", "/branches{/branch}"),
    ("tags_url", "/tags"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("trees_url", "/git/trees{/sha}"),
    ("statuses_url", "/statuses/{sha}"),
    ("languages_url", "/languages"),
    ("stargazers_url", "/stargazers"),
    ("contributors_url", "/contributors"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("commits_url", "/commits{/sha}"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("comments_url", "/comments{/number}"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("contents_url", "/contents/{+path}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("merges_url", "/merges"),
    ("archive_url", "/{archive_format}{/ref}"),
    ("downloads_url", "/downloads"),
    ("issues_url", "/issues{/number}"),
    ("pulls_url", "/pulls{/number}"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("labels_url", "/labels{/name}"),
    ("releases_url", "/releases{/id}"),
    ("deployments_url", "/deployments"),
];

impl View<'_> {
    /// `owner/name`.
    pub(crate) fn full_name(&self, id: RepositoryId) -> String {
        let repository = &self.world.repositories[&id];
        format!("{}/{}", self.world.owners[&repository.owner].login, repository.name)
    }

    /// The repository's URL under REST.
    pub(crate) fn repository_url(&self, id: RepositoryId) -> String {
        format!("{}/repos/{}", self.links.api, self.full_name(id))
    }

    /// A repository as runs embed it.
    pub(crate) fn minimal_repository(&self, repository: &Repository) -> Value {
        Value::Object(self.core(repository))
    }

    /// A repository as webhooks and `/installation/repositories` hold it.
    pub(crate) fn repository(&self, repository: &Repository) -> Value {
        let mut all = self.core(repository);
        let html = format!("{}/{}", self.links.html, self.full_name(repository.id));
        let created_at = iso(repository.created_at);
        let public = repository.visibility == Visibility::Public;
        let more = json!({
            "created_at": created_at,
            "updated_at": created_at,
            "pushed_at": created_at,
            "git_url": html.replacen("http", "git", 1) + ".git",
            "ssh_url": format!("git@sandbox:{}.git", self.full_name(repository.id)),
            "clone_url": format!("{html}.git"),
            "svn_url": html,
            "homepage": null,
            "size": 0,
            "stargazers_count": 0,
            "watchers_count": 0,
            "language": null,
            "has_issues": true,
            "has_projects": true,
            "has_downloads": true,
            "has_wiki": true,
            "has_pages": false,
            "has_discussions": false,
            "forks_count": 0,
            "mirror_url": null,
            "archived": false,
            "disabled": false,
            "open_issues_count": 0,
            "license": null,
            "allow_forking": true,
            "is_template": false,
            "web_commit_signoff_required": false,
            "topics": [],
            "visibility": if public { "public" } else { "private" },
            "forks": 0,
            "open_issues": 0,
            "watchers": 0,
            "default_branch": "main",
            "custom_properties": {},
        });
        all.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    }

    /// A repository as `GET /repos/{owner}/{repo}` gives it.
    pub(crate) fn full_repository(&self, repository: &Repository) -> Value {
        let mut all = self.repository(repository);
        all["network_count"] = json!(0);
        all["subscribers_count"] = json!(0);
        let owner = &self.world.owners[&repository.owner];
        if owner.kind == OwnerKind::Organization {
            all["organization"] = self.user(owner);
        }
        all
    }

    fn core(&self, repository: &Repository) -> Map<String, Value> {
        let base = self.repository_url(repository.id);
        let mut core: Map<String, Value> = LINKS
            .iter()
            .map(|(field, rest)| ((*field).to_string(), json!(format!("{base}{rest}"))))
            .collect();
        let full_name = self.full_name(repository.id);
        let head = json!({
            "id": repository.id,
            "node_id": format!("R_{}", repository.id),
            "name": repository.name,
            "private": repository.visibility == Visibility::Private,
            "owner": self.user(&self.world.owners[&repository.owner]),
            "html_url": format!("{}/{full_name}", self.links.html),
            "full_name": full_name,
            "description": null,
            "fork": false,
        });
        core.extend(head.as_object().cloned().unwrap_or_default());
        core
    }
}
