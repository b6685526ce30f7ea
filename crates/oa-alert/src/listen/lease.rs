//! One listener per application: the one that holds its row of `oa.listeners`.

use std::time::Duration;

use oa_core::base::text::error_text;
use uuid::Uuid;

use super::database::Database;

/// Another machine takes over after this long.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
pub(super) const RENEW: Duration = Duration::from_secs(8);

/// The right to listen.
pub(super) struct Lease {
    database: Database,
    robot: String,
    host: String,
    place: String,
    holder: Uuid,
}

impl Lease {
    /// `place`: the state directory, whose lock this process has: who held the lease there before is gone.
    pub(super) fn new(database: Database, robot: String, host: &str, place: String) -> Self {
        Self {
            database,
            robot,
            host: host.to_owned(),
            place,
            holder: Uuid::now_v7(),
        }
    }

    /// Takes or renews it, and notes whether the connection stands or why not. `false`: another one has it.
    pub(super) fn take(&mut self, connected: bool, error: Option<&str>) -> Result<bool, String> {
        let (robot, host, place, holder) = (&self.robot, &self.host, &self.place, &self.holder);
        let error = error.map(error_text);
        let taken = self.database.with(|client| {
            client.execute(
                "INSERT INTO oa.listeners AS l (robot, host, place, holder, leased_until, connected_at, last_error)
                 VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), CASE WHEN $6 THEN now() END, $7)
                 ON CONFLICT (robot) DO UPDATE SET host = excluded.host, place = excluded.place, holder = excluded.holder,
                   leased_until = excluded.leased_until, connected_at = coalesce(excluded.connected_at, l.connected_at),
                   last_error = CASE WHEN $6 THEN NULL ELSE coalesce(excluded.last_error, l.last_error) END
                 WHERE l.holder = excluded.holder OR (l.host = excluded.host AND l.place = excluded.place)
                    -- One that ends much later was taken while the server's clock was ahead.
                    OR l.leased_until NOT BETWEEN now() AND now() + interval '1 hour'",
                &[robot, host, place, holder, &LEASE.as_secs_f64(), &connected, &error],
            )
        })?;
        Ok(taken == 1)
    }

    /// Gives it back, so that another one need not wait.
    pub(super) fn release(&mut self) {
        let (robot, holder) = (&self.robot, &self.holder);
        let released = self.database.with(|client| {
            client.execute(
                "UPDATE oa.listeners SET leased_until = now() WHERE robot = $1 AND holder = $2",
                &[robot, holder],
            )
        });
        if let Err(e) = released {
            tracing::debug!("{e}");
        }
    }
}
