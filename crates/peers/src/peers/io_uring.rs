//! io-uring: liburing's poll-bench itself, on the crate that is liburing in Rust. No loop: nothing finds who waits.

use io_uring::{IoUring, opcode, types};
use std::os::fd::AsRawFd;

use crate::run::{Fan, Outcome, Peer, Run, drain};

pub const PEER: Peer = Peer { name: "io-uring", workloads: &[("poll-bench", poll_bench)] };

fn poll_bench(run: &Run) -> Outcome {
    let mut ring: IoUring = IoUring::builder().setup_single_issuer().build(1024)?;
    let fan = Fan::new(1)?;
    ring.submitter().register_files(&[fan.readers[0].as_raw_fd()])?;
    let readable = libc::POLLIN.cast_unsigned();
    let request = opcode::PollAdd::new(types::Fixed(0), readable.into()).build().user_data(1);
    run.measure(|| {
        for _ in 0..run.rounds() {
            for _ in 0..run.ready {
                // SAFETY: a poll request refers to no memory.
                unsafe { ring.submission().push(&request) }?;
            }
            ring.submit()?;
            fan.signal()?;
            let mut seen = 0;
            while seen < run.ready {
                if ring.completion().is_empty() {
                    ring.submit_and_wait(1)?;
                }
                seen += ring.completion().count();
            }
            drain(&fan.readers[0])?;
        }
        Ok(())
    })
}
