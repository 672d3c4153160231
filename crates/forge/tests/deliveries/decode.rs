//! Payloads: GitHub's published examples, and what becomes of them under mutation.

use std::io::Read;
use std::path::PathBuf;

use proptest::prelude::*;
use remuda_core::Observation;
use remuda_core::job::{Conclusion, JobState, Namespace};
use remuda_core::label::LabelError;
use remuda_core::observation::{JobSeen, Source};
use remuda_core::tenant::OwnerKind;
use remuda_forge::DecodeError;
use serde_json::{Value, json};

use super::*;

const EXAMPLES: [&str; 8] = [
    "completed-failure",
    "completed-success",
    "in_progress-old-ghes",
    "in_progress-steps-queued",
    "in_progress-user",
    "queued",
    "queued-but-waiting-user",
    "waiting-user",
];

fn data(name: &str) -> Vec<u8> {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.push("tests/data/octokit");
    path.push(name);
    std::fs::read(path).unwrap()
}

fn example(name: &str) -> Vec<u8> {
    data(&format!("workflow_job.{name}.json"))
}

fn decode(event: &str, body: &[u8]) -> Result<Vec<Observation>, DecodeError> {
    let github = Declared::new().hook(None, &["secret"]).load();
    let delivery = verify(&github, &headers(event, "secret", body), body).unwrap();
    github.decode(&delivery)
}

fn job(body: &[u8]) -> JobSeen {
    let all = decode("workflow_job", body).unwrap();
    let [Observation::Job(job)] = all.as_slice() else { panic!("{all:?}") };
    (**job).clone()
}

/// One line per fact that the planner lives on.
fn line(job: &JobSeen) -> String {
    let at = |at: Option<Timestamp>| at.map_or(-1, |at| at.as_millis() / 1000);
    format!(
        "{} {} {} {} {} {} runner {:?} at {} {} {}",
        job.key,
        job.state.as_str(),
        job.conclusion.map_or("-", Conclusion::as_str),
        job.tenant.key,
        job.scope,
        job.wanted,
        job.runner.as_ref().map(|runner| (runner.id, runner.name.as_str())),
        at(job.queued_at),
        at(job.started_at),
        at(job.completed_at),
    )
}

#[test]
fn every_published_example_says_what_it_should() {
    let expected = [
        "github/289782451 completed failure github/organization/38302899 org:octocoders \
         [ubuntu-latest] runner Some((5, \"GitHub Actions 5\")) \
         at 1628159638 1628159698 1628159896",
        "github/289782451 completed success github/organization/38302899 org:octocoders \
         [ubuntu-latest] runner Some((5, \"GitHub Actions 5\")) \
         at 1628159638 1628159698 1628159896",
        "github/2832853555 in_progress - github/organization/33435655 org:octo-org \
         [db-app, dc-03, gpu] runner Some((1, \"my runner\")) at -1 1623784947 -1",
        "github/289782451 in_progress - github/organization/38302899 org:octocoders \
         [ubuntu-latest] runner Some((5, \"GitHub Actions 5\")) at 1631499673 1631499673 -1",
        "github/14541957942 in_progress - github/user/4595477 \
         repo:wolfy1339/github-events-schemas \
         [ubuntu-latest] runner Some((6, \"GitHub Actions 6\")) at 1687750289 1687750296 -1",
        "github/289782451 queued - github/organization/38302899 org:octocoders \
         [ubuntu-latest] runner None at 1631499673 -1 -1",
        "github/12877621891 waiting - github/user/25349044 repo:lineville/elastic-machines-testing \
         [k8s, self-hosted] runner None at 1681938732 -1 -1",
        "github/12877621891 waiting - github/user/25349044 repo:lineville/elastic-machines-testing \
         [k8s, self-hosted] runner None at 1681938732 -1 -1",
    ];
    let found: Vec<String> = EXAMPLES.iter().map(|name| line(&job(&example(name)))).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_job_is_read_whole() {
    let job = job(&example("in_progress-user"));
    assert_eq!(job.key.namespace, Namespace::Rest);
    assert_eq!(job.tenant.key.kind, OwnerKind::User);
    assert_eq!(job.tenant.login.as_str(), "wolfy1339");
    assert_eq!(&*job.title.workflow, "Test");
    assert_eq!(job.title.run, 5_373_506_832);
    assert!(job.title.url.starts_with("https://github.com/wolfy1339/"), "{:?}", job.title);
    assert_eq!(job.source, Source::Delivery { received_at: NOW });
}

#[test]
fn every_other_event_is_taken_and_says_nothing() {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&data("other-events.json.gz")[..])
        .read_to_string(&mut text)
        .unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 396);
    for example in &all {
        let event = example["event"].as_str().unwrap();
        let body = example["payload"].to_string();
        assert_eq!(decode(event, body.as_bytes()), Ok(vec![]), "{event}");
    }
}

/// The `queued` example with one value replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut payload: Value = serde_json::from_slice(&example("queued")).unwrap();
    *payload.pointer_mut(pointer).unwrap() = value;
    payload.to_string().into_bytes()
}

#[test]
fn an_unknown_action_says_nothing_whatever_comes_with_it() {
    for body in [r#"{"action":"reticulated"}"#, r#"{"action":"reticulated","workflow_job":7}"#] {
        assert_eq!(decode("workflow_job", body.as_bytes()), Ok(vec![]));
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let decode = |body: &[u8]| decode("workflow_job", body).unwrap_err();
    assert_eq!(decode(b"{}"), DecodeError::Missing("action"));
    assert_eq!(decode(br#"{"action":"queued"}"#), DecodeError::Missing("workflow_job"));
    assert_eq!(decode(&with("/repository", Value::Null)), DecodeError::Missing("repository"));
    assert_eq!(
        decode(&with("/repository/owner/type", json!("Bot"))),
        DecodeError::Owner("Bot".into())
    );
    assert_eq!(
        decode(&with("/workflow_job/created_at", json!("soon"))),
        DecodeError::Time { field: "created_at" }
    );
    assert_eq!(decode(b"payload=%7B%22action%22"), DecodeError::Form);
    for body in
        [b"".as_slice(), b"null", b"[]", b"7", b"\"x\"", b"{", b"\xff\xfe", b"{\"action\":1}"]
    {
        assert!(matches!(decode(body), DecodeError::Json(_) | DecodeError::Missing(_)), "{body:?}");
    }
}

#[test]
fn labels_over_the_limits_are_refused_and_null_is_none() {
    let decode = |labels| decode("workflow_job", &with("/workflow_job/labels", labels));
    assert_eq!(
        decode(json!(["a\u{7}b"])),
        Err(DecodeError::Labels(LabelError::Control("a\u{7}b".into())))
    );
    assert_eq!(decode(json!([""])), Err(DecodeError::Labels(LabelError::Empty)));
    assert_eq!(
        decode(json!(["x".repeat(257)])),
        Err(DecodeError::Labels(LabelError::TooLong(257)))
    );
    let numbers: Vec<String> = (0..1_000_000).map(|n| n.to_string()).collect();
    assert_eq!(decode(json!(numbers)), Err(DecodeError::Labels(LabelError::TooMany(101))));
    let none = job(&with("/workflow_job/labels", Value::Null));
    assert_eq!(none.wanted.to_string(), "[]");
    let upper = job(&with("/workflow_job/labels", json!(["Self-Hosted", "RVV"])));
    assert_eq!(upper.wanted.to_string(), "[rvv, self-hosted]");
}

#[test]
fn zero_and_empty_mean_that_there_is_no_runner() {
    let mut payload: Value = serde_json::from_slice(&example("in_progress-user")).unwrap();
    for (id, name) in [
        (json!(0), json!("x")),
        (json!(""), json!("x")),
        (Value::Null, json!("x")),
        (json!(-1), json!("x")),
        (json!(7), json!("")),
        (json!(7), Value::Null),
    ] {
        payload["workflow_job"]["runner_id"] = id;
        payload["workflow_job"]["runner_name"] = name;
        assert_eq!(job(payload.to_string().as_bytes()).runner, None);
    }
    let fields = payload["workflow_job"].as_object_mut().unwrap();
    fields.remove("runner_id");
    fields.remove("runner_name");
    assert_eq!(job(payload.to_string().as_bytes()).runner, None);
}

#[test]
fn a_completed_job_has_an_end_whatever_its_conclusion_is_called() {
    let mut payload: Value = serde_json::from_slice(&example("completed-success")).unwrap();
    for (word, expected) in [
        (json!("skipped"), Conclusion::Skipped),
        (json!("timed_out"), Conclusion::TimedOut),
        (json!("stale"), Conclusion::Other),
        (Value::Null, Conclusion::Other),
    ] {
        payload["workflow_job"]["conclusion"] = word;
        let job = job(payload.to_string().as_bytes());
        assert_eq!((job.state, job.conclusion), (JobState::Completed, Some(expected)));
    }
}

#[test]
fn an_id_may_need_all_of_64_bits() {
    assert_eq!(job(&with("/workflow_job/id", json!(u64::MAX))).key.native, u64::MAX);
    for bad in [json!(-1), json!(1.5), json!("1"), Value::Null] {
        let error = decode("workflow_job", &with("/workflow_job/id", bad)).unwrap_err();
        assert!(matches!(error, DecodeError::Json(_)), "{error}");
    }
}

#[test]
fn texts_from_outside_are_cut_and_stripped() {
    let name = format!("\u{1b}[31m{}", "x".repeat(5000));
    let job = job(&with("/workflow_job/name", json!(name)));
    assert_eq!(job.title.job.chars().count(), 300);
    assert!(!job.title.job.contains('\u{1b}'));
    let bad = json!("y\n".repeat(5000));
    let error = decode("workflow_job", &with("/workflow_job/id", bad)).unwrap_err().to_string();
    assert!(error.len() < 400 && !error.contains('\n'), "{error}");
    let error = decode("workflow_job", &with("/repository/name", json!("z".repeat(5000))));
    assert!(error.unwrap_err().to_string().len() < 400);
}

#[test]
fn deep_nesting_is_an_error_and_not_the_end() {
    let body = format!("{{\"action\":\"queued\",\"workflow_job\":{}", "[".repeat(1_000_000));
    assert!(matches!(decode("workflow_job", body.as_bytes()), Err(DecodeError::Json(_))));
}

#[test]
fn a_payload_cut_anywhere_is_an_error() {
    let github = Declared::new().load();
    for name in EXAMPLES {
        let whole: Value = serde_json::from_slice(&example(name)).unwrap();
        let whole = whole.to_string().into_bytes();
        for length in 0..whole.len() {
            let delivery = Delivery {
                forge: ForgeName::new("github").unwrap(),
                id: "1".into(),
                event: "workflow_job".into(),
                received_at: NOW,
                body: Arc::from(&whole[..length]),
            };
            let error = github.decode(&delivery).unwrap_err();
            assert!(matches!(error, DecodeError::Json(_)), "{name} at {length}: {error}");
        }
    }
}

proptest! {
    #[test]
    fn no_mutation_makes_it_panic_and_every_error_is_short_and_plain(
        name in prop::sample::select(EXAMPLES.to_vec()),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
    ) {
        let mut body = example(name);
        for (at, byte, kind) in edits {
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => { body.remove(at); }
            }
        }
        match decode("workflow_job", &body) {
            Ok(all) => prop_assert!(all.len() <= 1),
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.chars().count() < 600, "{}", text);
                prop_assert!(!text.chars().any(char::is_control), "{}", text);
            }
        }
    }

    #[test]
    fn any_value_in_any_place_is_read_or_refused(
        field in prop::sample::select(vec![
            "/action", "/workflow_job", "/workflow_job/id", "/workflow_job/run_id",
            "/workflow_job/labels", "/workflow_job/status", "/workflow_job/conclusion",
            "/workflow_job/started_at", "/workflow_job/runner_id", "/workflow_job/runner_name",
            "/repository", "/repository/name", "/repository/owner", "/repository/owner/id",
            "/repository/owner/login", "/repository/owner/type",
        ]),
        value in prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|n| json!(n)),
            ".{0,300}".prop_map(Value::from),
            proptest::collection::vec(".{0,20}", 0..5).prop_map(|all| json!(all)),
            Just(json!({})),
        ],
    ) {
        let _ = decode("workflow_job", &with(field, value));
    }
}
