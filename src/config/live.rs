//! A part of the configuration that a reload replaces while others use it.

use std::sync::{Arc, RwLock};

/// What is in force now. Clones share it; who took it with [`Live::now`] keeps what was in force then.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// In force from the start.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// What is in force.
    pub fn now(&self) -> Arc<T> {
        let value = self.0.read().expect("nothing panics while it holds the lock");
        Arc::clone(&value)
    }

    /// Puts another value in force, for whoever asks from now on.
    pub fn replace(&self, value: T) {
        *self.0.write().expect("nothing panics while it holds the lock") = Arc::new(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_see_the_new_value_and_who_took_the_old_one_keeps_it() {
        let live = Live::new(1);
        let (clone, taken) = (live.clone(), live.now());
        live.replace(2);
        assert_eq!((*clone.now(), *taken), (2, 1));
    }
}
