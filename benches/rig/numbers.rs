//! Numbers as text.

/// `12,345`.
pub(crate) fn thousands(value: f64) -> String {
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
pub(crate) fn grouped(value: u64) -> String {
    thousands(count(usize::try_from(value).unwrap_or(usize::MAX)))
}

/// Microseconds as milliseconds: two digits, or none where they would be noise.
pub(crate) fn millis(us: u32) -> String {
    let ms = f64::from(us) / 1000.0;
    if us < 100_000 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// Bytes in MiB, rounded up, so that no limit seems kept that is not.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
pub(crate) fn count(count: usize) -> f64 {
    count as f64
}

/// The value that `percent` of the sorted values do not exceed; 0 for none at all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the place lies within the slice"
)]
pub(crate) fn percentile(sorted: &[u32], percent: f64) -> u32 {
    let place = (count(sorted.len()) * percent / 100.0).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
