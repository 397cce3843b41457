//! `revoada-fleet rollouts`.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Misuse;
use super::terminal::{members, rows, say, say_json, table, text};
use super::{Access, models};

const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// All of them, the newest first.
    List {
        #[arg(long)]
        json: bool,
    },
    /// One, and how far it is.
    Show {
        id: u64,
        #[arg(long)]
        json: bool,
    },
    /// Its devices, and why each is where it is.
    Devices {
        id: u64,
        #[arg(long, value_name = "DEVICE")]
        after: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Bring a version to devices: one canary, a tenth, everybody, where nothing else is said.
    #[command(after_help = "Examples:\n  \
        revoada-fleet rollouts start faces 2 --filter 'tag = entrance' --wave 1 --wave 25% --wave 100% --soak 30m\n  \
        revoada-fleet rollouts start faces 2 --gate outcome --gate fps=0.9 --gate agreement=0.8 --watch\n  \
        revoada-fleet rollouts start --file rollout.json")]
    Start(Box<StartArgs>),
    /// Say whenever something changes, until it has ended; fails where it did not finish.
    Watch { id: u64 },
    /// Give no new orders, but for rollbacks.
    Pause { id: u64 },
    /// Go on with one that was paused.
    Resume { id: u64 },
    /// End one for good.
    Abort {
        id: u64,
        /// Order its devices back to what ran before.
        #[arg(long)]
        rollback: bool,
    },
    /// Forget one; its devices keep what they have.
    Remove { id: u64 },
}

/// In which waves, and what has to hold for the next.
#[derive(Debug, clap::Args)]
pub(super) struct StepsArgs {
    /// A number of devices or a share such as 10%, counted with the waves before; may be given again.
    #[arg(long = "wave", value_name = "SIZE")]
    waves: Vec<String>,
    /// How long each wave is watched before the next.
    #[arg(long, value_name = "DURATION", requires = "waves")]
    soak: Option<String>,
    /// outcome, restarts=PER_HOUR, fps=SHARE, latency=SHARE, agreement=SHARE, accuracy=SHARE (of a classifier on the
    /// device's labelled pictures) or temperature=CELSIUS; may be given again.
    #[arg(long = "gate", value_name = "GATE")]
    gates: Vec<String>,
    /// A device's figures count for gates once they cover so long.
    #[arg(long, value_name = "DURATION", requires = "gates")]
    over: Option<String>,
    /// Share of the devices, in percent, that may miss a gate.
    #[arg(long, value_name = "PERCENT", requires = "gates")]
    breaches: Option<u8>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// What was registered.
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    #[arg(required_unless_present = "file")]
    version: Option<String>,
    #[arg(long, value_enum, default_value_t = models::Kind::Model)]
    kind: models::Kind,
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Which devices.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    #[command(flatten)]
    steps: StepsArgs,
    /// A wave is complete after so long, if any device runs it.
    #[arg(long, value_name = "DURATION", requires = "waves")]
    timeout: Option<String>,
    /// Orders to one device before it is given up.
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// All of it as JSON, as the REST API takes it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "version", "title", "filter", "waves", "gates", "attempts"])]
    file: Option<PathBuf>,
    /// Say whenever something changes, until it has ended.
    #[arg(long)]
    watch: bool,
}

impl StartArgs {
    fn form(&self) -> anyhow::Result<Value> {
        if let Some(path) = &self.file {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            return serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON", path.display()));
        }
        let mut form = json!({ "kind": self.kind.name(), "name": self.name, "version": self.version });
        if let Some(title) = &self.title {
            form["title"] = json!(title);
        }
        if let Some(filter) = &self.filter {
            form["filter"] = json!(filter);
        }
        if let Some(attempts) = self.attempts {
            form["retry"] = json!({ "attempts_max": attempts });
        }
        self.steps.fill(&mut form)?;
        if let Some(timeout) = &self.timeout {
            for wave in form["waves"].as_array_mut().into_iter().flatten() {
                wave["timeout"] = json!(timeout);
            }
        }
        Ok(form)
    }
}

impl StepsArgs {
    pub(super) fn fill(&self, form: &mut Value) -> Result<(), Misuse> {
        if !self.waves.is_empty() {
            let wave = |size: &String| match &self.soak {
                Some(soak) => json!({ "size": size, "soak": soak }),
                None => json!({ "size": size }),
            };
            form["waves"] = self.waves.iter().map(wave).collect();
        }
        if !self.gates.is_empty() {
            form["gates"] = self.gates.iter().map(|gate| self.gate(gate)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn gate(&self, text: &str) -> Result<Value, Misuse> {
        let (measure, threshold) = match text.split_once('=') {
            Some((measure, threshold)) => {
                let wrong = || Misuse(format!("`--gate {text}` is not like `fps=0.9`"));
                (measure, Some(threshold.parse::<f64>().map_err(|_| wrong())?))
            }
            None => (text, None),
        };
        let mut gate = json!({ "measure": measure });
        if let Some(threshold) = threshold {
            gate["threshold"] = json!(threshold);
        }
        if let Some(over) = &self.over {
            gate["over_min"] = json!(over);
        }
        if let Some(breaches) = self.breaches {
            gate["breaches_percent_max"] = json!(breaches);
        }
        Ok(gate)
    }
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    let post = |id: &u64, act: &str, body: Value| client.post(&["rollouts", &id.to_string(), act], &body).map(drop);
    match verb {
        Verb::List { json } => {
            let answer = client.get(&["rollouts"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/id", "/title", "/phase", "/progress/reached", "/progress/devices", "/status"];
            say(&table(&["id", "title", "phase", "reached", "of", "status"], &rows(&answer, &columns)))
        }
        Verb::Show { id, json } => {
            let answer = client.get(&["rollouts", &id.to_string()], &[])?;
            if *json { say_json(&answer) } else { say(&members(&answer)) }
        }
        Verb::Devices { id, after, json } => {
            let query: Vec<(&str, &str)> = after.as_deref().map(|after| ("after", after)).into_iter().collect();
            let answer = client.get(&["rollouts", &id.to_string(), "devices"], &query)?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/device", "/wave", "/attempts", "/standing"];
            say(&table(&["device", "wave", "attempts", "standing"], &rows(&answer, &columns)))
        }
        Verb::Start(args) => {
            let answer = client.post(&["rollouts"], &args.form()?)?;
            let id = answer["id"].as_u64().context("the service names no rollout")?;
            say(&format!("rollout {id} has begun"))?;
            if args.watch { watch(&client, id) } else { Ok(()) }
        }
        Verb::Watch { id } => watch(&client, *id),
        Verb::Pause { id } => post(id, "pause", json!({})),
        Verb::Resume { id } => post(id, "resume", json!({})),
        Verb::Abort { id, rollback } => post(id, "abort", json!({ "rolls_back": rollback })),
        Verb::Remove { id } => client.delete(&["rollouts", &id.to_string()]).map(drop),
    }
}

fn watch(client: &Client, id: u64) -> anyhow::Result<()> {
    let mut said = String::new();
    loop {
        let rollout = client.get(&["rollouts", &id.to_string()], &[])?;
        let progress = &rollout["progress"];
        let (phase, status) = (text(&rollout["phase"]), text(&rollout["status"]));
        // Of one that has ended, the status begins with how.
        let line = if status.starts_with(&phase) { status } else { format!("{phase}: {status}") };
        if line != said && rollout["phase"] != "new" {
            say(&line)?;
            said = line;
        }
        let is_settled = progress["in_flight"] == 0 && progress["waiting"] == 0;
        match rollout["phase"].as_str() {
            Some("finished") => return Ok(()),
            Some(phase @ ("halted" | "aborted" | "superseded")) if is_settled => match rollout["why"].as_str() {
                Some(why) => bail!("rollout {id} is {phase}: {why}"),
                None => bail!("rollout {id} is {phase}"),
            },
            _ => thread::sleep(ASK_EVERY),
        }
    }
}
