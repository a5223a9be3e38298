//! An MP4 file with one video track, its index before its data (ISO/IEC 14496-12 and -15).

/// Units of time in a second.
const TIMESCALE: u32 = 1_200;
/// Rows of the identity matrix, as fixed-point numbers.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// What goes into the file.
#[derive(Debug)]
pub(super) struct Track<'a> {
    /// Width and height in pixels.
    pub(super) size: (u32, u32),
    /// Sequence and picture parameter set.
    pub(super) sets: [Vec<u8>; 2],
    /// NAL units, one a picture; the first needs no other.
    pub(super) samples: &'a [Vec<u8>],
    /// Pictures a second.
    pub(super) rate: u32,
}

impl Track<'_> {
    fn duration(&self) -> u32 {
        let count = u32::try_from(self.samples.len()).expect("few pictures");
        count * (TIMESCALE / self.rate)
    }
}

/// The file, filled up to `least` bytes with noise that `seed` determines.
pub(super) fn file(track: &Track<'_>, seed: u64, least: u64) -> Vec<u8> {
    let mut file = boxed(
        "ftyp",
        &[b"isom", &512_u32.to_be_bytes()[..], b"isomiso2avc1mp41"],
    );
    // The index says where the data begins, and its own length does not depend on what it says.
    let index = moov(track, 0).len();
    let data: usize = track.samples.iter().map(|sample| 4 + sample.len()).sum();
    let length = file.len() + index + 8 + data;
    let missing = usize::try_from(least)
        .unwrap_or(usize::MAX)
        .saturating_sub(length);
    let filling = match missing {
        0 => Vec::new(),
        _ => boxed("free", &[&noise(seed, missing.saturating_sub(8))]),
    };
    let start = file.len() + index + filling.len() + 8;
    file.extend(moov(track, u32::try_from(start).expect("small files")));
    file.extend(filling);
    file.extend(long(8 + data));
    file.extend(b"mdat");
    for sample in track.samples {
        file.extend(long(sample.len()));
        file.extend(sample);
    }
    file
}

fn moov(track: &Track<'_>, data_at: u32) -> Vec<u8> {
    let duration = track.duration();
    let mvhd = full(
        "mvhd",
        0,
        &words(&[
            &[0, 0, TIMESCALE, duration, 0x1_0000, 0x0100_0000, 0, 0],
            &MATRIX,
            &[0; 6],
            &[2],
        ]),
    );
    let (width, height) = track.size;
    let tkhd = full(
        "tkhd",
        // Enabled, and part of what is played.
        3,
        &words(&[
            &[0, 0, 1, 0, duration, 0, 0, 0, 0],
            &MATRIX,
            &[width << 16, height << 16],
        ]),
    );
    // "und": no language.
    let media_header = full("mdhd", 0, &words(&[&[0, 0, TIMESCALE, duration, 0x55c4_0000]]));
    let hdlr = full("hdlr", 0, &[&[0; 4], &b"vide"[..], &[0; 12], b"video\0"].concat());
    let vmhd = full("vmhd", 1, &[0; 8]);
    // The data is in this file.
    let url = full("url ", 1, &[]);
    let dinf = boxed(
        "dinf",
        &[&full("dref", 0, &[&1_u32.to_be_bytes()[..], &url].concat())],
    );
    let minf = boxed("minf", &[&vmhd, &dinf, &stbl(track, data_at)]);
    let mdia = boxed("mdia", &[&media_header, &hdlr, &minf]);
    boxed("moov", &[&mvhd, &boxed("trak", &[&tkhd, &mdia])])
}

/// The tables: one chunk with all samples, of equal duration.
fn stbl(track: &Track<'_>, data_at: u32) -> Vec<u8> {
    let count = u32::try_from(track.samples.len()).expect("few pictures");
    let sizes: Vec<u32> = track
        .samples
        .iter()
        .map(|sample| u32::try_from(4 + sample.len()).expect("small pictures"))
        .collect();
    boxed(
        "stbl",
        &[
            &full("stsd", 0, &[&1_u32.to_be_bytes()[..], &avc1(track)].concat()),
            &full("stts", 0, &words(&[&[1, count, TIMESCALE / track.rate]])),
            &full("stss", 0, &words(&[&[1, 1]])),
            &full("stsc", 0, &words(&[&[1, 1, count, 1]])),
            &full("stsz", 0, &words(&[&[0, count], &sizes])),
            &full("stco", 0, &words(&[&[1, data_at]])),
        ],
    )
}

fn avc1(track: &Track<'_>) -> Vec<u8> {
    let (width, height) = track.size;
    let [sps, pps] = &track.sets;
    let short = |value: usize| u16::try_from(value).expect("small parameter sets").to_be_bytes();
    // Version, profile, constraints and level, lengths of four bytes, one set of either kind.
    let record = [
        &[1, sps[1], sps[2], sps[3], 0xff, 0xe1],
        &short(sps.len())[..],
        sps,
        &[1],
        &short(pps.len()),
        pps,
    ]
    .concat();
    boxed(
        "avc1",
        &[
            // The first data reference.
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0; 16],
            &(width << 16 | height).to_be_bytes(),
            // 72 dots an inch either way, one picture a sample, no name, 24 bits, no colour table.
            &words(&[&[0x48_0000, 0x48_0000, 0]]),
            &[0, 1],
            &[0; 32],
            &[0, 24, 0xff, 0xff],
            &boxed("avcC", &[&record]),
        ],
    )
}

fn boxed(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&long(8 + body.len())[..], kind.as_bytes(), &body].concat()
}

/// A box with a version, 0, and flags.
fn full(kind: &str, flags: u32, body: &[u8]) -> Vec<u8> {
    boxed(kind, &[&flags.to_be_bytes(), body])
}

fn long(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("small files").to_be_bytes()
}

fn words(lists: &[&[u32]]) -> Vec<u8> {
    lists
        .concat()
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// Bytes that no compression on the way makes fewer (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}
