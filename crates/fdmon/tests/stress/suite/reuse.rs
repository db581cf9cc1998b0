//! Handlers come and go in callbacks, and their descriptors are closed and opened at once, so that
//! numbers are used again within the turn that still knows the old ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use fdmon::{AioContext, Handlers, Interest, Ops, Outcome, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{builder, spin};
use crate::support::{Dice, Time, alone, open_fds};

/// Registrations at a time.
const LIVE: usize = 48;

/// One registration: nobody else's bytes ever come out of its socket.
struct Entry {
    token: Token<OwnedFd>,
    peer: OwnedFd,
    /// Written and not yet read.
    sent: u32,
}

struct World {
    dice: Dice,
    next: u32,
    live: BTreeMap<u32, Entry>,
    /// The number that each registration had, dead ones too.
    numbers: BTreeMap<RawFd, u32>,
    read: u64,
    reused: u64,
}

type Shared = Rc<RefCell<World>>;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// Opens a pair and registers one end.
fn add(ctx: &AioContext, world: &Shared) {
    let (ours, peer) = pair();
    let fd = ours.as_raw_fd();
    let name = {
        let mut w = world.borrow_mut();
        w.next += 1;
        let name = w.next;
        w.reused += u64::from(w.numbers.insert(fd, name).is_some());
        name
    };
    let shared = world.clone();
    let handlers = Handlers::new().read(move |ops| on_read(ops, &shared, name));
    let token = ctx.set_fd_handler(ours, handlers).unwrap();
    world.borrow_mut().live.insert(name, Entry { token, peer, sent: 0 });
}

/// Removes one; its socket is closed with it, and the number is free.
fn remove(ctx: &AioContext, world: &Shared, name: u32) {
    let entry = world.borrow_mut().live.remove(&name);
    if let Some(entry) = entry {
        drop(ctx.deregister(&entry.token));
    }
}

fn send(world: &Shared, name: u32) {
    let mut w = world.borrow_mut();
    if let Some(entry) = w.live.get_mut(&name)
        && entry.sent < 8
    {
        rustix::io::write(&entry.peer, &name.to_ne_bytes()).unwrap();
        entry.sent += 1;
    }
}

fn anybody(world: &Shared) -> Option<u32> {
    let mut w = world.borrow_mut();
    let count = w.live.len();
    let at = w.dice.below(count.max(1));
    w.live.keys().nth(at).copied()
}

fn on_read(ops: &mut Ops<'_>, world: &Shared, name: u32) -> Outcome {
    assert!(world.borrow().live.contains_key(&name), "{name} was removed, and its callback ran");
    let mut bytes = [0; 4];
    match rustix::io::read(ops.fd(), &mut bytes) {
        Ok(4) => {
            assert_eq!(u32::from_ne_bytes(bytes), name, "somebody else's bytes");
            let mut w = world.borrow_mut();
            w.read += 1;
            if let Some(entry) = w.live.get_mut(&name) {
                entry.sent -= 1;
            }
        }
        Ok(size) => panic!("{size} bytes"),
        Err(Errno::AGAIN) => panic!("{name} was called although nothing is there"),
        Err(errno) => panic!("{errno}"),
    }
    let what = world.borrow_mut().dice.below(10);
    let ctx = ops.context();
    match what {
        // Itself, and somebody new who is likely to get the number.
        0 => {
            remove(ctx, world, name);
            add(ctx, world);
        }
        // Somebody else, who may be ready in this very turn.
        1 | 2 => {
            if let Some(other) = anybody(world) {
                remove(ctx, world, other);
            }
            add(ctx, world);
        }
        // A few at once, so that numbers are shuffled.
        3 => {
            let others: Vec<_> = (0..5).filter_map(|_| anybody(world)).collect();
            others.iter().for_each(|other| remove(ctx, world, *other));
            (0..5).for_each(|_| add(ctx, world));
        }
        4 => {
            for _ in 0..5 {
                if let Some(other) = anybody(world) {
                    send(world, other);
                }
            }
        }
        5 => {
            if let Some(other) = anybody(world) {
                let w = world.borrow();
                let token = &w.live[&other].token;
                token.set_interest(Interest::empty())?;
                token.set_interest(Interest::READ)?;
            }
        }
        // A nested turn takes what the outer one has collected.
        6 if world.borrow_mut().dice.below(4) == 0 => {
            ops.poll(false)?;
        }
        _ => {}
    }
    Ok(())
}

/// SPEC 3, 7, 8, 10, 19
#[test]
fn numbers_that_are_used_again_within_a_turn_confuse_nobody() {
    if !alone() {
        return;
    }
    let dice = Dice::new();
    let world = Rc::new(RefCell::new(World {
        dice,
        next: 0,
        live: BTreeMap::new(),
        numbers: BTreeMap::new(),
        read: 0,
        reused: 0,
    }));
    let ctx = builder().poll(spin(10_000)).build().unwrap();
    let limit = ctx.timer(|_| panic!("nothing happened for long")).unwrap();
    let time = Time::begins();
    let mut turns = 0_u64;
    while time.goes_on() {
        while world.borrow().live.len() < LIVE {
            add(&ctx, &world);
        }
        for _ in 0..LIVE / 2 {
            if let Some(name) = anybody(&world) {
                send(&world, name);
            }
        }
        limit.arm(Duration::from_secs(60)).unwrap();
        let blocking = world.borrow_mut().dice.below(2) == 0;
        ctx.poll(blocking).unwrap();
        turns += 1;
    }
    // What is still under way arrives: nothing was lost.
    limit.arm(Duration::from_secs(60)).unwrap();
    while world.borrow().live.values().any(|entry| entry.sent > 0) {
        ctx.poll(true).unwrap();
    }
    let fds = open_fds();
    let names: Vec<_> = world.borrow().live.keys().copied().collect();
    names.iter().for_each(|name| remove(&ctx, &world, *name));
    assert_eq!(open_fds(), fds - 2 * names.len());
    limit.delete();
    let w = world.borrow();
    println!("{turns} turns, {} read, {} numbers used again", w.read, w.reused);
    assert!(w.reused > 100 && w.read > w.reused, "{} read, {} used again", w.read, w.reused);
    assert_eq!(ctx.close(), fdmon::LeakReport::default());
}
