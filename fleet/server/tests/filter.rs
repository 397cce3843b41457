//! The language of filters through the public door.

use std::time::Duration;

use proptest::prelude::*;
use revoada_core::{Architecture, DeviceClass, TensorRtFlavour, TensorRtVersion, Timestamp};
use revoada_fleet::filter::{BYTES_MAX, DEPTH_MAX};
use revoada_fleet::{Device, Filter};
use revoada_proto::Fact;

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000_000);

fn parse(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<Filter>().expect_err(text).to_string()
}

fn gate_7() -> Device {
    Device {
        tags: ["entrance".to_owned(), "berlin".to_owned()].into(),
        class: Some(DeviceClass {
            module: Some("Orin NX".to_owned()),
            architecture: Architecture::new(8, 7),
            multiprocessors: Some(8),
            tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
            cuda: Some([12, 6]),
        }),
        version: Some(semver::Version::new(1, 10, 0)),
        seen: Some(Timestamp::from_nanos(NOW.as_nanos() - Duration::from_hours(3).as_nanos() as u64)),
        facts: [
            ("streams".to_owned(), Fact::Number(4.0)),
            ("site".to_owned(), Fact::Text("hall \"B\"".to_owned())),
            ("mode".to_owned(), Fact::Text("25".to_owned())),
        ]
        .into(),
    }
}

#[test]
fn a_device_is_meant_by_what_is_known_of_it() {
    for (filter, is_meant) in [
        ("all", true),
        ("not all", false),
        ("id = gate-7", true),
        ("id ~ gate-*", true),
        ("id ~ *7", true),
        ("id ~ g*t*-7", true),
        ("id ~ g*x*7", false),
        ("id in (gate-1, gate-7)", true),
        ("id in (gate-1)", false),
        ("tag = entrance", true),
        ("tag != entrance", false),
        ("tag = exit", false),
        ("tag in (exit, berlin)", true),
        ("module = \"Orin NX\"", true),
        ("class ~ \"*TensorRT 10.3.0*\"", true),
        ("architecture = sm_87", true),
        ("version = 1.10.0", true),
        ("version >= 1.9.0", true),
        ("version < 1.10.0-rc.1", false),
        ("version in (1.9.0, 1.10.0+debian)", true),
        ("seen < 4h", true),
        ("seen < 2h", false),
        ("seen > \"2h 30m\"", true),
        ("fact.streams >= 4", true),
        ("fact.streams > 4", false),
        ("fact.streams != 5", true),
        ("fact.streams = \"4\"", true),
        ("fact.site = \"hall \\\"B\\\"\"", true),
        ("fact.mode = \"25\"", true),
        ("fact.mode = 25", false),
        ("has fact.site and not has fact.roof", true),
        ("fact.roof = flat", false),
        ("fact.roof < 3", false),
        ("fact.roof != flat", true),
        ("tag = exit or tag = berlin and version > 1.0.0", true),
        ("(tag = exit or tag = berlin) and version > 2.0.0", false),
        ("not (tag = exit) and not tag = roof", true),
    ] {
        let filter = parse(filter);
        assert_eq!(filter.matches(&"gate-7".parse().unwrap(), &gate_7(), NOW), is_meant, "{filter}");
    }
    let unknown = Device::default();
    for (filter, is_meant) in
        [("seen < 9999d", false), ("seen >= 9999d", true), ("version < 9.0.0", false), ("version != 9.0.0", true)]
    {
        assert_eq!(parse(filter).matches(&"gate-7".parse().unwrap(), &unknown, NOW), is_meant, "{filter}");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_the_place() {
    let names = "`id`, `tag`, `class`, `module`, `architecture`, `version`, `seen` or `fact.NAME`";
    let long = format!("id = {}", "a".repeat(BYTES_MAX));
    let deep = format!("{}all", "not ".repeat(DEPTH_MAX + 1));
    for (text, expected) in [
        ("", format!("1, its end: expected {names}")),
        ("tag = ", "7, its end: expected a value".to_owned()),
        ("tag exit", "5, before `exit`: expected `=`, `!=`, `<`, `<=`, `>`, `>=`, `~` or `in`".to_owned()),
        ("tag < exit", "5, before `< exit`: `<` does not fit `tag`".to_owned()),
        ("seen = 2h", "6, before `= 2h`: `=` does not fit `seen`".to_owned()),
        ("seen < 2", "8, before `2`: expected a time like `90s`, `2h` or `7d`".to_owned()),
        ("version > 1.2", "11, before `1.2`: expected a version like `1.2.0`".to_owned()),
        ("fact.x ~ 3 and", format!("15, its end: expected {names}")),
        ("color = red", format!("1, before `color = red`: expected {names}")),
        ("(id = a", "8, its end: expected `and`, `or` or `)`".to_owned()),
        ("id = a)", "7, before `)`: expected `and`, `or` or the end".to_owned()),
        ("id in a", "7, before `a`: expected `(`".to_owned()),
        ("id in (a b)", "10, before `b)`: expected `,` or `)`".to_owned()),
        ("has site", "5, before `site`: expected `fact.NAME`".to_owned()),
        ("ä = \"b", "5, before `\\\"b`: the closing `\"` is missing".to_owned()),
        ("id = \"\\n\"", "6, before `\\\"\\\\n\\\"`: after `\\` only `\"` and `\\` may stand".to_owned()),
        ("id = a & id = b", "8, before `& id = b`: expected a word, an operator or `\"`".to_owned()),
        (&long, format!("1, before `id = {}…`: {} bytes are more than {BYTES_MAX}", "a".repeat(19), BYTES_MAX + 5)),
        (&deep, format!("{}, before `all`: nested deeper than {DEPTH_MAX}", 4 * (DEPTH_MAX + 1) + 1)),
    ] {
        assert_eq!(refusal(text), format!("cannot read the filter at character {expected}"));
    }
}

/// Any text of the language.
fn filters() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z][a-z0-9._*-]{0,8}".prop_map(|word| format!("\"{word}\"")),
        "[ -~äß]{0,8}".prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))),
        Just("e5".to_owned()),
    ];
    let compare = prop_oneof![Just("="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let name =
        prop_oneof![Just("id"), Just("tag"), Just("class"), Just("module"), Just("architecture"), Just("fact.a")];
    let test = prop_oneof![
        (name.clone(), prop_oneof![Just("="), Just("!="), Just("~")], text.clone())
            .prop_map(|(name, operator, text)| format!("{name} {operator} {text}")),
        (name, prop::collection::vec(text, 1..4)).prop_map(|(name, texts)| format!("{name} in ({})", texts.join(","))),
        (compare.clone(), any::<(u8, u8, u8)>())
            .prop_map(|(operator, (a, b, c))| format!("version {operator} {a}.{b}.{c}-rc.1+b")),
        (prop_oneof![Just("<"), Just(">=")], any::<u32>()).prop_map(|(operator, s)| format!("seen {operator} {s}s")),
        (compare, -1e9..1e9).prop_map(|(operator, number)| format!("fact.b {operator} {number}")),
        Just("has fact.c".to_owned()),
        Just("all".to_owned()),
    ];
    test.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|filter| format!("not {filter}")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|filters| format!("({})", filters.join(" and "))),
            prop::collection::vec(inner, 1..4).prop_map(|filters| format!("({})", filters.join(" or "))),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_is_read_as_it_is_written(text in filters()) {
        let filter = parse(&text);
        prop_assert_eq!(&parse(&filter.to_string()), &filter, "{}", filter);
    }
}

/// A fuzz target: `cargo bolero test --test filter any_text_is_read_or_refused`, and a short run of it in every `cargo
/// test`. Pieces of the language come far deeper than noise.
#[test]
fn any_text_is_read_or_refused() {
    let pieces = [
        "id", "tag", "version", "seen", "fact.x", "=", "!=", "<", ">=", "~", "in", "(", ")", ",", "and", "or", "not",
        "has", "all", "1.2.0", "2h", "7", "\"a b\"", "\"", "\\", "*", "gate-7", "ä", "\n", "1e999", "-0",
    ];
    let device = gate_7();
    let look_at = |text: &str| match text.parse::<Filter>() {
        Ok(filter) => {
            let printed = filter.to_string();
            // What is stored is read again, also where printing has passed a bound of what people write.
            assert_eq!(Filter::try_from(printed.clone()).unwrap(), filter, "{printed}");
            filter.matches(&"gate-7".parse().unwrap(), &device, NOW);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error:?}"),
    };
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().with_iterations(10_000).with_max_len(64).for_each(
        |(noise, chosen)| {
            look_at(&String::from_utf8_lossy(noise));
            let words: Vec<&str> = chosen.iter().map(|index| pieces[usize::from(*index) % pieces.len()]).collect();
            look_at(&words.join(" "));
        },
    );
}
