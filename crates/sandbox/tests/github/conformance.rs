//! Every route, in success and in error, and every webhook, held to GitHub's own descriptions.

use std::collections::BTreeSet;
use std::sync::Mutex;

use http::Method;
use remuda_sandbox::{Family, Faults, Hook, RestFaults, Sandbox};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::{Answer, Caller, app, config, installation, receiver, register, run};
use super::described::{Operation, Rest, Webhooks, rest};

/// A caller whose every exchange is checked against the description.
struct Checked<'a> {
    caller: Caller,
    rest: &'a Rest,
    seen: &'a Mutex<BTreeSet<(Operation, u16)>>,
}

impl Checked<'_> {
    async fn send(&self, method: Method, path: &str, body: Option<Value>, expected: u16) -> Answer {
        let bare = path.split('?').next().unwrap();
        let place = format!("{method} {path}");
        let operation = self.rest.operation(method.as_str(), bare);
        let operation = operation.unwrap_or_else(|| panic!("GitHub has no {place}"));
        let answer = self.caller.send(method, path, body.clone()).await;
        let status = answer.status.as_u16();
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(status, expected, "{place} answered {shown}");
        if let (200..=299, Some(body)) = (status, &body) {
            let problems = self.rest.request_problems(&operation, body);
            assert_eq!(problems, [""; 0], "{place} was asked {body}");
        }
        let body = (!answer.body.is_empty()).then(|| answer.json());
        let problems = self.rest.problems(&operation, status, body.as_ref());
        assert_eq!(problems, [""; 0], "{place} answered {status} {shown}");
        self.seen.lock().unwrap().insert((operation, status));
        answer
    }

    async fn get(&self, path: &str, expected: u16) -> Value {
        self.send(Method::GET, path, None, expected).await.json()
    }

    async fn post(&self, path: &str, body: Value, expected: u16) -> Value {
        self.send(Method::POST, path, Some(body), expected).await.json()
    }

    async fn delete(&self, path: &str, expected: u16) {
        self.send(Method::DELETE, path, None, expected).await;
    }
}

const GATED: &str = "jobs:
  a: { runs-on: x, steps: [{ run: 'true' }, { if: false, run: 'true' }] }
  b: { runs-on: x, environment: e, needs: a, steps: [{ run: 'false' }] }
  c: { runs-on: x, needs: b, steps: [{ run: 'true' }] }";

#[tokio::test]
async fn every_answer_and_every_webhook_is_one_that_github_describes() {
    let mut tasks = JoinSet::new();
    let (url, received) = receiver(&mut tasks).await;
    let mut config = config();
    config.apps[0].webhook_url = Some(url.clone());
    config.apps[0].webhook_secret = "s".to_string().into();
    let hook = |owner: &str, repository: Option<&str>| Hook {
        url: url.clone(),
        secret: "s".to_string().into(),
        owner: owner.into(),
        repository: repository.map(Into::into),
    };
    config.webhooks = vec![hook("acme", None), hook("ann", Some("tool"))];
    let sandbox = Sandbox::start(config).await.unwrap();
    let rest = rest();
    let seen = Mutex::default();
    let as_caller = |caller| Checked { caller, rest, seen: &seen };
    let app = as_caller(app(&sandbox));
    let acme = as_caller(installation(&sandbox, "acme").await);
    let ann = as_caller(installation(&sandbox, "ann").await);
    let nobody = as_caller(Caller::new(&sandbox.url(), None));

    drive_app(&app, &acme, &nobody).await;
    drive_runners(&acme, &nobody, "/orgs/acme").await;
    drive_runners(&ann, &nobody, "/repos/ann/tool").await;
    drive_groups(&acme, &ann).await;
    drive_runs(&sandbox, &acme, "/repos/acme/app").await;
    drive_hooks(&acme, "/orgs/acme", &url).await;
    drive_hooks(&ann, "/repos/ann/tool", &url).await;
    sandbox.wait_until(|statistics| statistics.deliveries.pending == 0).await;
    for (caller, base) in [
        (&app, "/app/hook".to_string()),
        (&acme, first_hook(&acme, "/orgs/acme").await),
        (&ann, first_hook(&ann, "/repos/ann/tool").await),
    ] {
        drive_deliveries(&sandbox, caller, &base).await;
    }
    drive_faults(&sandbox, &acme).await;

    let driven: BTreeSet<Operation> = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, status)| *status < 400)
        .map(|(operation, _)| operation.clone())
        .collect();
    let missed: Vec<_> = rest.operations().difference(&driven).cloned().collect();
    assert_eq!(missed, [], "never served with success");

    let webhooks = Webhooks::load();
    let mut names = BTreeSet::new();
    for (headers, body) in received.lock().unwrap().iter() {
        let (name, problems) = webhooks.problems(&headers["x-github-event"], body);
        assert_eq!(problems, [""; 0], "{name}: {body}");
        names.insert(name);
    }
    assert_eq!(names, webhooks.names(), "every webhook was sent");
    sandbox.close().await;
    tasks.shutdown().await;
}

async fn drive_app(app: &Checked<'_>, acme: &Checked<'_>, nobody: &Checked<'_>) {
    app.get("/app", 200).await;
    nobody.get("/app", 401).await;
    acme.get("/app", 401).await;
    let all = app.get("/app/installations?per_page=1", 200).await;
    assert_eq!(all.as_array().unwrap().len(), 1);
    let id = &app.get("/orgs/acme/installation", 200).await["id"];
    app.get("/users/ann/installation", 200).await;
    app.get("/repos/acme/app/installation", 200).await;
    app.get("/orgs/ann/installation", 404).await;
    app.get("/orgs/nobody/installation", 404).await;
    app.get(&format!("/app/installations/{id}"), 200).await;
    app.get("/app/installations/1", 404).await;
    let path = format!("/app/installations/{id}/access_tokens");
    app.post(&path, json!({ "repositories": ["app"] }), 201).await;
    nobody.post(&path, json!({}), 401).await;
    app.post("/app/installations/1/access_tokens", json!({}), 404).await;
    let list = acme.get("/installation/repositories", 200).await;
    assert_eq!(list["repositories"][0]["full_name"], "acme/app");
    nobody.get("/installation/repositories", 401).await;
    acme.get("/orgs/acme/repos", 200).await;
    acme.get("/orgs/ann/repos", 404).await;
    acme.get("/repos/acme/app", 200).await;
    acme.get("/repos/ann/tool", 404).await;
    acme.get("/rate_limit", 200).await;
    nobody.get("/rate_limit", 200).await;
}

async fn drive_runners(caller: &Checked<'_>, nobody: &Checked<'_>, at: &str) {
    let base = format!("{at}/actions/runners");
    let generate = format!("{base}/generate-jitconfig");
    let new = |name: &str, group: u64, labels: &[&str]| json!({ "name": name, "runner_group_id": group, "labels": labels, "work_folder": "_work" });
    let made = caller.post(&generate, new("one", 1, &["X", "y"]), 201).await;
    caller.post(&generate, new("ONE", 1, &["x"]), 409).await;
    caller.post(&generate, new("two", 99, &["x"]), 404).await;
    caller.post(&generate, new("two", 2, &["x"]), 403).await;
    caller.post(&generate, new("two", 1, &[]), 422).await;
    caller.post(&generate, json!({ "name": "two", "labels": ["x"] }), 422).await;
    nobody.post(&generate, new("two", 1, &["x"]), 401).await;
    let list = caller.get(&format!("{base}?name=one"), 200).await;
    assert_eq!(
        (&list["total_count"], &list["runners"][0]["labels"][0]["name"]),
        (&json!(1), &json!("x"))
    );
    let one = format!("{base}/{}", made["runner"]["id"]);
    caller.get(&one, 200).await;
    caller.get(&format!("{base}/99999"), 404).await;
    nobody.get(&base, 401).await;
    caller.delete(&one, 204).await;
    caller.delete(&one, 404).await;
}

async fn drive_groups(acme: &Checked<'_>, ann: &Checked<'_>) {
    let base = "/orgs/acme/actions/runner-groups";
    let new = json!({ "name": "Fast", "visibility": "selected", "selected_repository_ids": [1] });
    let made = acme.post(base, new.clone(), 201).await;
    acme.post(base, new, 409).await;
    let list = acme.get(base, 200).await;
    assert_eq!(list["total_count"], 2);
    acme.get(&format!("{base}/{}", made["id"]), 200).await;
    acme.get(&format!("{base}/77"), 404).await;
    ann.get(base, 404).await;
}

async fn drive_runs(sandbox: &Sandbox, caller: &Checked<'_>, at: &str) {
    let run_id = sandbox.submit("acme", "app", GATED, 1).unwrap()[0].run_id;
    let runs = format!("{at}/actions/runs");
    let one = format!("{runs}/{run_id}");
    caller.get(&format!("{runs}?status=queued"), 200).await;
    let jobs = caller.get(&format!("{one}/jobs"), 200).await;
    assert_eq!(jobs["total_count"], 1, "blocked jobs are not shown");
    caller.post(&format!("{one}/rerun"), json!({}), 403).await;

    let jit = register(&caller.caller, "/orgs/acme", "first", &["x"]).await;
    assert_eq!(run(jit).await.0, 0);
    let gated = sandbox.jobs()[1].id;
    assert_eq!(caller.get(&one, 200).await["status"], "in_progress");
    assert_eq!(caller.get(&format!("{at}/actions/jobs/{gated}"), 200).await["status"], "waiting");
    assert!(sandbox.release_job(gated));
    let jit = register(&caller.caller, "/orgs/acme", "second", &["x"]).await;
    assert_eq!(run(jit).await.0, 0);

    assert_eq!(caller.get(&one, 200).await["conclusion"], "failure");
    caller.get(&format!("{at}/actions/jobs/{gated}"), 200).await;
    caller.send(Method::GET, &format!("{at}/actions/jobs/{gated}/logs"), None, 302).await;
    caller.get(&format!("{at}/actions/jobs/1"), 404).await;
    caller.post(&format!("{one}/cancel"), json!({}), 409).await;
    caller.post(&format!("{one}/rerun-failed-jobs"), json!({}), 201).await;
    caller.post(&format!("{one}/cancel"), json!({}), 202).await;
    caller.post(&format!("{one}/rerun"), json!({}), 201).await;
    caller.get(&format!("{one}/jobs?filter=all"), 200).await;

    // A runner that is busy, seen from outside.
    let jit = register(&caller.caller, "/orgs/acme", "third", &["x"]).await;
    let look = async {
        let mut changes = sandbox.changes();
        while !sandbox
            .runners()
            .iter()
            .any(|runner| runner.state == "offered" || runner.state == "busy")
        {
            changes.changed().await.unwrap();
        }
        let id = sandbox.runners()[0].id;
        caller.delete(&format!("/orgs/acme/actions/runners/{id}"), 422).await;
    };
    let slow = "jobs: { a: { runs-on: x, steps: [{ run: sleep 1000 }] } }";
    caller.post(&format!("{one}/cancel"), json!({}), 202).await;
    let run_id = sandbox.submit("acme", "app", slow, 1).unwrap()[0].run_id;
    let stop = async {
        look.await;
        caller.post(&format!("{runs}/{run_id}/cancel"), json!({}), 202).await;
    };
    tokio::join!(run(jit), stop);
    caller.get(&format!("{runs}/1"), 404).await;
    caller.get(&runs, 200).await;
}

async fn drive_hooks(caller: &Checked<'_>, at: &str, url: &str) {
    let base = format!("{at}/hooks");
    let new = |events: Value, url: &str| {
        json!({
            "name": "web", "active": true, "events": events,
            "config": { "url": url, "content_type": "json", "secret": "s" },
        })
    };
    caller.post(&base, new(json!(["workflow_job"]), url), 201).await;
    caller.post(&base, new(json!(["push"]), url), 422).await;
    caller.post(&base, new(json!(["workflow_job"]), "ftp://x"), 422).await;
    caller.get(&base, 200).await;
    caller.get(&format!("{base}/1/deliveries"), 404).await;
}

async fn first_hook(caller: &Checked<'_>, at: &str) -> String {
    let hooks = caller.get(&format!("{at}/hooks"), 200).await;
    format!("{at}/hooks/{}", hooks[0]["id"])
}

async fn drive_deliveries(sandbox: &Sandbox, caller: &Checked<'_>, base: &str) {
    let list = caller.get(&format!("{base}/deliveries?per_page=1"), 200).await;
    let id = &list[0]["id"];
    let one = caller.get(&format!("{base}/deliveries/{id}"), 200).await;
    let again = caller.post(&format!("{base}/deliveries/{id}/attempts"), json!({}), 202).await;
    assert_eq!(again, json!({}));
    sandbox.wait_until(|statistics| statistics.deliveries.pending == 0).await;
    let newest = &caller.get(&format!("{base}/deliveries?status=success"), 200).await[0];
    assert_eq!((&newest["guid"], &newest["redelivery"]), (&one["guid"], &json!(true)));
    caller.get(&format!("{base}/deliveries/1"), 404).await;
    caller.get(&format!("{base}/deliveries?cursor=nonsense"), 400).await;
    caller.get(&format!("{base}/deliveries?status=odd"), 422).await;
    caller.post(&format!("{base}/deliveries/1/attempts"), json!({}), 404).await;
}

async fn drive_faults(sandbox: &Sandbox, caller: &Checked<'_>) {
    let only =
        |rest: RestFaults| Faults { rest: [(Family::Runners, rest)].into(), ..Faults::default() };
    let path = "/orgs/acme/actions/runners";
    sandbox.set_faults(only(RestFaults { forbidden: 1.0, ..RestFaults::default() })).unwrap();
    caller.get(path, 403).await;
    let limited = RestFaults { too_many: 1.0, retry_after_s: 7, ..RestFaults::default() };
    sandbox.set_faults(only(limited)).unwrap();
    let answer = caller.send(Method::GET, path, None, 429).await;
    assert_eq!(answer.header("retry-after"), "7");
    sandbox
        .set_faults(only(RestFaults { hang: 1.0, hang_ms: 1, ..RestFaults::default() }))
        .unwrap();
    caller.get(path, 504).await;
    caller.get("/repos/acme/app", 200).await;
    sandbox.set_faults(Faults::default()).unwrap();
}

#[test]
fn a_broken_answer_is_caught() {
    let rest = rest();
    let at = rest.operation("GET", "/orgs/acme/actions/runners/1").unwrap();
    let runner = json!({
        "id": 1, "name": "r", "os": "linux", "status": "online", "busy": false, "labels": [],
    });
    assert_eq!(rest.problems(&at, 200, Some(&runner)), [""; 0]);
    for (field, broken) in [("busy", json!("no")), ("labels", json!(null)), ("id", json!(1.5))] {
        let mut answer = runner.clone();
        answer[field] = broken;
        assert_ne!(rest.problems(&at, 200, Some(&answer)), [""; 0], "{field}");
        answer.as_object_mut().unwrap().remove(field);
        assert_ne!(rest.problems(&at, 200, Some(&answer)), [""; 0], "{field}");
    }
    assert_ne!(rest.problems(&at, 200, None), [""; 0]);
    assert_ne!(rest.problems(&at, 201, Some(&runner)), [""; 0]);
    assert_ne!(rest.problems(&at, 404, Some(&json!({ "message": 4 }))), [""; 0]);
    assert_eq!(rest.operation("GET", "/orgs/acme/actions/runner/1"), None);
    assert_eq!(rest.operation("PUT", "/orgs/acme/actions/runners/1"), None);
}

#[test]
fn a_null_is_allowed_where_github_says_so_and_nowhere_else() {
    let rest = rest();
    let at = rest.operation("GET", "/app").unwrap();
    let mut app = json!({
        "id": 1, "node_id": "a", "name": "a", "description": null, "external_url": "http://a",
        "html_url": "http://a", "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "permissions": {}, "events": [],
        "owner": rest_user(),
    });
    assert_eq!(rest.problems(&at, 200, Some(&app)), [""; 0]);
    app["created_at"] = json!("yesterday");
    assert_ne!(rest.problems(&at, 200, Some(&app)), [""; 0], "formats are checked");
    app["created_at"] = Value::Null;
    assert_ne!(rest.problems(&at, 200, Some(&app)), [""; 0]);
}

fn rest_user() -> Value {
    let mut user = json!({
        "login": "a", "id": 1, "node_id": "a", "gravatar_id": null, "type": "User",
        "site_admin": false,
    });
    for field in [
        "avatar",
        "html",
        "followers",
        "following",
        "gists",
        "starred",
        "subscriptions",
        "organizations",
        "repos",
        "events",
        "received_events",
    ] {
        user[format!("{field}_url")] = json!("http://a");
    }
    user["url"] = json!("http://a");
    user
}

#[test]
fn a_broken_webhook_is_caught() {
    let webhooks = Webhooks::load();
    let (name, problems) = webhooks.problems("workflow_job", &json!({ "action": "queued" }));
    assert_eq!(name, "workflow_job$queued");
    assert_ne!(problems, [""; 0]);
    assert_ne!(webhooks.problems("workflow_job", &json!({ "action": "started" })).1, [""; 0]);
    assert_ne!(webhooks.problems("pong", &json!({})).1, [""; 0]);
}
