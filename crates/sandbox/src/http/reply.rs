//! Answers in GitHub's form: JSON bodies, its error shape, its pages.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const DOCUMENTATION: &str = "https://docs.github.com/rest";

/// A JSON answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Option<Value>,
    headers: Vec<(HeaderName, String)>,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self::with(StatusCode::OK, body)
    }

    pub(super) fn with(status: StatusCode, body: Value) -> Self {
        Self { status, body: Some(body), headers: Vec::new() }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, body: None, headers: Vec::new() }
    }

    pub(super) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let body = self.body.map(|body| body.to_string()).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        if self.status != StatusCode::NO_CONTENT {
            response.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A request that is not served, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    errors: Option<Value>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errors: None, retry_after: None }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Resource not accessible by integration")
    }

    /// 422 with the field at fault, as `validation-error`.
    pub(super) fn field(resource: &str, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let error = json!({
            "resource": resource, "field": field, "code": "custom", "message": message,
        });
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed");
        refusal.errors = Some(json!([error]));
        refusal
    }

    /// 422 with a bare message, as `validation-error-simple`.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, message.clone());
        refusal.errors = Some(json!([message]));
        refusal
    }

    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({
            "message": self.message,
            "documentation_url": DOCUMENTATION,
            "status": self.status.as_str(),
        });
        if let Some(errors) = self.errors {
            body["errors"] = errors;
        }
        let mut reply = Reply::with(self.status, body);
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            reply = reply.header(header::RETRY_AFTER, seconds.to_string());
        }
        reply.into_response()
    }
}

/// Reads a JSON body; an empty one is `{}`, as GitHub takes it.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refusal> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes.as_ref() };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "Problems parsing JSON"))?;
    serde_json::from_value(value)
        .map_err(|error| Refusal::invalid(format!("Invalid request. {error}")))
}

/// A JSON body that is read as [`body`] reads it.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(IntoResponse::into_response)?;
        body(&bytes).map(Self).map_err(IntoResponse::into_response)
    }
}

/// The query of a request, and the page it asks for.
#[derive(Debug)]
pub(super) struct Page {
    per_page: usize,
    page: usize,
}

pub(super) type Query = axum::extract::Query<BTreeMap<String, String>>;

impl Page {
    pub(super) fn of(query: &Query) -> Self {
        let number = |name: &str, default: usize| {
            query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default).max(1)
        };
        Self { per_page: number("per_page", 30).min(100), page: number("page", 1) }
    }

    /// The items of this page, and the reply's `Link` header, from all there are.
    pub(super) fn cut<T>(
        &self,
        all: Vec<T>,
        path: &str,
        query: &Query,
    ) -> (Vec<T>, Option<String>) {
        let last = all.len().div_ceil(self.per_page).max(1);
        let skipped = (self.page - 1).saturating_mul(self.per_page);
        let items = all.into_iter().skip(skipped).take(self.per_page).collect();
        let link = |page: usize, relation: &str| {
            let mut fields = query.0.clone();
            fields.insert("page".into(), page.to_string());
            fields.insert("per_page".into(), self.per_page.to_string());
            format!("<{path}?{}>; rel=\"{relation}\"", encode(&fields))
        };
        let mut links = Vec::new();
        if self.page > 1 {
            links.push(link(self.page - 1, "prev"));
        }
        if self.page < last {
            links.push(link(self.page + 1, "next"));
            links.push(link(last, "last"));
        }
        if self.page > 1 {
            links.push(link(1, "first"));
        }
        (items, (!links.is_empty()).then(|| links.join(", ")))
    }

    pub(super) const fn size(&self) -> usize {
        self.per_page
    }
}

/// Replies with a page; `body` puts the items and their total number into their shape.
pub(super) fn paged(
    all: Vec<Value>,
    path: &str,
    query: &Query,
    body: impl FnOnce(Vec<Value>, usize) -> Value,
) -> Reply {
    let total = all.len();
    let (items, link) = Page::of(query).cut(all, path, query);
    let reply = Reply::ok(body(items, total));
    match link {
        Some(link) => reply.header(header::LINK, link),
        None => reply,
    }
}

/// `fields` as a query string.
pub(super) fn encode(fields: &BTreeMap<String, String>) -> String {
    let escape =
        |text: &str| -> String {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
            text.bytes()
                .map(|byte| {
                    if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
                })
                .collect()
        };
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}
