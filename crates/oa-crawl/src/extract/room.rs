//! Answers that are made to take a reader's memory. What reading one takes grows with its values and not with its bytes (60 MB of
//! `{"a":1},` become 4 GB), so they are counted before anything reads it.

use oa_core::model::retry::ErrorKind;

use super::ReadError;

/// What the values of an answer may take, in bytes, however small it is.
const MOST: u64 = 1536 << 20;
/// What they may take in larger ones, for each byte. Usual answers take ten.
const MOST_PER_BYTE: u64 = 24;
/// What so much takes is asked for before.
const MUCH: u64 = 64 << 20;

/// About what a value takes whose beginning or end this byte is.
const fn cost(byte: u8) -> u64 {
    match byte {
        b'{' => 350,
        b'<' => 150,
        b',' | b':' | b'\n' | b'\t' | b';' | b'|' => 80,
        b'[' => 40,
        _ => 0,
    }
}

const COSTS: [u64; 256] = {
    let mut costs = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "less than 256")]
        let of = cost(byte as u8);
        costs[byte] = of;
        byte += 1;
    }
    costs
};

/// Refuses a text that has far more values than answers of its size have, or for which this process has no memory.
pub(crate) fn check(text: &[u8]) -> Result<(), ReadError> {
    let needed = needed(text);
    let fail = |why: &str| {
        let megabytes = needed >> 20;
        let what =
            format!("so many values that reading them takes {megabytes} MiB of memory, {why}");
        Err((ErrorKind::Shape, what))
    };
    if needed > most(text.len() as u64) {
        return fail("many times more than usual answers of its size");
    }
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    if needed as u64 > MUCH && Vec::<u8>::new().try_reserve_exact(needed).is_err() {
        return fail(
            "which this process does not get; raise its limit (ulimit -v), or give the machine more",
        );
    }
    Ok(())
}

fn needed(text: &[u8]) -> u64 {
    text.iter().map(|byte| COSTS[usize::from(*byte)]).sum()
}

fn most(bytes: u64) -> u64 {
    MOST.max(bytes * MOST_PER_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_made_to_take_memory_are_refused_and_usual_ones_are_not() {
        let fits = |unit: &str| {
            let times = (60 << 20) / unit.len() as u64;
            needed(unit.as_bytes()) * times <= most(60 << 20)
        };
        for bomb in ["{\"a\":1},", "{},", "[],[],[],[],{},", "<b></b>"] {
            assert!(!fits(bomb), "{bomb}");
        }
        let row = r#"{"varietyCode":"RB","publishDate":"2026-11-24","rise":12,"flat":3,"fall":10,"sum":25},"#;
        for usual in [
            row,
            "RB2605,3120,3155,3098,3142,1839201\n",
            "3120.5,3142.0,",
        ] {
            assert!(fits(usual), "{usual}");
        }
        assert!(check("{".repeat(5 << 20).as_bytes()).is_err());
        // A small one may have what it likes.
        assert!(check("{},".repeat(1 << 18).as_bytes()).is_ok());
    }
}
