//! Hardship exceeds every constant of the core: what the rules wait for must also not come.

use std::path::Path;
use std::time::Duration;

use remuda_core::fleet::{Demand, Grace, Polls, Quarantine};
use remuda_core::pool::Limits;
use remuda_sim::Hardship;

/// The longest that something of the highest level lasts.
fn longest() -> Duration {
    let outage = Duration::from_mins(Hardship::HIGH.outage_longest);
    let most = [Hardship::LONGEST_DELAY, Hardship::LONGEST_AGE, Hardship::LONGEST_PAUSE, outage];
    most.into_iter().max().unwrap_or_default()
}

fn sources(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the core has sources") {
        let path = entry.expect("a file has a name").path();
        if path.ends_with("fleet") {
            // What a fleet file may say is no wait of the rules.
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            into.push((path.display().to_string(), text));
        }
    }
}

/// The span that `Duration::from_UNIT(EXPRESSION)` says, where the expression is a product of numbers.
fn span(text: &str) -> Option<Duration> {
    let text = text.strip_prefix("Duration::from_")?;
    let (unit, rest) = text.split_once('(')?;
    let (number, _) = rest.split_once(')')?;
    let factors = number.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>());
    let number = factors.product::<Result<u64, _>>().ok()?;
    Some(match unit {
        "millis" => Duration::from_millis(number),
        "secs" => Duration::from_secs(number),
        "mins" => Duration::from_mins(number),
        "hours" => Duration::from_hours(number),
        _ => return None,
    })
}

/// Every constant of the core that is a span of time, with where it stands.
fn constants() -> Vec<(String, Duration)> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let mut files = Vec::new();
    sources(&core, &mut files);
    let mut found = Vec::new();
    for (path, text) in files {
        for line in text.lines().map(str::trim).filter(|line| line.contains("const ")) {
            let Some((head, value)) = line.split_once(": Duration = ") else { continue };
            let name = head.rsplit(' ').next().unwrap_or_default();
            let span = span(value).unwrap_or_else(|| panic!("{path}: cannot read {line}"));
            found.push((name.to_owned(), span));
        }
    }
    found
}

#[test]
fn the_hardest_world_is_harder_than_every_constant_of_the_core() {
    let constants = constants();
    let names: Vec<&str> = constants.iter().map(|(name, _)| name.as_str()).collect();
    for known in ["CALL_LOST", "BACKOFF_LONGEST", "EXPIRY", "ENDED_KEPT"] {
        assert!(names.contains(&known), "{known} was not found among {names:?}");
    }
    for (name, span) in &constants {
        assert!(*span < longest(), "{name} is {span:?}");
    }
    // What concerns calls: an answer is later than all of it.
    let of_calls = constants.iter().filter(|(name, _)| name != "ENDED_KEPT");
    for (name, span) in of_calls {
        assert!(*span < Hardship::LONGEST_DELAY, "{name} is {span:?}");
    }
}

#[test]
fn the_hardest_world_is_harder_than_every_default_of_the_fleet() {
    let Polls { starting, runners, job, .. } = Polls::default();
    let sweep = Demand::default().sweep.unwrap_or_default();
    let Limits { boot, idle, lifetime, finish, job: none, .. } = Limits::default();
    assert_eq!(none, None, "the simulator's own pool declares a job's limit");
    let Grace { stray, registration, unexplained, destroy } = Grace::default();
    let graces = [stray, registration, unexplained, destroy];
    for span in graces.into_iter().chain([starting, runners, sweep, job, boot, idle, finish]) {
        assert!(span < Hardship::LONGEST_PAUSE, "{span:?}");
        assert!(span < Hardship::LYING.lies_last, "{span:?}");
    }
    for span in [lifetime, Quarantine::default().longest] {
        assert!(span < Hardship::LONGEST_DELAY, "{span:?}");
    }
}
