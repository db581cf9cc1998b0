//! Another thread rings an event notifier; the loop sleeps until it does.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, EventNotifier, Handlers};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ctx = AioContext::builder().build()?;
    let bell = EventNotifier::new()?;
    let clear = bell.clone();
    ctx.set_fd_handler(
        bell.clone(),
        Handlers::new().read(move |ops| {
            clear.test_and_clear()?;
            println!("somebody rang");
            ops.stop();
            Ok(())
        }),
    )?;
    let visitor = std::thread::spawn(move || bell.set());
    ctx.run()?;
    visitor.join().expect("the visitor does not panic")?;
    Ok(())
}
