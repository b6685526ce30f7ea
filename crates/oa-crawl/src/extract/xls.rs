//! xls files. Their reader takes as much memory as a file says it has cells, and a small one may say anything: so it works in a process
//! of its own, which may take only so much memory and time.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oa_core::base::pile::nameless_file;
use oa_core::base::supervise::{Group, StopSignal};
use oa_core::model::retry::ErrorKind;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

use super::ReadError;
use super::grid::Grid;
use super::sheet::{Kind, in_this_process, kind};
use crate::source::Sheet;

/// The command that does it.
pub(crate) const COMMAND: &str = "read-xls";
const MOST_MEMORY: u64 = 256 << 20;
const MOST_TIME: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// What the process prints.
type Answer = Result<Vec<Vec<Value>>, (ErrorKind, String)>;

pub(super) fn rows(rules: &Sheet, body: &[u8]) -> Result<Grid, ReadError> {
    let failed = |e: io::Error| {
        let what = format!("a spreadsheet that could not be read here ({e})");
        (ErrorKind::Internal, what)
    };
    let (mut input, mut output) = (
        nameless_file().map_err(failed)?,
        nameless_file().map_err(failed)?,
    );
    let written = input.write_all(body).and_then(|()| input.rewind());
    written.map_err(failed)?;
    if !run(rules, input, &output).map_err(failed)? {
        let megabytes = MOST_MEMORY >> 20;
        let what = format!(
            "a spreadsheet that takes more than {megabytes} MB of memory, or a minute, to be read, or is damaged inside; such a one is not read"
        );
        return Err((ErrorKind::Shape, what));
    }
    let mut text = Vec::new();
    let read = output.rewind().and_then(|()| output.read_to_end(&mut text));
    read.map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    Ok(Grid {
        rows: answer?,
        may_be_short: true,
    })
}

/// Whether it came to an end.
fn run(rules: &Sheet, input: File, output: &File) -> io::Result<bool> {
    // This very program, also when it has been replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(COMMAND)
        .args(rules.name.iter().map(|name| format!("--sheet={name}")))
        .env_clear()
        .stdin(input)
        .stdout(output.try_clone()?)
        .stderr(Stdio::null());
    let mut process = Group::start(&mut command)?;
    let end = Instant::now() + MOST_TIME;
    while Instant::now() < end && !StopSignal.requested() {
        if let Some(status) = process.ended()? {
            return Ok(status.success());
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

/// The other side: reads an xls file from stdin and prints its rows.
pub(crate) fn read_here(sheet: Option<String>) -> io::Result<()> {
    let limit = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Data, limit(MOST_MEMORY))?;
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body)?;
    let rules = Sheet { name: sheet };
    let answer: Answer = match kind(&body) {
        Kind::Xls => in_this_process(&rules, &body).map(|grid| grid.rows),
        _ => Err((ErrorKind::Shape, "no xls file".to_owned())),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, &answer)?;
    out.flush()
}
