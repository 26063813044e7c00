//! Figures that were measured.

use std::fmt;

/// Figures of one kind, to be printed and compared.
#[derive(Debug, Clone)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn new(mut figures: Vec<f64>) -> Self {
        assert!(!figures.is_empty(), "no figures");
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    /// All of them, the least first.
    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The smallest figure that this share of all does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        let (count, median, p95) = (self.0.len(), self.median(), self.quantile(0.95));
        write!(f, "{count} times: least {least:.2}, median {median:.2}, p95 {p95:.2}, most {most:.2} ms")
    }
}
