//! What a signal handler is told (sigaction(2)) as the record that signalfd(2) gives.
//!
//! Plain computation without a call: it runs inside the handler. Both structs are taken as words,
//! since which of their fields are there depends on the signal.

use std::mem::size_of;

use libc::siginfo_t;

/// siginfo_t and the record as words, whichever fields the signal has.
pub(super) type Words = [i32; 32];
const _: () = assert!(size_of::<siginfo_t>() == size_of::<Words>());
const _: () = assert!(size_of::<libc::signalfd_siginfo>() == size_of::<Words>());

/// `struct signalfd_siginfo` of a `siginfo_t`, filled as the kernel does (fs/signalfd.c).
pub(super) fn record(info: &Words) -> Words {
    // Behind three ints, aligned for a pointer, lies the part that depends on the signal.
    const PART: usize = if size_of::<usize>() == 8 { 4 } else { 3 };
    const LONG: usize = size_of::<usize>() / 4;
    let mut record: Words = [0; 32];
    let (signal, code) = (info[0], info[2]);
    record[..3].copy_from_slice(&info[..3]);
    let part = &info[PART..];
    // The targets are little-endian: the low word of a long comes first.
    let mut long = |to: usize, at: usize| {
        record[to..to + LONG].copy_from_slice(&part[at..at + LONG]);
    };
    match (signal, code) {
        (_, libc::SI_TIMER) => {
            long(PTR, 2);
            record[TID] = part[0];
            record[OVERRUN] = part[1];
            record[INT] = part[2];
        }
        (libc::SIGCHLD, 1..libc::SI_KERNEL) => {
            // Two longs behind three ints, aligned as such.
            let times = if LONG == 2 { 4 } else { 3 };
            long(UTIME, times);
            long(STIME, times + LONG);
            record[PID] = part[0];
            record[UID] = part[1];
            record[STATUS] = part[2];
        }
        (_, libc::SI_SIGIO | 1..libc::SI_KERNEL) => {
            record[BAND] = part[0];
            record[FD] = part[LONG];
        }
        (_, libc::SI_USER | libc::SI_KERNEL) => {
            record[PID] = part[0];
            record[UID] = part[1];
        }
        _ => {
            long(PTR, 2);
            record[PID] = part[0];
            record[UID] = part[1];
            record[INT] = part[2];
        }
    }
    record
}

/// Places in `struct signalfd_siginfo`, in words of 4 bytes.
const PID: usize = 3;
const UID: usize = 4;
const FD: usize = 5;
const TID: usize = 6;
const BAND: usize = 7;
const OVERRUN: usize = 8;
const STATUS: usize = 10;
const INT: usize = 11;
const PTR: usize = 12;
const UTIME: usize = 14;
const STIME: usize = 16;

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    fn info(signal: i32, code: i32, part: &[i32]) -> Words {
        let mut words = [0; 32];
        (words[0], words[2]) = (signal, code);
        words[4..4 + part.len()].copy_from_slice(part);
        words
    }

    #[test]
    fn each_kind_of_signal_fills_its_fields_and_no_others() {
        let cases: [(Words, &[(usize, i32)]); 6] = [
            (info(10, libc::SI_USER, &[7, 8, 9, 9]), &[(PID, 7), (UID, 8)]),
            (
                info(10, libc::SI_QUEUE, &[7, 8, -9, 1]),
                &[(PID, 7), (UID, 8), (INT, -9), (PTR, -9), (PTR + 1, 1)],
            ),
            (
                info(14, libc::SI_TIMER, &[3, 4, 5, 6]),
                &[(TID, 3), (OVERRUN, 4), (INT, 5), (PTR, 5), (PTR + 1, 6)],
            ),
            (
                info(libc::SIGCHLD, libc::CLD_EXITED, &[7, 8, 3, 0, 11, 0, 12, 0]),
                &[(PID, 7), (UID, 8), (STATUS, 3), (UTIME, 11), (STIME, 12)],
            ),
            (info(libc::SIGIO, 1, &[0x41, 0, 5]), &[(BAND, 0x41), (FD, 5)]),
            (info(2, libc::SI_KERNEL, &[0, 0]), &[]),
        ];
        for (info, fields) in cases {
            let mut expected = [0; 32];
            expected[..3].copy_from_slice(&info[..3]);
            for &(at, value) in fields {
                expected[at] = value;
            }
            assert_eq!(record(&info), expected, "signal {}, code {}", info[0], info[2]);
        }
    }

    #[test]
    fn the_places_are_those_of_the_kernels_struct() {
        use libc::signalfd_siginfo as s;
        let places = [
            (offset_of!(s, ssi_pid), PID),
            (offset_of!(s, ssi_uid), UID),
            (offset_of!(s, ssi_fd), FD),
            (offset_of!(s, ssi_tid), TID),
            (offset_of!(s, ssi_band), BAND),
            (offset_of!(s, ssi_overrun), OVERRUN),
            (offset_of!(s, ssi_status), STATUS),
            (offset_of!(s, ssi_int), INT),
            (offset_of!(s, ssi_ptr), PTR),
            (offset_of!(s, ssi_utime), UTIME),
            (offset_of!(s, ssi_stime), STIME),
        ];
        for (bytes, words) in places {
            assert_eq!(bytes, words * 4);
        }
    }
}
