//! The fleet and the demand of the virtual world: overlapping labels, small pools, three owners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use remuda_core::fleet::{
    Fleet, Forge, Image, JitBy, Polls, Process, Provider, ProviderKind, Tenants, Terms,
};
use remuda_core::label::LabelSet;
use remuda_core::name::{ForgeName, GroupName, ImageName, Login, PoolName, ProviderName};
use remuda_core::pool::{Audience, Limits, Pool};
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};

use crate::rng::Rng;

const SURE: &str = "the virtual estate's names are plain";

pub(crate) fn forge() -> ForgeName {
    ForgeName::new("github").expect(SURE)
}

/// The scopes of the virtual forge with their owners.
pub(crate) fn owners() -> Vec<(Tenant, Scope)> {
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
pub(crate) fn repository(scope: &Scope) -> Repository {
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
    let choice = rng.pick(&["linux", "linux rvv", "RVV", "arm"]).expect("there are some");
    LabelSet::parse(choice.split(' ')).expect(SURE)
}

/// Idle runners the estate keeps.
pub(crate) const MIN_IDLE: usize = 1;

pub(crate) fn fleet() -> Arc<Fleet> {
    let scopes: Vec<Scope> = owners().into_iter().map(|(_, scope)| scope).collect();
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
            max: None,
            launches_max: 4,
            launch_deadline: Duration::from_mins(1),
            poll: Duration::from_secs(30),
            absent: Duration::from_mins(1),
        };
        (name, provider)
    });
    let image = Image {
        name: ImageName::new("plain").expect(SURE),
        archive: None,
        command: vec!["run".into()],
        env: BTreeMap::new(),
        jit: JitBy::Env(JitBy::OFFICIAL.into()),
    };
    Arc::new(Fleet {
        forges: [(forge(), github(scopes))].into(),
        providers: providers.into(),
        images: [(image.name.clone(), image)].into(),
        pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
        tenants: Tenants { default: Terms { cap: 5, ..Terms::default() }, ..Tenants::default() },
        ..Fleet::default()
    })
}

fn github(scopes: Vec<Scope>) -> Forge {
    Forge {
        name: forge(),
        api: "https://forge.invalid".into(),
        apps: Vec::new(),
        token: None,
        hooks: Vec::new(),
        scopes,
        group: GroupName::new("remuda").expect(SURE),
        polls: Polls::default(),
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
        image: ImageName::new("plain").expect(SURE),
        needs: Arc::new(BTreeMap::new()),
        min_idle,
        max,
        limits: Limits::default(),
        audience: Audience::Anyone,
    }
}
