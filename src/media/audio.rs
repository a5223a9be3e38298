//! MP3 and FLAC, and what else may lie behind an `ID3v2` tag.

use std::io::{Read, Seek};

use super::sniff::{Structure, sniff};
use super::window::Window;
use super::{Facts, Flaw, HEAD_BYTES};

/// How far behind the tags the first frame of an MP3 is looked for; some writers leave room.
const MAX_SEARCH: usize = 48 * 1024;

/// Room for the longest frame there is, and the head of the next one.
const FRAME_BYTES: usize = 3 * 1024;

/// How far into the first frame the note of an encoder reaches.
const NOTE_BYTES: usize = 192;

/// How much of what an encoder counted may be missing: some count the tag at the end, which goes with an edit.
const TOLERANCE: u64 = 128;

/// MP3: tags, then frames. How many, a note in the first frame may say; else their bit rate tells how long they play.
pub(super) fn mp3<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let from = after_tags(file)?;
    if from > 0 {
        match sniff(file.bytes(from, HEAD_BYTES)?) {
            Some((tagged, Structure::Flac)) => {
                *facts = tagged;
                return flac(file, from, facts);
            }
            Some((tagged, Structure::Unread)) => {
                *facts = tagged;
                return Ok(());
            }
            _ => {}
        }
    }
    let length = file.length();
    let found = file.bytes(from, MAX_SEARCH + FRAME_BYTES)?;
    let Some((offset, frame)) = first_frame(found) else {
        return Err(if found.len() < FRAME_BYTES {
            Flaw::Truncated("its first frame is missing".to_owned())
        } else {
            Flaw::Malformed("it has no frames".to_owned())
        });
    };
    let rest = &found[offset..];
    let note = note(&rest[..rest.len().min(NOTE_BYTES)]);
    let frames_at = from + offset as u64;
    if let Some(bytes) = note.bytes {
        let end = frames_at + u64::from(bytes);
        if end > length + TOLERANCE {
            return Err(Flaw::past_the_end("frames", end, length));
        }
    }
    facts.encoded(frame.codec);
    match note.frames {
        Some(frames) => facts.play(u64::from(frames) * frame.samples, frame.rate),
        None => facts.play((length - frames_at) * 8, frame.bit_rate),
    }
    Ok(())
}

/// Where the `ID3v2` tags end.
fn after_tags<R: Read + Seek>(file: &mut Window<R>) -> Result<u64, Flaw> {
    let mut at = 0;
    while let &[b'I', b'D', b'3', _, _, flags, a, b, c, d] = file.bytes(at, 10)? {
        file.count_part()?;
        // Seven bits a byte, so that no length looks like a frame.
        let length = [a, b, c, d]
            .into_iter()
            .fold(0, |length, byte| length << 7 | u64::from(byte & 0x7f));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        at += 10 + length + footer;
        if at > file.length() {
            return Err(Flaw::past_the_end("tags", at, file.length()));
        }
    }
    Ok(at)
}

/// What the head of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    codec: &'static str,
    /// Samples of a channel.
    samples: u64,
    /// Samples a second.
    rate: u64,
    /// Bits a second; 0 if it is for the decoder to find out, which few files do.
    bit_rate: u64,
    bytes: usize,
}

/// The first place at which a frame begins, and another one, or nothing more, follows.
fn first_frame(bytes: &[u8]) -> Option<(usize, Frame)> {
    (0..bytes.len().min(MAX_SEARCH)).find_map(|offset| {
        let rest = &bytes[offset..];
        let frame = Frame::of(rest)?;
        let is_followed = match rest.get(frame.bytes..) {
            // Nobody knows where it ends: it is one only where it should be.
            _ if frame.bit_rate == 0 => offset == 0,
            None => false,
            Some([]) => true,
            Some(next) => {
                next.starts_with(b"TAG") || Frame::of(next).is_some_and(|next| next.rate == frame.rate)
            }
        };
        is_followed.then_some((offset, frame))
    })
}

impl Frame {
    fn of(head: &[u8]) -> Option<Self> {
        let &[0xff, second, third, _, ..] = head else {
            return None;
        };
        if second & 0xe0 != 0xe0 {
            return None;
        }
        // Version 1; versions 2 and 2.5 halve and quarter the rates.
        let (is_first, fraction) = match second >> 3 & 3 {
            3 => (true, 1),
            2 => (false, 2),
            0 => (false, 4),
            _ => return None,
        };
        let (layer, codec) = match second >> 1 & 3 {
            3 => (1, "mp1"),
            2 => (2, "mp2"),
            1 => (3, "mp3"),
            _ => return None,
        };
        let rate = [44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))? / fraction;
        let kilobits: u64 = (*bit_rates(layer, is_first).get(usize::from(third >> 4))?).into();
        let (samples, slot) = match (layer, is_first) {
            (1, _) => (384, 4),
            (3, false) => (576, 1),
            _ => (1_152, 1),
        };
        let slots = samples / 8 * kilobits * 1_000 / rate / slot + u64::from(third >> 1 & 1);
        Some(Self {
            codec,
            samples,
            rate,
            bit_rate: kilobits * 1_000,
            bytes: usize::try_from(slots * slot).ok()?,
        })
    }
}

/// Kilobits a second, by the four bits that name them.
fn bit_rates(layer: u8, is_first: bool) -> [u16; 15] {
    match (layer, is_first) {
        (1, true) => [
            0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
        ],
        (2, true) => [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        (_, true) => [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        (1, false) => [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        (_, false) => [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    }
}

/// What an encoder noted in the first frame, which is silent then.
#[derive(Debug, Default)]
struct Note {
    frames: Option<u32>,
    bytes: Option<u32>,
}

fn note(frame: &[u8]) -> Note {
    let find = |name: &[u8]| frame.windows(4).position(|four| four == name);
    let number = |at: usize| {
        let four = frame.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    if let Some(at) = find(b"Xing").or_else(|| find(b"Info")) {
        let flags = number(at + 4).unwrap_or(0);
        let frames = number(at + 8).filter(|_| flags & 1 != 0);
        let bytes_at = if flags & 1 == 0 { at + 8 } else { at + 12 };
        let bytes = number(bytes_at).filter(|_| flags & 2 != 0);
        return Note { frames, bytes };
    }
    let Some(at) = find(b"VBRI") else {
        return Note::default();
    };
    Note {
        bytes: number(at + 10),
        frames: number(at + 14),
    }
}

/// FLAC: blocks of facts, then frames.
pub(super) fn flac<R: Read + Seek>(file: &mut Window<R>, from: u64, facts: &mut Facts) -> Result<(), Flaw> {
    let [first, ..] = file.array::<4>(from + 4)?;
    if first & 0x7f != 0 {
        return Err(Flaw::Malformed("it does not begin with its facts".to_owned()));
    }
    // After the head of the first block and the sizes of blocks and frames.
    let packed = u64::from_be_bytes(file.array(from + 18)?);
    // 20 bits of rate, 3 and 5 bits for channels and depth, 36 bits of samples.
    facts.play(packed & 0xf_ffff_ffff, packed >> 44);
    facts.encoded("flac");
    let mut at = from + 4;
    loop {
        file.count_part()?;
        let [kind, a, b, c] = file.array(at)?;
        at += 4 + u64::from(u32::from_be_bytes([0, a, b, c]));
        if at > file.length() {
            return Err(Flaw::past_the_end("facts", at, file.length()));
        }
        if kind & 0x80 != 0 {
            break;
        }
    }
    let [sync, more] = file.array(at)?;
    if sync != 0xff || more & 0xfc != 0xf8 {
        return Err(Flaw::Malformed("its frames are missing".to_owned()));
    }
    Ok(())
}
