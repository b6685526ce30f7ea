//! What every program's command line has in common.

use std::env;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use rustix::process::{Resource, getrlimit};
use signal_hook::consts::{SIGABRT, SIGXFSZ};

use crate::app::config::{Config, ConfigError};
use crate::app::exit;
use crate::app::logging::{self, LogFormat};
use crate::app::words;
use crate::base::{limits, secrets, threads};
use crate::journal::{DbUnavailable, JournalError};
use crate::pg::is_passing;
use crate::pg::schema::SchemaError;

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Configuration file [default: $OA_CONFIG, ./oa.toml, /etc/oa/oa.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// More log lines on stderr (twice: debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Format of log lines
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
}

impl GlobalArgs {
    /// Starts logging as asked.
    pub fn start_logging(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => tracing::Level::ERROR,
            (_, 0) => tracing::Level::WARN,
            (_, 1) => tracing::Level::INFO,
            _ => tracing::Level::DEBUG,
        };
        logging::start(level, self.log_format);
    }

    /// Reads the configuration and logs its warnings.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load_config(&self) -> Result<Config, ConfigError> {
        let config = Config::load(self.config.as_deref())?;
        // Before anything is printed, stored or sent.
        config.remember_secrets();
        words::speak(config.locale);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }

    /// The same for a command that can do without: `None` when no file is named and none is at the usual places.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load_config_if_any(&self) -> Result<Option<Config>, ConfigError> {
        match self.load_config() {
            Ok(config) => Ok(Some(config)),
            Err(ConfigError::Absent(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// An error with the exit code it ends the program with.
#[derive(Debug)]
pub struct Failure {
    /// One of [`exit`]'s codes.
    pub code: u8,
    /// What happened, to which thing, what to do.
    pub error: anyhow::Error,
}

/// Somebody else does the same work now. Under cron, whose next start comes while a long one runs, that is no failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Busy(pub String);

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Self::new(exit::REFUSED, busy)
    }
}

/// An error that another try in a minute would only repeat.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lasting(String);

impl Failure {
    /// The same failure, and no other try after it.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self::new(self.code, Lasting(self.to_string()))
    }

    /// Whether there is to be no other try.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.error.is::<Lasting>()
    }

    /// Whether it is [`Busy`].
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.error.is::<Busy>()
    }

    /// Whether the state directory is not for this user, who most likely is root by mistake.
    #[must_use]
    pub fn is_wrong_user(&self) -> bool {
        let found = self
            .error
            .downcast_ref::<crate::base::state_dir::StateDirError>();
        found.is_some_and(crate::base::state_dir::StateDirError::is_foreign)
    }

    /// Attaches an exit code to an error.
    pub fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }
}

/// What happened, in one line: the error and its causes, each once, and what to raise where this process may have no more of something. Many
/// errors quote their cause themselves.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for cause in self.error.chain() {
            // The driver's own words for an error of the server; whoever wraps it says what the server said.
            let words = match cause.downcast_ref::<postgres::error::DbError>() {
                Some(said) => said.message().to_owned(),
                None => cause.to_string(),
            };
            if words != "db error" && !text.contains(&words) {
                text.push_str(if text.is_empty() { "" } else { ": " });
                text.push_str(&words);
            }
        }
        let mut system = self.error.chain().filter_map(|e| e.downcast_ref());
        if let Some(remedy) = system.find_map(limits::remedy)
            && !text.contains(remedy)
        {
            text.push_str("; ");
            text.push_str(remedy);
        }
        f.write_str(&text)
    }
}

/// Anything without a code of its own is a failure of the work, exit code 1; errors of this library carry theirs.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let code = if error.is::<ConfigError>() {
            exit::CONFIG
        } else if let Some(e) = error.downcast_ref::<crate::pg::ConnectError>() {
            // Time may heal it, or only a person.
            if e.is_passing() {
                exit::UNREACHABLE
            } else {
                exit::CONFIG
            }
        } else if let Some(e) = error.downcast_ref::<SchemaError>() {
            match e {
                _ if e.is_unreachable() => exit::UNREACHABLE,
                SchemaError::Query(e) if is_passing(e) => exit::FAILED,
                SchemaError::Upgrade { meaning, .. } if meaning.is_passing() => exit::FAILED,
                _ => exit::CONFIG,
            }
        } else if error.is::<crate::base::state_dir::StateDirError>() {
            exit::REFUSED
        } else {
            exit::FAILED
        };
        Self { code, error }
    }
}

impl From<threads::NoThread> for Failure {
    fn from(error: threads::NoThread) -> Self {
        Self::new(exit::FAILED, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<crate::pg::ConnectError> for Failure {
    fn from(error: crate::pg::ConnectError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<DbUnavailable> for Failure {
    fn from(error: DbUnavailable) -> Self {
        match error {
            DbUnavailable::Connect(e) => e.into(),
            DbUnavailable::Schema(e) => e.into(),
            DbUnavailable::Drain(reason) => Self::new(exit::UNREACHABLE, anyhow::anyhow!(reason)),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::State(e) => e.into(),
            JournalError::Unavailable(e) => e.into(),
            JournalError::Leftover(e) => Self::new(exit::REFUSED, e),
            e @ (JournalError::Spool(_) | JournalError::Lost { .. }) => Self::new(exit::FAILED, e),
        }
    }
}

impl From<crate::base::state_dir::StateDirError> for Failure {
    fn from(error: crate::base::state_dir::StateDirError) -> Self {
        anyhow::Error::from(error).into()
    }
}

/// Ends a program: prints the error, without secrets, and gives its exit code.
#[must_use]
pub fn finish(program: &str, result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) if is_broken_pipe(&failure.error) => ExitCode::from(exit::OK),
        Err(failure) => {
            let text = secrets::redact(&format!("{program}: {failure}\n"));
            let _ = io::stderr().lock().write_all(text.as_bytes());
            ExitCode::from(failure.code)
        }
    }
}

/// `oa-crawl list | head` is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Every wait of a program has its own limit. Should one of them fail (a database that accepts a statement and never answers),
/// the process still ends when its work should long be over, with a margin of ten minutes: the next one finds its run abandoned,
/// which is better than a lock that is held for ever. Said again for more work, it ends when that should be over.
pub fn end_at_the_latest(work: Duration) {
    const MARGIN: Duration = Duration::from_secs(600);
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    static END: Mutex<Option<Instant>> = Mutex::new(None);
    let end = Some(Instant::now() + work.saturating_add(MARGIN).min(LONGEST));
    let before = {
        let mut latest = END.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *latest;
        *latest = before.max(end);
        before
    };
    if before.is_some() {
        return;
    }
    let watching = threads::spawn("end what does not answer", || {
        let begun = Instant::now();
        loop {
            let end = *END.lock().unwrap_or_else(PoisonError::into_inner);
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match left {
                Some(left) if !left.is_zero() => thread::sleep(left),
                _ => break,
            }
        }
        tracing::error!(
            "ending after {} s: something does not answer",
            begun.elapsed().as_secs()
        );
        std::process::exit(i32::from(exit::FAILED));
    });
    if let Err(e) = watching {
        tracing::warn!("{e}");
    }
}

/// Prints text to stdout. A reader that has closed it, as `head` does, is no error.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let text = secrets::redact(text);
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Prints the completion script for a shell.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_completions<C: CommandFactory>(shell: Shell) -> io::Result<()> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().lock().write_all(&script)
}

/// Whether the program may ask: both ends are a terminal.
#[must_use]
pub fn interactive() -> bool {
    use std::io::IsTerminal;
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// How many heaps glibc makes for a program's threads.
const HEAPS: &str = "MALLOC_ARENA_MAX";

/// Makes do with what the system lets this process have, and ends with a failure's exit code where that is not enough.
///
/// A file that may become no larger (`ulimit -f`) is an error, as on a full disk, and no signal that ends the process. glibc reserves 64 MB
/// of addresses for each thread's heap, which under `ulimit -v` is soon all that there is, whatever the threads really take. The program then
/// replaces itself by one whose threads share one heap, as glibc is set before it begins.
pub fn make_do_with_limits() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    // The standard library prints what it could not get, and aborts.
    let always = Arc::new(AtomicBool::new(true));
    let _ = signal_hook::flag::register_conditional_shutdown(SIGABRT, exit::FAILED.into(), always);
    if getrlimit(Resource::As).current.is_some() && env::var_os(HEAPS).is_none() {
        begin_anew_with(&[(HEAPS, "1")]);
    }
}

/// For a program that runs for weeks and needs much memory for a moment now and then: what it needs no more goes back to the system. glibc
/// keeps freed blocks, the more the larger they were and the more threads there were, unless it is set otherwise before the program begins.
pub fn give_memory_back() {
    const KEPT: &str = "MALLOC_TRIM_THRESHOLD_";
    if env::var_os(KEPT).is_none() {
        begin_anew_with(&[
            (KEPT, "65536"),
            ("MALLOC_MMAP_THRESHOLD_", "65536"),
            (HEAPS, "1"),
        ]);
    }
}

/// Replaces this program by itself, with these variables. Returns only when that cannot be: then this one does what it can.
fn begin_anew_with(variables: &[(&str, &str)]) {
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut args = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let _ = command.args(args).envs(variables.iter().copied()).exec();
}

/// Files and folders that this program makes are for its user alone, whatever the umask. The programs that it starts inherit that.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Asks before a destructive step. `--yes` answers for scripts; off a terminal without it the step is refused (77).
///
/// # Errors
/// [`exit::REFUSED`] when the answer is not yes.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !interactive() {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "{question} Not asked, because this is not a terminal; add --yes to do it"
            ),
        ));
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" | "是" => Ok(()),
        _ => Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!("not confirmed; nothing was changed"),
        )),
    }
}
