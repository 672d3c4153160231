//! Registrations: made for one job each, listed, removed; and the groups they join.

use http::StatusCode;
use remuda_core::action::Launch;
use remuda_core::label::Label;
use remuda_core::name::{GroupName, RunnerName};
use remuda_core::observation::RunnerSeen;
use remuda_core::tenant::Scope;
use serde::Deserialize;
use serde_json::json;

use super::auth::Access;
use super::rest::{Ask, Page};
use super::{GitHub, scope_path};
use crate::cache::Got;
use crate::{Effect, ForgeError, Registered, Removal};

/// The group of a repository's runners. The API wants the number, though there is no other.
const REPOSITORY_GROUP: u64 = 1;

#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    busy: bool,
}

#[derive(Deserialize)]
struct Runners {
    runners: Vec<Runner>,
}

impl Page for Runners {
    type Item = Runner;
    fn items(self) -> Vec<Runner> {
        self.runners
    }
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Groups {
    runner_groups: Vec<Group>,
}

impl Page for Groups {
    type Item = Group;
    fn items(self) -> Vec<Group> {
        self.runner_groups
    }
}

impl GitHub {
    pub(super) async fn register_as(
        &self,
        access: Access,
        launch: &Launch,
    ) -> Result<Registered, ForgeError> {
        #[derive(Deserialize)]
        struct Made {
            runner: Id,
            encoded_jit_config: String,
        }
        #[derive(Deserialize)]
        struct Id {
            id: u64,
        }
        let scope = &launch.scope;
        let name = launch.group.as_ref().unwrap_or(&self.group);
        let group = match scope {
            Scope::Repository(_) => Got::Made(REPOSITORY_GROUP),
            Scope::Organization(_) | Scope::Enterprise(_) => {
                let group = (scope.clone(), name.clone());
                self.groups.get(&group, |_| true, self.group(&access, scope, name)).await?
            }
        };
        let labels: Vec<&str> = launch.labels.iter().map(Label::as_str).collect();
        let body = json!({
            "name": launch.name.as_str(),
            "runner_group_id": group.into_inner(),
            "labels": labels,
        });
        let path = format!("{}/actions/runners/generate-jitconfig", scope_path(scope)?);
        let ask = Ask::post(path, body, Effect::Possible);
        if self.rest.now() >= launch.deadline {
            return Err(ForgeError::TooLate { call: ask.name() });
        }
        let answer = self.send(&access, &ask).await?;
        if answer.status == StatusCode::CONFLICT {
            return Err(ForgeError::NameTaken { name: launch.name.clone(), scope: scope.clone() });
        }
        if answer.status == StatusCode::NOT_FOUND {
            self.groups.forget(&(scope.clone(), name.clone()));
            if let Got::Remembered(_) = group {
                return Err(ForgeError::Stale { call: ask.name(), what: "the runner group" });
            }
        }
        let made: Made = answer.read_secret(&ask)?;
        Ok(Registered { id: made.runner.id, jit: made.encoded_jit_config.into() })
    }

    /// The number of a group, which is made if there is none of that name.
    async fn group(
        &self,
        access: &Access,
        scope: &Scope,
        name: &GroupName,
    ) -> Result<u64, ForgeError> {
        let path = format!("{}/actions/runner-groups", scope_path(scope)?);
        match self.find_group(access, &path, name).await? {
            Some(id) => Ok(id),
            None => self.make_group(access, path, name).await,
        }
    }

    async fn find_group(
        &self,
        access: &Access,
        path: &str,
        name: &GroupName,
    ) -> Result<Option<u64>, ForgeError> {
        let groups = self.pages::<Groups>(access, Ask::get(path.into())).await?;
        Ok(groups.into_iter().find(|group| group.name == name.as_str()).map(|group| group.id))
    }

    async fn make_group(
        &self,
        access: &Access,
        path: String,
        name: &GroupName,
    ) -> Result<u64, ForgeError> {
        let body = json!({
            "name": name.as_str(),
            "visibility": "all",
            // False is GitHub's default, and would leave the jobs of public repositories queued.
            "allows_public_repositories": true,
        });
        // An unanswered request may have made the group; the next one will find it.
        let ask = Ask::post(path.clone(), body, Effect::None);
        let answer = self.send(access, &ask).await?;
        if answer.status == StatusCode::CONFLICT {
            // Somebody was faster, another replica perhaps.
            let found = self.find_group(access, &path, name).await?;
            return found.ok_or_else(|| answer.refused(&ask));
        }
        Ok(answer.read::<Group>(&ask)?.id)
    }

    /// A 404 alone proves nothing: GitHub answers so too where a credential may not look. It counts
    /// once the same credential can list the scope and the name is not there.
    pub(super) async fn deregister_as(
        &self,
        access: Access,
        scope: &Scope,
        name: &RunnerName,
        id: Option<u64>,
    ) -> Result<Removal, ForgeError> {
        if let Some(id) = id
            && let Some(removal) = self.delete(&access, scope, id).await?
        {
            return Ok(removal);
        }
        match self.find_runner(&access, scope, name).await? {
            None => Ok(Removal::Removed),
            Some(found) => {
                let ask = delete(scope, found)?;
                let contradiction = || ask.broken("the runner is listed and yet not found");
                self.delete(&access, scope, found).await?.ok_or_else(contradiction)
            }
        }
    }

    /// `None` if there is no registration of that id, or none that we may see.
    async fn delete(
        &self,
        access: &Access,
        scope: &Scope,
        id: u64,
    ) -> Result<Option<Removal>, ForgeError> {
        let ask = delete(scope, id)?;
        let answer = self.send(access, &ask).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(Removal::Removed)),
            // "Bad request - Runner "x" is still running a job" and "… is currently running a job and
            // cannot be deleted" have both been seen.
            StatusCode::UNPROCESSABLE_ENTITY if answer.message().contains("running a job") => {
                Ok(Some(Removal::Busy))
            }
            _ => Err(answer.refused(&ask)),
        }
    }

    async fn find_runner(
        &self,
        access: &Access,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<u64>, ForgeError> {
        let ask = list(scope)?.with("name", name.as_str());
        let runners = self.pages::<Runners>(access, ask).await?;
        // Enterprise Server before 3.12 does not know the filter, and answers with all.
        Ok(runners.into_iter().find(|runner| runner.name == name.as_str()).map(|runner| runner.id))
    }

    pub(super) async fn runners_as(
        &self,
        access: Access,
        scope: &Scope,
    ) -> Result<Vec<RunnerSeen>, ForgeError> {
        let runners = self.pages::<Runners>(&access, list(scope)?).await?;
        let seen = |runner: Runner| {
            // Others may call theirs what they like; one we could not write down is not ours.
            let name = RunnerName::new(&runner.name).ok()?;
            let online = runner.status == "online";
            Some((runner.id, RunnerSeen { id: runner.id, name, online, busy: runner.busy }))
        };
        // A runner registered while we read pushes others to the next page: they come twice.
        let by_id: std::collections::BTreeMap<_, _> =
            runners.into_iter().filter_map(seen).collect();
        Ok(by_id.into_values().collect())
    }
}

fn list(scope: &Scope) -> Result<Ask, ForgeError> {
    Ok(Ask::get(format!("{}/actions/runners", scope_path(scope)?)))
}

fn delete(scope: &Scope, id: u64) -> Result<Ask, ForgeError> {
    Ok(Ask::delete(format!("{}/actions/runners/{id}", scope_path(scope)?)))
}
