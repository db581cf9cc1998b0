//! Futures on a context: a task is a bottom half that polls its future, and its waker schedules that
//! bottom half, from any thread.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rustix::fd::AsFd;
use stable_deref_trait::StableDeref;

use crate::aio::{IoOp, IoToken, Segment, Segments, segment, segment_mut};
use crate::bottom_half::BottomHalf;
use crate::context::{AioContext, AtTheEnd};
use crate::error::Result;
use crate::ops::Ops;
use crate::remote::{BottomHalfId, Remote};

/// Wakes who blocks on a future.
struct Unblock {
    woken: AtomicBool,
    remote: Remote,
}

impl Wake for Unblock {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let _closed = self.remote.notify();
    }
}

/// Wakes a task.
struct Reschedule {
    remote: Remote,
    half: BottomHalfId,
}

impl Wake for Reschedule {
    fn wake(self: Arc<Self>) {
        let _closed = self.remote.schedule(&self.half);
    }
}

/// A task as its handle and its bottom half see it.
struct Joint<T> {
    future: RefCell<Option<Pin<Box<dyn Future<Output = T>>>>>,
    result: RefCell<Option<T>>,
    /// Who waits for the result.
    waiting: RefCell<Option<Waker>>,
    half: RefCell<Option<BottomHalf>>,
    waker: RefCell<Option<Waker>>,
    over: Cell<bool>,
}

impl<T> Joint<T> {
    fn poll(&self) {
        // Out while it runs, so that it may cancel itself.
        let Some(mut future) = self.future.take() else { return };
        let Some(waker) = self.waker.borrow().clone() else { return };
        let mut guard = EndsIfPanicking(Some(self));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        guard.0 = None;
        if self.over.get() {
            return; // it has cancelled itself, or closed its context
        }
        match polled {
            Poll::Ready(result) => {
                drop(self.result.replace(Some(result)));
                self.end();
            }
            Poll::Pending => drop(self.future.replace(Some(future))),
        }
    }

    fn end(&self) {
        self.over.set(true);
        drop(self.future.take());
        drop(self.waker.take());
        drop(self.half.take());
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// A future that runs on a context, made by [`AioContext::spawn_local`]. To await it is to wait for
/// its result; dropped, it goes on by itself.
#[must_use = "await it, or drop it on purpose: it goes on by itself"]
pub struct Task<T>(Rc<Joint<T>>);

impl<T> Task<T> {
    /// Drops the future where it is. Its result is `None`, unless it was there already.
    pub fn cancel(&self) {
        if !self.0.over.get() {
            self.0.end();
        }
    }

    /// It has a result, or was cancelled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.over.get()
    }
}

impl<T> Future for Task<T> {
    /// `None` = it was cancelled, or panicked, or its context was closed.
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.0.over.get() {
            return Poll::Ready(self.0.result.take());
        }
        drop(self.0.waiting.replace(Some(cx.waker().clone())));
        Poll::Pending
    }
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("is_over", &self.0.over.get()).finish_non_exhaustive()
    }
}

/// Ends the task when its future panics: none = it did not.
struct EndsIfPanicking<'joint, T>(Option<&'joint Joint<T>>);

impl<T> Drop for EndsIfPanicking<'_, T> {
    fn drop(&mut self) {
        if let Some(joint) = self.0 {
            joint.end();
        }
    }
}

/// Ends the task when its context drops it.
struct EndsWith<T>(Rc<Joint<T>>);

impl<T> Drop for EndsWith<T> {
    fn drop(&mut self) {
        if !self.0.over.get() {
            self.0.end();
        }
    }
}

impl AioContext {
    /// Turns until the future is ready: its result.
    ///
    /// ```
    /// use std::{fs::File, rc::Rc};
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let file = Rc::new(File::open("Cargo.toml").unwrap());
    /// let (result, buffer) = ctx.block_on(ctx.read_async(file, vec![0; 9], 0))?;
    /// assert_eq!((result.unwrap(), &*buffer), (9, &b"[package]"[..]));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`AioContext::poll`]; the future is dropped then.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        let unblock = Arc::new(Unblock { woken: AtomicBool::new(true), remote: self.remote() });
        let waker = Waker::from(Arc::clone(&unblock));
        let mut future = pin!(future);
        let leaves = AtTheEnd(Some(|| {
            let open = self.0.open_state().is_ok();
            if open {
                self.leave_spin_mode_by_call();
            }
        }));
        let result = loop {
            if unblock.woken.swap(false, Ordering::Acquire)
                && let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                drop(self.0.open_state()?);
                break result;
            }
            if !unblock.woken.load(Ordering::Acquire) {
                self.poll(true)?;
            }
        };
        drop(leaves);
        self.resume_panic();
        Ok(result)
    }

    /// Runs a future on this context, in its turns. It counts as a bottom half.
    ///
    /// ```
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let task = ctx.spawn_local(async { 6 * 7 })?;
    /// assert_eq!(ctx.block_on(task)?, Some(42));
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`
    pub fn spawn_local<F>(&self, future: F) -> Result<Task<F::Output>>
    where
        F: Future + 'static,
    {
        let joint = Rc::new(Joint {
            future: RefCell::new(Some(Box::pin(future) as Pin<Box<dyn Future<Output = _>>>)),
            result: RefCell::new(None),
            waiting: RefCell::new(None),
            half: RefCell::new(None),
            waker: RefCell::new(None),
            over: Cell::new(false),
        });
        let ends = EndsWith(Rc::clone(&joint));
        let half = self.bottom_half(move |_| {
            ends.0.poll();
            Ok(())
        })?;
        let (remote, id) = (self.remote(), half.id());
        let waker = Waker::from(Arc::new(Reschedule { remote, half: id }));
        *joint.waker.borrow_mut() = Some(waker.clone());
        *joint.half.borrow_mut() = Some(half);
        waker.wake();
        Ok(Task(joint))
    }

    /// [`AioContext::read_at`], to be awaited: the number of bytes, and the buffer.
    pub fn read_async<B>(&self, fd: impl AsFd + 'static, buffer: B, offset: u64) -> IoFuture<'_, B>
    where
        B: StableDeref<Target = [u8]> + DerefMut + 'static,
    {
        let segments = |buffer: &mut B| Segments::One(segment_mut(buffer));
        self.io_future(IoOp::Read, fd, buffer, offset, segments)
    }

    /// [`AioContext::write_at`], to be awaited: the number of bytes, and the buffer.
    pub fn write_async<B>(&self, fd: impl AsFd + 'static, buffer: B, offset: u64) -> IoFuture<'_, B>
    where
        B: StableDeref<Target = [u8]> + 'static,
    {
        let segments = |buffer: &mut B| Segments::One(segment(buffer));
        self.io_future(IoOp::Write, fd, buffer, offset, segments)
    }

    /// [`AioContext::fsync`], to be awaited.
    pub fn fsync_async(&self, fd: impl AsFd + 'static) -> IoFuture<'_, ()> {
        self.io_future(IoOp::Fsync, fd, (), 0, |()| Segments::One(Segment::NONE))
    }

    /// [`AioContext::fdatasync`], to be awaited.
    pub fn fdatasync_async(&self, fd: impl AsFd + 'static) -> IoFuture<'_, ()> {
        self.io_future(IoOp::Fdatasync, fd, (), 0, |()| Segments::One(Segment::NONE))
    }

    fn io_future<B: 'static>(
        &self,
        op: IoOp,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: u64,
        segments: impl FnOnce(&mut B) -> Segments,
    ) -> IoFuture<'_, B> {
        let end = Rc::new(End { result: RefCell::new(None), waiting: RefCell::new(None) });
        let told = Rc::clone(&end);
        let done = move |_: &mut Ops<'_>, result, buffer| told.tell(result, buffer);
        let token = match self.ask_io(op, fd, buffer, offset, segments, done) {
            Ok(token) => Some(token),
            Err((error, buffer)) => {
                end.tell(Err(io::Error::other(error)), buffer);
                None
            }
        };
        IoFuture { ctx: self, end, token }
    }
}

/// The end of one request.
struct End<B> {
    result: RefCell<Option<(io::Result<usize>, B)>>,
    waiting: RefCell<Option<Waker>>,
}

impl<B> End<B> {
    fn tell(&self, result: io::Result<usize>, buffer: B) {
        *self.result.borrow_mut() = Some((result, buffer));
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// A request of file I/O, which is under way from the call on that made it. Dropped, it is cancelled;
/// its buffer is dropped when it has ended.
#[must_use = "await it: dropped, it is cancelled"]
pub struct IoFuture<'ctx, B> {
    ctx: &'ctx AioContext,
    end: Rc<End<B>>,
    token: Option<IoToken>,
}

impl<B> Future for IoFuture<'_, B> {
    type Output = (io::Result<usize>, B);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(end) = self.end.result.take() {
            return Poll::Ready(end);
        }
        drop(self.end.waiting.replace(Some(cx.waker().clone())));
        Poll::Pending
    }
}

impl<B> Drop for IoFuture<'_, B> {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            self.ctx.cancel_io(token);
        }
    }
}

impl<B> std::fmt::Debug for IoFuture<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoFuture").field("token", &self.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;

    fn context() -> AioContext {
        AioContext::builder().build().unwrap()
    }

    fn file() -> Rc<File> {
        Rc::new(File::open("Cargo.toml").unwrap())
    }

    /// Ready when it is polled for the second time, for which another thread wakes it.
    fn woken_from_afar() -> impl Future<Output = ()> {
        let mut asked = false;
        std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        })
    }

    /// SPEC 47
    #[test]
    fn tasks_run_side_by_side_and_read_files() {
        let ctx = Rc::new(context());
        let tasks: Vec<_> = (0..10)
            .map(|at| {
                let inner = Rc::clone(&ctx);
                ctx.spawn_local(async move {
                    woken_from_afar().await;
                    let (result, buffer) = inner.read_async(file(), vec![0; 4], at).await;
                    assert_eq!(result.unwrap(), 4);
                    buffer
                })
                .unwrap()
            })
            .collect();
        for (at, task) in tasks.into_iter().enumerate() {
            let buffer = ctx.block_on(task).unwrap().unwrap();
            assert_eq!(buffer, std::fs::read("Cargo.toml").unwrap()[at..at + 4]);
        }
        assert_eq!(ctx.close().bottom_halves, 0);
    }

    /// SPEC 47, 49
    #[test]
    fn a_future_that_is_dropped_is_cancelled_and_one_of_a_closed_context_fails() {
        let ctx = context();
        drop(ctx.read_async(file(), vec![0; 4], 0));
        ctx.poll(true).unwrap();
        assert_eq!((ctx.stats().completions, ctx.stats().submissions), (1, 0));
        let waits = ctx.read_async(file(), vec![7; 4], 0);
        assert_eq!(ctx.close().io, 1);
        fn now<F: Future>(future: F) -> Poll<F::Output> {
            pin!(future).poll(&mut Context::from_waker(Waker::noop()))
        }
        let Poll::Ready((result, buffer)) = now(waits) else { panic!("it has ended") };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(buffer.len(), 4);
        let Poll::Ready((result, buffer)) = now(ctx.read_async(file(), vec![7; 4], 0)) else {
            panic!("it never began")
        };
        assert!(result.unwrap_err().to_string().contains("closed"));
        assert_eq!(buffer, [7; 4]);
    }

    /// SPEC 21
    #[test]
    fn a_task_that_panics_or_is_cancelled_has_no_result() {
        let ctx = context();
        let task = ctx.spawn_local(async { panic!("on purpose") }).unwrap();
        let turn = || ctx.poll(true);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn)).is_err());
        let _: Option<()> = ctx.block_on(task).unwrap();
        let task = ctx.spawn_local(std::future::pending::<()>()).unwrap();
        ctx.poll(true).unwrap();
        assert!(!task.is_over());
        task.cancel();
        assert_eq!(ctx.block_on(task).unwrap(), None);
        let task = ctx.spawn_local(std::future::pending::<()>()).unwrap();
        assert_eq!(ctx.close().bottom_halves, 1);
        assert!(task.is_over());
    }

    /// Ready when it is polled for the second time; wakes itself.
    fn twice() -> impl Future<Output = u32> {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(polls) } else { Poll::Pending }
        })
    }

    /// SPEC 21
    #[test]
    fn a_task_goes_on_while_its_thread_unwinds() {
        struct RunsTask(AioContext, Rc<Cell<Option<u32>>>);
        impl Drop for RunsTask {
            fn drop(&mut self) {
                let task = self.0.spawn_local(twice()).unwrap();
                self.1.set(self.0.block_on(task).unwrap());
            }
        }
        let result = Rc::new(Cell::new(None));
        let runs = RunsTask(context(), Rc::clone(&result));
        let unwinds = move || {
            let _runs = runs;
            panic!("on purpose");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(unwinds)).is_err());
        assert_eq!(result.get(), Some(2));
    }

    /// SPEC 21
    #[test]
    fn a_task_that_cancels_itself_has_no_result() {
        let ctx = context();
        let own = Rc::new(RefCell::new(None::<Task<u32>>));
        let inside = Rc::clone(&own);
        let task = ctx.spawn_local(async move {
            inside.borrow().as_ref().unwrap().cancel();
            7
        });
        *own.borrow_mut() = Some(task.unwrap());
        ctx.poll(true).unwrap();
        let task = own.take().unwrap();
        assert!(task.is_over());
        assert_eq!(ctx.block_on(task).unwrap(), None);
        assert_eq!(ctx.close().bottom_halves, 0);
    }

    /// SPEC 25
    #[test]
    fn block_on_leaves_spin_mode_also_when_it_fails() {
        use crate::{EventNotifier, Handlers, PolicyKind, PollParams, PollSource};
        struct EverySecond(Cell<u32>, Rc<Cell<u32>>, Rc<Cell<u32>>);
        impl PollSource for EverySecond {
            fn poll(&self) -> bool {
                self.0.set(self.0.get() + 1);
                self.0.get() % 2 == 1
            }

            fn poll_begin(&mut self) {
                self.1.set(self.1.get() + 1);
            }

            fn poll_end(&mut self) {
                self.2.set(self.2.get() + 1);
            }
        }
        let params = PollParams {
            max_ns: 1_000,
            policy: PolicyKind::Fixed,
            guards: false,
            ..PollParams::default()
        };
        let ctx = AioContext::builder().poll(params).build().unwrap();
        let (begun, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let source = EverySecond(Cell::new(0), Rc::clone(&begun), Rc::clone(&ended));
        let handlers = Handlers::new().poll(source).poll_ready(|_| Err("on purpose".into()));
        ctx.set_fd_handler(EventNotifier::new().unwrap(), handlers).unwrap();
        for _ in 0..4 {
            assert!(ctx.block_on(std::future::pending::<()>()).is_err());
            assert_eq!(begun.get(), ended.get(), "its producer is to signal again");
        }
        assert_ne!(begun.get(), 0);
    }

    /// SPEC 32
    #[test]
    fn block_on_sleeps_until_it_is_woken() {
        let ctx = context();
        ctx.block_on(woken_from_afar()).unwrap();
        let error = ctx.block_on(async { ctx.close() });
        assert!(error.is_err_and(|error| error.is_closed()));
    }
}
