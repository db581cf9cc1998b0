//! Another thread that feeds the context while it sleeps.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fdmon::{BottomHalfId, EventNotifier, Remote};
use rustix::thread::set_current_timer_slack;

use crate::ledger::{Log, Told, Work};

/// Long enough for the context to be asleep, most of the time.
const PAUSE: Duration = Duration::from_micros(100);

pub enum Deed {
    Ring(EventNotifier),
    Work(Arc<Work>, EventNotifier),
    Job(Arc<AtomicU32>),
    Half(BottomHalfId),
    Notify,
}

/// The thread.
pub struct Elsewhere {
    deeds: Option<Sender<Deed>>,
    thread: Option<JoinHandle<()>>,
}

impl Elsewhere {
    pub fn new(remote: Remote, log: Arc<Log>) -> Self {
        let (deeds, to_do) = channel();
        let thread = std::thread::spawn(move || {
            // Else the kernel makes half as much again of it.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
            for deed in to_do {
                std::thread::sleep(PAUSE);
                do_it(&deed, &remote, &log);
            }
        });
        Self { deeds: Some(deeds), thread: Some(thread) }
    }

    /// …in a moment.
    pub fn shall(&self, deed: Deed) {
        self.deeds.as_ref().unwrap().send(deed).unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.deeds = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

fn do_it(deed: &Deed, remote: &Remote, log: &Log) {
    let (op, done): (_, &dyn Fn() -> fdmon::Result<()>) = match deed {
        Deed::Ring(bell) => ("EventNotifier::set", &|| bell.set()),
        Deed::Work(work, bell) => {
            if !work.add() {
                return;
            }
            ("EventNotifier::set", &|| bell.set())
        }
        Deed::Job(runs) => ("Remote::run", &|| {
            let runs = Arc::clone(runs);
            remote.run(move |_| {
                runs.fetch_add(1, Ordering::SeqCst);
            })
        }),
        Deed::Half(half) => ("Remote::schedule", &|| remote.schedule(half)),
        Deed::Notify => ("Remote::notify", &|| remote.notify()),
    };
    while let Err(error) = done() {
        log.tell(Told::of(op, &error));
    }
}
