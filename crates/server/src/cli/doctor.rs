//! `remuda doctor`: what a person should look at, with a server or without.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use remuda_core::fleet::{Fleet, ProviderKind, SecretRef};

use super::client::{Client, ClientError};
use super::query::json;
use super::table::{Page, cell, render, state};
use super::validate::Files;
use super::{Output, State, runtime, say};
use crate::exit::Exit;
use crate::serve::socket_path;
use crate::view::Finding;

/// Longest path of a unix socket on Linux, in bytes.
const SOCKET_BYTES_MAX: usize = 107;

/// Look for what is wrong, with a server or without one
///
/// Exits with 0 if nothing is wrong, with 1 if there are errors, and with 69 if there are none but no
/// server answers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  remuda doctor\n  \
                        remuda doctor --fleet examples/laptop.toml -o json")]
pub(super) struct Doctor {
    /// A fleet file to look at too: are its secrets and programs there?
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    state: State,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let directory = self.state.directory();
        let asked = runtime()?.block_on(async {
            let client = Client::new(&self.state)?;
            anyhow::Ok(client.get::<Vec<Finding>>(&["v1", "doctor"], &[]).await)
        })?;
        let mut found = state_directory(&directory);
        let mut unreachable = false;
        match asked {
            Ok(findings) => {
                let socket = socket_path(&directory);
                found.push(finding("ok", "server", format!("answers at {}", socket.display())));
                found.extend(findings);
            }
            Err(error @ (ClientError::Absent { .. } | ClientError::Silent { .. })) => {
                unreachable = true;
                found.push(finding("warning", "server", error.to_string()));
            }
            Err(
                error @ (ClientError::NotFound(_)
                | ClientError::Ambiguous(_)
                | ClientError::Standby(_)
                | ClientError::Refused(_)),
            ) => found.push(finding("error", "server", error.to_string())),
        }
        if let Some(file) = &self.fleet {
            found.extend(fleet_file(file, unreachable));
        }
        match self.output {
            Output::Json => json(&found)?,
            Output::Table => {
                let rows: Vec<_> = found
                    .iter()
                    .map(|f| vec![state(&f.level), cell(&f.what), cell(&f.text)])
                    .collect();
                say(&render(&[], &rows, Page::stdout()))?;
            }
        }
        Ok(if found.iter().any(|finding| finding.level == "error") {
            Exit::Failed
        } else if unreachable {
            Exit::Unreachable
        } else {
            Exit::Done
        })
    }
}

fn finding(level: &str, what: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding { level: level.into(), what: what.into(), text: text.into() }
}

/// Whether only its owner can get at the books, and whether the socket's path fits.
fn state_directory(directory: &Path) -> Vec<Finding> {
    let place = directory.display();
    let about = |level, text: String| finding(level, "state", text);
    let mut found = Vec::new();
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            found.push(about("ok", format!("{place} is not there; the server makes it")));
        }
        Err(error) => found.push(about("error", format!("cannot look at {place}: {error}"))),
        Ok(data) if !data.is_dir() => {
            found.push(about("error", format!("{place} is not a directory")));
        }
        Ok(data) if data.permissions().mode() & 0o077 != 0 => {
            let text = format!(
                "{place} is open to other users (mode {:o}); `chmod 700 {place}` closes it",
                data.permissions().mode() & 0o777
            );
            found.push(about("error", text));
        }
        Ok(data) if data.uid() != rustix::process::geteuid().as_raw() => {
            found.push(about("warning", format!("{place} belongs to user {}", data.uid())));
        }
        Ok(_) => found.push(about("ok", format!("{place} is private"))),
    }
    let socket = socket_path(directory);
    if socket.as_os_str().len() > SOCKET_BYTES_MAX {
        let text = format!(
            "the path {} is longer than the {SOCKET_BYTES_MAX} bytes a socket's may have; choose \
             another --state",
            socket.display()
        );
        found.push(about("error", text));
    }
    found
}

/// Whether what a fleet file names is there. `starts`: no server runs, so its address should be free.
fn fleet_file(file: &Path, starts: bool) -> Vec<Finding> {
    let name = file.display().to_string();
    let files = match Files::read(file) {
        Ok(files) => files,
        Err(error) => return vec![finding("error", "fleet", format!("{error:#}"))],
    };
    let fleet = match files.parse() {
        Ok(fleet) => fleet,
        Err(problems) => {
            let count = problems.shown().len() + problems.more();
            let text = format!("{name} has {count} problem(s); see `remuda validate {name}`");
            return vec![finding("error", "fleet", text)];
        }
    };
    let mut found = vec![finding("ok", "fleet", format!("{name} is in order"))];
    found.extend(
        secrets(&fleet).into_iter().flat_map(|(owner, secret)| secret_findings(&owner, secret)),
    );
    found.extend(programs(&fleet));
    if starts && let Err(error) = TcpListener::bind(fleet.server.listen) {
        let text = format!("cannot listen on {}: {error}", fleet.server.listen);
        found.push(finding("error", "server", text));
    }
    found
}

/// Every secret a fleet names, with whose it is.
fn secrets(fleet: &Fleet) -> Vec<(String, &SecretRef)> {
    let database = fleet.server.database.iter();
    let mut all: Vec<_> = database.map(|secret| ("database".to_owned(), secret)).collect();
    for forge in fleet.forges.values() {
        let owner = format!("forge {}", forge.name);
        all.extend(forge.token.iter().map(|secret| (owner.clone(), secret)));
        for app in &forge.apps {
            let owner = format!("App {} of {owner}", app.id);
            let own = std::iter::once(&app.private_key).chain(&app.webhook_secrets);
            all.extend(own.map(|secret| (owner.clone(), secret)));
        }
        let hooks = forge.hooks.iter().flat_map(|hook| &hook.secrets);
        all.extend(hooks.map(|secret| (format!("a hook of {owner}"), secret)));
    }
    all
}

fn secret_findings(owner: &str, secret: &SecretRef) -> Vec<Finding> {
    let mut found = Vec::new();
    match remuda_forge::secrets::load(secret) {
        Ok(_) => found.push(finding("ok", owner, format!("secret {secret} can be read"))),
        Err(error) => {
            let more = match secret {
                SecretRef::Env(_) => {
                    "; it is looked up in doctor's environment, the server's may differ"
                }
                SecretRef::File(_) | SecretRef::Command(_) => "",
            };
            // A variable may well be set for the server alone.
            let level = match secret {
                SecretRef::Env(_) => "warning",
                SecretRef::File(_) | SecretRef::Command(_) => "error",
            };
            found.push(finding(level, owner, format!("{error}{more}")));
        }
    }
    if let SecretRef::File(path) = secret
        && let Ok(data) = std::fs::metadata(path)
        && data.permissions().mode() & 0o077 != 0
    {
        let path = path.display();
        let text = format!("{path} is open to other users; `chmod 600 {path}` closes it");
        found.push(finding("warning", owner, text));
    }
    found
}

/// Whether programs and archives that are named by a path are there.
fn programs(fleet: &Fleet) -> Vec<Finding> {
    let mut found = Vec::new();
    for image in fleet.images.values() {
        let owner = format!("image {}", image.name);
        let local = |source: &str| !source.contains("://");
        match &image.archive {
            Some(archive) if local(&archive.source) && !Path::new(&archive.source).is_file() => {
                let text = format!("there is no archive {}", archive.source);
                found.push(finding("error", owner.as_str(), text));
            }
            Some(_) | None => {}
        }
        let program = image.command.first().map(PathBuf::from).unwrap_or_default();
        let executable =
            || program.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o111 != 0);
        if program.is_absolute() && !executable() {
            let text = format!("there is no executable file {}", program.display());
            found.push(finding("error", owner.as_str(), text));
        } else if !program.is_absolute() && image.archive.is_none() {
            let text = format!(
                "its program {} is looked up in an archive, and it has none",
                program.display()
            );
            found.push(finding("error", owner.as_str(), text));
        }
    }
    for provider in fleet.providers.values() {
        let ProviderKind::Process(process) = &provider.kind;
        if let Some(directory) = process.directory.as_ref().filter(|d| d.exists() && !d.is_dir()) {
            let text = format!("{} is not a directory", directory.display());
            found.push(finding("error", format!("provider {}", provider.name), text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(found: &[Finding]) -> Vec<(&str, &str)> {
        found.iter().map(|finding| (finding.level.as_str(), finding.what.as_str())).collect()
    }

    #[test]
    fn a_state_directory_is_to_be_private() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), mode).unwrap();
        };
        mode(0o700);
        assert_eq!(levels(&state_directory(directory.path())), [("ok", "state")]);
        mode(0o750);
        let found = state_directory(directory.path());
        assert_eq!(levels(&found), [("error", "state")]);
        assert!(found[0].text.contains("mode 750"), "{}", found[0].text);
        let deep = directory.path().join("x".repeat(100));
        assert_eq!(levels(&state_directory(&deep)), [("ok", "state"), ("error", "state")]);
    }

    #[test]
    fn a_fleet_whose_secrets_and_programs_are_missing_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let fleet = format!(
            "[forge.github]\ntoken = \"env:REMUDA_TEST_NO_SUCH_VARIABLE\"\n\
             [[forge.github.app]]\nid = 1\nprivate_key = \"file:{}\"\n\
             [provider.local]\nkind = \"process\"\n\
             [image.bare]\ncommand = [\"./run.sh\"]\n\
             [image.there]\ncommand = [\"/bin/sh\"]\n\
             [image.missing]\ncommand = [\"{}\"]\n\
             [pool.small]\nlabels = [\"x\"]\nprovider = \"local\"\nimage = \"there\"\nmax = 1\n",
            at("key.pem"),
            at("no-such-program")
        );
        let file = directory.path().join("fleet.toml");
        std::fs::write(&file, fleet).unwrap();
        assert_eq!(
            levels(&fleet_file(&file, false)),
            [
                ("ok", "fleet"),
                ("warning", "forge github"),
                ("error", "App 1 of forge github"),
                ("error", "image bare"),
                ("error", "image missing"),
            ]
        );
        std::fs::write(at("key.pem"), "key").unwrap();
        std::fs::set_permissions(at("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = fleet_file(&file, false);
        assert_eq!(found[2].level, "ok");
        assert!(found[3].text.ends_with("closes it"), "{}", found[3].text);
    }

    #[test]
    fn a_fleet_file_that_is_not_in_order_is_one_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fleet.toml");
        assert_eq!(levels(&fleet_file(&file, true)), [("error", "fleet")]);
        std::fs::write(&file, "[pool.x]\n").unwrap();
        assert_eq!(levels(&fleet_file(&file, true)), [("error", "fleet")]);
    }
}
