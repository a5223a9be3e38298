//! What a file is, told by its first bytes: nobody's word is taken for it, neither the URL's nor the server's.

use crate::provider::naming::{UNKNOWN_EXTENSION, media_extension};

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sniffed {
    /// MIME type.
    pub content_type: &'static str,
    /// The usual file extension, without the dot.
    pub extension: &'static str,
}

const fn sniffed(content_type: &'static str, extension: &'static str) -> Sniffed {
    Sniffed {
        content_type,
        extension,
    }
}

/// Why a body is not stored as media.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMedia {
    /// Nothing came.
    #[error("the answer was empty")]
    Empty,
    /// A page or a message came in place of the file.
    #[error("the answer was {language} and not media; it begins with \"{beginning}\"")]
    Text {
        /// Which kind of text, with its article if it needs one.
        language: &'static str,
        /// The first bytes, with everything but printable ASCII escaped.
        beginning: String,
    },
}

/// How much of a refused text is shown.
const SHOWN_BYTES: usize = 80;

/// Decides whether a file may be stored, and as what.
///
/// `head` holds its first bytes (512 are enough) and `url` says where it came from. Unknown bytes are stored as
/// `application/octet-stream`, under the extension of the URL if that is one of media: providers add formats faster than
/// we learn them. This is the one place where content is judged; deeper checks of the structure belong here.
pub fn examine(head: &[u8], url: &str) -> Result<Sniffed, NotMedia> {
    if head.is_empty() {
        return Err(NotMedia::Empty);
    }
    if let Some(known) = sniff(head) {
        return Ok(known);
    }
    if let Some(language) = text_language(head) {
        let shown = &head[..head.len().min(SHOWN_BYTES)];
        return Err(NotMedia::Text {
            language,
            beginning: shown.escape_ascii().to_string(),
        });
    }
    let extension = media_extension(url).unwrap_or(UNKNOWN_EXTENSION);
    Ok(sniffed("application/octet-stream", extension))
}

/// Recognises the media that providers deliver.
fn sniff(head: &[u8]) -> Option<Sniffed> {
    let at = |place: usize, magic: &[u8]| head.get(place..).is_some_and(|rest| rest.starts_with(magic));
    if at(4, b"ftyp") {
        return Some(by_brand(head.get(8..12).unwrap_or_default()));
    }
    // QuickTime files from before the brand was invented.
    if at(4, b"moov") || at(4, b"wide") || at(4, b"mdat") {
        return Some(sniffed("video/quicktime", "mov"));
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        let webm = head.windows(4).any(|window| window == b"webm");
        return Some(if webm {
            sniffed("video/webm", "webm")
        } else {
            sniffed("video/x-matroska", "mkv")
        });
    }
    if at(0, b"RIFF") {
        return match head.get(8..12)? {
            b"WEBP" => Some(sniffed("image/webp", "webp")),
            b"WAVE" => Some(sniffed("audio/wav", "wav")),
            b"AVI " => Some(sniffed("video/x-msvideo", "avi")),
            _ => None,
        };
    }
    if at(0, b"OggS") {
        let video = head.windows(6).any(|window| window == b"theora");
        return Some(if video {
            sniffed("video/ogg", "ogv")
        } else {
            sniffed("audio/ogg", "ogg")
        });
    }
    let by_magic: [(&[u8], Sniffed); 6] = [
        (b"\xff\xd8\xff", sniffed("image/jpeg", "jpg")),
        (b"\x89PNG\r\n\x1a\n", sniffed("image/png", "png")),
        (b"GIF87a", sniffed("image/gif", "gif")),
        (b"GIF89a", sniffed("image/gif", "gif")),
        (b"fLaC", sniffed("audio/flac", "flac")),
        (b"ID3", sniffed("audio/mpeg", "mp3")),
    ];
    let known = by_magic.into_iter().find(|(magic, _)| at(0, magic));
    known.map(|(_, known)| known).or_else(|| mpeg_audio(head))
}

/// The ISO base media family: the major brand tells what the container was made for.
fn by_brand(brand: &[u8]) -> Sniffed {
    match brand {
        b"qt  " => sniffed("video/quicktime", "mov"),
        b"M4A " | b"M4B " => sniffed("audio/mp4", "m4a"),
        b"avif" | b"avis" => sniffed("image/avif", "avif"),
        b"heic" | b"heix" | b"mif1" => sniffed("image/heic", "heic"),
        _ => sniffed("video/mp4", "mp4"),
    }
}

/// A bare stream of MPEG audio frames: eleven bits of sync, then fields of which some values are reserved.
fn mpeg_audio(head: &[u8]) -> Option<Sniffed> {
    let &[0xff, second, third, ..] = head else {
        return None;
    };
    if second & 0xf6 == 0xf0 {
        // Layer 0 with a twelve-bit sync is the AAC framing.
        return Some(sniffed("audio/aac", "aac"));
    }
    let synced = second & 0xe0 == 0xe0;
    let version_known = second & 0x18 != 0x08;
    let layer_known = second & 0x06 != 0;
    let rates_known = third & 0xf0 != 0xf0 && third & 0x0c != 0x0c;
    (synced && version_known && layer_known && rates_known).then_some(sniffed("audio/mpeg", "mp3"))
}

/// Which language a text is in, if these bytes are the beginning of one that stands where media should.
fn text_language(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace())?;
    let language = match first {
        b'<' => "HTML or XML",
        b'{' | b'[' => "JSON",
        _ => return None,
    };
    // The bytes of a known kind of media never come here; some unknown kind may begin with such a byte by chance.
    let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    (!head.iter().any(control)).then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(head: &[u8]) -> (&'static str, &'static str) {
        let known = examine(head, "https://a.example/x").expect("media");
        (known.extension, known.content_type)
    }

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
            assert_eq!(kind(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn unknown_bytes_keep_an_extension_of_media_and_no_other() {
        let extension = |url| examine(b"\x01\x02{}\x03", url).unwrap();
        assert_eq!(
            extension("https://a.example/x.WAV?y"),
            sniffed("application/octet-stream", "wav")
        );
        assert_eq!(
            extension("https://a.example/x.html"),
            sniffed("application/octet-stream", "bin")
        );
        assert_eq!(kind(b"\xff\xff\xff\xff").0, "bin", "not every 0xff is MPEG audio");
        assert_eq!(kind(b"{\x00\x01").0, "bin", "binary that begins like JSON");
        assert_eq!(kind(b"RIFF").0, "bin");
    }

    #[test]
    fn text_in_the_place_of_media_is_refused_and_shown() {
        let refusal = |head: &[u8]| examine(head, "https://a.example/x.mp4").unwrap_err().to_string();
        assert_eq!(
            refusal(b"\xef\xbb\xbf \r\n<!DOCTYPE html><title>\xc3\xa9"),
            "the answer was HTML or XML and not media; it begins with \
             \"\\xef\\xbb\\xbf \\r\\n<!DOCTYPE html><title>\\xc3\\xa9\""
        );
        for head in [
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied",
            "<svg xmlns=",
            "{\"code\":404}",
            " [1,2]",
        ] {
            assert!(refusal(head.as_bytes()).contains("not media"), "{head}");
        }
        assert!(refusal(&[b'<'; 512]).len() < 160);
        assert_eq!(refusal(b""), "the answer was empty");
    }
}
