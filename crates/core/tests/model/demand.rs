//! Looking for work that nobody told of, and what it may cost.

use std::collections::BTreeSet;

use proptest::prelude::*;
use remuda_core::action::{Look, Reach};
use remuda_core::budget::{Budget, Credential, Lane};
use remuda_core::fleet::{Allowance, App, Demand, SecretRef};
use remuda_core::name::Login;
use remuda_core::observation::{Covered, Observation, Subject};
use remuda_core::tenant::Repository;
use remuda_core::{Action, Snapshot, Timestamp, actions, observe, plan};

use crate::world::{Told, World, at, ended, fleet, forge, queued, runs, scope, seconds};

const SMALL: &str = "pool small labels=x max=9";

/// What is left of an App's calls at an owner.
fn left(app: &str, owner: &str, limit: u64, remaining: u64, resets_at: Timestamp) -> Observation {
    let owner = Some(Login::new(owner).unwrap());
    let credential = Credential::App { id: app.into(), owner };
    let budget = Budget { limit, remaining, resets_at };
    Observation::Budget { forge: forge(), credential, budget }
}

fn knows(books: &mut Snapshot, fact: &Observation) {
    let changes = observe(books, fact);
    books.apply(&changes);
}

/// A world that looks after these scopes from the start.
fn looking_after(demand: Demand, scopes: &[&str]) -> World {
    let mut fleet = fleet(SMALL);
    for forge in fleet.forges.values_mut() {
        forge.demand = demand;
        forge.scopes = scopes.iter().map(|text| scope(text)).collect();
    }
    World::of(fleet)
}

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}

/// The sweeps begun since the calls were last asked for.
fn sweeps(world: &mut World) -> Vec<(String, Reach)> {
    let sweep = |call| match call {
        Action::Look(Look::Jobs { scope, reach, .. }) => Some((scope.to_string(), reach)),
        Action::Launch(_)
        | Action::Deregister(_)
        | Action::Destroy(_)
        | Action::Redeliver(_)
        | Action::Look(_) => None,
    };
    world.actions().into_iter().filter_map(sweep).collect()
}

/// A sweep ends with these jobs, and has cost so much.
fn swept(world: &mut World, of: &str, all: Vec<Told>, covered: Covered, calls: u32) {
    let (forge, scope, asked_at) = (forge(), scope(of), world.now);
    let all = all.into_iter().map(|told| told.read(asked_at)).collect();
    let subject = Subject::Jobs(forge.clone(), scope.clone());
    let spent = Observation::Spent { forge: forge.clone(), scope: scope.clone(), calls };
    let listed = Observation::Jobs { forge, scope, asked_at, all, covered };
    world.answered(subject, vec![listed, spent]);
}

/// Books by which a call of each lane that runners and jobs need is due at `org:acme`.
fn everything_due() -> Snapshot {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.hears(ended(1, "x"));
    world.hears(runs(2, "x"));
    world.lists_jobs("org:acme", vec![runs(2, "x")]);
    world.passes(900);
    assert_eq!(world.runner_is(1), "draining");
    let mut books = world.books().clone();
    let told = queued(3, "x").delivered(world.now);
    knows(&mut books, &Observation::Job(Box::new(told)));
    let planned = plan(&books).changes;
    books.apply(&planned);
    books
}

fn lanes(books: &Snapshot) -> BTreeSet<Lane> {
    let lane = |call: &Action| match call {
        Action::Launch(_) => Some(Lane::Registration),
        Action::Deregister(_) => Some(Lane::Deregistration),
        Action::Look(Look::Job { .. }) => Some(Lane::Read),
        Action::Look(Look::Runners { .. }) => Some(Lane::Runners),
        Action::Look(Look::Jobs { .. }) => Some(Lane::Sweep),
        Action::Look(Look::Deliveries { .. }) | Action::Redeliver(_) => Some(Lane::Redelivery),
        Action::Look(Look::Instances { .. }) | Action::Destroy(_) => None,
    };
    actions(books).iter().filter_map(lane).collect()
}

// W28
#[test]
fn as_a_budget_runs_low_the_lowest_lanes_stop_first_and_registrations_last() {
    let due = everything_due();
    let with = |remaining| {
        let mut books = due.clone();
        knows(&mut books, &left("1", "acme", 1000, remaining, at(9000)));
        lanes(&books)
    };
    let needs = [
        (Lane::Registration, 0),
        (Lane::Deregistration, 50),
        (Lane::Read, 100),
        (Lane::Runners, 150),
        (Lane::Sweep, 250),
    ];
    for remaining in 0..=1000 {
        let served = needs.into_iter().filter(|(_, reserve)| remaining > *reserve);
        assert_eq!(with(remaining), served.map(|(lane, _)| lane).collect(), "{remaining} left");
    }
    // A budget whose window is over says nothing, and one of another owner neither.
    let mut books = due.clone();
    knows(&mut books, &left("1", "acme", 1000, 0, at(899)));
    knows(&mut books, &left("1", "other", 1000, 0, at(9000)));
    assert_eq!(lanes(&books).len(), 5);
}

#[test]
fn each_lane_and_each_credential_is_shown_by_a_name_of_its_own() {
    let lanes: BTreeSet<&str> = Lane::ALL.iter().map(|lane| lane.as_str()).collect();
    assert!(lanes.len() == Lane::ALL.len() && !lanes.contains(""));
    let owner = Some(Login::new("acme").unwrap());
    let app = |owner| Credential::App { id: "1".into(), owner };
    let shown = [app(owner), app(None), Credential::Token].map(|by| by.to_string());
    assert_eq!(shown, ["App 1 at acme", "App 1 itself", "the token"]);
}

#[test]
fn a_window_that_begins_now_has_begun() {
    let budget = Budget { limit: 1000, remaining: 7, resets_at: at(60) };
    assert_eq!([59, 60, 61].map(|second| budget.left_at(at(second))), [7, 1000, 1000]);
}

#[test]
fn a_scope_is_limited_only_when_all_of_its_apps_are() {
    let mut world = World::new(SMALL);
    world.sees(left("1", "acme", 1000, 0, at(1800)));
    world.sees(left("2", "acme", 1000, 1, at(3600)));
    world.hears(queued(1, "x"));
    assert_eq!(world.calls(), ["launch 1 of small"]);
    world.sees(left("2", "acme", 1000, 0, at(3600)));
    world.hears(queued(2, "x"));
    world.hears(queued(3, "x").of("org:other"));
    assert_eq!(world.why(2), ["backing_off"]);
    assert_eq!(world.calls(), ["launch 2 of small"]);
    // The first of them that may ask again is enough.
    world.passes(1799);
    assert!(!world.calls().iter().any(|call| call.starts_with("launch")));
    world.passes(1);
    assert!(world.calls().contains(&"launch 3 of small".into()));
}

// A token beside an App: whom the App may serve does not wait for the token, even while nobody knows yet
// where the App is installed.
#[test]
fn a_spent_token_holds_back_only_those_whom_no_app_may_serve() {
    let app = |owners: &[&str]| App {
        id: "1".into(),
        private_key: SecretRef::Env("KEY".into()),
        webhook_secrets: Vec::new(),
        owners: owners.iter().map(|owner| Login::new(owner).unwrap()).collect(),
    };
    let none: &[&str] = &[];
    let whose = ["acme", "other"];
    for (owners, served) in
        [(none, [true; 2]), (&["other"], [false, true]), (&["third"], [false; 2])]
    {
        let mut fleet = fleet(SMALL);
        let github = fleet.forges.get_mut(&forge()).unwrap();
        github.apps = vec![app(owners)];
        github.token = Some(SecretRef::Env("TOKEN".into()));
        let mut world = World::of(fleet);
        let budget = Budget { limit: 5000, remaining: 0, resets_at: at(3600) };
        let credential = Credential::Token;
        world.sees(Observation::Budget { forge: forge(), credential, budget });
        for (id, (owner, served)) in (1..).zip(whose.into_iter().zip(served)) {
            world.hears(queued(id, "x").of(&format!("org:{owner}")));
            let reason = if served { "runner_starting" } else { "backing_off" };
            assert_eq!(world.why(id)[0], reason, "{owner}, with an App for {owners:?}");
        }
        world.passes(60);
        let begun = world.actions();
        // They rest together, and whom only the token serves is first in the order of the sweeps.
        let swept = |call: &Action| match call {
            Action::Look(Look::Jobs { scope, .. }) => Some(scope.owner().to_string()),
            Action::Launch(_)
            | Action::Deregister(_)
            | Action::Destroy(_)
            | Action::Redeliver(_)
            | Action::Look(_) => None,
        };
        let swept: BTreeSet<String> = begun.iter().filter_map(swept).collect();
        assert_eq!(whose.map(|owner| swept.contains(owner)), served, "an App for {owners:?}");
        let launched = begun.iter().filter(|call| matches!(call, Action::Launch(_))).count();
        assert_eq!(launched, served.iter().filter(|served| **served).count());
    }
}

// W28
#[test]
fn sweeps_keep_to_their_share_of_the_calls() {
    for (budget, hourly) in [(Allowance::Share(10), 500), (Allowance::Calls(300), 300)] {
        let demand = Demand { budget, ..Demand::default() };
        let mut world = looking_after(demand, &["repo:solo/a", "repo:solo/b", "repo:solo/c"]);
        world.sees(left("1", "solo", 5000, 5000, at(100_000)));
        let (mut spent, mut each) = (0, BTreeSet::new());
        for second in 0..4 * 3600 {
            world.passes(1);
            for (of, _) in sweeps(&mut world) {
                swept(&mut world, &of, vec![], Covered::Whole, 20);
                spent += 20;
                each.insert((second / 3600, of));
            }
        }
        // The first of each is begun without knowing what it will cost.
        assert!(spent <= 4 * hourly + 60, "{spent} calls in four hours");
        assert!(spent >= 4 * hourly - 60, "{spent} calls in four hours");
        assert_eq!(each.len(), 4 * 3, "each scope is swept in every hour");
    }
}

#[test]
fn where_nothing_is_swept_each_open_job_is_read_now_and_then() {
    let demand = Demand { sweep: None, ..Demand::default() };
    let mut world = looking_after(demand, &["org:acme"]);
    world.hears(queued(1, "nobody-has-this"));
    world.passes(599);
    assert!(!world.looks().iter().any(|look| look == "read 1" || look.starts_with("jobs")));
    world.passes(2);
    assert!(world.looks().contains(&"read 1".into()));
}

#[test]
fn a_listing_of_some_repositories_says_nothing_of_the_others() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    let mut other = queued(2, "x");
    other.0.repository = repository("acme/lib");
    world.hears(other);
    world.passes(10);
    let covered = Covered::Part { repositories: [repository("acme/lib")].into(), next: None };
    swept(&mut world, "org:acme", vec![], covered, 1);
    assert!(world.job(1).doubt.is_none() && world.job(2).doubt.is_some());
}

#[test]
fn a_sweep_goes_on_where_the_last_one_stopped_and_always_sees_the_active() {
    let mut world = looking_after(Demand::default(), &["org:acme"]);
    world.hears(queued(1, "x"));
    world.actions();
    let next = Some(repository("acme/m"));
    let covered = Covered::Part { repositories: BTreeSet::new(), next: next.clone() };
    swept(&mut world, "org:acme", vec![], covered, 1);
    let mut next_reach = |all, span| {
        world.passes(span);
        let [(_, reach)] = &*sweeps(&mut world) else { panic!("it is one sweep") };
        swept(&mut world, "org:acme", all, Covered::Whole, 1);
        (reach.after.clone(), reach.active.clone())
    };
    let active: BTreeSet<_> = [repository("acme/app")].into();
    assert_eq!(next_reach(vec![ended(1, "x")], 120), (next, active.clone()));
    assert_eq!(next_reach(vec![], 120), (None, active));
    assert_eq!(next_reach(vec![], 3600), (None, BTreeSet::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However much sweeps find to spend on, and however many begin together, they leave what is kept
    /// for the lanes above them.
    #[test]
    fn sweeps_never_starve_registrations(
        limit in 100_u64..20_000,
        share in 1_u8..=100,
        rounds in prop::collection::vec((0_u32..5000, 0_u64..40), 1..60),
    ) {
        let demand = Demand { budget: Allowance::Share(share), ..Demand::default() };
        let scopes: Vec<String> = (0..5).map(|n| format!("repo:solo/r{n}")).collect();
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let mut world = looking_after(demand, &scopes);
        let mut remaining = limit;
        for (greed, others) in rounds {
            world.now = world.now + seconds(200);
            world.sees(left("1", "solo", limit, remaining, at(1_000_000)));
            let begun = sweeps(&mut world);
            let granted: u64 = begun.iter().map(|(_, reach)| u64::from(reach.calls_max)).sum();
            let kept = remaining.saturating_sub(granted);
            prop_assert!(begun.is_empty() || kept >= limit / 4, "{:?}", begun);
            for (of, reach) in begun {
                let calls = greed.min(reach.calls_max);
                remaining -= u64::from(calls);
                swept(&mut world, &of, vec![], Covered::Whole, calls);
            }
            // Registrations use some too: as long as any is left, a job that comes is served.
            remaining = remaining.saturating_sub(others).max(1);
            let mut asked = world.clone();
            asked.sees(left("1", "solo", limit, remaining, at(1_000_000)));
            asked.hears(queued(1, "x").of("repo:solo/r0"));
            let launched = asked.calls().iter().any(|call| call.starts_with("launch"));
            prop_assert!(launched, "{} of {} left", remaining, limit);
        }
    }
}
