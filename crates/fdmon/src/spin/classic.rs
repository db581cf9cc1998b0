//! ②′ The classic policy: one window for the context, doubled while events come soon after it.

use crate::config::PollParams;

/// The first window.
const FIRST_NS: u64 = 4000;

#[derive(Default)]
pub(crate) struct Classic {
    window: u64,
}

impl Classic {
    pub fn window(&self) -> u64 {
        self.window
    }

    /// A blocking turn is over; `block_ns` went by from its start to now, spinning or asleep.
    pub fn on_turn(&mut self, block_ns: u64, params: &PollParams) {
        let grow = if params.grow == 0 { 2 } else { u64::from(params.grow) };
        if block_ns <= self.window {
            return;
        }
        if block_ns > params.max_ns {
            self.window = self.window.checked_div(params.shrink.into()).unwrap_or(0);
        } else if self.window < params.max_ns && block_ns < params.max_ns {
            let grown = if self.window == 0 { FIRST_NS } else { self.window.saturating_mul(grow) };
            self.window = grown.min(params.max_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(max_ns: u64, grow: u32, shrink: u32) -> PollParams {
        PollParams { max_ns, grow, shrink, ..Default::default() }
    }

    fn run(params: &PollParams, blocks: &[u64]) -> Vec<u64> {
        let mut policy = Classic::default();
        blocks
            .iter()
            .map(|&block| {
                policy.on_turn(block, params);
                policy.window()
            })
            .collect()
    }

    /// SPEC 26
    #[test]
    fn the_default_growth_path_is_4000_8000_16000_32000_32768() {
        let path = run(&params(32768, 0, 0), &[32767; 6]);
        assert_eq!(path, [4000, 8000, 16000, 32000, 32000 + 768, 32768]);
    }

    /// SPEC 26
    #[test]
    fn a_block_within_the_window_keeps_it() {
        assert_eq!(run(&params(32768, 0, 0), &[5000, 4000, 100, 4001]), [4000, 4000, 4000, 8000]);
    }

    /// SPEC 26
    #[test]
    fn a_block_beyond_the_maximum_resets_or_shrinks_the_window() {
        assert_eq!(run(&params(32768, 0, 0), &[5000, 5000, 32769]), [4000, 8000, 0]);
        assert_eq!(run(&params(32768, 0, 2), &[5000, 5000, 32769]), [4000, 8000, 4000]);
        assert_eq!(run(&params(32768, 0, 3), &[5000, u64::MAX]), [4000, 1333]);
    }

    /// SPEC 26
    #[test]
    fn a_block_of_exactly_the_maximum_keeps_the_window() {
        assert_eq!(run(&params(32768, 0, 0), &[5000, 32768]), [4000, 4000]);
    }

    /// SPEC 26
    #[test]
    fn the_first_window_is_at_most_the_maximum_and_growth_saturates() {
        assert_eq!(run(&params(1000, 0, 0), &[999]), [1000]);
        let huge = params(u64::MAX, u32::MAX, 0);
        let path = run(&huge, &[u64::MAX - 1; 8]);
        assert_eq!(path.last(), Some(&u64::MAX));
    }
}
