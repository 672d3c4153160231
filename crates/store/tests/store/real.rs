//! A real `PostgreSQL`, where `REMUDA_REAL` names it: tests of it fail if it is not there, and are
//! skipped, with one line that says so, where it is not named.

use std::io::Write as _;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::SecretString;
use tokio_postgres::{Client, NoTls};

/// Where the server is, if tests of it are asked for.
pub(crate) fn server() -> Option<String> {
    static SAID: Once = Once::new();
    let named = std::env::var_os("REMUDA_REAL").unwrap_or_default();
    if !named.to_string_lossy().split(',').any(|part| part == "postgres") {
        let line = "skipped: tests on PostgreSQL, as REMUDA_REAL does not name postgres \
            (see scripts/real-parts)\n";
        // Past the capture of the test's own output.
        SAID.call_once(|| std::io::stderr().write_all(line.as_bytes()).unwrap());
        return None;
    }
    let url = std::env::var_os("REMUDA_POSTGRES");
    let url = url.expect("REMUDA_REAL names postgres: eval \"$(scripts/real-parts postgres)\"");
    Some(url.into_string().unwrap())
}

/// A connection of a test's own, to look at what the store did, or to stand in its way.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // It ends with the client.
    #[expect(clippy::disallowed_methods, reason = "a test's own connection, which ends with it")]
    tokio::spawn(connection);
    client
}

/// A schema of its own for each test.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    pub(crate) async fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = server()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        client(&server).await.batch_execute(&sql).await.unwrap();
        Some(Self { server, name })
    }

    /// A URL under which this schema is all that is seen, with `more` parameters.
    pub(crate) fn url_with(&self, more: &str) -> SecretString {
        format!("{}?options=-csearch_path%3D{}{more}", self.server, self.name).into()
    }

    pub(crate) fn url(&self) -> SecretString {
        self.url_with("")
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed may still hold locks, and lets go of them when its runtime goes on.
        let (server, sql) = (
            self.server.clone(),
            format!("SET lock_timeout = 5000; DROP SCHEMA {} CASCADE", self.name),
        );
        // Not here: a runtime is running on this thread.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let _ = client(&server).await.batch_execute(&sql).await;
            });
        });
        drop(thread.join());
    }
}
