//! Staging on a device against its definition.

use std::sync::Arc;

use half::f16;
use proptest::test_runner::{Config, TestRunner};
use revoada_core::{
    ChannelOrder, ColorSpec, DType, Fit, Frame, ImageTransform, Layout, PixelFormat, Placement, Rect, Size,
};
use revoada_engine::cuda::{
    CudaContext, CudaError, CudaStager, CudaSurface, SharedBuffer, StageRow, Stream, SurfacePool,
};
use revoada_engine::{StageTarget, Stager};

use crate::machine::Machine;
use crate::stage_cases::{
    BAD_NUMBERS, FORMATS, Picture, check, noise, pictures, region_of, regions, transforms, whole_number_ratios,
};

/// All that staging takes.
struct Rig {
    context: Arc<CudaContext>,
    stream: Stream,
    pool: SurfacePool,
    stager: CudaStager,
}

/// What target memory holds before it is staged into.
const BEFORE: u8 = 0xaa;

impl Rig {
    fn new(machine: &Machine, rows_max: usize) -> Self {
        let context = machine.context();
        let stager = machine.kernels(&context).stager(rows_max).unwrap();
        Self { stream: Stream::new(&context).unwrap(), pool: SurfacePool::new(&context, 4).unwrap(), stager, context }
    }

    fn import(&self, picture: &Picture) -> Arc<CudaSurface> {
        self.pool.import(&Frame::still(picture.layout, picture.bytes.clone()).unwrap()).unwrap()
    }

    /// Memory for a target, full of what was there before.
    fn target(&self, bytes: usize) -> SharedBuffer {
        let mut target = SharedBuffer::new(&self.context, bytes).unwrap();
        target.host_mut().unwrap().fill(BEFORE);
        target.upload(&self.stream, 0..bytes).unwrap();
        target
    }

    /// Stages into the second of three rows, and sees that the others are left alone.
    fn stage(&mut self, picture: &Picture, placement: &Placement, transform: &ImageTransform, target: StageTarget<'_>) {
        let surface = self.import(picture);
        let (dtype, len) = match &target {
            StageTarget::F32(data) => (DType::F32, data.len()),
            StageTarget::F16(data) => (DType::F16, data.len()),
            StageTarget::U8(data) => (DType::U8, data.len()),
        };
        let bytes = len * dtype.size();
        let mut memory = self.target(3 * bytes);
        let row = StageRow {
            surface: &surface,
            placement: *placement,
            transform,
            dtype,
            target: memory.device().slice(bytes..2 * bytes).unwrap(),
        };
        self.stager.launch(&self.stream, &[row]).unwrap();
        memory.download(&self.stream, 0..3 * bytes).unwrap();
        let all = memory.host().unwrap();
        assert!(all[..bytes].iter().chain(&all[2 * bytes..]).all(|byte| *byte == BEFORE), "another row was written");
        let staged = &all[bytes..2 * bytes];
        match target {
            StageTarget::F32(data) => data.copy_from_slice(&singles(staged)),
            StageTarget::F16(data) => data.copy_from_slice(&halves(staged)),
            StageTarget::U8(data) => data.copy_from_slice(staged),
        }
    }

    fn check(&mut self, picture: &Picture, placement: &Placement, transform: &ImageTransform) {
        let stage = |picture: &Picture, placement: &Placement, transform: &ImageTransform, target: StageTarget<'_>| {
            self.stage(picture, placement, transform, target);
        };
        check(stage, picture, placement, transform);
    }
}

fn singles(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.chunks_exact(2).map(|bytes| f16::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn staging_equals_its_definition(machine: &Machine) {
    let mut rig = Rig::new(machine, 1);
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let cases = (pictures(), transforms(), regions(), proptest::bool::ANY);
    let rig = std::cell::RefCell::new(&mut rig);
    let result = runner.run(&cases, |(picture, transform, fraction, whole_pixels)| {
        let placement = Placement::new(region_of(&picture, fraction, whole_pixels), &transform);
        rig.borrow_mut().check(&picture, &placement, &transform);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn whole_number_ratios_equal_the_definition(machine: &Machine) {
    let mut rig = Rig::new(machine, 1);
    for (picture, transform) in whole_number_ratios() {
        let placement = Placement::new(Rect::of(picture.layout.size), &transform);
        rig.check(&picture, &placement, &transform);
    }
}

/// Other pictures, networks, layouts and element types in every row, and still one launch.
pub(crate) fn a_batch_may_mix_everything(machine: &Machine) {
    let mut rig = Rig::new(machine, FORMATS.len());
    let pictures: Vec<_> = FORMATS
        .iter()
        .zip(3..)
        .map(|(format, seed)| noise(*format, ColorSpec::default(), Size::new(20 + 7 * seed as usize, 31), 3, seed))
        .collect();
    let transforms: Vec<_> = (0..FORMATS.len())
        .map(|index| ImageTransform {
            layout: if index % 2 == 0 { Layout::Nchw } else { Layout::Nhwc },
            channels: [ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray][index % 3],
            fit: [Fit::Stretch, Fit::letterbox_centered(), Fit::CenterCrop][index % 3],
            ..ImageTransform::stretch(Size::new(17 + 20 * index, 60 - 9 * index))
        })
        .collect();
    let dtypes = [DType::F32, DType::U8, DType::F32, DType::U8, DType::F32];
    let sizes: Vec<_> = transforms
        .iter()
        .zip(dtypes)
        .map(|(transform, dtype)| {
            transform.channels.channels() * transform.size.width * transform.size.height * dtype.size()
        })
        .collect();
    let surfaces: Vec<_> = pictures.iter().map(|picture| rig.import(picture)).collect();
    let mut targets: Vec<_> = sizes.iter().map(|bytes| rig.target(*bytes)).collect();
    let placement = |index: usize| Placement::new(Rect::of(pictures[index].layout.size), &transforms[index]);

    let launches = machine.log().map(|log| log.calls("cuLaunchKernel"));
    let rows: Vec<_> = (0..pictures.len())
        .map(|index| StageRow {
            surface: &surfaces[index],
            placement: placement(index),
            transform: &transforms[index],
            dtype: dtypes[index],
            target: targets[index].device(),
        })
        .collect();
    rig.stager.launch(&rig.stream, &rows).unwrap();
    if let Some(log) = machine.log() {
        assert_eq!(log.calls("cuLaunchKernel"), launches.unwrap() + 1);
    }

    let mut on_cpu = Stager::new();
    for (index, target) in targets.iter_mut().enumerate() {
        target.download(&rig.stream, 0..sizes[index]).unwrap();
        let (image, transform) = (pictures[index].view(), &transforms[index]);
        let expected: Vec<f32> = match dtypes[index] {
            DType::U8 => {
                let mut bytes = vec![0; sizes[index]];
                on_cpu.stage(&image, &placement(index), transform, StageTarget::U8(&mut bytes));
                bytes.into_iter().map(f32::from).collect()
            }
            _ => {
                let mut floats = vec![0.0; sizes[index] / 4];
                on_cpu.stage(&image, &placement(index), transform, StageTarget::F32(&mut floats));
                floats
            }
        };
        let (allowed, got) = match dtypes[index] {
            // Where the CPU lands just below a half and the device just above.
            DType::U8 => (1.0, target.host().unwrap().iter().copied().map(f32::from).collect()),
            _ => (2.0 / 255.0, singles(target.host().unwrap())),
        };
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= allowed, "row {index}: {got}, not {expected}");
        }
    }
}

/// Every size of number that a half can hold, from what vanishes to what overflows, against the `half` crate.
pub(crate) fn halves_are_rounded_as_by_ieee_754(machine: &Machine) {
    let mut rig = Rig::new(machine, 1);
    let picture = noise(PixelFormat::Gray, ColorSpec::default(), Size::new(256, 16), 0, 9);
    for exponent in -34..12 {
        for (factor, mean) in [(1.0, 0.0), (-1.0, 0.0), (1.3, 0.5), (-0.7, 100.25)] {
            let transform = ImageTransform {
                channels: ChannelOrder::Gray,
                mean: [mean; 3],
                scale: [factor * f32::from(2u8).powi(exponent); 3],
                ..ImageTransform::stretch(picture.layout.size)
            };
            let placement = Placement::new(Rect::of(picture.layout.size), &transform);
            let len = picture.bytes.len();
            let (mut single, mut half) = (vec![0f32; len], vec![f16::ZERO; len]);
            rig.stage(&picture, &placement, &transform, StageTarget::F32(&mut single));
            rig.stage(&picture, &placement, &transform, StageTarget::F16(&mut half));
            for (single, half) in single.iter().zip(&half) {
                assert_eq!(half.to_bits(), f16::from_f32(*single).to_bits(), "{single}");
            }
        }
    }
}

pub(crate) fn a_region_without_numbers_in_it_stays_inside_the_picture(machine: &Machine) {
    let mut rig = Rig::new(machine, 1);
    let picture = noise(PixelFormat::Nv12, ColorSpec::default(), Size::new(9, 7), 0, 1);
    let transform = ImageTransform::stretch(Size::new(5, 5));
    let whole = Rect::new(0.0, 0.0, 5.0, 5.0);
    let mut target = [0f32; 75];
    for bad in BAD_NUMBERS {
        for region in [Rect::new(bad, 0.0, 4.0, 4.0), Rect::new(0.0, bad, 4.0, 4.0), Rect::new(1.0, 1.0, bad, bad)] {
            for placement in [
                Placement { source: region, target: whole },
                Placement { source: Rect::new(0.0, 0.0, 9.0, 7.0), target: region },
            ] {
                rig.stage(&picture, &placement, &transform, StageTarget::F32(&mut target));
                assert!(target.iter().all(|value| (0.0..=255.0).contains(value)), "{placement:?}: {target:?}");
            }
        }
    }
}

pub(crate) fn rows_that_do_not_fit_are_refused_by_number(machine: &Machine) {
    let mut rig = Rig::new(machine, 2);
    let picture = noise(PixelFormat::Gray, ColorSpec::default(), Size::new(4, 4), 0, 1);
    let surface = rig.import(&picture);
    let transform = ImageTransform::stretch(Size::new(4, 4));
    let target = rig.target(4 * 48 + 4);
    let row = |dtype: DType, bytes: std::ops::Range<usize>| StageRow {
        surface: &surface,
        placement: Placement::new(Rect::new(0.0, 0.0, 4.0, 4.0), &transform),
        transform: &transform,
        dtype,
        target: target.device().slice(bytes).unwrap(),
    };
    let good = row(DType::F32, 0..192);
    for (bad, expected) in [
        (row(DType::F32, 0..188), "row 1 cannot be staged: the target is not 192 bytes of f32"),
        (row(DType::F32, 1..193), "row 1 cannot be staged: the target is not 192 bytes of f32"),
        (row(DType::I64, 0..192), "row 1 cannot be staged: i64 is no type for pictures"),
    ] {
        let error = rig.stager.launch(&rig.stream, &[good, bad]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = rig.stager.launch(&rig.stream, &[good, good, good]).unwrap_err();
    assert!(matches!(error, CudaError::Batch { rows: 3, rows_max: 2 }), "{error}");
    // A refusal leaves nothing behind.
    rig.stager.launch(&rig.stream, &[good, good]).unwrap();
}

/// The surface is let go and its memory wanted again while the launch that reads it has not run.
pub(crate) fn a_surface_in_use_is_not_overwritten(machine: &Machine) {
    let mut rig = Rig::new(machine, 1);
    let transform = ImageTransform { channels: ChannelOrder::Gray, ..ImageTransform::stretch(Size::new(8, 8)) };
    let [first, second] = [1, 2].map(|seed| noise(PixelFormat::Gray, ColorSpec::default(), Size::new(8, 8), 0, seed));
    let placement = Placement::new(Rect::of(first.layout.size), &transform);
    let mut target = rig.target(64);

    let surface = rig.import(&first);
    let row =
        StageRow { surface: &surface, placement, transform: &transform, dtype: DType::U8, target: target.device() };
    rig.stager.launch(&rig.stream, &[row]).unwrap();
    drop(surface);
    let _other = rig.import(&second);
    target.download(&rig.stream, 0..64).unwrap();
    assert_eq!(target.host().unwrap(), first.bytes);
    assert_eq!(rig.pool.idle(), 0);
    rig.stager.settle().unwrap();
    assert_eq!(rig.pool.idle(), 1);
}

/// Two sessions on two threads, each with its own stream, read what was uploaded once.
pub(crate) fn stagers_on_threads_share_a_surface(machine: &Machine) {
    let rig = Rig::new(machine, 1);
    let kernels = machine.kernels(&rig.context);
    let picture = noise(PixelFormat::Nv12, ColorSpec::default(), Size::new(64, 48), 0, 5);
    let surface = rig.import(&picture);
    let transform = ImageTransform::stretch(Size::new(32, 24));
    let placement = Placement::new(Rect::of(picture.layout.size), &transform);
    let stage = || {
        let (mut stager, stream) = (kernels.stager(1).unwrap(), Stream::new(&rig.context).unwrap());
        let mut target = SharedBuffer::new(&rig.context, 3 * 32 * 24).unwrap();
        let mut results = Vec::new();
        for _ in 0..20 {
            target.upload(&stream, 0..0).unwrap();
            let row = StageRow {
                surface: &surface,
                placement,
                transform: &transform,
                dtype: DType::U8,
                target: target.device(),
            };
            stager.launch(&stream, &[row]).unwrap();
            target.download(&stream, 0..3 * 32 * 24).unwrap();
            results.push(target.host().unwrap().to_vec());
        }
        results
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(stage), scope.spawn(stage)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected = vec![0; 3 * 32 * 24];
    Stager::new().stage(&picture.view(), &placement, &transform, StageTarget::U8(&mut expected));
    for result in &results {
        assert_eq!(result, &results[0]);
        assert!(result.iter().zip(&expected).all(|(got, expected)| got.abs_diff(*expected) <= 1));
    }
}
