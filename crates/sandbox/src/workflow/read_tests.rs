use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn problems(text: &str) -> Vec<String> {
    let refusal = workflow(text).unwrap_err();
    refusal.problems.iter().map(|p| format!("{}: {}", p.place, p.problem)).collect()
}

fn with_step(step: &str) -> String {
    format!("on: push\njobs:\n  build:\n    runs-on: linux\n    steps:\n      - {step}\n")
}

#[test]
fn a_workflow_is_read_whole() {
    let text = r"
name: CI
on: [push]
env: { LEVEL: workflow }
defaults: { run: { shell: bash } }
jobs:
  build:
    name: Build ${{ matrix.arch }}
    runs-on: [self-hosted, '${{ matrix.arch }}']
    strategy:
      fail-fast: false
      matrix:
        arch: [riscv64, aarch64]
        bits: [64]
    steps:
      - id: one
        run: echo a=1 >> $GITHUB_OUTPUT
      - name: Two
        run: echo ${{ steps.one.outputs.a }} ${{ env.LEVEL }}
        if: always()
        shell: sh
        timeout-minutes: 0.5
  test:
    needs: build
    runs-on: { group: Fast, labels: linux }
    environment: production
    steps: [{ run: make test, working-directory: sub, continue-on-error: true }]
";
    let workflow = workflow(text).unwrap();
    assert_eq!(workflow.name.as_deref(), Some("CI"));
    let [build, check] = workflow.jobs.as_slice() else { panic!("two jobs") };
    assert_eq!(build.combinations.len(), 2);
    assert_eq!(build.combinations[0]["bits"], "64");
    assert!(!build.fail_fast);
    assert_eq!(build.recipe.env[0]["LEVEL"], "workflow");
    let [one, two] = build.recipe.steps.as_slice() else { panic!("two steps") };
    assert_eq!((one.name.as_str(), one.shell), ("Run echo a=1 >> $GITHUB_OUTPUT", Shell::Bash));
    assert_eq!((two.shell, two.condition), (Shell::Sh, Condition::Always));
    assert_eq!(check.needs, ["build"]);
    assert_eq!(
        (check.group.as_deref(), check.labels.as_slice()),
        (Some("Fast"), &["linux".into()][..])
    );
    assert_eq!(check.environment.as_deref(), Some("production"));
    assert!(check.recipe.steps[0].continue_on_error);
}

#[test]
fn what_is_not_supported_is_named_with_its_place() {
    assert_eq!(
        problems(&with_step("uses: actions/checkout@v4")),
        ["jobs.build.steps[0].uses: actions are not supported by the sandbox, only `run` is"]
    );
    assert_eq!(
        problems(&with_step("{ run: x, shell: pwsh }")),
        ["jobs.build.steps[0].shell: \"pwsh\" is not supported; `bash` and `sh` are"]
    );
    assert_eq!(
        problems(&with_step("run: echo ${{ secrets.TOKEN }}")),
        ["jobs.build.steps[0].run: `secrets.TOKEN` has no value here in the sandbox"]
    );
    assert_eq!(
        problems(&with_step("{ run: x, if: \"github.ref == 'main'\" }")),
        ["jobs.build.steps[0].if: `github.ref == 'main'` is not supported by the sandbox; \
          success(), failure(), cancelled(), always(), true and false are"]
    );
    let services = "jobs: { a: { runs-on: x, services: {}, container: y, steps: [{run: z}] } }";
    assert_eq!(
        problems(services),
        [
            "jobs.a.services: is not supported by the sandbox",
            "jobs.a.container: is not supported by the sandbox",
        ]
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "jobs:\n  a: { steps: [] }\n  b: { runs-on: [], needs: c, steps: [{}] }\n";
    assert_eq!(
        problems(text),
        [
            "jobs.a.runs-on: is missing",
            "jobs.a.steps: holds no step",
            "jobs.b.runs-on: names no label",
            "jobs.b.steps[0].run: is missing",
            "jobs.b.needs: there is no job \"c\"",
        ]
    );
}

#[test]
fn jobs_that_wait_for_each_other_are_refused() {
    let text = "jobs:\n  a: { runs-on: x, needs: b, steps: [{run: z}] }\n  \
                b: { runs-on: x, needs: a, steps: [{run: z}] }\n";
    let circle = "waits for itself in a circle";
    assert_eq!(
        problems(text),
        [format!("jobs.a.needs: {circle}"), format!("jobs.b.needs: {circle}")]
    );
}

#[test]
fn a_matrix_beyond_githubs_limit_is_refused_before_it_is_laid_out() {
    let axis = format!("[{}]", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let text = format!(
        "jobs: {{ a: {{ runs-on: x, strategy: {{ matrix: {{ a: {axis}, b: {axis}, c: {axis}, \
         d: {axis}, e: {axis}, f: {axis} }} }}, steps: [{{run: z}}] }} }}"
    );
    assert_eq!(
        problems(&text),
        ["jobs.a.strategy.matrix: makes more than 256 jobs, GitHub's limit"]
    );
}

#[test]
fn text_that_is_no_workflow_is_refused() {
    assert!(problems("{").iter().all(|problem| problem.starts_with("file: not YAML")));
    assert_eq!(problems("- a"), ["file: is not a mapping"]);
    assert_eq!(problems("name: x"), ["jobs: is missing"]);
    let label = problems("jobs: { a: { runs-on: \"\\u0007\", steps: [{run: z}] } }");
    assert_eq!(label, ["jobs.a.runs-on: label \"\\u{7}\" holds a control character"]);
}

#[test]
fn no_text_however_broken_stops_the_reader() {
    let whole = "name: CI\non: push\njobs:\n  a:\n    name: ${{ matrix.b }}\n    \
                 runs-on: [x, '${{ matrix.b }}']\n    strategy: { matrix: { b: [1, 2] } }\n    \
                 steps:\n      - { run: 'echo ${{ env.C }}', env: { C: d }, if: always() }\n";
    let mut dice = StdRng::seed_from_u64(11);
    for _ in 0..1000 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..dice.random_range(1..6) {
            let place = dice.random_range(0..bytes.len());
            match dice.random_range(0..8) {
                0 => bytes.truncate(place + 1),
                1..=3 => bytes.insert(place, b"[]{}:,-'"[dice.random_range(0..8)]),
                _ => bytes[place] = dice.random(),
            }
        }
        let _ = workflow(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn text_that_unfolds_without_end_is_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.extend([format!("a{level}: &a{level} [{items}]\n")]);
    }
    assert!(problems(&laughs)[0].starts_with("file: "));
    let deep = "[".repeat(100_000);
    assert!(problems(&deep)[0].starts_with("file: "));
    let long = "#".repeat(WORKFLOW_BYTES_MAX + 1);
    assert!(problems(&long)[0].contains("at most"));
}
