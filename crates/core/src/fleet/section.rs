//! The sections of a fleet file, one function each: a table in, a checked value out.
//!
//! Each reads all its keys before it gives up, so that every problem is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeFloat;

use super::demand;
use super::meant::{misspells, nearest};
use super::read::{Field, Item, Named, Reader, Table, kind, whole};
use super::schema::{APP, ARCHIVE, FORGE, HOOK, IMAGE, POLLS, PROVIDER, SERVER};
use super::value::{self, names_secret, quote};
use super::{
    App, Archive, Demand, Forge, Hook, Image, JitBy, Polls, Process, Provider, ProviderKind, Server,
};
use crate::name::{ForgeName, GroupName, ImageName, Login, ProviderName, Resource};
use crate::tenant::Scope;

/// Most arguments of a command, Apps and hooks of a forge.
const ENTRIES_MAX: usize = 1000;
/// The greatest id, the greatest whole number of TOML.
pub(super) const ID_MAX: u64 = u64::MAX >> 1;

/// The names of what the file declares, by kind; `None` where there are none.
pub(super) type Declared<'a> = BTreeMap<&'static str, BTreeSet<&'a str>>;

pub(super) fn server(r: &mut Reader, item: Item<'_>) -> Option<Server> {
    r.enter("server");
    let table = r.table(&SERVER, item)?;
    let listen = match table.get("listen") {
        None => Some(Server::default().listen),
        Some(listen) => r.parsed(listen, |text| {
            let address = text.parse::<SocketAddr>();
            address.map_err(|_| format!("{} is not an IP address and port", quote(text)))
        }),
    };
    let database = table.get("database").map(|database| r.secret(database));
    if database == Some(None) {
        return None;
    }
    Some(Server { listen: listen?, database: database.flatten() })
}

pub(super) fn forge(r: &mut Reader, named: Named<'_>) -> Option<Forge> {
    r.enter(format!("forge {}", quote(named.name)));
    let name = declared_name(r, named, ForgeName::new);
    let table = r.table(&FORGE, named.item)?;
    let kind = table.get("kind").map_or(Some("github"), |kind| r.word(kind));
    let api = match table.get("api") {
        None => Some("https://api.github.com".into()),
        Some(api) => url(r, api, value::base_url),
    };
    let group = match table.get("group") {
        None => Some(GroupName::new("remuda").expect("the default group is a name")),
        Some(group) => r.parsed(group, GroupName::new),
    };
    let scopes = r.set_or_empty(&table, "scopes", scope);
    let token = table.get("token").map(|token| r.secret(token));
    let polls = table.get("polls").map_or(Some(Polls::default()), |field| polls(r, field.item));
    let demand = table.get("demand").map_or(Some(Demand::default()), |at| demand::read(r, at.item));
    let apps = match table.get("app") {
        None => Some(Vec::new()),
        Some(apps) => tables(r, apps, app),
    };
    let hooks = match table.get("hook") {
        None => Some(Vec::new()),
        Some(hooks) => tables(r, hooks, hook),
    };
    if apps.as_ref().is_some_and(Vec::is_empty) && token.is_none() {
        let help = "declare an App: [[forge.NAME.app]]";
        r.miss(table.at, "it has neither an App nor a token", Some(help.into()));
    }
    if let (Some(apps), Some(field)) = (&apps, table.get("app")) {
        let mut seen = BTreeSet::new();
        let again = apps.iter().position(|app| !seen.insert(app.id.clone()));
        if let Some(index) = again {
            r.note(field.entry_place(index), "two Apps have this id", None);
        }
    }
    if let (Some(hooks), Some(field)) = (&hooks, table.get("hook")) {
        let mut seen = BTreeSet::new();
        let again = hooks.iter().position(|hook| !seen.insert(hook.id));
        if let Some(index) = again {
            let message = match hooks[index].id {
                Some(_) => "two hooks have this id",
                None => "two hooks have no id; only one can stand for all others",
            };
            r.note(field.entry_place(index), message, None);
        }
    }
    kind?;
    let forge = Forge {
        name: name?,
        api: api?,
        apps: apps?,
        token: match token {
            Some(token) => Some(token?),
            None => None,
        },
        hooks: hooks?,
        scopes: scopes?,
        group: group?,
        polls: polls?,
        demand: demand?,
    };
    served(r, table.get("scopes"), &forge.scopes, &forge);
    Some(forge)
}

/// Every listed scope needs a credential that serves its owner.
pub(super) fn served(r: &mut Reader, field: Option<Field<'_>>, scopes: &[Scope], forge: &Forge) {
    let anyone = forge.token.is_some() || forge.apps.iter().any(|app| app.owners.is_empty());
    let Some(field) = field.filter(|_| !anyone) else { return };
    let owners: BTreeSet<&Login> = forge.apps.iter().flat_map(|app| &app.owners).collect();
    for (index, scope) in scopes.iter().enumerate() {
        if !owners.contains(scope.owner()) {
            let owner = scope.owner().as_str();
            let near = nearest(owner, owners.iter().map(|owner| owner.as_str()));
            let help = near.map_or_else(
                || "add it to the owners of an App".into(),
                |near| format!("did you mean {near:?}?"),
            );
            let message = format!("no App of forge \"{}\" serves {}", forge.name, quote(owner));
            r.miss(field.entry_place(index), message, Some(help));
        }
    }
}

/// Reads the name a table was given.
pub(super) fn declared_name<T, E: std::fmt::Display>(
    r: &mut Reader,
    named: Named<'_>,
    read: fn(&str) -> Result<T, E>,
) -> Option<T> {
    read(named.name).map_err(|why| r.note(named.at, why, None)).ok()
}

/// The forge a table names, or the only one there is.
pub(super) fn forge_of(
    r: &mut Reader,
    table: &Table<'_>,
    declared: &Declared<'_>,
) -> Option<ForgeName> {
    let forges = declared.get("forge");
    let name = match (table.get("forge"), forges) {
        (Some(field), _) => r.reference(field, forges)?.to_string(),
        (None, None) => return None,
        (None, Some(forges)) => {
            let mut names = forges.iter();
            let first = names.next()?;
            if names.next().is_some() {
                let names: Vec<_> = forges.iter().take(8).map(|name| quote(name)).collect();
                let help = format!("one of {}", names.join(", "));
                let message = "\"forge\" is missing, and there are several";
                r.miss(table.at, message, Some(help));
                return None;
            }
            (*first).to_string()
        }
    };
    ForgeName::new(&name).ok()
}

/// Reads a scope, with a word about what people write instead.
pub(super) fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|why: crate::tenant::ScopeError| match text.split_once(':') {
        Some(("user", _)) => "a person's account is no scope; name its repositories".into(),
        Some(_) | None if text.chars().count() > 80 => format!("{} is not a scope", quote(text)),
        Some(_) | None => why.to_string(),
    })
}

/// Reads a URL; one that is refused may hold a password and is not shown.
fn url(
    r: &mut Reader,
    field: Field<'_>,
    read: fn(&str) -> Result<String, String>,
) -> Option<String> {
    let read = r.parsed(field, read);
    if field.value().as_str().is_some_and(|text| text.contains('@')) {
        r.hide(field.item);
    }
    read
}

/// Reads a list of tables.
fn tables<T>(
    r: &mut Reader,
    field: Field<'_>,
    read: fn(&mut Reader, Item<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    // A single table where a list of them belongs is what `[forge.x.app]` makes.
    if field.value().is_table() {
        let help = format!("write two brackets: [[…{}]]", field.key.name);
        r.note(field.place(), format!("{:?} takes a list of tables", field.key.name), Some(help));
        read(r, field.item);
        return None;
    }
    let entries = r.list(field, ENTRIES_MAX, |r, entry| read(r, entry.item))?;
    Some(entries.into_iter().map(|(entry, _)| entry).collect())
}

fn polls(r: &mut Reader, item: Item<'_>) -> Option<Polls> {
    let table = r.table(&POLLS, item)?;
    let default = Polls::default();
    let starting = r.duration_or(&table, "starting", default.starting);
    let runners = r.duration_or(&table, "runners", default.runners);
    let job = r.duration_or(&table, "job", default.job);
    Some(Polls { starting: starting?, runners: runners?, job: job? })
}

fn app(r: &mut Reader, item: Item<'_>) -> Option<App> {
    let table = r.table(&APP, item)?;
    let id = r.required(&table, "id").and_then(|id| {
        if id.value().is_integer() {
            return r.number(id).map(|id| id.to_string());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        r.parsed(id, |text| {
            if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
                Ok(text.to_string())
            } else {
                Err(format!("{} is not an App's id or client id", quote(text)))
            }
        })
    });
    let private_key = r.required(&table, "private_key").and_then(|key| r.secret(key));
    let webhook_secrets =
        table.get("webhook_secret").map_or(Some(Vec::new()), |field| r.secrets(field));
    let owners = r.set_or_empty(&table, "owners", Login::new);
    Some(App {
        id: id?,
        private_key: private_key?,
        webhook_secrets: webhook_secrets?,
        owners: owners?,
    })
}

fn hook(r: &mut Reader, item: Item<'_>) -> Option<Hook> {
    let table = r.table(&HOOK, item)?;
    let id = table.get("id").map(|id| r.number(id));
    let secrets = r.required(&table, "secret").and_then(|field| {
        let secrets = r.secrets(field)?;
        if secrets.is_empty() {
            r.note(field.place(), "\"secret\" must name at least one", None);
        }
        Some(secrets)
    });
    let id = match id {
        Some(id) => Some(id?),
        None => None,
    };
    let scope = match table.get("scope") {
        None => None,
        Some(field) => Some(r.parsed(field, |text| match scope(text)? {
            Scope::Enterprise(_) => Err(String::from("an enterprise's hook cannot be asked about")),
            here @ (Scope::Organization(_) | Scope::Repository(_)) => Ok(here),
        })?),
    };
    if scope.is_some() && id.is_none() {
        r.miss(table.at, "\"scope\" needs \"id\" beside it", None);
    }
    Some(Hook { id, scope, secrets: secrets? })
}

/// Longest name of a machine that Linux takes, in bytes.
const HOST_NAME_MAX: usize = 64;

/// `shared`: whether several replicas share the books.
pub(super) fn provider(r: &mut Reader, named: Named<'_>, shared: bool) -> Option<Provider> {
    r.enter(format!("provider {}", quote(named.name)));
    let name = declared_name(r, named, ProviderName::new);
    let table = r.table(&PROVIDER, named.item)?;
    let kind = r.required(&table, "kind").and_then(|kind| r.word(kind));
    let directory = table.get("directory").map(|field| {
        r.parsed(field, |text| {
            if text.is_empty() || text.contains('\0') {
                Err("must be a path")
            } else {
                Ok(text.into())
            }
        })
    });
    let node = table.get("node").map(|field| {
        r.parsed(field, |text| {
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
            if plain && (1..=HOST_NAME_MAX).contains(&text.len()) {
                Ok(text.to_owned())
            } else {
                Err("must be a host name, as `hostname` prints it")
            }
        })
    });
    if shared && (directory.is_none() || node.is_none()) {
        let message = "its instances live on one machine, and with a shared database a replica on \
                       another one would not see them";
        let help = "say which and where: node = \"HOST\", directory = \"PATH\"";
        r.note(named.at, message, Some(help.into()));
    }
    let max = r.count_or(&table, "max", None::<u32>);
    let launches_max = r.count_or(&table, "launches", 8);
    let minute = Duration::from_mins(1);
    let launch_deadline = r.duration_or(&table, "launch_deadline", minute);
    let poll = r.duration_or(&table, "poll", minute / 2);
    let absent = r.duration_or(&table, "absent", minute);
    let capacity = table.get("capacity").map_or(Some(BTreeMap::new()), |field| amounts(r, field));
    kind?;
    let directory = match directory {
        Some(directory) => Some(directory?),
        None => None,
    };
    let node = match node {
        Some(node) => Some(node?),
        None => None,
    };
    Some(Provider {
        name: name?,
        kind: ProviderKind::Process(Process { directory, node, capacity: capacity? }),
        max: max?,
        launches_max: launches_max?,
        launch_deadline: launch_deadline?,
        poll: poll?,
        absent: absent?,
    })
}

/// Reads amounts of resources: `cpu` in thousandths of a core, `memory` in MiB, others in pieces.
pub(super) fn amounts(r: &mut Reader, field: Field<'_>) -> Option<BTreeMap<Resource, u64>> {
    let before = r.count();
    let mut amounts = BTreeMap::new();
    for named in r.entries(field.key.name, field.item) {
        let (name, amount) = (declared_name(r, named, Resource::new), amount(r, named));
        if let Some((name, amount)) = name.zip(amount) {
            amounts.insert(name, amount);
        }
    }
    (r.count() == before).then_some(amounts)
}

fn amount(r: &mut Reader, named: Named<'_>) -> Option<u64> {
    let meant = match named.name {
        "cpus" | "core" | "cores" | "vcpu" | "vcpus" => Some("cpu"),
        "mem" | "ram" => Some("memory"),
        // These are resources of their own, not misspellings.
        "dpu" | "gpu" | "ipu" | "npu" | "tpu" | "vpu" => None,
        name if misspells(name, "cpu") => Some("cpu"),
        name => nearest(name, ["memory"].into_iter()),
    };
    if let Some(meant) = meant.filter(|meant| *meant != named.name) {
        let message = format!("unknown resource {}", quote(named.name));
        r.note(named.at, message, Some(format!("did you mean {meant:?}?")));
        return None;
    }
    let value = named.item.value.get_ref();
    let (whole, found) = (whole(named.item), kind(named.item));
    let read = match named.name {
        "cpu" => match (value.as_str().or(value.as_float().map(DeFloat::as_str)), whole) {
            (Some(text), _) => value::cpu(text),
            (None, Some(cores)) => value::cpu(&cores.to_string()),
            (None, None) => Err(format!("takes a number of cores, not {found}")),
        },
        "memory" => match value.as_str() {
            Some(text) => value::memory(text),
            None => Err(format!(
                "takes an amount with a unit, such as \"{}MiB\", not {found}",
                whole.unwrap_or(4096)
            )),
        },
        _ if !value.is_integer() => Err(format!("takes a whole number, not {found}")),
        _ => {
            whole.filter(|n| (1..=ID_MAX).contains(n)).ok_or("must be a whole number from 1".into())
        }
    };
    read.map_err(|why| {
        let message = format!("{}: {why}", quote(named.name));
        r.note(named.item.place(), message, None);
    })
    .ok()
}

pub(super) fn image(r: &mut Reader, named: Named<'_>) -> Option<Image> {
    r.enter(format!("image {}", quote(named.name)));
    let name = declared_name(r, named, ImageName::new);
    let table = r.table(&IMAGE, named.item)?;
    let command = r.required(&table, "command").and_then(|field| {
        let read = |text: &str| {
            if text.contains('\0') {
                Err("must hold no NUL character")
            } else {
                Ok(text.to_string())
            }
        };
        let words = r.list(field, ENTRIES_MAX, |r, entry| r.parsed(entry, read))?;
        if words.first().is_none_or(|(program, _)| program.is_empty()) {
            r.note(field.entry_place(0), "\"command\" must begin with a program", None);
        }
        Some(words.into_iter().map(|(word, _)| word).collect())
    });
    let jit = match table.get("jit") {
        None => Some(JitBy::Env(JitBy::OFFICIAL.into())),
        Some(field) => r.parsed(field, jit),
    };
    let archive = table.get("archive").map(|field| archive(r, field.item));
    let env = table.get("env").map_or(Some(BTreeMap::new()), |field| env(r, field, jit.as_ref()));
    let archive = match archive {
        Some(archive) => Some(archive?),
        None => None,
    };
    Some(Image { name: name?, archive, command: command?, env: env?, jit: jit? })
}

fn archive(r: &mut Reader, item: Item<'_>) -> Option<Archive> {
    let table = r.table(&ARCHIVE, item)?;
    let source = r.required(&table, "source").and_then(|field| url(r, field, value::source));
    let sha256 = r.required(&table, "sha256").and_then(|field| r.parsed(field, value::sha256));
    Some(Archive { source: source?, sha256: sha256? })
}

fn jit(text: &str) -> Result<JitBy, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return if value::variable(name) {
            Ok(JitBy::Env(name.into()))
        } else {
            Err(format!("{} is not the name of a variable", quote(name)))
        };
    }
    // 0 to 2 are the runner's own input and output.
    let number = text.strip_prefix("fd:").map(|n| n.parse().ok().filter(|n| (3..256).contains(n)));
    match number {
        Some(Some(number)) => Ok(JitBy::Descriptor(number)),
        Some(None) => Err("a descriptor is a number from 3 to 255".into()),
        None => Err(format!("{} is neither \"env:NAME\" nor \"fd:NUMBER\"", quote(text))),
    }
}

fn env(r: &mut Reader, field: Field<'_>, jit: Option<&JitBy>) -> Option<BTreeMap<String, String>> {
    let before = r.count();
    let mut env = BTreeMap::new();
    for named in r.entries(field.key.name, field.item) {
        let value = named.item.value.get_ref();
        let harmless = ["", "0", "1", "true", "false", "yes", "no"];
        if names_secret(named.name) && !value.as_str().is_some_and(|v| harmless.contains(&v)) {
            r.hide(named.item);
            let message = format!("{} seems to carry a secret", quote(named.name));
            let help = "jobs get their secrets from the forge; an image holds none";
            r.note(named.item.place(), message, Some(help.into()));
            continue;
        }
        if !value::variable(named.name) {
            let message = format!("{} cannot be the name of a variable", quote(named.name));
            r.note(named.at, message, Some("letters, digits and '_', no digit first".into()));
        }
        if matches!(jit, Some(JitBy::Env(taken)) if taken == named.name) {
            r.note(named.at, "this variable carries the JIT configuration", None);
        }
        match value.as_str() {
            Some(text) if text.contains('\0') => {
                r.note(named.item.place(), "must hold no NUL character", None);
            }
            Some(text) => drop(env.insert(named.name.into(), text.into())),
            None => {
                let found = kind(named.item);
                let message = format!("{} takes text, not {found}", quote(named.name));
                r.note(named.item.place(), message, Some("write it in quotes".into()));
            }
        }
    }
    (r.count() == before).then_some(env)
}
