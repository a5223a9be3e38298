//! Numbers of tasks as text.

use crate::rig::numbers::grouped;

/// `1 million` where it is round, else grouped.
pub(super) fn tasks(count: u64) -> String {
    if count > 0 && count.is_multiple_of(1_000_000) {
        format!("{} million", count / 1_000_000)
    } else {
        grouped(count)
    }
}
