//! Tenants of the fleet file: how much each may use, and whom a table means.

use std::collections::BTreeMap;

use super::meant::misspells;
use super::read::{Field, Named, Reader, Table};
use super::schema::Absent::{self, Means, Without};
use super::schema::{NONE, Section, key};
use super::section::{Declared, ID_MAX, declared_name, forge_of};
use super::takes::{COUNT_MAX, NAME, Takes, text};
use super::value::quote;
use crate::name::{ForgeName, Login, NameError, TenantName};
use crate::tenant::{Met, OwnerKind, TenantKey};

/// The greatest weight: beyond it, shares differ by more than any fleet has runners.
pub const WEIGHT_MAX: u32 = 1000;

/// What a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Most runners at once.
    pub cap: u32,
    /// Runners that come before anybody's demand beyond its own floor.
    pub floor: u32,
    /// Its part where there is not room for all, from 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

impl Default for Terms {
    fn default() -> Self {
        // RISE's cap for organizations it had no row for.
        Self { cap: 20, floor: 0, weight: 1 }
    }
}

/// What is declared of tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants {
    /// For those that no table names.
    pub default: Terms,
    /// For those named by their id, which they keep for ever.
    pub by_id: BTreeMap<TenantKey, Terms>,
    /// For those named by their login. With an id beside it, it means that tenant only.
    pub by_login: BTreeMap<(ForgeName, Login), (Option<TenantKey>, Terms)>,
}

impl Tenants {
    /// What holds for a tenant; `met` is what is remembered of it.
    pub fn terms(&self, key: &TenantKey, met: Option<&Met>) -> Terms {
        if let Some(terms) = self.by_id.get(key) {
            return *terms;
        }
        // The login it bears now before those it has borne.
        let logins = met.iter().flat_map(|met| {
            let now = &met.tenant.login;
            let now = met.logins.iter().filter(move |login| *login == now);
            now.chain(&met.logins)
        });
        logins
            .filter_map(|login| self.by_login.get(&(key.forge.clone(), login.clone())))
            .find(|(id, _)| id.is_none())
            .map_or(self.default, |(_, terms)| *terms)
    }

    /// What holds for an account that nothing is known of but its login.
    pub fn terms_of(&self, forge: &ForgeName, login: &Login) -> Terms {
        let named = self.by_login.get(&(forge.clone(), login.clone()));
        named.map_or(self.default, |(_, terms)| *terms)
    }
}

pub(super) fn tenants(r: &mut Reader, entries: &[Named<'_>], declared: &Declared<'_>) -> Tenants {
    let mut tenants = Tenants::default();
    let (default, named): (Vec<_>, Vec<_>) =
        entries.iter().copied().partition(|named| named.name == "default");
    for named in default {
        r.enter("tenant \"default\"");
        let Some(table) = r.table(&DEFAULT_TENANT, named.item) else { continue };
        tenants.default = terms(r, &table, tenants.default).unwrap_or_default();
    }
    for named in named {
        r.enter(format!("tenant {}", quote(named.name)));
        declared_name(r, named, TenantName::new);
        let Some(table) = r.table(&TENANT, named.item) else { continue };
        let terms = terms(r, &table, tenants.default);
        let who = who(r, named, &table, declared);
        let (Some(terms), Some((forge, login, id))) = (terms, who) else { continue };
        if let Some(id) = &id
            && tenants.by_id.insert(id.clone(), terms).is_some()
        {
            r.note(table.place("id"), "another table declares this id", None);
        }
        if let Some(login) = login
            && tenants.by_login.insert((forge, login), (id, terms)).is_some()
        {
            let message = "another table declares this login; case does not matter";
            r.note(table.place("login"), message, None);
        }
    }
    tenants
}

type Who = (ForgeName, Option<Login>, Option<TenantKey>);

/// Whom a table means: its id if it has one, and what people call it.
fn who(
    r: &mut Reader,
    named: Named<'_>,
    table: &Table<'_>,
    declared: &Declared<'_>,
) -> Option<Who> {
    let forge = forge_of(r, table, declared);
    let login = table.get("login").map(|field| r.parsed(field, login));
    let id = table.get("id").map(|field| r.number(field));
    let kind = table.get("kind").map(|field| kind(r, field));
    match (&id, &kind) {
        (Some(_), None) => {
            let help = "users and organizations are numbered apart: kind = \"organization\"";
            r.miss(table.at, "\"id\" needs \"kind\"", Some(help.into()));
        }
        (None, Some(_)) => {
            r.note(table.place("kind"), "\"kind\" says of which kind the \"id\" is", None);
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    if login.is_none() && id.is_none() {
        let help = if misspells(named.name, "default") {
            "did you mean \"default\"?"
        } else {
            "for example login = \"acme\", or id = 9919 and kind = \"organization\""
        };
        r.miss(
            named.at,
            "it names no account: \"login\" and \"id\" are missing",
            Some(help.into()),
        );
        return None;
    }
    let forge = forge?;
    let id = match (id, kind) {
        (None, None) => None,
        (Some(id), Some(kind)) => Some(TenantKey { forge: forge.clone(), kind: kind?, id: id? }),
        (Some(_), None) | (None, Some(_)) => return None,
    };
    let login = match login {
        None => None,
        Some(login) => Some(login?),
    };
    Some((forge, login, id))
}

/// Reads a login, with a word about what people write instead.
fn login(text: &str) -> Result<Login, String> {
    match text.split_once([':', '/']) {
        Some(_) => Err(format!("{} is not a login: write only the account's name", quote(text))),
        None => Login::new(text).map_err(|why: NameError| why.to_string()),
    }
}

fn kind(r: &mut Reader, field: Field<'_>) -> Option<OwnerKind> {
    let kinds = [OwnerKind::User, OwnerKind::Organization, OwnerKind::Enterprise];
    let word = r.word(field)?;
    kinds.into_iter().find(|kind| kind.as_str() == word)
}

/// Reads cap, floor and weight; those not written are the default's.
fn terms(r: &mut Reader, table: &Table<'_>, default: Terms) -> Option<Terms> {
    let cap = table.get("cap").map_or(Some(default.cap), |field| cap(r, field));
    let floor = r.count_or(table, "floor", default.floor);
    let weight = match table.get("weight") {
        None => Some(default.weight),
        Some(field) => r.number(field).and_then(|weight| u32::try_from(weight).ok()),
    };
    let terms = Terms { cap: cap?, floor: floor?, weight: weight? };
    if terms.floor > terms.cap {
        let key = if table.get("floor").is_some() { "floor" } else { "cap" };
        let message =
            format!("\"floor\" is {}, but \"cap\" allows {} at most", terms.floor, terms.cap);
        let help = format!("lower the floor to {}, or raise the cap", terms.cap);
        r.note(table.place(key), message, Some(help));
        return None;
    }
    Some(terms)
}

/// Reads a cap; "unlimited" is more than any fleet has.
fn cap(r: &mut Reader, field: Field<'_>) -> Option<u32> {
    if field.value().is_str() {
        return r.word(field).map(|_| u32::MAX);
    }
    r.number(field).and_then(|cap| u32::try_from(cap).ok())
}

pub(super) static DEFAULT_TENANT: Section = Section {
    path: "tenant.default",
    about: "Accounts that no table names; and what a table that lacks a key means.",
    keys: &[
        key("cap", CAP, "20", Means("20"), "Most runners at once for each.", CAP_ALSO),
        key("floor", FLOOR, "1", Means("0"), FLOOR_ABOUT, FLOOR_ALSO),
        key("weight", WEIGHT, "2", Means("1"), WEIGHT_ABOUT, WEIGHT_ALSO),
    ],
};

pub(super) static TENANT: Section = Section {
    path: "tenant.NAME",
    about: "One account of a forge. It needs a `login` or an `id`; `NAME` is for people.",
    keys: &[
        key(
            "forge",
            text("the name of a forge", NAME),
            "\"github\"",
            Without("the only one"),
            "Where the account is.",
            NONE,
        ),
        key(
            "login",
            text("a login", r"^[^/:\s]+$"),
            "\"acme\"",
            Without("only the `id` tells"),
            "What it is called at the forge, or was when it was first met.",
            &["account", "owner", "org", "organization", "user"],
        ),
        key(
            "id",
            Takes::Number(1, ID_MAX),
            "9919",
            Without("only the `login` tells"),
            "Its id at the forge, which it keeps when it is renamed.",
            &["account_id", "owner_id", "org_id"],
        ),
        key(
            "kind",
            Takes::Word(&["user", "organization", "enterprise"]),
            "\"organization\"",
            Without("there is no `id`"),
            "Of which kind the `id` is.",
            &["type"],
        ),
        key("cap", CAP, "100", THE_DEFAULT, "Most runners at once.", CAP_ALSO),
        key("floor", FLOOR, "2", THE_DEFAULT, FLOOR_ABOUT, FLOOR_ALSO),
        key("weight", WEIGHT, "3", THE_DEFAULT, WEIGHT_ABOUT, WEIGHT_ALSO),
    ],
};

const THE_DEFAULT: Absent = Without("as in `[tenant.default]`");
const CAP: Takes = Takes::NumberOr("unlimited");
const CAP_ALSO: &[&str] = &["max", "max_runners", "limit"];
const FLOOR: Takes = Takes::Number(0, COUNT_MAX);
const FLOOR_ABOUT: &str = "So many runners come before anybody's demand beyond its own floor.";
const FLOOR_ALSO: &[&str] = &["min", "guaranteed", "reserved", "minimum"];
const WEIGHT: Takes = Takes::Number(1, WEIGHT_MAX as u64);
const WEIGHT_ABOUT: &str = "Its part, beside others', where there is not room for all.";
const WEIGHT_ALSO: &[&str] = &["share", "shares", "priority"];
