//! What the program of a source prints, as it comes: packed for the archive, and the lines that are records apart, so that a million of
//! them need no more memory than a thousand.

use std::io::{self, Read, Seek, Write};

use oa_core::base::exact;
use oa_core::base::pile::{Growing, Pile};
use oa_core::base::supervise::Lines;
use serde_json::Value;

use crate::archive::{Packed, Packer};
use crate::extract::repeated;
use crate::progress;

/// After so many records the line on the terminal changes.
const SAID: usize = 5000;
/// So many records stay in memory.
const IN_MEMORY: usize = 2000;
/// So many bytes of lines are written at once.
const BLOCK: usize = 256 << 10;

/// What is made of a program's output.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    task: String,
    /// The most bytes that it may print.
    limit: u64,
    bytes: u64,
    packer: Packer,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Lines that have ended.
    number: usize,
    few: Vec<Value>,
    /// All lines that are records, each with its line break; the first of them may be in the file already.
    lines: Vec<u8>,
    file: Option<Growing>,
    file_bytes: u64,
    count: usize,
    /// A finding about keys that stand more than once in a record.
    repeated: Option<String>,
    /// What is wrong with the first line that begins as a record and is none.
    wrong: Option<String>,
    failed: Option<io::Error>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) packed: Packed,
    /// The records, or what is wrong with a line, as the end of "the output has …".
    pub(crate) records: Result<Pile<Value>, String>,
    pub(crate) finding: Option<String>,
}

impl ProgramOutput {
    pub(crate) fn new(task: &str, limit: u64) -> io::Result<Self> {
        Ok(Self {
            task: task.to_owned(),
            limit,
            bytes: 0,
            packer: Packer::new()?,
            begun: Vec::new(),
            number: 0,
            few: Vec::new(),
            lines: Vec::new(),
            file: None,
            file_bytes: 0,
            count: 0,
            repeated: None,
            wrong: None,
            failed: None,
        })
    }

    /// Whether it is longer than it may be.
    pub(crate) fn is_too_long(&self) -> bool {
        self.bytes > self.limit
    }

    /// What came until now is all.
    pub(crate) fn finish(&mut self) -> io::Result<Printed> {
        let last = std::mem::take(&mut self.begun);
        self.whole_line(&last)?;
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let records = match (self.wrong.take(), self.file.take()) {
            (Some(wrong), _) => Err(wrong),
            (None, None) => Ok(std::mem::take(&mut self.few).into()),
            (None, Some(mut file)) => {
                self.write_lines(&mut file)?;
                let file = file.into_file();
                Ok(Pile::of_lines(file, self.file_bytes, self.count))
            }
        };
        Ok(Printed {
            packed: std::mem::replace(&mut self.packer, Packer::new()?).finish()?,
            records,
            finding: self.repeated.take(),
        })
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        self.packer.write(line)?;
        // A carriage return ends no record.
        match (self.begun.is_empty(), line.ends_with(b"\n")) {
            (true, true) => self.whole_line(line),
            (_, ends) => {
                self.begun.extend_from_slice(line);
                if ends {
                    let whole = std::mem::take(&mut self.begun);
                    self.whole_line(&whole)?;
                }
                Ok(())
            }
        }
    }

    /// One JSON object a line; other lines are ignored. One that begins as an object and is none is an error.
    fn whole_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.number += 1;
        let line = line.trim_ascii();
        if !line.starts_with(b"{") || self.wrong.is_some() {
            return Ok(());
        }
        let exact = std::str::from_utf8(line).ok().and_then(exact::parse_noting);
        let (record, keys) = match exact {
            Some(read) => read,
            None => match serde_json::from_slice(line) {
                Ok(record) => (record, Vec::new()),
                Err(e) => {
                    let wrong = format!("a line {} that is no JSON object ({e})", self.number);
                    self.wrong = Some(wrong);
                    return Ok(());
                }
            },
        };
        self.repeated = self.repeated.take().or_else(|| repeated(&keys));
        self.count += 1;
        if self.count.is_multiple_of(SAID) {
            progress::say(&self.task, format!("{} records", self.count));
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        if self.count <= IN_MEMORY {
            self.few.push(record);
            return Ok(());
        }
        if self.lines.len() >= BLOCK {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => Growing::new()?,
            };
            self.few.clear();
            self.write_lines(&mut file)?;
            self.file = Some(file);
        } else if self.file.is_none() {
            // Not so many bytes, but too many values.
            self.file = Some(Growing::new()?);
            self.few.clear();
        }
        Ok(())
    }

    fn write_lines(&mut self, file: &mut Growing) -> io::Result<()> {
        file.write_all(&self.lines)?;
        self.file_bytes += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }
}

impl Lines for ProgramOutput {
    fn line(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64;
        if self.failed.is_none() && !self.is_too_long() {
            self.failed = self.take(line).err();
        }
    }
}

impl Printed {
    /// All that was printed, in memory.
    pub(crate) fn body(mut self) -> io::Result<Vec<u8>> {
        self.packed.file.rewind()?;
        let mut body = Vec::new();
        zstd::Decoder::new(&self.packed.file)?.read_to_end(&mut body)?;
        Ok(body)
    }
}
