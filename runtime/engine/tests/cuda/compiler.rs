//! NVIDIA's compiler on our kernels, and the cache of what it makes.

use std::fs;
use std::path::PathBuf;

use revoada_core::Architecture;
use revoada_emulator::{Emulated, Log, Profile};
use revoada_engine::cuda::{
    CANDIDATES, Compiler, CudaError, KernelCache, KernelSource, Kernels, STAGE, compiler_candidates,
};

use crate::machine::{Machine, cached_compiler, on_emulator, real_compilers};

/// The real compiler, where it is installed; it needs no GPU.
fn real() -> Option<Compiler> {
    match Compiler::open(&real_compilers()) {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            println!("skipped: nvrtc: {error}");
            None
        }
    }
}

fn sm(number: u32) -> Architecture {
    Architecture::new(number / 10, number % 10)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The Nano's, Xavier's, Orin's and a discrete card's architecture, and the newest that the compiler knows.
#[test]
fn nvrtc_compiles_every_kernel_for_every_device() {
    let Some(compiler) = real() else { return };
    let known = compiler.architectures();
    let newest = *known.last().expect("an NVRTC that can say what it knows");
    for number in [53, 72, 87, 90, newest] {
        if !known.contains(&number) {
            println!("skipped: nvrtc for sm_{number}: version {:?} does not know it", compiler.version());
            continue;
        }
        let target = compiler.target(sm(number)).unwrap();
        assert_eq!(target.to_string(), format!("sm_{number}"));
        for source in [STAGE, CANDIDATES] {
            let image = compiler.compile(&source, target).unwrap();
            assert!(image.is_binary(), "{} for {target}", source.name);
            assert!(contains(image.as_bytes(), source.entry), "{} for {target}", source.name);
        }
    }
}

/// The driver compiles it further, as it does on CUDA 10.2, whose NVRTC knows no other way.
#[test]
fn a_device_newer_than_nvrtc_gets_the_newest_ptx() {
    let Some(compiler) = real() else { return };
    let newest = *compiler.architectures().last().unwrap();
    let target = compiler.target(Architecture::new(99, 0)).unwrap();
    assert_eq!(target.to_string(), format!("compute_{newest}"));
    let image = compiler.compile(&STAGE, target).unwrap();
    assert!(!image.is_binary() && contains(image.as_bytes(), &format!(".target sm_{newest}")));
    let error = compiler.target(Architecture::new(1, 0)).unwrap_err();
    assert!(error.to_string().ends_with("knows nothing that a device of compute capability 1.0 runs"), "{error}");
}

#[test]
fn a_kernel_that_does_not_compile_is_named_with_its_line() {
    let Some(compiler) = real() else { return };
    let source = KernelSource { name: "broken.cu", text: "\nint x = y;\n", entry: "x" };
    let error = compiler.compile(&source, compiler.target(sm(87)).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("cannot compile `broken.cu` for sm_87: broken.cu(2): error:"), "{error}");
}

/// What NVIDIA's compiler made is loaded by name. Only the cached one is tried: by the names of the others the emulated
/// compiler is found.
#[test]
fn a_real_image_is_loaded() {
    if !cached_compiler().exists() {
        println!("skipped: nvrtc: there is no `{}`", cached_compiler().display());
        return;
    }
    on_emulator("compiler::a_real_image_is_loaded", &Emulated::new(Profile::Orin), |machine| {
        let context = machine.context();
        let compiler = Compiler::open(&[cached_compiler()]).unwrap();
        let cache = KernelCache::new(machine.folder());
        assert!(cache.image(&compiler, &STAGE, context.device().architecture).unwrap().is_binary());
        let kernels = Kernels::load(&context, &compiler, &cache).unwrap();
        kernels.stager(1).unwrap();
        assert_eq!(compiled(machine), 0, "the emulated compiler was asked");
    });
}

#[test]
fn without_nvrtc_the_places_looked_at_are_named() {
    let error = Compiler::open(&[PathBuf::from("/nowhere/libnvrtc.so.12")]).unwrap_err();
    let expected = "no compiler for CUDA kernels: NVRTC is not installed; looked for `/nowhere/libnvrtc.so.12`";
    assert_eq!(error.to_string(), expected);
    assert!(compiler_candidates().contains(&PathBuf::from("libnvrtc.so.13")));
    // A library, but not this one; nor the emulated driver, which the tests on the real GPU would find opened.
    let error = Compiler::open(&[PathBuf::from("libc.so.6")]).unwrap_err();
    assert!(error.to_string().ends_with("lacks `nvrtcVersion`"), "{error}");
}

/// How often the emulated compiler was asked.
fn compiled(machine: &Machine) -> usize {
    machine.log().as_ref().map(|log: &Log| log.calls("nvrtcCompileProgram")).unwrap()
}

#[test]
fn a_kernel_is_compiled_once_for_each_device() {
    let name = "compiler::a_kernel_is_compiled_once_for_each_device";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let compiler = machine.compiler();
        let cache = KernelCache::new(&machine.folder().join("kernels"));
        let first = cache.image(&compiler, &STAGE, sm(87)).unwrap();
        assert_eq!(cache.image(&compiler, &STAGE, sm(87)).unwrap(), first);
        assert_eq!(compiled(machine), 1);
        cache.image(&compiler, &STAGE, sm(53)).unwrap();
        cache.image(&compiler, &CANDIDATES, sm(87)).unwrap();
        assert_eq!(compiled(machine), 3);
        // A failure is not kept.
        let broken = KernelSource { name: "broken.cu", text: "#error", entry: "x" };
        for _ in 0..2 {
            let error = cache.image(&compiler, &broken, sm(87)).unwrap_err();
            assert!(matches!(error, CudaError::Compile { source_name: "broken.cu", .. }), "{error}");
        }
        assert_eq!(compiled(machine), 5);
    });
}

#[test]
fn a_damaged_image_is_compiled_again() {
    let name = "compiler::a_damaged_image_is_compiled_again";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let compiler = machine.compiler();
        let folder = machine.folder().join("kernels");
        let cache = KernelCache::new(&folder);
        let image = cache.image(&compiler, &STAGE, sm(87)).unwrap();
        let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (count, damaged) in [&whole[..whole.len() - 1], &whole[..20], b"", &flipped].into_iter().enumerate() {
            fs::write(&file, damaged).unwrap();
            assert_eq!(cache.image(&compiler, &STAGE, sm(87)).unwrap(), image);
            assert_eq!(compiled(machine), 2 + count);
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
    });
}

#[test]
fn the_cache_is_bounded_and_keeps_the_newest() {
    let name = "compiler::the_cache_is_bounded_and_keeps_the_newest";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let compiler = machine.compiler();
        let folder = machine.folder().join("kernels");
        let cache = KernelCache::with_images_max(&folder, 2);
        let start = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
        // A process was killed while it wrote.
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("0123.tmp4-5"), "half").unwrap();
        for (age, number) in [(0, 53), (1, 72), (2, 87)] {
            cache.image(&compiler, &STAGE, sm(number)).unwrap();
            // Whatever the clock of the file system does, the order is told.
            for entry in fs::read_dir(&folder).unwrap() {
                let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
                if file.metadata().unwrap().modified().unwrap() > start + std::time::Duration::from_secs(500) {
                    file.set_modified(start + std::time::Duration::from_secs(age)).unwrap();
                }
            }
        }
        let kept = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(kept().count(), 2);
        assert!(kept().all(|path| path.extension().unwrap() == "kernel"));
        cache.image(&compiler, &STAGE, sm(87)).unwrap();
        cache.image(&compiler, &STAGE, sm(72)).unwrap();
        assert_eq!(compiled(machine), 3);
        cache.image(&compiler, &STAGE, sm(53)).unwrap();
        assert_eq!(compiled(machine), 4);
    });
}

/// A cache that cannot be written costs time and not the start.
#[test]
fn a_cache_without_a_folder_still_compiles() {
    let name = "compiler::a_cache_without_a_folder_still_compiles";
    on_emulator(name, &Emulated::new(Profile::Orin), |machine| {
        let file = machine.folder().join("file");
        fs::write(&file, "in the way").unwrap();
        let cache = KernelCache::new(&file);
        for count in 1..3 {
            cache.image(&machine.compiler(), &STAGE, sm(87)).unwrap();
            assert_eq!(compiled(machine), count);
        }
    });
}
