//! Cookies of a provider between runs, as a JSON list in the form in which browser extensions export them, so that a person's
//! login in a browser of their own can be imported.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::Utc;
use oa_core::base::state_dir::write_durably;
use oa_core::base::trust;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The host, or a domain that begins with a dot.
    pub(crate) domain: String,
    #[serde(default = "root")]
    pub(crate) path: String,
    /// When it expires (seconds since 1970, UTC); a session cookie without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expiration_date: Option<f64>,
    #[serde(default)]
    pub(crate) http_only: bool,
    #[serde(default)]
    pub(crate) secure: bool,
}

fn root() -> String {
    "/".to_owned()
}

impl Cookie {
    fn is_expired(&self) -> bool {
        // Some exports say -1 or 0 for session cookies.
        self.expiration_date
            .is_some_and(|at| at > 0.0 && at < Utc::now().timestamp() as f64)
    }

    /// As the DevTools protocol takes it.
    pub(super) fn param(&self) -> Value {
        let mut param = json!({
            "name": self.name, "value": self.value, "domain": self.domain, "path": self.path,
            "secure": self.secure, "httpOnly": self.http_only,
        });
        if let Some(expires) = self.expiration_date.filter(|at| *at > 0.0) {
            param["expires"] = json!(expires);
        }
        param
    }

    /// As the DevTools protocol gives it.
    pub(super) fn of_devtools(cookie: &Value) -> Option<Self> {
        let text = |name: &str| cookie[name].as_str().map(str::to_owned);
        Some(Self {
            name: text("name")?,
            value: text("value")?,
            domain: text("domain")?,
            path: text("path").unwrap_or_else(root),
            expiration_date: cookie["expires"].as_f64().filter(|at| *at > 0.0),
            http_only: cookie["httpOnly"] == true,
            secure: cookie["secure"] == true,
        })
    }
}

/// Reads a file, without expired cookies.
pub(crate) fn read(path: &Path) -> Result<Vec<Cookie>, String> {
    let text = trust::read_named(path, trust::LARGEST)
        .map_err(|e| format!("could not read {}: {e}", path.display()))?;
    // The message of the parser would quote values.
    let cookies: Vec<Cookie> = serde_json::from_slice(&text).map_err(|e| {
        format!(
            "{} is no JSON list of cookies as a browser exports it (line {}, column {}: each needs name, value and domain)",
            path.display(),
            e.line(),
            e.column()
        )
    })?;
    Ok(cookies.into_iter().filter(|c| !c.is_expired()).collect())
}

/// Keeps them for the next run, readable for this user only.
pub(crate) fn write(path: &Path, cookies: &[Cookie]) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec_pretty(cookies)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_read_and_what_is_expired_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cookies.json");
        fs::write(
            &path,
            r#"[{"name": "a", "value": "1", "domain": ".x", "sameSite": "lax", "expirationDate": 4102444800.5, "hostOnly": false, "session": false},
                {"name": "b", "value": "2", "domain": "x", "expirationDate": 1000000000},
                {"name": "c", "value": "3", "domain": "x", "expirationDate": -1}]"#,
        )
        .unwrap();
        let names: Vec<String> = read(&path).unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["a", "c"]);
        write(&path, &read(&path).unwrap()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "{\"name\": \"secret-value\"}").unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            error.contains("no JSON list") && !error.contains("secret-value"),
            "{error}"
        );
    }
}
