//! Who sent a delivery: the signature over its raw body, before anything of it is parsed.
//!
//! GitHub signs with HMAC-SHA256 and sends `X-Hub-Signature-256: sha256=<64 hex digits>`
//! (docs.github.com, "Validating webhook deliveries").

use std::sync::Arc;

use http::HeaderMap;
use remuda_core::Delivery;
use remuda_core::fleet::{self, SecretRef};
use remuda_core::name::ForgeName;
use ring::hmac;
use secrecy::ExposeSecret;

use crate::{RawDelivery, Refusal, SetupError, secrets};

const EVENT: &str = "X-GitHub-Event";
const DELIVERY: &str = "X-GitHub-Delivery";
const SIGNATURE: &str = "X-Hub-Signature-256";
const HOOK_ID: &str = "X-GitHub-Hook-ID";
const TARGET_TYPE: &str = "X-GitHub-Hook-Installation-Target-Type";
const TARGET_ID: &str = "X-GitHub-Hook-Installation-Target-ID";
/// GitHub's ids are GUIDs of 36 characters.
const ID_CHARS_MAX: usize = 128;

/// Everyone whose signature we take.
pub(super) struct Signers {
    apps: Vec<Signer>,
    hooks: Vec<Signer>,
}

struct Signer {
    /// The id by which deliveries name it; none if they cannot.
    id: Option<u64>,
    keys: Vec<hmac::Key>,
}

impl Signers {
    /// Loads the secrets of a forge.
    pub(super) fn new(forge: &fleet::Forge) -> Result<Self, SetupError> {
        // Deliveries name an App by its number, so one declared by client id is told by its secret.
        let taken = forge.demand.webhooks;
        let app = |app: &fleet::App| Signer::new(app.id.parse().ok(), &app.webhook_secrets);
        let hook = |hook: &fleet::Hook| Signer::new(hook.id, &hook.secrets);
        Ok(Self {
            apps: forge.apps.iter().filter(|_| taken).map(app).collect::<Result<_, _>>()?,
            hooks: forge.hooks.iter().filter(|_| taken).map(hook).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn verify(
        &self,
        forge: &ForgeName,
        raw: &RawDelivery<'_>,
    ) -> Result<Delivery, Refusal> {
        let event = word(raw.headers, EVENT)?;
        let id = word(raw.headers, DELIVERY)?;
        let signature = digest(one(raw.headers, SIGNATURE)?.ok_or(Refusal::Missing(SIGNATURE))?)?;
        let signed = |signer: &Signer| signer.signed(raw.body, &signature);
        if !self.candidates(raw.headers)?.into_iter().any(signed) {
            return Err(Refusal::Signature);
        }
        Ok(Delivery {
            forge: forge.clone(),
            id,
            event,
            received_at: raw.received_at,
            body: Arc::from(&raw.body[..]),
        })
    }

    /// Whose secrets may have signed: those of the sender the headers name, if it is declared by that
    /// name; else of all who are not declared by a name; all, if the headers name nobody. (The
    /// headers are not signed. They only narrow down which secret must fit.)
    fn candidates(&self, headers: &HeaderMap) -> Result<Vec<&Signer>, Refusal> {
        let target = number(headers, TARGET_ID)?;
        let is_app = one(headers, TARGET_TYPE)?.is_some_and(|kind| kind == b"integration");
        let hook = number(headers, HOOK_ID)?;
        if let Some(app) = named(&self.apps, target.filter(|_| is_app)) {
            return Ok(vec![app]);
        }
        if let Some(hook) = named(&self.hooks, hook) {
            return Ok(vec![hook]);
        }
        let all = self.apps.iter().chain(&self.hooks);
        if target.is_none() && hook.is_none() {
            return Ok(all.collect());
        }
        Ok(all.filter(|signer| signer.id.is_none()).collect())
    }
}

impl Signer {
    fn new(id: Option<u64>, references: &[SecretRef]) -> Result<Self, SetupError> {
        let mut keys = Vec::new();
        for reference in references {
            let secret = secrets::load(reference)?;
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()));
        }
        Ok(Self { id, keys })
    }

    /// Constant in time for each key: that is what `ring` promises of `verify`.
    fn signed(&self, body: &[u8], signature: &[u8]) -> bool {
        self.keys.iter().any(|key| hmac::verify(key, body, signature).is_ok())
    }
}

fn named(signers: &[Signer], id: Option<u64>) -> Option<&Signer> {
    id.and_then(|id| signers.iter().find(|signer| signer.id == Some(id)))
}

/// The value of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Refusal::Malformed(name)),
    }
}

/// A header of printable ASCII without spaces, of bounded length.
fn word(headers: &HeaderMap, name: &'static str) -> Result<Arc<str>, Refusal> {
    let value = one(headers, name)?.ok_or(Refusal::Missing(name))?;
    let fits = (1..=ID_CHARS_MAX).contains(&value.len());
    match std::str::from_utf8(value) {
        Ok(text) if fits && value.iter().all(u8::is_ascii_graphic) => Ok(text.into()),
        Ok(_) | Err(_) => Err(Refusal::Malformed(name)),
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(value) = one(headers, name)? else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| Refusal::Malformed(name))?;
    text.parse().map(Some).map_err(|_| Refusal::Malformed(name))
}

/// `sha256=` and 64 hexadecimal digits, as 32 bytes.
fn digest(header: &[u8]) -> Result<[u8; 32], Refusal> {
    let malformed = Refusal::Malformed(SIGNATURE);
    let hex = header.strip_prefix(b"sha256=").ok_or(malformed)?;
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return Err(malformed);
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let (high, low) = (digit(pair[0]).ok_or(malformed)?, digit(pair[1]).ok_or(malformed)?);
        *byte = high << 4 | low;
    }
    Ok(bytes)
}
