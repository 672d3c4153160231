//! The reference page, the schema and the reader say the same.

use remuda_core::fleet::{Absent, Fleet, Key, Problems, SCHEMA, Section, Source, Takes, parse};
use remuda_core::label::LabelSet;
use remuda_core::name::PoolName;

const PAGE: &str = include_str!("../../../docs/fleet.md");

/// The part of the page that describes a section.
fn described(section: &Section) -> String {
    let title = match section.path {
        "" => "## The file".to_string(),
        "forge.NAME.app" | "forge.NAME.hook" => format!("## `[[{}]]`", section.path),
        path => format!("## `[{path}]`"),
    };
    if section.keys.is_empty() {
        return format!("{title}\n\n{}\n", section.about);
    }
    let rows: String = section.keys.iter().map(row).collect();
    format!(
        "{title}\n\n{}\n\n| key | takes | when absent | |\n| --- | --- | --- | --- |\n{rows}",
        section.about
    )
}

fn row(key: &Key) -> String {
    let absent = match key.absent {
        Absent::Required => "**required**".to_string(),
        Absent::Means(value) => format!("`{value}`"),
        Absent::Without(words) => words.to_string(),
    };
    format!("| `{}` | {} | {absent} | {} |\n", key.name, key.takes, key.about)
}

#[test]
fn every_key_is_on_the_page() {
    for section in SCHEMA {
        let expected = described(section);
        assert!(PAGE.contains(&expected), "docs/fleet.md lacks this text:\n\n{expected}");
    }
}

#[test]
fn the_examples_of_the_page_are_one_good_fleet() {
    let blocks: Vec<&str> =
        PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 4, "the page has examples");
    let sources: Vec<_> =
        blocks.iter().map(|text| Source { name: "docs/fleet.md", text }).collect();
    let fleet = parse(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let pools: Vec<_> = fleet.pools.keys().map(PoolName::as_str).collect();
    assert_eq!(pools, ["board", "ci-amd64", "ci-amd64-big", "ci-arm64", "small"]);
    let made = fleet.pools.values().nth(2).unwrap();
    assert_eq!(made.labels, LabelSet::parse(["ci-amd64-big", "self-hosted", "x86_64"]).unwrap());
    assert_eq!((made.max, made.limits.job.unwrap().as_secs()), (2, 7200));
}

/// Keys of a table, with their values in TOML.
type Keys = &'static [(&'static str, &'static str)];

/// A fleet with every section, each with what it requires.
const BASE: &[(&str, &str, Keys)] = &[
    ("server", "[server]", &[]),
    ("forge.NAME", "[forge.github]", &[("token", "\"env:T\"")]),
    ("forge.NAME.polls", "[forge.github.polls]", &[]),
    ("forge.NAME.demand", "[forge.github.demand]", &[]),
    ("forge.NAME.app", "[[forge.github.app]]", &[("id", "1"), ("private_key", "\"env:K\"")]),
    ("forge.NAME.hook", "[[forge.github.hook]]", &[("id", "7"), ("secret", "\"env:S\"")]),
    (
        "provider.NAME",
        "[provider.local]",
        // The last two are required beside a shared database.
        &[("kind", "\"process\""), ("node", "\"board-1\""), ("directory", "\"instances\"")],
    ),
    ("image.NAME", "[image.runner]", &[("command", "[\"x\"]")]),
    (
        "image.NAME.archive",
        "[image.runner.archive]",
        &[
            ("source", "\"x.tar\""),
            ("sha256", "\"0000000000000000000000000000000000000000000000000000000000000000\""),
        ],
    ),
    ("image.NAME.env", "[image.runner.env]", &[]),
    (
        "pool.NAME",
        "[pool.small]",
        &[("labels", "[\"a\"]"), ("provider", "\"local\""), ("image", "\"runner\""), ("max", "1")],
    ),
    ("pool.NAME.limits", "[pool.small.limits]", &[]),
    ("template.NAME", "[template.common]", &[]),
    (
        "pool_matrix.NAME",
        "[pool_matrix.many]",
        &[
            ("name", "\"many-{arch}\""),
            ("axes", "{ arch = [\"amd64\", \"arm64\"] }"),
            ("labels", "[\"{arch}\"]"),
            ("provider", "\"local\""),
            ("image", "\"runner\""),
            ("max", "1"),
        ],
    ),
    ("grace", "[grace]", &[]),
    ("quarantine", "[quarantine]", &[]),
    ("tenant.default", "[tenant.default]", &[]),
    (
        "tenant.NAME",
        "[tenant.acme]",
        &[("login", "\"acme\""), ("id", "1"), ("kind", "\"organization\"")],
    ),
];

/// [`BASE`] with a key of one section set, or left out.
fn base(path: &str, key: &str, value: Option<&str>) -> Result<Fleet, Problems> {
    let mut text = String::new();
    for (section, header, keys) in BASE {
        text += &[header, "\n"].concat();
        for (name, given) in *keys {
            if (*section, *name) != (path, key) {
                text += &[name, " = ", given, "\n"].concat();
            }
        }
        if let Some(value) = value.filter(|_| *section == path) {
            text += &[key, " = ", value, "\n"].concat();
        }
    }
    parse(&[Source { name: "fleet.toml", text: &text }])
}

fn good(path: &str, key: &str, value: Option<&str>) -> Fleet {
    base(path, key, value).unwrap_or_else(|problems| panic!("{path}.{key}: {problems}"))
}

#[test]
fn every_key_takes_its_example() {
    for section in SCHEMA {
        for key in section.keys.iter().filter(|key| !key.example.is_empty()) {
            good(section.path, key.name, Some(key.example));
        }
    }
}

#[test]
fn every_default_is_what_an_absent_key_means() {
    let mut defaults = 0;
    for section in SCHEMA {
        for key in section.keys {
            if let Absent::Means(value) = key.absent {
                let absent = good(section.path, key.name, None);
                assert_eq!(absent, good(section.path, key.name, Some(value)), "{}", key.name);
                defaults += 1;
            }
        }
    }
    assert!(defaults > 15, "{defaults}");
}

#[test]
fn a_mode_sets_what_is_not_said_and_gives_way_to_what_is() {
    let pool = |mode: &str, limits: &str| {
        let text = format!("{mode}limits = {{ {limits} }}");
        let text = [
            "[forge.github]\ntoken = \"env:T\"\n[provider.local]\nkind = \"process\"\n",
            "[image.runner]\ncommand = [\"x\"]\n[pool.small]\nlabels = [\"a\"]\n",
            "provider = \"local\"\nimage = \"runner\"\nmax = 1\n",
            &text,
        ];
        let fleet = parse(&[Source { name: "fleet.toml", text: &text.concat() }]).unwrap();
        let pool = fleet.pools.values().next().unwrap();
        (pool.gather.jobs, pool.gather.wait.as_secs(), pool.limits.idle.as_secs(), pool.min_idle)
    };
    for (word, (jobs, wait)) in [("lazy", (5, 120)), ("balanced", (2, 60)), ("aggressive", (1, 30))]
    {
        let mode = format!("mode = \"{word}\"\n");
        assert_eq!(pool(&mode, ""), (jobs, wait, wait, 0), "{word}");
        assert_eq!(pool(&mode, "idle = \"7s\""), (jobs, wait, 7, 0), "{word}");
    }
    assert_eq!(pool("", ""), (1, 0, 300, 0));
}

#[test]
fn every_word_and_number_that_a_key_says_it_takes_is_taken_and_no_other() {
    let (mut words, mut numbers) = (0, 0);
    for section in SCHEMA {
        for key in section.keys {
            if let Takes::Word(known) = key.takes {
                for word in known {
                    good(section.path, key.name, Some(&format!("{word:?}")));
                    words += 1;
                }
                assert!(base(section.path, key.name, Some("\"other\"")).is_err());
            }
            let Some(range) = key.takes.numbers() else { continue };
            let written = |number: u64| base(section.path, key.name, Some(&number.to_string()));
            assert!(written(*range.start()).is_ok(), "{}.{}", section.path, key.name);
            for beyond in [range.start().checked_sub(1), range.end().checked_add(1)] {
                let refused = beyond.is_none_or(|number| written(number).is_err());
                assert!(refused, "{}.{} takes {beyond:?}", section.path, key.name);
            }
            numbers += 1;
        }
    }
    assert_eq!((words, numbers), (8, 15));
}

#[test]
fn every_required_key_is_missed() {
    for section in SCHEMA.iter().filter(|section| !section.path.is_empty()) {
        for key in section.keys.iter().filter(|key| key.absent == Absent::Required) {
            let problems = base(section.path, key.name, None).unwrap_err();
            let message = format!("\"{}\" is missing", key.name);
            assert!(problems.shown()[0].message.ends_with(&message), "{problems}");
            assert_eq!(problems.total(), 1, "{problems}");
        }
    }
}
