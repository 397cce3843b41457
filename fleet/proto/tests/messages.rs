//! Messages are read as they were written, and foreign bytes are refused.

#![forbid(unsafe_code)]

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use prost::Message;
use revoada_core::Digest;
use revoada_proto::message::{self, FACTS_MAX, TEXT_BYTES_MAX};
use revoada_proto::topic::MESSAGE_BYTES_MAX;
use revoada_proto::{
    Ask, Blame, Command, CommandResult, Deployable, Details, Dispatch, Event, Fact, Figures, Generation, Kind, Label,
    Level, MessageError, Order, Progress, Receipt, Report, Signed, SlotContent, StreamHealth, wire,
};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::new)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Model), Just(Kind::Pipeline), Just(Kind::Package)]
}

fn label() -> impl Strategy<Value = Label> {
    "[a-z][a-z ]{0,9}[a-z]".prop_map(|text| text.parse().expect("letters and spaces within are a label"))
}

fn figure() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(-1e9..1e9)
}

fn report() -> impl Strategy<Value = Report> {
    let progress = prop_oneof![
        "[a-z ]{0,20}".prop_map(|what| Progress::Working { what }),
        Just(Progress::Done),
        "[a-z ]{0,20}".prop_map(|why| Progress::Failed { why, blame: Blame::Deployable }),
        "[a-z ]{0,20}".prop_map(|why| Progress::Failed { why, blame: Blame::Device }),
    ];
    let share = proptest::option::of(0.0..=1.0);
    let measured = [figure(), figure(), figure(), figure(), figure()];
    let figures = (0..1_000_000u64, any::<u32>(), measured, share).prop_map(
        |(over, restarts, [fps, latency_ms, agreement, temperature_c, power_w], accuracy)| Figures {
            over: Duration::from_millis(over),
            restarts,
            fps,
            latency_ms,
            agreement,
            accuracy,
            temperature_c,
            power_w,
        },
    );
    let running = proptest::collection::btree_map(kind(), digest(), 0..4);
    (any::<u64>(), any::<u64>(), progress, running, figures).prop_map(
        |(sequence, generation, progress, running, figures)| Report {
            sequence,
            generation: Generation(generation),
            progress,
            running,
            figures,
        },
    )
}

fn details() -> impl Strategy<Value = Details> {
    let stream = ("[a-z]{1,8}", any::<u64>(), 0.0..1e3, proptest::option::of("[a-z ]{1,9}")).prop_map(
        |(stream, frames, fps, trouble)| StreamHealth { stream, frames, fps, dropped: 3, reconnects: 4, trouble },
    );
    let fact = prop_oneof![(-1e9..1e9).prop_map(Fact::Number), "\\PC{0,20}".prop_map(Fact::Text)];
    let slot = (kind(), prop_oneof![Just("a"), Just("b")], digest(), any::<bool>())
        .prop_map(|(kind, slot, digest, is_active)| SlotContent { kind, slot: slot.to_owned(), digest, is_active });
    let refused = proptest::option::of((any::<u64>(), "[a-z]{0,9}"))
        .prop_map(|refused| refused.map(|(generation, why)| (Generation(generation), why)));
    (
        proptest::collection::vec(stream, 0..3),
        proptest::collection::btree_map("[a-z.]{1,9}", fact, 0..4),
        proptest::collection::vec(slot, 0..6),
        refused,
    )
        .prop_map(|(streams, facts, slots, refused)| Details {
            streams,
            version: Some(semver::Version::new(1, 2, 3)),
            class: None,
            facts,
            refused,
            slots,
        })
}

proptest! {
    #[test]
    fn reports_are_read_as_they_are_written(report in report(), details in details()) {
        let bytes = message::encode_report(&report, &details);
        prop_assert_eq!(message::decode_report(&bytes), Ok((report, details)));
    }

    #[test]
    fn orders_are_read_as_they_are_written(
        deployables in proptest::collection::btree_map(kind(), digest(), 0..4),
        generation in any::<u64>(),
        issued in 0..1u64 << 40,
        expires in proptest::option::of(0..1u64 << 40),
    ) {
        let deployables = deployables.into_iter().map(|(kind, digest)| Deployable { kind, digest }).collect();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let order = Dispatch {
            device: "gate-7".parse().unwrap(),
            content: Order { generation: Generation(generation), deployables },
            issued_at: at(issued),
            expires_at: expires.map(at),
        };
        prop_assert_eq!(Dispatch::<Order>::decode(&order.encode()), Ok(order));
    }

    #[test]
    fn commands_events_and_receipts_are_read_as_they_are_written(
        ask in prop_oneof![
            Just(Ask::RestartPipeline),
            digest().prop_map(|digest| Ask::SwapModel { digest }),
            "[a-z]{1,9}".prop_map(|stream| Ask::Snapshot { stream }),
            any::<u32>().prop_map(|lines| Ask::FetchLogs { lines }),
            ("[a-z]{1,9}", any::<u64>(), label()).prop_map(|(stream, track, label)| Ask::Label { stream, track, label }),
            proptest::option::of(label()).prop_map(|label| Ask::Forget { label }),
        ],
        numbers in proptest::collection::vec(any::<u64>(), 1..9),
        outcome in proptest::option::of(prop_oneof![
            "[a-z]{0,9}".prop_map(Ok),
            "[a-z]{0,9}".prop_map(Err),
        ]),
        level in prop_oneof![Just(Level::Info), Just(Level::Warn), Just(Level::Error)],
    ) {
        let number = numbers[0];
        let command = Dispatch {
            device: "gate-7".parse().unwrap(),
            content: Command { number, ask },
            issued_at: UNIX_EPOCH,
            expires_at: None,
        };
        prop_assert_eq!(Dispatch::<Command>::decode(&command.encode()), Ok(command));

        let event = Event {
            sequence: number,
            at_ms: number,
            level,
            name: "rolled-back".to_owned(),
            text: "it crashed".to_owned(),
            result: outcome.map(|outcome| CommandResult { number, outcome }),
            lost: 0,
        };
        prop_assert_eq!(message::decode_event(&message::encode_event(&event)), Ok(event));

        let receipt = Receipt { sequences: numbers, now: UNIX_EPOCH, renews_certificate: true };
        prop_assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));

        let signed = Signed { payload: vec![1, 2, 3], signature: [7; 64] };
        prop_assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
    }
}

/// What each of these is when it is right but for one thing.
#[test]
fn what_is_out_of_bounds_is_refused() {
    let order = |change: fn(&mut wire::Order)| {
        let mut order = wire::Order { device: "gate-7".into(), generation: 1, ..wire::Order::default() };
        change(&mut order);
        Dispatch::<Order>::decode(&order.encode_to_vec()).map(drop)
    };
    let field = |field| Err(MessageError::Field { field });
    assert_eq!(order(|_| {}), Ok(()));
    assert_eq!(order(|order| order.device = "../etc".into()), field("device"));
    assert_eq!(order(|order| order.issued_at = u64::MAX), field("issued_at"));
    assert_eq!(order(|order| order.deployables.push(wire::Deployable::default())), field("kind"));
    let short = |order: &mut wire::Order| {
        order.deployables.push(wire::Deployable { kind: wire::Kind::Model.into(), digest: vec![1; 31].into() });
    };
    assert_eq!(order(short), field("digest"));

    let command = |ask: Option<wire::command::Ask>| {
        let command = wire::Command { device: "gate-7".into(), number: 1, ask, ..wire::Command::default() };
        Dispatch::<Command>::decode(&command.encode_to_vec()).map(drop)
    };
    // What a later service asks is nothing that is known here.
    assert_eq!(command(None), field("ask"));
    for (label, expected) in [("parcel", Ok(())), ("../parcel", field("label")), ("", field("label"))] {
        let track = wire::LabelTrack { stream: "door".into(), track: 3, label: label.into() };
        assert_eq!(command(Some(wire::command::Ask::Label(track))), expected);
        let forget = wire::Forget { label: Some(label.into()) };
        assert_eq!(command(Some(wire::command::Ask::Forget(forget))), expected);
    }

    let report = |change: fn(&mut wire::Report)| {
        let progress = Some(wire::report::Progress::Done(wire::Done {}));
        let mut report = wire::Report { progress, ..wire::Report::default() };
        change(&mut report);
        message::decode_report(&report.encode_to_vec()).map(drop)
    };
    assert_eq!(report(|_| {}), Ok(()));
    assert_eq!(report(|report| report.progress = None), field("progress"));
    assert_eq!(report(|report| report.version = "one".into()), field("version"));
    assert_eq!(report(|report| report.device_class = "{}".into()), field("device_class"));
    let many = |report: &mut wire::Report| report.facts = vec![wire::Fact::default(); FACTS_MAX + 1];
    assert_eq!(report(many), field("facts"));
    let nan = |report: &mut wire::Report| {
        let value = Some(wire::fact::Value::Number(f64::NAN));
        report.facts.push(wire::Fact { name: "a".into(), value });
    };
    assert_eq!(report(nan), field("facts"));
    let tagged = |report: &mut wire::Report| {
        let value = Some(wire::fact::Value::Number(1.0));
        report.facts.push(wire::Fact { name: "<script>".into(), value });
    };
    assert_eq!(report(tagged), field("facts"));

    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(Signed::decode(&long), Err(MessageError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
}

#[test]
fn an_accuracy_that_is_no_share_counts_as_not_measured() {
    for (said, known) in [
        (0.0, Some(0.0)),
        (1.0, Some(1.0)),
        (1.0 + f64::EPSILON, None),
        (-0.1, None),
        (f64::NAN, None),
        (f64::INFINITY, None),
    ] {
        let message = wire::Report {
            progress: Some(wire::report::Progress::Done(wire::Done {})),
            figures: Some(wire::Figures { accuracy: Some(said), ..wire::Figures::default() }),
            ..wire::Report::default()
        };
        let (report, _) = message::decode_report(&message.encode_to_vec()).unwrap();
        assert_eq!(report.figures.accuracy, known, "{said}");
    }
}

#[test]
fn what_is_too_much_to_say_is_cut() {
    let report = Report {
        sequence: 1,
        generation: Generation(1),
        progress: Progress::Failed { why: "ä".repeat(TEXT_BYTES_MAX), blame: Blame::Device },
        running: [].into(),
        figures: Figures::default(),
    };
    let (report, _) = message::decode_report(&message::encode_report(&report, &Details::default())).unwrap();
    let Progress::Failed { why, .. } = report.progress else { panic!("it says {:?}", report.progress) };
    assert_eq!(why, "ä".repeat(TEXT_BYTES_MAX / 2));
}

/// A fuzz target: `cargo bolero test -p revoada-proto --test messages any_bytes_are_a_message_or_refused`, and a short run
/// of it in every `cargo test`.
#[test]
fn any_bytes_are_a_message_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(20_000).for_each(|bytes| {
        if let Ok((report, details)) = message::decode_report(bytes) {
            assert_eq!(message::decode_report(&message::encode_report(&report, &details)), Ok((report, details)));
        }
        if let Ok(event) = message::decode_event(bytes) {
            assert_eq!(message::decode_event(&message::encode_event(&event)), Ok(event));
        }
        if let Ok(order) = Dispatch::<Order>::decode(bytes) {
            assert_eq!(Dispatch::<Order>::decode(&order.encode()), Ok(order));
        }
        if let Ok(command) = Dispatch::<Command>::decode(bytes) {
            assert_eq!(Dispatch::<Command>::decode(&command.encode()), Ok(command));
        }
        if let Ok(receipt) = Receipt::decode(bytes) {
            assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
        }
    });
}
