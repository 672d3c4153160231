//! The runner's side of the protocol in [`crate::wire`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Ending;
use crate::id::JobId;
use crate::plain::{Answer, Plain};
use crate::wire::{Completion, Hello, Message, Order, StepReport, Welcome};
use crate::world::Conclusion;

/// How long one request other than a poll may take.
const CALL: Duration = Duration::from_secs(30);
/// How often a request is tried before the server counts as unreachable.
const TRIES: u32 = 8;
/// The wait after the first failure; it doubles with each, up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why the server no longer talks to this runner.
#[derive(Debug)]
pub(super) enum Gone {
    /// It does not know the session or the job any more.
    Unknown,
    Unreachable(String),
}

impl From<Gone> for Ending {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Unknown => Self::NotFound,
            Gone::Unreachable(why) => Self::Unreachable(why),
        }
    }
}

/// A connected session; cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: Plain,
    base: Arc<str>,
    token: SecretString,
    poll: Duration,
}

impl Client {
    pub(super) async fn connect(base: &str, token: &SecretString) -> Result<Self, Ending> {
        let mut client =
            Self { http: Plain::new(), base: base.into(), token: token.clone(), poll: CALL };
        let hello = Hello { os: std::env::consts::OS.into() };
        let answer = client.send(Method::POST, "/session", json(&hello)).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => return Err(Ending::NotFound),
            StatusCode::CONFLICT => return Err(Ending::Conflict),
            _ => {}
        }
        let welcome: Welcome = read(&answer)?;
        client.token = welcome.session.into();
        client.poll = Duration::from_millis(welcome.poll_hold_ms).saturating_add(CALL);
        Ok(client)
    }

    /// Waits for a message; `None` when there was none for a while.
    pub(super) async fn poll(&self) -> Result<Option<Message>, Gone> {
        let answer = self.send_within(Method::GET, "/message", Bytes::new(), self.poll).await?;
        if answer.status == StatusCode::ACCEPTED { Ok(None) } else { read(&answer).map(Some) }
    }

    pub(super) async fn acknowledge(&self, job: JobId) -> Result<Order, Gone> {
        let path = format!("/jobs/{job}/acknowledge");
        read(&self.send(Method::POST, &path, Bytes::new()).await?)
    }

    pub(super) async fn log(&self, job: JobId, text: String) -> Result<(), Gone> {
        self.tell(&format!("/jobs/{job}/log"), text.into()).await
    }

    pub(super) async fn step(&self, job: JobId, report: &StepReport) -> Result<(), Gone> {
        self.tell(&format!("/jobs/{job}/step"), json(report)).await
    }

    pub(super) async fn complete(&self, job: JobId, conclusion: Conclusion) -> Result<(), Gone> {
        self.tell(&format!("/jobs/{job}/complete"), json(&Completion { conclusion })).await
    }

    /// Says goodbye, once; a server that does not hear it will find out by itself.
    pub(super) async fn close(&self) {
        if let Ok(request) = self.request(Method::DELETE, "/session", Bytes::new()) {
            let _ = self.http.send(request, CALL).await;
        }
    }

    async fn tell(&self, path: &str, body: Bytes) -> Result<(), Gone> {
        let answer = self.send(Method::POST, path, body).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            StatusCode::NOT_FOUND => Err(Gone::Unknown),
            status => Err(Gone::Unreachable(format!("the server answered {status}"))),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Gone> {
        self.send_within(method, path, body, CALL).await
    }

    async fn send_within(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Gone> {
        let mut wait = WAIT_FIRST;
        let mut tries = 0;
        loop {
            let request = self
                .request(method.clone(), path, body.clone())
                .map_err(|error| Gone::Unreachable(error.to_string()))?;
            let problem = match self.http.send(request, timeout).await {
                Ok(answer) if !answer.status.is_server_error() => return Ok(answer),
                Ok(answer) => format!("the server answered {}", answer.status),
                Err(error) => error.to_string(),
            };
            tries += 1;
            if tries == TRIES {
                return Err(Gone::Unreachable(problem));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.expose_secret()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("the messages hold nothing that JSON lacks").into()
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Gone> {
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_err(|error| Gone::Unreachable(format!("the answer cannot be read: {error}"))),
        StatusCode::NOT_FOUND => Err(Gone::Unknown),
        status => Err(Gone::Unreachable(format!("the server answered {status}"))),
    }
}
