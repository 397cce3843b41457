//! A service with a fleet that looks like one: forty devices, rollouts under way, alerts and a past, all made up. For looking at
//! the console, and for its pictures: `cargo run --package revoada-fleet --example showroom [ADDRESS]`.
//!
//! Its devices are threads' make-believe: they report and carry out orders, and open no connection. It keeps everything in a
//! temporary folder and ends with its standard input or on an interrupt.

#![forbid(unsafe_code)]

mod cast;
mod devices;
mod learning;
mod past;
mod registry;

use std::error::Error;
use std::fs;
use std::io::Read;
use std::time::Duration;

use revoada_fleet::planner::RolloutId;
use revoada_fleet::serve::Service;
use revoada_fleet::service::{DurationText, GateForm, MeasureName, Principal, RolloutForm, SizeText, WaveForm};
use revoada_fleet::settings::Settings;
use revoada_fleet::store::{Actor, Role};
use revoada_proto::{Ask, Kind};

use devices::Players;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Outcome {
    let level = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(level).init();
    let folder = tempfile::tempdir()?;
    let mut settings = Settings::in_folder(folder.path());
    settings.mqtt = ([127, 0, 0, 1], 0).into();
    settings.devices = ([127, 0, 0, 1], 0).into();
    settings.operators.address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    past::write(&settings).await?;

    let service = Service::start(&settings).await?;
    let by = Principal::service();
    service.fleet.add_user(&by, "anna", Role::Operator, "a password for anna")?;
    service.fleet.add_user(&by, "victor", Role::Viewer, "a password for victor")?;
    service.fleet.add_api_token(&by, "ci", Role::Operator, None)?;
    let players = Players::start(&service.fleet);
    let fleet = std::sync::Arc::clone(&service.fleet);
    // It begins once the one before has ended.
    tokio::task::spawn_blocking(move || -> Outcome {
        let by = Principal::service();
        wait(|| {
            ["finished", "halted"]
                .iter()
                .zip([1, 2])
                .all(|(phase, id)| fleet.rollout(&by, RolloutId(id)).is_ok_and(|view| view.phase_name() == *phase))
        })?;
        let anna = Principal { actor: Actor::User("anna".to_owned()), role: Role::Operator };
        fleet.add_rollout(&anna, &canary()?)?;
        fleet.command(&anna, &"hall-03".parse()?, &Ask::RestartPipeline, None)?;
        wait(|| fleet.rollout(&by, RolloutId(3)).is_ok_and(|view| view.waves[1].reached > 2))
    })
    .await??;

    println!("http://{}", service.addresses.operators);
    let password = service.admin_password.as_ref().ok_or("there were users before")?;
    println!("admin");
    println!("{}", fs::read_to_string(password)?.trim());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    players.stop();
    service.stop().await;
    Ok(())
}

fn canary() -> Outcome<RolloutForm> {
    let wave = |size: &str, soak| -> Outcome<WaveForm> {
        Ok(WaveForm {
            size: size.parse::<SizeText>()?,
            done_percent: 95,
            timeout: DurationText(Duration::from_hours(24)),
            soak: DurationText(soak),
        })
    };
    let gate = |measure, threshold, samples: u32| -> Outcome<GateForm> {
        Ok(GateForm {
            measure,
            threshold,
            breaches_percent_max: 5,
            samples_min: samples.try_into()?,
            over_min: DurationText(Duration::from_secs(2)),
        })
    };
    Ok(RolloutForm {
        title: "People 2.4.1 at entrances".to_owned(),
        kind: Kind::Model,
        name: "people".to_owned(),
        version: "2.4.1".to_owned(),
        filter: "tag = entrance or tag = hall".to_owned(),
        waves: vec![
            wave("2", Duration::ZERO)?,
            wave("40%", Duration::from_mins(30))?,
            wave("100%", Duration::from_mins(30))?,
        ],
        gates: Some(vec![
            gate(MeasureName::Outcome, None, 2)?,
            gate(MeasureName::Fps, Some(0.9), 2)?,
            gate(MeasureName::Latency, Some(1.25), 2)?,
            gate(MeasureName::Temperature, Some(85.0), 2)?,
        ]),
        retry: Default::default(),
    })
}

/// Until something has come to be.
fn wait(mut is_so: impl FnMut() -> bool) -> Outcome {
    for _ in 0..600 {
        if is_so() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("the fleet did not come as far as it should".into())
}
