//! Counts what the test programs of a `cargo test -- --show-output` report.

use std::collections::BTreeMap;

/// How many tests came out which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Tests that said that they could not run here; `reasons` are their sentences.
    pub(crate) skipped: usize,
    pub(crate) reasons: Vec<String>,
}

/// Reads the lines of one run, program after program.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    outcomes: Outcomes,
    /// The test whose output is being read, and what those of this program said when they gave up.
    test: Option<String>,
    given_up: BTreeMap<String, String>,
    in_failures: bool,
}

impl Reader {
    /// Takes the next line; whether people should see it at once.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.test = Some(name.to_owned());
        } else if let Some(reason) = line.strip_prefix("skipped: ") {
            if let Some(test) = &self.test {
                self.given_up.entry(test.clone()).or_insert_with(|| reason.to_owned());
            }
        } else if line == "failures:" {
            self.in_failures = true;
        } else if line == "successes:" {
            self.in_failures = false;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.end_of_program(counts);
            return true;
        }
        self.in_failures || (line.starts_with("test ") && line.ends_with(" FAILED"))
    }

    fn end_of_program(&mut self, counts: &str) {
        let count = |what: &str| -> usize {
            counts
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                .unwrap_or_default()
        };
        let given_up = std::mem::take(&mut self.given_up);
        self.outcomes.passed += count("passed").saturating_sub(given_up.len());
        self.outcomes.failed += count("failed");
        self.outcomes.skipped += count("ignored") + given_up.len();
        self.outcomes.reasons.extend(given_up.into_iter().map(|(test, reason)| format!("{test}: {reason}")));
        self.test = None;
        self.in_failures = false;
    }

    pub(crate) fn finish(self) -> Outcomes {
        self.outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test camera_is_found ... ok
test drop_is_counted ... ok
test picture_is_upright ... FAILED

successes:

---- camera_is_found stdout ----
skipped: camera: there is no /dev/video0

successes:
    camera_is_found
    drop_is_counted

failures:

---- picture_is_upright stdout ----
thread 'picture_is_upright' panicked at tests/a.rs:1:1:
it stands on its head

failures:
    picture_is_upright

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 2 tests
test soak ... ignored, takes an hour
test queue_is_bounded ... ok

successes:

successes:
    queue_is_bounded

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn read(output: &str) -> (Outcomes, Vec<&str>) {
        let mut reader = Reader::default();
        let shown = output.lines().filter(|line| reader.line(line)).collect();
        (reader.finish(), shown)
    }

    #[test]
    fn a_test_that_gave_up_is_skipped_and_not_passed() {
        let (outcomes, _) = read(OUTPUT);
        assert_eq!((outcomes.passed, outcomes.failed, outcomes.skipped), (2, 1, 2));
        assert_eq!(outcomes.reasons, ["camera_is_found: camera: there is no /dev/video0"]);
    }

    #[test]
    fn a_failure_is_shown_whole_and_a_success_is_not() {
        let (_, shown) = read(OUTPUT);
        assert!(shown.contains(&"test picture_is_upright ... FAILED"));
        assert!(shown.contains(&"it stands on its head"));
        assert!(!shown.contains(&"test drop_is_counted ... ok"));
    }
}
