//! A GitHub that fits in a test: Apps, installations, tokens that end, groups, runners, runs and jobs,
//! with GitHub's rules about who may do what.

mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, StatusCode};
use remuda_core::Timestamp;
use remuda_core::fleet::{self, Demand, Polls, SecretRef};
use remuda_core::name::{ForgeName, GroupName, Login};
use remuda_forge::{CallLimits, Clock, GitHub};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs1KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub(crate) use rest::owner_id;

pub(crate) const PAT: &str = "ghp_personal-access-token";
pub(crate) const START: i64 = 1_700_000_000_000;

/// How a call goes wrong, once for each time it is listed.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answered so, with these headers, and without effect.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Done, but answered so.
    DoneBut(u16, &'static str),
    /// Never answered.
    Hang,
    /// The answer breaks off.
    BreakOff,
    /// The answer has no end.
    Endless,
}

#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: &'static str,
    pub(crate) installations: Vec<Installation>,
}

#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(crate) id: u64,
    pub(crate) owner: &'static str,
    /// Repositories it may see; none means all.
    pub(crate) selected: Option<BTreeSet<&'static str>>,
    pub(crate) permissions: BTreeMap<String, String>,
    pub(crate) suspended: bool,
}

pub(crate) fn installation(id: u64, owner: &'static str) -> Installation {
    let all = [
        ("actions", "write"),
        ("administration", "write"),
        ("contents", "write"),
        ("metadata", "read"),
        ("organization_self_hosted_runners", "write"),
    ];
    let permissions = all.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Installation { id, owner, selected: None, permissions, suspended: false }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) installation: u64,
    pub(crate) owner: &'static str,
    pub(crate) expires_at: i64,
    /// As asked for.
    pub(crate) asked: Value,
    pub(crate) permissions: BTreeMap<String, String>,
    pub(crate) selected: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) group: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) online: bool,
    pub(crate) busy: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) owner: &'static str,
    pub(crate) name: &'static str,
    pub(crate) archived: bool,
    pub(crate) runs: Vec<Run>,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) status: &'static str,
    pub(crate) jobs: Vec<Value>,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) apps: Vec<App>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) groups: BTreeMap<String, Vec<(u64, String, Value)>>,
    /// A group that somebody else makes just before we do.
    pub(crate) race: Option<String>,
    pub(crate) runners: BTreeMap<String, Vec<Runner>>,
    pub(crate) users: BTreeSet<&'static str>,
    pub(crate) repositories: Vec<Repo>,
    pub(crate) faults: Vec<(Method, &'static str, Fault)>,
    pub(crate) seen: Vec<Seen>,
    /// Calls left, where calls are limited.
    pub(crate) budget: Option<u64>,
    /// The same by installation, where it is an installation's own.
    pub(crate) budgets: BTreeMap<u64, u64>,
    /// Whether listings of runners know no filter by name, as on old Enterprise Servers.
    pub(crate) unfiltered: bool,
    /// Whether listings come without a `Link` header.
    pub(crate) linkless: bool,
    /// The forge's clock less the client's, in milliseconds.
    pub(crate) skew: i64,
    pub(crate) now: i64,
    pub(crate) next: u64,
}

pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

pub(crate) struct Fake {
    pub(crate) address: String,
    world: Arc<Mutex<World>>,
    time: Arc<AtomicI64>,
    secrets: Vec<tempfile::NamedTempFile>,
    _server: JoinSet<()>,
}

impl World {
    /// Organization `acme` with repository `app`, served by App 1.
    pub(crate) fn acme() -> Self {
        let app = App { id: "1", installations: vec![installation(11, "acme")] };
        let repo = Repo { owner: "acme", name: "app", archived: false, runs: Vec::new() };
        Self { apps: vec![app], repositories: vec![repo], ..Self::default() }
    }

    /// User `ada` with repository `toy`, served by App 1.
    pub(crate) fn ada() -> Self {
        let app = App { id: "1", installations: vec![installation(12, "ada")] };
        let repo = Repo { owner: "ada", name: "toy", archived: false, runs: Vec::new() };
        let users = BTreeSet::from(["ada"]);
        Self { apps: vec![app], users, repositories: vec![repo], ..Self::default() }
    }

    pub(crate) fn fail(&mut self, method: Method, path: &'static str, fault: Fault) {
        self.faults.push((method, path, fault));
    }

    /// How many requests there were whose path ends so.
    pub(crate) fn count(&self, method: &Method, end: &str) -> usize {
        self.seen.iter().filter(|seen| seen.method == *method && seen.path.ends_with(end)).count()
    }

    pub(crate) fn add_runner(&mut self, scope: &str, name: &str) -> u64 {
        let id = self.id();
        let labels = Vec::new();
        let runner = Runner { id, name: name.into(), group: 1, labels, online: true, busy: false };
        self.runners.entry(scope.into()).or_default().push(runner);
        id
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next += 1;
        1000 + self.next
    }

    pub(crate) fn find(&self, owner: &str, name: &str) -> Option<&Repo> {
        self.repositories.iter().find(|repo| repo.owner == owner && repo.name == name)
    }
}

impl Fake {
    pub(crate) async fn start(world: World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(World { now: START, ..world }));
        let time = Arc::new(AtomicI64::new(START));
        let state = (Arc::clone(&world), Arc::clone(&time));
        let router = axum::Router::new().fallback(serve).with_state(state);
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, world, time, secrets: Vec::new(), _server: server }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.time.fetch_add(millis, Ordering::SeqCst);
    }

    /// A forge as a fleet file would declare it: with every App, none of them limited to owners.
    pub(crate) fn forge(&self) -> fleet::Forge {
        let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys");
        let app = |app: &App| fleet::App {
            id: app.id.into(),
            private_key: SecretRef::File(format!("{keys}/app-pkcs1.pem").into()),
            webhook_secrets: Vec::new(),
            owners: Vec::new(),
        };
        fleet::Forge {
            name: ForgeName::new("github").unwrap(),
            api: format!("{}/api/v3", self.address),
            apps: self.world().apps.iter().map(app).collect(),
            token: None,
            hooks: Vec::new(),
            scopes: Vec::new(),
            group: GroupName::new("Remuda Runners").unwrap(),
            polls: Polls::default(),
            demand: Demand::default(),
        }
    }

    /// A reference to a secret of this text.
    pub(crate) fn secret(&mut self, text: &str) -> SecretRef {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let reference = SecretRef::File(file.path().into());
        self.secrets.push(file);
        reference
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = Arc::clone(&self.time);
        Arc::new(move || Timestamp::from_millis(time.load(Ordering::SeqCst)))
    }

    pub(crate) fn client(&self) -> GitHub {
        self.client_of(&self.forge())
    }

    pub(crate) fn client_of(&self, forge: &fleet::Forge) -> GitHub {
        GitHub::new(forge, self.clock()).unwrap()
    }

    /// A client with small bounds on what it reads. It gives up waiting only where it will wait in
    /// vain, so that no test depends on how fast the machine is.
    pub(crate) fn wary(&self, fault: &Fault) -> GitHub {
        let usual = CallLimits::default();
        let total = match fault {
            Fault::Hang => Duration::from_secs(1),
            Fault::Answer(..) | Fault::DoneBut(..) | Fault::BreakOff | Fault::Endless => {
                usual.total
            }
        };
        let limits = CallLimits { total, body_bytes_max: 100_000, pages_max: 3, ..usual };
        GitHub::with_limits(&self.forge(), self.clock(), limits).unwrap()
    }
}

pub(crate) fn login(text: &str) -> Login {
    Login::new(text).unwrap()
}

async fn serve(
    State((world, time)): State<(Arc<Mutex<World>>, Arc<AtomicI64>)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
    let query = parts.uri.query().unwrap_or_default();
    let query = reqwest::Url::parse(&format!("http://x/?{query}")).unwrap();
    let mut seen = Seen {
        method: parts.method,
        path: parts.uri.path().trim_start_matches("/api/v3").into(),
        query: query.query_pairs().into_owned().collect(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        status: 0,
    };
    let (reply, fault) = {
        let mut world = world.lock().unwrap();
        world.now = time.load(Ordering::SeqCst) + world.skew;
        let hits = |(method, path, _): &(Method, &str, Fault)| {
            *method == seen.method && seen.path.ends_with(path)
        };
        let fault = world.faults.iter().position(hits).map(|at| world.faults.remove(at).2);
        let reply = match &fault {
            Some(Fault::Answer(status, headers, body)) => Reply {
                status: *status,
                headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
                body: (*body).into(),
            },
            Some(Fault::DoneBut(status, body)) => {
                world.answer(&seen);
                Reply { status: *status, headers: Vec::new(), body: (*body).into() }
            }
            Some(Fault::Hang | Fault::BreakOff | Fault::Endless) | None => world.answer(&seen),
        };
        seen.status = reply.status;
        world.seen.push(seen);
        let date = jiff::Timestamp::from_millisecond(world.now).unwrap();
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
        let mut reply = reply;
        reply.headers.push(("date".into(), date.unwrap()));
        (reply, fault)
    };
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let chunk = |text: String| Ok::<_, std::io::Error>(text);
    let body = match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::BreakOff) => {
            let parts = [chunk("{\"runner".into()), Err(std::io::Error::other("broken off"))];
            Body::from_stream(futures_util::stream::iter(parts))
        }
        Some(Fault::Endless) => {
            Body::from_stream(futures_util::stream::repeat_with(move || chunk(" ".repeat(10_000))))
        }
        Some(Fault::Answer(..) | Fault::DoneBut(..)) | None => Body::from(reply.body),
    };
    response.body(body).unwrap()
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Reply { status: status.as_u16(), headers: Vec::new(), body }
}

fn refuse(status: u16, message: &str) -> Reply {
    reply(StatusCode::from_u16(status).unwrap(), &json!({"message": message}))
}

impl World {
    fn answer(&mut self, seen: &Seen) -> Reply {
        for (name, value) in [
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
            ("user-agent", concat!("remuda/", env!("CARGO_PKG_VERSION"))),
        ] {
            if seen.headers.get(name).is_none_or(|found| found != value) {
                return refuse(400, &format!("{name} is not as it should be"));
            }
        }
        let bearer = seen.headers["authorization"].to_str().unwrap();
        let Some(bearer) = bearer.strip_prefix("Bearer ") else {
            return refuse(401, "Bad credentials");
        };
        let path = seen.path.clone();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if parts.first() == Some(&"app") || parts.last() == Some(&"installation") {
            let mut made = self.as_app(seen, bearer, &parts);
            // The App's own budget, which has nothing to do with its installations'.
            made.headers.push(("x-ratelimit-remaining".into(), "7".into()));
            made.headers.push(("x-ratelimit-reset".into(), (self.now / 1000 + 60).to_string()));
            return made;
        }
        let (mut made, installation) = match self.token(bearer) {
            Ok(token) => (self.as_token(seen, &token, &parts), token.installation),
            Err(refused) => return refused,
        };
        if seen.method == Method::GET && made.status == 200 {
            let etag = format!("\"{:x}\"", ring_hash(&made.body));
            if seen.headers.get("if-none-match").is_some_and(|known| *known == *etag) {
                made = Reply { status: 304, headers: Vec::new(), body: String::new() };
            }
            made.headers.push(("etag".into(), etag));
        }
        let left = self.budgets.get_mut(&installation).or(self.budget.as_mut());
        if made.status != 304
            && let Some(left) = left
        {
            if *left == 0 {
                made = refuse(403, "API rate limit exceeded for installation ID 11.");
            }
            *left = left.saturating_sub(1);
        }
        if let Some(left) = self.budgets.get(&installation).or(self.budget.as_ref()) {
            let reset = self.now / 1000 + 1800;
            made.headers.push(("x-ratelimit-limit".into(), "5000".into()));
            made.headers.push(("x-ratelimit-remaining".into(), left.to_string()));
            made.headers.push(("x-ratelimit-reset".into(), reset.to_string()));
            made.headers.push(("x-ratelimit-resource".into(), "core".into()));
        }
        made
    }

    fn token(&self, bearer: &str) -> Result<Token, Reply> {
        if bearer == PAT {
            return Ok(Token {
                installation: 0,
                owner: "",
                expires_at: i64::MAX,
                asked: Value::Null,
                permissions: BTreeMap::new(),
                selected: None,
            });
        }
        let found = self.tokens.get(bearer).filter(|token| token.expires_at > self.now);
        found.cloned().ok_or_else(|| refuse(401, "Bad credentials"))
    }

    /// Requests that an App makes as itself.
    fn as_app(&mut self, seen: &Seen, jwt: &str, parts: &[&str]) -> Reply {
        let app = match self.signer(jwt) {
            Ok(app) => app,
            Err(why) => return refuse(401, why),
        };
        let owned = |parts: &[&str], one: &Installation| match parts {
            ["orgs", owner, _] => one.owner == *owner && !self.users.contains(owner),
            ["users", owner, _] => one.owner == *owner && self.users.contains(owner),
            ["repos", owner, name, _] => {
                let selected = one.selected.as_ref().is_none_or(|all| all.contains(name));
                one.owner == *owner && selected && self.find(owner, name).is_some()
            }
            ["app", "installations", id, "access_tokens"] => one.id.to_string() == *id,
            _ => false,
        };
        let Some(one) = app.installations.iter().find(|one| owned(parts, one)).cloned() else {
            return refuse(404, "Not Found");
        };
        if seen.method == Method::GET {
            let suspended_at = one.suspended.then_some("2023-01-01T00:00:00Z");
            return reply(
                StatusCode::OK,
                &json!({"id": one.id, "permissions": one.permissions, "suspended_at": suspended_at}),
            );
        }
        let asked = seen.body["permissions"].as_object().cloned().unwrap_or_default();
        for (name, level) in &asked {
            let granted = one.permissions.get(name).map(String::as_str);
            if granted.is_none() || (granted == Some("read") && level == "write") {
                return refuse(422, "The permissions requested are not granted");
            }
        }
        let mut permissions = one.permissions.clone();
        permissions.retain(|name, _| asked.is_empty() || asked.contains_key(name));
        let names = |all: &Vec<Value>| all.iter().map(|v| v.as_str().unwrap().into()).collect();
        let installed = one.selected.map(|all| all.iter().map(|n| (*n).into()).collect());
        let token = Token {
            installation: one.id,
            owner: one.owner,
            expires_at: self.now + 3_600_000,
            asked: seen.body.clone(),
            permissions,
            selected: seen.body["repositories"].as_array().map(names).or(installed),
        };
        let secret = format!("ghs_installation-token-{}", self.id());
        let expires_at = jiff::Timestamp::from_millisecond(token.expires_at).unwrap().to_string();
        self.tokens.insert(secret.clone(), token);
        reply(StatusCode::CREATED, &json!({"token": secret, "expires_at": expires_at}))
    }

    /// The App that signed a token, checked as GitHub checks it.
    fn signer(&self, jwt: &str) -> Result<App, &'static str> {
        let (message, signature) = jwt.rsplit_once('.').ok_or("not a token")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "not base64")?;
        let pem = include_bytes!("../data/keys/app-pkcs1.pem");
        let der = PrivatePkcs1KeyDer::from_pem_slice(pem).unwrap();
        let key = RsaKeyPair::from_der(der.secret_pkcs1_der()).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref())
            .verify(message.as_bytes(), &signature)
            .map_err(|_| "A JSON web token could not be decoded")?;
        let part = |at: usize| -> Value {
            let text = message.split('.').nth(at).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        if part(0) != json!({"alg": "RS256", "typ": "JWT"}) {
            return Err("not RS256");
        }
        let claims = part(1);
        let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        let now = self.now / 1000;
        if issued > now {
            return Err("'Issued at' claim ('iat') must be an Integer in the past");
        }
        if ends <= now || ends > now + 600 {
            return Err("'Expiration time' claim ('exp') is too far in the future or past");
        }
        let by = claims["iss"].as_str().ok_or("no issuer")?;
        self.apps.iter().find(|app| app.id == by).cloned().ok_or("Integration not found")
    }
}

/// A hash for `ETag`s.
fn ring_hash(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
}
