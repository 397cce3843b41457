//! Who may do what, and who did.

use revoada_fleet::store::{
    Actor, ApiToken, AuditCheck, BrowserSession, Page, Role, Store, StoreError, TokenScope, User,
};
use revoada_proto::Ask;
use serde_json::json;

use crate::fleet::{device, limits};
use crate::samples::{add_version, anna, at, certificate, digest, enrol, heard, token, user};

pub(super) fn users_are_changed_and_the_last_administrator_stays(store: &dyn Store) {
    store.add_user(&user("anna", Role::Admin), &Actor::Service, at(0)).unwrap();
    store.add_user(&user("ben", Role::Viewer), &anna(), at(0)).unwrap();
    let again = store.add_user(&user("ben", Role::Admin), &anna(), at(0)).unwrap_err();
    assert!(matches!(again, StoreError::Exists { what: "user", .. }), "{again}");
    let last = "`anna` is the last administrator who can sign in";
    assert_eq!(store.set_role("anna", Role::Operator, &anna(), at(1)).unwrap_err().to_string(), last);
    assert_eq!(store.set_disabled("anna", true, &anna(), at(1)).unwrap_err().to_string(), last);
    assert_eq!(store.remove_user("anna", &anna(), at(1)).unwrap_err().to_string(), last);
    assert_eq!(store.user("anna").unwrap().unwrap(), user("anna", Role::Admin), "nothing of it was done");
    store.set_role("ben", Role::Admin, &anna(), at(2)).unwrap();
    store.set_disabled("ben", true, &anna(), at(2)).unwrap();
    assert_eq!(store.remove_user("anna", &anna(), at(3)).unwrap_err().to_string(), last, "the other is disabled");
    store.set_disabled("ben", false, &anna(), at(3)).unwrap();
    store.set_password("ben", "$argon2id$other", &anna(), at(3)).unwrap();
    assert!(store.remove_user("anna", &anna(), at(4)).unwrap());
    assert!(!store.remove_user("anna", &anna(), at(4)).unwrap());
    let ben = User { password_hash: "$argon2id$other".to_owned(), ..user("ben", Role::Admin) };
    assert!(!format!("{ben:?}").contains("argon2id"), "{ben:?}");
    assert_eq!(store.users().unwrap(), [ben]);
}

pub(super) fn api_tokens_are_found_until_they_expire(store: &dyn Store) {
    let token = |number, expires_at| ApiToken {
        hash: digest(number),
        name: format!("ci-{number}"),
        role: Role::Operator,
        created_at: at(0),
        expires_at,
        last_used: None,
    };
    store.add_api_token(&token(1, Some(at(100))), &anna(), at(0)).unwrap();
    store.add_api_token(&token(2, None), &anna(), at(0)).unwrap();
    assert!(store.add_api_token(&ApiToken { hash: digest(3), ..token(2, None) }, &anna(), at(0)).is_err());
    assert_eq!(store.api_token(&digest(1), at(99)).unwrap(), Some(token(1, Some(at(100)))));
    assert_eq!(store.api_token(&digest(1), at(100)).unwrap(), None);
    store.record_token_uses(&[(digest(2), at(50)), (digest(2), at(40)), (digest(9), at(40))]).unwrap();
    assert_eq!(store.api_token(&digest(2), at(999)).unwrap().unwrap().last_used, Some(at(50)));
    assert_eq!(store.api_tokens().unwrap().len(), 2);
    assert!(store.remove_api_token("ci-2", &anna(), at(60)).unwrap());
    assert_eq!(store.api_token(&digest(2), at(61)).unwrap(), None);
}

pub(super) fn browser_sessions_end_with_time_password_and_user(store: &dyn Store) {
    store.add_user(&user("anna", Role::Admin), &Actor::Service, at(0)).unwrap();
    store.add_user(&user("ben", Role::Viewer), &anna(), at(0)).unwrap();
    let session = |number, user: &str| BrowserSession {
        hash: digest(number),
        user: user.to_owned(),
        created_at: at(0),
        expires_at: at(100),
    };
    let begin = |number, user| store.add_browser_session(&session(number, user)).unwrap();
    let who = |number, seconds| store.browser_session(&digest(number), at(seconds)).unwrap().map(|(_, user)| user.name);
    assert!(store.add_browser_session(&session(1, "stranger")).is_err());
    begin(1, "ben");
    assert_eq!(
        store.browser_session(&digest(1), at(99)).unwrap(),
        Some((session(1, "ben"), user("ben", Role::Viewer)))
    );
    assert_eq!(who(1, 100), None, "its time is over");
    store.set_password("ben", "$argon2id$other", &anna(), at(1)).unwrap();
    assert_eq!(who(1, 2), None, "the password was changed");
    begin(2, "ben");
    store.set_disabled("ben", true, &anna(), at(1)).unwrap();
    assert_eq!(who(2, 2), None, "the user was disabled");
    begin(3, "anna");
    assert!(store.end_browser_session(&digest(3)).unwrap());
    assert_eq!(who(3, 2), None);
    begin(4, "anna");
    assert_eq!(store.forget_browser_sessions(at(99)).unwrap(), 0);
    assert_eq!(store.forget_browser_sessions(at(100)).unwrap(), 1);
}

pub(super) fn every_change_is_in_the_chain_and_reading_is_not(store: &dyn Store) {
    let ci = Actor::Token("ci".to_owned());
    let cam = enrol(store, "cam-1");
    store.set_tags(&cam, &["north".to_owned()].into(), &anna(), at(1)).unwrap();
    store.set_builder(&cam, true, &ci, at(2)).unwrap();
    store.record(&[heard("cam-1", 1, 2)]).unwrap();
    store.add_certificate(&certificate("0a", &cam), &Actor::Service, at(3)).unwrap();
    store.revoke_certificate("0a", &anna(), at(3)).unwrap();
    store.add_enrolment_token(&token(1, TokenScope::Prefix(String::new()), 1), &anna(), at(3)).unwrap();
    store.take_token(&digest(1), &device("cam-2"), at(3)).unwrap();
    add_version(store, 1);
    store.set_limits(&limits(), 7, &anna(), at(4)).unwrap();
    store.add_command(&cam, &Ask::RestartPipeline, at(99), &anna(), at(5)).unwrap();
    store.add_user(&user("anna", Role::Admin), &Actor::Service, at(6)).unwrap();
    store.note(&anna(), "sign-in", "anna", &json!({ "from": "192.0.2.1" }), at(7)).unwrap();
    store.remove_device(&cam, &anna(), at(8)).unwrap();
    store.devices().unwrap();
    let entries = store.audit(Page::first(100)).unwrap();
    let actions: Vec<&str> = entries.iter().rev().map(|entry| entry.action.as_str()).collect();
    let expected = [
        "add-device",
        "set-tags",
        "set-builder",
        "issue-certificate",
        "revoke-certificate",
        "add-enrolment-token",
        "take-enrolment-token",
        "put-artefact",
        "add-version",
        "set-limits",
        "command",
        "add-user",
        "sign-in",
        "remove-device",
    ];
    assert_eq!(actions, expected);
    let tags = &entries[entries.len() - 2];
    assert_eq!((&tags.by, tags.subject.as_str(), tags.at), (&anna(), "cam-1", at(1)));
    assert_eq!(tags.details, json!({ "tags": ["north"] }));
    assert!(!entries.iter().any(|entry| entry.details.to_string().contains("argon2id")), "no secret is in it");
    let head = entries[0].digest;
    assert_eq!(store.verify_audit().unwrap(), AuditCheck::Whole { entries: expected.len() as u64, head });
    let page = store.audit(Page { before: Some(entries[3].number), limit: 2 }).unwrap();
    assert_eq!(page, entries[4..6]);
}

pub(super) fn a_change_that_is_refused_leaves_no_entry(store: &dyn Store) {
    assert!(store.set_builder(&device("stranger"), true, &anna(), at(0)).is_err());
    assert!(store.set_role("stranger", Role::Admin, &anna(), at(0)).is_err());
    assert!(!store.remove_user("stranger", &anna(), at(0)).unwrap());
    assert_eq!(store.audit(Page::first(9)).unwrap(), []);
    let head = revoada_core::Digest::new([0; 32]);
    assert_eq!(store.verify_audit().unwrap(), AuditCheck::Whole { entries: 0, head });
}
