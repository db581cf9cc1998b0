//! Two threads and a channel: one asks, the loop of the other answers; awake, neither makes a call.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, ChannelPort, PollParams};
use std::{cell::Cell, rc::Rc, thread, time::Duration};

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
    let params = PollParams::spin(Duration::from_micros(200));
    let (ctx, last) = (AioContext::builder().poll(params).build()?, Rc::new(Cell::new(0)));
    let asked = last.clone();
    let doubles = server.on_message(move |_ops, port, message| {
        asked.set(u64::from_le_bytes(message.try_into()?));
        Ok(port.send(&(asked.get() * 2).to_le_bytes()).map(drop)?)
    });
    ctx.register(doubles).map_err(|(error, _)| error)?;
    ctx.poll_until(|| last.get() == 100_000)?;
    let sum = asking.join().expect("it does not panic")?;
    println!("100000 answers, {sum} together, {} sleeps", ctx.stats().sleeps);
    Ok(())
}
