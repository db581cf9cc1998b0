//! Numbers and views from JavaScript as what system calls take. All `unsafe` of plain descriptors
//! is here.
#![allow(
    unsafe_code,
    reason = "JavaScript passes descriptors as numbers and memory as views; both must be turned into Rust's types once"
)]

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::slice;

use fdmon::ErrorCode;
use napi::bindgen_prelude::{FromNapiValue, TypeName, ValidateNapiValue};
use napi::{Status, ValueType, sys};
use rustix::io::Errno;

use crate::memory::TypedArray;

use crate::error::{Failure, Result};

/// A descriptor for the length of one call; `None` for a negative number.
///
/// The number comes from JavaScript and may be closed by now; the kernel then answers EBADF.
pub(super) fn borrow<'call>(fd: i32) -> Option<BorrowedFd<'call>> {
    // SAFETY: a non-negative number never is the niche value -1, and every use is one system call
    // that checks it.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Like [`borrow`], with the error for JavaScript.
pub(super) fn require<'call>(fd: i32) -> Result<BorrowedFd<'call>> {
    borrow(fd).ok_or_else(|| Failure {
        code: ErrorCode::BadFd,
        message: format!(
            "fd = {fd} is not an open file descriptor; pass one that has not been closed"
        ),
        errno: Some(Errno::BADF.raw_os_error()),
        syscall: None,
    })
}

/// Closes a number that JavaScript owns.
pub(super) fn close(fd: i32) -> std::result::Result<(), Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the owner is the JavaScript object that passes its number, once; nothing in Rust owns
    // it.
    unsafe { rustix::io::try_close(fd) }
}

/// The memory of a typed array for the length of one call.
///
/// The view may lie over a SharedArrayBuffer or a mapping that others write to, so Rust code never
/// looks at the bytes: they are only handed to the kernel.
#[derive(Debug)]
pub struct Bytes {
    data: NonNull<u8>,
    length: usize,
}

impl Bytes {
    /// Where they are and how many; whoever uses them after the call keeps the view.
    pub(crate) fn parts(&self) -> (NonNull<u8>, usize) {
        (self.data, self.length)
    }

    /// For a system call that fills the memory.
    pub(super) fn writable(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: Node-API said that `length` bytes at `data` belong to the view, which lives as
        // long as the call; no JavaScript runs meanwhile, and no Rust code reads or writes the
        // bytes.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr().cast(), self.length) }
    }

    /// The same, for calls that ask for bytes that are initialised.
    pub(super) fn fillable(&mut self) -> &mut [u8] {
        // SAFETY: as above; the engine's memory is always initialised.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.length) }
    }

    /// For a system call that takes the memory.
    pub(super) fn readable(&self) -> &[u8] {
        // SAFETY: as above; the engine's memory is always initialised.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }
}

impl TypeName for Bytes {
    fn type_name() -> &'static str {
        "Uint8Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Bytes {}

impl FromNapiValue for Bytes {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: passed on.
        let array = unsafe { TypedArray::of(env, value) }?;
        if array.kind != sys::TypedarrayType::uint8_array {
            return Err(napi::Error::new(
                Status::InvalidArg,
                "buffer is not a Uint8Array; pass one",
            ));
        }
        Ok(Self { data: array.data.cast(), length: array.length })
    }
}
