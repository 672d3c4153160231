//! A client of the sandbox for the tests: plain requests over HTTP, and runners in the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use remuda_sandbox::{AppConfig, AppId, Config, OwnerConfig, OwnerKind, Sandbox, runner};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub(crate) const APP: AppId = AppId(7);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks the sandbox as one principal.
#[derive(Clone)]
pub(crate) struct Caller {
    http: Client<HttpConnector, Full<Bytes>>,
    pub(crate) base: String,
    pub(crate) token: Option<String>,
}

impl Caller {
    pub(crate) fn new(base: &str, token: Option<String>) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, base: base.into(), token }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send_with(method, path, body, &[]).await
    }

    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => Bytes::new(),
            Some(Value::String(text)) => text.into(),
            Some(value) => {
                request = request.header("content-type", "application/json");
                value.to_string().into()
            }
        };
        let response = self.http.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }
}

/// An App at the organization `acme` (repository `app`) and the person `ann` (repository `tool`).
pub(crate) fn config() -> Config {
    let owner = |login: &str, kind, repository: &str| OwnerConfig {
        login: login.into(),
        kind,
        repositories: vec![repository.into()],
    };
    Config {
        owners: vec![
            owner("acme", OwnerKind::Organization, "app"),
            owner("ann", OwnerKind::User, "tool"),
        ],
        apps: vec![AppConfig::new(APP.0)],
        ..Config::default()
    }
}

/// A caller with the App's own token.
pub(crate) fn app(sandbox: &Sandbox) -> Caller {
    let token = sandbox.app_token(APP).unwrap().expose_secret().to_string();
    Caller::new(&format!("{}/api/v3", sandbox.url()), Some(token))
}

/// A caller with the token of the App's installation at `login`.
pub(crate) async fn installation(sandbox: &Sandbox, login: &str) -> Caller {
    let mut caller = app(sandbox);
    let place = if login == "ann" { "users" } else { "orgs" };
    let installation = caller.get(&format!("/{place}/{login}/installation")).await.json();
    let path = format!("/app/installations/{}/access_tokens", installation["id"]);
    let answer = caller.post(&path, json!({})).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    caller.token = Some(answer.json()["token"].as_str().unwrap().into());
    caller
}

/// Registers a runner at `at` (`/orgs/acme` or `/repos/acme/app`) and gives its configuration.
pub(crate) async fn register(
    caller: &Caller,
    at: &str,
    name: &str,
    labels: &[&str],
) -> SecretString {
    let body = json!({ "name": name, "runner_group_id": 1, "labels": labels });
    let answer = caller.post(&format!("{at}/actions/runners/generate-jitconfig"), body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.json());
    answer.json()["encoded_jit_config"].as_str().unwrap().to_string().into()
}

/// A runner's output while it runs.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the runner program in a directory of its own until it exits.
pub(crate) async fn run(jit: SecretString) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let out = Output::default();
    let work = PathBuf::from(directory.path());
    let code = runner::run_until(jit, work, out.clone(), std::future::pending()).await;
    (code, out.text())
}

/// The headers and bodies that a webhook's receiver got.
pub(crate) type Received = Arc<Mutex<Vec<(BTreeMap<String, String>, Value)>>>;

/// A receiver of webhooks that answers 200 to all of them; its URL and what it got.
pub(crate) async fn receiver(tasks: &mut tokio::task::JoinSet<()>) -> (String, Received) {
    let received = Received::default();
    let kept = received.clone();
    let take = move |headers: HeaderMap, body: Bytes| {
        let kept = kept.clone();
        async move {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string()))
                .collect();
            let body = serde_json::from_slice(&body).unwrap();
            kept.lock().unwrap().push((headers, body));
            StatusCode::OK
        }
    };
    let app = axum::Router::new().route("/hook", axum::routing::post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, received)
}
