//! A context is closed while others hand it something. Loom fails a model that leaks.

use super::{News, check, check_within, context, thread, watching};
use crate::MonitorKind;

/// Tells when it is dropped.
struct Tells(News);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.tell();
    }
}

/// SPEC 38
#[test]
fn a_closure_that_is_accepted_and_not_run_is_dropped_although_it_holds_a_remote() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let news = News::none();
        let tells = Tells(news.clone());
        let other = thread(&ctx, move |remote| {
            let own = remote.clone();
            let _refused = remote.run(move |_| drop((own, tells)));
        });
        ctx.poll(false).unwrap();
        ctx.close();
        other.join().unwrap();
        assert!(news.is_told(), "run, refused or dropped, and all of that before the end");
        drop(ctx);
    });
}

/// SPEC 38
#[test]
fn what_two_threads_hand_to_a_context_that_closes_is_dropped() {
    check_within(3, || {
        let ctx = context(MonitorKind::Epoll);
        let (half, _) = watching(&ctx, &[]);
        let id = half.id();
        let others = [
            thread(&ctx, move |remote| {
                let own = remote.clone();
                let _refused = remote.run(move |_| drop(own));
            }),
            thread(&ctx, move |remote| {
                let _refused = remote.schedule(&id);
            }),
        ];
        ctx.close();
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// SPEC 38
#[test]
fn the_last_remote_may_be_dropped_by_another_thread() {
    check(|| {
        let ctx = context(MonitorKind::Epoll);
        let other = thread(&ctx, |remote| {
            let own = remote.clone();
            let _refused = remote.run(move |_| drop(own));
        });
        drop(ctx);
        other.join().unwrap();
    });
}
