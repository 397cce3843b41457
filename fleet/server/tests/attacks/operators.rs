//! People and programs that want more than they may.

use serde_json::{Value, json};

use super::siege::Siege;

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing() {
    let siege = Siege::begin().await;
    let told =
        siege.ask("POST", "/api/v1/tokens", json!({ "name": "eyes", "role": "viewer" })).await.expect(201).json();
    let token = told["token"].as_str().unwrap();
    siege.device("gate-1").await;
    siege.ask_as(token, "GET", "/api/v1/devices", Value::Null).await.expect(200);
    let digest = revoada_core::Digest::new([7; 32]);
    for (method, path, body) in [
        ("POST", "/api/v1/rollouts", json!({ "kind": "model", "name": "faces", "version": "2" })),
        ("POST", "/api/v1/rollouts/1/abort", json!({ "rolls_back": true })),
        ("POST", "/api/v1/devices/gate-1/commands", json!({ "ask": "restart-pipeline" })),
        ("POST", "/api/v1/devices/gate-1/revoke", Value::Null),
        ("PATCH", "/api/v1/devices/gate-1", json!({ "tags": ["mine"] })),
        ("DELETE", "/api/v1/devices/gate-1", Value::Null),
        ("POST", "/api/v1/blobs", json!({ "digest": digest, "bytes": 1 })),
        ("POST", "/api/v1/artefacts/model/faces/import", json!({ "url": "http://127.0.0.1/", "version": "1" })),
        ("POST", "/api/v1/users", json!({ "name": "eve", "role": "admin", "password": "long enough it is" })),
        ("PATCH", "/api/v1/users/admin", json!({ "password": "long enough it is" })),
        ("POST", "/api/v1/tokens", json!({ "name": "more", "role": "admin" })),
        ("POST", "/api/v1/enrolment-tokens", json!({ "name": "mine" })),
    ] {
        let answer = siege.ask_as(token, method, path, body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
    }
    for wrong in ["", "rvf_0", "no token at all"] {
        siege.ask_as(wrong, "GET", "/api/v1/devices", Value::Null).await.expect(401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_cannot_be_tried_one_after_another() {
    let siege = Siege::begin().await;
    let mut answers = Vec::new();
    for guess in 0..20 {
        let form = json!({ "name": "admin", "password": format!("password {guess}") });
        answers.push(siege.ask_as("", "POST", "/api/v1/session", form).await);
        if answers.last().unwrap().status == 429 {
            break;
        }
    }
    let last = answers.pop().unwrap().expect(429);
    assert!(last.header("retry-after").parse::<u64>().unwrap() >= 1, "{last:?}");
    assert!(answers.iter().all(|answer| answer.status == 401));
    // Neither does the right one tell that it is.
    let right = std::fs::read_to_string(siege.service.admin_password.as_ref().unwrap()).unwrap();
    let form = json!({ "name": "admin", "password": right.trim() });
    siege.ask_as("", "POST", "/api/v1/session", form).await.expect(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_long_is_refused() {
    let siege = Siege::begin().await;
    let form = json!({ "name": "a".repeat(1_000_000), "password": "password" });
    siege.ask_as("", "POST", "/api/v1/session", form).await.expect(401);
    let form = json!({ "name": "a".repeat(1_000_000), "role": "admin", "password": "long enough it is" });
    siege.ask("POST", "/api/v1/users", form).await.expect(422);
    // Asked before it is sent, so that the answer is not lost in what nobody reads.
    let form = json!({ "name": "admin", "password": "a".repeat(2 << 20) }).to_string().into_bytes();
    let headers = [("content-type", "application/json"), ("expect", "100-continue")];
    siege.request("POST", "/api/v1/session", &headers, form).await.expect(413);
    let nested = format!("{{\"name\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let headers = [("content-type", "application/json")];
    let answer = siege.request("POST", "/api/v1/session", &headers, nested.into_bytes()).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_never_part_of_a_query() {
    let siege = Siege::begin().await;
    siege.device("gate-1").await;
    for filter in ["id = 'x' OR 1=1; DROP TABLE device; --", "tag = \"'; DELETE FROM device; --\"", "1=1"] {
        let encoded: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let answer = siege.ask("GET", &format!("/api/v1/devices?filter={encoded}"), Value::Null).await;
        match answer.status {
            400 => {}
            200 => assert_eq!(answer.json()["matching"], 0, "{filter}: {answer:?}"),
            _ => panic!("{filter}: {answer:?}"),
        }
    }
    let devices = siege.ask("GET", "/api/v1/devices", Value::Null).await.expect(200).json();
    assert_eq!(devices["matching"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_does_nothing_with_somebodys_session() {
    let siege = Siege::begin().await;
    let password = std::fs::read_to_string(siege.service.admin_password.as_ref().unwrap()).unwrap();
    let form = json!({ "name": "admin", "password": password.trim() });
    let signed_in = siege.request(
        "POST",
        "/api/v1/session",
        &[("content-type", "application/json")],
        form.to_string().into_bytes(),
    );
    let signed_in = signed_in.await.expect(200);
    let cookie = signed_in.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let form = json!({ "name": "eve", "role": "admin", "password": "long enough it is" }).to_string().into_bytes();
    let json = ("content-type", "application/json");
    for foreign in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.test")]
    {
        let headers = [("cookie", cookie), json, foreign];
        let refused = siege.request("POST", "/api/v1/users", &headers, form.clone()).await;
        assert_eq!(refused.status, 403, "{foreign:?}: {refused:?}");
    }
    siege.request("POST", "/api/v1/users", &[("cookie", cookie), json], form.clone()).await.expect(403);
    let headers = [("cookie", cookie), json, ("sec-fetch-site", "same-origin")];
    siege.request("POST", "/api/v1/users", &headers, form).await.expect(201);
}
