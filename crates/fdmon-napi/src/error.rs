//! What went wrong, as the `FdmonError` that JavaScript sees.
//!
//! The class lives in TypeScript. `init` hands this environment a function that makes one, kept in
//! the instance data; an error is thrown as that very object, so `instanceof`, `code`, `errno` and
//! `syscall` are right without a wrapper.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fdmon::ErrorCode;
use napi::bindgen_prelude::{FnArgs, FunctionRef, JsObjectValue, Unknown};
use napi::{Env, JsValue, Status};
use napi_derive::napi;
#[cfg(not(target_os = "wasi"))]
use rustix::io::Errno;

#[cfg(not(target_os = "wasi"))]
use crate::channel::Marks;
#[cfg(not(target_os = "wasi"))]
use crate::fd::Descriptors;

/// `(code, message, errno, syscall) => FdmonError`
type MakeError =
    FunctionRef<FnArgs<(String, String, Option<i32>, Option<String>)>, Unknown<'static>>;

/// What the addon keeps for one environment (the main thread, or one worker).
#[derive(Default)]
struct PerEnv {
    make_error: RefCell<Option<Rc<MakeError>>>,
    #[cfg(not(target_os = "wasi"))]
    descriptors: Descriptors,
    #[cfg(not(target_os = "wasi"))]
    marks: RefCell<Marks>,
}

/// An error on its way to JavaScript: one of the loop's, or one that this crate found itself.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) errno: Option<i32>,
    pub(crate) syscall: Option<&'static str>,
}

/// The result of what a native function does before it is translated.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// `message` names the argument and the value and ends with what to do.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: None, syscall: None }
    }

    /// A system call that failed. `what` says what it was to do and for which value, `advice` what
    /// the caller can do.
    #[cfg(not(target_os = "wasi"))]
    pub(crate) fn syscall(syscall: &'static str, errno: Errno, what: &str, advice: &str) -> Self {
        let code = match errno {
            Errno::BADF => ErrorCode::BadFd,
            Errno::NOSYS => ErrorCode::Unsupported,
            _ => ErrorCode::Syscall,
        };
        let advice = match errno {
            Errno::BADF => "pass a file descriptor that is open",
            Errno::NOSYS => {
                "this kernel or sandbox lacks it: use a newer kernel or a wider seccomp profile"
            }
            Errno::MFILE => {
                "close descriptors that are no longer used, or raise the limit with ulimit -n"
            }
            Errno::NFILE => "the whole system is out of open files: raise fs.file-max",
            Errno::NOMEM => "free memory, or raise the limit of this process or container",
            _ => advice,
        };
        Self {
            code,
            message: format!("{syscall} failed to {what}: {errno}; {advice}"),
            errno: Some(errno.raw_os_error()),
            syscall: Some(syscall),
        }
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        Self::new(
            ErrorCode::Internal,
            format!("a defect of fdmon: {text}; report it with a program that shows it"),
        )
    }

    /// The error as an `FdmonError` object.
    pub(crate) fn to_js<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        let made = make_error(env).and_then(|make| {
            let make = make.borrow_back(env)?;
            let arguments = (
                self.code.as_str().to_owned(),
                self.message.clone(),
                self.errno,
                self.syscall.map(str::to_owned),
            );
            make.call(FnArgs::from(arguments))
        });
        match made {
            Ok(error) => Ok(error),
            // Before `init`, or while the environment ends: an ordinary error with the same code.
            Err(_) => {
                let mut error = env
                    .create_error(napi::Error::new(Status::GenericFailure, self.message.clone()))?;
                error.set_named_property("code", self.code.as_str())?;
                Ok(error.to_unknown())
            }
        }
    }

    /// The error as what a native function returns to make JavaScript throw the `FdmonError`.
    pub(crate) fn throw(&self, env: &Env) -> napi::Error {
        match self.to_js(env).and_then(|error| env.throw(error)) {
            Ok(()) => napi::Error::new(Status::PendingException, self.message.clone()),
            Err(_) => napi::Error::new(Status::GenericFailure, self.message.clone()),
        }
    }
}

impl From<&fdmon::Error> for Failure {
    fn from(error: &fdmon::Error) -> Self {
        Self {
            code: error.code(),
            // The one option that the loop, not TypeScript, finds wrong, as TypeScript spells it.
            message: error.to_string().replace("kernel_busy_poll", "kernelBusyPoll"),
            errno: error.errno(),
            syscall: error.syscall_name(),
        }
    }
}

impl From<fdmon::Error> for Failure {
    fn from(error: fdmon::Error) -> Self {
        Self::from(&error)
    }
}

/// Runs the body of a native function: an error is thrown as an `FdmonError`, a panic as one with
/// code `ERR_FDMON_INTERNAL`. What the body was changing is not used again after a panic, or is
/// closed by the caller.
pub(crate) fn guard<T>(env: &Env, body: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    guard_or(env, body, || ())
}

/// …that does this besides before a panic is thrown.
#[inline]
pub(crate) fn guard_or<T>(
    env: &Env,
    body: impl FnOnce() -> Result<T>,
    on_panic: impl FnOnce(),
) -> napi::Result<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(failure.throw(env)),
        Err(payload) => {
            on_panic();
            Err(Failure::panic(&*payload).throw(env))
        }
    }
}

/// Called once by `ts/native.ts`: how errors are made in this environment.
#[napi]
pub fn init(
    env: Env,
    #[napi(
        ts_arg_type = "(code: string, message: string, errno: number | null, syscall: string | null) => Error"
    )]
    make_error: MakeError,
) -> napi::Result<()> {
    let state = match per_env(&env)? {
        Some(state) => state,
        None => {
            let state = Rc::new(PerEnv::default());
            env.set_instance_data(Rc::clone(&state), (), |_| {})?;
            // With the instance data they would go too late to give their references back.
            let ends = |state: Rc<PerEnv>| {
                drop(state.make_error.take());
                #[cfg(not(target_os = "wasi"))]
                drop(state.marks.take());
            };
            env.add_env_cleanup_hook(Rc::clone(&state), ends)?;
            state
        }
    };
    *state.make_error.borrow_mut() = Some(Rc::new(make_error));
    Ok(())
}

fn make_error(env: &Env) -> napi::Result<Rc<MakeError>> {
    per_env(env)?
        .and_then(|state| state.make_error.borrow().clone())
        .ok_or_else(|| napi::Error::from_status(Status::GenericFailure))
}

fn per_env(env: &Env) -> napi::Result<Option<Rc<PerEnv>>> {
    Ok(env.get_instance_data::<Rc<PerEnv>>()?.map(|state| Rc::clone(state)))
}

/// What `use_them` makes of the descriptors of this environment; None before `init`.
#[cfg(not(target_os = "wasi"))]
pub(crate) fn with_descriptors<T>(
    env: &Env,
    use_them: impl FnOnce(&Descriptors) -> T,
) -> Option<T> {
    per_env(env).ok().flatten().map(|state| use_them(&state.descriptors))
}

/// What `use_them` makes of the ports that this environment owns; None before `init`.
#[cfg(not(target_os = "wasi"))]
pub(crate) fn with_marks<T>(env: &Env, use_them: impl FnOnce(&mut Marks) -> T) -> Option<T> {
    per_env(env).ok().flatten().map(|state| use_them(&mut state.marks.borrow_mut()))
}
