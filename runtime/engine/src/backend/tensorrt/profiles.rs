//! Which of a plan's profiles a session runs in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use revoada_core::{Dim, TensorSpec};
use revoada_tensorrt::Range;

use crate::EngineError;

/// The profiles of a plan, by their numbers.
pub(super) struct Profiles {
    ranges: Vec<BTreeMap<String, Range>>,
    /// Which of them sessions have; `None` where any number of sessions may share one.
    taken: Option<Mutex<Vec<bool>>>,
}

/// A session's profile, until it is dropped.
pub(super) struct TakenProfile {
    pub(super) number: usize,
    profiles: Arc<Profiles>,
}

impl Profiles {
    /// `exclusive` profiles are one session's each, as those of open shapes are before TensorRT 10.
    pub(super) fn new(ranges: Vec<BTreeMap<String, Range>>, exclusive: bool) -> Arc<Self> {
        let taken = exclusive.then(|| Mutex::new(vec![false; ranges.len()]));
        Arc::new(Self { ranges, taken })
    }

    /// Of the profiles that run these inputs in these shapes and are to be had, the one with the smallest largest
    /// batch: the closest to what it is tuned for.
    pub(super) fn take(self: &Arc<Self>, inputs: &[(&TensorSpec, &[usize])]) -> Result<TakenProfile, EngineError> {
        let mut taken = self.taken();
        let mut refused: Option<(&TensorSpec, &[usize])> = None;
        let (mut fitting, mut free): (usize, Option<(u128, usize)>) = (0, None);
        for (number, profile) in self.ranges.iter().enumerate() {
            match inputs.iter().find(|(spec, shape)| profile.get(&spec.name).is_some_and(|range| !runs(range, shape))) {
                None => {
                    fitting += 1;
                    let elements = |range: &Range| range.max.iter().map(|size| u128::from(*size)).product::<u128>();
                    let largest = profile.values().map(elements).sum();
                    if taken.as_ref().is_none_or(|taken| !taken[number]) {
                        free = free.filter(|(smallest, _)| *smallest <= largest).or(Some((largest, number)));
                    }
                }
                Some(input) => refused = refused.or(Some(*input)),
            }
        }
        let number = match (free, fitting, refused) {
            (Some((_, number)), ..) => number,
            (None, 1.., _) => return Err(EngineError::ProfilesTaken { sessions: fitting }),
            // Nothing is open, so that there is nothing to choose.
            (None, 0, None) => 0,
            (None, 0, Some((spec, shape))) => return Err(self.refusal(spec, shape)),
        };
        if let Some(taken) = taken.as_mut().and_then(|taken| taken.get_mut(number)) {
            *taken = true;
        }
        Ok(TakenProfile { number, profiles: Arc::clone(self) })
    }

    fn taken(&self) -> Option<MutexGuard<'_, Vec<bool>>> {
        self.taken.as_ref().map(|taken| taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refusal(&self, spec: &TensorSpec, shape: &[usize]) -> EngineError {
        let mut ranges: Vec<_> = self
            .ranges
            .iter()
            .filter_map(|profile| profile.get(&spec.name))
            .map(|range| format!("{:?} to {:?}", range.min, range.max))
            .collect();
        ranges.dedup();
        EngineError::Profile { spec: spec.to_string(), shape: shape.to_vec(), ranges: ranges.join(" or ") }
    }
}

impl TakenProfile {
    /// The fewest rows of an open batch that it runs.
    pub(super) fn rows_min<'a>(&self, inputs: impl Iterator<Item = &'a TensorSpec>) -> usize {
        let Some(ranges) = self.profiles.ranges.get(self.number) else { return 1 };
        let open = inputs.filter(|spec| matches!(spec.dims.first(), Some(Dim::Dynamic(_))));
        let smallest = open.filter_map(|spec| ranges.get(&spec.name)?.min.first());
        smallest.max().map_or(1, |rows| (*rows).max(1) as usize)
    }

    /// Whether no other session may have it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.profiles.taken.is_some()
    }
}

impl Drop for TakenProfile {
    fn drop(&mut self) {
        if let Some(taken) = self.profiles.taken().as_mut().and_then(|taken| taken.get_mut(self.number)) {
            *taken = false;
        }
    }
}

fn runs(range: &Range, shape: &[usize]) -> bool {
    let within = |((min, max), size): ((&u64, &u64), &usize)| (*min..=*max).contains(&(*size as u64));
    range.min.iter().zip(&range.max).zip(shape).all(within)
}

#[cfg(test)]
mod tests {
    use revoada_core::DType;

    use super::*;

    fn profiles(batches: &[u64], exclusive: bool) -> Arc<Profiles> {
        let range = |max: &u64| Range { min: vec![1, 3], opt: vec![1, 3], max: vec![*max, 3] };
        Profiles::new(batches.iter().map(|max| BTreeMap::from([("x".to_owned(), range(max))])).collect(), exclusive)
    }

    fn take(profiles: &Arc<Profiles>, rows: usize) -> Result<TakenProfile, EngineError> {
        let dims = vec![Dim::Dynamic("N".to_owned()), Dim::Fixed(3)];
        let spec = TensorSpec { name: "x".to_owned(), dtype: DType::F32, dims };
        profiles.take(&[(&spec, &[rows, 3])])
    }

    #[test]
    fn sessions_share_the_profile_that_fits_closest() {
        let profiles = profiles(&[16, 4, 8], false);
        let taken: Vec<_> = [3, 4, 5, 9].map(|rows| take(&profiles, rows).unwrap()).into();
        assert_eq!(taken.iter().map(|taken| taken.number).collect::<Vec<_>>(), [1, 1, 2, 0]);
        let error = take(&profiles, 17).err().unwrap().to_string();
        let ranges = "only [1, 3] to [16, 3] or [1, 3] to [4, 3] or [1, 3] to [8, 3]";
        assert_eq!(error, format!("the plan does not run input `x f32[N,3]` in shape [17, 3], {ranges}"));
    }

    #[test]
    fn an_exclusive_profile_is_one_session_s_until_that_is_gone() {
        let profiles = profiles(&[4, 4], true);
        let (first, second) = (take(&profiles, 2).unwrap(), take(&profiles, 4).unwrap());
        assert_eq!((first.number, second.number), (0, 1));
        assert!(matches!(take(&profiles, 1), Err(EngineError::ProfilesTaken { sessions: 2 })));
        drop(first);
        assert_eq!(take(&profiles, 1).unwrap().number, 0);
        assert!(matches!(take(&profiles, 5), Err(EngineError::Profile { .. })));
    }

    #[test]
    fn a_plan_of_fixed_shapes_has_nothing_to_take() {
        let fixed = Profiles::new(Vec::new(), false);
        assert_eq!(take(&fixed, 1).unwrap().number, 0);
    }
}
