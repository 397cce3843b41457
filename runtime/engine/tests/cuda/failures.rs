//! What cannot succeed, told apart: no device, no memory, no context any more.

use revoada_core::{
    Architecture, ChannelOrder, ColorSpec, DType, Frame, ImageTransform, PixelFormat, Placement, Rect, Size,
};
use revoada_emulator::{Emulated, Profile};
use revoada_engine::cuda::{
    CudaContext, CudaError, CudaStager, CudaSurface, Device, DeviceBuffer, KernelCache, Kernels, MemoryPolicy,
    SharedBuffer, StageRow, Stream, SurfacePool,
};

use crate::machine::{Machine, on_breaking_emulator, on_emulator};
use crate::stage_cases::noise;

const OUT_OF_MEMORY: u32 = 2;
const ILLEGAL_ADDRESS: u32 = 700;
const LAUNCH_FAILED: u32 = 719;

fn emulated(profile: Profile, failures: &[(&'static str, u32, u32)]) -> Emulated {
    Emulated { failures: failures.to_vec(), ..Emulated::new(profile) }
}

#[test]
fn a_driver_without_a_device_says_so() {
    on_emulator("failures::a_driver_without_a_device_says_so", &Emulated::new(Profile::None), |_| {
        let expected = "CUDA cannot be used here: `cuInit` failed with CUDA_ERROR_NO_DEVICE (100): no CUDA-capable \
                        device is detected";
        assert_eq!(Device::all().unwrap_err().to_string(), expected);
        // The first answer is kept.
        assert_eq!(CudaContext::open(0).unwrap_err().to_string(), expected);
    });
}

/// What a machine without a GPU says; one with a GPU has more to say in the other tests.
#[test]
fn a_machine_without_a_driver_says_so() {
    match Device::all() {
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("CUDA cannot be used here: ") && !error.contains('\n'), "{error}");
        }
        Ok(devices) => println!("skipped: a machine without a driver: this one has `{}`", devices[0].name),
    }
}

#[test]
fn a_device_is_described_as_its_driver_does() {
    let name = "failures::a_device_is_described_as_its_driver_does";
    on_emulator(name, &Emulated::new(Profile::Nano), |machine| {
        let context = machine.context();
        let device = context.device();
        assert_eq!(device.architecture, Architecture::new(5, 3));
        assert_eq!((device.multiprocessors, device.driver), (1, (12, 2)));
        assert_eq!(device.memory_bytes, 1 << 30);
        assert!(device.memory.integrated && !device.memory.concurrent_managed);
        assert_eq!(context.policy(), MemoryPolicy::Managed);
        assert_eq!(Device::all().unwrap(), std::slice::from_ref(device));
        let error = CudaContext::open(1).unwrap_err();
        assert_eq!(error.to_string(), "CUDA cannot be used here: there is no device 1, only 1 of them");

        let before = context.memory().unwrap();
        let buffer = DeviceBuffer::new(&context, 1 << 20).unwrap();
        let after = context.memory().unwrap();
        assert_eq!((before.total, before.free - after.free), (1 << 30, 1 << 20));
        drop(buffer);
    });
}

/// Wherever memory runs out, the error says what was asked for, nothing leaks, and the next try succeeds.
#[test]
fn running_out_of_memory_is_an_error_of_its_own() {
    let name = "failures::running_out_of_memory_is_an_error_of_its_own";
    let failures = [("cuMemAlloc_v2", 1, OUT_OF_MEMORY), ("cuMemHostAlloc", 2, OUT_OF_MEMORY)];
    on_emulator(name, &emulated(Profile::Discrete, &failures), |machine| {
        let context = machine.context();
        let refused = |error: CudaError, expected: &str| {
            assert!(matches!(error, CudaError::OutOfMemory { bytes: Some(4096), .. }), "{error}");
            assert_eq!(error.to_string(), expected);
        };
        let expected = "the GPU is out of memory: `cuMemAlloc_v2` was refused 4096 bytes";
        refused(DeviceBuffer::new(&context, 4096).unwrap_err(), expected);
        // The page-locked half is there, the other is not; then the other way round.
        SharedBuffer::new(&context, 4096).unwrap();
        let expected = "the GPU is out of memory: `cuMemHostAlloc` was refused 4096 bytes";
        refused(SharedBuffer::new(&context, 4096).unwrap_err(), expected);
        SharedBuffer::new(&context, 4096).unwrap();
        assert_eq!(context.lost(), None);
    });
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let name = "failures::more_memory_than_there_is_is_refused";
    let small = Emulated { memory_bytes: 1 << 20, ..Emulated::new(Profile::Nano) };
    on_emulator(name, &small, |machine| {
        let context = machine.context();
        let error = SharedBuffer::new(&context, (1 << 20) + 1).unwrap_err();
        assert!(matches!(error, CudaError::OutOfMemory { call: "cuMemAllocManaged", .. }), "{error}");
        // What was freed can be had again.
        for _ in 0..3 {
            SharedBuffer::new(&context, 1 << 20).unwrap();
        }
    });
}

/// A surface, a stager and a target, to fail with.
struct Scene {
    stream: Stream,
    surface: std::sync::Arc<CudaSurface>,
    stager: CudaStager,
    target: DeviceBuffer,
    transform: ImageTransform,
}

impl Scene {
    fn new(machine: &Machine) -> Self {
        let context = machine.context();
        let picture = noise(PixelFormat::Gray, ColorSpec::default(), Size::new(8, 8), 0, 1);
        let frame = Frame::still(picture.layout, picture.bytes).unwrap();
        Self {
            stream: Stream::new(&context).unwrap(),
            surface: SurfacePool::new(&context, 1).unwrap().import(&frame).unwrap(),
            stager: machine.kernels(&context).stager(1).unwrap(),
            target: DeviceBuffer::new(&context, 64).unwrap(),
            transform: ImageTransform { channels: ChannelOrder::Gray, ..ImageTransform::stretch(Size::new(8, 8)) },
        }
    }

    fn launch(&mut self) -> Result<(), CudaError> {
        let row = StageRow {
            surface: &self.surface,
            placement: Placement::new(Rect::new(0.0, 0.0, 8.0, 8.0), &self.transform),
            transform: &self.transform,
            dtype: DType::U8,
            target: self.target.device(),
        };
        self.stager.launch(&self.stream, &[row])
    }
}

/// A kernel that traps is noticed when somebody waits; from then on nothing is asked of the driver any more.
#[test]
fn a_lost_context_is_told_apart_and_left_alone() {
    let name = "failures::a_lost_context_is_told_apart_and_left_alone";
    let failures = [("cuLaunchKernel", 2, ILLEGAL_ADDRESS)];
    on_breaking_emulator(name, &emulated(Profile::Orin, &failures), |machine| {
        let mut scene = Scene::new(machine);
        scene.launch().unwrap();
        scene.launch().unwrap();
        let expected = "the GPU's context is lost since `cuEventSynchronize` failed with CUDA_ERROR_ILLEGAL_ADDRESS \
                        (700): an illegal memory access was encountered; only a new process can use the device again";
        let error = scene.stager.settle().unwrap_err();
        assert!(matches!(error, CudaError::ContextLost { .. }));
        assert_eq!(error.to_string(), expected);

        let calls = || {
            let log = machine.log().unwrap();
            ["cuCtxSetCurrent", "cuMemAlloc_v2", "cuLaunchKernel", "cuMemFreeHost"].map(|call| log.calls(call))
        };
        let before = calls();
        let context = std::sync::Arc::clone(scene.stream.context());
        assert_eq!(context.lost().unwrap().code, ILLEGAL_ADDRESS);
        // Everything that is tried tells of the first cause.
        assert_eq!(scene.launch().unwrap_err().to_string(), expected);
        assert_eq!(DeviceBuffer::new(&context, 1).unwrap_err().to_string(), expected);
        assert_eq!(context.memory().unwrap_err().to_string(), expected);
        drop(scene);
        assert_eq!(calls(), before);
    });
}

/// A launch that the driver refuses leaves the context, the stager and its surfaces usable.
fn a_refused_launch_can_be_tried_again(name: &str, profile: Profile) {
    let failures = [("cuLaunchKernel", 1, 1), ("cuLaunchKernel", 2, OUT_OF_MEMORY)];
    on_emulator(name, &emulated(profile, &failures), |machine| {
        let mut scene = Scene::new(machine);
        let error = scene.launch().unwrap_err();
        assert!(matches!(&error, CudaError::Driver { fault } if fault.call == "cuLaunchKernel"), "{error}");
        let error = scene.launch().unwrap_err();
        assert!(matches!(error, CudaError::OutOfMemory { bytes: None, .. }), "{error}");
        scene.launch().unwrap();
        scene.stager.settle().unwrap();
    });
}

#[test]
fn a_refused_launch_can_be_tried_again_on_a_nano() {
    a_refused_launch_can_be_tried_again("failures::a_refused_launch_can_be_tried_again_on_a_nano", Profile::Nano);
}

#[test]
fn a_refused_launch_can_be_tried_again_on_a_card() {
    a_refused_launch_can_be_tried_again("failures::a_refused_launch_can_be_tried_again_on_a_card", Profile::Discrete);
}

/// The parameters of a launch cannot be given back: the next launch waits for everything instead.
fn a_buffer_that_is_stranded_is_rescued(name: &str, profile: Profile, failure: (&'static str, u32, u32)) {
    on_emulator(name, &emulated(profile, &[failure]), |machine| {
        let mut scene = Scene::new(machine);
        assert!(matches!(scene.launch().unwrap_err(), CudaError::Driver { .. }));
        scene.launch().unwrap();
        scene.stager.settle().unwrap();
    });
}

#[test]
fn a_buffer_that_is_stranded_is_rescued_on_a_nano() {
    let name = "failures::a_buffer_that_is_stranded_is_rescued_on_a_nano";
    // The first hands over the surface, the second the parameters.
    a_buffer_that_is_stranded_is_rescued(name, Profile::Nano, ("cuStreamAttachMemAsync", 3, 1));
}

#[test]
fn a_buffer_that_is_stranded_is_rescued_on_an_orin() {
    let name = "failures::a_buffer_that_is_stranded_is_rescued_on_an_orin";
    // The first says that the surface is there.
    a_buffer_that_is_stranded_is_rescued(name, Profile::Orin, ("cuEventRecord", 2, 1));
}

#[test]
fn a_context_lost_during_a_launch_is_an_error_ever_after() {
    let name = "failures::a_context_lost_during_a_launch_is_an_error_ever_after";
    let failures = [("cuEventRecord", 2, LAUNCH_FAILED)];
    on_breaking_emulator(name, &emulated(Profile::Orin, &failures), |machine| {
        let mut scene = Scene::new(machine);
        for _ in 0..3 {
            let error = scene.launch().unwrap_err();
            assert!(matches!(&error, CudaError::ContextLost { fault } if fault.call == "cuEventRecord"), "{error}");
        }
    });
}

/// The kernel waits for pixels that were never sent, and the failure of the copy comes out where somebody waits.
#[test]
fn a_copy_that_breaks_the_context_loses_it_too() {
    let name = "failures::a_copy_that_breaks_the_context_loses_it_too";
    let failures = [("cuMemcpyHtoDAsync_v2", 2, LAUNCH_FAILED)];
    on_breaking_emulator(name, &emulated(Profile::Discrete, &failures), |machine| {
        let mut scene = Scene::new(machine);
        let error = scene.launch().unwrap_err();
        assert!(matches!(&error, CudaError::ContextLost { fault } if fault.call == "cuMemcpyHtoDAsync_v2"), "{error}");
    });
}

/// Objects are given back whichever of the calls that make them fails.
#[test]
fn nothing_leaks_wherever_making_a_stager_fails() {
    let name = "failures::nothing_leaks_wherever_making_a_stager_fails";
    let failures = [
        ("cuDevicePrimaryCtxRetain", 1, 1),
        ("cuModuleLoadData", 1, 200),
        ("cuModuleLoadData", 3, 209),
        ("cuModuleGetFunction", 1, 500),
        ("cuEventCreate", 1, 1),
        ("cuStreamCreate", 1, 1),
    ];
    on_emulator(name, &emulated(Profile::Discrete, &failures), |machine| {
        CudaContext::open(0).unwrap_err();
        let context = machine.context();
        let load = || Kernels::load(&context, &machine.compiler(), &KernelCache::new(machine.folder()));
        let error = load().unwrap_err();
        assert!(matches!(&error, CudaError::Driver { fault } if fault.name == "CUDA_ERROR_INVALID_IMAGE"), "{error}");
        let error = load().unwrap_err();
        assert!(matches!(&error, CudaError::Driver { fault } if fault.name == "CUDA_ERROR_NOT_FOUND"), "{error}");
        let error = load().unwrap_err();
        assert!(matches!(&error, CudaError::Driver { fault } if fault.code == 209), "{error}");
        let kernels = load().unwrap();
        kernels.stager(1).unwrap_err();
        kernels.stager(1).unwrap();
        SurfacePool::new(&context, 1).unwrap_err();
    });
}
