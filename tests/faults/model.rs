//! All orders in which callbacks can come, through the real store, against a model of forty lines.
//!
//! Every sequence of up to four callbacks without signature, and random longer ones with signatures that are used again.
//! `REELHOOK_MODEL_CASES` says how many of the latter, forty sequences each (24).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use reelhook::clock::Clock;
use reelhook::provider::payload::Document;
use reelhook::provider::rules::{State, Verdict};
use reelhook::shutdown::Tasks;
use reelhook::store::Store;
use reelhook::store::record::{Binding, Content, NewDelivery, Verified, Via};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::temporary;
use crate::{say, variable};

use What::{Failure, Progress, Success};

const CASES: u64 = 24;
/// Sequences that go through the store side by side, so that a commit holds some of each.
const ABREAST: usize = 200;

/// What a callback says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Progress,
    /// With one of several texts.
    Failure(&'static str),
    /// With these files.
    Success(&'static [&'static str]),
}

/// One callback of a sequence.
#[derive(Debug, Clone, Copy)]
struct Callback {
    what: What,
    kind: &'static str,
    /// Which of the sequence's signatures it bears, if it is signed.
    signature: Option<u8>,
}

const A: What = Success(&["https://cdn.example/a-0.mp4", "https://cdn.example/a-1.mp4"]);
const B: What = Success(&["https://cdn.example/b.mp4"]);
const ALL: [What; 6] = [
    Progress,
    Failure("Internal Error"),
    Failure("Timeout"),
    Success(&[]),
    A,
    B,
];

/// What is to be believed after a sequence, stated as plainly as can be.
#[derive(Debug, Default)]
struct Model {
    /// By kind: what stands, and how many contradictions to it are open.
    outcomes: BTreeMap<&'static str, (What, i64)>,
    /// By signature: what its first use was for.
    bound: BTreeMap<u8, (&'static str, What)>,
    deliveries: i64,
}

/// A verdict and its reason.
type Judgement = (Verdict, Option<&'static str>);

impl Model {
    fn hear(&mut self, callback: Callback) -> Judgement {
        let Callback {
            what,
            kind,
            signature,
        } = callback;
        self.deliveries += 1;
        match signature.map(|signature| (signature, self.bound.get(&signature).copied())) {
            Some((_, Some(first))) if first == (kind, what) => (Verdict::Duplicate, None),
            Some((_, Some((first, _)))) => self.contradict(first, "signature_reused"),
            Some((signature, None)) => {
                self.bound.insert(signature, (kind, what));
                self.believe(kind, what)
            }
            None => self.believe(kind, what),
        }
    }

    fn believe(&mut self, kind: &'static str, what: What) -> Judgement {
        let Some((standing, _)) = self.outcomes.get_mut(kind) else {
            self.outcomes.insert(kind, (what, 0));
            return (Verdict::Accepted, None);
        };
        match (*standing, what) {
            (Progress, _) | (Failure(_), Success(_)) | (Success([]), Success([_, ..])) => {
                *standing = what;
                (Verdict::Accepted, None)
            }
            (Success(_), Failure(_)) => self.contradict(kind, "failure_after_success"),
            (Success(is), Success(other)) if is != other => self.contradict(kind, "different_media"),
            _ => (Verdict::Duplicate, None),
        }
    }

    fn contradict(&mut self, kind: &'static str, reason: &'static str) -> Judgement {
        self.outcomes.get_mut(kind).expect("it is known").1 += 1;
        (Verdict::Conflict, Some(reason))
    }
}

#[test]
fn callbacks_in_any_order_end_in_what_the_model_says() {
    let bench = Bench::new();
    let short = every_sequence(4);
    let count = short.len();
    for abreast in short.chunks(ABREAST) {
        bench.check(abreast, 4).unwrap();
    }

    let callback = (
        select(&ALL[..]),
        select(&["video", "video", "4k"][..]),
        prop_oneof![Just(None), (0..4_u8).prop_map(Some)],
    )
        .prop_map(|(what, kind, signature)| Callback {
            what,
            kind,
            signature,
        });
    let cases = variable("REELHOOK_MODEL_CASES").unwrap_or(CASES);
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(
            &(vec(vec(callback, 1..16), 40), 1..6_usize),
            |(sequences, at_once)| bench.check(&sequences, at_once),
        )
        .unwrap();
    say(&format!(
        "model: {count} short and {} random sequences of callbacks",
        cases * 40
    ));
}

/// All sequences of this length, which have all shorter ones as beginnings.
fn every_sequence(length: u32) -> Vec<Vec<Callback>> {
    let callback = |what| Callback {
        what,
        kind: "video",
        signature: None,
    };
    (0..ALL.len().pow(length))
        .map(|number| {
            let digit = |place| ALL[number / ALL.len().pow(place) % ALL.len()];
            (0..length).map(|place| callback(digit(place))).collect()
        })
        .collect()
}

/// A store, and a new task in it for each sequence.
struct Bench {
    runtime: Runtime,
    store: Store,
    clock: Clock,
    tasks: AtomicU64,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let (runtime, dir, clock) = (Runtime::new().unwrap(), temporary(), Clock::system());
        let open = async { Store::open(&dir.path().join("reelhook.db"), clock.clone(), &Tasks::new()).await };
        let store = runtime.block_on(open).unwrap();
        Self {
            runtime,
            store,
            clock,
            tasks: AtomicU64::new(0),
            _dir: dir,
        }
    }

    /// Sends the sequences side by side, so many callbacks of each at once, and compares what becomes of them.
    fn check(&self, sequences: &[Vec<Callback>], at_once: usize) -> Result<(), TestCaseError> {
        let mut heard: Vec<(String, Model, &[Callback])> = sequences
            .iter()
            .map(|sequence| {
                let number = self.tasks.fetch_add(1, Ordering::Relaxed);
                (format!("task-{number}"), Model::default(), &sequence[..])
            })
            .collect();
        while heard.iter().any(|(_, _, rest)| !rest.is_empty()) {
            let mut answers = Vec::new();
            let mut expected = Vec::new();
            for (task_id, model, rest) in &mut heard {
                let (now, later) = rest.split_at(at_once.min(rest.len()));
                *rest = later;
                for &callback in now {
                    answers.push(self.store.record_delivery(self.delivery(task_id, callback)));
                    expected.push(model.hear(callback));
                }
            }
            // They enter the writer's queue in this order.
            let answers = self.runtime.block_on(join_all(answers));
            let answers = answers.into_iter().map(|answer| {
                let recorded = answer.expect("the store takes them");
                (recorded.verdict, recorded.reason)
            });
            prop_assert_eq!(answers.collect::<Vec<_>>(), expected);
        }
        for (task_id, model, _) in &heard {
            self.compare(task_id, model)?;
        }
        Ok(())
    }

    fn compare(&self, task_id: &str, model: &Model) -> Result<(), TestCaseError> {
        let found = self.runtime.block_on(self.store.tasks_by_id(task_id, None));
        let task = found.unwrap().pop().expect("it was heard of");
        let contradictions: i64 = model.outcomes.values().map(|(_, open)| open).sum();
        prop_assert_eq!(
            (task.deliveries, task.conflicts),
            (model.deliveries, contradictions)
        );
        prop_assert_eq!(task.outcomes.len(), model.outcomes.len());
        for outcome in &task.outcomes {
            let (what, _) = model.outcomes[outcome.kind.as_str()];
            let (state, urls) = match what {
                Progress => (State::Pending, &[][..]),
                Failure(_) => (State::Failed, &[][..]),
                Success(urls) => (State::Succeeded, urls),
            };
            prop_assert_eq!(outcome.state, state);
            let of_kind = task.files.iter().filter(|file| file.kind == outcome.kind);
            let queued: Vec<_> = of_kind
                .map(|file| (file.state.as_str(), file.provider_url.as_str()))
                .collect();
            let announced: Vec<_> = urls.iter().map(|url| ("queued", *url)).collect();
            prop_assert_eq!(queued, announced);
        }
        Ok(())
    }

    fn delivery(&self, task_id: &str, callback: Callback) -> NewDelivery {
        let body = match callback.what {
            Progress => {
                json!({"code": 200, "msg": "success", "data": {"taskId": task_id, "state": "generating"}})
            }
            Failure(msg) => json!({"code": 500, "msg": msg, "data": {"taskId": task_id}}),
            Success(urls) => {
                json!({"code": 200, "msg": "ok", "data": {"taskId": task_id, "info": {"resultUrls": urls}}})
            }
        };
        let body = body.to_string();
        let document = Document::parse(body.as_bytes()).unwrap();
        let now = self.clock.now();
        let binding = callback.signature.map(|signature| Binding {
            key: Sha256::digest(format!("{task_id} {signature}")).into(),
            expires_at: now + 3_600_000,
        });
        NewDelivery {
            source: "kie".to_owned(),
            via: Via::Callback,
            received_at: now,
            remote_addr: None,
            headers: "{}".to_owned(),
            body_length: body.len(),
            body_digest: Sha256::digest(&body).into(),
            content: Content::Verified(Box::new(Verified {
                task_id: document.task_id().clone(),
                kind: callback.kind.parse().unwrap(),
                index: 0,
                event: document.event(),
                binding,
                hold: false,
                reference: None,
            })),
            body: body.into(),
            again: None,
            held: Vec::new(),
        }
    }
}
