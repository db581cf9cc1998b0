//! A timerfd that prints four ticks.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, Handlers};
use rustix::time::{self, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timer = time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let every = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let when = Itimerspec { it_interval: every, it_value: every };
    time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &when)?;

    let ctx = AioContext::builder().build()?;
    let mut ticks = 0;
    let handlers = Handlers::new().read(move |ops| {
        let mut expirations = [0; 8];
        rustix::io::read(ops.fd(), &mut expirations)?;
        ticks += u64::from_ne_bytes(expirations);
        println!("tick {ticks}");
        if ticks >= 4 {
            ops.stop();
        }
        Ok(())
    });
    ctx.set_fd_handler(timer, handlers)?;
    Ok(ctx.run()?)
}
