//! A fake provider: its API, its callbacks and its files, as the documentation has them, and its faults on demand.
//!
//! What is documented is done as documented; what is not is a choice, and said to be one where it is made. Tests start it
//! in process by [`Simulator::start`], people by `reelhook simulate`. Its own [`Ledger`] is the truth that a receiver must
//! arrive at.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

mod api;
mod bodies;
mod callbacks;
mod dice;
mod files;
mod film;
mod ledger;
mod limits;
mod settings;
mod tasks;

pub use ledger::{CallbackState, Ledger, LedgerCallback, LedgerFile, LedgerPart, LedgerTask, TaskState};
pub use settings::{Account, Callbacks, Faults, Links, Settings, Trouble};
pub use tasks::{Family, Kind, Role};

use crate::clock::Clock;
use crate::config::{self, Secret};
use crate::shutdown::Tasks;
use callbacks::Timetable;
use dice::Dice;
use files::Films;
use ledger::Detail;
use limits::Limits;
use tasks::Book;

/// Events that a slow listener may lag behind before it misses some.
const EVENTS: usize = 4_096;

/// What happened, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A request made a task, or asked for an upgrade of one.
    Accepted {
        /// The task.
        task_id: String,
        /// Which part of the API it was.
        family: Family,
        /// What is being made.
        kind: Kind,
        /// Of which result.
        index: u32,
    },
    /// A result is there, or has failed.
    Finished {
        /// The task.
        task_id: String,
        /// What was made.
        kind: Kind,
        /// Of which result.
        index: u32,
        /// 200, or the code of the failure.
        code: u16,
        /// What the failure says.
        msg: String,
    },
    /// A callback was tried, once.
    Called {
        /// The task.
        task_id: String,
        /// What it announced.
        kind: Kind,
        /// Of which result.
        index: u32,
        /// Which copy of it: 0, or 1 for a duplicate.
        copy: usize,
        /// Which try: 1 for the first.
        attempt: usize,
        /// What it was answered, if it was.
        status: Option<u16>,
    },
    /// A callback is never tried.
    Dropped {
        /// The task.
        task_id: String,
        /// What it would have announced.
        kind: Kind,
        /// Of which result.
        index: u32,
    },
}

/// A running provider. Clones are the same one; it ends with the tasks it was started on.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    tasks: Tasks,
    dice: Dice,
    addr: SocketAddr,
    /// What the URLs of files begin with.
    media_url: String,
    book: Mutex<Book>,
    limits: Mutex<Limits>,
    trouble: Mutex<Option<Trouble>>,
    films: Films,
    timetable: Timetable,
    events: broadcast::Sender<Event>,
    client: reqwest::Client,
}

impl Simulator {
    /// Listens, and works until `tasks` drain. Errors are those of binding.
    pub async fn start(settings: Settings, clock: Clock, tasks: Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let media_listener = match settings.media_listen {
            Some(at) => Some(TcpListener::bind(at).await?),
            None => None,
        };
        let addr = listener.local_addr()?;
        let media_addr = media_listener
            .as_ref()
            .map_or(Ok(addr), TcpListener::local_addr)?;
        let simulator = Self(Arc::new(Shared {
            dice: Dice::new(settings.seed),
            addr,
            media_url: format!("http://{}", config::as_destination(media_addr)),
            book: Mutex::new(Book::new(settings.account.credits)),
            limits: Mutex::new(Limits::new(settings.account)),
            trouble: Mutex::new(None),
            films: Films::default(),
            timetable: Timetable::default(),
            events: broadcast::channel(EVENTS).0,
            client: callbacks::client(settings.callbacks.timeout).map_err(io::Error::other)?,
            settings,
            clock,
            tasks,
        }));
        let files = files::router(&simulator);
        match media_listener {
            Some(media_listener) => {
                simulator.serve(media_listener, files);
                simulator.serve(listener, api::router(&simulator));
            }
            None => simulator.serve(listener, api::router(&simulator).merge(files)),
        }
        simulator.0.tasks.spawn(callbacks::run(simulator.clone()));
        Ok(simulator)
    }

    fn serve(&self, listener: TcpListener, routes: Router) {
        let tasks = self.0.tasks.clone();
        self.0.tasks.spawn(async move {
            let draining = tasks.clone();
            let serve = axum::serve(listener, routes)
                .with_graceful_shutdown(async move { draining.draining().await })
                .into_future();
            tokio::select! {
                served = serve => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the simulator serves nobody any more");
                    }
                }
                () = tasks.stopping() => {}
            }
        });
    }

    /// Where its API is.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The base URL of its API, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", config::as_destination(self.0.addr))
    }

    /// The key of its API.
    pub fn key(&self) -> &Secret {
        &self.0.settings.key
    }

    /// How it was set.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What everything came to so far. Computes the checksum of every file there is when it is first asked, which takes
    /// its time with many.
    pub fn ledger(&self) -> Ledger {
        ledger::of(self, Detail::Files)
    }

    /// The ledger without any files, which is there at once.
    pub fn outline(&self) -> Ledger {
        ledger::of(self, Detail::Outline)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Begins or ends trouble of the whole API. Files and callbacks go on.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        *lock(&self.0.trouble) = trouble;
    }

    /// Sets what the account has left.
    pub fn set_credits(&self, credits: f64) {
        self.book().credits = credits;
    }

    fn trouble(&self) -> Option<Trouble> {
        *lock(&self.0.trouble)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.0.book)
    }

    fn tell(&self, event: Event) {
        // Nobody need be listening.
        let _ = self.0.events.send(event);
    }
}

/// A panic elsewhere leaves nothing half changed that would matter to a simulation.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
