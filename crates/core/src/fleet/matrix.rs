//! Pool matrices: one table that makes a pool for each combination of its axes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::{Made, Templates};
use super::meant::nearest;
use super::pools::POOL;
use super::problem::Place;
use super::read::{Field, Item, Named, Reader, Table, dangling, kind};
use super::schema::{Absent, Key, Section, key};
use super::takes::{Takes, text};
use super::value::quote;

/// Most pools that one matrix makes.
const POOLS_MAX: usize = 1000;
/// Most values of one axis, axes of a matrix, entries of a map, exclusions.
const VALUES_MAX: usize = 1000;

pub(super) static MATRIX: Section = Section {
    path: "pool_matrix.NAME",
    about: "A pool for each combination of the axes' values. Every other key is one of `[pool.NAME]`, \
            and in its texts `{AXIS}` stands for the value.",
    keys: &[
        key(
            "name",
            text("text with placeholders", "."),
            "\"small-{arch}\"",
            Absent::Required,
            "The name of each pool; `{name}` in other texts is what comes of it.",
            &["names", "pattern"],
        ),
        key(
            "axes",
            Takes::Axes,
            "{ arch = [\"amd64\", \"arm64\"] }",
            Absent::Required,
            "What varies, and over which values.",
            &["axis", "matrix", "dimensions"],
        ),
        key(
            "exclude",
            Takes::Exclude,
            "[{ arch = \"arm64\" }]",
            Absent::Means("[]"),
            "Combinations of which no pool is made.",
            &["excludes", "except"],
        ),
        key(
            "maps",
            Takes::Maps,
            "{ gnu = { amd64 = \"x86_64\", arm64 = \"aarch64\" } }",
            Absent::Means("{}"),
            "What an axis's value is called elsewhere: `{AXIS:MAP}` stands for it.",
            &["map"],
        ),
    ],
};

/// A combination: what each placeholder stands for.
type Values<'a> = BTreeMap<&'a str, Cow<'a, str>>;
type Axes<'a> = Vec<(&'a str, Vec<&'a str>)>;
type Maps<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>;

/// Adds the pools that a matrix makes.
pub(super) fn pools<'a>(
    r: &mut Reader,
    named: Named<'a>,
    templates: &Templates<'a>,
    made: &mut Vec<Made<'a>>,
) {
    let Some(table) = r.table_but(&MATRIX, named.item, is_pools) else { return };
    let name = r.required(&table, "name").and_then(|field| Some((field.place(), r.text(field)?)));
    let axes = r.required(&table, "axes").and_then(|field| axes(r, field));
    let maps = table.get("maps").map_or(Some(Maps::new()), |field| maps(r, field));
    let (Some((at, pattern)), Some(axes), Some(maps)) = (name, axes, maps) else { return };
    let Some(exclude) = exclude(r, &table, &axes) else { return };
    let Some(combinations) = combinations(r, &table, &axes) else { return };
    let combinations: Vec<_> = combinations
        .into_iter()
        .filter(|values| !exclude.iter().any(|out| out.covers(values)))
        .collect();
    if combinations.is_empty() {
        r.note(table.place("exclude"), "it leaves no pool", None);
    }
    let (whole, partial) = templates.applied(r, named.item);
    let mut fill = Fill { r, maps: &maps };
    let mut given = BTreeSet::new();
    for mut values in combinations {
        let Some(name) = fill.text(at, pattern, &values) else { return };
        let name = name.into_owned();
        if !given.insert(name.clone()) {
            let message = format!("two of its pools have the name {}", quote(&name));
            let axes: Vec<_> = axes.iter().map(|(axis, _)| format!("{{{axis}}}")).collect();
            fill.r.note(at, message, Some(format!("name each axis in it: {}", axes.join(", "))));
            return;
        }
        values.insert("name", Cow::Owned(name.clone()));
        let Some(table) = fill.table(&whole, &values) else { continue };
        made.push(Made { name: Cow::Owned(name), at, table: Cow::Owned(table), partial });
    }
}

/// True if a key of a matrix belongs to the pools that it makes.
fn is_pools(name: &str) -> bool {
    if MATRIX.key(name).is_some() {
        return false;
    }
    let also = |section: &Section| section.keys.iter().any(|key| key.also.contains(&name));
    let names = |section: &'static Section| section.keys.iter().map(|key: &Key| key.name);
    POOL.key(name).is_some()
        || !also(&MATRIX)
            && nearest(name, names(&MATRIX).chain(names(&POOL)))
                .is_none_or(|near| MATRIX.key(near).is_none())
}

fn axes<'a>(r: &mut Reader, field: Field<'a>) -> Option<Axes<'a>> {
    let before = r.count();
    let mut axes = Axes::new();
    for named in r.entries("axes", field.item) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if named.name.is_empty() || !named.name.chars().all(plain) || named.name == "name" {
            let message = format!("{} cannot be the name of an axis", quote(named.name));
            let help = "letters, digits, '-' and '_'; \"name\" is the pool's name";
            r.note(named.at, message, Some(help.into()));
        }
        let field = Field { item: named.item, ..field };
        let Some(entries) = r.list(field, VALUES_MAX, Reader::text) else { continue };
        if entries.is_empty() {
            r.note(named.item.place(), "an axis needs at least one value", None);
        }
        axes.extend(r.distinct(field.key, entries).map(|values| (named.name, values)));
    }
    if axes.is_empty() && r.count() == before {
        r.note(field.place(), "\"axes\" must hold at least one", None);
    }
    (r.count() == before).then_some(axes)
}

fn maps<'a>(r: &mut Reader, field: Field<'a>) -> Option<Maps<'a>> {
    let before = r.count();
    let mut maps = Maps::new();
    for map in r.entries("maps", field.item) {
        let entries = r.entries(map.name, map.item).into_iter().filter_map(|entry| {
            let Some(text) = entry.item.value.get_ref().as_str() else {
                let message = format!("{} takes text, not {}", quote(entry.name), kind(entry.item));
                r.note(entry.item.place(), message, None);
                return None;
            };
            Some((entry.name, text))
        });
        maps.insert(map.name, entries.collect());
    }
    (r.count() == before).then_some(maps)
}

/// Every combination, in the order of the axes' names and of their values as written.
fn combinations<'a>(r: &mut Reader, table: &Table<'a>, axes: &Axes<'a>) -> Option<Vec<Values<'a>>> {
    let total = axes.iter().try_fold(1_usize, |total, (_, values)| total.checked_mul(values.len()));
    if total.is_none_or(|total| total > POOLS_MAX) {
        let total = total.map_or_else(|| "very many".into(), |total| total.to_string());
        let message = format!("it makes {total} pools; at most {POOLS_MAX} are allowed");
        r.note(table.place("axes"), message, None);
        return None;
    }
    let mut all = vec![Values::new()];
    for (axis, values) in axes {
        all = all
            .into_iter()
            .flat_map(|before| {
                values.iter().map(move |value| {
                    let mut with = before.clone();
                    with.insert(*axis, Cow::Borrowed(*value));
                    with
                })
            })
            .collect();
    }
    Some(all)
}

/// Combinations of which no pool is made: those with one of these values in each of these axes.
struct Out<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl Out<'_> {
    fn covers(&self, values: &Values<'_>) -> bool {
        self.0
            .iter()
            .all(|(axis, out)| values.get(axis).is_some_and(|value| out.contains(&**value)))
    }
}

fn exclude<'a>(r: &mut Reader, table: &Table<'a>, axes: &Axes<'a>) -> Option<Vec<Out<'a>>> {
    let Some(field) = table.get("exclude") else { return Some(Vec::new()) };
    let before = r.count();
    let read = |r: &mut Reader, entry: Field<'a>| {
        let mut out = BTreeMap::new();
        let entries = r.entries("exclude", entry.item);
        if entries.is_empty() {
            r.note(entry.place(), "an exclusion must name an axis", None);
        }
        for named in entries {
            let Some((of, values)) = axes.iter().find(|(of, _)| *of == named.name) else {
                dangling(r, named.at, "axis", named.name, axes.iter().map(|a| a.0));
                continue;
            };
            out.insert(*of, excluded(r, named.item, field.key, values));
        }
        Some(Out(out))
    };
    let entries = r.list(field, VALUES_MAX, read)?;
    (r.count() == before).then(|| entries.into_iter().map(|(out, _)| out).collect())
}

/// One value of an axis, or a list of them.
fn excluded<'a>(
    r: &mut Reader,
    item: Item<'a>,
    key: &'static Key,
    values: &[&'a str],
) -> BTreeSet<&'a str> {
    let field = Field { key, item, entry: true };
    let list = || match item.value.get_ref().as_array() {
        Some(array) => array.iter().map(|value| Item { value }).collect(),
        None => vec![item],
    };
    let mut out = BTreeSet::new();
    for item in list() {
        let Some(text) = r.text(Field { item, ..field }) else { continue };
        if values.contains(&text) {
            out.insert(text);
        } else {
            dangling(r, item.place(), "value", text, values.iter().copied());
        }
    }
    out
}

/// Fills the placeholders of texts.
struct Fill<'r, 'a> {
    r: &'r mut Reader,
    maps: &'r Maps<'a>,
}

impl Fill<'_, '_> {
    /// The table of one pool: without the matrix's own keys, its texts filled.
    fn table<'b>(
        &mut self,
        whole: &Spanned<DeValue<'b>>,
        values: &Values<'_>,
    ) -> Option<Spanned<DeValue<'b>>> {
        let mut table = DeTable::new();
        for (name, value) in whole.get_ref().as_table()? {
            if is_pools(name.get_ref()) {
                table.insert(name.clone(), self.value(value, values)?);
            }
        }
        Some(Spanned::new(whole.span(), DeValue::Table(table)))
    }

    fn value<'b>(
        &mut self,
        value: &Spanned<DeValue<'b>>,
        values: &Values<'_>,
    ) -> Option<Spanned<DeValue<'b>>> {
        let at = value.span();
        let filled = match value.get_ref() {
            DeValue::String(text) if text.contains(['{', '}']) => {
                let filled = self.text(Place::new(at.clone()), text, values)?;
                DeValue::String(Cow::Owned(filled.into_owned()))
            }
            DeValue::Array(array) => {
                let entries = array.iter().map(|entry| self.value(entry, values));
                DeValue::Array(entries.collect::<Option<_>>()?)
            }
            DeValue::Table(table) => {
                let entries = table
                    .iter()
                    .map(|(name, value)| Some((name.clone(), self.value(value, values)?)));
                DeValue::Table(entries.collect::<Option<_>>()?)
            }
            plain @ (DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)) => plain.clone(),
        };
        Some(Spanned::new(at, filled))
    }

    /// A text with what its placeholders stand for; `{{` and `}}` are braces.
    fn text<'b>(&mut self, at: Place, text: &'b str, values: &Values<'_>) -> Option<Cow<'b, str>> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            filled.push_str(&rest[..start]);
            let (brace, behind) = rest[start..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                filled.push_str(brace);
                rest = behind;
                continue;
            }
            let Some(end) = behind.find('}').filter(|_| brace == "{") else {
                let help = "a brace that is meant as such is written twice";
                self.r.note(at, "it has a brace without its other half", Some(help.into()));
                return None;
            };
            filled.push_str(&self.placeholder(at, &behind[..end], values)?);
            rest = &behind[end + 1..];
        }
        if filled.is_empty() && rest.len() == text.len() {
            return Some(Cow::Borrowed(text));
        }
        filled.push_str(rest);
        Some(Cow::Owned(filled))
    }

    fn placeholder(&mut self, at: Place, inner: &str, values: &Values<'_>) -> Option<String> {
        let (axis, map) = match inner.split_once(':') {
            Some((axis, map)) => (axis, Some(map)),
            None => (inner, None),
        };
        let Some(value) = values.get(axis) else {
            dangling(self.r, at, "axis", axis, values.keys().copied());
            return None;
        };
        let Some(name) = map else { return Some(value.to_string()) };
        let Some(map) = self.maps.get(name) else {
            dangling(self.r, at, "map", name, self.maps.keys().copied());
            return None;
        };
        let mapped = map.get(&**value);
        if mapped.is_none() {
            let message = format!("map {} has nothing for {}", quote(name), quote(value));
            self.r.note(at, message, None);
        }
        mapped.map(|text| (*text).to_string())
    }
}
