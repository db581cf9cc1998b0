//! Two threads and a channel: one asks, the loop of the other answers; awake, neither makes a call.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, ChannelPort, PollParams};
use std::{sync::atomic::*, thread, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut client, server) = ChannelPort::pair(64)?;
    let asking = thread::spawn(move || -> fdmon::Result<u64> {
        let mut answer = Vec::new();
        (1..=100_000_u64).try_fold(0, |sum, number| {
            client.send(&number.to_le_bytes())?;
            while !client.receive_into(&mut answer)? {
                client.wait(None)?;
            }
            Ok(sum + u64::from_le_bytes(answer[..].try_into().unwrap_or_default()))
        })
    });
    static LAST: AtomicU64 = AtomicU64::new(0);
    let ctx = AioContext::builder().poll(PollParams::spin(Duration::from_micros(200))).build()?;
    let doubles = server.on_message(|_ops, port, message| {
        LAST.store(u64::from_le_bytes(message.try_into()?), Ordering::Relaxed);
        Ok(port.send(&(LAST.load(Ordering::Relaxed) * 2).to_le_bytes()).map(drop)?)
    });
    ctx.register(doubles).map_err(|(error, _)| error)?;
    ctx.poll_until(|| LAST.load(Ordering::Relaxed) == 100_000)?;
    let sum = asking.join().expect("it does not panic")?;
    println!("100000 answers, {sum} together, {} sleeps", ctx.stats().sleeps);
    Ok(())
}
