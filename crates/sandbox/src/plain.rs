//! A small HTTP client for `http://`: the sandbox's webhooks and its runner need no more, and so
//! the runner starts in milliseconds.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Most bytes read of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlainError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct Plain {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Plain {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        // Small requests, each waiting for its answer.
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Answer, PlainError> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                PlainError::Unreachable(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| PlainError::Broken(error.to_string()))?;
            Ok(Answer { status: head.status, body: body.to_bytes() })
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(PlainError::Timeout(timeout)))
    }
}
