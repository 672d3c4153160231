//! The command line's side of the socket: one request, one answer, each bounded in time and size.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::State;
use crate::api::Problem;
use crate::exit::Exit;
use crate::serve::socket_path;

/// How long a request may take in all.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Most bytes of an answer: some hundred thousand jobs.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody listens there.
    #[error(
        "no server runs on {state}: {why}; start one with `remuda serve --fleet FILE --state \
         {state}`, or say where it is with --state DIR or REMUDA_STATE"
    )]
    Absent {
        /// The state directory.
        state: String,
        /// What is the matter with its socket.
        why: String,
    },
    /// It listens and does not answer.
    #[error("the server at {socket} does not answer: {why}; its log may say more")]
    Silent {
        /// The socket.
        socket: String,
        /// What happened instead.
        why: String,
    },
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// More than one thing is meant.
    #[error("{0}")]
    Ambiguous(String),
    /// It does not lead.
    #[error("{0}")]
    Standby(String),
    /// It refuses, or fails.
    #[error("{0}")]
    Refused(String),
}

impl ClientError {
    /// How the program ends on account of it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Absent { .. } | Self::Silent { .. } => Exit::Unreachable,
            Self::NotFound(_) => Exit::NotFound,
            Self::Ambiguous(_) => Exit::Usage,
            Self::Standby(_) => Exit::Standby,
            Self::Refused(_) => Exit::Failed,
        }
    }
}

/// A server, by its socket.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    state: PathBuf,
}

impl Client {
    /// The server of a state directory. Asks nothing yet.
    pub(super) fn new(state: &State) -> anyhow::Result<Self> {
        let state = state.directory();
        let http = reqwest::Client::builder()
            .unix_socket(socket_path(&state))
            .timeout(ANSWER_MAX)
            .build()?;
        Ok(Self { http, state })
    }

    /// Reads what is at `path`, of which each part is taken as it is.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.understood(&self.bytes(path, query).await?)
    }

    /// The bytes at `path`.
    pub(super) async fn bytes(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Vec<u8>, ClientError> {
        let response = self.send(Method::GET, path, query, None::<&()>).await?;
        self.body(response).await
    }

    /// Hands over `body`; the answer has nothing in it.
    pub(super) async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.send(Method::POST, path, &[], Some(body)).await.map(drop)
    }

    /// Hands over `body` and reads the answer.
    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = self.send(Method::POST, path, &[], Some(body)).await?;
        self.understood(&self.body(response).await?)
    }

    fn understood<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| {
            self.silent(format!("its answer is not understood ({error}); is it of this version?"))
        })
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<Response, ClientError> {
        let mut url = Url::parse("http://remuda").expect("it is a URL");
        url.path_segments_mut().expect("http URLs have paths").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.body(response).await?;
        let text = serde_json::from_slice::<Problem>(&body).map_or_else(
            |_| format!("the server answers {status}: {}", String::from_utf8_lossy(&body)),
            |problem| problem.error,
        );
        Err(match status {
            StatusCode::NOT_FOUND => ClientError::NotFound(text),
            StatusCode::CONFLICT => ClientError::Ambiguous(text),
            StatusCode::MISDIRECTED_REQUEST => ClientError::Standby(text),
            _ => ClientError::Refused(text),
        })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unsent(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                let why = format!("its answer is over {} MiB", BODY_BYTES_MAX >> 20);
                return Err(self.silent(why));
            }
        }
        Ok(body)
    }

    fn silent(&self, why: String) -> ClientError {
        ClientError::Silent { socket: socket_path(&self.state).display().to_string(), why }
    }

    /// What a request came to that got no answer.
    fn unsent(&self, error: &reqwest::Error) -> ClientError {
        if error.is_timeout() {
            return self.silent(format!("nothing came within {} s", ANSWER_MAX.as_secs()));
        }
        let socket = socket_path(&self.state);
        let place = socket.display();
        let why = match cause(error).map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => format!("there is no socket {place}"),
            Some(io::ErrorKind::ConnectionRefused) => format!("nobody listens at {place}"),
            Some(io::ErrorKind::PermissionDenied) => {
                format!("{place} is another user's; ask as the user that the server runs as")
            }
            Some(_) | None if error.is_connect() => {
                let found = cause(error).map_or_else(|| error.to_string(), ToString::to_string);
                format!("cannot connect to {place} ({found})")
            }
            Some(_) | None => {
                let found = cause(error).map_or_else(|| error.to_string(), ToString::to_string);
                return self.silent(found);
            }
        };
        ClientError::Absent { state: self.state.display().to_string(), why }
    }
}

/// The system's error behind a request's.
fn cause(error: &reqwest::Error) -> Option<&io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}
