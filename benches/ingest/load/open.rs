//! The open loop: callbacks are due at a fixed rate whether or not earlier ones were answered.
//!
//! A callback's latency counts from the instant it was due, so time that it spends waiting behind a stalled server, or
//! in this process for a free connection, is part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Answers, Caller, Measured};
use crate::rig::server::Server;

/// Enough that a callback waits for one only behind a server that is stuck.
const CONNECTIONS: u16 = 256;

/// How the load is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLoop {
    pub(crate) per_second: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl OpenLoop {
    /// Applies the load to `server`; the files that the callbacks announce lie on `media_port`.
    pub(crate) async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Measured> {
        let (callers, answers) = Caller::all(CONNECTIONS, server, media_port).await?;
        let due = |time: Duration| u64::from(self.per_second) * u64::from(super::micros(time)) / 1_000_000;
        let interval = Duration::from_secs(1) / self.per_second;
        let metronome = Metronome::new()?;
        let schedule = Arc::new(Schedule {
            start: Instant::now(),
            interval,
            measured_from: due(self.warm_up),
            total: due(self.warm_up + self.measured),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
        });
        metronome.start(interval)?;
        let mut connections = JoinSet::new();
        for caller in callers {
            let driver = Driver {
                caller,
                schedule: Arc::clone(&schedule),
            };
            connections.spawn(driver.run());
        }
        schedule.release(&metronome).await?;
        let answers = answers.and_of_all(connections).await?;
        Measured::since(schedule.instant(schedule.measured_from), answers, server)
    }
}

/// Which callbacks are due, and when each is.
struct Schedule {
    start: Instant,
    interval: Duration,
    /// The number of the first callback in the measured time.
    measured_from: u64,
    total: u64,
    next: AtomicU64,
    /// A permit for each callback that is due and that no connection has taken yet.
    due: Semaphore,
}

impl Schedule {
    /// Lets one callback go at each beat, then every connection come to its end.
    async fn release(&self, metronome: &Metronome) -> std::io::Result<()> {
        let mut released = 0;
        while released < self.total {
            let beats = metronome.beats().await?.min(self.total - released);
            released += beats;
            self.due.add_permits(usize::try_from(beats).unwrap_or(usize::MAX));
        }
        self.due.add_permits(CONNECTIONS.into());
        Ok(())
    }

    /// Waits for the next callback that is due; `None` after the last one.
    async fn take(&self) -> Option<u64> {
        self.due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.total).then_some(number)
    }

    /// When callback `number` is due: the first at the first beat, one interval after the start.
    fn instant(&self, number: u64) -> Instant {
        let nanos = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        self.start + Duration::from_nanos(nanos.saturating_mul(number + 1))
    }
}

/// One connection.
struct Driver {
    caller: Caller,
    schedule: Arc<Schedule>,
}

impl Driver {
    async fn run(self) -> std::io::Result<Answers> {
        let Caller {
            mut connection,
            mut callbacks,
        } = self.caller;
        let mut answers = Answers::default();
        while let Some(number) = self.schedule.take().await {
            let status = connection.status_of(callbacks.next()).await?;
            connection.body().await?;
            let latency = self.schedule.instant(number).elapsed();
            answers.add(status, (number >= self.schedule.measured_from).then_some(latency));
        }
        Ok(answers)
    }
}

/// A kernel timer: tokio's own rounds to milliseconds, which would be most of a latency here.
struct Metronome(AsyncFd<OwnedFd>);

impl Metronome {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for descriptors that may change; an `OwnedFd` is the same until it is dropped"
    )]
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Beats once every `interval` from now on.
    fn start(&self, interval: Duration) -> std::io::Result<()> {
        let interval = Timespec::try_from(interval).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        let beat = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &beat)?;
        Ok(())
    }

    /// Waits for the next beat, and returns how many there were since the last call.
    async fn beats(&self) -> std::io::Result<u64> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut beats = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut beats)?));
            if let Ok(read) = read {
                read?;
                return Ok(u64::from_ne_bytes(beats));
            }
        }
    }
}
