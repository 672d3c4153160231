//! From a fleet to the text that declares it, and what parts two fleets.
//!
//! Everything is written with its value, whether it is the default or not: what a fleet means, not how
//! somebody put it. Templates and matrices are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::{Table, Value};

use super::{
    Allowance, App, Demand, Fleet, Forge, Hook, Image, JitBy, Provider, ProviderKind, Terms, value,
};
use crate::name::{ForgeName, GroupName, Login, Resource, TenantName};
use crate::pool::{Gather, Limits, Mode, Pool};
use crate::tenant::TenantKey;

impl Fleet {
    /// The fleet as the one document that declares it; read again, it is an equal fleet.
    pub fn document(&self) -> Table {
        let mut root = Table::new();
        let mut server = Table::new();
        put(&mut server, "listen", self.server.listen.to_string());
        put_if(&mut server, "database", self.server.database.as_ref().map(ToString::to_string));
        root.insert("server".into(), server.into());
        named(&mut root, "forge", &self.forges, forge);
        named(&mut root, "provider", &self.providers, provider);
        named(&mut root, "image", &self.images, image);
        named(&mut root, "pool", &self.pools, pool);
        root.insert("tenant".into(), self.tenants_document().into());
        let grace = [
            ("stray", self.grace.stray),
            ("registration", self.grace.registration),
            ("unexplained", self.grace.unexplained),
            ("destroy", self.grace.destroy),
        ];
        root.insert("grace".into(), durations(grace).into());
        let mut quarantine = durations([("longest", self.quarantine.longest)]);
        put(&mut quarantine, "after", i64::from(self.quarantine.after));
        root.insert("quarantine".into(), quarantine.into());
        root
    }

    fn tenants_document(&self) -> Table {
        let mut all = Table::new();
        all.insert("default".into(), terms(self.tenants.default).into());
        let mut add = |forge: &ForgeName, login: Option<&Login>, id: Option<&TenantKey>, what| {
            let mut table = terms(what);
            put(&mut table, "forge", forge.as_str());
            put_if(&mut table, "login", login.map(Login::as_str));
            put_if(&mut table, "id", id.map(|key| whole(key.id)));
            put_if(&mut table, "kind", id.map(|key| key.kind.as_str()));
            // What people called it is not kept; its account tells as much.
            let account = match (login, id) {
                (Some(login), _) => login.to_string(),
                (None, id) => format!("id-{}", id.map_or(0, |key| key.id)),
            };
            let name = [forge.as_str(), ".", &account].concat();
            let short = TenantName::new(&name).map_or_else(|_| all.len().to_string(), |_| name);
            all.insert(short, table.into());
        };
        for ((forge, login), (id, terms)) in &self.tenants.by_login {
            add(forge, Some(login), id.as_ref(), *terms);
        }
        let with_login = |key: &TenantKey| {
            self.tenants.by_login.values().any(|(id, _)| id.as_ref() == Some(key))
        };
        for (key, terms) in self.tenants.by_id.iter().filter(|(key, _)| !with_login(key)) {
            add(&key.forge, None, Some(key), *terms);
        }
        all
    }
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.into(), value.into());
}

/// The same, unless there is nothing to write.
fn put_if(table: &mut Table, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(table, key, value);
    }
}

fn named<K: ToString, T>(
    root: &mut Table,
    key: &str,
    all: &BTreeMap<K, T>,
    write: fn(&T) -> Table,
) {
    let tables = all.iter().map(|(name, one)| (name.to_string(), write(one).into()));
    put(root, key, tables.collect::<Table>());
}

fn texts<T: ToString>(all: impl IntoIterator<Item = T>) -> Value {
    let mut texts: Vec<_> = all.into_iter().map(|text| text.to_string()).collect();
    // These lists are sets.
    texts.sort();
    texts.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

/// A whole number; the reader takes none that TOML could not hold.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn durations<const N: usize>(all: [(&str, Duration); N]) -> Table {
    all.into_iter().map(|(key, span)| (key.into(), value::written(span).into())).collect()
}

fn forge(forge: &Forge) -> Table {
    let mut table = Table::new();
    put(&mut table, "kind", "github");
    put(&mut table, "api", forge.api.as_str());
    put(&mut table, "group", forge.group.as_str());
    put(&mut table, "scopes", texts(&forge.scopes));
    put_if(&mut table, "token", forge.token.as_ref().map(ToString::to_string));
    let polls = [
        ("starting", forge.polls.starting),
        ("runners", forge.polls.runners),
        ("job", forge.polls.job),
    ];
    put(&mut table, "polls", durations(polls));
    put(&mut table, "demand", demand(forge.demand));
    put(&mut table, "app", forge.apps.iter().map(app).collect::<Vec<_>>());
    put(&mut table, "hook", forge.hooks.iter().map(hook).collect::<Vec<_>>());
    table
}

fn demand(demand: Demand) -> Table {
    let pace = |every: Option<Duration>| every.map_or_else(|| "off".into(), value::written);
    let mut table = Table::new();
    put(&mut table, "webhooks", demand.webhooks);
    put(&mut table, "redelivery", pace(demand.redelivery));
    put(&mut table, "sweep", pace(demand.sweep));
    match demand.budget {
        Allowance::Share(percent) => put(&mut table, "budget", format!("{percent}%")),
        Allowance::Calls(calls) => put(&mut table, "budget", i64::from(calls)),
    }
    table
}

fn app(app: &App) -> Table {
    let mut table = Table::new();
    put(&mut table, "id", app.id.as_str());
    put(&mut table, "private_key", app.private_key.to_string());
    put(&mut table, "webhook_secret", in_order(&app.webhook_secrets));
    put(&mut table, "owners", texts(&app.owners));
    table
}

fn hook(hook: &Hook) -> Table {
    let mut table = Table::new();
    put_if(&mut table, "id", hook.id.map(whole));
    put_if(&mut table, "scope", hook.scope.as_ref().map(ToString::to_string));
    put(&mut table, "secret", in_order(&hook.secrets));
    table
}

fn in_order<T: ToString>(all: &[T]) -> Vec<Value> {
    all.iter().map(|one| one.to_string().into()).collect()
}

fn provider(provider: &Provider) -> Table {
    let mut table = durations([
        ("launch_deadline", provider.launch_deadline),
        ("poll", provider.poll),
        ("absent", provider.absent),
    ]);
    put(&mut table, "launches", i64::from(provider.launches_max));
    put_if(&mut table, "max", provider.max.map(i64::from));
    match &provider.kind {
        ProviderKind::Process(process) => {
            put(&mut table, "kind", "process");
            let directory = process.directory.as_ref();
            put_if(&mut table, "directory", directory.map(|path| path.display().to_string()));
            put_if(&mut table, "node", process.node.as_deref());
            put(&mut table, "capacity", amounts(&process.capacity));
        }
    }
    table
}

fn amounts(amounts: &BTreeMap<Resource, u64>) -> Table {
    let written = |(resource, amount): (&Resource, &u64)| {
        let value = match resource.as_str() {
            "cpu" => format!("{amount}m").into(),
            "memory" => format!("{amount}MiB").into(),
            _ => whole(*amount).into(),
        };
        (resource.to_string(), value)
    };
    amounts.iter().map(written).collect()
}

fn image(image: &Image) -> Table {
    let mut table = Table::new();
    put(&mut table, "command", in_order(&image.command));
    if let Some(archive) = &image.archive {
        let mut of = Table::new();
        put(&mut of, "source", archive.source.as_str());
        put(&mut of, "sha256", value::hex(&archive.sha256));
        put(&mut table, "archive", of);
    }
    let env = image.env.iter().map(|(name, text)| (name.clone(), text.as_str().into()));
    put(&mut table, "env", env.collect::<Table>());
    let jit = match &image.jit {
        JitBy::Env(name) => format!("env:{name}"),
        JitBy::Descriptor(number) => format!("fd:{number}"),
    };
    put(&mut table, "jit", jit);
    table
}

fn pool(pool: &Pool) -> Table {
    let mut table = Table::new();
    put(&mut table, "labels", texts(pool.labels.iter()));
    put(&mut table, "provider", pool.provider.as_str());
    put(&mut table, "image", pool.image.as_str());
    put(&mut table, "forge", pool.forge.as_str());
    put(&mut table, "scopes", texts(&pool.scopes));
    put_if(&mut table, "group", pool.group.as_ref().map(GroupName::as_str));
    put(&mut table, "needs", amounts(&pool.needs));
    put(&mut table, "max", i64::from(pool.max));
    put(&mut table, "min_idle", i64::from(pool.min_idle));
    put_if(&mut table, "mode", mode(pool.gather));
    let Limits { boot, idle, lifetime, job, finish } = pool.limits;
    let mut limits =
        durations([("boot", boot), ("idle", idle), ("lifetime", lifetime), ("finish", finish)]);
    put_if(&mut limits, "job", job.map(value::written));
    put(&mut table, "limits", limits);
    table
}

/// The word for how many jobs wait for each other; none if none do.
fn mode(gather: Gather) -> Option<&'static str> {
    let modes = [Mode::Lazy, Mode::Balanced, Mode::Aggressive];
    modes.into_iter().find(|mode| mode.gather() == gather).map(Mode::as_str)
}

fn terms(terms: Terms) -> Table {
    let mut table = Table::new();
    match terms.cap {
        u32::MAX => put(&mut table, "cap", "unlimited"),
        cap => put(&mut table, "cap", i64::from(cap)),
    }
    put(&mut table, "floor", i64::from(terms.floor));
    put(&mut table, "weight", i64::from(terms.weight));
    table
}

/// One key that two fleets give different values.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: the names of the tables and the key, such as `pool`, `rvv`, `limits`, `idle`. Where one fleet
    /// lacks a whole declaration, its path alone.
    pub path: Vec<String>,
    /// What the first says; none if it says nothing.
    pub before: Option<Value>,
    /// What the second says.
    pub after: Option<Value>,
}

/// What parts two fleets, in the order of the paths. Equal fleets have none.
pub fn differences(before: &Fleet, after: &Fleet) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), &before.document(), &after.document(), &mut found);
    found
}

fn compare(path: &mut Vec<String>, before: &Table, after: &Table, found: &mut Vec<Difference>) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        path.push(key.clone());
        match (before.get(key), after.get(key)) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                compare(path, before, after, found);
            }
            (before, after) if before == after => {}
            (before, after) => found.push(Difference {
                path: path.clone(),
                before: before.cloned(),
                after: after.cloned(),
            }),
        }
        path.pop();
    }
}
