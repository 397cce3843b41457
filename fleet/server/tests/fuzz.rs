//! Fuzz targets for what strangers and operators send to the service; each has a short run in every `cargo test`, and
//! `cargo bolero test -p revoada-fleet --test fuzz NAME` goes on from there. Messages of devices are in `revoada-proto`,
//! filters in `filter.rs`, bundles and signatures in `revoada-bundle`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use revoada_core::Digest;
use revoada_fleet::flower::objects::{Kind, Object, Parsed};
use revoada_fleet::identity::CertificateRequest;
use revoada_fleet::service::{RolloutForm, RunForm};
use revoada_fleet::settings::Settings;

/// A sound file with a few bytes changed; half of all cases are cut off.
fn changed(sound: &[u8], changes: &[(u16, u8)], length: u16) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for (place, byte) in changes {
        let place = usize::from(*place) % bytes.len();
        bytes[place] = *byte;
    }
    if length % 2 == 1 {
        bytes.truncate(usize::from(length) % (sound.len() + 1));
    }
    bytes
}

/// Words that forms know, in any order, with any values.
fn form(keys: &[&str], values: &[&str], chosen: &[(u8, u8)]) -> String {
    let member = |(key, value): &(u8, u8)| {
        let key = keys[usize::from(*key) % keys.len()];
        format!("\"{key}\": {}", values[usize::from(*value) % values.len()])
    };
    format!("{{{}}}", chosen.iter().map(member).collect::<Vec<_>>().join(", "))
}

/// Somebody who has no certificate yet sends it: a sound request with a few bytes changed, cut off or repeated.
#[test]
fn a_changed_certificate_request_is_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let sound = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let digest = CertificateRequest::from_der(&sound).unwrap().key();
    bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().with_iterations(5_000).with_max_len(64).for_each(
        |(changes, length)| {
            let request = changed(&sound, changes, *length);
            match CertificateRequest::from_der(&request) {
                // Its own signature holds for it as it is, so that it is the one that was made.
                Ok(read) => assert_eq!((read.key(), &request), (digest, &sound)),
                Err(error) => assert!(request != sound, "{error}"),
            }
        },
    );
}

#[test]
fn any_bytes_are_no_certificate_request() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(10_000).for_each(|bytes| {
        assert!(CertificateRequest::from_der(bytes).is_err());
    });
}

/// What an operator sends to begin a rollout.
#[test]
fn any_form_is_a_rollout_or_refused() {
    let keys = ["title", "kind", "name", "version", "filter", "waves", "gates", "retry"];
    let values = [
        "\"model\"",
        "\"faces\"",
        "\"1\"",
        "\"tag = door\"",
        "[]",
        "{}",
        "null",
        "-1",
        "1e308",
        "[{\"size\": \"10%\", \"soak\": \"30m\"}]",
        "[{\"size\": \"0\", \"timeout\": \"9999999999999h\"}]",
        "[{\"size\": \"100%\", \"done_percent\": 0}]",
        "[{\"measure\": \"fps\", \"threshold\": -1e400}]",
        "[{\"measure\": \"agreement\", \"threshold\": 0.9, \"samples_min\": 0}]",
        "{\"attempts_max\": 0}",
        "{\"attempts_max\": 3, \"delay\": \"1s\", \"delay_max\": \"0s\"}",
    ];
    bolero::check!().with_type::<Vec<(u8, u8)>>().with_iterations(20_000).with_max_len(64).for_each(|chosen| {
        let text = form(&keys, &values, chosen);
        if let Ok(form) = serde_json::from_str::<RolloutForm>(&text)
            && let Ok(rollout) = form.read(Digest::new([1; 32]))
        {
            assert!(!rollout.waves.is_empty(), "{text}");
        }
    });
}

/// What an operator sends to begin a run of learning.
#[test]
fn any_form_is_a_run_that_can_be_begun_or_refused() {
    let keys = [
        "rounds",
        "strategy",
        "privacy",
        "quorum",
        "enough",
        "sample",
        "round_timeout",
        "devices",
        "app",
        "pictures",
        "release",
        "config",
        "norm_max",
    ];
    let values = [
        "1",
        "0",
        "-1",
        "1e308",
        "null",
        "\"10%\"",
        "\"99999999999h\"",
        "\"digits\"",
        "{ \"name\": \"FedMedian\" }",
        "{ \"name\": \"FedAdam\", \"tau\": 0 }",
        "{ \"name\": \"Krum\", \"num_malicious_nodes\": 18446744073709551615 }",
        "{ \"name\": \"FedTrimmedAvg\", \"beta\": 0.5 }",
        "{ \"clipping_norm\": 1, \"noise_multiplier\": 1e-300, \"delta\": 1e-5 }",
        "{ \"model\": \"faces\", \"version\": \"1\", \"labels\": [\"a\", \"b\"] }",
        "{ \"version\": \"2\", \"gain_min\": 0.5, \"rollout\": {} }",
        "{ \"epochs\": 3, \"rate\": 0.1, \"held_out\": 0.5 }",
    ];
    bolero::check!().with_type::<Vec<(u8, u8)>>().with_iterations(20_000).with_max_len(64).for_each(|chosen| {
        let text = form(&keys, &values, chosen);
        if let Ok(form) = serde_json::from_str::<RunForm>(&text)
            && let Ok(plan) = form.read(Some(Digest::new([1; 32])))
        {
            assert!(plan.rounds > 0 && plan.recipe.check().is_ok(), "{text}");
            assert!(plan.release.is_none() || plan.pictures.is_some(), "{text}");
        }
    });
}

/// What SuperNodes send: a sound object with a few bytes changed or cut off.
#[test]
fn any_object_of_flowers_is_the_one_that_it_says_or_refused() {
    let sound = Object::new(Kind::ALL[0], &[Digest::new([7; 32])], b"a body").content;
    bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().with_iterations(20_000).with_max_len(64).for_each(
        |(changes, length)| {
            let bytes = changed(&sound, changes, *length).into();
            if let Ok(Parsed { kind, children, body }) = Parsed::new(&bytes) {
                assert_eq!(Object::new(kind, &children, &body).content, bytes);
            }
        },
    );
}

/// A service's own file, which people write.
#[test]
fn any_settings_are_read_or_refused_with_the_place() {
    let sound = include_str!("../../../configs/fleet.toml");
    bolero::check!().with_type::<Vec<(u16, u8)>>().with_iterations(3_000).with_max_len(64).for_each(|changes| {
        let bytes = changed(sound.as_bytes(), changes, 0);
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = Settings::parse("fleet.toml", &text, Path::new("/etc")) {
            assert!(problems.to_string().contains("fleet.toml"), "{problems}");
        }
    });
}
