//! A PNG file: eight bits a channel, no alpha.

use std::io::Write as _;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// The file of a picture of this width and height, whose pixels `at` knows by column and row.
pub(super) fn file((width, height): (u32, u32), at: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    for y in 0..height {
        // No filter.
        let mut row = vec![0];
        row.extend((0..width).flat_map(|x| at(x, y)));
        packed.write_all(&row).expect("memory takes what is written");
    }
    let packed = packed.finish().expect("memory takes what is written");
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", &header), (b"IDAT", &packed), (b"IEND", &Vec::new())] {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(body);
        file.extend(u32::try_from(body.len()).expect("small pictures").to_be_bytes());
        file.extend(kind);
        file.extend(body);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}
