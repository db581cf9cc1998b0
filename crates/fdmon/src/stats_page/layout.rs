//! The bytes of the page, as docs/STATS-PAGE.md has them: little-endian, at fixed offsets.

use crate::config::{IoEngine, MonitorKind, PolicyKind, PollParams};
use crate::stats::{ContextStats, Guard};
use crate::text::{cut, title};

pub(super) const MAGIC: [u8; 8] = *b"fdmonST\0";
pub(super) const VERSION: u32 = 1;
/// Before the first block.
pub(super) const HEADER: usize = 512;
/// Of one context.
pub(super) const BLOCK: usize = 16 * 1024;
/// More contexts are counted, and not shown.
pub(super) const BLOCKS: u32 = 64;
/// The part of the header that changes.
pub(super) const CHANGING: u64 = 40;

const TEXT: usize = 128;
const NAME: usize = 256;
const REASON: usize = NAME + TEXT;
const ROWS: usize = 512;
const ROW: usize = 40;
/// Handlers that have a row.
pub(super) const MOST_ROWS: usize = (BLOCK - ROWS) / ROW;

/// Where the block of a context begins in the file.
pub(super) fn position(block: u32) -> u64 {
    HEADER as u64 + u64::from(block) * BLOCK as u64
}

/// Bytes that are filled by offset.
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    pub fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    /// As much of it as fits before a 0, in whole characters.
    fn put_text(&mut self, at: usize, text: &str) {
        let text = cut(text, TEXT - 1);
        self.0[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
}

/// The header, but for what changes.
pub(super) fn header(pid: u32, period_ms: u32, start_time: u64) -> Bytes {
    let mut bytes = Bytes::new(HEADER);
    bytes.put(0, MAGIC);
    bytes.put(8, VERSION.to_le_bytes());
    bytes.put(12, (HEADER as u32).to_le_bytes());
    bytes.put(16, (BLOCK as u32).to_le_bytes());
    bytes.put(24, pid.to_le_bytes());
    bytes.put(28, period_ms.to_le_bytes());
    bytes.put(32, start_time.to_le_bytes());
    bytes.put_text(64, env!("CARGO_PKG_VERSION"));
    bytes
}

/// What changes of the header, for [`CHANGING`].
pub(super) fn changing(updates: u64, now_ns: u64, contexts: u32, left_out: u32) -> Bytes {
    let mut bytes = Bytes::new(24);
    bytes.put(0, updates.to_le_bytes());
    bytes.put(8, now_ns.to_le_bytes());
    bytes.put(16, contexts.to_le_bytes());
    bytes.put(20, left_out.to_le_bytes());
    bytes
}

/// A context: what its block has behind the sequence number.
pub(super) struct Context<'a> {
    pub id: u64,
    pub name: &'a str,
    pub now_ns: u64,
    pub poll: &'a PollParams,
    pub stats: ContextStats,
}

impl Context<'_> {
    /// The block from its first byte on, with 0 for the sequence number.
    pub fn encode(mut self) -> Bytes {
        let live = self.stats.handlers.len();
        if live > MOST_ROWS {
            // Those that had the most to do.
            self.stats
                .handlers
                .sort_unstable_by_key(|h| std::cmp::Reverse(h.reads + h.writes + h.poll_hits));
            self.stats.handlers.truncate(MOST_ROWS);
        }
        let stats = &self.stats;
        let rows = stats.handlers.len();
        let mut bytes = Bytes::new(ROWS + rows * ROW);
        bytes.put(8, self.id.to_le_bytes());
        bytes.put(
            16,
            [
                monitor_code(stats.monitor),
                Guard::to_u8(stats.guard),
                policy_code(self.poll.policy),
                engine_code(stats.aio_engine),
            ],
        );
        bytes.put(20, u32::try_from(live).unwrap_or(u32::MAX).to_le_bytes());
        bytes.put(24, u32::try_from(rows).unwrap_or(u32::MAX).to_le_bytes());
        let numbers = [
            self.now_ns,
            self.poll.max_ns,
            stats.turns,
            stats.waits,
            stats.sleeps,
            stats.spin_hits,
            stats.spin_misses,
            stats.spin_ns,
            stats.spin_wasted_ns,
            stats.window_ns,
            stats.wake_up_ns,
            stats.events,
            stats.dispatch_ns,
            stats.cpu_ns,
            stats.notifies_sent,
            stats.notifies_elided,
            stats.submissions,
            stats.completions,
            stats.batch_max,
            stats.fallbacks,
            stats.io_in_flight,
            stats.io_batch_max,
        ];
        for (at, number) in numbers.into_iter().enumerate() {
            bytes.put(32 + 8 * at, number.to_le_bytes());
        }
        bytes.put_text(NAME, &title(self.name, self.id));
        bytes.put_text(REASON, &stats.monitor_reason);
        for (at, row) in stats.handlers.iter().enumerate() {
            let at = ROWS + at * ROW;
            bytes.put(at, row.fd.to_le_bytes());
            bytes.put(at + 4, u32::from(row.polling).to_le_bytes());
            let numbers = [row.reads, row.writes, row.poll_hits, row.estimate_ns];
            for (field, number) in numbers.into_iter().enumerate() {
                bytes.put(at + 8 + 8 * field, number.to_le_bytes());
            }
        }
        bytes
    }
}

fn monitor_code(monitor: MonitorKind) -> u8 {
    match monitor {
        MonitorKind::Auto => 0,
        MonitorKind::Poll => 1,
        MonitorKind::Epoll => 2,
        MonitorKind::IoUring => 3,
        MonitorKind::Wasi => 4,
    }
}

fn policy_code(policy: PolicyKind) -> u8 {
    match policy {
        PolicyKind::Cost => 0,
        PolicyKind::PerHandler => 1,
        PolicyKind::Classic => 2,
        PolicyKind::Fixed => 3,
    }
}

fn engine_code(engine: Option<IoEngine>) -> u8 {
    match engine {
        None | Some(IoEngine::Auto) => 0,
        Some(IoEngine::IoUring) => 1,
        Some(IoEngine::Threads) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::HandlerStats;

    fn encoded(name: &str, handlers: Vec<HandlerStats>) -> Bytes {
        let stats = ContextStats {
            monitor: MonitorKind::Epoll,
            guard: Some(Guard::Budget),
            turns: 7,
            io_batch_max: 9,
            handlers,
            ..ContextStats::default()
        };
        let poll = PollParams { max_ns: 32_768, ..PollParams::default() };
        Context { id: 5, name, now_ns: 1, poll: &poll, stats }.encode()
    }

    fn number(bytes: &Bytes, at: usize) -> u64 {
        u64::from_le_bytes(bytes.as_slice()[at..at + 8].try_into().unwrap())
    }

    /// SPEC 53
    #[test]
    fn a_context_is_where_the_document_says() {
        let row = HandlerStats {
            fd: -3,
            reads: 1,
            writes: 2,
            poll_hits: 3,
            polling: true,
            estimate_ns: 4,
        };
        let bytes = encoded("sensors", vec![row]);
        assert_eq!(bytes.as_slice().len(), 552);
        assert_eq!([0, 8, 32, 40, 48, 200].map(|at| number(&bytes, at)), [0, 5, 1, 32_768, 7, 9]);
        assert_eq!(bytes.as_slice()[16..28], [2, 3, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&bytes.as_slice()[256..264], b"sensors\0");
        assert_eq!(bytes.as_slice()[512..520], [253, 255, 255, 255, 1, 0, 0, 0]);
        assert_eq!([520, 528, 536, 544].map(|at| number(&bytes, at)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_between_characters_and_none_is_made_up() {
        let bytes = encoded(&"ä".repeat(100), Vec::new());
        let text = &bytes.as_slice()[NAME..REASON];
        assert_eq!(text.iter().position(|&byte| byte == 0), Some(126));
        assert!(std::str::from_utf8(&text[..126]).is_ok());
        assert_eq!(&encoded("", Vec::new()).as_slice()[NAME..NAME + 10], b"context-5\0");
    }

    /// SPEC 53
    #[test]
    fn of_too_many_handlers_the_busiest_have_rows_and_all_are_counted() {
        let row =
            |fd: i32| HandlerStats { fd, reads: u64::from(fd == 1234), ..HandlerStats::default() };
        let bytes = encoded("", (0..2000).map(row).collect());
        assert_eq!(bytes.as_slice().len(), ROWS + MOST_ROWS * ROW);
        assert!(bytes.as_slice().len() <= BLOCK);
        let half = |at: usize| u32::from_le_bytes(bytes.as_slice()[at..at + 4].try_into().unwrap());
        assert_eq!((half(20), half(24) as usize, half(ROWS)), (2000, MOST_ROWS, 1234));
    }
}
