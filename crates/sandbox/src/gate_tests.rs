use super::*;
use crate::sandbox::SANDBOX_APP_KEY_PEM;

const APP: AppId = AppId(7);

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn gate(limits: Limits) -> Gate {
    let gate = Gate::new(limits);
    gate.register_key(APP, SANDBOX_APP_KEY_PEM).unwrap();
    gate
}

fn ask(gate: &Gate, token: &str, at: Timestamp) -> Result<Principal, &'static str> {
    gate.principal(Some(&format!("Bearer {token}")), at)
}

fn signed(app: AppId, at: Timestamp) -> String {
    sign_app_token(&SANDBOX_APP_KEY_PEM.into(), app, at).unwrap()
}

#[test]
fn an_apps_key_is_read_in_each_of_its_forms() {
    let expected = public_key(SANDBOX_APP_KEY_PEM).unwrap();
    for pem in [
        include_str!("../tests/data/sandbox-app-private-pkcs8.pem"),
        include_str!("../tests/data/sandbox-app-public-pkcs1.pem"),
        include_str!("../tests/data/sandbox-app-public-spki.pem"),
    ] {
        assert_eq!(public_key(pem), Ok(expected.clone()));
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let cut = &SANDBOX_APP_KEY_PEM[..200];
    let broken = SANDBOX_APP_KEY_PEM.replace('M', "N");
    for text in ["", "key", cut, &broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END"] {
        assert!(public_key(text).is_err(), "{text}");
    }
}

#[test]
fn an_apps_token_holds_only_within_its_time() {
    let gate = gate(Limits::default());
    let token = signed(APP, now());
    assert_eq!(ask(&gate, &token, now()), Ok(Principal::App(APP)));
    let second = Duration::from_secs(1);
    assert!(ask(&gate, &token, now() + second * 539).is_ok());
    assert!(ask(&gate, &token, now() + second * 540).is_err(), "expired");
    assert!(ask(&gate, &token, now() - second * 60).is_ok());
    assert!(ask(&gate, &token, now() - second * 61).is_err(), "issued in the future");
    assert_eq!(ask(&gate, &signed(AppId(8), now()), now()), Err("Integration not found"));
}

#[test]
fn a_token_whose_claims_were_changed_is_refused() {
    let gate = gate(Limits::default());
    gate.register_key(AppId(8), SANDBOX_APP_KEY_PEM).unwrap();
    let (ours, theirs) = (signed(APP, now()), signed(AppId(8), now()));
    let part = |token: &str, place: usize| token.split('.').nth(place).unwrap().to_string();
    let mixed = [part(&ours, 0), part(&theirs, 1), part(&ours, 2)].join(".");
    assert_eq!(ask(&gate, &mixed, now()), Err("A JSON web token could not be decoded"));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let unsigned = [none, part(&ours, 1), String::new()].join(".");
    assert_eq!(ask(&gate, &unsigned, now()), Err("A JSON web token could not be decoded"));
}

#[test]
fn an_installation_token_dies_when_its_time_is_over() {
    let gate = gate(Limits::default());
    let hour = Duration::from_hours(1);
    let token = gate.issue_token(InstallationId(5), now(), now() + hour);
    let holder = Ok(Principal::Installation(InstallationId(5)));
    assert_eq!(ask(&gate, &token, now() + hour - Duration::from_millis(1)), holder);
    assert_eq!(ask(&gate, &token, now() + hour), Err("Bad credentials"));
    assert_eq!(gate.principal(None, now()), Ok(Principal::Anonymous));
    assert_eq!(ask(&gate, "ghs_other", now()), Err("Bad credentials"));
}

#[test]
fn the_hourly_limit_is_each_principals_own_and_comes_back() {
    let gate = gate(Limits { requests_per_hour: Some(2), points_per_minute: None });
    let (one, two) = (Principal::Installation(InstallationId(1)), Principal::App(APP));
    assert_eq!(gate.charge(&one, 1, now()), Ok(()));
    gate.refund(&one);
    assert_eq!(gate.charge(&one, 1, now()), Ok(()));
    assert_eq!(gate.charge(&one, 1, now()), Ok(()));
    assert_eq!(gate.charge(&one, 1, now()), Err(Excess::Primary));
    assert_eq!(gate.charge(&two, 1, now()), Ok(()));
    let rate = gate.rate(&one, now());
    assert_eq!((rate.limit, rate.used, rate.remaining()), (2, 2, 0));
    assert_eq!(gate.charge(&one, 1, rate.reset_at), Ok(()));
}

#[test]
fn the_secondary_limit_counts_points_by_the_minute() {
    let gate = gate(Limits { requests_per_hour: None, points_per_minute: Some(11) });
    let one = Principal::Installation(InstallationId(1));
    assert_eq!(gate.charge(&one, 5, now()), Ok(()));
    assert_eq!(gate.charge(&one, 5, now()), Ok(()));
    let late = now() + Duration::from_secs(50);
    let retry_after = Duration::from_secs(10);
    assert_eq!(gate.charge(&one, 5, late), Err(Excess::Secondary { retry_after }));
    assert_eq!(gate.charge(&one, 1, late), Ok(()));
    assert_eq!(gate.charge(&one, 5, late + retry_after), Ok(()));
}
