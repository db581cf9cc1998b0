//! ① File I/O as Rust asks for it: buffers go in with the request and come back with its end.

use std::io;
use std::ops::DerefMut;
use std::ptr::NonNull;

use rustix::fd::{AsFd, AsRawFd, RawFd};
use stable_deref_trait::StableDeref;

use super::request::{Complete, IoOp, Request, Segment, Segments, Stage};
use crate::context::AioContext;
use crate::error::{Error, Result};
use crate::ops::Ops;
use crate::registry::Entry;

/// Names one request, to cancel it. One that has ended is named by nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoToken {
    context: u64,
    slot: u32,
    number: u64,
}

/// What lives until the request has ended.
struct Owned<K, B, F> {
    /// The file.
    _fd: K,
    buffer: B,
    done: F,
}

impl<K, B, F> Complete for Owned<K, B, F>
where
    F: FnOnce(&mut Ops<'_>, io::Result<usize>, B),
{
    fn complete(self: Box<Self>, ctx: &AioContext, result: io::Result<usize>) {
        let Self { _fd: fd, buffer, done } = *self;
        drop(fd);
        done(&mut ctx.ops(), result, buffer);
    }
}

/// A piece of memory that is only read. The kernel is told what to do with it by the operation.
pub(crate) fn segment(bytes: &[u8]) -> Segment {
    Segment::new(bytes.as_ptr().cast_mut(), bytes.len())
}

pub(crate) fn segment_mut(bytes: &mut [u8]) -> Segment {
    Segment::new(bytes.as_mut_ptr(), bytes.len())
}

impl AioContext {
    /// Reads from this offset of the file into the buffer, and hands it to `done` together with the
    /// number of bytes: all of them, or up to the end of the file.
    ///
    /// The file is kept until then: pass an `Rc<File>` where several requests are about one. For
    /// files and block devices; of pipes and sockets, a handler reads. Requests are submitted
    /// together: `max_batch` of them, at the end of [`AioContext::plug`], or when a turn is about
    /// to wait. A `done` that panics is a callback that panics.
    ///
    /// ```
    /// use std::{fs::File, rc::Rc};
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let file = Rc::new(File::open("Cargo.toml").unwrap());
    /// ctx.read_at(Rc::clone(&file), vec![0; 9], 0, |ops, result, buffer| {
    ///     assert_eq!((result.unwrap(), &*buffer), (9, &b"[package]"[..]));
    ///     ops.stop();
    /// })?;
    /// ctx.run()?;
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`, `InvalidArg` for an offset that no file has; `Unsupported` when the engine that
    /// was asked for cannot be had. What the kernel says of the request, `done` hears.
    pub fn read_at<B>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, B) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + DerefMut + 'static,
    {
        let segments = |buffer: &mut B| Segments::One(segment_mut(buffer));
        self.ask_io(IoOp::Read, fd, buffer, offset, segments, done).map_err(without_buffer)
    }

    /// Writes the buffer to the file from this offset on, all of it unless it fails. Otherwise as
    /// [`AioContext::read_at`].
    ///
    /// # Errors
    /// As [`AioContext::read_at`].
    pub fn write_at<B>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, B) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + 'static,
    {
        let segments = |buffer: &mut B| Segments::One(segment(buffer));
        self.ask_io(IoOp::Write, fd, buffer, offset, segments, done).map_err(without_buffer)
    }

    /// [`AioContext::read_at`] into several buffers, one after the other.
    ///
    /// # Errors
    /// As [`AioContext::read_at`].
    pub fn readv_at<B>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, Vec<B>) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + DerefMut + 'static,
    {
        let segments = |buffers: &mut Vec<B>| {
            let all = buffers.iter_mut().map(|buffer| segment_mut(buffer)).collect();
            Segments::Many { all, at: 0 }
        };
        self.ask_io(IoOp::Read, fd, buffers, offset, segments, done).map_err(without_buffer)
    }

    /// [`AioContext::write_at`] of several buffers, one after the other.
    ///
    /// # Errors
    /// As [`AioContext::read_at`].
    pub fn writev_at<B>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, Vec<B>) + 'static,
    ) -> Result<IoToken>
    where
        B: StableDeref<Target = [u8]> + 'static,
    {
        let segments = |buffers: &mut Vec<B>| {
            let all = buffers.iter().map(|buffer| segment(buffer)).collect();
            Segments::Many { all, at: 0 }
        };
        self.ask_io(IoOp::Write, fd, buffers, offset, segments, done).map_err(without_buffer)
    }

    /// Everything that was written to the file, and whose end was heard of before this, reaches the
    /// disk.
    ///
    /// # Errors
    /// As [`AioContext::read_at`].
    pub fn fsync(
        &self,
        fd: impl AsFd + 'static,
        done: impl FnOnce(&mut Ops<'_>, io::Result<()>) + 'static,
    ) -> Result<IoToken> {
        self.ask_sync(IoOp::Fsync, fd, done)
    }

    /// [`AioContext::fsync`] less the attributes that reading does not need, such as times.
    ///
    /// # Errors
    /// As [`AioContext::read_at`].
    pub fn fdatasync(
        &self,
        fd: impl AsFd + 'static,
        done: impl FnOnce(&mut Ops<'_>, io::Result<()>) + 'static,
    ) -> Result<IoToken> {
        self.ask_sync(IoOp::Fdatasync, fd, done)
    }

    fn ask_sync(
        &self,
        op: IoOp,
        fd: impl AsFd + 'static,
        done: impl FnOnce(&mut Ops<'_>, io::Result<()>) + 'static,
    ) -> Result<IoToken> {
        let nothing = |(): &mut ()| Segments::One(Segment::NONE);
        self.ask_io(op, fd, (), 0, nothing, |ops, result, ()| done(ops, result.map(drop)))
            .map_err(without_buffer)
    }

    /// [`AioContext::read_at`] and [`AioContext::write_at`] with memory that somebody else owns.
    ///
    /// # Safety
    /// Until `done` is called or dropped, `base` points at `len` bytes that stay in place, and that
    /// nobody writes, nor reads where `op` is [`IoOp::Read`]; and `fd` stays open. `done` is dropped
    /// only by a context that this process has inherited by fork, in which nothing may be done then.
    ///
    /// # Errors
    /// As [`AioContext::read_at`]; `done` is dropped, and the memory is free.
    #[allow(unsafe_code)]
    pub unsafe fn transfer_at(
        &self,
        op: IoOp,
        fd: RawFd,
        base: NonNull<u8>,
        len: usize,
        offset: u64,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>) + 'static,
    ) -> Result<IoToken> {
        let segments = |_: &mut ()| Segments::One(Segment::new(base.as_ptr(), len));
        let fd = crate::monitor::borrow(fd);
        self.ask_io(op, fd, (), offset, segments, |ops, result, ()| done(ops, result))
            .map_err(without_buffer)
    }

    /// Asks for I/O on memory that `segments` finds in the buffer. The buffer comes back with an
    /// error.
    pub(crate) fn ask_io<K: AsFd + 'static, B: 'static>(
        &self,
        op: IoOp,
        fd: K,
        buffer: B,
        offset: u64,
        segments: impl FnOnce(&mut B) -> Segments,
        done: impl FnOnce(&mut Ops<'_>, io::Result<usize>, B) + 'static,
    ) -> std::result::Result<IoToken, (Error, B)> {
        // What a file and a buffer say of themselves is users' code, as what they drop is.
        let raw = fd.as_fd().as_raw_fd();
        // Pointers are taken where the buffers stay.
        let mut owned = Box::new(Owned { _fd: fd, buffer, done });
        let segments = segments(&mut owned.buffer);
        let shared = &self.0.shared;
        let ready = check_offset(offset).and_then(|()| {
            let mut st = self.0.open_state()?;
            st.have_engine(shared)?;
            let slot = st.io_slot()?;
            Ok((st, slot))
        });
        let (mut st, slot) = match ready {
            Ok(ready) => ready,
            Err(error) => return Err((error, owned.buffer)),
        };
        let number = st.ask_io(shared, slot, op, raw, offset, segments, Some(owned));
        Ok(IoToken { context: shared.id, slot, number })
    }

    /// Asks for the end of a request. It ends once: with `ECANCELED`, or as it would have if that
    /// was sooner. One that has ended is left alone.
    pub fn cancel_io(&self, token: &IoToken) {
        if token.context != self.0.shared.id || !self.0.home.is_here() {
            return; // in a forked child, what the engine has is the parent's
        }
        let mut st = self.0.state();
        if st.reg.io(token.slot).is_some_and(|request| request.number == token.number) {
            st.cancel_io(&self.0.shared, token.slot);
        }
    }

    /// Runs a section, and then submits at once what it has asked for. Sections nest: the outermost
    /// submits. Completions run within one, so what they ask for goes with the turn's next wait.
    ///
    /// ```
    /// use std::{fs::File, rc::Rc};
    /// let ctx = fdmon::AioContext::builder().build()?;
    /// let file = Rc::new(File::open("Cargo.toml").unwrap());
    /// ctx.plug(|| {
    ///     for at in 0..8 {
    ///         ctx.read_at(Rc::clone(&file), vec![0; 16], at * 16, |_, _, _| {})?;
    ///     }
    ///     Ok::<(), fdmon::Error>(())
    /// })?;
    /// assert_eq!(ctx.stats().submissions, 1);
    /// # Ok::<(), fdmon::Error>(())
    /// ```
    pub fn plug<T>(&self, section: impl FnOnce() -> T) -> T {
        struct Plugged<'ctx>(&'ctx AioContext);
        impl Drop for Plugged<'_> {
            fn drop(&mut self) {
                self.0.unplug();
            }
        }
        self.0.state().io.plugs += 1;
        let _plugged = Plugged(self);
        section()
    }

    fn unplug(&self) {
        let mut st = self.0.state();
        st.io.plugs -= 1;
        if st.io.plugs == 0 && !st.closed && self.0.home.is_here() {
            st.submit_io(&self.0.shared, false);
        }
    }
}

fn without_buffer<B>((error, _): (Error, B)) -> Error {
    error
}

/// Files end at 2^63 - 1.
pub(super) fn check_offset(offset: u64) -> Result<()> {
    if i64::try_from(offset).is_err() {
        return Err(Error::invalid_arg("offset", offset, "0 to 9223372036854775807"));
    }
    Ok(())
}

impl crate::context::State {
    /// A free slot for a request.
    fn io_slot(&mut self) -> Result<u32> {
        if let Some(slot) = self.io.free.pop() {
            return Ok(slot);
        }
        let slot = self.reg.reserve()?.ok_or_else(crate::bottom_half::no_words)?;
        self.reg.fill(slot, Entry::Io(Box::new(Request::free())));
        Ok(slot)
    }

    /// Puts a request into a slot that is free: its number.
    #[allow(clippy::too_many_arguments, reason = "a request and where it goes")]
    pub(super) fn ask_io(
        &mut self,
        shared: &crate::sync::Arc<crate::remote::Shared>,
        slot: u32,
        op: IoOp,
        fd: RawFd,
        offset: u64,
        segments: Segments,
        complete: Option<Box<dyn Complete>>,
    ) -> u64 {
        self.io.asked += 1;
        let number = self.io.asked;
        if let Some(request) = self.reg.io(slot) {
            debug_assert_ne!(request.stage, Stage::InFlight);
            request.ask(op, fd, offset, segments, number);
            request.complete = complete;
            self.queue_io(shared, slot, number);
        }
        number
    }
}
