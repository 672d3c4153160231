//! Connections to the database: a few, each used by one caller at a time, none longer than allowed, and
//! one that is kept for the lease, which must not wait for the others.
//!
//! A connection on which anything failed, or whose caller went away in the middle, is closed and not
//! used again: the server then undoes what was not committed.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::maybe_done;
use tokio::time::timeout;
use tokio_postgres::types::BorrowToSql;
use tokio_postgres::{Config, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Settings;
use super::address::Address;
use super::bulk::{self, Asked, Param};
use super::failure::Place;
use super::sql::dialect;
use crate::StoreError;
use crate::value::{self, Cells, Misread, Value};

/// Most statements that are under way on one connection.
const UNDER_WAY_MAX: usize = 64;

/// A database that can be reached.
pub(super) struct Link {
    pool: Pool,
    reserve: Pool,
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) place: Place,
    pub(super) settings: Settings,
}

impl Link {
    pub(super) fn new(address: Address, settings: Settings) -> Result<Self, StoreError> {
        let Address { mut config, trust, place } = address;
        let tls =
            trust.connector().map_err(|detail| StoreError::Tls { place: place.clone(), detail })?;
        config.connect_timeout(settings.connect_timeout);
        config.tcp_user_timeout(settings.call_timeout);
        config.keepalives_idle(settings.call_timeout);
        if config.get_application_name().is_none() {
            config.application_name("remuda");
        }
        let reserve = bounded(&config, &settings, settings.lease_timeout);
        let reserve = pooled(&reserve, &tls, &settings, 1);
        let config = bounded(&config, &settings, settings.statement_timeout);
        let pool = pooled(&config, &tls, &settings, settings.connections);
        Ok(Self { pool, reserve, config, tls, place: Place(place), settings })
    }

    /// A connection of one's own until it is dropped.
    pub(super) async fn session(&self) -> Result<Session<'_>, StoreError> {
        self.taken_from(&self.pool).await
    }

    async fn taken_from(&self, pool: &Pool) -> Result<Session<'_>, StoreError> {
        let object = pool.get().await.map_err(|error| self.place.unconnected(error))?;
        Ok(Session { object: Some(object), place: &self.place })
    }

    /// Does `work`, for as long as a call may take.
    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.settings.call_timeout;
        timeout(limit, work).await.unwrap_or_else(|_| Err(self.place.late(limit)))
    }

    /// Runs one statement by itself and reads what it finds.
    pub(super) async fn rows<T>(
        &self,
        sql: &str,
        values: Vec<Value<'_>>,
        read: fn(&dyn Cells) -> Result<T, Misread>,
    ) -> Result<Vec<T>, StoreError> {
        self.bounded(self.rows_from(&self.pool, sql, values, read)).await
    }

    /// As [`Self::rows`], of the lease: it waits for none of the other calls.
    pub(super) async fn rows_of_the_lease<T>(
        &self,
        sql: &str,
        values: Vec<Value<'_>>,
        read: fn(&dyn Cells) -> Result<T, Misread>,
    ) -> Result<Vec<T>, StoreError> {
        self.bounded(self.rows_from(&self.reserve, sql, values, read)).await
    }

    async fn rows_from<T>(
        &self,
        pool: &Pool,
        sql: &str,
        values: Vec<Value<'_>>,
        read: fn(&dyn Cells) -> Result<T, Misread>,
    ) -> Result<Vec<T>, StoreError> {
        let session = self.taken_from(pool).await?;
        let found = session.rows(sql, values, read).await?;
        session.keep();
        Ok(found)
    }
}

/// Connections on which the server ends what takes too long.
fn bounded(config: &Config, settings: &Settings, statement: Duration) -> Config {
    let (statement, pause) = (statement.as_millis(), settings.pause_timeout.as_millis());
    let given = config.get_options().unwrap_or_default();
    // `on` is the least that keeps what was answered; whoever has the server relax it means others.
    let options = format!(
        "{given} -c statement_timeout={statement} -c lock_timeout={statement} \
         -c synchronous_commit=on -c idle_in_transaction_session_timeout={pause}"
    );
    let mut config = config.clone();
    config.options(options.trim());
    config
}

fn pooled(config: &Config, tls: &MakeRustlsConnect, settings: &Settings, size: usize) -> Pool {
    let recycling_method = RecyclingMethod::Fast;
    let manager =
        Manager::from_config(config.clone(), tls.clone(), ManagerConfig { recycling_method });
    let timeouts = Timeouts {
        wait: Some(settings.connect_timeout),
        create: Some(settings.connect_timeout),
        recycle: Some(settings.connect_timeout),
    };
    Pool::builder(manager)
        .max_size(size)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a runtime is given, which is all that may lack")
}

/// A connection of one's own. Dropped, it is closed, unless it was [kept](Session::keep).
pub(super) struct Session<'a> {
    object: Option<Object>,
    place: &'a Place,
}

impl Session<'_> {
    fn client(&self) -> &Object {
        self.object.as_ref().expect("it is only taken in the end")
    }

    /// Puts the connection back for others: nothing is under way on it.
    pub(super) fn keep(mut self) {
        drop(self.object.take());
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client().batch_execute(sql).await
    }

    pub(super) async fn prepared(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        self.client().prepare_cached(&dialect(sql)).await
    }

    pub(super) async fn query<P: BorrowToSql>(
        &self,
        statement: &Statement,
        values: Vec<P>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        use futures_util::TryStreamExt as _;
        self.client().query_raw(statement, values).await?.try_collect().await
    }

    /// As [`Self::query`], in our terms.
    pub(super) async fn rows<T>(
        &self,
        sql: &str,
        values: Vec<Value<'_>>,
        read: fn(&dyn Cells) -> Result<T, Misread>,
    ) -> Result<Vec<T>, StoreError> {
        let failed = |error| self.place.failed(error);
        let statement = self.prepared(sql).await.map_err(failed)?;
        let rows = self.query(&statement, values).await.map_err(failed)?;
        rows.iter()
            .map(|row| read(row))
            .collect::<Result<_, _>>()
            .map_err(|error| self.place.corrupt(&error))
    }

    /// Runs statements in order, and ends the transaction that they are in.
    pub(super) async fn all_to_the_end<'v>(
        &self,
        statements: impl Iterator<Item = value::Statement<'v>>,
    ) -> Result<(), tokio_postgres::Error> {
        self.all(statements).await?;
        self.run("COMMIT").await
    }

    /// Runs statements of one transaction, with the same effect as in their order, in as few as may be, most of
    /// them without waiting for the one before.
    pub(super) async fn all<'v>(
        &self,
        statements: impl Iterator<Item = value::Statement<'v>>,
    ) -> Result<(), tokio_postgres::Error> {
        let asked = bulk::together(statements);
        if asked.iter().any(|asked| asked.many.is_some()) {
            // A plan for rows of any number is one for few, in tables as small as they were then.
            self.run("SET LOCAL plan_cache_mode = force_custom_plan").await?;
        }
        let mut known: BTreeMap<&str, Statement> = BTreeMap::new();
        let mut batch = Vec::new();
        for Asked { single, many, params } in asked {
            let sql = many.unwrap_or(single);
            if !known.contains_key(sql) {
                let mut statement = self.prepared(single).await?;
                if let Some(many) = many {
                    statement = self.prepared(&bulk::written(many, statement.params())).await?;
                }
                known.insert(sql, statement);
            }
            batch.push((known[sql].clone(), params));
            if batch.len() == UNDER_WAY_MAX {
                self.batch(std::mem::take(&mut batch)).await?;
            }
        }
        self.batch(batch).await
    }

    async fn batch(
        &self,
        batch: Vec<(Statement, Vec<Param<'_>>)>,
    ) -> Result<(), tokio_postgres::Error> {
        let client = self.client();
        let sent = batch.into_iter().map(|(statement, params)| async move {
            client.execute_raw(&statement, params).await.map(|_| ())
        });
        in_order(sent.collect()).await.into_iter().collect()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// Completes with the results of all. Each is begun before any is waited for, and in their order,
/// which is the order in which a connection sends what they send.
pub(super) async fn in_order<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|future| Box::pin(maybe_done(future))).collect();
    poll_fn(|context| {
        let mut waits = false;
        for future in &mut all {
            waits |= future.as_mut().poll(context).is_pending();
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.iter_mut().map(|future| future.as_mut().take_output().expect("it is done")).collect()
}
