//! A busy little world: one of everything that a context does, in the same order each time.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdmon::{
    AioContext, BusyPoll, Error, EventNotifier, Handlers, Interest, MonitorKind, OuterLoop,
    PolicyKind, PollParams, Result, RingMode, RingParams, Token,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use crate::elsewhere::{Deed, Elsewhere};
use crate::injector::Stage;
use crate::ledger::{Bell, Log, Predicate, Told, Work};
use crate::table::{On, Phase};

/// More handlers than `auto` keeps on poll.
const MANY: usize = 70;

pub struct World<'a> {
    spins: bool,
    pub stage: &'a Stage,
    pub log: Arc<Log>,
    pub ctx: AioContext,
    elsewhere: Option<Elsewhere>,
    pub bells: Vec<Rc<Bell>>,
    sockets: Vec<Sockets>,
    work: Arc<Work>,
    working: Rc<Bell>,
}

/// Two connected sockets; the left one is watched for both directions.
struct Sockets {
    token: Token<Rc<OwnedFd>>,
    right: OwnedFd,
    came: Rc<Cell<usize>>,
    writable: Rc<Cell<u32>>,
}

/// Lives the whole life of a context, and notes what is not as it should be.
pub fn live(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    live_with(|world| world.busy_poll(), on, spins, stage, log);
}

/// …on a kernel that has no kernel busy polling.
pub fn live_without_busy_poll(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    live_with(|_| {}, on, spins, stage, log);
}

fn live_with(busy_poll: fn(&mut World<'_>), on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    world.spin();
    world.register();
    world.work();
    world.grow();
    busy_poll(&mut world);
    world.embed();
    let handlers = world.bells.len() + world.sockets.len() + 1;
    world.close(handlers.try_into().unwrap());
}

impl<'a> World<'a> {
    pub fn new(on: On, spins: bool, stage: &'a Stage, log: &Arc<Log>) -> Self {
        stage.enter(Phase::Build);
        let log = Arc::clone(log);
        let ctx = tried(&log, "build", || build(on, spins));
        log.note_monitor(ctx.monitor(), ctx.monitor_reason());
        stage.watch_over(ctx.remote());
        let elsewhere = Some(Elsewhere::new(ctx.remote(), Arc::clone(&log)));
        stage.enter(Phase::Register);
        let notifier = tried(&log, "EventNotifier::new", EventNotifier::new);
        stage.know_bell(notifier.as_raw_fd());
        let working = Bell::new("work", notifier, &log);
        let (bells, sockets, work) = (Vec::new(), Vec::new(), Arc::default());
        Self { spins, stage, log, ctx, elsewhere, bells, sockets, work, working }
    }

    pub fn call<T>(&self, op: &'static str, run: impl Fn() -> Result<T>) -> T {
        let result = tried(&self.log, op, run);
        self.look_at_monitor();
        result
    }

    pub fn look_at_monitor(&self) {
        self.log.note_monitor(self.ctx.monitor(), self.ctx.monitor_reason());
    }

    // --- turns ----------------------------------------------------------------------------------

    pub fn turn(&self, blocking: bool) -> bool {
        let result = self.ctx.poll(blocking);
        self.take_result("poll", result)
    }

    fn take_result(&self, op: &'static str, result: Result<bool>) -> bool {
        self.look_at_monitor();
        note_result(&self.log, op, result)
    }

    /// Turns until it has come.
    pub fn until(&self, what: &str, blocking: bool, has_come: impl Fn() -> bool) {
        while !has_come() {
            if self.stage.hung.load(Ordering::SeqCst) {
                return self.log.wrong(format!("{what} does not come"));
            }
            self.turn(blocking);
        }
    }

    /// Nothing is left that would come.
    pub fn calm(&self, after: &str) {
        for _ in 0..3 {
            self.turn(false);
        }
        for bell in self.bells.iter().filter(|bell| bell.owed.get()) {
            self.log.wrong(format!("'{}' is lost after {after}", bell.name));
        }
        if self.stage.hung.load(Ordering::SeqCst) {
            self.log.wrong(format!("it slept on although there was something: {after}"));
        }
    }

    // --- events ---------------------------------------------------------------------------------

    pub fn bell(&self, name: &'static str) -> Rc<Bell> {
        let notifier = self.call("EventNotifier::new", EventNotifier::new);
        self.stage.know_bell(notifier.as_raw_fd());
        Bell::new(name, notifier, &self.log)
    }

    pub fn listen(
        &self,
        bell: &Rc<Bell>,
        more: impl Fn(Handlers) -> Handlers,
    ) -> Token<EventNotifier> {
        self.call("set_fd_handler", || {
            let handlers = more(Handlers::new().read(bell.answer()));
            self.ctx.set_fd_handler(bell.notifier.clone(), handlers)
        })
    }

    pub fn ring(&self, bell: &Bell) {
        bell.owed.set(true);
        self.call("EventNotifier::set", || bell.notifier.set());
    }

    fn ring_from_elsewhere(&self, bell: &Bell) {
        bell.owed.set(true);
        self.elsewhere().shall(Deed::Ring(bell.notifier.clone()));
    }

    fn clear(&self, bell: &Bell) {
        if !self.call("test_and_clear", || bell.notifier.test_and_clear()) {
            self.log.spurious.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn elsewhere(&self) -> &Elsewhere {
        self.elsewhere.as_ref().unwrap()
    }

    // --- the life -------------------------------------------------------------------------------

    /// While there are only handlers that can be spun.
    fn spin(&mut self) {
        self.stage.enter(Phase::Spin);
        let spun = self.bell("spun on the kernel");
        self.listen(&spun, Handlers::poll_kernel);
        self.bells.push(spun);
        self.listen_for_work();
        self.spinning();
        self.stage.enter(Phase::Register);
        self.calm("spinning");
    }

    fn register(&mut self) {
        self.stage.enter(Phase::Register);
        for name in ["first", "second", "third"] {
            let bell = self.bell(name);
            self.listen(&bell, |handlers| handlers);
            self.bells.push(bell);
        }
        let external = self.bell("external");
        self.listen(&external, |handlers| handlers.external(true));
        self.bells.push(external);
        for _ in 0..2 {
            let sockets = self.new_sockets();
            self.sockets.push(sockets);
        }
    }

    pub fn listen_for_work(&self) {
        let (work, log, bell) = (&self.work, &self.log, &self.working);
        self.call("set_fd_handler", || {
            let (read, ready) = (Arc::clone(work), Arc::clone(work));
            let (clear, noted) = (bell.notifier.clone(), Arc::clone(log));
            let handlers = Handlers::new()
                .read(move |_| {
                    if !clear.test_and_clear()? {
                        noted.spurious.fetch_add(1, Ordering::SeqCst);
                    }
                    read.take();
                    Ok(())
                })
                .poll(Predicate(Arc::clone(work), Arc::clone(log)))
                .poll_ready(move |_| {
                    ready.take();
                    Ok(())
                });
            self.ctx.set_fd_handler(bell.notifier.clone(), handlers)
        });
    }

    fn new_sockets(&self) -> Sockets {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (left, right) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let (came, writable) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let left = Rc::new(left);
        let token = self.call("set_fd_handler", || {
            let (bytes, writes) = (came.clone(), writable.clone());
            let handlers = Handlers::new()
                .read(move |ops| {
                    let mut buffer = [0; 64];
                    let fd = ops.fd();
                    while let Ok((_, n @ 1..)) = recv(fd, &mut buffer, RecvFlags::empty()) {
                        bytes.set(bytes.get() + n);
                    }
                    Ok(())
                })
                .write(move |_| {
                    writes.set(writes.get() + 1);
                    Ok(())
                });
            self.ctx.set_fd_handler(Rc::clone(&left), handlers)
        });
        self.call("set_interest", || token.set_interest(Interest::READ));
        Sockets { token, right, came, writable }
    }

    fn work(&mut self) {
        self.stage.enter(Phase::Work);
        for blocking in [false, true] {
            self.bells_from_home(blocking);
            self.traffic(blocking);
        }
        self.wake_ups();
        self.deadlines();
        self.spinning();
        self.nesting();
        self.held_back();
        self.replacing();
        self.always_ready();
        self.orphans();
        self.removing();
        self.calm("work");
    }

    fn bells_from_home(&self, blocking: bool) {
        for bell in &self.bells {
            self.ring(bell);
        }
        self.until("a bell", blocking, || self.bells.iter().all(|bell| !bell.owed.get()));
        for bell in &self.bells[1..3] {
            self.ring(bell);
            self.until("one bell", blocking, || !bell.owed.get());
        }
        self.calm("bells");
    }

    fn traffic(&self, blocking: bool) {
        let expected: Vec<_> =
            self.sockets.iter().map(|s| (s.came.get() + 3, s.writable.get() + 1)).collect();
        for sockets in &self.sockets {
            send(&sockets.right, b"abc", SendFlags::empty()).unwrap();
            let both = Interest::READ | Interest::WRITE;
            self.call("set_interest", || sockets.token.set_interest(both));
        }
        let came = |(sockets, expected): (&Sockets, &(usize, u32))| {
            sockets.came.get() >= expected.0 && sockets.writable.get() >= expected.1
        };
        self.until("traffic", blocking, || self.sockets.iter().zip(&expected).all(came));
        for (sockets, expected) in self.sockets.iter().zip(&expected) {
            self.call("set_interest", || sockets.token.set_interest(Interest::READ));
            if sockets.came.get() != expected.0 {
                self.log.wrong(format!("{} bytes came of {}", sockets.came.get(), expected.0));
            }
        }
        let writes: Vec<_> = self.sockets.iter().map(|s| s.writable.get()).collect();
        self.calm("traffic");
        if writes != self.sockets.iter().map(|s| s.writable.get()).collect::<Vec<_>>() {
            self.log.wrong("write ran without interest in it".into());
        }
    }

    pub fn wake_ups(&self) {
        for bell in &self.bells[1..4] {
            self.ring_from_elsewhere(bell);
            self.until("a bell from elsewhere", true, || !bell.owed.get());
        }
        let jobs = Arc::new(AtomicU32::new(0));
        let halves = Rc::new(Cell::new(0));
        let count = halves.clone();
        let half = self.call("bottom_half", || {
            let count = count.clone();
            self.ctx.bottom_half(move |_| {
                count.set(count.get() + 1);
                Ok(())
            })
        });
        for round in 1..=3 {
            self.elsewhere().shall(Deed::Job(Arc::clone(&jobs)));
            self.until("a job", true, || jobs.load(Ordering::SeqCst) == round);
            self.elsewhere().shall(Deed::Half(half.id()));
            self.until("a bottom half", true, || halves.get() == round);
            self.elsewhere().shall(Deed::Notify);
            self.turn(true);
        }
        self.calm("wake-ups");
        let ran = (jobs.load(Ordering::SeqCst), halves.get());
        if ran != (3, 3) {
            self.log.wrong(format!("{ran:?} jobs and bottom halves ran instead of 3"));
        }
        half.delete();
    }

    fn deadlines(&self) {
        for us in [300, 1300, 2300] {
            let fired = Rc::new(Cell::new(0));
            let count = fired.clone();
            let timer = self.call("timer", || {
                let count = count.clone();
                self.ctx.timer(move |_| {
                    count.set(count.get() + 1);
                    Ok(())
                })
            });
            let due = self.ctx.now_ns() + us * 1000;
            self.call("arm", || timer.arm_at(due));
            self.until("a deadline", true, || fired.get() != 0);
            if self.ctx.now_ns() < due {
                self.log.wrong("a timer ran too early".into());
            }
            self.calm("deadlines");
            if fired.get() != 1 {
                self.log.wrong(format!("a timer ran {} times", fired.get()));
            }
            timer.delete();
        }
    }

    fn spinning(&self) {
        for _ in 0..6 {
            let expected = self.work.taken.load(Ordering::SeqCst) + 1;
            let taken = || self.work.taken.load(Ordering::SeqCst) == expected;
            self.elsewhere()
                .shall(Deed::Work(Arc::clone(&self.work), self.working.notifier.clone()));
            self.until("work in memory", true, taken);
            if self.work.add() {
                self.call("EventNotifier::set", || self.working.notifier.set());
            }
            self.until("work in memory", true, || {
                self.work.taken.load(Ordering::SeqCst) == expected + 1
            });
        }
        self.ring_from_elsewhere(&self.bells[0]);
        self.until("what is spun on the kernel", true, || !self.bells[0].owed.get());
        self.call("suspend", || self.ctx.suspend());
        if self.work.begun() != 0 {
            self.log.wrong("suspend left poll_begin without poll_end".into());
        }
    }

    /// Work in memory, with its bell although nobody asked for it.
    pub fn work_and_bell(&self) {
        let expected = self.work.taken.load(Ordering::SeqCst) + 1;
        self.work.add();
        self.call("EventNotifier::set", || self.working.notifier.set());
        self.until("work with a bell", true, || self.work.taken.load(Ordering::SeqCst) == expected);
    }

    fn nesting(&self) {
        let outer = self.bell("outer");
        let inner = Rc::clone(&self.bells[1]);
        for blocking in [false, true] {
            let told = Arc::clone(&self.log);
            let token = self.call("set_fd_handler", || {
                let (own, inner, log) = (Rc::clone(&outer), Rc::clone(&inner), told.clone());
                let hung = Arc::clone(&self.stage.hung);
                let handlers = Handlers::new().read(move |ops| {
                    own.take()?;
                    inner.owed.set(true);
                    tried(&log, "EventNotifier::set", || inner.notifier.set());
                    while inner.owed.get() && !hung.load(Ordering::SeqCst) {
                        note_result(&log, "poll", ops.poll(blocking));
                    }
                    Ok(())
                });
                self.ctx.set_fd_handler(outer.notifier.clone(), handlers)
            });
            self.ring(&outer);
            self.until("a nested event", true, || !outer.owed.get() && !inner.owed.get());
            drop(self.ctx.deregister(&token));
        }
        self.calm("nesting");
    }

    fn held_back(&self) {
        let external = &self.bells[4];
        for _ in 0..2 {
            self.ctx.disable_external();
            self.look_at_monitor();
            self.ring(external);
            self.ring(&self.bells[0]);
            self.until("another event", true, || !self.bells[0].owed.get());
            self.turn(false);
            if !external.owed.get() {
                self.log.wrong("an external handler ran while disabled".into());
            }
            self.ctx.enable_external();
            self.until("what was held back", true, || !external.owed.get());
        }
        self.calm("holding back");
    }

    fn replacing(&self) {
        for _ in 0..2 {
            self.ring(&self.bells[1]);
            self.listen(&self.bells[1], |handlers| handlers);
            self.until("an event after a replacement", true, || !self.bells[1].owed.get());
        }
        self.calm("replacing");
    }

    fn always_ready(&self) {
        let file = self.stage.aside(|| {
            rustix::fs::memfd_create("fdmon-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
        });
        let fd = file.as_raw_fd();
        let reads = Rc::new(Cell::new(0));
        let count = reads.clone();
        let file = Rc::new(file);
        let token = self.call("set_fd_handler", || {
            let count = count.clone();
            let handlers = Handlers::new().read(move |_| {
                count.set(count.get() + 1);
                Ok(())
            });
            self.ctx.set_fd_handler(Rc::clone(&file), handlers)
        });
        // It may have been removed as BAD_FD by then.
        let gone = || !self.ctx.stats().handlers.iter().any(|handler| handler.fd == fd);
        self.until("a file that is always ready", true, || reads.get() >= 2 || gone());
        self.ring(&self.bells[0]);
        self.until("a bell beside it", true, || !self.bells[0].owed.get());
        drop(self.ctx.deregister(&token));
        let before = reads.get();
        self.calm("what is always ready");
        if reads.get() != before {
            self.log.wrong("a removed file is still read".into());
        }
    }

    /// Registered fds that are closed, of which a duplicate lives on.
    fn orphans(&self) {
        for _ in 0..2 {
            self.orphan();
        }
        self.calm("orphans");
    }

    fn orphan(&self) {
        let bell = self.bell("orphan");
        let own = self
            .stage
            .aside(|| rustix::io::fcntl_dupfd_cloexec(&bell.notifier, 500).unwrap().into_raw_fd());
        self.stage.know_bell(own);
        let number = by_number(own);
        self.call("set_fd_handler", || {
            self.ctx.set_fd_handler(number, Handlers::new().read(|_| Ok(())))
        });
        self.turn(false);
        self.stage.aside(|| close_number(own));
        self.ctx.remove_fd_handler(own);
        self.look_at_monitor();
        self.call("EventNotifier::set", || bell.notifier.set());
        self.turn(false);
        self.ring_from_elsewhere(&self.bells[0]);
        self.until("an event beside an orphan", true, || !self.bells[0].owed.get());
        self.clear(&bell);
    }

    fn removing(&self) {
        for _ in 0..3 {
            let bell = self.bell("removed");
            let token = self.listen(&bell, |handlers| handlers);
            self.turn(false);
            drop(self.ctx.deregister(&token));
            self.look_at_monitor();
            self.call("EventNotifier::set", || bell.notifier.set());
            self.turn(false);
            if bell.heard.get() != 0 {
                self.log.wrong("a removed handler ran".into());
            }
            self.clear(&bell);
        }
        self.calm("removing");
    }

    pub fn grow(&mut self) {
        self.stage.enter(Phase::Grow);
        let more: Vec<_> = (0..MANY).map(|_| self.bell("one of many")).collect();
        let tokens: Vec<_> = more.iter().map(|bell| self.listen(bell, |h| h)).collect();
        for bell in &more {
            self.ring(bell);
        }
        self.until("many events", true, || more.iter().all(|bell| !bell.owed.get()));
        for bell in more.iter().step_by(10) {
            self.ring_from_elsewhere(bell);
            self.until("one of many events", true, || !bell.owed.get());
        }
        self.calm("growing");
        for token in &tokens {
            drop(self.ctx.deregister(token));
        }
        self.bells_from_home(true);
    }

    fn busy_poll(&mut self) {
        if self.ctx.monitor() == MonitorKind::Poll {
            return; // it has none
        }
        self.stage.enter(Phase::BusyPoll);
        let with = |kernel_busy_poll| PollParams { kernel_busy_poll, ..params(self.spins) };
        let busy = Some(BusyPoll { usecs: 1, budget: 8, prefer: false });
        for wanted in [busy, None] {
            self.call("set_poll_params", || self.ctx.set_poll_params(with(wanted)));
            self.bells_from_home(true);
            self.orphan();
        }
        self.wake_ups();
    }

    // --- in an outer loop -----------------------------------------------------------------------

    fn embed(&mut self) {
        self.stage.enter(Phase::Embed);
        let other = self.bell("the outer loop's own");
        self.call("set_outer_loop", || {
            let fd = self.stage.aside(|| rustix::io::fcntl_dupfd_cloexec(&other.notifier, 0));
            let fd = fd.unwrap();
            self.stage.know_bell(fd.as_raw_fd());
            self.ctx.set_outer_loop(OuterLoop { fd: Some(fd), keeps_no_time: true })
        });
        self.outer_life("libuv's way", || {
            let fds = self.call("wake_fds", || {
                self.ctx.wake_fds().map(|fds| [fds.events.as_raw_fd(), fds.timer.as_raw_fd()])
            });
            fds.to_vec()
        });
        self.call("set_outer_loop", || self.ctx.set_outer_loop(OuterLoop::default()));
        self.outer_life("by one fd", || {
            vec![self.call("backend_fd", || self.ctx.backend_fd().map(|fd| fd.as_raw_fd()))]
        });
    }

    fn outer_life(&self, how: &str, fds: impl Fn() -> Vec<RawFd>) {
        for bell in &self.bells {
            self.ring_from_elsewhere(bell);
            self.outer_until(&fds, || !bell.owed.get());
        }
        for bell in &self.bells {
            self.ring(bell);
        }
        self.outer_until(&fds, || self.bells.iter().all(|bell| !bell.owed.get()));
        let jobs = Arc::new(AtomicU32::new(0));
        for round in 1..=2 {
            self.elsewhere().shall(Deed::Job(Arc::clone(&jobs)));
            self.outer_until(&fds, || jobs.load(Ordering::SeqCst) == round);
            let expected = self.work.taken.load(Ordering::SeqCst) + 1;
            self.elsewhere()
                .shall(Deed::Work(Arc::clone(&self.work), self.working.notifier.clone()));
            self.outer_until(&fds, || self.work.taken.load(Ordering::SeqCst) == expected);
        }
        let fired = Rc::new(Cell::new(0));
        let count = fired.clone();
        let timer = self.call("timer", || {
            let count = count.clone();
            self.ctx.timer(move |_| {
                count.set(count.get() + 1);
                Ok(())
            })
        });
        for round in 1..=2 {
            self.call("arm", || timer.arm(Duration::from_micros(300)));
            self.outer_until(&fds, || fired.get() == round);
        }
        timer.delete();
        let added = self.bell("added");
        for _ in 0..2 {
            let token = self.listen(&added, |handlers| handlers);
            self.ring_from_elsewhere(&added);
            self.outer_until(&fds, || !added.owed.get());
            let sockets = &self.sockets[0];
            let expected = sockets.writable.get() + 1;
            let both = Interest::READ | Interest::WRITE;
            self.call("set_interest", || sockets.token.set_interest(both));
            self.outer_until(&fds, || sockets.writable.get() >= expected);
            self.call("set_interest", || sockets.token.set_interest(Interest::READ));
            drop(self.ctx.deregister(&token));
        }
        if self.stage.hung.load(Ordering::SeqCst) {
            self.log.wrong(format!("the outer loop was not woken: {how}"));
        }
        if fired.get() != 2 {
            self.log.wrong(format!("a timer ran {} times: {how}", fired.get()));
        }
    }

    fn outer_until(&self, fds: &impl Fn() -> Vec<RawFd>, has_come: impl Fn() -> bool) {
        while !has_come() {
            if self.stage.hung.load(Ordering::SeqCst) {
                return self.log.wrong("what comes in an outer loop does not come".into());
            }
            let left = match self.ctx.prepare() {
                Ok(left) => left,
                Err(error) => {
                    self.take_result("prepare", Err(error));
                    continue;
                }
            };
            self.look_at_monitor();
            if left == Some(0) {
                std::thread::yield_now();
            } else {
                outer_sleep(self.stage, &fds(), left);
            }
            let due = self.ctx.check();
            self.take_result("check", due);
            let ran = self.ctx.dispatch();
            self.take_result("dispatch", ran);
        }
    }

    // --- the end --------------------------------------------------------------------------------

    /// With so many handlers.
    pub fn close(mut self, handlers: u32) {
        self.elsewhere = None;
        self.stage.enter(Phase::Close);
        let sockets = std::mem::take(&mut self.sockets);
        let report = self.ctx.close();
        self.log
            .fallbacks
            .store(u32::try_from(self.ctx.stats().fallbacks).unwrap(), Ordering::SeqCst);
        if (report.handlers, report.timers, report.bottom_halves) != (handlers, 0, 0) {
            self.log.wrong(format!("it was closed with {report:?}, not with {handlers} handlers"));
        }
        if self.work.begun() != 0 {
            self.log.wrong("close left poll_begin without poll_end".into());
        }
        if self.ctx.poll(false).is_ok_and(|_| true) {
            self.log.wrong("a closed context has turns".into());
        }
        drop(self.ctx);
        self.stage.aside(|| {
            for Sockets { right, .. } in &sockets {
                // The kernel may let go of a ring's files by and by.
                let mut fds = [PollFd::new(right, PollFlags::IN)];
                let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
                if poll(&mut fds, Some(&limit)) != Ok(1) {
                    self.log.wrong("the peer of a socket sees no hang-up".into());
                }
            }
        });
    }
}

/// Sleeps as an outer loop does.
fn outer_sleep(stage: &Stage, fds: &[RawFd], ns: Option<u64>) {
    stage.aside(|| {
        let mut fds: Vec<_> =
            fds.iter().map(|&fd| PollFd::from_borrowed_fd(by_number(fd), PollFlags::IN)).collect();
        let limit = 5_000_000_000;
        let ns = ns.unwrap_or(limit).min(limit);
        let timeout = Timespec {
            tv_sec: (ns / 1_000_000_000).cast_signed(),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        };
        if poll(&mut fds, Some(&timeout)) == Ok(0) && ns == limit {
            stage.hung.store(true, Ordering::SeqCst);
        }
    });
}

/// `true` = something ran.
fn note_result(log: &Log, op: &'static str, result: Result<bool>) -> bool {
    match result {
        Ok(progress) => progress,
        Err(error) if error.is_callback() => {
            for error in error.into_callback_errors() {
                match error.downcast::<Error>() {
                    Ok(error) => log.tell(Told::of("callback", &error)),
                    Err(error) => log.wrong(format!("a callback failed: {error}")),
                }
            }
            true
        }
        Err(error) => {
            log.tell(Told::of(op, &error));
            false
        }
    }
}

/// The call, again as long as it fails.
pub fn tried<T>(log: &Log, op: &'static str, run: impl Fn() -> Result<T>) -> T {
    let mut tries = 0;
    loop {
        match run() {
            Ok(value) => return value,
            Err(error) => {
                log.tell(Told::of(op, &error));
                tries += 1;
                assert!(tries < 5, "{op} fails again and again: {error}");
            }
        }
    }
}

pub fn build(on: On, spins: bool) -> Result<AioContext> {
    let (kind, ring) = asked(on);
    AioContext::builder().monitor(kind).ring(ring).poll(params(spins)).build()
}

/// What is asked for to have such a context.
pub fn asked(on: On) -> (MonitorKind, RingParams) {
    let ring = |mode, restricted| RingParams { mode, restricted };
    match on {
        On::Poll => (MonitorKind::Poll, RingParams::default()),
        On::Epoll => (MonitorKind::Epoll, RingParams::default()),
        On::Deferred | On::SmallDeferred | On::Noisy => {
            (MonitorKind::IoUring, ring(RingMode::Deferred, false))
        }
        On::Cooperative | On::SmallCooperative => {
            (MonitorKind::IoUring, ring(RingMode::Cooperative, false))
        }
        On::Plain | On::SmallPlain => (MonitorKind::IoUring, ring(RingMode::Plain, false)),
        On::Restricted => (MonitorKind::IoUring, ring(RingMode::Deferred, true)),
        On::Auto => (MonitorKind::Auto, RingParams::default()),
        On::AutoWithoutRing => (MonitorKind::Auto, ring(RingMode::Off, false)),
    }
}

fn params(spins: bool) -> PollParams {
    let spinning = PollParams {
        grow: u32::MAX,
        policy: PolicyKind::Classic,
        ..PollParams::spin(Duration::from_millis(1))
    };
    if spins { spinning } else { PollParams::default() }
}

/// The fd by its number alone.
fn by_number(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only passed to the loop and to poll(2), which may meet a closed one.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn close_number(fd: RawFd) {
    // SAFETY: the number came from `into_raw_fd`; nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}
