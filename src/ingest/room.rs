//! The memory that all callback bodies share, and what each of them holds of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;

/// Bytes per permit: a semaphore counts to 2^29 on small machines.
const UNIT: u64 = 1024;

/// The bound on all bodies together. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    total: u32,
}

impl Memory {
    /// Of so many bytes.
    pub fn of(bytes: u64) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let total = u32::try_from(bytes.div_ceil(UNIT)).map_or(most, |total| total.min(most));
        Self {
            free: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// What a body holds before anything of it has come: nothing.
    pub fn room(&self) -> Room {
        Room {
            memory: self.clone(),
            bytes: 0,
            held: None,
        }
    }
}

/// What one body holds; free again when this, or the permit made of it, is dropped.
#[derive(Debug)]
pub struct Room {
    memory: Memory,
    bytes: u64,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The permit for what it holds, if that is anything.
    pub(super) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        self.held
    }

    /// Takes room for so many more bytes, or none of it.
    ///
    /// A body that would need more than all there is gets by with all there is: alone, each one gets in.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        let bytes = self.bytes.saturating_add(bytes);
        let needed =
            u32::try_from(bytes.div_ceil(UNIT)).map_or(self.memory.total, |n| n.min(self.memory.total));
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = needed.saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if missing > 0 {
            let free = self.memory.free.clone();
            let more = free.try_acquire_many_owned(missing).map_err(|_| Refusal::Busy)?;
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_by_the_sum_of_what_came() {
        let memory = Memory::of(4 * UNIT);
        let mut room = memory.room();
        for _ in 0..4 * UNIT {
            room.grow(1).unwrap();
        }
        let mut other = memory.room();
        assert!(matches!(other.grow(1), Err(Refusal::Busy)));
        drop(room);
        other.grow(4 * UNIT).unwrap();
    }

    #[test]
    fn a_body_alone_gets_in_however_large_it_becomes() {
        let memory = Memory::of(4 * UNIT);
        let mut room = memory.room();
        room.grow(3 * UNIT).unwrap();
        room.grow(3 * UNIT).unwrap();
        assert!(matches!(memory.room().grow(1), Err(Refusal::Busy)));
        drop(room);
        let mut first = memory.room();
        first.grow(1).unwrap();
        assert!(matches!(memory.room().grow(5 * UNIT), Err(Refusal::Busy)));
    }
}
