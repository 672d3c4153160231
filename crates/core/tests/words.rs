//! How things are called in texts and logs. Words are kept in stores, in metrics and by people, so they
//! are written out here.

use std::path::PathBuf;

use remuda_core::budget::{Credential, Lane};
use remuda_core::check::Violation;
use remuda_core::fleet::SecretRef;
use remuda_core::hook::HookKey;
use remuda_core::job::{Conclusion, JobKey, JobState, Title};
use remuda_core::label::{Label, LabelSet, Wanted};
use remuda_core::name::{ForgeName, Login, NodeName, PoolName, ProviderName, RunnerName};
use remuda_core::reason::{BackoffKey, DrainKey, Reason};
use remuda_core::runner::{InstanceId, InstanceState, Outcome, Runner, RunnerId, RunnerState};
use remuda_core::tenant::{OwnerKind, Repository, Scope, TenantKey};
use remuda_core::{Delivery, Timestamp};

fn forge() -> ForgeName {
    "hub".parse().expect("a forge's name")
}

fn pool() -> PoolName {
    "small".parse().expect("a pool's name")
}

fn provider() -> ProviderName {
    "one".parse().expect("a provider's name")
}

fn node() -> NodeName {
    "Rack 7".parse().expect("a node's name")
}

#[test]
fn every_name_is_shown_as_people_write_it() {
    let scope = |text: &str| text.parse::<Scope>().unwrap();
    let repository: Repository = "Acme/App".parse().unwrap();
    let app = |owner: Option<Login>| Credential::App { id: "12".into(), owner };
    let own = HookKey::Own { scope: scope("repo:acme/app"), id: 9 };
    let labels = LabelSet::parse(["Linux", "gpu"]).unwrap();
    let tenant = TenantKey { forge: forge(), kind: OwnerKind::User, id: 7 };
    for (shown, wanted) in [
        (JobKey::rest(&forge(), 41).to_string(), "hub/41"),
        (RunnerId(3).to_string(), "3"),
        (InstanceId(4).to_string(), "4"),
        (repository.to_string(), "acme/app"),
        (tenant.to_string(), "hub/user/7"),
        (Label::new(" GPU ").unwrap().to_string(), "gpu"),
        (labels.to_string(), "[gpu, linux]"),
        (Wanted::AllOf(labels).to_string(), "[gpu, linux]"),
        (LabelSet::default().to_string(), "[]"),
        (app("acme".parse().ok()).to_string(), "App 12 at acme"),
        (app(None).to_string(), "App 12 itself"),
        (Credential::Token.to_string(), "the token"),
        (HookKey::App("12".into()).to_string(), "the hook of App 12"),
        (own.to_string(), "hook 9 of repo:acme/app"),
        (DrainKey::Pool(pool()).to_string(), "pool small"),
        (DrainKey::Provider(provider()).to_string(), "provider one"),
        (DrainKey::Node(provider(), node()).to_string(), "node one/Rack 7"),
        (BackoffKey::Pool(pool()).to_string(), "pool small"),
        (BackoffKey::Provider(provider()).to_string(), "provider one"),
        (BackoffKey::Scope(forge(), scope("org:acme")).to_string(), "org:acme at hub"),
        (BackoffKey::Image("plain".parse().unwrap()).to_string(), "image plain"),
        (BackoffKey::Node(provider(), node()).to_string(), "node one/Rack 7"),
        (Timestamp::from_millis(1500).to_string(), "1500ms"),
        (SecretRef::Env("KEY".into()).to_string(), "env:KEY"),
        (SecretRef::File(PathBuf::from("/etc/key")).to_string(), "file:/etc/key"),
    ] {
        assert_eq!(shown, wanted);
    }
}

#[test]
fn names_and_numbers_stand_in_columns() {
    assert_eq!(format!("{:<6}|{:>3}", pool(), RunnerId(7)), "small |  7");
    assert_eq!(format!("{:<6}|{:>3}", Label::new("gpu").unwrap(), InstanceId(7)), "gpu   |  7");
}

#[test]
fn what_is_written_for_debugging_names_things_and_shows_no_secret() {
    assert_eq!(format!("{:?}", pool()), "\"small\"");
    assert_eq!(format!("{:?}", Label::new("gpu").unwrap()), "\"gpu\"");
    // A fleet's revision is computed from it, so two places must never look alike.
    assert_eq!(format!("{:?}", SecretRef::Env("KEY".into())), "env:KEY");
    assert_eq!(format!("{:?}", SecretRef::File("/etc/key".into())), "file:/etc/key");
    let delivery = Delivery {
        forge: forge(),
        id: "g-1".into(),
        event: "workflow_job".into(),
        received_at: Timestamp::from_millis(5),
        body: (*b"hunter2").into(),
    };
    let shown = format!("{delivery:?}");
    let head = "Delivery { forge: \"hub\", id: \"g-1\", event: \"workflow_job\", ";
    assert_eq!(shown, format!("{head}received_at: Timestamp(5), bytes: 7 }}"));
}

#[test]
fn a_broken_invariant_says_what_is_broken_and_where() {
    let (runner, instance) = (RunnerId(3), InstanceId(4));
    let job = JobKey::rest(&forge(), 41);
    for (violation, says) in [
        (Violation::RunnerWithoutInstance(runner), "runner 3 has no instance"),
        (
            Violation::GoneWithInstance(runner, instance),
            "runner 3 is gone and its instance 4 is not",
        ),
        (Violation::EndWithoutOutcome(runner), "runner 3 ends without an outcome"),
        (Violation::StateWithoutTime(runner), "runner 3 has no time for its state"),
        (Violation::InstanceWithoutLaunch(instance), "instance 4 exists without a launch"),
        (Violation::PoolOverMax(pool(), 9), "pool small has 9 instances, more than its max"),
        (
            Violation::ProviderOverMax(provider(), 9),
            "provider one has 9 instances, more than its max",
        ),
        (Violation::JobOnTwoRunners(job.clone()), "job hub/41 is on two runners"),
        (Violation::QueueOutOfStep(job), "job hub/41 and the queue disagree"),
        (Violation::NumberReused(runner), "runner number 3 is not below the next one"),
        (Violation::NameReused(runner), "runner 3 is not found by its name"),
    ] {
        assert_eq!(violation.to_string(), says);
    }
}

#[test]
fn a_reason_names_what_stands_in_the_way_and_the_last_failure() {
    let what = BackoffKey::Pool(pool());
    let (since, until) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
    let because = || "no disk".into();
    let wanted = || Wanted::AllOf(LabelSet::parse(["gpu"]).unwrap());
    let nearest = Some((pool(), "gpu".into()));
    let tenant = TenantKey { forge: forge(), kind: OwnerKind::Organization, id: 7 };
    let drained = DrainKey::Node(provider(), node());
    for (reason, says) in [
        (
            Reason::NoPoolHasLabels { wanted: wanted(), nearest: None },
            "no pool of this scope offers the labels [gpu]",
        ),
        (
            Reason::NoPoolHasLabels { wanted: wanted(), nearest },
            "no pool of this scope offers the labels [gpu]; \
             pool small comes nearest and lacks gpu",
        ),
        (Reason::PoolFull(pool()), "pool small is full"),
        (
            Reason::TenantAtCap { tenant, cap: 2 },
            "tenant hub/organization/7 is at its cap of 2 runners",
        ),
        (
            Reason::BackingOff { what: what.clone(), until, because: because() },
            "pool small is backing off after: no disk",
        ),
        (
            Reason::Quarantined { what, since, until, because: because() },
            "pool small is in quarantine, the last failure: no disk",
        ),
        (
            Reason::Drained { what: drained, who: "ada".into(), why: "fan".into(), since },
            "node one/Rack 7 is drained by ada: fan",
        ),
        (
            Reason::Gathering { pool: pool(), jobs: 5, until },
            "pool small waits for 5 jobs of a kind, or for a while",
        ),
        (
            Reason::RunnerIdle(RunnerId(3)),
            "runner 3 is online; the forge has yet to assign the job",
        ),
    ] {
        assert_eq!(reason.to_string(), says);
    }
}

#[test]
fn words_of_closed_sets_stay_as_stores_and_metrics_have_them() {
    let states = JobState::ALL.map(JobState::as_str);
    assert_eq!(states, ["waiting", "queued", "in_progress", "completed"]);
    let conclusions = "success failure cancelled skipped timed_out action_required neutral \
                       expired other";
    assert_eq!(Conclusion::ALL.map(Conclusion::as_str).join(" "), conclusions);
    let states = "pending starting idle draining busy stopping gone";
    assert_eq!(RunnerState::ALL.map(RunnerState::as_str).join(" "), states);
    let outcomes = "finished surplus lifetime timed_out never_online launch_failed launch_lost \
                    died lost ordered";
    assert_eq!(Outcome::ALL.map(Outcome::as_str).join(" "), outcomes);
    let states = "planned launching live exited gone";
    assert_eq!(InstanceState::ALL.map(InstanceState::as_str).join(" "), states);
    let kinds = [OwnerKind::User, OwnerKind::Organization, OwnerKind::Enterprise];
    assert_eq!(kinds.map(OwnerKind::as_str).join(" "), "user organization enterprise");
    let lanes = [
        "registrations",
        "removals",
        "reads of jobs",
        "listings of runners",
        "sweeps for jobs",
        "redeliveries",
    ];
    assert_eq!(Lane::ALL.map(Lane::as_str), lanes);
}

#[test]
fn a_title_is_cut_at_its_bound_and_holds_no_control_characters() {
    assert_eq!(&*Title::bounded("a\u{7}b\n"), "ab");
    assert_eq!(Title::bounded(&"é".repeat(301)).chars().count(), 300);
    assert_eq!(Title::bounded(&"é".repeat(300)).chars().count(), 300);
}

#[test]
fn a_runners_name_fits_the_forge_however_long_its_pools_is() {
    let installation = "test".parse().unwrap();
    assert_eq!(Runner::name_prefix(&installation), "remuda-test-");
    let name = |pool: &PoolName| Runner::name_for(&installation, pool, RunnerId(u64::MAX));
    let long = name(&"a".repeat(63).parse().unwrap());
    assert_eq!(long.as_str().chars().count(), 64);
    assert!(
        long.as_str().starts_with("remuda-test-a")
            && long.as_str().ends_with("a-18446744073709551615")
    );
    assert_eq!(name(&pool()), RunnerName::new("remuda-test-small-18446744073709551615").unwrap());
}
