//! What a file is, told by its bytes alone: its kind, whether it is all there, and how long and how large it plays.
//!
//! Only the skeleton is read: the lengths of boxes, chunks and elements up to the end of the file, and the few fields that
//! say something worth telling. Completeness is judged strictly, content leniently: what is encrypted or unheard of
//! passes if it is whole. However hostile the file, memory stays below a mebibyte, and time grows with the number of
//! parts, which is bounded.

use std::io::{self, Read, Seek};

mod audio;
mod bmff;
mod ebml;
#[cfg(test)]
#[path = "../../tests/media/mod.rs"]
pub(crate) mod files;
mod picture;
mod riff;
mod sniff;
#[cfg(test)]
mod tests;
mod window;

use sniff::{Structure, sniff};
use window::Window;

/// How many of the first bytes tell the kind of a file.
const HEAD_BYTES: usize = 512;

/// What a file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// MIME type.
    pub content_type: &'static str,
    /// The usual file extension, without the dot.
    pub extension: &'static str,
    /// How long it plays.
    pub duration_ms: Option<u64>,
    /// In pixels, as it is shown: a rotation that the file asks for is counted in.
    pub width: Option<u32>,
    /// In pixels, as it is shown.
    pub height: Option<u32>,
    /// How its video is encoded, or its sound if it has no picture: `h264`, `h265`, `av1`, `vp9`, `aac`, `mp3`, …; for others
    /// what the container calls it.
    pub codec: Option<String>,
}

impl Facts {
    /// Of a file of which no more than its kind is known.
    pub const fn of(content_type: &'static str, extension: &'static str) -> Self {
        Self {
            content_type,
            extension,
            duration_ms: None,
            width: None,
            height: None,
            codec: None,
        }
    }

    /// Formats write zero where a size is not known.
    fn show(&mut self, width: u32, height: u32) {
        self.width = (width > 0).then_some(width);
        self.height = (height > 0).then_some(height);
    }

    /// So many units of time, of which a second has `per_second`. Formats write zero for what they do not know.
    fn play(&mut self, units: u64, per_second: u64) {
        let ms = (u128::from(units) * 1_000 + u128::from(per_second) / 2).checked_div(per_second.into());
        self.duration_ms = ms
            .and_then(|ms| i64::try_from(ms).ok())
            .and_then(|ms| u64::try_from(ms).ok())
            .filter(|ms| *ms > 0);
    }

    fn encoded(&mut self, codec: &str) {
        self.codec = Some(codec.to_owned());
    }
}

/// Why a file is not what its first bytes promise.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It ends before its structure does.
    #[error("the file is cut off: {0}")]
    Truncated(String),
    /// Its structure is not that of its kind.
    #[error("the file is damaged: {0}")]
    Malformed(String),
    /// It could not be read.
    #[error("the file could not be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Flaw {
    /// A part that ends so far behind the file.
    fn past_the_end(part: &str, end: u64, length: u64) -> Self {
        let missing = end.saturating_sub(length);
        Self::Truncated(format!("{missing} bytes of its {part} are missing"))
    }
}

/// Recognises a file of `length` bytes and looks through its structure. `None`: its kind is not known.
pub fn examine<R: Read + Seek>(file: R, length: u64) -> Result<Option<Facts>, Flaw> {
    let mut file = Window::new(file, length);
    let Some((mut facts, structure)) = sniff(file.bytes(0, HEAD_BYTES)?) else {
        return Ok(None);
    };
    let (file, known) = (&mut file, &mut facts);
    match structure {
        Structure::Bmff => bmff::read(file, known),
        Structure::Ebml => ebml::read(file, known),
        Structure::Jpeg => picture::jpeg(file, known),
        Structure::Png => picture::png(file, known),
        Structure::Gif => picture::gif(file, known),
        Structure::WebP => riff::webp(file, known),
        Structure::Wav => riff::wav(file, known),
        Structure::Mp3 => audio::mp3(file, known),
        Structure::Flac => audio::flac(file, 0, known),
        Structure::Unread => Ok(()),
    }?;
    Ok(Some(facts))
}
