//! What programs do when a connection that they have kept breaks.
//!
//! A connection that breaks before its commit has done nothing; one that breaks behind it has done all, and its answer is lost. The runs'
//! own transactions know by the run's id what is done already. What has no such name is done by [`Recorder::once`], which asks the server
//! what became of the transaction.

use std::thread;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Transaction};

use super::Recorder;
use crate::journal::error::DbUnavailable;
use crate::pg::Meaning;

/// So long a commit whose answer was lost may go on at the server.
const GOES_ON: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What came of a transaction.
enum End<T> {
    Committed(T),
    /// It is not done.
    Failed(postgres::Error),
    /// It was about to be committed under this number when the connection broke.
    Unknown(T, String, postgres::Error),
}

impl Recorder {
    /// Does something on a connection that was made by [`Recorder::connect`], by this or an earlier call, and is kept for the next one. It
    /// is done again where that connection breaks meanwhile: what must not be done twice is for [`Recorder::once`].
    ///
    /// # Errors
    /// See [`DbUnavailable`]; the inner one when PostgreSQL fails.
    pub fn connected<T>(
        &self,
        mut what: impl FnMut(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<Result<T, postgres::Error>, DbUnavailable> {
        loop {
            let kept = self.kept.take();
            let was_kept = kept.is_some();
            let mut session = kept.map_or_else(|| self.session(), Ok)?;
            match what(&mut session) {
                // It may have been closed since it was used last.
                Err(e) if was_kept && Meaning::of(&e) == Meaning::Unreachable => {}
                done => {
                    self.kept.give_back(session);
                    return Ok(done);
                }
            }
        }
    }

    /// The same in one transaction, which is committed once, also when the answer to its commit is lost.
    ///
    /// # Errors
    /// See [`DbUnavailable`]; the inner one when PostgreSQL fails, or does not say in time what became of the commit.
    pub fn once<T>(
        &self,
        mut what: impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error>,
    ) -> Result<Result<T, postgres::Error>, DbUnavailable> {
        loop {
            let kept = self.kept.take();
            let was_kept = kept.is_some();
            let mut session = kept.map_or_else(|| self.session(), Ok)?;
            let (error, session) = match transact(&mut session, &mut what) {
                End::Committed(done) => {
                    self.kept.give_back(session);
                    return Ok(Ok(done));
                }
                End::Failed(e) => (e, Some(session)),
                End::Unknown(done, number, e) => {
                    drop(session);
                    let mut anew = self.session()?;
                    let committed = was_committed(&mut anew, &number);
                    self.kept.give_back(anew);
                    match committed {
                        Ok(Some(true)) => return Ok(Ok(done)),
                        Ok(Some(false)) => (e, None),
                        Ok(None) => return Ok(Err(e)),
                        Err(e) => return Ok(Err(e)),
                    }
                }
            };
            if !was_kept || Meaning::of(&error) != Meaning::Unreachable {
                session.into_iter().for_each(|s| self.kept.give_back(s));
                return Ok(Err(error));
            }
        }
    }
}

fn transact<T>(
    client: &mut Client,
    what: &mut impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error>,
) -> End<T> {
    let begun = client.transaction().and_then(|mut tx| {
        let done = what(&mut tx)?;
        let row = tx.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[])?;
        Ok((tx, done, row.get::<_, Option<String>>(0)))
    });
    let (tx, done, number) = match begun {
        Ok(begun) => begun,
        Err(e) => return End::Failed(e),
    };
    match (tx.commit(), number) {
        (Ok(()), _) => End::Committed(done),
        (Err(e), Some(number)) if Meaning::of(&e) == Meaning::Unreachable => {
            End::Unknown(done, number, e)
        }
        (Err(e), _) => End::Failed(e),
    }
}

/// Whether a transaction was committed; `None` while it goes on. A server that took over from another one may not have seen it: then what
/// it did is not there either.
fn was_committed(client: &mut Client, number: &str) -> Result<Option<bool>, postgres::Error> {
    let until = Instant::now() + GOES_ON;
    loop {
        let asked = client.query_one("SELECT pg_xact_status($1::text::xid8)", &[&number]);
        let status: Option<String> = match asked {
            Ok(row) => row.get(0),
            Err(e) if e.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
                return Ok(Some(false));
            }
            Err(e) => return Err(e),
        };
        match status.as_deref() {
            Some("in progress") if Instant::now() < until => thread::sleep(LOOK_AGAIN),
            Some("in progress") => return Ok(None),
            status => return Ok(Some(status == Some("committed"))),
        }
    }
}
