//! A film long enough that a browser does not load it whole: our sample again and again, with filling between.

/// What it is made of.
const SAMPLE: &[u8] = include_bytes!("../../assets/sample.mp4");
/// How long it plays, in the units of its two clocks: 1,000 and 12,288 a second.
const LASTS: [u32; 2] = [2_000, 24_576];
/// Pictures in it; the first needs no other.
const PICTURES: u32 = 48;

/// Bytes that nobody plays, after each round.
const FILLING: usize = 2 << 20;

/// Our sample as it is: two seconds.
pub(crate) fn short() -> Vec<u8> {
    SAMPLE.to_vec()
}

/// So many rounds of two seconds and 2 MiB; one can seek to the start of each.
pub(crate) fn long(rounds: u32) -> Vec<u8> {
    let (head, pictures) = parts();
    let moov_of = |first: u32| {
        let step = u32::try_from(pictures.len() + FILLING).expect("a few MiB");
        let places: Vec<u32> = (0..rounds).map(|round| first + round * step).collect();
        rebuilt(head, &|kind, body| changed(kind, body, &places))
    };
    // As long whatever it says.
    let first = u32::try_from(moov_of(0).len() + 8).expect("a short index");
    let mut file = moov_of(first);
    let length = rounds as usize * (pictures.len() + FILLING) + 8;
    file.extend(u32::try_from(length).expect("less than 4 GiB").to_be_bytes());
    file.extend(b"mdat");
    for round in 0..rounds {
        file.extend(pictures);
        file.resize(file.len() + FILLING, round.to_be_bytes()[3]);
    }
    file
}

/// `ftyp` and `moov`, and what is in `mdat`.
fn parts() -> (&'static [u8], &'static [u8]) {
    let is_box = |name: &'static [u8]| move |bytes: &[u8]| bytes == name;
    let moov = SAMPLE.windows(4).position(is_box(b"moov")).expect("an index") - 4;
    let mdat = SAMPLE.windows(4).position(is_box(b"mdat")).expect("pictures") + 4;
    (&SAMPLE[..moov + number(&SAMPLE[moov..])], &SAMPLE[mdat..])
}

/// Boxes with other content where `change` gives some.
fn rebuilt(mut boxes: &[u8], change: &impl Fn(&[u8], &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    while !boxes.is_empty() {
        let (this, rest) = boxes.split_at(number(boxes));
        let (kind, body) = this[4..].split_at(4);
        let body = match kind {
            b"moov" | b"trak" | b"edts" | b"mdia" | b"minf" | b"stbl" => rebuilt(body, change),
            _ => change(kind, body).unwrap_or_else(|| body.to_vec()),
        };
        out.extend(u32::try_from(body.len() + 8).expect("small").to_be_bytes());
        out.extend(kind);
        out.extend(body);
        boxes = rest;
    }
    out
}

/// What an index says of as many rounds as there are places for their pictures (ISO/IEC 14496-12).
fn changed(kind: &[u8], body: &[u8], places: &[u32]) -> Option<Vec<u8>> {
    let rounds = u32::try_from(places.len()).expect("a few");
    let lasts = |at: usize, clock: usize| {
        let mut body = body.to_vec();
        body[at..at + 4].copy_from_slice(&(LASTS[clock] * rounds).to_be_bytes());
        body
    };
    let table = |head: &[u32], rows: Vec<u32>| {
        let numbers = [0].iter().chain(head).chain(&rows);
        numbers.flat_map(|number| number.to_be_bytes()).collect()
    };
    Some(match kind {
        b"mvhd" => lasts(16, 0),
        b"tkhd" => lasts(20, 0),
        b"elst" => lasts(8, 0),
        b"mdhd" => lasts(16, 1),
        b"stts" => table(&[1], vec![PICTURES * rounds, LASTS[1] / PICTURES]),
        b"stss" => table(&[rounds], (0..rounds).map(|round| 1 + round * PICTURES).collect()),
        b"stsz" => {
            let sizes: Vec<u32> = body[12..]
                .chunks(4)
                .map(|size| u32::try_from(number(size)).expect("32 bits"))
                .collect();
            table(&[0, PICTURES * rounds], sizes.repeat(places.len()))
        }
        b"stco" => table(&[rounds], places.to_vec()),
        _ => return None,
    })
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}
