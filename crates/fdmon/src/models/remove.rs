//! A handler is removed from elsewhere while its fd wakes the loop.

use std::os::fd::AsRawFd;

use loom::cell::UnsafeCell;
use loom::sync::mpsc;

use super::{check_within, context, thread};
use crate::sync::Arc;
use crate::{EventNotifier, Handlers, MonitorKind};

fn removed(kind: MonitorKind) {
    let ctx = context(kind);
    let bell = EventNotifier::new().unwrap();
    let fd = bell.as_raw_fd();
    // What the callback works on, and the asker takes away: loom sees who touches it when.
    let buffer = Arc::new(UnsafeCell::new(()));
    let (shared, clear) = (Arc::clone(&buffer), bell.clone());
    let handlers = Handlers::new().read(move |_| {
        shared.with_mut(|_| ());
        clear.test_and_clear()?;
        Ok(())
    });
    ctx.set_fd_handler(bell.clone(), handlers).unwrap();
    let signaller = thread(&ctx, move |_| bell.set().unwrap());
    let asker = thread(&ctx, move |remote| {
        let (acknowledge, removed) = mpsc::channel();
        let remove = remote.run(move |ops| {
            ops.remove_fd_handler(fd);
            acknowledge.send(()).unwrap();
            ops.stop();
        });
        remove.unwrap();
        removed.recv().unwrap();
        buffer.with_mut(|_| ());
    });
    ctx.run().unwrap();
    ctx.poll(false).unwrap();
    signaller.join().unwrap();
    ctx.poll(false).unwrap();
    asker.join().unwrap();
}

/// SPEC 10
#[test]
fn nothing_of_a_handler_runs_once_its_removal_is_acknowledged_level_triggered() {
    check_within(2, || removed(MonitorKind::Poll));
}

/// SPEC 10
#[test]
fn nothing_of_a_handler_runs_once_its_removal_is_acknowledged_edge_triggered() {
    check_within(2, || removed(MonitorKind::Epoll));
}
