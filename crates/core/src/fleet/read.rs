//! Reading a TOML tree by hand: every problem is noted and reading goes on.
//!
//! A reader of one value gives `None` when it noted why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::SecretRef;
use super::meant::{self, homes, nearest};
use super::problem::{Basis, Found, Place};
use super::schema::{Key, Section};
use super::takes::Takes;
use super::value::{self, quote, secret_at};

/// Most problems that are kept before the first are chosen by their place.
const FOUND_MAX: usize = 10_000;
/// Most entries of any list but the labels', which have a limit of their own.
const LIST_MAX: usize = 1000;

/// A value where it stands.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    pub(super) fn place(self) -> Place {
        Place::new(self.value.span())
    }

    fn get(self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }
}

/// The value of a key that the schema knows.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub key: &'static Key,
    pub item: Item<'a>,
    /// The value is one entry of the list that the key takes.
    pub entry: bool,
}

impl<'a> Field<'a> {
    pub(super) fn place(self) -> Place {
        self.item.place()
    }

    /// Where the entry of this number stands, if the value is a list.
    pub(super) fn entry_place(self, index: usize) -> Place {
        let entry = self.item.get().as_array().and_then(|array| array.get(index));
        entry.map_or(self.place(), |entry| Place::new(entry.span()))
    }

    pub(super) fn value(self) -> &'a DeValue<'a> {
        self.item.get()
    }
}

/// A table of one section, its keys known.
pub(super) struct Table<'a> {
    pub section: &'static Section,
    /// Its header, or its braces.
    pub at: Place,
    fields: BTreeMap<&'static str, Field<'a>>,
}

impl<'a> Table<'a> {
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        self.fields.get(key).copied()
    }

    /// Where a key's value stands, or the table if the key is not there.
    pub(super) fn place(&self, key: &str) -> Place {
        self.get(key).map_or(self.at, Field::place)
    }
}

/// An entry of a table whose keys the file chooses.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub name: &'a str,
    pub at: Place,
    pub item: Item<'a>,
}

/// Reads values and keeps what is wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    /// What is being read, for messages: `pool "rvv"`.
    here: String,
    pub found: Vec<Found>,
    pub more: usize,
    /// What no message may show.
    pub secrets: Vec<Place>,
    /// What is being read is a part of something, such as a template: keys may be missing.
    pub partial: bool,
}

impl Reader {
    /// From here on, messages begin with this.
    pub(super) fn enter(&mut self, here: impl Into<String>) {
        self.here = here.into();
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.found.len() + self.more
    }

    fn push(&mut self, at: Place, basis: Basis, message: &str, help: Option<String>) {
        if self.found.len() >= FOUND_MAX {
            self.more += 1;
            return;
        }
        let (here, message) = (self.here.clone(), message.to_string());
        self.found.push(Found { at, basis, message, help, here });
    }

    /// Notes that what is written at `at` is wrong.
    pub(super) fn note(&mut self, at: Place, message: impl Display, help: Option<String>) {
        self.push(at, Basis::Written, &message.to_string(), help);
    }

    /// Notes that something is not written, unless it may be elsewhere.
    pub(super) fn miss(&mut self, at: Place, message: impl Display, help: Option<String>) {
        if self.partial {
            return;
        }
        self.push(at, Basis::Unwritten, &message.to_string(), help);
    }

    /// Notes that the text at `at` is not TOML.
    pub(super) fn syntax(&mut self, at: Place, message: impl Display) {
        self.push(at, Basis::Syntax, &message.to_string(), None);
    }

    /// Keeps the texts and numbers within a value out of every message.
    pub(super) fn hide(&mut self, item: Item<'_>) {
        if let Some(table) = item.get().as_table() {
            table.iter().for_each(|(_, value)| self.hide(Item { value }));
        } else if let Some(array) = item.get().as_array()
            && array.first().is_some_and(|first| first.get_ref().is_table())
        {
            array.iter().for_each(|value| self.hide(Item { value }));
        } else {
            self.secrets.push(item.place());
        }
    }

    /// Notes every text within that is a secret by its form, wherever it stands, and hides what
    /// stands under a secret's name, even where nothing is to be read.
    pub(super) fn find_secrets(&mut self, item: Item<'_>) {
        if let Some(table) = item.get().as_table() {
            for (name, value) in table {
                if meant::names_secret(name.get_ref()) || value::names_secret(name.get_ref()) {
                    self.hide_all_but_references(Item { value });
                }
                self.find_secrets(Item { value });
            }
        } else if let Some(array) = item.get().as_array() {
            array.iter().for_each(|value| self.find_secrets(Item { value }));
        } else if let Some((_, what)) = item.get().as_str().and_then(secret_at) {
            self.hide(item);
            self.note(item.place(), format!("this is {what}"), Some(REFERENCE.into()));
        }
    }

    fn hide_all_but_references(&mut self, item: Item<'_>) {
        match item.get().as_array() {
            Some(array) => {
                array.iter().for_each(|value| self.hide_all_but_references(Item { value }));
            }
            None if item.get().as_str().is_some_and(|text| value::secret(text).is_ok()) => {}
            None => self.hide(item),
        }
    }

    /// Takes a value as a table of `section`: every key it does not know is noted, and read as the
    /// key that was meant if that is clear, so that one misspelling makes one problem.
    pub(super) fn table<'a>(
        &mut self,
        section: &'static Section,
        item: Item<'a>,
    ) -> Option<Table<'a>> {
        self.table_but(section, item, |_| false)
    }

    /// The same, leaving keys to others that are not this section's.
    pub(super) fn table_but<'a>(
        &mut self,
        section: &'static Section,
        item: Item<'a>,
        others: impl Fn(&str) -> bool,
    ) -> Option<Table<'a>> {
        let Some(table) = item.get().as_table() else {
            let name = section.path.rsplit('.').find(|part| part.chars().any(char::is_lowercase));
            let name = name.unwrap_or("the file");
            self.note(item.place(), format!("{name:?} takes a table, not {}", kind(item)), None);
            return None;
        };
        let mut fields = BTreeMap::new();
        let mut strangers = Vec::new();
        for (name, value) in table {
            let item = Item { value };
            match section.key(name.get_ref()) {
                Some(key) => drop(fields.insert(key.name, Field { key, item, entry: false })),
                None if others(name.get_ref()) => {}
                None => strangers.push((name, item)),
            }
        }
        for (name, item) in strangers {
            if self.found.len() >= FOUND_MAX {
                self.more += 1;
                continue;
            }
            let at = Place::new(name.span());
            let name = name.get_ref();
            let meant = section.meant(name, |key| !fields.contains_key(key.name));
            self.unknown(section, name, at, meant);
            // What a key that nobody knows stands for may well be a secret.
            let homes = homes(name);
            let open = meant.is_some() || !homes.is_empty();
            if !open
                || meant.into_iter().chain(homes.iter().map(|(_, key)| *key)).any(Key::is_secret)
            {
                self.hide(item);
            }
            if let Some(key) = meant.filter(|key| !fields.contains_key(key.name)) {
                fields.insert(key.name, Field { key, item, entry: false });
            }
        }
        Some(Table { section, at: item.place(), fields })
    }

    fn unknown(&mut self, section: &Section, name: &str, at: Place, meant: Option<&Key>) {
        let homes: Vec<_> =
            homes(name).iter().map(|(section, _)| format!("[{}]", section.path)).collect();
        let help = match meant {
            Some(key) => format!("did you mean {:?}?", key.name),
            None if !homes.is_empty() => format!("it is a key of {}", homes.join(" and ")),
            None => {
                let keys: Vec<_> = section.keys.iter().map(|key| key.name).collect();
                format!("known here: {}", keys.join(", "))
            }
        };
        self.note(at, format!("unknown key {}", quote(name)), Some(help));
    }

    /// The entries of a table whose keys the file chooses.
    pub(super) fn entries<'a>(&mut self, name: &str, item: Item<'a>) -> Vec<Named<'a>> {
        let Some(table) = item.get().as_table() else {
            self.note(item.place(), format!("{name:?} takes a table, not {}", kind(item)), None);
            return Vec::new();
        };
        let named = |(name, value): (&'a Spanned<_>, _)| Named {
            name: AsRef::<str>::as_ref(name.get_ref()),
            at: Place::new(name.span()),
            item: Item { value },
        };
        table.iter().map(named).collect()
    }

    /// The value of a key that must be there.
    pub(super) fn required<'a>(&mut self, table: &Table<'a>, key: &str) -> Option<Field<'a>> {
        let field = table.get(key);
        if field.is_none() {
            let key = table.section.key(key).expect("sections are read by their own keys");
            self.miss(table.at, format!("{:?} is missing", key.name), example(key));
        }
        field
    }

    /// Notes that a field's value is of a type it does not take.
    pub(super) fn refuse(&mut self, field: Field<'_>) {
        let (key, found) = (field.key, kind(field.item));
        if field.entry {
            let message = format!("an entry of {:?} must be text, not {found}", key.name);
            self.note(field.place(), message, example(key));
            return;
        }
        // A number where a duration belongs wants only its unit, a quoted number no quotes.
        let integer = field.value().as_integer().filter(|_| key.takes == Takes::Duration);
        let quoted = field.value().as_str().filter(|text| text.parse::<u32>().is_ok());
        let help = match (integer, quoted) {
            (Some(number), _) => Some(format!("write \"{number}s\" or \"{number}m\"")),
            (None, Some(text)) => Some(format!("write {text} without quotes")),
            (None, None) => example(key),
        };
        let message = format!("{:?} takes {}, not {found}", key.name, key.takes);
        self.note(field.place(), message, help);
    }

    /// A text; `None` also if it is a secret by its form, which was noted when it was found.
    pub(super) fn text<'a>(&mut self, field: Field<'a>) -> Option<&'a str> {
        let Some(text) = field.item.get().as_str() else {
            self.refuse(field);
            return None;
        };
        secret_at(text).is_none().then_some(text)
    }

    /// A text in the form that `read` knows.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        field: Field<'_>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(field)?;
        read(text)
            .map_err(|why| {
                let message = format!("{:?}: {why}", field.key.name);
                self.note(field.place(), message, example(field.key));
            })
            .ok()
    }

    /// A whole number that the key takes.
    pub(super) fn number(&mut self, field: Field<'_>) -> Option<u64> {
        let range =
            field.key.takes.numbers().expect("only keys that take numbers are read as such");
        if !field.value().is_integer() {
            self.refuse(field);
            return None;
        }
        let fits = whole(field.item).filter(|number| range.contains(number));
        if fits.is_none() {
            let (least, most) = (range.start(), range.end());
            let message = format!("{:?} must be from {least} to {most}", field.key.name);
            self.note(field.place(), message, None);
        }
        fits
    }

    /// A whole number of 32 bits, `absent` if the key is not there.
    pub(super) fn count_or<T: From<u32>>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        absent: T,
    ) -> Option<T> {
        let Some(field) = table.get(key) else { return Some(absent) };
        let number = self.number(field)?;
        u32::try_from(number).ok().map(T::from)
    }

    /// A duration, `absent` if the key is not there.
    pub(super) fn duration_or<T: From<Duration>>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        absent: T,
    ) -> Option<T> {
        let Some(field) = table.get(key) else { return Some(absent) };
        let span = self.parsed(field, value::duration)?;
        let takes = field.key.takes;
        if matches!(takes, Takes::Span(least, most) if !(least..=most).contains(&span)) {
            self.note(field.place(), format!("{key:?} takes {takes}"), None);
            return None;
        }
        Some(span.into())
    }

    /// The entries of a list, each to be read as `read` does; `None` if any could not be.
    pub(super) fn list<'a, T>(
        &mut self,
        field: Field<'a>,
        most: usize,
        mut read: impl FnMut(&mut Self, Field<'a>) -> Option<T>,
    ) -> Option<Vec<(T, Place)>> {
        let Some(array) = field.item.get().as_array() else {
            self.refuse(field);
            return None;
        };
        let mut entries = Vec::new();
        let mut whole = array.len() <= most;
        if !whole {
            let at = array.get(most).map_or(field.place(), |first| Place::new(first.span()));
            let name = field.key.name;
            let message =
                format!("{name:?} has {} entries; at most {most} are allowed", array.len());
            self.note(at, message, None);
        }
        for value in array.iter().take(most) {
            let entry = Field { key: field.key, item: Item { value }, entry: true };
            match read(self, entry) {
                Some(entry) => entries.push((entry, Place::new(value.span()))),
                None => whole = false,
            }
        }
        whole.then_some(entries)
    }

    /// A list of different texts in the form that `read` knows; empty if the key is not there.
    pub(super) fn set_or_empty<T: Ord + Clone, E: Display>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let Some(field) = table.get(key) else { return Some(Vec::new()) };
        let entries = self.list(field, LIST_MAX, |reader, entry| reader.parsed(entry, &read))?;
        self.distinct(field.key, entries)
    }

    /// The entries, after noting those that come twice.
    pub(super) fn distinct<T: Ord + Clone>(
        &mut self,
        key: &Key,
        entries: Vec<(T, Place)>,
    ) -> Option<Vec<T>> {
        let mut seen = BTreeSet::new();
        let before = self.count();
        for (entry, at) in &entries {
            if !seen.insert(entry.clone()) {
                self.note(*at, format!("{:?} lists this twice", key.name), None);
            }
        }
        (self.count() == before).then(|| entries.into_iter().map(|(entry, _)| entry).collect())
    }

    /// A reference to a secret. Whatever else is written here is never shown.
    pub(super) fn secret(&mut self, field: Field<'_>) -> Option<SecretRef> {
        let name = field.key.name;
        let Some(text) = field.item.get().as_str() else {
            self.hide(field.item);
            let found = kind(field.item);
            let message = format!("{name:?} takes a reference to a secret, not {found}");
            self.note(field.place(), message, Some(REFERENCE.into()));
            return None;
        };
        let read = value::secret(text);
        if read.is_err() {
            self.hide(field.item);
        }
        match read {
            Ok(reference) if secret_at(text).is_none() => Some(reference),
            Err(why) if secret_at(text).is_none() => {
                self.note(field.place(), format!("{name:?} {why}"), Some(REFERENCE.into()));
                None
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// One reference to a secret, or a list of them.
    pub(super) fn secrets(&mut self, field: Field<'_>) -> Option<Vec<SecretRef>> {
        if !field.item.get().is_array() {
            return self.secret(field).map(|secret| vec![secret]);
        }
        let entries = self.list(field, LIST_MAX, Self::secret)?;
        self.distinct(field.key, entries)
    }

    /// The name of something declared elsewhere in the file. `declared` is `None` if nothing of
    /// the kind is, which is one problem of its own.
    pub(super) fn reference<'a>(
        &mut self,
        field: Field<'a>,
        declared: Option<&BTreeSet<&str>>,
    ) -> Option<&'a str> {
        let text = self.text(field)?;
        let declared = declared?;
        if declared.contains(text) {
            return Some(text);
        }
        dangling(self, field.place(), field.key.name, text, declared.iter().copied());
        None
    }

    /// One of the few words that the key takes.
    pub(super) fn word(&mut self, field: Field<'_>) -> Option<&'static str> {
        let text = self.text(field)?;
        let words = field.key.takes.words();
        let known = words.iter().copied().find(|word| *word == text);
        if known.is_none() {
            let near = nearest(text, words.iter().copied());
            let help = near.map_or_else(
                || format!("known are {}", words.join(", ")),
                |near| format!("did you mean {near:?}?"),
            );
            let message = format!("{:?} cannot be {}", field.key.name, quote(text));
            self.note(field.place(), message, Some(help));
        }
        known
    }
}

/// Notes that nothing of this kind and name is declared, and what is.
pub(super) fn dangling<'a>(
    r: &mut Reader,
    at: Place,
    kind: &str,
    name: &str,
    declared: impl Iterator<Item = &'a str> + Clone,
) {
    let mut first: Vec<_> = declared.clone().take(9).map(quote).collect();
    let help = match nearest(name, declared) {
        Some(near) => format!("did you mean {near:?}?"),
        None if first.is_empty() => format!("no {kind} is declared"),
        None => {
            let more = if first.len() > 8 { ", …" } else { "" };
            first.truncate(8);
            format!("declared are {}{more}", first.join(", "))
        }
    };
    let message = format!("{kind} {} is not declared", quote(name));
    r.push(at, Basis::Unwritten, &message, Some(help));
}

/// What to write where a secret is needed.
pub(super) const REFERENCE: &str =
    "a secret must be a reference: \"env:NAME\", \"file:PATH\" or \"cmd:COMMAND\"";

fn example(key: &Key) -> Option<String> {
    (!key.example.is_empty()).then(|| format!("for example {} = {}", key.name, key.example))
}

/// The whole number that a value is, if it is one of 64 bits without a sign.
pub(super) fn whole(item: Item<'_>) -> Option<u64> {
    let integer = item.get().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// What a value is, in words.
pub(super) fn kind(item: Item<'_>) -> &'static str {
    match item.get() {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
