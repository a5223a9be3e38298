//! The operator's certificate files, watched: what is put in their place is served without a restart.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Certificate, Pair, Served, Unusable};
use crate::clock::{Clock, Millis};
use crate::shutdown::Tasks;

/// How often the files are looked at. Two `stat` calls cost nothing.
const POLL: Duration = Duration::from_secs(5);

/// How long before the end the log begins to remind of it, once a day; of short lives, the last sixth.
const REMIND_FROM: Millis = 7 * 24 * 60 * 60 * 1000;

/// Watches the two files of a certificate.
#[derive(Debug)]
pub struct Files {
    pair: Pair,
    served: Served,
    clock: Clock,
    /// Rung when the operator wants them looked at now.
    look: Arc<Notify>,
    watch: Watch,
}

/// What tells a file that was changed or replaced from what it was, as far as the file system tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    cert_file: Option<FileStamp>,
    key_file: Option<FileStamp>,
}

/// Device, inode, length, seconds and nanoseconds of the last change.
type FileStamp = (u64, u64, u64, i64, i64);

/// What was made of the files so far.
#[derive(Debug)]
struct Watch {
    /// The files as they were when they were last taken.
    taken: Stamp,
    /// The files as they were when they were last found wanting.
    wanting: Option<Stamp>,
    /// The same, once that was said in the log.
    reported: Option<Stamp>,
    /// The days that were left when the log last reminded of it.
    reminded: Option<i64>,
}

impl Files {
    /// Reads the files, and serves what they hold from the start, even if its time is over: refusing to start would
    /// take the API and the downloads away as well.
    ///
    /// `look` is rung to have the files read at once.
    pub fn open(pair: Pair, clock: Clock, look: Arc<Notify>) -> Result<Self, Unusable> {
        let taken = Stamp::of(&pair);
        let certificate = pair.read()?;
        let now = clock.now();
        match certificate.judge(now) {
            Ok(()) => tracing::info!("certificate for {}", certificate.summary(now)),
            Err(flaw) => tracing::error!(
                "{} {flaw}; until then senders that check certificates deliver nothing",
                pair.cert_file.display()
            ),
        }
        Ok(Self {
            pair,
            served: Served::from_start(certificate),
            clock,
            look,
            watch: Watch {
                taken,
                wanting: None,
                reported: None,
                reminded: None,
            },
        })
    }

    /// What is served.
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    /// Watches until the soft stop.
    pub async fn run(mut self, tasks: Tasks) {
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(POLL) => false,
                () = self.look.notified() => true,
                () = tasks.draining() => return,
            };
            // Files may lie on a disk that takes its time.
            let looked = tokio::task::spawn_blocking(move || {
                self.look_at_them(asked);
                self
            });
            self = looked.await.expect("looking at files does not panic");
        }
    }

    fn look_at_them(&mut self, asked: bool) {
        // Taken before reading: what changes meanwhile is seen the next time.
        let stamp = Stamp::of(&self.pair);
        let now = self.clock.now();
        if asked || self.watch.is_news(&stamp) {
            match self.pair.read_valid(now) {
                Ok(certificate) => self.serve(certificate, stamp, now),
                // Two files are not replaced at one instant: only what still stands at the next look is a mistake.
                Err(_) if !asked && self.watch.wanting.as_ref() != Some(&stamp) => {
                    self.watch.wanting = Some(stamp);
                }
                Err(unusable) => {
                    tracing::error!("{unusable}; the certificate in force stays");
                    self.watch.reported = Some(stamp);
                }
            }
        }
        self.remind(now);
    }

    fn serve(&mut self, certificate: Certificate, stamp: Stamp, now: Millis) {
        tracing::info!("certificate read again: now for {}", certificate.summary(now));
        self.served.replace(certificate);
        self.watch = Watch {
            taken: stamp,
            wanting: None,
            reported: None,
            reminded: None,
        };
    }

    fn remind(&mut self, now: Millis) {
        let Some(certificate) = self.served.now() else {
            return;
        };
        let (left, days) = (certificate.not_after() - now, certificate.days_left(now));
        if left > REMIND_FROM.min(certificate.lifetime() / 6) || self.watch.reminded == Some(days) {
            return;
        }
        self.watch.reminded = Some(days);
        tracing::warn!(
            "{} is due for renewal: it is for {}",
            self.pair.cert_file.display(),
            certificate.summary(now)
        );
    }
}

impl Watch {
    fn is_news(&self, stamp: &Stamp) -> bool {
        *stamp != self.taken && self.reported.as_ref() != Some(stamp)
    }
}

impl Stamp {
    fn of(pair: &Pair) -> Self {
        Self {
            cert_file: stamp(&pair.cert_file),
            key_file: stamp(&pair.key_file),
        }
    }
}

/// Of what a link leads to, for certbot and Kubernetes replace links.
fn stamp(path: &Path) -> Option<FileStamp> {
    let found = fs::metadata(path).ok()?;
    let (device, inode) = (found.dev(), found.ino());
    Some((device, inode, found.len(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::clock::parse_rfc3339;
    use crate::tls::Flaw;

    /// A directory with the two files, and what watches them on 2026-11-21.
    struct Place {
        pair: Pair,
        clock: Clock,
        _dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = |name: &str| -> PathBuf { dir.path().join(name) };
            Self {
                pair: Pair {
                    cert_file: file("cert.pem"),
                    key_file: file("key.pem"),
                },
                clock: Clock::manual(parse_rfc3339("2026-11-21T00:00:00Z").unwrap()),
                _dir: dir,
            }
        }

        fn with(self, (chain, key): (String, String)) -> Self {
            self.put(&chain, &key);
            self
        }

        fn put(&self, chain: &str, key: &str) {
            fs::write(&self.pair.cert_file, chain).unwrap();
            fs::write(&self.pair.key_file, key).unwrap();
        }

        fn files(&self) -> Files {
            Files::open(self.pair.clone(), self.clock.clone(), Arc::default()).unwrap()
        }

        fn flaw(&self) -> String {
            let unusable = self.pair.read_valid(self.clock.now()).expect_err("it has a flaw");
            let name = unusable.path.file_name().unwrap().to_str().unwrap();
            format!("{name} {}", unusable.flaw)
        }
    }

    fn pair(name: &str) -> (String, String) {
        until(name, 2027)
    }

    fn until(name: &str, year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(year - 2, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn served(files: &Files) -> String {
        files.served.now().unwrap().names().join(",")
    }

    #[test]
    fn what_takes_the_place_of_the_files_is_served() {
        let place = Place::new().with(pair("old.example"));
        let mut files = place.files();
        files.look_at_them(false);
        assert_eq!(served(&files), "old.example");
        let (chain, key) = pair("new.example");
        place.put(&chain, &key);
        files.look_at_them(false);
        assert_eq!(served(&files), "new.example");
    }

    #[test]
    fn between_the_two_files_of_one_issue_nothing_is_said_and_nothing_changes() {
        let place = Place::new().with(pair("old.example"));
        let mut files = place.files();
        let (chain, key) = pair("new.example");
        fs::write(&place.pair.cert_file, &chain).unwrap();
        files.look_at_them(false);
        assert_eq!(
            (served(&files).as_str(), &files.watch.reported),
            ("old.example", &None)
        );
        fs::write(&place.pair.key_file, &key).unwrap();
        files.look_at_them(false);
        assert_eq!(served(&files), "new.example");
    }

    #[test]
    fn what_stays_wrong_is_said_once_and_the_old_one_stays() {
        let place = Place::new().with(pair("old.example"));
        let mut files = place.files();
        place.put("garbage", "garbage");
        let mut reported = Vec::new();
        for _ in 0..3 {
            files.look_at_them(false);
            reported.push(files.watch.reported.is_some());
        }
        assert_eq!(reported, [false, true, true]);
        assert!(!files.watch.is_news(&Stamp::of(&place.pair)), "not said again");
        assert_eq!(served(&files), "old.example");
    }

    #[test]
    fn asked_for_it_is_said_at_once() {
        let place = Place::new().with(pair("old.example"));
        let mut files = place.files();
        place.put("garbage", "garbage");
        files.look_at_them(true);
        assert!(files.watch.reported.is_some());
        assert_eq!(served(&files), "old.example");
    }

    #[test]
    fn each_flaw_names_its_file() {
        let (chain, key) = pair("a.example");
        let (other, _) = pair("b.example");
        for (chain, key, said) in [
            ("", &*key, "cert.pem holds no certificate; it wants PEM"),
            (&*key, &*key, "cert.pem holds no certificate; it wants PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &*key,
                "cert.pem holds a certificate that cannot be understood",
            ),
            (&*chain, "", "key.pem holds no private key; it wants PEM"),
            (
                &*chain,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "key.pem holds a key that cannot be used",
            ),
            (&*other, &*key, "key.pem is not the key of this certificate"),
        ] {
            let place = Place::new().with((chain.to_owned(), key.to_owned()));
            let flaw = place.flaw();
            assert!(flaw.starts_with(said), "{flaw} does not start with {said}");
        }
        let missing = Place::new().flaw();
        assert!(missing.starts_with("cert.pem cannot be read: "), "{missing}");
    }

    #[test]
    fn one_whose_time_is_over_or_has_not_come_does_not_take_over() {
        for (year, said) in [
            (2026, "cert.pem expired on 2026-01-01T00:00:00.000Z"),
            (2029, "cert.pem is not valid before 2027-01-01T00:00:00.000Z"),
        ] {
            let place = Place::new().with(pair("old.example"));
            let mut files = place.files();
            let (chain, key) = until("new.example", year);
            place.put(&chain, &key);
            files.look_at_them(true);
            assert_eq!(served(&files), "old.example");
            assert!(place.flaw().starts_with(said), "{}", place.flaw());
        }
    }

    #[test]
    fn one_whose_time_is_over_is_served_where_there_is_no_other() {
        let place = Place::new().with(until("late.example", 2026));
        let files = place.files();
        assert_eq!(served(&files), "late.example");
        let judged = files.served.now().unwrap().judge(place.clock.now());
        assert!(matches!(judged, Err(Flaw::Expired(_))), "{judged:?}");
    }

    #[test]
    fn its_end_is_reminded_of_once_a_day() {
        let place = Place::new().with(pair("a.example"));
        let mut files = place.files();
        let mut reminded = Vec::new();
        // 41 days are left; two looks at each of 10, 8, 7 and 6 days before the end.
        for days in [31, 0, 2, 0, 1, 0, 1, 0] {
            place.clock.advance(Duration::from_hours(days * 24));
            let before = files.watch.reminded;
            files.look_at_them(false);
            reminded.push(files.watch.reminded != before);
        }
        assert_eq!(reminded, [false, false, false, false, true, false, true, false]);
    }
}
