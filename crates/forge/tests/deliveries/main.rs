//! Deliveries: whose signature is taken, and what the payloads say.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod decode;
mod verify;

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use remuda_core::fleet::{self, Demand, Hook, Polls, SecretRef};
use remuda_core::name::{ForgeName, GroupName};
use remuda_core::{Delivery, Timestamp};
use remuda_forge::{Forge, GitHub, RawDelivery, Refusal};
use ring::hmac;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A forge whose secrets lie in files of its own.
struct Declared {
    forge: fleet::Forge,
    files: Vec<tempfile::NamedTempFile>,
}

impl Declared {
    fn new() -> Self {
        let forge = fleet::Forge {
            name: ForgeName::new("github").unwrap(),
            api: "http://127.0.0.1:9".into(),
            apps: Vec::new(),
            token: None,
            hooks: Vec::new(),
            scopes: Vec::new(),
            group: GroupName::new("remuda").unwrap(),
            polls: Polls::default(),
            demand: Demand::default(),
        };
        Self { forge, files: Vec::new() }
    }

    fn secret(&mut self, text: &str) -> SecretRef {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let reference = SecretRef::File(file.path().into());
        self.files.push(file);
        reference
    }

    fn app(mut self, id: &str, secrets: &[&str]) -> Self {
        let webhook_secrets = secrets.iter().map(|text| self.secret(text)).collect();
        let private_key = SecretRef::File(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/app-pkcs1.pem").into(),
        );
        let owners = Vec::new();
        self.forge.apps.push(fleet::App { id: id.into(), private_key, webhook_secrets, owners });
        self
    }

    fn hook(mut self, id: Option<u64>, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|text| self.secret(text)).collect();
        self.forge.hooks.push(Hook { id, scope: None, secrets });
        self
    }

    fn load(&self) -> GitHub {
        GitHub::new(&self.forge, Arc::new(|| NOW)).unwrap()
    }
}

fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let mut text = String::from("sha256=");
    for byte in tag.as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// The headers of an event, signed with `secret`.
fn headers(event: &str, secret: &str, body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-github-event", event.parse().unwrap());
    headers.insert("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap());
    headers.insert("x-hub-signature-256", sign(secret, body).parse().unwrap());
    headers
}

fn verify(github: &GitHub, headers: &HeaderMap, body: &[u8]) -> Result<Delivery, Refusal> {
    let body = Bytes::copy_from_slice(body);
    github.verify(&RawDelivery { headers, body: &body, received_at: NOW })
}
