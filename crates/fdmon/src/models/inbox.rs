//! The list itself: pushed by two threads, emptied by a third.

use std::cell::RefCell;
use std::rc::Rc;

use loom::thread;

use super::{News, check, check_within};
use crate::inbox::{Inbox, Node};
use crate::sync::Arc;

/// Unlinks what is in the list and runs it; what a run sees told.
fn run(inbox: &Inbox, news: &[News], runs: &RefCell<Vec<usize>>) {
    inbox.drain(|node| {
        if node.unlink() && node.begin_run().is_some() {
            runs.borrow_mut().push(news.iter().filter(|news| news.is_told()).count());
        }
    });
}

/// SPEC 20, 36
#[test]
fn two_pushers_lose_nothing_and_keep_their_order() {
    check(|| {
        let inbox = Arc::new(Inbox::new());
        let news = [News::none(), News::none()];
        let pushers: Vec<_> = [(0, vec![0, 1]), (1, vec![10])]
            .into_iter()
            .map(|(thread, slots)| {
                let (inbox, news) = (Arc::clone(&inbox), news[thread].clone());
                thread::spawn(move || {
                    news.tell();
                    for slot in slots {
                        let node = Node::bottom_half(slot, 0);
                        assert!(node.schedule(false));
                        inbox.push(node);
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        let mut take = || {
            inbox.drain(|node| {
                assert!(news[node.slot as usize / 10].is_told());
                assert!(node.unlink());
                seen.push(node.slot);
            });
        };
        take();
        take();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        take();
        let firsts: Vec<_> = seen.iter().filter(|slot| **slot < 10).collect();
        assert_eq!((firsts, seen.len()), (vec![&0, &1], 3));
    });
}

/// SPEC 36
#[test]
fn a_node_is_on_its_way_once_and_its_last_run_sees_what_each_schedule_told() {
    check_within(3, || {
        let (inbox, node) = (Arc::new(Inbox::new()), Node::bottom_half(0, 0));
        // Another behind it, which a wrong link loses.
        let other = Node::bottom_half(1, 0);
        for node in [&node, &other] {
            assert!(node.schedule(false));
            inbox.push(Arc::clone(node));
        }
        let news = [News::none(), News::none()];
        let schedulers: Vec<_> = news
            .iter()
            .map(|news| {
                let (inbox, node, news) = (Arc::clone(&inbox), Arc::clone(&node), news.clone());
                thread::spawn(move || {
                    news.tell();
                    if node.schedule(false) {
                        inbox.push(node);
                    }
                })
            })
            .collect();
        let runs = Rc::default();
        run(&inbox, &news, &runs);
        run(&inbox, &news, &runs);
        schedulers.into_iter().for_each(|scheduler| scheduler.join().unwrap());
        run(&inbox, &news, &runs);
        assert!(!other.is_scheduled(), "the other node was lost");
        // One run of the other, and up to one for each schedule of this.
        let runs = runs.take();
        assert!((2..=4).contains(&runs.len()) && *runs.iter().max().unwrap() == 2, "{runs:?}");
    });
}

/// SPEC 36
#[test]
fn a_schedule_that_finds_a_cancelled_node_in_the_list_counts() {
    check(|| {
        let (inbox, node) = (Arc::new(Inbox::new()), Node::bottom_half(0, 0));
        assert!(node.schedule(false));
        inbox.push(Arc::clone(&node));
        node.cancel();
        let news = [News::none()];
        let scheduler = {
            let (inbox, node, news) = (Arc::clone(&inbox), Arc::clone(&node), news[0].clone());
            thread::spawn(move || {
                news.tell();
                if node.schedule(false) {
                    inbox.push(node);
                }
            })
        };
        let runs = Rc::default();
        run(&inbox, &news, &runs);
        scheduler.join().unwrap();
        run(&inbox, &news, &runs);
        assert_eq!(runs.take(), [1]);
    });
}
