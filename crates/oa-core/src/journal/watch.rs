//! Who watches: what cron starts each minute leaves word that it did, so that a page can say when nobody watches any more.

use postgres::GenericClient;

/// `oa-alert check`.
pub const CHECK: &str = "check";
/// `oa-crawl run --due`.
pub const DUE: &str = "due";

/// Notes that this machine watches now, whether it works, and what does not.
///
/// # Errors
/// When PostgreSQL fails.
pub fn note(
    client: &mut impl GenericClient,
    what: &str,
    host: &str,
    ok: bool,
    detail: &str,
) -> Result<(), postgres::Error> {
    client.execute(
        "INSERT INTO oa.watches (what, host, at, ok, detail) VALUES ($1, $2, now(), $3, $4)
         ON CONFLICT (what, host) DO UPDATE SET at = excluded.at, ok = excluded.ok, detail = excluded.detail",
        &[&what, &host, &ok, &detail],
    )?;
    Ok(())
}
