//! What a certificate says of itself: whom it names, and from when to when.

use std::net::IpAddr;

use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_BOOLEAN, TAG_UTCTIME};
use yasna::{ASN1Result, BERReader, BERReaderSeq, Tag};

use crate::clock::Millis;

/// The part of a certificate that an operator asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// DNS names and addresses; a certificate without any is good for nothing on the web.
    pub(super) names: Vec<String>,
    pub(super) not_before: Millis,
    pub(super) not_after: Millis,
}

/// Reads one certificate in DER (RFC 5280, 4.1); `None` if it is none.
///
/// Only what is needed, and by the reader that `rcgen` brings along anyway: a parser of everything that a certificate
/// may hold is a dozen crates more.
pub(super) fn read(der: &[u8]) -> Option<Contents> {
    let certificate = |reader: BERReader<'_, '_>| {
        reader.read_sequence(|fields| {
            let contents = fields.next().read_sequence(to_be_signed)?;
            skip(fields)?; // signatureAlgorithm
            skip(fields)?; // signatureValue
            Ok(contents)
        })
    };
    yasna::parse_der(der, certificate).ok()
}

fn to_be_signed(fields: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Contents> {
    optional(fields, Tag::context(0))?; // version
    for _before_validity in ["serialNumber", "signature", "issuer"] {
        skip(fields)?;
    }
    let (not_before, not_after) = fields
        .next()
        .read_sequence(|times| Ok((time(times.next())?, time(times.next())?)))?;
    for _before_extensions in ["subject", "subjectPublicKeyInfo"] {
        skip(fields)?;
    }
    optional(fields, Tag::context(1))?; // issuerUniqueID
    optional(fields, Tag::context(2))?; // subjectUniqueID
    let extensions = |reader: BERReader<'_, '_>| reader.read_tagged(Tag::context(3), alternative_names);
    let names = fields.read_optional(extensions)?;
    Ok(Contents {
        names: names.unwrap_or_default(),
        not_before,
        not_after,
    })
}

/// In one notation up to 2049, in another from then on.
fn time(reader: BERReader<'_, '_>) -> ASN1Result<Millis> {
    let seconds = if reader.lookahead_tag()? == TAG_UTCTIME {
        reader.read_utctime()?.datetime().unix_timestamp()
    } else {
        reader.read_generalized_time()?.datetime().unix_timestamp()
    };
    Ok(seconds * 1000)
}

/// The subjectAltName (2.5.29.17) among all extensions.
fn alternative_names(reader: BERReader<'_, '_>) -> ASN1Result<Vec<String>> {
    let wanted = ObjectIdentifier::from_slice(&[2, 5, 29, 17]);
    let mut names = Vec::new();
    reader.read_sequence_of(|extension| {
        extension.read_sequence(|fields| {
            let id = fields.next().read_oid()?;
            optional(fields, TAG_BOOLEAN)?; // critical
            let value = fields.next().read_bytes()?;
            if id == wanted {
                names = yasna::parse_der(&value, |reader| reader.collect_sequence_of(name))?;
            }
            Ok(())
        })
    })?;
    Ok(names.into_iter().flatten().collect())
}

/// A DNS name (tag 2) or an address (tag 7); of the other kinds, none concerns us.
fn name(reader: BERReader<'_, '_>) -> ASN1Result<Option<String>> {
    let tag = reader.lookahead_tag()?;
    if tag != Tag::context(2) && tag != Tag::context(7) {
        reader.read_der()?;
        return Ok(None);
    }
    let bytes = reader.read_tagged_implicit(tag, content)?;
    if tag == Tag::context(2) {
        return Ok(String::from_utf8(bytes).ok());
    }
    let v4 = <[u8; 4]>::try_from(&*bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(&*bytes).map(IpAddr::from));
    Ok(address.ok().map(|address| address.to_string()))
}

fn content(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    reader.read_bytes()
}

fn skip(fields: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    fields.next().read_der().map(drop)
}

fn optional(fields: &mut BERReaderSeq<'_, '_>, tag: Tag) -> ASN1Result<()> {
    let if_tagged = |reader: BERReader<'_, '_>| {
        if reader.lookahead_tag()? == tag {
            reader.read_der()
        } else {
            // Not this field: `read_optional` takes the error back as long as nothing was read.
            Err(yasna::ASN1Error::new(yasna::ASN1ErrorKind::Invalid))
        }
    };
    fields.read_optional(if_tagged).map(drop)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;
    use crate::clock::parse_rfc3339;

    fn made(params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_times_are_read() {
        let mut params = CertificateParams::new(["hooks.example.com".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 11, 1);
        // Past 2049 the other notation of time is used.
        params.not_after = date_time_ymd(2051, 2, 3);
        for address in ["192.0.2.7", "2001:db8::1"] {
            let address = address.parse().unwrap();
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        let mail = "ops@example.com".try_into().unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name(mail));
        let at = |text| parse_rfc3339(text).unwrap();
        assert_eq!(
            read(&made(&params)).unwrap(),
            Contents {
                names: ["hooks.example.com", "192.0.2.7", "2001:db8::1"]
                    .map(str::to_owned)
                    .to_vec(),
                not_before: at("2026-11-01T00:00:00Z"),
                not_after: at("2051-02-03T00:00:00Z"),
            }
        );
    }

    #[test]
    fn a_certificate_without_names_is_one_nonetheless() {
        let contents = read(&made(&CertificateParams::default())).unwrap();
        assert_eq!(contents.names, Vec::<String>::new());
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_none() {
        let whole = made(&CertificateParams::new(["a.example".to_owned()]).unwrap());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "the first {length} bytes");
        }
        assert_eq!(read(b"0\x03\x02\x01\x01"), None);
    }

    #[test]
    fn what_is_damaged_is_read_or_not_without_a_panic() {
        let whole = made(&CertificateParams::new(["a.example".to_owned()]).unwrap());
        let (mut readable, mut unreadable) = (0, 0);
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0xff, !whole[at]] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                *if read(&damaged).is_some() {
                    &mut readable
                } else {
                    &mut unreadable
                } += 1;
            }
        }
        assert!(readable > 0 && unreadable > 0, "{readable} {unreadable}");
    }
}
