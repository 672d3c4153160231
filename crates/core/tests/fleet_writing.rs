//! A fleet as text, and what parts two of them.

use remuda_core::fleet::{Difference, Fleet, Key, SCHEMA, Source, differences, parse};

const GITHUB: &str = include_str!("../../../examples/github.toml");
const LAPTOP: &str = include_str!("../../../examples/laptop.toml");

fn good(text: &str) -> Fleet {
    parse(&[Source { name: "fleet.toml", text }]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Writes a fleet and reads it again.
#[track_caller]
fn survives(fleet: &Fleet) {
    let text = fleet.document().to_string();
    assert_eq!(good(&text), *fleet, "{text}");
}

fn said(before: &str, after: &str) -> Vec<String> {
    let value = |value: Option<toml::Value>| value.map_or("-".into(), |value| value.to_string());
    let one = |Difference { path, before, after }| {
        format!("{}: {} -> {}", path.join("."), value(before), value(after))
    };
    differences(&good(before), &good(after)).into_iter().map(one).collect()
}

const HEAD: &str = "[forge.hub]\ntoken = \"env:T\"\n[provider.local]\nkind = \"process\"\n\
                    [image.run]\ncommand = [\"./run.sh\"]\n";

/// A fleet with one more line in the table of each kind.
fn with(path: &str, line: &str) -> String {
    let tables = [
        ("server", "[server]\n"),
        ("forge.NAME", "[forge.github]\ntoken = \"env:T\"\n"),
        ("forge.NAME.polls", "[forge.github.polls]\n"),
        ("forge.NAME.demand", "[forge.github.demand]\n"),
        ("forge.NAME.app", "[[forge.github.app]]\nprivate_key = \"env:K\"\nid = 1\n"),
        ("forge.NAME.hook", "[[forge.github.hook]]\nid = 7\nsecret = \"env:S\"\n"),
        (
            "provider.NAME",
            "[provider.local]\nkind = \"process\"\nnode = \"board-1\"\ndirectory = \"instances\"\n",
        ),
        ("image.NAME", "[image.runner]\ncommand = [\"x\"]\n"),
        (
            "image.NAME.archive",
            "[image.runner.archive]\nsource = \"x.tar\"\nsha256 = \"00000000000000000000000000000000\
             00000000000000000000000000000000\"\n",
        ),
        ("image.NAME.env", "[image.runner.env]\n"),
        ("template.NAME", "[template.common]\nmax = 3\n"),
        (
            "pool.NAME",
            "[pool.small]\nlabels = [\"a\"]\nprovider = \"local\"\nimage = \"runner\"\nmax = 40\n\
             forge = \"github\"\nscopes = [\"org:acme\"]\n",
        ),
        ("pool.NAME.limits", "[pool.small.limits]\n"),
        ("grace", "[grace]\n"),
        ("quarantine", "[quarantine]\n"),
        ("tenant.default", "[tenant.default]\n"),
        ("tenant.NAME", "[tenant.acme]\nlogin = \"acme\"\nid = 1\nkind = \"organization\"\n"),
    ];
    let key = line.split(' ').next().unwrap_or_default();
    let mut text = String::new();
    for (section, table) in tables {
        let table = table.lines().filter(|old| section != path || !old.starts_with(key));
        text += &table.collect::<Vec<_>>().join("\n");
        text += "\n";
        if section == path {
            text += &[line, "\n"].concat();
        }
    }
    text
}

#[test]
fn what_is_written_is_read_again_as_the_same_fleet() {
    for text in [GITHUB, LAPTOP] {
        survives(&good(text));
    }
    let every = ["lazy", "balanced", "aggressive"].map(|mode| {
        format!(
            "[pool.{mode}]\nlabels = [\"{mode}\"]\nprovider = \"local\"\nimage = \"run\"\nmax = 1\n\
             mode = \"{mode}\"\nneeds = {{ cpu = 1.5, memory = \"3GiB\" }}\n"
        )
    });
    let tenants = "[tenant.a]\nlogin = \"Ann\"\ncap = 0\n[tenant.b]\nid = 5\nkind = \"user\"\n\
                   [tenant.c]\nlogin = \"Cid\"\nid = 6\nkind = \"organization\"\ncap = \"unlimited\"\n";
    survives(&good(&[HEAD, &every.concat(), tenants].concat()));
}

/// A value that a key takes and that is not its example.
fn other(key: &Key) -> &'static str {
    let example = key.example.trim_matches('"');
    match key.name {
        "kind" | "use" | "provider" | "image" | "forge" if !example.contains("organization") => {
            key.example
        }
        "kind" => "\"user\"",
        "mode" => "\"balanced\"",
        "listen" => "\"127.0.0.1:9\"",
        "api" => "\"https://other.example\"",
        "scopes" => "[\"org:other\", \"repo:me/app\"]",
        "scope" => "\"org:other\"",
        "labels" | "owners" | "command" => "[\"other\"]",
        "webhooks" => "true",
        "sha256" => "\"1111111111111111111111111111111111111111111111111111111111111111\"",
        "jit" => "\"fd:4\"",
        _ if key.takes.to_string().contains("secret") => "\"env:OTHER\"",
        _ if key.takes.to_string().contains("duration") => "\"7m\"",
        _ if key.takes.to_string().contains("number") || key.name == "id" => "7",
        _ => "\"other\"",
    }
}

/// No key is read and forgotten: each ends in the fleet, and so in what is written.
#[test]
fn every_key_changes_what_is_written() {
    let (mut changes, mut same) = (0, Vec::new());
    for section in SCHEMA {
        for key in section.keys.iter().filter(|key| !key.example.is_empty()) {
            // What a matrix makes is pools.
            if section.path == "pool_matrix.NAME" {
                continue;
            }
            let set = |value| good(&with(section.path, &format!("{} = {value}", key.name)));
            let fleet = set(key.example);
            survives(&fleet);
            if differences(&fleet, &set(other(key))).is_empty() {
                same.push([section.path, ".", key.name].concat());
            } else {
                changes += 1;
            }
        }
    }
    // Kinds of which there is one; and names of which the file has one, by which it is read.
    let alone = [
        "forge.NAME.kind",
        "provider.NAME.kind",
        "pool.NAME.use",
        "pool.NAME.provider",
        "pool.NAME.image",
        "pool.NAME.forge",
        "tenant.NAME.forge",
    ];
    assert_eq!(same, alone);
    assert!(changes > 50, "{changes}");
}

#[test]
fn differences_name_each_key_and_whole_declarations() {
    let pool = |name: &str, rest: &str| {
        format!(
            "[pool.{name}]\nlabels = [\"{name}\", \"x\"]\nprovider = \"local\"\nimage = \"run\"\n{rest}"
        )
    };
    let before = [HEAD, &pool("a", "max = 1\n"), &pool("b", "max = 1\n")].concat();
    assert!(said(&before, &before).is_empty());
    // Order and templates mean nothing.
    let same = [
        &pool("b", "max = 1\n").replace("\"b\", \"x\"", "\"X\", \"b\""),
        "[template.t]\nmax = 1\n",
        HEAD,
        &pool("a", "use = \"t\"\n"),
    ];
    assert!(said(&before, &same.concat()).is_empty());
    let after = [HEAD, &pool("a", "max = 2\nlimits.job = \"1h\"\n"), &pool("c", "max = 1\n")];
    let told = said(&before, &after.concat());
    assert_eq!(told[..2], ["pool.a.limits.job: - -> \"1h\"", "pool.a.max: 1 -> 2"]);
    assert!(told[2].starts_with("pool.b: {") && told[2].ends_with("-> -"), "{told:?}");
    assert!(told[3].starts_with("pool.c: - -> {") && told.len() == 4, "{told:?}");
}
