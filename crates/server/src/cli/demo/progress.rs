//! What is seen while the burst runs: on a terminal one picture that changes, elsewhere a line now
//! and then.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use remuda_core::runner::RunnerState;
use remuda_core::{Controller, Reason};
use remuda_sandbox::Statistics;

/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// Reasons shown at once.
const REASONS_MAX: usize = 3;
/// Characters of a line of the picture.
const WIDTH: usize = 78;

/// What the control plane says about jobs that are not running.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// Runners on their way.
    starting: usize,
    /// Jobs by the reason that they are not running.
    reasons: Vec<(String, usize)>,
}

impl Waits {
    /// Reads them.
    pub(super) fn read(controller: &Controller) -> Self {
        let state = |state| controller.world().runners_in(state).count();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (_, _, all) in controller.waits() {
            if let Some(reason) = all.first() {
                *reasons.entry(in_general(reason)).or_default() += 1;
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self { starting: state(RunnerState::Pending) + state(RunnerState::Starting), reasons }
    }

    /// The reasons that most jobs have, each with how many.
    pub(super) fn top(&self) -> impl Iterator<Item = String> {
        self.reasons.iter().take(REASONS_MAX).map(|(text, count)| format!("{count} wait: {text}"))
    }
}

/// A reason without the number of the runner it is about, so that like ones count as one.
fn in_general(reason: &Reason) -> String {
    match reason {
        Reason::RunnerStarting(_) => "a runner is starting".into(),
        Reason::RunnerIdle(_) => "a runner is online; the forge has yet to assign the job".into(),
        Reason::HeldByForge
        | Reason::NoPoolHasLabels { .. }
        | Reason::PoolFull(_)
        | Reason::ProviderFull(_)
        | Reason::NoNodeHasRoom(_)
        | Reason::TenantAtCap { .. }
        | Reason::BackingOff { .. }
        | Reason::Proving { .. }
        | Reason::BehindOlder
        | Reason::BehindOthers(_)
        | Reason::TrustUnknown(_)
        | Reason::NotTrusted(_)
        | Reason::Quarantined { .. }
        | Reason::Drained { .. }
        | Reason::Gathering { .. }
        | Reason::UnknownToForge { .. } => reason.to_string(),
    }
}

/// The picture, or the lines.
pub(super) struct Progress {
    bar: ProgressBar,
    plain: Option<Plain>,
}

struct Plain {
    said: String,
    at: Option<Instant>,
}

impl Progress {
    /// Nothing is shown before the first [`Self::show`].
    pub(super) fn new(jobs: usize) -> Self {
        let bar = ProgressBar::new(jobs as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs, {elapsed}\n{msg}");
        bar.set_style(style.expect("the template is right"));
        let plain =
            (!std::io::stderr().is_terminal()).then(|| Plain { said: String::new(), at: None });
        Self { bar, plain }
    }

    /// Shows how things stand.
    pub(super) fn show(&mut self, statistics: &Statistics, waits: &Waits) {
        let done = statistics.jobs_in("completed");
        let counts = counts(statistics, waits);
        if let Some(plain) = &mut self.plain {
            plain.show(&counts, waits);
            return;
        }
        let mut lines = vec![counts];
        lines.extend(waits.top().map(|line| format!("  {line}")));
        let cut = |line: String| line.chars().take(WIDTH).collect::<String>();
        self.bar.set_message(lines.into_iter().map(cut).collect::<Vec<_>>().join("\n"));
        self.bar.set_position(done);
    }

    /// Says what is done when all jobs have ended.
    pub(super) fn note(&mut self, text: &str) {
        if self.plain.is_some() {
            tell(text);
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Takes the picture away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Plain {
    fn show(&mut self, counts: &str, waits: &Waits) {
        if self.said == counts || self.at.is_some_and(|at| at.elapsed() < PLAIN_EVERY) {
            return;
        }
        let why = waits.top().next().map_or(String::new(), |why| format!("; {why}"));
        tell(&format!("{counts}{why}"));
        counts.clone_into(&mut self.said);
        self.at = Some(Instant::now());
    }
}

fn counts(statistics: &Statistics, waits: &Waits) -> String {
    let queued = ["blocked", "waiting", "queued"];
    let queued: u64 = queued.iter().map(|status| statistics.jobs_in(status)).sum();
    format!(
        "{queued} queued, {} starting, {} running, {} done ({} failed)",
        waits.starting,
        statistics.jobs_in("in_progress"),
        statistics.jobs_in("completed"),
        statistics.concluded("failure"),
    )
}

/// A line on standard error.
pub(super) fn tell(line: &str) {
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}
