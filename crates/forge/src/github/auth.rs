//! Who we are to the forge: Apps, their installations and tokens, and the personal access token.
//!
//! A credential is neither a tenant nor a scope: several Apps may serve one account, and an App may
//! serve many. Apps are tried in the order of the fleet file; the token only where none serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use remuda_core::Timestamp;
use remuda_core::budget::Credential;
use remuda_core::fleet;
use remuda_core::name::{Login, RepositoryName};
use remuda_core::tenant::Scope;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rest::{Ask, Bearer, Rest, Who};
use super::{scope_path, time};
use crate::cache::Slots;
use crate::{Effect, ForgeError, SetupError, secrets};

/// A token is renewed this long before its end, so that none ends on the way.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// An installation is looked up anew after this long; its permissions may have changed.
const INSTALLATION_AGE_MAX: Duration = Duration::from_hours(1);
/// And this long after it was found missing, lest a new one goes unnoticed.
const ABSENCE_AGE_MAX: Duration = Duration::from_mins(1);
/// How many installations and tokens are remembered.
const REMEMBERED_MAX: usize = 4096;

/// What we ask of an installation at each kind of scope, strongest first; what it does not have is
/// not asked for. A stolen token thus opens nothing else (rise.md W11).
const PERMISSIONS: [(&str, &str); 3] =
    [("actions", "read"), ("metadata", "read"), ("organization_self_hosted_runners", "write")];
/// What is asked for to look after hooks, at an organization and at a repository.
const HOOK_PERMISSIONS: [(&str, &str); 1] = [("organization_hooks", "write")];
const REPOSITORY_HOOK_PERMISSIONS: [(&str, &str); 2] =
    [("metadata", "read"), ("repository_hooks", "write")];
const REPOSITORY_PERMISSIONS: [(&str, &str); 3] =
    [("actions", "read"), ("metadata", "read"), ("administration", "write")];

/// All credentials of one forge.
pub(super) struct Auth {
    apps: Vec<App>,
    token: Option<SecretString>,
    installations: Slots<(usize, Scope), Known, ForgeError>,
    tokens: Slots<TokenKey, Token, ForgeError>,
}

/// Which token: an App's, for an installation, narrowed to one repository where that is enough, and to
/// what it is for.
type TokenKey = (usize, u64, Option<RepositoryName>, Purpose);

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Runners and jobs.
    Runners,
    /// Hooks and their deliveries.
    Hooks,
}

struct App {
    issuer: Arc<str>,
    key: RsaKeyPair,
    owners: Vec<Login>,
}

/// What was last found out about an App's installation at a scope.
#[derive(Clone)]
struct Known {
    asked_at: Timestamp,
    installation: Option<Arc<Installation>>,
}

#[derive(Debug, Deserialize)]
struct Installation {
    id: u64,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    suspended_at: Option<String>,
}

#[derive(Clone)]
struct Token {
    secret: SecretString,
    valid_until: Timestamp,
}

/// A credential that serves a scope.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) bearer: Bearer,
    /// The token's place in memory; none for the personal access token.
    key: Option<TokenKey>,
}

impl Auth {
    pub(super) fn new(forge: &fleet::Forge) -> Result<Self, SetupError> {
        let apps = forge.apps.iter().map(App::new).collect::<Result<_, _>>()?;
        let token = forge.token.as_ref().map(secrets::load).transpose()?;
        let (installations, tokens) = (Slots::new(REMEMBERED_MAX), Slots::new(REMEMBERED_MAX));
        Ok(Self { apps, token, installations, tokens })
    }

    pub(super) fn apps(&self) -> std::ops::Range<usize> {
        0..self.apps.len()
    }

    /// The personal access token, as a credential.
    pub(super) fn token(&self) -> Option<Access> {
        let secret = self.token.clone()?;
        Some(Access { bearer: Bearer::new(Who::Token, Credential::Token, secret), key: None })
    }

    /// An App's credential for a scope; `None` if it does not serve there.
    pub(super) async fn app(
        &self,
        rest: &Rest,
        app: usize,
        scope: &Scope,
        purpose: Purpose,
    ) -> Result<Option<Access>, ForgeError> {
        let owners = &self.apps[app].owners;
        // Apps cannot be installed on an enterprise to register runners there.
        let enterprise = matches!(scope, Scope::Enterprise(_));
        if enterprise || !(owners.is_empty() || owners.contains(scope.owner())) {
            return Ok(None);
        }
        let Some(installation) = self.installation(rest, app, scope).await? else {
            return Ok(None);
        };
        let repository = match scope {
            Scope::Repository(repository) => Some(repository.name.clone()),
            Scope::Organization(_) | Scope::Enterprise(_) => None,
        };
        let key = (app, installation.id, repository, purpose);
        let fresh = |token: &Token| token.valid_until > rest.now() + RENEW_BEFORE;
        let token = match self.tokens.get(&key, fresh, self.mint(rest, &key, &installation)).await {
            Ok(token) => token.into_inner(),
            Err(error) if error.is_not_found() => {
                // Uninstalled since we looked.
                self.installations.forget(&(app, scope.clone()));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let who = Who::Installation(app, installation.id);
        let owner = Some(scope.owner().clone());
        let credential = Credential::App { id: self.apps[app].issuer.clone(), owner };
        Ok(Some(Access { bearer: Bearer::new(who, credential, token.secret), key: Some(key) }))
    }

    /// Forgets a token that the forge no longer takes. False for what cannot be renewed.
    pub(super) fn forget(&self, access: &Access) -> bool {
        access.key.as_ref().is_some_and(|key| {
            self.tokens.forget(key);
            true
        })
    }

    async fn installation(
        &self,
        rest: &Rest,
        app: usize,
        scope: &Scope,
    ) -> Result<Option<Arc<Installation>>, ForgeError> {
        let recent = |known: &Known| !known.is_old(rest.now());
        let look = self.look(rest, app, scope);
        let known = self.installations.get(&(app, scope.clone()), recent, look).await?;
        Ok(known.into_inner().installation)
    }

    async fn look(&self, rest: &Rest, app: usize, scope: &Scope) -> Result<Known, ForgeError> {
        let ask = Ask::get(format!("{}/installation", scope_path(scope)?));
        let asked_at = rest.now();
        let answer = self.as_app(rest, app, &ask).await?;
        let installation = if answer.status == StatusCode::NOT_FOUND {
            None
        } else {
            let installation: Installation = answer.read(&ask)?;
            installation.suspended_at.is_none().then(|| Arc::new(installation))
        };
        Ok(Known { asked_at, installation })
    }

    async fn mint(
        &self,
        rest: &Rest,
        (app, id, repository, purpose): &TokenKey,
        installation: &Installation,
    ) -> Result<Token, ForgeError> {
        #[derive(Deserialize)]
        struct Minted {
            token: String,
            expires_at: String,
        }
        let mut body = Map::new();
        if let Some(name) = repository {
            body.insert("repositories".into(), json!([name.as_str()]));
        }
        let wanted: &[_] = match (purpose, repository) {
            (Purpose::Runners, Some(_)) => &REPOSITORY_PERMISSIONS,
            (Purpose::Runners, None) => &PERMISSIONS,
            (Purpose::Hooks, Some(_)) => &REPOSITORY_HOOK_PERMISSIONS,
            (Purpose::Hooks, None) => &HOOK_PERMISSIONS,
        };
        let permissions = narrowed(wanted, &installation.permissions);
        if !permissions.is_empty() {
            body.insert("permissions".into(), Value::Object(permissions));
        }
        // A second token does no harm, so an unanswered request had no effect to speak of.
        let path = format!("/app/installations/{id}/access_tokens");
        let ask = Ask::post(path, Value::Object(body), Effect::None);
        let answer = self.as_app(rest, *app, &ask).await?;
        let minted: Minted = answer.read_secret(&ask)?;
        let expires_at = time(&minted.expires_at)
            .ok_or_else(|| ask.broken("expires_at of the answer is not a time"))?;
        Ok(Token { secret: minted.token.into(), valid_until: rest.here(expires_at, answer.date) })
    }

    /// The place of the App with this id.
    pub(super) fn numbered(&self, id: &str) -> Option<usize> {
        self.apps.iter().position(|app| *app.issuer == *id)
    }

    /// Asks as the App itself.
    pub(super) async fn as_app(
        &self,
        rest: &Rest,
        app: usize,
        ask: &Ask,
    ) -> Result<super::rest::Answer, ForgeError> {
        let secret = self.apps[app].jwt(rest.forge_now())?;
        let credential = Credential::App { id: self.apps[app].issuer.clone(), owner: None };
        let answer = rest.send(&Bearer::new(Who::App(app), credential, secret), ask).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // "'Issued at' claim must be in the past", "'Expiration time' claim … is too far in the
        // future": GitHub's words vary, its clock does not.
        match answer.date.and_then(|date| rest.learn_skew(date)) {
            Some(seconds) => Err(ForgeError::ClockOff { call: ask.name(), seconds }),
            None => Err(answer.refused(ask)),
        }
    }
}

impl Known {
    fn is_old(&self, now: Timestamp) -> bool {
        let max = match self.installation {
            Some(_) => INSTALLATION_AGE_MAX,
            None => ABSENCE_AGE_MAX,
        };
        now.since(self.asked_at) > max
    }
}

/// Of `wanted`, what was granted. Asking for more than that would be refused as a whole.
fn narrowed(wanted: &[(&str, &str)], granted: &BTreeMap<String, String>) -> Map<String, Value> {
    let level = |&(name, wanted): &(&str, &str)| {
        let granted = granted.get(name)?;
        // "admin" and "write" include what is below them.
        let level = if granted == "read" { granted } else { wanted };
        Some((name.to_owned(), json!(level)))
    };
    wanted.iter().filter_map(level).collect()
}

impl App {
    fn new(app: &fleet::App) -> Result<Self, SetupError> {
        let refuse = |problem| SetupError::Key { app: app.id.clone(), problem };
        let pem = secrets::load(&app.private_key)?;
        let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
            .map_err(|_| refuse("there is no private key in it"))?;
        let key = match key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(refuse("it is a key of another kind")),
        };
        let key = key.map_err(|_| refuse("it is damaged, or not of 2048 to 8192 bits"))?;
        Ok(Self { issuer: app.id.as_str().into(), key, owners: app.owners.clone() })
    }

    /// A JSON Web Token (RFC 7519) that says who we are: issued a minute ago, for clocks that are
    /// behind ours, and ending before GitHub's limit of ten minutes.
    fn jwt(&self, now: Timestamp) -> Result<SecretString, ForgeError> {
        let now = now.as_millis() / 1000;
        let header = json!({"alg": "RS256", "typ": "JWT"});
        let claims = json!({"iat": now - 60, "exp": now + 9 * 60, "iss": self.issuer});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| {
                ForgeError::Unsupported(format!("App {}: its key cannot sign", self.issuer))
            })?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}
