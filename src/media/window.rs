//! A file as its readers see it: bytes by place, within bounds.

use std::io::{Read, Seek, SeekFrom};

use super::Flaw;

/// How many parts (boxes, chunks, elements, segments) of one file are looked at. A film of two hours in fragments of a
/// second has 15,000.
const MAX_PARTS: u32 = 500_000;

/// How much is read at once where less would do: parts often lie close together.
const READ_BYTES: usize = 4 * 1024;

/// A file and a piece of it in memory.
#[derive(Debug)]
pub(super) struct Window<R> {
    file: R,
    length: u64,
    piece: Vec<u8>,
    piece_at: u64,
    parts: u32,
}

impl<R: Read + Seek> Window<R> {
    pub(super) fn new(file: R, length: u64) -> Self {
        Self {
            file,
            length,
            piece: Vec::new(),
            piece_at: 0,
            parts: 0,
        }
    }

    /// The length of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Counts a part; an error if there are too many.
    pub(super) fn count_part(&mut self) -> Result<(), Flaw> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Flaw::Malformed(format!("it has more than {MAX_PARTS} parts")));
        }
        Ok(())
    }

    /// Whether there were too many parts.
    pub(super) fn is_tired(&self) -> bool {
        self.parts > MAX_PARTS
    }

    /// The bytes at a place; fewer at the end of the file, none past it. Callers ask for 64 KiB at most.
    pub(super) fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], Flaw> {
        let there = self.length.saturating_sub(at).min(count as u64);
        let count = usize::try_from(there).unwrap_or(count);
        let is_held = at >= self.piece_at && at + there <= self.piece_at + self.piece.len() as u64;
        if !is_held && count > 0 {
            self.hold(at, count)?;
        }
        let from = usize::try_from(at.saturating_sub(self.piece_at)).unwrap_or(usize::MAX);
        let held = self.piece.get(from..).unwrap_or_default();
        Ok(&held[..count.min(held.len())])
    }

    /// So many bytes at a place; `Truncated` if the file ends before.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> Result<[u8; N], Flaw> {
        let length = self.length;
        let bytes = self.bytes(at, N)?;
        bytes
            .try_into()
            .map_err(|_| Flaw::Truncated(format!("it goes on after its {length} bytes")))
    }

    fn hold(&mut self, at: u64, count: usize) -> Result<(), Flaw> {
        self.piece.clear();
        self.piece_at = at;
        self.file.seek(SeekFrom::Start(at))?;
        let most = count.max(READ_BYTES) as u64;
        (&mut self.file).take(most).read_to_end(&mut self.piece)?;
        Ok(())
    }
}
