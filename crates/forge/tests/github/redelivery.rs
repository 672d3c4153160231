//! Deliveries that failed, as the forge records them.

use std::time::Duration;

use http::Method;
use remuda_core::hook::{FailedDelivery, HookKey};
use remuda_core::observation::Cause;
use remuda_forge::Forge;

use super::fake::{Fake, Fault, World};
use super::scope;

fn attempts(items: &[(u64, &str, &str, u16)]) -> &'static str {
    let item = |(id, guid, event, code): &(u64, &str, &str, u16)| {
        format!(
            r#"{{"id": {id}, "guid": "{guid}", "delivered_at": "2023-11-14T22:1{}:00.5Z",
            "redelivery": false, "duration": 0.2, "status": "x", "status_code": {code},
            "event": "{event}", "action": "queued", "installation_id": 1, "repository_id": 2}}"#,
            id % 10
        )
    };
    format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(",")).leak()
}

/// The clock of the fake begins at 22:13:20 on that day.
async fn list(
    hook: &HookKey,
    path: &'static str,
    pages: &[&'static str],
) -> (Fake, Vec<FailedDelivery>) {
    let fake = Fake::start(World::acme()).await;
    for page in pages {
        fake.world().fail(Method::GET, path, Fault::Answer(200, &[], page));
    }
    let since = fake.now() - Duration::from_mins(3);
    let listed = fake.client().deliveries(hook, since, None).await.unwrap();
    assert_eq!(listed.next, None);
    (fake, listed.failed)
}

#[tokio::test]
async fn deliveries_without_a_successful_attempt_are_told_with_their_latest() {
    let failures = attempts(&[
        (13, "a", "workflow_job", 502),
        (12, "b", "workflow_job", 0),
        (12, "p", "push", 0),
        (11, "a", "workflow_job", 0),
        (10, "too-old", "workflow_job", 0),
    ]);
    let successes = attempts(&[(13, "b", "workflow_job", 202), (13, "c", "workflow_job", 202)]);
    let hook = HookKey::App("1".into());
    let (fake, failed) = list(&hook, "/app/hook/deliveries", &[failures, successes]).await;
    let [only] = &*failed else { panic!("{failed:?}") };
    assert_eq!((&*only.guid, only.id, only.attempts), ("a", 13, 2));
    let world = fake.world();
    let asked: Vec<_> = world.seen.iter().map(|seen| seen.query["status"].clone()).collect();
    assert_eq!(asked, ["failure", "success"]);
}

#[tokio::test]
async fn where_nothing_failed_one_page_is_read() {
    let hook = HookKey::Own { scope: scope("org:acme"), id: 9 };
    let (fake, failed) = list(&hook, "/orgs/acme/hooks/9/deliveries", &["[]"]).await;
    assert_eq!(failed, []);
    assert_eq!(fake.world().count(&Method::GET, "/deliveries"), 1);
    // The token for it opens hooks and nothing else.
    let asked = fake.world().tokens.values().map(|token| token.asked.clone()).collect::<Vec<_>>();
    assert!(!format!("{asked:?}").contains("runners"), "{asked:?}");
}

#[tokio::test]
async fn a_listing_goes_on_by_its_cursor_and_says_where_it_stopped() {
    let fake = Fake::start(World::acme()).await;
    let link = "<https://api.example/app/hook/deliveries?per_page=100&cursor=v1_5>; rel=\"next\"";
    for _ in 0..10 {
        let page = Fault::Answer(200, vec![("link", link)].leak(), "[]");
        fake.world().fail(Method::GET, "/app/hook/deliveries", page);
    }
    let hook = HookKey::App("1".into());
    let listed = fake.client().deliveries(&hook, fake.now(), Some("v1_9")).await.unwrap();
    assert_eq!(listed.next.as_deref(), Some("v1_5"));
    let world = fake.world();
    let cursors: Vec<_> = world.seen.iter().map(|seen| seen.query["cursor"].as_str()).collect();
    assert_eq!((cursors[0], cursors[1], cursors.len()), ("v1_9", "v1_5", 10));
}

#[tokio::test]
async fn a_delivery_is_asked_for_by_its_attempt_and_a_no_is_told() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    let hook = HookKey::App("1".into());
    fake.world().fail(Method::POST, "/attempts", Fault::Answer(202, &[], "{}"));
    github.redeliver(&hook, 77).await.unwrap();
    assert_eq!(fake.world().count(&Method::POST, "/app/hook/deliveries/77/attempts"), 1);
    fake.world().fail(Method::POST, "/attempts", Fault::Answer(404, &[], "{}"));
    let error = github.redeliver(&hook, 77).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
}
