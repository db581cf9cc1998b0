//! What depends on the kernel that runs: also to be run on other kernels, in slow guests.

mod busy_poll;
mod closed_fds;
mod embedding;
mod fork;
mod monitors;
mod threads;
mod time;
