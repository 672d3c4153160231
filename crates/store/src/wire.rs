//! The small lists and choices that are kept as JSON text inside a column.
//!
//! These shapes are a file format: a field may be added with a default, none may change its meaning.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use remuda_core::job::RunnerRef;
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{
    ForgeName, ImageName, Login, NodeName, PoolName, ProviderName, Resource, RunnerName,
};
use remuda_core::pool::Needs;
use remuda_core::reason::{BackoffKey, DrainKey, Reason};
use remuda_core::runner::RunnerId;
use remuda_core::snapshot::Proof;
use remuda_core::tenant::{OwnerKind, Scope, TenantKey};
use remuda_core::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why a text is not what we would have written.
pub(crate) type Unreadable = Box<dyn Error + Send + Sync>;

fn text<T: Serialize>(wire: &T) -> String {
    serde_json::to_string(wire).expect("texts, numbers and lists of them are JSON")
}

fn wire<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    Ok(serde_json::from_str(text)?)
}

/// Labels as a JSON list.
pub(crate) fn labels_text(labels: &LabelSet) -> String {
    text(&label_list(labels))
}

/// Labels from a JSON list.
pub(crate) fn labels(text: &str) -> Result<LabelSet, Unreadable> {
    Ok(LabelSet::parse(wire::<Vec<String>>(text)?)?)
}

fn label_list(labels: &LabelSet) -> Vec<String> {
    labels.iter().map(|label| label.as_str().to_owned()).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedWire {
    AllOf(Vec<String>),
}

impl From<&Wanted> for WantedWire {
    fn from(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::AllOf(labels) => Self::AllOf(label_list(labels)),
        }
    }
}

impl WantedWire {
    fn read(self) -> Result<Wanted, Unreadable> {
        match self {
            Self::AllOf(labels) => Ok(Wanted::AllOf(LabelSet::parse(labels)?)),
        }
    }
}

/// What a job asks for, as JSON.
pub(crate) fn wanted_text(wanted: &Wanted) -> String {
    text(&WantedWire::from(wanted))
}

/// What a job asks for, from JSON.
pub(crate) fn wanted(text: &str) -> Result<Wanted, Unreadable> {
    wire::<WantedWire>(text)?.read()
}

/// What an instance takes, as a JSON object.
pub(crate) fn needs_text(needs: &Needs) -> String {
    let units: BTreeMap<&str, u64> =
        needs.iter().map(|(resource, units)| (resource.as_str(), *units)).collect();
    text(&units)
}

/// What an instance takes, from a JSON object.
pub(crate) fn needs(text: &str) -> Result<Needs, Unreadable> {
    let mut needs = BTreeMap::new();
    for (resource, units) in wire::<BTreeMap<String, u64>>(text)? {
        needs.insert(Resource::new(&resource)?, units);
    }
    Ok(Arc::new(needs))
}

#[derive(Serialize, Deserialize)]
struct RunnerRefWire {
    id: u64,
    name: String,
}

/// Runners as the forge named them, as a JSON list.
pub(crate) fn runner_refs_text(runners: &[RunnerRef]) -> String {
    let all: Vec<RunnerRefWire> = runners
        .iter()
        .map(|runner| RunnerRefWire { id: runner.id, name: runner.name.as_str().to_owned() })
        .collect();
    text(&all)
}

/// Runners as the forge named them, from a JSON list.
pub(crate) fn runner_refs(text: &str) -> Result<Vec<RunnerRef>, Unreadable> {
    wire::<Vec<RunnerRefWire>>(text)?
        .into_iter()
        .map(|runner| Ok(RunnerRef { id: runner.id, name: RunnerName::new(&runner.name)? }))
        .collect()
}

/// Logins as a JSON list.
pub(crate) fn logins_text(logins: &[Login]) -> String {
    text(&logins.iter().map(Login::as_str).collect::<Vec<_>>())
}

/// Logins from a JSON list.
pub(crate) fn logins(text: &str) -> Result<Vec<Login>, Unreadable> {
    let read = |login: &String| Login::new(login).map_err(Into::into);
    wire::<Vec<String>>(text)?.iter().map(read).collect()
}

/// The word for a kind of owner.
pub(crate) fn owner_kind(text: &str) -> Result<OwnerKind, Unreadable> {
    [OwnerKind::User, OwnerKind::Organization, OwnerKind::Enterprise]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| format!("{text:?} is no kind of owner").into())
}

#[derive(Serialize, Deserialize)]
struct TenantWire {
    forge: String,
    kind: String,
    id: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BackoffWire {
    Pool(String),
    Provider(String),
    Scope { forge: String, scope: String },
    Image(String),
    Node { provider: String, node: String },
}

impl From<&BackoffKey> for BackoffWire {
    fn from(key: &BackoffKey) -> Self {
        match key {
            BackoffKey::Pool(pool) => Self::Pool(pool.to_string()),
            BackoffKey::Provider(provider) => Self::Provider(provider.to_string()),
            BackoffKey::Scope(forge, scope) => {
                Self::Scope { forge: forge.to_string(), scope: scope.to_string() }
            }
            BackoffKey::Image(image) => Self::Image(image.to_string()),
            BackoffKey::Node(provider, node) => {
                Self::Node { provider: provider.to_string(), node: node.to_string() }
            }
        }
    }
}

impl BackoffWire {
    fn read(self) -> Result<BackoffKey, Unreadable> {
        Ok(match self {
            Self::Pool(pool) => BackoffKey::Pool(PoolName::new(&pool)?),
            Self::Provider(provider) => BackoffKey::Provider(ProviderName::new(&provider)?),
            Self::Scope { forge, scope } => {
                BackoffKey::Scope(ForgeName::new(&forge)?, scope.parse::<Scope>()?)
            }
            Self::Image(image) => BackoffKey::Image(ImageName::new(&image)?),
            Self::Node { provider, node } => {
                BackoffKey::Node(ProviderName::new(&provider)?, NodeName::new(&node)?)
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DrainWire {
    Pool(String),
    Provider(String),
    Node { provider: String, node: String },
}

impl From<&DrainKey> for DrainWire {
    fn from(key: &DrainKey) -> Self {
        match key {
            DrainKey::Pool(pool) => Self::Pool(pool.to_string()),
            DrainKey::Provider(provider) => Self::Provider(provider.to_string()),
            DrainKey::Node(provider, node) => {
                Self::Node { provider: provider.to_string(), node: node.to_string() }
            }
        }
    }
}

impl DrainWire {
    fn read(self) -> Result<DrainKey, Unreadable> {
        Ok(match self {
            Self::Pool(pool) => DrainKey::Pool(PoolName::new(&pool)?),
            Self::Provider(provider) => DrainKey::Provider(ProviderName::new(&provider)?),
            Self::Node { provider, node } => {
                DrainKey::Node(ProviderName::new(&provider)?, NodeName::new(&node)?)
            }
        })
    }
}

/// Causes as a JSON list.
pub(crate) fn causes_text(causes: &[Arc<str>]) -> String {
    text(&causes.iter().map(|cause| &**cause).collect::<Vec<_>>())
}

/// Causes from a JSON list.
pub(crate) fn causes(text: &str) -> Result<Vec<Arc<str>>, Unreadable> {
    Ok(wire::<Vec<String>>(text)?.into_iter().map(Arc::from).collect())
}

/// The word for what shows that something works again.
pub(crate) fn proof_text(proof: Proof) -> &'static str {
    match proof {
        Proof::Job => "job",
        Proof::End => "end",
    }
}

/// What shows that something works again, from its word.
pub(crate) fn proof(text: &str) -> Result<Proof, Unreadable> {
    [Proof::Job, Proof::End]
        .into_iter()
        .find(|proof| proof_text(*proof) == text)
        .ok_or_else(|| format!("{text:?} proves nothing").into())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReasonWire {
    HeldByForge,
    NoPoolHasLabels { wanted: WantedWire, nearest: Option<(String, String)> },
    PoolFull { pool: String },
    ProviderFull { provider: String },
    NoNodeHasRoom { pool: String },
    TenantAtCap { tenant: TenantWire, cap: u32 },
    BackingOff { what: BackoffWire, until: i64, because: String },
    Proving { what: BackoffWire },
    Quarantined { what: BackoffWire, since: i64, until: i64, because: String },
    Gathering { pool: String, jobs: u32, until: i64 },
    Drained { what: DrainWire, who: String, why: String, since: i64 },
    BehindOlder,
    BehindOthers { pool: String },
    TrustUnknown { pool: String },
    NotTrusted { pool: String },
    RunnerStarting { runner: u64 },
    RunnerIdle { runner: u64 },
    UnknownToForge { since: i64 },
}

impl From<&Reason> for ReasonWire {
    fn from(reason: &Reason) -> Self {
        match reason {
            Reason::HeldByForge => Self::HeldByForge,
            Reason::NoPoolHasLabels { wanted, nearest } => Self::NoPoolHasLabels {
                wanted: wanted.into(),
                nearest: nearest.as_ref().map(|(pool, lack)| (pool.to_string(), lack.to_string())),
            },
            Reason::PoolFull(pool) => Self::PoolFull { pool: pool.to_string() },
            Reason::ProviderFull(name) => Self::ProviderFull { provider: name.to_string() },
            Reason::NoNodeHasRoom(pool) => Self::NoNodeHasRoom { pool: pool.to_string() },
            Reason::TenantAtCap { tenant: TenantKey { forge, kind, id }, cap } => {
                let kind = kind.as_str().to_owned();
                let tenant = TenantWire { forge: forge.to_string(), kind, id: *id };
                Self::TenantAtCap { tenant, cap: *cap }
            }
            Reason::BackingOff { what, until, because } => Self::BackingOff {
                what: what.into(),
                until: until.as_millis(),
                because: because.to_string(),
            },
            Reason::Proving { what } => Self::Proving { what: what.into() },
            Reason::Quarantined { what, since, until, because } => Self::Quarantined {
                what: what.into(),
                since: since.as_millis(),
                until: until.as_millis(),
                because: because.to_string(),
            },
            Reason::Gathering { pool, jobs, until } => {
                Self::Gathering { pool: pool.to_string(), jobs: *jobs, until: until.as_millis() }
            }
            Reason::Drained { what, who, why, since } => Self::Drained {
                what: what.into(),
                who: who.to_string(),
                why: why.to_string(),
                since: since.as_millis(),
            },
            Reason::BehindOlder => Self::BehindOlder,
            Reason::BehindOthers(pool) => Self::BehindOthers { pool: pool.to_string() },
            Reason::TrustUnknown(pool) => Self::TrustUnknown { pool: pool.to_string() },
            Reason::NotTrusted(pool) => Self::NotTrusted { pool: pool.to_string() },
            Reason::RunnerStarting(runner) => Self::RunnerStarting { runner: runner.0 },
            Reason::RunnerIdle(runner) => Self::RunnerIdle { runner: runner.0 },
            Reason::UnknownToForge { since } => Self::UnknownToForge { since: since.as_millis() },
        }
    }
}

impl ReasonWire {
    fn read(self) -> Result<Reason, Unreadable> {
        Ok(match self {
            Self::HeldByForge => Reason::HeldByForge,
            Self::NoPoolHasLabels { wanted, nearest } => {
                let nearest = match nearest {
                    Some((pool, lack)) => Some((PoolName::new(&pool)?, lack.into())),
                    None => None,
                };
                Reason::NoPoolHasLabels { wanted: wanted.read()?, nearest }
            }
            Self::PoolFull { pool } => Reason::PoolFull(PoolName::new(&pool)?),
            Self::ProviderFull { provider } => Reason::ProviderFull(ProviderName::new(&provider)?),
            Self::NoNodeHasRoom { pool } => Reason::NoNodeHasRoom(PoolName::new(&pool)?),
            Self::TenantAtCap { tenant: TenantWire { forge, kind, id }, cap } => {
                let kind = owner_kind(&kind)?;
                let tenant = TenantKey { forge: ForgeName::new(&forge)?, kind, id };
                Reason::TenantAtCap { tenant, cap }
            }
            Self::BackingOff { what, until, because } => Reason::BackingOff {
                what: what.read()?,
                until: Timestamp::from_millis(until),
                because: because.into(),
            },
            Self::Proving { what } => Reason::Proving { what: what.read()? },
            Self::Quarantined { what, since, until, because } => Reason::Quarantined {
                what: what.read()?,
                since: Timestamp::from_millis(since),
                until: Timestamp::from_millis(until),
                because: because.into(),
            },
            Self::Gathering { pool, jobs, until } => Reason::Gathering {
                pool: PoolName::new(&pool)?,
                jobs,
                until: Timestamp::from_millis(until),
            },
            Self::Drained { what, who, why, since } => Reason::Drained {
                what: what.read()?,
                who: who.into(),
                why: why.into(),
                since: Timestamp::from_millis(since),
            },
            Self::BehindOlder => Reason::BehindOlder,
            Self::BehindOthers { pool } => Reason::BehindOthers(PoolName::new(&pool)?),
            Self::TrustUnknown { pool } => Reason::TrustUnknown(PoolName::new(&pool)?),
            Self::NotTrusted { pool } => Reason::NotTrusted(PoolName::new(&pool)?),
            Self::RunnerStarting { runner } => Reason::RunnerStarting(RunnerId(runner)),
            Self::RunnerIdle { runner } => Reason::RunnerIdle(RunnerId(runner)),
            Self::UnknownToForge { since } => {
                Reason::UnknownToForge { since: Timestamp::from_millis(since) }
            }
        })
    }
}

/// Reasons as a JSON list; `[]` if there are none.
pub(crate) fn reasons_text(reasons: &[Reason]) -> String {
    let all: Vec<ReasonWire> = reasons.iter().map(ReasonWire::from).collect();
    text(&all)
}

/// Reasons from a JSON list. One that only another version knows is left out: it is no cause to refuse
/// the books, and the next plan gives one of ours.
pub(crate) fn reasons(text: &str) -> Result<Arc<[Reason]>, Unreadable> {
    let all = wire::<Vec<serde_json::Value>>(text)?.into_iter();
    let known = all.filter_map(|one| serde_json::from_value::<ReasonWire>(one).ok());
    known.map(ReasonWire::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_text_keeps_its_shape_for_later_versions() {
        let wanted = Wanted::AllOf(LabelSet::parse(["rvv", "Linux"]).unwrap());
        assert_eq!(wanted_text(&wanted), r#"{"all_of":["linux","rvv"]}"#);
        let pool = PoolName::new("rvv").unwrap();
        let reasons = [
            Reason::HeldByForge,
            Reason::NoPoolHasLabels { wanted, nearest: Some((pool.clone(), "rvv".into())) },
            Reason::BackingOff {
                what: BackoffKey::Pool(pool),
                until: Timestamp::from_millis(5),
                because: "no image".into(),
            },
        ];
        let text = reasons_text(&reasons);
        assert_eq!(
            text,
            r#"["held_by_forge","#.to_owned()
                + r#"{"no_pool_has_labels":{"wanted":{"all_of":["linux","rvv"]},"nearest":["rvv","rvv"]}},"#
                + r#"{"backing_off":{"what":{"pool":"rvv"},"until":5,"because":"no image"}}]"#
        );
        assert_eq!(*super::reasons(&text).unwrap(), reasons);
    }

    #[test]
    fn a_reason_of_another_version_is_left_out() {
        let text = r#"["sunspots",{"moon":{"phase":3}},"held_by_forge"]"#;
        assert_eq!(*reasons(text).unwrap(), [Reason::HeldByForge]);
    }

    #[test]
    fn a_text_we_would_not_have_written_is_refused() {
        for text in ["", "[", "[\"\"]", "{}", "[3]"] {
            assert!(labels(text).is_err(), "{text:?}");
        }
        assert!(needs(r#"{"CPU":1}"#).is_err());
        assert!(reasons("sunspots").is_err());
        assert!(reasons(r#"[{"pool_full":{"pool":""}}]"#).is_err());
        assert!(owner_kind("band").is_err());
    }
}
