//! A fuzz target for the agent's file: `cargo bolero test -p revoada-agent --test fuzz`, and a short run of it in every
//! `cargo test`. What a service says is decoded in `revoada-proto`, what it hands out is read in `revoada-bundle`.
#![forbid(unsafe_code)]

use std::path::Path;

use revoada_agent::shell::{Address, AgentConfig};

#[test]
fn any_file_is_read_or_refused_with_the_place() {
    let sound = include_str!("../../../configs/agent.toml");
    bolero::check!().with_type::<Vec<(u16, u8)>>().with_iterations(3_000).with_max_len(64).for_each(|changes| {
        let mut bytes = sound.as_bytes().to_vec();
        for (place, byte) in changes {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *byte;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = AgentConfig::parse("agent.toml", &text, Path::new("/etc")) {
            assert!(problems.to_string().contains("agent.toml"), "{problems}");
        }
    });
}

#[test]
fn any_text_is_an_address_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().with_iterations(10_000).with_max_len(64).for_each(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(address) = text.parse::<Address>() {
            assert_eq!(address.to_string().parse(), Ok(address.clone()), "{text}");
        }
    });
}
