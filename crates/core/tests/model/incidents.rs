//! Incidents of the field, by name: what has cost users of runner systems their jobs, their capacity or
//! their nights. Each story holds under the rules as they are, and fails with the rule taken away that
//! protects from it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use remuda_core::action::Look;
use remuda_core::budget::{Budget, Credential};
use remuda_core::job::Job;
use remuda_core::name::{Login, ProviderName};
use remuda_core::observation::{Call, Cause, Covered, Observation, Order, RunnerSeen, Subject};
use remuda_core::pool::Limits;
use remuda_core::runner::{Outcome, Runner, RunnerId, RunnerState};
use remuda_core::snapshot::{Change, Looked};
use remuda_core::tenant::TenantKey;
use remuda_core::{Action, Plan, Snapshot, actions, observe, plan, settle};

use crate::world::{Rulebook, SOUND, World, at, ended, fleet, forge, queued, runs, scope, seconds};

/// Tells a story under the rules as they are, and shows that it fails under the others.
fn holds(fleet_text: &str, story: fn(&mut World), without: Rulebook) {
    let world = |rules| {
        let mut fleet = fleet(fleet_text);
        for forge in fleet.forges.values_mut() {
            forge.scopes.push(scope("org:acme"));
        }
        World::ruled(fleet, rules)
    };
    story(&mut world(SOUND));
    let broken = catch_unwind(AssertUnwindSafe(|| story(&mut world(without))));
    assert!(broken.is_err(), "the story holds without its rule too");
}

/// The world with other rows.
fn bent(world: &Snapshot, changes: impl IntoIterator<Item = Change>) -> Snapshot {
    let changes: Vec<Change> = changes.into_iter().collect();
    let mut world = world.clone();
    world.apply(&changes);
    world
}

/// The world under a fleet whose pools have other limits.
fn limited(world: &Snapshot, change: fn(&mut Limits)) -> Snapshot {
    let mut fleet = (*world.fleet).clone();
    fleet.pools.values_mut().for_each(|pool| change(&mut pool.limits));
    let mut world = world.clone();
    world.fleet = Arc::new(fleet);
    world
}

fn row(runner: &Runner, state: RunnerState, outcome: Outcome, world: &Snapshot) -> Change {
    let mut runner = runner.clone();
    runner.enter(state, Some(outcome), world.now);
    Change::Runner(Box::new(runner))
}

const SMALL: &str = "pool small labels=linux max=1";

/// Market's pain 1: ubicloud PR#1042, actions-runner-controller #3953, terraform-aws-github-runner #3130.
#[test]
fn a_job_whose_webhook_was_never_sent_stays_queued_for_ever() {
    fn story(world: &mut World) {
        world.passes(1);
        world.lists_jobs("org:acme", vec![]);
        world.passes(120);
        assert!(world.looks().contains(&"jobs of org:acme".into()));
        world.lists_jobs("org:acme", vec![queued(1, "linux")]);
        assert_eq!(world.calls(), ["launch 1 of small"]);
    }
    fn only_webhooks(world: &Snapshot, seen: &Observation) -> Vec<Change> {
        if matches!(seen, Observation::Jobs { .. }) { Vec::new() } else { observe(world, seen) }
    }
    holds(SMALL, story, Rulebook { observe: only_webhooks, ..SOUND });
}

/// Market's pain 2; actions-runner-controller #4602: one runner that never registered blocked a set for
/// 54 minutes.
#[test]
fn arc_4602_a_runner_that_never_registers_counts_as_supply() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.launched(1);
        world.passes(299);
        assert_eq!((world.runner_is(1), world.why(1)), ("starting", vec!["runner_starting"]));
        world.passes(1);
        assert_eq!(world.runner_is(1), "draining");
        world.deregistered(1);
        world.passes(1);
        world.destroyed(1);
        world.passes(10);
        assert_eq!(world.runner_is(1), "gone");
        assert!(world.calls().contains(&"launch 2 of small".into()));
    }
    fn waits_for_ever(world: &Snapshot) -> Vec<Change> {
        settle(&limited(world, |limits| limits.boot = seconds(1_000_000)))
    }
    holds(SMALL, story, Rulebook { settle: waits_for_ever, ..SOUND });
}

/// Market's pain 3; terraform-aws-github-runner #5085: 22 jobs killed in three days on `busy: false`;
/// runner #4422: `busy` is false while the job's lease is renewed; gha-runner-ctl: `busy=0` is ambiguous.
#[test]
fn aws_tf_5085_a_busy_runner_that_is_listed_as_idle_is_scaled_down() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        world.hears(runs(1, "linux").on(1, "small"));
        world.calls();
        for minute in 0..60 {
            world.passes(60);
            // The listing says `busy: false`, then lacks the runner, for half an hour each.
            world.lists_runners("org:acme", if minute < 30 { &[1] } else { &[] });
            world.lists_instances("one", &[1], &[]);
        }
        assert_eq!((world.runner_is(1), world.calls()), ("busy", vec![]));
        world.hears(ended(1, "linux").on(1, "small"));
        assert_eq!(world.job_is(1), "completed");
    }
    fn believes_busy(world: &Snapshot, seen: &Observation) -> Vec<Change> {
        let mut changes = observe(world, seen);
        if let Observation::Runners { all, .. } = seen {
            let idle = |runner: &&Runner| all.iter().any(|s| s.name == runner.name && !s.busy);
            let busy = world.runners_in(RunnerState::Busy).filter(idle);
            changes.extend(busy.map(|r| row(r, RunnerState::Stopping, Outcome::Surplus, world)));
        }
        changes
    }
    holds(SMALL, story, Rulebook { observe: believes_busy, ..SOUND });
}

/// Market's pain 12: the evidence is gone with the runner (actions-runner-controller #156, runner #2624).
#[test]
fn the_instance_of_a_failed_job_is_gone_before_anybody_looked() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        world.hears(runs(1, "linux").on(1, "small"));
        let (runner, who, why) = (RunnerId(1), "ann".into(), "it fails".into());
        world.sees(Observation::Order(Order::Hold { runner, who, why }));
        world.hears(ended(1, "linux").on(1, "small"));
        world.calls();
        for _ in 0..60 {
            world.passes(60);
            world.lists_instances("one", &[1], &[]);
        }
        assert_eq!(world.calls(), Vec::<String>::new());
        world.sees(Observation::Order(Order::Release { runner }));
        world.passes(1);
        assert_eq!(world.calls(), ["destroy 1"]);
    }
    fn lets_go(world: &Snapshot) -> Vec<Change> {
        let free =
            |runner: &Runner| Change::Runner(Box::new(Runner { hold: None, ..runner.clone() }));
        settle(&bent(world, world.runners().map(free)))
    }
    holds(SMALL, story, Rulebook { settle: lets_go, ..SOUND });
}

/// Market's pain 13: an upgrade with other versions of the parts deleted every runner set (`pytorch`'s
/// fork of actions-runner-controller). Here: a fleet that no longer declares a pool.
#[test]
fn an_upgrade_that_forgets_a_pool_kills_its_running_jobs() {
    fn story(world: &mut World) {
        for id in [1, 2] {
            world.hears(queued(id, "linux"));
            world.comes_online(id);
        }
        world.hears(runs(1, "linux").on(1, "small"));
        world.controller.declare(Arc::new(fleet("pool other labels=mac provider=one")));
        world.calls();
        world.passes(1);
        assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "draining"));
        for _ in 0..60 {
            world.passes(60);
            world.lists_instances("one", &[1, 2], &[]);
        }
        assert_eq!(world.runner_is(1), "busy");
        assert!(!world.calls().iter().any(|call| call.starts_with("destroy")));
        world.hears(ended(1, "linux").on(1, "small"));
        world.passes(31);
        assert_eq!(world.calls(), ["destroy 1"]);
    }
    fn deletes_what_is_not_declared(world: &Snapshot) -> Vec<Change> {
        let unknown = |runner: &&Runner| !world.fleet.pools.contains_key(&runner.pool);
        let busy = world.runners_in(RunnerState::Busy).filter(unknown);
        let mut changes = settle(world);
        changes.extend(busy.map(|r| row(r, RunnerState::Stopping, Outcome::Surplus, world)));
        changes
    }
    holds(
        "pool small labels=linux max=2",
        story,
        Rulebook { settle: deletes_what_is_not_declared, ..SOUND },
    );
}

/// Market's pain 14: no fairness (runner #1665, woodpecker #1867). One tenant queues a flood, another one
/// job after it.
#[test]
fn one_tenants_flood_starves_the_others() {
    fn story(world: &mut World) {
        for id in 1..=50 {
            world.hears(queued(id, "linux"));
        }
        world.hears(queued(51, "linux").of("org:other"));
        for id in 1..=4 {
            world.comes_online(id);
            world.hears(runs(id, "linux").on(id, "small"));
        }
        world.hears(ended(1, "linux").on(1, "small"));
        world.passes(31);
        world.calls();
        world.destroyed(1);
        assert_eq!(world.calls(), ["launch 5 of small"]);
        assert_eq!(world.runner(5).scope, scope("org:other"));
    }
    fn one_line_for_all(world: &Snapshot) -> Plan {
        let key = |job: &Job| TenantKey { id: 7, ..job.tenant.clone() };
        let open: Vec<&Job> = world.jobs().filter(|job| job.is_demand()).collect();
        let as_one = |job: &&Job| Change::Job(Box::new(Job { tenant: key(job), ..(*job).clone() }));
        plan(&bent(world, open.iter().map(as_one)))
    }
    holds("pool small labels=linux max=4", story, Rulebook { plan: one_line_for_all, ..SOUND });
}

/// Market's pain 19: orphaned instances (terraform-aws-github-runner #5007, runs-on #204, 82 node-hours
/// stranded).
#[test]
fn an_instance_that_no_row_explains_lives_for_ever() {
    fn story(world: &mut World) {
        for minute in 0..4 {
            world.passes(if minute == 0 { 1 } else { 60 });
            world.lists_runners("org:acme", &[]);
            world.sees(lists_a_stranger(world, 77));
        }
        world.passes(1);
        assert!(world.calls().contains(&"destroy 77".into()));
    }
    fn lists_a_stranger(world: &World, id: u64) -> Observation {
        use remuda_core::observation::{Condition, InstanceSeen};
        let (provider, asked_at) = (ProviderName::new("one").unwrap(), world.now);
        let id = remuda_core::runner::InstanceId(id);
        let stranger = InstanceSeen { id, runner: None, node: None, condition: Condition::Running };
        Observation::Instances { provider, asked_at, all: vec![stranger] }
    }
    fn leaves_orphans(world: &Snapshot) -> Vec<Action> {
        let known = |call: &Action| match call {
            Action::Destroy(call) => world.instance(call.instance).is_some(),
            Action::Launch(_) | Action::Deregister(_) | Action::Redeliver(_) | Action::Look(_) => {
                true
            }
        };
        actions(world).into_iter().filter(known).collect()
    }
    holds(SMALL, story, Rulebook { actions: leaves_orphans, ..SOUND });
}

/// Market's pain 4; actions-runner-controller #4601: the forge refuses the runner's version, instances
/// boot and vanish in a loop, and nothing turns red.
#[test]
fn arc_4601_runners_of_a_refused_version_are_made_in_a_loop() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        let mut made = 0;
        for _ in 0..15 {
            let launched: Vec<String> = world.calls();
            made += launched.iter().filter(|call| call.starts_with("launch")).count() as u64;
            if made > 0 && world.runner_is(made) == "pending" {
                world.launched(made);
                world.passes(1);
                world.sees(refuses(world, made));
                world.passes(1);
                world.deregistered(made);
                world.passes(1);
                world.destroyed(made);
            }
            world.passes(10);
        }
        assert_eq!((made, world.why(1)), (1, vec!["quarantined"]));
        let told = world.tells_why(1);
        assert!(
            told.contains("image plain is in quarantine") && told.contains("renew the image"),
            "{told}"
        );
    }
    fn refuses(world: &World, id: u64) -> Observation {
        use remuda_core::observation::{Condition, InstanceSeen};
        let (provider, asked_at) = (ProviderName::new("one").unwrap(), world.now);
        let (id, condition) = (world.runner(id).instance, Condition::Exited(Some(7)));
        let all = vec![InstanceSeen { id, runner: None, node: None, condition }];
        Observation::Instances { provider, asked_at, all }
    }
    fn exits_are_alike(world: &Snapshot, seen: &Observation) -> Vec<Change> {
        use remuda_core::observation::Condition;
        let mut seen = seen.clone();
        if let Observation::Instances { all, .. } = &mut seen {
            for seen in all {
                seen.condition = Condition::Exited(Some(1));
            }
        }
        observe(world, &seen)
    }
    holds(SMALL, story, Rulebook { observe: exits_are_alike, ..SOUND });
}

/// actions-runner-controller #4603: the runner's process hangs after its job has ended.
#[test]
fn arc_4603_a_runner_that_hangs_after_its_job_holds_its_place() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        world.hears(runs(1, "linux").on(1, "small"));
        world.hears(ended(1, "linux").on(1, "small"));
        world.calls();
        world.passes(29);
        world.lists_instances("one", &[1], &[]);
        assert_eq!(world.calls(), Vec::<String>::new());
        world.passes(1);
        assert_eq!(world.calls(), ["destroy 1"]);
    }
    fn waits_for_its_exit(world: &Snapshot) -> Vec<Change> {
        settle(&limited(world, |limits| limits.finish = seconds(1_000_000)))
    }
    holds(SMALL, story, Rulebook { settle: waits_for_its_exit, ..SOUND });
}

/// GARM #455: an idle runner that is scaled down takes a job at that moment, and is deleted with it.
#[test]
fn garm_455_scale_down_takes_a_runner_that_has_just_got_a_job() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        world.hears(ended(1, "linux"));
        world.calls();
        world.passes(300);
        world.passes(1);
        assert_eq!(world.runner_is(1), "draining");
        world.refused_as_busy(1);
        world.hears(runs(2, "linux").on(1, "small"));
        for _ in 0..60 {
            world.passes(60);
            world.lists_instances("one", &[1], &[]);
        }
        assert_eq!(world.runner_is(1), "busy");
        assert!(!world.calls().iter().any(|call| call.starts_with("destroy")));
    }
    fn destroys_first(world: &Snapshot) -> Vec<Change> {
        let mut changes = settle(world);
        let leaving = world.runners_in(RunnerState::Draining);
        changes.extend(leaving.map(|r| row(r, RunnerState::Stopping, Outcome::Surplus, world)));
        changes
    }
    holds(SMALL, story, Rulebook { settle: destroys_first, ..SOUND });
}

/// GARM #834: one listing lacked a live runner; it took a job four seconds later and was deleted.
#[test]
fn garm_834_a_runner_that_one_listing_lacks_is_taken_for_dead() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        world.passes(120);
        world.lists_runners("org:acme", &[]);
        world.lists_instances("one", &[], &[]);
        world.passes(4);
        world.hears(runs(1, "linux").on(1, "small"));
        world.passes(60);
        world.lists_runners("org:acme", &[1]);
        world.lists_instances("one", &[1], &[]);
        world.calls();
        world.passes(600);
        assert_eq!((world.runner_is(1), world.calls()), ("busy", vec![]));
    }
    fn believes_one(world: &Snapshot, seen: &Observation) -> Vec<Change> {
        let Observation::Runners { asked_at, .. } = seen else { return observe(world, seen) };
        let failed_at = Some(*asked_at - seconds(600));
        let looked = Looked { failed_at, failures: 1, ..Looked::default() };
        let idle = world.runners_in(RunnerState::Idle);
        let lacking = idle.map(|r| Change::Looked(Subject::Runner(r.id), looked));
        let mut changes = observe(&bent(world, lacking), seen);
        for change in &mut changes {
            if let Change::Runner(runner) = change {
                runner.enter(RunnerState::Stopping, Some(Outcome::Died), world.now);
            }
        }
        changes
    }
    holds(SMALL, story, Rulebook { observe: believes_one, ..SOUND });
}

/// runner #4617, actions-runner-controller #4307: a healthy process that listens although its
/// registration is gone, absent from the forge's list for ever.
#[test]
fn runner_4617_a_runner_listens_on_after_it_has_lost_its_registration() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        world.comes_online(1);
        for _ in 0..3 {
            world.passes(61);
            world.lists_runners("org:acme", &[]);
            world.lists_instances("one", &[1], &[]);
        }
        assert_eq!(world.runner_is(1), "draining");
        world.deregistered(1);
        world.passes(1);
        world.destroyed(1);
        world.passes(10);
        assert!(world.calls().contains(&"launch 2 of small".into()));
    }
    fn believes_the_process(world: &Snapshot, seen: &Observation) -> Vec<Change> {
        let Observation::Runners { forge, scope, asked_at, all } = seen else {
            return observe(world, seen);
        };
        let online = |r: &Runner| RunnerSeen {
            id: 1000 + r.id.0,
            name: r.name.clone(),
            online: true,
            busy: false,
        };
        let mut all = all.clone();
        all.extend(world.runners_in(RunnerState::Idle).map(online));
        let (forge, scope, asked_at) = (forge.clone(), scope.clone(), *asked_at);
        observe(world, &Observation::Runners { forge, scope, asked_at, all })
    }
    holds(SMALL, story, Rulebook { observe: believes_the_process, ..SOUND });
}

/// Market's pain 7: the budget is used up on looking, and nothing can be launched or removed any more
/// (terraform-aws-github-runner #3199: 15,000 calls of an hour; pytorch #140958: a fleet killed by it).
#[test]
fn cleaning_up_uses_the_calls_that_launches_need() {
    fn story(world: &mut World) {
        let mut remaining = 300;
        for id in 1..=21 {
            let of = format!("repo:acme/r{id}");
            world.hears(queued(id, "nobody-has-this").of(&of));
        }
        for _ in 0..720 {
            world.sees(calls_left(remaining));
            world.passes(5);
            for call in world.actions() {
                let Action::Look(look) = &call else { continue };
                let costs = !matches!(look.subject(), Subject::Instances(_));
                remaining = u64::saturating_sub(remaining, costs.into());
                world.answered(look.subject(), nothing_new(look, world));
            }
        }
        world.hears(queued(100, "linux"));
        assert_eq!(world.calls(), ["launch 1 of small"]);
        assert!(remaining > 0, "the forge would refuse it");
    }
    fn counts_nothing(world: &Snapshot) -> Vec<Action> {
        let mut rich = world.clone();
        rich.apply(&observe(world, &calls_left(1000)));
        actions(&rich)
    }
    holds(SMALL, story, Rulebook { actions: counts_nothing, ..SOUND });
}

fn calls_left(remaining: u64) -> Observation {
    let (forge, resets_at) = (forge(), at(100_000));
    let credential = Credential::App { id: "1".into(), owner: Some(Login::new("acme").unwrap()) };
    Observation::Budget { forge, credential, budget: Budget { limit: 1000, remaining, resets_at } }
}

/// What a forge and a provider answer while nothing changes.
fn nothing_new(look: &Look, world: &World) -> Vec<Observation> {
    let asked_at = world.now;
    vec![match look.clone() {
        Look::Jobs { forge, scope, .. } => {
            let open = world.books().jobs().filter(|job| job.scope == scope);
            let all = open.map(|job| queued(job.key.native, "nobody-has-this"));
            let all = all.map(|told| told.of(&scope.to_string()).read(asked_at)).collect();
            Observation::Jobs { forge, scope, asked_at, all, covered: Covered::Whole }
        }
        Look::Runners { forge, scope } => {
            Observation::Runners { forge, scope, asked_at, all: vec![] }
        }
        Look::Instances { provider } => Observation::Instances { provider, asked_at, all: vec![] },
        Look::Job { key, .. } => Observation::JobMissing { key, asked_at },
        Look::Deliveries { hook, .. } => unreachable!("{hook} is not declared"),
    }]
}

/// gha-runner-ctl: 21 repositories polled every 45 seconds used up 4,800 of 5,000 calls an hour.
#[test]
fn gha_runner_ctl_polling_uses_up_the_budget() {
    fn story(world: &mut World) {
        for id in 1..=21 {
            let of = format!("repo:acme/r{id}");
            world.hears(queued(id, "nobody-has-this").of(&of));
        }
        let mut asked = 0;
        for _ in 0..720 {
            world.passes(5);
            for call in world.actions() {
                let Action::Look(look) = &call else { continue };
                asked += u32::from(!matches!(look.subject(), Subject::Instances(_)));
                world.answered(look.subject(), nothing_new(look, world));
            }
        }
        assert!(asked < 1_500, "{asked} calls in an hour");
    }
    fn looks_each_turn(world: &Snapshot) -> Vec<Action> {
        let never = |subject| Change::Looked(subject, Looked::default());
        let of_scope = world.jobs().flat_map(|job| {
            let place = (job.key.forge.clone(), job.scope.clone());
            [Subject::Jobs(place.0.clone(), place.1.clone()), Subject::Runners(place.0, place.1)]
        });
        actions(&bent(world, of_scope.map(never)))
    }
    holds(SMALL, story, Rulebook { actions: looks_each_turn, ..SOUND });
}

/// gha-runner-ctl: 197 jobs queued, none running, eight idle runners of other repositories for 7 hours.
#[test]
fn gha_runner_ctl_idle_zombies_of_one_repository_block_the_others() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux").of("repo:acme/a"));
        world.comes_online(1);
        world.hears(ended(1, "linux").of("repo:acme/a"));
        world.hears(queued(2, "linux").of("repo:acme/b"));
        assert_eq!(world.why(2), ["pool_full"]);
        world.calls();
        world.passes(300);
        assert!(world.calls()[0].starts_with("deregister "));
        world.deregistered(1);
        world.passes(1);
        world.destroyed(1);
        world.passes(1);
        assert!(world.calls().contains(&"launch 2 of small".into()));
    }
    fn keeps_zombies(world: &Snapshot) -> Plan {
        plan(&limited(world, |limits| limits.idle = seconds(1_000_000)))
    }
    holds(SMALL, story, Rulebook { plan: keeps_zombies, ..SOUND });
}

/// gha-runner-ctl: sizes guessed by name filled the memory while the processors idled.
#[test]
fn gha_runner_ctl_a_pool_by_name_takes_more_memory_than_there_is() {
    fn story(world: &mut World) {
        world.has_nodes("one", "a=mem:8");
        world.hears(queued(1, "linux"));
        world.hears(queued(2, "linux"));
        world.passes(1);
        assert_eq!((world.calls().len(), world.why(2)), (1, vec!["no_node_has_room"]));
    }
    fn counts_heads(world: &Snapshot) -> Plan {
        let blind = world.fleet.providers.keys().map(|name| Change::Capacity(name.clone(), None));
        plan(&bent(world, blind))
    }
    let big = "pool small labels=linux max=10 needs=mem:6";
    holds(big, story, Rulebook { plan: counts_heads, ..SOUND });
}

/// gha-runner-ctl: registrations per repository burn the budget for registrations.
#[test]
fn gha_runner_ctl_registrations_go_on_against_a_limit() {
    fn story(world: &mut World) {
        world.hears(queued(1, "linux"));
        let until = world.now + seconds(900);
        world.calls();
        world.launch_fails(1, Call::Register, Cause::Limited { until });
        for _ in 0..8 {
            world.passes(100);
        }
        assert_eq!((world.calls(), world.why(1)), (vec![], vec!["backing_off"]));
        world.passes(101);
        assert_eq!(world.calls(), ["launch 2 of small"]);
    }
    fn forgets(world: &Snapshot) -> Snapshot {
        let backoffs: Vec<_> = world.backoffs().map(|(key, _)| key.clone()).collect();
        bent(world, backoffs.into_iter().map(|key| Change::Backoff(key, None)))
    }
    fn plans_on(world: &Snapshot) -> Plan {
        plan(&forgets(world))
    }
    fn calls_on(world: &Snapshot) -> Vec<Action> {
        actions(&forgets(world))
    }
    holds(SMALL, story, Rulebook { plan: plans_on, actions: calls_on, ..SOUND });
}
