//! What `tegrastats` says of a Jetson: load, temperatures, power.
//!
//! NVIDIA's tool prints a line a look, and its form changes from one JetPack to the next: the GPU's clock is missing,
//! one number or one for each cluster; rails are `N/N` or `NmW/NmW`, from JetPack 7 on with a third number. What is
//! read here is found by its form, in any order, and words that nobody knows are passed over.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use revoada_agent::rails;

const PROGRAM: &str = "tegrastats";
const INTERVAL_MS: &str = "200";
/// The first line's loads are of no span of time.
const LINES: usize = 2;
/// A line of a 14-core Thor has some 700 characters.
const LINE_BYTES_MAX: u64 = 8 << 10;
/// Looks are 0.2 s apart; who has said nothing by then says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sensor of a part without power reads.
const ABSENT_CELSIUS: f64 = -256.0;

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Look {
    pub(crate) memory: Option<Used>,
    pub(crate) swap: Option<Used>,
    /// In order; `None` is a core that is off.
    pub(crate) cores: Vec<Option<Busy>>,
    pub(crate) gpu: Option<Busy>,
    /// The memory's controller.
    pub(crate) emc: Option<Busy>,
    /// All others by name, `NVDEC` and `VIC` among them; `None` is one that is off.
    pub(crate) engines: Vec<(String, Option<Busy>)>,
    /// Sensors that have power, in degrees Celsius.
    pub(crate) temperatures: Vec<(String, f64)>,
    pub(crate) rails: Vec<Rail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Used {
    pub(crate) used_mib: u32,
    pub(crate) total_mib: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Busy {
    /// Of what the clock of the moment would allow.
    pub(crate) percent: Option<u32>,
    /// One for each cluster of a GPU that has several.
    pub(crate) mhz: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rail {
    pub(crate) name: String,
    pub(crate) milliwatts: u32,
    /// Since `tegrastats` was started.
    pub(crate) milliwatts_mean: u32,
}

impl Look {
    /// Reads one line; `None` where it holds nothing that is known.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words = words(line);
        let mut look = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            if let Some((name, celsius)) = temperature(word) {
                if celsius != ABSENT_CELSIUS {
                    look.temperatures.push((name.to_owned(), celsius));
                }
                continue;
            }
            let Some(value) = words.get(at).copied().filter(|_| is_name(word)) else { continue };
            match *word {
                // Processor time of the Denver cores' translator: `fg 0% bg 1%` are no engines.
                "MTS" => {
                    at += 4;
                    continue;
                }
                "RAM" => look.memory = used(value),
                "SWAP" => look.swap = used(value),
                "IRAM" => {}
                "CPU" | "cpu" if value.starts_with('[') => look.cores = cores(value).unwrap_or_default(),
                name => {
                    if let Some((milliwatts, milliwatts_mean)) = power(value) {
                        look.rails.push(Rail { name: name.to_owned(), milliwatts, milliwatts_mean });
                    } else if let Some(busy) = busy(value) {
                        match (name.strip_suffix("_FREQ").unwrap_or(name), busy) {
                            ("GR3D", busy) => look.gpu = busy,
                            ("EMC", busy) => look.emc = busy,
                            (name, busy) => look.engines.push((name.to_owned(), busy)),
                        }
                    } else {
                        continue;
                    }
                }
            }
            at += 1;
        }
        (look != Self::default()).then_some(look)
    }

    /// What the whole board takes, and by which rails that is known: the input where there is one, else the sum of
    /// those that add up.
    pub(crate) fn watts(&self) -> Option<(f64, String)> {
        let rails = rails::of_board(&self.rails, |rail| &rail.name);
        let names: Vec<&str> = rails.iter().map(|rail| rail.name.as_str()).collect();
        let milliwatts: u64 = rails.iter().map(|rail| u64::from(rail.milliwatts)).sum();
        (!rails.is_empty()).then(|| (milliwatts as f64 / 1e3, names.join(" + ")))
    }

    /// The sensor that reads most.
    pub(crate) fn warmest(&self) -> Option<(&str, f64)> {
        // `PMIC@100C` is a constant on boards before Orin.
        let sensors = self.temperatures.iter().filter(|(name, _)| name != "PMIC");
        sensors.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, celsius)| (name.as_str(), *celsius))
    }
}

/// Lines of `tegrastats` on this machine, the last being the one to believe. The error continues a sentence.
pub(crate) fn lines() -> Result<Vec<String>, String> {
    let mut command = Command::new(PROGRAM);
    command.args(["--interval", INTERVAL_MS]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // It runs until it is ended, with whatever it has started.
    let mut child = command.process_group(0).spawn().map_err(|error| format!("`{PROGRAM}` cannot be run: {error}"))?;
    let stdout = child.stdout.take().expect("standard output is piped and taken once");
    let (sender, receiver) = channel();
    let lines = thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                    Ok(1..) if sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_ok() => {}
                    _ => break,
                }
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while lines.len() < LINES
            && let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            lines.push(line);
        }
        drop(receiver);
        // It may have ended by itself; then there is nothing to end.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        lines
    });
    child.wait().map_err(|error| format!("`{PROGRAM}` cannot be ended: {error}"))?;
    if lines.is_empty() {
        return Err(format!("`{PROGRAM}` said nothing within {} s", PATIENCE.as_secs()));
    }
    Ok(lines)
}

/// Split at blanks, but not inside brackets: `CPU [1%@102, off]` is two words.
fn words(line: &str) -> Vec<&str> {
    let mut depth = 0u32;
    line.split(|character: char| {
        match character {
            '[' | '(' => depth = depth.saturating_add(1),
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && character.is_ascii_whitespace()
    })
    .filter(|word| !word.is_empty())
    .collect()
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.chars().all(|character| character.is_ascii_alphanumeric() || "_-.".contains(character))
}

/// `2130/7774MB`
fn used(value: &str) -> Option<Used> {
    let (used, total) = value.strip_suffix("MB")?.split_once('/')?;
    Some(Used { used_mib: used.parse().ok()?, total_mib: total.parse().ok()? })
}

/// `[12%@1479,off]`, and `[12%,3%]@1479` of the oldest.
fn cores(value: &str) -> Option<Vec<Option<Busy>>> {
    let (inside, clock) = value.strip_prefix('[')?.split_once(']')?;
    let clock: Option<u32> = clock.strip_prefix('@').and_then(|clock| clock.parse().ok());
    let core = |word: &str| {
        let mut core = busy(word.trim()).flatten()?;
        if core.mhz.is_empty() {
            core.mhz.extend(clock);
        }
        Some(core)
    };
    Some(inside.split(',').map(core).collect())
}

/// `off`, `10%`, `10%@1300`, `12%@[1300,1300]`, `@[1000,1000]`, `@748`, `115`; outer `None`: none of these.
fn busy(value: &str) -> Option<Option<Busy>> {
    if value == "off" {
        return Some(None);
    }
    let (percent, mhz) = match value.split_once('@') {
        Some((percent, clocks)) => {
            let clocks = clocks.strip_prefix('[').map_or(Some(clocks), |inside| inside.strip_suffix(']'))?;
            (percent, clocks.split(',').map(|clock| clock.trim().parse().ok()).collect::<Option<Vec<u32>>>()?)
        }
        None if value.ends_with('%') => (value, Vec::new()),
        None => ("", vec![value.parse().ok()?]),
    };
    let percent = match percent {
        "" => None,
        percent => Some(percent.strip_suffix('%')?.parse().ok()?),
    };
    Some(Some(Busy { percent, mhz }))
}

/// `GPU@47.6C`, `cpu@52.968C/52.968C`
fn temperature(word: &str) -> Option<(&str, f64)> {
    let (name, values) = word.split_once('@')?;
    let now = values.split('/').next()?.strip_suffix('C')?;
    let celsius: f64 = now.parse().ok()?;
    (is_name(name) && celsius.is_finite()).then_some((name, celsius))
}

/// `4068/4068`, `4068mW/4068mW`, `4068mW/4068mW/4100mW`: now, the mean, and the most so far.
fn power(value: &str) -> Option<(u32, u32)> {
    let numbers: Option<Vec<u32>> =
        value.split('/').map(|number| number.strip_suffix("mW").unwrap_or(number).parse().ok()).collect();
    match numbers?[..] {
        [now, mean] | [now, mean, _] => Some((now, mean)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
