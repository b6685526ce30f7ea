//! Moving the rows of one table: a thread reads SQLite and encodes, this one writes to PostgreSQL.
//!
//! Memory is bounded by a few buffers, whatever the number of rows. The table is created in the same transaction, so that COPY
//! may freeze the rows: they need no second writing by a later vacuum or by the first reader.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};
use oa_core::base::failpoint;
use oa_core::base::threads::{self, NoThread};
use oa_core::pg::{describe, quote_ident};
use postgres::{Client, Transaction};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::encode::{Codec, HEADER, TRAILER};
use super::forms;
use super::rejects::{Rejects, skip_clause};
use super::sequences;
use super::staging::create_table;
use super::tables::Watch;
use crate::inspect;
use crate::plan::{Plan, PlannedTable};
use crate::progress;

/// A buffer is handed over when it holds this much.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers in flight per table.
const BUFFERS: usize = 4;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Opens the snapshot for reading, with the quarantined rows attached.
pub(crate) fn open_snapshot(snapshot: &Path, rejects: &Rejects) -> Result<Connection> {
    let connection = inspect::open(snapshot)?;
    rejects.attach(&connection)?;
    forms::register(&connection)?;
    Ok(connection)
}

/// PostgreSQL cannot compute a generated column of a row.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct NotComputed {
    pub(crate) table: String,
    pub(crate) reason: String,
}

/// A refusal of rows; the loaded values have been vetted, so an exception of data is one of a generated column.
fn refusal(table: &PlannedTable, error: &postgres::Error) -> anyhow::Error {
    let reason = describe(error).to_string();
    let of_data = error.code().is_some_and(|c| c.code().starts_with("22"));
    if of_data && table.columns.iter().any(|c| c.generated.is_some()) {
        return anyhow::Error::new(NotComputed {
            table: table.target.clone(),
            reason,
        });
    }
    anyhow!(reason)
}

/// Creates a table in the staging schema and fills it, in one transaction; `watch` sees the rows.
pub(crate) fn load<W: Watch>(
    client: &mut Client,
    (snapshot, rejects): (&Path, &Rejects),
    plan: &Plan,
    table: &PlannedTable,
    staging: &str,
    watch: &W,
) -> Result<(Loaded, W::Rows)> {
    let context = || format!("could not load table {}", table.source.name);
    progress::table(&table.source.name);
    let mut tx = client.transaction()?;
    for sql in create_table(staging, &plan.schema, table) {
        tx.batch_execute(&sql)
            .map_err(|e| anyhow!("{}; the statement was: {sql}", describe(&e)))
            .with_context(context)?;
    }
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    if plan.rehearsal {
        let given: Vec<&str> = table.loaded().map(|(_, c)| c.target.as_str()).collect();
        sequences::stand_in(&mut tx, &name, staging, &given).with_context(context)?;
    }
    let mut seen = watch.begin(&mut tx, table)?;
    let columns: Vec<String> = table
        .loaded()
        .map(|(_, c)| quote_ident(&c.target))
        .collect();
    // Values that PostgreSQL reads itself come as texts.
    let texts = table.loaded().any(|(_, c)| c.pg.is_other());
    let copy = if texts {
        create_texts_table(&mut tx, &name, table).with_context(context)?;
        "COPY pg_temp.oa_texts FROM STDIN (FORMAT binary)".to_owned()
    } else {
        format!(
            "COPY {name} ({}) FROM STDIN (FORMAT binary, FREEZE)",
            columns.join(", ")
        )
    };
    let mut writer = tx
        .copy_in(&copy)
        .map_err(|e| anyhow!(describe(&e)))
        .with_context(context)?;
    let (full_in, full_out) = sync_channel::<Vec<u8>>(BUFFERS);
    let (empty_in, empty_out) = sync_channel::<Vec<u8>>(BUFFERS + 2);
    let loaded = thread::scope(|scope| {
        let (from, seen) = ((snapshot, rejects), &mut seen);
        let reader = threads::spawn_in(scope, "read SQLite", move || {
            let sender = Sender {
                buffer: Vec::new(),
                full: &full_in,
                empty: &empty_out,
            };
            read::<W>(from, table, seen, sender)
        })?;
        let mut bytes = 0u64;
        let mut written = Ok(());
        for mut buffer in full_out {
            bytes += buffer.len() as u64;
            failpoint::hit("migrate.copy");
            // A large value that had to be encoded is not kept once more in one message.
            written = buffer
                .chunks(BUFFER_BYTES)
                .try_for_each(|chunk| writer.write_all(chunk));
            if written.is_err() {
                break;
            }
            if buffer.capacity() <= 2 * BUFFER_BYTES {
                buffer.clear();
                let _ = empty_in.try_send(buffer);
            }
        }
        let rows = reader
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread that reads SQLite panicked")));
        Ok::<_, NoThread>((rows, bytes, written))
    });
    let (rows, bytes, written) = loaded.with_context(context)?;
    // A refusal of PostgreSQL ends the reader too, so it is the one to report.
    if let Err(e) = written {
        let pg = e
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<postgres::Error>());
        let refused = pg.map_or_else(|| anyhow!(e.to_string()), |e| refusal(table, e));
        return Err(refused).with_context(context);
    }
    let rows = rows.with_context(context)?;
    let mut stored = writer
        .finish()
        .map_err(|e| refusal(table, &e))
        .with_context(context)?;
    if texts {
        stored = read_texts(&mut tx, &name, &columns, table).with_context(context)?;
    }
    anyhow::ensure!(
        stored == rows,
        "table {}: {rows} rows were sent, PostgreSQL counted {stored}",
        table.source.name
    );
    tx.commit()
        .map_err(|e| anyhow!(describe(&e)))
        .with_context(context)?;
    Ok((Loaded { rows, bytes }, seen))
}

/// A large value is in SQLite's memory, and comes back in a message for which a buffer is doubled until it has room. Memory that ran out
/// there would end the process without a word.
fn check_memory(value: ValueRef<'_>) -> Result<()> {
    const LARGE: usize = 16 << 20;
    let (ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value else {
        return Ok(());
    };
    let size = bytes.len();
    let needed = size.saturating_mul(4);
    if size >= LARGE && Vec::<u8>::new().try_reserve_exact(needed).is_err() {
        return Err(anyhow!(
            "a value of {size} bytes needs {needed} bytes of memory, which this process does not get; raise its limit (ulimit -v)"
        ));
    }
    Ok(())
}

/// Creates a temporary table like one of the staging schema, with texts for what PostgreSQL reads itself.
fn create_texts_table(tx: &mut Transaction<'_>, name: &str, table: &PlannedTable) -> Result<()> {
    let columns: Vec<String> = table
        .loaded()
        .map(|(_, c)| forms::as_text(&quote_ident(&c.target), c.pg))
        .collect();
    let sql = format!(
        "CREATE TEMPORARY TABLE oa_texts ON COMMIT DROP AS SELECT {} FROM {name} WITH NO DATA",
        columns.join(", ")
    );
    tx.batch_execute(&sql)
        .map_err(|e| anyhow!("{}; the statement was: {sql}", describe(&e)))
}

/// Lets PostgreSQL read those texts; returns how many rows there are.
fn read_texts(
    tx: &mut Transaction<'_>,
    name: &str,
    columns: &[String],
    table: &PlannedTable,
) -> Result<u64> {
    let values: Vec<String> = table
        .loaded()
        .map(|(_, c)| forms::cast(&quote_ident(&c.target), c.pg))
        .collect();
    let sql = format!(
        "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.oa_texts",
        columns.join(", "),
        values.join(", ")
    );
    tx.execute(&sql, &[]).map_err(|e| refusal(table, &e))
}

/// Hands encoded rows over.
struct Sender<'a> {
    buffer: Vec<u8>,
    full: &'a SyncSender<Vec<u8>>,
    empty: &'a Receiver<Vec<u8>>,
}

impl Sender<'_> {
    /// Returns whether somebody takes it.
    fn send_buffer(&mut self) -> bool {
        let next = self
            .empty
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES + (64 << 10)));
        let full = std::mem::replace(&mut self.buffer, next);
        self.full.send(full).is_ok()
    }

    /// A large value goes from where it is.
    fn send_large(&mut self, bytes: &[u8]) -> bool {
        self.buffer
            .extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        bytes.chunks(BUFFER_BYTES).all(|chunk| {
            let taken = self.send_buffer();
            self.buffer.extend_from_slice(chunk);
            taken
        })
    }
}

/// Reads and encodes all rows. Ends early and quietly when nobody takes the buffers any more.
fn read<W: Watch>(
    (snapshot, rejects): (&Path, &Rejects),
    table: &PlannedTable,
    seen: &mut W::Rows,
    mut sender: Sender<'_>,
) -> Result<u64> {
    let connection = open_snapshot(snapshot, rejects)?;
    let skip = if rejects.count(&table.source.name)? > 0 {
        skip_clause(&table.source)
    } else {
        String::new()
    };
    let types = table.columns.iter().map(|c| c.pg);
    let select = forms::select(&table.source, types, "quarantine.forms");
    let mut statement = connection.prepare(&format!("{select}{skip}"))?;
    // What PostgreSQL computes is seen, and not sent.
    let columns = table.columns.iter();
    let codecs: Vec<Option<Codec>> = columns
        .map(|c| c.generated.is_none().then(|| Codec::of(c)))
        .collect();
    let fields = i16::try_from(codecs.iter().flatten().count())
        .context("more columns than PostgreSQL allows")?
        .to_be_bytes();
    sender.buffer.extend_from_slice(HEADER);
    let mut count = 0;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        sender.buffer.extend_from_slice(&fields);
        for (i, codec) in codecs.iter().enumerate() {
            let of = || format!("column {}", table.columns[i].source);
            let value = row.get_ref(i)?;
            check_memory(value).with_context(of)?;
            W::see(seen, i, value);
            let Some(codec) = codec else { continue };
            let sent = match codec.as_it_is(value) {
                Some(large) => large.map(|bytes| sender.send_large(bytes)),
                None => codec.encode(value, &mut sender.buffer).map(|()| true),
            };
            // The value scan and the vetting have seen every value of this snapshot, so this is a mistake of this program.
            let foreseen = |reason| {
                anyhow!(
                    "{}: {reason}, which the value scan did not foresee; please report this",
                    of()
                )
            };
            if !sent.map_err(foreseen)? {
                return Ok(count);
            }
        }
        W::end_row(seen);
        count += 1;
        progress::rows(count);
        if sender.buffer.len() >= BUFFER_BYTES && !sender.send_buffer() {
            return Ok(count);
        }
    }
    sender.buffer.extend_from_slice(&TRAILER);
    sender.send_buffer();
    Ok(count)
}
