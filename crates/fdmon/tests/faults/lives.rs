//! Lives of contexts that a place needs which the busy world does not lead to.

use std::cell::Cell;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{Handlers, IoThread, PolicyKind, PollParams};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::injector::Stage;
use crate::ledger::{Bell, Log};
use crate::table::{On, Phase};
use crate::world::{self, World, live, tried};

/// A ring that was asked for is refused, with a reason; then it is not.
pub fn refused_ring(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    stage.enter(Phase::Build);
    let Err(error) = world::build(on, spins) else {
        log.wrong("the ring was not refused".into());
        return;
    };
    let text = error.to_string();
    if !text.contains("EPERM: a seccomp profile refuses io_uring_setup") || !text.contains("; ") {
        log.wrong(format!("the refusal says: {text}"));
    }
    live(on, spins, stage, log);
}

/// Many fds, one of which turns out to be closed when they move to epoll.
pub fn closed_under_move(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    stage.enter(Phase::Grow);
    for _ in 0..70 {
        let bell = world.bell("one of many");
        world.listen(&bell, |handlers| handlers);
        world.bells.push(bell);
    }
    without_the_closed(world);
}

/// External handlers, one of which turns out to be closed when they are heard again.
pub fn closed_while_held_back(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    for _ in 0..25 {
        let bell = world.bell("external");
        world.listen(&bell, |handlers: Handlers| handlers.external(true));
        world.bells.push(bell);
    }
    world.ctx.disable_external();
    world.turn(false);
    stage.enter(Phase::Work);
    world.ctx.enable_external();
    without_the_closed(world);
}

/// Handlers on a ring, of which one turns out to be closed when its poll completes.
pub fn closed_on_ring(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    for _ in 0..25 {
        let bell = world.bell("one of some");
        world.listen(&bell, |handlers| handlers);
        world.bells.push(bell);
    }
    stage.enter(Phase::Work);
    without_the_closed(world);
}

/// A context that measures what a wake-up takes, as one does that spins by the default policy.
pub fn measured(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    let cost =
        PollParams { policy: PolicyKind::Cost, ..PollParams::spin(Duration::from_millis(1)) };
    world.call("set_poll_params", || world.ctx.set_poll_params(cost.clone()));
    for name in ["first", "second", "third", "fourth"] {
        let bell = world.bell(name);
        world.listen(&bell, Handlers::poll_kernel);
        world.bells.push(bell);
    }
    stage.enter(Phase::Work);
    for _ in 0..2 {
        for bell in &world.bells {
            world.ring(bell);
        }
        world.until("a bell", true, || world.bells.iter().all(|bell| !bell.owed.get()));
    }
    world.wake_ups();
    world.close(4);
}

/// A thread that runs a context.
pub fn io_thread(on: On, _spins: bool, stage: &Stage, log: &Arc<Log>) {
    stage.enter(Phase::Build);
    let (monitor, ring) = world::asked(on);
    let thread = tried(log, "IoThread::spawn", || {
        IoThread::builder().monitor(monitor).ring(ring.clone()).poll(PollParams::default()).spawn()
    });
    stage.watch_over(thread.remote());
    stage.enter(Phase::Work);
    let jobs = Arc::new(AtomicU32::new(0));
    let mut busy = 0;
    for round in 1..=20 {
        tried(log, "Remote::run", || {
            let jobs = Arc::clone(&jobs);
            thread.remote().run(move |_| {
                jobs.fetch_add(1, Ordering::SeqCst);
            })
        });
        while jobs.load(Ordering::SeqCst) < round && !stage.hung.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let before = std::mem::replace(&mut busy, thread.busy_ns());
        if busy < before {
            log.wrong("the thread was less busy than before".into());
        }
    }
    let stats = thread.stats();
    log.note_monitor(stats.monitor, stats.monitor_reason);
    if jobs.load(Ordering::SeqCst) != 20 || stage.hung.load(Ordering::SeqCst) {
        log.wrong("jobs are lost".into());
    }
    stage.enter(Phase::Close);
    match thread.stop() {
        Ok(report) if report.handlers == 0 => {}
        ended => log.wrong(format!("the thread ended with {ended:?}")),
    }
}

/// A handler whose predicate hits while its fd, watched by the ring, is ready as well: what completes
/// is older than the callback, so it is not believed and asked for anew.
pub fn not_believed(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    world.listen_for_work();
    let bell = world.bell("beside it");
    world.listen(&bell, |handlers| handlers);
    world.bells.push(bell);
    world.ring(&world.bells[0]);
    world.until("a bell", true, || !world.bells[0].owed.get());
    stage.enter(Phase::Work);
    for _ in 0..3 {
        world.work_and_bell();
        world.ring(&world.bells[0]);
        world.until("a bell beside work", true, || !world.bells[0].owed.get());
    }
    world.calm("what was not believed");
    world.close(2);
}

/// Urgent data on a TCP connection, which a ring looks for before it reports any.
pub fn urgent(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    let (client, served) = stage.aside(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, Rc::new(OwnedFd::from(listener.accept().unwrap().0)))
    });
    let came = Rc::new(Cell::new(0));
    let _token = world.call("set_fd_handler", || {
        let came = came.clone();
        let handlers = Handlers::new().priority(move |ops| {
            let taken = recv(ops.fd(), &mut [0], RecvFlags::OOB).is_ok();
            came.set(came.get() + u32::from(taken));
            Ok(())
        });
        world.ctx.set_fd_handler(Rc::clone(&served), handlers)
    });
    let bell = world.bell("beside it");
    world.listen(&bell, |handlers| handlers);
    world.bells.push(bell);
    stage.enter(Phase::Work);
    for round in 1..=3 {
        world.ring(&world.bells[0]);
        stage.aside(|| send(&client, b"!", SendFlags::OOB).unwrap());
        world.until("urgent data", true, || came.get() == round);
        world.until("a bell beside it", true, || !world.bells[0].owed.get());
    }
    world.calm("urgent data");
    world.close(2);
}

/// It is removed; the others are heard.
fn without_the_closed(mut world: World<'_>) {
    world.look_at_monitor();
    let all = world.bells.len();
    for bell in &world.bells {
        world.ring(bell);
    }
    let is_left = |bell: &Bell| {
        let stats = world.ctx.stats();
        stats.handlers.iter().any(|handler| handler.fd == bell.notifier.as_raw_fd())
    };
    let has_come = |bell: &Rc<Bell>| !bell.owed.get() || !is_left(bell);
    world.until("the others", true, || world.bells.iter().all(has_come));
    let left: Vec<_> = world.bells.iter().filter(|bell| is_left(bell)).cloned().collect();
    world.bells = left;
    if world.bells.len() + 1 != all {
        world.log.wrong(format!("{} of {all} handlers are left", world.bells.len()));
    }
    for bell in &world.bells {
        world.ring(bell);
    }
    world.until("the others again", true, || world.bells.iter().all(|bell| !bell.owed.get()));
    world.calm("the others");
    let left = world.bells.len().try_into().unwrap();
    world.close(left);
}
