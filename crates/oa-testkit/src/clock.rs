//! A server whose clock is led through days and years without a restart (libfaketime).

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Postgres;

fn environment(name: &str, value: String) -> [(String, String); 6] {
    let library = fs::read_dir("/usr/lib")
        .expect("there is /usr/lib")
        .flatten()
        .map(|e| e.path().join("faketime/libfaketime.so.1"))
        .find(|p| p.exists())
        .expect("libfaketime is not installed: scripts/setup");
    [
        ("LD_PRELOAD", library.display().to_string()),
        (name, value),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
}

/// The clock of one server.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Restarts the server, whose clock can be set from then on.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[must_use]
    pub fn of(server: &mut Postgres) -> Self {
        let file = server.data_dir().join("oa-clock");
        let clock = Self { file };
        clock.write(0.0);
        let file = clock.file.display().to_string();
        server.restart_with(&environment("FAKETIME_TIMESTAMP_FILE", file));
        clock
    }

    /// What makes a program see a clock that is so many seconds ahead of the true time.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[must_use]
    pub fn of_a_program(ahead: f64) -> [(String, String); 6] {
        environment("FAKETIME", format!("{ahead:+.3}"))
    }

    /// Lets it show this time, in seconds since 1970, and go on from there.
    pub fn set(&self, seconds: f64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.write(seconds - now.map_or(0.0, |now| now.as_secs_f64()));
    }

    /// Lets it be so many seconds ahead of the true time.
    pub fn ahead(&self, seconds: f64) {
        self.write(seconds);
    }

    fn write(&self, offset: f64) {
        // A file that is half written would be another time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset:+.3}\n")).expect("the clock's file can be written");
        fs::rename(&new, &self.file).expect("the clock's file can be replaced");
    }
}
