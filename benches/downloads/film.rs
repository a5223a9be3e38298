//! The file that is fetched: a structurally sound MP4 of any length, made as it is sent.
//!
//! All that comes before the samples, and then samples of noise that repeats every mebibyte.

use sha2::{Digest as _, Sha256};

use crate::files::{Video, extend_with_noise, mp4_head};

/// How often the noise repeats.
const BLOCK_BYTES: usize = 1 << 20;

const FULL_HD: Video = Video {
    width: 1920,
    height: 1080,
    duration_ms: 8_000,
};

/// A film; only its beginning and one block of noise are in memory.
#[derive(Debug, Clone)]
pub(crate) struct Film {
    pub(crate) length: u64,
    /// Everything up to the noise.
    pub(crate) head: Vec<u8>,
    pub(crate) block: Vec<u8>,
}

impl Film {
    /// One of `length` bytes, less than 4 GiB.
    pub(crate) fn new(length: u64) -> Self {
        let mut block = Vec::new();
        extend_with_noise(&mut block, 1, BLOCK_BYTES);
        Self {
            length,
            head: mp4_head(FULL_HD, length),
            block,
        }
    }

    /// What any copy of it must hash to.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(&self.head);
        let mut left = usize::try_from(self.length).unwrap_or(usize::MAX) - self.head.len();
        while left > 0 {
            let now = left.min(self.block.len());
            hash.update(&self.block[..now]);
            left -= now;
        }
        hash.finalize().into()
    }
}
