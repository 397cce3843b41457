//! What goes wrong, decided by the seed alone.
//!
//! Nothing here looks at a clock or at what else happens: the same seed gives a device the same [`Fate`], and the n-th
//! message that it says the same passage, however fast the machine is.

use std::time::Duration;

use fastrand::Rng;

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Faults {
    #[default]
    None,
    /// A bad network and now and then a reboot.
    Mild,
    /// As bad as devices are known to be, and some that lie.
    Wild,
}

/// Mishaps are decided for so long, and then come again from the first.
const CYCLE: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    lost: f64,
    doubled: f64,
    /// Mean time between two; `None` is never.
    mishap_every: Option<Duration>,
    skew_max: Duration,
    liars: f64,
    /// Of orders that a device fails to carry out by no fault of what it was ordered.
    fails: f64,
}

impl Faults {
    fn rates(self) -> Rates {
        match self {
            Self::None => {
                Rates { lost: 0.0, doubled: 0.0, mishap_every: None, skew_max: Duration::ZERO, liars: 0.0, fails: 0.0 }
            }
            Self::Mild => Rates {
                lost: 0.02,
                doubled: 0.02,
                mishap_every: Some(Duration::from_secs(60)),
                skew_max: Duration::from_hours(1),
                liars: 0.02,
                fails: 0.01,
            },
            Self::Wild => Rates {
                lost: 0.1,
                doubled: 0.1,
                mishap_every: Some(Duration::from_secs(15)),
                skew_max: Duration::from_hours(24 * 365 * 10),
                liars: 0.05,
                fails: 0.05,
            },
        }
    }
}

/// Something that happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// What was not written to its disk is gone.
    Reboot,
    /// No network for so long; the device itself goes on.
    Cut(Duration),
    /// Only a liar does.
    Lie,
}

/// What becomes of a message that a device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    Passes,
    Lost,
    Doubled,
}

/// Everything that goes wrong with one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// Says what is not so, beside what is.
    pub is_liar: bool,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// By when they happen, within a cycle.
    mishaps: Vec<(Duration, Mishap)>,
    seed: u64,
    rates: Rates,
}

impl Fate {
    /// Of the `index`-th device.
    pub fn of(faults: Faults, seed: u64, index: usize) -> Self {
        let seed = mixed(seed, index as u64);
        let (mut random, rates) = (Rng::with_seed(seed), faults.rates());
        let is_liar = random.f64() < rates.liars;
        let skew_max = i64::try_from(rates.skew_max.as_millis()).unwrap_or(i64::MAX);
        let skew_ms = random.i64(-skew_max..=skew_max);
        let mut mishaps = Vec::new();
        let mut at = Duration::ZERO;
        while let Some(every) = rates.mishap_every {
            // Waiting times between events that do not know of each other.
            at += every.mul_f64(-(1.0 - random.f64()).ln());
            if at >= CYCLE {
                break;
            }
            let mishap = match random.u8(0..4) {
                0 | 1 => Mishap::Reboot,
                2 => Mishap::Cut(Duration::from_millis(random.u64(100..5000))),
                _ if is_liar => Mishap::Lie,
                _ => Mishap::Cut(Duration::from_millis(random.u64(1..300))),
            };
            mishaps.push((at, mishap));
        }
        Self { is_liar, skew_ms, mishaps, seed, rates }
    }

    /// The first mishap after the `count` that there were, and when it happens.
    pub fn mishap(&self, count: usize) -> Option<(Duration, Mishap)> {
        let (cycles, index) = (count / self.mishaps.len().max(1), count % self.mishaps.len().max(1));
        let (at, mishap) = self.mishaps.get(index)?;
        Some((CYCLE * u32::try_from(cycles).unwrap_or(u32::MAX) + *at, *mishap))
    }

    /// What becomes of the n-th message that the device says.
    pub fn passage(&self, ordinal: u64) -> Passage {
        let draw = self.draw(1, ordinal);
        match draw {
            _ if draw < self.rates.lost => Passage::Lost,
            _ if draw < self.rates.lost + self.rates.doubled => Passage::Doubled,
            _ => Passage::Passes,
        }
    }

    /// How long the device takes to carry an order out.
    pub fn takes(&self, generation: u64) -> Duration {
        Duration::from_millis(50).mul_f64(1.0 + 19.0 * self.draw(2, generation))
    }

    /// Whether it then finds that it cannot.
    pub fn fails(&self, generation: u64) -> bool {
        self.draw(3, generation) < self.rates.fails
    }

    /// A number from 0 to 1 for a purpose and a case of it.
    pub(super) fn draw(&self, purpose: u64, case: u64) -> f64 {
        Rng::with_seed(mixed(mixed(self.seed, purpose), case)).f64()
    }
}

/// Splits one seed into many that have nothing to do with each other (SplitMix64's finaliser).
fn mixed(seed: u64, part: u64) -> u64 {
    let mut mixed = seed ^ part.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(faults: Faults, seed: u64) -> Vec<Fate> {
        (0..300).map(|index| Fate::of(faults, seed, index)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        for faults in [Faults::Mild, Faults::Wild] {
            assert_eq!(fates(faults, 7), fates(faults, 7));
            assert_ne!(fates(faults, 7), fates(faults, 8));
            let passages =
                |seed| (0..1000).map(|ordinal| Fate::of(faults, seed, 3).passage(ordinal)).collect::<Vec<_>>();
            assert_eq!(passages(7), passages(7));
            assert_ne!(passages(7), passages(8));
        }
    }

    #[test]
    fn nothing_goes_wrong_where_nothing_shall() {
        for fate in fates(Faults::None, 7) {
            assert!(!fate.is_liar && fate.skew_ms == 0 && fate.mishap(0).is_none());
            assert!((0..100).all(|ordinal| fate.passage(ordinal) == Passage::Passes && !fate.fails(ordinal)));
        }
    }

    #[test]
    fn mishaps_come_in_order_and_again_after_a_cycle() {
        for fate in fates(Faults::Wild, 7) {
            let times: Vec<Duration> = (0..100).filter_map(|count| fate.mishap(count)).map(|(at, _)| at).collect();
            assert!(times.is_sorted() && times.len() == 100 && *times.last().unwrap() > CYCLE);
        }
    }

    #[test]
    fn as_much_goes_wrong_as_was_said() {
        let fates = fates(Faults::Wild, 7);
        let liars = fates.iter().filter(|fate| fate.is_liar).count();
        assert!((5..30).contains(&liars), "{liars}");
        let lost = (0..10_000).filter(|ordinal| fates[0].passage(*ordinal) == Passage::Lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
    }
}
