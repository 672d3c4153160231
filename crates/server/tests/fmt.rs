//! `remuda fmt` as people and scripts meet it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use remuda_core::fleet::{Source, parse};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn fmt(directory: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remuda"));
    let Output { status, stdout, stderr } =
        command.arg("fmt").args(args).current_dir(directory).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_examples_are_in_their_form() {
    assert_eq!(
        fmt(&repository(), &["--check", "examples"]),
        (Some(0), String::new(), String::new())
    );
}

/// Every fleet that the repository shows.
fn shown() -> Vec<String> {
    let examples = std::fs::read_dir(repository().join("examples")).unwrap().flatten();
    let examples = examples.map(|entry| entry.path());
    let examples = examples.filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
    let mut found: Vec<_> = examples.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let page = std::fs::read_to_string(repository().join("docs/fleet.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    found.push(blocks.collect::<Vec<_>>().join("\n"));
    found
}

#[test]
fn a_fleet_in_disorder_is_the_same_fleet_in_its_form() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = |text: &str| parse(&[Source { name: "fleet.toml", text }]).unwrap();
    for text in shown() {
        // Tables in the opposite order, lists and keys with other spaces, blank lines in between.
        let mut disorder = String::new();
        for table in text.split("\n\n").collect::<Vec<_>>().iter().rev() {
            let table = table.replace(" = ", "=").replace(", ", " ,  ").replace('\n', "  \n\n");
            writeln!(disorder, "{table}\n\n").unwrap();
        }
        let file = directory.path().join("fleet.toml");
        std::fs::write(&file, &disorder).unwrap();
        let said = fmt(directory.path(), &[]);
        assert_eq!(said, (Some(0), "fleet.toml\n".into(), String::new()), "{disorder}");
        let form = std::fs::read_to_string(&file).unwrap();
        assert_eq!(fleet(&form), fleet(&disorder), "{form}");
        assert_eq!(form.matches('#').count(), disorder.matches('#').count(), "{form}");
        assert_eq!(fmt(directory.path(), &["--check"]), (Some(0), String::new(), String::new()));
    }
}

#[test]
fn a_check_names_what_differs_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.toml"), "[server]\n").unwrap();
    std::fs::write(path("b.toml"), "x=1").unwrap();
    std::fs::write(path("c.toml"), "\n").unwrap();
    let said = fmt(directory.path(), &["--check", "."]);
    assert_eq!(said, (Some(1), "./b.toml\n./c.toml\n".into(), String::new()));
    assert_eq!(std::fs::read_to_string(path("b.toml")).unwrap(), "x=1");
}

#[test]
fn a_written_file_keeps_its_mode_and_a_link_stays_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("real.toml"), "x=1").unwrap();
    std::fs::set_permissions(path("real.toml"), PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real.toml", path("fleet.toml")).unwrap();
    assert_eq!(fmt(directory.path(), &[]).0, Some(0));
    assert!(std::fs::symlink_metadata(path("fleet.toml")).unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(path("real.toml")).unwrap(), "x = 1\n");
    let mode = std::fs::metadata(path("real.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn what_is_not_toml_is_shown_where_it_stands_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.toml"), "x=1").unwrap();
    let bad = "[server]\nunknown = 1\n\n[forge.github]\ntoken = \"env:T\nscopes = []\n";
    std::fs::write(path("b.toml"), bad).unwrap();
    let (code, out, err) = fmt(directory.path(), &["."]);
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    assert!(err.starts_with("./b.toml:5:"), "{err}");
    assert!(err.contains(" 5 | ") && err.contains('^') && err.ends_with("1 problem\n"), "{err}");
    assert_eq!(std::fs::read_to_string(path("a.toml")).unwrap(), "x=1");
    assert_eq!(std::fs::read_to_string(path("b.toml")).unwrap(), bad);
    assert_eq!(fmt(directory.path(), &["none.toml"]).0, Some(66));
}
