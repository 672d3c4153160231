//! Demand meets supply: tenants in turn, each tenant's oldest job first, and no job waits behind one that
//! is blocked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque, btree_set};
use std::sync::Arc;

use super::Plan;
use super::claims::{Claims, First};
use super::room::{Room, is_held_back, is_tried, unfit};
use super::turns::{Account, Place, Turns};
use crate::job::{JobKey, JobState};
use crate::label::{Label, Wanted};
use crate::name::{ForgeName, PoolName};
use crate::pool::{Gather, Pool};
use crate::reason::{Reason, Wait};
use crate::runner::{
    Instance, InstanceId, InstanceState, Outcome, Purpose, Registration, Runner, RunnerId,
    RunnerState, Since,
};
use crate::snapshot::{Change, Class, Snapshot};
use crate::tenant::Scope;
use crate::time::Timestamp;

/// Runners that could still take a job, by pool and scope; the soonest to be ready first.
type Supply<'a> = BTreeMap<(&'a PoolName, &'a Scope), VecDeque<Ready>>;

/// How soon a runner will be ready, and which: the order in which runners are counted on. A forge hands
/// a job to whatever is online, so readiness comes before the fit of the labels; and because runners
/// that a plan makes come last, the next plan counts on the same ones for the same jobs.
type Ready = (u8, RunnerId);

/// The first jobs of a tenant's lines, the oldest on top.
type Heads<'a> = BinaryHeap<Reverse<(&'a (Timestamp, JobKey), usize)>>;

/// One kind of job on its way through the plan.
struct Line<'a> {
    class: &'a Class,
    account: Account,
    /// Pools that could serve it, the fewest needless labels first.
    pools: Vec<&'a Pool>,
    jobs: btree_set::Iter<'a, (Timestamp, JobKey)>,
    /// The first job that no runner could be counted on for: how many wait from there on, and since when
    /// it does.
    short: Option<Short>,
    /// The first runners of those pools, as of when they were noted: others may have taken them since.
    fronts: BinaryHeap<Reverse<(Ready, usize)>>,
}

/// How many jobs of a kind no runner could be counted on for, and since when the first of them waits.
type Short = (usize, Timestamp);

/// What is left of a line that found no room: its jobs, the oldest first.
struct Blocked<'a> {
    class: &'a Class,
    account: Account,
    pools: Vec<&'a Pool>,
    jobs: Vec<&'a (Timestamp, JobKey)>,
}

struct Planner<'a> {
    world: &'a Snapshot,
    room: Room<'a>,
    turns: Turns<'a>,
    blocked: Vec<Blocked<'a>>,
    /// A second look shows more: a runner that was tried after failures is sent away, or one was made to
    /// idle that a job which waits for company could have.
    again: bool,
    supply: Supply<'a>,
    plan: Plan,
    next_runner: RunnerId,
    next_instance: InstanceId,
}

pub(super) fn serve(world: &Snapshot) -> Plan {
    let (mut plan, again) = once(world);
    if again {
        let mut next = world.clone();
        next.apply(&plan.changes);
        let (then, _) = once(&next);
        plan.changes.extend(then.changes);
        plan.waits = then.waits;
    }
    plan
}

fn once(world: &Snapshot) -> (Plan, bool) {
    let mut planner = Planner {
        world,
        room: Room::new(world),
        turns: Turns::new(world),
        blocked: Vec::new(),
        again: false,
        supply: supply(world),
        plan: Plan::default(),
        next_runner: world.next_runner,
        next_instance: world.next_instance,
    };
    planner.demand();
    planner.not_demand();
    planner.surplus();
    planner.explain();
    planner.plan.changes.extend(planner.turns.changes());
    if planner.next_runner != world.next_runner {
        let (runner, instance) = (planner.next_runner, planner.next_instance);
        planner.plan.changes.push(Change::Next { runner, instance });
    }
    (planner.plan, planner.again)
}

fn supply(world: &Snapshot) -> Supply<'_> {
    let mut supply = Supply::new();
    let soonest = [RunnerState::Idle, RunnerState::Starting, RunnerState::Pending];
    for (rank, state) in (0..).zip(soonest) {
        for runner in world.runners_in(state).filter(|runner| !is_held_back(world, runner)) {
            let of_kind = supply.entry((&runner.pool, &runner.scope)).or_default();
            of_kind.push_back((rank, runner.id));
        }
    }
    supply
}

impl<'a> Planner<'a> {
    fn demand(&mut self) {
        let mut lines = self.lines();
        let mut queues: BTreeMap<Account, Heads<'a>> = BTreeMap::new();
        for (index, line) in lines.iter_mut().enumerate() {
            let queue = queues.entry(line.account).or_default();
            queue.extend(line.jobs.next().map(|head| Reverse((head, index))));
        }
        let mut turns: BinaryHeap<Reverse<(Place<'a>, Account)>> = BinaryHeap::new();
        for (account, queue) in &queues {
            turns.extend(self.next_turn(*account, queue));
        }
        while let Some(Reverse((_, account))) = turns.pop() {
            let Some(queue) = queues.get_mut(&account) else { continue };
            let Some(Reverse((head, index))) = queue.pop() else { continue };
            let line = &mut lines[index];
            if let Some(coming) = self.serve_one(line, &head.1) {
                self.wait(&head.1, Arc::new([coming]));
                queue.extend(line.jobs.next().map(|head| Reverse((head, index))));
            } else {
                let jobs = std::iter::once(head).chain(line.jobs.by_ref()).collect();
                let (class, pools) = (line.class, std::mem::take(&mut line.pools));
                self.blocked.push(Blocked { class, account, pools, jobs });
            }
            turns.extend(self.next_turn(account, queue));
        }
    }

    fn lines(&mut self) -> Vec<Line<'a>> {
        let pools = Pools::new(self.world);
        let mut lines = Vec::new();
        for (class, jobs) in &self.world.queue {
            let (account, pools) = (self.turns.of(&class.tenant), pools.for_class(class));
            let fronts = pools.iter().enumerate().filter_map(|(index, pool)| {
                let of_kind = self.supply.get(&(&pool.name, &class.scope))?;
                let fit = unfit(pool, class.trust).is_none();
                of_kind.front().filter(|_| fit).map(|ready| Reverse((*ready, index)))
            });
            let fronts = fronts.collect();
            let jobs = jobs.iter();
            lines.push(Line { class, account, pools, jobs, short: None, fronts });
        }
        lines
    }

    /// The tenant's oldest job, where it stands in the order of service.
    fn next_turn(
        &self,
        account: Account,
        queue: &Heads<'a>,
    ) -> Option<Reverse<(Place<'a>, Account)>> {
        let Reverse(((queued_at, job), _)) = queue.peek()?;
        Some(Reverse((self.turns.place(account, *queued_at, job), account)))
    }

    fn wait(&mut self, job: &JobKey, reasons: Arc<[Reason]>) {
        self.plan.waits.push(Wait { job: job.clone(), reasons });
    }

    /// Finds a runner for the next job of a line, or makes one; none if nothing can be had.
    fn serve_one(&mut self, line: &mut Line<'a>, job: &JobKey) -> Option<Reason> {
        if let Some(id) = self.count_on(line) {
            let idle = self.world.runner(id).is_some_and(|r| r.state == RunnerState::Idle);
            return Some(if idle { Reason::RunnerIdle(id) } else { Reason::RunnerStarting(id) });
        }
        let Class { scope, trust, .. } = line.class;
        let short = *line.short.get_or_insert(self.short(line.jobs.len() + 1, job));
        if self.turns.at_cap(line.account).is_some() {
            return None;
        }
        let has_room = |pool: &&&Pool| {
            unfit(pool, *trust).is_none()
                && gathering(pool, short, self.world.now).is_none()
                && self.room.obstacles(pool, scope).is_empty()
        };
        let pool = *line.pools.iter().find(has_room)?;
        self.turns.turn(line.account);
        Some(Reason::RunnerStarting(self.make(pool, scope, line.account)))
    }

    fn short(&self, waiting: usize, first: &JobKey) -> Short {
        (waiting, self.world.job(first).map_or(self.world.now, |job| job.accepted_at))
    }

    /// Tells the jobs that found no room why, and who comes before them, as it is once this plan is
    /// carried out.
    fn explain(&mut self) {
        let (mut claims, mut all) = (Claims::default(), Vec::new());
        for line in std::mem::take(&mut self.blocked) {
            let Class { tenant, scope, wanted, trust } = line.class;
            let mut reasons = BTreeSet::new();
            if line.pools.is_empty() {
                let nearest = nearest(self.world, &tenant.forge, scope, wanted);
                reasons.insert(Reason::NoPoolHasLabels { wanted: wanted.clone(), nearest });
            }
            let mut sets = Vec::new();
            let short = line.jobs.first().map(|(_, job)| self.short(line.jobs.len(), job));
            let head = line.jobs.first().map(|(at, job)| self.turns.place(line.account, *at, job));
            for pool in &line.pools {
                let mut obstacles = self.room.obstacles(pool, scope);
                obstacles.extend(self.turns.capped(line.account));
                obstacles.extend(short.and_then(|short| gathering(pool, short, self.world.now)));
                let (set, unfit) =
                    (claims.set(self.world, pool, line.class, &obstacles), unfit(pool, *trust));
                if let Some(head) = head.filter(|_| unfit.is_none()) {
                    claims.lay_each(line.account, head, &set);
                }
                sets.push((&pool.name, set));
                reasons.extend(obstacles.into_iter().chain(unfit));
            }
            all.push((line.account, line.jobs, reasons, sets));
        }
        claims.close();
        for (account, jobs, reasons, sets) in all {
            let first = sets.iter().map(|(pool, set)| (*pool, claims.first(account, set)));
            self.tell(account, &jobs, &reasons, &first.collect::<Vec<_>>());
        }
    }

    /// Tells the jobs of a line; `first` has who comes first in each of its pools. The later a job, the
    /// more are before it.
    fn tell(
        &mut self,
        account: Account,
        jobs: &[&'a (Timestamp, JobKey)],
        reasons: &BTreeSet<Reason>,
        first: &[(&'a PoolName, First<'a>)],
    ) {
        let mut told: Option<(usize, Arc<[Reason]>)> = None;
        for (at, job) in jobs {
            let place = self.turns.place(account, *at, job);
            let before = |other: &Option<Place<'a>>| other.is_some_and(|other| other < place);
            let behind = first.iter().flat_map(|(pool, first)| {
                let others = before(&first.other).then(|| Reason::BehindOthers((*pool).clone()));
                others.into_iter().chain(before(&first.own).then_some(Reason::BehindOlder))
            });
            let count = first
                .iter()
                .map(|(_, first)| {
                    usize::from(before(&first.own)) + usize::from(before(&first.other))
                })
                .sum();
            let shared = match told.take() {
                Some((known, shared)) if known == count => shared,
                Some(_) | None => behind
                    .chain(reasons.iter().cloned())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
            };
            self.wait(job, Arc::clone(&shared));
            told = Some((count, shared));
        }
    }

    /// Takes the soonest ready of the runners that could take a line's next job.
    fn count_on(&mut self, line: &mut Line<'a>) -> Option<RunnerId> {
        while let Some(Reverse((ready, index))) = line.fronts.pop() {
            let place = (&line.pools[index].name, &line.class.scope);
            let Some(of_kind) = self.supply.get_mut(&place) else { continue };
            let found = of_kind.pop_front_if(|front| *front == ready);
            line.fronts.extend(of_kind.front().map(|front| Reverse((*front, index))));
            if let Some((_, id)) = found {
                return Some(id);
            }
        }
        None
    }

    /// One more runner, with the instance to carry it.
    fn make(&mut self, pool: &'a Pool, scope: &'a Scope, account: Account) -> RunnerId {
        let (id, instance) = (self.next_runner, self.next_instance);
        self.next_runner = RunnerId(id.0 + 1);
        self.next_instance = InstanceId(instance.0 + 1);
        let now = self.world.now;
        let mut since = Since::default();
        since.enter(RunnerState::Pending, now);
        let runner = Runner {
            id,
            name: Runner::name_for(&self.world.installation, &pool.name, id),
            pool: pool.name.clone(),
            forge: pool.forge.clone(),
            scope: scope.clone(),
            group: pool.group.clone(),
            labels: pool.labels.clone(),
            instance,
            state: RunnerState::Pending,
            since,
            registration: Registration::Unknown,
            job: None,
            job_ended_at: None,
            outcome: None,
            hold: None,
        };
        let instance = Instance {
            id: instance,
            provider: pool.provider.clone(),
            pool: pool.name.clone(),
            purpose: Purpose::Runner(id),
            needs: pool.needs.clone(),
            node: None,
            epoch: self.world.epoch,
            state: InstanceState::Planned,
            created_at: now,
            launch: None,
            exit: None,
            missing_since: None,
            destroyed_at: None,
            gone_at: None,
        };
        self.room.use_up(pool, scope);
        self.turns.hold(account);
        self.plan.changes.push(Change::Instance(Box::new(instance)));
        self.plan.changes.push(Change::Runner(Box::new(runner)));
        id
    }

    /// Open jobs that are not demand wait too, and are told why.
    fn not_demand(&mut self) {
        let world = self.world;
        for job in world.open.iter().filter_map(|key| world.job(key)) {
            let missing = job.doubt.and_then(|doubt| doubt.missing_since);
            let reason = match (job.attempt.state, missing) {
                (JobState::Waiting, _) => Reason::HeldByForge,
                (JobState::Queued, Some(since)) if !job.is_demand() => {
                    Reason::UnknownToForge { since }
                }
                (JobState::Queued | JobState::InProgress | JobState::Completed, _) => continue,
            };
            self.wait(&job.key, Arc::new([reason]));
        }
    }

    /// What no job needs, and what cannot be launched for now: kept up to `min_idle` in each listed
    /// scope, removed beyond it once it has idled long enough.
    fn surplus(&mut self) {
        let world = self.world;
        for runner in world.runners_in(RunnerState::Pending) {
            if let Some(pool) = world.fleet.pools.get(&runner.pool)
                && is_held_back(world, runner)
            {
                self.dismiss(pool, runner.id);
            }
        }
        let supply = std::mem::take(&mut self.supply);
        for ((pool, scope), runners) in &supply {
            let Some(declared) = self.world.fleet.pools.get(*pool) else { continue };
            let kept = if declared.scopes.contains(scope) { declared.min_idle } else { 0 };
            let kept = usize::try_from(kept).unwrap_or(usize::MAX);
            for (_, id) in runners.iter().skip(kept) {
                self.dismiss(declared, *id);
            }
        }
        for pool in self.world.fleet.pools.values().filter(|pool| pool.min_idle > 0) {
            for scope in &pool.scopes {
                let spare = supply.get(&(&pool.name, scope)).map_or(0, VecDeque::len);
                let missing = usize::try_from(pool.min_idle).unwrap_or(usize::MAX);
                self.top_up(pool, scope, missing.saturating_sub(spare));
            }
        }
    }

    fn top_up(&mut self, pool: &'a Pool, scope: &'a Scope, missing: usize) {
        let account = self.turns.of_scope(&pool.forge, scope);
        for _ in 0..missing {
            let blocked = self.turns.at_cap(account).is_some()
                || !self.room.obstacles(pool, scope).is_empty();
            if blocked {
                break;
            }
            self.make(pool, scope, account);
            let wants = |line: &Blocked<'_>| {
                let fits = line.pools.iter().any(|fit| fit.name == pool.name);
                fits && line.class.scope == *scope && unfit(pool, line.class.trust).is_none()
            };
            self.again |= self.blocked.iter().any(wants);
        }
    }

    fn dismiss(&mut self, pool: &Pool, id: RunnerId) {
        let world = self.world;
        let Some(runner) = world.runner(id) else { return };
        let never_called = world.instance(runner.instance).is_some_and(|i| i.launch.is_none());
        let idled = runner.since.at(RunnerState::Idle).is_some_and(|since| {
            runner.state == RunnerState::Idle && world.now.since(since) >= pool.limits.idle
        });
        if (never_called || idled) && runner.hold.is_none() {
            self.again |= is_tried(world, runner);
            let mut runner = runner.clone();
            runner.enter(RunnerState::Draining, Some(Outcome::Surplus), world.now);
            self.plan.changes.push(Change::Runner(Box::new(runner)));
        }
    }
}

/// What a pool that waits for company for its jobs has against those that are there.
fn gathering(pool: &Pool, (waiting, since): Short, now: Timestamp) -> Option<Reason> {
    let Gather { jobs, wait } = pool.gather;
    let until = since + wait;
    let few = u32::try_from(waiting).is_ok_and(|waiting| waiting < jobs) && now < until;
    few.then(|| Reason::Gathering { pool: pool.name.clone(), jobs, until })
}

/// Pools by the labels they offer, so that a class finds its pools without trying all of them.
struct Pools<'a> {
    all: Vec<&'a Pool>,
    offering: BTreeMap<&'a Label, Vec<&'a Pool>>,
}

impl<'a> Pools<'a> {
    fn new(world: &'a Snapshot) -> Self {
        let all: Vec<&Pool> = world.fleet.pools.values().collect();
        let mut offering: BTreeMap<&Label, Vec<&Pool>> = BTreeMap::new();
        for pool in &all {
            for label in pool.labels.iter() {
                offering.entry(label).or_default().push(pool);
            }
        }
        Self { all, offering }
    }

    fn for_class(&self, class: &Class) -> Vec<&'a Pool> {
        let Wanted::AllOf(labels) = &class.wanted;
        let none = Vec::new();
        let nearest = labels
            .iter()
            .map(|label| self.offering.get(label).unwrap_or(&none))
            .min_by_key(|pools| pools.len())
            .unwrap_or(&self.all);
        let mut fit: Vec<&Pool> = nearest
            .iter()
            .copied()
            .filter(|pool| serves(pool, &class.tenant.forge, &class.scope))
            .filter(|pool| class.wanted.satisfied_by(&pool.labels))
            .collect();
        fit.sort_by_key(|pool| pool.labels.len());
        fit
    }
}

fn serves(pool: &Pool, forge: &ForgeName, scope: &Scope) -> bool {
    pool.forge == *forge && (pool.scopes.is_empty() || pool.scopes.contains(scope))
}

/// The pool that lacks the fewest of the wanted labels, and which those are.
fn nearest(
    world: &Snapshot,
    forge: &ForgeName,
    scope: &Scope,
    wanted: &Wanted,
) -> Option<(PoolName, Arc<str>)> {
    let Wanted::AllOf(wanted) = wanted;
    let pools = world.fleet.pools.values().filter(|pool| serves(pool, forge, scope));
    let lacks = |pool: &Pool| wanted.iter().filter(|label| !pool.labels.contains(label)).count();
    let pool = pools.min_by_key(|pool| lacks(pool))?;
    let lacking = wanted.iter().filter(|label| !pool.labels.contains(label));
    let lacking: Vec<String> = lacking.map(Label::to_string).collect();
    Some((pool.name.clone(), lacking.join(", ").into()))
}
