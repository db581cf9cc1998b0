//! Lives of contexts that a place needs which the busy world does not lead to.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use fdmon::Handlers;

use crate::injector::Stage;
use crate::ledger::{Bell, Log};
use crate::table::{On, Phase};
use crate::world::{self, World, live};

/// A ring that was asked for is refused, with a reason; then it is not.
pub fn refused_ring(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    stage.enter(Phase::Build);
    let Err(error) = world::build(on, spins) else {
        log.wrong("the ring was not refused".into());
        return;
    };
    let text = error.to_string();
    if !text.contains("EPERM: a seccomp profile refuses io_uring_setup") || !text.contains("; ") {
        log.wrong(format!("the refusal says: {text}"));
    }
    live(on, spins, stage, log);
}

/// Many fds, one of which turns out to be closed when they move to epoll.
pub fn closed_under_move(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    stage.enter(Phase::Grow);
    for _ in 0..70 {
        let bell = world.bell("one of many");
        world.listen(&bell, |handlers| handlers);
        world.bells.push(bell);
    }
    without_the_closed(world);
}

/// External handlers, one of which turns out to be closed when they are heard again.
pub fn closed_while_held_back(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    for _ in 0..25 {
        let bell = world.bell("external");
        world.listen(&bell, |handlers: Handlers| handlers.external(true));
        world.bells.push(bell);
    }
    world.ctx.disable_external();
    world.turn(false);
    stage.enter(Phase::Work);
    world.ctx.enable_external();
    without_the_closed(world);
}

/// Handlers on a ring, of which one turns out to be closed when its poll completes.
pub fn closed_on_ring(on: On, spins: bool, stage: &Stage, log: &Arc<Log>) {
    let mut world = World::new(on, spins, stage, log);
    for _ in 0..25 {
        let bell = world.bell("one of some");
        world.listen(&bell, |handlers| handlers);
        world.bells.push(bell);
    }
    stage.enter(Phase::Work);
    without_the_closed(world);
}

/// It is removed; the others are heard.
fn without_the_closed(mut world: World<'_>) {
    world.look_at_monitor();
    let all = world.bells.len();
    for bell in &world.bells {
        world.ring(bell);
    }
    let is_left = |bell: &Bell| {
        let stats = world.ctx.stats();
        stats.handlers.iter().any(|handler| handler.fd == bell.notifier.as_raw_fd())
    };
    let has_come = |bell: &Rc<Bell>| !bell.owed.get() || !is_left(bell);
    world.until("the others", true, || world.bells.iter().all(has_come));
    let left: Vec<_> = world.bells.iter().filter(|bell| is_left(bell)).cloned().collect();
    world.bells = left;
    if world.bells.len() + 1 != all {
        world.log.wrong(format!("{} of {all} handlers are left", world.bells.len()));
    }
    for bell in &world.bells {
        world.ring(bell);
    }
    world.until("the others again", true, || world.bells.iter().all(|bell| !bell.owed.get()));
    world.calm("the others");
    let left = world.bells.len().try_into().unwrap();
    world.close(left);
}
