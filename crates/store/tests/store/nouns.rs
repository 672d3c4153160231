//! Any value of the nouns that a store keeps, odd ones included.

use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use remuda_core::job::{
    Attempt, Conclusion, Doubt, Job, JobKey, JobState, Namespace, RunnerRef, Title, Trust,
};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{
    ForgeName, GroupName, ImageName, Login, NodeName, PoolName, ProviderName, RepositoryName,
    Resource, RunnerName,
};
use remuda_core::observation::StrayRegistration;
use remuda_core::reason::{BackoffKey, DrainKey, Reason};
use remuda_core::runner::{
    Exit, Hold, Instance, InstanceId, InstanceState, LaunchCall, Outcome, Purpose, Registration,
    Runner, RunnerId, RunnerState, Since,
};
use remuda_core::snapshot::{Backoff, Drain, Note, Proof, Recovering, Stray};
use remuda_core::tenant::{Met, OwnerKind, Repository, Scope, Tenant, TenantKey};
use remuda_core::{Change, Delivery, Event, Timestamp, WaitChange};

/// Few names, so that rows meet.
const DECLARED: &str = "[ab]|[a-z0-9][a-z0-9_.-]{0,12}";
/// Whatever is no control character.
const FOREIGN: &str = "[xy]|\\PC{1,12}";
const CASELESS: &str = "[mn]|[^/\\s\\pC]{1,12}";

macro_rules! names {
    ($($function:ident: $name:ident = $pattern:expr;)*) => {$(
        fn $function() -> impl Strategy<Value = $name> {
            $pattern.prop_map(|text: String| $name::new(&text).unwrap())
        }
    )*};
}

names! {
    forge: ForgeName = DECLARED;
    pool: PoolName = DECLARED;
    provider: ProviderName = DECLARED;
    resource: Resource = DECLARED;
    node: NodeName = FOREIGN;
    image: ImageName = DECLARED;
    group: GroupName = FOREIGN;
    runner_name: RunnerName = FOREIGN;
    login: Login = CASELESS;
    repository_name: RepositoryName = CASELESS;
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![any::<String>(), Just("\0\n'\u{202e}".to_owned())].prop_map(Into::into)
}

fn instant() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn runner_id() -> impl Strategy<Value = RunnerId> {
    prop_oneof![0..4_u64, 0..=u64::MAX >> 1].prop_map(RunnerId)
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    prop_oneof![0..4_u64, any::<u64>()].prop_map(InstanceId)
}

fn repository() -> impl Strategy<Value = Repository> {
    (login(), repository_name()).prop_map(|(owner, name)| Repository { owner, name })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        login().prop_map(Scope::Organization),
        repository().prop_map(Scope::Repository),
        login().prop_map(Scope::Enterprise),
    ]
}

fn labels() -> impl Strategy<Value = LabelSet> {
    vec("[^\\s\\pC][^\\pC]{0,20}", 0..5).prop_map(|texts| LabelSet::parse(texts).unwrap())
}

fn tenant_key() -> impl Strategy<Value = TenantKey> {
    let kind = select(&[OwnerKind::User, OwnerKind::Organization, OwnerKind::Enterprise][..]);
    (forge(), kind, prop_oneof![0..3_u64, any::<u64>()]).prop_map(|(forge, kind, id)| TenantKey {
        forge,
        kind,
        id,
    })
}

fn met() -> impl Strategy<Value = Met> {
    (tenant_key(), login(), vec(login(), 0..4), option::of(instant())).prop_map(
        |(key, login, logins, served_at)| Met { tenant: Tenant { key, login }, logins, served_at },
    )
}

pub(crate) fn job_key() -> impl Strategy<Value = JobKey> {
    (forge(), prop_oneof![0..3_u64, any::<u64>()]).prop_map(|(forge, native)| JobKey {
        forge,
        namespace: Namespace::Rest,
        native,
    })
}

fn runner_ref() -> impl Strategy<Value = RunnerRef> {
    (any::<u64>(), runner_name()).prop_map(|(id, name)| RunnerRef { id, name })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    (
        prop_oneof![1..4_u32, any::<u32>()],
        select(&JobState::ALL[..]),
        option::of(runner_ref()),
        option::of(select(&Conclusion::ALL[..])),
        instant(),
        option::of(instant()),
        option::of(instant()),
        instant(),
    )
        .prop_map(
            |(number, state, runner, conclusion, queued_at, started_at, completed_at, fact_at)| {
                Attempt {
                    number,
                    state,
                    runner,
                    conclusion,
                    queued_at,
                    started_at,
                    completed_at,
                    fact_at,
                }
            },
        )
}

fn doubt() -> impl Strategy<Value = Doubt> {
    (instant(), option::of(instant()), any::<u32>(), option::of(instant())).prop_map(
        |(since, missing_since, reads, read_at)| Doubt { since, missing_since, reads, read_at },
    )
}

fn title() -> impl Strategy<Value = Title> {
    (text(), text(), text(), any::<u64>()).prop_map(|(job, workflow, url, run)| Title {
        job,
        workflow,
        url,
        run,
    })
}

fn job() -> impl Strategy<Value = Job> {
    let whose = (job_key(), tenant_key(), scope(), repository());
    let trust = select(&[Trust::Unknown, Trust::Untrusted, Trust::Trusted][..]);
    let what = (labels(), trust, title(), instant());
    let where_it_stands = (attempt(), vec(runner_ref(), 0..3), option::of(doubt()));
    (whose, what, where_it_stands).prop_map(|(whose, what, stands)| Job {
        key: whose.0,
        tenant: whose.1,
        scope: whose.2,
        repository: whose.3,
        wanted: Wanted::AllOf(what.0),
        trust: what.1,
        title: what.2,
        accepted_at: what.3,
        attempt: stands.0,
        past_runners: stands.1,
        doubt: stands.2,
    })
}

fn since() -> impl Strategy<Value = Since> {
    vec(option::of(instant()), 7).prop_map(|times| {
        let mut since = Since::default();
        for (state, at) in RunnerState::ALL.into_iter().zip(times) {
            if let Some(at) = at {
                since.enter(state, at);
            }
        }
        since
    })
}

fn registration() -> impl Strategy<Value = Registration> {
    prop_oneof![
        Just(Registration::Unknown),
        any::<u64>().prop_map(Registration::Made),
        Just(Registration::Removed),
    ]
}

fn hold() -> impl Strategy<Value = Hold> {
    (text(), text(), instant()).prop_map(|(who, why, since)| Hold { who, why, since })
}

fn runner() -> impl Strategy<Value = Runner> {
    let made = (runner_id(), runner_name(), pool(), forge(), scope(), option::of(group()));
    let with = (labels(), instance_id(), select(&RunnerState::ALL[..]), since(), registration());
    let outcome = option::of(select(&Outcome::ALL[..]));
    let past = (option::of(job_key()), option::of(instant()), outcome, option::of(hold()));
    (made, with, past).prop_map(|(made, with, past)| Runner {
        id: made.0,
        name: made.1,
        pool: made.2,
        forge: made.3,
        scope: made.4,
        group: made.5,
        labels: with.0,
        instance: with.1,
        state: with.2,
        since: with.3,
        registration: with.4,
        job: past.0,
        job_ended_at: past.1,
        outcome: past.2,
        hold: past.3,
    })
}

fn launch() -> impl Strategy<Value = LaunchCall> {
    (instant(), instant(), option::of(instant()))
        .prop_map(|(at, deadline, answered_at)| LaunchCall { at, deadline, answered_at })
}

fn exit() -> impl Strategy<Value = Exit> {
    (instant(), any::<Option<i32>>()).prop_map(|(at, code)| Exit { at, code })
}

fn instance() -> impl Strategy<Value = Instance> {
    let purpose = prop_oneof![
        runner_id().prop_map(Purpose::Runner),
        Just(Purpose::Standby),
        Just(Purpose::Builder),
    ];
    let needs = btree_map(resource(), any::<u64>(), 0..4).prop_map(Arc::new);
    let made = (instance_id(), provider(), pool(), purpose, needs, option::of(node()));
    let with = (any::<u64>(), select(&InstanceState::ALL[..]), instant());
    let past = (
        option::of(launch()),
        option::of(exit()),
        option::of(instant()),
        option::of(instant()),
        option::of(instant()),
    );
    (made, with, past).prop_map(|(made, with, past)| Instance {
        id: made.0,
        provider: made.1,
        pool: made.2,
        purpose: made.3,
        needs: made.4,
        node: made.5,
        epoch: with.0,
        state: with.1,
        created_at: with.2,
        launch: past.0,
        exit: past.1,
        missing_since: past.2,
        destroyed_at: past.3,
        gone_at: past.4,
    })
}

fn backoff_key() -> impl Strategy<Value = BackoffKey> {
    prop_oneof![
        pool().prop_map(BackoffKey::Pool),
        provider().prop_map(BackoffKey::Provider),
        (forge(), scope()).prop_map(|(forge, scope)| BackoffKey::Scope(forge, scope)),
        image().prop_map(BackoffKey::Image),
        (provider(), node()).prop_map(|(provider, node)| BackoffKey::Node(provider, node)),
    ]
}

fn drain_key() -> impl Strategy<Value = DrainKey> {
    prop_oneof![
        pool().prop_map(DrainKey::Pool),
        provider().prop_map(DrainKey::Provider),
        (provider(), node()).prop_map(|(provider, node)| DrainKey::Node(provider, node)),
    ]
}

fn drain() -> impl Strategy<Value = Drain> {
    (text(), text(), instant()).prop_map(|(who, why, since)| Drain { who, why, since })
}

fn recovering() -> impl Strategy<Value = Recovering> {
    (instant(), text()).prop_map(|(since, because)| Recovering { since, because })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    let proof = prop_oneof![Just(Proof::Job), Just(Proof::End)];
    let times = (instant(), instant(), instant());
    (any::<u32>(), times, text(), vec(text(), 0..4), proof, any::<bool>()).prop_map(
        |(failures, (since, failed_at, until), because, earlier, proof, full)| Backoff {
            failures,
            since,
            failed_at,
            until,
            because,
            earlier,
            proof,
            full,
        },
    )
}

fn stray_key() -> impl Strategy<Value = StrayRegistration> {
    (forge(), scope(), prop_oneof![0..3_u64, any::<u64>()])
        .prop_map(|(forge, scope, id)| StrayRegistration { forge, scope, id })
}

fn stray() -> impl Strategy<Value = Stray> {
    (runner_name(), instant(), instant(), option::of(instant())).prop_map(
        |(name, first_seen, last_seen, tried_at)| Stray { name, first_seen, last_seen, tried_at },
    )
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => job().prop_map(|job| Change::Job(Box::new(job))),
        3 => runner().prop_map(|runner| Change::Runner(Box::new(runner))),
        2 => instance().prop_map(|instance| Change::Instance(Box::new(instance))),
        1 => met().prop_map(|met| Change::Tenant(Box::new(met))),
        2 => (backoff_key(), option::of(backoff())).prop_map(|(key, it)| Change::Backoff(key, it)),
        2 => (drain_key(), option::of(drain())).prop_map(|(key, it)| Change::Drain(key, it)),
        1 => option::of(recovering()).prop_map(Change::Recovering),
        2 => (stray_key(), option::of(stray())).prop_map(|(key, it)| Change::Stray(key, it)),
        1 => (runner_id(), instance_id())
            .prop_map(|(runner, instance)| Change::Next { runner, instance }),
        1 => job_key().prop_map(Change::ForgetJob),
        1 => runner_id().prop_map(Change::ForgetRunner),
        1 => (job_key(), instant()).prop_map(|(key, at)| Change::Note(Note::Confirmed(key, at))),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::HeldByForge),
        (labels(), option::of((pool(), text()))).prop_map(|(labels, nearest)| {
            Reason::NoPoolHasLabels { wanted: Wanted::AllOf(labels), nearest }
        }),
        pool().prop_map(Reason::PoolFull),
        provider().prop_map(Reason::ProviderFull),
        pool().prop_map(Reason::NoNodeHasRoom),
        (tenant_key(), any::<u32>()).prop_map(|(tenant, cap)| Reason::TenantAtCap { tenant, cap }),
        (backoff_key(), instant(), text()).prop_map(|(what, until, because)| Reason::BackingOff {
            what,
            until,
            because
        }),
        backoff_key().prop_map(|what| Reason::Proving { what }),
        (backoff_key(), instant(), instant(), text()).prop_map(|(what, since, until, because)| {
            Reason::Quarantined { what, since, until, because }
        }),
        (drain_key(), text(), text(), instant())
            .prop_map(|(what, who, why, since)| Reason::Drained { what, who, why, since }),
        (pool(), any::<u32>(), instant()).prop_map(|(pool, jobs, until)| Reason::Gathering {
            pool,
            jobs,
            until
        }),
        Just(Reason::BehindOlder),
        pool().prop_map(Reason::BehindOthers),
        pool().prop_map(Reason::TrustUnknown),
        pool().prop_map(Reason::NotTrusted),
        runner_id().prop_map(Reason::RunnerStarting),
        runner_id().prop_map(Reason::RunnerIdle),
        instant().prop_map(|since| Reason::UnknownToForge { since }),
    ]
}

pub(crate) fn wait(job: impl Strategy<Value = JobKey>) -> impl Strategy<Value = WaitChange> {
    (job, instant(), vec(reason(), 0..4)).prop_map(|(job, at, reasons)| WaitChange {
        job,
        at,
        reasons: reasons.into(),
    })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    (instant(), option::of(job_key()), option::of(runner_id()), option::of(pool()), text())
        .prop_map(|(at, job, runner, pool, text)| Event { at, job, runner, pool, text })
}

pub(crate) fn delivery() -> impl Strategy<Value = Delivery> {
    let id = prop_oneof!["[0-9]".prop_map(String::into), text()];
    (forge(), id, text(), instant(), vec(any::<u8>(), 0..40)).prop_map(
        |(forge, id, event, received_at, body)| Delivery {
            forge,
            id,
            event,
            received_at,
            body: body.into(),
        },
    )
}
