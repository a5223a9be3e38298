//! What downloads count, for those who watch.

use crate::clock::Clock;
use crate::store::downloads::Settlement;
use crate::telemetry::{Beat, Pulse};

/// Counts what downloads bring and how they end. Cheap to clone; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    pulse: Pulse,
    clock: Clock,
}

impl Meters {
    /// Counts into `pulse`, too.
    pub fn new(pulse: Pulse, clock: Clock) -> Self {
        Self { pulse, clock }
    }

    /// Notes bytes that came from a host.
    pub(super) fn received(&self, bytes: u64) {
        self.pulse.note(self.clock.now(), Beat::Byte, bytes);
    }

    /// Notes how an attempt ended.
    pub(super) fn settled(&self, settlement: &Settlement) {
        let beat = match settlement {
            Settlement::Stored { .. } => Beat::Stored,
            Settlement::Failed { .. } => Beat::Failed,
            Settlement::Retry { .. } | Settlement::Expired { .. } | Settlement::Released { .. } => return,
        };
        self.pulse.note(self.clock.now(), beat, 1);
    }
}
