//! A sandbox, servers that are killed and started again, and what is done to them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use remuda_sandbox::{Config, JobId, Times};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Length;
use crate::common::shared::{Database, Front};
use crate::common::{Estate, Served, free_address, left_in, processes_below};
use crate::tally::Tally;

/// Jobs of one submission.
const BATCH: u64 = 25;
/// Longer than a lease lasts.
const PAST_THE_LEASE: Duration = Duration::from_millis(10_500);
/// The longest from a server's start to its first decision, once it may lead.
const DECIDED_MAX: Duration = Duration::from_secs(5);
/// The longest until a replica takes the lease of one that died.
const TAKEN_MAX: Duration = Duration::from_secs(11);
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

/// A server, and how to start it again.
struct Server {
    state: PathBuf,
    listen: SocketAddr,
    process: Option<Served>,
}

/// Everything that plays.
pub(crate) struct Stage {
    estate: Estate,
    servers: Vec<Server>,
    _front: Option<Front>,
    submitted: Vec<JobId>,
    batches: usize,
    pub(crate) tally: Tally,
}

impl Stage {
    /// One server on a file of its own, or two on a database.
    pub(crate) async fn put_up(length: &Length, database: Option<&Database>) -> Self {
        // A runner that died without a word is missed soon.
        let times = Times { runner_silence: Duration::from_secs(5), ..Times::default() };
        let estate = Estate::new(Config { times, seed: length.seed, ..Config::default() }).await;
        match database {
            Some(database) => estate.shares(&database.url()),
            None => estate.places_instances(),
        }
        let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
        let fleet = fleet.replace("max = 6", &format!("max = {}", length.runners));
        let fleet = fleet.replace("cap = 20", "cap = 1000");
        std::fs::write(estate.fleet(), fleet).unwrap();
        let listens = match database {
            Some(_) => vec![free_address(), free_address()],
            None => vec![estate.listen],
        };
        let front = match database {
            Some(_) => Some(Front::before(estate.listen, listens.clone()).await),
            None => None,
        };
        let servers = (0_u8..).zip(listens).map(|(number, listen)| {
            let state = estate.path(&format!("state-{number}"));
            let process = Some(estate.serve_at(&state, listen));
            Server { state, listen, process }
        });
        let servers: Vec<_> = servers.collect();
        let taken = if servers.len() > 1 { TAKEN_MAX } else { Duration::ZERO };
        let tally = Tally { decided_max: taken + DECIDED_MAX, ..Tally::default() };
        let (submitted, batches) = (Vec::new(), 0);
        let mut stage = Self { estate, servers, _front: front, submitted, batches, tally };
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
        self.estate.path("instances")
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
        let chosen = chances.below(self.servers.len());
        let server = &mut self.servers[chosen];
        server.process.take().unwrap().kill();
        server.process = Some(self.estate.serve_at(&server.state, server.listen));
        self.tally.servers_killed += 1;
        if chances.below(3) == 0 {
            self.decides(Instant::now()).await;
        }
    }

    /// Waits until somebody leads who has had a first turn.
    async fn decides(&mut self, begun: Instant) {
        self.until("a first decision", async |stage: &Self| {
            let Some(leader) = stage.leader().await else { return false };
            let shown = metrics(stage.servers[leader].listen).await;
            value(&shown, "remuda_turn_seconds_count") >= Some(1.0)
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

    async fn leader(&self) -> Option<usize> {
        for (number, server) in self.servers.iter().enumerate() {
            if value(&metrics(server.listen).await, "remuda_leader") == Some(1.0) {
                return Some(number);
            }
        }
        None
    }

    /// The epoch in which somebody leads.
    async fn epoch(&self) -> Option<f64> {
        let shown = metrics(self.servers[self.leader().await?].listen).await;
        value(&shown, "remuda_lease_epoch")
    }

    /// SIGSTOP to the leader until its lease has run out, then SIGCONT: there must be a new term.
    pub(crate) async fn stops_the_leader(&mut self) {
        self.until("somebody leads", async |stage: &Self| stage.epoch().await.is_some()).await;
        let before = self.epoch().await;
        let Some(leader) = self.leader().await else { return };
        let process = self.servers[leader].process.as_ref().unwrap();
        process.signal(Signal::STOP);
        tokio::time::sleep(PAST_THE_LEASE).await;
        process.signal(Signal::CONT);
        self.tally.stops += 1;
        self.until("a new term", async |stage: &Self| stage.epoch().await > before).await;
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
        let mut left = left_in(&self.instances());
        left.extend(self.estate.sandbox.runners().into_iter().map(|runner| runner.name));
        left
    }

    pub(crate) async fn strike(mut self) {
        for server in std::mem::take(&mut self.servers) {
            assert_eq!(server.process.unwrap().stop(), Some(0), "{}", self.log());
        }
        self.estate.sandbox.close().await;
    }
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
