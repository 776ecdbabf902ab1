//! Many users and items with latent tastes, for recommenders.
//!
//! Each item has a vector over genres, close to one of them, and a text that reveals it in part. Each user has a
//! vector of the same kind. Affinity is their dot product. Train edges are few and partly wrong, as in logs.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::seed::{normal, pick, rng, shuffle};

/// Genres, and a word each that gives an item away.
pub const GENRES: &[(&str, &str)] = &[
    ("mystery", "secret"),
    ("comedy", "funny"),
    ("travel", "road"),
    ("space", "star"),
    ("cooking", "kitchen"),
    ("music", "band"),
    ("sport", "match"),
    ("nature", "river"),
];

/// Sizes and noise of a market.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Users, at least 1.
    pub users: usize,
    /// Items, at least 20.
    pub items: usize,
    /// Standard deviation of what makes an item more than its genre. No unit; genres have length 1.
    pub spread: f64,
    /// Probability that an item's text names its genre's word, in `[0, 1]`.
    pub reveal: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { users: 500, items: 500, spread: 0.25, reveal: 0.8 }
    }
}

/// Something to recommend.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// A made-up name, unique in its market.
    pub name: String,
    /// What its description says.
    pub text: String,
    /// Index into [`GENRES`].
    pub genre: usize,
    /// Latent vector, one number per genre.
    pub latent: Vec<f64>,
}

/// Users and products.
#[derive(Debug, Clone)]
pub struct Market {
    /// What can be recommended.
    pub products: Vec<Product>,
    /// Latent vector of each user.
    pub users: Vec<Vec<f64>>,
}

/// Candidates for one user with their grades.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Whose list it is.
    pub user: usize,
    /// Indices of products, in random order.
    pub products: Vec<usize>,
    /// Grade of each, larger is better.
    pub grades: Vec<f64>,
}

impl Market {
    /// The market of these settings and seed.
    /// # Errors
    /// [`Error::Setting`] if there are too few users or items, or a probability is none.
    pub fn new(settings: &Settings, seed: u64) -> Result<Self> {
        if settings.users == 0 {
            return Err(Error::setting("lists", "users", "at least 1", 0));
        }
        if settings.items < 20 {
            return Err(Error::setting("lists", "items", "at least 20", settings.items));
        }
        if !(0.0..=1.0).contains(&settings.reveal) {
            return Err(Error::setting("lists", "reveal", "0 to 1", settings.reveal));
        }
        if settings.spread.is_nan() || settings.spread < 0.0 {
            return Err(Error::setting("lists", "spread", "at least 0", settings.spread));
        }
        let mut rng = rng(seed, "lists/market");
        let products = (0..settings.items).map(|index| product(index, settings, &mut rng)).collect();
        let users = (0..settings.users)
            .map(|_| {
                let mut taste: Vec<f64> = GENRES.iter().map(|_| 0.3 * normal(&mut rng)).collect();
                for _ in 0..2 {
                    taste[rng.random_range(0..GENRES.len())] += 1.0;
                }
                taste
            })
            .collect();
        Ok(Market { products, users })
    }

    /// How much a user likes a product. No unit.
    pub fn affinity(&self, user: usize, product: usize) -> f64 {
        self.users[user]
            .iter()
            .zip(&self.products[product].latent)
            .map(|(taste, trait_)| taste * trait_)
            .sum()
    }

    /// Edges `(user, product)` as a log would hold them: `per_user` each, drawn among the user's best tenth, except
    /// a share that is drawn at random.
    pub fn interactions(&self, per_user: usize, false_share: f64, seed: u64) -> Vec<(usize, usize)> {
        let mut rng = rng(seed, "lists/interactions");
        let mut edges = Vec::with_capacity(self.users.len() * per_user);
        for user in 0..self.users.len() {
            let best = self.best(user);
            let top = &best[..(best.len() / 10).max(per_user).min(best.len())];
            for _ in 0..per_user {
                let wrong = rng.random_bool(false_share.clamp(0.0, 1.0));
                edges.push((user, if wrong { rng.random_range(0..best.len()) } else { pick(&mut rng, top) }));
            }
        }
        edges
    }

    /// Products from the most to the least liked.
    pub fn best(&self, user: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.products.len()).collect();
        order.sort_by(|a, b| self.affinity(user, *b).total_cmp(&self.affinity(user, *a)));
        order
    }

    /// A list with `counts[0]` products of grade 2, `counts[1]` of grade 1 and `counts[2]` of grade 0.
    ///
    /// Grade 2 are drawn from the user's best tenth, grade 1 from the next two tenths, grade 0 from the lower half.
    /// # Errors
    /// [`Error::Setting`] if the market is too small for the counts.
    pub fn candidates(&self, user: usize, counts: [usize; 3], seed: u64) -> Result<Candidates> {
        let best = self.best(user);
        let tenth = best.len() / 10;
        let bands = [&best[..tenth], &best[tenth..3 * tenth], &best[best.len() / 2..]];
        let mut rng = rng(seed, &format!("lists/candidates/{user}"));
        let mut graded: Vec<(usize, f64)> = Vec::new();
        for (band, (count, grade)) in bands.iter().zip(counts.into_iter().zip([2.0, 1.0, 0.0])) {
            if count > band.len() {
                return Err(Error::setting("lists", "counts", format!("at most {} here", band.len()), count));
            }
            let mut band = band.to_vec();
            shuffle(&mut rng, &mut band);
            graded.extend(band[..count].iter().map(|product| (*product, grade)));
        }
        shuffle(&mut rng, &mut graded);
        let (products, grades) = graded.into_iter().unzip();
        Ok(Candidates { user, products, grades })
    }

    /// What an assistant that reads descriptions would say of a product's genre: right with this probability.
    pub fn guess_genre(&self, product: usize, accuracy: f64, rng: &mut ChaCha8Rng) -> &'static str {
        let right = self.products[product].genre;
        let guess = if rng.random_bool(accuracy.clamp(0.0, 1.0)) {
            right
        } else {
            (right + rng.random_range(1..GENRES.len())) % GENRES.len()
        };
        GENRES[guess].0
    }
}

fn product(index: usize, settings: &Settings, rng: &mut ChaCha8Rng) -> Product {
    const SYLLABLES: &[&str] = &["ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu"];
    // Digits of the index in base ten, as syllables: short, unique, and no real name.
    let digits = format!("{index:03}");
    let name: String = digits.bytes().map(|digit| SYLLABLES[usize::from(digit - b'0')]).collect();
    let genre = rng.random_range(0..GENRES.len());
    let latent = (0..GENRES.len())
        .map(|at| f64::from(u8::from(at == genre)) + settings.spread * normal(rng))
        .collect();
    let word = if rng.random_bool(settings.reveal) { GENRES[genre].1 } else { "new" };
    let kind = pick(rng, &["story", "show", "tale"]);
    Product { name, text: format!("a {word} {kind}"), genre, latent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_follow_affinity() {
        let market = Market::new(&Settings { users: 20, items: 200, ..Settings::default() }, 1).unwrap();
        for user in 0..20 {
            let list = market.candidates(user, [3, 5, 12], 7).unwrap();
            assert_eq!(list.products.len(), 20);
            for (one, a) in list.products.iter().enumerate() {
                for (two, b) in list.products.iter().enumerate() {
                    if list.grades[one] > list.grades[two] {
                        assert!(market.affinity(user, *a) >= market.affinity(user, *b));
                    }
                }
            }
        }
        let names: std::collections::HashSet<_> = market.products.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), 200);
        let said = market.candidates(0, [21, 0, 0], 1).unwrap_err().to_string();
        assert_eq!(said, "world lists: setting counts: needs at most 20 here, got 21");
    }

    #[test]
    fn false_edges_are_worse_than_true_ones() {
        let market = Market::new(&Settings { users: 100, items: 300, ..Settings::default() }, 2).unwrap();
        let mean = |share| {
            let edges = market.interactions(5, share, 3);
            edges.iter().map(|(user, product)| market.affinity(*user, *product)).sum::<f64>()
                / edges.len() as f64
        };
        // Drawn from the top tenth against drawn from all: affinities of the top are far above the mean of about 0.3.
        assert!(mean(0.0) > mean(0.5) && mean(0.5) > mean(1.0), "{} {} {}", mean(0.0), mean(0.5), mean(1.0));
    }

    #[test]
    fn guesses_are_as_good_as_said() {
        let market = Market::new(&Settings { users: 1, items: 1000, ..Settings::default() }, 4).unwrap();
        let mut rng = rng(1, "guess");
        let right = (0..1000)
            .filter(|product| {
                market.guess_genre(*product, 0.7, &mut rng) == GENRES[market.products[*product].genre].0
            })
            .count();
        // Standard error sqrt(0.7 * 0.3 / 1000) = 0.0145; four of them.
        assert!((right as f64 / 1000.0 - 0.7).abs() < 0.058, "{right}");
    }
}
