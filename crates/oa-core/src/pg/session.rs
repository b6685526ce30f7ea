//! Statements that stay prepared on their connection: what is said for each of a thousand runs is parsed once, and planned a few times.
//!
//! A statement belongs to the connection on which it was prepared, and survives the transaction in which that was done, also when that is
//! rolled back. Whatever changes in the database meanwhile, the server plans it anew; but what then gives columns of other types it refuses,
//! and all statements of the connection are prepared anew the next time.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Error, Row, Statement, Transaction};

/// A table of one's own has statements of its own: of more than this all are forgotten.
const MOST: usize = 500;

/// The statements of one connection, by their text.
#[derive(Default)]
pub struct Prepared(HashMap<String, Statement>);

impl Prepared {
    fn get(
        &mut self,
        sql: &str,
        prepare: impl FnOnce(&str) -> Result<Statement, Error>,
    ) -> Result<Statement, Error> {
        if let Some(known) = self.0.get(sql) {
            return Ok(known.clone());
        }
        let statement = prepare(sql)?;
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Forgets all of them when that is why PostgreSQL failed.
    fn watch<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if done.as_ref().is_err_and(is_outdated) {
            self.0.clear();
        }
        done
    }

    /// Executes one on its connection, in a transaction of its own.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn execute(
        &mut self,
        client: &mut Client,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        let statement = self.get(sql, |sql| client.prepare(sql))?;
        let done = client.execute(&statement, parameters);
        self.watch(done)
    }
}

/// Whether a statement was refused for having been prepared before a table was changed, or is known no more. In a new transaction it may be
/// accepted.
#[must_use]
pub fn is_outdated(error: &Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::FEATURE_NOT_SUPPORTED)
        || code == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
}

/// A connection with its statements.
pub struct Session {
    client: Client,
    prepared: Prepared,
}

impl Session {
    /// Nothing is prepared yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            prepared: Prepared::default(),
        }
    }

    /// A row, or none.
    ///
    /// # Errors
    /// When PostgreSQL fails, or there are more.
    pub fn query_opt(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        let statement = self.prepared.get(sql, |sql| self.client.prepare(sql))?;
        let done = self.client.query_opt(&statement, parameters);
        self.prepared.watch(done)
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// A connection, with statements that stay prepared or without.
pub trait Connection {
    /// It, and its statements.
    fn parts<'a>(&'a mut self, own: &'a mut Prepared) -> (&'a mut Client, &'a mut Prepared);
}

impl Connection for Session {
    fn parts<'a>(&'a mut self, _own: &'a mut Prepared) -> (&'a mut Client, &'a mut Prepared) {
        (&mut self.client, &mut self.prepared)
    }
}

impl Connection for Client {
    fn parts<'a>(&'a mut self, own: &'a mut Prepared) -> (&'a mut Client, &'a mut Prepared) {
        (self, own)
    }
}

/// A transaction whose statements stay prepared.
pub struct Tx<'a, 't> {
    inner: &'a mut Transaction<'t>,
    prepared: &'a mut Prepared,
}

impl<'a, 't> Tx<'a, 't> {
    /// Both must be of the same connection.
    pub fn new(inner: &'a mut Transaction<'t>, prepared: &'a mut Prepared) -> Self {
        Self { inner, prepared }
    }

    /// A savepoint, for a [`Tx`] of its own.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn savepoint(&mut self) -> Result<(Transaction<'_>, &mut Prepared), Error> {
        Ok((self.inner.transaction()?, self.prepared))
    }

    /// Does something behind a savepoint that is gone afterwards, also where it fails or says `false`, and then has done nothing. Merely rolled
    /// back, it would stay as an open subtransaction: the server's table of locks has room for some thousands of those.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn attempt<T>(
        &mut self,
        what: impl FnOnce(&mut Tx<'_, '_>) -> Result<(T, bool), Error>,
    ) -> Result<T, Error> {
        const NAME: &str = "oa_attempt";
        let mut savepoint = self.inner.savepoint(NAME)?;
        let done = what(&mut Tx::new(&mut savepoint, self.prepared));
        if let Ok((done, true)) = done {
            savepoint.commit()?;
            return Ok(done);
        }
        let rolled_back = savepoint.rollback();
        let released =
            rolled_back.and_then(|()| self.inner.batch_execute(&format!("RELEASE {NAME}")));
        // Why it failed says more than that the connection is gone since.
        let (done, _) = done?;
        released.map(|()| done)
    }

    /// Gives how many rows it was.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn execute(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let statement = self.prepared.get(sql, |sql| self.inner.prepare(sql))?;
        let done = self.inner.execute(&statement, parameters);
        self.prepared.watch(done)
    }

    /// All rows.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn query(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.prepared.get(sql, |sql| self.inner.prepare(sql))?;
        let done = self.inner.query(&statement, parameters);
        self.prepared.watch(done)
    }

    /// The only row.
    ///
    /// # Errors
    /// When PostgreSQL fails, or there is none, or there are more.
    pub fn query_one(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        let statement = self.prepared.get(sql, |sql| self.inner.prepare(sql))?;
        let done = self.inner.query_one(&statement, parameters);
        self.prepared.watch(done)
    }

    /// A row, or none.
    ///
    /// # Errors
    /// When PostgreSQL fails, or there are more.
    pub fn query_opt(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        let statement = self.prepared.get(sql, |sql| self.inner.prepare(sql))?;
        let done = self.inner.query_opt(&statement, parameters);
        self.prepared.watch(done)
    }
}

impl<'t> Deref for Tx<'_, 't> {
    type Target = Transaction<'t>;

    fn deref(&self) -> &Transaction<'t> {
        self.inner
    }
}

impl<'t> DerefMut for Tx<'_, 't> {
    fn deref_mut(&mut self) -> &mut Transaction<'t> {
        self.inner
    }
}
