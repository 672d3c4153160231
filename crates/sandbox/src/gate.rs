//! Who asks, and how much they may: App tokens (RS256, checked with the App's registered key),
//! installation tokens, personal tokens; the primary and the secondary rate limit.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::Rng;
use remuda_core::Timestamp;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::config::{Limits, PersonalToken};
use crate::id::{AppId, InstallationId};
use crate::shared::lock;

/// What GitHub tells when no limit is set.
const UNLIMITED: u32 = 5000;
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Principal {
    Anonymous,
    App(AppId),
    Installation(InstallationId),
    Person(String),
}

/// The state of a principal's hourly limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) limit: u32,
    pub(crate) used: u32,
    pub(crate) reset_at: Timestamp,
}

impl Rate {
    pub(crate) const fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// Why a request may not pass, beside who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    Primary,
    Secondary { retry_after: Duration },
}

pub(crate) struct Gate {
    limits: Limits,
    keys: Mutex<BTreeMap<AppId, Vec<u8>>>,
    personal: Mutex<Vec<PersonalToken>>,
    tokens: Mutex<BTreeMap<String, (InstallationId, Timestamp)>>,
    meters: Mutex<BTreeMap<Principal, Meter>>,
}

#[derive(Clone, Copy, Debug)]
struct Meter {
    hour_from: Timestamp,
    used: u32,
    minute_from: Timestamp,
    points: u32,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            keys: Mutex::default(),
            personal: Mutex::default(),
            tokens: Mutex::default(),
            meters: Mutex::default(),
        }
    }

    /// Registers the key that an App signs with: a private or public RSA key in PEM.
    pub(crate) fn register_key(&self, app: AppId, pem: &str) -> Result<(), &'static str> {
        lock(&self.keys).insert(app, public_key(pem)?);
        Ok(())
    }

    pub(crate) fn register_person(&self, token: PersonalToken) {
        lock(&self.personal).push(token);
    }

    pub(crate) fn issue_token(
        &self,
        to: InstallationId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> String {
        let token = format!("ghs_{:032x}{:016x}", rand::rng().random::<u128>(), to.0);
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, (_, expires_at)| *expires_at > now);
        tokens.insert(token.clone(), (to, expires_at));
        token
    }

    /// Who `authorization` stands for, or GitHub's message of refusal.
    pub(crate) fn principal(
        &self,
        authorization: Option<&str>,
        now: Timestamp,
    ) -> Result<Principal, &'static str> {
        let Some(header) = authorization else { return Ok(Principal::Anonymous) };
        let (scheme, token) = header.split_once(' ').ok_or("Bad credentials")?;
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("token") {
            return Err("Bad credentials");
        }
        let token = token.trim();
        if let Some((installation, expires_at)) = lock(&self.tokens).get(token) {
            return if *expires_at > now {
                Ok(Principal::Installation(*installation))
            } else {
                Err("Bad credentials")
            };
        }
        let same = |person: &&PersonalToken| person.token.expose_secret() == token;
        if let Some(person) = lock(&self.personal).iter().find(same) {
            return Ok(Principal::Person(person.login.clone()));
        }
        if token.split('.').count() == 3 {
            return self.app(token, now).map(Principal::App);
        }
        Err("Bad credentials")
    }

    fn app(&self, jwt: &str, now: Timestamp) -> Result<AppId, &'static str> {
        const UNREADABLE: &str = "A JSON web token could not be decoded";
        let (signed, signature) = jwt.rsplit_once('.').ok_or(UNREADABLE)?;
        let (header, claims) = signed.split_once('.').ok_or(UNREADABLE)?;
        let header: Header = decode(header).ok_or(UNREADABLE)?;
        if header.alg != "RS256" {
            return Err(UNREADABLE);
        }
        let claims: Claims = decode(claims).ok_or(UNREADABLE)?;
        let id = claims.app().ok_or("'Issuer' claim ('iss') must be an Integer")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| UNREADABLE)?;
        let keys = lock(&self.keys);
        let key = keys.get(&id).ok_or("Integration not found")?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| UNREADABLE)?;
        let now = now.as_millis().div_euclid(1000);
        if claims.iat > now {
            return Err("'Issued at' claim ('iat') must be an Integer representing the time that \
                        the assertion was issued");
        }
        if claims.exp <= now {
            return Err(
                "'Expiration time' claim ('exp') must be a numeric value representing the \
                        future time at which the assertion expires",
            );
        }
        if claims.exp > now + 600 {
            return Err("'Expiration time' claim ('exp') is too far in the future");
        }
        Ok(id)
    }

    /// Counts a request of `points` against the limits.
    pub(crate) fn charge(
        &self,
        principal: &Principal,
        points: u32,
        now: Timestamp,
    ) -> Result<(), Excess> {
        let mut meters = lock(&self.meters);
        let meter = meters.entry(principal.clone()).or_insert_with(|| Meter::new(now));
        meter.roll(now);
        if self.limits.requests_per_hour.is_some_and(|limit| meter.used >= limit) {
            return Err(Excess::Primary);
        }
        if self.limits.points_per_minute.is_some_and(|limit| meter.points + points > limit) {
            let retry_after = (meter.minute_from + MINUTE).since(now);
            return Err(Excess::Secondary { retry_after });
        }
        meter.used += 1;
        meter.points += points;
        Ok(())
    }

    /// Gives a request back: a 304 costs nothing.
    pub(crate) fn refund(&self, principal: &Principal) {
        if let Some(meter) = lock(&self.meters).get_mut(principal) {
            meter.used = meter.used.saturating_sub(1);
        }
    }

    pub(crate) fn rate(&self, principal: &Principal, now: Timestamp) -> Rate {
        let mut meter =
            lock(&self.meters).get(principal).copied().unwrap_or_else(|| Meter::new(now));
        meter.roll(now);
        let reset_at = meter.hour_from + HOUR;
        match self.limits.requests_per_hour {
            Some(limit) => Rate { limit, used: meter.used, reset_at },
            None => Rate { limit: UNLIMITED, used: 0, reset_at },
        }
    }
}

impl Meter {
    fn new(now: Timestamp) -> Self {
        Self { hour_from: now, used: 0, minute_from: now, points: 0 }
    }

    fn roll(&mut self, now: Timestamp) {
        if now.since(self.hour_from) >= HOUR {
            (self.hour_from, self.used) = (now, 0);
        }
        if now.since(self.minute_from) >= MINUTE {
            (self.minute_from, self.points) = (now, 0);
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: serde_json::Value,
    iat: i64,
    exp: i64,
}

impl Claims {
    /// The App's number, or the client id that stands for it.
    fn app(&self) -> Option<AppId> {
        if let Some(number) = self.iss.as_u64() {
            return Some(AppId(number));
        }
        let text = self.iss.as_str()?;
        match text.strip_prefix("Iv1.") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(AppId),
            None => text.parse().ok().map(AppId),
        }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The `RSAPublicKey` (DER) of a PEM with a private or public RSA key.
fn public_key(pem: &str) -> Result<Vec<u8>, &'static str> {
    let begin = pem.find("-----BEGIN ").ok_or("not PEM: there is no BEGIN line")?;
    let (kind, rest) =
        pem[begin + 11..].split_once("-----").ok_or("not PEM: the BEGIN line is cut off")?;
    let (body, _) = rest.split_once("-----END").ok_or("not PEM: there is no END line")?;
    let body: String = body.split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| "not PEM: the body is not base64")?;
    let public = |pair: RsaKeyPair| pair.public_key().as_ref().to_vec();
    let unusable = "not an RSA key of 2048 bits or more";
    match kind {
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map(public).map_err(|_| unusable),
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&der).map(public).map_err(|_| unusable),
        "RSA PUBLIC KEY" => Ok(der),
        "PUBLIC KEY" => inside_spki(&der).map(<[u8]>::to_vec).ok_or(unusable),
        _ => Err("not a private or public RSA key"),
    }
}

/// The `RSAPublicKey` inside a `SubjectPublicKeyInfo`: `SEQUENCE { algorithm, BIT STRING }`.
fn inside_spki(der: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(der, 0x30)?;
    let (_algorithm, rest) = element(outer, 0x30)?;
    let (bits, _) = element(rest, 0x03)?;
    bits.strip_prefix(&[0])
}

/// The contents of the DER element with `tag` at the start of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// Signs an App token with a private key; for clients in tests and the demo.
pub(crate) fn sign_app_token(
    pem: &SecretString,
    app: AppId,
    now: Timestamp,
) -> Result<String, &'static str> {
    let body: String =
        pem.expose_secret().lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).map_err(|_| "not PEM")?;
    let pair = RsaKeyPair::from_der(&der).map_err(|_| "not a PKCS#1 key")?;
    let now = now.as_millis().div_euclid(1000);
    let claims = serde_json::json!({ "iat": now - 60, "exp": now + 540, "iss": app.to_string() });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed =
        format!("{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(&claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    pair.sign(&ring::signature::RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)
        .map_err(|_| "the key does not sign")?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
