//! A stretch of network between a store and its database, that breaks when it is told to.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to the next thing that is sent to the database with a certain word in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not get there, and the connection ends.
    CutBefore(&'static str),
    /// It is done there, and answered in the word itself; the answer does not get here, and the connection ends.
    CutAfter(&'static str),
    /// It does not get there, nor does anything after it.
    Freeze(&'static str),
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::CutBefore(word) | Self::CutAfter(word) | Self::Freeze(word) => word,
        }
    }
}

/// Everything through it ends with this value.
pub(crate) struct Proxy {
    address: String,
    fault: Arc<Mutex<Option<Fault>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Stands before the server at `target`, an address and a port.
    pub(crate) async fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fault = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        let (target, faults) = (target.to_owned(), Arc::clone(&fault));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&target).await.unwrap();
                connections.spawn(carry(client, server, Arc::clone(&faults)));
            }
        });
        Self { address, fault, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The next thing with the fault's word in it meets the fault.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Whether what it was armed with has happened.
    pub(crate) fn has_struck(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }
}

/// The fault that `bytes` meet. Each strikes once.
fn struck(faults: &Mutex<Option<Fault>>, bytes: &[u8]) -> Option<Fault> {
    let mut armed = faults.lock().unwrap();
    if contains(bytes, armed.as_ref()?.word()) { armed.take() } else { None }
}

/// Waits until the server has answered that it did what the fault's word asks for. One that loses its client
/// sooner may give up what came before.
async fn hear_out(server: &mut TcpStream, fault: Fault) {
    let mut answer = Vec::new();
    while !contains(&answer, fault.word()) {
        assert_ne!(server.read_buf(&mut answer).await.unwrap(), 0, "{fault:?}");
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

async fn carry(mut client: TcpStream, mut server: TcpStream, faults: Arc<Mutex<Option<Fault>>>) {
    let (mut asked, mut said) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let Ok(count @ 1..) = count else { return };
                match struck(&faults, &asked[..count]) {
                    Some(Fault::CutBefore(_)) => return,
                    Some(Fault::Freeze(_)) => std::future::pending().await,
                    Some(fault @ Fault::CutAfter(_)) => {
                        server.write_all(&asked[..count]).await.unwrap();
                        hear_out(&mut server, fault).await;
                        return;
                    }
                    None => {
                        if server.write_all(&asked[..count]).await.is_err() { return }
                    }
                }
            }
            count = server.read(&mut said) => {
                let Ok(count @ 1..) = count else { return };
                if client.write_all(&said[..count]).await.is_err() { return }
            }
        }
    }
}
