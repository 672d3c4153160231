//! Where the books are kept: in `SQLite`, in the state directory, unless the fleet declares a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use remuda_core::fleet::{SecretRef, Server};
use remuda_core::name::InstallationId;
use remuda_forge::secrets;
use remuda_store::sqlite::Settings;
use remuda_store::{PostgresStore, SqliteStore, Store, StoreError, postgres};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;
use tracing::warn;

/// The one holder of a database whose directory only one server can lock: a successor need not wait.
const LOCAL: &str = "local";

/// Most characters of a machine's name in a holder's.
const HOST_CHARS_MAX: usize = 64;

/// How long a server that begins waits for its database.
const DATABASE_MAX: Duration = Duration::from_secs(30);
/// Between two attempts meanwhile.
const DATABASE_AGAIN: Duration = Duration::from_millis(500);

/// Characters that tell state directories of one machine apart.
const TAIL: usize = 8;

/// Where the books are.
#[derive(Debug)]
pub(crate) enum Place {
    /// In this file.
    Sqlite(PathBuf),
    /// In the database at this URL, which was read from there.
    Postgres(SecretString, SecretRef),
}

impl Place {
    /// Where a server of this declaration and state directory has them. Reads the database's URL.
    pub(crate) fn of(server: &Server, state: &Path) -> anyhow::Result<Self> {
        let Some(reference) = &server.database else {
            return Ok(Self::Sqlite(state.join("remuda.db")));
        };
        let url = secrets::load(reference).context("cannot read the database's URL")?;
        Ok(Self::Postgres(url, reference.clone()))
    }

    /// Refuses a file that is not there, where one would otherwise be made.
    pub(crate) fn exists(&self) -> anyhow::Result<()> {
        if let Self::Sqlite(path) = self {
            std::fs::metadata(path)
                .with_context(|| format!("there are no books at {}", path.display()))?;
        }
        Ok(())
    }

    /// Opens them, brought to the newest schema. `settings` are those of `SQLite`.
    pub(crate) async fn open(&self, settings: Settings) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path, settings)?)),
            Self::Postgres(url, reference) => {
                let Settings { retention, migrate, .. } = settings;
                let settings = postgres::Settings { retention, migrate, ..Default::default() };
                let store = PostgresStore::open(url, settings)
                    .await
                    .with_context(|| format!("cannot open the database of {reference}"))?;
                Ok(Arc::new(store))
            }
        }
    }

    /// As [`Self::open`], with whose books they are. A database that does not take us may be starting as we are, or
    /// be restarted, so it is asked again for [`DATABASE_MAX`].
    pub(crate) async fn await_open(
        &self,
        settings: &Settings,
    ) -> anyhow::Result<(Arc<dyn Store>, InstallationId)> {
        let begun = tokio::time::Instant::now();
        let mut told = false;
        loop {
            let opened = async {
                let store = self.open(settings.clone()).await?;
                let installation = store.load().await?.installation;
                anyhow::Ok((store, installation))
            };
            match opened.await {
                Err(failure) if is_away(&failure) && begun.elapsed() < DATABASE_MAX => {
                    if !told {
                        warn!("waits up to {} s: {failure:#}", DATABASE_MAX.as_secs());
                    }
                    told = true;
                    tokio::time::sleep(DATABASE_AGAIN).await;
                }
                opened => return opened,
            }
        }
    }

    /// The name under which the server that has locked this state directory takes the lease. Whoever had
    /// the directory before it is dead, so it goes by the same name and need not wait until a lease of
    /// theirs has run out.
    pub(crate) fn holder(&self, state: &Path) -> anyhow::Result<String> {
        match self {
            Self::Sqlite(_) => Ok(LOCAL.into()),
            Self::Postgres(..) => {
                let path = state.join("remuda.name");
                kept_name(&path).with_context(|| format!("cannot keep {}", path.display()))
            }
        }
    }
}

/// What time may mend, and nobody need correct.
fn is_away(failure: &anyhow::Error) -> bool {
    matches!(
        failure.downcast_ref(),
        Some(
            StoreError::Unreachable { .. }
                | StoreError::Restarting { .. }
                | StoreError::Lost { .. }
                | StoreError::Unknown { .. }
                | StoreError::Busy { .. }
        )
    )
}

/// The name in the file, or else a new one, which is kept there.
fn kept_name(path: &Path) -> std::io::Result<String> {
    let host = format!("{}/", host());
    match std::fs::read_to_string(path) {
        // A copy on another machine is not the one it was copied from, which may be alive.
        Ok(name) if name.len() == host.len() + TAIL && name.starts_with(&host) => return Ok(name),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut random = [0; TAIL / 2];
    SystemRandom::new().fill(&mut random).expect("the kernel has random bytes once it has booted");
    let name = format!("{host}{:08x}", u32::from_be_bytes(random));
    // One that a crash cuts short has not the length of one, and is drawn anew.
    std::fs::write(path, &name)?;
    Ok(name)
}

/// This machine's name, as far as it can be told to everybody.
fn host() -> String {
    let name = rustix::system::uname();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    name.nodename().to_string_lossy().chars().filter(plain).take(HOST_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_unless_it_is_cut_short_or_of_another_machine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let name = kept_name(&path).unwrap();
        assert!(name.starts_with(&format!("{}/", host())), "{name}");
        assert_eq!(kept_name(&path).unwrap(), name);
        for other in [&name[..name.len() - 1], &format!("x{name}"), &name.replacen(&host(), "", 1)]
        {
            std::fs::write(&path, other).unwrap();
            let drawn = kept_name(&path).unwrap();
            assert!(drawn != name && drawn.len() == name.len(), "{drawn}");
            assert_eq!(kept_name(&path).unwrap(), drawn);
        }
    }
}
