//! How long it takes to average many distinct updates that lie in memory as NumPy's files, decoding included, and how fast this
//! machine reads memory: `cargo run --release -p revoada-federated --example fold -- UPDATES NUMBERS [REPEATS]`. Prints a line
//! of JSON.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use revoada_federated::npy::{self, Element};
use revoada_federated::{Contribution, Layout, Mean, SentWeights, Weights};

const TENSORS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (updates, numbers, repeats) = (next(1000)?, next(1_000_000)?, next(3)?);
    let shape = vec![numbers / TENSORS];
    let layout = Arc::new(Layout::new((0..TENSORS).map(|index| (index.to_string(), shape.clone())))?);
    let mut random = fastrand::Rng::with_seed(0);
    let base: Vec<f32> = (0..shape[0]).map(|_| random.f32() - 0.5).collect();
    let files: Vec<Vec<Vec<u8>>> = (0..updates)
        .map(|update| {
            let values: Vec<f32> = base.iter().map(|value| value + update as f32).collect();
            (0..TENSORS).map(|_| npy::write(Element::F32, &shape, &values)).collect()
        })
        .collect();
    let inputs = resident_mib();
    let mut times = Vec::new();
    for _ in 0..repeats {
        let began = Instant::now();
        let updates: Vec<Contribution<'_>> = files
            .iter()
            .map(|tensors| {
                let data = tensors.iter().map(|file| Ok(npy::Array::parse(file)?.data));
                let data = data.collect::<Result<_, npy::NpyError>>()?;
                Ok(Contribution::Sent(SentWeights::new(Arc::clone(&layout), data)?))
            })
            .collect::<Result<_, Box<dyn Error>>>()?;
        let with_examples: Vec<(&Contribution<'_>, u64)> =
            updates.iter().enumerate().map(|(index, update)| (update, 10 + index as u64)).collect();
        let mut mean = Mean::new(Arc::clone(&layout));
        mean.fold_all(&with_examples)?;
        black_box(mean.finish(&Weights::zeros(Arc::clone(&layout)))?);
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    let bytes = (updates * numbers * size_of::<f32>()) as f64;
    let began = Instant::now();
    read_all(&files);
    let read = began.elapsed().as_secs_f64();
    println!(
        "{{\"updates\": {updates}, \"numbers\": {numbers}, \"seconds\": {seconds:.4}, \"gb_per_s\": {:.2}, \
         \"read_gb_per_s\": {:.2}, \"of_read\": {:.2}, \"mib_above_inputs\": {:.0}}}",
        bytes / seconds / 1e9,
        bytes / read / 1e9,
        read / seconds,
        peak_mib() - inputs,
    );
    Ok(())
}

/// Touches every byte once, on all processors.
fn read_all(files: &[Vec<Vec<u8>>]) {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for part in files.chunks(files.len().div_ceil(threads)) {
            scope.spawn(move || {
                let mut sums = [0_u64; 8];
                for file in part.iter().flatten() {
                    for chunk in file.chunks_exact(64) {
                        for (sum, word) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
                            *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("a word has eight")));
                        }
                    }
                }
                black_box(sums);
            });
        }
    });
}

fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn resident_mib() -> f64 {
    status("VmRSS:")
}

fn peak_mib() -> f64 {
    status("VmHWM:")
}
