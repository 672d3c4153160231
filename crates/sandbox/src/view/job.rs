//! Runs, jobs and the webhooks about them.

use serde_json::{Value, json};

use super::View;
use crate::clock::iso;
use crate::config::OwnerKind;
use crate::world::{Conclusion, Hook, HookAt, Job, JobAction, Run, StepState, StepStatus};

impl View<'_> {
    pub(crate) fn run(&self, run: &Run) -> Value {
        let repository = &self.world.repositories[&run.repository];
        let status = self.world.run_status(run.id);
        let api = self.repository_url(run.repository);
        let url = format!("{api}/actions/runs/{}", run.id);
        let html = format!("{}/{}", self.links.html, self.full_name(run.repository));
        let short = self.minimal_repository(repository);
        json!({
            "id": run.id,
            "name": run.name,
            "node_id": format!("WFR_{}", run.id),
            "check_suite_id": run.id,
            "check_suite_node_id": format!("CS_{}", run.id),
            "head_branch": "main",
            "head_sha": run.sha,
            "path": ".github/workflows/sandbox.yml",
            "display_title": run.name,
            "run_number": run.number,
            "event": "push",
            "status": status.as_str(),
            "conclusion": status.conclusion().map(Conclusion::as_str),
            "workflow_id": 1,
            "url": url,
            "html_url": format!("{html}/actions/runs/{}", run.id),
            "pull_requests": [],
            "created_at": iso(run.created_at),
            "updated_at": iso(run.updated_at),
            "actor": self.sender(),
            "triggering_actor": self.sender(),
            "run_attempt": run.attempt,
            "referenced_workflows": [],
            "run_started_at": iso(run.started_at),
            "jobs_url": format!("{url}/jobs"),
            "logs_url": format!("{url}/logs"),
            "check_suite_url": format!("{api}/check-suites/{}", run.id),
            "artifacts_url": format!("{url}/artifacts"),
            "cancel_url": format!("{url}/cancel"),
            "rerun_url": format!("{url}/rerun"),
            "previous_attempt_url":
                (run.attempt > 1).then(|| format!("{url}/attempts/{}", run.attempt - 1)),
            "workflow_url": format!("{api}/actions/workflows/1"),
            "head_commit": {
                "id": run.sha,
                "tree_id": run.sha,
                "message": run.name,
                "timestamp": iso(run.created_at),
                "author": { "name": "sandbox", "email": "sandbox@localhost.invalid" },
                "committer": { "name": "sandbox", "email": "sandbox@localhost.invalid" },
            },
            "repository": short,
            "head_repository": short,
        })
    }

    /// A job; the same fields in REST and in webhooks.
    pub(crate) fn job(&self, job: &Job) -> Value {
        let run = &self.world.runs[&job.run];
        let api = self.repository_url(job.repository);
        let html = format!("{}/{}", self.links.html, self.full_name(job.repository));
        let marks = &job.marks;
        let created_at = marks.queued_at.unwrap_or(marks.created_at);
        let runner = job.runner.as_ref();
        let steps: Vec<Value> =
            job.steps.iter().enumerate().map(|(index, state)| step(index + 1, state)).collect();
        json!({
            "id": job.id,
            "run_id": job.run,
            "workflow_name": run.name,
            "head_branch": "main",
            "run_url": format!("{api}/actions/runs/{}", job.run),
            "run_attempt": job.attempt,
            "node_id": format!("CR_{}", job.id),
            "head_sha": run.sha,
            "url": format!("{api}/actions/jobs/{}", job.id),
            "html_url": format!("{html}/actions/runs/{}/job/{}", job.run, job.id),
            "status": job.status().unwrap_or("queued"),
            "conclusion": job.conclusion().map(Conclusion::as_str),
            "created_at": iso(created_at),
            // GitHub tells the creation here until the job has started.
            "started_at": iso(marks.started_at.unwrap_or(created_at)),
            "completed_at": marks.completed_at.map(iso),
            "name": job.name,
            "steps": steps,
            "check_run_url": format!("{api}/check-runs/{}", job.id),
            "labels": job.labels,
            "runner_id": runner.map(|runner| runner.id),
            "runner_name": runner.map(|runner| &runner.name),
            "runner_group_id": runner.map(|runner| runner.group),
            "runner_group_name": runner.map(|runner| &runner.group_name),
        })
    }

    /// The body of a `workflow_job` webhook for one hook.
    pub(crate) fn workflow_job(&self, job: &Job, action: JobAction, hook: &Hook) -> Value {
        let repository = &self.world.repositories[&job.repository];
        let owner = &self.world.owners[&repository.owner];
        let mut body = json!({
            "action": action.as_str(),
            "workflow_job": self.job(job),
            "repository": self.repository(repository),
            "sender": self.sender(),
        });
        if owner.kind == OwnerKind::Organization {
            body["organization"] = self.organization(owner);
        }
        if let HookAt::App(app) = hook.at
            && let Some(installation) = self.world.installation(app, owner.id)
        {
            let id = installation.id;
            body["installation"] = json!({ "id": id, "node_id": format!("I_{id}") });
        }
        body
    }
}

fn step(number: usize, step: &StepState) -> Value {
    let (status, conclusion) = match step.status {
        StepStatus::Queued => ("queued", None),
        StepStatus::InProgress => ("in_progress", None),
        StepStatus::Completed(conclusion) => ("completed", Some(conclusion.as_str())),
    };
    json!({
        "name": step.name,
        "status": status,
        "conclusion": conclusion,
        "number": number,
        "started_at": step.started_at.map(iso),
        "completed_at": step.completed_at.map(iso),
    })
}
