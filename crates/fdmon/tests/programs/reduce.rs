//! What of a failing program makes it fail: steps, callbacks and details are left out as long as it
//! goes on failing. A fuzzer's programs have no other way to shrink.

use crate::program::{Call, Code, Handler, Poll, Program, Spin, Step, Steps};

/// The program without all that it fails without.
pub fn reduce(mut program: Program, fails: impl Fn(&Program) -> bool) -> Program {
    'again: loop {
        let mut at = 0;
        let mut any = false;
        // Each part in turn, again and again, until a whole round has left out nothing.
        while let Some(smaller) = without(&program, at) {
            if fails(&smaller) {
                program = smaller;
                any = true;
            } else {
                at += 1;
            }
        }
        if !any {
            break 'again;
        }
    }
    program
}

/// The program without its part of this number.
fn without(program: &Program, at: usize) -> Option<Program> {
    let mut smaller = program.clone();
    let mut left = at;
    let part = &mut left;
    let found = (smaller.spin != Spin::Off && take(part, || smaller.spin = Spin::Off))
        || steps(&mut smaller.steps, part)
        || smaller.halves.iter_mut().chain(&mut smaller.timers).any(|s| steps(s, part));
    found.then_some(smaller)
}

/// This is the part.
fn take(left: &mut usize, change: impl FnOnce()) -> bool {
    let is_it = *left == 0;
    if is_it {
        change();
    } else {
        *left -= 1;
    }
    is_it
}

fn steps(list: &mut Steps, left: &mut usize) -> bool {
    // A step at a time, the last ones first, then what is in them.
    if *left < list.0.len() {
        list.0.remove(list.0.len() - 1 - *left);
        return true;
    }
    *left -= list.0.len();
    for at in 0..list.0.len() {
        if let Step::Other { steps } | Step::Once { steps } | Step::Job { steps } = &list.0[at] {
            let inner = steps.0.clone();
            let mut change = None;
            if take(left, || change = Some(inner)) {
                list.0.splice(at..=at, change.unwrap_or_default());
                return true;
            }
        }
        if step(&mut list.0[at], left) {
            return true;
        }
    }
    false
}

fn step(step: &mut Step, left: &mut usize) -> bool {
    match step {
        Step::Register { handler, .. } => self::handler(handler, left),
        Step::Once { steps: inner }
        | Step::Job { steps: inner }
        | Step::Other { steps: inner }
        | Step::Embed { between: inner } => steps(inner, left),
        _ => false,
    }
}

fn handler(handler: &mut Handler, left: &mut usize) -> bool {
    for callback in [&mut handler.read, &mut handler.write, &mut handler.priority] {
        if let Some(call) = callback {
            if steps(&mut call.steps, left) {
                return true;
            }
            if take(left, || *callback = None) {
                return true;
            }
        }
    }
    if handler.external && take(left, || handler.external = false) {
        return true;
    }
    if handler.movable && take(left, || handler.movable = false) {
        return true;
    }
    poll(&mut handler.poll, left)
}

fn poll(poll: &mut Poll, left: &mut usize) -> bool {
    let simpler = match poll {
        Poll::No => return false,
        Poll::Kernel => Poll::No,
        Poll::Word { suppress: false, .. } => Poll::No,
        Poll::Word { ready, .. } => Poll::Word { suppress: false, ready: ready.clone() },
        Poll::Code { code, ready } if *code == Code::default() => {
            Poll::Word { suppress: false, ready: ready.clone() }
        }
        Poll::Code { ready, .. } => Poll::Code { code: Code::default(), ready: ready.clone() },
    };
    if take(left, || *poll = simpler) {
        return true;
    }
    match poll {
        Poll::Word { ready, .. } => inside(ready, left),
        Poll::Code { code, ready } => details(code, left) || inside(ready, left),
        Poll::No | Poll::Kernel => false,
    }
}

fn inside(call: &mut Call, left: &mut usize) -> bool {
    steps(&mut call.steps, left)
}

fn details(code: &mut Code, left: &mut usize) -> bool {
    let none = Code::default();
    let simpler = [
        Code { ns: 0, ..code.clone() },
        Code { every: 0, ..code.clone() },
        Code { meanwhile: none.meanwhile, ..code.clone() },
        Code { panics_at: 0, ..code.clone() },
        Code { begin: none.begin, ..code.clone() },
        Code { end: none.end, ..code.clone() },
    ];
    simpler
        .into_iter()
        .filter(|s| s != code)
        .collect::<Vec<_>>()
        .into_iter()
        .any(|simpler| take(left, || *code = simpler))
}
