//! The ISO base media format (MP4, `QuickTime`, 3GP, HEIC, AVIF): boxes in boxes, each with its length and kind.
//!
//! A file is whole if its top-level boxes end where it does, and the index (`moov`, or `meta` for pictures) and the
//! samples (`mdat`) are among them. Nothing says how many fragments (`moof`) there are, unless a segment index (`sidx`)
//! does.

use std::io::{Read, Seek};

use super::window::Window;
use super::{Facts, Flaw};

mod fragments;

/// Box lengths that stand for something else.
const TO_THE_END: u32 = 0;
const LONG_LENGTH_FOLLOWS: u32 = 1;

/// Bytes of one entry of a segment index.
const REFERENCE_BYTES: u64 = 12;

/// How many fragments are remembered from either end: a track may have none in the very first or last.
const FEW: usize = 8;

/// Looks through the file.
pub(super) fn read<R: Read + Seek>(file: &mut Window<R>, facts: &mut Facts) -> Result<(), Flaw> {
    let layout = Layout::of(file)?;
    if let Some(movie) = layout.movie {
        let (moov, movie) = (movie, Movie::of(file, movie)?);
        movie.tell(facts);
        if let Some((ticks, timescale)) = unless_odd(duration(file, &layout, moov, &movie))? {
            facts.play(ticks, timescale.into());
        }
        Ok(())
    } else if let Some(picture) = layout.picture {
        let (width, height) = picture_size(file, picture)?;
        facts.show(width, height);
        Ok(())
    } else {
        Err(Flaw::Truncated("its index (moov) is missing".to_owned()))
    }
}

/// What is told of a file that is whole: where that cannot be read it is not known, which is no reason to refuse the file.
fn unless_odd<T>(told: Result<T, Flaw>) -> Result<Option<T>, Flaw> {
    match told {
        Ok(told) => Ok(Some(told)),
        Err(Flaw::Malformed(_) | Flaw::Truncated(_)) => Ok(None),
        Err(unreadable @ Flaw::Unreadable(_)) => Err(unreadable),
    }
}

/// How long it plays, and in which units: by a count of all fragments, else by the fragments, else by the index alone.
fn duration<R: Read + Seek>(
    file: &mut Window<R>,
    layout: &Layout,
    moov: Atom,
    movie: &Movie,
) -> Result<(u64, u32), Flaw> {
    let (own, segments) = (movie.duration.unwrap_or(0), &layout.segments);
    if let Some(ticks) = movie.with_fragments.filter(|ticks| *ticks > 0) {
        return Ok((ticks, movie.timescale));
    }
    if segments.ticks > 0 {
        return Ok((segments.ticks, segments.timescale));
    }
    if let Some(track) = movie.main()
        && let Some((begin, end)) = fragments::span(file, moov, &layout.fragments, track)?
    {
        // What the index itself has comes first, from zero on.
        let begin = if own > 0 { 0 } else { begin };
        return Ok((end.saturating_sub(begin), track.timescale));
    }
    Ok((own, movie.timescale))
}

/// A box, without its head.
#[derive(Debug, Clone, Copy)]
struct Atom {
    kind: [u8; 4],
    content: u64,
    end: u64,
}

impl Atom {
    /// The box at a place; one without a length ends at `limit`. Its end may lie anywhere behind.
    fn at<R: Read + Seek>(file: &mut Window<R>, at: u64, limit: u64) -> Result<Self, Flaw> {
        file.count_part()?;
        let [a, b, c, d, kind @ ..] = file.array::<8>(at)?;
        let (head, length) = match u32::from_be_bytes([a, b, c, d]) {
            TO_THE_END => (8, limit - at),
            LONG_LENGTH_FOLLOWS => (16, u64::from_be_bytes(file.array(at + 8)?)),
            length => (8, length.into()),
        };
        let atom = Self {
            kind,
            content: at + head,
            end: at.saturating_add(length),
        };
        if length < head {
            return Err(Flaw::Malformed(format!(
                "its {} is shorter than its head",
                atom.name()
            )));
        }
        Ok(atom)
    }

    fn name(&self) -> String {
        format!("{} box", self.kind.escape_ascii())
    }

    fn children(&self) -> Children {
        self.children_from(0)
    }

    /// The boxes after some fields.
    fn children_from(&self, offset: u64) -> Children {
        Children {
            at: self.content.saturating_add(offset).min(self.end),
            limit: self.end,
        }
    }

    /// The first child of a kind.
    fn child<R: Read + Seek>(&self, file: &mut Window<R>, kind: [u8; 4]) -> Result<Option<Self>, Flaw> {
        let mut children = self.children();
        while let Some(child) = children.next(file)? {
            if child.kind == kind {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// A field of it.
    fn field<R: Read + Seek, const N: usize>(
        &self,
        file: &mut Window<R>,
        offset: u64,
    ) -> Result<[u8; N], Flaw> {
        let at = self.content.saturating_add(offset);
        if at.saturating_add(N as u64) > self.end {
            return Err(Flaw::Malformed(format!("its {} is too short", self.name())));
        }
        file.array(at)
    }

    fn u16<R: Read + Seek>(&self, file: &mut Window<R>, offset: u64) -> Result<u16, Flaw> {
        Ok(u16::from_be_bytes(self.field(file, offset)?))
    }

    fn u32<R: Read + Seek>(&self, file: &mut Window<R>, offset: u64) -> Result<u32, Flaw> {
        Ok(u32::from_be_bytes(self.field(file, offset)?))
    }

    fn u64<R: Read + Seek>(&self, file: &mut Window<R>, offset: u64) -> Result<u64, Flaw> {
        Ok(u64::from_be_bytes(self.field(file, offset)?))
    }

    /// Whether its fields are the wide ones. Version 1 of a box differs from version 0 in nothing else here.
    fn is_wide<R: Read + Seek>(&self, file: &mut Window<R>) -> Result<bool, Flaw> {
        let [version] = self.field(file, 0)?;
        Ok(version == 1)
    }

    /// A time, which is wide or not; all ones say that it is not known.
    fn time<R: Read + Seek>(
        &self,
        file: &mut Window<R>,
        offset: u64,
        is_wide: bool,
    ) -> Result<Option<u64>, Flaw> {
        Ok(if is_wide {
            Some(self.u64(file, offset)?).filter(|time| *time != u64::MAX)
        } else {
            let time = self.u32(file, offset)?;
            (time != u32::MAX).then_some(time.into())
        })
    }
}

/// The boxes inside a box that are still to come.
#[derive(Debug)]
struct Children {
    at: u64,
    limit: u64,
}

impl Children {
    fn next<R: Read + Seek>(&mut self, file: &mut Window<R>) -> Result<Option<Atom>, Flaw> {
        // `QuickTime` may end a list of boxes with four zero bytes.
        if self.limit - self.at < 8 {
            return Ok(None);
        }
        let child = Atom::at(file, self.at, self.limit)?;
        if child.end > self.limit {
            let name = child.name();
            return Err(Flaw::Malformed(format!(
                "its {name} is larger than the box around it"
            )));
        }
        self.at = child.end;
        Ok(Some(child))
    }
}

/// What lies at the top level.
#[derive(Debug, Default)]
struct Layout {
    /// The `moov` box.
    movie: Option<Atom>,
    /// The `meta` box.
    picture: Option<Atom>,
    has_samples: bool,
    /// The first and the last few `moof` boxes.
    fragments: Vec<Atom>,
    segments: Segments,
}

impl Layout {
    fn of<R: Read + Seek>(file: &mut Window<R>) -> Result<Self, Flaw> {
        let (mut layout, mut at, length) = (Self::default(), 0, file.length());
        while at < length {
            if !layout.goes_on_at(file, at)? {
                break;
            }
            let atom = match Atom::at(file, at, length) {
                Err(Flaw::Malformed(_)) if layout.is_complete() => break,
                atom => atom?,
            };
            if atom.end > length {
                if layout.is_complete() && !is_of_a_movie(atom.kind) {
                    break;
                }
                return Err(Flaw::past_the_end(&atom.name(), atom.end, length));
            }
            layout.note(file, atom)?;
            at = atom.end;
        }
        if let (None, Some(picture)) = (layout.movie, layout.picture) {
            // Small pictures lie inside.
            let mut children = picture.children_from(4);
            while let Some(child) = children.next(file)? {
                layout.has_samples |= child.kind == *b"idat";
            }
        }
        if !layout.is_complete() {
            let missing = if layout.has_index() {
                "samples (mdat)"
            } else {
                "index (moov)"
            };
            return Err(Flaw::Truncated(format!("its {missing} is missing")));
        }
        Ok(layout)
    }

    fn note<R: Read + Seek>(&mut self, file: &mut Window<R>, atom: Atom) -> Result<(), Flaw> {
        match &atom.kind {
            b"moov" => {
                self.movie.get_or_insert(atom);
            }
            b"meta" => {
                self.picture.get_or_insert(atom);
            }
            b"mdat" => self.has_samples = true,
            b"moof" => {
                self.fragments.push(atom);
                if self.fragments.len() > 2 * FEW {
                    self.fragments.remove(FEW);
                }
            }
            b"sidx" => match self.segments.add(file, atom) {
                Err(Flaw::Malformed(_)) => self.segments.ticks = 0,
                added => added?,
            },
            _ => {}
        }
        Ok(())
    }

    fn has_index(&self) -> bool {
        self.movie.is_some() || self.picture.is_some()
    }

    fn is_complete(&self) -> bool {
        self.has_index() && self.has_samples
    }

    /// Whether a box may begin here. What follows a complete file and is no box is padding, or somebody's addition that
    /// players ignore; before that it is a flaw.
    fn goes_on_at<R: Read + Seek>(&self, file: &mut Window<R>, at: u64) -> Result<bool, Flaw> {
        let is_box = match file.bytes(at, 8)? {
            &[_, _, _, _, a, b, c, d] => [a, b, c, d].into_iter().all(is_plausible),
            rest => {
                // A torn head; of fragments more may have followed.
                let is_padding = rest.iter().all(|byte| *byte == 0);
                if self.is_complete() && (is_padding || self.fragments.is_empty()) {
                    return Ok(false);
                }
                return Err(Flaw::Truncated("it ends in the head of a box".to_owned()));
            }
        };
        if is_box || self.is_complete() {
            return Ok(is_box);
        }
        if file.bytes(at, 8)?.iter().all(|byte| *byte == 0) {
            // Room that was reserved and never filled.
            return Err(Flaw::Truncated(format!("from byte {at} on it is empty")));
        }
        Err(Flaw::Malformed(format!("there is no box at byte {at}")))
    }
}

/// Whether a box of this kind is one of those that a file is made of: cut, it says that the file is. Other kinds that seem
/// to lie behind a complete file may as well be text.
fn is_of_a_movie(kind: [u8; 4]) -> bool {
    matches!(
        &kind,
        b"ftyp"
            | b"styp"
            | b"moov"
            | b"mdat"
            | b"moof"
            | b"mfra"
            | b"meta"
            | b"sidx"
            | b"ssix"
            | b"emsg"
            | b"prft"
            | b"uuid"
            | b"udta"
            | b"free"
            | b"skip"
            | b"wide"
    )
}

/// Kinds are printable; Apple's may begin with a copyright sign.
fn is_plausible(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) || byte == 0xa9
}

/// What the segment indices say.
#[derive(Debug, Default)]
struct Segments {
    /// The stream that is counted: the first one that has an index.
    stream: Option<u32>,
    /// An index of indices: it counts all there is.
    is_whole: bool,
    ticks: u64,
    timescale: u32,
}

impl Segments {
    fn add<R: Read + Seek>(&mut self, file: &mut Window<R>, index: Atom) -> Result<(), Flaw> {
        let (stream, timescale) = (index.u32(file, 4)?, index.u32(file, 8)?);
        let (first_offset, list) = if index.is_wide(file)? {
            (index.u64(file, 20)?, 28)
        } else {
            (index.u32(file, 16)?.into(), 20)
        };
        let count = index.u16(file, list + 2)?;
        let (mut end, mut ticks, mut is_whole) = (index.end.saturating_add(first_offset), 0_u64, false);
        for n in 0..u64::from(count) {
            let [a, b, c, d, duration @ ..] = index.field::<R, 8>(file, list + 4 + n * REFERENCE_BYTES)?;
            let reference = u32::from_be_bytes([a, b, c, d]);
            is_whole |= reference >> 31 == 1;
            end = end.saturating_add((reference & 0x7fff_ffff).into());
            ticks = ticks.saturating_add(u32::from_be_bytes(duration).into());
        }
        if end > file.length() {
            return Err(Flaw::past_the_end("segments", end, file.length()));
        }
        if self.stream.is_none() {
            (self.stream, self.timescale, self.is_whole) = (Some(stream), timescale, is_whole);
            self.ticks = ticks;
        } else if self.stream == Some(stream) && !self.is_whole {
            self.ticks = self.ticks.saturating_add(ticks);
        }
        Ok(())
    }
}

/// What the `moov` box says.
#[derive(Debug, Default)]
struct Movie {
    timescale: u32,
    duration: Option<u64>,
    /// With all fragments, if somebody knew when it was written.
    with_fragments: Option<u64>,
    video: Option<Track>,
    sound: Option<Track>,
}

impl Movie {
    fn of<R: Read + Seek>(file: &mut Window<R>, moov: Atom) -> Result<Self, Flaw> {
        let (mut movie, mut has_head) = (Self::default(), false);
        let mut children = moov.children();
        while let Some(child) = children.next(file)? {
            match &child.kind {
                b"mvhd" => {
                    has_head = true;
                    let is_wide = child.is_wide(file)?;
                    let at = if is_wide { 20 } else { 12 };
                    movie.timescale = child.u32(file, at)?;
                    movie.duration = child.time(file, at + 4, is_wide)?;
                }
                // An index that was compressed, as QuickTime could: whole, but not to be read.
                b"cmov" => has_head = true,
                b"trak" => movie.add(Track::of(file, child)?),
                b"mvex" => {
                    if let Some(extent) = child.child(file, *b"mehd")? {
                        let told = extent
                            .is_wide(file)
                            .and_then(|is_wide| extent.time(file, 4, is_wide));
                        movie.with_fragments = unless_odd(told)?.flatten();
                    }
                }
                _ => {}
            }
        }
        if !has_head {
            return Err(Flaw::Malformed("its index (moov) has no head".to_owned()));
        }
        Ok(movie)
    }

    /// Only the first track of a kind counts: later ones are previews, or other languages.
    fn add(&mut self, track: Track) {
        if is_picture(track.handler) {
            self.video.get_or_insert(track);
        } else if track.handler == *b"soun" {
            self.sound.get_or_insert(track);
        }
    }

    fn tell(&self, facts: &mut Facts) {
        if let Some(video) = &self.video {
            let (width, height) = video.shown();
            facts.show(width, height);
        }
        facts.codec = self.main().and_then(|track| codec(track.encoding?));
    }

    fn main(&self) -> Option<&Track> {
        self.video.as_ref().or(self.sound.as_ref())
    }
}

/// One of video, sound or something else.
#[derive(Debug, Default)]
struct Track {
    id: u32,
    /// Its units of time in a second.
    timescale: u32,
    handler: [u8; 4],
    /// The kind of its first sample entry.
    encoding: Option<[u8; 4]>,
    /// As the samples are encoded.
    coded: (u32, u32),
    /// As it is to be shown.
    presented: (u32, u32),
    /// By a quarter or three.
    is_rotated: bool,
}

impl Track {
    fn of<R: Read + Seek>(file: &mut Window<R>, atom: Atom) -> Result<Self, Flaw> {
        let mut track = Self::default();
        let mut children = atom.children();
        while let Some(child) = children.next(file)? {
            match &child.kind {
                b"tkhd" => track.read_head(file, child)?,
                b"mdia" => track.read_media(file, child)?,
                _ => {}
            }
        }
        Ok(track)
    }

    fn read_head<R: Read + Seek>(&mut self, file: &mut Window<R>, tkhd: Atom) -> Result<(), Flaw> {
        let (id, matrix) = if tkhd.is_wide(file)? { (20, 52) } else { (12, 40) };
        self.id = tkhd.u32(file, id)?;
        let (a, b) = (tkhd.u32(file, matrix)?, tkhd.u32(file, matrix + 4)?);
        let (c, d) = (tkhd.u32(file, matrix + 12)?, tkhd.u32(file, matrix + 16)?);
        self.is_rotated = a == 0 && d == 0 && b != 0 && c != 0;
        // Fixed point, with 16 bits for parts of a pixel.
        self.presented = (
            tkhd.u32(file, matrix + 36)? >> 16,
            tkhd.u32(file, matrix + 40)? >> 16,
        );
        Ok(())
    }

    fn read_media<R: Read + Seek>(&mut self, file: &mut Window<R>, mdia: Atom) -> Result<(), Flaw> {
        if let Some(handler) = mdia.child(file, *b"hdlr")? {
            self.handler = handler.field(file, 8)?;
        }
        if let Some(head) = mdia.child(file, *b"mdhd")? {
            let timescale = if head.is_wide(file)? { 20 } else { 12 };
            self.timescale = head.u32(file, timescale)?;
        }
        let mut description = Some(mdia);
        for kind in [*b"minf", *b"stbl", *b"stsd"] {
            description = match description {
                Some(parent) => parent.child(file, kind)?,
                None => None,
            };
        }
        let Some(description) = description else {
            return Ok(());
        };
        // After version, flags and a count.
        let Some(entry) = description.children_from(8).next(file)? else {
            return Ok(());
        };
        self.encoding = Some(entry.kind);
        if is_picture(self.handler) {
            self.coded = (entry.u16(file, 24)?.into(), entry.u16(file, 26)?.into());
        }
        Ok(())
    }

    fn shown(&self) -> (u32, u32) {
        let (width, height) = if self.coded == (0, 0) {
            self.presented
        } else {
            self.coded
        };
        if self.is_rotated {
            (height, width)
        } else {
            (width, height)
        }
    }
}

/// Video, or a sequence of still pictures.
fn is_picture(handler: [u8; 4]) -> bool {
    matches!(&handler, b"vide" | b"pict")
}

/// The usual name of an encoding.
fn codec(encoding: [u8; 4]) -> Option<String> {
    let known = match &encoding {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" => "h264",
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => "h265",
        b"vvc1" | b"vvi1" => "h266",
        b"av01" => "av1",
        b"vp08" => "vp8",
        b"vp09" => "vp9",
        b"mp4v" => "mpeg4",
        b"mp4a" => "aac",
        b".mp3" => "mp3",
        b"Opus" => "opus",
        b"fLaC" => "flac",
        b"ac-3" => "ac3",
        b"ec-3" => "eac3",
        other => {
            let name = std::str::from_utf8(other).ok()?.trim();
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            return is_name.then(|| name.to_owned());
        }
    };
    Some(known.to_owned())
}

/// The largest of the sizes that are listed: that of the picture, others are of its tiles and its preview.
fn picture_size<R: Read + Seek>(file: &mut Window<R>, meta: Atom) -> Result<(u32, u32), Flaw> {
    let mut largest = (0, 0);
    let mut children = meta.children_from(4);
    while let Some(child) = children.next(file)? {
        if child.kind != *b"iprp" {
            continue;
        }
        let Some(container) = child.child(file, *b"ipco")? else {
            continue;
        };
        let mut properties = container.children();
        while let Some(property) = properties.next(file)? {
            if property.kind == *b"ispe" {
                let size = (property.u32(file, 4)?, property.u32(file, 8)?);
                let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
                if area(size) > area(largest) {
                    largest = size;
                }
            }
        }
    }
    Ok(largest)
}
