//! How much may be asked for in how much time.

use std::collections::VecDeque;
use std::time::Duration;

use super::settings::Account;
use crate::clock::{Millis, millis};

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Submission,
    Query,
}

/// The windows of an account: 20 submissions in 10 seconds by the getting-started page, about 10 queries a second as seen.
#[derive(Debug)]
pub(super) struct Limits {
    submissions: Option<Window>,
    queries: Option<Window>,
}

impl Limits {
    pub(super) fn new(account: Account) -> Self {
        Self {
            submissions: account
                .submissions
                .map(|most| Window::new(most, Duration::from_secs(10))),
            queries: account
                .queries
                .map(|most| Window::new(most, Duration::from_secs(1))),
        }
    }

    /// Whether there is room for one more now. What is refused does not count.
    pub(super) fn admit(&mut self, sort: Sort, now: Millis) -> bool {
        let window = match sort {
            Sort::Submission => &mut self.submissions,
            Sort::Query => &mut self.queries,
        };
        window.as_mut().is_none_or(|window| window.admit(now))
    }
}

/// At most so many in any stretch of this length.
#[derive(Debug)]
struct Window {
    most: usize,
    length: Millis,
    admitted: VecDeque<Millis>,
}

impl Window {
    fn new(most: u32, length: Duration) -> Self {
        Self {
            most: most as usize,
            length: millis(length),
            admitted: VecDeque::new(),
        }
    }

    fn admit(&mut self, now: Millis) -> bool {
        while self.admitted.front().is_some_and(|at| *at <= now - self.length) {
            self.admitted.pop_front();
        }
        let admitted = self.admitted.len() < self.most;
        if admitted {
            self.admitted.push_back(now);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides_and_forgets_what_it_refused() {
        let mut window = Window::new(2, Duration::from_secs(1));
        let admitted: Vec<bool> = [0, 400, 900, 999, 1_000, 1_399, 1_400]
            .map(|at| window.admit(at))
            .into();
        assert_eq!(admitted, [true, true, false, false, true, false, true]);
    }
}
