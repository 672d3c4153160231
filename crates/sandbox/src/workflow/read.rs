//! From YAML text to a [`Workflow`], collecting every problem on the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use remuda_core::label::LabelSet;
use serde_yaml_ng::{Mapping, Value};

use super::{
    Combination, Condition, Env, JobTemplate, MATRIX_MAX, Recipe, Shell, Step, WORKFLOW_BYTES_MAX,
    Workflow, WorkflowProblem, WorkflowRefusal, expression, matrix,
};

const GITHUB: [&str; 9] = [
    "repository",
    "repository_owner",
    "run_id",
    "run_number",
    "run_attempt",
    "job",
    "sha",
    "workflow",
    "ref",
];
const RUNNER: [&str; 4] = ["os", "arch", "name", "temp"];

pub(super) fn workflow(text: &str) -> Result<Workflow, WorkflowRefusal> {
    let mut reader = Reader::default();
    let workflow = reader.workflow(text);
    match workflow {
        Some(workflow) if reader.problems.is_empty() => Ok(workflow),
        _ => Err(WorkflowRefusal { problems: reader.problems }),
    }
}

#[derive(Default)]
struct Reader {
    problems: Vec<WorkflowProblem>,
}

/// What `defaults.run` sets.
#[derive(Clone, Default)]
struct Defaults {
    shell: Option<Shell>,
    working_directory: Option<String>,
}

/// The names an expression at some place may use.
struct Names<'a> {
    matrix: &'a BTreeSet<String>,
    steps: Option<&'a BTreeSet<String>>,
}

impl Reader {
    fn refuse(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(WorkflowProblem { place: place.into(), problem: problem.into() });
    }

    fn workflow(&mut self, text: &str) -> Option<Workflow> {
        if text.len() > WORKFLOW_BYTES_MAX {
            let bytes = text.len();
            self.refuse("file", format!("{bytes} bytes; at most {WORKFLOW_BYTES_MAX} are read"));
            return None;
        }
        let root: Value = match serde_yaml_ng::from_str(text) {
            Ok(root) => root,
            Err(error) => {
                self.refuse("file", format!("not YAML: {error}"));
                return None;
            }
        };
        let root = self.mapping("file", &root)?;
        let known = ["name", "run-name", "on", "permissions", "env", "defaults", "jobs"];
        self.only("", root, &known, "is not supported by the sandbox");
        let name = root.get("name").and_then(|value| self.text("name", value));
        let none = BTreeSet::new();
        let names = Names { matrix: &none, steps: None };
        let env = self.env("env", root.get("env"), &names);
        let defaults = self.defaults("defaults", root.get("defaults"), Defaults::default());
        let Some(jobs) = root.get("jobs") else {
            self.refuse("jobs", "is missing");
            return None;
        };
        let jobs = self.mapping("jobs", jobs)?;
        if jobs.is_empty() {
            self.refuse("jobs", "holds no job");
        }
        let mut templates = Vec::new();
        for (key, job) in jobs {
            let Some(key) = scalar(key) else {
                self.refuse("jobs", "a job's id is not a text");
                continue;
            };
            templates.extend(self.job(&key, job, &env, &defaults));
        }
        self.check_needs(&templates);
        Some(Workflow { name, jobs: templates })
    }

    fn job(
        &mut self,
        key: &str,
        job: &Value,
        workflow_env: &Env,
        defaults: &Defaults,
    ) -> Option<JobTemplate> {
        let place = format!("jobs.{key}");
        let at = |name: &str| format!("{place}.{name}");
        let job = self.mapping(&place, job)?;
        let known = [
            "name",
            "runs-on",
            "needs",
            "if",
            "permissions",
            "env",
            "defaults",
            "environment",
            "strategy",
            "timeout-minutes",
            "steps",
        ];
        self.only(&place, job, &known, "is not supported by the sandbox");
        let (combinations, fail_fast) = self.strategy(&at("strategy"), job.get("strategy"));
        let keys: BTreeSet<String> =
            combinations.iter().flat_map(|combination| combination.keys().cloned()).collect();
        let names = Names { matrix: &keys, steps: None };
        let name = job.get("name").and_then(|value| self.text(&at("name"), value));
        if let Some(name) = &name {
            self.expressions(&at("name"), name, &names, Before::Assignment);
        }
        let (labels, group) =
            self.runs_on(&at("runs-on"), job.get("runs-on"), &combinations, &names);
        let needs = job.get("needs").map_or(Vec::new(), |value| self.texts(&at("needs"), value));
        let environment = job.get("environment").and_then(|value| match value {
            Value::Mapping(map) => map.get("name").and_then(scalar),
            value => self.text(&at("environment"), value),
        });
        let env = self.env(&at("env"), job.get("env"), &names);
        let defaults = self.defaults(&at("defaults"), job.get("defaults"), defaults.clone());
        let steps = self.steps(&at("steps"), job.get("steps"), &keys, &defaults);
        let recipe = Recipe {
            env: vec![workflow_env.clone(), env],
            timeout_minutes: self.minutes(&at("timeout-minutes"), job.get("timeout-minutes")),
            steps,
        };
        Some(JobTemplate {
            key: key.into(),
            name,
            labels,
            group,
            needs,
            condition: self.condition(&at("if"), job.get("if")),
            environment,
            combinations,
            fail_fast,
            recipe: Arc::new(recipe),
        })
    }

    fn runs_on(
        &mut self,
        place: &str,
        value: Option<&Value>,
        combinations: &[Combination],
        names: &Names<'_>,
    ) -> (Vec<String>, Option<String>) {
        let (labels, group) = match value {
            None => {
                self.refuse(place, "is missing");
                return (Vec::new(), None);
            }
            Some(Value::Mapping(map)) => {
                self.only(place, map, &["group", "labels"], "is not a key of runs-on");
                let labels = map
                    .get("labels")
                    .map_or(Vec::new(), |labels| self.texts(&format!("{place}.labels"), labels));
                let group =
                    map.get("group").and_then(|group| self.text(&format!("{place}.group"), group));
                (labels, group)
            }
            Some(value) => (self.texts(place, value), None),
        };
        if labels.is_empty() && group.is_none() {
            self.refuse(place, "names no label");
        }
        for text in labels.iter().chain(&group) {
            self.expressions(place, text, names, Before::Matching);
        }
        for combination in combinations {
            let expanded = labels.iter().map(|label| {
                expression::expand(label, |name| {
                    name.strip_prefix("matrix.").and_then(|key| combination.get(key)).cloned()
                })
            });
            if let Err(error) = LabelSet::parse(expanded) {
                self.refuse(place, error.to_string());
                break;
            }
        }
        (labels, group)
    }

    fn strategy(&mut self, place: &str, value: Option<&Value>) -> (Vec<Combination>, bool) {
        let alone = vec![Combination::new()];
        let Some(value) = value else { return (alone, true) };
        let Some(strategy) = self.mapping(place, value) else { return (alone, true) };
        self.only(place, strategy, &["matrix", "fail-fast"], "is not supported by the sandbox");
        let fail_fast =
            self.flag(&format!("{place}.fail-fast"), strategy.get("fail-fast")).unwrap_or(true);
        let Some(value) = strategy.get("matrix") else { return (alone, fail_fast) };
        let place = format!("{place}.matrix");
        let Some(matrix) = self.mapping(&place, value) else { return (alone, fail_fast) };
        let mut axes = Vec::new();
        let mut include = Vec::new();
        for (key, values) in matrix {
            let Some(name) = scalar(key) else { continue };
            let place = format!("{place}.{name}");
            match name.as_str() {
                "include" => include = self.include(&place, values),
                "exclude" => self.refuse(place, "is not supported by the sandbox"),
                _ => {
                    let values = self.list(&place, values);
                    if values.is_empty() {
                        self.refuse(&place, "is an empty list");
                    }
                    axes.push((name, values));
                }
            }
        }
        // Multiplied before it is laid out: ten lists of ten would be ten thousand million.
        let count = axes.iter().fold(1_usize, |count, (_, list)| count.saturating_mul(list.len()));
        if count.max(include.len()) > MATRIX_MAX {
            self.refuse(place, format!("makes more than {MATRIX_MAX} jobs, GitHub's limit"));
            return (alone, fail_fast);
        }
        let combinations = matrix::combinations(&axes, &include);
        if combinations.is_empty() || combinations.len() > MATRIX_MAX {
            let count = combinations.len();
            self.refuse(place, format!("makes {count} jobs; 1 to {MATRIX_MAX} are allowed"));
            return (alone, fail_fast);
        }
        (combinations, fail_fast)
    }

    fn include(&mut self, place: &str, value: &Value) -> Vec<Combination> {
        let Value::Sequence(entries) = value else {
            self.refuse(place, "is not a list");
            return Vec::new();
        };
        let mut include = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = format!("{place}[{index}]");
            let Some(entry) = self.mapping(&place, entry) else { continue };
            include.push(self.scalars(&place, entry));
        }
        include
    }

    fn steps(
        &mut self,
        place: &str,
        value: Option<&Value>,
        matrix: &BTreeSet<String>,
        defaults: &Defaults,
    ) -> Vec<Step> {
        let Some(Value::Sequence(values)) = value else {
            self.refuse(place, if value.is_none() { "is missing" } else { "is not a list" });
            return Vec::new();
        };
        if values.is_empty() {
            self.refuse(place, "holds no step");
        }
        let mut ids = BTreeSet::new();
        let mut steps = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let names = Names { matrix, steps: Some(&ids) };
            let step = self.step(&format!("{place}[{index}]"), value, &names, defaults);
            if let Some(id) = step.as_ref().and_then(|step| step.id.clone()) {
                ids.insert(id);
            }
            steps.extend(step);
        }
        steps
    }

    fn step(
        &mut self,
        place: &str,
        value: &Value,
        names: &Names<'_>,
        defaults: &Defaults,
    ) -> Option<Step> {
        let at = |name: &str| format!("{place}.{name}");
        let step = self.mapping(place, value)?;
        if step.contains_key("uses") {
            self.refuse(at("uses"), "actions are not supported by the sandbox, only `run` is");
            return None;
        }
        let known = [
            "id",
            "name",
            "if",
            "run",
            "shell",
            "env",
            "working-directory",
            "continue-on-error",
            "timeout-minutes",
        ];
        self.only(place, step, &known, "is not supported by the sandbox");
        let Some(run) = step.get("run") else {
            self.refuse(at("run"), "is missing");
            return None;
        };
        let run = self.text(&at("run"), run)?;
        let shown = run.trim().lines().next().unwrap_or_default();
        let name = step
            .get("name")
            .and_then(|name| self.text(&at("name"), name))
            .unwrap_or_else(|| format!("Run {shown}"));
        let directory = step
            .get("working-directory")
            .and_then(|value| self.text(&at("working-directory"), value))
            .or_else(|| defaults.working_directory.clone());
        for (key, text) in [("run", Some(&run)), ("working-directory", directory.as_ref())] {
            if let Some(text) = text {
                self.expressions(&at(key), text, names, Before::Running);
            }
        }
        if step.contains_key("name") {
            self.expressions(&at("name"), &name, names, Before::Running);
        }
        let env = self.env(&at("env"), step.get("env"), names);
        Some(Step {
            id: step.get("id").and_then(|id| self.text(&at("id"), id)),
            name,
            condition: self.condition(&at("if"), step.get("if")),
            run,
            shell: self
                .shell(&at("shell"), step.get("shell"))
                .or(defaults.shell)
                .unwrap_or(Shell::Default),
            env,
            working_directory: directory,
            continue_on_error: self
                .flag(&at("continue-on-error"), step.get("continue-on-error"))
                .unwrap_or(false),
            timeout_minutes: self.minutes(&at("timeout-minutes"), step.get("timeout-minutes")),
        })
    }

    fn defaults(&mut self, place: &str, value: Option<&Value>, outer: Defaults) -> Defaults {
        let Some(value) = value else { return outer };
        let Some(map) = self.mapping(place, value) else { return outer };
        self.only(place, map, &["run"], "is not supported by the sandbox");
        let Some(run) = map.get("run") else { return outer };
        let place = format!("{place}.run");
        let Some(run) = self.mapping(&place, run) else { return outer };
        self.only(&place, run, &["shell", "working-directory"], "is not a key of defaults.run");
        let shell = self.shell(&format!("{place}.shell"), run.get("shell"));
        let directory = run
            .get("working-directory")
            .and_then(|value| self.text(&format!("{place}.working-directory"), value));
        Defaults {
            shell: shell.or(outer.shell),
            working_directory: directory.or(outer.working_directory),
        }
    }

    fn shell(&mut self, place: &str, value: Option<&Value>) -> Option<Shell> {
        match self.text(place, value?)?.as_str() {
            "bash" => Some(Shell::Bash),
            "sh" => Some(Shell::Sh),
            other => {
                self.refuse(place, format!("{other:?} is not supported; `bash` and `sh` are"));
                None
            }
        }
    }

    fn condition(&mut self, place: &str, value: Option<&Value>) -> Condition {
        let Some(text) = value.and_then(|value| self.text(place, value)) else {
            return Condition::Success;
        };
        Condition::parse(&text).unwrap_or_else(|| {
            let known = "success(), failure(), cancelled(), always(), true and false are";
            self.refuse(place, format!("`{text}` is not supported by the sandbox; {known}"));
            Condition::Success
        })
    }

    fn minutes(&mut self, place: &str, value: Option<&Value>) -> Option<f64> {
        let minutes = value?.as_f64();
        // An hour count beyond GitHub's own longest job (5 days) is a slip.
        if minutes.is_none_or(|minutes| !(minutes > 0.0 && minutes <= 7200.0)) {
            self.refuse(place, "is not a number of minutes between 0 and 7200");
            return None;
        }
        minutes
    }

    fn env(&mut self, place: &str, value: Option<&Value>, names: &Names<'_>) -> Env {
        let Some(value) = value else { return Env::new() };
        let Some(map) = self.mapping(place, value) else { return Env::new() };
        let env = self.scalars(place, map);
        for (key, text) in &env {
            let place = format!("{place}.{key}");
            self.expressions(&place, text, names, Before::Running);
            if key.is_empty() || key.contains(['=', '\0']) || text.contains('\0') {
                self.refuse(place, "is not an environment variable");
            }
        }
        env
    }

    fn scalars(&mut self, place: &str, map: &Mapping) -> Env {
        let mut out = Env::new();
        for (key, value) in map {
            match (scalar(key), scalar(value)) {
                (Some(key), Some(value)) => drop(out.insert(key, value)),
                (Some(key), None) => self.refuse(format!("{place}.{key}"), "is not a text"),
                (None, _) => self.refuse(place, "a key is not a text"),
            }
        }
        out
    }

    /// Refuses every name that will have no meaning where `text` is read.
    fn expressions(&mut self, place: &str, text: &str, names: &Names<'_>, before: Before) {
        let found = match expression::names(text) {
            Ok(found) => found,
            Err(problem) => {
                self.refuse(place, format!("{problem}, which the sandbox does not support"));
                return;
            }
        };
        for name in found {
            let known = match (name.split_once('.'), before) {
                (Some(("matrix", key)), _) => names.matrix.contains(key),
                (Some(("github", key)), Before::Assignment | Before::Running) => {
                    GITHUB.contains(&key)
                }
                (Some(("env", _)), Before::Running) => true,
                (Some(("runner", key)), Before::Running) => RUNNER.contains(&key),
                (Some(("steps", rest)), Before::Running) => rest
                    .split_once(".outputs.")
                    .is_some_and(|(id, _)| names.steps.is_some_and(|ids| ids.contains(id))),
                _ => false,
            };
            if !known {
                self.refuse(place, format!("`{name}` has no value here in the sandbox"));
            }
        }
    }

    fn check_needs(&mut self, jobs: &[JobTemplate]) {
        let keys: BTreeSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
        for job in jobs {
            for need in job.needs.iter().filter(|need| !keys.contains(need.as_str())) {
                let place = format!("jobs.{}.needs", job.key);
                self.refuse(place, format!("there is no job {need:?}"));
            }
        }
        // Jobs whose needs are all settled are settled; what is left over waits for itself.
        let mut settled = BTreeSet::new();
        loop {
            let before = settled.len();
            for job in jobs {
                let ready = |need: &String| settled.contains(need) || !keys.contains(need.as_str());
                if job.needs.iter().all(ready) {
                    settled.insert(job.key.clone());
                }
            }
            if settled.len() == before {
                break;
            }
        }
        for job in jobs.iter().filter(|job| !settled.contains(&job.key)) {
            self.refuse(format!("jobs.{}.needs", job.key), "waits for itself in a circle");
        }
    }

    fn only(&mut self, place: &str, map: &Mapping, known: &[&str], problem: &str) {
        for key in map.keys() {
            let key = scalar(key).unwrap_or_else(|| "?".into());
            if !known.contains(&key.as_str()) {
                let dot = if place.is_empty() { "" } else { "." };
                self.refuse(format!("{place}{dot}{key}"), problem);
            }
        }
    }

    fn mapping<'a>(&mut self, place: &str, value: &'a Value) -> Option<&'a Mapping> {
        let map = value.as_mapping();
        if map.is_none() {
            self.refuse(place, "is not a mapping");
        }
        map
    }

    fn text(&mut self, place: &str, value: &Value) -> Option<String> {
        let text = scalar(value);
        if text.is_none() {
            self.refuse(place, "is not a text");
        }
        text
    }

    /// A list, or one text in its place.
    fn texts(&mut self, place: &str, value: &Value) -> Vec<String> {
        match value {
            Value::Sequence(_) => self.list(place, value),
            value => self.text(place, value).into_iter().collect(),
        }
    }

    fn list(&mut self, place: &str, value: &Value) -> Vec<String> {
        let Value::Sequence(values) = value else {
            self.refuse(place, "is not a list");
            return Vec::new();
        };
        let texts = values.iter().enumerate();
        texts.filter_map(|(index, value)| self.text(&format!("{place}[{index}]"), value)).collect()
    }

    fn flag(&mut self, place: &str, value: Option<&Value>) -> Option<bool> {
        let flag = value?.as_bool();
        if flag.is_none() {
            self.refuse(place, "is not true or false");
        }
        flag
    }
}

/// When a text's expressions are replaced, which decides what they may name.
#[derive(Clone, Copy)]
enum Before {
    Matching,
    Assignment,
    Running,
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
