use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::*;
use crate::config::{AppConfig, OwnerKind, Visibility};
use crate::id::GroupId;
use crate::workflow::Workflow;

const SECOND: Duration = Duration::from_secs(1);

/// A world with the organizations `acme` (repositories `app`, `lib` and the public `open`) and
/// `other` (`app`), and a clock that the test turns.
struct Stage {
    world: World,
    now: Timestamp,
    runners: u32,
}

impl Stage {
    fn new() -> Self {
        Self::seeded(1)
    }

    fn seeded(seed: u64) -> Self {
        let mut world = World::new(seed, Times::default(), Faults::default());
        let now = Timestamp::from_millis(1_700_000_000_000);
        world.create_app(AppConfig::new(1), now).unwrap();
        for (owner, name, visibility) in [
            ("acme", "app", Visibility::Private),
            ("acme", "lib", Visibility::Private),
            ("acme", "open", Visibility::Public),
            ("other", "app", Visibility::Private),
        ] {
            if world.owner(owner).is_none() {
                world.create_owner(owner, OwnerKind::Organization, now).unwrap();
            }
            world.create_repository(owner, name, visibility, now).unwrap();
        }
        world.take_effects();
        Self { world, now, runners: 0 }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.world.tick(self.now);
    }

    fn submit(&mut self, at: &str, yaml: &str) -> (RunId, Vec<JobId>) {
        let (owner, name) = at.split_once('/').unwrap();
        let repository = self.world.repository(owner, name).unwrap().id;
        let workflow = Arc::new(Workflow::parse(yaml).unwrap());
        let run = self.world.submit(repository, &workflow, yaml, self.now);
        (run, self.world.runs[&run].jobs.clone())
    }

    /// A run of one job with these labels.
    fn job(&mut self, at: &str, labels: &str) -> JobId {
        let yaml = format!("jobs: {{ a: {{ runs-on: [{labels}], steps: [{{ run: x }}] }} }}");
        self.submit(at, &yaml).1[0]
    }

    fn scope(&self, at: &str) -> Scope {
        match at.split_once('/') {
            None => Scope::Organization(self.world.owner(at).unwrap().id),
            Some((owner, name)) => {
                Scope::Repository(self.world.repository(owner, name).unwrap().id)
            }
        }
    }

    fn register(&mut self, at: &str, group: GroupId, labels: &[&str]) -> (RunnerId, String) {
        self.runners += 1;
        let name = format!("r{}", self.runners);
        let scope = self.scope(at);
        self.world.register(scope, group, &name, labels, self.now).unwrap()
    }

    /// A registered and connected runner; its number and session.
    fn runner(&mut self, at: &str, labels: &[&str]) -> (RunnerId, String) {
        let (_, credential) = self.register(at, GroupId(1), labels);
        self.world.connect(&credential, "linux", self.now).unwrap()
    }

    fn offered(&self, session: &str) -> Option<JobId> {
        match self.world.message(session).unwrap() {
            Some(Message::Offer(job)) => Some(job),
            Some(Message::Cancel(_)) | None => None,
        }
    }

    fn state(&self, job: JobId) -> JobState {
        self.world.jobs[&job].state
    }

    /// A runner at work on a new job; the job, the runner and its session.
    fn busy(&mut self) -> (JobId, RunnerId, String) {
        let job = self.job("acme/app", "x");
        let (runner, session) = self.runner("acme", &["x"]);
        self.world.acknowledge(&session, job, self.now).unwrap();
        (job, runner, session)
    }

    fn actions(&mut self) -> Vec<(JobId, JobAction)> {
        let effects = self.world.take_effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::JobEvent { job, action } => Some((job, action)),
                Effect::HookMade(_) | Effect::Wake(_) => None,
            })
            .collect()
    }
}

#[test]
fn the_job_queued_longest_goes_to_the_runner_that_has_all_its_labels() {
    let mut stage = Stage::new();
    let gpu = stage.job("acme/app", "Linux, GPU");
    stage.pass(SECOND);
    let older = stage.job("acme/lib", "linux");
    stage.pass(SECOND);
    stage.job("acme/app", "linux");
    let (_, plain) = stage.runner("acme", &["LINUX", "x64"]);
    assert_eq!(stage.offered(&plain), Some(older));
    let (_, large) = stage.runner("acme", &["linux", "gpu"]);
    assert_eq!(stage.offered(&large), Some(gpu));
}

#[test]
fn a_runner_serves_its_scope_only() {
    let mut stage = Stage::new();
    let (_, other) = stage.runner("other", &["x"]);
    let (_, lib) = stage.runner("acme/lib", &["x"]);
    let job = stage.job("acme/app", "x");
    assert_eq!(stage.state(job), JobState::Queued);
    assert_eq!((stage.offered(&other), stage.offered(&lib)), (None, None));
    let (_, app) = stage.runner("acme/app", &["x"]);
    assert_eq!(stage.offered(&app), Some(job));
}

#[test]
fn a_group_serves_only_the_repositories_it_may() {
    let mut stage = Stage::new();
    let acme = stage.world.owner("acme").unwrap().id;
    let lib = stage.world.repository("acme", "lib").unwrap().id;
    let selected = GroupVisibility::Selected(BTreeSet::from([lib]));
    let group = stage.world.create_group(acme, "Fast", selected, false).unwrap();
    let (_, credential) = stage.register("acme", group, &["x"]);
    let (_, fast) = stage.world.connect(&credential, "linux", stage.now).unwrap();
    let (_, default) = stage.runner("acme", &["y"]);
    stage.job("acme/app", "x");
    // The default group does not serve public repositories.
    stage.job("acme/open", "y");
    assert_eq!((stage.offered(&fast), stage.offered(&default)), (None, None));
    let named = "jobs: { a: { runs-on: { group: fast, labels: x }, steps: [{ run: x }] } }";
    let job = stage.submit("acme/lib", named).1[0];
    assert_eq!(stage.offered(&fast), Some(job));
}

#[test]
fn a_job_that_is_not_acknowledged_is_queued_again_and_uses_the_registration_up() {
    let mut stage = Stage::new();
    let job = stage.job("acme/app", "x");
    let (silent, session) = stage.runner("acme", &["x"]);
    assert_eq!(stage.offered(&session), Some(job));
    stage.pass(59 * SECOND);
    assert_eq!(stage.state(job), JobState::Offered(silent));
    stage.pass(SECOND);
    assert_eq!(stage.state(job), JobState::Queued);
    assert!(!stage.world.runners.contains_key(&silent));
    let late = stage.world.acknowledge(&session, job, stage.now).unwrap_err();
    assert_eq!(late, SessionError::NoSession);
    let (_, next) = stage.runner("acme", &["x"]);
    assert_eq!(stage.offered(&next), Some(job));
}

#[test]
fn a_runner_told_of_a_job_cannot_be_removed_and_an_idle_one_can() {
    let mut stage = Stage::new();
    let (idle, session) = stage.runner("acme", &["x"]);
    let job = stage.job("acme/app", "x");
    assert!(matches!(stage.world.deregister(idle), Err(RemoveError::Busy(_))));
    stage.world.acknowledge(&session, job, stage.now).unwrap();
    assert!(matches!(stage.world.deregister(idle), Err(RemoveError::Busy(_))));
    stage.world.complete(&session, job, Conclusion::Success, stage.now).unwrap();
    assert_eq!(stage.world.deregister(idle), Err(RemoveError::NotFound));
    let (free, _) = stage.runner("acme", &["x"]);
    assert_eq!(stage.world.deregister(free), Ok(()));
    let next = stage.job("acme/app", "x");
    assert_eq!(stage.state(next), JobState::Queued);
}

#[test]
fn a_registration_has_one_session_and_one_job() {
    let mut stage = Stage::new();
    let (_, credential) = stage.register("acme", GroupId(1), &["x"]);
    let (_, session) = stage.world.connect(&credential, "linux", stage.now).unwrap();
    let again = stage.world.connect(&credential, "linux", stage.now).unwrap_err();
    assert_eq!(again, SessionError::Conflict);
    let job = stage.job("acme/app", "x");
    stage.world.acknowledge(&session, job, stage.now).unwrap();
    stage.world.complete(&session, job, Conclusion::Success, stage.now).unwrap();
    let gone = stage.world.connect(&credential, "linux", stage.now).unwrap_err();
    assert_eq!(gone, SessionError::NotRegistered);
}

#[test]
fn a_job_that_nobody_takes_in_a_day_is_cancelled() {
    let mut stage = Stage::new();
    let job = stage.job("acme/app", "x");
    stage.pass(SECOND * (24 * 3600 - 1));
    assert_eq!(stage.state(job), JobState::Queued);
    stage.pass(SECOND);
    assert_eq!(stage.state(job), JobState::Done(Conclusion::Cancelled));
    let (_, session) = stage.runner("acme", &["x"]);
    assert_eq!(stage.offered(&session), None);
}

#[test]
fn a_registration_that_is_never_used_vanishes_after_a_day() {
    let mut stage = Stage::new();
    let (unused, _) = stage.register("acme", GroupId(1), &["x"]);
    let (_, session) = stage.runner("acme", &["x"]);
    stage.world.poll_opened(&session, stage.now);
    stage.pass(Duration::from_hours(24));
    assert!(!stage.world.runners.contains_key(&unused));
    assert_eq!(stage.world.runners.len(), 1, "the connected one is still there");
    assert_eq!(stage.world.counts.expired, 1);
}

#[test]
fn a_busy_runner_that_falls_silent_is_lost_and_its_job_fails() {
    let mut stage = Stage::new();
    let (job, runner, session) = stage.busy();
    stage.world.poll_opened(&session, stage.now);
    stage.pass(Duration::from_hours(2));
    assert_eq!(stage.state(job), JobState::Running(runner), "an open poll is contact");
    stage.world.poll_closed(&session, stage.now);
    stage.pass(SECOND * (10 * 60 - 1));
    assert_eq!(stage.state(job), JobState::Running(runner));
    stage.pass(SECOND);
    assert_eq!(stage.state(job), JobState::Done(Conclusion::Failure));
    assert!(stage.world.runners.is_empty());
}

#[test]
fn an_idle_runner_that_falls_silent_is_offline_and_gets_no_job() {
    let mut stage = Stage::new();
    let (runner, _) = stage.runner("acme", &["x"]);
    stage.pass(Duration::from_mins(10));
    assert!(matches!(stage.world.runners[&runner].presence, Presence::Offline));
    let job = stage.job("acme/app", "x");
    assert_eq!(stage.state(job), JobState::Queued);
}

#[test]
fn every_idle_runner_may_be_the_one() {
    let mut chosen = BTreeSet::new();
    for seed in 0..64 {
        let mut stage = Stage::seeded(seed);
        let sessions: Vec<_> = (0..4).map(|_| stage.runner("acme", &["x"]).1).collect();
        stage.job("acme/app", "x");
        let place = sessions.iter().position(|session| stage.offered(session).is_some()).unwrap();
        chosen.insert(place);
    }
    assert_eq!(chosen, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_requeued_job_keeps_its_number_and_forgets_its_runner() {
    let mut stage = Stage::new();
    let (job, runner, session) = stage.busy();
    stage.actions();
    assert!(stage.world.requeue(job, stage.now));
    assert_eq!(stage.actions(), [(job, JobAction::Queued)]);
    let back = &stage.world.jobs[&job];
    assert_eq!((back.state, back.runner.as_ref(), back.attempt), (JobState::Queued, None, 1));
    assert!(!stage.world.runners.contains_key(&runner));
    let late = stage.world.complete(&session, job, Conclusion::Success, stage.now).unwrap_err();
    assert_eq!(late, SessionError::NoSession);
    assert!(!stage.world.requeue(job, stage.now), "a queued job has no runner to lose");
}

#[test]
fn a_job_with_an_environment_waits_until_it_is_released() {
    let mut stage = Stage::new();
    let yaml = "jobs: { a: { runs-on: x, environment: prod, steps: [{ run: x }] } }";
    let (run, jobs) = stage.submit("acme/app", yaml);
    assert_eq!(stage.state(jobs[0]), JobState::Waiting);
    assert_eq!(stage.world.run_status(run), RunStatus::Waiting);
    assert_eq!(stage.actions(), [(jobs[0], JobAction::Waiting)]);
    assert!(stage.world.release(jobs[0], stage.now));
    assert_eq!(stage.actions(), [(jobs[0], JobAction::Queued)]);
    assert!(!stage.world.release(jobs[0], stage.now));
}

#[test]
fn one_failure_cancels_the_rest_of_a_matrix_unless_told_otherwise() {
    for (fail_fast, expected) in
        [(true, JobState::Done(Conclusion::Cancelled)), (false, JobState::Queued)]
    {
        let mut stage = Stage::new();
        let yaml = format!(
            "jobs: {{ a: {{ runs-on: x, strategy: {{ fail-fast: {fail_fast}, \
             matrix: {{ n: [1, 2, 3] }} }}, steps: [{{ run: x }}] }} }}"
        );
        let (_, jobs) = stage.submit("acme/app", &yaml);
        let (_, session) = stage.runner("acme", &["x"]);
        stage.world.acknowledge(&session, jobs[0], stage.now).unwrap();
        stage.world.complete(&session, jobs[0], Conclusion::Failure, stage.now).unwrap();
        assert_eq!((stage.state(jobs[1]), stage.state(jobs[2])), (expected, expected));
    }
}

#[test]
fn a_cancelled_job_is_cancelled_even_if_its_runner_does_not_answer() {
    let mut stage = Stage::new();
    let (job, runner, session) = stage.busy();
    let run = stage.world.jobs[&job].run;
    stage.world.cancel_run(run, stage.now).unwrap();
    assert_eq!(stage.world.message(&session), Ok(Some(Message::Cancel(job))));
    stage.world.poll_opened(&session, stage.now);
    stage.pass(SECOND * (5 * 60 - 1));
    assert_eq!(stage.state(job), JobState::Stopping(runner));
    stage.pass(SECOND);
    assert_eq!(stage.state(job), JobState::Done(Conclusion::Cancelled));
    assert_eq!(stage.world.cancel_run(run, stage.now), Err(RunError::Completed));
}

#[test]
fn a_rerun_makes_new_jobs_for_those_that_did_not_succeed() {
    let mut stage = Stage::new();
    let yaml = "jobs: { a: { runs-on: x, steps: [{ run: x }] },
                        b: { runs-on: y, needs: a, steps: [{ run: x }] } }";
    let (run, jobs) = stage.submit("acme/app", yaml);
    assert_eq!(stage.world.rerun(run, Rerun::All, stage.now), Err(RunError::Running));
    for (job, label, conclusion) in
        [(jobs[0], "x", Conclusion::Success), (jobs[1], "y", Conclusion::Failure)]
    {
        let (_, session) = stage.runner("acme", &[label]);
        stage.world.acknowledge(&session, job, stage.now).unwrap();
        stage.world.complete(&session, job, conclusion, stage.now).unwrap();
    }
    assert_eq!(stage.world.run_status(run), RunStatus::Completed(Conclusion::Failure));
    stage.world.rerun(run, Rerun::Failed, stage.now).unwrap();
    let latest = stage.world.runs[&run].jobs.clone();
    assert_eq!(latest[0], jobs[0]);
    assert_ne!(latest[1], jobs[1]);
    assert_eq!(
        (stage.world.jobs[&latest[1]].attempt, stage.state(latest[1])),
        (2, JobState::Queued)
    );
    assert_eq!(stage.world.runs[&run].earlier, [jobs[1]]);
}

/// What must hold at any moment.
fn check(world: &World) {
    for job in world.jobs.values() {
        match job.state {
            JobState::Offered(runner) => {
                assert_eq!(world.runners[&runner].duty(), Some(Duty::Offered(job.id)));
            }
            JobState::Running(runner) | JobState::Stopping(runner) => {
                assert_eq!(world.runners[&runner].duty(), Some(Duty::Busy(job.id)));
                assert_eq!(job.runner.as_ref().map(|runner| runner.id), Some(runner));
            }
            JobState::Queued => {
                let free = world.runners.values().find(|runner| {
                    let named = job.group.is_none();
                    let reaches = match runner.scope {
                        Scope::Organization(owner) => {
                            world.repositories[&job.repository].owner == owner
                        }
                        Scope::Repository(id) => job.repository == id,
                    };
                    runner.duty() == Some(Duty::Idle)
                        && reaches
                        && named
                        && runner.labels.satisfies(&job.wanted)
                });
                assert!(
                    free.is_none(),
                    "job {} is queued while {:?} is idle",
                    job.id,
                    free.map(|runner| runner.id)
                );
            }
            JobState::Blocked | JobState::Waiting | JobState::Done(_) => {}
        }
    }
    for runner in world.runners.values() {
        if let Some(Duty::Offered(job) | Duty::Busy(job)) = runner.duty() {
            assert!(world.jobs[&job].conclusion().is_none(), "{job} has ended");
        }
    }
}

#[test]
fn whatever_happens_jobs_and_runners_agree_and_nobody_idles_beside_work() {
    for seed in 0..60 {
        let mut stage = Stage::seeded(seed);
        let mut dice = StdRng::seed_from_u64(seed ^ 0xfeed);
        let mut sessions: Vec<String> = Vec::new();
        for _ in 0..200 {
            let any = dice.random_range(0..1000_usize);
            let job = stage.world.jobs.keys().nth(any % stage.world.jobs.len().max(1)).copied();
            let session = sessions.get(any % sessions.len().max(1)).cloned();
            let label = if any % 2 == 0 { "x" } else { "y" };
            match dice.random_range(0..10) {
                0 | 1 => drop(stage.job(if any % 3 == 0 { "acme/lib" } else { "acme/app" }, label)),
                2 => sessions.push(stage.runner("acme", &["x", label]).1),
                3 => sessions.push(stage.runner("acme/app", &[label]).1),
                4 => stage.pass(SECOND * u32::try_from(any).unwrap()),
                5 => drop(job.map(|job| stage.world.requeue(job, stage.now))),
                6 => {
                    let run = job.map(|job| stage.world.jobs[&job].run);
                    let _ = run.map(|run| stage.world.cancel_run(run, stage.now));
                }
                7 => {
                    let runner = stage.world.runners.keys().next().copied();
                    drop(runner.map(|runner| stage.world.deregister(runner)));
                }
                other => {
                    let Some(session) = session else { continue };
                    let duty = stage.world.runner_of(&session).ok();
                    let duty = duty.and_then(|runner| stage.world.runners[&runner].duty());
                    match duty {
                        Some(Duty::Offered(job)) if other == 8 => {
                            stage.world.acknowledge(&session, job, stage.now).unwrap();
                        }
                        Some(Duty::Busy(job)) => {
                            let now = stage.now;
                            stage.world.complete(&session, job, Conclusion::Success, now).unwrap();
                        }
                        Some(Duty::Offered(_) | Duty::Idle) => {
                            let runner = stage.world.runner_of(&session).unwrap();
                            stage.world.disconnect(runner, stage.now);
                        }
                        None => {}
                    }
                }
            }
            check(&stage.world);
        }
        let counts = stage.world.counts;
        let gone = counts.finished
            + counts.deregistered
            + counts.lost
            + counts.expired
            + counts.unacknowledged
            + counts.withdrawn;
        let left = stage.world.runners.len() as u64;
        assert_eq!(counts.registered, gone + left, "every registration is accounted for");
    }
}

#[test]
fn runners_without_a_process_take_and_end_jobs_and_are_never_out_of_touch() {
    let mut stage = Stage::new();
    let jobs: Vec<JobId> = (0..3).map(|_| stage.job("acme/app", "x")).collect();
    let acme = Scope::Organization(stage.world.owner("acme").unwrap().id);
    for name in ["a", "b"] {
        stage.world.register(acme, GroupId(1), name, &["x"], stage.now).unwrap();
    }
    stage.world.animate(stage.now);
    let job_is = |of: &Stage, job: usize| of.world.jobs[&jobs[job]].state;
    assert!(matches!(job_is(&stage, 0), JobState::Running(RunnerId(1))));
    assert!(matches!(job_is(&stage, 1), JobState::Running(RunnerId(2))));
    stage.pass(Duration::from_hours(12));
    assert!(matches!(job_is(&stage, 1), JobState::Running(_)));
    assert_eq!(stage.world.finish(1, stage.now), 1);
    assert_eq!(job_is(&stage, 0), JobState::Done(Conclusion::Success));
    assert_eq!((stage.world.runners.len(), stage.world.finish(9, stage.now)), (1, 1));
    assert!(matches!(job_is(&stage, 2), JobState::Queued));
}
