//! The report of `strace`, read: which call of which thread began and ended in what order.

/// One system call. Places are line numbers of the report: a call that ended at a lower one than another began happened
/// before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The arguments as `strace -y` shows them: file descriptors with their paths.
    pub(crate) arguments: String,
    pub(crate) result: String,
    pub(crate) began: usize,
    pub(crate) ended: usize,
}

impl Call {
    /// Whether it is one of these calls.
    pub(crate) fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    /// What its first argument, a file descriptor, stands for: a path, or `socket:[…]`.
    pub(crate) fn file(&self) -> Option<&str> {
        let first = self.arguments.split([',', ')']).next()?;
        first.split_once('<')?.1.strip_suffix('>')
    }

    /// Its arguments that are texts.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.arguments.split('"').skip(1).step_by(2).collect()
    }

    /// Whether it is a sync of this file, and was successful.
    pub(crate) fn syncs(&self, file: &str) -> bool {
        self.is(&["fsync", "fdatasync"]) && self.file() == Some(file) && self.result == "0"
    }
}

/// All calls that ended, in the order in which they began. Takes the report of `strace -f` with any kind of time in it,
/// and passes over what is no call.
pub(crate) fn parse(report: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: Vec<(&str, Call)> = Vec::new();
    for (at, line) in report.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((_time, event)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        if let Some(resumed) = event.strip_prefix("<... ") {
            let place = unfinished.iter().position(|(of, _)| *of == thread);
            let (_, mut call) = unfinished.remove(place.expect("what is resumed began"));
            let (_, more) = resumed.split_once("resumed>").expect("it says so");
            let (more, result) = result_of(more).expect("what is resumed ends");
            call.arguments.push_str(more);
            call.ended = at;
            result.clone_into(&mut call.result);
            calls.push(call);
        } else if let Some((name, arguments)) = event.split_once('(') {
            let mut call = Call {
                name: name.to_owned(),
                arguments: String::new(),
                result: String::new(),
                began: at,
                ended: at,
            };
            if let Some(begun) = arguments.strip_suffix(" <unfinished ...>") {
                begun.clone_into(&mut call.arguments);
                unfinished.push((thread, call));
            } else if let Some((arguments, result)) = result_of(arguments) {
                arguments.clone_into(&mut call.arguments);
                result.clone_into(&mut call.result);
                calls.push(call);
            }
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// The arguments, without their parenthesis, and the result.
fn result_of(text: &str) -> Option<(&str, &str)> {
    let (arguments, result) = text.rsplit_once(" = ")?;
    Some((arguments.trim_end().strip_suffix(')')?, result.trim()))
}

#[test]
fn a_report_is_read_whole_or_in_halves() {
    let report = r#"11 12:00:00.1 fsync(5</d/a-wal> <unfinished ...>
12 12:00:00.2 rename("/d/x", "/d/y")     = 0
12 12:00:00.2 --- SIGCHLD {si_signo=SIGCHLD} ---
11 12:00:00.3 <... fsync resumed>)       = -1 EIO (Input/output error)
12 12:00:00.4 recvfrom(7<socket:[9]>,  <unfinished ...>
12 12:00:00.5 <... recvfrom resumed>"POST / = (\r\n"..., 8192, 0, NULL, NULL) = 19
12 12:00:00.6 read(3,  <unfinished ...>
11 12:00:00.7 +++ killed by SIGKILL +++"#;
    let calls = parse(report);
    let places: Vec<_> = calls
        .iter()
        .map(|call| (call.name.as_str(), call.began, call.ended, call.result.as_str()))
        .collect();
    let fsync = ("fsync", 0, 3, "-1 EIO (Input/output error)");
    assert_eq!(places, [fsync, ("rename", 1, 1, "0"), ("recvfrom", 4, 5, "19")]);
    assert!(!calls[0].syncs("/d/a-wal"), "it failed");
    assert_eq!(calls[0].file(), Some("/d/a-wal"));
    assert_eq!(calls[1].texts(), ["/d/x", "/d/y"]);
    assert_eq!(
        (calls[2].file(), calls[2].texts()),
        (Some("socket:[9]"), vec!["POST / = (\\r\\n"])
    );
}
