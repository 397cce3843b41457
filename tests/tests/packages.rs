//! The Debian package in a Debian that has nothing of ours: installed, used, upgraded, purged.
//!
//! `cargo xtask test --full` makes the packages and the Debian, which takes root and minutes.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_tests::{Finished, asset, finish, root};

/// A Debian in a folder.
struct Debian {
    folder: tempfile::TempDir,
}

impl Debian {
    /// `None`, and said aloud, where it cannot be had.
    fn unpack() -> Option<Self> {
        let skipped = |why: &str| {
            println!("skipped: Debian package: {why}");
            None
        };
        if std::env::var_os("REVOADA_FULL").is_none() {
            return skipped("installed by `cargo xtask test --full`");
        }
        let archive = root().join(".cache/debian.tar");
        if !archive.exists() || !package(1).exists() {
            return skipped("there is no Debian to install it in, or no package");
        }
        if finish(Command::new("id").arg("-u")).stdout.trim() != "0" {
            return skipped("only root can enter another Debian");
        }
        let folder = tempfile::tempdir().unwrap();
        finish(Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("-C").arg(folder.path()))
            .expect_code(0);
        Some(Self { folder })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn copy(&self, from: &Path, to: &str) {
        std::fs::create_dir_all(self.path(to).parent().unwrap()).unwrap();
        std::fs::copy(from, self.path(to)).unwrap();
    }

    fn run(&self, command: &[&str]) -> Finished {
        let mut inside = Command::new("chroot");
        inside.arg(self.folder.path()).args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]);
        finish(inside.args(command))
    }

    /// As `revoada@.service` does.
    fn run_as_service(&self, command: &str) -> Finished {
        let environment = "HOME=/var/lib/revoada XDG_DATA_HOME=/var/lib XDG_CACHE_HOME=/var/cache";
        let line = format!("cd /var/lib/revoada && env {environment} {command}");
        self.run(&["runuser", "--user", "revoada", "--", "/bin/sh", "-c", &line])
    }

    fn install(&self, revision: u32) {
        self.copy(&package(revision), "/tmp/new.deb");
        self.run(&["dpkg", "--install", "/tmp/new.deb"]).expect_code(0);
    }

    /// Every path with our name in it, but for dpkg's own notes.
    fn traces(&self) -> String {
        let found = self.run(&["find", "/", "-xdev", "-name", "*revoada*", "-not", "-path", "/var/lib/dpkg/info/*"]);
        found.expect_code(0).stdout
    }
}

fn package(revision: u32) -> PathBuf {
    let name = format!("revoada_{}-{revision}_amd64.deb", env!("CARGO_PKG_VERSION"));
    root().join("target/release-files").join(name)
}

#[test]
fn the_package_installs_runs_upgrades_and_is_purged_without_a_trace() {
    let Some(debian) = Debian::unpack() else { return };
    assert_eq!(debian.traces(), "");
    // A system that boots has it.
    debian.run(&["groupadd", "--system", "render"]).expect_code(0);
    debian.install(1);
    let version = debian.run(&["revoada", "--version"]).expect_code(0).stdout;
    assert_eq!(version.trim(), format!("revoada {}", env!("CARGO_PKG_VERSION")));
    let groups = debian.run(&["id", "--name", "--groups", "revoada"]).expect_code(0).stdout;
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>(), ["revoada", "video", "render"]);
    for page in ["revoada.1", "revoada-run.1", "revoada-doctor.1"] {
        let page = debian.path(&format!("/usr/share/man/man1/{page}.gz"));
        assert!(page.exists(), "{}", page.display());
    }
    debian.run(&["bash", "-n", "/usr/share/bash-completion/completions/revoada"]).expect_code(0);

    for unit in ["/lib/systemd/system/revoada@.service", "/lib/systemd/system/revoada-agent.service"] {
        let verified = debian.run(&["systemd-analyze", "verify", "--man=no", unit]);
        assert!(!verified.stderr.contains("revoada"), "{}", verified.stderr);
        // From 0, nothing can go wrong, to 100, everything is allowed; what systemd calls MEDIUM begins at 50.
        let exposure = ["systemd-analyze", "security", "--offline=yes", "--threshold=35", "--no-pager"];
        debian.run(&[&exposure[..], &[unit]].concat()).expect_code(0);
    }

    // The user of the service runs a pipeline that its folders hold.
    for folder in ["/var/lib/revoada", "/var/cache/revoada"] {
        debian.run(&["install", "--directory", "--owner=revoada", "--group=revoada", folder]).expect_code(0);
    }
    for file in ["models/efficientnet-lite0.onnx", "models/efficientnet-lite0.toml", "models/imagenet.txt"] {
        let from = asset(file);
        debian.copy(&from, &format!("/usr/share/models/{}", from.file_name().unwrap().to_string_lossy()));
    }
    let pipeline = "[[stream]]\nuri = \"test://smpte?width=320&height=240\"\n\
                    [model]\npath = \"/usr/share/models/efficientnet-lite0.onnx\"\n\
                    [[sink]]\ntype = \"jsonl\"\npath = \"/var/lib/revoada/door.jsonl\"\n";
    std::fs::write(debian.path("/etc/revoada/door.toml"), pipeline).unwrap();
    debian.run_as_service("revoada run /etc/revoada/door.toml --frames 5").expect_code(0);
    let results = std::fs::read_to_string(debian.path("/var/lib/revoada/door.jsonl")).unwrap();
    assert_eq!(results.matches("\"frame\":").count(), 5, "{results}");

    let edited = "REVOADA_LOG=warn\n";
    std::fs::write(debian.path("/etc/revoada/environment"), edited).unwrap();
    debian.install(2);
    assert_eq!(std::fs::read_to_string(debian.path("/etc/revoada/environment")).unwrap(), edited);
    let installed = debian.run(&["dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", "revoada"]);
    assert_eq!(installed.stdout, format!("{}-2 installed", env!("CARGO_PKG_VERSION")));

    debian.run(&["dpkg", "--remove", "revoada"]).expect_code(0);
    assert!(!debian.path("/usr/bin/revoada").exists());
    assert_eq!(std::fs::read_to_string(debian.path("/etc/revoada/environment")).unwrap(), edited, "until it is purged");
    debian.run(&["dpkg", "--purge", "revoada"]).expect_code(0);
    assert_eq!(debian.traces(), "/etc/revoada\n", "with the pipeline that the user wrote");
    assert!(debian.path("/etc/revoada/door.toml").exists());
    std::fs::remove_dir_all(debian.path("/etc/revoada")).unwrap();
    assert_eq!(debian.run(&["getent", "passwd", "revoada"]).code, Some(2), "the user is gone");
}
