//! What the program of a source prints, as it comes: packed for the archive, and the lines that are records apart, so that a million of
//! them need no more memory than a thousand.
//!
//! They are read, and made rows of, on a thread of their own while the program prints on: each is read once.

use std::io::{self, Read, Seek, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use oa_core::base::exact;
use oa_core::base::pile::{Growing, Pile};
use oa_core::base::supervise::Lines;
use oa_core::base::threads;
use serde_json::Value;

use crate::archive::{Packed, Packer};
use crate::extract::{json, repeated};
use crate::progress;
use crate::source::Source;
use crate::validate::{CollectionTime, Validated, Validator};

/// After so many records the line on the terminal changes.
const SAID: usize = 5000;
/// So many bytes of lines are written, and read, at once. Records of more are in a file.
const BLOCK: usize = 256 << 10;
/// More rejects than these, and nothing of the output is stored.
const MOST_REJECTS: usize = 100_000;
/// So many blocks wait to be read before the program has to.
const WAITING: usize = 4;

/// What is made of a program's output.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    task: String,
    packer: Packer,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Lines that have ended.
    number: usize,
    block: Block,
    /// All lines that are records but those of the block, each with its line break; none while there are no others.
    file: Option<Growing>,
    file_bytes: u64,
    count: usize,
    reader: Option<Reader>,
    failed: Option<io::Error>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) packed: Packed,
    /// The records, or what is wrong with a line, as the end of "the output has …".
    pub(crate) records: Result<Pile<Value>, String>,
    pub(crate) finding: Option<String>,
    /// What was made of the records, where that was wanted.
    pub(crate) validated: Option<Validated>,
}

/// Lines that are records, and their numbers among all lines.
#[derive(Debug, Default)]
struct Block {
    lines: Vec<u8>,
    numbers: Vec<usize>,
}

impl ProgramOutput {
    /// `rows`: the records are records of this source as they are, and rows are made of them at once.
    pub(crate) fn new(task: &str, rows: Option<(Source, CollectionTime)>) -> io::Result<Self> {
        Ok(Self {
            task: task.to_owned(),
            packer: Packer::new()?,
            begun: Vec::new(),
            number: 0,
            block: Block::default(),
            file: None,
            file_bytes: 0,
            count: 0,
            reader: Some(Reader::start(rows)?),
            failed: None,
        })
    }

    /// What came until now is all.
    pub(crate) fn finish(&mut self) -> io::Result<Printed> {
        let last = std::mem::take(&mut self.begun);
        self.whole_line(&last)?;
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let mut file = self.file.take();
        if let Some(file) = &mut file {
            self.write_block(file)?;
        }
        self.read_block();
        let reader = self.reader.take();
        let read = reader.map_or_else(|| Ok(Records::default()), Reader::finish)?;
        let records = match (read.wrong, file) {
            (Some(wrong), _) => Err(wrong),
            (None, None) => Ok(read.first.into()),
            (None, Some(file)) => {
                let file = file.into_file();
                Ok(Pile::of_lines(file, self.file_bytes, self.count))
            }
        };
        Ok(Printed {
            packed: std::mem::replace(&mut self.packer, Packer::new()?).finish()?,
            records,
            finding: read.repeated,
            validated: read.validated,
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

    /// One JSON object per line; other lines are ignored.
    fn whole_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.number += 1;
        let Some(line) = json::record_in(line) else {
            return Ok(());
        };
        self.count += 1;
        if self.count.is_multiple_of(SAID) {
            progress::say(&self.task, format!("{} records", self.count));
        }
        self.block.lines.extend_from_slice(line);
        self.block.lines.push(b'\n');
        self.block.numbers.push(self.number);
        if self.block.lines.len() >= BLOCK {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => Growing::new()?,
            };
            self.write_block(&mut file)?;
            self.file = Some(file);
            self.read_block();
        }
        Ok(())
    }

    fn write_block(&mut self, file: &mut Growing) -> io::Result<()> {
        file.write_all(&self.block.lines)?;
        self.file_bytes += self.block.lines.len() as u64;
        Ok(())
    }

    fn read_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        if let Some(reader) = &self.reader {
            // Why it reads no more is what it gives at its end.
            let _ = reader.blocks.send(block);
        }
    }
}

/// The thread that reads records.
#[derive(Debug)]
struct Reader {
    blocks: SyncSender<Block>,
    thread: JoinHandle<io::Result<Records>>,
}

/// What it has read.
#[derive(Debug, Default)]
struct Records {
    /// The records of the first block.
    first: Vec<Value>,
    /// A finding about keys that stand more than once in a record.
    repeated: Option<String>,
    /// What is wrong with the first line that begins as a record and is none.
    wrong: Option<String>,
    validated: Option<Validated>,
}

impl Reader {
    fn start(rows: Option<(Source, CollectionTime)>) -> io::Result<Self> {
        let (blocks, receiver) = sync_channel(WAITING);
        let read = move || {
            let rows = rows.as_ref();
            let mut validator = rows.map(|(source, time)| Validator::new(source, *time));
            let mut read = Records::default();
            read.all(&receiver, validator.as_mut())?;
            read.validated = validator.map(Validator::finish).transpose()?;
            Ok(read)
        };
        Ok(Self {
            blocks,
            thread: threads::spawn("read records", read)?,
        })
    }

    fn finish(self) -> io::Result<Records> {
        drop(self.blocks);
        // A bug there is one here.
        self.thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Records {
    fn all(
        &mut self,
        blocks: &Receiver<Block>,
        mut validator: Option<&mut Validator<'_>>,
    ) -> io::Result<()> {
        for (i, block) in blocks.iter().enumerate() {
            let lines = block.lines.split_inclusive(|b| *b == b'\n');
            for (line, number) in lines.zip(&block.numbers) {
                if self.wrong.is_some() {
                    break;
                }
                let Some(record) = self.record(line.trim_ascii_end(), *number) else {
                    break;
                };
                if let Some(validator) = &mut validator {
                    validator.add(&record)?;
                    self.wrong = too_many_rejects(validator);
                }
                if i == 0 {
                    self.first.push(record);
                }
            }
        }
        Ok(())
    }

    /// One that begins as an object and is none is an error.
    fn record(&mut self, line: &[u8], number: usize) -> Option<Value> {
        let exact = std::str::from_utf8(line).ok().and_then(exact::parse_noting);
        let (record, keys) = match exact {
            Some(read) => read,
            None => match serde_json::from_slice(line) {
                Ok(record) => (record, Vec::new()),
                Err(e) => {
                    self.wrong = Some(format!("a line {number} that is no JSON object ({e})"));
                    return None;
                }
            },
        };
        self.repeated = self.repeated.take().or_else(|| repeated(&keys));
        Some(record)
    }
}

/// They are in memory, with their records, until the run ends.
fn too_many_rejects(validator: &Validator<'_>) -> Option<String> {
    let rejects = validator.rejects();
    let first = rejects.first().filter(|_| rejects.len() > MOST_REJECTS)?;
    let (field, reason) = (first.field.as_deref().unwrap_or_default(), &first.reason);
    Some(format!(
        "more than {MOST_REJECTS} records that are rejected; the first one: {field} {reason}"
    ))
}

impl Lines for ProgramOutput {
    fn line(&mut self, line: &[u8]) {
        if self.failed.is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;

    #[test]
    fn what_is_nothing_but_rejects_does_not_take_all_memory() {
        let text = r#"
name = "quotes"
title = "quotes"
provider = "own"
schedule = "30 15 * * *"
fetch = { kind = "command", command = ["quotes"] }
store = { table = "t", unique = ["code"], key = ["code"] }
fields = [{ column = "code", from = "code", type = "text", required = true }]
"#;
        let rows = (
            parse("x", text).unwrap(),
            CollectionTime::now("2025-12-01".parse().unwrap()),
        );
        let mut output = ProgramOutput::new("quotes", Some(rows)).unwrap();
        for _ in 0..MOST_REJECTS + 10_000 {
            output.line(b"{}\n");
        }
        let printed = output.finish().unwrap();
        let wrong = printed.records.unwrap_err();
        assert!(
            wrong.starts_with("more than 100000 records that are rejected; the first one: code "),
            "{wrong}"
        );
        assert!(printed.validated.unwrap().rejects.len() < MOST_REJECTS + 10);
    }
}
