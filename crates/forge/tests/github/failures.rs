//! Calls that fail, and what we may conclude.

use http::{Method, StatusCode};
use remuda_core::Timestamp;
use remuda_core::budget::{Budget, Credential};
use remuda_core::observation::Cause;
use remuda_forge::{Forge, ForgeError, GitHub};

use super::fake::{Fake, Fault, PAT, START, World};
use super::{launch, scope};

const HTML: &str = "<html><body>502 <script>alert(1)</script> Bad Gateway</body></html>";
const DENIED: &str = r#"{"message": "Resource not accessible by integration"}"#;
const PRIMARY: &str = r#"{"message": "API rate limit exceeded for installation ID 11."}"#;
const SECONDARY: &str = r#"{"message": "You have exceeded a secondary rate limit."}"#;

const fn limited(seconds: i64) -> Cause {
    Cause::Limited { until: Timestamp::from_millis(START + seconds * 1000) }
}

async fn registering(fault: Fault) -> ForgeError {
    let fake = Fake::start(World::ada()).await;
    fake.world().fail(Method::POST, "/generate-jitconfig", fault.clone());
    fake.wary(&fault).register(&launch("repo:ada/toy", "rvv-1")).await.unwrap_err()
}

async fn listing(fault: Fault) -> ForgeError {
    let fake = Fake::start(World::acme()).await;
    fake.world().fail(Method::GET, "/orgs/acme/actions/runners", fault.clone());
    fake.wary(&fault).runners(&scope("org:acme")).await.unwrap_err()
}

// W30: every call is bounded in time
#[tokio::test]
async fn a_registration_without_a_clear_answer_may_have_happened() {
    for fault in [
        Fault::Answer(500, &[], HTML),
        Fault::Answer(502, &[], HTML),
        Fault::Answer(503, &[], ""),
        Fault::DoneBut(504, HTML),
        Fault::DoneBut(201, ""),
        Fault::DoneBut(201, HTML),
        Fault::DoneBut(200, "{\"runner\": {}}"),
        Fault::Hang,
        Fault::BreakOff,
        Fault::Endless,
    ] {
        let error = registering(fault.clone()).await;
        assert_eq!(error.cause(), Cause::Unknown, "{fault:?}: {error}");
        assert!(!error.to_string().contains("<script>"), "{error}");
    }
}

// A66
#[tokio::test]
async fn a_registration_that_was_refused_did_not_happen() {
    for (status, body) in
        [(400, ""), (403, DENIED), (403, HTML), (404, DENIED), (422, DENIED), (302, "")]
    {
        let error = registering(Fault::Answer(status, &[], body)).await;
        let expected = StatusCode::from_u16(status).unwrap();
        assert!(matches!(error, ForgeError::Refused { status, .. } if status == expected));
        assert_eq!(error.cause(), Cause::Invalid, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_listing_without_a_clear_answer_may_be_asked_again() {
    for fault in [
        Fault::Answer(500, &[], HTML),
        Fault::Answer(503, &[], ""),
        Fault::Answer(200, &[], HTML),
        Fault::Answer(200, &[], "[]"),
        Fault::Answer(200, &[], "{\"runners\": [{}]}"),
        Fault::Answer(304, &[], ""),
        Fault::Hang,
        Fault::BreakOff,
        Fault::Endless,
    ] {
        let error = listing(fault.clone()).await;
        assert_eq!(error.cause(), Cause::Transient, "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn no_answer_is_read_without_end() {
    for error in [listing(Fault::Endless).await, registering(Fault::Endless).await] {
        assert!(error.to_string().ends_with("the answer is longer than 100000 bytes"), "{error}");
    }
}

#[tokio::test]
async fn what_was_never_sent_had_no_effect() {
    // With a token of our own, the registration is the first thing that is sent.
    let mut fake = Fake::start(World { apps: vec![], ..World::ada() }).await;
    let mut forge = fake.forge();
    forge.token = Some(fake.secret(PAT));
    let vacant = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    forge.api = format!("http://{}", vacant.local_addr().unwrap());
    drop(vacant);
    let error =
        fake.client_of(&forge).register(&launch("repo:ada/toy", "rvv-1")).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient, "{error}");
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_failure_before_the_registration_had_no_effect() {
    for path in ["/installation", "/access_tokens", "/runner-groups"] {
        for fault in [Fault::Answer(502, &[], HTML), Fault::Hang, Fault::BreakOff] {
            let fake = Fake::start(World::acme()).await;
            let method = if path == "/access_tokens" { Method::POST } else { Method::GET };
            fake.world().fail(method, path, fault.clone());
            let github = fake.wary(&fault);
            let error = github.register(&launch("org:acme", "rvv-1")).await.unwrap_err();
            assert_eq!(error.cause(), Cause::Transient, "{path} {fault:?}: {error}");
            assert_eq!(fake.world().count(&Method::POST, "/generate-jitconfig"), 0);
            github.register(&launch("org:acme", "rvv-1")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_twice() {
    let fake = Fake::start(World::ada()).await;
    fake.world().fail(Method::POST, "/generate-jitconfig", Fault::Answer(503, &[], ""));
    assert!(fake.client().register(&launch("repo:ada/toy", "rvv-1")).await.is_err());
    assert_eq!(fake.world().count(&Method::POST, "/generate-jitconfig"), 1);
}

#[tokio::test]
async fn a_redirect_to_another_place_is_not_followed() {
    let fake = Fake::start(World::acme()).await;
    let elsewhere = Fake::start(World::acme()).await;
    let location: &'static str = format!("{}/orgs/acme/actions/runners", elsewhere.address).leak();
    let headers: &'static [_] = vec![("location", location)].leak();
    let fault = Fault::Answer(307, headers, "");
    fake.world().fail(Method::GET, "/orgs/acme/actions/runners", fault);
    let error = fake.client().runners(&scope("org:acme")).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
    assert!(elsewhere.world().seen.is_empty());
}

#[tokio::test]
async fn a_renamed_repository_is_found_where_github_sends_us() {
    let fake = Fake::start(World::ada()).await;
    let headers = &[("location", "/api/v3/repos/ada/toy/actions/runners?per_page=100")];
    let fault = Fault::Answer(301, headers, "");
    fake.world().fail(Method::GET, "/repos/ada/toy/actions/runners", fault);
    assert_eq!(fake.client().runners(&scope("repo:ada/toy")).await, Ok(vec![]));
}

#[tokio::test]
async fn a_limit_on_calls_says_until_when() {
    // START is 22:13:20 on that Tuesday.
    type Case = (u16, &'static [(&'static str, &'static str)], &'static str, Cause);
    let cases: [Case; 13] = [
        (429, &[("retry-after", "30")], SECONDARY, limited(30)),
        (403, &[("retry-after", "90")], SECONDARY, limited(90)),
        (403, &[("retry-after", "Tue, 14 Nov 2023 22:15:00 GMT")], SECONDARY, limited(100)),
        (429, &[("retry-after", "0")], SECONDARY, limited(1)),
        (429, &[("retry-after", "99999999999")], SECONDARY, limited(3600)),
        (429, &[], "", limited(60)),
        (403, &[], SECONDARY, limited(60)),
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000500")],
            PRIMARY,
            limited(500),
        ),
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1699990000")],
            PRIMARY,
            limited(1),
        ),
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "18446744073709551615")],
            PRIMARY,
            limited(60),
        ),
        (403, &[("x-ratelimit-remaining", "0")], PRIMARY, limited(60)),
        (403, &[("x-ratelimit-remaining", "4999")], DENIED, Cause::Invalid),
        (403, &[], HTML, Cause::Invalid),
    ];
    for (status, headers, body, expected) in cases {
        let fault = Fault::Answer(status, headers, body);
        assert_eq!(listing(fault.clone()).await.cause(), expected, "{fault:?}");
        assert_eq!(registering(fault.clone()).await.cause(), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn a_limit_that_ends_by_the_forges_clock_is_told_by_ours() {
    let mut world = World::acme();
    world.skew = 40_000;
    world.budget = Some(0);
    let fake = Fake::start(world).await;
    let error = fake.client().runners(&scope("org:acme")).await.unwrap_err();
    assert_eq!(error.cause(), limited(1800), "{error}");
}

#[tokio::test]
async fn what_the_forge_says_of_each_credentials_budget_is_told_once() {
    let mut world = World::acme();
    world.budget = Some(5000);
    world.apps[0].installations.push(super::fake::installation(12, "umbrella"));
    let fake = Fake::start(world).await;
    let github = fake.client();
    assert_eq!(github.budgets(), []);
    let app = |owner: Option<&str>| Credential::App {
        id: "1".into(),
        owner: owner.map(super::fake::login),
    };
    let said = |limit, remaining, millis| {
        let resets_at = Timestamp::from_millis(START + millis);
        Budget { limit, remaining, resets_at }
    };
    github.runners(&scope("org:acme")).await.unwrap();
    let itself = (app(None), said(7, 7, 60_000));
    assert_eq!(
        github.budgets(),
        [itself.clone(), (app(Some("acme")), said(5000, 4999, 1_800_000))]
    );
    assert_eq!(github.budgets(), []);
    // An answer that was overtaken on its way does not fill the budget up again.
    fake.world().budget = Some(5000);
    github.runners(&scope("org:acme")).await.unwrap();
    assert_eq!(github.budgets(), [(app(Some("acme")), said(5000, 4999, 1_800_000))]);
    fake.world().budget = Some(300);
    github.runners(&scope("org:umbrella")).await.unwrap();
    assert_eq!(github.budgets(), [itself, (app(Some("umbrella")), said(5000, 299, 1_800_000))]);
}

#[tokio::test]
async fn a_failed_call_is_described_by_its_name_and_the_forges_words() {
    let error =
        registering(Fault::Answer(422, &[], r#"{"message": "no\u001b[31m\nlabels"}"#)).await;
    assert_eq!(
        error.to_string(),
        "POST /repos/ada/toy/actions/runners/generate-jitconfig: refused with 422 Unprocessable \
         Entity: no[31mlabels"
    );
}

#[test]
fn github_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<GitHub>();
    shared::<Box<dyn Forge>>();
}
