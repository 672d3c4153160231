//! The fleet and the demand of the virtual world: overlapping labels, small pools, three owners.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use remuda_core::fleet::{
    Demand, Fleet, Forge, Hook, Image, JitBy, Polls, Process, Provider, ProviderKind, Quarantine,
    Tenants, Terms,
};
use remuda_core::label::LabelSet;
use remuda_core::name::{
    ForgeName, GroupName, ImageName, Login, NodeName, PoolName, ProviderName, RunnerName,
};
use remuda_core::observation::{Condition, InstanceSeen};
use remuda_core::pool::{Audience, Capacity, Gather, Limits, Pool};
use remuda_core::runner::InstanceId;
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};

use crate::rng::Rng;

const SURE: &str = "the virtual estate's names are plain";

pub(crate) fn forge() -> ForgeName {
    ForgeName::new("github").expect(SURE)
}

/// The scopes of the virtual forge with their owners, and a repository of each.
pub(crate) fn owners() -> &'static [(Tenant, Scope, Repository)] {
    static OWNERS: LazyLock<Vec<(Tenant, Scope, Repository)>> = LazyLock::new(|| {
        let all = scopes().into_iter();
        all.map(|(tenant, scope)| (tenant, scope.clone(), repository(&scope))).collect()
    });
    &OWNERS
}

fn scopes() -> Vec<(Tenant, Scope)> {
    let tenant = |kind, id, login| Tenant {
        key: TenantKey { forge: forge(), kind, id },
        login: Login::new(login).expect(SURE),
    };
    let scope = |text: &str| text.parse::<Scope>().expect(SURE);
    vec![
        (tenant(OwnerKind::Organization, 7, "acme"), scope("org:acme")),
        (tenant(OwnerKind::Organization, 8, "other"), scope("org:other")),
        // A user with an organization's number: they must stay apart.
        (tenant(OwnerKind::User, 7, "solo"), scope("repo:solo/app")),
    ]
}

/// A repository of the scope.
fn repository(scope: &Scope) -> Repository {
    match scope {
        Scope::Repository(repository) => repository.clone(),
        Scope::Organization(owner) | Scope::Enterprise(owner) => {
            format!("{owner}/app").parse().expect(SURE)
        }
    }
}

/// What a job asks for. Some ask for what two pools offer, some for what none does is left out: such a
/// job would rightly wait for ever.
pub(crate) fn labels(rng: &mut Rng) -> LabelSet {
    static LABELS: LazyLock<[LabelSet; 4]> = LazyLock::new(|| {
        ["linux", "linux rvv", "RVV", "arm"]
            .map(|labels| LabelSet::parse(labels.split(' ')).expect(SURE))
    });
    let index = usize::try_from(rng.below(4)).unwrap_or(0);
    LABELS[index].clone()
}

/// What every call that fails says.
pub(crate) fn failure() -> &'static Arc<str> {
    static FAILURE: LazyLock<Arc<str>> = LazyLock::new(|| "virtual failure".into());
    &FAILURE
}

/// The provider of that name.
pub(crate) fn provider(name: &str) -> ProviderName {
    ProviderName::new(name).expect(SURE)
}

/// A runner's name that another installation gave.
pub(crate) fn foreign_name(index: u64) -> RunnerName {
    RunnerName::new(&format!("remuda-other-pool-{index}")).expect(SURE)
}

const FOREIGN: InstanceId = InstanceId(7_000_000_001);

/// Another installation's instance, listed as if it were ours.
pub(crate) fn foreigner() -> InstanceSeen {
    InstanceSeen {
        id: FOREIGN,
        runner: Some(foreign_name(1)),
        node: None,
        condition: Condition::Running,
    }
}

/// True if the instance is another installation's.
pub(crate) fn is_foreign(id: InstanceId) -> bool {
    id == FOREIGN
}

/// An instance that does not exist.
pub(crate) fn phantom(rng: &mut Rng) -> InstanceSeen {
    let id = InstanceId(1 + rng.below(200));
    InstanceSeen { id, runner: None, node: None, condition: Condition::Running }
}

/// A provider's nodes.
pub(crate) fn nodes(provider: &ProviderName) -> &'static [NodeName] {
    static NODES: LazyLock<[NodeName; 3]> =
        LazyLock::new(|| ["a", "b", "c"].map(|name| NodeName::new(name).expect(SURE)));
    if provider.as_str() == "one" { &NODES[..2] } else { &NODES[2..] }
}

/// What a provider's nodes have: pools need nothing of it.
pub(crate) fn capacity(provider: &ProviderName) -> Capacity {
    let nodes = nodes(provider).iter().map(|node| (node.clone(), BTreeMap::new()));
    Capacity { nodes: nodes.collect() }
}

/// Most instances of provider two, fewer than its pools may have.
const PROVIDER_MAX: u32 = 4;

/// How long a job may run in the pool that declares a limit.
pub(crate) const JOB_LIMIT: Duration = Duration::from_mins(100);

/// How long a runner may live in the pool that keeps some.
const LIFETIME: Duration = Duration::from_mins(150);

/// Idle runners the estate keeps.
pub(crate) const MIN_IDLE: u32 = 1;

pub(crate) fn fleet() -> Arc<Fleet> {
    static FLEET: LazyLock<Arc<Fleet>> = LazyLock::new(declared);
    Arc::clone(&FLEET)
}

/// The same fleet where jobs are not listed.
pub(crate) fn unswept() -> Arc<Fleet> {
    static FLEET: LazyLock<Arc<Fleet>> = LazyLock::new(|| {
        let mut fleet = (*fleet()).clone();
        for forge in fleet.forges.values_mut() {
            forge.demand.sweep = None;
        }
        Arc::new(fleet)
    });
    Arc::clone(&FLEET)
}

fn declared() -> Arc<Fleet> {
    let scopes: Vec<Scope> = scopes().into_iter().map(|(_, scope)| scope).collect();
    let pools = [
        pool("small", "linux", "one", 3, 0, &[]),
        pool("rvv", "linux rvv", "one", 2, 0, &[]),
        pool("arm", "arm", "two", 3, 1, &scopes[..1]),
        pool("arm-rest", "arm", "two", 2, 0, &scopes[1..]),
    ];
    let providers = ["one", "two"].map(|name| {
        let name = ProviderName::new(name).expect(SURE);
        let provider = Provider {
            name: name.clone(),
            kind: ProviderKind::Process(Process {
                directory: None,
                node: None,
                capacity: BTreeMap::new(),
            }),
            max: (name.as_str() == "two").then_some(PROVIDER_MAX),
            launches_max: 4,
            launch_deadline: Duration::from_mins(1),
            poll: Duration::from_secs(30),
            absent: Duration::from_mins(1),
        };
        (name, provider)
    });
    let images = ["plain", "board"].map(|name| {
        let name = ImageName::new(name).expect(SURE);
        let image = Image {
            name: name.clone(),
            archive: None,
            command: vec!["run".into()],
            env: BTreeMap::new(),
            jit: JitBy::Env(JitBy::OFFICIAL.into()),
        };
        (name, image)
    });
    Arc::new(Fleet {
        forges: [(forge(), github(scopes))].into(),
        providers: providers.into(),
        images: images.into(),
        pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
        tenants: tenants(),
        // Soon, so that little suffices to tell it from failures that are only waited out.
        quarantine: Quarantine { after: 3, ..Quarantine::default() },
        ..Fleet::default()
    })
}

/// One has more weight, one a floor, one a cap of its own.
fn tenants() -> Tenants {
    let default = Terms { cap: 5, floor: 0, weight: 1 };
    let named = [
        ("acme", Terms { weight: 3, ..default }),
        ("other", Terms { cap: 3, ..default }),
        ("solo", Terms { floor: 2, ..default }),
    ];
    let named = named.map(|(login, terms)| {
        let login = Login::new(login).expect(SURE);
        ((forge(), login), (None, terms))
    });
    Tenants { default, by_login: named.into(), ..Tenants::default() }
}

fn github(scopes: Vec<Scope>) -> Forge {
    let hook = |(id, scope): (u64, &Scope)| Hook {
        id: Some(id),
        scope: Some(scope.clone()),
        secrets: Vec::new(),
    };
    let hooks = (1..).zip(&scopes).map(hook).collect();
    Forge {
        name: forge(),
        api: "https://forge.invalid".into(),
        apps: Vec::new(),
        token: None,
        hooks,
        scopes,
        group: GroupName::new("remuda").expect(SURE),
        polls: Polls::default(),
        demand: Demand::default(),
    }
}

fn pool(
    name: &str,
    labels: &str,
    provider: &str,
    max: u32,
    min_idle: u32,
    scopes: &[Scope],
) -> Pool {
    Pool {
        name: PoolName::new(name).expect(SURE),
        forge: forge(),
        scopes: scopes.to_vec(),
        group: None,
        labels: LabelSet::parse(labels.split(' ')).expect(SURE),
        provider: ProviderName::new(provider).expect(SURE),
        image: ImageName::new(if provider == "one" { "plain" } else { "board" }).expect(SURE),
        needs: Arc::new(BTreeMap::new()),
        min_idle,
        max,
        gather: Gather::default(),
        limits: Limits {
            job: (name == "rvv").then_some(JOB_LIMIT),
            lifetime: if min_idle > 0 { LIFETIME } else { Limits::default().lifetime },
            ..Limits::default()
        },
        audience: Audience::Anyone,
    }
}
