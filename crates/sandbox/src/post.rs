//! Webhooks on their way: signed, sent once, recorded. GitHub does not send again by itself, and
//! neither does this.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rand::Rng;
use remuda_core::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::faults::WebhookFate;
use crate::hex::hex;
use crate::id::{DeliveryId, HookId, InstallationId, RepositoryId};
use crate::plain::Plain;
use crate::shared::{Shared, lock};
use crate::world::{Hook, HookAt};

/// Most deliveries kept to be listed; the oldest go first.
const KEPT_MAX: usize = 10_000;
/// Most deliveries waiting to be sent; beyond, they fail at once.
const WAITING_MAX: usize = 100_000;
/// Deliveries on the wire at a time.
const AT_ONCE: usize = 32;
/// Most bytes kept of a receiver's answer.
const ANSWER_BYTES_KEPT: usize = 1024;

/// A webhook to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) guid: String,
    pub(crate) hook: HookId,
    pub(crate) event: &'static str,
    pub(crate) action: Option<&'static str>,
    pub(crate) installation: Option<InstallationId>,
    pub(crate) repository: Option<RepositoryId>,
    pub(crate) redelivery: bool,
    body: Arc<str>,
    target: (&'static str, u64),
    url: String,
    secret: SecretString,
}

impl Letter {
    pub(crate) fn new(hook: &Hook, event: &'static str, body: String) -> Self {
        let target = match hook.at {
            HookAt::App(id) => ("integration", id.0),
            HookAt::Organization(id) => ("organization", id.0),
            HookAt::Repository(id) => ("repository", id.0),
        };
        Self {
            guid: guid(),
            hook: hook.id,
            event,
            action: None,
            installation: None,
            repository: None,
            redelivery: false,
            body: body.into(),
            target,
            url: hook.url.clone(),
            secret: hook.secret.clone(),
        }
    }

    /// The headers it goes out with, as GitHub records them too.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let (target, id) = self.target;
        let mut headers = vec![
            ("Accept", "*/*".to_string()),
            ("Content-Type", "application/json".to_string()),
            ("User-Agent", "GitHub-Hookshot/remuda".to_string()),
            ("X-GitHub-Delivery", self.guid.clone()),
            ("X-GitHub-Event", self.event.to_string()),
            ("X-GitHub-Hook-ID", self.hook.to_string()),
            ("X-GitHub-Hook-Installation-Target-ID", id.to_string()),
            ("X-GitHub-Hook-Installation-Target-Type", target.to_string()),
        ];
        let secret = self.secret.expose_secret();
        if !secret.is_empty() {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let tag = hmac::sign(&key, self.body.as_bytes());
            headers.push(("X-Hub-Signature-256", format!("sha256={}", hex(tag.as_ref()))));
        }
        headers
    }

    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// A delivery as recorded.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) id: DeliveryId,
    pub(crate) letter: Letter,
    pub(crate) delivered_at: Timestamp,
    pub(crate) outcome: Outcome,
}

/// What became of a delivery.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Pending,
    Answered { status: u16, took: Duration, body: String },
    Failed { why: String, took: Duration },
}

impl Outcome {
    pub(crate) const fn succeeded(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

/// What became of all deliveries, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PostCounts {
    pub(crate) attempted: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) vanished: u64,
    pub(crate) duplicated: u64,
    pub(crate) redelivered: u64,
    /// Not sent yet or not answered yet.
    pub(crate) pending: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Post {
    office: Mutex<Office>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Office {
    deliveries: BTreeMap<DeliveryId, Delivery>,
    waiting: VecDeque<(DeliveryId, Letter, Duration)>,
    last: u64,
    counts: PostCounts,
}

impl Post {
    pub(crate) fn send(&self, letter: Letter, now: Timestamp) {
        self.send_by(WebhookFate::Sent { copies: 1, after: Duration::ZERO }, letter, now);
    }

    pub(crate) fn send_by(&self, fate: WebhookFate, letter: Letter, now: Timestamp) {
        let mut office = lock(&self.office);
        match fate {
            WebhookFate::Vanished => office.counts.vanished += 1,
            WebhookFate::Dropped => {
                office.counts.dropped += 1;
                let id = office.record(letter, now);
                office
                    .settle(id, Outcome::Failed { why: "timed out".into(), took: Duration::ZERO });
            }
            WebhookFate::Sent { copies, after } => {
                office.counts.duplicated += u64::from(copies.saturating_sub(1));
                for _ in 0..copies {
                    office.queue(letter.clone(), after, now);
                }
                self.wake.notify_one();
            }
        }
    }

    /// Sends a recorded delivery again, under the same GUID. False if there is no such delivery.
    pub(crate) fn redeliver(&self, hook: HookId, id: DeliveryId, now: Timestamp) -> bool {
        let mut office = lock(&self.office);
        let Some(delivery) = office.deliveries.get(&id).filter(|old| old.letter.hook == hook)
        else {
            return false;
        };
        let letter = Letter { redelivery: true, ..delivery.letter.clone() };
        office.counts.redelivered += 1;
        office.queue(letter, Duration::ZERO, now);
        self.wake.notify_one();
        true
    }

    pub(crate) fn delivery(&self, id: DeliveryId) -> Option<Delivery> {
        lock(&self.office).deliveries.get(&id).cloned()
    }

    /// Recorded deliveries older than `before`, newest first.
    pub(crate) fn deliveries(
        &self,
        before: Option<DeliveryId>,
        limit: usize,
        wanted: impl Fn(&Delivery) -> bool,
    ) -> Vec<Delivery> {
        let before = before.unwrap_or(DeliveryId(u64::MAX));
        let office = lock(&self.office);
        let older = office.deliveries.range(..before).rev().map(|(_, delivery)| delivery);
        older.filter(|delivery| wanted(delivery)).take(limit).cloned().collect()
    }

    pub(crate) fn counts(&self) -> PostCounts {
        lock(&self.office).counts
    }

    fn settle(&self, id: DeliveryId, outcome: Outcome) {
        lock(&self.office).settle(id, outcome);
    }

    fn take(&self) -> Option<(DeliveryId, Letter, Duration)> {
        lock(&self.office).waiting.pop_front()
    }
}

impl Office {
    fn record(&mut self, letter: Letter, now: Timestamp) -> DeliveryId {
        self.last += 1;
        // GitHub's numbers are beyond 32 bits.
        let id = DeliveryId(12_000_000_000 + self.last);
        self.counts.pending += 1;
        let outcome = Outcome::Pending;
        self.deliveries.insert(id, Delivery { id, letter, delivered_at: now, outcome });
        if self.deliveries.len() > KEPT_MAX {
            self.deliveries.pop_first();
        }
        id
    }

    fn queue(&mut self, letter: Letter, after: Duration, now: Timestamp) {
        let id = self.record(letter.clone(), now);
        if self.waiting.len() < WAITING_MAX {
            self.counts.attempted += 1;
            self.waiting.push_back((id, letter, after));
        } else {
            let why = format!("{WAITING_MAX} deliveries are waiting");
            self.settle(id, Outcome::Failed { why, took: Duration::ZERO });
        }
    }

    fn settle(&mut self, id: DeliveryId, outcome: Outcome) {
        self.counts.pending = self.counts.pending.saturating_sub(1);
        if outcome.succeeded() {
            self.counts.succeeded += 1;
        } else {
            self.counts.failed += 1;
        }
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.outcome = outcome;
        }
    }
}

/// Sends what is waiting until the sandbox stops; what is then on the wire is given up.
pub(crate) async fn deliver(shared: Arc<Shared>) {
    let client = Plain::new();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut sending = JoinSet::new();
    loop {
        while let Some((id, letter, after)) = shared.post.take() {
            let (shared, client, slots) = (shared.clone(), client.clone(), slots.clone());
            sending.spawn(async move {
                tokio::time::sleep(after).await;
                let _slot = slots.acquire().await;
                let outcome = send(&client, &letter, shared.times.webhook).await;
                shared.post.settle(id, outcome);
                shared.revised();
            });
        }
        tokio::select! {
            () = shared.stop.cancelled() => break,
            () = shared.post.wake.notified() => {}
            Some(_) = sending.join_next() => {}
        }
    }
    sending.shutdown().await;
}

async fn send(client: &Plain, letter: &Letter, timeout: Duration) -> Outcome {
    let begun = tokio::time::Instant::now();
    let mut request = Request::post(&letter.url);
    for (name, value) in letter.headers() {
        request = request.header(name, value);
    }
    let body = Full::new(Bytes::copy_from_slice(letter.body.as_bytes()));
    let answer = match request.body(body) {
        Ok(request) => client.send(request, timeout).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let took = begun.elapsed();
    match answer {
        Ok(answer) => {
            let end = answer.body.len().min(ANSWER_BYTES_KEPT);
            let body = String::from_utf8_lossy(&answer.body[..end]).into_owned();
            Outcome::Answered { status: answer.status.as_u16(), took, body }
        }
        Err(why) => Outcome::Failed { why, took },
    }
}

// Truly random: the receiver tells deliveries apart by it, also those of two sandboxes with the
// same seed.
fn guid() -> String {
    let hex = format!("{:032x}", rand::rng().random::<u128>());
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}
