//! The ZIP format as far as an archive of files needs it that are stored as they are: headers, computed and not written
//! anywhere. After PKWARE's APPNOTE 6.3.10, which the numbers of sections name.
//!
//! The checksum of a file is known only once it has been read, so that it follows the file (a data descriptor); all else
//! is known before, and so is the length of the archive. ZIP64 is used where a number does not fit, and only there.

use crate::clock::Millis;

/// What a 32-bit field says whose number stands in the ZIP64 extra field.
const ELSEWHERE: u32 = u32::MAX;
/// The same of a 16-bit field.
const ELSEWHERE_16: u16 = u16::MAX;
/// Version needed: 2.0 for what everybody reads, 4.5 for ZIP64.
const PLAIN: u16 = 20;
const ZIP64: u16 = 45;
/// General purpose flags: checksum and sizes follow the file (bit 3), its name is UTF-8 (bit 11).
const FLAGS: u16 = 1 << 3 | 1 << 11;
/// "Made by" Unix, which makes of the upper half of the external attributes a mode.
const UNIX: u16 = 3 << 8;
/// A regular file that all may read and its owner may write.
const MODE: u32 = 0o100_644 << 16;

/// A file to be put into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) modified_at: Millis,
}

/// A file that is in the archive.
#[derive(Debug)]
pub(super) struct Written {
    entry: Entry,
    crc: u32,
    /// Where its local header begins.
    offset: u64,
}

impl Written {
    pub(super) fn new(entry: Entry, crc: u32, offset: u64) -> Self {
        Self { entry, crc, offset }
    }
}

/// How long the archive of these files will be.
pub(super) fn length(entries: &[Entry]) -> u64 {
    let mut at = 0;
    let mut central = 0;
    for entry in entries {
        central += central_length(entry, at);
        at += local_header(entry).len() as u64 + entry.bytes + descriptor(entry, 0).len() as u64;
    }
    at + central + ending(entries.len() as u64, (at, central)).len() as u64
}

/// What stands before a file (4.3.7).
pub(super) fn local_header(entry: &Entry) -> Vec<u8> {
    let large = is_large(entry);
    let mut extra = Vec::new();
    if large {
        // Both sizes, as the specification demands of this one (4.5.3).
        put(&mut extra, [1_u16, 16]);
        put(&mut extra, [entry.bytes, entry.bytes]);
    }
    extra.extend(modification_time(entry));
    let mut header = b"PK\x03\x04".to_vec();
    put(&mut header, [if large { ZIP64 } else { PLAIN }, FLAGS, 0]);
    put(&mut header, dos_time(entry.modified_at));
    let size = if large { ELSEWHERE } else { 0 };
    put(&mut header, [0, size, size]);
    put(&mut header, [length_16(&entry.name), length_16(&extra)]);
    header.extend_from_slice(entry.name.as_bytes());
    header.extend(extra);
    header
}

/// What stands after it (4.3.9).
pub(super) fn descriptor(entry: &Entry, crc: u32) -> Vec<u8> {
    let mut descriptor = b"PK\x07\x08".to_vec();
    put(&mut descriptor, [crc]);
    match u32::try_from(entry.bytes) {
        Ok(bytes) if !is_large(entry) => put(&mut descriptor, [bytes, bytes]),
        _ => put(&mut descriptor, [entry.bytes, entry.bytes]),
    }
    descriptor
}

/// All that follows the last file, which ends at `at`: the central directory and its end.
pub(super) fn directory(written: &[Written], at: u64) -> Vec<u8> {
    let mut directory = Vec::new();
    for file in written {
        directory.extend(central_header(file));
    }
    let length = directory.len() as u64;
    directory.extend(ending(written.len() as u64, (at, length)));
    directory
}

/// An entry of the central directory (4.3.12).
fn central_header(Written { entry, crc, offset }: &Written) -> Vec<u8> {
    let elsewhere = elsewhere(entry, *offset);
    let mut extra = Vec::new();
    if !elsewhere.is_empty() {
        put(&mut extra, [1, 8 * length_16(&elsewhere)]);
        put(&mut extra, elsewhere.iter().copied());
    }
    extra.extend(modification_time(entry));
    let needed = if elsewhere.is_empty() { PLAIN } else { ZIP64 };
    let size = if is_large(entry) {
        ELSEWHERE
    } else {
        fitting(entry.bytes)
    };
    let mut header = b"PK\x01\x02".to_vec();
    put(&mut header, [UNIX | ZIP64, needed, FLAGS, 0]);
    put(&mut header, dos_time(entry.modified_at));
    put(&mut header, [*crc, size, size]);
    // No comment, on the first disk, binary.
    put(&mut header, [length_16(&entry.name), length_16(&extra), 0, 0, 0]);
    put(&mut header, [MODE, fitting(*offset)]);
    header.extend_from_slice(entry.name.as_bytes());
    header.extend(extra);
    header
}

fn central_length(entry: &Entry, offset: u64) -> u64 {
    let written = Written::new(entry.clone(), 0, offset);
    central_header(&written).len() as u64
}

/// The end of the central directory (4.3.14 to 4.3.16).
fn ending(count: u64, (at, length): (u64, u64)) -> Vec<u8> {
    let mut ending = Vec::new();
    let few = u16::try_from(count).unwrap_or(ELSEWHERE_16);
    if few == ELSEWHERE_16 || fitting(at) == ELSEWHERE || fitting(length) == ELSEWHERE {
        ending.extend_from_slice(b"PK\x06\x06");
        // The length of the rest of this record.
        put(&mut ending, [44_u64]);
        put(&mut ending, [UNIX | ZIP64, ZIP64]);
        put(&mut ending, [0_u32, 0]);
        put(&mut ending, [count, count, length, at]);
        ending.extend_from_slice(b"PK\x06\x07");
        put(&mut ending, [0_u32]);
        put(&mut ending, [at + length]);
        put(&mut ending, [1_u32]);
    }
    ending.extend_from_slice(b"PK\x05\x06");
    put(&mut ending, [0, 0, few, few]);
    put(&mut ending, [fitting(length), fitting(at)]);
    put(&mut ending, [0_u16]);
    ending
}

/// Whether the size of a file does not fit into its fields.
fn is_large(entry: &Entry) -> bool {
    fitting(entry.bytes) == ELSEWHERE
}

/// The numbers of the ZIP64 extra field of an entry of the central directory: those that do not fit, in this order (4.5.3).
fn elsewhere(entry: &Entry, offset: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    if is_large(entry) {
        numbers.extend([entry.bytes, entry.bytes]);
    }
    if fitting(offset) == ELSEWHERE {
        numbers.push(offset);
    }
    numbers
}

fn fitting(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(ELSEWHERE)
}

/// Info-ZIP's extra field of the time in UTC, which that of the format is not.
fn modification_time(entry: &Entry) -> Vec<u8> {
    let mut field = Vec::new();
    put(&mut field, [0x5455_u16, 5]);
    field.push(1);
    let seconds = entry.modified_at.div_euclid(1000);
    let seconds = seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    put(&mut field, [i32::try_from(seconds).unwrap_or_default()]);
    field
}

/// Time and date as MS-DOS had them, to two seconds, from 1980 to 2107 (4.4.6).
fn dos_time(at: Millis) -> [u16; 2] {
    let earliest = jiff::civil::date(1980, 1, 1).at(0, 0, 0, 0);
    let latest = jiff::civil::date(2107, 12, 31).at(23, 59, 58, 0);
    let moment = jiff::Timestamp::from_millisecond(at)
        .map_or(earliest, |at| at.to_zoned(jiff::tz::TimeZone::UTC).datetime())
        .clamp(earliest, latest);
    let bits = |number: i8| u16::from(number.unsigned_abs());
    let time = bits(moment.hour()) << 11 | bits(moment.minute()) << 5 | (bits(moment.second()) / 2);
    let year = moment.year().abs_diff(1980);
    let date = year << 9 | bits(moment.month()) << 5 | bits(moment.day());
    [time, date]
}

fn length_16<T>(of: &(impl AsRef<[T]> + ?Sized)) -> u16 {
    u16::try_from(of.as_ref().len()).expect("names and extra fields are short")
}

/// A number as the format has it: the lowest byte first.
trait Number {
    fn put(self, to: &mut Vec<u8>);
}

macro_rules! number {
    ($($kind:ty),*) => {
        $(impl Number for $kind {
            fn put(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}
number!(u16, u32, i32, u64);

fn put<N: Number>(to: &mut Vec<u8>, numbers: impl IntoIterator<Item = N>) {
    for number in numbers {
        number.put(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, bytes: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            bytes,
            modified_at: 1_795_284_446_000,
        }
    }

    #[test]
    fn times_are_what_ms_dos_could_say() {
        let said = |at| {
            let [time, date] = dos_time(at);
            let time = (time >> 11, time >> 5 & 0x3f, (time & 0x1f) * 2);
            ((date >> 9) + 1980, date >> 5 & 0xf, date & 0x1f, time)
        };
        // 2026-11-21T18:07:26Z
        assert_eq!(said(1_795_284_446_000), (2026, 11, 21, (18, 7, 26)));
        for unheard_of in [0, i64::MIN, i64::MAX] {
            assert_eq!(said(unheard_of), (1980, 1, 1, (0, 0, 0)));
        }
        assert_eq!(said(5_000_000_000_000), (2107, 12, 31, (23, 59, 58)));
    }

    #[test]
    fn the_length_is_that_of_all_parts_whatever_their_sizes() {
        for sizes in [
            vec![],
            vec![0, 1],
            vec![u64::from(u32::MAX) - 1, 5],
            vec![u64::from(u32::MAX), 7, 1 << 40],
        ] {
            let entries: Vec<Entry> = sizes.iter().map(|bytes| entry("result-0.mp4", *bytes)).collect();
            let (mut at, mut written) = (0, Vec::new());
            for entry in entries.clone() {
                let offset = at;
                at += local_header(&entry).len() as u64 + entry.bytes;
                at += descriptor(&entry, 1).len() as u64;
                written.push(Written::new(entry, 1, offset));
            }
            at += directory(&written, at).len() as u64;
            assert_eq!(length(&entries), at, "{sizes:?}");
        }
    }

    #[test]
    fn files_beyond_four_gibibytes_are_found_by_another_implementation() {
        use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

        let (large, small) = (entry("4k-0-result-0.mp4", 5 << 30), entry("image-0.png", 5));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&local_header(&large)).unwrap();
        // Zeros, of which a sparse file holds none.
        let end = file.seek(SeekFrom::Current(5 << 30)).unwrap();
        file.write_all(&descriptor(&large, 0)).unwrap();
        let offset = file.stream_position().unwrap();
        assert_eq!(offset, end + 24);
        let mut crc = flate2::Crc::new();
        crc.update(b"small");
        file.write_all(&local_header(&small)).unwrap();
        file.write_all(b"small").unwrap();
        file.write_all(&descriptor(&small, crc.sum())).unwrap();
        let at = file.stream_position().unwrap();
        let entries = [large.clone(), small.clone()];
        let written = [Written::new(large, 0, 0), Written::new(small, crc.sum(), offset)];
        file.write_all(&directory(&written, at)).unwrap();
        assert_eq!(file.stream_position().unwrap(), length(&entries));

        let mut archive = ::zip::ZipArchive::new(file).unwrap();
        let sizes = [0, 1].map(|n| archive.by_index(n).unwrap().size());
        assert_eq!(sizes, [5 << 30, 5]);
        let mut read = String::new();
        archive
            .by_name("image-0.png")
            .unwrap()
            .read_to_string(&mut read)
            .unwrap();
        assert_eq!(read, "small");
    }

    #[test]
    fn many_files_are_counted_in_the_larger_record() {
        let few = ending(65_534, (0, 0));
        assert_eq!(few.len(), 22);
        assert_eq!(ending(65_535, (0, 0)).len(), 22 + 56 + 20);
        assert_eq!(ending(1, (u64::from(u32::MAX), 0)).len(), 22 + 56 + 20);
    }
}
