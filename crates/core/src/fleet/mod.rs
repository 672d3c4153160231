//! The fleet: everything one fleet file declares, checked and typed.
//!
//! Secrets are only ever named here, by the place they are read from.

mod demand;
mod expand;
mod grace;
mod matrix;
mod meant;
mod parse;
mod pools;
mod problem;
mod read;
mod schema;
mod section;
mod takes;
mod tenants;
mod value;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::name::{ForgeName, GroupName, ImageName, Login, PoolName, ProviderName, Resource};
use crate::pool::Pool;
use crate::tenant::Scope;

pub use grace::{Grace, Quarantine};
pub use parse::{parse, syntax};
pub use problem::{PROBLEMS_MAX, Problem, Problems, Source};
pub use schema::{Absent, Key, SCHEMA, Section};
pub use takes::{Form, Takes, Texts};
pub use tenants::{Tenants, Terms, WEIGHT_MAX};
pub use write::{Difference, differences};

/// A whole fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The control plane itself.
    pub server: Server,
    /// Where jobs come from.
    pub forges: BTreeMap<ForgeName, Forge>,
    /// What makes instances.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// What instances run.
    pub images: BTreeMap<ImageName, Image>,
    /// Runners by kind.
    pub pools: BTreeMap<PoolName, Pool>,
    /// How much each tenant may use.
    pub tenants: Tenants,
    /// How long facts that may be a moment's error must last.
    pub grace: Grace,
    /// When what keeps failing is left alone.
    pub quarantine: Quarantine,
}

impl Fleet {
    /// A name for what this fleet says: sixteen hexadecimal digits, equal for equal fleets of one
    /// version of Remuda. A new version may name the same fleet anew.
    pub fn revision(&self) -> String {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        fmt::write(&mut hash, format_args!("{self:?}")).expect("hashing does not fail");
        format!("{:016x}", hash.0)
    }

    /// True if nobody but a forge's token can serve an owner: none of its Apps may be installed there.
    pub(crate) fn is_tokens(&self, forge: &ForgeName, owner: &Login) -> bool {
        let apps = self.forges.get(forge).map_or(&[][..], |forge| &forge.apps);
        !apps.iter().any(|app| app.owners.is_empty() || app.owners.contains(owner))
    }
}

/// FNV-1a of 64 bits: the same on every machine, which std's hashers do not promise.
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// The control plane itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where webhooks and requests are accepted; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where the URL of the `PostgreSQL` database is that holds the books; without it they are in
    /// `SQLite`, in the state directory.
    pub database: Option<SecretRef>,
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), database: None }
    }
}

/// Where a secret is read from when it is needed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretRef {
    /// An environment variable of the server.
    Env(String),
    /// A file, read when the server starts.
    File(PathBuf),
    /// What a shell's command prints.
    Command(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(command) => write!(f, "cmd:{command}"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A forge of the GitHub family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forge {
    /// Its name.
    pub name: ForgeName,
    /// Base of the REST API, without a trailing slash: `https://api.github.com`, or
    /// `https://HOST/api/v3` for GitHub Enterprise Server.
    pub api: String,
    /// Credentials. Each serves some owners; several may serve one.
    pub apps: Vec<App>,
    /// A personal access token, used where no App serves the owner.
    pub token: Option<SecretRef>,
    /// Secrets that sign deliveries of hooks that belong to no App.
    pub hooks: Vec<Hook>,
    /// Scopes to look after even before the first delivery names them.
    pub scopes: Vec<Scope>,
    /// The runner group of organization runners whose pool names none; made if it does not exist.
    pub group: GroupName,
    /// How often to look.
    pub polls: Polls,
    /// How it is found out which jobs there are.
    pub demand: Demand,
}

/// A GitHub App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The App's id or client id: the `iss` of its tokens, and the target of its deliveries.
    pub id: String,
    /// Its RSA key, PEM, PKCS#1 or PKCS#8.
    pub private_key: SecretRef,
    /// What signs its deliveries; several while one is replaced.
    pub webhook_secrets: Vec<SecretRef>,
    /// Which accounts it serves; none listed means any it is installed on.
    pub owners: Vec<Login>,
}

/// A repository's or organization's own webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The hook's id at the forge (`X-GitHub-Hook-ID`); none means any that no other entry names.
    pub id: Option<u64>,
    /// Where it is, so that its failed deliveries can be asked for again.
    pub scope: Option<Scope>,
    /// What signs its deliveries; several while one is replaced.
    pub secrets: Vec<SecretRef>,
}

/// How often a forge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polls {
    /// Registrations, while a runner is starting.
    pub starting: Duration,
    /// Registrations, while there are runners.
    pub runners: Duration,
    /// One job in progress of which nothing was heard.
    pub job: Duration,
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            starting: Duration::from_secs(10),
            runners: Duration::from_mins(1),
            job: Duration::from_mins(10),
        }
    }
}

/// How a forge's jobs are found: three sources, each of which is enough by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Whether deliveries are taken.
    pub webhooks: bool,
    /// How often failed deliveries are looked for, to have them sent again; never if none.
    pub redelivery: Option<Duration>,
    /// How often open jobs are listed, to find those nobody told of; never if none.
    pub sweep: Option<Duration>,
    /// What those listings may cost.
    pub budget: Allowance,
}

impl Default for Demand {
    fn default() -> Self {
        let sweep = Some(Duration::from_mins(2));
        let redelivery = Some(Duration::from_mins(5));
        Self { webhooks: true, redelivery, sweep, budget: Allowance::Share(50) }
    }
}

/// Calls in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// A share of what the forge admits, in hundredths.
    Share(u8),
    /// So many for each owner.
    Calls(u32),
}

/// What makes instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: ProviderName,
    /// How it makes them.
    pub kind: ProviderKind,
    /// Most instances at any time; none means only its own room limits it.
    pub max: Option<u32>,
    /// Most launches under way at once.
    pub launches_max: u32,
    /// How long after its start a launch call may still land.
    pub launch_deadline: Duration,
    /// How often to list its instances when nothing is awaited.
    pub poll: Duration,
    /// How long an instance must be missing from listings before it is believed gone.
    pub absent: Duration,
}

/// The ways to make an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// A local process group.
    Process(Process),
}

/// Local process groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where instances live, a directory each; none means beside the database.
    pub directory: Option<PathBuf>,
    /// The one machine its instances live on, by its host name; none means the server's.
    pub node: Option<String>,
    /// What the one node has in all; a resource not named here is not limited.
    pub capacity: BTreeMap<Resource, u64>,
}

/// What an instance runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// What is unpacked into the instance's directory first.
    pub archive: Option<Archive>,
    /// The program and its arguments; a relative program is looked up in the instance's directory.
    pub command: Vec<String>,
    /// Environment, besides a few plain variables of the server's own (`PATH`, `LANG`, `TZ`).
    pub env: BTreeMap<String, String>,
    /// How the runner is told its JIT configuration.
    pub jit: JitBy,
}

/// A tar archive, optionally gzipped, with the program in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// A path or an `https:` (or loopback `http:`) URL.
    pub source: String,
    /// Of the archive's bytes.
    pub sha256: [u8; 32],
}

/// How a runner is told its JIT configuration: never by an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JitBy {
    /// In this environment variable.
    Env(String),
    /// Through a pipe at this file descriptor.
    Descriptor(u32),
}

impl JitBy {
    /// The variable the official runner reads and removes
    /// (actions/runner, `CommandSettings.cs`: prefix `ACTIONS_RUNNER_INPUT_`).
    pub const OFFICIAL: &'static str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
}
