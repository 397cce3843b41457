//! What the authority signs, and what it does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use rcgen::KeyPair;
use revoada_bundle::sign::Purpose;
use revoada_core::Digest;
use revoada_fleet::identity::{Authority, CertificateRequest, IdentityError, OrderKey, RequestError, VALIDITY};
use revoada_proto::{Ask, Command, Dispatch, Generation, Order};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::world::{World, request_for};

#[test]
fn an_authority_is_read_back_and_its_key_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let made = Authority::create(folder.path()).unwrap();
    let read = Authority::load(folder.path()).unwrap();
    assert_eq!(made.fingerprint(), read.fingerprint());
    assert_eq!(made.fingerprint(), revoada_bundle::hash(made.root()));
    assert_eq!(made.new_token().unwrap().root(), made.fingerprint());
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("authority.key.pem"), 0o600);
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["authority.cert.pem", "authority.key.pem"]);
}

#[test]
fn an_authority_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let made = Authority::create(folder.path()).unwrap();
    assert!(matches!(Authority::create(folder.path()), Err(IdentityError::Write { .. })));
    assert_eq!(Authority::load(folder.path()).unwrap().fingerprint(), made.fingerprint());
}

#[test]
fn a_key_that_a_power_cut_left_without_certificate_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = Authority::create(folder.path()).unwrap();
    let key = fs::read(folder.path().join("authority.key.pem")).unwrap();
    fs::remove_file(folder.path().join("authority.cert.pem")).unwrap();
    fs::write(folder.path().join("authority.cert.partial"), "half").unwrap();
    let second = Authority::create(folder.path()).unwrap();
    assert_ne!(second.fingerprint(), first.fingerprint());
    assert_eq!(fs::read(folder.path().join("authority.key.pem")).unwrap(), key);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn files_that_are_no_authority_are_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(matches!(Authority::load(folder.path()), Err(IdentityError::Read { .. })));
    Authority::create(folder.path()).unwrap();
    Authority::create(other.path()).unwrap();
    let (key, certificate) = (folder.path().join("authority.key.pem"), folder.path().join("authority.cert.pem"));
    let kept = fs::read(&certificate).unwrap();
    fs::copy(other.path().join("authority.cert.pem"), &certificate).unwrap();
    assert!(matches!(Authority::load(folder.path()), Err(IdentityError::Mismatch { .. })));
    fs::write(&certificate, &kept[..kept.len() / 2]).unwrap();
    assert!(matches!(Authority::load(folder.path()), Err(IdentityError::Damaged { .. })));
    fs::write(&certificate, kept).unwrap();
    fs::write(&key, "").unwrap();
    assert!(matches!(Authority::load(folder.path()), Err(IdentityError::Damaged { .. })));
}

#[test]
fn a_device_gets_the_name_that_it_was_given_and_not_the_one_that_it_asked_for() {
    let world = World::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = CertificateRequest::from_der(&request_for(&key)).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let issued = world.authority.issue_device(&request, &"gate-7".parse().unwrap(), now, VALIDITY).unwrap();
    assert_eq!(issued.not_after, now + VALIDITY);
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names: Vec<_> = certificate.subject().iter().flat_map(|name| name.iter()).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].as_str().unwrap(), "gate-7");
    assert_eq!(certificate.raw_serial(), issued.serial.as_bytes());
    assert_eq!(certificate.validity().not_after.timestamp(), 1_900_000_000 + 90 * 24 * 3600);
    assert!(!certificate.is_ca());
    assert!(certificate.subject_alternative_name().unwrap().is_none());
    assert_eq!(request.key(), revoada_bundle::hash(certificate.public_key().raw));
    let again = world.authority.issue_device(&request, &"gate-7".parse().unwrap(), now, VALIDITY).unwrap();
    assert_ne!(again.serial, issued.serial);
    assert_eq!(issued.serial.to_string().parse(), Ok(issued.serial));
}

#[test]
fn a_validity_without_end_ends_with_the_calendar() {
    let world = World::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateRequest::from_der(&request_for(&key)).unwrap();
    let device = "gate-7".parse().unwrap();
    for (now, validity) in [(SystemTime::now(), Duration::MAX), (UNIX_EPOCH - Duration::from_secs(9), Duration::ZERO)] {
        let issued = world.authority.issue_device(&request, &device, now, validity).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        X509Certificate::from_der(&der).unwrap();
    }
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = request_for(&key);
    CertificateRequest::from_der(&request).unwrap();
    // What is signed, and the signature; between them lies the algorithm's name, of which the parser is not strict.
    let signed = 3..5 + usize::from(request[4]);
    for index in signed.chain(request.len() - 64..request.len()) {
        let mut damaged = request.clone();
        damaged[index] ^= 1;
        assert!(CertificateRequest::from_der(&damaged).is_err(), "byte {index}");
    }
    assert!(matches!(CertificateRequest::from_der(&[&request[..], &[0]].concat()), Err(RequestError::Damaged)));
    assert!(matches!(CertificateRequest::from_der(&vec![0; 1 << 20]), Err(RequestError::TooLong { .. })));
}

#[test]
fn only_keys_that_are_neither_weak_nor_odd_are_certified() {
    let odd = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(matches!(CertificateRequest::from_der(&request_for(&odd)), Err(RequestError::Key)));
}

#[test]
fn an_order_is_signed_as_an_order_and_a_command_as_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("order.key.pem");
    let key = OrderKey::create(&path).unwrap();
    assert!(OrderKey::create(&path).is_err(), "a key is never written over");
    assert_eq!(OrderKey::load(&path).unwrap().public(), key.public());
    let issued_at = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let device: revoada_proto::DeviceId = "gate-7".parse().unwrap();
    let order = Order { generation: Generation(3), deployables: Default::default() };
    let order = Dispatch { device: device.clone(), content: order, issued_at, expires_at: None };
    let command = Command { number: 3, ask: Ask::RestartPipeline };
    let command = Dispatch { device, content: command, issued_at, expires_at: None };
    let (signed_order, signed_command) = (key.sign_order(&order), key.sign_command(&command));
    assert_eq!(Dispatch::<Order>::decode(&signed_order.payload).unwrap(), order);
    assert_eq!(Dispatch::<Command>::decode(&signed_command.payload).unwrap(), command);
    for (signed, purpose, other) in
        [(signed_order, Purpose::Order, Purpose::Command), (signed_command, Purpose::Command, Purpose::Order)]
    {
        let signature = revoada_bundle::sign::Signature::from_bytes(key.public(), &signed.signature);
        let digest: Digest = revoada_bundle::hash(&signed.payload);
        assert!(signature.verify(purpose, digest));
        assert!(!signature.verify(other, digest));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_authority_panic(bytes: Vec<u8>, cut in 0_usize..400, byte: u8) {
        let _ = CertificateRequest::from_der(&bytes);
        let mut request = request_for(&KeyPair::generate().unwrap());
        let index = cut % request.len();
        request[index] = byte;
        let _ = CertificateRequest::from_der(&request);
        request.truncate(index);
        prop_assert!(CertificateRequest::from_der(&request).is_err());
    }
}
