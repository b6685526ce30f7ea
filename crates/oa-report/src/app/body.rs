//! The body of an answer in pieces. A large one is neither moved each time that it grows nor, packed, ever there as a whole, and what was
//! sent of it is given back at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use crate::digest::ChangeTag;

/// A piece has about so many bytes: enough that the memory of each goes back to the system by itself.
const PIECE: usize = 256 << 10;
/// What is read but once is not worth more time.
const QUICKLY: Compression = Compression::new(1);

/// The body of a response.
#[derive(Debug, Default)]
pub(crate) struct Body(VecDeque<Bytes>);

impl Body {
    /// How many bytes are still to be sent.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl From<Bytes> for Body {
    fn from(whole: Bytes) -> Self {
        Self(Some(whole).filter(|b| !b.is_empty()).into_iter().collect())
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into_iter().filter(|p| !p.is_empty()).collect())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

/// Takes a body as it is written, and packs it on the way for whoever takes it so.
pub(crate) struct Pieces {
    now: Vec<u8>,
    done: Vec<Bytes>,
    packing: Option<GzEncoder<Vec<u8>>>,
    tag: ChangeTag,
}

impl Pieces {
    pub(crate) fn new(packed: bool) -> Self {
        Self {
            now: Vec::new(),
            done: Vec::new(),
            packing: packed.then(|| GzEncoder::new(Vec::new(), QUICKLY)),
            tag: ChangeTag::default(),
        }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.now.extend_from_slice(bytes);
        if self.now.len() >= PIECE {
            self.end_piece();
        }
    }

    /// A value that JSON can hold.
    pub(crate) fn put_json(&mut self, value: &impl Serialize) {
        // A vector takes everything.
        let _ = serde_json::to_writer(&mut self.now, value);
        self.put(b"");
    }

    fn end_piece(&mut self) {
        self.tag.add(&self.now);
        match &mut self.packing {
            Some(packing) => {
                let _ = packing.write_all(&self.now);
                self.now.clear();
            }
            None => {
                let next = Vec::with_capacity(PIECE + (4 << 10));
                self.done
                    .push(std::mem::replace(&mut self.now, next).into());
            }
        }
    }

    /// All of it, its tag, and whether it is packed.
    pub(crate) fn end(mut self) -> (Vec<Bytes>, String, bool) {
        self.end_piece();
        let packed = self.packing.take().map(GzEncoder::finish);
        let is_packed = packed.is_some();
        // Nor does a vector in which something is packed fail.
        self.done
            .extend(packed.and_then(Result::ok).map(Bytes::from));
        (self.done, self.tag.end(), is_packed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_large_body_is_the_same_in_pieces_and_packed() {
        let written = |packed| {
            let mut pieces = Pieces::new(packed);
            pieces.put(b"[");
            (0..100_000).for_each(|n| pieces.put_json(&n));
            pieces.put(b"]");
            pieces.end()
        };
        let (plain, tag, is_packed) = written(false);
        assert!(plain.len() > 1 && !is_packed);
        let (packed, same_tag, is_packed) = written(true);
        assert!(is_packed);
        assert_eq!(tag, same_tag);
        let mut text = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(packed[0].as_ref());
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.concat());
        assert_eq!(Body::from(plain).len(), text.len() as u64);
    }
}
