//! Whole files are told from cut and damaged ones, whoever made them.

use std::io::{Cursor, SeekFrom};

use proptest::prelude::*;

#[path = "../../tests/media/kinds.rs"]
mod kinds;

use super::files::{self, atom, mp4};
use super::*;

fn examined(file: &[u8]) -> Result<Option<Facts>, Flaw> {
    examine(Cursor::new(file), file.len() as u64)
}

#[track_caller]
fn facts(file: &[u8]) -> Facts {
    examined(file).expect("no flaw").expect("known")
}

/// Duration in milliseconds, width, height, codec.
fn shape(file: &[u8]) -> (Option<u64>, Option<u32>, Option<u32>, Option<String>) {
    let facts = facts(file);
    (facts.duration_ms, facts.width, facts.height, facts.codec)
}

#[track_caller]
fn assert_truncated(file: &[u8], what: &str) {
    let flaw = examined(file);
    assert!(matches!(flaw, Err(Flaw::Truncated(_))), "{what}: {flaw:?}");
}

#[track_caller]
fn assert_malformed(file: &[u8], what: &str) {
    let flaw = examined(file);
    assert!(matches!(flaw, Err(Flaw::Malformed(_))), "{what}: {flaw:?}");
}

fn fragments_with_extent() -> Vec<u8> {
    kinds::fragments(&kinds::extent(), |_| Vec::new())
}

fn fragments_with_index() -> Vec<u8> {
    kinds::fragments(&[], kinds::segment_index)
}

fn fragments_alone() -> Vec<u8> {
    kinds::fragments(&[], |_| Vec::new())
}

/// Each kind that is looked through: its extension, and what it tells beside its size.
#[test]
fn a_whole_file_tells_how_long_and_how_large_it_plays() {
    let (two, sized, none) = (Some(2_000), (Some(320), Some(180)), (None, None));
    for (file, extension, duration_ms, (width, height), codec) in [
        (kinds::index_first(), "mp4", two, sized, Some("h264")),
        (kinds::index_last(), "mp4", two, sized, Some("h264")),
        (fragments_with_extent(), "mp4", two, sized, Some("h264")),
        (fragments_with_index(), "mp4", two, sized, Some("h264")),
        (fragments_alone(), "mp4", two, sized, Some("h264")),
        (kinds::avif(), "avif", None, sized, None),
        (kinds::webm(), "webm", two, sized, Some("vp9")),
        (kinds::live_webm(), "webm", None, sized, Some("vp9")),
        (kinds::jpeg(), "jpg", None, sized, None),
        (kinds::png(), "png", None, sized, None),
        (kinds::gif(), "gif", None, sized, None),
        (kinds::webp(), "webp", None, sized, None),
        (kinds::lossy_webp(), "webp", None, sized, None),
        (kinds::moving_webp(), "webp", two, sized, None),
        (kinds::wav(), "wav", two, none, Some("pcm")),
        (kinds::mp3(4), "mp3", Some(104), none, Some("mp3")),
        (kinds::noted_mp3(77), "mp3", Some(2_011), none, Some("mp3")),
        (kinds::flac(), "flac", two, none, Some("flac")),
    ] {
        assert_eq!(facts(&file).extension, extension);
        let expected = (duration_ms, width, height, codec.map(str::to_owned));
        assert_eq!(shape(&file), expected, "{extension}");
    }
}

#[test]
fn the_sample_and_the_files_of_the_tests_are_whole() {
    let sample = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sample.mp4")).unwrap();
    let h264 = Some("h264".to_owned());
    assert_eq!(shape(&sample), (Some(2_000), Some(320), Some(180), h264.clone()));
    for length in [700, 1_001, 70_000] {
        let file = mp4(3, length);
        assert_eq!(file.len(), length);
        assert_eq!(shape(&file), (Some(8_000), Some(1280), Some(720), h264.clone()));
    }
}

#[test]
fn a_file_cut_anywhere_is_not_whole() {
    for (name, file) in [
        ("index first", kinds::index_first()),
        ("index last", kinds::index_last()),
        ("segments", fragments_with_index()),
        ("avif", kinds::avif()),
        ("webm", kinds::webm()),
        ("jpeg", kinds::jpeg()),
        ("png", kinds::png()),
        ("gif", kinds::gif()),
        ("webp", kinds::webp()),
        ("moving webp", kinds::moving_webp()),
        ("wav", kinds::wav()),
    ] {
        for cut in 1..file.len() {
            let cut_off = &file[..cut];
            // The kind of a file stands in its first twelve bytes at most.
            if cut < 12 && matches!(examined(cut_off), Ok(None)) {
                continue;
            }
            assert_truncated(
                cut_off,
                &format!("{name} cut after {cut} of {} bytes", file.len()),
            );
        }
    }
}

#[test]
fn a_stream_cut_inside_an_element_is_not_whole() {
    let live = kinds::live_webm();
    for cut in live.len() - 150..live.len() {
        assert_truncated(&live[..cut], &format!("after {cut}"));
    }
    let noted = kinds::noted_mp3(77);
    assert_truncated(&noted[..noted.len() - 129], "more than a tag is missing");
    assert_truncated(&noted[..100], "inside the tag");
    assert_truncated(&kinds::mp3(1)[..416], "inside the first frame");
    let flac = kinds::flac();
    assert_truncated(&flac[..40], "inside the facts");
}

#[test]
fn what_goes_on_otherwise_than_it_began_is_damaged() {
    let noise = |head: &[u8]| {
        let mut file = head.to_vec();
        files::extend_with_noise(&mut file, 0xf1, 80_000);
        file
    };
    for (name, head) in [
        ("mp4", &b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"[..]),
        ("mp4 with an index", b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x20moov"),
        ("webm", b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm\0"),
        ("png", b"\x89PNG\r\n\x1a\n"),
        ("jpeg", b"\xff\xd8\xff\xe0\0\x04\0\0"),
        ("webp", b"RIFF\x40\0\0\0WEBPVP9 \x10\0\0\0"),
        ("wav", b"RIFF\x40\0\0\0WAVEfmt \xff\xff\0\0"),
        ("mp3", b"ID3\x04\0\0\0\0\0\0"),
        ("flac", b"fLaC\x01\0\0\x22"),
    ] {
        assert_malformed(&noise(head), name);
    }
    let file = kinds::index_first();
    let place = |kind: &[u8]| file.windows(4).position(|four| four == kind).unwrap();
    for kind in [&b"mvhd"[..], b"trak", b"tkhd", b"hdlr", b"stsd", b"avc1"] {
        let mut larger = file.clone();
        larger[place(kind) - 3] = 0x10;
        assert_malformed(&larger, "larger than the box around it");
        let mut shorter = file.clone();
        shorter[place(kind) - 4..place(kind)].copy_from_slice(&[0, 0, 0, 7]);
        assert_malformed(&shorter, "shorter than its head");
    }
}

#[test]
fn what_players_put_up_with_passes() {
    let file = kinds::index_first();
    let [brand, index, samples] = kinds::boxes(&file)[..] else {
        panic!("three boxes");
    };
    let long = [b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x18", &[7; 8][..]].concat();
    let to_the_end = [b"\0\0\0\0mdat", &samples[8..]].concat();
    let unheard_of = atom(*b"\xa9xyz", &[&[7; 20]]);
    // A list in QuickTime's way, with zeros at its end.
    let listed = atom(*b"moov", &[&index[8..], &atom(*b"udta", &[&[0; 4]]), &[0; 4]]);
    for (name, parts) in [
        ("a long length", [brand, index, &long].concat()),
        ("samples to the end", [brand, index, &to_the_end].concat()),
        ("no brand", [index, samples].concat()),
        (
            "unheard-of boxes",
            [brand, &unheard_of, index, samples, &unheard_of].concat(),
        ),
        ("zeros in a list", [brand, &listed, samples].concat()),
        ("padding", [file.as_slice(), &[0; 77]].concat()),
        ("a few zeros", [file.as_slice(), &[0; 3]].concat()),
        ("an end of line", [file.as_slice(), b"\r\n"].concat()),
        ("an addition", [file.as_slice(), &[0xfe; 99]].concat()),
        (
            "an addition to WebM",
            [kinds::webm().as_slice(), &[0; 99]].concat(),
        ),
        (
            "padding of a stream",
            [kinds::live_webm().as_slice(), &[0; 99]].concat(),
        ),
        ("a film after a JPEG", [kinds::jpeg().as_slice(), &file].concat()),
        ("an addition to PNG", [kinds::png().as_slice(), b"more"].concat()),
        ("padding of GIF", [kinds::gif().as_slice(), b"\r\n\0\0"].concat()),
        ("an addition to WAV", [kinds::wav().as_slice(), b"more"].concat()),
        (
            "a tag after MP3",
            [&kinds::mp3(2)[..], b"TAG", &[0; 125]].concat(),
        ),
    ] {
        let found = examined(&parts);
        assert!(matches!(found, Ok(Some(_))), "{name}: {found:?}");
    }
    let empty_later = [brand, samples, &[0; 4_000]].concat();
    assert_truncated(&empty_later, "room for an index that never came");
}

#[test]
fn what_lies_behind_a_tag_is_told_by_its_own_first_bytes() {
    let tag = b"ID3\x04\0\0\0\0\0\x05title".as_slice();
    let flac = [tag, &kinds::flac()].concat();
    assert_eq!(facts(&flac).extension, "flac");
    assert_eq!(shape(&flac), shape(&kinds::flac()));
    assert_truncated(&flac[..50], "inside the facts");
    let aac = [tag, b"\xff\xf1\x50\x80\x02\x1f\xfc", &[0x21; 90]].concat();
    let known = facts(&aac);
    assert_eq!((known.extension, known.content_type), ("aac", "audio/aac"));
}

#[test]
fn a_wav_is_as_long_as_its_samples_whatever_else_it_announces() {
    let file = kinds::wav();
    let data = file.windows(4).position(|four| four == b"data").unwrap() + 4;
    let (whole, samples) = (u32::try_from(file.len()).unwrap() - 8, 1_000);
    for (name, riff, announced) in [
        ("streams of the largest signed number", 0x7fff_ffff, 0x7fff_ffda),
        ("streams, rounded", 0x7fff_0024, 0x7fff_0000),
        ("a whole of known length and samples of none", whole, u32::MAX),
        ("a whole of known length and no samples yet", whole, 0),
        ("neither known", 0, 0),
        ("a whole that counts its head", whole + 8, samples),
        ("a whole that counts nothing but its head", 36, samples),
    ] {
        let mut changed = file.clone();
        changed[4..8].copy_from_slice(&u32::to_le_bytes(riff));
        changed[data..data + 4].copy_from_slice(&u32::to_le_bytes(announced));
        assert_eq!(facts(&changed).duration_ms, Some(2_000), "{name}");
    }
    let mut changed = file.clone();
    changed[4..8].copy_from_slice(&(whole + 8).to_le_bytes());
    for cut in 1..900 {
        assert_truncated(&changed[..file.len() - cut], "its samples are cut");
    }
}

#[test]
fn text_behind_a_complete_movie_is_no_part_of_it() {
    for file in [kinds::index_first(), kinds::index_last(), fragments_alone()] {
        for addition in [
            "Made with care, and with tools.",
            "\0\0\0\x04text",
            "\0\0\x10\0abcd",
        ] {
            let added = [&file, addition.as_bytes()].concat();
            assert_eq!(shape(&added), shape(&file), "{addition}");
        }
        let cut = [&file, &b"\0\0\x10\0moof"[..], &[0; 99]].concat();
        assert_truncated(&cut, "a fragment");
    }
}

#[test]
fn what_is_odd_about_times_leaves_the_duration_out() {
    let run = |file: &[u8]| file.windows(4).rposition(|four| four == b"trun").unwrap();
    let mut too_many_samples = fragments_alone();
    let place = run(&too_many_samples);
    too_many_samples[place + 8..place + 12].copy_from_slice(b"\0\0\xff\xff");
    assert_eq!(facts(&too_many_samples).duration_ms, None);
    let mut too_large = fragments_alone();
    let place = run(&too_large);
    too_large[place - 4] = 0x7f;
    assert_eq!(facts(&too_large).duration_ms, None);
    assert_eq!(facts(&too_large).width, Some(320));
    let odd_index = kinds::fragments(&[], |_| atom(*b"sidx", &[&[0; 12]]));
    assert_eq!(facts(&odd_index).duration_ms, Some(2_000), "the fragments tell");
}

#[test]
fn encrypted_video_passes_under_the_name_it_has() {
    let mut file = kinds::index_first();
    let place = file.windows(4).position(|four| four == b"avc1").unwrap();
    file[place..place + 4].copy_from_slice(b"encv");
    assert_eq!(facts(&file).codec.as_deref(), Some("encv"));
}

#[test]
fn a_sequence_of_pictures_is_one_that_plays() {
    let mut file = kinds::index_first();
    file[8..12].copy_from_slice(b"avis");
    let handler = file.windows(4).position(|four| four == b"vide").unwrap();
    file[handler..handler + 4].copy_from_slice(b"pict");
    let facts = facts(&file);
    assert_eq!((facts.extension, facts.duration_ms), ("avif", Some(2_000)));
    assert_eq!((facts.width, facts.height), (Some(320), Some(180)));
}

#[test]
fn a_rotated_video_is_as_large_as_it_is_shown() {
    let mut file = kinds::index_first();
    let matrix = file.windows(4).position(|four| four == b"tkhd").unwrap() + 4 + 40;
    let one = 0x0001_0000_i32;
    for (n, value) in [0, one, 0, -one, 0].into_iter().enumerate() {
        file[matrix + 4 * n..][..4].copy_from_slice(&value.to_be_bytes());
    }
    let facts = facts(&file);
    assert_eq!((facts.width, facts.height), (Some(180), Some(320)));
}

#[test]
fn the_last_fragment_need_not_have_the_video() {
    let other = atom(*b"tfhd", &[b"\0\0\0\0\0\0\0\x07"]);
    let sound = atom(*b"moof", &[&atom(*b"traf", &[&other])]);
    let file = [fragments_alone(), sound].concat();
    assert_eq!(facts(&file).duration_ms, Some(2_000));
}

#[test]
fn a_wav_from_a_pipe_plays_as_long_as_it_is() {
    let mut file = kinds::wav();
    let data = file.windows(4).position(|four| four == b"data").unwrap();
    file[4..8].fill(0xff);
    file[data + 4..data + 8].fill(0xff);
    assert_eq!(facts(&file).duration_ms, Some(2_000));
    assert_truncated(&file[..data], "without samples");
}

#[test]
fn lengths_beyond_all_measure_are_cut_off() {
    let brand = b"\0\0\0\x10ftypisom\0\0\0\0".as_slice();
    for length in [u64::MAX, u64::MAX - 15, 1 << 63] {
        let long = [brand, b"\0\0\0\x01mdat", &length.to_be_bytes(), &[0; 9]].concat();
        assert_truncated(&long, "a box");
    }
    let head = b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm".as_slice();
    let long = [head, b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xfe"].concat();
    assert_truncated(&long, "an element");
}

/// Four gibibytes that say the same over and over.
struct Endless {
    head: Vec<u8>,
    pattern: &'static [u8],
    at: u64,
    reads: u64,
}

const ENDLESS: u64 = 4 << 30;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        for byte in &mut *buffer {
            let at = usize::try_from(self.at).unwrap();
            *byte = match self.head.get(at) {
                Some(byte) => *byte,
                None => self.pattern[(at - self.head.len()) % self.pattern.len()],
            };
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.at = at;
        Ok(at)
    }
}

#[test]
fn endless_parts_come_to_an_end() {
    let brand = b"\0\0\0\x10ftypisom\0\0\0\0".as_slice();
    let webm =
        b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff".as_slice();
    let png = &kinds::png()[..33];
    for (name, head, pattern) in [
        ("boxes", brand, b"\0\0\0\x08free".as_slice()),
        (
            "boxes in an index",
            &[brand, b"\0\0\0\x08mdat\xff\xff\xff\xe0moov"].concat(),
            b"\0\0\0\x08trak",
        ),
        ("elements", webm, b"\xec\x80"),
        (
            "clusters without an end",
            webm,
            b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("chunks", png, b"\0\0\0\0tEXt\0\0\0\0"),
        ("tags", b"ID3\x04\0\0\0\0\0\0", b"ID3\x04\0\0\0\0\0\0"),
        ("markers", b"\xff\xd8", b"\xff\xff"),
        ("blocks", b"fLaC\0\0\0\x22", &[0]),
    ] {
        let mut file = Endless {
            head: head.to_vec(),
            pattern,
            at: 0,
            reads: 0,
        };
        let flaw = examine(&mut file, ENDLESS);
        assert!(
            matches!(&flaw, Err(Flaw::Malformed(why)) if why.contains("parts")),
            "{name}: {flaw:?}"
        );
        assert!(file.reads < 20_000, "{name}: read {} times", file.reads);
    }
}

#[test]
fn a_stream_of_very_many_blocks_is_accepted() {
    let (live, more) = (kinds::live_webm(), 200_000);
    // A segment with a length, too, whose clusters have none.
    let segment = live
        .windows(4)
        .position(|four| four == b"\x18\x53\x80\x67")
        .unwrap()
        + 4;
    for is_live in [true, false] {
        let mut file = live.clone();
        let block = b"\xa3\x85\x81\0\0\x80\x07";
        file.extend(block.repeat(3 * more));
        if !is_live {
            let length = (file.len() - segment - 8) as u64 | 1 << 56;
            file[segment..segment + 8].copy_from_slice(&length.to_be_bytes());
            file.extend([0; 99]);
        }
        assert_eq!(facts(&file).width, Some(320), "{is_live}");
    }
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        kinds::index_first(),
        kinds::index_last(),
        fragments_with_extent(),
        fragments_with_index(),
        fragments_alone(),
        kinds::avif(),
        kinds::webm(),
        kinds::live_webm(),
        kinds::jpeg(),
        kinds::png(),
        kinds::gif(),
        kinds::webp(),
        kinds::moving_webp(),
        kinds::wav(),
        kinds::mp3(4),
        kinds::noted_mp3(77),
        kinds::flac(),
    ])
}

/// Where, and with what bytes something is put in the place of so many others.
fn any_change() -> impl Strategy<Value = (prop::sample::Index, Vec<u8>, usize)> {
    let bytes = prop::collection::vec(prop::sample::select(vec![0, 1, 7, 8, 0x7f, 0x80, 0xff]), 0..9);
    (any::<prop::sample::Index>(), bytes, 0_usize..9)
}

proptest! {
    #[test]
    fn no_prefix_of_a_video_passes(seed: u64, length in 700_usize..40_000, cut: prop::sample::Index) {
        let file = mp4(seed, length);
        let cut = 8 + cut.index(length - 8);
        prop_assert!(matches!(examined(&file[..cut]), Err(Flaw::Truncated(_))), "{cut}");
    }

    #[test]
    fn no_change_leads_astray(file in any_file(), changes in prop::collection::vec(any_change(), 1..5)) {
        let mut changed = file;
        for (place, bytes, dropped) in changes {
            let from = place.index(changed.len().max(1)).min(changed.len());
            let to = (from + dropped).min(changed.len());
            changed.splice(from..to, bytes);
        }
        let found = examined(&changed);
        if let Ok(Some(facts)) = &found {
            prop_assert!(facts.width != Some(0) && facts.height != Some(0) && facts.duration_ms != Some(0));
        }
        prop_assert!(!matches!(found, Err(Flaw::Unreadable(_))));
    }
}
