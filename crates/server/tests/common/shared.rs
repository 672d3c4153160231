//! Several servers on one `PostgreSQL`, behind one address.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

/// A schema of a test's own on a real `PostgreSQL`, where `REMUDA_REAL` names it.
pub struct Database {
    server: String,
    schema: String,
}

impl Database {
    /// `None`, with one line that says so, where no `PostgreSQL` is named; a panic if it is named and not
    /// there.
    pub async fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_named() {
            return None;
        }
        let url = std::env::var_os("REMUDA_POSTGRES");
        let url = url.expect("REMUDA_REAL names postgres: eval \"$(scripts/real-parts postgres)\"");
        let server = url.into_string().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("replicas_{}_{number}", std::process::id());
        execute(&server, &format!("CREATE SCHEMA {schema}")).await;
        Some(Self { server, schema })
    }

    /// A URL under which the schema is all that is seen.
    pub fn url(&self) -> String {
        format!("{}?options=-csearch_path%3D{}", self.server, self.schema)
    }

    /// Removes the schema; one that a failed test leaves behind is in nobody's way.
    pub async fn close(self) {
        execute(&self.server, &format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }
}

/// Whether `REMUDA_REAL` names `PostgreSQL`; one line says so if it does not.
pub fn is_named() -> bool {
    let named = std::env::var_os("REMUDA_REAL").unwrap_or_default();
    let is_named = named.to_string_lossy().split(',').any(|part| part == "postgres");
    if !is_named {
        let line = "skipped: replicas on PostgreSQL, as REMUDA_REAL does not name postgres (see \
                    scripts/real-parts)\n";
        // Past the capture of the test's own output.
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    }
    is_named
}

async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::select! {
        done = client.batch_execute(sql) => done.unwrap(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

/// One address before several servers: each connection goes to one that takes it, in turn.
pub struct Front {
    // It ends with this value.
    _task: JoinSet<()>,
}

impl Front {
    pub async fn before(listen: SocketAddr, behind: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut turn, mut open) = (0, JoinSet::new());
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        turn += 1;
                        open.spawn(pass(stream, behind.clone(), turn));
                    }
                    Some(_ended) = open.join_next() => {}
                }
            }
        });
        Self { _task: task }
    }
}

async fn pass(mut stream: TcpStream, behind: Vec<SocketAddr>, turn: usize) {
    for place in 0..behind.len() {
        if let Ok(mut server) = TcpStream::connect(behind[(turn + place) % behind.len()]).await {
            // Either side may go away at any moment: that is the story.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            return;
        }
    }
}
