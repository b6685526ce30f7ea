//! What programs do when a connection that they have kept breaks.
//!
//! A connection that breaks before its commit has done nothing; one that breaks behind it has done all, and its answer is lost. The runs'
//! own transactions know by the run's id what is done already. What has no such name is done by [`Recorder::once`], which gives it one, in
//! `oa.commits`: unlike the number of a transaction it is nobody else's, also on a server that has taken over from another one.

use postgres::error::SqlState;
use postgres::{Client, Transaction};
use uuid::Uuid;

use super::Recorder;
use crate::journal::error::DbUnavailable;
use crate::pg::Meaning;

/// So long a commit whose answer was lost may go on at the server.
const GOES_ON: &str = "SET LOCAL lock_timeout = '10s'";

/// What came of a transaction.
enum End<T> {
    Committed(T),
    /// It is not done.
    Failed(postgres::Error),
    /// It was about to be committed when the connection broke.
    Unknown(T, postgres::Error),
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
            let id = Uuid::now_v7();
            let (error, session) = match transact(&mut session, id, &mut what) {
                End::Committed(done) => {
                    self.kept.give_back(session);
                    return Ok(Ok(done));
                }
                End::Failed(e) => (e, Some(session)),
                End::Unknown(done, e) => {
                    drop(session);
                    let mut anew = self.session()?;
                    let committed = was_committed(&mut anew, id);
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
    id: Uuid,
    what: &mut impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error>,
) -> End<T> {
    let begun = client.transaction().and_then(|mut tx| {
        let done = what(&mut tx)?;
        tx.execute("SELECT oa.note_commit($1)", &[&id])?;
        Ok((tx, done))
    });
    let (tx, done) = match begun {
        Ok(begun) => begun,
        Err(e) => return End::Failed(e),
    };
    match tx.commit() {
        Ok(()) => End::Committed(done),
        Err(e) if Meaning::of(&e) == Meaning::Unreachable => End::Unknown(done, e),
        Err(e) => End::Failed(e),
    }
}

/// Whether a transaction was committed; if not, it never will be: its id is taken. `None` while it goes on.
fn was_committed(client: &mut Client, id: Uuid) -> Result<Option<bool>, postgres::Error> {
    let take = |client: &mut Client| -> Result<u64, postgres::Error> {
        let mut tx = client.transaction()?;
        tx.batch_execute(GOES_ON)?;
        let insert = "INSERT INTO oa.commits (id) VALUES ($1) ON CONFLICT DO NOTHING";
        let taken = tx.execute(insert, &[&id])?;
        tx.commit()?;
        Ok(taken)
    };
    match take(client) {
        Ok(taken) => Ok(Some(taken == 0)),
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
        Err(e) => Err(e),
    }
}
