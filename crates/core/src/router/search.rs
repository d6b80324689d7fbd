//! Ranked search over tools (BM25, Robertson and Zaragoza 2009).

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};
use rust_stemmers::{Algorithm, Stemmer};

/// One hit: the position of the tool in the catalogue, and how well it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Position in the list that was indexed.
    pub position: usize,
    /// BM25 score; only the order means something.
    pub score: f32,
}

/// An index over the texts of a catalogue.
pub struct Index {
    embedder: Embedder<u32, Words>,
    scorer: Scorer<usize, u32>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Index {
    /// Indexes `texts`; a hit's position is the position here.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let corpus: Vec<&str> = texts.collect();
        let embedder =
            EmbedderBuilder::<u32, Words>::with_tokenizer_and_fit_to_corpus(Words::new(), &corpus)
                .build();
        let mut scorer = Scorer::new();
        for (position, text) in corpus.iter().enumerate() {
            scorer.upsert(&position, embedder.embed(text));
        }
        Self { embedder, scorer }
    }

    /// Returns the best hits for `query`, best first; equal scores in catalogue order.
    pub fn search(&self, query: &str, limit: usize) -> Vec<Hit> {
        let mut hits: Vec<Hit> = self
            .scorer
            .matches(&self.embedder.embed(query))
            .into_iter()
            .map(|found| Hit { position: found.id, score: found.score })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
        hits.truncate(limit);
        hits
    }
}

/// Splits identifiers and prose into stemmed English words: `readFile`, `read_file` and
/// "reading files" meet.
struct Words {
    stemmer: Stemmer,
}

impl Words {
    fn new() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English) }
    }
}

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut last_lower = false;
        let mut end = |word: &mut String| {
            if !word.is_empty() {
                words.push(self.stemmer.stem(word).into_owned());
                word.clear();
            }
        };
        for c in text.chars() {
            if !c.is_alphanumeric() {
                end(&mut word);
                last_lower = false;
                continue;
            }
            if c.is_uppercase() && last_lower {
                end(&mut word);
            }
            last_lower = c.is_lowercase();
            word.extend(c.to_lowercase());
        }
        end(&mut word);
        words
    }
}
