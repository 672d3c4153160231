//! From text to a checked fleet, or to everything that is wrong with the text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fleet;
use super::grace;
use super::pools;
use super::problem::{Basis, Found, Place, Problems, Source, show};
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
    let readable: Vec<_> =
        (0..).zip(files).map(|(file, source)| readable(&mut reader, file, source.text)).collect();
    let documents: Vec<_> =
        (0..).zip(&readable).map(|(file, text)| document(&mut reader, file, text)).collect();
    let fleet = fleet(&mut reader, &documents);

    let syntax = |found: &&Found| found.basis == Basis::Syntax;
    let broken: BTreeSet<usize> =
        reader.found.iter().filter(syntax).map(|found| found.at.file).collect();
    if !broken.is_empty() {
        // What seems to be missing may stand in what could not be read.
        reader.found.retain(|found| found.basis != Basis::Unwritten);
    }
    if reader.count() == 0 {
        return Ok(fleet);
    }
    Err(show(files, reader.found, reader.more, &reader.secrets, &broken))
}

/// The text without the tables that are not TOML, each of which is noted once. What is left stands
/// where it stood: an open bracket would otherwise make nonsense of everything behind it.
fn readable<'a>(reader: &mut Reader, file: usize, text: &'a str) -> Cow<'a, str> {
    if text.len() > SOURCE_BYTES_MAX {
        let message = format!("it has {} bytes; at most {SOURCE_BYTES_MAX} are read", text.len());
        reader.syntax(Place { file, start: 0, end: 0 }, message);
        return Cow::Borrowed("");
    }
    let Err(first) = DeTable::parse(text) else { return Cow::Borrowed(text) };
    if text.len() > RECOVER_BYTES_MAX {
        reader.syntax(Place::new(file, first.span().unwrap_or(0..0)), first.message());
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
                reader.syntax(Place::new(file, at), error.message());
                kept.extend(table.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
            }
        }
    }
    Cow::Owned(kept)
}

/// Reads one source as TOML. Each of its tables is; they may still say something twice.
fn document<'a>(reader: &mut Reader, file: usize, text: &'a str) -> Spanned<DeValue<'a>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.syntax(Place::new(file, error.span().unwrap_or(0..0)), error.message());
    }
    Spanned::new(0..0, DeValue::Table(document.into_inner()))
}

/// The parts of all sources, by their key in the root.
type Parts<'a> = BTreeMap<&'static str, Vec<Named<'a>>>;

fn fleet(r: &mut Reader, documents: &[Spanned<DeValue<'_>>]) -> Fleet {
    let mut fleet = Fleet::default();
    let mut parts = Parts::new();
    for (file, value) in documents.iter().enumerate() {
        let item = Item { file, value };
        r.enter("");
        r.find_secrets(item);
        let Some(root) = r.table(&ROOT, item) else { continue };
        gather(r, &root, &mut parts);
    }
    let declared = declared(r, &parts);
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
    let drafts: Vec<_> =
        part("pool").into_iter().filter_map(|named| pools::pool(r, named, &declared)).collect();
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
fn declared<'a>(r: &mut Reader, parts: &Parts<'a>) -> Declared<'a> {
    let mut declared = Declared::new();
    for key in ROOT.keys {
        match parts.get(key.name) {
            Some(named) if !named.is_empty() => {
                declared.insert(key.name, named.iter().map(|named| named.name).collect());
            }
            None if key.absent == Absent::Required => {
                let start = Place { file: 0, start: 0, end: 0 };
                r.miss(start, format!("no {} is declared", key.name), Some(declare(key.name)));
            }
            Some(_) | None => {}
        }
    }
    declared
}
