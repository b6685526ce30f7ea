//! Progress on a terminal; elsewhere nothing.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use oa_core::base::threads;
use rustic_core::{Progress, ProgressBars, ProgressType, RusticProgress};

/// Where progress is reported.
#[derive(Debug, Clone)]
pub struct ProgressReporter(Arc<dyn ProgressBars>);

impl ProgressReporter {
    /// Somebody.
    #[must_use]
    pub fn new(reporter: impl ProgressBars) -> Self {
        Self(Arc::new(reporter))
    }

    /// Nobody.
    #[must_use]
    pub fn hidden() -> Self {
        Self::new(rustic_core::NoProgressBars)
    }
}

impl ProgressBars for ProgressReporter {
    fn progress(&self, kind: ProgressType, prefix: &str) -> Progress {
        self.0.progress(kind, prefix)
    }
}

/// ProgressReporter on stderr, if it is a terminal and nothing asks for quiet.
#[must_use]
pub fn bars(quiet: bool) -> ProgressReporter {
    if quiet || !std::io::stderr().is_terminal() {
        ProgressReporter::hidden()
    } else {
        ProgressReporter::new(Terminal)
    }
}

#[derive(Debug)]
struct Terminal;

#[derive(Debug)]
struct Shown(ProgressBar);

/// How many there will be is known only after a while.
const WITHOUT_END: &str = "{msg:32} {bytes}";
const WITH_END: &str = "{msg:32} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl ProgressBars for Terminal {
    fn progress(&self, kind: ProgressType, prefix: &str) -> Progress {
        // What else the engine counts are its own steps, over before anybody has read them.
        if prefix.is_empty() || !matches!(kind, ProgressType::Bytes) {
            return Progress::hidden();
        }
        let bar = ProgressBar::new(0);
        bar.set_style(style(WITHOUT_END));
        bar.set_message(prefix.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress::new(Shown(bar))
    }
}

impl RusticProgress for Shown {
    fn is_hidden(&self) -> bool {
        false
    }
    fn set_length(&self, length: u64) {
        self.0.set_length(length);
        if length > 0 {
            self.0.set_style(style(WITH_END));
        }
    }
    fn set_title(&self, title: &str) {
        self.0.set_message(title.to_owned());
    }
    fn inc(&self, more: u64) {
        self.0.inc(more);
    }
    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Shows how a folder grows while another program writes it; ends when it is dropped.
#[derive(Debug)]
pub struct Growing {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Growing {
    /// Watches a folder that will hold about so many bytes.
    #[must_use]
    pub fn watch(
        reporter: &ProgressReporter,
        title: &str,
        folder: &Path,
        expected_bytes: u64,
    ) -> Self {
        let progress = reporter.progress(ProgressType::Bytes, title);
        let done = Arc::new(AtomicBool::new(false));
        if progress.is_hidden() {
            return Self { done, thread: None };
        }
        progress.set_length(expected_bytes);
        let (flag, folder) = (Arc::clone(&done), folder.to_owned());
        let thread = threads::spawn("show progress", move || {
            let mut seen = 0;
            loop {
                // Looked at before the folder, so that the last look sees all of it.
                let last = flag.load(Ordering::Relaxed);
                let size = size_of(&folder);
                progress.inc(size.saturating_sub(seen));
                seen = seen.max(size);
                if last {
                    break;
                }
                thread::park_timeout(Duration::from_millis(500));
            }
            progress.finish();
        });
        Self {
            done,
            // Without one nothing is shown.
            thread: thread.ok(),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|e| e.metadata().ok().map(|m| (e, m)))
        .map(|(e, m)| {
            if m.is_dir() {
                size_of(&e.path())
            } else {
                m.len()
            }
        })
        .sum()
}
