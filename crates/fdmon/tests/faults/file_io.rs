//! Results of file I/O that the kernel seldom gives: changed where the completion is taken.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::rc::Rc;

use fdmon::faults::{Completed, rewrite_completions};
use fdmon::{AioContext, AioParams, IoEngine};

const TEXT: &[u8] = b"what stands in the file, to its end";

/// Changes results of file I/O for as long as it lives.
struct Rewriting;

impl Rewriting {
    fn by(mut change: impl FnMut(i32) -> Option<i32> + 'static) -> Self {
        rewrite_completions(Some(Box::new(move |kind, result| {
            if kind == Completed::Io { change(result) } else { None }
        })));
        Self
    }
}

impl Drop for Rewriting {
    fn drop(&mut self) {
        rewrite_completions(None);
    }
}

/// Reads the text, in one buffer or in several.
fn read(several: bool) -> (Result<usize, i32>, Vec<u8>) {
    let ctx = AioContext::builder()
        .aio(AioParams { engine: IoEngine::IoUring, ..AioParams::default() })
        .build()
        .unwrap();
    let memfd = rustix::fs::memfd_create("fdmon-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(memfd);
    file.write_all(TEXT).unwrap();
    let end = Rc::new(RefCell::new(None));
    let ended = Rc::clone(&end);
    let known = |result: std::io::Result<usize>| result.map_err(|e| e.raw_os_error().unwrap());
    let asked = if several {
        let buffers = TEXT.chunks(3).map(|chunk| vec![0; chunk.len()]).collect();
        ctx.readv_at(file, buffers, 0, move |_, result, buffers: Vec<Vec<u8>>| {
            *ended.borrow_mut() = Some((known(result), buffers.concat()));
        })
    } else {
        ctx.read_at(file, vec![0; TEXT.len()], 0, move |_, result, buffer| {
            *ended.borrow_mut() = Some((known(result), buffer));
        })
    };
    asked.unwrap();
    ctx.poll_until(|| end.borrow().is_some()).unwrap();
    end.take().unwrap()
}

/// SPEC 47
#[test]
fn a_read_that_the_kernel_cuts_short_again_and_again_is_whole() {
    for several in [false, true] {
        for most in [1, 2, 5, 34] {
            let calls = Rc::new(Cell::new(0));
            let counted = Rc::clone(&calls);
            let _rewriting = Rewriting::by(move |result| {
                counted.set(counted.get() + 1);
                Some(result.min(most))
            });
            assert_eq!(read(several), (Ok(TEXT.len()), TEXT.to_vec()));
            assert_eq!(calls.get(), TEXT.len().div_ceil(usize::try_from(most).unwrap()));
        }
    }
}

/// SPEC 47
#[test]
fn what_is_interrupted_or_put_off_is_asked_for_again() {
    for errno in [libc::EINTR, libc::EAGAIN] {
        for times in [1, 3, 20] {
            let left = Cell::new(times);
            let _rewriting = Rewriting::by(move |_| {
                left.set(left.get() - 1);
                (left.get() >= 0).then_some(-errno)
            });
            assert_eq!(read(false), (Ok(TEXT.len()), TEXT.to_vec()));
        }
    }
}

/// SPEC 47
#[test]
fn what_fails_for_good_ends_with_its_errno() {
    for errno in [libc::ECANCELED, libc::ENOMEM, libc::EIO, libc::EAGAIN] {
        let _rewriting = Rewriting::by(move |_| Some(-errno));
        assert_eq!(read(false).0, Err(errno));
    }
    // After some of it as well.
    let first = Cell::new(true);
    let _rewriting =
        Rewriting::by(move |_| Some(if first.replace(false) { 4 } else { -libc::EIO }));
    assert_eq!(read(true).0, Err(libc::EIO));
}
