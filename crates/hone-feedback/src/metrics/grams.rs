//! n-grams of all orders to `N`, counted without hashing: the `N` items from each place on are packed into one number,
//! and the numbers sorted once. What begins them, the shorter n-grams, is then in order too.

use std::ops::{BitOr, Shl, Shr};

use rustc_hash::FxHashMap;

/// A number that holds an n-gram.
pub(super) trait Packed:
    Copy + Ord + Default + From<u32> + Shl<u32, Output = Self> + Shr<u32, Output = Self> + BitOr<Output = Self>
{
    /// Its width in bits.
    const BITS: u32;
}

impl Packed for u64 {
    const BITS: u32 = 64;
}

impl Packed for u128 {
    const BITS: u32 = 128;
}

/// The n-grams of a text, sorted; places past the end hold 0.
#[derive(Debug)]
pub(super) struct Grams<P, const N: usize>(Vec<P>);

impl<P: Packed, const N: usize> Grams<P, N> {
    const ITEM: u32 = P::BITS / N as u32;

    /// Whether items up to this one can be packed.
    pub fn hold(largest: u32) -> bool {
        Self::ITEM >= 32 || largest < 1 << Self::ITEM
    }

    /// Items are at least 1, and [`Grams::hold`] holds of the largest.
    pub fn new(items: &[u32]) -> Self {
        let shift = Self::ITEM * (N as u32 - 1);
        let mut next = P::default();
        // From the end, so that each place puts its item before those of the next place.
        let packed = items.iter().rev().map(|&item| {
            next = (P::from(item) << shift) | (next >> Self::ITEM);
            next
        });
        let mut grams: Vec<P> = packed.collect();
        grams.sort_unstable();
        Grams(grams)
    }

    /// How many n-grams of this order there are.
    pub fn count(&self, order: usize) -> usize {
        (self.0.len() + 1).saturating_sub(order)
    }

    /// How many n-grams of each order are in the references too, each as often as it is here and in the reference that
    /// has it most often.
    pub fn shared(&self, references: &[Self]) -> [usize; N] {
        let mut places = vec![0; references.len()];
        std::array::from_fn(|index| {
            let cut = Self::ITEM * (N - 1 - index) as u32;
            let begins = |gram: &P| *gram >> cut;
            // Zero stands where the text has ended: such a beginning is no n-gram of this order.
            let whole = |gram: P| ((gram >> Self::ITEM) << Self::ITEM) != gram;
            places.fill(0);
            let (mut shared, mut at) = (0, 0);
            while let Some(gram) = self.0.get(at).map(begins) {
                let here = run(&self.0[at..], gram, begins);
                at += here;
                let mut most = 0;
                for (place, reference) in places.iter_mut().zip(references) {
                    while reference.0.get(*place).is_some_and(|other| begins(other) < gram) {
                        *place += 1;
                    }
                    let there = run(&reference.0[*place..], gram, begins);
                    *place += there;
                    most = there.max(most);
                }
                if whole(gram) {
                    shared += here.min(most);
                }
            }
            shared
        })
    }
}

/// How many grams in a row begin like this one.
fn run<P: Packed>(grams: &[P], gram: P, begins: impl Fn(&P) -> P) -> usize {
    grams.iter().take_while(|other| begins(other) == gram).count()
}

/// Numbers for words, from 1 in the order in which they first come.
#[derive(Debug, Default)]
pub(super) struct Words<'a>(FxHashMap<&'a str, u32>);

impl<'a> Words<'a> {
    /// The numbers of these words.
    pub fn number(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        // Growing step by step would hash every word several times.
        self.0.reserve(64);
        words
            .map(|word| {
                let next = self.0.len() as u32 + 1;
                *self.0.entry(word).or_insert(next)
            })
            .collect()
    }

    /// The largest number given.
    pub fn largest(&self) -> u32 {
        self.0.len() as u32
    }
}

/// How many n-grams of one order two texts share, each as often as it occurs in both. The items are numbers from
/// [`Words`], of one count for both.
pub(super) fn common(a: &[u32], b: &[u32], order: usize) -> usize {
    if order == 1 {
        let largest = a.iter().max().map_or(0, |item| *item as usize);
        let mut left = vec![0u32; largest + 1];
        a.iter().for_each(|item| left[*item as usize] += 1);
        let taken = b.iter().filter(|item| {
            let left = left.get_mut(**item as usize).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        });
        return taken.count();
    }
    let (mut a, mut b): (Vec<&[u32]>, Vec<&[u32]>) = (a.windows(order).collect(), b.windows(order).collect());
    a.sort_unstable();
    b.sort_unstable();
    let (mut at, mut common) = (0, 0);
    for gram in a {
        while b.get(at).is_some_and(|other| *other < gram) {
            at += 1;
        }
        if b.get(at) == Some(&gram) {
            (at, common) = (at + 1, common + 1);
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(candidate: &[u32], references: &[&[u32]]) -> [usize; 3] {
        let narrow: Vec<Grams<u64, 3>> = references.iter().map(|reference| Grams::new(reference)).collect();
        let wide: Vec<Grams<u128, 3>> = references.iter().map(|reference| Grams::new(reference)).collect();
        let shared = Grams::<u64, 3>::new(candidate).shared(&narrow);
        assert_eq!(shared, Grams::<u128, 3>::new(candidate).shared(&wide));
        shared
    }

    #[test]
    fn shared_grams_are_clipped_by_the_reference_that_has_most() {
        // 1 twice of three, 2 once; 1 1 once of two, 1 2 once; 1 1 2 once.
        assert_eq!(both(&[1, 1, 1, 2], &[&[1, 1, 2, 3]]), [3, 2, 1]);
        assert_eq!(both(&[1, 1, 1, 2], &[&[2, 3], &[1, 1]]), [3, 1, 0]);
        assert_eq!(both(&[1], &[&[]]), [0, 0, 0]);
        assert_eq!(both(&[], &[&[1]]), [0, 0, 0]);
        let grams = Grams::<u64, 3>::new(&[5, 6]);
        assert_eq!([1, 2, 3].map(|order| grams.count(order)), [2, 1, 0]);
    }

    #[test]
    fn as_many_as_a_plain_count_finds() {
        // A short alphabet, so that n-grams come again: x -> 5 x + 3 mod 257, low bits.
        let series = |mut x: u32, length: usize| -> Vec<u32> {
            let step = |_| {
                x = (5 * x + 3) % 257;
                x % 4 + 1
            };
            (0..length).map(step).collect()
        };
        let (a, b) = (series(1, 90), series(77, 70));
        let plain = |order: usize| {
            let count = |of: &[u32], gram: &[u32]| of.windows(order).filter(|other| *other == gram).count();
            let mut grams: Vec<&[u32]> = a.windows(order).collect();
            grams.sort();
            grams.dedup();
            grams.into_iter().map(|gram| count(&a, gram).min(count(&b, gram))).sum::<usize>()
        };
        assert_eq!(both(&a, &[&b]), [1, 2, 3].map(plain));
        assert_eq!([1, 2, 3].map(|order| common(&a, &b, order)), [1, 2, 3].map(plain));
    }

    #[test]
    fn large_items_need_the_wide_form() {
        assert!(Grams::<u64, 4>::hold(65_535) && !Grams::<u64, 4>::hold(65_536));
        assert!(Grams::<u128, 4>::hold(u32::MAX));
        // Every character, one more than its number.
        assert!(Grams::<u128, 6>::hold(u32::from(char::MAX) + 1));
    }
}
