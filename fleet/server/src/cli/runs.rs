//! `revoada-fleet runs`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use revoada_bundle::hash_file;
use revoada_core::Digest;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::Client;
use super::failure::Misuse;
use super::rollouts::StepsArgs;
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
    /// Its rounds, from the first on.
    Rounds {
        id: u64,
        #[arg(long)]
        json: bool,
        /// As a table for other programs, to a file or `-`.
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        csv: Option<PathBuf>,
    },
    /// Who takes part in a round, or took.
    Participants {
        id: u64,
        round: u64,
        #[arg(long)]
        json: bool,
    },
    /// Save what was learned, in the safetensors format.
    Weights {
        id: u64,
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Those that this round has made: of a long run the first and the newest are kept.
        #[arg(long, value_name = "N")]
        round: Option<u64>,
    },
    /// Learn together: invite participants, round after round.
    #[command(after_help = "Examples:\n  \
        revoada-fleet runs start --rounds 10 --min 3 --watch\n  \
        revoada-fleet runs start --strategy FedAdam --option eta=0.05 --config epochs=2 --sample 10%\n  \
        revoada-fleet runs start --strategy Krum --option num_malicious_nodes=2 --quorum 7\n  \
        revoada-fleet runs start --model digits --model-version 1 --rounds 30 --config epochs=2 --watch\n  \
        revoada-fleet runs start --model digits --model-version 1 --pictures digits --release 2 --roll-out\n  \
        revoada-fleet runs start --app app.fab --app-id anna/digits --app-version 1.0.0 --weights first.safetensors")]
    Start(Box<StartArgs>),
    /// Say whenever something changes, until it is over; fails where it did not finish.
    Watch { id: u64 },
    /// Begin no new round.
    Pause { id: u64 },
    /// Go on with one that was paused.
    Resume { id: u64 },
    /// End one for good.
    Stop { id: u64 },
    /// Register what devices have learned as a version of the model that they learn the head of.
    Release {
        id: u64,
        /// What people call it.
        #[arg(long, value_name = "VERSION")]
        version: String,
        #[arg(long)]
        json: bool,
    },
    /// Forget one that is over.
    Remove { id: u64 },
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi, FedMedian, FedTrimmedAvg, Krum or MultiKrum.
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Of the strategy, by the name that Flower gives it; may be given again.
    #[arg(long = "option", value_name = "NAME=NUMBER", requires = "strategy")]
    options: Vec<String>,
    /// A round begins once so many participants are there.
    #[arg(long, value_name = "N")]
    min: Option<usize>,
    /// With fewer updates a round is called off.
    #[arg(long, value_name = "N")]
    quorum: Option<usize>,
    /// With so many updates a round does not wait for others.
    #[arg(long, value_name = "N")]
    enough: Option<usize>,
    /// Who is invited of those that are there: all, a number, or a share such as 10%.
    #[arg(long, value_name = "SAMPLE")]
    sample: Option<String>,
    /// A round takes no longer.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// From a round to the next.
    #[arg(long, value_name = "DURATION")]
    pause: Option<String>,
    /// Not before, such as 2026-05-04T22:00:00Z.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// An update that differs from the weights by more (Euclidean norm) is refused.
    #[arg(long, value_name = "NORM")]
    norm_max: Option<f64>,
    /// Do not ask participants how good the new weights are.
    #[arg(long)]
    no_evaluate: bool,
    /// For the programs that learn: a boolean, a number, a text; may be given again.
    #[arg(long = "config", value_name = "NAME=VALUE")]
    config: Vec<String>,
    /// Clip updates to this norm, and add noise: central differential privacy.
    #[arg(long, value_name = "NORM", requires_all = ["noise", "delta"])]
    clip: Option<f64>,
    /// The clipping norm follows this quantile of the updates' norms.
    #[arg(long, value_name = "QUANTILE", requires = "clip")]
    clip_quantile: Option<f64>,
    /// Standard deviation of the noise, as a multiple of the clipping norm.
    #[arg(long, value_name = "MULTIPLE", requires = "clip")]
    noise: Option<f64>,
    /// At which ε is reported.
    #[arg(long, value_name = "DELTA", requires = "clip")]
    delta: Option<f64>,
    /// Have devices learn the head of this registered model, and no clients of Flower.
    #[arg(long, value_name = "NAME", requires = "model_version", conflicts_with = "app")]
    model: Option<String>,
    #[arg(long, value_name = "VERSION", requires = "model")]
    model_version: Option<String>,
    /// Which devices.
    #[arg(long, value_name = "FILTER", requires = "model")]
    filter: Option<String>,
    /// What there is to be told apart, where it is not what the model tells apart; may be given again.
    #[arg(long = "label", value_name = "LABEL", requires = "model")]
    labels: Vec<String>,
    /// Judge the weights after each round by the service's own labelled pictures: a set of this name.
    #[arg(long, value_name = "SET", requires = "model")]
    pictures: Option<String>,
    /// Register what was learned as this version once the run has ended, if it is right about more of the pictures.
    #[arg(long, value_name = "VERSION", requires = "pictures")]
    release: Option<String>,
    /// By how much more of the pictures it has to be right about, 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "release")]
    gain: Option<f64>,
    /// Roll out what was released, to the devices that were asked to learn.
    #[arg(long, requires = "release")]
    roll_out: bool,
    #[command(flatten)]
    steps: StepsArgs,
    /// The weights to begin with: a safetensors file. A client is asked where there is none.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What SuperNodes of Flower run: a file that `flwr build` wrote.
    #[arg(long, value_name = "FILE", requires_all = ["app_id", "app_version"])]
    app: Option<PathBuf>,
    /// `publisher/name`, as in its pyproject.toml.
    #[arg(long, value_name = "ID", requires = "app")]
    app_id: Option<String>,
    #[arg(long, value_name = "VERSION", requires = "app")]
    app_version: Option<String>,
    /// All of it as JSON, as the REST API takes it.
    #[arg(long, value_name = "FILE", exclusive = true)]
    file: Option<PathBuf>,
    /// Say whenever something changes, until it is over.
    #[arg(long)]
    watch: bool,
}

impl StartArgs {
    fn form(&self, client: &Client) -> anyhow::Result<Value> {
        if let Some(path) = &self.file {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            return serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON", path.display()));
        }
        let mut form = json!({});
        let given = [
            ("title", self.title.as_ref().map(|it| json!(it))),
            ("rounds", self.rounds.map(|it| json!(it))),
            ("participants_min", self.min.map(|it| json!(it))),
            ("quorum", self.quorum.map(|it| json!(it))),
            ("enough", self.enough.map(|it| json!(it))),
            ("sample", self.sample.as_ref().map(|it| json!(it))),
            ("round_timeout", self.timeout.as_ref().map(|it| json!(it))),
            ("pause", self.pause.as_ref().map(|it| json!(it))),
            ("starts_at", self.at.as_ref().map(|it| json!(it))),
            ("norm_max", self.norm_max.map(|it| json!(it))),
            ("evaluate", self.no_evaluate.then_some(json!(false))),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                form[name] = value;
            }
        }
        if let Some(name) = &self.strategy {
            form["strategy"] = json!({ "name": name });
            for (name, value) in pairs("--option", &self.options)? {
                form["strategy"][name] = value;
            }
        }
        for (name, value) in pairs("--config", &self.config)? {
            form["config"][name] = value;
        }
        if let Some(norm) = self.clip {
            form["privacy"] = json!({ "clipping_norm": norm, "noise_multiplier": self.noise, "delta": self.delta });
            if let Some(quantile) = self.clip_quantile {
                form["privacy"]["target_quantile"] = json!(quantile);
            }
        }
        if let Some(model) = &self.model {
            form["devices"] = json!({ "model": model, "version": self.model_version, "labels": self.labels });
            if let Some(filter) = &self.filter {
                form["devices"]["filter"] = json!(filter);
            }
        }
        if let Some(set) = &self.pictures {
            form["pictures"] = json!(set);
        }
        if let Some(version) = &self.release {
            form["release"] = json!({ "version": version });
            if let Some(gain) = self.gain {
                form["release"]["gain_min"] = json!(gain);
            }
        }
        let mut rollout = json!({});
        self.steps.fill(&mut rollout)?;
        match (self.roll_out, rollout.as_object().is_some_and(|steps| !steps.is_empty())) {
            (true, _) => form["release"]["rollout"] = rollout,
            (false, true) => {
                return Err(Misuse("`--wave` and `--gate` are of a rollout: add `--roll-out`".to_owned()).into());
            }
            (false, false) => {}
        }
        if let Some(path) = &self.weights {
            form["weights"] = json!(upload(client, path)?.to_string());
        }
        if let Some(path) = &self.app {
            let digest = upload(client, path)?.to_string();
            form["app"] = json!({ "digest": digest, "id": self.app_id, "version": self.app_version });
        }
        Ok(form)
    }
}

/// `name=value`, where a value that is no JSON is a text.
fn pairs<'a>(option: &str, texts: &'a [String]) -> Result<Vec<(&'a str, Value)>, Misuse> {
    let pair = |text: &'a String| {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Misuse(format!("`{option} {text}` is not like `epochs=2`")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        Ok((name, if value.is_object() || value.is_array() { json!(value.to_string()) } else { value }))
    };
    texts.iter().map(pair).collect()
}

/// Makes a blob of a file, unless the service has it.
fn upload(client: &Client, path: &Path) -> anyhow::Result<Digest> {
    let (digest, bytes) = hash_file(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    models::upload(client, path, digest, bytes)?;
    Ok(digest)
}

pub(crate) fn run(verb: &Verb, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    let post = |id: &u64, act: &str| client.post(&["runs", &id.to_string(), act], &json!({})).map(drop);
    match verb {
        Verb::List { json } => {
            let answer = client.get(&["runs"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/id", "/title", "/strategy", "/phase", "/round", "/rounds", "/status"];
            say(&table(&["id", "title", "strategy", "phase", "round", "of", "status"], &rows(&answer, &columns)))
        }
        Verb::Show { id, json } => {
            let answer = client.get(&["runs", &id.to_string()], &[])?;
            if *json { say_json(&answer) } else { say(&members(&answer)) }
        }
        Verb::Rounds { id, json: _, csv: Some(path) } => {
            let request = client.request(Method::GET, &["runs", &id.to_string(), "rounds.csv"], &[])?;
            let text = client.run(request.body(())?)?.body_mut().read_to_string()?;
            if path == Path::new("-") {
                return Ok(std::io::stdout().write_all(text.as_bytes())?);
            }
            fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
        }
        Verb::Rounds { id, json, csv: None } => {
            let answer = client.get(&["runs", &id.to_string(), "rounds"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/round", "/status", "/invited", "/updates", "/refused", "/examples", "/epsilon"];
            let mut lines = rows(&answer, &columns);
            for (line, round) in lines.iter_mut().zip(answer.as_array().into_iter().flatten()) {
                line.push(figures(&round["fit"]));
                line.push(figures(&round["evaluation"]));
                line.push(figures(&round["judged"]));
            }
            let head =
                ["round", "status", "invited", "updates", "refused", "examples", "ε", "fit", "evaluation", "judged"];
            say(&table(&head, &lines))
        }
        Verb::Participants { id, round, json } => {
            let path = ["runs", &id.to_string(), "rounds", &round.to_string(), "participants"];
            let answer = client.get(&path, &[])?;
            if *json {
                return say_json(&answer);
            }
            let columns = ["/participant", "/status", "/refusals", "/bytes", "/seconds", "/norm", "/why"];
            let head = ["participant", "status", "refusals", "bytes", "seconds", "norm", "why"];
            say(&table(&head, &rows(&answer, &columns)))
        }
        Verb::Weights { id, output, round } => {
            let round = round.map(|round| round.to_string());
            let query: Vec<(&str, &str)> = round.iter().map(|round| ("round", round.as_str())).collect();
            client.save(&["runs", &id.to_string(), "weights"], &query, output)?;
            say(&format!("wrote {}", output.display()))
        }
        Verb::Start(args) => {
            let answer = client.post(&["runs"], &args.form(&client)?)?;
            let id = answer["id"].as_u64().context("the service names no run")?;
            say(&format!("run {id} was added"))?;
            if args.watch { watch(&client, id) } else { Ok(()) }
        }
        Verb::Watch { id } => watch(&client, *id),
        Verb::Pause { id } => post(id, "pause"),
        Verb::Resume { id } => post(id, "resume"),
        Verb::Stop { id } => post(id, "stop"),
        Verb::Release { id, version, json } => {
            let answer = client.post(&["runs", &id.to_string(), "release"], &json!({ "version": version }))?;
            if *json {
                return say_json(&answer);
            }
            let name = text(&answer["name"]);
            say(&format!("registered {name} {version}; `revoada-fleet rollouts start {name} {version}` deploys it"))
        }
        Verb::Remove { id } => client.delete(&["runs", &id.to_string()]).map(drop),
    }
}

fn figures(of: &Value) -> String {
    let figure = |figure: &Value| Some(format!("{} {:.4}", figure["name"].as_str()?, figure["value"].as_f64()?));
    of.as_array().into_iter().flatten().filter_map(figure).collect::<Vec<_>>().join(", ")
}

fn watch(client: &Client, id: u64) -> anyhow::Result<()> {
    let (mut said, mut told) = (String::new(), 0);
    loop {
        let run = client.get(&["runs", &id.to_string()], &[])?;
        let rounds = client.get(&["runs", &id.to_string(), "rounds"], &[])?;
        for round in rounds.as_array().into_iter().flatten().skip(told) {
            let is_over = run["phase"] != "learning" && run["phase"] != "evaluating";
            let number = round["round"].as_u64().unwrap_or_default();
            if round["ended_at"].is_null() || (!is_over && Some(number) == run["round"].as_u64()) {
                break;
            }
            told += 1;
            let (status, updates) = (text(&round["status"]), &round["updates"]);
            let mut line = format!("round {number} {status}: {updates} updates");
            for (what, of) in [("", "fit"), ("evaluated: ", "evaluation"), ("judged: ", "judged")] {
                let figures = figures(&round[of]);
                if !figures.is_empty() {
                    line += &format!("; {what}{figures}");
                }
            }
            if let Some(why) = round["not_judged"].as_str() {
                line += &format!("; not judged: {why}");
            }
            say(&line)?;
        }
        let status = text(&run["status"]);
        if status != said && run["phase"] == "waiting" {
            say(&format!("waiting: {status}"))?;
        }
        said = status;
        match run["phase"].as_str() {
            Some("finished") => return say(&said),
            Some("stopped" | "failed") => bail!("run {id} {said}"),
            _ => thread::sleep(ASK_EVERY),
        }
    }
}
