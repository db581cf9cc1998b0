//! A word of memory as event source: no system call while both sides are awake.
#![allow(clippy::print_stdout, clippy::unit_arg)]
use fdmon::{AioContext, EventNotifier, Handlers, PollParams, WordSource};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{sync::Arc, thread, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let params = PollParams::spin(Duration::from_micros(200));
    let (ctx, bell) = (AioContext::builder().poll(params).build()?, EventNotifier::new()?);
    let (head, tail, suppress) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>)>::default();
    let word = WordSource::words_differ(head.clone(), tail.clone()).suppress(suppress.clone())?;
    let (published, end) = (head.clone(), tail.clone());
    let take = move || Ok(tail.store(head.load(Ordering::Acquire), Ordering::Release));
    let (clear, rung) = (bell.clone(), take.clone());
    let handlers = Handlers::new().poll(word).poll_ready(move |_| take());
    let handlers = handlers.read(move |_| clear.test_and_clear().map(|_| rung())?);
    ctx.set_fd_handler(bell.clone(), handlers)?;
    let producer = thread::spawn(move || {
        (0..100_000).try_for_each(|_| {
            published.fetch_add(1, Ordering::SeqCst);
            if suppress.load(Ordering::SeqCst) == 0 { bell.set() } else { Ok(()) }
        })
    });
    ctx.poll_until(|| end.load(Ordering::Relaxed) == 100_000)?;
    println!("100000 words came, {} sleeps", ctx.stats().sleeps);
    Ok(producer.join().expect("no panic")?)
}
