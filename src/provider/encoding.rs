//! Bodies as they came, read: some senders compress.

use std::borrow::Cow;
use std::io::Read as _;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// It begins as gzip and goes on as something else.
    #[error("the body is not valid gzip")]
    NotGzip,
    /// It unpacks to more than the limit.
    #[error("the body unpacks to more than the limit")]
    TooLarge,
}

/// The body itself, whatever its length, or what it unpacks to if it is gzip, up to `limit` bytes.
pub fn decoded(body: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, EncodingError> {
    if !is_gzip(body) {
        return Ok(Cow::Borrowed(body));
    }
    match beginning(body, limit)? {
        (plain, false) => Ok(plain),
        (_, true) => Err(EncodingError::TooLarge),
    }
}

/// The first `most` bytes of the body, unpacked if it is gzip (and no further than that), and whether there are more.
pub fn beginning(body: &[u8], most: u64) -> Result<(Cow<'_, [u8]>, bool), EncodingError> {
    let most_here = usize::try_from(most).unwrap_or(usize::MAX);
    if !is_gzip(body) {
        let shown = &body[..body.len().min(most_here)];
        return Ok((Cow::Borrowed(shown), shown.len() < body.len()));
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(body)
        .take(most.saturating_add(1))
        .read_to_end(&mut plain)
        .map_err(|_| EncodingError::NotGzip)?;
    let more = plain.len() > most_here;
    plain.truncate(most_here);
    Ok((Cow::Owned(plain), more))
}

/// Gzip is known by its first two bytes, with which no JSON begins, whatever `Content-Encoding` says: proxies lose
/// that header, and a stored body has to be read without it.
fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(plain).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn gzip_is_unpacked_and_anything_else_left_alone() {
        assert_eq!(decoded(b"{}", 10).unwrap().as_ref(), b"{}");
        assert_eq!(decoded(&gzip(b"{}"), 10).unwrap().as_ref(), b"{}");
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = gzip(&vec![b' '; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(decoded(&bomb, 1_000_000), Err(EncodingError::TooLarge));
    }

    #[test]
    fn the_beginning_is_unpacked_and_no_more() {
        let packed = gzip(b"0123456789");
        assert_eq!(
            beginning(&packed, 4).unwrap(),
            (Cow::Borrowed(&b"0123"[..]), true)
        );
        assert_eq!(
            beginning(&packed, 10).unwrap(),
            (Cow::Borrowed(&b"0123456789"[..]), false)
        );
        assert_eq!(beginning(b"0123", 2).unwrap(), (Cow::Borrowed(&b"01"[..]), true));
    }

    #[test]
    fn broken_gzip_is_said_to_be_broken() {
        assert_eq!(decoded(&[0x1f, 0x8b, 0, 1, 2], 10), Err(EncodingError::NotGzip));
    }
}
