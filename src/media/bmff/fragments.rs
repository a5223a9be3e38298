//! When a movie in fragments begins and ends, where no index says it.

use std::io::{Read, Seek};

use super::{Atom, Flaw, Track, Window};

/// What a fragment's head may leave out, or have in front of what is wanted.
const HAS_OFFSET: u32 = 0x01;
const HAS_DESCRIPTION: u32 = 0x02;
const HAS_DURATION: u32 = 0x08;

/// The same of a run of samples: before its list, and in each entry of it.
const RUN_HAS_OFFSET: u32 = 0x001;
const RUN_HAS_FIRST_FLAGS: u32 = 0x004;
const SAMPLES_HAVE_DURATION: u32 = 0x100;
const SAMPLE_FIELDS: u32 = 0xf00;

/// When a track begins in the first of these fragments that has it and ends in the last one, in its own units; `None` if
/// none has it, or they do not say when they begin.
pub(super) fn span<R: Read + Seek>(
    file: &mut Window<R>,
    moov: Atom,
    fragments: &[Atom],
    track: &Track,
) -> Result<Option<(u64, u64)>, Flaw> {
    let mut found: Option<(u64, u64)> = None;
    if fragments.is_empty() {
        return Ok(None);
    }
    let usual = usual_duration(file, moov, track.id)?;
    for fragment in fragments {
        if let Some((begin, end)) = times_of(file, *fragment, track.id, usual)? {
            found = Some((found.map_or(begin, |(first, _)| first), end));
        }
    }
    Ok(found)
}

/// Of a sample of the track, where its fragment does not say.
fn usual_duration<R: Read + Seek>(file: &mut Window<R>, moov: Atom, track: u32) -> Result<u32, Flaw> {
    let Some(extends) = moov.child(file, *b"mvex")? else {
        return Ok(0);
    };
    let mut children = extends.children();
    while let Some(child) = children.next(file)? {
        if child.kind == *b"trex" && child.u32(file, 4)? == track {
            return child.u32(file, 12);
        }
    }
    Ok(0)
}

/// When the track begins and ends in a fragment.
fn times_of<R: Read + Seek>(
    file: &mut Window<R>,
    moof: Atom,
    track: u32,
    mut usual: u32,
) -> Result<Option<(u64, u64)>, Flaw> {
    let mut fragments = moof.children();
    while let Some(fragment) = fragments.next(file)? {
        if fragment.kind != *b"traf" {
            continue;
        }
        let Some(head) = fragment.child(file, *b"tfhd")? else {
            continue;
        };
        if head.u32(file, 4)? != track {
            continue;
        }
        let flags = head.u32(file, 0)?;
        if flags & HAS_DURATION != 0 {
            let before = [(HAS_OFFSET, 8), (HAS_DESCRIPTION, 4)];
            usual = head.u32(file, 8 + taken(flags, before))?;
        }
        return times(file, fragment, usual);
    }
    Ok(None)
}

fn times<R: Read + Seek>(file: &mut Window<R>, traf: Atom, usual: u32) -> Result<Option<(u64, u64)>, Flaw> {
    let (mut begin, mut played) = (None, 0_u64);
    let mut children = traf.children();
    while let Some(child) = children.next(file)? {
        match &child.kind {
            b"tfdt" => {
                let is_wide = child.is_wide(file)?;
                begin = child.time(file, 4, is_wide)?;
            }
            b"trun" => played = played.saturating_add(run(file, child, usual)?),
            _ => {}
        }
    }
    Ok(begin.map(|begin| (begin, begin.saturating_add(played))))
}

/// How long the samples of a run play.
fn run<R: Read + Seek>(file: &mut Window<R>, trun: Atom, usual: u32) -> Result<u64, Flaw> {
    let (flags, samples) = (trun.u32(file, 0)?, trun.u32(file, 4)?);
    if flags & SAMPLES_HAVE_DURATION == 0 {
        return Ok(u64::from(samples) * u64::from(usual));
    }
    let list = 8 + taken(flags, [(RUN_HAS_OFFSET, 4), (RUN_HAS_FIRST_FLAGS, 4)]);
    let entry = 4 * u64::from((flags & SAMPLE_FIELDS).count_ones());
    let mut played = 0;
    for n in 0..u64::from(samples) {
        file.count_part()?;
        played += u64::from(trun.u32(file, list + n * entry)?);
    }
    Ok(played)
}

/// The bytes of those fields that are there.
fn taken(flags: u32, fields: [(u32, u64); 2]) -> u64 {
    let there = fields.iter().filter(|(flag, _)| flags & flag != 0);
    there.map(|(_, bytes)| bytes).sum()
}
