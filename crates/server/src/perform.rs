//! Making the calls: an action in, an answer out. One attempt each, bounded in time; whatever happens is
//! told as an observation, and what to do about it is decided in the core.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use remuda_core::action::{Deregister, Destroy, Launch, Look, Redeliver};
use remuda_core::name::{ForgeName, ProviderName};
use remuda_core::observation::{Call, Cause, Observation, Subject};
use remuda_core::runner::InstanceId;
use remuda_core::{Action, Seen, Timestamp};
use remuda_forge::{FailedDeliveries, Forge, ForgeError, OpenJobs, Removal};
use remuda_provider::{Provider, ProviderError};
use tokio::sync::mpsc;
use tracing::debug;

use crate::clock::Clock;
use crate::tenure::Tenure;

/// Longest time for a call that is not a launch. Below [`remuda_core::controller::CALL_LOST`], so that
/// the controller never takes a call for lost that is still being made.
const CALL_MAX: Duration = Duration::from_secs(150);

/// Everything outside that calls can be made to.
#[derive(Clone)]
pub struct Outside {
    /// The time.
    pub clock: Clock,
    /// By name.
    pub forges: BTreeMap<ForgeName, Arc<dyn Forge>>,
    /// By name.
    pub providers: BTreeMap<ProviderName, Arc<dyn Provider>>,
    /// Declared providers whose instances this replica cannot see, with the reason. Every call to one
    /// fails with it: what cannot be seen must not look as if it were not there.
    pub elsewhere: BTreeMap<ProviderName, String>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("forges", &self.forges.keys())
            .field("providers", &self.providers.keys())
            .finish_non_exhaustive()
    }
}

/// What a failed call comes to.
struct Failed {
    call: Call,
    cause: Cause,
    message: String,
}

impl Failed {
    fn forge(call: Call, error: &ForgeError) -> Self {
        Self { call, cause: error.cause(), message: said(error) }
    }

    fn provider(call: Call, error: &ProviderError) -> Self {
        Self { call, cause: error.cause(), message: said(error) }
    }

    fn timed_out(call: Call, after: Duration) -> Self {
        let message = format!("no answer within {} s", after.as_secs());
        Self { call, cause: Cause::Unknown, message }
    }

    fn undeclared(call: Call, what: &dyn fmt::Display) -> Self {
        let message = format!("{what} is no longer declared");
        Self { call, cause: Cause::Invalid, message }
    }

    /// What was never begun.
    fn withheld(call: Call, message: &str) -> Self {
        Self { call, cause: Cause::Transient, message: message.into() }
    }
}

/// An error with its causes, on one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl Outside {
    /// No calls can be made to anything yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            forges: BTreeMap::new(),
            providers: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Makes a call, unless the lease may be over: then nothing is done, and nothing shown. Facts that
    /// are known before the call's end go to `early`; the rest is the answer.
    pub async fn perform(
        &self,
        action: Action,
        early: &mpsc::Sender<Seen>,
        tenure: &Tenure,
    ) -> Seen {
        let subject = action.subject();
        if !tenure.holds() {
            return Seen::Answer { subject, facts: Vec::new() };
        }
        debug!(subject = ?subject, "calling");
        let forge = action.forge().cloned();
        let outcome = match action {
            Action::Launch(launch) => self.launch(&launch, early, tenure).await,
            Action::Deregister(call) => bounded(Call::Deregister, self.deregister(&call)).await,
            Action::Destroy(call) => bounded(Call::Destroy, self.destroy(&call)).await,
            Action::Redeliver(call) => bounded(Call::Redeliver, self.redeliver(call)).await,
            Action::Look(look) => bounded(Call::Look, self.look(look, self.clock.now())).await,
        };
        let mut facts = outcome.unwrap_or_else(|failed| {
            let Failed { call, cause, message } = failed;
            let message = message.into();
            vec![Observation::Failed { subject: subject.clone(), call, cause, message }]
        });
        facts.extend(forge.into_iter().flat_map(|forge| self.budgets(&forge)));
        Seen::Answer { subject, facts }
    }

    /// What a forge has said of its budgets since it was last asked, whoever's calls it was said to.
    fn budgets(&self, forge: &ForgeName) -> Vec<Observation> {
        let news = self.forges.get(forge).map(|adapter| adapter.budgets()).unwrap_or_default();
        news.into_iter()
            .map(|(credential, budget)| {
                let forge = forge.clone();
                Observation::Budget { forge, credential, budget }
            })
            .collect()
    }

    fn forge(&self, call: Call, name: &ForgeName) -> Result<&Arc<dyn Forge>, Failed> {
        self.forges.get(name).ok_or_else(|| Failed::undeclared(call, &format_args!("forge {name}")))
    }

    fn provider(&self, call: Call, name: &ProviderName) -> Result<&Arc<dyn Provider>, Failed> {
        self.providers.get(name).ok_or_else(|| match self.elsewhere.get(name) {
            Some(why) => Failed { call, cause: Cause::Invalid, message: why.clone() },
            None => Failed::undeclared(call, &format_args!("provider {name}")),
        })
    }

    async fn launch(
        &self,
        launch: &Launch,
        early: &mpsc::Sender<Seen>,
        tenure: &Tenure,
    ) -> Result<Vec<Observation>, Failed> {
        let forge = self.forge(Call::Register, &launch.forge)?;
        let provider = self.provider(Call::Register, &launch.provider)?;
        let left = self.left(launch, Call::Register)?;
        let registered = tokio::time::timeout(left, forge.register(launch))
            .await
            .map_err(|_| Failed::timed_out(Call::Register, left))?
            .map_err(|error| Failed::forge(Call::Register, &error))?;
        let fact = Observation::Registered { runner: launch.runner, id: registered.id };
        // A receiver that is gone means that the server is stopping; the answer will find that out.
        let _ = early.send(Seen::Fact(fact)).await;
        // We may have been stopped since the call was begun, and another replica may lead.
        let left = self.left(launch, Call::Launch)?;
        if !tenure.holds() {
            return Err(Failed::withheld(Call::Launch, "the lease was lost before it was begun"));
        }
        let node = tokio::time::timeout(left, provider.launch(launch, &registered.jit))
            .await
            .map_err(|_| Failed::timed_out(Call::Launch, left))?
            .map_err(|error| Failed::provider(Call::Launch, &error))?;
        Ok(vec![Observation::Launched { instance: launch.instance, node }])
    }

    /// How long a launch may still take; a failure if it must no longer have an effect.
    fn left(&self, launch: &Launch, call: Call) -> Result<Duration, Failed> {
        let left = launch.deadline.since(self.clock.now());
        if left.is_zero() {
            return Err(Failed::withheld(call, "its deadline had passed before it was begun"));
        }
        Ok(left)
    }

    async fn deregister(&self, call: &Deregister) -> Result<Vec<Observation>, Failed> {
        let forge = self.forge(Call::Deregister, &call.forge)?;
        let removal = forge
            .deregister(&call.scope, &call.name, call.id)
            .await
            .map_err(|error| Failed::forge(Call::Deregister, &error))?;
        let subject = call.subject.clone();
        Ok(vec![match removal {
            Removal::Removed => Observation::Deregistered { subject },
            Removal::Busy => Observation::DeregisterBusy { subject },
        }])
    }

    async fn destroy(&self, call: &Destroy) -> Result<Vec<Observation>, Failed> {
        let asked_at = self.clock.now();
        self.provider(Call::Destroy, &call.provider)?
            .destroy(call.instance)
            .await
            .map_err(|error| Failed::provider(Call::Destroy, &error))?;
        Ok(vec![Observation::Destroyed { instance: call.instance, asked_at }])
    }

    async fn redeliver(&self, call: Redeliver) -> Result<Vec<Observation>, Failed> {
        let Redeliver { forge, hook, guid, id } = call;
        self.forge(Call::Redeliver, &forge)?
            .redeliver(&hook, id)
            .await
            .map_err(|error| Failed::forge(Call::Redeliver, &error))?;
        Ok(vec![Observation::Redelivered { forge, hook, guid }])
    }

    async fn look(&self, look: Look, asked_at: Timestamp) -> Result<Vec<Observation>, Failed> {
        let failed = |error| Failed::forge(Call::Look, &error);
        match look {
            Look::Job { key, scope, repository } => {
                let forge = self.forge(Call::Look, &key.forge)?;
                let seen = forge.job(&scope, &repository, &key, asked_at).await.map_err(failed)?;
                Ok(vec![seen.map_or(Observation::JobMissing { key, asked_at }, |seen| {
                    Observation::Job(Box::new(seen))
                })])
            }
            Look::Jobs { forge, scope, reach } => {
                let adapter = self.forge(Call::Look, &forge)?;
                let OpenJobs { all, covered, calls } =
                    adapter.jobs(&scope, &reach, asked_at).await.map_err(failed)?;
                let spent =
                    Observation::Spent { forge: forge.clone(), scope: scope.clone(), calls };
                Ok(vec![Observation::Jobs { forge, scope, asked_at, all, covered }, spent])
            }
            Look::Runners { forge, scope } => {
                let adapter = self.forge(Call::Look, &forge)?;
                let all = adapter.runners(&scope).await.map_err(failed)?;
                Ok(vec![Observation::Runners { forge, scope, asked_at, all }])
            }
            Look::Deliveries { forge, hook, since, from } => {
                let adapter = self.forge(Call::Look, &forge)?;
                let listed = adapter.deliveries(&hook, since, from.as_deref()).await;
                let FailedDeliveries { failed, next } = listed.map_err(failed)?;
                Ok(vec![Observation::Deliveries { forge, hook, asked_at, failed, next }])
            }
            Look::Instances { provider } => {
                let adapter = self.provider(Call::Look, &provider)?;
                let failed = |error| Failed::provider(Call::Look, &error);
                let all = adapter.instances().await.map_err(failed)?;
                let capacity = adapter.capacity().await.map_err(failed)?;
                Ok(vec![
                    Observation::Capacity { provider: provider.clone(), capacity },
                    Observation::Instances { provider, asked_at, all },
                ])
            }
        }
    }

    /// The last bytes an instance wrote, for people.
    pub async fn tail(
        &self,
        provider: &ProviderName,
        instance: InstanceId,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let adapter = self.provider(Call::Look, provider);
        let adapter = adapter.map_err(|Failed { message, .. }| anyhow::anyhow!(message))?;
        Ok(adapter.tail(instance, bytes_max).await?)
    }
}

async fn bounded(
    call: Call,
    work: impl Future<Output = Result<Vec<Observation>, Failed>>,
) -> Result<Vec<Observation>, Failed> {
    let ended = tokio::time::timeout(CALL_MAX, work).await;
    ended.unwrap_or_else(|_| Err(Failed::timed_out(call, CALL_MAX)))
}

/// The subject of an instance listing, for hints.
pub fn listing_of(provider: &ProviderName) -> Subject {
    Subject::Instances(provider.clone())
}
