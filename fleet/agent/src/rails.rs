//! What a Jetson's board takes, by the INA3221 monitors on its rails.
//!
//! Linux 5 shows them below `class/hwmon` (millivolts and milliamperes), NVIDIA's Linux 4.9 as `iio` devices (milliwatts).

use std::path::{Path, PathBuf};

use crate::sysfs::{folders, number, text};

/// Channels of one monitor.
const CHANNELS: u32 = 3;

/// What everything takes together, by the names that NVIDIA gives these rails, from Nano to Thor.
const TOTAL: [&str; 4] = ["VDD_IN", "POM_5V_IN", "VDD_5V_IN", "VIN"];

/// Fed by another rail that is monitored as well, or by none.
const PARTIAL: [&str; 3] = ["VDDQ_VDD2_1V8AO", "NC", ""];

/// A monitored rail.
#[derive(Debug)]
pub struct Rail {
    /// As the board calls it: `VDD_IN`.
    pub name: String,
    sensor: Sensor,
}

#[derive(Debug)]
enum Sensor {
    /// Milliwatts.
    Power(PathBuf),
    /// Millivolts and milliamperes.
    VoltageAndCurrent(PathBuf, PathBuf),
}

impl Rail {
    /// At this moment; `None` where it cannot be read.
    pub fn watts(&self) -> Option<f64> {
        match &self.sensor {
            Sensor::Power(power) => number(power).map(|milliwatts| milliwatts as f64 / 1e3),
            Sensor::VoltageAndCurrent(voltage, current) => {
                let (millivolts, milliamperes) = number(voltage).zip(number(current))?;
                Some(millivolts as f64 * milliamperes as f64 / 1e6)
            }
        }
    }
}

/// The monitored rails that make up what the whole board takes, below `system`, which is `/sys` but in tests; none where the
/// board has no monitor.
pub fn monitored(system: &Path) -> Vec<Rail> {
    let monitored = [hwmon(system), iio(system)].into_iter();
    let rails = monitored.map(|rails| of_board(rails, |rail| &rail.name)).find(|rails| !rails.is_empty());
    rails.unwrap_or_default()
}

/// What the whole board takes at this moment; `None` where that is not known.
pub fn watts(system: &Path) -> Option<f64> {
    let rails = monitored(system);
    if rails.is_empty() { None } else { rails.iter().map(Rail::watts).sum() }
}

/// The whole input where that is a rail, else those that add up.
pub fn of_board<R>(rails: impl IntoIterator<Item = R>, name: impl Fn(&R) -> &str) -> Vec<R> {
    let mut rails: Vec<R> = rails.into_iter().filter(|rail| !PARTIAL.contains(&name(rail))).collect();
    match TOTAL.iter().find_map(|total| rails.iter().position(|rail| name(rail) == *total)) {
        Some(total) => vec![rails.swap_remove(total)],
        None => rails,
    }
}

fn hwmon(system: &Path) -> Vec<Rail> {
    let mut rails = Vec::new();
    for monitor in folders(&system.join("class/hwmon")) {
        if text(&monitor.join("name")).as_deref() != Some("ina3221") {
            continue;
        }
        for channel in 1..=CHANNELS {
            let of = |what: &str| monitor.join(what.replace('N', &channel.to_string()));
            let (voltage, current) = (of("inN_input"), of("currN_input"));
            let name = text(&of("inN_label")).unwrap_or_default();
            if number(&voltage).is_some() && number(&current).is_some() {
                rails.push(Rail { name, sensor: Sensor::VoltageAndCurrent(voltage, current) });
            }
        }
    }
    rails
}

fn iio(system: &Path) -> Vec<Rail> {
    let mut rails = Vec::new();
    let chips = folders(&system.join("bus/i2c/drivers/ina3221x"));
    let monitors = chips
        .iter()
        .flat_map(|chip| folders(chip))
        .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("iio:device")));
    for monitor in monitors {
        for channel in 0..CHANNELS {
            let power = monitor.join(format!("in_power{channel}_input"));
            let name = text(&monitor.join(format!("rail_name_{channel}"))).unwrap_or_default();
            if number(&power).is_some() {
                rails.push(Rail { name, sensor: Sensor::Power(power) });
            }
        }
    }
    rails
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_input_is_preferred_to_rails_that_add_up() {
        let of = |rails: &[&'static str]| of_board(rails.to_vec(), |rail| rail);
        assert_eq!(of(&["VDD_GPU", "VIN", "VIN_SYS_5V0"]), ["VIN"]);
        assert_eq!(of(&["VDD_GPU_SOC", "NC", "VDDQ_VDD2_1V8AO", "VIN_SYS_5V0"]), ["VDD_GPU_SOC", "VIN_SYS_5V0"]);
        assert_eq!(of(&["NC"]), [""; 0]);
    }

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

    fn names(system: &Path) -> Vec<String> {
        monitored(system).into_iter().map(|rail| rail.name).collect()
    }

    #[test]
    fn the_whole_input_is_preferred_to_its_parts() {
        let orin_nano = system(&[
            ("class/hwmon/hwmon0/name", "nvme"),
            ("class/hwmon/hwmon1/name", "ina3221"),
            ("class/hwmon/hwmon1/in1_label", "VDD_IN"),
            ("class/hwmon/hwmon1/in1_input", "5000"),
            ("class/hwmon/hwmon1/curr1_input", "1200"),
            ("class/hwmon/hwmon1/in2_label", "VDD_CPU_GPU_CV"),
            ("class/hwmon/hwmon1/in2_input", "5000"),
            ("class/hwmon/hwmon1/curr2_input", "400"),
            ("class/hwmon/hwmon1/in7_label", "sum of shunt voltages"),
            ("class/hwmon/hwmon1/in7_input", "7"),
        ]);
        assert_eq!((names(orin_nano.path()), watts(orin_nano.path())), (vec!["VDD_IN".to_owned()], Some(6.0)));

        let nano = system(&[
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0", "POM_5V_IN"),
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", "2500"),
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1", "POM_5V_GPU"),
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input", "100"),
        ]);
        assert_eq!((names(nano.path()), watts(nano.path())), (vec!["POM_5V_IN".to_owned()], Some(2.5)));
        assert_eq!(watts(system(&[]).path()), None, "without a monitor nothing is known");
    }

    #[test]
    fn what_cannot_be_read_any_more_is_not_known() {
        let gone = system(&[
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0", "VDD_IN"),
            ("bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", "2500"),
        ]);
        let rails = monitored(gone.path());
        drop(gone);
        assert_eq!((rails.len(), rails[0].watts()), (1, None));
    }
}
