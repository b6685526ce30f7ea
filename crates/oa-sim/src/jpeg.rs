//! A picture for the daily blueprint: a baseline grey JPEG of noise, valid for any decoder and large as real ones are.
//!
//! ITU-T T.81: SOI, quantisation table, frame header, two Huffman tables, scan. The Huffman tables are the simplest that are
//! valid: every symbol has a four-bit code.

use crate::data::Rng;

/// Symbols of the AC table: end of block, and values of one to six bits without zeros before them.
const AC_SYMBOLS: [u8; 7] = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06];

struct Bits {
    out: Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, length: u32) {
        self.buffer = (self.buffer << length) | value;
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = ((self.buffer >> self.count) & 0xff) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0);
            }
        }
    }

    /// A value as JPEG writes it: its category's code, then its bits, negative ones less one.
    fn value(&mut self, value: i32, code_of: impl Fn(u32) -> u32) {
        let size = 32 - value.unsigned_abs().leading_zeros();
        self.put(code_of(size), 4);
        if size > 0 {
            let bits = if value < 0 {
                (value - 1) as u32 & ((1 << size) - 1)
            } else {
                value as u32
            };
            self.put(bits, size);
        }
    }
}

/// A picture of `blocks` × `blocks` squares of eight pixels.
pub fn noise(rng: &mut Rng, blocks: u16) -> Vec<u8> {
    let side = blocks * 8;
    let mut out = vec![0xff, 0xd8];
    segment(&mut out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    let mut table = vec![0];
    table.extend([16u8; 64]);
    segment(&mut out, 0xdb, &table);
    let [high, low] = side.to_be_bytes();
    segment(&mut out, 0xc0, &[8, high, low, high, low, 1, 1, 0x11, 0]);
    let huffman = |class: u8, symbols: &[u8]| {
        let mut table = vec![class];
        table.extend((1..=16u8).map(|length| if length == 4 { symbols.len() as u8 } else { 0 }));
        table.extend(symbols);
        table
    };
    let dc: Vec<u8> = (0..12).collect();
    segment(&mut out, 0xc4, &huffman(0x00, &dc));
    segment(&mut out, 0xc4, &huffman(0x10, &AC_SYMBOLS));
    segment(&mut out, 0xda, &[1, 1, 0x00, 0, 63, 0]);
    let mut bits = Bits {
        out,
        buffer: 0,
        count: 0,
    };
    let mut level = 0;
    for _ in 0..u32::from(blocks) * u32::from(blocks) {
        let next = rng.below(101) as i32 - 50;
        bits.value(next - level, |size| size);
        level = next;
        for _ in 0..4 {
            let value = rng.below(20) as i32 - 10;
            let value = if value == 0 { 1 } else { value };
            bits.value(value, |size| size);
        }
        bits.put(0, 4);
    }
    bits.put(0x7f, 7);
    let mut out = bits.out;
    out.extend([0xff, 0xd9]);
    out
}

fn segment(out: &mut Vec<u8>, marker: u8, content: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((content.len() as u16 + 2).to_be_bytes());
    out.extend(content);
}
