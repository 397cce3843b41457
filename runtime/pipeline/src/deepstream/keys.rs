//! Every key of DeepStream's files that is known here, with its default and what becomes of it. The readers, their
//! messages and the page `KEYS.md` are all made from these tables.

/// Which of DeepStream's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    App,
    Infer,
    Tracker,
    Analytics,
}

/// A group, by its name: `#` stands for a number, which may be missing.
pub(super) struct GroupRule {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// What holds for the whole group, where its keys do not matter.
    pub(super) whole: Option<Fate>,
    /// Whether `enable=1` has to stand in it for it to count.
    pub(super) has_enable: bool,
    pub(super) keys: &'static [KeyRule],
}

/// A key, by its name: `#` stands for a number and `*` for any text.
pub(super) struct KeyRule {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// As DeepStream has it; empty where it has none.
    pub(super) default: &'static str,
    pub(super) fate: Fate,
}

/// What a key's value is. Lists are separated by `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch,
    Integer,
    Number,
    Text,
    Path,
    Integers,
    Numbers,
    Texts,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is honoured: these words name the key of ours.
    Becomes(&'static str),
    /// It has no effect, because of this.
    Nothing(&'static str),
    /// It cannot be honoured, and running without it would be another pipeline; what to do. Its default is no matter.
    Refused(&'static str),
}

use Fate::{Becomes, Nothing, Refused};
use Value::{Integer, Integers, Number, Numbers, Path, Switch, Text, Texts};

const fn key(name: &'static str, value: Value, default: &'static str, fate: Fate) -> KeyRule {
    KeyRule { name, value, default, fate }
}

const fn group(kind: Kind, name: &'static str, has_enable: bool, keys: &'static [KeyRule]) -> GroupRule {
    GroupRule { kind, name, whole: None, has_enable, keys }
}

const fn whole(kind: Kind, name: &'static str, fate: Fate) -> GroupRule {
    GroupRule { kind, name, whole: Some(fate), has_enable: true, keys: &[] }
}

const GPU: Fate = Nothing("there is one GPU, the backend's");
const MEMORY: Fate = Nothing("the kind of memory is chosen by the device");
const HARDWARE: Fate = Nothing("what copies and scales is chosen by the device");
const MUX: Fate = Nothing("frames are batched as they are, each in its own size");
const STYLE: Fate = Nothing("lines and letters are sized by the picture, and colours chosen by the class");
const PLUGIN: Fate = Nothing("no library of DeepStream is loaded");
const AUDIO: Fate = Refused("there is no audio here; leave the group out or set `enable=0`");
const OWN_ENCODER: Fate = Nothing("the device's encoder is used where there is one, with its own settings");
const PLAN: Fate = Nothing("plans are made by `revoada build`, which has options for what is to be chosen");
const CAFFE: Fate = Refused("Caffe's models are not read; export the model as ONNX and name it in `onnx-file`");
const UFF: Fate = Refused("UFF models are not read; export the model as ONNX and name it in `onnx-file`");
const ETLT: Fate = Refused(
    "encrypted TAO models are not read; export the model with `tao … export` as ONNX and name it in `onnx-file`",
);
const DUMP: Fate = Nothing("tensors are not dumped; `revoada build` compares them with the reference");
const REID: Fate = Nothing("objects are told apart by their motion alone");

/// A `[sourceN]`, and with `[source-attr-all]` what holds for every source of the list.
const SOURCE: &[KeyRule] = &[
    key("enable", Switch, "0", Becomes("a `[[stream]]`; its index is the number of enabled ones before it")),
    key("type", Integer, "", Becomes("1 `v4l2://`, 2 `uri`, 3 `uri` `num-sources` times, 4 `rtsp://`, 5 `csi://`")),
    key("uri", Text, "", Becomes("`stream.uri`; `%d` of type 3 counts from 0")),
    key("num-sources", Integer, "1", Becomes("that many `[[stream]]` with type 3")),
    key("camera-width", Integer, "0", Becomes("`stream.camera.width`")),
    key("camera-height", Integer, "0", Becomes("`stream.camera.height`")),
    key("camera-fps-n", Integer, "0", Becomes("`stream.camera.fps`, divided by `camera-fps-d` and rounded")),
    key("camera-fps-d", Integer, "1", Becomes("`stream.camera.fps`")),
    key("camera-csi-sensor-id", Integer, "0", Becomes("the number in `csi://0`")),
    key("camera-v4l2-dev-node", Integer, "0", Becomes("the number in `v4l2:///dev/video0`")),
    key("latency", Integer, "100", Becomes("`stream.rtsp.latency_ms`")),
    key("select-rtp-protocol", Integer, "0", Becomes("`stream.rtsp.transport`: 4 `tcp`, 1 `udp`, else `auto`")),
    key("set-rtp-protocol", Integer, "0", Becomes("the same, as older versions spell it")),
    key("drop-frame-interval", Integer, "0", Becomes("`stream.interval`, times `interval` of the model")),
    key(
        "rtsp-reconnect-interval-sec",
        Integer,
        "0",
        Becomes("`stream.reconnect.stall_ms`; 0 is our 5 s, since every lost camera is tried again"),
    ),
    key("rtsp-reconnect-attempts", Integer, "-1", Becomes("`stream.reconnect.attempts_max`; -1: for ever")),
    key("file-loop", Switch, "0", Becomes("`stream.repeat = \"forever\"`")),
    key("camera-id", Integer, "", Nothing("a stream is called `source0`, or as `sensor-id-list` says")),
    key("source-id", Integer, "", Nothing("a stream is called `source0`, or as `sensor-id-list` says")),
    key(
        "init-rtsp-reconnect-interval-sec",
        Integer,
        "0",
        Nothing("each stream has a back-off of its own, from 0.5 s to 30 s"),
    ),
    key("drop-on-latency", Switch, "0", Nothing("a live stream drops its oldest frame at `stream.queue_frames_max`")),
    key("leaky", Integer, "0", Nothing("a live stream drops its oldest frame at `stream.queue_frames_max`")),
    key("max-size-buffers", Integer, "0", Nothing("`stream.queue_frames_max` bounds the queue")),
    key("live-source", Switch, "0", Nothing("whether a source is live is known from its address")),
    key("buffer-mode", Integer, "", Nothing("the jitter buffer is bounded by the latency alone")),
    key("udp-buffer-size", Integer, "", Nothing("the system's size of sockets is kept")),
    key("simulate-fps-interval-ms", Integer, "0", Nothing("files run as fast as they are inferred")),
    key(
        "intra-decode-enable",
        Switch,
        "0",
        Nothing("every frame is decoded; `drop-frame-interval` skips them behind the decoder"),
    ),
    key(
        "dec-skip-frames",
        Integer,
        "0",
        Nothing("every frame is decoded; `drop-frame-interval` skips them behind the decoder"),
    ),
    key("low-latency-decode", Switch, "0", Nothing("the decoder keeps no more frames than the video's order needs")),
    key("num-decode-surfaces", Integer, "", MEMORY),
    key("num-extra-surfaces", Integer, "", MEMORY),
    key("cudadec-memtype", Integer, "0", MEMORY),
    key("nvbuf-memory-type", Integer, "0", MEMORY),
    key("gpu-id", Integer, "0", GPU),
    key("copy-hw", Integer, "", HARDWARE),
    key("video-format", Text, "", Nothing("the camera's own format is taken")),
    key("sensorID-padID-mapping", Switch, "0", Nothing("streams are numbered in the order of the file")),
    key("extract-sei-type5-data", Switch, "0", Nothing("side data of the video is not read")),
    key("sei-uuid", Text, "", Nothing("side data of the video is not read")),
    key("alsa-device", Text, "", AUDIO),
    key(
        "smart-record",
        Integer,
        "0",
        Becomes(
            "a `[[sink]]` of type `recording`: 2 at the events of `[analytics]`, 1 where `revoada ctl record` asks for it",
        ),
    ),
    key("smart-rec-dir-path", Text, "", Becomes("`sink.folder`, which must be there")),
    key("smart-rec-file-prefix", Text, "", Nothing("recordings are named by their stream, time and event")),
    key("smart-rec-start-time", Integer, "", Becomes("`sink.before_s`")),
    key("smart-rec-cache", Integer, "", Becomes("the same, where there is no `smart-rec-start-time`")),
    key("smart-rec-video-cache", Integer, "", Becomes("the same, as older versions spell it")),
    key("smart-rec-duration", Integer, "", Becomes("`sink.after_s`")),
    key("smart-rec-default-duration", Integer, "", Becomes("the same, where there is no `smart-rec-duration`")),
    key("smart-rec-container", Integer, "0", Becomes("`sink.container`: 0 `mp4`, 1 `mkv`")),
    key("smart-rec-interval", Integer, "", Nothing("recordings begin with events, and not by the clock")),
];

const GIE: &[KeyRule] = &[
    key("enable", Switch, "0", Becomes("whether there is a `[model]`, or a `[[secondary]]`")),
    key("config-file", Path, "", Becomes("the keys of the nvinfer file, below")),
    key("config-file-path", Path, "", Becomes("the same, as some YAML files spell it")),
    key(
        "plugin-type",
        Integer,
        "0",
        Refused("nvinferserver (1) is not spoken to; name an nvinfer file with an `onnx-file`"),
    ),
    key("batch-size", Integer, "", Becomes("`batch.frames_max`, or `secondary.batch_max`")),
    key("interval", Integer, "0", Becomes("`stream.interval = interval + 1`: the frames between are in no output")),
    key("gie-unique-id", Integer, "", Becomes("what `operate-on-gie-id` names")),
    key("operate-on-gie-id", Integer, "-1", Becomes("a check: a `[[secondary]]` reads what the first model finds")),
    key("operate-on-class-ids", Integers, "", Becomes("`secondary.on`, by the labels of the first model")),
    key("labelfile-path", Path, "", Becomes("`model.labels`, in place of the nvinfer file's")),
    key("model-engine-file", Path, "", PLAN),
    key("bbox-border-color#", Numbers, "", STYLE),
    key("bbox-bg-color#", Numbers, "", STYLE),
    key("gpu-id", Integer, "0", GPU),
    key("nvbuf-memory-type", Integer, "0", MEMORY),
    key("input-tensor-meta", Switch, "0", Refused("tensors are prepared by the staging of the model; leave it 0")),
    key("infer-raw-output-dir", Text, "", DUMP),
];

const CLASS: &[KeyRule] = &[
    key(
        "pre-cluster-threshold",
        Number,
        "0.2",
        Becomes("`output.score_min`, and `model.class.score_min` where classes differ; above 1 `model.class.drop`"),
    ),
    key("threshold", Number, "0.2", Becomes("the same, as older versions spell it")),
    key("post-cluster-threshold", Number, "0", Becomes("the same, where it is higher")),
    key(
        "nms-iou-threshold",
        Number,
        "0.3",
        Becomes("`output.nms_iou_max`, with cluster-mode 2; that of one class has no effect"),
    ),
    key("topk", Integer, "-1", Becomes("`model.class.results_max`")),
    key("detected-min-w", Integer, "0", Becomes("`model.class.width_min`")),
    key("detected-min-h", Integer, "0", Becomes("`model.class.height_min`")),
    key("detected-max-w", Integer, "0", Becomes("`model.class.width_max`; 0: none")),
    key("detected-max-h", Integer, "0", Becomes("`model.class.height_max`; 0: none")),
    key("eps", Number, "0", Nothing("boxes are suppressed, not clustered")),
    key("group-threshold", Integer, "0", Nothing("boxes are suppressed, not clustered")),
    key("minBoxes", Integer, "0", Nothing("boxes are suppressed, not clustered")),
    key("dbscan-min-score", Number, "0", Nothing("boxes are suppressed, not clustered")),
    key(
        "roi-top-offset",
        Integer,
        "0",
        Nothing("results are not cut by height; a region of `[analytics]` counts them"),
    ),
    key(
        "roi-bottom-offset",
        Integer,
        "0",
        Nothing("results are not cut by height; a region of `[analytics]` counts them"),
    ),
    key("border-color", Numbers, "", STYLE),
    key("bg-color", Numbers, "", STYLE),
];

pub(super) const GROUPS: &[GroupRule] = &[
    group(
        Kind::App,
        "application",
        false,
        &[
            key("enable-perf-measurement", Switch, "0", Becomes("`[perf]`")),
            key("perf-measurement-interval-sec", Integer, "5", Becomes("`perf.interval_s`")),
            key("gie-kitti-output-dir", Path, "", Becomes("a `kitti` sink")),
            key("kitti-track-output-dir", Path, "", Becomes("a `kitti` sink with `tracks = true`")),
            key("reid-track-output-dir", Text, "", REID),
            key("terminated-track-output-dir", Text, "", Nothing("a track that ends is in no file of its own")),
            key("shadow-track-output-dir", Text, "", Nothing("a track that is not seen is in no file")),
            key("global-gpu-id", Integer, "0", GPU),
        ],
    ),
    group(
        Kind::App,
        "source-list",
        false,
        &[
            key("num-source-bins", Integer, "", Becomes("how many addresses of `list` are streams")),
            key("list", Texts, "", Becomes("a `[[stream]]` each; `csi:0` and `usb:0` are cameras")),
            key("sensor-id-list", Texts, "", Becomes("`stream.id`")),
            key("sensor-name-list", Texts, "", Nothing("a stream has one name, its id")),
            key("max-batch-size", Integer, "", Becomes("`batch.frames_max`, where nothing else says it")),
            key("sgie-batch-size", Integer, "", Becomes("`secondary.batch_max`, where nothing else says it")),
            key("use-nvmultiurisrcbin", Switch, "0", Nothing("streams are added and removed by `revoada ctl reload`")),
            key("http-ip", Text, "", Nothing("streams are added and removed by `revoada ctl reload`")),
            key("http-port", Text, "", Nothing("streams are added and removed by `revoada ctl reload`")),
            key("stream-name-display", Switch, "0", Nothing("the page shows each stream's name")),
            key("dummy-payload", Switch, "0", Nothing("a frame without objects has a message, too")),
            key(
                "low-latency-mode",
                Switch,
                "0",
                Nothing("the decoder keeps no more frames than the video's order needs"),
            ),
            key(
                "enable-error-propagation",
                Switch,
                "0",
                Nothing("a stream that fails is told and does not end the others"),
            ),
            key("extract-sei-type5-data", Switch, "0", Nothing("side data of the video is not read")),
            key("sei-uuid", Text, "", Nothing("side data of the video is not read")),
            key("custom-ts-to-rfc", Switch, "0", Nothing("messages have the time of their frame's end")),
            key("batched-sensor-name", Switch, "0", Nothing("a stream has one name, its id")),
            key("proto-lib", Text, "", Nothing("streams do not come from a broker")),
            key("conn-str", Text, "", Nothing("streams do not come from a broker")),
            key("topic", Text, "", Nothing("streams do not come from a broker")),
        ],
    ),
    group(Kind::App, "source-attr-all", true, SOURCE),
    group(
        Kind::App,
        "source",
        false,
        &[key(
            "csv-file-path",
            Path,
            "",
            Becomes("a `[sourceN]` for each line of that file, whose first line names their keys"),
        )],
    ),
    group(Kind::App, "source#", true, SOURCE),
    group(
        Kind::App,
        "streammux",
        false,
        &[
            key("batch-size", Integer, "", Becomes("`batch.frames_max`, where the model does not say it")),
            key(
                "batched-push-timeout",
                Integer,
                "-1",
                Becomes("`batch.wait_ms`, rounded up; -1 is our 10 ms, since no batch waits for ever"),
            ),
            key("enable", Switch, "1", Nothing("there is always a mux")),
            key("width", Integer, "", MUX),
            key("height", Integer, "", MUX),
            key("enable-padding", Switch, "0", MUX),
            key("buffer-pool-size", Integer, "4", MEMORY),
            key("nvbuf-memory-type", Integer, "0", MEMORY),
            key("num-surfaces-per-frame", Integer, "1", MEMORY),
            key("gpu-id", Integer, "0", GPU),
            key("compute-hw", Integer, "0", HARDWARE),
            key("live-source", Switch, "0", Nothing("whether a source is live is known from its address")),
            key("sync-inputs", Switch, "0", Nothing("frames are batched in the order in which they come")),
            key("sync-inputs-ntp", Switch, "0", Nothing("frames are batched in the order in which they come")),
            key("max-latency", Integer, "0", Nothing("frames are batched in the order in which they come")),
            key("sort-batch", Switch, "0", Nothing("frames are batched in the order in which they come")),
            key("align-first-buffer", Switch, "0", Nothing("frames are batched in the order in which they come")),
            key("cache-buffer", Switch, "0", Nothing("frames are batched in the order in which they come")),
            key("cache-buffer-timeout", Integer, "", Nothing("frames are batched in the order in which they come")),
            key("failsafe-flush-count", Integer, "", Nothing("frames are batched in the order in which they come")),
            key("attach-sys-ts-as-ntp", Switch, "1", Nothing("messages have the system's time")),
            key("frame-duration", Integer, "", Nothing("a frame has the time that its stream gives it")),
            key("frame-num-reset-on-eos", Switch, "0", Nothing("frames are counted through every repetition")),
            key(
                "frame-num-reset-on-stream-reset",
                Switch,
                "0",
                Nothing("frames are counted through every reconnection"),
            ),
            key("async-process", Switch, "1", Nothing("staging and inference overlap by themselves")),
            key("drop-pipeline-eos", Switch, "0", Nothing("the pipeline ends with its last stream")),
            key("extract-sei-type5-data", Switch, "0", Nothing("side data of the video is not read")),
            key("extract-sei-sim-time", Switch, "0", Nothing("side data of the video is not read")),
            key("drop-backward-sei", Switch, "0", Nothing("side data of the video is not read")),
            key(
                "config-file-path",
                Text,
                "",
                Nothing("`batch-size` and `batched-push-timeout` are all that the mux needs"),
            ),
        ],
    ),
    group(Kind::App, "primary-gie", true, GIE),
    group(Kind::App, "secondary-gie#", true, GIE),
    group(
        Kind::App,
        "tracker",
        true,
        &[
            key("enable", Switch, "0", Becomes("whether there is a `[tracker]`")),
            key("ll-config-file", Path, "", Becomes("the keys of the tracker's file, below")),
            key(
                "ll-lib-file",
                Text,
                "",
                Becomes("`tracker.algorithm`, where no file says more: libnvds_mot_iou `sort`, else `ocsort`"),
            ),
            key("display-tracking-id", Switch, "1", Becomes("`draw.tracks`")),
            key("tracker-width", Integer, "", Nothing("boxes are tracked, not pictures")),
            key("tracker-height", Integer, "", Nothing("boxes are tracked, not pictures")),
            key("tracker-algorithm", Integer, "", Nothing("the tracker's file names the algorithm")),
            key("iou-threshold", Number, "", Nothing("the tracker's file has the thresholds")),
            key("tracker-surface-type", Integer, "", MEMORY),
            key("tracking-surface-type", Integer, "", MEMORY),
            key("user-meta-pool-size", Integer, "", MEMORY),
            key("gpu-id", Integer, "0", GPU),
            key("compute-hw", Integer, "0", HARDWARE),
            key("enable-batch-process", Switch, "1", Nothing("a stream's tracker costs too little to be batched")),
            key("enable-past-frame", Switch, "0", Nothing("the past of a track is not told again")),
            key("tracking-id-reset-mode", Integer, "0", Nothing("a track's number is never used twice")),
            key("sub-batches", Text, "", Nothing("each stream has a tracker of its own")),
            key("sub-batch-err-recovery-trial-cnt", Integer, "", Nothing("each stream has a tracker of its own")),
            key("input-tensor-meta", Switch, "0", REID),
            key("tensor-meta-gie-id", Integer, "0", REID),
            key("operate-on-class-ids", Integers, "", Nothing("every class is tracked")),
        ],
    ),
    group(
        Kind::App,
        "nvds-analytics",
        true,
        &[
            key("enable", Switch, "0", Becomes("whether there is an `[analytics]`")),
            key("config-file", Path, "", Becomes("the keys of the nvdsanalytics file, below")),
            key("gpu-id", Integer, "0", GPU),
            key("unique-id", Integer, "", Nothing("there is one `[analytics]`")),
        ],
    ),
    group(
        Kind::App,
        "osd",
        true,
        &[
            key("enable", Switch, "0", Becomes("`[draw]`; without it nothing is drawn")),
            key("display-bbox", Switch, "1", Becomes("`draw.boxes`")),
            key("display-text", Switch, "1", Becomes("`draw.labels`")),
            key("display-mask", Switch, "0", Becomes("`draw.masks`")),
            key("show-clock", Switch, "0", Becomes("`draw.clock`")),
            key("border-width", Integer, "1", STYLE),
            key("border-color", Numbers, "", STYLE),
            key("text-size", Integer, "", STYLE),
            key("text-color", Numbers, "", STYLE),
            key("text-bg-color", Numbers, "", STYLE),
            key("font", Text, "", STYLE),
            key("clock-x-offset", Integer, "0", STYLE),
            key("clock-y-offset", Integer, "0", STYLE),
            key("clock-text-size", Integer, "", STYLE),
            key("clock-color", Numbers, "", STYLE),
            key("hw-blend-color-attr", Text, "", STYLE),
            key("process-mode", Integer, "", HARDWARE),
            key("gpu-id", Integer, "0", GPU),
            key("nvbuf-memory-type", Integer, "0", MEMORY),
        ],
    ),
    group(
        Kind::App,
        "sink#",
        true,
        &[
            key("enable", Switch, "0", Becomes("a `[[sink]]`")),
            key(
                "type",
                Integer,
                "",
                Becomes("1 `none`; 2, 5, 7 (a screen) `preview` in a browser; 3 `video`; 4 `rtsp`; 6 `messages`"),
            ),
            key("container", Integer, "1", Becomes("the extension of `sink.path`: 1 `.mp4`, 2 `.mkv`")),
            key(
                "output-file",
                Path,
                "",
                Becomes("`sink.path`; with several streams `{stream}` is put before its extension"),
            ),
            key("bitrate", Integer, "", Becomes("`sink.bitrate_kbps`")),
            key("rtsp-port", Integer, "8554", Becomes("the port of `sink.address`")),
            key(
                "msg-conv-payload-type",
                Integer,
                "0",
                Becomes("`sink.payload`: 0 `deepstream-full`, 1 `deepstream-minimal`; others are refused"),
            ),
            key("msg-conv-frame-interval", Integer, "30", Becomes("`sink.every`")),
            key(
                "msg-broker-proto-lib",
                Text,
                "",
                Becomes(
                    "`sink.type`: `mqtt` where it is the adapter of MQTT; Kafka, AMQP, Redis and Azure are not spoken, and the messages are written as JSON Lines to `messages.jsonl` for a bridge to send",
                ),
            ),
            key("msg-broker-conn-str", Text, "", Becomes("`sink.url` of MQTT; of no effect with other brokers")),
            key("topic", Text, "", Becomes("`sink.topic` of MQTT; of no effect with other brokers")),
            key(
                "msg-broker-config",
                Text,
                "",
                Becomes("nothing: its user, password file and TLS are keys of the sink, which is told"),
            ),
            key("codec", Integer, "1", Becomes("H.264, whatever is asked for; 2 (H.265) and 3 (MPEG-4) are told")),
            key("source-id", Integer, "0", Nothing("a sink has the results of every stream, a video of each")),
            key("link-to-demux", Switch, "0", Nothing("a sink has the results of every stream, a video of each")),
            key("msg-broker-comp-id", Integer, "", Nothing("no broker is spoken to")),
            key("new-api", Switch, "0", Nothing("no broker is spoken to")),
            key("sleep-time", Integer, "0", Nothing("no broker is spoken to")),
            key("msg-conv-config", Text, "", Nothing("a message's sensor is its stream")),
            key("msg-conv-msg2p-lib", Text, "", PLUGIN),
            key("msg-conv-comp-id", Integer, "", Nothing("the messages of every model are written")),
            key("msg-conv-msg2p-new-api", Switch, "0", Nothing("messages are made of frames")),
            key("msg-conv-dummy-payload", Switch, "0", Nothing("a frame without objects has a minimal message, too")),
            key("msg-conv-embedding-filter", Text, "", REID),
            key("multiple-payloads", Switch, "0", Nothing("a full message is an object each")),
            key("debug-payload-dir", Text, "", Nothing("the messages are in a file already")),
            key("disable-msgconv", Switch, "0", Nothing("each sink converts for itself")),
            key("udp-port", Integer, "5000", Nothing("the RTSP server needs no UDP port of its own")),
            key("udp-buffer-size", Integer, "", Nothing("the RTSP server needs no UDP port of its own")),
            key("sync", Switch, "1", Nothing("frames are written as soon as they are inferred")),
            key("qos", Switch, "0", Nothing("frames are written as soon as they are inferred")),
            key("enc-type", Integer, "0", OWN_ENCODER),
            key("profile", Integer, "0", OWN_ENCODER),
            key("iframeinterval", Integer, "", OWN_ENCODER),
            key("sw-preset", Integer, "", OWN_ENCODER),
            key("copy-meta", Switch, "0", OWN_ENCODER),
            key("output-io-mode", Integer, "", OWN_ENCODER),
            key("width", Integer, "", Nothing("each stream keeps its size")),
            key("height", Integer, "", Nothing("each stream keeps its size")),
            key("color-range", Integer, "", Nothing("there is no screen; a browser shows the streams")),
            key("conn-id", Integer, "", Nothing("there is no screen; a browser shows the streams")),
            key("plane-id", Integer, "", Nothing("there is no screen; a browser shows the streams")),
            key("set-mode", Switch, "0", Nothing("there is no screen; a browser shows the streams")),
            key("nvdslogger", Switch, "0", Nothing("`[perf]` tells the rates")),
            key("show-fps", Switch, "0", Nothing("`[perf]` tells the rates")),
            key("show-latency", Switch, "0", Nothing("the summary and `/metrics` tell the latencies")),
            key("compute-hw", Integer, "0", HARDWARE),
            key("gpu-id", Integer, "0", GPU),
            key("nvbuf-memory-type", Integer, "0", MEMORY),
        ],
    ),
    group(
        Kind::App,
        "tests",
        false,
        &[
            key("file-loop", Switch, "0", Becomes("`stream.repeat = \"forever\"`")),
            key("pipeline-recreate-sec", Integer, "0", Nothing("nothing has to be made anew")),
        ],
    ),
    whole(
        Kind::App,
        "tiled-display",
        Nothing(
            "streams are not put together: each is written and served by itself, and the page of a preview shows them side by side",
        ),
    ),
    whole(Kind::App, "message-converter", Nothing("each sink converts for itself, with its own `msg-conv-…` keys")),
    whole(Kind::App, "message-consumer#", Nothing("nothing is ordered by messages; `revoada ctl` orders")),
    whole(Kind::App, "img-save", Nothing("an `images` sink writes frames, every n-th of them")),
    whole(Kind::App, "segvisual", Nothing("masks are drawn by `[draw]`")),
    whole(Kind::App, "ds-example", Nothing("it is an example for programmers; `[draw.anonymize]` blurs")),
    whole(Kind::App, "dewarper", Refused("pictures are not dewarped; set `enable=0`, and dewarp in the camera")),
    whole(
        Kind::App,
        "pre-process",
        Refused("regions are not cut out before inference; set `enable=0`, and cut frames with `model.tiles`"),
    ),
    whole(Kind::App, "secondary-pre-process#", Refused("regions are not cut out before inference; set `enable=0`")),
    whole(Kind::App, "audio-transform", AUDIO),
    whole(Kind::App, "audio-classifier", AUDIO),
    whole(Kind::App, "visionencoder", Nothing("pictures are not embedded")),
    whole(Kind::App, "text-embedder", Nothing("texts are not embedded")),
    whole(Kind::App, "replay", Refused("results are not replayed from files; set `enable=0`")),
    group(
        Kind::Infer,
        "property",
        false,
        &[
            key("onnx-file", Path, "", Becomes("`model.path`")),
            key(
                "labelfile-path",
                Path,
                "",
                Becomes(
                    "`model.labels`; a line with `;` between them is a classifier's, and becomes `manifest.labels`",
                ),
            ),
            key("net-scale-factor", Number, "1", Becomes("`input.scale`")),
            key("offsets", Numbers, "0", Becomes("`input.mean`")),
            key("model-color-format", Integer, "0", Becomes("`input.channels`: 0 `rgb`, 1 `bgr`, 2 `gray`")),
            key("network-input-order", Integer, "0", Becomes("`input.layout`: 0 `nchw`, 1 `nhwc`")),
            key("infer-dims", Integers, "", Becomes("`input.size`, where the model leaves it open")),
            key(
                "maintain-aspect-ratio",
                Switch,
                "0",
                Becomes("`input.fit`: 0 `stretch`, 1 `letterbox` with `fill = 0`"),
            ),
            key("symmetric-padding", Switch, "0", Becomes("`input.anchor`: 0 `top-left`, 1 `center`")),
            key(
                "network-type",
                Integer,
                "0",
                Becomes("`output.decoder`: 0 see below, 1 `classification`, 2 `segmentation`; others are refused"),
            ),
            key("is-classifier", Switch, "0", Becomes("the same, as older versions spell it")),
            key("parse-bbox-func-name", Text, "", Becomes("`output.decoder`, see below")),
            key(
                "cluster-mode",
                Integer,
                "0",
                Becomes("whether `output.nms_iou_max` is said: 4 suppresses nothing; 0, 1 and 3 suppress like 2"),
            ),
            key("enable-dbscan", Switch, "0", Becomes("suppression, as cluster-mode 1")),
            key(
                "output-blob-names",
                Texts,
                "",
                Becomes("`output.tensors` of `detectnet`; else outputs are found by their names and shapes"),
            ),
            key("classifier-threshold", Number, "0", Becomes("`output.score_min` of a classifier")),
            key("segmentation-threshold", Number, "0.5", Becomes("`output.score_min` of a segmentation")),
            key("filter-out-class-ids", Integers, "", Becomes("`model.class.drop`")),
            key("batch-size", Integer, "1", Becomes("`batch.frames_max`, or `secondary.batch_max`")),
            key("interval", Integer, "0", Becomes("`stream.interval`, or nothing of a `[[secondary]]`")),
            key("gie-unique-id", Integer, "", Becomes("what `operate-on-gie-id` names")),
            key("process-mode", Integer, "1", Becomes("a check: 1 in `[primary-gie]`, 2 in `[secondary-gieN]`")),
            key(
                "operate-on-gie-id",
                Integer,
                "-1",
                Becomes("a check: a `[[secondary]]` reads what the first model finds"),
            ),
            key("operate-on-class-ids", Integers, "", Becomes("`secondary.on`, by the labels of the first model")),
            key("input-object-min-width", Integer, "0", Becomes("`secondary.size_min`")),
            key("input-object-min-height", Integer, "0", Becomes("`secondary.size_min`")),
            key("input-object-max-width", Integer, "0", Becomes("`secondary.size_max`; 0: none")),
            key("input-object-max-height", Integer, "0", Becomes("`secondary.size_max`; 0: none")),
            key("secondary-reinfer-interval", Integer, "", Becomes("`secondary.every`")),
            key("classifier-type", Text, "", Becomes("`secondary.name`")),
            key(
                "network-mode",
                Integer,
                "0",
                Nothing(
                    "the precision is chosen where the plan is made: `revoada build --precision fp32`, `int8` or `fp16` for 0, 1, 2",
                ),
            ),
            key("model-engine-file", Path, "", PLAN),
            key(
                "int8-calib-file",
                Path,
                "",
                Nothing("`revoada build --precision int8 --calibration PICTURES` calibrates anew"),
            ),
            key("workspace-size", Integer, "", PLAN),
            key("layer-device-precision", Texts, "", PLAN),
            key("output-io-formats", Texts, "", PLAN),
            key("enable-dla", Switch, "0", PLAN),
            key("use-dla-core", Integer, "", PLAN),
            key("force-implicit-batch-dim", Switch, "0", PLAN),
            key("strongly-typed", Switch, "0", PLAN),
            key("num-detected-classes", Integer, "", Nothing("the outputs tell how many classes there are")),
            key(
                "custom-lib-path",
                Text,
                "",
                Nothing("no library of DeepStream is loaded; `parse-…-func-name` is mapped to a decoder"),
            ),
            key("parse-func", Integer, "", Nothing("`parse-bbox-func-name` names the decoder")),
            key("parse-bbox-instance-mask-func-name", Text, "", Refused("instance masks are not decoded")),
            key("parse-classifier-func-name", Text, "", Nothing("a classifier's best class is its answer")),
            key("parse-segmentation-func-name", Text, "", Nothing("the best class of a cell is its answer")),
            key(
                "engine-create-func-name",
                Text,
                "",
                Refused("networks are not made by a library; export the model as ONNX and name it in `onnx-file`"),
            ),
            key(
                "custom-network-config",
                Text,
                "",
                Refused("Darknet's models are not read; export the model as ONNX and name it in `onnx-file`"),
            ),
            key("model-file", Path, "", CAFFE),
            key("proto-file", Path, "", CAFFE),
            key(
                "mean-file",
                Path,
                "",
                Refused("a mean picture is not subtracted; use `offsets`, one number per channel"),
            ),
            key("uff-file", Path, "", UFF),
            key("uff-input-order", Integer, "", Nothing("it belongs to a UFF model")),
            key("uff-input-dims", Integers, "", Nothing("it belongs to a UFF model; `infer-dims` says the size")),
            key("input-dims", Integers, "", Nothing("it belongs to a UFF model; `infer-dims` says the size")),
            key("uff-input-blob-name", Text, "", Nothing("it belongs to a UFF model")),
            key("tlt-encoded-model", Path, "", ETLT),
            key("tlt-model-key", Text, "", Nothing("it belongs to an encrypted TAO model")),
            key(
                "output-tensor-meta",
                Switch,
                "0",
                Nothing("outputs are decoded; a program of one's own registers a decoder for them"),
            ),
            key("output-instance-mask", Switch, "0", Nothing("instance masks are not decoded")),
            key("segmentation-output-order", Integer, "0", Nothing("the order is known from the outputs")),
            key("classifier-async-mode", Switch, "0", Nothing("a `[[secondary]]` answers with its frame")),
            key(
                "input-tensor-from-meta",
                Switch,
                "0",
                Refused("tensors are prepared by the staging of the model; leave it 0"),
            ),
            key(
                "crop-objects-to-roi-boundary",
                Switch,
                "0",
                Nothing("boxes may reach past the picture, and are cut where they are drawn"),
            ),
            key("scaling-filter", Integer, "1", Nothing("pictures are scaled bilinearly")),
            key("scaling-compute-hw", Integer, "0", HARDWARE),
            key("gpu-id", Integer, "0", GPU),
            key("tensor-meta-pool-size", Integer, "", MEMORY),
            key("disable-output-host-copy", Switch, "0", MEMORY),
            key("auto-inc-mem", Switch, "1", MEMORY),
            key("max-gpu-mem-per", Integer, "", MEMORY),
            key("dump-input-tensor", Switch, "0", DUMP),
            key("dump-output-tensor", Switch, "0", DUMP),
            key("overwrite-input-tensor", Switch, "0", DUMP),
            key("overwrite-output-tensor", Switch, "0", DUMP),
            key("ip-tensor-file", Text, "", DUMP),
            key("op-tensor-files", Texts, "", DUMP),
            key("raw-output-file-write", Switch, "0", DUMP),
            key("dynamic-properties", Texts, "", Nothing("`revoada ctl reload` reads the file again")),
            key("warmup-engine", Switch, "0", Nothing("the first batch warms it")),
            key("stabilize-buffer-count", Integer, "", Nothing("the first batch warms it")),
        ],
    ),
    group(Kind::Infer, "class-attrs-all", false, CLASS),
    group(Kind::Infer, "class-attrs-#", false, CLASS),
    group(
        Kind::Tracker,
        "BaseConfig",
        false,
        &[
            key("checkClassMatch", Switch, "1", Becomes("`tracker.across_classes`, turned round")),
            key("minDetectorConfidence", Number, "0", Nothing("detections from `score_min` on are tracked")),
        ],
    ),
    group(
        Kind::Tracker,
        "TargetManagement",
        false,
        &[
            key("probationAge", Integer, "3", Becomes("`tracker.hits_min`")),
            key("maxShadowTrackingAge", Integer, "30", Becomes("`tracker.lost_frames_max`")),
            key("earlyTerminationAge", Integer, "", Nothing("a track that is not sure ends with its first miss")),
            key("maxTargetsPerStream", Integer, "", Nothing("there are as many tracks as detections")),
            key("preserveStreamUpdateOrder", Switch, "0", Nothing("each stream has a tracker of its own")),
            key("minIouDiff4NewTarget", Number, "", Nothing("detections are suppressed before they are tracked")),
            key("minTrackerConfidence", Number, "", Nothing("a track is known by its detections alone")),
            key("enableBboxUnClipping", Switch, "0", Nothing("a box is what the detector says")),
            key("outputTerminatedTracks", Switch, "0", Nothing("the past of a track is not told again")),
            key("outputShadowTracks", Switch, "0", Nothing("a track that is not seen is in no result")),
            key("terminatedTrackFilename", Text, "", Nothing("the past of a track is not told again")),
            key("shadowTrackFilename", Text, "", Nothing("a track that is not seen is in no result")),
            key("searchRegionPaddingScale", Number, "", Nothing("boxes are tracked, not pictures")),
            key("maxTrajectoryBufferLength", Integer, "", Nothing("the past of a track is not kept")),
            key("multiSourceAssociatorMode", Integer, "", Nothing("each stream has a tracker of its own")),
        ],
    ),
    group(
        Kind::Tracker,
        "DataAssociator",
        false,
        &[
            key("minMatchingScore4Iou", Number, "0", Becomes("`tracker.iou_min`")),
            key("dataAssociatorType", Integer, "0", Nothing("the algorithm says how detections are matched")),
            key("associationMatcherType", Integer, "0", Nothing("the algorithm says how detections are matched")),
            key("checkClassMatch", Switch, "1", Becomes("`tracker.across_classes`, turned round")),
            key("minMatchingScore4Overall", Number, "0", Nothing("overlap alone is matched")),
            key("minMatchingScore4SizeSimilarity", Number, "0", Nothing("overlap alone is matched")),
            key("minMatchingScore4VisualSimilarity", Number, "0", REID),
            key("minMatchingScore4ReidSimilarity", Number, "0", REID),
            key("minMatchingScore4PeerAssocIou", Number, "", Nothing("each stream has a tracker of its own")),
            key("matchingScoreWeight4Iou", Number, "1", Nothing("overlap alone is matched")),
            key("matchingScoreWeight4SizeSimilarity", Number, "0", Nothing("overlap alone is matched")),
            key("matchingScoreWeight4VisualSimilarity", Number, "0", REID),
            key("matchingScoreWeight4ReidSimilarity", Number, "0", REID),
            key(
                "tentativeDetectorConfidence",
                Number,
                "",
                Nothing("every detection that is tracked may begin a track"),
            ),
            key("minMatchingScore4TentativeIou", Number, "", Nothing("overlap alone is matched, with one threshold")),
            key("usePrediction4Assoc", Switch, "1", Nothing("where a track is thought to be is always matched")),
        ],
    ),
    group(
        Kind::Tracker,
        "StateEstimator",
        false,
        &[
            key("stateEstimatorType", Integer, "0", Becomes("`tracker.algorithm`: see below")),
            key("*", Text, "", Nothing("the filter has the noise of the published algorithm")),
        ],
    ),
    group(
        Kind::Tracker,
        "VisualTracker",
        false,
        &[
            key("visualTrackerType", Integer, "0", Becomes("`tracker.algorithm`: see below")),
            key("*", Text, "", Nothing("pictures are not compared")),
        ],
    ),
    group(
        Kind::Tracker,
        "ReID",
        false,
        &[key("reidType", Integer, "0", Becomes("`tracker.algorithm`: see below")), key("*", Text, "", REID)],
    ),
    whole(Kind::Tracker, "TrajectoryManagement", Nothing("tracks that ended are not taken up again")),
    whole(Kind::Tracker, "ObjectModelProjection", Nothing("objects are tracked in the picture, not in space")),
    whole(Kind::Tracker, "PoseEstimator", Nothing("objects are tracked in the picture, not in space")),
    whole(Kind::Tracker, "MultiViewAssociator", Nothing("each stream has a tracker of its own")),
    whole(Kind::Tracker, "Communicator", Nothing("each stream has a tracker of its own")),
    whole(Kind::Tracker, "Segmenter", Nothing("objects are told apart by their motion alone")),
    whole(Kind::Tracker, "NvDCF", Nothing("pictures are not compared; it is of an older version")),
    group(
        Kind::Analytics,
        "property",
        false,
        &[
            key("enable", Switch, "1", Becomes("whether there is an `[analytics]`")),
            key("config-width", Integer, "", Becomes("`analytics.reference`")),
            key("config-height", Integer, "", Becomes("`analytics.reference`")),
            key("osd-mode", Integer, "2", Becomes("`draw.rules`: 0 nothing, 1 and 2 everything")),
            key("display-font-size", Integer, "", STYLE),
            key("display-obj-cnt", Switch, "0", Nothing("`[draw]` shows the counts of lines and regions")),
        ],
    ),
    group(
        Kind::Analytics,
        "roi-filtering-stream-#",
        true,
        &[
            key("enable", Switch, "0", Becomes("`[[analytics.region]]` of that stream")),
            key("roi-*", Numbers, "", Becomes("`region.name` and `region.points`")),
            key("inverse-roi", Switch, "0", Becomes("`region.inverse`")),
            key("class-id", Integers, "-1", Becomes("`region.classes`, by the labels of the model")),
        ],
    ),
    group(
        Kind::Analytics,
        "overcrowding-stream-#",
        true,
        &[
            key("enable", Switch, "0", Becomes("`[[analytics.region]]` of that stream")),
            key("roi-*", Numbers, "", Becomes("`region.name` and `region.points`")),
            key(
                "object-threshold",
                Integer,
                "1",
                Becomes("`region.overcrowding.objects_max`, one less: so many are a crowd"),
            ),
            key("time-threshold", Integer, "2000", Becomes("`region.overcrowding.after_s`, in seconds")),
            key("class-id", Integers, "-1", Becomes("`region.classes`, by the labels of the model")),
        ],
    ),
    group(
        Kind::Analytics,
        "line-crossing-stream-#",
        true,
        &[
            key("enable", Switch, "0", Becomes("`[[analytics.line]]` of that stream")),
            key("line-crossing-*", Numbers, "", Becomes("`line.name`, `line.direction` and `line.points`")),
            key("extended", Switch, "1", Becomes("`line.extended`")),
            key("mode", Text, "loose", Becomes("`line.mode`")),
            key("class-id", Integers, "-1", Becomes("`line.classes`, by the labels of the model")),
        ],
    ),
    group(
        Kind::Analytics,
        "direction-detection-stream-#",
        true,
        &[
            key("enable", Switch, "0", Becomes("`[[analytics.direction]]` of that stream")),
            key("direction-*", Numbers, "", Becomes("`direction.name` and `direction.points`")),
            key("mode", Text, "balanced", Becomes("`direction.angle_deg`: strict 30, balanced 60, loose 90")),
            key("class-id", Integers, "-1", Becomes("`direction.classes`, by the labels of the model")),
        ],
    ),
];

/// The parsers of boxes that are known, and the decoder that reads the same outputs. Where none is, the decoder is guessed
/// from the outputs.
pub(super) const PARSERS: &[(&str, Option<&str>)] = &[
    ("NvDsInferParseCustomResnet", Some("detectnet")),
    ("NvDsInferParseYolo", Some("yolo-nms")),
    ("NvDsInferParseYoloCuda", Some("yolo-nms")),
    ("NvDsInferParseYoloE", Some("yolo-nms")),
    ("NvDsInferParseYoloECuda", Some("yolo-nms")),
    ("NvDsInferParseCustomYoloV5", Some("yolo-v5")),
    ("NvDsInferParseCustomYoloV7", Some("yolo-v5")),
    ("NvDsInferParseCustomYoloV7_cuda", Some("yolo-v5")),
    ("NvDsInferParseCustomYoloV8", Some("yolo-v8")),
    ("NvDsInferParseCustomYoloV8_cuda", Some("yolo-v8")),
    ("NvDsInferParseCustomYoloV11", Some("yolo-v8")),
    ("NvDsInferParseYoloV7", Some("yolo-v5")),
    ("NvDsInferParseYoloV8", Some("yolo-v8")),
    ("NvDsInferParseYoloV11", Some("yolo-v8")),
    ("NvDsInferParseCustomYoloX", Some("yolo-x")),
    ("NvDsInferParseCustomCenterFace", Some("centerface")),
    ("NvDsInferParseCustomTfSSD", Some("ssd")),
    ("NvDsInferParseCustomSSD", Some("ssd")),
    ("NvDsInferParseCustomDDETRTAO", None),
    ("NvDsInferParseCustomRTDETRTAO", None),
    ("NvDsInferParseCustomEfficientDetTAO", None),
    ("NvDsInferParseCustomBatchedNMSTLT", None),
    ("NvDsInferParseCustomBatchedYoloV5NMSTLT", None),
    ("NvDsInferParseYoloV5CustomBatchedNMSTLT", None),
    ("NvDsInferParseCustomNMSTLT", None),
    ("NvDsInferParseCustomYoloV4", None),
];

impl GroupRule {
    /// The rule for a group of such a file.
    pub(super) fn of(kind: Kind, name: &str) -> Option<&'static Self> {
        GROUPS.iter().filter(|rule| rule.kind == kind).find(|rule| matched(rule.name, name).is_some())
    }

    /// The rule for a key of this group, and what its `#` or `*` stands for.
    pub(super) fn key<'n>(&self, name: &'n str) -> Option<(&'static KeyRule, &'n str)> {
        self.keys.iter().find_map(|rule| Some((rule, matched(rule.name, name)?)))
    }
}

/// What the pattern's last character stands for in the name; empty where it stands for itself.
pub(super) fn matched<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    let (start, last) = match pattern.strip_suffix(['#', '*']) {
        Some(start) => (start, pattern.chars().next_back()),
        None => return (pattern == name).then_some(""),
    };
    let rest = name.strip_prefix(start)?;
    match last {
        Some('#') => rest.bytes().all(|byte| byte.is_ascii_digit()).then_some(rest),
        _ => (!rest.is_empty()).then_some(rest),
    }
}
