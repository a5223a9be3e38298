//! Named steps at which a debug build can be told to die, as if the power failed there.
//!
//! The crash harness (`tests/faults`) arms one of them by [`VARIABLE`], lets the server run into it and examines what is
//! left. A release build has none of it: [`step`] is empty there, and the variable is warned of like any other that sets
//! nothing. What is armed is a static because what it ends is the process, and because a step should cost those who
//! read or call the code around it one line.

/// Names a step and how many times it is reached before the process dies there: `commit_returned:3`.
pub const VARIABLE: &str = "REELHOOK_ABORT_AT";

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal,)*) => {
        /// A moment between two changes of which a crash may leave one without the other.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// All there are: the harness dies at each of them.
            pub const ALL: &[Self] = &[$(Self::$step),*];

            /// As it stands in [`VARIABLE`].
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    /// Start: leases of the predecessor are released, what it left in the spool is as it left it.
    LeasesReleased = "leases_released",
    /// Start: only what downloads go on with is in the spool.
    SpoolSwept = "spool_swept",
    /// The writer has taken commands out of its queue and not begun its transaction.
    BatchTaken = "batch_taken",
    /// The rows of a transaction are written, its COMMIT is not.
    RowsWritten = "rows_written",
    /// COMMIT returned, nobody was told.
    CommitReturned = "commit_returned",
    /// A callback is on disk and its handler knows it, the answer is not sent.
    CallbackRecorded = "callback_recorded",
    /// The provider answered a submission, which is not noted.
    SubmissionAccepted = "submission_accepted",
    /// A download is claimed, nothing was asked of the network.
    DownloadClaimed = "download_claimed",
    /// The first part of a file is written, more is to come.
    SpoolHalfWritten = "spool_half_written",
    /// The file is whole and synced in the spool.
    SpoolSynced = "spool_synced",
    /// The file lies on the file system of its destination, still out of sight.
    FileStaged = "file_staged",
    /// The lease was renewed for the last time, the file is not visible.
    LeaseRenewed = "lease_renewed",
    /// The file is visible under its name, its directory is not synced.
    FileRenamed = "file_renamed",
    /// The file is visible for good, its row still says that it is being downloaded.
    FilePublished = "file_published",
    /// The row says that the file is stored.
    DownloadSettled = "download_settled",
    /// The rows of a deleted task are gone, its files are not.
    RowsDeleted = "rows_deleted",
    /// The files are gone, too, the note that they are to be removed is not.
    FilesRemoved = "files_removed",
}

/// Dies here if this step is armed and has been reached often enough.
#[inline]
pub fn step(step: Step) {
    #[cfg(debug_assertions)]
    armed::reached(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

#[cfg(debug_assertions)]
pub use armed::{BadFailpoint, arm};

#[cfg(debug_assertions)]
mod armed {
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Step, VARIABLE};

    /// The one armed step, and how many times it is yet to be passed.
    static ARMED: OnceLock<Armed> = OnceLock::new();

    #[derive(Debug)]
    struct Armed {
        step: Step,
        left: AtomicU64,
    }

    /// Not a step and a count.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("{VARIABLE} names a step and a count from 1 on, such as commit_returned:3; it is `{0}`")]
    pub struct BadFailpoint(String);

    impl FromStr for Armed {
        type Err = BadFailpoint;

        fn from_str(text: &str) -> Result<Self, BadFailpoint> {
            let parse = || {
                let (name, count) = text.split_once(':')?;
                let step = *Step::ALL.iter().find(|step| step.name() == name)?;
                let left: u64 = count.parse().ok().filter(|count| *count > 0)?;
                Some(Self {
                    step,
                    left: left.into(),
                })
            };
            parse().ok_or_else(|| BadFailpoint(text.to_owned()))
        }
    }

    /// Arms the step that [`VARIABLE`]'s text names; only the first call of a process counts.
    pub fn arm(text: &str) -> Result<(), BadFailpoint> {
        let _ = ARMED.set(text.parse()?);
        Ok(())
    }

    pub(super) fn reached(step: Step) {
        let Some(armed) = ARMED.get().filter(|armed| armed.step == step) else {
            return;
        };
        // Several threads may come by at once: exactly one of them sees the last pass.
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("aborting at {}", step.name());
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_is_armed_by_name_and_count() {
            for step in Step::ALL {
                let armed: Armed = format!("{}:2", step.name()).parse().unwrap();
                assert_eq!((armed.step, armed.left.into_inner()), (*step, 2));
            }
            for wrong in ["", "commit_returned", "commit_returned:0", "no_such_step:1"] {
                assert!(wrong.parse::<Armed>().is_err(), "{wrong}");
            }
        }
    }
}
