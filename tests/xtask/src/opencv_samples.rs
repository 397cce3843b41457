//! Photographs of OpenCV's samples, out of a Debian package: the larger half of those that INT8 is judged on.
//!
//! The package has 96 MB, so only what asks for the whole measurement fetches it. Nothing is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::progress::step;
use crate::stamp::sha256;
use crate::workspace::Workspace;

const PACKAGE: &str = "opencv-doc";
const INSIDE: &str = "usr/share/doc/opencv-doc/examples";
const FOLDER: &str = "photographs/opencv";
const LICENCE: &str = "Apache-2.0 (the package)";

/// Below [`INSIDE`], with the SHA-256. The package's pictures in colour that show things as a lens sees them, one of
/// each scene: no drawings, paintings, renderings, masks, scans, grey or deliberately blurred pictures.
const PHOTOGRAPHS: &[(&str, &str)] = &[
    ("alphamat/input_images/plant.jpg", "9928b44eee0d1d7ab2ffd9d6d80bbbff962d6e85c7786de2cd3c97fe72229186"),
    ("data/aero1.jpg", "d9a69191f6e3642ea361bc3c62e677b2f40fe6534b78da540f4155e0734b59ef"),
    ("data/aloeL.jpg", "cce5736808efe80d9f04b118dbb978c344d4345672b332718c3e039a3eeb8eee"),
    ("data/apple.jpg", "e86879de3d9a807dedc742a8f464f39e6b74bbb531a1fba3583155d94997d1cd"),
    ("data/baboon.jpg", "1a1dd18d78eec44420af3b0b7f08ee3d41c982916cae3ce203d7ff35d754cc0f"),
    ("data/board.jpg", "4c9a24ba67138ad5486d550f586cc5dd1161be112f1c1bea336d6c550cdf255f"),
    ("data/building.jpg", "742a1baad62ac82e91e718e77eedf7e85c2eddc4badfb8c87c6cbc86c45a8b07"),
    ("data/butterfly.jpg", "34a99716b78ded10eae87b4880de739d3e68cc7dd1a96812bb28f469d5eeaea8"),
    ("data/chicky_512.png", "4d2cf040de084fd3f34d5e3f96f1251faaa4787c1ac3b548fec5809a0d01854e"),
    ("data/ela_original.jpg", "b55798b35e2dcb24675f0865a2442d0e4887eeb6aff322ecb1968d936cc23e7f"),
    ("data/fruits.jpg", "9c031d80a1c52da5eca790db896baffec6a7e52bf786cdb7bbfca5c7f880e6a1"),
    ("data/graf1.png", "1504b769303c7bde00fa578eeaad3c68e02aceabeb1242e556f1f8d19e4bdea5"),
    ("data/home.jpg", "23b8cf46a1965d0ec33459b875aed43187802834db49e0daa9fa2cc842e9d8d2"),
    ("data/left.jpg", "fb314330c3eb0a81651c682803e73b348898157267fbc37c4c2c07d1b3a8e321"),
    ("data/leuvenA.jpg", "b2977cdbd9fb3f94dadd6f76cf586d145676deb8a22b5f0f42149d21c058c09f"),
    ("data/messi5.jpg", "1d570e49654e84c7a943918537bd9e5e1ef82920152e147c834006e235be97c9"),
    ("data/orange.jpg", "152c20d2f380ac985de25e474e1a5f06ed34b932191342099b8272a63a15a079"),
    ("data/rubberwhale1.png", "eb312435369dac9efcc92f7e098edbd9ed8d7e6dfede8b3b4d8e3702cd80b796"),
    ("data/smarties.png", "ad3f751c053fdcf432687c1bc0e56a61a9119d2bb2ae29365f8aa6534fc77417"),
    ("data/squirrel_cls.jpg", "20bb6e8ae96918a36c9886b6d48e54eedeb3948591e1485c206bc1dc60c8dc8b"),
    ("data/stuff.jpg", "21cd00afbdd0727f445dd91c0a09633e6345ed5b05a3d2355453a1f3c314c6c5"),
    ("dnn_superres/butterfly.png", "1c50e61afddd60ebb3829d85187f4e46c9eb8fd8249237ddf0c8904a3286598d"),
    ("hfs/data/000.jpg", "e4fec7e2e67a8a425b512dc32452825655b11c7fa83326ae509c5c7ab138da9a"),
    ("hfs/data/001.jpg", "4bcbe0927a8b50f2487463894328da66cddf37f2daa88448258b72892d1f7a23"),
    ("hfs/data/002.jpg", "21b07a5287dec0306846191abf720c352e57b2c6b42bb30885c9deb02664ada7"),
    ("reg/home.png", "205d424fb53bc9a2d62d03e16a33f70d8609d4602e06194cf6218a3666226512"),
    ("text/scenetext01.jpg", "7f3041a7019ab4d33d2452bc757d8c4f38616bfde71431e12f7ec370d7b2018e"),
    ("text/scenetext02.jpg", "d4295bff9f348012f91a2cf745753124f85041fe3c3717146c6759c4cd977211"),
    ("text/scenetext03.jpg", "cadf4a3d29a7ba6fe976b53fa65f490cc2868375e8feb3d93f26029f05c662ca"),
    ("text/scenetext04.jpg", "28e08d142a04f92f96d01ff2674f7804321841cba95bd968980cdc85ef0af6df"),
    ("text/scenetext05.jpg", "63985ac1a9989a8320605d5be0ec285af0c6304a78cc9cc5de6c2c7c435f7c0b"),
    ("text/scenetext06.jpg", "e4d64f10bbfb27b2c5980cb048fd0abe20dd74868ba5460298de473ced53b518"),
];

/// Fetches the package unless every photograph lies in the cache, whole.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    let target = |inside: &str| workspace.cached(&format!("{FOLDER}/{}", inside.replace('/', "-")));
    let is_here = |(inside, hash): &(&str, &str)| sha256(&target(inside)).is_ok_and(|found| found == *hash);
    if PHOTOGRAPHS.iter().all(is_here) {
        return Ok(());
    }
    step(&format!("fetch {PACKAGE}"), || {
        let folder = workspace.cached(&format!("downloads/{PACKAGE}"));
        // What an interrupted run has left is of unknown size and age.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
        }
        for wanted in [&folder, &workspace.cached(FOLDER)] {
            fs::create_dir_all(wanted).with_context(|| format!("cannot make `{}`", wanted.display()))?;
        }
        process::output(Command::new("apt-get").args(["download", "--quiet", PACKAGE]).current_dir(&folder))?;
        let mut files = fs::read_dir(&folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
        let archive = files.next().context("apt-get has left no file")?.context("cannot read what it has left")?.path();
        let unpacked = folder.join("unpacked");
        process::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unpacked))?;
        for (inside, hash) in PHOTOGRAPHS {
            keep(&unpacked.join(INSIDE).join(inside), hash, &target(inside))?;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))
    })
}

fn keep(found: &Path, expected: &str, target: &Path) -> Result<()> {
    let hash = sha256(found).with_context(|| format!("cannot read `{}`", found.display()))?;
    if hash != expected {
        bail!("`{}` is not the file that was pinned: its SHA-256 is {hash}, not {expected}", found.display());
    }
    fs::rename(found, target).with_context(|| format!("cannot put `{}` in place", target.display()))
}

/// What is fetched, for people.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for (inside, hash) in PHOTOGRAPHS {
        text += &format!(
            ".cache/{FOLDER}/{}\n    photograph, for `test --full` and `bench quantise` only\n    from   {PACKAGE} (Debian), \
             {INSIDE}/{inside}\n    licence {LICENCE}\n    sha256 {hash}\n",
            inside.replace('/', "-")
        );
    }
    text
}
