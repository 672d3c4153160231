//! `remuda explain`: why a job is where it is, and how it got there.

use std::fmt::Write;

use clap::{Args, Subcommand};
use remuda_core::Timestamp;

use super::client::Client;
use super::query::{JobId, json};
use super::table::{Page, age, ago, cell, instant, render};
use super::{Output, State, runtime, say};
use crate::clock::now;
use crate::exit::Exit;
use crate::view::{Explanation, PoolRow, RunnerRow};

/// Tell why a job waits, what is being done about it, and what has happened to it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  remuda explain job github/812")]
pub(super) struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One job
    #[command(after_help = "Example:\n  remuda explain job github/812 -o json")]
    Job {
        /// Its number, or FORGE/NUMBER
        id: JobId,
        /// How to write the result
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let What::Job { id, output, state } = self.what;
        runtime()?.block_on(async {
            let explanation = id.ask(&Client::new(&state)?).await?;
            match output {
                Output::Json => json(&explanation)?,
                Output::Table => say(story(&explanation, now(), Page::stdout()).trim_end())?,
            }
            Ok(Exit::Done)
        })
    }
}

/// The whole of it, as text.
fn story(explanation: &Explanation, now: Timestamp, page: Page) -> String {
    let job = &explanation.job;
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
    let mut text = format!("job {} is {}\n", job.id, state.replacen("ended", "over, ended", 1));
    let attempt =
        if job.attempt > 1 { format!(", attempt {}", job.attempt) } else { String::new() };
    let facts = vec![
        vec![cell("  of"), cell(format!("{}, workflow {:?}", job.repository, job.workflow))],
        vec![cell("  named"), cell(format!("{:?}{attempt}", job.name))],
        vec![cell("  asks for"), cell(job.labels.join(", "))],
    ];
    let _ = writeln!(text, "{}", render(&[], &facts, page));
    reasons(&mut text, explanation, now, page);
    supply(&mut text, explanation, now, page);
    events(&mut text, explanation, page);
    text
}

fn reasons(text: &mut String, explanation: &Explanation, now: Timestamp, page: Page) {
    if explanation.reasons.is_empty() {
        if explanation.job.state == "queued" {
            text.push_str("\nIt has only just been queued: the next turn will plan for it.\n");
        }
        return;
    }
    let since = explanation.since.as_ref().map(|since| format!(" (for {})", ago(since, now)));
    let _ = writeln!(text, "\nWhy it is not running{}:", since.unwrap_or_default());
    let rows: Vec<_> = explanation
        .reasons
        .iter()
        .map(|reason| vec![cell(format!("  {}", reason.code)), cell(&reason.text)])
        .collect();
    let _ = writeln!(text, "{}", render(&[], &rows, page));
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
    use crate::view::{EventRow, JobRow, ReasonRow};

    const PAGE: Page = Page { width: Some(80), colour: false };

    fn at(second: u8) -> String {
        format!("2026-01-01T00:00:{second:02}.000Z")
    }

    fn waiting() -> Explanation {
        Explanation {
            job: JobRow {
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
            },
            since: Some(at(10)),
            reasons: vec![ReasonRow {
                code: "runner_starting".into(),
                text: "runner 7 is starting".into(),
            }],
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
            events: vec![
                EventRow {
                    sequence: 1,
                    at: at(0),
                    job: Some("github/812".into()),
                    runner: None,
                    text: "job github/812 of acme/app asks for self-hosted, linux".into(),
                },
                EventRow {
                    sequence: 4,
                    at: at(10),
                    job: None,
                    runner: Some(7),
                    text: "runner remuda-x-small-7 starts".into(),
                },
            ],
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
             Why it is not running (for 5s):\n\
             \x20 runner_starting  runner 7 is starting\n\
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
        ended.job.state = "completed".into();
        ended.job.conclusion = Some("failure".into());
        ended.job.completed_at = Some(at(9));
        ended.job.attempt = 2;
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
