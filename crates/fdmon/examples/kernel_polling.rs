//! A plain socket, spun by the kernel's own readiness: no memory is shared with the other side.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, Handlers, PollParams};
use std::io::{Read, Write};
use std::{cell::Cell, os::unix::net::UnixStream, rc::Rc, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let params = PollParams::spin(Duration::from_micros(200));
    let ctx = AioContext::builder().poll(params).build()?;
    let (ours, mut theirs) = UnixStream::pair()?;
    let answered = Rc::new(Cell::new(0));
    let counter = answered.clone();
    let handlers = Handlers::new().poll_kernel().read(move |ops| {
        rustix::io::read(ops.fd(), &mut [0; 1])?;
        counter.set(counter.get() + rustix::io::write(ops.fd(), b"!")?);
        Ok(())
    });
    ctx.set_fd_handler(ours, handlers)?;
    let asker = std::thread::spawn(move || {
        let mut ask = || theirs.write_all(b"?").and_then(|()| theirs.read_exact(&mut [0; 1]));
        (0..10_000).try_for_each(|_| ask())
    });
    ctx.poll_until(|| answered.get() == 10_000)?;
    asker.join().expect("no panic")?;
    let stats = ctx.stats();
    println!("{} of 10000 found by spinning, {} sleeps", stats.spin_hits, stats.sleeps);
    println!("{} ns spun in vain, guard {:?}", stats.spin_wasted_ns, stats.guard);
    Ok(())
}
