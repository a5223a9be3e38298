//! Real files for tests to deliver: MP4s of an exact length, so that what passes for media in a test is media.

/// What an MP4 shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Video {
    /// In pixels.
    pub(crate) width: u16,
    /// In pixels.
    pub(crate) height: u16,
    /// How long it plays.
    pub(crate) duration_ms: u32,
}

/// What providers deliver most.
const USUAL: Video = Video {
    width: 1280,
    height: 720,
    duration_ms: 8_000,
};

/// An MP4 of exactly so many bytes, 700 at least, whose content follows from the seed: the index in front, then the
/// samples. Nothing decodes the samples.
pub(crate) fn mp4(seed: u64, length: usize) -> Vec<u8> {
    let mut file = mp4_head(USUAL, length as u64);
    extend_with_noise(&mut file, seed, length);
    file
}

/// All that an MP4 of so many bytes has before the bytes of its samples, which may be anything.
pub(crate) fn mp4_head(video: Video, length: u64) -> Vec<u8> {
    let brand = atom(*b"ftyp", &[b"isom\0\0\x02\0isommp42"]);
    // As long whatever it says.
    let index_length = index(video, 0, 0).len() as u64;
    let samples_at = brand.len() as u64 + index_length + 8;
    let samples = length.checked_sub(samples_at).expect("at least 700 bytes");
    let number = |value: u64| u32::try_from(value).expect("less than 4 GiB");
    let head = [
        brand,
        index(video, number(samples_at), number(samples)),
        number(samples + 8).to_be_bytes().to_vec(),
        b"mdat".to_vec(),
    ];
    head.concat()
}

/// Makes a file so long, with bytes that follow from the seed.
pub(crate) fn extend_with_noise(file: &mut Vec<u8>, seed: u64, length: usize) {
    let mut state = (seed ^ 0x9e37_79b9_7f4a_7c15).max(1);
    file.reserve(length.saturating_sub(file.len()) + 8);
    while file.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.extend(state.to_le_bytes());
    }
    file.truncate(length);
}

/// The `moov` box, for one track of one sample.
fn index(video: Video, sample_at: u32, sample_bytes: u32) -> Vec<u8> {
    let head = atom(
        *b"mvhd",
        &[
            &[0; 12],
            &TIMESCALE,
            &video.duration_ms.to_be_bytes(),
            b"\0\x01\0\0\x01\0",
            &[0; 10],
            &MATRIX,
            &[0; 24],
            b"\0\0\0\x02",
        ],
    );
    let samples = sample_table(video, sample_at, sample_bytes);
    let track = atom(*b"trak", &[&track_head(video), &track_media(video, &samples)]);
    atom(*b"moov", &[&head, &track])
}

/// Ticks a second: milliseconds.
const TIMESCALE: [u8; 4] = 1_000_u32.to_be_bytes();

/// A number that stands in half of the fields.
const ONE: [u8; 4] = 1_u32.to_be_bytes();

fn track_head(video: Video) -> Vec<u8> {
    let fixed = |pixels: u16| (u32::from(pixels) << 16).to_be_bytes();
    atom(
        *b"tkhd",
        &[
            b"\0\0\0\x03",
            &[0; 8],
            &ONE,
            &[0; 4],
            &video.duration_ms.to_be_bytes(),
            &[0; 16],
            &MATRIX,
            &fixed(video.width),
            &fixed(video.height),
        ],
    )
}

fn track_media(video: Video, samples: &[u8]) -> Vec<u8> {
    let duration = video.duration_ms.to_be_bytes();
    let reference = atom(*b"dref", &[&[0; 4], &ONE, &atom(*b"url ", &[&ONE])]);
    let content = [
        atom(*b"vmhd", &[&ONE, &[0; 8]]),
        atom(*b"dinf", &[&reference]),
        samples.to_vec(),
    ];
    atom(
        *b"mdia",
        &[
            &atom(*b"mdhd", &[&[0; 12], &TIMESCALE, &duration, b"\x55\xc4\0\0"]),
            &atom(*b"hdlr", &[&[0; 8], b"vide", &[0; 13]]),
            &atom(*b"minf", &[&content.concat()]),
        ],
    )
}

fn sample_table(video: Video, sample_at: u32, sample_bytes: u32) -> Vec<u8> {
    let duration = video.duration_ms.to_be_bytes();
    atom(
        *b"stbl",
        &[
            &atom(*b"stsd", &[&[0; 4], &ONE, &sample_entry(video)]),
            &atom(*b"stts", &[&[0; 4], &ONE, &ONE, &duration]),
            &atom(*b"stsc", &[&[0; 4], &ONE, &ONE, &ONE, &ONE]),
            &atom(*b"stsz", &[&[0; 4], &sample_bytes.to_be_bytes(), &ONE]),
            &atom(*b"stco", &[&[0; 4], &ONE, &sample_at.to_be_bytes()]),
        ],
    )
}

/// Neither scaled nor rotated.
const MATRIX: [u8; 36] = *b"\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0";

fn sample_entry(video: Video) -> Vec<u8> {
    let resolution = b"\0\x48\0\0\0\x48\0\0";
    atom(
        *b"avc1",
        &[
            b"\0\0\0\0\0\0\0\x01",
            &[0; 16],
            &video.width.to_be_bytes(),
            &video.height.to_be_bytes(),
            resolution,
            &[0; 4],
            b"\0\x01",
            &[0; 32],
            b"\0\x18\xff\xff",
            &atom(*b"avcC", &[b"\x01\x42\xc0\x1e\xff\xe0\0"]),
        ],
    )
}

/// A box, as the ISO base media format calls its parts: length, kind, content.
pub(crate) fn atom(kind: [u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u32::try_from(content.len() + 8).expect("small");
    [&length.to_be_bytes(), &kind, content.as_slice()].concat()
}
