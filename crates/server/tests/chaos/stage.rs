//! A sandbox, servers that are killed and started again, and what is done to them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use remuda_sandbox::{Config, JobId, Times};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Length;
use crate::common::{Estate, Served, processes_below};
use crate::tally::Tally;

/// Jobs of one submission.
const BATCH: u64 = 25;
/// Longer than a lease lasts.
const PAST_THE_LEASE: Duration = Duration::from_millis(10_500);
/// The longest that one thing may take to come about.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks where nothing tells.
const LOOK: Duration = Duration::from_millis(20);

/// Chances: the same seed, the same draws.
pub(crate) struct Chances(u64);

impl Chances {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

/// Everything that plays.
pub(crate) struct Stage {
    estate: Estate,
    server: Option<Served>,
    submitted: Vec<JobId>,
    batches: usize,
    pub(crate) tally: Tally,
}

impl Stage {
    pub(crate) async fn put_up(length: &Length) -> Self {
        // A runner that died without a word is missed soon.
        let times = Times { runner_silence: Duration::from_secs(5), ..Times::default() };
        let estate = Estate::new(Config { times, seed: length.seed, ..Config::default() }).await;
        let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
        let fleet = fleet.replace("max = 6", &format!("max = {}", length.runners));
        let fleet = fleet.replace("cap = 20", "cap = 1000");
        std::fs::write(estate.fleet(), fleet).unwrap();
        let server = Some(estate.serve());
        let tally = Tally::default();
        let mut stage = Self { estate, server, submitted: Vec::new(), batches: 0, tally };
        stage.decides(Instant::now()).await;
        stage
    }

    /// Submits jobs until so many are open.
    pub(crate) fn keeps_open(&mut self, wanted: u64) {
        let seen = self.estate.sandbox.statistics();
        let mut open = seen.jobs_in("queued") + seen.jobs_in("in_progress");
        while open < wanted {
            let count = BATCH.min(wanted - open);
            let text = self.workflow(count);
            let owner = ["acme", "solo"][self.batches % 2];
            let runs = self.estate.sandbox.submit(owner, "app", &text, 1).unwrap();
            self.submitted.extend(runs.into_iter().flat_map(|run| run.job_ids));
            open += count;
        }
    }

    fn workflow(&mut self, jobs: u64) -> String {
        self.batches += 1;
        let numbers: Vec<_> = (0..jobs).map(|n| n.to_string()).collect();
        format!(
            r"
name: chaos
on: push
jobs:
  work:
    runs-on: [self-hosted, linux]
    strategy:
      fail-fast: false
      matrix: {{ n: [{numbers}] }}
    steps:
      - run: echo begin {batch}-${{{{ matrix.n }}}} >> {diary}
      - run: sleep 0.$((RANDOM % 9 + 1))
      - run: echo end {batch}-${{{{ matrix.n }}}} >> {diary}
",
            numbers = numbers.join(", "),
            batch = self.batches,
            diary = self.diary().display(),
        )
    }

    fn diary(&self) -> PathBuf {
        self.estate.path("diary")
    }

    fn instances(&self) -> PathBuf {
        self.estate.state().join("instances/local")
    }

    pub(crate) fn log(&self) -> String {
        let log = self.estate.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    /// Lets some jobs end, as many as chance has it.
    pub(crate) async fn moment(&self, chances: &mut Chances) {
        let sandbox = &self.estate.sandbox;
        let next = sandbox.statistics().jobs_in("completed") + chances.below(6) as u64;
        let reached = sandbox.wait_until(|seen| seen.jobs_in("completed") >= next);
        // With nobody left to run them, none may end.
        let _ = tokio::time::timeout(Duration::from_secs(1), reached).await;
    }

    /// SIGKILL, and a new server at once. Now and then it is asked when it decides.
    pub(crate) async fn kills_a_server(&mut self, chances: &mut Chances) {
        self.server.take().unwrap().kill();
        self.tally.servers_killed += 1;
        self.server = Some(self.estate.serve());
        if chances.below(3) == 0 {
            self.decides(Instant::now()).await;
        }
    }

    /// Waits for a server's first turn.
    async fn decides(&mut self, begun: Instant) {
        self.until("a first decision", async |stage: &Self| {
            let shown = metrics(stage.estate.listen).await;
            value(&shown, "remuda_leader") == Some(1.0)
                && value(&shown, "remuda_turn_seconds_count") >= Some(1.0)
        })
        .await;
        self.tally.decided = self.tally.decided.max(begun.elapsed());
    }

    /// SIGKILL to any one process of any one instance: the shim, the runner, a step.
    pub(crate) fn kills_in_a_runner(&mut self, chances: &mut Chances) {
        let all = processes_below(&self.instances());
        let Some(pid) = all.get(chances.below(all.len())) else { return };
        let Some(runner) = self.runner_of(*pid) else { return };
        let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { return };
        // Struck even if it ends just now by itself: what becomes of its job proves nothing.
        self.tally.struck.insert(runner);
        if kill_process(pid, Signal::KILL).is_ok() {
            self.tally.killed_in_runners += 1;
        }
    }

    /// The name of the runner whose instance a process belongs to.
    fn runner_of(&self, pid: u32) -> Option<String> {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let instances = self.instances();
        let number = cwd.strip_prefix(&instances).ok()?.components().next()?;
        let record = std::fs::read(instances.join(number).join("instance.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        Some(record["runner"].as_str()?.to_owned())
    }

    /// SIGSTOP to the leader until its lease has run out, then SIGCONT: it must lead again, in a new term.
    pub(crate) async fn stops_the_leader(&mut self) {
        self.until("somebody leads", async |stage: &Self| epoch(stage).await > Some(0.0)).await;
        let before = epoch(self).await;
        let server = self.server.as_ref().unwrap();
        server.signal(Signal::STOP);
        tokio::time::sleep(PAST_THE_LEASE).await;
        server.signal(Signal::CONT);
        self.tally.stops += 1;
        self.until("a new term", async |stage: &Self| epoch(stage).await > before).await;
    }

    async fn until(&self, what: &str, reached: impl AsyncFn(&Self) -> bool) {
        let mut tick = tokio::time::interval(LOOK);
        let begun = Instant::now();
        while !reached(self).await {
            assert!(begun.elapsed() < PATIENCE, "{what} was not reached\n{}", self.log());
            tick.tick().await;
        }
    }

    /// Waits for the end of every job and of all that served them, and counts.
    pub(crate) async fn comes_to_rest(&mut self) -> Tally {
        let jobs = self.submitted.len() as u64;
        let patience = Duration::from_mins(3) + Duration::from_millis(200 * jobs);
        let ended = self
            .estate
            .sandbox
            .wait_until(|seen| seen.jobs_in("completed") == jobs && seen.runners.registered == 0);
        // Whatever is not reached is found by counting.
        let _ = tokio::time::timeout(patience, ended).await;
        let mut tick = tokio::time::interval(LOOK);
        let begun = Instant::now();
        while !self.left().is_empty() && begun.elapsed() < PATIENCE {
            tick.tick().await;
        }
        self.tally.leaked = self.left();
        let reports: Vec<_> =
            self.submitted.iter().filter_map(|id| self.estate.sandbox.job(*id)).collect();
        let diary = self.diary();
        self.tally.count(&reports, &diary);
        self.tally.clone()
    }

    /// Registrations, instances and processes there still are.
    fn left(&self) -> Vec<String> {
        let instances = self.instances();
        let mut left: Vec<_> = self.estate.sandbox.runners().into_iter().map(|r| r.name).collect();
        left.extend(processes_below(&instances).iter().map(|pid| format!("process {pid}")));
        let entries = std::fs::read_dir(&instances).into_iter().flatten().flatten();
        let names: BTreeSet<_> = entries.map(|entry| entry.file_name()).collect();
        let names = names.into_iter().filter(|name| name != ".cache");
        left.extend(names.map(|name| Path::new(&name).display().to_string()));
        left
    }

    pub(crate) async fn strike(mut self) {
        assert_eq!(self.server.take().unwrap().stop(), Some(0), "{}", self.log());
        self.estate.sandbox.close().await;
    }
}

/// The epoch of the lease that the server holds; 0 if it stands by, nothing if it does not answer.
async fn epoch(stage: &Stage) -> Option<f64> {
    value(&metrics(stage.estate.listen).await, "remuda_lease_epoch")
}

/// What a server shows of itself; empty if it does not answer.
async fn metrics(address: SocketAddr) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let asked = tokio::time::timeout(Duration::from_secs(2), asked).await;
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
