//! Who takes part.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Whoever learns, by the name that the service knows it by: a device, or a client of another kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Participant(pub String);

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many are invited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sample {
    All,
    Count(usize),
    /// Of those that could be, 0 to 1; at least one of them.
    Share(f64),
}

/// Draws who is invited: the same for the same candidates and seed.
pub fn draw(candidates: &BTreeSet<Participant>, sample: Sample, seed: u64) -> BTreeSet<Participant> {
    let count = match sample {
        Sample::All => candidates.len(),
        Sample::Count(count) => count,
        Sample::Share(share) => ((candidates.len() as f64 * share).round() as usize).max(1),
    };
    let mut drawn: Vec<&Participant> = candidates.iter().collect();
    Rng::with_seed(seed).shuffle(&mut drawn);
    drawn.into_iter().take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_fair_and_can_be_repeated() {
        let all: BTreeSet<Participant> = (0..50).map(|index| Participant(format!("gate-{index}"))).collect();
        assert_eq!(draw(&all, Sample::All, 1), all);
        assert_eq!(draw(&all, Sample::Count(60), 1), all);
        assert_eq!(draw(&all, Sample::Share(0.0), 1).len(), 1);
        assert_eq!(draw(&all, Sample::Share(0.5), 1).len(), 25);
        assert!(draw(&BTreeSet::new(), Sample::Share(0.5), 1).is_empty());
        let ten = Sample::Count(10);
        assert_eq!(draw(&all, ten, 7), draw(&all, ten, 7));
        // Each is in a fifth of the draws.
        for participant in &all {
            let drawn = (0..1000).filter(|seed| draw(&all, ten, *seed).contains(participant)).count();
            assert!((140..260).contains(&drawn), "{participant}: {drawn} of 1000");
        }
    }
}
