//! ② What rings can do here, for a person and for `capabilities()`.

/// What this kernel's rings can do; each thing is asked or tried, none follows from a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingFeatures {
    /// Completions wait for the loop to ask for them, and never interrupt it.
    pub defer_taskrun: bool,
    /// Completions wait for the next system call.
    pub cooperative: bool,
    /// Timeouts need no request of their own. Without it the monitor is not available.
    pub ext_arg: bool,
    /// Waiting is not shown as waiting for a disk.
    pub no_iowait: bool,
    /// The submission queue needs no index array.
    pub no_sqarray: bool,
    /// Calls find the ring without looking up its fd.
    pub registered_ring: bool,
    /// A ring can be limited to the operations it needs.
    pub restrictions: bool,
    /// Waits can poll network queues.
    pub napi: bool,
    /// One request reports readiness again and again.
    pub multishot_poll: bool,
    /// A wait can collect several completions within a time.
    pub min_timeout: bool,
    /// A request may stay silent about its success.
    pub skip_success: bool,
}
