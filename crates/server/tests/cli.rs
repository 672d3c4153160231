//! The command line as people and scripts meet it: the real binary, its output and its exit codes, and
//! a real server with a sandbox GitHub where a verb needs one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Estate, REMUDA, Served};
use remuda_sandbox::Config;
use serde_json::Value;

/// How long the server may take to get anywhere, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a run of the program came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// The first words of each line of a table, without its header.
    fn first_column(&self) -> Vec<&str> {
        self.out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
    }

    /// Asserts the exit code and that standard error says each of these.
    #[track_caller]
    fn refused(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let mut lines = self.err.lines().skip_while(|line| line.contains(" INFO "));
        assert!(lines.next().is_some_and(|line| line.starts_with("error: ")), "{self:?}");
        for text in said {
            assert!(self.err.contains(text), "{text:?} is not said: {}", self.err);
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The program on a state directory, in an environment in which nothing else is set.
fn program(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(REMUDA);
    command.args(args).current_dir(repository());
    for name in ["NO_COLOR", "COLUMNS", "CLICOLOR", "CLICOLOR_FORCE", "REMUDA_LOG"] {
        command.env_remove(name);
    }
    command.env("REMUDA_STATE", state).env("USER", "ann").env("TERM", "xterm");
    command
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn remuda(state: &Path, args: &[&str]) -> Ran {
    ran(program(state, args))
}

/// A state directory that no server has ever used.
fn nowhere() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    (directory, state)
}

/// A sandbox and a server; nothing of them is left when it is dropped.
struct Site {
    estate: Estate,
    server: RefCell<Option<Served>>,
}

impl Site {
    /// Ends the server; its exit code.
    fn stop(&self) -> Option<i32> {
        self.server.take().and_then(Served::stop)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.server.take());
        common::end_processes_below(self.estate.directory.path());
    }
}

/// A running server whose pool `small` keeps a runner idle.
async fn served() -> Site {
    let estate = Estate::new(Config::default()).await;
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    let fleet =
        fleet.replace("[pool.small]", "[pool.small]\nmin_idle = 1\nscopes = [\"org:acme\"]");
    std::fs::write(estate.fleet(), fleet).unwrap();
    let server = RefCell::new(Some(estate.serve()));
    Site { estate, server }
}

/// Asks for rows until they are as wanted.
#[track_caller]
fn rows(estate: &Estate, args: &[&str], wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let seen = remuda(&estate.state(), &[args, &["-o", "json"]].concat());
        if seen.code == 0 {
            let rows = seen.json().as_array().unwrap().clone();
            if wanted(&rows) {
                return rows;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "not in time: {seen:?}\n{}", estate.log());
    }
}

fn with<'a>(rows: &'a [Value], key: &'a str, value: &'a str) -> impl Iterator<Item = &'a Value> {
    rows.iter().filter(move |row| row[key] == value)
}

/// Jobs in every situation: two run until a file `gate` is there, one waits for their pool, one asks
/// for what no pool has, and one is over. Gives all jobs.
fn situations(estate: &Estate) -> Vec<Value> {
    let gate = estate.path("gate");
    let text = format!(
        "name: CI\non: push\njobs:\n  board:\n    runs-on: [self-hosted, linux, rvv]\n    \
         strategy:\n      matrix: {{ n: [1, 2, 3] }}\n    steps:\n      \
         - run: while [ ! -e {} ]; do sleep 0.1; done\n  \
         nowhere:\n    runs-on: [self-hosted, mars]\n    steps:\n      - run: 'true'\n  \
         quick:\n    runs-on: [self-hosted, linux]\n    steps:\n      - run: 'false'\n",
        gate.display()
    );
    estate.sandbox.submit("acme", "app", &text, 1).unwrap();
    let jobs = rows(estate, &["get", "jobs", "--all"], |jobs| {
        let because = |text: &str| {
            let mut queued = with(jobs, "state", "queued");
            queued.any(|job| job["reasons"] == serde_json::json!([text]))
        };
        with(jobs, "state", "in_progress").count() == 2
            && with(jobs, "state", "completed").count() == 1
            && because("pool rvv is full")
    });
    // From here on nothing moves by itself: two runners are at work, and the next one idles.
    rows(estate, &["get", "runners"], |runners| {
        let count = |state| with(runners, "state", state).count();
        (runners.len(), count("busy"), count("idle")) == (3, 2, 1)
    });
    jobs
}

/// What the socket answers, byte for byte.
fn raw(state: &Path, path: &str) -> Value {
    let mut socket = UnixStream::connect(state.join("remuda.sock")).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}

fn keys(row: &Value) -> Vec<&str> {
    row.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_knows_is_shown_as_tables_and_as_the_very_rows_of_its_api() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    let jobs = situations(estate);
    let get = |args: &[&str]| remuda(&state, &[&["get"], args].concat());

    assert_eq!(get(&["jobs", "--all", "-o", "json"]).json(), raw(&state, "/v1/jobs?all=true"));
    assert_eq!(get(&["pools", "-o", "json"]).json(), raw(&state, "/v1/pools"));
    let id = jobs[0]["id"].as_str().unwrap();
    let explained = remuda(&state, &["explain", "job", id, "-o", "json"]).json();
    assert_eq!(explained["job"], raw(&state, &format!("/v1/jobs/{id}"))["job"]);
    assert_eq!(remuda(&state, &["describe", "job", id, "-o", "json"]).json(), jobs[0]);
    assert_eq!(
        keys(&jobs[0]),
        [
            "attempt",
            "completed_at",
            "conclusion",
            "id",
            "labels",
            "name",
            "queued_at",
            "reasons",
            "repository",
            "runner",
            "started_at",
            "state",
            "workflow"
        ]
    );

    let open = get(&["jobs"]);
    assert_eq!(open.first_column().len(), 4, "the ended one is left out: {}", open.out);
    let header: Vec<_> = open.out.lines().next().unwrap().split("  ").map(str::trim).collect();
    let header: Vec<_> = header.into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(header, ["JOB", "STATE", "AGE", "REPOSITORY", "NAME", "RUNNER OR REASON"]);
    assert!(open.out.contains("pool rvv is full"), "{}", open.out);
    let all = get(&["jobs", "--all"]);
    assert_eq!(
        all.first_column(),
        jobs.iter().map(|j| j["id"].as_str().unwrap()).collect::<Vec<_>>()
    );
    assert!(all.out.contains(" failure "), "{}", all.out);
    assert!(!all.out.contains('\u{1b}') && !all.out.lines().any(|line| line.ends_with(' ')));

    let pools = get(&["pools"]);
    assert_eq!(pools.first_column(), ["rvv", "small"]);
    let rvv: Vec<_> = pools.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(rvv[1..6], ["2/2", "0", "0", "2", "local"]);
    let busy = get(&["runners", "-o", "json"]).json();
    assert_eq!(with(busy.as_array().unwrap(), "state", "busy").count(), 2);

    for args in [&["get", "jobs", "--all"][..], &["get", "runners"], &["get", "pools"], &["doctor"]]
    {
        let mut narrow = program(&state, args);
        narrow.env("COLUMNS", "80");
        let narrow = ran(narrow);
        let longest = narrow.out.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(narrow.code == 0 && longest <= 80, "{args:?} is {longest} wide:\n{}", narrow.out);
    }
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_story_is_told_with_its_reasons_its_pool_and_what_has_happened() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    let jobs = situations(estate);
    let explain = |job: &Value| {
        let mut command = program(&state, &["explain", "job", job["id"].as_str().unwrap()]);
        command.env("COLUMNS", "80");
        ran(command)
    };
    let queued = |label: &str| {
        let labelled = |job: &&Value| job["labels"].as_array().unwrap().contains(&label.into());
        with(&jobs, "state", "queued").find(labelled).unwrap().clone()
    };

    let full = explain(&queued("rvv"));
    assert_eq!(full.code, 0);
    for line in [
        "Why it is not running",
        "  pool_full  pool rvv is full",
        "  pool  rvv: 2 of at most 2 instances; runners: 0 starting, 0 idle, 2 busy",
        "What has happened since 2",
        "  +0.000s  job github/",
    ] {
        assert!(full.out.lines().any(|l| l.starts_with(line)), "{line:?} is not in\n{}", full.out);
    }
    let lost = explain(&queued("mars"));
    assert!(lost.out.contains("  no_pool_has_labels  no pool of this scope"), "{}", lost.out);
    assert!(lost.out.contains("lacks mars") && lost.out.contains("  asks for  "), "{}", lost.out);

    let running = explain(with(&jobs, "state", "in_progress").next().unwrap());
    let words = ["is in_progress for ", "  runner  ", "has a job", " runs, runner "];
    for word in words {
        assert!(running.out.contains(word), "{word:?} is not in\n{}", running.out);
    }
    let ended = explain(with(&jobs, "state", "completed").next().unwrap());
    assert!(ended.out.contains("is over, ended ") && ended.out.contains(" ago: failure\n"));
    assert!(ended.out.contains("is over: failure"), "{}", ended.out);
    for text in [&full, &lost, &running, &ended] {
        assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
    }
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_pools_and_providers_are_explained_by_codes_that_have_a_meaning() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    situations(estate);
    let runners =
        rows(estate, &["get", "runners"], |rows| with(rows, "state", "busy").count() == 2);
    let busy = with(&runners, "state", "busy").next().unwrap();
    let (id, name) = (busy["id"].to_string(), busy["name"].as_str().unwrap());
    for (about, name, expected) in [
        ("runner", name, &["running_job"][..]),
        ("pool", "rvv", &["pool_full", "wanted"]),
        ("provider", "local", &["answering"]),
    ] {
        let told = remuda(&state, &["explain", about, name, "-o", "json"]).json();
        assert_eq!(
            keys(&told),
            ["about", "events", "id", "job", "pools", "reasons", "runners"],
            "{about}"
        );
        let reasons = told["reasons"].as_array().unwrap();
        let codes: Vec<_> = reasons.iter().map(|row| row["code"].as_str().unwrap()).collect();
        assert_eq!(codes, expected, "{about}");
        assert_eq!(keys(&reasons[0]), ["actor", "code", "cure", "next", "since", "text"]);
        let mut command = program(&state, &["explain", about, name]);
        command.env("COLUMNS", "80");
        let told = ran(command).out;
        assert!(told.contains("How it stands:") && told.contains(expected[0]), "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
        for code in codes {
            let meaning = remuda(&state, &["explain", "code", code]);
            assert!(meaning.code == 0 && meaning.out.contains("ends when"), "{meaning:?}");
        }
    }
    let events = remuda(&state, &["explain", "runner", &id, "-o", "json"]).json();
    assert!(events["events"].as_array().unwrap().len() > 2, "{events}");
    assert!(remuda(&state, &["get", "providers"]).out.contains("answering"));
    remuda(&state, &["explain", "pool", "big"]).refused(66, &["no pool big", "remuda get pools"]);
    remuda(&state, &["explain", "code", "tired"]).refused(66, &["no code \"tired\"", "pool_full"]);
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_holds_releases_and_drains_a_runner_and_reads_its_output() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    situations(estate);
    let is_idle = |rows: &[Value]| with(rows, "state", "idle").next().is_some();
    let runners = rows(estate, &["get", "runners"], is_idle);
    let idle = with(&runners, "state", "idle").next().unwrap();
    let busy = with(&runners, "state", "busy").next().unwrap();
    let (id, name) = (idle["id"].to_string(), idle["name"].as_str().unwrap());
    let order = |args: &[&str]| remuda(&state, args);
    let hold = || order(&["describe", "runner", &id, "-o", "json"]).json()["hold"].clone();

    assert_eq!(order(&["hold", &id, "--why", "looking at it"]).code, 0);
    assert_eq!(hold(), "ann: looking at it");
    assert!(order(&["get", "runners"]).out.contains("held by ann: looking at it"));
    let released = order(&["release", name]);
    assert_eq!((released.code, released.out), (0, format!("runner {id} is released\n")));
    assert_eq!(hold(), Value::Null);
    assert_eq!(order(&["release", &id]).out, format!("runner {id} is not held\n"));

    let log = order(&["logs", &id]);
    assert!(log.code == 0 && log.out.contains("Listening for Jobs"), "{log:?}");

    let left_alone = order(&["drain", &busy["id"].to_string()]);
    left_alone.refused(1, &["has a job, github/", "removed afterwards"]);
    assert_eq!(order(&["drain", &id]).code, 0);
    let gone =
        |rows: &[Value]| rows.iter().any(|row| row["id"] == idle["id"] && row["state"] == "gone");
    let after = rows(estate, &["get", "runners", "--all"], gone);
    let drained = after.iter().find(|row| row["id"] == idle["id"]).unwrap();
    assert_eq!(drained["outcome"], "ordered");
    order(&["hold", &id, "--why", "x"]).refused(1, &["is gone"]);
    assert_eq!(order(&["hold", &id, "--why", " "]).code, 64);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn a_directory_of_fleet_files_is_one_fleet_and_its_problems_name_the_file() {
    let (directory, state) = nowhere();
    let fleet = directory.path().join("fleet");
    std::fs::create_dir(&fleet).unwrap();
    let shown = fleet.display().to_string();
    remuda(&state, &["validate", &shown]).refused(1, &["holds no fleet file"]);
    let laptop = std::fs::read_to_string(repository().join("examples/laptop.toml")).unwrap();
    let (head, pools) = laptop.split_at(laptop.find("[pool.").unwrap());
    std::fs::write(fleet.join("10-base.toml"), head).unwrap();
    std::fs::write(fleet.join("20-pools.toml"), pools).unwrap();
    std::fs::write(fleet.join(".hidden.toml"), "x").unwrap();
    let good = remuda(&state, &["validate", &shown]);
    assert!(good.code == 0 && good.out.contains("in order"), "{good:?}");
    std::fs::write(fleet.join("20-pools.toml"), pools.replace("labels", "labls")).unwrap();
    let bad = remuda(&state, &["validate", &shown]);
    assert!(bad.code == 1 && bad.err.contains("/20-pools.toml:2:1: pool"), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_holds_its_allocator_to_two_arenas_and_its_runners_to_nothing() {
    let site = served().await;
    rows(&site.estate, &["get", "runners"], |rows| with(rows, "state", "idle").next().is_some());
    let held = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        environment.split(|byte| *byte == 0).any(|entry| entry == b"MALLOC_ARENA_MAX=2")
    };
    assert!(held(site.server.borrow().as_ref().unwrap().pid()));
    let runners = site.estate.processes();
    assert!(!runners.is_empty() && !runners.into_iter().any(held));
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_drains_and_resumes_a_pool_and_the_job_says_so() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    situations(estate);
    let order = |args: &[&str]| remuda(&state, args);
    let pool = "small";
    assert_eq!(order(&["drain", "pool", pool, "--why", "a new disk"]).code, 0);
    let restricted = order(&["get", "restrictions", "-o", "json"]).json();
    assert_eq!(restricted[0]["what"], format!("pool {pool}"));
    assert_eq!(restricted[0]["because"], "ann: a new disk");
    let left = |rows: &[Value]| with(rows, "state", "idle").next().is_none();
    rows(estate, &["get", "runners"], left);
    let doctor = order(&["doctor"]);
    assert!(doctor.out.contains(&format!("remuda resume pool {pool}")), "{doctor:?}");
    let resumed = order(&["resume", "pool", pool]);
    assert_eq!((resumed.code, resumed.out), (0, format!("pool {pool} is in use again\n")));
    assert_eq!(order(&["get", "restrictions", "-o", "json"]).json(), serde_json::json!([]));
    order(&["drain", "pool", "no-such", "--why", "x"]).refused(66, &["there is no pool no-such"]);
    order(&["release", "node", "no-slash"]).refused(66, &["PROVIDER/NODE"]);
    assert_eq!(order(&["drain"]).code, 64);
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_to_be_missing_and_what_to_do() {
    let site = served().await;
    let estate = &site.estate;
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    let state = estate.state();
    rows(estate, &["get", "runners"], |rows| !rows.is_empty());
    let empty = remuda(&state, &["get", "jobs"]);
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert_eq!(empty.err, "no job is open; `--all` shows those that have ended\n");
    assert_eq!(remuda(&state, &["get", "jobs", "-o", "json"]).out, "[]\n");

    remuda(&state, &["explain", "job", "99"]).refused(66, &["no job 99", "remuda get jobs --all"]);
    remuda(&state, &["describe", "runner", "99"]).refused(66, &["no runner 99"]);
    remuda(&state, &["logs", "nobody"]).refused(66, &["no runner \"nobody\""]);
    remuda(&state, &["describe", "pool", "big"]).refused(66, &["but rvv, small"]);
    remuda(&state, &["explain", "job", "../pools"]).refused(64, &["FORGE/NUMBER"]);
    assert_eq!(site.stop(), Some(0));

    // A second forge that is the same sandbox: its jobs have the same numbers.
    let (forge, rest) = (fleet.find("[forge.github]").unwrap(), fleet.find("[provider").unwrap());
    let twin = fleet[forge..rest].replace("forge.github", "forge.mirror");
    let both = fleet.replace("\nlabels", "\nforge = \"github\"\nlabels");
    std::fs::write(estate.fleet(), format!("{both}\n{twin}")).unwrap();
    site.server.replace(Some(estate.serve()));
    let text = "jobs: { a: { runs-on: mars, steps: [{ run: 'true' }] } }";
    let job = estate.sandbox.submit("acme", "app", text, 1).unwrap()[0].job_ids[0].to_string();
    rows(estate, &["get", "jobs"], |jobs| jobs.len() == 2);
    let said = [format!("github/{job}"), format!("mirror/{job}")];
    let ambiguous = remuda(&state, &["explain", "job", &job]);
    ambiguous.refused(64, &[&said[0], &said[1]]);
    assert_eq!(remuda(&state, &["explain", "job", &said[1]]).code, 0);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn without_a_server_every_question_ends_with_69_and_says_how_to_get_one() {
    let (_directory, state) = nowhere();
    for args in [
        &["get", "jobs"][..],
        &["describe", "runner", "1"],
        &["explain", "job", "1"],
        &["logs", "1"],
        &["hold", "1", "--why", "x"],
        &["release", "1"],
        &["drain", "1"],
    ] {
        let place = state.display().to_string();
        remuda(&state, args).refused(69, &[&place, "remuda.sock", "remuda serve", "--state"]);
    }
    std::fs::create_dir(&state).unwrap();
    drop(std::os::unix::net::UnixListener::bind(state.join("remuda.sock")).unwrap());
    remuda(&state, &["get", "jobs"]).refused(69, &["nobody listens at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_looks_with_a_server_and_without() {
    let site = served().await;
    let estate = &site.estate;
    let state = estate.state();
    rows(estate, &["get", "runners"], |rows| !rows.is_empty());
    let doctor = |args: &[&str]| remuda(&state, &[&["doctor", "-o", "json"], args].concat());
    let levels = |ran: &Ran, what: &str| -> Vec<String> {
        let found: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
        with(&found, "what", what).map(|f| f["level"].as_str().unwrap().to_owned()).collect()
    };
    let well = doctor(&[]);
    assert_eq!(well.code, 0, "{well:?}");
    for what in ["state", "server", "books", "store"] {
        assert_eq!(levels(&well, what), ["ok"], "{what}: {well:?}");
    }
    assert_eq!(site.stop(), Some(0));

    let alone = doctor(&["--fleet", estate.fleet().to_str().unwrap()]);
    assert_eq!(alone.code, 69);
    assert_eq!(levels(&alone, "server"), ["warning"]);
    assert_eq!(levels(&alone, "fleet"), ["ok"]);
    // Readable, and so by others too, as the test has written them.
    assert!(levels(&alone, "App 1 of forge github").contains(&"ok".to_owned()), "{alone:?}");
    std::fs::remove_file(estate.path("hook")).unwrap();
    let lacking = doctor(&["--fleet", estate.fleet().to_str().unwrap()]);
    assert_eq!(lacking.code, 1, "{lacking:?}");
    assert!(lacking.out.contains("hook"), "{lacking:?}");

    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let open = doctor(&[]);
    assert_eq!((open.code, levels(&open, "state")), (1, vec!["error".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_on_another_machine_is_told_from_one_that_is_not_declared() {
    let estate = Estate::new(Config::default()).await;
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    let local = "[provider.local]\nkind = \"process\"";
    assert!(fleet.contains(local));
    let fleet = fleet.replace(local, &format!("{local}\nnode = \"far-away\""));
    std::fs::write(estate.fleet(), fleet).unwrap();
    let server = RefCell::new(Some(estate.serve()));
    let site = Site { estate, server };
    let (estate, state) = (&site.estate, site.estate.state());
    let text = "jobs: { a: { runs-on: [self-hosted, linux], steps: [{ run: 'true' }] } }";
    estate.sandbox.submit("acme", "app", text, 1).unwrap();
    let runners = rows(estate, &["get", "runners", "--all"], |rows| !rows.is_empty());
    let there = "provider local makes instances on far-away";

    remuda(&state, &["logs", &runners[0]["id"].to_string()]).refused(1, &[there]);
    let doctor = remuda(&state, &["doctor"]);
    assert!(doctor.out.contains(there), "{doctor:?}");
    let explained = remuda(&state, &["explain", "provider", "local", "-o", "json"]).json();
    let told = explained["reasons"][0]["text"].as_str().unwrap();
    assert!(told.contains(there) && told.contains("before a replica there leads"), "{told}");
    assert_eq!(site.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_start_says_what_stands_in_its_way() {
    let site = served().await;
    let estate = &site.estate;
    rows(estate, &["get", "runners"], |rows| !rows.is_empty());
    let fleet = estate.fleet().display().to_string();
    let taken = estate.listen.to_string();
    let (_directory, other) = nowhere();
    remuda(&other, &["serve", "--fleet", &fleet, "--listen", &taken])
        .refused(1, &["cannot listen on", &taken, "--listen"]);
    let state = estate.state();
    remuda(&state, &["serve", "--fleet", &fleet, "--listen", "127.0.0.1:0"])
        .refused(1, &["another server (process ", "is running on", "--state"]);
    assert_eq!(site.stop(), Some(0));

    let port = remuda(&other, &["serve", "--fleet", &fleet, "--listen", "1.2.3.4:99999"]);
    port.refused(64, &["1.2.3.4:99999", "--listen"]);
    let missing = other.join("no-such.toml").display().to_string();
    remuda(&other, &["serve", "--fleet", &missing]).refused(66, &["no-such.toml"]);
    remuda(&other, &["validate", &missing]).refused(66, &["no-such.toml"]);
    std::fs::write(estate.fleet(), "[forge.github]\ntoken = \"s3cret\"\n").unwrap();
    let bad = remuda(&other, &["serve", "--fleet", &fleet]);
    assert_eq!(bad.code, 1);
    assert!(bad.err.contains("fleet.toml:2:9: ") && !bad.err.contains("s3cret"), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_books_are_locked_doctor_says_since_when() {
    let site = served().await;
    let state = site.estate.state();
    rows(&site.estate, &["get", "runners"], |rows| !rows.is_empty());
    let books = rusqlite::Connection::open(state.join("remuda.db")).unwrap();
    books.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Something to write down.
    let mut order =
        program(&state, &["drain", "pool", "small", "--why", "to see"]).spawn().unwrap();
    let begun = Instant::now();
    let said = loop {
        let asked = Instant::now();
        let said = remuda(&state, &["doctor"]);
        assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        if said.out.contains("the store has failed since 20") {
            break said;
        }
        assert!(begun.elapsed() < PATIENCE, "{said:?}\n{}", site.estate.log());
    };
    assert_eq!(said.code, 1, "{said:?}");
    remuda(&state, &["get", "runners"]).refused(1, &["the store has failed since 20"]);
    books.execute_batch("ROLLBACK").unwrap();
    order.wait().unwrap();
    rows(&site.estate, &["get", "runners"], |rows| !rows.is_empty());
    assert_eq!(site.stop(), Some(0));
}

/// A child of a server that was killed has its address and its lock until it has executed another program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_a_little_for_what_its_killed_predecessor_still_has() {
    let estate = Estate::new(Config::default()).await;
    std::fs::create_dir(estate.state()).unwrap();
    let lock = std::fs::File::create(estate.state().join("remuda.lock")).unwrap();
    lock.lock().unwrap();
    let address = std::net::TcpListener::bind(estate.listen).unwrap();
    let mut server = estate.serve();
    let mut waits_for = |what: &str| {
        let begun = Instant::now();
        while !estate.log().contains(&format!("waits for another process to let go of {what}")) {
            assert!(!server.has_ended() && begun.elapsed() < PATIENCE, "{what}: {}", estate.log());
        }
    };
    waits_for(&estate.listen.to_string());
    drop(address);
    waits_for(&estate.state().join("remuda.lock").display().to_string());
    drop(lock);
    rows(&estate, &["get", "pools"], |rows| !rows.is_empty());
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_are_carried_over_once_no_server_works_on_them() {
    let site = served().await;
    let state = site.estate.state();
    rows(&site.estate, &["get", "runners"], |rows| !rows.is_empty());
    let file = site.estate.directory.path().join("books.jsonl");
    let name = file.to_str().unwrap();
    assert_eq!(remuda(&state, &["store", "check"]).code, 0);
    remuda(&state, &["store", "export", name])
        .refused(1, &["another server (process ", ") is running on"]);
    assert_eq!(site.stop(), Some(0));

    let done = remuda(&state, &["store", "export", name]);
    assert!(done.code == 0 && done.out.ends_with(" rows\n"), "{done:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    remuda(&state, &["store", "export", name]).refused(1, &["cannot make", "exists"]);
    let (_directory, other) = nowhere();
    remuda(&other, &["store", "check"]).refused(66, &["there are no books at"]);
    assert_eq!(remuda(&other, &["store", "import", name]).out, done.out);
    remuda(&other, &["store", "import", name]).refused(1, &["is not empty"]);
    let again = remuda(&other, &["store", "export", "-"]);
    assert_eq!(again.out, std::fs::read_to_string(&file).unwrap());
    // It notes when it was.
    let checked = remuda(&other, &["store", "check"]);
    assert!(checked.code == 0 && checked.out.ends_with(", 0 wrong\n"), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colour_is_for_those_who_want_it() {
    let site = served().await;
    let estate = &site.estate;
    rows(estate, &["get", "runners"], |rows| !rows.is_empty());
    let painted = |variables: &[(&str, &str)]| {
        let mut command = program(&estate.state(), &["get", "runners"]);
        command.envs(variables.iter().copied());
        ran(command).out.contains('\u{1b}')
    };
    assert!(!painted(&[]), "standard output is a pipe");
    assert!(painted(&[("CLICOLOR_FORCE", "1")]));
    assert!(!painted(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    let mut error = program(&estate.state(), &["describe", "pool", "x"]);
    error.env("CLICOLOR_FORCE", "1");
    assert!(ran(error).err.contains("\u{1b}[1;31merror"));
    assert_eq!(site.stop(), Some(0));
}

/// Every verb with the examples of its help, in the order of the help. A family of verbs may leave them to
/// its members.
fn examples(command: &clap::Command, found: &mut Vec<(String, Vec<String>)>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = after.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
        let lines = lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() || !verb.has_subcommands() {
            found.push((verb.get_name().to_owned(), lines));
        }
        examples(verb, found);
    }
}

/// The words of a line of the shell in which only double quotes are special.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (part, quoted) in line.split('"').zip([false, true].into_iter().cycle()) {
        if quoted {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        words.last_mut().unwrap().push_str(pieces.next().unwrap());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_verbs_help_has_an_example_that_the_program_understands() {
    assert_eq!(words("a b \"c d\" -e"), ["a", "b", "c d", "-e"]);
    let mut found = Vec::new();
    examples(&remuda::cli::command(), &mut found);
    assert!(found.len() > 10);
    for (verb, lines) in found {
        // The sandbox's runner takes no argument and is started by a provider, not by people.
        assert!(!lines.is_empty() || verb == "runner", "the help of {verb} has no example");
        for line in lines {
            let words = words(&line);
            assert_eq!(words[0], "remuda", "{line}");
            let parsed = remuda::cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_that_ask_a_server_or_nobody_run() {
    let site = served().await;
    let estate = &site.estate;
    let jobs = situations(estate);
    let is_idle = |rows: &[Value]| with(rows, "state", "idle").next().is_some();
    let runners = rows(estate, &["get", "runners"], is_idle);
    let idle = with(&runners, "state", "idle").next().unwrap()["id"].to_string();
    let mut found = Vec::new();
    examples(&remuda::cli::command(), &mut found);
    let mut run = 0;
    let spare = tempfile::tempdir().unwrap();
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    std::fs::write(spare.path().join("fleet.toml"), fleet.replace("cap = 20", "cap = 7")).unwrap();
    // These run until they are ended, or long, or need a sandbox at the address of their example.
    let elsewhere = ["serve", "demo", "bench"];
    for line in found.iter().flat_map(|(_, lines)| lines) {
        let mut words = words(line);
        let key = words.get(2).is_some_and(|word| word == "key");
        if elsewhere.contains(&&*words[1]) || (words[1] == "sandbox" && !key) {
            continue;
        }
        for word in &mut words {
            match word.as_str() {
                "github/812" => *word = jobs[0]["id"].as_str().unwrap().into(),
                "42" if line.contains("--seed") => {}
                "42" => word.clone_from(&idle),
                "./state" | "./other" | "books.jsonl" | "fleet.toml" | "change.plan" => {
                    *word = spare.path().join(&*word).display().to_string();
                }
                _ => {}
            }
        }
        let args: Vec<_> = words[1..].iter().map(String::as_str).collect();
        let seen = remuda(&estate.state(), &args);
        let codes: &[i32] = match args[0] {
            // What the doctor says of the example's fleet is its business: the secrets are not there.
            "doctor" => &[0, 1],
            // It says that there are changes.
            "plan" => &[2],
            _ => &[0],
        };
        assert!(codes.contains(&seen.code), "{line}: {seen:?}");
        run += 1;
    }
    assert!(run > 15, "only {run} examples were run");
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn the_reconcile_bench_measures_what_it_says() {
    let (_directory, state) = nowhere();
    let args =
        ["bench", "reconcile", "--runners", "40", "--seconds", "2", "--repeats", "2", "--json"];
    let seen = remuda(&state, &args);
    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(seen.out.starts_with("RUNNERS "), "{seen:?}");
    let object: Value = serde_json::from_str(seen.out.lines().last().unwrap()).unwrap();
    let number = |key: &str| object[key].as_f64().unwrap();
    assert!((40.0..50.0).contains(&number("runners")), "{object}");
    for key in
        ["sweep_ms", "jobs_sweep_ms", "plan_ms", "base_bytes", "decisions", "decision_p99_ms_max"]
    {
        assert!(number(key) > 0.0, "{key}: {object}");
    }
}

#[test]
fn version_and_completions_need_nothing() {
    let (_directory, state) = nowhere();
    let version = remuda(&state, &["version", "-o", "json"]).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(keys(&version), ["arch", "build", "os", "version"]);
    let words = remuda(&state, &["version"]).out;
    assert!(words.starts_with(concat!("remuda ", env!("CARGO_PKG_VERSION"), " (")), "{words}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = remuda(&state, &["completions", shell]);
        assert!(script.code == 0 && script.out.contains("explain"), "{shell}");
    }
    assert_eq!(remuda(&state, &["completions", "tcl"]).code, 64);
    assert_eq!(remuda(&state, &["fly"]).code, 64);
    assert_eq!(remuda(&state, &[]).code, 64);
    assert_eq!(remuda(&state, &["--help"]).code, 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (_directory, state) = nowhere();
    let line = format!("'{REMUDA}' completions bash | head -n 1 >&2; echo ${{PIPESTATUS[0]}}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &line]).env("REMUDA_STATE", &state);
    let seen = ran(bash);
    assert_eq!(seen.out, "0\n", "{seen:?}");
    assert_eq!(seen.err.lines().count(), 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_handed_to_a_sandbox_from_the_command_line() {
    let estate = Estate::new(Config::default()).await;
    let (_directory, state) = nowhere();
    let at = estate.sandbox.url();
    let submit = |args: &[&str]| remuda(&state, &[&["sandbox", "submit"], args].concat());
    let seen = submit(&["acme/app", "examples/hello.yml", "--count", "2", "--at", &at]);
    assert_eq!((seen.code, seen.out.as_str()), (0, "2 run(s), 6 job(s)\n"), "{seen:?}");
    assert_eq!(estate.sandbox.jobs().len(), 6);
    submit(&["acme", "examples/hello.yml", "--at", &at]).refused(1, &["OWNER/REPOSITORY"]);
    submit(&["acme/none", "examples/hello.yml", "--at", &at]).refused(1, &["cannot submit"]);
    submit(&["acme/app", "no-such.yml", "--at", &at]).refused(66, &["no-such.yml"]);
    std::fs::write(estate.path("bad.yml"), "jobs: { a: { steps: [{ uses: x/y@v1 }] } }").unwrap();
    let bad = estate.path("bad.yml").display().to_string();
    submit(&["acme/app", &bad, "--at", &at]).refused(1, &["runs-on"]);
    submit(&["acme/app", "examples/hello.yml", "--at", "http://127.0.0.1:1"])
        .refused(1, &["no sandbox answers", "--at"]);
}
