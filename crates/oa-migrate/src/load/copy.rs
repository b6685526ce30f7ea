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
use oa_core::pg::{describe, quote_ident};
use postgres::{Client, Transaction};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::encode::{Codec, HEADER, TRAILER};
use super::forms;
use super::rejects::{Rejects, skip_clause};
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
    let mut seen = watch.begin(&mut tx, table)?;
    let columns: Vec<String> = table
        .loaded()
        .map(|(_, c)| quote_ident(&c.target))
        .collect();
    let name = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
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
    let (rows, bytes, written) = thread::scope(|scope| {
        let see = |row: &Row<'_>| W::see(&mut seen, row);
        let from = (snapshot, rejects);
        let reader = scope.spawn(move || read(from, table, see, &full_in, &empty_out));
        let mut bytes = 0u64;
        let mut written = Ok(());
        for mut buffer in full_out {
            bytes += buffer.len() as u64;
            failpoint::hit("migrate.copy");
            // A large value is not kept once more in one message.
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
        (rows, bytes, written)
    });
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

/// A large value goes through four buffers, the proof's among them. Memory that ran out in one of them would end the process without a word.
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

/// Reads and encodes all rows. Ends early and quietly when nobody takes the buffers any more.
fn read(
    (snapshot, rejects): (&Path, &Rejects),
    table: &PlannedTable,
    mut see: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
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
    let codecs: Vec<_> = table.loaded().map(|(i, c)| (i, Codec::of(c))).collect();
    let fields = i16::try_from(codecs.len())
        .context("more columns than PostgreSQL allows")?
        .to_be_bytes();
    let mut buffer = HEADER.to_vec();
    let mut count = 0;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for (i, _) in &codecs {
            let of = || format!("column {}", table.columns[*i].source);
            check_memory(row.get_ref(*i)?).with_context(of)?;
        }
        see(row)?;
        buffer.extend_from_slice(&fields);
        for (i, codec) in &codecs {
            let value = row.get_ref(*i)?;
            if let Err(reason) = codec.encode(value, &mut buffer) {
                // The value scan and the vetting have seen every value of this snapshot, so this is a mistake of this program.
                return Err(anyhow!(
                    "column {}: {reason}, which the value scan did not foresee; please report this",
                    table.columns[*i].source
                ));
            }
        }
        count += 1;
        progress::rows(count);
        if buffer.len() >= BUFFER_BYTES {
            let next = empty
                .try_recv()
                .unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES + (64 << 10)));
            if full.send(std::mem::replace(&mut buffer, next)).is_err() {
                return Ok(count);
            }
        }
    }
    buffer.extend_from_slice(&TRAILER);
    let _ = full.send(buffer);
    Ok(count)
}
