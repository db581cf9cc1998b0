//! What traffic a cell has: how far apart its events are, and from how many sources they come.

use fastrand::Rng;

/// How the gaps before the events of one source are spread around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All alike.
    Constant,
    /// As of independent events.
    Exponential,
    /// Seven of ten a tenth of the mean, the others 3.1 times the mean.
    Bimodal,
    /// By turns fifty at a tenth of the mean and fifty at 1.9 times the mean.
    Bursts,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Constant, Self::Exponential, Self::Bimodal, Self::Bursts];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Exponential => "exponential",
            Self::Bimodal => "bimodal",
            Self::Bursts => "bursts",
        }
    }
}

/// Where the events of a cell come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    One,
    /// One with the cell's gap, and one whose events come 50 times as far apart, plus 100 µs.
    FastAndSlow,
    /// 64, whose events together come as far apart as the cell says.
    Many,
}

impl Sources {
    pub const ALL: [Self; 3] = [Self::One, Self::FastAndSlow, Self::Many];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one source",
            Self::FastAndSlow => "one fast, one slow",
            Self::Many => "64 sources",
        }
    }

    /// Each source's gaps.
    pub fn gaps(self, shape: Shape, mean_ns: u64) -> Vec<Gaps> {
        let means = match self {
            Self::One => vec![mean_ns],
            Self::FastAndSlow => vec![mean_ns, mean_ns * 50 + 100_000],
            Self::Many => vec![mean_ns * 64; 64],
        };
        // Bursts of different sources do not begin together.
        let gaps = |(at, mean_ns)| Gaps { shape, mean_ns, drawn: at as u64 * 13 };
        means.into_iter().enumerate().map(gaps).collect()
    }
}

/// The gaps of one source: how long after one event was handled the next one comes.
#[derive(Clone, Debug)]
pub struct Gaps {
    shape: Shape,
    mean_ns: u64,
    drawn: u64,
}

impl Gaps {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn draw(&mut self, rng: &mut Rng) -> u64 {
        self.drawn += 1;
        let mean = self.mean_ns as f64;
        let gap = match self.shape {
            Shape::Constant => mean,
            Shape::Exponential => -mean * (1.0 - rng.f64()).ln(),
            Shape::Bimodal => mean * if rng.f64() < 0.7 { 0.1 } else { 3.1 },
            Shape::Bursts => mean * if (self.drawn / 50).is_multiple_of(2) { 0.1 } else { 1.9 },
        };
        gap as u64
    }
}
