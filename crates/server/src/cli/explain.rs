//! `remuda explain`: why a job, a runner, a pool or a provider is as it is, and how it got there.

use std::fmt::Write;

use clap::{Args, Subcommand};
use remuda_core::Timestamp;
use remuda_core::explain::{CODES, Code, code};

use super::client::{Client, ClientError};
use super::query::{JobId, RunnerName, json};
use super::table::{Page, age, ago, cell, instant, render};
use super::{Output, State, runtime, say};
use crate::clock::now;
use crate::exit::Exit;
use crate::explanation::{Explanation, ReasonRow};
use crate::view::{JobRow, PoolRow, RunnerRow};

/// Tell why something is as it is, until when, and who can change it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda explain job github/812\n  remuda explain pool small")]
pub(super) struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Why a job waits, what is being done about it, and what has happened to it
    #[command(after_help = "Example:\n  remuda explain job github/812 -o json")]
    Job {
        /// Its number, or FORGE/NUMBER
        id: JobId,
        #[command(flatten)]
        how: How,
    },
    /// What a runner does or waits for, and what has happened to it
    #[command(after_help = "Example:\n  remuda explain runner 42")]
    Runner {
        /// Its number, or the name it is registered under
        id: RunnerName,
        #[command(flatten)]
        how: How,
    },
    /// What keeps a pool from making another runner, and who waits for it
    #[command(after_help = "Example:\n  remuda explain pool small")]
    Pool {
        /// Its name
        id: String,
        #[command(flatten)]
        how: How,
    },
    /// Whether a provider answers and has room
    #[command(after_help = "Example:\n  remuda explain provider local")]
    Provider {
        /// Its name
        id: String,
        #[command(flatten)]
        how: How,
    },
    /// What a code means and what ends it; needs no server
    #[command(after_help = "Example:\n  remuda explain code pool_full")]
    Code {
        /// As `explain` shows it, such as `pool_full`
        name: String,
    },
}

#[derive(Debug, Args)]
struct How {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        runtime()?.block_on(async {
            match self.what {
                What::Job { id, how } => how.show(&id.ask(&how.client()?).await?),
                What::Runner { id, how } => {
                    let client = how.client()?;
                    let id = id.ask(&client).await?.id.to_string();
                    how.show(&client.get(&["v1", "explain", "runner", &id], &[]).await?)
                }
                What::Pool { id, how } => {
                    how.show(&how.client()?.get(&["v1", "explain", "pool", &id], &[]).await?)
                }
                What::Provider { id, how } => {
                    how.show(&how.client()?.get(&["v1", "explain", "provider", &id], &[]).await?)
                }
                What::Code { name } => meaning(&name),
            }
        })
    }
}

impl How {
    fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.state)
    }

    fn show(&self, explanation: &Explanation) -> anyhow::Result<Exit> {
        match self.output {
            Output::Json => json(explanation)?,
            Output::Table => say(story(explanation, now(), Page::stdout()).trim_end())?,
        }
        Ok(Exit::Done)
    }
}

fn meaning(name: &str) -> anyhow::Result<Exit> {
    let Some(Code { name, about, cause, cure, actor }) = code(name) else {
        let all: Vec<_> = CODES.iter().map(|code| code.name).collect();
        let text = format!("no code {name:?} is known, but {}", all.join(", "));
        return Err(ClientError::NotFound(text).into());
    };
    let facts: Vec<_> = [
        ("code", *name),
        ("about", about.as_str()),
        ("cause", *cause),
        ("ends when", *cure),
        ("who acts", actor.as_str()),
    ]
    .map(|(what, text)| vec![cell(what), cell(text)])
    .into();
    say(&render(&[], &facts, Page::stdout()))?;
    Ok(Exit::Done)
}

/// The whole of it, as text.
fn story(explanation: &Explanation, now: Timestamp, page: Page) -> String {
    let mut text = String::new();
    match (explanation.about.as_str(), &explanation.job) {
        ("job", Some(job)) => job_head(&mut text, job, now, page),
        (about, _) => {
            let _ = writeln!(text, "{about} {}", explanation.id);
        }
    }
    reasons(&mut text, explanation, now, page);
    supply(&mut text, explanation, now, page);
    events(&mut text, explanation, page);
    text
}

fn job_head(text: &mut String, job: &JobRow, now: Timestamp, page: Page) {
    let since = match job.state.as_str() {
        "completed" => job.completed_at.as_ref(),
        "in_progress" => job.started_at.as_ref(),
        _ => None,
    };
    let since = since.unwrap_or(&job.queued_at);
    let state = match (&job.conclusion, &job.runner) {
        (Some(conclusion), _) => format!("ended {} ago: {conclusion}", ago(since, now)),
        (None, Some(runner)) => format!("{} for {} on {runner}", job.state, ago(since, now)),
        (None, None) => format!("{} for {}", job.state, ago(since, now)),
    };
    let _ = writeln!(text, "job {} is {}", job.id, state.replacen("ended", "over, ended", 1));
    let attempt =
        if job.attempt > 1 { format!(", attempt {}", job.attempt) } else { String::new() };
    let facts = vec![
        vec![cell("  of"), cell(format!("{}, workflow {:?}", job.repository, job.workflow))],
        vec![cell("  named"), cell(format!("{:?}{attempt}", job.name))],
        vec![cell("  asks for"), cell(job.labels.join(", "))],
    ];
    let _ = writeln!(text, "{}", render(&[], &facts, page));
}

fn reasons(text: &mut String, explanation: &Explanation, now: Timestamp, page: Page) {
    let queued = explanation.job.as_ref().is_some_and(|job| job.state == "queued");
    let of_job = explanation.about == "job";
    if explanation.reasons.is_empty() {
        if of_job && queued {
            text.push_str("\nIt has only just been queued: the next turn will plan for it.\n");
        }
        return;
    }
    text.push_str(if of_job { "\nWhy it is not running:\n" } else { "\nHow it stands:\n" });
    let rows: Vec<_> = explanation
        .reasons
        .iter()
        .map(|reason| vec![cell(format!("  {}", reason.code)), cell(reason_line(reason, now))])
        .collect();
    let _ = writeln!(text, "{}", render(&[], &rows, page));
}

/// The reason, since when and until when, and what a person can do about it.
fn reason_line(reason: &ReasonRow, now: Timestamp) -> String {
    let mut line = reason.text.clone();
    if let Some(since) = &reason.since {
        let _ = write!(line, ", for {}", ago(since, now));
    }
    if let Some(next) = reason.next.as_deref().and_then(instant).filter(|next| *next > now) {
        let _ = write!(line, ", next in {}", age(next.since(now)));
    }
    if reason.actor != "nobody" {
        let _ = write!(line, "\n({}) {}", reason.actor, reason.cure);
    }
    line
}

fn supply(text: &mut String, explanation: &Explanation, now: Timestamp, page: Page) {
    let pools = explanation.pools.iter().map(|pool| ("pool", pool_line(pool)));
    let runners = explanation.runners.iter().map(|runner| ("runner", runner_line(runner, now)));
    let rows: Vec<_> = pools
        .chain(runners)
        .map(|(what, line)| vec![cell(format!("  {what}")), cell(line)])
        .collect();
    if !rows.is_empty() {
        let _ = writeln!(text, "\nWhat serves it:\n{}", render(&[], &rows, page));
    }
}

fn pool_line(pool: &PoolRow) -> String {
    let PoolRow { name, instances, max, starting, idle, busy, .. } = pool;
    let backoff = pool.backoff.as_ref().map(|why| format!("; backing off after: {why}"));
    format!(
        "{name}: {instances} of at most {max} instances; runners: {starting} starting, {idle} \
         idle, {busy} busy{}",
        backoff.unwrap_or_default()
    )
}

fn runner_line(runner: &RunnerRow, now: Timestamp) -> String {
    let since = runner.since.as_ref().map(|since| format!(" for {}", ago(since, now)));
    format!(
        "{} ({}) of pool {}: {}{}; instance {} at {} is {}",
        runner.id,
        runner.name,
        runner.pool,
        runner.state,
        since.unwrap_or_default(),
        runner.instance,
        runner.provider,
        runner.instance_state
    )
}

fn events(text: &mut String, explanation: &Explanation, page: Page) {
    let Some(first) = explanation.events.first() else { return };
    let _ = writeln!(text, "\nWhat has happened since {}:", first.at);
    let begun = instant(&first.at);
    let rows: Vec<_> = explanation
        .events
        .iter()
        .map(|event| vec![cell(format!("  {}", offset(begun, &event.at))), cell(&event.text)])
        .collect();
    let _ = writeln!(text, "{}", render(&[], &rows, page));
}

/// How long after the beginning something happened; to the millisecond within the first minute.
fn offset(begun: Option<Timestamp>, at: &str) -> String {
    let (Some(begun), Some(at)) = (begun, instant(at)) else { return "?".into() };
    let span = at.since(begun);
    if span.as_secs() < 60 {
        format!("+{:.3}s", span.as_secs_f64())
    } else {
        format!("+{}", age(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::EventRow;

    const PAGE: Page = Page { width: Some(80), colour: false };

    fn at(second: u8) -> String {
        format!("2026-01-01T00:00:{second:02}.000Z")
    }

    fn reason(code: &str, text: &str, next: Option<String>, actor: &str) -> ReasonRow {
        let (code, text, actor) = (code.into(), text.into(), actor.into());
        ReasonRow { code, text, since: Some(at(10)), next, actor, cure: "Mend it.".into() }
    }

    fn events() -> Vec<EventRow> {
        vec![
            EventRow {
                sequence: 1,
                at: at(0),
                job: Some("github/812".into()),
                runner: None,
                pool: None,
                text: "job github/812 of acme/app asks for self-hosted, linux".into(),
            },
            EventRow {
                sequence: 4,
                at: at(10),
                job: None,
                runner: Some(7),
                pool: None,
                text: "runner remuda-x-small-7 starts".into(),
            },
        ]
    }

    fn waiting() -> Explanation {
        Explanation {
            about: "job".into(),
            id: "github/812".into(),
            job: Some(JobRow {
                id: "github/812".into(),
                repository: "acme/app".into(),
                name: "build".into(),
                workflow: "CI".into(),
                labels: vec!["linux".into(), "self-hosted".into()],
                state: "queued".into(),
                conclusion: None,
                attempt: 1,
                runner: None,
                queued_at: at(0),
                started_at: None,
                completed_at: None,
                reasons: vec!["runner 7 is starting".into()],
            }),
            reasons: vec![
                reason("runner_starting", "runner 7 is starting", None, "nobody"),
                reason("backing_off", "pool large is backing off", Some(at(20)), "operator"),
            ],
            pools: vec![PoolRow {
                name: "small".into(),
                forge: "github".into(),
                scopes: Vec::new(),
                labels: Vec::new(),
                provider: "local".into(),
                image: "runner".into(),
                max: 4,
                min_idle: 0,
                instances: 2,
                starting: 1,
                idle: 0,
                busy: 1,
                backoff: None,
            }],
            runners: vec![RunnerRow {
                id: 7,
                name: "remuda-x-small-7".into(),
                pool: "small".into(),
                scope: "org:acme".into(),
                labels: Vec::new(),
                state: "starting".into(),
                since: Some(at(11)),
                job: None,
                outcome: None,
                instance: 7,
                provider: "local".into(),
                node: None,
                instance_state: "live".into(),
                hold: None,
            }],
            events: events(),
        }
    }

    #[test]
    fn a_waiting_job_is_explained_by_reasons_supply_and_events() {
        let now = instant(&at(15)).unwrap();
        assert_eq!(
            story(&waiting(), now, PAGE),
            "job github/812 is queued for 15s\n\
             \x20 of        acme/app, workflow \"CI\"\n\
             \x20 named     \"build\"\n\
             \x20 asks for  linux, self-hosted\n\
             \n\
             Why it is not running:\n\
             \x20 runner_starting  runner 7 is starting, for 5s\n\
             \x20 backing_off      pool large is backing off, for 5s, next in 5s\n\
             \x20                  (operator) Mend it.\n\
             \n\
             What serves it:\n\
             \x20 pool    small: 2 of at most 4 instances; runners: 1 starting, 0 idle, 1 busy\n\
             \x20 runner  7 (remuda-x-small-7) of pool small: starting for 4s; instance 7 at\n\
             \x20         local is live\n\
             \n\
             What has happened since 2026-01-01T00:00:00.000Z:\n\
             \x20 +0.000s   job github/812 of acme/app asks for self-hosted, linux\n\
             \x20 +10.000s  runner remuda-x-small-7 starts\n"
        );
    }

    #[test]
    fn an_ended_job_says_how_and_when() {
        let mut ended = waiting();
        let job = ended.job.as_mut().unwrap();
        job.state = "completed".into();
        job.conclusion = Some("failure".into());
        job.completed_at = Some(at(9));
        job.attempt = 2;
        (ended.reasons, ended.runners, ended.pools) = (Vec::new(), Vec::new(), Vec::new());
        ended.events.clear();
        let now = instant(&at(15)).unwrap();
        assert_eq!(
            story(&ended, now, PAGE),
            "job github/812 is over, ended 6s ago: failure\n\
             \x20 of        acme/app, workflow \"CI\"\n\
             \x20 named     \"build\", attempt 2\n\
             \x20 asks for  linux, self-hosted\n"
        );
    }
}
