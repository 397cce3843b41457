//! Rounds as a table for other programs (RFC 4180).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use revoada_core::Timestamp;

use super::plan::RoundRecord;

/// Figures of a round.
type Of = fn(&RoundRecord) -> &Vec<(String, f64)>;

/// One line a round. What participants report is in columns `fit.NAME` and `evaluation.NAME`, what the service has
/// found out in `judged.NAME`; `time` writes moments.
pub fn rounds_csv(rounds: &[RoundRecord], time: impl Fn(Timestamp) -> String) -> String {
    let names = |of: Of| -> BTreeSet<&str> { rounds.iter().flat_map(of).map(|(name, _)| name.as_str()).collect() };
    let columns: [(&str, Of); 3] = [
        ("fit", |round| &round.result.fit),
        ("evaluation", |round| &round.result.evaluation),
        ("judged", |round| &round.result.judged),
    ];
    let columns = columns.map(|(prefix, of)| (prefix, of, names(of)));
    let mut text = "round,began,ended,status,why,invited,updates,refused,examples,bytes_received,bytes_sent,\
        evaluated_by,epsilon,clipping_norm"
        .to_owned();
    for (prefix, _, names) in &columns {
        for name in names {
            write!(text, ",{}", quoted(&format!("{prefix}.{name}"))).expect(STRING);
        }
    }
    text.push_str("\r\n");
    for round in rounds {
        let ((status, why), result) = (round.status(), &round.result);
        let ended = result.ended.map(&time).unwrap_or_default();
        let optional = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
        write!(
            text,
            "{},{},{ended},{status},{},{},{},{},{},{},{},{},{},{}",
            round.head.number,
            time(round.head.began),
            quoted(why.unwrap_or_default()),
            result.invited,
            result.updates,
            result.refused,
            result.examples,
            result.bytes_received,
            result.bytes_sent,
            result.evaluated_by,
            optional(result.epsilon),
            optional(result.clipping_norm),
        )
        .expect(STRING);
        for (_, of, names) in &columns {
            for name in names {
                let value = of(round).iter().find(|(known, _)| known == name).map(|(_, value)| *value);
                write!(text, ",{}", optional(value)).expect(STRING);
            }
        }
        text.push_str("\r\n");
    }
    text
}

const STRING: &str = "a string takes everything";

/// A field, in quotes where it needs them; one that a spreadsheet would take for a formula is kept from being one.
fn quoted(field: &str) -> String {
    let field = if field.starts_with(['=', '+', '-', '@']) { format!("'{field}") } else { field.to_owned() };
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use revoada_core::Digest;
    use revoada_federated::{Head, Phase, Terms};

    use super::*;
    use crate::learning::RoundResult;

    #[test]
    fn each_round_is_a_line_and_each_figure_a_column() {
        let terms =
            Terms { quorum: NonZeroUsize::MIN, enough: None, time_max: Duration::from_secs(1), refusals_max: 1 };
        let round = |number, phase, fit: &[(&str, f64)]| RoundRecord {
            head: Head { number, base: Digest::new([1; 32]), terms, began: Timestamp::ZERO, phase },
            result: RoundResult {
                invited: 2,
                fit: fit.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
                ..RoundResult::default()
            },
        };
        let rounds = [
            round(1, Phase::Finished { weights: Digest::new([2; 32]) }, &[("loss", 0.5), ("=1", 2.0)]),
            round(2, Phase::CalledOff { why: "1, not 2".to_owned() }, &[]),
        ];
        let text = rounds_csv(&rounds, |at| at.as_nanos().to_string());
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert!(lines[0].ends_with(",epsilon,clipping_norm,fit.=1,fit.loss"), "{text}");
        assert_eq!(lines[1], "1,0,,finished,,2,0,0,0,0,0,0,,,2,0.5");
        assert_eq!(lines[2], "2,0,,called-off,\"1, not 2\",2,0,0,0,0,0,0,,,,");
    }
}
