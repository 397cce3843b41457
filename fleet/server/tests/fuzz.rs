//! Fuzz targets for what strangers and operators send to the service; each has a short run in every `cargo test`, and
//! `cargo bolero test -p revoada-fleet --test fuzz NAME` goes on from there. Messages of devices are in `revoada-proto`,
//! filters in `filter.rs`, bundles and signatures in `revoada-bundle`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use revoada_core::Digest;
use revoada_fleet::identity::CertificateRequest;
use revoada_fleet::service::RolloutForm;
use revoada_fleet::settings::Settings;

/// Somebody who has no certificate yet sends it: a sound request with a few bytes changed, cut off or repeated.
#[test]
fn a_changed_certificate_request_is_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let sound = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let digest = CertificateRequest::from_der(&sound).unwrap().key();
    bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().with_iterations(5_000).with_max_len(64).for_each(
        |(changes, length)| {
            let mut request = sound.clone();
            for (place, byte) in changes {
                let place = usize::from(*place) % request.len();
                request[place] = *byte;
            }
            // A half of all cases is whole.
            if length % 2 == 1 {
                request.truncate(usize::from(*length) % (sound.len() + 1));
            }
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

/// What an operator sends to begin a rollout: words that forms know, in any order, with any values.
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
        let members: Vec<String> = chosen
            .iter()
            .map(|(key, value)| {
                let key = keys[usize::from(*key) % keys.len()];
                format!("\"{key}\": {}", values[usize::from(*value) % values.len()])
            })
            .collect();
        let text = format!("{{{}}}", members.join(", "));
        if let Ok(form) = serde_json::from_str::<RolloutForm>(&text)
            && let Ok(rollout) = form.read(Digest::new([1; 32]))
        {
            assert!(!rollout.waves.is_empty(), "{text}");
        }
    });
}

/// A service's own file, which people write.
#[test]
fn any_settings_are_read_or_refused_with_the_place() {
    let sound = include_str!("../../../configs/fleet.toml");
    bolero::check!().with_type::<Vec<(u16, u8)>>().with_iterations(3_000).with_max_len(64).for_each(|changes| {
        let mut bytes = sound.as_bytes().to_vec();
        for (place, byte) in changes {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *byte;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = Settings::parse("fleet.toml", &text, Path::new("/etc")) {
            assert!(problems.to_string().contains("fleet.toml"), "{problems}");
        }
    });
}
