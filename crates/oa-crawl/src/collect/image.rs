//! An image that belongs to a record: downloaded, checked, and kept as a file named by its content, so that a half-written or a
//! changed one is never behind a path that a row names.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use oa_core::base::secrets::redact;
use oa_core::base::state_dir::{make_folder, write_durably};
use oa_core::base::supervise::{Ended, Launch};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RawRecord;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::answer::archive;
use super::cannot_wait;
use super::collected::Collected;
use super::context::Context;
use crate::extract::table;
use crate::fetch::{FetchError, Request, Response, body, check_status};
use crate::program::printed_too_much;
use crate::source::Image;

/// Wider or higher than this many pixels is an attack on the decoder.
const LARGEST_SIDE: u32 = 20_000;
/// What a decoded one may take in memory.
const LARGEST_BYTES: usize = 512 << 20;

/// What the archive's index says an image, or the page that shows it, is.
const PART: &str = "[image]";

/// Whether an answer of the archive is an image, or the page that shows it, and not records.
pub(crate) fn is_image(raw: &RawRecord) -> bool {
    raw.part.as_deref() == Some(PART)
}

/// Downloads the image of each record.
pub(crate) fn attach(
    context: &Context,
    rules: &Image,
    collected: &mut Collected,
) -> Result<(), FetchError> {
    let listed = std::mem::take(&mut collected.records);
    for record in listed.iter() {
        let mut record = record.map_err(|e| cannot_wait(&e))?.into_owned();
        let listed = record
            .get(&rules.from)
            .and_then(oa_core::base::exact::text)
            .unwrap_or_default()
            .to_owned();
        let address = match (&rules.fallback, listed.trim()) {
            (Some(_), "") => {
                collected.findings.push(format!(
                    "{} is empty; the image is from the fallback page",
                    rules.from
                ));
                fallback(context, rules, collected)?
            }
            (_, address) => absolute(&context.source.fetch.base, address),
        };
        let (file, bytes) = download(context, rules, &address, collected)?;
        collected.pages += 1;
        let (path, printed) = match &context.folders.files {
            None => (PathBuf::from(file), None), // A dry run.
            Some(folder) => {
                let path = store(folder, &file, &bytes).map_err(|e| {
                    let folder = folder.display();
                    let what =
                        format!("could not keep the image in {folder}: {e}; free space there");
                    FetchError::new(ErrorKind::Internal, what)
                })?;
                let printed = run_post(context, rules, &path, collected);
                (path, printed)
            }
        };
        if let Value::Object(fields) = &mut record {
            fields.insert(rules.from.clone(), Value::String(address));
            fields.insert(
                "local_path".to_owned(),
                Value::String(path.to_string_lossy().into_owned()),
            );
            fields.insert(
                "post".to_owned(),
                printed.map_or(Value::Null, Value::String),
            );
        }
        let kept = collected.records.push(record);
        kept.map_err(|e| cannot_wait(&e))?;
    }
    Ok(())
}

/// The address of the first image that the fallback page shows.
fn fallback(
    context: &Context,
    rules: &Image,
    collected: &mut Collected,
) -> Result<String, FetchError> {
    let Some(fallback) = &rules.fallback else {
        return Ok(String::new());
    };
    let base = &context.source.fetch.base;
    let request = Request {
        url: format!("{}{}", base.trim_end_matches('/'), fallback.path),
        ..Request::default()
    };
    let request_line = format!("GET {}", request.url);
    let response = send(context, &request, &request_line)?;
    collected.note(&response.findings);
    let (page, _) = body::page(&request_line, &response, None)?;
    let src = table::attribute(&page, &fallback.img, "src").map_err(|(kind, what)| {
        FetchError::new(kind, format!("the page has {what}: {request_line}"))
    })?;
    Ok(absolute(base, &src))
}

/// Asks the site, or the archive in a replay.
fn send(context: &Context, request: &Request, request_line: &str) -> Result<Response, FetchError> {
    let response = match &context.archived {
        Some(archived) => archived.answer(&request.display())?,
        None => {
            let response = context.client.send(request, context.until.get())?;
            archive(context, request_line, Some(PART), &response);
            response
        }
    };
    check_status(request_line, &response)?;
    Ok(response)
}

/// The image's bytes, once they are known to be one, and the name of its file.
fn download(
    context: &Context,
    rules: &Image,
    address: &str,
    collected: &mut Collected,
) -> Result<(String, Vec<u8>), FetchError> {
    let request = Request {
        url: address.to_owned(),
        headers: vec![("referer".to_owned(), context.source.fetch.base.clone())],
        ..Request::default()
    };
    let request_line = format!("GET {address}");
    let response = send(context, &request, &request_line)?;
    collected.note(&response.findings);
    let wrong = |what: String| FetchError::new(ErrorKind::Shape, format!("{what}: {request_line}"));
    let bytes = response.body;
    let size = bytes.len() as u64;
    if size < rules.min_bytes {
        let least = rules.min_bytes;
        return Err(FetchError::new(
            ErrorKind::Empty,
            format!(
                "an image of {size} bytes where {least} were due (min_bytes in [image]): {request_line}"
            ),
        ));
    }
    let extension =
        decode(&bytes).map_err(|e| wrong(format!("{size} bytes that are no whole image ({e})")))?;
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok((format!("{hash}.{extension}"), bytes))
}

/// Decodes all of it: the beginning of an image says nothing about its end. Gives the extension of its file.
fn decode(bytes: &[u8]) -> Result<&'static str, String> {
    let small = |width: u32, height: u32, size: Option<usize>| match size {
        Some(size) if width.max(height) <= LARGEST_SIDE && size <= LARGEST_BYTES => {
            Ok(vec![0; size])
        }
        _ => Err(format!("{width} by {height} pixels are too many")),
    };
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => {
            let limits = png::Limits {
                bytes: LARGEST_BYTES,
            };
            let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
            decoder.set_transformations(png::Transformations::EXPAND);
            let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
            let (width, height) = reader.info().size();
            let mut pixels = small(width, height, reader.output_buffer_size())?;
            reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
            Ok("png")
        }
        [0xff, 0xd8, 0xff, ..] => {
            // What phones and scanners write is not always by the book.
            let options = DecoderOptions::default()
                .set_strict_mode(false)
                .set_max_width(LARGEST_SIDE as usize)
                .set_max_height(LARGEST_SIDE as usize);
            let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
            decoder.decode_headers().map_err(|e| e.to_string())?;
            let mut pixels = small(0, 0, decoder.output_buffer_size())?;
            decoder
                .decode_into(&mut pixels)
                .map_err(|e| e.to_string())?;
            Ok("jpg")
        }
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => {
            let decoder = image_webp::WebPDecoder::new(Cursor::new(bytes));
            let mut decoder = decoder.map_err(|e| e.to_string())?;
            decoder.set_memory_limit(LARGEST_BYTES);
            let (width, height) = decoder.dimensions();
            let mut pixels = small(width, height, decoder.output_buffer_size())?;
            decoder.read_image(&mut pixels).map_err(|e| e.to_string())?;
            Ok("webp")
        }
        _ => Err("of no known type: png, jpeg and webp are".to_owned()),
    }
}

fn store(folder: &Path, file: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let folder = folder.join(&file[..2]);
    let path = folder.join(file);
    // A file of another size was damaged from outside.
    if fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64) {
        return Ok(path);
    }
    make_folder(&folder)?;
    write_durably(&path, bytes)?;
    Ok(path)
}

/// What the program that reads the image printed. Its failure costs only that: the image is there.
fn run_post(
    context: &Context,
    rules: &Image,
    path: &Path,
    collected: &mut Collected,
) -> Option<String> {
    let (program, arguments) = rules.post.split_first()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(path)
        .env("OA_TASK", &context.source.name)
        .env("OA_DATE", context.date.to_string());
    let left = context
        .until
        .get()
        .saturating_duration_since(Instant::now());
    let keep = usize::try_from(context.max_body).unwrap_or(usize::MAX / 4);
    context.programs.environment.give_to(&mut command);
    let launch = Launch {
        keep,
        most: Some(context.max_body),
        owner: context.programs.owner.as_ref(),
        ..Launch::new(left)
    };
    let printed = launch
        .run(&mut command)
        .map_err(|e| e.to_string())
        .and_then(|done| {
            if let Some(Ended::PrintedTooMuch(stream)) = done.ended {
                return Err(printed_too_much(stream, context.max_body));
            }
            if !done.status.success() {
                return Err(done.status.to_string());
            }
            let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
            serde_json::from_str::<Value>(&text)
                .map(|_| text)
                .map_err(|e| format!("its output is not JSON ({e})"))
        });
    match printed {
        Ok(text) => Some(text),
        Err(e) => {
            let what = redact(&format!("{program} (post in [image]) failed: {e}"));
            collected.incomplete.get_or_insert(what);
            None
        }
    }
}

fn absolute(base: &str, address: &str) -> String {
    let address = address.trim();
    if address.starts_with("http://") || address.starts_with("https://") {
        return address.to_owned();
    }
    let origin = base.find("://").map_or(base, |scheme| {
        let host = scheme + 3;
        let end = base[host..].find('/').map_or(base.len(), |i| host + i);
        &base[..end]
    });
    if let Some(rest) = address.strip_prefix("//") {
        let scheme = base.split("://").next().unwrap_or("https");
        return format!("{scheme}://{rest}");
    }
    if address.starts_with('/') {
        return format!("{origin}{address}");
    }
    format!("{}/{address}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_absolute() {
        let base = "https://a.example:8443/app";
        for (address, due) in [
            ("https://b/x.jpg", "https://b/x.jpg"),
            ("//b/x.jpg", "https://b/x.jpg"),
            ("/x.jpg", "https://a.example:8443/x.jpg"),
            ("x.jpg", "https://a.example:8443/app/x.jpg"),
        ] {
            assert_eq!(absolute(base, address), due);
        }
    }
}
