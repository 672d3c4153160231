//! What the fake answers to those who bear a token.

use super::{Method, Reply, Repo, Runner, Seen, StatusCode, Token, Value, World, json};
use super::{refuse, reply};

/// An owner's number: GitHub's are as unrelated to the name.
pub(crate) fn owner_id(login: &str) -> u64 {
    login.bytes().fold(7, |id, byte| id * 31 + u64::from(byte)) % 1_000_000
}

impl World {
    pub(super) fn as_token(&mut self, seen: &Seen, token: &Token, parts: &[&str]) -> Reply {
        if let Some(refused) = Self::forbidden(token, parts) {
            return refused;
        }
        match (&seen.method, parts) {
            (&Method::GET, ["installation", "repositories"]) => {
                let visible =
                    |repo: &&Repo| repo.owner == token.owner && selected(token, repo.name);
                let all = self.repositories.iter().filter(visible).map(|r| self.shown(r)).collect();
                self.page(seen, "repositories", all)
            }
            (&Method::GET, ["orgs", org, "repos"]) => {
                let all = self.repositories.iter().filter(|repo| repo.owner == *org);
                let all = all.map(|repo| self.shown(repo)).collect();
                self.page(seen, "", all)
            }
            (_, ["orgs" | "enterprises", _, "actions", "runner-groups"]) => {
                self.runner_groups(seen, &parts[..2].join("/"))
            }
            (_, ["orgs" | "enterprises", _, "actions", "runners", rest @ ..]) => {
                self.runners_at(seen, &parts[..2].join("/"), rest)
            }
            (_, ["repos", _, _, "actions", "runners", rest @ ..]) => {
                self.runners_at(seen, &parts[..3].join("/"), rest)
            }
            (&Method::GET, ["repos", owner, name, rest @ ..]) => {
                let Some(repo) = self.find(owner, name) else { return refuse(404, "Not Found") };
                self.repository(seen, repo, rest)
            }
            _ => refuse(404, "Not Found"),
        }
    }

    /// GitHub's rules: 404 for what a token may not know of, 403 for what it may not do.
    fn forbidden(token: &Token, parts: &[&str]) -> Option<Reply> {
        if token.installation == 0 {
            return None;
        }
        let (owner, wanted) = match parts {
            ["orgs", org, ..] => (*org, "organization_self_hosted_runners"),
            ["repos", owner, name, rest @ ..] => {
                if !selected(token, name) {
                    return Some(refuse(404, "Not Found"));
                }
                match rest {
                    ["actions", "runners", ..] => (*owner, "administration"),
                    ["actions", ..] => (*owner, "actions"),
                    _ => (*owner, "metadata"),
                }
            }
            ["installation", ..] => (token.owner, "metadata"),
            _ => return Some(refuse(404, "Not Found")),
        };
        if owner != token.owner {
            return Some(refuse(404, "Not Found"));
        }
        let may = token.permissions.contains_key(wanted);
        (!may).then(|| refuse(403, "Resource not accessible by integration"))
    }

    fn runner_groups(&mut self, seen: &Seen, at: &str) -> Reply {
        if seen.method == Method::GET {
            let groups = self.groups.get(at).into_iter().flatten();
            let all = groups.map(|(id, name, _)| json!({"id": id, "name": name})).collect();
            return self.page(seen, "runner_groups", all);
        }
        let name = seen.body["name"].as_str().unwrap().to_owned();
        if let Some(raced) = self.race.take() {
            let id = self.id();
            self.groups.entry(at.into()).or_default().push((id, raced, Value::Null));
        }
        let id = self.id();
        let groups = self.groups.entry(at.into()).or_default();
        if groups.iter().any(|(_, taken, _)| *taken == name) {
            return refuse(409, "Runner group with this name already exists");
        }
        groups.push((id, name.clone(), seen.body.clone()));
        reply(StatusCode::CREATED, &json!({"id": id, "name": name}))
    }

    fn runners_at(&mut self, seen: &Seen, at: &str, rest: &[&str]) -> Reply {
        match (&seen.method, rest) {
            (&Method::GET, []) => {
                let named = |runner: &&Runner| {
                    let wanted = seen.query.get("name").filter(|_| !self.unfiltered);
                    wanted.is_none_or(|name| *name == runner.name)
                };
                let shown = |runner: &Runner| {
                    let status = if runner.online { "online" } else { "offline" };
                    json!({
                        "id": runner.id, "name": runner.name, "os": "linux",
                        "status": status, "busy": runner.busy,
                    })
                };
                let all = self.runners.get(at).into_iter().flatten();
                let all = all.filter(named).map(shown).collect();
                self.page(seen, "runners", all)
            }
            (&Method::POST, ["generate-jitconfig"]) => self.generate_jitconfig(seen, at),
            (&Method::DELETE, [id]) => {
                let runners = self.runners.entry(at.into()).or_default();
                match runners.iter().position(|runner| runner.id.to_string() == *id) {
                    None => refuse(404, "Not Found"),
                    Some(place) if runners[place].busy => {
                        refuse(422, "Runner is currently running a job and cannot be deleted.")
                    }
                    Some(place) => {
                        runners.remove(place);
                        reply(StatusCode::NO_CONTENT, &Value::Null)
                    }
                }
            }
            _ => refuse(404, "Not Found"),
        }
    }

    fn generate_jitconfig(&mut self, seen: &Seen, at: &str) -> Reply {
        let name = seen.body["name"].as_str().unwrap().to_owned();
        let group = seen.body["runner_group_id"].as_u64().unwrap();
        let labels: Vec<String> = serde_json::from_value(seen.body["labels"].clone()).unwrap();
        let grouped = self.groups.get(at).into_iter().flatten().any(|(id, ..)| *id == group);
        if group != 1 && !grouped {
            return refuse(404, "Not Found");
        }
        if labels.is_empty() {
            return refuse(422, "Validation Failed");
        }
        let id = self.id();
        let runners = self.runners.entry(at.into()).or_default();
        if runners.iter().any(|runner| runner.name == name) {
            return refuse(409, "Already exists - A runner with the name already exists.");
        }
        let jit = format!("jit-of-{name}");
        runners.push(Runner { id, name, group, labels, online: false, busy: false });
        reply(StatusCode::CREATED, &json!({"runner": {"id": id}, "encoded_jit_config": jit}))
    }

    fn repository(&self, seen: &Seen, repo: &Repo, rest: &[&str]) -> Reply {
        let run = |id: &str| repo.runs.iter().find(|run| run.id.to_string() == id);
        match rest {
            [] => reply(StatusCode::OK, &self.shown(repo)),
            ["actions", "runs"] => {
                let status = seen.query.get("status").cloned().unwrap_or_default();
                let runs = repo.runs.iter().filter(|run| run.status == status);
                let shown = |id: u64| json!({"id": id, "repository": self.shown(repo)});
                self.page(seen, "workflow_runs", runs.map(|run| shown(run.id)).collect())
            }
            ["actions", "runs", id, "jobs"] => match run(id) {
                Some(run) => self.page(seen, "jobs", run.jobs.clone()),
                None => refuse(404, "Not Found"),
            },
            ["actions", "jobs", id] => {
                let mut jobs = repo.runs.iter().flat_map(|run| &run.jobs);
                match jobs.find(|job| job["id"].as_u64() == id.parse().ok()) {
                    Some(job) => reply(StatusCode::OK, job),
                    None => refuse(404, "Not Found"),
                }
            }
            _ => refuse(404, "Not Found"),
        }
    }

    fn shown(&self, repo: &Repo) -> Value {
        let kind = if self.users.contains(repo.owner) { "User" } else { "Organization" };
        json!({
            "name": repo.name,
            "archived": repo.archived,
            "owner": {"login": repo.owner, "id": owner_id(repo.owner), "type": kind},
        })
    }

    /// A page of a listing, in the wrapper of this name.
    fn page(&self, seen: &Seen, wrapper: &str, all: Vec<Value>) -> Reply {
        let number = |name: &str, usual: usize| {
            seen.query.get(name).map_or(usual, |text| text.parse().unwrap())
        };
        let (size, page) = (number("per_page", 30).min(100), number("page", 1));
        let total = all.len();
        let items: Vec<Value> = all.into_iter().skip(size * (page - 1)).take(size).collect();
        let body = if wrapper.is_empty() {
            Value::from(items)
        } else {
            json!({"total_count": total, wrapper: items})
        };
        let mut made = reply(StatusCode::OK, &body);
        if total > size && !self.linkless {
            let next = if size * page < total { "next" } else { "prev" };
            let link = format!("<http://elsewhere.invalid{}?page=9>; rel=\"{next}\"", seen.path);
            made.headers.push(("link".into(), link));
        }
        made
    }
}

fn selected(token: &Token, name: &str) -> bool {
    token.selected.as_ref().is_none_or(|all| all.contains(name))
}
