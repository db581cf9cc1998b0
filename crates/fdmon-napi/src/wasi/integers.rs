//! Integers that a WebAssembly build shares with TypeScript: in its own memory, since it sees no
//! other. TypeScript makes a view of them, and passes their address where a native build takes the
//! array.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::rc::Rc;

use napi::bindgen_prelude::{FromNapiValue, TypeName, ValidateNapiValue};
use napi::{Status, ValueType, sys};
use napi_derive::napi;

/// Zeroes at first; both sides write them. Kept by TypeScript's view and by who uses them here.
pub(crate) type Kept = Rc<[Cell<i32>]>;

thread_local! {
    /// Those of which there is a view, by address.
    static VIEWED: RefCell<BTreeMap<u32, Kept>> = const { RefCell::new(BTreeMap::new()) };
}

fn address(integers: &Kept) -> u32 {
    // An address has 32 bits here.
    u32::try_from(integers.as_ptr().addr()).unwrap_or(0)
}

/// The address of so many integers, for a view.
#[napi]
pub fn integers_allocate(length: u32) -> u32 {
    let integers: Kept = std::iter::repeat_with(|| Cell::new(0)).take(length as usize).collect();
    let address = address(&integers);
    VIEWED.with_borrow_mut(|all| all.insert(address, integers));
    address
}

/// The view is gone.
#[napi]
pub fn integers_free(address: u32) {
    let integers = VIEWED.with_borrow_mut(|all| all.remove(&address));
    drop(integers);
}

/// Integers by their address.
#[derive(Debug)]
pub struct Memory(Kept);

impl Memory {
    /// Its first element.
    pub(crate) fn data(&self) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Its elements have 64 bits: never.
    pub(crate) fn is_wide(&self) -> bool {
        false
    }

    /// Keeps them alive and in place.
    pub(crate) fn pin(&self) -> napi::Result<Kept> {
        Ok(Rc::clone(&self.0))
    }

    /// [`Memory::pin`]; all are narrow.
    pub(crate) fn pin_narrow(&self, _: &str) -> napi::Result<Kept> {
        self.pin()
    }
}

impl TypeName for Memory {
    fn type_name() -> &'static str {
        "number"
    }

    fn value_type() -> ValueType {
        ValueType::Number
    }
}

impl ValidateNapiValue for Memory {}

impl FromNapiValue for Memory {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: passed on.
        let address = unsafe { u32::from_napi_value(env, value) }?;
        let known = VIEWED.with_borrow(|all| all.get(&address).map(Rc::clone));
        known.map(Self).ok_or_else(|| {
            let message = format!("address = {address} is none of integers_allocate; report this");
            napi::Error::new(Status::InvalidArg, message)
        })
    }
}
