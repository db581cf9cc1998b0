//! There is no libuv to be reached from WebAssembly: a type without a value.

use std::rc::Rc;

use fdmon::ErrorCode;
use napi::Env;
use napi::bindgen_prelude::{Function, Unknown};

use crate::core::Core;
use crate::error::{Failure, Result};

pub(crate) enum Attachment {}

impl Attachment {
    pub(crate) fn new(
        _: &Env,
        _: &Rc<Core>,
        _: &Function<'_, Unknown<'static>, Unknown<'static>>,
    ) -> Result<Rc<Self>> {
        let message = "attach() is not possible in a WebAssembly build, which cannot reach libuv; \
                       run the context with poll() or run()";
        Err(Failure::new(ErrorCode::Unsupported, message))
    }

    pub(crate) fn touched(&self) {
        match *self {}
    }

    pub(crate) fn leave(&self) -> bool {
        match *self {}
    }

    pub(crate) fn set_referenced(&self, _: bool) {
        match *self {}
    }

    pub(crate) fn keep(&self, _: bool) {
        match *self {}
    }
}
