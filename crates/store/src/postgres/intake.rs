//! Deliveries that come at the same time share one transaction, and so one flush of the disk.
//!
//! Nobody is answered before it is committed. If a group is refused, each of it is tried alone, so that
//! only the culprit hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_core::Delivery;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::link::Link;
use super::sql as own;
use super::value::stored;
use crate::value::{Cells as _, Misread};
use crate::{Accepted, StoreError};

/// Most deliveries that wait; further callers wait to be let in.
const QUEUE_MAX: usize = 1024;
/// Most deliveries of one group.
const GROUP_MAX: usize = 256;
/// A group that carries this many bytes takes no more.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

type Answer = Result<Accepted, StoreError>;

/// A delivery, and who waits for its number.
pub(super) struct Handed {
    pub(super) delivery: Delivery,
    pub(super) caller: oneshot::Sender<Answer>,
}

pub(super) fn queue() -> (mpsc::Sender<Handed>, mpsc::Receiver<Handed>) {
    mpsc::channel(QUEUE_MAX)
}

/// Takes deliveries until nobody can hand in any more.
pub(super) async fn serve(link: Arc<Link>, mut handed: mpsc::Receiver<Handed>) {
    while let Some(first) = handed.recv().await {
        let mut bytes = first.delivery.body.len();
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && bytes < GROUP_BYTES_MAX
            && let Ok(next) = handed.try_recv()
        {
            bytes = bytes.saturating_add(next.delivery.body.len());
            group.push(next);
        }
        let deliveries: Vec<&Delivery> = group.iter().map(|handed| &handed.delivery).collect();
        let answers = accept_all(&link, &deliveries).await;
        for (Handed { caller, .. }, answer) in group.into_iter().zip(answers) {
            // A caller that has gone away needs no answer.
            drop(caller.send(answer));
        }
    }
}

/// An answer for each, in their order.
async fn accept_all(link: &Link, deliveries: &[&Delivery]) -> Vec<Answer> {
    // The first of those that are alike stands for all.
    let mut first: BTreeMap<_, usize> = BTreeMap::new();
    let mut distinct: Vec<&Delivery> = Vec::new();
    let stands: Vec<(usize, bool)> = deliveries
        .iter()
        .map(|delivery| {
            let next = distinct.len();
            let place = *first.entry((&delivery.forge, &delivery.id)).or_insert(next);
            if place == next {
                distinct.push(delivery);
            }
            (place, place == next)
        })
        .collect();
    let answers = match together(link, &distinct).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if distinct.len() > 1 && may_be_one_alone(&error) => {
            let mut answers = Vec::new();
            for delivery in &distinct {
                let alone = together(link, &[delivery]).await;
                answers.push(alone.map(|answers| answers[0]));
            }
            answers
        }
        Err(error) => vec![Err(error); distinct.len()],
    };
    let answer = |(place, is_first): (usize, bool)| match &answers[place] {
        Ok(Accepted::New(sequence)) if !is_first => Ok(Accepted::Duplicate(*sequence)),
        other => other.clone(),
    };
    stands.into_iter().map(answer).collect()
}

/// What may be the fault of one delivery, rather than of the server or the way to it.
fn may_be_one_alone(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { .. } | StoreError::Full { .. })
}

/// Keeps a group of which no two are alike, or nothing of it.
async fn together(link: &Link, group: &[&Delivery]) -> Result<Vec<Accepted>, StoreError> {
    let answers = link.bounded(begin_and_end(link, group)).await?;
    if answers.len() == group.len() {
        return Ok(answers);
    }
    Err(StoreError::Corrupt {
        place: link.place.name(),
        detail: format!("{} deliveries got {} numbers", group.len(), answers.len()),
    })
}

async fn begin_and_end(link: &Link, group: &[&Delivery]) -> Result<Vec<Accepted>, StoreError> {
    let texts = |text: fn(&Delivery) -> &str| -> Vec<_> {
        group.iter().map(|delivery| stored(text(delivery))).collect()
    };
    let forges = texts(|delivery| delivery.forge.as_str());
    let (ids, events) = (texts(|delivery| &delivery.id), texts(|delivery| &delivery.event));
    let at: Vec<i64> = group.iter().map(|delivery| delivery.received_at.as_millis()).collect();
    let bodies: Vec<&[u8]> = group.iter().map(|delivery| &*delivery.body).collect();
    let values: Vec<&(dyn ToSql + Sync)> = vec![&forges, &ids, &events, &at, &bodies];

    let failed = |error| link.place.failed(error);
    let session = link.session().await?;
    let number = session.prepared(own::NUMBER).await.map_err(failed)?;
    let accept = session.prepared(own::ACCEPT).await.map_err(failed)?;
    let end = format!("NOTIFY {}; COMMIT", own::CHANNEL);
    // All at once, so that the number is held no longer than the server itself takes.
    let (begun, numbered, rows, ended) = tokio::join!(
        biased;
        session.run(own::BEGIN),
        session.query(&number, Vec::<i64>::new()),
        session.query(&accept, values),
        session.run(&end),
    );
    let unended = |error| link.place.unended(error);
    begun.map_err(unended)?;
    numbered.map_err(unended)?;
    let rows = rows.map_err(unended)?;
    ended.map_err(unended)?;
    session.keep();
    rows.iter().map(answer).collect::<Result<_, _>>().map_err(|error| link.place.corrupt(&error))
}

fn answer(row: &Row) -> Result<Accepted, Misread> {
    let number = row.int("sequence")?.ok_or_else(|| Misread::new("sequence", "it is empty"))?;
    let sequence = number.cast_unsigned();
    let is_new = row.int("is_new")? == Some(1);
    Ok(if is_new { Accepted::New(sequence) } else { Accepted::Duplicate(sequence) })
}
