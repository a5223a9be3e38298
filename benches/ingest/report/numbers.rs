//! Numbers as text.

/// `12,345`.
pub(super) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count, grouped alike.
pub(super) fn grouped(value: u64) -> String {
    thousands(crate::load::count(usize::try_from(value).unwrap_or(usize::MAX)))
}

/// Microseconds as milliseconds: two digits, or none where they would be noise.
pub(super) fn millis(us: u32) -> String {
    let ms = f64::from(us) / 1000.0;
    if us < 100_000 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// Bytes in MiB, rounded up, so that no limit seems kept that is not.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}

/// `1 million` where it is round, else grouped.
pub(super) fn tasks(count: u64) -> String {
    if count > 0 && count.is_multiple_of(1_000_000) {
        format!("{} million", count / 1_000_000)
    } else {
        grouped(count)
    }
}
