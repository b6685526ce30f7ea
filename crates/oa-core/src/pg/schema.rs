//! The schema `oa`: versioned migrations, one SQL file each in `migrations/`, never edited once released.

use postgres::Client;
use postgres::error::SqlState;
use refinery_core::{Migration, Runner, Target};

use super::{Meaning, describe};

/// Names and texts of the files, which build.rs lists.
const MIGRATIONS: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

fn migrations() -> Vec<Migration> {
    let all = MIGRATIONS.iter();
    // A name is one, or a test fails.
    all.filter_map(|(name, sql)| Migration::unapplied(name, sql).ok())
        .collect()
}

/// What others may do by the schema's functions. Not a version: it holds for whatever versions make.
const RIGHTS: &str = include_str!("rights.sql");

/// Any number; every program takes the same one, so that two that start at once upgrade one after the other.
const UPGRADE_LOCK: i64 = 0x6f61_5f73_6368;
const HISTORY: &str = "oa.schema_history";

/// The database's schema and this program do not fit.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not there yet.
    #[error("the database has no schema \"oa\"; create it with: oa-migrate init")]
    Absent,
    /// Left by an older version.
    #[error(
        "the database's schema oa is version {found}, this program needs {needed}; upgrade it with: oa-migrate init"
    )]
    Older {
        /// Version in the database.
        found: i32,
        /// Version of this program.
        needed: i32,
    },
    /// Made by a newer version, whose tables this program does not know.
    #[error(
        "the database's schema oa is version {found}, newer than the {needed} this program knows; install the newer oa programs on this machine"
    )]
    Newer {
        /// Version in the database.
        found: i32,
        /// Version of this program.
        needed: i32,
    },
    /// Its encoding lacks characters of the texts that are stored.
    #[error(
        "the database's encoding is {0}, in which not every text can be stored; create it anew with: createdb --template=template0 --encoding=UTF8 --locale=C.UTF-8 NAME"
    )]
    Encoding(String),
    /// The upgrade itself failed and was rolled back.
    #[error("could not upgrade schema oa: {reason}")]
    Upgrade {
        /// What PostgreSQL said, and what to do.
        reason: String,
        /// What that means.
        meaning: Meaning,
    },
    /// The version could not be read.
    #[error("could not read the version of schema oa: {}", explained(.0))]
    Query(#[source] postgres::Error),
}

/// What to do about an error that says only what is not possible.
fn remedy(error: &postgres::Error) -> &'static str {
    match error.code().map(SqlState::code) {
        // A privilege is lacking.
        Some("42501") => {
            "; use the role that owns schema oa and the database; others get what they need from a superuser: oa-migrate init --roles"
        }
        Some(READ_ONLY) => {
            "; this is a standby, or default_transaction_read_only is set for the role or the database: use the primary, or reset it"
        }
        // Somebody held a lock all the time.
        Some("55P03") => {
            "; another session holds tables of schema oa, for example a dump, or upgrades it too: end it, or wait for it, and run this again"
        }
        // There is no such schema.
        Some("3F000") => "; the service's tables belong into schema public: CREATE SCHEMA public",
        _ => "",
    }
}

fn explained(error: &postgres::Error) -> String {
    format!("{}{}", describe(error), remedy(error))
}

/// A transaction that may not write.
const READ_ONLY: &str = "25006";

fn is_read_only(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == READ_ONLY)
}

impl SchemaError {
    /// Whether only a person can mend it. A query that failed may succeed the next time.
    #[must_use]
    pub fn is_for_a_person(&self) -> bool {
        match self {
            Self::Query(_) => false,
            Self::Upgrade { meaning, .. } => !meaning.is_passing(),
            _ => true,
        }
    }

    /// Whether the server was gone before it could answer, or is one that takes no writes; whoever upgrades has chosen that one.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Query(e) => Meaning::of(e) == Meaning::Unreachable,
            Self::Upgrade { meaning, .. } => *meaning == Meaning::Unreachable,
            _ => false,
        }
    }

    fn of_upgrade(error: &postgres::Error) -> Self {
        // Whoever upgrades has chosen the server.
        let meaning = match is_read_only(error) {
            true => Meaning::Misconfigured,
            false => Meaning::of(error),
        };
        Self::Upgrade {
            reason: explained(error),
            meaning,
        }
    }

    /// PostgreSQL's own words are below those of the library.
    fn of_migration(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(e) = next {
            if let Some(e) = e.downcast_ref::<postgres::Error>() {
                return Self::of_upgrade(e);
            }
            next = e.source();
        }
        Self::Upgrade {
            reason: error.to_string(),
            meaning: Meaning::Refused,
        }
    }
}

/// The version that this program needs.
#[must_use]
pub fn needed() -> i32 {
    migrations()
        .iter()
        .map(Migration::version)
        .max()
        .unwrap_or(0)
}

/// The version in the database, `None` when there is no schema. Not for a transaction, which would fail with the query.
///
/// # Errors
/// When the query fails.
pub fn found(client: &mut Client) -> Result<Option<i32>, postgres::Error> {
    let newest = client.query_one(&format!("SELECT max(version)::int4 FROM {HISTORY}"), &[]);
    match newest {
        Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        newest => newest.map(|row| row.get(0)),
    }
}

/// Checks that the database's schema is the one this program needs.
///
/// # Errors
/// When it is not; the message says what to do.
pub fn check(client: &mut Client) -> Result<(), SchemaError> {
    let needed = needed();
    match found(client).map_err(SchemaError::Query)? {
        None => Err(SchemaError::Absent),
        Some(found) if found < needed => Err(SchemaError::Older { found, needed }),
        Some(found) if found > needed => Err(SchemaError::Newer { found, needed }),
        Some(_) => Ok(()),
    }
}

/// Before the schema is created: titles, alerts and rows are Chinese, and where those cannot be stored every outcome would wait in the spool
/// for ever.
///
/// # Errors
/// When the database's encoding lacks such characters, and it has no schema `oa` yet; when a query fails.
pub fn check_encoding(client: &mut Client) -> Result<(), SchemaError> {
    let encoding = "SELECT current_setting('server_encoding')";
    let encoding: String = client
        .query_one(encoding, &[])
        .map_err(SchemaError::Query)?
        .get(0);
    let fits = ["UTF8", "SQL_ASCII"].contains(&encoding.as_str());
    match fits || found(client).map_err(SchemaError::Query)?.is_some() {
        true => Ok(()),
        false => Err(SchemaError::Encoding(encoding)),
    }
}

/// Creates or upgrades the schema. Safe when several programs do it at once. Returns the names of the migrations applied.
///
/// # Errors
/// When the database's schema is newer, or a migration fails (each is one transaction).
pub fn upgrade(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    // A session lock, because refinery commits in between; released below, or by the end of the session.
    client
        .batch_execute(&format!("SET lock_timeout = '5min'; SET statement_timeout = 0; SELECT pg_advisory_lock({UPGRADE_LOCK})"))
        .map_err(|e| SchemaError::of_upgrade(&e))?;
    let applied = upgrade_locked(client);
    let freed = client
        .batch_execute(&format!(
            "SELECT pg_advisory_unlock({UPGRADE_LOCK}); SET lock_timeout = '30s'"
        ))
        .map_err(SchemaError::Query);
    // Why the upgrade failed says more than that the lock could not be freed: it ends with the session.
    let applied = applied?;
    freed?;
    Ok(applied)
}

/// Creates the schema as an older version of these programs left it: for tests of upgrades.
///
/// # Errors
/// When a migration fails.
#[doc(hidden)]
pub fn create_at(client: &mut Client, version: i32) -> Result<(), SchemaError> {
    client
        .batch_execute("CREATE SCHEMA oa")
        .map_err(SchemaError::Query)?;
    Runner::new(&migrations())
        .set_target(Target::Version(version))
        .set_migration_table_name(HISTORY)
        .run(client)
        .map(|_| ())
        .map_err(|e| SchemaError::of_migration(&e))
}

fn upgrade_locked(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    let applied = match check(client) {
        Ok(()) => Vec::new(),
        Err(SchemaError::Absent | SchemaError::Older { .. }) => migrate(client)?,
        Err(other) => return Err(other),
    };
    client
        .batch_execute(RIGHTS)
        .map_err(|e| SchemaError::of_upgrade(&e))?;
    Ok(applied)
}

fn migrate(client: &mut Client) -> Result<Vec<String>, SchemaError> {
    client
        .batch_execute("CREATE SCHEMA IF NOT EXISTS oa")
        .map_err(|e| SchemaError::of_upgrade(&e))?;
    let report = Runner::new(&migrations())
        .set_migration_table_name(HISTORY)
        .run(client)
        .map_err(|e| SchemaError::of_migration(&e))?;
    Ok(report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration_with_a_version_of_its_own() {
        let versions: std::collections::BTreeSet<i32> =
            migrations().iter().map(Migration::version).collect();
        assert_eq!(versions.len(), MIGRATIONS.len());
        assert!(MIGRATIONS.len() > 25 && versions.last() == Some(&needed()));
    }
}
