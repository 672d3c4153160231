//! Pools, and what must hold between a pool and the rest of the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::meant::nearest;
use super::read::{Field, Named, Reader, Table};
use super::schema::Absent::{Means, Required, Without};
use super::schema::{AMOUNT, NONE, Section, key, part};
use super::section::{Declared, amounts, declared_name, forge_of, scope, served};
use super::takes::{COUNT, COUNT_MAX, FOREIGN, NAME, SCOPES, Takes, Texts, text};
use super::value::quote;
use super::{Fleet, ProviderKind};
use crate::label::{LABELS_MAX, Label, LabelError, LabelSet};
use crate::name::{ForgeName, GroupName, ImageName, PoolName, ProviderName, Resource};
use crate::pool::{Audience, Gather, Limits, Mode, Needs, Pool};
use crate::tenant::Scope;

/// A pool as far as it could be read, and where its keys stand.
pub(super) struct Draft<'a> {
    pub pool: Option<Pool>,
    named: Named<'a>,
    table: Table<'a>,
    scopes: Option<Vec<Scope>>,
    max: Option<u32>,
    min_idle: Option<u32>,
}

pub(super) fn pool<'a>(
    r: &mut Reader,
    named: Named<'a>,
    declared: &Declared<'_>,
) -> Option<Draft<'a>> {
    r.enter(here(named));
    let name = declared_name(r, named, PoolName::new);
    read(r, named, declared, name)
}

fn read<'a>(
    r: &mut Reader,
    named: Named<'a>,
    declared: &Declared<'_>,
    name: Option<PoolName>,
) -> Option<Draft<'a>> {
    let table = r.table(&POOL, named.item)?;
    // Which template it is has been looked up before.
    table.get("use").map(|field| r.text(field));
    let labels = r.required(&table, "labels").and_then(|field| labels(r, field));
    let provider = r.required(&table, "provider").and_then(|field| {
        let name = r.reference(field, declared.get("provider"))?;
        ProviderName::new(name).ok()
    });
    let image = r.required(&table, "image").and_then(|field| {
        let name = r.reference(field, declared.get("image"))?;
        ImageName::new(name).ok()
    });
    let forge = forge_of(r, &table, declared);
    let scopes = r.set_or_empty(&table, "scopes", scope);
    let group = table.get("group").map(|field| r.parsed(field, GroupName::new));
    let needs = table.get("needs").map_or(Some(BTreeMap::new()), |field| amounts(r, field));
    let max = r.required(&table, "max").and_then(|_| r.count_or(&table, "max", 1));
    let min_idle = r.count_or(&table, "min_idle", 0);
    let mode = table.get("mode").map(|field| mode(r, field));
    let limits = limits(r, &table, mode.flatten());
    let listed = scopes.clone();
    let pool = || -> Option<Pool> {
        Some(Pool {
            name: name?,
            forge: forge?,
            scopes: listed?,
            group: match group {
                Some(group) => Some(group?),
                None => None,
            },
            labels: labels?,
            provider: provider?,
            image: image?,
            needs: Needs::from(Arc::new(needs?)),
            min_idle: min_idle?,
            max: max?,
            gather: match mode {
                Some(mode) => mode?.gather(),
                None => Gather::default(),
            },
            limits: limits?,
            audience: Audience::Anyone,
        })
    };
    Some(Draft { pool: pool(), named, table, scopes, max, min_idle })
}

/// Notes what is wrong with a template, as far as that can be seen without the pools that use it.
pub(super) fn template(r: &mut Reader, named: Named<'_>, declared: &Declared<'_>) {
    r.enter(format!("template {}", quote(named.name)));
    let name = declared_name(r, named, PoolName::new);
    read(r, named, declared, name);
}

fn here(named: Named<'_>) -> String {
    format!("pool {}", quote(named.name))
}

/// Reads labels one by one, so that each bad one is noted where it stands.
fn labels(r: &mut Reader, field: Field<'_>) -> Option<LabelSet> {
    let entries = r.list(field, LABELS_MAX, |r, entry| {
        r.parsed(entry, |text| {
            Label::new(text).map_err(|why| match why {
                LabelError::Empty | LabelError::TooLong(_) | LabelError::TooMany(_) => {
                    why.to_string()
                }
                LabelError::Control(text) => {
                    format!("label {} holds a control character", quote(&text))
                }
            })
        })
    })?;
    if entries.is_empty() {
        r.note(field.place(), "\"labels\" must hold at least one", None);
        return None;
    }
    let labels = r.distinct(field.key, entries)?;
    LabelSet::parse(labels.iter().map(Label::as_str)).ok()
}

fn mode(r: &mut Reader, field: Field<'_>) -> Option<Mode> {
    let modes = [Mode::Lazy, Mode::Balanced, Mode::Aggressive];
    let word = r.word(field)?;
    modes.into_iter().find(|mode| mode.as_str() == word)
}

fn limits(r: &mut Reader, table: &Table<'_>, mode: Option<Mode>) -> Option<Limits> {
    let mut default = Limits::default();
    default.idle = mode.map_or(default.idle, Mode::idle);
    let Some(field) = table.get("limits") else { return Some(default) };
    let table = r.table(&LIMITS, field.item)?;
    let boot = r.duration_or(&table, "boot", default.boot);
    let idle = r.duration_or(&table, "idle", default.idle);
    let lifetime = r.duration_or(&table, "lifetime", default.lifetime);
    let job = r.duration_or(&table, "job", default.job);
    let finish = r.duration_or(&table, "finish", default.finish);
    if let (Some(boot), Some(lifetime)) = (boot, lifetime)
        && boot >= lifetime
    {
        let key = if table.get("boot").is_some() { "boot" } else { "lifetime" };
        let message = "\"boot\" must be shorter than \"lifetime\", or no runner comes online";
        r.note(table.place(key), message, None);
    }
    Some(Limits { boot: boot?, idle: idle?, lifetime: lifetime?, job: job?, finish: finish? })
}

/// Checks each pool against itself and what it refers to, and pools against each other. `fleet`
/// holds what could be read; what it lacks has been noted.
pub(super) fn check(r: &mut Reader, drafts: &[Draft<'_>], fleet: &Fleet) {
    for draft in drafts {
        r.enter(here(draft.named));
        idle(r, draft);
        if let Some(pool) = &draft.pool {
            group(r, draft, pool);
            if let Some(forge) = fleet.forges.get(&pool.forge) {
                served(r, draft.table.get("scopes"), &pool.scopes, forge);
            }
            room(r, draft, pool, fleet);
        }
    }
    domains(r, drafts, fleet);
}

/// Idle runners need scopes to wait in, and room.
fn idle(r: &mut Reader, draft: &Draft<'_>) {
    let (Some(scopes), Some(min_idle)) = (&draft.scopes, draft.min_idle) else { return };
    let at = draft.table.place("min_idle");
    if min_idle > 0 && scopes.is_empty() {
        let help = "for example scopes = [\"org:acme\"]";
        r.miss(at, "\"min_idle\" needs \"scopes\" to keep runners in", Some(help.into()));
    }
    let Some(max) = draft.max else { return };
    let wanted = u64::from(min_idle) * scopes.len() as u64;
    if wanted > u64::from(max) {
        let message = format!(
            "\"min_idle\" wants {min_idle} runners in each of {} scopes, but \"max\" is {max}",
            scopes.len()
        );
        r.note(at, message, None);
    }
}

/// A group means nothing where runners register with repositories only.
fn group(r: &mut Reader, draft: &Draft<'_>, pool: &Pool) {
    let repository = |scope: &Scope| match scope {
        Scope::Repository(_) => true,
        Scope::Organization(_) | Scope::Enterprise(_) => false,
    };
    if pool.group.is_some() && !pool.scopes.is_empty() && pool.scopes.iter().all(repository) {
        let message = "\"group\" has no effect: repositories have no runner groups";
        r.note(draft.table.place("group"), message, None);
    }
}

/// An instance must fit its machine, and every need must be something the machine counts.
fn room(r: &mut Reader, draft: &Draft<'_>, pool: &Pool, fleet: &Fleet) {
    let Some(provider) = fleet.providers.get(&pool.provider) else { return };
    let ProviderKind::Process(process) = &provider.kind;
    let Some(field) = draft.table.get("needs") else { return };
    for named in r.entries("needs", field.item) {
        let Ok(resource) = Resource::new(named.name) else { continue };
        let Some(need) = pool.needs.get(&resource) else { continue };
        match process.capacity.get(&resource) {
            Some(room) if need > room => {
                let (need, room) = (amount(&resource, *need), amount(&resource, *room));
                let message = format!(
                    "{:?} asks for {need}, but provider \"{}\" has {room}",
                    named.name, provider.name
                );
                r.note(named.item.place(), message, None);
            }
            Some(_) => {}
            // The process provider limits these two even if it does not count them.
            None if matches!(named.name, "cpu" | "memory") => {}
            None => {
                let known = process.capacity.keys().map(Resource::as_str);
                let help = nearest(named.name, known.chain(["cpu", "memory"]))
                    .map(|near| format!("did you mean {near:?}?"));
                let message = format!(
                    "provider \"{}\" has no {} in its \"capacity\"",
                    provider.name,
                    quote(named.name)
                );
                r.miss(named.at, message, help);
            }
        }
    }
}

/// An amount as it is written in the file.
fn amount(resource: &Resource, amount: u64) -> String {
    match resource.as_str() {
        "cpu" if amount.is_multiple_of(1000) => format!("{} cores", amount / 1000),
        "cpu" => format!("{amount}m cores"),
        "memory" if amount.is_multiple_of(1024) => format!("{}GiB", amount / 1024),
        "memory" => format!("{amount}MiB"),
        _ => amount.to_string(),
    }
}

/// Two pools share a dispatch domain if they offer equal labels at one forge, in one scope and
/// runner group: the forge then gives a job to whichever is idle, so what the job gets (provider,
/// image, needs) must be the same. A pool without scopes is in every scope. Repositories have no
/// groups, so in a repository that both list their groups do not tell them apart.
fn domains(r: &mut Reader, drafts: &[Draft<'_>], fleet: &Fleet) {
    let mut alike: BTreeMap<(&ForgeName, &LabelSet), Vec<(&Draft<'_>, &Pool)>> = BTreeMap::new();
    for draft in drafts {
        let Some(pool) = &draft.pool else { continue };
        let others = alike.entry((&pool.forge, &pool.labels)).or_default();
        let clash = others.iter().find(|(_, other)| {
            let same = pool.provider == other.provider
                && pool.image == other.image
                && pool.needs == other.needs;
            !same && mixed(pool, other, fleet)
        });
        if let Some((other, _)) = clash {
            r.enter(here(draft.named));
            let message = format!(
                "pool {} offers the same labels in the same scope and group with another \
                 provider, image or needs, so the forge would mix them",
                quote(other.named.name)
            );
            let help = "add a label to one of them, or give it other scopes or another group";
            r.note(draft.table.place("labels"), message, Some(help.into()));
        }
        others.push((draft, pool));
    }
}

fn mixed(one: &Pool, other: &Pool, fleet: &Fleet) -> bool {
    let group = |pool: &Pool| {
        let default = || fleet.forges.get(&pool.forge).map(|forge| forge.group.clone());
        pool.group.clone().or_else(default)
    };
    let same_group = group(one) == group(other);
    if one.scopes.is_empty() || other.scopes.is_empty() {
        return same_group;
    }
    one.scopes.iter().filter(|scope| other.scopes.contains(scope)).any(|scope| match scope {
        Scope::Repository(_) => true,
        Scope::Organization(_) | Scope::Enterprise(_) => same_group,
    })
}

pub(super) static POOL: Section = Section {
    path: "pool.NAME",
    about: "Runners of one kind.",
    keys: &[
        key(
            "use",
            text("the name of a template", NAME),
            "\"common\"",
            Without("all stands here"),
            "Whose keys it takes where it has none of its own; tables such as `limits` key by key.",
            &["extends", "inherit", "inherits", "template", "from", "base"],
        ),
        key(
            "labels",
            Takes::Texts(Texts {
                words: "a list of labels",
                pattern: r"\S",
                least: 1,
                distinct: true,
            }),
            "[\"self-hosted\", \"riscv64\"]",
            Required,
            "What its runners offer; a job must ask for nothing else. Nothing is added by itself.",
            &["tags", "runs_on", "label"],
        ),
        key(
            "provider",
            text("the name of a provider", NAME),
            "\"local\"",
            Required,
            "Who makes its instances.",
            NONE,
        ),
        key(
            "image",
            text("the name of an image", NAME),
            "\"runner\"",
            Required,
            "What they run.",
            NONE,
        ),
        key(
            "forge",
            text("the name of a forge", NAME),
            "\"github\"",
            Without("the only one"),
            "Where its runners register.",
            NONE,
        ),
        key(
            "scopes",
            SCOPES,
            "[\"org:acme\", \"repo:me/app\"]",
            Means("[]"),
            "The scopes it serves; none listed means any that asks.",
            &["owners", "orgs", "repos", "repositories"],
        ),
        key(
            "group",
            text("the name of a runner group", FOREIGN),
            "\"riscv\"",
            Without("the forge's `group`"),
            "The runner group its organization runners join; made if missing.",
            &["runner_group"],
        ),
        part(
            "needs",
            Without("nothing is counted but `max`"),
            "What each instance takes.",
            &["resources", "requests"],
        ),
        key(
            "max",
            COUNT,
            "10",
            Required,
            "Most instances at any time.",
            &["max_runners", "maximum", "limit"],
        ),
        key(
            "min_idle",
            Takes::Number(0, COUNT_MAX),
            "0",
            Means("0"),
            "Idle runners to keep in every listed scope.",
            &["min", "min_runners", "warm", "idle", "minimum"],
        ),
        key(
            "mode",
            Takes::Word(&["lazy", "balanced", "aggressive"]),
            "\"lazy\"",
            Without("every job gets its runner at once"),
            "How eagerly it grows and shrinks.",
            &["scaling", "scaling_mode"],
        ),
        part("limits", Without("its defaults"), "How long each phase may take.", &["timeouts"]),
    ],
};

pub(super) static NEEDS: Section = Section {
    path: "pool.NAME.needs",
    about: "What each instance takes of its machine.",
    keys: &[AMOUNT],
};

pub(super) static LIMITS: Section = Section {
    path: "pool.NAME.limits",
    about: "How long a runner may stay in each phase.",
    keys: &[
        key(
            "boot",
            Takes::Duration,
            "\"5m\"",
            Means("\"5m\""),
            "From launch to online.",
            &["start", "startup"],
        ),
        key(
            "idle",
            Takes::Duration,
            "\"5m\"",
            Means("\"5m\""),
            "Online without a job, when nothing needs it.",
            NONE,
        ),
        key(
            "lifetime",
            Takes::Duration,
            "\"1d\"",
            Means("\"1d\""),
            "From launch, while without a job.",
            &["max_age", "ttl"],
        ),
        key(
            "job",
            Takes::Duration,
            "\"6h\"",
            Without("the forge's own limit"),
            "On its job; the one limit that may end a running job.",
            &["job_timeout", "timeout"],
        ),
        key(
            "finish",
            Takes::Duration,
            "\"30s\"",
            Means("\"30s\""),
            "From its job's end to its own exit.",
            &["grace"],
        ),
    ],
};

pub(super) static TEMPLATE: Section = Section {
    path: "template.NAME",
    about: "What pools have in common: any keys of `[pool.NAME]`, `use` among them.",
    keys: &[],
};
