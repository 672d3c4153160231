//! What GitHub's REST does beyond the shape of its answers.

use std::time::Duration;

use http::Method;
use remuda_sandbox::{Config, Family, Faults, Limits, PersonalToken, RestFaults, Sandbox, Times};
use serde_json::json;

use super::common::{Caller, config, installation, register};

const RUNNERS: &str = "/orgs/acme/actions/runners";

async fn start(change: impl FnOnce(&mut Config)) -> (Sandbox, Caller) {
    let mut config = config();
    change(&mut config);
    let sandbox = Sandbox::start(config).await.unwrap();
    let caller = installation(&sandbox, "acme").await;
    (sandbox, caller)
}

fn runners_only(rest: RestFaults) -> Faults {
    Faults { rest: [(Family::Runners, rest)].into(), ..Faults::default() }
}

#[tokio::test]
async fn long_lists_come_in_pages_that_link_to_each_other() {
    let (sandbox, caller) = start(|_| {}).await;
    for number in 0..5 {
        register(&caller, "/orgs/acme", &format!("r{number}"), &["x"]).await;
    }
    let mut path = format!("{RUNNERS}?per_page=2");
    let mut names = Vec::new();
    loop {
        let answer = caller.get(&path).await;
        let body = answer.json();
        assert_eq!(body["total_count"], 5);
        let page = body["runners"].as_array().unwrap();
        names.extend(page.iter().map(|runner| runner["name"].as_str().unwrap().to_string()));
        let links = answer.header("link").to_string();
        let Some(next) = links.split(", ").find(|link| link.ends_with("rel=\"next\"")) else {
            break;
        };
        let url = next.split(['<', '>']).nth(1).unwrap();
        path = url.strip_prefix(&caller.base).unwrap().to_string();
    }
    assert_eq!(names, ["r0", "r1", "r2", "r3", "r4"]);
    sandbox.close().await;
}

#[tokio::test]
async fn rest_is_served_at_the_root_too() {
    let (sandbox, mut caller) = start(|_| {}).await;
    let versioned = caller.get("/repos/acme/app").await;
    caller.base = sandbox.url();
    assert_eq!(caller.get("/repos/acme/app").await.json(), versioned.json());
    let missing = caller.get("/no/such/thing").await;
    assert_eq!((missing.status.as_u16(), &missing.json()["message"]), (404, &json!("Not Found")));
    sandbox.close().await;
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again_and_costs_nothing() {
    let (sandbox, caller) = start(|config| {
        config.limits = Limits { requests_per_hour: Some(10), points_per_minute: None };
    })
    .await;
    let first = caller.get(RUNNERS).await;
    let (etag, left) = (first.header("etag").to_string(), first.header("x-ratelimit-remaining"));
    let again = caller.send_with(Method::GET, RUNNERS, None, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    assert_eq!(again.header("x-ratelimit-remaining"), left);
    register(&caller, "/orgs/acme", "new", &["x"]).await;
    let changed = caller.send_with(Method::GET, RUNNERS, None, &[("if-none-match", &etag)]).await;
    assert_eq!((changed.status.as_u16(), changed.json()["total_count"].as_u64()), (200, Some(1)));
    sandbox.close().await;
}

#[tokio::test]
async fn a_used_up_limit_is_told_with_the_time_of_its_return() {
    let (sandbox, caller) = start(|config| {
        // Each principal has its own; the App needs two requests to make the token.
        config.limits = Limits { requests_per_hour: Some(2), points_per_minute: None };
    })
    .await;
    assert_eq!(caller.get(RUNNERS).await.header("x-ratelimit-remaining"), "1");
    assert_eq!(caller.get(RUNNERS).await.header("x-ratelimit-remaining"), "0");
    let over = caller.get(RUNNERS).await;
    assert_eq!(over.status, 403);
    assert!(over.json()["message"].as_str().unwrap().contains("API rate limit exceeded"));
    let wait: u64 = over.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    let free = caller.get("/rate_limit").await.json();
    assert_eq!((&free["rate"]["limit"], &free["rate"]["remaining"]), (&json!(2), &json!(0)));
    sandbox.close().await;
}

#[tokio::test]
async fn an_installation_token_expires() {
    let (sandbox, caller) = start(|config| {
        config.times = Times { token: Duration::ZERO, ..Times::default() };
    })
    .await;
    let answer = caller.get(RUNNERS).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["message"]),
        (401, &json!("Bad credentials"))
    );
    sandbox.close().await;
}

#[tokio::test]
async fn a_missing_permission_is_told_as_github_tells_it() {
    let (sandbox, caller) = start(|config| {
        let permissions = &mut config.apps[0].permissions;
        permissions.insert("organization_self_hosted_runners".into(), "read".into());
        permissions.remove("actions");
    })
    .await;
    assert_eq!(caller.get(RUNNERS).await.status, 200);
    let new = json!({ "name": "r", "runner_group_id": 1, "labels": ["x"] });
    for refused in [
        caller.post(&format!("{RUNNERS}/generate-jitconfig"), new).await,
        caller.get("/repos/acme/app/actions/runs").await,
    ] {
        assert_eq!(refused.status, 403);
        assert_eq!(refused.json()["message"], "Resource not accessible by integration");
    }
    sandbox.close().await;
}

#[tokio::test]
async fn a_personal_token_may_do_everything() {
    let (sandbox, mut caller) = start(|config| {
        let token = "ghp_example".to_string().into();
        config.personal_tokens = vec![PersonalToken { login: "ann".into(), token }];
    })
    .await;
    caller.token = Some("ghp_example".into());
    assert_eq!(caller.get(RUNNERS).await.status, 200);
    assert_eq!(caller.get("/repos/ann/tool/actions/runners").await.status, 200);
    assert_eq!(caller.get("/app").await.status, 401);
    sandbox.close().await;
}

#[tokio::test]
async fn bodies_that_are_not_json_or_too_large_are_refused() {
    let (sandbox, caller) = start(|_| {}).await;
    let path = format!("{RUNNERS}/generate-jitconfig");
    let garbled = caller.post(&path, json!("{")).await;
    assert_eq!(
        (garbled.status.as_u16(), &garbled.json()["message"]),
        (400, &json!("Problems parsing JSON"))
    );
    let labels: Vec<_> = (0..101).map(|number| format!("l{number}")).collect();
    let many = json!({ "name": "r", "runner_group_id": 1, "labels": labels });
    assert_eq!(caller.post(&path, many).await.status, 422);
    let control = json!({ "name": "r", "runner_group_id": 1, "labels": ["a\u{7}"] });
    assert_eq!(caller.post(&path, control).await.status, 422);
    let huge = json!({ "name": "x".repeat(5 * 1024 * 1024) });
    assert_eq!(caller.post(&path, huge).await.status, 413);
    assert_eq!(sandbox.runners(), []);
    sandbox.close().await;
}

#[tokio::test]
async fn faults_strike_their_family_and_no_other() {
    let (sandbox, caller) = start(|_| {}).await;
    let all = RestFaults { server_error: 1.0, ..RestFaults::default() };
    sandbox.set_faults(runners_only(all)).unwrap();
    let status = caller.get(RUNNERS).await.status.as_u16();
    assert!([500, 502, 503].contains(&status), "{status}");
    assert_eq!(caller.get("/repos/acme/app/actions/runs").await.status, 200);
    let half = RestFaults { forbidden: 0.5, retry_after_s: 3, ..RestFaults::default() };
    sandbox.set_faults(runners_only(half)).unwrap();
    let mut refused = 0;
    for _ in 0..64 {
        let answer = caller.get(RUNNERS).await;
        if answer.status == 403 {
            assert_eq!(answer.header("retry-after"), "3");
            refused += 1;
        }
    }
    assert!((1..64).contains(&refused), "{refused} of 64");
    sandbox.close().await;
}

#[tokio::test]
async fn a_hanging_request_ends_with_the_sandbox() {
    let (sandbox, caller) = start(|_| {}).await;
    let hang = RestFaults { hang: 1.0, hang_ms: 3_600_000, ..RestFaults::default() };
    sandbox.set_faults(runners_only(hang)).unwrap();
    let (answer, ()) = tokio::join!(caller.get(RUNNERS), async {
        sandbox.wait_until(|statistics| statistics.requests_struck == 1).await;
        sandbox.close().await;
    });
    assert_eq!(answer.status, 504);
}

#[tokio::test]
async fn a_listing_may_lie_about_busy() {
    let (sandbox, caller) = start(|config| {
        config.faults = Faults { busy_lies: 1.0, ..Faults::default() };
    })
    .await;
    register(&caller, "/orgs/acme", "r", &["x"]).await;
    assert_eq!(caller.get(RUNNERS).await.json()["runners"][0]["busy"], true);
    let path = format!("{RUNNERS}/{}", sandbox.runners()[0].id);
    assert_eq!(caller.delete(&path).await.status, 204, "removing it shows the truth");
    sandbox.close().await;
}
