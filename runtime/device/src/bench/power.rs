//! Watts, where the board, the card or the processor reports them.
//!
//! Jetsons have monitors on their [rails]. NVML tells what a discrete card takes, without the computer around it.
//! Processors of Intel's and AMD's count their energy (RAPL, below `class/powercap`), which only root may read on most
//! systems; what a graphics card takes is not in it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use revoada_agent::rails::{self, Rail};
use revoada_agent::sysfs::{folders, number, text};
use revoada_engine::cuda::{CardPower, CudaError, Device};

/// A rail's monitor averages over some milliseconds itself; looking more often tells nothing new.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// What can be read here.
#[derive(Debug)]
pub(crate) struct PowerMeter {
    /// Of what: `VDD_IN`.
    pub(crate) source: String,
    sensors: Vec<Sensor>,
}

#[derive(Debug)]
enum Sensor {
    Rail(Rail),
    /// Microjoules that have been used, and after how many the counter begins again.
    Energy {
        counter: PathBuf,
        range: u64,
    },
    /// Of a card that tells its power only.
    CardPower(CardPower),
    /// Of one that counts its energy, too: what it tells of its power can be the average of a second.
    CardEnergy(CardPower),
}

impl PowerMeter {
    /// The monitors of a Jetson's board, below `system`, which is `/sys` but in tests.
    pub(crate) fn of_board(system: &Path) -> Option<Self> {
        let rails = rails::monitored(system);
        let names: Vec<&str> = rails.iter().map(|rail| rail.name.as_str()).collect();
        let source = names.join(" + ");
        (!rails.is_empty()).then(|| Self { source, sensors: rails.into_iter().map(Sensor::Rail).collect() })
    }

    /// A discrete card.
    pub(crate) fn of_card(device: &Device) -> Result<Self, CudaError> {
        let card = CardPower::open(device)?;
        let sensor = if card.millijoules().is_some() { Sensor::CardEnergy(card) } else { Sensor::CardPower(card) };
        Ok(Self { source: format!("{} by NVML", device.name), sensors: vec![sensor] })
    }

    /// The whole platform where it counts, else the processor's packages; their parts are counted in them. The error
    /// continues a sentence: why there is none.
    pub(crate) fn of_processor(system: &Path) -> Result<Self, String> {
        let zones: Vec<(String, PathBuf)> = folders(&system.join("class/powercap"))
            .into_iter()
            .filter_map(|zone| Some((text(&zone.join("name"))?, zone)))
            .filter(|(name, _)| name == "psys" || name.starts_with("package-"))
            .collect();
        let whole = zones.iter().filter(|(name, _)| name == "psys").take(1).cloned().collect::<Vec<_>>();
        let chosen = if whole.is_empty() { zones } else { whole };
        if chosen.is_empty() {
            return Err("neither the board nor the processor reports it".to_owned());
        }
        let mut sensors = Vec::new();
        for (_, zone) in &chosen {
            let counter = zone.join("energy_uj");
            if number(&counter).is_none() {
                return Err(format!("`{}` cannot be read, but by root", counter.display()));
            }
            sensors.push(Sensor::Energy { counter, range: number(&zone.join("max_energy_range_uj")).unwrap_or(0) });
        }
        let names: Vec<String> = chosen.into_iter().map(|(name, _)| name).collect();
        Ok(Self { source: names.join(" + "), sensors })
    }

    /// Reads from now on, on a thread of `scope`, until it is stopped.
    pub(crate) fn start<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>) -> Sampling<'scope> {
        let (stop, stopped) = channel();
        let thread = scope.spawn(move || {
            let mut average = Average::new(&self.sensors);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE_INTERVAL) {
                average.sample();
            }
            average.sample();
            average.watts()
        });
        Sampling { stop, thread }
    }
}

/// A measurement that goes on.
pub(crate) struct Sampling<'scope> {
    stop: Sender<()>,
    thread: ScopedJoinHandle<'scope, Option<f64>>,
}

impl Sampling<'_> {
    /// The average watts; `None` where nothing could be read any more.
    pub(crate) fn stop(self) -> Option<f64> {
        drop(self.stop);
        self.thread.join().expect("the sampling thread does not panic")
    }
}

struct Average<'a> {
    sensors: &'a [Sensor],
    started: Instant,
    /// Watts that were seen, one sum a look, and how many looks there were.
    watts: f64,
    looks: u32,
    joules: f64,
    counters: Vec<Option<u64>>,
    failed: bool,
}

impl<'a> Average<'a> {
    fn new(sensors: &'a [Sensor]) -> Self {
        let mut average = Self {
            sensors,
            started: Instant::now(),
            watts: 0.0,
            looks: 0,
            joules: 0.0,
            counters: vec![None; sensors.len()],
            failed: false,
        };
        average.sample();
        average
    }

    fn sample(&mut self) {
        let mut watts = 0.0;
        for (sensor, before) in self.sensors.iter().zip(&mut self.counters) {
            let read = match sensor {
                Sensor::Rail(rail) => rail.watts().map(|of_rail| watts += of_rail),
                Sensor::Energy { counter, range } => {
                    number(counter).map(|now| self.joules += used(before, now, *range) as f64 / 1e6)
                }
                Sensor::CardPower(card) => card.milliwatts().ok().map(|milliwatts| watts += milliwatts as f64 / 1e3),
                Sensor::CardEnergy(card) => {
                    card.millijoules().map(|now| self.joules += used(before, now, u64::MAX) as f64 / 1e3)
                }
            };
            self.failed |= read.is_none();
        }
        self.watts += watts;
        self.looks += 1;
    }

    fn watts(&self) -> Option<f64> {
        let seconds = self.started.elapsed().as_secs_f64();
        (!self.failed && seconds > 0.0).then(|| self.watts / f64::from(self.looks) + self.joules / seconds)
    }
}

/// Since the look before, by a counter that begins again after `range`.
fn used(before: &mut Option<u64>, now: u64, range: u64) -> u64 {
    before.replace(now).map_or(0, |before| match now >= before {
        true => now - before,
        false => now + range.saturating_sub(before),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tree of files with a line each.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, line) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{line}\n")).unwrap();
        }
        folder
    }

    fn watts(meter: &PowerMeter) -> Option<f64> {
        thread::scope(|scope| meter.start(scope).stop())
    }

    /// AGX Orin has no rail of everything.
    #[test]
    fn rails_that_add_up_are_added_and_named() {
        let agx = system(&[
            ("class/hwmon/hwmon3/name", "ina3221"),
            ("class/hwmon/hwmon3/in1_label", "VDD_GPU_SOC"),
            ("class/hwmon/hwmon3/in1_input", "10000"),
            ("class/hwmon/hwmon3/curr1_input", "500"),
            ("class/hwmon/hwmon3/in2_label", "VDD_CPU_CV"),
            ("class/hwmon/hwmon3/in2_input", "10000"),
            ("class/hwmon/hwmon3/curr2_input", "100"),
            ("class/hwmon/hwmon3/in3_label", "VIN_SYS_5V0"),
            ("class/hwmon/hwmon3/in3_input", "5000"),
            ("class/hwmon/hwmon3/curr3_input", "800"),
            ("class/hwmon/hwmon4/name", "ina3221"),
            ("class/hwmon/hwmon4/in1_label", "NC"),
            ("class/hwmon/hwmon4/in1_input", "0"),
            ("class/hwmon/hwmon4/curr1_input", "0"),
            ("class/hwmon/hwmon4/in2_label", "VDDQ_VDD2_1V8AO"),
            ("class/hwmon/hwmon4/in2_input", "5000"),
            ("class/hwmon/hwmon4/curr2_input", "100"),
        ]);
        let meter = PowerMeter::of_board(agx.path()).unwrap();
        assert_eq!((meter.source.as_str(), watts(&meter)), ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", Some(10.0)));
    }

    #[test]
    fn a_processor_s_counter_is_none_of_the_board() {
        let desktop = system(&[
            ("class/powercap/intel-rapl:0/name", "package-0"),
            ("class/powercap/intel-rapl:0/energy_uj", "900"),
            ("class/powercap/intel-rapl:0/max_energy_range_uj", "1000"),
            ("class/powercap/intel-rapl:0:0/name", "core"),
            ("class/powercap/intel-rapl:0:0/energy_uj", "5"),
        ]);
        assert!(PowerMeter::of_board(desktop.path()).is_none());
        let meter = PowerMeter::of_processor(desktop.path()).unwrap();
        assert_eq!((meter.source.as_str(), watts(&meter)), ("package-0", Some(0.0)));

        let mut average = Average::new(&meter.sensors);
        fs::write(desktop.path().join("class/powercap/intel-rapl:0/energy_uj"), "100\n").unwrap();
        average.sample();
        assert_eq!(average.joules, 200e-6, "the counter began again");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let nothing = PowerMeter::of_processor(system(&[]).path()).unwrap_err();
        assert_eq!(nothing, "neither the board nor the processor reports it");
        let locked = system(&[("class/powercap/intel-rapl:0/name", "package-0")]);
        let error = PowerMeter::of_processor(locked.path()).unwrap_err();
        assert!(error.ends_with("intel-rapl:0/energy_uj` cannot be read, but by root"), "{error}");
        let gone = system(&[
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0", "VDD_IN"),
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", "2500"),
        ]);
        let meter = PowerMeter::of_board(gone.path()).unwrap();
        drop(gone);
        assert_eq!(watts(&meter), None);
    }
}
