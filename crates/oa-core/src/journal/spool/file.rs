//! The SQLite file of the spool: its tables, and what version 0.1 called them.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::outbox;

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(30))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let former: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'told')",
        [],
        |r| r.get(0),
    )?;
    if former {
        // Its name until version 0.1. Another program may be renaming it now.
        let _ = db.execute_batch("ALTER TABLE told RENAME TO notified");
    }
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS entries (
           seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, kind TEXT NOT NULL, task TEXT, fingerprint TEXT,
           created_at INTEGER NOT NULL, error TEXT, payload BLOB NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS entries_task ON entries (task);
         CREATE TABLE IF NOT EXISTS notified (fingerprint TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         {}
         COMMIT;",
        outbox::TABLES
    ))?;
    let counts: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('tries') WHERE name = 'unanswered')",
        [],
        |r| r.get(0),
    )?;
    if !counts {
        // Made by version 0.1. As above.
        let _ =
            db.execute_batch("ALTER TABLE tries ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0");
    }
    Ok(db)
}
