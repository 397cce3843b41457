//! `revoada doctor` on boards that are folders of files and a few scripts in the place of NVIDIA's and the system's
//! commands; it proves what is proposed, asked and run, nothing of a board.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_tests::{Finished, finish, names_in, revoada, root};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

/// Where all of GStreamer is that pipelines may want.
const PLUGINS: [&str; 7] = [
    "libgstreamer1.0-0",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-ugly",
    "gstreamer1.0-libav",
    "nvidia-l4t-gstreamer",
];

/// A Jetson Nano on which a user `ana` has logged in. It lacks swap, two packages and groups, and runs slowly.
struct Board {
    folder: tempfile::TempDir,
}

impl Board {
    fn new() -> Self {
        let board = Self { folder: tempfile::tempdir().unwrap() };
        board.write("etc/nv_tegra_release", "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n");
        board.write("proc/device-tree/model", "NVIDIA Jetson Nano Developer Kit\0");
        board.write("proc/device-tree/serial-number", "1422021012345\0");
        board.write("proc/meminfo", "MemTotal:        4051320 kB\nMemAvailable:    3000000 kB\nSwapTotal: 0 kB\n");
        board.write("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 506412 0 5\n");
        board.write("proc/self/status", "Name:\trevoada\nUid:\t1000\t1000\t1000\t1000\n");
        board.write("proc/self/loginuid", "1000");
        board.write("proc/sys/kernel/hostname", "anas-nano\n");
        board.write("proc/sys/kernel/osrelease", "4.9.253-tegra\n");
        board.write("etc/hostname", "anas-nano\n");
        board.write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000:Ana,,,:/data/people/ana:/bin/bash\n",
        );
        board.write("etc/group", "root:x:0:\nvideo:x:44:\nrender:x:45:bob\nana:x:1000:\n");
        board.write("etc/fstab", "/dev/root / ext4 defaults 0 1\n");
        let modes = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\nCPU_ONLINE CORE_1 1\nCPU_A57 MAX_FREQ -1\n\
            GPU MAX_FREQ -1\n< POWER_MODEL ID=1 NAME=5W >\nCPU_ONLINE CORE_0 1\nCPU_ONLINE CORE_1 0\n\
            CPU_A57 MAX_FREQ 918000\nGPU MAX_FREQ 640000000\n< PM_CONFIG DEFAULT=0 >\n";
        board.write("etc/nvpmodel.conf", modes);
        board.write("mode", "NV Power Mode: 5W\n1\n");
        for core in ["cpu0", "cpu1"] {
            let folder = format!("sys/devices/system/cpu/{core}/cpufreq");
            board.write(&format!("{folder}/scaling_min_freq"), "102000\n");
            board.write(&format!("{folder}/scaling_max_freq"), "1479000\n");
        }
        board.write("sys/class/thermal/thermal_zone0/type", "CPU-therm\n");
        board.write("sys/class/thermal/thermal_zone0/temp", "36500\n");
        let monitor = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
        board.write(&format!("{monitor}/rail_name_0"), "POM_5V_IN\n");
        board.write(&format!("{monitor}/in_power0_input"), "2500\n");
        let packages = PLUGINS.iter().filter(|name| !["gstreamer1.0-plugins-bad", "gstreamer1.0-libav"].contains(name));
        board.install(packages.copied());
        board.write(
            "df",
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/mmcblk0p1 30000000 1 20000000 1% /\n",
        );
        board.write_programs();
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn install<'n>(&self, packages: impl IntoIterator<Item = &'n str>) {
        let paragraph = |name| format!("Package: {name}\nStatus: install ok installed\nVersion: 1.14.5\n\n");
        self.write("var/lib/dpkg/status", &packages.into_iter().map(paragraph).collect::<String>());
    }

    /// Each writes down how it was called, and changes the files that the real one would.
    fn write_programs(&self) {
        self.program("sudo", "program=$1; shift; exec \"$B/bin/$program\" \"$@\"");
        self.program("df", "cat $B/df");
        self.program(
            "nvpmodel",
            "[ $1 = -q ] && exec cat $B/mode\n\
             name=$(sed -n \"s/^< POWER_MODEL ID=$2 NAME=\\(.*\\) >/\\1/p\" $B/etc/nvpmodel.conf)\n\
             printf 'NV Power Mode: %s\\n%s\\n' \"$name\" $2 >$B/mode",
        );
        self.program(
            "jetson_clocks",
            "for f in $B/sys/devices/system/cpu/cpu*/cpufreq; do cat $f/scaling_max_freq >$f/scaling_min_freq; done",
        );
        for program in ["fallocate", "chmod", "mkswap", "journalctl"] {
            self.program(program, ":");
        }
        self.program("swapon", "echo \"$1 file 4194300 0 -2\" >>$B/proc/swaps");
        self.program("tee", "cat >>$B/$2");
        self.program(
            "apt-get",
            "[ $1 = clean ] && sed -i s/1000000/9000000/ $B/df\n\
             [ $1 = install ] || exit 0\n\
             shift 3\n\
             for p in \"$@\"; do printf 'Package: %s\\nStatus: install ok installed\\n\\n' $p; done >>$B/var/lib/dpkg/status",
        );
        self.program("usermod", "for g in video render; do sed -i \"s/^$g:.*/&,$3/\" $B/etc/group; done");
        let line = "RAM 2519/3956MB (lfb 3x4MB) SWAP 12/1978MB (cached 1MB) CPU [12%@1479,off] EMC_FREQ 9%@1600 \
            GR3D_FREQ 45%@921 GPU@34C AO@41C POM_5V_IN 3187/3050 POM_5V_GPU 450/410";
        self.program("tegrastats", &format!("echo starting\necho '{line}'\nsleep 1000"));
    }

    fn program(&self, name: &str, script: &str) {
        let path = format!("bin/{name}");
        let log = format!("echo \"{name} $*\" >>$B/log");
        let board = self.folder.path().display();
        self.write(&path, &format!("#!/bin/sh\nB={board}\nPATH=/usr/bin:/bin\n{log}\n{script}\n"));
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What was run to change something, in its order.
    fn changes(&self) -> Vec<String> {
        let asking = ["df ", "nvpmodel -q", "tegrastats ", "sudo "];
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| !asking.iter().any(|prefix| line.starts_with(prefix))).map(str::to_owned).collect()
    }

    /// GStreamer finds no plugins there, and no commands are found but those of the board.
    fn doctor(&self, arguments: &[&str]) -> Command {
        let mut command = revoada();
        command.arg("doctor").arg("--root").arg(self.folder.path()).args(arguments);
        command.env("PATH", self.path("bin")).env("HOME", "/data/people/ana").env_remove("XDG_CACHE_HOME");
        command.env("GST_PLUGIN_SYSTEM_PATH_1_0", self.path("plugins")).env_remove("GST_PLUGIN_PATH");
        command.env("GST_REGISTRY_1_0", self.path("registry"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.doctor(arguments))
    }

    fn fix(&self) -> Finished {
        self.run(&["--fix", "--yes"])
    }

    /// Runs with a terminal for standard input, at which these lines are typed.
    fn at_a_terminal(&self, arguments: &[&str], typed: &str) -> Finished {
        use std::io::Write;
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let stdin = File::options().read(true).write(true).open(name).unwrap();
        let mut terminal = File::from(terminal);
        terminal.write_all(typed.as_bytes()).unwrap();
        finish(self.doctor(arguments).stdin(stdin))
    }

    fn ids(&self) -> Vec<String> {
        let said = self.run(&["--json"]);
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        let proposals = report["proposals"].as_array().unwrap();
        proposals.iter().map(|proposal| proposal["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_board_fresh_from_its_card_is_set_up_and_then_left_alone() {
    let board = Board::new();
    board.fix().expect_code(0);
    let expected = [
        "fallocate -l 4096M /swapfile",
        "chmod 600 /swapfile",
        "mkswap /swapfile",
        "swapon /swapfile",
        "tee -a /etc/fstab",
        "apt-get update",
        "apt-get install -y --no-install-recommends gstreamer1.0-libav gstreamer1.0-plugins-bad",
        "usermod -aG video,render ana",
        "nvpmodel -m 0",
        "jetson_clocks ",
    ];
    assert_eq!(board.changes(), expected);
    assert!(board.read("etc/fstab").ends_with("0 1\n/swapfile none swap sw 0 0\n"), "{}", board.read("etc/fstab"));
    assert_eq!(board.read("mode"), "NV Power Mode: MAXN\n0\n");

    let again = board.fix().expect_code(0);
    assert_eq!(again.stdout, "nothing to propose\n");
    assert_eq!(board.changes(), expected, "nothing was run again");
}

/// `UPDATE_GOLDEN=1 cargo test -p revoada-tests --test doctor` writes the file anew.
#[test]
fn without_anybody_to_ask_proposals_are_listed_and_nothing_is_done() {
    let board = Board::new();
    let listed = board.run(&["--fix"]).expect_code(1);
    assert_eq!(
        listed.error(),
        "error: nothing was changed: there is no terminal to ask on; `--yes` agrees to everything"
    );
    assert_eq!(board.changes(), [""; 0]);
    let golden = root().join("tests/data/doctor/nano.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &listed.stdout).unwrap();
    }
    assert_eq!(listed.stdout, fs::read_to_string(golden).unwrap());
}

#[test]
fn each_proposal_is_asked_for_and_a_no_leaves_things_as_they_are() {
    let board = Board::new();
    // Swap, packages, groups, power mode, clocks.
    let asked = board.at_a_terminal(&["--fix"], "n\n\nno\ny\nmaybe\n").expect_code(0);
    assert_eq!(board.changes(), ["nvpmodel -m 0"]);
    for id in ["swap", "gstreamer", "groups", "power-mode", "clocks"] {
        assert!(asked.stderr.contains(&format!("apply {id}? [y/N]")), "{}", asked.stderr);
    }
    assert_eq!((asked.stdout.matches("left as it is").count(), asked.stdout.matches("  done\n").count()), (4, 1));
    assert_eq!(board.ids(), ["swap", "gstreamer", "groups", "clocks"]);
}

#[test]
fn what_does_not_work_is_said_and_the_rest_is_done() {
    let board = Board::new();
    // As on a module whose mode wants a restart, and nobody there to confirm it.
    board.program("nvpmodel", "[ $1 = -q ] && exec cat $B/mode\necho 'NVPM WARN: Reboot required' >&2; exit 255");
    board.program("mkswap", "exit 1");
    board.program("usermod", ":");
    fs::remove_file(board.path("bin/apt-get")).unwrap();
    let fixed = board.fix().expect_code(1);
    assert_eq!(fixed.error(), "error: could not apply swap, gstreamer, groups, power-mode");
    let said = [
        "  failed: `sudo mkswap /swapfile` ended with exit status: 1\n",
        "  failed: `sudo apt-get update` ended with exit status: 127\n",
        "  failed: its commands ran, and yet: this user is not in video and render, which own cameras and the GPU\n",
        "  failed: `sudo nvpmodel -m 0` ended with exit status: 255\n",
    ];
    for text in said {
        assert!(fixed.stdout.contains(text), "`{text}` is not in:\n{}", fixed.stdout);
    }
    assert!(fixed.stderr.contains("NVPM WARN: Reboot required"), "{}", fixed.stderr);
    assert!(!board.changes().contains(&"swapon /swapfile".to_owned()), "the steps after one that failed are not run");
    assert_eq!(board.changes().last().unwrap(), "jetson_clocks ");
}

#[test]
fn room_is_made_first_and_what_it_makes_possible_is_proposed_then() {
    let board = Board::new();
    let df = board.read("df").replace("20000000", "1000000");
    board.write("df", &df);
    assert_eq!(board.ids(), ["disk", "gstreamer", "groups", "power-mode", "clocks"]);
    board.fix().expect_code(0);
    let first: Vec<String> = board.changes().into_iter().take(3).collect();
    assert_eq!(first, ["apt-get clean", "journalctl --vacuum-size=100M", "fallocate -l 4096M /swapfile"]);
}

#[test]
fn a_machine_is_told_what_was_proposed_and_what_became_of_it() {
    let board = Board::new();
    board.program("jetson_clocks", "exit 3");
    let fixed = board.run(&["--fix", "--yes", "--json"]).expect_code(1);
    let answer: Value = serde_json::from_str(&fixed.stdout).unwrap();
    let of = |id: &str| answer["proposals"].as_array().unwrap().iter().find(|proposal| proposal["id"] == id).unwrap();
    let mode = of("power-mode");
    assert_eq!(mode["outcome"], "done");
    assert_eq!(mode["found"], "power mode 5W (1)");
    assert_eq!(mode["commands"], serde_json::json!(["sudo nvpmodel -m 0"]));
    assert_eq!((&mode["needs_root"], &mode["survives_reboot"]), (&true.into(), &true.into()));
    let clocks = of("clocks");
    assert_eq!((&clocks["outcome"], &clocks["survives_reboot"]), (&"failed".into(), &false.into()));
    assert_eq!(clocks["reason"], "`sudo jetson_clocks` ended with exit status: 3");
    assert_eq!(of("swap")["commands"][4], "echo '/swapfile none swap sw 0 0' | sudo tee -a /etc/fstab");
}

#[test]
fn what_is_proposed_follows_from_what_is_there() {
    /// Its name, what is changed, and what is proposed then.
    type Row = (&'static str, fn(&Board), &'static [&'static str]);
    let rows: [Row; 7] = [
        ("as it comes", |_| {}, &["swap", "gstreamer", "groups", "power-mode", "clocks"]),
        (
            "8 GB",
            |board| board.write("proc/meminfo", "MemTotal: 7900000 kB\n"),
            &["gstreamer", "groups", "power-mode", "clocks"],
        ),
        (
            "root at its console, and whoever logged in under sudo",
            |board| board.write("proc/self/loginuid", "0"),
            &["swap", "gstreamer", "power-mode", "clocks"],
        ),
        (
            "no modes",
            |board| fs::remove_file(board.path("etc/nvpmodel.conf")).unwrap(),
            &["swap", "gstreamer", "groups", "clocks"],
        ),
        (
            "only root may ask for the mode",
            |board| {
                board.program("nvpmodel", "exit 1");
                board.write("var/lib/nvpmodel/status", "pmode:0000 fmode:cool\n");
            },
            &["swap", "gstreamer", "groups", "clocks"],
        ),
        (
            "no dpkg",
            |board| fs::remove_file(board.path("var/lib/dpkg/status")).unwrap(),
            &["swap", "groups", "power-mode", "clocks"],
        ),
        (
            "no Jetson, and a camera",
            |board| {
                fs::remove_file(board.path("etc/nv_tegra_release")).unwrap();
                board.write("dev/video0", "");
            },
            &["gstreamer", "groups"],
        ),
    ];
    for (name, change, expected) in rows {
        let board = Board::new();
        change(&board);
        assert_eq!(board.ids(), expected, "{name}");
    }
}

#[test]
fn root_needs_no_sudo() {
    let board = Board::new();
    board.write("proc/self/status", "Uid:\t0\t0\t0\t0\n");
    fs::remove_file(board.path("bin/sudo")).unwrap();
    board.fix().expect_code(0);
    assert!(board.changes().contains(&"usermod -aG video,render ana".to_owned()), "{:?}", board.changes());
}

#[test]
fn load_temperature_and_power_stand_in_what_doctor_says() {
    let board = Board::new();
    let said = board.run(&[]).stdout;
    for line in [
        "  ✓ memory       2519 of 3956 MiB\n",
        "  ✓ cores        12 %, off\n",
        "  ✓ GPU          45 % at 921 MHz\n",
        "  ✓ warmest      AO, 41.0 °C\n",
        "  ✓ power        3.19 W (POM_5V_IN)\n",
        "to improve: `revoada doctor --fix` proposes how\n",
        "  – power-mode   power mode 5W (1)\n",
    ] {
        assert!(said.contains(line), "`{line}` is not in:\n{said}");
    }
    fs::remove_file(board.path("bin/tegrastats")).unwrap();
    let said = board.run(&[]).stdout;
    assert!(said.contains("`tegrastats` cannot be run"), "{said}");
}

#[test]
fn a_report_tells_of_the_board_and_not_of_its_owner() {
    let board = Board::new();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("board.json");
    let said = board.run(&["--report", file.to_str().unwrap()]).expect_code(0);
    assert_eq!(said.stdout, format!("wrote {}\n", file.display()));
    let text = fs::read_to_string(&file).unwrap();
    for secret in ["anas-nano", "1422021012345", "/ana", "\"ana", " ana"] {
        assert!(!text.contains(secret), "`{secret}` is in:\n{text}");
    }
    let report: Value = serde_json::from_str(&text).unwrap();
    let rows = [
        ("/revoada_board_report", Value::from(1)),
        ("/doctor/version", env!("CARGO_PKG_VERSION").into()),
        ("/doctor/proposals/0/id", "swap".into()),
        ("/system/board", "NVIDIA Jetson Nano Developer Kit".into()),
        ("/system/kernel", "4.9.253-tegra".into()),
        ("/system/l4t", "R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref".into()),
        ("/packages/gstreamer1.0-plugins-good", "1.14.5".into()),
        ("/power/modes/1/name", "5W".into()),
        ("/power/current/Ok", 1.into()),
        ("/clocks/0/max", 1_479_000.into()),
        ("/disk/mounted_on", "/".into()),
        ("/tegrastats/Ok/1/read_as/gpu/percent", 45.into()),
        ("/sensors/~1sys~1class~1thermal~1thermal_zone0~1temp", "36500".into()),
        ("/sensors/~1sys~1bus~1i2c~1drivers~1ina3221x~16-0040~1iio:device0~1in_power0_input", "2500".into()),
    ];
    for (pointer, expected) in rows {
        assert_eq!(report.pointer(pointer), Some(&expected), "{pointer} of:\n{text}");
    }
    assert!(report["doctor"]["gpu"]["tensorrt"]["Err"].as_str().unwrap().contains("libnvinfer.so.8"), "{text}");

    let nowhere = out.path().join("missing/board.json");
    let refused = board.run(&["--report", nowhere.to_str().unwrap()]).expect_code(1);
    assert!(refused.error().starts_with(&format!("error: cannot write report `{}`: ", nowhere.display())));
    assert_eq!(names_in(out.path()), ["board.json"]);
}

#[test]
fn options_without_an_effect_are_refused() {
    let board = Board::new();
    for arguments in
        [&["--yes"][..], &["--fix", "--all"], &["--fix", "--report", "x.json"], &["--report", "x", "--json"]]
    {
        board.run(arguments).expect_code(2);
    }
    assert!(!Path::new("x.json").exists());
}
