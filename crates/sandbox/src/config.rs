//! What a sandbox starts with. Everything here can also be made later, by [`crate::Sandbox`]'s
//! methods or by the `/_sandbox/` API.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::faults::Faults;
use crate::id::AppId;

/// Whether an account is an organization or a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    /// An organization: it has runner groups and may serve all its repositories.
    Organization,
    /// A personal account: runners register with each repository.
    User,
}

/// Who may see a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everyone; served only by groups that allow public repositories.
    Public,
    /// Its owner's members.
    Private,
}

/// An account to begin with, and its repositories (private ones).
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// The account's name.
    pub login: String,
    /// What kind of account.
    pub kind: OwnerKind,
    /// The names of its repositories.
    pub repositories: Vec<String>,
}

/// A webhook of an organization or, with `repository`, of one repository.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Where deliveries go; `http://` only.
    pub url: String,
    /// Signs deliveries (`X-Hub-Signature-256`).
    pub secret: SecretString,
    /// The account it belongs to.
    pub owner: String,
    /// The repository it belongs to, if it is not the organization's.
    pub repository: Option<String>,
}

/// A GitHub App.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// The App's number, the `iss` of its tokens.
    pub id: AppId,
    /// Where its webhook goes, if it has one; `http://` only.
    pub webhook_url: Option<String>,
    /// Signs its deliveries.
    pub webhook_secret: SecretString,
    /// The accounts it is installed at; `None` means every account, those made later included.
    pub owners: Option<Vec<String>>,
    /// Its private key (PKCS#1 or PKCS#8 PEM) or public key (PEM). `None` takes the key shipped
    /// with the sandbox ([`crate::SANDBOX_APP_KEY_PEM`]), which protects nothing.
    pub key_pem: Option<SecretString>,
    /// What its installations may do, as GitHub names it: `administration` to `write`, and so on.
    pub permissions: BTreeMap<String, String>,
}

impl AppConfig {
    /// An App without a webhook, with the shipped key and the permissions that runners need.
    pub fn new(id: u64) -> Self {
        let permissions = [
            ("actions", "write"),
            ("administration", "write"),
            ("metadata", "read"),
            ("organization_hooks", "write"),
            ("organization_self_hosted_runners", "write"),
            ("repository_hooks", "write"),
        ];
        Self {
            id: AppId(id),
            webhook_url: None,
            webhook_secret: SecretString::default(),
            owners: None,
            key_pem: None,
            permissions: permissions.map(|(name, level)| (name.into(), level.into())).into(),
        }
    }
}

/// A personal access token; it may do everything.
#[derive(Clone, Debug)]
pub struct PersonalToken {
    /// Whose it is, for the rate limit.
    pub login: String,
    /// The token.
    pub token: SecretString,
}

/// How much a client may ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Requests per hour of one installation or person; `None` means no limit (the headers then
    /// tell GitHub's 5000, never used up).
    pub requests_per_hour: Option<u32>,
    /// The secondary limit: points per minute, where a reading request costs 1 and a writing one 5
    /// (GitHub's is 900).
    pub points_per_minute: Option<u32>,
}

/// GitHub's waiting times. The defaults are GitHub's own; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a runner may take to acknowledge a job before the job is queued again.
    pub pick_up: Duration,
    /// How long a job may be queued before it is cancelled.
    pub job_expiry: Duration,
    /// How long a registration that never connected is kept.
    pub registration_expiry: Duration,
    /// How long a runner may be silent before it counts as lost and its job as failed.
    pub runner_silence: Duration,
    /// How long a runner may take to stop a cancelled job before it is declared cancelled.
    pub cancel_grace: Duration,
    /// How long a poll for a message is held open.
    pub poll_hold: Duration,
    /// How long a webhook's receiver may take to answer.
    pub webhook: Duration,
    /// How long an installation token lives.
    pub token: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            pick_up: Duration::from_mins(1),
            job_expiry: Duration::from_hours(24),
            registration_expiry: Duration::from_hours(24),
            runner_silence: Duration::from_mins(10),
            cancel_grace: Duration::from_mins(5),
            poll_hold: Duration::from_secs(50),
            webhook: Duration::from_secs(10),
            token: Duration::from_hours(1),
        }
    }
}

/// What a sandbox starts with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The base of every URL it hands out, without a trailing slash, if runners must reach it by
    /// another name than the address it listens on.
    pub public_url: Option<String>,
    /// Accounts and repositories to begin with.
    pub owners: Vec<OwnerConfig>,
    /// Apps, with their webhooks.
    pub apps: Vec<AppConfig>,
    /// Webhooks of organizations and repositories.
    pub webhooks: Vec<Hook>,
    /// Personal access tokens.
    pub personal_tokens: Vec<PersonalToken>,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// Seeds the choice among idle runners and every fault.
    pub seed: u64,
    /// How much a client may ask.
    pub limits: Limits,
    /// GitHub's waiting times.
    pub times: Times,
}

impl Default for Config {
    /// A free port of 127.0.0.1, nothing in it, no faults.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_url: None,
            owners: Vec::new(),
            apps: Vec::new(),
            webhooks: Vec::new(),
            personal_tokens: Vec::new(),
            faults: Faults::default(),
            seed: 0,
            limits: Limits::default(),
            times: Times::default(),
        }
    }
}
