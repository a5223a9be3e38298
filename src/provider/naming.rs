//! What a file is called: its name in the API and in the storage, and the extension its URL suggests.

use super::{Kind, Role};

/// The extensions that a stored file may have; any other becomes [`UNKNOWN_EXTENSION`].
const MEDIA_EXTENSIONS: [&str; 27] = [
    "mp4", "m4v", "mov", "webm", "mkv", "avi", "ogv", "ts", "gif", "jpg", "jpeg", "png", "webp", "avif",
    "heic", "bmp", "tif", "tiff", "mp3", "m4a", "aac", "wav", "flac", "ogg", "opus", "mid", "midi",
];

/// The extension of a file about which nothing is known.
pub const UNKNOWN_EXTENSION: &str = "bin";

/// The name of a file: `{role}-{n}.{ext}` for the base result, else `{kind}-{index}-{role}-{n}.{ext}`.
///
/// The part before the extension is unique within the task and never changes; the extension may, once the content is
/// known.
pub fn file_name(kind: &Kind, index: u32, role: Role, n: u32, extension: &str) -> String {
    let role = role.as_str();
    if *kind == Kind::video() && index == 0 {
        format!("{role}-{n}.{extension}")
    } else {
        format!("{kind}-{index}-{role}-{n}.{extension}")
    }
}

/// The extension to expect before the file is fetched: that of the URL, else the usual one of the role.
pub fn guess_extension(url: &str, role: Role) -> &'static str {
    media_extension(url).unwrap_or(match role {
        Role::Result | Role::Origin | Role::Full => "mp4",
        Role::Image => "jpg",
        Role::Audio => "mp3",
    })
}

/// The extension of the URL's path, in lower case, if it is one of media.
pub fn media_extension(url: &str) -> Option<&'static str> {
    // By hand: parsing the URL would cost every callback more than writing its row.
    let (_, rest) = url.split_once("://")?;
    let whole = rest.split(['?', '#']).next()?;
    let (_, last) = whole.rsplit_once('/')?;
    let (_, extension) = last.rsplit_once('.')?;
    MEDIA_EXTENSIONS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_result_has_the_short_name() {
        let four_k = Kind::four_k();
        assert_eq!(
            file_name(&Kind::video(), 0, Role::Result, 0, "mp4"),
            "result-0.mp4"
        );
        assert_eq!(
            file_name(&Kind::video(), 1, Role::Origin, 2, "mp4"),
            "video-1-origin-2.mp4"
        );
        assert_eq!(file_name(&four_k, 0, Role::Image, 0, "jpg"), "4k-0-image-0.jpg");
    }

    #[test]
    fn the_extension_comes_from_the_path_only_if_it_is_one_of_media() {
        let result = |url| guess_extension(url, Role::Result);
        assert_eq!(result("https://a.example/v/1.WEBM?x=1.png#y.gif"), "webm");
        assert_eq!(result("https://a.example/v/1.mp4.exe"), "mp4");
        assert_eq!(result("https://a.example/v.png/1"), "mp4");
        assert_eq!(result("not a url.png"), "mp4");
        assert_eq!(guess_extension("https://a.example/1", Role::Image), "jpg");
        assert_eq!(guess_extension("https://a.example/1", Role::Audio), "mp3");
        assert_eq!(media_extension("https://a.example/1.php"), None);
    }
}
