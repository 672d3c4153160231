//! `remuda bench plan`: how long the planner thinks, and how that grows with the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use remuda_core::fleet::{Fleet, Process, Provider, ProviderKind, Tenants, Terms};
use remuda_core::job::{Attempt, Job, JobKey, JobState, Title, Trust};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{
    ForgeName, ImageName, InstallationId, Login, PoolName, ProviderName, RepositoryName,
};
use remuda_core::pool::{Audience, Gather, Limits, Needs, Pool};
use remuda_core::runner::{
    Instance, InstanceId, InstanceState, LaunchCall, Purpose, Registration, Runner, RunnerId,
    RunnerState, Since,
};
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};
use remuda_core::{Change, Snapshot, Timestamp, plan};

use super::super::table::cell;
use super::{Json, rounded};
use crate::exit::Exit;

const JOBS: [u64; 3] = [1_000, 10_000, 100_000];
const POOLS: u64 = 1_000;
const RUNNERS: u64 = 10_000;
const TENANTS: u64 = 200;
/// Label sets that one tenant uses.
const HABITS: u64 = 20;
/// One of so many tenants' habits asks for labels that no pool offers.
const ODD: u64 = 50;
/// Two below are free in each pool, so that there is something to decide.
const POOL_MAX: u32 = 12;
const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

/// Time for one plan, with 1k, 10k and 100k queued jobs
///
/// The jobs of 200 tenants, in 4,000 kinds, meet 10,000 runners in 1,000 pools. Most pools have room
/// for two more runners, which the plan makes; the other jobs wait, each with its reason. The time is
/// the median of several plans.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda bench plan --json")]
pub(super) struct Plan {
    /// Plans of which the median is taken
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    #[command(flatten)]
    json: Json,
}

struct Case {
    jobs: u64,
    ms: f64,
    made: usize,
    waiting: usize,
}

impl Plan {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let cases = JOBS.map(|jobs| self.measure(jobs));
        let mut rows = Vec::new();
        let mut objects = Vec::new();
        let mut before: Option<f64> = None;
        for case in &cases {
            let growth = before.map_or(String::new(), |before| format!("{:.1}x", case.ms / before));
            before = Some(case.ms);
            rows.push(vec![
                cell(case.jobs),
                cell(RUNNERS),
                cell(POOLS),
                cell(case.made),
                cell(case.waiting),
                cell(format!("{:.2}", case.ms)),
                cell(growth),
            ]);
            objects.push(serde_json::json!({
                "jobs": case.jobs,
                "runners": RUNNERS,
                "pools": POOLS,
                "ms": rounded(case.ms, 3),
            }));
        }
        self.json.show(
            &["JOBS", "RUNNERS", "POOLS", "RUNNERS CHANGED", "WAITS", "MS", "GROWTH"],
            &rows,
            &serde_json::json!({ "cases": objects }),
        )?;
        Ok(Exit::Done)
    }

    fn measure(&self, jobs: u64) -> Case {
        let world = world(jobs);
        let mut times = Vec::new();
        let (mut made, mut waiting) = (0, 0);
        for _ in 0..self.repeats {
            let begun = Instant::now();
            let plan = plan(&world);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            let runner = |change: &&Change| matches!(change, Change::Runner(_));
            made = plan.changes.iter().filter(runner).count();
            waiting = plan.waits.len();
        }
        times.sort_by(f64::total_cmp);
        Case { jobs, ms: times[times.len() / 2], made, waiting }
    }
}

fn world(jobs: u64) -> Snapshot {
    let installation = InstallationId::new("bench").expect("the name is plain");
    let mut world = Snapshot::new(installation, Arc::new(fleet()));
    world.now = NOW;
    world.apply(&tenants());
    world.apply(&runners(&world.installation.clone()));
    world.apply(&(0..jobs).map(job).collect::<Vec<_>>());
    world
}

fn forge() -> ForgeName {
    ForgeName::new("github").expect("the name is plain")
}

fn provider() -> ProviderName {
    ProviderName::new("farm").expect("the name is plain")
}

fn pool_name(pool: u64) -> PoolName {
    PoolName::new(&format!("pool-{pool}")).expect("the name is plain")
}

fn login(tenant: u64) -> Login {
    Login::new(&format!("org-{tenant}")).expect("the name is plain")
}

fn scope(tenant: u64) -> Scope {
    Scope::Organization(login(tenant))
}

fn tenant_key(tenant: u64) -> TenantKey {
    TenantKey { forge: forge(), kind: OwnerKind::Organization, id: tenant }
}

fn labels(pool: u64) -> LabelSet {
    let own = format!("kind-{pool}");
    LabelSet::parse(["self-hosted", "linux", &own]).expect("the labels are plain")
}

fn fleet() -> Fleet {
    let process = Process { directory: None, node: None, capacity: BTreeMap::new() };
    let farm = Provider {
        name: provider(),
        kind: ProviderKind::Process(process),
        max: None,
        launches_max: 100,
        launch_deadline: std::time::Duration::from_mins(1),
        poll: std::time::Duration::from_secs(30),
        absent: std::time::Duration::from_mins(1),
    };
    let pool = |pool| Pool {
        name: pool_name(pool),
        forge: forge(),
        scopes: Vec::new(),
        group: None,
        labels: labels(pool),
        provider: provider(),
        image: ImageName::new("runner").expect("the name is plain"),
        needs: Needs::default(),
        min_idle: 0,
        max: POOL_MAX,
        gather: Gather::default(),
        limits: Limits::default(),
        audience: Audience::Anyone,
    };
    Fleet {
        providers: [(provider(), farm)].into(),
        pools: (0..POOLS).map(|number| (pool_name(number), pool(number))).collect(),
        tenants: Tenants {
            default: Terms { cap: u32::MAX, ..Terms::default() },
            ..Tenants::default()
        },
        ..Fleet::default()
    }
}

fn tenants() -> Vec<Change> {
    let tenant = |number| Tenant { key: tenant_key(number), login: login(number) };
    (0..TENANTS).map(|number| Change::Tenant(Box::new(tenant(number).into()))).collect()
}

/// Ten in each pool: seven busy, one idle, one starting, one not begun.
fn runners(installation: &InstallationId) -> Vec<Change> {
    let mut changes = Vec::new();
    for number in 1..=RUNNERS {
        let (pool, place) = (number % POOLS, number / POOLS);
        let (state, instance_state) = match place {
            0..=6 => (RunnerState::Busy, InstanceState::Live),
            7 => (RunnerState::Idle, InstanceState::Live),
            8 => (RunnerState::Starting, InstanceState::Live),
            _ => (RunnerState::Pending, InstanceState::Planned),
        };
        let mut since = Since::default();
        since.enter(state, NOW);
        changes.push(Change::Runner(Box::new(Runner {
            id: RunnerId(number),
            name: Runner::name_for(installation, &pool_name(pool), RunnerId(number)),
            pool: pool_name(pool),
            forge: forge(),
            scope: scope(habitue(pool)),
            group: None,
            labels: labels(pool),
            instance: InstanceId(number),
            state,
            since,
            registration: Registration::Made(number),
            job: None,
            job_ended_at: None,
            outcome: None,
            hold: None,
        })));
        changes.push(Change::Instance(Box::new(Instance {
            id: InstanceId(number),
            provider: provider(),
            pool: pool_name(pool),
            purpose: Purpose::Runner(RunnerId(number)),
            needs: Needs::default(),
            node: None,
            epoch: 1,
            state: instance_state,
            created_at: NOW,
            launch: (instance_state > InstanceState::Planned).then_some(LaunchCall {
                at: NOW,
                deadline: NOW,
                answered_at: Some(NOW),
            }),
            exit: None,
            missing_since: None,
            destroyed_at: None,
            gone_at: None,
        })));
    }
    let next = RUNNERS + 1;
    changes.push(Change::Next { runner: RunnerId(next), instance: InstanceId(next) });
    changes
}

/// The pool that a tenant's jobs of one habit ask for.
fn habit(tenant: u64, habit: u64) -> u64 {
    (tenant * (POOLS / TENANTS) + habit * 37) % POOLS
}

/// A tenant that uses the pool.
fn habitue(pool: u64) -> u64 {
    pool / (POOLS / TENANTS)
}

fn job(number: u64) -> Change {
    let kind = number % (TENANTS * HABITS);
    let (tenant, custom) = (kind % TENANTS, kind / TENANTS);
    let odd = kind.is_multiple_of(ODD);
    let wanted = if odd { POOLS + kind } else { habit(tenant, custom) };
    let at = Timestamp::from_millis(NOW.as_millis() - i64::try_from(number).unwrap_or(0));
    Change::Job(Box::new(Job {
        key: JobKey::rest(&forge(), number),
        tenant: tenant_key(tenant),
        scope: scope(tenant),
        repository: Repository {
            owner: login(tenant),
            name: RepositoryName::new("app").expect("the name is plain"),
        },
        wanted: Wanted::AllOf(labels(wanted)),
        trust: Trust::Unknown,
        title: Title::default(),
        accepted_at: at,
        attempt: Attempt {
            number: 1,
            state: JobState::Queued,
            runner: None,
            conclusion: None,
            queued_at: at,
            started_at: None,
            completed_at: None,
            fact_at: at,
        },
        past_runners: Vec::new(),
        doubt: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_that_is_measured_is_in_order_and_asks_for_decisions() {
        let world = world(4_000);
        assert_eq!(remuda_core::check(&world).first(), None);
        let plan = plan(&world);
        assert_eq!(plan.waits.len(), 4_000, "every queued job has its reasons");
        assert!(plan.changes.len() > 2_000, "{} rows", plan.changes.len());
    }
}
