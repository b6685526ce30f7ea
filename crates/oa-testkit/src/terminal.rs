//! A program on a terminal of its own, as a person has it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{same_environment, wait_until};

/// See the module.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    screen: PathBuf,
}

impl Terminal {
    /// Runs a program whose words need no quotes.
    ///
    /// # Panics
    /// When util-linux's `script` is not there.
    #[must_use]
    pub fn run(command: &Command) -> Self {
        Self::run_within(command, str::to_owned)
    }

    /// The same within a line of shell, which is made of the program's own.
    ///
    /// # Panics
    /// When util-linux's `script` is not there.
    #[must_use]
    pub fn run_within(command: &Command, line: impl FnOnce(&str) -> String) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
        let folder = command.get_current_dir().expect("the program has a folder");
        let mut script = Command::new("script");
        script.args(["-qfec", &line(&words.join(" ")), "screen"]);
        same_environment(command, &mut script);
        script.stdin(Stdio::piped()).stdout(Stdio::null());
        Self {
            screen: folder.join("screen"),
            script: script.spawn().expect("util-linux's script runs"),
        }
    }

    /// Everything that was written to it.
    #[must_use]
    pub fn screen(&self) -> String {
        let screen = fs::read(&self.screen).unwrap_or_default();
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until something is on the screen.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&self, text: &str) {
        wait_until(text, Duration::from_secs(60), || {
            self.screen().contains(text)
        });
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn press(&mut self, keys: &str) {
        let stdin = self.script.stdin.as_mut().expect("it is piped");
        stdin.write_all(keys.as_bytes()).expect("it takes them");
    }

    /// Waits for the program's end. The terminal stays until then.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn end(&mut self) -> ExitStatus {
        let keys = self.script.stdin.take();
        let ended = self.script.wait().expect("it ends");
        drop(keys);
        ended
    }
}
