//! Rules about the text of the repository that no compiler checks. Each rule is a function of some text,
//! and is shown to fail on a bad one; then all of them are held against what is here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of a source file outside tests.
const LINES_MAX: usize = 600;
/// Most lines of ARCHITECTURE.md.
const MAP_LINES_MAX: usize = 250;

/// What one rule has against one place.
type Complaint = String;

/// The edges between our crates that there may be: everything to `core`, and `server` to all.
fn forbidden_edges(name: &str, manifest: &str) -> Vec<Complaint> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        }
        if !inside || line.starts_with('#') {
            continue;
        }
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        found.extend(words.filter(|word| word.starts_with("remuda")).map(str::to_owned));
    }
    found.remove(name);
    let allowed = |to: &str| name == "remuda" || (to == "remuda-core" && name != "remuda-core");
    found
        .into_iter()
        .filter(|to| !allowed(to))
        .map(|to| {
            format!("{name} depends on {to}: adapters know the core and nothing else of ours")
        })
        .collect()
}

#[test]
fn an_edge_that_is_not_in_the_star_is_found() {
    let manifest =
        "[package]\nname = \"remuda-store\"\n[dependencies]\nremuda-core.workspace = true\n";
    assert_eq!(forbidden_edges("remuda-store", manifest), [""; 0]);
    assert_eq!(
        forbidden_edges("remuda", &format!("{manifest}remuda-sim.workspace = true")),
        [""; 0]
    );
    for bad in [
        "remuda-forge.workspace = true",
        "other = { package = \"remuda-forge\", path = \"../forge\" }",
        "[dev-dependencies]\nremuda-forge = { path = \"../forge\" }",
        "[dependencies.remuda-forge]\nworkspace = true",
        "[target.'cfg(unix)'.build-dependencies]\nremuda-forge.workspace = true",
    ] {
        let found = forbidden_edges("remuda-store", &format!("{manifest}{bad}\n"));
        assert_eq!(found.len(), 1, "{bad}");
    }
    assert_eq!(
        forbidden_edges("remuda-core", "[dependencies]\nremuda-sim.workspace = true").len(),
        1
    );
}

/// A file that is longer than anybody reads at once.
fn too_long(text: &str) -> Vec<Complaint> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        vec![format!("has {lines} lines, more than {LINES_MAX}")]
    } else {
        vec![]
    }
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(too_long(&"x\n".repeat(LINES_MAX)), [""; 0]);
    assert_eq!(too_long(&"x\n".repeat(LINES_MAX + 1)).len(), 1);
}

/// Words that say that something was left undone.
const UNDONE: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Places where something was left undone.
fn undone(text: &str) -> Vec<Complaint> {
    let is_word = |line: &str, word: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found == word)
    };
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in UNDONE.iter().filter(|word| is_word(line, word)) {
            found.push(format!("line {}: {word}: do it or file it", number + 1));
        }
    }
    found
}

#[test]
fn a_thing_left_undone_is_found() {
    for word in UNDONE {
        assert_eq!(undone(&format!("fine\n// {word}: later")).len(), 1, "{word}");
        assert_eq!(undone(&format!("a{word}b")), [""; 0], "{word} within a word");
    }
}

/// The beginnings of paths that exist on one machine only.
const OWN_PLACES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Paths that exist on their writer's machine only.
fn own_paths(text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for place in OWN_PLACES {
            let is_start = |at: usize| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_ascii_alphanumeric() && !"_-.~/})$".contains(c))
            };
            if line.match_indices(place).any(|(at, _)| is_start(at)) {
                found.push(format!("line {}: a path below {place}", number + 1));
            }
        }
    }
    found
}

#[test]
fn a_path_of_ones_own_machine_is_found() {
    for place in OWN_PLACES {
        for (before, after) in [("", "me/x"), ("let x = \"", "x\""), ("see ", "y"), ("(", "z)")] {
            assert_eq!(own_paths(&format!("{before}{place}{after}")).len(), 1, "{before}{place}");
        }
        for fine in ["$HOME", "a", "..", "{root}"] {
            assert_eq!(own_paths(&format!("{fine}{place}x")), [""; 0], "{fine}{place}");
        }
    }
}

/// The files that a crate's part of the map names; `a/{b,c}.rs` names two.
fn named(part: &str) -> BTreeSet<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-/.{},".contains(c);
    let mut found = BTreeSet::new();
    for word in part.split(|c: char| !is_path(c)).filter(|word| word.strip_suffix(".rs").is_some())
    {
        match (word.split_once('{'), word.split_once('}')) {
            (Some((before, _)), Some((inside, after))) => {
                let names = inside.split_once('{').map_or("", |(_, names)| names);
                found.extend(names.split(',').map(|name| format!("{before}{name}{after}")));
            }
            (_, _) => {
                found.insert(word.to_owned());
            }
        }
    }
    found
}

/// The part of the map that is about a crate: from its heading to the next.
fn part_of<'a>(map: &'a str, krate: &str) -> Option<&'a str> {
    let start = map.find(&format!("### `crates/{krate}`"))?;
    let rest = &map[start..];
    let end = rest[3..].find("\n##").map_or(rest.len(), |end| end + 3);
    Some(&rest[..end])
}

/// Modules that the map lacks, and files that it names and that are not there.
fn unmapped(map: &str, krate: &str, modules: &BTreeSet<String>) -> Vec<Complaint> {
    let Some(part) = part_of(map, krate) else {
        return vec![format!("ARCHITECTURE.md has no part `crates/{krate}`")];
    };
    let named = named(part);
    let missing = modules.difference(&named);
    let missing = missing.map(|module| format!("ARCHITECTURE.md lacks crates/{krate}'s {module}"));
    let stale = named.difference(modules);
    let stale =
        stale.map(|module| format!("ARCHITECTURE.md names crates/{krate}'s {module}: gone"));
    missing.chain(stale).collect()
}

#[test]
fn a_module_that_the_map_lacks_is_found_and_so_is_one_that_is_gone() {
    let map = "# Map\n### `crates/core`\n- `lib.rs`, `fleet/{mod,read}.rs`: x\n### `crates/sim`\n- run.rs\n";
    let modules = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let whole = modules(&["lib.rs", "fleet/mod.rs", "fleet/read.rs"]);
    assert_eq!(unmapped(map, "core", &whole), [""; 0]);
    let more = modules(&["lib.rs", "fleet/mod.rs", "fleet/read.rs", "run.rs"]);
    assert_eq!(unmapped(map, "core", &more), ["ARCHITECTURE.md lacks crates/core's run.rs"]);
    let fewer = modules(&["lib.rs", "fleet/mod.rs"]);
    assert_eq!(
        unmapped(map, "core", &fewer),
        ["ARCHITECTURE.md names crates/core's fleet/read.rs: gone"]
    );
    assert_eq!(unmapped(map, "store", &whole).len(), 1);
}

/// Migrations are `NNNN_name.sql` from 0001 on without a gap, and every backend has the same numbers.
fn migrations(by_backend: &BTreeMap<String, Vec<String>>) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut all = BTreeMap::new();
    for (backend, files) in by_backend {
        let mut numbers = BTreeSet::new();
        for file in files {
            let number = file
                .strip_suffix(".sql")
                .and_then(|name| name.split_once('_'))
                .and_then(|(digits, _)| digits.parse::<usize>().ok().filter(|_| digits.len() == 4));
            match number {
                None => found.push(format!("{backend}/{file} is not NNNN_name.sql")),
                Some(number) if !numbers.insert(number) => {
                    found.push(format!("{backend} has {number:04} twice"));
                }
                Some(_) => {}
            }
        }
        if !numbers.iter().copied().eq(1..=numbers.len()) || numbers.is_empty() {
            found.push(format!("the migrations of {backend} are not numbered from 0001 on"));
        }
        all.insert(backend, numbers);
    }
    if all.values().collect::<BTreeSet<_>>().len() > 1 {
        found.push("the backends have migrations of different numbers".to_owned());
    }
    found
}

#[test]
fn a_migration_out_of_order_or_without_its_twin_is_found() {
    let of = |files: &[(&str, &[&str])]| -> Vec<Complaint> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        migrations(&files.iter().map(|(backend, n)| ((*backend).to_owned(), owned(n))).collect())
    };
    assert_eq!(of(&[("sqlite", &["0001_a.sql", "0002_b.sql"])]), [""; 0]);
    assert_eq!(of(&[("sqlite", &["0001_a.sql"]), ("postgres", &["0001_b.sql"])]), [""; 0]);
    assert_eq!(
        of(&[("sqlite", &["0001_a.sql"]), ("postgres", &["0001_a.sql", "0002_b.sql"])]).len(),
        1
    );
    assert_eq!(of(&[("sqlite", &["0001_a.sql", "0003_b.sql"])]).len(), 1);
    assert_eq!(of(&[("sqlite", &["0001_a.sql", "0001_b.sql"])]).len(), 1);
    assert_eq!(of(&[("sqlite", &["0001_a.sql", "2_b.sql"])]).len(), 1);
    assert_eq!(of(&[("sqlite", &[])]).len(), 1);
}

// From here on: what is in this repository.

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// Files below a directory, by their path from it. What git ignores and test data is left out.
fn files(directory: &Path) -> Vec<PathBuf> {
    const LEFT_OUT: [&str; 3] = ["target", ".git", "data"];
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap().flatten() {
            let name = entry.file_name();
            if LEFT_OUT.iter().any(|out| name == *out) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The directories of our crates, by name.
fn crates() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("crates")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 5, "{names:?}");
    names
}

/// True for source text that people write: code, manifests, scripts, documents.
fn is_ours(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let written = ["rs", "toml", "md", "sql", "yml", "yaml", "sh"];
    let script = path.starts_with("scripts") || path.starts_with(".ci");
    extension.map_or(script, |extension| written.contains(&extension))
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.iter().any(|part| part == "tests") || name == "tests.rs" || name.ends_with("_tests.rs")
}

fn none(complaints: &[Complaint]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Holds a rule about the text of a file against every file that `wanted` picks.
fn every_file(wanted: impl Fn(&Path) -> bool, rule: impl Fn(&str) -> Vec<Complaint>) {
    let root = root();
    let mut count = 0;
    let mut complaints = Vec::new();
    for path in files(&root).into_iter().filter(|path| wanted(path)) {
        count += 1;
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        complaints
            .extend(rule(&text).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(count > 50, "only {count} files were looked at");
    none(&complaints);
}

#[test]
fn crates_form_a_star_around_the_core() {
    let mut complaints = Vec::new();
    for krate in crates() {
        let manifest = root().join("crates").join(&krate).join("Cargo.toml");
        let name = if krate == "server" { "remuda".into() } else { format!("remuda-{krate}") };
        complaints.extend(forbidden_edges(&name, &std::fs::read_to_string(manifest).unwrap()));
    }
    none(&complaints);
}

#[test]
fn no_source_file_is_too_long() {
    every_file(|path| path.extension().is_some_and(|e| e == "rs") && !is_test(path), too_long);
}

#[test]
fn nothing_is_left_undone() {
    every_file(is_ours, undone);
}

#[test]
fn no_path_leads_to_somebodys_own_machine() {
    every_file(is_ours, own_paths);
}

#[test]
fn every_module_is_on_the_map() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut complaints = Vec::new();
    for krate in crates() {
        let source = root().join("crates").join(&krate).join("src");
        let modules = files(&source).into_iter().filter(|path| !is_test(path));
        let modules = modules.map(|path| path.to_str().unwrap().to_owned()).collect();
        complaints.extend(unmapped(&map, &krate, &modules));
    }
    let lines = map.lines().count();
    if lines > MAP_LINES_MAX {
        complaints.push(format!("ARCHITECTURE.md has {lines} lines, more than {MAP_LINES_MAX}"));
    }
    none(&complaints);
}

#[test]
fn migrations_are_numbered_and_have_their_twins() {
    let directory = root().join("crates/store/migrations");
    let mut by_backend: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(&directory) {
        let (backend, file) = path.to_str().unwrap().split_once('/').expect("a file of a backend");
        by_backend.entry(backend.to_owned()).or_default().push(file.to_owned());
    }
    assert!(by_backend.contains_key("sqlite"));
    none(&migrations(&by_backend));
}

/// The tests that a document names, as `crates/x/tests/y.rs::name`: file and function.
fn tests_named(page: &str) -> Vec<(&str, &str)> {
    let words = page.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::"));
    words.filter(|(file, _)| file.starts_with("crates/")).collect()
}

#[test]
fn tests_are_named_by_file_and_function() {
    let page = "a `crates/x/tests/y.rs::z` b `Enum::Variant` c `crates/x/src/q.rs`";
    assert_eq!(tests_named(page), [("crates/x/tests/y", "z")]);
}

#[test]
fn every_test_that_a_document_names_exists() {
    let root = root();
    let mut complaints = Vec::new();
    let mut count = 0;
    let is_page = |path: &PathBuf| path.extension().is_some_and(|e| e == "md");
    for path in files(&root).into_iter().filter(is_page) {
        let page = std::fs::read_to_string(root.join(&path)).unwrap();
        for (file, name) in tests_named(&page) {
            count += 1;
            let text = std::fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            if !text.contains(&format!("fn {name}(")) {
                complaints.push(format!("{}: there is no test {file}.rs::{name}", path.display()));
            }
        }
    }
    assert!(count > 10, "only {count} tests are named");
    none(&complaints);
}
