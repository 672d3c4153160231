//! GitHub, on github.com and Enterprise Server: signed deliveries in, REST calls out.

use std::fmt;

use async_trait::async_trait;
use remuda_core::action::{Launch, Reach};
use remuda_core::budget::{Budget, Credential};
use remuda_core::fleet;
use remuda_core::hook::HookKey;
use remuda_core::job::JobKey;
use remuda_core::name::{ForgeName, GroupName, Login, RunnerName};
use remuda_core::observation::{JobSeen, RunnerSeen};
use remuda_core::tenant::{Repository, Scope};
use remuda_core::{Delivery, Observation, Timestamp};

mod auth;
mod bearer;
mod decode;
mod deliveries;
mod jobs;
mod rest;
mod runners;
mod verify;
mod wire;

pub use rest::CallLimits;

use crate::cache::Slots;
use crate::{
    Clock, DecodeError, FailedDeliveries, Forge, ForgeError, OpenJobs, RawDelivery, Refusal,
    Registered, Removal, SetupError,
};
use auth::{Access, Auth, Purpose};
use rest::{Answer, Ask, Rest};
use verify::Signers;

/// How many runner groups and accounts are remembered.
const REMEMBERED_MAX: usize = 4096;

/// A forge of the GitHub family, with every secret it needs loaded.
pub struct GitHub {
    name: ForgeName,
    group: GroupName,
    signers: Signers,
    auth: Auth,
    rest: Rest,
    groups: Slots<(Scope, GroupName), u64, ForgeError>,
    owners: Slots<Login, jobs::Owner, ForgeError>,
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHub").field("name", &self.name).finish_non_exhaustive()
    }
}

impl GitHub {
    /// Loads the secrets of a declared forge and makes its HTTP client. Asks nothing of the forge.
    pub fn new(forge: &fleet::Forge, clock: Clock) -> Result<Self, SetupError> {
        Self::with_limits(forge, clock, CallLimits::default())
    }

    /// The same, with other bounds on calls than the usual ones.
    pub fn with_limits(
        forge: &fleet::Forge,
        clock: Clock,
        limits: CallLimits,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            name: forge.name.clone(),
            group: forge.group.clone(),
            signers: Signers::new(forge)?,
            auth: Auth::new(forge)?,
            rest: Rest::new(&forge.api, clock, limits)?,
            groups: Slots::new(REMEMBERED_MAX),
            owners: Slots::new(REMEMBERED_MAX),
        })
    }

    /// Makes a call with each credential that serves a scope, the one with most calls left first, until
    /// one is neither turned away nor out of calls. Not a retry: each asks as somebody else, and one that
    /// was turned away had no effect.
    async fn with<T, F>(&self, scope: &Scope, call: impl Fn(Access) -> F) -> Result<T, ForgeError>
    where
        F: Future<Output = Result<T, ForgeError>>,
    {
        self.with_for(scope, Purpose::Runners, call).await
    }

    async fn with_for<T, F>(
        &self,
        scope: &Scope,
        purpose: Purpose,
        call: impl Fn(Access) -> F,
    ) -> Result<T, ForgeError>
    where
        F: Future<Output = Result<T, ForgeError>>,
    {
        let (mut serving, mut failed) = self.serving(scope, purpose).await;
        // The sort is stable: among equals, the fleet file's order holds.
        serving.sort_by_key(|access| std::cmp::Reverse(self.rest.left(&access.bearer.credential)));
        for access in serving {
            match call(access).await {
                Err(error) if error.weight() < 2 => failed = Some(graver(failed, error)),
                done => return done,
            }
        }
        Err(failed.unwrap_or_else(|| self.no_credential(scope)))
    }

    /// Every credential that serves a scope, the Apps or else the token; and what became of one that
    /// could not be had.
    async fn serving(&self, scope: &Scope, purpose: Purpose) -> (Vec<Access>, Option<ForgeError>) {
        let (mut all, mut failed) = (Vec::new(), None);
        for app in self.auth.apps() {
            match self.auth.app(&self.rest, app, scope, purpose).await {
                Ok(access) => all.extend(access),
                Err(error) => failed = Some(graver(failed, error)),
            }
        }
        // An App that should serve and fails is not covered up.
        if all.is_empty() && failed.is_none() {
            all.extend(self.auth.token());
        }
        (all, failed)
    }

    /// Every credential that serves a scope, or an error: what is seen by some is not all there is.
    async fn credentials(&self, scope: &Scope) -> Result<Vec<Access>, ForgeError> {
        match self.serving(scope, Purpose::Runners).await {
            (_, Some(error)) => Err(error),
            (all, None) if all.is_empty() => Err(self.no_credential(scope)),
            (all, None) => Ok(all),
        }
    }

    fn no_credential(&self, scope: &Scope) -> ForgeError {
        ForgeError::NoCredential { forge: self.name.clone(), scope: scope.clone() }
    }

    /// One request. A token that is no longer taken is forgotten.
    async fn send(&self, access: &Access, ask: &Ask) -> Result<Answer, ForgeError> {
        let answer = self.rest.send(&access.bearer, ask).await?;
        if answer.status == http::StatusCode::UNAUTHORIZED && self.auth.forget(access) {
            return Err(ForgeError::Stale { call: ask.name(), what: "the installation's token" });
        }
        Ok(answer)
    }

    /// Every page of a listing. A token that is no longer taken is forgotten.
    async fn pages<P: rest::Page>(
        &self,
        access: &Access,
        ask: Ask,
    ) -> Result<Vec<P::Item>, ForgeError> {
        let call = ask.name();
        match self.rest.pages::<P>(&access.bearer, ask).await {
            Err(ForgeError::Refused { status: http::StatusCode::UNAUTHORIZED, .. })
                if self.auth.forget(access) =>
            {
                Err(ForgeError::Stale { call, what: "the installation's token" })
            }
            done => done,
        }
    }
}

#[async_trait]
impl Forge for GitHub {
    fn verify(&self, raw: &RawDelivery<'_>) -> Result<Delivery, Refusal> {
        self.signers.verify(&self.name, raw)
    }

    fn decode(&self, delivery: &Delivery) -> Result<Vec<Observation>, DecodeError> {
        decode::decode(delivery)
    }

    async fn register(&self, launch: &Launch) -> Result<Registered, ForgeError> {
        self.with(&launch.scope, |access| self.register_as(access, launch)).await
    }

    async fn deregister(
        &self,
        scope: &Scope,
        name: &RunnerName,
        id: Option<u64>,
    ) -> Result<Removal, ForgeError> {
        self.with(scope, |access| self.deregister_as(access, scope, name, id)).await
    }

    async fn job(
        &self,
        scope: &Scope,
        repository: &Repository,
        key: &JobKey,
        asked_at: Timestamp,
    ) -> Result<Option<JobSeen>, ForgeError> {
        let call = |access| self.job_as(access, repository, key, asked_at);
        match self.with(scope, call).await {
            Err(error) if error.is_not_found() => Ok(None),
            done => done.map(Some),
        }
    }

    async fn jobs(
        &self,
        scope: &Scope,
        reach: &Reach,
        asked_at: Timestamp,
    ) -> Result<OpenJobs, ForgeError> {
        self.open_jobs(scope, reach, asked_at).await
    }

    async fn runners(&self, scope: &Scope) -> Result<Vec<RunnerSeen>, ForgeError> {
        self.with(scope, |access| self.runners_as(access, scope)).await
    }

    async fn deliveries(
        &self,
        hook: &HookKey,
        since: Timestamp,
        from: Option<&str>,
    ) -> Result<FailedDeliveries, ForgeError> {
        self.failed_deliveries(hook, since, from).await
    }

    async fn redeliver(&self, hook: &HookKey, id: u64) -> Result<(), ForgeError> {
        self.ask_for_delivery(hook, id).await
    }

    fn budgets(&self) -> Vec<(Credential, Budget)> {
        self.rest.budgets()
    }
}

/// Of two failures the one that says more; of two limits the one that ends first.
fn graver(old: Option<ForgeError>, new: ForgeError) -> ForgeError {
    match (old, new) {
        (
            Some(ForgeError::Limited { until, .. }),
            new @ ForgeError::Limited { until: sooner, .. },
        ) if sooner < until => new,
        (Some(old), new) if old.weight() >= new.weight() => old,
        (_, new) => new,
    }
}

/// The path under which the API keeps a scope.
fn scope_path(scope: &Scope) -> Result<String, ForgeError> {
    match scope {
        Scope::Organization(login) => Ok(format!("/orgs/{}", segment(login.as_str())?)),
        Scope::Enterprise(login) => Ok(format!("/enterprises/{}", segment(login.as_str())?)),
        Scope::Repository(repository) => repository_path(repository),
    }
}

/// The path under which the API keeps a repository.
fn repository_path(repository: &Repository) -> Result<String, ForgeError> {
    let (owner, name) = (repository.owner.as_str(), repository.name.as_str());
    Ok(format!("/repos/{}/{}", segment(owner)?, segment(name)?))
}

/// A name from outside as part of a path. GitHub's names are letters, digits, `-`, `_` and `.`; with
/// anything else, or with `..`, the request would go elsewhere than meant.
fn segment(name: &str) -> Result<&str, ForgeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(plain) && !name.is_empty() && name != "." && name != ".." {
        Ok(name)
    } else {
        Err(ForgeError::Unsupported(format!("{name:?} cannot be a name at this forge")))
    }
}

/// An RFC 3339 time.
fn time(text: &str) -> Option<Timestamp> {
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_a_request_astray() {
        for good in ["acme", "a-b_c.d", ".github", "..."] {
            assert_eq!(segment(good), Ok(good));
        }
        for bad in ["", ".", "..", "a b", "a?b", "a#b", "%2e%2e", "a\\b", "é"] {
            assert!(segment(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_fractions_and_offsets() {
        let millis = |text: &str| time(text).map(Timestamp::as_millis);
        assert_eq!(millis("1970-01-01T00:00:01Z"), Some(1000));
        assert_eq!(millis("1970-01-01T01:00:00.250+01:00"), Some(250));
        for bad in ["", "1970-01-01", "soon", "1970-01-01T00:00:01"] {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
    }
}
