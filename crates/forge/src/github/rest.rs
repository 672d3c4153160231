//! One HTTP request and what its answer means: limits, budgets, conditional requests,
//! pages. Knows nothing of what is asked. Every request has a timeout and a bound on its answer; none is sent twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use remuda_core::Timestamp;
use remuda_core::budget::{Budget, Credential};
use reqwest::{Client, Url, redirect};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use super::bearer::{Bearer, Meter, Who};
use crate::cache::Cache;
use crate::error::bounded;
use crate::{Clock, Effect, ForgeError, SetupError};

/// Bounds on every call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Until the connection stands.
    pub connect: Duration,
    /// From the start of the call to the end of its answer.
    pub total: Duration,
    /// Most bytes of an answer.
    pub body_bytes_max: usize,
    /// Most pages of a listing.
    pub pages_max: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(30),
            body_bytes_max: 10 * 1024 * 1024,
            // GitHub admits 10,000 runners to a group; at 100 a page that is half of this.
            pages_max: 200,
        }
    }
}

/// Items of a page: the most GitHub gives.
pub(super) const PER_PAGE: usize = 100;
/// Bytes of answers remembered for conditional requests.
const ETAG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What remembering an answer costs besides its body.
const ETAG_OVERHEAD: usize = 500;
/// GitHub asks for at least a minute where it names no time.
const LIMITED_DEFAULT: Duration = Duration::from_mins(1);
/// GitHub's windows are an hour; a header that asks for more is not believed.
const LIMITED_MAX: Duration = Duration::from_hours(1);
/// Two ends of windows that lie so close are one, told with different delays.
const SAME_WINDOW: Duration = Duration::from_mins(1);
/// A difference of clocks that GitHub's own leeway and our margin cover.
const SKEW_MAX: Duration = Duration::from_secs(30);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    effect: Effect,
}

impl Ask {
    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), body: None, effect: Effect::None }
    }

    /// Removal of what is not there is answered, not feared: asking again does no harm.
    pub(super) fn delete(path: String) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    pub(super) fn post(path: String, body: Value, effect: Effect) -> Self {
        Self { method: Method::POST, body: Some(body), effect, ..Self::get(path) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The call, for people.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The call came to nothing.
    pub(super) fn broken(&self, problem: impl Into<String>) -> ForgeError {
        ForgeError::Broken { call: self.name(), effect: self.effect, problem: problem.into() }
    }
}

/// An answer that is neither a fault of the forge's nor a call for patience.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The forge's time when it answered, if it said.
    pub(super) date: Option<Timestamp>,
    body: Arc<[u8]>,
    more: More,
    /// Where a listing goes on that is paged by cursor.
    next: Option<String>,
}

/// Whether a listing goes on after this page.
#[derive(Clone, Copy, Debug)]
enum More {
    Yes,
    No,
    /// No `Link` header: so it is the only page, or the server has none to give.
    Unsaid,
}

/// A page of a listing, in its wrapper.
pub(super) trait Page: DeserializeOwned {
    type Item;
    fn items(self) -> Vec<Self::Item>;
}

impl<T: DeserializeOwned> Page for Vec<T> {
    type Item = T;
    fn items(self) -> Self {
        self
    }
}

impl Answer {
    /// True if what was asked for was granted.
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Where a listing goes on that is paged by cursor; none if this is its last page.
    pub(super) fn cursor(&self) -> Option<String> {
        self.next.clone()
    }

    /// The body as `T`, if the call was granted.
    pub(super) fn read<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, ForgeError> {
        self.parse(ask, |error| bounded(&error.to_string()))
    }

    /// The same for a body with a secret in it, of which an error must not quote a word.
    pub(super) fn read_secret<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, ForgeError> {
        self.parse(ask, |error| format!("line {} column {}", error.line(), error.column()))
    }

    fn parse<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        describe: fn(&serde_json::Error) -> String,
    ) -> Result<T, ForgeError> {
        if !self.status.is_success() {
            return Err(self.refused(ask));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ask.broken(format!("the answer cannot be read: {}", describe(&error))))
    }

    /// The forge's no, in its own words.
    pub(super) fn refused(&self, ask: &Ask) -> ForgeError {
        ForgeError::Refused { call: ask.name(), status: self.status, message: self.message() }
    }

    /// What the forge says of an error. Proxies answer with pages; those are not shown.
    pub(super) fn message(&self) -> String {
        message(&self.body)
    }
}

/// The `message` of an error's body, or what to say in its place.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Error {
        message: String,
    }
    serde_json::from_slice::<Error>(body)
        .map_or_else(|_| "(no message in the answer)".into(), |error| bounded(&error.message))
}

struct Remembered {
    etag: HeaderValue,
    answer: Answer,
}

/// The HTTP client of one forge.
pub(super) struct Rest {
    client: Client,
    base: String,
    clock: Clock,
    limits: CallLimits,
    /// The forge's time less ours, in milliseconds; 0 until a signed request failed for it.
    skew: AtomicI64,
    remembered: Mutex<Cache<(Who, String), Arc<Remembered>>>,
    budgets: Mutex<BTreeMap<Credential, Noted>>,
}

/// What the forge last said of a budget.
struct Noted {
    budget: Budget,
    /// Nobody has been told of it.
    news: bool,
}

impl Rest {
    pub(super) fn new(api: &str, clock: Clock, limits: CallLimits) -> Result<Self, SetupError> {
        let refuse = |problem| SetupError::Api { api: bounded(api), problem };
        let base = Url::parse(api).map_err(|_| refuse("it is not a URL"))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(SetupError::Api { api: "…".into(), problem: "it holds a credential" });
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(refuse("it has a query or fragment"));
        }
        // The result only says whether somebody was first, with the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder();
        let client = match base.scheme() {
            "https" => client.https_only(true),
            // No proxy and no certificates: a sandbox must work on a machine that has none.
            "http" if is_loopback(&base) => client.no_proxy().tls_certs_only([]),
            "http" => return Err(refuse("plain http is for loopback addresses only")),
            _ => return Err(refuse("it begins with neither https: nor http:")),
        };
        let client = client
            .user_agent(concat!("remuda/", env!("CARGO_PKG_VERSION")))
            .default_headers(default_headers())
            .redirect(same_origin(base))
            .retry(reqwest::retry::never())
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .build()
            .map_err(|error| SetupError::Client(chain(&error)))?;
        Ok(Self {
            client,
            base: api.trim_end_matches('/').into(),
            clock,
            limits,
            skew: AtomicI64::new(0),
            remembered: Mutex::new(Cache::new(ETAG_BYTES_MAX)),
            budgets: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The time as the forge would tell it, as far as we know.
    pub(super) fn forge_now(&self) -> Timestamp {
        let skew = self.skew.load(Ordering::Relaxed);
        Timestamp::from_millis(self.now().as_millis().saturating_add(skew))
    }

    /// Takes note of the forge's clock after it refused a signature. True if that may have been why.
    pub(super) fn learn_skew(&self, date: Timestamp) -> Option<i64> {
        let believed = self.forge_now();
        let off = date.since(believed).max(believed.since(date));
        if off <= SKEW_MAX {
            return None;
        }
        let skew = date.as_millis().saturating_sub(self.now().as_millis());
        self.skew.store(skew, Ordering::Relaxed);
        Some(skew / 1000)
    }

    /// An instant the forge named, on our clock: what counts is how far it lies from the forge's now.
    pub(super) fn here(&self, theirs: Timestamp, date: Option<Timestamp>) -> Timestamp {
        let date = date.unwrap_or_else(|| self.forge_now());
        let ahead = theirs.as_millis().saturating_sub(date.as_millis());
        Timestamp::from_millis(self.now().as_millis().saturating_add(ahead))
    }

    /// What the forge has said of budgets since this was last asked.
    pub(super) fn budgets(&self) -> Vec<(Credential, Budget)> {
        let mut noted = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let news = noted.iter_mut().filter(|(_, noted)| noted.news);
        news.map(|(credential, noted)| {
            noted.news = false;
            (credential.clone(), noted.budget)
        })
        .collect()
    }

    /// Calls that a credential has left, as far as the forge has said.
    pub(super) fn left(&self, credential: &Credential) -> u64 {
        let noted = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(credential).map_or(u64::MAX, |noted| noted.budget.left_at(self.now()))
    }

    /// Reads every page of a listing.
    pub(super) async fn pages<P: Page>(
        &self,
        bearer: &Bearer,
        ask: Ask,
    ) -> Result<Vec<P::Item>, ForgeError> {
        let ask = ask.with("per_page", PER_PAGE.to_string());
        let mut all = Vec::new();
        for number in 1..=self.limits.pages_max {
            let page = ask.clone().with("page", number.to_string());
            let answer = self.send(bearer, &page).await?;
            let items = answer.read::<P>(&page)?.items();
            let full = items.len() >= PER_PAGE;
            all.extend(items);
            match answer.more {
                More::Yes => {}
                More::Unsaid if full => {}
                More::No | More::Unsaid => return Ok(all),
            }
        }
        Err(ForgeError::TooLong { call: ask.name(), max: self.limits.pages_max, what: "pages" })
    }

    /// Sends a request and waits for its whole answer.
    pub(super) async fn send(&self, bearer: &Bearer, ask: &Ask) -> Result<Answer, ForgeError> {
        if bearer.meter.as_ref().is_some_and(|meter| !meter.take()) {
            return Err(ForgeError::Dear { call: ask.name() });
        }
        let url = self.url(ask)?;
        let key = (bearer.who, url.as_str().to_owned());
        let remembered = if ask.method == Method::GET { self.recall(&key) } else { None };
        let mut request = self
            .client
            .request(ask.method.clone(), url)
            .header(header::AUTHORIZATION, authorization(bearer, ask)?);
        if let Some(remembered) = &remembered {
            request = request.header(header::IF_NONE_MATCH, remembered.etag.clone());
        }
        if let Some(body) = &ask.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| failed(ask, error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(ask, response).await?;
        let date = date(&headers, header::DATE);
        self.note_budget(&bearer.credential, &headers, date);
        if let Some(limited) = self.limited(ask, status, &headers, &body) {
            return Err(limited);
        }
        if status.is_server_error() {
            return Err(ask.broken(format!("the forge answered {status}: {}", message(&body))));
        }
        if status == StatusCode::NOT_MODIFIED {
            if let Some(meter) = &bearer.meter {
                meter.give_back();
            }
            let Some(remembered) = remembered else {
                return Err(ask.broken("the forge answered 304 to an unconditional request"));
            };
            return Ok(Answer { date, ..remembered.answer.clone() });
        }
        let (more, next) = (more(&headers), cursor(&headers));
        let answer = Answer { status, date, body: body.into(), more, next };
        if ask.method == Method::GET && status == StatusCode::OK {
            self.remember(key, headers.get(header::ETAG), &answer);
        }
        Ok(answer)
    }

    fn url(&self, ask: &Ask) -> Result<Url, ForgeError> {
        let text = format!("{}{}", self.base, ask.path);
        let mut url = Url::parse(&text).map_err(|_| ask.broken("the path is not one"))?;
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        Ok(url)
    }

    async fn body(
        &self,
        ask: &Ask,
        mut response: reqwest::Response,
    ) -> Result<Vec<u8>, ForgeError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(ask, error))? {
            if body.len() + chunk.len() > self.limits.body_bytes_max {
                let max = self.limits.body_bytes_max;
                return Err(ask.broken(format!("the answer is longer than {max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn recall(&self, key: &(Who, String)) -> Option<Arc<Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn remember(&self, key: (Who, String), etag: Option<&HeaderValue>, answer: &Answer) {
        let mut cache = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match etag {
            Some(etag) => {
                let weight = ETAG_OVERHEAD + key.1.len() + answer.body.len();
                let (etag, answer) = (etag.clone(), answer.clone());
                cache.insert(key, Arc::new(Remembered { etag, answer }), weight);
            }
            None => cache.remove(&key),
        }
    }

    fn note_budget(&self, credential: &Credential, headers: &HeaderMap, date: Option<Timestamp>) {
        // Some resources (search, registration) have budgets of their own.
        let core = headers.get("x-ratelimit-resource").is_none_or(|resource| resource == "core");
        let remaining = number(headers, "x-ratelimit-remaining").filter(|_| core);
        let reset = number(headers, "x-ratelimit-reset").and_then(|s| i64::try_from(s).ok());
        let (Some(remaining), Some(reset)) = (remaining, reset) else { return };
        let limit = number(headers, "x-ratelimit-limit").unwrap_or(remaining).max(remaining);
        let resets_at = self.here(Timestamp::from_millis(reset.saturating_mul(1000)), date);
        let mut new = Budget { limit, remaining, resets_at };
        let now = self.now();
        let mut noted = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        // Installations come and go; what is past says nothing.
        noted.retain(|_, old| old.budget.resets_at > now);
        // Answers overtake each other; within a window, what is left only becomes less.
        if let Some(old) = noted.get(credential).map(|noted| noted.budget)
            && resets_at.since(old.resets_at).max(old.resets_at.since(resets_at)) < SAME_WINDOW
        {
            new.remaining = new.remaining.min(old.remaining);
            new.resets_at = old.resets_at;
        }
        noted.insert(credential.clone(), Noted { budget: new, news: true });
    }

    /// Tells a limit on calls from a lack of permission: GitHub answers both with 403
    /// (docs.github.com, "Rate limits for the REST API").
    fn limited(
        &self,
        ask: &Ask,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<ForgeError> {
        if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        let message = message(body);
        let text = message.to_lowercase();
        let named = ["rate limit", "abuse detection"].iter().any(|words| text.contains(words));
        let wait = if let Some(wait) = self.retry_after(headers) {
            wait
        } else if number(headers, "x-ratelimit-remaining") == Some(0) {
            self.until_reset(headers).unwrap_or(LIMITED_DEFAULT)
        } else if named || status == StatusCode::TOO_MANY_REQUESTS {
            LIMITED_DEFAULT
        } else {
            return None;
        };
        let wait = wait.clamp(Duration::from_secs(1), LIMITED_MAX);
        let (until, seconds) = (self.now() + wait, wait.as_secs());
        Some(ForgeError::Limited { call: ask.name(), until, seconds, message })
    }

    /// `Retry-After`, in its two forms: seconds, or a date.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        if let Some(seconds) = number(headers, "retry-after") {
            return Some(Duration::from_secs(seconds));
        }
        let until = date(headers, header::RETRY_AFTER)?;
        Some(until.since(date(headers, header::DATE).unwrap_or_else(|| self.forge_now())))
    }

    fn until_reset(&self, headers: &HeaderMap) -> Option<Duration> {
        let reset = i64::try_from(number(headers, "x-ratelimit-reset")?).ok()?;
        let now = date(headers, header::DATE).unwrap_or_else(|| self.forge_now());
        Some(Timestamp::from_millis(reset.saturating_mul(1000)).since(now))
    }
}

fn default_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
    headers
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// GitHub redirects after renames and transfers, always to itself. Anything else is answered as it is.
fn same_origin(base: Url) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.url().origin() == base.origin() && attempt.previous().len() <= 3 {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn authorization(bearer: &Bearer, ask: &Ask) -> Result<HeaderValue, ForgeError> {
    let text = format!("Bearer {}", bearer.secret.expose_secret());
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| ForgeError::Unsupported(format!("{}: the token is not one", ask.name())))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What is known of a call that broke off: one that found no connection had no effect.
fn failed(ask: &Ask, error: reqwest::Error) -> ForgeError {
    let error = error.without_url();
    let problem = if error.is_timeout() { "no answer in time".into() } else { chain(&error) };
    let effect = if error.is_connect() { Effect::None } else { ask.effect };
    ForgeError::Broken { call: ask.name(), effect, problem }
}

/// An error with its sources, on one line.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    bounded(&text)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let parsed = parser.parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

fn more(headers: &HeaderMap) -> More {
    match headers.get(header::LINK).map(HeaderValue::to_str) {
        None => More::Unsaid,
        Some(Ok(link)) if link.contains("rel=\"next\"") => More::Yes,
        Some(_) => More::No,
    }
}

/// The cursor of the link to the next page.
fn cursor(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(header::LINK)?.to_str().ok()?.split(',');
    let next = links.into_iter().find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    let url = Url::parse(rest.split_once('>')?.0).ok()?;
    let cursor = url.query_pairs().find(|(name, _)| name == "cursor")?;
    Some(cursor.1.into_owned())
}
