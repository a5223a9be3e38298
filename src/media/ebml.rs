//! `WebM` and Matroska: elements in elements, each with its id and length as numbers of variable length.
//!
//! Live streams are written without lengths. Elements without one are entered instead of passed over, so that what lies in
//! them is walked in one sequence with what follows; whether their end was cut off nobody can tell, unless it is inside an
//! element.

use std::io::{Read, Seek};
use std::time::Duration;

use super::window::Window;
use super::{Facts, Flaw};

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x002a_d7b1;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK: u32 = 0xae;
const TRACK_TYPE: u32 = 0x83;
const CODEC_ID: u32 = 0x86;
const VIDEO: u32 = 0xe0;
const PIXEL_WIDTH: u32 = 0xb0;
const PIXEL_HEIGHT: u32 = 0xba;
const CLUSTER: u32 = 0x1f43_b675;

const IS_VIDEO: u64 = 1;
const IS_SOUND: u64 = 2;

/// Nanoseconds of a unit of time, where the file does not say.
const USUAL_SCALE: u32 = 1_000_000;

/// Longest codec id that is read.
const MAX_NAME: usize = 64;

/// Looks through the file.
pub(super) fn read<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let length = file.length();
    let mut at = 0;
    let segment = loop {
        if at >= length {
            return Err(Flaw::Truncated("it ends before its first segment".to_owned()));
        }
        let element = Element::at(file, at)?;
        if element.id == SEGMENT {
            break element;
        }
        at = element.end_within(length, length)?;
    };
    // What follows the first segment is not ours to judge.
    let limit = match segment.length {
        Some(_) => segment.end_within(length, length)?,
        None => length,
    };
    let mut content = Content::default();
    content.walk(file, segment.content, limit)?;
    content.tell(segment, facts)
}

/// An element, without its head.
#[derive(Debug, Clone, Copy)]
struct Element {
    id: u32,
    content: u64,
    /// `None`: it ends where something else begins.
    length: Option<u64>,
}

impl Element {
    fn at<R: Read + Seek>(file: &mut Window<R>, at: u64) -> Result<Self, Flaw> {
        file.count_part()?;
        let head = file.bytes(at, 12)?;
        let torn = || Flaw::Truncated("it ends in the head of an element".to_owned());
        let bad = || Flaw::Malformed(format!("there is no element at byte {at}"));
        let first = *head.first().ok_or_else(torn)?;
        // As many leading zeros, as many further bytes.
        let id_bytes = first.leading_zeros() as usize + 1;
        if id_bytes > 4 {
            return Err(bad());
        }
        let id = number(head.get(..id_bytes).ok_or_else(torn)?);
        let rest = &head[id_bytes..];
        let first = *rest.first().ok_or_else(torn)?;
        let length_bytes = first.leading_zeros() as usize + 1;
        if length_bytes > 8 {
            return Err(bad());
        }
        let marked = number(rest.get(..length_bytes).ok_or_else(torn)?);
        let ones = (1_u64 << (7 * length_bytes)) - 1;
        let length = marked & ones;
        Ok(Self {
            id: u32::try_from(id).map_err(|_| bad())?,
            content: at + (id_bytes + length_bytes) as u64,
            length: (length != ones).then_some(length),
        })
    }

    /// Where it ends, inside something that ends at `limit`.
    fn end_within(&self, limit: u64, length: u64) -> Result<u64, Flaw> {
        let name = || format!("element {:#x}", self.id);
        let Some(own) = self.length else {
            return Err(Flaw::Malformed(format!("its {} has no length", name())));
        };
        let end = self.content.saturating_add(own);
        if end <= limit {
            Ok(end)
        } else if limit == length {
            Err(Flaw::past_the_end(&name(), end, length))
        } else {
            Err(Flaw::Malformed(format!(
                "its {} is larger than what it lies in",
                name()
            )))
        }
    }

    /// The bytes of a small one; the first `most` of a larger one.
    fn value<'a, R: Read + Seek>(&self, file: &'a mut Window<R>, most: usize) -> Result<&'a [u8], Flaw> {
        let length = usize::try_from(self.length.unwrap_or(0)).unwrap_or(usize::MAX);
        file.bytes(self.content, length.min(most))
    }

    fn number<R: Read + Seek>(&self, file: &mut Window<R>) -> Result<u64, Flaw> {
        Ok(number(self.value(file, 8)?))
    }

    fn float<R: Read + Seek>(&self, file: &mut Window<R>) -> Result<f64, Flaw> {
        let bytes = self.value(file, 8)?;
        if let Ok(double) = bytes.try_into() {
            return Ok(f64::from_be_bytes(double));
        }
        Ok(bytes
            .try_into()
            .map_or(0.0, |single| f32::from_be_bytes(single).into()))
    }

    /// Has every child seen.
    fn each_child<R: Read + Seek>(
        &self,
        file: &mut Window<R>,
        mut see: impl FnMut(&mut Window<R>, Self) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        let length = file.length();
        let limit = self.end_within(length, length)?;
        let mut at = self.content;
        while at < limit {
            let child = Self::at(file, at)?;
            at = child.end_within(limit, length)?;
            see(file, child)?;
        }
        Ok(())
    }
}

/// Big-endian, of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What lies in the segment.
#[derive(Debug, Default)]
struct Content {
    scale: Option<u32>,
    duration: f64,
    has_tracks: bool,
    has_clusters: bool,
    video: Option<Track>,
    sound: Option<Track>,
}

impl Content {
    fn walk<R: Read + Seek>(&mut self, file: &mut Window<R>, from: u64, limit: u64) -> Result<(), Flaw> {
        let (mut at, length) = (from, file.length());
        while at < limit {
            let element = match Element::at(file, at) {
                // What is no element after all there should be is an addition that players ignore; and of a long stream,
                // in which each block counts, it is not all looked at.
                Err(Flaw::Malformed(_)) if self.is_complete() && (limit == length || file.is_tired()) => {
                    break;
                }
                element => element?,
            };
            match element.id {
                INFO => self.read_info(file, element)?,
                TRACKS => {
                    self.has_tracks = true;
                    self.read_tracks(file, element)?;
                }
                CLUSTER => self.has_clusters = true,
                _ => {}
            }
            at = match element.length {
                Some(_) => element.end_within(limit, length)?,
                None => element.content,
            };
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.has_tracks && self.has_clusters
    }

    fn read_info<R: Read + Seek>(&mut self, file: &mut Window<R>, info: Element) -> Result<(), Flaw> {
        info.each_child(file, |file, child| {
            match child.id {
                TIMESTAMP_SCALE => self.scale = u32::try_from(child.number(file)?).ok(),
                DURATION => self.duration = child.float(file)?,
                _ => {}
            }
            Ok(())
        })
    }

    fn read_tracks<R: Read + Seek>(&mut self, file: &mut Window<R>, tracks: Element) -> Result<(), Flaw> {
        tracks.each_child(file, |file, child| {
            if child.id == TRACK {
                let track = Track::of(file, child)?;
                match track.kind {
                    IS_VIDEO => self.video.get_or_insert(track),
                    IS_SOUND => self.sound.get_or_insert(track),
                    _ => return Ok(()),
                };
            }
            Ok(())
        })
    }

    fn tell(&self, segment: Element, facts: &mut Facts) -> Result<(), Flaw> {
        if !self.is_complete() {
            let missing = if self.has_tracks { "clusters" } else { "tracks" };
            let missing = format!("its {missing} are missing");
            return Err(match segment.length {
                Some(_) => Flaw::Malformed(missing),
                None => Flaw::Truncated(missing),
            });
        }
        let seconds = self.duration * f64::from(self.scale.unwrap_or(USUAL_SCALE)) / 1e9;
        // Not if it is negative or no number at all.
        if let Ok(duration) = Duration::try_from_secs_f64(seconds) {
            facts.play(u64::try_from(duration.as_micros()).unwrap_or(0), 1_000_000);
        }
        if let Some(video) = &self.video {
            facts.show(video.width, video.height);
        }
        let main = self.video.as_ref().or(self.sound.as_ref());
        facts.codec = main.and_then(|track| codec(&track.codec));
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Track {
    kind: u64,
    codec: String,
    width: u32,
    height: u32,
}

impl Track {
    fn of<R: Read + Seek>(file: &mut Window<R>, entry: Element) -> Result<Self, Flaw> {
        let mut track = Self::default();
        entry.each_child(file, |file, child| {
            match child.id {
                TRACK_TYPE => track.kind = child.number(file)?,
                CODEC_ID => track.codec = String::from_utf8_lossy(child.value(file, MAX_NAME)?).into_owned(),
                VIDEO => track.read_video(file, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(track)
    }

    fn read_video<R: Read + Seek>(&mut self, file: &mut Window<R>, video: Element) -> Result<(), Flaw> {
        video.each_child(file, |file, child| {
            match child.id {
                PIXEL_WIDTH => self.width = u32::try_from(child.number(file)?).unwrap_or(0),
                PIXEL_HEIGHT => self.height = u32::try_from(child.number(file)?).unwrap_or(0),
                _ => {}
            }
            Ok(())
        })
    }
}

/// The usual name of an encoding. Ids are a letter for the kind of track, then a name, perhaps with a variant.
fn codec(id: &str) -> Option<String> {
    let id = id.trim_end_matches('\0');
    let known = match id {
        "V_MPEG4/ISO/AVC" => "h264",
        "V_MPEGH/ISO/HEVC" => "h265",
        "V_VP8" => "vp8",
        "V_VP9" => "vp9",
        "V_AV1" => "av1",
        "A_OPUS" => "opus",
        "A_VORBIS" => "vorbis",
        "A_MPEG/L3" => "mp3",
        "A_FLAC" => "flac",
        _ if id.starts_with("A_AAC") => "aac",
        _ => id,
    };
    let is_name = !known.is_empty() && known.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| known.to_owned())
}
