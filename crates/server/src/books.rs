//! Where the books are kept: in `SQLite`, in the state directory, unless the fleet declares a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use remuda_core::fleet::{SecretRef, Server};
use remuda_forge::secrets;
use remuda_store::sqlite::Settings;
use remuda_store::{PostgresStore, SqliteStore, Store, postgres};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;

/// The one holder of a database whose directory only one server can lock: a successor need not wait.
const LOCAL: &str = "local";

/// Most characters of a machine's name in a holder's.
const HOST_CHARS_MAX: usize = 64;

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

    /// Opens them, brought to the newest schema. `settings` are those of `SQLite`. Also gives the name
    /// under which this process takes the lease.
    pub(crate) async fn open(
        &self,
        settings: Settings,
    ) -> anyhow::Result<(Arc<dyn Store>, String)> {
        match self {
            Self::Sqlite(path) => {
                let store = SqliteStore::open(path, settings)?;
                Ok((Arc::new(store), LOCAL.into()))
            }
            Self::Postgres(url, reference) => {
                let Settings { retention, migrate, .. } = settings;
                let settings = postgres::Settings { retention, migrate, ..Default::default() };
                let store = PostgresStore::open(url, settings)
                    .await
                    .with_context(|| format!("cannot open the database of {reference}"))?;
                Ok((Arc::new(store), holder()))
            }
        }
    }
}

/// This machine's name and the process, for people, and what no other process has, be it on the same
/// machine and under the same number.
fn holder() -> String {
    let mut random = [0; 4];
    SystemRandom::new().fill(&mut random).expect("the kernel has random bytes once it has booted");
    let name = rustix::system::uname();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    let host: String =
        name.nodename().to_string_lossy().chars().filter(plain).take(HOST_CHARS_MAX).collect();
    format!("{host}/{}/{:08x}", std::process::id(), u32::from_be_bytes(random))
}
