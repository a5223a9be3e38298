//! Small files of the kinds that are not MP4, and the odder ones of those that are. All of them are 320 by 180 where they
//! have a picture, and play 2 s where they have a time.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::super::files::{Video, atom, extend_with_noise, mp4_head};

const WIDTH: u16 = 320;
const HEIGHT: u16 = 180;
const VIDEO: Video = Video {
    width: WIDTH,
    height: HEIGHT,
    duration_ms: 2_000,
};

/// An MP4 of 900 bytes with its index in front.
pub(crate) fn index_first() -> Vec<u8> {
    let mut file = mp4_head(VIDEO, 900);
    extend_with_noise(&mut file, 1, 900);
    file
}

/// The boxes at the top level of an MP4.
pub(crate) fn boxes(file: &[u8]) -> Vec<&[u8]> {
    let (mut boxes, mut rest) = (Vec::new(), file);
    while let Some(length) = rest.first_chunk() {
        let (one, further) = rest.split_at(u32::from_be_bytes(*length).try_into().unwrap());
        boxes.push(one);
        rest = further;
    }
    boxes
}

/// An MP4 with its index behind the samples.
pub(crate) fn index_last() -> Vec<u8> {
    let file = index_first();
    let [brand, index, samples] = boxes(&file)[..] else {
        panic!("three boxes");
    };
    let place = index.windows(4).position(|four| four == b"stco").unwrap() + 12;
    let mut index = index.to_vec();
    let samples_at = u32::try_from(brand.len() + 8).unwrap();
    index[place..place + 4].copy_from_slice(&samples_at.to_be_bytes());
    [brand, samples, &index].concat()
}

/// An MP4 in two fragments of a second each, with something added to its `moov`, and before the fragments.
pub(crate) fn fragments(in_moov: &[u8], before: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let file = index_first();
    let [brand, index, _] = boxes(&file)[..] else {
        panic!("three boxes");
    };
    let mut index = index[8..].to_vec();
    // The duration of the whole, in its head.
    index[24..28].fill(0);
    let [first, last] = [5_000, 6_000].map(|begin| [moof(begin), atom(*b"mdat", &[&[7; 100]])].concat());
    let bytes = u32::try_from(first.len()).unwrap();
    let index = atom(*b"moov", &[&index, in_moov]);
    [brand, &index, &before(bytes), &first, &last].concat()
}

/// The head of a fragment that begins at a time in milliseconds and plays a second: four samples of 200 ms, and two of
/// their own lengths. A track of another kind comes first.
fn moof(begin: u32) -> Vec<u8> {
    let begin = begin.to_be_bytes();
    let other = atom(*b"tfhd", &[b"\0\0\0\0\0\0\0\x07"]);
    let head = atom(*b"tfhd", &[b"\0\x02\0\x2a\0\0\0\x01\0\0\0\x01\0\0\0\xc8\0\0\0\0"]);
    let usual = atom(*b"trun", &[b"\0\0\0\x01\0\0\0\x04\0\0\0\x64"]);
    let own = atom(
        *b"trun",
        &[
            b"\0\0\x03\x04\0\0\0\x02\0\0\0\0",
            b"\0\0\0\x96\0\0\0\x09",
            b"\0\0\0\x32\0\0\0\x09",
        ],
    );
    let time = atom(*b"tfdt", &[&[0; 4], &begin]);
    let tracks = [
        atom(*b"traf", &[&other, &time]),
        atom(*b"traf", &[&head, &time, &usual, &own]),
    ];
    atom(*b"moof", &[&atom(*b"mfhd", &[&[0; 8]]), &tracks.concat()])
}

/// The box in `moov` that says how long all fragments play.
pub(crate) fn extent() -> Vec<u8> {
    atom(*b"mvex", &[&atom(*b"mehd", &[&[0; 4], &2_000_u32.to_be_bytes()])])
}

/// An index of two segments of so many bytes, which play a second each.
pub(crate) fn segment_index(bytes: u32) -> Vec<u8> {
    let reference = [bytes.to_be_bytes(), 48_u32.to_be_bytes(), [0; 4]].concat();
    let (stream, timescale) = (1_u32.to_be_bytes(), 48_u32.to_be_bytes());
    let head = [&[0; 4], &stream[..], &timescale, &[0; 8], &[0, 0, 0, 2]].concat();
    atom(*b"sidx", &[&head, &reference, &reference])
}

/// A picture as phones take it: its sizes among its properties, its samples behind.
pub(crate) fn avif() -> Vec<u8> {
    let size = |width: u16, height: u16| {
        let (width, height) = (u32::from(width).to_be_bytes(), u32::from(height).to_be_bytes());
        atom(*b"ispe", &[&[0; 4], &width, &height])
    };
    let properties = atom(*b"ipco", &[&size(160, 90), &size(WIDTH, HEIGHT)]);
    let meta = atom(*b"meta", &[&[0; 4], &atom(*b"iprp", &[&properties])]);
    let samples = atom(*b"mdat", &[&[7; 100]]);
    [atom(*b"ftyp", &[b"avif\0\0\0\0mif1"]), meta, samples].concat()
}

/// A real PNG, of one colour.
pub(crate) fn png() -> Vec<u8> {
    let chunk = |kind: &[u8; 4], content: &[u8]| {
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(content);
        let length = u32::try_from(content.len()).unwrap();
        [
            &length.to_be_bytes(),
            kind.as_slice(),
            content,
            &sum.sum().to_be_bytes(),
        ]
        .concat()
    };
    let (width, height) = (u32::from(WIDTH), u32::from(HEIGHT));
    let head = [&width.to_be_bytes(), &height.to_be_bytes(), &[8, 0, 0, 0, 0][..]].concat();
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    let row = vec![0; usize::from(WIDTH) + 1];
    for _ in 0..HEIGHT {
        packed.write_all(&row).unwrap();
    }
    let data = packed.finish().unwrap();
    let chunks = [chunk(b"IHDR", &head), chunk(b"IDAT", &data), chunk(b"IEND", b"")].concat();
    [b"\x89PNG\r\n\x1a\n", chunks.as_slice()].concat()
}

/// A JPEG with a preview, which has an end marker of its own.
pub(crate) fn jpeg() -> Vec<u8> {
    let segment = |code: u8, content: &[u8]| {
        let length = u16::try_from(content.len() + 2).unwrap();
        [&[0xff, code], length.to_be_bytes().as_slice(), content].concat()
    };
    let (height, width) = (HEIGHT.to_be_bytes(), WIDTH.to_be_bytes());
    let frame = [&[8], &height[..], &width, &[1, 1, 0x11, 0]].concat();
    let parts = [
        b"\xff\xd8".to_vec(),
        segment(0xe1, b"Exif\0\0\xff\xd8\xff\xdb\xff\xd9"),
        segment(0xdb, &[1; 65]),
        segment(0xc0, &frame),
        segment(0xc4, &[0; 17]),
        segment(0xda, &[1, 1, 0, 0, 63, 0]),
        // A byte 0xff is followed by zero, and restart markers may come.
        b"\x12\xff\0\x34\xff\xd0\x56".repeat(40),
        b"\xff\xd9".to_vec(),
    ];
    parts.concat()
}

/// A GIF of one picture.
pub(crate) fn gif() -> Vec<u8> {
    let (width, height) = (WIDTH.to_le_bytes(), HEIGHT.to_le_bytes());
    let mut file = [b"GIF89a", &width[..], &height, b"\x80\0\0", &[0; 6]].concat();
    file.extend([b",\0\0\0\0", &width[..], &height, b"\0\x02"].concat());
    file.extend([&[100], &[0x44; 100][..], b"\0;"].concat());
    file
}

fn riff(form: [u8; 4], chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut content = form.to_vec();
    for (kind, chunk) in chunks {
        let length = u32::try_from(chunk.len()).unwrap();
        content.extend([kind.as_slice(), &length.to_le_bytes(), chunk].concat());
        content.resize(content.len().next_multiple_of(2), 0);
    }
    let length = u32::try_from(content.len()).unwrap();
    [b"RIFF", length.to_le_bytes().as_slice(), &content].concat()
}

/// A `WebP` without losses.
pub(crate) fn webp() -> Vec<u8> {
    let bits = u32::from(WIDTH - 1) | u32::from(HEIGHT - 1) << 14;
    let picture = [b"\x2f", bits.to_le_bytes().as_slice(), &[9; 99]].concat();
    riff(*b"WEBP", &[(b"VP8L", &picture)])
}

/// A `WebP` of the lossy kind.
pub(crate) fn lossy_webp() -> Vec<u8> {
    let (width, height) = (WIDTH.to_le_bytes(), HEIGHT.to_le_bytes());
    let picture = [b"\x10\x02\0\x9d\x01\x2a", &width[..], &height, &[9; 90]].concat();
    riff(*b"WEBP", &[(b"VP8 ", &picture)])
}

/// A `WebP` of two pictures, a second each.
pub(crate) fn moving_webp() -> Vec<u8> {
    let whole = [&[2, 0, 0, 0, 0x3f, 1, 0][..], &[179, 0, 0]].concat();
    let picture = [&[0; 12][..], &[0xe8, 3, 0, 0], &[9; 90]].concat();
    riff(
        *b"WEBP",
        &[
            (b"VP8X", &whole),
            (b"ANIM", &[0; 6]),
            (b"ANMF", &picture),
            (b"ANMF", &picture),
        ],
    )
}

/// A WAV of 8-bit samples, 500 a second.
pub(crate) fn wav() -> Vec<u8> {
    let rate = 500_u32.to_le_bytes();
    let format = [&[1, 0, 1, 0], &rate[..], &rate, &[1, 0, 8, 0]].concat();
    let samples: Vec<u8> = (0..=249).cycle().take(1_000).collect();
    riff(
        *b"WAVE",
        &[(b"fmt ", &format), (b"LIST", b"odd"), (b"data", &samples)],
    )
}

/// The head of a frame of 417 bytes: 1152 samples of 44.1 kHz at 128 kbit/s, on one channel.
const FRAME_HEAD: [u8; 4] = [0xff, 0xfb, 0x90, 0xc4];

/// Frames of an MP3.
pub(crate) fn mp3(frames: usize) -> Vec<u8> {
    let mut frame = FRAME_HEAD.to_vec();
    frame.resize(417, 0);
    frame.repeat(frames)
}

/// An MP3 with a tag in front and a note of so many frames, all of 2 s long, and their bytes; it has the few that `mp3` has.
pub(crate) fn noted_mp3(frames: u32) -> Vec<u8> {
    let mut file = b"ID3\x04\0\0\0\0\x01\x0a".to_vec();
    file.resize(10 + 138, 0);
    let note_at = file.len() + 21;
    let audio = mp3(4);
    let bytes = u32::try_from(audio.len()).unwrap();
    file.extend(audio);
    let note = [b"Xing\0\0\0\x03", &frames.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    file[note_at..note_at + note.len()].copy_from_slice(&note);
    file
}

/// A FLAC of 96 samples, 48 a second, and its first frame's head.
pub(crate) fn flac() -> Vec<u8> {
    let facts: u64 = 48 << 44 | 7 << 36 | 0x60;
    let block = [&[0; 10][..], &facts.to_be_bytes(), &[0; 16]].concat();
    [b"fLaC\x80\0\0\x22", &block[..], b"\xff\xf8\xc9\x18", &[0; 60]].concat()
}

/// An element of EBML; the length of one that is larger than 126 bytes is of eight bytes.
fn element(id: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = match u8::try_from(content.len()) {
        Ok(short @ 0..127) => vec![0x80 | short],
        _ => (1 << 56 | content.len() as u64).to_be_bytes().to_vec(),
    };
    [id, &length, &content].concat()
}

const SEGMENT: &[u8] = b"\x18\x53\x80\x67";
const CLUSTER: &[u8] = b"\x1f\x43\xb6\x75";

fn webm_head() -> Vec<u8> {
    element(b"\x1a\x45\xdf\xa3", &[&element(b"\x42\x82", &[b"webm"])])
}

fn webm_content() -> [Vec<u8>; 2] {
    let (width, height) = (WIDTH.to_be_bytes(), HEIGHT.to_be_bytes());
    let size = [element(b"\xb0", &[&width]), element(b"\xba", &[&height])].concat();
    let track = [
        element(b"\xd7", &[&[1]]),
        element(b"\x83", &[&[1]]),
        element(b"\x86", &[b"V_VP9"]),
        element(b"\xe0", &[&size]),
    ];
    let tracks = element(b"\x16\x54\xae\x6b", &[&element(b"\xae", &[&track.concat()])]);
    let block = [b"\x81\0\0\x80".as_slice(), &[9; 150]];
    [
        tracks,
        [element(b"\xe7", &[&[0]]), element(b"\xa3", &block)].concat(),
    ]
}

/// A `WebM` with all its lengths.
pub(crate) fn webm() -> Vec<u8> {
    let [tracks, blocks] = webm_content();
    let scale = element(b"\x2a\xd7\xb1", &[&500_000_u32.to_be_bytes()]);
    let duration = element(b"\x44\x89", &[&4_000.0_f32.to_be_bytes()]);
    let info = element(b"\x15\x49\xa9\x66", &[&scale, &duration]);
    let cluster = element(CLUSTER, &[&blocks]);
    [
        webm_head(),
        element(SEGMENT, &[&info, &tracks, &cluster, &cluster]),
    ]
    .concat()
}

/// A `WebM` as it is streamed: nothing that is still being written has a length, and nobody knows how long it plays.
pub(crate) fn live_webm() -> Vec<u8> {
    let [tracks, blocks] = webm_content();
    let unknown: &[u8] = b"\x01\xff\xff\xff\xff\xff\xff\xff";
    let cluster = [CLUSTER, unknown, &blocks].concat();
    [
        webm_head(),
        [SEGMENT, unknown].concat(),
        tracks,
        cluster.clone(),
        cluster,
    ]
    .concat()
}
