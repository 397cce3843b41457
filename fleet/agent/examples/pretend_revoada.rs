//! A `revoada` without engines, for tests of the agent: it takes the same arguments and speaks on the same socket, and does
//! what the text in its model's file says: `crashes-at-load`, `crashes-at-frame N`, `hangs`, `refuses-swap`, `no-numbers`,
//! `fails-trial`, `builds-no-plan`, `sees-only LABEL`, `finds-boxes`; anything else runs, and sees in a picture what its text
//! says. A plan whose engine is `good` is good.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use revoada_bundle::bundle::{Bundle, Precision, Trust};
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey, PlanSpeed, ShapeRange};
use revoada_bundle::sign::SecretKey;
use revoada_core::{Architecture, Compatibility, DeviceClass, TensorRtFlavour, TensorRtVersion};
use revoada_proto::control::{Command, Request};
use serde_json::{Value, json};

const FRAMES_PER_SECOND: f64 = 200.0;
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--version"] => say("revoada 0.1.0"),
        ["device-facts"] => say(r#"{"class": null, "facts": {"pretended": "yes"}}"#),
        ["build", bundle, ..] => build(Path::new(bundle), &words),
        ["verify", bundle, ..] => verify(Path::new(bundle)),
        ["classify", "--model", model, "--trust", _, "--json", pictures @ ..] => classify(Path::new(model), pictures),
        ["learn", "forget", ..] => forget(&words),
        ["learn", "train", bundle, ..] => learn(Path::new(bundle), &words),
        ["run", ..] if words.contains(&"--print-config") => print_config(Path::new(words[1])),
        ["run", ..] if words.contains(&"--source") => try_model(&words),
        ["run", ..] => run(&words),
        _ => Err("this pretends to be less than that".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn Error>>;

fn say(text: &str) -> Done {
    println!("{text}");
    Ok(())
}

fn verify(bundle: &Path) -> Done {
    Bundle::open(bundle)?.verify(Trust::Anybody)?;
    Ok(())
}

/// Notes above the plan's folder whose plan it made its own.
fn build(bundle: &Path, words: &[&str]) -> Done {
    let target = Path::new(option(words, "--plan").ok_or("where to?")?);
    let engine = match option(words, "--offered") {
        Some(offered) => Plan::read(Path::new(offered))?.payload().to_vec(),
        None if behaviour(bundle)?.contains("builds-no-plan") => return Err("the compiler gives up".into()),
        None => b"good".to_vec(),
    };
    if engine != b"good" {
        return Err("it answers otherwise".into());
    }
    let rows: usize = option(words, "--batch-max").unwrap_or("1").parse()?;
    let speed = PlanSpeed { rows, throughput_per_s: 400.0, latency_ms_median: 2.5, latency_ms_p99: 3.0 };
    let key = PlanKey {
        bundle: Bundle::open(bundle)?.digest(),
        device: DeviceClass {
            module: None,
            architecture: Architecture::new(8, 7),
            multiprocessors: Some(8),
            tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
            cuda: Some([12, 6]),
        },
        compatibility: Compatibility::default(),
        precision: Precision::Fp16,
        profile: BTreeMap::from([("x".to_owned(), ShapeRange::fixed(&[rows]))]),
        dla_core: None,
        builder: "pretended".to_owned(),
    };
    let facts = PlanFacts { speed: Some(speed), ..PlanFacts::default() };
    let plan = Plan::seal(key, facts, engine, &SecretKey::generate()?);
    std::fs::write(target, plan.bytes())?;
    let notes = target.ancestors().nth(2).ok_or("it lies in no folder")?.join("builds");
    let mut notes = std::fs::File::options().create(true).append(true).open(notes)?;
    Ok(writeln!(notes, "{}", if words.contains(&"--offered") { "offered" } else { "own" })?)
}

/// Notes each lesson beside the pictures, where `slow` and `broken` say how the next one goes.
fn learn(bundle: &Path, words: &[&str]) -> Done {
    let path = |name| option(words, name).map(Path::new).ok_or_else(|| format!("{name} is missing"));
    verify(bundle)?;
    let data = path("--data")?;
    std::fs::create_dir_all(data)?;
    let mut notes = std::fs::File::options().create(true).append(true).open(data.join("lessons"))?;
    writeln!(notes, "{}", words.join(" "))?;
    // One lesson is slow, and lasts until it is killed.
    if std::fs::remove_file(data.join("slow")).is_ok() {
        thread::sleep(Duration::from_secs(600));
    }
    if data.join("broken").exists() {
        return Err("there is no picture".into());
    }
    let labels = std::fs::read_to_string(path("--labels")?)?.lines().collect::<Vec<_>>().join(",");
    let epochs = option(words, "--epochs").ok_or("how often?")?;
    let mut learned = std::fs::read(path("--weights")?)?;
    write!(learned, " and {epochs} epochs of {labels}")?;
    std::fs::write(path("--output")?, learned)?;
    say(&json!({ "examples": 30, "train_loss": 0.5, "after": { "loss": 0.6, "accuracy": 0.75 } }).to_string())
}

/// Notes beside the pictures how it was asked. Nobody may keep pictures meanwhile.
fn forget(words: &[&str]) -> Done {
    let data = Path::new(option(words, "--data").ok_or("forget what?")?);
    if data.join("keeps").exists() {
        return Err("pictures are still kept".into());
    }
    std::fs::write(data.join("forgotten"), words.join(" "))?;
    say("erased 1 files made of pictures and 2 pictures, 3 bytes")
}

fn print_config(pipeline: &Path) -> Done {
    let text = std::fs::read_to_string(pipeline)?;
    if text.contains("broken") { Err("this pipeline is broken".into()) } else { say(&text) }
}

fn option<'w>(words: &[&'w str], name: &str) -> Option<&'w str> {
    words.iter().position(|word| *word == name).and_then(|index| words.get(index + 1)).copied()
}

/// What a model's file says, whether it is a bundle's or stands alone.
fn behaviour(model: &Path) -> Result<String, Box<dyn Error>> {
    let file = if model.is_dir() { model.join("model.onnx") } else { model.to_owned() };
    Ok(std::fs::read_to_string(file)?)
}

fn try_model(words: &[&str]) -> Done {
    let behaviour = behaviour(Path::new(option(words, "--model").ok_or("which model?")?))?;
    if behaviour.contains("fails-trial") {
        return Err("the network does not fit".into());
    }
    say(&json!({ "frames_out": 8, "non_finite": 0 }).to_string())
}

fn classify(model: &Path, pictures: &[&str]) -> Done {
    let behaviour = behaviour(model)?;
    let only = behaviour.split_once("sees-only ").map(|(_, label)| label);
    for picture in pictures {
        let text = std::fs::read_to_string(picture)?;
        if text == "damaged" {
            return Err("1 of the pictures failed".into());
        }
        let best = json!({ "class": 0, "label": only.unwrap_or(&text), "score": 0.5 });
        let guesses = if behaviour.contains("finds-boxes") { vec![] } else { vec![best] };
        say(&json!({ "stream": picture, "classifications": guesses }).to_string())?;
    }
    Ok(())
}

struct Running {
    began: Instant,
    /// Of the model that runs, and the frame at which it was swapped to.
    model: (String, u64),
    shadow_began: Option<u64>,
    pipeline: String,
    /// The mark of a track of which pictures are kept.
    keeps: Option<PathBuf>,
    drains: bool,
}

impl Running {
    fn frames(&self) -> u64 {
        let hangs = self.model.0.contains("hangs");
        if hangs { self.model.1 } else { (self.began.elapsed().as_secs_f64() * FRAMES_PER_SECOND) as u64 }
    }
}

fn run(words: &[&str]) -> Done {
    let model = option(words, "--model").map(|model| behaviour(Path::new(model))).transpose()?.unwrap_or_default();
    println!("runs {model}");
    if model.contains("crashes-at-load") {
        return Err("cannot load that".into());
    }
    let socket = PathBuf::from(option(words, "--control").ok_or("which socket?")?);
    if UnixStream::connect(&socket).is_ok() {
        return Err("another pipeline listens there".into());
    }
    drop(std::fs::remove_file(&socket));
    let listener = UnixListener::bind(&socket)?;
    let pipeline = std::fs::read_to_string(words[1])?;
    let model = (model, 0);
    let running = Running { began: Instant::now(), model, shadow_began: None, pipeline, keeps: None, drains: false };
    let running = Arc::new(Mutex::new(running));
    let serving = Arc::clone(&running);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let running = Arc::clone(&serving);
            thread::spawn(move || serve(&stream, &running));
        }
    });
    loop {
        thread::sleep(LOOK_EVERY);
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.drains {
            drop(std::fs::remove_file(&socket));
            return Ok(());
        }
        let (model, since) = &running.model;
        let crash = model.split_once("crashes-at-frame ").and_then(|(_, frame)| frame.split(' ').next()?.parse().ok());
        if crash.is_some_and(|frame: u64| running.frames() - since >= frame) {
            return Err("it crashed".into());
        }
    }
}

fn serve(stream: &UnixStream, running: &Mutex<Running>) {
    let mut writer = stream;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer = match Request::parse(line.as_bytes()) {
            Ok(Request { id, command }) => match answer(command, running) {
                Ok(result) => json!({ "version": 1, "id": id, "result": result }),
                Err(reason) => json!({ "version": 1, "id": id, "error": reason }),
            },
            Err(refusal) => json!({ "version": 1, "id": refusal.id, "error": refusal.reason }),
        };
        if writeln!(writer, "{answer}").is_err() {
            return;
        }
    }
}

fn answer(command: Command, running: &Mutex<Running>) -> Result<Value, String> {
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let frames = running.frames();
    match command {
        Command::Stats => {
            let bad = if running.model.0.contains("no-numbers") { frames } else { 0 };
            let shadow = running.shadow_began.map(|began| {
                let frames = frames - began;
                json!({ "frames": frames, "frames_agreed": frames / 2 })
            });
            Ok(json!({
                "frames_out": frames, "non_finite": bad, "rows_max": 3, "latency": { "total": { "p99_ms": 12.5 } }, "shadow": shadow,
                "pid": std::process::id(), "pipeline": running.pipeline, "model": running.model.0,
                "streams": [{ "id": "door", "state": "running", "frames_out": frames }],
            }))
        }
        Command::Swap { model } => {
            let next = behaviour(&model).map_err(|error| error.to_string())?;
            if next.contains("refuses-swap") {
                return Err("this model cannot be swapped to".to_owned());
            }
            running.model = (next, frames);
            Ok(json!({}))
        }
        Command::Shadow { .. } => {
            running.shadow_began = Some(frames);
            Ok(json!({}))
        }
        Command::EndShadow => running.shadow_began.take().map(|_| json!({})).ok_or("there is none".to_owned()),
        Command::Snapshot { stream, path } if stream == "door" => {
            std::fs::write(path, b"a picture of the door").map_err(|error| error.to_string())?;
            Ok(json!({ "tracks": [{ "track": 7, "label": "parcel" }, { "track": 9 }] }))
        }
        Command::Snapshot { stream, .. } => Err(format!("there is no stream `{stream}`")),
        Command::Label { stream, track: 7, label, folder, count, .. } => {
            let keeps = folder.join("keeps");
            let folder = folder.join(label.as_str());
            let keep = || {
                std::fs::create_dir(&folder)?;
                std::fs::write(folder.join("7.jpg"), format!("one of {count} of {stream}"))?;
                std::fs::write(&keeps, "")
            };
            keep().map_err(|error| error.to_string())?;
            running.keeps = Some(keeps);
            Ok(json!({}))
        }
        Command::Label { track, .. } => Err(format!("there is no track {track}")),
        Command::EndLabels => {
            let ended = running.keeps.take().map(std::fs::remove_file);
            Ok(json!({ "ended": usize::from(ended.is_some()) }))
        }
        Command::Drain => {
            running.drains = true;
            Ok(json!({}))
        }
        other => Err(format!("`{}` is not pretended", other.name())),
    }
}
