//! The places where system calls are made.

mod epoll;
mod fds;
mod process;
mod ring;
mod waits;

use crate::table::Group;

/// The tables. Each site has one address, by which it is known.
pub static ALL: [Group; 9] = [
    Group { title: "The epoll monitor", sites: epoll::EPOLL },
    Group { title: "Waits", sites: waits::WAITS },
    Group { title: "Eventfds, timers and files", sites: fds::FDS },
    Group { title: "For an outer loop", sites: epoll::OUTER },
    Group { title: "Kernel busy polling", sites: epoll::BUSY_POLL },
    Group { title: "The ring", sites: ring::RING },
    Group { title: "Completions", sites: ring::COMPLETIONS },
    Group { title: "Threads, clocks and memory", sites: process::PROCESS },
    Group { title: "Queues that are too small", sites: &[ring::FULL, ring::OVERFLOW] },
];

/// The table with this title.
pub fn group(title: &str) -> &'static Group {
    ALL.iter().find(|group| group.title == title).expect("a table of this title")
}
