//! The memory and the bell of the models: words of loom's own, data whose races loom finds, and a
//! counter of the model's kernel on each side. Nobody hangs up.

use std::time::Instant;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};

use super::ring::{PortWords, Ring, Word};
use super::{ChannelSide, Sizes};
use crate::error::Result;
use crate::notifier::EventNotifier;
use crate::sync::{Arc, AtomicU32};
use crate::word_source::WordSource;

/// Eight bytes of a message: not an atomic here, so that loom tells who reads what is being written.
#[derive(Debug)]
pub(super) struct Data(loom::cell::Cell<u64>);

#[allow(unsafe_code)]
// SAFETY: loom checks each access, and fails where two of them are a race.
unsafe impl Sync for Data {}

impl Data {
    pub fn load(&self) -> u64 {
        self.0.get()
    }

    pub fn store(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    sizes: Sizes,
    ports: [[AtomicU32; 4]; 2],
    rings: [[AtomicU32; 2]; 2],
    data: [Vec<Data>; 2],
}

impl Memory {
    pub fn new(sizes: Sizes) -> Result<Self> {
        let word = |_| AtomicU32::new(0);
        let data = |_| (0..sizes.ring / 8).map(|_| Data(loom::cell::Cell::new(0))).collect();
        Ok(Self {
            sizes,
            ports: [(); 2].map(|()| [0; 4].map(word)),
            rings: [(); 2].map(|()| [0; 2].map(word)),
            data: [0; 2].map(data),
        })
    }

    pub fn capacity(&self) -> u32 {
        self.sizes.capacity
    }

    pub fn port(&self, side: ChannelSide) -> PortWords<'_> {
        let [state, suppress, rung, room] = &self.ports[side.index()];
        let [state, suppress, rung, room] = [state, suppress, rung, room].map(Word);
        PortWords { state, suppress, rung, room }
    }

    pub fn ring(&self, side: ChannelSide) -> Ring<'_> {
        let [head, tail] = &self.rings[side.index()];
        let (capacity, data) = (self.sizes.capacity, &self.data[side.index()][..]);
        Ring { head: Word(head), tail: Word(tail), capacity, data }
    }

    pub fn word_source(memory: &Arc<Self>, side: ChannelSide) -> WordSource {
        let (ring, own) = (memory.ring(side.other()), memory.port(side));
        let words = [ring.head.0, ring.tail.0, own.suppress.0].map(std::ptr::NonNull::from);
        #[allow(unsafe_code)]
        // SAFETY: the words are in this `Arc`, and the port has the suppress word alone.
        unsafe {
            WordSource::owned(words, Box::new(Arc::clone(memory)))
        }
    }
}

#[derive(Debug)]
pub(super) struct Bell {
    own: EventNotifier,
    other: EventNotifier,
}

impl Bell {
    pub fn pair() -> Result<[Self; 2]> {
        let (one, two) = (EventNotifier::new()?, EventNotifier::new()?);
        let first = Self { own: one.clone(), other: two.clone() };
        Ok([first, Self { own: two, other: one }])
    }

    pub fn ring(&self) -> bool {
        self.other.set().is_err()
    }

    pub fn clear(&self) -> bool {
        self.own.test_and_clear().is_err()
    }

    pub fn shut(&self) {
        let _ = self.own.set();
    }

    pub fn wait(&self, _: Option<Instant>) -> Result<bool> {
        crate::monitor::model::wait_for(self.own.as_raw_fd());
        Ok(true)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}
