//! Good fleet files made wrong in one place: the place is found, and nothing else is complained of.
//! And texts that are anything at all: the reader answers, within bounds.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed, TestRng};
use remuda_core::fleet::{PROBLEMS_MAX, Problems, SCHEMA, Source, parse};
use toml::de::DeTable;

const GITHUB: &str = concat!(
    r#"
[template.small]
provider = "board-farm"
image = "official"
max = 2
limits = { job = "1h" }

[pool_matrix.spread]
use = "small"
name = "spread-{arch}"
labels = ["spread", "{arch:gnu}"]
axes = { arch = ["amd64", "arm64"] }
maps = { gnu = { amd64 = "x86_64", arm64 = "aarch64" } }

"#,
    include_str!("../../../examples/github.toml")
);

/// Keys and values of a good file, as byte ranges, each with its key's name.
#[derive(Default)]
struct Places {
    keys: Vec<(std::ops::Range<usize>, String)>,
    values: Vec<(std::ops::Range<usize>, String, &'static str)>,
}

/// Collects what the schema names; what the file names itself (`own`) may be named anything.
fn places(table: &DeTable<'_>, path: &[&str], into: &mut Places) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let own = match path {
            ["forge" | "provider" | "image" | "template" | "pool" | "pool_matrix" | "tenant"]
            | [.., "axes" | "maps"]
            | [.., "maps", _] => true,
            [.., "env" | "needs" | "capacity"] => !matches!(name, "cpu" | "memory"),
            _ => false,
        };
        if !own {
            into.keys.push((key.span(), name.to_string()));
        }
        let path: Vec<&str> = path.iter().copied().chain([name]).collect();
        if let Some(table) = value.get_ref().as_table() {
            places(table, &path, into);
            continue;
        }
        if let Some(array) = value.get_ref().as_array()
            && array.iter().any(|entry| entry.get_ref().is_table())
        {
            let tables = array.iter().filter_map(|entry| entry.get_ref().as_table());
            tables.for_each(|table| places(table, &path, into));
            continue;
        }
        into.values.push((value.span(), name.to_string(), value.get_ref().type_str()));
    }
}

fn found() -> Places {
    let mut places_found = Places::default();
    places(DeTable::parse(GITHUB).expect("the example is TOML").get_ref(), &[], &mut places_found);
    places_found
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let line = text[..at].matches('\n').count() + 1;
    (line, text[text[..at].rfind('\n').map_or(0, |at| at + 1)..at].chars().count() + 1)
}

fn replaced(range: std::ops::Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &GITHUB[..range.start], &GITHUB[range.end..])
}

fn read(text: &str) -> Result<(), Problems> {
    parse(&[Source { name: "fleet.toml", text }]).map(|_| ())
}

/// Checks that the one problem of `text` is at `at`.
fn check(text: &str, at: usize, word: &str) {
    let problems = read(text).expect_err(word);
    let places: Vec<_> = problems.shown().iter().map(|p| (p.line, p.column)).collect();
    assert_eq!(places, [position(text, at)], "{word}\n{problems}");
}

fn random() -> impl FnMut(usize) -> usize {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    move |below| rng.random_range(0..below)
}

/// `word` with one letter lost, doubled, changed or swapped with the next.
fn misspell(word: &str, random: &mut impl FnMut(usize) -> usize) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = random(letters.len());
    match random(4) {
        0 if letters.len() > 2 => drop(letters.remove(at)),
        1 => letters.insert(at, letters[at]),
        2 if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => letters[at] = ('a'..='z').nth(random(26)).expect("there are 26 letters"),
    }
    letters.into_iter().collect()
}

#[test]
fn the_example_is_good() {
    read(GITHUB).unwrap();
}

#[test]
fn four_hundred_misspelt_keys_are_found_where_they_stand() {
    let (places, mut random) = (found(), random());
    let known = |word: &str| SCHEMA.iter().any(|s| s.keys.iter().any(|key| key.name == word));
    let mut tried = 0;
    while tried < 400 {
        let (range, name) = &places.keys[random(places.keys.len())];
        // In a header the key stands again in the headers below.
        let header = GITHUB[..range.start].ends_with(['[', '.']);
        let word = misspell(name, &mut random);
        // A tpu or the like is a resource of its own.
        if word == *name || known(&word) || header || (name == "cpu" && word.ends_with("pu")) {
            continue;
        }
        check(&replaced(range.clone(), &word), range.start, &format!("{name} -> {word}"));
        tried += 1;
    }
}

#[test]
fn misspelt_headers_are_found_where_they_stand() {
    let mut random = random();
    for (header, key) in [
        ("[server]", "server"),
        ("[provider.board-farm]", "provider"),
        ("[image.official]", "image"),
        ("[image.official.archive]", "archive"),
        ("[pool.linux]", "pool"),
        ("[template.small]", "template"),
        ("[pool_matrix.spread]", "pool_matrix"),
        ("[tenant.default]", "tenant"),
        ("[tenant.default]", "default"),
    ] {
        for _ in 0..10 {
            let word = misspell(key, &mut random);
            if word == key {
                continue;
            }
            let at = GITHUB.find(header).unwrap() + header.find(key).unwrap();
            let text = replaced(at..at + key.len(), &word);
            let problems = read(&text).expect_err(&word);
            let place = position(&text, at);
            let places: Vec<_> = problems.shown().iter().map(|p| (p.line, p.column)).collect();
            assert!(places.contains(&place), "{word}\n{problems}");
        }
    }
}

#[test]
fn a_hundred_dangling_references_are_found_where_they_stand() {
    let (places, mut random) = (found(), random());
    let references: Vec<_> = places
        .values
        .iter()
        .filter(|(range, key, _)| {
            // Not the headers, which declare.
            matches!(key.as_str(), "provider" | "image" | "use")
                && GITHUB[range.clone()].starts_with('"')
        })
        .collect();
    assert_eq!(references.len(), 7);
    for _ in 0..100 {
        let (range, _, _) = references[random(references.len())];
        let name = GITHUB[range.clone()].trim_matches('"');
        let word = misspell(name, &mut random);
        if word != name {
            check(&replaced(range.clone(), &format!("{word:?}")), range.start, &word);
        }
    }
}

#[test]
fn every_value_of_another_type_is_found_where_it_stands() {
    let places = found();
    let mut tried = 0;
    for (range, key, kind) in &places.values {
        for (other, text) in [
            ("boolean", "true"),
            ("datetime", "1979-05-27"),
            ("integer", "5"),
            ("float", "2.5"),
            ("string", "\"no no\""),
            ("array", "[[true]]"),
            ("table", "{ zz = true }"),
        ] {
            let fits = match key.as_str() {
                "id" | "cap" | "budget" => other == "integer",
                "cpu" => matches!(other, "integer" | "float"),
                // One reference stands for a list of one, so the entry is what is wrong.
                "webhook_secret" | "secret" => other == "array",
                _ => false,
            };
            if other == *kind || fits {
                continue;
            }
            check(&replaced(range.clone(), text), range.start, &format!("{key} = {text}"));
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn each_lost_bracket_or_quote_is_found_at_its_line() {
    for (at, c) in GITHUB.char_indices() {
        let line = GITHUB[..at].rfind('\n').map_or(0, |at| at + 1);
        if !"[]{}\"=".contains(c) || GITHUB[line..at].contains('#') {
            continue;
        }
        let text = replaced(at..at + 1, "");
        let Err(problems) = read(&text) else {
            panic!("{:?} without {c}", &GITHUB[line..at]);
        };
        let expected = position(GITHUB, at).0;
        let lines: Vec<_> = problems.shown().iter().map(|p| p.line).collect();
        // An open list or table is missed where the next line cannot belong to it.
        let near = |found: &usize| *found == expected || *found == expected + 1;
        assert!(lines.iter().any(near), "line {expected} without {c}\n{problems}");
        assert!(lines.len() <= 3, "line {expected} without {c}\n{problems}");
    }
}

/// What holds of every answer, whatever was asked.
fn bounded(text: &str) {
    let Err(problems) = read(text) else { return };
    assert!((1..=PROBLEMS_MAX).contains(&problems.shown().len()));
    assert_eq!(problems.total(), problems.shown().len() + problems.more());
    for problem in problems.shown() {
        let line = text.split('\n').nth(problem.line - 1).expect("the line exists");
        assert!(problem.column <= line.chars().count() + 1, "{problem:?}");
        assert!(problem.line_text.chars().count() <= 74, "{problem:?}");
        let shown = problem.line_text.chars().count();
        assert!(problem.width >= 1 && problem.caret + problem.width <= shown + 1, "{problem:?}");
        assert!(!problem.line_text.contains(char::is_control), "{problem:?}");
        assert!(!problem.message.contains(char::is_control), "{problem:?}");
        assert!(problem.message.chars().count() < 700, "{problem:?}");
    }
    assert!(problems.to_string().len() < 300_000);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(12),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        bounded(&text);
    }

    #[test]
    fn any_soup_of_toml_is_answered(parts in prop::collection::vec(
        prop::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ",", ".", "\n", " ", "\"", "'", "\"\"\"", "#", "\t",
            "\r\n", "\u{feff}", "é", "🐎", "\0", "a", "pool", "forge", "x", "labels", "app", "tenant",
            "default", "needs", "[pool.x]\n", "[[forge.x.app]]\n", "[forge.x]\n", "max = 1\n", "5",
            "-1", "1.5", "true", "1979-05-27", "\"env:A\"", "labels = [\"a\"]\n", "id = 1\n", "\\",
        ]), 0..60)
    ) {
        bounded(&parts.concat());
    }

    #[test]
    fn any_damage_to_a_good_file_is_answered(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3), 1..6)
    ) {
        let mut text = GITHUB.to_string();
        for (at, c, edit) in edits {
            let at = text.floor_char_boundary(at.index(text.len()));
            match edit {
                0 => drop(text.remove(at)),
                1 => text.insert(at, c),
                _ => text.truncate(at),
            }
            if text.is_empty() {
                break;
            }
        }
        bounded(&text);
    }
}

/// The example with this many bytes of labels in its first pool.
fn labelled(bytes: usize) -> String {
    let labels = "\"label\", ".repeat(bytes / 9);
    GITHUB.replacen("labels = [", &format!("labels = [{labels}"), 1)
}

#[test]
fn megabytes_of_labels_are_one_short_problem() {
    for (bytes, message) in [(3 << 20, "at most 100 are allowed"), (10 << 20, "are read")] {
        let problems = read(&labelled(bytes)).expect_err("too many labels");
        assert_eq!(problems.total(), 1, "{problems}");
        let problem = &problems.shown()[0];
        assert!(problem.message.ends_with(message), "{problem}");
        assert!(problem.to_string().len() < 400, "{problem}");
    }
}

#[test]
fn endless_problems_are_counted_and_a_hundred_shown() {
    let mut text = GITHUB.to_string();
    for index in 0..20_000 {
        text += &["zzzz", &index.to_string(), " = 1\n"].concat();
    }
    let problems = read(&text).unwrap_err();
    assert_eq!((problems.shown().len(), problems.total()), (100, 20_000));
    assert!(problems.to_string().ends_with("and 19900 more\n\n20000 problems"));
    bounded(&"= \n".repeat(100_000));
    bounded(&"[".repeat(100_000));
    bounded(&"a.".repeat(100_000));
    bounded(&"x".repeat(17 << 20));
    bounded(&format!("[pool.{}]", "x".repeat(1 << 20)));
    bounded(&"\"\u{1}".repeat(400_000));
}
