//! What we answer to an authority that looks whether a name is ours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The answers of the order under way, by their token. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<HashMap<String, String>>>);

impl Challenges {
    /// What to answer under this token, if it is one of ours.
    pub fn answer(&self, token: &str) -> Option<String> {
        self.lock().get(token).cloned()
    }

    /// Answers for one order; they are taken back when the guard is dropped.
    pub(super) fn begin(&self) -> Answers<'_> {
        Answers(self)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

pub(super) struct Answers<'a>(&'a Challenges);

impl Answers<'_> {
    pub(super) fn add(&self, token: &str, answer: &str) {
        self.0.lock().insert(token.to_owned(), answer.to_owned());
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_with_their_order() {
        let challenges = Challenges::default();
        let answers = challenges.begin();
        answers.add("token", "token.thumbprint");
        assert_eq!(challenges.answer("token").as_deref(), Some("token.thumbprint"));
        assert_eq!(challenges.answer("other"), None);
        drop(answers);
        assert_eq!(challenges.answer("token"), None);
    }
}
