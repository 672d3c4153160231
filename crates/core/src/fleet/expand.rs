//! Templates: what is written once and stands in many pools. They are merged as TOML, before a pool is
//! read, so that every value keeps the place it was written at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ptr;

use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::matrix;
use super::matrix::MATRIX;
use super::parse::Parts;
use super::pools::POOL;
use super::problem::Place;
use super::read::{Item, Named, Reader, dangling};
use super::value::quote;

/// Most templates that one pool is made of.
const CHAIN_MAX: usize = 8;

/// A pool's table as it is to be read.
pub(super) struct Made<'a> {
    pub name: Cow<'a, str>,
    pub at: Place,
    pub table: Cow<'a, Spanned<DeValue<'a>>>,
    /// A template that it uses could not be found, so that keys which are missing may stand there.
    pub partial: bool,
}

impl Made<'_> {
    pub(super) fn named(&self) -> Named<'_> {
        Named { name: &self.name, at: self.at, item: Item { value: &self.table } }
    }
}

/// Every pool of the file: those that are written, and those that a matrix makes.
pub(super) fn pools<'a>(r: &mut Reader, parts: &Parts<'a>) -> Vec<Made<'a>> {
    let part = |name| parts.get(name).into_iter().flatten().copied();
    let templates = Templates(part("template").map(|named| (named.name, named.item)).collect());
    for named in part("template") {
        templates.check(r, named);
    }
    let mut made = Vec::new();
    for named in part("pool") {
        r.enter(format!("pool {}", quote(named.name)));
        let (table, partial) = templates.applied(r, named.item);
        made.push(Made { name: Cow::Borrowed(named.name), at: named.at, table, partial });
    }
    for named in part("pool_matrix") {
        r.enter(format!("pool_matrix {}", quote(named.name)));
        matrix::pools(r, named, &templates, &mut made);
    }
    made
}

/// All templates, by name.
pub(super) struct Templates<'a>(BTreeMap<&'a str, Item<'a>>);

impl<'a> Templates<'a> {
    /// Notes a template that is made of itself, or of one that is not there.
    fn check(&self, r: &mut Reader, named: Named<'a>) {
        r.enter(format!("template {}", quote(named.name)));
        self.applied(r, named.item);
        let mut chain = vec![named.name];
        let mut item = named.item;
        while let Some((name, next)) = used(item).and_then(|(_, name)| self.0.get_key_value(name?))
        {
            chain.push(name);
            if *name == named.name {
                let chain: Vec<_> = chain.iter().map(|name| quote(name)).collect();
                let message = format!("it uses itself: {}", chain.join(" uses "));
                let at = used(named.item).map_or(named.at, |(at, _)| at);
                r.note(at, message, Some("take one \"use\" of the circle away".into()));
                return;
            }
            // A circle further on is noted where it is.
            if chain.len() > self.0.len() {
                return;
            }
            item = *next;
        }
    }

    /// A table with what the templates say that it uses; and whether one of them could not be found.
    pub(super) fn applied(
        &self,
        r: &mut Reader,
        item: Item<'a>,
    ) -> (Cow<'a, Spanned<DeValue<'a>>>, bool) {
        let (mut layers, mut partial) = (vec![item.value], false);
        let mut top = item;
        while let Some((at, name)) = used(top) {
            // The reader of the key says what it takes.
            let Some(name) = name else { return (Cow::Borrowed(item.value), true) };
            // The circle is noted where it is declared.
            if self.0.get(name).is_some_and(|next| layers.iter().any(|l| ptr::eq(*l, next.value))) {
                return (Cow::Borrowed(item.value), true);
            }
            let Some(template) = self.0.get(name) else {
                dangling(r, at, "template", name, self.0.keys().copied());
                partial = true;
                break;
            };
            if layers.len() > CHAIN_MAX {
                let message = format!("more than {CHAIN_MAX} templates use each other");
                r.note(at, message, Some("write what they say into fewer".into()));
                partial = true;
                break;
            }
            layers.push(template.value);
            top = *template;
        }
        if layers.len() == 1 {
            return (Cow::Borrowed(item.value), partial);
        }
        let mut layers = layers.into_iter().rev();
        let first = layers.next().map_or_else(|| item.value.clone(), Clone::clone);
        (Cow::Owned(layers.fold(first, merged)), partial)
    }
}

/// The template that a table names, and where; no name if what stands there is none.
fn used(item: Item<'_>) -> Option<(Place, Option<&str>)> {
    let table = item.value.get_ref().as_table()?;
    let meant = |name: &str| {
        POOL.key(name).is_none()
            && MATRIX.key(name).is_none()
            && POOL.meant(name, |_| true).is_some_and(|key| key.name == "use")
    };
    let written = table.iter().find(|(name, _)| name.get_ref() == "use");
    let value = written.or_else(|| table.iter().find(|(name, _)| meant(name.get_ref())))?.1;
    Some((Place::new(value.span()), value.get_ref().as_str()))
}

/// `over` laid on `base`: tables key by key, everything else whole.
fn merged<'a>(base: Spanned<DeValue<'a>>, over: &Spanned<DeValue<'a>>) -> Spanned<DeValue<'a>> {
    let span = over.span();
    let value = match (base.into_inner(), over.get_ref()) {
        (DeValue::Table(base), DeValue::Table(over)) => DeValue::Table(laid(base, over)),
        (_, over) => over.clone(),
    };
    Spanned::new(span, value)
}

fn laid<'a>(mut base: DeTable<'a>, over: &DeTable<'a>) -> DeTable<'a> {
    for (name, value) in over {
        let name: Spanned<DeString<'a>> = name.clone();
        let value = match base.remove(&name) {
            Some(below) => merged(below, value),
            None => value.clone(),
        };
        base.insert(name, value);
    }
    base
}
