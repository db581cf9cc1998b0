//! Typed arrays of JavaScript, read and written where they lie.

use std::ptr::{self, NonNull};

use napi::bindgen_prelude::{FromNapiValue, TypeName, ValidateNapiValue};
use napi::{Status, ValueType, check_status, sys};

use super::Pinned;

/// What keeps an array, and with it its memory, alive and in place.
pub(crate) type Kept = Pinned;

/// A typed array of 32- or 64-bit integers, for the length of one call; [`Memory::pin`] keeps it.
#[derive(Debug)]
pub struct Memory {
    env: sys::napi_env,
    value: sys::napi_value,
    data: NonNull<u8>,
    length: usize,
    wide: bool,
}

impl Memory {
    /// Its first element.
    pub(crate) fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.length * if self.wide { 8 } else { 4 }
    }

    /// Its elements have 64 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }

    /// The address of the element at `index`, which TypeScript has checked.
    pub(crate) fn element(&self, index: u32) -> Option<NonNull<u8>> {
        let index = index as usize;
        if index >= self.length {
            return None;
        }
        // SAFETY: the element lies within the array's memory.
        Some(unsafe { self.data.add(index * if self.wide { 8 } else { 4 }) })
    }

    /// Keeps the array, and with it its memory, alive and in place.
    pub(crate) fn pin(&self) -> napi::Result<Kept> {
        // SAFETY: `value` came with the call that is running, in this environment. Contexts, the
        // owners of all pins, are dropped by their finalizer, on the environment's thread.
        unsafe { Pinned::new(self.env, self.value) }
    }

    /// [`Memory::pin`] of elements of 32 bits; `name` is the argument's.
    pub(crate) fn pin_narrow(&self, name: &str) -> napi::Result<Kept> {
        if self.wide {
            let message = format!("{name} = BigInt64Array; pass an Int32Array");
            return Err(napi::Error::from_reason(message));
        }
        self.pin()
    }
}

/// Where a typed array's memory is.
pub(crate) struct TypedArray {
    pub kind: sys::napi_typedarray_type,
    /// Elements.
    pub length: usize,
    /// Aligned for the elements, and dangling where there are none.
    pub data: NonNull<u64>,
}

impl TypedArray {
    /// # Safety
    /// `env` and `value` are those of the call that is running.
    pub(crate) unsafe fn of(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut kind, mut length, mut data) = (0, 0, ptr::null_mut());
        // SAFETY: by this function's contract; unwanted results may be null.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env,
                value,
                &mut kind,
                &mut length,
                &mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        check_status!(status, "the argument is not a typed array; pass one")?;
        // An empty array has no address.
        let data = NonNull::new(data.cast()).unwrap_or(NonNull::dangling());
        Ok(Self { kind, length, data })
    }
}

impl TypeName for Memory {
    fn type_name() -> &'static str {
        "Int32Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Memory {}

impl FromNapiValue for Memory {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: passed on.
        let array = unsafe { TypedArray::of(env, value) }?;
        let wide = match array.kind {
            sys::TypedarrayType::int32_array | sys::TypedarrayType::uint32_array => false,
            sys::TypedarrayType::bigint64_array | sys::TypedarrayType::biguint64_array => true,
            _ => {
                let message = "memory has elements of another size; pass 32- or 64-bit integers";
                return Err(napi::Error::new(Status::InvalidArg, message));
            }
        };
        Ok(Self { env, value, data: array.data.cast(), length: array.length, wide })
    }
}
