//! What is promised, as data: each bound names rows or facts of the report. Ratios inside one run, because times differ
//! from machine to machine and hour to hour; only of the overlay's, which have nothing to be compared with, the times
//! themselves, with room for a slow machine. There the best run counts: nothing in the same turn tells what other
//! programs added to a time, and they only ever add.

use Measure::{
    BestMs, BestOverFloor, BestOverOwn, Fact, GrowthOverFloor, OverFloor, OverOwn, OverPartner,
    OverReference,
};
use Part::{Burst, Crowd, Dual, Footprint, Overlay, Record, Sequential, Store, Traffic};

use crate::args::Part;
use crate::ground::Who;
use crate::measure::overlay::agent;
use crate::measure::{burst, crowd, dual, footprint, overlay, record, sequential, store, traffic};
use crate::report::Report;

/// A promise about `ours`.
#[derive(Debug)]
pub struct Bound {
    /// The measurements it needs.
    pub part: Part,
    pub work: &'static str,
    pub measure: Measure,
    /// The largest value that passes.
    pub limit: f64,
}

/// How the value is found. Times are medians, if not said otherwise.
#[derive(Debug, Clone, Copy)]
pub enum Measure {
    /// Ours over the floor's, of one row.
    OverFloor(&'static str),
    /// Ours over the reference's, of one row.
    OverReference(&'static str),
    /// Ours in the first row over ours in the second.
    OverOwn(&'static str, &'static str),
    /// Where each run of the first row has a partner in the second: what is usual of their differences, on top of the
    /// third row.
    OverPartner(&'static str, &'static str, &'static str),
    /// How much ours grows from the second row to the first, over how much the floor does.
    GrowthOverFloor(&'static str, &'static str),
    /// Ours of one row at its best, in milliseconds.
    BestMs(&'static str),
    /// Ours over the floor's, of one row, each at its best.
    BestOverFloor(&'static str),
    /// Ours in the first row over ours in the second, each at its best.
    BestOverOwn(&'static str, &'static str),
    /// Ours, as it is.
    Fact(&'static str),
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    /// Something needed for it was not measured.
    Unknown,
}

#[rustfmt::skip] // A table.
pub const BOUNDS: &[Bound] = &[
    bound(Sequential, "ADD", OverFloor(sequential::ADD), 1.6),
    bound(Sequential, "ADD", OverReference(sequential::ADD), 0.20),
    bound(Sequential, "ADD, ipMasq", OverFloor(sequential::ADD_MASQ), 2.0),
    bound(Sequential, "ADD, ipMasq", OverReference(sequential::ADD_MASQ), 0.10),
    bound(Sequential, "DEL", OverFloor(sequential::DEL), 1.15),
    bound(Sequential, "DEL, ipMasq", OverFloor(sequential::DEL_MASQ), 1.15),
    bound(Burst, "110 ADDs at once, ipMasq", OverFloor(burst::ADD_ALL), 2.0),
    bound(Burst, "110 ADDs at once, ipMasq", OverReference(burst::ADD_ALL), 0.12),
    bound(Store, "host-local ADD, 60,000 reserved", OverOwn(store::ADD_FULL, store::ADD_EMPTY), 1.3),
    bound(Store, "host-local DEL, 60,000 reserved", OverOwn(store::DEL_FULL, store::DEL_EMPTY), 1.3),
    bound(Crowd, "ADD at 1,000 pods", GrowthOverFloor(crowd::LAST, crowd::FIRST), 1.2),
    bound(Dual, "ADD, dual-stack", OverOwn(dual::ADD_DUAL, dual::ADD_V4), 1.3),
    bound(Dual, "ADDs with addresses not usable at return", Fact(dual::UNUSABLE), 0.0),
    bound(Record, "ADD, ipMasq, recorded on disk", OverPartner(record::ADD_ON, record::ADD_OFF, record::ADD), 1.02),
    bound(Record, "ADD, ipMasq, recorded in /run, with spans", OverPartner(record::ADD_SPANS, record::ADD_OFF, record::ADD), 1.02),
    bound(Footprint, "peak RSS, KiB", Fact(footprint::PEAK_RSS_KIB), 3.0 * 1024.0),
    bound(Footprint, "largest executable, KiB", Fact(footprint::SIZE_KIB), 1.6 * 1024.0),
    bound(Footprint, "executables that are not static", Fact(footprint::DYNAMIC), 0.0),
    bound(Footprint, "system calls in an ADD", Fact(footprint::SYSCALLS), 150.0),
    bound(Footprint, "system calls in an ADD, ipMasq", Fact(footprint::SYSCALLS_MASQ), 150.0),
    bound(Footprint, "programs executed by an ADD or DEL", Fact(footprint::EXECS), 0.0),
    bound(Overlay, overlay::COLD_5000, BestMs(overlay::COLD_5000), 120.0),
    bound(Overlay, overlay::COLD_10000, BestOverOwn(overlay::COLD_10000, overlay::COLD_5000), 2.3),
    bound(Overlay, overlay::RESTART, BestMs(overlay::RESTART), 40.0),
    bound(Overlay, overlay::RESTART_MESSAGES, Fact(overlay::RESTART_MESSAGES), 0.0),
    bound(Overlay, overlay::CHANGE, BestMs(overlay::CHANGE), 5.0),
    bound(Overlay, agent::PEAK_RSS_KIB, Fact(agent::PEAK_RSS_KIB), 32.0 * 1024.0),
    // 0.90 of what the nodes themselves send.
    bound(Traffic, traffic::GIB, BestOverFloor(traffic::GIB), 1.0 / 0.90),
    bound(Traffic, traffic::GIB_BY_HAND, BestOverFloor(traffic::GIB_BY_HAND), 1.0 / 0.80),
    bound(Traffic, traffic::GIB_WIRE, BestOverFloor(traffic::GIB_WIRE), 1.0 / 0.90),
];

const fn bound(part: Part, work: &'static str, measure: Measure, limit: f64) -> Bound {
    Bound {
        part,
        work,
        measure,
        limit,
    }
}

impl Bound {
    pub fn verdict(&self, report: &Report) -> Verdict {
        match self.measure.value(report) {
            None => Verdict::Unknown,
            Some(value) if value <= self.limit => Verdict::Pass,
            Some(_) => Verdict::Fail,
        }
    }
}

impl Measure {
    pub fn value(self, report: &Report) -> Option<f64> {
        let ours = |work| report.median(work, Who::Ours);
        let floor = |work| report.median(work, Who::Floor);
        match self {
            Self::OverFloor(work) => Some(ours(work)? / floor(work)?),
            Self::OverReference(work) => Some(ours(work)? / report.median(work, Who::Reference)?),
            Self::OverOwn(work, base) => Some(ours(work)? / ours(base)?),
            Self::OverPartner(work, partner, base) => {
                let difference = report.typical_difference(work, partner, Who::Ours)?;
                Some(1.0 + difference / ours(base)?)
            }
            Self::GrowthOverFloor(last, first) => {
                Some((ours(last)? / ours(first)?) / (floor(last)? / floor(first)?))
            }
            Self::BestMs(work) => report.best(work, Who::Ours),
            Self::BestOverFloor(work) => {
                Some(report.best(work, Who::Ours)? / report.best(work, Who::Floor)?)
            }
            Self::BestOverOwn(work, base) => {
                Some(report.best(work, Who::Ours)? / report.best(base, Who::Ours)?)
            }
            Self::Fact(name) => report.fact(name, Who::Ours),
        }
    }

    pub fn describe(self) -> String {
        match self {
            Self::OverFloor(_) => "ours / floor".to_owned(),
            Self::OverReference(_) => "ours / reference".to_owned(),
            Self::OverOwn(_, base) => format!("ours / {base}"),
            Self::OverPartner(_, partner, base) => format!("1 + (ours - {partner}) / {base}"),
            Self::GrowthOverFloor(..) => "ours' growth / floor's".to_owned(),
            Self::BestMs(_) => "ours at best, ms".to_owned(),
            Self::BestOverFloor(_) => "at best: ours / floor".to_owned(),
            Self::BestOverOwn(_, base) => format!("at best: ours / {base}"),
            Self::Fact(_) => "ours".to_owned(),
        }
    }
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Unknown => "not measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Measure, Verdict};
    use crate::args::Part;
    use crate::ground::Who;
    use crate::report::Report;

    #[test]
    fn a_bound_passes_fails_or_is_unknown() {
        let bound = Bound {
            part: Part::Sequential,
            work: "x",
            measure: Measure::OverFloor("x"),
            limit: 1.5,
        };
        let mut report = Report::default();
        report.push("x", Who::Ours, 3.0);
        assert_eq!(bound.verdict(&report), Verdict::Unknown);
        report.push("x", Who::Floor, 2.0);
        assert_eq!(bound.verdict(&report), Verdict::Pass);
        report.push("x", Who::Ours, 3.2);
        assert_eq!(bound.verdict(&report), Verdict::Fail);
    }

    /// What other programs take of the machine makes a run longer, never shorter.
    #[test]
    fn a_time_of_its_own_is_judged_at_its_best() {
        let mut report = Report::default();
        assert_eq!(Measure::BestMs("few").value(&report), None);
        for (few, many) in [(9.0, 8.0), (2.0, 30.0), (7.0, 9.0)] {
            report.push("few", Who::Ours, few);
            report.push("many", Who::Ours, many);
        }
        assert_eq!(Measure::BestMs("few").value(&report), Some(2.0));
        assert_eq!(
            Measure::BestOverOwn("many", "few").value(&report),
            Some(4.0)
        );
    }

    #[test]
    fn growth_is_compared_with_the_floors_growth() {
        let mut report = Report::default();
        for (work, ours, floor) in [("first", 2.0, 1.0), ("last", 6.0, 2.0)] {
            report.push(work, Who::Ours, ours);
            report.push(work, Who::Floor, floor);
        }
        assert_eq!(
            Measure::GrowthOverFloor("last", "first").value(&report),
            Some(1.5)
        );
    }

    #[test]
    fn partners_are_compared_one_by_one() {
        let mut report = Report::default();
        // The machine slows down; the difference stays.
        for (on, off) in [(1.1, 1.0), (2.1, 2.0), (3.1, 3.0), (9.0, 4.0)] {
            report.push("on", Who::Ours, on);
            report.push("off", Who::Ours, off);
            report.push("whole", Who::Ours, 2.0 * off);
        }
        let value = Measure::OverPartner("on", "off", "whole")
            .value(&report)
            .unwrap();
        assert!((value - 1.02).abs() < 1e-9, "{value}");
        report.push("on", Who::Ours, 1.0);
        assert_eq!(
            Measure::OverPartner("on", "off", "whole").value(&report),
            None
        );
    }

    #[test]
    fn a_fact_keeps_its_worst_value() {
        let mut report = Report::default();
        for value in [1.0, 3.0, 2.0] {
            report.at_most("calls", Who::Ours, value);
        }
        assert_eq!(Measure::Fact("calls").value(&report), Some(3.0));
    }
}
