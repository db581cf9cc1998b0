//! A device with a state of its own: a `Source` that counts how often it was rung.
#![allow(clippy::print_stdout)]
use fdmon::{AioContext, EventNotifier, Interest, Ops, Outcome, Source};
use std::os::fd::{AsFd, BorrowedFd};

struct Doorbell(EventNotifier, u32);

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl Source for Doorbell {
    fn interest(&self) -> Interest {
        Interest::READ
    }
    fn read(&mut self, _: &mut Ops<'_>) -> Outcome {
        self.1 += u32::from(self.0.test_and_clear()?);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ctx, bell) = (AioContext::builder().build()?, EventNotifier::new()?);
    let token = ctx.register(Doorbell(bell.clone(), 0)).map_err(|(error, _)| error)?;
    bell.set().and_then(|()| ctx.poll(true))?;
    println!("rung {} times", ctx.deregister(&token).unwrap().1);
    Ok(())
}
