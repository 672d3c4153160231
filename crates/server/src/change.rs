//! What another fleet would change: declaration by declaration, and what becomes of the runners.

use std::collections::BTreeMap;

use remuda_core::Controller;
use remuda_core::fleet::{Absent, Difference, Fleet, SCHEMA, differences};
use remuda_core::runner::RunnerState;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// What would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The number of the fleet that is in force.
    pub base: u64,
    /// The revision of the other one.
    pub revision: String,
    /// Each declaration that is different, in the order of their names.
    pub changes: Vec<ChangeRow>,
}

/// A declaration that one of two fleets lacks, or that they have differently.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeRow {
    /// Its kind and name, such as `pool rvv`.
    pub what: String,
    /// `add`, `change` or `remove`.
    pub change: String,
    /// Its keys: all that is not as by default if it is added, else those that differ.
    pub keys: Vec<KeyRow>,
    /// What becomes of what there is.
    pub effects: Vec<String>,
}

/// One key, with its values in TOML.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its name, behind those of the tables that it is in.
    pub key: String,
    /// What it says now; none if nothing.
    pub before: Option<String>,
    /// What it would say.
    pub after: Option<String>,
}

/// Kinds of which each fleet has one, without a name.
const SINGLE: [&str; 3] = ["server", "grace", "quarantine"];

/// What would change if `after` came into force in place of the fleet that the controller has.
pub(crate) fn plan(controller: &Controller, base: u64, after: &Fleet) -> Plan {
    let before = &controller.world().fleet;
    let mut rows: BTreeMap<String, ChangeRow> = BTreeMap::new();
    for Difference { path, before, after } in differences(before, after) {
        let named = if SINGLE.contains(&&*path[0]) { 1 } else { 2 };
        let what = path[..named.min(path.len())].join(" ");
        let (change, keys) = match (path.len() > named, before, after) {
            (false, None, Some(Value::Table(table))) => ("add", written(&path[0], &table)),
            (false, Some(_), None) => ("remove", Vec::new()),
            (_, before, after) => {
                let [before, after] = [before, after].map(|value| value.map(|v| v.to_string()));
                ("change", vec![KeyRow { key: path[named..].join("."), before, after }])
            }
        };
        let row = rows.entry(what.clone()).or_insert_with(|| ChangeRow {
            effects: effects(controller, &what, change),
            what,
            change: change.into(),
            keys: Vec::new(),
        });
        row.keys.extend(keys);
    }
    Plan { base, revision: after.revision(), changes: rows.into_values().collect() }
}

/// The keys of a declaration that are not as they would be if they were left out.
fn written(kind: &str, table: &Table) -> Vec<KeyRow> {
    let mut rows = Vec::new();
    flatten(&format!("{kind}.NAME"), "", table, &mut rows);
    rows
}

fn flatten(section: &str, prefix: &str, table: &Table, rows: &mut Vec<KeyRow>) {
    let keys = SCHEMA.iter().find(|known| known.path == section).map_or(&[][..], |s| s.keys);
    for (name, value) in table {
        let key = [prefix, name].concat();
        if let Value::Table(inner) = value {
            flatten(&format!("{section}.{name}"), &[&key, "."].concat(), inner, rows);
            continue;
        }
        let after = value.to_string();
        let absent = keys.iter().find(|known| known.name == name).map(|known| known.absent);
        let is_default = matches!(absent, Some(Absent::Means(value)) if value == after);
        if !is_default && after != "[]" {
            rows.push(KeyRow { key, before: None, after: Some(after) });
        }
    }
}

/// What becomes of the runners of a pool, or of one provider's.
fn effects(controller: &Controller, what: &str, change: &str) -> Vec<String> {
    let Some((kind, name)) = what.split_once(' ').filter(|_| change == "remove") else {
        return Vec::new();
    };
    let world = controller.world();
    let concerned = world.active_runners().filter(|runner| match kind {
        "pool" => runner.pool.as_str() == name,
        "provider" => {
            let instance = world.instance(runner.instance);
            instance.is_some_and(|instance| instance.provider.as_str() == name)
        }
        _ => false,
    });
    let (mut busy, mut idle) = (0, 0);
    for runner in concerned {
        match runner.state {
            RunnerState::Busy => busy += 1,
            RunnerState::Pending
            | RunnerState::Starting
            | RunnerState::Idle
            | RunnerState::Draining
            | RunnerState::Stopping
            | RunnerState::Gone => idle += 1,
        }
    }
    let told = |count: u32, does: &str| (count > 0).then(|| format!("{count} {does}"));
    [told(idle, "without a job leave"), told(busy, "with a job run on until its end")]
        .into_iter()
        .flatten()
        .collect()
}
