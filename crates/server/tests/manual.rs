//! The documents are held to what they say: commands of the manual are run, and its tables are compared
//! with the source.
//!
//! In a fenced block, `sh run` must succeed, `sh until` is repeated until it does, and `sh start` is left
//! running to the end of the page. Of plain `sh` it is checked that the program understands it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{REMUDA, free_address};
use remuda_core::fleet::{Source, parse};

/// How long a block may be repeated, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_mins(2);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

/// The fenced blocks of a page: what is written after the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut inside: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), inside.as_mut()) {
            (Some(_), Some(_)) => found.extend(inside.take()),
            (Some(info), None) => inside = Some((info.to_owned(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a fence is left open");
    found
}

#[test]
fn blocks_are_told_by_their_fences() {
    let text = "a\n```sh run\nx\ny\n```\nb\n```toml\nz\n```\n";
    let block = |info: &str, text: &str| (info.to_owned(), text.to_owned());
    assert_eq!(blocks(text), [block("sh run", "x\ny\n"), block("toml", "z\n")]);
}

/// A directory in which a reader follows the manual, with the examples and ports of its own.
struct Desk {
    directory: tempfile::TempDir,
    sandbox: String,
    server: String,
    started: Vec<Child>,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sandbox, server) = (free_address().to_string(), free_address().to_string());
        let desk = Self { directory, sandbox, server, started: Vec::new() };
        for folder in ["bin", "examples"] {
            std::fs::create_dir(desk.path(folder)).unwrap();
        }
        std::os::unix::fs::symlink(REMUDA, desk.path("bin/remuda")).unwrap();
        for entry in std::fs::read_dir(repository().join("examples")).unwrap().flatten() {
            if !entry.file_type().unwrap().is_file() {
                continue;
            }
            let text = desk.moved(&std::fs::read_to_string(entry.path()).unwrap());
            std::fs::write(desk.path("examples").join(entry.file_name()), text).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text with our ports instead of the manual's.
    fn moved(&self, text: &str) -> String {
        text.replace("127.0.0.1:4000", &self.sandbox).replace("127.0.0.1:8080", &self.server)
    }

    fn bash(&self, text: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap();
        let mut places = vec![self.path("bin")];
        places.extend(std::env::split_paths(&path));
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.moved(text)])
            .current_dir(self.directory.path())
            .env("PATH", std::env::join_paths(places).unwrap())
            .env("REMUDA_STATE", self.path("state"))
            .env_remove("COLUMNS")
            .stdin(Stdio::null());
        bash
    }

    fn start(&mut self, text: &str) {
        let log = std::fs::File::create(self.path(&format!("{}.log", self.started.len()))).unwrap();
        let mut bash = self.bash(&format!("exec {text}"));
        bash.stdout(log.try_clone().unwrap()).stderr(log);
        self.started.push(bash.spawn().unwrap());
    }

    fn until(&self, text: &str) {
        let begun = Instant::now();
        loop {
            let output = self.bash(text).output().unwrap();
            if output.status.success() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", self.failure(text, &output));
        }
    }

    fn run(&self, text: &str) {
        let output = self.bash(text).output().unwrap();
        assert!(output.status.success(), "{}", self.failure(text, &output));
    }

    fn failure(&self, text: &str, output: &Output) -> String {
        let logs = (0..self.started.len())
            .map(|n| std::fs::read_to_string(self.path(&format!("{n}.log"))).unwrap_or_default());
        format!(
            "this block of the manual fails:\n{text}\n{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            logs.collect::<Vec<_>>().join("\n--\n")
        )
    }

    /// Asks everything that was started to end; their exit codes.
    fn close(mut self) -> Vec<Option<i32>> {
        let ended = std::mem::take(&mut self.started).into_iter().rev().map(|mut child| {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            child.wait().unwrap().code()
        });
        ended.collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
        common::end_processes_below(self.directory.path());
    }
}

/// The metrics that a server tells, by name.
fn metrics(server: &str) -> BTreeSet<String> {
    let mut socket = TcpStream::connect(server).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.into() })
        .collect()
}

#[test]
fn what_the_manual_says_to_run_runs_and_its_metrics_are_those_that_are_told() {
    let manual = page("docs/manual.md");
    let mut desk = Desk::new();
    let mut run = 0;
    for (info, text) in blocks(&manual) {
        match info.as_str() {
            "sh run" => desk.run(&text),
            "sh until" => desk.until(&text),
            "sh start" => desk.start(&text),
            _ => continue,
        }
        run += 1;
    }
    assert!(run > 6, "only {run} blocks were run");
    let told = metrics(&desk.server);
    assert!(told.len() > 8, "{told:?}");
    let written: BTreeSet<_> = column(&manual, "## Metrics").into_iter().collect();
    // What has not happened yet is not told.
    assert!(told.is_subset(&written), "told and not in the manual: {:?}", &told - &written);
    let source = include_str!("../src/metrics.rs");
    for name in &written {
        let name = name.trim_start_matches("remuda_").trim_end_matches("_total");
        assert!(source.contains(&format!("\"{name}\"")), "the manual has a metric {name}");
    }
    assert_eq!(desk.close(), [Some(0), Some(0)]);
}

/// The words in backticks in the first column of the first table after a heading.
fn column(page: &str, heading: &str) -> Vec<String> {
    let (_, rest) = page.split_once(&format!("{heading}\n")).expect("the page has the heading");
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    words.map(str::to_owned).collect()
}

#[test]
fn a_column_is_read_word_by_word() {
    let page = "## A\n\n| x | y |\n| --- | --- |\n| `a`, `b` | `c` |\n| d | |\n\n| `e` |\n";
    assert_eq!(column(page, "## A"), ["a", "b"]);
}

/// The text of doc comments that begin with one of our own marks, joined to one line each.
fn doc_comments(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in source.lines().map(str::trim) {
        match line.strip_prefix("/// ") {
            Some(text) if open => {
                let last = found.last_mut().expect("a comment is open");
                last.push(' ');
                last.push_str(text);
            }
            Some(text) => found.push(text.to_owned()),
            None => {}
        }
        open = line.starts_with("///");
    }
    found
}

#[test]
fn every_exit_code_is_in_the_manual_as_in_the_source() {
    let manual = page("docs/manual.md");
    let codes = doc_comments(include_str!("../src/exit.rs"));
    let codes: Vec<_> = codes.iter().filter_map(|text| text.split_once(": ")).collect();
    assert!(codes.len() > 5, "{codes:?}");
    let rows: Vec<_> = codes.iter().map(|(code, text)| format!("| {code} | {text} |")).collect();
    for row in &rows {
        assert!(manual.contains(row), "docs/manual.md lacks this row:\n{row}");
    }
    let (_, table) = manual.split_once("## Exit codes\n").unwrap();
    let table = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    assert_eq!(table.count(), rows.len() + 2, "the table has rows that the source has not");
}

#[test]
fn every_variable_is_in_the_manual_and_none_that_is_not_read() {
    let is_variable =
        |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let source = include_str!("../src/env.rs");
    let mut read: BTreeSet<String> = BTreeSet::new();
    for text in source.split("read(\"").skip(1) {
        read.extend(text.split('"').next().map(str::to_owned));
    }
    for text in doc_comments(source) {
        let words =
            text.split('`').map(|word| word.trim_start_matches('$')).filter(|w| is_variable(w));
        read.extend(words.map(str::to_owned));
    }
    // Read by the libraries that paint and by the provider, which passes three on.
    read.extend(["NO_COLOR", "CLICOLOR_FORCE", "PATH", "LANG", "TZ"].map(str::to_owned));
    let written: BTreeSet<String> = column(&page("docs/manual.md"), "## Environment")
        .into_iter()
        .filter(|word| is_variable(word))
        .collect();
    assert_eq!(written, read);
}

/// The program's words in a line of the shell, up to where the shell does something with the rest.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            }
            '|' | '>' | '#' | '&' | ';' if !quoted => break,
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[test]
fn the_program_understands_every_command_that_a_document_shows() {
    assert_eq!(words("remuda x \"a b\"  # c"), ["remuda", "x", "a b"]);
    let mut seen = 0;
    for name in ["docs/manual.md", "README.md", "CONTRIBUTING.md"] {
        for (info, text) in blocks(&page(name)) {
            if !info.starts_with("sh") {
                continue;
            }
            let text = text.replace("\\\n", " ");
            let lines = text.lines().map(str::trim);
            for line in lines.filter(|line| line.starts_with("remuda ") && !line.contains("$(")) {
                let parsed = remuda::cli::command().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were seen");
}

#[test]
fn fleet_files_that_a_document_shows_are_in_order() {
    let readme = page("README.md");
    let fleets: Vec<_> =
        blocks(&readme).into_iter().filter(|(info, _)| info == "toml").map(|(_, t)| t).collect();
    assert_eq!(fleets.len(), 1);
    parse(&[Source { name: "README.md", text: &fleets[0] }]).unwrap_or_else(|p| panic!("{p}"));
    for entry in std::fs::read_dir(repository().join("examples")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let name = entry.path().display().to_string();
            parse(&[Source { name: &name, text: &text }]).unwrap_or_else(|p| panic!("{p}"));
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut seen = 0;
    let decisions = std::fs::read_dir(repository().join("docs/decisions")).unwrap().flatten();
    let decisions = decisions.map(|e| format!("docs/decisions/{}", e.file_name().display()));
    let pages =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "docs/manual.md"];
    for name in pages.into_iter().map(str::to_owned).chain(decisions) {
        let text = page(&name);
        let place = repository().join(&name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !link.contains("://") && !file.is_empty() {
                assert!(place.parent().unwrap().join(file).exists(), "{name}: {link}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} links were seen");
}
