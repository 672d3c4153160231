//! What came of a burst, from the sandbox's own records.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_sandbox::{JobReport, Statistics};
use serde::Serialize;

use super::super::stage::Leaks;
use super::super::table::{Cell, Page, cell, render};

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: i64,
    pub(crate) p95: i64,
    pub(crate) p99: i64,
    pub(crate) max: i64,
}

impl Percentiles {
    /// Of any number of values, by nearest rank; zeros if there are none.
    pub(crate) fn of(mut values: Vec<i64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1);
            values.get(rank - 1).copied().unwrap_or(0)
        };
        Self { p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// The result, as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tally {
    pub(super) jobs: usize,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) lost: usize,
    pub(super) leaked: u64,
    pub(super) runners_created: u64,
    pub(super) runners_removed: u64,
    pub(super) queue_to_start_ms: Percentiles,
    pub(super) wall_ms: u128,
    #[serde(skip)]
    by_labels: BTreeMap<String, Outcomes>,
    #[serde(skip)]
    leaks: Leaks,
    #[serde(skip)]
    hardship: Option<String>,
}

/// Jobs by how they ended.
#[derive(Clone, Debug, Default)]
struct Outcomes {
    jobs: usize,
    succeeded: usize,
    failed: usize,
    other: usize,
    lost: usize,
    waits: Vec<i64>,
}

impl Outcomes {
    fn take(&mut self, job: &JobReport) {
        self.jobs += 1;
        match (job.status.as_str(), job.conclusion.as_deref()) {
            ("completed", Some("success")) => self.succeeded += 1,
            ("completed", Some("failure")) => self.failed += 1,
            ("completed", Some(_)) => self.other += 1,
            _ => self.lost += 1,
        }
        self.waits.extend(job.started_at.zip(job.queued_at).map(|(start, queue)| start - queue));
    }

    fn row(&self, name: &str) -> Vec<Cell> {
        let waits = Percentiles::of(self.waits.clone());
        vec![
            cell(name),
            cell(self.jobs),
            cell(self.succeeded),
            cell(self.failed),
            cell(self.other),
            cell(self.lost),
            cell(seconds(waits.p50)),
            cell(seconds(waits.p95)),
            cell(seconds(waits.max)),
        ]
    }
}

fn seconds(millis: i64) -> String {
    format!("{}.{:02} s", millis / 1000, millis.rem_euclid(1000) / 10)
}

impl Tally {
    /// Counts. `jobs` are those that were submitted.
    pub(super) fn of(
        jobs: &[JobReport],
        statistics: &Statistics,
        leaks: Leaks,
        wall: Duration,
        is_hard: bool,
    ) -> Self {
        let mut all = Outcomes::default();
        let mut by_labels: BTreeMap<String, Outcomes> = BTreeMap::new();
        for job in jobs {
            all.take(job);
            by_labels.entry(job.labels.join(", ")).or_default().take(job);
        }
        let hooks = &statistics.deliveries;
        let hardship = is_hard.then(|| {
            format!(
                "{} webhooks lost, {} doubled; {} runners died, {} jobs put back",
                hooks.dropped + hooks.vanished,
                hooks.duplicated,
                statistics.runners.lost,
                statistics.requeued,
            )
        });
        Self {
            jobs: all.jobs,
            completed: all.jobs - all.lost,
            failed: all.failed,
            lost: all.lost,
            leaked: leaks.count(),
            runners_created: statistics.runners.created,
            runners_removed: statistics.runners.removed,
            queue_to_start_ms: Percentiles::of(all.waits),
            wall_ms: wall.as_millis(),
            by_labels,
            leaks,
            hardship,
        }
    }

    /// True if every job ended and nothing is left.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.leaked == 0
    }

    /// For people.
    pub(super) fn text(&self, page: Page) -> String {
        let mut all = Outcomes::default();
        let mut rows = Vec::new();
        for (labels, outcomes) in &self.by_labels {
            rows.push(outcomes.row(labels));
            all.jobs += outcomes.jobs;
            all.succeeded += outcomes.succeeded;
            all.failed += outcomes.failed;
            all.other += outcomes.other;
            all.lost += outcomes.lost;
            all.waits.extend(&outcomes.waits);
        }
        rows.push(all.row("all"));
        let headers =
            ["RUNS ON", "JOBS", "PASSED", "FAILED", "OTHER", "LOST", "WAIT P50", "P95", "MAX"];
        let mut facts = vec![
            vec![
                cell("runners"),
                cell(format!("{} made, {} removed", self.runners_created, self.runners_removed)),
            ],
            vec![cell("leaked"), cell(self.leaks.words())],
            vec![cell("took"), cell(seconds(i64::try_from(self.wall_ms).unwrap_or(i64::MAX)))],
        ];
        if let Some(hardship) = &self.hardship {
            facts.insert(0, vec![cell("hardship"), cell(hardship)]);
        }
        format!("{}\n\n{}", render(&headers, &rows, page), render(&[], &facts, page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(conclusion: Option<&str>, waited: Option<i64>) -> JobReport {
        JobReport {
            id: remuda_sandbox::JobId(1),
            run_id: remuda_sandbox::RunId(1),
            run_attempt: 1,
            repository: "acme/app".into(),
            name: "test".into(),
            labels: vec!["linux".into(), "small".into()],
            status: if conclusion.is_some() { "completed" } else { "queued" }.into(),
            conclusion: conclusion.map(Into::into),
            runner: None,
            requeues: 0,
            queued_at: Some(1000),
            assigned_at: None,
            started_at: waited.map(|waited| 1000 + waited),
            completed_at: None,
        }
    }

    fn tally(leaks: Leaks) -> Tally {
        let jobs = [
            job(Some("success"), Some(100)),
            job(Some("failure"), Some(300)),
            job(Some("skipped"), None),
            job(None, None),
        ];
        Tally::of(&jobs, &Statistics::default(), leaks, Duration::from_millis(1234), false)
    }

    #[test]
    fn a_job_that_failed_is_completed_and_one_that_did_not_end_is_lost() {
        let tally = tally(Leaks { registrations: 1, ..Leaks::default() });
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&tally).unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "jobs": 4, "completed": 3, "failed": 1, "lost": 1, "leaked": 1,
                "runners_created": 0, "runners_removed": 0,
                "queue_to_start_ms": {"p50": 100, "p95": 300, "p99": 300, "max": 300},
                "wall_ms": 1234,
            })
        );
        assert!(!tally.is_clean());
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let text = tally(Leaks::default()).text(Page { width: Some(80), colour: false });
        assert_eq!(
            text,
            "RUNS ON       JOBS  PASSED  FAILED  OTHER  LOST  WAIT P50  P95     MAX\n\
             linux, small  4     1       1       1      1     0.10 s    0.30 s  0.30 s\n\
             all           4     1       1       1      1     0.10 s    0.30 s  0.30 s\n\
             \n\
             runners  0 made, 0 removed\n\
             leaked   nothing\n\
             took     1.23 s"
        );
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let of = |values: Vec<i64>| Percentiles::of(values);
        assert_eq!(of(vec![]), Percentiles::default());
        assert_eq!(of(vec![7]), Percentiles { p50: 7, p95: 7, p99: 7, max: 7 });
        let hundred = of((1..=100).rev().collect());
        assert_eq!(hundred, Percentiles { p50: 50, p95: 95, p99: 99, max: 100 });
    }
}
