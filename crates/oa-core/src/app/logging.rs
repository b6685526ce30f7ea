//! Log lines on stderr, as text or JSON, with secrets removed.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::base::secrets::redact;
use crate::base::terminal;
use crate::base::text::with_escapes;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `level` is the default; `OA_LOG` (for example `oa_crawl=debug`) wins. Calling it twice is harmless.
pub fn start(level: tracing::Level, format: LogFormat) {
    let filter = std::env::var("OA_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| {
            EnvFilter::new(format!(
                "warn,{}",
                OWN.map(|c| format!("{c}={level}")).join(",")
            ))
        });
    let colours = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Redacting)
        .with_target(false);
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colours).compact().try_init(),
        LogFormat::Json => builder.with_ansi(false).json().try_init(),
    };
}

const OWN: [&str; 8] = [
    "oa_core",
    "oa_migrate",
    "oa_crawl",
    "oa_alert",
    "oa_backup",
    "oa_repository",
    "oa_restore",
    "oa_report",
];

/// Writes each log line to stderr after [`redact`].
struct Redacting;

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// Collects one event, so that a secret cut into two writes is still found.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Of what others have said, control characters are escapes already.
        let text = with_escapes(&redact(&String::from_utf8_lossy(&self.0)));
        terminal::write(text.as_bytes());
    }
}
