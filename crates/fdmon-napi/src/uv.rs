//! The few functions of libuv that an attached context needs, found in the running process.
//!
//! Node exports them; other runtimes may not. They are looked up by name, so that the addon loads
//! everywhere and only `attach` fails where they are missing. Handles are opaque: their size and
//! their data pointer are asked of libuv.
//!
//! <https://docs.libuv.org/en/v1.x/guide/basics.html>
#![allow(unsafe_code, reason = "libuv's functions and handles are C's")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::NonNull;
use std::sync::LazyLock;

/// `uv_loop_t`
#[repr(C)]
pub(crate) struct Loop {
    _opaque: [u8; 0],
    _stays_in_its_thread: PhantomData<(*mut u8, PhantomPinned)>,
}

/// `uv_handle_t` and all that begin like it
#[repr(C)]
pub(crate) struct RawHandle {
    _opaque: [u8; 0],
    _stays_in_its_thread: PhantomData<(*mut u8, PhantomPinned)>,
}

pub(crate) type Callback = unsafe extern "C" fn(*mut RawHandle);
pub(crate) type PollCallback = unsafe extern "C" fn(*mut RawHandle, c_int, c_int);

/// What a handle is: the numbers of `uv_handle_type`, which are part of libuv's ABI.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Kind {
    Check = 2,
    Idle = 6,
    Poll = 8,
    Prepare = 9,
}

/// `uv_metrics_t`; what is reserved in it is not ours to read.
#[repr(C)]
#[derive(Default)]
struct Metrics {
    loop_count: u64,
    events: u64,
    events_waiting: u64,
    reserved: [usize; 13],
}

/// `UV_READABLE`
const READABLE: c_int = 1;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by their own names.
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find() -> Option<Self> {
                Some(Self {
                    $($name: {
                        let symbol = symbol(concat!(stringify!($name), "\0"))?;
                        // SAFETY: this is how libuv 1.x declares the function of this name.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(symbol.as_ptr())
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    uv_backend_fd(*const Loop) -> c_int;
    uv_backend_timeout(*const Loop) -> c_int;
    uv_check_init(*mut Loop, *mut RawHandle) -> c_int;
    uv_check_start(*mut RawHandle, Callback) -> c_int;
    uv_close(*mut RawHandle, Callback);
    uv_handle_get_data(*const RawHandle) -> *mut c_void;
    uv_handle_set_data(*mut RawHandle, *mut c_void);
    uv_handle_size(c_uint) -> usize;
    uv_idle_init(*mut Loop, *mut RawHandle) -> c_int;
    uv_idle_start(*mut RawHandle, Callback) -> c_int;
    uv_idle_stop(*mut RawHandle) -> c_int;
    uv_metrics_info(*mut Loop, *mut Metrics) -> c_int;
    uv_now(*const Loop) -> u64;
    uv_poll_init(*mut Loop, *mut RawHandle, c_int) -> c_int;
    uv_poll_start(*mut RawHandle, c_int, PollCallback) -> c_int;
    uv_prepare_init(*mut Loop, *mut RawHandle) -> c_int;
    uv_prepare_start(*mut RawHandle, Callback) -> c_int;
    uv_ref(*mut RawHandle);
    uv_unref(*mut RawHandle);
    uv_update_time(*mut Loop);
}

/// `name` ends with a zero.
fn symbol(name: &str) -> Option<NonNull<c_void>> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    let name: *const c_char = name.as_ptr();
    // SAFETY: a name that ends with a zero, looked up in what the process has loaded.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name) })
}

static FUNCTIONS: LazyLock<Option<Functions>> = LazyLock::new(Functions::find);

/// The loop of an environment. Exists only where libuv is there, so its functions are.
#[derive(Clone, Copy)]
pub(crate) struct Uv {
    functions: &'static Functions,
    of: NonNull<Loop>,
}

impl Uv {
    /// `None` = this runtime has no libuv.
    ///
    /// # Safety
    /// `of` is the loop of the calling thread, and outlives the result.
    pub(crate) unsafe fn new(of: NonNull<Loop>) -> Option<Self> {
        Some(Self { functions: FUNCTIONS.as_ref()?, of })
    }

    /// The epoll fd that libuv sleeps on.
    pub(crate) fn backend_fd(self) -> c_int {
        // SAFETY: by the contract of `new`.
        unsafe { (self.functions.uv_backend_fd)(self.of.as_ptr()) }
    }

    /// How many callbacks of fds libuv has called.
    pub(crate) fn events(self) -> u64 {
        let mut metrics = Metrics::default();
        // SAFETY: by the contract of `new`; `Metrics` is as libuv 1.45 and newer declare it.
        let _ = unsafe { (self.functions.uv_metrics_info)(self.of.as_ptr(), &mut metrics) };
        metrics.events
    }

    /// Reads the clock for libuv's timers.
    pub(crate) fn update_time(self) {
        // SAFETY: by the contract of `new`.
        unsafe { (self.functions.uv_update_time)(self.of.as_ptr()) }
    }

    /// Whether libuv's timers have come to what [`Uv::deadline`] answered.
    pub(crate) fn is_due(self, deadline: u64) -> bool {
        // SAFETY: by the contract of `new`.
        let now = unsafe { (self.functions.uv_now)(self.of.as_ptr()) };
        now.saturating_mul(1_000_000) >= deadline
    }

    /// When the loop must be awake again, in nanoseconds on the monotonic clock: 0 = it does not
    /// sleep at all, `None` = nothing says when.
    pub(crate) fn deadline(self) -> Option<u64> {
        // SAFETY: by the contract of `new`.
        let milliseconds = unsafe { (self.functions.uv_backend_timeout)(self.of.as_ptr()) };
        match u64::try_from(milliseconds) {
            Ok(0) => Some(0),
            Ok(milliseconds) => {
                // SAFETY: as above.
                let now = unsafe { (self.functions.uv_now)(self.of.as_ptr()) };
                Some((now + milliseconds).saturating_mul(1_000_000))
            }
            Err(_) => None,
        }
    }

    /// A handle that is not started and keeps nothing alive. `fd` is for [`Kind::Poll`].
    pub(crate) fn handle(self, kind: Kind, fd: c_int) -> Result<Handle, c_int> {
        // SAFETY: a plain function.
        let size = unsafe { (self.functions.uv_handle_size)(kind as c_uint) };
        let layout = Layout::from_size_align(size.max(1), 16).map_err(|_| -libc::ENOMEM)?;
        // SAFETY: the layout is not empty.
        let Some(raw) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let raw = raw.cast::<RawHandle>();
        let (of, at) = (self.of.as_ptr(), raw.as_ptr());
        let functions = self.functions;
        let status = match kind {
            // SAFETY: `at` has the size of such a handle, and stays in place until its close
            // callback.
            Kind::Check => unsafe { (functions.uv_check_init)(of, at) },
            // SAFETY: as above.
            Kind::Idle => unsafe { (functions.uv_idle_init)(of, at) },
            // SAFETY: as above.
            Kind::Poll => unsafe { (functions.uv_poll_init)(of, at, fd) },
            // SAFETY: as above.
            Kind::Prepare => unsafe { (functions.uv_prepare_init)(of, at) },
        };
        if status != 0 {
            // SAFETY: allocated above with this layout; libuv did not take it.
            unsafe { dealloc(raw.as_ptr().cast(), layout) };
            return Err(status);
        }
        let handle = Handle { uv: self, raw, layout };
        handle.keep_alive(false);
        Ok(handle)
    }
}

/// A handle of libuv. Not freed by drop: [`Handle::close`] gives it to libuv, whose close callback
/// calls [`Handle::free`].
pub(crate) struct Handle {
    uv: Uv,
    raw: NonNull<RawHandle>,
    layout: Layout,
}

impl Handle {
    pub(crate) fn set_data(&self, data: *const c_void) {
        // SAFETY: the handle is initialised and not freed.
        unsafe { (self.uv.functions.uv_handle_set_data)(self.raw.as_ptr(), data.cast_mut()) }
    }

    pub(crate) fn data(&self) -> *const c_void {
        // SAFETY: as in `set_data`.
        unsafe { (self.uv.functions.uv_handle_get_data)(self.raw.as_ptr()) }
    }

    /// Whether the loop goes on for its sake.
    pub(crate) fn keep_alive(&self, on: bool) {
        let functions = self.uv.functions;
        let call = if on { functions.uv_ref } else { functions.uv_unref };
        // SAFETY: as in `set_data`.
        unsafe { call(self.raw.as_ptr()) }
    }

    pub(crate) fn start_prepare(&self, callback: Callback) -> c_int {
        // SAFETY: as in `set_data`; it was initialised as such a handle.
        unsafe { (self.uv.functions.uv_prepare_start)(self.raw.as_ptr(), callback) }
    }

    pub(crate) fn start_check(&self, callback: Callback) -> c_int {
        // SAFETY: as in `start_prepare`.
        unsafe { (self.uv.functions.uv_check_start)(self.raw.as_ptr(), callback) }
    }

    pub(crate) fn start_poll(&self, callback: PollCallback) -> c_int {
        // SAFETY: as in `start_prepare`.
        unsafe { (self.uv.functions.uv_poll_start)(self.raw.as_ptr(), READABLE, callback) }
    }

    /// Idle handles keep the loop from sleeping.
    pub(crate) fn start_idle(&self, callback: Callback) {
        // SAFETY: as in `start_prepare`. It cannot fail with a callback.
        let _ = unsafe { (self.uv.functions.uv_idle_start)(self.raw.as_ptr(), callback) };
    }

    pub(crate) fn stop_idle(&self) {
        // SAFETY: as in `start_prepare`.
        let _ = unsafe { (self.uv.functions.uv_idle_stop)(self.raw.as_ptr()) };
    }

    /// Stops it; the callback comes in a later phase of the loop. To be called once.
    pub(crate) fn close(&self, callback: Callback) {
        // SAFETY: as in `set_data`; it is closed once.
        unsafe { (self.uv.functions.uv_close)(self.raw.as_ptr(), callback) }
    }

    /// Closes a handle of which nothing is called any more, and frees it then.
    pub(crate) fn discard(self) {
        self.set_data(Box::into_raw(Box::new(self.raw_parts())).cast_const().cast());
        self.close(free_discarded);
    }

    fn raw_parts(&self) -> Memory {
        (self.raw, self.layout)
    }

    /// # Safety
    /// libuv is done with it: its close callback runs or has run.
    pub(crate) unsafe fn free(&self) {
        // SAFETY: allocated with this layout; nobody else has it by this function's contract.
        unsafe { dealloc(self.raw.as_ptr().cast(), self.layout) }
    }
}

/// A handle's memory and how it was allocated.
type Memory = (NonNull<RawHandle>, Layout);

unsafe extern "C" fn free_discarded(handle: *mut RawHandle) {
    // SAFETY: libuv passes the handle that is closed.
    let data = unsafe { data_of(handle) };
    // SAFETY: `discard` has stored it there.
    let memory = unsafe { Box::from_raw(data.cast::<Memory>()) };
    // SAFETY: allocated with this layout, and closed now.
    unsafe { dealloc(memory.0.as_ptr().cast(), memory.1) };
}

/// What [`Handle::set_data`] stored.
///
/// # Safety
/// `handle` is a live handle that [`Uv::handle`] made.
pub(crate) unsafe fn data_of(handle: *mut RawHandle) -> *mut c_void {
    match FUNCTIONS.as_ref() {
        // SAFETY: by this function's contract.
        Some(functions) => unsafe { (functions.uv_handle_get_data)(handle) },
        None => std::ptr::null_mut(),
    }
}
