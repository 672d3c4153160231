//! Signatures.

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;

const BODY: &[u8] = b"{\"zen\":\"Speak like a human.\"}";

fn check(github: &GitHub, headers: &HeaderMap, expected: Result<(), Refusal>) {
    assert_eq!(verify(github, headers, BODY).map(|_| ()), expected, "{headers:?}");
}

#[test]
fn githubs_documented_example_is_taken() {
    // docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation".
    let github = Declared::new().hook(None, &["It's a Secret to Everybody"]).load();
    let mut headers = headers("ping", "", b"");
    headers.insert(
        "x-hub-signature-256",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17".parse().unwrap(),
    );
    let delivery = verify(&github, &headers, b"Hello, World!").unwrap();
    assert_eq!(delivery.forge.as_str(), "github");
    assert_eq!(&*delivery.id, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(&*delivery.event, "ping");
    assert_eq!(delivery.received_at, NOW);
    assert_eq!(&*delivery.body, b"Hello, World!");
}

#[test]
fn a_ping_is_verified_like_any_other_event() {
    let github = Declared::new().hook(None, &["right"]).load();
    check(&github, &headers("ping", "right", BODY), Ok(()));
    check(&github, &headers("ping", "wrong", BODY), Err(Refusal::Signature));
}

#[test]
fn a_refusal_tells_nothing_of_secret_body_or_right_signature() {
    let github = Declared::new().hook(None, &["right"]).load();
    let wrong = verify(&github, &headers("push", "wrong", BODY), BODY).unwrap_err();
    let other = verify(&github, &headers("push", "other", b"x"), b"x").unwrap_err();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.to_string(), "the signature does not match");
    assert_eq!(format!("{wrong:?}"), format!("{other:?}"));
}

#[test]
fn a_missing_header_is_named() {
    let github = Declared::new().hook(None, &["right"]).load();
    for name in ["X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256"] {
        let mut headers = headers("push", "right", BODY);
        headers.remove(name);
        let refusal = verify(&github, &headers, BODY).unwrap_err();
        assert_eq!(refusal, Refusal::Missing(name));
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
    }
}

#[test]
fn a_signature_of_another_form_is_refused_and_not_compared() {
    let github = Declared::new().hook(None, &["right"]).load();
    let right = sign("right", BODY);
    let digits = right.strip_prefix("sha256=").unwrap();
    let forms: [Vec<u8>; 10] = [
        b"".into(),
        b"sha256=".into(),
        digits.into(),
        format!("sha1={digits}").into(),
        format!("sha256={}", &digits[1..]).into(),
        format!("sha256={digits}0").into(),
        format!("sha256={digits}00").into(),
        format!("sha256=+{}", &digits[1..]).into(),
        format!("sha256={}g", &digits[1..]).into(),
        [b"sha256=".as_slice(), &[0xe9; 64]].concat(),
    ];
    for form in forms {
        let mut headers = headers("push", "right", BODY);
        headers.insert("x-hub-signature-256", HeaderValue::from_bytes(&form).unwrap());
        check(&github, &headers, Err(Refusal::Malformed("X-Hub-Signature-256")));
    }
}

#[test]
fn hexadecimal_digits_may_be_capitals() {
    let github = Declared::new().hook(None, &["right"]).load();
    let mut headers = headers("push", "right", BODY);
    let capitals = sign("right", BODY).replace("sha256=", "").to_uppercase();
    headers.insert("x-hub-signature-256", format!("sha256={capitals}").parse().unwrap());
    check(&github, &headers, Ok(()));
}

#[test]
fn ids_and_events_are_short_and_printable_and_come_once() {
    let github = Declared::new().hook(None, &["right"]).load();
    let long = "x".repeat(129);
    for name in ["X-GitHub-Event", "X-GitHub-Delivery"] {
        for bad in [b"".as_slice(), b"a b", b"\xff", long.as_bytes()] {
            let mut headers = headers("push", "right", BODY);
            headers.insert(name, HeaderValue::from_bytes(bad).unwrap());
            check(&github, &headers, Err(Refusal::Malformed(name)));
        }
        let mut headers = headers("push", "right", BODY);
        headers.append(name, "again".parse().unwrap());
        check(&github, &headers, Err(Refusal::Malformed(name)));
    }
    let mut twice = headers("push", "right", BODY);
    twice.append("X-Hub-Signature-256", "sha256=00".parse().unwrap());
    check(&github, &twice, Err(Refusal::Malformed("X-Hub-Signature-256")));
}

#[test]
fn both_secrets_count_while_one_is_replaced() {
    let github = Declared::new().hook(None, &["old", "new"]).load();
    check(&github, &headers("push", "old", BODY), Ok(()));
    check(&github, &headers("push", "new", BODY), Ok(()));
    check(&github, &headers("push", "older", BODY), Err(Refusal::Signature));
}

#[test]
fn a_forge_without_secrets_takes_nothing() {
    let github = Declared::new().load();
    check(&github, &headers("push", "", BODY), Err(Refusal::Signature));
}

/// What the headers say of the sender, and whose secrets then count.
type Sender<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn a_named_sender_is_held_to_its_own_secret() {
    let github = Declared::new()
        .app("1", &["of app 1"])
        .app("2", &["of app 2"])
        .app("Iv1.abc", &["of client id"])
        .hook(Some(7), &["of hook 7"])
        .hook(None, &["of any hook"])
        .load();
    let all = ["of app 1", "of app 2", "of client id", "of hook 7", "of any hook"];
    let cases: [Sender<'_>; 7] = [
        (&[("target-type", "integration"), ("target-id", "1"), ("hook", "90")], &["of app 1"]),
        (&[("target-type", "integration"), ("target-id", "2"), ("hook", "91")], &["of app 2"]),
        (
            &[("target-type", "integration"), ("target-id", "3"), ("hook", "92")],
            &["of client id", "of any hook"],
        ),
        (&[("target-type", "repository"), ("target-id", "1"), ("hook", "7")], &["of hook 7"]),
        (
            &[("target-type", "organization"), ("target-id", "1"), ("hook", "8")],
            &["of client id", "of any hook"],
        ),
        (&[("hook", "8")], &["of client id", "of any hook"]),
        (&[], &all),
    ];
    for (sender, admitted) in cases {
        for secret in all {
            let mut headers = headers("push", secret, BODY);
            for (name, value) in sender {
                let name = match *name {
                    "hook" => "X-GitHub-Hook-ID",
                    "target-id" => "X-GitHub-Hook-Installation-Target-ID",
                    _ => "X-GitHub-Hook-Installation-Target-Type",
                };
                headers.insert(name, value.parse().unwrap());
            }
            let expected = admitted.contains(&secret).then_some(()).ok_or(Refusal::Signature);
            check(&github, &headers, expected);
        }
    }
}

#[test]
fn an_empty_secret_is_refused_when_it_is_loaded() {
    let declared = Declared::new().hook(None, &[" \n"]);
    let error = GitHub::new(&declared.forge, Arc::new(|| NOW)).unwrap_err();
    assert!(error.to_string().ends_with("is empty"), "{error}");
}

proptest! {
    #[test]
    fn any_change_to_the_body_breaks_the_signature(
        body in proptest::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let github = Declared::new().hook(None, &["right"]).load();
        let headers = headers("push", "right", &body);
        let mut other = body.clone();
        *at.get_mut(&mut other) ^= flip;
        prop_assert!(verify(&github, &headers, &body).is_ok());
        prop_assert_eq!(verify(&github, &headers, &other), Err(Refusal::Signature));
    }

    #[test]
    fn no_header_makes_it_panic(
        name in prop::sample::select(vec![
            "X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256", "X-GitHub-Hook-ID",
            "X-GitHub-Hook-Installation-Target-Type", "X-GitHub-Hook-Installation-Target-ID",
        ]),
        value in proptest::collection::vec(32..=255_u8, 0..100),
    ) {
        let github = Declared::new().app("1", &["right"]).hook(Some(2), &["right"]).load();
        let mut headers = headers("push", "wrong", BODY);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert(name, value);
        }
        prop_assert!(verify(&github, &headers, BODY).is_err());
    }
}
