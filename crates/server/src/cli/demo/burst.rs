//! What the demo submits: how many runs of which workflow, in which repository.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use remuda_core::label::LabelSet;
use remuda_sandbox::{Config, OwnerConfig, OwnerKind, Sandbox};

/// Most bytes read of a workflow file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who owns what: two organizations and a personal account.
const OWNERS: [(&str, OwnerKind, &[&str]); 3] = [
    ("acme", OwnerKind::Organization, &["engine", "site"]),
    ("initech", OwnerKind::Organization, &["ledger"]),
    ("mona", OwnerKind::User, &["kernel"]),
];

const BUILD: &str = include_str!("../../../demo/build.yml");
const CHECK: &str = include_str!("../../../demo/check.yml");
const VECTOR: &str = include_str!("../../../demo/vector.yml");
const BROKEN: &str = include_str!("../../../demo/broken.yml");
/// Submitted in turn until there are enough jobs.
const TURN: [&str; 6] = [BUILD, CHECK, VECTOR, BUILD, CHECK, BROKEN];

/// A workflow and where it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) owner: &'static str,
    pub(super) repository: &'static str,
    pub(super) workflow: String,
}

/// Everything to be submitted, in order.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    pub(super) runs: Vec<Run>,
    /// Every set of labels that a job asks for.
    pub(super) pools: Vec<Vec<String>>,
}

/// What one run of a workflow comes to.
#[derive(Clone, Debug)]
struct Size {
    jobs: usize,
    labels: Vec<Vec<String>>,
}

impl Burst {
    /// `jobs` jobs of the example workflows, or at least so many of the user's.
    pub(super) async fn of(jobs: usize, file: Option<&Path>) -> anyhow::Result<Self> {
        let mut pools = BTreeMap::new();
        let runs = match file {
            Some(file) => {
                let workflow = read(file)?;
                let name = || format!("cannot run {}", file.display());
                let size = rehearse(&workflow).await.with_context(name)?;
                note(&mut pools, &size);
                vec![workflow; jobs.div_ceil(size.jobs.max(1))]
            }
            None => examples(jobs, &mut pools).await?,
        };
        let places: Vec<_> = repositories().collect();
        let runs = runs.into_iter().enumerate().map(|(index, workflow)| {
            let (owner, repository) = places[index % places.len()];
            Run { owner, repository, workflow }
        });
        Ok(Self { runs: runs.collect(), pools: pools.into_values().collect() })
    }
}

async fn examples(
    jobs: usize,
    pools: &mut BTreeMap<LabelSet, Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let mut sizes = BTreeMap::new();
    for text in TURN {
        let size = rehearse(text).await?;
        note(pools, &size);
        sizes.insert(text, size.jobs);
    }
    let mut runs = Vec::new();
    let mut left = jobs;
    for text in TURN.iter().cycle() {
        if left == 0 {
            break;
        }
        // One job always fits.
        let text = if sizes[text] <= left { *text } else { CHECK };
        left -= sizes[text];
        runs.push(text.to_owned());
    }
    Ok(runs)
}

fn note(pools: &mut BTreeMap<LabelSet, Vec<String>>, size: &Size) {
    for labels in &size.labels {
        if let Ok(set) = LabelSet::parse(labels)
            && !set.is_empty()
        {
            pools.entry(set).or_insert_with(|| labels.clone());
        }
    }
}

fn repositories() -> impl Iterator<Item = (&'static str, &'static str)> {
    OWNERS.iter().flat_map(|(owner, _, names)| names.iter().map(|name| (*owner, *name)))
}

/// The accounts, as the sandbox is told of them.
pub(super) fn owners() -> Vec<OwnerConfig> {
    let owner = |(login, kind, names): &(&str, OwnerKind, &[&str])| OwnerConfig {
        login: (*login).into(),
        kind: *kind,
        repositories: names.iter().map(ToString::to_string).collect(),
    };
    OWNERS.iter().map(owner).collect()
}

/// Where runners register, as the fleet file writes it.
pub(super) fn scopes() -> Vec<String> {
    let scopes = OWNERS.iter().flat_map(|(owner, kind, names)| match kind {
        OwnerKind::Organization => vec![format!("org:{owner}")],
        OwnerKind::User => names.iter().map(|name| format!("repo:{owner}/{name}")).collect(),
    });
    scopes.collect()
}

fn read(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let unreadable = || format!("cannot read the workflow {}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("the workflow {} is larger than 1 MiB", file.display());
    }
    Ok(text)
}

/// Asks a sandbox of its own what one run comes to; whatever it does not support is said here.
async fn rehearse(workflow: &str) -> anyhow::Result<Size> {
    let (owner, repository) = ("rehearsal", "stage");
    let sandbox = Sandbox::start(Config {
        owners: vec![OwnerConfig {
            login: owner.into(),
            kind: OwnerKind::Organization,
            repositories: vec![repository.into()],
        }],
        ..Config::default()
    })
    .await?;
    let submitted = sandbox.submit(owner, repository, workflow, 1);
    let labels: Vec<Vec<String>> = sandbox.jobs().into_iter().map(|job| job.labels).collect();
    sandbox.close().await;
    // Its text says everything; its source would say it again.
    submitted.map_err(|error| anyhow!("{error}"))?;
    Ok(Size { jobs: labels.len(), labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_examples_come_to_exactly_as_many_jobs_as_wanted() {
        for wanted in [1, 2, 3, 7, 40] {
            let burst = Burst::of(wanted, None).await.unwrap();
            let mut jobs = 0;
            for run in &burst.runs {
                jobs += rehearse(&run.workflow).await.unwrap().jobs;
            }
            assert_eq!(jobs, wanted);
            assert_eq!(burst.pools.len(), 3, "{:?}", burst.pools);
        }
    }

    #[tokio::test]
    async fn a_workflow_of_ones_own_is_run_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.yml");
        let text = "jobs:\n  a: {runs-on: [x], steps: [{run: 'true'}]}\n  \
                    b: {runs-on: [X], steps: [{run: 'true'}]}\n";
        std::fs::write(&file, text).unwrap();
        let burst = Burst::of(3, Some(&file)).await.unwrap();
        assert_eq!((burst.runs.len(), burst.pools), (2, vec![vec!["x".to_owned()]]));
    }

    #[tokio::test]
    async fn what_the_sandbox_cannot_run_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.yml");
        let text = "jobs:\n  a: {runs-on: [x], steps: [{uses: actions/checkout@v4}]}\n";
        std::fs::write(&file, text).unwrap();
        let error = Burst::of(3, Some(&file)).await.unwrap_err();
        assert!(format!("{error:#}").contains("jobs.a.steps[0].uses"), "{error:#}");
    }

    #[test]
    fn every_repository_is_in_a_scope() {
        assert_eq!(scopes(), ["org:acme", "org:initech", "repo:mona/kernel"]);
        assert_eq!(repositories().count(), 4);
    }
}
