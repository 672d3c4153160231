//! `remuda demo` as a user runs it: what it says, and that nothing of it stays.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Starts the demo with its temporary directory in `place`.
fn demo(place: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_remuda"))
        .arg("demo")
        .args(args)
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn result(output: &Output) -> Value {
    let text = str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| {
        panic!("{error}: {text:?} {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Whatever is in `place`, and processes that were told of it.
fn left_behind(place: &Path) -> (usize, Vec<String>) {
    let wanted = place.as_os_str().as_encoded_bytes();
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            if bytes.windows(wanted.len()).any(|window| window == wanted) {
                processes.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    (std::fs::read_dir(place).unwrap().count(), processes)
}

#[test]
fn every_job_ends_and_nothing_is_left() {
    let place = tempfile::tempdir().unwrap();
    let output = demo(place.path(), &["--jobs", "10", "--json"]).wait_with_output().unwrap();
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    for (key, value) in [("jobs", 10), ("completed", 10), ("failed", 1), ("lost", 0), ("leaked", 0)]
    {
        assert_eq!(result[key], value, "{key} of {result}");
    }
    assert_eq!(result["runners_created"], result["runners_removed"]);
    assert!(result["queue_to_start_ms"]["max"].as_i64() > Some(0), "{result}");
    assert_eq!(left_behind(place.path()), (0, vec![]));
}

#[test]
fn hardship_loses_no_job_and_leaks_no_runner() {
    let place = tempfile::tempdir().unwrap();
    let args = ["--jobs", "20", "--hardship", "--json"];
    let output = demo(place.path(), &args).wait_with_output().unwrap();
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    assert_eq!((&result["completed"], &result["lost"]), (&20.into(), &0.into()), "{result}");
    assert_eq!(left_behind(place.path()), (0, vec![]));
}

#[test]
fn ctrl_c_in_mid_burst_cleans_up() {
    let place = tempfile::tempdir().unwrap();
    let mut child = demo(place.path(), &["--jobs", "200"]);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.contains("200 queued") || first.contains("done"), "{first}");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None), "{rest:?}");
    assert_eq!(left_behind(place.path()), (0, vec![]));
}

#[test]
fn a_workflow_that_cannot_be_run_is_refused_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ci.yml");
    let text = "jobs: {build: {runs-on: linux, steps: [{uses: actions/checkout@v4}]}}\n";
    std::fs::write(&file, text).unwrap();
    let output = demo(place.path(), &["--workflow", file.to_str().unwrap()]);
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("jobs.build.steps[0].uses"), "{said}");
    assert!(output.stdout.is_empty());
}
