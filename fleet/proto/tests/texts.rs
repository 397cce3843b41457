//! What people and networks hand over as text: names, topics, tokens.
#![forbid(unsafe_code)]

use revoada_proto::{DeviceId, EnrolmentToken, Topic};

/// A fuzz target: `cargo bolero test -p revoada-proto --test texts any_text_is_read_or_refused`, and a short run of it in
/// every `cargo test`. What is read says the same again.
#[test]
fn any_text_is_read_or_refused() {
    // Nothing but noise never gets past the first word.
    let starts = ["", "v1/default/", "v1/default/gate/", "revoada-", "v1/default/gate/up/"];
    bolero::check!().with_type::<(u8, Vec<u8>)>().with_iterations(20_000).with_max_len(256).for_each(
        |(start, noise)| {
            let text = format!("{}{}", starts[usize::from(*start) % starts.len()], String::from_utf8_lossy(noise));
            if let Ok(device) = text.parse::<DeviceId>() {
                assert_eq!(device.as_str().parse(), Ok(device.clone()));
            }
            if let Ok(topic) = text.parse::<Topic>() {
                assert_eq!((topic.to_string().as_str(), topic.to_string().parse()), (text.as_str(), Ok(topic.clone())));
            }
            if let Ok(token) = text.parse::<EnrolmentToken>() {
                let again: EnrolmentToken = token.text().parse().expect("a token reads its own text");
                assert_eq!(again.text(), token.text());
            }
        },
    );
}

/// A fuzz target: a whole token that was changed in one place is another token or none.
#[test]
fn a_changed_token_is_no_more_than_another_one() {
    let whole = EnrolmentToken::new([9; EnrolmentToken::SECRET_BYTES], revoada_core::Digest::new([7; 32]));
    let text = whole.text();
    bolero::check!().with_type::<(usize, u8)>().with_iterations(20_000).for_each(|(place, byte)| {
        let mut bytes = text.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] = *byte;
        let Ok(changed) = String::from_utf8(bytes) else { return };
        if let Ok(read) = changed.parse::<EnrolmentToken>() {
            assert_eq!(read.text() == text, changed.trim() == text, "`{changed}` is read as `{text}`");
        }
    });
}
