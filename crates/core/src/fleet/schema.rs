//! Every key a fleet file may hold: what it takes, an example, and what it stands for when absent.
//!
//! The reader looks keys up here, suggestions are drawn from here, and the reference page is
//! checked against it, so that no key can be read and not described, or described and not read.

use super::demand::DEMAND;
use super::matrix::MATRIX;
use super::pools::{LIMITS, NEEDS, POOL, TEMPLATE};
use super::section::ID_MAX;
use super::takes::Takes::{Duration, Id, Secret, Secrets, Tables, Word};
use super::takes::{COUNT, FOREIGN, SCOPES, Takes, Texts, text};
use super::tenants::{DEFAULT_TENANT, TENANT};

/// One kind of table in a fleet file.
#[derive(Debug)]
pub struct Section {
    /// Where it stands; words in capitals are names the file chooses. Empty for the whole file.
    pub path: &'static str,
    /// What it declares, as a sentence.
    pub about: &'static str,
    /// Its keys; one in capitals stands for any name.
    pub keys: &'static [Key],
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    /// Its name, or a word in capitals for a name the file chooses.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// A value that it takes, in TOML; empty for sections.
    pub example: &'static str,
    /// What it stands for when absent.
    pub absent: Absent,
    /// What it means, as a sentence.
    pub about: &'static str,
    /// What other systems call it: for suggestions only.
    pub also: &'static [&'static str],
}

/// What a key that is not written stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It must be written.
    Required,
    /// The same as this value, in TOML.
    Means(&'static str),
    /// Nothing of its kind; the words say what happens then.
    Without(&'static str),
}

pub(super) const NONE: &[&str] = &[];

pub(super) const fn key(
    name: &'static str,
    takes: Takes,
    example: &'static str,
    absent: Absent,
    about: &'static str,
    also: &'static [&'static str],
) -> Key {
    Key { name, takes, example, absent, about, also }
}

pub(super) const fn part(
    name: &'static str,
    absent: Absent,
    about: &'static str,
    also: &'static [&'static str],
) -> Key {
    key(name, Takes::Table, "", absent, about, also)
}

use super::grace::{GRACE, QUARANTINE};
use Absent::{Means, Required, Without};

pub(super) static ROOT: Section = Section {
    path: "",
    about: "A fleet file holds these tables and nothing else.",
    keys: &[
        part("server", Without("its defaults"), "The control plane itself.", &["controller"]),
        part("forge", Required, "Where jobs come from, by name.", &["github", "forges"]),
        part("provider", Required, "What makes instances, by name.", &["providers"]),
        part("image", Required, "What instances run, by name.", &["images"]),
        part(
            "template",
            Without("no pool uses one"),
            "What pools have in common, by name.",
            &["templates"],
        ),
        part(
            "pool",
            Without("a matrix makes them"),
            "Runners by kind, by name.",
            &["pools", "runner", "runners"],
        ),
        part(
            "pool_matrix",
            Without("each pool is written"),
            "Many pools at once, by name.",
            &["matrix", "pool_matrices"],
        ),
        part("tenant", Without("its defaults"), "How much each account may use.", &["tenants"]),
        part("grace", Without("its defaults"), "How long what may be an error must last.", NONE),
        part("quarantine", Without("its defaults"), "When what keeps failing is left alone.", NONE),
    ],
};

pub(super) static SERVER: Section = Section {
    path: "server",
    about: "The control plane itself.",
    keys: &[
        key(
            "listen",
            text("an IP address and port", r"^([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$"),
            "\"127.0.0.1:8080\"",
            Means("\"127.0.0.1:8080\""),
            "Where webhooks and requests are accepted; port 0 takes any free one.",
            &["bind", "address", "port"],
        ),
        key(
            "database",
            Secret,
            "\"env:REMUDA_DATABASE_URL\"",
            Without("SQLite in the state directory"),
            "Where the URL of a PostgreSQL database is, for several replicas.",
            &["db", "database_url", "postgres", "postgresql", "dsn"],
        ),
    ],
};

pub(super) static FORGE: Section = Section {
    path: "forge.NAME",
    about: "A forge of the GitHub family. It needs an App or a token.",
    keys: &[
        key(
            "kind",
            Word(&["github"]),
            "\"github\"",
            Means("\"github\""),
            "What kind of forge it is.",
            &["type"],
        ),
        key(
            "api",
            text("an https URL, or http on this machine", "^https?://[^#?\\s]+$"),
            "\"https://github.example/api/v3\"",
            Means("\"https://api.github.com\""),
            "Base of its REST API; for GitHub Enterprise Server `https://HOST/api/v3`.",
            &["url", "api_url", "base_url", "endpoint"],
        ),
        key(
            "group",
            text("the name of a runner group", FOREIGN),
            "\"remuda\"",
            Means("\"remuda\""),
            "The runner group of organization runners whose pool names none; made if missing.",
            &["runner_group"],
        ),
        key(
            "scopes",
            SCOPES,
            "[\"org:acme\"]",
            Means("[]"),
            "Looked after even before a delivery names them.",
            &["owners", "orgs", "organizations", "repos", "repositories"],
        ),
        key(
            "token",
            Secret,
            "\"env:GITHUB_TOKEN\"",
            Without("only Apps are used"),
            "A personal access token, used only where no App serves the owner.",
            &["pat"],
        ),
        part("polls", Without("its defaults"), "How often the forge is asked.", &["poll"]),
        part("demand", Without("its defaults"), "How jobs are found.", &["sources"]),
        key(
            "app",
            Tables("a table for each App"),
            "",
            Without("the token is used"),
            "GitHub Apps, `[[forge.NAME.app]]`.",
            &["apps"],
        ),
        key(
            "hook",
            Tables("a table for each hook"),
            "",
            Without("only Apps deliver"),
            "Webhooks that belong to no App, `[[forge.NAME.hook]]`.",
            &["hooks", "webhook", "webhooks"],
        ),
    ],
};

pub(super) static POLLS: Section = Section {
    path: "forge.NAME.polls",
    about: "How often the forge is asked, beside what it tells by itself.",
    keys: &[
        key(
            "starting",
            Duration,
            "\"10s\"",
            Means("\"10s\""),
            "Registrations, while a runner is starting.",
            NONE,
        ),
        key(
            "runners",
            Duration,
            "\"1m\"",
            Means("\"1m\""),
            "Registrations, while there are runners.",
            NONE,
        ),
        key(
            "job",
            Duration,
            "\"10m\"",
            Means("\"10m\""),
            "One job in progress of which nothing was heard.",
            NONE,
        ),
    ],
};

pub(super) static APP: Section = Section {
    path: "forge.NAME.app",
    about: "A GitHub App: one table `[[forge.NAME.app]]` for each.",
    keys: &[
        key(
            "id",
            Id,
            "12345",
            Required,
            "What GitHub shows as \"App ID\" or \"Client ID\" (`\"Iv1.…\"`).",
            &["app_id", "client_id", "appid"],
        ),
        key(
            "private_key",
            Secret,
            "\"file:keys/app.pem\"",
            Required,
            "Its RSA key in PEM; read anew at each use.",
            &["key", "pem", "private_key_file", "private_key_path"],
        ),
        key(
            "webhook_secret",
            Secrets,
            "[\"env:HOOK_SECRET\", \"env:HOOK_SECRET_OLD\"]",
            Without("its deliveries are refused, and jobs are found by polling"),
            "What signs its deliveries; several while one is replaced.",
            &["secret", "secrets"],
        ),
        key(
            "owners",
            Takes::Texts(Texts {
                words: "a list of logins",
                pattern: r"^[^/\s]+$",
                least: 0,
                distinct: true,
            }),
            "[\"acme\"]",
            Means("[]"),
            "The accounts it serves; none listed means any it is installed on.",
            &["owner", "account", "accounts", "orgs"],
        ),
    ],
};

pub(super) static HOOK: Section = Section {
    path: "forge.NAME.hook",
    about: "A repository's or organization's own webhook: one table `[[forge.NAME.hook]]` for each.",
    keys: &[
        key(
            "id",
            Takes::Number(1, ID_MAX),
            "99",
            Without("any hook that no other entry names"),
            "The hook's id, as in the header `X-GitHub-Hook-ID`.",
            &["hook_id"],
        ),
        key(
            "scope",
            text("`org:NAME` or `repo:OWNER/NAME`", r"^(org:[^/\s]+|repo:[^/\s]+/[^/\s]+)$"),
            "\"repo:acme/app\"",
            Without("its failed deliveries are not asked for again"),
            "Where the hook is; with its `id`, deliveries that failed are asked for again.",
            &["owner", "repository"],
        ),
        key(
            "secret",
            Secrets,
            "\"env:HOOK_SECRET\"",
            Required,
            "What signs its deliveries; several while one is replaced.",
            &["webhook_secret", "secrets"],
        ),
    ],
};

pub(super) static PROVIDER: Section = Section {
    path: "provider.NAME",
    about: "What makes instances. `process` makes them as process groups of this machine.",
    keys: &[
        key(
            "kind",
            Word(&["process"]),
            "\"process\"",
            Required,
            "How instances are made.",
            &["type"],
        ),
        key(
            "directory",
            text("a path", r"^[^\x00]+$"),
            "\"instances\"",
            Without("beside the database"),
            "Where instances live, a directory each.",
            &["dir", "path", "root", "workdir"],
        ),
        key(
            "node",
            text("a host name", "^[A-Za-z0-9._-]{1,64}$"),
            "\"board-1\"",
            Without("the server's own machine"),
            "The machine its instances live on, as `hostname` prints it; replicas elsewhere leave it alone.",
            &["host", "hostname", "machine"],
        ),
        key(
            "max",
            COUNT,
            "50",
            Without("only `capacity` limits it"),
            "Most instances at any time, of all pools.",
            &["max_instances", "limit"],
        ),
        key(
            "launches",
            COUNT,
            "8",
            Means("8"),
            "Most launches under way at once.",
            &["concurrency", "parallel", "launches_max"],
        ),
        key(
            "launch_deadline",
            Duration,
            "\"1m\"",
            Means("\"1m\""),
            "How long after its start a launch may still take effect.",
            &["launch_timeout", "timeout", "deadline"],
        ),
        key(
            "poll",
            Duration,
            "\"30s\"",
            Means("\"30s\""),
            "How often its instances are listed when nothing is awaited.",
            &["interval", "poll_interval"],
        ),
        key(
            "absent",
            Duration,
            "\"1m\"",
            Means("\"1m\""),
            "How long an instance must be missing from listings before it is believed gone.",
            NONE,
        ),
        part(
            "capacity",
            Without("nothing is limited"),
            "What the machine has for instances in all.",
            NONE,
        ),
    ],
};

pub(super) static CAPACITY: Section = Section {
    path: "provider.NAME.capacity",
    about: "What the machine has for instances in all. A resource not named is not limited.",
    keys: &[AMOUNT],
};

pub(super) const AMOUNT: Key = key(
    "RESOURCE",
    Takes::Amount,
    "",
    Without("not limited"),
    "`cpu` (`\"8\"`, `1.5`, `\"500m\"`), `memory` (`\"16GiB\"`), or a name of your own (`slot = 4`).",
    NONE,
);

pub(super) static IMAGE: Section = Section {
    path: "image.NAME",
    about: "What an instance runs.",
    keys: &[
        key(
            "command",
            Takes::Texts(Texts {
                words: "a list of texts: a program and its arguments",
                pattern: r"^[^\x00]*$",
                least: 1,
                distinct: false,
            }),
            "[\"./run.sh\"]",
            Required,
            "The program and its arguments; a relative program is looked up in the instance's directory.",
            &["cmd", "run", "exec", "entrypoint", "args"],
        ),
        part(
            "archive",
            Without("nothing is unpacked"),
            "What is unpacked into the instance's directory first.",
            &["tarball"],
        ),
        part(
            "env",
            Without("nothing is added"),
            "Environment, besides `PATH`, `LANG` and `TZ`.",
            &["environment"],
        ),
        key(
            "jit",
            text("`env:NAME` or `fd:NUMBER`", "^(env:[A-Za-z_][A-Za-z0-9_]*|fd:[+]?[0-9]+)$"),
            "\"fd:3\"",
            Means("\"env:ACTIONS_RUNNER_INPUT_JITCONFIG\""),
            "How the runner is told its JIT configuration: in a variable, or through a pipe.",
            &["jit_config", "jitconfig"],
        ),
    ],
};

pub(super) static ARCHIVE: Section = Section {
    path: "image.NAME.archive",
    about: "A tar archive, gzipped or not, with the program in it.",
    keys: &[
        key(
            "source",
            text("a path or an https URL", r"^[^\x00-\x1f\x7f-\x9f]+$"),
            "\"https://example.org/runner.tar.gz\"",
            Required,
            "Where it comes from; fetched once and kept.",
            &["url", "path", "uri", "from"],
        ),
        key(
            "sha256",
            text("64 hexadecimal digits", "^[0-9A-Fa-f]{64}$"),
            "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
            Required,
            "The SHA-256 of the archive's bytes.",
            &["checksum", "digest", "hash", "sha"],
        ),
    ],
};

pub(super) static ENV: Section = Section {
    path: "image.NAME.env",
    about: "Environment of the runner. Secrets do not belong here: jobs get theirs from the forge.",
    keys: &[key(
        "VARIABLE",
        text("text", r"^[^\x00]*$"),
        "\"value\"",
        Without("not set"),
        "The variable's value, as it is written.",
        NONE,
    )],
};

/// Every section a fleet file may hold, in the order of the reference page.
pub static SCHEMA: [&Section; 21] = [
    &ROOT,
    &SERVER,
    &FORGE,
    &POLLS,
    &DEMAND,
    &APP,
    &HOOK,
    &PROVIDER,
    &CAPACITY,
    &IMAGE,
    &ARCHIVE,
    &ENV,
    &POOL,
    &NEEDS,
    &LIMITS,
    &TEMPLATE,
    &MATRIX,
    &DEFAULT_TENANT,
    &TENANT,
    &GRACE,
    &QUARANTINE,
];
