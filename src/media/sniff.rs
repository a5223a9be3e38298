//! The kind of a file by its first bytes.

use super::Facts;

/// How the bytes of a kind are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Structure {
    /// The ISO base media format: MP4, `QuickTime`, 3GP, HEIC, AVIF.
    Bmff,
    /// `WebM` and Matroska.
    Ebml,
    Jpeg,
    Png,
    Gif,
    WebP,
    Wav,
    Mp3,
    Flac,
    /// Known, but not looked through.
    Unread,
}

/// Recognises the media that providers deliver.
pub(super) fn sniff(head: &[u8]) -> Option<(Facts, Structure)> {
    let at = |place: usize, magic: &[u8]| head.get(place..).is_some_and(|rest| rest.starts_with(magic));
    if at(4, b"ftyp") {
        return Some((by_brand(head.get(8..12).unwrap_or_default()), Structure::Bmff));
    }
    // QuickTime files from before the brand was invented.
    if at(4, b"moov") || at(4, b"wide") || at(4, b"mdat") {
        return Some((Facts::of("video/quicktime", "mov"), Structure::Bmff));
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        let webm = head.windows(4).any(|window| window == b"webm");
        let facts = if webm {
            Facts::of("video/webm", "webm")
        } else {
            Facts::of("video/x-matroska", "mkv")
        };
        return Some((facts, Structure::Ebml));
    }
    if at(0, b"RIFF") {
        return match head.get(8..12)? {
            b"WEBP" => Some((Facts::of("image/webp", "webp"), Structure::WebP)),
            b"WAVE" => Some((Facts::of("audio/wav", "wav"), Structure::Wav)),
            b"AVI " => Some((Facts::of("video/x-msvideo", "avi"), Structure::Unread)),
            _ => None,
        };
    }
    if at(0, b"OggS") {
        let video = head.windows(6).any(|window| window == b"theora");
        let facts = if video {
            Facts::of("video/ogg", "ogv")
        } else {
            Facts::of("audio/ogg", "ogg")
        };
        return Some((facts, Structure::Unread));
    }
    let by_magic: [(&[u8], Facts, Structure); 6] = [
        (b"\xff\xd8\xff", Facts::of("image/jpeg", "jpg"), Structure::Jpeg),
        (
            b"\x89PNG\r\n\x1a\n",
            Facts::of("image/png", "png"),
            Structure::Png,
        ),
        (b"GIF87a", Facts::of("image/gif", "gif"), Structure::Gif),
        (b"GIF89a", Facts::of("image/gif", "gif"), Structure::Gif),
        (b"fLaC", Facts::of("audio/flac", "flac"), Structure::Flac),
        (b"ID3", Facts::of("audio/mpeg", "mp3"), Structure::Mp3),
    ];
    let known = by_magic.into_iter().find(|(magic, ..)| at(0, magic));
    known
        .map(|(_, facts, structure)| (facts, structure))
        .or_else(|| mpeg_audio(head))
}

/// The ISO base media family: the major brand tells what the container was made for.
fn by_brand(brand: &[u8]) -> Facts {
    match brand {
        b"qt  " => Facts::of("video/quicktime", "mov"),
        b"M4A " | b"M4B " => Facts::of("audio/mp4", "m4a"),
        b"avif" | b"avis" => Facts::of("image/avif", "avif"),
        b"heic" | b"heix" | b"mif1" => Facts::of("image/heic", "heic"),
        _ => Facts::of("video/mp4", "mp4"),
    }
}

/// A bare stream of MPEG audio frames: eleven bits of sync, then fields of which some values are reserved.
fn mpeg_audio(head: &[u8]) -> Option<(Facts, Structure)> {
    let &[0xff, second, third, ..] = head else {
        return None;
    };
    if second & 0xf6 == 0xf0 {
        // Layer 0 with a twelve-bit sync is the AAC framing.
        return Some((Facts::of("audio/aac", "aac"), Structure::Unread));
    }
    let synced = second & 0xe0 == 0xe0;
    let version_known = second & 0x18 != 0x08;
    let layer_known = second & 0x06 != 0;
    let rates_known = third & 0xf0 != 0xf0 && third & 0x0c != 0x0c;
    let known = synced && version_known && layer_known && rates_known;
    known.then_some((Facts::of("audio/mpeg", "mp3"), Structure::Mp3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_known_by_its_first_bytes() {
        for (head, expected) in [
            (&b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2"[..], ("mp4", "video/mp4")),
            (b"\0\0\0\x18ftypmp42", ("mp4", "video/mp4")),
            (b"\0\0\0\x14ftypqt  ", ("mov", "video/quicktime")),
            (b"\0\0\0\x08wide\0\0\0\0mdat", ("mov", "video/quicktime")),
            (b"\0\0\0\x1cftypM4A ", ("m4a", "audio/mp4")),
            (b"\0\0\0\x1cftypavif", ("avif", "image/avif")),
            (
                b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm",
                ("webm", "video/webm"),
            ),
            (
                b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
                ("mkv", "video/x-matroska"),
            ),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", ("jpg", "image/jpeg")),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ("png", "image/png")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", ("webp", "image/webp")),
            (b"RIFF\x24\0\0\0WAVEfmt ", ("wav", "audio/wav")),
            (b"GIF89a\x01\0", ("gif", "image/gif")),
            (b"ID3\x04\0\0", ("mp3", "audio/mpeg")),
            (b"\xff\xfb\x90\x64", ("mp3", "audio/mpeg")),
            (b"\xff\xf1\x50\x80", ("aac", "audio/aac")),
            (b"fLaC\0\0\0\x22", ("flac", "audio/flac")),
            (b"OggS\0\x02\0\0OpusHead", ("ogg", "audio/ogg")),
        ] {
            let (facts, _) = sniff(head).expect("media");
            let shown = head.escape_ascii();
            assert_eq!((facts.extension, facts.content_type), expected, "{shown}");
        }
        assert_eq!(sniff(b"\xff\xff\xff\xff"), None, "not every 0xff is MPEG audio");
        assert_eq!(sniff(b"RIFF"), None);
        assert_eq!(sniff(b""), None);
    }
}
