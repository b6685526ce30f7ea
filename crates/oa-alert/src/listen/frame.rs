//! The frames of Feishu's long connection: `pbbp2.Frame` of its public libraries, in Protocol Buffers' binary form
//! (<https://protobuf.dev/programming-guides/encoding/>). Nine fields, two of them messages of two texts: less than a library needs to
//! be told.

/// A frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) log: u64,
    pub(super) service: i32,
    /// 0 is control, 1 is data.
    pub(super) method: i32,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload_encoding: String,
    pub(super) payload_type: String,
    pub(super) payload: Vec<u8>,
    pub(super) log_new: String,
}

/// Wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

impl Frame {
    /// A header's value.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// As it is sent. The first four fields are required, so that they are written though they are 0.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, 1, self.sequence);
        put_number(&mut out, 2, self.log);
        // Negative numbers are written with all 64 bits.
        put_number(&mut out, 3, i64::from(self.service).cast_unsigned());
        put_number(&mut out, 4, i64::from(self.method).cast_unsigned());
        for (key, value) in &self.headers {
            let mut header = Vec::new();
            put_bytes(&mut header, 1, key.as_bytes());
            put_bytes(&mut header, 2, value.as_bytes());
            put_bytes(&mut out, 5, &header);
        }
        for (field, text) in [(6, &self.payload_encoding), (7, &self.payload_type)] {
            if !text.is_empty() {
                put_bytes(&mut out, field, text.as_bytes());
            }
        }
        if !self.payload.is_empty() {
            put_bytes(&mut out, 8, &self.payload);
        }
        if !self.log_new.is_empty() {
            put_bytes(&mut out, 9, self.log_new.as_bytes());
        }
        out
    }

    /// `None` for what is no frame. Fields that are not known are passed over.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut frame = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(n)) => frame.sequence = n,
                (2, Value::Number(n)) => frame.log = n,
                (3, Value::Number(n)) => frame.service = low_half(n),
                (4, Value::Number(n)) => frame.method = low_half(n),
                (5, Value::Bytes(header)) => frame.headers.push(header_of(header)?),
                (6, Value::Bytes(text)) => frame.payload_encoding = text_of(text)?,
                (7, Value::Bytes(text)) => frame.payload_type = text_of(text)?,
                (8, Value::Bytes(payload)) => frame.payload = payload.to_vec(),
                (9, Value::Bytes(text)) => frame.log_new = text_of(text)?,
                _ => {}
            }
        }
        Some(frame)
    }
}

fn header_of(bytes: &[u8]) -> Option<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => key = text_of(text)?,
            (2, Value::Bytes(text)) => value = text_of(text)?,
            _ => {}
        }
    }
    Some((key, value))
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// An `int32` is written as 64 bits and read as its lower half.
fn low_half(n: u64) -> i32 {
    let bytes = n.to_le_bytes();
    i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message, in their order; `None` where it is broken, and nothing after that.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            VARINT => Value::Number(self.number()?),
            BYTES => {
                let length = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED_64 => self.take(8).map(|_| Value::Other)?,
            FIXED_32 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3 | VARINT);
    put_varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_written_as_the_platforms_libraries_write_it() {
        let ping = Frame {
            service: 33_554_678,
            headers: vec![("type".to_owned(), "ping".to_owned())],
            ..Frame::default()
        };
        // By hand, after the document: 08 00, 10 00, 18 varint, 20 00, 2a length (0a 04 "type" 12 04 "ping").
        let written =
            b"\x08\x00\x10\x00\x18\xf6\x81\x80\x10\x20\x00\x2a\x0c\x0a\x04type\x12\x04ping";
        assert_eq!(ping.encode(), written);
        assert_eq!(Frame::decode(written), Some(ping));
        // A field that is not known, of each wire type, is passed over.
        let more = [
            b"\xa0\x06\x05\xa9\x0612345678\xad\x061234\xb2\x06\x01x".as_slice(),
            written,
        ]
        .concat();
        assert_eq!(Frame::decode(&more).unwrap().header("type"), "ping");
        for broken in [
            b"\x08".as_slice(),
            b"\x2a\x05ab",
            b"\x0b",
            &[0xff; 12],
            b"\x2a\x02\x0a\x09",
        ] {
            assert_eq!(Frame::decode(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sequence: u64, service: i32, payload: Vec<u8>, key in "\\PC{0,9}", value in "\\PC{0,200}") {
            let frame = Frame { sequence, service, method: 1, payload, headers: vec![(key, value)], log_new: "x".into(), ..Frame::default() };
            prop_assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }

        #[test]
        fn nothing_that_comes_ends_the_program(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes);
        }
    }
}
