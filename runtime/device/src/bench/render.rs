//! What people read.

use std::fmt::Write as _;

use super::layers::Layers;
use super::measure::{DeviceMeasured, Measured, Memory};
use super::times::{Spread, name_of};
use super::{REPORT_VERSION, Report};
use crate::terminal::table;

/// Of a fused layer's name, which can be a page long; `--json` has all of it.
const NAME_CHARS_MAX: usize = 56;

pub(super) fn report(report: &Report, percentiles: &[f64]) -> String {
    debug_assert_eq!(report.version, REPORT_VERSION);
    let mut text = format!(
        "{} on {}, {} session(s), loaded in {:.0} ms\n",
        report.model, report.backend_version, report.sessions, report.load_ms
    );
    if report.results.iter().all(|result| result.device.is_none()) {
        text.push('\n');
        text.push_str(&table(&one_line_each(&report.results, percentiles)));
    }
    for result in &report.results {
        if let Some(device) = &result.device {
            text.push_str(&as_trtexec(result, device, percentiles));
        }
        if let Some(power) = &result.power {
            let _ = writeln!(
                text,
                "\nbatch {}: {:.2} W ({}), {:.2} frames/s per watt",
                result.batch, power.watts, power.source, power.frames_per_s_per_watt
            );
        }
        if let Some(layers) = &result.layers {
            text.push_str(&layer_table(layers));
        }
    }
    if report.results.iter().any(|result| result.device.is_some()) {
        text.push_str(
            "\nLatency is H2D + GPU compute + D2H, as `trtexec` has it; a round trip is what a caller waits.\n",
        );
        text.push_str(match report.transfers {
            true => "Inputs are copied before each inference, as `trtexec` does; it overlaps that with computing: use `--sessions 2`.\n",
            false => "Inputs stayed where they were, as with `trtexec --noDataTransfers`; outputs were brought back.\n",
        });
    }
    text
}

/// Backends of the CPU: only the caller's time.
fn one_line_each(results: &[Measured], percentiles: &[f64]) -> Vec<Vec<String>> {
    let mut head = ["batch", "frames/s", "min", "mean", "median"].map(str::to_owned).to_vec();
    head.extend(percentiles.iter().map(|percent| name_of(*percent)));
    head.extend(["max ms", "peak MiB"].map(str::to_owned));
    let mut rows = vec![head];
    for result in results {
        let Spread { min, max, mean, median, percentiles: known } = &result.latency_ms;
        let mut row = vec![result.batch.to_string(), format!("{:.1}", result.throughput_per_s)];
        row.extend([min, mean, median].map(|value| format!("{value:.2}")));
        row.extend(percentiles.iter().map(|percent| format!("{:.2}", known[&name_of(*percent)])));
        row.push(format!("{max:.2}"));
        row.push(result.memory.peak_bytes.map_or_else(|| "–".to_owned(), mib));
        rows.push(row);
    }
    rows
}

fn as_trtexec(result: &Measured, device: &DeviceMeasured, percentiles: &[f64]) -> String {
    let mut text = format!("\nbatch {}: throughput {:.2} qps", result.batch, result.inferences_per_s);
    if result.batch > 1 {
        let _ = write!(text, ", {:.1} frames/s", result.throughput_per_s);
    }
    text.push_str("\n\n");
    let mut head = ["", "min", "max", "mean", "median"].map(str::to_owned).to_vec();
    head.extend(percentiles.iter().map(|percent| name_of(*percent)));
    let mut rows = vec![head];
    for (name, spread) in [
        ("latency", &device.latency_ms),
        ("enqueue time", &device.enqueue_ms),
        ("H2D latency", &device.h2d_ms),
        ("GPU compute time", &device.compute_ms),
        ("D2H latency", &device.d2h_ms),
        ("round trip", &result.latency_ms),
    ] {
        let mut row = vec![name.to_owned()];
        row.extend([spread.min, spread.max, spread.mean, spread.median].map(|value| format!("{value:.4}")));
        row.extend(percentiles.iter().map(|percent| format!("{:.4}", spread.percentiles[&name_of(*percent)])));
        rows.push(row);
    }
    // The unit stands once, at the end of the head.
    if let Some(last) = rows[0].last_mut() {
        last.push_str(" ms");
    }
    text.push_str(&table(&rows));
    let (wall, compute) = (result.seconds, device.compute_s);
    let _ = writeln!(
        text,
        "\n{} inferences, total host walltime {wall:.3} s, total GPU compute time {compute:.3} s",
        result.inferences
    );
    if let Memory { peak_bytes: Some(peak), device_bytes: Some(device) } = result.memory {
        let (peak, device) = (mib(peak), mib(device));
        let _ = writeln!(text, "peak memory {peak} MiB; {device} MiB of the GPU for the engine and its sessions");
    }
    text
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn layer_table(layers: &Layers) -> String {
    let head = ["layer", "kind", "in", "out", "mean ms", "median ms", "share"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for layer in &layers.layers {
        rows.push(vec![
            shortened(&layer.name),
            layer.kind.clone().unwrap_or_default(),
            layer.inputs.join(","),
            layer.outputs.join(","),
            format!("{:.4}", layer.mean_ms),
            format!("{:.4}", layer.median_ms),
            format!("{:.1} %", layer.share * 100.0),
        ]);
    }
    let total =
        ["all layers".to_owned(), String::new(), String::new(), String::new(), format!("{:.4}", layers.mean_ms)];
    rows.push(total.to_vec());
    format!(
        "\n{} layers over {} runs with TensorRT's profiler, which is slower than without: read the shares\n\n{}",
        layers.layers.len(),
        layers.runs,
        table(&rows)
    )
}

/// Without its middle, where it is long: fused names begin and end with what tells them apart.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let half = (NAME_CHARS_MAX - 1) / 2;
    let start: String = name.chars().take(half).collect();
    let end: String = name.chars().skip(count - half).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(shortened("conv1 + relu1"), "conv1 + relu1");
        let long = format!("begin{}end", " + layer".repeat(40));
        let short = shortened(&long);
        assert!(short.starts_with("begin + ") && short.ends_with("layerend") && short.contains('…'), "{short}");
        assert!(short.chars().count() <= NAME_CHARS_MAX);
    }
}
