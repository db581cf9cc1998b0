//! Copies a file block by block: each read is followed by its write, all blocks side by side.
#![allow(clippy::print_stdout)]
use std::{cell::Cell, fs::File, rc::Rc};

use fdmon::AioContext;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("fdmon-copy-{}", std::process::id()));
    let (from, to) =
        (Rc::new(File::open(std::env::current_exe()?)?), Rc::new(File::create(&path)?));
    let ctx = AioContext::builder().build()?;
    let left = Rc::new(Cell::new(from.metadata()?.len().div_ceil(65_536)));
    ctx.plug(|| {
        (0..left.get()).try_for_each(|block| {
            let (to, left, at) = (Rc::clone(&to), Rc::clone(&left), block * 65_536);
            let read = Rc::clone(&from);
            ctx.read_at(read, vec![0; 65_536], at, move |ops, bytes, mut buffer| {
                buffer.truncate(bytes.unwrap());
                let written = move |_: &mut fdmon::Ops<'_>, _, _| left.set(left.get() - 1);
                ops.write_at(to, buffer, at, written).unwrap();
            })
            .map(drop)
        })
    })?;
    ctx.poll_until(|| left.get() == 0)?;
    println!("{} bytes by {:?}", std::fs::read(&path)?.len(), ctx.stats().aio_engine);
    Ok(std::fs::remove_file(path)?)
}
