//! fdmon inside another loop: that loop waits, fdmon says for how long and on which fd.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, EventNotifier, Handlers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ctx, bell) = (AioContext::builder().build()?, EventNotifier::new()?);
    let clear = bell.clone();
    ctx.set_fd_handler(
        bell.clone(),
        Handlers::new().read(move |_| {
            clear.test_and_clear()?;
            println!("seen by the outer loop");
            Ok(())
        }),
    )?;
    bell.set()?;
    let mut done = false;
    while !done {
        let timeout = ctx.prepare()?.map(|ns| Timespec {
            tv_sec: (ns / 1_000_000_000) as i64,
            tv_nsec: (ns % 1_000_000_000) as i64,
        });
        let fd = ctx.backend_fd()?;
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref())?;
        done = ctx.check()? && ctx.dispatch()?;
    }
    Ok(())
}
