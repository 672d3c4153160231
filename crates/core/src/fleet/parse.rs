//! From text to a checked fleet, or to everything that is wrong with the text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fleet;
use super::expand::{self, Made};
use super::grace;
use super::pools;
use super::problem::{Basis, Found, Place, Problems, Source, bases, show, source_of};
use super::read::{Item, Named, Reader, Table};
use super::schema::{Absent, ROOT};
use super::section::{self, Declared};
use super::tenants::tenants;
use super::value::quote;

/// Most bytes of one source, some fifteen thousand pools: a tree takes seventy times its text.
const SOURCE_BYTES_MAX: usize = 4 << 20;
/// Up to this many bytes, reading goes on behind a syntax error.
const RECOVER_BYTES_MAX: usize = 1 << 20;

/// Reads a fleet from `files`, which are one fleet together: each may declare any part of it, but
/// nothing twice. Gives the whole fleet, or all that is wrong with it.
pub fn parse(files: &[Source<'_>]) -> Result<Fleet, Problems> {
    let mut reader = Reader::default();
    let bases = bases(files);
    let sources = bases.iter().zip(files);
    let readable: Vec<_> =
        sources.map(|(base, source)| readable(&mut reader, *base, source.text)).collect();
    let documents: Vec<_> = bases
        .iter()
        .zip(&readable)
        .map(|(base, text)| document(&mut reader, *base, text))
        .collect();
    let fleet = fleet(&mut reader, &documents);

    let syntax = |found: &&Found| found.basis == Basis::Syntax;
    let broken: BTreeSet<usize> =
        reader.found.iter().filter(syntax).map(|found| source_of(&bases, found.at)).collect();
    if !broken.is_empty() {
        // What seems to be missing may stand in what could not be read.
        reader.found.retain(|found| found.basis != Basis::Unwritten);
    }
    if reader.count() == 0 {
        return Ok(fleet);
    }
    Err(show(files, reader.found, reader.more, &reader.secrets, &broken))
}

/// Looks only at whether a file is TOML; gives every place where it is not.
pub fn syntax(file: Source<'_>) -> Result<(), Problems> {
    let mut reader = Reader::default();
    let text = readable(&mut reader, 0, file.text);
    let value = document(&mut reader, 0, &text);
    if reader.count() == 0 {
        return Ok(());
    }
    // What of the rest is a secret must not be shown with it.
    reader.find_secrets(Item { value: &value });
    reader.found.retain(|found| found.basis == Basis::Syntax);
    Err(show(&[file], reader.found, reader.more, &reader.secrets, &BTreeSet::from([0])))
}

/// The text without the tables that are not TOML, each of which is noted once. What is left stands
/// where it stood: an open bracket would otherwise make nonsense of everything behind it.
fn readable<'a>(reader: &mut Reader, base: usize, text: &'a str) -> Cow<'a, str> {
    if text.len() > SOURCE_BYTES_MAX {
        let message = format!("it has {} bytes; at most {SOURCE_BYTES_MAX} are read", text.len());
        reader.syntax(Place { start: base, end: base }, message);
        return Cow::Borrowed("");
    }
    let Err(first) = DeTable::parse(text) else { return Cow::Borrowed(text) };
    if text.len() > RECOVER_BYTES_MAX {
        reader.syntax(place(base, first.span()), first.message());
        return Cow::Borrowed("");
    }
    let mut kept = String::with_capacity(text.len());
    while kept.len() < text.len() {
        let start = kept.len();
        let end = text[start..].find("\n[").map_or(text.len(), |at| start + at + 1);
        let table = &text[start..end];
        match DeTable::parse(table) {
            Ok(_) => kept.push_str(table),
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                let at = start + at.start.min(table.len())..start + at.end.min(table.len());
                reader.syntax(place(base, Some(at)), error.message());
                kept.extend(table.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
            }
        }
    }
    Cow::Owned(kept)
}

/// Where a stretch of the source is that begins at `base`; its first byte if there is none.
fn place(base: usize, span: Option<Range<usize>>) -> Place {
    let span = span.unwrap_or(0..0);
    Place { start: base + span.start, end: base + span.end }
}

/// Reads one source as TOML. Each of its tables is; they may still say something twice.
fn document<'a>(reader: &mut Reader, base: usize, text: &'a str) -> Spanned<DeValue<'a>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.syntax(place(base, error.span()), error.message());
    }
    moved(Spanned::new(0..0, DeValue::Table(document.into_inner())), base)
}

/// The same value, with all within it standing `by` bytes further on.
fn moved(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    if by == 0 {
        return value;
    }
    let span = value.span();
    let span = span.start + by..span.end + by;
    let value = match value.into_inner() {
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|entry| moved(entry, by)).collect())
        }
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(name, value)| {
                    let at = name.span();
                    let at = at.start + by..at.end + by;
                    (Spanned::new(at, name.into_inner()), moved(value, by))
                })
                .collect(),
        ),
        plain @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => plain,
    };
    Spanned::new(span, value)
}

/// The parts of all sources, by their key in the root.
pub(super) type Parts<'a> = BTreeMap<&'static str, Vec<Named<'a>>>;

fn fleet(r: &mut Reader, documents: &[Spanned<DeValue<'_>>]) -> Fleet {
    let mut fleet = Fleet::default();
    let mut parts = Parts::new();
    for value in documents {
        let item = Item { value };
        r.enter("");
        r.find_secrets(item);
        let Some(root) = r.table(&ROOT, item) else { continue };
        gather(r, &root, &mut parts);
    }
    let pools = expand::pools(r, &parts);
    let declared = declared(r, &parts, &pools);
    let mut part = |name| parts.remove(name).unwrap_or_default();

    for server in part("server") {
        fleet.server = section::server(r, server.item).unwrap_or_default();
    }
    for named in part("grace") {
        fleet.grace = grace::grace(r, named.item).unwrap_or_default();
    }
    for named in part("quarantine") {
        fleet.quarantine = grace::quarantine(r, named.item).unwrap_or_default();
    }
    for named in part("forge") {
        let forge = section::forge(r, named);
        fleet.forges.extend(forge.map(|forge| (forge.name.clone(), forge)));
    }
    for named in part("provider") {
        let provider = section::provider(r, named, fleet.server.database.is_some());
        fleet.providers.extend(provider.map(|provider| (provider.name.clone(), provider)));
    }
    for named in part("image") {
        let image = section::image(r, named);
        fleet.images.extend(image.map(|image| (image.name.clone(), image)));
    }
    fleet.tenants = tenants(r, &part("tenant"), &declared);
    r.partial = true;
    for named in part("template") {
        pools::template(r, named, &declared);
    }
    let mut drafts = Vec::new();
    for made in &pools {
        r.partial = made.partial;
        drafts.extend(pools::pool(r, made.named(), &declared));
    }
    r.partial = false;
    pools::check(r, &drafts, &fleet);
    let pools = drafts.into_iter().filter_map(|draft| draft.pool);
    fleet.pools = pools.map(|pool| (pool.name.clone(), pool)).collect();
    fleet
}

/// Tables of which there is one, without a name.
const SINGLE: [&str; 3] = ["server", "grace", "quarantine"];

/// Sorts the tables of one source by kind. Single ones go by the name of their key.
fn gather<'a>(r: &mut Reader, root: &Table<'a>, parts: &mut Parts<'a>) {
    for key in ROOT.keys {
        let Some(field) = root.get(key.name) else { continue };
        let known = parts.entry(key.name).or_default();
        if SINGLE.contains(&key.name) {
            let at = field.place();
            if !known.is_empty() {
                r.note(at, format!("{:?} is declared twice", key.name), None);
            }
            known.push(Named { name: key.name, at, item: field.item });
            continue;
        }
        let mut seen: BTreeSet<&str> = known.iter().map(|named| named.name).collect();
        let before = r.count();
        let entries = r.entries(key.name, field.item);
        if entries.is_empty() && r.count() == before && key.absent == Absent::Required {
            r.note(field.place(), format!("no {} is declared", key.name), Some(declare(key.name)));
        }
        for named in entries {
            if !named.item.value.get_ref().is_table() {
                r.hide(named.item);
                let message = format!("{} stands in [{}] itself", quote(named.name), key.name);
                r.note(named.at, message, Some(declare(key.name)));
                continue;
            }
            if !seen.insert(named.name) {
                let message = format!("{} {} is declared twice", key.name, quote(named.name));
                r.note(named.at, message, None);
                continue;
            }
            known.push(named);
        }
    }
}

fn declare(kind: &str) -> String {
    format!("declare one with its name: [{kind}.NAME]")
}

/// The names that may be referred to; notes kinds of which there must be one and is none.
fn declared<'a>(r: &mut Reader, parts: &Parts<'a>, pools: &'a [Made<'_>]) -> Declared<'a> {
    let mut declared = Declared::new();
    let start = Place { start: 0, end: 0 };
    let mut seen = BTreeSet::new();
    for made in pools {
        if !seen.insert(&*made.name) {
            r.enter("");
            r.note(made.at, format!("pool {} is declared twice", quote(&made.name)), None);
        }
    }
    if ["pool", "pool_matrix"].iter().all(|kind| parts.get(kind).is_none_or(Vec::is_empty)) {
        r.miss(start, "no pool is declared", Some(declare("pool")));
    }
    for key in ROOT.keys {
        match parts.get(key.name) {
            Some(named) if !named.is_empty() => {
                declared.insert(key.name, named.iter().map(|named| named.name).collect());
            }
            None if key.absent == Absent::Required => {
                r.miss(start, format!("no {} is declared", key.name), Some(declare(key.name)));
            }
            Some(_) | None => {}
        }
    }
    declared
}
