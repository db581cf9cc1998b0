//! Timers and bottom halves: a timer that arms itself again, and work for the next turn.
#![allow(clippy::print_stdout)]
use std::time::Duration;

use fdmon::AioContext;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ctx = AioContext::builder().build()?;
    let mut left = 3;
    let half = ctx.bottom_half(|_| {
        println!("bottom half");
        Ok(())
    })?;
    let timer = ctx.timer(move |ops| {
        println!("timer");
        half.schedule();
        left -= 1;
        if left == 0 {
            ops.stop();
        }
        Ok(())
    })?;
    for _ in 0..3 {
        timer.arm(Duration::from_millis(2))?;
        ctx.poll_until(|| !timer.is_pending())?;
    }
    Ok(())
}
