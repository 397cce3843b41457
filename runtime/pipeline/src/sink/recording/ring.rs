//! The latest seconds of a stream as access units. Pure.
//!
//! Units are held in groups of pictures, each of which begins with a key: what begins elsewhere cannot be shown.

use std::collections::VecDeque;
use std::time::Duration;

use revoada_core::Timestamp;

use crate::media::AccessUnit;

/// What a unit takes beside its bytes: itself and the count of who holds it.
pub(super) const UNIT_BYTES: u64 = (size_of::<AccessUnit>() + 16) as u64;

/// As many groups as reach back `span` from the newest unit, and never more than `bytes_max`.
#[derive(Debug)]
pub(super) struct Ring {
    span: Duration,
    bytes_max: u64,
    groups: VecDeque<Group>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Group {
    units: Vec<AccessUnit>,
    bytes: u64,
}

impl Group {
    fn pts(&self) -> Timestamp {
        self.units.first().map_or(Timestamp::ZERO, |unit| unit.pts)
    }
}

impl Ring {
    pub(super) fn new(span: Duration, bytes_max: u64) -> Self {
        Self { span, bytes_max, groups: VecDeque::new(), bytes: 0 }
    }

    /// Takes the newest unit, and lets go of groups that nothing will begin with any more. Beyond the bound the oldest go
    /// too; returns how many of those there were. One that does not fit alone is not held at all.
    pub(super) fn push(&mut self, unit: AccessUnit) -> u64 {
        let (newest, bytes) = (unit.pts, unit.bytes.len() as u64 + UNIT_BYTES);
        if unit.is_key {
            self.groups.push_back(Group::default());
        }
        // The beginning of its group is gone.
        let Some(group) = self.groups.back_mut() else { return 0 };
        group.units.push(unit);
        group.bytes += bytes;
        self.bytes += bytes;
        while self.groups.get(1).is_some_and(|second| newest.since(second.pts()) >= self.span) {
            self.drop_oldest();
        }
        let mut dropped = 0;
        while self.bytes > self.bytes_max {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    fn drop_oldest(&mut self) {
        self.bytes -= self.groups.pop_front().map_or(0, |group| group.bytes);
    }

    /// From the latest key at or before `start` on; from the first there is where none is so old.
    pub(super) fn since(&self, start: Timestamp) -> impl Iterator<Item = &AccessUnit> {
        let first = self.groups.iter().rposition(|group| group.pts() <= start).unwrap_or(0);
        self.groups.iter().skip(first).flat_map(|group| &group.units)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn unit(ms: u64, is_key: bool, bytes: usize) -> AccessUnit {
        AccessUnit { pts: at(ms), duration: Duration::ZERO, is_key, bytes: vec![0; bytes].into() }
    }

    /// Holds everything that ever came, and says what of it a ring may still have.
    #[derive(Default)]
    struct Model {
        groups: Vec<Vec<AccessUnit>>,
        dropped: u64,
    }

    impl Model {
        fn bytes(&self) -> u64 {
            self.groups.iter().flatten().map(|unit| unit.bytes.len() as u64 + UNIT_BYTES).sum()
        }

        fn push(&mut self, unit: AccessUnit, span: Duration, bytes_max: u64) {
            let newest = unit.pts;
            match self.groups.last_mut() {
                Some(group) if !unit.is_key => group.push(unit),
                None if !unit.is_key => {}
                _ => self.groups.push(vec![unit]),
            }
            // The last that began `span` ago or earlier is the first that is needed.
            let needed = self.groups.iter().rposition(|group| group[0].pts + span <= newest).unwrap_or(0);
            self.groups.drain(..needed);
            while self.bytes() > bytes_max {
                self.groups.remove(0);
                self.dropped += 1;
            }
        }
    }

    proptest! {
        #[test]
        fn a_ring_holds_what_a_plain_list_would(
            units in prop::collection::vec((1u64..400, prop::bool::weighted(0.2), 0usize..2000), 1..200),
            span_ms in 0u64..5000,
            bytes_max in 100u64..40_000,
            back_ms in 0u64..8000,
        ) {
            let span = Duration::from_millis(span_ms);
            let (mut ring, mut model) = (Ring::new(span, bytes_max), Model::default());
            let (mut now, mut dropped) = (0, 0);
            for (step, is_key, bytes) in units {
                now += step;
                let unit = unit(now, is_key, bytes);
                model.push(unit.clone(), span, bytes_max);
                dropped += ring.push(unit);
                prop_assert!(ring.bytes <= bytes_max);
                prop_assert_eq!(ring.bytes, model.bytes());
                prop_assert_eq!(dropped, model.dropped);
                let held: Vec<_> = ring.groups.iter().map(|group| group.units.clone()).collect();
                prop_assert_eq!(&held, &model.groups);
                let start = at(now.saturating_sub(back_ms));
                let first = model.groups.iter().rposition(|group| group[0].pts <= start).unwrap_or(0);
                let expected: Vec<_> = model.groups[first.min(model.groups.len())..].iter().flatten().collect();
                prop_assert_eq!(ring.since(start).collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_group_that_does_not_fit_is_not_held_and_its_rest_neither() {
        let mut ring = Ring::new(Duration::from_secs(10), 1000);
        assert_eq!([ring.push(unit(0, true, 500)), ring.push(unit(40, false, 500))], [0, 1]);
        assert_eq!((ring.push(unit(80, false, 10)), ring.since(at(0)).count()), (0, 0));
        assert_eq!((ring.push(unit(120, true, 10)), ring.since(at(0)).count()), (0, 1));
    }
}
