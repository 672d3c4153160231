//! Hears that another process has accepted a delivery. Only a hint: whoever waits looks anyway.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use tracing::debug;

use super::link::Link;
use super::sql::CHANNEL;

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(5);

/// Listens, on a connection of its own, until it is dropped.
pub(super) async fn listen(link: Arc<Link>, news: Arc<Notify>) {
    loop {
        if let Err(error) = hear(&link, &news).await {
            debug!("cannot hear of deliveries to other servers: {}", link.place.refused(error));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hear(link: &Link, news: &Notify) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = link.config.connect(link.tls.clone()).await?;
    let heard = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message? {
                news.notify_one();
            }
        }
        Ok(())
    };
    let asked = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        // Whatever came in before was missed.
        news.notify_one();
        std::future::pending().await
    };
    tokio::select! {
        ended = heard => ended,
        refused = asked => refused,
    }
}
