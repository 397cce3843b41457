//! Picks the pixels of four network pixels with one instruction, on processors with AVX2.
//!
//! A byte shuffle picks any 16 bytes out of 16 that lie together in memory. That serves four words
//! as long as their pixels lie that close, which they do up to a reduction of four for luma and two
//! for interleaved chroma; the rest, and other processors, pick one word at a time (`rows`).

/// Bytes in a word and in four.
const WORD: usize = 4;
const GROUP: usize = 4 * WORD;

/// How to fill four words.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AVX2 reads the table"))]
struct Shuffle {
    /// Where in the row the 16 bytes begin.
    start: u32,
    /// For each byte of the words, which of the 16; none where the top bit is set.
    picks: [u8; GROUP],
}

const NOTHING: u8 = 0x80;

/// The shuffles of a whole row; none at all where any of them would have to reach too far.
#[derive(Debug, Default)]
pub(super) struct Shuffles(Vec<Shuffle>);

impl Shuffles {
    /// Makes the table for words of `bytes` bytes, each of which begins at `step * first`, in rows of
    /// `row` bytes.
    pub(super) fn prepare(&mut self, first: &[u32], step: usize, bytes: usize, row: usize) {
        self.0.clear();
        if bytes > WORD || row < GROUP {
            return;
        }
        for group in first.chunks(GROUP / WORD) {
            let begin = |first: &u32| *first as usize * step;
            let start = group.iter().map(begin).min().unwrap_or(0).min(row - GROUP);
            let mut picks = [NOTHING; GROUP];
            for (word, first) in picks.chunks_exact_mut(WORD).zip(group) {
                let offset = begin(first) - start;
                if offset + bytes > GROUP {
                    self.0.clear();
                    return;
                }
                for (byte, pick) in word[..bytes].iter_mut().enumerate() {
                    *pick = (offset + byte) as u8;
                }
            }
            self.0.push(Shuffle { start: start as u32, picks });
        }
    }
}

/// Fills `words`, or returns false where that takes another way.
#[cfg(target_arch = "x86_64")]
pub(super) fn gather(arch: pulp::Arch, row: &[u8], shuffles: &Shuffles, words: &mut [u32]) -> bool {
    let pulp::Arch::V3(simd) = arch else { return false };
    if shuffles.0.is_empty() {
        return false;
    }
    pulp::Simd::vectorize(simd, x86::Gather { simd, row, shuffles: &shuffles.0, words });
    true
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn gather(_: pulp::Arch, _: &[u8], _: &Shuffles, _: &mut [u32]) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__m128i;

    use pulp::x86::V3;
    use pulp::{Simd, WithSimd, cast};

    use super::{GROUP, Shuffle, WORD};

    pub(super) struct Gather<'a> {
        pub(super) simd: V3,
        pub(super) row: &'a [u8],
        pub(super) shuffles: &'a [Shuffle],
        pub(super) words: &'a mut [u32],
    }

    impl WithSimd for Gather<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self { simd, row, shuffles, words } = self;
            let (words, _) = words.as_chunks_mut::<{ GROUP / WORD }>();
            for (words, shuffle) in words.iter_mut().zip(shuffles) {
                let (bytes, _) =
                    row[shuffle.start as usize..].split_first_chunk::<GROUP>().expect("it starts 16 before the end");
                let picked = simd.ssse3._mm_shuffle_epi8(cast::<_, __m128i>(*bytes), cast::<_, __m128i>(shuffle.picks));
                *words = cast(picked);
            }
        }
    }
}
