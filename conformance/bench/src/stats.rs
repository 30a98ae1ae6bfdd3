//! Times of repeated runs and what is said about them: median and p99, never a mean of all (one descheduling would own it).

/// Times in milliseconds, in the order they were taken.
#[derive(Debug, Default, Clone)]
pub struct Samples {
    times_ms: Vec<f64>,
}

impl Samples {
    pub fn push(&mut self, time_ms: f64) {
        self.times_ms.push(time_ms);
    }

    pub fn len(&self) -> usize {
        self.times_ms.len()
    }

    /// `None` without samples; of an even number, the mean of the middle two.
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let upper = *sorted.get(sorted.len() / 2)?;
        if sorted.len().is_multiple_of(2) {
            let lower = *sorted.get(sorted.len() / 2 - 1)?;
            return Some(f64::midpoint(lower, upper));
        }
        Some(upper)
    }

    pub fn best(&self) -> Option<f64> {
        self.sorted().first().copied()
    }

    /// The smallest sample that at least 99 of 100 do not exceed (nearest rank): with fewer than 100 samples the worst.
    pub fn p99(&self) -> Option<f64> {
        let sorted = self.sorted();
        let rank = (sorted.len() * 99).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }

    /// The mean of the middle half. As deaf to outliers as the median, and a seventh steadier where there are few.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn midmean(&self) -> Option<f64> {
        let sorted = self.sorted();
        let cut = sorted.len() / 4;
        let middle = sorted.get(cut..sorted.len() - cut)?;
        (!middle.is_empty()).then(|| middle.iter().sum::<f64>() / middle.len() as f64)
    }

    /// Each sample less the one taken in the same turn in `other`; `None` if not every one has such a partner.
    pub fn differences(&self, other: &Self) -> Option<Self> {
        let pairs = self.times_ms.iter().zip(&other.times_ms);
        (self.len() == other.len()).then(|| Self {
            times_ms: pairs.map(|(mine, its)| mine - its).collect(),
        })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.times_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    fn of(times: impl IntoIterator<Item = u32>) -> Samples {
        let mut samples = Samples::default();
        times
            .into_iter()
            .for_each(|time| samples.push(f64::from(time)));
        samples
    }

    #[test]
    fn median_takes_the_middle_whatever_the_order() {
        assert_eq!(of([]).median(), None);
        assert_eq!(of([9, 1, 5]).median(), Some(5.0));
        assert_eq!(of([9, 1, 5, 6]).median(), Some(5.5));
    }

    #[test]
    fn midmean_leaves_a_quarter_out_on_either_side() {
        assert_eq!(of([]).midmean(), None);
        assert_eq!(of([7]).midmean(), Some(7.0));
        assert_eq!(of([1, 2]).midmean(), Some(1.5));
        assert_eq!(of([900, 4, 0, 6]).midmean(), Some(5.0));
    }

    #[test]
    fn p99_is_the_nearest_rank() {
        assert_eq!(of([]).p99(), None);
        assert_eq!(of([3, 7]).p99(), Some(7.0));
        assert_eq!(of(1..=100).p99(), Some(99.0));
        assert_eq!(of(1..=1000).p99(), Some(990.0));
    }
}
