//! RIFF: chunks with their kind and length, little-endian. WebP and WAV.

use std::io::{Read, Seek};

use super::window::Window;
use super::{Facts, Flaw};

/// From this length on, one that the file does not have is that of a stream, whose writer could not go back. Writers put
/// the largest number there is, signed or not, perhaps less their head and rounded.
const UNKNOWN: u32 = 0x7fff_0000;

/// By how much a RIFF may be announced too long by those who count its own head.
const HEAD: u64 = 8;

/// WebP.
pub(super) fn webp<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let (mut has_picture, mut plays_ms, mut is_sized) = (false, 0_u64, false);
    let mut chunks = Chunks::of(file)?;
    while let Some(chunk) = chunks.next(file)? {
        let size = match &chunk.kind {
            b"VP8X" => {
                let (width, height) = (chunk.field(file, 4)?, chunk.field(file, 7)?);
                Some((1 + three(width), 1 + three(height)))
            }
            b"VP8 " => {
                let [a, b, c, d] = chunk.field(file, 6)?;
                // Two bits of each are a scale for players.
                let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                Some((size(a, b), size(c, d)))
            }
            b"VP8L" => {
                let bits = u32::from_le_bytes(chunk.field(file, 1)?);
                Some((1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)))
            }
            b"ANMF" => {
                plays_ms += u64::from(three(chunk.field(file, 12)?));
                None
            }
            _ => None,
        };
        has_picture |= matches!(&chunk.kind, b"VP8 " | b"VP8L" | b"ANMF");
        // The first one is that of the whole.
        if let (Some((width, height)), false) = (size, is_sized) {
            facts.show(width, height);
            is_sized = true;
        }
    }
    if !has_picture {
        return Err(Flaw::Malformed("it has no picture".to_owned()));
    }
    facts.play(plays_ms, 1_000);
    Ok(())
}

fn three([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}

/// WAV.
pub(super) fn wav<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let (mut bytes_per_second, mut samples) = (None, None);
    let mut chunks = Chunks::of(file)?;
    // Nothing behind the samples matters, and so neither does where the whole was to end.
    while let (true, Some(chunk)) = (
        samples.is_none() || bytes_per_second.is_none(),
        chunks.next(file)?,
    ) {
        match &chunk.kind {
            b"fmt " => {
                let coding = u16::from_le_bytes(chunk.field(file, 0)?);
                bytes_per_second = Some(u32::from_le_bytes(chunk.field(file, 8)?));
                facts.codec = coding_name(coding).map(str::to_owned);
            }
            b"data" => samples = Some(chunk.end - chunk.content),
            _ => {}
        }
    }
    match (bytes_per_second, samples) {
        (Some(bytes_per_second), Some(samples)) => {
            facts.play(samples, bytes_per_second.into());
            Ok(())
        }
        _ if chunks.is_stream => Err(Flaw::Truncated("its samples are missing".to_owned())),
        _ => Err(Flaw::Malformed("it has no format or no samples".to_owned())),
    }
}

/// By the number that the format is registered under.
fn coding_name(coding: u16) -> Option<&'static str> {
    match coding {
        // Whole numbers, fractions, or either of them with a description of the channels.
        0x0001 | 0x0003 | 0xfffe => Some("pcm"),
        0x0002 | 0x0011 => Some("adpcm"),
        0x0006 => Some("alaw"),
        0x0007 => Some("mulaw"),
        0x0055 => Some("mp3"),
        _ => None,
    }
}

/// A chunk, without its head.
#[derive(Debug)]
struct Chunk {
    kind: [u8; 4],
    content: u64,
    end: u64,
}

impl Chunk {
    fn field<R: Read + Seek, const N: usize>(
        &self,
        file: &mut Window<R>,
        offset: u64,
    ) -> Result<[u8; N], Flaw> {
        let at = self.content + offset;
        if at + N as u64 > self.end {
            let name = self.kind.escape_ascii();
            return Err(Flaw::Malformed(format!("its {name} chunk is too short")));
        }
        file.array(at)
    }
}

/// The chunks that are still to come.
#[derive(Debug)]
struct Chunks {
    at: u64,
    limit: u64,
    /// Nobody knows where it was to end.
    is_stream: bool,
    /// Its samples are looked for up to the end of the file, whatever is announced for the whole.
    is_wave: bool,
}

impl Chunks {
    fn of<R: Read + Seek>(file: &mut Window<R>) -> Result<Self, Flaw> {
        let [a, b, c, d, kind @ ..] = file.array::<8>(4)?;
        let announced = u32::from_le_bytes([a, b, c, d]);
        let (length, end) = (file.length(), 8 + u64::from(announced));
        let is_wave = kind == *b"WAVE";
        let counts_its_head = is_wave && (end - 1..=end + 1).contains(&(length + HEAD));
        let is_stream = announced == 0 || is_unknown(announced, end, length) || counts_its_head;
        // Some writers count a last byte of padding that they do not write; then the last chunk is looked at closely.
        if !is_stream && end > length + 1 {
            return Err(Flaw::past_the_end("chunks", end, length));
        }
        Ok(Self {
            at: 12,
            limit: if is_stream { length } else { end },
            is_stream,
            is_wave,
        })
    }

    fn next<R: Read + Seek>(&mut self, file: &mut Window<R>) -> Result<Option<Chunk>, Flaw> {
        let length = file.length();
        let may_go_on = self.is_wave && self.at + 8 <= length;
        if self.limit.saturating_sub(self.at) < 8 && !may_go_on {
            // Past by the one byte: what was left out was padding, unless the chunk before has an even length.
            if self.limit > length && self.at != self.limit {
                return Err(Flaw::past_the_end("chunks", self.limit, length));
            }
            return Ok(None);
        }
        file.count_part()?;
        let [kind @ .., a, b, c, d] = file.array::<8>(self.at)?;
        let content = self.at + 8;
        let announced = u32::from_le_bytes([a, b, c, d]);
        let (is_samples, end) = (kind == *b"data", content + u64::from(announced));
        let goes_on = is_unknown(announced, end, length) && (is_samples || self.is_stream);
        let end = if goes_on || is_samples && announced == 0 {
            length
        } else {
            end
        };
        let part = || format!("{} chunk", kind.escape_ascii());
        let is_bound = !self.is_stream && (!self.is_wave || kind == *b"fmt ");
        if end > self.limit && is_bound {
            return Err(Flaw::Malformed(format!(
                "its {} is larger than the file says it is",
                part()
            )));
        }
        if end > length {
            return Err(Flaw::past_the_end(&part(), end, length));
        }
        self.at = end + (end - content) % 2;
        Ok(Some(Chunk { kind, content, end }))
    }
}

/// Whether a length that ends there stands for one that was not known yet.
fn is_unknown(announced: u32, end: u64, length: u64) -> bool {
    announced >= UNKNOWN && end > length
}
