//! JPEG, PNG and GIF.

use std::io::{Read, Seek};

use super::window::Window;
use super::{Facts, Flaw};

/// How much is read at once to look for the end of a JPEG.
const SCAN_BYTES: usize = 64 * 1024;

/// How far the end of a JPEG is looked for where something was appended to it; cameras do, up to a short film.
const MAX_SCAN: u64 = 64 << 20;

/// How far from its end a GIF may end, filled up with nothing.
const MAX_PADDING: usize = 4 * 1024;

/// JPEG: segments up to the first scan, then compressed data up to the end marker.
pub(super) fn jpeg<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let mut at = 2;
    loop {
        file.count_part()?;
        let [mark, code] = file.array(at)?;
        if mark != 0xff {
            return Err(Flaw::Malformed(format!("there is no marker at byte {at}")));
        }
        match code {
            // Filled up.
            0xff => at += 1,
            // Without a length.
            0x01 | 0xd0..=0xd7 => at += 2,
            0xd9 => return Err(Flaw::Malformed("it ends before its picture".to_owned())),
            _ => {
                let content = at + 4;
                at = at + 2 + u64::from(u16::from_be_bytes(file.array(at + 2)?));
                if at > file.length() {
                    return Err(Flaw::past_the_end("header", at, file.length()));
                }
                if at < content {
                    return Err(Flaw::Malformed(format!("its segment {code:#04x} has no length")));
                }
                if matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc) {
                    let [a, b, c, d] = file.array(content + 1)?;
                    facts.show(
                        u16::from_be_bytes([c, d]).into(),
                        u16::from_be_bytes([a, b]).into(),
                    );
                } else if code == 0xda {
                    break;
                }
            }
        }
    }
    if ends_as_jpeg(file, at)? {
        return Ok(());
    }
    Err(Flaw::Truncated("its end marker is missing".to_owned()))
}

/// Whether the end marker comes. In compressed data it cannot stand for anything else.
fn ends_as_jpeg<R: Read + Seek>(file: &mut Window<R>, from: u64) -> Result<bool, Flaw> {
    let length = file.length();
    if length >= from + 2 && file.array(length - 2)? == [0xff, 0xd9] {
        return Ok(true);
    }
    let mut at = from;
    while at < length {
        if at - from > MAX_SCAN {
            return Err(Flaw::Malformed(format!(
                "it does not end within {MAX_SCAN} bytes"
            )));
        }
        let piece = file.bytes(at, SCAN_BYTES)?;
        if piece.windows(2).any(|pair| pair == [0xff, 0xd9]) {
            return Ok(true);
        }
        // The last byte again: the marker may lie on the seam.
        at += (piece.len() as u64).saturating_sub(1).max(1);
    }
    Ok(false)
}

/// PNG: chunks up to `IEND`.
pub(super) fn png<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let (mut at, mut has_data) = (8, false);
    loop {
        file.count_part()?;
        let [a, b, c, d, kind @ ..] = file.array::<8>(at)?;
        if !kind.iter().all(u8::is_ascii_alphabetic) || (at == 8) != (kind == *b"IHDR") {
            return Err(Flaw::Malformed(format!("there is no right chunk at byte {at}")));
        }
        let content = at + 8;
        // After it stands a checksum.
        at = content + u64::from(u32::from_be_bytes([a, b, c, d])) + 4;
        if at > file.length() {
            let part = format!("{} chunk", kind.escape_ascii());
            return Err(Flaw::past_the_end(&part, at, file.length()));
        }
        match &kind {
            b"IHDR" => {
                let (width, height) = (file.array(content)?, file.array(content + 4)?);
                facts.show(u32::from_be_bytes(width), u32::from_be_bytes(height));
            }
            b"IDAT" => has_data = true,
            b"IEND" if has_data => return Ok(()),
            b"IEND" => return Err(Flaw::Malformed("it has no picture".to_owned())),
            _ => {}
        }
    }
}

/// GIF: its size in front; a block's end and the trailer at the end.
pub(super) fn gif<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let [a, b, c, d] = file.array(6)?;
    facts.show(
        u16::from_le_bytes([a, b]).into(),
        u16::from_le_bytes([c, d]).into(),
    );
    let tail_at = file.length().saturating_sub(MAX_PADDING as u64).max(13);
    let tail = file.bytes(tail_at, MAX_PADDING)?;
    let is_padding = |byte: &u8| matches!(byte, 0 | b'\r' | b'\n');
    let end = tail
        .iter()
        .rposition(|byte| !is_padding(byte))
        .map_or(0, |last| last + 1);
    if tail[..end].ends_with(b"\0\x3b") {
        return Ok(());
    }
    Err(Flaw::Truncated("its trailer is missing".to_owned()))
}
