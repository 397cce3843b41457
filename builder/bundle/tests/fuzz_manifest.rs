//! Whatever people type, they get problems with lines that exist, and what is accepted is written
//! back the same. More inputs: `BOLERO_RANDOM_ITERATIONS=1000000 cargo test -p revoada-bundle --test
//! fuzz_manifest`, or `cargo bolero`.

use revoada_bundle::manifest::Manifest;
use revoada_bundle::strict::Problems;

const SEED: &str = include_str!("data/manifest-v1/everything.toml");

/// Pieces that a damaged manifest is likely to contain.
const PIECES: [&str; 24] = [
    "version = 1\n",
    "[input]\n",
    "[output]\n",
    "[output.tensors]\n",
    "[[input]]\n",
    "size = [0, -1]\n",
    "\"\"\"",
    "nan",
    "inf",
    "-9223372036854775808",
    "99999999999999999999",
    "[[[[",
    "]",
    "{",
    "}",
    "\n",
    "=",
    ".",
    "'",
    "\u{feff}",
    "é",
    "1979-05-27",
    "labels = \"x\"\n",
    "mean = 1e400\n",
];

fn read(text: &str) {
    let labels =
        |name: &str| if name.len().is_multiple_of(2) { Ok("a\nb".to_owned()) } else { Err("it is odd".to_owned()) };
    match Manifest::parse("fuzz.toml", text, labels) {
        Ok(manifest) => {
            let written = manifest.to_toml();
            let again = Manifest::parse("again.toml", &written, |_| Err("labels are in the text".to_owned()));
            assert_eq!(again.expect("what is written is read"), manifest, "{written}");
        }
        Err(problems) => check(&problems, text),
    }
}

fn check(problems: &Problems, text: &str) {
    let lines = text.matches('\n').count() + 1;
    assert!(!problems.problems.is_empty());
    assert_eq!(problems.to_string().lines().count(), problems.problems.len(), "{problems}");
    for problem in &problems.problems {
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem} of {lines} lines");
    }
}

#[test]
fn a_damaged_manifest_is_read_or_refused_at_lines_that_exist() {
    bolero::check!().with_type::<Vec<(u16, u8, u8)>>().with_iterations(10_000).with_max_len(64).for_each(|edits| {
        let mut text: Vec<char> = SEED.chars().collect();
        for (place, edit, piece) in edits.iter().take(6) {
            let place = usize::from(*place) % text.len().max(1);
            match edit % 4 {
                0 => text.truncate(place),
                1 => {
                    let end = (place + usize::from(*piece)).min(text.len());
                    text.drain(place..end);
                }
                _ => {
                    let piece = PIECES[usize::from(*piece) % PIECES.len()];
                    text.splice(place..place, piece.chars());
                }
            }
        }
        read(&text.into_iter().collect::<String>());
    });
}

#[test]
fn any_text_is_read_or_refused() {
    bolero::check!().with_type::<String>().with_iterations(10_000).for_each(|text| read(text));
}

#[test]
fn any_heap_of_pieces_is_read_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(10_000).with_max_len(64).for_each(|pieces| {
        let pieces = pieces.iter().map(|piece| PIECES[usize::from(*piece) % PIECES.len()]);
        read(&pieces.collect::<String>());
    });
}
