//! What depends on the kernel that runs: also to be run on other kernels, in slow guests.

mod busy_poll;
mod closed_fds;
mod embedding;
mod fork;
mod kernel_polling;
mod monitors;
mod moving;
mod ring_traps;
mod rings;
mod threads;
mod time;
