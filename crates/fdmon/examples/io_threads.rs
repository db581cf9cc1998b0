//! Bells spread over I/O threads, and moved from the busiest thread to the idlest one.
#![allow(clippy::print_stdout, clippy::unit_arg)]
use fdmon::{EventNotifier, IoThread, SendHandlers};
use std::sync::mpsc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = [(); 3].map(|()| IoThread::builder().spawn().expect("there is room for threads"));
    let (mut bells, mut tokens, (heard, hears)) = (Vec::new(), Vec::new(), mpsc::channel());
    for thread in threads.iter().cycle().take(6) {
        let (bell, heard) = (EventNotifier::new()?, heard.clone());
        let clear = bell.clone();
        let handlers = SendHandlers::new(bell.clone()).read(move |ops| {
            Ok(clear.test_and_clear().map(|_| heard.send(ops.remote().id()))??)
        });
        let ack = thread.remote().register_send(handlers).wait()?;
        tokens.push(ack.map_err(|(error, _)| error)?);
        bells.push(bell);
    }
    for at in (0..20_000).map(|at| at % 2 * 3) {
        bells[at].set()?; // the two bells of the first thread
        hears.recv()?;
    }
    let mut by_load: Vec<_> = threads.iter().map(|t| (t.load(), t.remote())).collect();
    by_load.sort_by(|a, b| a.0.total_cmp(&b.0));
    let [(_, idlest), .., (_, busiest)] = &by_load[..] else { unreachable!("there are three") };
    let theirs = tokens.iter().find(|token| token.context_id() == busiest.id()).unwrap();
    let token = busiest.move_to(theirs, idlest).wait()?.map_err(|failed| failed.error)?;
    Ok(println!("moved from context {} to {}: {by_load:.2?}", busiest.id(), token.context_id()))
}
