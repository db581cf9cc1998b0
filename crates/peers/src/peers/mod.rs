//! The peers, a file each, of the same shape: `PEER`, then a function for each workload; `by_token` has those that mio and
//! polling share.
//!
//! | workload | an operation |
//! | --- | --- |
//! | `notify-awake` | the loop is told while it is awake, by what other threads use, and the turn that hears it |
//! | `call-awake` | the same, and something of the program is called there |
//! | `notify-storm` | one of very many tellings by another thread while the loop is busy |
//! | `polled-hit` | a word of memory changes; the loop, which does not sleep, finds it and runs the handler |
//! | `async` | libuv's async1–8: a message to a thread's loop and one back, `--threads` of them |
//! | `async-pummel` | libuv's: `--threads` threads tell the loop without a pause; one callback of it |
//! | `ping-pongs` | libuv's: five bytes to an echo server on a thread of its own and back, loopback TCP |
//! | `million-timers` | libuv's: a timer is made, fires and is taken away; a thousand fire each millisecond |
//! | `poll-bench` | liburing's: 32 readiness requests on one pipe, ready at once; one of them |
//! | `dispatch` | `--ready` eventfds of `--of` are written, found in a turn, and read; one of them |
//! | `register` | one of `--of` fds is registered, the loop turns, and it is removed |
//! | `idle` | 100 fds, none ready, for `--seconds` |

use crate::run::Peer;

mod by_token;
mod compio;
mod event_manager;
mod fdmon;
mod io_uring;
mod mio;
mod monoio;
mod polling;
mod tokio;

pub const ALL: &[Peer] = &[
    fdmon::PEER,
    mio::PEER,
    polling::PEER,
    tokio::PEER,
    event_manager::PEER,
    compio::PEER,
    monoio::PEER,
    io_uring::PEER,
];
