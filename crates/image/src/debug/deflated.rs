//! A section that is compressed (zlib, as distributions compress debug information): what is asked for is
//! inflated, from the nearest state that was kept. It is never in memory as a whole.

use std::{fs::File, os::unix::fs::FileExt as _};

use gimli::{Error, Result};
use miniz_oxide::{
    DataFormat, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};

/// Bytes of a state.
const STATE: u64 = 43 << 10;
/// Bytes that are inflated between states that are kept, at least.
const MARK: u64 = 2 << 20;
/// States that are kept, at most.
const MAX_MARKS: u64 = 256;
/// Bytes that are read at a time.
const INPUT: usize = 256 << 10;
/// Bytes that are inflated at a time where they are only passed over.
const SKIP: usize = 64 << 10;

/// A place in the stream.
#[derive(Clone)]
struct Cursor {
    state: Box<InflateState>,
    /// Bytes of the compressed section that were consumed.
    input: u64,
    /// Bytes that came out.
    output: u64,
}

/// A compressed section.
pub(super) struct Deflated {
    file: File,
    /// Where it lies in the file, and its size there.
    offset: u64,
    compressed: u64,
    /// Its size when it is inflated.
    size: u64,
    spacing: u64,
    /// Where earlier reads came past, ascending by output.
    marks: Vec<Cursor>,
    /// Where the last read ended.
    current: Cursor,
    /// Compressed bytes, and where they begin.
    buffer: Vec<u8>,
    buffer_at: u64,
    passed: Vec<u8>,
}

impl Deflated {
    /// `compressed` bytes at `offset` of a file, which say that they are `size` bytes.
    pub(super) fn new(file: File, offset: u64, compressed: u64, size: u64) -> Self {
        let start = Cursor {
            state: InflateState::new_boxed(DataFormat::Zlib),
            input: 0,
            output: 0,
        };
        Self {
            file,
            offset,
            compressed,
            size,
            spacing: MARK.max(size / MAX_MARKS),
            marks: vec![start.clone()],
            current: start,
            buffer: Vec::new(),
            buffer_at: 0,
            passed: vec![0; SKIP],
        }
    }

    /// With states kept in as many bytes at most.
    pub(super) fn keeping(mut self, bytes: u64) -> Self {
        let marks = (bytes / STATE).clamp(1, MAX_MARKS);
        self.spacing = self.spacing.max(self.size / marks);
        self
    }

    /// Fills `to` with what lies at `at`, as far as there is something; answers how much.
    pub(super) fn read(&mut self, at: u64, to: &mut [u8]) -> Result<usize> {
        let wanted = to.len().min(self.size.saturating_sub(at) as usize);
        let nearest = self
            .marks
            .partition_point(|mark| mark.output <= at)
            .checked_sub(1)
            .and_then(|place| self.marks.get(place));
        if let Some(mark) = nearest
            && (self.current.output > at || self.current.output < mark.output)
        {
            self.current = mark.clone();
        }
        let mut passed = std::mem::take(&mut self.passed);
        let skipped = self.skip(at, &mut passed);
        self.passed = passed;
        skipped?;
        let mut filled = 0;
        while let Some(rest) = to.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
            filled += self.step(rest)?;
        }
        Ok(filled)
    }

    /// Inflates up to `at`, keeping states on the way.
    fn skip(&mut self, at: u64, passed: &mut [u8]) -> Result<()> {
        while self.current.output < at {
            let last = self.marks.last().map_or(0, |mark| mark.output);
            let next = last.saturating_add(self.spacing);
            let mut end = at;
            if self.current.output < next {
                end = end.min(next);
            }
            let len = (end - self.current.output).min(passed.len() as u64) as usize;
            self.step(&mut passed[..len])?;
            if self.current.output == next {
                self.marks.push(self.current.clone());
            }
        }
        Ok(())
    }

    /// Inflates some bytes; answers how many, at least one.
    fn step(&mut self, to: &mut [u8]) -> Result<usize> {
        loop {
            let behind = self.current.input.checked_sub(self.buffer_at);
            let have = behind.and_then(|behind| self.buffer.get(behind as usize..));
            let input = match have.filter(|input| !input.is_empty()) {
                Some(input) => input,
                // All went in, and some has still to come out.
                None if self.current.input >= self.compressed => &[],
                None => {
                    self.refill()?;
                    continue;
                }
            };
            let result = inflate(&mut self.current.state, input, to, MZFlush::None);
            self.current.input += result.bytes_consumed as u64;
            self.current.output += result.bytes_written as u64;
            match result.status {
                Ok(MZStatus::Ok | MZStatus::StreamEnd) if result.bytes_written > 0 => {
                    return Ok(result.bytes_written);
                }
                Ok(MZStatus::Ok) if result.bytes_consumed > 0 => {}
                // It ended too early, or makes no sense.
                _ => return Err(Error::Io),
            }
        }
    }

    fn refill(&mut self) -> Result<()> {
        let left = self.compressed.saturating_sub(self.current.input);
        let len = INPUT.min(usize::try_from(left).unwrap_or(INPUT));
        self.buffer.resize(len, 0);
        let at = self.offset + self.current.input;
        let read = self
            .file
            .read_at(&mut self.buffer, at)
            .map_err(|_| Error::Io)?;
        if read == 0 {
            return Err(Error::Io);
        }
        self.buffer.truncate(read);
        self.buffer_at = self.current.input;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    /// Bytes of which none repeats another at a distance that a state could hide.
    fn content() -> Vec<u8> {
        let mut value = 1u64;
        (0..9_000_000u64)
            .map(|place| {
                value = value
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(place);
                if place % 7 < 4 {
                    (value >> 60) as u8
                } else {
                    (place / 1000) as u8
                }
            })
            .collect()
    }

    fn compressed() -> (Vec<u8>, File, u64) {
        let content = content();
        let bytes = miniz_oxide::deflate::compress_to_vec_zlib(&content, 1);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(b"after").unwrap();
        (content, file, bytes.len() as u64)
    }

    #[test]
    fn any_place_in_any_order() {
        let (content, file, len) = compressed();
        let size = content.len() as u64;
        let mut section = Deflated::new(file, 6, len, size);
        let mut at = 12_345u64;
        for round in 0..200u64 {
            at = at
                .wrapping_mul(2_862_933_555_777_941_757)
                .wrapping_add(round)
                % (size + 100);
            let mut bytes = vec![0; 8192];
            let read = section.read(at, &mut bytes).unwrap();
            let wanted = content.get(at as usize..).unwrap_or_default();
            assert_eq!(read, wanted.len().min(8192), "{at}");
            assert!(bytes[..read] == wanted[..read], "{at}");
        }
        assert!(section.marks.len() > 3);
        // To the end, where all has gone in before all has come out.
        for (place, wanted) in content.chunks(8192).enumerate() {
            let mut bytes = vec![0; 8192];
            let read = section.read(place as u64 * 8192, &mut bytes).unwrap();
            assert!(bytes[..read] == *wanted, "{place}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 0u64..1 << 32, at in 0u64..1 << 20) {
            let mut file = tempfile::tempfile().unwrap();
            // The head of a zlib stream, and a block that may be anything.
            file.write_all(&[0x78, 0x9c]).unwrap();
            file.write_all(&bytes).unwrap();
            let len = bytes.len() as u64 + 2;
            let mut section = Deflated::new(file, 0, len, size);
            let _ = section.read(at, &mut [0; 100]);
            let _ = section.read(0, &mut [0; 100]);
        }
    }
}
