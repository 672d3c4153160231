//! `remuda schema`: the JSON Schema of a fleet file, drawn from the same tables as its reader.

use clap::Args;
use remuda_core::fleet::{Absent, Form, Key, SCHEMA, Section, Takes, Texts};
use serde_json::{Map, Value, json};

use super::say;
use crate::exit::Exit;

/// Print the JSON Schema of a fleet file, by which editors complete and check
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda schema")]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self {} = self;
        say(&format!("{:#}", schema()))?;
        Ok(Exit::Done)
    }
}

const POOL: &str = "pool.NAME";
const TEMPLATE: &str = "template.NAME";
const MATRIX: &str = "pool_matrix.NAME";

const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const SECRET: &str = "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|cmd:.*\\S.*)$";
const DURATION: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
/// What people write instead of `cpu` and `memory`, and the reader takes for a mistake.
const NO_RESOURCES: [&str; 7] = ["core", "cores", "cpus", "mem", "ram", "vcpu", "vcpus"];

/// The whole schema. Of a fleet that is kept in several files, it is that of each; so no table of the
/// root is required.
fn schema() -> Value {
    let mut defs = Map::new();
    let section = |path: &str| SCHEMA.into_iter().find(|section| section.path == path);
    let (pool, part) = (section(POOL), |name| section(&format!("{POOL}.{name}")));
    let pools: Vec<&Key> = pool.into_iter().flat_map(|pool| pool.keys).collect();
    for section in SCHEMA.into_iter().filter(|section| !section.path.is_empty()) {
        let keys = section.keys.iter();
        let drawn = match section.path {
            // A template may give what a pool lacks.
            POOL => Draft { path: POOL, filled: false }.table(section, keys, Some("use")),
            TEMPLATE => {
                let mut drawn =
                    Draft { path: POOL, filled: false }.table(section, pools.iter().copied(), None);
                drawn.as_object_mut().map(|table| table.remove("required"));
                drawn
            }
            MATRIX => {
                let mut drawn = Draft { path: MATRIX, filled: true }.table(
                    section,
                    pools.iter().copied(),
                    Some("use"),
                );
                let own = Draft { path: MATRIX, filled: false }.table(section, keys, None);
                merge(&mut drawn, own);
                drawn
            }
            path => Draft { path, filled: false }.table(section, keys, None),
        };
        defs.insert(section.path.into(), drawn);
    }
    for (name, part) in ["needs", "limits"].into_iter().filter_map(|name| Some((name, part(name)?)))
    {
        let path = format!("{MATRIX}.{name}");
        let drawn = Draft { path: &path, filled: true }.table(part, part.keys.iter(), None);
        defs.insert(path, drawn);
    }
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Remuda's fleet file",
    });
    if let Some(section) = section("") {
        let mut table = Draft { path: "", filled: false }.table(section, section.keys.iter(), None);
        table.as_object_mut().map(|table| table.remove("required"));
        merge(&mut root, table);
    }
    root["$defs"] = defs.into();
    root
}

/// Adds what `more` has to a table: of properties each, of anything else what is not there.
fn merge(table: &mut Value, more: Value) {
    let (Value::Object(table), Value::Object(more)) = (table, more) else { return };
    for (name, value) in more {
        match table.get_mut(&name) {
            Some(own) if name == "properties" => merge(own, value),
            Some(_) if name == "description" => {}
            Some(_) | None => drop(table.insert(name, value)),
        }
    }
}

/// How a section is drawn.
#[derive(Clone, Copy)]
struct Draft<'a> {
    /// Where its own tables are.
    path: &'a str,
    /// Its texts may have placeholders, which a matrix fills.
    filled: bool,
}

impl Draft<'_> {
    /// A table with these keys. What is required is not, where the key `unless` is written.
    fn table<'k>(
        self,
        section: &Section,
        keys: impl Iterator<Item = &'k Key>,
        unless: Option<&str>,
    ) -> Value {
        let mut table = json!({
            "type": "object",
            "description": section.about,
            "properties": {},
            "additionalProperties": false,
        });
        let mut required = Vec::new();
        for key in keys {
            if key.takes == Takes::Amount {
                self.amounts(key, &mut table);
            } else if key.name.starts_with(|c: char| c.is_ascii_uppercase()) {
                table["propertyNames"] = json!({ "pattern": VARIABLE });
                table["additionalProperties"] = self.property(key);
            } else {
                table["properties"][key.name] = self.property(key);
            }
            if key.absent == Absent::Required {
                required.push(key.name);
            }
        }
        match unless.filter(|_| !required.is_empty()) {
            Some(unless) => {
                table["if"] = json!({ "required": [unless] });
                table["else"] = json!({ "required": required });
            }
            None if !required.is_empty() => table["required"] = required.into(),
            None => {}
        }
        table
    }

    /// One key: what it takes, what it means, and what it stands for when absent.
    fn property(self, key: &Key) -> Value {
        let mut property = self.value(key);
        property["description"] = match key.absent {
            Absent::Without(words) => format!("{} When absent: {words}.", key.about).into(),
            Absent::Required | Absent::Means(_) => key.about.into(),
        };
        if let Absent::Means(value) = key.absent {
            property["default"] = from_toml(value);
        }
        if !key.example.is_empty() {
            property["examples"] = json!([from_toml(key.example)]);
        }
        property
    }

    fn value(self, key: &Key) -> Value {
        let takes = key.takes;
        let number = || {
            let range = takes.numbers().unwrap_or(0..=u64::MAX);
            let mut number = json!({ "type": "integer", "minimum": range.start() });
            // A greater one is no number of TOML, and not exact in JSON.
            if let Ok(most) = u32::try_from(*range.end()) {
                number["maximum"] = most.into();
            }
            number
        };
        let secrets = || list(self.text(SECRET), 0, true);
        let texts = || list(json!({ "type": "string" }), 0, false);
        match takes {
            Takes::Table => self.child(key),
            Takes::Tables(_) => list(self.child(key), 0, false),
            Takes::Text(Form { pattern, .. }) => self.text(pattern),
            Takes::Texts(Texts { pattern, least, distinct, .. }) => {
                list(self.text(pattern), least, distinct)
            }
            Takes::Word(words) if self.filled => self.text(&format!("^({})$", words.join("|"))),
            Takes::Word(words) => json!({ "type": "string", "enum": words }),
            Takes::Flag => json!({ "type": "boolean" }),
            Takes::Number(..) => number(),
            Takes::NumberOr(word) => either(number(), json!({ "type": "string", "enum": [word] })),
            Takes::Id => either(number(), self.text("^[A-Za-z0-9._-]{1,64}$")),
            Takes::Share => either(number(), self.text("^[+]?0*([1-9][0-9]?|100)%$")),
            Takes::Duration | Takes::Span(..) => self.duration(),
            Takes::DurationOrOff => {
                either(self.duration(), json!({ "type": "string", "enum": ["off"] }))
            }
            Takes::Secret => self.text(SECRET),
            Takes::Secrets => either(self.text(SECRET), secrets()),
            Takes::Amount => json!({ "type": "integer", "minimum": 1 }),
            Takes::Axes => {
                let mut axes =
                    by_name("^[A-Za-z0-9_-]+$", list(json!({ "type": "string" }), 1, true));
                axes["minProperties"] = 1.into();
                axes["propertyNames"]["not"] = json!({ "const": "name" });
                axes
            }
            Takes::Exclude => {
                let mut out = by_name(".", either(json!({ "type": "string" }), texts()));
                out["minProperties"] = 1.into();
                list(out, 0, false)
            }
            Takes::Maps => by_name("", by_name("", json!({ "type": "string" }))),
        }
    }

    /// The table of a key: that of one section, or tables by name.
    fn child(self, key: &Key) -> Value {
        let path = if self.path.is_empty() {
            key.name.into()
        } else {
            format!("{}.{}", self.path, key.name)
        };
        let to = |path: &str| json!({ "$ref": format!("#/$defs/{path}") });
        let below = |path: &str| {
            path.starts_with(MATRIX) || SCHEMA.iter().any(|section| section.path == path)
        };
        if below(&path) {
            return to(&path);
        }
        let mut tables = by_name(NAME, to(&format!("{path}.NAME")));
        if key.absent == Absent::Required {
            tables["minProperties"] = 1.into();
        }
        let named = SCHEMA.iter().filter_map(|section| {
            let name = section.path.strip_prefix(&path)?.strip_prefix('.')?;
            (!name.contains('.') && name != "NAME").then_some((name, section.path))
        });
        for (name, path) in named {
            tables["properties"][name] = to(path);
        }
        tables
    }

    /// Amounts by resource.
    fn amounts(self, key: &Key, table: &mut Value) {
        let cores = self.text(r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$");
        let mut cpu = either(json!({ "type": "number", "exclusiveMinimum": 0 }), cores);
        cpu["description"] = "Cores, such as \"8\", 1.5 or \"500m\".".into();
        let mut memory = self.text(r"^[0-9]+(\.[0-9]+)?\s*(MiB|GiB|TiB)$");
        memory["description"] = "An amount with a unit, such as \"16GiB\".".into();
        table["properties"] = json!({ "cpu": cpu, "memory": memory });
        table["propertyNames"] = json!({ "pattern": NAME, "not": { "enum": NO_RESOURCES } });
        table["additionalProperties"] = self.property(key);
    }

    fn duration(self) -> Value {
        let mut duration = self.text(DURATION);
        duration["minLength"] = 2.into();
        duration
    }

    /// Text of a form, or with a placeholder from which text of that form may come.
    fn text(self, pattern: &str) -> Value {
        let pattern = if self.filled { format!("{pattern}|[{{]") } else { pattern.into() };
        json!({ "type": "string", "pattern": pattern })
    }
}

fn list(items: Value, least: usize, distinct: bool) -> Value {
    let mut list = json!({ "type": "array" });
    list["items"] = items;
    if least > 0 {
        list["minItems"] = least.into();
    }
    if distinct {
        list["uniqueItems"] = true.into();
    }
    list
}

fn by_name(pattern: &str, value: Value) -> Value {
    let mut table = json!({ "type": "object" });
    table["additionalProperties"] = value;
    if !pattern.is_empty() {
        table["propertyNames"] = json!({ "pattern": pattern });
    }
    table
}

fn either(one: Value, other: Value) -> Value {
    Map::from_iter([("anyOf".into(), Value::Array(vec![one, other]))]).into()
}

/// A value of the fleet's own description, as JSON.
fn from_toml(value: &str) -> Value {
    let read: Result<Map<String, Value>, _> = toml::from_str(&format!("value = {value}"));
    let read = read.expect("values of the schema are TOML, as their test says");
    read.into_values().next().unwrap_or_default()
}
