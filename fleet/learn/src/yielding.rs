//! When training stands aside for the pipeline that the device is there for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::train::Pause;

/// Looks without a dropped frame before training goes on.
const CALM_LOOKS: u32 = 3;
/// Between two looks while it waits.
const WAIT: Duration = Duration::from_secs(1);
/// Sensors that are off report values such as −256 °C; none of a running board is outside of this.
const CELSIUS: std::ops::RangeInclusive<f32> = -60.0..=250.0;
/// Of one machine.
const ZONES_MAX: usize = 256;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The hottest zone may be as hot as this.
    pub celsius_max: Option<f32>,
    /// Once it was hotter, it has to cool by so much below.
    pub cooling: f32,
}

/// What was seen of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signs {
    /// Of its hottest zone.
    pub celsius: Option<f32>,
    /// Frames of live queues that the pipeline has dropped since it started; `None` where nobody says.
    pub dropped: Option<u64>,
}

/// Remembers why it waits.
#[derive(Clone, Debug)]
pub struct Yielding {
    limits: Limits,
    hot: bool,
    dropped: Option<u64>,
    /// Looks that have to be calm before it goes on.
    restless: u32,
}

impl Yielding {
    pub fn new(limits: Limits) -> Self {
        Self { limits, hot: false, dropped: None, restless: 0 }
    }

    /// Decides by what is seen now and what was seen before.
    pub fn look(&mut self, signs: Signs) -> Pause {
        if let (Some(max), Some(celsius)) = (self.limits.celsius_max, signs.celsius) {
            self.hot = celsius > if self.hot { max - self.limits.cooling } else { max };
        }
        // A pipeline that counts fewer than before is another one.
        let has_dropped = matches!((self.dropped, signs.dropped), (Some(before), Some(now)) if now > before);
        self.dropped = signs.dropped;
        self.restless = if has_dropped { CALM_LOOKS } else { self.restless.saturating_sub(1) };
        if self.hot || self.restless > 0 { Pause::Wait(WAIT) } else { Pause::Continue }
    }
}

/// The temperature of the hottest zone, in °C, below a folder such as `/sys/class/thermal`; `None` where there is none.
pub fn hottest(folder: &Path) -> Option<f32> {
    let zones = fs::read_dir(folder).ok()?.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("thermal_zone")
    });
    let celsius = zones.take(ZONES_MAX).filter_map(|zone| {
        // In thousandths; a zone whose sensor is off cannot be read.
        let text = fs::read_to_string(zone.path().join("temp")).ok()?;
        let celsius = text.trim().parse::<f32>().ok()? / 1000.0;
        Some(celsius).filter(|celsius| CELSIUS.contains(celsius))
    });
    celsius.reduce(f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(signs: impl IntoIterator<Item = Signs>) -> Vec<bool> {
        let mut yielding = Yielding::new(Limits { celsius_max: Some(80.0), cooling: 5.0 });
        signs.into_iter().map(|signs| yielding.look(signs) == Pause::Continue).collect()
    }

    #[test]
    fn it_waits_while_it_is_hot_and_until_it_has_cooled() {
        let celsius = [79.0, 80.0, 80.5, 79.0, 75.5, 75.0, 79.0].map(Some).into_iter().chain([None, Some(81.0), None]);
        let goes_on = looks(celsius.map(|celsius| Signs { celsius, dropped: None }));
        assert_eq!(goes_on, [true, true, false, false, false, true, true, true, false, false]);
    }

    #[test]
    fn it_waits_for_three_looks_after_a_dropped_frame() {
        let dropped = [Some(7), Some(7), Some(8), Some(8), Some(8), Some(8), Some(2), None, Some(9), Some(9)];
        let goes_on = looks(dropped.map(|dropped| Signs { celsius: None, dropped }));
        assert_eq!(goes_on, [true, true, false, false, false, true, true, true, true, true]);
    }

    #[test]
    fn the_hottest_zone_that_works_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(hottest(&folder.path().join("missing")), None);
        assert_eq!(hottest(folder.path()), None);
        let zones = [
            ("thermal_zone0", "41500\n"),
            ("thermal_zone1", "52250\n"),
            ("thermal_zone2", "off"),
            ("cooling0", "99000"),
        ];
        for (zone, text) in zones.into_iter().chain([("thermal_zone3", "-256000"), ("thermal_zone4", "999999")]) {
            fs::create_dir(folder.path().join(zone)).unwrap();
            fs::write(folder.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(hottest(folder.path()), Some(52.25));
    }
}
