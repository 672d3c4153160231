//! What is left where nothing should be, counted at its source: the sandbox's registrations, the
//! directories and processes on this machine, and only last our own books.

use std::fs;
use std::path::Path;

use remuda_core::runner::{InstanceState, RunnerState};

use super::Scene;

/// Things that are left, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaks {
    /// Runners registered at the sandbox, or that had to expire there.
    pub(crate) registrations: u64,
    /// Directories of instances.
    pub(crate) directories: u64,
    /// Processes of instances.
    pub(crate) processes: u64,
    /// Runners and instances that our books do not call gone.
    pub(crate) rows: u64,
}

impl Leaks {
    pub(super) async fn find(scene: &Scene) -> anyhow::Result<Self> {
        let rows = scene.handle.ask(|controller| {
            let world = controller.world();
            let runners = world.runners().filter(|runner| runner.state < RunnerState::Gone).count();
            let instances =
                world.instances().filter(|instance| instance.state < InstanceState::Gone).count();
            runners.max(instances) as u64
        });
        let runners = scene.sandbox.statistics().runners;
        Ok(Self {
            registrations: runners.registered + runners.expired,
            directories: directories(&scene.instances),
            processes: processes(&scene.instances),
            rows: rows.await?,
        })
    }

    /// How many in all.
    pub(crate) fn count(&self) -> u64 {
        self.registrations + self.directories + self.processes + self.rows
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        let kinds = [
            (self.registrations, "registration", "registrations"),
            (self.directories, "directory", "directories"),
            (self.processes, "process", "processes"),
            (self.rows, "row in the books", "rows in the books"),
        ];
        let there: Vec<String> = kinds
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        if there.is_empty() { "nothing".into() } else { there.join(", ") }
    }
}

fn directories(instances: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(instances) else { return 0 };
    // Hidden ones are the provider's own, such as its cache of archives.
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    entries.flatten().filter(|entry| !hidden(&entry.file_name())).count() as u64
}

/// Processes whose home, arguments or working directory is in an instance's directory. Where there is
/// no /proc, none can be seen.
fn processes(instances: &Path) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let place = instances.as_os_str().as_encoded_bytes();
    let concerns = |process: &Path| {
        let names = |file: &str| {
            let bytes = fs::read(process.join(file)).unwrap_or_default();
            bytes.windows(place.len()).any(|window| window == place)
        };
        names("cmdline")
            || names("environ")
            || fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(instances))
    };
    let numbered = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    entries
        .flatten()
        .filter(|entry| numbered(&entry.file_name()) && concerns(&entry.path()))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_a_directory_of_an_instance_are_seen() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".cache")).unwrap();
        assert_eq!((directories(root.path()), processes(root.path())), (0, 0));
        let work = root.path().join("7");
        fs::create_dir(&work).unwrap();
        let mut child = std::process::Command::new("cat")
            .env_clear()
            .env("HOME", &work)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let seen = (directories(root.path()), processes(root.path()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, (1, 1));
    }

    #[test]
    fn leaks_are_told_by_kind() {
        let leaks = Leaks { registrations: 2, processes: 1, ..Leaks::default() };
        assert_eq!((leaks.count(), leaks.words()), (3, "2 registrations, 1 process".into()));
        assert_eq!(Leaks::default().words(), "nothing");
    }
}
