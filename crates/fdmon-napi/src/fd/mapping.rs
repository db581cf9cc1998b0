//! Shared memory: a memfd, its mappings, and who keeps them mapped.
//!
//! A mapping is held by the ArrayBuffer over it and by native users (a word that a context polls),
//! each by an `Arc`. It is unmapped when the last of them is gone, in whichever order they go.
//! JavaScript knows memory by its address only, so a registry leads from an address back to the
//! mapping.
#![allow(
    unsafe_code,
    reason = "mmap, munmap and an ArrayBuffer over foreign memory are unsafe by nature"
)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fdmon::ErrorCode;
use napi::Env;
use napi_derive::napi;
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
    memfd_create as create,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::owned::give;
use super::{duplicate, raw};
use crate::error::{Failure, Result, guard};

/// By first address. Process-wide, not per environment, because addresses are: an entry goes with
/// its mapping.
static MAPPINGS: Mutex<BTreeMap<usize, Weak<Mapping>>> = Mutex::new(BTreeMap::new());

fn mappings() -> MutexGuard<'static, BTreeMap<usize, Weak<Mapping>>> {
    // The map is changed by single insertions and removals only: a panic elsewhere leaves it whole.
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A MAP_SHARED range of a memfd, unmapped on drop.
///
/// A retired one is replaced on drop by private zero pages, which take address space but no memory:
/// whoever still has the address against the rules reads zeros instead of ending the process.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: usize,
    length: usize,
    retired: AtomicBool,
}

impl Mapping {
    pub(super) fn new(fd: i32, length: usize) -> Result<Arc<Self>> {
        let file = raw::require(fd)?;
        let failed = |errno| {
            let advice = "map less, or raise the limit of this process's memory";
            Failure::syscall("mmap", errno, &format!("map {length} bytes of fd = {fd}"), advice)
        };
        let size = fstat(file).map_err(no_size(fd))?.st_size;
        if usize::try_from(size).is_ok_and(|size| size < length) {
            let message = format!(
                "size = {length} is more than the {size} bytes of fd = {fd}; map at most these"
            );
            return Err(Failure::new(ErrorCode::InvalidArg, message));
        }
        // SAFETY: a new range at an address that the kernel chooses cannot overlap memory that Rust
        // knows.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .map_err(failed)?;
        let mapping = Arc::new(Self {
            address: address.expose_provenance(),
            length,
            retired: AtomicBool::new(false),
        });
        mappings().insert(mapping.address, Arc::downgrade(&mapping));
        Ok(mapping)
    }
}

fn no_size(fd: i32) -> impl Fn(Errno) -> Failure {
    move |errno| {
        Failure::syscall("fstat", errno, &format!("ask the size of fd = {fd}"), "see fstat(2)")
    }
}

impl Mapping {
    pub(super) fn address(&self) -> usize {
        self.address
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// From now on the address must stay valid, though the memory need not.
    pub(super) fn retire(&self) {
        // Relaxed: whoever drops the last `Arc` sees it, as `Arc` orders drops.
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First out of the registry: once unmapped, the address may be handed out again by another
        // thread.
        mappings().remove(&self.address);
        let start = ptr::with_exposed_provenance_mut::<c_void>(self.address);
        let done = if *self.retired.get_mut() {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            // SAFETY: MAP_FIXED replaces exactly this mapping's own range, for ever.
            unsafe { mmap_anonymous(start, self.length, protection, flags) }.map(drop)
        } else {
            // SAFETY: the range is this mapping's own, and with the last `Arc` nobody uses it.
            unsafe { munmap(start, self.length) }
        };
        debug_assert_eq!(done, Ok(()), "an own range can be unmapped");
    }
}

/// The mapping in which all of `address .. address + length` lies; holding it keeps the memory
/// mapped.
pub(crate) fn mapping_of(address: usize, length: usize) -> Option<Arc<Mapping>> {
    let end = address.checked_add(length)?;
    let mapping = mappings().range(..=address).next_back()?.1.upgrade()?;
    (end <= mapping.address + mapping.length).then_some(mapping)
}

/// memfd_create(2), ftruncate(2), and a seal: it never shrinks, so no access to a mapping can fail
/// with SIGBUS.
#[napi]
pub fn memfd_create(env: Env, name: String, size: i64) -> napi::Result<i32> {
    guard(&env, || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match create(name.as_str(), flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3 there is no MFD_NOEXEC_SEAL.
            Err(Errno::INVAL) => create(name.as_str(), flags),
            other => other,
        }
        .map_err(|errno| {
            let advice = "pass a name of at most 249 bytes";
            Failure::syscall(
                "memfd_create",
                errno,
                &format!("make a file with name = {name:?}"),
                advice,
            )
        })?;
        let sized = |errno| {
            let advice = "pass a smaller size";
            Failure::syscall(
                "ftruncate",
                errno,
                &format!("make a file of size = {size} bytes"),
                advice,
            )
        };
        let length = u64::try_from(size).map_err(|_| sized(Errno::INVAL))?;
        retry_on_intr(|| ftruncate(&fd, length)).map_err(sized)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK).map_err(|errno| {
            Failure::syscall(
                "fcntl",
                errno,
                &format!("seal the size of the file with name = {name:?}"),
                "see fcntl(2)",
            )
        })?;
        Ok(give(&env, fd))
    })
}

/// What [`memfd_adopt`] found.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct AdoptedMemFd {
    pub fd: i32,
    pub name: String,
    pub size: f64,
}

/// A descriptor of its own for a memfd that somebody else made, which must be sealed as ours are.
#[napi]
#[allow(clippy::cast_precision_loss, reason = "a file of 2^53 bytes cannot be mapped anyway")]
pub fn memfd_adopt(env: Env, fd: i32) -> napi::Result<AdoptedMemFd> {
    guard(&env, || {
        let own = duplicate(fd)?;
        let refused = |what: &str| {
            let message = format!("fd = {fd} {what}; pass a memfd that memfd() of fdmon/fd made");
            Failure::new(ErrorCode::InvalidArg, message)
        };
        let seals = fcntl_get_seals(&own).map_err(|_| refused("is not a memfd"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(refused("may shrink, and reading it would end the process then"));
        }
        let size = fstat(&own).map_err(no_size(fd))?.st_size as f64;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", own.as_raw_fd()));
        let link = link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
        let name = link.strip_prefix("/memfd:").unwrap_or_default();
        let name = name.strip_suffix(" (deleted)").unwrap_or(name).to_owned();
        Ok(AdoptedMemFd { fd: give(&env, own), name, size })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(length: u64) -> (rustix::fd::OwnedFd, Arc<Mapping>) {
        use std::os::fd::AsRawFd;
        let fd = create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, length).unwrap();
        let mapping = Mapping::new(fd.as_raw_fd(), usize::try_from(length).unwrap()).unwrap();
        (fd, mapping)
    }

    #[test]
    fn an_address_inside_a_mapping_leads_to_it_and_one_outside_to_nothing() {
        let (_fd, mapping) = memory(4096);
        let first = mapping.address;
        assert!(Arc::ptr_eq(&mapping_of(first, 4096).unwrap(), &mapping));
        assert!(Arc::ptr_eq(&mapping_of(first + 4092, 4).unwrap(), &mapping));
        assert!(mapping_of(first + 4092, 8).is_none_or(|other| !Arc::ptr_eq(&other, &mapping)));
        assert!(mapping_of(usize::MAX, 8).is_none());
        assert!(mapping_of(0, 8).is_none());
    }

    #[test]
    fn memory_stays_mapped_until_its_last_user_is_gone() {
        let (_fd, mapping) = memory(4096);
        let address = mapping.address;
        let second = mapping_of(address, 8).unwrap();
        drop(mapping);
        assert!(mapping_of(address, 8).is_some());
        drop(second);
        assert!(mapping_of(address, 8).is_none());
    }

    #[test]
    fn a_retired_mapping_leaves_an_address_that_can_be_read() {
        let (_fd, mapping) = memory(8192);
        let address = mapping.address;
        mapping.retire();
        drop(mapping);
        assert!(mapping_of(address, 8).is_none());
        let word = ptr::with_exposed_provenance::<u64>(address);
        // SAFETY: that these pages are still there is what is tested; nobody else knows of them.
        assert_eq!(unsafe { word.read_volatile() }, 0);
    }

    #[test]
    fn more_than_the_file_holds_cannot_be_mapped() {
        use std::os::fd::AsRawFd;
        let (fd, _mapping) = memory(4096);
        let failure = Mapping::new(fd.as_raw_fd(), 8192).unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidArg);
        assert!(failure.message.contains("8192"), "{}", failure.message);
    }
}
