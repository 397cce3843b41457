//! Federated averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use pulp::Arch;

use super::{AggregateError, Contribution};
use crate::weights::{Layout, Weights};

/// Sums that stay in a processor's nearest cache while updates are added to them.
const BLOCK: usize = 8192;
/// For fewer numbers another thread is not worth its start.
const PART_MIN: usize = 1 << 17;

/// The mean of updates by the examples that each was learned from. It holds sums, whatever the number of updates.
#[derive(Clone, Debug)]
pub struct Mean {
    layout: Arc<Layout>,
    sums: Vec<f64>,
    examples: f64,
    /// Of updates that are differences.
    examples_of_deltas: f64,
    updates: usize,
}

impl Mean {
    pub fn new(layout: Arc<Layout>) -> Self {
        let sums = vec![0.0; layout.count()];
        Self { layout, sums, examples: 0.0, examples_of_deltas: 0.0, updates: 0 }
    }

    /// Takes an update in; nothing of it is kept.
    pub fn fold(&mut self, update: &Contribution<'_>, examples: u64) -> Result<(), AggregateError> {
        self.fold_all(&[(update, examples)])
    }

    /// Takes several updates in, or none of them. The sums are gone through once for all of them, and by all processors: the
    /// result is the same as one after another.
    pub fn fold_all(&mut self, updates: &[(&Contribution<'_>, u64)]) -> Result<(), AggregateError> {
        for (update, examples) in updates {
            if update.layout() != &self.layout {
                return Err(AggregateError::Layout);
            }
            if *examples == 0 {
                return Err(AggregateError::NoExamples);
            }
        }
        // Those that were copied and those that were not are added apart, and in the order in which they came.
        let is_sent = |update: &Contribution<'_>| matches!(update, Contribution::Sent(_));
        for updates in updates.chunk_by(|(one, _), (other, _)| is_sent(one) == is_sent(other)) {
            self.fold_alike(updates);
        }
        Ok(())
    }

    fn fold_alike(&mut self, updates: &[(&Contribution<'_>, u64)]) {
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for (update, examples) in updates {
            match update {
                Contribution::Full(weights) | Contribution::Delta(weights) => {
                    numbers.push((weights.values(), *examples))
                }
                Contribution::Sent(sent) => bytes.push((sent.tensors(), *examples)),
            }
            let share = *examples as f64;
            self.examples += share;
            if update.is_delta() {
                self.examples_of_deltas += share;
            }
            self.updates += 1;
        }
        let starts = self.starts();
        self.spread(|sums, from| {
            add(sums, from, &numbers);
            add_bytes(sums, from, &starts, &bytes);
        });
    }

    /// At which number each tensor begins.
    fn starts(&self) -> Vec<usize> {
        let sizes = self.layout.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>());
        sizes
            .scan(0, |start, size| {
                *start += size;
                Some(*start - size)
            })
            .collect()
    }

    /// Has all processors work on the sums, each on a part that begins at some number.
    fn spread(&mut self, work: impl Fn(&mut [f64], usize) + Sync) {
        let length = self.sums.len();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(length.div_ceil(PART_MIN));
        let (part, work) = (length.div_ceil(threads), &work);
        thread::scope(|scope| {
            let mut parts = self.sums.chunks_mut(part).enumerate();
            let first = parts.next();
            for (index, sums) in parts {
                scope.spawn(move || work(sums, index * part));
            }
            if let Some((_, sums)) = first {
                work(sums, 0);
            }
        });
    }

    /// How many updates were folded.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// The mean; `global` is what differences were learned from.
    pub fn finish(self, global: &Weights) -> Result<Weights, AggregateError> {
        if self.updates == 0 {
            return Err(AggregateError::NoUpdate);
        }
        if global.layout() != &self.layout {
            return Err(AggregateError::Layout);
        }
        let (all, of_deltas) = (self.examples, self.examples_of_deltas);
        let values = self.sums.iter().zip(global.values());
        let values = values.map(|(sum, global)| ((sum + of_deltas * f64::from(*global)) / all) as f32).collect();
        Ok(Weights::new(self.layout, values).expect("there is a sum for each number"))
    }
}

/// Adds updates to the sums of the weights from `from` on.
fn add(sums: &mut [f64], from: usize, updates: &[(&[f32], u64)]) {
    for (index, block) in sums.chunks_mut(BLOCK).enumerate() {
        let from = from + index * BLOCK;
        for (update, examples) in updates {
            let (share, values) = (*examples as f64, &update[from..from + block.len()]);
            for (sum, value) in block.iter_mut().zip(values) {
                *sum += share * f64::from(*value);
            }
        }
    }
}

/// The same of bytes: `starts` says at which number each tensor begins.
fn add_bytes(sums: &mut [f64], from: usize, starts: &[usize], updates: &[(&[&[u8]], u64)]) {
    if updates.is_empty() {
        return;
    }
    // Compiled for each width of registers that processors have, of which the widest that this one has is taken.
    Arch::new().dispatch(|| {
        for (index, block) in sums.chunks_mut(BLOCK).enumerate() {
            add_bytes_to(block, from + index * BLOCK, starts, updates);
        }
    });
}

#[inline(always)]
fn add_bytes_to(block: &mut [f64], from: usize, starts: &[usize], updates: &[(&[&[u8]], u64)]) {
    // Of two tensors that begin at the same number the first is empty.
    let mut tensor = starts.partition_point(|start| *start <= from) - 1;
    let (mut rest, mut at) = (block, from);
    while !rest.is_empty() {
        let end = starts.get(tensor + 1).copied().unwrap_or(usize::MAX);
        let count = rest.len().min(end - at);
        let (sums, later) = rest.split_at_mut(count);
        let first = (at - starts[tensor]) * size_of::<f32>();
        let range = first..first + count * size_of::<f32>();
        let (fours, others) = updates.as_chunks::<4>();
        for four in fours {
            add_four(
                sums,
                four.each_ref().map(|(tensors, examples)| (&tensors[tensor][range.clone()], *examples as f64)),
            );
        }
        for (tensors, examples) in others {
            let share = *examples as f64;
            for (sum, value) in sums.iter_mut().zip(tensors[tensor][range.clone()].as_chunks().0) {
                *sum += share * number(value);
            }
        }
        (rest, at, tensor) = (later, at + count, tensor + 1);
    }
}

/// Four at once, so that a sum is fetched and put back once for all of them.
#[inline(always)]
fn add_four(sums: &mut [f64], [one, two, three, four]: [(&[u8], f64); 4]) {
    let values = one.0.as_chunks().0.iter().zip(two.0.as_chunks().0);
    let values = values.zip(three.0.as_chunks().0).zip(four.0.as_chunks().0);
    for (sum, (((a, b), c), d)) in sums.iter_mut().zip(values) {
        *sum = *sum + one.1 * number(a) + two.1 * number(b) + three.1 * number(c) + four.1 * number(d);
    }
}

#[inline(always)]
fn number(bytes: &[u8; 4]) -> f64 {
    f64::from(f32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::weights::SentWeights;

    proptest! {
        #[test]
        fn what_was_sent_is_taken_as_weights_are(
            shapes in prop::collection::vec(prop::collection::vec(0_usize..40, 0..3), 1..6),
            examples in prop::collection::vec(1_u64..100, 1..5),
            seed in any::<u64>(),
        ) {
            let named = shapes.into_iter().enumerate().map(|(index, shape)| (index.to_string(), shape));
            let Ok(layout) = Layout::new(named) else { return Ok(()) };
            let layout = Arc::new(layout);
            let mut random = fastrand::Rng::with_seed(seed);
            let updates: Vec<(Contribution<'_>, u64)> = examples
                .into_iter()
                .map(|examples| {
                    let values = (0..layout.count()).map(|_| random.f32() - 0.5).collect();
                    (Contribution::Full(Weights::new(Arc::clone(&layout), values).unwrap()), examples)
                })
                .collect();
            let bytes: Vec<Vec<Vec<u8>>> = updates
                .iter()
                .map(|(update, _)| {
                    let Contribution::Full(weights) = update else { unreachable!("they were made so") };
                    let tensors = weights.tensors();
                    tensors.map(|(_, _, values)| values.iter().flat_map(|it| it.to_le_bytes()).collect()).collect()
                })
                .collect();
            let sent: Vec<Contribution<'_>> = bytes
                .iter()
                .map(|it| SentWeights::new(Arc::clone(&layout), it.iter().map(Vec::as_slice).collect()).unwrap())
                .map(Contribution::Sent)
                .collect();
            let with_examples = sent.iter().zip(&updates).map(|(sent, (_, examples))| (sent, *examples));
            let (mut one, mut other) = (Mean::new(Arc::clone(&layout)), Mean::new(Arc::clone(&layout)));
            one.fold_all(&updates.iter().map(|(update, examples)| (update, *examples)).collect::<Vec<_>>()).unwrap();
            other.fold_all(&with_examples.collect::<Vec<_>>()).unwrap();
            for (sent, (update, _)) in sent.iter().zip(&updates) {
                let global = Weights::new(Arc::clone(&layout), vec![0.25; layout.count()]).unwrap();
                prop_assert_eq!(sent.difference(&global), update.difference(&global));
                let (one, other) = (sent.distance(&global), update.distance(&global));
                prop_assert!((one - other).abs() <= 1e-12 * one, "{one} is not {other}");
                prop_assert_eq!(pieces(sent), pieces(update));
            }
            let global = Weights::zeros(Arc::clone(&layout));
            prop_assert_eq!(one.finish(&global).unwrap(), other.finish(&global).unwrap());
        }
    }

    fn pieces(update: &Contribution<'_>) -> Vec<u8> {
        let mut pieces = Vec::new();
        update
            .each_piece(|piece| {
                pieces.extend_from_slice(piece);
                Ok::<(), ()>(())
            })
            .unwrap();
        pieces
    }

    #[test]
    fn some_that_were_copied_and_some_that_were_not_are_folded_as_one_after_another() {
        let layout = Arc::new(Layout::new([("a".to_owned(), vec![3]), ("b".to_owned(), vec![2])]).unwrap());
        let full = |seed: f32| {
            let values = (0..5).map(|place| seed / (place as f32 + 3.0)).collect();
            Contribution::Full(Weights::new(Arc::clone(&layout), values).unwrap())
        };
        let bytes = pieces(&full(0.7));
        let sent = SentWeights::new(Arc::clone(&layout), vec![&bytes[..12], &bytes[12..]]).unwrap();
        let updates = [full(0.1), Contribution::Sent(sent), full(0.3), full(0.5)];
        let (mut one, mut all) = (Mean::new(Arc::clone(&layout)), Mean::new(Arc::clone(&layout)));
        updates.iter().for_each(|update| one.fold(update, 7).unwrap());
        all.fold_all(&updates.each_ref().map(|update| (update, 7))).unwrap();
        let global = Weights::zeros(layout);
        assert_eq!(one.finish(&global).unwrap(), all.finish(&global).unwrap());
    }
}
