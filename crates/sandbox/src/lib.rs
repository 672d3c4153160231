//! A GitHub that fits in a test: REST, webhooks, JIT runners and their one job each.
//!
//! [`Sandbox::start`] serves on one address:
//!
//! - `/` and `/api/v3`: GitHub's REST, as far as a control plane for runners needs it (Apps and
//!   installation tokens, runner groups, JIT configurations, runners, workflow runs and jobs,
//!   webhook deliveries and their redelivery), with `ETag`s, pages and rate limits. The answers are
//!   checked against GitHub's published description by `tests/github/conformance.rs`.
//! - `/_runner`: how the runner program in [`runner`] gets its job and reports on it. This
//!   protocol is ours; GitHub's own is not public.
//! - `/_sandbox`: what GitHub has no API for: making accounts, submitting workflows, faults,
//!   statistics. The methods of [`Sandbox`] do the same in process.
//!
//! `/_sandbox` in short (JSON in and out; errors are `{"message": …}`):
//!
//! | request | does |
//! |---|---|
//! | `POST owners` `{login, kind}` | makes an account; `kind` is `organization` or `user` |
//! | `POST owners/{login}/repositories` `{name, visibility}` | makes a repository (`private` unless told) |
//! | `POST hooks` `{url, secret, owner, repository?}` | makes a webhook |
//! | `POST repos/{owner}/{repository}/workflows?count=N` | runs the YAML in the body N times |
//! | `GET jobs`, `GET jobs/{id}`, `GET jobs/{id}/log` | jobs with their times; a job's log so far |
//! | `POST jobs/{id}/release` | lets a job past its `environment` |
//! | `POST jobs/{id}/requeue` | loses the job's runner; the job is queued again |
//! | `GET runners`, `POST runners/{id}/lose` `{requeue}` | registrations; a runner vanishes |
//! | `GET deliveries` | the latest webhooks |
//! | `GET statistics` | totals |
//! | `GET faults`, `PUT faults` | the levers of [`Faults`] |
//!
//! It listens where it is told and asks nobody who they are on `/_sandbox`: it is for tests and
//! for trying things out, not for the open network.

mod clock;
mod config;
mod faults;
mod gate;
mod hex;
mod http;
mod id;
mod plain;
mod post;
mod report;
pub mod runner;
mod sandbox;
mod shared;
mod view;
mod wire;
mod workflow;
mod world;

pub use config::{
    AppConfig, Config, Hook, Limits, OwnerConfig, OwnerKind, PersonalToken, Times, Visibility,
};
pub use faults::{Family, Faults, RestFaults, WebhookFaults};
pub use id::{
    AppId, DeliveryId, GroupId, HookId, InstallationId, JobId, OwnerId, RepositoryId, RunId,
    RunnerId,
};
pub use report::{
    DeliveryReport, DeliveryStatistics, JobReport, RunnerReport, RunnerStatistics, Statistics,
};
pub use sandbox::{GroupAccess, SANDBOX_APP_KEY_PEM, Sandbox, SandboxError, Submitted};
pub use workflow::{WorkflowProblem, WorkflowRefusal};
