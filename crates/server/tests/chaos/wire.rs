//! The network between one replica and the database, which fails when it is told to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything gets through.
    Fair,
    /// Connections end, and there are no new ones.
    Cut,
    /// Nothing gets through, and nobody is told. What was sent arrives when the weather is fair again.
    Stalled,
}

/// Everything through it ends with this value.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    weather: watch::Sender<Weather>,
    _task: JoinSet<()>,
}

impl Wire {
    /// A stretch of network to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let (mut task, seen) = (JoinSet::new(), weather.subscribe());
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((client, _)) = listener.accept() => {
                        open.spawn(carry(client, target, seen.clone()));
                    }
                    Some(_ended) = open.join_next() => {}
                }
            }
        });
        Self { address, weather, _task: task }
    }

    pub(crate) fn turns(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    tokio::select! {
        _ = cut.wait_for(|now| *now == Weather::Cut) => {}
        () = connect(client, target, weather) => {}
    }
}

async fn connect(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    // Without a database there is nobody behind the wire.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, weather.clone()) => {}
        () = pass(from_server, to_client, weather) => {}
    }
}

/// Until one end is gone.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let fair = weather.wait_for(|now| *now == Weather::Fair).await.is_ok();
        if !fair || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
