//! Looking devices up that come in their order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;

use revoada_proto::DeviceId;

/// Further than this a search from the root is quicker.
const STEPS_MAX: usize = 8;

/// A walk over a map, which finds neighbours without a search.
pub(super) struct Walk<'a, V> {
    map: &'a BTreeMap<DeviceId, V>,
    entries: Peekable<Range<'a, DeviceId, V>>,
}

impl<'a, V> Walk<'a, V> {
    pub(super) fn new(map: &'a BTreeMap<DeviceId, V>) -> Self {
        Self { map, entries: map.range::<DeviceId, _>(..).peekable() }
    }

    /// What a plain look-up finds, for devices that are asked for in ascending order.
    pub(super) fn at(&mut self, device: &DeviceId) -> Option<&'a V> {
        for _ in 0..STEPS_MAX {
            let (found, value) = self.entries.peek()?;
            match (*found).cmp(device) {
                Ordering::Less => drop(self.entries.next()),
                Ordering::Equal => return Some(*value),
                Ordering::Greater => return None,
            }
        }
        self.entries = self.map.range(device..).peekable();
        self.entries.peek().filter(|(found, _)| *found == device).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_walk_finds_what_a_look_up_finds(
            known in prop::collection::btree_set(0u32..200, 0..100),
            asked in prop::collection::btree_set(0u32..200, 0..100),
        ) {
            let name = |number: u32| format!("{number:03}").parse::<DeviceId>().unwrap();
            let map: BTreeMap<DeviceId, u32> = known.into_iter().map(|number| (name(number), number)).collect();
            let mut walk = Walk::new(&map);
            for number in asked {
                prop_assert_eq!(walk.at(&name(number)), map.get(&name(number)));
                prop_assert_eq!(walk.at(&name(number)), map.get(&name(number)), "asked again");
            }
        }
    }
}
