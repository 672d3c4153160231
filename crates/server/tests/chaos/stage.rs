//! A sandbox, servers that are killed and started again, and what is done to them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use remuda_sandbox::{Config, JobId, Times};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Length;
use crate::cluster::Cluster;
use crate::common::shared::Front;
use crate::common::{
    Estate, Served, a_while, burst, end_processes_below, free_address, left_in, processes_below,
};
use crate::tally::Tally;
use crate::wire::{Weather, Wire};

/// Jobs of one submission.
const BATCH: u64 = 25;
/// Longer than a lease lasts.
const PAST_THE_LEASE: Duration = Duration::from_millis(10_500);
/// The longest from a kill and a start in its place to a decision.
const DECIDED_MAX: Duration = Duration::from_secs(5);
/// The longest until another leads instead of one that is stopped or cut off: 13 s (decision 8), the start of a
/// term, and the time it takes us to see it.
const TAKEN_MAX: Duration = Duration::from_secs(16);
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

/// Most processes of runners that are killed at once.
const AT_ONCE_MAX: usize = 6;

/// A server, and how to start it again.
struct Server {
    fleet: PathBuf,
    state: PathBuf,
    listen: SocketAddr,
    process: Served,
}

impl Server {
    fn start(estate: &Estate, fleet: PathBuf, number: usize, listen: SocketAddr) -> Self {
        let state = estate.path(&format!("state-{number}"));
        let process = estate.serve_by(&fleet, &state, listen);
        Self { fleet, state, listen, process }
    }

    /// SIGKILL, and a new one in its place.
    fn restart(&mut self, estate: &Estate) {
        self.process.kill();
        self.process = estate.serve_by(&self.fleet, &self.state, self.listen);
    }
}

/// A database that two servers share, each over a wire of its own.
struct Shared {
    cluster: Cluster,
    wires: Vec<Wire>,
    _front: Front,
}

/// What a server shows of itself while it leads.
#[derive(Clone, Copy)]
struct Term {
    server: usize,
    epoch: u64,
    turns: u64,
}

/// Everything that plays.
pub(crate) struct Stage {
    estate: Estate,
    servers: Vec<Server>,
    shared: Option<Shared>,
    submitted: Vec<JobId>,
    batches: usize,
    pub(crate) tally: Tally,
}

impl Stage {
    /// One server on a file of its own, or two on a database.
    pub(crate) async fn put_up(length: &Length, cluster: Option<Cluster>) -> Self {
        // A runner that died without a word is missed soon.
        let times = Times { runner_silence: Duration::from_secs(5), ..Times::default() };
        let estate = Estate::new(Config { times, seed: length.seed, ..Config::default() }).await;
        let (servers, shared) = if let Some(cluster) = cluster {
            let (servers, shared) = Self::two(&estate, cluster, length).await;
            (servers, Some(shared))
        } else {
            estate.places_instances();
            admit(&estate, length);
            (vec![Server::start(&estate, estate.fleet(), 0, estate.listen)], None)
        };
        let tally = Tally { decided_max: DECIDED_MAX, taken_max: TAKEN_MAX, ..Tally::default() };
        let (submitted, batches) = (Vec::new(), 0);
        let mut stage = Self { estate, servers, shared, submitted, batches, tally };
        stage.decides(Instant::now()).await;
        stage
    }

    async fn two(estate: &Estate, cluster: Cluster, length: &Length) -> (Vec<Server>, Shared) {
        let listens = [free_address(), free_address()];
        estate.shares("");
        admit(estate, length);
        let (mut servers, mut wires) = (Vec::new(), Vec::new());
        for (number, listen) in listens.into_iter().enumerate() {
            let wire = Wire::to(cluster.address).await;
            let database = estate.path(&format!("database-{number}"));
            std::fs::write(&database, Cluster::url(wire.address)).unwrap();
            let fleet = estate.path(&format!("fleet-{number}.toml"));
            let text = std::fs::read_to_string(estate.fleet()).unwrap();
            let shared = format!("file:{}", estate.path("database").display());
            let own = format!("file:{}", database.display());
            std::fs::write(&fleet, text.replace(&shared, &own)).unwrap();
            servers.push(Server::start(estate, fleet, number, listen));
            wires.push(wire);
        }
        let front = Front::before(estate.listen, listens.to_vec()).await;
        (servers, Shared { cluster, wires, _front: front })
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
        let (batch, diary) = (self.batches, self.diary());
        let note = |what| format!("echo {what} {batch}-${{{{ matrix.n }}}} >> {}", diary.display());
        burst(usize::try_from(jobs).unwrap(), &[note("begin"), a_while(), note("end")])
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

    /// Something is killed, as chance has it.
    pub(crate) async fn strikes(&mut self, chances: &mut Chances) {
        match chances.below(20) {
            0..=6 => self.kills_a_server(chances).await,
            7 => self.kills_the_database(chances).await,
            _ => {
                for _ in 0..=chances.below(AT_ONCE_MAX) {
                    self.kills_in_a_runner(chances);
                }
            }
        }
        self.tends();
    }

    /// A server that has ended by itself is started again, as systemd would, and counted.
    fn tends(&mut self) {
        for server in &mut self.servers {
            if server.process.has_ended() {
                self.tally.gave_up += 1;
                server.restart(&self.estate);
            }
        }
    }

    /// SIGKILL to one or all, and new ones at once. Now and then it is asked when they decide.
    async fn kills_a_server(&mut self, chances: &mut Chances) {
        let (chosen, all) = (chances.below(self.servers.len()), chances.below(4) == 0);
        for (number, server) in self.servers.iter_mut().enumerate() {
            if all || number == chosen {
                server.restart(&self.estate);
                self.tally.servers_killed += 1;
            }
        }
        if chances.below(3) == 0 {
            self.decides(Instant::now()).await;
        }
    }

    /// SIGKILL to the postmaster, or what `pg_ctl` calls an immediate end; and a new one, which recovers.
    pub(crate) async fn kills_the_database(&mut self, chances: &mut Chances) {
        let signal = [Signal::KILL, Signal::QUIT][chances.below(2)];
        let Some(shared) = &mut self.shared else { return };
        shared.cluster.restart(signal).await;
        self.tally.databases_killed += 1;
        let begun = Instant::now();
        let before = self.terms().await;
        self.until("a turn after the database's restart", async |stage: &mut Self| {
            stage.tends();
            let is_later = |term: &Term| {
                let known = before.iter().find(|old| old.epoch == term.epoch);
                known.is_none_or(|old| term.turns > old.turns)
            };
            stage.terms().await.iter().any(is_later)
        })
        .await;
        self.tally.decided = self.tally.decided.max(begun.elapsed());
    }

    /// Waits until somebody leads who has had a first turn.
    async fn decides(&mut self, begun: Instant) {
        self.until("a first decision", async |stage: &mut Self| {
            stage.tends();
            stage.terms().await.iter().any(|term| term.turns >= 1)
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

    /// Who leads or believes to, the newest term first.
    async fn terms(&self) -> Vec<Term> {
        let mut terms = Vec::new();
        for (server, of) in self.servers.iter().enumerate() {
            let shown = metrics(of.listen).await;
            let epoch = value(&shown, "remuda_lease_epoch").filter(|epoch| *epoch > 0);
            let turns = value(&shown, "remuda_turn_seconds_count").unwrap_or_default();
            terms.extend(epoch.map(|epoch| Term { server, epoch, turns }));
        }
        terms.sort_by_key(|term| std::cmp::Reverse(term.epoch));
        terms
    }

    async fn leader(&mut self) -> Term {
        let mut found = None;
        self.until("somebody leads", async |stage: &mut Self| {
            stage.tends();
            found = stage.terms().await.first().copied();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// SIGSTOP to the leader until its lease has run out, then SIGCONT: there must be a new term.
    pub(crate) async fn stops_the_leader(&mut self) {
        let leader = self.leader().await;
        let (process, begun) = (&self.servers[leader.server].process, Instant::now());
        process.signal(Signal::STOP);
        tokio::time::sleep(PAST_THE_LEASE).await;
        process.signal(Signal::CONT);
        self.tally.stops += 1;
        self.a_new_term(leader, begun).await;
    }

    /// Takes the leader's network away until another leads; what it had sent may arrive afterwards.
    pub(crate) async fn cuts_the_leader_off(&mut self, weather: Weather) {
        let leader = self.leader().await;
        let turns = |stage: &Self, weather| {
            stage.shared.as_ref().map(|shared| shared.wires[leader.server].turns(weather))
        };
        let begun = Instant::now();
        if turns(self, weather).is_some() {
            self.a_new_term(leader, begun).await;
            turns(self, Weather::Fair);
            self.tally.cuts += 1;
        }
    }

    /// Takes everybody's network away for a moment.
    pub(crate) async fn cuts_all_off(&mut self, chances: &mut Chances) {
        let Some(shared) = &self.shared else { return };
        shared.wires.iter().for_each(|wire| wire.turns(Weather::Cut));
        self.moment(chances).await;
        let Some(shared) = &self.shared else { return };
        shared.wires.iter().for_each(|wire| wire.turns(Weather::Fair));
        self.tally.cuts += 1;
        self.decides(Instant::now()).await;
    }

    async fn a_new_term(&mut self, before: Term, begun: Instant) {
        self.until("a new term", async |stage: &mut Self| {
            stage.tends();
            stage.terms().await.first().is_some_and(|term| term.epoch > before.epoch)
        })
        .await;
        self.tally.taken = self.tally.taken.max(begun.elapsed());
    }

    async fn until(&mut self, what: &str, mut reached: impl AsyncFnMut(&mut Self) -> bool) {
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

    pub(crate) fn strike(mut self) {
        for server in std::mem::take(&mut self.servers) {
            assert_eq!(server.process.stop(), Some(0), "{}", self.log());
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        end_processes_below(&self.instances());
    }
}

/// Lets as many runners and jobs in as are played with.
fn admit(estate: &Estate, length: &Length) {
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    let fleet = fleet.replace("max = 6", &format!("max = {}", length.runners));
    std::fs::write(estate.fleet(), fleet.replace("cap = 20", "cap = 1000")).unwrap();
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

fn value(metrics: &str, name: &str) -> Option<u64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
