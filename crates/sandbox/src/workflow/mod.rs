//! Workflow files: the part of GitHub's syntax that runs without GitHub. What is not supported is
//! refused by name and place when the workflow is submitted, so that no job quietly does less.
//!
//! Supported: `name`, `on` (ignored: workflows are submitted), `permissions` (ignored: jobs get no
//! token), `env`, `defaults.run`, and per job `name`, `runs-on` (text, list or
//! `{group, labels}`), `needs`, `if`, `env`, `defaults.run`, `environment` (the job waits until it
//! is released), `strategy.matrix` (lists of scalars and `include`), `strategy.fail-fast`,
//! `timeout-minutes`, and `steps` with `id`, `name`, `if`, `run`, `shell`, `env`,
//! `working-directory`, `continue-on-error`, `timeout-minutes`.

pub(crate) mod expression;
mod matrix;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use expression::{Condition, Standing};

/// A map of environment variables, unexpanded.
pub(crate) type Env = BTreeMap<String, String>;
/// One combination of a matrix.
pub(crate) type Combination = BTreeMap<String, String>;

/// Most jobs of one matrix: GitHub's limit.
pub(crate) const MATRIX_MAX: usize = 256;
/// Largest workflow file, in bytes.
pub(crate) const WORKFLOW_BYTES_MAX: usize = 1024 * 1024;

/// Why a workflow is refused: every problem with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRefusal {
    /// All problems, in the order of the file.
    pub problems: Vec<WorkflowProblem>,
}

/// One thing in a workflow that cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowProblem {
    /// Where, such as `jobs.build.steps[2].uses`.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for WorkflowRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, WorkflowProblem { place, problem }) in self.problems.iter().enumerate() {
            write!(f, "{}{place}: {problem}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for WorkflowRefusal {}

/// A workflow that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    pub(crate) name: Option<String>,
    pub(crate) jobs: Vec<JobTemplate>,
}

/// One entry of `jobs`, before its matrix is laid out.
#[derive(Clone, Debug)]
pub(crate) struct JobTemplate {
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) group: Option<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) condition: Condition,
    pub(crate) environment: Option<String>,
    pub(crate) combinations: Vec<Combination>,
    pub(crate) fail_fast: bool,
    pub(crate) recipe: Arc<Recipe>,
}

/// What a runner does for a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Of the workflow, then of the job: the later wins.
    pub(crate) env: Vec<Env>,
    pub(crate) timeout_minutes: Option<f64>,
    pub(crate) steps: Vec<Step>,
}

/// One `run:` step, with the defaults applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) condition: Condition,
    pub(crate) run: String,
    pub(crate) shell: Shell,
    pub(crate) env: Env,
    pub(crate) working_directory: Option<String>,
    pub(crate) continue_on_error: bool,
    pub(crate) timeout_minutes: Option<f64>,
}

/// The shells a step may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shell {
    /// None named: `bash -e FILE`.
    Default,
    /// `bash`: `bash --noprofile --norc -eo pipefail FILE`.
    Bash,
    /// `sh`: `sh -e FILE`.
    Sh,
}

impl Workflow {
    /// Reads `text`, or says all that is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, WorkflowRefusal> {
        read::workflow(text)
    }
}
