//! What a session is set to, whatever somebody has set for the role, the database or the server.

/// The settings that change what a statement means or how values are written, as PostgreSQL has them by itself. With backslashes in plain
/// literals an upgrade of schema `oa` writes other functions, and with all names in quotation marks no definition compares as equal. How
/// dates are read is left as it is: statements of the configuration may rely on it. An idle session is not ended: a task may fetch for long.
/// Read committed, because whoever has waited for a lock must see what the other has written.
pub(super) const USUAL: &str = "SET standard_conforming_strings = on; SET quote_all_identifiers = off; SET transform_null_equals = off;
    SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1;
    SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; SET idle_session_timeout = 0";
