//! libpq's password file: lines of `host:port:database:user:password`, in which `*` stands for anything.

use std::path::{Path, PathBuf};

use postgres::config::Host;

use crate::base::secrets::Secret;
use crate::base::trust::{self, Content, TrustError};

/// The password for a connection whose address has none. `named` is the `passfile` of the address; without it `PGPASSFILE`, else
/// `~/.pgpass`, which is passed over, with a warning where others may read it, as psql does.
///
/// # Errors
/// When the file that was named cannot be used: it is absent, belongs to somebody else, or others may read it.
pub(super) fn password(
    config: &postgres::Config,
    named: Option<&Path>,
) -> Result<Option<Secret>, String> {
    if config.get_password().is_some() {
        return Ok(None);
    }
    let by_variable = || std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let named = named.map(Path::to_owned).or_else(by_variable);
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"));
    let is_usual = named.is_none();
    let Some(path) = named.or_else(usual) else {
        return Ok(None);
    };
    let text = match trust::read(&path, Content::Secrets) {
        Ok(text) => text,
        Err(TrustError::Io(_)) if is_usual => return Ok(None),
        Err(e) => {
            let refused = format!("refused the password file {}: {e}", path.display());
            if is_usual {
                tracing::warn!("{refused}");
                return Ok(None);
            }
            return Err(refused);
        }
    };
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        _ => "localhost".to_owned(),
    };
    let user = config.get_user().unwrap_or_default();
    let wanted = [
        host,
        config.get_ports().first().unwrap_or(&5432).to_string(),
        config.get_dbname().unwrap_or(user).to_owned(),
        user.to_owned(),
    ];
    Ok(find(&text, &wanted).map(Secret::new))
}

/// The first line that fits decides.
fn find(text: &str, wanted: &[String; 4]) -> Option<String> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(fields).find_map(|mut fields| {
        let password = fields.get(4).is_some().then(|| fields.swap_remove(4))?;
        let fits = |(field, of): (&String, &String)| field == "*" || field == of;
        fields.iter().zip(wanted).all(fits).then_some(password)
    })
}

/// At most five; a backslash takes the meaning of what follows it.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let count = fields.len();
        let Some(last) = fields.last_mut() else { break };
        match c {
            ':' if count < 5 => fields.push(String::new()),
            '\\' => last.extend(rest.next()),
            c => last.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let text =
            "# a comment\nother:*:*:*:wrong\nbroken line\nh:5432:d:u:a\\:b\\\\c:d\n*:*:*:*:last";
        let wanted = |host: &str| [host, "5432", "d", "u"].map(str::to_owned);
        assert_eq!(find(text, &wanted("h")).unwrap(), "a:b\\c:d");
        assert_eq!(find(text, &wanted("x")).unwrap(), "last");
        assert_eq!(find("h:1:d:u:p", &wanted("h")), None);
    }
}
